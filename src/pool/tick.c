/* What time does to pools: timeouts, lifetimes, the reserve, minimum sizes, averages. */
#include "private.h"

#define RESCUE_US 300000 /* no wake-up takes that long to arrive */
/* A link above pool_size that nobody has used for so long is not needed now. */
#define OVERFLOW_IDLE_US 1000000
/* Seats of names that only the * entry knows and no server has ever let in: auth_query may run in
 * whatever database a stranger names. More than so many are forgotten at once. */
#define UNPROVEN_MAX 64

/* Whether somebody waits although a link is idle, here or elsewhere: a wake-up was lost. */
static bool
tick_is_rescue(const struct seat *seat, int64_t now)
{
	const struct pool *pool = seat->pool;

	if (pool->db->is_paused ||
	    now - TAILQ_FIRST(&seat->waiters)->start_us < RESCUE_US)
		return (false);
	if (seat->idle_count > seat->kept ||
	    (seat->kept > 0 && seat->opening + seat->checking < seat->waiting))
		return (true);
	if (seat->is_asking || seat->opening > 0)
		return (false);
	for (unsigned i = 0; i < seat->worker->count; i++)
		if (atomic_load(&pool->share[i].idle) > 0)
			return (true);
	return (false);
}

static void
tick_waiters(struct seat *seat, int64_t now)
{
	int64_t max = seat->limits.query_wait_timeout;
	struct waiter *w;

	while (max > 0 && (w = TAILQ_FIRST(&seat->waiters)) != NULL &&
	       now - w->start_us > max)
		pool_refuse(w, F_QUERY_WAIT, fault_info(F_QUERY_WAIT)->sqlstate,
		    fault_info(F_QUERY_WAIT)->text);
	if (TAILQ_EMPTY(&seat->waiters))
		return;
	if (tick_is_rescue(seat, now))
		METRIC_INC(&seat->metrics, rescues);
	/* The reserve and the next attempt to log in depend on the time alone. */
	pool_serve(seat);
}

/* One link: true when it was closed. */
static bool
tick_link(struct seat *seat, struct link *l, int64_t now)
{
	const struct settings *set = pool_settings(seat->worker);

	if (l->login != NULL && set->server_connect_timeout > 0 &&
	    now - l->connect_us > set->server_connect_timeout) {
		link_login_expire(l);
		return (true);
	}
	if (!l->was_ready && now - l->connect_us > POOL_KEEP_US)
		pool_keep_closed(l);
	if (l->state == LINK_RUNNING && l->login == NULL && l->user == NULL &&
	    set->server_connect_timeout > 0 &&
	    now - l->run_us > set->server_connect_timeout) {
		link_close(l, "query of the proxy's own timed out");
		return (true);
	}
	if (l->state == LINK_CANCELLING &&
	    now - l->request_us > set->cancel_wait_timeout) {
		link_close(l, "cancel request hangs");
		return (true);
	}
	if (l->state != LINK_IDLE)
		return (false);
	if (pool_is_stale(l)) {
		link_close(l, "database configuration changed");
		return (true);
	}
	if (seat->limits.server_lifetime >= 0 &&
	    now - l->connect_us > seat->limits.server_lifetime) {
		link_close(l, "server lifetime over");
		return (true);
	}
	if (set->server_idle_timeout > 0 &&
	    now - l->request_us > set->server_idle_timeout &&
	    seat->pool->links > seat->limits.min_pool_size) {
		link_close(l, "server idle timeout");
		return (true);
	}
	return (false);
}

static void
tick_links(struct seat *seat, int64_t now)
{
	struct link *l, *next;
	bool closed_idle = false;

	for (l = TAILQ_FIRST(&seat->links); l != NULL; l = next) {
		bool was_idle = l->state == LINK_IDLE;

		next = TAILQ_NEXT(l, entry);
		/* Idle links die one a tick, not all at once. */
		if (was_idle && closed_idle)
			continue;
		if (tick_link(seat, l, now) && was_idle)
			closed_idle = true;
	}
}

/* The links above pool_size, from the one that is idle longest. */
static void
tick_overflow(struct seat *seat, int64_t now)
{
	struct pool *pool = seat->pool;
	int64_t excess = (int64_t)atomic_load(&pool->links) - seat->limits.pool_size,
		trimmed = atomic_load(&pool->trimmed_us);
	struct link *l = TAILQ_LAST(&seat->idle, link_list);

	if (seat->limits.pool_size == 0 || seat->limits.max_overflow == 0 ||
	    excess <= 0 || l == NULL || now - l->request_us <= OVERFLOW_IDLE_US)
		return;
	/* Several workers would each close what is too many. */
	if (now - trimmed < WORKER_TICK_US / 2 ||
	    !atomic_compare_exchange_strong(&pool->trimmed_us, &trimmed, now))
		return;
	for (; excess > 0 && l != NULL && now - l->request_us > OVERFLOW_IDLE_US;
	     excess--) {
		link_close(l, "overflow link is idle");
		l = TAILQ_LAST(&seat->idle, link_list);
	}
}

