/* store/row.c: structs of texts and numbers to rows of a table and back. */
#include "private.h"
#include <stdlib.h>
#include <string.h>

#define TEXT(type, column, field)                                                        \
	{                                                                                \
		column, offsetof(struct type, field), STORE_TEXT                         \
	}
#define INT(type, column, field)                                                         \
	{                                                                                \
		column, offsetof(struct type, field), STORE_INT                          \
	}

static const struct store_column key_columns[] = {
    TEXT(topo_key_text, "id", id),
    TEXT(topo_key_text, "secret", secret),
    TEXT(topo_key_text, "name", name),
    TEXT(topo_key_text, "type", type),
    TEXT(topo_key_text, "virtual", virtual_),
    TEXT(topo_key_text, "databases", databases),
    TEXT(topo_key_text, "rights", rights),
    TEXT(topo_key_text, "user_id", user_id),
    TEXT(topo_key_text, "read_only", read_only),
    TEXT(topo_key_text, "networks", networks),
    TEXT(topo_key_text, "rate", rate),
    TEXT(topo_key_text, "concurrency", concurrency),
    TEXT(topo_key_text, "expires", expires),
    TEXT(topo_key_text, "roles", roles),
    TEXT(topo_key_text, "created", created),
    TEXT(topo_key_text, "revoked", revoked),
    TEXT(topo_key_text, "former_secret", former_secret),
    TEXT(topo_key_text, "former_until", former_until),
};
static const struct store_column job_columns[] = {
    TEXT(topo_job_text, "name", name),
    TEXT(topo_job_text, "source", source),
    TEXT(topo_job_text, "targets", targets),
    TEXT(topo_job_text, "tables", tables),
    TEXT(topo_job_text, "sync_key", sync_key),
    TEXT(topo_job_text, "interval", interval),
    TEXT(topo_job_text, "enabled", enabled),
    TEXT(topo_job_text, "mode", mode),
    TEXT(topo_job_text, "overlap", overlap),
};
static const struct store_column run_columns[] = {
    TEXT(store_run, "job", job),
    INT(store_run, "run", run),
    INT(store_run, "started_us", started_us),
    INT(store_run, "ended_us", ended_us),
    TEXT(store_run, "target", target),
    TEXT(store_run, "\"table\"", table),
    INT(store_run, "rows_read", rows_read),
    INT(store_run, "rows_written", rows_written),
    INT(store_run, "rows_deleted", rows_deleted),
    INT(store_run, "bytes", bytes),
    TEXT(store_run, "outcome", outcome),
    TEXT(store_run, "error", error),
};
static const struct store_column route_columns[] = {
    TEXT(topo_route_text, "virtual", virtual_),
    TEXT(topo_route_text, "pattern", pattern),
    TEXT(topo_route_text, "\"database\"", database),
};
/* A field that is forgotten here would be forgotten at the next start. */
_Static_assert(sizeof(struct topo_key_text) == ARRAY_LEN(key_columns) * sizeof(char *),
    "each text of a key has a column");
_Static_assert(sizeof(struct topo_job_text) == ARRAY_LEN(job_columns) * sizeof(char *),
    "each text of a job has a column");

_Static_assert(
    sizeof(struct topo_route_text) == ARRAY_LEN(route_columns) * sizeof(char *),
    "each text of a route has a column");

const struct store_kind store_key_kind = {
    "key", sizeof(struct topo_key_text), key_columns, ARRAY_LEN(key_columns)};
const struct store_kind store_job_kind = {
    "job", sizeof(struct topo_job_text), job_columns, ARRAY_LEN(job_columns)};
const struct store_kind store_run_kind = {
    "run", sizeof(struct store_run), run_columns, ARRAY_LEN(run_columns)};
const struct store_kind store_route_kind = {
    "route", sizeof(struct topo_route_text), route_columns, ARRAY_LEN(route_columns)};

static const char **
text_at(void *row, const struct store_column *c)
{
	return ((const char **)(void *)((char *)row + c->offset));
}

