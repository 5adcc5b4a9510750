/*
 * Links that a session on a virtual database keeps beyond its transactions: a temporary table, a
 * cursor WITH HOLD or an advisory lock is there. One for each member, at most. What is routed to
 * that member's primary runs on it, in transactions and outside:
 *
 *   a unit may leave something (unit.leaves)        the link is an anchor, touched
 *   the link is at rest, or its leg is over         its server is asked
 *     something is there                            it is parked for the session
 *     nothing                                       the pool has it back
 *   DISCARD ALL, CLOSE ALL … on one of them         the others are told (drops)
 *
 * A leg that is over is rolled back and asked while the client hears the end of its transaction:
 * its next message waits for that.
 */
#include "carry.h"
#include <stdlib.h>
#include <string.h>

static bool step(struct anchor *);

/* ---- the list ---- */

struct anchor *
anchor_of_link(const struct weave *w, const struct link *l)
{
	struct anchor *a;

	TAILQ_FOREACH(a, &w->anchors, entry)
		if (a->link == l)
			return (a);
	return (NULL);
}

struct anchor *
anchor_of_seat(const struct weave *w, const struct seat *seat)
{
	struct anchor *a;

	TAILQ_FOREACH(a, &w->anchors, entry)
		if (a->link->place == seat)
			return (a);
	return (NULL);
}

static struct anchor *
anchor_add(struct session *s, struct link *l)
{
	struct anchor *a = mem_alloc(sizeof(*a));

	a->s = s;
	a->link = l;
	TAILQ_INSERT_TAIL(&s->weave->anchors, a, entry);
	return (a);
}

static void
forget_names(struct anchor *a)
{
	while (a->table_count > 0)
		free(a->tables[--a->table_count]);
	while (a->cursor_count > 0)
		free(a->cursors[--a->cursor_count]);
	free(a->tables);
	free(a->cursors);
	a->tables = a->cursors = NULL;
}

/* It is settled, or gives up. */
static void
settle_over(struct anchor *a)
{
	if (!a->is_settling)
		return;
	a->is_settling = false;
	session_worker(a->s->worker)->settling--;
	INVARIANT(a->s->waits_own > 0);
	a->s->waits_own--;
}

static void
anchor_free(struct anchor *a)
{
	settle_over(a);
	TAILQ_REMOVE(&a->s->weave->anchors, a, entry);
	forget_names(a);
	pins_free(&a->pins);
	free(a);
}

static void
clear(struct anchor *a)
{
	forget_names(a);
	pins_set(&a->pins, a->link->place, CARRY_PINS, 0);
	pins_forget(&a->pins);
	a->touched = a->drops = 0;
}

/* ---- what is sent ---- */

unsigned
anchor_leaves(const struct sense *sense)
{
	static const unsigned kept[] = {[SQL_KEEPS_NOTHING] = 0,
	    [SQL_KEEPS_TABLE] = SQL_LEAVES_TABLE,
	    [SQL_KEEPS_CURSOR] = SQL_LEAVES_CURSOR,
	    [SQL_KEEPS_LOCK] = SQL_LEAVES_LOCK,
	    [SQL_KEEPS_LISTENER] = 0};
	const struct sql_facts *f = sense->facts;

	/* PREPARE leaves nothing: its EXECUTE may. */
	if (f->is_plain_read || f->class == SQL_SET || f->class == SQL_BEGIN ||
	    strcmp(sense->scan.verb, "prepare") == 0)
		return (0);
	/* Nobody sees what a DO makes. */
	if (strcmp(sense->scan.verb, "do") == 0)
		return (ANCHOR_PINS);
	return (kept[f->keeps] | (carry_leaves(sense->scan.sql, sense->scan.len) &
				     (ANCHOR_PINS | SQL_LEAVES_LESS)));
}

/* What a statement drops wherever the session has it. */
static unsigned
drops_of(const struct sense *sense)
{
	const char *verb = sense->scan.verb;
	unsigned drops = 0;

	if (strcmp(verb, "discard") == 0 && sense_has_word(sense, "temp"))
		drops |= SQL_LEAVES_TABLE;
	if (strcmp(verb, "close") == 0 && sense->facts->cursor == NULL)
		drops |= SQL_LEAVES_CURSOR;
	if (sense_has_word(sense, "pg_advisory_unlock_all"))
		drops |= SQL_LEAVES_LOCK;
	return (drops);
}

