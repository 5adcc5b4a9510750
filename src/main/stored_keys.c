/*
 * The keys of the state store, in the main thread: they are read at the start, put into every
 * snapshot that becomes the world, and kept in step: with what the console makes and revokes
 * here, and with what other processes (`pgweave key …`) write to the same store.
 *
 *   console --mail--> here --> store --mail--> here: list, new world --mail--> console
 */
#include "main.h"
#include "store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY_S 1

#define TEXTS        (sizeof(struct topo_key_text) / sizeof(char *))

/* Owns its texts. */
struct ring {
	struct topo_key_text *keys;
	size_t count;
};

static struct ring ring;  /* what every world gets */
static struct ring fresh; /* being read again */
static struct event *look_event;
static bool is_looking, is_failing;

/* ---- lists of keys ---- */

static const char *const *
texts_of(const struct topo_key_text *k)
{
	return ((const char *const *)(const void *)k);
}

static void
ring_add(struct ring *r, const struct topo_key_text *k)
{
	const char **to;

	r->keys = mem_realloc(r->keys, (r->count + 1) * sizeof(*r->keys));
	to = (const char **)(void *)&r->keys[r->count++];
	for (size_t i = 0; i < TEXTS; i++)
		to[i] = texts_of(k)[i] != NULL ? mem_str(texts_of(k)[i]) : NULL;
}

static void
ring_free(struct ring *r)
{
	for (size_t k = 0; k < r->count; k++)
		for (size_t i = 0; i < TEXTS; i++)
			free((void *)(uintptr_t)texts_of(&r->keys[k])[i]);
	free(r->keys);
	*r = (struct ring){0};
}

static bool
same_text(const char *a, const char *b)
{
	return (strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0);
}

static bool
ring_same(const struct ring *a, const struct ring *b)
{
	if (a->count != b->count)
		return (false);
	for (size_t k = 0; k < a->count; k++)
		for (size_t i = 0; i < TEXTS; i++)
			if (!same_text(
				texts_of(&a->keys[k])[i], texts_of(&b->keys[k])[i]))
				return (false);
	return (true);
}

/* ---- worlds ---- */

const struct topo *
stored_keys_apply(const struct topo *topo)
{
	const struct topo *with;

	if (ring.count == 0)
		return (topo);
	with = topo_with_keys(topo, ring.keys, ring.count);
	topo_release(topo);
	return (with);
}

static void
publish(void)
{
	world_replace(topo_with_keys(world_current(), ring.keys, ring.count));
}

/* ---- what others write ---- */

static void
each_ring(void *arg, const struct topo_key_text *k)
{
	ring_add(arg, k);
}

static void
loaded(struct worker *w, void *arg, int fault, const char *why)
{
	(void)w;
	(void)arg;
	is_looking = false;
	/* Tried again every second: said once. */
	if (fault != 0 && !is_failing)
		log_warning("%s; the keys read before stay in force", why);
	is_failing = fault != 0;
	if (fault != 0) {
		ring_free(&fresh);
		return;
	}
	if (!ring_same(&ring, &fresh)) {
		ring_free(&ring);
		ring = fresh;
		fresh = (struct ring){0};
		log_info("keys of the state store were read again: %zu", ring.count);
		publish();
	}
	ring_free(&fresh);
}

static void
looked(struct worker *w, void *arg, bool has_changed)
{
	(void)arg;
	if (has_changed)
		store_keys_load(w, each_ring, loaded, &fresh);
	else
		is_looking = false;
}

static void
look(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	if (is_looking)
		return;
	is_looking = true;
	store_look(net_main(), looked, NULL);
}

/* ---- what the console asks ---- */

struct asked {
	struct ring key; /* the new one */
	char *id;        /* the one to be revoked */
	admin_host_done *done;
	void *arg;
};

static void
asked_end(struct asked *a, int fault, const char *why)
{
	a->done(a->arg, fault, why);
	ring_free(&a->key);
	free(a->id);
	free(a);
}

static void
created(struct worker *w, void *arg, int fault, const char *why)
{
	struct asked *a = arg;

	(void)w;
	if (fault == 0) {
		ring_add(&ring, &a->key.keys[0]);
		publish();
	}
	asked_end(a, fault, why);
}

void
stored_keys_create(const struct topo_key_text *key, admin_host_done *done, void *arg)
{
	struct asked *a;
	char why[1024];

	if (!topo_key_check(world_current(), key, why, sizeof(why))) {
		done(arg, F_CONF_VALUE, why);
		return;
	}
	a = mem_alloc(sizeof(*a));
	ring_add(&a->key, key);
	a->done = done;
	a->arg = arg;
	store_key_put(net_main(), key, created, a);
}

/* Until the store is read again it only matters that something stands there. */
static void
ring_revoke(const char *id)
{
	char now[40];

	admin_time_text(clock_wall_us(), now, sizeof(now));
	for (size_t i = 0; i < ring.count; i++)
		if (strcmp(ring.keys[i].id, id) == 0 && ring.keys[i].revoked == NULL)
			ring.keys[i].revoked = mem_str(now);
}

static void
revoked(struct worker *w, void *arg, int fault, const char *why)
{
	struct asked *a = arg;

	(void)w;
	if (fault == 0) {
		ring_revoke(a->id);
		publish();
	}
	asked_end(a, fault, why);
}

void
stored_keys_revoke(const char *id, admin_host_done *done, void *arg)
{
	const struct topo_key *k = topo_key_find(world_current(), id);
	struct asked *a;
	char why[512];

	if (k != NULL && k->is_from_file) {
		snprintf(why, sizeof(why),
		    "key \"%s\" stands in the configuration file, %s:%d", id, k->at.file,
		    k->at.line);
		done(arg, F_CONF, why);
		return;
	}
	a = mem_alloc(sizeof(*a));
	a->id = mem_str(id);
	a->done = done;
	a->arg = arg;
	store_key_revoke(net_main(), id, revoked, a);
}

/* ---- start and stop ---- */

void
stored_keys_start(const struct settings *set)
{
	struct timeval every = {.tv_sec = LOOK_EVERY_S};
	char why[512] = "";

	if (store_start(set, why, sizeof(why)) != 0)
		log_warning("%s; keys and jobs that stand there are missing", why);
	else if (store_keys_wait(each_ring, &ring, why, sizeof(why)) != 0)
		log_warning("%s; its keys are missing", why);
	look_event = event_new(net_main()->base, -1, EV_PERSIST, look, NULL);
	INVARIANT(look_event != NULL && event_add(look_event, &every) == 0);
}

void
stored_keys_stop(void)
{
	if (look_event != NULL)
		event_free(look_event);
	look_event = NULL;
	store_stop();
}

void
stored_keys_free(void)
{
	ring_free(&ring);
	ring_free(&fresh);
}
