/*
 * A session and its link: taking one, setting the session's parameters on it, holding either
 * side back while the other is full, giving it back, losing it.
 */
#include "carry.h"
#include "listen.h"
#include "mux.h"
#include <stdlib.h>
#include <string.h>

static void session_link_drained(struct link *l);
static void session_link_lost(struct link *l, const char *why);

const struct link_user session_link_user = {
    .bytes = session_link_bytes,
    .drained = session_link_drained,
    .lost = session_link_lost,
};

bool
session_is_at_work(const struct session *s)
{
	const struct link *l = s->link;

	/* In the middle of a COPY there is nothing to be done for it. */
	if (s->state == SESSION_WAITING || s->state == SESSION_WEAVING)
		return (!weave_split_takes(s));
	if (s->waits_own || s->state == SESSION_SHARING)
		return (true);
	if (s->state != SESSION_ACTIVE || l == NULL || s->body_left > 0 ||
	    l->is_copying_in)
		return (false);
	return (l->state != LINK_LENT ||
		(l->requests.count > 0 && (!l->wants_sync || s->is_stalled)));
}

void
session_flow(struct session *s)
{
	struct link *l = s->link;
	bool is_at_work = session_is_at_work(s);
	bool hold_client =
	    s->state == SESSION_WAITING || s->state == SESSION_WELCOME ||
	    (s->state == SESSION_WEAVING && !weave_split_takes(s)) ||
	    session_is_looking(s) || stream_is_full(&s->stream) || s->is_leaving ||
	    (s->weave != NULL && s->weave->is_held) || session_console_is_busy(s) ||
	    s->waits_own ||
	    (s->is_stalled && l != NULL && (l->requests.count > 0 || l->body_left > 0)) ||
	    (l != NULL && (l->state != LINK_LENT || stream_is_full(&l->stream) ||
			      l->requests.count >= REQUESTS_MAX));
	bool hold_link = l != NULL && l->state == LINK_LENT && stream_is_full(&s->stream);

	if (UNLIKELY(s->mux != NULL)) {
		mux_flow(s->mux);
		return;
	}
	if (s->weave != NULL && s->weave->run != NULL &&
	    s->weave->run->federation != NULL && !stream_is_full(&s->stream))
		federate_resume(s->weave->run->federation);
	if (hold_client != s->stream.is_paused) {
		if (hold_client)
			stream_pause(&s->stream);
		else
			stream_resume(&s->stream);
	}
	if (l != NULL && hold_link != l->stream.is_paused) {
		if (hold_link)
			stream_pause(&l->stream);
		else
			stream_resume(&l->stream);
	}
	/* One that hangs up may still want the answers: session_tick() gives it up. */
	stream_hold_end(&s->stream, is_at_work);
	stream_tell_hangup(&s->stream,
	    hold_client && !stream_is_full(&s->stream) && !s->is_leaving && !is_at_work);
}

static void
session_link_drained(struct link *l)
{
	session_flow(l->user_arg);
}

/* ---- parameters ---- */

void
session_note_vars(struct link *l, const struct vars *want)
{
	const char *name, *value;
	enum vars_kind kind;

	l->vars = vars_without_startup(l->worker, l->vars);
	for (unsigned i = 0; i < vars_count(want); i++) {
		vars_at(want, i, &name, &value, &kind);
		if (kind == VARS_STARTUP)
			l->vars = vars_with(l->worker, l->vars, name, value, kind);
	}
}

static void
vars_applied(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	if (error == NULL)
		session_note_vars(l, s->login != NULL ? s->login->want : s->vars);
	else
		l->is_dirty = true;
	if (s->state == SESSION_WELCOME) {
		session_welcome_applied(s, error);
		return;
	}
	if (error != NULL) {
		if (s->weave != NULL)
			weave_settings_refused(s, error);
		else
			session_close_with(
			    s, error->sqlstate, error->message, error->detail);
		return;
	}
	vars_release(s->worker, s->vars);
	s->vars = vars_hold(l->vars);
	/* Cancelled meanwhile: what waits is answered without a server. */
	if (s->is_refused && s->mode != POOL_SESSION) {
		(void)session_let_go(s);
		if (!anchor_moors(s, l))
			pool_give(l, false);
	}
	session_flow(s);
}

