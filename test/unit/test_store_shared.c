/* The store that proxies share, while its server is not there: the copy, and what it takes. */
#include "store.h"
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], why[512];
static char *state_dir, *copy_path;
static const struct topo *topo;

static const struct topo *
build(void)
{
	struct conf_problems problems = {0};
	char *text = mem_printf("[pgweave]\nunix_socket_dir = /tmp\nstate_dir = %s\n"
				"state_store = database:the/keeper\n"
				"[database the/keeper]\nhost = %s/none\nuser = weave\n",
	    state_dir, dir);
	struct conf *c = conf_load_text("t.ini", text, strlen(text), &problems);
	const struct topo *t = topo_build(c, &problems);

	free(text);
	conf_problems_free(&problems);
	assert_non_null(t);
	return (t);
}

static int
setup(void **state)
{
	(void)state;
	text_copy(dir, sizeof(dir), "/tmp/test_store.XXXXXX");
	assert_non_null(mkdtemp(dir));
	state_dir = mem_printf("%s/state", dir);
	copy_path = mem_printf("%s/the%%2Fkeeper.copy.db", state_dir);
	net_create(1);
	topo = build();
	return (0);
}

static int
teardown(void **state)
{
	char *command = mem_printf("rm -rf '%s'", dir);

	(void)state;
	store_stop();
	net_settle();
	net_destroy();
	topo_release(topo);
	topo_verdicts_free();
	topo_key_uses_free();
	assert_int_equal(system(command), 0);
	free(command);
	free(state_dir);
	free(copy_path);
	return (0);
}

static void
start(void)
{
	const struct topo_database *db = topo_store_database(topo);

	assert_non_null(db);
	assert_int_equal(store_start(topo, topo_settings(topo), db, why, sizeof(why)), 0);
	assert_true(store_is_shared());
}

/* ---- asking ---- */

static struct {
	bool is_there, has_changed;
	int fault;
	char why[512];
	char ids[256]; /* "id:secret " of each key */
} got;

static void
each_key(void *arg, const struct topo_key_text *k)
{
	size_t at = strlen(got.ids);

	(void)arg;
	snprintf(got.ids + at, sizeof(got.ids) - at, "%s:%s ", k->id, k->secret);
}

static void
each_run(void *arg, const struct store_run *run)
{
	(void)arg;
	(void)run;
	fail();
}

static void
done(struct worker *w, void *arg, int fault, const char *reason)
{
	(void)arg;
	assert_ptr_equal(w, net_main());
	got.is_there = true;
	got.fault = fault;
	text_copy(got.why, sizeof(got.why), reason);
}

static void
looked(struct worker *w, void *arg, bool has_changed)
{
	got.has_changed = has_changed;
	done(w, arg, 0, "");
}

static void
claimed(struct worker *w, void *arg, int fault, const char *reason, int64_t run,
    int64_t wait_us)
{
	assert_int_equal(run, 5);
	assert_int_equal(wait_us, 0);
	done(w, arg, fault, reason);
}

static int
answer(void)
{
	struct timespec nap = {.tv_nsec = 200000};
	int64_t until = clock_us() + 20 * 1000000;

	while (!got.is_there && clock_us() < until) {
		net_settle();
		nanosleep(&nap, NULL);
	}
	assert_true(got.is_there);
	got.is_there = false;
	return (got.fault);
}

static const char *
keys(void)
{
	got.ids[0] = '\0';
	store_keys_load(net_main(), each_key, done, NULL);
	assert_int_equal(answer(), 0);
	return (got.ids);
}

static void
put_run(void)
{
	struct store_run run = {
	    .job = "sync", .run = 1, .target = "b", .table = "t", .outcome = "done"};

	store_run_put(net_main(), &run, done, NULL);
	assert_int_equal(answer(), 0);
}

/* What an operator does with sqlite3. */
static void
sql(const char *text)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(copy_path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---- the tests ---- */

static const struct topo_key_text key = {.id = "vb_3", .secret = "SCRAM"};

static void
test_last_known_state(void **state)
{
	(void)state;
	start();
	assert_string_equal(keys(), "");
	store_stop();
	sql("INSERT INTO key (id, secret) VALUES ('vb_1', 'SCRAM')");
	start();
	assert_string_equal(keys(), "vb_1:SCRAM ");
	store_look(net_main(), looked, NULL);
	assert_int_equal(answer(), 0);
	assert_false(got.has_changed);
}

static void
test_changes_are_refused(void **state)
{
	static const char place[] =
	    "the state store cannot be used: database the/keeper (weave@/tmp/test_store.";
	struct topo_route_text route = {"bank", "notes", "analytics"};
	struct topo_job_text job = {.name = "sync"};

	(void)state;
	start();
	store_key_put(net_main(), &key, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	assert_memory_equal(got.why, place, sizeof(place) - 1);
	assert_non_null(strstr(got.why, "no such file or directory"));
	assert_non_null(strstr(store_hint(got.fault), "SHOW STATE"));
	assert_string_equal(fault_info(got.fault)->sqlstate, "57P03");
	store_key_revoke(net_main(), "vb_1", each_key, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	store_keys_forget(net_main(), done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	store_routes_put(net_main(), &route, 1, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	store_job_put(net_main(), &job, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	store_job_delete(net_main(), "sync", done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	store_job_claim(net_main(), "sync", 0, 5, claimed, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	store_runs_load(net_main(), "sync", 10, each_run, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
	assert_string_equal(keys(), "");
	assert_null(store_direct_open(
	    topo, topo_settings(topo), topo_store_database(topo), why, sizeof(why)));
	assert_memory_equal(why, place, sizeof(place) - 1);
}

/* Runs are kept until they can be sent. */
static void
test_runs_wait(void **state)
{
	(void)state;
	start();
	put_run();
	put_run();
	store_stop();
	sql("INSERT INTO key (id, secret) SELECT 'vb_2', 'S' || count(*) FROM run");
	start();
	assert_string_equal(keys(), "vb_2:S2 ");
}

/* Where there can be no file it is in memory. */
static void
test_no_directory(void **state)
{
	FILE *f = fopen(state_dir, "w");

	(void)state;
	assert_non_null(f);
	assert_int_equal(fclose(f), 0);
	start();
	assert_string_equal(keys(), "");
	put_run();
	store_key_put(net_main(), &key, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
}

/* A file that is none is left as it is. */
static void
test_foreign_copy(void **state)
{
	(void)state;
	start();
	store_stop();
	sql("PRAGMA user_version = 99");
	start();
	assert_string_equal(keys(), "");
	put_run();
	store_stop();
	sql("INSERT INTO key (id, secret) SELECT 'vb_2', 'S' || count(*) FROM run");
	sql("PRAGMA user_version = 3");
	start();
	assert_string_equal(keys(), "vb_2:S0 ");
}

/* A snapshot with other words about the database, and one without it, are taken in. */
static void
test_move(void **state)
{
	const struct topo *other = build();

	(void)state;
	start();
	store_move(net_main(), other);
	topo_release(other);
	assert_string_equal(keys(), "");
	store_key_put(net_main(), &key, done, NULL);
	assert_int_equal(answer(), F_STORE_DOWN);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(test_last_known_state),
	    TEST(test_changes_are_refused),
	    TEST(test_runs_wait),
	    TEST(test_no_directory),
	    TEST(test_foreign_copy),
	    TEST(test_move),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
