/*
 * Simple queries with PREPARE, EXECUTE or DEALLOCATE in them: the string that the server gets
 * instead. Statements of the proxy's own stand in front of those that need them, in the same
 * string, so that they run, or do not, as the client's own order and errors have it:
 *
 *   prepare p as select 1; execute q   ->   prepare pgw_1 as select 1;
 *                                           PREPARE pgw_2 AS …; execute pgw_2
 */
#include "carry.h"
#include "listen.h"
#include <stdlib.h>
#include <string.h>

/* Each statement is looked for among all before it. */
#define SCRIPT_STATEMENTS 4096
/* What a string may grow by. */
#define SCRIPT_MORE_BYTES SESSION_WHOLE_MAX

/* Of the statement that begins there. */
static int
look_at(const struct session *s, const char *sql, size_t len)
{
	int may = sql_prepare_may(sql, len);

	return (may == 0 ? sql_listen_may(sql, len, listen_is_any(s)) : may);
}

int
prep_look(const struct session *s, const char *sql, size_t have, size_t len)
{
	const char *end = sql + len, *at = sql;
	int first = look_at(s, sql, have);

	if (first > 0 || (first < 0 && have < len && have < SESSION_NAMES_MAX))
		return (first);
	/* Of a long string only the beginning is looked at. */
	if (len > SQL_PARSE_BYTES)
		return (0);
	if (have < len)
		return (-1);
	while (at < end && (at = memchr(at, ';', (size_t)(end - at))) != NULL) {
		at++;
		if (look_at(s, at, (size_t)(end - at)) > 0)
			return (1);
	}
	return ((sql_look_names(sql, len) & SQL_LOOK_PREPARE) != 0);
}

/* ---- a Parse ahead ---- */

/* What Parse has made cannot be made by PREPARE: its types are numbers. *lists: what the client
 * has prepared is to be there; *asks: the link of its stay is. */
static const struct stmt_name *
missing_of_parse(struct session *s, const char *sql, size_t len, bool *lists, bool *asks)
{
	const char *at = sql, *end = sql + len;
	const struct stmt_name *n, *missing = NULL;
	struct sql_prepare p;
	struct sql_scan scan;

	while (at != NULL && missing == NULL) {
		sql_scan(at, (size_t)(end - at), &scan);
		at = scan.next;
		if (sql_prepare_read(&scan, &p)) {
			n = p.kind == SQL_PREPARE_RUN ? stmt_name_find(s, p.name) : NULL;
			*lists |= n != NULL && n->stmt->prepare == SQL_PREPARE_VIEW;
			*asks |=
			    n != NULL && (n->stmt->leaves & SQL_LEAVES_SEQUENCE) != 0;
			if (n != NULL && n->stmt->declared == NULL &&
			    !prepared_touch_proven(
				&s->link->prepared, n->stmt->id, n->since, 0))
				missing = n;
			sql_prepare_free(&p);
		}
		sql_scan_free(&scan);
	}
	return (missing);
}

bool
prep_is_ready(struct up *u, const char *sql, size_t len)
{
	struct session *s = u->s;
	struct link *l = s->link;
	const struct stmt_name *missing;
	bool had_sync = !l->wants_sync;
	bool lists = (sql_look_names(sql, len) & SQL_LOOK_PREPARE) != 0;
	unsigned rounds = 0;
	bool asks = false;

	if (!prep_settle(u))
		return (false);
	if (s->weave == NULL && l->txn != 'E' && !listen_is_ready(s, sql, len))
		return (false);
	/* A server in a failed transaction refuses it, and the query as well. */
	missing = l->txn != 'E' ? missing_of_parse(s, sql, len, &lists, &asks) : NULL;
	if (asks && l->txn != 'E' && !sequences_prefer(u))
		return (false);
	l = s->link;
	lists = missing == NULL && lists && view_misses(s);
	if (missing == NULL && !lists)
		return (true);
	if (s->prep != NULL && s->prep->is_ahead) {
		had_sync = s->prep->had_sync;
		rounds = s->prep->rounds;
	}
	/* Each may have made room for the next. */
	if (rounds >= pool_settings(s->worker)->max_prepared_statements ||
	    rounds >= SCRIPT_STATEMENTS)
		return (true);
	(void)prep_begin(s);
	s->prep->is_ahead = s->prep->is_running = true;
	s->prep->rounds = rounds + 1;
	s->prep->had_sync = had_sync;
	up_to_link(u);
	if (lists)
		view_ensure(u);
	else
		up_ensure(u, missing->stmt, missing->since, 0);
	(void)prep_settle(u);
	return (false);
}

