/*
 * PREPARE, EXECUTE and DEALLOCATE: what they do to names and links when their tags come, and
 * the extended protocol, where a statement whose text is one of them is sent anew for each Bind
 * with the name that the link knows.
 */
#include "carry.h"
#include "listen.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is under way ---- */

static void
steps_free(struct session *s, struct prep *p)
{
	for (unsigned i = 0; i < p->count; i++) {
		if (p->steps[i].stmt != NULL)
			stmt_release(s->worker, p->steps[i].stmt);
		free(p->steps[i].name);
	}
	free(p->steps);
	free(p->edits);
	p->steps = NULL;
	p->edits = NULL;
	p->count = p->done = p->edit_count = 0;
}

void
prep_end(struct session *s)
{
	struct prep *p = s->prep;

	if (p == NULL)
		return;
	s->prep = NULL;
	steps_free(s, p);
	if (p->real != NULL)
		stmt_release(s->worker, p->real);
	refusal_free(&p->refusal);
	if (p->said != NULL)
		stmt_said_release(p->said);
	free(p->portal);
	free(p->text);
	free(p);
}

struct prep *
prep_begin(struct session *s)
{
	prep_end(s);
	s->prep = mem_alloc(sizeof(*s->prep));
	return (s->prep);
}

struct prep_step *
prep_step_add(struct prep *p)
{
	p->steps = mem_realloc(p->steps, (p->count + 1) * sizeof(*p->steps));
	p->steps[p->count] = (struct prep_step){0};
	return (&p->steps[p->count++]);
}

void
prep_edit_add(struct prep *p, uint32_t at, uint32_t is, uint32_t was)
{
	p->edits = mem_realloc(p->edits, (p->edit_count + 1) * sizeof(*p->edits));
	p->edits[p->edit_count++] = (struct prep_edit){at, is, was};
}

bool
prep_is_utf8(const struct session *s)
{
	const char *encoding =
	    s->vars != NULL ? vars_get(s->vars, "client_encoding") : NULL;

	return (encoding == NULL || strcmp(encoding, "UTF8") == 0);
}

uint32_t
prep_chars(const struct session *s, const char *p, size_t len)
{
	uint32_t n = 0;

	if (!prep_is_utf8(s))
		return ((uint32_t)len);
	for (size_t i = 0; i < len; i++)
		n += ((uint8_t)p[i] & 0xc0) != 0x80;
	return (n);
}

/* What needs no server is answered now. */
static void
settle_fakes(struct up *u)
{
	struct session *s = u->s;
	struct link *l = s->link;
	struct batch b;

	if (l->requests.count == 0 || requests_head(&l->requests)->act != ACT_FAKE ||
	    l->body_left > 0)
		return;
	batch_begin(&b, &s->stream, &session_worker(s->worker)->scratch[1]);
	again_sent(u);
	u->kept = u->used;
	again_hold(s, &b);
	session_emit_fakes(s, &b);
	batch_flush(&b);
	again_answered(s);
}

bool
prep_settle(struct up *u)
{
	struct session *s = u->s;
	struct link *l = s->link;

	settle_fakes(u);
	if (l->requests.count == 0 && l->body_left == 0) {
		s->is_stalled = false;
		return (true);
	}
	if (!s->is_stalled && l->wants_sync && !l->is_copying_in) {
		up_to_link(u);
		proto_message(batch_make(&u->batch), 'H', NULL, 0);
		batch_made(&u->batch);
	}
	s->is_stalled = true;
	return (false);
}

/* ---- statements ---- */

/* Whether constants of the text are the time at which it is read: 'now', 'today'… */
static bool
has_time_word(const char *sql, size_t len)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};

	for (size_t i = 1; i < len; i++) {
		size_t at = i;

		if (sql[i - 1] != '\'' && sql[i - 1] != '$')
			continue;
		while (at < len && (sql[at] == ' ' || sql[at] == '\t' || sql[at] == '\n'))
			at++;
		for (size_t k = 0; k < ARRAY_LEN(words); k++)
			if (len - at >= strlen(words[k]) &&
			    strncasecmp(sql + at, words[k], strlen(words[k])) == 0)
				return (true);
	}
	return (false);
}