bool
session_apply_vars(struct session *s, struct vars *want)
{
	struct link *l = s->link;
	struct buf sql = {0};
	bool differs = l->vars != want && vars_sql(l->vars, want, &sql);

	if (UNLIKELY(((struct seat *)l->place)->sequences_us != 0))
		differs |= sequences_clean(s, &sql);
	/* A simple query also drops the unnamed statement of whoever had the link before. */
	if (!differs && !s->rewrites && l->unnamed != 0) {
		buf_addstr(&sql, ";");
		differs = true;
	}
	if (differs) {
		buf_add(&sql, "", 1);
		link_run(l, (const char *)sql.mem, vars_applied, s);
	}
	buf_free(&sql);
	return (differs);
}

/* ---- taking ---- */

/* A session that has the link for itself finds nothing of those who shared it. */
static void
session_link_clean(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	if (error != NULL) {
		l->is_dirty = true;
		session_close(s, error->sqlstate, error->message);
		return;
	}
	l->was_shared = false;
	if (!session_apply_vars(s, s->vars))
		session_flow(s);
}

/* The link is ours; true when it can be used at once. */
static bool
session_take(struct session *s, struct link *l)
{
	const char *reset = pool_settings(s->worker)->server_reset_query;

	link_lend(l, &session_link_user, s);
	link_serve(l, session_told_pid(s));
	s->link = l;
	s->request_us = l->request_us;
	if (s->state == SESSION_WELCOME) {
		session_welcome_link(s, l);
		return (false);
	}
	if (s->state == SESSION_WEAVING) {
		weave_granted(s, l);
		return (false);
	}
	session_move(s, SESSION_ACTIVE);
	if (s->mode == POOL_SESSION && l->was_shared && reset[0] != '\0') {
		link_run(l, reset, session_link_clean, s);
		return (false);
	}
	return (!session_apply_vars(s, s->vars));
}

bool
session_get_link(struct session *s)
{
	struct link *l;
	bool usable = false;

	s->waiter.granted = session_granted;
	s->waiter.refused = session_refused;
	/* A virtual database has others: it says at once that one cannot be reached. */
	s->waiter.is_login = s->weave != NULL;
	s->waiter.is_asking = false;
	s->knows_it_waits = false;
	if (UNLIKELY(s->seat->sequences_us != 0) && session_carries(s))
		sequences_keep(s);
	l = pool_lend(s->seat, &s->waiter, s->vars);
	if (l != NULL)
		usable = session_take(s, l);
	else if (s->state == SESSION_IDLE && s->waiter.seat != NULL)
		session_move(s, SESSION_WAITING);
	if (s->state != SESSION_CLOSED)
		session_flow(s);
	return (usable);
}

void
session_granted(struct waiter *w, struct link *l)
{
	struct session *s = CONTAINER_OF(w, struct session, waiter);

	if (UNLIKELY(s->timed != NULL) && mux_granted(s, l))
		return;
	(void)session_take(s, l);
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}

void
session_refused(struct waiter *w, int fault, const char *sqlstate, const char *message)
{
	struct session *s = CONTAINER_OF(w, struct session, waiter);
	char *detail;

	if (s->weave != NULL && s->login == NULL) {
		weave_refused(s, fault, sqlstate, message);
		return;
	}
	detail = fault == F_QUERY_WAIT ? pool_why_waiting(s->seat) : NULL;
	session_close_with(s, sqlstate, message, detail);
	free(detail);
}

/* ---- giving back ---- */

