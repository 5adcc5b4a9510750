/*
 * PREPARE, EXECUTE and DEALLOCATE, from tokens alone: where the name stands, and what the rest
 * is. EXPLAIN and CREATE TABLE … AS may stand before an EXECUTE. What is not in PostgreSQL's
 * grammar is left alone: the server will refuse it.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* PostgreSQL's reserved words, and those for functions and types alone: no names. */
static const char reserved[] =
    " all analyse analyze and any array as asc asymmetric authorization binary both case "
    "cast check collate collation column concurrently constraint create cross "
    "current_catalog current_date current_role current_schema current_time "
    "current_timestamp current_user default deferrable desc distinct do else end except "
    "false fetch for foreign freeze from full grant group having ilike in initially inner "
    "intersect into is isnull join lateral leading left like limit localtime "
    "localtimestamp natural not notnull null offset on only or order outer overlaps "
    "placing primary references returning right select session_user similar some "
    "symmetric system_user table tablesample then to trailing true union unique user "
    "using variadic verbose when where window with ";

static bool
is_reserved(const char *word)
{
	char needle[24];
	size_t len = strlen(word);

	if (len > sizeof(needle) - 3)
		return (false);
	needle[0] = ' ';
	memcpy(needle + 1, word, len);
	needle[len + 1] = ' ';
	needle[len + 2] = '\0';
	return (strstr(reserved, needle) != NULL);
}

static bool
take_name(struct sql_walk *w)
{
	struct sql_prepare *out = w->out;

	free(out->name);
	out->name = sql_name_value(&w->l, &w->t);
	if (out->name == NULL || out->name[0] == '\0' ||
	    (w->t.kind == SQL_TOKEN_WORD && is_reserved(out->name)))
		return (false);
	out->at = w->t.at;
	out->len = w->t.end - w->t.at;
	sql_step(w);
	return (true);
}

/* From an opening parenthesis to behind its closing one. at, len: with both. */
static bool
take_parens(struct sql_walk *w, uint32_t *at, uint32_t *len)
{
	unsigned depth = 0;

	*at = w->t.at;
	do {
		if (w->t.kind == SQL_TOKEN_END)
			return (false);
		depth += sql_is_mark(w, "(");
		depth -= sql_is_mark(w, ")");
		*len = w->t.end - *at;
		sql_step(w);
	} while (depth > 0);
	return (true);
}

static bool
read_prepare(struct sql_walk *w)
{
	struct sql_prepare *out = w->out;

	if (!take_name(w) || w->t.kind == SQL_TOKEN_STRING)
		return (false);
	if (sql_is_mark(w, "(") && !take_parens(w, &out->types_at, &out->types_len))
		return (false);
	if (!sql_token_is(&w->l, &w->t, "as"))
		return (false);
	out->inner_at = w->t.end;
	sql_step(w);
	return (w->t.kind != SQL_TOKEN_END);
}

static bool
read_execute(struct sql_walk *w)
{
	struct sql_prepare *out = w->out;

	if (!take_name(w))
		return (false);
	if (sql_is_mark(w, "(") && !take_parens(w, &out->args_at, &out->args_len))
		return (false);
	return (w->t.kind == SQL_TOKEN_END || out->creates);
}

static bool
read_deallocate(struct sql_walk *w)
{
	struct sql_walk before;

	if (sql_take(w, "prepare")) {
		before = *w;
		/* DEALLOCATE PREPARE may be about one of that name. */
		if (w->t.kind == SQL_TOKEN_END) {
			w->l.at = 0;
			sql_step(w);
			sql_step(w);
			return (take_name(w));
		}
		*w = before;
	}
	if (sql_take(w, "all")) {
		w->out->kind = SQL_PREPARE_DROP_ALL;
		return (w->t.kind == SQL_TOKEN_END);
	}
	return (take_name(w) && w->t.kind == SQL_TOKEN_END);
}

