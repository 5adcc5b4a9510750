/*
 * The jobs: those of the configuration and those of the store, when they are due, and what
 * others ask of them. All of it lives on the side thread.
 *
 * A job is in the list, or loose: a new one while it is checked and until the store has it,
 * and that of REPLICATE TABLE while it runs. A name that the configuration and the store both
 * have is the configuration's.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FIRST_RUN_US    SECOND_US /* after the start, so that it is not in the way */
#define LOAD_AGAIN_US   (30 * SECOND_US) /* the store did not answer */
#define RUNS_AT_ONCE    8                /* that are due; those asked for come on top */
#define RUNS_REMEMBERED 100              /* of a job, from the store */
#define ONCE            "REPLICATE TABLE"

TAILQ_HEAD(job_list, job);
struct replicate {
	struct worker *side;
	struct job_list jobs, loose;
	/* The store's, as it has them: also those that the configuration hides. */
	struct topo_job_text *stored;
	size_t stored_count;
	uint64_t generation; /* of the snapshot that the jobs are from */
	bool is_loading, is_loaded, has_changed;
	int64_t load_at_us; /* monotonic */
	int64_t once_number;
};

static struct replicate *
replicate_of(struct worker *w)
{
	return (w->slot[WORKER_REPLICATE]);
}

/* ---- answers ---- */

static void answer(replicate_done *done, void *arg, const char *sqlstate, const char *fmt,
    ...) PRINTF(4, 5);
static void
answer(replicate_done *done, void *arg, const char *sqlstate, const char *fmt, ...)
{
	char message[1200];
	struct replicate_answer a = {
	    .fault = F_JOB, .sqlstate = sqlstate, .message = message};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	done(arg, &a);
}

/* The store did not do what is told. */
static void
answer_store(replicate_done *done, void *arg, int fault, const char *what,
    const char *name, const char *why)
{
	char message[1200];
	struct replicate_answer a = {.fault = F_JOB,
	    .sqlstate = fault_info(fault)->sqlstate,
	    .message = message,
	    .hint = fault == F_STORE ? STORE_HINT : NULL};

	snprintf(message, sizeof(message), "%s job \"%s\": %s", what, name, why);
	done(arg, &a);
}

static void
answer_well(replicate_done *done, void *arg, const char *notice)
{
	struct replicate_answer a = {.sqlstate = "00000", .notice = notice};

	done(arg, &a);
}

static void
answer_gone(replicate_done *done, void *arg)
{
	answer(done, arg, "57P01", "the proxy is being shut down");
}

static struct job *
job_find(struct job_list *list, const char *name)
{
	struct job *job;

	TAILQ_FOREACH(job, list, entry)
		if (strcmp(job->text.name, name) == 0)
			return (job);
	return (NULL);
}

