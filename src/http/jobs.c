/* Replication jobs: listed, made, run; tables copied once. For logins, and for keys with
 * REPLICATE over the databases that they may reach. */
#include "private.h"
#include "replicate.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rights ---- */

static bool
jobs_allowed(struct job *job)
{
	const struct topo_key *rules = job->who.rules;

	if (rules == NULL || rules->can_replicate)
		return (true);
	job_error(job, 403, "42501",
	    job->who.key != NULL ? "the key has no right to replicate"
				 : "the login has no right to replicate",
	    NULL, "it needs REPLICATE");
	return (false);
}

/* The first of the names, separated by commas, that may not be reached; it is copied to out.
 * False: all may. */
static bool
first_barred(const struct job *job, const char *names, char *out, size_t size)
{
	const char *at = names;

	while (*at != '\0') {
		size_t skip = strspn(at, ", "), len = strcspn(at + skip, ",");
		const struct topo_database *db;

		snprintf(out, size, "%.*s", (int)len, at + skip);
		while (len > 0 && strlen(out) > 0 && out[strlen(out) - 1] == ' ')
			out[strlen(out) - 1] = '\0';
		at += skip + len;
		if (out[0] == '\0')
			continue;
		db = topo_database_find(job->topo, out);
		/* One that is not there is a mistake that replicate will name. */
		if (db != NULL && !db->is_auto && !who_may_reach(&job->who, db))
			return (true);
	}
	return (false);
}

static bool
jobs_may_touch(const struct job *job, const char *source, const char *targets, char *name,
    size_t size)
{
	return (!first_barred(job, source, name, size) &&
		!first_barred(job, targets, name, size));
}

/* ---- the list ---- */

static void
put_names(struct json *j, const char *key, const char *names)
{
	const char *at = names != NULL ? names : "";

	json_key(j, key);
	json_open(j, '[');
	while (*at != '\0') {
		size_t skip = strspn(at, ", "), len = strcspn(at + skip, ",");

		at += skip;
		if (len > 0)
			json_textn(j, at, len);
		at += len;
	}
	json_close(j, ']');
}

static void
put_count(struct json *j, const char *key, int64_t n)
{
	json_key(j, key);
	if (n < 0)
		json_nil(j);
	else
		json_int(j, n);
}

static void
put_status(struct json *j, const struct replicate_status *st)
{
	json_open(j, '{');
	json_key(j, "id");
	json_text(j, st->id);
	json_key(j, "name");
	json_text(j, st->name);
	json_key(j, "sourceDatabase");
	json_text(j, st->source);
	put_names(j, "targetDatabases", st->targets);
	put_names(j, "tables", st->tables);
	json_key(j, "syncKey");
	json_text(j, st->sync_key);
	json_key(j, "mode");
	json_text(j, st->mode);
	json_key(j, "intervalMinutes");
	if (st->interval_us > 0)
		buf_addf(j->out, "%.15g", (double)st->interval_us / 60e6);
	else
		buf_addstr(j->out, "null");
	j->wants_comma = true;
	json_key(j, "enabled");
	json_bool(j, st->is_enabled);
	json_key(j, "status");
	json_text(j, st->status);
	json_key(j, "running");
	json_bool(j, st->is_running);
	put_count(j, "rowsDone", st->rows_done);
	put_count(j, "rowsTotal", st->rows_total);
	json_key(j, "lagMs");
	json_ms(j, st->lag_us);
	json_key(j, "lastRun");
	json_time(j, st->last_run_us);
	json_key(j, "nextRun");
	json_time(j, st->next_run_us);
	json_key(j, "lastError");
	json_text(j, st->last_error);
	json_close(j, '}');
}

struct job_list_writer {
	const struct job *job;
	struct json j;
};

static void
list_one(void *arg, const struct replicate_status *st)
{
	struct job_list_writer *l = arg;
	char name[128];

	if (jobs_may_touch(l->job, st->source, st->targets, name, sizeof(name)))
		put_status(&l->j, st);
}

void
jobs_list(struct job *job)
{
	struct buf body = {0};
	struct job_list_writer l = {.job = job, .j.out = &body};

	if (!jobs_allowed(job))
		return;
	json_open(&l.j, '{');
	json_key(&l.j, "jobs");
	json_open(&l.j, '[');
	replicate_each(job->http->worker, list_one, &l);
	json_close(&l.j, ']');
	json_close(&l.j, '}');
	job_json(job, 200, &body);
}

