/* federate: aggregates of several databases made into one. */
#include "federate_fixture.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- aggregates ---- */

static const enum sql_aggregate count_1[] = {SQL_AGG_COUNT};
static const enum sql_aggregate sum_1[] = {SQL_AGG_SUM};
static const enum sql_aggregate min_1[] = {SQL_AGG_MIN};
static const enum sql_aggregate max_1[] = {SQL_AGG_MAX};

/* One aggregate over two legs that answer these values (NULL: SQL NULL). */
static void
merge_two(
    const enum sql_aggregate *aggregate, uint32_t type, const char *a, const char *b)
{
	struct sql_shape shape = {
	    .is_aggregate = true, .columns = aggregate, .column_count = 1};
	struct federate_order o = {.how = ROUTE_MERGE, .shape = &shape};
	const struct proto_column column[] = {{"x", type, -1}};
	const char *values[] = {a, b};
	struct buf out = {0};

	start(2, &o);
	for (unsigned i = 0; i < 2; i++) {
		proto_row_description(&out, column, 1);
		say(1 - i, &out);
	}
	for (unsigned i = 0; i < 2; i++) {
		row(&out, values[1 - i]);
		end(&out, "SELECT 1");
		say(1 - i, &out);
	}
	assert_true(client.is_done);
}

/* As above: the value of the one row. */
static const char *
merged(const enum sql_aggregate *aggregate, uint32_t type, const char *a, const char *b)
{
	static char value[256];
	const char *from, *to;

	merge_two(aggregate, type, a, b);
	assert_true(client.outcome.ok);
	assert_int_equal(client.outcome.rows, 1);
	from = strstr(seen(), " D(");
	to = strstr(seen(), ") C(SELECT 1)");
	assert_true(from != NULL && to != NULL);
	snprintf(value, sizeof(value), "%.*s", (int)(to - from - 3), from + 3);
	return (value);
}

static void
counts_and_integer_sums(void **state)
{
	(void)state;
	assert_string_equal(merged(count_1, 20, "3", "4"), "7");
	assert_string_equal(merged(sum_1, 20, "-3", "4"), "1");
	assert_string_equal(merged(sum_1, 20, NULL, "4"), "4");
	assert_string_equal(merged(sum_1, 20, NULL, NULL), "NULL");
	assert_string_equal(
	    merged(sum_1, 20, "9223372036854775806", "1"), "9223372036854775807");
	assert_string_equal(
	    merged(sum_1, 20, "-9223372036854775807", "-1"), "-9223372036854775808");
	merge_two(sum_1, 20, "9223372036854775807", "1");
	assert_refused("22003", "bigint out of range", NULL);
	merge_two(count_1, 20, "9223372036854775807", "1");
	assert_refused("22003", "bigint out of range", NULL);
	/* Not what a count answers. */
	merge_two(count_1, 20, NULL, "1");
	assert_string_equal(client.sqlstate, "XX000");
	merge_two(sum_1, 20, "12x", "1");
	assert_string_equal(client.sqlstate, "XX000");
}

