/*
 * Sessions at the console: the simple and the extended protocol towards the client; who
 * understands the statements is the console behind session_set_console(). One statement runs
 * at a time; while it does, the client is paused.
 */
#include "config.h"
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONSOLE_MESSAGE_MAX (1024 * 1024)
#define CONSOLE_COLUMNS     128

/* A statement or a portal: both are a text under a name here. */
struct named {
	TAILQ_ENTRY(named) entry;
	char kind; /* S or P, as in Describe and Close */
	char *name, *sql;
	uint16_t
	    format_count; /* portal: result formats asked for: none, one for all, or each */
	uint16_t formats[CONSOLE_COLUMNS];
};

struct console {
	TAILQ_HEAD(, named) named;
	struct console_run *run; /* NULL: nothing runs */
	bool skips_to_sync;
};

/* A statement that runs. Outlives its session when it must. */
struct console_run {
	struct rows_sink sink;
	struct session *s; /* NULL: gone */
	bool is_simple;
	const struct rows_column *columns;
	unsigned column_count;
	uint64_t rows;
	uint16_t format_count;
	uint16_t formats[CONSOLE_COLUMNS];
};

static const struct session_console *runner;

void
session_set_console(const struct session_console *c)
{
	runner = c;
}

static void
console_write(struct session *s, struct buf *out)
{
	stream_write(&s->stream, out->mem, out->len);
	buf_free(out);
}

static uint16_t
format_of(uint16_t count, const uint16_t *formats, unsigned i)
{
	return (count == 0 ? 0 : count == 1 ? formats[0] : i < count ? formats[i] : 0);
}

/* RowDescription, with the formats that the portal will use. */
static void
put_description(struct buf *out, const struct rows_column *columns, unsigned count,
    uint16_t format_count, const uint16_t *formats)
{
	struct buf body = {0};
	uint8_t *p;

	p = buf_room(&body, 2);
	p[0] = (uint8_t)(count >> 8);
	p[1] = (uint8_t)count;
	body.len += 2;
	for (unsigned i = 0; i < count; i++) {
		int16_t size = rows_type_size(columns[i].type);

		buf_add(&body, columns[i].name, strlen(columns[i].name) + 1);
		p = buf_room(&body, 18);
		memset(p, 0, 18);
		proto_put32(p + 6, rows_type_oid(columns[i].type));
		p[10] = (uint8_t)((uint16_t)size >> 8);
		p[11] = (uint8_t)size;
		memset(p + 12, 0xff, 4);
		p[17] = (uint8_t)format_of(format_count, formats, i);
		body.len += 18;
	}
	proto_message(out, 'T', body.mem, body.len);
	buf_free(&body);
}

/* ---- the sink ---- */

static void
sink_begin(struct rows_sink *sink, const struct rows_column *columns, unsigned count)
{
	struct console_run *r = CONTAINER_OF(sink, struct console_run, sink);
	struct buf out = {0};

	INVARIANT(count <= CONSOLE_COLUMNS);
	r->columns = columns;
	r->column_count = count;
	if (r->s == NULL || !r->is_simple)
		return;
	put_description(&out, columns, count, 0, NULL);
	console_write(r->s, &out);
}

static void
sink_put(struct rows_sink *sink, const char *const *values)
{
	struct console_run *r = CONTAINER_OF(sink, struct console_run, sink);
	struct buf body = {0}, out = {0};
	uint32_t at;
	uint8_t *p;

	r->rows++;
	if (r->s == NULL)
		return;
	p = buf_room(&body, 2);
	p[0] = (uint8_t)(r->column_count >> 8);
	p[1] = (uint8_t)r->column_count;
	body.len += 2;
	for (unsigned i = 0; i < r->column_count; i++) {
		at = body.len;
		proto_put32(buf_room(&body, 4), UINT32_MAX);
		body.len += 4;
		if (values[i] == NULL)
			continue;
		if (format_of(r->format_count, r->formats, i) == 0)
			buf_addstr(&body, values[i]);
		else if (rows_binary(r->columns[i].type, values[i], &body) != 0)
			continue;
		proto_put32(body.mem + at, body.len - at - 4);
	}
	proto_message(&out, 'D', body.mem, body.len);
	buf_free(&body);
	console_write(r->s, &out);
}

