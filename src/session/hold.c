/*
 * Statements that wait while a primary is missing. Nothing of them was sent, so that nothing
 * can be done twice; the client's message stays where it is, and is looked at again in every
 * tick, until it can run or failover_hold is over.
 */
#include "stat.h"
#include "weave.h"

/* Whether a primary is missing that may soon have a successor. Before health has noticed, a
 * connection that is refused says so. */
static bool
awaits_primary(const struct weave *w, const struct topo_database *database)
{
	const struct topo_database *root = database;

	if (database != NULL) {
		if (root->replica_of != NULL)
			root = root->replica_of;
		return (root->copy_count > 0);
	}
	for (size_t i = 0; i < w->virt->member_count; i++)
		if (topo_verdict_awaits_primary(
			topo_database_served(w->virt->members[i]), NULL))
			return (true);
	return (false);
}

bool
weave_hold(struct session *s, const struct topo_database *database)
{
	struct weave *w = s->weave;
	int64_t now = clock_us();

	/* What an open transaction has done elsewhere cannot wait. */
	if (w->virt->failover_hold == 0 || w->txn == TXN_OPEN || w->txn == TXN_FAILED ||
	    w->relays || s->is_draining || !awaits_primary(w, database))
		return (false);
	if (w->held_us == 0) {
		w->held_us = now;
		stat_count(M_held, 1);
	}
	if (now - w->held_us >= w->virt->failover_hold)
		return (false);
	if (!w->is_held)
		session_worker(s->worker)->held++;
	w->is_held = true;
	return (true);
}

void
weave_unhold(struct session *s)
{
	struct weave *w = s->weave;

	if (w->is_held)
		session_worker(s->worker)->held--;
	w->is_held = false;
}

static void
look_again(struct session_list *list)
{
	struct session *s, *next;

	for (s = TAILQ_FIRST(list); s != NULL; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (s->weave == NULL || !s->weave->is_held)
			continue;
		weave_unhold(s);
		session_flow(s);
	}
}

void
weave_hold_tick(struct worker *w)
{
	struct session_worker *sw = session_worker(w);

	if (sw->held == 0)
		return;
	look_again(&sw->sessions[SESSION_IDLE]);
	look_again(&sw->sessions[SESSION_ACTIVE]);
}