/* CREATE TABLE … AS EXECUTE: nothing else in CREATE has these two words side by side. */
static bool
read_create(struct sql_walk *w)
{
	unsigned depth = 0;
	bool is_behind_as = false;

	w->out->creates = true;
	for (; w->t.kind != SQL_TOKEN_END; sql_step(w)) {
		if (depth == 0 && is_behind_as && sql_take(w, "execute"))
			return (read_execute(w));
		is_behind_as = sql_token_is(&w->l, &w->t, "as");
		depth += sql_is_mark(w, "(");
		depth -= depth > 0 && sql_is_mark(w, ")");
	}
	return (false);
}

static bool
read_explain(struct sql_walk *w)
{
	uint32_t at, len;

	w->out->is_explained = true;
	if (sql_is_mark(w, "(")) {
		if (!take_parens(w, &at, &len))
			return (false);
	} else
		while (sql_take(w, "analyze") || sql_take(w, "analyse") ||
		       sql_take(w, "verbose"))
			;
	if (sql_take(w, "execute"))
		return (read_execute(w));
	return (sql_take(w, "create") && read_create(w));
}

bool
sql_prepare_read(const struct sql_scan *scan, struct sql_prepare *out)
{
	struct sql_walk w = {.l = sql_lexer_of(scan), .out = out};
	bool is_it = false;

	*out = (struct sql_prepare){.kind = SQL_PREPARE_NONE};
	if (scan->is_cut || memchr(scan->sql, '\0', scan->len) != NULL)
		return (false);
	sql_step(&w);
	out->kind = SQL_PREPARE_RUN;
	if (sql_take(&w, "prepare")) {
		out->kind = SQL_PREPARE_MAKE;
		is_it = read_prepare(&w);
	} else if (sql_take(&w, "deallocate")) {
		out->kind = SQL_PREPARE_DROP;
		is_it = read_deallocate(&w);
	} else if (sql_take(&w, "execute"))
		is_it = read_execute(&w);
	else if (sql_take(&w, "explain"))
		is_it = read_explain(&w);
	else if (sql_take(&w, "create"))
		is_it = read_create(&w);
	if (!is_it)
		sql_prepare_free(out);
	return (is_it);
}

bool
sql_listen_read(const struct sql_scan *scan, struct sql_prepare *out)
{
	struct sql_walk w = {.l = sql_lexer_of(scan), .out = out};
	uint32_t from;
	bool is_it;

	*out = (struct sql_prepare){.kind = SQL_PREPARE_NONE};
	if (scan->is_cut || memchr(scan->sql, '\0', scan->len) != NULL)
		return (false);
	sql_step(&w);
	from = w.t.at;
	out->kind = SQL_PREPARE_LISTEN;
	if (sql_take(&w, "unlisten")) {
		out->kind = SQL_PREPARE_UNLISTEN;
		is_it = sql_is_mark(&w, "*");
		if (is_it) {
			out->at = w.t.at;
			out->len = 1;
			sql_step(&w);
		} else
			is_it = take_name(&w);
	} else
		is_it = sql_take(&w, "listen") && take_name(&w);
	is_it = is_it && w.t.kind == SQL_TOKEN_END;
	out->len += out->at - from;
	out->at = from;
	if (!is_it)
		sql_prepare_free(out);
	return (is_it);
}

void
sql_prepare_free(struct sql_prepare *p)
{
	free(p->name);
	*p = (struct sql_prepare){.kind = SQL_PREPARE_NONE};
}

int
sql_prepare_may(const char *text, size_t len)
{
	static const char *const words[] = {
	    "prepare", "execute", "deallocate", "explain", "create"};
	struct sql_lexer l = {.text = text, .len = (uint32_t)len};
	struct sql_token t;

	sql_lex_blanks(&l);
	if (l.at == l.len || l.is_cut)
		return (-1);
	if (strchr("pedcPEDC", text[l.at]) == NULL || text[l.at] == '\0')
		return (0);
	sql_lex(&l, &t);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (sql_token_is(&l, &t, words[i]))
			return (1);
	/* A word of which the rest has not come. */
	return (t.end == l.len ? -1 : 0);
}

