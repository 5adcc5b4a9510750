/*
 * Bodies of HTTP requests: a statement, or an array of them under "queries", with parameters by
 * number or by name; and the bytes themselves as SQL with :name parameters and as a value that is
 * written. Whatever the bytes: a refusal says why; every name has a parameter; what is written is
 * JSON that reads again.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/http/body.h"
#include "../../src/http/json.h"
#include "fuzz.h"

static void
check_refusal(const struct refusal *why)
{
	INVARIANT(strlen(why->sqlstate) == 5 && why->message[0] != '\0');
}

static void
check_statement(const json_t *object, const char *where)
{
	struct statement s;
	struct refusal why;

	if (body_statement(object, where, &s, &why) != 0) {
		check_refusal(&why);
		INVARIANT(s.sql == NULL && s.params == NULL);
		return;
	}
	INVARIANT(s.sql != NULL && s.count <= BODY_PARAMS_MAX);
	for (unsigned i = 0; i < s.count; i++)
		INVARIANT(s.params[i] == NULL || strlen(s.params[i]) < 1U << 30);
	body_statement_free(&s);
}

static void
check_fields(const json_t *object)
{
	static const char *const words[] = {"query", "params", "databases", "mode", NULL};
	struct refusal why;
	const char *text;
	char *names;

	if (body_only(object, words, &why) != 0)
		check_refusal(&why);
	if (body_text(object, "mode", false, &text, &why) != 0)
		check_refusal(&why);
	if (body_names(object, "databases", &names, &why) != 0)
		check_refusal(&why);
	else
		free(names);
}

static void
check_body(const uint8_t *data, size_t size)
{
	struct refusal why;
	json_t *body, *item;
	size_t i;

	if (body_parse((const char *)data, size, &body, &why) != 0) {
		check_refusal(&why);
		INVARIANT(body == NULL);
		return;
	}
	INVARIANT(json_is_object(body));
	check_fields(body);
	check_statement(body, "");
	json_array_foreach(json_object_get(body, "queries"), i, item)
	{
		if (json_is_object(item))
			check_statement(item, "queries.");
	}
	json_decref(body);
}

/* The text is as it was, but for its names. */
static void
check_names(const uint8_t *data, size_t size)
{
	char *sql = mem_strn((const char *)data, size);
	struct buf out = {0}, names = {0};
	struct refusal why;
	unsigned count, ends = 0;

	if (names_to_numbers(sql, &out, &names, &count, &why) != 0)
		check_refusal(&why);
	else {
		for (size_t i = 0; i < names.len; i++)
			ends += names.mem[i] == '\0';
		INVARIANT(ends == count);
		INVARIANT(count > 0 ||
			  (out.len == strlen(sql) &&
			      (out.len == 0 || memcmp(out.mem, sql, out.len) == 0)));
	}
	buf_free(&out);
	buf_free(&names);
	free(sql);
}

static void
check_written(const uint8_t *data, size_t size)
{
	static const uint32_t oids[] = {16, 20, 25, 701};
	struct buf b = {0};
	json_t *back;

	for (size_t i = 0; i < ARRAY_LEN(oids); i++) {
		b.len = 0;
		json_value(&b, oids[i], (const char *)data, size);
		back = json_loadb((const char *)b.mem, b.len,
		    JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
		/* A double may be too big for the reader. */
		INVARIANT(back != NULL || oids[i] == 701);
		json_decref(back);
	}
	buf_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_body(data, size);
	check_names(data, size);
	check_written(data, size);
	return (0);
}
