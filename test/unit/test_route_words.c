/* route: what it says: the settings with their mistakes, and EXPLAIN (ROUTE). */
#include "../../src/route/private.h"
#include "route_fixture.h"

static void
test_settings(void **state)
{
	static const struct {
		const struct topo_key *key;
		const char *name, *value, *want, *says;
	} rows[] = {
	    {NULL, "database", "Analytics", "", ""},
	    {NULL, "database", "", "", ""},
	    {NULL, "database", "auto", "", ""},
	    {NULL, "database", "x", "22023",
		"Allowed are '' (automatic), primary, secondary"},
	    {&client, "database", "primary", "", ""},
	    {&client, "database", "secondary", "42501", "vb_client"},
	    {&client, "database", "x", "22023", "Allowed are '' (automatic), primary."},
	    {&listed, "database", "primary", "42501", "vb_listed"},
	    {NULL, "databases", "all", "", ""},
	    {NULL, "databases", "primary, secondary", "", ""},
	    {NULL, "databases", "primary, primary", "22023", "twice"},
	    {NULL, "databases", "primary, x", "22023", "lists of primary, secondary"},
	    {&plain, "databases", "all", "42501", "FEDERATE"},
	    {&plain, "databases", "", "", ""},
	    {NULL, "federation", "Tag", "", ""},
	    {NULL, "federation", "x", "22023", "merge, tag"},
	    {NULL, "on_unavailable", "skip", "", ""},
	    {NULL, "on_unavailable", "x", "22023", "error, skip"},
	    {NULL, "read_from", "replica", "", ""},
	    {NULL, "read_from", "x", "22023", "primary, replica, auto"},
	    {NULL, "shard_key", "-42", "", ""},
	    {NULL, "shard_key", "x", "22023", "integers"},
	    {NULL, "colour", "x", "42704", "pgweave.colour"},
	};
	char sqlstate[6], message[200], detail[200], all[402];
	const struct topo_virtual *v = topo_virtual_find(topo, "bank");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool is_good =
		    route_check_setting(v, rows[i].key, rows[i].name, rows[i].value,
			sqlstate, message, sizeof(message), detail, sizeof(detail));

		assert_int_equal(is_good, rows[i].want[0] == '\0');
		if (is_good)
			continue;
		assert_string_equal(sqlstate, rows[i].want);
		(void)snprintf(all, sizeof(all), "%s. %s", message, detail);
		if (strstr(all, rows[i].says) == NULL)
			fail_msg(
			    "%s\n  says %s\n  want %s", rows[i].value, all, rows[i].says);
	}
	/* Without a detail the message says what is allowed. */
	assert_false(route_check_setting(
	    v, &client, "database", "x", sqlstate, message, sizeof(message), NULL, 0));
	assert_string_equal(message,
	    "invalid value for parameter \"pgweave.database\": \"x\" "
	    "(allowed are '' (automatic), primary)");
	for (size_t i = 0; route_settings[i] != NULL; i++)
		assert_true(route_check_setting(v, NULL, route_settings[i], "", sqlstate,
		    message, sizeof(message), detail, sizeof(detail)));
}

