/* sql: what statements leave in the server's session, and the look that finds them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sql.h"

static void
scan(const char *text, struct sql_scan *out)
{
	sql_scan(text, strlen(text), out);
}

static unsigned
leaves_of(const char *text)
{
	struct sql_scan s;
	unsigned leaves;

	scan(text, &s);
	leaves = sql_leaves(&s);
	sql_scan_free(&s);
	return (leaves);
}

static void
what_statements_leave_is_told(void **state)
{
	static const unsigned set = SQL_LEAVES_SETTING,
			      reset = SQL_LEAVES_SETTING | SQL_LEAVES_RESET;
	const struct {
		const char *text;
		unsigned leaves;
	} cases[] = {
	    {"select 1", 0},
	    {"set x = 1", set},
	    {"/* c */ SET session x to 1", set},
	    {"set session = 1", set},
	    {"set local x = 1", SQL_LEAVES_LOCAL},
	    {"set transaction read only", SQL_LEAVES_LOCAL},
	    {"set constraints all deferred", SQL_LEAVES_LOCAL},
	    {"set session characteristics as transaction read only", set},
	    {"set x to default", reset},
	    {"set time zone local", reset},
	    {"set names", reset},
	    {"reset all", reset},
	    {"reset session authorization", reset},
	    {"set seed to 0.5", set | SQL_LEAVES_SEED},
	    {"discard all", SQL_LEAVES_DISCARD | SQL_LEAVES_LESS},
	    {"discard temp", SQL_LEAVES_LESS},
	    {"select set_config('x', 'y', false)", set},
	    {"select pg_catalog.SET_CONFIG('x', f(1, true), $1)", set},
	    {"select set_config('x', 'y', true)", SQL_LEAVES_LOCAL},
	    {"select set_config($1, 'y', true)", SQL_LEAVES_LOCAL},
	    {"select set_config('x'::text, 'y', $1)", set},
	    {"select set_config($1, $2, false)", set | SQL_LEAVES_BY_PARAM},
	    {"select set_config($1::text, $2, false)", set | SQL_LEAVES_BY_PARAM},
	    {"select set_config('x.' || $1, $2, false)", set | SQL_LEAVES_UNNAMED},
	    {"select set_config(a, b, false) from t", set | SQL_LEAVES_UNNAMED},
	    {"select set_config, 'set_config(1)' from t", 0},
	    {"select * from pg_settings for update", 0},
	    {"update pg_settings set setting = '1' where name = 'x'",
		set | SQL_LEAVES_UNNAMED},
	    {"with a as (update pg_catalog.\"pg_settings\" set setting = 1) select 1",
		set | SQL_LEAVES_UNNAMED},
	    {"do $$ begin end $$", set | SQL_LEAVES_UNSEEN},
	    {"create temp table t (a int)", SQL_LEAVES_TABLE},
	    {"create or replace local temporary view v as select 1", SQL_LEAVES_TABLE},
	    {"create table pg_temp.t (a int)", SQL_LEAVES_TABLE},
	    {"create table \"pg_temp\".t (a int)", SQL_LEAVES_TABLE},
	    {"create table t as select * from pg_temp.x", 0},
	    {"explain analyze verbose create temp table t as select 1", SQL_LEAVES_TABLE},
	    {"explain (analyze, costs off) create table pg_temp.t as select 1",
		SQL_LEAVES_TABLE},
	    {"explain analyze create table t as select 1", 0},
	    {"select 1 into temp t", SQL_LEAVES_TABLE},
	    {"select 1 into table \"pg_temp\".t", SQL_LEAVES_TABLE},
	    {"select 1 into t", 0},
	    {"insert into pg_temp.t select 1", 0},
	    {"with a as (select 1) select * into local temp t from a", SQL_LEAVES_TABLE},
	    {"declare c cursor with hold for select 1", SQL_LEAVES_CURSOR},
	    {"declare c cursor without hold for select 1", 0},
	    {"select pg_advisory_lock(1)", SQL_LEAVES_LOCK},
	    {"select a from t where pg_try_advisory_lock_shared(a)", SQL_LEAVES_LOCK},
	    {"select pg_advisory_xact_lock(1)", 0},
	    {"select pg_advisory_unlock_all()", SQL_LEAVES_LESS},
	    {"listen a", SQL_LEAVES_LISTENER},
	    {"select setseed(0.1)", SQL_LEAVES_SEED},
	    {"drop table t", SQL_LEAVES_LESS},
	    {"discard sequences", SQL_LEAVES_LESS | SQL_LEAVES_NO_SEQUENCE},
	    {"select lastval()", SQL_LEAVES_SEQUENCE},
	    {"insert into t values (pg_catalog . CURRVAL\n('a'))", SQL_LEAVES_SEQUENCE},
	    {"select \"lastval\"(), (1)", SQL_LEAVES_SEQUENCE},
	    {"select xlastval(), interval(3), lastval, nextval('a')", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *text = cases[i].text;
		int look = sql_look(text, strlen(text));

		if (leaves_of(text) != cases[i].leaves)
			fail_msg("%s leaves %u", text, leaves_of(text));
		/* What the look lets pass is told by its tag. */
		if (cases[i].leaves != 0 && strstr(text, " into ") == NULL)
			assert_true((look > 0 && (look & SQL_LOOK_LEAVES) != 0) ||
				    sql_look_names(text, strlen(text)));
	}
}

