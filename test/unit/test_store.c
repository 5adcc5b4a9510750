/* The state store: keys and jobs there and back, and every file that cannot be one. */
#include "store.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define NOBODY 65534

static char dir[64];
static char why[512];
static struct settings set;
static char *state_dir, *db_path;

/* ---- files ---- */

static int
setup(void **state)
{
	(void)state;
	text_copy(dir, sizeof(dir), "/tmp/test_store.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	settings_defaults(&set);
	state_dir = mem_printf("%s/state", dir);
	db_path = mem_printf("%s/state.db", state_dir);
	set.state_dir = state_dir;
	why[0] = '\0';
	net_create(1);
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
	assert_int_equal(system(command), 0);
	free(command);
	free(state_dir);
	free(db_path);
	return (0);
}

static void
write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* What an operator does with sqlite3. */
static void
sql(const char *path, const char *text)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
start(void)
{
	assert_int_equal(store_start(NULL, &set, NULL, why, sizeof(why)), 0);
}

/* ---- asking, and waiting for the answer ---- */

struct answer {
	bool is_there;
	int fault;
	char why[512];
	bool has_changed;
	unsigned count;
	struct topo_key_text keys[4]; /* texts are the answer's */
	char *texts[64];
	unsigned text_count;
	char names[256]; /* of jobs; of runs "job/run/target" */
	int64_t first_run, last_run;
};

static const char *
answer_keep(struct answer *a, const char *text)
{
	if (text == NULL)
		return (NULL);
	assert_true(a->text_count < ARRAY_LEN(a->texts));
	return (a->texts[a->text_count++] = mem_str(text));
}

static void
answer_free(struct answer *a)
{
	for (unsigned i = 0; i < a->text_count; i++)
		free(a->texts[i]);
	memset(a, 0, sizeof(*a));
}

static void
each_key(void *arg, const struct topo_key_text *k)
{
	struct answer *a = arg;
	const char *const *from = (const char *const *)k;
	const char **to;

	assert_false(a->is_there);
	assert_true(a->count < ARRAY_LEN(a->keys));
	to = (const char **)&a->keys[a->count++];
	for (size_t i = 0; i < sizeof(*k) / sizeof(char *); i++)
		to[i] = answer_keep(a, from[i]);
}

static void
each_job(void *arg, const struct topo_job_text *j)
{
	struct answer *a = arg;
	size_t at = strlen(a->names);

	a->count++;
	snprintf(a->names + at, sizeof(a->names) - at, "%s:%s ", j->name, j->tables);
}

static void
each_run(void *arg, const struct store_run *r)
{
	struct answer *a = arg;
	size_t at = strlen(a->names);

	if (a->count++ == 0)
		a->first_run = r->run;
	a->last_run = r->run;
	if (at < 200)
		snprintf(a->names + at, sizeof(a->names) - at, "%s/%d/%s/%s/%d/%s ",
		    r->job, (int)r->run, r->target, r->table, (int)r->bytes,
		    r->error != NULL ? r->error : "-");
}

static void
done(struct worker *w, void *arg, int fault, const char *reason)
{
	struct answer *a = arg;

	assert_ptr_equal(w, net_main());
	a->is_there = true;
	a->fault = fault;
	text_copy(a->why, sizeof(a->why), reason);
}

static void
looked(struct worker *w, void *arg, bool has_changed)
{
	struct answer *a = arg;

	done(w, arg, 0, "");
	a->has_changed = has_changed;
}

static int
wait_for(struct answer *a)
{
	struct timespec nap = {.tv_nsec = 200000};
	int64_t until = clock_us() + 20 * 1000000;

	while (!a->is_there && clock_us() < until) {
		net_settle();
		nanosleep(&nap, NULL);
	}
	assert_true(a->is_there);
	return (a->fault);
}

static int
load(struct answer *a)
{
	answer_free(a);
	store_keys_load(net_main(), each_key, done, a);
	return (wait_for(a));
}

static int
put(struct answer *a, const struct topo_key_text *k)
{
	answer_free(a);
	store_key_put(net_main(), k, done, a);
	return (wait_for(a));
}

static int
revoke_key(struct answer *a, const char *word)
{
	answer_free(a);
	store_key_revoke(net_main(), word, each_key, done, a);
	return (wait_for(a));
}

/* What the next verifier is; NULL: there is none. */
static const char *new_verifier;

static char *
verifier_like(void *arg, const char *like)
{
	assert_string_equal(arg, "the arg");
	assert_non_null(like);
	return (
	    new_verifier != NULL ? mem_printf("%s after %s", new_verifier, like) : NULL);
}

static struct store_rotation
rotation_of(const char *verifier, int64_t overlap_us)
{
	static char arg[] = "the arg";

	new_verifier = verifier;
	return ((struct store_rotation){
	    .verifier = verifier_like, .arg = arg, .overlap_us = overlap_us});
}

static int
rotate_key(struct answer *a, const char *word, const char *verifier, int64_t overlap_us)
{
	struct store_rotation r = rotation_of(verifier, overlap_us);

	answer_free(a);
	store_key_rotate(net_main(), word, &r, each_key, done, a);
	return (wait_for(a));
}

static int
forget(struct answer *a)
{
	answer_free(a);
	store_keys_forget(net_main(), done, a);
	return (wait_for(a));
}

static bool
look(struct answer *a)
{
	answer_free(a);
	store_look(net_main(), looked, a);
	assert_int_equal(wait_for(a), 0);
	return (a->has_changed);
}

static const struct topo_key_text key = {
    .id = "vb_0123",
    .secret = "SCRAM-SHA-256$4096:abc$def:ghi",
    .name = "it's \"the\" key; DROP TABLE key; -- Schlüssel \xe2\x82\xac",
    .type = "server",
    .virtual_ = "bank",
    .databases = "primary, analytics",
    .rights = "federate, operate",
    .user_id = "",
    .read_only = "yes",
    .networks = "10.0.0.0/8",
    .rate = "100/s",
    .concurrency = "20",
    .expires = "2027-01-01",
    .roles = "primary app_ro",
    .created = "2026-01-31 23:59:59+00",
};

static void
same_text(const char *a, const char *b)
{
	assert_string_equal(a != NULL ? a : "", b != NULL ? b : "");
}

static void
same_key(const struct topo_key_text *a, const struct topo_key_text *b)
{
	for (size_t i = 0; i < sizeof(*a) / sizeof(char *); i++)
		same_text(((const char *const *)a)[i], ((const char *const *)b)[i]);
}

/* ---- keys ---- */

static void
test_keys(void **state)
{
	struct answer a = {0};
	struct topo_key_text other = {
	    .id = "vb_4567", .secret = "SCRAM", .type = "client"};
	struct stat st;

	(void)state;
	start();
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 0);
	assert_int_equal(put(&a, &key), 0);
	assert_int_equal(put(&a, &other), 0);
	assert_int_equal(put(&a, &other), F_EXISTS);
	assert_string_equal(a.why, "there is a key of that id already");
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 2);
	same_key(&a.keys[0], &key);
	same_key(&a.keys[1], &other);
	assert_null(a.keys[0].user_id);
	assert_int_equal(revoke_key(&a, "vb_none"), F_NOT_FOUND);
	assert_string_equal(a.why, "there is no key \"vb_none\"");
	assert_int_equal(revoke_key(&a, "vb_4567"), 0);
	assert_int_equal(a.count, 1);
	assert_string_equal(a.keys[0].id, "vb_4567");
	assert_non_null(a.keys[0].revoked);
	assert_int_equal(revoke_key(&a, "vb_4567"), 0);
	/* The file and its directory are the owner's alone. */
	assert_int_equal(stat(db_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(state_dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	/* Opened again, everything is as it was. */
	store_stop();
	start();
	answer_free(&a);
	assert_int_equal(store_keys_wait(each_key, &a, why, sizeof(why)), 0);
	assert_int_equal(a.count, 2);
	same_key(&a.keys[0], &key);
	assert_null(a.keys[0].revoked);
	assert_non_null(a.keys[1].revoked);
	assert_int_equal(strlen(a.keys[1].revoked), strlen("2026-01-31 23:59:59+00"));
	answer_free(&a);
}

/* A name is taken as long as a key that is not revoked has it, and stands for that key. */
static void
test_names(void **state)
{
	struct topo_key_text one = {.id = "vb_1", .secret = "S", .name = "it's"};
	struct topo_key_text two = {.id = "vb_2", .secret = "S", .name = "it's"};
	struct topo_key_text three = {.id = "vb_3", .secret = "S"};
	struct topo_key_text four = {.id = "vb_4", .secret = "S"};
	struct answer a = {0};

	(void)state;
	start();
	assert_int_equal(put(&a, &one), 0);
	assert_int_equal(put(&a, &two), F_EXISTS);
	assert_string_equal(a.why, "there is a key \"it's\" already");
	/* None at all is no name that could be taken. */
	assert_int_equal(put(&a, &three), 0);
	assert_int_equal(put(&a, &four), 0);
	assert_int_equal(revoke_key(&a, "it's"), 0);
	assert_string_equal(a.keys[0].id, "vb_1");
	assert_int_equal(put(&a, &two), 0);
	assert_int_equal(rotate_key(&a, "it's", "N", 0), 0);
	assert_string_equal(a.keys[0].id, "vb_2");
	assert_int_equal(revoke_key(&a, "it's"), 0);
	assert_string_equal(a.keys[0].id, "vb_2");
	/* Now both are; once more does nothing, and not to the first. */
	assert_int_equal(revoke_key(&a, "it's"), 0);
	assert_string_equal(a.keys[0].id, "vb_2");
	assert_int_equal(revoke_key(&a, ""), F_NOT_FOUND);
	/* The id of one comes before the name of another. */
	three.id = "vb_5";
	three.name = "vb_4";
	assert_int_equal(put(&a, &three), 0);
	assert_int_equal(revoke_key(&a, "vb_4"), 0);
	assert_string_equal(a.keys[0].id, "vb_4");
	/* Only by hand are there two. */
	sql(db_path, "UPDATE key SET revoked = NULL WHERE name = 'it''s'");
	assert_int_equal(revoke_key(&a, "it's"), F_AMBIGUOUS);
	assert_string_equal(a.why, "there are several keys \"it's\": name one by its id");
	assert_int_equal(a.count, 0);
	assert_int_equal(revoke_key(&a, "vb_1"), 0);
	answer_free(&a);
}

static void
test_rotation(void **state)
{
	struct topo_key_text k = {.id = "vb_1", .secret = "A", .name = "n"};
	struct answer a = {0};

	(void)state;
	start();
	assert_int_equal(rotate_key(&a, "vb_1", "B", 0), F_NOT_FOUND);
	assert_int_equal(put(&a, &k), 0);
	assert_int_equal(rotate_key(&a, "vb_none", "B", 0), F_NOT_FOUND);
	assert_int_equal(rotate_key(&a, "vb_1", "B", 0), 0);
	assert_string_equal(a.keys[0].secret, "B after A");
	assert_null(a.keys[0].former_secret);
	assert_null(a.keys[0].former_until);
	assert_int_equal(rotate_key(&a, "n", "C", INT64_C(3600000000)), 0);
	assert_int_equal(a.count, 1);
	assert_string_equal(a.keys[0].secret, "C after B after A");
	assert_string_equal(a.keys[0].former_secret, "B after A");
	assert_int_equal(
	    strlen(a.keys[0].former_until), strlen("2026-01-31 23:59:59.123456+00"));
	/* It outlives the process; one more rotation leaves one former secret. */
	store_stop();
	start();
	assert_int_equal(forget(&a), 0);
	assert_int_equal(load(&a), 0);
	assert_string_equal(a.keys[0].former_secret, "B after A");
	assert_int_equal(rotate_key(&a, "n", "D", 1), 0);
	assert_string_equal(a.keys[0].former_secret, "C after B after A");
	/* Nothing is lost when there is no new one. */
	assert_int_equal(rotate_key(&a, "n", NULL, 0), F_KEY_STATE);
	assert_int_equal(a.count, 0);
	/* What is over is forgotten, and not as news from others. */
	assert_int_equal(load(&a), 0);
	assert_non_null(a.keys[0].former_secret);
	assert_int_equal(forget(&a), 0);
	assert_false(look(&a));
	assert_int_equal(load(&a), 0);
	assert_null(a.keys[0].former_secret);
	assert_null(a.keys[0].former_until);
	assert_string_equal(a.keys[0].secret, "D after C after B after A");
	/* A revoked key has nothing that works, and gets nothing. */
	assert_int_equal(rotate_key(&a, "n", "E", INT64_C(3600000000)), 0);
	assert_int_equal(revoke_key(&a, "n"), 0);
	assert_null(a.keys[0].former_secret);
	assert_int_equal(rotate_key(&a, "vb_1", "F", 0), F_KEY_STATE);
	assert_string_equal(a.why, "key \"vb_1\" is revoked");
	assert_int_equal(rotate_key(&a, "n", "F", 0), F_KEY_STATE);
	answer_free(&a);
}

/* A file of the first version keeps its keys, and can do what they could not. */
static void
test_migration(void **state)
{
	struct answer a = {0};

	(void)state;
	start();
	assert_int_equal(put(&a, &key), 0);
	store_stop();
	sql(db_path,
	    "ALTER TABLE key DROP COLUMN former_secret;"
	    "ALTER TABLE key DROP COLUMN former_until; DROP TABLE route; PRAGMA user_version = 1");
	start();
	assert_int_equal(rotate_key(&a, key.id, "B", 1000000), 0);
	assert_string_equal(a.keys[0].former_secret, key.secret);
	assert_string_equal(a.keys[0].name, key.name);
	answer_free(&a);
}

static void
each_route(void *arg, const struct topo_route_text *r)
{
	struct answer *a = arg;
	size_t at = strlen(a->names);

	a->count++;
	snprintf(a->names + at, sizeof(a->names) - at, "%s:%s:%s ", r->virtual_,
	    r->pattern, r->database);
}

static int
put_routes(struct answer *a, const struct topo_route_text *routes, size_t count)
{
	answer_free(a);
	store_routes_put(net_main(), routes, count, done, a);
	return (wait_for(a));
}

static int
delete_routes(struct answer *a, const struct topo_route_text *routes, size_t count)
{
	answer_free(a);
	store_routes_delete(net_main(), routes, count, done, a);
	return (wait_for(a));
}

static void
expect_routes(struct answer *a, const char *want)
{
	answer_free(a);
	store_routes_load(net_main(), each_route, done, a);
	assert_int_equal(wait_for(a), 0);
	assert_string_equal(a->names, want);
}

static void
test_routes(void **state)
{
	static const struct topo_route_text routes[] = {
	    {"bank", "b", "p"}, {"bank", "a.*", "s"}, {"shelf", "b", "p"}};
	struct answer a = {0};

	(void)state;
	start();
	expect_routes(&a, "");
	assert_int_equal(put_routes(&a, routes, 2), 0);
	/* All or none. */
	assert_int_equal(
	    put_routes(&a, (struct topo_route_text[]){routes[2], routes[0]}, 2),
	    F_EXISTS);
	assert_string_equal(a.why, "there is a route of \"b\" already");
	expect_routes(&a, "bank:b:p bank:a.*:s ");
	assert_int_equal(delete_routes(&a, routes, 3), F_NOT_FOUND);
	expect_routes(&a, "bank:b:p bank:a.*:s ");
	assert_int_equal(put_routes(&a, &routes[2], 1), 0);
	assert_int_equal(delete_routes(&a, &routes[0], 1), 0);
	store_stop();
	start();
	answer_free(&a);
	assert_int_equal(store_routes_wait(each_route, &a, why, sizeof(why)), 0);
	assert_string_equal(a.names, "bank:a.*:s shelf:b:p ");
	/* What another process does is seen. */
	assert_int_equal(load(&a), 0);
	assert_false(look(&a));
	sql(db_path, "INSERT INTO route VALUES ('bank', 'c', 'p')");
	assert_true(look(&a));
	answer_free(&a);
}

static void
test_direct(void **state)
{
	struct store_rotation rotation = rotation_of("B", 1000000);
	struct store_direct *d;
	struct answer a = {0};

	(void)state;
	/* Nothing is made by looking. */
	d = store_direct_open(NULL, &set, NULL, why, sizeof(why));
	assert_non_null(d);
	store_direct_close(d);
	assert_int_equal(access(db_path, F_OK), -1);
	d = store_direct_open(NULL, &set, NULL, why, sizeof(why));
	assert_non_null(d);
	assert_int_equal(store_direct_key_revoke(d, "x", why, sizeof(why)), F_NOT_FOUND);
	assert_int_equal(store_direct_key_put(d, &key, why, sizeof(why)), 0);
	assert_int_equal(store_direct_key_put(d, &key, why, sizeof(why)), F_EXISTS);
	assert_int_equal(store_direct_key_rotate(
			     d, key.name, &rotation, each_key, &a, why, sizeof(why)),
	    0);
	assert_string_equal(a.keys[0].former_secret, key.secret);
	answer_free(&a);
	assert_int_equal(store_direct_key_revoke(d, key.id, why, sizeof(why)), 0);
	assert_int_equal(store_direct_keys(d, each_key, &a, why, sizeof(why)), 0);
	assert_int_equal(a.count, 1);
	assert_non_null(a.keys[0].revoked);
	store_direct_close(d);
	answer_free(&a);
}

/* What another process writes is seen, what this one writes is not news. */
static void
test_look(void **state)
{
	struct topo_key_text other = {.id = "vb_other", .secret = "SCRAM"};
	struct store_direct *d;
	struct answer a = {0};

	(void)state;
	start();
	assert_int_equal(load(&a), 0);
	assert_false(look(&a));
	assert_int_equal(put(&a, &key), 0);
	assert_false(look(&a));
	d = store_direct_open(NULL, &set, NULL, why, sizeof(why));
	assert_non_null(d);
	assert_int_equal(store_direct_key_put(d, &other, why, sizeof(why)), 0);
	assert_true(look(&a));
	assert_true(look(&a));
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 2);
	assert_false(look(&a));
	store_direct_close(d);
	/* A file that is gone is no reason to lock everybody out; a new one is another. */
	assert_int_equal(unlink(db_path), 0);
	assert_false(look(&a));
	assert_int_equal(put(&a, &other), 0);
	assert_true(look(&a));
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 1);
	answer_free(&a);
}

