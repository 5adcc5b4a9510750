/* http: JSON written and read, statements with their parameters, statuses, paths, results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/http/private.h"

static const char *
text_of(struct buf *b)
{
	*buf_room(b, 1) = '\0';
	return ((const char *)b->mem);
}

#define expect_text(b, wanted)                                                           \
	do {                                                                             \
		assert_string_equal(text_of(b), wanted);                                 \
		buf_free(b);                                                             \
	} while (0)

/* ---- writing ---- */

static void
structure_is_written(void **state)
{
	struct buf b = {0};
	struct json j = {.out = &b};

	(void)state;
	json_open(&j, '{');
	json_key(&j, "a");
	json_int(&j, INT64_MIN);
	json_key(&j, "b");
	json_open(&j, '[');
	json_close(&j, ']');
	json_key(&j, "c\"");
	json_open(&j, '[');
	json_bool(&j, true);
	json_nil(&j);
	json_text(&j, NULL);
	json_open(&j, '{');
	json_close(&j, '}');
	json_raw(&j, "1.5", 3);
	json_textn(&j, "xyz", 2);
	json_close(&j, ']');
	json_close(&j, '}');
	expect_text(&b, "{\"a\":-9223372036854775808,\"b\":[],"
			"\"c\\\"\":[true,null,null,{},1.5,\"xy\"]}");
}

static void
times_are_written(void **state)
{
	struct buf b = {0};
	struct json j = {.out = &b};

	(void)state;
	json_open(&j, '[');
	json_ms(&j, 0);
	json_ms(&j, 1234567);
	json_ms(&j, -1);
	json_time(&j, 0);
	json_time(&j, 1767225600000000 + 7999);
	json_close(&j, ']');
	expect_text(&b, "[0.000,1234.567,null,null,\"2026-01-01T00:00:00.007Z\"]");
}

/* Every text comes out as JSON that reads as the same text, or as near as can be. */
static void
texts_are_quoted(void **state)
{
	static const struct {
		const char *text, *json;
	} cases[] = {
	    {"", "\"\""},
	    {"a\"\\/b", "\"a\\\"\\\\/b\""},
	    {"\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\""},
	    {"ü€🐘", "\"ü€🐘\""},
	    {"\xff", "\"\\ufffd\""},
	    {"a\xc3", "\"a\\ufffd\""},
	    {"\xc0\x80", "\"\\ufffd\\ufffd\""},
	    {"\xe0\x80\x80", "\"\\ufffd\\ufffd\\ufffd\""},
	    {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},
	    {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
	    {"\xf0\x9f\x90", "\"\\ufffd\\ufffd\\ufffd\""},
	    {"\xc3\xbc\x80z", "\"ü\\ufffdz\""},
	};
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		json_t *back;

		json_quote(&b, cases[i].text, strlen(cases[i].text));
		assert_string_equal(text_of(&b), cases[i].json);
		back = json_loads(text_of(&b), JSON_DECODE_ANY, NULL);
		assert_true(json_is_string(back));
		json_decref(back);
		buf_free(&b);
	}
	json_quote(&b, "a\0b", 3);
	expect_text(&b, "\"a\\u0000b\"");
}

static void
values_are_written(void **state)
{
	static const struct {
		uint32_t oid;
		const char *text, *json;
	} cases[] = {
	    {16, "t", "true"},
	    {16, "f", "false"},
	    {16, "true", "\"true\""},
	    {21, "-5", "-5"},
	    {23, "0", "0"},
	    {20, "9007199254740992", "9007199254740992"},
	    {20, "-9007199254740992", "-9007199254740992"},
	    {20, "9007199254740993", "\"9007199254740993\""},
	    {20, "99999999999999999999999999", "\"99999999999999999999999999\""},
	    {20, "", "\"\""},
	    {20, "-", "\"-\""},
	    {23, "1.5", "\"1.5\""},
	    {701, "1e+300", "1e+300"},
	    {701, "0.1", "0.1"},
	    {700, "NaN", "\"NaN\""},
	    {701, "-Infinity", "\"-Infinity\""},
	    {1700, "1.50", "\"1.50\""},
	    {114, "{\"a\": 1}", "{\"a\": 1}"},
	    {3802, "null", "null"},
	    {114, "\"\xff\"", "\"\\\"\\ufffd\\\"\""},
	    {25, "1", "\"1\""},
	    {0, "x", "\"x\""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};

		json_value(&b, cases[i].oid, cases[i].text, strlen(cases[i].text));
		expect_text(&b, cases[i].json);
	}
	assert_string_equal(json_type_name(23), "int4");
	assert_null(json_type_name(194));
}

