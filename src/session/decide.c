/*
 * What becomes of a statement of a session on a virtual database, and whether its key may run
 * it now.
 */
#include "carry.h"
#include "catalog.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MADE_MAX 4096 /* each EXECUTE behind them looks for its own */

/* ---- limits of a key ---- */

/* One more statement of the key in its time; how long until then when there are too many.
 * The bucket is the time at which all that was let in would be used up. */
static int64_t
rate_wait_us(const struct topo_key *k, int64_t now)
{
	int64_t step = k->rate_us / k->rate, was = atomic_load(&k->use->bucket_us), next;

	do {
		next = (was > now ? was : now) + step;
		if (next - now > k->rate_us)
			return (next - now - k->rate_us);
	} while (!atomic_compare_exchange_weak(&k->use->bucket_us, &was, next));
	return (0);
}

bool
weave_admit(struct up *u)
{
	struct weave *w = u->s->weave;
	const struct topo_key *k = w->key;
	bool was_let_in = w->again != NULL && w->again->repeats;
	char detail[128];
	int64_t wait;

	if (k == NULL || k->use == NULL)
		return (true);
	if (k->rate > 0 && !was_let_in && (wait = rate_wait_us(k, u->now_us)) > 0) {
		snprintf(detail, sizeof(detail), "Retry in %.3f s.", (double)wait / 1e6);
		refusal_set(
		    &w->refusal, "53400", "rate limit of this key reached", detail, NULL);
		return (false);
	}
	if (!w->is_running) {
		unsigned running = atomic_fetch_add(&k->use->running, 1);

		if (k->concurrency > 0 && !was_let_in &&
		    running >= (uint64_t)k->concurrency) {
			atomic_fetch_sub(&k->use->running, 1);
			refusal_set(&w->refusal, "53400",
			    "concurrency limit of this key reached",
			    "Retry when one of its statements has ended.", NULL);
			return (false);
		}
		w->is_running = true;
		w->running_use = k->use;
	}
	atomic_store(&k->use->last_used_us, clock_wall_us());
	return (true);
}

/* ---- decisions ---- */

enum decision
weave_decline(
    struct weave *w, const char *sqlstate, const char *message, const char *hint)
{
	refusal_set(&w->refusal, sqlstate, message, NULL, hint);
	return (GO_REFUSED);
}

static bool
is_one_of(const char *verb, const char *const *list)
{
	for (; *list != NULL; list++)
		if (**list == *verb && strcmp(*list, verb) == 0)
			return (true);
	return (false);
}

/* Statements of a transaction that belong to a link that it has. NULL: none of these. */
static struct leg *
leg_for_verb(struct session *s, const struct sense *sense)
{
	static const char *const of_cursors[] = {"fetch", "move", "close", NULL};
	static const char *const of_session[] = {"set", "show", "reset", NULL};
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;

	if (w->txn != TXN_OPEN || w->leg_count == 0)
		return (NULL);
	if (f->class == SQL_SAVEPOINT || f->class == SQL_COMMIT ||
	    f->class == SQL_ROLLBACK || f->class == SQL_TWO_PHASE ||
	    f->class == SQL_BEGIN)
		return (leg_home(w));
	if (f->table_count > 0)
		return (NULL);
	if (is_one_of(sense->scan.verb, of_session) || weave_track_is_call(sense))
		return (leg_home(w));
	if (is_one_of(sense->scan.verb, of_cursors) && f->cursor != NULL &&
	    cursors_is_held(w, f->cursor))
		return (NULL);
	if (is_one_of(sense->scan.verb, of_cursors))
		return (weave_leg_of_cursors(s, f->cursor != NULL ? f->cursor : "?"));
	return (f->is_plain_read && s->link != NULL ? leg_note(s, s->link) : NULL);
}

static enum decision
decline_failed(struct weave *w)
{
	return (weave_decline(w, "25P02",
	    "current transaction is aborted, commands ignored until end of transaction block",
	    NULL));
}

/* What ends a failed transaction, or its failure, may be said in it; nothing at all, in a
 * simple query. */
static bool
may_in_failed(const struct sense *sense, const struct binding *b)
{
	const struct sql_facts *f = sense->facts;

	return (f->class == SQL_COMMIT || f->class == SQL_ROLLBACK ||
		f->class == SQL_SAVEPOINT || f->class == SQL_TWO_PHASE ||
		(f->class == SQL_EMPTY && b == NULL));
}

