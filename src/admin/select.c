/*
 * SELECT over the console's views: the views that it names are filled as SHOW fills them, into
 * tables of a private SQLite database in memory, which runs the statement and is gone then.
 *
 *   prepare -> which views, which types -> fill one view after the other -> run
 *
 * Nothing but reading is authorized, and the time, the rows and the length of a value are
 * bounded: it runs in the thread of the client that asks.
 *
 * The type of a column of a view is the view's; that of an expression is what it answers when
 * each view has one row of ones, so that it is known before the statement runs.
 */
#include "private.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TIME_MAX_US   100000
#define ROWS_MAX      100000
#define VALUE_BYTES   1000000
#define PROGRESS_OPS  2000
#define RESULT_COLUMN 200
#define VIEWS_MAX     64

/* The columns of the result; names as long as PostgreSQL's. */
struct answer {
	struct rows_column columns[RESULT_COLUMN];
	char names[RESULT_COLUMN][64];
	unsigned count;
};

struct select {
	struct rows_sink sink; /* the rows of a view come here */
	sqlite3 *db;
	sqlite3_stmt *statement, *insert;
	struct call *call; /* NULL: it is only described */
	const struct view *views[VIEWS_MAX];
	unsigned view_count, next;
	struct answer answer;
	int64_t deadline_us;
};

/* Names of views in SQL are in lower case. */
static const struct view *
view_of_table(const char *table)
{
	return (view_find(table));
}