/* What a text is read under, besides its types. */
static void
add_reading(struct session *s, const char *sql, size_t len, struct buf *key)
{
	static const char *const names[] = {"TimeZone", "DateStyle", "IntervalStyle",
	    "client_encoding", "standard_conforming_strings", "search_path"};
	const struct vars *vars = s->link != NULL ? s->link->vars : s->vars;
	struct session_worker *sw = session_worker(s->worker);

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *value = vars != NULL ? vars_get(vars, names[i]) : NULL;

		buf_addstr(key, value != NULL ? value : "\001");
		buf_add(key, "", 1);
	}
	if (has_time_word(sql, len))
		buf_addf(key, "%llu",
		    (unsigned long long)(++sw->tokens << 8 | (uint64_t)s->worker->index));
}

struct stmt *
prep_intern(struct session *s, const struct sql_scan *scan, const struct sql_prepare *p)
{
	static const uint8_t no_types[2];
	const char *sql = scan->sql + p->inner_at;
	size_t len = scan->len - p->inner_at;
	struct buf key = {0};
	struct stmt *st;

	while (len > 0 && strchr(" \t\n\r\f\v", *sql) != NULL) {
		sql++;
		len--;
	}
	while (len > 0 && strchr(" \t\n\r\f\v", sql[len - 1]) != NULL)
		len--;
	buf_addstr(&key, "prepare");
	buf_add(&key, scan->sql + p->types_at, p->types_len);
	buf_add(&key, "", 1);
	add_reading(s, sql, len, &key);
	st = stmt_intern_as(s->worker, hash_pair(sql, len, key.mem, key.len), sql, len,
	    no_types, sizeof(no_types));
	buf_free(&key);
	if (st->declared == NULL)
		st->declared = mem_strn(scan->sql + p->types_at, p->types_len);
	if (s->weave != NULL)
		(void)sense_of_stmt(s->worker, st);
	return (st);
}

struct stmt *
prep_stand_in(struct session *s)
{
	static const char sql[] = "SELECT", key[] = "stand-in";
	static const uint8_t no_types[2];
	struct stmt *st =
	    stmt_intern_as(s->worker, hash_pair(sql, sizeof(sql) - 1, key, sizeof(key)),
		sql, sizeof(sql) - 1, no_types, sizeof(no_types));

	if (st->declared == NULL)
		st->declared = mem_str("");
	return (st);
}

void
prep_run_own(struct up *u, const char *own, const char *sql, struct hash128 id)
{
	static const uint8_t no_types[2], nothing[6];
	struct buf *out = batch_make(&u->batch), body = {0};
	size_t size = strlen(own) + 1;

	proto_close_statement(out, own);
	buf_add(&body, "P", 1);
	buf_add(&body, own, size);
	proto_message(out, 'C', body.mem, body.len);
	proto_parse(out, own, sql, no_types, sizeof(no_types));
	body.len = 0;
	buf_add(&body, own, size);
	buf_add(&body, own, size);
	buf_add(&body, nothing, 6);
	proto_message(out, 'B', body.mem, body.len);
	body.len = 0;
	buf_add(&body, own, size);
	buf_add(&body, nothing, 4);
	proto_message(out, 'E', body.mem, body.len);
	batch_made(&u->batch);
	up_owe(u, REQ_CLOSE, ACT_SKIP)->is_own = true;
	up_owe(u, REQ_CLOSE, ACT_SKIP)->is_own = true;
	up_owe(u, REQ_PARSE, ACT_SKIP)->id = id;
	up_owe(u, REQ_BIND, ACT_SKIP);
	up_owe(u, REQ_EXECUTE, ACT_SKIP)->id = id;
	buf_free(&body);
}

void
prep_inject(struct up *u, const struct stmt *st)
{
	char name[PREPARED_NAME], *text;

	prepared_name(st->id, name);
	text = mem_printf("PREPARE %s%s AS %s", name, st->declared, prep_sent(u->s, st));
	prep_run_own(u, "pgw_prepare", text, st->id);
	prepared_add(&u->s->link->prepared, st->id, u->s->link->batch);
	free(text);
}

/* ---- the extended protocol ---- */