static const char *
text_of(const void *row, const struct store_column *c)
{
	const char *text;

	memcpy(&text, (const char *)row + c->offset, sizeof(text));
	return (text);
}

static int64_t
int_of(const void *row, const struct store_column *c)
{
	int64_t number;

	memcpy(&number, (const char *)row + c->offset, sizeof(number));
	return (number);
}

void *
row_copy(const struct store_kind *kind, const void *row)
{
	void *copy = mem_dup(row, kind->size);

	for (size_t i = 0; i < kind->count; i++) {
		const struct store_column *c = &kind->columns[i];

		if (c->type == STORE_TEXT && text_of(row, c) != NULL)
			*text_at(copy, c) = mem_str(text_of(row, c));
	}
	return (copy);
}

void
row_free(const struct store_kind *kind, void *row)
{
	if (row == NULL)
		return;
	for (size_t i = 0; i < kind->count; i++)
		if (kind->columns[i].type == STORE_TEXT)
			free((void *)(uintptr_t)text_of(row, &kind->columns[i]));
	free(row);
}

void
rows_add(struct store_rows *rows, sqlite3_stmt *stmt)
{
	const struct store_kind *kind = rows->kind;
	char *row = mem_alloc(kind->size);

	for (size_t i = 0; i < kind->count; i++) {
		const struct store_column *c = &kind->columns[i];
		const unsigned char *text;
		int64_t number;

		if (c->type == STORE_INT) {
			number = sqlite3_column_int64(stmt, (int)i);
			memcpy(row + c->offset, &number, sizeof(number));
			continue;
		}
		text = sqlite3_column_text(stmt, (int)i);
		if (text != NULL)
			*text_at(row, c) = mem_str((const char *)text);
	}
	rows->rows = mem_realloc(rows->rows, (rows->count + 1) * sizeof(*rows->rows));
	rows->rows[rows->count++] = row;
}

void
rows_free(struct store_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		row_free(rows->kind, rows->rows[i]);
	free(rows->rows);
	rows->rows = NULL;
	rows->count = 0;
}

int
rows_select(struct store_rows *rows, sqlite3 *db, const char *rest, const char *word)
{
	sqlite3_stmt *stmt = NULL;
	struct buf sql = {0};
	int rc;

	buf_addstr(&sql, "SELECT ");
	kind_columns(rows->kind, &sql);
	buf_addf(&sql, " FROM %s%s%c", rows->kind->table, rest, '\0');
	rc = sqlite3_prepare_v2(db, (const char *)sql.mem, -1, &stmt, NULL);
	buf_free(&sql);
	if (rc == SQLITE_OK && word != NULL)
		rc = sqlite3_bind_text(stmt, 1, word, -1, SQLITE_TRANSIENT);
	while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		rows_add(rows, stmt);
		rc = SQLITE_OK;
	}
	(void)sqlite3_finalize(stmt);
	if (rc == SQLITE_DONE)
		return (SQLITE_OK);
	rows_free(rows);
	return (rc);
}

int
row_bind(const struct store_kind *kind, const void *row, sqlite3_stmt *stmt)
{
	int rc = SQLITE_OK;

	for (size_t i = 0; i < kind->count && rc == SQLITE_OK; i++) {
		const struct store_column *c = &kind->columns[i];
		int at = (int)i + 1;
		const char *text;

		if (c->type == STORE_INT) {
			rc = sqlite3_bind_int64(stmt, at, int_of(row, c));
			continue;
		}
		text = text_of(row, c);
		if (text != NULL && text[0] != '\0')
			rc = sqlite3_bind_text(stmt, at, text, -1, SQLITE_TRANSIENT);
	}
	return (rc);
}

void
kind_columns(const struct store_kind *kind, struct buf *out)
{
	for (size_t i = 0; i < kind->count; i++)
		buf_addf(out, "%s%s", i > 0 ? ", " : "", kind->columns[i].name);
}

void
kind_marks(const struct store_kind *kind, struct buf *out)
{
	for (size_t i = 0; i < kind->count; i++)
		buf_addf(out, "%s?%zu", i > 0 ? ", " : "", i + 1);
}