static void
numbers_are_told(void **state)
{
	static const char *const good[] = {
	    "0", "-0", "10", "0.5", "-1.25e-7", "1E5", "1e+05"};
	static const char *const bad[] = {"", "-", "+1", "01", "-01", "1.", ".5", "1e",
	    "1e+", "1x", " 1", "1 ", "NaN", "0x1", "1.2.3"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(number_is_json(good[i], strlen(good[i])));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(number_is_json(bad[i], strlen(bad[i])));
	assert_true(number_is_json("12x", 2));
}

/* ---- bodies ---- */

static json_t *
body_of(const char *text)
{
	struct refusal why;
	json_t *body;

	assert_int_equal(body_parse(text, strlen(text), &body, &why), 0);
	return (body);
}

static void
bodies_are_refused(void **state)
{
	static const struct {
		const char *text, *sqlstate, *words;
	} cases[] = {
	    {"", "22032", "the body is empty"},
	    {"{", "22032", "line 1, column 1"},
	    {"{\n\"a\": ,}", "22032", "line 2, column 6"},
	    {"{\"a\":1} x", "22032", "line 1, column 9"},
	    {"{\"a\":1,\"a\":2}", "22032", "duplicate"},
	    {"{\"a\":\"\\u0000\"}", "22032", "\\u0000 cannot be"},
	    {"{\"a\":1e999}", "22032", "give it as a string"},
	    {"{\"a\":99999999999999999999}", "22032", "give it as a string"},
	    {"{\"a\":\"\xff\"}", "22032", "byte 0xff"},
	    {"[]", "22023", "must be a JSON object"},
	    {"1", "22032", ""},
	};
	struct refusal why;
	json_t *body;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(
		    body_parse(cases[i].text, strlen(cases[i].text), &body, &why),
		    F_BODY);
		assert_null(body);
		assert_string_equal(why.sqlstate, cases[i].sqlstate);
		if (strstr(why.message, cases[i].words) == NULL)
			fail_msg("%s: %s", cases[i].text, why.message);
	}
}

static void
fields_are_checked(void **state)
{
	static const char *const words[] = {"query", "params", NULL};
	json_t *body = body_of("{\"query\":\"q\",\"params\":3,\"n\":null}");
	json_t *near = body_of("{\"qeury\":1}"), *far = body_of("{\"zzzzzz\":1}");
	struct refusal why;
	const char *text;

	(void)state;
	assert_int_equal(body_only(body, words, &why), F_BODY);
	assert_non_null(strstr(why.message, "\"n\""));
	assert_int_equal(body_only(near, words, &why), F_BODY);
	assert_string_equal(
	    why.message, "there is no field \"qeury\": did you mean \"query\"");
	assert_int_equal(body_only(far, words, &why), F_BODY);
	assert_string_equal(why.message,
	    "there is no field \"zzzzzz\": allowed are \"query\", \"params\"");
	json_object_del(body, "n");
	assert_int_equal(body_only(body, words, &why), 0);

	assert_int_equal(body_text(body, "query", true, &text, &why), 0);
	assert_string_equal(text, "q");
	assert_int_equal(body_text(body, "none", false, &text, &why), 0);
	assert_null(text);
	assert_int_equal(body_text(body, "none", true, &text, &why), F_BODY);
	assert_string_equal(why.message, "\"none\" is missing");
	assert_int_equal(body_text(body, "params", false, &text, &why), F_BODY);
	assert_string_equal(why.message, "\"params\" must be a string");
	json_decref(body);
	json_decref(near);
	json_decref(far);
}

