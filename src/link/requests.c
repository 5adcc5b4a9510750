/* The requests that a link owes answers to: a ring that grows. */
#include "link.h"
#include <stdlib.h>

#define RING_FIRST 8
#define RING_KEEP  64 /* a larger ring is freed when it runs empty */

static void
requests_grow(struct requests *q)
{
	uint32_t cap = q->cap ? q->cap * 2 : RING_FIRST;
	struct request *ring = mem_alloc(cap * sizeof(ring[0]));

	for (uint32_t i = 0; i < q->count; i++)
		ring[i] = *requests_at(q, i);
	free(q->ring);
	q->ring = ring;
	q->cap = cap;
	q->head = 0;
}

struct request *
requests_push(struct requests *q, enum request_kind kind, enum request_act act)
{
	struct request *r;

	if (q->count == q->cap)
		requests_grow(q);
	r = &q->ring[(q->head + q->count++) & (q->cap - 1)];
	*r = (struct request){.kind = (uint8_t)kind, .act = (uint8_t)act};
	return (r);
}

struct request *
requests_at(const struct requests *q, uint32_t i)
{
	INVARIANT(i < q->count);
	return (&q->ring[(q->head + i) & (q->cap - 1)]);
}

void
requests_remove(struct requests *q, uint32_t i)
{
	for (; i + 1 < q->count; i++)
		*requests_at(q, i) = *requests_at(q, i + 1);
	q->count--;
}

void
requests_pop(struct requests *q)
{
	INVARIANT(q->count > 0);
	q->head = (q->head + 1) & (q->cap - 1);
	if (--q->count == 0 && q->cap > RING_KEEP)
		requests_free(q);
}

void
requests_free(struct requests *q)
{
	free(q->ring);
	*q = (struct requests){0};
}
