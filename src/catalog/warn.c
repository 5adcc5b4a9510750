/*
 * What the catalogs say against the configuration: routes to tables that do not exist, and
 * tables that several members have while nothing says which of them is meant.
 */
#include "private.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAMED_MAX 5 /* tables that one warning names */

static const struct catalog_db *
db_of(const struct catalog *c, const struct topo_database *member)
{
	return (catalog_db(c, topo_database_served(member)->name));
}

static void append(char *to, size_t size, const char *fmt, ...) PRINTF(3, 4);

static void
append(char *to, size_t size, const char *fmt, ...)
{
	size_t len = strlen(to);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(to + len, size - len, fmt, ap);
	va_end(ap);
}

/* ---- routes that lead nowhere ---- */

static bool
has_match(
    const struct catalog_db *db, const struct topo_virtual *v, const struct topo_route *r)
{
	if (r->is_exact)
		return (catalog_relation(db, r->schema != NULL ? r->schema : "public",
			    r->table) != NULL);
	for (const struct table_node *n = table_first(&db->ids); n != NULL;
	     n = table_next(&db->ids, n)) {
		const struct catalog_relation *rel =
		    CONTAINER_OF(n, const struct catalog_relation, by_id);

		if (topo_route_find(v, rel->schema, rel->name) == r)
			return (true);
	}
	return (false);
}

void
catalog_route_warning(const struct catalog *c, const struct topo_virtual *v,
    const struct topo_route *r, char *to, size_t size)
{
	const char *elsewhere = "";

	to[0] = '\0';
	if (!catalog_is_whole(db_of(c, r->database)) ||
	    has_match(db_of(c, r->database), v, r))
		return;
	append(to, size, "no such table in database \"%s\"", r->database->name);
	for (size_t i = 0; i < v->member_count; i++) {
		const struct catalog_db *db = db_of(c, v->members[i]);

		if (db == NULL || db == db_of(c, r->database) || !has_match(db, v, r))
			continue;
		append(to, size, "%s \"%s\"",
		    elsewhere[0] == '\0' ? ", but in" : elsewhere, v->members[i]->name);
		elsewhere = ",";
	}
	if (elsewhere[0] == '\0')
		append(to, size, ", nor in another");
}

/* ---- tables in several members ---- */

/* A copy of a database has its tables because it is one. */
static const struct topo_database *
origin_of(const struct topo_database *member)
{
	const struct topo_database *d = topo_database_served(member);

	return (d->replica_of != NULL ? topo_database_served(d->replica_of) : d);
}

static bool
is_said_of(const struct topo_virtual *v, const struct catalog_relation *r)
{
	return (topo_route_find(v, r->schema, r->name) != NULL ||
		topo_shard_find(v, r->schema, r->name) != NULL);
}

/* Puts the members that have it, when there are several and the one in question is the first
 * of them: "a, b". */
static bool
members_with(const struct catalog *c, const struct topo_virtual *v, size_t first,
    const struct catalog_relation *r, char *to, size_t size)
{
	unsigned count = 0;

	to[0] = '\0';
	for (size_t i = 0; i < v->member_count; i++) {
		bool is_double = false;

		if (catalog_relation(db_of(c, v->members[i]), r->schema, r->name) == NULL)
			continue;
		if (i < first)
			return (false);
		for (size_t k = 0; k < i && !is_double; k++)
			is_double = origin_of(v->members[k]) == origin_of(v->members[i]);
		if (is_double)
			continue;
		append(to, size, "%s%s", count > 0 ? ", " : "", v->members[i]->name);
		count++;
	}
	return (count > 1);
}

void
warn_of_twins(const struct catalog *c, const struct topo_virtual *v, uint64_t *was,
    char *to, size_t size)
{
	uint64_t hash = 0;
	unsigned count = 0;
	char members[256];

	to[0] = '\0';
	for (size_t i = 0; i < v->member_count; i++) {
		const struct catalog_db *db = db_of(c, v->members[i]);
		const struct table_node *n = db != NULL ? table_first(&db->ids) : NULL;

		for (; n != NULL; n = table_next(&db->ids, n)) {
			const struct catalog_relation *r =
			    CONTAINER_OF(n, const struct catalog_relation, by_id);

			if (r->kind != CATALOG_TABLE || is_said_of(v, r) ||
			    !members_with(c, v, i, r, members, sizeof(members)))
				continue;
			hash +=
			    hash_pair(r->name, strlen(r->name), members, strlen(members))
				.lo;
			if (count++ < NAMED_MAX)
				append(to, size, "%s%s.%s (%s)", count > 1 ? ", " : "",
				    r->schema, r->name, members);
		}
	}
	if (hash == *was || count == 0)
		to[0] = '\0';
	else if (count > NAMED_MAX)
		append(to, size, " and %u more", count - NAMED_MAX);
	if (to[0] != '\0')
		append(to, size,
		    ": several databases have them, and no route says which is meant; statements go to \"%s\"",
		    v->dflt->name);
	*was = hash;
}