/* The statement is over; the session reads on. */
static void
run_over(struct console_run *r, struct buf *out, bool failed)
{
	struct session *s = r->s;

	if (s != NULL) {
		if (r->is_simple)
			proto_ready(out, 'I');
		s->console->run = NULL;
		s->console->skips_to_sync = failed && !r->is_simple;
		s->request_us = clock_us();
		console_write(s, out);
		stream_resume(&s->stream);
	}
	buf_free(out);
	free(r);
}

static void
sink_end(struct rows_sink *sink, const char *tag)
{
	struct console_run *r = CONTAINER_OF(sink, struct console_run, sink);
	struct buf out = {0};
	char full[64];

	if (strcmp(tag, "SELECT") == 0) {
		snprintf(full, sizeof(full), "SELECT %llu", (unsigned long long)r->rows);
		tag = full;
	}
	if (tag[0] == '\0')
		proto_empty_query(&out);
	else
		proto_command_complete(&out, tag);
	run_over(r, &out, false);
}

static void
sink_fail(struct rows_sink *sink, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	struct console_run *r = CONTAINER_OF(sink, struct console_run, sink);
	struct buf out = {0};

	proto_error(&out, "ERROR", sqlstate, message, detail, hint);
	run_over(r, &out, true);
}

static void
sink_notice(struct rows_sink *sink, const char *message, const char *detail)
{
	struct console_run *r = CONTAINER_OF(sink, struct console_run, sink);
	struct buf out = {0};

	if (r->s == NULL)
		return;
	proto_error(&out, "NOTICE", "00000", message, detail, NULL);
	console_write(r->s, &out);
}

static const struct rows_sink_ops sink_ops = {
    .begin = sink_begin,
    .put = sink_put,
    .end = sink_end,
    .fail = sink_fail,
    .notice = sink_notice,
};

static struct console_run *
run_create(struct session *s, bool is_simple)
{
	struct console_run *r = mem_alloc(sizeof(*r));

	r->sink.ops = &sink_ops;
	r->s = s;
	r->is_simple = is_simple;
	s->console->run = r;
	/* A runner that answers at once resumes before it returns. */
	stream_pause(&s->stream);
	return (r);
}

/* ---- names ---- */

static struct named *
named_find(struct session *s, char kind, const char *name)
{
	struct named *n;

	TAILQ_FOREACH(n, &s->console->named, entry)
		if (n->kind == kind && strcmp(n->name, name) == 0)
			return (n);
	return (NULL);
}

static void
named_drop(struct session *s, struct named *n)
{
	if (n == NULL)
		return;
	TAILQ_REMOVE(&s->console->named, n, entry);
	free(n->name);
	free(n->sql);
	free(n);
}

static struct named *
named_add(struct session *s, char kind, const char *name, const char *sql)
{
	struct named *n = mem_alloc(sizeof(*n));

	n->kind = kind;
	n->name = mem_str(name);
	n->sql = mem_str(sql);
	TAILQ_INSERT_TAIL(&s->console->named, n, entry);
	return (n);
}

/* ---- messages of the extended protocol ---- */

static void
extended_fail(struct session *s, const char *sqlstate, const char *fmt, const char *name)
{
	struct buf out = {0};
	char *message = mem_printf("%s \"%s\"", fmt, name);

	proto_error(&out, "ERROR", sqlstate, message, NULL, NULL);
	free(message);
	console_write(s, &out);
	s->console->skips_to_sync = true;
}

static void
extended_answer(struct session *s, char type)
{
	struct buf out = {0};

	proto_message(&out, type, NULL, 0);
	console_write(s, &out);
}