void
prep_refuse_nested(struct prep *p)
{
	refusal_set(&p->refusal, "0A000",
	    "EXECUTE cannot run a statement that says EXECUTE, PREPARE or DEALLOCATE",
	    NULL, NULL);
}

/* LISTEN or UNLISTEN: a mark, when it is bound and will run. */
static char *
real_listen(
    struct session *s, const struct sql_prepare *p, bool is_bound, struct prep_step *step)
{
	bool is_off = p->kind == SQL_PREPARE_UNLISTEN;

	if (s->weave != NULL || (is_off && !listen_is_any(s)))
		return (NULL);
	step->is_unlisten = is_off;
	step->listens = !is_off;
	step->does = PREP_LISTEN;
	step->name = p->name != NULL ? mem_str(p->name) : NULL;
	/* Its Execute will be refused. */
	if (!is_bound || !listen_has_room(s))
		return (mem_str("LISTEN pgweave_listen_0"));
	return (listen_mark(s, p->name, is_off));
}

/* A statement of the proxy's own instead of the client's, under its types. */
static struct stmt *
real_text(struct session *s, const struct stmt *st, const struct buf *text)
{
	struct stmt *real = stmt_intern_as(s->worker,
	    hash_pair(text->mem, text->len, st->data + st->sql_len + 1, st->types_len),
	    (const char *)text->mem, text->len, st->data + st->sql_len + 1,
	    st->types_len);

	if (s->weave != NULL)
		(void)sense_of_stmt(s->worker, real);
	return (real);
}

static struct stmt *
real_of_listen(
    struct session *s, const struct stmt *st, bool is_bound, struct prep_step *step)
{
	const char *sql = (const char *)st->data;
	struct buf text = {0};
	struct sql_prepare p;
	struct sql_scan scan;
	struct stmt *real;
	char *mark;

	sql_scan(sql, st->sql_len, &scan);
	INVARIANT(sql_listen_read(&scan, &p));
	mark = real_listen(s, &p, is_bound, step);
	buf_addstr(&text, mark != NULL ? mark : sql);
	real = real_text(s, st, &text);
	free(mark);
	buf_free(&text);
	sql_prepare_free(&p);
	sql_scan_free(&scan);
	return (real);
}

/* What stands behind the name, which may be PREPARE … AS what reads pg_prepared_statements. */
static void
put_behind_name(struct session *s, struct buf *text, const struct stmt *st,
    const struct sql_scan *scan, size_t from)
{
	const char *sql = (const char *)st->data, *rest = sql;
	char *other = NULL, *all = NULL;
	struct buf with = {0};
	uint32_t at = 0;

	if (view_put(s, scan, &with, &at, &other)) {
		at += (uint32_t)(scan->sql - sql);
		if (other != NULL) {
			rest = all = mem_strn(sql, st->sql_len);
			memcpy(all + (scan->sql - sql), other, scan->len);
		}
		buf_add(text, rest + from, at - from);
		prep_edit_add(s->prep, prep_chars(s, (const char *)text->mem, text->len),
		    with.len, 0);
		buf_add(text, with.mem, with.len);
		from = at;
	}
	buf_add(text, rest + from, st->sql_len - from);
	buf_free(&with);
	free(other);
	free(all);
}

/* What the statement's text says, with the name that the link knows in its place. step: what
 * it will do. */
