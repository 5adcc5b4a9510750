/* store/work.c: what is done with the store, in the thread that calls. */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_KEPT "1000" /* of each job */

bool
is_store_fault(int fault)
{
	return (fault == F_STORE || fault == F_STORE_DOWN);
}

const char *
store_hint(int fault)
{
	if (fault == F_STORE)
		return (
		    "The setting state_dir (or state_store) says where the state store "
		    "is; it must be there and be writable for the user that runs "
		    "pgweave.");
	if (fault == F_STORE_DOWN)
		return (
		    "Keys, routes and jobs can be changed when the database that "
		    "state_store names can be used again; SHOW STATE tells whether it "
		    "can. Until then its last known state is served.");
	return (NULL);
}

/* ---- reading ---- */

/* Keys in the order in which they were made, jobs by name, runs the newest first. */
static char *
load_rest(const struct store_kind *kind, bool has_name, int64_t limit)
{
	char most[32] = "";

	if (limit >= 0)
		snprintf(most, sizeof(most), " LIMIT %" PRId64, limit);
	return (mem_printf("%s%s%s ORDER BY %s%s", has_name ? " WHERE " : "",
	    has_name ? kind->columns[0].name : "", has_name ? " = ?1" : "",
	    kind == &store_run_kind   ? "rowid DESC"
	    : kind == &store_job_kind ? "name"
				      : "rowid",
	    most));
}

int
work_load(struct store_db *db, struct store_rows *rows, const char *name, int64_t limit,
    char *why, size_t why_len)
{
	int fault = db->ops->open(db, db->is_explicit, why, why_len);
	enum db_outcome outcome;
	char *rest;

	if (fault != 0)
		return (fault == F_NOT_FOUND ? 0 : fault);
	rest = load_rest(rows->kind, name != NULL, limit);
	outcome = db->ops->select(db, rows, rest, &name, name != NULL);
	free(rest);
	return (outcome == DB_DONE ? 0 : db->ops->failed(db, why, why_len));
}

/* ---- changing ---- */

/* "INSERT INTO job (…) VALUES (…)"; a job replaces that of its name. */
static void
insert_sql(const struct store_kind *kind, struct buf *sql)
{
	buf_addf(sql, "INSERT INTO %s (", kind->table);
	kind_columns(kind, sql);
	buf_addstr(sql, ") VALUES (");
	kind_marks(kind, sql);
	buf_addstr(sql, ")");
	if (kind == &store_job_kind) {
		buf_addstr(sql, " ON CONFLICT (name) DO UPDATE SET ");
		for (size_t i = 1; i < kind->count; i++)
			buf_addf(sql, "%s%s = excluded.%s", i > 1 ? ", " : "",
			    kind->columns[i].name, kind->columns[i].name);
	}
	buf_add(sql, "", 1);
}

/* The runs of a job do not grow without end. */
static enum db_outcome
runs_trim(struct store_db *db, const char *job)
{
	return (db->ops->run(db,
	    "DELETE FROM run WHERE job = ?1 AND run <= "
	    "(SELECT max(run) FROM run WHERE job = ?1) - " RUNS_KEPT,
	    &job, 1, NULL));
}

int
work_insert(struct store_db *db, const struct store_kind *kind, const void *row,
    char *why, size_t why_len)
{
	enum db_outcome outcome;
	struct row_texts texts;
	struct buf sql = {0};

	insert_sql(kind, &sql);
	row_texts(kind, row, &texts);
	outcome = db->ops->run(db, (const char *)sql.mem, texts.texts, kind->count, NULL);
	buf_free(&sql);
	if (outcome == DB_DONE && kind == &store_run_kind)
		outcome = runs_trim(db, texts.texts[0]);
	if (outcome == DB_DONE)
		return (0);
	if (outcome == DB_FAILED)
		return (db->ops->failed(db, why, why_len));
	snprintf(why, why_len, "there is a %s of that id already", kind->table);
	return (F_EXISTS);
}

int
work_put(struct store_db *db, const struct store_kind *kind, const void *row, char *why,
    size_t why_len)
{
	int fault = db->ops->open(db, true, why, why_len);

	if (fault != 0 || (fault = db->ops->begin(db, kind, why, why_len)) != 0)
		return (fault);
	fault = work_insert(db, kind, row, why, why_len);
	return (db->ops->end(db, fault, why, why_len));
}

int
work_job_delete(struct store_db *db, const char *name, char *why, size_t why_len)
{
	int fault = db->ops->open(db, db->is_explicit, why, why_len);
	int64_t changes = 0;

	if (fault == F_NOT_FOUND)
		snprintf(why, why_len, "there is no job \"%s\"", name);
	if (fault != 0 ||
	    (fault = db->ops->begin(db, &store_job_kind, why, why_len)) != 0)
		return (fault);
	if (db->ops->run(db, "DELETE FROM job WHERE name = ?1", &name, 1, &changes) !=
		DB_DONE ||
	    db->ops->run(db, "DELETE FROM run WHERE job = ?1", &name, 1, NULL) != DB_DONE)
		fault = db->ops->failed(db, why, why_len);
	else if (changes == 0) {
		snprintf(why, why_len, "there is no job \"%s\"", name);
		fault = F_NOT_FOUND;
	}
	return (db->ops->end(db, fault, why, why_len));
}
