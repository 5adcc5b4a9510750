/*
 * INSERT … VALUES cut into parts: the statement with some of its rows. The text is cut between
 * tokens, whatever stands in them; parameters are numbered anew, so that each part has those that
 * it mentions and no others (PostgreSQL takes no parameter whose type nothing tells).
 *
 *   INSERT INTO t VALUES ($1, $2), ($3, $4) RETURNING $5::int
 *   part of row 1:  INSERT INTO t VALUES ($1, $2) RETURNING $3::int      of $3, $4, $5
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

struct span {
	uint32_t at, end;
};

struct cut {
	const char *sql;
	uint32_t len;
	struct buf out;
	uint16_t *params; /* old numbers of the new ones */
	unsigned param_count;
};

/* The end of the parenthesis that the lexer is behind; false: there is none. */
static bool
skip_row(struct sql_lexer *l, uint32_t *end)
{
	struct sql_token t;
	unsigned depth = 1;

	while (depth > 0) {
		sql_lex(l, &t);
		if (t.kind == SQL_TOKEN_END)
			return (false);
		depth += sql_token_is_mark(l, &t, "(");
		depth -= sql_token_is_mark(l, &t, ")");
		*end = t.end;
	}
	return (true);
}

/* Behind the word VALUES that stands in no parenthesis, at the one of the first row. */
static bool
find_values(struct sql_lexer *l, struct sql_token *t)
{
	unsigned depth = 0;

	for (sql_lex(l, t); t->kind != SQL_TOKEN_END; sql_lex(l, t)) {
		depth += sql_token_is_mark(l, t, "(");
		if (sql_token_is_mark(l, t, ")") && depth-- == 0)
			return (false);
		if (depth > 0 || !sql_token_is(l, t, "values"))
			continue;
		sql_lex(l, t);
		return (sql_token_is_mark(l, t, "("));
	}
	return (false);
}

/* Where the rows stand; false: not `count` of them, or something else than the end of an INSERT
 * behind them. */
static bool
find_rows(const char *sql, uint32_t len, struct span *rows, unsigned count)
{
	struct sql_lexer l = {.text = sql, .len = len};
	struct sql_token t;

	if (!find_values(&l, &t))
		return (false);
	for (unsigned i = 0; i < count; i++) {
		if (!sql_token_is_mark(&l, &t, "("))
			return (false);
		rows[i].at = t.at;
		if (!skip_row(&l, &rows[i].end))
			return (false);
		sql_lex(&l, &t);
		if (i + 1 < count && !sql_token_is_mark(&l, &t, ","))
			return (false);
		if (i + 1 < count)
			sql_lex(&l, &t);
	}
	return (t.kind == SQL_TOKEN_END || sql_token_is(&l, &t, "on") ||
		sql_token_is(&l, &t, "returning"));
}

/* The new number of a parameter. */
static unsigned
number_of(struct cut *c, const struct sql_token *t)
{
	unsigned old = (unsigned)strtoul(c->sql + t->at + 1, NULL, 10), i = 0;

	while (i < c->param_count && c->params[i] != old)
		i++;
	if (i == c->param_count)
		c->params[c->param_count++] = (uint16_t)old;
	return (i + 1);
}

/* That stretch of the text. */
static void
put(struct cut *c, uint32_t from, uint32_t to)
{
	struct sql_lexer l = {.text = c->sql, .len = to, .at = from};
	struct sql_token t;

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		if (t.kind != SQL_TOKEN_PARAM)
			continue;
		buf_add(&c->out, c->sql + from, t.at - from);
		buf_addf(&c->out, "$%u", number_of(c, &t));
		from = t.end;
	}
	buf_add(&c->out, c->sql + from, to - from);
}

char *
sql_insert_part(const char *sql, size_t len, const uint8_t *part_of_row, unsigned count,
    unsigned part, uint16_t *params, unsigned *param_count)
{
	struct span *rows = mem_alloc(count * sizeof(*rows));
	struct cut c = {.sql = sql, .len = (uint32_t)len, .params = params};
	bool is_first = true;

	*param_count = 0;
	if (!find_rows(sql, c.len, rows, count)) {
		free(rows);
		return (NULL);
	}
	put(&c, 0, rows[0].at);
	for (unsigned i = 0; i < count; i++) {
		if (part_of_row[i] != part)
			continue;
		buf_addstr(&c.out, is_first ? "" : ", ");
		put(&c, rows[i].at, rows[i].end);
		is_first = false;
	}
	put(&c, rows[count - 1].end, c.len);
	buf_add(&c.out, "", 1);
	*param_count = c.param_count;
	free(rows);
	return ((char *)c.out.mem);
}
