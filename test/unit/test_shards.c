/* Shard functions: hash as PostgreSQL's, ranges, lists; keys of all types; what is refused. */
#include "route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Lines 1 to 12. */
#define HEAD                                                                             \
	"[pgweave]\nauth_type = trust\nlisten_addr = 127.0.0.1\n"                        \
	"[databases]\np = host=p\ns = host=s\na = host=a\n"                              \
	"[virtual bank]\nmembers = p, s, a\n"
#define UUID_LOW  "00000000-0000-0000-0000-000000000000"
#define UUID_HALF "80000000-0000-0000-0000-000000000000"

static struct topo *
build(const char *text, struct conf_problems *p)
{
	return (topo_build(conf_load_text("t.ini", text, strlen(text), p), p));
}

/* The group of shards that these lines describe. */
static struct topo *
shard_of(const char *lines, const struct topo_shard **out)
{
	struct conf_problems p = {0};
	char *text = mem_printf(HEAD "[shard bank]\ntables = t\nkey = k\n%s", lines);
	struct topo *t = build(text, &p);

	for (size_t i = 0; i < p.count; i++)
		print_error("%s\n", p.lines[i]);
	assert_non_null(t);
	*out = topo_virtual(t, 0)->shards;
	conf_problems_free(&p);
	free(text);
	return (t);
}

static void
expect_problem(const char *lines, const char *want)
{
	struct conf_problems p = {0};
	char *text = mem_printf(HEAD "[shard bank]\ntables = t\nkey = k\n%s", lines);

	if (build(text, &p) != NULL)
		fail_msg("no problem: %s", lines);
	if (p.count != 1 || strstr(p.lines[0], want) == NULL)
		fail_msg("%s", p.lines[0]);
	conf_problems_free(&p);
	free(text);
}

/* ---- placement ---- */

static void
expect_places(const char *lines, const char *const (*rows)[2], size_t count)
{
	const struct topo_shard *s;
	struct topo *t = shard_of(lines, &s);

	for (size_t i = 0; i < count; i++) {
		struct topo_shard_value v;
		uint8_t room[16];
		const char *got = "wrong";
		int place;

		if (topo_shard_read(s->type, rows[i][0], strlen(rows[i][0]), room, &v)) {
			place = topo_shard_place(s, &v);
			got = place < 0 ? "none" : s->members[place]->name;
		}
		if (strcmp(got, rows[i][1]) != 0)
			fail_msg("%s: %s -> %s", lines, rows[i][0], got);
	}
	topo_release(t);
}
#define PLACES(lines, ...)                                                               \
	do {                                                                             \
		static const char *const rows[][2] = {__VA_ARGS__};                      \
		expect_places(lines, rows, ARRAY_LEN(rows));                             \
	} while (0)

/* What satisfies_hash_partition() of PostgreSQL 15 says; modulus 3. */
static void
test_hash(void **state)
{
	(void)state;
	PLACES("function = hash\nmembers = p, s, a\n", {"0", "a"}, {"1", "a"}, {"2", "p"},
	    {"-1", "a"}, {"42", "p"}, {"2147483648", "p"}, {"-2147483649", "s"},
	    {"9223372036854775807", "p"}, {"-9223372036854775808", "s"});
	PLACES("function = hash\nkey_type = bigint\nmembers = p, s, a\n", {"0", "a"},
	    {"1", "a"}, {"2", "p"}, {"-1", "a"}, {"42", "p"}, {"2147483648", "p"},
	    {"-2147483649", "s"}, {"9223372036854775807", "p"},
	    {"-9223372036854775808", "s"});
	PLACES("function = hash\nkey_type = text\nmembers = p, s, a\n", {"", "a"},
	    {"a", "a"}, {"abcd", "a"}, {"abcde", "s"}, {"abcdefgh", "a"},
	    {"abcdefghi", "s"}, {"abcdefghijk", "p"}, {"abcdefghijkl", "s"},
	    {"abcdefghijklm", "s"}, {"the quick brown fox jumps", "a"}, {"é€", "p"});
	PLACES("function = hash\nkey_type = char\nmembers = p, s, a\n", {"  ", "a"},
	    {"a  ", "a"}, {"abcde  ", "s"}, {"xyz  ", "p"});
	PLACES("function = hash\nkey_type = uuid\nmembers = p, s, a\n",
	    {"00000000-0000-0000-0000-000000000000", "p"},
	    {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "s"},
	    {"ffffffff-ffff-ffff-ffff-ffffffffffff", "s"},
	    {"12345678-1234-1234-1234-123456789abc", "s"});
}

