/* health: from what probes find to verdicts. */
#include "../../src/health/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)

static struct watch w;
static int64_t now;

static int
setup(void **state)
{
	(void)state;
	w = (struct watch){.name = (char *)(uintptr_t) "x",
	    .verdict = topo_verdict("x"),
	    .rules = {.interval_us = 30 * SECOND, .fall = 3, .rise = 2}};
	now = SECOND;
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	topo_verdicts_free();
	return (0);
}

static void
bad(const char *reason, enum topo_status want)
{
	judge_bad(&w, reason, now += SECOND);
	assert_int_equal(w.verdict->status, want);
	assert_string_equal(w.verdict->reason, reason);
	assert_int_equal(w.verdict->checked_us, now);
}

static void
good_as(enum topo_role role, enum topo_status want)
{
	struct found f = {.role = role,
	    .response_us = 700,
	    .connections = 12,
	    .replay_age_us = -1,
	    .version = "15.4"};

	judge_good(&w, &f, 0, now += SECOND);
	assert_int_equal(w.verdict->status, want);
	assert_int_equal(w.verdict->role, role);
}

static void
good(enum topo_status want)
{
	good_as(TOPO_ROLE_PRIMARY, want);
}

static void
a_new_connection_is_remembered(void **state)
{
	struct found f = {.role = TOPO_ROLE_PRIMARY, .replay_age_us = -1};

	(void)state;
	judge_good(&w, &f, 0, now += SECOND);
	assert_int_equal(w.verdict->reached_us, 0);
	f.reached_us = now;
	judge_good(&w, &f, 0, now += SECOND);
	/* Kept connections say nothing of new ones. */
	f.reached_us = 0;
	judge_good(&w, &f, 0, now += SECOND);
	assert_int_equal(w.verdict->reached_us, now - 2 * SECOND);
	judge_forget(&w);
	assert_int_equal(w.verdict->reached_us, 0);
}

static void
it_falls_and_rises(void **state)
{
	(void)state;
	good(TOPO_HEALTHY);
	assert_int_equal(w.verdict->since_us, now);
	assert_int_equal(w.verdict->response_us, 700);
	assert_int_equal(w.verdict->connections, 12);
	assert_string_equal(w.verdict->version, "15.4");
	assert_string_equal(w.verdict->reason, "");
	/* A good one in between: they must come in a row. */
	bad("one", TOPO_HEALTHY);
	bad("two", TOPO_HEALTHY);
	good(TOPO_HEALTHY);
	assert_string_equal(w.verdict->reason, "");
	bad("one", TOPO_HEALTHY);
	bad("two", TOPO_HEALTHY);
	bad("three", TOPO_DOWN);
	bad("four", TOPO_DOWN);
	assert_int_equal(w.verdict->since_us, now - SECOND);
	assert_false(topo_verdict_is_up(w.verdict));
	good(TOPO_HALF_OPEN);
	assert_true(topo_verdict_is_up(w.verdict));
	/* Half-open: one is enough. */
	bad("five", TOPO_DOWN);
	good(TOPO_HALF_OPEN);
	good(TOPO_HALF_OPEN);
	good(TOPO_HEALTHY);
}

static void
unknown_may_be_down_at_once(void **state)
{
	(void)state;
	w.rules.fall = 1;
	bad("no", TOPO_DOWN);
	judge_forget(&w);
	assert_int_equal(w.verdict->status, TOPO_UNKNOWN);
	assert_int_equal(w.verdict->checked_us, 0);
	assert_string_equal(w.verdict->reason, "");
}

static void
the_operator_has_the_last_word(void **state)
{
	(void)state;
	topo_verdict_order(w.verdict, TOPO_DRAINING, now, "by hand");
	good_as(TOPO_ROLE_PRIMARY, TOPO_DRAINING);
	for (int i = 0; i < 5; i++)
		judge_bad(&w, "no", now);
	assert_int_equal(w.verdict->status, TOPO_DRAINING);
	assert_string_equal(w.verdict->reason, "by hand");
	assert_int_equal(judge_pause_us(&w), SECOND);
	/* What health has found meanwhile holds at once. */
	topo_verdict_order(w.verdict, TOPO_UNKNOWN, now, NULL);
	assert_int_equal(w.verdict->status, TOPO_DOWN);
	assert_string_equal(w.verdict->reason, "no");
	topo_verdict_order(w.verdict, TOPO_MAINTENANCE, now, "by hand");
	judge_forget(&w);
	assert_int_equal(w.verdict->status, TOPO_MAINTENANCE);
}

