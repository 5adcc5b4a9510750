/* sql: texts that are known again without being cut into tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sql.h"

static bool
recalls(struct sql_cache *cache, const char *text, size_t len)
{
	struct sql_scan s, r;
	const struct sql_facts *f = sql_facts_recall(cache, text, len, &r);

	sql_scan(text, len, &s);
	if (f == NULL) {
		assert_null(sql_facts_known(cache, text, len));
		(void)sql_facts_get(cache, &s);
		sql_scan_free(&s);
		return (false);
	}
	assert_ptr_equal(f, sql_facts_get(cache, &s));
	assert_ptr_equal(
	    sql_facts_note(f), sql_facts_note(sql_facts_known(cache, text, len)));
	assert_ptr_equal(r.sql, s.sql);
	assert_int_equal(r.len, s.len);
	assert_null(s.next);
	assert_memory_equal(&r.digest, &s.digest, sizeof(s.digest));
	assert_int_equal(r.param_max, s.param_max);
	assert_null(s.hint);
	assert_false(s.is_empty || s.is_cut || s.is_too_much || s.wants_values);
	assert_string_equal(r.verb, s.verb);
	assert_int_equal(r.literal_count, s.literal_count);
	for (unsigned i = 0; i < s.literal_count; i++)
		assert_memory_equal(
		    &r.literals[i], &s.literals[i], sizeof(s.literals[i]));
	sql_scan_free(&r);
	sql_scan_free(&s);
	return (true);
}

static bool
recalls_text(struct sql_cache *cache, const char *text)
{
	char *end = strdup(text); /* in memory that ends where it ends */
	bool is_known;

	assert_non_null(end);
	is_known = recalls(cache, end, strlen(text));
	free(end);
	return (is_known);
}

/* ---- what is known again, and what is not ---- */

static void
literals_may_differ(void **state)
{
	static const char *const texts[][2] = {
	    {"select x from t where id = 5", "select x from t where id = 12345"},
	    {"select x from t where id = 5", "select x from t where id = 1e5;"},
	    {"select x from t where id = 5", "select x from t where id = 0x1F ; \n"},
	    {"select x from t where id=-5", "select x from t where id=-77"},
	    {"select x from t where id in (1, 2)", "select x from t where id in (31, 4)"},
	    {"insert into t values (1, 'a', e'b\\'', $$c$$)",
		"insert into t values (22, $$$$, 'it''s', '')"},
	    {"select 'a' \n 'b', 1", "select 'c', 2"},
	    {"select x from t where id = $1 and y = 3",
		"select x from t where id = $1 and y = 4"},
	    {"-- by id\nselect 1", "-- by id\nselect 2"},
	    {"commit", "commit;"},
	    {"select a from \"b 1\" where c=x'1f'",
		"select a from \"b 1\" where c=B'01'"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct sql_cache *cache = sql_cache_create(1 << 20);

		assert_false(recalls_text(cache, texts[i][0]));
		assert_true(recalls_text(cache, texts[i][0]));
		if (!recalls_text(cache, texts[i][1]))
			fail_msg("not known: %s", texts[i][1]);
		sql_cache_destroy(cache);
	}
}

static void
anything_else_may_not(void **state)
{
	static const char *const texts[][2] = {
	    {"select x from t where id = 5", "select x from t where id = '5'"},
	    {"select x from t where id = 5", "select x from t where id = 5 or true"},
	    {"select x from t where id = 5", "select x from t where id = 5; select 2"},
	    {"select x from t where id = 5", "select x from t where id = 5 -- c"},
	    {"select x from t where id = 5", "select x from t where id = 5a"},
	    {"select x from t where id = 5", "select x from t where id = $1"},
	    {"select x from t where id = 5", "select x from t where id =  5"},
	    {"select x from t where id = 'a'", "select x from t where id = 'a"},
	    {"select x from t where id = 'a'", "select x from t where id = 'a' 'b'"},
	    {"select x from t where id = 'a' \n and true",
		"select x from t where id = 'a' \n 'b' and true"},
	    {"select x from t", "select x from ta"},
	    {"select x from t", " select x from t"},
	    {"select x from t", "/* pgweave: database=a */ select x from t"},
	    {"select n'a'", "select n'b'"},
	    {"select a.5", "select a5"},
	    {"set a = 5", "set a = 6"},
	    {"select set_config('a', 'b', false)", "select set_config('c', 'b', false)"},
	    {"nonsense 5", "nonsense 6"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct sql_cache *cache = sql_cache_create(1 << 20);

		assert_false(recalls_text(cache, texts[i][0]));
		if (recalls_text(cache, texts[i][1]))
			fail_msg("known: %s", texts[i][1]);
		sql_cache_destroy(cache);
	}
}

static void
nul_bytes_are_for_the_scanner(void **state)
{
	static const char one[] = "select 'abc'", two[] = "select 'a\0c'";
	struct sql_cache *cache = sql_cache_create(1 << 20);

	(void)state;
	assert_false(recalls(cache, one, sizeof(one) - 1));
	assert_false(recalls(cache, two, sizeof(two) - 1));
	sql_cache_destroy(cache);
}

static void
many_begin_alike(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	char text[64];
	unsigned known = 0;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 9; i++) {
			(void)snprintf(text, sizeof(text),
			    "select x from t where id = %u and %c", round,
			    "abcdefghi"[i]);
			known += recalls_text(cache, text);
			known += recalls_text(cache, text);
		}
	}
	assert_true(known >= 27 && known < 54);
	sql_cache_destroy(cache);
}