/* ---- the string ---- */

struct script {
	struct session *s;
	struct link *l;
	struct prep *p;
	const char *said,
	    *sent;     /* as the client has it, and without names of databases */
	char *blanked; /* the latter, when it is our own */
	size_t len;
	struct buf out;
	uint32_t chars; /* in out */
	bool has_any;   /* a name in it is ours */
	int more;       /* statements that the link will have more than now */
	unsigned old_passed, new_passed; /* looked at by put_room() */
	bool is_refused;
	bool is_long; /* not all of its statements are noted */
};

static void
refuse(struct script *b, const char *sqlstate, const char *message)
{
	b->is_refused = true;
	refusal_set(&b->p->refusal, sqlstate, message, NULL, NULL);
}

static void
put(struct script *b, const char *p, size_t len)
{
	buf_add(&b->out, p, len);
	b->chars += prep_chars(b->s, p, len);
}

/* Of the client's string. */
static void
put_said(struct script *b, const char *p, size_t len)
{
	put(b, b->sent + (p - b->said), len);
}

/* A statement of the proxy's own. */
static struct prep_step *
put_own(struct script *b, const char *text)
{
	struct prep_step *step = prep_step_add(b->p);
	uint32_t at = b->chars;

	step->is_ours = true;
	put(b, text, strlen(text));
	prep_edit_add(b->p, at, b->chars - at, 0);
	return (step);
}

/* The statement at `at` with the link's name for the client's; the rest of it follows. */
static void
put_name(struct script *b, const struct prep_step *step, const char *from,
    const char *name_at, size_t name_len)
{
	char name[PREPARED_NAME];

	prepared_name(step->id, name);
	put_said(b, from, (size_t)(name_at - from));
	prep_edit_add(
	    b->p, b->chars, PREPARED_NAME - 1, prep_chars(b->s, name_at, name_len));
	put(b, name, PREPARED_NAME - 1);
	b->has_any = true;
}

/* ---- what reads pg_prepared_statements ---- */

/* Whether the string has done something with the name. */
static bool
is_renamed(const struct script *b, const char *name)
{
	for (unsigned i = 0; i < b->p->count; i++) {
		const struct prep_step *step = &b->p->steps[i];

		if (step->does == PREP_DROP_ALL ||
		    ((step->does == PREP_MAKE || step->does == PREP_DROP) &&
			strcmp(step->name, name) == 0))
			return (true);
	}
	return (false);
}

/* What it has made is still there. */
static bool
is_made(const struct script *b, unsigned at)
{
	const struct prep_step *step = &b->p->steps[at];

	if (step->does != PREP_MAKE)
		return (false);
	for (unsigned i = at + 1; i < b->p->count; i++) {
		const struct prep_step *later = &b->p->steps[i];

		if (later->does == PREP_DROP_ALL ||
		    (later->does == PREP_DROP && strcmp(later->name, step->name) == 0))
			return (false);
	}
	return (true);
}

static const struct stmt_said *
said_of(struct script *b)
{
	if (b->p->said == NULL)
		b->p->said = stmt_said_make(b->said, b->len);
	return (b->p->said);
}

/* What the client will have prepared when the string has come to here. */
static void
put_list(struct script *b)
{
	struct view_list *list = view_list_begin();
	const struct stmt_name *n = NULL;
	char *text, *sql;

	while ((n = view_name_next(b->s, n)) != NULL)
		if (!is_renamed(b, n->name))
			view_list_name(list, n);
	for (unsigned i = 0; i < b->p->count; i++)
		if (is_made(b, i))
			view_list_new(
			    list, b->p->steps[i].name, b->p->steps[i].stmt, said_of(b));
	text = view_list_end(list);
	b->has_any = true;
	if (text == NULL) {
		b->is_refused = true;
		view_refuse(b->p);
		return;
	}
	sql = mem_printf("SET LOCAL pgweave.prepared TO '%s';", text);
	(void)put_own(b, sql);
	free(sql);
	free(text);
}

