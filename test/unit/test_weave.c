/* topo: databases behind one name: virtual databases, routes, shards, models, keys, jobs. */
#include "topo.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VERIFIER                                                                         \
	"SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"      \
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define KEY "vb_0123456789abcdef0123456789abcdef"

/* Lines 1 to 12: databases p, s, a, and r, a replica of p; virtual database bank. */
#define HEAD                                                                             \
	"[pgweave]\nauth_type = trust\nverbose = 0\n"                                    \
	"[databases]\np = host=p\ns = host=s\na = host=a\nr = host=r replica_of=p\n"     \
	"[virtual bank]\nmembers = p, s, a\n"

static struct topo *
build(const char *text, struct conf_problems *p)
{
	return (topo_build(conf_load_text("t.ini", text, strlen(text), p), p));
}

static void
expect_lines(char **lines, size_t count, const char *want)
{
	struct buf seen = {0};

	for (size_t i = 0; i < count; i++)
		buf_addf(&seen, "%s\n", lines[i]);
	buf_add(&seen, "", 1);
	assert_string_equal((char *)seen.mem, want);
	buf_free(&seen);
}

/* The text has exactly these problems, one a line. */
static void
expect_problems(const char *text, const char *want)
{
	struct conf_problems p = {0};

	assert_null(build(text, &p));
	expect_lines(p.lines, p.count, want);
	conf_problems_free(&p);
}

/* The text has no problem and these warnings. The caller releases the result. */
static struct topo *
expect_fine(const char *text, const char *warnings)
{
	struct conf_problems p = {0};
	struct topo *t = build(text, &p);

	expect_lines(p.lines, p.count, "");
	assert_non_null(t);
	/* The first says that nobody can log in. */
	assert_int_not_equal(p.warning_count, 0);
	expect_lines(p.warnings + 1, p.warning_count - 1, warnings);
	conf_problems_free(&p);
	return (t);
}

/* ---- databases that speak of others ---- */

static void
databases_stand_in_for_others(void **state)
{
	struct topo *t = expect_fine(
	    "[pgweave]\nauth_type = trust\nverbose = 0\n"
	    "[database p]\nhost = p\nregion = eu\nmax_overflow = 3\n"
	    "health_interval = 200ms\nhealth_fall = 5\n"
	    "[database s]\nhost =\nfallback = p\nfallback_on_down = reads\n"
	    "read_only = yes\n"
	    "[databases]\nr = host=r replica_of=p max_lag=500ms fallback=s\n* =\n",
	    "");
	const struct topo_database *p = topo_database_find(t, "p"),
				   *s = topo_database_find(t, "s"),
				   *r = topo_database_find(t, "r");

	(void)state;
	assert_string_equal(p->region, "eu");
	assert_int_equal(p->max_overflow, 3);
	assert_int_equal(p->health_interval, 200000);
	assert_int_equal(p->health_timeout, -1);
	assert_int_equal(p->health_fall, 5);
	assert_int_equal(p->health_rise, -1);
	assert_int_equal(p->max_lag, 10000000);
	assert_true(p->is_configured);
	assert_false(p->is_read_only);
	assert_null(p->fallback);
	assert_ptr_equal(p->verdict, topo_verdict("p"));
	assert_false(s->is_configured);
	assert_ptr_equal(s->fallback, p);
	assert_int_equal(s->fallback_on_down, TOPO_FALLBACK_READS);
	assert_true(s->is_read_only);
	assert_int_equal(s->host_count, 1);
	assert_string_equal(s->hosts[0].host, "");
	assert_string_equal(s->region, "");
	assert_true(r->is_configured);
	assert_ptr_equal(r->replica_of, p);
	assert_ptr_equal(r->fallback, s);
	assert_int_equal(r->max_lag, 500000);
	assert_null(topo_database_find(t, "whatever")->verdict);
	topo_release(t);
}

static void
wrong_relations_are_explained(void **state)
{
	(void)state;
	expect_problems(
	    "[database primary]\nhost = x\n[database a]\nfallback = primry\n"
	    "replica_of = a\n[database b]\nfallback = c\n[database c]\n"
	    "fallback = d\n[database d]\nhost = x\nfallback = b\n"
	    "[database e]\nreplica_of = f\n[database f]\nreplica_of = primary\n"
	    "[databases]\ng = fallback=* host=x\n* = fallback=primary\n"
	    "h = fallback=h\n",
	    "t.ini:4: fallback: there is no database \"primry\", allowed are primary, a, b, c, "
	    "d, e, f, g, h, did you mean \"primary\"?\n"
	    "t.ini:5: replica_of: \"a\" is the database itself, allowed is another one\n"
	    "t.ini:18: g: fallback: there is no database \"*\", allowed are primary, a, b, c, "
	    "d, e, f, g, h, did you mean \"a\"?\n"
	    "t.ini:19: *: fallback: * is no database of its own, allowed is a database with a "
	    "name\n"
	    "t.ini:20: h: fallback: \"h\" is the database itself, allowed is another one\n"
	    "t.ini:7: fallback: b -> c -> d -> b goes round, allowed is a chain that ends\n"
	    "t.ini:14: replica_of: \"f\" is a replica itself, allowed is its primary "
	    "\"primary\"\n");
}

/* ---- virtual databases ---- */

