/*
 * The links of a session on a virtual database: one for a statement of its own, one for each
 * database that a transaction touches, one for each database that a statement is scattered
 * over. They are gathered one after the other, in one order for all sessions; each is given
 * the session's parameters and, inside a transaction, BEGIN.
 */
#include "weave.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void gather_next(struct session *s);

/* ---- seats ---- */

static struct seat *
seat_known(const struct weave *w, const struct topo_database *node)
{
	for (unsigned i = 0; i < w->seat_count; i++)
		if (w->seats[i].node == node)
			return (w->seats[i].seat);
	return (NULL);
}

struct seat *
weave_seat(struct session *s, const struct topo_database *node)
{
	struct weave *w = s->weave;
	struct seat *seat = seat_known(w, node);
	const char *role;
	char *message;

	if (seat != NULL)
		return (seat);
	role = w->key != NULL ? topo_key_role(w->key, node->name) : NULL;
	if (role == NULL)
		role = node->user;
	if (role == NULL &&
	    topo_key_find(pool_worker(s->worker)->topo, s->user->name) != NULL) {
		message = mem_printf("key \"%s\" has no role at database \"%s\"",
		    s->user->name, node->name);
		refusal_set(&w->refusal, "42501", message, NULL,
		    "Give the database a user, or the key a ROLE there.");
		free(message);
		return (NULL);
	}
	if (role == NULL)
		role = s->user->name;
	seat = pool_seat_as(s->worker, node->name, role);
	session_show(s, seat);
	w->seats = mem_realloc(w->seats, (w->seat_count + 1) * sizeof(*w->seats));
	w->seats[w->seat_count++] = (struct seat_known){.node = node, .seat = seat};
	return (seat);
}

/* ---- the list ---- */

struct leg *
leg_of_link(struct weave *w, const struct link *l)
{
	for (unsigned i = 0; i < w->leg_count; i++)
		if (w->legs[i].link == l)
			return (&w->legs[i]);
	return (NULL);
}

struct leg *
leg_of_seat(struct weave *w, const struct seat *seat)
{
	for (unsigned i = 0; i < w->leg_count; i++)
		if (w->legs[i].seat == seat)
			return (&w->legs[i]);
	return (NULL);
}

struct leg *
leg_home(struct weave *w)
{
	for (unsigned i = 0; i < w->leg_count; i++)
		if (w->legs[i].has_written || w->legs[i].has_savepoints)
			return (&w->legs[i]);
	for (unsigned i = 0; i < w->leg_count; i++)
		if (w->legs[i].is_main)
			return (&w->legs[i]);
	return (w->leg_count > 0 ? &w->legs[0] : NULL);
}

static struct leg *
leg_add(struct weave *w, struct seat *seat)
{
	struct leg *leg;

	INVARIANT(w->leg_count < ROUTE_LEGS_MAX);
	w->legs = mem_realloc(w->legs, (w->leg_count + 1) * sizeof(*w->legs));
	leg = &w->legs[w->leg_count++];
	*leg = (struct leg){.seat = seat};
	return (leg);
}

struct leg *
leg_note(struct session *s, struct link *l)
{
	struct leg *leg = leg_of_link(s->weave, l);

	if (leg == NULL) {
		leg = leg_add(s->weave, l->place);
		leg->link = l;
		leg->is_main = s->weave->leg_count == 1;
	}
	return (leg);
}

void
leg_forget(struct weave *w, struct leg *leg)
{
	size_t i = (size_t)(leg - w->legs);

	memmove(leg, leg + 1, (w->leg_count - i - 1) * sizeof(*leg));
	if (--w->leg_count > 0)
		return;
	free(w->legs);
	w->legs = NULL;
}

void
leg_drop(struct session *s, struct leg *leg, const char *why)
{
	struct link *l = leg->link;

	leg_forget(s->weave, leg);
	if (l == NULL)
		return;
	INVARIANT(l != s->link);
	if (anchor_settles(s, l))
		return;
	if (l->state == LINK_LENT) {
		l->user = NULL;
		if (l->stream.is_paused)
			stream_resume(&l->stream);
		l->was_shared = true;
		pool_give_broken(l, link_take_taint(l), why);
	} else if (l->state != LINK_CLOSED) {
		l->user = NULL;
		link_close(l, why);
	}
}

