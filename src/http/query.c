/*
 * Statements: one, or several in a transaction.
 *
 *     one           statement, SHOW pgweave.routed
 *     transaction   BEGIN, statement, … one after the other, COMMIT, SHOW pgweave.routed
 *                   a failure: ROLLBACK, then the answer
 *
 * pgweave.routed is what a virtual database knows: the member that the statement went to.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 256

struct query {
	struct job *job;
	struct inner *inner;
	struct statement *list;
	size_t count, at;
	bool is_transaction, asks_routed;
	struct result result; /* of the statement that runs */
	struct warnings warnings;
	struct buf results; /* transaction: objects and commas */
	char tag[NAME_MAX_BYTES], database[NAME_MAX_BYTES];
	struct buf failure; /* transaction: the answer, while ROLLBACK runs */
	int failure_status;
};

static void
query_free(void *state)
{
	struct query *q = state;

	inner_close(q->inner);
	for (size_t i = 0; i < q->count; i++)
		body_statement_free(&q->list[i]);
	free(q->list);
	result_free(&q->result);
	buf_free(&q->warnings.list);
	buf_free(&q->results);
	buf_free(&q->failure);
	free(q);
}

static struct query *
query_create(struct job *job, size_t count)
{
	struct query *q = mem_alloc(sizeof(*q));

	q->job = job;
	q->list = mem_alloc((count + 1) * sizeof(*q->list));
	job->state = q;
	job->state_free = query_free;
	return (q);
}

/* ---- the answer ---- */

static void
query_done(struct query *q)
{
	struct buf body = {0};
	struct json j = {.out = &body};

	json_open(&j, '{');
	if (q->is_transaction) {
		json_key(&j, "results");
		json_open(&j, '[');
		buf_add(&body, q->results.mem, q->results.len);
		json_close(&j, ']');
	} else
		result_fields(&j, &q->result, q->tag);
	json_key(&j, "database");
	json_text(&j, q->database[0] != '\0' ? q->database : NULL);
	json_key(&j, "durationMs");
	json_ms(&j, clock_us() - q->job->start_us);
	warnings_field(&j, &q->warnings);
	json_close(&j, '}');
	job_json(q->job, 200, &body);
}

static void
routed_row(void *arg, const struct inner_value *values, unsigned count)
{
	struct query *q = arg;

	if (count > 0 && values[0].p != NULL)
		snprintf(q->database, sizeof(q->database), "%.*s", (int)values[0].len,
		    values[0].p);
}

/* That it cannot be told where a statement went is no failure of the statement. */
static void
routed_end(void *arg, const struct inner_end *end)
{
	(void)end;
	query_done(arg);
}

static const struct inner_reader routed_reader = {.row = routed_row, .end = routed_end};

/* ---- one statement ---- */

static void
query_columns(void *arg, const struct inner_column *columns, unsigned count)
{
	struct query *q = arg;

	result_columns(&q->result, columns, count);
}

static void
query_row(void *arg, const struct inner_value *values, unsigned count)
{
	struct query *q = arg;
	int64_t max = job_settings(q->job)->http_max_result;
	char message[96];

	result_row(&q->result, values, count);
	if ((int64_t)q->result.rows.len + q->results.len <= max)
		return;
	snprintf(message, sizeof(message),
	    "the result is larger than http_max_result (%" PRId64 " bytes)", max);
	job_error(q->job, 500, "54000", message, NULL,
	    "fetch fewer rows, or raise http_max_result");
}

static void
query_notice(void *arg, const struct inner_message *m)
{
	struct query *q = arg;

	warnings_add(&q->warnings, m);
}

static void
query_end(void *arg, const struct inner_end *end)
{
	struct query *q = arg;

	if (!end->ok) {
		job_fault(q->job, &end->error);
		return;
	}
	text_copy(q->tag, sizeof(q->tag), end->tag);
	if (!q->asks_routed)
		query_done(q);
}

static const struct inner_reader query_reader = {
    query_columns, query_row, query_notice, query_end};

void
statement_ask(struct inner *inner, const struct statement *s,
    const struct inner_reader *reader, void *arg)
{
	const struct inner_params params = {.texts = (const char *const *)s->params,
	    .arrays = (const char *const *)s->arrays,
	    .count = s->count};

	inner_ask(inner, s->sql, &params, reader, arg);
}

static void
statement_send(struct query *q, const struct inner_reader *reader)
{
	const struct statement *s = &q->list[q->at];

	statement_ask(q->inner, s, reader, q);
}

/* ---- transactions ---- */

static void
rolled_back(void *arg, const struct inner_end *end)
{
	struct query *q = arg;
	struct buf body = q->failure;

	(void)end;
	q->failure = (struct buf){0};
	job_json(q->job, q->failure_status, &body);
}

static const struct inner_reader rollback_reader = {.end = rolled_back};

/* index: of the statement that failed; -1: none of them, but the commit. status: that of the
 * transaction. */
static void
transaction_fail(
    struct query *q, const struct inner_message *m, int64_t index, char status)
{
	struct json j = {.out = &q->failure};

	json_open(&j, '{');
	json_key(&j, "error");
	error_object(&j, m);
	if (index >= 0) {
		json_key(&j, "failedQuery");
		json_int(&j, index);
	}
	json_close(&j, '}');
	q->failure_status = status_of(m->sqlstate);
	if (status == 'T' || status == 'E')
		inner_say(q->inner, "ROLLBACK", &rollback_reader, q);
	else
		rolled_back(q, NULL);
}

