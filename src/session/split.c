/*
 * An INSERT or COPY whose rows belong to several databases: what goes where, the client's COPY
 * data on its way, and the end of it.
 *
 *   scatter.c gathers the links -> split_run() -> the room federate splits -> split_done()
 *
 * A client may leave while COMMIT is on its way: then the commits are waited for without it.
 */
#include "weave.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weave_split {
	struct split *split; /* NULL: it does not run yet */
	struct federate_split order;
	struct federate_part parts[ROUTE_LEGS_MAX];
	const struct topo *topo; /* held */
	const struct topo_shard *shard;
	int8_t part_of_shard[ROUTE_SHARDS_MAX];
	char *table, *elsewhere;
	/* INSERT: */
	uint8_t *part_of_row;
	char *texts[ROUTE_LEGS_MAX];
	struct buf binds[ROUTE_LEGS_MAX]; /* types as in Parse, then formats and values */
};

void
weave_split_free(struct weave_split *sp)
{
	if (sp == NULL)
		return;
	topo_release(sp->topo);
	free(sp->table);
	free(sp->elsewhere);
	free(sp->part_of_row);
	for (size_t i = 0; i < ARRAY_LEN(sp->texts); i++) {
		free(sp->texts[i]);
		buf_free(&sp->binds[i]);
	}
	free(sp);
}

bool
weave_split_runs(const struct weave *w)
{
	return (w->run != NULL && w->run->split != NULL && w->run->split->split != NULL);
}

/* ---- what goes where ---- */

/* A transaction writes on one database: when it has written already, only that one is asked.
 * False: the refusal is set. */
static bool
narrow(struct session *s, struct route_plan *plan, struct weave_split *sp)
{
	struct weave *w = s->weave;
	struct leg *home = w->txn != TXN_NONE ? leg_home(w) : NULL;
	unsigned keep = 0;

	if (home == NULL || (!home->has_written && !home->has_savepoints))
		return (true);
	while (
	    keep < plan->leg_count && weave_seat(s, plan->legs[keep].node) != home->seat)
		keep++;
	if (keep == plan->leg_count)
		return (leg_may_write(w, weave_seat(s, plan->legs[0].node)));
	for (size_t i = 0; i < plan->split.shard->member_count; i++)
		plan->split.leg_of[i] = plan->split.leg_of[i] == (int8_t)keep ? 0 : -1;
	plan->legs[0] = plan->legs[keep];
	plan->leg_count = 1;
	sp->elsewhere = home->has_written
			    ? mem_printf("a transaction cannot write on two databases: "
					 "\"%s\" and",
				  plan->legs[0].member->name)
			    : mem_printf("a transaction with savepoints on \"%s\" cannot "
					 "write on",
				  plan->legs[0].member->name);
	return (true);
}

static void
put_16(struct buf *b, unsigned v)
{
	uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};

	buf_add(b, bytes, sizeof(bytes));
}

static void
put_32(struct buf *b, uint32_t v)
{
	uint8_t bytes[4];

	proto_put32(bytes, v);
	buf_add(b, bytes, sizeof(bytes));
}

/* The type that Parse gave it; 0: none. */
static uint32_t
type_of(const struct binding *b, unsigned number)
{
	return (b->types_len >= 2 + 4 * (size_t)number
		    ? proto_get32(b->types + 2 + 4 * (size_t)(number - 1))
		    : 0);
}

/* The parameters that a part mentions, as in Parse and Bind. */
static void
bind_part(struct federate_part *p, struct buf *to, const struct binding *b,
    const struct sql_part_params *params)
{
	unsigned count = params->count;
	struct route_datum d;

	put_16(to, count);
	for (unsigned i = 0; i < count; i++)
		put_32(to, type_of(b, params->numbers[i]));
	p->types_len = to->len;
	put_16(to, count);
	for (unsigned i = 0; i < count; i++)
		put_16(to, binding_param((void *)(uintptr_t)b, params->numbers[i], &d) &&
			       d.is_binary);
	put_16(to, count);
	for (unsigned i = 0; i < count; i++) {
		/* One that the client has not sent is the server's to refuse. */
		if (!binding_param((void *)(uintptr_t)b, params->numbers[i], &d))
			d = (struct route_datum){.is_null = true};
		put_32(to, d.is_null ? UINT32_MAX : (uint32_t)d.len);
		buf_add(to, d.p, d.len);
	}
	p->values_len = to->len - p->types_len;
	p->types = to->mem;
	p->values = to->mem + p->types_len;
}

