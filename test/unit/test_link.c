/* link: parameter sets, the ring of requests, the statements of a link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link.h"

static struct worker *w;

static int
setup(void **state)
{
	(void)state;
	net_create(1);
	w = net_worker(0);
	link_init(w);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	link_fini(w);
	net_destroy();
	return (0);
}

static struct vars *
set(struct vars *v, const char *name, const char *value)
{
	return (vars_with(w, v, name, value, vars_kind_of(w, name)));
}

static void
equal_sets_are_one_object(void **state)
{
	struct vars *a =
	    set(set(vars_none(w), "TimeZone", "UTC"), "client_encoding", "UTF8");
	struct vars *b =
	    set(set(vars_none(w), "client_encoding", "UTF8"), "timezone", "UTC");

	(void)state;
	/* The names differ in spelling only where no server has reported them. */
	assert_string_equal(vars_get(a, "timezone"), "UTC");
	b = set(set(b, "timezone", NULL), "TimeZone", "UTC");
	assert_ptr_equal(a, b);
	b = set(b, "TimeZone", "Europe/Rome");
	assert_ptr_not_equal(a, b);
	assert_true(vars_bytes(w) > 0);
	vars_release(w, a);
	vars_release(w, b);
	assert_int_equal(vars_bytes(w), 0);
}

static void
the_statements_between_two_sets(void **state)
{
	struct vars *is =
	    set(set(vars_none(w), "TimeZone", "UTC"), "server_version", "15.1");
	struct vars *want = vars_hold(is);
	struct buf sql = {0};

	(void)state;
	assert_false(vars_sql(is, want, &sql));
	want = set(want, "TimeZone", "O'Hare\\x");
	want = vars_with(w, want, "work_mem", "1MB", VARS_STARTUP);
	assert_true(vars_sql(is, want, &sql));
	buf_add(&sql, "", 1);
	assert_string_equal((char *)sql.mem,
	    "SELECT set_config('TimeZone', E'O''Hare\\\\x',false), "
	    "set_config('work_mem','1MB',false);");
	sql.len = 0;
	want = set(want, "TimeZone", "UTC");
	assert_true(vars_sql(want, is, &sql));
	buf_add(&sql, "", 1);
	assert_string_equal((char *)sql.mem, "RESET \"work_mem\";");
	sql.len = 0;
	/* What a role has set another may not set. */
	is = vars_with(w, is, VARS_ROLE, "a", VARS_STARTUP);
	want = vars_with(w, want, VARS_ROLE, "b", VARS_STARTUP);
	want = vars_with(w, want, VARS_AUTHORIZATION, "c'", VARS_STARTUP);
	assert_true(vars_sql(is, want, &sql));
	buf_add(&sql, "", 1);
	assert_string_equal((char *)sql.mem,
	    "RESET ROLE;SELECT set_config('work_mem','1MB',false);"
	    "SET SESSION AUTHORIZATION 'c''';SET \"role\" TO 'b';");
	sql.len = 0;
	vars_sql_set(&sql, "search_path", "\"$user\", Public ,\"a\"\",b\"");
	vars_sql_set(&sql, "a.b", "x\\");
	buf_add(&sql, "", 1);
	assert_string_equal((char *)sql.mem,
	    "SET \"search_path\" TO '$user','public','a\",b';"
	    "SET \"a\".\"b\" TO  E'x\\\\';");
	buf_free(&sql);
	vars_release(w, is);
	vars_release(w, want);
}

static void
requests_keep_their_order(void **state)
{
	struct requests q = {0};
	unsigned out = 0, in = 0;

	(void)state;
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 7; i++)
			requests_push(&q, REQ_PARSE, ACT_FORWARD)->arg =
			    (void *)(uintptr_t)++in;
		for (int i = 0; i < 5; i++) {
			assert_int_equal((uintptr_t)requests_head(&q)->arg, ++out);
			requests_pop(&q);
		}
	}
	while (q.count > 0) {
		assert_int_equal((uintptr_t)requests_at(&q, 0)->arg, ++out);
		requests_pop(&q);
	}
	assert_int_equal(in, out);
	assert_null(requests_head(&q));
	requests_free(&q);
}

static void
the_statement_used_longest_ago_goes_first(void **state)
{
	struct prepared_set set_ = {0};
	struct hash128 a = {1, 10}, b = {2, 20}, c = {3, 30}, id;
	char name[PREPARED_NAME];

	(void)state;
	prepared_add(&set_, a, 1);
	prepared_add(&set_, b, 1);
	prepared_add(&set_, c, 2);
	prepared_confirm(&set_, a);
	assert_false(prepared_is_unsure(&set_, a, 2));
	assert_true(prepared_is_unsure(&set_, b, 2));
	assert_false(prepared_is_unsure(&set_, c, 2));
	assert_true(prepared_touch(&set_, a));
	assert_true(prepared_evict(&set_, &id));
	assert_int_equal(id.hi, 2);
	prepared_forget(&set_, c);
	assert_false(prepared_touch(&set_, c));
	assert_int_equal(prepared_count(&set_), 1);
	prepared_name((struct hash128){0xabc, 1}, name);
	assert_string_equal(name, "pgw_0000000000000abc0000000000000001");
	prepared_name(
	    (struct hash128){0x0123456789abcdefULL, 0xfedcba9876543210ULL}, name);
	assert_string_equal(name, "pgw_0123456789abcdeffedcba9876543210");
	prepared_clear(&set_);
}

/* What was read for somebody else is trusted for a moment, under the same circumstances. */
static void
shared_statements_wear_out(void **state)
{
	struct prepared_set set_ = {0};
	struct hash128 a = {1, 10}, b = {2, 20};
	struct link l = {0};
	int64_t now = 5000000;

	(void)state;
	assert_int_equal(prepared_shared(&set_, a, 7, now), PREPARED_MISSING);
	prepared_share(&set_, a, 1, 7, now);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(prepared_shared(&set_, a, 7, now + i), PREPARED_FRESH);
	assert_int_equal(prepared_shared(&set_, a, 8, now), PREPARED_MISSING);
	assert_int_equal(
	    prepared_shared(&set_, a, 7, now + PREPARED_SHARED_US + 1), PREPARED_WORN);
	prepared_share(&set_, b, 1, 7, now);
	assert_int_equal(
	    prepared_shared(&set_, b, 7, now + PREPARED_SHARED_US + 1), PREPARED_MISSING);
	assert_int_equal(prepared_shared(&set_, b, 7, now), PREPARED_FRESH);
	prepared_renew(b);
	assert_int_equal(prepared_shared(&set_, b, 7, now), PREPARED_MISSING);
	assert_int_equal(prepared_shared(&set_, a, 7, now), PREPARED_FRESH);
	link_define(&l);
	assert_true(l.has_defined);
	assert_int_equal(prepared_shared(&set_, a, 7, now), PREPARED_MISSING);
	prepared_share(&set_, a, 1, 7, now);
	link_define_over(&l);
	assert_false(l.has_defined);
	assert_int_equal(prepared_shared(&set_, a, 7, now), PREPARED_MISSING);
	prepared_clear(&set_);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(equal_sets_are_one_object),
	    cmocka_unit_test(the_statements_between_two_sets),
	    cmocka_unit_test(requests_keep_their_order),
	    cmocka_unit_test(the_statement_used_longest_ago_goes_first),
	    cmocka_unit_test(shared_statements_wear_out),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