static void
commit_end(void *arg, const struct inner_end *end)
{
	static const struct inner_message undone = {
	    "ERROR", "40000", "the transaction was rolled back", NULL, NULL};
	struct query *q = arg;

	if (!end->ok)
		transaction_fail(q, &end->error, -1, end->status);
	else if (strcmp(end->tag, "COMMIT") != 0)
		transaction_fail(q, &undone, -1, end->status);
	else if (q->asks_routed)
		inner_say(q->inner, "SHOW pgweave.routed", &routed_reader, q);
	else
		query_done(q);
}

static const struct inner_reader commit_reader = {
    .notice = query_notice, .end = commit_end};

static const struct inner_reader step_reader;

static void
step_keep(struct query *q, const char *tag)
{
	struct json j = {.out = &q->results, .wants_comma = q->at > 0};

	json_open(&j, '{');
	result_fields(&j, &q->result, tag);
	json_close(&j, '}');
	result_free(&q->result);
}

static void
step_end(void *arg, const struct inner_end *end)
{
	static const struct inner_message ended = {"ERROR", "2D000",
	    "the query has ended the transaction", NULL,
	    "leave BEGIN, COMMIT and ROLLBACK out of \"queries\""};
	struct query *q = arg;

	if (!end->ok) {
		transaction_fail(q, &end->error, (int64_t)q->at, end->status);
		return;
	}
	if (end->status != 'T') {
		transaction_fail(q, &ended, (int64_t)q->at, end->status);
		return;
	}
	step_keep(q, end->tag);
	if (++q->at < q->count)
		statement_send(q, &step_reader);
	else
		inner_say(q->inner, "COMMIT", &commit_reader, q);
}

static const struct inner_reader step_reader = {
    query_columns, query_row, query_notice, step_end};

static void
begin_end(void *arg, const struct inner_end *end)
{
	struct query *q = arg;

	if (!end->ok)
		transaction_fail(q, &end->error, -1, end->status);
	else
		statement_send(q, &step_reader);
}

static const struct inner_reader begin_reader = {
    .notice = query_notice, .end = begin_end};

/* ---- the beginning ---- */

/* database: what the session asks for; is_virtual: it knows where statements go. */
static void
query_start(struct query *q, const char *database, bool is_virtual)
{
	struct job *job = q->job;

	q->inner = inner_open(job->http->worker, job->who.login, database, &job->peer,
	    (size_t)job_settings(job)->http_max_result);
	if (q->inner == NULL) {
		job_error(job, 429, fault_info(F_TOO_MANY_CLIENTS)->sqlstate,
		    "no descriptors are left for a connection", NULL, NULL);
		return;
	}
	q->asks_routed = is_virtual;
	if (!is_virtual)
		text_copy(q->database, sizeof(q->database), database);
	if (q->is_transaction) {
		inner_say(q->inner, "BEGIN", &begin_reader, q);
		return;
	}
	statement_send(q, &query_reader);
	if (q->asks_routed)
		inner_say(q->inner, "SHOW pgweave.routed", &routed_reader, q);
}

static const char *const statement_words[] = {"query", "params", NULL};

/* The statement of the body; NULL: the job is answered. */
static struct query *
query_read(struct job *job)
{
	json_t *body = job_body(job);
	struct query *q;
	struct refusal why;
	int rc;

	if (body == NULL)
		return (NULL);
	q = query_create(job, 1);
	q->count = 1;
	rc = body_only(body, statement_words, &why);
	if (rc == 0)
		rc = body_statement(body, "", &q->list[0], &why);
	json_decref(body);
	if (rc == 0)
		return (q);
	job_refuse(job, &why);
	return (NULL);
}

void
query_run(struct job *job)
{
	struct query *q;

	if (!who_needs_database(job))
		return;
	q = query_read(job);
	if (q != NULL)
		query_start(q, job->who.database, job->who.virt != NULL);
}

void
query_execute(struct job *job)
{
	const struct topo_database *db = who_named(job);
	struct query *q;
	char *way;

	if (db == NULL)
		return;
	q = query_read(job);
	if (q == NULL)
		return;
	way = who_way_to(job, db);
	query_start(q, way, strcmp(way, db->name) != 0);
	free(way);
}

static int
transaction_read(struct query *q, const json_t *list, struct refusal *why)
{
	size_t i;
	json_t *item;

	json_array_foreach(list, i, item)
	{
		char where[40];

		snprintf(where, sizeof(where), "queries[%zu]", i);
		if (!json_is_object(item))
			return (body_refuse(why, "22023",
			    "\"%s\" must be an object with \"query\" and \"params\"",
			    where));
		snprintf(where, sizeof(where), "queries[%zu].", i);
		if (body_only(item, statement_words, why) != 0 ||
		    body_statement(item, where, &q->list[i], why) != 0)
			return (F_BODY);
		q->count++;
	}
	return (0);
}

void
query_transaction(struct job *job)
{
	static const char *const words[] = {"queries", NULL};
	struct refusal why;
	json_t *body, *list;
	struct query *q;
	int rc;

	if (!who_needs_database(job) || (body = job_body(job)) == NULL)
		return;
	list = json_object_get(body, "queries");
	q = query_create(job, json_array_size(list));
	q->is_transaction = true;
	rc = body_only(body, words, &why);
	if (rc == 0 && json_array_size(list) == 0)
		rc = body_refuse(
		    &why, "22023", "\"queries\" must be an array of statements");
	if (rc == 0)
		rc = transaction_read(q, list, &why);
	json_decref(body);
	if (rc != 0)
		job_refuse(job, &why);
	else
		query_start(q, job->who.database, job->who.virt != NULL);
}
