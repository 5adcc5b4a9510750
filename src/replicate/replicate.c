/*
 * The jobs: those of the configuration and those of the store, and when they are due. All of
 * it lives on the side thread.
 *
 * A job is in the list, or loose: a new one while it is checked and until the store has it,
 * and that of REPLICATE TABLE while it runs. A name that the configuration and the store both
 * have is the configuration's.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

#define FIRST_RUN_US  SECOND_US        /* after the start, so that it is not in the way */
#define LOAD_AGAIN_US (30 * SECOND_US) /* the store did not answer */
#define RUNS_AT_ONCE  8                /* that are due; those asked for come on top */

struct replicate *
replicate_of(struct worker *w)
{
	return (w->slot[WORKER_REPLICATE]);
}

struct job *
job_find(struct job_list *list, const char *name)
{
	struct job *job;

	TAILQ_FOREACH(job, list, entry)
		if (strcmp(job->text.name, name) == 0)
			return (job);
	return (NULL);
}

/* ---- the board ---- */

static const char *
job_status(const struct job *job)
{
	return (job->run != NULL   ? "running"
		: !job->is_enabled ? "paused"
		: job->has_failed  ? "failed"
		: job->has_run     ? "ok"
				   : "never run");
}

static void
job_describe(const struct job *job, struct replicate_status *s)
{
	int64_t now_us = clock_us(), wall_us = clock_wall_us();

	*s = (struct replicate_status){
	    .id = job->text.name,
	    .name = job->text.name,
	    .source = job->text.source,
	    .targets = job->text.targets,
	    .tables = job->text.tables,
	    .mode = job->is_full ? "full" : "sync_key",
	    .sync_key = job->sync_key,
	    .interval_us = job->interval_us,
	    .status = job_status(job),
	    .is_enabled = job->is_enabled,
	    .is_running = job->run != NULL,
	    .is_from_file = job->is_from_file,
	    .rows_done = job->rows_done,
	    .rows_total = job->has_run ? job->rows_done : -1,
	    .rate = job->rate,
	    .lag_us = job->whole_us > 0 ? wall_us - job->whole_us : -1,
	    .last_run_us = job->last_run_us,
	    .last_error = job->last_error,
	};
	if (s->lag_us < -1)
		s->lag_us = 0;
	if (job->is_enabled && job->due_us > 0 && job->run == NULL)
		s->next_run_us =
		    job->due_us > now_us ? wall_us + job->due_us - now_us : wall_us;
	if (job->run != NULL) {
		int64_t ran_us = now_us - job->run->started_us;

		s->rows_done = run_rows(job->run);
		s->rows_total = run_rows_total(job->run);
		s->rate = ran_us > 0 ? (double)s->rows_done * 1e6 / (double)ran_us : 0;
	}
}

void
jobs_publish(struct replicate *r)
{
	struct replicate_status *all;
	const struct job *job;
	size_t count = 0;

	TAILQ_FOREACH(job, &r->jobs, entry)
		count++;
	all = mem_alloc(count * sizeof(*all) + 1);
	count = 0;
	TAILQ_FOREACH(job, &r->jobs, entry)
		job_describe(job, &all[count++]);
	board_jobs(all, count);
	free(all);
	r->has_changed = false;
}

/* ---- runs ---- */

void
job_start(struct replicate *r, struct job *job, replicate_done *done, void *arg)
{
	job->run_number = job->is_once ? ++r->once_number : job->run_number + 1;
	job->last_run_us = clock_wall_us();
	/* Whoever asks for a run does not wait for one that is due. */
	job->due_us = job->interval_us > 0 ? clock_us() + job->interval_us : 0;
	(void)run_start(r->side, job, PURPOSE_RUN, NULL, done, arg);
	jobs_publish(r);
}

void
job_leave(struct worker *w, struct job *job)
{
	INVARIANT(job->is_loose);
	TAILQ_REMOVE(&replicate_of(w)->loose, job, entry);
	job_destroy(job);
}

static void
job_remember(struct job *job, const struct run *run)
{
	int64_t ran_us = clock_us() - run->started_us;

	job->rows_done = run_rows(run);
	job->rate = ran_us > 0 ? (double)job->rows_done * 1e6 / (double)ran_us : 0;
	job->has_run = true;
	free(job->last_error);
	job->last_error = NULL;
	stat_count(M_replication_runs, 1);
	if (run->complaint.message == NULL) {
		job->has_failed = false;
		job->whole_us = run_whole_us(run);
		return;
	}
	job->last_error = mem_printf("target \"%s\": %s: %s", run->failed_target,
	    run->complaint.sqlstate, run->complaint.message);
	if (run->is_skipped)
		return;
	job->has_failed = true;
	stat_count(M_replication_failures, 1);
}

