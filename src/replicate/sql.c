/*
 * The statements of a run: texts made from names that the catalog has told. All names are
 * qualified and quoted, so that no search_path and no odd name changes what they mean.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

/* As pg_dump and postgres_fdw have it: values look the same on both sides whatever roles and
 * databases have set, nobody ends a long copy, and rows that a policy would hide make an error
 * instead of a hole. Some of these settings exist in newer servers alone. */
const char *const sql_settings =
    "SELECT set_config(name, CASE name WHEN 'client_encoding' THEN 'UTF8'"
    " WHEN 'standard_conforming_strings' THEN 'on' WHEN 'row_security' THEN 'off'"
    " WHEN 'DateStyle' THEN 'ISO, YMD' WHEN 'IntervalStyle' THEN 'postgres'"
    " WHEN 'bytea_output' THEN 'hex' WHEN 'extra_float_digits' THEN '3'"
    " WHEN 'xmloption' THEN 'content' WHEN 'lc_monetary' THEN 'C' ELSE '0' END, false)"
    " FROM pg_catalog.pg_settings WHERE name IN ('client_encoding',"
    " 'standard_conforming_strings', 'row_security', 'DateStyle', 'IntervalStyle',"
    " 'bytea_output', 'extra_float_digits', 'xmloption', 'lc_monetary',"
    " 'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',"
    " 'idle_session_timeout', 'transaction_timeout')";

/* Of two runners that come at the same time the second waits: IF NOT EXISTS alone fails when
 * both begin. */
const char *const sql_watermark_table =
    "BEGIN; SELECT pg_advisory_xact_lock(7813428071551);"
    " CREATE SCHEMA IF NOT EXISTS pgweave;"
    " CREATE TABLE IF NOT EXISTS pgweave.watermark (job text, table_name text,"
    " source text NOT NULL, sync_key text NOT NULL, value text, pending text,"
    " pending_us bigint, written_at timestamptz NOT NULL DEFAULT now(),"
    " PRIMARY KEY (job, table_name));"
    " ALTER TABLE pgweave.watermark ADD COLUMN IF NOT EXISTS timeline text; COMMIT";

