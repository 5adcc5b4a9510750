/* conf: what arrives from a file, whole; and the sentence for everything that is wrong. */
#include "conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/pgweave-conf-XXXXXX";

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

/* The path of a file in the test's directory; the caller frees it. */
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

static struct conf *
load(const char *text, struct conf_problems *p)
{
	return (conf_load_text("t.ini", text, strlen(text), p));
}

/* The text has exactly this one problem. */
static void
expect_problem(const char *text, const char *sentence)
{
	struct conf_problems p = {0};
	struct conf *c = load(text, &p);

	assert_int_equal(p.count, 1);
	assert_string_equal(p.lines[0], sentence);
	conf_problems_free(&p);
	conf_free(c);
}

/* The text has no problem; the caller frees the result. */
static struct conf *
expect_fine(const char *text)
{
	struct conf_problems p = {0};
	struct conf *c = load(text, &p);

	if (p.count > 0)
		print_error("%s\n", p.lines[0]);
	assert_int_equal(p.count, 0);
	conf_problems_free(&p);
	return (c);
}

/* ---- the table ---- */

static void
defaults_are_written_as_in_a_file(void **state)
{
	struct settings s;
	char text[1024], why[256];
	int64_t n;

	(void)state;
	settings_defaults(&s);
	for (size_t i = 0; i < setting_count; i++) {
		const struct setting *row = &setting_table[i];

		assert_true(row->scope & SC_GLOBAL);
		assert_ptr_equal(setting_find(row->key), row);
		setting_text(&s, row, text, sizeof(text));
		assert_string_equal(text, row->dflt);
		assert_true(strlen(row->doc) > 8);
	}
	for (size_t i = 0; i < word_count; i++) {
		const struct setting *row = &word_table[i];

		assert_int_equal(row->scope & SC_GLOBAL, 0);
		assert_ptr_equal(setting_find_in(row->scope, row->key), row);
		if (row->type != SET_STR)
			assert_int_equal(
			    setting_number(row, row->dflt, &n, why, sizeof(why)), 0);
	}
	assert_int_equal(s.listen_port, 6432);
	assert_int_equal(s.workers, 0);
	assert_int_equal(s.unix_socket_mode, 0777);
	assert_int_equal(s.auth_type, AUTH_MD5);
	assert_int_equal(s.pool_mode, POOL_SESSION);
	assert_int_equal(s.server_tls_sslmode, SSL_PREFER);
	assert_int_equal(s.server_lifetime, INT64_C(3600000000));
	assert_int_equal(s.tcp_user_timeout, 0);
	assert_string_equal(s.server_reset_query, "DISCARD ALL");
}

static void
keys_are_found_in_any_case_and_place(void **state)
{
	char why[256];

	(void)state;
	assert_ptr_equal(setting_find("Listen_PORT"), setting_find("listen_port"));
	assert_null(setting_find("host"));
	assert_null(setting_find_in(SC_DATABASE, "listen_port"));
	assert_string_equal(setting_find_in(SC_USER, "POOL_MODE")->key, "pool_mode");
	/* The same key means the unix user in one place and a role in the other. */
	assert_ptr_not_equal(setting_find("user"), setting_find_in(SC_DATABASE, "user"));
	assert_ptr_equal(setting_find_in(SC_KEY, "read_only"),
	    setting_find_in(SC_DATABASE, "read_only"));
	assert_null(setting_find_in(SC_LOGIN, "secret"));
	setting_unknown(SC_DATABASE, "TABLES", why, sizeof(why));
	assert_string_equal(
	    why, "not known here, it belongs in [shard x] or [replication x]");
	setting_unknown(SC_VIRTUAL, "membrs", why, sizeof(why));
	assert_string_equal(why, "no such key, did you mean \"members\"?");
}