static int
extended_parse(struct session *s, const uint8_t *body, size_t len)
{
	struct proto_parse parse;
	struct named *n;

	if (proto_parse_parse(body, len, &parse) != 0)
		return (F_PROTO_MESSAGE);
	n = named_find(s, 'S', parse.name);
	if (n != NULL && parse.name[0] != '\0') {
		extended_fail(
		    s, "42P05", "prepared statement already exists:", parse.name);
		return (0);
	}
	named_drop(s, n);
	named_add(s, 'S', parse.name, parse.sql);
	extended_answer(s, '1');
	return (0);
}

/* A list of 16-bit numbers with its count before it; what follows. */
static const uint8_t *
bind_list(const uint8_t *p, const uint8_t *end, uint16_t *count)
{
	if (p == NULL || end - p < 2)
		return (NULL);
	*count = proto_get16(p);
	p += 2;
	return (end - p < 2 * (ptrdiff_t)*count ? NULL : p);
}

static int
extended_bind(struct session *s, const uint8_t *body, size_t len)
{
	const char *portal, *statement;
	const uint8_t *p, *end = body + len;
	struct named *from, *n;
	uint16_t count, params;
	size_t rest;

	if (proto_bind_names(body, len, &portal, &statement, &rest) != 0)
		return (F_PROTO_MESSAGE);
	p = bind_list(body + rest, end, &count);
	if (p == NULL || end - p < 2 * count + 2)
		return (F_PROTO_MESSAGE);
	params = proto_get16(p + 2 * count);
	if (params != 0) {
		extended_fail(
		    s, "08P01", "the console takes no parameters in", statement);
		return (0);
	}
	p = bind_list(p + 2 * count + 2, end, &count);
	if (p == NULL || count > CONSOLE_COLUMNS)
		return (F_PROTO_MESSAGE);
	from = named_find(s, 'S', statement);
	if (from == NULL) {
		extended_fail(s, "26000", "no such prepared statement:", statement);
		return (0);
	}
	named_drop(s, named_find(s, 'P', portal));
	n = named_add(s, 'P', portal, from->sql);
	n->format_count = count;
	for (unsigned i = 0; i < count; i++)
		n->formats[i] = proto_get16(p + 2 * i);
	extended_answer(s, '2');
	return (0);
}

static int
extended_target(struct session *s, char type, const uint8_t *body, size_t len)
{
	static const uint8_t no_parameters[2];
	const struct rows_column *columns = NULL;
	struct buf out = {0};
	unsigned count = 0;
	const char *name;
	struct named *n;
	char what;

	if (proto_target_parse(body, len, &what, &name) != 0)
		return (F_PROTO_MESSAGE);
	n = named_find(s, what, name);
	if (type == 'C') {
		named_drop(s, n);
		extended_answer(s, '3');
		return (0);
	}
	if (n == NULL) {
		extended_fail(s, what == 'S' ? "26000" : "34000",
		    what == 'S' ? "no such prepared statement:" : "no such portal:",
		    name);
		return (0);
	}
	if (what == 'S')
		proto_message(&out, 't', no_parameters, sizeof(no_parameters));
	if (runner->describe(s, n->sql, &columns, &count) && columns != NULL)
		put_description(&out, columns, count, n->format_count, n->formats);
	else
		proto_message(&out, 'n', NULL, 0);
	console_write(s, &out);
	return (0);
}

static int
extended_execute(struct session *s, const uint8_t *body, size_t len)
{
	const uint8_t *end = memchr(body, '\0', len);
	struct console_run *r;
	struct named *n;

	if (end == NULL || (size_t)(end - body) + 5 != len)
		return (F_PROTO_MESSAGE);
	n = named_find(s, 'P', (const char *)body);
	if (n == NULL) {
		extended_fail(s, "34000", "no such portal:", (const char *)body);
		return (0);
	}
	r = run_create(s, false);
	r->format_count = n->format_count;
	memcpy(r->formats, n->formats, sizeof(r->formats));
	stat_count(M_console_statements, 1);
	runner->run(s, n->sql, &r->sink);
	return (0);
}

/* ---- bytes ---- */