static struct stmt *
real_of(struct session *s, const struct stmt *st, struct prep_step *step)
{
	const char *sql = (const char *)st->data;
	struct prep *prep = s->prep;
	struct sql_prepare p;
	struct sql_scan scan;
	struct stmt_name *n;
	struct stmt *real;
	struct buf text = {0};
	char name[PREPARED_NAME];
	size_t at;

	sql_scan(sql, st->sql_len, &scan);
	INVARIANT(sql_prepare_read(&scan, &p));
	step->name = mem_str(p.name);
	step->runs = p.kind == SQL_PREPARE_RUN;
	n = stmt_name_find(s, p.name);
	if (n != NULL) {
		step->stmt = n->stmt;
		step->stmt->refs++;
		if (p.kind == SQL_PREPARE_MAKE ||
		    (p.kind == SQL_PREPARE_DROP &&
			!prepared_is_old(&s->link->prepared, n->stmt->id))) {
			stmt_release(s->worker, step->stmt);
			step->stmt = prep_stand_in(s);
		}
		step->does = p.kind == SQL_PREPARE_DROP ? PREP_DROP : PREP_NONE;
		if (step->runs && !carry_run(s, n->stmt, true, &prep->refusal))
			step->runs = false;
		if (step->runs && prep_nests(n->stmt))
			prep_refuse_nested(prep);
		prep->lists = step->runs && n->stmt->prepare == SQL_PREPARE_VIEW;
	} else if (p.kind == SQL_PREPARE_MAKE) {
		step->stmt = prep_intern(s, &scan, &p);
		step->does = PREP_MAKE;
		prep->said = stmt_said_make(sql, st->sql_len);
	}
	if (step->stmt != NULL) {
		step->id = step->stmt->id;
		prepared_name(step->id, name);
		at = (size_t)(scan.sql - sql) + p.at;
		buf_add(&text, sql, at);
		buf_addstr(&text, name);
		prep_edit_add(prep, prep_chars(s, sql, at), PREPARED_NAME - 1,
		    prep_chars(s, sql + at, p.len));
		put_behind_name(s, &text, st, &scan, at + p.len);
	} else
		buf_add(&text, sql, st->sql_len);
	real = real_text(s, st, &text);
	buf_free(&text);
	sql_prepare_free(&p);
	sql_scan_free(&scan);
	return (real);
}

const struct stmt *
prep_real(struct up *u, const struct stmt *st, const char *portal)
{
	struct session *s = u->s;
	struct prep *p = prep_begin(s);
	struct prep_step *step = prep_step_add(p);
	const struct stmt_name *n;

	p->is_batch = true;
	p->portal = portal != NULL ? mem_str(portal) : NULL;
	if (prep_listens(st)) {
		p->real = real_of_listen(s, st, portal != NULL, step);
		return (p->real);
	}
	if (st->prepare == SQL_PREPARE_VIEW)
		return (view_real(u, st, portal));
	p->real = real_of(s, st, step);
	if (refusal_is_set(&p->refusal) && portal != NULL)
		up_doom(u);
	if (p->lists && portal != NULL)
		view_tell(u);
	n = step->stmt != NULL ? stmt_name_find(s, step->name) : NULL;
	if (n != NULL && step->does == PREP_NONE)
		up_ensure(
		    u, step->stmt, step->runs ? n->since : (struct prepared_since){0}, 0);
	return (p->real);
}

/* The server is made to fail what the client's Execute asks for. */
static enum up_verdict
refuse_execute(struct up *u, uint32_t size)
{
	refusal_set(&u->s->prep->refusal, "53200",
	    "prepared statements of this client take too much memory", NULL, NULL);
	u->s->prep->is_running = true;
	up_doom(u);
	return (up_body(u, size + 1, true));
}

/* The hub listens; or the message waits, or the client's Execute is refused. */
static enum up_verdict
before_listen(struct up *u, const struct prep_step *step, uint32_t size)
{
	struct session *s = u->s;
	enum listen_go go = LISTEN_GO;
	struct refusal *why;

	if (!listen_has_room(s)) {
		refusal_set(&listen_get(s)->refusal, "54000", LISTEN_NO_ROOM, NULL, NULL);
		go = LISTEN_REFUSED;
	} else if (step->listens && s->link->txn != 'E')
		go = listen_want(s, s->seat, step->name);
	if (go == LISTEN_GO)
		return (UP_PASS);
	if (go == LISTEN_WAITS)
		return (UP_STOP);
	why = &s->listens->refusal;
	refusal_set(
	    &s->prep->refusal, why->sqlstate, why->message, why->detail, why->hint);
	refusal_free(why);
	s->prep->is_running = true;
	up_doom(u);
	return (up_body(u, size + 1, true));
}

/* What must be so before the portal runs. False: the client's Execute is refused instead. */
static bool
before_execute(struct up *u, struct prep_step *step)
{
	struct session *s = u->s;

	if (step->does == PREP_MAKE &&
	    !statements_have_room(
		s, step->name, (size_t)step->stmt->sql_len + s->prep->said->len))
		return (false);
	if (step->does == PREP_MAKE && prepared_is_old(&s->link->prepared, step->id))
		up_forget(u, step->id);
	if (step->does == PREP_DROP)
		up_ensure(u, step->stmt, (struct prepared_since){0}, 0);
	return (true);
}

