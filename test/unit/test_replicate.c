/*
 * replicate: names, lists and times as people write them; the statements made of them; what
 * catalogs say; up to where nothing can be missing.
 */
#include "private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- lists, names, times ---- */

static void
test_lists(void **state)
{
	struct names n = {0};
	char why[256] = "";

	(void)state;
	assert_true(names_split(
	    &n, " users ,\"Order, Items\",app.\"a\"\"b\" ", why, sizeof(why)));
	assert_int_equal(n.count, 3);
	assert_string_equal(n.v[0], "users");
	assert_string_equal(n.v[1], "\"Order, Items\"");
	assert_string_equal(n.v[2], "app.\"a\"\"b\"");
	assert_true(names_have(&n, "users"));
	assert_false(names_have(&n, "user"));
	names_free(&n);
	assert_false(names_split(&n, "a,,b", why, sizeof(why)));
	names_free(&n);
	assert_false(names_split(&n, "", why, sizeof(why)));
	names_free(&n);
	assert_false(names_split(&n, "a, \"b", why, sizeof(why)));
	assert_non_null(strstr(why, "quote"));
	names_free(&n);
}

static void
assert_parts(const char *text, size_t most, const char *first, const char *second)
{
	struct names n = {0};
	char why[256] = "";
	bool ok = name_parts(&n, text, most, why, sizeof(why));

	if (first == NULL) {
		assert_false(ok);
		assert_int_equal(n.count, 0);
		return;
	}
	assert_true(ok);
	assert_int_equal(n.count, second != NULL ? 2 : 1);
	assert_string_equal(n.v[0], first);
	if (second != NULL)
		assert_string_equal(n.v[1], second);
	names_free(&n);
}

static void
test_names(void **state)
{
	(void)state;
	assert_parts("Users", 2, "users", NULL);
	assert_parts("App.Users", 2, "app", "users");
	assert_parts("\"Order Items\"", 2, "Order Items", NULL);
	assert_parts("app . \"a\"\"b.c\"", 2, "app", "a\"b.c");
	assert_parts("UPDATED_AT", 1, "updated_at", NULL);
	assert_parts("a.b.c", 2, NULL, NULL);
	assert_parts("a.b", 1, NULL, NULL);
	assert_parts("", 2, NULL, NULL);
	assert_parts("\"\"", 2, NULL, NULL);
	assert_parts("a.", 2, NULL, NULL);
	assert_parts(".a", 2, NULL, NULL);
	assert_parts("a b", 2, NULL, NULL);
	assert_parts("\"a\"b", 2, NULL, NULL);
	assert_parts("\"a", 2, NULL, NULL);
}

static void
assert_interval(const char *text, int64_t us, const char *as)
{
	int64_t got = -1;
	char *back;

	if (as == NULL) {
		assert_false(interval_read(text, &got));
		return;
	}
	assert_true(interval_read(text, &got));
	assert_int_equal(got, us);
	back = interval_text(got);
	assert_string_equal(back, as);
	free(back);
}

static void
test_intervals(void **state)
{
	(void)state;
	assert_interval("15min", 900 * SECOND_US, "15min");
	assert_interval("15 min", 900 * SECOND_US, "15min");
	assert_interval(" 1 hour 30 minutes ", 5400 * SECOND_US, "90min");
	assert_interval("90", 90 * SECOND_US, "90s");
	assert_interval("0.5s", 500000, "500ms");
	assert_interval("1 day", 86400 * SECOND_US, "1d");
	assert_interval("0", 0, "0d");
	assert_interval("", 0, NULL);
	assert_interval("min", 0, NULL);
	assert_interval("-5s", 0, NULL);
	assert_interval("5 parsecs", 0, NULL);
	assert_interval("0x10s", 0, NULL);
	assert_interval("1e30 d", 0, NULL);
	assert_interval("300d 300d", 0, NULL);
	assert_interval("nan", 0, NULL);
}

/* ---- statements ---- */

