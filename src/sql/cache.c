/*
 * Facts by digest, kept as long as they are used: the least recently used go when there are
 * more bytes than allowed. Facts that somebody holds live on outside of the cache.
 *
 *     digest -> entry (its text, facts): newest <-> … <-> oldest
 *
 * A text like that of an entry finds it without a digest, when it was used lately:
 *
 *     prefix -> recent[] -> entry's pattern
 *
 * An entry has its facts twice, sharing all that they point to: for the text that they were
 * found in, and, without is_exact, for others of the digest.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

struct entry {
	struct table_node node;
	struct entry *newer, *older;
	struct hash128 key;
	atomic_uint refs; /* the cache's, current's, and holds */
	uint32_t len;
	char *text; /* owned */
	struct sql_pattern pattern;
	bool has_pattern;
	size_t bytes;
	struct sql_arena arena;
	struct sql_facts exact, loose;
	_Alignas(8) uint8_t note[SQL_NOTE_BYTES];
};

/* Entries whose texts begin alike, the latest first. */
#define RECENT_SETS 256
#define RECENT_WAYS 4
struct recent {
	struct entry *at[RECENT_WAYS];
};

struct sql_cache {
	struct table table;
	struct entry *newest, *oldest;
	struct entry *current; /* what was answered last; a reference */
	struct recent recent[RECENT_SETS];
	size_t room;
	struct sql_cache_stats stats;
};

static void
unref(struct entry *e)
{
	if (e == NULL || atomic_fetch_sub(&e->refs, 1) != 1)
		return;
	sql_arena_free(&e->arena);
	sql_pattern_free(&e->pattern);
	free(e->text);
	free(e);
}

static struct entry *
entry_of(const struct sql_facts *facts)
{
	const char *p = (const char *)facts;

	p -= facts->is_exact ? offsetof(struct entry, exact)
			     : offsetof(struct entry, loose);
	return ((struct entry *)(uintptr_t)p);
}

/* ---- the list ---- */

static void
list_add(struct sql_cache *c, struct entry *e)
{
	e->newer = NULL;
	e->older = c->newest;
	if (c->newest != NULL)
		c->newest->newer = e;
	else
		c->oldest = e;
	c->newest = e;
}

static void
list_remove(struct sql_cache *c, struct entry *e)
{
	if (e->newer != NULL)
		e->newer->older = e->older;
	else
		c->newest = e->older;
	if (e->older != NULL)
		e->older->newer = e->newer;
	else
		c->oldest = e->newer;
}

/* ---- recent ones ---- */

static struct recent *
recent_of(struct sql_cache *c, uint32_t prefix)
{
	return (&c->recent[prefix % RECENT_SETS]);
}

/* Puts it in front of those that begin alike. */
static void
recent_add(struct sql_cache *c, struct entry *e)
{
	struct recent *r = recent_of(c, e->pattern.prefix);
	struct entry *moved = e;

	if (!e->has_pattern)
		return;
	for (unsigned i = 0; i < RECENT_WAYS && moved != NULL; i++) {
		struct entry *was = r->at[i];

		r->at[i] = moved;
		moved = was == e ? NULL : was;
	}
}

static void
recent_remove(struct sql_cache *c, const struct entry *e)
{
	struct recent *r = recent_of(c, e->pattern.prefix);

	for (unsigned i = 0; i < RECENT_WAYS; i++)
		if (r->at[i] == e)
			r->at[i] = NULL;
}

static void
forget(struct sql_cache *c, struct entry *e)
{
	recent_remove(c, e);
	e->has_pattern = false;
	list_remove(c, e);
	table_remove(&c->table, &e->node);
	c->stats.bytes -= e->bytes;
	c->stats.entries--;
	unref(e);
}

/* ---- entries ---- */

static bool
is_same(const struct table_node *node, const void *key)
{
	const struct entry *e = CONTAINER_OF(node, const struct entry, node);
	const struct hash128 *want = key;

	return (e->key.hi == want->hi && e->key.lo == want->lo);
}

/* A new entry, with one reference. */
static struct entry *
make(const struct sql_scan *scan, const struct hash128 *key)
{
	struct entry *e = mem_alloc(sizeof(*e));

	e->key = *key;
	e->refs = 1;
	sql_facts_find(scan, &e->arena, &e->exact);
	e->loose = e->exact;
	e->exact.is_exact = true;
	e->bytes = sizeof(*e) + e->arena.bytes;
	return (e);
}