static enum decision
decide_in_failed(struct session *s, const struct sense *sense, struct seat **seat)
{
	struct weave *w = s->weave;
	struct leg *home = leg_home(w);

	if (sense->facts->class != SQL_SAVEPOINT || !sense->facts->is_rollback_to ||
	    home == NULL || w->frame_count == 0 || w->is_doomed)
		return (decline_failed(w));
	*seat = home->seat;
	return (GO_ONE);
}

/* Rows of one INSERT for several databases: a transaction writes on one. */
static enum decision
decide_split(struct weave *w, const struct route_plan *plan)
{
	enum decision go;
	char *message;

	if (plan->split.rows == NULL || w->txn == TXN_NONE)
		return (GO_MANY);
	message =
	    mem_printf("a transaction cannot write on two databases: \"%s\" and \"%s\"",
		plan->legs[0].member->name, plan->legs[1].member->name);
	go = weave_decline(w, "0A000", message,
	    "Outside a transaction, each row of an INSERT goes to its database.");
	free(message);
	return (go);
}

/* Outside of a transaction it may be another link that has drawn from the sequence. */
static bool
may_ask_sequences(struct weave *w, const struct sense *sense)
{
	const struct sql_scan *scan = &sense->scan;

	if (sense->facts->is_plain_read || w->txn != TXN_NONE || w->unit.is_string ||
	    (w->relays && w->is_bound) ||
	    (sql_look_names(scan->sql, scan->len) & SQL_LOOK_LEAVES) == 0 ||
	    (sql_leaves(scan) & SQL_LEAVES_SEQUENCE) == 0)
		return (true);
	refusal_set(&w->refusal, "55000", SEQUENCES_UNKNOWN,
	    "On virtual databases they are answered in a transaction.", SEQUENCES_HINT);
	return (false);
}

/* What the statement leaves there, or needs of what was left. */
static bool
may_be_there(struct session *s, const struct sense *sense, const struct route_plan *plan,
    const struct seat *seat)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;

	return (anchors_may_pin(s, sense, seat) && may_ask_sequences(w, sense) &&
		(f->cursor == NULL || cursors_may_open(w, f->cursor, seat)) &&
		(plan->on_replica || TAILQ_EMPTY(&w->anchors) ||
		    !anchors_are_stale(s, plan->legs[0].member, seat)));
}

enum decision
weave_route(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	struct route_input in;

	sense_input(s, sense, b, &in);
	route_plan(&in, plan);
	switch (plan->way) {
	case ROUTE_REFUSED:
		if (strcmp(plan->sqlstate, "57P03") == 0)
			(void)weave_hold(s, NULL);
		refusal_set(
		    &w->refusal, plan->sqlstate, plan->message, plan->detail, plan->hint);
		return (GO_REFUSED);
	case ROUTE_MANY:
		if (sense->facts->keeps != SQL_KEEPS_NOTHING)
			return (weave_decline(w, "0A000",
			    "what a statement leaves in the session cannot be left on several databases",
			    "Name one: SET pgweave.database = …"));
		if (w->txn != TXN_NONE && plan->calls_writer)
			return (weave_decline(w, "0A000",
			    "a function that may write cannot be called on several databases in one transaction",
			    "Call it outside a transaction, or on one database."));
		return (GO_MANY);
	case ROUTE_SPLIT:
		return (decide_split(w, plan));
	case ROUTE_ONE:
	default:
		/* A function of the user's that may write counts as a write. */
		plan->is_write |= plan->calls_writer;
		/* What is set is the session's, and goes on to where it writes. */
		if (sense->facts->class == SQL_SET || weave_track_is_call(sense))
			plan->is_write = false;
		/* What COMMIT is to keep must be on the leg that is committed. */
		plan->is_write |=
		    sense->facts->keeps == SQL_KEEPS_CURSOR && w->txn != TXN_NONE;
		w->reads_replica = plan->on_replica && !plan->is_write;
		*seat = weave_seat(s, plan->legs[0].node);
		w->decided = *seat;
		return (*seat != NULL && may_be_there(s, sense, plan, *seat)
			    ? GO_ONE
			    : GO_REFUSED);
	}
}

/* What a read-only key or login may not say: the server is told that all it does is READ ONLY,
 * and so it stays. */
