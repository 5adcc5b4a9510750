/*
 * One run of a job, or one check of it: a leg for each target, side by side; its end when the
 * last of them has ended, and what is told and kept of it.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_US (15 * SECOND_US)

/* ---- the end of a leg ---- */

static void
leg_bury(struct burial *b)
{
	struct leg *leg = CONTAINER_OF(b, struct leg, burial);

	for (size_t i = 0; i < leg->copy_count; i++)
		copy_free(&leg->copies[i]);
	complaint_free(&leg->complaint);
	buf_free(&leg->sql);
	free(leg->bound.holder);
	free(leg->read_error);
	free(leg->copies);
	free(leg->order);
	free(leg->tables);
	free(leg);
}

static void
leg_close(struct leg *leg)
{
	if (leg->from != NULL)
		side_close(leg->from);
	if (leg->to != NULL)
		side_close(leg->to);
	leg->from = leg->to = NULL;
}

static void
kept(struct worker *w, void *arg, int fault, const char *why)
{
	(void)w;
	(void)arg;
	if (fault != 0)
		log_warning("replicate: the store does not keep a run: %s", why);
}

/* One line of the log, and a row of JOB_RUNS, for a table. */
static void
copy_report(const struct leg *leg, const struct copy *c)
{
	const struct run *run = leg->run;
	const struct job *job = run->job;
	bool is_done = c != NULL && c->ended_us != 0;
	struct store_run row = {
	    .job = job->text.name,
	    .run = job->run_number,
	    .started_us =
		c != NULL && c->started_us != 0 ? c->started_us : run->started_wall_us,
	    .ended_us = is_done ? c->ended_us : clock_wall_us(),
	    .target = leg->target,
	    .table = c != NULL ? job->words.v[c - leg->copies] : "",
	    .outcome = is_done                       ? "done"
		       : leg->outcome == LEG_SKIPPED ? "skipped"
						     : "failed",
	    .error = is_done ? NULL : leg->complaint.message,
	};

	if (c != NULL) {
		row.rows_read = c->rows_read;
		row.bytes = c->bytes;
	}
	/* What a transaction wrote that failed is not there. */
	if (is_done) {
		row.rows_written = c->rows_written;
		row.rows_deleted = c->rows_deleted;
	}
	stat_count(M_replication_rows_read, (uint64_t)row.rows_read);
	stat_count(M_replication_rows_written, (uint64_t)row.rows_written);
	board_run(&row);
	store_run_put(run->side, &row, kept, NULL);
	if (is_done)
		log_info("replicate: %s/%s: table=%s read=%" PRId64 " written=%" PRId64
			 " deleted=%" PRId64 " bytes=%" PRId64 " ms=%" PRId64,
		    row.job, row.target, row.table, row.rows_read, row.rows_written,
		    row.rows_deleted, row.bytes, (row.ended_us - row.started_us) / 1000);
}

static void
leg_report(struct leg *leg)
{
	const struct copy *failed = NULL;
	struct buf *notices = &leg->run->notices;

	for (size_t i = 0; i < leg->copy_count; i++) {
		const struct copy *c = &leg->copies[leg->order[i]];

		if (c->ended_us != 0) {
			copy_report(leg, c);
			buf_addf(notices,
			    "target \"%s\", table %s: %" PRId64 " rows read, %" PRId64
			    " written, %" PRId64 " deleted\n",
			    leg->target, c->asked, c->rows_read, c->rows_written,
			    c->rows_deleted);
		} else if (c->started_us != 0)
			failed = c;
	}
	if (leg->outcome == LEG_DONE)
		return;
	copy_report(leg, failed);
	log_warning("replicate: %s/%s: %s: %s", leg->run->job->text.name, leg->target,
	    leg->outcome == LEG_SKIPPED ? "skipped" : "failed", leg->complaint.message);
}

void
leg_end(struct leg *leg, enum leg_outcome outcome)
{
	struct run *run = leg->run;

	INVARIANT(leg->outcome == LEG_BUSY && outcome != LEG_BUSY && run->left > 0);
	leg->outcome = outcome;
	leg_close(leg);
	if (run->purpose == PURPOSE_RUN)
		leg_report(leg);
	if (outcome != LEG_DONE && run->complaint.message == NULL) {
		complaint_set(&run->complaint, leg->complaint.sqlstate,
		    leg->complaint.hint, "%s", leg->complaint.message);
		run->failed_target = leg->target;
		run->is_skipped = outcome == LEG_SKIPPED;
	}
	if (--run->left == 0)
		worker_post(run->side, &run->mail);
}

