/*
 * admin: statements to words, commands and roles, views and their columns, what operators do
 * to databases. Two workers whose mails are delivered by hand; no sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "../../src/admin/private.h"
#include "answer.h"

static struct worker *w[2];
static const struct topo *topo;
static struct tls *tls;
static struct session asker; /* at the console of worker 0 */

static const char config[] =
    "[databases]\n"
    "bank = host=127.0.0.1 port=5433 pool_size=7 user=app\n"
    "spread = host=10.0.0.1,10.0.0.2 dbname=s pool_mode=session\n"
    "[users]\n"
    "alice = pool_mode=statement max_user_connections=3\n"
    "[pgweave]\n"
    "admin_users = admin\n"
    "auth_type = trust\n"
    "listen_port = 7777\n"
    "[virtual weave]\n"
    "members = bank, spread\n"
    "[route weave]\n"
    "archive.* = spread\n"
    "events = spread\n"
    "archive.old = bank\n"
    "archive.new* = bank\n"
    "[shard weave]\n"
    "tables = accounts, \"Moves\"\n"
    "key = user_id\n"
    "members = spread, bank\n"
    "[model weave]\n"
    "Event = events\n"
    "Account = accounts\n"
    "SystemMetric = spread\n"
    "Other = others\n"
    "[key vb_00000000000000000000000000f11e01]\n"
    "name = it's mine\n"
    "secret = SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"
    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=:"
    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"
    "type = database\n"
    "virtual = weave\n"
    "user_id = -7\n"
    "databases = spread, bank\n"
    "federate = yes\n"
    "operate = yes\n"
    "read_only = on\n"
    "networks = 10.0.0.0/8\n"
    "rate = 100/s\n"
    "expires = 2020-02-29 23:59:59+02\n"
    "created = 2020-01-01\n";

/* Runs a statement; what it sends by mail has arrived. */
static void
ask(const char *sql)
{
	buf_free(&got.text);
	got = (struct answer){.sink = {&got_ops}};
	admin_console.run(&asker, sql, &got.sink);
	net_settle();
}

#define ENDS(sql, expected)                                                              \
	do {                                                                             \
		ask(sql);                                                                \
		assert_string_equal(got.message, "");                                    \
		assert_true(got.is_over);                                                \
		assert_string_equal(got.tag, expected);                                  \
	} while (0)
#define FAILS(sql, expected_state, expected)                                             \
	do {                                                                             \
		ask(sql);                                                                \
		assert_true(got.is_over);                                                \
		assert_string_equal(got.message, expected);                              \
		assert_string_equal(got.state, expected_state);                          \
	} while (0)

/* ---- a host that remembers ---- */

static char asked[1024];
static int host_fault;

static int
host_reload(char *why, size_t why_len)
{
	snprintf(asked, sizeof(asked), "reload");
	snprintf(why, why_len, "t.ini:3: bad");
	return (host_fault);
}

static int
host_set(const char *key, const char *value, char *why, size_t why_len)
{
	snprintf(asked, sizeof(asked), "set %s=%s", key, value);
	snprintf(why, why_len, "must be a number");
	return (host_fault);
}

static void
host_shutdown(enum admin_shutdown mode)
{
	snprintf(asked, sizeof(asked), "shutdown %d", (int)mode);
}

static const char *
said(const char *text)
{
	return (text != NULL ? text : "-");
}

/* What the secret is goes to nobody but the client. */
static void
host_key_create(const struct topo_key_text *k, admin_host_done *done, void *arg)
{
	assert_int_equal(strlen(k->id), strlen("vb_") + 32);
	assert_int_equal(strncmp(k->secret, "SCRAM-SHA-256$4096:", 19), 0);
	assert_non_null(k->created);
	snprintf(asked, sizeof(asked), "%s|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s",
	    said(k->name), said(k->type), said(k->virtual_), said(k->databases),
	    said(k->rights), said(k->user_id), said(k->read_only), said(k->networks),
	    said(k->rate), said(k->concurrency), said(k->expires), said(k->roles));
	done(arg, host_fault, "the host says no");
}

static void
host_key_revoke(const char *id, admin_host_done *done, void *arg)
{
	snprintf(asked, sizeof(asked), "revoke %s", id);
	done(arg, host_fault, "the host says no");
}

static void
host_key_rotate(const char *word, int64_t overlap_us, struct admin_key *k,
    admin_host_done *done, void *arg)
{
	char *verifier = admin_key_verifier(k, topo_key(topo, 0)->secret);

	assert_non_null(verifier);
	assert_int_equal(strlen(k->secret), 48);
	free(verifier);
	snprintf(asked, sizeof(asked), "rotate %s %d", word, (int)(overlap_us / 1000));
	(void)text_copy(k->id, sizeof(k->id), "vb_its_id");
	done(arg, host_fault, "the host says no");
}

