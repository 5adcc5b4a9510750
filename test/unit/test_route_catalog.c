/* route, with what the databases' catalogs say. */
#include "route_fixture.h"

static struct catalog *known;

static const char *
place_of(const struct route_plan *plan)
{
	static char text[512];

	text[0] = '\0';
	if (plan->way == ROUTE_REFUSED)
		(void)snprintf(text, sizeof(text), "%s", plan->sqlstate);
	for (unsigned i = 0; plan->way != ROUTE_REFUSED && i < plan->leg_count; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s",
		    i > 0 ? " " : "", plan->legs[i].node->name);
	if (plan->calls_writer)
		(void)snprintf(
		    text + strlen(text), sizeof(text) - strlen(text), " writer");
	return (text);
}

static void
check_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct route_input in;
		struct route_plan plan;
		struct sql_scan scan;

		input_of(&in, &rows[i], &scan);
		in.catalog = known;
		for (int notes = 0; notes < 2; notes++) {
			in.wants_notes = notes == 1;
			route_plan(&in, &plan);
			check_repeat(&in, &plan);
			if (strcmp(place_of(&plan), rows[i].want) != 0 ||
			    (rows[i].says != NULL &&
				strstr(plan.message, rows[i].says) == NULL &&
				strstr(plan.detail, rows[i].says) == NULL))
				fail_msg("%s\n  got  %s\n  want %s\n  says %s / %s",
				    rows[i].sql, place_of(&plan), rows[i].want,
				    plan.message, plan.detail);
		}
		sql_scan_free(&scan);
	}
}

static void
add_table(struct catalog_draft *d, uint32_t id, const char *name, const char *columns)
{
	catalog_draft_relation(d, id, "public", name, CATALOG_TABLE, false, columns);
}

/* A view of one table, or of two. */
static void
add_view(struct catalog_draft *d, uint32_t id, const char *name, bool is_simple,
    const char *columns, uint32_t reads, uint32_t reads_too)
{
	catalog_draft_relation(d, id, "public", name, CATALOG_VIEW, is_simple, columns);
	catalog_draft_reads(d, id, reads);
	if (reads_too != 0)
		catalog_draft_reads(d, id, reads_too);
}

static struct catalog_db *
make_primary(void)
{
	struct catalog_draft *d = catalog_draft_create("primary", 1 << 20);

	catalog_draft_path(d, "public");
	add_table(d, 1, "users", "+id\n+name");
	add_table(d, 2, "accounts", "+id\n+user_id\n+total");
	add_table(d, 3, "transactions", "+id\n+user_id");
	add_table(d, 4, "analytics_events", "+id");
	add_view(d, 10, "people", true, "+id", 1, 0);
	add_view(d, 11, "purses", true, "+id\n+user_id", 2, 0);
	add_view(d, 12, "renamed", true, "+id\n-user_id", 2, 0);
	add_view(d, 13, "sums", false, "-total", 2, 0);
	add_view(d, 14, "owned", false, "+id", 1, 2);
	add_view(d, 15, "seen", false, "+id", 1, 4);
	add_view(d, 16, "ticks", false, "+id", 1, 0);
	catalog_draft_calls_volatile(d, 16);
	catalog_draft_function(d, "public", "fee", CATALOG_STABLE);
	catalog_draft_function(d, "public", "same", CATALOG_IMMUTABLE);
	catalog_draft_function(d, "public", "pay", CATALOG_VOLATILE);
	catalog_draft_function(d, "app", "fee_too", CATALOG_STABLE);
	return (catalog_draft_end(d));
}

/* The order of one table's columns is another one here. */
static struct catalog_db *
make_secondary(void)
{
	struct catalog_draft *d = catalog_draft_create("secondary", 1 << 20);

	add_table(d, 1, "accounts", "+id\n+user_id\n+total");
	add_table(d, 2, "transactions", "+user_id\n+id");
	catalog_draft_function(d, "public", "fee", CATALOG_VOLATILE);
	return (catalog_draft_end(d));
}

static struct catalog_db *
make_analytics(void)
{
	struct catalog_draft *d = catalog_draft_create("analytics", 1 << 20);

	add_table(d, 1, "analytics_events", "+id");
	add_table(d, 2, "loose", "+id");
	add_view(d, 10, "recent", true, "+id", 1, 0);
	add_view(d, 11, "loose_view", true, "+id", 2, 0);
	return (catalog_draft_end(d));
}

static int
begin(void **state)
{
	struct catalog_db *dbs[] = {make_primary(), make_secondary(), make_analytics()};
	int failed = start(state);

	known = catalog_make(dbs, ARRAY_LEN(dbs));
	for (size_t i = 0; i < ARRAY_LEN(dbs); i++)
		catalog_db_release(dbs[i]);
	set_status("primary replica secondary analytics", TOPO_HEALTHY, NULL);
	return (failed);
}

static int
end(void **state)
{
	catalog_release(known);
	return (finish(state));
}

