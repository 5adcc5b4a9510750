/*
 * The protocol of a client inside the process.
 *
 *     GREETING --ReadyForQuery--> OPEN --lost--> LOST --inner_close()--> CLOSED
 *
 * Texts must be UTF-8: where the greeting says that client_encoding is another one, a SET goes
 * before the first statement.
 */
#include "inner.h"
#include "proto.h"
#include "session.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define INNER_MAGIC   0x494e4e52U
#define COLUMNS_MAX   1664 /* PostgreSQL's MaxTupleAttributeNumber */
#define TAG_MAX       128
#define OID_JSON      114
#define OID_JSONB     3802
#define COPY_REFUSED  "COPY FROM STDIN and TO STDOUT cannot be used here"
#define CLIENT_GONE   "the connection was closed while the statement ran"
#define TOO_LONG_HINT "fetch fewer or shorter values, or raise http_max_result"

/* A statement that waits for its answer. */
struct ask {
	STAILQ_ENTRY(ask) entry;
	const struct inner_reader *reader;
	void *arg;
	struct buf error; /* body of its ErrorResponse */
	bool has_columns;
	struct inner_params params; /* while it is the one that looks */
	struct buf bind;            /* the rest of what is sent for it */
	char tag[TAG_MAX];
};

struct inner {
	struct burial burial;
	uint32_t magic;
	enum { GREETING, OPEN, LOST, CLOSED } state;
	struct worker *worker;
	struct stream stream;
	STAILQ_HEAD(, ask) asks;
	struct buf unsent; /* before the greeting */
	struct ask
	    *looks; /* the one that asks for the types of its parameters; or NULL */
	struct buf behind; /* unsent, behind that one */
	size_t max_message;
	bool wants_utf8; /* client_encoding is another one */
	char status;
	struct inner_column *columns;
	struct inner_value *values;
	unsigned column_count;
};

/* ---- the end ---- */

static void
ask_free(struct ask *a)
{
	buf_free(&a->error);
	buf_free(&a->bind);
	free(a);
}

static void
inner_bury(struct burial *b)
{
	struct inner *in = CONTAINER_OF(b, struct inner, burial);
	struct ask *a;

	while ((a = STAILQ_FIRST(&in->asks)) != NULL) {
		STAILQ_REMOVE_HEAD(&in->asks, entry);
		ask_free(a);
	}
	buf_free(&in->unsent);
	buf_free(&in->behind);
	free(in->columns);
	free(in->values);
	free(in);
}

void
inner_close(struct inner *in)
{
	struct buf farewell = {0};

	if (in == NULL)
		return;
	INVARIANT(in->magic == INNER_MAGIC && in->state != CLOSED);
	if (in->state == OPEN && STAILQ_EMPTY(&in->asks)) {
		proto_terminate(&farewell);
		stream_write(&in->stream, farewell.mem, farewell.len);
		buf_free(&farewell);
	}
	in->state = CLOSED;
	stream_close(&in->stream);
	worker_bury(in->worker, &in->burial, inner_bury);
}

/* Tells the oldest ask how it has ended. */
static void
ask_end(struct inner *in, const struct inner_end *end)
{
	struct ask *a = STAILQ_FIRST(&in->asks);

	STAILQ_REMOVE_HEAD(&in->asks, entry);
	if (a->reader->end != NULL)
		a->reader->end(a->arg, end);
	ask_free(a);
}

/* Nothing more comes: everybody who waits is told. error: why, or NULL: what the server said
 * last, if it did. */
static void
inner_lost(struct inner *in, const struct inner_message *error)
{
	const struct inner_message gone = {"FATAL", "08006", CLIENT_GONE, "", ""};
	struct proto_error_fields said;

	stream_close(&in->stream);
	in->state = LOST;
	while (in->state == LOST && !STAILQ_EMPTY(&in->asks)) {
		const struct buf *last = &STAILQ_FIRST(&in->asks)->error;
		struct inner_end end = {.error = error != NULL ? *error : gone};

		if (error == NULL && last->len > 0 &&
		    proto_error_parse(last->mem, last->len, &said) == 0)
			end.error = (struct inner_message){said.severity, said.sqlstate,
			    said.message, said.detail, said.hint};
		ask_end(in, &end);
	}
}

