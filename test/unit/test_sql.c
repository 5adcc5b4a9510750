/* sql: statements split and digested, literals, hints, the cache, and what is hostile. */
#include <pthread.h>

#include "sql_line.h"

/* ---- splitting ---- */

/* The statements of a text, each followed by '|'. */
static void
expect_split(const char *text, const char *what)
{
	struct buf b = {0};
	const char *at, *end;
	struct sql_scan s;

	scan(text, &s);
	end = scanned + strlen(text);
	for (;;) {
		buf_add(&b, s.sql, s.len);
		buf_addstr(&b, s.is_empty ? "empty|" : s.is_cut ? "cut|" : "|");
		at = s.next;
		sql_scan_free(&s);
		if (at == NULL)
			break;
		assert_true(at > scanned && at < end);
		sql_scan(at, (size_t)(end - at), &s);
	}
	buf_add(&b, "", 1);
	assert_string_equal((char *)b.mem, what);
	buf_free(&b);
}

static void
texts_are_split(void **state)
{
	(void)state;
	expect_split("", "empty|");
	expect_split(" ;; ", "empty|");
	expect_split("-- nothing", "-- nothingempty|");
	expect_split("select 1", "select 1|");
	expect_split("select 1;", "select 1|");
	expect_split(" select 1 ; ; select 2; -- end\n", "select 1 |select 2|");
	expect_split("select ';', \";\", $$;$$, $a$;$$;$a$ /* ; /* ; */ ; */ -- ;\n; x",
	    "select ';', \";\", $$;$$, $a$;$$;$a$ /* ; /* ; */ ; */ -- ;\n|x|");
	expect_split("select e'\\';', 'a'\n'b;'; b", "select e'\\';', 'a'\n'b;'|b|");
	expect_split("select a$b$, 1; c$b$", "select a$b$, 1|c$b$|");
	expect_split("create rule r as on insert to t do (select 1; select 2); x",
	    "create rule r as on insert to t do (select 1; select 2)|x|");
	expect_split("create or replace function f() returns int begin atomic select 1; "
		     "select case when a then 1 end; end; x",
	    "create or replace function f() returns int begin atomic select 1; "
	    "select case when a then 1 end; end|x|");
	expect_split("create table function (a int); begin atomic; x",
	    "create table function (a int)|begin atomic|x|");
	expect_split("select 'open; x", "select 'open; xcut|");
	expect_split("select 1; /* open", "select 1|/* opencut|");
	expect_split("select $a$ open $b$", "select $a$ open $b$cut|");
	expect_split("select (1; 2); x", "select (1; 2)|x|");
}

static void
verbs_are_told(void **state)
{
	struct sql_scan s;

	(void)state;
	scan("/* a */ SeLeCt 1", &s);
	assert_string_equal(s.verb, "select");
	sql_scan_free(&s);
	scan("(select 1)", &s);
	assert_string_equal(s.verb, "(");
	sql_scan_free(&s);
	scan("/* a */", &s);
	assert_string_equal(s.verb, "");
	assert_true(s.is_empty);
	sql_scan_free(&s);
	scan("an_identifier_longer_than_the_field", &s);
	assert_string_equal(s.verb, "an_identifier_longer_th");
	sql_scan_free(&s);
}

/* ---- literals and digests ---- */

static void
expect_literal(const char *text, const char *value)
{
	struct sql_scan s;
	char *got;

	scan(text, &s);
	assert_int_equal(s.literal_count, 1);
	assert_int_equal(s.literals[0].at, 0);
	got = sql_literal_value(&s, 0);
	if (value == NULL)
		assert_null(got);
	else
		assert_string_equal(got, value);
	free(got);
	sql_scan_free(&s);
}

static void
literals_are_unquoted(void **state)
{
	(void)state;
	expect_literal("'it''s'", "it's");
	expect_literal("'a\\b'", "a\\b");
	expect_literal("'a' -- more\n 'b'", "ab");
	expect_literal("E'a\\'\\n\\x41\\101\\u00e9\\\\'", "a'\nAA\xc3\xa9\\");
	expect_literal("e'\\ud83d\\ude00'", "\xf0\x9f\x98\x80");
	expect_literal("e'\\ud83d'", NULL);
	expect_literal("e'\\u00'", NULL);
	expect_literal("e'\\000'", NULL);
	expect_literal("U&'d\\0061t\\+000061'", "data");
	expect_literal("u&'\\\\'", "\\");
	expect_literal("u&'\\00'", NULL);
	expect_literal("$$a'b$$", "a'b");
	expect_literal("$x$a$$b$x$", "a$$b");
	expect_literal("''", "");
	expect_literal("1.5e-3", "1.5e-3");
	expect_literal("1_000", "1_000");
	expect_literal("0xFF", "0xFF");
	expect_literal(".5", ".5");
	expect_literal("b'101'", NULL);
}

static void
unicode_escape_is_another(void **state)
{
	struct sql_scan s;
	char *value;

	(void)state;
	scan("U&'d!0061t' uescape '!'", &s);
	assert_int_equal(s.literal_count, 2);
	value = sql_literal_value(&s, 0);
	assert_string_equal(value, "dat");
	free(value);
	sql_scan_free(&s);
}