/* What of the statement is not put yet begins at `from`, and it may read the view: where the rest
 * begins. runs: it does so now. */
static const char *
put_with(struct script *b, const struct sql_scan *scan, const char *from, bool runs)
{
	struct buf with = {0};
	char *other = NULL;
	uint32_t at;

	if (!view_put(b->s, scan, &with, &at, &other))
		return (from);
	if (runs)
		put_list(b);
	if (other != NULL) {
		if (b->blanked == NULL)
			b->sent = b->blanked = mem_strn(b->sent, b->len);
		/* Blanks alone: names of databases stay away. */
		for (uint32_t i = 0; i < scan->len; i++)
			if (other[i] == ' ')
				b->blanked[scan->sql - b->said + i] = ' ';
	}
	put_said(b, from, (size_t)(scan->sql + at - from));
	prep_edit_add(b->p, b->chars, with.len, 0);
	put(b, (const char *)with.mem, with.len);
	buf_free(&with);
	free(other);
	return (scan->sql + at);
}

/* ---- statements ---- */

static bool
is_about(const struct prep_step *step, struct hash128 id)
{
	return (
	    step->does == PREP_DROP_ALL ||
	    (step->does != PREP_NONE && step->id.hi == id.hi && step->id.lo == id.lo));
}

/* What the string has done to the link's statement so far; NULL: nothing. */
static const struct prep_step *
last_about(const struct script *b, struct hash128 id)
{
	for (unsigned i = b->p->count; i-- > 0;)
		if (is_about(&b->p->steps[i], id))
			return (&b->p->steps[i]);
	return (NULL);
}

enum presence { ABSENT, STALE, FRESH };

/* Whether the link will have the statement when the string has come to here. */
static enum presence
presence_of(const struct script *b, struct hash128 id, struct prepared_since since)
{
	const struct prep_step *step = last_about(b, id);

	if (step != NULL)
		return (
		    step->does == PREP_MAKE || step->does == PREP_TELL ? FRESH : ABSENT);
	if (prepared_touch_proven(&b->l->prepared, id, since, 0))
		return (FRESH);
	return (prepared_is_old(&b->l->prepared, id) ? STALE : ABSENT);
}

/* What the client's name will be then. */
static struct stmt *
named(const struct script *b, const char *name, struct prepared_since *since)
{
	const struct stmt_name *n = stmt_name_find(b->s, name);

	*since = (struct prepared_since){0};
	for (unsigned i = b->p->count; i-- > 0;) {
		const struct prep_step *step = &b->p->steps[i];

		if (step->does == PREP_DROP_ALL)
			return (NULL);
		if ((step->does == PREP_MAKE || step->does == PREP_DROP) &&
		    strcmp(step->name, name) == 0)
			return (step->does == PREP_MAKE ? step->stmt : NULL);
	}
	if (n == NULL)
		return (NULL);
	*since = n->since;
	return (n->stmt);
}

static void
put_forget(struct script *b, struct hash128 id)
{
	char name[PREPARED_NAME], *text;
	struct prep_step *step;

	prepared_name(id, name);
	text = mem_printf("DEALLOCATE %s;", name);
	step = put_own(b, text);
	step->does = PREP_FORGET;
	step->id = id;
	b->more--;
	free(text);
}

/* The one used longest ago makes room: first of those that the link had, then of those that
 * this string has made. */
static void
put_room(struct script *b)
{
	const struct prepared_set *set = &b->l->prepared;
	int64_t max = pool_settings(b->s->worker)->max_prepared_statements;
	const struct prep_step *step;
	struct hash128 id;

	if ((int64_t)prepared_count(set) + b->more < max)
		return;
	while (prepared_oldest(set, b->old_passed, &id)) {
		b->old_passed++;
		if (last_about(b, id) == NULL) {
			put_forget(b, id);
			return;
		}
	}
	while (b->new_passed < b->p->count) {
		step = &b->p->steps[b->new_passed++];
		id = step->id;
		if ((step->does == PREP_MAKE || step->does == PREP_TELL) &&
		    last_about(b, id) == step) {
			put_forget(b, id);
			return;
		}
	}
}