/* Where nothing but the statement tells a parameter's type it must be the same in the part.
 * False: the refusal is set. */
static bool
look_at_types(
    struct session *s, const struct binding *b, const struct sql_part_params *params)
{
	char *message;

	for (unsigned i = 0; i < params->count; i++) {
		if (!params->may_change[i] || type_of(b, params->numbers[i]) != 0)
			continue;
		message = mem_printf(
		    "the type of parameter $%u hangs on rows that belong to different databases",
		    params->numbers[i]);
		refusal_set(&s->weave->refusal, "0A000", message, NULL,
		    "Use a parameter of its own in each row, or give its type with the statement.");
		free(message);
		return (false);
	}
	return (true);
}

/* The text of one part, and its parameters. False: the refusal is set. */
static bool
make_part(struct session *s, const struct binding *b, unsigned part, unsigned rows,
    struct sql_part_params *params)
{
	struct weave_run *run = s->weave->run;
	struct weave_split *sp = run->split;
	struct federate_part *p = &sp->parts[part];

	sp->texts[part] = sql_insert_part(
	    run->text, strlen(run->text), sp->part_of_row, rows, part, params);
	if (sp->texts[part] == NULL) {
		refusal_set(&s->weave->refusal, "0A000",
		    "the rows of this INSERT, which belong to several databases, cannot be told apart",
		    NULL, "Split the INSERT: the rows of one database in each.");
		return (false);
	}
	p->sql = sp->texts[part];
	if (b == NULL)
		return (true);
	if (!look_at_types(s, b, params))
		return (false);
	bind_part(p, &sp->binds[part], b, params);
	return (true);
}

/* The rows of an INSERT, and the text of each part. False: the refusal is set. */
static bool
make_parts(struct session *s, const struct route_plan *plan, const struct sense *sense,
    const struct binding *b)
{
	struct weave_split *sp = s->weave->run->split;
	unsigned rows = plan->split.rows->count;
	struct sql_part_params params = {.max = sense->scan.param_max};
	struct route_input in;
	bool is_good = true;

	params.numbers = mem_alloc((params.max + 1) * sizeof(*params.numbers));
	params.may_change = mem_alloc((params.max + 1) * sizeof(*params.may_change));
	sense_input(s, sense, b, &in);
	sp->part_of_row = mem_alloc(rows);
	route_split_rows(&in, plan, sp->part_of_row);
	for (unsigned i = 0; i < plan->leg_count && is_good; i++) {
		sp->parts[i].rows = plan->split.leg_rows[i];
		is_good = make_part(s, b, i, rows, &params);
	}
	free(params.numbers);
	free(params.may_change);
	return (is_good);
}

/* What its error says of a row for a database that it may not write. */
static void
set_elsewhere(struct session *s, struct weave_split *sp, struct federate_split *o)
{
	o->elsewhere_state = sp->elsewhere != NULL ? "0A000" : "42501";
	if (sp->elsewhere != NULL)
		o->elsewhere_hint =
		    "Outside a transaction, each row of a COPY goes to its database.";
	else
		sp->elsewhere = mem_printf("%s \"%s\" may not use database",
		    s->weave->key_is_key ? "key" : "login", s->user->name);
	o->elsewhere = sp->elsewhere;
}

bool
weave_split_make(struct session *s, struct route_plan *plan, const struct sense *sense,
    const struct stmt *st, struct portal *portal)
{
	struct weave_run *run = s->weave->run;
	struct weave_split *sp = mem_alloc(sizeof(*sp));
	struct federate_split *o = &sp->order;
	bool is_copy = plan->split.rows == NULL;

	run->split = sp;
	sp->topo = topo_hold(pool_worker(s->worker)->topo);
	sp->table = mem_str(plan->split.table->name);
	sp->shard = plan->split.shard;
	if (is_copy && !narrow(s, plan, sp))
		return (false);
	memcpy(sp->part_of_shard, plan->split.leg_of, sizeof(sp->part_of_shard));
	*o = (struct federate_split){.table = sp->table,
	    .is_copy = is_copy,
	    .begins = s->weave->txn == TXN_NONE,
	    .sql = run->text,
	    .copy = run->facts->copy,
	    .shard = sp->shard,
	    .key_at = plan->split.key_at,
	    .column_count = plan->split.column_count,
	    .part_of_shard = sp->part_of_shard,
	    .is_extended = st != NULL,
	    .wants_description = st == NULL,
	    .formats = run->order.formats,
	    .format_count = run->order.format_count,
	    .max_rows = run->order.max_rows};
	set_elsewhere(s, sp, o);
	if (is_copy)
		return (true);
	o->row_count = plan->split.rows->count;
	if (!make_parts(s, plan, sense, portal != NULL ? &portal->binding : NULL))
		return (false);
	o->part_of_row = sp->part_of_row;
	return (true);
}