static void
a_virtual_database_has_members(void **state)
{
	struct topo *t =
	    expect_fine(HEAD "default = s\nread_from = r\nfederation = tag\n"
			     "on_unavailable = skip\nhub = off\ncausal_reads = off\n"
			     "[virtual other]\nmembers = a\nread_from = primary\n",
		"");
	const struct topo_virtual *v = topo_virtual_find(t, "bank");

	(void)state;
	assert_int_equal(topo_virtual_count(t), 2);
	assert_ptr_equal(topo_virtual(t, 0), v);
	assert_null(topo_virtual_find(t, "Bank"));
	assert_int_equal(v->member_count, 3);
	assert_string_equal(v->members[2]->name, "a");
	assert_string_equal(v->dflt->name, "s");
	assert_ptr_equal(topo_member_find(v, "S"), v->dflt);
	assert_null(topo_member_find(v, "r"));
	assert_int_equal(v->read_from_count, 1);
	assert_string_equal(v->read_from[0]->name, "r");
	assert_int_equal(v->federation, 1);
	assert_true(v->skips_unavailable);
	assert_int_equal(v->at.line, 9);
	v = topo_virtual(t, 1);
	assert_string_equal(v->dflt->name, "a");
	assert_int_equal(v->read_from_count, 0);
	assert_int_equal(v->federation, 0);
	assert_false(v->skips_unavailable);
	topo_release(t);
}

static void
what_is_not_done_yet_is_said(void **state)
{
	(void)state;
	topo_release(expect_fine(HEAD
	    "causal_reads = on\nhub = managed\ntwo_phase = on\nfailover_hold = 5s\n"
	    "federation_mem = 64MB\ngather_max_bytes = 1GB\naudit = async\n"
	    "[databases]\nbank.a = host=x\n",
	    "t.ini:13: two_phase: accepted, but not done yet: a transaction that writes on a "
	    "second member is refused\n"
	    "t.ini:12: hub: accepted, but not done yet: a statement that needs the rows of "
	    "several members in one place is refused\n"
	    "t.ini:15: federation_mem: accepted, but not done yet: it limits nothing\n"
	    "t.ini:16: gather_max_bytes: accepted, but not done yet: it limits nothing\n"
	    "t.ini:17: audit: accepted, but not done yet: there is no audit trail\n"
	    "t.ini:19: bank.a: hides the member of that name of [virtual bank]\n"));
}

static void
wrong_virtual_databases_are_explained(void **state)
{
	(void)state;
	expect_problems(HEAD "default = r\nread_from = s\naudit = sync\nhub = x\n"
			     "pool_size = 3\nmax_lag = 3\nfedration = tag\n"
			     "[virtual p]\nmembers = P, s, s, r\ndefault = a\n"
			     "[virtual pgweave]\n[virtual]\n",
	    "t.ini:22: [virtual]: the name is missing, allowed is [virtual NAME]\n"
	    "t.ini:13: audit: \"sync\" is refused: not supported yet, allowed are off, async, "
	    "did you mean \"async\"?\n"
	    "t.ini:15: pool_size: not known here, it belongs in [database x]: virtual "
	    "databases pool by transaction, and sizes are their databases'\n"
	    "t.ini:16: max_lag: not known here, it belongs in [database x], [databases]\n"
	    "t.ini:17: fedration: no such key, did you mean \"federation\"?\n"
	    "t.ini:11: default: there is no member \"r\", allowed are p, s, a, did you mean "
	    "\"p\"?\n"
	    "t.ini:12: read_from: there is no replica of a member named \"s\", allowed are "
	    "primary, r, did you mean \"r\"?\n"
	    "t.ini:14: hub: there is no database \"x\", allowed are p, s, a, r, did you mean "
	    "\"p\"?\n"
	    "t.ini:18: p: the database at t.ini:5 has this name, a virtual database must have "
	    "another\n"
	    "t.ini:19: members: there is no database \"P\", allowed are p, s, a, r, did you "
	    "mean \"p\"?\n"
	    "t.ini:19: members: \"s\" stands there twice, allowed is once\n"
	    "t.ini:19: members: \"r\" is a replica of \"p\", allowed are primaries; reads go "
	    "to replicas by read_from\n"
	    "t.ini:20: default: there is no member \"a\", allowed are s, did you "
	    "mean \"s\"?\n"
	    "t.ini:21: pgweave: this name is the console's, a virtual database must have "
	    "another\n"
	    "t.ini:21: members: missing, allowed are names of databases\n");
	expect_problems(HEAD "read_from = Primary, r\n",
	    "t.ini:11: read_from: primary stands beside other names, allowed is primary "
	    "alone, or names of replicas: when none of them is fit, reads go to the primary "
	    "anyway\n");
}

/* ---- routes ---- */

static const char *
route_of(const struct topo_virtual *v, const char *schema, const char *table)
{
	const struct topo_route *r = topo_route_find(v, schema, table);

	return (r != NULL ? r->database->name : "-");
}

static void
tables_have_routes(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[route bank]\n*_log = a\nEvents, \"Events\", archive.moves = s\n"
	    "archive.* = a\npublic.users = s\nold_*.x*y* = s\nx_log = p\n"
	    "\"*star\" = s\n\"Up\"* = a\n\"a,b\" = s\n[route bank]\nlast = A\n",
	    "");
	const struct topo_virtual *v = topo_virtual_find(t, "bank");

	(void)state;
	/* An exact name before a pattern, however they are written. */
	assert_string_equal(route_of(v, NULL, "x_log"), "p");
	assert_string_equal(route_of(v, NULL, "y_log"), "a");
	assert_string_equal(route_of(v, "public", "y_log"), "a");
	assert_string_equal(route_of(v, "other", "y_log"), "-");
	assert_string_equal(route_of(v, NULL, "events"), "s");
	assert_string_equal(route_of(v, NULL, "Events"), "s");
	assert_string_equal(route_of(v, NULL, "EVENTS"), "-");
	assert_string_equal(route_of(v, "archive", "moves"), "s");
	assert_string_equal(route_of(v, "archive", "events"), "a");
	assert_string_equal(route_of(v, NULL, "moves"), "-");
	assert_string_equal(route_of(v, NULL, "users"), "s");
	assert_string_equal(route_of(v, "public", "users"), "s");
	assert_string_equal(route_of(v, "old_1", "xy"), "s");
	assert_string_equal(route_of(v, "old_", "xaybyc"), "s");
	assert_string_equal(route_of(v, "old_1", "xz"), "-");
	assert_string_equal(route_of(v, NULL, "*star"), "s");
	assert_string_equal(route_of(v, NULL, "astar"), "-");
	assert_string_equal(route_of(v, NULL, "Upper"), "a");
	assert_string_equal(route_of(v, NULL, "upper"), "-");
	assert_string_equal(route_of(v, NULL, "a,b"), "s");
	assert_string_equal(route_of(v, NULL, "last"), "a");
	assert_int_equal(v->exact_count, 8);
	assert_int_equal(v->route_count, 12);
	assert_string_equal(v->routes[0].pattern, "Events");
	assert_string_equal(v->routes[0].table, "events");
	assert_int_equal(v->routes[0].at.line, 13);
	assert_string_equal(v->routes[8].pattern, "*_log");
	assert_null(v->routes[8].warning);
	topo_release(t);
}