/* One value of one key, as it is printed again. */
static void
expect_printed(const char *key, const char *text, const char *printed)
{
	const struct setting *row = setting_find(key);
	struct settings s;
	char out[256], why[512];

	settings_defaults(&s);
	assert_int_equal(setting_put(&s, row, text, why, sizeof(why)), 0);
	setting_text(&s, row, out, sizeof(out));
	assert_string_equal(out, printed);
}

static void
expect_refused(const char *key, const char *text, const char *sentence)
{
	struct settings s, was;
	char why[512];

	settings_defaults(&s);
	was = s;
	assert_int_equal(
	    setting_put(&s, setting_find(key), text, why, sizeof(why)), F_CONF_VALUE);
	assert_string_equal(why, sentence);
	assert_memory_equal(&s, &was, sizeof(s));
}

static void
times_take_units_and_fractions(void **state)
{
	struct settings s;
	char why[256];

	(void)state;
	expect_printed("query_timeout", "30", "30");
	expect_printed("query_timeout", "0.5", "0.5");
	expect_printed("query_timeout", "250ms", "0.25");
	expect_printed("query_timeout", "1us", "0.000001");
	expect_printed("query_timeout", "2 min", "120");
	expect_printed("query_timeout", "1.5h", "5400");
	expect_printed("query_timeout", "1d", "86400");
	expect_printed("tcp_keepidle", "90", "90");
	expect_printed("tcp_keepidle", "2min", "120");
	expect_refused("tcp_keepidle", "1500ms",
	    "\"1500ms\" is not a time of whole seconds, allowed are 0 to 32767 s, or a "
	    "number with us, ms, s, min, h or d");
	expect_printed("tcp_user_timeout", "3s", "3000");
	expect_printed("tcp_user_timeout", "1500us", "1.5");
	settings_defaults(&s);
	assert_int_equal(
	    setting_put(&s, setting_find("query_timeout"), "2min", why, sizeof(why)), 0);
	assert_int_equal(s.query_timeout, 120000000);
}

static void
sizes_and_other_values(void **state)
{
	(void)state;
	expect_printed("pkt_buf", "8kB", "8192");
	expect_printed("pkt_buf", "2 MB", "2097152");
	expect_printed("pkt_buf", "0.5kb", "512");
	expect_printed("unix_socket_mode", "700", "0700");
	expect_printed("workers", "Auto", "auto");
	expect_printed("workers", "4", "4");
	expect_printed("pool_mode", "Transaction", "transaction");
	expect_printed("auth_type", "scram-sha-256", "scram-sha-256");
	expect_printed("syslog", "ON", "1");
	expect_printed("syslog", "true", "1");
	expect_printed("log_stats", "no", "0");
	expect_printed("log_stats", "false", "0");
	expect_printed("syslog_facility", "local3", "local3");
}

static void
wrong_values_are_explained(void **state)
{
	(void)state;
	expect_refused(
	    "listen_port", "70000", "\"70000\" is out of range, allowed are 1 to 65535");
	expect_refused("listen_port", "99999999999999999999",
	    "\"99999999999999999999\" is out of range, allowed are 1 to 65535");
	expect_refused(
	    "listen_port", "-1", "\"-1\" is out of range, allowed are 1 to 65535");
	expect_refused(
	    "listen_port", "64.5", "\"64.5\" is not a number, allowed are 1 to 65535");
	expect_refused("listen_port", "", "\"\" is not a number, allowed are 1 to 65535");
	expect_refused(
	    "workers", "257", "\"257\" is out of range, allowed are auto and 1 to 256");
	expect_refused(
	    "workers", "0", "\"0\" is out of range, allowed are auto and 1 to 256");
	expect_refused("query_timeout", "5 weeks",
	    "\"5 weeks\" is not a time, allowed are 0 to 1000000000 s, or a number with "
	    "us, ms, s, min, h or d");
	expect_refused("query_timeout", "-1s",
	    "\"-1s\" is out of range, allowed are 0 to 1000000000 s, or a number with "
	    "us, ms, s, min, h or d");
	expect_refused("pkt_buf", "4 kilo",
	    "\"4 kilo\" is not a size, allowed are 256 to 67108864 B, or a number with "
	    "B, kB, MB or GB");
	expect_refused("unix_socket_mode", "0789",
	    "\"0789\" is not a number, allowed are 00 to 0777");
	expect_refused("log_stats", "maybe",
	    "\"maybe\" is neither yes nor no, allowed are 1, 0, yes, no, on, off, true, "
	    "false");
	expect_refused("pool_mode", "transactoin",
	    "\"transactoin\" is none of the words, allowed are session, transaction, "
	    "statement, did you mean \"transaction\"?");
	expect_refused("auth_type", "pam",
	    "\"pam\" is refused: logins through PAM are not part of this version, "
	    "allowed are any, trust, plain, md5, scram-sha-256, cert, hba, peer");
	expect_refused("client_tls_dheparams", "atuo",
	    "\"atuo\" is none of the words, allowed are none, auto, legacy, did you mean "
	    "\"auto\"?");
}

