/*
 * What becomes of a statement of a session on a virtual database, and whether its key may run
 * it now.
 */
#include "weave.h"
#include <stdio.h>
#include <string.h>

/* ---- limits of a key ---- */

/* One more statement of the key in its time; how long until then when there are too many.
 * The bucket is the time at which all that was let in would be used up. */
static int64_t
rate_wait_us(const struct topo_key *k, int64_t now)
{
	int64_t step = k->rate_us / k->rate, was = atomic_load(&k->use->bucket_us), next;

	do {
		next = (was > now ? was : now) + step;
		if (next - now > k->rate_us)
			return (next - now - k->rate_us);
	} while (!atomic_compare_exchange_weak(&k->use->bucket_us, &was, next));
	return (0);
}

bool
weave_admit(struct up *u)
{
	struct weave *w = u->s->weave;
	const struct topo_key *k = w->key;
	char detail[128];
	int64_t wait;

	if (k == NULL || k->use == NULL)
		return (true);
	if (k->rate > 0 && (wait = rate_wait_us(k, u->now_us)) > 0) {
		snprintf(detail, sizeof(detail), "Retry in %.3f s.", (double)wait / 1e6);
		refusal_set(
		    &w->refusal, "53400", "rate limit of this key reached", detail, NULL);
		return (false);
	}
	if (!w->is_running) {
		unsigned running = atomic_fetch_add(&k->use->running, 1);

		if (k->concurrency > 0 && running >= (uint64_t)k->concurrency) {
			atomic_fetch_sub(&k->use->running, 1);
			refusal_set(&w->refusal, "53400",
			    "concurrency limit of this key reached",
			    "Retry when one of its statements has ended.", NULL);
			return (false);
		}
		w->is_running = true;
		w->running_use = k->use;
	}
	atomic_store(&k->use->last_used_us, clock_wall_us());
	return (true);
}

/* ---- decisions ---- */

enum decision
weave_decline(
    struct weave *w, const char *sqlstate, const char *message, const char *hint)
{
	refusal_set(&w->refusal, sqlstate, message, NULL, hint);
	return (GO_REFUSED);
}

/* Statements of a transaction that belong to a link that it has. NULL: none of these. */
static struct leg *
leg_for_verb(struct session *s, const struct sense *sense)
{
	struct weave *w = s->weave;
	static const char *const verbs[] = {
	    "fetch", "move", "close", "set", "show", "reset", "savepoint", "release"};
	const struct sql_facts *f = sense->facts;

	if (w->txn != TXN_OPEN || w->leg_count == 0)
		return (NULL);
	if (f->class == SQL_SAVEPOINT)
		return (leg_main(w));
	if (f->class == SQL_COMMIT || f->class == SQL_ROLLBACK ||
	    f->class == SQL_TWO_PHASE) {
		for (unsigned i = 0; i < w->leg_count; i++)
			if (w->legs[i].has_written)
				return (&w->legs[i]);
		return (leg_main(w));
	}
	if (f->table_count > 0 || s->link == NULL)
		return (NULL);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i], sense->scan.verb) == 0)
			return (leg_note(s, s->link));
	return (f->is_plain_read ? leg_note(s, s->link) : NULL);
}

static enum decision
decide_in_failed(struct session *s, const struct sense *sense, struct seat **seat)
{
	struct weave *w = s->weave;
	struct leg *leg = leg_main(w);

	if (sense->facts->class != SQL_SAVEPOINT || !sense->facts->is_rollback_to ||
	    leg == NULL || !w->has_savepoints)
		return (weave_decline(w, "25P02",
		    "current transaction is aborted, commands ignored until end of transaction block",
		    NULL));
	legs_park(s);
	legs_drop(s, leg, "it failed, and the transaction goes back to a savepoint");
	*seat = leg_main(w)->seat;
	w->txn = TXN_OPEN;
	return (GO_ONE);
}

static enum decision
decide_by_route(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	struct route_input in;

	sense_input(s, sense, b, &in);
	route_plan(&in, plan);
	switch (plan->way) {
	case ROUTE_REFUSED:
		refusal_set(
		    &w->refusal, plan->sqlstate, plan->message, plan->detail, plan->hint);
		return (GO_REFUSED);
	case ROUTE_MANY:
		return (GO_MANY);
	case ROUTE_ONE:
	default:
		*seat = weave_seat(s, plan->legs[0].node);
		return (*seat != NULL ? GO_ONE : GO_REFUSED);
	}
}

enum decision
weave_decide(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	struct leg *leg;

	plan->leg_count = 0;
	plan->is_write = false;
	plan->warning[0] = '\0';
	if (sense->scan.hint != NULL && sense->scan.hint->problem != NULL)
		return (weave_decline(w, "22023", sense->scan.hint->problem, NULL));
	if (sense_is_local(s, sense))
		return (GO_LOCAL);
	if (w->txn == TXN_FAILED)
		return (decide_in_failed(s, sense, seat));
	if (f->sets_pgweave)
		return (weave_decline(w, "0A000",
		    "set_config() and current_setting() do not reach the settings of pgweave",
		    "Use SET and SHOW."));
	leg = leg_for_verb(s, sense);
	if (leg == NULL)
		return (decide_by_route(s, sense, b, plan, seat));
	if (f->class == SQL_TWO_PHASE && w->leg_count > 1)
		return (weave_decline(w, "0A000",
		    "PREPARE TRANSACTION of a transaction on several databases", NULL));
	*seat = leg->seat;
	return (GO_ONE);
}

void
weave_note_relayed(struct session *s, const struct sense *sense, const struct seat *seat)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	struct leg *leg;

	if (f->class == SQL_SAVEPOINT && !f->is_release && !f->is_rollback_to)
		w->has_savepoints = true;
	if (w->txn == TXN_OPEN && w->leg_count > 1 &&
	    (f->class == SQL_COMMIT || f->class == SQL_ROLLBACK)) {
		/* What the others have read ends with a rollback. */
		legs_park(s);
		leg = leg_of_seat(w, seat);
		legs_drop(s, leg, "the transaction is over");
	}
	if ((f->class == SQL_SET && f->set_verb == SQL_SET_RESET && f->setting != NULL &&
		strcmp(f->setting, "all") == 0) ||
	    strcmp(sense->scan.verb, "discard") == 0)
		said_copy(&w->session, &w->base);
}

void
weave_say_warning(struct session *s, const struct route_plan *plan)
{
	struct buf out = {0};

	if (plan->warning[0] == '\0')
		return;
	proto_error(&out, "WARNING", "01000", plan->warning, NULL, NULL);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

enum up_verdict
weave_goes_to(struct session *s, const struct sense *sense, const struct route_plan *plan,
    struct seat *seat)
{
	struct weave *w = s->weave;

	weave_note_relayed(s, sense, seat);
	if (plan->leg_count > 0)
		weave_note_routed(w, plan);
	weave_say_warning(s, plan);
	return (weave_take(s, seat, plan->is_write));
}
