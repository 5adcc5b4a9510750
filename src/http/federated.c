/*
 * One statement on several databases.
 *
 *     SET pgweave.databases, .federation, .on_unavailable -> (all three went well) -> statement
 *
 * In tag mode the rows come with a first column that names the database: they are dealt out to
 * one result for each. A member without rows is there too; one that was left out has an error.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct member {
	const char *name; /* the snapshot's */
	struct result result;
	struct buf error; /* an object; empty: none */
};

struct federated {
	struct job *job;
	struct inner *inner;
	struct statement statement;
	bool is_tag, skips;
	unsigned sets_left;
	char *names; /* the field "databases", joined by commas; NULL: all */
	struct member *members;
	size_t member_count;
	struct result merged;
	struct warnings warnings;
};

static void
federated_free(void *state)
{
	struct federated *f = state;

	inner_close(f->inner);
	body_statement_free(&f->statement);
	for (size_t i = 0; i < f->member_count; i++) {
		result_free(&f->members[i].result);
		buf_free(&f->members[i].error);
	}
	free(f->members);
	free(f->names);
	result_free(&f->merged);
	buf_free(&f->warnings.list);
	free(f);
}

/* ---- members ---- */

static void
member_add(struct federated *f, const char *name)
{
	for (size_t i = 0; i < f->member_count; i++)
		if (strcmp(f->members[i].name, name) == 0)
			return;
	f->members = mem_realloc(f->members, (f->member_count + 1) * sizeof(*f->members));
	f->members[f->member_count++] = (struct member){.name = name};
}

static int
member_refuse(const struct topo_virtual *virt, const char *name, struct refusal *why)
{
	struct buf list = {0};

	for (size_t i = 0; i < virt->member_count; i++)
		buf_addf(&list, "%s%s", i > 0 ? ", " : "", virt->members[i]->name);
	(void)body_refuse(why, "22023",
	    "\"databases\" names \"%.60s\": the members of \"%s\" are %.*s", name,
	    virt->name, (int)list.len, (const char *)list.mem);
	buf_free(&list);
	return (F_BODY);
}

/* Those that are asked: named in the request, or all that may be reached. */
static int
members_find(struct federated *f, struct refusal *why)
{
	const struct who *who = &f->job->who;
	const char *at = f->names;

	for (size_t i = 0; f->names == NULL && i < who->virt->member_count; i++)
		if (who_may_reach(who, who->virt->members[i]))
			member_add(f, who->virt->members[i]->name);
	while (at != NULL) {
		const char *comma = strchr(at, ',');
		char *name =
		    mem_strn(at, comma != NULL ? (size_t)(comma - at) : strlen(at));
		const struct topo_database *db = topo_member_find(who->virt, name);
		int rc = db == NULL ? member_refuse(who->virt, name, why) : 0;

		free(name);
		if (rc != 0)
			return (rc);
		member_add(f, db->name);
		at = comma != NULL ? comma + 1 : NULL;
	}
	return (0);
}

static struct member *
member_of(struct federated *f, const struct inner_value *name)
{
	for (size_t i = 0; name->p != NULL && i < f->member_count; i++)
		if (strlen(f->members[i].name) == name->len &&
		    memcmp(f->members[i].name, name->p, name->len) == 0)
			return (&f->members[i]);
	return (NULL);
}

