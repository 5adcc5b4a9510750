/*
 * stat: counters, declared as METRIC rows in include/tbl. Counters of a pool belong to one
 * worker's share of it and are summed when read; those of the process are atomic.
 */
#ifndef STAT_H
#define STAT_H
#include "base.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };
enum metric_scope { METRIC_POOL, METRIC_GLOBAL };

#define METRIC(name, ...) M_##name,
enum metric_id {
#include "tbl/all.def"
	M_COUNT
};

struct metric {
	const char *name;
	enum metric_kind kind;
	enum metric_scope scope;
	const char *unit; /* "1", "us", "bytes" */
	const char *doc;
};
extern const struct metric metric_table[M_COUNT];

/* One owner's counters. */
struct metrics {
	uint64_t v[M_COUNT];
};
#define METRIC_ADD(m, name, n) ((m)->v[M_##name] += (uint64_t)(n))
#define METRIC_INC(m, name)    METRIC_ADD(m, name, 1)

void metrics_add(struct metrics *sum, const struct metrics *);

/* Process-wide counters: any thread. */
void stat_count(enum metric_id, uint64_t n);
/* Of gauges. */
void stat_set(enum metric_id, uint64_t n);
uint64_t stat_value(enum metric_id);

#endif