static void
count_change(void *arg, const struct setting *s, bool needs_restart)
{
	struct buf *b = arg;

	buf_addf(b, "%s%s ", s->key, needs_restart ? "!" : "");
}

static void
a_reload_is_a_diff(void **state)
{
	struct conf *a =
	    expect_fine("[pgweave]\nlisten_port = 7000\npool_mode = session\n"
			"admin_users = x\nquery_timeout = 60\n");
	struct conf *b = expect_fine("[pgweave]\nlisten_port = 7001\nverbose = 1\n"
				     "admin_users = y\nquery_timeout = 1min\nsyslog = 1");
	struct buf seen = {0};

	(void)state;
	settings_diff(conf_settings(a), conf_settings(b), count_change, &seen);
	buf_add(&seen, "", 1);
	assert_string_equal((char *)seen.mem, "listen_port! syslog verbose admin_users ");
	buf_drop(&seen, seen.len);
	settings_diff(conf_settings(a), conf_settings(a), count_change, &seen);
	assert_int_equal(seen.len, 0);
	buf_free(&seen);
	conf_free(a);
	conf_free(b);
}

/* ---- the reader ---- */

static void
long_lines_and_names_arrive_whole(void **state)
{
	char name[64], value[6001], *text;
	const struct conf_section *s;
	struct conf *c;

	(void)state;
	memset(name, 'n', 63);
	name[63] = '\0';
	for (size_t i = 0; i < 6000; i++)
		value[i] = (char)('a' + i % 26);
	value[6000] = '\0';
	text = mem_printf("[pgweave]\nserver_check_query = %s\n[database %s]\n%s = %s\n",
	    value, name, name, value);
	c = expect_fine(text);
	assert_string_equal(conf_settings(c)->server_check_query, value);
	s = conf_section_find(c, "database", name);
	assert_non_null(s);
	assert_int_equal(s->key_count, 1);
	assert_string_equal(s->keys[0].key, name);
	assert_string_equal(s->keys[0].value, value);
	assert_int_equal(s->keys[0].at.line, 4);
	conf_free(c);
	free(text);
}

static void
comments_are_ours_alone(void **state)
{
	struct conf *c = expect_fine("\xef\xbb\xbf# first\r\n"
				     "[pgbouncer]\r\n"
				     "server_check_query = select 1 ; -- x\r\n"
				     "  ; indented comment\n"
				     "  verbose=1\n"
				     "[databases]\n"
				     "a = connect_query='a ; b' # c\n"
				     "[database b] ; comment\n"
				     "connect_query = 'it''s ; b' ; comment\n"
				     "host = x;y#z ; comment\n"
				     "user =   ; nothing\n"
				     "[PgWeave]\n"
				     "LISTEN_addr = ::1 ; comment");
	const struct settings *s = conf_settings(c);
	const struct conf_section *b = conf_section_find(c, "database", "b");

	(void)state;
	assert_string_equal(s->server_check_query, "select 1 ; -- x");
	assert_int_equal(s->verbose, 1);
	assert_string_equal(s->listen_addr, "::1");
	assert_string_equal(
	    conf_section(c, 0)->keys[0].value, "connect_query='a ; b' # c");
	assert_string_equal(b->keys[0].value, "it's ; b");
	assert_string_equal(b->keys[1].value, "x;y#z");
	assert_string_equal(b->keys[2].value, "");
	assert_string_equal(conf_setting_at(c, "listen_addr").file, "t.ini");
	assert_int_equal(conf_setting_at(c, "listen_addr").line, 13);
	assert_null(conf_setting_at(c, "user").file);
	conf_free(c);
}