/* ---- jobs and runs ---- */

static void
put_run(const char *job, int64_t number, const char *target)
{
	struct store_run run = {.job = job,
	    .run = number,
	    .target = target,
	    .table = "public.\"Users\"",
	    .bytes = 42,
	    .outcome = "failed",
	    .error = number == 2 ? "it's broken" : NULL};
	struct answer a = {0};

	store_run_put(net_main(), &run, done, &a);
	assert_int_equal(wait_for(&a), 0);
}

static void
load_runs(struct answer *a, const char *job, unsigned limit)
{
	answer_free(a);
	store_runs_load(net_main(), job, limit, each_run, done, a);
	assert_int_equal(wait_for(a), 0);
}

static void
test_jobs(void **state)
{
	struct topo_job_text job = {.name = "sync", .source = "a", .tables = "t"};
	struct topo_job_text other = {.name = "other", .tables = "u"};
	struct answer a = {0};

	(void)state;
	start();
	for (unsigned i = 0; i < 3; i++) {
		answer_free(&a);
		job.tables = i == 2 ? "t, \xc3\xbc" : "t";
		store_job_put(net_main(), i == 1 ? &other : &job, done, &a);
		assert_int_equal(wait_for(&a), 0);
	}
	answer_free(&a);
	store_jobs_load(net_main(), each_job, done, &a);
	assert_int_equal(wait_for(&a), 0);
	assert_string_equal(a.names, "other:u sync:t, \xc3\xbc ");
	put_run("sync", 1, "b");
	put_run("sync", 2, "b");
	put_run("sync", 2, "c");
	put_run("other", 1, "b");
	load_runs(&a, "sync", 2);
	assert_string_equal(a.names, "sync/2/c/public.\"Users\"/42/it's broken "
				     "sync/2/b/public.\"Users\"/42/it's broken ");
	load_runs(&a, NULL, 100);
	assert_int_equal(a.count, 4);
	answer_free(&a);
	store_job_delete(net_main(), "sync", done, &a);
	assert_int_equal(wait_for(&a), 0);
	answer_free(&a);
	store_job_delete(net_main(), "sync", done, &a);
	assert_int_equal(wait_for(&a), F_NOT_FOUND);
	load_runs(&a, NULL, 100);
	assert_int_equal(a.count, 1);
}

