/*
 * Results as JSON while they come: each row is written once and kept as text. Of columns with
 * one name the last one is in the row; "fields" lists all.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARNINGS_MAX 64

static void
result_describe(struct result *r, const struct inner_column *columns, unsigned count)
{
	struct json j = {.out = &r->fields};
	char oid[16];

	for (unsigned i = 0; i < count; i++) {
		const char *type = json_type_name(columns[i].type);

		snprintf(oid, sizeof(oid), "%" PRIu32, columns[i].type);
		json_open(&j, '{');
		json_key(&j, "name");
		json_text(&j, columns[i].name);
		json_key(&j, "type");
		json_text(&j, type != NULL ? type : oid);
		json_close(&j, '}');
	}
}

void
result_columns(struct result *r, const struct inner_column *columns, unsigned count)
{
	INVARIANT(r->names == NULL);
	r->names = mem_alloc((count + 1) * sizeof(*r->names));
	r->types = mem_alloc((count + 1) * sizeof(*r->types));
	r->column_count = count;
	for (unsigned i = 0; i < count; i++) {
		bool is_last = true;

		r->types[i] = columns[i].type;
		for (unsigned k = i + 1; k < count && is_last; k++)
			is_last = strcmp(columns[i].name, columns[k].name) != 0;
		if (!is_last)
			continue;
		json_quote(&r->names[i], columns[i].name, strlen(columns[i].name));
		buf_add(&r->names[i], ":", 1);
	}
	result_describe(r, columns, count);
}

void
result_row(struct result *r, const struct inner_value *values, unsigned count)
{
	struct buf *b = &r->rows;
	bool is_first = true;

	INVARIANT(count == r->column_count);
	buf_addstr(b, r->row_count++ > 0 ? ",{" : "{");
	for (unsigned i = 0; i < count; i++) {
		if (r->names[i].len == 0)
			continue;
		if (!is_first)
			buf_add(b, ",", 1);
		is_first = false;
		buf_add(b, r->names[i].mem, r->names[i].len);
		if (values[i].p == NULL)
			buf_add(b, "null", 4);
		else
			json_value(b, r->types[i], values[i].p, values[i].len);
	}
	buf_add(b, "}", 1);
}

static void
list_field(struct json *j, const char *name, const struct buf *items)
{
	json_key(j, name);
	json_open(j, '[');
	buf_add(j->out, items->mem, items->len);
	json_close(j, ']');
}

/* The number at the end of "UPDATE 3", "INSERT 0 5"; 0: there is none. */
static uint64_t
tag_count(const char *tag)
{
	const char *last = strrchr(tag, ' ');

	return (last != NULL ? strtoull(last + 1, NULL, 10) : 0);
}

void
result_fields(struct json *j, const struct result *r, const char *tag)
{
	uint64_t count = r->names != NULL ? r->row_count : tag_count(tag);

	list_field(j, "rows", &r->rows);
	json_key(j, "rowCount");
	json_int(j, (int64_t)count);
	list_field(j, "fields", &r->fields);
}

void
result_free(struct result *r)
{
	for (unsigned i = 0; i < r->column_count; i++)
		buf_free(&r->names[i]);
	free(r->names);
	free(r->types);
	buf_free(&r->rows);
	buf_free(&r->fields);
	*r = (struct result){0};
}

void
warnings_add(struct warnings *w, const struct inner_message *m)
{
	struct json j = {.out = &w->list, .wants_comma = w->count > 0};

	if (strcmp(m->severity, "WARNING") != 0 || w->count == WARNINGS_MAX)
		return;
	w->count++;
	error_object(&j, m);
}

void
warnings_field(struct json *j, const struct warnings *w)
{
	if (w->count > 0)
		list_field(j, "warnings", &w->list);
}
