/* route: statement, settings and key -> member, node, rule or SQLSTATE; and the reasons. */
#include "route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char config[] =
    "[pgweave]\n"
    "listen_addr = 127.0.0.1\n"
    "[database primary]\nhost = 127.0.0.1\n"
    "[database secondary]\nhost = 127.0.0.1\nport = 5433\n"
    "[database analytics]\nhost = 127.0.0.1\nport = 5434\n"
    "[database vault]\nhost = 127.0.0.1\nport = 5435\nread_only = yes\n"
    "[database spare]\nfallback = primary\n"
    "[database frail]\nhost = 127.0.0.1\nport = 5436\n"
    "fallback = primary\nfallback_on_down = reads\n"
    "[database replica]\nhost = 127.0.0.1\nport = 5437\n"
    "replica_of = primary\n"
    "[virtual bank]\n"
    "default = primary\n"
    "members = primary, secondary, analytics, vault, spare, frail\n"
    "read_from = replica\n"
    "[route bank]\n"
    "analytics_events, user_activity = analytics\n"
    "vault.* = vault\n"
    "spare_notes = spare\n"
    "frail_log = frail\n"
    "[shard bank]\n"
    "tables = accounts, transactions\n"
    "key = user_id\n"
    "function = modulo\n"
    "members = primary, secondary\n"
    "[virtual pair]\n"
    "default = secondary\n"
    "members = analytics, secondary\n"
    "[virtual dev]\n"
    "default = primary\n"
    "members = primary, spare\n"
    "[route dev]\n"
    "analytics_events = spare\n"
    "[shard dev]\n"
    "tables = accounts\n"
    "key = user_id\n"
    "members = primary, spare\n";

static struct topo *topo;
static struct sql_cache *cache;

static const char *some[] = {"secondary", "analytics"};
static const char *one[] = {"analytics"};
static const char *unsafe[] = {"frail"};
static const char *shards[] = {"primary", "secondary"};

static const struct topo_key client = {
    .id = "vb_client", .virtual_ = "bank", .type = TOPO_KEY_CLIENT};
static const struct topo_key even = {.id = "vb_even",
    .virtual_ = "bank",
    .type = TOPO_KEY_DATABASE,
    .has_user_id = true,
    .user_id = 42};
static const struct topo_key odd = {.id = "vb_odd",
    .virtual_ = "bank",
    .type = TOPO_KEY_DATABASE,
    .has_user_id = true,
    .user_id = -43};
static const struct topo_key odd_wide = {.id = "vb_wide",
    .virtual_ = "bank",
    .type = TOPO_KEY_DATABASE,
    .has_user_id = true,
    .user_id = 43,
    .can_federate = true,
    .databases = shards,
    .database_count = 2};
static const struct topo_key server = {
    .id = "vb_server", .virtual_ = "bank", .type = TOPO_KEY_SERVER, .can_federate = true};
static const struct topo_key plain = {
    .id = "vb_plain", .virtual_ = "bank", .type = TOPO_KEY_SERVER};
static const struct topo_key listed = {.id = "vb_listed",
    .virtual_ = "bank",
    .type = TOPO_KEY_SERVER,
    .can_federate = true,
    .databases = some,
    .database_count = 2};
static const struct topo_key only = {.id = "vb_only",
    .virtual_ = "bank",
    .type = TOPO_KEY_SERVER,
    .databases = one,
    .database_count = 1};
static const struct topo_key frail = {.id = "vb_frail",
    .virtual_ = "bank",
    .type = TOPO_KEY_SERVER,
    .databases = unsafe,
    .database_count = 1};
static const struct topo_key reader = {
    .id = "vb_reader", .virtual_ = "bank", .type = TOPO_KEY_SERVER, .is_read_only = true};
static const struct topo_key login = {
    .id = "clerk", .virtual_ = "", .type = TOPO_KEY_SERVER, .can_federate = false};

/* A statement with all around it, and what becomes of it: "member[@node] rule", "MANY merge a
 * b rule", or a SQLSTATE; says: words of the message, detail, hint or warning. */