static void
assert_sql(struct buf *b, const char *want)
{
	buf_add(b, "", 1);
	assert_string_equal((const char *)b->mem, want);
	buf_free(b);
}

static void
column_add(struct relation *rel, const char *name, const char *type, bool is_generated)
{
	struct column *c;

	rel->columns =
	    mem_realloc(rel->columns, (rel->column_count + 1) * sizeof(*rel->columns));
	c = &rel->columns[rel->column_count++];
	*c = (struct column){.name = mem_str(name),
	    .type = mem_str(type),
	    .is_not_null = true,
	    .is_generated = is_generated};
}

static void
unique_add(struct relation *rel, const char *name)
{
	rel->uniques =
	    mem_realloc(rel->uniques, (rel->unique_count + 1) * sizeof(*rel->uniques));
	rel->uniques[rel->unique_count] = (struct unique){.is_primary = true};
	names_add(&rel->uniques[rel->unique_count++].columns, name, strlen(name));
}

static void
relation_make(struct relation *rel, const char *name)
{
	struct buf b = {0};

	rel->schema = mem_str("public");
	rel->name = mem_str(name);
	buf_addstr(&b, "\"public\".");
	sql_name(&b, name);
	buf_add(&b, "", 1);
	rel->sql = (char *)b.mem;
	column_add(rel, "id", "integer", false);
	column_add(rel, "a \"b\"", "text", false);
	column_add(rel, "at", "timestamp with time zone", false);
	unique_add(rel, "id");
}

/* A table that both have. */
static void
copy_make(struct copy *c)
{
	*c = (struct copy){.asked = "\"Order Items\"", .sync_key = "at"};
	relation_make(&c->source, "Order Items");
	relation_make(&c->target, "Order Items");
}

static void
test_statements(void **state)
{
	struct complaint why = {0};
	struct buf b = {0};
	struct copy c;

	(void)state;
	copy_make(&c);
	assert_true(catalog_match(&c, "primary", "secondary", false, &why));
	assert_int_equal(c.kind, KEY_CLOCK);
	sql_copy_out(&b, &c);
	assert_sql(&b,
	    "COPY (SELECT \"id\", \"a \"\"b\"\"\", \"at\" FROM \"public\".\"Order Items\")"
	    " TO STDOUT");
	c.watermark = mem_str("2026-01-01 00:00:00'+00");
	sql_copy_out(&b, &c);
	assert_sql(&b,
	    "COPY (SELECT \"id\", \"a \"\"b\"\"\", \"at\" FROM \"public\".\"Order Items\""
	    " WHERE \"at\" > '2026-01-01 00:00:00''+00') TO STDOUT");
	c.kind = KEY_OTHER;
	sql_copy_out(&b, &c);
	assert_non_null(strstr((const char *)b.mem, "\"at\" >= '"));
	buf_free(&b);
	sql_stage(&b, &c, 2);
	assert_sql(&b,
	    "CREATE TEMPORARY TABLE pgweave_stage_2 ON COMMIT DROP AS SELECT \"id\","
	    " \"a \"\"b\"\"\", \"at\" FROM \"public\".\"Order Items\" WITH NO DATA");
	sql_upsert(&b, &c, 0);
	assert_sql(&b,
	    "INSERT INTO \"public\".\"Order Items\" AS t (\"id\", \"a \"\"b\"\"\", \"at\")"
	    " OVERRIDING SYSTEM VALUE SELECT \"id\", \"a \"\"b\"\"\", \"at\" FROM"
	    " pg_temp.pgweave_stage_0 ON CONFLICT (\"id\") DO UPDATE SET"
	    " \"a \"\"b\"\"\" = excluded.\"a \"\"b\"\"\", \"at\" = excluded.\"at\""
	    " WHERE ROW(t.\"id\", t.\"a \"\"b\"\"\", t.\"at\")::record *<>"
	    " ROW(excluded.\"id\", excluded.\"a \"\"b\"\"\", excluded.\"at\")::record");
	sql_delete_gone(&b, &c, 0);
	assert_sql(&b,
	    "DELETE FROM \"public\".\"Order Items\" AS t WHERE NOT EXISTS (SELECT FROM"
	    " pg_temp.pgweave_stage_0 AS s WHERE t.\"id\" = s.\"id\")");
	copy_free(&c);
}