void
legs_drop(struct session *s, const struct leg *but, const char *why)
{
	const struct link *keep = but != NULL ? but->link : NULL;

	for (unsigned i = s->weave->leg_count; i-- > 0;)
		if (keep == NULL || s->weave->legs[i].link != keep)
			leg_drop(s, &s->weave->legs[i], why);
}

/* ---- parked links: what their servers say of their own accord ---- */

static void
parked_gone(struct session *s, struct link *l, const char *why)
{
	struct weave *w = s->weave;
	struct leg *leg = leg_of_link(w, l);
	bool was_open = leg != NULL && leg->is_open;

	session_log(s, LOG_WARNING_, "lost %s: %s", l->name, why);
	if (leg != NULL)
		leg_forget(w, leg);
	if (anchors_lost(s, l)) {
		session_close(s, fault_info(F_LINK_LOST)->sqlstate, why);
		return;
	}
	w->is_doomed |= was_open;
	if (s->state == SESSION_WEAVING && w->run->then == THEN_ROLLBACK) {
		/* What was lost is rolled back. */
		if (w->run->got < w->run->want_count &&
		    w->run->want[w->run->got] == l->place)
			gather_next(s);
	} else if (s->state == SESSION_WEAVING && w->run->federation == NULL &&
		   !weave_split_runs(w)) {
		struct refusal r = {0};
		char *message = mem_printf("database \"%s\" was lost",
		    ((struct seat *)l->place)->pool->database);

		/* Links were being gathered: there is nothing to go on with. */
		refusal_set(&r, "08006", message, why, NULL);
		free(message);
		pool_wait_end(&s->waiter);
		if (was_open)
			w->txn = TXN_FAILED;
		if (w->run->then == THEN_SCATTER)
			scatter_fail(s, &r);
		else {
			refusal_set(&w->refusal, r.sqlstate, r.message, r.detail, r.hint);
			legs_rest(s);
		}
		refusal_free(&r);
	} else if (was_open && w->txn == TXN_OPEN)
		w->txn = TXN_FAILED;
}

static size_t
parked_bytes(struct link *l, const uint8_t *p, size_t len)
{
	struct session *s = l->user_arg;
	const char *name, *value;
	size_t used = 0;
	uint32_t size;

	while (len - used >= PROTO_HEAD) {
		size = proto_get32(p + used + 1);
		if (size < 4 || size > 65536 || strchr("NSA", (char)p[used]) == NULL) {
			parked_gone(s, l,
			    p[used] == 'E' ? "the server ended the connection"
					   : "unexpected message");
			l->user = NULL;
			link_close(l, "unexpected message between statements");
			return (len);
		}
		if (len - used < (size_t)size + 1)
			break;
		if (p[used] == 'S' && proto_parameter_parse(p + used + PROTO_HEAD,
					  size - 4, &name, &value) == 0)
			link_note_parameter(l, name, value);
		used += (size_t)size + 1;
	}
	return (used);
}

static void
parked_drained(struct link *l)
{
	(void)l;
}

static void
parked_lost(struct link *l, const char *why)
{
	parked_gone(l->user_arg, l, why);
}

const struct link_user legs_parked_user = {
    .bytes = parked_bytes,
    .drained = parked_drained,
    .lost = parked_lost,
};

void
legs_park(struct session *s)
{
	struct link *l = s->link;

	if (l == NULL)
		return;
	(void)leg_note(s, l);
	session_settle_vars(s, l);
	l->user = &legs_parked_user;
	s->link = NULL;
	s->seat = s->weave->home;
}

void
legs_unpark(struct session *s, struct leg *leg)
{
	INVARIANT(s->link == NULL && leg->link->state == LINK_LENT);
	s->link = leg->link;
	s->link->user = &session_link_user;
	s->link->user_arg = s;
	s->seat = leg->seat;
}

/* ---- gathering ---- */

struct weave_run *
weave_run(struct weave *w)
{
	if (w->run == NULL)
		w->run = mem_alloc(sizeof(*w->run));
	return (w->run);
}