enum up_verdict
prep_execute(struct up *u, uint32_t size)
{
	struct prep *p = u->s->prep;
	struct prep_step *step = &p->steps[0];
	const char *portal = (const char *)u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD;

	if (size > SESSION_NAMES_MAX)
		return (UP_PASS);
	if (have < size - 4)
		return (UP_STOP);
	if (p->portal == NULL || p->is_running || size < 9 ||
	    strnlen(portal, size - 4) == size - 4 || strcmp(portal, p->portal) != 0)
		return (UP_PASS);
	if (step->does != PREP_NONE) {
		enum up_verdict v = UP_PASS;

		if (!prep_settle(u))
			return (UP_STOP);
		up_to_link(u);
		if (step->does == PREP_LISTEN &&
		    (v = before_listen(u, step, size)) != UP_PASS)
			return (v);
		if (!before_execute(u, step))
			return (refuse_execute(u, size));
		p->is_running = true;
	}
	up_owe(u, REQ_EXECUTE, ACT_FORWARD)->is_prepare = true;
	return (up_body(u, size + 1, false));
}

/* The Parse that a query needed has failed: its error was the query's, and the end follows. */
static enum up_verdict
ahead_failed(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct link *l = s->link;

	up_to_link(u);
	proto_sync(batch_make(&u->batch));
	batch_made(&u->batch);
	up_owe(u, REQ_SYNC, ACT_FORWARD);
	l->skips_to_sync = false;
	l->batch++;
	if (s->weave != NULL) {
		s->weave->is_routed = false;
		s->weave->blank = 0;
		free(s->weave->clean);
		s->weave->clean = NULL;
	}
	prep_end(s);
	return (up_body(u, size + 1, true));
}

enum up_verdict
prep_message(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	struct prep *p = s->prep;

	if (!p->is_running || s->link == NULL || s->link->is_copying_in ||
	    proto_is_of(type, PROTO_TYPE('d') | PROTO_TYPE('c') | PROTO_TYPE('f')))
		return (UP_PASS);
	if (!prep_settle(u))
		return (UP_STOP);
	p->is_running = false;
	return (p->is_ahead && p->has_failed ? ahead_failed(u, size) : UP_PASS);
}

/* ---- answers ---- */

static void
step_done(struct session *s, struct link *l, const struct prep_step *step)
{
	struct stmt_name *n = step->name != NULL ? stmt_name_find(s, step->name) : NULL;

	switch (step->does) {
	case PREP_MAKE:
		if (n == NULL) {
			step->stmt->refs++;
			n = stmt_name_add(s, step->name, step->stmt);
			n->is_sure = true;
			n->since = prepared_since_now();
			stmt_name_say(s, n, s->prep->said);
		}
		/* FALLTHROUGH */
	case PREP_TELL:
		prepared_forget(&l->prepared, step->id);
		prepared_add(&l->prepared, step->id, l->batch);
		prepared_confirm(&l->prepared, step->id);
		break;
	case PREP_DROP:
		if (n != NULL)
			stmt_name_take_out(s, n);
		/* FALLTHROUGH */
	case PREP_FORGET:
		prepared_forget(&l->prepared, step->id);
		break;
	case PREP_NONE:
	case PREP_DROP_ALL:
	case PREP_LISTEN:
	default:
		break;
	}
}

bool
prep_tag(struct session *s, struct link *l)
{
	struct prep *p = s->prep;
	struct prep_step *step;

	p->knows_tag = p->is_unlisten = false;
	if (!p->is_running || p->done == p->count)
		return (true);
	step = &p->steps[p->done++];
	p->knows_tag = step->does != PREP_NONE;
	step_done(s, l, step);
	p->is_unlisten = step->is_unlisten;
	return (!step->is_ours);
}