/* ---- questions before it runs ---- */

static void
put_name(struct buf *out, const char *name)
{
	buf_addstr(out, "\"");
	for (const char *p = name; *p != '\0'; p++)
		buf_add(out, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
	buf_addstr(out, "\"");
}

static void
put_string(struct buf *out, const char *text, size_t len)
{
	buf_addstr(out, "E'");
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\'' || text[i] == '\\')
			buf_add(out, &text[i], 1);
		buf_add(out, &text[i], 1);
	}
	buf_addstr(out, "'");
}

/* The types of column whose binary form is that of the key's type. */
static const char *
types_of(enum topo_shard_type type)
{
	switch (type) {
	case TOPO_SHARD_TEXT:
	case TOPO_SHARD_CHAR:
		return ("18, 19, 25, 1042, 1043");
	case TOPO_SHARD_UUID:
		return ("2950");
	case TOPO_SHARD_INTEGER:
	case TOPO_SHARD_BIGINT:
		break;
	}
	return ("20, 21, 23");
}

/* In binary a value has no type: the column's must be the configured one. Divides by zero where
 * it is not. */
char *
weave_split_question(const struct session *s)
{
	const struct weave_run *run = s->weave->run;
	const struct sql_table *t = &run->facts->tables[0];
	struct buf out = {0}, name = {0};

	if (!run->split->order.is_copy || run->facts->copy->format != SQL_COPY_BINARY)
		return (NULL);
	if (t->schema != NULL) {
		put_name(&name, t->schema);
		buf_addstr(&name, ".");
	}
	put_name(&name, t->name);
	buf_addf(&out,
	    "SELECT 1 / (COALESCE(NULLIF(t.typbasetype, 0), t.oid) IN (%s) OR t.typtype = 'e')"
	    "::int FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = "
	    "a.atttypid WHERE a.attrelid = pg_catalog.to_regclass(",
	    types_of(run->split->shard->type));
	put_string(&out, (const char *)name.mem, name.len);
	buf_addstr(&out, ") AND a.attname = ");
	put_string(&out, run->split->shard->key, strlen(run->split->shard->key));
	buf_add(&out, "", 1);
	buf_free(&name);
	return ((char *)out.mem);
}

void
weave_split_refused(struct session *s, const char *member, struct refusal *r)
{
	const struct weave_split *sp = s->weave->run->split;
	char *message = mem_printf(
	    "COPY in binary needs column \"%s\" of table \"%s\" to be of the type of its shard key",
	    sp->shard->key, sp->table);
	char *detail = mem_printf("In database \"%s\" it is of another type than %s.",
	    member, topo_shard_type_name(sp->shard->type));

	refusal_set(r, "0A000", message, detail, "Use text or CSV.");
	free(message);
	free(detail);
}

/* ---- encodings ---- */

/* As PostgreSQL compares their names: letters and digits alone, in lower case. */
static void
encoding_name(const char *name, char *to, size_t size)
{
	size_t n = 0;

	for (const char *p = name != NULL ? name : ""; *p != '\0' && n + 1 < size; p++) {
		char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;

		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			to[n++] = c;
	}
	to[n] = '\0';
	if (strcmp(to, "unicode") == 0)
		(void)text_copy(to, size, "utf8");
}

/* Characters of more than one byte may end with one that looks like a delimiter. */
static bool
hides_ascii(const char *encoding)
{
	static const char *const names[] = {"big5", "gb18030", "gbk", "johab", "mskanji",
	    "shiftjis", "shiftjis2004", "sjis", "uhc", "win932", "win936", "win949",
	    "win950", "windows932", "windows936", "windows949", "windows950"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(encoding, names[i]) == 0)
			return (true);
	return (false);
}

/* What the stream means depends on the client's encoding, and on the servers. False: the refusal
 * is set. */
