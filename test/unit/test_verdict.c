/* topo: verdicts: one for a name, and what follows from a status. */
#include "topo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
test_one_for_a_name(void **state)
{
	char name[] = "primary";
	struct topo_verdict *v = topo_verdict(name);

	(void)state;
	name[0] = 'P';
	assert_string_equal(v->database, "primary");
	assert_ptr_equal(topo_verdict("primary"), v);
	assert_ptr_not_equal(topo_verdict("Primary"), v);
	assert_int_equal(v->status, TOPO_UNKNOWN);
	assert_int_equal(v->role, TOPO_ROLE_UNKNOWN);
	assert_int_equal(v->response_us, -1);
	assert_int_equal(v->lag_us, -1);
	assert_int_equal(v->lag_bytes, -1);
	assert_int_equal(v->checked_us, 0);
	topo_verdicts_free();
	/* A new one after the end, and it can end again. */
	assert_int_equal(topo_verdict("primary")->since_us, 0);
	topo_verdicts_free();
	topo_verdicts_free();
}

static void
test_many(void **state)
{
	struct topo_verdict *v[300];

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
		char name[16];

		snprintf(name, sizeof(name), "db%u", i);
		v[i] = topo_verdict(name);
	}
	for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
		char name[16];

		snprintf(name, sizeof(name), "db%u", i);
		assert_ptr_equal(topo_verdict(name), v[i]);
	}
	topo_verdicts_free();
}

static void
test_set(void **state)
{
	struct topo_verdict *v = topo_verdict("a");
	char longest[sizeof(v->reason) + 10];

	(void)state;
	topo_verdict_set(v, TOPO_DOWN, 1000, "connection refused");
	assert_int_equal(v->status, TOPO_DOWN);
	assert_int_equal(v->since_us, 1000);
	assert_string_equal(v->reason, "connection refused");
	/* The same again: it has been so since the first time; the reason is the last. */
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	topo_verdict_set(v, TOPO_DOWN, 2000, longest);
	assert_int_equal(v->since_us, 1000);
	assert_int_equal(strlen(v->reason), sizeof(v->reason) - 1);
	topo_verdict_set(v, TOPO_HALF_OPEN, 3000, NULL);
	assert_int_equal(v->since_us, 3000);
	assert_string_equal(v->reason, "");
	topo_verdicts_free();
}

static void
test_is_up(void **state)
{
	static const struct {
		enum topo_status status;
		const char *name;
		bool is_up;
	} want[] = {
	    {TOPO_UNKNOWN, "unknown", true},
	    {TOPO_HEALTHY, "healthy", true},
	    {TOPO_DOWN, "down", false},
	    {TOPO_HALF_OPEN, "half-open", true},
	    {TOPO_LAGGING, "lagging", true},
	    {TOPO_DRAINING, "draining", false},
	    {TOPO_MAINTENANCE, "maintenance", false},
	};
	struct topo_verdict *v = topo_verdict("a");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		topo_verdict_set(v, want[i].status, 1, NULL);
		assert_int_equal(topo_verdict_is_up(v), want[i].is_up);
		assert_string_equal(topo_status_name(want[i].status), want[i].name);
	}
	topo_verdicts_free();
}

