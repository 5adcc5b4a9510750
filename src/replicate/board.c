/*
 * What other threads may read of jobs and runs: copies, under a lock that is held for the
 * copying alone. The jobs themselves belong to the side thread.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

#define RUNS_KEPT 1000 /* rows of JOB_RUNS, of all jobs */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct replicate_status *jobs;
static size_t job_count;
static struct store_run runs[RUNS_KEPT]; /* a ring: the newest is before `next` */
static size_t run_count, next;

static char *
copy(const char *text)
{
	return (text != NULL ? mem_str(text) : NULL);
}

/* The strings of what is kept here are its own. */
static void
drop(const char *text)
{
	free((void *)(uintptr_t)text);
}

static void
status_free(struct replicate_status *s)
{
	drop(s->id);
	drop(s->name);
	drop(s->source);
	drop(s->targets);
	drop(s->tables);
	drop(s->mode);
	drop(s->sync_key);
	drop(s->last_error);
}

static void
jobs_free(struct replicate_status *s, size_t count)
{
	for (size_t i = 0; i < count; i++)
		status_free(&s[i]);
	free(s);
}

static void
run_free(struct store_run *r)
{
	drop(r->job);
	drop(r->target);
	drop(r->table);
	drop(r->outcome);
	drop(r->error);
	*r = (struct store_run){0};
}

void
board_jobs(const struct replicate_status *now, size_t count)
{
	struct replicate_status *mine = mem_alloc(count * sizeof(*mine) + 1), *old;
	size_t old_count;

	for (size_t i = 0; i < count; i++) {
		mine[i] = now[i];
		mine[i].id = copy(now[i].id);
		mine[i].name = copy(now[i].name);
		mine[i].source = copy(now[i].source);
		mine[i].targets = copy(now[i].targets);
		mine[i].tables = copy(now[i].tables);
		mine[i].mode = copy(now[i].mode);
		mine[i].sync_key = copy(now[i].sync_key);
		mine[i].last_error = copy(now[i].last_error);
	}
	pthread_mutex_lock(&lock);
	old = jobs;
	old_count = job_count;
	jobs = mine;
	job_count = count;
	pthread_mutex_unlock(&lock);
	jobs_free(old, old_count);
}

static struct store_run *
newest(size_t i)
{
	return (&runs[(next + RUNS_KEPT - 1 - i) % RUNS_KEPT]);
}

/* Whether it is a later run of the same job. */
static bool
is_later(const struct store_run *than, const struct store_run *run)
{
	return (run->run > than->run && run->started_us > than->started_us &&
		strcmp(run->job, than->job) == 0);
}

/* The newest goes behind the later runs of its job: what another proxy has done may be heard of
 * after what was done here since. */
static void
settle_newest(void)
{
	const struct store_run mine = *newest(0);
	size_t behind = 0;

	for (size_t i = 1; i < run_count; i++)
		if (is_later(&mine, newest(i)))
			behind = i;
	for (size_t i = 0; i < behind; i++)
		*newest(i) = *newest(i + 1);
	*newest(behind) = mine;
}

void
board_run(const struct store_run *run)
{
	struct store_run mine = *run, old;

	mine.job = copy(run->job);
	mine.target = copy(run->target);
	mine.table = copy(run->table);
	mine.outcome = copy(run->outcome);
	mine.error = copy(run->error);
	pthread_mutex_lock(&lock);
	old = runs[next];
	runs[next] = mine;
	next = (next + 1) % RUNS_KEPT;
	run_count += run_count < RUNS_KEPT;
	settle_newest();
	pthread_mutex_unlock(&lock);
	run_free(&old);
}

bool
board_has_run(const struct store_run *run)
{
	bool is_there = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < run_count && !is_there; i++)
		is_there = runs[i].run == run->run &&
			   runs[i].started_us == run->started_us &&
			   strcmp(runs[i].job, run->job) == 0 &&
			   strcmp(runs[i].target, run->target) == 0 &&
			   strcmp(runs[i].table, run->table) == 0;
	pthread_mutex_unlock(&lock);
	return (is_there);
}

void
board_clear(void)
{
	board_jobs(NULL, 0);
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < RUNS_KEPT; i++)
		run_free(&runs[i]);
	run_count = next = 0;
	free(jobs);
	jobs = NULL;
	pthread_mutex_unlock(&lock);
}

void
replicate_each(struct worker *side,
    void (*each)(void *arg, const struct replicate_status *), void *arg)
{
	(void)side;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < job_count; i++)
		each(arg, &jobs[i]);
	pthread_mutex_unlock(&lock);
}

void
replicate_each_run(void (*each)(void *arg, const struct store_run *), void *arg)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < run_count; i++)
		each(arg, newest(i));
	pthread_mutex_unlock(&lock);
}