static void
sections_are_joined(void **state)
{
	struct conf *c = expect_fine("[databases]\na = host=1\n[database x]\nhost = h\n"
				     "[databases]\n\"b \"\"=\" = host=2\n[pgweave]\n"
				     "[database \"x y\"]\n[database x]\nport = 1\n");

	(void)state;
	assert_int_equal(conf_section_count(c), 3);
	assert_int_equal(conf_section_find(c, "databases", NULL)->key_count, 2);
	assert_string_equal(conf_section(c, 0)->keys[1].key, "b \"=");
	assert_int_equal(conf_section_find(c, "database", "x")->key_count, 2);
	assert_int_equal(conf_section_find(c, "database", "x y")->key_count, 0);
	assert_int_equal(conf_section_find(c, "database", "x y")->at.line, 8);
	assert_null(conf_section_find(c, "users", NULL));
	conf_free(c);
}

static void
mistakes_name_their_line(void **state)
{
	(void)state;
	expect_problem("[pgweave]\n\nlisten_prt = 1\n",
	    "t.ini:3: listen_prt: no such key, did you mean \"listen_port\"?");
	expect_problem("[pgweave]\nfrobnicate = 1\n", "t.ini:2: frobnicate: no such key");
	expect_problem("[pgbouncer]\nlisten_port = x",
	    "t.ini:2: listen_port: \"x\" is not a number, allowed are 1 to 65535");
	expect_problem("[pgweave]\npool_size = 1\n",
	    "t.ini:2: pool_size: not known here, it belongs in [database x], [databases] or "
	    "[users]");
	expect_problem("[pgweave]\nauth_ldap_options = x\n",
	    "t.ini:2: auth_ldap_options: refused: logins through LDAP are not part of this "
	    "version");
	expect_problem("[pgweave]\nlisten_port 6432\n",
	    "t.ini:2: \"listen_port\": expected \"key = value\" or \"[section]\"");
	expect_problem("[pgweave]\n= 6432\n",
	    "t.ini:2: \"\": expected \"key = value\" or \"[section]\"");
	expect_problem("a = b\n",
	    "t.ini:1: a: stands before any section, [pgweave] must come first");
	/* What follows belongs nowhere, and is not said to be wrong. */
	expect_problem(
	    "[pgweave]\nverbose = 1\n[database x\nhost = y\nuser = z\n[users]\n",
	    "t.ini:3: the ] behind the section's name is missing");
	expect_problem("[users] x\n", "t.ini:1: \"x\": nothing may follow ]");
	expect_problem("[pgweave x]\n",
	    "t.ini:1: [pgweave x]: this section has no name, allowed is [pgweave]");
	expect_problem("[database x]\npassword = 'abc\n",
	    "t.ini:2: password: the closing ' is missing, or text follows it ('' stands "
	    "for ')");
	expect_problem("[database x]\npassword = 'a' b\n",
	    "t.ini:2: password: the closing ' is missing, or text follows it ('' stands "
	    "for ')");
	expect_problem("[pgweave]\nunix_socket_dir =\n",
	    "t.ini: listen_addr: nowhere to listen, allowed are listen_addr, "
	    "unix_socket_dir or both");
	expect_problem("[pgweave]\nclient_tls_sslmode = require\n",
	    "t.ini:2: client_tls_sslmode: TLS towards clients needs client_tls_key_file "
	    "and client_tls_cert_file");
	expect_problem("[pgweave]\nhttp_listen = banana\n",
	    "t.ini:2: http_listen: \"banana\" is not address:port, allowed are for example "
	    "127.0.0.1:6480, [::1]:6480 and *:6480");
	expect_problem("[pgweave]\nhttp_listen = [::1]:6480, :6480, a:b:1\n",
	    "t.ini:2: http_listen: \"a:b:1\" is not address:port, allowed are for example "
	    "127.0.0.1:6480, [::1]:6480 and *:6480");
	expect_problem("[pgweave]\nkey_prefix =\n",
	    "t.ini:2: key_prefix: \"\" cannot begin an id, allowed are 1 to 31 letters, "
	    "digits, _ and -");
	expect_problem("%include x\n", "t.ini:1: %include: not possible here");
	expect_problem("%exclude x\n", "t.ini:1: %: only %include FILE may follow");
	/* Nothing of the file steers a terminal. */
	expect_problem("[pgweave]\n\x1b[2J = 1\n", "t.ini:2: ?[2J: no such key");
}