/* The link has the statement from here on. */
static void
put_tell(struct script *b, struct stmt *st, struct prepared_since since)
{
	enum presence is = presence_of(b, st->id, since);
	struct prep_step *step;
	char name[PREPARED_NAME], *text;

	if (is == FRESH || st->declared == NULL)
		return;
	if (is == STALE)
		put_forget(b, st->id);
	else
		put_room(b);
	prepared_name(st->id, name);
	text =
	    mem_printf("PREPARE %s%s AS %s\n;", name, st->declared, prep_sent(b->s, st));
	step = put_own(b, text);
	b->more++;
	step->does = PREP_TELL;
	step->stmt = st;
	step->id = st->id;
	st->refs++;
	free(text);
}

/* PREPARE under a free name. */
static void
put_make(struct script *b, const struct sql_scan *scan, const struct sql_prepare *p,
    const char *from)
{
	struct stmt *st = prep_intern(b->s, scan, p);
	struct prep_step *step;

	(void)said_of(b);
	if (!statements_have_room(b->s, p->name, st->sql_len + b->len))
		refuse(b, "53200",
		    "prepared statements of this client take too much memory");
	if (presence_of(b, st->id, (struct prepared_since){0}) != ABSENT)
		put_forget(b, st->id);
	else
		put_room(b);
	step = prep_step_add(b->p);
	b->more++;
	step->does = PREP_MAKE;
	step->stmt = st;
	step->id = st->id;
	step->name = mem_str(p->name);
	put_name(b, step, from, scan->sql + p->at, p->len);
}

/* A statement about a name that is there: EXECUTE, DEALLOCATE, or a PREPARE that will fail. */
static void
put_known(struct script *b, const struct sql_scan *scan, const struct sql_prepare *p,
    const char *from, struct stmt *st, struct prepared_since since)
{
	struct prep_step *step;

	if (p->kind == SQL_PREPARE_RUN &&
	    !carry_run(b->s, st, b->p->count == 0, &b->p->refusal))
		b->is_refused = true;
	if (p->kind == SQL_PREPARE_RUN && st->prepare == SQL_PREPARE_VIEW)
		put_list(b);
	if (p->kind == SQL_PREPARE_RUN && prep_nests(st)) {
		b->is_refused = true;
		prep_refuse_nested(b->p);
	}
	if (p->kind == SQL_PREPARE_RUN && st->declared == NULL && b->l->txn != 'E' &&
	    presence_of(b, st->id, since) == ABSENT)
		refuse(b, "54000",
		    "more prepared statements in one string than max_prepared_statements");
	/* A PREPARE that is to fail must not make what others run, should it not fail. */
	if (p->kind == SQL_PREPARE_RUN ||
	    (p->kind == SQL_PREPARE_DROP &&
		presence_of(b, st->id, (struct prepared_since){0}) != ABSENT))
		st->refs++;
	else {
		st = prep_stand_in(b->s);
		since = (struct prepared_since){0};
	}
	put_tell(b, st, since);
	step = prep_step_add(b->p);
	step->does = p->kind == SQL_PREPARE_DROP ? PREP_DROP : PREP_NONE;
	b->more -= step->does == PREP_DROP;
	step->runs = p->kind == SQL_PREPARE_RUN && st->declared != NULL;
	step->stmt = st;
	step->id = st->id;
	step->name = mem_str(p->name);
	put_name(b, step, from, scan->sql + p->at, p->len);
}

/* LISTEN, and UNLISTEN that may mean something: a mark in its place. */
static const char *
put_listen(struct script *b, const struct sql_scan *scan, const struct sql_prepare *p,
    const char *from)
{
	struct session *s = b->s;
	const char *at = scan->sql + p->at;
	struct prep_step *step;
	char *mark;

	if (b->is_long || b->p->count >= SCRIPT_STATEMENTS)
		refuse(b, "54000", "too many statements in a string with LISTEN");
	else if (!listen_has_room(s))
		refuse(b, "54000", LISTEN_NO_ROOM);
	else if (s->listens != NULL && refusal_is_set(&s->listens->refusal)) {
		const struct refusal *why = &s->listens->refusal;

		b->is_refused = true;
		refusal_set(
		    &b->p->refusal, why->sqlstate, why->message, why->detail, why->hint);
		refusal_free(&s->listens->refusal);
	}
	b->has_any = true;
	if (b->is_refused)
		return (from);
	mark = listen_mark(s, p->name, p->kind == SQL_PREPARE_UNLISTEN);
	step = prep_step_add(b->p);
	step->is_unlisten = p->kind == SQL_PREPARE_UNLISTEN;
	put_said(b, from, (size_t)(at - from));
	prep_edit_add(b->p, b->chars, (uint32_t)strlen(mark), prep_chars(s, at, p->len));
	put(b, mark, strlen(mark));
	free(mark);
	return (at + p->len);
}