void
anchors_note(struct session *s, const struct sense *sense)
{
	struct weave *w = s->weave;
	unsigned leaves = anchor_leaves(sense);
	struct pins words = {0};

	if (leaves == 0 && (sense->facts->class != SQL_DDL ||
			       (TAILQ_EMPTY(&w->anchors) && w->temp_count == 0)))
		return;
	/* It may be about a temporary table: ALTER TABLE … RENAME. */
	if (sense->facts->class == SQL_DDL)
		leaves |= SQL_LEAVES_LESS;
	if ((leaves & ANCHOR_PINS) != 0 && (w->unit.leaves & ANCHOR_PINS) == 0) {
		pins_note(&words, leaves, sense->scan.sql, sense->scan.len);
		free(w->pinner);
		w->pinner = words.statement;
	}
	w->unit.leaves |= leaves;
	if (!TAILQ_EMPTY(&w->anchors))
		w->unit.drops |= drops_of(sense);
	temps_note(s, sense, leaves);
}

/* What one member drops within a transaction comes back with its rollback: others would have
 * dropped it for good. */
static bool
may_drop(struct weave *w, const struct sense *sense, const struct seat *seat)
{
	const struct anchor *a;

	if (w->txn == TXN_NONE || (drops_of(sense) & SQL_LEAVES_TABLE) == 0)
		return (true);
	TAILQ_FOREACH(a, &w->anchors, entry)
		if (a->link->place != seat &&
		    ((a->pins.held | a->touched) & SQL_LEAVES_TABLE) != 0)
			break;
	if (a == NULL)
		return (true);
	refusal_set(&w->refusal, "0A000",
	    "DISCARD TEMP cannot reach the temporary tables of another database within a transaction",
	    NULL, "Use it outside of a transaction, or DROP TABLE.");
	return (false);
}

bool
anchors_may_pin(struct session *s, const struct sense *sense, const struct seat *seat)
{
	const struct topo_login *login =
	    topo_login_find(pool_worker(s->worker)->topo, s->user->name);
	unsigned leaves = 0;

	if (!TAILQ_EMPTY(&s->weave->anchors) && !may_drop(s->weave, sense, seat))
		return (false);
	if (login != NULL && login->pin >= 0 ? login->pin != PIN_REFUSE
					     : !seat->limits.refuses_pins)
		return (true);
	if (sense->facts->keeps != SQL_KEEPS_NOTHING ||
	    sense->facts->class == SQL_UNKNOWN)
		leaves = anchor_leaves(sense) & ANCHOR_PINS;
	return (leaves == 0 ||
		!pin_refuse(leaves, "Use a database or login with pin = allow.",
		    &s->weave->refusal));
}

/* ---- what has run ---- */

void
anchors_ready(struct session *s, struct link *l)
{
	struct weave *w = s->weave;
	struct anchor *a = anchor_of_link(w, l);
	unsigned leaves = w->unit.leaves;

	if (w->unit.discards) {
		if (a != NULL)
			clear(a);
		w->leaves_drop = SQL_LEAVES_DISCARD;
		return;
	}
	if (!w->unit.has_failed)
		w->leaves_drop |= w->unit.drops;
	if (a == NULL && (leaves & ANCHOR_PINS) != 0)
		a = anchor_add(s, l);
	if (a == NULL)
		return;
	a->touched |= leaves;
	if (a->pins.statement != NULL || (leaves & ANCHOR_PINS) == 0)
		return;
	a->pins.statement = w->pinner;
	w->pinner = NULL;
}

/* ---- what servers are asked ---- */

static void
add_name(char ***names, unsigned *count, char *name)
{
	*names = mem_realloc(*names, (*count + 1) * sizeof(**names));
	(*names)[(*count)++] = name;
}

/* 'p' and a pin, 'r' and a table, 'c' and a cursor; or what a function answers. */
static void
answer_row(void *arg, const uint8_t *p, size_t len)
{
	struct anchor *a = arg;
	size_t at = 2;
	char *kind = ask_value(p, len, &at), *name;

	if (kind == NULL || kind[0] == '\0') {
		free(kind);
		return;
	}
	name = ask_value(p, len, &at);
	if (name != NULL && kind[0] == 'p')
		a->found |= pin_of_row(name);
	else if (name != NULL && kind[0] == 'r')
		add_name(&a->tables, &a->table_count, name);
	else if (name != NULL)
		add_name(&a->cursors, &a->cursor_count, name);
	if (kind[0] == 'p')
		free(name);
	free(kind);
}

void
anchor_has_table(struct anchor *a, const char *name, bool has_it)
{
	for (unsigned i = a->table_count; i-- > 0;)
		if (strcmp(a->tables[i], name) == 0) {
			free(a->tables[i]);
			a->tables[i] = a->tables[--a->table_count];
		}
	if (has_it)
		add_name(&a->tables, &a->table_count, mem_str(name));
}

