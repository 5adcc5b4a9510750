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
	    {TOPO_DRAINING, "draining", true},
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_one_for_a_name),
	    cmocka_unit_test(test_many),
	    cmocka_unit_test(test_set),
	    cmocka_unit_test(test_is_up),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
