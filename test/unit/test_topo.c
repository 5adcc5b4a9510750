/* topo: databases and logins from the configuration, their limits, and every mistake. */
#include "topo.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/pgweave-topo-XXXXXX";

static int
make_dir(void **state)
{
	(void)state;
	return (mkdtemp(dir) != NULL ? 0 : -1);
}

static int
remove_dir(void **state)
{
	(void)state;
	return (rmdir(dir));
}

static char *
in_dir(const char *name)
{
	return (mem_printf("%s/%s", dir, name));
}

static void
write_file(const char *name, const char *text)
{
	char *path = in_dir(name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	free(path);
}

static void
remove_file(const char *name)
{
	char *path = in_dir(name);

	assert_int_equal(unlink(path), 0);
	free(path);
}

static struct topo *
build(const char *text, struct conf_problems *p)
{
	return (topo_build(conf_load_text("t.ini", text, strlen(text), p), p));
}

/* What a sentence about an unknown section ends with. */
#define SECTIONS                                                                            \
	"[databases], [database NAME], [users], [peers], [virtual NAME], "                  \
	"[route VIRTUAL], [shard VIRTUAL], [model VIRTUAL], [replication NAME], [key ID], " \
	"[login NAME]"

/* The text has exactly these problems, one a line. */
static void
expect_problems(const char *text, const char *want)
{
	struct conf_problems p = {0};
	struct topo *t = build(text, &p);
	struct buf seen = {0};

	assert_null(t);
	for (size_t i = 0; i < p.count; i++)
		buf_addf(&seen, "%s\n", p.lines[i]);
	buf_add(&seen, "", 1);
	assert_string_equal((char *)seen.mem, want);
	buf_free(&seen);
	conf_problems_free(&p);
}

/* The text has no problem and these warnings, one a line. The caller releases the result. */
static struct topo *
expect_fine(const char *text, const char *warnings)
{
	struct conf_problems p = {0};
	struct topo *t = build(text, &p);
	struct buf seen = {0};

	if (p.count > 0)
		print_error("%s\n", p.lines[0]);
	assert_non_null(t);
	for (size_t i = 0; i < p.warning_count; i++)
		buf_addf(&seen, "%s\n", p.warnings[i]);
	buf_add(&seen, "", 1);
	if (warnings != NULL)
		assert_string_equal((char *)seen.mem, warnings);
	buf_free(&seen);
	conf_problems_free(&p);
	return (t);
}

/* ---- databases ---- */

static void
a_line_says_all_of_a_database(void **state)
{
	struct topo *t = expect_fine(
	    "[databases]\n"
	    "Bank = host=10.0.0.1 port = 5433 dbname='the ''bank''' user=app "
	    "password='p w' pool_size=7 min_pool_size=2 reserve_pool=3 pool_mode=statement\t"
	    "connect_query='select 1 ; select 2' client_encoding=UTF8 datestyle=ISO "
	    "timezone=UTC application_name=x max_db_connections=9 "
	    "max_db_client_connections=90 server_lifetime=2min query_timeout=1.5 "
	    "query_wait_timeout=-1 load_balance_hosts=disable target_session_attrs=any\n",
	    "t.ini: auth_file: not set, so nobody can log in\n");
	const struct topo_database *db = topo_database_find(t, "Bank");

	(void)state;
	assert_int_equal(topo_database_count(t), 1);
	assert_ptr_equal(topo_database(t, 0), db);
	assert_string_equal(db->name, "Bank");
	assert_int_equal(db->host_count, 1);
	assert_string_equal(db->hosts[0].host, "10.0.0.1");
	assert_int_equal(db->hosts[0].port, 5433);
	assert_string_equal(db->dbname, "the 'bank'");
	assert_string_equal(db->user, "app");
	assert_string_equal(db->password, "p w");
	assert_string_equal(db->connect_query, "select 1 ; select 2");
	assert_int_equal(db->param_count, 4);
	assert_string_equal(db->params[0].name, "client_encoding");
	assert_string_equal(db->params[3].value, "x");
	assert_int_equal(db->pool_mode, POOL_STATEMENT);
	assert_int_equal(db->pool_size, 7);
	assert_int_equal(db->min_pool_size, 2);
	assert_int_equal(db->reserve_pool_size, 3);
	assert_int_equal(db->max_db_connections, 9);
	assert_int_equal(db->max_db_client_connections, 90);
	assert_int_equal(db->server_lifetime, 120000000);
	assert_int_equal(db->query_timeout, 1500000);
	assert_int_equal(db->query_wait_timeout, -1);
	assert_int_equal(db->transaction_timeout, -1);
	assert_false(db->round_robin_hosts);
	assert_false(db->is_auto);
	assert_int_equal(db->at.line, 2);
	assert_null(topo_database_find(t, "bank"));
	topo_release(t);
}

static void
a_section_says_the_same(void **state)
{
	struct topo *t;
	const struct topo_database *db;

	(void)state;
	assert_int_equal(setenv("PGWEAVE_TEST_PW", "it's ; a 'secret'", 1), 0);
	t = expect_fine("[database primary]\n"
			"HOST = a.example, /run/x   ; two\n"
			"port = 5432, 5433\n"
			"password = ${PGWEAVE_TEST_PW}\n"
			"connect_query = 'set x = ''y'' ; select 1'\n"
			"pool_size = 20\n"
			"idle_transaction_timeout = 5min\n"
			"[databases]\n"
			"second = password=${PGWEAVE_TEST_PW} host=h\n"
			"[database primary]\nuser = app\n",
	    NULL);
	db = topo_database_find(t, "primary");
	assert_int_equal(topo_database_count(t), 2);
	assert_int_equal(db->host_count, 2);
	assert_string_equal(db->hosts[0].host, "a.example");
	assert_int_equal(db->hosts[0].port, 5432);
	assert_string_equal(db->hosts[1].host, "/run/x");
	assert_int_equal(db->hosts[1].port, 5433);
	assert_string_equal(db->dbname, "primary");
	assert_string_equal(db->user, "app");
	assert_string_equal(db->password, "it's ; a 'secret'");
	assert_string_equal(db->connect_query, "set x = 'y' ; select 1");
	assert_int_equal(db->idle_transaction_timeout, 300000000);
	assert_true(db->round_robin_hosts);
	/* One word, whatever the variable holds. */
	db = topo_database_find(t, "second");
	assert_string_equal(db->password, "it's ; a 'secret'");
	assert_string_equal(db->hosts[0].host, "h");
	topo_release(t);
}

static void
what_is_not_said(void **state)
{
	struct topo *t =
	    expect_fine("[pgweave]\nunix_socket_dir = /run/pg\n"
			"[databases]\na =\n\"b \"\"c\" = port=6000\n* = host=x,y\n",
		NULL);
	const struct topo_database *db = topo_database_find(t, "a");

	(void)state;
	assert_string_equal(db->hosts[0].host, "/run/pg");
	assert_int_equal(db->hosts[0].port, 5432);
	assert_string_equal(db->dbname, "a");
	assert_null(db->user);
	assert_null(db->password);
	assert_null(db->connect_query);
	assert_int_equal(db->param_count, 0);
	assert_int_equal(topo_database_find(t, "b \"c")->hosts[0].port, 6000);
	db = topo_database_find(t, "whatever");
	assert_true(db->is_auto);
	assert_string_equal(db->name, "*");
	assert_null(db->dbname);
	assert_int_equal(db->host_count, 2);
	assert_int_equal(db->hosts[1].port, 5432);
	topo_release(t);
}

static void
every_word_is_taken(void **state)
{
	(void)state;
	for (size_t i = 0; i < setting_count + word_count; i++) {
		const struct setting *row = i < setting_count
						? &setting_table[i]
						: &word_table[i - setting_count];
		const char *value = *row->dflt != '\0' && row->type != SET_STR ? row->dflt
				    : strcmp(row->key, "port") == 0            ? "5432"
									       : "x";
		char *text;

		/* They name things that must exist. */
		if (strcmp(row->key, "password_file") == 0 ||
		    strcmp(row->key, "fallback") == 0 ||
		    strcmp(row->key, "replica_of") == 0 ||
		    strcmp(row->key, "auth_dbname") == 0)
			continue;
		text = mem_printf("[database d]\n%s = %s\n[databases]\ne = %s=%s\n",
		    row->key, value, row->key, value);
		if ((row->scope & SC_DATABASE) != 0)
			topo_release(expect_fine(text, NULL));
		free(text);
		text = mem_printf("[users]\ne = %s=%s\n", row->key, value);
		if ((row->scope & SC_USER) != 0)
			topo_release(expect_fine(text, NULL));
		free(text);
	}
}

static void
passwords_come_from_files(void **state)
{
	struct conf_problems p = {0};
	char *path = in_dir("t.ini"), *want;
	struct topo *t;

	(void)state;
	write_file("t.ini", "[database a]\npassword_file = pw\n[databases]\n"
			    "b = password_file=pw\n");
	write_file("pw", "first line\r\nsecond\n");
	t = topo_build(conf_load(path, &p), &p);
	assert_non_null(t);
	assert_string_equal(topo_database_find(t, "a")->password, "first line");
	assert_string_equal(topo_database_find(t, "b")->password, "first line");
	topo_release(t);
	conf_problems_free(&p);
	write_file("pw", "\n");
	write_file("t.ini", "[database a]\nuser = x\npassword_file = pw\n[databases]\n"
			    "b = password_file=nowhere password=x\n");
	assert_null(topo_build(conf_load(path, &p), &p));
	assert_int_equal(p.count, 3);
	want = mem_printf(
	    "%s:3: password_file: the first line of %s/pw is empty", path, dir);
	assert_string_equal(p.lines[0], want);
	free(want);
	want = mem_printf(
	    "%s:5: b: password_file: password is given too, allowed is one of them",
	    path);
	assert_string_equal(p.lines[1], want);
	free(want);
	want = mem_printf(
	    "%s:5: b: password_file: cannot read nowhere: No such file or directory",
	    path);
	assert_string_equal(p.lines[2], want);
	free(want);
	conf_problems_free(&p);
	free(path);
	remove_file("t.ini");
	remove_file("pw");
}

static void
wrong_databases_are_explained(void **state)
{
	(void)state;
	expect_problems(
	    "[databases]\npgbouncer = host=x\n\"\" = host=x\n[database pgweave]\n[database]\n",
	    "t.ini:5: [database]: the name is missing, allowed is [database NAME]\n"
	    "t.ini:2: pgbouncer: this name is the console's, a database must have another\n"
	    "t.ini:3: the name of the database is missing\n"
	    "t.ini:4: pgweave: this name is the console's, a database must have another\n");
	expect_problems(
	    "[databases]\na = host=x pool_sze=3 pool_size=-2 port=x\n"
	    "b = host\nc = connect_query='x\nd = user=\ne = user=${PGWEAVE_NO_SUCH}\n",
	    "t.ini:2: a: pool_sze: no such key, did you mean \"pool_size\"?\n"
	    "t.ini:2: a: pool_size: \"-2\" is out of range, allowed are 0 to 1000000\n"
	    "t.ini:2: a: port: \"x\" is not a number, allowed are 1 to 65535\n"
	    "t.ini:3: b: expected key=value\n"
	    "t.ini:4: c: the closing ' is missing\n"
	    "t.ini:5: d: a value is missing ('' is an empty one)\n"
	    "t.ini:6: e: user: the environment has no variable \"PGWEAVE_NO_SUCH\"; $${ "
	    "stands for ${\n");
	expect_problems("[database a]\nhost = x,,y\nport = 1,2\npool_mode = sesion\n"
			"listen_port = 3\nmax_user_connections = 4\n",
	    "t.ini:4: pool_mode: \"sesion\" is none of the words, allowed are session, "
	    "transaction, statement, did you mean \"session\"?\n"
	    "t.ini:5: listen_port: not known here, it belongs in [pgweave]\n"
	    "t.ini:6: max_user_connections: not known here, it belongs in [pgweave] or "
	    "[users]\n"
	    "t.ini:3: port: 2 ports for 3 hosts, allowed are one for all and one for each\n"
	    "t.ini:2: host: a name in the list is empty\n");
	expect_problems("[databases]\na = host=x\n[database a]\nhost = y\n",
	    "t.ini:3: a: a database of that name is already defined at t.ini:2\n");
	expect_problems("[database a]\nhost = y\n[databases]\na = host=x\n",
	    "t.ini:4: a: a database of that name is already defined at t.ini:1\n");
	expect_problems(
	    "[pgweave]\nlisten_addr = ::1\nunix_socket_dir =\n[databases]\na =\n",
	    "t.ini:5: a: host: missing, and unix_socket_dir, which would stand for it, is "
	    "empty\n");
}

static void
unknown_sections_are_refused(void **state)
{
	(void)state;
	expect_problems("[datbases]\n[databases x]\n[zzzzzzzzz y]\nk = v\n[database x]\n",
	    "t.ini:1: [datbases]: no such section, allowed are [pgweave], [pgbouncer], " SECTIONS
	    ", did you mean \"databases\"?\n"
	    "t.ini:2: [databases x]: this section has no name, allowed is [databases]\n"
	    "t.ini:3: [zzzzzzzzz]: no such section, allowed are [pgweave], [pgbouncer], " SECTIONS
	    "\n");
}

static void
what_is_accepted_with_a_word(void **state)
{
	struct topo *t = expect_fine("[pgweave]\nauth_type = any\n[databases]\n"
				     "a = host=x user=u\na = host=y user=u host=z\n"
				     "b = auth_user=q target_session_attrs=primary\n"
				     "[peers]\n1 = host=x port=6432 pool_size=2\n",
	    "t.ini:5: a: host: given again, the one before no longer counts\n"
	    "t.ini:5: a: given again, t.ini:4 no longer counts\n"
	    "t.ini:6: b: auth_type = any needs a user for each database, this one has none\n"
	    "t.ini:7: [peers]: without a peer_id no cancel request is passed on\n");

	(void)state;
	assert_int_equal(topo_database_count(t), 2);
	assert_string_equal(topo_database_find(t, "a")->hosts[0].host, "z");
	topo_release(t);
	topo_release(expect_fine("[pgweave]\nauth_type = any\n",
	    "t.ini: no database is configured: only the console can be reached\n"));
	expect_problems("[peers]\nx = host=y\n1 = port=0 hst=x\n2 = a\n",
	    "t.ini:2: peer_id: \"x\" is not a number, allowed are 0 to 16383\n"
	    "t.ini:3: 1: port: \"0\" is out of range, allowed are 1 to 65535\n"
	    "t.ini:3: 1: hst: no such key, allowed are host, port, pool_size, did you mean "
	    "\"host\"?\n"
	    "t.ini:3: 1: host is missing\n"
	    "t.ini:4: 2: expected key=value\n");
}

/* ---- logins ---- */

/* Builds from a file that names users.txt as its auth_file. */
static struct topo *
build_with_users(const char *users, const char *more, struct conf_problems *p)
{
	char *path = in_dir("t.ini"),
	     *text =
		 mem_printf("[pgweave]\nauth_file = users.txt\nstats_users = mon , a\n"
			    "admin_users = root,a\n[databases]\n* = host=x\n%s",
		     more);
	struct topo *t;

	write_file("t.ini", text);
	write_file("users.txt", users);
	t = topo_build(conf_load(path, p), p);
	remove_file("t.ini");
	remove_file("users.txt");
	free(path);
	free(text);
	return (t);
}

static void
logins_come_from_auth_file(void **state)
{
	struct conf_problems p = {0};
	struct topo *t = build_with_users(
	    "; comment\n\"a\" \"secret ; x\" \"ignored\"\n\n"
	    "  \"b \"\"q\"\"\"\t\"\"\r\n\"c\" \"md5abc\"\n"
	    "\"c\" \"SCRAM-SHA-256$4096:x$y:z\"",
	    "[users]\nc = pool_mode=transaction pool_size=3\nd = query_timeout=2s\n", &p);

	(void)state;
	assert_non_null(t);
	assert_int_equal(topo_login_count(t), 4);
	assert_string_equal(topo_login(t, 0)->name, "a");
	assert_string_equal(topo_login_find(t, "a")->secret, "secret ; x");
	assert_string_equal(topo_login_find(t, "b \"q\"")->secret, "");
	assert_string_equal(topo_login_find(t, "c")->secret, "SCRAM-SHA-256$4096:x$y:z");
	assert_int_equal(topo_login_find(t, "c")->pool_mode, POOL_TRANSACTION);
	assert_int_equal(topo_login_find(t, "c")->pool_size, 3);
	assert_null(topo_login_find(t, "d")->secret);
	assert_int_equal(topo_login_find(t, "d")->query_timeout, 2000000);
	assert_int_equal(topo_login_find(t, "d")->pool_mode, -1);
	assert_null(topo_login_find(t, "A"));
	assert_int_equal(p.warning_count, 1);
	assert_string_equal(
	    strstr(p.warnings[0], ": "), strstr(p.warnings[0], ": c: given again, "));
	assert_int_equal(topo_console_role(t, "root"), TOPO_CONSOLE_ADMIN);
	assert_int_equal(topo_console_role(t, "a"), TOPO_CONSOLE_ADMIN);
	assert_int_equal(topo_console_role(t, "mon"), TOPO_CONSOLE_STATS);
	assert_int_equal(topo_console_role(t, "ro"), TOPO_CONSOLE_NO);
	topo_release(t);
	conf_problems_free(&p);
	t = expect_fine("[pgweave]\nauth_type = any\n", NULL);
	assert_int_equal(topo_console_role(t, "x"), TOPO_CONSOLE_ADMIN);
	topo_release(t);
}

static void
wrong_logins_are_explained(void **state)
{
	static const char *const want[] = {
	    "users.txt:1: expected \"user\" \"secret\" (\"\" stands for a quote)",
	    "users.txt:2: expected \"user\" \"secret\" (\"\" stands for a quote)",
	    "users.txt:3: expected \"user\" \"secret\" (\"\" stands for a quote)",
	    "users.txt:4: the user's name is empty",
	    "t.ini:8: x: host: not known here, it belongs in [database x], [databases]",
	    "t.ini:8: x: pool_mod: no such key, did you mean \"pool_mode\"?",
	    "t.ini:9: y: pool_size: \"many\" is not a number, allowed are 0 to 1000000",
	};
	struct conf_problems p = {0};
	struct topo *t = build_with_users("hunter2\n\"a\" \"hunter2\n\"a\" hunter2\n"
					  "\"\" \"x\"\n",
	    "[users]\nx = host=y pool_mod=session\ny = pool_size=many\n", &p);

	(void)state;
	assert_null(t);
	assert_int_equal(p.count, ARRAY_LEN(want));
	for (size_t i = 0; i < p.count; i++) {
		assert_string_equal(p.lines[i] + strlen(dir) + 1, want[i]);
		assert_null(strstr(p.lines[i], "hunter2"));
	}
	conf_problems_free(&p);
	expect_problems("[pgweave]\nauth_file = /nowhere/users.txt\n",
	    "t.ini:2: auth_file: cannot read /nowhere/users.txt: No such file or "
	    "directory\n");
}

/* ---- limits ---- */

static void
the_login_is_heard_before_the_database(void **state)
{
	struct topo *t = expect_fine(
	    "[pgweave]\npool_mode = session\ndefault_pool_size = 11\nmin_pool_size = 12\n"
	    "reserve_pool_size = 13\nmax_db_connections = 14\n"
	    "max_db_client_connections = 15\nmax_user_connections = 16\n"
	    "max_user_client_connections = 17\nserver_lifetime = 18\nquery_timeout = 19\n"
	    "query_wait_timeout = 20\nidle_transaction_timeout = 21\n"
	    "transaction_timeout = 22\nclient_idle_timeout = 23\n"
	    "[databases]\nd = pool_mode=transaction pool_size=31 min_pool_size=2 "
	    "reserve_pool_size=33 max_db_connections=0 max_db_client_connections=35 "
	    "server_lifetime=0 query_timeout=39 query_wait_timeout=40 "
	    "idle_transaction_timeout=41 transaction_timeout=42 multiplex=on\ne = host=x\n"
	    "[users]\nu = pool_mode=statement pool_size=1 reserve_pool_size=0 "
	    "max_user_connections=56 max_user_client_connections=57 query_timeout=0 "
	    "query_wait_timeout=60 idle_transaction_timeout=61 transaction_timeout=62 "
	    "client_idle_timeout=63 multiplex=off\n",
	    NULL);
	struct topo_limits l;

	(void)state;
	topo_limits(t, topo_database_find(t, "e"), NULL, &l);
	assert_int_equal(l.pool_mode, POOL_SESSION);
	assert_int_equal(l.pool_size, 11);
	/* Capped at the pool's size. */
	assert_int_equal(l.min_pool_size, 11);
	assert_int_equal(l.reserve_pool_size, 13);
	assert_int_equal(l.max_db_connections, 14);
	assert_int_equal(l.max_db_client_connections, 15);
	assert_int_equal(l.max_user_connections, 16);
	assert_int_equal(l.max_user_client_connections, 17);
	assert_int_equal(l.server_lifetime, 18000000);
	assert_int_equal(l.query_timeout, 19000000);
	assert_int_equal(l.query_wait_timeout, 20000000);
	assert_int_equal(l.idle_transaction_timeout, 21000000);
	assert_int_equal(l.transaction_timeout, 22000000);
	assert_int_equal(l.client_idle_timeout, 23000000);
	assert_false(l.multiplex);
	topo_limits(t, topo_database_find(t, "d"), NULL, &l);
	assert_true(l.multiplex);
	assert_int_equal(l.pool_mode, POOL_TRANSACTION);
	assert_int_equal(l.pool_size, 31);
	assert_int_equal(l.min_pool_size, 2);
	assert_int_equal(l.reserve_pool_size, 33);
	assert_int_equal(l.max_db_connections, 0);
	assert_int_equal(l.max_db_client_connections, 35);
	assert_int_equal(l.server_lifetime, 0);
	assert_int_equal(l.query_timeout, 39000000);
	assert_int_equal(l.query_wait_timeout, 40000000);
	assert_int_equal(l.idle_transaction_timeout, 41000000);
	assert_int_equal(l.transaction_timeout, 42000000);
	assert_int_equal(l.client_idle_timeout, 23000000);
	topo_limits(t, topo_database_find(t, "d"), topo_login_find(t, "u"), &l);
	assert_false(l.multiplex);
	assert_int_equal(l.pool_mode, POOL_STATEMENT);
	assert_int_equal(l.pool_size, 1);
	assert_int_equal(l.min_pool_size, 1);
	assert_int_equal(l.reserve_pool_size, 0);
	assert_int_equal(l.max_user_connections, 56);
	assert_int_equal(l.max_user_client_connections, 57);
	assert_int_equal(l.query_timeout, 0);
	assert_int_equal(l.query_wait_timeout, 60000000);
	assert_int_equal(l.idle_transaction_timeout, 61000000);
	assert_int_equal(l.transaction_timeout, 62000000);
	assert_int_equal(l.client_idle_timeout, 63000000);
	topo_release(t);
}

/* ---- the snapshot ---- */

static void *
hold_and_release(void *arg)
{
	const struct topo *t = arg;

	for (int i = 0; i < 20000; i++) {
		assert_int_equal(topo_database_find(topo_hold(t), "a")->pool_size, 5);
		topo_release(t);
	}
	topo_release(t);
	return (NULL);
}

static void
the_last_reference_frees(void **state)
{
	struct topo *t = expect_fine("[databases]\na = pool_size=5\n", NULL);
	struct topo *later = expect_fine("[databases]\na = pool_size=6\n", NULL);
	pthread_t threads[4];

	(void)state;
	assert_true(topo_generation(later) > topo_generation(t));
	topo_release(later);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hold_and_release,
				     (void *)(uintptr_t)topo_hold(t)),
		    0);
	topo_release(t);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	topo_release(NULL);
}