static void
pauses(void **state)
{
	(void)state;
	assert_int_equal(judge_pause_us(&w), 30 * SECOND);
	good(TOPO_HEALTHY);
	assert_int_equal(judge_pause_us(&w), 30 * SECOND);
	bad("no", TOPO_HEALTHY);
	assert_int_equal(judge_pause_us(&w), SECOND / 4);
	bad("no", TOPO_HEALTHY);
	bad("no", TOPO_DOWN);
	assert_int_equal(judge_pause_us(&w), SECOND);
	good(TOPO_HALF_OPEN);
	assert_int_equal(judge_pause_us(&w), SECOND / 4);
	good(TOPO_HALF_OPEN);
	good(TOPO_HEALTHY);
	/* Never less often than it is configured. */
	w.rules.interval_us = SECOND / 10;
	bad("no", TOPO_HEALTHY);
	assert_int_equal(judge_pause_us(&w), SECOND / 10);
	/* None of its own accord, but failures are followed up. */
	w.rules.interval_us = 0;
	assert_int_equal(judge_pause_us(&w), SECOND / 4);
	good(TOPO_HEALTHY);
	assert_int_equal(judge_pause_us(&w), INT64_MAX);
}

/* ---- replicas ---- */

static void
behind(uint64_t received, uint64_t replayed, int64_t age_us, uint64_t primary,
    int64_t want_us, int64_t want_bytes)
{
	struct found f = {.role = TOPO_ROLE_REPLICA,
	    .received_lsn = received,
	    .replayed_lsn = replayed,
	    .replay_age_us = age_us};

	judge_good(&w, &f, primary, now += SECOND);
	assert_int_equal(w.verdict->lag_us, want_us);
	assert_int_equal(w.verdict->lag_bytes, want_bytes);
	assert_int_equal(w.verdict->replayed_lsn, replayed);
}

static void
lag(void **state)
{
	(void)state;
	w.rules.is_replica = w.rules.is_grouped = w.rules.is_standby_fine = true;
	w.rules.max_lag_us = 10 * SECOND;
	/* All replayed: the age of the last transaction says nothing. */
	behind(1000, 1000, 3600 * SECOND, 0, 0, 0);
	/* The first new byte after an hour: not an hour behind. */
	behind(1010, 1000, 3601 * SECOND, 0, SECOND, 10);
	behind(1010, 1005, 2 * SECOND / 10, 0, 2 * SECOND / 10, 5);
	/* The primary has written what never arrived. */
	behind(1010, 1010, 5 * SECOND, 5000, 3 * SECOND, 3990);
	/* A position of the primary from before. */
	behind(6000, 6000, 5 * SECOND, 5000, 0, 0);
	/* Nothing is known. */
	behind(0, 0, -1, 0, -1, -1);
	assert_int_equal(w.verdict->status, TOPO_HEALTHY);
	/* From an archive: what was received is not known, the age is. */
	w.caught_up_us = 0;
	behind(0, 700, 9 * SECOND, 0, 9 * SECOND, -1);
	assert_int_equal(w.verdict->status, TOPO_HEALTHY);
}

static void
lagging_has_hysteresis(void **state)
{
	(void)state;
	w.rules.is_replica = w.rules.is_grouped = w.rules.is_standby_fine = true;
	w.rules.max_lag_us = 10 * SECOND;
	behind(20, 10, 10 * SECOND, 0, 10 * SECOND, 10);
	assert_int_equal(w.verdict->status, TOPO_HEALTHY);
	behind(20, 10, 10 * SECOND + 1, 0, 10 * SECOND + 1, 10);
	assert_int_equal(w.verdict->status, TOPO_LAGGING);
	assert_string_equal(w.verdict->reason, "replay is 10000 ms behind");
	behind(20, 10, 6 * SECOND, 0, 6 * SECOND, 10);
	assert_int_equal(w.verdict->status, TOPO_LAGGING);
	behind(20, 10, 4 * SECOND, 0, 4 * SECOND, 10);
	assert_int_equal(w.verdict->status, TOPO_HEALTHY);
	assert_string_equal(w.verdict->reason, "");
	behind(20, 10, 11 * SECOND, 0, 11 * SECOND, 10);
	assert_int_equal(w.verdict->status, TOPO_LAGGING);
	bad("one", TOPO_LAGGING);
	bad("two", TOPO_LAGGING);
	bad("three", TOPO_DOWN);
	assert_int_equal(w.verdict->lag_us, -1);
	/* max_lag = 0: any lag is too much, and none is well. */
	judge_forget(&w);
	w.rules.max_lag_us = 0;
	behind(20, 10, 1, 0, 1, 10);
	assert_int_equal(w.verdict->status, TOPO_LAGGING);
	behind(20, 20, 1, 0, 0, 0);
	assert_int_equal(w.verdict->status, TOPO_HEALTHY);
	/* A standby that is nobody's replica here has lag, but no limit. */
	judge_forget(&w);
	w.rules.is_replica = w.rules.is_grouped = false;
	behind(20, 10, 100 * SECOND, 0, 100 * SECOND, 10);
	assert_int_equal(w.verdict->status, TOPO_HEALTHY);
}

