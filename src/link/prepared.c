/*
 * Statements prepared on a link, in the order of their use. A statement is known by the hash
 * of its text and parameter types, and its name on the server is that hash: so every worker
 * has the same name for it, and a link that moves takes its statements along.
 */
#include "link.h"
#include <endian.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORN_USES 4 /* of a shared statement: it will be wanted again */

struct prepared_entry {
	struct table_node node;
	struct hash128 id;
	uint32_t batch;       /* of the Parse */
	unsigned age;         /* see ages */
	bool is_sure;         /* the server has confirmed it */
	uint64_t definitions; /* how many had been seen; 0: it is not to be trusted */
	uint32_t said;        /* of the link */
	uint32_t uses;        /* of one that is shared */
	int64_t made_us,
	    proven_us; /* the server has read the text; has looked at the plan */
	TAILQ_ENTRY(prepared_entry) lru;
};

/* A statement whose result has another form since it was prepared is refused by the server on
 * every link that has it, until it is prepared anew. One that learns it tells the others: what
 * was prepared at another age is out of date. Statements share ages, which costs a Parse. */
static atomic_uint ages[64];

static atomic_uint *
age_of(struct hash128 id)
{
	return (&ages[id.lo % ARRAY_LEN(ages)]);
}

void
prepared_renew(struct hash128 id)
{
	atomic_fetch_add(age_of(id), 1);
}

/* The eight digits of v, all at once: its nibbles are moved apart, a byte for each. */
static void
put_hex(uint32_t v, char *out)
{
	uint64_t x = v, is_letter;

	x = (x << 16 | x) & 0x0000ffff0000ffffULL;
	x = (x << 8 | x) & 0x00ff00ff00ff00ffULL;
	x = (x << 4 | x) & 0x0f0f0f0f0f0f0f0fULL;
	is_letter = (x + 0x0606060606060606ULL) >> 4 & 0x0101010101010101ULL;
	x += 0x3030303030303030ULL + is_letter * ('a' - '0' - 10);
	x = htobe64(x);
	memcpy(out, &x, sizeof(x));
}

void
prepared_name(struct hash128 id, char out[PREPARED_NAME])
{
	memcpy(out, "pgw_", 4);
	put_hex((uint32_t)(id.hi >> 32), out + 4);
	put_hex((uint32_t)id.hi, out + 12);
	put_hex((uint32_t)(id.lo >> 32), out + 20);
	put_hex((uint32_t)id.lo, out + 28);
	out[36] = '\0';
}

static bool
entry_same(const struct table_node *n, const void *key)
{
	const struct prepared_entry *e =
	    CONTAINER_OF(n, const struct prepared_entry, node);
	const struct hash128 *id = key;

	return (e->id.hi == id->hi && e->id.lo == id->lo);
}

static struct prepared_entry *
entry_find(const struct prepared_set *set, struct hash128 id)
{
	struct table_node *n = table_find(&set->table, id.lo, entry_same, &id);

	return (n == NULL ? NULL : CONTAINER_OF(n, struct prepared_entry, node));
}

static void
entry_drop(struct prepared_set *set, struct prepared_entry *e)
{
	table_remove(&set->table, &e->node);
	TAILQ_REMOVE(&set->lru, e, lru);
	free(e);
}

static bool
entry_is_current(const struct prepared_entry *e)
{
	return (e->age == atomic_load_explicit(age_of(e->id), memory_order_relaxed));
}

static void
entry_touch(struct prepared_set *set, struct prepared_entry *e)
{
	if (TAILQ_NEXT(e, lru) == NULL)
		return;
	TAILQ_REMOVE(&set->lru, e, lru);
	TAILQ_INSERT_TAIL(&set->lru, e, lru);
}

bool
prepared_touch(struct prepared_set *set, struct hash128 id)
{
	struct prepared_entry *e = entry_find(set, id);

	if (e == NULL || !entry_is_current(e))
		return (false);
	entry_touch(set, e);
	return (true);
}

bool
prepared_is_old(const struct prepared_set *set, struct hash128 id)
{
	return (entry_find(set, id) != NULL);
}

struct prepared_since
prepared_since_now(void)
{
	return (
	    (struct prepared_since){.definitions = link_definitions(), .us = clock_us()});
}