/* After DISCARD ALL the client's own startup values hold, not the server's. */
void
session_follow_vars(struct session *s, const struct vars *told, struct vars *vars)
{
	struct buf out = {0};
	const char *name, *value, *old;
	enum vars_kind kind;

	for (unsigned i = 0; told != vars && i < vars_count(vars); i++) {
		vars_at(vars, i, &name, &value, &kind);
		old = kind == VARS_REPORTED ? vars_get(told, name) : NULL;
		if (old != NULL && strcmp(old, value) != 0)
			proto_parameter_status(&out, name, value);
	}
	if (out.len > 0)
		stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
	vars_hold(vars);
	vars_release(s->worker, s->vars);
	s->vars = vars;
}

void
session_settle_vars(struct session *s, struct link *l)
{
	struct vars *now = vars_hold(s->was_discarded ? s->startup : l->vars);
	const char *name, *value, *old;
	enum vars_kind kind;

	/* What was set behind DISCARD ALL, in the same breath, holds. */
	for (unsigned i = 0; s->discarded != NULL && i < vars_count(l->vars); i++) {
		vars_at(l->vars, i, &name, &value, &kind);
		old = kind == VARS_REPORTED ? vars_get(s->discarded, name) : NULL;
		if (old != NULL && strcmp(old, value) != 0)
			now = vars_with(s->worker, now, name, value, kind);
	}
	/* The link may be in doubt about what the server does not report; the client is not. */
	if (s->vars != NULL && now != s->vars)
		now = vars_with_startup(s->worker, now, session_tracked(s));
	if (s->weave != NULL && UNLIKELY(s->weave->restored != NULL))
		now = weave_track_restored(s, now);
	if (s->vars != NULL && now != s->vars)
		session_follow_vars(s, l->vars, now);
	vars_release(s->worker, now);
	vars_release(s->worker, s->discarded);
	s->discarded = NULL;
	s->was_discarded = false;
}

struct link *
session_let_go(struct session *s)
{
	struct link *l = s->link;

	s->link = NULL;
	prep_end(s);
	l->was_shared |= s->mode != POOL_SESSION;
	if (s->weave == NULL && s->state != SESSION_WELCOME)
		sequences_left(s, l);
	l->is_sharing = l->shares = l->heals = false;
	if (!s->rewrites)
		l->unnamed = UNNAMED_FOREIGN;
	if (s->state != SESSION_WELCOME)
		session_settle_vars(s, l);
	if (l->stream.is_paused)
		stream_resume(&l->stream);
	if (s->state == SESSION_ACTIVE)
		session_move(s, SESSION_IDLE);
	if (s->weave != NULL)
		weave_unit_over(s);
	if (s->listens != NULL)
		listen_flush(s);
	return (l);
}

void
session_give_link(struct session *s, const char *why)
{
	struct link *l = s->link;

	if (l == NULL)
		return;
	carry_taint(s, l);
	if (l->state == LINK_RUNNING && s->carry != NULL && s->carry->is_asking) {
		s->link = NULL;
		prep_end(s);
		pool_give_running(l, true);
		return;
	}
	if (l->state != LINK_LENT || l->replication != REPLICATION_NONE) {
		/* A query of the proxy's own runs for this session: its end would find nobody; or
		 * the link is good for nobody else. */
		if (l->state == LINK_LENT && l->requests.count > 0 && !l->is_copying_in)
			link_cancel(l, NULL, NULL);
		s->link = NULL;
		prep_end(s);
		l->user = NULL;
		link_close(l, why);
		return;
	}
	session_disown_requests(s, l);
	if (s->body_left > 0 && !s->body_is_dropped)
		l->is_dirty = true;
	(void)session_let_go(s);
	pool_give_broken(l, s->mode == POOL_SESSION || link_take_taint(l), why);
}

unsigned
session_owed_readies(const struct link *l)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < l->requests.count; i++) {
		uint8_t kind = requests_at(&l->requests, i)->kind;

		n += kind == REQ_QUERY || kind == REQ_FUNCTION || kind == REQ_SYNC;
	}
	return (n);
}

