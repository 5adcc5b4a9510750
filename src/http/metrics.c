/*
 * Prometheus' text format 0.0.4: for each metric HELP, TYPE, and its samples together.
 *
 *     METRIC rows     pgweave_NAME_total; times in seconds, sizes in bytes, as their units say
 *     of a pool       with labels database and user
 *     query_le_…      the buckets of database_query_duration_seconds
 */
#include "config.h"
#include "private.h"
#include "replicate.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* µs. The METRIC rows count what lies between two of them. */
static const int64_t bounds_us[] = {
#define BUCKET(us) us,
#include "tbl/query_buckets.def"
};
#define BOUNDS ARRAY_LEN(bounds_us)
_Static_assert(M_query_le_inf - M_query_le_500 == BOUNDS, "a counter for each bound");

static bool
is_bucket(const struct metric *m)
{
	return (strcmp(m->unit, "bucket") == 0);
}

/* ---- the format ---- */

static void
put_label(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, "%s=\"", name);
	for (; *value != '\0'; value++) {
		if (*value == '\n')
			buf_addstr(b, "\\n");
		else if (*value == '"' || *value == '\\')
			buf_addf(b, "\\%c", *value);
		else
			buf_add(b, value, 1);
	}
	buf_add(b, "\"", 1);
}

static void
put_head(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A sample with up to two labels. */
static void
put_sample(
    struct buf *b, const char *name, const char *database, const char *user, double value)
{
	buf_addstr(b, name);
	if (database != NULL) {
		buf_add(b, "{", 1);
		put_label(b, "database", database);
		if (user != NULL) {
			buf_add(b, ",", 1);
			put_label(b, "user", user);
		}
		buf_add(b, "}", 1);
	}
	buf_addf(b, " %.15g\n", value);
}

/* ---- the METRIC rows ---- */

static double
in_base_unit(const struct metric *m, uint64_t v)
{
	return (strcmp(m->unit, "us") == 0 ? (double)v / 1e6 : (double)v);
}

static void
metric_name(const struct metric *m, char *out, size_t size)
{
	const char *unit = strcmp(m->unit, "us") == 0      ? "_seconds"
			   : strcmp(m->unit, "bytes") == 0 ? "_bytes"
							   : "";

	snprintf(out, size, "pgweave_%s%s%s", m->name, unit,
	    m->kind == METRIC_COUNTER ? "_total" : "");
}

static void
write_rows(struct buf *b, const struct collection *all)
{
	char name[128];

	for (unsigned i = 0; i < M_COUNT; i++) {
		const struct metric *m = &metric_table[i];

		if (is_bucket(m))
			continue;
		metric_name(m, name, sizeof(name));
		put_head(
		    b, name, m->kind == METRIC_COUNTER ? "counter" : "gauge", m->doc);
		if (m->scope == METRIC_GLOBAL) {
			put_sample(b, name, NULL, NULL,
			    in_base_unit(m, stat_value((enum metric_id)i)));
			continue;
		}
		for (size_t k = 0; k < all->pool_count; k++)
			put_sample(b, name, all->pools[k].database, all->pools[k].user,
			    in_base_unit(m, all->pools[k].metrics.v[i]));
	}
}

/* ---- by database ---- */

/* Calls each() for every database that has pools or is configured, with its sum; pools are
 * sorted by database. */
static void
databases_sum(const struct job *job, const struct collection *all, struct buf *b,
    void (*each)(struct buf *, const char *database, const struct pool_sum *))
{
	struct pool_sum sum;

	for (size_t i = 0, next; i < all->pool_count; i = next) {
		memset(&sum, 0, sizeof(sum));
		for (next = i; next < all->pool_count && strcmp(all->pools[next].database,
							     all->pools[i].database) == 0;
		     next++) {
			metrics_add(&sum.metrics, &all->pools[next].metrics);
			sum.links += all->pools[next].links;
		}
		each(b, all->pools[i].database, &sum);
	}
	memset(&sum, 0, sizeof(sum));
	for (size_t i = 0; i < topo_database_count(job->topo); i++) {
		const struct topo_database *db = topo_database(job->topo, i);
		size_t k = 0;

		while (
		    k < all->pool_count && strcmp(all->pools[k].database, db->name) != 0)
			k++;
		if (k == all->pool_count && !db->is_auto)
			each(b, db->name, &sum);
	}
}

static void
put_histogram(struct buf *b, const char *database, const struct pool_sum *sum)
{
	static const char name[] = "database_query_duration_seconds";
	uint64_t count = 0;

	for (size_t i = 0; i <= BOUNDS; i++) {
		count += sum->metrics.v[M_query_le_500 + i];
		buf_addf(b, "%s_bucket{", name);
		put_label(b, "database", database);
		if (i < BOUNDS)
			buf_addf(b, ",le=\"%.6g\"} %" PRIu64 "\n",
			    (double)bounds_us[i] / 1e6, count);
		else
			buf_addf(b, ",le=\"+Inf\"} %" PRIu64 "\n", count);
	}
	buf_addf(b, "%s_sum{", name);
	put_label(b, "database", database);
	buf_addf(
	    b, "} %.15g\n%s_count{", (double)sum->metrics.v[M_query_time] / 1e6, name);
	put_label(b, "database", database);
	buf_addf(b, "} %" PRIu64 "\n", count);
}

static void
put_pool_size(struct buf *b, const char *database, const struct pool_sum *sum)
{
	put_sample(b, "database_connection_pool_size", database, NULL, sum->links);
}

static void
write_databases(struct buf *b, const struct job *job, const struct collection *all)
{
	put_head(b, "database_query_duration_seconds", "histogram",
	    "Time from a query's first byte to the server until its end.");
	databases_sum(job, all, b, put_histogram);
	put_head(b, "database_connection_pool_size", "gauge",
	    "Connections to the database that are open.");
	databases_sum(job, all, b, put_pool_size);
	put_head(b, "pgweave_database_up", "gauge",
	    "Whether the database takes statements: 1 or 0.");
	for (size_t i = 0; i < topo_database_count(job->topo); i++) {
		const struct topo_database *db = topo_database(job->topo, i);

		if (!db->is_auto && db->is_configured)
			put_sample(
			    b, "pgweave_database_up", db->name, NULL, database_is_up(db));
	}
}

/* ---- by pool ---- */

static void
write_pools(struct buf *b, const struct collection *all)
{
	static const struct {
		const char *name, *help;
		size_t offset;
	} gauges[] = {
	    {"pgweave_pool_links", "Server connections open or opening.",
		offsetof(struct pool_sum, links)},
	    {"pgweave_pool_links_idle", "Server connections that nobody uses.",
		offsetof(struct pool_sum, idle)},
	    {"pgweave_pool_links_opening", "Server connections being opened.",
		offsetof(struct pool_sum, opening)},
	    {"pgweave_pool_clients", "Clients of the pool.",
		offsetof(struct pool_sum, clients)},
	    {"pgweave_pool_clients_waiting", "Clients that wait for a server connection.",
		offsetof(struct pool_sum, waiting)},
	};

	for (size_t i = 0; i < ARRAY_LEN(gauges); i++) {
		put_head(b, gauges[i].name, "gauge", gauges[i].help);
		for (size_t k = 0; k < all->pool_count; k++) {
			const struct pool_sum *p = &all->pools[k];
			unsigned value;

			memcpy(&value, (const char *)p + gauges[i].offset, sizeof(value));
			put_sample(b, gauges[i].name, p->database, p->user, value);
		}
	}
}

/* ---- jobs ---- */

struct job_samples {
	struct buf rows, lag, failed;
};

static void
sample_job(struct buf *b, const char *name, const char *job, double value)
{
	buf_addf(b, "%s{", name);
	put_label(b, "job", job);
	buf_addf(b, "} %.15g\n", value);
}

static void
put_job(void *arg, const struct replicate_status *st)
{
	struct job_samples *s = arg;

	sample_job(&s->rows, "pgweave_job_rows", st->name, (double)st->rows_done);
	sample_job(&s->failed, "pgweave_job_failed", st->name, st->last_error != NULL);
	if (st->lag_us >= 0)
		sample_job(&s->lag, "pgweave_job_lag_seconds", st->name,
		    (double)st->lag_us / 1e6);
}

static void
write_jobs(struct buf *b, struct worker *side)
{
	struct job_samples s = {0};

	replicate_each(side, put_job, &s);
	put_head(b, "pgweave_job_rows", "gauge", "Rows of a replication job's last run.");
	buf_add(b, s.rows.mem, s.rows.len);
	put_head(b, "pgweave_job_failed", "gauge",
	    "Whether the last run of a replication job failed: 1 or 0.");
	buf_add(b, s.failed.mem, s.failed.len);
	put_head(b, "pgweave_job_lag_seconds", "gauge",
	    "How far the slowest target of a replication job is behind.");
	buf_add(b, s.lag.mem, s.lag.len);
	buf_free(&s.rows);
	buf_free(&s.failed);
	buf_free(&s.lag);
}

void
metrics_write(struct buf *b, const struct job *job, const struct collection *all)
{
	put_head(b, "pgweave_info", "gauge", "The version, as a label.");
	buf_addf(b, "pgweave_info{version=\"%s\"} 1\n", PACKAGE_VERSION);
	put_head(b, "pgweave_start_time_seconds", "gauge", "When the process started.");
	buf_addf(b, "pgweave_start_time_seconds %.3f\n",
	    (double)job->http->start_wall_us / 1e6);
	put_head(b, "pgweave_workers", "gauge", "Threads that serve clients.");
	put_sample(b, "pgweave_workers", NULL, NULL, net_worker_count());
	put_head(b, "pgweave_clients", "gauge", "Clients connected, by state.");
	for (unsigned i = 0; i < SESSION_STATES; i++)
		if (i != SESSION_CLOSED)
			buf_addf(b, "pgweave_clients{state=\"%s\"} %u\n",
			    session_state_name((enum session_state)i), all->clients[i]);
	write_databases(b, job, all);
	write_pools(b, all);
	write_jobs(b, job->http->worker);
	write_rows(b, all);
}
