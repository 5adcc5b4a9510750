/*
 * Statements that PostgreSQL refuses while somebody is connected to a database: DROP DATABASE,
 * ALTER DATABASE … RENAME or SET TABLESPACE, and CREATE DATABASE, of its template.
 */
#include <stdlib.h>

#include "private.h"

static char *
take_name(struct sql_walk *w)
{
	char *name = w->t.kind == SQL_TOKEN_STRING ? sql_string_value(&w->l, &w->t)
						   : sql_name_value(&w->l, &w->t);

	sql_lex(&w->l, &w->t);
	return (name);
}

static char *
of_create(struct sql_walk *w)
{
	free(take_name(w));
	while (w->t.kind != SQL_TOKEN_END && !sql_token_is_mark(&w->l, &w->t, ";")) {
		if (sql_take(w, "template")) {
			if (sql_token_is_mark(&w->l, &w->t, "="))
				sql_lex(&w->l, &w->t);
			if (!sql_take(w, "default"))
				return (take_name(w));
		} else
			sql_lex(&w->l, &w->t);
	}
	return (mem_str("template1"));
}

static char *
of_alter(struct sql_walk *w)
{
	char *name = take_name(w);

	if (sql_take(w, "rename") || (sql_take(w, "set") && sql_take(w, "tablespace")))
		return (name);
	free(name);
	return (NULL);
}

char *
sql_lone_database(const char *text, size_t len, bool *is_template)
{
	struct sql_walk w = {.l = {.text = text, .len = (uint32_t)len}};

	sql_lex(&w.l, &w.t);
	*is_template = sql_take(&w, "create");
	if (*is_template)
		return (sql_take(&w, "database") ? of_create(&w) : NULL);
	if (sql_take(&w, "alter"))
		return (sql_take(&w, "database") ? of_alter(&w) : NULL);
	if (!sql_take(&w, "drop") || !sql_take(&w, "database"))
		return (NULL);
	if (sql_take(&w, "if"))
		(void)sql_take(&w, "exists");
	return (take_name(&w));
}