static void
tick_averages(struct seat *seat, int64_t now)
{
	if (now - seat->period_start_us < pool_settings(seat->worker)->stats_period)
		return;
	seat->average_us = now - seat->period_start_us;
	for (int i = 0; i < M_COUNT; i++)
		seat->average.v[i] = seat->metrics.v[i] - seat->period_start.v[i];
	seat->period_start = seat->metrics;
	seat->period_start_us = now;
}

/* Links to addresses that their names have lost are used up and not replaced by such. */
static void
tick_names(struct pool_worker *pw)
{
	uint64_t now = net_names_generation();
	struct seat *seat;
	struct link *l;

	if (pw->names == now)
		return;
	pw->names = now;
	TAILQ_FOREACH(seat, &pw->seats, entry)
		TAILQ_FOREACH(l, &seat->links, entry)
			if (l->peer_len > 0 && !l->wants_close &&
			    net_names_lost(l->host, (const struct sockaddr *)&l->peer))
				l->wants_close = true;
}

/* Sessions on virtual databases keep seats of members without being counted there. */
static bool
is_member(const struct seat *seat)
{
	const struct topo *topo = pool_worker(seat->worker)->topo;

	for (size_t i = 0; i < topo_virtual_count(topo); i++)
		if (topo_member_find(topo_virtual(topo, i), seat->pool->database) != NULL)
			return (true);
	return (false);
}

static bool
seat_is_unproven(const struct seat *seat)
{
	return (seat->database != NULL && seat->database->is_auto &&
		seat->welcome == NULL && seat->pool->failed_us != 0);
}

/* Nobody has used it for long, and nothing configured names it; or pool_idle_timeout. One that
 * is unproven is kept while logins at its server are not repeated. */
static bool
seat_is_forgotten(const struct seat *seat, int64_t now, unsigned unproven)
{
	const struct settings *set = pool_settings(seat->worker);
	int64_t max = set->autodb_idle_timeout, empty = set->pool_idle_timeout;

	if (seat->clients > 0 || seat->link_count > 0 || seat->waiting > 0 ||
	    seat->own_waiting > 0 || seat->asides > 0 || seat->is_asking ||
	    seat->pool->links > 0)
		return (false);
	if (seat_is_unproven(seat) &&
	    (unproven > UNPROVEN_MAX || now - seat->used_us > set->server_login_retry))
		return (true);
	if (empty > 0 && now - seat->used_us > empty && !is_member(seat))
		return (true);
	return (seat->database == NULL ||
		(seat->database->is_auto && max > 0 && now - seat->used_us > max));
}

/* A pool whose role is configured has its minimum before the first client comes. */
static bool
is_forced(const struct seat *seat)
{
	const struct topo_database *db = seat->database;

	return (db != NULL && !db->is_auto && db->user != NULL &&
		strcmp(db->user, seat->pool->role) == 0);
}

/* The first worker sees to those that nobody has used yet. */
static void
tick_forced(struct worker *w)
{
	const struct topo *topo = pool_worker(w)->topo;

	if (w->index != 0)
		return;
	for (size_t i = 0; i < topo_database_count(topo); i++) {
		const struct topo_database *db = topo_database(topo, i);
		struct topo_limits limits;

		if (db->is_auto || db->user == NULL || db->min_pool_size == 0 ||
		    (db->min_pool_size < 0 && topo_settings(topo)->min_pool_size == 0) ||
		    topo_database_served(db) != db)
			continue;
		topo_limits(topo, db, topo_login_find(topo, db->user), &limits);
		if (limits.min_pool_size > 0)
			(void)pool_seat_as(w, db->name, db->user);
	}
}

void
pool_tick(struct worker *w, int64_t now)
{
	struct pool_worker *pw = pool_worker(w);
	struct seat *seat, *next;
	unsigned unproven = 0;

	tick_names(pw);
	tick_forced(w);
	link_cancels_expire(w, now, topo_settings(pw->topo)->cancel_wait_timeout);
	for (seat = TAILQ_FIRST(&pw->seats); seat != NULL; seat = next) {
		next = TAILQ_NEXT(seat, entry);
		tick_waiters(seat, now);
		if (seat->own_waiting > 0)
			pool_own_tick(seat, now);
		tick_overflow(seat, now);
		tick_links(seat, now);
		tick_averages(seat, now);
		if ((seat->clients > 0 || (w->index == 0 && is_forced(seat))) &&
		    seat->database != NULL &&
		    seat->pool->links < seat->limits.min_pool_size &&
		    !seat->pool->db->is_paused && !pool_is_closed(seat) &&
		    !pool_is_fenced(seat))
			(void)pool_open(seat);
		if (seat->clients > 0 || seat->link_count > 0)
			seat->used_us = now;
		unproven += seat_is_unproven(seat);
		if (seat_is_forgotten(seat, now, unproven))
			pool_seat_destroy(seat);
	}
}