static void
names_are_joined(void **state)
{
	static const char *const bad[] = {"{\"d\":[]}", "{\"d\":\"a\"}", "{\"d\":null}",
	    "{\"d\":[1]}", "{\"d\":[\"a\",\"\"]}", "{\"d\":[\"a,b\"]}"};
	struct refusal why;
	json_t *body = body_of("{\"d\":[\"b\",\"a\",\"b\"]}");
	char *names;

	(void)state;
	assert_int_equal(body_names(body, "d", &names, &why), 0);
	assert_string_equal(names, "b,a");
	free(names);
	assert_int_equal(body_names(body, "e", &names, &why), 0);
	assert_null(names);
	json_decref(body);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		body = body_of(bad[i]);
		assert_int_equal(body_names(body, "d", &names, &why), F_BODY);
		assert_string_equal(why.sqlstate, "22023");
		assert_null(names);
		json_decref(body);
	}
}

/* ---- statements ---- */

/* The statement of a body: its text, then each parameter behind a '|'. */
static void
expect_statement(const char *text, const char *wanted)
{
	json_t *body = body_of(text);
	struct statement s;
	struct refusal why;
	struct buf b = {0};

	if (body_statement(body, "", &s, &why) != 0)
		fail_msg("%s: %s", text, why.message);
	buf_addstr(&b, s.sql);
	for (unsigned i = 0; i < s.count; i++) {
		buf_addf(&b, "|%s", s.params[i] != NULL ? s.params[i] : "NULL");
		if (s.arrays != NULL && s.arrays[i] != NULL)
			buf_addf(&b, "=%s", s.arrays[i]);
	}
	body_statement_free(&s);
	json_decref(body);
	expect_text(&b, wanted);
}

static void
params_become_texts(void **state)
{
	(void)state;
	expect_statement("{\"query\":\"q\"}", "q");
	expect_statement("{\"query\":\"q\",\"params\":null}", "q");
	expect_statement("{\"query\":\"q\",\"params\":[]}", "q");
	expect_statement(
	    "{\"query\":\"q\",\"params\":[1,-2.5,\"t\",true,false,null,\"\"]}",
	    "q|1|-2.5|t|true|false|NULL|");
	expect_statement(
	    "{\"query\":\"q\",\"params\":[0.1,1e-7,1e22,9223372036854775807]}",
	    "q|0.1|1e-07|1e+22|9223372036854775807");
	expect_statement(
	    "{\"query\":\"q\",\"params\":[[1,[\"ü\\n\"],{}],{\"a\":0.1,\"b\":null}]}",
	    "q|[1,[\"ü\\n\"],{}]={1,{\"ü\n\"},\"{}\"}|{\"a\":0.1,\"b\":null}");
	expect_statement(
	    "{\"query\":\"q\",\"params\":[[], [1,null,\"NULL\",\"a\\\"b\\\\\",\"\",true,0.1,[],{\"k\":\"v\"}]]}",
	    "q|[]={}|[1,null,\"NULL\",\"a\\\"b\\\\\",\"\",true,0.1,[],{\"k\":\"v\"}]"
	    "={1,NULL,\"NULL\",\"a\\\"b\\\\\",\"\",true,0.1,{},\"{\\\"k\\\":\\\"v\\\"}\"}");
	expect_statement(
	    "{\"query\":\"a :x b :y c :x\",\"params\":{\"y\":2,\"x\":\"1\",\"z\":3}}",
	    "a $1 b $2 c $1|1|2");
}

