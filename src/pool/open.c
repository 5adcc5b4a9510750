/* Opening links within the limits, and what becomes of them: the pool as their keeper. */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* One more, unless that would be more than max (0: no limit). */
static bool
count_in(_Atomic unsigned *count, int64_t max)
{
	unsigned n = atomic_load(count);

	do
		if (max > 0 && n >= max)
			return (false);
	while (!atomic_compare_exchange_weak(count, &n, n + 1));
	return (true);
}

/* The overflow is for whoever waits; the reserve for clients that have waited long. 0: there is
 * no limit. */
static int64_t
pool_room(const struct seat *seat)
{
	const struct settings *set = pool_settings(seat->worker);
	const struct waiter *first = TAILQ_FIRST(&seat->waiters);
	int64_t room = seat->limits.pool_size + seat->limits.max_overflow;

	if (seat->limits.pool_size == 0)
		return (0);
	if (seat->limits.reserve_pool_size > 0 && set->reserve_pool_timeout > 0 &&
	    first != NULL && clock_us() - first->start_us >= set->reserve_pool_timeout)
		room += seat->limits.reserve_pool_size;
	return (room);
}

bool
pool_evict(struct worker *w, const struct pool *wants, const struct pool_place *place)
{
	struct link *oldest = NULL;
	bool is_of_database = false;
	struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		struct link *l;

		if (seat->pool == wants ||
		    (seat->pool->db != place && seat->pool->user != place))
			continue;
		l = TAILQ_LAST(&seat->idle, link_list);
		if (l != NULL && (oldest == NULL || l->request_us < oldest->request_us)) {
			oldest = l;
			is_of_database = seat->pool->db == place;
		}
	}
	if (oldest == NULL)
		return (false);
	link_close(oldest, is_of_database ? "evicted for max_db_connections"
					  : "evicted for max_user_connections");
	return (true);
}

/* A place in the counts of the database or the user; an idle link of another pool there makes
 * room. When this worker has none, the others are asked (pool_ask). */
static bool
count_in_place(struct seat *seat, struct pool_place *place, int64_t max)
{
	if (count_in(&place->links, max) ||
	    (pool_evict(seat->worker, seat->pool, place) && count_in(&place->links, max)))
		return (true);
	seat->full = place;
	return (false);
}

static bool
pool_reserve_place(struct seat *seat)
{
	struct pool *pool = seat->pool;

	if (!count_in(&pool->links, pool_room(seat)))
		return (false);
	if (!count_in_place(seat, pool->db, seat->limits.max_db_connections)) {
		atomic_fetch_sub(&pool->links, 1);
		return (false);
	}
	if (!count_in_place(seat, pool->user, seat->limits.max_user_connections)) {
		atomic_fetch_sub(&pool->db->links, 1);
		atomic_fetch_sub(&pool->links, 1);
		return (false);
	}
	return (true);
}

/* Health has the word: when the database has come up since, or a probe has had a connection
 * where a link found no server. A probe that the server answers says nothing against a login
 * that it refuses, or else clients would ask it without pause. */
int64_t
pool_failed_us(const struct seat *seat)
{
	const struct topo_verdict *v =
	    seat->database != NULL ? seat->database->verdict : NULL;
	int64_t failed = atomic_load(&seat->pool->failed_us);

	if (failed == 0 || v == NULL || !topo_verdict_is_up(v))
		return (failed);
	if (atomic_load(&v->since_us) > failed ||
	    (seat->pool->failed_unheard && atomic_load(&v->reached_us) > failed))
		return (0);
	return (failed);
}

/* Opens a connection to one of the database's hosts; what counts is the caller's. own: for one
 * client alone; or NULL. */
