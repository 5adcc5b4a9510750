/* store/row.c: structs of texts and numbers to rows of a table and back. */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
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
rows_add(
    struct store_rows *rows, const char *(*cell)(void *arg, size_t column), void *arg)
{
	const struct store_kind *kind = rows->kind;
	char *row = mem_alloc(kind->size);

	for (size_t i = 0; i < kind->count; i++) {
		const struct store_column *c = &kind->columns[i];
		const char *text = cell(arg, i);
		int64_t number;

		if (text == NULL)
			continue;
		if (c->type == STORE_INT) {
			number = strtoll(text, NULL, 10);
			memcpy(row + c->offset, &number, sizeof(number));
		} else
			*text_at(row, c) = mem_str(text);
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

void
row_texts(const struct store_kind *kind, const void *row, struct row_texts *out)
{
	INVARIANT(kind->count <= STORE_COLUMNS_MAX);
	for (size_t i = 0; i < kind->count; i++) {
		const struct store_column *c = &kind->columns[i];

		if (c->type == STORE_INT) {
			snprintf(out->numbers[i], sizeof(out->numbers[i]), "%" PRId64,
			    int_of(row, c));
			out->texts[i] = out->numbers[i];
			continue;
		}
		out->texts[i] = text_of(row, c);
		if (out->texts[i] != NULL && out->texts[i][0] == '\0')
			out->texts[i] = NULL;
	}
}

static bool
row_same(const struct store_kind *kind, const void *a, const void *b)
{
	struct row_texts x, y;

	row_texts(kind, a, &x);
	row_texts(kind, b, &y);
	for (size_t i = 0; i < kind->count; i++) {
		if ((x.texts[i] == NULL) != (y.texts[i] == NULL))
			return (false);
		if (x.texts[i] != NULL && strcmp(x.texts[i], y.texts[i]) != 0)
			return (false);
	}
	return (true);
}

bool
rows_same(const struct store_rows *a, const struct store_rows *b)
{
	if (a->count != b->count)
		return (false);
	for (size_t i = 0; i < a->count; i++)
		if (!row_same(a->kind, a->rows[i], b->rows[i]))
			return (false);
	return (true);
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