static void
all_mistakes_are_reported(void **state)
{
	struct conf_problems p = {0};
	struct conf *c = load("[pgweave]\na b\nverbose = 9\nzz = 1\nlog_stats = 1\n", &p);

	(void)state;
	assert_int_equal(p.count, 3);
	assert_string_equal(
	    p.lines[1], "t.ini:3: verbose: \"9\" is out of range, allowed are 0 to 3");
	assert_string_equal(p.lines[2], "t.ini:4: zz: no such key");
	conf_problems_free(&p);
	conf_free(c);
}

static void
nul_bytes_are_a_problem(void **state)
{
	static const char text[] = "[pgweave]\nverbose = 1\0 2\n";
	struct conf_problems p = {0};
	struct conf *c = conf_load_text("t.ini", text, sizeof(text) - 1, &p);

	(void)state;
	assert_int_equal(p.count, 1);
	assert_string_equal(p.lines[0], "t.ini:2: the line has a NUL byte");
	conf_problems_free(&p);
	conf_free(c);
}

static void
what_deserves_a_word(void **state)
{
	struct conf_problems p = {0};
	struct conf *c = load("[pgbouncer]\nverbose = 1\n[pgweave]\nverbose = 2\n", &p);

	(void)state;
	assert_int_equal(p.count, 0);
	assert_int_equal(p.warning_count, 1);
	assert_string_equal(
	    p.warnings[0], "t.ini:4: verbose: given again, t.ini:2 no longer counts");
	assert_int_equal(conf_settings(c)->verbose, 2);
	conf_problems_free(&p);
	conf_free(c);
}

static void
the_environment_fills_in(void **state)
{
	struct conf *c;

	(void)state;
	assert_int_equal(setenv("PGWEAVE_TEST_A", "a ; 'b", 1), 0);
	assert_int_equal(unsetenv("PGWEAVE_TEST_B"), 0);
	c = expect_fine("[database x]\npassword = <${PGWEAVE_TEST_A}> ; c\n"
			"connect_query = $${x} $1 {y}\n"
			"[databases]\ny = password=${PGWEAVE_TEST_A}\n");
	assert_string_equal(conf_section(c, 0)->keys[0].value, "<a ; 'b>");
	assert_string_equal(conf_section(c, 0)->keys[1].value, "${x} $1 {y}");
	/* Replaced word by word, later. */
	assert_string_equal(
	    conf_section(c, 1)->keys[0].value, "password=${PGWEAVE_TEST_A}");
	conf_free(c);
	expect_problem("[database x]\nuser = y\npassword = ${PGWEAVE_TEST_B}\n",
	    "t.ini:3: password: the environment has no variable \"PGWEAVE_TEST_B\"; $${ "
	    "stands for ${");
	expect_problem("[pgweave]\nlogfile = ${A-B}\n",
	    "t.ini:2: logfile: ${ must be followed by the name of a variable and }; $${ "
	    "stands for ${");
}