/* ---- answers of replicate ---- */

/* A job by its name or id. */
struct lookup {
	const char *name;
	struct job_list_writer l;
	char *found; /* its name */
	bool is_barred;
};

static void
lookup_one(void *arg, const struct replicate_status *st)
{
	struct lookup *k = arg;
	char name[128];

	if (k->found != NULL ||
	    (strcmp(st->name, k->name) != 0 && strcmp(st->id, k->name) != 0))
		return;
	k->found = mem_str(st->name);
	k->is_barred =
	    !jobs_may_touch(k->l.job, st->source, st->targets, name, sizeof(name));
	put_status(&k->l.j, st);
}

/* What waits for replicate's answer. */
struct asked {
	struct tether *tether;
	char *name; /* of the job; NULL: it has none */
	int status; /* when it went well */
};

static void
asked_free(struct asked *a)
{
	free(a->name);
	free(a);
}

static void
asked_done(void *arg, const struct replicate_answer *answer)
{
	struct asked *a = arg;
	struct job *job = tether_end(a->tether);
	struct buf body = {0}, status = {0};
	struct lookup k = {.name = a->name, .l = {.job = job, .j.out = &status}};
	struct json j = {.out = &body};

	if (job == NULL) {
		asked_free(a);
		return;
	}
	if (answer->fault != 0) {
		const struct inner_message m = {"ERROR", answer->sqlstate,
		    answer->message, answer->detail, answer->hint};

		asked_free(a);
		job_fault(job, &m);
		return;
	}
	if (a->name != NULL)
		replicate_each(job->http->worker, lookup_one, &k);
	json_open(&j, '{');
	json_key(&j, "status");
	json_text(&j, "ok");
	if (k.found != NULL) {
		json_key(&j, "job");
		json_raw(&j, status.mem, status.len);
	}
	if (answer->notice != NULL) {
		json_key(&j, "notice");
		json_text(&j, answer->notice);
	}
	json_key(&j, "durationMs");
	json_ms(&j, clock_us() - job->start_us);
	json_close(&j, '}');
	free(k.found);
	buf_free(&status);
	job_json(job, a->status, &body);
	asked_free(a);
}

static struct asked *
asked_create(struct job *job, const char *name, int status)
{
	struct asked *a = mem_alloc(sizeof(*a));

	a->tether = tether_create(job);
	a->name = name != NULL ? mem_str(name) : NULL;
	a->status = status;
	return (a);
}

/* ---- making and running ---- */

/* The words of a job as the body has them. */
struct job_words {
	char *targets, *tables, *interval, *name;
	struct topo_job_text text;
};

static void
words_free(struct job_words *w)
{
	free(w->targets);
	free(w->tables);
	free(w->interval);
	free(w->name);
}

static int
read_interval(const json_t *body, struct job_words *w, struct refusal *why)
{
	const json_t *v = json_object_get(body, "intervalMinutes");
	double minutes = json_is_number(v) ? json_number_value(v) : 0;

	if (v == NULL || json_is_null(v))
		return (0);
	if (!(minutes >= 1.0 / 60 && minutes <= 527040))
		return (body_refuse(why, "22023",
		    "\"intervalMinutes\" must be a number of minutes, at least one second"));
	w->interval = mem_printf("%" PRId64 "s", (int64_t)(minutes * 60 + 0.5));
	return (0);
}

static int
read_enabled(const json_t *body, struct job_words *w, struct refusal *why)
{
	const json_t *v = json_object_get(body, "enabled");

	if (v != NULL && !json_is_boolean(v))
		return (body_refuse(why, "22023", "\"enabled\" must be true or false"));
	w->text.enabled = v == NULL ? NULL : json_is_true(v) ? "yes" : "no";
	return (0);
}