static const struct admin_host host = {
    .reload = host_reload,
    .set = host_set,
    .shutdown = host_shutdown,
    .key_create = host_key_create,
    .key_revoke = host_key_revoke,
    .key_rotate = host_key_rotate,
};

static int
setup(void **state)
{
	struct log_options quiet = {.file = "/dev/null"};
	struct conf_problems p = {0};
	char why[256];
	bool unpaired;

	(void)state;
	if (log_open(&quiet, why, sizeof(why)) != 0)
		return (-1);
	topo = topo_build(conf_load_text("t.ini", config, sizeof(config) - 1, &p), &p);
	conf_problems_free(&p);
	if (topo == NULL ||
	    (tls = tls_create(topo_settings(topo), &unpaired, why, sizeof(why))) == NULL)
		return (-1);
	net_create(2);
	for (unsigned i = 0; i <= 2; i++) {
		link_init(net_worker(i));
		pool_init(net_worker(i), topo, tls);
		if (i < 2) {
			w[i] = net_worker(i);
			session_init(w[i]);
		}
	}
	admin_set_host(&host);
	asker = (struct session){.magic = SESSION_MAGIC,
	    .state = SESSION_CONSOLE,
	    .worker = w[0],
	    .is_admin = true,
	    .pid = 99};
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	net_settle();
	for (unsigned i = 0; i <= 2; i++) {
		if (i < 2) {
			admin_fini(w[i]);
			session_fini(w[i]);
		}
		pool_fini(net_worker(i));
		link_fini(net_worker(i));
	}
	net_settle();
	net_destroy();
	topo_release(topo);
	tls_release(tls);
	buf_free(&got.text);
	got = (struct answer){0};
	return (0);
}

/* ---- statements ---- */

static void
test_words(void **state)
{
	const char *sql = "  sHoW /* a /* nested */ ; */ \"my \"\"db\"\"\" -- end\n"
			  "'it''s'=10min--x\n,(;; ; next";
	struct statement st;

	(void)state;
	assert_true(statement_read(&st, &sql));
	assert_string_equal(sql, "next");
	assert_int_equal(st.count, 7);
	assert_string_equal(st.words[0].text, "sHoW");
	assert_true(statement_begins(&st, "SHOW"));
	assert_false(statement_begins(&st, "SHO"));
	assert_string_equal(st.words[1].text, "my \"db\"");
	assert_int_equal(st.words[1].kind, WORD_QUOTED);
	assert_string_equal(st.words[2].text, "it's");
	assert_int_equal(st.words[2].kind, WORD_STRING);
	assert_string_equal(st.words[3].text, "=");
	assert_string_equal(st.words[4].text, "10min");
	assert_string_equal(st.words[5].text, ",");
	assert_string_equal(st.words[6].text, "(");
	statement_free(&st);
}

static void
test_words_broken(void **state)
{
	char long_one[2 * (WORDS_MAX + 1) + 1] = "";
	const char *const broken[] = {"PAUSE \"x", "SET a = 'x", "SHOW /* x", long_one};
	struct statement st;

	(void)state;
	memset(long_one, ' ', sizeof(long_one) - 1);
	for (size_t i = 0; i < sizeof(long_one) - 1; i += 2)
		long_one[i] = 'a';
	for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
		const char *sql = broken[i];

		assert_false(statement_read(&st, &sql));
		statement_free(&st);
	}
	FAILS("PAUSE \"x", "08P01", "invalid command 'PAUSE \"x', use SHOW HELP;");
}

static void
test_commands(void **state)
{
	(void)state;
	ENDS("", "");
	ENDS(" ;; -- nothing\n", "");
	FAILS("FROBNICATE", "08P01", "invalid command 'FROBNICATE', use SHOW HELP;");
	FAILS("SHOW FROBS;", "08P01", "invalid command 'SHOW FROBS;', use SHOW HELP;");
	FAILS("SHOW", "08P01", "invalid command 'SHOW', use SHOW HELP;");
	FAILS("SHOW POOLS a b", "08P01",
	    "invalid command 'SHOW POOLS a b', use SHOW HELP;");
	FAILS("RELOAD now", "08P01", "invalid command 'RELOAD now', use SHOW HELP;");
	FAILS("SHOW POOLS; SHOW STATS", "08P01",
	    "invalid command 'SHOW POOLS; SHOW STATS', use SHOW HELP;");
	FAILS("\"SHOW\" POOLS", "08P01",
	    "invalid command '\"SHOW\" POOLS', use SHOW HELP;");
	ask("suspend");
	assert_string_equal(got.state, "0A000");
}