void
weave_run_free(struct weave *w)
{
	struct weave_run *run = w->run;

	w->run = NULL;
	weave_run_drop(run);
}

void
weave_run_drop(struct weave_run *run)
{
	if (run == NULL)
		return;
	weave_split_free(run->split);
	for (size_t i = 0; i < ARRAY_LEN(run->members); i++)
		free(run->members[i]);
	sql_facts_release(run->facts);
	free(run->text);
	free(run->bind);
	free(run->kinds);
	free(run);
}

static void
gather_failed(struct session *s, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	struct weave *w = s->weave;
	struct refusal r = {0};

	refusal_set(&r, sqlstate, message, detail, hint);
	if (w->run->then == THEN_SCATTER)
		scatter_fail(s, &r);
	else {
		refusal_set(&w->refusal, sqlstate, message, detail, hint);
		legs_rest(s);
	}
	refusal_free(&r);
}

/* What a link has before the session does something on it: within a transaction, what the
 * session had before. */
static struct vars *
vars_before(const struct session *s)
{
	return (s->weave->base_vars != NULL ? s->weave->base_vars : s->vars);
}

/* A setting that another member has taken is none of this one's. The caller frees it. */
static char *
detail_of_settings(const struct link *l, const struct proto_error_fields *error)
{
	return (mem_printf("%s%sDatabase \"%s\" was told what the session has set.",
	    error->detail != NULL ? error->detail : "", error->detail != NULL ? " " : "",
	    ((const struct seat *)l->place)->pool->database));
}
static const char settings_hint[] =
    "RESET it, with SET pgweave.database for a database that knows it; SET LOCAL keeps a setting to its transaction.";

/* Whether it would not be told what the session has set; then nobody knows what it has. */
static bool
leg_refused(struct session *s, struct link *l, const struct proto_error_fields *error)
{
	char *detail;

	if (error == NULL)
		return (false);
	l->is_dirty = true;
	detail = detail_of_settings(l, error);
	gather_failed(s, error->sqlstate, error->message, detail,
	    error->hint != NULL ? error->hint : settings_hint);
	free(detail);
	return (true);
}

void
weave_settings_refused(struct session *s, const struct proto_error_fields *error)
{
	struct weave *w = s->weave;
	struct link *l = s->link;
	char *detail = detail_of_settings(l, error);

	refusal_set(&w->refusal, error->sqlstate, error->message, detail,
	    error->hint != NULL ? error->hint : settings_hint);
	free(detail);
	/* The session has not what the link has. */
	s->link = NULL;
	session_move(s, SESSION_IDLE);
	w->is_routed = false;
	s->seat = w->home;
	pool_give(l, false);
	session_flow(s);
}

static void
leg_vars_set(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	if (leg_refused(s, l, error))
		return;
	session_note_vars(l, vars_before(s));
	gather_next(s);
}

static void
leg_begun(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	if (error != NULL || l->txn != 'T') {
		l->is_dirty = true;
		gather_failed(s, error != NULL ? error->sqlstate : "XX000",
		    error != NULL ? error->message : "no transaction was begun",
		    error != NULL ? error->detail : NULL,
		    error != NULL ? error->hint : NULL);
		return;
	}
	if (s->weave->txn == TXN_DEFERRED)
		s->weave->txn_us = clock_us();
	leg_note(s, l)->is_open = true;
	s->weave->txn = TXN_OPEN;
	/* Its time is the transaction's, whichever leg it spends it on. */
	l->xact_us = s->weave->txn_us;
	gather_next(s);
}

static void
leg_rolled_back(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;
	struct leg *leg = leg_of_link(s->weave, l);

	if (error != NULL || l->txn != 'I')
		l->is_dirty = true;
	l->xact_us = 0;
	leg->is_open = false;
	gather_next(s);
}

/* The session's parameters; true when they are being set. */
static bool
leg_set_vars(struct session *s, struct link *l)
{
	struct vars *want = vars_before(s);
	struct buf sql = {0};
	bool differs = l->vars != want && vars_sql(l->vars, want, &sql);

	if (differs) {
		buf_add(&sql, "", 1);
		link_run(l, (const char *)sql.mem, leg_vars_set, s);
	}
	buf_free(&sql);
	return (differs);
}