void
session_release_if_done(struct session *s)
{
	struct link *l = s->link;

	/* Gone in the middle of its transaction, or of a batch: nothing more is coming. */
	if (s->is_leaving && l->body_left == 0 && s->body_left == 0 &&
	    session_owed_readies(l) == 0) {
		session_end(s, "client close request");
		return;
	}
	if (UNLIKELY(s->waits_own)) {
		if (s->listens != NULL && s->listens->holds && link_is_at_rest(l))
			listen_work(s);
		return;
	}
	if (!link_is_at_rest(l) || s->body_left > 0)
		return;
	if ((s->is_draining || session_worker(s->worker)->is_draining) &&
	    !session_keeps_link(s)) {
		session_close(s, "57P01", "server shutting down");
		return;
	}
	if (s->listens != NULL && s->listens->is_lost) {
		session_close(s, fault_info(F_LINK_LOST)->sqlstate, LISTEN_LOST);
		return;
	}
	if (UNLIKELY(s->fence != NULL))
		fence_rest(s);
	if (s->carry != NULL && carry_rest(s))
		return;
	if (s->mode == POOL_SESSION) {
		if (s->was_discarded) {
			session_settle_vars(s, l);
			(void)session_apply_vars(s, s->vars);
		}
		return;
	}
	if (s->weave != NULL && anchors_rest(s))
		return;
	(void)session_let_go(s);
	pool_give(l, link_take_taint(l));
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}

/* ---- losing ---- */

static void
session_link_lost(struct link *l, const char *why)
{
	struct session *s = l->user_arg;
	unsigned owed;
	char *detail = NULL;
	bool is_cut = l->body_left > 0 && l->body_is_forwarded;
	bool goes_on = s->state == SESSION_ACTIVE && l->txn == 'I' && s->body_left == 0 &&
		       s->mode != POOL_SESSION && !l->saw_fatal &&
		       (s->carry == NULL || carry_may_lose(s->carry));

	if (s->weave != NULL && anchors_lost(s, l))
		goes_on = false;
	/* The query itself was not sent, and will be. */
	if (s->prep != NULL && s->prep->is_ahead && s->prep->had_sync)
		l->wants_sync = false;
	owed = session_owed_readies(l);
	mux_untimed(s);
	if (s->listens != NULL && !listen_link_lost(s))
		goes_on = false;
	fence_leave(s);
	session_disown_requests(s, l);
	s->link = NULL;
	prep_end(s);
	if (again_lost(s, l->name, why))
		return;
	if (s->weave != NULL) {
		struct leg *leg = leg_of_link(s->weave, l);

		weave_wrote(s);
		if (leg != NULL)
			leg_forget(s->weave, leg);
		refusal_free(&s->weave->refusal);
		s->weave->unit = (struct unit_notes){0};
		weave_track_drop(s->weave);
		weave_unit_over(s);
	}
	if (is_cut || l->saw_fatal || s->is_leaving) {
		session_end(s, why);
		return;
	}
	if (!goes_on) {
		session_close(s, fault_info(F_LINK_LOST)->sqlstate, why);
		return;
	}
	/* Nothing but what was under way is lost: each statement gets its error, and the
	 * session goes on with another link. */
	session_move(s, SESSION_IDLE);
	if (s->weave != NULL)
		detail = mem_printf("In database \"%s\".",
		    ((const struct seat *)l->place)->pool->database);
	for (unsigned i = 0; i < owed; i++) {
		session_error(
		    s, "ERROR", fault_info(F_LINK_LOST)->sqlstate, why, detail, NULL);
		session_ready(s, 'I');
	}
	if (l->wants_sync) {
		session_error(
		    s, "ERROR", fault_info(F_LINK_LOST)->sqlstate, why, detail, NULL);
		s->skips_to_sync = true;
	}
	free(detail);
	session_flow(s);
}
