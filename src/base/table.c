/* Hash table with chains through nodes that the owner embeds; doubles at one node a slot. */
#include "base.h"
#include <stdlib.h>

#define TABLE_FIRST 8

static void
table_grow(struct table *t)
{
	uint32_t size = t->size ? t->size * 2 : TABLE_FIRST;
	struct table_node **slots = mem_alloc(size * sizeof(slots[0])), *n, *next;

	for (uint32_t i = 0; i < t->size; i++)
		for (n = t->slots[i]; n != NULL; n = next) {
			next = n->next;
			n->next = slots[n->hash & (size - 1)];
			slots[n->hash & (size - 1)] = n;
		}
	free(t->slots);
	t->slots = slots;
	t->size = size;
}

void
table_add(struct table *t, struct table_node *n, uint64_t hash)
{
	struct table_node **slot;

	if (t->count >= t->size)
		table_grow(t);
	slot = &t->slots[hash & (t->size - 1)];
	n->hash = hash;
	n->next = *slot;
	*slot = n;
	t->count++;
}

struct table_node *
table_find(const struct table *t, uint64_t hash, table_same *same, const void *key)
{
	if (t->size == 0)
		return (NULL);
	for (struct table_node *n = t->slots[hash & (t->size - 1)]; n != NULL;
	     n = n->next)
		if (n->hash == hash && same(n, key))
			return (n);
	return (NULL);
}

void
table_remove(struct table *t, struct table_node *n)
{
	struct table_node **at;

	INVARIANT(t->size > 0);
	for (at = &t->slots[n->hash & (t->size - 1)]; *at != n; at = &(*at)->next)
		INVARIANT(*at != NULL);
	*at = n->next;
	n->next = NULL;
	t->count--;
}

static struct table_node *
table_from(const struct table *t, uint32_t slot)
{
	for (; slot < t->size; slot++)
		if (t->slots[slot] != NULL)
			return (t->slots[slot]);
	return (NULL);
}

struct table_node *
table_first(const struct table *t)
{
	return (table_from(t, 0));
}

struct table_node *
table_next(const struct table *t, const struct table_node *n)
{
	if (n->next != NULL)
		return (n->next);
	return (table_from(t, (uint32_t)(n->hash & (t->size - 1)) + 1));
}

void
table_free(struct table *t)
{
	free(t->slots);
	*t = (struct table){0};
}