#define SET(field, value)   .session = {.field = value}
#define LOCAL(field, value) .local = {.field = value}
struct row {
	const char *sql;
	const char *want, *says;
	const struct topo_key *key;
	struct route_said local, session;
	const char *member, *virt;
	const char *params[2]; /* text */
	const char *down;
	enum topo_status as; /* 0: down */
	bool in_transaction, is_read_only;
};

static int
start(void **state)
{
	struct conf_problems p = {0};

	(void)state;
	topo = topo_build(conf_load_text("t.ini", config, strlen(config), &p), &p);
	for (size_t i = 0; i < p.count; i++)
		print_error("%s\n", p.lines[i]);
	conf_problems_free(&p);
	cache = sql_cache_create(1 << 20);
	return (topo != NULL ? 0 : -1);
}

static int
finish(void **state)
{
	(void)state;
	sql_cache_destroy(cache);
	topo_release(topo);
	topo_verdicts_free();
	return (0);
}

static bool
text_param(void *arg, unsigned n, struct route_datum *out)
{
	const struct row *row = arg;

	if (n > ARRAY_LEN(row->params) || row->params[n - 1] == NULL)
		return (false);
	*out = (struct route_datum){.is_null = strcmp(row->params[n - 1], "NULL") == 0,
	    .p = (const uint8_t *)row->params[n - 1],
	    .len = strlen(row->params[n - 1])};
	return (true);
}

static void
set_status(const char *names, enum topo_status status, const char *reason)
{
	char list[128], *save = NULL;

	if (names == NULL)
		return;
	(void)text_copy(list, sizeof(list), names);
	for (char *name = strtok_r(list, " ", &save); name != NULL;
	     name = strtok_r(NULL, " ", &save))
		topo_verdict_set(topo_verdict(name), status, 1000000, reason);
}

static void
input_of(struct route_input *in, const struct row *row, struct sql_scan *scan)
{
	sql_scan(row->sql, strlen(row->sql), scan);
	*in = (struct route_input){
	    .virt = topo_virtual_find(topo, row->virt != NULL ? row->virt : "bank"),
	    .key = row->key,
	    .member = row->member,
	    .scan = scan,
	    .facts = sql_facts_get(cache, scan),
	    .local = row->local,
	    .session = row->session,
	    .param = text_param,
	    .arg = (void *)(uintptr_t)row,
	    .in_transaction = row->in_transaction,
	    .is_read_only = row->is_read_only,
	    .now_us = 13000000,
	};
	assert_non_null(in->virt);
}