static bool
is_same_digest(const char *a, const char *b)
{
	struct sql_scan s, t;
	bool is_same;

	scan(a, &s);
	sql_scan(b, strlen(b), &t);
	is_same = memcmp(&s.digest, &t.digest, sizeof(s.digest)) == 0;
	sql_scan_free(&s);
	sql_scan_free(&t);
	return (is_same);
}

static void
digests_cover_all_but_literals(void **state)
{
	static const char *const differ[][2] = {{"select a b", "select ab"},
	    {"select 1", "select '1'"}, {"select \"A\"", "select a"},
	    {"select a+b", "select a-b"}, {"select $1", "select $2"},
	    {"select 1abc", "select 1 abc"}, {"select -1", "select 1"},
	    {"select \x01", "select ''"}, {"select \x02", "select 1"},
	    {"select a::b", "select a: :b"}, {"select N'a'", "select n 'a'"},
	    {"select b'1'", "select '1'"}, {"select (1)", "select 1"},
	    {"select a < > b", "select a <> b"}, {"", "select"},
	    {"select 'a", "select 'a'"}};
	struct buf a = {0}, b = {0};

	(void)state;
	assert_true(is_same_digest("SELECT  A /* x */ FROM t WHERE b = 'x' -- y\n",
	    "select a from T where B=E'long\\n' ; select 2"));
	assert_true(is_same_digest("select 1.5, 'a'\n'b'", "select 0x1, $$q$$"));
	assert_true(is_same_digest("a=-5", "a = - 7"));
	for (size_t i = 0; i + 1 < ARRAY_LEN(differ); i++)
		assert_false(is_same_digest(differ[i][0], differ[i][1]));
	/* Longer than what is hashed at once, and different at its end. */
	for (int i = 0; i < 1000; i++) {
		buf_addf(&a, "column_%d, 1, ", i);
		buf_addf(&b, "COLUMN_%d  ,2222,", i);
	}
	buf_add(&a, "x", 2);
	buf_add(&b, "x", 2);
	assert_true(is_same_digest((char *)a.mem, (char *)b.mem));
	b.mem[b.len - 2] = 'y';
	assert_false(is_same_digest((char *)a.mem, (char *)b.mem));
	buf_free(&a);
	buf_free(&b);
}

static void
digest_text_is_readable(void **state)
{
	struct sql_scan s;
	char *text;

	(void)state;
	scan("SELECT  a /* c */ ,'x',$1\n FROM t WHERE b=1.5 ", &s);
	text = sql_digest_text(&s);
	assert_string_equal(text, "SELECT a ,$?,$1 FROM t WHERE b=$?");
	assert_int_equal(s.param_max, 1);
	free(text);
	sql_scan_free(&s);
}

/* ---- hints ---- */

static void
hints_are_read(void **state)
{
	struct sql_scan s;

	(void)state;
	scan("/* app */ /* pgweave: database=analytics, READ_FROM = 'pri''mary' */ -- x\n"
	     "select 1",
	    &s);
	assert_non_null(s.hint);
	assert_string_equal(s.hint->database, "analytics");
	assert_string_equal(s.hint->read_from, "pri'mary");
	assert_null(s.hint->shard_key);
	assert_null(s.hint->problem);
	assert_int_equal(strncmp(s.sql, "-- x\nselect", 11), 0);
	assert_string_equal(s.verb, "select");
	sql_scan_free(&s);

	scan("-- pgweave: databases=a, b shard_key=\"4 2\" database=\nselect 1", &s);
	assert_string_equal(s.hint->databases, "a,b");
	assert_string_equal(s.hint->shard_key, "4 2");
	assert_string_equal(s.hint->database, "");
	assert_null(s.hint->problem);
	assert_int_equal(strncmp(s.sql, "select", 6), 0);
	sql_scan_free(&s);

	scan("select /* pgweave: database=x */ 1", &s);
	assert_null(s.hint);
	sql_scan_free(&s);
}

static void
expect_problem(const char *text, const char *problem)
{
	struct sql_scan s;

	scan(text, &s);
	assert_non_null(s.hint);
	assert_string_equal(s.hint->problem, problem);
	sql_scan_free(&s);
}

static void
hints_have_problems(void **state)
{
	char *text = malloc(10000);

	(void)state;
	expect_problem("/* pgweave: databse=x */ select",
	    "unknown word \"databse\" in a pgweave comment, perhaps \"database\" "
	    "(there are database, databases, federation, on_unavailable, shard_key, "
	    "read_from)");
	expect_problem("/* PGWeave: qqqqqqqq=x */",
	    "unknown word \"qqqqqqqq\" in a pgweave comment "
	    "(there are database, databases, federation, on_unavailable, shard_key, "
	    "read_from)");
	expect_problem(
	    "/* pgweave: primary */", "no \"=\" behind \"primary\" in a pgweave comment");
	expect_problem("/* pgweave: database='x */",
	    "no closing quote behind \"database\" in a pgweave comment");
	expect_problem("/* pgweave: 'x */", "no closing quote in a pgweave comment");
	memset(text, 'x', 10000);
	memcpy(text, "-- pgweave: ", 12);
	text[9999] = '\0';
	expect_problem(text, "a pgweave comment of more than 4096 bytes");
	free(text);
}