static void
test_key_alone(void **state)
{
	struct complaint why = {0};
	struct buf b = {0};
	struct copy c = {.asked = "t"};

	(void)state;
	relation_make(&c.source, "t");
	relation_make(&c.target, "t");
	assert_true(catalog_match(&c, "primary", "secondary", true, &why));
	while (c.columns.count > 1)
		free(c.columns.v[--c.columns.count]);
	sql_upsert(&b, &c, 0);
	assert_sql(&b,
	    "INSERT INTO \"public\".\"t\" AS t (\"id\") OVERRIDING SYSTEM VALUE SELECT"
	    " \"id\" FROM pg_temp.pgweave_stage_0 ON CONFLICT (\"id\") DO NOTHING");
	copy_free(&c);
}

static void
test_array(void **state)
{
	struct names n = {0};
	char *text;

	(void)state;
	names_add(&n, "\"a\\b\"", 5);
	names_add(&n, "c", 1);
	text = sql_array(&n);
	assert_string_equal(text, "{\"\\\"a\\\\b\\\"\",\"c\"}");
	free(text);
	names_free(&n);
	text = sql_array(&n);
	assert_string_equal(text, "{}");
	free(text);
}

/* ---- what fits, and what does not ---- */

static void
assert_refused(struct copy *c, const char *sqlstate, const char *message)
{
	struct complaint why = {0};

	assert_false(catalog_match(c, "primary", "secondary", false, &why));
	assert_string_equal(why.sqlstate, sqlstate);
	assert_string_equal(why.message, message);
	complaint_free(&why);
	copy_free(c);
}

static void
test_refusals(void **state)
{
	struct copy c = {.asked = "\"x\"", .sync_key = "at"};

	(void)state;
	assert_refused(&c, "42P01", "table \"x\" does not exist in database \"primary\"");
	copy_make(&c);
	c.source.columns[2].is_not_null = false;
	assert_refused(
	    &c, "42P16", "sync key \"at\" of table \"Order Items\" may be null");
	copy_make(&c);
	c.sync_key = "changed";
	assert_refused(&c, "42703",
	    "sync key \"changed\" is no column of table \"Order Items\" of database \"primary\"");
	copy_make(&c);
	names_free(&c.source.uniques[--c.source.unique_count].columns);
	assert_refused(&c, "42P16",
	    "table \"Order Items\" of database \"primary\" has no primary or unique key");
	copy_make(&c);
	names_free(&c.target.uniques[--c.target.unique_count].columns);
	assert_refused(&c, "42P16",
	    "table \"Order Items\" of database \"secondary\" has no primary or unique key");
	copy_make(&c);
	column_add(&c.source, "new", "text", false);
	assert_refused(&c, "42703",
	    "column \"new\" of table \"Order Items\" is missing in database \"secondary\"");
	copy_make(&c);
	column_add(&c.target, "own", "text", false);
	c.target.columns[3].is_needed = true;
	assert_refused(&c, "23502",
	    "column \"own\" of table \"Order Items\" of database \"secondary\" needs a value,"
	    " and database \"primary\" does not have it");
	copy_make(&c);
	c.source.is_no_table = true;
	assert_refused(
	    &c, "42809", "\"Order Items\" is no table in database \"primary\"");
}