static void
test_ranges(void **state)
{
	(void)state;
	PLACES(
	    "function = range\nranges = 1000..: s, 0..999: p, -10..-1: a, ..<-100: a\n",
	    {"0", "p"}, {"999", "p"}, {"1000", "s"}, {"9223372036854775807", "s"},
	    {"-1", "a"}, {"-10", "a"}, {"-11", "none"}, {"-100", "none"}, {"-101", "a"},
	    {"-9223372036854775808", "a"}, {"9223372036854775808", "wrong"},
	    {"-9223372036854775809", "wrong"}, {"1.0", "wrong"}, {"", "wrong"},
	    {"-", "wrong"});
	PLACES("function = range\nranges = 5 .. 5 : a, 7..<8: P\n", {"4", "none"},
	    {"5", "a"}, {"6", "none"}, {"7", "p"}, {"8", "none"});
	PLACES(
	    "function = range\nkey_type = text\nranges = ..<m: p, m..<\"n:,\"\"..\": s\n",
	    {"", "p"}, {"lz", "p"}, {"m", "s"}, {"mz", "s"}, {"n:,\"", "s"},
	    {"n:,\"..", "none"}, {"M", "p"});
	PLACES("function = range\nkey_type = uuid\nranges = ..<" UUID_HALF
	       ": p, " UUID_HALF "..: s\n",
	    {UUID_LOW, "p"}, {UUID_HALF, "s"}, {"7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", "p"},
	    {"{ffffffff-ffff-ffff-ffff-ffffffffffff}", "s"}, {"8", "wrong"},
	    {UUID_LOW "0", "wrong"}, {"0-0000000-0000-0000-0000-000000000000", "wrong"});
	/* The members' order may be said. */
	PLACES("function = range\nmembers = s, p\nranges = ..0: p, 1..: s\n", {"0", "p"},
	    {"1", "s"});
}

static void
test_lists(void **state)
{
	(void)state;
	PLACES(
	    "function = list\nkey_type = text\nlists = DE AT: p, FR \"New York\": s, \"*\": a\n",
	    {"DE", "p"}, {"AT", "p"}, {"FR", "s"}, {"New York", "s"}, {"*", "a"},
	    {"de", "none"}, {"DE ", "none"}, {"", "none"});
	PLACES("function = list\nkey_type = char\nlists = DE: p, \"FR  \": s, *: a\n",
	    {"DE  ", "p"}, {"FR", "s"}, {"XX", "a"});
	PLACES("function = list\nlists = 1 -2 3: p, 4: s\n", {"-2", "p"}, {"4", "s"},
	    {"2", "none"});
}

static void
test_wrong_configuration(void **state)
{
	(void)state;
	expect_problem("key_type = text\nmembers = p, s\n",
	    "key_type: text is no number, which function modulo needs");
	expect_problem("function = range\n", "ranges: missing, allowed is low..high");
	expect_problem("function = list\n", "lists: missing, allowed is value");
	expect_problem("function = hash\n", "members: missing");
	expect_problem("function = hash\nmembers = p\nranges = 1..: p\n",
	    "t.ini:15: ranges: not for function hash, allowed is range");
	expect_problem("function = range\nranges = 0..9: p, 9..: s\n",
	    "ranges: 9 stands there twice, allowed is once");
	expect_problem("function = range\nranges = ..5: p, ..9: s\n",
	    "two ranges have no lower end");
	expect_problem(
	    "function = range\nranges = 0..: p, 10..: s\n", "10 stands there twice");
	expect_problem("function = range\nranges = 9..0: p\n",
	    "\"9..0: p\" has nothing in it, allowed is low..high: member");
	expect_problem("function = range\nranges = 5..<5: p\n", "has nothing in it");
	expect_problem("function = range\nranges = 5: p\n", "has no two dots");
	expect_problem("function = range\nranges = 0..9 x: p\n", "is no range");
	expect_problem("function = range\nranges = 0..<: p\n", "is no range");
	expect_problem("function = range\nranges = 0..9\n", "has no colon");
	expect_problem("function = range\nranges = 0..9:\n", "names no member");
	expect_problem("function = range\nranges = 0..z: p\n",
	    "ranges: \"z\" is no integer, allowed is one");
	expect_problem("function = range\nranges = 0..9: x\n",
	    "ranges: there is no member \"x\", allowed are p, s, a");
	expect_problem("function = range\nmembers = p\nranges = 0..9: s\n",
	    "ranges: there is no member \"s\", allowed are p");
	expect_problem("function = list\nkey_type = text\nlists = DE AT: p, FR DE: s\n",
	    "lists: \"DE\" stands there twice, allowed is once");
	expect_problem("function = list\nkey_type = uuid\nlists = DE: p\n",
	    "lists: \"DE\" is no uuid, allowed is one");
	expect_problem("function = list\nlists = : p\n", "is no list of values");
	expect_problem("function = list\nlists = *: p, *: s\n", "stands there twice");
}