/* ---- the cache ---- */

static const struct sql_facts *
get(struct sql_cache *cache, const char *sql, struct sql_scan *s)
{
	scan(sql, s);
	return (sql_facts_get(cache, s));
}

static void
cache_knows_digests(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	struct sql_cache_stats stats;
	const struct sql_facts *first, *second;
	struct sql_scan s;

	(void)state;
	first = get(cache, "select * from t where id = 1", &s);
	assert_true(first->is_exact);
	sql_facts_hold(first);
	sql_scan_free(&s);
	second = get(cache, "SELECT * from t where id = 22", &s);
	assert_false(second->is_exact);
	assert_ptr_equal(second->tables, first->tables);
	sql_scan_free(&s);
	assert_true(get(cache, "select * from t where id = 1", &s) == first);
	sql_scan_free(&s);
	sql_cache_stats(cache, &stats);
	assert_int_equal(stats.hits, 2);
	assert_int_equal(stats.misses, 1);
	assert_int_equal(stats.entries, 1);
	assert_true(stats.bytes > 0);
	assert_int_equal(stats.unknown, 0);
	(void)get(cache, "nonsense", &s);
	sql_scan_free(&s);
	sql_cache_stats(cache, &stats);
	assert_int_equal(stats.unknown, 1);
	sql_cache_destroy(cache);
	assert_string_equal(first->tables[0].name, "t");
	sql_facts_release(first);
}

/* Whoever is first with a digest cannot spoil it for those that follow. */
static void
cache_is_not_spoiled(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	struct sql_scan s;
	char *text;

	(void)state;
	expect(cache, "select * from t where id = 'x' and a = 5",
	    "read plain; t; t.id=x t.a=5");
	sql_cache_destroy(cache);
	cache = sql_cache_create(1 << 20);
	/* A broken escape, which the parser would not take. */
	scan("select * from t where id = e'\\uZZ' and a = 0x5", &s);
	assert_int_equal(sql_facts_get(cache, &s)->class, SQL_READ);
	sql_scan_free(&s);
	expect(cache, "select * from t where id = 'x' and a = 5",
	    "read plain; t; t.id=x t.a=5");
	/* Too long: not kept. */
	text = mem_printf("select * from u where id = a%0*d", SQL_PARSE_BYTES, 1);
	expect(cache, text, "unknown; u!");
	free(text);
	expect(cache, "select * from u where id = 'x'", "read plain; u; u.id=x");
	scan_bytes("select * from v where id = 'a\0b'", 32, &s);
	assert_int_equal(sql_facts_get(cache, &s)->class, SQL_UNKNOWN);
	sql_scan_free(&s);
	expect(cache, "select * from v where id = 'x'", "read plain; v; v.id=x");
	sql_cache_destroy(cache);
}

static void
cache_is_bounded(void **state)
{
	struct sql_cache *cache = sql_cache_create(20000);
	struct sql_cache_stats stats;
	const struct sql_facts *held = NULL;
	struct sql_scan s;

	(void)state;
	for (int i = 0; i < 200; i++) {
		char sql[64];

		snprintf(sql, sizeof(sql), "select a%d from t where id = 1", i);
		if (i == 3)
			held = sql_facts_hold(get(cache, sql, &s));
		else
			(void)get(cache, sql, &s);
		sql_scan_free(&s);
		/* Stays, because it is used. */
		(void)get(cache, "select 1 from kept", &s);
		sql_scan_free(&s);
		sql_cache_stats(cache, &stats);
		assert_true(stats.bytes <= 20000);
	}
	assert_int_equal(stats.misses, 201);
	assert_true(stats.evictions > 100);
	assert_true(stats.entries > 2);
	assert_string_equal(held->tables[0].name, "t");
	sql_facts_release(held);
	sql_cache_destroy(cache);

	/* Nothing fits: answers all the same. */
	cache = sql_cache_create(0);
	expect(cache, "select a from t", "read plain; t");
	expect(cache, "select a from t", "read plain; t");
	sql_cache_stats(cache, &stats);
	assert_int_equal(stats.entries, 0);
	sql_cache_destroy(cache);
}

/* ---- limits, and what is hostile ---- */

/* The class of head, count times middle, count times tail; its time is bounded, too. */
static enum sql_class
class_of_many(const char *head, const char *middle, const char *tail, int count)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	struct buf b = {0};
	struct sql_scan s;
	enum sql_class class;

	buf_addstr(&b, head);
	for (int i = 0; i < count; i++)
		buf_addstr(&b, middle);
	for (int i = 0; i < count; i++)
		buf_addstr(&b, tail);
	scan_bytes((char *)b.mem, b.len, &s);
	class = sql_facts_get(cache, &s)->class;
	free(sql_digest_text(&s));
	sql_scan_free(&s);
	buf_free(&b);
	sql_cache_destroy(cache);
	return (class);
}

