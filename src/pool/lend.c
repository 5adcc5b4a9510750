/* Lending and taking back: who gets the next link. */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A server that takes so long to let in a link for somebody: others may have an idle one. */
#define POOL_SLOW_US  300000
#define LOOK_FOR_VARS 8 /* idle links looked at for one with the parameters wanted */

static int64_t
waiter_first_us(const struct seat *seat)
{
	const struct waiter *first = TAILQ_FIRST(&seat->waiters);

	return (first == NULL ? 0 : first->start_us);
}

/* The others see since when somebody waits here. Sequentially consistent, as everything
 * that two workers tell each other about a pool: see the header for why none is lost. */
void
pool_publish(struct seat *seat)
{
	atomic_store(&seat->pool->share[seat->worker->index].oldest_wait_us,
	    waiter_first_us(seat));
}

void
pool_set_idle(struct link *l, bool is_idle)
{
	struct seat *seat = l->place;
	struct pool_share *share = &seat->pool->share[seat->worker->index];

	if (UNLIKELY(l->kept_for != NULL))
		pool_keep_drop(l);
	l->is_listed = is_idle;
	if (is_idle) {
		TAILQ_INSERT_HEAD(&seat->idle, l, idle_entry);
		seat->idle_count++;
		atomic_fetch_add(&share->idle, 1);
	} else {
		TAILQ_REMOVE(&seat->idle, l, idle_entry);
		seat->idle_count--;
		atomic_fetch_sub(&share->idle, 1);
	}
}

static bool
is_stale_at(const struct seat *seat, const struct link *l)
{
	return (l->wants_close || seat->database == NULL || l->generation < seat->since ||
		l->reconnect < seat->pool->db->reconnect);
}

bool
pool_is_stale(const struct link *l)
{
	return (is_stale_at(l->place, l));
}

const char *
pool_aside_unfit(const struct seat *seat, const struct link *l)
{
	const struct topo_database *db = seat->database;

	if (is_stale_at(seat, l) ||
	    (l->peer_len > 0 &&
		net_names_lost(l->host, (const struct sockaddr *)&l->peer)))
		return ("database configuration changed");
	if (seat->pool->db->is_paused)
		return ("pause mode");
	if (pool_is_closed(seat))
		return ("database takes no new statements");
	if (db->host_count > 1 && !db->round_robin_hosts &&
	    atomic_load(&seat->pool->next_host) % db->host_count != l->host_at)
		return ("pool has gone to another host");
	return (NULL);
}

bool
pool_is_closed(const struct seat *seat)
{
	const struct topo_verdict *v =
	    seat->database != NULL ? seat->database->verdict : NULL;

	return (v != NULL &&
		atomic_load_explicit(&v->word, memory_order_relaxed) != TOPO_UNKNOWN);
}

struct link *
pool_take_idle(struct seat *seat, const struct vars *want)
{
	struct link *l, *best = NULL;
	unsigned looked = 0;

	if (pool_settings(seat->worker)->server_round_robin) {
		best = TAILQ_LAST(&seat->idle, link_list);
		while (best != NULL && best->kept_for != NULL)
			best = TAILQ_PREV(best, link_list, idle_entry);
	} else
		TAILQ_FOREACH(l, &seat->idle, idle_entry) {
			if (UNLIKELY(l->kept_for != NULL))
				continue;
			if (best == NULL || l->vars == want)
				best = l;
			if (l->vars == want || want == NULL || ++looked == LOOK_FOR_VARS)
				break;
		}
	if (best != NULL)
		pool_set_idle(best, false);
	return (best);
}

static void
waiter_remove(struct waiter *w)
{
	struct seat *seat = w->seat;

	TAILQ_REMOVE(&seat->waiters, w, entry);
	seat->waiting--;
	atomic_fetch_sub(&seat->pool->waiting, 1);
	w->seat = NULL;
	pool_publish(seat);
}

void
pool_wait_end(struct waiter *w)
{
	struct seat *seat = w->seat;

	if (seat == NULL)
		return;
	if (w->own != NULL) {
		pool_own_end(w);
		return;
	}
	METRIC_ADD(&seat->metrics, wait_time, worker_now_us(seat->worker) - w->start_us);
	waiter_remove(w);
}