static void
statements_are_refused(void **state)
{
	static const struct {
		const char *body, *words;
	} cases[] = {
	    {"{}", "\"queries[1].query\" is missing"},
	    {"{\"query\":null}", "\"queries[1].query\" must be a string"},
	    {"{\"query\":\"q\",\"params\":\"x\"}",
		"\"queries[1].params\" must be an array"},
	    {"{\"query\":\"q\",\"params\":1}", "\"queries[1].params\" must be an array"},
	    {"{\"query\":\":a :b\",\"params\":{\"a\":1}}",
		"\"queries[1].params\" has no \"b\""},
	    {"{\"query\":\"$1\",\"params\":{\"a\":1}}", "not $1"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		json_t *body = body_of(cases[i].body);
		struct statement s;
		struct refusal why;

		assert_int_equal(body_statement(body, "queries[1].", &s, &why), F_BODY);
		assert_string_equal(why.sqlstate, "22023");
		if (strstr(why.message, cases[i].words) == NULL)
			fail_msg("%s: %s", cases[i].body, why.message);
		assert_null(s.sql);
		json_decref(body);
	}
}

static void
too_many_params(void **state)
{
	json_t *body = json_pack("{s:s, s:[]}", "query", "q", "params");
	struct statement s;
	struct refusal why;

	(void)state;
	for (unsigned i = 0; i < BODY_PARAMS_MAX; i++)
		json_array_append_new(json_object_get(body, "params"), json_null());
	assert_int_equal(body_statement(body, "", &s, &why), 0);
	assert_int_equal(s.count, BODY_PARAMS_MAX);
	body_statement_free(&s);
	json_array_append_new(json_object_get(body, "params"), json_null());
	assert_int_equal(body_statement(body, "", &s, &why), F_BODY);
	json_decref(body);
}

/* As many names as there may be, each twice: their number must not cost its square. */
static void
many_names(void **state)
{
	struct buf sql = {0}, out = {0}, names = {0};
	struct refusal why;
	unsigned count;
	json_t *body = json_pack("{s:[]}", "d");
	char *joined;

	(void)state;
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < BODY_PARAMS_MAX; i++)
			buf_addf(&sql, ":n%u ", i);
	assert_int_equal(names_to_numbers(text_of(&sql), &out, &names, &count, &why), 0);
	assert_int_equal(count, BODY_PARAMS_MAX);
	assert_non_null(strstr(text_of(&out), " $65535 $1 $2 "));
	buf_addstr(&sql, ":more");
	assert_int_equal(
	    names_to_numbers(text_of(&sql), &out, &names, &count, &why), F_BODY);
	buf_free(&sql);
	buf_free(&out);
	buf_free(&names);

	for (unsigned i = 0; i < BODY_NAMES_MAX; i++)
		json_array_append_new(json_object_get(body, "d"), json_string("a"));
	assert_int_equal(body_names(body, "d", &joined, &why), 0);
	assert_string_equal(joined, "a");
	free(joined);
	json_array_append_new(json_object_get(body, "d"), json_string("a"));
	assert_int_equal(body_names(body, "d", &joined, &why), F_BODY);
	json_decref(body);
}

/* What the names of a text become, and the names behind it. */
static void
expect_names(const char *sql, const char *wanted, const char *wanted_names)
{
	struct buf out = {0}, names = {0}, list = {0};
	struct refusal why;
	const char *name;
	unsigned count;

	assert_int_equal(names_to_numbers(sql, &out, &names, &count, &why), 0);
	expect_text(&out, wanted);
	name = text_of(&names);
	for (unsigned i = 0; i < count; i++, name += strlen(name) + 1)
		buf_addf(&list, "%s ", name);
	expect_text(&list, wanted_names);
	buf_free(&names);
}