static void
leg_caught_up(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	if (leg_refused(s, l, error))
		return;
	leg_note(s, l)->told = s->weave->noted_sure;
	gather_next(s);
}

/* What the transaction has set elsewhere; true when it is being set here, or was given up. */
static bool
leg_catch_up(struct session *s, struct leg *leg)
{
	struct weave *w = s->weave;
	struct buf sql = {0};
	int is_due = leg->link->txn != 'E' && !w->unit.rolls_back
			 ? weave_track_catch_up(w, leg, &sql)
			 : 0;

	if (is_due > 0) {
		buf_add(&sql, "", 1);
		link_run(leg->link, (const char *)sql.mem, leg_caught_up, s);
	} else if (is_due < 0)
		gather_failed(s, "0A000",
		    "this transaction cannot go on at another member",
		    "What it has set is known to its server alone: set_config() with a computed name or value, or too many settings.",
		    "Give set_config() constants or parameters, in a SELECT of its own.");
	else
		leg->told = w->noted_sure;
	buf_free(&sql);
	return (is_due != 0);
}

/* One step for a leg: true when an answer is waited for. */
static bool
gather_step(struct session *s, struct leg *leg)
{
	struct weave *w = s->weave;
	struct link *l = leg->link;

	if (w->run->then == THEN_ROLLBACK) {
		if (!leg->is_open)
			return (false);
		link_run(l, "ROLLBACK", leg_rolled_back, s);
		return (true);
	}
	if (leg->is_open)
		return (leg_catch_up(s, leg));
	if (leg_set_vars(s, l))
		return (true);
	if (w->txn == TXN_NONE)
		return (false);
	link_run(l, w->begin_sql, leg_begun, s);
	return (true);
}

/* The session's parameters are again those from before the transaction. */
static void
vars_roll_back(struct session *s)
{
	struct vars *told = vars_hold(s->vars);

	if (s->weave->base_vars != NULL)
		session_follow_vars(s, told, s->weave->base_vars);
	vars_release(s->worker, told);
}

static void
rolled_back(struct session *s)
{
	struct weave *w = s->weave;
	bool chains = w->run->then_chains;
	struct buf out = {0};

	vars_roll_back(s);
	weave_track_free(s);
	weave_txn_over(s, false);
	if (chains)
		weave_txn_chain(s);
	proto_command_complete(&out, "ROLLBACK");
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
	/* The message is offered again, for what stands behind it: ReadyForQuery at least. */
	legs_rest(s);
}

static void
gather_done(struct session *s)
{
	struct weave *w = s->weave;
	struct leg *leg;

	switch (w->run->then) {
	case THEN_RELAY:
		leg = leg_of_seat(w, w->run->want[0]);
		weave_run_free(w);
		session_move(s, SESSION_ACTIVE);
		legs_unpark(s, leg);
		session_flow(s);
		break;
	case THEN_SCATTER:
		kinds_look(s);
		break;
	case THEN_ROLLBACK:
	default:
		rolled_back(s);
		break;
	}
}

/* Goes on where it stands until an answer is waited for, or all is there. */
static void
gather_next(struct session *s)
{
	struct weave *w = s->weave;

	if (w->run->is_cancelled && w->run->then != THEN_ROLLBACK) {
		w->run->is_cancelled = false;
		gather_failed(s, fault_info(F_CANCELLED)->sqlstate,
		    fault_info(F_CANCELLED)->text, NULL, NULL);
		return;
	}
	while (w->run->got < w->run->want_count) {
		struct leg *leg = leg_of_seat(w, w->run->want[w->run->got]);
		const struct anchor *a;
		struct link *l;

		if (leg == NULL && w->run->then == THEN_ROLLBACK) {
			w->run->got++;
			continue;
		}
		if (leg == NULL &&
		    (a = anchor_of_seat(w, w->run->want[w->run->got])) != NULL) {
			if (a->step != STEP_NONE)
				return;
			leg = leg_note(s, a->link);
		}
		if (leg == NULL) {
			if (w->run->got == 0)
				s->knows_it_waits = false;
			s->waiter.granted = session_granted;
			s->waiter.refused = session_refused;
			s->waiter.is_login = true;
			s->waiter.is_asking = false;
			l = pool_lend(w->run->want[w->run->got], &s->waiter, s->vars);
			if (l == NULL)
				return;
			link_lend(l, &legs_parked_user, s);
			link_serve(l, s->pid);
			leg = leg_note(s, l);
		}
		if (gather_step(s, leg))
			return;
		w->run->got++;
	}
	gather_done(s);
}