static void
patterns_that_decide_nothing_are_told(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[route bank]\nab* = a\nabc* = s\nabcd = s\n*b* = p\na*b = p\n"
	    "z.* = a\n*.q* = s\nz.q = p\nz.qq* = p\n",
	    "t.ini:13: abc*: never reached: ab* at t.ini:12 matches all of it first\n"
	    "t.ini:16: a*b: never reached: *b* at t.ini:15 matches all of it first\n"
	    "t.ini:20: z.qq*: never reached: z.* at t.ini:17 matches all of it first\n");
	const struct topo_virtual *v = topo_virtual_find(t, "bank");

	(void)state;
	assert_string_equal(route_of(v, NULL, "abcx"), "a");
	assert_string_equal(v->routes[3].warning,
	    "never reached: ab* at t.ini:12 matches all of it first");
	topo_release(t);
}

static void
wrong_routes_are_explained(void **state)
{
	(void)state;
	expect_problems(HEAD
	    "[route bnk]\nx = p\n[route bank]\na, b., c.d.e, two words = p\n"
	    "f = r\ng, h = s\nH = a\npublic.g = p\n\"H\" = p\n",
	    "t.ini:11: [route bnk]: there is no virtual database \"bnk\", allowed are bank, "
	    "did you mean \"bank\"?\n"
	    "t.ini:14: b.: has an empty part, allowed are table, schema.table and patterns "
	    "with *\n"
	    "t.ini:14: c.d.e: has too many parts, allowed are table, schema.table and patterns "
	    "with *\n"
	    "t.ini:14: two words: has a blank outside double quotes, allowed are table, "
	    "schema.table and patterns with *\n"
	    "t.ini:15: f: there is no member \"r\", allowed are p, s, a, did you mean \"p\"?\n"
	    "t.ini:17: H: this table is already given at t.ini:16\n"
	    "t.ini:18: public.g: this table is already given at t.ini:16\n");
}

/* ---- shards and models ---- */

static void
tables_are_sharded(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[shard bank]\ntables = accounts, \"Moves\", s.t\nkey = User_Id\n"
	    "members = S, p\n[route bank]\nacc* = a\n"
	    "[shard bank other]\ntables = x\nkey = \"Id\"\nmembers = a\n"
	    "[virtual my bank]\nmembers = p\n"
	    "[shard my bank]\ntables = m\nkey = k\nmembers = p\n"
	    "[shard bank]\nfunction = modulo\n",
	    "");
	const struct topo_virtual *v = topo_virtual_find(t, "bank");
	const struct topo_shard *s = topo_shard_find(v, NULL, "accounts");

	(void)state;
	assert_int_equal(v->shard_count, 2);
	assert_ptr_equal(s, &v->shards[0]);
	assert_string_equal(s->key, "user_id");
	assert_int_equal(s->function, TOPO_SHARD_MODULO);
	assert_int_equal(s->member_count, 2);
	assert_string_equal(s->members[0]->name, "s");
	assert_ptr_equal(topo_shard_find(v, "public", "accounts"), s);
	assert_ptr_equal(topo_shard_find(v, NULL, "Moves"), s);
	assert_null(topo_shard_find(v, NULL, "moves"));
	assert_ptr_equal(topo_shard_find(v, "s", "t"), s);
	assert_null(topo_shard_find(v, NULL, "t"));
	/* A pattern says nothing of a table that is sharded. */
	assert_null(topo_route_find(v, NULL, "accounts"));
	assert_string_equal(topo_shard_find(v, NULL, "x")->key, "Id");
	assert_non_null(topo_shard_find(topo_virtual(t, 1), NULL, "m"));
	topo_release(t);
}

static void
models_have_tables(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[route bank]\nevents = a\nuser_activity = s\n[shard bank]\n"
	    "tables = accounts\nkey = id\nmembers = p, s\n[model bank]\n"
	    "Event = events\nUserActivity = S\nHTTPRequestLog = a\nAccount = accounts\n"
	    "Old = archive.\"Old\"\n",
	    "");
	const struct topo_virtual *v = topo_virtual_find(t, "bank");

	(void)state;
	assert_int_equal(v->model_count, 5);
	assert_string_equal(v->models[0].model, "Event");
	assert_string_equal(v->models[0].table, "events");
	assert_null(v->models[0].database);
	assert_string_equal(topo_model_database(v, &v->models[0])->name, "a");
	assert_string_equal(v->models[1].table, "user_activity");
	assert_string_equal(v->models[1].database->name, "s");
	assert_string_equal(v->models[2].table, "http_request_log");
	/* A model's database is a route of its table. */
	assert_string_equal(route_of(v, NULL, "http_request_log"), "a");
	assert_int_equal(v->route_count, 3);
	assert_null(topo_model_database(v, &v->models[3]));
	assert_string_equal(v->models[4].schema, "archive");
	assert_string_equal(v->models[4].name, "Old");
	assert_string_equal(topo_model_database(v, &v->models[4])->name, "p");
	topo_release(t);
}