static void
test_order(void **state)
{
	struct topo_verdict *v = topo_verdict("a");

	(void)state;
	topo_verdict_set(v, TOPO_HEALTHY, 1000, NULL);
	assert_true(topo_verdict_order(v, TOPO_DRAINING, 2000, "by admin"));
	assert_int_equal(v->status, TOPO_DRAINING);
	assert_int_equal(v->since_us, 2000);
	assert_string_equal(v->reason, "by admin");
	/* Health goes on behind it. */
	topo_verdict_set(v, TOPO_DOWN, 3000, "gone");
	assert_int_equal(v->status, TOPO_DRAINING);
	assert_int_equal(v->found, TOPO_DOWN);
	assert_string_equal(v->reason, "by admin");
	assert_false(topo_verdict_order(v, TOPO_DRAINING, 3500, "by admin: disk"));
	assert_int_equal(v->since_us, 2000);
	assert_string_equal(v->reason, "by admin: disk");
	assert_int_equal(v->failures, 0);
	assert_true(topo_verdict_order(v, TOPO_UNKNOWN, 4000, NULL));
	assert_int_equal(v->status, TOPO_DOWN);
	assert_int_equal(v->since_us, 3000);
	assert_string_equal(v->reason, "gone");
	assert_int_equal(v->failures, 1);
	assert_false(topo_verdict_order(v, TOPO_UNKNOWN, 4500, NULL));
	assert_int_equal(v->failures, 1);
	/* Nobody looks while it is in maintenance: afterwards it has to show how it is. */
	assert_true(topo_verdict_order(v, TOPO_MAINTENANCE, 5000, "by admin"));
	assert_true(topo_verdict_order(v, TOPO_UNKNOWN, 6000, NULL));
	assert_int_equal(v->status, TOPO_HALF_OPEN);
	assert_int_equal(v->since_us, 6000);
	assert_int_equal(v->risen_us, 0);
	topo_verdict_set(v, TOPO_HEALTHY, 7000, NULL);
	assert_int_equal(v->risen_us, 7000);
	topo_verdicts_free();
}

static void
test_primary(void **state)
{
	struct topo_database root = {.name = "a", .verdict = topo_verdict("a")},
			     copy = {.name = "b",
				 .verdict = topo_verdict("b"),
				 .replica_of = &root},
			     lone = {.name = "c", .verdict = topo_verdict("c")};
	const struct topo_database *copies[] = {&copy}, *rival;
	int64_t since = 0;

	(void)state;
	root.copies = copies;
	root.copy_count = 1;
	assert_ptr_equal(topo_database_primary(&copy, &rival), &root);
	assert_null(rival);
	assert_true(topo_database_is_primary(&root));
	assert_false(topo_database_is_primary(&copy));
	assert_true(topo_database_is_primary(&lone));
	assert_false(topo_verdict_awaits_primary(&root, NULL));
	atomic_store(&root.verdict->missing_us, 500);
	assert_true(topo_verdict_awaits_primary(&copy, &since));
	assert_int_equal(since, 500);
	/* Taken out on purpose: nobody waits for it. */
	topo_verdict_order(root.verdict, TOPO_MAINTENANCE, 600, "by admin");
	assert_false(topo_verdict_awaits_primary(&root, NULL));
	topo_verdict_order(root.verdict, TOPO_UNKNOWN, 700, NULL);
	/* A lone one may come back, but no other will take its place. */
	topo_verdict_set(lone.verdict, TOPO_DOWN, 500, "gone");
	assert_false(topo_verdict_awaits_primary(&lone, NULL));
	atomic_store(&root.verdict->missing_us, 0);
	atomic_store(&root.verdict->primary, copy.verdict);
	assert_ptr_equal(topo_database_primary(&root, &rival), &copy);
	assert_null(rival);
	assert_false(topo_database_is_primary(&root));
	assert_true(topo_database_is_primary(&copy));
	assert_false(topo_verdict_awaits_primary(&root, NULL));
	atomic_store(&root.verdict->rival, root.verdict);
	assert_ptr_equal(topo_database_primary(&root, &rival), &copy);
	assert_ptr_equal(rival, &root);
	/* One that is of the group no more is nothing to it. */
	atomic_store(&root.verdict->primary, lone.verdict);
	assert_ptr_equal(topo_database_primary(&root, NULL), &root);
	topo_verdicts_free();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_one_for_a_name),
	    cmocka_unit_test(test_many),
	    cmocka_unit_test(test_set),
	    cmocka_unit_test(test_is_up),
	    cmocka_unit_test(test_order),
	    cmocka_unit_test(test_primary),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
