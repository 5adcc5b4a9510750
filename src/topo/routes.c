/*
 * topo/routes.c: which database a table lives in: [route x], [model x], and the look-up.
 *
 * The routes of a virtual database stand in order of strength: exact names first, then
 * patterns, each as written. An exact name is found by hash, together with sharded tables
 * (places); patterns are tried one after the other.
 */
#include "inner.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* What is said of an exact name: a route or a shard. */
struct place {
	struct table_node node;
	const char *schema, *table;
	const struct topo_route *route;
	const struct topo_shard *shard;
	struct conf_at at;
};

/* ---- [route x] ---- */

struct topo_route *
virtual_add_route(struct topo_virtual *v, const struct table_name *name,
    const struct topo_database *db, struct conf_at at)
{
	/* Behind the last exact one, or at the end. */
	size_t place = name->is_exact ? v->exact_count++ : v->route_count;

	v->routes = mem_realloc(v->routes, (v->route_count + 1) * sizeof(*v->routes));
	memmove(&v->routes[place + 1], &v->routes[place],
	    (v->route_count - place) * sizeof(*v->routes));
	v->route_count++;
	v->routes[place] = (struct topo_route){
	    .pattern = name->text,
	    .schema = name->schema,
	    .table = name->table,
	    .is_exact = name->is_exact,
	    .database = db,
	    .at = at,
	};
	return (&v->routes[place]);
}

/* The member of that name; NULL: said why not. */
static const struct topo_database *
read_member(const struct topo_virtual *v, const struct conf_key *k,
    struct conf_problems *problems)
{
	const struct topo_database *db = topo_member_find(v, k->value);
	struct name_list names = {0};
	char *sentence;

	if (db != NULL)
		return (db);
	names_of(v->members, v->member_count, &names);
	sentence = name_unknown("member", k->value, &names);
	conf_problem(problems, k->at, "%s: %s", k->key, sentence);
	free(sentence);
	free(names.names);
	return (NULL);
}

/* "events, archive.* = analytics" */
static void
read_route(struct topo *t, struct topo_virtual *v, const struct conf_key *k,
    struct conf_problems *problems)
{
	const struct topo_database *db = read_member(v, k, problems);
	const char *at = k->key, *piece, *wrong;
	struct table_name name;
	size_t len;

	while (list_next(&at, &piece, &len)) {
		wrong = table_name_read(&t->strings, piece, len, &name);
		if (wrong != NULL)
			conf_problem(problems, k->at,
			    "%s: %s, allowed are table, schema.table and patterns with *",
			    name.text, wrong);
		else if (db != NULL)
			(void)virtual_add_route(v, &name, db, k->at);
	}
}

void
routes_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);
		struct topo_virtual *v = NULL;

		if (strcmp(s->kind, "route") == 0)
			v = section_virtual(t, s, problems);
		for (size_t k = 0; v != NULL && k < s->key_count; k++)
			read_route(t, v, &s->keys[k], problems);
	}
}

/* ---- [model x] ---- */

/* AnalyticsEvent -> analytics_event, HTTPRequest -> http_request. */
static char *
snake_case(const char *model)
{
	struct buf b = {0};
	char *text;

	for (const char *p = model; *p != '\0'; p++) {
		bool is_upper = isupper((unsigned char)*p),
		     begins =
			 p > model && is_upper && p[-1] != '_' &&
			 (!isupper((unsigned char)p[-1]) || islower((unsigned char)p[1]));

		buf_addf(&b, "%s%c", begins ? "_" : "", tolower((unsigned char)*p));
	}
	text = mem_strn((const char *)b.mem, b.len);
	buf_free(&b);
	return (text);
}

static void
add_model(struct topo_virtual *v, const struct conf_key *k, const struct table_name *name,
    const struct topo_database *db)
{
	v->models = mem_realloc(v->models, (v->model_count + 1) * sizeof(*v->models));
	v->models[v->model_count++] = (struct topo_model){
	    .model = k->key,
	    .table = name->text,
	    .schema = name->schema,
	    .name = name->table,
	    .database = db,
	    .at = k->at,
	};
}