static void
wrong_shards_and_models_are_explained(void **state)
{
	(void)state;
	expect_problems(HEAD
	    "[route bank]\nx = a\n[shard bank]\ntables = x, y*, z, z\nkey = a.b\n"
	    "function = hsh\nmembers = p, P, r\n[shard bank two]\n[shard bnk two]\n"
	    "[model bank]\nX = p\nX = s\nY = r\nZ = z*\n",
	    "t.ini:22: X: this model is already given at t.ini:21\n"
	    "t.ini:23: Y: there is no member \"r\", allowed are p, s, a, did you mean \"p\"?\n"
	    "t.ini:24: Z: \"z*\" is a pattern, allowed are a table, schema.table and a "
	    "member\n"
	    "t.ini:16: function: \"hsh\" is none of the words, allowed are modulo, hash, range, "
	    "list, did you mean \"hash\"?\n"
	    "t.ini:14: tables: \"y*\" is a pattern, allowed are table and schema.table\n"
	    "t.ini:15: key: \"a.b\" is not one name, allowed is the name of a column\n"
	    "t.ini:17: members: \"P\" stands there twice, allowed is once\n"
	    "t.ini:17: members: there is no member \"r\", allowed are p, s, a, did you mean "
	    "\"p\"?\n"
	    "t.ini:18: tables: missing, allowed are names of tables\n"
	    "t.ini:18: key: missing, allowed is the name of a column\n"
	    "t.ini:18: members: missing, allowed are members of bank\n"
	    "t.ini:19: [shard bnk two]: there is no virtual database \"bnk two\", allowed are "
	    "bank\n"
	    "t.ini:21: x: this table is already given at t.ini:12\n"
	    "t.ini:14: x: this table has a route at t.ini:12, allowed is a route or a shard\n"
	    "t.ini:14: z: this table is already given at t.ini:14\n");
}

/* ---- keys ---- */

static void
a_key_says_what_it_may(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[key " KEY "]\nsecret = " VERIFIER "\nname = reporting\ntype = database\n"
	    "virtual = bank\nuser_id = -1\ndatabases = P, a\nrights = federate\n"
	    "operate = yes\nread_only = yes\nnetworks = 10.0.0.0/8, ::1\nrate = 10/min\n"
	    "concurrency = 20\nexpires = 2027-01-01\n"
	    "roles = P app_ro, \"a\" \"the role\"\ncreated = 2026-01-01 10:00\n",
	    "");
	const struct topo_key *k = topo_key_find(t, KEY);

	(void)state;
	assert_int_equal(topo_key_count(t), 1);
	assert_ptr_equal(topo_key(t, 0), k);
	assert_null(topo_key_find(t, "VB_0123456789abcdef0123456789abcdef"));
	assert_string_equal(k->secret, VERIFIER);
	assert_string_equal(k->name, "reporting");
	assert_int_equal(k->type, TOPO_KEY_DATABASE);
	assert_string_equal(k->virtual_, "bank");
	assert_true(k->has_user_id);
	assert_int_equal(k->user_id, -1);
	assert_int_equal(k->database_count, 2);
	assert_string_equal(k->databases[0], "p");
	assert_true(k->can_federate && k->can_operate && k->is_read_only);
	assert_false(k->can_replicate || k->is_revoked);
	assert_int_equal(k->network_count, 2);
	assert_int_equal(k->rate, 10);
	assert_int_equal(k->rate_us, 60000000);
	assert_int_equal(k->concurrency, 20);
	assert_int_equal(k->expires_us, INT64_C(1798761600000000));
	assert_true(k->is_from_file);
	assert_int_equal(k->at.line, 11);
	assert_string_equal(k->text.expires, "2027-01-01");
	assert_ptr_equal(k->use, topo_key_use(KEY));
	assert_true(topo_key_may_reach(k, "p") && topo_key_may_reach(k, "A"));
	assert_false(topo_key_may_reach(k, "s"));
	assert_string_equal(topo_key_role(k, "p"), "app_ro");
	assert_string_equal(topo_key_role(k, "A"), "the role");
	assert_null(topo_key_role(k, "s"));
	topo_release(t);
}

static void
a_login_may_do_all_but_what_is_said(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[login app]\nfederate = no\n[login ro]\nrights = replicate\n"
	    "operate = yes\ndatabases = r, S\nread_only = yes\naudit = async\n"
	    "[users]\nplain = pool_size=3\n[login none]\nrights = none\n",
	    "t.ini:18: audit: accepted, but not done yet: there is no audit trail\n");
	const struct topo_key *k = topo_login_find(t, "app")->rules;

	(void)state;
	assert_null(topo_login_find(t, "plain")->rules);
	assert_int_equal(k->type, TOPO_KEY_SERVER);
	assert_string_equal(k->virtual_, "");
	assert_false(k->can_federate);
	assert_true(k->can_replicate && k->can_operate);
	assert_true(topo_key_may_reach(k, "anything"));
	assert_ptr_not_equal(k->use, topo_key_use("app"));
	k = topo_login_find(t, "ro")->rules;
	assert_true(k->can_replicate && k->can_operate && k->is_read_only);
	assert_false(k->can_federate);
	assert_true(topo_key_may_reach(k, "r") && topo_key_may_reach(k, "s"));
	assert_false(topo_key_may_reach(k, "p"));
	k = topo_login_find(t, "none")->rules;
	assert_false(k->can_federate || k->can_replicate || k->can_operate);
	assert_int_equal(topo_key_count(t), 0);
	assert_null(topo_key_find(t, "app"));
	topo_release(t);
}