static void
test_help(void **state)
{
	(void)state;
	ENDS("show help", "SHOW");
	assert_non_null(strstr(got.notice, "Console usage"));
	for (size_t i = 0; i < command_count; i++)
		if (command_table[i].effect != EFFECT_DRIVER &&
		    command_table[i].run != admin_show)
			assert_non_null(strstr(got.notice, command_table[i].usage));
	for (size_t i = 0; i < view_count; i++)
		assert_non_null(strstr(got.notice, view_table[i].name));
	assert_null(strstr(got.notice, "ROLLBACK"));
}

/* ---- keys ---- */

static void
test_create_key(void **state)
{
	const struct rows_column *columns;
	unsigned count;

	(void)state;
	ENDS("CREATE KEY 'user 42' TYPE database USER 42 VIRTUAL bank;", "CREATE KEY");
	assert_string_equal(asked, "user 42|database|bank|-|-|42|-|-|-|-|-|-");
	assert_int_equal(got.rows, 1);
	assert_string_equal(got.column[0].name, "key");
	assert_string_equal(got.column[1].name, "secret");
	assert_int_equal(strncmp(rows_text(), "vb_", 3), 0);
	assert_int_equal(strlen(rows_text()), 35 + 1 + 48 + 1);
	ENDS("create key reporting type server concurrency 20 rate '100/s' virtual bank "
	     "operate networks '10.0.0.0/8, ::1/128' databases (primary, \"a, b\") "
	     "role primary app_ro read only federate role analytics \"the role\" "
	     "replicate expires '2027-01-01'",
	    "CREATE KEY");
	assert_string_equal(asked,
	    "reporting|server|bank|primary, \"a, b\"|operate, federate, replicate|-|yes|"
	    "10.0.0.0/8, ::1/128|100/s|20|2027-01-01|"
	    "primary app_ro, analytics \"the role\"");
	assert_true(admin_console.describe(
	    &asker, "CREATE KEY 'x' TYPE client VIRTUAL bank", &columns, &count));
	assert_int_equal(count, 2);
}

static void
test_create_key_wrong(void **state)
{
	(void)state;
	asked[0] = '\0';
	FAILS("CREATE KEY", "42601",
	    "a name is missing: CREATE KEY 'name' TYPE type \xe2\x80\xa6");
	FAILS("CREATE KEY 'x' VIRTUAL bank", "42601",
	    "the name must be followed by TYPE database, client or server");
	FAILS(
	    "CREATE KEY 'x' TYPE client TYPE server", "42601", "TYPE stands there twice");
	FAILS("CREATE KEY 'x' TYPE client READ", "42601",
	    "syntax error in READ, allowed is READ ONLY");
	FAILS("CREATE KEY 'x' TYPE client DATABASES (a, ) FEDERATE", "42601",
	    "syntax error in DATABASES, allowed is DATABASES (name, name)");
	FAILS("CREATE KEY 'x' TYPE client DATABASES (a b)", "42601",
	    "syntax error in DATABASES, allowed is DATABASES (name, name)");
	FAILS("CREATE KEY 'x' TYPE client ROLE primary", "42601",
	    "syntax error in ROLE, allowed is ROLE database role");
	FAILS("CREATE KEY 'x' TYPE client 'FEDERATE'", "42601",
	    "syntax error at or near \"FEDERATE\"");
	FAILS("CREATE KEY 'x' TYPE client OPERATE, FEDERATE", "42601",
	    "syntax error at or near \",\"");
	assert_string_equal(asked, "");
	host_fault = F_CONF_VALUE;
	FAILS("CREATE KEY 'x' TYPE client", "22023", "the host says no");
	host_fault = F_STORE;
	FAILS("CREATE KEY 'x' TYPE client", "58030", "the host says no");
	assert_int_equal(got.rows, 0);
	assert_non_null(strstr(got.hint, "state_dir"));
	host_fault = 0;
}

static void
test_rotate_key(void **state)
{
	const struct rows_column *columns;
	unsigned count;

	(void)state;
	ENDS("ROTATE KEY 'it''s' OVERLAP '1h';", "ROTATE KEY");
	assert_string_equal(asked, "rotate it's 3600000");
	assert_int_equal(got.rows, 1);
	assert_string_equal(got.column[1].name, "secret");
	assert_int_equal(strncmp(rows_text(), "vb_its_id|", 10), 0);
	assert_int_equal(strlen(rows_text()), 10 + 48 + 1);
	ENDS("rotate key vb_1", "ROTATE KEY");
	assert_string_equal(asked, "rotate vb_1 0");
	assert_true(admin_console.describe(
	    &asker, "ROTATE KEY vb_1 OVERLAP 5min", &columns, &count));
	assert_int_equal(count, 2);
	asked[0] = '\0';
	FAILS("ROTATE KEY", "42601", "syntax error");
	assert_string_equal(got.hint, "ROTATE KEY 'id or name' [OVERLAP 'time']");
	FAILS("ROTATE KEY vb_1 OVERLAP", "42601", "syntax error");
	FAILS("ROTATE KEY vb_1 UNTIL 1h", "42601", "syntax error");
	FAILS("ROTATE KEY vb_1 OVERLAP 1h 1h", "42601", "syntax error");
	FAILS("ROTATE KEY vb_1 OVERLAP 'a while'", "22023",
	    "overlap: \"a while\" is not a time, allowed are 0 to 31536000 s, or a number "
	    "with us, ms, s, min, h or d");
	assert_string_equal(asked, "");
	host_fault = F_KEY_STATE;
	FAILS("ROTATE KEY vb_1", "55000", "the host says no");
	assert_int_equal(got.rows, 0);
	host_fault = F_AMBIGUOUS;
	FAILS("ROTATE KEY vb_1", "42P09", "the host says no");
	host_fault = 0;
	asker.is_admin = false;
	FAILS("ROTATE KEY vb_1", "42501", "admin access needed");
	asker.is_admin = true;
}