/* A database makes a route of the table, unless there is the same one. */
static void
route_model(struct topo_virtual *v, const struct table_name *name,
    const struct topo_database *db, struct conf_at at)
{
	for (size_t i = 0; i < v->exact_count; i++) {
		const struct topo_route *r = &v->routes[i];

		if (strcmp(r->table, name->table) == 0 && r->database == db &&
		    strcmp(schema_or_public(r->schema), schema_or_public(name->schema)) ==
			0)
			return;
	}
	(void)virtual_add_route(v, name, db, at);
}

static void
read_model(struct topo *t, struct topo_virtual *v, const struct conf_key *k,
    struct conf_problems *problems)
{
	const struct topo_database *db = topo_member_find(v, k->value);
	struct table_name name;
	const char *wrong;

	for (size_t i = 0; i < v->model_count; i++) {
		if (strcmp(v->models[i].model, k->key) == 0) {
			conf_problem(problems, k->at,
			    "%s: this model is already given at %s:%d", k->key,
			    v->models[i].at.file, v->models[i].at.line);
			return;
		}
	}
	if (db == NULL && topo_database_node(t, k->value) != NULL) {
		(void)read_member(v, k, problems);
		return;
	}
	if (db != NULL) {
		const char *table = topo_keep(t, snake_case(k->key));

		name =
		    (struct table_name){.text = table, .table = table, .is_exact = true};
		add_model(v, k, &name, db);
		route_model(v, &name, db, k->at);
		return;
	}
	wrong = table_name_read(&t->strings, k->value, strlen(k->value), &name);
	if (wrong == NULL && !name.is_exact)
		wrong = "is a pattern";
	if (wrong != NULL)
		conf_problem(problems, k->at,
		    "%s: \"%s\" %s, allowed are a table, schema.table and a member",
		    k->key, k->value, wrong);
	else
		add_model(v, k, &name, NULL);
}

void
models_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);
		struct topo_virtual *v = NULL;

		if (strcmp(s->kind, "model") == 0)
			v = section_virtual(t, s, problems);
		for (size_t k = 0; v != NULL && k < s->key_count; k++)
			read_model(t, v, &s->keys[k], problems);
	}
}

/* ---- places ---- */

struct place_key {
	const char *schema, *table;
};

static bool
same_place(const struct table_node *node, const void *arg)
{
	const struct place *p = CONTAINER_OF(node, const struct place, node);
	const struct place_key *key = arg;

	return (strcmp(p->table, key->table) == 0 && strcmp(p->schema, key->schema) == 0);
}

static uint64_t
place_hash(const struct place_key *key)
{
	return (hash_bytes(key->table, strlen(key->table)));
}

static const struct place *
place_find(const struct topo_virtual *v, const char *schema, const char *table)
{
	struct place_key key = {schema_or_public(schema), table};
	struct table_node *n = table_find(&v->places, place_hash(&key), same_place, &key);

	return (n != NULL ? CONTAINER_OF(n, struct place, node) : NULL);
}

/* One thing may be said of a table. */
static void
place_add(struct topo_virtual *v, const char *text, const struct place *new,
    struct conf_problems *problems)
{
	const struct place *was = place_find(v, new->schema, new->table);
	struct place_key key = {new->schema, new->table};
	struct place *p;

	if (was != NULL) {
		bool is_same = (was->shard == NULL) == (new->shard == NULL);

		conf_problem(problems, new->at,
		    is_same
			? "%s: this table is already given at %s:%d"
			: "%s: this table has a route at %s:%d, allowed is a route or "
			  "a shard",
		    text, was->at.file, was->at.line);
		return;
	}
	p = mem_dup(new, sizeof(*new));
	table_add(&v->places, &p->node, place_hash(&key));
}