static int
select_authorize(void *arg, int action, const char *a, const char *b,
    const char *database, const char *trigger)
{
	struct select *s = arg;
	const struct view *view;

	(void)database;
	(void)trigger;
	if (action == SQLITE_SELECT || action == SQLITE_RECURSIVE)
		return (SQLITE_OK);
	if (action == SQLITE_FUNCTION)
		return (strcasecmp(b, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK);
	if (action != SQLITE_READ || a == NULL)
		return (SQLITE_DENY);
	view = view_of_table(a);
	/* What is no view is a name of WITH; the schema itself is not shown. */
	if (view == NULL)
		return (strncasecmp(a, "sqlite_", 7) == 0 ? SQLITE_DENY : SQLITE_OK);
	for (unsigned i = 0; i < s->view_count; i++)
		if (s->views[i] == view)
			return (SQLITE_OK);
	INVARIANT(s->view_count < VIEWS_MAX);
	s->views[s->view_count++] = view;
	return (SQLITE_OK);
}

static int
select_is_late(void *arg)
{
	return (clock_us() > ((const struct select *)arg)->deadline_us);
}

static const char *const type_names[] = {
    [ROWS_TEXT] = "TEXT",
    [ROWS_INT4] = "INT4",
    [ROWS_INT8] = "INT8",
    [ROWS_FLOAT8] = "FLOAT8",
    [ROWS_BOOL] = "BOOL",
    [ROWS_TIMESTAMPTZ] = "TIMESTAMPTZ",
    [ROWS_NUMERIC] = "NUMERIC",
};

static void
table_create(sqlite3 *db, const struct view *view)
{
	struct buf sql = {0}, ones = {0};
	const struct rows_column *columns;
	unsigned count;

	columns = view_columns(view, &count);
	buf_addf(&sql, "CREATE TABLE \"%s\"(", view->name);
	for (unsigned i = 0; i < count; i++) {
		buf_addf(&sql, "%s\"%s\" %s", i > 0 ? "," : "", columns[i].name,
		    type_names[columns[i].type]);
		buf_addf(&ones, "%s%s", i > 0 ? "," : "",
		    columns[i].type == ROWS_TEXT ? "'1 '" : "1");
	}
	buf_addf(&sql, "); INSERT INTO \"%s\" VALUES (%.*s)", view->name, (int)ones.len,
	    (const char *)ones.mem);
	buf_add(&sql, "", 1);
	INVARIANT(sqlite3_exec(db, (const char *)sql.mem, NULL, NULL, NULL) == SQLITE_OK);
	buf_free(&sql);
	buf_free(&ones);
}

void
select_free(struct select *s)
{
	if (s == NULL)
		return;
	sqlite3_finalize(s->insert);
	sqlite3_finalize(s->statement);
	sqlite3_close(s->db);
	free(s);
}

/* ---- what it answers ---- */

static enum rows_type
column_type(sqlite3_stmt *st, int i, bool has_row)
{
	const char *declared = sqlite3_column_decltype(st, i);

	for (unsigned t = 0; declared != NULL && t < ARRAY_LEN(type_names); t++)
		if (strcmp(type_names[t], declared) == 0)
			return ((enum rows_type)t);
	switch (has_row ? sqlite3_column_type(st, i) : SQLITE_TEXT) {
	case SQLITE_INTEGER:
		return (ROWS_INT8);
	case SQLITE_FLOAT:
		return (ROWS_FLOAT8);
	default:
		return (ROWS_TEXT);
	}
}

/* Over tables that hold one row of ones each. */
static void
select_columns(struct select *s)
{
	bool has_row = sqlite3_step(s->statement) == SQLITE_ROW;
	struct answer *a = &s->answer;

	a->count = (unsigned)sqlite3_column_count(s->statement);
	INVARIANT(a->count <= RESULT_COLUMN);
	for (unsigned i = 0; i < a->count; i++) {
		(void)text_copy(a->names[i], sizeof(a->names[i]),
		    sqlite3_column_name(s->statement, (int)i));
		a->columns[i] = (struct rows_column){.name = a->names[i],
		    .type = column_type(s->statement, (int)i, has_row)};
	}
	sqlite3_reset(s->statement);
}

/* NULL: why not is in the database's message, in *failed, which the caller frees. */
static struct select *
select_prepare(const char *sql, struct select **failed)
{
	struct select *s = mem_alloc(sizeof(*s));

	INVARIANT(sqlite3_open_v2(":memory:", &s->db,
		      SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY | SQLITE_OPEN_NOMUTEX,
		      NULL) == SQLITE_OK);
	for (size_t i = 0; i < view_count; i++)
		table_create(s->db, &view_table[i]);
	sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, VALUE_BYTES);
	sqlite3_limit(s->db, SQLITE_LIMIT_COLUMN, RESULT_COLUMN);
	sqlite3_limit(s->db, SQLITE_LIMIT_ATTACHED, 0);
	s->deadline_us = clock_us() + TIME_MAX_US;
	sqlite3_progress_handler(s->db, PROGRESS_OPS, select_is_late, s);
	sqlite3_set_authorizer(s->db, select_authorize, s);
	if (sqlite3_prepare_v2(s->db, sql, -1, &s->statement, NULL) != SQLITE_OK) {
		*failed = s;
		return (NULL);
	}
	select_columns(s);
	return (s);
}

bool
select_describe(const char *sql, const struct rows_column **columns, unsigned *count)
{
	static _Thread_local struct answer last;
	struct select *failed = NULL, *s = select_prepare(sql, &failed);

	if (s == NULL) {
		select_free(failed);
		return (false);
	}
	last = s->answer;
	for (unsigned i = 0; i < last.count; i++)
		last.columns[i].name = last.names[i];
	*columns = last.columns;
	*count = last.count;
	select_free(s);
	return (true);
}

/* ---- running it ---- */

