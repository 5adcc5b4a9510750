/*
 * Bodies of messages from clients and servers. Every reader gets every body; where there is a
 * writer for what was read, it must make the same bytes of it.
 */
#include <string.h>

#include "fuzz.h"
#include "proto.h"

/* The input, for checks. */
static const uint8_t *body;
static size_t body_len;

static bool
is_inside(const char *s)
{
	return (is_within(s, strlen(s) + 1, body, body_len));
}

/* The one message in b has the body that was read; empties b. */
static void
expect_same(struct buf *b)
{
	INVARIANT(b->len == PROTO_HEAD + body_len);
	INVARIANT(body_len == 0 || memcmp(b->mem + PROTO_HEAD, body, body_len) == 0);
	buf_free(b);
}

static void
try_error(void)
{
	struct proto_error_fields f, renamed;
	struct buf b = {0};
	int rc = proto_error_parse(body, body_len, &f);

	if (rc != 0) {
		rc = proto_error_rename(&b, body, body_len, "a", "b");
		INVARIANT(rc == F_PROTO_MESSAGE && b.len == 0);
		return;
	}
	rc = proto_error_rename(&b, body, body_len, "", "x");
	INVARIANT(rc == 0);
	expect_same(&b);
	rc = proto_error_rename(&b, body, body_len, "a", "xyz");
	INVARIANT(rc == 0 && proto_get32(b.mem + 1) + 1 == b.len);
	rc = proto_error_parse(b.mem + PROTO_HEAD, b.len - PROTO_HEAD, &renamed);
	INVARIANT(rc == 0 && strchr(renamed.message, 'a') == NULL);
	INVARIANT(
	    strcmp(renamed.hint, f.hint) == 0 && strcmp(renamed.detail, f.detail) == 0);
	INVARIANT(strcmp(renamed.sqlstate, f.sqlstate) == 0);
	buf_free(&b);
}

static void
try_server_messages(void)
{
	const char *name, *value;
	const uint8_t *data;
	struct buf b = {0};
	uint32_t n;
	size_t len;

	if (proto_parameter_parse(body, body_len, &name, &value) == 0) {
		proto_parameter_status(&b, name, value);
		expect_same(&b);
	}
	if (proto_auth_parse(body, body_len, &n, &data, &len) == 0)
		INVARIANT(is_within(data, len, body, body_len));
	if (proto_backend_key_parse(body, body_len, &n, &data, &len) == 0) {
		INVARIANT(len >= 4 && len <= 256);
		proto_backend_key(&b, n, data, len);
		expect_same(&b);
	}
}

static void
try_client_messages(void)
{
	const char *a, *s;
	const uint8_t *data;
	struct proto_parse p;
	struct buf b = {0};
	size_t len;
	char what;

	if (proto_parse_parse(body, body_len, &p) == 0) {
		INVARIANT(strlen(p.name) == p.name_len && strlen(p.sql) == p.sql_len);
		proto_parse(&b, p.name, p.sql, p.types, p.types_len);
		expect_same(&b);
	}
	if (proto_target_parse(body, body_len, &what, &a) == 0 && what == 'S') {
		proto_close_statement(&b, a);
		expect_same(&b);
	}
	if (proto_string_parse(body, body_len, &a) == 0) {
		proto_query(&b, a);
		expect_same(&b);
	}
	if (proto_sasl_initial_parse(body, body_len, &a, &data, &len) == 0) {
		proto_sasl_initial(&b, a, data, len);
		expect_same(&b);
	}
	if (proto_bind_names(body, body_len, &a, &s, &len) == 0) {
		INVARIANT(is_inside(a) && is_inside(s) && len <= body_len);
		INVARIANT(s + strlen(s) + 1 == (const char *)body + len);
		/* Complete with these bytes, and not with one less. */
		INVARIANT(proto_bind_names(body, len, &a, &s, &len) == 0);
		INVARIANT(proto_bind_names(body, len - 1, &a, &s, &len) == F_AGAIN);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	body = data;
	body_len = size;
	try_error();
	try_server_messages();
	try_client_messages();
	return (0);
}
