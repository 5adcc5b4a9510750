/* JSON bodies: what may stand in them, and parameters as the texts that PostgreSQL reads. */
#include "body.h"
#include "json.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_TEXT 40

int
body_refuse(struct refusal *why, const char *sqlstate, const char *fmt, ...)
{
	va_list ap;

	text_copy(why->sqlstate, sizeof(why->sqlstate), sqlstate);
	va_start(ap, fmt);
	vsnprintf(why->message, sizeof(why->message), fmt, ap);
	va_end(ap);
	return (F_BODY);
}

/* ---- JSON ---- */

int
body_parse(const char *p, size_t len, json_t **out, struct refusal *why)
{
	json_error_t error;
	const char *text = error.text;

	*out = NULL;
	if (len == 0)
		return (body_refuse(
		    why, "22032", "the body is empty: a JSON object is expected"));
	*out = json_loadb(p, len, JSON_REJECT_DUPLICATES, &error);
	if (*out == NULL) {
		if (json_error_code(&error) == json_error_numeric_overflow)
			text = "a number is too big: give it as a string";
		else if (json_error_code(&error) == json_error_null_character)
			text = "the character \\u0000 cannot be in a text";
		return (
		    body_refuse(why, "22032", "invalid JSON at line %d, column %d: %s",
			error.line, error.column, text));
	}
	if (json_is_object(*out))
		return (0);
	json_decref(*out);
	*out = NULL;
	return (body_refuse(why, "22023", "the body must be a JSON object"));
}

int
body_only(const json_t *body, const char *const *fields, struct refusal *why)
{
	void *at;

	for (at = json_object_iter((json_t *)body); at != NULL;
	     at = json_object_iter_next((json_t *)body, at)) {
		const char *key = json_object_iter_key(at), *near;
		struct buf list = {0};
		size_t n = 0;

		while (fields[n] != NULL && strcmp(fields[n], key) != 0)
			n++;
		if (fields[n] != NULL)
			continue;
		near = text_nearest(key, fields, n);
		if (near != NULL)
			return (body_refuse(why, "22023",
			    "there is no field \"%.60s\": did you mean \"%s\"", key,
			    near));
		for (size_t i = 0; i < n; i++)
			buf_addf(&list, "%s\"%s\"", i > 0 ? ", " : "", fields[i]);
		(void)body_refuse(why, "22023",
		    "there is no field \"%.60s\": allowed are %.*s", key, (int)list.len,
		    (const char *)list.mem);
		buf_free(&list);
		return (F_BODY);
	}
	return (0);
}

int
body_text(const json_t *body, const char *field, bool is_needed, const char **out,
    struct refusal *why)
{
	const json_t *v = json_object_get(body, field);

	*out = NULL;
	if (v == NULL && !is_needed)
		return (0);
	if (!json_is_string(v))
		return (body_refuse(why, "22023",
		    v == NULL ? "\"%s\" is missing" : "\"%s\" must be a string", field));
	*out = json_string_value(v);
	return (0);
}

int
body_names(const json_t *body, const char *field, char **out, struct refusal *why)
{
	const json_t *v = json_object_get(body, field), *item;
	struct buf joined = {0};
	size_t i;

	*out = NULL;
	if (v == NULL)
		return (0);
	if (!json_is_array(v) || json_array_size(v) == 0)
		return (
		    body_refuse(why, "22023", "\"%s\" must be an array of names", field));
	if (json_array_size(v) > BODY_NAMES_MAX)
		return (body_refuse(why, "22023", "\"%s\" has more than %d names", field,
		    BODY_NAMES_MAX));
	json_array_foreach(v, i, item)
	{
		const char *name = json_string_value(item);
		bool is_again = false;

		if (name == NULL || *name == '\0' || strchr(name, ',') != NULL) {
			buf_free(&joined);
			return (body_refuse(
			    why, "22023", "\"%s[%zu]\" must be a name", field, i));
		}
		for (size_t k = 0; k < i && !is_again; k++)
			is_again = json_equal(json_array_get(v, k), item);
		if (!is_again)
			buf_addf(&joined, "%s%s", joined.len > 0 ? "," : "", name);
	}
	buf_add(&joined, "", 1);
	*out = (char *)joined.mem;
	return (0);
}

/* ---- parameters ---- */

/* The shortest text that is the same double again: 0.1, and not 0.10000000000000001. */
static void
real_text(double d, char out[NUMBER_TEXT])
{
	for (int precision = 15; precision <= 17; precision++) {
		snprintf(out, NUMBER_TEXT, "%.*g", precision, d);
		if (strtod(out, NULL) == d)
			break;
	}
}

/* Depth is bounded by the parser's. */
static void
write_again(struct json *j, const json_t *v)
{
	char number[NUMBER_TEXT];
	const char *key;
	const json_t *item;
	size_t i;

	if (json_is_object(v)) {
		json_open(j, '{');
		json_object_foreach((json_t *)v, key, item)
		{
			json_key(j, key);
			write_again(j, item);
		}
		json_close(j, '}');
	} else if (json_is_array(v)) {
		json_open(j, '[');
		json_array_foreach(v, i, item) write_again(j, item);
		json_close(j, ']');
	} else if (json_is_real(v)) {
		real_text(json_real_value(v), number);
		json_raw(j, number, strlen(number));
	} else if (json_is_integer(v))
		json_int(j, json_integer_value(v));
	else if (json_is_boolean(v))
		json_bool(j, json_is_true(v));
	else
		json_text(j, json_string_value(v));
}