static bool
is_listen(const struct script *b, const struct sql_prepare *p)
{
	return (b->s->weave == NULL && b->l->txn != 'E' &&
		(p->kind == SQL_PREPARE_LISTEN || listen_is_any(b->s)));
}

/* One statement, whose text (with what stands before it) begins at `from`; the rest of it
 * begins where it answers. */
static const char *
put_statement(struct script *b, const struct sql_scan *scan, const char *from)
{
	struct sql_prepare p;
	struct stmt *st = NULL;
	struct prepared_since since = {0};
	const char *rest = from;

	if (scan->is_empty)
		return (rest);
	if (sql_listen_read(scan, &p)) {
		bool is_it = is_listen(b, &p);

		if (is_it)
			rest = put_listen(b, scan, &p, from);
		sql_prepare_free(&p);
		if (is_it)
			return (rest);
	}
	if (!b->s->rewrites || !sql_prepare_read(scan, &p)) {
		b->is_long |= b->p->count >= SCRIPT_STATEMENTS;
		if (b->is_long)
			return (rest);
		if (b->s->rewrites)
			rest = put_with(b, scan, from, true);
		(void)prep_step_add(b->p);
		return (rest);
	}
	if (b->is_long || b->p->count >= SCRIPT_STATEMENTS) {
		refuse(b, "54000",
		    "too many statements in a string with PREPARE, EXECUTE or DEALLOCATE");
		b->has_any = true;
		sql_prepare_free(&p);
		return (rest);
	}
	if (p.name != NULL)
		st = named(b, p.name, &since);
	if (st != NULL) {
		put_known(b, scan, &p, from, st, since);
		rest = scan->sql + p.at + p.len;
	} else if (p.kind == SQL_PREPARE_MAKE) {
		put_make(b, scan, &p, from);
		rest = put_with(b, scan, scan->sql + p.at + p.len, false);
	} else
		prep_step_add(b->p)->does =
		    p.kind == SQL_PREPARE_DROP_ALL ? PREP_DROP_ALL : PREP_NONE;
	sql_prepare_free(&p);
	return (rest);
}

/* A SET behind a RESET that goes back to what the client asked for when it connected. */
static void
put_restore(void *arg, const char *sql)
{
	struct script *b = arg;
	char *text = mem_printf("\n;%s", sql);

	(void)put_own(b, text);
	b->has_any = true;
	free(text);
}

/* The whole string, with its NUL; or, when it is refused, one that fails. */
static void
build(struct script *b, size_t len)
{
	const char *at = b->said, *from = at, *end = at + len;
	struct sql_scan scan;
	char *reset;

	while (at != NULL && !b->is_refused) {
		sql_scan(at, (size_t)(end - at), &scan);
		from = put_statement(b, &scan, at);
		at = scan.next;
		reset = b->s->weave == NULL ? sql_reset_name(&scan) : NULL;
		sql_scan_free(&scan);
		put_said(b, from, (size_t)((at != NULL ? at : end) - from));
		if (reset != NULL && !b->is_long)
			(void)carry_restore(b->s, reset, put_restore, b);
		free(reset);
		if (b->out.len > len + SCRIPT_MORE_BYTES)
			refuse(b, "54000",
			    "what this string runs is too long to be prepared for it");
	}
	if (b->is_refused) {
		b->out.len = 0;
		buf_addstr(&b->out, "pgweave refuses this statement");
	}
	buf_add(&b->out, "", 1);
}

/* ---- answers without a server ---- */