static void
test_numbers(void **state)
{
	static const struct {
		const char *text;
		int read;
		int64_t number;
	} rows[] = {
	    {"0", ROUTE_VALUE, 0},
	    {"17", ROUTE_VALUE, 17},
	    {"-17", ROUTE_VALUE, -17},
	    {" +17 ", ROUTE_VALUE, 17},
	    {"17.000", ROUTE_VALUE, 17},
	    {"17.", ROUTE_VALUE, 17},
	    {"0.17e2", ROUTE_VALUE, 17},
	    {".17E+2", ROUTE_VALUE, 17},
	    {"1700e-2", ROUTE_VALUE, 17},
	    {"-1e20", ROUTE_OUT_OF_RANGE, 0},
	    {"1e131000", ROUTE_OUT_OF_RANGE, 0},
	    {"100000000000000000000", ROUTE_OUT_OF_RANGE, 0},
	    {"0e131000", ROUTE_VALUE, 0},
	    {"9223372036854775807", ROUTE_VALUE, INT64_MAX},
	    {"9223372036854775808", ROUTE_OUT_OF_RANGE, 0},
	    {"-9223372036854775808", ROUTE_VALUE, INT64_MIN},
	    {"-9223372036854775809", ROUTE_OUT_OF_RANGE, 0},
	    {"18446744073709551617", ROUTE_OUT_OF_RANGE, 0},
	    {"17.5", ROUTE_NO_INTEGER, 0},
	    {"17e-1", ROUTE_NO_INTEGER, 0},
	    {".5", ROUTE_NO_INTEGER, 0},
	    {"NaN", ROUTE_NO_INTEGER, 0},
	    {"-Infinity", ROUTE_NO_INTEGER, 0},
	    {"1e999999999999", ROUTE_OUT_OF_RANGE, 0},
	    {"", ROUTE_NO_VALUE, 0},
	    {"-", ROUTE_NO_VALUE, 0},
	    {".", ROUTE_NO_VALUE, 0},
	    {"1.2.3", ROUTE_NO_VALUE, 0},
	    {"3e", ROUTE_NO_VALUE, 0},
	    {"3e+", ROUTE_NO_VALUE, 0},
	    {"3 4", ROUTE_NO_VALUE, 0},
	    {"x", ROUTE_NO_VALUE, 0},
	};
	int64_t minus;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t number = 0;
		int read =
		    route_integer(rows[i].text, strlen(rows[i].text), false, &number);

		if (read != rows[i].read || number != rows[i].number)
			fail_msg("%s: %d, %lld", rows[i].text, read, (long long)number);
	}
	assert_int_equal(route_integer("17", 2, true, &minus), ROUTE_VALUE);
	assert_int_equal(minus, -17);
	assert_int_equal(route_integer("-17", 3, true, &minus), ROUTE_VALUE);
	assert_int_equal(minus, 17);
}

