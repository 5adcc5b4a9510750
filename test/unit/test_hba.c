/*
 * topo: auth_hba_file and auth_ident_file: what their lines mean, whom they let in, and the
 * sentence for each that is wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "topo.h"

static char dir[] = "/tmp/test_hba.XXXXXX";

static char *
path_of(const char *name)
{
	return (mem_printf("%s/%s", dir, name));
}

static void
write_file(const char *name, const char *text)
{
	char *path = path_of(name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

/* A snapshot with these rules and names; "DIR/" is cut from what is said. */
static struct topo *
build(const char *hba, const char *ident, struct buf *said)
{
	struct conf_problems p = {0};
	struct topo *t;
	char *text;

	write_file("hba", hba);
	write_file("ident", ident);
	text = mem_printf("[pgweave]\nauth_type = hba\nauth_hba_file = %s/hba\n"
			  "auth_ident_file = %s/ident\n"
			  "client_tls_ca_file = ca.crt\n[databases]\nbank = host=h\n",
	    dir, dir);
	t = topo_build(conf_load_text("t.ini", text, strlen(text), &p), &p);
	free(text);
	for (size_t i = 0; i < p.count; i++) {
		const char *line = p.lines[i];
		const char *at = strstr(line, dir);

		buf_addf(said, "%s\n", at == line ? line + sizeof(dir) : line);
	}
	buf_add(said, "", 1);
	conf_problems_free(&p);
	return (t);
}

static struct topo *
build_fine(const char *hba, const char *ident)
{
	struct buf said = {0};
	struct topo *t = build(hba, ident, &said);

	assert_string_equal((char *)said.mem, "");
	assert_non_null(t);
	buf_free(&said);
	return (t);
}

/* ---- lines that are right ---- */

/* The line of the file that is for them, or 0. from: an address, with "+tls" behind it; "local". */
static int
line_for(const struct topo *t, const char *from, const char *database, const char *user)
{
	struct topo_visit v = {.database = database, .user = user};
	const struct topo_rule *rule;
	char addr[64];

	text_copy(addr, sizeof(addr), from);
	if (strstr(addr, "+tls") != NULL) {
		v.has_tls = true;
		*strstr(addr, "+tls") = '\0';
	}
	if (inet_pton(AF_INET, addr, v.addr) == 1)
		v.family = AF_INET;
	else if (inet_pton(AF_INET6, addr, v.addr) == 1)
		v.family = AF_INET6;
	else
		assert_string_equal(addr, "local");
	if (strcmp(database, "(replication)") == 0)
		v.is_replication = true;
	if (strncmp(database, "bank.", 5) == 0)
		v.virtual_ = "bank";
	rule = topo_rule_find(t, &v);
	return (rule != NULL ? rule->at.line : 0);
}