static void
many_are_found(void **state)
{
	struct buf text = {0};
	struct topo *t;

	(void)state;
	buf_addstr(&text, "[databases]\n");
	for (int i = 0; i < 3000; i++)
		buf_addf(&text, "db%d = pool_size=%d\n", i, i + 1);
	buf_add(&text, "", 1);
	t = expect_fine((const char *)text.mem, NULL);
	for (int i = 0; i < 3000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "db%d", i);
		assert_int_equal(topo_database_find(t, name)->pool_size, i + 1);
		assert_string_equal(topo_database(t, (size_t)i)->name, name);
	}
	assert_null(topo_database_find(t, "db3000"));
	topo_release(t);
	buf_free(&text);
}

/* ---- pgweave check ---- */

static void
expect_printed(const char *text, int result, const char *want)
{
	char *path = in_dir("t.ini"), *out = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&out, &len);

	write_file("t.ini", text);
	assert_int_equal(topo_check_file(path, f, NULL), result);
	assert_int_equal(fclose(f), 0);
	remove_file("t.ini");
	/* As if the file stood in the root. */
	for (char *at = out; (at = strstr(at, dir)) != NULL;)
		memmove(at, at + strlen(dir) + 1, strlen(at + strlen(dir)));
	assert_string_equal(out, want);
	free(out);
	free(path);
}

