/*
 * Runs that this process has not seen: of those before it, and of the proxies that share its
 * store. They stand in JOB_RUNS, and the newest says how its job fares.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

#define RUNS_REMEMBERED 100

struct past {
	struct worker *side;
	char *name;                             /* NULL: all jobs */
	struct store_run runs[RUNS_REMEMBERED]; /* the newest first; texts are its own */
	size_t count;
};

static void
past_each(void *arg, const struct store_run *run)
{
	struct past *past = arg;
	struct store_run *mine;

	if (past->count == RUNS_REMEMBERED)
		return;
	mine = &past->runs[past->count++];
	*mine = *run;
	mine->job = mem_str(run->job);
	mine->target = mem_str(run->target);
	mine->table = mem_str(run->table);
	mine->outcome = mem_str(run->outcome);
	mine->error = run->error != NULL ? mem_str(run->error) : NULL;
}

static void
run_free(struct store_run *run)
{
	free((void *)(uintptr_t)run->job);
	free((void *)(uintptr_t)run->target);
	free((void *)(uintptr_t)run->table);
	free((void *)(uintptr_t)run->outcome);
	free((void *)(uintptr_t)run->error);
}

/* What it says of the job, unless that has run here since. */
static void
past_apply(struct job *job, const struct store_run *newest)
{
	bool is_newer = job->run_number < newest->run;

	if (is_newer)
		job->run_number = newest->run;
	if (job->run != NULL || (job->has_run && !is_newer))
		return;
	job->has_run = true;
	job->last_run_us = newest->started_us;
	job->has_failed = strcmp(newest->outcome, "failed") == 0;
	free(job->last_error);
	job->last_error = newest->error != NULL ? mem_printf("target \"%s\": %s",
						      newest->target, newest->error)
						: NULL;
}

static void
past_take(struct replicate *r, const struct past *past)
{
	for (size_t i = 0; i < past->count; i++) {
		const struct store_run *run = &past->runs[i];
		struct job *job = job_find(&r->jobs, run->job);

		/* Of one job all, or of all jobs the newer ones. */
		if (job != NULL && (i == 0 || job->run_number < run->run))
			past_apply(job, run);
		if (strcmp(run->job, ONCE) == 0 && r->once_number < run->run)
			r->once_number = run->run;
	}
	for (size_t i = past->count; i-- > 0;)
		if (!board_has_run(&past->runs[i]))
			board_run(&past->runs[i]);
	r->has_changed = true;
}

static void
past_done(struct worker *w, void *arg, int fault, const char *why)
{
	struct past *past = arg;
	struct replicate *r = replicate_of(past->side);

	(void)w;
	if (fault == F_STORE_DOWN && r != NULL)
		log_debug("replicate: earlier runs are not known yet: %s", why);
	else if (fault != 0)
		log_warning("replicate: earlier runs are not known: %s", why);
	if (r != NULL)
		past_take(r, past);
	for (size_t i = 0; i < past->count; i++)
		run_free(&past->runs[i]);
	free(past->name);
	free(past);
}

void
past_load(struct replicate *r, const char *name)
{
	struct past *past = mem_alloc(sizeof(*past));

	past->side = r->side;
	past->name = name != NULL ? mem_str(name) : NULL;
	store_runs_load(r->side, past->name, RUNS_REMEMBERED, past_each, past_done, past);
}