void
leg_fail(struct leg *leg, const char *sqlstate, const char *hint, const char *fmt, ...)
{
	char message[1200];
	va_list ap;

	if (leg->outcome != LEG_BUSY)
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	complaint_set(&leg->complaint, sqlstate, hint, "%s", message);
	leg_end(leg, LEG_FAILED);
}

void
leg_skip(struct leg *leg, const char *message)
{
	complaint_set(&leg->complaint, "55006", NULL, "%s", message);
	leg_end(leg, LEG_SKIPPED);
}

/* ---- the beginning of a leg ---- */

static void
leg_opened(struct side *s, void *arg, const char *err)
{
	struct leg *leg = arg;

	if (err != NULL)
		leg_fail(leg, "08006", NULL, "cannot connect to database \"%s\": %s",
		    s == leg->from ? leg->run->job->text.source : leg->target, err);
	else if (--leg->opening == 0)
		leg_walk(leg);
}

/* The one that answers for it now: of a primary and its replicas the one that takes the writes,
 * whatever the configuration calls it. NULL: the leg has ended. */
static const struct topo_database *
leg_node(struct leg *leg, const struct topo_database *db)
{
	const struct topo_database *rival = NULL, *node = db;

	/* A replica that is named is meant. */
	if (db->replica_of == NULL)
		node = topo_database_primary(db, &rival);
	if (rival == NULL)
		return (node);
	leg_fail(leg, "57P03",
	    "Stop the one that is not to be written, or make it a replica of the other.",
	    "databases \"%s\" and \"%s\" both claim to be the primary", node->name,
	    rival->name);
	return (NULL);
}

/* The database, or NULL and the leg has ended. */
static const struct topo_database *
leg_database(struct leg *leg, const struct topo *topo, const char *name, bool is_written)
{
	const struct topo_database *db = topo_database_find(topo, name), *node;
	struct topo_verdict *v;
	char reason[256] = "";

	if (db == NULL || db->is_auto) {
		leg_fail(leg, "3D000", NULL, "no such database: %s", name);
		return (NULL);
	}
	if (!db->is_configured) {
		leg_fail(leg, "57P03", NULL,
		    "database \"%s\" is not configured: it has no host", name);
		return (NULL);
	}
	if (is_written && (db->is_read_only || db->replica_of != NULL)) {
		leg_fail(leg, "25006", NULL,
		    "database \"%s\" is read-only: it cannot be a target", name);
		return (NULL);
	}
	node = leg_node(leg, db);
	v = node != NULL ? node->verdict : NULL;
	if (v == NULL || topo_verdict_is_up(v))
		return (node);
	pthread_mutex_lock(&v->lock);
	(void)text_copy(reason, sizeof(reason), v->reason);
	pthread_mutex_unlock(&v->lock);
	leg_fail(leg, "57P03", reason[0] != '\0' ? reason : NULL, "database \"%s\" is %s",
	    node->name, topo_status_name((enum topo_status)v->status));
	return (NULL);
}

static void
leg_open(struct leg *leg)
{
	struct worker *w = leg->run->side;
	const struct topo *topo = pool_worker(w)->topo;
	const struct topo_database *from, *to;

	from = leg_database(leg, topo, leg->run->job->text.source, false);
	to = from != NULL ? leg_database(leg, topo, leg->target, true) : NULL;
	if (to == NULL)
		return;
	leg->opening = 2;
	leg->from = side_open(w, topo, from, APPLICATION_NAME, OPEN_US, leg_opened, leg);
	leg->to = side_open(w, topo, to, APPLICATION_NAME, OPEN_US, leg_opened, leg);
}

static struct leg *
leg_create(struct run *run, const char *target)
{
	const struct job *job = run->job;
	struct leg *leg = mem_alloc(sizeof(*leg));

	leg->run = run;
	leg->target = target;
	leg->copy_count = job->tables.count;
	leg->copies = mem_alloc(leg->copy_count * sizeof(*leg->copies));
	leg->order = mem_alloc(leg->copy_count * sizeof(*leg->order));
	leg->tables = sql_array(&job->tables);
	for (size_t i = 0; i < leg->copy_count; i++) {
		leg->copies[i].asked = job->tables.v[i];
		leg->copies[i].sync_key = job->is_full ? NULL : job->sync_key;
		leg->order[i] = i;
	}
	return (leg);
}

/* ---- the run ---- */

int64_t
run_rows(const struct run *run)
{
	const struct leg *leg;
	int64_t rows = 0;

	TAILQ_FOREACH(leg, &run->legs, entry)
		for (size_t i = 0; i < leg->copy_count; i++)
			rows += leg->copies[i].rows_read;
	return (rows);
}