static void
depth_is_limited(void **state)
{
	(void)state;
	assert_int_equal(class_of_many("select 1", "+1", "", 400), SQL_READ);
	assert_int_equal(class_of_many("select 1", "+1", "", 600), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select 1", "+1", "", 500000), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select ", "-", "1", 1), SQL_READ);
	assert_int_equal(class_of_many("select ", "- ", "", 8000), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select ", "not ", "", 4000), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select 1", "::int", "", 3000), SQL_UNKNOWN);
	assert_int_equal(
	    class_of_many("select 1", " union select 1", "", 900), SQL_UNKNOWN);
	assert_int_equal(
	    class_of_many("select 1 from t", " join t on a", "", 1000), SQL_UNKNOWN);
	assert_int_equal(
	    class_of_many("select ", "case when true then ", " end", 600), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select 1 ", "+(1", ")", 150), SQL_READ);
	assert_int_equal(class_of_many("select ", "(", ")", 10000), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select ", "(select ", "1)", 300), SQL_UNKNOWN);
	assert_int_equal(class_of_many("", "(", "", 100000), SQL_UNKNOWN);
	assert_int_equal(class_of_many("select a", "[1", "]", 300), SQL_UNKNOWN);
	/* Wide is not deep. */
	assert_int_equal(class_of_many("select 1", ",-1+1", "", 2000), SQL_READ);
	assert_int_equal(
	    class_of_many("select 1 from t where a=1", " or a=1", "", 2000), SQL_READ);
	assert_int_equal(
	    class_of_many("select 1 where 1 in (1", ",1", "", 100000), SQL_UNKNOWN);
	assert_int_equal(class_of_many("begin", "  ", "", 20000), SQL_BEGIN);
	assert_int_equal(
	    class_of_many("show pgweave.database ", "/**/", "", 20000), SQL_SET);
	assert_int_equal(class_of_many("explain (route) select 1", ",1", "", 20000),
	    SQL_EXPLAIN_ROUTE);
}

static void
literals_are_limited(void **state)
{
	struct sql_cache *cache = sql_cache_create(1 << 20);
	struct buf b = {0};
	struct sql_scan s;
	const struct sql_facts *f;

	(void)state;
	buf_addstr(&b, "select * from t where id in (0");
	for (int i = 1; i < SQL_LITERALS_MAX; i++)
		buf_addf(&b, ",%d", i % 10);
	scan_bytes((char *)b.mem, b.len, &s);
	assert_int_equal(s.literal_count, SQL_LITERALS_MAX);
	sql_scan_free(&s);
	buf_addstr(&b, ",5)");
	scan_bytes((char *)b.mem, b.len, &s);
	assert_int_equal(s.literal_count, 0);
	f = sql_facts_get(cache, &s);
	assert_int_equal(f->class, SQL_READ);
	assert_int_equal(f->match_count, 0);
	sql_scan_free(&s);
	b.len = 0;
	buf_addstr(&b, "select 1 from t");
	for (int i = 1; i < SQL_TABLES_MAX; i++)
		buf_addstr(&b, ", t");
	scan_bytes((char *)b.mem, b.len, &s);
	assert_int_equal(sql_facts_get(cache, &s)->table_count, SQL_TABLES_MAX);
	sql_scan_free(&s);
	buf_addstr(&b, ", t");
	scan_bytes((char *)b.mem, b.len, &s);
	assert_int_equal(sql_facts_get(cache, &s)->class, SQL_UNKNOWN);
	sql_scan_free(&s);
	buf_free(&b);
	sql_cache_destroy(cache);
}

static void
rubbish_is_survived(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} list[] = {
#define BYTES(s) {s, sizeof(s) - 1}
	    BYTES("\0\0\0"),
	    BYTES("select \xff\xfe\xc3"),
	    BYTES("'\xff"),
	    BYTES("select '\0'"),
	    BYTES("$"),
	    BYTES("$a"),
	    BYTES("$a$"),
	    BYTES("$$"),
	    BYTES("e'\\"),
	    BYTES("U&'\\"),
	    BYTES("U&\""),
	    BYTES("n'"),
	    BYTES("\""),
	    BYTES("\"\""),
	    BYTES("/*"),
	    BYTES("/*/"),
	    BYTES("--"),
	    BYTES("1e"),
	    BYTES("1e+"),
	    BYTES("0x"),
	    BYTES("1__0"),
	    BYTES("1."),
	    BYTES("1.."),
	    BYTES("."),
	    BYTES(":"),
	    BYTES("::"),
	    BYTES("'a'\n--"),
	    BYTES("'a'\n"),
	    BYTES("$99999999999999999999"),
	    BYTES("@--"),
	    BYTES("+/*"),
	    BYTES("select $1abc"),
	    BYTES("/* pgweave: \0=\0 */"),
	    BYTES("/*pgweave:'"),
	    BYTES("/*pgweave:a='*/"),
	    BYTES("set \xff = \0"),
	    BYTES("explain (route"),
	    BYTES("explain (route)"),
	    BYTES("select U&'\\0061' uescape '"),
	    BYTES("select \\ { } \x7f"),
	    BYTES(";;;;\0;"),
	    BYTES("select 'a' 'b'"),
	    BYTES("select $$a$$'b'"),
	    BYTES("select 1.5.5, .5.5"),
	    BYTES("select a.5, a.b.5"),
	    BYTES("select x'zz', b'99', x'"),
	};
	struct sql_cache *cache = sql_cache_create(1 << 20);
	struct sql_scan s;
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		scan_bytes(list[i].bytes, list[i].len, &s);
		assert_true(s.sql >= scanned && s.sql + s.len <= scanned + list[i].len);
		for (unsigned j = 0; j < s.literal_count; j++)
			free(sql_literal_value(&s, j));
		free(describe(&s, sql_facts_get(cache, &s)));
		sql_scan_free(&s);
	}
	/* Comments in comments, closed and not; many statements in one text. */
	assert_int_equal(class_of_many("select 1", "/*", "*/", 100000), SQL_READ);
	assert_int_equal(class_of_many("select 1", "/*", "*", 100000), SQL_UNKNOWN);
	for (int i = 0; i < 200000; i++)
		buf_addstr(&b, ";");
	buf_addstr(&b, "x");
	scan_bytes((char *)b.mem, b.len, &s);
	assert_true(s.is_empty && s.next != NULL && *s.next == 'x');
	sql_scan_free(&s);
	buf_free(&b);
	sql_cache_destroy(cache);
}

