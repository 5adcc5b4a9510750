/*
 * The first packet of a connection: SSLRequest, GSSENCRequest, CancelRequest or a
 * StartupMessage. It comes from somebody who is nobody yet.
 *
 *     int32 length (counts itself)
 *     int32 code: 1234.5678 cancel, 1234.5679 SSL, 1234.5680 GSSENC, otherwise major.minor
 *     cancel:   int32 process id, 4 to 256 bytes of key
 *     startup:  name NUL value NUL … NUL
 */
#include <string.h>
#include <strings.h>

#include "proto.h"

#define CODE_MAJOR  1234 /* of the codes that are not versions */
#define CODE_CANCEL 5678
#define CODE_SSL    5679
#define CODE_GSSENC 5680

#define HEAD        8 /* length and code */
#define KEY_MIN     4

ssize_t
proto_startup_size(const uint8_t *p, size_t len)
{
	uint32_t size;

	INVARIANT(len >= 4);
	size = proto_get32(p);
	if (size < HEAD || size > PROTO_STARTUP_MAX)
		return (F_PROTO_STARTUP);
	return ((ssize_t)size);
}

static int
parse_cancel(const uint8_t *p, size_t len, struct proto_startup *out)
{
	if (len < HEAD + 4 + KEY_MIN || len > HEAD + 4 + PROTO_KEY_MAX)
		return (F_PROTO_STARTUP);
	out->kind = PROTO_CANCEL_REQUEST;
	out->pid = proto_get32(p + HEAD);
	out->key = p + HEAD + 4;
	out->key_len = len - HEAD - 4;
	return (0);
}

/* As in PostgreSQL, the last of several equal names counts, and an empty database is none. */
static int
parse_params(const char *p, const char *end, struct proto_startup *out)
{
	out->params = p;
	while (p < end && *p != '\0') {
		const char *name = p, *value, *stop;

		stop = memchr(name, '\0', (size_t)(end - name));
		if (stop == NULL)
			return (F_PROTO_STARTUP);
		value = stop + 1;
		stop = value < end ? memchr(value, '\0', (size_t)(end - value)) : NULL;
		if (stop == NULL)
			return (F_PROTO_STARTUP);
		if (strcmp(name, "user") == 0)
			out->user = value;
		else if (strcmp(name, "database") == 0)
			out->database = value;
		else if (strcmp(name, "options") == 0)
			out->options = value;
		p = stop + 1;
	}
	if (p + 1 != end) /* the terminator is missing, or is not the last byte */
		return (F_PROTO_STARTUP);
	out->params_len = (size_t)(p - out->params);
	if (out->user == NULL || *out->user == '\0')
		return (F_PROTO_NO_USER);
	if (out->database == NULL || *out->database == '\0')
		out->database = out->user;
	return (0);
}

int
proto_startup_parse(const uint8_t *p, size_t len, struct proto_startup *out)
{
	*out = (struct proto_startup){0};
	if (len < HEAD || len > PROTO_STARTUP_MAX || proto_get32(p) != len)
		return (F_PROTO_STARTUP);
	out->major = proto_get16(p + 4);
	out->minor = proto_get16(p + 6);
	if (out->major == CODE_MAJOR && out->minor == CODE_CANCEL)
		return (parse_cancel(p, len, out));
	if (out->major == CODE_MAJOR &&
	    (out->minor == CODE_SSL || out->minor == CODE_GSSENC)) {
		out->kind =
		    out->minor == CODE_SSL ? PROTO_SSL_REQUEST : PROTO_GSSENC_REQUEST;
		return (len == HEAD ? 0 : F_PROTO_STARTUP);
	}
	out->kind = PROTO_STARTUP;
	if (out->major != 3)
		return (F_PROTO_VERSION);
	return (parse_params((const char *)p + HEAD, (const char *)p + len, out));
}

int
proto_startup_each(const struct proto_startup *s,
    int (*each)(void *arg, const char *name, const char *value), void *arg)
{
	const char *p = s->params, *end = s->params + s->params_len;
	int rc = 0;

	while (rc == 0 && p < end) {
		const char *name = p, *value = name + strlen(name) + 1;

		rc = each(arg, name, value);
		p = value + strlen(value) + 1;
	}
	return (rc);
}

/* A boolean is what PostgreSQL's parse_bool() takes: a word or a beginning of it that can be no
 * other's. */
int
proto_replication_parse(const char *value, enum proto_replication *out)
{
	static const struct {
		const char *word;
		size_t least; /* letters */
		bool is_true;
	} words[] = {
	    {"true", 1, true},
	    {"false", 1, false},
	    {"yes", 1, true},
	    {"no", 1, false},
	    {"on", 2, true},
	    {"off", 2, false},
	    {"1", 1, true},
	    {"0", 1, false},
	};
	size_t len = strlen(value);

	if (strcmp(value, "database") == 0) {
		*out = REPLICATION_LOGICAL;
		return (0);
	}
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (len >= words[i].least &&
		    strncasecmp(words[i].word, value, len) == 0 &&
		    len <= strlen(words[i].word)) {
			*out = words[i].is_true ? REPLICATION_PHYSICAL : REPLICATION_NONE;
			return (0);
		}
	return (F_PROTO_REPLICATION);
}
