/*
 * Links of one client alone: walsenders.
 *
 *   pool_lend_own() -> own_waiters -> a place in the limits -> opened for this waiter -> granted
 *
 * They are no good for anybody else, before or after, so that they are never idle. What becomes
 * of their logins is their clients' business: it says nothing about the pool.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

void
pool_own_end(struct waiter *w)
{
	struct seat *seat = w->seat;
	struct link *l = w->link;

	METRIC_ADD(&seat->metrics, wait_time, clock_us() - w->start_us);
	TAILQ_REMOVE(&seat->own_waiters, w, entry);
	seat->own_waiting--;
	w->seat = NULL;
	w->own = NULL;
	w->link = NULL;
	if (l == NULL)
		return;
	l->owner = NULL;
	link_close(l, "client disconnect before its connection was ready");
}

void
pool_serve_own(struct seat *seat)
{
	struct waiter *w, *next;

	if (seat->database == NULL) {
		while ((w = TAILQ_FIRST(&seat->own_waiters)) != NULL)
			pool_refuse(w, F_POOL_GONE, fault_info(F_POOL_GONE)->sqlstate,
			    fault_info(F_POOL_GONE)->text);
		return;
	}
	if (pool_is_closed(seat)) {
		while ((w = TAILQ_FIRST(&seat->own_waiters)) != NULL)
			pool_refuse_closed(seat, w);
		return;
	}
	if (seat->pool->db->is_paused || pool_is_fenced(seat))
		return;
	for (w = TAILQ_FIRST(&seat->own_waiters); w != NULL; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->link == NULL && !pool_open_own(seat, w)) {
			/* Idle links of other workers make room, too. */
			(void)pool_ask(seat);
			return;
		}
	}
}

void
pool_lend_own(struct seat *seat, struct waiter *w, const struct link_own *own)
{
	INVARIANT(w->seat == NULL && own->replication != REPLICATION_NONE);
	seat->used_us = clock_us();
	w->seat = seat;
	w->own = own;
	w->link = NULL;
	w->tries = 0;
	w->start_us = seat->used_us;
	TAILQ_INSERT_TAIL(&seat->own_waiters, w, entry);
	seat->own_waiting++;
	pool_serve_own(seat);
}

/* The link is its waiter's no more, or not yet. */
static struct waiter *
take_owner(struct link *l)
{
	struct waiter *w = l->owner;

	INVARIANT(w != NULL && w->seat == l->place);
	l->owner = NULL;
	w->link = NULL;
	return (w);
}

void
pool_own_ready(struct link *l)
{
	struct waiter *w = take_owner(l);
	struct seat *seat = l->place;

	METRIC_INC(&seat->metrics, server_assignment_count);
	pool_wait_end(w);
	w->granted(w, l);
}

void
pool_own_failed(struct link *l, int fault, const char *why,
    const struct proto_error_fields *error, bool is_unheard)
{
	struct waiter *w = take_owner(l);
	struct seat *seat = l->place;
	char *message;

	/* Another server of the database may be there. */
	if (is_unheard && seat->database != NULL &&
	    ++w->tries < seat->database->host_count) {
		if (!seat->database->round_robin_hosts)
			atomic_fetch_add(&seat->pool->next_host, 1);
		pool_serve_own(seat);
		return;
	}
	message = error != NULL ? mem_str(why)
				: mem_printf("cannot connect to the server: %s", why);
	pool_refuse(w, fault,
	    error != NULL && strlen(error->sqlstate) == 5 ? error->sqlstate
							  : fault_info(fault)->sqlstate,
	    message);
	free(message);
}

void
pool_own_tick(struct seat *seat, int64_t now_us)
{
	int64_t max = seat->limits.query_wait_timeout;
	struct waiter *w;

	while (max > 0 && (w = TAILQ_FIRST(&seat->own_waiters)) != NULL &&
	       now_us - w->start_us > max)
		pool_refuse(w, F_QUERY_WAIT, fault_info(F_QUERY_WAIT)->sqlstate,
		    fault_info(F_QUERY_WAIT)->text);
	if (seat->own_waiting > 0)
		pool_serve_own(seat);
}