void
sql_name(struct buf *b, const char *name)
{
	buf_addstr(b, "\"");
	for (const char *p = name; *p != '\0'; p++)
		buf_add(b, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
	buf_addstr(b, "\"");
}

void
sql_text(struct buf *b, const char *text)
{
	buf_addstr(b, "'");
	for (const char *p = text; *p != '\0'; p++)
		buf_add(b, *p == '\'' ? "''" : p, *p == '\'' ? 2 : 1);
	buf_addstr(b, "'");
}

char *
sql_array(const struct names *n)
{
	struct buf b = {0};

	buf_addstr(&b, "{");
	for (size_t i = 0; i < n->count; i++) {
		buf_addstr(&b, i > 0 ? ",\"" : "\"");
		for (const char *p = n->v[i]; *p != '\0'; p++) {
			if (*p == '"' || *p == '\\')
				buf_addstr(&b, "\\");
			buf_add(&b, p, 1);
		}
		buf_addstr(&b, "\"");
	}
	buf_add(&b, "}", 2);
	return ((char *)b.mem);
}

/* Each column with the words before it, and between them what joins them. */
static void
columns(struct buf *b, const struct names *n, const char *before, const char *join)
{
	for (size_t i = 0; i < n->count; i++) {
		buf_addf(b, "%s%s", i > 0 ? join : "", before);
		sql_name(b, n->v[i]);
	}
}

static void
stage(struct buf *b, size_t n)
{
	buf_addf(b, "pg_temp.pgweave_stage_%zu", n);
}

/* "t.a = s.a AND …" for each column of the key. */
static void
same_key(struct buf *b, const struct copy *c)
{
	for (size_t i = 0; i < c->key.count; i++) {
		buf_addstr(b, i > 0 ? " AND t." : "t.");
		sql_name(b, c->key.v[i]);
		buf_addstr(b, " = s.");
		sql_name(b, c->key.v[i]);
	}
}

/* The rows differ in a byte. IS DISTINCT FROM would need an equality that json does not
 * have; the casts keep the parser from comparing column by column. */
static void
rows_differ(struct buf *b, const struct copy *c, const char *other)
{
	char *before = mem_printf("%s.", other);

	buf_addstr(b, "ROW(");
	columns(b, &c->columns, "t.", ", ");
	buf_addstr(b, ")::record *<> ROW(");
	columns(b, &c->columns, before, ", ");
	buf_addstr(b, ")::record");
	free(before);
}

void
sql_stage(struct buf *b, const struct copy *c, size_t n)
{
	buf_addf(
	    b, "CREATE TEMPORARY TABLE pgweave_stage_%zu ON COMMIT DROP AS SELECT ", n);
	columns(b, &c->columns, "", ", ");
	buf_addf(b, " FROM %s WITH NO DATA", c->target.sql);
}

void
sql_copy_out(struct buf *b, const struct copy *c)
{
	buf_addstr(b, "COPY (SELECT ");
	columns(b, &c->columns, "", ", ");
	buf_addf(b, " FROM %s", c->source.sql);
	if (c->watermark != NULL) {
		buf_addstr(b, " WHERE ");
		sql_name(b, c->sync_key);
		/* Of a clock, the bound is a moment before which all is known; of the others it
		 * is the key of a row, and the next may have the same. */
		buf_addstr(b, c->kind == KEY_CLOCK ? " > " : " >= ");
		sql_text(b, c->watermark);
	}
	buf_addstr(b, ") TO STDOUT");
}

void
sql_copy_in(struct buf *b, const struct copy *c, size_t n)
{
	buf_addstr(b, "COPY ");
	stage(b, n);
	buf_addstr(b, " (");
	columns(b, &c->columns, "", ", ");
	buf_addstr(b, ") FROM STDIN");
}

static void
insert_all(struct buf *b, const struct copy *c, size_t n)
{
	buf_addf(b, "INSERT INTO %s AS t (", c->target.sql);
	columns(b, &c->columns, "", ", ");
	buf_addstr(b, ") OVERRIDING SYSTEM VALUE SELECT ");
	columns(b, &c->columns, "", ", ");
	buf_addstr(b, " FROM ");
	stage(b, n);
}

void
sql_upsert(struct buf *b, const struct copy *c, size_t n)
{
	const char *before = "";

	insert_all(b, c, n);
	if (c->key.count == 0)
		return;
	buf_addstr(b, " ON CONFLICT (");
	columns(b, &c->key, "", ", ");
	if (c->columns.count == c->key.count) {
		buf_addstr(b, ") DO NOTHING");
		return;
	}
	buf_addstr(b, ") DO UPDATE SET ");
	for (size_t i = 0; i < c->columns.count; i++) {
		if (names_have(&c->key, c->columns.v[i]))
			continue;
		buf_addstr(b, before);
		sql_name(b, c->columns.v[i]);
		buf_addstr(b, " = excluded.");
		sql_name(b, c->columns.v[i]);
		before = ", ";
	}
	buf_addstr(b, " WHERE ");
	rows_differ(b, c, "excluded");
}

void
sql_replace_delete(struct buf *b, const struct copy *c, size_t n)
{
	buf_addf(b, "DELETE FROM %s AS t USING ", c->target.sql);
	stage(b, n);
	buf_addstr(b, " AS s WHERE ");
	same_key(b, c);
	buf_addstr(b, " AND ");
	rows_differ(b, c, "s");
}

void
sql_replace_insert(struct buf *b, const struct copy *c, size_t n)
{
	insert_all(b, c, n);
	buf_addstr(b, " ON CONFLICT (");
	columns(b, &c->key, "", ", ");
	buf_addstr(b, ") DO NOTHING");
}

void
sql_delete_gone(struct buf *b, const struct copy *c, size_t n)
{
	buf_addf(b, "DELETE FROM %s AS t", c->target.sql);
	if (c->key.count == 0)
		return;
	buf_addstr(b, " WHERE NOT EXISTS (SELECT FROM ");
	stage(b, n);
	buf_addstr(b, " AS s WHERE ");
	same_key(b, c);
	buf_addstr(b, ")");
}

/* What comes next from the sequence is above all that was copied. */
void
sql_sequence(struct buf *b, const struct copy *c, size_t n, const struct column *column)
{
	struct buf name = {0};

	buf_addstr(&name, column->sequence);
	buf_add(&name, "", 1);
	buf_addstr(b, "SELECT setval(");
	sql_text(b, (const char *)name.mem);
	buf_addstr(b, "::regclass, x.m) FROM (SELECT max(");
	sql_name(b, column->name);
	buf_addstr(b, ")::bigint AS m FROM ");
	stage(b, n);
	buf_addf(b,
	    ") AS x, %s AS q WHERE x.m > q.last_value OR (x.m = q.last_value AND NOT q.is_called)",
	    column->sequence);
	buf_free(&name);
	(void)c;
}
