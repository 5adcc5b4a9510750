/*
 * EXPLAIN (ROUTE): a plan in words, for people or as one JSON object.
 *
 *   Route: analytics (table route)
 *     Node: analytics, healthy
 *     Class: read; tables: analytics_events -> analytics
 *     Rules:
 *       SET LOCAL    not set
 *       table route  analytics_events = analytics (pgweave.ini:31)   won
 */
#include "private.h"

#include <stdatomic.h>

struct lines {
	void (*line)(void *arg, const char *text);
	void *arg;
	struct buf buf;
};

static void
line_end(struct lines *l)
{
	buf_add(&l->buf, "", 1);
	l->line(l->arg, (const char *)l->buf.mem);
	l->buf.len = 0;
}

static const char *
status_of(const struct topo_database *d)
{
	if (d->verdict == NULL)
		return (topo_status_name(TOPO_UNKNOWN));
	return (topo_status_name((enum topo_status)atomic_load(&d->verdict->status)));
}

static const char *
fate_name(const struct route_plan *plan, const struct route_note *note)
{
	if (note->fate == NOTE_WON)
		return ("won");
	if (note->fate == NOTE_SILENT || plan->way == ROUTE_REFUSED)
		return ("");
	return ("overruled");
}

/* Who is pinned by nothing has no use for that rule. */
static bool
is_idle_rule(const struct route_plan *plan, unsigned rule)
{
	return (rule == ROUTE_BY_PIN && plan->notes[rule].fate == NOTE_SILENT);
}

/* ---- text ---- */

static void
text_head(struct lines *l, const struct route_plan *plan)
{
	if (plan->way == ROUTE_REFUSED) {
		buf_addf(&l->buf, "Route: refused (SQLSTATE %s)", plan->sqlstate);
		line_end(l);
		buf_addf(&l->buf, "  Error: %s", plan->message);
		line_end(l);
		if (plan->detail[0] != '\0') {
			buf_addf(&l->buf, "  Detail: %s", plan->detail);
			line_end(l);
		}
		if (plan->hint[0] != '\0') {
			buf_addf(&l->buf, "  Hint: %s", plan->hint);
			line_end(l);
		}
		return;
	}
	buf_addstr(&l->buf, "Route: ");
	for (unsigned i = 0; i < plan->leg_count; i++)
		buf_addf(&l->buf, "%s%s", i == 0 ? "" : ", ", plan->legs[i].member->name);
	buf_addf(&l->buf, " (%s)", route_rule_name(plan->rule));
	line_end(l);
}

/* "  Split: each row by user_id: 2 to primary, 1 to secondary" */
static void
text_split(struct lines *l, const struct route_plan *plan)
{
	const struct route_split *split = &plan->split;

	buf_addf(&l->buf, "  Split: each row by %s", split->shard->key);
	for (unsigned i = 0; split->rows != NULL && i < plan->leg_count; i++)
		buf_addf(&l->buf, "%s%u to %s", i == 0 ? ": " : ", ", split->leg_rows[i],
		    plan->legs[i].member->name);
	line_end(l);
}

static void
text_nodes(struct lines *l, const struct route_plan *plan)
{
	for (unsigned i = 0; i < plan->leg_count; i++) {
		const struct route_leg *leg = &plan->legs[i];

		buf_addf(
		    &l->buf, "  Node: %s, %s", leg->node->name, status_of(leg->node));
		if (leg->node != leg->member)
			buf_addf(&l->buf, ", for %s", leg->member->name);
		if (plan->way == ROUTE_ONE && plan->node_why[0] != '\0')
			buf_addf(&l->buf, " (%s)", plan->node_why);
		line_end(l);
	}
	if (plan->way == ROUTE_MANY) {
		buf_addf(&l->buf, "  Federation: %s",
		    plan->federation == ROUTE_TAG
			? "tag: rows as they come, with a first column \"database\""
			: "merge: one result, as if one database held all rows");
		line_end(l);
	}
	if (plan->way == ROUTE_SPLIT)
		text_split(l, plan);
	if (plan->warning[0] != '\0') {
		buf_addf(&l->buf, "  Warning: %s", plan->warning);
		line_end(l);
	}
}

