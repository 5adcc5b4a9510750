/* sql: statements that are too long for the parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sql.h"

/* The statement with its facts, until the next one. */
static struct sql_cache *cache;
static struct sql_scan scan;
static const struct sql_facts *facts;
static struct buf text;

static int
set_up(void **state)
{
	(void)state;
	cache = sql_cache_create(1 << 20);
	return (0);
}

static int
tear_down(void **state)
{
	(void)state;
	sql_scan_free(&scan);
	buf_free(&text);
	sql_cache_destroy(cache);
	cache = NULL;
	return (0);
}

static void
find(void)
{
	sql_scan_free(&scan);
	sql_scan((const char *)text.mem, text.len, &scan);
	facts = sql_facts_get(cache, &scan);
}

static void
begin(const char *sql)
{
	text.len = 0;
	buf_addstr(&text, sql);
}

static const struct sql_match *
match_of(const char *column, unsigned place)
{
	for (unsigned i = 0; i < facts->match_count; i++)
		if (strcmp(facts->matches[i].column, column) == 0 &&
		    facts->matches[i].place == place)
			return (&facts->matches[i]);
	fail_msg("no match of \"%s\"", column);
	return (NULL);
}

static void
expect_literal(const struct sql_match *m, unsigned i, const char *want)
{
	char *got;

	assert_true(i < m->count);
	assert_int_equal(m->values[i].kind, SQL_VALUE_LITERAL);
	got = sql_literal_value(&scan, m->values[i].at);
	assert_string_equal(got, want);
	free(got);
}

static void
expect_tables(const char *a, const char *b)
{
	assert_int_equal(facts->table_count, b != NULL ? 2 : 1);
	assert_string_equal(facts->tables[0].name, a);
	if (b != NULL)
		assert_string_equal(facts->tables[1].name, b);
}

/* ---- lists ---- */

static void
lists_of_literals(void **state)
{
	const struct sql_match *m;

	(void)state;
	begin("SELECT * FROM t -- c\n WHERE name = 'x' AND id IN (");
	for (int i = 0; i < 9000; i++)
		buf_addf(&text, "%s%d", i > 0 ? ", " : "", i % 3 == 0 ? -i : i);
	buf_addstr(&text, ") AND kind = 7 ORDER BY id");
	find();
	assert_true(text.len > SQL_PARSE_BYTES);
	assert_int_equal(facts->class, SQL_READ);
	assert_true(facts->is_plain_read);
	expect_tables("t", NULL);
	m = match_of("id", 0);
	assert_int_equal(m->count, 9000);
	expect_literal(m, 0, "0");
	assert_true(m->values[3].is_negative);
	assert_false(m->values[4].is_negative);
	expect_literal(m, 4, "4");
	expect_literal(m, 8999, "8999");
	expect_literal(match_of("name", 0), 0, "x");
	expect_literal(match_of("kind", 0), 0, "7");
}

static void
lists_of_parameters(void **state)
{
	const struct sql_match *m;

	(void)state;
	begin("DELETE FROM t WHERE a = $1 AND b = ANY (ARRAY[");
	for (int i = 0; i < 5000; i++)
		buf_addf(&text, "%s$%d", i > 0 ? "," : "", 5000 - i);
	buf_addstr(&text, "]) AND c IN ($1, NULL, 'z')");
	find();
	assert_int_equal(facts->class, SQL_WRITE);
	m = match_of("b", 0);
	assert_int_equal(m->count, 5000);
	assert_int_equal(m->values[4999].kind, SQL_VALUE_PARAM);
	assert_int_equal(m->values[4999].at, 1);
	assert_int_equal(m->values[0].at, 5000);
	m = match_of("a", 0);
	assert_int_equal(m->count, 1);
	assert_int_equal(m->values[0].at, 1);
	m = match_of("c", 0);
	assert_int_equal(m->count, 3);
	assert_int_equal(m->values[1].kind, SQL_VALUE_NULL);
	expect_literal(m, 2, "z");
}

static void
other_lists_are_not_told(void **state)
{
	(void)state;
	begin("SELECT 1 FROM t WHERE id IN (");
	for (int i = 0; i < 5000; i++)
		buf_addf(&text, "%s%d", i > 0 ? "," : "", i);
	buf_addstr(&text, ", a + 1)");
	find();
	assert_int_equal(facts->class, SQL_UNKNOWN);
}

/* ---- rows ---- */

