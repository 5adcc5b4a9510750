/*
 * Long statements made short for the parser: of a list of values and of the rows of an INSERT
 * one stands for all, and long strings are left empty. What the parser's tree says of the one is
 * then said of all of them.
 *
 *   … WHERE id IN (5, 7, …)             … WHERE id IN ($60001)
 *   INSERT INTO t VALUES (1, 'a'), …    INSERT INTO t VALUES ($61001, $61002)
 *
 * Rows with queries in them, and whatever else is long, stay as they are: then the statement is
 * not understood.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* Numbers of parameters that stand for lists, and for the columns of rows. */
#define LIST_FIRST   60001
#define LIST_MAX     900
#define COLUMN_FIRST 61001
#define COLUMN_MAX   1664 /* PostgreSQL's own limit of a result */
/* Longer strings are of no interest. */
#define STRING_MAX_LEN 64

struct values {
	struct sql_value *at;
	unsigned count, room;
};

struct sql_fold {
	struct buf text;
	unsigned literal;   /* of the original: the next one */
	unsigned *literals; /* of those of the text: which of the original */
	unsigned literal_count, literal_room;
	struct values lists[LIST_MAX];
	unsigned list_count;
	struct values rows; /* one after the other */
	unsigned columns;   /* of each; 0: no rows are folded */
};

static void
values_add(struct values *v, struct sql_value value)
{
	if (v->count == v->room) {
		v->room = v->room == 0 ? 64 : v->room * 2;
		v->at = mem_realloc(v->at, v->room * sizeof(*v->at));
	}
	v->at[v->count++] = value;
}

void
sql_fold_free(struct sql_fold *f)
{
	if (f == NULL)
		return;
	for (unsigned i = 0; i < f->list_count; i++)
		free(f->lists[i].at);
	free(f->rows.at);
	free(f->literals);
	buf_free(&f->text);
	free(f);
}

const char *
sql_fold_text(const struct sql_fold *f, size_t *len)
{
	*len = f->text.len;
	return ((const char *)f->text.mem);
}

/* ---- reading ahead ---- */

static bool
is_literal(const struct sql_token *t)
{
	return (t->kind == SQL_TOKEN_STRING || t->kind == SQL_TOKEN_NUMBER ||
		t->kind == SQL_TOKEN_BITS);
}

static unsigned
param_number(const struct sql_lexer *l, const struct sql_token *t)
{
	unsigned n = 0;

	for (uint32_t p = t->at + 1; p < t->end && n < 100000; p++)
		n = n * 10 + (unsigned)(l->text[p] - '0');
	return (n);
}

/* One value that stands alone between commas and marks: a literal, perhaps with a sign, a
 * parameter or NULL; else OTHER. The lexer is behind it, at what ends it: *t. */
static struct sql_value
read_value(struct sql_lexer *l, struct sql_token *t, unsigned *literal, bool *has_query)
{
	struct sql_value value = {.kind = SQL_VALUE_OTHER};
	unsigned depth = 0, tokens = 0;

	for (;; sql_lex(l, t)) {
		bool closes =
		    sql_token_is_mark(l, t, ")") || sql_token_is_mark(l, t, "]");

		if (t->kind == SQL_TOKEN_END ||
		    (depth == 0 && (closes || sql_token_is_mark(l, t, ","))))
			break;
		depth += sql_token_is_mark(l, t, "(") || sql_token_is_mark(l, t, "[");
		depth -= closes;
		*has_query |= sql_token_is(l, t, "select") ||
			      sql_token_is(l, t, "values") || sql_token_is(l, t, "table");
		if (tokens == 0 && sql_token_is_mark(l, t, "-")) {
			value.is_negative = true;
			continue;
		}
		if (tokens++ > 0 || t->is_glued)
			value.kind = SQL_VALUE_OTHER;
		else if (is_literal(t))
			value = (struct sql_value){
			    SQL_VALUE_LITERAL, *literal, value.is_negative};
		else if (t->kind == SQL_TOKEN_PARAM)
			value = (struct sql_value){
			    .kind = value.is_negative ? SQL_VALUE_OTHER : SQL_VALUE_PARAM,
			    .at = param_number(l, t)};
		else if (sql_token_is(l, t, "null"))
			value.kind = value.is_negative ? SQL_VALUE_OTHER : SQL_VALUE_NULL;
		*literal += is_literal(t);
	}
	if (value.kind != SQL_VALUE_LITERAL)
		value.is_negative = false;
	return (value);
}

