/*
 * Links kept for clients that will have them for themselves: with pool_mode=session, the process
 * that a client hears of when it logs in is to be the one that does its statements.
 *
 *   pool_keep() -> an idle link that is kept for nobody yet, or one that is opened for it
 *
 * What is kept stays idle in every other respect. Whatever closes idle links closes it, and who
 * waits gets it when there is no room for one more: a client that logs in and asks for nothing
 * must not be in the way of one that does.
 */
#include "private.h"

static void
keep(struct link *l, struct waiter *w)
{
	INVARIANT(l->kept_for == NULL && w->kept == NULL);
	l->kept_for = w;
	w->kept = l;
	if (l->is_listed)
		((struct seat *)l->place)->kept++;
}

void
pool_keep_drop(struct link *l)
{
	struct waiter *w = l->kept_for;

	if (w == NULL)
		return;
	l->kept_for = NULL;
	w->kept = NULL;
	if (l->is_listed)
		((struct seat *)l->place)->kept--;
}

void
pool_keep_end(struct waiter *w)
{
	w->looked = NULL;
	if (w->kept != NULL)
		pool_keep_drop(w->kept);
}

void
pool_keep_this(struct link *l, struct waiter *w)
{
	if (l->is_listed && l->kept_for == NULL && w->kept == NULL)
		keep(l, w);
}

/* It is known what becomes of the link that was opened. */
static void
tell(struct waiter *w)
{
	void (*looked)(struct waiter *) = w->looked;

	w->looked = NULL;
	if (looked != NULL)
		looked(w);
}

enum pool_kept
pool_keep(struct seat *seat, struct waiter *w, void (*looked)(struct waiter *))
{
	struct link *l;

	if (seat->database == NULL || seat->pool->db->is_paused || pool_is_closed(seat) ||
	    pool_is_fenced(seat) || !TAILQ_EMPTY(&seat->waiters))
		return (POOL_KEPT_NONE);
	TAILQ_FOREACH(l, &seat->idle, idle_entry)
		if (l->kept_for == NULL && !pool_is_stale(l)) {
			keep(l, w);
			return (POOL_KEPT);
		}
	l = pool_open_spare(seat);
	if (l == NULL)
		return (POOL_KEPT_NONE);
	keep(l, w);
	w->looked = looked;
	return (POOL_KEPT_COMING);
}

void
pool_keep_ready(struct link *l)
{
	struct waiter *w = l->kept_for;

	if (w != NULL)
		pool_keep_drop(l);
	/* Those who wait come first. */
	pool_offer(l);
	if (w == NULL || w->looked == NULL)
		return;
	pool_keep_this(l, w);
	tell(w);
}

void
pool_keep_closed(struct link *l)
{
	struct waiter *w = l->kept_for;

	if (w == NULL)
		return;
	pool_keep_drop(l);
	tell(w);
}

struct link *
pool_take_kept(struct seat *seat)
{
	struct link *l;

	TAILQ_FOREACH_REVERSE(l, &seat->idle, link_list, idle_entry)
	if (l->kept_for != NULL) {
		pool_set_idle(l, false);
		return (l);
	}
	INVARIANT(!"seat->kept counts what is not there");
	return (NULL);
}