static struct link *
open_link(struct seat *seat, const struct link_keeper *keeper, void *place,
    const struct link_own *own)
{
	const struct pool_worker *pw = pool_worker(seat->worker);
	struct pool *pool = seat->pool;
	const struct topo_database *db = seat->database;
	struct link_target target = {.topo = pw->topo,
	    .database = db,
	    .name = pool->database,
	    .dbname = db->dbname != NULL ? db->dbname : pool->database,
	    .role = pool->role,
	    .tls = pw->tls,
	    .own = own};
	struct pool_secret *shown;
	struct link *l;

	if (db->host_count > 1)
		target.host =
		    (unsigned)(db->round_robin_hosts
				   ? atomic_fetch_add(&pool->next_host, 1) %
					 db->host_count
				   : atomic_load(&pool->next_host) % db->host_count);
	shown = pool_choose_secret(seat, &target);
	l = link_open(seat->worker, keeper, place, &target);
	pool_secret_release(shown);
	l->reconnect = pool->db->reconnect;
	l->host_at = target.host;
	l->generation = topo_generation(pw->topo);
	return (l);
}

/* Its place is reserved. */
static struct link *
open_pooled(struct seat *seat, const struct link_own *own)
{
	struct link *l = open_link(seat, &pool_keeper, seat, own);

	TAILQ_INSERT_TAIL(&seat->links, l, entry);
	seat->link_count++;
	return (l);
}

bool
pool_open(struct seat *seat)
{
	int64_t failed = pool_failed_us(seat),
		retry = pool_settings(seat->worker)->server_login_retry;

	/* Also a server that refuses at once is not asked without pause. */
	if (retry < WORKER_TICK_US)
		retry = WORKER_TICK_US;
	if (failed != 0 && clock_us() - failed < retry)
		return (false);
	seat->full = NULL;
	if (!pool_reserve_place(seat))
		return (false);
	if (seat->limits.reserve_pool_size > 0 &&
	    atomic_load(&seat->pool->links) >
		seat->limits.pool_size + seat->limits.max_overflow)
		log_warning("%s/%s: taking connection from reserve_pool",
		    seat->pool->database, seat->pool->role);
	(void)open_pooled(seat, NULL);
	seat->opening++;
	return (true);
}

struct link *
pool_open_spare(struct seat *seat)
{
	struct pool *pool = seat->pool;
	struct link *l;

	if (pool_failed_us(seat) != 0 || !count_in(&pool->links, seat->limits.pool_size))
		return (NULL);
	if (!count_in(&pool->db->links, seat->limits.max_db_connections)) {
		atomic_fetch_sub(&pool->links, 1);
		return (NULL);
	}
	if (!count_in(&pool->user->links, seat->limits.max_user_connections)) {
		atomic_fetch_sub(&pool->db->links, 1);
		atomic_fetch_sub(&pool->links, 1);
		return (NULL);
	}
	l = open_pooled(seat, NULL);
	seat->opening++;
	return (l);
}

bool
pool_open_own(struct seat *seat, struct waiter *w)
{
	struct link *idle = TAILQ_LAST(&seat->idle, link_list);

	seat->full = NULL;
	if (!pool_reserve_place(seat)) {
		if (idle == NULL)
			return (false);
		link_close(idle, "evicted: a client needs a connection of its own");
		if (!pool_reserve_place(seat))
			return (false);
	}
	w->link = open_pooled(seat, w->own);
	w->link->owner = w;
	return (true);
}

struct link *
pool_open_aside(struct seat *seat, const struct link_keeper *keeper, void *place)
{
	if (seat->database == NULL || seat->pool->db->is_paused || pool_is_closed(seat) ||
	    pool_is_fenced(seat))
		return (NULL);
	seat->asides++;
	return (open_link(seat, keeper, place, NULL));
}

void
pool_aside_closed(struct seat *seat)
{
	INVARIANT(seat->asides > 0);
	seat->asides--;
}

/* ---- the keeper ---- */

/* A sign for health, which looks at once. */
static void
count_failure(const struct seat *seat)
{
	if (seat->database != NULL && seat->database->verdict != NULL)
		atomic_fetch_add(&seat->database->verdict->failures, 1);
}

static void
keeper_ready(struct link *l)
{
	struct seat *seat = l->place;
	struct worker *w = seat->worker;

	if (l->replication != REPLICATION_NONE) {
		l->was_ready = true;
		atomic_fetch_add(&seat->pool->ready, 1);
		pool_own_ready(l);
		return;
	}
	seat->opening--;
	l->was_ready = true;
	atomic_fetch_add(&seat->pool->ready, 1);
	atomic_store(&seat->pool->failed_us, 0);
	atomic_store(&seat->pool->dead_hosts, 0);
	/* A server that is not the configured one any more has nothing to say. */
	if (!pool_is_stale(l)) {
		vars_release(w, seat->welcome);
		seat->welcome = vars_hold(l->born);
		pool_teach(seat->pool, l->born);
	}
	pool_keep_ready(l);
}

