/*
 * What must be asked of the databases themselves: sizes, counts of tables, the schema. Each
 * database is asked on a session of its own, a few at a time.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE 8

static const char stats_sql[] =
    "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace"
    " WHERE c.relkind IN ('r', 'p')"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')),"
    " pg_catalog.pg_size_pretty(pg_catalog.pg_database_size(pg_catalog.current_database())),"
    " pg_catalog.pg_database_size(pg_catalog.current_database())";

static const char schema_sql[] =
    "SELECT c.table_schema, c.table_name, t.table_type, c.column_name, c.data_type,"
    " c.is_nullable, c.column_default"
    " FROM information_schema.columns c"
    " JOIN information_schema.tables t USING (table_schema, table_name)"
    " WHERE c.table_schema NOT IN ('pg_catalog', 'information_schema')"
    " ORDER BY 1, 2, c.ordinal_position";

/* ---- statistics ---- */

struct stats;
/* One database that is asked. */
struct stats_part {
	struct stats *stats;
	const struct topo_database *db;
	struct inner *inner;
	struct buf answer; /* an object */
};
struct stats {
	struct job *job;
	struct stats_part *parts;
	size_t count, next, running;
	bool is_one; /* the answer is that of the only part */
};

static void
stats_free(void *state)
{
	struct stats *s = state;

	for (size_t i = 0; i < s->count; i++) {
		inner_close(s->parts[i].inner);
		buf_free(&s->parts[i].answer);
	}
	free(s->parts);
	free(s);
}

static void
stats_done(struct stats *s)
{
	struct buf body = {0};
	struct json j = {.out = &body};

	if (s->is_one) {
		json_raw(&j, s->parts[0].answer.mem, s->parts[0].answer.len);
	} else {
		json_open(&j, '{');
		for (size_t i = 0; i < s->count; i++) {
			json_key(&j, s->parts[i].db->name);
			json_raw(&j, s->parts[i].answer.mem, s->parts[i].answer.len);
		}
		json_close(&j, '}');
	}
	job_json(s->job, 200, &body);
}

static void
stats_row(void *arg, const struct inner_value *values, unsigned count)
{
	struct stats_part *p = arg;
	struct json j = {.out = &p->answer};

	if (count != 3 || p->answer.len > 0 ||
	    !number_is_json(values[0].p, values[0].len) ||
	    !number_is_json(values[2].p, values[2].len))
		return;
	json_open(&j, '{');
	json_key(&j, "database");
	json_text(&j, p->db->name);
	json_key(&j, "table_count");
	json_raw(&j, values[0].p, values[0].len);
	json_key(&j, "database_size");
	json_textn(&j, values[1].p, values[1].len);
	json_key(&j, "database_size_bytes");
	json_raw(&j, values[2].p, values[2].len);
	json_key(&j, "status");
	json_text(&j, "available");
	json_close(&j, '}');
}

static void
stats_failed(struct stats_part *p, const struct inner_message *error)
{
	struct json j = {.out = &p->answer};

	p->answer.len = 0;
	json_open(&j, '{');
	json_key(&j, "database");
	json_text(&j, p->db->name);
	json_key(&j, "status");
	json_text(&j, p->db->is_configured ? "unavailable" : "not configured");
	json_key(&j, "error");
	error_object(&j, error);
	json_close(&j, '}');
}

/* False: the job is answered. */
static bool
stats_refused(struct stats_part *p, const struct inner_message *error)
{
	if (!p->stats->is_one) {
		stats_failed(p, error);
		return (true);
	}
	job_fault(p->stats->job, error);
	return (false);
}

static void stats_go_on(struct stats *);

static void
stats_end(void *arg, const struct inner_end *end)
{
	static const struct inner_message nothing = {
	    "ERROR", "XX000", "the database did not answer as it should", NULL, NULL};
	struct stats_part *p = arg;
	struct stats *s = p->stats;

	if (!end->ok || p->answer.len == 0) {
		if (!stats_refused(p, end->ok ? &nothing : &end->error))
			return;
	}
	inner_close(p->inner);
	p->inner = NULL;
	s->running--;
	stats_go_on(s);
}

static const struct inner_reader stats_reader = {.row = stats_row, .end = stats_end};

/* False: the job is answered. */
static bool
stats_start(struct stats_part *p)
{
	static const struct inner_message
	    full = {"ERROR", "53300", "no descriptors are left for a connection", NULL,
		NULL},
	    unset = {"ERROR", "57P03", "the database is not configured: it has no host",
		NULL, NULL};
	struct job *job = p->stats->job;
	char *way;

	/* Its fallback would answer with numbers of its own. */
	if (!p->db->is_configured)
		return (stats_refused(p, &unset));
	way = who_way_to(job, p->db);
	p->inner = inner_open(job->http->worker, job->who.login, way, &job->peer,
	    (size_t)job_settings(job)->http_max_result);
	free(way);
	if (p->inner == NULL)
		return (stats_refused(p, &full));
	p->stats->running++;
	inner_ask(p->inner, stats_sql, &(struct inner_params){0}, &stats_reader, p);
	return (true);
}

static void
stats_go_on(struct stats *s)
{
	while (s->next < s->count && s->running < AT_ONCE)
		if (!stats_start(&s->parts[s->next++]))
			return;
	if (s->running == 0)
		stats_done(s);
}