/* The link is at rest, and so is what the session knows of it. */
static void
stepped_all(struct anchor *a)
{
	struct session *s = a->s;
	struct link *l = a->link;

	if (l == s->link) {
		session_release_if_done(s);
		/* A cancel request meanwhile was for what waits. */
		if (s->state != SESSION_CLOSED && s->link != NULL)
			s->is_refused = false;
	} else {
		settle_over(a);
		if (a->pins.held == 0) {
			anchor_free(a);
			pool_give(l, link_take_taint(l));
		}
		if (s->waits_own == 0 && s->link != NULL && s->link->state == LINK_LENT)
			session_release_if_done(s);
		else if (s->state == SESSION_WEAVING)
			legs_go_on(s);
	}
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}

static void
stepped(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct anchor *a = arg;
	struct session *s = a->s;
	int was = (int)a->step;

	a->step = STEP_NONE;
	if (error != NULL || l->txn != 'I') {
		l->is_dirty = true;
		session_close(s, error != NULL ? error->sqlstate : "XX000",
		    error != NULL ? error->message : "a transaction was not ended");
		return;
	}
	if (was == STEP_ROLLBACK)
		l->xact_us = 0;
	else if (was == STEP_DISCARD)
		clear(a);
	else {
		pins_set(&a->pins, l->place, ANCHOR_PINS, a->found);
		pins_forget(&a->pins);
		a->touched = a->drops = 0;
	}
	if (!step(a))
		stepped_all(a);
}

static void
ask(struct anchor *a)
{
	static const struct {
		unsigned drop;
		const char *sql;
	} drops[] = {{SQL_LEAVES_TABLE, "DISCARD TEMP;"},
	    {SQL_LEAVES_CURSOR, "CLOSE ALL;"},
	    {SQL_LEAVES_LOCK, "SELECT pg_catalog.pg_advisory_unlock_all();"}};
	static const char names[] =
	    " UNION ALL SELECT 'r', c.relname::pg_catalog.text, '' FROM "
	    "pg_catalog.pg_depend d JOIN pg_catalog.pg_class c "
	    "ON c.oid OPERATOR(pg_catalog.=) d.objid WHERE d.classid "
	    "OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass "
	    "AND d.refclassid OPERATOR(pg_catalog.=) "
	    "'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid "
	    "OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() "
	    "UNION ALL SELECT 'c', name, '' FROM pg_catalog.pg_cursors WHERE is_holdable";
	struct buf sql = {0};

	buf_addstr(&sql, "SET LOCAL statement_timeout = 0;SET LOCAL role = none;");
	for (size_t i = 0; i < ARRAY_LEN(drops); i++)
		if ((a->drops & drops[i].drop) != 0)
			buf_addstr(&sql, drops[i].sql);
	buf_addstr(&sql, pin_question);
	buf_add(&sql, names, sizeof(names));
	a->found = 0;
	forget_names(a);
	link_run_rows(a->link, (const char *)sql.mem, answer_row, stepped, a);
	buf_free(&sql);
}

/* What is to be done on the link next; false: nothing. */
static bool
step(struct anchor *a)
{
	struct link *l = a->link;

	if (l->txn != 'I') {
		a->step = STEP_ROLLBACK;
		link_run(l, "ROLLBACK", stepped, a);
	} else if ((a->drops & SQL_LEAVES_DISCARD) != 0) {
		a->step = STEP_DISCARD;
		link_run(l, "DISCARD ALL", stepped, a);
	} else if (a->touched != 0 || a->drops != 0) {
		a->step = STEP_ASK;
		ask(a);
	} else
		return (false);
	return (true);
}

/* ---- links come and go ---- */

static void
park(struct anchor *a)
{
	a->link->user = &legs_parked_user;
	a->link->user_arg = a->s;
}

bool
anchor_take(struct session *s, const struct seat *seat, bool *usable)
{
	struct anchor *a = anchor_of_seat(s->weave, seat);

	if (a == NULL)
		return (false);
	*usable = false;
	if (a->step != STEP_NONE)
		return (true);
	s->link = a->link;
	s->link->user = &session_link_user;
	s->link->user_arg = s;
	s->request_us = clock_us();
	session_move(s, SESSION_ACTIVE);
	*usable = !session_apply_vars(s, s->vars);
	session_flow(s);
	return (true);
}

bool
anchor_moors(struct session *s, struct link *l)
{
	struct anchor *a = s->weave != NULL ? anchor_of_link(s->weave, l) : NULL;

	if (a != NULL)
		park(a);
	return (a != NULL);
}

/* It is parked, and has something to do first: the session's next message waits. */
static void
settle(struct anchor *a)
{
	struct session *s = a->s;

	if (a->is_settling || !step(a))
		return;
	a->is_settling = true;
	session_worker(s->worker)->settling++;
	s->waits_own++;
	session_flow(s);
}