/* SELECT sum(x) FROM (VALUES (a), (b)) v(x), and numeric_send() of it, by PostgreSQL 15. */
static const struct {
	const char *a, *b, *sum, *binary, *a_binary, *b_binary;
} sums[] = {
    {"1", "2", "3", "00010000000000000003", "00010000000000000001",
	"00010000000000000002"},
    {"1.10", "2.2", "3.30", "000200000000000200030bb8", "0002000000000002000103e8",
	"0002000000000001000207d0"},
    {"0.1", "-0.1", "0.0", "0000000000000001", "0001ffff0000000103e8",
	"0001ffff4000000103e8"},
    {"0.10", "-0.1", "0.00", "0000000000000002", "0001ffff0000000203e8",
	"0001ffff4000000103e8"},
    {"-1.5", "0.500", "-1.000", "00010000400000030001", "000200004000000100011388",
	"0001ffff000000031388"},
    {"9999", "1", "10000", "00010001000000000001", "0001000000000000270f",
	"00010000000000000001"},
    {"99999999", "1", "100000000", "00010002000000000001", "0002000100000000270f270f",
	"00010000000000000001"},
    {"9999.9999", "0.0001", "10000.0000", "00010001000000040001",
	"0002000000000004270f270f", "0001ffff000000040001"},
    {"10000", "-1", "9999", "0001000000000000270f", "00010001000000000001",
	"00010000400000000001"},
    {"10000.0000", "-0.0001", "9999.9999", "0002000000000004270f270f",
	"00010001000000040001", "0001ffff400000040001"},
    {"-10000", "1", "-9999", "0001000040000000270f", "00010001400000000001",
	"00010000000000000001"},
    {"123456789012345678901234567890.123456789", "0.000000001",
	"123456789012345678901234567890.123456790",
	"000a000700000009000c0d801ed204d2162e23340d801ed204d2162f",
	"000b000700000009000c0d801ed204d2162e23340d801ed204d2162e2328",
	"0001fffd0000000903e8"},
    {"100000000000000000000000000000000000000000000000000000000000"
     "00000000000000000000000000000000000000000",
	"-1",
	"999999999999999999999999999999999999999999999999999999999999"
	"9999999999999999999999999999999999999999",
	"0019001800000000270f270f270f270f270f270f270f270f270f270f270f"
	"270f270f270f270f270f270f270f270f270f270f270f270f270f270f",
	"00010019000000000001", "00010000400000000001"},
    {"0.0000000000000000000000000000000000000000000000000000000000"
     "000000000000000000000000000000000000000001",
	"1",
	"1.0000000000000000000000000000000000000000000000000000000000"
	"000000000000000000000000000000000000000001",
	"001a00000000006400010000000000000000000000000000000000000000"
	"000000000000000000000000000000000000000000000000000000000001",
	"0001ffe7000000640001", "00010000000000000001"},
    {"-0.00000000000000000001", "100000000000000000000",
	"99999999999999999999.99999999999999999999",
	"000a000400000014270f270f270f270f270f270f270f270f270f270f",
	"0001fffb400000140001", "00010005000000000001"},
    {"NaN", "1", "NaN", "00000000c0000000", "00000000c0000000", "00010000000000000001"},
    {"Infinity", "1", "Infinity", "00000000d0000020", "00000000d0000020",
	"00010000000000000001"},
    {"Infinity", "-Infinity", "NaN", "00000000c0000000", "00000000d0000020",
	"00000000f0000020"},
    {"-Infinity", "-5", "-Infinity", "00000000f0000020", "00000000f0000020",
	"00010000400000000005"},
    {"Infinity", "NaN", "NaN", "00000000c0000000", "00000000d0000020",
	"00000000c0000000"},
    {"0.00", "0", "0.00", "0000000000000002", "0000000000000002", "0000000000000000"},
    {"-0.5", "0.25", "-0.25", "0001ffff4000000209c4", "0001ffff400000011388",
	"0001ffff0000000209c4"},
    {"12345.678", "-12345.678", "0.000", "0000000000000003",
	"0003000100000003000109291a7c", "0003000140000003000109291a7c"},
    {"18446744073709551615", "18446744073709551615", "36893488147419103230",
	"00050004000000000e690da005c207760c9e", "000500040000000007341a5802e103bb064f",
	"000500040000000007341a5802e103bb064f"},
    {"0.99995", "0.00005", "1.00000", "00010000000000050001", "0002ffff00000005270f1388",
	"0001fffe000000051388"},
    {"5", "-50000000000000000000", "-49999999999999999995",
	"00050004400000001387270f270f270f270b", "00010000000000000005",
	"00010004400000001388"},
    {"-7", "-8", "-15", "0001000040000000000f", "00010000400000000007",
	"00010000400000000008"},
    {"100000000", "-99999999.9999", "0.0001", "0001ffff000000040001",
	"00010002000000000001", "0003000140000004270f270f270f"},
    {NULL, "1.50", "1.50", "000200000000000200011388", NULL, "000200000000000200011388"},
    {"123", "0.00010", "123.00010", "0002000000000005007b0001", "0001000000000000007b",
	"0001ffff000000050001"},
};

static void
numeric_sums_are_those_of_postgresql(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sums); i++) {
		const char *got = merged(sum_1, 1700, sums[i].a, sums[i].b);

		/* Long ones are shown by their length, and compared by what the client got. */
		if (strlen(sums[i].sum) <= 40)
			assert_string_equal(got, sums[i].sum);
		else
			assert_non_null(memmem(client.bytes.mem, client.bytes.len,
			    sums[i].sum, strlen(sums[i].sum)));
	}
}

static size_t
unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;

	for (; hex[2 * n] != '\0'; n++) {
		char pair[3] = {hex[2 * n], hex[2 * n + 1], '\0'};

		out[n] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return (n);
}

/* A whole extended answer of one binary value. */
static void
answer_binary(unsigned i, uint32_t type, const uint8_t *p, size_t len)
{
	const struct proto_column column[] = {{"x", type, -1}};
	uint8_t head[6] = {0, 1};
	struct buf b = {0}, body = {0};

	begin_extended(&b);
	proto_row_description(&b, column, 1);
	b.mem[b.len - 1] = 1;
	proto_put32(head + 2, p == NULL ? UINT32_MAX : (uint32_t)len);
	buf_add(&body, head, sizeof(head));
	if (p != NULL)
		buf_add(&body, p, len);
	proto_message(&b, 'D', body.mem, body.len);
	buf_free(&body);
	end(&b, "SELECT 1");
	say(i, &b);
}