void
job_ran(struct job *job, struct run *run)
{
	struct replicate *r = replicate_of(run->side);

	INVARIANT(r != NULL && job->run == run);
	if (run->purpose == PURPOSE_RUN)
		job_remember(job, run);
	job->run = NULL;
	if (job->waiter != NULL) {
		replicate_done *done = job->waiter;

		job->waiter = NULL;
		job_begin(r, job, 0, done, job->waiter_arg);
	} else
		jobs_publish(r);
}

void
job_stop(struct job *job, const char *sqlstate, const char *message)
{
	struct replicate_answer answer = {
	    .fault = F_JOB, .sqlstate = sqlstate, .message = message};
	replicate_done *waiter = job->waiter;
	struct run *run = job->run;

	job->run = NULL;
	job->waiter = NULL;
	if (run != NULL) {
		(void)job_unclaim(run->side, job, NULL, NULL);
		run_abort(run, sqlstate, message);
	}
	if (waiter != NULL)
		waiter(job->waiter_arg, &answer);
}

/* ---- which jobs there are ---- */

void
job_add(struct replicate *r, struct job *job, int64_t due_us)
{
	job->due_us = job->interval_us > 0 ? due_us : 0;
	TAILQ_INSERT_TAIL(&r->jobs, job, entry);
}

/* What the old one knows of its runs goes to the new one, which takes its place. */
static void
job_replace(struct replicate *r, struct job *old, struct job *job)
{
	job->run_number = old->run_number;
	job->last_run_us = old->last_run_us;
	job->rows_done = old->rows_done;
	job->rate = old->rate;
	job->has_run = old->has_run;
	job->has_failed = old->has_failed;
	job->last_error = old->last_error;
	old->last_error = NULL;
	TAILQ_INSERT_BEFORE(old, job, entry);
	if (job->interval_us > 0)
		job->due_us = clock_us() + FIRST_RUN_US;
	TAILQ_REMOVE(&r->jobs, old, entry);
	job_destroy(old);
}

/* Whether the words differ in nothing but whether it is enabled, and are so taken over. */
static bool
is_only_enabled(struct job *old, const struct job *job)
{
	struct topo_job_text text = job->text;

	text.enabled = old->text.enabled;
	if (old->is_from_file || job->is_from_file || !job_text_same(&old->text, &text))
		return (false);
	job_enable(old, job->is_enabled);
	old->is_seen = true;
	return (true);
}

/* There is to be a job of these words. */
static void
want(struct replicate *r, const struct topo_job_text *text, bool is_from_file)
{
	struct job *old = job_find(&r->jobs, text->name), *job;
	char why[512] = "";

	if (old != NULL && old->is_from_file == is_from_file &&
	    job_text_same(&old->text, text)) {
		old->is_seen = true;
		return;
	}
	job = job_create(text, why, sizeof(why));
	if (job == NULL) {
		log_error("replicate: job %s is left out: %s", text->name, why);
		return;
	}
	job->is_from_file = is_from_file;
	job->is_seen = true;
	if (old != NULL && is_only_enabled(old, job)) {
		job_destroy(job);
		return;
	}
	if (old != NULL) {
		job_stop(old, "57014", "the job has been changed");
		job_replace(r, old, job);
		return;
	}
	job_add(r, job, clock_us() + FIRST_RUN_US);
	past_load(r, job->text.name);
}

/* Makes the jobs those of the snapshot and of the store. */
static void
settle(struct replicate *r)
{
	const struct topo *topo = pool_worker(r->side)->topo;
	struct job *job, *next;

	TAILQ_FOREACH(job, &r->jobs, entry)
		job->is_seen = false;
	for (size_t i = 0; i < topo_job_count(topo); i++)
		want(r, &topo_job(topo, i)->text, true);
	for (size_t i = 0; i < r->stored_count; i++) {
		job = job_find(&r->jobs, r->stored[i].name);
		if (job != NULL && job->is_seen && job->is_from_file)
			log_warning(
			    "replicate: job %s of the store is hidden by that of the configuration",
			    r->stored[i].name);
		else
			want(r, &r->stored[i], false);
	}
	for (job = TAILQ_FIRST(&r->jobs); job != NULL; job = next) {
		next = TAILQ_NEXT(job, entry);
		if (job->is_seen)
			continue;
		job_stop(job, "57014", "the job has been removed");
		TAILQ_REMOVE(&r->jobs, job, entry);
		job_destroy(job);
	}
	r->generation = topo_generation(topo);
	jobs_publish(r);
}

