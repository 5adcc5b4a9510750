/* What time does to sessions. */
#include "listen.h"
#include "mux.h"

#define HUNG_UP_US 2000000 /* how long the work of a client goes on that has hung up */

static void
tick_logins(struct session_worker *sw, enum session_state state, int64_t now, int64_t max)
{
	struct session *s, *next;

	if (max <= 0)
		return;
	for (s = TAILQ_FIRST(&sw->sessions[state]); s != NULL; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (now - s->connect_us > max)
			session_close(s, "08P01", "client_login_timeout");
	}
}

/* A statement, or a transaction, that takes too long. */
static void
tick_active(struct session *s, int64_t now)
{
	const struct topo_limits *max = &s->seat->limits;
	const struct link *l = s->link;
	bool is_running = l != NULL && l->requests.count > 0;

	if (l == NULL)
		return;
	if (s->fence != NULL)
		fence_tick(s, now);
	/* The session's parameters are being set on the link. */
	if (l->state == LINK_RUNNING) {
		int64_t most = pool_settings(s->worker)->server_connect_timeout;

		if (most > 0 && now - l->run_us > most)
			session_close(
			    s, "57014", "server did not answer (server_connect_timeout)");
		return;
	}
	if (s->mode == POOL_SESSION && pool_settings(s->worker)->server_fast_close &&
	    link_is_at_rest(l) && pool_is_stale(l)) {
		session_close(s, "57P01", "database configuration changed");
		return;
	}
	/* A walsender streams for as long as it likes. */
	if (max->query_timeout > 0 && is_running && l->query_us != 0 &&
	    s->replication == REPLICATION_NONE && now - l->query_us > max->query_timeout)
		session_close(s, "57014", "query timeout");
	else if (max->transaction_timeout > 0 && l->xact_us != 0 && l->txn != 'I' &&
		 now - l->xact_us > max->transaction_timeout)
		session_close(s, "25P04", "transaction timeout");
	else if (max->idle_transaction_timeout > 0 && !is_running && l->txn != 'I' &&
		 now - s->request_us > max->idle_transaction_timeout)
		session_close(s, "25P03", "idle transaction timeout");
	else if (max->client_idle_timeout > 0 && !is_running && l->txn == 'I' &&
		 now - s->request_us > max->client_idle_timeout)
		session_close(s, "57P05", "client_idle_timeout");
}

/* Transactions that hold links may wait for each other's. After half of what they may wait one
 * gives up, so that the others can go on; the next one not before it is seen whether they do. */
static bool
gives_way(const struct session *s, int64_t now)
{
	static _Atomic int64_t last_us;
	int64_t most = s->waiter.seat->limits.query_wait_timeout, last = last_us;

	if (most <= 0 || most > 10000000)
		most = 10000000;
	return (now - s->weave->run->start_us > most / 2 && now - last > 300000 &&
		atomic_compare_exchange_strong(&last_us, &last, now));
}

/* Who waits for a link for long is told so, once. */
static void
tick_waiting(struct session *s, int64_t now)
{
	int64_t after = pool_settings(s->worker)->query_wait_notify;

	if (after <= 0 || s->knows_it_waits || s->waiter.seat == NULL ||
	    now - s->waiter.start_us <= after)
		return;
	s->knows_it_waits = true;
	session_notice(
	    s, "No server connection available in postgres backend, client being queued");
}

/* A client that sends no more, but has asked for something, may be there to read the answer, or
 * may be gone: one cannot tell. */
static void
tick_hung_up(struct session *s, int64_t now)
{
	if (!s->stream.has_hung_up || s->is_leaving || !session_is_at_work(s))
		return;
	if (s->hung_up_us == 0)
		s->hung_up_us = now;
	else if (now - s->hung_up_us > HUNG_UP_US)
		session_end(s, "client unexpected eof");
}

static void
tick_weaving(struct session *s, int64_t now)
{
	int64_t max = s->seat->limits.query_timeout,
		xact = s->seat->limits.transaction_timeout,
		answer = pool_settings(s->worker)->server_connect_timeout;
	struct weave *w = s->weave;

	if (w->run == NULL)
		return;
	tick_waiting(s, now);
	for (unsigned i = 0; i < w->leg_count && answer > 0; i++) {
		const struct link *l = w->legs[i].link;

		if (l->state == LINK_RUNNING && now - l->run_us > answer) {
			session_close(
			    s, "57014", "server did not answer (server_connect_timeout)");
			return;
		}
	}
	if (max > 0 && now - w->run->start_us > max)
		session_close(s, "57014", "query timeout");
	else if (xact > 0 && w->txn == TXN_OPEN && now - w->txn_us > xact)
		session_close(s, "25P04", "transaction timeout");
	else if (s->waiter.seat != NULL && w->leg_count > 0 && gives_way(s, now)) {
		pool_wait_end(&s->waiter);
		weave_refused(s, F_QUERY_WAIT, "40P01",
		    "others hold its links and may wait for ours");
	}
}

static void
tick_sharing(struct session *s, int64_t now)
{
	int64_t max = s->seat->limits.query_timeout;

	if (max > 0 && now - mux_since_us(s) > max)
		session_close(s, "57014", "query timeout");
}

static void
tick_idle(struct session *s, int64_t now)
{
	int64_t max = s->seat->limits.client_idle_timeout;

	if (max > 0 && now - s->request_us > max)
		session_close(s, "57P05", "client_idle_timeout");
}

static void
tick_each(struct session_list *list, int64_t now, void (*fn)(struct session *, int64_t))
{
	struct session *s, *next;

	for (s = TAILQ_FIRST(list); s != NULL; s = next) {
		next = TAILQ_NEXT(s, entry);
		fn(s, now);
	}
}

/* Whether any idle client can time out: walking ten thousand of them is not free. */
static bool
has_idle_timeout(const struct worker *w)
{
	const struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		if (seat->clients > 0 && seat->limits.client_idle_timeout > 0)
			return (true);
	return (false);
}

void
session_tick(struct worker *w, int64_t now)
{
	struct session_worker *sw = session_worker(w);
	int64_t max = pool_settings(w)->client_login_timeout;

	tick_logins(sw, SESSION_STARTUP, now, max);
	tick_logins(sw, SESSION_AUTH, now, max);
	tick_logins(sw, SESSION_WELCOME, now, max);
	session_lookups_tick(w, now);
	tick_logins(sw, SESSION_CANCELLING, now, max);
	tick_each(&sw->sessions[SESSION_ACTIVE], now, tick_hung_up);
	tick_each(&sw->sessions[SESSION_WAITING], now, tick_hung_up);
	tick_each(&sw->sessions[SESSION_WEAVING], now, tick_hung_up);
	tick_each(&sw->sessions[SESSION_SHARING], now, tick_hung_up);
	tick_each(&sw->sessions[SESSION_SHARING], now, tick_sharing);
	mux_tick(w, now);
	tick_each(&sw->sessions[SESSION_ACTIVE], now, tick_active);
	tick_each(&sw->sessions[SESSION_WAITING], now, tick_waiting);
	tick_each(&sw->sessions[SESSION_WEAVING], now, tick_weaving);
	weave_hold_tick(w);
	anchors_tick(w, now);
	hub_tick(w, now);
	peer_tick(w, now);
	if (has_idle_timeout(w))
		tick_each(&sw->sessions[SESSION_IDLE], now, tick_idle);
}