void
pool_refuse(struct waiter *w, int fault, const char *sqlstate, const char *message)
{
	pool_wait_end(w);
	w->refused(w, fault, sqlstate, message);
}

/* To the oldest waiter of this seat. */
void
pool_grant(struct seat *seat, struct link *l)
{
	struct waiter *w = TAILQ_FIRST(&seat->waiters);

	pool_wait_end(w);
	METRIC_ADD(&seat->metrics, server_assignment_count, !w->is_asking);
	w->granted(w, l);
}

static void
check_over(struct link *l)
{
	struct seat *seat = l->place;

	l->is_checking = false;
	seat->checking--;
}

static void
pool_checked(struct link *l, void *arg, const struct proto_error_fields *error)
{
	(void)arg;
	check_over(l);
	if (error != NULL || l->txn != 'I')
		link_close(l, "test query failed");
	else
		pool_offer(l);
}

/* An idle link that nobody has heard of for long is asked whether it lives. */
static bool
pool_wants_check(const struct link *l)
{
	const struct settings *set = pool_settings(l->worker);

	return (set->server_check_query[0] != '\0' &&
		worker_now_us(l->worker) - l->request_us > set->server_check_delay);
}

static void
pool_check(struct link *l)
{
	const char *query = pool_settings(l->worker)->server_check_query;

	l->is_checking = true;
	((struct seat *)l->place)->checking++;
	link_run(l, strcmp(query, "<empty>") == 0 ? ";" : query, pool_checked, NULL);
}

/* For one who need not wait: the link that is kept for it, or another one. */
static struct link *
take_first(struct seat *seat, struct waiter *w, const struct vars *want)
{
	struct link *l = w->kept;

	if (LIKELY(l == NULL))
		return (pool_take_idle(seat, want));
	INVARIANT(l->is_listed && l->place == seat);
	pool_set_idle(l, false);
	return (l);
}

struct link *
pool_lend(struct seat *seat, struct waiter *w, const struct vars *want)
{
	struct link *l;

	INVARIANT(w->seat == NULL);
	seat->used_us = worker_now_us(seat->worker);
	/* Those who wait have links coming, or else they had got the one that is kept. */
	if ((TAILQ_EMPTY(&seat->waiters) || w->kept != NULL) &&
	    !seat->pool->db->is_paused && !pool_is_closed(seat) && !pool_is_fenced(seat))
		while ((l = take_first(seat, w, want)) != NULL) {
			if (pool_is_stale(l)) {
				link_close(l, "database configuration changed");
				continue;
			}
			if (pool_wants_check(l)) {
				pool_check(l);
				break;
			}
			METRIC_ADD(
			    &seat->metrics, server_assignment_count, !w->is_asking);
			return (l);
		}
	if (w->kept != NULL)
		pool_keep_drop(w->kept);
	w->seat = seat;
	w->start_us = seat->used_us;
	TAILQ_INSERT_TAIL(&seat->waiters, w, entry);
	seat->waiting++;
	atomic_fetch_add(&seat->pool->waiting, 1);
	pool_publish(seat);
	pool_serve(seat);
	return (NULL);
}

bool
pool_may_lend(const struct seat *seat)
{
	const struct pool *pool = seat->pool;

	return (atomic_load_explicit(&pool->waiting, memory_order_relaxed) == 0 &&
		!atomic_load_explicit(&pool->db->is_paused, memory_order_relaxed) &&
		!pool_is_closed(seat) && !pool_is_fenced(seat) && seat->database != NULL);
}

struct link *
pool_lend_like(struct seat *seat, const struct vars *want)
{
	bool in_turn = pool_settings(seat->worker)->server_round_robin;
	struct link *l =
	    in_turn ? TAILQ_LAST(&seat->idle, link_list) : TAILQ_FIRST(&seat->idle);

	for (unsigned i = 0; l != NULL && i < LOOK_FOR_VARS; i++) {
		if (l->vars == want && l->kept_for == NULL && !pool_is_stale(l) &&
		    !pool_wants_check(l)) {
			pool_set_idle(l, false);
			return (l);
		}
		l = in_turn ? TAILQ_PREV(l, link_list, idle_entry)
			    : TAILQ_NEXT(l, idle_entry);
	}
	return (NULL);
}