int
sql_listen_may(const char *text, size_t len, bool or_unlisten)
{
	struct sql_lexer l = {.text = text, .len = (uint32_t)len};
	struct sql_token t;
	char first;

	sql_lex_blanks(&l);
	if (l.at == l.len || l.is_cut)
		return (-1);
	first = text[l.at];
	if (first != 'l' && first != 'L' &&
	    !(or_unlisten && (first == 'u' || first == 'U')))
		return (0);
	sql_lex(&l, &t);
	if (sql_token_is(&l, &t, "listen") || sql_token_is(&l, &t, "unlisten"))
		return (1);
	return (t.end == l.len ? -1 : 0);
}

/* ---- arguments ---- */

/* A whole number as the server reads it, without leading zeros; other forms are rounded or
 * cast on their way to the parameter. */
static char *
number_value(const char *p, size_t len, bool is_negative)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] < '0' || p[i] > '9')
			return (NULL);
	for (; len > 1 && *p == '0'; p++)
		len--;
	is_negative &= *p != '0';
	return (mem_printf("%s%.*s", is_negative ? "-" : "", (int)len, p));
}

/* The word of a type, as in bigint '5' or date '2020-01-01'. */
static bool
is_type_word(const struct sql_lexer *l, const struct sql_token *t)
{
	static const char *const types[] = {"int", "integer", "int2", "int4", "int8",
	    "smallint", "bigint", "text", "varchar", "uuid", "date", "timestamp",
	    "timestamptz", "numeric", NULL};

	for (const char *const *type = types; *type != NULL; type++)
		if (sql_token_is(l, t, *type))
			return (true);
	return (false);
}

/* One argument, up to a comma or parenthesis that is not its own. */
static void
read_argument(struct sql_walk *w, struct sql_argument *a)
{
	bool is_negative = false, is_typed = false;

	if (sql_is_mark(w, "-") || sql_is_mark(w, "+")) {
		is_negative = sql_is_mark(w, "-");
		sql_step(w);
		if (w->t.kind != SQL_TOKEN_NUMBER)
			return;
	}
	if (is_type_word(&w->l, &w->t)) {
		is_typed = true;
		sql_step(w);
	}
	if (w->t.kind == SQL_TOKEN_NUMBER && !w->t.is_glued && !is_typed)
		a->value =
		    number_value(w->l.text + w->t.at, w->t.end - w->t.at, is_negative);
	else if (w->t.kind == SQL_TOKEN_STRING && !w->t.is_glued)
		a->value = sql_string_value(&w->l, &w->t);
	else if (sql_token_is(&w->l, &w->t, "null") && !is_typed)
		a->is_null = true;
	else
		return;
	sql_step(w);
	if (sql_is_mark(w, "::")) {
		sql_step(w);
		if (is_type_word(&w->l, &w->t))
			sql_step(w);
	}
}

static void
forget_argument(struct sql_argument *a)
{
	free(a->value);
	*a = (struct sql_argument){0};
}

unsigned
sql_prepare_arguments(
    const struct sql_scan *scan, const struct sql_prepare *p, struct sql_argument **out)
{
	struct sql_walk w = {.l = sql_lexer_of(scan)};
	struct sql_argument *list = NULL;
	unsigned count = 0, depth;

	*out = NULL;
	if (p->args_len <= 2)
		return (0);
	w.l.at = p->args_at + 1;
	w.l.len = p->args_at + p->args_len - 1;
	sql_step(&w);
	while (w.t.kind != SQL_TOKEN_END) {
		list = mem_realloc(list, (count + 1) * sizeof(*list));
		list[count] = (struct sql_argument){0};
		read_argument(&w, &list[count]);
		if (w.t.kind != SQL_TOKEN_END && !sql_is_mark(&w, ","))
			forget_argument(&list[count]);
		count++;
		for (depth = 0; w.t.kind != SQL_TOKEN_END; sql_step(&w)) {
			if (depth == 0 && sql_is_mark(&w, ","))
				break;
			depth += sql_is_mark(&w, "(") || sql_is_mark(&w, "[");
			depth -=
			    depth > 0 && (sql_is_mark(&w, ")") || sql_is_mark(&w, "]"));
		}
		sql_step(&w);
	}
	*out = list;
	return (count);
}

void
sql_arguments_free(struct sql_argument *list, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		free(list[i].value);
	free(list);
}