/* Where the client's text has what the server means; 0: nowhere. */
static long
moved_position(const struct prep *p, long position)
{
	long at = position - 1, shift = 0;

	for (unsigned i = 0; i < p->edit_count; i++) {
		const struct prep_edit *e = &p->edits[i];

		if (at < (long)e->at)
			break;
		if (at < (long)e->at + (long)e->is)
			return (e->was == 0 ? 0 : (long)e->at + shift + 1);
		shift += (long)e->was - (long)e->is;
	}
	return (position + shift);
}

/* What is believed of the link has turned out to be wrong: it is put right, and the query may
 * run once more. */
static bool
is_mistaken(
    struct link *l, const struct prep_step *step, const struct proto_error_fields *e)
{
	bool is_plan = strcmp(e->sqlstate, "0A000") == 0 &&
		       strcmp(e->routine, "RevalidateCachedQuery") == 0;
	char server_name[PREPARED_NAME];

	if (step == NULL || (step->stmt == NULL && step->does != PREP_FORGET))
		return (false);
	prepared_name(step->id, server_name);
	if (is_plan && step->runs)
		prepared_renew(step->id);
	/* A function may have said it, of another one. */
	else if (strstr(e->message, server_name) == NULL)
		return (false);
	else if (strcmp(e->sqlstate, "26000") == 0 &&
		 (step->runs || step->does == PREP_DROP || step->does == PREP_FORGET))
		prepared_forget(&l->prepared, step->id);
	else if (strcmp(e->sqlstate, "42P05") == 0 &&
		 (step->does == PREP_MAKE || step->does == PREP_TELL)) {
		prepared_add(&l->prepared, step->id, l->batch);
		prepared_suspect(&l->prepared, step->id);
	} else
		return (false);
	return (true);
}

/* Whose name stands in the message: that of a statement which Parse has made, as the link knows
 * it or its text with another's name in it; or of the statement which it, or a query, is about. */
static const char *
name_in(const struct prep *p, const struct request *r, const char *message,
    char server_name[PREPARED_NAME])
{
	const struct prep_step *step = p->done < p->count ? &p->steps[p->done] : NULL;
	const struct stmt_name *n = r->renames ? r->arg : NULL;

	if (n != NULL) {
		prepared_name(n->stmt->id, server_name);
		if (strstr(message, server_name) != NULL)
			return (n->name);
	}
	if (n != NULL && p->real != NULL) {
		prepared_name(p->real->id, server_name);
		if (strstr(message, server_name) != NULL)
			return (n->name);
	}
	server_name[0] = '\0';
	if (step == NULL || step->stmt == NULL || step->name == NULL)
		return ("");
	prepared_name(step->id, server_name);
	return (step->name);
}

bool
prep_error(struct session *s, const struct request *r, const uint8_t *body, size_t len,
    const struct proto_error_fields *e, struct batch *b)
{
	struct prep *p = s->prep;
	const struct prep_step *step = p->done < p->count ? &p->steps[p->done] : NULL;
	char server_name[PREPARED_NAME];
	const char *name;
	long position;

	p->has_failed |= p->is_ahead;
	if (p->lists && view_failed(s, r, e, b))
		return (true);
	if (p->is_ahead || (p->is_batch && !r->is_prepare && !r->is_ours))
		return (false);
	if (refusal_is_set(&p->refusal)) {
		proto_error(batch_make(b), "ERROR", p->refusal.sqlstate,
		    p->refusal.message, p->refusal.detail, p->refusal.hint);
		batch_made(b);
		return (true);
	}
	if (is_mistaken(s->link, step, e) && p->may_repeat) {
		p->may_repeat = false;
		p->repeats = true;
		return (true);
	}
	name = name_in(p, r, e->message, server_name);
	position = strtol(proto_error_field(body, len, 'P'), NULL, 10);
	if (proto_error_move(batch_make(b), body, len, server_name, name,
		position > 0 && position < INT_MAX ? moved_position(p, position) : 0) !=
	    0)
		return (false);
	batch_made(b);
	return (true);
}

bool
prep_ready(struct session *s, struct link *l)
{
	struct prep *p = s->prep;

	if (p->is_batch || p->is_ahead)
		return (false);
	if (p->repeats) {
		prep_repeat(s, l);
		return (true);
	}
	prep_end(s);
	return (false);
}