static void
a_role_that_contradicts(void **state)
{
	(void)state;
	good_as(TOPO_ROLE_REPLICA, TOPO_HEALTHY);
	assert_non_null(strstr(w.verdict->reason, "in recovery and takes no writes"));
	w.rules.is_standby_fine = true;
	good_as(TOPO_ROLE_REPLICA, TOPO_HEALTHY);
	assert_string_equal(w.verdict->reason, "");
	w.rules.is_replica = true;
	good_as(TOPO_ROLE_PRIMARY, TOPO_HEALTHY);
	assert_string_equal(
	    w.verdict->reason, "replica_of is set, but the server is not in recovery");
	assert_int_equal(w.verdict->lag_us, -1);
}

/* ---- which one is the primary ---- */

enum { A, B, C, GROUP };
static struct watch g[GROUP];
static struct watch *const group[GROUP] = {&g[A], &g[B], &g[C]};

static int
setup_group(void **state)
{
	static char names[GROUP][2] = {"a", "b", "c"};

	(void)state;
	now = SECOND;
	for (size_t i = 0; i < GROUP; i++)
		g[i] = (struct watch){.name = names[i],
		    .verdict = topo_verdict(names[i]),
		    .rules = {.interval_us = 30 * SECOND,
			.fall = 2,
			.rise = 2,
			.is_grouped = true,
			.is_replica = i != A,
			.is_standby_fine = i != A,
			.max_lag_us = SECOND}};
	return (0);
}

/* The watch answers; timeline 0: it is a replica. */
static void
says(unsigned i, uint32_t timeline, uint64_t system)
{
	struct found f = {.role = timeline > 0 ? TOPO_ROLE_PRIMARY : TOPO_ROLE_REPLICA,
	    .timeline = timeline,
	    .system = system,
	    .started_us = 1000 + i,
	    .replay_age_us = -1};

	judge_good(&g[i], &f, 0, now += SECOND);
	lead_judge(group, GROUP, now);
}

static void
fails(unsigned i)
{
	judge_bad(&g[i], "no", now += SECOND);
	lead_judge(group, GROUP, now);
}

static void
dies(unsigned i)
{
	fails(i);
	fails(i);
	assert_int_equal(g[i].verdict->found, TOPO_DOWN);
}

/* NULL: not known. */
static void
leads(unsigned i, const struct watch *rival, bool is_missing)
{
	assert_ptr_equal(lead_of(group, GROUP), &g[i]);
	assert_ptr_equal(
	    atomic_load(&g[A].verdict->rival), rival != NULL ? rival->verdict : NULL);
	assert_int_equal(atomic_load(&g[A].verdict->missing_us) != 0, is_missing);
}

static void
a_promotion_is_followed(void **state)
{
	(void)state;
	leads(A, NULL, false);
	says(A, 1, 7);
	says(B, 0, 7);
	says(C, 0, 7);
	leads(A, NULL, false);
	assert_false(g[B].is_urgent);
	/* The first sign of trouble, and the replicas are asked. */
	fails(A);
	assert_true(g[B].is_urgent);
	assert_int_equal(g[B].due_us, now);
	assert_int_equal(judge_pause_us(&g[C]), SECOND / 4);
	leads(A, NULL, false);
	fails(A);
	leads(A, NULL, true);
	says(B, 2, 7);
	leads(B, NULL, false);
	assert_string_equal(g[B].verdict->reason, "promoted: it is the primary of \"a\"");
	assert_false(g[C].is_urgent);
	assert_int_equal(judge_pause_us(&g[C]), 30 * SECOND);
	/* The old one, as if nothing had happened. */
	says(A, 1, 7);
	leads(B, NULL, false);
	assert_true(g[A].verdict->is_fenced);
	assert_non_null(strstr(g[A].note, "timeline 1, but \"b\" is on timeline 2"));
	/* It is not written when the new one fails, either. */
	dies(B);
	leads(B, NULL, true);
	assert_true(g[A].verdict->is_fenced);
	says(B, 2, 7);
	leads(B, NULL, false);
	/* As a replica it is welcome. */
	dies(A);
	says(A, 0, 7);
	leads(B, NULL, false);
	assert_false(g[A].verdict->is_fenced);
	assert_string_equal(g[A].note, "a replica now, \"b\" is the primary");
	/* And back. */
	dies(B);
	says(A, 3, 7);
	leads(A, NULL, false);
	says(B, 0, 7);
	assert_string_equal(g[A].note, "");
	assert_string_equal(g[B].note, "");
}