static void
answer(struct session *s, const char *tag)
{
	struct link *l = s->link;
	struct buf out = {0};

	proto_command_complete(&out, tag);
	if (s->weave != NULL)
		weave_ready(s, l, l->txn);
	proto_ready(&out, s->weave != NULL ? weave_status(s) : l->txn);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
	l->unnamed = UNNAMED_FOREIGN;
	stmt_unnamed_set(s, NULL);
	s->unnamed_token = 0;
}

static bool
make_here(struct session *s, const struct sql_scan *scan, const struct sql_prepare *p,
    const char *said_sql, size_t said_len)
{
	struct stmt *st = prep_intern(s, scan, p);
	struct stmt_said *said;
	struct stmt_name *n;

	if (!prepared_touch_fresh(&s->link->prepared, st->id, prepared_since_now()) ||
	    !statements_have_room(s, p->name, st->sql_len + said_len)) {
		stmt_release(s->worker, st);
		return (false);
	}
	n = stmt_name_add(s, p->name, st);
	n->is_sure = true;
	n->since = prepared_since_now();
	said = stmt_said_make(said_sql, said_len);
	stmt_name_say(s, n, said);
	stmt_said_release(said);
	answer(s, "PREPARE");
	return (true);
}

/* PREPARE of what the link has, and DEALLOCATE, when they are alone. */
static bool
answer_here(struct session *s, const char *sql, size_t len)
{
	struct stmt_name *n;
	struct sql_prepare p;
	struct sql_scan scan;
	bool is_done = false;

	if (s->link->txn == 'E' || s->link->wants_sync)
		return (false);
	sql_scan(sql, len, &scan);
	if (scan.next == NULL && sql_prepare_read(&scan, &p)) {
		n = p.name != NULL ? stmt_name_find(s, p.name) : NULL;
		if (p.kind == SQL_PREPARE_MAKE && n == NULL)
			is_done = make_here(s, &scan, &p, sql, len);
		else if (p.kind == SQL_PREPARE_DROP && n != NULL) {
			is_done = true;
			stmt_name_take_out(s, n);
			answer(s, "DEALLOCATE");
		}
		sql_prepare_free(&p);
	}
	sql_scan_free(&scan);
	return (is_done);
}

/* ---- a query ---- */

/* Whether one statement of it is the client's. */
static bool
has_one(const struct prep *p)
{
	unsigned count = 0;

	for (unsigned i = 0; i < p->count; i++)
		count += !p->steps[i].is_ours;
	return (count == 1);
}

enum up_verdict
prep_query(struct up *u, const char *said, const char *sent, size_t len)
{
	struct session *s = u->s;
	struct link *l = s->link;
	bool was_ahead = s->prep != NULL && s->prep->is_ahead && s->prep->had_sync;
	struct script b = {.s = s, .l = l, .said = said, .sent = sent, .len = len};

	prep_end(s);
	if (was_ahead)
		l->wants_sync = false;
	if (answer_here(s, said, len))
		return (UP_GO_ON);
	b.p = prep_begin(s);
	build(&b, len);
	free(b.blanked);
	if (!b.has_any) {
		prep_end(s);
		buf_free(&b.out);
		return (UP_PASS);
	}
	b.p->is_running = true;
	b.p->may_repeat = l->txn == 'I' && has_one(b.p) && !b.is_refused && said == sent;
	if (b.p->may_repeat) {
		b.p->text = mem_strn(said, len);
		b.p->len = len;
	}
	up_to_link(u);
	proto_message(batch_make(&u->batch), 'Q', b.out.mem, b.out.len);
	batch_made(&u->batch);
	up_owe(u, REQ_QUERY, ACT_FORWARD)->is_looked = true;
	up_drop_unnamed(u);
	buf_free(&b.out);
	return (UP_GO_ON);
}

void
prep_repeat(struct session *s, struct link *l)
{
	char *text = s->prep->text;
	size_t len = s->prep->len;
	struct script b = {.s = s, .l = l, .said = text, .sent = text, .len = len};
	struct buf out = {0};

	s->prep->text = NULL;
	b.p = prep_begin(s);
	b.p->is_running = true;
	build(&b, len);
	free(b.blanked);
	proto_message(&out, 'Q', b.out.mem, b.out.len);
	requests_push(&l->requests, REQ_QUERY, ACT_FORWARD);
	stream_write(&l->stream, out.mem, out.len);
	buf_free(&out);
	buf_free(&b.out);
	free(text);
}
