/* catalog: rows to snapshots, and the questions that are asked of them. */
#include "catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BYTES ((size_t)1024 * 1024)

static void
add_table(struct catalog_draft *d, uint32_t id, const char *schema, const char *name,
    const char *columns)
{
	catalog_draft_relation(d, id, schema, name, CATALOG_TABLE, false, columns);
}

static void
add_view(struct catalog_draft *d, uint32_t id, const char *name, bool is_simple,
    const char *columns)
{
	catalog_draft_relation(d, id, "public", name, CATALOG_VIEW, is_simple, columns);
}

static void
test_relations(void **state)
{
	struct catalog_draft *d = catalog_draft_create("main", BYTES);
	const struct catalog_relation *r;
	struct catalog_db *db;

	(void)state;
	catalog_draft_path(d, "app");
	catalog_draft_path(d, "public");
	add_table(d, 1, "public", "users", "+id\n+name\n+Mixed Case");
	add_table(d, 2, "app", "users", "+name\n+id");
	add_table(d, 3, "far", "users", "+x");
	add_table(d, 4, "far", "alone", "");
	add_table(d, 5, "app", "same", "+a\n+b\n+c");
	add_table(d, 6, "far", "same", "+a\n+b");
	db = catalog_draft_end(d);
	assert_true(catalog_is_whole(db));
	assert_string_equal(catalog_db_name(db), "main");

	assert_string_equal(catalog_relation(db, NULL, "users")->schema, "app");
	assert_string_equal(catalog_column_at(db, "app", "users", 0), "name");
	/* Which of them a session means, only its search path says. */
	assert_null(catalog_column_at(db, NULL, "users", 0));
	assert_string_equal(catalog_column_at(db, NULL, "same", 1), "b");
	assert_null(catalog_column_at(db, NULL, "same", 2));
	assert_null(catalog_column_at(NULL, NULL, "same", 1));
	assert_string_equal(catalog_column_at(db, "public", "users", 0), "id");
	assert_string_equal(catalog_column_at(db, "public", "users", 2), "Mixed Case");
	assert_null(catalog_column_at(db, "public", "users", 3));
	assert_null(catalog_column_at(db, "public", "nobody", 0));
	assert_null(catalog_relation(db, "app", "alone"));
	/* A schema outside of the search path, when no other has the name. */
	r = catalog_relation(db, NULL, "alone");
	assert_non_null(r);
	assert_string_equal(r->schema, "far");
	assert_int_equal(r->column_count, 0);
	assert_null(catalog_column(r, "x"));
	catalog_db_release(db);
}

static void
test_views(void **state)
{
	struct catalog_draft *d = catalog_draft_create("main", BYTES);
	const struct catalog_relation *r;
	struct catalog_db *db;

	(void)state;
	/* Views come before what they read. */
	add_view(d, 20, "outer", true, "+id\n+total");
	add_view(d, 21, "inner", true, "+id\n-total");
	add_view(d, 22, "both", false, "+id");
	add_view(d, 23, "lost", true, "+id");
	add_view(d, 24, "calls", true, "+id");
	add_view(d, 25, "over", true, "+id");
	add_view(d, 26, "nothing", true, "+id");
	add_table(d, 10, "public", "a", "+id\n+total");
	add_table(d, 11, "public", "b", "+id");
	catalog_draft_reads(d, 20, 21);
	catalog_draft_reads(d, 21, 10);
	catalog_draft_reads(d, 22, 11);
	catalog_draft_reads(d, 22, 20);
	catalog_draft_reads(d, 23, 99);
	catalog_draft_reads(d, 24, 11);
	catalog_draft_calls_volatile(d, 24);
	catalog_draft_reads(d, 25, 24);
	db = catalog_draft_end(d);

	r = catalog_relation(db, NULL, "outer");
	assert_true(r->kind == CATALOG_VIEW && r->is_simple && !r->is_partial);
	assert_int_equal(r->read_count, 1);
	assert_string_equal(r->reads[0]->name, "a");
	assert_true(catalog_column(r, "id")->is_plain);
	/* Computed one level below. */
	assert_false(catalog_column(r, "total")->is_plain);

	r = catalog_relation(db, NULL, "both");
	assert_false(r->is_simple);
	assert_int_equal(r->read_count, 2);
	assert_false(catalog_column(r, "id")->is_plain);

	r = catalog_relation(db, NULL, "lost");
	assert_true(r->is_partial && !r->is_simple);
	assert_int_equal(r->read_count, 0);

	assert_true(catalog_relation(db, NULL, "over")->is_volatile);
	assert_false(catalog_relation(db, NULL, "outer")->is_volatile);
	assert_false(catalog_relation(db, NULL, "nothing")->is_simple);
	catalog_db_release(db);
}

