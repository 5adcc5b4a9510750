/*
 * The first packet of a connection. What is taken must lie within it, and a packet that the
 * proxy makes of it for a server must say the same.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "proto.h"

struct seen {
	const uint8_t *data;
	size_t size, count;
	const char *pairs[PROTO_STARTUP_MAX / 2][2];
};

static int
see(void *arg, const char *name, const char *value)
{
	enum proto_replication replication = REPLICATION_NONE;
	struct seen *s = arg;

	INVARIANT(proto_replication_parse(value, &replication) != 0 || *value != '\0');
	INVARIANT(is_within(name, strlen(name) + 1, s->data, s->size));
	INVARIANT(is_within(value, strlen(value) + 1, s->data, s->size));
	INVARIANT(*name != '\0');
	s->pairs[s->count][0] = name;
	s->pairs[s->count][1] = value;
	s->count++;
	return (0);
}

static int
count_option(void *arg, const char *name, const char *value)
{
	size_t *bytes = arg;

	*bytes += strlen(name) + strlen(value) + 1;
	return (0);
}

static bool
same(const char *a, const char *b)
{
	return (a == NULL || b == NULL ? a == b : strcmp(a, b) == 0);
}

/* Writes all parameters anew, after the head's own (which they repeat), and reads that. */
static void
write_again(const struct proto_startup *s, struct seen *seen)
{
	struct proto_startup again;
	struct buf b = {0};
	ssize_t size;

	proto_startup(&b, s, (const char *const(*)[2])seen->pairs, seen->count);
	size = proto_startup_size(b.mem, b.len);
	if (size > 0) { /* not too long now */
		INVARIANT((size_t)size == b.len);
		INVARIANT(proto_startup_parse(b.mem, b.len, &again) == 0);
		INVARIANT(again.major == s->major && again.minor == s->minor);
		INVARIANT(same(again.user, s->user) && same(again.options, s->options));
		INVARIANT(same(again.database, s->database));
	}
	buf_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proto_startup s;
	struct seen *seen;
	size_t bytes = 0;
	char why[80];
	int rc;

	if (size < 4)
		return (0);
	rc = proto_startup_parse(data, size, &s);
	INVARIANT(rc != 0 || proto_startup_size(data, size) == (ssize_t)size);
	if (rc == 0 && s.kind == PROTO_CANCEL_REQUEST)
		INVARIANT(s.key_len >= 4 && is_within(s.key, s.key_len, data, size));
	if (rc != 0 || s.kind != PROTO_STARTUP)
		return (0);
	INVARIANT((const uint8_t *)s.params + s.params_len + 1 == data + size);
	INVARIANT(data[size - 1] == '\0');
	seen = mem_alloc(sizeof(*seen));
	seen->data = data;
	seen->size = size;
	rc = proto_startup_each(&s, see, seen);
	INVARIANT(rc == 0 && seen->count > 0 && *s.user != '\0');
	if (s.options != NULL) {
		rc =
		    proto_options_each(s.options, count_option, &bytes, why, sizeof(why));
		INVARIANT(bytes <= strlen(s.options));
		INVARIANT(rc == 0 || rc == F_PROTO_OPTIONS);
	}
	write_again(&s, seen);
	free(seen);
	return (0);
}
