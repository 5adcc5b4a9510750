/*
 * Statements that read pg_prepared_statements: where a WITH is to stand that gives the name
 * another meaning, for the whole statement. The text stays what it is otherwise:
 *
 *   EXPLAIN SELECT * FROM pg_catalog.pg_prepared_statements
 *           ^ here           (and blanks for pg_catalog.)
 *
 * What reads the view in other ways (a view on it, a function) is left alone.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "private.h"

#define VIEW     "pg_prepared_statements"
#define FUNCTION "pg_prepared_statement"

/* From an opening parenthesis to behind its closing one. */
static void
skip_parens(struct sql_walk *w)
{
	unsigned depth = 0;

	do {
		depth += sql_is_mark(w, "(");
		depth -= sql_is_mark(w, ")");
		sql_step(w);
	} while (depth > 0 && w->t.kind != SQL_TOKEN_END);
}

/* Behind the word, outside of parentheses. */
static bool
skip_to(struct sql_walk *w, const char *word)
{
	while (w->t.kind != SQL_TOKEN_END) {
		if (sql_take(w, word))
			return (true);
		if (sql_is_mark(w, "("))
			skip_parens(w);
		else
			sql_step(w);
	}
	return (false);
}

/* CREATE TABLE or MATERIALIZED VIEW … AS: others keep the text for later. */
static bool
take_create(struct sql_walk *w)
{
	static const char *const before[] = {
	    "global", "local", "temporary", "temp", "unlogged"};

	for (size_t i = 0; i < ARRAY_LEN(before); i++)
		(void)sql_take(w, before[i]);
	return (
	    (sql_is_at(w, "table") || sql_is_at(w, "materialized")) && skip_to(w, "as"));
}

/* To the query itself, from what may stand before it. */
static bool
take_outer(struct sql_walk *w)
{
	if (sql_take(w, "explain")) {
		if (sql_is_mark(w, "("))
			skip_parens(w);
		else
			while (sql_take(w, "analyze") || sql_take(w, "analyse") ||
			       sql_take(w, "verbose"))
				;
	}
	if (sql_take(w, "prepare"))
		return (skip_to(w, "as"));
	if (sql_take(w, "declare"))
		return (skip_to(w, "for"));
	if (sql_take(w, "copy"))
		return (sql_take_mark(w, "("));
	if (sql_take(w, "create"))
		return (take_create(w));
	return (true);
}

static bool
is_query(const struct sql_walk *w)
{
	static const char *const verbs[] = {
	    "select", "insert", "update", "delete", "merge", "values", "table"};

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (sql_is_at(w, verbs[i]))
			return (true);
	return (sql_is_mark(w, "("));
}

static bool
is_name(const struct sql_walk *w, const char *name)
{
	char *value =
	    w->t.end - w->t.at < strlen(name) ? NULL : sql_name_value(&w->l, &w->t);
	bool is_it = value != NULL && strcmp(value, name) == 0;

	free(value);
	return (is_it);
}

/* The statement gives the name a meaning of its own: name AS (…), name (…) AS (…). w stands
 * behind the name. */
static bool
is_with(struct sql_walk w)
{
	if (sql_is_mark(&w, "("))
		skip_parens(&w);
	if (!sql_take(&w, "as"))
		return (false);
	if (sql_take(&w, "not"))
		(void)sql_take(&w, "materialized");
	else
		(void)sql_take(&w, "materialized");
	return (sql_is_mark(&w, "("));
}

static void
blank(const struct sql_scan *scan, struct sql_view *out, uint32_t at, uint32_t end)
{
	if (out->text == NULL)
		out->text = mem_strn(scan->sql, scan->len);
	memset(out->text + at, ' ', end - at);
}

/* FROM pg_prepared_statement(): w stands behind the name. */
static bool
take_call(const struct sql_scan *scan, struct sql_walk w, struct sql_view *out)
{
	uint32_t at = w.t.at;

	if (!sql_take_mark(&w, "(") || !sql_is_mark(&w, ")"))
		return (false);
	blank(scan, out, at, at + 1);
	blank(scan, out, w.t.at, w.t.end);
	out->calls = true;
	return (true);
}

/* A name, perhaps behind its schema. w stands on it; is_read: behind FROM or JOIN. False: the
 * statement gives it a meaning of its own. */
static bool
read_name(const struct sql_scan *scan, struct sql_walk w, bool is_read,
    struct sql_view *out, bool *has_any)
{
	struct sql_walk schema = w, dot = w, next = w;
	bool is_qualified = false, is_it;

	if (is_name(&w, "pg_catalog")) {
		sql_step(&next);
		if (!sql_is_mark(&next, "."))
			return (true);
		dot = next;
		sql_step(&next);
		is_qualified = true;
	}
	w = next;
	sql_step(&next);
	is_it = is_name(&w, VIEW);
	if (is_it && !is_qualified && is_with(next))
		return (false);
	if (!is_it && is_read && is_name(&w, FUNCTION))
		is_it = take_call(scan, next, out);
	/* Not what stands between: blanks for the bytes of a comment may be more characters, and
	 * positions are told in these. */
	if (is_it && is_qualified) {
		blank(scan, out, schema.t.at, schema.t.end);
		blank(scan, out, dot.t.at, dot.t.end);
	}
	*has_any |= is_it;
	return (true);
}

/* The names from w on. False: none is the view's, or one is somebody else's. */
static bool
read_names(const struct sql_scan *scan, struct sql_walk w, struct sql_view *out)
{
	bool is_behind_dot = false, is_read = false, has_any = false;

	for (; w.t.kind != SQL_TOKEN_END; sql_step(&w)) {
		if (!is_behind_dot && !read_name(scan, w, is_read, out, &has_any))
			return (false);
		is_behind_dot = sql_is_mark(&w, ".");
		is_read = sql_is_at(&w, "from") || sql_is_at(&w, "join") ||
			  sql_is_at(&w, "lateral");
	}
	return (has_any);
}

bool
sql_view_read(const struct sql_scan *scan, struct sql_view *out)
{
	struct sql_walk w = {.l = sql_lexer_of(scan)};

	*out = (struct sql_view){0};
	if (scan->is_cut || scan->is_empty || memchr(scan->sql, '\0', scan->len) != NULL)
		return (false);
	sql_step(&w);
	if (!take_outer(&w))
		return (false);
	if (sql_take(&w, "with")) {
		(void)sql_take(&w, "recursive");
		out->is_behind_with = true;
	} else if (!is_query(&w))
		return (false);
	out->at = w.t.at;
	if (w.t.kind == SQL_TOKEN_END || !read_names(scan, w, out)) {
		sql_view_free(out);
		return (false);
	}
	return (true);
}

void
sql_view_free(struct sql_view *v)
{
	free(v->text);
	*v = (struct sql_view){0};
}