static void
test_datums(void **state)
{
#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__})
	const struct {
		const uint8_t *p;
		size_t len;
		uint32_t type;
		bool is_binary;
		int read;
		int64_t number;
	} rows[] = {
	    {BYTES(0xff, 0xef), 21, true, ROUTE_VALUE, -17}, /* -17 */
	    {BYTES(0, 0, 0, 17), 23, true, ROUTE_VALUE, 17},
	    {BYTES(0, 0, 0, 0, 0, 0, 0, 17), 20, true, ROUTE_VALUE, 17},
	    {BYTES(0, 0, 0, 17), 0, true, ROUTE_VALUE, 17},
	    {BYTES(0, 0, 0, 17), 25, true, ROUTE_NO_VALUE, 0},
	    {BYTES(0, 17, 0), 0, true, ROUTE_NO_VALUE, 0},
	    {BYTES(0x41, 0x88, 0, 0), 700, true, ROUTE_VALUE, 17},              /* 17 */
	    {BYTES(0x41, 0x8c, 0, 0), 700, true, ROUTE_NO_INTEGER, 0},          /* 17.5 */
	    {BYTES(0xc0, 0x31, 0, 0, 0, 0, 0, 0), 701, true, ROUTE_VALUE, -17}, /* -17 */
	    {BYTES(0x7f, 0xf8, 0, 0, 0, 0, 0, 0), 701, true, ROUTE_NO_INTEGER,
		0}, /* NaN */
	    {BYTES(0x43, 0x40, 0, 0, 0, 0, 0, 0), 701, true, ROUTE_INTEGERS,
		0}, /* 2^53 */
	    {BYTES(0x54, 0xb2, 0x49, 0xad, 0x25, 0x94, 0xc3, 0x7d), 701, true,
		ROUTE_OUT_OF_RANGE, 0}, /* 1e100 */
	    {BYTES(0, 1, 0, 0, 0, 0, 0, 0, 0, 17), 1700, true, ROUTE_VALUE, 17},
	    {BYTES(0, 1, 0, 0, 0x40, 0, 0, 0, 0, 17), 1700, true, ROUTE_VALUE, -17},
	    /* 20000.5000, 20000, 0.5, 0 */
	    {BYTES(0, 3, 0, 1, 0, 0, 0, 4, 0, 2, 0, 0, 0x13, 0x88), 1700, true,
		ROUTE_NO_INTEGER, 0},
	    {BYTES(0, 1, 0, 1, 0, 0, 0, 0, 0, 2), 1700, true, ROUTE_VALUE, 20000},
	    {BYTES(0, 1, 0xff, 0xff, 0, 0, 0, 1, 0x13, 0x88), 1700, true,
		ROUTE_NO_INTEGER, 0},
	    {BYTES(0, 0, 0, 0, 0, 0, 0, 0), 1700, true, ROUTE_VALUE, 0},
	    {BYTES(0, 0, 0, 0, 0xc0, 0, 0, 0), 1700, true, ROUTE_NO_INTEGER, 0},
	    {BYTES(0, 2, 0, 0, 0, 0, 0, 0, 0, 17), 1700, true, ROUTE_NO_VALUE, 0},
	    {BYTES(0, 2, 0, 0), 1700, true, ROUTE_NO_VALUE, 0},
	    {(const uint8_t *)"17e0", 4, 1700, false, ROUTE_VALUE, 17},
	    {(const uint8_t *)"17.0000000000000000001", 22, 701, false, ROUTE_VALUE, 17},
	    {(const uint8_t *)"17.0000000000000000001", 22, 1700, false, ROUTE_NO_INTEGER,
		0},
	    {(const uint8_t *)"17.00000001", 11, 700, false, ROUTE_VALUE, 17},
	    {(const uint8_t *)"x", 1, 701, false, ROUTE_NO_VALUE, 0},
	};
#undef BYTES

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct route_datum d = {.p = rows[i].p,
		    .len = rows[i].len,
		    .type = rows[i].type,
		    .is_binary = rows[i].is_binary};

		int64_t number;
		int read = route_datum_integer(&d, &number);

		if (read != rows[i].read ||
		    (read == ROUTE_VALUE && number != rows[i].number))
			fail_msg("row %zu: %d, %lld", i, read, (long long)number);
	}
}

static void
add_line(void *arg, const char *text)
{
	struct buf *b = arg;

	buf_addf(b, "%s\n", text);
}

static char *
explained(const struct row *row, bool as_json)
{
	struct buf b = {0};
	struct route_input in;
	struct route_plan plan;
	struct sql_scan scan;

	input_of(&in, row, &scan);
	in.wants_notes = true;
	set_status(row->down, TOPO_DOWN, "gone");
	route_plan(&in, &plan);
	check_repeat(&in, &plan);
	route_explain(&in, &plan, as_json, add_line, &b);
	set_status(row->down, TOPO_HEALTHY, NULL);
	sql_scan_free(&scan);
	buf_add(&b, "", 1);
	return ((char *)b.mem);
}

static void
check_explained(const struct row *row, bool as_json, const char *want)
{
	char *got = explained(row, as_json);

	assert_string_equal(got, want);
	free(got);
}

static void
test_explain(void **state)
{
	(void)state;
	set_status("primary secondary analytics replica", TOPO_HEALTHY, NULL);
	check_explained(&(struct row){.sql = "SELECT * FROM analytics_events"}, false,
	    "Route: analytics (table route)\n"
	    "  Node: analytics, healthy (read, no usable replica)\n"
	    "  Class: read; tables: analytics_events -> analytics\n"
	    "  Rules, strongest first:\n"
	    "    SET LOCAL    not set\n"
	    "    comment      not set\n"
	    "    SET          not set\n"
	    "    dbname       names no member\n"
	    "    catalog      no table names a database\n"
	    "    shard key    no table is spread over shards\n"
	    "    table route  analytics_events = analytics (t.ini:31)       won\n"
	    "    key type     no key\n"
	    "    default      primary                                       overruled\n");
	check_explained(&(struct row){.sql = "SELECT * FROM accounts WHERE user_id = 43",
			    SET(database, "primary"),
			    .key = &server},
	    false,
	    "Route: primary (SET)\n"
	    "  Node: replica, healthy, for primary (read, replica healthy)\n"
	    "  Class: read; tables: accounts -> primary | secondary\n"
	    "  Rules, strongest first:\n"
	    "    SET LOCAL    not set\n"
	    "    comment      not set\n"
	    "    SET          database = 'primary'                          won\n"
	    "    dbname       names no member\n"
	    "    catalog      no table names a database\n"
	    "    shard key    accounts by user_id -> secondary (t.ini:36)   overruled\n"
	    "    table route  no table has a route\n"
	    "    key type     leaves it open\n"
	    "    default      primary                                       overruled\n");
}