static void
select_fail(struct call *c, struct select *s)
{
	char *message = mem_str(sqlite3_errmsg(s->db));
	int code = sqlite3_errcode(s->db);
	const char *sqlstate = "42601", *hint = "SHOW HELP lists the views.";

	if (code == SQLITE_INTERRUPT) {
		free(message);
		message = mem_printf(
		    "a SELECT on the console may take %d ms", TIME_MAX_US / 1000);
		sqlstate = "57014";
		hint = NULL;
	} else if (code == SQLITE_AUTH || strncmp(message, "not authorized", 14) == 0)
		sqlstate = "42501";
	else if (code == SQLITE_TOOBIG)
		sqlstate = "54000";
	else if (strncmp(message, "no such table", 13) == 0)
		sqlstate = "42P01";
	else if (strncmp(message, "no such column", 14) == 0)
		sqlstate = "42703";
	else if (strncmp(message, "no such function", 16) == 0)
		sqlstate = "42883";
	c->select = NULL;
	select_free(s);
	call_fail_detail(c, sqlstate, message, NULL, hint);
	free(message);
}

static void
select_run(struct call *c)
{
	struct select *s = c->select;
	const char *values[RESULT_COLUMN];
	unsigned rows = 0;
	int r;

	s->deadline_us = clock_us() + TIME_MAX_US;
	c->sink->ops->begin(c->sink, s->answer.columns, s->answer.count);
	while ((r = sqlite3_step(s->statement)) == SQLITE_ROW && rows++ < ROWS_MAX) {
		for (unsigned i = 0; i < s->answer.count; i++)
			values[i] =
			    (const char *)sqlite3_column_text(s->statement, (int)i);
		c->sink->ops->put(c->sink, values);
	}
	if (r == SQLITE_ROW)
		call_fail(
		    c, "54000", "a SELECT on the console may answer %d rows", ROWS_MAX);
	else if (r != SQLITE_DONE)
		select_fail(c, s);
	else
		call_end(c, "SELECT");
}

static void
view_put(struct rows_sink *sink, const char *const *values)
{
	struct select *s = CONTAINER_OF(sink, struct select, sink);
	unsigned count;

	(void)view_columns(s->views[s->next], &count);
	for (unsigned i = 0; i < count; i++)
		sqlite3_bind_text(s->insert, (int)i + 1, values[i], -1, SQLITE_TRANSIENT);
	INVARIANT(sqlite3_step(s->insert) == SQLITE_DONE);
	sqlite3_reset(s->insert);
}

static const struct rows_sink_ops view_sink = {.put = view_put};

static void select_next(struct call *);

/* The view is there: into its table. */
static void
select_filled(struct call *c)
{
	struct select *s = c->select;
	const struct view *view = s->views[s->next];
	struct buf sql = {0};
	unsigned count;

	(void)view_columns(view, &count);
	sqlite3_set_authorizer(s->db, NULL, NULL);
	s->deadline_us = INT64_MAX;
	buf_addf(&sql, "DELETE FROM \"%s\"%c", view->name, '\0');
	INVARIANT(
	    sqlite3_exec(s->db, (const char *)sql.mem, NULL, NULL, NULL) == SQLITE_OK);
	sql.len = 0;
	buf_addf(&sql, "INSERT INTO \"%s\" VALUES (?", view->name);
	for (unsigned i = 1; i < count; i++)
		buf_addstr(&sql, ",?");
	buf_addf(&sql, ")%c", '\0');
	INVARIANT(sqlite3_prepare_v2(
		      s->db, (const char *)sql.mem, -1, &s->insert, NULL) == SQLITE_OK);
	buf_free(&sql);
	rows_list_play(&c->show->rows, count, &s->sink);
	sqlite3_finalize(s->insert);
	s->insert = NULL;
	sqlite3_set_authorizer(s->db, select_authorize, s);
	s->next++;
	select_next(c);
}

static void
select_next(struct call *c)
{
	const struct select *s = c->select;

	if (s->next < s->view_count)
		show_make(c, s->views[s->next], NULL, select_filled);
	else
		select_run(c);
}

void
select_start(struct call *c)
{
	struct select *failed = NULL, *s = select_prepare(c->sql, &failed);

	if (s == NULL) {
		select_fail(c, failed);
		return;
	}
	s->sink.ops = &view_sink;
	c->select = s;
	select_next(c);
}