static void
put_quoted(struct buf *out, const char *s, size_t len)
{
	buf_add(out, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '"' || s[i] == '\\')
			buf_add(out, "\\", 1);
		buf_add(out, s + i, 1);
	}
	buf_add(out, "\"", 1);
}

/* An array as PostgreSQL reads it: {1,NULL,"a"}, arrays within it too. Objects in it are their
 * JSON. */
static void
put_array(struct buf *out, const json_t *list)
{
	const json_t *v;
	size_t i;

	buf_add(out, "{", 1);
	json_array_foreach(list, i, v)
	{
		if (i > 0)
			buf_add(out, ",", 1);
		if (json_is_array(v))
			put_array(out, v);
		else if (json_is_null(v))
			buf_addstr(out, "NULL");
		else if (json_is_string(v))
			put_quoted(out, json_string_value(v), json_string_length(v));
		else {
			struct buf text = {0};
			struct json j = {.out = &text};

			write_again(&j, v);
			if (json_is_object(v))
				put_quoted(out, (const char *)text.mem, text.len);
			else
				buf_add(out, text.mem, text.len);
			buf_free(&text);
		}
	}
	buf_add(out, "}", 1);
}

/* What a value is as a parameter; NULL: null. Arrays and objects are their JSON. */
static char *
param_text(const json_t *v)
{
	struct buf text = {0};
	struct json j = {.out = &text};

	if (json_is_null(v))
		return (NULL);
	if (json_is_string(v))
		return (mem_str(json_string_value(v)));
	write_again(&j, v);
	buf_add(&text, "", 1);
	return ((char *)text.mem);
}

static void
param_set(struct statement *s, unsigned i, unsigned count, const json_t *v)
{
	struct buf text = {0};

	s->params[i] = param_text(v);
	if (!json_is_array(v))
		return;
	if (s->arrays == NULL)
		s->arrays = mem_alloc((count + 1) * sizeof(*s->arrays));
	put_array(&text, v);
	buf_add(&text, "", 1);
	s->arrays[i] = (char *)text.mem;
}

static int
params_by_number(
    const json_t *list, const char *where, struct statement *s, struct refusal *why)
{
	size_t count = json_array_size(list);

	if (count > BODY_PARAMS_MAX)
		return (body_refuse(why, "22023", "\"%sparams\" has more than %d values",
		    where, BODY_PARAMS_MAX));
	s->params = mem_alloc((count + 1) * sizeof(*s->params));
	for (size_t i = 0; i < count; i++)
		param_set(s, (unsigned)i, (unsigned)count, json_array_get(list, i));
	s->count = (unsigned)count;
	return (0);
}

static int
params_by_name(
    const json_t *map, const char *where, struct statement *s, struct refusal *why)
{
	struct buf sql = {0}, names = {0};
	int rc = names_to_numbers(s->sql, &sql, &names, &s->count, why);
	const char *name = (const char *)names.mem;

	if (rc == 0) {
		s->params = mem_alloc((s->count + 1) * sizeof(*s->params));
		buf_add(&sql, "", 1);
		free(s->sql);
		s->sql = mem_str((const char *)sql.mem);
	}
	for (unsigned i = 0; rc == 0 && i < s->count; i++, name += strlen(name) + 1) {
		const json_t *v = json_object_get(map, name);

		if (v == NULL)
			rc = body_refuse(why, "22023",
			    "\"%sparams\" has no \"%.60s\", which the query uses", where,
			    name);
		else
			param_set(s, i, s->count, v);
	}
	buf_free(&sql);
	buf_free(&names);
	return (rc);
}

int
body_statement(
    const json_t *body, const char *where, struct statement *out, struct refusal *why)
{
	const json_t *query = json_object_get(body, "query"),
		     *params = json_object_get(body, "params");
	int rc = 0;

	*out = (struct statement){0};
	if (!json_is_string(query))
		return (body_refuse(why, "22023",
		    query == NULL ? "\"%squery\" is missing"
				  : "\"%squery\" must be a string",
		    where));
	out->sql = mem_str(json_string_value(query));
	if (json_is_array(params))
		rc = params_by_number(params, where, out, why);
	else if (json_is_object(params))
		rc = params_by_name(params, where, out, why);
	else if (params != NULL && !json_is_null(params))
		rc = body_refuse(why, "22023",
		    "\"%sparams\" must be an array, or an object for :name parameters",
		    where);
	if (rc != 0)
		body_statement_free(out);
	return (rc);
}

void
body_statement_free(struct statement *s)
{
	for (unsigned i = 0; s->params != NULL && i < s->count; i++)
		free(s->params[i]);
	for (unsigned i = 0; s->arrays != NULL && i < s->count; i++)
		free(s->arrays[i]);
	free(s->params);
	free(s->arrays);
	free(s->sql);
	*s = (struct statement){0};
}