static void
the_first_line_decides(void **state)
{
	static const struct {
		const char *from, *database, *user;
		int line;
	} rows[] = {
	    {"local", "shop", "alice", 3},
	    {"local", "shop", "root", 2},
	    {"10.1.2.3", "shop", "alice", 4},
	    {"10.1.2.3", "shop", "bob", 5},
	    {"::ffff:10.1.2.3", "shop", "alice", 4},
	    {"10.1.2.3", "other", "alice", 0},
	    {"10.1.2.3+tls", "other", "alice", 6},
	    {"10.2.0.1+tls", "other", "alice", 6},
	    {"10.2.0.1", "carol", "carol", 7},
	    {"10.2.0.1", "carol", "dave", 0},
	    {"10.2.0.1+tls", "carol", "carol", 6},
	    {"192.168.5.255", "bank", "x", 8},
	    {"192.168.6.0", "bank", "x", 0},
	    {"192.168.5.255", "bank.analytics", "x", 8},
	    {"2001:db8::1", "bank", "x", 9},
	    {"2001:db9::1", "bank", "x", 0},
	    {"10.9.9.9", "shard_17", "app_1", 10},
	    {"10.9.9.9", "shard_x", "app_1", 0},
	    {"10.9.9.9", "pool_a-]", "app_1", 10},
	    {"10.9.9.9", "shard_17", "xapp_1", 0},
	    {"10.9.9.9", "all", "all", 11},
	    {"10.9.9.9", "sameuser", "bob", 0},
	    {"10.9.9.9", "(replication)", "walker", 12},
	    {"10.9.9.9", "replication", "walker", 0},
	    {"172.16.0.9", "my db", "o'dd, one", 13},
	    {"172.16.0.9", "has\"quote", "o'dd, one", 13},
	    {"172.16.0.9", "pgweave", "boss", 15},
	    {"172.16.0.9", "pgbouncer", "boss", 15},
	    {"172.17.0.9", "mapped", "x", 16},
	    {"::ffff:172.17.0.9", "mapped", "x", 16},
	    {"172.18.0.9", "mapped", "x", 0},
	};
	struct topo *t = build_fine(
	    "# who may\n"
	    "local all root reject\n"
	    "local\tall all trust # on this machine\r\n"
	    "host shop alice 10.1.0.0/16 scram-sha-256\n"
	    "host shop,shop2 all 10.1.2.3 255.255.255.255 md5\n"
	    "hostssl all all 0.0.0.0/0 password\n"
	    "hostnossl sameuser all 10.2.0.0/16 md5\n"
	    "host bank, x all 192.168.5.0/24 md5\n"
	    "host bank all 2001:db8::/32 md5\n"
	    "host /^shard_[0-9]+$,/^pool_[[:alpha:]][-][]]$ \"/^app_\" 10.9.9.9/32 md5\n"
	    "host \"all\" \"all\" all md5\n"
	    "host replication walker 10.9.9.9/32 md5\n"
	    "host \"my db\",\"has\"\"quote\" \"o'dd, one\" \\\n"
	    " 172.16.0.0 255.255.0.0 md5\n"
	    "host pgbouncer boss all md5\n"
	    "host mapped x ::ffff:172.17.0.0/112 md5",
	    "");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int line = line_for(t, rows[i].from, rows[i].database, rows[i].user);

		if (line != rows[i].line)
			print_error(
			    "%s %s %s\n", rows[i].from, rows[i].database, rows[i].user);
		assert_int_equal(line, rows[i].line);
	}
	topo_release(t);
}

static void
this_machine_is_near_itself(void **state)
{
	struct topo *t = build_fine("host a all samehost trust\n"
				    "host b all samenet trust\n",
	    "");

	(void)state;
	assert_int_equal(line_for(t, "127.0.0.1", "a", "x"), 1);
	assert_int_equal(line_for(t, "127.0.0.2", "a", "x"), 0);
	assert_int_equal(line_for(t, "127.0.0.2", "b", "x"), 2);
	assert_int_equal(line_for(t, "203.0.113.9", "b", "x"), 0);
	topo_release(t);
}