static void
test_revoke_key(void **state)
{
	(void)state;
	ENDS("REVOKE KEY 'vb_1'", "REVOKE KEY");
	assert_string_equal(asked, "revoke vb_1");
	FAILS("REVOKE KEY", "42601", "syntax error");
	assert_string_equal(got.hint, "REVOKE KEY 'id or name'");
	host_fault = F_NOT_FOUND;
	FAILS("REVOKE KEY vb_1", "42704", "the host says no");
	host_fault = F_CONF;
	FAILS("REVOKE KEY vb_1", "55000", "the host says no");
	assert_non_null(strstr(got.hint, "RELOAD"));
	host_fault = 0;
	asker.is_admin = false;
	FAILS("REVOKE KEY vb_1", "42501", "admin access needed");
	FAILS("CREATE KEY 'x' TYPE client", "42501", "admin access needed");
	asker.is_admin = true;
}

/* A stats user sees everything and changes nothing. */
static void
test_roles(void **state)
{
	(void)state;
	asker.is_admin = false;
	for (size_t i = 0; i < command_count; i++) {
		if (command_table[i].role != ROLE_ADMIN)
			continue;
		FAILS(command_table[i].verb, "42501", "admin access needed");
	}
	FAILS("SET verbose = 2", "42501", "admin access needed");
	ENDS("SHOW POOLS", "SHOW");
	ENDS("SET client_encoding TO 'UTF8'", "SET");
	asker.is_admin = true;
}

