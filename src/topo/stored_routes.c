/*
 * topo/stored_routes.c: routes made at run time. A snapshot with such routes has virtual
 * databases of its own, copies of those of the file with more routes behind the others (of
 * exact names, behind the exact ones; of patterns, last).
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

/* ---- sets ---- */

struct route_set *
route_set_hold(struct route_set *set)
{
	if (set != NULL)
		(void)atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
	return (set);
}

void
route_set_release(struct route_set *set)
{
	if (set == NULL ||
	    atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < set->count; i++) {
		virtual_places_free(&set->virtuals[i]->v);
		free(set->virtuals[i]->v.routes);
		free(set->virtuals[i]);
	}
	free(set->virtuals);
	table_free(&set->by_virtual);
	strings_free(&set->strings);
	free(set);
}

/* All else of the copies is the root's. */
static struct route_set *
route_set_create(const struct topo *root)
{
	struct route_set *set = mem_alloc(sizeof(*set));

	set->refs = 1;
	set->virtuals = mem_alloc((root->virtual_count + 1) * sizeof(*set->virtuals));
	for (size_t i = 0; i < root->virtual_count; i++) {
		const struct topo_virtual *from = &root->virtuals[i]->v;
		struct virtual_node *n = mem_alloc(sizeof(*n));

		n->v = *from;
		n->v.places = (struct table){0};
		n->v.routes = NULL;
		if (from->route_count > 0)
			n->v.routes = mem_dup(
			    from->routes, from->route_count * sizeof(*from->routes));
		table_add(&set->by_virtual, &n->node,
		    hash_bytes(from->name, strlen(from->name)));
		set->virtuals[set->count++] = n;
	}
	return (set);
}

void
route_set_use(struct topo *t)
{
	const struct topo *root = t->base;
	const struct route_set *set = t->store_routes;

	t->virtuals = set != NULL ? set->virtuals : root->virtuals;
	t->by_virtual = set != NULL ? set->by_virtual : root->by_virtual;
	INVARIANT(set == NULL || set->count == t->virtual_count);
}

/* ---- what is said of a table ---- */

static bool
is_of(const struct topo_route *r, const struct table_name *name)
{
	return (r->is_exact == name->is_exact && strcmp(r->table, name->table) == 0 &&
		strcmp(schema_or_public(r->schema), schema_or_public(name->schema)) == 0);
}

static const struct topo_route *
route_of(const struct topo_virtual *v, const struct table_name *name)
{
	for (size_t i = 0; i < v->route_count; i++)
		if (is_of(&v->routes[i], name))
			return (&v->routes[i]);
	return (NULL);
}

/* Whether it is a name of a table, or a pattern: 0, or F_CONF_VALUE and why. */
static int
pattern_read(struct strings *keep, const char *pattern, struct table_name *name,
    char *why, size_t why_len)
{
	const char *wrong = table_name_read(keep, pattern, strlen(pattern), name);

	if (wrong == NULL)
		return (0);
	snprintf(why, why_len,
	    "\"%.200s\" %s, allowed are table, schema.table and patterns with *", pattern,
	    wrong);
	return (F_CONF_VALUE);
}

static int
unknown(const char *what, const char *name, struct name_list *allowed, char *why,
    size_t why_len)
{
	char *sentence = name_unknown(what, name, allowed);

	(void)text_copy(why, why_len, sentence);
	free(sentence);
	free(allowed->names);
	return (F_NOT_FOUND);
}

static int
virtual_of(const struct topo *t, const char *name, const struct topo_virtual **out,
    char *why, size_t why_len)
{
	struct name_list names = {0};

	*out = topo_virtual_find(t, name);
	if (*out != NULL)
		return (0);
	names_of_virtuals(t, &names);
	return (unknown("virtual database", name, &names, why, why_len));
}