/* ---- files ---- */

static void
includes_stand_where_they_are_written(void **state)
{
	struct conf_problems p = {0};
	char *path = in_dir("main.ini"), *sub;
	struct conf *c;
	const struct conf_section *s;

	(void)state;
	write_file("main.ini", "[databases]\na = host=1\n%include sub.ini\nc = host=3\n"
			       "[pgweave]\n%include port.ini\nverbose = 1\n");
	write_file("sub.ini", "b = host=2\n");
	write_file("port.ini", "listen_port = 7000\nverbos = 1\n");
	c = conf_load(path, &p);
	assert_non_null(c);
	s = conf_section_find(c, "databases", "");
	assert_int_equal(s->key_count, 3);
	assert_string_equal(s->keys[1].key, "b");
	sub = in_dir("sub.ini");
	assert_string_equal(s->keys[1].at.file, sub);
	assert_int_equal(s->keys[1].at.line, 1);
	assert_int_equal(s->keys[2].at.line, 4);
	assert_int_equal(conf_settings(c)->listen_port, 7000);
	assert_string_equal(conf_settings(c)->conffile, path);
	assert_int_equal(p.count, 1);
	assert_string_equal(p.lines[0] + strlen(dir),
	    "/port.ini:2: verbos: no such key, did you mean \"verbose\"?");
	conf_problems_free(&p);
	conf_free(c);
	free(path);
	free(sub);
	remove_file("main.ini");
	remove_file("sub.ini");
	remove_file("port.ini");
}

static void
includes_end(void **state)
{
	struct conf_problems p = {0};
	char *path = in_dir("a.ini"), *want;
	struct conf *c;

	(void)state;
	write_file("a.ini", "[users]\n%include b.ini\n%include none.ini\n%include .\n");
	write_file("b.ini", "\n%include a.ini\n");
	c = conf_load(path, &p);
	assert_int_equal(p.count, 3);
	want = mem_printf("%s/b.ini:2: %%include: %s/a.ini includes itself", dir, dir);
	assert_string_equal(p.lines[0], want);
	free(want);
	want = mem_printf("%s/a.ini:3: %%include: cannot read none.ini: No such file or "
			  "directory",
	    dir);
	assert_string_equal(p.lines[1], want);
	free(want);
	want = mem_printf(
	    "%s/a.ini:4: %%include: cannot read %s/.: Is a directory", dir, dir);
	assert_string_equal(p.lines[2], want);
	free(want);
	conf_problems_free(&p);
	conf_free(c);
	free(path);
	remove_file("a.ini");
	remove_file("b.ini");
}

static void
includes_have_a_depth(void **state)
{
	struct conf_problems p = {0};
	char *path = in_dir("d0"), *want, name[16];
	struct conf *c;

	(void)state;
	for (int i = 0; i <= 11; i++) {
		char text[64];

		snprintf(name, sizeof(name), "d%d", i);
		snprintf(text, sizeof(text), "%%include d%d\n", i + 1);
		write_file(name, i < 11 ? text : "[pgweave]\nverbose = 3\n");
	}
	c = conf_load(path, &p);
	assert_int_equal(p.count, 1);
	want = mem_printf("%s/d10:1: %%include: more than 10 files deep", dir);
	assert_string_equal(p.lines[0], want);
	free(want);
	assert_int_equal(conf_settings(c)->verbose, 0);
	conf_problems_free(&p);
	conf_free(c);
	for (int i = 0; i <= 11; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		remove_file(name);
	}
	free(path);
}