static void
check_says_all_of_it(void **state)
{
	FILE *f = fopen("/dev/null", "w");

	(void)state;
	expect_printed(
	    "[pgweave]\nauth_type = any\nverbos = 1\nlisten_port = 0\n[user]\n", 1,
	    "t.ini:3: verbos: no such key, did you mean \"verbose\"?\n"
	    "t.ini:4: listen_port: \"0\" is out of range, allowed are 1 to 65535\n"
	    "t.ini:5: [user]: no such section, allowed are [pgweave], [pgbouncer], " SECTIONS
	    ", did you mean \"users\"?\n"
	    "warning: t.ini: no database is configured: only the console can be reached\n"
	    "t.ini: 3 problems\n");
	expect_printed("[pgweave]\nauth_type = any\n[databases]\na = user=b host=c\n"
		       "[users]\nb =\n",
	    0, "t.ini: ok, 1 database, 1 login\n");
	/* What there is none of is not counted. */
	expect_printed(
	    "[pgweave]\nauth_type = any\n[databases]\na = user=b host=c\n"
	    "b = user=b host=c\n[virtual v]\nmembers = a, b\n[route v]\nx, y = a\n"
	    "[shard v]\ntables = t\nkey = k\nmembers = a\n[replication r]\n"
	    "source = a\ntargets = b\ntables = t\nmode = full\n",
	    0,
	    "t.ini: ok, 2 databases, 0 logins, 1 virtual database, 2 routes, 1 sharded "
	    "table, 1 job\n");
	assert_int_equal(topo_check_file("/nowhere/t.ini", f, NULL), 1);
	fclose(f);
	assert_true(topo_is_console("pgweave"));
	assert_true(topo_is_console("pgbouncer"));
	assert_false(topo_is_console("PgBouncer"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_line_says_all_of_a_database),
	    cmocka_unit_test(a_section_says_the_same),
	    cmocka_unit_test(what_is_not_said),
	    cmocka_unit_test(every_word_is_taken),
	    cmocka_unit_test(passwords_come_from_files),
	    cmocka_unit_test(wrong_databases_are_explained),
	    cmocka_unit_test(unknown_sections_are_refused),
	    cmocka_unit_test(what_is_accepted_with_a_word),
	    cmocka_unit_test(logins_come_from_auth_file),
	    cmocka_unit_test(wrong_logins_are_explained),
	    cmocka_unit_test(the_login_is_heard_before_the_database),
	    cmocka_unit_test(the_last_reference_frees),
	    cmocka_unit_test(many_are_found),
	    cmocka_unit_test(check_says_all_of_it),
	};

	return (cmocka_run_group_tests(tests, make_dir, remove_dir));
}
