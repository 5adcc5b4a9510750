/*
 * The member that the tables of a statement name, each by the strongest word on it:
 *
 *   member.schema.table -> that member        a table of a [shard]  -> see shard.c
 *   a [route]           -> its member         nothing               -> the key's, the default
 *   a view of which nothing is said           -> where the tables below it are (known.c)
 *
 * All tables must agree; two names for one database (a fallback without a host) agree. A table
 * that the statement makes, and of which nothing is said, goes where the others are.
 */
#include "private.h"

/* What the tables have said so far. */
struct agreement {
	const struct topo_database *member;
	const struct sql_table *table; /* the one that said it */
	enum route_rule rule;          /* the strongest that said it */
	bool is_many;                  /* several, for `table`'s group */
	bool is_split;                 /* and each of its rows goes to one of them */
	struct route_members many;
};

void
route_place_named(
    const struct route_work *w, const struct sql_table *t, struct route_place *out)
{
	const struct topo_virtual *v = w->in->virt;

	if (v->shard_count > 0 &&
	    (out->shard = topo_shard_find(v, t->schema, t->name)) != NULL) {
		out->rule = ROUTE_BY_SHARD;
		return;
	}
	if (v->route_count > 0 &&
	    (out->route = topo_route_find(v, t->schema, t->name)) != NULL) {
		out->rule = ROUTE_BY_TABLE;
		out->member = out->route->database;
		return;
	}
	out->rule = w->home_rule;
	out->member = w->home;
}

const struct topo_database *
route_pinned(const struct route_work *w, const struct sql_table *t)
{
	/* Another table of that name may be made, in a schema that is looked at later. */
	if (w->in->pinned == NULL || t->catalog != NULL ||
	    (t->is_created && w->in->facts->keeps != SQL_KEEPS_TABLE))
		return (NULL);
	return (w->in->pinned(w->in->pinned_arg, t));
}

void
route_place(
    const struct route_work *w, const struct sql_table *t, struct route_place *out)
{
	const struct topo_virtual *v = w->in->virt;
	struct route_place none;

	*out = (struct route_place){.is_counted = !t->is_system};
	if ((out->member = route_pinned(w, t)) != NULL) {
		out->rule = ROUTE_BY_PIN;
		out->is_counted = true;
		return;
	}
	if (t->catalog != NULL &&
	    (out->member = topo_member_find(v, t->catalog)) != NULL) {
		out->rule = ROUTE_BY_CATALOG;
		out->is_counted = true;
		return;
	}
	if (t->is_system)
		return;
	if (w->beside != NULL) {
		out->member = w->beside;
		out->rule = w->beside_rule;
		return;
	}
	route_place_named(w, t, out);
	if (t->is_guess) {
		out->is_counted = out->shard != NULL || out->route != NULL;
		return;
	}
	if (out->shard != NULL || out->route != NULL || t->is_created ||
	    !catalog_has_views(w->in->catalog))
		return;
	none = *out;
	out->member = NULL;
	if (!route_place_view(w, t, out))
		*out = none;
}

/* "pgweave.ini:23". */
static const char *
route_source(const struct topo_route *r, char *to, size_t size)
{
	if (r->is_stored)
		return ("state store");
	route_put(to, size, "%s:%d", r->at.file != NULL ? r->at.file : "?", r->at.line);
	return (to);
}

static void
note_place(struct route_work *w, const struct sql_table *t, const struct route_place *p)
{
	char name[160], source[160];

	if (!w->in->wants_notes)
		return;
	route_table_name(t, name, sizeof(name));
	if (p->rule == ROUTE_BY_PIN)
		route_spoke(w, ROUTE_BY_PIN, "%s is a temporary table on %s", name,
		    p->member->name);
	else if (p->view != NULL && p->rule == ROUTE_BY_TABLE)
		route_spoke(w, ROUTE_BY_TABLE, "view %s reads %s = %s (%s)", name,
		    p->route->pattern, p->member->name,
		    route_source(p->route, source, sizeof(source)));
	else if (p->rule == ROUTE_BY_CATALOG)
		route_spoke(w, ROUTE_BY_CATALOG, "%s.%s", t->catalog, name);
	else if (p->rule == ROUTE_BY_TABLE)
		route_spoke(w, ROUTE_BY_TABLE, "%s = %s (%s)", p->route->pattern,
		    p->member->name, route_source(p->route, source, sizeof(source)));
	else if (p->rule == ROUTE_BY_SHARD)
		route_silent(w, ROUTE_BY_SHARD, "the statement has no value of the key");
}