void
stored_remove(struct replicate *r, const char *name)
{
	for (size_t i = 0; i < r->stored_count; i++) {
		if (strcmp(r->stored[i].name, name) != 0)
			continue;
		job_text_free(&r->stored[i]);
		r->stored[i] = r->stored[--r->stored_count];
		return;
	}
}

void
stored_put(struct replicate *r, const struct topo_job_text *text)
{
	stored_remove(r, text->name);
	r->stored = mem_realloc(r->stored, (r->stored_count + 1) * sizeof(*r->stored));
	job_text_copy(&r->stored[r->stored_count++], text);
}

static void
fresh_free(struct replicate *r)
{
	while (r->fresh_count > 0)
		job_text_free(&r->fresh[--r->fresh_count]);
	free(r->fresh);
	r->fresh = NULL;
}

static void
fresh_each(void *arg, const struct topo_job_text *text)
{
	struct replicate *r = replicate_of(arg);

	if (r == NULL)
		return;
	r->fresh = mem_realloc(r->fresh, (r->fresh_count + 1) * sizeof(*r->fresh));
	job_text_copy(&r->fresh[r->fresh_count++], text);
}

/* What was read is what the store has: what came and went here was asked of it in the same
 * order. */
static void
fresh_take(struct replicate *r)
{
	while (r->stored_count > 0)
		stored_remove(r, r->stored[0].name);
	free(r->stored);
	r->stored = r->fresh;
	r->stored_count = r->fresh_count;
	r->fresh = NULL;
	r->fresh_count = 0;
}

static void
stored_done(struct worker *w, void *arg, int fault, const char *why)
{
	struct replicate *r = replicate_of(w);

	(void)arg;
	if (r == NULL)
		return;
	r->is_loading = false;
	if (fault != 0) {
		log_warning("replicate: the jobs of the store are not known: %s", why);
		r->load_at_us = clock_us() + LOAD_AGAIN_US;
		fresh_free(r);
		return;
	}
	fresh_take(r);
	r->is_loaded = true;
	settle(r);
}

/* ---- the clock ---- */

static void
run_due(struct replicate *r, int64_t now_us)
{
	struct job *job;
	unsigned running = 0;

	TAILQ_FOREACH(job, &r->jobs, entry)
		running += job->run != NULL || job->claiming != NULL;
	TAILQ_FOREACH(job, &r->jobs, entry) {
		if (job->run != NULL || job->claiming != NULL || !job->is_enabled ||
		    job->due_us == 0 || job->due_us > now_us || running >= RUNS_AT_ONCE)
			continue;
		job_begin(r, job, job->interval_us, NULL, NULL);
		running++;
	}
	if (running > 0 || r->has_changed)
		jobs_publish(r);
}

static void
on_tick(struct worker *w, int64_t now_us)
{
	struct replicate *r = replicate_of(w);

	if (r == NULL)
		return;
	if (r->generation != topo_generation(pool_worker(w)->topo))
		settle(r);
	if ((r->has_news || !r->is_loaded) && !r->is_loading && now_us >= r->load_at_us) {
		r->is_loading = true;
		if (r->load_at_us == 0 && !r->is_loaded)
			past_load(r, ONCE);
		store_jobs_load(w, fresh_each, stored_done, w);
		if (r->has_news)
			past_load(r, NULL);
		r->has_news = false;
	}
	run_due(r, now_us);
}

static void
on_news(struct worker *w)
{
	struct replicate *r = replicate_of(w);

	if (r != NULL)
		r->has_news = true;
}

void
replicate_init(struct worker *side)
{
	struct replicate *r = mem_alloc(sizeof(*r));

	r->side = side;
	TAILQ_INIT(&r->jobs);
	TAILQ_INIT(&r->loose);
	side->slot[WORKER_REPLICATE] = r;
	worker_on_tick(side, on_tick);
	if (store_is_shared())
		store_on_change(side, on_news);
}

void
replicate_fini(struct worker *side)
{
	struct replicate *r = replicate_of(side);
	struct job *job;

	if (r == NULL)
		return;
	side->slot[WORKER_REPLICATE] = NULL;
	while ((job = TAILQ_FIRST(&r->loose)) != NULL) {
		bool is_kept = job->run == NULL; /* the store's answer lets go of it */

		job_stop(job, "57P01", "the proxy is being shut down");
		TAILQ_REMOVE(&r->loose, job, entry);
		if (!is_kept)
			job_destroy(job);
	}
	while ((job = TAILQ_FIRST(&r->jobs)) != NULL) {
		job_stop(job, "57P01", "the proxy is being shut down");
		TAILQ_REMOVE(&r->jobs, job, entry);
		job_destroy(job);
	}
	while (r->stored_count > 0)
		stored_remove(r, r->stored[0].name);
	free(r->stored);
	fresh_free(r);
	free(r);
	board_clear();
}