/* What was dropped on one link goes from the others. */
static void
drop_elsewhere(struct session *s)
{
	struct weave *w = s->weave;
	unsigned drops = w->leaves_drop;
	struct anchor *a;

	w->leaves_drop = 0;
	TAILQ_FOREACH(a, &w->anchors, entry) {
		if (a->link == s->link)
			continue;
		a->drops |= drops & (a->pins.held | SQL_LEAVES_DISCARD);
		settle(a);
	}
}

bool
anchors_rest(struct session *s)
{
	struct link *l = s->link;
	struct anchor *a = anchor_of_link(s->weave, l);

	if (s->weave->leaves_drop != 0)
		drop_elsewhere(s);
	if (a == NULL)
		return (false);
	if (step(a)) {
		session_flow(s);
		return (true);
	}
	pins_forget(&a->pins);
	if (a->pins.held == 0) {
		anchor_free(a);
		return (false);
	}
	(void)session_let_go(s);
	park(a);
	session_flow(s);
	return (true);
}

bool
anchor_settles(struct session *s, struct link *l)
{
	struct anchor *a = anchor_of_link(s->weave, l);

	if (a == NULL)
		return (false);
	if (l->state != LINK_LENT || l->requests.count > 0 || l->wants_sync ||
	    l->skips_to_sync || l->is_copying_in || l->body_left > 0 || l->is_dirty) {
		(void)anchors_lost(s, l);
		return (false);
	}
	if (l->stream.is_paused)
		stream_resume(&l->stream);
	l->was_shared = true;
	park(a);
	settle(a);
	if (!a->is_settling && a->pins.held == 0) {
		anchor_free(a);
		pool_give(l, link_take_taint(l));
	}
	return (true);
}

bool
anchors_lost(struct session *s, struct link *l)
{
	struct weave *w = s->weave;
	struct anchor *a = anchor_of_link(w, l);

	if (a == NULL && (l != s->link || (w->unit.leaves & ANCHOR_PINS) == 0))
		return (false);
	if (a != NULL)
		anchor_free(a);
	w->is_adrift = true;
	return (true);
}

/* What is there must go, whatever the reset query does. */
static void
taint(struct anchor *a)
{
	struct link *l = a->link;

	l->is_tainted = true;
	if (strcasecmp(pool_settings(l->worker)->server_reset_query, "DISCARD ALL") != 0)
		l->is_dirty = true;
}

void
anchors_end(struct session *s)
{
	struct weave *w = s->weave;
	struct anchor *a;

	while ((a = TAILQ_FIRST(&w->anchors)) != NULL) {
		struct link *l = a->link;
		bool is_running = a->step != STEP_NONE;

		taint(a);
		anchor_free(a);
		if (l == s->link && is_running) {
			s->link = NULL;
			prep_end(s);
		} else if (l == s->link || leg_of_link(w, l) != NULL)
			continue;
		l->was_shared = true;
		if (is_running)
			pool_give_running(l, true);
		else
			pool_give_broken(l, link_take_taint(l), "client disconnect");
	}
	temps_cut(w, 0);
	free(w->pinner);
	w->pinner = NULL;
}

bool
anchors_are_stale(
    struct session *s, const struct topo_database *member, const struct seat *seat)
{
	struct weave *w = s->weave;
	const struct topo_database *at;
	const struct anchor *a;
	char *message;

	TAILQ_FOREACH(a, &w->anchors, entry) {
		if (a->pins.held == 0 || a->link->place == seat)
			continue;
		at = member_of_seat(w, a->link->place);
		if (at == NULL ||
		    topo_database_served(at) != topo_database_served(member))
			continue;
		message = mem_printf(
		    "another server answers for database \"%s\" than the one that the session is pinned to",
		    member->name);
		refusal_set(&w->refusal, "08006", message, NULL,
		    "What was there (SHOW PINS) cannot be reached from here: connect again.");
		free(message);
		return (true);
	}
	return (false);
}

/* ---- time ---- */

/* A server that does not answer is not waited for. */
static void
tick_each(struct session_list *list, int64_t now, int64_t most)
{
	struct session *s, *next;
	struct anchor *a;

	for (s = TAILQ_FIRST(list); s != NULL; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (s->weave == NULL)
			continue;
		TAILQ_FOREACH(a, &s->weave->anchors, entry)
			if (a->is_settling && now - a->link->run_us > most)
				break;
		if (a != NULL)
			session_close(
			    s, "57014", "server did not answer (server_connect_timeout)");
	}
}

void
anchors_tick(struct worker *w, int64_t now)
{
	struct session_worker *sw = session_worker(w);
	int64_t most = pool_settings(w)->server_connect_timeout;

	if (sw->settling == 0 || most <= 0)
		return;
	tick_each(&sw->sessions[SESSION_IDLE], now, most);
	tick_each(&sw->sessions[SESSION_ACTIVE], now, most);
}