/* The table's place in the plan; false: it has none. */
static bool
place_of(const struct route_work *w, const struct route_plan *plan,
    const struct sql_table *t, struct route_place *out)
{
	route_place(w, t, out);
	if (route_follows(t, out) && plan->way == ROUTE_ONE)
		out->member = plan->legs[0].member;
	return (out->is_counted);
}

/* Where a table is: its member, or the group that its rows are spread over. */
static void
put_place(struct buf *b, const struct route_place *p)
{
	if (p->shard == NULL) {
		buf_addstr(b, p->member != NULL ? p->member->name : "?");
		return;
	}
	for (size_t i = 0; i < p->shard->member_count; i++)
		buf_addf(b, "%s%s", i == 0 ? "" : " | ", p->shard->members[i]->name);
}

static void
text_class(struct lines *l, const struct route_work *w, const struct route_plan *plan)
{
	const struct sql_facts *facts = w->in->facts;
	struct route_place place;
	char name[160];
	unsigned n = 0;

	buf_addf(&l->buf, "  Class: %s", route_class_name(facts->class));
	for (unsigned i = 0; i < facts->table_count; i++) {
		if (!place_of(w, plan, &facts->tables[i], &place))
			continue;
		buf_addf(&l->buf, "%s%s -> ", n++ == 0 ? "; tables: " : ", ",
		    route_table_name(&facts->tables[i], name, sizeof(name)));
		put_place(&l->buf, &place);
	}
	line_end(l);
}

static void
text_rules(struct lines *l, const struct route_plan *plan)
{
	buf_addstr(&l->buf, "  Rules, strongest first:");
	line_end(l);
	for (unsigned i = 0; i < ROUTE_RULES; i++) {
		const struct route_note *note = &plan->notes[i];
		const char *fate = fate_name(plan, note);

		if (is_idle_rule(plan, i))
			continue;
		buf_addf(&l->buf, "    %-12s ", route_rule_name((enum route_rule)i));
		if (fate[0] != '\0')
			buf_addf(&l->buf, "%-45s %s", note->text, fate);
		else
			buf_addstr(&l->buf, note->text);
		line_end(l);
	}
}

/* ---- JSON ---- */

static void
json_text(struct buf *b, const char *text)
{
	buf_addstr(b, "\"");
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
		if (*p == '"' || *p == '\\')
			buf_addf(b, "\\%c", *p);
		else if (*p < 0x20)
			buf_addf(b, "\\u%04x", *p);
		else
			buf_add(b, p, 1);
	}
	buf_addstr(b, "\"");
}

/* ,"name":"text" */
static void
json_pair(struct buf *b, const char *before, const char *name, const char *text)
{
	buf_addf(b, "%s\"%s\":", before, name);
	json_text(b, text);
}

static void
json_error(struct buf *b, const struct route_plan *plan)
{
	json_pair(b, "{\"route\":\"refused\",\"error\":{", "code", plan->sqlstate);
	json_pair(b, ",", "message", plan->message);
	if (plan->detail[0] != '\0')
		json_pair(b, ",", "detail", plan->detail);
	if (plan->hint[0] != '\0')
		json_pair(b, ",", "hint", plan->hint);
	buf_addstr(b, "}");
}

