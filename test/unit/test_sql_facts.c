/* sql: facts: classes, functions, tables, conditions, shapes, SET and transactions. */
#include "sql_line.h"

struct expected {
	const char *sql, *what;
};

static void
expect_all(const struct expected *list, size_t count)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);

	for (size_t i = 0; i < count; i++)
		expect(cache, list[i].sql, list[i].what);
	sql_cache_destroy(cache);
}
#define EXPECT_ALL(list) expect_all(list, ARRAY_LEN(list))

/* ---- classes and tables ---- */

static void
classes_are_told(void **state)
{
	static const struct expected list[] = {
	    {"", "empty"},
	    {"select 1", "read plain"},
	    {"values (1)", "read plain"},
	    {"table t", "read plain; t"},
	    {"select * from t for share", "write; t"},
	    {"select * into x from t", "write; x!+ t"},
	    {"select * into temp x from t", "write keeps-table; x!+ t"},
	    {"with d as (delete from t returning *) select * from d", "write; t!"},
	    {"insert into t select * from u", "write; t! u"},
	    {"update t set a = b", "write; t!; t.a:=?"},
	    {"merge into t using u on true when matched then delete", "write; t! u"},
	    {"call f()", "write foreign; calls f"},
	    {"do 'x'", "write"},
	    {"lock t", "write; t"},
	    {"copy t from stdin", "write in; t!"},
	    {"copy t to stdout", "read plain out; t"},
	    {"copy t to '/f'", "write; t"},
	    {"copy (select 1 from t) to stdout", "read plain out; t"},
	    {"explain select * from t", "read plain; t"},
	    {"explain delete from t", "read; t!"},
	    {"explain analyze delete from t", "write; t!"},
	    {"explain (analyze off) delete from t", "read; t!"},
	    {"explain (analyze) delete from t", "write; t!"},
	    {"explain (route off) select 1", "route"},
	    {"create table a (b int references c, like d)", "ddl; a!+ c d"},
	    {"create table a as select * from b", "ddl; b a!+"},
	    {"create temp table a as select * from b", "ddl keeps-table; b a!+"},
	    {"create temp table a (b int)", "ddl keeps-table; a!+"},
	    {"create temp table a (b int) on commit delete rows", "ddl keeps-table; a!+"},
	    {"create temp table a (b int) on commit drop", "ddl; a!+"},
	    {"create table pg_temp.a (b int)", "ddl keeps-table; pg_temp.a!+"},
	    {"create temp view a as select 1", "ddl keeps-table; a!+"},
	    {"create temp sequence a", "ddl keeps-table; a!"},
	    {"declare c cursor with hold for select 1", "utility keeps-cursor"},
	    {"declare c cursor without hold for select 1", "utility"},
	    {"select pg_advisory_lock(1)", "write keeps-lock"},
	    {"select pg_try_advisory_lock_shared(1, 2)", "write keeps-lock"},
	    {"select pg_advisory_xact_lock(1)", "write"},
	    {"notify x", "utility"},
	    {"create view a as select * from b", "ddl; a!+ b"},
	    {"create materialized view a as select * from b", "ddl; b a!+"},
	    {"create table a partition of b for values in (1)", "ddl; a!+ b!"},
	    {"create trigger x before insert on t execute function f()", "ddl; t!"},
	    {"drop trigger x on t", "ddl; t!"},
	    {"drop trigger if exists t on s.t cascade", "ddl; s.t!"},
	    {"alter trigger x on t rename to y", "ddl; t!"},
	    {"comment on trigger x on t is 'x'", "ddl; t!"},
	    {"create rule x as on insert to t do nothing", "ddl; t!"},
	    {"drop rule x on t", "ddl; t!"},
	    {"alter rule x on t rename to y", "ddl; t!"},
	    {"create policy x on t", "ddl; t!"},
	    {"drop policy x on m.s.\"T\"", "ddl; m.s.T!"},
	    {"alter policy x on t using (true)", "ddl; t!"},
	    {"comment on constraint x on t is 'x'", "ddl; t!"},
	    {"security label on table t is 'x'", "ddl; t!"},
	    {"drop table if exists a.b, m.a.c", "ddl; a.b! m.a.c!"},
	    {"comment on column a.b.c is 'x'", "ddl; a.b!"},
	    {"truncate a, b", "ddl; a! b!"},
	    {"grant select on a to b", "ddl; a!"},
	    {"vacuum a", "utility; a"},
	    {"listen a", "utility keeps-listener"},
	    {"prepare p as select * from t where id = $1", "utility; t; t.id=$1"},
	    {"declare c cursor for select * from t", "utility; t"},
	    {"discard all", "utility"},
	    {"set constraints all deferred", "utility"},
	    {"set time zone interval '1' hour", "set"},
	    {"select 1 2 3", "unknown"},
	    {"select * from json_table('{}', '$' columns (a int))", "unknown"},
	    {"select 'a", "unknown"},
	};

	(void)state;
	EXPECT_ALL(list);
}