static bool
lifts_read_only(const struct session *s, const struct sense *sense)
{
	const struct sql_facts *f = sense->facts;
	const struct topo_key *k = s->weave->key;

	if (k == NULL || !k->is_read_only)
		return (false);
	if (f->class == SQL_BEGIN)
		return (f->is_read_write);
	if (f->class != SQL_SET || f->set_verb == SQL_SET_SHOW)
		return (false);
	/* SET TRANSACTION, SET SESSION CHARACTERISTICS */
	if (f->setting == NULL || strcmp(f->setting, "transaction") == 0 ||
	    strcmp(f->setting, "session characteristics") == 0)
		return (sense_has_word(sense, "write"));
	return (
	    strcmp(f->setting, "all") == 0 || strstr(f->setting, "read_only") != NULL);
}

/* Everything here reads a statement as if standard_conforming_strings were on: a string with a
 * backslash could end elsewhere. */
static bool
reads_otherwise(const struct session *s, const struct sense *sense)
{
	const struct vars *vars = s->link != NULL ? s->link->vars : s->vars;
	const char *is_on;

	if (memchr(sense->scan.sql, '\\', sense->scan.len) == NULL)
		return (false);
	is_on = vars_get(vars, "standard_conforming_strings");
	return (is_on != NULL && strcmp(is_on, "off") == 0);
}

/* A table of a database that is none of the members. The name of one that is not configured at
 * all may be the server's own. */
static bool
names_stranger(struct session *s, const struct sql_facts *f)
{
	struct weave *w = s->weave;
	const struct topo *topo = pool_worker(s->worker)->topo;
	char *message;

	for (unsigned i = 0; i < f->table_count; i++) {
		const struct sql_table *t = &f->tables[i];
		const struct topo_database *db =
		    t->catalog != NULL ? topo_database_find(topo, t->catalog) : NULL;

		if (db == NULL || strcasecmp(db->name, t->catalog) != 0 ||
		    topo_member_find(w->virt, t->catalog) != NULL)
			continue;
		message = mem_printf(
		    "database \"%s\" is no member of \"%s\"", t->catalog, w->virt->name);
		refusal_set(&w->refusal, "0A000", message, NULL, NULL);
		free(message);
		return (true);
	}
	return (false);
}

static bool
is_reset_of_all(const struct sense *sense)
{
	const struct sql_facts *f = sense->facts;

	if (f->class != SQL_UTILITY && f->class != SQL_SET && f->class != SQL_UNKNOWN)
		return (false);
	return (strcmp(sense->scan.verb, "discard") == 0 ||
		(f->set_verb == SQL_SET_RESET && f->setting != NULL &&
		    strcmp(f->setting, "all") == 0));
}

/* ---- PREPARE, EXECUTE, DEALLOCATE ---- */

void
weave_made_free(struct session *s)
{
	struct weave *w = s->weave;

	for (unsigned i = 0; i < w->made_count; i++) {
		free(w->made[i].name);
		if (w->made[i].stmt != NULL)
			stmt_release(s->worker, w->made[i].stmt);
	}
	free(w->made);
	w->made = NULL;
	w->made_count = 0;
}

static void
note_made(struct session *s, const struct sql_scan *scan, const struct sql_prepare *p)
{
	struct weave *w = s->weave;
	struct made *made;

	if (!w->unit.is_string)
		return;
	w->made = mem_realloc(w->made, (w->made_count + 1) * sizeof(*w->made));
	made = &w->made[w->made_count++];
	*made = (struct made){.name = p->name != NULL ? mem_str(p->name) : NULL};
	if (p->kind == SQL_PREPARE_MAKE)
		made->stmt = prep_intern(s, scan, p);
}

/* What EXECUTE of that name runs, when it comes to it. */
static struct stmt *
stmt_named(struct session *s, const char *name)
{
	const struct stmt_name *n = stmt_name_find(s, name);
	const struct weave *w = s->weave;

	for (unsigned i = w->made_count; i-- > 0;)
		if (w->made[i].name == NULL || strcmp(w->made[i].name, name) == 0)
			return (w->made[i].stmt);
	return (n != NULL ? n->stmt : NULL);
}

/* Whether it may be PREPARE, EXECUTE, DEALLOCATE, EXPLAIN or CREATE TABLE AS of an EXECUTE. */
static bool
may_be_prepared(const struct sense *sense)
{
	switch (sense->scan.verb[0]) {
	case 'p':
	case 'e':
	case 'd':
	case 'c':
		return (sql_prepare_may(sense->scan.sql, sense->scan.len) > 0);
	default:
		return (false);
	}
}

