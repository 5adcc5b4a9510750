/* base: buffers, tables, hashes, names that are near. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base.h"

static void
buffers_grow_and_drop(void **state)
{
	struct buf b = {0};

	(void)state;
	for (int i = 0; i < 1000; i++)
		buf_addf(&b, "%03d,", i);
	assert_int_equal(b.len, 4000);
	buf_drop(&b, 8);
	assert_memory_equal(b.mem, "002,003,", 8);
	buf_drop(&b, b.len);
	assert_int_equal(b.len, 0);
	buf_free(&b);
	assert_null(b.mem);
}

struct item {
	struct table_node node;
	int value;
};

static bool
item_same(const struct table_node *n, const void *key)
{
	return (CONTAINER_OF(n, struct item, node)->value == *(const int *)key);
}

static void
tables_find_what_they_hold(void **state)
{
	struct table t = {0};
	struct item items[500];
	int seen = 0, key;

	(void)state;
	for (int i = 0; i < 500; i++) {
		items[i].value = i;
		table_add(&t, &items[i].node, hash_bytes(&i, sizeof(i)));
	}
	for (int i = 0; i < 500; i += 2)
		table_remove(&t, &items[i].node);
	for (key = 0; key < 500; key++) {
		struct table_node *n =
		    table_find(&t, hash_bytes(&key, sizeof(key)), item_same, &key);

		assert_int_equal(n != NULL, key % 2);
	}
	for (struct table_node *n = table_first(&t); n != NULL; n = table_next(&t, n))
		seen++;
	assert_int_equal(seen, 250);
	assert_int_equal(t.count, 250);
	table_free(&t);
}

static void
hashes_depend_on_every_byte_and_the_boundary(void **state)
{
	struct hash128 a = hash_pair("ab", 2, "c", 1), b = hash_pair("a", 1, "bc", 2);
	struct hash128 c = hash_pair("ab", 2, "c", 1);

	(void)state;
	assert_true(a.hi != b.hi && a.lo != b.lo);
	assert_true(a.hi == c.hi && a.lo == c.lo);
	assert_true(
	    hash_bytes("0123456789abcdef", 16) != hash_bytes("0123456789abcdeg", 16));
}

static void
the_nearest_name_is_a_likely_slip(void **state)
{
	static const char *const names[] = {"pool_mode", "pool_size", "listen_port"};

	(void)state;
	assert_string_equal(text_nearest("pol_mode", names, 3), "pool_mode");
	assert_string_equal(text_nearest("listen_prot", names, 3), "listen_port");
	assert_null(text_nearest("verbose", names, 3));
}

static void
text_copies_end(void **state)
{
	char to[4];

	(void)state;
	assert_true(text_copy(to, sizeof(to), "abc"));
	assert_false(text_copy(to, sizeof(to), "abcd"));
	assert_string_equal(to, "abc");
}

static void
every_fault_has_its_words(void **state)
{
	(void)state;
	for (int i = 1; i < F_COUNT; i++) {
		const struct fault_info *f = fault_info(-i);

		assert_int_equal(strlen(f->sqlstate), 5);
		assert_true(f->text[0] != '\0' && f->text[strlen(f->text) - 1] != '.');
		assert_true(
		    strcmp(f->blame, "OURS") == 0 || strcmp(f->blame, "THEIRS") == 0);
	}
	assert_string_equal(fault_info(-100000)->name, "INTERNAL");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(buffers_grow_and_drop),
	    cmocka_unit_test(tables_find_what_they_hold),
	    cmocka_unit_test(hashes_depend_on_every_byte_and_the_boundary),
	    cmocka_unit_test(the_nearest_name_is_a_likely_slip),
	    cmocka_unit_test(text_copies_end),
	    cmocka_unit_test(every_fault_has_its_words),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