/* The job of that name, or NULL and the answer has been given. */
static struct job *
job_named(struct worker *w, const char *name, replicate_done *done, void *arg)
{
	struct replicate *r = replicate_of(w);
	struct job *job;

	if (r == NULL) {
		answer_gone(done, arg);
		return (NULL);
	}
	job = job_find(&r->jobs, name);
	if (job == NULL)
		answer(done, arg, "42704", "job \"%s\" does not exist", name);
	return (job);
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

static void
publish(struct replicate *r)
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

static void
job_start(struct replicate *r, struct job *job, replicate_done *done, void *arg)
{
	job->run_number = job->is_once ? ++r->once_number : job->run_number + 1;
	job->last_run_us = clock_wall_us();
	/* Whoever asks for a run does not wait for one that is due. */
	job->due_us = job->interval_us > 0 ? clock_us() + job->interval_us : 0;
	(void)run_start(r->side, job, PURPOSE_RUN, NULL, done, arg);
	publish(r);
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
	publish(r);
}

/* Ends the job's run, if there is one: the job is about to go. */
static void
job_stop(struct job *job, const char *sqlstate, const char *message)
{
	struct run *run = job->run;

	job->run = NULL;
	if (run != NULL)
		run_abort(run, sqlstate, message);
}

/* ---- runs of earlier processes ---- */

struct past {
	struct worker *side;
	char *name;
	struct store_run runs[RUNS_REMEMBERED];
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
	mine->job = past->name;
	mine->target = mem_str(run->target);
	mine->table = mem_str(run->table);
	mine->outcome = mem_str(run->outcome);
	mine->error = run->error != NULL ? mem_str(run->error) : NULL;
}

/* What the newest of them says of the job, unless it has run meanwhile. */
static void
past_apply(struct job *job, const struct store_run *newest)
{
	if (job->run_number < newest->run)
		job->run_number = newest->run;
	if (job->has_run || job->run != NULL)
		return;
	job->has_run = true;
	job->last_run_us = newest->started_us;
	job->has_failed = strcmp(newest->outcome, "failed") == 0;
	if (newest->error != NULL)
		job->last_error =
		    mem_printf("target \"%s\": %s", newest->target, newest->error);
}

static void
past_done(struct worker *w, void *arg, int fault, const char *why)
{
	struct past *past = arg;
	struct replicate *r = replicate_of(past->side);
	struct job *job = r != NULL ? job_find(&r->jobs, past->name) : NULL;

	(void)w;
	if (fault != 0)
		log_warning("replicate: earlier runs are not known: %s", why);
	if (job != NULL && past->count > 0)
		past_apply(job, &past->runs[0]);
	if (r != NULL && past->count > 0 && strcmp(past->name, ONCE) == 0 &&
	    r->once_number < past->runs[0].run)
		r->once_number = past->runs[0].run;
	for (size_t i = past->count; i-- > 0;) {
		struct store_run *run = &past->runs[i];

		if (r != NULL)
			board_run(run);
		free((void *)(uintptr_t)run->target);
		free((void *)(uintptr_t)run->table);
		free((void *)(uintptr_t)run->outcome);
		free((void *)(uintptr_t)run->error);
	}
	if (r != NULL)
		r->has_changed = true;
	free(past->name);
	free(past);
}

static void
past_load(struct replicate *r, const char *name)
{
	struct past *past = mem_alloc(sizeof(*past));

	past->side = r->side;
	past->name = mem_str(name);
	store_runs_load(r->side, past->name, RUNS_REMEMBERED, past_each, past_done, past);
}

/* ---- which jobs there are ---- */

static void
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
	publish(r);
}

/* The store's list, kept as the store has it. */
static void
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

static void
stored_put(struct replicate *r, const struct topo_job_text *text)
{
	stored_remove(r, text->name);
	r->stored = mem_realloc(r->stored, (r->stored_count + 1) * sizeof(*r->stored));
	job_text_copy(&r->stored[r->stored_count++], text);
}

static void
stored_each(void *arg, const struct topo_job_text *text)
{
	struct replicate *r = replicate_of(arg);

	if (r != NULL)
		stored_put(r, text);
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
		return;
	}
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
		running += job->run != NULL;
	TAILQ_FOREACH(job, &r->jobs, entry) {
		if (job->run != NULL || !job->is_enabled || job->due_us == 0 ||
		    job->due_us > now_us || running >= RUNS_AT_ONCE)
			continue;
		job_start(r, job, NULL, NULL);
		running++;
	}
	if (running > 0 || r->has_changed)
		publish(r);
}

static void
on_tick(struct worker *w, int64_t now_us)
{
	struct replicate *r = replicate_of(w);

	if (r == NULL)
		return;
	if (r->generation != topo_generation(pool_worker(w)->topo))
		settle(r);
	if (!r->is_loaded && !r->is_loading && now_us >= r->load_at_us) {
		r->is_loading = true;
		if (r->load_at_us == 0)
			past_load(r, ONCE);
		store_jobs_load(w, stored_each, stored_done, w);
	}
	run_due(r, now_us);
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
	free(r);
	board_clear();
}

/* ---- CREATE JOB ---- */

/* On its way to the store. */
struct keeping {
	struct job *job; /* of CREATE; or NULL */
	char *name;
	bool is_enabled; /* PAUSE, RESUME */
	char *notice;
	replicate_done *done;
	void *arg;
};

static struct keeping *
keeping_create(const char *name, replicate_done *done, void *arg)
{
	struct keeping *k = mem_alloc(sizeof(*k));

	k->name = mem_str(name);
	k->done = done;
	k->arg = arg;
	return (k);
}

static void
keeping_free(struct keeping *k)
{
	free(k->name);
	free(k->notice);
	free(k);
}

static void
create_kept(struct worker *w, void *arg, int fault, const char *why)
{
	struct keeping *k = arg;
	struct replicate *r = replicate_of(w);
	struct job *job = k->job;

	if (r == NULL) {
		answer_gone(k->done, k->arg);
		job_destroy(job);
	} else if (fault != 0) {
		answer_store(k->done, k->arg, fault, "cannot keep", k->name, why);
		job_leave(w, job);
	} else {
		TAILQ_REMOVE(&r->loose, job, entry);
		job->is_loose = false;
		stored_put(r, &job->text);
		job_add(r, job, clock_us());
		publish(r);
		answer_well(k->done, k->arg, k->notice);
	}
	keeping_free(k);
}

