/* The memory of one set of facts: taken piece by piece, freed at once. */
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define CHUNK_BYTES 480

struct sql_chunk {
	struct sql_chunk *next;
	size_t size;
	max_align_t mem[];
};

void *
sql_arena_alloc(struct sql_arena *a, size_t size)
{
	struct sql_chunk *c = a->chunks;
	size_t room;
	void *p;

	size = (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
	if (c == NULL || size > c->size - a->used) {
		room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
		c = mem_alloc(sizeof(*c) + room);
		c->size = room;
		c->next = a->chunks;
		a->chunks = c;
		a->used = 0;
		a->bytes += sizeof(*c) + room;
	}
	p = (char *)c->mem + a->used;
	a->used += size;
	return (p);
}

void *
sql_arena_dup(struct sql_arena *a, const void *p, size_t size)
{
	void *copy = sql_arena_alloc(a, size);

	if (size > 0)
		memcpy(copy, p, size);
	return (copy);
}

const char *
sql_arena_str(struct sql_arena *a, const char *s)
{
	return (sql_arena_dup(a, s, strlen(s) + 1));
}

void
sql_arena_free(struct sql_arena *a)
{
	struct sql_chunk *c, *next;

	for (c = a->chunks; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	*a = (struct sql_arena){0};
}
