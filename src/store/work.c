/* store/work.c: what is done with the file, in the thread that calls. */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_KEPT "1000" /* of each job */

/* Opens the file to read. F_NOT_FOUND: there is nothing. */
static int
open_to_read(struct store_file *f, char *why, size_t why_len)
{
	return (file_open(f, f->is_explicit, why, why_len));
}

/* ---- reading ---- */

/* Keys in the order in which they were made, jobs by name, runs the newest first. */
static char *
load_rest(const struct store_kind *kind, bool has_name, int64_t limit)
{
	return (mem_printf("%s%s%s ORDER BY %s LIMIT %" PRId64, has_name ? " WHERE " : "",
	    has_name ? kind->columns[0].name : "", has_name ? " = ?1" : "",
	    kind == &store_run_kind   ? "rowid DESC"
	    : kind == &store_job_kind ? "name"
				      : "rowid",
	    limit));
}

int
work_load(struct store_file *f, struct store_rows *rows, const char *name, int64_t limit,
    char *why, size_t why_len)
{
	int rc, fault = open_to_read(f, why, why_len);
	char *rest;

	if (fault != 0)
		return (fault == F_NOT_FOUND ? 0 : fault);
	/* Before the rows: what is changed in between is looked at once more. */
	if (rows->kind == &store_key_kind &&
	    file_number(f, "PRAGMA data_version", &f->version) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	rest = load_rest(rows->kind, name != NULL, limit);
	rc = rows_select(rows, f->db, rest, name);
	free(rest);
	return (rc == SQLITE_OK ? 0 : file_failed(f, why, why_len));
}

bool
work_look(struct store_file *f)
{
	int64_t version = -1;
	char why[512];

	/* A store that went away leaves the keys that were read from it in force. */
	if (file_open(f, false, why, sizeof(why)) != 0)
		return (false);
	if (file_number(f, "PRAGMA data_version", &version) != SQLITE_OK) {
		(void)file_failed(f, why, sizeof(why));
		return (false);
	}
	return (version != f->version);
}

/* ---- changing ---- */

static int
insert(
    struct store_file *f, const char *sql, const struct store_kind *kind, const void *row)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK)
		rc = row_bind(kind, row, stmt);
	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
		rc = SQLITE_OK;
	(void)sqlite3_finalize(stmt);
	return (rc);
}

/* The runs of a job do not grow without end. */
static int
runs_trim(struct store_file *f, const char *job)
{
	return (file_run(f,
	    "DELETE FROM run WHERE job = ?1 AND run <= "
	    "(SELECT max(run) FROM run WHERE job = ?1) - " RUNS_KEPT,
	    &job, 1));
}

static int
run_put(struct store_file *f, const char *sql, const struct store_run *row)
{
	int rc = file_run(f, "BEGIN IMMEDIATE", NULL, 0);

	if (rc == SQLITE_OK)
		rc = insert(f, sql, &store_run_kind, row);
	if (rc == SQLITE_OK)
		rc = runs_trim(f, row->job);
	if (rc == SQLITE_OK)
		rc = file_run(f, "COMMIT", NULL, 0);
	return (rc);
}

int
work_put(struct store_file *f, const struct store_kind *kind, const void *row, char *why,
    size_t why_len)
{
	int rc, fault = file_open(f, true, why, why_len);
	struct buf sql = {0};

	if (fault != 0)
		return (fault);
	buf_addf(&sql, "INSERT%s INTO %s (", kind == &store_job_kind ? " OR REPLACE" : "",
	    kind->table);
	kind_columns(kind, &sql);
	buf_addstr(&sql, ") VALUES (");
	kind_marks(kind, &sql);
	buf_add(&sql, ")", 2);
	if (kind == &store_run_kind)
		rc = run_put(f, (const char *)sql.mem, row);
	else
		rc = insert(f, (const char *)sql.mem, kind, row);
	buf_free(&sql);
	if (rc == SQLITE_OK)
		return (0);
	if (rc == SQLITE_CONSTRAINT &&
	    sqlite3_extended_errcode(f->db) == SQLITE_CONSTRAINT_PRIMARYKEY) {
		snprintf(why, why_len, "there is a key of that id already");
		return (F_EXISTS);
	}
	return (file_failed(f, why, why_len));
}

int
work_job_delete(struct store_file *f, const char *name, char *why, size_t why_len)
{
	int fault = open_to_read(f, why, why_len);

	if (fault != 0 && fault != F_NOT_FOUND)
		return (fault);
	if (fault == 0 &&
	    file_run(f, "DELETE FROM job WHERE name = ?1", &name, 1) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	if (fault == F_NOT_FOUND || sqlite3_changes(f->db) == 0) {
		snprintf(why, why_len, "there is no job \"%s\"", name);
		return (F_NOT_FOUND);
	}
	/* Behind it: what is left when this fails does no harm, and is not the answer. */
	(void)!file_run(f, "DELETE FROM run WHERE job = ?1", &name, 1);
	return (0);
}