static void
json_legs(struct buf *b, const struct route_plan *plan)
{
	json_pair(b, "{", "route",
	    plan->way == ROUTE_ONE     ? "one"
	    : plan->way == ROUTE_SPLIT ? "split"
				       : "many");
	json_pair(b, ",", "rule", route_rule_name(plan->rule));
	buf_addstr(b, ",\"databases\":[");
	for (unsigned i = 0; i < plan->leg_count; i++) {
		json_pair(b, i == 0 ? "{" : ",{", "database", plan->legs[i].member->name);
		json_pair(b, ",", "node", plan->legs[i].node->name);
		json_pair(b, ",", "status", status_of(plan->legs[i].node));
		if (plan->way == ROUTE_SPLIT && plan->split.rows != NULL)
			buf_addf(b, ",\"rows\":%u", plan->split.leg_rows[i]);
		buf_addstr(b, "}");
	}
	buf_addstr(b, "]");
	if (plan->way == ROUTE_ONE && plan->node_why[0] != '\0')
		json_pair(b, ",", "node_why", plan->node_why);
	if (plan->way == ROUTE_MANY)
		json_pair(b, ",", "federation",
		    plan->federation == ROUTE_TAG ? "tag" : "merge");
	if (plan->way == ROUTE_SPLIT)
		json_pair(b, ",", "split_by", plan->split.shard->key);
	if (plan->skipped[0] != '\0')
		json_pair(b, ",", "skipped", plan->skipped);
	if (plan->warning[0] != '\0')
		json_pair(b, ",", "warning", plan->warning);
}

static void
json_tables(struct buf *b, const struct route_work *w, const struct route_plan *plan)
{
	const struct sql_facts *facts = w->in->facts;
	struct route_place place;
	char name[160];
	unsigned n = 0;

	buf_addstr(b, ",\"tables\":[");
	for (unsigned i = 0; i < facts->table_count; i++) {
		if (!place_of(w, plan, &facts->tables[i], &place))
			continue;
		json_pair(b, n++ == 0 ? "{" : ",{", "table",
		    route_table_name(&facts->tables[i], name, sizeof(name)));
		buf_addstr(b, ",\"databases\":[");
		if (place.member != NULL)
			json_text(b, place.member->name);
		for (size_t k = 0; place.shard != NULL && k < place.shard->member_count;
		     k++) {
			buf_addstr(b, k == 0 ? "" : ",");
			json_text(b, place.shard->members[k]->name);
		}
		buf_addstr(b, "]}");
	}
	buf_addstr(b, "]");
}

static void
json_all(struct lines *l, const struct route_work *w, const struct route_plan *plan)
{
	struct buf *b = &l->buf;
	bool is_first = true;

	if (plan->way == ROUTE_REFUSED)
		json_error(b, plan);
	else
		json_legs(b, plan);
	json_pair(b, ",", "class", route_class_name(w->in->facts->class));
	buf_addf(b, ",\"is_write\":%s", plan->is_write ? "true" : "false");
	json_tables(b, w, plan);
	buf_addstr(b, ",\"rules\":[");
	for (unsigned i = 0; i < ROUTE_RULES; i++) {
		const struct route_note *note = &plan->notes[i];
		const char *fate = fate_name(plan, note);

		if (is_idle_rule(plan, i))
			continue;
		json_pair(b, is_first ? "{" : ",{", "rule",
		    route_rule_name((enum route_rule)i));
		json_pair(b, ",", "said", note->text);
		is_first = false;
		json_pair(b, ",", "outcome", fate);
		buf_addstr(b, "}");
	}
	buf_addstr(b, "]}");
	line_end(l);
}

void
route_explain(const struct route_input *in, const struct route_plan *plan, bool as_json,
    void (*line)(void *arg, const char *text), void *arg)
{
	struct lines l = {.line = line, .arg = arg};
	struct route_plan scratch;
	struct route_work w;

	INVARIANT(in->wants_notes);
	/* For what places tables only; what it might refuse, the plan has refused. */
	(void)route_work_begin(&w, in, &scratch);
	if (as_json) {
		json_all(&l, &w, plan);
	} else {
		text_head(&l, plan);
		text_nodes(&l, plan);
		text_class(&l, &w, plan);
		text_rules(&l, plan);
	}
	buf_free(&l.buf);
}
