/*
 * topo/jobs.c: [replication x]: a job as words, and whether they are right. Jobs of the store
 * and of CREATE JOB are checked by the same rules.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

#define JOB_NAME_MAX 63

enum job_mode { JOB_SYNC_KEY, JOB_FULL };

static bool
is_said(const char *text)
{
	return (text != NULL && *text != '\0');
}

/* ---- what is right ---- */

/* The database of that name; NULL: said why not. */
static const struct topo_database *
find_database(
    struct complaint *c, const struct topo *t, const char *word, const char *name)
{
	const struct database_node *n = topo_database_node(t, name);
	struct name_list names = {0};

	if (n != NULL && !n->db.is_auto)
		return (&n->db);
	if (topo_virtual_find(t, name) != NULL) {
		complain(c, word,
		    "\"%s\" is a virtual database, allowed are those behind it", name);
		return (NULL);
	}
	names_of_databases(t, &names);
	complain_unknown(c, word, "database", name, &names);
	return (NULL);
}

static void
check_target(struct complaint *c, const struct topo *t, const struct topo_job_text *job,
    const char *name)
{
	const struct topo_database *db = find_database(c, t, "targets", name);

	if (db == NULL)
		return;
	if (is_said(job->source) && strcmp(job->source, name) == 0)
		complain(c, "targets",
		    "\"%s\" is the source, allowed are other databases", name);
	else if (db->replica_of != NULL)
		complain(c, "targets",
		    "\"%s\" is a replica, nothing can be written there, allowed is its "
		    "primary \"%s\"",
		    name, db->replica_of->name);
	else if (db->is_read_only)
		complain(c, "targets",
		    "\"%s\" is read_only, allowed are databases that take writes", name);
}

static void
check_databases(
    struct complaint *c, const struct topo *t, const struct topo_job_text *job)
{
	struct name_list targets = {0}, seen = {0};
	struct strings keep = {0};

	if (!is_said(job->source))
		complain(c, "source", "missing, allowed is the name of a database");
	else
		(void)find_database(c, t, "source", job->source);
	if (is_said(job->targets))
		list_read(&keep, job->targets, &targets);
	if (targets.count == 0)
		complain(c, "targets", "missing, allowed are names of databases");
	for (size_t i = 0; i < targets.count; i++) {
		const char *name = targets.names[i];

		if (list_has(&seen, name))
			complain(c, "targets",
			    "\"%s\" stands there twice, allowed is once", name);
		else
			check_target(c, t, job, name);
		list_add(&seen, name);
	}
	free(targets.names);
	free(seen.names);
	strings_free(&keep);
}

static void
check_tables(struct complaint *c, const char *tables)
{
	struct name_list seen = {0};
	struct strings keep = {0};
	const char *piece, *wrong, *full;
	struct table_name name;
	size_t len;

	while (is_said(tables) && list_next(&tables, &piece, &len)) {
		wrong = table_name_read(&keep, piece, len, &name);
		if (wrong == NULL && !name.is_exact)
			wrong = "is a pattern";
		if (wrong != NULL) {
			complain(c, "tables",
			    "\"%s\" %s, allowed are table and schema.table", name.text,
			    wrong);
			full = "";
		} else {
			full = strings_keep(
			    &keep, mem_printf("%s.%s", schema_or_public(name.schema),
				       name.table));
			if (list_has(&seen, full))
				complain(c, "tables",
				    "\"%s\" stands there twice, allowed is once",
				    name.text);
		}
		list_add(&seen, full);
	}
	if (seen.count == 0)
		complain(c, "tables", "missing, allowed are names of tables");
	free(seen.names);
	strings_free(&keep);
}

