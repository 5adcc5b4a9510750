/*
 * Splits a text into statements. One pass over the tokens of a statement computes its digest
 * and where its literals are:
 *
 *     -- pgweave: database=a\n SELECT x FROM t WHERE id = 5; …
 *        hint                    |sql                       |  |next
 *                                digest of: select x from t where id = <number>
 *
 * Two statements of one digest have the same tokens but for the values of literals; so what the
 * parser says of one holds for the other. Whatever else the parser could stumble over (an open
 * quote, a NUL byte, a number that runs into a word) is in the digest or keeps the statement
 * from the parser.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* Marks in what the digest is of; tokens begin with no such byte but for rubbish, which gets a
 * mark of its own. */
enum mark { MARK_STRING = 1, MARK_NUMBER, MARK_RUBBISH, MARK_GLUED, MARK_BITS };

/* ---- the digest ---- */

struct digest {
	struct hash128 state;
	size_t fill;
	uint8_t block[1024];
};

static void
digest_fold(struct digest *d)
{
	d->state = hash_pair(&d->state, sizeof(d->state), d->block, d->fill);
	d->fill = 0;
}

static inline void
digest_byte(struct digest *d, uint8_t byte)
{
	if (UNLIKELY(d->fill == sizeof(d->block)))
		digest_fold(d);
	d->block[d->fill++] = byte;
}

static void
digest_text(struct digest *d, const char *p, size_t len)
{
	while (len > 0) {
		size_t room = sizeof(d->block) - d->fill, n = len < room ? len : room;

		if (room == 0) {
			digest_fold(d);
			continue;
		}
		memcpy(d->block + d->fill, p, n);
		d->fill += n;
		p += n;
		len -= n;
	}
}

/* The bytes of a token in lower case. There is room for them. */
static inline void
digest_word(struct digest *d, const char *p, size_t len)
{
	uint8_t *to = d->block + d->fill;

	for (size_t i = 0; i < len; i++)
		to[i] = sql_lower[(uint8_t)p[i]];
	d->fill += len;
}

/* The mark of a literal, or 0. */
static inline uint8_t
mark_of(enum sql_token_kind kind)
{
	return (kind == SQL_TOKEN_STRING   ? MARK_STRING
		: kind == SQL_TOKEN_NUMBER ? MARK_NUMBER
		: kind == SQL_TOKEN_BITS   ? MARK_BITS
					   : 0);
}

static inline void
digest_token(struct digest *d, const struct sql_lexer *l, const struct sql_token *t)
{
	const char *p = l->text + t->at;
	size_t len = t->end - t->at;

	if (t->kind == SQL_TOKEN_RUBBISH)
		digest_byte(d, MARK_RUBBISH);
	if (t->kind == SQL_TOKEN_WORD && LIKELY(len < sizeof(d->block) - d->fill))
		digest_word(d, p, len);
	else if (t->kind == SQL_TOKEN_WORD)
		for (size_t i = 0; i < len; i++)
			digest_byte(d, sql_lower[(uint8_t)p[i]]);
	else if (mark_of(t->kind) != 0)
		digest_byte(d, mark_of(t->kind));
	else if (len == 1)
		digest_byte(d, (uint8_t)*p);
	else
		digest_text(d, p, len);
	if (UNLIKELY(t->is_glued))
		digest_byte(d, MARK_GLUED);
	digest_byte(d, ' ');
}

/* ---- one pass ---- */

struct pass {
	struct sql_lexer l;
	struct sql_scan *out;
	uint32_t start; /* of the statement in the text */
	unsigned literal_room;
	unsigned tokens;
	unsigned words; /* of CREATE, behind it */
	unsigned parens, depth;
	bool is_deep;
	bool creates;     /* begins with CREATE */
	bool replaces;    /* CREATE OR */
	bool is_routine;  /* CREATE [OR REPLACE] FUNCTION or PROCEDURE */
	bool after_begin; /* the word before was BEGIN, in a routine */
	unsigned blocks;  /* BEGIN ATOMIC, and CASE in it, that are open */
};

static void
add_literal(struct pass *s, const struct sql_token *t)
{
	struct sql_scan *out = s->out;

	if (out->literal_count == s->literal_room) {
		unsigned room = s->literal_room == 0 ? 8 : s->literal_room * 2;

		if (s->literal_room == SQL_LITERALS_MAX) {
			out->literal_count = SQL_LITERALS_MAX + 1;
			return;
		}
		out->literals = mem_realloc(out->literals, room * sizeof(*out->literals));
		s->literal_room = room;
	}
	if (out->literal_count > SQL_LITERALS_MAX)
		return;
	out->literals[out->literal_count++] = (struct sql_literal){.at = t->at - s->start,
	    .len = t->end - t->at,
	    .kind = t->kind == SQL_TOKEN_NUMBER ? SQL_LIT_NUMBER : SQL_LIT_STRING};
}

