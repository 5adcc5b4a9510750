/* The table of metrics, and the counters of the process. */
#include "stat.h"
#include <stdatomic.h>

const struct metric metric_table[M_COUNT] = {
#define METRIC(name, kind, scope, unit, doc)                                             \
	{#name, METRIC_##kind, METRIC_##scope, unit, doc},
#include "tbl/all.def"
};

static _Atomic uint64_t global[M_COUNT];

void
metrics_add(struct metrics *sum, const struct metrics *m)
{
	for (int i = 0; i < M_COUNT; i++)
		sum->v[i] += m->v[i];
}

void
stat_count(enum metric_id id, uint64_t n)
{
	atomic_fetch_add_explicit(&global[id], n, memory_order_relaxed);
}

void
stat_set(enum metric_id id, uint64_t n)
{
	atomic_store_explicit(&global[id], n, memory_order_relaxed);
}

uint64_t
stat_value(enum metric_id id)
{
	return (atomic_load_explicit(&global[id], memory_order_relaxed));
}