static int
check_free(const struct topo *t, const struct topo_virtual *v,
    const struct table_name *name, char *why, size_t why_len)
{
	const struct topo *root = t->base != NULL ? t->base : t;
	const struct topo_route *r = route_of(v, name);
	const struct topo_shard *s = NULL;

	/* The places of the root are there also while those of a copy are not. */
	if (name->is_exact)
		s = topo_shard_find(
		    &topo_virtual_node(root, v->name)->v, name->schema, name->table);
	if (s != NULL)
		snprintf(why, why_len,
		    "the rows of \"%.200s\" are spread over shards at %s:%d: a table has a "
		    "route or a shard",
		    name->text, s->at.file, s->at.line);
	else if (r != NULL && r->is_stored)
		snprintf(why, why_len, "there is a route of \"%.200s\" already, to %s",
		    name->text, r->database->name);
	else if (r != NULL)
		snprintf(why, why_len,
		    "there is a route of \"%.200s\" already, to %s, at %s:%d", name->text,
		    r->database->name, r->at.file, r->at.line);
	return (s != NULL || r != NULL ? F_EXISTS : 0);
}

int
topo_route_check(
    const struct topo *t, const struct topo_route_text *text, char *why, size_t why_len)
{
	const struct topo_virtual *v;
	struct name_list names = {0};
	struct strings keep = {0};
	struct table_name name;
	int fault = virtual_of(t, text->virtual_, &v, why, why_len);

	if (fault != 0)
		return (fault);
	if (topo_member_find(v, text->database) == NULL) {
		names_of(v->members, v->member_count, &names);
		return (unknown("member", text->database, &names, why, why_len));
	}
	fault = pattern_read(&keep, text->pattern, &name, why, why_len);
	if (fault == 0)
		fault = check_free(t, v, &name, why, why_len);
	strings_free(&keep);
	return (fault);
}

int
topo_route_stored(const struct topo *t, const struct topo_route_text *text,
    const struct topo_route **out, char *why, size_t why_len)
{
	const struct topo_virtual *v;
	struct strings keep = {0};
	struct table_name name;
	int fault = virtual_of(t, text->virtual_, &v, why, why_len);

	if (fault == 0)
		fault = pattern_read(&keep, text->pattern, &name, why, why_len);
	if (fault == 0) {
		*out = route_of(v, &name);
		if (*out == NULL) {
			snprintf(why, why_len, "there is no route \"%.200s\" of %s",
			    text->pattern, v->name);
			fault = F_NOT_FOUND;
		} else if (!(*out)->is_stored) {
			snprintf(why, why_len,
			    "route \"%.200s\" stands in the configuration file, %s:%d",
			    text->pattern, (*out)->at.file, (*out)->at.line);
			fault = F_CONF;
		}
	}
	strings_free(&keep);
	return (fault);
}

/* ---- snapshots ---- */

/* It has been checked. */
static void
route_add(struct topo *t, const struct topo_route_text *text)
{
	struct route_set *set = t->store_routes;
	struct topo_virtual *v = &topo_virtual_node(t, text->virtual_)->v;
	struct table_name name;
	struct topo_route *r;

	INVARIANT(table_name_read(&set->strings, text->pattern, strlen(text->pattern),
		      &name) == NULL);
	r = virtual_add_route(v, &name, topo_member_find(v, text->database),
	    (struct conf_at){.file = NULL});
	r->is_stored = true;
}

/* Finds what the set's routes say of exact names, and those that say nothing. */
static void
route_set_finish(struct route_set *set)
{
	struct conf_problems none = {0};

	for (size_t i = 0; i < set->count; i++) {
		struct topo_virtual *v = &set->virtuals[i]->v;

		virtual_places_read(v, &set->strings, &none);
		for (size_t k = v->exact_count; k < v->route_count; k++) {
			struct topo_route *r = &v->routes[k];
			const struct topo_route *other = virtual_covering(v, r);

			if (r->is_stored && other != NULL)
				r->warning = strings_keep(&set->strings,
				    mem_printf(
					"never reached: %s matches all of it first",
					other->pattern));
		}
	}
	INVARIANT(none.count == 0);
	conf_problems_free(&none);
}

const struct topo *
topo_with_routes(
    const struct topo *base, const struct topo_route_text *texts, size_t count)
{
	struct topo *t = topo_copy(base);
	char why[512];

	topo_copied(t);
	route_set_release(t->store_routes);
	t->store_routes = count > 0 ? route_set_create(t->base) : NULL;
	route_set_use(t);
	for (size_t i = 0; i < count; i++) {
		if (topo_route_check(t, &texts[i], why, sizeof(why)) == 0)
			route_add(t, &texts[i]);
		else
			log_warning("route %s of the store is left out: %s",
			    texts[i].pattern, why);
	}
	if (t->store_routes != NULL)
		route_set_finish(t->store_routes);
	return (t);
}