static void
wrong_keys_are_explained(void **state)
{
	(void)state;
	expect_problems(HEAD
	    "[users]\nalice =\n[key alice]\nsecret = " VERIFIER "\ntype = database\n"
	    "virtual = bnk\ndatabases = nonsense\n"
	    "[key x y]\n"
	    "[key ok]\nsecret = hunter2\ntype = servr\nvirtual = bank\n"
	    "databases = s, S, r\nrights = federate, fly\nnetworks = 10.0.0.0/33, x\n"
	    "rate = 5/y\nconcurrency = x\nexpires = 2027-02-29\nread_only = maybe\n"
	    "roles = p a b, r x, s\nuser_id = 1.5\n"
	    "[login a]\nsecret = x\ndatabases = bank\n",
	    "t.ini:13: alice: a login has this name, a key must have another\n"
	    "t.ini:13: id: \"alice\" is not the id of a key, allowed is vb_ (key_prefix) and "
	    "32 hexadecimal digits behind it\n"
	    "t.ini:13: user_id: missing, a key of type database is for one user\n"
	    "t.ini:16: virtual: there is no virtual database \"bnk\", allowed are bank, did you "
	    "mean \"bank\"?\n"
	    "t.ini:18: id: \"x y\" is not the id of a key, allowed is vb_ (key_prefix) and "
	    "32 hexadecimal digits behind it\n"
	    "t.ini:18: type: missing, allowed are database, client, server\n"
	    "t.ini:18: virtual: missing, allowed is the name of a virtual database such as "
	    "bank\n"
	    "t.ini:18: secret: missing, allowed is the SCRAM verifier that `pgweave key create "
	    "--print` makes\n"
	    "t.ini:19: id: \"ok\" is not the id of a key, allowed is vb_ (key_prefix) and "
	    "32 hexadecimal digits behind it\n"
	    "t.ini:20: secret: this is not a SCRAM verifier, allowed is "
	    "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey\n"
	    "t.ini:21: type: \"servr\" is none of the words, allowed are database, client, "
	    "server, did you mean \"server\"?\n"
	    "t.ini:31: user_id: \"1.5\" is not a number, allowed are -9223372036854775808 to "
	    "9223372036854775807\n"
	    "t.ini:23: databases: \"s\" stands there twice, allowed is once\n"
	    "t.ini:23: databases: there is no member \"r\", allowed are p, s, a, did you mean "
	    "\"p\"?\n"
	    "t.ini:30: roles: \"p a b\" is not a database and a role, allowed is for example "
	    "primary app_ro, analytics report\n"
	    "t.ini:30: roles: there is no member \"r\", allowed are p, s, a, did you mean "
	    "\"p\"?\n"
	    "t.ini:30: roles: \"s\" is not a database and a role, allowed is for example "
	    "primary app_ro, analytics report\n"
	    "t.ini:24: rights: there is no right \"fly\", allowed are federate, replicate, "
	    "operate, none\n"
	    "t.ini:25: networks: \"10.0.0.0/33\" is not a network, allowed are addresses, "
	    "networks such as 10.0.0.0/8 and 2001:db8::/32, and local\n"
	    "t.ini:25: networks: \"x\" is not a network, allowed are addresses, networks such "
	    "as 10.0.0.0/8 and 2001:db8::/32, and local\n"
	    "t.ini:26: rate: \"5/y\" is not a rate, allowed are 1 to 1000000000 per s, min, h "
	    "or d such as 100/s\n"
	    "t.ini:27: concurrency: \"x\" is not a number, allowed are 0 to 1000000\n"
	    "t.ini:29: read_only: \"maybe\" is neither yes nor no, allowed are 1, 0, yes, no, "
	    "on, off, true, false\n"
	    "t.ini:28: expires: \"2027-02-29\" is not a date, allowed are 2027-01-31 and "
	    "2027-01-31 23:59:59+02\n"
	    "t.ini:33: secret: not known here, it belongs in [key x]\n"
	    "t.ini:34: databases: there is no database \"bank\", allowed are p, s, a, r\n");
}

/* The key of these words, or NULL: why. The caller releases *out. */
static const struct topo_key *
store_key(const struct topo *t, const struct topo_key_text *text, const struct topo **out)
{
	*out = topo_with_keys(t, text, 1);
	return (topo_key_find(*out, text->id));
}

static int64_t
date_of(const struct topo *t, const char *date)
{
	struct topo_key_text text = {.id = "k",
	    .secret = VERIFIER,
	    .type = "server",
	    .virtual_ = "bank",
	    .expires = date};
	const struct topo *with;
	const struct topo_key *k = store_key(t, &text, &with);
	int64_t us = k != NULL ? k->expires_us : -1;

	topo_release(with);
	return (us);
}