static void
functions_decide(void **state)
{
	static const struct expected list[] = {
	    {"select lower(a), pg_catalog.now() from t", "read plain; t"},
	    {"select random()", "read"},
	    {"select * from t where a < clock_timestamp()", "read; t"},
	    {"select gen_random_uuid(), statement_timestamp()", "read"},
	    {"select pg_sleep(1)", "read"},
	    {"select nextval('s')", "write"},
	    {"select pg_advisory_lock(1)", "write keeps-lock"},
	    {"select pg_backend_pid()", "read"},
	    {"select my_own(a) from t", "read foreign; t; calls my_own"},
	    {"select f(a), f(b), s.f(f(c)), x.s.f(1), pg_catalog.own(1)",
		"read foreign; calls f s.f pg_catalog.own nameless"},
	    {"select public.lower(a) from t", "read foreign; t; calls public.lower"},
	    {"select a operator(public.+) b from t", "read foreign; t nameless"},
	    {"select a operator(pg_catalog.+) b from t", "read plain; t"},
	    {"select 1 where exists (select nextval('s'))", "write"},
	    {"select set_config('PGWEAVE.database', 'x', true)", "write pgweave"},
	    {"select set_config('search_path', 'x', true)", "write"},
	    {"select current_setting('pgweave.database'::text)", "read plain pgweave"},
	    {"select \"current_setting\"('work_mem')", "read plain"},
	    {"select trim(a), extract(year from b), current_date from t",
		"read plain; t"},
	    {"select uuid_extract_version(b), any_value(a) from t", "read plain; t"},
	};

	(void)state;
	EXPECT_ALL(list);
}

static void
tables_are_found(void **state)
{
	static const struct expected list[] = {
	    {"select * from a, only b.c, d.e.f", "read plain; a b.c d.e.f"},
	    {"with a as (select * from b), c as (select * from a) select * from a, c, d",
		"read plain; b d"},
	    {"with a as (select * from a) select * from a", "read plain; a"},
	    {"with recursive a as (select 1 union select * from a) select * from a",
		"read plain"},
	    {"select * from (with a as (select 1) select * from a) x, a",
		"read plain; a"},
	    {"with a as (select 1) select * from s.a", "read plain; s.a"},
	    {"with a as (select 1) insert into b select * from a", "write; b!"},
	    {"select (select max(x) from a) from b where c in (select d from e)",
		"read plain; a b e"},
	    {"select * from pg_class, information_schema.tables",
		"read; pg_class# information_schema.tables#"},
	    {"select * from pg_temp.a", "read; pg_temp.a"},
	    {"select * from primary.public.a join default.public.\"B\" on true",
		"read plain; primary.public.a default.public.B"},
	    {"drop table primary.public.a", "ddl; primary.public.a!"},
	    {"select * from a union select * from b", "read plain; a b"},
	    {"select * from t order by x for update of t", "write; t"},
	};

	(void)state;
	EXPECT_ALL(list);
}