static void
test_runs_are_trimmed(void **state)
{
	struct answer a = {0};

	(void)state;
	start();
	put_run("sync", 1, "b");
	put_run("sync", 2, "b");
	put_run("sync", 1001, "b");
	load_runs(&a, "sync", 10);
	assert_int_equal(a.count, 2);
	assert_int_equal(a.first_run, 1001);
	assert_int_equal(a.last_run, 2);
}

/* ---- what cannot be ---- */

/* Starting says so, asking says so, and once it is mended it works without a restart. */
static void
cannot(const char *reason)
{
	struct store_direct *d;
	struct answer a = {0};

	assert_int_equal(store_start(NULL, &set, NULL, why, sizeof(why)), F_STORE);
	assert_non_null(strstr(why, reason));
	assert_non_null(strstr(why, "the state store cannot be used: /tmp/test_store."));
	assert_int_equal(load(&a), F_STORE);
	assert_non_null(strstr(a.why, reason));
	assert_int_equal(put(&a, &key), F_STORE);
	assert_non_null(strstr(a.why, reason));
	assert_false(look(&a));
	d = store_direct_open(NULL, &set, NULL, why, sizeof(why));
	if (d != NULL) {
		assert_int_equal(
		    store_direct_key_put(d, &key, why, sizeof(why)), F_STORE);
		store_direct_close(d);
	}
	assert_non_null(strstr(why, reason));
}