static void
test_drivers(void **state)
{
	(void)state;
	ENDS("BEGIN", "BEGIN");
	ENDS("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "BEGIN");
	ENDS("start transaction", "START TRANSACTION");
	ENDS("END", "COMMIT");
	ENDS("ROLLBACK", "ROLLBACK");
	ENDS("DISCARD ALL", "DISCARD ALL");
	ENDS("SET extra_float_digits = 3", "SET");
	assert_string_equal(got.notice, "SET ignored");
	ENDS("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
	    "SET");
	ENDS("SET TIME ZONE 'UTC'", "SET");
	ENDS("SET SESSION search_path = 'a', 'b'", "SET");
	ENDS("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
	    "RESET");
	ENDS("SELECT 1", "SELECT");
	assert_string_equal(rows_text(), "1\n");
	assert_string_equal(got.column[0].name, "?column?");
	ENDS("SELECT pg_catalog.set_config('jit', 'off', false)", "SELECT");
	assert_string_equal(rows_text(), "off\n");
	ENDS("show transaction isolation level", "SHOW");
	assert_string_equal(rows_text(), "read committed\n");
	assert_string_equal(got.column[0].name, "transaction_isolation");
	ENDS("SHOW standard_conforming_strings", "SHOW");
	assert_string_equal(rows_text(), "on\n");
	FAILS("SELECT version()", "42883", "no such function: version");
	FAILS("BEGIN; PAUSE", "08P01", "invalid command 'BEGIN; PAUSE', use SHOW HELP;");
	FAILS("SELECT 1; SELECT 2", "08P01",
	    "invalid command 'SELECT 1; SELECT 2', use SHOW HELP;");
}

static void
test_describe(void **state)
{
	const struct rows_column *columns;
	unsigned count;

	(void)state;
	assert_true(admin_console.describe(&asker, "show pools;", &columns, &count));
	assert_int_equal(count, 17);
	assert_string_equal(columns[0].name, "database");
	assert_string_equal(columns[16].name, "load_balance_hosts");
	assert_true(admin_console.describe(&asker, "SELECT 1", &columns, &count));
	assert_int_equal(count, 1);
	assert_int_equal(columns[0].type, ROWS_INT4);
	assert_true(admin_console.describe(&asker, "SHOW timezone", &columns, &count));
	assert_int_equal(count, 1);
	assert_true(admin_console.describe(&asker, "PAUSE bank", &columns, &count));
	assert_null(columns);
	assert_true(admin_console.describe(&asker, "", &columns, &count));
	assert_null(columns);
	assert_true(
	    admin_console.describe(&asker, "SET timezone = 'x'", &columns, &count));
	assert_null(columns);
	assert_false(admin_console.describe(&asker, "SHOW x", &columns, &count));
	assert_false(admin_console.describe(&asker, "nonsense", &columns, &count));
	assert_false(admin_console.describe(&asker, "'open", &columns, &count));
	assert_null(columns);
}

/* ---- views ---- */

/* Connections that live in no socket: put where the views look, taken out again. */
struct fakes {
	struct seat *seat[2];
	struct link link[2];
	struct session client[3];
};

static void
fakes_link(struct fakes *f, unsigned i, enum link_state link_state)
{
	struct link *l = &f->link[i];

	*l = (struct link){.magic = LINK_MAGIC,
	    .state = link_state,
	    .stream = {.fd = -1},
	    .worker = w[i],
	    .place = f->seat[i],
	    .vars = vars_none(w[i]),
	    .connect_us = clock_us(),
	    .request_us = clock_us(),
	    .pid = 4000000000U,
	    .id = 7 + i};
	l->remote.family = AF_INET;
	l->remote.port = 5433;
	TAILQ_INSERT_TAIL(&f->seat[i]->links, l, entry);
	f->seat[i]->link_count++;
	f->seat[i]->pool->links++;
	f->seat[i]->pool->db->links++;
}

static void
fakes_client(struct fakes *f, unsigned i, struct worker *at, enum session_state in)
{
	struct session *s = &f->client[i];

	*s = (struct session){.magic = SESSION_MAGIC,
	    .state = in,
	    .stream = {.fd = -1},
	    .worker = at,
	    .connect_us = clock_us(),
	    .pid = 2000000000U + i};
	if (in == SESSION_ACTIVE)
		s->seat = f->seat[0];
	TAILQ_INSERT_TAIL(&session_worker(at)->sessions[in], s, entry);
	session_worker(at)->count[in]++;
}

static void
fakes_add(struct fakes *f)
{
	const struct topo_database *db = topo_database_find(topo, "bank");

	for (unsigned i = 0; i < 2; i++) {
		struct metrics m = {{0}};

		f->seat[i] = pool_seat(w[i], db, "bank", "alice");
		METRIC_ADD(&m, xact_count, 100);
		METRIC_ADD(&m, xact_time, 5000);
		f->seat[i]->metrics = f->seat[i]->average = m;
		f->seat[i]->average_us = 10000000;
		f->seat[i]->clients = 1;
		fakes_link(f, i, i == 0 ? LINK_LENT : LINK_IDLE);
	}
	f->link[0].user_arg = &f->client[0];
	f->seat[0]->pool->db->clients = 2;
	fakes_client(f, 0, w[0], SESSION_ACTIVE);
	f->client[0].link = &f->link[0];
	fakes_client(f, 1, w[1], SESSION_CONSOLE);
	fakes_client(f, 2, w[1], SESSION_AUTH);
}

static void
fakes_remove(struct fakes *f)
{
	f->seat[0]->pool->db->clients = 0;
	for (unsigned i = 0; i < 2; i++) {
		TAILQ_REMOVE(&f->seat[i]->links, &f->link[i], entry);
		f->seat[i]->pool->links = --f->seat[i]->link_count;
		f->seat[i]->pool->db->links--;
		f->seat[i]->clients = 0;
		vars_release(w[i], f->link[i].vars);
	}
	for (unsigned i = 0; i < 3; i++) {
		struct session *s = &f->client[i];

		TAILQ_REMOVE(&session_worker(s->worker)->sessions[s->state], s, entry);
		session_worker(s->worker)->count[s->state]--;
	}
}

static bool
is_empty_here(const char *view)
{
	static const char *const names[] = {"ACTIVE_SOCKETS", "REPLICAS", "JOBS",
	    "JOB_RUNS", "DNS_HOSTS", "DNS_ZONES", "PEERS", "PEER_POOLS", "LISTENS",
	    "PINS"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], view) == 0)
			return (true);
	return (false);
}

/* Each filler fills the columns that are declared, with values of their types. */
static void
test_views(void **state)
{
	struct fakes f;

	(void)state;
	fakes_add(&f);
	for (size_t i = 0; i < view_count; i++) {
		const struct rows_column *columns;
		char sql[64];
		unsigned count;

		snprintf(sql, sizeof(sql), "SHOW %s;", view_table[i].name);
		ENDS(sql, "SHOW");
		assert_true(admin_console.describe(&asker, sql, &columns, &count));
		assert_ptr_equal(got.column, columns);
		assert_int_equal(got.columns, count);
		if (got.rows == 0 && !is_empty_here(view_table[i].name))
			fail_msg("SHOW %s has no rows", view_table[i].name);
		assert_true(view_table[i].filter < view_table[i].first + (int)count);
	}
	fakes_remove(&f);
}

