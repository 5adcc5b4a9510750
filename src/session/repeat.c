/*
 * Statements that go where others of the same facts went: what was decided is noted with the
 * facts, and holds until the snapshot or the catalogs change, for sessions of the same virtual
 * database and key that have set nothing of pgweave's. Only the server is chosen anew.
 *
 *   weave_query()   repeat_query(): a text like one that was noted is not cut into tokens
 *   weave_decide()  repeat_decide(): all others, and statements of extended batches
 *
 * What is noted is a plain read or write on one member, with nothing that the session must be
 * told of, and whose text servers get as it is.
 */
#include "catalog.h"
#include "prepare.h"
#include <string.h>

static struct repeat_note *
note_with(const struct sql_facts *facts)
{
	return (&((struct facts_note *)sql_facts_note(facts))->repeat);
}

static bool
says_nothing(const struct weave *w)
{
	uintptr_t any = (uintptr_t)w->member;

	for (unsigned i = 0; i < SAID_WHAT; i++)
		any |= (uintptr_t)w->session.v[i] | (uintptr_t)w->local.v[i];
	return (any == 0);
}

static struct repeat_note
note_of(const struct session *s)
{
	return ((struct repeat_note){topo_generation(pool_worker(s->worker)->topo),
	    catalog_generation(catalog_of(s->worker)), s->weave->virt, s->weave->key,
	    {0}});
}

static bool
is_current(const struct session *s, const struct repeat_note *n)
{
	const struct weave *w = s->weave;

	return (n->memo.member != NULL && n->virt == w->virt && n->key == w->key &&
		n->snapshot == topo_generation(pool_worker(s->worker)->topo) &&
		n->catalogs == catalog_generation(catalog_of(s->worker)));
}

/* Nothing of the session has a say in where its statements go. */
static bool
is_free(const struct session *s)
{
	const struct weave *w = s->weave;

	return (w->txn == TXN_NONE && !w->unit.is_string && !w->shuns_replicas &&
		w->knows_level && !w->is_serializable && says_nothing(w) &&
		!temps_are_any(w));
}

/* The plan of a statement of these facts again; false: it must be made. */
static bool
repeat(struct session *s, const struct sql_facts *facts, struct route_plan *plan,
    struct seat **seat)
{
	/* A refusal is worded, though it is not told: it looks for the verb. */
	static const struct sql_scan no_scan;
	struct weave *w = s->weave;
	const struct repeat_note *n = note_with(facts);
	struct route_input in;

	if (!is_current(s, n))
		return (false);
	in.scan = &no_scan;
	in.virt = w->virt;
	in.key = w->key;
	in.facts = facts;
	in.in_transaction = in.is_read_only = in.wants_notes = false;
	in.is_open = NULL;
	in.now_us = w->virt->read_from_count > 0 ? clock_us() : 0;
	in.wrote_us = w->virt->causal_reads ? atomic_load(&s->user->wrote_us) : 0;
	if (!route_repeat(&n->memo, &in, plan))
		return (false);
	plan->is_write |= plan->calls_writer;
	w->reads_replica = plan->on_replica && !plan->is_write;
	w->unit.floats = false;
	*seat = weave_seat(s, plan->legs[0].node);
	if (*seat == NULL) {
		refusal_free(&w->refusal);
		return (false);
	}
	w->is_repeated = true;
	return (true);
}

bool
repeat_decide(struct session *s, const struct sense *sense, struct route_plan *plan,
    struct seat **seat)
{
	return (is_free(s) && sense->scan.hint == NULL && sense->scan.next == NULL &&
		memchr(sense->scan.sql, '\\', sense->scan.len) == NULL &&
		repeat(s, sense->facts, plan, seat));
}

void
repeat_note(struct session *s, const struct sense *sense, const struct route_plan *plan)
{
	const struct sql_facts *f = sense->facts;
	struct repeat_note *n = note_with(f);

	if (plan->memo.member == NULL || !is_free(s) || sense->scan.next != NULL ||
	    (f->class != SQL_READ && f->class != SQL_WRITE) || f->copies_in ||
	    f->copies_out || f->sets_pgweave || f->keeps != SQL_KEEPS_NOTHING ||
	    f->cursor != NULL || weave_is_taint(sense) || anchor_leaves(sense) != 0 ||
	    sql_prepare_may(sense->scan.sql, sense->scan.len) != 0)
		return;
	for (unsigned i = 0; i < f->table_count; i++)
		if (f->tables[i].catalog != NULL)
			return;
	*n = note_of(s);
	n->memo = plan->memo;
}

/* Nothing of an earlier unit, and nothing that is to be said to the client. */
static bool
is_at_rest(const struct session *s)
{
	const struct weave *w = s->weave;

	return (s->link == NULL && w->blank == 0 && w->held_us == 0 &&
		w->cursor_count == 0 && TAILQ_EMPTY(&w->portals) &&
		(w->again == NULL || !w->again->repeats));
}

bool
repeat_query(struct up *u, const char *sql, size_t len, enum up_verdict *v)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct route_plan *plan = &w->plan->plan;
	const struct sql_facts *facts;
	struct seat *seat;

	if (!is_at_rest(s) || !is_free(s) || memchr(sql, '\\', len) != NULL)
		return (false);
	facts = sense_known(s->worker, sql, len);
	if (facts == NULL || !repeat(s, facts, plan, &seat) || plan->warning[0] != '\0')
		return (false);
	weave_note_routed(w, plan);
	*v = weave_take(s, seat, plan->is_write);
	return (true);
}
