/*
 * Snapshots of catalogs and the questions that are asked of them, by whatever thread holds one.
 * A relation is found by its name; those of one name in several schemas are a list.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

/* ---- one database ---- */

static bool
relation_named(const struct table_node *n, const void *name)
{
	const struct catalog_relation *r =
	    CONTAINER_OF(n, const struct catalog_relation, node);

	return (strcmp(r->name, name) == 0);
}

struct catalog_relation *
db_first_relation(const struct catalog_db *db, const char *name)
{
	struct table_node *n = table_find(
	    &db->relations, hash_bytes(name, strlen(name)), relation_named, name);

	return (n != NULL ? CONTAINER_OF(n, struct catalog_relation, node) : NULL);
}

static bool
relation_has_id(const struct table_node *n, const void *id)
{
	const struct catalog_relation *r =
	    CONTAINER_OF(n, const struct catalog_relation, by_id);

	return (r->id == *(const uint32_t *)id);
}

uint64_t
db_id_hash(uint32_t id)
{
	return (hash_bytes(&id, sizeof(id)));
}

struct catalog_relation *
db_relation_by_id(const struct catalog_db *db, uint32_t id)
{
	struct table_node *n = table_find(&db->ids, db_id_hash(id), relation_has_id, &id);

	return (n != NULL ? CONTAINER_OF(n, struct catalog_relation, by_id) : NULL);
}

static bool
function_named(const struct table_node *n, const void *name)
{
	return (strcmp(CONTAINER_OF(n, const struct function, node)->name, name) == 0);
}

struct function *
db_first_function(const struct catalog_db *db, const char *name)
{
	struct table_node *n = table_find(
	    &db->functions, hash_bytes(name, strlen(name)), function_named, name);

	return (n != NULL ? CONTAINER_OF(n, struct function, node) : NULL);
}

const struct catalog_relation *
catalog_relation(const struct catalog_db *db, const char *schema, const char *name)
{
	const struct catalog_relation *first, *r;

	if (db == NULL || (first = db_first_relation(db, name)) == NULL)
		return (NULL);
	if (schema == NULL && first->next == NULL)
		return (first);
	for (unsigned i = 0; schema == NULL && i < db->path_count; i++) {
		for (r = first; r != NULL; r = r->next)
			if (strcmp(r->schema, db->path[i]) == 0)
				return (r);
	}
	if (schema == NULL)
		return (first);
	for (r = first; r != NULL; r = r->next)
		if (strcmp(r->schema, schema) == 0)
			return (r);
	return (NULL);
}

const char *
catalog_column_at(
    const struct catalog_db *db, const char *schema, const char *table, unsigned i)
{
	const struct catalog_relation *r = NULL;
	const char *column = NULL;

	if (schema != NULL)
		r = catalog_relation(db, schema, table);
	else if (db != NULL)
		r = db_first_relation(db, table);
	for (; r != NULL; r = schema == NULL ? r->next : NULL) {
		if (i >= r->column_count ||
		    (column != NULL && strcmp(column, r->columns[i].name) != 0))
			return (NULL);
		column = r->columns[i].name;
	}
	return (column);
}

const struct catalog_column *
catalog_column(const struct catalog_relation *r, const char *name)
{
	for (unsigned i = 0; i < r->column_count; i++)
		if (strcmp(r->columns[i].name, name) == 0)
			return (&r->columns[i]);
	return (NULL);
}

enum catalog_volatility
catalog_volatility(const struct catalog_db *db, const char *schema, const char *function)
{
	enum catalog_volatility most = CATALOG_UNKNOWN;

	if (db == NULL)
		return (CATALOG_UNKNOWN);
	for (const struct function *f = db_first_function(db, function); f != NULL;
	     f = f->next)
		if ((schema == NULL || strcmp(f->schema, schema) == 0) &&
		    f->volatility > most)
			most = f->volatility;
	return (most);
}

bool
catalog_is_whole(const struct catalog_db *db)
{
	return (db != NULL && db->is_whole);
}

const char *
catalog_db_name(const struct catalog_db *db)
{
	return (db->name);
}

size_t
catalog_db_bytes(const struct catalog_db *db)
{
	return (db->bytes);
}

void
catalog_db_release(struct catalog_db *db)
{
	struct chunk *c, *next;

	if (db == NULL || atomic_fetch_sub(&db->references, 1) > 1)
		return;
	for (c = db->chunks; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	table_free(&db->relations);
	table_free(&db->ids);
	table_free(&db->functions);
	free(db->name);
	free(db);
}

/* ---- all of them ---- */

struct place {
	struct table_node node;
	struct catalog_db *db;
};

struct catalog {
	_Atomic unsigned references;
	uint64_t generation;
	struct table places;
	struct place *at;
	unsigned count;
	bool has_views;
};

static bool
place_named(const struct table_node *n, const void *name)
{
	return (strcmp(CONTAINER_OF(n, const struct place, node)->db->name, name) == 0);
}

const struct catalog_db *
catalog_db(const struct catalog *c, const char *database)
{
	struct table_node *n;

	if (c == NULL)
		return (NULL);
	n = table_find(
	    &c->places, hash_bytes(database, strlen(database)), place_named, database);
	return (n != NULL ? CONTAINER_OF(n, struct place, node)->db : NULL);
}

bool
catalog_has_views(const struct catalog *c)
{
	return (c != NULL && c->has_views);
}

uint64_t
catalog_generation(const struct catalog *c)
{
	return (c != NULL ? c->generation : 0);
}

unsigned
catalog_count(const struct catalog *c)
{
	return (c->count);
}

struct catalog_db *
catalog_at(const struct catalog *c, unsigned i)
{
	INVARIANT(i < c->count);
	return (c->at[i].db);
}

struct catalog *
catalog_make(struct catalog_db *const *dbs, size_t count)
{
	static _Atomic uint64_t generations;
	struct catalog *c = mem_alloc(sizeof(*c));

	atomic_init(&c->references, 1);
	c->generation = atomic_fetch_add(&generations, 1) + 1;
	c->count = (unsigned)count;
	c->at = mem_alloc(count * sizeof(*c->at) + 1);
	for (size_t i = 0; i < count; i++) {
		atomic_fetch_add(&dbs[i]->references, 1);
		c->at[i].db = dbs[i];
		c->has_views |= dbs[i]->view_count > 0;
		table_add(&c->places, &c->at[i].node,
		    hash_bytes(dbs[i]->name, strlen(dbs[i]->name)));
	}
	return (c);
}

void
catalog_hold(struct catalog *c)
{
	if (c != NULL)
		atomic_fetch_add(&c->references, 1);
}

void
catalog_release(struct catalog *c)
{
	if (c == NULL || atomic_fetch_sub(&c->references, 1) > 1)
		return;
	for (unsigned i = 0; i < c->count; i++)
		catalog_db_release(c->at[i].db);
	table_free(&c->places);
	free(c->at);
	free(c);
}

const struct catalog *
catalog_of(const struct worker *w)
{
	return (w->slot[WORKER_CATALOG]);
}