/* No member is the key's for what nothing else places. */
static bool
refuse_homeless(struct route_work *w)
{
	const struct topo_virtual *v = w->in->virt;

	route_denied(w, v->dflt, "It is the default, and the statement names no other.");
	route_hint(w, "Name one that the %s lists: SET pgweave.database = '…'.",
	    w->in->key->is_login ? "login" : "key");
	return (false);
}

static bool
check_place(struct route_work *w, const struct sql_table *t, const struct route_place *p)
{
	char name[160];

	if (p->member == NULL)
		return (refuse_homeless(w));
	if (route_may(w->in->key, w->own, p->member))
		return (true);
	route_table_name(t, name, sizeof(name));
	if (p->rule == ROUTE_BY_CATALOG)
		return (route_denied(w, p->member, "%s: the statement names %s.%s.",
		    route_rule_name(p->rule), t->catalog, name));
	if (p->rule == ROUTE_BY_TABLE)
		return (route_denied(w, p->member, "%s: %s is on database \"%s\".",
		    route_rule_name(p->rule), name, p->member->name));
	return (route_denied(w, p->member, "%s: the row of %s is on database \"%s\".",
	    route_rule_name(p->rule), name, p->member->name));
}

static bool
refuse_mixed(struct route_work *w, const struct agreement *so_far,
    const struct sql_table *t, const struct topo_database *member)
{
	char one[160], two[160], many[40] = "several databases", quoted[160];

	route_table_name(so_far->table, one, sizeof(one));
	route_table_name(t, two, sizeof(two));
	if (so_far->is_many)
		route_put(quoted, sizeof(quoted), "%s", many);
	else
		route_put(
		    quoted, sizeof(quoted), "database \"%s\"", so_far->member->name);
	route_refuse(w, "0A000", "statement uses tables of several databases");
	if (member == NULL)
		route_detail(w, "\"%s\" is on %s, \"%s\" on %s.", one, quoted, two, many);
	else
		route_detail(w, "\"%s\" is on %s, \"%s\" on \"%s\".", one, quoted, two,
		    member->name);
	route_hint(w, "%s",
	    "A database that has both can be named: SET pgweave.database = '…'; a replication job keeps a copy of a table there.");
	return (false);
}

/* One more table (or group) has spoken. */
static bool
agree(struct route_work *w, struct agreement *a, const struct sql_table *t,
    const struct topo_database *member, enum route_rule rule)
{
	if (a->table == NULL) {
		a->table = t;
		a->member = member;
		a->rule = rule;
		return (true);
	}
	if (a->is_many || topo_database_served(a->member) != topo_database_served(member))
		return (refuse_mixed(w, a, t, member));
	if (rule < a->rule) {
		a->rule = rule;
		a->member = member;
		a->table = t;
	}
	return (true);
}

/* A view of more than rows of one table is not the union of what it is on each shard. */
static bool
merges_views(struct route_work *w, const struct route_place *places,
    const struct topo_shard *shard)
{
	const struct sql_facts *facts = w->in->facts;

	if (w->out->federation != ROUTE_MERGE)
		return (true);
	for (unsigned i = 0; i < facts->table_count; i++)
		if (places[i].is_counted && places[i].shard == shard &&
		    places[i].view != NULL && !places[i].view->is_simple)
			return (route_refuse_unmerged_view(w, &facts->tables[i]));
	return (true);
}

