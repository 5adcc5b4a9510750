/*
 * A statement on several databases: its links are gathered, a federation runs on them, and its
 * answer goes to the client. What the statement is made of is copied: the client's buffer and
 * the snapshot may be gone before it ends.
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>

/* The statement is over, one way or the other. */
static void
scatter_over(struct session *s, const struct refusal *r)
{
	struct weave *w = s->weave;
	bool is_extended = w->run->is_extended;
	struct buf out = {0};

	if (r != NULL)
		weave_error(s, r, is_extended, false);
	if (w->is_adrift) {
		session_close(
		    s, fault_info(F_LINK_LOST)->sqlstate, fault_info(F_LINK_LOST)->text);
		return;
	}
	/* The links first: who reads the answer may ask at once. */
	legs_rest(s);
	if (is_extended || !heed_rest(s, r == NULL))
		return;
	proto_ready(&out, weave_status(s));
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

void
scatter_fail(struct session *s, const struct refusal *r)
{
	scatter_over(s, r);
}

void
scatter_done(struct session *s)
{
	scatter_over(s, NULL);
}

/* ---- the federation's client ---- */

static void
fed_out(void *arg, const uint8_t *p, size_t len)
{
	struct session *s = arg;

	/* A portal's description has no parameters. */
	if (p[0] == 't' && s->weave->run->describes_portal) {
		size_t total = 1 + (size_t)proto_get32(p + 1);

		INVARIANT(total <= len);
		p += total;
		len -= total;
	}
	METRIC_ADD(&s->weave->home->metrics, sent, len);
	stream_write(&s->stream, p, len);
}

static bool
fed_is_full(void *arg)
{
	const struct session *s = arg;

	return (stream_is_full(&s->stream));
}

static void
fed_lost(void *arg, struct link *l)
{
	struct session *s = arg;
	struct leg *leg = leg_of_link(s->weave, l);

	if (leg != NULL)
		leg_forget(s->weave, leg);
	(void)anchors_lost(s, l);
}

static void
fed_done(void *arg, const struct federate_outcome *o)
{
	struct session *s = arg;
	struct weave *w = s->weave;
	struct refusal r = {0};

	w->run->federation = NULL;
	legs_keep(s);
	for (unsigned i = 0; i < w->leg_count; i++)
		METRIC_INC(&w->legs[i].seat->metrics, query_count);
	if (o->is_cut) {
		session_end(s, o->message);
		return;
	}
	if (!o->ok)
		refusal_set(&r, o->sqlstate, o->message, o->detail, o->hint);
	scatter_over(s, o->ok ? NULL : &r);
	refusal_free(&r);
}

static const struct federate_client fed_client = {
    .out = fed_out,
    .is_full = fed_is_full,
    .done = fed_done,
    .lost = fed_lost,
};

/* ---- start ---- */

/* The members' names and the seats wanted, in the order of the plan. */
static bool
scatter_want(struct session *s, struct route_plan *plan)
{
	struct weave *w = s->weave;

	for (unsigned i = 0; i < plan->leg_count; i++) {
		struct seat *seat = weave_seat(s, plan->legs[i].node);

		if (seat == NULL)
			return (false);
		w->run->seats[i] = w->run->want[i] = seat;
		w->run->members[i] = mem_str(plan->legs[i].member->name);
		w->run->count = w->run->want_count = i + 1;
	}
	/* Two members that one database answers for (a fallback) need its link only once, which
	 * cannot run two statements: rows would be counted twice as well. */
	for (unsigned i = 0; i < plan->leg_count; i++)
		for (unsigned j = 0; j < i; j++)
			if (w->run->want[i] == w->run->want[j]) {
				refusal_set(&w->refusal, "0A000",
				    "one database answers for two members of a federated statement",
				    w->run->members[i],
				    "Leave one of them out of pgweave.databases.");
				return (false);
			}
	return (true);
}

static void
scatter_bind(
    struct weave *w, const struct stmt *st, struct portal *p, bool describes_only)
{
	struct weave_run *run = w->run;
	struct federate_order *o = &run->order;
	size_t size = st->types_len + (p != NULL ? p->binding.values_len : 0);

	run->bind = mem_alloc(size);
	memcpy(run->bind, st->data + st->sql_len + 1, st->types_len);
	o->is_extended = true;
	o->types = run->bind;
	o->types_len = st->types_len;
	if (p == NULL)
		return;
	o->format_count =
	    binding_formats(&p->binding, run->formats, ARRAY_LEN(run->formats));
	o->formats = run->formats;
	if (!describes_only) {
		memcpy(run->bind + st->types_len, p->binding.p, p->binding.values_len);
		o->values = run->bind + st->types_len;
		o->values_len = p->binding.values_len;
	}
}

void
scatter_start(struct session *s, struct route_plan *plan, const struct sense *sense,
    const struct stmt *st, struct portal *portal, enum scatter_what what,
    uint32_t max_rows)
{
	struct weave *w = s->weave;
	bool describes_only = what != SCATTER_RUN;
	struct refusal r;

	(void)weave_run(w);
	w->run->text = sense_clean(s->worker, sense);
	if (w->run->text == NULL)
		w->run->text = mem_strn(sense->scan.sql, sense->scan.len);
	w->run->facts = sql_facts_hold(sense->facts);
	w->run->is_extended = st != NULL;
	w->run->order = (struct federate_order){.how = plan->federation,
	    .sql = w->run->text,
	    .shape = &w->run->facts->shape,
	    .describes_only = describes_only,
	    .wants_description = st == NULL || describes_only};
	w->run->describes_portal = what == SCATTER_DESCRIBE_PORTAL;
	w->run->order.max_rows = max_rows;
	if (st != NULL)
		scatter_bind(w, st, portal, describes_only);
	if ((plan->way == ROUTE_SPLIT && !describes_only &&
		!weave_split_make(s, plan, sense, st, portal)) ||
	    !scatter_want(s, plan)) {
		r = w->refusal;
		w->refusal = (struct refusal){0};
		legs_park(s);
		session_move(s, SESSION_WEAVING);
		scatter_over(s, &r);
		refusal_free(&r);
		return;
	}
	if (describes_only)
		w->run->want_count = w->run->count = 1;
	legs_gather(s, THEN_SCATTER);
}

void
scatter_run(struct session *s)
{
	struct weave *w = s->weave;
	struct refusal r = {0};

	if (w->run->is_cancelled) {
		refusal_set(&r, fault_info(F_CANCELLED)->sqlstate,
		    fault_info(F_CANCELLED)->text, NULL, NULL);
		scatter_over(s, &r);
		refusal_free(&r);
		return;
	}
	if (w->run->split != NULL) {
		weave_split_run(s);
		return;
	}
	for (unsigned i = 0; i < w->run->count; i++) {
		struct leg *leg = leg_of_seat(w, w->run->seats[i]);

		w->run->legs[i] = (struct federate_leg){
		    .link = leg->link, .member = w->run->members[i]};
	}
	w->run->federation = federate_start(
	    s->worker, &w->run->order, w->run->legs, w->run->count, &fed_client, s);
}