static void
dates_and_rates_are_read(void **state)
{
	static const char *const wrong_dates[] = {"2027", "2027-13-01", "2027-00-01",
	    "2027-04-31", "2100-02-29", "2027-01-01 24:00", "2027-01-01 10",
	    "2027-01-01x", "2027-01-01 10:00:00.", "2027-01-01 10:00+1",
	    "2027-01-01 10:00+16", "0000-01-01", "2027-1-01", "2027-01-01 10:00Zx",
	    "2027-01-01 10:00:00+02:"};
	static const char *const wrong_rates[] = {
	    "5", "/s", "0/s", "5/", "5/ss", "99999999999/s", "-1/s", "5/s s"};
	struct topo_key_text text = {.type = "server", .virtual_ = "bank"};
	struct topo *t = expect_fine(HEAD, "");
	char why[256];

	(void)state;
	assert_int_equal(date_of(t, "2027-01-01"), INT64_C(1798761600000000));
	assert_int_equal(date_of(t, "2027-01-01 00:00Z"), INT64_C(1798761600000000));
	assert_int_equal(
	    date_of(t, "2027-01-01T00:00:00.000001"), INT64_C(1798761600000001));
	assert_int_equal(date_of(t, "2027-01-01 02:30+02:30"), INT64_C(1798761600000000));
	assert_int_equal(date_of(t, "2026-12-31 21:00:00-03"), INT64_C(1798761600000000));
	assert_int_equal(date_of(t, "2027-01-01 02:30 +0230"), INT64_C(1798761600000000));
	assert_int_equal(
	    date_of(t, "2028-02-29 12:34:56.789"), INT64_C(1835440496789000));
	assert_int_equal(date_of(t, "1999-12-31 23:59:59"), INT64_C(946684799000000));
	/* 0 would be never. */
	assert_int_equal(date_of(t, "1970-01-01"), 1);
	for (size_t i = 0; i < ARRAY_LEN(wrong_dates); i++) {
		text.expires = wrong_dates[i];
		assert_false(topo_key_check(t, &text, why, sizeof(why)));
		assert_memory_equal(why, "expires: ", 9);
	}
	text.expires = NULL;
	for (size_t i = 0; i < ARRAY_LEN(wrong_rates); i++) {
		text.rate = wrong_rates[i];
		assert_false(topo_key_check(t, &text, why, sizeof(why)));
		assert_memory_equal(why, "rate: ", 6);
	}
	text.rate = "1000 / H";
	assert_true(topo_key_check(t, &text, why, sizeof(why)));
	topo_release(t);
}

static void
verifiers_are_known_by_their_form(void **state)
{
	static const char *const wrong[] = {"x", "md5abc", "SCRAM-SHA-256$",
	    "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA",
	    "SCRAM-SHA-256$0:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
	    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	    "SCRAM-SHA-256$4096:c2FsdA=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
	    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	    VERIFIER "x", VERIFIER ":"};
	struct topo_key_text text = {.type = "client", .virtual_ = "bank"};
	struct topo *t = expect_fine(HEAD, "");
	char why[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		text.secret = wrong[i];
		assert_false(topo_key_check(t, &text, why, sizeof(why)));
		assert_memory_equal(why, "secret: ", 8);
	}
	text.secret = VERIFIER;
	assert_true(topo_key_check(t, &text, why, sizeof(why)));
	text.type = "database";
	assert_false(topo_key_check(t, &text, why, sizeof(why)));
	assert_string_equal(
	    why, "user_id: missing, a key of type database is for one user");
	topo_release(t);
}

static const char *
bars(const struct topo_key *k, const char *addr, int64_t at_us)
{
	uint8_t bytes[16] = {0};

	if (addr == NULL)
		return (topo_key_bars(k, 0, NULL, at_us));
	if (inet_pton(AF_INET, addr, bytes) == 1)
		return (topo_key_bars(k, AF_INET, bytes, at_us));
	assert_int_equal(inet_pton(AF_INET6, addr, bytes), 1);
	return (topo_key_bars(k, AF_INET6, bytes, at_us));
}

static void
keys_are_barred(void **state)
{
	struct topo_key_text text = {.id = "k",
	    .secret = VERIFIER,
	    .type = "server",
	    .virtual_ = "bank",
	    .expires = "2027-01-01",
	    .networks = "10.1.0.0/15, 192.168.1.1, 2001:db8::/33, ::ffff:172.16.0.0/108"};
	struct topo *t = expect_fine(HEAD, "");
	const struct topo *with;
	const struct topo_key *k = store_key(t, &text, &with);

	(void)state;
	assert_null(bars(k, "10.0.255.255", 1));
	assert_null(bars(k, "10.1.2.3", 1));
	assert_null(bars(k, "::ffff:10.1.2.3", 1));
	assert_null(bars(k, "192.168.1.1", 1));
	assert_null(bars(k, "2001:db8:7fff::1", 1));
	assert_null(bars(k, "172.31.0.1", 1));
	assert_string_equal(bars(k, "10.2.0.0", 1), "network");
	assert_string_equal(bars(k, "192.168.1.2", 1), "network");
	assert_string_equal(bars(k, "2001:db8:8000::", 1), "network");
	assert_string_equal(bars(k, "172.32.0.1", 1), "network");
	assert_string_equal(bars(k, NULL, 1), "network");
	assert_null(bars(k, "10.1.2.3", INT64_C(1798761599999999)));
	assert_string_equal(bars(k, "10.1.2.3", INT64_C(1798761600000000)), "expired");
	topo_release(with);
	text.networks = "local, 0.0.0.0/0";
	text.revoked = "2026-01-01";
	k = store_key(t, &text, &with);
	assert_string_equal(bars(k, NULL, 1), "revoked");
	topo_release(with);
	text.revoked = "";
	k = store_key(t, &text, &with);
	assert_null(bars(k, NULL, 1));
	assert_null(bars(k, "1.2.3.4", 1));
	assert_string_equal(bars(k, "::1", 1), "network");
	topo_release(with);
	topo_release(t);
}