static void
test_explain_refused(void **state)
{
	(void)state;
	check_explained(&(struct row){.sql = "SELECT * FROM users, analytics_events"},
	    true,
	    "{\"route\":\"refused\",\"error\":{\"code\":\"0A000\",\"message\":\"statement uses "
	    "tables of several databases\",\"detail\":\"\\\"users\\\" is on database "
	    "\\\"primary\\\", \\\"analytics_events\\\" on \\\"analytics\\\".\",\"hint\":\"A "
	    "database that has both can be named: SET pgweave.database = '…'; a replication job "
	    "keeps a copy of a table there.\"},\"class\":\"read\",\"is_write\":false,\"tables\":"
	    "[{\"table\":\"users\",\"databases\":[\"primary\"]},{\"table\":\"analytics_events\","
	    "\"databases\":[\"analytics\"]}],\"rules\":["
	    "{\"rule\":\"SET LOCAL\",\"said\":\"not set\",\"outcome\":\"\"},"
	    "{\"rule\":\"comment\",\"said\":\"not set\",\"outcome\":\"\"},"
	    "{\"rule\":\"SET\",\"said\":\"not set\",\"outcome\":\"\"},"
	    "{\"rule\":\"dbname\",\"said\":\"names no member\",\"outcome\":\"\"},"
	    "{\"rule\":\"catalog\",\"said\":\"no table names a database\",\"outcome\":\"\"},"
	    "{\"rule\":\"shard key\",\"said\":\"no table is spread over shards\",\"outcome\":\"\"},"
	    "{\"rule\":\"table route\",\"said\":\"analytics_events = analytics (t.ini:31)\","
	    "\"outcome\":\"\"},"
	    "{\"rule\":\"key type\",\"said\":\"no key\",\"outcome\":\"\"},"
	    "{\"rule\":\"default\",\"said\":\"primary\",\"outcome\":\"\"}]}\n");
}

static void
test_explain_many(void **state)
{
	static const struct row row = {.sql = "SELECT a FROM \"q\"\"t\"",
	    .session = {.databases = "secondary,analytics",
		.on_unavailable = "skip",
		.federation = "tag"},
	    .down = "secondary"};
	char *text = explained(&row, false), *json = explained(&row, true);

	(void)state;
	assert_non_null(strstr(text, "Route: analytics (SET)\n"));
	assert_non_null(strstr(text, "  Federation: tag: rows as they come"));
	assert_non_null(
	    strstr(text, "  Warning: left out, because they are down: secondary\n"));
	assert_non_null(strstr(text, "databases = 'secondary,analytics'"));
	assert_non_null(
	    strstr(json, "\"route\":\"many\",\"rule\":\"SET\",\"databases\":"
			 "[{\"database\":\"analytics\",\"node\":\"analytics\","
			 "\"status\":\"healthy\"}],\"federation\":\"tag\","
			 "\"skipped\":\"secondary\""));
	assert_non_null(
	    strstr(json, "{\"table\":\"q\\\"t\",\"databases\":[\"primary\"]}"));
	free(text);
	free(json);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_settings),
	    cmocka_unit_test(test_numbers),
	    cmocka_unit_test(test_datums),
	    cmocka_unit_test(test_explain),
	    cmocka_unit_test(test_explain_refused),
	    cmocka_unit_test(test_explain_many),
	};

	return (cmocka_run_group_tests(tests, start, finish));
}