static bool
agree_group(struct route_work *w, struct agreement *a, const struct sql_table *t,
    const struct route_place *places, const struct topo_shard *shard)
{
	struct route_place p = {.shard = shard, .is_counted = true};

	w->reads_values = true;
	switch (route_by_shard(w, shard, places, &p.member, &p.rule, &a->many)) {
	case SPREAD_ONE:
		return (check_place(w, t, &p) && agree(w, a, t, p.member, p.rule));
	case SPREAD_MANY:
		if (a->table != NULL)
			return (refuse_mixed(w, a, t, NULL));
		if (!merges_views(w, places, shard))
			return (false);
		a->table = t;
		a->is_many = true;
		a->rule = ROUTE_BY_SHARD;
		return (true);
	case SPREAD_SPLIT:
		a->table = t;
		a->is_split = a->is_many = true;
		a->rule = ROUTE_BY_SHARD;
		return (true);
	case SPREAD_REFUSED:
		break;
	}
	return (false);
}

/* Whether an earlier table is of the same group: then the group has spoken. */
static bool
is_later_of_group(const struct route_place *places, unsigned i)
{
	for (unsigned k = 0; k < i; k++) {
		if (places[k].is_counted && places[k].shard == places[i].shard)
			return (true);
	}
	return (false);
}

bool
route_follows(const struct sql_table *t, const struct route_place *p)
{
	return (t->is_created && p->is_counted && p->shard == NULL && p->route == NULL &&
		p->rule != ROUTE_BY_CATALOG && p->rule != ROUTE_BY_PIN);
}

/* Places of all tables; those that follow others do not count beside them. */
static void
place_all(struct route_work *w, struct route_place *places)
{
	const struct sql_facts *facts = w->in->facts;
	unsigned leaders = 0;

	for (unsigned i = 0; i < facts->table_count; i++) {
		route_place(w, &facts->tables[i], &places[i]);
		if (!places[i].is_counted)
			continue;
		note_place(w, &facts->tables[i], &places[i]);
		leaders += !route_follows(&facts->tables[i], &places[i]);
	}
	for (unsigned i = 0; leaders > 0 && i < facts->table_count; i++)
		if (route_follows(&facts->tables[i], &places[i]))
			places[i].is_counted = false;
}

/* A table that is not spread is below the same view: the group must have gone there. */
static bool
agrees_with_base(const struct agreement *a, const struct route_place *p)
{
	return (!a->is_many &&
		topo_database_served(a->member) == topo_database_served(p->also));
}

static bool
agree_all(struct route_work *w, struct agreement *a)
{
	const struct sql_facts *facts = w->in->facts;
	struct route_place places[SQL_TABLES_MAX];

	INVARIANT(facts->table_count <= SQL_TABLES_MAX);
	place_all(w, places);
	for (unsigned i = 0; i < facts->table_count; i++) {
		const struct sql_table *t = &facts->tables[i];
		const struct route_place *p = &places[i];

		if (!p->is_counted)
			continue;
		if (p->is_mixed)
			return (route_refuse_view(w, t, p));
		if (p->shard != NULL) {
			if (!is_later_of_group(places, i) &&
			    !agree_group(w, a, t, places, p->shard))
				return (false);
			if (p->also != NULL && !agrees_with_base(a, p))
				return (route_refuse_view(w, t, p));
		} else if (!check_place(w, t, p) || !agree(w, a, t, p->member, p->rule)) {
			return (false);
		}
	}
	return (true);
}

bool
route_by_tables(struct route_work *w)
{
	struct agreement a;

	a.table = NULL;
	a.is_many = a.is_split = false;
	if (!agree_all(w, &a))
		return (false);
	if (a.is_split)
		return (route_split_legs(w, &a.many));
	if (a.is_many)
		return (route_many(w, &a.many, ROUTE_BY_SHARD));
	if (a.table != NULL)
		return (route_one(w, a.member, a.rule));
	if (w->home == NULL)
		return (refuse_homeless(w));
	return (route_one(w, w->home, w->home_rule));
}

void
route_note_tables(struct route_work *w)
{
	struct agreement a;

	a.table = NULL;
	a.is_many = a.is_split = false;
	/* What it refuses, the stronger rule allows: the plan is made afterwards. */
	(void)agree_all(w, &a);
}