static void
places_are_exact(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	const struct sql_facts *f;
	struct sql_scan s;

	(void)state;
	scan("select 1 from  a . \"b\" as x", &s);
	f = sql_facts_get(cache, &s);
	assert_true(f->is_exact);
	assert_int_equal(f->table_count, 1);
	assert_int_equal(f->tables[0].at, 15);
	assert_int_equal(f->tables[0].len, 7);
	sql_scan_free(&s);
	scan("select 12345 from a.\"b\" as x", &s);
	f = sql_facts_get(cache, &s);
	assert_false(f->is_exact);
	sql_scan_free(&s);
	sql_cache_destroy(cache);
}

/* ---- matches ---- */

static void
conditions_are_found(void **state)
{
	static const struct expected list[] = {
	    {"select * from t where id = 5", "read plain; t; t.id=5"},
	    {"select * from t where 5 = id and t.x = $2", "read plain; t; t.id=5 t.x=$2"},
	    {"select * from s.t where s.t.id = -5", "read plain; s.t; t.id=-5"},
	    {"select * from t u where t.id = 1 and u.id = - 2", "read plain; t; t.id=-2"},
	    {"select * from t where id = '7'::bigint and x = $1::uuid",
		"read plain; t; t.id=7 t.x=$1"},
	    {"select * from t where id = -5::int and n = N'x'",
		"read plain; t; t.id=-5 t.n=x"},
	    {"select * from t where a = 'ab'::varchar(1) and b = '1.5'::numeric::int",
		"read plain; t"},
	    {"select * from t where id in (1, '2', $3, null)",
		"read plain; t; t.id=1,2,$3,null"},
	    {"select * from t where id in (1, now())", "read plain; t"},
	    {"select * from t where id = any(array[1, -2]::int[])",
		"read plain; t; t.id=1,-2"},
	    {"select * from t where id = any($1)", "read plain; t"},
	    {"select * from t where id not in (1) or id = 2", "read plain; t"},
	    {"select * from t where not (id = 1) and id > 2 and id <> 3",
		"read plain; t"},
	    {"select * from t where id = true and b = b'1'", "read plain; t"},
	    {"select * from t where a = 0x1F and b = 1_000",
		"read plain; t; t.a=0x1F t.b=1_000"},
	    {"select * from t where id = (select 1)", "read plain; t"},
	    {"select * from t, u where id = 5", "read plain; t u"},
	    {"select * from t, (select 1) x where id = 5", "read plain; t"},
	    {"select * from t as x(a, b) where a = 5", "read plain; t"},
	    {"select * from t where x in (select y from u where z = 3)",
		"read plain; t u; u.z=3"},
	    {"with c as (select * from t where id = 1) select * from c where id = 2",
		"read plain; t; t.id=1"},
	    {"update t set a = 1, (b, c) = (2, $1), d = d + 1 where id = 3",
		"write; t!; t.a:=1 t.b:=2 t.c:=$1 t.d:=? t.id=3"},
	    {"delete from t using u where t.id = u.id and u.id = $1",
		"write; t! u; u.id=$1 t.id=$1"},
	};

	(void)state;
	EXPECT_ALL(list);
}