/* ---- routing ---- */

static const char config[] = HEAD
    "[shard bank users]\ntables = users\nkey = id\nfunction = range\n"
    "ranges = 1..99: p, 100..199: s\n"
    "[shard bank places]\ntables = places\nkey = country\nkey_type = text\n"
    "function = list\nlists = DE AT: p, FR 7: s\n"
    "[shard bank files]\ntables = files\nkey = id\nkey_type = uuid\n"
    "function = list\nlists = " UUID_LOW ": p, " UUID_HALF ": s\n"
    "[shard bank codes]\ntables = codes\nkey = code\nkey_type = char\n"
    "function = list\nlists = A: p, B: s\n"
    "[virtual mixed]\nmembers = a, p, s\n"
    "[shard mixed texts]\ntables = texts\nkey = id\nkey_type = text\nfunction = list\n"
    "lists = 42: s\n[shard mixed]\ntables = users\nkey = id\nmembers = p, s\n"
    "[virtual later]\nmembers = a, p, s\n"
    "[shard later]\ntables = files\nkey = id\nkey_type = uuid\nfunction = hash\n"
    "members = p, s\n"
    "[shard later texts]\ntables = texts\nkey = id\nkey_type = text\nfunction = list\n"
    "lists = 42: s\n";

struct row {
	const char *sql, *want, *says;
	struct route_datum d; /* p NULL: not known yet */
	const char *shard_key;
	const struct topo_key *key;
	const char *virt;
};

static bool
param(void *arg, unsigned n, struct route_datum *out)
{
	const struct row *row = arg;

	*out = row->d;
	return (n == 1 && row->d.p != NULL);
}

static void
check(const struct topo *t, struct sql_cache *cache, const struct row *row)
{
	struct route_input in = {.param = param, .arg = (void *)(uintptr_t)row};
	struct route_plan plan;
	struct sql_scan scan;
	char got[64] = "";

	sql_scan(row->sql, strlen(row->sql), &scan);
	in.virt = topo_virtual_find(t, row->virt != NULL ? row->virt : "bank");
	in.key = row->key;
	in.scan = &scan;
	in.facts = sql_facts_get(cache, &scan);
	in.session.shard_key = row->shard_key;
	in.wants_notes = true;
	route_plan(&in, &plan);
	if (plan.way == ROUTE_REFUSED)
		(void)text_copy(got, sizeof(got), plan.sqlstate);
	for (unsigned i = 0; plan.way != ROUTE_REFUSED && i < plan.leg_count; i++)
		(void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s",
		    i > 0 ? " " : "", plan.legs[i].member->name);
	if (strcmp(got, row->want) != 0)
		fail_msg("%s: %s, %s", row->sql, got, plan.message);
	if (row->says != NULL && strstr(plan.message, row->says) == NULL &&
	    strstr(plan.detail, row->says) == NULL &&
	    strstr(plan.hint, row->says) == NULL &&
	    strstr(plan.notes[ROUTE_BY_SHARD].text, row->says) == NULL)
		fail_msg("%s: %s %s %s %s", row->sql, plan.message, plan.detail,
		    plan.hint, plan.notes[ROUTE_BY_SHARD].text);
	sql_scan_free(&scan);
}

#define ROW(text, result, ...)                                                           \
	{                                                                                \
		.sql = text, .want = result, __VA_ARGS__                                 \
	}
#define TEXT(text, oid)                                                                  \
	{                                                                                \
		.p = (const uint8_t *)(text), .len = sizeof(text) - 1, .type = (oid)     \
	}
#define BINARY(text, oid)                                                                \
	{                                                                                \
		.p = (const uint8_t *)(text), .len = sizeof(text) - 1, .type = (oid),    \
		.is_binary = true                                                        \
	}