/* Those that were dropped are not looked at. */
static void
what_is_forgotten_is_not_known(void **state)
{
	struct sql_cache *cache = sql_cache_create(20000);
	struct sql_cache_stats stats;
	char text[128];

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		(void)snprintf(
		    text, sizeof(text), "select c%u from t where id = %u", i % 300, i);
		(void)recalls_text(cache, text);
	}
	sql_cache_stats(cache, &stats);
	assert_true(stats.evictions > 0 && stats.bytes <= 20000);
	sql_cache_destroy(cache);
}

/* Texts that differ in some bytes: what is known is what the scanner says (recalls()). */
static void
changed_bytes_are_seen(void **state)
{
	static const char *const texts[] = {
	    "select x from t where id = 5 and y = 'abc' -- d\n",
	    "insert into t (a, b) values (1, 'a'), (-2.5e3, e'b'), (0x1f, $q$c$q$);",
	    "update t set a=a+1, b='x' || 'y' where c>=10 and d<5 or e in (1,2,3)",
	    "select 'a'\n'b', n'c', u&'d', \"e\" from f where g = $1 /* h */ limit 10"};
	static const char bytes[] = "05'$.-+/*eEnNxu& \n;\"a_(,\\";
	struct sql_cache *cache = sql_cache_create(1 << 20);
	unsigned seed = 1, known = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		const char *from = texts[i % ARRAY_LEN(texts)];
		size_t len = strlen(from), changes = i / 4 % 4;
		char text[128];

		memcpy(text, from, len);
		for (size_t k = 0; k < changes; k++) {
			seed = seed * 1664525 + 1013904223;
			text[(seed >> 8) % len] =
			    bytes[(seed >> 20) % (sizeof(bytes) - 1)];
		}
		known += recalls(cache, text, len);
	}
	assert_true(known > 30000 && known < 190000);
	sql_cache_destroy(cache);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(literals_may_differ),
	    cmocka_unit_test(anything_else_may_not),
	    cmocka_unit_test(nul_bytes_are_for_the_scanner),
	    cmocka_unit_test(many_begin_alike),
	    cmocka_unit_test(what_is_forgotten_is_not_known),
	    cmocka_unit_test(changed_bytes_are_seen),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