/* What the target generates is not copied; what it has of its own stays. */
static void
test_generated(void **state)
{
	struct complaint why = {0};
	struct copy c;

	(void)state;
	copy_make(&c);
	column_add(&c.source, "g", "integer", true);
	column_add(&c.target, "g", "integer", true);
	column_add(&c.target, "own", "integer", false);
	assert_true(catalog_match(&c, "primary", "secondary", false, &why));
	assert_int_equal(c.columns.count, 3);
	assert_false(names_have(&c.columns, "g"));
	assert_int_equal(c.extra.count, 1);
	assert_string_equal(c.extra.v[0], "own");
	copy_free(&c);
}

static void
test_types(void **state)
{
	struct complaint why = {0};
	struct buf b = {0};
	struct copy c;

	(void)state;
	copy_make(&c);
	assert_true(catalog_match(&c, "primary", "secondary", false, &why));
	assert_false(catalog_types_sql(&c, 1, &b));
	b.len = 0;
	free(c.target.columns[0].type);
	c.target.columns[0].type = mem_str("bigint");
	assert_true(catalog_types_sql(&c, 1, &b));
	buf_add(&b, "", 1);
	assert_non_null(strstr(
	    (const char *)b.mem, "(VALUES ('Order Items', 'id', 'integer', 'bigint'))"));
	buf_free(&b);
	copy_free(&c);
}

static void
assert_notices(const char *key, const char *type, const char *const *want, size_t count)
{
	struct complaint why = {0};
	struct buf b = {0};
	struct copy c;
	size_t lines = 0;

	copy_make(&c);
	column_add(&c.source, key, type, false);
	column_add(&c.target, key, type, false);
	c.sync_key = key;
	names_add(&c.source.leading, "id", 2);
	assert_true(catalog_match(&c, "primary", "secondary", false, &why));
	catalog_notices(&c, "primary", &b);
	buf_add(&b, "", 1);
	for (size_t i = 0; i < count; i++)
		assert_non_null(strstr((const char *)b.mem, want[i]));
	for (const char *p = (const char *)b.mem; (p = strchr(p, '\n')) != NULL; p++)
		lines++;
	assert_int_equal(lines, count);
	buf_free(&b);
	copy_free(&c);
}

static void
test_notices(void **state)
{
	static const char *const created[] = {"updates are not copied", "no index"};
	static const char *const local[] = {"no time zone", "no index"};
	static const char *const number[] = {"no index", "is no time"};

	(void)state;
	assert_notices("created_at", "timestamp with time zone", created, 2);
	assert_notices("touched", "timestamp without time zone", local, 2);
	assert_notices("version", "bigint", number, 2);
}

/* ---- what catalogs say ---- */

static PGresult *
result(int columns, const char *const *values, int rows)
{
	PGresult *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	PGresAttDesc descs[16] = {{0}};
	static char name[] = "x";

	for (int i = 0; i < columns; i++)
		descs[i].name = name;
	assert_true(PQsetResultAttrs(r, columns, descs));
	for (int i = 0; i < rows * columns; i++) {
		char *v = values[i] != NULL ? mem_str(values[i]) : NULL;

		assert_true(PQsetvalue(
		    r, i / columns, i % columns, v, v != NULL ? (int)strlen(v) : -1));
		free(v);
	}
	return (r);
}