static void
names_become_numbers(void **state)
{
	(void)state;
	expect_names("", "", "");
	expect_names(":a", "$1", "a ");
	expect_names(":a,:b_2,:a,:_c,:ü", "$1,$2,$1,$3,$4", "a b_2 _c ü ");
	expect_names(":a::int", "$1::int", "a ");
	expect_names("a::b :c::d", "a::b $1::d", "c ");
	expect_names("x := :y", "x := $1", "y ");
	expect_names("t[1:2] t[:n]", "t[1:2] t[$1]", "n ");
	expect_names("':a' ':a''b:c' :d", "':a' ':a''b:c' $1", "d ");
	expect_names("'\\' :a", "'\\' $1", "a ");
	expect_names("E'\\':a' e'\\\\' :b", "E'\\':a' e'\\\\' $1", "b ");
	expect_names("U&':a' B':a' name':a'", "U&':a' B':a' name':a'", "");
	expect_names("\":a\"\":b\" :c", "\":a\"\":b\" $1", "c ");
	expect_names("$$:a$$ $x$:a$y$:b$x$ :c", "$$:a$$ $x$:a$y$:b$x$ $1", "c ");
	expect_names("a$b:c", "a$b$1", "c ");
	expect_names("-- :a\n:b", "-- :a\n$1", "b ");
	expect_names("/* :a /* :b */ :c */ :d", "/* :a /* :b */ :c */ $1", "d ");
	expect_names("a - :b / :c", "a - $1 / $2", "b c ");
	expect_names("'open :a", "'open :a", "");
	expect_names("$x$ open :a", "$x$ open :a", "");
	expect_names("/* open :a", "/* open :a", "");
	expect_names(": :1 :", ": :1 :", "");
}

/* ---- statuses ---- */