static bool
look_at_stream(struct session *s)
{
	struct weave_run *run = s->weave->run;
	struct federate_split *o = &run->split->order;
	const char *version, *said = o->copy->encoding;
	char ours[32], theirs[32];

	encoding_name(said != NULL ? said : vars_get(s->vars, "client_encoding"), ours,
	    sizeof(ours));
	if (o->copy->format != SQL_COPY_BINARY && hides_ascii(ours)) {
		refusal_set(&s->weave->refusal, "0A000",
		    "COPY to several databases cannot read this client encoding", ours,
		    "SET client_encoding to UTF8, or convert the file.");
		return (false);
	}
	for (unsigned i = 0; i < run->count; i++) {
		const struct link *l = leg_of_seat(s->weave, run->seats[i])->link;

		encoding_name(
		    vars_get(l->vars, "server_encoding"), theirs, sizeof(theirs));
		o->is_foreign_text |=
		    strcmp(ours, theirs) != 0 && strcmp(theirs, "sqlascii") != 0;
		version = vars_get(l->vars, "server_version");
		o->csv_has_mark |= version == NULL || strtol(version, NULL, 10) < 18;
	}
	return (true);
}

/* ---- the split's client ---- */

static void
on_out(void *arg, const uint8_t *p, size_t len)
{
	struct session *s = arg;

	METRIC_ADD(&s->weave->home->metrics, sent, len);
	stream_write(&s->stream, p, len);
}

static void
on_flow(void *arg)
{
	session_flow(arg);
}

static void
on_lost(void *arg, struct link *l)
{
	struct session *s = arg;
	struct leg *leg = leg_of_link(s->weave, l);

	(void)anchors_lost(s, l);
	if (leg == NULL)
		return;
	s->weave->is_doomed |= leg->is_open;
	leg_forget(s->weave, leg);
}

static void
on_done(void *arg, const struct federate_outcome *o)
{
	struct session *s = arg;
	struct weave *w = s->weave;
	struct weave_split *sp = w->run->split;
	struct refusal r = {0};

	for (unsigned i = 0; i < w->run->count; i++) {
		struct leg *leg = leg_of_seat(w, w->run->seats[i]);

		if (leg == NULL)
			continue;
		METRIC_INC(&leg->seat->metrics, query_count);
		leg->has_written |= leg->is_open && o->ok && split_rows(sp->split, i) > 0;
	}
	sp->split = NULL;
	legs_keep(s);
	w->unit.writes = true;
	weave_wrote(s);
	w->unit.writes = false;
	if (!o->ok) {
		refusal_set(&r, o->sqlstate, o->message, o->detail, o->hint);
		r.context = o->context != NULL ? mem_str(o->context) : NULL;
		scatter_fail(s, &r);
		refusal_free(&r);
	} else
		scatter_done(s);
}

static const struct federate_client split_client = {
    .out = on_out,
    .done = on_done,
    .lost = on_lost,
    .flow = on_flow,
};

void
weave_split_run(struct session *s)
{
	struct weave_run *run = s->weave->run;
	struct weave_split *sp = run->split;
	struct refusal r;

	if (sp->order.is_copy && !look_at_stream(s)) {
		r = s->weave->refusal;
		s->weave->refusal = (struct refusal){0};
		scatter_fail(s, &r);
		refusal_free(&r);
		return;
	}
	for (unsigned i = 0; i < run->count; i++) {
		sp->parts[i].link = leg_of_seat(s->weave, run->seats[i])->link;
		sp->parts[i].member = run->members[i];
	}
	sp->split =
	    split_start(s->worker, &sp->order, sp->parts, run->count, &split_client, s);
}

void
weave_split_cancel(struct session *s)
{
	split_cancel(s->weave->run->split->split);
}

/* ---- commits without a client ---- */

struct orphan {
	TAILQ_ENTRY(orphan) entry;
	struct worker *worker;
	struct weave_run *run; /* what the split points to */
	struct link *links[ROUTE_LEGS_MAX];
	unsigned count;
};

static void
orphan_free(struct orphan *o)
{
	TAILQ_REMOVE(&session_worker(o->worker)->orphans, o, entry);
	for (unsigned i = 0; i < o->count; i++) {
		struct link *l = o->links[i];

		if (l == NULL)
			continue;
		l->was_shared = true;
		pool_give_broken(l, link_take_taint(l), "client disconnect");
	}
	weave_run_drop(o->run);
	free(o);
}

static void
orphan_out(void *arg, const uint8_t *p, size_t len)
{
	(void)arg;
	(void)p;
	(void)len;
}

static void
orphan_flow(void *arg)
{
	(void)arg;
}

static void
orphan_lost(void *arg, struct link *l)
{
	struct orphan *o = arg;

	for (unsigned i = 0; i < o->count; i++)
		if (o->links[i] == l)
			o->links[i] = NULL;
}