static void
joins_carry_what_is_known(void **state)
{
	static const struct expected list[] = {
	    {"select * from a join b on a.id = b.id where a.id = 5",
		"read plain; a b; a.id=5 b.id=5"},
	    {"select * from a join b on a.id = b.id and b.x = 1 and a.y = 2",
		"read plain; a b; b.x=1 a.y=2"},
	    {"select * from a left join b on a.id = b.id and b.x = 1 and a.y = 2 "
	     "where a.id = 5",
		"read plain; a b; b.x=1 a.id=5 b.id=5"},
	    {"select * from a left join b on a.id = b.id where b.id = 5",
		"read plain; a b; b.id=5"},
	    {"select * from a right join b on a.id = b.id and a.x = 1 and b.y = 2",
		"read plain; a b; a.x=1"},
	    {"select * from a full join b on a.id = b.id and a.x = 1 where a.id = 5",
		"read plain; a b; a.id=5"},
	    {"select * from a, b where a.id = b.id and b.id in (1, 2)",
		"read plain; a b; b.id=1,2 a.id=1,2"},
	    {"select * from a join b using (k) join c using (k) where k = 'x'",
		"read plain; a b c; a.k=x b.k=x c.k=x"},
	    {"select * from a left join b using (k) where k = 1",
		"read plain; a b; a.k=1 b.k=1"},
	    {"select * from a full join b using (k) where k = 1", "read plain; a b"},
	    {"select * from a natural join b where k = 1", "read plain; a b"},
	    {"select * from (a join b on a.x = 1) as j where a.y = 2",
		"read plain; a b; a.x=1"},
	    {"select * from a left join (b join c on b.id = c.id) on a.id = b.id "
	     "where a.id = 7",
		"read plain; a b c; a.id=7 b.id=7 c.id=7"},
	};

	(void)state;
	EXPECT_ALL(list);
}

static void
inserts_are_found(void **state)
{
	static const struct expected list[] = {
	    {"insert into t (a, b) values (1, default), ($1, -2), (now(), null)",
		"write; t!; t.a<-1,$1,? t.b<-?,-2,null"},
	    {"insert into t (a, b) values (1)", "write; t!; t.a<-1 t.b<-?"},
	    {"insert into t values (1)", "write; t!; t.1<-1"},
	    {"insert into t values (1, $1), (default, 'x')",
		"write; t!; t.1<-1,? t.2<-$1,x"},
	    {"insert into t (a) select 1", "write; t!"},
	    {"insert into t (a) values (1), (2) limit 1", "write; t!"},
	    {"insert into t default values", "write; t!"},
	    {"insert into t (a) values (1) on conflict (a) do update set a = 2",
		"write; t!; t.a<-1 t.a:=2"},
	};

	(void)state;
	EXPECT_ALL(list);
}

/* ---- shapes ---- */

static void
expect_shape(struct sql_cache *cache, const char *sql, const char *why, int columns)
{
	const struct sql_facts *f;
	struct sql_scan s;

	scan(sql, &s);
	f = sql_facts_get(cache, &s);
	if (why == NULL ? f->shape.why_not != NULL
			: f->shape.why_not == NULL || strcmp(f->shape.why_not, why) != 0)
		fail_msg("%s: %s", sql, f->shape.why_not);
	assert_int_equal(f->shape.column_count, columns);
	sql_scan_free(&s);
}