static void
two_on_one_timeline_are_not_written(void **state)
{
	(void)state;
	says(A, 1, 7);
	says(B, 0, 7);
	dies(A);
	says(B, 2, 7);
	leads(B, NULL, false);
	says(C, 2, 7);
	leads(B, &g[C], false);
	assert_non_null(strstr(g[B].note, "both claim to be the primary of \"a\""));
	assert_string_equal(g[B].note, g[C].note);
	assert_true(g[C].verdict->is_fenced);
	says(C, 0, 7);
	leads(B, NULL, false);
	assert_string_equal(g[C].note, "");
	assert_false(g[C].verdict->is_fenced);
}

static void
two_whose_timelines_say_nothing(void **state)
{
	(void)state;
	says(A, 1, 7);
	/* Another cluster: its timeline does not compare. */
	says(B, 5, 8);
	leads(A, &g[B], false);
	/* It is no copy of the primary that has gone. */
	dies(A);
	leads(A, NULL, true);
	assert_non_null(strstr(g[B].note, "another cluster than \"a\""));
	says(A, 1, 7);
	leads(A, &g[B], false);
	/* Two names of one server. */
	g[B].system = 7;
	g[B].timeline = 1;
	g[B].server_us = g[A].server_us;
	lead_judge(group, GROUP, now);
	leads(A, NULL, false);
	assert_false(g[B].verdict->is_fenced);
}

/* They do not tell who they are, but have one address; a port of its own is another server. */
static void
one_address_is_one_server(void **state)
{
	struct topo_host at = {.host = "h", .port = 1}, other = {.host = "h", .port = 2};
	struct topo_database a = {.name = "a", .hosts = &at, .host_count = 1}, b = a;

	(void)state;
	g[A].database = &a;
	g[B].database = &b;
	says(A, 1, 0);
	says(B, 1, 0);
	leads(A, NULL, false);
	assert_false(g[B].verdict->is_fenced);
	b.hosts = &other;
	says(B, 1, 0);
	leads(A, &g[B], false);
	/* It is said not to be written: so it is not meant to be the primary. */
	b.is_read_only = true;
	says(B, 1, 0);
	leads(A, NULL, false);
	assert_false(g[B].verdict->is_fenced);
}

static void
nobody_leads_before_the_primary_was_asked(void **state)
{
	(void)state;
	says(B, 2, 7);
	leads(A, NULL, false);
	fails(A);
	leads(A, NULL, false);
	fails(A);
	leads(B, NULL, false);
}

static void
all_are_in_recovery(void **state)
{
	(void)state;
	says(A, 0, 7);
	says(B, 0, 7);
	leads(A, NULL, true);
	assert_true(g[B].is_urgent);
	/* One that is out by an operator's word is none that takes over. */
	topo_verdict_order(g[B].verdict, TOPO_MAINTENANCE, now, "by hand");
	says(B, 2, 7);
	leads(A, NULL, true);
	topo_verdict_order(g[B].verdict, TOPO_UNKNOWN, now, NULL);
	says(B, 2, 7);
	leads(B, NULL, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(it_falls_and_rises, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		a_new_connection_is_remembered, setup, teardown),
	    cmocka_unit_test_setup_teardown(unknown_may_be_down_at_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		the_operator_has_the_last_word, setup, teardown),
	    cmocka_unit_test_setup_teardown(pauses, setup, teardown),
	    cmocka_unit_test_setup_teardown(lag, setup, teardown),
	    cmocka_unit_test_setup_teardown(lagging_has_hysteresis, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_role_that_contradicts, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		a_promotion_is_followed, setup_group, teardown),
	    cmocka_unit_test_setup_teardown(
		two_on_one_timeline_are_not_written, setup_group, teardown),
	    cmocka_unit_test_setup_teardown(
		two_whose_timelines_say_nothing, setup_group, teardown),
	    cmocka_unit_test_setup_teardown(
		one_address_is_one_server, setup_group, teardown),
	    cmocka_unit_test_setup_teardown(
		nobody_leads_before_the_primary_was_asked, setup_group, teardown),
	    cmocka_unit_test_setup_teardown(all_are_in_recovery, setup_group, teardown),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