static void
create_checked(struct run *run)
{
	struct job *job = run->job;
	struct keeping *k = keeping_create(job->text.name, run->done, run->arg);

	job->run = NULL;
	k->job = job;
	if (run->notices.len > 0)
		k->notice =
		    mem_strn((const char *)run->notices.mem, run->notices.len - 1);
	store_job_put(run->side, &job->text, create_kept, k);
}

/* A database that there is not has an SQLSTATE of its own. */
static const char *
words_state(const struct topo *topo, const struct job *job)
{
	const struct topo_database *db = topo_database_find(topo, job->text.source);
	bool are_there = db != NULL && !db->is_auto;

	for (size_t i = 0; i < job->targets.count; i++) {
		db = topo_database_find(topo, job->targets.v[i]);
		are_there &= db != NULL && !db->is_auto;
	}
	return (are_there ? "22023" : "3D000");
}

/* A loose job of these words, or NULL and the answer has been given. */
static struct job *
loose_create(
    struct worker *w, const struct topo_job_text *text, replicate_done *done, void *arg)
{
	struct replicate *r = replicate_of(w);
	struct topo_job_text mine = *text;
	char why[512] = "", *interval = NULL, *overlap = NULL;
	const char *state = "22023";
	struct job *job;
	int64_t us;

	if (r == NULL) {
		answer_gone(done, arg);
		return (NULL);
	}
	if (text->mode != NULL && (strcasecmp(text->mode, "logical") == 0 ||
				      strcasecmp(text->mode, "auto") == 0)) {
		answer(done, arg, "0A000", "mode %s is not supported yet", text->mode);
		return (NULL);
	}
	/* In the configuration's form, whatever it was given in. */
	if (text->interval != NULL && interval_read(text->interval, &us))
		mine.interval = interval = interval_text(us);
	if (text->overlap != NULL && interval_read(text->overlap, &us))
		mine.overlap = overlap = interval_text(us);
	job = job_create(&mine, why, sizeof(why));
	if (job != NULL &&
	    !topo_job_check(pool_worker(w)->topo, &mine, why, sizeof(why))) {
		state = words_state(pool_worker(w)->topo, job);
		job_destroy(job);
		job = NULL;
	}
	free(interval);
	free(overlap);
	if (job == NULL) {
		answer(done, arg, state, "%s", why);
		return (NULL);
	}
	job->is_loose = true;
	TAILQ_INSERT_TAIL(&r->loose, job, entry);
	return (job);
}

/* Whether two words may mean one table: "t" is one with "public"."t" and "app"."t". */
static bool
is_same_table(const char *a, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > b_len)
		return (is_same_table(b, a));
	return (strcmp(a, b + b_len - a_len) == 0 &&
		(a_len == b_len || b[b_len - a_len - 1] == '.'));
}

/* Rows that feeder brings keep the sync keys that they had, and may be there only after reader
 * has gone past those. */
static void
notice_chain(const struct job *feeder, const struct job *reader, struct buf *out)
{
	const struct names *fed = &feeder->tables, *read = &reader->tables;

	if (reader->is_full || reader->overlap_us >= 0 ||
	    !names_have(&feeder->targets, reader->text.source))
		return;
	for (size_t i = 0; i < read->count; i++)
		for (size_t n = 0; n < fed->count; n++)
			if (is_same_table(read->v[i], fed->v[n]))
				buf_addf(out,
				    "job \"%s\" brings rows to table %s of database \"%s\", from where job \"%s\" takes them: those that arrive late are missed unless it has an OVERLAP longer than they need\n",
				    feeder->text.name, read->v[i], reader->text.source,
				    reader->text.name);
}

static void
notice_chains(const struct replicate *r, const struct job *job, struct buf *out)
{
	const struct job *other;

	TAILQ_FOREACH(other, &r->jobs, entry) {
		notice_chain(other, job, out);
		notice_chain(job, other, out);
	}
}

void
replicate_create(struct worker *side, const struct topo_job_text *text,
    replicate_done *done, void *arg)
{
	struct replicate *r = replicate_of(side);
	struct job *job;
	struct run *run;

	if (r != NULL && (job_find(&r->jobs, text->name) != NULL ||
			     job_find(&r->loose, text->name) != NULL)) {
		answer(done, arg, "42710", "job \"%s\" exists already", text->name);
		return;
	}
	job = loose_create(side, text, done, arg);
	if (job == NULL)
		return;
	run = run_start(side, job, PURPOSE_CHECK, create_checked, done, arg);
	notice_chains(r, job, &run->notices);
}

