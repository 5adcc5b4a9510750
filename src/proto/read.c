/*
 * Messages received: bodies without their heads, from clients and from servers. Nothing is
 * copied; what is answered points into the body.
 *
 * A message is taken only when its parts fill its body exactly: a peer that counts wrong is
 * not one to guess about.
 */
#include <string.h>

#include "put.h"

/* What is left of a body. */
struct rest {
	const uint8_t *p;
	size_t len;
};

/* Takes a NUL-terminated string. NULL: there is none. */
static const char *
take_str(struct rest *r, size_t *len)
{
	const uint8_t *s = r->p, *nul;

	nul = r->len > 0 ? memchr(s, '\0', r->len) : NULL;
	if (nul == NULL)
		return (NULL);
	*len = (size_t)(nul - s);
	r->p += *len + 1;
	r->len -= *len + 1;
	return ((const char *)s);
}

/* ---- from a server ---- */

int
proto_error_parse(const uint8_t *body, size_t len, struct proto_error_fields *out)
{
	struct rest r = {body, len};
	const char *text, *untranslated = NULL;
	size_t n;

	*out = (struct proto_error_fields){"", "", "", "", "", "", ""};
	while (r.len > 0 && *r.p != '\0') {
		char field = (char)*r.p++;

		r.len--;
		text = take_str(&r, &n);
		if (text == NULL)
			return (F_PROTO_MESSAGE);
		switch (field) {
		case 'S':
			out->severity = text;
			break;
		case 'V':
			untranslated = text;
			break;
		case 'C':
			out->sqlstate = text;
			break;
		case 'M':
			out->message = text;
			break;
		case 'D':
			out->detail = text;
			break;
		case 'H':
			out->hint = text;
			break;
		case 'R':
			out->routine = text;
			break;
		case 'W':
			out->context = text;
			break;
		default: /* other fields are passed on, not looked at */
			break;
		}
	}
	if (untranslated != NULL)
		out->severity = untranslated;
	return (r.len == 1 ? 0 : F_PROTO_MESSAGE);
}

#define RENAME_MAX 0x3fffffffu /* bytes of a renamed error; servers send a few hundred */

/* How often `what` stands in `text`; an empty one never. */
static size_t
count_of(const char *text, const char *what, size_t what_len)
{
	size_t n = 0;

	if (what_len == 0)
		return (0);
	for (; (text = strstr(text, what)) != NULL; text += what_len)
		n++;
	return (n);
}

int
proto_error_rename(
    struct buf *b, const uint8_t *body, size_t len, const char *from, const char *to)
{
	struct proto_error_fields fields;
	size_t from_len = strlen(from), to_len = strlen(to), count, before;
	const char *text, *hit;
	uint8_t *out;

	if (proto_error_parse(body, len, &fields) != 0 || len > RENAME_MAX)
		return (F_PROTO_MESSAGE);
	text = fields.message;
	count = count_of(text, from, from_len);
	if (to_len > from_len && count > (RENAME_MAX - len) / (to_len - from_len))
		return (F_PROTO_MESSAGE);
	out = put_head(b, 'E', len - count * from_len + count * to_len);
	if (count == 0) {
		put_bytes(out, body, len);
		return (0);
	}
	before = (size_t)(text - (const char *)body);
	out = put_bytes(out, body, before);
	for (; count > 0; count--) {
		hit = strstr(text, from);
		INVARIANT(hit != NULL);
		out = put_bytes(out, text, (size_t)(hit - text));
		out = put_bytes(out, to, to_len);
		text = hit + from_len;
	}
	put_bytes(out, text, (size_t)((const char *)body + len - text));
	return (0);
}

const char *
proto_error_field(const uint8_t *body, size_t len, char field)
{
	struct rest r = {body, len};
	const char *text;
	size_t n;

	while (r.len > 0 && *r.p != '\0') {
		char is = (char)*r.p++;

		r.len--;
		text = take_str(&r, &n);
		if (text == NULL || is == field)
			return (text != NULL ? text : "");
	}
	return ("");
}

