/* What the tests of route share: one configuration, some keys, and statements with all that is
 * around them. */
#ifndef ROUTE_FIXTURE_H
#define ROUTE_FIXTURE_H
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
static const char *spares[] = {"spare", "secondary"};
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
    .can_federate = true,
    .databases = unsafe,
    .database_count = 1};
static const struct topo_key reader = {
    .id = "vb_reader", .virtual_ = "bank", .type = TOPO_KEY_SERVER, .is_read_only = true};
static const struct topo_key login = {
    .id = "clerk", .virtual_ = "", .type = TOPO_KEY_SERVER, .is_login = true};
static const struct topo_key reading_login = {.id = "bob",
    .virtual_ = "bank",
    .type = TOPO_KEY_SERVER,
    .is_login = true,
    .is_read_only = true};
static const struct topo_key spared = {.id = "vb_spared",
    .virtual_ = "bank",
    .type = TOPO_KEY_SERVER,
    .can_federate = true,
    .databases = spares,
    .database_count = 2};

/* A statement with all around it, and what becomes of it: "member[@node] rule", "MANY merge a
 * b rule", or a SQLSTATE; says: words of the message, detail, hint or warning. */
#define ROW(text, result, ...)                                                           \
	{                                                                                \
		.sql = text, .want = result, __VA_ARGS__                                 \
	}
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
	bool is_pinned; /* see pinned_table() */
	const char *at; /* the cursor's member */
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

/* The session has temporary tables of these names. */
static const struct topo_database *
pinned_table(void *arg, const struct sql_table *t)
{
	const struct topo_virtual *v = topo_virtual_find(topo, arg);

	if (t->schema != NULL && strcmp(t->schema, "pg_temp") != 0)
		return (NULL);
	return (strcmp(t->name, "mine") == 0     ? topo_member_find(v, "analytics")
		: strcmp(t->name, "papers") == 0 ? topo_member_find(v, "primary")
						 : NULL);
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
	    .pinned = row->is_pinned ? pinned_table : NULL,
	    .pinned_arg = (void *)(uintptr_t) "bank",
	    .pinned_at = row->at != NULL
			     ? topo_member_find(topo_virtual_find(topo, "bank"), row->at)
			     : NULL,
	    .now_us = 13000000,
	};
	assert_non_null(in->virt);
}

/* What is noted of a plan gives the same one again; nothing is noted of one that hangs on more
 * than the facts. */
static void
check_repeat(const struct route_input *in, const struct route_plan *plan)
{
	struct route_plan again;
	struct route_input bare = {.virt = in->virt,
	    .key = in->key,
	    .facts = in->facts,
	    .now_us = in->now_us,
	    .wrote_us = in->wrote_us};

	if (plan->memo.member == NULL)
		return;
	assert_true(plan->way == ROUTE_ONE && plan->leg_count == 1 &&
		    plan->rule != ROUTE_BY_SHARD && plan->rule > ROUTE_BY_DBNAME);
	if (in->in_transaction || plan->warning[0] != '\0')
		return;
	memset(&again, 'x', sizeof(again));
	assert_true(route_repeat(&plan->memo, &bare, &again));
	assert_true(again.way == ROUTE_ONE && again.leg_count == 1);
	assert_ptr_equal(again.legs[0].member, plan->legs[0].member);
	assert_int_equal(again.on_replica, plan->on_replica);
	if (!plan->on_replica)
		assert_ptr_equal(again.legs[0].node, plan->legs[0].node);
	assert_int_equal(again.is_write, plan->is_write);
	assert_int_equal(again.calls_writer, plan->calls_writer);
	assert_string_equal(again.warning, "");
	assert_ptr_equal(again.memo.member, plan->memo.member);
}

#endif