static void
test_catalog(void **state)
{
	static const char *const columns[] = {"1", "app", "x\"y", "t", "42", "t", "id",
	    "integer", "t", "f", "f", "app.x_id_seq", "1", "app", "x\"y", "t", "42", "t",
	    "g", "integer", "f", "t", "t", NULL};
	static const char *const keys[] = {"1", "10", "t", "t", "1", "a", "1", "10", "t",
	    "t", "2", "b", "1", "11", "f", "f", "1", NULL, "1", "12", "f", "f", "1", "c",
	    "1", "13", "f", "t", "1", "d", "9", "14", "f", "t", "1", "d"};
	struct copy c = {.asked = "x"};
	PGresult *r = result(12, columns, 2);

	(void)state;
	catalog_take_columns(&c, 1, true, r);
	PQclear(r);
	assert_string_equal(c.target.sql, "\"app\".\"x\"\"y\"");
	assert_int_equal(c.target.column_count, 2);
	assert_int_equal(c.target.rows_estimate, 42);
	assert_true(c.target.cascades && !c.target.is_no_table);
	assert_true(!c.target.columns[0].is_needed && c.target.columns[1].is_needed);
	assert_string_equal(relation_column(&c.target, "id")->sequence, "app.x_id_seq");
	assert_true(relation_column(&c.target, "g")->is_generated);
	assert_null(relation_column(&c.target, "h"));
	r = result(6, keys, 6);
	catalog_take_keys(&c, 1, false, r);
	PQclear(r);
	assert_int_equal(c.source.unique_count, 2);
	assert_int_equal(c.source.uniques[0].columns.count, 2);
	assert_string_equal(c.source.uniques[0].columns.v[1], "b");
	assert_string_equal(c.source.uniques[1].columns.v[0], "d");
	assert_true(names_have(&c.source.leading, "c"));
	assert_false(names_have(&c.source.leading, "b"));
	copy_free(&c);
}

static void
test_order(void **state)
{
	/* 1 refers to 3, 3 to 2; 4 and 5 to each other. */
	static const char *const pairs[] = {
	    "1", "3", "3", "2", "4", "5", "5", "4", "9", "1"};
	size_t order[5];
	PGresult *r = result(2, pairs, 5);

	(void)state;
	catalog_take_order(order, 5, r);
	PQclear(r);
	assert_int_equal(order[0], 1);
	assert_int_equal(order[1], 2);
	assert_int_equal(order[2], 0);
	assert_int_equal(order[3], 3);
	assert_int_equal(order[4], 4);
}

/* ---- bounds ---- */

#define T(s) ((s)*SECOND_US)

static void
test_clock(void **state)
{
	struct bound b = {.now_us = T(1000) + 5, .sees_all = true};
	struct copy c = {.kind = KEY_CLOCK};

	(void)state;
	assert_int_equal(bound_next(&c, &b, -1), T(1000) + 5);
	assert_string_equal(c.next, "1970-01-01 00:16:39.000005+00");
	b.oldest_us = T(600);
	assert_int_equal(bound_next(&c, &b, -1), T(600));
	assert_string_equal(c.next, "1970-01-01 00:09:59.000000+00");
	/* A transaction that began after the look. */
	b.oldest_us = T(2000);
	assert_int_equal(bound_next(&c, &b, T(60)), T(1000) + 5);
	assert_string_equal(c.next, "1970-01-01 00:15:39.000005+00");
	/* Hidden sessions. */
	b.oldest_us = 0;
	b.sees_all = false;
	assert_int_equal(bound_next(&c, &b, -1), T(1000) + 5);
	assert_string_equal(c.next, "1970-01-01 00:11:39.000005+00");
	b.has_prepared = true;
	c.watermark = mem_str("before");
	assert_int_equal(bound_next(&c, &b, -1), 0);
	assert_string_equal(c.next, "before");
	copy_free(&c);
}

static void
test_others(void **state)
{
	struct bound b = {.now_us = T(1001), .sees_all = true};
	struct copy c = {.kind = KEY_OTHER,
	    .newest = mem_str("77"),
	    .newest_us = T(1000),
	    .watermark = mem_str("50")};

	(void)state;
	/* Nothing was open. */
	assert_int_equal(bound_next(&c, &b, -1), T(1000));
	assert_string_equal(c.next, "77");
	assert_null(c.next_pending);
	/* Something was: the newest waits, the watermark stays. */
	b.oldest_us = T(999);
	assert_int_equal(bound_next(&c, &b, -1), 0);
	assert_string_equal(c.next, "50");
	assert_string_equal(c.next_pending, "77");
	assert_int_equal(c.next_pending_us, T(1000));
	/* What waited has been seen through, the newest has not. */
	c.pending = mem_str("60");
	c.pending_us = T(900);
	b.oldest_us = T(950);
	assert_int_equal(bound_next(&c, &b, -1), T(900));
	assert_string_equal(c.next, "60");
	assert_string_equal(c.next_pending, "77");
	/* Neither: what waits longer goes on waiting. */
	b.oldest_us = T(800);
	assert_int_equal(bound_next(&c, &b, -1), 0);
	assert_string_equal(c.next, "50");
	assert_string_equal(c.next_pending, "60");
	assert_int_equal(c.next_pending_us, T(900));
	/* A prepared transaction may have begun at any time. */
	b.oldest_us = 0;
	b.has_prepared = true;
	assert_int_equal(bound_next(&c, &b, -1), 0);
	assert_string_equal(c.next, "50");
	copy_free(&c);
}

