/*
 * What COPY … FROM STDIN says of the rows that follow it: columns, format, and the options that
 * tell where a field ends. Values that PostgreSQL refuses are taken as they come: the server that
 * is sent the statement refuses it before any row.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tree.h"

/* The text of an option's value; NULL: it has none, or another kind of one. */
static const char *
text_of(const PgQuery__DefElem *o)
{
	return (o->arg != NULL ? sql_node_string(o->arg) : NULL);
}

static char
first_of(const PgQuery__DefElem *o)
{
	const char *text = text_of(o);

	return (text != NULL ? text[0] : '\0');
}

/* As PostgreSQL reads a switch: nothing is true. */
static enum sql_copy_header
header_of(const PgQuery__DefElem *o)
{
	const char *text = text_of(o);
	bool is_on = true;

	if (o->arg != NULL && o->arg->node_case == PG_QUERY__NODE__NODE_INTEGER)
		is_on = o->arg->integer->ival != 0;
	else if (o->arg != NULL && o->arg->node_case == PG_QUERY__NODE__NODE_BOOLEAN)
		is_on = o->arg->boolean->boolval;
	else if (text != NULL && strcasecmp(text, "match") == 0)
		return (SQL_COPY_HEADER_MATCH);
	else if (text != NULL)
		is_on = strcasecmp(text, "off") != 0 && strcasecmp(text, "false") != 0;
	return (is_on ? SQL_COPY_HEADER : SQL_COPY_NO_HEADER);
}

/* Names of columns, in the arena; others are left out. */
static const char *const *
names_of(struct sql_find *f, size_t count, PgQuery__Node *const *list, unsigned *out)
{
	const char **names = sql_arena_alloc(f->arena, (count + 1) * sizeof(*names));

	*out = 0;
	for (size_t i = 0; i < count; i++) {
		const char *name = sql_node_string(list[i]);

		if (name != NULL)
			names[(*out)++] = sql_arena_str(f->arena, name);
	}
	return (names);
}

/* A list of columns, or "*". */
static const char *const *
forced(struct sql_find *f, const PgQuery__DefElem *o, unsigned *count, bool *is_all)
{
	if (o->arg != NULL && o->arg->node_case == PG_QUERY__NODE__NODE_LIST)
		return (names_of(f, o->arg->list->n_items, o->arg->list->items, count));
	*is_all = true;
	return (NULL);
}

/* The format decides what the others are when nothing is said of them. */
static void
read_format(struct sql_copy *c, const PgQuery__DefElem *o)
{
	const char *text = text_of(o);

	if (text != NULL && strcmp(text, "csv") == 0)
		c->format = SQL_COPY_CSV;
	else if (text != NULL && strcmp(text, "binary") == 0)
		c->format = SQL_COPY_BINARY;
}

/* Options that change nothing of where rows and fields end. */
static bool
is_harmless(const PgQuery__DefElem *o)
{
	const char *text = text_of(o);

	if (strcmp(o->defname, "on_error") == 0)
		return (text != NULL && strcmp(text, "stop") == 0);
	return (strcmp(o->defname, "format") == 0 || strcmp(o->defname, "freeze") == 0 ||
		strcmp(o->defname, "force_quote") == 0 ||
		strcmp(o->defname, "log_verbosity") == 0);
}

static void
read_option(struct sql_find *f, struct sql_copy *c, const PgQuery__DefElem *o)
{
	const char *text = text_of(o), *name = o->defname;

	if (strcmp(name, "delimiter") == 0)
		c->delimiter = first_of(o);
	else if (strcmp(name, "quote") == 0)
		c->quote = first_of(o);
	else if (strcmp(name, "escape") == 0)
		c->escape = first_of(o);
	else if (strcmp(name, "null") == 0)
		c->null = text != NULL ? sql_arena_str(f->arena, text) : c->null;
	else if (strcmp(name, "default") == 0)
		c->dflt = text != NULL ? sql_arena_str(f->arena, text) : NULL;
	else if (strcmp(name, "encoding") == 0)
		c->encoding = text != NULL ? sql_arena_str(f->arena, text) : NULL;
	else if (strcmp(name, "header") == 0)
		c->header = header_of(o);
	else if (strcmp(name, "force_null") == 0)
		c->force_null = forced(f, o, &c->force_null_count, &c->force_null_all);
	else if (strcmp(name, "force_not_null") == 0)
		c->force_not_null =
		    forced(f, o, &c->force_not_null_count, &c->force_not_null_all);
	else if (!is_harmless(o))
		c->unknown = sql_arena_str(f->arena, name);
}

const struct sql_copy *
sql_copy_find(struct sql_find *f, const PgQuery__CopyStmt *stmt)
{
	struct sql_copy *c = sql_arena_alloc(f->arena, sizeof(*c));

	*c = (struct sql_copy){.format = SQL_COPY_TEXT};
	for (size_t i = 0; i < stmt->n_options; i++)
		if (strcmp(stmt->options[i]->def_elem->defname, "format") == 0)
			read_format(c, stmt->options[i]->def_elem);
	c->delimiter = c->format == SQL_COPY_CSV ? ',' : '\t';
	c->null = c->format == SQL_COPY_CSV ? "" : "\\N";
	c->quote = '"';
	for (size_t i = 0; i < stmt->n_options; i++)
		read_option(f, c, stmt->options[i]->def_elem);
	if (c->escape == '\0')
		c->escape = c->quote;
	c->columns = names_of(f, stmt->n_attlist, stmt->attlist, &c->column_count);
	return (c);
}