bool
prep_inner_find(struct session *s, const struct sense *sense, struct prep_inner *out)
{
	struct stmt *st = NULL;
	struct sql_prepare p;
	unsigned count;

	*out = (struct prep_inner){0};
	if (!may_be_prepared(sense) || !sql_prepare_read(&sense->scan, &p))
		return (false);
	if (p.kind == SQL_PREPARE_RUN)
		st = stmt_named(s, p.name);
	if (st == NULL || prep_nests(st)) {
		sql_prepare_free(&p);
		return (false);
	}
	st->refs++;
	out->stmt = st;
	out->sense = *sense_of_stmt(s->worker, st);
	/* What stands before EXECUTE is said of this one time. */
	if (sense->scan.hint != NULL)
		out->sense.scan.hint = sense->scan.hint;
	count = sql_prepare_arguments(&sense->scan, &p, &out->arguments);
	out->binding =
	    (struct binding){.arguments = out->arguments, .argument_count = count};
	out->is_plain = !p.is_explained && !p.creates;
	out->creates = p.creates;
	sql_prepare_free(&p);
	return (true);
}

void
prep_inner_free(struct session *s, struct prep_inner *inner)
{
	sql_arguments_free(inner->arguments, inner->binding.argument_count);
	stmt_release(s->worker, inner->stmt);
}

/* Where what needs no database goes: to the link that is there, or home. */
static enum decision
go_anywhere(struct session *s, struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	struct leg *leg = w->txn == TXN_OPEN ? leg_home(w) : NULL;

	w->unit.floats = true;
	plan->leg_count = 0;
	plan->is_write = false;
	plan->warning[0] = '\0';
	*seat = s->link != NULL ? s->link->place : leg != NULL ? leg->seat : w->home;
	return (GO_ONE);
}

/* PREPARE goes where its statement would without values, to be looked at; where that cannot be
 * told, or is several, any will do. */
static enum decision
decide_prepare(struct session *s, const struct sense *sense, const struct sql_prepare *p,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	struct sense inner;
	enum decision go = GO_REFUSED;
	bool awaits_values;

	sense_make(s->worker, sense->scan.sql + p->inner_at,
	    sense->scan.len - p->inner_at, &inner);
	awaits_values = w->virt->shard_count > 0 && inner.facts->match_count > 0 &&
			inner.scan.param_max > 0;
	if (sql_prepare_may(inner.scan.sql, inner.scan.len) == 0 &&
	    !sense_is_local(s, &inner))
		go = weave_decide(s, &inner, NULL, plan, seat);
	sense_end(&inner);
	if (w->is_held)
		return (go);
	refusal_free(&w->refusal);
	plan->is_write = false;
	w->unit.floats = awaits_values;
	return (go == GO_ONE ? go : go_anywhere(s, plan, seat));
}

static enum decision
decide_execute(struct session *s, const struct sense *sense, struct prep_inner *inner,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	struct seat *there = NULL;
	enum decision go;

	if (sense_is_local(s, &inner->sense))
		return (weave_decline(w, "0A000",
		    "EXECUTE of this statement cannot be routed", "Send it by itself."));
	go = weave_decide(s, &inner->sense, &inner->binding, plan, seat);
	if (go == GO_MANY && (!inner->is_plain || inner->binding.argument_count > 0))
		return (weave_decline(w, "0A000",
		    inner->is_plain
			? "EXECUTE with arguments cannot go to several databases"
			: "EXPLAIN or CREATE TABLE AS of an EXECUTE cannot go to several databases",
		    "Send the statement itself, or name the database: SET pgweave.database = …"));
	if (go != GO_ONE || !inner->creates)
		return (go);
	/* The new table and what fills it belong to one database. */
	there = *seat;
	go = weave_route(s, sense, NULL, plan, seat);
	if (go == GO_ONE && *seat == there)
		return (go);
	return (
	    go == GO_REFUSED
		? go
		: weave_decline(w, "0A000",
		      "the table and the rows that fill it belong to different databases",
		      NULL));
}

/* SET TRANSACTION of what PostgreSQL wants to know before the first query. */
static bool
changes_modes(const struct sql_facts *f)
{
	return (f->setting != NULL && strcmp(f->setting, "transaction") == 0 &&
		(f->isolation != NULL || f->is_read_write || f->is_deferrable ||
		    f->is_not_deferrable));
}

/* GO_LOCAL: it is none of these. */
static enum decision
decide_prepared(struct session *s, const struct sense *sense, struct route_plan *plan,
    struct seat **seat)
{
	struct prep_inner inner;
	struct sql_prepare p;
	enum decision go = GO_LOCAL;

