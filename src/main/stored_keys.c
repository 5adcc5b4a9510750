/*
 * The keys of the state store, in the main thread: they are read at the start, put into every
 * snapshot that becomes the world, and kept in step: with what the console makes, rotates and
 * revokes here, with what other processes (`pgweave key …`) write to the same store, and with
 * the clock: what a key had before is forgotten, and a key that expires ends its sessions.
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
static bool has_news;     /* came while it was being looked at */
static int64_t looked_us; /* wall clock: all that ended before is known */

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
texts_free(struct topo_key_text *k)
{
	for (size_t i = 0; i < TEXTS; i++)
		free((void *)(uintptr_t)texts_of(k)[i]);
}

static void
ring_free(struct ring *r)
{
	for (size_t k = 0; k < r->count; k++)
		texts_free(&r->keys[k]);
	free(r->keys);
	*r = (struct ring){0};
}

/* In place of the one of its id, or behind all others. */
static void
ring_put(struct ring *r, const struct topo_key_text *key)
{
	struct topo_key_text *last;

	ring_add(r, key);
	last = &r->keys[r->count - 1];
	for (struct topo_key_text *k = r->keys; k < last; k++) {
		if (strcmp(k->id, key->id) != 0)
			continue;
		texts_free(k);
		*k = *last;
		r->count--;
		return;
	}
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

static void stored_news(struct worker *);

static void
each_ring(void *arg, const struct topo_key_text *k)
{
	ring_add(arg, k);
}

/* What has come meanwhile is looked at at once. */
static void
look_ended(struct worker *w)
{
	is_looking = false;
	if (has_news)
		stored_news(w);
}

static void
loaded(struct worker *w, void *arg, int fault, const char *why)
{
	(void)arg;
	/* Tried again every second: said once. */
	if (fault != 0 && !is_failing)
		log_warning("%s; the keys read before stay in force", why);
	is_failing = fault != 0;
	if (fault == 0 && !ring_same(&ring, &fresh)) {
		ring_free(&ring);
		ring = fresh;
		fresh = (struct ring){0};
		log_info("keys of the state store were read again: %zu", ring.count);
		publish();
	}
	ring_free(&fresh);
	look_ended(w);
}

/* The routes behind the keys: what is written in between is looked at once more. */
static void
read_again(struct worker *w)
{
	store_keys_load(w, each_ring, loaded, &fresh);
	stored_routes_read(w);
}

static void
looked(struct worker *w, void *arg, bool has_changed)
{
	(void)arg;
	if (has_changed)
		read_again(w);
	else
		look_ended(w);
}

/* Of a store that is shared: others have told that they changed something. */
static void
stored_news(struct worker *w)
{
	has_news = is_looking;
	if (is_looking || look_event == NULL)
		return;
	is_looking = true;
	store_look(w, looked, NULL);
}

/* ---- what the clock ends ---- */

/* What a key had before is forgotten in the store, and then here. */
static void
forgotten(struct worker *w, void *arg, int fault, const char *why)
{
	if (fault != 0)
		loaded(w, arg, fault, why);
	else
		read_again(w);
}

static bool
has_any_to_forget(const struct topo *topo, int64_t now_us)
{
	for (size_t i = 0; i < topo_key_count(topo); i++) {
		const struct topo_key *k = topo_key(topo, i);

		if (k->former_secret != NULL && topo_key_former(k, now_us) == NULL)
			return (true);
	}
	return (false);
}

static bool
has_ended(const struct topo_key *k, int64_t from_us, int64_t to_us)
{
	return (k != NULL && k->expires_us > from_us && k->expires_us <= to_us);
}

/* Sessions look at their rules when there is a new world. */
static bool
has_any_expired(const struct topo *topo, int64_t from_us, int64_t to_us)
{
	for (size_t i = 0; i < topo_key_count(topo); i++)
		if (has_ended(topo_key(topo, i), from_us, to_us))
			return (true);
	for (size_t i = 0; i < topo_login_count(topo); i++)
		if (has_ended(topo_login(topo, i)->rules, from_us, to_us))
			return (true);
	return (false);
}

static void
look(evutil_socket_t fd, short what, void *arg)
{
	int64_t now_us = clock_wall_us(), was_us = looked_us;

	(void)fd;
	(void)what;
	(void)arg;
	looked_us = now_us;
	if (has_any_expired(world_current(), was_us, now_us))
		publish();
	if (is_looking)
		return;
	is_looking = true;
	if (has_any_to_forget(world_current(), now_us))
		store_keys_forget(net_main(), forgotten, &fresh);
	else
		store_look(net_main(), looked, NULL);
}

/* ---- what the console asks ---- */

struct asked {
	struct ring key;     /* as it is to be, or has become */
	struct admin_key *k; /* the new secret; NULL: it is not rotated */
	admin_host_done *done;
	void *arg;
};

static struct asked *
asked_create(admin_host_done *done, void *arg)
{
	struct asked *a = mem_alloc(sizeof(*a));

	a->done = done;
	a->arg = arg;
	return (a);
}

static void
each_asked(void *arg, const struct topo_key_text *k)
{
	ring_add(&((struct asked *)arg)->key, k);
}

/* The key is in force, and what was asked is answered. */
static void
asked_end(struct worker *w, void *arg, int fault, const char *why)
{
	struct asked *a = arg;

	(void)w;
	if (fault == 0) {
		INVARIANT(a->key.count == 1);
		ring_put(&ring, &a->key.keys[0]);
		if (a->k != NULL)
			(void)text_copy(a->k->id, sizeof(a->k->id), a->key.keys[0].id);
		publish();
	}
	a->done(a->arg, fault, why);
	ring_free(&a->key);
	free(a);
}

/* A key of the file is changed there; true: that has been said. */
static bool
is_of_file(const char *word, admin_host_done *done, void *arg)
{
	const struct topo_key *k = topo_key_of_file(world_current(), word);
	char why[512];

	if (k == NULL)
		return (false);
	snprintf(why, sizeof(why), "key \"%s\" stands in the configuration file, %s:%d",
	    word, k->at.file, k->at.line);
	done(arg, F_CONF, why);
	return (true);
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
	if (key->name != NULL && topo_key_of_file(world_current(), key->name) != NULL) {
		snprintf(
		    why, sizeof(why), "there is a key \"%.500s\" already", key->name);
		done(arg, F_EXISTS, why);
		return;
	}
	a = asked_create(done, arg);
	ring_add(&a->key, key);
	store_key_put(net_main(), key, asked_end, a);
}

void
stored_keys_revoke(const char *id_or_name, admin_host_done *done, void *arg)
{
	if (!is_of_file(id_or_name, done, arg))
		store_key_revoke(net_main(), id_or_name, each_asked, asked_end,
		    asked_create(done, arg));
}

void
stored_keys_rotate(const char *id_or_name, int64_t overlap_us, struct admin_key *k,
    admin_host_done *done, void *arg)
{
	struct store_rotation rotation = {
	    .verifier = admin_key_verifier, .arg = k, .overlap_us = overlap_us};
	struct asked *a;

	if (is_of_file(id_or_name, done, arg))
		return;
	a = asked_create(done, arg);
	a->k = k;
	store_key_rotate(net_main(), id_or_name, &rotation, each_asked, asked_end, a);
}

/* ---- start and stop ---- */

void
stored_keys_start(const struct topo *topo)
{
	struct timeval every = {.tv_sec = LOOK_EVERY_S};
	char why[512] = "";

	looked_us = clock_wall_us();
	if (store_start(topo, topo_settings(topo), topo_store_database(topo), why,
		sizeof(why)) != 0)
		log_warning("%s; keys and jobs that stand there are missing", why);
	else if (store_keys_wait(each_ring, &ring, why, sizeof(why)) != 0)
		log_warning("%s; its keys are missing", why);
	if (store_is_shared())
		store_on_change(net_main(), stored_news);
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