const struct topo_route *
virtual_covering(const struct topo_virtual *v, const struct topo_route *r)
{
	for (const struct topo_route *other = v->routes + v->exact_count; other < r;
	     other++) {
		if (pattern_covers(
			schema_or_public(other->schema), schema_or_public(r->schema)) &&
		    pattern_covers(other->table, r->table))
			return (other);
	}
	return (NULL);
}

static void
check_patterns(struct topo *t, struct topo_virtual *v, struct conf_problems *problems)
{
	for (size_t i = v->exact_count; i < v->route_count; i++) {
		struct topo_route *r = &v->routes[i];
		const struct topo_route *other = virtual_covering(v, r);

		if (other == NULL)
			continue;
		r->warning = topo_keep(
		    t, mem_printf("never reached: %s at %s:%d matches all of it first",
			   other->pattern, other->at.file, other->at.line));
		conf_warning(problems, r->at, "%s: %s", r->pattern, r->warning);
	}
}

void
virtual_places_read(
    struct topo_virtual *v, struct strings *keep, struct conf_problems *problems)
{
	for (size_t i = 0; i < v->exact_count; i++) {
		const struct topo_route *r = &v->routes[i];

		place_add(v, r->pattern,
		    &(struct place){.schema = schema_or_public(r->schema),
			.table = r->table,
			.route = r,
			.at = r->at},
		    problems);
	}
	for (size_t i = 0; i < v->shard_count; i++) {
		const struct topo_shard *s = &v->shards[i];

		for (size_t k = 0; k < s->table_count; k++) {
			struct table_name name;

			/* They were read before, with an eye to mistakes. */
			if (table_name_read(
				keep, s->tables[k], strlen(s->tables[k]), &name) != NULL)
				continue;
			place_add(v, s->tables[k],
			    &(struct place){.schema = schema_or_public(name.schema),
				.table = name.table,
				.shard = s,
				.at = s->at},
			    problems);
		}
	}
}

void
places_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < t->virtual_count; i++) {
		virtual_places_read(&t->virtuals[i]->v, &t->strings, problems);
		check_patterns(t, &t->virtuals[i]->v, problems);
	}
}

void
virtual_places_free(struct topo_virtual *v)
{
	struct table *places = &v->places;
	struct table_node *n;

	while ((n = table_first(places)) != NULL) {
		table_remove(places, n);
		free(CONTAINER_OF(n, struct place, node));
	}
	table_free(places);
}

void
virtual_free(struct virtual_node *n)
{
	struct topo_virtual *v = &n->v;

	virtual_places_free(v);
	for (size_t i = 0; i < v->shard_count; i++) {
		free(v->shards[i].tables);
		free(v->shards[i].members);
		free(v->shards[i].spans);
	}
	free(v->members);
	free(v->read_from);
	free(v->routes);
	free(v->shards);
	free(v->models);
	free(n);
}

/* ---- finding ---- */

const struct topo_route *
topo_route_find(const struct topo_virtual *v, const char *schema, const char *table)
{
	const struct place *p = place_find(v, schema, table);

	if (p != NULL)
		return (p->route);
	for (size_t i = v->exact_count; i < v->route_count; i++) {
		const struct topo_route *r = &v->routes[i];

		if (pattern_matches(
			schema_or_public(r->schema), schema_or_public(schema)) &&
		    pattern_matches(r->table, table))
			return (r);
	}
	return (NULL);
}

const struct topo_shard *
topo_shard_find(const struct topo_virtual *v, const char *schema, const char *table)
{
	const struct place *p = place_find(v, schema, table);

	return (p != NULL ? p->shard : NULL);
}

const struct topo_database *
topo_model_database(const struct topo_virtual *v, const struct topo_model *m)
{
	const struct topo_route *r;

	if (m->database != NULL)
		return (m->database);
	if (topo_shard_find(v, m->schema, m->name) != NULL)
		return (NULL);
	r = topo_route_find(v, m->schema, m->name);
	return (r != NULL ? r->database : v->dflt);
}