static void
test_keys_view(void **state)
{
	struct topo_key_text stored = {.id = "vb_of_the_store",
	    .secret = topo_key(topo, 0)->secret,
	    .type = "client",
	    .virtual_ = "weave",
	    .revoked = "2020-01-01 00:00:00+00"};
	const struct topo *was = pool_worker(w[0])->topo;
	const struct topo *with = topo_with_keys(topo, &stored, 1);

	(void)state;
	topo_key_use("vb_of_the_store")->last_used_us = INT64_C(951782399000000);
	pool_worker(w[0])->topo = with;
	ENDS("SHOW KEYS", "SHOW");
	expect_row(
	    "vb_00000000000000000000000000f11e01|it's mine|database|weave|spread, bank|federate, "
	    "operate|-7|t|10.0.0.0/8|100/s|2020-02-29 21:59:59+00|"
	    "2020-01-01 00:00:00+00|NULL|expired\n");
	expect_row("vb_of_the_store|vb_of_the_store|client|weave|||NULL|f|||NULL|NULL|"
		   "2000-02-28 23:59:59+00|revoked\n");
	assert_null(strstr(rows_text(), "SCRAM"));
	ENDS("SHOW KEYS vb_of_the_store", "SHOW");
	assert_int_equal(got.rows, 1);
	pool_worker(w[0])->topo = was;
	topo_release(with);
	topo_key_uses_free();
}

static void
test_route_views(void **state)
{
	(void)state;
	ENDS("SHOW ROUTES", "SHOW");
	expect_row("weave|events|spread|t.ini:14|NULL|NULL\n"
		   "weave|archive.old|bank|t.ini:15|NULL|NULL\n"
		   "weave|system_metric|spread|t.ini:24|NULL|NULL\n"
		   "weave|archive.*|spread|t.ini:13|NULL|NULL\n"
		   "weave|archive.new*|bank|t.ini:16|NULL|never reached: archive.* at "
		   "t.ini:13 matches all of it first\n");
	ENDS("SHOW SHARDS", "SHOW");
	expect_row("weave|accounts|user_id|modulo|spread, bank|integer|NULL\n"
		   "weave|\"Moves\"|user_id|modulo|spread, bank|integer|NULL\n");
	ENDS("SHOW MODELS weave", "SHOW");
	expect_row("weave|Event|events|spread\nweave|Account|accounts|NULL\n"
		   "weave|SystemMetric|system_metric|spread\nweave|Other|others|bank\n");
	ENDS("SHOW ROUTES other", "SHOW");
	assert_int_equal(got.rows, 0);
}

static void
test_view_values(void **state)
{
	struct fakes f;

	(void)state;
	fakes_add(&f);
	ENDS("SHOW POOLS", "SHOW");
	expect_row("bank|app|2|0|0|0|1|0|0|1|0|0|0|0|0|session|NULL\n");
	expect_row("pgweave|pgweave|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|NULL\n");
	ENDS("SHOW POOLS bank", "SHOW");
	assert_int_equal(got.rows, 1);
	ENDS("SHOW DATABASES", "SHOW");
	expect_row("bank|127.0.0.1|5433|bank|app|7|0|0|3600|NULL|NULL|0|2|0|2|0|0\n");
	expect_row(
	    "spread|10.0.0.1,10.0.0.2|5432|s|NULL|20|0|0|3600|session|round-robin|");
	expect_row("pgweave|NULL|7777|pgweave|pgweave|2|");
	ENDS("SHOW CLIENTS", "SHOW");
	assert_int_equal(got.rows, 2);
	expect_row("|bank|none|active|");
	expect_row("|pgweave|none|idle|");
	ENDS("SHOW CLIENTS 2000000000", "SHOW");
	assert_int_equal(got.rows, 1);
	ENDS("SHOW SERVERS", "SHOW");
	assert_int_equal(got.rows, 2);
	expect_row("S|app|bank|none|active|0.0.0.0|5433|");
	expect_row("S|app|bank|none|idle|0.0.0.0|5433|");
	ENDS("SHOW SOCKETS", "SHOW");
	assert_int_equal(got.rows, 5);
	expect_row("|cl_login|");
	expect_row("|sv_idle|");
	ENDS("SHOW USERS", "SHOW");
	expect_row("alice|NULL|NULL|statement|3|0|0|0\n");
	ENDS("SHOW LISTS", "SHOW");
	expect_row("databases|3\n");
	expect_row("pools|2\n");
	expect_row("used_clients|3\n");
	expect_row("login_clients|1\n");
	expect_row("used_servers|2\n");
	ENDS("SHOW WORKERS", "SHOW");
	assert_int_equal(got.rows, 2);
	ENDS("SHOW CONFIG listen_port", "SHOW");
	assert_string_equal(rows_text(), "listen_port|7777|6432|no\n");
	ENDS("SHOW CONFIG admin_users", "SHOW");
	assert_string_equal(rows_text(), "admin_users|admin||yes\n");
	ENDS("SHOW STATE", "SHOW");
	assert_string_equal(rows_text(), "active|yes\npaused|no\nsuspended|no\n");
	fakes_remove(&f);
}