static void
methods_and_options(void **state)
{
	static const struct {
		const char *line;
		enum auth_type method;
		const char *map;
		bool wants_cert, wants_name, by_subject;
	} rows[] = {
	    {"host all all all trust", AUTH_TRUST, NULL, false, false, false},
	    {"host all all all reject", AUTH_REJECT, NULL, false, false, false},
	    {"host all all all md5", AUTH_MD5, NULL, false, false, false},
	    {"host all all all scram-sha-256", AUTH_SCRAM, NULL, false, false, false},
	    {"host all all all password", AUTH_PLAIN, NULL, false, false, false},
	    {"local all all peer", AUTH_PEER, NULL, false, false, false},
	    {"local all all ident map=m", AUTH_PEER, "m", false, false, false},
	    {"local all all peer \"map=m\"", AUTH_PEER, "m", false, false, false},
	    {"hostssl all all all cert", AUTH_CERT, NULL, true, true, false},
	    {"hostssl all all all cert map=m clientname=DN", AUTH_CERT, "m", true, true,
		true},
	    {"hostssl all all all cert clientcert=verify-full clientname=CN", AUTH_CERT,
		NULL, true, true, false},
	    {"hostssl all all all md5 clientcert=verify-ca", AUTH_MD5, NULL, true, false,
		false},
	    {"hostssl all all all md5 clientcert=verify-full map=m", AUTH_MD5, "m", true,
		true, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct topo *t = build_fine(rows[i].line, "m x y\n");
		struct topo_visit v = {.database = "d", .user = "u"};
		const struct topo_rule *r;

		if (strncmp(rows[i].line, "local", 5) != 0) {
			v.family = AF_INET;
			v.has_tls = true;
		}
		r = topo_rule_find(t, &v);
		assert_non_null(r);
		assert_int_equal(r->method, rows[i].method);
		assert_int_equal(r->wants_cert, rows[i].wants_cert);
		assert_int_equal(r->wants_name, rows[i].wants_name);
		assert_int_equal(r->by_subject, rows[i].by_subject);
		if (rows[i].map == NULL)
			assert_null(r->map);
		else
			assert_string_equal(r->map, rows[i].map);
		topo_release(t);
	}
}

/* ---- files in files ---- */

static void
files_stand_for_words_and_lines(void **state)
{
	struct topo *t;

	(void)state;
	write_file("names", "alice, bob # these\n\n\"carol\"\n@more\n");
	write_file("more", "dave\n");
	write_file("part", "host p all 1.2.3.4/32 md5\n");
	t = build_fine("include part\n"
		       "include_if_exists nowhere\n"
		       "host all @names,erin all md5\n",
	    "");
	assert_int_equal(line_for(t, "9.9.9.9", "d", "alice"), 3);
	assert_int_equal(line_for(t, "9.9.9.9", "d", "carol"), 3);
	assert_int_equal(line_for(t, "9.9.9.9", "d", "dave"), 3);
	assert_int_equal(line_for(t, "9.9.9.9", "d", "erin"), 3);
	assert_int_equal(line_for(t, "9.9.9.9", "d", "frank"), 0);
	assert_int_equal(line_for(t, "1.2.3.4", "p", "frank"), 1);
	topo_release(t);
}

/* ---- lines that are wrong ---- */

static void
every_broken_line_has_its_sentence(void **state)
{
	static const char *const rows[][2] = {
	    {"hots all all all md5",
		"hba:1: \"hots\" begins no line, allowed are local, host, hostssl, "
		"hostnossl\n"},
	    {"hostgssenc all all all md5",
		"hba:1: lines of hostgssenc are not supported: there is no GSSAPI\n"},
	    {"local", "hba:1: the databases are missing\n"},
	    {"local all", "hba:1: the users are missing\n"},
	    {"local all all", "hba:1: the method is missing\n"},
	    {"host all all", "hba:1: the address is missing\n"},
	    {"host all all 10.0.0.1",
		"hba:1: 10.0.0.1: neither /bits nor a mask behind the address\n"},
	    {"host all all 10.0.0.1 md5",
		"hba:1: 10.0.0.1: \"md5\" is no mask for that address\n"},
	    {"host all all 10.0.0.1 ffff:: md5",
		"hba:1: 10.0.0.1: \"ffff::\" is no mask for that address\n"},
	    {"host all all 10.0.0.1/33 md5",
		"hba:1: \"10.0.0.1/33\": what stands behind / is a number of bits, up to "
		"32\n"},
	    {"host all all ::1/129 md5",
		"hba:1: \"::1/129\": what stands behind / is a number of bits, up to "
		"128\n"},
	    {"host all all 10.0.0.1/ md5",
		"hba:1: \"10.0.0.1/\": what stands behind / is a number of bits, up to "
		"32\n"},
	    {"host all all 10.0.0/8 md5", "hba:1: \"10.0.0/8\" is no network\n"},
	    {"host all all db.example.org md5",
		"hba:1: \"db.example.org\" is no address: host names are not supported, "
		"since each login would wait for a look-up\n"},
	    {"host all all .example.org md5",
		"hba:1: \".example.org\" is no address: host names are not supported, "
		"since each login would wait for a look-up\n"},
	    {"host all all 1.1.1.1/32,2.2.2.2/32 md5",
		"hba:1: the address is one word, not a list\n"},
	    {"host all +staff all md5",
		"hba:1: +staff is not supported: who is in a group is known to the "
		"servers alone: name the logins\n"},
	    {"host samerole all all md5",
		"hba:1: samerole is not supported: who is in a role is known to the "
		"servers alone: use sameuser, or name the databases\n"},
	    {"host all all all md6",
		"hba:1: there is no method \"md6\", allowed are trust, reject, md5, "
		"scram-sha-256, password, cert, peer, did you mean \"md5\"?\n"},
	    {"host all all all ldap",
		"hba:1: method ldap is not supported: logins through LDAP are not part "
		"of this version\n"},
	    {"host all all all gss",
		"hba:1: method gss is not supported: there is no GSSAPI\n"},
	    {"host all all all peer", "hba:1: method peer is for lines of local\n"},
	    {"host all all all ident",
		"hba:1: method ident is supported on lines of local, where it is peer; "
		"ident servers are not asked\n"},
	    {"host all all all cert", "hba:1: method cert is for lines of hostssl\n"},
	    {"host all all all md5 clientcert=verify-ca",
		"hba:1: clientcert is for lines of hostssl\n"},
	    {"hostssl all all all md5 clientcert=1",
		"hba:1: clientcert: \"1\" is none of verify-ca, verify-full\n"},
	    {"hostssl all all all cert clientcert=verify-ca",
		"hba:1: clientcert: with method cert it can only be verify-full\n"},
	    {"host all all all md5 map=m",
		"hba:1: map is for methods cert and peer, and for "
		"clientcert=verify-full\n"},
	    {"host all all all md5 what",
		"hba:1: \"what\": expected an option, name=value\n"},
	    {"host all /( all md5",
		"hba:1: invalid regular expression \"(\": Unmatched ( or \\(\n"},
	    {"host all /^\\d+$ all md5",
		"hba:1: the regular expression \"^\\d+$\" has an escape other than \\w "
		"\\W \\s \\S, which is not supported\n"},
	    {"host all /^[\\w.]+$ all md5",
		"hba:1: the regular expression \"^[\\w.]+$\" has a \\ in brackets, which "
		"is not supported\n"},
	    {"host all /^[^][:alpha:][\\]]$ all md5",
		"hba:1: the regular expression \"^[^][:alpha:][\\]]$\" has a \\ in "
		"brackets, which is not supported\n"},
	    {"host all /[[](?:x) all md5",
		"hba:1: the regular expression \"[[](?:x)\" has (?, which is not "
		"supported\n"},
	    {"host all /\\<x all md5",
		"hba:1: the regular expression \"\\<x\" has an escape other than \\w "
		"\\W \\s \\S, which is not supported\n"},
	    {"host all /[[:al all md5",
		"hba:1: invalid regular expression \"[[:al\": Unmatched [, [^, [:, [., "
		"or [=\n"},
	    {"host all /(?i)x all md5",
		"hba:1: the regular expression \"(?i)x\" has (?, which is not "
		"supported\n"},
	    {"# fine\n\nhost all \"all all md5\nlocal all all md5\n",
		"hba:3: a quote (\") has no end\n"},
	    {"local all all md5\nlocal all \\\n all \\\n md6",
		"hba:2: there is no method \"md6\", allowed are trust, reject, md5, "
		"scram-sha-256, password, cert, peer, did you mean \"md5\"?\n"},
	    {"include_dir x",
		"hba:1: include_dir is not supported: name each file with include\n"},
	    {"include a b", "hba:1: include needs the name of one file\n"},
	    {"local x y z\nlocal a b c\n",
		"hba:1: there is no method \"z\", allowed are trust, reject, md5, "
		"scram-sha-256, password, cert, peer\n"
		"hba:2: there is no method \"c\", allowed are trust, reject, md5, "
		"scram-sha-256, password, cert, peer\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf said = {0};
		struct topo *t = build(rows[i][0], "", &said);

		assert_string_equal((char *)said.mem, rows[i][1]);
		assert_null(t);
		buf_free(&said);
	}
}

static void
files_that_go_round_are_refused(void **state)
{
	struct buf said = {0};

	(void)state;
	write_file("round", "include round\n");
	assert_null(build("include round\n", "", &said));
	assert_non_null(
	    strstr((char *)said.mem, "round:1: round: files in files, more than "
				     "10 deep"));
	buf_free(&said);
	assert_null(build("include nowhere\nhost all @nobody all md5\n", "", &said));
	assert_non_null(strstr((char *)said.mem, "hba:1: cannot read nowhere: "));
	assert_non_null(strstr((char *)said.mem, "hba:2: cannot read nobody: "));
	buf_free(&said);
}

/* What else must be there. */
static void
settings_that_are_missing(void **state)
{
	static const char *const rows[][2] = {
	    {"auth_type = hba", "t.ini:2: auth_type: hba needs auth_hba_file"},
	    {"auth_type = cert",
		"t.ini:2: auth_type: cert needs client_tls_sslmode = verify-ca or "
		"verify-full"},
	    {"auth_type = cert\nclient_tls_sslmode = verify-ca\nclient_tls_key_file = k\n"
	     "client_tls_cert_file = c",
		"t.ini:2: auth_type: cert needs client_tls_ca_file"},
	    {"auth_dbname = nowhere",
		"t.ini:2: auth_dbname: there is no database \"nowhere\", allowed are "
		"bank"},
	    {"auth_dbname = pgbouncer",
		"t.ini:2: auth_dbname: \"pgbouncer\" is the console"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *text =
		    mem_printf("[pgweave]\n%s\n[databases]\nbank = host=h\n", rows[i][0]);
		struct conf_problems p = {0};

		assert_null(
		    topo_build(conf_load_text("t.ini", text, strlen(text), &p), &p));
		assert_int_not_equal(p.count, 0);
		assert_string_equal(p.lines[0], rows[i][1]);
		conf_problems_free(&p);
		free(text);
	}
}

/* ---- names ---- */

static void
names_map_to_logins(void **state)
{
	static const struct {
		const char *map, *name, *login;
		bool fits;
	} rows[] = {
	    {NULL, "alice", "alice", true},
	    {NULL, "alice", "bob", false},
	    {"m", "root", "alice", true},
	    {"m", "root", "bob", true},
	    {"m", "root", "carol", false},
	    {"m", "carol@example.org", "carol", true},
	    {"m", "carol@example.org", "caro", false},
	    {"m", "carol@example.org", "carol@example.org", false},
	    {"m", "carol@example.org.evil", "carol", false},
	    {"m", "@example.org", "", true},
	    {"m", "deploy", "anybody", true},
	    {"m", "tom", "t_tom_x", true},
	    {"m", "tom", "t_tom", false},
	    {"m", "tom", "t_", false},
	    {"m", "ops", "svc_1", true},
	    {"m", "ops", "svc", false},
	    {"q", "deploy", "all", true},
	    {"q", "deploy", "x", false},
	    {"none", "alice", "alice", false},
	};
	struct topo *t = build_fine("local all all peer map=m\n",
	    "m root alice\n"
	    "m root bob\n"
	    "m /^(.*)@example\\.org$ \\1 # mail\n"
	    "m deploy all\n"
	    "m /^(t[a-z]+)$ t_\\1_x\n"
	    "m ops /^svc_[0-9]$\n"
	    "q deploy \"all\"\n");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool fits = topo_name_maps(t, rows[i].map, rows[i].name, rows[i].login);

		if (fits != rows[i].fits)
			print_error("%s %s\n", rows[i].name, rows[i].login);
		assert_int_equal(fits, rows[i].fits);
	}
	topo_release(t);
}

static void
broken_maps_have_their_sentences(void **state)
{
	static const char *const rows[][2] = {
	    {"m root",
		"ident:1: expected a map, a name of the system, and a login, found 2 "
		"words\n"},
	    {"m a b c",
		"ident:1: expected a map, a name of the system, and a login, found 4 "
		"words\n"},
	    {"m a,b c", "ident:1: the name of the system is one word, not a list\n"},
	    {"m a +staff",
		"ident:1: +staff is not supported: who is in a group is known to the "
		"servers alone\n"},
	    {"m /( x", "ident:1: invalid regular expression \"(\": Unmatched ( or \\(\n"},
	    {"m x \\1",
		"ident:1: \\1 needs a regular expression with ( ) for the name of the "
		"system\n"},
	    {"m /x \\1",
		"ident:1: \\1 needs a regular expression with ( ) for the name of the "
		"system\n"},
	    {"m /(x) /(",
		"ident:1: invalid regular expression \"(\": Unmatched ( or \\(\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf said = {0};

		assert_null(build("local all all trust\n", rows[i][0], &said));
		assert_string_equal((char *)said.mem, rows[i][1]);
		buf_free(&said);
	}
}

static int
remove_dir(void **state)
{
	static const char *const names[] = {
	    "hba", "ident", "names", "more", "part", "round"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path = path_of(names[i]);

		(void)remove(path);
		free(path);
	}
	return (remove(dir));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_first_line_decides),
	    cmocka_unit_test(this_machine_is_near_itself),
	    cmocka_unit_test(methods_and_options),
	    cmocka_unit_test(files_stand_for_words_and_lines),
	    cmocka_unit_test(every_broken_line_has_its_sentence),
	    cmocka_unit_test(files_that_go_round_are_refused),
	    cmocka_unit_test(settings_that_are_missing),
	    cmocka_unit_test(names_map_to_logins),
	    cmocka_unit_test(broken_maps_have_their_sentences),
	};

	if (mkdtemp(dir) == NULL)
		return (1);
	return (cmocka_run_group_tests(tests, NULL, remove_dir));
}
