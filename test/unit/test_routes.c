/* topo: routes made at run time, in snapshots that share all else. */
#include "topo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct topo *
build(const char *text)
{
	struct conf_problems p = {0};
	struct topo *t = topo_build(conf_load_text("t.ini", text, strlen(text), &p), &p);

	assert_int_equal(p.count, 0);
	conf_problems_free(&p);
	return (t);
}

static const char *
route_of(const struct topo_virtual *v, const char *schema, const char *table)
{
	const struct topo_route *r = topo_route_find(v, schema, table);

	return (r != NULL ? r->database->name : NULL);
}

static int
route_check(const struct topo *t, const char *virtual_, const char *pattern,
    const char *database, char why[512])
{
	const struct topo_route_text text = {virtual_, pattern, database};

	return (topo_route_check(t, &text, why, 512));
}

static int
route_stored(const struct topo *t, const char *pattern, char why[512])
{
	const struct topo_route_text text = {"bank", pattern, NULL};
	const struct topo_route *r;
	int fault = topo_route_stored(t, &text, &r, why, 512);

	assert_true(fault != 0 || r->is_stored);
	return (fault);
}

static void
routes_come_and_go(void **state)
{
	static const struct topo_route_text texts[] = {{"bank", "notes", "S"},
	    {"bank", "log.*", "a"}, {"bank", "old.x*", "s"}, {"bank", "accounts", "p"},
	    {"bank", "Public.Notes", "p"}, {"bank", "t", "gone"}, {"gone", "t", "p"}};
	struct topo *t =
	    build("[pgweave]\nauth_type = trust\nverbose = 0\n"
		  "[databases]\np = host=p\ns = host=s\na = host=a\n"
		  "r = host=r replica_of=p\n[virtual bank]\nmembers = p, s, a\n"
		  "[route bank]\nevents = a\nold.* = a\nlog.first = p\n"
		  "[shard bank]\ntables = accounts\nkey = id\nmembers = p, s\n"
		  "[virtual other]\nmembers = p\n");
	const struct topo *with = topo_with_routes(t, texts, ARRAY_LEN(texts)), *without,
			  *keyed;
	const struct topo_virtual *v = topo_virtual_find(with, "bank");
	char why[512];

	(void)state;
	/* Behind those of the file; what makes no sense is left out. */
	assert_int_equal(v->route_count, 6);
	assert_int_equal(v->exact_count, 3);
	assert_string_equal(v->routes[2].pattern, "notes");
	assert_string_equal(v->routes[5].pattern, "old.x*");
	assert_true(v->routes[2].is_stored);
	assert_false(v->routes[0].is_stored);
	assert_string_equal(route_of(v, NULL, "notes"), "s");
	assert_string_equal(route_of(v, "log", "second"), "a");
	assert_string_equal(route_of(v, "log", "first"), "p");
	assert_string_equal(route_of(v, "old", "xy"), "a");
	assert_string_equal(
	    v->routes[5].warning, "never reached: old.* matches all of it first");
	assert_ptr_equal(
	    topo_shard_find(v, NULL, "accounts"), topo_virtual_find(t, "bank")->shards);
	/* The base is as it was. */
	assert_null(topo_route_find(topo_virtual_find(t, "bank"), NULL, "notes"));
	assert_int_equal(topo_virtual_find(t, "bank")->route_count, 3);
	/* They stay when other things change. */
	keyed = topo_with_keys(with, NULL, 0);
	assert_string_equal(
	    route_of(topo_virtual_find(keyed, "bank"), NULL, "notes"), "s");
	assert_int_equal(topo_virtual_count(keyed), 2);
	without = topo_with_routes(keyed, NULL, 0);
	assert_null(topo_route_find(topo_virtual_find(without, "bank"), NULL, "notes"));
	topo_release(keyed);
	topo_release(without);
	assert_int_equal(route_check(with, "bank", "fresh", "p", why), 0);
	assert_int_equal(route_check(with, "bnk", "t", "p", why), F_NOT_FOUND);
	assert_string_equal(why,
	    "there is no virtual database \"bnk\", allowed are bank, other, did you mean "
	    "\"bank\"?");
	assert_int_equal(route_check(with, "bank", "t", "r", why), F_NOT_FOUND);
	assert_int_equal(route_check(with, "bank", "a b", "p", why), F_CONF_VALUE);
	assert_int_equal(route_check(with, "bank", "public.NOTES", "p", why), F_EXISTS);
	assert_int_equal(route_check(with, "bank", "Events", "p", why), F_EXISTS);
	assert_non_null(strstr(why, "t.ini:12"));
	assert_int_equal(route_check(with, "bank", "accounts", "p", why), F_EXISTS);
	assert_non_null(strstr(why, "a route or a shard"));
	assert_int_equal(route_check(with, "bank", "acc*", "p", why), 0);
	assert_int_equal(route_stored(with, "NOTES", why), 0);
	assert_int_equal(route_stored(with, "log.*", why), 0);
	assert_int_equal(route_stored(with, "events", why), F_CONF);
	assert_string_equal(
	    why, "route \"events\" stands in the configuration file, t.ini:12");
	assert_int_equal(route_stored(with, "\"log.*\"", why), F_NOT_FOUND);
	assert_int_equal(route_stored(with, "\"", why), F_CONF_VALUE);
	topo_release(t);
	topo_release(with);
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
	    cmocka_unit_test(routes_come_and_go),
	};

	return (cmocka_run_group_tests(tests, NULL, finish));
}
