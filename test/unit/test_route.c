/* route: statement, settings and key -> member, node and rule, or SQLSTATE. */
#include "route_fixture.h"

static void
describe(const struct route_plan *plan, char *to, size_t size)
{
	size_t at = 0;

	if (plan->way == ROUTE_REFUSED) {
		(void)snprintf(to, size, "%s", plan->sqlstate);
		return;
	}
	if (plan->way == ROUTE_SPLIT)
		at += (size_t)snprintf(to, size, "SPLIT ");
	if (plan->way == ROUTE_MANY)
		at += (size_t)snprintf(to, size, "MANY %s ",
		    plan->federation == ROUTE_TAG ? "tag" : "merge");
	for (unsigned i = 0; i < plan->leg_count; i++) {
		const struct route_leg *leg = &plan->legs[i];
		bool is_same = leg->member == leg->node;

		at += (size_t)snprintf(to + at, size - at, "%s%s%s ", leg->member->name,
		    is_same ? "" : "@", is_same ? "" : leg->node->name);
	}
	(void)snprintf(to + at, size - at, "%s", route_rule_name(plan->rule));
}

static bool
is_said(const struct route_plan *p, const char *words)
{
	return (strstr(p->message, words) != NULL || strstr(p->detail, words) != NULL ||
		strstr(p->hint, words) != NULL || strstr(p->warning, words) != NULL);
}

/* With notes and without: the plan is the same. */
static void
check_row(const struct row *row)
{
	enum topo_status as = row->as != TOPO_UNKNOWN ? row->as : TOPO_DOWN;
	struct route_input in;
	struct route_plan plan;
	struct sql_scan scan;
	char got[512];

	input_of(&in, row, &scan);
	set_status(row->down, as, "connection refused");
	for (int notes = 0; notes < 2; notes++) {
		memset(&plan, 'x', sizeof(plan));
		in.wants_notes = notes == 1;
		route_plan(&in, &plan);
		describe(&plan, got, sizeof(got));
		check_repeat(&in, &plan);
		if (strcmp(got, row->want) != 0 ||
		    (row->says != NULL && !is_said(&plan, row->says)))
			fail_msg(
			    "%s\n  got  %s\n  want %s\n  says %s / %s / %s / %s\n  want %s",
			    row->sql, got, row->want, plan.message, plan.detail,
			    plan.hint, plan.warning, row->says != NULL ? row->says : "");
		if (plan.way == ROUTE_REFUSED)
			assert_true(plan.message[0] != '\0');
		else
			assert_true(plan.message[0] == '\0' && plan.sqlstate[0] == '\0' &&
				    plan.detail[0] == '\0' && plan.hint[0] == '\0');
	}
	set_status(row->down, TOPO_HEALTHY, NULL);
	sql_scan_free(&scan);
}

static void
check_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check_row(&rows[i]);
}

#define PINNED(text, result, ...)                                                        \
	ROW(text, result, .is_pinned = true __VA_OPT__(, ) __VA_ARGS__)

