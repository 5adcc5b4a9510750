/*
 * Statements that PostgreSQL refuses while somebody is connected to a database: DROP DATABASE,
 * ALTER DATABASE … RENAME or SET TABLESPACE, and CREATE DATABASE, of its template.
 */
#include <stdlib.h>

#include "private.h"

struct walk {
	struct sql_lexer l;
	struct sql_token t;
};

static bool
take(struct walk *w, const char *word)
{
	bool is_it = sql_token_is(&w->l, &w->t, word);

	if (is_it)
		sql_lex(&w->l, &w->t);
	return (is_it);
}

static char *
take_name(struct walk *w)
{
	char *name = w->t.kind == SQL_TOKEN_STRING ? sql_string_value(&w->l, &w->t)
						   : sql_name_value(&w->l, &w->t);

	sql_lex(&w->l, &w->t);
	return (name);
}

static char *
of_create(struct walk *w)
{
	free(take_name(w));
	while (w->t.kind != SQL_TOKEN_END && !sql_token_is_mark(&w->l, &w->t, ";")) {
		if (take(w, "template")) {
			if (sql_token_is_mark(&w->l, &w->t, "="))
				sql_lex(&w->l, &w->t);
			if (!take(w, "default"))
				return (take_name(w));
		} else
			sql_lex(&w->l, &w->t);
	}
	return (mem_str("template1"));
}

static char *
of_alter(struct walk *w)
{
	char *name = take_name(w);

	if (take(w, "rename") || (take(w, "set") && take(w, "tablespace")))
		return (name);
	free(name);
	return (NULL);
}

char *
sql_lone_database(const char *text, size_t len, bool *is_template)
{
	struct walk w = {.l = {.text = text, .len = (uint32_t)len}};

	sql_lex(&w.l, &w.t);
	*is_template = take(&w, "create");
	if (*is_template)
		return (take(&w, "database") ? of_create(&w) : NULL);
	if (take(&w, "alter"))
		return (take(&w, "database") ? of_alter(&w) : NULL);
	if (!take(&w, "drop") || !take(&w, "database"))
		return (NULL);
	if (take(&w, "if"))
		(void)take(&w, "exists");
	return (take_name(&w));
}
