/*
 * What a merge reads must be tables: a view may count, limit or join the rows of its own
 * database, and then the union of several views is not the view of all rows. Each member is
 * asked once in a while; what was found is remembered by member and question. Views that show
 * some rows of one table, as the catalogs know, are as good as tables.
 */
#include "catalog.h"
#include "weave.h"
#include <stdlib.h>
#include <string.h>

#define KINDS_TRUSTED_US 30000000
#define KINDS_MAX        4096

struct kind_known {
	struct table_node node;
	struct hash128 id;
	int64_t until_us;
};

static bool
kind_same(const struct table_node *n, const void *key)
{
	const struct hash128 *id = key;
	const struct kind_known *k = CONTAINER_OF(n, const struct kind_known, node);

	return (k->id.hi == id->hi && k->id.lo == id->lo);
}

void
kinds_free(struct session_worker *sw)
{
	struct table_node *n;

	while ((n = table_first(&sw->kinds)) != NULL) {
		table_remove(&sw->kinds, n);
		free(CONTAINER_OF(n, struct kind_known, node));
	}
	table_free(&sw->kinds);
}

static struct hash128
kind_id(const struct seat *seat, const char *sql)
{
	return (hash_pair(
	    seat->pool->database, strlen(seat->pool->database), sql, strlen(sql)));
}

static bool
kind_is_known(struct session_worker *sw, const struct seat *seat, const char *sql)
{
	struct hash128 id = kind_id(seat, sql);
	struct table_node *n = table_find(&sw->kinds, id.lo, kind_same, &id);

	return (
	    n != NULL && CONTAINER_OF(n, struct kind_known, node)->until_us > clock_us());
}

static void
kind_remember(struct session_worker *sw, const struct seat *seat, const char *sql)
{
	struct hash128 id = kind_id(seat, sql);
	struct table_node *n = table_find(&sw->kinds, id.lo, kind_same, &id);
	struct kind_known *k;

	if (n == NULL) {
		if (sw->kinds.count >= KINDS_MAX)
			kinds_free(sw);
		k = mem_alloc(sizeof(*k));
		k->id = id;
		table_add(&sw->kinds, &k->node, id.lo);
	} else
		k = CONTAINER_OF(n, struct kind_known, node);
	k->until_us = clock_us() + KINDS_TRUSTED_US;
}

static bool
is_simple_view(const struct session *s, const struct sql_table *t)
{
	const struct weave_run *run = s->weave->run;

	for (unsigned i = 0; i < run->count; i++) {
		const struct catalog_relation *r =
		    catalog_relation(catalog_db(catalog_of(s->worker), run->members[i]),
			t->schema, t->name);

		if (r == NULL || !r->is_simple)
			return (false);
	}
	return (true);
}

/* Fails with a division by zero where one of the statement's names is a view. */
static char *
kinds_sql(const struct session *s, const struct sql_facts *f)
{
	struct buf out = {0}, name = {0};

	for (unsigned i = 0; i < f->table_count; i++) {
		const struct sql_table *t = &f->tables[i];

		if (t->is_system || is_simple_view(s, t))
			continue;
		name.len = 0;
		if (t->schema != NULL) {
			buf_add_quoted(&name, t->schema, '"');
			buf_add(&name, ".", 1);
		}
		buf_add_quoted(&name, t->name, '"');
		buf_add(&name, "", 1);
		buf_addstr(&out,
		    "SELECT 1 / (relkind NOT IN ('v', 'm'))::int FROM pg_catalog.pg_class "
		    "WHERE oid = pg_catalog.to_regclass(");
		buf_add_quoted(&out, (const char *)name.mem, '\'');
		buf_addstr(&out, ");");
	}
	buf_free(&name);
	if (out.len == 0)
		return (NULL);
	buf_add(&out, "", 1);
	return ((char *)out.mem);
}

static void
kinds_refuse(struct session *s, const char *member, const struct proto_error_fields *e)
{
	struct refusal r = {0};
	char *detail;

	if (strcmp(e->sqlstate, "22012") == 0 && s->weave->run->split != NULL)
		weave_split_refused(s, member, &r);
	else if (strcmp(e->sqlstate, "22012") == 0) {
		detail = mem_printf(
		    "Database \"%s\" has a view where the statement names a table.",
		    member);
		refusal_set(&r, "0A000",
		    "the rows of a view cannot be merged: what it reads is not known",
		    detail,
		    "SET pgweave.federation = 'tag' answers each database by itself.");
		free(detail);
	} else
		refusal_set(&r, e->sqlstate, e->message, e->detail, e->hint);
	scatter_fail(s, &r);
	refusal_free(&r);
}

static void
kinds_answered(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;
	struct weave_run *run = s->weave->run;

	if (error == NULL)
		kind_remember(session_worker(s->worker), l->place, run->kinds);
	else {
		kinds_refuse(s, run->members[run->looked], error);
		return;
	}
	run->looked++;
	kinds_look(s);
}

void
kinds_look(struct session *s)
{
	struct weave_run *run = s->weave->run;
	struct session_worker *sw = session_worker(s->worker);

	if (run->split != NULL && run->kinds == NULL && run->looked == 0)
		run->kinds = weave_split_question(s);
	else if (run->kinds == NULL && run->looked == 0 &&
		 run->order.how == ROUTE_MERGE && !run->order.describes_only)
		run->kinds = kinds_sql(s, run->facts);
	for (; run->kinds != NULL && run->looked < run->count; run->looked++) {
		struct leg *leg = leg_of_seat(s->weave, run->seats[run->looked]);

		if (kind_is_known(sw, leg->seat, run->kinds))
			continue;
		link_run(leg->link, run->kinds, kinds_answered, s);
		return;
	}
	scatter_run(s);
}