	if (!may_be_prepared(sense))
		return (go);
	if (prep_inner_find(s, sense, &inner)) {
		go = decide_execute(s, sense, &inner, plan, seat);
		prep_inner_free(s, &inner);
		return (go);
	}
	if (!sql_prepare_read(&sense->scan, &p))
		return (go);
	if (p.kind == SQL_PREPARE_MAKE)
		go = decide_prepare(s, sense, &p, plan, seat);
	else if (!p.creates)
		go = go_anywhere(s, plan, seat);
	if (p.kind != SQL_PREPARE_RUN && s->weave->made_count >= MADE_MAX)
		go = weave_decline(s->weave, "54000",
		    "too many statements in a string with PREPARE, EXECUTE or DEALLOCATE",
		    NULL);
	else if (p.kind != SQL_PREPARE_RUN)
		note_made(s, &sense->scan, &p);
	sql_prepare_free(&p);
	return (go);
}

enum decision
weave_decide(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	enum decision go;
	struct leg *leg;

	w->unit.floats = w->reads_replica = w->is_repeated = false;
	if (repeat_decide(s, sense, plan, seat))
		return (GO_ONE);
	plan->leg_count = 0;
	plan->is_write = false;
	plan->warning[0] = '\0';
	plan->memo.member = NULL;
	if (sense->scan.hint != NULL && sense->scan.hint->problem != NULL)
		return (weave_decline(w, "22023", sense->scan.hint->problem, NULL));
	if (lifts_read_only(s, sense))
		return (weave_decline(w, "42501",
		    "this login may only read, and cannot change that", NULL));
	if (sense_is_local(s, sense))
		return (w->txn == TXN_FAILED && !may_in_failed(sense, b)
			    ? decline_failed(w)
			    : GO_LOCAL);
	if (w->txn == TXN_FAILED)
		return (decide_in_failed(s, sense, seat));
	if (names_stranger(s, f))
		return (GO_REFUSED);
	if (reads_otherwise(s, sense))
		return (weave_decline(w, "0A000",
		    "a statement with backslashes cannot be read while standard_conforming_strings is off",
		    "SET standard_conforming_strings TO on."));
	if (f->sets_pgweave)
		return (weave_decline(w, "0A000",
		    "set_config() and current_setting() do not reach the settings of pgweave",
		    "Use SET and SHOW."));
	if (!weave_track_may_run(s, sense, b))
		return (GO_REFUSED);
	/* What they reset on one link, they reset for the client. */
	if (w->txn == TXN_NONE && is_reset_of_all(sense)) {
		*seat = w->home;
		w->unit.floats = true;
		return (GO_ONE);
	}
	if (f->keeps == SQL_KEEPS_LISTENER)
		return (weave_decline(
		    w, "0A000", "LISTEN within another statement", "Send it by itself."));
	go = decide_prepared(s, sense, plan, seat);
	if (go != GO_LOCAL)
		return (go);
	leg = leg_for_verb(s, sense);
	if (leg == NULL) {
		go = weave_route(s, sense, b, plan, seat);
		if (go == GO_ONE)
			repeat_note(s, sense, plan);
		return (go);
	}
	if (f->class == SQL_TWO_PHASE && weave_track_listens(w))
		return (weave_decline(w, "0A000",
		    "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY",
		    NULL));
	if (f->class == SQL_TWO_PHASE && w->leg_count > 1)
		return (weave_decline(w, "0A000",
		    "PREPARE TRANSACTION of a transaction on several databases", NULL));
	if (f->class == SQL_BEGIN && w->leg_count > 1)
		return (weave_decline(w, "0A000",
		    "BEGIN with modes in a transaction on several databases",
		    "Say them where the transaction begins."));
	if (f->class == SQL_SET && w->leg_count > 1 && changes_modes(f))
		return (weave_decline(
		    w, "25001", "SET TRANSACTION must be called before any query", NULL));
	*seat = leg->seat;
	return (GO_ONE);
}

/* UPDATE pg_settings is a SET. */
static bool
writes_settings(const struct sql_facts *f)
{
	for (unsigned i = 0; i < f->table_count; i++)
		if (f->tables[i].is_written &&
		    strcmp(f->tables[i].name, "pg_settings") == 0)
			return (true);
	return (false);
}

