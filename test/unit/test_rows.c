/* rows: types, the binary form of values, rows kept in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rows.h"

/* The binary form as hex digits; "-" when the text is no value of the type. */
static const char *
hex(enum rows_type type, const char *text)
{
	static char out[512];
	struct buf b = {0};

	if (rows_binary(type, text, &b) != 0) {
		assert_int_equal(b.len, 0);
		buf_free(&b);
		return ("-");
	}
	out[0] = '\0';
	for (uint32_t i = 0; i < b.len; i++)
		snprintf(out + 2 * i, 3, "%02x", b.mem[i]);
	buf_free(&b);
	return (out);
}

static void
test_types(void **state)
{
	(void)state;
	assert_int_equal(rows_type_oid(ROWS_TEXT), 25);
	assert_int_equal(rows_type_oid(ROWS_NUMERIC), 1700);
	assert_int_equal(rows_type_oid(ROWS_TIMESTAMPTZ), 1184);
	assert_int_equal(rows_type_size(ROWS_TEXT), -1);
	assert_int_equal(rows_type_size(ROWS_INT4), 4);
	assert_int_equal(rows_type_size(ROWS_BOOL), 1);
}

static void
test_integers(void **state)
{
	(void)state;
	assert_string_equal(hex(ROWS_INT4, "0"), "00000000");
	assert_string_equal(hex(ROWS_INT4, "-2"), "fffffffe");
	assert_string_equal(hex(ROWS_INT4, "2147483647"), "7fffffff");
	assert_string_equal(hex(ROWS_INT4, "2147483648"), "-");
	assert_string_equal(hex(ROWS_INT4, ""), "-");
	assert_string_equal(hex(ROWS_INT4, " 1"), "-");
	assert_string_equal(hex(ROWS_INT4, "1 "), "-");
	assert_string_equal(hex(ROWS_INT8, "-9223372036854775808"), "8000000000000000");
	assert_string_equal(hex(ROWS_INT8, "9223372036854775808"), "-");
	assert_string_equal(hex(ROWS_BOOL, "t"), "01");
	assert_string_equal(hex(ROWS_BOOL, "false"), "00");
	assert_string_equal(hex(ROWS_BOOL, "yes"), "-");
	assert_string_equal(hex(ROWS_TEXT, "aé"), "61c3a9");
	assert_string_equal(hex(ROWS_TEXT, ""), "");
}

static void
test_floats(void **state)
{
	(void)state;
	assert_string_equal(hex(ROWS_FLOAT8, "1.5"), "3ff8000000000000");
	assert_string_equal(hex(ROWS_FLOAT8, "-0"), "8000000000000000");
	assert_string_equal(hex(ROWS_FLOAT8, "Infinity"), "7ff0000000000000");
	assert_string_equal(hex(ROWS_FLOAT8, "NaN"), "7ff8000000000000");
	assert_string_equal(hex(ROWS_FLOAT8, "0x10"), "-");
	assert_string_equal(hex(ROWS_FLOAT8, "1e"), "-");
	assert_string_equal(hex(ROWS_FLOAT8, ""), "-");
}

/* As numeric_send() of PostgreSQL 15 writes them: digits, weight, sign, scale, groups. */
static void
test_numerics(void **state)
{
	(void)state;
	assert_string_equal(hex(ROWS_NUMERIC, "0"), "0000000000000000");
	assert_string_equal(hex(ROWS_NUMERIC, "-0.0"), "0000000000000001");
	assert_string_equal(hex(ROWS_NUMERIC, "1"), "00010000000000000001");
	assert_string_equal(hex(ROWS_NUMERIC, "10000"), "00010001000000000001");
	assert_string_equal(hex(ROWS_NUMERIC, "1000000000000"), "00010003000000000001");
	assert_string_equal(hex(ROWS_NUMERIC, "-12345"), "000200014000000000010929");
	assert_string_equal(hex(ROWS_NUMERIC, "0.5"), "0001ffff000000011388");
	assert_string_equal(hex(ROWS_NUMERIC, ".5"), "0001ffff000000011388");
	assert_string_equal(hex(ROWS_NUMERIC, "0.00001"), "0001fffe0000000503e8");
	assert_string_equal(hex(ROWS_NUMERIC, "0.00010002"), "0002ffff0000000800010002");
	assert_string_equal(
	    hex(ROWS_NUMERIC, "10001.20"), "00030001000000020001000107d0");
	assert_string_equal(hex(ROWS_NUMERIC, "18446744073709551615"),
	    "000500040000000007341a5802e103bb064f");
	assert_string_equal(hex(ROWS_NUMERIC, "NaN"), "00000000c0000000");
	assert_string_equal(hex(ROWS_NUMERIC, "."), "-");
	assert_string_equal(hex(ROWS_NUMERIC, "1e5"), "-");
	assert_string_equal(hex(ROWS_NUMERIC, ""), "-");
}

/* As timestamptz_send() of PostgreSQL 15 writes them. */
static void
test_timestamps(void **state)
{
	(void)state;
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "2000-01-01 00:00:00+00"), "0000000000000000");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "2000-01-01 00:00:01.5 UTC"), "000000000016e360");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "1999-12-31T23:59:59Z"), "fffffffffff0bdc0");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "2000-01-01 02:00:00+02"), "0000000000000000");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "1999-12-31 18:30:00-05:30"), "0000000000000000");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "2024-03-01 00:00:00+00"), "0002b58cd363c000");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "294276-12-31 23:59:59+00"), "7fffff5bb3a35dc0");
	assert_string_equal(
	    hex(ROWS_TIMESTAMPTZ, "0001-01-01 00:00:00+00"), "ff1fe2ffc59c6000");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "1900-02-28 12:00:00.000001-05:30"),
	    "fff4ce8be9eef601");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "2024-02-29 24:00:00+00"), "-");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "2023-02-29 00:00:00+00"), "-");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "2023-13-01 00:00:00+00"), "-");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "2023-01-01 00:00:00 CEST"), "-");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "2023-01-01"), "-");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, ""), "-");
	assert_string_equal(hex(ROWS_TIMESTAMPTZ, "infinity"), "7fffffffffffffff");
}

/* ---- lists ---- */

struct seen {
	struct rows_sink sink;
	char text[256];
};

static void
seen_put(struct rows_sink *sink, const char *const *values)
{
	struct seen *s = CONTAINER_OF(sink, struct seen, sink);
	size_t at = strlen(s->text);

	snprintf(s->text + at, sizeof(s->text) - at, "[%s|%s]",
	    values[0] != NULL ? values[0] : "NULL",
	    values[1] != NULL ? values[1] : "NULL");
}

static void
test_list(void **state)
{
	static const struct rows_sink_ops ops = {.put = seen_put};
	struct seen s = {.sink = {&ops}};
	struct rows_list list = {0};

	(void)state;
	rows_list_play(&list, 2, &s.sink);
	assert_string_equal(s.text, "");
	rows_list_add(&list, (const char *const[]){"a", NULL}, 2);
	rows_list_add(&list, (const char *const[]){"", "two words"}, 2);
	assert_int_equal(list.count, 2);
	rows_list_play(&list, 2, &s.sink);
	assert_string_equal(s.text, "[a|NULL][|two words]");
	rows_list_free(&list);
	assert_int_equal(list.count, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_types),
	    cmocka_unit_test(test_integers),
	    cmocka_unit_test(test_floats),
	    cmocka_unit_test(test_numerics),
	    cmocka_unit_test(test_timestamps),
	    cmocka_unit_test(test_list),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