static void
inner_broken(struct inner *in, const char *sqlstate, const char *what, const char *hint)
{
	const struct inner_message error = {"FATAL", sqlstate, what, "", hint};

	inner_lost(in, &error);
}

/* ---- parameters ---- */

static void
put_16(struct buf *b, unsigned n)
{
	const uint8_t bytes[] = {(uint8_t)(n >> 8), (uint8_t)n};

	buf_add(b, bytes, sizeof(bytes));
}

/* Bind of the unnamed statement to the unnamed portal, all in text, and the rest. types: of the
 * parameters, as ParameterDescription has them; type_count 0: not known. */
static void
put_rest(struct buf *out, const struct inner_params *params, const uint8_t *types,
    unsigned type_count)
{
	struct buf body = {0};
	uint8_t size[4];

	buf_add(&body, "\0", 2); /* portal and statement */
	put_16(&body, 0);
	put_16(&body, params->count);
	for (unsigned i = 0; i < params->count; i++) {
		uint32_t type = i < type_count ? proto_get32(types + 4 * (size_t)i) : 0;
		const char *text = params->texts[i];
		size_t len;

		if (params->arrays != NULL && params->arrays[i] != NULL &&
		    type != OID_JSON && type != OID_JSONB)
			text = params->arrays[i];
		len = text != NULL ? strlen(text) : 0;
		proto_put32(size, text != NULL ? (uint32_t)len : UINT32_MAX);
		buf_add(&body, size, sizeof(size));
		buf_add(&body, text, len);
	}
	put_16(&body, 0);
	proto_message(out, 'B', body.mem, body.len);
	buf_free(&body);
	proto_message(out, 'D', "P", 2);
	proto_message(out, 'E', "\0\0\0\0", 5);
	proto_sync(out);
}

/* ParameterDescription */
static bool
got_types(struct inner *in, const uint8_t *p, size_t len)
{
	struct ask *a = in->looks;
	unsigned count = len >= 2 ? proto_get16(p) : 0;

	if (a == NULL || a != STAILQ_FIRST(&in->asks) || len != 2 + 4 * (size_t)count)
		return (false);
	put_rest(&a->bind, &a->params, p + 2, count);
	return (true);
}

/* The types are known, or there is an error; what has waited goes out. */
static void
look_over(struct inner *in, bool has_failed)
{
	struct buf sync = {0};
	struct ask *a = in->looks;

	in->looks = NULL;
	if (has_failed) {
		proto_sync(&sync);
		stream_write(&in->stream, sync.mem, sync.len);
	} else
		stream_write(&in->stream, a->bind.mem, a->bind.len);
	buf_free(&sync);
	stream_write(&in->stream, in->behind.mem, in->behind.len);
	buf_free(&in->behind);
}

static bool
is_looking(const struct inner *in)
{
	return (in->looks != NULL && in->looks == STAILQ_FIRST(&in->asks));
}

/* ---- messages ---- */

/* Takes a NUL-terminated string off the body; NULL: there is none. */
static const char *
take_string(const uint8_t **p, const uint8_t *end)
{
	const char *s = (const char *)*p;
	const uint8_t *nul = memchr(*p, '\0', (size_t)(end - *p));

	if (nul == NULL)
		return (NULL);
	*p = nul + 1;
	return (s);
}

static bool
got_columns(struct inner *in, const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;
	struct ask *a = STAILQ_FIRST(&in->asks);
	unsigned count = len >= 2 ? proto_get16(p) : COLUMNS_MAX + 1;

	if (a == NULL || a->has_columns || count > COLUMNS_MAX)
		return (false);
	a->has_columns = true;
	in->columns = mem_realloc(in->columns, (count + 1) * sizeof(*in->columns));
	in->values = mem_realloc(in->values, (count + 1) * sizeof(*in->values));
	p += 2;
	for (unsigned i = 0; i < count; i++) {
		in->columns[i].name = take_string(&p, end);
		if (in->columns[i].name == NULL || end - p < 18)
			return (false);
		in->columns[i].type = proto_get32(p + 6);
		p += 18;
	}
	in->column_count = count;
	if (a->reader->columns != NULL)
		a->reader->columns(a->arg, in->columns, count);
	return (true);
}