static void
mended(void)
{
	struct answer a = {0};

	assert_int_equal(put(&a, &key), 0);
	assert_true(look(&a));
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 1);
	same_key(&a.keys[0], &key);
	answer_free(&a);
}

static void
test_no_directory(void **state)
{
	char *parent = mem_printf("%s/deep", dir);
	char *deep = mem_printf("%s/state", parent);

	(void)state;
	set.state_dir = deep;
	cannot("No such file or directory");
	assert_int_equal(mkdir(parent, 0700), 0);
	mended();
	store_stop();
	free(deep);
	free(parent);
}

static void
test_no_database(void **state)
{
	(void)state;
	assert_int_equal(mkdir(state_dir, 0700), 0);
	write_file(db_path, "There are more things in heaven and earth, Horatio,\n"
			    "than are dreamt of in your philosophy.\n");
	cannot("file is not a database");
	assert_int_equal(unlink(db_path), 0);
	mended();
}

static void
test_directory_in_its_place(void **state)
{
	(void)state;
	assert_int_equal(mkdir(state_dir, 0700), 0);
	assert_int_equal(mkdir(db_path, 0700), 0);
	cannot("it is no file");
}

static void
test_foreign_database(void **state)
{
	(void)state;
	assert_int_equal(mkdir(state_dir, 0700), 0);
	sql(db_path, "CREATE TABLE bookmarks (url)");
	cannot("it is a SQLite database of another program");
	/* It is left as it is. */
	sql(db_path, "SELECT url FROM bookmarks");
}