void
legs_go_on(struct session *s)
{
	const struct weave_run *run = s->weave->run;

	if (run->got < run->want_count &&
	    leg_of_seat(s->weave, run->want[run->got]) == NULL && s->waiter.seat == NULL)
		gather_next(s);
}

void
weave_granted(struct session *s, struct link *l)
{
	s->link = NULL;
	l->user = &legs_parked_user;
	(void)leg_note(s, l);
	gather_next(s);
}

void
weave_refused(struct session *s, int fault, const char *sqlstate, const char *message)
{
	struct weave *w = s->weave;
	const struct seat *seat =
	    s->state == SESSION_WEAVING ? w->run->want[w->run->got] : s->seat;
	const char *hint = NULL;
	char *text, *detail = mem_str(message);

	if (fault == F_POOL_DOWN) {
		sqlstate = "57P03";
		text =
		    mem_printf("database \"%s\" cannot be reached", seat->pool->database);
		hint = "SHOW HEALTH on the console tells the state of every database.";
	} else if (fault == F_QUERY_WAIT && w->leg_count > 0) {
		sqlstate = "40P01";
		text = mem_printf("no link to database \"%s\" could be had in time",
		    seat->pool->database);
		hint = "The transaction held links to other databases: repeat it.";
		/* Now others can have them. */
		w->is_doomed = true;
		w->txn = TXN_FAILED;
		legs_drop(s, NULL, "given up for others");
	} else {
		text = mem_str(message);
		free(detail);
		detail = fault == F_QUERY_WAIT ? pool_why_waiting(seat) : NULL;
	}
	/* Nothing was sent: the primary can answer a read as well. */
	w->shuns_replicas = fault == F_POOL_DOWN && seat->database != NULL &&
			    seat->database->replica_of != NULL && !w->shuns_replicas &&
			    (s->state != SESSION_WEAVING || w->run->then == THEN_RELAY);
	if (fault == F_POOL_DOWN && !w->shuns_replicas &&
	    (s->state != SESSION_WEAVING || w->run->then == THEN_RELAY))
		(void)weave_hold(s, seat->database);
	if (!w->is_held)
		session_log(s, LOG_WARNING_, "%s: %s", text, message);
	if ((w->shuns_replicas || w->is_held) && s->state == SESSION_WEAVING)
		legs_rest(s);
	else if (s->state == SESSION_WEAVING)
		gather_failed(s, sqlstate, text, detail, hint);
	else {
		if (!w->shuns_replicas && !w->is_held)
			refusal_set(&w->refusal, sqlstate, text, detail, hint);
		if (s->state == SESSION_WAITING)
			session_move(s, SESSION_IDLE);
		w->is_routed = false;
		s->seat = w->home;
		session_flow(s);
	}
	free(text);
	free(detail);
}

static int
by_pool(const void *a, const void *b)
{
	const struct seat *const *x = a, *const *y = b;

	return ((*x)->pool < (*y)->pool ? -1 : (*x)->pool > (*y)->pool);
}

void
legs_gather(struct session *s, enum weave_then then)
{
	struct weave *w = s->weave;

	legs_park(s);
	/* In the same order for everybody, so that two cannot wait for each other. */
	qsort(w->run->want, w->run->want_count, sizeof(w->run->want[0]), by_pool);
	w->run->then = then;
	w->run->got = 0;
	w->run->start_us = clock_us();
	session_move(s, SESSION_WEAVING);
	session_flow(s);
	gather_next(s);
}

/* ---- one link for a unit ---- */