/* What a job and a single copy have in common. */
static int
read_words(const json_t *body, struct job_words *w, struct refusal *why)
{
	int rc = body_text(body, "sourceDatabase", true, &w->text.source, why);

	if (rc == 0)
		rc = body_text(body, "syncKey", false, &w->text.sync_key, why);
	if (rc == 0)
		rc = body_text(body, "mode", false, &w->text.mode, why);
	if (rc == 0)
		rc = body_names(body, "targetDatabases", &w->targets, why);
	if (rc == 0 && w->targets == NULL)
		rc = body_refuse(why, "22023", "\"targetDatabases\" is missing");
	w->text.targets = w->targets;
	return (rc);
}

static int
read_job(const json_t *body, struct job_words *w, struct refusal *why)
{
	static const char *const words[] = {"name", "sourceDatabase", "targetDatabases",
	    "tables", "syncKey", "intervalMinutes", "enabled", "mode", NULL};
	const char *name = NULL;
	uint8_t noise[4];
	int rc = body_only(body, words, why);

	if (rc == 0)
		rc = read_words(body, w, why);
	if (rc == 0)
		rc = body_names(body, "tables", &w->tables, why);
	if (rc == 0 && w->tables == NULL)
		rc = body_refuse(why, "22023", "\"tables\" is missing");
	if (rc == 0)
		rc = read_interval(body, w, why);
	if (rc == 0)
		rc = read_enabled(body, w, why);
	if (rc == 0)
		rc = body_text(body, "name", false, &name, why);
	random_bytes(noise, sizeof(noise));
	if (rc == 0)
		w->name = name != NULL ? mem_str(name)
				       : mem_printf("job_%02x%02x%02x%02x", noise[0],
					     noise[1], noise[2], noise[3]);
	w->text.name = w->name;
	w->text.tables = w->tables;
	w->text.interval = w->interval;
	return (rc);
}

static int
read_copy(const json_t *body, struct job_words *w, struct refusal *why)
{
	static const char *const words[] = {"sourceDatabase", "targetDatabases", "table",
	    "tables", "syncKey", "mode", NULL};
	const char *table = NULL;
	int rc = body_only(body, words, why);

	if (rc == 0)
		rc = read_words(body, w, why);
	if (rc == 0)
		rc = body_names(body, "tables", &w->tables, why);
	if (rc == 0)
		rc = body_text(body, "table", w->tables == NULL, &table, why);
	if (rc == 0 && table != NULL && w->tables != NULL)
		rc = body_refuse(why, "22023", "give \"table\" or \"tables\", not both");
	if (rc == 0 && table != NULL)
		w->tables = mem_str(table);
	w->text.tables = w->tables;
	return (rc);
}

/* Checks and hands it on. */
static void
jobs_order(struct job *job, bool is_kept)
{
	struct job_words w = {0};
	struct worker *side = job->http->worker;
	struct refusal why;
	json_t *body;
	char name[128];
	int rc;

	if (!jobs_allowed(job) || (body = job_body(job)) == NULL)
		return;
	rc = is_kept ? read_job(body, &w, &why) : read_copy(body, &w, &why);
	if (rc == 0 &&
	    !jobs_may_touch(job, w.text.source, w.text.targets, name, sizeof(name)))
		rc = body_refuse(
		    &why, "42501", "database \"%s\" may not be reached", name);
	if (rc != 0)
		job_refuse(job, &why);
	else if (is_kept)
		replicate_create(
		    side, &w.text, asked_done, asked_create(job, w.name, 201));
	else
		replicate_once(side, &w.text, asked_done, asked_create(job, NULL, 200));
	json_decref(body);
	words_free(&w);
}

void
jobs_create(struct job *job)
{
	jobs_order(job, true);
}

void
jobs_table(struct job *job)
{
	jobs_order(job, false);
}

void
jobs_run(struct job *job)
{
	struct buf status = {0};
	struct lookup k = {.name = job->part, .l = {.job = job, .j.out = &status}};

	if (!jobs_allowed(job))
		return;
	replicate_each(job->http->worker, lookup_one, &k);
	buf_free(&status);
	if (k.found == NULL)
		job_error(job, 404, "42704", "there is no such job", NULL,
		    "GET /api/database/replication/jobs lists them");
	else if (k.is_barred)
		job_error(job, 403, "42501",
		    "the job has databases that may not be reached", NULL, NULL);
	else
		replicate_run(job->http->worker, k.found, asked_done,
		    asked_create(job, k.found, 200));
	free(k.found);
}
