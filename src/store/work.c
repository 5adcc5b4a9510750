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

/* Runs one statement without rows; row (of that kind) or name are its parameters. The
 * result code of SQLite. */
static int
run(struct store_file *f, const char *sql, const struct store_kind *kind, const void *row,
    const char *name)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK && row != NULL)
		rc = row_bind(kind, row, stmt);
	if (rc == SQLITE_OK && name != NULL)
		rc = sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
		rc = SQLITE_OK;
	(void)sqlite3_finalize(stmt);
	return (rc);
}

static int
exec(struct store_file *f, const char *sql)
{
	return (run(f, sql, NULL, NULL, NULL));
}

/* ---- reading ---- */

/* Keys in the order in which they were made, jobs by name, runs the newest first. */
static char *
load_sql(const struct store_kind *kind, bool has_name)
{
	struct buf sql = {0};

	buf_addstr(&sql, "SELECT ");
	kind_columns(kind, &sql);
	buf_addf(&sql, " FROM %s", kind->table);
	if (has_name)
		buf_addf(&sql, " WHERE %s = ?1", kind->columns[0].name);
	buf_addf(&sql, " ORDER BY %s LIMIT ?2",
	    kind == &store_run_kind   ? "rowid DESC"
	    : kind == &store_job_kind ? "name"
				      : "rowid");
	buf_add(&sql, "", 1);
	return ((char *)sql.mem);
}

int
work_load(struct store_file *f, struct store_rows *rows, const char *name, int64_t limit,
    char *why, size_t why_len)
{
	sqlite3_stmt *stmt = NULL;
	char *sql;
	int rc, fault = open_to_read(f, why, why_len);

	if (fault != 0)
		return (fault == F_NOT_FOUND ? 0 : fault);
	/* Before the rows: what is changed in between is looked at once more. */
	if (rows->kind == &store_key_kind &&
	    file_number(f, "PRAGMA data_version", &f->version) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	sql = load_sql(rows->kind, name != NULL);
	rc = sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL);
	free(sql);
	if (rc == SQLITE_OK && name != NULL)
		rc = sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 2, limit);
	while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		rows_add(rows, stmt);
		rc = SQLITE_OK;
	}
	(void)sqlite3_finalize(stmt);
	if (rc == SQLITE_DONE)
		return (0);
	rows_free(rows);
	return (file_failed(f, why, why_len));
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

/* The runs of a job do not grow without end. */
static int
runs_trim(struct store_file *f, const char *job)
{
	return (run(f,
	    "DELETE FROM run WHERE job = ?1 AND run <= "
	    "(SELECT max(run) FROM run WHERE job = ?1) - " RUNS_KEPT,
	    NULL, NULL, job));
}

static int
run_put(struct store_file *f, const char *insert, const struct store_run *row)
{
	int rc = exec(f, "BEGIN IMMEDIATE");

	if (rc == SQLITE_OK)
		rc = run(f, insert, &store_run_kind, row, NULL);
	if (rc == SQLITE_OK)
		rc = runs_trim(f, row->job);
	if (rc == SQLITE_OK)
		rc = exec(f, "COMMIT");
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
		rc = run(f, (const char *)sql.mem, kind, row, NULL);
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

/* Changes the row of that name with the statement. */
static int
change(struct store_file *f, const char *sql, const char *name, char *why, size_t why_len)
{
	int fault = open_to_read(f, why, why_len);

	if (fault != 0 && fault != F_NOT_FOUND)
		return (fault);
	if (fault == 0 && run(f, sql, NULL, NULL, name) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	if (fault == F_NOT_FOUND || sqlite3_changes(f->db) == 0) {
		snprintf(why, why_len, "there is no such row in the state store");
		return (F_NOT_FOUND);
	}
	return (0);
}

int
work_key_revoke(struct store_file *f, const char *id, char *why, size_t why_len)
{
	int fault = change(f,
	    "UPDATE key SET revoked = coalesce(revoked, "
	    "strftime('%Y-%m-%d %H:%M:%S+00', 'now')) WHERE id = ?1",
	    id, why, why_len);

	if (fault == F_NOT_FOUND)
		snprintf(why, why_len, "there is no key \"%s\"", id);
	return (fault);
}

int
work_job_delete(struct store_file *f, const char *name, char *why, size_t why_len)
{
	int fault = change(f, "DELETE FROM job WHERE name = ?1", name, why, why_len);

	if (fault == F_NOT_FOUND)
		snprintf(why, why_len, "there is no job \"%s\"", name);
	/* Behind it: what is left when this fails does no harm, and is not the answer. */
	if (fault == 0)
		(void)run(f, "DELETE FROM run WHERE job = ?1", NULL, NULL, name);
	return (fault);
}