#define NULL_DATUM                                                                       \
	{                                                                                \
		.p = (const uint8_t *)"", .is_null = true                                \
	}
static const struct topo_key user_42 = {
    .id = "vb_42", .type = TOPO_KEY_DATABASE, .has_user_id = true, .user_id = 42};
static const struct topo_key user_150 = {
    .id = "vb_150", .type = TOPO_KEY_DATABASE, .has_user_id = true, .user_id = 150};
static const struct topo_key user_500 = {
    .id = "vb_500", .type = TOPO_KEY_DATABASE, .has_user_id = true, .user_id = 500};

static const struct row rows[] = {
    ROW("SELECT 1 FROM users WHERE id = 99", "p", .says = "users by range of id -> p"),
    ROW("SELECT 1 FROM users WHERE id IN (100, 199)", "s"),
    ROW("SELECT 1 FROM users WHERE id = ANY(ARRAY[1, 100])", "p s"),
    ROW("SELECT 1 FROM users WHERE id = $1", "s", .d = BINARY("\0\0\0\x96", 23)),
    ROW("SELECT 1 FROM users WHERE id = $1", "s", .d = TEXT("150", 20)),
    ROW("INSERT INTO users (id) VALUES (1), (2)", "p"),
    ROW("INSERT INTO users (id) VALUES (1), (100)", "p s"),
    /* Without a shard: a read finds nothing, anywhere; a write is a mistake. */
    ROW("SELECT 1 FROM users WHERE id = 200", "p"),
    ROW("SELECT 1 FROM users WHERE id IN (200, 150)", "s"),
    ROW("SELECT 1 FROM users WHERE id = -1", "p"),
    ROW("INSERT INTO users (id) VALUES (200)", "23514",
	.says = "no shard of table \"users\" found for row"),
    ROW("INSERT INTO users (id) VALUES (-1)", "23514", .says = "(id) = (-1)"),
    ROW("INSERT INTO users (id) VALUES (1), (200)", "23514"),
    ROW("INSERT INTO users (id) VALUES ($1)", "23514", .says = "ranges",
	.d = BINARY("\0\0\0\0", 23)),
    ROW("UPDATE users SET a = 1 WHERE id = 200", "23514", .says = "for this value"),
    ROW("DELETE FROM users WHERE id = 200", "23514"),
    ROW("INSERT INTO users (id) VALUES (NULL)", "22004"),
    ROW("INSERT INTO users (id) VALUES ($1)", "22004", .d = NULL_DATUM),
    ROW("SELECT 1 FROM users WHERE id = 9223372036854775808", "22003", .says = "users"),
    ROW("SELECT 1 FROM users WHERE id = 'x'", "22P02", .says = "must be an integer"),
    ROW("SELECT 1 FROM users", "p s"),
    ROW("SELECT 1 FROM users", "s", .shard_key = "100"),
    ROW("SELECT 1 FROM users", "22023", .shard_key = "200", .says = "No shard by \"id\""),
    ROW("SELECT 1 FROM users", "22023", .shard_key = "DE", .says = "must be an integer"),
    /* text */
    ROW("SELECT 1 FROM places WHERE country = 'AT'", "p", .says = "list of country"),
    ROW("SELECT 1 FROM places WHERE country IN ('AT', 'FR', 'XX')", "p s"),
    ROW("SELECT 1 FROM places WHERE country = $1", "s", .d = TEXT("FR", 25)),
    ROW("SELECT 1 FROM places WHERE country = $1", "s", .d = BINARY("FR", 1043)),
    ROW("SELECT 1 FROM places WHERE country = $1", "s", .d = TEXT("FR  ", 1042)),
    ROW("SELECT 1 FROM places WHERE country = $1", "s", .d = TEXT("FR", 20000)),
    ROW("SELECT 1 FROM places WHERE country = $1", "22P02", .d = TEXT("FR", 1082)),
    ROW("SELECT 1 FROM places WHERE country = 'XX'", "p"),
    ROW("INSERT INTO places (country) VALUES ('XX')", "23514",
	.says = "(country) = (XX)"),
    ROW("INSERT INTO places (country) VALUES (7)", "s"),
    ROW("INSERT INTO places (country) VALUES (7.0)", "22P02", .says = "must be a text"),
    ROW("INSERT INTO places (country) VALUES ($1)", "s", .d = BINARY("\0\7", 21)),
    ROW("INSERT INTO places (country) VALUES ($1)", "22P02", .says = "must be a text",
	.d = BINARY("\x40\x1c\0\0\0\0\0\0", 701)),
    ROW("SELECT 1 FROM places", "s", .shard_key = "FR"),
    /* char */
    ROW("SELECT 1 FROM codes WHERE code = 'B   '", "s"),
    ROW("SELECT 1 FROM codes WHERE code = $1", "s", .d = TEXT("B ", 0)),
    /* uuid */
    ROW("SELECT 1 FROM files WHERE id = '" UUID_HALF "'", "s"),
    ROW("SELECT 1 FROM files WHERE id = '" UUID_HALF "'::uuid", "s"),
    ROW("SELECT 1 FROM files WHERE id = '{80000000000000000000000000000000}'", "s"),
    ROW("SELECT 1 FROM files WHERE id = $1", "s", .d = TEXT(UUID_HALF, 2950)),
    ROW("SELECT 1 FROM files WHERE id = $1", "s",
	.d = BINARY("\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 2950)),
    ROW("SELECT 1 FROM files WHERE id = $1", "22P02", .says = "not that of a uuid",
	.d = BINARY("\x80\0\0\0", 2950)),
    ROW("SELECT 1 FROM files WHERE id = 42", "22P02", .says = "must be a uuid"),
    ROW("SELECT 1 FROM files WHERE id = 'x'", "22P02", .says = "\"x\""),
    /* The user of a database key, by the first function that takes a number. */
    ROW("SELECT 1", "p", .key = &user_42),
    ROW("SELECT 1", "s", .key = &user_150),
    ROW("SELECT 1", "42501", .key = &user_500, .says = "user id is 500"),
    ROW("SELECT 1", "p", .key = &user_42, .virt = "mixed"),
    ROW("SELECT 1", "p", .key = &user_150, .virt = "mixed"),
    ROW("SELECT 1", "s", .key = &user_42, .virt = "later"),
    ROW("SELECT 1", "42501", .key = &user_150, .virt = "later"),
};

static void
test_routing(void **state)
{
	struct conf_problems p = {0};
	struct topo *t = build(config, &p);
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	assert_int_equal(p.count, 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		check(t, cache, &rows[i]);
	sql_cache_destroy(cache);
	conf_problems_free(&p);
	topo_release(t);
}

static void
test_settings_and_homes(void **state)
{
	struct conf_problems p = {0};
	struct topo *t = build(config, &p);
	const struct topo_virtual *v = topo_virtual_find(t, "bank");
	struct route_datum null = NULL_DATUM, one = TEXT("1", 0), far = TEXT("200", 0),
			   wide = TEXT("9223372036854775808", 0), word = TEXT("x", 0);
	char sqlstate[6], message[200], detail[200];

	(void)state;
#define CHECK(virt, key, value)                                                          \
	route_check_setting(virt, key, "shard_key", value, sqlstate, message,            \
	    sizeof(message), detail, sizeof(detail))
	assert_true(CHECK(v, NULL, "1"));
	assert_true(CHECK(v, NULL, "FR"));
	assert_true(CHECK(v, NULL, UUID_HALF));
	assert_false(CHECK(v, NULL, "200"));
	assert_string_equal(detail, "No shard has a value like this.");
	assert_false(CHECK(v, &user_500, "1"));
	assert_string_equal(sqlstate, "42501");
	v = topo_virtual_find(t, "later");
	assert_false(CHECK(v, NULL, "x"));
	assert_string_equal(sqlstate, "22023");
	v = topo_virtual_find(t, "bank");
	assert_int_equal(route_home_of(&v->shards[0], &one), 0);
	assert_int_equal(route_home_of(&v->shards[0], &far), ROUTE_HOME_NONE);
	assert_int_equal(route_home_of(&v->shards[0], &null), ROUTE_HOME_NULL);
	assert_int_equal(route_home_of(&v->shards[0], &word), ROUTE_HOME_WRONG);
	assert_int_equal(route_home_of(&v->shards[0], &wide), ROUTE_HOME_RANGE);
	conf_problems_free(&p);
	topo_release(t);
}

static int
finish(void **state)
{
	(void)state;
	topo_verdicts_free();
	return (0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_hash),
	    cmocka_unit_test(test_ranges),
	    cmocka_unit_test(test_lists),
	    cmocka_unit_test(test_wrong_configuration),
	    cmocka_unit_test(test_routing),
	    cmocka_unit_test(test_settings_and_homes),
	};

	return (cmocka_run_group_tests(tests, NULL, finish));
}