/* One that is kept for somebody comes last: rather one more is opened, if that does not hang. */
static struct link *
take_for_waiters(struct seat *seat)
{
	struct link *l = pool_take_idle(seat, NULL);

	if (l != NULL || seat->kept == 0)
		return (l);
	while (seat->opening + seat->checking < seat->waiting &&
	       pool_open_spare(seat) != NULL)
		;
	if (seat->opening + seat->checking >= seat->waiting &&
	    clock_us() - TAILQ_FIRST(&seat->waiters)->start_us < POOL_KEEP_US)
		return (NULL);
	return (pool_take_kept(seat));
}

/* Idle links to those who wait. One who gets a link may give it back before granted()
 * returns (a login that only looks): the link is idle again and this loop goes on with it,
 * instead of one stack frame deeper for each of ten thousand that wait. */
static void
pool_grant_idle(struct seat *seat)
{
	struct link *l;

	if (seat->is_granting)
		return;
	seat->is_granting = true;
	while (seat->waiting > seat->checking && (l = take_for_waiters(seat)) != NULL) {
		if (pool_is_stale(l))
			link_close(l, "database configuration changed");
		else if (pool_wants_check(l))
			pool_check(l);
		else
			pool_grant(seat, l);
	}
	seat->is_granting = false;
}

/* A server that is full, starts, or stops (classes 53 and 57) lets clients in later; to one that
 * says no for another reason waiting is in vain. */
static bool
is_final(const char *sqlstate)
{
	return (strncmp(sqlstate, "53", 2) != 0 && strncmp(sqlstate, "57", 2) != 0);
}

/* Refuses those who log in while the server cannot be reached, and everybody when it does not
 * let the proxy in. Who was there when it has said no hears its words; who comes later, that it
 * has. */
static void
pool_refuse_logins(struct seat *seat)
{
	struct pool *pool = seat->pool;
	int64_t failed = pool_failed_us(seat);
	struct waiter *w, *next;
	char message[512], error[sizeof(pool->error)], state[6];
	bool is_servers;

	if (failed == 0 || pool->ready > 0 || seat->opening > 0)
		return;
	pthread_mutex_lock(&pool->lock);
	text_copy(error, sizeof(error), pool->error);
	text_copy(state, sizeof(state), pool->error_state);
	is_servers = pool->error_is_servers;
	pthread_mutex_unlock(&pool->lock);
	snprintf(message, sizeof(message),
	    "server login has been failing, cached error: %s (server_login_retry)",
	    error);
	for (w = TAILQ_FIRST(&seat->waiters); w != NULL; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->is_login || (is_servers && is_final(state)))
			pool_refuse(w, F_POOL_DOWN, state,
			    is_servers && w->start_us < failed ? error : message);
	}
}

/* The database is draining or in maintenance. */
void
pool_refuse_closed(const struct seat *seat, struct waiter *w)
{
	const struct topo_verdict *v = seat->database->verdict;
	char message[256];

	snprintf(message, sizeof(message),
	    "database \"%s\" is %s and takes no new statements", seat->database->name,
	    atomic_load(&v->word) == TOPO_MAINTENANCE ? "in maintenance" : "draining");
	pool_refuse(w, F_POOL_CLOSED, fault_info(F_POOL_CLOSED)->sqlstate, message);
}

void
pool_serve(struct seat *seat)
{
	if (seat->own_waiting > 0)
		pool_serve_own(seat);
	if (seat->database == NULL) {
		while (!TAILQ_EMPTY(&seat->waiters))
			pool_refuse(TAILQ_FIRST(&seat->waiters), F_POOL_GONE,
			    fault_info(F_POOL_GONE)->sqlstate,
			    fault_info(F_POOL_GONE)->text);
		return;
	}
	if (pool_is_closed(seat)) {
		while (!TAILQ_EMPTY(&seat->waiters))
			pool_refuse_closed(seat, TAILQ_FIRST(&seat->waiters));
		return;
	}
	if (seat->pool->db->is_paused || pool_is_fenced(seat))
		return;
	pool_grant_idle(seat);
	while (seat->opening + seat->checking < seat->waiting && pool_open(seat))
		;
	if (seat->waiting > seat->opening + seat->checking) {
		if (!pool_ask(seat))
			pool_refuse_logins(seat);
	} else if (seat->waiting > 0 && seat->opening > 0 &&
		   clock_us() - TAILQ_FIRST(&seat->waiters)->start_us > POOL_SLOW_US)
		(void)pool_ask(seat);
}