static void
merge_binary(const enum sql_aggregate *aggregate, uint32_t type, const char *a,
    const char *b, const char *wants)
{
	static const uint16_t binary[] = {1};
	struct sql_shape shape = {
	    .is_aggregate = true, .columns = aggregate, .column_count = 1};
	struct federate_order o = {.how = ROUTE_MERGE,
	    .shape = &shape,
	    .is_extended = true,
	    .formats = binary,
	    .format_count = 1};
	uint8_t bytes[512];
	size_t len;

	start(2, &o);
	len = a != NULL ? unhex(a, bytes) : 0;
	answer_binary(0, type, a != NULL ? bytes : NULL, len);
	len = b != NULL ? unhex(b, bytes) : 0;
	answer_binary(1, type, b != NULL ? bytes : NULL, len);
	assert_true(client.outcome.ok);
	len = unhex(wants, bytes);
	/* The row comes first: head, count, length. */
	assert_int_equal(client.bytes.mem[0], 'D');
	assert_int_equal(proto_get32(client.bytes.mem + 7), len);
	assert_memory_equal(client.bytes.mem + 11, bytes, len);
}

static void
binary_sums_are_those_of_postgresql(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sums); i++)
		if (sums[i].binary != NULL)
			merge_binary(sum_1, 1700, sums[i].a_binary, sums[i].b_binary,
			    sums[i].binary);
	merge_binary(
	    sum_1, 20, "fffffffffffffffe", "0000000000000001", "ffffffffffffffff");
	/* int4, float8, date, uuid */
	merge_binary(min_1, 23, "fffffffe", "00000001", "fffffffe");
	merge_binary(max_1, 26, "fffffffe", "00000001", "fffffffe");
	merge_binary(
	    max_1, 701, "7ff8000000000000", "7ff0000000000000", "7ff8000000000000");
	merge_binary(min_1, 1082, "80000000", "00000001", "80000000");
	merge_binary(max_1, 2950, "00000000000000000000000000000002",
	    "000000000000000000000000000000f1", "000000000000000000000000000000f1");
}

static void
sums_that_no_numeric_holds(void **state)
{
	char *nines = mem_alloc(131073);

	(void)state;
	memset(nines, '9', 131072);
	merge_two(sum_1, 1700, nines, "1");
	assert_refused("22003", "value overflows numeric format", NULL);
	merge_two(sum_1, 1700, nines, "-1");
	assert_true(client.outcome.ok);
	assert_int_equal(proto_get32(client.bytes.mem + 22 + 5 + 2 + 5), 131072);
	free(nines);
}