static void
former_secrets_have_an_end(void **state)
{
	struct topo_key_text text = {.id = "k",
	    .secret = VERIFIER,
	    .type = "server",
	    .virtual_ = "bank",
	    .former_secret = VERIFIER,
	    .former_until = "2027-01-01 00:00:00.500000+00"};
	struct topo *t = expect_fine(HEAD, "");
	const struct topo *with;
	const struct topo_key *k = store_key(t, &text, &with);
	int64_t us;
	char why[256];

	(void)state;
	assert_string_equal(topo_key_former(k, INT64_C(1798761600499999)), VERIFIER);
	assert_null(topo_key_former(k, INT64_C(1798761600500000)));
	topo_release(with);
	/* Without an end it has ended, and one that cannot be is no key. */
	text.former_until = NULL;
	assert_null(topo_key_former(store_key(t, &text, &with), 1));
	topo_release(with);
	text.former_until = "soon";
	assert_null(store_key(t, &text, &with));
	topo_release(with);
	text.former_secret = "hunter2";
	text.former_until = "2027-01-01";
	assert_null(store_key(t, &text, &with));
	topo_release(with);
	topo_release(t);
	static const char *const hours[] = {"1h", "1 h", "1 hour", "1hours", "60 min",
	    "60 minutes", "3600 Seconds", "3600"};

	for (size_t i = 0; i < ARRAY_LEN(hours); i++) {
		assert_true(topo_key_overlap(hours[i], &us, why, sizeof(why)));
		assert_int_equal(us, INT64_C(3600000000));
	}
	assert_false(topo_key_overlap("hour", &us, why, sizeof(why)));
	assert_false(topo_key_overlap("1 hour ago", &us, why, sizeof(why)));
	assert_false(topo_key_overlap("400 days", &us, why, sizeof(why)));
	assert_true(topo_key_overlap("500ms", &us, why, sizeof(why)));
	assert_int_equal(us, 500000);
	assert_false(topo_key_overlap("often", &us, why, sizeof(why)));
	assert_string_equal(why, "overlap: \"often\" is not a time, allowed are 0 to "
				 "31536000 s, or a number with us, ms, s, min, h or d");
}

static void
names_stand_for_keys_of_the_file(void **state)
{
#define OTHER "vb_1123456789abcdef0123456789abcdef"
#define GONE  "vb_2123456789abcdef0123456789abcdef"
#define FILE_KEY(id, words)                                                              \
	"[key " id "]\nsecret = " VERIFIER "\ntype = client\nvirtual = bank\n" words
	struct topo *t = expect_fine(
	    HEAD FILE_KEY(GONE, "name = a\nrevoked = 2020-01-01\n")
		FILE_KEY(KEY, "name = a\n") FILE_KEY(OTHER, "name = a\n"),
	    "t.ini:22: name: the key at t.ini:17 is called \"a\", too: the log and SHOW KEYS "
	    "do not tell them apart by name\n");

	(void)state;
	assert_string_equal(topo_key_of_file(t, "a")->id, KEY);
	assert_string_equal(topo_key_of_file(t, GONE)->id, GONE);
	assert_null(topo_key_of_file(t, "b"));
	topo_release(t);
}

static void
keys_of_the_store_come_and_go(void **state)
{
	struct topo *t =
	    expect_fine(HEAD "[key " KEY "]\nsecret = " VERIFIER "\ntype = client\n"
			     "virtual = bank\n",
		"");
	char id[] = "one", why[256];
	struct topo_key_text texts[] = {
	    {.id = id, .secret = VERIFIER, .type = "server", .virtual_ = "bank"},
	    {.id = "one", .secret = VERIFIER, .type = "client", .virtual_ = "bank"},
	    {.id = KEY, .secret = VERIFIER, .type = "server", .virtual_ = "bank"},
	    {.id = "gone",
		.secret = VERIFIER,
		.type = "server",
		.virtual_ = "bank",
		.databases = "gone"},
	    {.id = "open", .type = "server", .virtual_ = "bank"},
	    {.secret = VERIFIER, .type = "server", .virtual_ = "bank"},
	    {.id = "two", .secret = VERIFIER, .type = "client", .virtual_ = "bank"},
	};
	const struct topo *with = topo_with_keys(t, texts, ARRAY_LEN(texts)), *set,
			  *without;
	struct topo_key_use *use = topo_key_use("one");

	(void)state;
	id[0] = 'x';
	assert_int_equal(topo_key_count(t), 1);
	assert_true(topo_generation(with) > topo_generation(t));
	assert_int_equal(topo_key_count(with), 3);
	assert_int_equal(topo_key_find(with, KEY)->type, TOPO_KEY_CLIENT);
	assert_int_equal(topo_key_find(with, "one")->type, TOPO_KEY_SERVER);
	assert_false(topo_key_find(with, "one")->is_from_file);
	assert_null(topo_key_find(with, "one")->at.file);
	assert_ptr_equal(topo_key_find(with, "one")->use, use);
	assert_string_equal(topo_key(with, 2)->id, "two");
	assert_null(topo_key_find(with, "gone"));
	/* What was set stays when keys change, and keys stay when something is set. */
	set = topo_with(with, setting_find("default_pool_size"), "77", why, sizeof(why));
	assert_int_equal(topo_key_count(set), 3);
	without = topo_with_keys(set, NULL, 0);
	assert_int_equal(topo_key_count(without), 1);
	assert_int_equal(topo_settings(without)->default_pool_size, 77);
	assert_ptr_equal(
	    topo_virtual_find(without, "bank"), topo_virtual_find(t, "bank"));
	topo_release(with);
	topo_release(t);
	assert_string_equal(topo_key_find(set, "two")->id, "two");
	topo_release(set);
	assert_non_null(topo_key_find(without, KEY));
	topo_release(without);
	assert_ptr_equal(topo_key_use("one"), use);
}

/* ---- jobs ---- */

static void
jobs_are_read(void **state)
{
	struct topo *t = expect_fine(HEAD
	    "[replication sync]\nsource = p\ntargets = s, a\n"
	    "tables = users, archive.\"Old\"\nsync_key = updated_at\ninterval = 15min\n"
	    "enabled = no\nmode = sync_key\noverlap = 5min\ndeletes = off\n"
	    "[replication copy]\nsource = r\ntargets = s\ntables = x\nmode = full\n",
	    "");
	struct topo_job_text text = topo_job(t, 0)->text;
	char why[256];

	(void)state;
	assert_int_equal(topo_job_count(t), 2);
	assert_string_equal(text.name, "sync");
	assert_string_equal(text.source, "p");
	assert_string_equal(text.targets, "s, a");
	assert_string_equal(text.tables, "users, archive.\"Old\"");
	assert_string_equal(text.sync_key, "updated_at");
	assert_string_equal(text.interval, "15min");
	assert_string_equal(text.enabled, "no");
	assert_string_equal(text.overlap, "5min");
	assert_int_equal(topo_job(t, 1)->at.line, 21);
	assert_null(topo_job(t, 1)->text.interval);
	assert_true(topo_job_check(t, &text, why, sizeof(why)));
	text.interval = "soon";
	text.source = "x";
	assert_false(topo_job_check(t, &text, why, sizeof(why)));
	assert_string_equal(why,
	    "source: there is no database \"x\", allowed are p, s, a, r, "
	    "did you mean \"p\"?");
	topo_release(t);
}