/* A link that is free and fit: to whom? */
void
pool_offer(struct link *l)
{
	struct seat *seat = l->place;
	int64_t own = waiter_first_us(seat);
	int to;

	INVARIANT(l->state == LINK_IDLE);
	if (pool_is_stale(l) || seat->pool->db->is_paused || pool_is_fenced(seat)) {
		link_close(l, pool_is_stale(l) ? "database configuration changed"
			      : seat->pool->db->is_paused
				  ? "pause mode"
				  : "a statement needs the database for itself");
		return;
	}
	to = pool_foreign_demand(seat, own == 0 ? INT64_MAX : own - POOL_PATIENCE_US);
	if (to >= 0 && link_can_move(l)) {
		pool_hand_over(l, (unsigned)to);
		return;
	}
	if (own != 0 && !seat->is_granting) {
		seat->is_granting = true;
		pool_grant(seat, l);
		seat->is_granting = false;
		pool_grant_idle(seat);
		return;
	}
	pool_set_idle(l, true);
	/* Somebody may have looked before the link was idle, and published before we look. */
	to = pool_foreign_demand(seat, INT64_MAX);
	if (to >= 0 && link_can_move(l)) {
		pool_set_idle(l, false);
		pool_hand_over(l, (unsigned)to);
	}
}

/* ---- taking back ---- */

static void
pool_back(struct link *l)
{
	const struct seat *seat = l->place;

	if (l->is_dirty) {
		link_close(l, "unclean server");
		return;
	}
	if (worker_now_us(l->worker) - l->connect_us > seat->limits.server_lifetime) {
		link_close(l, "server lifetime over");
		return;
	}
	link_give_back(l);
	if (l->state == LINK_IDLE)
		pool_offer(l);
}

static void
pool_was_reset(struct link *l, void *arg, const struct proto_error_fields *error)
{
	(void)arg;
	if (error != NULL || l->txn != 'I') {
		link_close(l, "reset query failed");
		return;
	}
	pool_back(l);
}

void
pool_give(struct link *l, bool with_reset)
{
	const struct settings *set = pool_settings(l->worker);

	INVARIANT(l->state == LINK_LENT && link_is_at_rest(l));
	l->user = NULL;
	l->user_arg = NULL;
	if ((with_reset || set->server_reset_query_always) &&
	    set->server_reset_query[0] != '\0' && !l->is_dirty && !pool_is_stale(l))
		link_run(l, set->server_reset_query, pool_was_reset, NULL);
	else
		pool_back(l);
}

static void
pool_rolled_back(struct link *l, void *arg, const struct proto_error_fields *error)
{
	if (error != NULL || l->txn != 'I')
		link_close(l, "rollback failed");
	else
		pool_give(l, arg != NULL);
}

void
pool_give_running(struct link *l, bool with_reset)
{
	INVARIANT(l->state == LINK_RUNNING);
	l->user = NULL;
	l->user_arg = NULL;
	link_run_instead(l, pool_rolled_back, with_reset ? l : NULL);
}

void
pool_give_broken(struct link *l, bool with_reset, const char *why)
{
	INVARIANT(l->state == LINK_LENT);
	l->user = NULL;
	l->user_arg = NULL;
	if (link_is_at_rest(l)) {
		pool_give(l, with_reset);
		return;
	}
	if (l->requests.count == 0 && !l->wants_sync && !l->skips_to_sync &&
	    !l->is_copying_in && l->body_left == 0 && l->hold.len == 0 && !l->is_dirty) {
		link_run(l, "ROLLBACK", pool_rolled_back, with_reset ? l : NULL);
		return;
	}
	/* Closing alone would leave the statement running until it writes. */
	if (l->requests.count > 0 || l->is_copying_in)
		link_cancel(l, NULL, NULL);
	link_close(l, why);
}