static void
rows_of_an_insert(void **state)
{
	const struct sql_match *m;

	(void)state;
	begin("INSERT INTO s.t AS x (id, \"name\", at, n) VALUES");
	for (int i = 0; i < 3000; i++)
		buf_addf(&text, "%s\n(%d, 'it''s, (%d', now() - interval '1 day', %s)",
		    i > 0 ? "," : "", i, i,
		    i % 2   ? "NULL"
		    : i % 4 ? "DEFAULT"
			    : "-$7");
	buf_addstr(&text, " ON CONFLICT (id) DO UPDATE SET name = 'y' RETURNING id");
	find();
	assert_int_equal(facts->class, SQL_WRITE);
	expect_tables("t", NULL);
	assert_true(facts->tables[0].is_written);
	m = match_of("id", 0);
	assert_true(m->is_insert);
	assert_int_equal(m->count, 3000);
	expect_literal(m, 0, "0");
	expect_literal(m, 2999, "2999");
	expect_literal(match_of("name", 0), 17, "it's, (17");
	assert_int_equal(match_of("at", 0)->values[5].kind, SQL_VALUE_OTHER);
	m = match_of("n", 0);
	assert_int_equal(m->values[1].kind, SQL_VALUE_NULL);
	assert_int_equal(m->values[2].kind, SQL_VALUE_OTHER);
	assert_int_equal(m->values[4].kind, SQL_VALUE_OTHER);
}

static void
rows_without_columns(void **state)
{
	const struct sql_match *m;

	(void)state;
	begin("insert into t values ");
	for (int i = 0; i < 3000; i++)
		buf_addf(&text, "%s($%d,$%d)", i > 0 ? "," : "", 2 * i + 1, 2 * i + 2);
	find();
	assert_int_equal(facts->class, SQL_WRITE);
	m = match_of("", 2);
	assert_int_equal(m->count, 3000);
	assert_int_equal(m->values[2999].kind, SQL_VALUE_PARAM);
	assert_int_equal(m->values[2999].at, 6000);
	assert_int_equal(scan.param_max, 6000);
}

static void
rows_that_are_looked_at(void **state)
{
	(void)state;
	begin("insert into t values (0, (select max(a) from u))");
	for (int i = 0; i < 3000; i++)
		buf_addf(&text, ",(%d,1)", i);
	find();
	assert_int_equal(facts->class, SQL_UNKNOWN);
	begin("insert into t values (0, 1)");
	for (int i = 0; i < 3000; i++)
		buf_addf(&text, ",(%d,1%s)", i, i == 2999 ? ",2" : "");
	find();
	assert_int_equal(facts->class, SQL_UNKNOWN);
	begin("insert into t select a from (values (1)) v (a) where a in (1");
	for (int i = 0; i < 5000; i++)
		buf_addf(&text, ",%d", i);
	buf_addstr(&text, ")");
	find();
	assert_int_equal(facts->class, SQL_WRITE);
	expect_tables("t", NULL);
}

/* ---- strings ---- */

static void
long_strings(void **state)
{
	(void)state;
	begin("UPDATE t SET body = E'");
	for (int i = 0; i < 30000; i++)
		buf_addstr(&text, "\\'x");
	buf_addstr(&text, "', more = $q$");
	for (int i = 0; i < 30000; i++)
		buf_addstr(&text, "it's");
	buf_addstr(&text, "$q$ WHERE id = 5 AND name = 'short'");
	find();
	assert_int_equal(facts->class, SQL_WRITE);
	expect_literal(match_of("id", 0), 0, "5");
	expect_literal(match_of("name", 0), 0, "short");
}

/* What the parser must not see, it does not see. */
static void
rubbish_stays_unknown(void **state)
{
	(void)state;
	begin("select 1");
	for (int i = 0; i < 100000; i++)
		buf_addstr(&text, "+1");
	find();
	assert_int_equal(facts->class, SQL_UNKNOWN);
	begin("insert into t values ");
	for (int i = 0; i < 20000; i++)
		buf_addstr(&text, "(");
	find();
	assert_int_equal(facts->class, SQL_UNKNOWN);
	begin("select 1 from t where a in (");
	for (int i = 0; i < 20000; i++)
		buf_addstr(&text, "1,");
	find();
	assert_int_equal(facts->class, SQL_UNKNOWN);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(lists_of_literals, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(lists_of_parameters, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(other_lists_are_not_told, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(rows_of_an_insert, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(rows_without_columns, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(rows_that_are_looked_at, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(long_strings, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(rubbish_stays_unknown, set_up, tear_down),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
