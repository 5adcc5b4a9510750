/*
 * What the databases' catalogs add to what a statement says: which column a value without a name
 * is for, what functions and views may do, and the tables that a view stands for.
 */
#include "private.h"

static const struct catalog_db *
catalog_of_member(const struct route_work *w, const struct topo_database *member)
{
	return (catalog_db(w->in->catalog, topo_database_served(member)->name));
}

/* ---- values without a name ---- */

/* Whether values without names are for the same columns in both. */
static bool
same_order(
    const struct catalog_db *a, const struct catalog_db *b, const struct sql_table *t)
{
	for (unsigned i = 0;; i++) {
		const char *one = catalog_column_at(a, t->schema, t->name, i),
			   *other = catalog_column_at(b, t->schema, t->name, i);

		if (one == NULL || other == NULL)
			return (true);
		if (strcmp(one, other) != 0)
			return (false);
	}
}

bool
route_says_key(const struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *t, const struct sql_match *m)
{
	const struct catalog_db *known = NULL;

	if (m->place == 0)
		return (strcmp(m->column, shard->key) == 0);
	/* The shards may have been made at different times: all that are known must agree. */
	for (size_t i = 0; i < shard->member_count; i++) {
		const struct catalog_db *db = catalog_of_member(w, shard->members[i]);
		const char *column;

		if (catalog_relation(db, t->schema, t->name) == NULL)
			continue;
		column = catalog_column_at(db, t->schema, t->name, m->place - 1);
		if (column == NULL || strcmp(column, shard->key) != 0 ||
		    (known != NULL && !same_order(known, db, t)))
			return (false);
		known = db;
	}
	return (known != NULL);
}

/* ---- what may write ---- */

/* Of the functions that are not PostgreSQL's own. */
static bool
calls_are_harmless(const struct sql_facts *facts, const struct catalog_db *db)
{
	if (!facts->has_foreign_function)
		return (true);
	if (facts->has_nameless_call)
		return (false);
	for (unsigned i = 0; i < facts->call_count; i++) {
		switch (catalog_volatility(
		    db, facts->calls[i].schema, facts->calls[i].name)) {
		case CATALOG_IMMUTABLE:
		case CATALOG_STABLE:
			break;
		case CATALOG_UNKNOWN:
		case CATALOG_VOLATILE:
			return (false);
		}
	}
	return (true);
}

bool
route_calls_writer(const struct route_work *w, const struct topo_database *member)
{
	const struct sql_facts *facts = w->in->facts;
	const struct catalog_db *db;

	if (!facts->has_foreign_function && !catalog_has_views(w->in->catalog))
		return (false);
	db = catalog_of_member(w, member);
	if (!calls_are_harmless(facts, db))
		return (true);
	for (unsigned i = 0; i < facts->table_count; i++) {
		const struct sql_table *t = &facts->tables[i];
		const struct catalog_relation *r;

		if (t->is_system)
			continue;
		r = catalog_relation(db, t->schema, t->name);
		if (r != NULL && r->is_volatile)
			return (true);
	}
	return (false);
}

/* ---- views ---- */

/* The view of that name where statements go that nothing places; when there is no such table
 * there either, that of the first member that has one. */
static const struct catalog_relation *
view_of(const struct route_work *w, const struct sql_table *t)
{
	const struct topo_virtual *v = w->in->virt;
	const struct catalog_db *db =
	    w->home != NULL ? catalog_of_member(w, w->home) : NULL;
	const struct catalog_relation *r = catalog_relation(db, t->schema, t->name);

	if (r == NULL && w->home != NULL && !catalog_is_whole(db))
		return (NULL);
	for (size_t i = 0; r == NULL && i < v->member_count; i++)
		r = catalog_relation(
		    catalog_of_member(w, v->members[i]), t->schema, t->name);
	return (r != NULL && r->kind == CATALOG_VIEW ? r : NULL);
}

/* What is said of a table below the view. */
static void
place_base(const struct route_work *w, const struct catalog_relation *base,
    struct route_place *out)
{
	const struct sql_table t = {.schema = base->schema, .name = base->name};

	*out = (struct route_place){.is_counted = true};
	route_place_named(w, &t, out);
}

/* The rows of the view are where those of its tables are. */
static void
view_add(struct route_place *out, const struct catalog_relation *base,
    const struct route_place *p)
{
	if (p->shard != NULL) {
		out->is_mixed |= out->shard != NULL && out->shard != p->shard;
		if (out->shard == NULL)
			out->shard = p->shard;
		return;
	}
	if (out->base == NULL) {
		out->member = p->member;
		out->route = p->route;
		out->rule = p->rule;
		out->base = base;
	} else
		out->is_mixed |=
		    topo_database_served(out->member) != topo_database_served(p->member);
}

bool
route_place_view(
    const struct route_work *w, const struct sql_table *t, struct route_place *out)
{
	const struct catalog_relation *view = view_of(w, t);
	const struct catalog_column *key;
	struct route_place p;

	if (view == NULL || view->read_count == 0)
		return (false);
	for (unsigned i = 0; i < view->read_count; i++) {
		place_base(w, view->reads[i], &p);
		/* Nothing is for this key there: as for the table itself. */
		if (p.shard == NULL && p.member == NULL)
			return (false);
		view_add(out, view->reads[i], &p);
	}
	out->view = view;
	if (out->shard == NULL)
		return (true);
	out->rule = ROUTE_BY_SHARD;
	out->also = out->member;
	out->member = NULL;
	key = catalog_column(view, out->shard->key);
	out->hides_key = !view->is_simple || key == NULL || !key->is_plain;
	return (true);
}

bool
route_refuse_view(
    struct route_work *w, const struct sql_table *t, const struct route_place *place)
{
	const struct catalog_relation *view = place->view;
	char name[160], said[400] = "";
	struct route_place p;

	route_table_name(t, name, sizeof(name));
	route_refuse(w, "0A000", "view \"%s\" reads tables of several databases", name);
	for (unsigned i = 0; i < view->read_count; i++) {
		const char *begin = i == 0 ? "" : ", ";

		place_base(w, view->reads[i], &p);
		if (p.shard != NULL)
			route_append(said, sizeof(said),
			    "%s\"%s\" is on several databases", begin,
			    view->reads[i]->name);
		else
			route_append(said, sizeof(said), "%s\"%s\" is on \"%s\"", begin,
			    view->reads[i]->name, p.member->name);
	}
	route_detail(w, "%s.", said);
	route_hint(w, "%s",
	    "A database that has all of them can be named: SET pgweave.database = '…'; a replication job keeps a copy of a table there.");
	return (false);
}

bool
route_refuse_unmerged_view(struct route_work *w, const struct sql_table *t)
{
	char name[160];

	route_table_name(t, name, sizeof(name));
	route_refuse(
	    w, "0A000", "this statement cannot be merged exactly: view \"%s\"", name);
	route_detail(w, "%s",
	    "It is more than some rows of one table, and its rows come from tables that are spread over several databases.");
	route_hint(
	    w, "%s", "SET pgweave.federation = 'tag' answers each database by itself.");
	return (false);
}
