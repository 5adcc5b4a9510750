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

/* Where a parameter stands. */
struct spot {
	uint32_t at;
	unsigned row;   /* as many as there are: in none */
	unsigned place; /* from 1, when it is all that stands there; 0: it is not */
};

struct cut {
	const char *sql;
	uint32_t len;
	struct span *rows;
	unsigned count;
	const uint8_t *part_of_row;
	unsigned part;
	struct buf out;
	struct sql_part_params *params;
	/* By the old numbers: where each stands first in the whole statement; the new one. */
	struct spot *first;
	uint16_t *renamed;
	struct sql_lexer lexer;
	unsigned row, depth, place; /* where that is */
	bool begins;                /* right behind the beginning of a place */
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

/* ---- parameters ---- */

/* The number that it is known by; 0: PostgreSQL has none such. */
static unsigned
number_of(const struct cut *c, const struct sql_token *t)
{
	unsigned long n = strtoul(c->sql + t->at + 1, NULL, 10);

	return (n <= c->params->max ? (unsigned)n : 0);
}

static bool
is_one_of(const struct sql_lexer *l, const struct sql_token *t, const char *const *marks)
{
	for (; *marks != NULL; marks++)
		if (sql_token_is_mark(l, t, *marks))
			return (true);
	return (false);
}

/* The next token, and where it stands. */
static void
step(struct cut *c, struct sql_token *t)
{
	static const char *const opening[] = {"(", "[", NULL};
	static const char *const closing[] = {")", "]", NULL};
	const struct span *row;
	bool is_comma;

	sql_lex(&c->lexer, t);
	while (c->row < c->count && t->at >= c->rows[c->row].end)
		c->row++;
	row = c->row < c->count ? &c->rows[c->row] : NULL;
	if (row == NULL || t->at <= row->at) {
		c->depth = 0;
		c->place = 1;
	}
	c->depth += is_one_of(&c->lexer, t, opening);
	c->depth -= c->depth > 0 && is_one_of(&c->lexer, t, closing);
	is_comma = c->depth == 1 && sql_token_is_mark(&c->lexer, t, ",");
	c->place += is_comma;
	c->begins = is_comma || (row != NULL && t->at == row->at);
}

/* The next parameter; false: there is none. */
static bool
next_param(struct cut *c, struct sql_token *t, struct spot *out)
{
	static const char *const ending[] = {",", ")", NULL};
	struct sql_lexer ahead;
	struct sql_token next;
	bool begins;

	do {
		begins = c->begins;
		step(c, t);
		if (t->kind == SQL_TOKEN_END)
			return (false);
	} while (t->kind != SQL_TOKEN_PARAM);
	ahead = c->lexer;
	sql_lex(&ahead, &next);
	*out = (struct spot){.at = t->at, .row = c->count};
	if (c->row < c->count && t->at > c->rows[c->row].at) {
		out->row = c->row;
		out->place = begins && is_one_of(&ahead, &next, ending) ? c->place : 0;
	}
	return (true);
}

/* What of the statement's parameters the part has. False: one has an impossible number. */
static bool
find_params(struct cut *c)
{
	struct sql_part_params *p = c->params;
	struct sql_token t;
	struct spot spot;

	c->lexer = (struct sql_lexer){.text = c->sql, .len = c->len};
	while (next_param(c, &t, &spot)) {
		unsigned n = number_of(c, &t);
		struct spot *first = &c->first[n];

		if (n == 0)
			return (false);
		if (first->at == 0)
			*first = spot;
		if (c->renamed[n] != 0 ||
		    (spot.row < c->count && c->part_of_row[spot.row] != c->part))
			continue;
		/* A value by itself has its column's type in all rows. */
		p->may_change[p->count] = spot.at != first->at &&
					  (spot.place == 0 || spot.place != first->place);
		p->numbers[p->count++] = (uint16_t)n;
		c->renamed[n] = (uint16_t)p->count;
	}
	return (true);
}

/* ---- the text ---- */

/* That stretch of it. */
static void
put(struct cut *c, uint32_t from, uint32_t to)
{
	struct sql_lexer l = {.text = c->sql, .len = to, .at = from};
	struct sql_token t;

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		if (t.kind != SQL_TOKEN_PARAM)
			continue;
		buf_add(&c->out, c->sql + from, t.at - from);
		buf_addf(&c->out, "$%u", c->renamed[number_of(c, &t)]);
		from = t.end;
	}
	buf_add(&c->out, c->sql + from, to - from);
}

static void
put_part(struct cut *c)
{
	bool is_first = true;

	put(c, 0, c->rows[0].at);
	for (unsigned i = 0; i < c->count; i++) {
		if (c->part_of_row[i] != c->part)
			continue;
		buf_addstr(&c->out, is_first ? "" : ", ");
		put(c, c->rows[i].at, c->rows[i].end);
		is_first = false;
	}
	put(c, c->rows[c->count - 1].end, c->len);
	buf_add(&c->out, "", 1);
}

char *
sql_insert_part(const char *sql, size_t len, const uint8_t *part_of_row, unsigned count,
    unsigned part, struct sql_part_params *params)
{
	struct cut c = {.sql = sql,
	    .len = (uint32_t)len,
	    .rows = mem_alloc(count * sizeof(struct span)),
	    .count = count,
	    .part_of_row = part_of_row,
	    .part = part,
	    .params = params,
	    .first = mem_alloc((params->max + 1) * sizeof(struct spot)),
	    .renamed = mem_alloc((params->max + 1) * sizeof(uint16_t))};

	params->count = 0;
	if (find_rows(sql, c.len, c.rows, count) && find_params(&c))
		put_part(&c);
	free(c.first);
	free(c.renamed);
	free(c.rows);
	return ((char *)c.out.mem);
}