static void
shapes_are_told(void **state)
{
	static const struct {
		const char *sql, *why;
		int columns;
	} list[] = {
	    {"select a, b + 1, lower(c), random() from t where d = 5", NULL, 4},
	    {"select *, 1 from t", NULL, 0},
	    {"select t.* from s.t", NULL, 0},
	    {"table t", NULL, 0},
	    {"select count(*), sum(a), min(b) filter (where c), max(d) as e from t", NULL,
		4},
	    {"select 1", "a SELECT without a table", 1},
	    {"values (1)", "VALUES", 0},
	    {"select a from t, u", "a join", 1},
	    {"select a from t join u on true", "a join", 1},
	    {"select a from (select 1) x", "a subquery", 1},
	    {"select a from generate_series(1, 2) a", "a function in FROM", 1},
	    {"select a from t tablesample system (1)", "TABLESAMPLE", 1},
	    {"with x as (select 1) select a from t", "WITH", 1},
	    {"select a from t union all select a from t", "UNION", 0},
	    {"select distinct a from t", "DISTINCT", 1},
	    {"select a from t group by a", "GROUP BY", 1},
	    {"select a from t order by a", "ORDER BY", 1},
	    {"select a from t limit 1", "LIMIT", 1},
	    {"select a from t offset 1", "OFFSET", 1},
	    {"select a from t for update", "a row lock", 1},
	    {"select (select 1) from t", "a subquery", 1},
	    {"select a from t where a in (select 1)", "a subquery", 1},
	    {"select row_number() over () from t", "a window function", 1},
	    {"select unnest(a) from t", "a set-returning function", 1},
	    {"select my_own(a) from t", "a function that is not PostgreSQL's own", 1},
	    {"select pg_backend_pid() from t", "pg_backend_pid()", 1},
	    {"select ctid from t", "a system column", 1},
	    {"select a from t where t.xmin = '1'", "a system column", 1},
	    {"select x from t x", "a whole row", 1},
	    {"select row(t.*) from t", "a whole row", 1},
	    {"select avg(a) from t", "avg()", 1},
	    {"select sum(distinct a) from t", "DISTINCT in an aggregate", 1},
	    {"select max(a order by b) from t", "ORDER BY in an aggregate", 1},
	    {"select sum(a) + 1 from t", "an expression of or beside an aggregate", 1},
	    {"select 1, count(*) from t", "an expression of or beside an aggregate", 2},
	    {"select count(*) from t having true", "HAVING", 1},
	    {"insert into t (a) values (1)", "a statement other than SELECT", 0},
	    {"begin", "a statement other than SELECT", 0},
	    {"select 1 2", "a statement that is not understood", 0},
	};
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++)
		expect_shape(cache, list[i].sql, list[i].why, list[i].columns);
	sql_cache_destroy(cache);
}

static void
aggregates_are_listed(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	const struct sql_facts *f;
	struct sql_scan s;

	(void)state;
	scan("select count(*), pg_catalog.sum(a), max(b) from t", &s);
	f = sql_facts_get(cache, &s);
	assert_true(f->shape.is_aggregate);
	assert_int_equal(f->shape.columns[0], SQL_AGG_COUNT);
	assert_int_equal(f->shape.columns[1], SQL_AGG_SUM);
	assert_int_equal(f->shape.columns[2], SQL_AGG_MAX);
	sql_scan_free(&s);
	sql_cache_destroy(cache);
}

/* ---- transactions, SET, EXPLAIN (ROUTE) ---- */

static void
transactions_are_told(void **state)
{
	static const struct expected list[] = {
	    {"BEGIN", "begin"},
	    {"begin work isolation level serializable, read only not deferrable",
		"begin"},
	    {"start transaction", "begin"},
	    {"commit", "commit"},
	    {"end transaction and no chain", "commit"},
	    {"abort work and chain", "rollback"},
	    {"rollback to savepoint \"A\"", "savepoint"},
	    {"rollback work to a", "savepoint"},
	    {"savepoint a", "savepoint"},
	    {"release a", "savepoint"},
	    {"prepare transaction 'x'", "two-phase"},
	    {"commit prepared 'x'", "two-phase"},
	    {"rollback prepared 'x'", "two-phase"},
	    {"begin foo", "unknown"},
	    {"commit and", "unknown"},
	    {"begin read only,", "unknown"},
	};
	static const struct {
		const char *sql;
		bool is_serializable;
	} levels[] = {
	    {"begin", false},
	    {"begin isolation level repeatable read", false},
	    {"begin isolation level serializable, read only", true},
	    {"start transaction read only isolation level SERIALIZABLE", true},
	    {"set transaction isolation level serializable", true},
	    {"set transaction isolation level read committed", false},
	    {"set transaction_isolation = 'Serializable'", true},
	    {"set work_mem = 'serializable'", false},
	};
	struct sql_cache *cache = sql_cache_create(1 << 20);
	const struct sql_facts *f;
	struct sql_scan s;

	(void)state;
	EXPECT_ALL(list);
	scan("begin read only", &s);
	f = sql_facts_get(cache, &s);
	assert_true(f->is_read_only && !f->is_read_write);
	sql_scan_free(&s);
	for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
		scan(levels[i].sql, &s);
		f = sql_facts_get(cache, &s);
		if (f->is_serializable != levels[i].is_serializable)
			fail_msg("%s", levels[i].sql);
		sql_scan_free(&s);
	}
	scan("commit and chain", &s);
	assert_true(sql_facts_get(cache, &s)->chains);
	sql_scan_free(&s);
	scan("rollback to \"A\"", &s);
	f = sql_facts_get(cache, &s);
	assert_string_equal(f->savepoint, "A");
	assert_true(f->is_rollback_to && !f->is_release);
	sql_scan_free(&s);
	sql_cache_destroy(cache);
}