bool
leg_may_write(struct weave *w, const struct seat *seat)
{
	char *message;

	for (unsigned i = 0; i < w->leg_count; i++) {
		const struct leg *leg = &w->legs[i];

		if (leg->seat == seat)
			continue;
		if (!leg->has_written && !leg->has_savepoints)
			continue;
		message = mem_printf(
		    leg->has_written
			? "a transaction cannot write on two databases: \"%s\" and \"%s\""
			: "a transaction with savepoints on \"%s\" cannot write on \"%s\"",
		    leg->seat->pool->database, seat->pool->database);
		refusal_set(&w->refusal, "0A000", message,
		    leg->has_written
			? "Two-phase commit, which would make both commit or neither, is not supported yet."
			: NULL,
		    "Use a transaction for each database.");
		free(message);
		return (false);
	}
	return (true);
}

enum up_verdict
weave_take(struct session *s, struct seat *seat, bool is_write)
{
	struct weave *w = s->weave;
	bool usable;

	if (w->txn != TXN_NONE && (is_write || w->unit.saves) && !leg_may_write(w, seat))
		return (UP_GO_ON);
	w->is_routed = true;
	w->unit.writes |= is_write;
	if (w->txn == TXN_NONE && s->link != NULL) {
		/* What runs there was not ended. */
		w->is_routed = false;
		refusal_set(&w->refusal, "0A000",
		    "a batch for another database has not been ended", NULL,
		    "Send Sync first.");
		return (UP_GO_ON);
	}
	if (w->txn == TXN_NONE) {
		s->seat = seat;
		if (anchor_take(s, seat, &usable))
			return (usable ? UP_PASS : UP_STOP);
		if (session_get_link(s))
			return (UP_PASS);
		return (refusal_is_set(&w->refusal) ? UP_GO_ON : UP_STOP);
	}
	if (s->link != NULL && s->link->place == seat && w->txn == TXN_OPEN &&
	    (w->noted_sure == 0 || leg_note(s, s->link)->told == w->noted_sure ||
		w->unit.rolls_back))
		return (UP_PASS);
	weave_run(w)->want[0] = seat;
	w->run->want_count = 1;
	legs_gather(s, THEN_RELAY);
	if (refusal_is_set(&w->refusal))
		return (UP_GO_ON);
	return (s->state == SESSION_ACTIVE && w->is_routed ? UP_PASS : UP_STOP);
}

/* ---- rest ---- */

void
legs_rest(struct session *s)
{
	struct weave *w = s->weave;
	struct leg *leg;

	if (s->state != SESSION_WEAVING)
		return;
	w->is_routed = false;
	/* Those that are in no transaction go back. */
	for (unsigned i = w->leg_count; i-- > 0;)
		if (!w->legs[i].is_open || w->legs[i].link->state != LINK_LENT)
			leg_drop(s, &w->legs[i], "a statement was given up");
	leg = leg_home(w);
	if (leg != NULL) {
		session_move(s, SESSION_ACTIVE);
		legs_unpark(s, leg);
	} else
		session_move(s, SESSION_IDLE);
	weave_unit_over(s);
	session_flow(s);
}

/* ---- transactions ---- */

/* What a rollback brings back. */
static void
txn_save(struct session *s)
{
	said_copy(&s->weave->saved, &s->weave->session);
	weave_track_begin(s);
}

void
weave_txn_begin(struct session *s, const char *sql, size_t len, bool is_read_only)
{
	struct weave *w = s->weave;

	free(w->begin_sql);
	w->begin_sql = mem_strn(sql, len);
	w->begin_len = len;
	w->is_read_only = is_read_only;
	txn_save(s);
}

void
weave_txn_more(struct session *s, const char *sql, size_t len)
{
	struct weave *w = s->weave;
	size_t at = w->frame_count == 0 ? w->begin_len : strlen(w->begin_sql);
	char *begin = mem_printf(
	    "%.*s\n;%.*s%s", (int)at, w->begin_sql, (int)len, sql, w->begin_sql + at);

	/* A chain begins with it, too. */
	if (w->frame_count == 0)
		w->begin_len += 2 + len;
	free(w->begin_sql);
	w->begin_sql = begin;
	/* Perhaps they still may; the primary can answer them for sure. */
	w->is_read_only = false;
}

void
weave_txn_chain(struct session *s)
{
	txn_save(s);
	s->weave->txn = TXN_DEFERRED;
}