/* Nothing listens there, or it starts, stops, or is cut off. */
static bool
is_unheard(int fault, const struct proto_error_fields *error)
{
	if (error != NULL)
		return (strncmp(error->sqlstate, "57P", 3) == 0);
	return (fault == F_LINK_CONNECT);
}

/* The next host's turn; links that fail together do not pass over one. True: nobody was there,
 * and another host of the database has not been asked yet. */
static bool
another_host(const struct seat *seat, const struct link *l, bool was_unheard)
{
	const struct topo_database *db = seat->database;
	struct pool *pool = seat->pool;
	uint64_t all, mine = UINT64_C(1) << l->host_at % 64;
	unsigned at = atomic_load(&pool->next_host);

	if (db == NULL || db->host_count < 2)
		return (false);
	if (!db->round_robin_hosts && at % db->host_count == l->host_at)
		(void)atomic_compare_exchange_strong(&pool->next_host, &at, at + 1);
	if (!was_unheard || db->host_count > 64)
		return (false);
	all = UINT64_MAX >> (64 - db->host_count);
	if (((atomic_fetch_or(&pool->dead_hosts, mine) | mine) & all) != all)
		return (true);
	atomic_store(&pool->dead_hosts, 0);
	return (false);
}

static void
keeper_failed(
    struct link *l, int fault, const char *why, const struct proto_error_fields *error)
{
	struct seat *seat = l->place;
	struct pool *pool = seat->pool;

	if (l->replication != REPLICATION_NONE) {
		if (is_unheard(fault, error))
			count_failure(seat);
		pool_own_failed(l, fault, why, error, is_unheard(fault, error));
		return;
	}
	pthread_mutex_lock(&pool->lock);
	snprintf(pool->error, sizeof(pool->error), "%s", why);
	text_copy(pool->error_state, sizeof(pool->error_state),
	    error != NULL && strlen(error->sqlstate) == 5 ? error->sqlstate
							  : fault_info(fault)->sqlstate);
	pool->error_is_servers = error != NULL;
	pthread_mutex_unlock(&pool->lock);
	count_failure(seat);
	if (another_host(seat, l, error == NULL || is_unheard(fault, error))) {
		pool_serve(seat);
		return;
	}
	atomic_store(&pool->failed_unheard, is_unheard(fault, error));
	atomic_store(&pool->failed_us, clock_us());
	pool_serve(seat);
}

static void
keeper_lost(struct link *l, const char *why)
{
	(void)why;
	count_failure(l->place);
	pool_serve(l->place);
}

static void
keeper_cancelled(struct link *l)
{
	link_cancel_over(l);
	pool_offer(l);
}

/* Called once a link, whatever the reason: its places are free. */
static void
keeper_closed(struct link *l)
{
	struct seat *seat = l->place;
	struct pool *pool = seat->pool;

	if (l->is_listed)
		pool_set_idle(l, false);
	if (l->is_checking)
		seat->checking--;
	TAILQ_REMOVE(&seat->links, l, entry);
	seat->link_count--;
	if (l->was_ready)
		atomic_fetch_sub(&pool->ready, 1);
	else if (l->replication == REPLICATION_NONE)
		seat->opening--;
	/* Not its owner's end: it may be opened anew. */
	if (l->owner != NULL)
		l->owner->link = NULL;
	atomic_fetch_sub(&pool->user->links, 1);
	atomic_fetch_sub(&pool->db->links, 1);
	atomic_fetch_sub(&pool->links, 1);
	pool_nudge(pool);
	pool_keep_closed(l);
}

const struct link_keeper pool_keeper = {
    .ready = keeper_ready,
    .failed = keeper_failed,
    .lost = keeper_lost,
    .cancelled = keeper_cancelled,
    .closed = keeper_closed,
};