static void
add_param(struct pass *s, const struct sql_token *t)
{
	unsigned n = 0;

	for (uint32_t p = t->at + 1; p < t->end && n < 100000; p++)
		n = n * 10 + (unsigned)(s->l.text[p] - '0');
	/* Bind counts its parameters in 16 bits. */
	if (n <= UINT16_MAX && n > s->out->param_max)
		s->out->param_max = n;
}

/* Follows CREATE FUNCTION … BEGIN ATOMIC …; …; END, whose semicolons end nothing. */
static void
follow_routine(struct pass *s, const struct sql_token *t)
{
	const struct sql_lexer *l = &s->l;

	s->words++;
	if (s->words == 1 && sql_token_is(l, t, "or"))
		s->replaces = true;
	if (s->words == (s->replaces ? 3 : 1))
		s->is_routine =
		    sql_token_is(l, t, "function") || sql_token_is(l, t, "procedure");
	if (!s->is_routine)
		return;
	if (s->blocks == 0) {
		if (s->after_begin && sql_token_is(l, t, "atomic"))
			s->blocks = 1;
	} else if (sql_token_is(l, t, "case")) {
		s->blocks++;
	} else if (sql_token_is(l, t, "end")) {
		s->blocks--;
	}
	s->after_begin = sql_token_is(l, t, "begin");
}

static bool
is_named(const struct sql_lexer *l, const struct sql_token *t, const char *name)
{
	struct sql_token bare = *t;

	if (t->kind == SQL_TOKEN_QUOTED) {
		bare.kind = SQL_TOKEN_WORD;
		bare.at++;
		bare.end--;
	}
	return (sql_token_is(l, &bare, name));
}

/* The first word of the statement. */
static void
note_first(struct pass *s, const struct sql_token *t)
{
	const struct sql_lexer *l = &s->l;

	s->creates = sql_token_is(l, t, "create");
	s->out->wants_values = sql_token_is(l, t, "set") || sql_token_is(l, t, "show") ||
			       sql_token_is(l, t, "reset") ||
			       sql_token_is(l, t, "copy") ||
			       sql_token_is(l, t, "explain");
}

/* Names behind which the facts hang on the values of literals, too. */
static inline void
note_name(struct pass *s, const struct sql_token *t)
{
	const struct sql_lexer *l = &s->l;
	uint32_t len = t->end - t->at - (t->kind == SQL_TOKEN_QUOTED ? 2 : 0);

	if ((len == 10 && is_named(l, t, "set_config")) ||
	    (len == 15 && is_named(l, t, "current_setting")) ||
	    (len == 7 && sql_token_is(l, t, "uescape")) ||
	    (t->kind == SQL_TOKEN_QUOTED && l->text[t->at] != '"'))
		s->out->wants_values = true;
}

static void
note_mark(struct pass *s, const struct sql_token *t)
{
	char c = s->l.text[t->at];

	if (c == '(' || c == '[') {
		s->parens += c == '(';
		s->is_deep |= ++s->depth > SQL_PARSE_DEPTH;
	} else if (c == ')' || c == ']') {
		if (c == ')' && s->parens > 0)
			s->parens--;
		if (s->depth > 0)
			s->depth--;
	}
}

static inline void
note_token(struct pass *s, const struct sql_token *t)
{
	switch (t->kind) {
	case SQL_TOKEN_WORD:
	case SQL_TOKEN_QUOTED:
		if (s->tokens == 0)
			note_first(s, t);
		else if (UNLIKELY(s->creates))
			follow_routine(s, t);
		note_name(s, t);
		break;
	case SQL_TOKEN_STRING:
	case SQL_TOKEN_NUMBER:
	case SQL_TOKEN_BITS:
		add_literal(s, t);
		break;
	case SQL_TOKEN_PARAM:
		add_param(s, t);
		break;
	case SQL_TOKEN_PUNCT:
		note_mark(s, t);
		break;
	case SQL_TOKEN_OP:
	case SQL_TOKEN_RUBBISH:
	case SQL_TOKEN_END:
		break;
	}
	s->tokens++;
}

/* ---- too much ---- */

/* Words behind which the parser's tree grows deeper. AND and OR do not: their chains are
 * flat. */
static bool
deepens(const struct sql_lexer *l, const struct sql_token *t)
{
	static const char *const words[] = {"not", "union", "intersect", "except", "join",
	    "is", "isnull", "notnull", "collate", "at", "like", "ilike", "similar",
	    "overlaps", "between", "in", "operator"};

	if (t->kind == SQL_TOKEN_OP || sql_token_is_mark(l, t, "::"))
		return (true);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (sql_token_is(l, t, words[i]))
			return (true);
	return (false);
}