bool
weave_is_taint(const struct sense *sense)
{
	static const char *const verbs[] = {"listen", "load", "do", "call", NULL};
	const struct sql_facts *f = sense->facts;

	if (f->is_plain_read || f->class == SQL_SET)
		return (false);
	return (is_one_of(sense->scan.verb, verbs) || writes_settings(f) ||
		sense_has_word(sense, "set_config"));
}

/* The text may be long, and a string may run it often. */
static bool
is_taint_of_stmt(const struct sense *sense, struct stmt *st)
{
	if (!st->knows_taint)
		st->is_taint = weave_is_taint(sense);
	st->knows_taint = true;
	return (st->is_taint);
}

/* The server begins it, or adds to it; others will be told. */
static void
note_begin(struct weave *w, const struct sense *sense)
{
	free(w->next_begin);
	w->next_begin = mem_strn(sense->scan.sql, sense->scan.len);
	w->next_is_read_only = sense_reads_anywhere(sense);
	w->unit.has_begun = true;
}

void
weave_note_relayed(struct session *s, const struct sense *sense, const struct binding *b)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	uint64_t noted = w->noted;
	struct prep_inner inner;

	if (prep_inner_find(s, sense, &inner)) {
		if (is_taint_of_stmt(&inner.sense, inner.stmt))
			w->unit.taints |=
			    !weave_track_call(s, &inner.sense, &inner.binding);
		anchors_note(s, &inner.sense);
		prep_inner_free(s, &inner);
	}
	if (f->class == SQL_SAVEPOINT) {
		w->unit.saves |= !f->is_release && !f->is_rollback_to;
		if (w->txn != TXN_NONE || w->unit.is_string)
			(void)weave_savepoint(s, f);
		/* Those that were opened since are gone. */
		if (f->is_rollback_to)
			cursors_free(w);
	}
	if (f->class == SQL_BEGIN)
		note_begin(w, sense);
	if (f->class == SQL_DDL)
		catalog_suspect();
	w->unit.rolls_back |= f->class == SQL_ROLLBACK;
	w->unit.resets_all |= f->class == SQL_SET && is_reset_of_all(sense);
	if (f->cursor != NULL && strcmp(sense->scan.verb, "declare") == 0)
		cursors_open(w, f->cursor);
	else if (f->cursor != NULL && strcmp(sense->scan.verb, "close") == 0)
		cursors_close(w, f->cursor);
	if (f->class == SQL_SET || f->class == SQL_UTILITY || f->class == SQL_COMMIT ||
	    f->class == SQL_ROLLBACK)
		w->unit.taints |= !weave_track_note(s, sense);
	if (weave_is_taint(sense))
		w->unit.taints |= !weave_track_call(s, sense, b);
	anchors_note(s, sense);
	if (b == NULL || w->noted == noted)
		return;
	/* Which of several portals runs, and when, is not looked at. */
	w->unit.taints |= w->unit.binds_named;
	w->unit.is_unsure |= w->unit.binds_named;
	w->unit.awaits_run = true;
	w->unit.awaits_from = noted;
}

void
weave_leave_failed(struct session *s)
{
	struct weave *w = s->weave;

	if (w->txn != TXN_FAILED)
		return;
	legs_park(s);
	legs_drop(
	    s, leg_home(w), "it failed, and the transaction goes back to a savepoint");
	w->txn = TXN_OPEN;
}

void
weave_note_leg(struct session *s)
{
	struct weave *w = s->weave;
	struct leg *leg = leg_note(s, s->link);

	leg->has_written |= w->unit.writes;
	leg->has_savepoints |= w->unit.saves;
	leg->has_portals |= w->unit.opens;
	cursors_land(w, leg->seat);
}

void
weave_say_warning(struct session *s, const struct route_plan *plan)
{
	struct buf out = {0};

	if (plan->warning[0] == '\0')
		return;
	proto_error(&out, "WARNING", "01000", plan->warning, NULL, NULL);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

enum up_verdict
weave_goes_to(struct session *s, const struct sense *sense, const struct binding *b,
    const struct route_plan *plan, struct seat *seat)
{
	struct weave *w = s->weave;

	weave_leave_failed(s);
	/* Those of a string were noted in their order. */
	if (!w->unit.is_string && !w->is_repeated)
		weave_note_relayed(s, sense, b);
	if (plan->leg_count > 0)
		weave_note_routed(w, plan);
	weave_say_warning(s, plan);
	return (weave_take(s, seat, plan->is_write));
}