static void
test_pins(void **state)
{
	static const struct row rows[] = {
	    PINNED("SELECT * FROM mine", "analytics pin"),
	    /* Not a replica. */
	    PINNED("SELECT * FROM papers", "primary pin"),
	    PINNED("SELECT * FROM pg_temp.papers", "primary pin"),
	    PINNED("SELECT * FROM vault.papers", "vault table route"),
	    PINNED("SELECT * FROM users", "primary@replica default"),
	    PINNED("INSERT INTO mine SELECT 1", "analytics pin"),
	    PINNED("SELECT * FROM mine, analytics_events", "analytics pin"),
	    PINNED("SELECT * FROM analytics_events, mine", "analytics pin"),
	    PINNED("SELECT * FROM mine, users", "0A000",
		.says =
		    "\"mine\" is on database \"analytics\", \"users\" on \"primary\""),
	    PINNED("SELECT * FROM mine, papers", "0A000", .says = "\"papers\""),
	    PINNED("SELECT * FROM mine, accounts", "0A000", .says = "several databases"),
	    PINNED(
		"SELECT * FROM papers, accounts a WHERE a.user_id = 42", "primary pin"),
	    /* Settings place what stands beside. */
	    PINNED("SELECT * FROM mine", "analytics pin", SET(database, "primary")),
	    PINNED(
		"SELECT * FROM mine, users", "analytics pin", SET(database, "analytics")),
	    PINNED("SELECT * FROM mine, users", "0A000", LOCAL(database, "primary"),
		.says = "\"mine\""),
	    PINNED("SELECT * FROM mine", "analytics pin",
		SET(databases, "primary, secondary")),
	    PINNED("SELECT * FROM mine, users", "0A000",
		SET(databases, "primary, secondary"), .says = "pgweave.databases"),
	    PINNED("SELECT * FROM mine, users", "22023", SET(database, "nowhere")),
	    PINNED("CREATE TABLE mine (a int)", "primary default"),
	    PINNED("CREATE TEMP TABLE mine (a int)", "analytics pin"),
	    PINNED("CREATE TABLE x AS SELECT * FROM mine", "analytics pin"),
	    PINNED("DROP TABLE mine", "analytics pin"),
	    ROW("FETCH c", "analytics pin", .at = "analytics"),
	    ROW("FETCH c", "primary pin", .at = "primary", SET(database, "analytics")),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_members(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT 1", "primary@replica default"),
	    ROW("INSERT INTO users VALUES (1)", "primary default"),
	    ROW("SELECT * FROM users", "primary@replica default"),
	    ROW("SELECT * FROM analytics_events", "analytics table route"),
	    ROW("SELECT * FROM public.user_activity", "analytics table route"),
	    ROW("SELECT * FROM vault.papers", "vault table route"),
	    ROW("SELECT * FROM analytics_events a JOIN user_activity u ON true",
		"analytics table route"),
	    ROW("SELECT * FROM analytics.public.users", "analytics catalog"),
	    ROW("SELECT * FROM \"Analytics\".public.users", "analytics catalog"),
	    ROW("SELECT * FROM bank.public.analytics_events", "analytics table route"),
	    ROW("SELECT * FROM nowhere.public.users", "primary@replica default"),
	    ROW("SELECT * FROM pg_class", "primary default"),
	    ROW("SELECT * FROM analytics_events, pg_class", "analytics table route"),
	    ROW("SELECT * FROM secondary.public.accounts", "secondary catalog"),
	    ROW("SELECT * FROM users, analytics_events", "0A000",
		.says =
		    "\"users\" is on database \"primary\", \"analytics_events\" on \"analytics\""),
	    ROW("SELECT * FROM analytics.public.a, vault.papers", "0A000",
		.says = "\"analytics\""),
	    ROW("gibberish", "primary default"),
	    ROW("SELECT * FROM analytics_events WHERE ((", "analytics table route"),
	    ROW("UPDATE ONLY \"user_activity\" gibberish", "analytics table route"),
	    ROW("DELETE FROM public.user_activity WHERE ((", "analytics table route"),
	    ROW("SELECT extract(year FROM a) FROM users WHERE ((", "primary default"),
	    ROW("SELECT ((FROM analytics_events(1)", "primary default"),
	    ROW("SELECT (( FROM analytics_events JOIN vault.papers", "0A000",
		.says = "\"analytics_events\""),
	    ROW("CREATE TABLE analytics_events (a int)", "analytics table route"),
	    /* What the statement makes goes where the others are. */
	    ROW("CREATE TABLE x (a int)", "primary default"),
	    ROW("CREATE TEMP TABLE x AS SELECT * FROM analytics_events",
		"analytics table route"),
	    ROW("SELECT * INTO TEMP x FROM analytics_events", "analytics table route"),
	    ROW("SELECT * INTO x FROM users", "primary default"),
	    ROW("CREATE VIEW x AS SELECT * FROM user_activity", "analytics table route"),
	    ROW("CREATE TABLE x (a int REFERENCES user_activity)",
		"analytics table route"),
	    ROW("CREATE TABLE x AS SELECT * FROM accounts WHERE user_id = 43",
		"secondary shard key"),
	    ROW("CREATE TABLE x AS SELECT * FROM accounts", "0A000",
		.says = "\"accounts\""),
	    ROW("CREATE TABLE x AS SELECT * FROM users, analytics_events", "0A000",
		.says = "\"users\""),
	    ROW("CREATE TABLE user_activity AS SELECT * FROM users", "0A000",
		.says = "\"user_activity\" on \"analytics\""),
	    ROW("CREATE TABLE secondary.public.x AS SELECT * FROM users", "0A000",
		.says = "\"public.x\" on \"secondary\""),
	    ROW("DROP TRIGGER x ON user_activity", "analytics table route"),
	    ROW("DROP RULE IF EXISTS x ON user_activity", "analytics table route"),
	    ROW("DROP POLICY x ON user_activity", "analytics table route"),
	    ROW("BEGIN", "primary default"),
	    ROW("SET work_mem = '1MB'", "primary default"),
	    ROW("SELECT * FROM spare_notes", "spare@replica table route"),
	    ROW("INSERT INTO spare_notes VALUES (1)", "spare@primary table route"),
	    ROW("UPDATE users SET a = 1 FROM spare_notes", "spare@primary table route"),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_levels(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM users", "analytics SET", SET(database, "analytics")),
	    ROW("SELECT * FROM users", "analytics SET", SET(database, "ANALYTICS")),
	    ROW("SELECT * FROM users", "secondary SET LOCAL", SET(database, "analytics"),
		LOCAL(database, "secondary")),
	    ROW("/* pgweave: database=secondary */ SELECT * FROM users",
		"secondary comment", SET(database, "analytics")),
	    ROW("/* pgweave: database=secondary */ SELECT * FROM users",
		"analytics SET LOCAL", LOCAL(database, "analytics")),
	    ROW("SELECT * FROM users", "analytics dbname", .member = "analytics"),
	    ROW("SELECT * FROM users", "secondary SET", .member = "analytics",
		SET(database, "secondary")),
	    ROW("SELECT * FROM users", "primary@replica default", .member = "analytics",
		SET(database, "auto")),
	    ROW("SELECT * FROM users", "primary@replica default",
		SET(database, "analytics"), LOCAL(database, "")),
	    /* A level beats a weaker one, whichever of the two it says. */
	    ROW("SELECT * FROM users", "secondary SET LOCAL", SET(databases, "all"),
		LOCAL(database, "secondary")),
	    ROW("SELECT * FROM users", "MANY merge primary@replica secondary SET LOCAL",
		SET(database, "analytics"), LOCAL(databases, "primary,secondary")),
	    ROW("SELECT * FROM users", "MANY merge primary@replica secondary SET",
		.session = {.database = "analytics", .databases = "primary, secondary"}),
	    ROW("SELECT * FROM users", "analytics SET",
		.session = {.database = "analytics", .databases = ""}),
	    /* Strong words overrule catalogs, shard keys and routes. */
	    ROW("SELECT * FROM secondary.public.t, analytics_events",
		"primary@replica SET", SET(database, "primary")),
	    ROW("UPDATE accounts SET user_id = 3", "secondary SET",
		SET(database, "secondary")),
	    ROW("SELECT 1", "22023",
		.says = "Allowed are '' (automatic), primary, secondary",
		SET(database, "nowhere")),
	    ROW("/* pgweave: database=nowhere */ SELECT 1", "22023",
		.says = "\"nowhere\""),
	    ROW("/* pgweave: datbase=primary */ SELECT 1", "22023", .says = "datbase"),
	    ROW("SELECT 1", "3D000", .says = "\"bank.nowhere\"", .member = "nowhere"),
	    ROW("SELECT 1", "22023", .says = "merge, tag", SET(federation, "both")),
	    ROW("SELECT 1", "22023", .says = "error, skip",
		LOCAL(on_unavailable, "never")),
	    ROW("SELECT 1", "22023", .says = "primary, replica, auto",
		LOCAL(read_from, "x")),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_shards(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM accounts WHERE user_id = 42", "primary@replica shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = 43", "secondary shard key"),
	    ROW("SELECT * FROM public.accounts WHERE user_id = '43'",
		"secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = -43", "secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = 99999999999999999999999999999999999991",
		"22003", .says = "out of range"),
	    ROW("SELECT * FROM accounts WHERE user_id = $1", "22003",
		.says = "\"-9223372036854775809\"", .params = {"-9223372036854775809"}),
	    ROW("INSERT INTO accounts (user_id) VALUES (9223372036854775807)",
		"secondary shard key"),
	    ROW("UPDATE accounts gibberish", "0A000", .says = "not understood"),
	    ROW("/* pgweave: shard_key=43 */ UPDATE accounts gibberish",
		"secondary shard key"),
	    ROW("UPDATE accounts SET a = 1 WHERE user_id = 43 AND a = 2",
		"secondary shard key"),
	    ROW("DELETE FROM accounts WHERE user_id = $1", "secondary shard key",
		.params = {"-3"}),
	    ROW("DELETE FROM accounts WHERE user_id = $1", "primary shard key",
		.params = {" 4.00 "}),
	    ROW("INSERT INTO accounts (user_id, a) VALUES ($1, $2)",
		"secondary shard key", .params = {"7", "8"}),
	    ROW("INSERT INTO accounts (a, user_id) VALUES (1, 3), (2, 5)",
		"secondary shard key"),
	    ROW("INSERT INTO accounts (a, user_id) VALUES (1, 3), (2, 4)",
		"SPLIT primary secondary shard key"),
	    ROW("INSERT INTO accounts (a, user_id) VALUES (1, 3), (2, 4), (3, $1)",
		"22004", .params = {"NULL"}),
	    ROW("COPY accounts (a, user_id) FROM STDIN",
		"SPLIT primary secondary shard key"),
	    ROW("COPY accounts (a) FROM STDIN", "0A000", .says = "without its shard key"),
	    ROW("COPY accounts (user_id) FROM STDIN (ON_ERROR ignore)", "0A000",
		.says = "on_error"),
	    ROW("WITH x AS (SELECT 1) INSERT INTO accounts (user_id) VALUES (3), (4)",
		"0A000", .says = "Split the INSERT"),
	    ROW("INSERT INTO accounts (user_id) VALUES (NULL)", "22004",
		.says = "user_id"),
	    ROW("INSERT INTO accounts (user_id) VALUES ($1)", "22004", .says = "user_id",
		.params = {"NULL"}),
	    ROW("INSERT INTO accounts (user_id) VALUES (random())", "0A000",
		.says = "not known"),
	    ROW("INSERT INTO accounts (a) VALUES (1)", "0A000", .says = "\"user_id\""),
	    ROW("UPDATE accounts SET user_id = 5 WHERE user_id = 3", "0A000",
		.says = "cannot change"),
	    ROW("UPDATE accounts SET a = 5", "0A000", .says = "SET pgweave.shard_key"),
	    ROW("UPDATE accounts SET a = 5 WHERE user_id IN (1, 2)", "0A000",
		.says = "Split it"),
	    ROW("UPDATE accounts SET a = 5 WHERE user_id IN (1, 3)",
		"secondary shard key"),
	    ROW("CREATE INDEX ON accounts (a)", "0A000", .says = "on each of them"),
	    ROW("SELECT * FROM accounts WHERE user_id = NULL",
		"primary@replica shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = 1 AND user_id = 2",
		"primary@replica shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = $1", "primary@replica shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = 'abc'", "22P02",
		.says = "must be an integer"),
	    /* No integer is equal to 1.5: no row, which any shard can say. */
	    ROW("SELECT * FROM accounts WHERE user_id = 1.5",
		"primary@replica shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id IN (1.5, 3e0, 30e-1)",
		"secondary shard key"),
	    ROW("UPDATE accounts SET a = 1 WHERE user_id = $1", "primary shard key",
		.params = {"-3.5"}),
	    ROW("INSERT INTO accounts (user_id) VALUES (3.5)", "22P02", .says = "3.5"),
	    ROW("INSERT INTO accounts (user_id) VALUES (3.0)", "secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = $1", "22P02", .says = "\"x\"",
		.params = {"x"}),
	    /* Several shards, or no word of one. */
	    ROW("SELECT * FROM accounts",
		"MANY merge primary@replica secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id IN (1, 2, 3)",
		"MANY merge primary@replica secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id IN (1, 3, NULL)",
		"secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id > 3",
		"MANY merge primary@replica secondary shard key"),
	    ROW("SELECT * FROM accounts ORDER BY 1", "0A000",
		.says = "cannot be merged exactly"),
	    ROW("SELECT * FROM accounts ORDER BY 1",
		"MANY tag primary@replica secondary shard key", SET(federation, "TAG")),
	    ROW("COPY accounts TO STDOUT", "0A000", .says = "only SELECT"),
	    /* The setting counts where the statement has no value. */
	    ROW("SELECT * FROM accounts", "secondary shard key", SET(shard_key, "43")),
	    ROW("SELECT * FROM accounts", "primary@replica shard key",
		SET(shard_key, "43"), LOCAL(shard_key, "42")),
	    ROW("UPDATE accounts SET a = 1", "secondary shard key", SET(shard_key, "43")),
	    ROW("SELECT * FROM accounts WHERE user_id = 42", "primary@replica shard key",
		SET(shard_key, "43")),
	    ROW("SELECT * FROM accounts", "22023", .says = "shard_key",
		SET(shard_key, "x")),
	    ROW("SELECT * FROM users", "primary@replica default", SET(shard_key, "43")),
	    /* Tables of a group are together on one shard only. */
	    ROW("SELECT * FROM accounts a JOIN transactions t ON a.user_id = t.user_id "
		"WHERE a.user_id = 43 AND t.user_id = 45",
		"secondary shard key"),
	    ROW("SELECT * FROM accounts a JOIN transactions t ON a.id = t.id "
		"WHERE a.user_id = 43 AND t.user_id = 44",
		"0A000", .says = "joins \"accounts\" and \"transactions\""),
	    ROW("SELECT * FROM accounts a JOIN transactions t ON a.id = t.id "
		"WHERE a.user_id = 43",
		"0A000", .says = "joins"),
	    ROW("SELECT * FROM accounts a JOIN transactions t ON a.id = t.id "
		"WHERE a.user_id = 43",
		"secondary shard key", SET(shard_key, "1")),
	    ROW("SELECT * FROM accounts a JOIN users u ON u.id = a.id WHERE a.user_id = 42",
		"primary@replica shard key"),
	    ROW("SELECT * FROM accounts a JOIN users u ON u.id = a.id WHERE a.user_id = 43",
		"0A000",
		.says =
		    "\"accounts\" is on database \"secondary\", \"users\" on \"primary\""),
	    ROW("WITH x AS (DELETE FROM accounts WHERE user_id = 43 RETURNING a) SELECT * FROM x",
		"secondary shard key"),
	    ROW("SELECT * FROM accounts WHERE user_id = 43 OR a = 1",
		"MANY merge primary@replica secondary shard key"),
	    ROW("SELECT * FROM accounts a LEFT JOIN transactions t "
		"ON a.user_id = 43 AND t.user_id = 43",
		"0A000", .says = "joins"),
	    ROW("SELECT * FROM accounts WHERE user_id = 43 AND EXISTS "
		"(SELECT FROM transactions t WHERE t.user_id = 43)",
		"secondary shard key"),
	    ROW("INSERT INTO accounts (user_id) SELECT user_id FROM transactions "
		"WHERE user_id = 43",
		"0A000", .says = "accounts"),
	    ROW("EXPLAIN SELECT * FROM accounts", "0A000",
		.says = "cannot be merged exactly"),
	    ROW("SELECT * FROM users u, accounts a", "0A000",
		.says = "several databases"),
	    ROW("SELECT * FROM accounts a, users u", "0A000",
		.says = "several databases"),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_keys(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM users", "primary@replica key type", .key = &client),
	    ROW("SELECT * FROM analytics_events", "42501",
		.says =
		    "key \"vb_client\" of type client may only use database \"primary\"",
		.key = &client),
	    ROW("SELECT * FROM analytics_events", "42501",
		.says = "table route: analytics_events is on database \"analytics\"",
		.key = &client),
	    ROW("SELECT * FROM analytics.public.x", "42501", .says = "catalog",
		.key = &client),
	    ROW("SELECT * FROM accounts WHERE user_id = 43", "42501", .says = "shard key",
		.key = &client),
	    ROW("SELECT * FROM accounts WHERE user_id = 42", "primary@replica shard key",
		.key = &client),
	    ROW("SELECT * FROM users", "42501", .says = "SET names \"analytics\"",
		.key = &client, SET(database, "analytics")),
	    ROW("SELECT * FROM users", "primary@replica SET", .key = &client,
		SET(database, "primary")),
	    ROW("SELECT * FROM users", "42501", .says = "may not run federated",
		.key = &client, SET(databases, "all")),
	    ROW("RESET pgweave.databases", "primary key type", .key = &client,
		SET(databases, "all")),
	    ROW("SELECT * FROM users", "primary@replica key type", .key = &even),
	    ROW("SELECT * FROM users", "secondary key type", .key = &odd),
	    ROW("SELECT * FROM users", "primary key type", .key = &even, .virt = "dev",
		SET(read_from, "primary")),
	    ROW("SELECT 1", "secondary key type", .key = &even, .virt = "pair"),
	    ROW("SELECT 1", "analytics key type", .key = &odd, .virt = "pair"),
	    ROW("SELECT * FROM accounts", "secondary key type", .key = &odd),
	    ROW("SELECT * FROM accounts WHERE user_id = 45", "secondary shard key",
		.key = &odd),
	    ROW("SELECT * FROM accounts WHERE user_id = 44", "42501",
		.says = "of type database may only use database \"secondary\"",
		.key = &odd),
	    ROW("SELECT * FROM accounts WHERE user_id IN (44, 45)", "42501",
		.says = "\"accounts\"", .key = &odd),
	    ROW("UPDATE accounts SET a = 1", "secondary key type", .key = &odd),
	    ROW("INSERT INTO accounts (a) VALUES (1)", "0A000", .says = "user_id",
		.key = &odd),
	    ROW("SELECT * FROM analytics_events", "42501", .says = "table route",
		.key = &odd),
	    ROW("SELECT * FROM accounts", "MANY merge primary@replica secondary SET",
		.key = &odd_wide, SET(databases, "all")),
	    ROW("SELECT * FROM users", "42501",
		.says = "may not use database \"analytics\"", .key = &odd_wide,
		SET(databases, "primary,analytics")),
	    ROW("SELECT * FROM users", "primary@replica default", .key = &server),
	    ROW("SELECT * FROM analytics_events", "analytics table route",
		.key = &server),
	    ROW("SELECT * FROM accounts",
		"MANY merge primary@replica secondary shard key", .key = &server),
	    ROW("SELECT * FROM accounts", "42501", .says = "may not run federated",
		.key = &plain),
	    ROW("SELECT * FROM users", "42501", .says = "FEDERATE", .key = &plain,
		SET(databases, "primary,secondary")),
	    ROW("SELECT * FROM users", "42501", .says = "login \"clerk\"", .key = &login,
		SET(databases, "all")),
	    ROW("SELECT * FROM users", "42501", .says = "Name one that the key lists",
		.key = &listed),
	    ROW("SELECT 1", "42501", .says = "default", .key = &listed),
	    ROW("SELECT * FROM users", "analytics SET", .key = &listed,
		SET(database, "analytics")),
	    ROW("SELECT * FROM users", "42501",
		.says = "may not use database \"primary\"", .key = &listed,
		SET(database, "primary")),
	    ROW("SELECT * FROM users", "MANY merge secondary analytics SET",
		.key = &listed, SET(databases, "all")),
	    ROW("SELECT * FROM accounts", "42501",
		.says = "may not use database \"primary\"", .key = &listed),
	    ROW("SELECT * FROM accounts WHERE user_id = 1", "secondary shard key",
		.key = &listed),
	    ROW("SELECT * FROM vault.papers", "42501", .says = "table route",
		.key = &listed),
	    ROW("SELECT * FROM users", "analytics key type", .key = &only),
	    ROW("INSERT INTO analytics_events VALUES (1)", "analytics table route",
		.key = &only),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_read_only(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM users", "primary@replica default", .key = &reader),
	    ROW("INSERT INTO users VALUES (1)", "25006", .says = "cannot execute INSERT",
		.key = &reader),
	    ROW("SELECT * FROM users FOR UPDATE", "25006", .says = "locks rows",
		.key = &reader),
	    ROW("DROP TABLE users", "25006", .says = "read-only key", .key = &reader),
	    ROW("DROP TABLE users", "25006", .says = "with a read-only login",
		.key = &reading_login),
	    ROW("WITH x AS (DELETE FROM users RETURNING a) SELECT * FROM x", "25006",
		.says = "cannot execute DELETE with", .key = &reader),
	    ROW("WITH x AS (SELECT 1) INSERT INTO users SELECT * FROM x", "25006",
		.says = "cannot execute INSERT with", .key = &reader),
	    ROW("SELECT * INTO x FROM users", "25006",
		.says = "cannot execute SELECT INTO with", .key = &reader),
	    ROW("SELECT * FROM users FOR NO KEY UPDATE", "25006",
		.says = "cannot execute SELECT FOR NO KEY UPDATE with", .key = &reader),
	    ROW("gibberish", "25006", .says = "not understood", .key = &reader),
	    ROW("VACUUM", "25006", .says = "VACUUM", .key = &reader),
	    ROW("SET work_mem = '1MB'", "primary default", .key = &reader),
	    ROW("DISCARD ALL", "primary default", .key = &reader),
	    ROW("SET CONSTRAINTS ALL DEFERRED", "primary default", .key = &reader),
	    ROW("EXPLAIN DELETE FROM users", "primary default", .key = &reader),
	    ROW("EXPLAIN ANALYZE DELETE FROM users", "25006",
		.says = "cannot execute DELETE", .key = &reader),
	    ROW("BEGIN", "primary default", .key = &reader),
	    ROW("SELECT * FROM vault.papers", "vault table route"),
	    ROW("DELETE FROM vault.papers", "25006",
		.says = "read-only database \"vault\""),
	    ROW("gibberish", "25006", .says = "not understood", SET(database, "vault")),
	    ROW("CREATE VIEW x AS SELECT * FROM vault.papers", "25006", .says = "CREATE"),
	    ROW("VACUUM", "25006", .says = "VACUUM", SET(database, "vault")),
	    ROW("NOTIFY x", "25006", .says = "NOTIFY", SET(database, "vault")),
	    ROW("PREPARE p AS SELECT 1", "25006", .says = "PREPARE",
		SET(database, "vault")),
	    ROW("SELECT nextval('s')", "25006", .says = "a function that may write",
		SET(database, "vault")),
	    ROW("COMMIT PREPARED 'x'", "25006", .says = "COMMIT", SET(database, "vault")),
	    ROW("FETCH c", "vault SET", SET(database, "vault")),
	    ROW("SET work_mem = '1MB'", "vault SET", SET(database, "vault")),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_federated(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT count(*) FROM users", "MANY merge primary@replica secondary SET",
		SET(databases, " Primary , SECONDARY ")),
	    ROW("SELECT count(*) FROM users", "MANY merge secondary primary@replica SET",
		SET(databases, "secondary,primary")),
	    /* Merged, the rows of one database come once: spare has no host. */
	    ROW("SELECT count(*) FROM users",
		"MANY merge primary@replica secondary analytics vault frail SET",
		SET(databases, "all")),
	    ROW("SELECT count(*) FROM users",
		"MANY tag primary secondary analytics vault frail SET",
		.session = {.databases = "all",
		    .federation = "tag",
		    .read_from = "primary"}),
	    ROW("SELECT count(*) FROM users", "MANY tag secondary spare@primary SET",
		.key = &spared,
		.session = {.databases = "all",
		    .federation = "tag",
		    .read_from = "primary"}),
	    ROW("SELECT count(*) FROM users", "primary@replica SET",
		SET(databases, "primary,spare")),
	    ROW("SELECT count(*) FROM users", "secondary SET",
		SET(databases, "secondary")),
	    ROW("SELECT count(*) FROM users", "MANY tag secondary SET",
		.session = {.databases = "secondary", .federation = "tag"}),
	    ROW("SELECT 1", "primary@replica SET", SET(databases, "all")),
	    ROW("SELECT 1", "secondary SET", SET(databases, "secondary,analytics")),
	    ROW("SELECT 1", "MANY tag secondary analytics SET",
		.session = {.databases = "secondary,analytics", .federation = "tag"}),
	    ROW("/* pgweave: federation=tag */ SELECT 1",
		"MANY tag secondary analytics SET",
		SET(databases, "secondary,analytics")),
	    ROW("SELECT a, count(*) FROM users GROUP BY a", "0A000", .says = "GROUP BY",
		SET(databases, "all")),
	    ROW("SELECT a, count(*) FROM users GROUP BY a", "0A000",
		.says = "SET pgweave.federation = 'tag'", SET(databases, "all")),
	    ROW("INSERT INTO users VALUES (1)", "0A000", .says = "only SELECT",
		SET(databases, "all")),
	    ROW("DROP TABLE users", "0A000", .says = "only SELECT",
		SET(databases, "all")),
	    ROW("gibberish", "0A000", .says = "only SELECT", SET(databases, "all")),
	    ROW("COPY users TO STDOUT", "0A000", .says = "only SELECT",
		SET(databases, "all")),
	    ROW("COMMIT", "primary default", SET(databases, "all")),
	    ROW("SELECT 1", "22023", .says = "twice", SET(databases, "primary,Primary")),
	    ROW("SELECT 1", "22023", .says = "primary, secondary",
		SET(databases, "primary,x")),
	    ROW("SELECT 1", "22023", .says = "databases",
		SET(databases, "primary,,secondary")),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_health(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM users", "primary@replica default", .down = "primary"),
	    ROW("SELECT * FROM users", "primary default", .down = "replica"),
	    ROW("SELECT * FROM users", "primary default", .down = "replica",
		.as = TOPO_LAGGING),
	    ROW("SELECT * FROM users", "primary default", .down = "replica",
		.as = TOPO_DRAINING),
	    ROW("INSERT INTO users VALUES (1)", "57P03",
		.says = "database \"primary\" is down", .down = "primary"),
	    ROW("INSERT INTO users VALUES (1)", "57P03",
		.says = "down since 12 s: connection refused", .down = "primary"),
	    ROW("INSERT INTO users VALUES (1)", "57P03", .says = "is in maintenance",
		.down = "primary", .as = TOPO_MAINTENANCE),
	    ROW("INSERT INTO users VALUES (1)", "57P03",
		.says = "\"primary\" is draining and takes no new statements",
		.down = "primary", .as = TOPO_DRAINING),
	    ROW("SELECT * FROM frail_log", "frail@primary table route",
		.says = "database \"frail\" is draining", .down = "frail",
		.as = TOPO_DRAINING),
	    /* Whether the transaction has begun there is not known: it may have. */
	    ROW("INSERT INTO users VALUES (1)", "primary default", .down = "primary",
		.as = TOPO_DRAINING, .in_transaction = true),
	    ROW("SELECT * FROM frail_log", "frail@primary table route",
		.says = "database \"frail\" is down, \"primary\" answers",
		.down = "frail"),
	    ROW("INSERT INTO frail_log VALUES (1)", "57P03", .says = "\"frail\"",
		.down = "frail"),
	    ROW("SELECT * FROM frail_log", "57P03", .says = "\"primary\" is down",
		.down = "frail primary"),
	    ROW("SELECT * FROM analytics_events", "57P03", .says = "\"analytics\"",
		.down = "analytics"),
	    ROW("INSERT INTO spare_notes VALUES (1)", "57P03",
		.says = "\"primary\" is down", .down = "primary"),
	    ROW("SELECT a FROM users", "57P03", .says = "database \"secondary\" is down",
		.down = "secondary", SET(databases, "primary,secondary")),
	    ROW("SELECT a FROM users", "MANY merge primary@replica analytics SET",
		.says = "left out, because they are down: secondary", .down = "secondary",
		.session = {.databases = "primary,secondary,analytics",
		    .on_unavailable = "skip"}),
	    ROW("SELECT a FROM users", "analytics SET", .says = "secondary",
		.down = "secondary",
		.session = {.databases = "secondary,analytics",
		    .on_unavailable = "skip"}),
	    ROW("SELECT a FROM users", "MANY tag analytics SET", .says = "secondary",
		.down = "secondary",
		.session = {.databases = "secondary,analytics",
		    .on_unavailable = "skip",
		    .federation = "tag"}),
	    ROW("SELECT a FROM users", "57P03", .says = "secondary, analytics",
		.down = "secondary analytics",
		.session = {.databases = "secondary,analytics",
		    .on_unavailable = "skip"}),
	    ROW("SELECT * FROM accounts", "57P03", .says = "\"secondary\"",
		.down = "secondary"),
	    /* A fallback answers for one that is down, but not beside itself. */
	    ROW("SELECT a FROM users", "MANY merge frail@primary analytics SET",
		.says = "database \"frail\" is down, \"primary\" answers",
		.down = "frail", .session = {.databases = "frail,analytics"}),
	    ROW("SELECT a FROM users", "57P03", .says = "\"frail\"", .down = "frail",
		.session = {.databases = "frail,primary"}),
	    ROW("SELECT a FROM users", "57P03", .says = "\"frail\"", .down = "frail",
		.session = {.databases = "frail,spare"}),
	    ROW("SELECT a FROM users", "57P03", .says = "\"frail\"",
		.down = "frail primary", .session = {.databases = "frail,analytics"}),
	    ROW("SELECT a FROM users", "MANY merge frail@primary analytics SET",
		.says = "\"primary\" answers; left out, because they are down: secondary",
		.down = "frail secondary",
		.session = {.databases = "frail,analytics,secondary",
		    .on_unavailable = "skip"}),
	    ROW("SELECT a FROM users", "MANY merge analytics primary@replica SET",
		.says = "left out, because they are down: frail", .down = "frail",
		.session = {.databases = "frail,analytics,primary",
		    .on_unavailable = "skip"}),
	    /* A fallback of one that is down is not for keys that may not reach it. */
	    ROW("SELECT a FROM users", "57P03", .says = "\"frail\"", .down = "frail",
		.session = {.databases = "frail"}, .key = &frail),
	    ROW("SELECT * FROM frail_log", "57P03", .says = "\"frail\"", .down = "frail",
		.key = &frail),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_replicas(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM users", "primary default", .in_transaction = true),
	    ROW("SELECT * FROM users", "primary@replica default", .in_transaction = true,
		.is_read_only = true),
	    ROW("SELECT * FROM users", "primary default", SET(read_from, "primary")),
	    ROW("SELECT * FROM users", "primary@replica default",
		SET(read_from, "primary"), LOCAL(read_from, "auto")),
	    ROW("/* pgweave: read_from=primary */ SELECT * FROM users",
		"primary default"),
	    ROW("SELECT * FROM users FOR UPDATE", "primary default",
		SET(read_from, "replica")),
	    ROW("DELETE FROM users", "primary default", SET(read_from, "replica")),
	    ROW("SELECT nextval('s')", "primary default"),
	    ROW("SELECT * FROM users", "primary default", .virt = "dev"),
	    ROW("SELECT * FROM users", "secondary default", .virt = "pair"),
	    ROW("SELECT * FROM users", "secondary default", .virt = "pair",
		SET(read_from, "replica")),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

/* Where several names stand for one database, their tables are together. */
static void
test_one_behind_many(void **state)
{
	static const struct row rows[] = {
	    ROW("SELECT * FROM users, analytics_events", "spare@primary table route",
		.virt = "dev"),
	    ROW("UPDATE accounts SET a = 1", "primary shard key", .virt = "dev"),
	    ROW("SELECT a FROM accounts ORDER BY a", "primary shard key", .virt = "dev"),
	    ROW("SELECT * FROM accounts a, accounts b WHERE a.user_id = 1 AND b.user_id = 2",
		"primary shard key", .virt = "dev"),
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static const struct route_datum *datum;

static bool
one_param(void *arg, unsigned n, struct route_datum *out)
{
	(void)arg;
	(void)n;
	*out = *datum;
	return (true);
}

static void
test_binary(void **state)
{
	static const struct {
		struct route_datum d;
		const char *want;
	} rows[] = {
	    {{(const uint8_t *)"\0\3", 2, 21, true, false, false}, "secondary shard key"},
	    {{(const uint8_t *)"\377\375", 2, 21, true, false, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\4", 4, 23, true, false, false},
		"primary shard key"},
	    {{(const uint8_t *)"\377\377\377\377", 4, 23, true, false, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\0\0\0\0\7", 8, 20, true, false, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\200\0\0\0\0\0\0\0", 8, 20, true, false, false},
		"primary shard key"},
	    {{(const uint8_t *)"\0\0\0\0\0\0\0\7", 8, 0, true, false, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\7", 4, 20, true, false, false}, "22P02"},
	    {{(const uint8_t *)"\0\0\0\7", 4, 25, true, false, false}, "22P02"},
	    /* 3, a fraction; 2^53, to which two integers are equal; a numeric of 3 */
	    {{(const uint8_t *)"\x40\x40\0\0", 4, 700, true, false, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\7", 4, 700, true, false, false},
		"primary shard key"},
	    {{(const uint8_t *)"\x43\x40\0\0\0\0\0\0", 8, 701, true, false, false},
		"0A000"},
	    {{(const uint8_t *)"\0\1\0\0\0\0\0\0\0\3", 10, 1700, true, false, false},
		"secondary shard key"},
	    {{(const uint8_t *)"", 0, 23, true, false, false}, "22P02"},
	    {{NULL, 0, 23, true, true, false}, "primary shard key"},
	};
	static const struct row row = {.sql = "DELETE FROM accounts WHERE user_id = $1"};
	struct route_input in;
	struct route_plan plan;
	struct sql_scan scan;
	char got[512];

	(void)state;
	input_of(&in, &row, &scan);
	in.param = one_param;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		datum = &rows[i].d;
		route_plan(&in, &plan);
		describe(&plan, got, sizeof(got));
		assert_string_equal(got, rows[i].want);
	}
	sql_scan_free(&scan);
}

/* ---- plans again ---- */

/* What the statement's plan leaves to be noted, or NULL. */
static const struct topo_database *
noted(const struct row *row)
{
	struct route_input in;
	struct route_plan plan;
	struct sql_scan scan;

	input_of(&in, row, &scan);
	route_plan(&in, &plan);
	sql_scan_free(&scan);
	return (plan.memo.member);
}

static void
test_repeat(void **state)
{
	static const struct row free_rows[] = {
	    {.sql = "SELECT * FROM users WHERE id = 7"},
	    {.sql = "UPDATE users SET name = 'x' WHERE id = 7"},
	    {.sql = "SELECT * FROM analytics_events"}};
	static const struct row bound_rows[] = {
	    {.sql = "SELECT * FROM accounts WHERE user_id = 7"},
	    {.sql = "SELECT * FROM users", .session = {.database = "secondary"}},
	    {.sql = "SELECT * FROM users", .session = {.read_from = "primary"}},
	    {.sql = "SELECT * FROM users", .local = {.database = "auto"}},
	    {.sql = "SELECT * FROM users", .member = "secondary"},
	    {.sql = "/* pgweave: read_from=primary */ SELECT * FROM users"}};
	struct route_input in;
	struct route_plan plan, again;
	struct sql_scan scan;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(free_rows); i++)
		assert_non_null(noted(&free_rows[i]));
	for (size_t i = 0; i < ARRAY_LEN(bound_rows); i++)
		assert_null(noted(&bound_rows[i]));
	/* The server is chosen anew. */
	input_of(&in, &free_rows[1], &scan);
	route_plan(&in, &plan);
	set_status("primary", TOPO_DOWN, "connection refused");
	assert_false(route_repeat(&plan.memo, &in, &again));
	set_status("primary", TOPO_HEALTHY, NULL);
	assert_true(route_repeat(&plan.memo, &in, &again));
	sql_scan_free(&scan);
}

/* ---- primaries that move ---- */

static struct route_plan
plan_of(const char *sql, bool (*is_open)(void *, const struct topo_database *),
    const char *where)
{
	struct row row = {.sql = sql, .in_transaction = is_open != NULL};
	struct route_input in;
	struct route_plan plan;
	struct sql_scan scan;

	input_of(&in, &row, &scan);
	in.is_open = is_open;
	in.open_arg = (void *)(uintptr_t)where;
	route_plan(&in, &plan);
	sql_scan_free(&scan);
	return (plan);
}

static bool
open_at(void *arg, const struct topo_database *d)
{
	return (strcmp(d->name, arg) == 0);
}

static void
goes(const char *sql, const char *node)
{
	struct route_plan p = plan_of(sql, NULL, NULL);

	if (p.way != ROUTE_ONE || strcmp(p.legs[0].node->name, node) != 0)
		fail_msg("%s: %s, want %s", sql,
		    p.way == ROUTE_ONE ? p.legs[0].node->name : p.message, node);
	assert_string_equal(p.legs[0].member->name, "primary");
}

static void
test_promotion(void **state)
{
	struct topo_verdict *root = topo_verdict("primary"),
			    *copy = topo_verdict("replica");
	struct route_plan p;

	(void)state;
	atomic_store(&root->role, TOPO_ROLE_PRIMARY);
	atomic_store(&copy->role, TOPO_ROLE_REPLICA);
	goes("INSERT INTO users VALUES (1)", "primary");
	goes("SELECT * FROM users", "replica");
	/* Promoted while the old one is down. */
	set_status("primary", TOPO_DOWN, "gone");
	atomic_store(&copy->role, TOPO_ROLE_PRIMARY);
	atomic_store(&root->primary, copy);
	goes("INSERT INTO users VALUES (1)", "replica");
	goes("SELECT * FROM users", "replica");
	/* The old one follows. */
	set_status("primary", TOPO_HEALTHY, NULL);
	atomic_store(&root->role, TOPO_ROLE_REPLICA);
	goes("INSERT INTO users VALUES (1)", "replica");
	goes("SELECT * FROM users", "primary");
	/* A transaction goes on where it is. */
	p = plan_of("SELECT * FROM users", open_at, "primary");
	assert_string_equal(p.legs[0].node->name, "primary");
	set_status("replica", TOPO_DRAINING, "by admin");
	p = plan_of("INSERT INTO users VALUES (1)", open_at, "replica");
	assert_string_equal(p.legs[0].node->name, "replica");
	p = plan_of("INSERT INTO users VALUES (1)", open_at, "nowhere");
	assert_string_equal(p.sqlstate, "57P03");
	assert_string_equal(p.message,
	    "database \"replica\", the primary of \"primary\", is draining and takes no "
	    "new statements");
	set_status("replica", TOPO_HEALTHY, NULL);
	/* Two of them: reads go on, nothing is written. */
	atomic_store(&root->role, TOPO_ROLE_PRIMARY);
	atomic_store(&root->is_fenced, true);
	atomic_store(&root->rival, root);
	p = plan_of("INSERT INTO users VALUES (1)", NULL, NULL);
	assert_string_equal(p.sqlstate, "57P03");
	assert_string_equal(p.message,
	    "\"replica\" and \"primary\" both claim to be the primary: nothing is "
	    "written");
	goes("SELECT * FROM users", "replica");
	atomic_store(&root->rival, NULL);
	atomic_store(&root->is_fenced, false);
	/* None of them. */
	atomic_store(&root->primary, root);
	atomic_store(&root->role, TOPO_ROLE_REPLICA);
	atomic_store(&copy->role, TOPO_ROLE_REPLICA);
	p = plan_of("INSERT INTO users VALUES (1)", NULL, NULL);
	assert_string_equal(p.sqlstate, "57P03");
	assert_non_null(strstr(p.message, "is in recovery"));
	goes("SELECT * FROM users", "replica");
	atomic_store(&root->role, TOPO_ROLE_UNKNOWN);
	atomic_store(&copy->role, TOPO_ROLE_UNKNOWN);
	atomic_store(&root->primary, NULL);
}

/* One that was down gets few reads at first. */
static void
test_slow_start(void **state)
{
	struct topo_verdict *copy = topo_verdict("replica");
	unsigned at_replica = 0;

	(void)state;
	set_status("replica", TOPO_HALF_OPEN, NULL);
	for (int i = 0; i < 80; i++)
		at_replica +=
		    strcmp(plan_of("SELECT * FROM users", NULL, NULL).legs[0].node->name,
			"replica") == 0;
	assert_int_equal(at_replica, 10);
	/* The clock of the tests stands at 13 s. */
	set_status("replica", TOPO_HEALTHY, NULL);
	at_replica = 0;
	atomic_store(&copy->risen_us, 13000000 - 5000000);
	for (int i = 0; i < 80; i++)
		at_replica +=
		    strcmp(plan_of("SELECT * FROM users", NULL, NULL).legs[0].node->name,
			"replica") == 0;
	assert_in_range(at_replica, 30, 60);
	/* It is better than nothing. */
	set_status("primary", TOPO_DOWN, NULL);
	for (int i = 0; i < 16; i++)
		goes("SELECT * FROM users", "replica");
	set_status("primary", TOPO_HEALTHY, NULL);
	atomic_store(&copy->risen_us, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_repeat),
	    cmocka_unit_test(test_pins),
	    cmocka_unit_test(test_members),
	    cmocka_unit_test(test_levels),
	    cmocka_unit_test(test_shards),
	    cmocka_unit_test(test_keys),
	    cmocka_unit_test(test_read_only),
	    cmocka_unit_test(test_federated),
	    cmocka_unit_test(test_health),
	    cmocka_unit_test(test_promotion),
	    cmocka_unit_test(test_slow_start),
	    cmocka_unit_test(test_replicas),
	    cmocka_unit_test(test_one_behind_many),
	    cmocka_unit_test(test_binary),
	};

	return (cmocka_run_group_tests(tests, start, finish));
}