/* PostgreSQL makes none, but its catalogs can be written by hand. */
static void
test_ring(void **state)
{
	struct catalog_draft *d = catalog_draft_create("main", BYTES);
	struct catalog_db *db;
	char name[32];

	(void)state;
	add_view(d, 1, "a", true, "+id");
	add_view(d, 2, "b", true, "+id");
	catalog_draft_reads(d, 1, 2);
	catalog_draft_reads(d, 2, 1);
	/* Deeper than anybody follows. */
	for (uint32_t i = 1000; i < 2000; i++) {
		(void)snprintf(name, sizeof(name), "v%u", i);
		add_view(d, i, name, true, "+id");
		catalog_draft_reads(d, i, i + 1);
	}
	add_table(d, 2000, "public", "t", "+id");
	db = catalog_draft_end(d);
	assert_int_equal(catalog_relation(db, NULL, "a")->read_count, 0);
	assert_true(catalog_relation(db, NULL, "v1000")->is_partial);
	assert_false(catalog_relation(db, NULL, "v1999")->is_partial);
	catalog_db_release(db);
}

static void
test_functions(void **state)
{
	struct catalog_draft *d = catalog_draft_create("main", BYTES);
	struct catalog_db *db;

	(void)state;
	catalog_draft_function(d, "public", "f", CATALOG_IMMUTABLE);
	catalog_draft_function(d, "app", "f", CATALOG_VOLATILE);
	catalog_draft_function(d, "app", "g", CATALOG_STABLE);
	db = catalog_draft_end(d);
	assert_int_equal(catalog_volatility(db, "public", "f"), CATALOG_IMMUTABLE);
	assert_int_equal(catalog_volatility(db, NULL, "f"), CATALOG_VOLATILE);
	assert_int_equal(catalog_volatility(db, NULL, "g"), CATALOG_STABLE);
	assert_int_equal(catalog_volatility(db, "public", "g"), CATALOG_UNKNOWN);
	assert_int_equal(catalog_volatility(NULL, NULL, "g"), CATALOG_UNKNOWN);
	catalog_db_release(db);
}

/* What is beyond the bound is not known, and that is known. */
static void
test_bound(void **state)
{
	struct catalog_draft *d = catalog_draft_create("main", 4096);
	struct catalog_db *db;
	char name[32];

	(void)state;
	for (uint32_t i = 1; i <= 1000; i++) {
		(void)snprintf(name, sizeof(name), "t%u", i);
		add_table(d, i, "public", name, "+id\n+name");
		catalog_draft_function(d, "public", name, CATALOG_STABLE);
	}
	assert_in_range(catalog_draft_left_out(d), 1900, 1999);
	db = catalog_draft_end(d);
	assert_false(catalog_is_whole(db));
	assert_in_range(catalog_db_bytes(db), 3000, 5000);
	assert_string_equal(catalog_column_at(db, NULL, "t1", 1), "name");
	assert_null(catalog_relation(db, NULL, "t1000"));
	catalog_db_release(db);
}