void
weave_savepoints_cut(struct session *s, unsigned count)
{
	struct weave *w = s->weave;

	while (w->frame_count > count) {
		struct said_frame *f = &w->frames[--w->frame_count];

		free(f->name);
		said_free(&f->session);
		said_free(&f->local);
	}
	if (count > 0)
		return;
	free(w->frames);
	w->frames = NULL;
	for (unsigned i = 0; i < w->leg_count; i++)
		w->legs[i].has_savepoints = false;
}

/* How many there are up to the last one of that name; 0: none. */
static unsigned
savepoint_count(const struct weave *w, const char *name)
{
	unsigned i = w->frame_count;

	while (i > 0 && strcmp(w->frames[i - 1].name, name != NULL ? name : "") != 0)
		i--;
	return (i);
}

bool
weave_has_savepoint(const struct weave *w, const char *name)
{
	return (savepoint_count(w, name) > 0);
}

bool
weave_savepoint(struct session *s, const struct sql_facts *f)
{
	struct weave *w = s->weave;
	const char *name = f->savepoint != NULL ? f->savepoint : "";
	unsigned i;

	if (!f->is_release && !f->is_rollback_to) {
		struct said_frame frame = {.name = mem_str(name)};

		said_copy(&frame.session, &w->session);
		said_copy(&frame.local, &w->local);
		frame.noted = w->noted;
		frame.temps = w->temp_count;
		w->frames =
		    mem_realloc(w->frames, (w->frame_count + 1) * sizeof(*w->frames));
		w->frames[w->frame_count++] = frame;
		return (true);
	}
	i = savepoint_count(w, name);
	if (i == 0)
		return (false);
	if (f->is_release) {
		weave_savepoints_cut(s, i - 1);
		return (true);
	}
	weave_savepoints_cut(s, i);
	said_copy(&w->session, &w->frames[i - 1].session);
	said_copy(&w->local, &w->frames[i - 1].local);
	weave_track_back(w, w->frames[i - 1].noted);
	temps_cut(w, w->frames[i - 1].temps);
	return (true);
}

void
weave_txn_over(struct session *s, bool committed)
{
	struct weave *w = s->weave;

	if (!committed)
		said_copy(&w->session, &w->saved);
	said_free(&w->saved);
	said_free(&w->local);
	portals_free(s);
	if (committed)
		temps_hold(w);
	else
		temps_cut(w, 0);
	weave_savepoints_cut(s, 0);
	if (w->begin_sql != NULL)
		w->begin_sql[w->begin_len] = '\0';
	w->txn = TXN_NONE;
	w->is_doomed = false;
}

/* ---- cancel ---- */

/* A query of the proxy's own runs on a leg, perhaps for ever: it is not waited for. */
static bool
leg_give_up(struct session *s)
{
	struct weave *w = s->weave;

	for (unsigned i = 0; i < w->leg_count; i++) {
		struct leg *leg = &w->legs[i];

		/* What holds the session there is not given up with it. */
		if (leg->link->state != LINK_RUNNING ||
		    anchor_of_link(w, leg->link) != NULL)
			continue;
		w->is_doomed |= leg->is_open;
		if (leg->is_open)
			w->txn = TXN_FAILED;
		leg_drop(s, leg, "cancelled while it was made ready");
		return (true);
	}
	return (false);
}

void
weave_cancel(struct session *s)
{
	struct weave *w = s->weave;

	if (w->run->then == THEN_ROLLBACK)
		return;
	if (w->run->federation != NULL) {
		federate_cancel(w->run->federation);
		return;
	}
	if (weave_split_runs(w)) {
		weave_split_cancel(s);
		return;
	}
	w->run->is_cancelled = true;
	if (s->waiter.seat != NULL) {
		pool_wait_end(&s->waiter);
		gather_next(s);
	} else if (leg_give_up(s))
		gather_next(s);
}

void
legs_keep(struct session *s)
{
	for (unsigned i = 0; i < s->weave->leg_count; i++) {
		struct link *l = s->weave->legs[i].link;

		if (l->state != LINK_LENT)
			continue;
		l->user = &legs_parked_user;
		l->user_arg = s;
	}
}