static void
cursors_are_told(void **state)
{
	static const struct {
		const char *sql, *cursor;
		bool declares_read;
	} list[] = {
	    {"declare c cursor for select now() from t", "c", true},
	    {"declare \"C d\" no scroll cursor for select 1", "C d", true},
	    {"declare c cursor for select 1 from t for update", "c", false},
	    {"declare c cursor for select nextval('s')", "c", false},
	    {"declare c cursor for select mine()", "c", false},
	    {"fetch 5 from c", "c", false},
	    {"fetch 7 from c", "c", false},
	    {"fetch 7 from d", "d", false},
	    {"move backward all in C", "c", false},
	    {"close c", "c", false},
	    {"close all", NULL, false},
	    {"select c from d", NULL, false},
	};
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		const struct sql_facts *f;
		struct sql_scan s;

		scan(list[i].sql, &s);
		f = sql_facts_get(cache, &s);
		if (list[i].cursor == NULL)
			assert_null(f->cursor);
		else
			assert_string_equal(f->cursor, list[i].cursor);
		assert_int_equal(f->declares_read, list[i].declares_read);
		sql_scan_free(&s);
	}
	sql_cache_destroy(cache);
}

static void
settings_are_told(void **state)
{
	static const struct {
		const char *sql, *setting, *value;
		enum sql_set_verb verb;
	} list[] = {
	    {"set pgweave.database = 'x'", "pgweave.database", "x", SQL_SET_SET},
	    {"SET SESSION PGWEAVE.Database TO Primary", "pgweave.database", "primary",
		SQL_SET_SET},
	    {"set local \"pgweave\".databases = 'a', b", "pgweave.databases", "a, b",
		SQL_SET_LOCAL},
	    {"set pgweave.shard_key = -42", "pgweave.shard_key", "-42", SQL_SET_SET},
	    {"set pgweave.database = default", "pgweave.database", NULL, SQL_SET_SET},
	    {"set a from current", "a", NULL, SQL_SET_SET},
	    {"set time zone 'UTC'", "timezone", "UTC", SQL_SET_SET},
	    {"set local time zone local", "timezone", NULL, SQL_SET_LOCAL},
	    {"set names 'utf8'", "client_encoding", "utf8", SQL_SET_SET},
	    {"set schema 'x'", "search_path", "x", SQL_SET_SET},
	    {"set role bob", "role", "bob", SQL_SET_SET},
	    {"set role = bob", "role", "bob", SQL_SET_SET},
	    {"set session authorization default", "session_authorization", NULL,
		SQL_SET_SET},
	    {"set transaction read only", "transaction", NULL, SQL_SET_LOCAL},
	    {"set session characteristics as transaction read write",
		"session characteristics", NULL, SQL_SET_SET},
	    {"reset pgweave.databases", "pgweave.databases", NULL, SQL_SET_RESET},
	    {"reset all", "all", NULL, SQL_SET_RESET},
	    {"show pgweave.database", "pgweave.database", NULL, SQL_SET_SHOW},
	    {"show all", "all", NULL, SQL_SET_SHOW},
	    {"show transaction isolation level", "transaction_isolation", NULL,
		SQL_SET_SHOW},
	    {"show time zone", "timezone", NULL, SQL_SET_SHOW},
	};
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		const struct sql_facts *f;
		struct sql_scan s;

		scan(list[i].sql, &s);
		f = sql_facts_get(cache, &s);
		assert_int_equal(f->class, SQL_SET);
		assert_int_equal(f->set_verb, list[i].verb);
		assert_string_equal(f->setting, list[i].setting);
		if (list[i].value == NULL)
			assert_null(f->value);
		else
			assert_string_equal(f->value, list[i].value);
		sql_scan_free(&s);
	}
	expect(cache, "set pgweave.database =", "unknown");
	expect(cache, "set pgweave.database = 'x", "unknown");
	expect(cache, "set pgweave.database = 'x' y", "unknown");
	expect(cache, "show a b", "unknown");
	sql_cache_destroy(cache);
}