static void
test_catalog(void **state)
{
	struct catalog_draft *d = catalog_draft_create("one", BYTES);
	struct catalog_db *dbs[2];
	struct catalog *a, *b;

	(void)state;
	add_table(d, 1, "public", "t", "+id");
	dbs[0] = catalog_draft_end(d);
	d = catalog_draft_create("two", BYTES);
	add_view(d, 1, "v", false, "+id");
	dbs[1] = catalog_draft_end(d);
	a = catalog_make(dbs, 1);
	b = catalog_make(dbs, 2);
	catalog_db_release(dbs[0]);
	catalog_db_release(dbs[1]);
	assert_false(catalog_has_views(a));
	assert_true(catalog_has_views(b));
	assert_null(catalog_db(a, "two"));
	assert_null(catalog_db(NULL, "two"));
	assert_ptr_equal(catalog_db(b, "two"), dbs[1]);
	catalog_hold(b);
	catalog_release(b);
	catalog_release(a);
	assert_non_null(catalog_relation(catalog_db(b, "one"), NULL, "t"));
	catalog_release(b);
	catalog_release(NULL);
	assert_false(catalog_is_whole(NULL));
}

/* ---- against a configuration ---- */

static const char config[] = "[pgweave]\nlisten_addr = 127.0.0.1\n"
			     "[database one]\nhost = 127.0.0.1\n"
			     "[database two]\nhost = 127.0.0.1\nport = 5433\n"
			     "[database three]\nhost = 127.0.0.1\nport = 5434\n"
			     "[virtual bank]\ndefault = one\nmembers = one, two, three\n"
			     "[route bank]\nevents = two\nlost = two\nstray = two\n"
			     "log_* = two\nold_* = two\nunread = three\n";

static struct topo *
topo_of(const char *text)
{
	struct conf_problems problems = {0};
	char path[] = "/tmp/test_catalog.XXXXXX";
	int fd = mkstemp(path);
	FILE *f = fdopen(fd, "w");
	struct conf *conf;
	struct topo *t;

	assert_non_null(f);
	(void)fputs(text, f);
	assert_int_equal(fclose(f), 0);
	conf = conf_load(path, &problems);
	assert_non_null(conf);
	t = topo_build(conf, &problems);
	assert_non_null(t);
	conf_problems_free(&problems);
	(void)remove(path);
	return (t);
}

static void
test_routes(void **state)
{
	static const struct {
		const char *pattern, *warning;
	} rows[] = {
	    {"events", ""},
	    {"lost", "no such table in database \"two\", nor in another"},
	    {"stray", "no such table in database \"two\", but in \"one\""},
	    {"log_*", ""},
	    {"old_*", "no such table in database \"two\", nor in another"},
	    {"unread", ""},
	};
	struct topo *topo = topo_of(config);
	const struct topo_virtual *v = topo_virtual_find(topo, "bank");
	struct catalog_draft *d = catalog_draft_create("one", BYTES);
	struct catalog_db *dbs[2];
	struct catalog *c;
	char got[256];

	(void)state;
	add_table(d, 1, "public", "stray", "+id");
	dbs[0] = catalog_draft_end(d);
	d = catalog_draft_create("two", BYTES);
	add_table(d, 1, "public", "events", "+id");
	add_table(d, 2, "public", "log_1", "+id");
	/* A route without a schema is one of public. */
	add_table(d, 3, "app", "lost", "+id");
	dbs[1] = catalog_draft_end(d);
	c = catalog_make(dbs, 2);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct topo_route *r = NULL;

		for (size_t k = 0; k < v->route_count; k++)
			if (strcmp(v->routes[k].pattern, rows[i].pattern) == 0)
				r = &v->routes[k];
		assert_non_null(r);
		catalog_route_warning(c, v, r, got, sizeof(got));
		assert_string_equal(got, rows[i].warning);
		catalog_route_warning(NULL, v, r, got, sizeof(got));
		assert_string_equal(got, "");
	}
	catalog_db_release(dbs[0]);
	catalog_db_release(dbs[1]);
	catalog_release(c);
	topo_release(topo);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_relations),
	    cmocka_unit_test(test_views),
	    cmocka_unit_test(test_ring),
	    cmocka_unit_test(test_functions),
	    cmocka_unit_test(test_bound),
	    cmocka_unit_test(test_catalog),
	    cmocka_unit_test(test_routes),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	topo_verdicts_free();
	topo_key_uses_free();
	return (failed);
}
