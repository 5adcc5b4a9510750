/* Links that go from worker to worker, and the calls for them. */
#include "private.h"
#include <stdlib.h>

int
pool_foreign_demand(const struct seat *seat, int64_t before_us)
{
	const struct pool *pool = seat->pool;
	int64_t oldest = before_us, since;
	int to = -1;

	for (unsigned i = 0; i < seat->worker->count; i++) {
		if (i == seat->worker->index)
			continue;
		since = atomic_load(&pool->share[i].oldest_wait_us);
		if (since != 0 && since < oldest) {
			oldest = since;
			to = (int)i;
		}
	}
	return (to);
}

static void
pool_arrive(struct worker *w, struct mail *m)
{
	struct link *l = CONTAINER_OF(m, struct link, mail);
	struct pool *pool = l->place;
	struct seat *seat = pool->share[w->index].seat;

	/* A seat outlives the links that its demand has called. */
	INVARIANT(seat != NULL);
	l->place = seat;
	TAILQ_INSERT_TAIL(&seat->links, l, entry);
	seat->link_count++;
	link_attach(l, w);
	METRIC_INC(&seat->metrics, handovers);
	if (seat->welcome == NULL && !pool_is_stale(l))
		seat->welcome = vars_hold(l->born);
	pool_offer(l);
}

/* The link may be on the stack of its own callback: it leaves at the end of the turn. */
void
pool_hand_over(struct link *l, unsigned to)
{
	link_move_begin(l);
	l->move_to = to;
	TAILQ_INSERT_TAIL(&pool_worker(l->worker)->leaving, l, idle_entry);
}

void
pool_turn(struct worker *w)
{
	struct pool_worker *pw = pool_worker(w);
	struct link *l;

	while ((l = TAILQ_FIRST(&pw->leaving)) != NULL) {
		struct seat *seat = l->place;

		TAILQ_REMOVE(&pw->leaving, l, idle_entry);
		if (!stream_can_move(&l->stream)) {
			link_close(l, "unexpected message from an idle server");
			continue;
		}
		TAILQ_REMOVE(&seat->links, l, entry);
		seat->link_count--;
		link_detach(l);
		l->place = seat->pool;
		l->mail.run = pool_arrive;
		worker_post(net_worker(l->move_to), &l->mail);
	}
}

/* ---- asking: a mail that travels from worker to worker until one can help, and home ---- */

/* An idle link for the one who asks. */
static bool
ask_for_link(struct worker *w, const struct seat *from)
{
	struct seat *seat = from->pool->share[w->index].seat;
	struct link *l;

	if (seat == NULL || !TAILQ_EMPTY(&seat->waiters))
		return (false);
	/* What is kept for somebody comes last. */
	for (int kept = 0; kept < 2; kept++)
		TAILQ_FOREACH(l, &seat->idle, idle_entry)
			if ((l->kept_for != NULL) == kept && link_can_move(l) &&
			    !pool_is_stale(l)) {
				pool_set_idle(l, false);
				pool_hand_over(l, from->ask_home);
				return (true);
			}
	return (false);
}

static void
pool_asked(struct worker *w, struct mail *m)
{
	struct seat *from = CONTAINER_OF(m, struct seat, ask);
	bool helped;

	if (w->index == from->ask_home) {
		from->is_asking = false;
		from->ask_after_us = clock_us() + WORKER_TICK_US;
		pool_serve(from);
		return;
	}
	helped = ask_for_link(w, from) ||
		 (from->ask_for != NULL && pool_evict(w, from->pool, from->ask_for));
	worker_post(net_worker(helped ? from->ask_home : (w->index + 1) % w->count), m);
}

static bool
others_have_idle(const struct seat *seat)
{
	for (unsigned i = 0; i < seat->worker->count; i++)
		if (i != seat->worker->index &&
		    atomic_load(&seat->pool->share[i].idle) > 0)
			return (true);
	return (false);
}

bool
pool_ask(struct seat *seat)
{
	struct worker *w = seat->worker;

	if (seat->is_asking)
		return (true);
	if (w->count == 1 || clock_us() < seat->ask_after_us ||
	    (seat->full == NULL && !others_have_idle(seat)))
		return (false);
	seat->is_asking = true;
	seat->ask_home = w->index;
	seat->ask_for = seat->full;
	seat->ask.run = pool_asked;
	worker_post(net_worker((w->index + 1) % w->count), &seat->ask);
	return (true);
}

/* ---- nudges: a place has become free ---- */

static void
pool_nudged(struct worker *w, struct mail *m)
{
	struct pool_share *share = CONTAINER_OF(m, struct pool_share, nudge);
	struct pool *pool = share->pool;

	/* Before looking: a nudge that comes later than this is a new one. */
	atomic_store(&share->is_nudged, false);
	if (pool->share[w->index].seat != NULL)
		pool_serve(pool->share[w->index].seat);
	pool_release(pool);
}

void
pool_nudge(struct pool *pool)
{
	for (unsigned i = 0; i < net_worker_count(); i++) {
		struct pool_share *share = &pool->share[i];

		if (atomic_load(&share->oldest_wait_us) == 0 ||
		    atomic_exchange(&share->is_nudged, true))
			continue;
		pool_hold(pool);
		share->nudge.run = pool_nudged;
		worker_post(net_worker(i), &share->nudge);
	}
}