/* The cache must not answer with the value of another SET. */
static void
values_of_set_are_their_own(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	struct sql_scan s;

	(void)state;
	for (int i = 0; i < 3; i++) {
		char sql[64], value[16];

		snprintf(value, sizeof(value), "db%d", i);
		snprintf(sql, sizeof(sql), "set pgweave.database = '%s'", value);
		scan(sql, &s);
		assert_string_equal(sql_facts_get(cache, &s)->value, value);
		sql_scan_free(&s);
	}
	sql_cache_destroy(cache);
}

static void
explain_route_is_told(void **state)
{
	static const struct {
		const char *sql, *inner;
		bool wants_json;
		const char *problem, *hint;
	} list[] = {
	    {"explain (route) select 1", "select 1", false, NULL, NULL},
	    {"EXPLAIN (FORMAT json, ROUTE)\ndelete from t", "delete from t", true, NULL,
		NULL},
	    {"explain (route true, format text, costs off) x", "x", false, NULL, NULL},
	    {"explain (route on, format 'JSON', analyze off) x", "x", true, NULL, NULL},
	    {"explain (route) /* pgweave: database=a */ x", "x", false, NULL, "a"},
	    {"explain (route, analyze) x", "x", false, "ANALYZE cannot be used", NULL},
	    {"explain (format yaml, route) x", "x", false, "\"yaml\"", NULL},
	    {"explain (route, format) x", "x", false, "\"format\"", NULL},
	    {"explain (route, colour) x", "x", false, "option \"colour\"", NULL},
	    {"explain (route off) x", "x", false, "switched off", NULL},
	    {"explain (route)", "", false, "no statement", NULL},
	};
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		const char *want = list[i].problem, *hint = list[i].hint;
		const struct sql_facts *f;
		struct sql_scan s, inner;

		scan(list[i].sql, &s);
		f = sql_facts_get(cache, &s);
		assert_int_equal(f->class, SQL_EXPLAIN_ROUTE);
		assert_int_equal(f->wants_json, list[i].wants_json);
		if (want == NULL ? f->problem != NULL
				 : f->problem == NULL || strstr(f->problem, want) == NULL)
			fail_msg("%s: %s", list[i].sql, f->problem);
		sql_scan(s.sql + f->inner_at, s.len - f->inner_at, &inner);
		assert_int_equal(inner.len, strlen(list[i].inner));
		assert_memory_equal(inner.sql, list[i].inner, inner.len);
		assert_int_equal(inner.hint != NULL, hint != NULL);
		if (hint != NULL)
			assert_string_equal(inner.hint->database, hint);
		sql_scan_free(&inner);
		sql_scan_free(&s);
	}
	expect(cache, "explain (format yaml) select 1", "read plain");
	sql_cache_destroy(cache);
}

/* ---- the table of functions ---- */

static void
functions_are_sorted(void **state)
{
	static const char *const names[] = {
#define SQL_FUNCTION(name, effect, kind) #name,
#include "tbl/sql_functions.def"
	};

	(void)state;
	for (size_t i = 1; i < ARRAY_LEN(names); i++)
		assert_true(strcmp(names[i - 1], names[i]) < 0);
}

/* ---- the stream of a COPY ---- */