static void
describe(const struct route_plan *plan, char *to, size_t size)
{
	size_t at = 0;

	if (plan->way == ROUTE_REFUSED) {
		(void)snprintf(to, size, "%s", plan->sqlstate);
		return;
	}
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

static void
test_members(void **state)
{
	static const struct row rows[] = {
	    {"SELECT 1", "primary@replica default"},
	    {"INSERT INTO users VALUES (1)", "primary default"},
	    {"SELECT * FROM users", "primary@replica default"},
	    {"SELECT * FROM analytics_events", "analytics table route"},
	    {"SELECT * FROM public.user_activity", "analytics table route"},
	    {"SELECT * FROM vault.papers", "vault table route"},
	    {"SELECT * FROM analytics_events a JOIN user_activity u ON true",
		"analytics table route"},
	    {"SELECT * FROM analytics.public.users", "analytics catalog"},
	    {"SELECT * FROM \"Analytics\".public.users", "analytics catalog"},
	    {"SELECT * FROM bank.public.analytics_events", "analytics table route"},
	    {"SELECT * FROM nowhere.public.users", "primary@replica default"},
	    {"SELECT * FROM pg_class", "primary default"},
	    {"SELECT * FROM analytics_events, pg_class", "analytics table route"},
	    {"SELECT * FROM secondary.public.accounts", "secondary catalog"},
	    {"SELECT * FROM users, analytics_events", "0A000",
		"\"users\" is on database \"primary\", \"analytics_events\" on \"analytics\""},
	    {"SELECT * FROM analytics.public.a, vault.papers", "0A000", "\"analytics\""},
	    {"gibberish", "primary default"},
	    {"CREATE TABLE analytics_events (a int)", "analytics table route"},
	    {"BEGIN", "primary default"},
	    {"SET work_mem = '1MB'", "primary default"},
	    {"SELECT * FROM spare_notes", "spare@replica table route"},
	    {"INSERT INTO spare_notes VALUES (1)", "spare@primary table route"},
	    {"UPDATE users SET a = 1 FROM spare_notes", "spare@primary table route"},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_levels(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM users", "analytics SET", SET(database, "analytics")},
	    {"SELECT * FROM users", "analytics SET", SET(database, "ANALYTICS")},
	    {"SELECT * FROM users", "secondary SET LOCAL", SET(database, "analytics"),
		LOCAL(database, "secondary")},
	    {"/* pgweave: database=secondary */ SELECT * FROM users", "secondary comment",
		SET(database, "analytics")},
	    {"/* pgweave: database=secondary */ SELECT * FROM users",
		"analytics SET LOCAL", LOCAL(database, "analytics")},
	    {"SELECT * FROM users", "analytics dbname", .member = "analytics"},
	    {"SELECT * FROM users", "secondary SET", .member = "analytics",
		SET(database, "secondary")},
	    {"SELECT * FROM users", "primary@replica default", .member = "analytics",
		SET(database, "auto")},
	    {"SELECT * FROM users", "primary@replica default", SET(database, "analytics"),
		LOCAL(database, "")},
	    /* A level beats a weaker one, whichever of the two it says. */
	    {"SELECT * FROM users", "secondary SET LOCAL", SET(databases, "all"),
		LOCAL(database, "secondary")},
	    {"SELECT * FROM users", "MANY merge primary@replica secondary SET LOCAL",
		SET(database, "analytics"), LOCAL(databases, "primary,secondary")},
	    {"SELECT * FROM users", "MANY merge primary@replica secondary SET",
		.session = {.database = "analytics", .databases = "primary, secondary"}},
	    {"SELECT * FROM users", "analytics SET",
		.session = {.database = "analytics", .databases = ""}},
	    /* Strong words overrule catalogs, shard keys and routes. */
	    {"SELECT * FROM secondary.public.t, analytics_events", "primary@replica SET",
		SET(database, "primary")},
	    {"UPDATE accounts SET user_id = 3", "secondary SET",
		SET(database, "secondary")},
	    {"SELECT 1", "22023", "Allowed are '' (automatic), primary, secondary",
		SET(database, "nowhere")},
	    {"/* pgweave: database=nowhere */ SELECT 1", "22023", "\"nowhere\""},
	    {"/* pgweave: datbase=primary */ SELECT 1", "22023", "datbase"},
	    {"SELECT 1", "3D000", "\"bank.nowhere\"", .member = "nowhere"},
	    {"SELECT 1", "22023", "merge, tag", SET(federation, "both")},
	    {"SELECT 1", "22023", "error, skip", LOCAL(on_unavailable, "never")},
	    {"SELECT 1", "22023", "primary, replica, auto", LOCAL(read_from, "x")},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_shards(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM accounts WHERE user_id = 42", "primary@replica shard key"},
	    {"SELECT * FROM accounts WHERE user_id = 43", "secondary shard key"},
	    {"SELECT * FROM public.accounts WHERE user_id = '43'", "secondary shard key"},
	    {"SELECT * FROM accounts WHERE user_id = -43", "secondary shard key"},
	    {"SELECT * FROM accounts WHERE user_id = 99999999999999999999999999999999999991",
		"secondary shard key"},
	    {"UPDATE accounts SET a = 1 WHERE user_id = 43 AND a = 2",
		"secondary shard key"},
	    {"DELETE FROM accounts WHERE user_id = $1", "secondary shard key",
		.params = {"-3"}},
	    {"DELETE FROM accounts WHERE user_id = $1", "primary shard key",
		.params = {" 4.00 "}},
	    {"INSERT INTO accounts (user_id, a) VALUES ($1, $2)", "secondary shard key",
		.params = {"7", "8"}},
	    {"INSERT INTO accounts (a, user_id) VALUES (1, 3), (2, 5)",
		"secondary shard key"},
	    {"INSERT INTO accounts (a, user_id) VALUES (1, 3), (2, 4)", "0A000",
		"Split the INSERT"},
	    {"INSERT INTO accounts (user_id) VALUES (NULL)", "22004", "user_id"},
	    {"INSERT INTO accounts (user_id) VALUES ($1)", "22004", "user_id",
		.params = {"NULL"}},
	    {"INSERT INTO accounts (user_id) VALUES (random())", "0A000", "not known"},
	    {"INSERT INTO accounts (a) VALUES (1)", "0A000", "\"user_id\""},
	    {"UPDATE accounts SET user_id = 5 WHERE user_id = 3", "0A000",
		"cannot change"},
	    {"UPDATE accounts SET a = 5", "0A000", "SET pgweave.shard_key"},
	    {"UPDATE accounts SET a = 5 WHERE user_id IN (1, 2)", "0A000", "Split it"},
	    {"UPDATE accounts SET a = 5 WHERE user_id IN (1, 3)", "secondary shard key"},
	    {"CREATE INDEX ON accounts (a)", "0A000", "on each of them"},
	    {"SELECT * FROM accounts WHERE user_id = NULL", "primary@replica shard key"},
	    {"SELECT * FROM accounts WHERE user_id = 1 AND user_id = 2",
		"primary@replica shard key"},
	    {"SELECT * FROM accounts WHERE user_id = $1", "primary@replica shard key"},
	    {"SELECT * FROM accounts WHERE user_id = 'abc'", "22P02",
		"must be an integer"},
	    {"SELECT * FROM accounts WHERE user_id = 1.5", "22P02", "1.5"},
	    {"SELECT * FROM accounts WHERE user_id = $1", "22P02", "\"x\"",
		.params = {"x"}},
	    /* Several shards, or no word of one. */
	    {"SELECT * FROM accounts", "MANY merge primary@replica secondary shard key"},
	    {"SELECT * FROM accounts WHERE user_id IN (1, 2, 3)",
		"MANY merge primary@replica secondary shard key"},
	    {"SELECT * FROM accounts WHERE user_id IN (1, 3, NULL)",
		"secondary shard key"},
	    {"SELECT * FROM accounts WHERE user_id > 3",
		"MANY merge primary@replica secondary shard key"},
	    {"SELECT * FROM accounts ORDER BY 1", "0A000", "cannot be merged exactly"},
	    {"SELECT * FROM accounts ORDER BY 1",
		"MANY tag primary@replica secondary shard key", SET(federation, "TAG")},
	    {"COPY accounts TO STDOUT", "0A000", "only SELECT"},
	    /* The setting counts where the statement has no value. */
	    {"SELECT * FROM accounts", "secondary shard key", SET(shard_key, "43")},
	    {"SELECT * FROM accounts", "primary@replica shard key", SET(shard_key, "43"),
		LOCAL(shard_key, "42")},
	    {"UPDATE accounts SET a = 1", "secondary shard key", SET(shard_key, "43")},
	    {"SELECT * FROM accounts WHERE user_id = 42", "primary@replica shard key",
		SET(shard_key, "43")},
	    {"SELECT * FROM accounts", "22023", "shard_key", SET(shard_key, "x")},
	    {"SELECT * FROM users", "primary@replica default", SET(shard_key, "43")},
	    /* Tables of a group are together on one shard only. */
	    {"SELECT * FROM accounts a JOIN transactions t ON a.user_id = t.user_id "
	     "WHERE a.user_id = 43 AND t.user_id = 45",
		"secondary shard key"},
	    {"SELECT * FROM accounts a JOIN transactions t ON a.id = t.id "
	     "WHERE a.user_id = 43 AND t.user_id = 44",
		"0A000", "joins \"accounts\" and \"transactions\""},
	    {"SELECT * FROM accounts a JOIN transactions t ON a.id = t.id "
	     "WHERE a.user_id = 43",
		"0A000", "joins"},
	    {"SELECT * FROM accounts a JOIN transactions t ON a.id = t.id "
	     "WHERE a.user_id = 43",
		"secondary shard key", SET(shard_key, "1")},
	    {"SELECT * FROM accounts a JOIN users u ON u.id = a.id WHERE a.user_id = 42",
		"primary@replica shard key"},
	    {"SELECT * FROM accounts a JOIN users u ON u.id = a.id WHERE a.user_id = 43",
		"0A000",
		"\"accounts\" is on database \"secondary\", \"users\" on \"primary\""},
	    {"WITH x AS (DELETE FROM accounts WHERE user_id = 43 RETURNING a) SELECT * FROM x",
		"secondary shard key"},
	    {"SELECT * FROM accounts WHERE user_id = 43 OR a = 1",
		"MANY merge primary@replica secondary shard key"},
	    {"SELECT * FROM accounts a LEFT JOIN transactions t "
	     "ON a.user_id = 43 AND t.user_id = 43",
		"0A000", "joins"},
	    {"SELECT * FROM accounts WHERE user_id = 43 AND EXISTS "
	     "(SELECT FROM transactions t WHERE t.user_id = 43)",
		"secondary shard key"},
	    {"INSERT INTO accounts (user_id) SELECT user_id FROM transactions "
	     "WHERE user_id = 43",
		"0A000", "accounts"},
	    {"EXPLAIN SELECT * FROM accounts", "0A000", "cannot be merged exactly"},
	    {"SELECT * FROM users u, accounts a", "0A000", "several databases"},
	    {"SELECT * FROM accounts a, users u", "0A000", "several databases"},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_keys(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM users", "primary@replica key type", .key = &client},
	    {"SELECT * FROM analytics_events", "42501",
		"key \"vb_client\" of type client may only use database \"primary\"",
		.key = &client},
	    {"SELECT * FROM analytics_events", "42501",
		"table route: analytics_events is on database \"analytics\"",
		.key = &client},
	    {"SELECT * FROM analytics.public.x", "42501", "catalog", .key = &client},
	    {"SELECT * FROM accounts WHERE user_id = 43", "42501", "shard key",
		.key = &client},
	    {"SELECT * FROM accounts WHERE user_id = 42", "primary@replica shard key",
		.key = &client},
	    {"SELECT * FROM users", "42501", "SET names \"analytics\"", .key = &client,
		SET(database, "analytics")},
	    {"SELECT * FROM users", "primary@replica SET", .key = &client,
		SET(database, "primary")},
	    {"SELECT * FROM users", "42501", "may not run federated", .key = &client,
		SET(databases, "all")},
	    {"RESET pgweave.databases", "primary key type", .key = &client,
		SET(databases, "all")},
	    {"SELECT * FROM users", "primary@replica key type", .key = &even},
	    {"SELECT * FROM users", "secondary key type", .key = &odd},
	    {"SELECT * FROM users", "primary key type", .key = &even, .virt = "dev",
		SET(read_from, "primary")},
	    {"SELECT 1", "secondary key type", .key = &even, .virt = "pair"},
	    {"SELECT 1", "analytics key type", .key = &odd, .virt = "pair"},
	    {"SELECT * FROM accounts", "secondary key type", .key = &odd},
	    {"SELECT * FROM accounts WHERE user_id = 45", "secondary shard key",
		.key = &odd},
	    {"SELECT * FROM accounts WHERE user_id = 44", "42501",
		"of type database may only use database \"secondary\"", .key = &odd},
	    {"SELECT * FROM accounts WHERE user_id IN (44, 45)", "42501", "\"accounts\"",
		.key = &odd},
	    {"UPDATE accounts SET a = 1", "secondary key type", .key = &odd},
	    {"INSERT INTO accounts (a) VALUES (1)", "0A000", "user_id", .key = &odd},
	    {"SELECT * FROM analytics_events", "42501", "table route", .key = &odd},
	    {"SELECT * FROM accounts", "MANY merge primary@replica secondary SET",
		.key = &odd_wide, SET(databases, "all")},
	    {"SELECT * FROM users", "42501", "may not use database \"analytics\"",
		.key = &odd_wide, SET(databases, "primary,analytics")},
	    {"SELECT * FROM users", "primary@replica default", .key = &server},
	    {"SELECT * FROM analytics_events", "analytics table route", .key = &server},
	    {"SELECT * FROM accounts", "MANY merge primary@replica secondary shard key",
		.key = &server},
	    {"SELECT * FROM accounts", "42501", "may not run federated", .key = &plain},
	    {"SELECT * FROM users", "42501", "FEDERATE", .key = &plain,
		SET(databases, "primary,secondary")},
	    {"SELECT * FROM users", "42501", "login \"clerk\"", .key = &login,
		SET(databases, "all")},
	    {"SELECT * FROM users", "42501", "Name one that the key lists",
		.key = &listed},
	    {"SELECT 1", "42501", "default", .key = &listed},
	    {"SELECT * FROM users", "analytics SET", .key = &listed,
		SET(database, "analytics")},
	    {"SELECT * FROM users", "42501", "may not use database \"primary\"",
		.key = &listed, SET(database, "primary")},
	    {"SELECT * FROM users", "MANY merge secondary analytics SET", .key = &listed,
		SET(databases, "all")},
	    {"SELECT * FROM accounts", "42501", "may not use database \"primary\"",
		.key = &listed},
	    {"SELECT * FROM accounts WHERE user_id = 1", "secondary shard key",
		.key = &listed},
	    {"SELECT * FROM vault.papers", "42501", "table route", .key = &listed},
	    {"SELECT * FROM users", "analytics key type", .key = &only},
	    {"INSERT INTO analytics_events VALUES (1)", "analytics table route",
		.key = &only},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_read_only(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM users", "primary@replica default", .key = &reader},
	    {"INSERT INTO users VALUES (1)", "25006", "cannot execute INSERT",
		.key = &reader},
	    {"SELECT * FROM users FOR UPDATE", "25006", "locks rows", .key = &reader},
	    {"DROP TABLE users", "25006", "read-only key", .key = &reader},
	    {"gibberish", "25006", "not understood", .key = &reader},
	    {"VACUUM", "25006", "VACUUM", .key = &reader},
	    {"SET work_mem = '1MB'", "primary default", .key = &reader},
	    {"DISCARD ALL", "primary default", .key = &reader},
	    {"SET CONSTRAINTS ALL DEFERRED", "primary default", .key = &reader},
	    {"EXPLAIN DELETE FROM users", "primary default", .key = &reader},
	    {"EXPLAIN ANALYZE DELETE FROM users", "25006", "EXPLAIN", .key = &reader},
	    {"BEGIN", "primary default", .key = &reader},
	    {"SELECT * FROM vault.papers", "vault table route"},
	    {"DELETE FROM vault.papers", "25006", "read-only database \"vault\""},
	    {"gibberish", "25006", "not understood", SET(database, "vault")},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_federated(void **state)
{
	static const struct row rows[] = {
	    {"SELECT count(*) FROM users", "MANY merge primary@replica secondary SET",
		SET(databases, " Primary , SECONDARY ")},
	    {"SELECT count(*) FROM users", "MANY merge secondary primary@replica SET",
		SET(databases, "secondary,primary")},
	    /* Merged, the rows of one database come once: spare has no host, replica copies. */
	    {"SELECT count(*) FROM users",
		"MANY merge primary@replica secondary analytics vault frail SET",
		SET(databases, "all")},
	    {"SELECT count(*) FROM users",
		"MANY tag primary secondary analytics vault spare@primary frail SET",
		.session = {.databases = "all",
		    .federation = "tag",
		    .read_from = "primary"}},
	    {"SELECT count(*) FROM users", "primary@replica SET",
		SET(databases, "primary,spare")},
	    {"SELECT count(*) FROM users", "secondary SET", SET(databases, "secondary")},
	    {"SELECT count(*) FROM users", "MANY tag secondary SET",
		.session = {.databases = "secondary", .federation = "tag"}},
	    {"SELECT 1", "primary@replica SET", SET(databases, "all")},
	    {"SELECT 1", "secondary SET", SET(databases, "secondary,analytics")},
	    {"SELECT 1", "MANY tag secondary analytics SET",
		.session = {.databases = "secondary,analytics", .federation = "tag"}},
	    {"/* pgweave: federation=tag */ SELECT 1", "MANY tag secondary analytics SET",
		SET(databases, "secondary,analytics")},
	    {"SELECT a, count(*) FROM users GROUP BY a", "0A000", "GROUP BY",
		SET(databases, "all")},
	    {"SELECT a, count(*) FROM users GROUP BY a", "0A000",
		"SET pgweave.federation = 'tag'", SET(databases, "all")},
	    {"INSERT INTO users VALUES (1)", "0A000", "only SELECT",
		SET(databases, "all")},
	    {"DROP TABLE users", "0A000", "only SELECT", SET(databases, "all")},
	    {"gibberish", "0A000", "only SELECT", SET(databases, "all")},
	    {"COPY users TO STDOUT", "0A000", "only SELECT", SET(databases, "all")},
	    {"COMMIT", "primary default", SET(databases, "all")},
	    {"SELECT 1", "22023", "twice", SET(databases, "primary,Primary")},
	    {"SELECT 1", "22023", "primary, secondary", SET(databases, "primary,x")},
	    {"SELECT 1", "22023", "databases", SET(databases, "primary,,secondary")},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_health(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM users", "primary@replica default", .down = "primary"},
	    {"SELECT * FROM users", "primary default", .down = "replica"},
	    {"SELECT * FROM users", "primary default", .down = "replica",
		.as = TOPO_LAGGING},
	    {"SELECT * FROM users", "primary default", .down = "replica",
		.as = TOPO_DRAINING},
	    {"SELECT * FROM users", "primary@replica default", .down = "replica",
		.as = TOPO_HALF_OPEN},
	    {"INSERT INTO users VALUES (1)", "57P03", "database \"primary\" is down",
		.down = "primary"},
	    {"INSERT INTO users VALUES (1)", "57P03",
		"down since 12 s: connection refused", .down = "primary"},
	    {"INSERT INTO users VALUES (1)", "57P03", "is in maintenance",
		.down = "primary", .as = TOPO_MAINTENANCE},
	    {"INSERT INTO users VALUES (1)", "primary default", .down = "primary",
		.as = TOPO_DRAINING},
	    {"SELECT * FROM frail_log", "frail@primary table route",
		"database \"frail\" is down, \"primary\" answers", .down = "frail"},
	    {"INSERT INTO frail_log VALUES (1)", "57P03", "\"frail\"", .down = "frail"},
	    {"SELECT * FROM frail_log", "57P03", "\"primary\" is down",
		.down = "frail primary"},
	    {"SELECT * FROM analytics_events", "57P03", "\"analytics\"",
		.down = "analytics"},
	    {"INSERT INTO spare_notes VALUES (1)", "57P03", "\"primary\" is down",
		.down = "primary"},
	    {"SELECT a FROM users", "57P03", "database \"secondary\" is down",
		.down = "secondary", SET(databases, "primary,secondary")},
	    {"SELECT a FROM users", "MANY merge primary@replica analytics SET",
		"left out, because they are down: secondary", .down = "secondary",
		.session = {.databases = "primary,secondary,analytics",
		    .on_unavailable = "skip"}},
	    {"SELECT a FROM users", "analytics SET", "secondary", .down = "secondary",
		.session = {.databases = "secondary,analytics",
		    .on_unavailable = "skip"}},
	    {"SELECT a FROM users", "MANY tag analytics SET", "secondary",
		.down = "secondary",
		.session = {.databases = "secondary,analytics",
		    .on_unavailable = "skip",
		    .federation = "tag"}},
	    {"SELECT a FROM users", "57P03", "secondary, analytics",
		.down = "secondary analytics",
		.session = {.databases = "secondary,analytics",
		    .on_unavailable = "skip"}},
	    {"SELECT * FROM accounts", "57P03", "\"secondary\"", .down = "secondary"},
	    /* A fallback of one that is down is not for keys that may not reach it. */
	    {"SELECT * FROM frail_log", "57P03", "\"frail\"", .down = "frail",
		.key = &frail},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

static void
test_replicas(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM users", "primary default", .in_transaction = true},
	    {"SELECT * FROM users", "primary@replica default", .in_transaction = true,
		.is_read_only = true},
	    {"SELECT * FROM users", "primary default", SET(read_from, "primary")},
	    {"SELECT * FROM users", "primary@replica default", SET(read_from, "primary"),
		LOCAL(read_from, "auto")},
	    {"/* pgweave: read_from=primary */ SELECT * FROM users", "primary default"},
	    {"SELECT * FROM users FOR UPDATE", "primary default",
		SET(read_from, "replica")},
	    {"DELETE FROM users", "primary default", SET(read_from, "replica")},
	    {"SELECT nextval('s')", "primary default"},
	    {"SELECT * FROM users", "primary default", .virt = "dev"},
	    {"SELECT * FROM users", "secondary default", .virt = "pair"},
	    {"SELECT * FROM users", "secondary default", .virt = "pair",
		SET(read_from, "replica")},
	};

	(void)state;
	check_rows(rows, ARRAY_LEN(rows));
}

/* Where several names stand for one database, their tables are together. */
static void
test_one_behind_many(void **state)
{
	static const struct row rows[] = {
	    {"SELECT * FROM users, analytics_events", "spare@primary table route",
		.virt = "dev"},
	    {"UPDATE accounts SET a = 1", "primary shard key", .virt = "dev"},
	    {"SELECT a FROM accounts ORDER BY a", "primary shard key", .virt = "dev"},
	    {"SELECT * FROM accounts a, accounts b WHERE a.user_id = 1 AND b.user_id = 2",
		"primary shard key", .virt = "dev"},
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
	    {{(const uint8_t *)"\0\3", 2, 21, true, false}, "secondary shard key"},
	    {{(const uint8_t *)"\377\375", 2, 21, true, false}, "secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\4", 4, 23, true, false}, "primary shard key"},
	    {{(const uint8_t *)"\377\377\377\377", 4, 23, true, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\0\0\0\0\7", 8, 20, true, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\200\0\0\0\0\0\0\0", 8, 20, true, false},
		"primary shard key"},
	    {{(const uint8_t *)"\0\0\0\0\0\0\0\7", 8, 0, true, false},
		"secondary shard key"},
	    {{(const uint8_t *)"\0\0\0\7", 4, 20, true, false}, "22P02"},
	    {{(const uint8_t *)"\0\0\0\7", 4, 700, true, false}, "22P02"},
	    {{(const uint8_t *)"", 0, 23, true, false}, "22P02"},
	    {{NULL, 0, 23, true, true}, "primary shard key"},
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
	for (size_t i = 0; route_settings[i] != NULL; i++)
		assert_true(route_check_setting(v, NULL, route_settings[i], "", sqlstate,
		    message, sizeof(message), detail, sizeof(detail)));
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
	    cmocka_unit_test(test_members),
	    cmocka_unit_test(test_levels),
	    cmocka_unit_test(test_shards),
	    cmocka_unit_test(test_keys),
	    cmocka_unit_test(test_read_only),
	    cmocka_unit_test(test_federated),
	    cmocka_unit_test(test_health),
	    cmocka_unit_test(test_replicas),
	    cmocka_unit_test(test_one_behind_many),
	    cmocka_unit_test(test_binary),
	    cmocka_unit_test(test_settings),
	    cmocka_unit_test(test_explain),
	    cmocka_unit_test(test_explain_refused),
	    cmocka_unit_test(test_explain_many),
	};

	return (cmocka_run_group_tests(tests, start, finish));
}