static void
the_smallest_and_the_greatest(void **state)
{
	static const struct {
		uint32_t type;
		const char *small, *great;
	} cases[] = {
	    {21, "-5", "3"},
	    {23, "9", "10"},
	    {20, "-9223372036854775808", "9223372036854775807"},
	    {26, "2147483647", "4294967295"},
	    {1700, "9.99", "10"},
	    {1700, "-10", "-9.99"},
	    {1700, "-Infinity", "-1"},
	    {1700, "Infinity", "NaN"},
	    {701, "9", "1e+20"},
	    {701, "-Infinity", "-1.5"},
	    {700, "Infinity", "NaN"},
	    {1082, "1999-12-31", "2000-01-01"},
	    {1082, "0044-03-15 BC", "0044-03-15"},
	    {1082, "0044-03-15 BC", "0043-03-15 BC"},
	    {1082, "9999-12-31", "12024-01-01"},
	    {1082, "-infinity", "4713-01-01 BC"},
	    {1082, "5874897-12-31", "infinity"},
	    {1114, "2024-02-29 23:59:59.9", "2024-03-01 00:00:00"},
	    {1114, "2024-02-29 10:00:00.09", "2024-02-29 10:00:00.1"},
	    {1114, "294276-12-31 23:59:59.999999", "infinity"},
	    {1184, "2024-01-01 12:00:00+05:30", "2024-01-01 07:00:00+00"},
	    {1184, "2024-01-01 00:00:00+02", "2023-12-31 23:00:00+00"},
	    {1184, "0044-03-15 12:00:00+00:49:56 BC", "0044-03-15 11:50:00+00 BC"},
	    {1083, "09:59:59.999999", "24:00:00"},
	    {2950, "00000000-0000-0000-0000-0000000000ff",
		"10000000-0000-0000-0000-000000000000"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *s = cases[i].small, *g = cases[i].great;

		assert_string_equal(merged(min_1, cases[i].type, s, g), s);
		assert_string_equal(merged(min_1, cases[i].type, g, s), s);
		assert_string_equal(merged(max_1, cases[i].type, s, g), g);
		assert_string_equal(merged(max_1, cases[i].type, g, s), g);
	}
	assert_string_equal(merged(max_1, 23, NULL, "-4"), "-4");
	assert_string_equal(merged(min_1, 23, "-4", NULL), "-4");
	assert_string_equal(merged(min_1, 1700, NULL, NULL), "NULL");
	/* Of equals the later one, whatever it looks like. */
	assert_string_equal(merged(max_1, 1700, "1.0", "1.00"), "1.00");
}

static void
what_is_not_exact_is_refused(void **state)
{
	(void)state;
	merge_two(sum_1, 701, "1.5", "2");
	assert_refused("0A000", "sum of type double precision is not exact when merged",
	    "Column \"x\" has type double precision.");
	merge_two(sum_1, 790, "$1", "$2");
	assert_refused("0A000", "sum of type money is not exact when merged", NULL);
	merge_two(max_1, 25, "a", "b");
	assert_refused("0A000", "max of type text is not exact when merged", NULL);
	merge_two(min_1, 1186, "1 mon", "30 days");
	assert_refused("0A000", "min of type interval is not exact when merged", NULL);
	merge_two(max_1, 16400, "a", "b");
	assert_refused("0A000", "max of type OID 16400 is not exact when merged", NULL);
}

static void
dates_are_compared_in_iso_form_only(void **state)
{
	(void)state;
	links[1]->vars =
	    vars_with(w, links[1]->vars, "DateStyle", "German, DMY", VARS_REPORTED);
	merge_two(max_1, 1082, "2024-01-02", "01.02.2024");
	assert_refused(
	    "0A000", "max of type date is merged only while DateStyle is ISO", NULL);
	links[1]->vars =
	    vars_with(w, links[1]->vars, "DateStyle", "ISO, DMY", VARS_REPORTED);
	assert_string_equal(
	    merged(max_1, 1082, "2024-01-02", "2024-02-01"), "2024-02-01");
	/* Were it not told: never a wrong answer. */
	merge_two(max_1, 1082, "2024-01-02", "01-02-2024");
	assert_string_equal(client.sqlstate, "XX000");
}

static void
aggregates_answer_one_row(void **state)
{
	struct sql_shape shape = {
	    .is_aggregate = true, .columns = count_1, .column_count = 1};
	struct federate_order o = {.how = ROUTE_MERGE, .shape = &shape};
	const struct proto_column column[] = {{"count", 20, 8}};

	(void)state;
	start(2, &o);
	answer_rows(0, column, "SELECT 1", "1", NULL);
	answer_rows(1, column, "SELECT 2", "1", "2", NULL);
	assert_refused(
	    "XX000", "database \"secondary\" answered not one row to aggregates", NULL);
	start(2, &o);
	answer_rows(0, column, "SELECT 0", NULL);
	answer_rows(1, column, "SELECT 1", "1", NULL);
	assert_string_equal(client.sqlstate, "XX000");
	/* Not the columns that were planned. */
	shape.column_count = 2;
	start(2, &o);
	answer_rows(0, column, "SELECT 1", "1", NULL);
	answer_rows(1, column, "SELECT 1", "1", NULL);
	assert_string_equal(client.sqlstate, "XX000");
}

static void
several_aggregates_are_one_row(void **state)
{
	static const enum sql_aggregate four[] = {
	    SQL_AGG_COUNT, SQL_AGG_SUM, SQL_AGG_MIN, SQL_AGG_MAX};
	static const struct proto_column columns[] = {
	    {"count", 20, 8}, {"sum", 1700, -1}, {"min", 1114, 8}, {"max", 701, 8}};
	static const char *const rows[2][4] = {
	    {"2", "1.50", "2024-01-01 00:00:00", NULL},
	    {"0", "0.005", NULL, "1.25"},
	};
	struct sql_shape shape = {
	    .is_aggregate = true, .columns = four, .column_count = 4};
	struct federate_order o = {.how = ROUTE_MERGE, .shape = &shape};

	(void)state;
	start(2, &o);
	for (unsigned i = 0; i < 2; i++) {
		struct buf b = {0};

		proto_row_description(&b, columns, 4);
		proto_data_row(&b, rows[i], 4);
		end(&b, "SELECT 1");
		say(i, &b);
	}
	assert_string_equal(seen(),
	    "T(count:20,sum:1700,min:1114,max:701) D(2,1.505,2024-01-01 00:00:00,1.25) "
	    "C(SELECT 1)");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(counts_and_integer_sums),
	    TEST(numeric_sums_are_those_of_postgresql),
	    TEST(binary_sums_are_those_of_postgresql),
	    TEST(sums_that_no_numeric_holds),
	    TEST(the_smallest_and_the_greatest),
	    TEST(what_is_not_exact_is_refused),
	    TEST(dates_are_compared_in_iso_form_only),
	    TEST(aggregates_answer_one_row),
	    TEST(several_aggregates_are_one_row),
	};

	return (cmocka_run_group_tests(tests, group_setup, group_teardown));
}