/* The list that the lexer is behind the opening mark of; false: not one of values alone. */
static bool
read_list(struct sql_lexer *l, unsigned *literal, const char *close, struct values *out)
{
	struct sql_token t;
	bool has_query = false;

	do {
		struct sql_value v;

		sql_lex(l, &t);
		v = read_value(l, &t, literal, &has_query);
		if (v.kind == SQL_VALUE_OTHER)
			return (false);
		values_add(out, v);
	} while (sql_token_is_mark(l, &t, ","));
	return (sql_token_is_mark(l, &t, close));
}

/* Rows of as many columns each; the lexer is behind the first one's opening mark, and in the end
 * behind the last one's closing mark. */
static bool
read_rows(struct sql_lexer *l, unsigned *literal, struct values *out, unsigned *columns)
{
	bool has_query = false;
	struct sql_lexer after;
	struct sql_token t;

	*columns = 0;
	for (;;) {
		unsigned n = 0;

		do {
			sql_lex(l, &t);
			values_add(out, read_value(l, &t, literal, &has_query));
			n++;
		} while (sql_token_is_mark(l, &t, ","));
		if (has_query || !sql_token_is_mark(l, &t, ")") || n > COLUMN_MAX ||
		    (*columns != 0 && n != *columns))
			return (false);
		*columns = n;
		after = *l;
		sql_lex(&after, &t);
		if (!sql_token_is_mark(&after, &t, ","))
			return (true);
		sql_lex(&after, &t);
		if (!sql_token_is_mark(&after, &t, "("))
			return (false);
		*l = after;
	}
}

/* ---- writing ---- */

static void
put_token(struct sql_fold *f, const struct sql_lexer *l, const struct sql_token *t)
{
	uint32_t len = t->end - t->at;

	if (is_literal(t)) {
		if (f->literal_count == f->literal_room) {
			f->literal_room = f->literal_room == 0 ? 64 : f->literal_room * 2;
			f->literals = mem_realloc(
			    f->literals, f->literal_room * sizeof(*f->literals));
		}
		f->literals[f->literal_count++] = f->literal++;
	}
	if (t->kind == SQL_TOKEN_STRING && len > STRING_MAX_LEN)
		buf_addstr(&f->text, "''");
	else
		buf_add(&f->text, l->text + t->at, len);
}

/* Behind IN ( or ARRAY [, which is written already. */
static bool
fold_list(struct sql_fold *f, struct sql_lexer *l, const char *close)
{
	struct sql_lexer ahead = *l;
	unsigned literal = f->literal;
	struct values list = {0};

	if (f->list_count == LIST_MAX || !read_list(&ahead, &literal, close, &list)) {
		free(list.at);
		return (false);
	}
	buf_addf(&f->text, "$%u%s", LIST_FIRST + f->list_count, close);
	f->lists[f->list_count++] = list;
	f->literal = literal;
	*l = ahead;
	return (true);
}

/* Behind VALUES (, which is written already. */
static bool
fold_rows(struct sql_fold *f, struct sql_lexer *l)
{
	struct sql_lexer ahead = *l;
	unsigned literal = f->literal, columns;
	struct values rows = {0};

	if (f->columns > 0 || !read_rows(&ahead, &literal, &rows, &columns)) {
		free(rows.at);
		return (false);
	}
	for (unsigned i = 0; i < columns; i++)
		buf_addf(&f->text, "%s$%u", i > 0 ? "," : "", COLUMN_FIRST + i);
	buf_addstr(&f->text, ")");
	f->rows = rows;
	f->columns = columns;
	f->literal = literal;
	*l = ahead;
	return (true);
}