static void
wrong_jobs_are_explained(void **state)
{
	(void)state;
	expect_problems(HEAD
	    "[database ro]\nread_only = yes\n"
	    "[replication j]\nsource = p\ntargets = p, s, s, r, bank, x, ro\n"
	    "tables = a, A, b*, x y\nmode = logical\ndeletes = on\n"
	    "create_missing = yes\ninterval = 5x\nenabled = maybe\nsync_key = a.b\n"
	    "[replication k]\nschedule = x\n",
	    "t.ini:18: deletes: not supported yet, allowed is off\n"
	    "t.ini:19: create_missing: not supported yet, allowed is off\n"
	    "t.ini:15: targets: \"p\" is the source, allowed are other databases\n"
	    "t.ini:15: targets: \"s\" stands there twice, allowed is once\n"
	    "t.ini:15: targets: \"r\" is a replica, nothing can be written there, allowed is "
	    "its primary \"p\"\n"
	    "t.ini:15: targets: \"bank\" is a virtual database, allowed are those behind it\n"
	    "t.ini:15: targets: there is no database \"x\", allowed are p, s, a, r, ro, did "
	    "you mean \"p\"?\n"
	    "t.ini:15: targets: \"ro\" is read_only, allowed are databases that take writes\n"
	    "t.ini:16: tables: \"A\" stands there twice, allowed is once\n"
	    "t.ini:16: tables: \"b*\" is a pattern, allowed are table and schema.table\n"
	    "t.ini:16: tables: \"x y\" has a blank outside double quotes, allowed are table "
	    "and schema.table\n"
	    "t.ini:17: mode: \"logical\" is refused: not supported yet, allowed are sync_key, "
	    "full\n"
	    "t.ini:22: sync_key: \"a.b\" is not one name, allowed is the name of a column\n"
	    "t.ini:20: interval: \"5x\" is not a time, allowed are 0 to 31536000 s, or a "
	    "number with us, ms, s, min, h or d\n"
	    "t.ini:21: enabled: \"maybe\" is neither yes nor no, allowed are 1, 0, yes, no, "
	    "on, off, true, false\n"
	    "t.ini:24: schedule: no such key\n"
	    "t.ini:23: source: missing, allowed is the name of a database\n"
	    "t.ini:23: targets: missing, allowed are names of databases\n"
	    "t.ini:23: tables: missing, allowed are names of tables\n"
	    "t.ini:23: sync_key: missing, allowed is the name of a column; mode = full needs "
	    "none\n");
}

/* ---- threads ---- */

static void *
look_and_release(void *arg)
{
	const struct topo *t = arg;

	for (int i = 0; i < 5000; i++) {
		const struct topo *held = topo_hold(t);
		const struct topo_key *k = topo_key_find(held, "one");

		atomic_fetch_add(&topo_key_use("one")->running, 1);
		assert_ptr_equal(k->use, topo_key_use("one"));
		topo_release(held);
	}
	topo_release(t);
	return (NULL);
}

static void
keyrings_are_shared(void **state)
{
	struct topo *t = expect_fine(HEAD, "");
	struct topo_key_text text = {
	    .id = "one", .secret = VERIFIER, .type = "server", .virtual_ = "bank"};
	const struct topo *with = topo_with_keys(t, &text, 1), *copy;
	pthread_t threads[4];
	char why[256];

	(void)state;
	topo_release(t);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		copy = topo_with(with, setting_find("verbose"), "1", why, sizeof(why));
		assert_int_equal(pthread_create(&threads[i], NULL, look_and_release,
				     (void *)(uintptr_t)copy),
		    0);
	}
	topo_release(with);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&topo_key_use("one")->running), 20000);
}

static int
free_all(void **state)
{
	(void)state;
	topo_key_uses_free();
	topo_verdicts_free();
	return (0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(databases_stand_in_for_others),
	    cmocka_unit_test(wrong_relations_are_explained),
	    cmocka_unit_test(a_virtual_database_has_members),
	    cmocka_unit_test(what_is_not_done_yet_is_said),
	    cmocka_unit_test(wrong_virtual_databases_are_explained),
	    cmocka_unit_test(tables_have_routes),
	    cmocka_unit_test(patterns_that_decide_nothing_are_told),
	    cmocka_unit_test(wrong_routes_are_explained),
	    cmocka_unit_test(tables_are_sharded),
	    cmocka_unit_test(models_have_tables),
	    cmocka_unit_test(wrong_shards_and_models_are_explained),
	    cmocka_unit_test(a_key_says_what_it_may),
	    cmocka_unit_test(a_login_may_do_all_but_what_is_said),
	    cmocka_unit_test(wrong_keys_are_explained),
	    cmocka_unit_test(dates_and_rates_are_read),
	    cmocka_unit_test(verifiers_are_known_by_their_form),
	    cmocka_unit_test(keys_are_barred),
	    cmocka_unit_test(former_secrets_have_an_end),
	    cmocka_unit_test(names_stand_for_keys_of_the_file),
	    cmocka_unit_test(keys_of_the_store_come_and_go),
	    cmocka_unit_test(jobs_are_read),
	    cmocka_unit_test(wrong_jobs_are_explained),
	    cmocka_unit_test(keyrings_are_shared),
	};

	return (cmocka_run_group_tests(tests, NULL, free_all));
}