static bool
is_fresh(const struct prepared_entry *e, struct prepared_since since)
{
	return (e != NULL && e->definitions != 0 && e->definitions >= since.definitions &&
		e->made_us >= since.us - PREPARED_SHARED_US && entry_is_current(e));
}

bool
prepared_touch_fresh(
    struct prepared_set *set, struct hash128 id, struct prepared_since since)
{
	struct prepared_entry *e = entry_find(set, id);

	if (!is_fresh(e, since))
		return (false);
	entry_touch(set, e);
	return (true);
}

bool
prepared_touch_proven(struct prepared_set *set, struct hash128 id,
    struct prepared_since since, int64_t now_us)
{
	struct prepared_entry *e = entry_find(set, id);

	if (!is_fresh(e, since) || e->proven_us < since.us)
		return (false);
	if (now_us > e->proven_us)
		e->proven_us = now_us;
	entry_touch(set, e);
	return (true);
}

void
prepared_doubt(struct prepared_set *set, struct hash128 id)
{
	struct prepared_entry *e = entry_find(set, id);

	if (e != NULL)
		e->proven_us = e->made_us;
}

void
prepared_suspect(struct prepared_set *set, struct hash128 id)
{
	struct prepared_entry *e = entry_find(set, id);

	if (e != NULL)
		e->definitions = 0;
}

bool
prepared_oldest(const struct prepared_set *set, unsigned skip, struct hash128 *id)
{
	const struct prepared_entry *e;

	if (skip >= set->table.count)
		return (false);
	e = TAILQ_FIRST(&set->lru);
	while (skip-- > 0)
		e = TAILQ_NEXT(e, lru);
	*id = e->id;
	return (true);
}

void
prepared_add(struct prepared_set *set, struct hash128 id, uint32_t batch)
{
	struct prepared_entry *e;

	if (prepared_touch(set, id))
		return;
	prepared_forget(set, id);
	if (set->table.size == 0)
		TAILQ_INIT(&set->lru);
	e = mem_alloc(sizeof(*e));
	e->id = id;
	e->batch = batch;
	e->age = atomic_load(age_of(id));
	e->definitions = link_definitions();
	e->made_us = e->proven_us = clock_us();
	table_add(&set->table, &e->node, id.lo);
	TAILQ_INSERT_TAIL(&set->lru, e, lru);
}

void
prepared_share(struct prepared_set *set, struct hash128 id, uint32_t batch, uint32_t said,
    int64_t now_us)
{
	struct prepared_entry *e;

	prepared_forget(set, id);
	prepared_add(set, id, batch);
	e = entry_find(set, id);
	e->said = said;
	e->made_us = now_us;
}

enum prepared_shared
prepared_shared(
    struct prepared_set *set, struct hash128 id, uint32_t said, int64_t now_us)
{
	struct prepared_entry *e = entry_find(set, id);

	if (e == NULL || e->definitions != link_definitions() || e->said != said ||
	    !entry_is_current(e))
		return (PREPARED_MISSING);
	if (now_us - e->made_us > PREPARED_SHARED_US)
		return (e->uses >= WORN_USES ? PREPARED_WORN : PREPARED_MISSING);
	e->uses++;
	entry_touch(set, e);
	return (PREPARED_FRESH);
}

void
prepared_confirm(struct prepared_set *set, struct hash128 id)
{
	struct prepared_entry *e = entry_find(set, id);

	if (e != NULL)
		e->is_sure = true;
}

bool
prepared_is_unsure(const struct prepared_set *set, struct hash128 id, uint32_t batch)
{
	const struct prepared_entry *e = entry_find(set, id);

	return (e != NULL && !e->is_sure && e->batch != batch);
}

void
prepared_forget(struct prepared_set *set, struct hash128 id)
{
	struct prepared_entry *e = entry_find(set, id);

	if (e != NULL)
		entry_drop(set, e);
}

unsigned
prepared_count(const struct prepared_set *set)
{
	return (set->table.count);
}

bool
prepared_evict(struct prepared_set *set, struct hash128 *id)
{
	struct prepared_entry *e = set->table.count > 0 ? TAILQ_FIRST(&set->lru) : NULL;

	if (e == NULL)
		return (false);
	*id = e->id;
	entry_drop(set, e);
	return (true);
}

void
prepared_clear(struct prepared_set *set)
{
	struct hash128 id;

	while (prepared_evict(set, &id))
		;
	table_free(&set->table);
}