static void
expect_copy(struct sql_cache *cache, const char *sql, const char *what)
{
	static const char *const formats[] = {"text", "csv", "binary"},
				 *const headers[] = {"", " header", " match"};
	const struct sql_copy *c;
	struct buf b = {0};
	struct sql_scan s;

	sql_scan(sql, strlen(sql), &s);
	c = sql_facts_get(cache, &s)->copy;
	if (c == NULL)
		buf_addstr(&b, "none");
	else {
		buf_addf(&b, "%s%s %c", formats[c->format], headers[c->header],
		    c->delimiter == '\t' ? 'T' : c->delimiter);
		if (c->format == SQL_COPY_CSV)
			buf_addf(&b, " %c %c", c->quote, c->escape);
		buf_addf(&b, " null=%s", c->null);
		if (c->dflt != NULL)
			buf_addf(&b, " default=%s", c->dflt);
		if (c->encoding != NULL)
			buf_addf(&b, " encoding=%s", c->encoding);
		buf_addf(&b, "%s%s", c->force_null_all ? " fn*" : "",
		    c->force_not_null_all ? " fnn*" : "");
		for (unsigned i = 0; i < c->force_null_count; i++)
			buf_addf(&b, " fn=%s", c->force_null[i]);
		for (unsigned i = 0; i < c->force_not_null_count; i++)
			buf_addf(&b, " fnn=%s", c->force_not_null[i]);
		for (unsigned i = 0; i < c->column_count; i++)
			buf_addf(&b, " %s", c->columns[i]);
		if (c->unknown != NULL)
			buf_addf(&b, " unknown=%s", c->unknown);
	}
	buf_add(&b, "", 1);
	assert_string_equal((char *)b.mem, what);
	buf_free(&b);
	sql_scan_free(&s);
}

static void
copies_are_told(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	expect_copy(cache, "copy t to stdout", "none");
	expect_copy(cache, "copy t from '/f'", "none");
	expect_copy(cache, "copy t from stdin", "text T null=\\N");
	expect_copy(cache, "copy t (a, \"B\") from stdin", "text T null=\\N a B");
	expect_copy(cache, "copy binary t from stdin", "binary T null=\\N");
	expect_copy(cache, "copy t from stdin csv header", "csv header , \" \" null=");
	/* The same digest, other values. */
	expect_copy(cache, "copy t from stdin delimiter ';' null 'x'", "text ; null=x");
	expect_copy(cache, "copy t from stdin delimiter '|' null 'y'", "text | null=y");
	expect_copy(cache, "copy t from stdin csv quote '''' escape '\\' delimiter ';'",
	    "csv ; ' \\ null=");
	expect_copy(cache, "copy t from stdin csv force not null a, b force null c",
	    "csv , \" \" null= fn=c fnn=a fnn=b");
	expect_copy(cache,
	    "copy t from stdin (format csv, header match, force_null *, default 'D', "
	    "encoding 'latin1', quote '''')",
	    "csv match , ' ' null= default=D encoding=latin1 fn*");
	expect_copy(cache, "copy t from stdin (header false, freeze, on_error stop)",
	    "text T null=\\N");
	expect_copy(cache, "copy t from stdin (on_error ignore)",
	    "text T null=\\N unknown=on_error");
	sql_cache_destroy(cache);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(classes_are_told),
	    cmocka_unit_test(functions_decide),
	    cmocka_unit_test(tables_are_found),
	    cmocka_unit_test(places_are_exact),
	    cmocka_unit_test(conditions_are_found),
	    cmocka_unit_test(joins_carry_what_is_known),
	    cmocka_unit_test(inserts_are_found),
	    cmocka_unit_test(shapes_are_told),
	    cmocka_unit_test(aggregates_are_listed),
	    cmocka_unit_test(transactions_are_told),
	    cmocka_unit_test(cursors_are_told),
	    cmocka_unit_test(settings_are_told),
	    cmocka_unit_test(values_of_set_are_their_own),
	    cmocka_unit_test(explain_route_is_told),
	    cmocka_unit_test(functions_are_sorted),
	    cmocka_unit_test(copies_are_told),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