static void
test_view_stats(void **state)
{
	struct fakes f;

	(void)state;
	fakes_add(&f);
	/* Two workers, each 100 transactions of 50 us in 10 s. */
	ENDS("SHOW STATS", "SHOW");
	assert_int_equal(got.columns, 25);
	assert_string_equal(rows_text(),
	    "bank|0|200|0|0|0|10000|0|0|0|0|0|0|0|20|0|0|0|50|0|0|0|0|0|0\n"
	    "pgweave|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n");
	fakes_remove(&f);
}

static void
test_totals(void **state)
{
	struct fakes f;

	(void)state;
	fakes_add(&f);
	ENDS("SHOW TOTALS", "SHOW");
	expect_row("total_xact_count|200\n");
	expect_row("avg_xact_count|20\n");
	expect_row("avg_xact_time|50\n");
	expect_row("total_client_bytes|0\n");
	ENDS("SHOW STATS_TOTALS", "SHOW");
	assert_string_equal(rows_text(), "bank|0|200|0|0|0|10000|0|0|0|0|0|0\n"
					 "pgweave|0|0|0|0|0|0|0|0|0|0|0|0\n");
	ENDS("SHOW STATS_AVERAGES", "SHOW");
	assert_string_equal(rows_text(), "bank|0|20|0|0|0|50|0|0|0|0|0|0\n"
					 "pgweave|0|0|0|0|0|0|0|0|0|0|0|0\n");
	admin_log_stats(net_main());
	net_settle();
	fakes_remove(&f);
}

/* ---- operators ---- */

static void
test_databases_wrong(void **state)
{
	static const char *const verbs[] = {
	    "PAUSE", "RESUME", "DISABLE", "ENABLE", "RECONNECT", "WAIT_CLOSE", "KILL"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		char sql[64];

		snprintf(sql, sizeof(sql), "%s nowhere", verbs[i]);
		FAILS(sql, "08P01", "no such database: nowhere");
		snprintf(sql, sizeof(sql), "%s bank spread", verbs[i]);
		ask(sql);
		assert_string_equal(got.state, "08P01");
		snprintf(sql, sizeof(sql), "%s pgbouncer", verbs[i]);
		ask(sql);
		assert_string_equal(got.state, "08P01");
	}
	FAILS("PAUSE pgweave", "08P01", "cannot pause admin db: pgweave");
	FAILS("DISABLE", "08P01", "a database is required");
}

static void
test_pause(void **state)
{
	(void)state;
	FAILS("RESUME", "08P01", "pooler is not paused/suspended");
	FAILS("RESUME bank", "08P01", "database bank is not paused");
	ENDS("PAUSE bank", "PAUSE");
	ENDS("SHOW DATABASES bank", "SHOW");
	expect_row("|1|0\n");
	ENDS("SHOW STATE", "SHOW");
	expect_row("active|yes\n");
	ENDS("RESUME \"bank\";", "RESUME");
	ENDS("PAUSE", "PAUSE");
	ENDS("SHOW STATE", "SHOW");
	expect_row("paused|yes\n");
	FAILS("PAUSE", "08P01", "already suspended/paused");
	FAILS("KILL bank", "08P01", "already suspended/paused");
	ENDS("RESUME", "RESUME");
	ENDS("SHOW DATABASES bank", "SHOW");
	expect_row("|0|0\n");
}

/* One turn of the asking worker's loop, past the time between two looks. */
static void
turn(void)
{
	worker_turn(w[0]);
	net_settle();
}

static void
test_pause_waits(void **state)
{
	struct pool_place *p = pool_database("bank");

	(void)state;
	p->links = 1;
	ask("PAUSE bank");
	assert_false(got.is_over);
	for (unsigned i = 0; i < 3; i++)
		turn();
	assert_false(got.is_over);
	p->links = 0;
	while (!got.is_over)
		turn();
	assert_string_equal(got.tag, "PAUSE");
	ENDS("RESUME bank", "RESUME");

	p->links = 1;
	ask("PAUSE bank");
	pool_resume("bank");
	while (!got.is_over)
		turn();
	assert_string_equal(got.state, "57014");
	p->links = 0;
	pool_place_release(p);
}