static void
note_setting(void *arg, const char *name)
{
	buf_addf(arg, "%s|", name);
}

static void
settings_are_named(void **state)
{
	static const struct {
		const char *text, *names, *reset;
	} cases[] = {
	    {"set a.b = 1", "a.b|", NULL},
	    {"set local a.b = 1", "", NULL},
	    {"reset A.b", "a.b|", "a.b"},
	    {"set time zone default", "timezone|", "timezone"},
	    {"reset session authorization", "session_authorization|",
		"session_authorization"},
	    {"reset all", "all|", "all"},
	    {"do $$ begin execute 'set a.b = 1'; set c.d = 2; execute 'set local e.f = 1'; end $$",
		"a.b|c.d|", NULL},
	    {"select set_config('a.b', x, false), set_config(c, d, false)", "a.b|", NULL},
	    {"select set_config($12, $1, false)", "$12|", NULL},
	    {"do $$ begin perform set_config('a.b', 'c', false); end $$", "a.b|", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf names = {0};
		struct sql_scan s;
		char *reset;

		scan(cases[i].text, &s);
		sql_setting_names(&s, note_setting, &names);
		buf_add(&names, "", 1);
		assert_string_equal((char *)names.mem, cases[i].names);
		reset = sql_reset_name(&s);
		if (cases[i].reset == NULL)
			assert_null(reset);
		else
			assert_string_equal(reset, cases[i].reset);
		free(reset);
		buf_free(&names);
		sql_scan_free(&s);
	}
}

static void
put_argument(struct buf *out, const struct sql_config_argument *a)
{
	if (a->param > 0)
		buf_addf(out, "$%u ", a->param);
	else
		buf_addf(out, "%s ", a->text != NULL ? a->text : "NULL");
}

static void
calls_of_set_config_are_read(void **state)
{
	static const struct {
		const char *text, *calls;
	} cases[] = {
	    {"select set_config('a.b', 'c', true)", "a.b c true |"},
	    {"/* x */ SELECT pg_catalog.set_config($1, $2::text, False::bool) as x;",
		"$1 $2 False |"},
	    {"select set_config('a', null, 'f'), set_config('b', E'\\n', $3)",
		"a NULL f |b \n $3 |"},
	    {"select set_config('a', 'b' || 'c', true)", ""},
	    {"select set_config('a', 'b', true) from t", ""},
	    {"select set_config('a', 'b', true) where false", ""},
	    {"select set_config('a', $1::int::text, true)", ""},
	    {"select set_config('a', 1, true)", ""},
	    {"select set_config('a', 'b', true), f()", ""},
	    {"select set_config('a', 'b')", ""},
	    {"select my.set_config('a', 'b', true)", ""},
	    {"select set_config('a', 'b', true),", "a b true |"},
	    {"insert into t select set_config('a', 'b', true)", ""},
	    {"select", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct sql_config_call *calls = NULL;
		struct buf out = {0};
		struct sql_scan s;
		unsigned count;

		scan(cases[i].text, &s);
		count = sql_config_calls(&s, &calls);
		for (unsigned n = 0; n < count; n++) {
			put_argument(&out, &calls[n].name);
			put_argument(&out, &calls[n].value);
			put_argument(&out, &calls[n].is_local);
			buf_addstr(&out, "|");
		}
		buf_add(&out, "", 1);
		assert_string_equal((char *)out.mem, cases[i].calls);
		buf_free(&out);
		sql_config_calls_free(calls, count);
		sql_scan_free(&s);
	}
}

static void
first_bytes_are_looked_at(void **state)
{
	(void)state;
	assert_int_equal(sql_look("select 1", 8), 0);
	assert_int_equal(sql_look("se", 2), -1);
	assert_int_equal(sql_look("/* x", 4), -1);
	assert_int_equal(sql_look("/* x */ set x", 13), SQL_LOOK_LEAVES);
	assert_int_equal(sql_look("execute p", 9), SQL_LOOK_PREPARE);
	assert_int_equal(sql_look("deallocate p", 12), SQL_LOOK_PREPARE);
	assert_int_equal(sql_look("delete from t", 13), 0);
	assert_int_equal(sql_look("update t", 8), 0);
	assert_int_equal(sql_look("commit", 6), 0);
	assert_int_equal(
	    sql_look("create table t", 14), SQL_LOOK_LEAVES | SQL_LOOK_PREPARE);
	assert_false(sql_look_names("select a_b, _c, d_ from set_x", 29));
	assert_int_equal(
	    sql_look_names("select * from PG_prepared_statements", 36), SQL_LOOK_PREPARE);
	assert_int_equal(
	    sql_look_names("select 1 from pg_prepared_statement", 35), SQL_LOOK_PREPARE);
	assert_int_equal(sql_look_names("select 1 from pg_prepared_xacts", 31), 0);
}

/* The place is marked with a ^ in what is expected, behind a WITH with a +. */
static void
what_reads_prepared_statements_is_found(void **state)
{
	static const struct {
		const char *text, *is;
	} cases[] = {
	    {"select 1 from pg_prepared_statements",
		"^select 1 from pg_prepared_statements"},
	    {"/* a */ SELECT x.name FROM Pg_Catalog . pg_prepared_statements x",
		"/* a */ ^SELECT x.name FROM              pg_prepared_statements x"},
	    {"with recursive a as (select 1) table pg_prepared_statements",
		"with recursive +a as (select 1) table pg_prepared_statements"},
	    {"explain (costs off) (table \"pg_prepared_statements\")",
		"explain (costs off) ^(table \"pg_prepared_statements\")"},
	    {"prepare p (int) as with a as (select 1) table pg_prepared_statements",
		"prepare p (int) as with +a as (select 1) table pg_prepared_statements"},
	    {"declare c cursor with hold for table pg_prepared_statements",
		"declare c cursor with hold for ^table pg_prepared_statements"},
	    {"copy (table pg_prepared_statements) to stdout",
		"copy (^table pg_prepared_statements) to stdout"},
	    {"create temp table t (a) as table pg_prepared_statements",
		"create temp table t (a) as ^table pg_prepared_statements"},
	    {"select 1 from a join pg_prepared_statement ( ) f on true",
		"^select 1 from a join pg_prepared_statement     f on true"},
	    {"select 1 from pg_catalog/* \u00e9 */.pg_prepared_statements",
		"^select 1 from           /* \u00e9 */ pg_prepared_statements"},
	    {"select (pg_prepared_statement()).name", NULL},
	    {"create view v as table pg_prepared_statements", NULL},
	    {"with pg_prepared_statements (a) as (select 1) table pg_prepared_statements",
		NULL},
	    {"select 1 from app.pg_prepared_statements", NULL},
	    {"select 'pg_prepared_statements'", NULL},
	    {"lock pg_prepared_statements", NULL},
	    {"with", NULL},
	    {"explain", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf is = {0};
		struct sql_view view;
		struct sql_scan s;
		const char *text;

		scan(cases[i].text, &s);
		if (!sql_view_read(&s, &view)) {
			if (cases[i].is != NULL)
				fail_msg("not found: %s", cases[i].text);
			sql_scan_free(&s);
			continue;
		}
		assert_non_null(cases[i].is);
		text = view.text != NULL ? view.text : s.sql;
		buf_addf(&is, "%.*s%c%s", (int)view.at, text,
		    view.is_behind_with ? '+' : '^', text + view.at);
		buf_add(&is, "", 1);
		assert_string_equal((char *)is.mem, cases[i].is);
		buf_free(&is);
		sql_view_free(&view);
		sql_scan_free(&s);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_statements_leave_is_told),
	    cmocka_unit_test(settings_are_named),
	    cmocka_unit_test(calls_of_set_config_are_read),
	    cmocka_unit_test(first_bytes_are_looked_at),
	    cmocka_unit_test(what_reads_prepared_statements_is_found),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