int
proto_error_move(struct buf *b, const uint8_t *body, size_t len, const char *from,
    const char *to, long position)
{
	const char *was = proto_error_field(body, len, 'P');
	size_t at = (size_t)((const uint8_t *)was - body), was_len = strlen(was);
	struct buf moved = {0};
	int fault;

	if (*was == '\0')
		return (proto_error_rename(b, body, len, from, to));
	if (position > 0) {
		buf_add(&moved, body, at);
		buf_addf(&moved, "%ld", position);
		buf_add(&moved, body + at + was_len, len - at - was_len);
	} else {
		buf_add(&moved, body, at - 1);
		buf_add(&moved, body + at + was_len + 1, len - at - was_len - 1);
	}
	fault = proto_error_rename(b, moved.mem, moved.len, from, to);
	buf_free(&moved);
	return (fault);
}

int
proto_parameter_parse(
    const uint8_t *body, size_t len, const char **name, const char **value)
{
	struct rest r = {body, len};
	size_t n;

	*name = take_str(&r, &n);
	*value = take_str(&r, &n);
	return (*name != NULL && *value != NULL && r.len == 0 ? 0 : F_PROTO_MESSAGE);
}

int
proto_auth_parse(const uint8_t *body, size_t len, uint32_t *code, const uint8_t **data,
    size_t *data_len)
{
	if (len < 4)
		return (F_PROTO_MESSAGE);
	*code = proto_get32(body);
	*data = body + 4;
	*data_len = len - 4;
	return (0);
}

int
proto_backend_key_parse(
    const uint8_t *body, size_t len, uint32_t *pid, const uint8_t **key, size_t *key_len)
{
	if (len < 4 + 4 || len > 4 + PROTO_KEY_MAX)
		return (F_PROTO_MESSAGE);
	*pid = proto_get32(body);
	*key = body + 4;
	*key_len = len - 4;
	return (0);
}

/* ---- from a client ---- */

int
proto_parse_parse(const uint8_t *body, size_t len, struct proto_parse *out)
{
	struct rest r = {body, len};

	*out = (struct proto_parse){0};
	out->name = take_str(&r, &out->name_len);
	out->sql = take_str(&r, &out->sql_len);
	if (out->name == NULL || out->sql == NULL || r.len < 2 ||
	    r.len != 2 + 4 * (size_t)proto_get16(r.p))
		return (F_PROTO_MESSAGE);
	out->types = r.p;
	out->types_len = r.len;
	return (0);
}

int
proto_bind_names(const uint8_t *body, size_t have, const char **portal,
    const char **statement, size_t *rest)
{
	struct rest r = {body, have};
	size_t n;

	*portal = take_str(&r, &n);
	*statement = *portal == NULL ? NULL : take_str(&r, &n);
	if (*statement == NULL)
		return (F_AGAIN);
	*rest = have - r.len;
	return (0);
}

int
proto_target_parse(const uint8_t *body, size_t len, char *what, const char **name)
{
	if (len < 2 || (body[0] != 'S' && body[0] != 'P'))
		return (F_PROTO_MESSAGE);
	*what = (char)body[0];
	return (proto_string_parse(body + 1, len - 1, name));
}

int
proto_string_parse(const uint8_t *body, size_t len, const char **s)
{
	struct rest r = {body, len};
	size_t n;

	*s = take_str(&r, &n);
	return (*s != NULL && r.len == 0 ? 0 : F_PROTO_MESSAGE);
}

int
proto_sasl_initial_parse(const uint8_t *body, size_t len, const char **mechanism,
    const uint8_t **data, size_t *data_len)
{
	struct rest r = {body, len};
	uint32_t size;
	size_t n;

	*mechanism = take_str(&r, &n);
	if (*mechanism == NULL || r.len < 4)
		return (F_PROTO_MESSAGE);
	size = proto_get32(r.p);
	*data = size == UINT32_MAX ? NULL : r.p + 4;
	*data_len = r.len - 4;
	return (
	    size == *data_len || (*data == NULL && *data_len == 0) ? 0 : F_PROTO_MESSAGE);
}