static void
statuses_fit(void **state)
{
	static const struct {
		const char *sqlstate;
		int status;
	} cases[] = {{"42P01", 400}, {"42501", 403}, {"28P01", 401}, {"23505", 409},
	    {"23503", 400}, {"40001", 409}, {"40P01", 409}, {"53300", 429},
	    {"53400", 429}, {"53200", 500}, {"57P03", 503}, {"57014", 504},
	    {"08006", 503}, {"08P01", 400}, {"25006", 403}, {"0A000", 400},
	    {"22012", 400}, {"3D000", 400}, {"P0001", 400}, {"XX000", 500}, {"", 500},
	    {"5", 500}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (status_of(cases[i].sqlstate) != cases[i].status)
			fail_msg(
			    "%s: %d", cases[i].sqlstate, status_of(cases[i].sqlstate));
	assert_string_equal(status_reason(429), "Too Many Requests");
	assert_string_equal(status_reason(500), "Internal Server Error");
}

static void
waits_are_read(void **state)
{
	(void)state;
	assert_int_equal(status_retry_after(""), 0);
	assert_int_equal(status_retry_after("limit of 5 reached"), 0);
	assert_int_equal(status_retry_after("retry in 2500 ms"), 3);
	assert_int_equal(status_retry_after("retry in 1.5 s."), 2);
	assert_int_equal(status_retry_after("100 of 100, retry in 30s"), 30);
	assert_int_equal(status_retry_after("2 min"), 120);
	assert_int_equal(status_retry_after("0.1 ms"), 1);
	assert_int_equal(status_retry_after("1e400 s"), 0);
}

/* ---- paths ---- */

static void
expect_path(enum evhttp_cmd_type method, const char *path, void (*run)(struct job *),
    const char *part, const char *allow)
{
	char *found_part, found_allow[32];
	const struct endpoint *e =
	    endpoint_find(method, path, &found_part, found_allow, sizeof(found_allow));

	assert_true((e == NULL) == (run == NULL));
	assert_true(e == NULL || e->run == run);
	assert_true((part == NULL) == (found_part == NULL));
	if (part != NULL)
		assert_string_equal(found_part, part);
	if (e == NULL)
		assert_string_equal(found_allow, allow);
	free(found_part);
}

static void
paths_are_found(void **state)
{
	static const char run_path[] = "/api/database/replication/jobs/7/run";

	(void)state;
	expect_path(EVHTTP_REQ_POST, "/api/database/query", query_run, NULL, "");
	expect_path(EVHTTP_REQ_GET, "/api/database/query", NULL, NULL, "POST");
	expect_path(EVHTTP_REQ_HEAD, "/health", overview_health, NULL, "");
	expect_path(EVHTTP_REQ_PUT, "/health", NULL, NULL, "GET, HEAD");
	expect_path(EVHTTP_REQ_PUT, "/api/database/replication/jobs", NULL, NULL,
	    "GET, HEAD, POST");
	expect_path(EVHTTP_REQ_GET, "/health/", NULL, NULL, "");
	expect_path(EVHTTP_REQ_GET, "/database/health", info_health_all, NULL, "");
	expect_path(EVHTTP_REQ_GET, "/database/a%20b/health", info_health_one, "a b", "");
	expect_path(EVHTTP_REQ_GET, "/database/%2f%zz/stats", stats_one, "/%zz", "");
	expect_path(EVHTTP_REQ_GET, "/database//health", NULL, NULL, "");
	expect_path(EVHTTP_REQ_GET, "/database/a/b/health", NULL, NULL, "");
	expect_path(EVHTTP_REQ_POST, run_path, jobs_run, "7", "");
	expect_path(EVHTTP_REQ_GET, run_path, NULL, NULL, "POST");
}

/* ---- results ---- */

static void
results_are_written(void **state)
{
	static const struct inner_column columns[] = {
	    {"a", 23}, {"b\"", 25}, {"a", 999999}};
	static const struct inner_value row[] = {{"1", 1}, {"x\n", 2}, {NULL, 0}};
	static const struct inner_message careful = {"WARNING", "01000", "careful", "",
					      "h"},
					  quiet = {"NOTICE", "00000", "q", "", ""};
	struct result r = {0};
	struct warnings w = {0};
	struct buf b = {0};
	struct json j = {.out = &b};

	(void)state;
	result_columns(&r, columns, 3);
	result_row(&r, row, 3);
	result_row(&r, row, 3);
	json_open(&j, '{');
	result_fields(&j, &r, "SELECT 2");
	warnings_add(&w, &quiet);
	warnings_field(&j, &w);
	warnings_add(&w, &careful);
	warnings_field(&j, &w);
	json_close(&j, '}');
	result_free(&r);
	buf_free(&w.list);
	expect_text(&b,
	    "{\"rows\":[{\"b\\\"\":\"x\\n\",\"a\":null},{\"b\\\"\":\"x\\n\",\"a\":null}],"
	    "\"rowCount\":2,\"fields\":[{\"name\":\"a\",\"type\":\"int4\"},"
	    "{\"name\":\"b\\\"\",\"type\":\"text\"},{\"name\":\"a\",\"type\":\"999999\"}],"
	    "\"warnings\":[{\"code\":\"01000\",\"message\":\"careful\",\"hint\":\"h\"}]}");
}

static void
tags_are_counted(void **state)
{
	static const struct {
		const char *tag, *json;
	} cases[] = {{"INSERT 0 5", "5"}, {"UPDATE 18446", "18446"},
	    {"CREATE TABLE", "0"}, {"BEGIN", "0"}, {"", "0"}};
	static const struct result none;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		struct json j = {.out = &b};
		char *wanted = mem_printf(
		    "\"rows\":[],\"rowCount\":%s,\"fields\":[]", cases[i].json);

		result_fields(&j, &none, cases[i].tag);
		expect_text(&b, wanted);
		free(wanted);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(structure_is_written),
	    cmocka_unit_test(times_are_written),
	    cmocka_unit_test(texts_are_quoted),
	    cmocka_unit_test(values_are_written),
	    cmocka_unit_test(numbers_are_told),
	    cmocka_unit_test(bodies_are_refused),
	    cmocka_unit_test(fields_are_checked),
	    cmocka_unit_test(names_are_joined),
	    cmocka_unit_test(params_become_texts),
	    cmocka_unit_test(statements_are_refused),
	    cmocka_unit_test(too_many_params),
	    cmocka_unit_test(many_names),
	    cmocka_unit_test(names_become_numbers),
	    cmocka_unit_test(statuses_fit),
	    cmocka_unit_test(waits_are_read),
	    cmocka_unit_test(paths_are_found),
	    cmocka_unit_test(results_are_written),
	    cmocka_unit_test(tags_are_counted),
	};

	return (cmocka_run_group_tests_name("http", tests, NULL, NULL));
}