/* ---- DROP JOB ---- */

static void
drop_kept(struct worker *w, void *arg, int fault, const char *why)
{
	struct keeping *k = arg;
	struct replicate *r = replicate_of(w);
	struct job *job = r != NULL ? job_find(&r->jobs, k->name) : NULL;

	if (r == NULL)
		answer_gone(k->done, k->arg);
	else if (fault != 0 && fault != F_NOT_FOUND)
		answer_store(k->done, k->arg, fault, "cannot drop", k->name, why);
	else {
		stored_remove(r, k->name);
		if (job != NULL) {
			job_stop(job, "57014", "the job has been dropped");
			TAILQ_REMOVE(&r->jobs, job, entry);
			job_destroy(job);
		}
		publish(r);
		answer_well(k->done, k->arg, NULL);
	}
	keeping_free(k);
}

void
replicate_drop(struct worker *side, const char *name, replicate_done *done, void *arg)
{
	const struct job *job = job_named(side, name, done, arg);

	if (job == NULL)
		return;
	if (job->is_from_file)
		answer(done, arg, "55000",
		    "job \"%s\" is defined in the configuration: remove it there", name);
	else
		store_job_delete(side, name, drop_kept, keeping_create(name, done, arg));
}

/* ---- PAUSE JOB, RESUME JOB ---- */

static void
job_enable(struct replicate *r, struct job *job, bool is_enabled)
{
	free((void *)(uintptr_t)job->text.enabled);
	job->text.enabled = mem_str(is_enabled ? "yes" : "no");
	if (is_enabled && !job->is_enabled && job->interval_us > 0)
		job->due_us = clock_us();
	job->is_enabled = is_enabled;
	if (!job->is_from_file)
		stored_put(r, &job->text);
	publish(r);
}

static void
pause_kept(struct worker *w, void *arg, int fault, const char *why)
{
	struct keeping *k = arg;
	struct replicate *r = replicate_of(w);
	struct job *job = r != NULL ? job_find(&r->jobs, k->name) : NULL;

	if (r == NULL)
		answer_gone(k->done, k->arg);
	else if (job == NULL)
		answer(k->done, k->arg, "42704", "job \"%s\" does not exist", k->name);
	else {
		job_enable(r, job, k->is_enabled);
		if (fault == 0)
			answer_well(k->done, k->arg, NULL);
		else {
			char *notice = mem_printf(
			    "until the next start: the store does not keep it: %s", why);

			answer_well(k->done, k->arg, notice);
			free(notice);
		}
	}
	keeping_free(k);
}

void
replicate_pause(
    struct worker *side, const char *name, bool paused, replicate_done *done, void *arg)
{
	struct job *job = job_named(side, name, done, arg);
	struct topo_job_text text;
	struct keeping *k;

	if (job == NULL)
		return;
	if (job->is_from_file) {
		const char *was = job->text.enabled;

		/* Its words stay those of the configuration: a reload that leaves them as they
		 * are changes nothing. */
		job->text.enabled = mem_str(was);
		job_enable(replicate_of(side), job, !paused);
		free((void *)(uintptr_t)job->text.enabled);
		job->text.enabled = was;
		answer_well(done, arg,
		    "until the next start: the job is defined in the configuration");
		return;
	}
	text = job->text;
	text.enabled = paused ? "no" : "yes";
	k = keeping_create(name, done, arg);
	k->is_enabled = !paused;
	store_job_put(side, &text, pause_kept, k);
}

/* ---- RUN JOB, REPLICATE TABLE ---- */

void
replicate_run(struct worker *side, const char *name, replicate_done *done, void *arg)
{
	struct job *job = job_named(side, name, done, arg);

	if (job == NULL)
		return;
	if (job->run != NULL)
		answer(done, arg, "55006", "job \"%s\" is running already", name);
	else
		job_start(replicate_of(side), job, done, arg);
}

void
replicate_once(struct worker *side, const struct topo_job_text *text,
    replicate_done *done, void *arg)
{
	struct topo_job_text named = *text;
	struct job *job;

	named.name = ONCE;
	job = loose_create(side, &named, done, arg);
	if (job == NULL)
		return;
	job->is_once = true;
	job->interval_us = 0;
	job_start(replicate_of(side), job, done, arg);
}