/* Takes a reference of its own. The text is kept to know it again. */
static void
remember(struct sql_cache *c, struct entry *e, const struct sql_scan *scan)
{
	e->len = (uint32_t)scan->len;
	e->text = mem_strn(scan->sql, scan->len);
	e->has_pattern =
	    e->exact.class != SQL_UNKNOWN && sql_pattern_make(scan, &e->pattern);
	e->bytes += scan->len + sql_pattern_bytes(&e->pattern);
	atomic_fetch_add(&e->refs, 1);
	table_add(&c->table, &e->node, e->key.lo);
	list_add(c, e);
	recent_add(c, e);
	c->stats.bytes += e->bytes;
	c->stats.entries++;
	while (c->stats.bytes > c->room) {
		c->stats.evictions++;
		forget(c, c->oldest);
	}
}

struct sql_cache *
sql_cache_create(size_t bytes)
{
	struct sql_cache *c = mem_alloc(sizeof(*c));

	c->room = bytes;
	return (c);
}

void
sql_cache_destroy(struct sql_cache *c)
{
	if (c == NULL)
		return;
	while (c->oldest != NULL)
		forget(c, c->oldest);
	unref(c->current);
	table_free(&c->table);
	free(c);
}

/* Makes the entry, with a reference to it, the one that was answered last. */
static void
set_current(struct sql_cache *c, struct entry *e)
{
	unref(c->current);
	c->current = e;
}

static struct entry *
find(struct sql_cache *c, const struct hash128 *key)
{
	struct table_node *node = table_find(&c->table, key->lo, is_same, key);
	struct entry *e;

	if (node == NULL)
		return (NULL);
	e = CONTAINER_OF(node, struct entry, node);
	if (e != c->newest) {
		list_remove(c, e);
		list_add(c, e);
	}
	return (e);
}

static void
used(struct sql_cache *c, struct entry *e)
{
	c->stats.hits++;
	if (e == c->current)
		return;
	atomic_fetch_add(&e->refs, 1);
	set_current(c, e);
}

/* The same text again, or one that differs in literals. */
static const struct sql_facts *
answer(struct sql_cache *c, struct entry *e, const struct sql_scan *scan)
{
	bool is_exact = e->len == scan->len && memcmp(e->text, scan->sql, e->len) == 0;

	used(c, e);
	return (is_exact ? &e->exact : &e->loose);
}

/* An entry whose text is like that one; out may be NULL. */
static struct entry *
recall(struct sql_cache *c, const char *text, size_t len, struct sql_scan *out)
{
	struct entry *e = c->current;
	const struct recent *r;

	/* The same client, or another one of its program, often says the same again. */
	if (e != NULL && e->has_pattern &&
	    sql_pattern_matches(&e->pattern, e->text, e->len, text, len, out))
		return (e);
	r = recent_of(c, sql_pattern_prefix(text, len));
	for (unsigned i = 0; i < RECENT_WAYS; i++) {
		e = r->at[i];
		if (e == NULL ||
		    !sql_pattern_matches(&e->pattern, e->text, e->len, text, len, out))
			continue;
		if (e != c->newest) {
			list_remove(c, e);
			list_add(c, e);
		}
		return (e);
	}
	return (NULL);
}

const struct sql_facts *
sql_facts_recall(struct sql_cache *c, const char *text, size_t len, struct sql_scan *out)
{
	struct entry *e = recall(c, text, len, out);

	if (e == NULL)
		return (NULL);
	out->digest = e->key;
	return (answer(c, e, out));
}

const struct sql_facts *
sql_facts_known(struct sql_cache *c, const char *text, size_t len)
{
	struct entry *e = recall(c, text, len, NULL);

	if (e == NULL)
		return (NULL);
	used(c, e);
	return (&e->loose);
}

const struct sql_facts *
sql_facts_get(struct sql_cache *c, const struct sql_scan *scan)
{
	bool is_kept = !scan->is_cut && !scan->is_too_much;
	struct hash128 key =
	    scan->wants_values ? hash_pair(scan->sql, scan->len, "", 0) : scan->digest;
	struct entry *e = is_kept ? find(c, &key) : NULL;

	if (e != NULL) {
		c->stats.unknown += e->exact.class == SQL_UNKNOWN;
		recent_add(c, e);
		return (answer(c, e, scan));
	}
	c->stats.misses++;
	e = make(scan, &key);
	c->stats.unknown += e->exact.class == SQL_UNKNOWN;
	set_current(c, e);
	if (is_kept)
		remember(c, e, scan);
	return (&e->exact);
}

void *
sql_facts_note(const struct sql_facts *facts)
{
	return (entry_of(facts)->note);
}

const struct sql_facts *
sql_facts_hold(const struct sql_facts *facts)
{
	atomic_fetch_add(&entry_of(facts)->refs, 1);
	return (facts);
}

void
sql_facts_release(const struct sql_facts *facts)
{
	if (facts != NULL)
		unref(entry_of(facts));
}

void
sql_cache_stats(const struct sql_cache *c, struct sql_cache_stats *out)
{
	*out = c->stats;
}