/* Whether the text has the name as a word of its own. */
static bool
names_member(const char *text, const char *name)
{
	static const char inside[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789_-";
	size_t len = strlen(name);

	for (const char *at = text; (at = strstr(at, name)) != NULL; at++)
		if ((at == text || strchr(inside, at[-1]) == NULL) &&
		    (at[len] == '\0' || strchr(inside, at[len]) == NULL))
			return (true);
	return (false);
}

/* ---- the statement ---- */

static void
federated_columns(void *arg, const struct inner_column *columns, unsigned count)
{
	struct federated *f = arg;

	if (!f->is_tag)
		result_columns(&f->merged, columns, count);
	else if (count == 0 || strcmp(columns[0].name, "database") != 0)
		job_error(f->job, 500, "XX000", "the rows do not say where they are from",
		    NULL, NULL);
	else
		for (size_t i = 0; i < f->member_count; i++)
			result_columns(&f->members[i].result, columns + 1, count - 1);
}

static bool
federated_fits(struct federated *f)
{
	int64_t max = job_settings(f->job)->http_max_result;
	uint64_t size = f->merged.rows.len;
	char message[96];

	for (size_t i = 0; i < f->member_count; i++)
		size += f->members[i].result.rows.len;
	if (size <= (uint64_t)max)
		return (true);
	snprintf(message, sizeof(message),
	    "the result is larger than http_max_result (%" PRId64 " bytes)", max);
	job_error(f->job, 500, "54000", message, NULL,
	    "fetch fewer rows, or raise http_max_result");
	return (false);
}

static void
federated_row(void *arg, const struct inner_value *values, unsigned count)
{
	struct federated *f = arg;
	struct member *m;

	if (!f->is_tag) {
		result_row(&f->merged, values, count);
		(void)federated_fits(f);
		return;
	}
	m = member_of(f, &values[0]);
	if (m == NULL) {
		job_error(f->job, 500, "XX000",
		    "a row is from a database that was not asked", NULL, NULL);
		return;
	}
	result_row(&m->result, values + 1, count - 1);
	(void)federated_fits(f);
}

static void
federated_notice(void *arg, const struct inner_message *m)
{
	struct federated *f = arg;

	warnings_add(&f->warnings, m);
	if (!f->skips || strcmp(m->severity, "WARNING") != 0)
		return;
	for (size_t i = 0; i < f->member_count; i++) {
		struct member *member = &f->members[i];
		struct json j = {.out = &member->error};

		if (member->error.len == 0 && (names_member(m->message, member->name) ||
						  names_member(m->detail, member->name)))
			error_object(&j, m);
	}
}

static void
members_write(struct json *j, struct federated *f, const char *tag)
{
	json_key(j, "results");
	json_open(j, '{');
	for (size_t i = 0; i < f->member_count; i++) {
		struct member *m = &f->members[i];

		json_key(j, m->name);
		json_open(j, '{');
		if (m->error.len > 0 && m->result.row_count == 0) {
			json_key(j, "error");
			json_raw(j, m->error.mem, m->error.len);
		} else
			result_fields(j, &m->result, tag);
		json_close(j, '}');
	}
	json_close(j, '}');
}

static void
federated_end(void *arg, const struct inner_end *end)
{
	struct federated *f = arg;
	struct buf body = {0};
	struct json j = {.out = &body};

	if (!end->ok) {
		job_fault(f->job, &end->error);
		return;
	}
	json_open(&j, '{');
	if (f->is_tag)
		members_write(&j, f, end->tag);
	else {
		result_fields(&j, &f->merged, end->tag);
		json_key(&j, "databases");
		json_open(&j, '[');
		for (size_t i = 0; i < f->member_count; i++)
			if (f->members[i].error.len == 0)
				json_text(&j, f->members[i].name);
		json_close(&j, ']');
	}
	json_key(&j, "durationMs");
	json_ms(&j, clock_us() - f->job->start_us);
	warnings_field(&j, &f->warnings);
	json_close(&j, '}');
	job_json(f->job, 200, &body);
}

static const struct inner_reader federated_reader = {
    federated_columns, federated_row, federated_notice, federated_end};

/* ---- before it ---- */

static void
set_end(void *arg, const struct inner_end *end)
{
	struct federated *f = arg;

	if (!end->ok)
		job_fault(f->job, &end->error);
	else if (--f->sets_left == 0)
		statement_ask(f->inner, &f->statement, &federated_reader, f);
}

static const struct inner_reader set_reader = {
    .notice = federated_notice, .end = set_end};

static void
say_set(struct federated *f, const char *setting, const char *value)
{
	struct buf sql = {0};

	buf_addf(&sql, "SET pgweave.%s = '", setting);
	for (const char *p = value; *p != '\0'; p++)
		buf_add(&sql, *p == '\'' ? "''" : p, *p == '\'' ? 2 : 1);
	buf_add(&sql, "'", 2);
	f->sets_left++;
	inner_say(f->inner, (const char *)sql.mem, &set_reader, f);
	buf_free(&sql);
}

/* The members that the request names, each once; "all" when it names none. */
static void
say_databases(struct federated *f)
{
	struct buf list = {0};

	for (size_t i = 0; f->names != NULL && i < f->member_count; i++)
		buf_addf(&list, "%s%s", i > 0 ? "," : "", f->members[i].name);
	say_set(f, "databases", f->names != NULL ? (const char *)list.mem : "all");
	buf_free(&list);
}

static void
federated_start(struct federated *f)
{
	struct job *job = f->job;

	f->inner = inner_open(job->http->worker, job->who.login, job->who.database,
	    &job->peer, (size_t)job_settings(job)->http_max_result);
	if (f->inner == NULL) {
		job_error(job, 429, fault_info(F_TOO_MANY_CLIENTS)->sqlstate,
		    "no descriptors are left for a connection", NULL, NULL);
		return;
	}
	say_databases(f);
	say_set(f, "federation", f->is_tag ? "tag" : "merge");
	say_set(f, "on_unavailable", f->skips ? "skip" : "error");
}

/* A field that is one of two words; the first one when it is not there. */
static int
read_choice(const json_t *body, const char *field, const char *const words[2],
    bool *is_second, struct refusal *why)
{
	const char *text;

	*is_second = false;
	if (body_text(body, field, false, &text, why) != 0)
		return (F_BODY);
	if (text == NULL || strcmp(text, words[0]) == 0)
		return (0);
	*is_second = strcmp(text, words[1]) == 0;
	if (*is_second)
		return (0);
	return (body_refuse(
	    why, "22023", "\"%s\" must be \"%s\" or \"%s\"", field, words[0], words[1]));
}

static int
federated_read(struct federated *f, const json_t *body, struct refusal *why)
{
	static const char *const words[] = {
	    "query", "params", "databases", "mode", "onUnavailable", NULL};
	static const char *const modes[] = {"tag", "merge"}, *const ways[] = {
								 "error", "skip"};
	bool is_merge = false;
	int rc = body_only(body, words, why);

	if (rc == 0)
		rc = read_choice(body, "mode", modes, &is_merge, why);
	if (rc == 0)
		rc = read_choice(body, "onUnavailable", ways, &f->skips, why);
	if (rc == 0)
		rc = body_names(body, "databases", &f->names, why);
	if (rc == 0)
		rc = body_statement(body, "", &f->statement, why);
	f->is_tag = !is_merge;
	return (rc);
}

void
federated_run(struct job *job)
{
	struct federated *f;
	struct refusal why;
	json_t *body;
	int rc;

	if (!who_needs_database(job) || (body = job_body(job)) == NULL)
		return;
	f = mem_alloc(sizeof(*f));
	f->job = job;
	job->state = f;
	job->state_free = federated_free;
	rc = federated_read(f, body, &why);
	json_decref(body);
	if (rc != 0)
		job_refuse(job, &why);
	else if (job->who.virt == NULL)
		job_error(job, 400, "0A000",
		    "federated statements need a virtual database", NULL,
		    "name one with the header X-Database or with ?database=");
	else if (members_find(f, &why) != 0)
		job_refuse(job, &why);
	else
		federated_start(f);
}
