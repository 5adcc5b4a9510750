/* SHOW STATS and its relatives, and the line of totals in the log. */
#include "private.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* PER in the table: an average is per second, or per this other metric. */
#define M_second M_COUNT

static const struct stat_row {
	enum metric_id metric, per;
	enum view_column total, average, plain, plain_average;
	const char *total_name, *average_name; /* in TOTALS */
} stat_rows[] = {
#define STAT_ROW(metric, per, total, average, plain, plain_average, name)                \
	{M_##metric, M_##per, COL_STATS_##total, COL_STATS_##average,                    \
	    COL_STATS_TOTALS_##plain, COL_STATS_AVERAGES_##plain_average,                \
	    "total_" #name, "avg_" #name},
    STATS(STAT_ROW)};

/* Until the first stats_period is over, the averages are those since the start. */
static void
stats_add(struct sum *sum, const struct seat *seat)
{
	struct metrics part = seat->average;
	int64_t us = seat->average_us;

	if (us <= 0) {
		us = clock_us() - seat->period_start_us;
		us = us < 1000000 ? 1000000 : us;
		part = seat->metrics;
	}
	metrics_add(&sum->total, &seat->metrics);
	metrics_add(&sum->average, &part);
	/* The periods of seats begin at different times: rates are added, not counts. */
	for (unsigned i = 0; i < M_COUNT; i++)
		sum->per_second[i] += (double)part.v[i] * 1e6 / (double)us;
}

/* What the console has had: PgBouncer shows it as a pool of its own. */
static void
stats_add_console(struct sum *sum)
{
	uint64_t statements = stat_value(M_console_statements);

	sum->total.v[M_client_login_count] += stat_value(M_console_logins);
	sum->total.v[M_xact_count] += statements;
	sum->total.v[M_query_count] += statements;
}

static uint64_t
stat_average(const struct sum *sum, enum metric_id metric, enum metric_id per)
{
	if (per == M_second)
		return ((uint64_t)sum->per_second[metric]);
	return (
	    sum->average.v[per] > 0 ? sum->average.v[metric] / sum->average.v[per] : 0);
}

void
view_stats_visit(struct worker *w, struct show *show)
{
	const struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		stats_add(sum_of(&show->sums, seat->pool->database, ""), seat);
}

/* One row for each database: its name and what put() adds. */
static void
stats_each(struct show *show, enum view_column name,
    void (*put)(struct show *, const struct stat_row *, const struct sum *))
{
	struct sum **all;

	stats_add_console(sum_of(&show->sums, show->call->console, ""));
	all = sums_sorted(&show->sums);
	for (size_t i = 0; i < show->sums.count; i++) {
		row_text(show, name, all[i]->database);
		for (size_t k = 0; k < ARRAY_LEN(stat_rows); k++)
			put(show, &stat_rows[k], all[i]);
		row_end(show);
	}
	free(all);
}

static void
put_both(struct show *show, const struct stat_row *r, const struct sum *sum)
{
	row_count(show, r->total, sum->total.v[r->metric]);
	row_count(show, r->average, stat_average(sum, r->metric, r->per));
}

void
view_stats_rows(struct show *show)
{
	stats_each(show, COL_STATS_database, put_both);
}

static void
put_total(struct show *show, const struct stat_row *r, const struct sum *sum)
{
	row_count(show, r->plain, sum->total.v[r->metric]);
}

void
view_stats_totals_rows(struct show *show)
{
	stats_each(show, COL_STATS_TOTALS_database, put_total);
}

static void
put_average(struct show *show, const struct stat_row *r, const struct sum *sum)
{
	row_count(show, r->plain_average, stat_average(sum, r->metric, r->per));
}

void
view_stats_averages_rows(struct show *show)
{
	stats_each(show, COL_STATS_AVERAGES_database, put_average);
}

/* The sum over all databases. */
static void
stats_join(const struct table *sums, struct sum *all)
{
	memset(all, 0, sizeof(*all));
	for (struct table_node *n = table_first(sums); n != NULL;
	     n = table_next(sums, n)) {
		const struct sum *sum = CONTAINER_OF(n, const struct sum, node);

		metrics_add(&all->total, &sum->total);
		metrics_add(&all->average, &sum->average);
		for (unsigned i = 0; i < M_COUNT; i++)
			all->per_second[i] += sum->per_second[i];
	}
}

static void
totals_row(struct show *show, const char *name, uint64_t value)
{
	row_text(show, COL_TOTALS_name, name);
	row_count(show, COL_TOTALS_value, value);
	row_end(show);
}

void
view_totals_rows(struct show *show)
{
	struct sum all;

	stats_join(&show->sums, &all);
	stats_add_console(&all);
	for (size_t i = 0; i < ARRAY_LEN(stat_rows); i++)
		totals_row(
		    show, stat_rows[i].total_name, all.total.v[stat_rows[i].metric]);
	for (size_t i = 0; i < ARRAY_LEN(stat_rows); i++)
		totals_row(show, stat_rows[i].average_name,
		    stat_average(&all, stat_rows[i].metric, stat_rows[i].per));
}

/* ---- the line in the log ---- */

static void
log_visit(struct worker *w, void *arg)
{
	const struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		stats_add(arg, seat);
}

static void
log_done(struct worker *w, void *arg)
{
	struct sum *s = arg;

	(void)w;
	log_info("stats: %" PRIu64 " xacts/s, %" PRIu64 " queries/s, in %" PRIu64
		 " B/s, out %" PRIu64 " B/s, xact %" PRIu64 " us, query %" PRIu64
		 " us, wait %" PRIu64 " us",
	    stat_average(s, M_xact_count, M_second),
	    stat_average(s, M_query_count, M_second),
	    stat_average(s, M_received, M_second), stat_average(s, M_sent, M_second),
	    stat_average(s, M_xact_time, M_xact_count),
	    stat_average(s, M_query_time, M_query_count),
	    stat_average(s, M_wait_time, M_server_assignment_count));
	free(s);
}

void
admin_log_stats(struct worker *main)
{
	net_visit(main, log_visit, log_done, mem_alloc(sizeof(struct sum)));
}