static void
test_newer_schema(void **state)
{
	struct answer a = {0};

	(void)state;
	start();
	assert_int_equal(put(&a, &key), 0);
	store_stop();
	sql(db_path, "PRAGMA user_version = 99");
	cannot("its schema has version 99");
	sql(db_path, "PRAGMA user_version = 3");
	assert_true(look(&a));
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 1);
	answer_free(&a);
}

static void
test_read_only_directory(void **state)
{
	bool is_root = geteuid() == 0;

	(void)state;
	assert_int_equal(mkdir(state_dir, 0555), 0);
	if (is_root)
		assert_int_equal(seteuid(NOBODY), 0);
	cannot("Permission denied");
	if (is_root)
		assert_int_equal(seteuid(0), 0);
	else
		assert_int_equal(chmod(state_dir, 0755), 0);
	mended();
}

/* It is there, and can be read, but not be written. */
static void
test_read_only_file(void **state)
{
	bool is_root = geteuid() == 0;
	struct answer a = {0};

	(void)state;
	start();
	assert_int_equal(put(&a, &key), 0);
	store_stop();
	assert_int_equal(chmod(db_path, 0444), 0);
	assert_int_equal(chmod(state_dir, 0755), 0);
	if (is_root)
		assert_int_equal(seteuid(NOBODY), 0);
	cannot("it can only be read");
	if (is_root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(db_path, 0644), 0);
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 1);
	answer_free(&a);
}