static int
console_query(struct session *s, const uint8_t *body, size_t len)
{
	const char *sql;

	if (proto_string_parse(body, len, &sql) != 0)
		return (F_PROTO_MESSAGE);
	stat_count(M_console_statements, 1);
	runner->run(s, sql, &run_create(s, true)->sink);
	return (0);
}

static int
console_message(struct session *s, char type, const uint8_t *body, size_t len)
{
	struct console *c = s->console;

	if (c->skips_to_sync && strchr("SX", type) == NULL)
		return (0);
	switch (type) {
	case 'Q':
		return (console_query(s, body, len));
	case 'P':
		return (extended_parse(s, body, len));
	case 'B':
		return (extended_bind(s, body, len));
	case 'D':
	case 'C':
		return (extended_target(s, type, body, len));
	case 'E':
		return (extended_execute(s, body, len));
	case 'S':
		c->skips_to_sync = false;
		session_ready(s, 'I');
		return (0);
	case 'H':
		return (0);
	case 'X':
		session_end(s, "client close request");
		return (0);
	default:
		return (F_PROTO_MESSAGE);
	}
}

size_t
session_console_bytes(struct session *s, const uint8_t *p, size_t len)
{
	size_t used = 0;

	s->request_us = clock_us();
	while (len - used >= PROTO_HEAD && s->state == SESSION_CONSOLE &&
	       s->console->run == NULL) {
		uint32_t size = proto_get32(p + used + 1);

		if (size < 4 || size > CONSOLE_MESSAGE_MAX) {
			session_close(s, "08P01", "invalid message length");
			break;
		}
		if (len - used < (size_t)size + 1)
			break;
		if (console_message(s, (char)p[used], p + used + PROTO_HEAD, size - 4) !=
		    0) {
			session_close(s, "08P01", fault_info(F_PROTO_MESSAGE)->text);
			break;
		}
		used += (size_t)size + 1;
	}
	if (s->state == SESSION_CLOSED)
		return (len);
	session_flow(s);
	return (used);
}

bool
session_console_is_busy(const struct session *s)
{
	return (s->console != NULL && s->console->run != NULL);
}

/* ---- life ---- */

void
session_console_start(struct session *s)
{
	static const char *const parameters[][2] = {
	    {"server_version", PACKAGE_VERSION "/pgweave"},
	    {"client_encoding", "UTF8"},
	    {"server_encoding", "UTF8"},
	    {"DateStyle", "ISO, MDY"},
	    {"TimeZone", "UTC"},
	    {"standard_conforming_strings", "on"},
	    {"integer_datetimes", "on"},
	    {"is_superuser", "off"},
	};
	enum topo_console role =
	    topo_console_role(pool_worker(s->worker)->topo, session_user(s));
	struct buf out = {0};

	if (session_is_operator(s) ||
	    session_key_operates(
		s, topo_key_find(pool_worker(s->worker)->topo, session_user(s))))
		role = TOPO_CONSOLE_ADMIN;
	if (role == TOPO_CONSOLE_NO || runner == NULL) {
		session_close(s, "42501", "not allowed");
		return;
	}
	s->is_admin = role == TOPO_CONSOLE_ADMIN;
	s->console = mem_alloc(sizeof(*s->console));
	TAILQ_INIT(&s->console->named);
	s->says_pgbouncer = strcmp(s->login->startup.database, "pgbouncer") == 0;
	stat_count(M_console_logins, 1);
	session_login_said(s, &out);
	proto_auth_ok(&out);
	for (size_t i = 0; i < ARRAY_LEN(parameters); i++)
		proto_parameter_status(&out, parameters[i][0], parameters[i][1]);
	session_key_put(s, &out);
	proto_ready(&out, 'I');
	session_move(s, SESSION_CONSOLE);
	console_write(s, &out);
	session_login_free(s);
}

void
session_console_free(struct session *s)
{
	struct console *c = s->console;
	struct named *n;

	if (c == NULL)
		return;
	while ((n = TAILQ_FIRST(&c->named)) != NULL)
		named_drop(s, n);
	/* What still runs ends without a listener. */
	if (c->run != NULL)
		c->run->s = NULL;
	free(c);
	s->console = NULL;
}