/* One column, named as a table is. */
static void
check_sync_key(struct complaint *c, const struct topo_job_text *job, bool is_needed)
{
	struct strings keep = {0};
	struct table_name name;
	const char *wrong;

	if (!is_said(job->sync_key)) {
		if (is_needed)
			complain(c, "sync_key",
			    "missing, allowed is the name of a column; mode = full needs "
			    "none");
		return;
	}
	wrong = table_name_read(&keep, job->sync_key, strlen(job->sync_key), &name);
	if (wrong == NULL && (name.schema != NULL || !name.is_exact))
		wrong = "is not one name";
	if (wrong != NULL)
		complain(c, "sync_key", "\"%s\" %s, allowed is the name of a column",
		    job->sync_key, wrong);
	strings_free(&keep);
}

static void
check_name(struct complaint *c, const char *name)
{
	if (!is_said(name))
		complain(c, "name", "missing");
	else if (strlen(name) > JOB_NAME_MAX)
		complain(c, "name", "\"%.80s\" is too long, allowed are %d bytes", name,
		    JOB_NAME_MAX);
}

static void
check_job(struct complaint *c, const struct topo *t, const struct topo_job_text *job)
{
	int64_t mode = JOB_SYNC_KEY, n;

	check_name(c, job->name);
	check_databases(c, t, job);
	check_tables(c, job->tables);
	complain_number(c, SC_JOB, "mode", job->mode, &mode);
	check_sync_key(c, job, mode == JOB_SYNC_KEY);
	complain_number(c, SC_JOB, "interval", job->interval, &n);
	complain_number(c, SC_JOB, "enabled", job->enabled, &n);
	complain_number(c, SC_JOB, "overlap", job->overlap, &n);
}

bool
topo_job_check(
    const struct topo *t, const struct topo_job_text *job, char *why, size_t why_len)
{
	struct complaint c = {.why = why, .why_len = why_len};

	check_job(&c, t, job);
	return (!c.is_wrong);
}

/* ---- [replication x] ---- */

struct draft {
	struct topo_job_text text;
	bool deletes, create_missing;
};

#define TEXT_SLOT(key)                                                                   \
	{                                                                                \
#key, SLOT_TEXT, offsetof(struct draft, text.key)                        \
	}
#define FLAG_SLOT(key)                                                                   \
	{                                                                                \
#key, SLOT_FLAG, offsetof(struct draft, key)                             \
	}
static const struct slot slots[] = {
    TEXT_SLOT(source),
    TEXT_SLOT(targets),
    TEXT_SLOT(tables),
    TEXT_SLOT(sync_key),
    TEXT_SLOT(interval),
    TEXT_SLOT(enabled),
    TEXT_SLOT(mode),
    TEXT_SLOT(overlap),
    FLAG_SLOT(deletes),
    FLAG_SLOT(create_missing),
};

static void
read_job(struct topo *t, const struct conf_section *s, struct conf_problems *problems)
{
	struct draft d = {.text = {.name = s->name}};
	struct words w = {
	    .topo = t,
	    .problems = problems,
	    .scope = SC_JOB,
	    .slots = slots,
	    .slot_count = ARRAY_LEN(slots),
	    .base = &d,
	    .at = s->at,
	};
	struct complaint c = {.words = &w};

	words_begin(&w);
	for (size_t i = 0; i < s->key_count; i++)
		words_put(&w, s->keys[i].key, s->keys[i].value, s->keys[i].at);
	if (d.deletes)
		complain(&c, "deletes", "not supported yet, allowed is off");
	if (d.create_missing)
		complain(&c, "create_missing", "not supported yet, allowed is off");
	check_job(&c, t, &d.text);
	words_end(&w);
	t->jobs = mem_realloc(t->jobs, (t->job_count + 1) * sizeof(*t->jobs));
	t->jobs[t->job_count++] = (struct topo_job){.text = d.text, .at = s->at};
}

void
jobs_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);

		if (strcmp(s->kind, "replication") == 0 && *s->name != '\0')
			read_job(t, s, problems);
	}
}

size_t
topo_job_count(const struct topo *t)
{
	return (t->job_count);
}

const struct topo_job *
topo_job(const struct topo *t, size_t i)
{
	INVARIANT(i < t->job_count);
	return (&t->jobs[i]);
}