/* A limit of the process on file sizes stands in for a full disk. */
static void
test_full_disk(void **state)
{
	struct rlimit was, tight;
	struct topo_key_text big = key;
	char *name = mem_alloc(300001);
	struct answer a = {0};

	(void)state;
	memset(name, 'x', 300000);
	big.id = "vb_big";
	big.name = name;
	start();
	assert_int_equal(put(&a, &key), 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	tight = was;
	tight.rlim_cur = 150000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	assert_int_equal(put(&a, &big), F_STORE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_non_null(strstr(a.why, "disk"));
	assert_non_null(strstr(a.why, db_path));
	/* What was there is there, and once there is room again it works. */
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 1);
	assert_int_equal(put(&a, &big), 0);
	assert_int_equal(load(&a), 0);
	assert_int_equal(a.count, 2);
	assert_string_equal(a.keys[1].name, name);
	answer_free(&a);
	free(name);
}

static void
test_settings(void **state)
{
	struct answer a = {0};
	char *named = mem_printf("sqlite:%s/keys.db", dir);

	(void)state;
	set.state_store = named;
	start();
	assert_int_equal(put(&a, &key), 0);
	assert_int_equal(access(named + 7, F_OK), 0);
	assert_int_equal(access(state_dir, F_OK), -1);
	store_stop();
	free(named);
	answer_free(&a);
}

/* Without a thread every question is answered, and those asked before the end too. */
static void
test_stopped(void **state)
{
	struct answer a = {0}, b = {0};

	(void)state;
	assert_int_equal(put(&a, &key), F_STORE);
	assert_int_equal(load(&a), F_STORE);
	assert_false(look(&a));
	answer_free(&a);
	start();
	store_key_put(net_main(), &key, done, &a);
	store_keys_load(net_main(), each_key, done, &b);
	store_stop();
	net_settle();
	assert_true(a.is_there && a.fault == 0);
	assert_true(b.is_there && b.count == 1);
	answer_free(&b);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(test_keys),
	    TEST(test_names),
	    TEST(test_rotation),
	    TEST(test_migration),
	    TEST(test_routes),
	    TEST(test_direct),
	    TEST(test_look),
	    TEST(test_jobs),
	    TEST(test_runs_are_trimmed),
	    TEST(test_no_directory),
	    TEST(test_no_database),
	    TEST(test_directory_in_its_place),
	    TEST(test_foreign_database),
	    TEST(test_newer_schema),
	    TEST(test_read_only_directory),
	    TEST(test_read_only_file),
	    TEST(test_full_disk),
	    TEST(test_settings),
	    TEST(test_stopped),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