static void
a_missing_file_is_said(void **state)
{
	struct conf_problems p = {0};

	(void)state;
	assert_null(conf_load("/nowhere/x.ini", &p));
	assert_int_equal(p.count, 1);
	assert_string_equal(
	    p.lines[0], "/nowhere/x.ini: cannot read it: No such file or directory");
	conf_problems_free(&p);
}

static void
files_have_bounds(void **state)
{
	char *path = in_dir("f"), why[128], *text;
	size_t len;

	(void)state;
	write_file("f", "12345678");
	assert_null(conf_read_file(path, 7, false, &len, why, sizeof(why)));
	assert_string_equal(why, "it is larger than 7 bytes");
	text = conf_read_file(path, 8, false, &len, why, sizeof(why));
	assert_string_equal(text, "12345678");
	assert_int_equal(len, 8);
	free(text);
	remove_file("f");
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_null(conf_read_file(path, 8, false, &len, why, sizeof(why)));
	assert_string_equal(why, "it is not a regular file");
	remove_file("f");
	free(path);
}

/* ---- what is printed ---- */

/* Not inline: gcc 12 takes what fclose() has put into text for a pointer to text. */
__attribute__((noinline)) static char *
printed(void (*print)(void *))
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	print(f);
	assert_int_equal(fclose(f), 0);
	return (text);
}

static void
the_sample_can_be_read(void **state)
{
	char *text = printed(settings_print_sample), *p, *global;
	struct conf *c;

	(void)state;
	conf_free(expect_fine(text));
	/* With every default switched on it says the same. */
	global = strstr(text, "\n[pgweave]");
	assert_non_null(global);
	for (p = global; (p = strstr(p, "\n;")) != NULL; p++) {
		if (p[2] >= 'a' && p[2] <= 'z')
			p[1] = ' ';
	}
	c = expect_fine(global);
	for (size_t i = 0; i < setting_count; i++) {
		char value[1024];

		assert_non_null(conf_setting_at(c, setting_table[i].key).file);
		setting_text(conf_settings(c), &setting_table[i], value, sizeof(value));
		if (strcmp(setting_table[i].key, "conffile") != 0)
			assert_string_equal(value, setting_table[i].dflt);
	}
	conf_free(c);
	free(text);
}

static void
the_manual_has_every_key(void **state)
{
	char *text = printed(settings_print_manual), *want;

	(void)state;
	for (size_t i = 0; i < setting_count + word_count; i++) {
		want = mem_printf("\n.B %s\n", i < setting_count
						   ? setting_table[i].key
						   : word_table[i - setting_count].key);
		assert_non_null(strstr(text, want));
		free(want);
	}
	assert_null(strstr(text, "scram-sha"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(defaults_are_written_as_in_a_file),
	    cmocka_unit_test(keys_are_found_in_any_case_and_place),
	    cmocka_unit_test(times_take_units_and_fractions),
	    cmocka_unit_test(sizes_and_other_values),
	    cmocka_unit_test(wrong_values_are_explained),
	    cmocka_unit_test(a_reload_is_a_diff),
	    cmocka_unit_test(long_lines_and_names_arrive_whole),
	    cmocka_unit_test(comments_are_ours_alone),
	    cmocka_unit_test(sections_are_joined),
	    cmocka_unit_test(mistakes_name_their_line),
	    cmocka_unit_test(all_mistakes_are_reported),
	    cmocka_unit_test(nul_bytes_are_a_problem),
	    cmocka_unit_test(what_deserves_a_word),
	    cmocka_unit_test(the_environment_fills_in),
	    cmocka_unit_test(includes_stand_where_they_are_written),
	    cmocka_unit_test(includes_end),
	    cmocka_unit_test(includes_have_a_depth),
	    cmocka_unit_test(a_missing_file_is_said),
	    cmocka_unit_test(files_have_bounds),
	    cmocka_unit_test(the_sample_can_be_read),
	    cmocka_unit_test(the_manual_has_every_key),
	};

	return (cmocka_run_group_tests(tests, make_dir, remove_dir));
}