static void
stats_add(void *arg, const struct topo_database *db)
{
	struct stats *s = arg;

	s->parts = mem_realloc(s->parts, (s->count + 1) * sizeof(*s->parts));
	s->parts[s->count++] = (struct stats_part){.stats = s, .db = db};
}

static struct stats *
stats_create(struct job *job)
{
	struct stats *s = mem_alloc(sizeof(*s));

	s->job = job;
	job->state = s;
	job->state_free = stats_free;
	return (s);
}

void
stats_all(struct job *job)
{
	struct stats *s = stats_create(job);

	databases_each(job, stats_add, s);
	stats_go_on(s);
}

void
stats_one(struct job *job)
{
	const struct topo_database *db = who_named(job);
	struct stats *s;

	if (db == NULL)
		return;
	s = stats_create(job);
	s->is_one = true;
	stats_add(s, db);
	stats_go_on(s);
}

/* ---- the schema ---- */

struct schema {
	struct job *job;
	struct inner *inner;
	struct buf tables;
	struct json j;
	char *table; /* the one whose columns come, with its schema; NULL: none yet */
	char database[256];
	bool is_virtual;
};

static void
schema_free(void *state)
{
	struct schema *s = state;

	inner_close(s->inner);
	buf_free(&s->tables);
	free(s->table);
	free(s);
}

static void
schema_text(struct json *j, const char *key, const struct inner_value *v)
{
	json_key(j, key);
	if (v->p == NULL)
		json_nil(j);
	else
		json_textn(j, v->p, v->len);
}

static void
schema_table_ends(struct schema *s)
{
	if (s->table == NULL)
		return;
	json_close(&s->j, ']');
	json_close(&s->j, '}');
	free(s->table);
	s->table = NULL;
}

static void
schema_row(void *arg, const struct inner_value *v, unsigned count)
{
	struct schema *s = arg;
	char *table;

	if (count != 7)
		return;
	table = mem_printf("%.*s.%.*s", (int)v[0].len, v[0].p, (int)v[1].len, v[1].p);
	if (s->table == NULL || strcmp(s->table, table) != 0) {
		schema_table_ends(s);
		s->table = table;
		json_open(&s->j, '{');
		schema_text(&s->j, "schema", &v[0]);
		schema_text(&s->j, "name", &v[1]);
		json_key(&s->j, "type");
		json_text(&s->j,
		    v[2].len == 4 && memcmp(v[2].p, "VIEW", 4) == 0 ? "view" : "table");
		json_key(&s->j, "columns");
		json_open(&s->j, '[');
	} else
		free(table);
	json_open(&s->j, '{');
	schema_text(&s->j, "name", &v[3]);
	schema_text(&s->j, "type", &v[4]);
	json_key(&s->j, "nullable");
	json_bool(&s->j, v[5].len == 3);
	schema_text(&s->j, "default", &v[6]);
	json_close(&s->j, '}');
	if ((int64_t)s->tables.len > job_settings(s->job)->http_max_result)
		job_error(s->job, 500, "54000",
		    "the schema is larger than http_max_result", NULL, NULL);
}

static void
schema_done(struct schema *s)
{
	struct buf body = {0};
	struct json j = {.out = &body};

	schema_table_ends(s);
	json_open(&j, '{');
	json_key(&j, "database");
	json_text(&j, s->database[0] != '\0' ? s->database : NULL);
	json_key(&j, "tables");
	json_open(&j, '[');
	buf_add(&body, s->tables.mem, s->tables.len);
	json_close(&j, ']');
	json_close(&j, '}');
	job_json(s->job, 200, &body);
}

static void
schema_end(void *arg, const struct inner_end *end)
{
	struct schema *s = arg;

	if (!end->ok)
		job_fault(s->job, &end->error);
	else if (!s->is_virtual)
		schema_done(s);
}

static void
schema_routed_row(void *arg, const struct inner_value *v, unsigned count)
{
	struct schema *s = arg;

	if (count > 0 && v[0].p != NULL)
		snprintf(s->database, sizeof(s->database), "%.*s", (int)v[0].len, v[0].p);
}

static void
schema_routed_end(void *arg, const struct inner_end *end)
{
	(void)end;
	schema_done(arg);
}

void
stats_schema(struct job *job)
{
	static const struct inner_reader reader = {.row = schema_row, .end = schema_end};
	static const struct inner_reader routed = {
	    .row = schema_routed_row, .end = schema_routed_end};
	struct schema *s;

	if (!who_needs_database(job))
		return;
	if (topo_is_console(job->who.database)) {
		job_error(job, 400, "0A000", "the console has no schema", NULL,
		    "SHOW HELP lists what it knows");
		return;
	}
	s = mem_alloc(sizeof(*s));
	s->job = job;
	s->j.out = &s->tables;
	s->is_virtual = job->who.virt != NULL;
	job->state = s;
	job->state_free = schema_free;
	if (!s->is_virtual)
		text_copy(s->database, sizeof(s->database), job->who.database);
	s->inner = inner_open(job->http->worker, job->who.login, job->who.database,
	    &job->peer, (size_t)job_settings(job)->http_max_result);
	if (s->inner == NULL) {
		job_error(job, 429, "53300", "no descriptors are left for a connection",
		    NULL, NULL);
		return;
	}
	inner_ask(s->inner, schema_sql, &(struct inner_params){0}, &reader, s);
	if (s->is_virtual)
		inner_say(s->inner, "SHOW pgweave.routed", &routed, s);
}