/* ---- threads, each with its cache ---- */

static void *
run_thread(void *arg)
{
	struct sql_cache *cache = sql_cache_create(30000);
	unsigned seed = *(const unsigned *)arg;
	uint64_t sum = 0;

	for (int i = 0; i < 300; i++) {
		char sql[128];
		struct sql_scan s;
		const struct sql_facts *f;
		int n;

		seed = seed * 1664525 + 1013904223;
		n = snprintf(sql, sizeof(sql),
		    "select a%u, lower(b) from t where id = %d%s", (seed >> 16) % 100, i,
		    i % 7 == 0 ? " nonsense" : "");
		sql_scan(sql, (size_t)n, &s);
		f = sql_facts_get(cache, &s);
		sum += f->class == (i % 7 == 0 ? SQL_UNKNOWN : SQL_READ);
		sum += f->match_count == (i % 7 == 0 ? 0 : 1);
		sql_scan_free(&s);
	}
	sql_cache_destroy(cache);
	return ((void *)(uintptr_t)sum);
}

static void
threads_have_their_own(void **state)
{
	pthread_t threads[4];
	unsigned seeds[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		seeds[i] = i + 1;
		assert_int_equal(
		    pthread_create(&threads[i], NULL, run_thread, &seeds[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		void *sum;

		assert_int_equal(pthread_join(threads[i], &sum), 0);
		assert_int_equal((uintptr_t)sum, 600);
	}
}

/* ---- parts of an INSERT ---- */

static void
expect_part(const char *sql, const char *rows, unsigned part, const char *want,
    const char *want_params)
{
	uint8_t part_of_row[16];
	unsigned count = (unsigned)strlen(rows);
	uint16_t old[16];
	bool may_change[16];
	struct sql_part_params params = {
	    .max = 15, .numbers = old, .may_change = may_change};
	struct buf numbers = {0};
	char *text;

	for (unsigned i = 0; i < count; i++)
		part_of_row[i] = (uint8_t)(rows[i] - '0');
	text = sql_insert_part(sql, strlen(sql), part_of_row, count, part, &params);
	if (want == NULL) {
		assert_null(text);
		return;
	}
	assert_non_null(text);
	assert_string_equal(text, want);
	for (unsigned i = 0; i < params.count; i++)
		buf_addf(&numbers, "%u%s ", old[i], may_change[i] ? "?" : "");
	buf_add(&numbers, "", 1);
	assert_string_equal((char *)numbers.mem, want_params);
	buf_free(&numbers);
	free(text);
}

static void
inserts_are_cut(void **state)
{
	(void)state;
	expect_part("insert into t values (1), (2), (3)", "010", 0,
	    "insert into t values (1), (3)", "");
	expect_part("insert into t values (1), (2), (3)", "010", 1,
	    "insert into t values (2)", "");
	expect_part(
	    "INSERT INTO t (\"values\", b) VALUES ($1, $2),\n ($3, f($4, ')')) -- x\n"
	    " , ($5, $$),($$) RETURNING $1 + $6",
	    "011", 1,
	    "INSERT INTO t (\"values\", b) VALUES ($1, f($2, ')')), ($3, $$),($$) "
	    "RETURNING $4 + $5",
	    "3 4 5 1? 6 ");
	expect_part("insert into t values ($2,$1)on conflict do nothing", "1", 1,
	    "insert into t values ($1,$2)on conflict do nothing", "2 1 ");
	/* what tells the type of a parameter is in a row of another part */
	expect_part("insert into t values ($1, $2), ($3, $2)", "01", 1,
	    "insert into t values ($1, $2)", "3 2 ");
	expect_part("insert into t values ($1, $2), ($3, $1)", "01", 0,
	    "insert into t values ($1, $2)", "1 2 ");
	expect_part("insert into t values ($1, $2), ($3, $1)", "01", 1,
	    "insert into t values ($1, $2)", "3 1? ");
	expect_part("insert into t values ($1::int, 1), ($2, $1), ($3, $1)", "011", 1,
	    "insert into t values ($1, $2), ($3, $2)", "2 1? 3 ");
	expect_part("insert into t values (a[1], f(1, $1)), ($2, $1)", "01", 1,
	    "insert into t values ($1, $2)", "2 1? ");
	expect_part("insert into t values (array[1, $1], $2), (array[2], $2)", "01", 1,
	    "insert into t values (array[2], $1)", "2 ");
	/* numbers that no parameter has */
	expect_part("insert into t values (1, $70000), (2, $70000)", "01", 1, NULL, "");
	expect_part("insert into t values (1, $0), (2, 3)", "01", 0, NULL, "");
	/* not as many rows, or something else behind them */
	expect_part("insert into t values (1), (2)", "012", 0, NULL, "");
	expect_part("insert into t values (1), (2), (3)", "01", 0, NULL, "");
	expect_part("insert into t values (1), (2) union select 3", "01", 0, NULL, "");
	expect_part("insert into values (a) values (1), (2)", "01", 0, NULL, "");
	expect_part("insert into t select * from (values (1), (2)) v", "01", 0, NULL, "");
	expect_part("insert into t values (1), (2", "01", 0, NULL, "");
	expect_part("insert into t default values", "01", 0, NULL, "");
}

/* ---- PREPARE, EXECUTE, DEALLOCATE ---- */

struct prepare_case {
	const char *sql, *name, *rest; /* rest: types and inner, or arguments */
	enum sql_prepare_kind kind;
};

static void
prepare_is_taken_apart(void **state)
{
	static const struct prepare_case cases[] = {
	    {"prepare p as select 1", "p", "| select 1", SQL_PREPARE_MAKE},
	    {"/* x */ PREPARE \"P q\" (int, numeric(1,2)) AS select ';'", "P q",
		"(int, numeric(1,2))| select ';'", SQL_PREPARE_MAKE},
	    {"prepare transaction as values (1)", "transaction", "| values (1)",
		SQL_PREPARE_MAKE},
	    {"prepare transaction 'x'", NULL, NULL, SQL_PREPARE_NONE},
	    {"prepare select as select 1", NULL, NULL, SQL_PREPARE_NONE},
	    {"prepare p as", NULL, NULL, SQL_PREPARE_NONE},
	    {"execute P", "p", "", SQL_PREPARE_RUN},
	    {"execute p (1, f(2), ')')", "p", "(1, f(2), ')')", SQL_PREPARE_RUN},
	    {"execute p (1", NULL, NULL, SQL_PREPARE_NONE},
	    {"execute p 1", NULL, NULL, SQL_PREPARE_NONE},
	    {"explain (analyze, format json) execute p(1)", "p", "(1)", SQL_PREPARE_RUN},
	    {"explain analyze verbose execute p", "p", "", SQL_PREPARE_RUN},
	    {"create temp table if not exists x (a) with (fillfactor = 9) on commit drop as "
	     "execute p (1) with no data",
		"p", "(1)", SQL_PREPARE_RUN},
	    {"create trigger t after insert on x execute function f()", NULL, NULL,
		SQL_PREPARE_NONE},
	    {"deallocate p", "p", "", SQL_PREPARE_DROP},
	    {"deallocate prepare p", "p", "", SQL_PREPARE_DROP},
	    {"deallocate prepare", "prepare", "", SQL_PREPARE_DROP},
	    {"deallocate all", NULL, "", SQL_PREPARE_DROP_ALL},
	    {"deallocate \"all\"", "all", "", SQL_PREPARE_DROP},
	    {"select 1", NULL, NULL, SQL_PREPARE_NONE},
	    {"prepare p as select 'x", NULL, NULL, SQL_PREPARE_NONE}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct prepare_case *c = &cases[i];
		struct sql_prepare p;
		struct sql_scan scan;
		char *rest;

		sql_scan(c->sql, strlen(c->sql), &scan);
		assert_int_equal(
		    sql_prepare_read(&scan, &p), c->kind != SQL_PREPARE_NONE);
		assert_int_equal(p.kind, c->kind);
		if (c->name != NULL)
			assert_string_equal(p.name, c->name);
		if (c->rest != NULL) {
			rest =
			    p.kind == SQL_PREPARE_MAKE
				? mem_printf("%.*s|%.*s", (int)p.types_len,
				      scan.sql + p.types_at, (int)(scan.len - p.inner_at),
				      scan.sql + p.inner_at)
				: mem_printf(
				      "%.*s", (int)p.args_len, scan.sql + p.args_at);
			assert_string_equal(rest, c->rest);
			free(rest);
		}
		sql_prepare_free(&p);
		sql_scan_free(&scan);
	}
}

static void
prepare_is_seen_by_its_first_word(void **state)
{
	(void)state;
	assert_int_equal(sql_prepare_may("execute p", 9), 1);
	assert_int_equal(sql_prepare_may("-- x\n  Prepare p", 16), 1);
	assert_int_equal(sql_prepare_may("select 1", 8), 0);
	assert_int_equal(sql_prepare_may("delete from x", 13), 0);
	assert_int_equal(sql_prepare_may("execut", 6), -1);
	assert_int_equal(sql_prepare_may("/* x", 4), -1);
	assert_int_equal(sql_prepare_may("", 0), -1);
}

static void
arguments_are_values(void **state)
{
	static const char sql[] =
	    "execute p (007, -5, '4' '1', null, 1 + 1, 3.5, '42'::int, "
	    "bigint '9', f(1, 2), 1e3, -x, E'a\\n', 5::numeric(3, 1), (7))";
	static const char *const values[] = {"7", "-5", NULL, "NULL", NULL, NULL, "42",
	    "9", NULL, NULL, NULL, "a\n", NULL, NULL};
	struct sql_argument *list;
	struct sql_prepare p;
	struct sql_scan scan;
	unsigned count;

	(void)state;
	sql_scan(sql, strlen(sql), &scan);
	assert_true(sql_prepare_read(&scan, &p));
	count = sql_prepare_arguments(&scan, &p, &list);
	assert_int_equal(count, ARRAY_LEN(values));
	for (unsigned i = 0; i < count; i++) {
		bool is_null = values[i] != NULL && strcmp(values[i], "NULL") == 0;

		assert_int_equal(list[i].is_null, is_null);
		if (values[i] == NULL || is_null)
			assert_null(list[i].value);
		else
			assert_string_equal(list[i].value, values[i]);
	}
	sql_arguments_free(list, count);
	sql_prepare_free(&p);
	sql_scan_free(&scan);
}

/* What clients may share: one reading serves them all. */
static void
constants_are_those_of_any_time(void **state)
{
	static const struct {
		const char *text;
		enum sql_share share;
	} cases[] = {
	    {"select a from t where b = $1", SQL_SHARE_MAY},
	    {" /* c */ -- d\n (SELECT 1)", SQL_SHARE_MAY},
	    {"insert into t values (now(), today, 'nowhere', 'snow')", SQL_SHARE_MAY},
	    {"with x as (insert into t values (1) returning a) select * from x",
		SQL_SHARE_MAY},
	    {"merge into t using u on true when matched then do nothing", SQL_SHARE_MAY},
	    {"select 'it''s', E'x', $$y$$, 'epoch'", SQL_SHARE_MAY},
	    {"select 'fell into it', \"into\", a.into_ from a", SQL_SHARE_MAY},
	    {"select 'now'::timestamp", SQL_SHARE_NOT},
	    {"select timestamptz '10:00 TODAY'", SQL_SHARE_NOT},
	    {"select date ' tomorrow '", SQL_SHARE_NOT},
	    {"select $d$yesterday_$d$", SQL_SHARE_NOT},
	    {"select 'no'\n'w'", SQL_SHARE_NOT},
	    {"select U&'no!0077' uescape '!'", SQL_SHARE_NOT},
	    {"select E'\\x6eow'", SQL_SHARE_NOT},
	    {"select 'a\\b'", SQL_SHARE_NOT},
	    {"select 'open", SQL_SHARE_NOT},
	    {"", SQL_SHARE_NOT},
	    {"-- nothing", SQL_SHARE_NOT},
	    {"begin", SQL_SHARE_NOT},
	    {"set x = 1", SQL_SHARE_NOT},
	    {"call f()", SQL_SHARE_NOT},
	    {"select 1 into t", SQL_SHARE_DEFINES},
	    {"with x as (select 1) select * INTO temp t from x", SQL_SHARE_DEFINES},
	    {"create table t as select 1", SQL_SHARE_DEFINES},
	    {"explain analyze create table t as select 1", SQL_SHARE_DEFINES},
	    {"explain select 1", SQL_SHARE_NOT},
	    {"execute p (1)", SQL_SHARE_NOT},
	    {"rubbish", SQL_SHARE_DEFINES},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		if (sql_share(cases[i].text, strlen(cases[i].text)) != cases[i].share)
			fail_msg("%s", cases[i].text);
	}
}

static char *
lone(const char *text)
{
	bool may = sql_lone_may(text, strlen(text));

	return (may ? sql_lone_database(text, strlen(text), &may) : NULL);
}

static void
lone_databases_are_named(void **state)
{
	static const char *const cases[][2] = {
	    {"drop database x", "x"},
	    {"DROP DATABASE IF EXISTS \"X y\" WITH (FORCE)", "X y"},
	    {"/* c */ drop database u;", "u"},
	    {"alter database X rename to y", "x"},
	    {"alter database x set tablespace t", "x"},
	    {"alter database x set work_mem = 1", NULL},
	    {"create database x", "template1"},
	    {"create database x template y", "y"},
	    {"create database x with owner = z template = 'Y z' encoding 'UTF8'", "Y z"},
	    {"create database x template default", "template1"},
	    {"create table database (a int)", NULL},
	    {"drop table x", NULL},
	    {"drop", NULL},
	    {"drop database", NULL},
	    {"alter database", NULL},
	    {"select 1", NULL},
	    {"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *name = lone(cases[i][0]);

		if ((name == NULL) != (cases[i][1] == NULL) ||
		    (name != NULL && strcmp(name, cases[i][1]) != 0))
			fail_msg("%s: %s", cases[i][0], name != NULL ? name : "(none)");
		free(name);
	}
}

static void
signals_are_read(void **state)
{
	static const struct {
		const char *text, *label;
		int64_t pid;
		unsigned param;
		bool terminates;
	} cases[] = {
	    {"select pg_terminate_backend(12)", "pg_terminate_backend", 12, 0, true},
	    {"SELECT pg_catalog.pg_cancel_backend ( $3::int4 ) AS \"A b\" ;", "A b", 0, 3,
		false},
	    {"select pg_terminate_backend($1, $2)", "pg_terminate_backend", 0, 1, true},
	    {"select pg_terminate_backend(7, 100) as x", "x", 7, 0, true},
	    {"select pg_cancel_backend(7, 100)", NULL, 0, 0, false},
	    {"select pg_terminate_backend(pid) from pg_stat_activity", NULL, 0, 0, false},
	    {"select pg_terminate_backend(7) where false", NULL, 0, 0, false},
	    {"select pg_terminate_backend(7), 1", NULL, 0, 0, false},
	    {"select pg_terminate_backend(7); select 1", NULL, 0, 0, false},
	    {"select pg_terminate_backend(", NULL, 0, 0, false},
	    {"select pg_terminate_backend(99999999999999999999999)", NULL, 0, 0, false},
	};
	struct sql_signal s;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		bool is_it = sql_signal_read(cases[i].text, strlen(cases[i].text), &s);

		if (is_it != (cases[i].label != NULL))
			fail_msg("%s", cases[i].text);
		if (!is_it)
			continue;
		assert_string_equal(s.label, cases[i].label);
		assert_int_equal(s.pid, cases[i].pid);
		assert_int_equal(s.param, cases[i].param);
		assert_int_equal(s.terminates, cases[i].terminates);
	}
}

static void
listens_are_read(void **state)
{
	static const struct {
		const char *text, *name;
		enum sql_prepare_kind kind;
	} cases[] = {
	    {"listen A", "a", SQL_PREPARE_LISTEN},
	    {"/* x */ LISTEN \"A\" -- end", "A", SQL_PREPARE_LISTEN},
	    {"unlisten a;", "a", SQL_PREPARE_UNLISTEN},
	    {"unlisten *", NULL, SQL_PREPARE_UNLISTEN},
	    {"listen *", NULL, SQL_PREPARE_NONE},
	    {"listen select", NULL, SQL_PREPARE_NONE},
	    {"listen a b", NULL, SQL_PREPARE_NONE},
	    {"listen", NULL, SQL_PREPARE_NONE},
	    {"notify a", NULL, SQL_PREPARE_NONE},
	};
	struct sql_prepare p;
	struct sql_scan s;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		scan(cases[i].text, &s);
		if (sql_listen_read(&s, &p) != (cases[i].kind != SQL_PREPARE_NONE) ||
		    p.kind != cases[i].kind)
			fail_msg("%s", cases[i].text);
		if (cases[i].name != NULL)
			assert_string_equal(p.name, cases[i].name);
		sql_prepare_free(&p);
		sql_scan_free(&s);
	}
	assert_int_equal(sql_listen_may(" lis", 4, false), -1);
	assert_int_equal(sql_listen_may("LISTEN a", 8, false), 1);
	assert_int_equal(sql_listen_may("unlisten a", 10, false), 0);
	assert_int_equal(sql_listen_may("unlisten a", 10, true), 1);
	assert_int_equal(sql_listen_may("lock a", 6, true), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(texts_are_split),
	    cmocka_unit_test(verbs_are_told),
	    cmocka_unit_test(literals_are_unquoted),
	    cmocka_unit_test(unicode_escape_is_another),
	    cmocka_unit_test(digests_cover_all_but_literals),
	    cmocka_unit_test(digest_text_is_readable),
	    cmocka_unit_test(hints_are_read),
	    cmocka_unit_test(hints_have_problems),
	    cmocka_unit_test(cache_knows_digests),
	    cmocka_unit_test(cache_is_not_spoiled),
	    cmocka_unit_test(cache_is_bounded),
	    cmocka_unit_test(depth_is_limited),
	    cmocka_unit_test(literals_are_limited),
	    cmocka_unit_test(rubbish_is_survived),
	    cmocka_unit_test(prepare_is_taken_apart),
	    cmocka_unit_test(prepare_is_seen_by_its_first_word),
	    cmocka_unit_test(arguments_are_values),
	    cmocka_unit_test(threads_have_their_own),
	    cmocka_unit_test(constants_are_those_of_any_time),
	    cmocka_unit_test(inserts_are_cut),
	    cmocka_unit_test(lone_databases_are_named),
	    cmocka_unit_test(signals_are_read),
	    cmocka_unit_test(listens_are_read),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
