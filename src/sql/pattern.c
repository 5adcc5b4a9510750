/*
 * Knows a text again that differs from an earlier one in the values of its literals alone, by
 * comparing what stands between them: far less work than cutting it into tokens.
 *
 * That is exact, because a token hangs on nothing but the bytes from where it begins: if the
 * pieces between the literals are the same, and each literal is one token of the same kind in
 * both, all tokens are the same. The last token of a piece must not hang on how the literal
 * behind it begins, so a piece ends with a blank, a mark or an operator.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* Longer texts, and ones of more literals, are scanned. */
#define PATTERN_BYTES_MAX    8192
#define PATTERN_LITERALS_MAX 64
/* So much of a text is looked at to find the patterns that it may be like. */
#define PREFIX_BYTES_MAX 256

struct sql_piece {
	uint32_t at, len;         /* in the model, from behind the literal before */
	enum sql_token_kind kind; /* of the literal behind it */
};

uint32_t
sql_pattern_prefix(const char *text, size_t len)
{
	uint64_t h = 0x9e3779b97f4a7c15ULL, word;
	size_t at = 0;

	len =
	    sql_lex_before_literal(text, len < PREFIX_BYTES_MAX ? len : PREFIX_BYTES_MAX);
	for (; at + 8 <= len; at += 8) {
		memcpy(&word, text + at, 8);
		h = (h ^ word) * 0xff51afd7ed558ccdULL;
		h ^= h >> 32;
	}
	word = len - at;
	for (; at < len; at++)
		word = word << 8 | (uint8_t)text[at];
	h = (h ^ word) * 0xff51afd7ed558ccdULL;
	return ((uint32_t)(h >> 32));
}

static bool
add_piece(struct sql_lexer *l, uint32_t begin, const struct sql_literal *literal,
    struct sql_piece *out)
{
	struct sql_token t;

	if (literal->at == 0 || !sql_lex_is_boundary(l->text[literal->at - 1]))
		return (false);
	l->at = literal->at;
	sql_lex(l, &t);
	if (t.is_glued || t.end != literal->at + literal->len)
		return (false);
	*out = (struct sql_piece){begin, literal->at - begin, t.kind};
	return (true);
}

bool
sql_pattern_make(const struct sql_scan *scan, struct sql_pattern *out)
{
	struct sql_lexer l = {.text = scan->sql, .len = (uint32_t)scan->len};
	uint32_t begin = 0;

	*out = (struct sql_pattern){0};
	if (scan->hint != NULL || scan->wants_values || scan->is_cut ||
	    scan->is_too_much || scan->is_empty || scan->len > PATTERN_BYTES_MAX ||
	    scan->literal_count > PATTERN_LITERALS_MAX)
		return (false);
	out->pieces = mem_alloc((scan->literal_count + 1) * sizeof(*out->pieces));
	for (unsigned i = 0; i < scan->literal_count; i++) {
		if (!add_piece(&l, begin, &scan->literals[i], &out->pieces[i])) {
			sql_pattern_free(out);
			return (false);
		}
		begin = scan->literals[i].at + scan->literals[i].len;
	}
	out->pieces[scan->literal_count] =
	    (struct sql_piece){begin, (uint32_t)scan->len - begin, SQL_TOKEN_END};
	out->count = scan->literal_count;
	out->param_max = scan->param_max;
	out->prefix = sql_pattern_prefix(scan->sql, scan->len);
	memcpy(out->verb, scan->verb, sizeof(out->verb));
	return (true);
}

size_t
sql_pattern_bytes(const struct sql_pattern *p)
{
	return (p->pieces == NULL ? 0 : (p->count + 1) * sizeof(*p->pieces));
}

void
sql_pattern_free(struct sql_pattern *p)
{
	free(p->pieces);
	*p = (struct sql_pattern){0};
}

/* Behind a statement: blanks, and a semicolon with blanks. *end: where the statement ends. */
static bool
ends_at(const struct sql_lexer *at, uint32_t *end)
{
	struct sql_lexer l = *at;

	sql_lex_spaces(&l);
	*end = l.at;
	if (l.at < l.len && l.text[l.at] == ';') {
		l.at++;
		sql_lex_spaces(&l);
	}
	return (l.at == l.len);
}

bool
sql_pattern_matches(const struct sql_pattern *p, const char *model, uint32_t model_len,
    const char *text, size_t len, struct sql_scan *out)
{
	struct sql_lexer l = {.text = text, .len = (uint32_t)len};
	struct sql_literal literals[PATTERN_LITERALS_MAX];
	struct sql_token t;
	uint32_t end;

	if (len > PATTERN_BYTES_MAX || len + PATTERN_LITERALS_MAX < p->count)
		return (false);
	for (unsigned i = 0; i <= p->count; i++) {
		const struct sql_piece *piece = &p->pieces[i];

		INVARIANT(piece->at + piece->len <= model_len);
		if (piece->len > l.len - l.at ||
		    memcmp(text + l.at, model + piece->at, piece->len) != 0)
			return (false);
		l.at += piece->len;
		if (i == p->count)
			break;
		end = l.at;
		sql_lex(&l, &t);
		if (t.at != end || t.kind != piece->kind || t.is_glued || l.is_cut ||
		    (t.kind == SQL_TOKEN_STRING &&
			memchr(text + t.at, '\0', t.end - t.at) != NULL))
			return (false);
		if (out == NULL)
			continue;
		literals[i] = (struct sql_literal){.at = t.at,
		    .len = t.end - t.at,
		    .kind = t.kind == SQL_TOKEN_NUMBER ? SQL_LIT_NUMBER : SQL_LIT_STRING};
	}
	if (!ends_at(&l, &end))
		return (false);
	if (out == NULL)
		return (true);
	*out = (struct sql_scan){.sql = text,
	    .len = end,
	    .literal_count = p->count,
	    .param_max = p->param_max};
	memcpy(out->verb, p->verb, sizeof(out->verb));
	if (p->count > 0)
		out->literals = mem_dup(literals, p->count * sizeof(*literals));
	return (true);
}