/* What the catalog takes the tables to hold, where all of their rows are read. */
int64_t
run_rows_total(const struct run *run)
{
	const struct leg *leg;
	int64_t rows = 0;

	TAILQ_FOREACH(leg, &run->legs, entry)
		for (size_t i = 0; i < leg->copy_count; i++) {
			const struct copy *c = &leg->copies[i];

			if (c->ended_us != 0)
				rows += c->rows_read;
			else if (c->watermark != NULL || c->source.rows_estimate <= 0)
				return (-1);
			else
				rows += c->source.rows_estimate;
		}
	return (rows);
}

int64_t
run_whole_us(const struct run *run)
{
	const struct leg *leg;
	int64_t us = INT64_MAX;

	TAILQ_FOREACH(leg, &run->legs, entry)
		us = leg->whole_us < us ? leg->whole_us : us;
	return (us == INT64_MAX ? 0 : us);
}

static void
run_bury(struct burial *b)
{
	struct run *run = CONTAINER_OF(b, struct run, burial);

	buf_free(&run->notices);
	complaint_free(&run->complaint);
	free(run);
}

static void
run_let_go(struct run *run)
{
	struct leg *leg;

	while ((leg = TAILQ_FIRST(&run->legs)) != NULL) {
		TAILQ_REMOVE(&run->legs, leg, entry);
		worker_bury(run->side, &leg->burial, leg_bury);
	}
	worker_bury(run->side, &run->burial, run_bury);
}

/* Tells who waits, if anybody does. */
static void
run_answer(struct run *run)
{
	struct replicate_answer answer = {.sqlstate = run->complaint.sqlstate,
	    .message = run->complaint.message,
	    .hint = run->complaint.hint};
	char *detail = NULL;

	if (run->done == NULL)
		return;
	if (run->notices.len > 0) {
		/* Without the last line feed. */
		run->notices.mem[run->notices.len - 1] = '\0';
		answer.notice = (const char *)run->notices.mem;
	}
	if (run->complaint.message != NULL) {
		answer.fault = F_JOB;
		if (run->failed_target != NULL)
			detail = run->job->is_once
				     ? mem_printf("Target \"%s\".", run->failed_target)
				     : mem_printf("Job \"%s\", target \"%s\".",
					   run->job->text.name, run->failed_target);
		answer.detail = detail;
	}
	run->done(run->arg, &answer);
	free(detail);
}

static void
run_end(struct run *run)
{
	struct worker *w = run->side;
	struct job *job = run->job;

	if (!run->is_aborted && run->complaint.message == NULL && run->checked != NULL)
		run->checked(run);
	else if (!run->is_aborted) {
		/* Whoever is told may look at the job, or ask for another run, at once. */
		bool is_loose = job->is_loose;

		job_ran(job, run);
		run_answer(run);
		if (is_loose)
			job_leave(w, job);
	}
	run_let_go(run);
}

/* Other proxies may have the job. */
static void
run_released(struct worker *w, void *arg, int fault, const char *why)
{
	(void)w;
	(void)fault;
	(void)why;
	run_end(arg);
}

/* The last leg has ended. Who is told may ask another proxy for the next run at once. */
static void
run_over(struct worker *w, struct mail *m)
{
	struct run *run = CONTAINER_OF(m, struct run, mail);

	if (run->is_aborted || run->purpose != PURPOSE_RUN ||
	    !job_unclaim(w, run->job, run_released, run))
		run_end(run);
}

void
run_abort(struct run *run, const char *sqlstate, const char *message)
{
	struct leg *leg;
	bool is_posted = run->left == 0;

	run->is_aborted = true;
	TAILQ_FOREACH(leg, &run->legs, entry)
		leg_close(leg);
	run->failed_target = NULL;
	complaint_set(&run->complaint, sqlstate, NULL, "%s", message);
	run_answer(run);
	if (!is_posted)
		run_let_go(run);
}

struct run *
run_start(struct worker *w, struct job *job, enum purpose purpose,
    void (*checked)(struct run *), replicate_done *done, void *arg)
{
	struct run *run = mem_alloc(sizeof(*run));
	struct leg *leg;

	run->mail.run = run_over;
	run->side = w;
	run->job = job;
	run->purpose = purpose;
	run->checked = checked;
	run->done = done;
	run->arg = arg;
	run->started_us = clock_us();
	run->started_wall_us = clock_wall_us();
	run->left = job->targets.count;
	INVARIANT(run->left > 0 && job->tables.count > 0);
	TAILQ_INIT(&run->legs);
	for (size_t i = 0; i < job->targets.count; i++) {
		leg = leg_create(run, job->targets.v[i]);
		TAILQ_INSERT_TAIL(&run->legs, leg, entry);
	}
	job->run = run;
	TAILQ_FOREACH(leg, &run->legs, entry)
		leg_open(leg);
	return (run);
}