static bool
got_row(struct inner *in, const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;
	struct ask *a = STAILQ_FIRST(&in->asks);

	if (a == NULL || !a->has_columns || len < 2 || proto_get16(p) != in->column_count)
		return (false);
	p += 2;
	for (unsigned i = 0; i < in->column_count; i++) {
		uint32_t size;

		if (end - p < 4)
			return (false);
		size = proto_get32(p);
		p += 4;
		in->values[i] = (struct inner_value){NULL, 0};
		if (size == UINT32_MAX)
			continue;
		if (size > (size_t)(end - p))
			return (false);
		in->values[i] = (struct inner_value){(const char *)p, size};
		p += size;
	}
	if (a->reader->row != NULL)
		a->reader->row(a->arg, in->values, in->column_count);
	return (true);
}

static bool
got_error(struct inner *in, const uint8_t *p, size_t len)
{
	struct ask *a = STAILQ_FIRST(&in->asks);
	struct proto_error_fields said;

	if (proto_error_parse(p, len, &said) != 0)
		return (false);
	/* The first one is the reason, what follows its consequence. */
	if (a != NULL && a->error.len == 0)
		buf_add(&a->error, p, len);
	if (is_looking(in))
		look_over(in, true);
	return (true);
}

static bool
got_notice(struct inner *in, const uint8_t *p, size_t len)
{
	struct ask *a = STAILQ_FIRST(&in->asks);
	struct proto_error_fields said;
	struct inner_message m;

	if (proto_error_parse(p, len, &said) != 0)
		return (false);
	m = (struct inner_message){
	    said.severity, said.sqlstate, said.message, said.detail, said.hint};
	if (a != NULL && a->reader->notice != NULL)
		a->reader->notice(a->arg, &m);
	return (true);
}

static bool
got_parameter(struct inner *in, const uint8_t *p, size_t len)
{
	const char *name, *value;

	if (proto_parameter_parse(p, len, &name, &value) != 0)
		return (false);
	if (strcmp(name, "client_encoding") == 0)
		in->wants_utf8 = strcasecmp(value, "UTF8") != 0;
	return (true);
}

static bool
got_tag(struct inner *in, const uint8_t *p, size_t len)
{
	struct ask *a = STAILQ_FIRST(&in->asks);
	const char *tag;

	if (a == NULL || proto_string_parse(p, len, &tag) != 0)
		return (false);
	text_copy(a->tag, sizeof(a->tag), tag);
	return (true);
}

/* The greeting is over: what has waited goes out. */
static void
inner_greeted(struct inner *in)
{
	static const struct inner_reader nobody;
	struct ask *a;

	in->state = OPEN;
	if (in->wants_utf8) {
		struct buf set = {0};

		a = mem_alloc(sizeof(*a));
		a->reader = &nobody;
		STAILQ_INSERT_HEAD(&in->asks, a, entry);
		proto_query(&set, "SET client_encoding TO 'UTF8'");
		stream_write(&in->stream, set.mem, set.len);
		buf_free(&set);
	}
	stream_write(&in->stream, in->unsent.mem, in->unsent.len);
	buf_free(&in->unsent);
}

static bool
got_ready(struct inner *in, const uint8_t *p, size_t len)
{
	struct ask *a = STAILQ_FIRST(&in->asks);
	struct proto_error_fields said;
	struct inner_end end = {.ok = true};

	if (len != 1 || strchr("ITE", p[0]) == NULL || p[0] == '\0')
		return (false);
	if (in->state == GREETING) {
		inner_greeted(in);
		return (true);
	}
	if (a == NULL)
		return (false);
	end.status = (char)p[0];
	end.tag = a->tag;
	if (a->error.len > 0) {
		end.ok = false;
		INVARIANT(proto_error_parse(a->error.mem, a->error.len, &said) == 0);
		end.error = (struct inner_message){
		    said.severity, said.sqlstate, said.message, said.detail, said.hint};
	}
	ask_end(in, &end);
	return (true);
}

