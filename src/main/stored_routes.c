/*
 * The routes of the state store, in the main thread: read at the start, put into every snapshot
 * that becomes the world, and kept in step with what the console changes here and other
 * processes in the same store.
 *
 *   console --mail--> here --> store --mail--> here: list, new world --mail--> console
 */
#include "main.h"
#include "store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Owns its texts. */
struct list {
	struct topo_route_text *routes;
	size_t count;
};

static struct list list;  /* what every world gets */
static struct list fresh; /* being read again */

/* ---- lists ---- */

static void
list_add(struct list *l, const struct topo_route_text *r)
{
	l->routes = mem_realloc(l->routes, (l->count + 1) * sizeof(*l->routes));
	l->routes[l->count++] = (struct topo_route_text){
	    .virtual_ = mem_str(r->virtual_),
	    .pattern = mem_str(r->pattern),
	    .database = mem_str(r->database != NULL ? r->database : ""),
	};
}

static void
route_free(struct topo_route_text *r)
{
	free((void *)(uintptr_t)r->virtual_);
	free((void *)(uintptr_t)r->pattern);
	free((void *)(uintptr_t)r->database);
}

static void
list_free(struct list *l)
{
	for (size_t i = 0; i < l->count; i++)
		route_free(&l->routes[i]);
	free(l->routes);
	*l = (struct list){0};
}

static bool
same_route(const struct topo_route_text *a, const struct topo_route_text *b)
{
	return (
	    strcmp(a->virtual_, b->virtual_) == 0 && strcmp(a->pattern, b->pattern) == 0);
}

static void
list_remove(struct list *l, const struct topo_route_text *r)
{
	for (size_t i = 0; i < l->count; i++) {
		if (!same_route(&l->routes[i], r))
			continue;
		route_free(&l->routes[i]);
		l->count--;
		memmove(&l->routes[i], &l->routes[i + 1],
		    (l->count - i) * sizeof(*l->routes));
		return;
	}
}

static bool
list_same(const struct list *a, const struct list *b)
{
	if (a->count != b->count)
		return (false);
	for (size_t i = 0; i < a->count; i++)
		if (!same_route(&a->routes[i], &b->routes[i]) ||
		    strcmp(a->routes[i].database, b->routes[i].database) != 0)
			return (false);
	return (true);
}

/* ---- worlds ---- */

const struct topo *
stored_routes_apply(const struct topo *topo)
{
	const struct topo *with;

	if (list.count == 0)
		return (topo);
	with = topo_with_routes(topo, list.routes, list.count);
	topo_release(topo);
	return (with);
}

static void
publish(void)
{
	world_replace(topo_with_routes(world_current(), list.routes, list.count));
}

/* ---- what others write ---- */

static void
each_route(void *arg, const struct topo_route_text *r)
{
	list_add(arg, r);
}

static void
loaded(struct worker *w, void *arg, int fault, const char *why)
{
	(void)w;
	(void)arg;
	/* Who reads the keys at the same time says what is wrong. */
	(void)why;
	if (fault == 0 && !list_same(&list, &fresh)) {
		list_free(&list);
		list = fresh;
		fresh = (struct list){0};
		log_info("routes of the state store were read again: %zu", list.count);
		publish();
	}
	list_free(&fresh);
}

void
stored_routes_read(struct worker *w)
{
	store_routes_load(w, each_route, loaded, &fresh);
}

/* ---- what the console asks ---- */

struct asked {
	struct list routes;
	bool drops;
	admin_host_done *done;
	void *arg;
};

static void
asked_end(struct worker *w, void *arg, int fault, const char *why)
{
	struct asked *a = arg;

	(void)w;
	for (size_t i = 0; fault == 0 && i < a->routes.count; i++) {
		/* It may have been read again meanwhile. */
		list_remove(&list, &a->routes.routes[i]);
		if (!a->drops)
			list_add(&list, &a->routes.routes[i]);
	}
	if (fault == 0)
		publish();
	a->done(a->arg, fault, why);
	list_free(&a->routes);
	free(a);
}

/* As it is to be, or stands, in the store; or a fault and why. */
static int
route_find(const struct topo_route_text *text, bool drops, struct list *out, char *why,
    size_t why_len)
{
	struct topo_route_text found = *text;
	const struct topo_route *r = NULL;
	int fault = drops ? topo_route_stored(world_current(), text, &r, why, why_len)
			  : topo_route_check(world_current(), text, why, why_len);

	if (fault != 0)
		return (fault);
	if (r != NULL)
		found.pattern = r->pattern;
	for (size_t i = 0; i < out->count; i++) {
		if (!same_route(&out->routes[i], &found))
			continue;
		snprintf(why, why_len, "\"%.200s\" stands there twice", text->pattern);
		return (F_EXISTS);
	}
	list_add(out, &found);
	return (0);
}

void
stored_routes_change(const struct topo_route_text *texts, size_t count, bool drops,
    admin_host_done *done, void *arg)
{
	struct asked *a = mem_alloc(sizeof(*a));
	char why[512] = "";
	int fault = 0;

	a->drops = drops;
	a->done = done;
	a->arg = arg;
	for (size_t i = 0; i < count && fault == 0; i++)
		fault = route_find(&texts[i], drops, &a->routes, why, sizeof(why));
	if (fault != 0) {
		done(arg, fault, why);
		list_free(&a->routes);
		free(a);
	} else if (drops) {
		store_routes_delete(
		    net_main(), a->routes.routes, a->routes.count, asked_end, a);
	} else {
		store_routes_put(
		    net_main(), a->routes.routes, a->routes.count, asked_end, a);
	}
}

/* ---- start and stop ---- */

void
stored_routes_start(void)
{
	char why[512];

	/* When it cannot be opened, that has been said, and it is tried again every second. */
	if (store_routes_wait(each_route, &list, why, sizeof(why)) != 0)
		log_warning("the routes of the state store are missing");
}

void
stored_routes_free(void)
{
	list_free(&list);
	list_free(&fresh);
}