/* ---- jobs ---- */

static void
test_jobs(void **state)
{
	struct topo_job_text text = {.name = "j",
	    .source = "primary",
	    .targets = "secondary, analytics",
	    .tables = "Users, \"Order Items\"",
	    .sync_key = "updated_at",
	    .interval = "15min"};
	char why[256] = "";
	struct job *job = job_create(&text, why, sizeof(why));

	(void)state;
	assert_non_null(job);
	assert_int_equal(job->targets.count, 2);
	assert_string_equal(job->tables.v[0], "\"users\"");
	assert_string_equal(job->tables.v[1], "\"Order Items\"");
	assert_int_equal(job->interval_us, 900 * SECOND_US);
	assert_int_equal(job->overlap_us, -1);
	assert_true(job->is_enabled);
	assert_true(job_text_same(&job->text, &text));
	job_destroy(job);
	text.tables = "users, USERS";
	assert_null(job_create(&text, why, sizeof(why)));
	assert_non_null(strstr(why, "twice"));
	text.tables = "users";
	text.targets = "secondary, primary";
	assert_null(job_create(&text, why, sizeof(why)));
	assert_non_null(strstr(why, "both source and target"));
	text.targets = "secondary";
	text.sync_key = NULL;
	assert_null(job_create(&text, why, sizeof(why)));
	text.mode = "full";
	text.enabled = "no";
	job = job_create(&text, why, sizeof(why));
	assert_non_null(job);
	assert_true(job->is_full);
	assert_false(job->is_enabled);
	job_destroy(job);
	text.enabled = "perhaps";
	assert_null(job_create(&text, why, sizeof(why)));
}

/* ---- what others may read ---- */

static void
note_run(void *arg, const struct store_run *run)
{
	struct buf *b = arg;

	buf_addf(b, "%s%d ", run->job, (int)run->run);
}

static void
test_board_keeps_runs_in_order(void **state)
{
	static const struct store_run heard[] = {
	    {.job = "j", .run = 1, .started_us = 10},
	    {.job = "j", .run = 3, .started_us = 30},
	    {.job = "k", .run = 1, .started_us = 15},
	    {.job = "j", .run = 2, .started_us = 20}, /* of another proxy, late */
	    {.job = "j", .run = 1, .started_us = 50}, /* a new job of that name */
	};
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(heard); i++)
		board_run(&heard[i]);
	replicate_each_run(note_run, &b);
	buf_add(&b, "", 1);
	assert_string_equal((const char *)b.mem, "j1 k1 j3 j2 j1 ");
	buf_free(&b);
	board_clear();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_lists),
	    cmocka_unit_test(test_board_keeps_runs_in_order),
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_intervals),
	    cmocka_unit_test(test_statements),
	    cmocka_unit_test(test_key_alone),
	    cmocka_unit_test(test_array),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_generated),
	    cmocka_unit_test(test_types),
	    cmocka_unit_test(test_notices),
	    cmocka_unit_test(test_catalog),
	    cmocka_unit_test(test_order),
	    cmocka_unit_test(test_clock),
	    cmocka_unit_test(test_others),
	    cmocka_unit_test(test_jobs),
	};

	return (cmocka_run_group_tests_name("replicate", tests, NULL, NULL));
}