static void
test_inserts(void **state)
{
	static const struct row rows[] = {
	    ROW("INSERT INTO accounts VALUES (1, 42, 0)", "primary"),
	    ROW("INSERT INTO accounts VALUES (1, 43, 0), (2, -7)", "secondary"),
	    ROW("INSERT INTO public.accounts VALUES (1, $1)", "secondary",
		.params = {"7"}),
	    ROW("INSERT INTO accounts VALUES (1, $1)", "primary"),
	    ROW("INSERT INTO accounts VALUES (1, 42, 0), (1, 43, 0)",
		"primary secondary"),
	    ROW("INSERT INTO accounts VALUES (1, NULL)", "22004"),
	    ROW("INSERT INTO accounts VALUES (1, DEFAULT)", "0A000",
		.says = "is not known before the statement runs"),
	    ROW("INSERT INTO accounts VALUES (1, 'x')", "22P02"),
	    ROW("INSERT INTO accounts VALUES (1)", "0A000",
		.says = "without its shard key"),
	    ROW("INSERT INTO accounts (user_id) VALUES (43)", "secondary"),
	    ROW("INSERT INTO accounts SELECT 1, 42", "0A000",
		.says = "without its shard key"),
	    /* The shards do not agree where it stands. */
	    ROW("INSERT INTO transactions VALUES (42, 43)", "0A000",
		.says = "without its shard key"),
	    ROW("INSERT INTO users VALUES (1, 'a')", "primary"),
	    ROW("INSERT INTO purses VALUES (1, 43)", "secondary"),
	    ROW("INSERT INTO renamed VALUES (1, 43)", "0A000"),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_functions(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT fee(1), same(2), app.fee_too(3)", "replica"),
	    ROW("SELECT fee(id) FROM users", "replica"),
	    ROW("SELECT pay(1)", "primary writer"),
	    ROW("SELECT fee(1), pay(1)", "primary writer"),
	    ROW("SELECT public.fee_too(1)", "primary writer"),
	    ROW("SELECT nobody_knows(1)", "primary writer"),
	    ROW("SELECT 1 OPERATOR(public.+) 2", "primary writer"),
	    ROW("SELECT fee(1), random()", "primary"),
	    ROW("SELECT fee(id) FROM accounts WHERE user_id = 42", "replica"),
	    ROW("SELECT fee(id) FROM accounts WHERE user_id = 43", "secondary writer"),
	    ROW("SELECT fee(id) FROM analytics_events", "analytics writer"),
	    ROW("SELECT fee(id) FROM users FOR UPDATE", "primary"),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_views(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM people", "replica"),
	    ROW("SELECT * FROM ticks", "primary writer"),
	    /* Only on a member that its table has a route to. */
	    ROW("SELECT * FROM recent", "analytics"),
	    ROW("SELECT * FROM recent JOIN analytics_events e USING (id)", "analytics"),
	    ROW("SELECT * FROM recent JOIN users u USING (id)", "0A000",
		.says = "\"recent\" is on database \"analytics\""),
	    ROW("DROP VIEW recent", "analytics"),
	    ROW("CREATE VIEW recent AS SELECT * FROM users", "primary"),
	    ROW("SELECT * FROM loose", "replica"),
	    ROW("SELECT * FROM loose_view", "replica"),
	    ROW("SELECT * FROM secondary.public.recent", "secondary"),
	    /* Spread as their tables are. */
	    ROW("SELECT * FROM purses WHERE user_id = 43", "secondary"),
	    ROW("SELECT id FROM purses", "replica secondary", .key = &server),
	    ROW("SELECT id FROM purses p JOIN accounts a USING (user_id) WHERE user_id = 43",
		"secondary"),
	    ROW("UPDATE purses SET id = 1 WHERE user_id = 43", "secondary"),
	    ROW("SELECT id FROM renamed WHERE user_id = 43", "replica secondary",
		.key = &server),
	    ROW("SELECT * FROM sums", "0A000", .key = &server,
		.says = "cannot be merged exactly: view \"sums\""),
	    ROW("SELECT * FROM sums", "replica secondary", .key = &server,
		SET(federation, "tag")),
	    ROW("SELECT * FROM sums", "secondary", SET(shard_key, "43")),
	    ROW("SELECT * FROM sums", "secondary", .key = &odd),
	    /* Tables of several databases below one view. */
	    ROW("SELECT * FROM seen", "0A000",
		.says =
		    "\"users\" is on \"primary\", \"analytics_events\" is on \"analytics\""),
	    ROW("SELECT * FROM owned", "0A000", .key = &server),
	    ROW("SELECT * FROM owned", "replica", SET(shard_key, "42")),
	    ROW("SELECT * FROM owned", "0A000", SET(shard_key, "43"),
		.says = "reads tables of several databases"),
	    ROW("SELECT * FROM seen", "primary", SET(database, "primary"),
		.in_transaction = true),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_inserts),
	    cmocka_unit_test(test_functions),
	    cmocka_unit_test(test_views),
	};

	return (cmocka_run_group_tests(tests, begin, end));
}