static void
orphan_done(void *arg, const struct federate_outcome *outcome)
{
	if (!outcome->ok)
		log_warning("a client left, and then: %s: %s", outcome->message,
		    outcome->detail != NULL ? outcome->detail : "");
	orphan_free(arg);
}

static const struct federate_client orphan_client = {
    .out = orphan_out,
    .done = orphan_done,
    .lost = orphan_lost,
    .flow = orphan_flow,
};

static void
orphan_make(struct session *s)
{
	struct weave *w = s->weave;
	struct orphan *o = mem_alloc(sizeof(*o));

	o->worker = s->worker;
	o->run = w->run;
	for (unsigned i = 0; i < w->run->count; i++) {
		struct leg *leg = leg_of_seat(w, w->run->seats[i]);

		if (leg == NULL)
			continue;
		o->links[o->count++] = leg->link;
		leg_forget(w, leg);
	}
	w->run = NULL;
	TAILQ_INSERT_TAIL(&session_worker(s->worker)->orphans, o, entry);
	split_hand_over(o->run->split->split, &orphan_client, o);
}

void
weave_split_end(struct session *s)
{
	struct weave_split *sp = s->weave->run->split;

	if (split_is_committing(sp->split)) {
		orphan_make(s);
		return;
	}
	split_abort(sp->split);
	sp->split = NULL;
}

void
weave_orphans_end(struct session_worker *sw)
{
	struct orphan *o;

	while ((o = TAILQ_FIRST(&sw->orphans)) != NULL) {
		split_abort(o->run->split->split);
		orphan_free(o);
	}
}

/* ---- the client's COPY data ---- */

bool
weave_split_takes(const struct session *s)
{
	return (s->weave != NULL && weave_split_runs(s->weave) &&
		split_takes(s->weave->run->split->split));
}

/* One message head: how many bytes were used; 0: more must come, or the session is closed. */
static size_t
copy_message(struct session *s, const uint8_t *p, size_t len)
{
	struct split *split = s->weave->run->split->split;
	uint32_t size;
	const char *text;

	if (len < PROTO_HEAD)
		return (0);
	size = proto_get32(p + 1);
	if (size < 4 || size > (uint64_t)pool_settings(s->worker)->max_packet_size ||
	    strchr("dcfHSX", (char)p[0]) == NULL || p[0] == '\0' ||
	    (p[0] != 'd' && size > SESSION_NAMES_MAX)) {
		session_close(s, "08P01", "unexpected message during COPY from stdin");
		return (0);
	}
	if (p[0] == 'd') {
		s->body_left = size - 4;
		s->body_is_dropped = true;
		return (PROTO_HEAD);
	}
	if (len < (size_t)size + 1)
		return (0);
	if (p[0] == 'c')
		split_finish(split);
	else if (p[0] == 'f')
		split_give_up(split,
		    proto_string_parse(p + PROTO_HEAD, size - 4, &text) == 0 ? text : "");
	else if (p[0] == 'X')
		session_end(s, "client close request");
	return ((size_t)size + 1);
}

size_t
weave_split_bytes(struct session *s, const uint8_t *p, size_t len)
{
	size_t used = 0, n;

	s->request_us = clock_us();
	while (used < len && s->state == SESSION_WEAVING && weave_split_takes(s)) {
		if (s->body_left == 0) {
			n = copy_message(s, p + used, len - used);
			if (n == 0)
				break;
			used += n;
			continue;
		}
		n = len - used < s->body_left ? len - used : s->body_left;
		s->body_left -= (uint32_t)n;
		used += n;
		split_data(s->weave->run->split->split, p + used - n, n);
	}
	if (s->state == SESSION_CLOSED)
		return (len);
	METRIC_ADD(&s->weave->home->metrics, received, used);
	session_flow(s);
	return (used);
}

/* ---- a batch of its own ---- */

/* What a batch does is done together, or not at all: but this one is committed by itself. So
 * nothing may follow it in its batch. 1: so it is; 0: it must be refused; -1: not known yet. */
int
weave_split_is_last(const struct up *u, uint32_t size, bool is_copy)
{
	size_t at = u->used + size + 1;

	while (u->len > at && u->len - at >= PROTO_HEAD) {
		char type = (char)u->p[at];
		uint32_t n = proto_get32(u->p + at + 1);

		if (type == 'S' || (is_copy && strchr("Hdcf", type) != NULL))
			return (1);
		if (type != 'C' || n < 4 || n > SESSION_NAMES_MAX ||
		    at - u->used > SESSION_WHOLE_MAX)
			return (0);
		at += (size_t)n + 1;
	}
	return (-1);
}
