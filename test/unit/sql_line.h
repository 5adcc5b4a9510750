/* What the tests of sql share: scanning in memory of its own, and facts as one line of text. */
#ifndef SQL_LINE_H
#define SQL_LINE_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sql.h"

/* Scans a literal of C, in memory that ends where it ends. */
static char *scanned;

static void
scan_bytes(const char *text, size_t len, struct sql_scan *out)
{
	free(scanned);
	scanned = malloc(len);
	assert_true(len == 0 || scanned != NULL);
	memcpy(scanned, text, len);
	sql_scan(scanned, len, out);
}

static void
scan(const char *text, struct sql_scan *out)
{
	scan_bytes(text, strlen(text), out);
}

static const char *const class_names[] = {
    [SQL_UNKNOWN] = "unknown",
    [SQL_EMPTY] = "empty",
    [SQL_READ] = "read",
    [SQL_WRITE] = "write",
    [SQL_DDL] = "ddl",
    [SQL_UTILITY] = "utility",
    [SQL_SET] = "set",
    [SQL_BEGIN] = "begin",
    [SQL_COMMIT] = "commit",
    [SQL_ROLLBACK] = "rollback",
    [SQL_SAVEPOINT] = "savepoint",
    [SQL_TWO_PHASE] = "two-phase",
    [SQL_EXPLAIN_ROUTE] = "route",
};

static const char *const keeps_names[] = {
    [SQL_KEEPS_NOTHING] = "",
    [SQL_KEEPS_TABLE] = " keeps-table",
    [SQL_KEEPS_CURSOR] = " keeps-cursor",
    [SQL_KEEPS_LOCK] = " keeps-lock",
    [SQL_KEEPS_LISTENER] = " keeps-listener",
};

static void
add_value(struct buf *b, const struct sql_scan *s, const struct sql_value *v)
{
	char *text;

	switch (v->kind) {
	case SQL_VALUE_PARAM:
		buf_addf(b, "$%u", v->at);
		break;
	case SQL_VALUE_LITERAL:
		assert_true(v->at < s->literal_count);
		text = sql_literal_value(s, v->at);
		assert_non_null(text);
		buf_addf(b, "%s%s", v->is_negative ? "-" : "", text);
		free(text);
		break;
	case SQL_VALUE_NULL:
		buf_addstr(b, "null");
		break;
	case SQL_VALUE_OTHER:
		buf_addstr(b, "?");
		break;
	}
}

/* " catalog.schema.name", as it stands in the text; "!" a target, "+" a table
 * that is made, "#" a system table. */
static void
add_table(struct buf *b, const struct sql_scan *s, const struct sql_table *t)
{
	buf_addf(b, " %s%s%s%s%s%s%s%s", t->catalog == NULL ? "" : t->catalog,
	    t->catalog == NULL ? "" : ".", t->schema == NULL ? "" : t->schema,
	    t->schema == NULL ? "" : ".", t->name, t->is_written ? "!" : "",
	    t->is_created ? "+" : "", t->is_system ? "#" : "");
	if (t->len == 0)
		buf_addstr(b, "@nowhere");
	assert_true(t->at + t->len <= s->len);
}

/* "class flags; tables; table.column=values", what is not there left out. */
static char *
describe(const struct sql_scan *s, const struct sql_facts *f)
{
	struct buf b = {0};

	buf_addf(&b, "%s%s%s%s%s%s%s", class_names[f->class], keeps_names[f->keeps],
	    f->is_plain_read ? " plain" : "", f->has_foreign_function ? " foreign" : "",
	    f->sets_pgweave ? " pgweave" : "", f->copies_in ? " in" : "",
	    f->copies_out ? " out" : "");
	if (f->table_count > 0)
		buf_addstr(&b, ";");
	for (unsigned i = 0; i < f->table_count; i++)
		add_table(&b, s, &f->tables[i]);
	if (f->match_count > 0)
		buf_addstr(&b, ";");
	for (unsigned i = 0; i < f->match_count; i++) {
		const struct sql_match *m = &f->matches[i];

		char place[16];

		assert_true(m->table < f->table_count);
		if (m->place > 0)
			(void)snprintf(place, sizeof(place), "%u", m->place);
		buf_addf(&b, " %s.%s%s", f->tables[m->table].name,
		    m->place > 0 ? place : m->column,
		    m->is_insert     ? "<-"
		    : m->is_assigned ? ":="
				     : "=");
		for (unsigned j = 0; j < m->count; j++) {
			buf_addstr(&b, j > 0 ? "," : "");
			add_value(&b, s, &m->values[j]);
		}
	}
	if (f->call_count > 0)
		buf_addstr(&b, "; calls");
	for (unsigned i = 0; i < f->call_count; i++)
		buf_addf(&b, " %s%s%s",
		    f->calls[i].schema == NULL ? "" : f->calls[i].schema,
		    f->calls[i].schema == NULL ? "" : ".", f->calls[i].name);
	buf_addstr(&b, f->has_nameless_call ? " nameless" : "");
	buf_add(&b, "", 1);
	return ((char *)b.mem);
}

static void
expect(struct sql_cache *cache, const char *sql, const char *what)
{
	struct sql_scan s;
	char *got;

	scan(sql, &s);
	got = describe(&s, sql_facts_get(cache, &s));
	if (strcmp(got, what) != 0)
		print_error("%s\n", sql);
	assert_string_equal(got, what);
	free(got);
	sql_scan_free(&s);
}

#endif