static void
test_wait_close(void **state)
{
	struct fakes f;

	(void)state;
	ENDS("WAIT_CLOSE", "WAIT_CLOSE");
	fakes_add(&f);
	f.link[0].state = f.link[1].state = LINK_LENT;
	ENDS("RECONNECT bank", "RECONNECT");
	ask("WAIT_CLOSE bank");
	turn();
	assert_false(got.is_over);
	fakes_remove(&f);
	while (!got.is_over)
		turn();
	assert_string_equal(got.tag, "WAIT_CLOSE");
}

/* The process ends while somebody waits. */
static void
test_wait_shutdown(void **state)
{
	struct pool_place *p = pool_database("bank");

	(void)state;
	p->links = 1;
	ask("PAUSE bank");
	assert_false(got.is_over);
	admin_fini(w[0]);
	assert_true(got.is_over);
	assert_string_equal(got.state, "57P01");
	p->links = 0;
	pool_resume("bank");
	pool_place_release(p);
}

static void
test_disable(void **state)
{
	struct pool_place *p = pool_database("bank");

	(void)state;
	ENDS("DISABLE bank", "DISABLE");
	assert_true(p->is_disabled);
	ENDS("ENABLE bank", "ENABLE");
	assert_false(p->is_disabled);
	pool_place_release(p);
}

static void
test_kill(void **state)
{
	struct pool_place *p = pool_database("bank");

	(void)state;
	ENDS("KILL bank", "KILL");
	assert_true(p->is_paused);
	ENDS("RESUME bank", "RESUME");
	ENDS("KILL", "KILL");
	assert_true(p->is_paused);
	ENDS("SHOW STATE", "SHOW");
	expect_row("active|yes\n");
	ENDS("RESUME", "RESUME");
	assert_false(p->is_paused);
	pool_place_release(p);
	FAILS("KILL_CLIENT x", "08P01", "invalid client pointer supplied");
	FAILS("KILL_CLIENT", "08P01", "invalid client pointer supplied");
	FAILS("KILL_CLIENT 123456", "08P01", "client not found");
}

static void
test_host(void **state)
{
	(void)state;
	host_fault = 0;
	ENDS("RELOAD;", "RELOAD");
	assert_string_equal(asked, "reload");
	ENDS("SET server_idle_timeout = 10min", "SET server_idle_timeout=10min");
	assert_string_equal(asked, "set server_idle_timeout=10min");
	ENDS("set Server_Check_Query to 'select ''x'''",
	    "SET server_check_query=select 'x'");
	assert_string_equal(asked, "set server_check_query=select 'x'");
	ENDS("SET server_idle_timeout = DEFAULT", "SET server_idle_timeout=600");
	assert_string_equal(asked, "set server_idle_timeout=600");
	host_fault = F_CONF_VALUE;
	FAILS("SET server_idle_timeout = x", "08P01", "SET failed");
	assert_string_equal(got.detail, "server_idle_timeout: must be a number");
	FAILS("RELOAD", "F0000", "RELOAD failed, see logs for additional details");
	FAILS("SET listen_port = 1", "08P01", "SET failed");
	assert_string_equal(
	    got.detail, "listen_port: cannot be changed without a restart");
	FAILS("SET no_such_thing = 1", "08P01", "SET failed");
	ask("SET server_idle_timeout 5");
	assert_string_equal(got.state, "08P01");
	ENDS("SHUTDOWN WAIT_FOR_CLIENTS", "SHUTDOWN");
	assert_string_equal(asked, "shutdown 2");
	ENDS("shutdown wait_for_servers", "SHUTDOWN");
	assert_string_equal(asked, "shutdown 1");
	ask("SHUTDOWN wait");
	assert_string_equal(got.state, "08P01");
	ask("SHUTDOWN");
	assert_string_equal(asked, "shutdown 0");
	assert_false(got.is_over);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_words),
	    cmocka_unit_test(test_words_broken),
	    cmocka_unit_test(test_commands),
	    cmocka_unit_test(test_help),
	    cmocka_unit_test(test_create_key),
	    cmocka_unit_test(test_create_key_wrong),
	    cmocka_unit_test(test_rotate_key),
	    cmocka_unit_test(test_revoke_key),
	    cmocka_unit_test(test_roles),
	    cmocka_unit_test(test_drivers),
	    cmocka_unit_test(test_describe),
	    cmocka_unit_test(test_views),
	    cmocka_unit_test(test_view_values),
	    cmocka_unit_test(test_keys_view),
	    cmocka_unit_test(test_route_views),
	    cmocka_unit_test(test_view_stats),
	    cmocka_unit_test(test_totals),
	    cmocka_unit_test(test_databases_wrong),
	    cmocka_unit_test(test_pause),
	    cmocka_unit_test(test_pause_waits),
	    cmocka_unit_test(test_wait_close),
	    cmocka_unit_test(test_wait_shutdown),
	    cmocka_unit_test(test_disable),
	    cmocka_unit_test(test_kill),
	    cmocka_unit_test(test_host),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
