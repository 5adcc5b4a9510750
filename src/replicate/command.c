/*
 * What is said to jobs: CREATE, DROP, PAUSE, RESUME and RUN JOB, and REPLICATE TABLE. The store
 * comes first: what it does not keep, or does not drop, has not happened.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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
	    .hint = store_hint(fault)};

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
	if (job != NULL && !job->is_leaving)
		return (job);
	answer(done, arg, "42704", "job \"%s\" does not exist", name);
	return (NULL);
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
		jobs_publish(r);
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
	else if (fault != 0 && fault != F_NOT_FOUND) {
		if (job != NULL)
			job->is_leaving = false;
		answer_store(k->done, k->arg, fault, "cannot drop", k->name, why);
	} else {
		stored_remove(r, k->name);
		if (job != NULL) {
			job_stop(job, "57014", "the job has been dropped");
			TAILQ_REMOVE(&r->jobs, job, entry);
			job_destroy(job);
		}
		jobs_publish(r);
		answer_well(k->done, k->arg, NULL);
	}
	keeping_free(k);
}

void
replicate_drop(struct worker *side, const char *name, replicate_done *done, void *arg)
{
	struct job *job = job_named(side, name, done, arg);

	if (job == NULL)
		return;
	if (job->is_from_file) {
		answer(done, arg, "55000",
		    "job \"%s\" is defined in the configuration: remove it there", name);
		return;
	}
	job->is_leaving = true;
	store_job_delete(side, name, drop_kept, keeping_create(name, done, arg));
}

/* ---- PAUSE JOB, RESUME JOB ---- */

void
job_enable(struct job *job, bool is_enabled)
{
	free((void *)(uintptr_t)job->text.enabled);
	job->text.enabled = mem_str(is_enabled ? "yes" : "no");
	if (is_enabled && !job->is_enabled && job->interval_us > 0)
		job->due_us = clock_us();
	job->is_enabled = is_enabled;
}

static void
pause_job(struct replicate *r, struct job *job, bool is_enabled)
{
	job_enable(job, is_enabled);
	if (!job->is_from_file)
		stored_put(r, &job->text);
	jobs_publish(r);
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
	else if (fault == F_STORE_DOWN)
		/* What the other proxies do not hear would not last. */
		answer_store(k->done, k->arg, fault, "cannot change", k->name, why);
	else {
		pause_job(r, job, k->is_enabled);
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
		pause_job(replicate_of(side), job, !paused);
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
	bool is_asked_for;

	if (job == NULL)
		return;
	is_asked_for = job->claiming != NULL ? job->is_claimed_for
					     : job->run != NULL && job->run->done != NULL;
	if (job->run == NULL && job->claiming == NULL)
		job_begin(replicate_of(side), job, 0, done, arg);
	else if (!is_asked_for && job->waiter == NULL) {
		/* It has run by itself, and may not have seen what is there now. */
		job->waiter = done;
		job->waiter_arg = arg;
	} else
		answer(done, arg, "55006", "job \"%s\" is running already", name);
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