/* False: it makes no sense. */
static bool
got_message(struct inner *in, char type, const uint8_t *p, size_t len)
{
	if (is_looking(in) && (type == 'T' || type == 'n')) {
		look_over(in, false);
		return (true);
	}
	switch (type) {
	case 't':
		return (got_types(in, p, len));
	case 'T':
		return (got_columns(in, p, len));
	case 'D':
		return (got_row(in, p, len));
	case 'C':
		return (got_tag(in, p, len));
	case 'Z':
		return (got_ready(in, p, len));
	case 'E':
		return (got_error(in, p, len));
	case 'N':
		return (got_notice(in, p, len));
	case 'S':
		return (got_parameter(in, p, len));
	case 'G':
	case 'H':
	case 'W':
		inner_broken(in, "0A000", COPY_REFUSED, "");
		return (true);
	case 'R':
	case 'K':
	case 'n':
	case '1':
	case '2':
	case 'I':
	case 's':
	case 'A':
		return (true);
	default:
		return (false);
	}
}

static size_t
inner_bytes(struct stream *s, const uint8_t *p, size_t len)
{
	struct inner *in = CONTAINER_OF(s, struct inner, stream);
	size_t used = 0;

	INVARIANT(in->magic == INNER_MAGIC);
	while (in->state < LOST && len - used >= PROTO_HEAD) {
		const uint8_t *head = p + used;
		uint32_t size = proto_get32(head + 1);
		char what[96];

		if (size < 4)
			inner_broken(
			    in, "08P01", "a message of an impossible length", "");
		else if (size > in->max_message && size > PROTO_STARTUP_MAX) {
			snprintf(what, sizeof(what),
			    "the result is larger than http_max_result (%zu bytes)",
			    in->max_message);
			inner_broken(in, "54000", what, TOO_LONG_HINT);
		} else if (len - used < (size_t)size + 1)
			return (used);
		else if (!got_message(in, (char)head[0], head + PROTO_HEAD, size - 4))
			inner_broken(in, "08P01", "a message that was not expected", "");
		used += (size_t)size + 1;
	}
	return (in->state < LOST ? used : len);
}

static void
inner_stream_lost(struct stream *s, int err)
{
	(void)err;
	inner_lost(CONTAINER_OF(s, struct inner, stream), NULL);
}

static const struct stream_ops inner_ops = {
    .bytes = inner_bytes,
    .lost = inner_stream_lost,
};

/* ---- asking ---- */

struct inner *
inner_open(struct worker *w, const char *login, const char *database,
    const struct addr *peer, size_t max_message)
{
	int fd = session_open_inner(login, database, peer);
	struct inner *in;

	if (fd < 0)
		return (NULL);
	in = mem_alloc(sizeof(*in));
	in->magic = INNER_MAGIC;
	in->worker = w;
	in->max_message = max_message;
	STAILQ_INIT(&in->asks);
	stream_open(&in->stream, w, fd, true, &inner_ops);
	return (in);
}

static struct ask *
inner_send(
    struct inner *in, struct buf *message, const struct inner_reader *reader, void *arg)
{
	struct ask *a = mem_alloc(sizeof(*a));

	INVARIANT(in->magic == INNER_MAGIC && in->state < LOST);
	a->reader = reader;
	a->arg = arg;
	STAILQ_INSERT_TAIL(&in->asks, a, entry);
	if (in->looks != NULL)
		buf_add(&in->behind, message->mem, message->len);
	else if (in->state == GREETING)
		buf_add(&in->unsent, message->mem, message->len);
	else
		stream_write(&in->stream, message->mem, message->len);
	buf_free(message);
	return (a);
}

void
inner_ask(struct inner *in, const char *sql, const struct inner_params *params,
    const struct inner_reader *reader, void *arg)
{
	static const uint8_t no_types[2];
	bool looks = params->arrays != NULL;
	struct buf out = {0};
	struct ask *a;

	INVARIANT(!looks || in->looks == NULL);
	proto_parse(&out, "", sql, no_types, sizeof(no_types));
	if (looks) {
		proto_message(&out, 'D', "S", 2);
		proto_message(&out, 'H', NULL, 0);
	} else
		put_rest(&out, params, NULL, 0);
	a = inner_send(in, &out, reader, arg);
	if (!looks)
		return;
	in->looks = a;
	a->params = *params;
}

void
inner_say(struct inner *in, const char *sql, const struct inner_reader *reader, void *arg)
{
	struct buf out = {0};

	proto_query(&out, sql);
	(void)inner_send(in, &out, reader, arg);
}