struct sql_fold *
sql_fold_make(const struct sql_scan *scan)
{
	struct sql_lexer l = sql_lexer_of(scan);
	struct sql_fold *f;
	struct sql_token t;
	enum {
		BEFORE_OTHER,
		BEFORE_LIST,
		BEFORE_ARRAY,
		BEFORE_ROWS
	} before = BEFORE_OTHER;
	bool inserts = strcmp(scan->verb, "insert") == 0;
	unsigned depth = 0;
	uint32_t end = 0;

	if (scan->wants_values || scan->is_cut || scan->len <= SQL_PARSE_BYTES ||
	    scan->param_max >= LIST_FIRST)
		return (NULL);
	f = mem_alloc(sizeof(*f));
	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		bool opens = sql_token_is_mark(&l, &t, "("),
		     opens_array = sql_token_is_mark(&l, &t, "["), is_folded;

		if (t.at > end)
			buf_addstr(&f->text, " ");
		put_token(f, &l, &t);
		is_folded =
		    (opens && before == BEFORE_LIST && fold_list(f, &l, ")")) ||
		    (opens_array && before == BEFORE_ARRAY && fold_list(f, &l, "]")) ||
		    (opens && before == BEFORE_ROWS && fold_rows(f, &l));
		depth += opens && !is_folded;
		depth -= depth > 0 && sql_token_is_mark(&l, &t, ")");
		before = sql_token_is(&l, &t, "in")      ? BEFORE_LIST
			 : sql_token_is(&l, &t, "array") ? BEFORE_ARRAY
			 : inserts && depth == 0 && sql_token_is(&l, &t, "values")
			     ? BEFORE_ROWS
			     : BEFORE_OTHER;
		end = l.at;
		if (f->text.len > SQL_PARSE_BYTES) {
			sql_fold_free(f);
			return (NULL);
		}
	}
	return (f);
}

/* ---- back to what it stands for ---- */

static unsigned
count_of(const struct sql_fold *f, const struct sql_value *v)
{
	if (v->kind != SQL_VALUE_PARAM || v->at < LIST_FIRST)
		return (1);
	if (v->at < COLUMN_FIRST)
		return (f->lists[v->at - LIST_FIRST].count);
	return (f->rows.count / f->columns);
}

/* The value, or one of those that it stands for. */
static struct sql_value
value_at(const struct sql_fold *f, const struct sql_scan *scan, const struct sql_value *v,
    unsigned i)
{
	struct sql_value value = *v;

	if (v->kind == SQL_VALUE_LITERAL)
		value.at = f->literals[v->at];
	else if (v->kind == SQL_VALUE_PARAM && v->at >= COLUMN_FIRST)
		value = f->rows.at[i * f->columns + (v->at - COLUMN_FIRST)];
	else if (v->kind == SQL_VALUE_PARAM && v->at >= LIST_FIRST)
		value = f->lists[v->at - LIST_FIRST].at[i];
	/* There were too many of them to be told. */
	if (value.kind == SQL_VALUE_LITERAL && value.at >= scan->literal_count)
		value = (struct sql_value){.kind = SQL_VALUE_OTHER};
	return (value);
}

bool
sql_fold_undo(const struct sql_fold *f, const struct sql_scan *scan,
    struct sql_arena *arena, struct sql_match *m)
{
	struct sql_value *values;
	size_t count = 0, at = 0;

	for (unsigned i = 0; i < m->count; i++)
		count += count_of(f, &m->values[i]);
	if (count > SQL_VALUES_MAX)
		return (false);
	values = sql_arena_alloc(arena, count * sizeof(*values));
	for (unsigned i = 0; i < m->count; i++) {
		unsigned n = count_of(f, &m->values[i]);

		for (unsigned k = 0; k < n; k++) {
			values[at] = value_at(f, scan, &m->values[i], k);
			/* Of a condition all values must be known. */
			if (values[at++].kind == SQL_VALUE_OTHER && !m->is_insert)
				return (false);
		}
	}
	m->values = values;
	m->count = (unsigned)count;
	return (true);
}
