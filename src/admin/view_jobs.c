/* SHOW JOBS and JOB_RUNS: what the side thread has put up for others to read. */
#include "private.h"
#include "replicate.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define SECOND_US INT64_C(1000000)

/* A wall-clock time in ISO form; 0: never. */
static void
row_wall(struct show *show, enum view_column column, int64_t us)
{
	time_t s = (time_t)(us / SECOND_US);
	char day[32] = "", text[64];
	struct tm tm;

	if (us <= 0 || gmtime_r(&s, &tm) == NULL) {
		row_null(show, column);
		return;
	}
	(void)strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%06" PRId64 "+00", day, us % SECOND_US);
	row_text(show, column, text);
}

/* As PostgreSQL writes an interval: "00:15:00"; negative: not known. */
static void
row_interval(struct show *show, enum view_column column, int64_t us)
{
	char text[64];
	int64_t s = us / SECOND_US;
	int n;

	if (us < 0) {
		row_null(show, column);
		return;
	}
	n = snprintf(text, sizeof(text), "%02" PRId64 ":%02" PRId64 ":%02" PRId64,
	    s / 3600, s / 60 % 60, s % 60);
	if (us % SECOND_US >= 1000)
		snprintf(text + n, sizeof(text) - (size_t)n, ".%03" PRId64,
		    us % SECOND_US / 1000);
	row_text(show, column, text);
}

static void
row_known(struct show *show, enum view_column column, int64_t value)
{
	if (value < 0)
		row_null(show, column);
	else
		row_int(show, column, value);
}

static void
job_row(void *arg, const struct replicate_status *s)
{
	struct show *show = arg;
	char rate[32];

	snprintf(rate, sizeof(rate), "%.1f", s->rate);
	row_text(show, COL_JOBS_id, s->id);
	row_text(show, COL_JOBS_name, s->name);
	row_text(show, COL_JOBS_source, s->source);
	row_text(show, COL_JOBS_targets, s->targets);
	row_text(show, COL_JOBS_tables, s->tables);
	row_text(show, COL_JOBS_mode, s->mode);
	row_text(show, COL_JOBS_sync_key, s->sync_key);
	row_interval(show, COL_JOBS_interval, s->interval_us > 0 ? s->interval_us : -1);
	row_text(show, COL_JOBS_status, s->status);
	row_text(show, COL_JOBS_running, s->is_running ? "t" : "f");
	row_int(show, COL_JOBS_rows_done, s->rows_done);
	row_known(show, COL_JOBS_rows_total, s->rows_total);
	row_text(show, COL_JOBS_rate, rate);
	row_interval(show, COL_JOBS_lag, s->lag_us);
	row_wall(show, COL_JOBS_last_run, s->last_run_us);
	row_wall(show, COL_JOBS_next_run, s->next_run_us);
	row_text(show, COL_JOBS_last_error, s->last_error);
	row_end(show);
}

void
view_jobs_rows(struct show *show)
{
	replicate_each(net_side(), job_row, show);
}

static void
run_row(void *arg, const struct store_run *r)
{
	struct show *show = arg;

	row_text(show, COL_JOB_RUNS_job, r->job);
	row_int(show, COL_JOB_RUNS_run, r->run);
	row_wall(show, COL_JOB_RUNS_started, r->started_us);
	row_wall(show, COL_JOB_RUNS_ended, r->ended_us);
	row_text(show, COL_JOB_RUNS_target, r->target);
	row_text(show, COL_JOB_RUNS_table, r->table);
	row_int(show, COL_JOB_RUNS_rows_read, r->rows_read);
	row_int(show, COL_JOB_RUNS_rows_written, r->rows_written);
	row_int(show, COL_JOB_RUNS_rows_deleted, r->rows_deleted);
	row_int(show, COL_JOB_RUNS_bytes, r->bytes);
	row_text(show, COL_JOB_RUNS_outcome, r->outcome);
	row_text(show, COL_JOB_RUNS_error, r->error);
	row_end(show);
}

void
view_job_runs_rows(struct show *show)
{
	replicate_each_run(run_row, show);
}