/* Looks closely at a statement of many tokens: how deep may its tree be? Chains of terms count
 * at the level of nesting where they stand; a comma, AND or OR ends one. */
static bool
is_too_deep(const struct sql_scan *scan)
{
	struct sql_lexer l = sql_lexer_of(scan);
	struct sql_token t;
	uint32_t terms[SQL_PARSE_DEPTH + 1] = {0}, depth = 0, sum = 0;

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		if (sql_token_is_mark(&l, &t, "(") || sql_token_is_mark(&l, &t, "[") ||
		    sql_token_is(&l, &t, "case")) {
			if (++depth > SQL_PARSE_DEPTH)
				return (true);
			terms[depth] = 0;
		} else if (sql_token_is_mark(&l, &t, ")") ||
			   sql_token_is_mark(&l, &t, "]") ||
			   sql_token_is(&l, &t, "end")) {
			sum -= terms[depth];
			terms[depth] = 0;
			depth -= depth > 0;
		} else if (sql_token_is_mark(&l, &t, ",") ||
			   sql_token_is(&l, &t, "and") || sql_token_is(&l, &t, "or")) {
			sum -= terms[depth];
			terms[depth] = 0;
		} else if (deepens(&l, &t)) {
			terms[depth]++;
			if (++sum > SQL_PARSE_TERMS)
				return (true);
		}
	}
	return (false);
}

/* ---- a statement ---- */

/* Skips what stands before the first token and reads hints in it. The statement begins behind
 * the last hint; other comments in front stay with it, for the server's log. */
static void
read_lead(struct pass *s)
{
	uint32_t body, body_end;

	sql_lex_spaces(&s->l);
	s->start = s->l.at;
	while (sql_lex_comment(&s->l, &body, &body_end)) {
		bool is_hint = !s->l.is_cut && sql_hint_read(s->l.text + body,
						   body_end - body, &s->out->hint);

		sql_lex_spaces(&s->l);
		if (is_hint)
			s->start = s->l.at;
	}
}

static void
note_verb(struct pass *s, const struct sql_token *t)
{
	uint32_t len = t->end - t->at;
	char *verb = s->out->verb;

	if (t->kind != SQL_TOKEN_WORD)
		len = 1;
	if (len > sizeof(s->out->verb) - 1)
		len = sizeof(s->out->verb) - 1;
	for (uint32_t i = 0; i < len; i++)
		verb[i] = (char)sql_lower[(uint8_t)s->l.text[t->at + i]];
}

/* Where the next statement begins, behind this one's semicolon and any others that follow. */
static const char *
find_next(struct sql_lexer l)
{
	const char *next = l.text + l.at;

	for (;;) {
		sql_lex_blanks(&l);
		if (l.is_cut)
			return (next);
		if (l.at == l.len)
			return (NULL);
		if (l.text[l.at] != ';')
			return (next);
		next = l.text + ++l.at;
	}
}

static void
finish(struct pass *s, struct digest *digest, uint32_t end)
{
	struct sql_scan *out = s->out;

	out->sql = s->l.text + s->start;
	out->len = end - s->start;
	out->is_cut = s->l.is_cut;
	out->is_empty = s->tokens == 0 && !out->is_cut;
	if (out->literal_count > SQL_LITERALS_MAX) {
		free(out->literals);
		out->literals = NULL;
		out->literal_count = 0;
	}
	digest_fold(digest);
	out->digest = digest->state;
	out->is_too_much = out->len > SQL_PARSE_BYTES || s->is_deep ||
			   memchr(out->sql, '\0', out->len) != NULL ||
			   (s->tokens > SQL_PARSE_TERMS && is_too_deep(out));
}

void
sql_scan(const char *text, size_t len, struct sql_scan *out)
{
	struct pass s = {.l = {.text = text, .len = (uint32_t)len}, .out = out};
	struct digest digest; /* its block is not worth clearing */
	struct sql_token t;

	INVARIANT(len < UINT32_MAX);
	memset(out, 0, sizeof(*out));
	digest.state = (struct hash128){0, 0};
	digest.fill = 0;
	read_lead(&s);
	for (sql_lex(&s.l, &t); t.kind != SQL_TOKEN_END; sql_lex(&s.l, &t)) {
		if (text[t.at] == ';' && s.parens == 0 && s.blocks == 0) {
			out->next = find_next(s.l);
			break;
		}
		if (s.tokens == 0)
			note_verb(&s, &t);
		note_token(&s, &t);
		digest_token(&digest, &s.l, &t);
	}
	finish(&s, &digest, t.at);
}

void
sql_scan_free(struct sql_scan *scan)
{
	free(scan->literals);
	sql_hint_free(scan->hint);
	scan->literals = NULL;
	scan->literal_count = 0;
	scan->hint = NULL;
}
