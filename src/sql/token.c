/*
 * Cuts a text into tokens. Knows no statement and refuses nothing: a byte that PostgreSQL has no
 * use for is a token of its own.
 *
 *     e'it\'s'  U&'\0061'  $tag$…$tag$  1_000.5e-3  0x1F  $1  a->>'b'  x::int
 */
#include <string.h>

#include "token.h"

enum byte_class {
	C_RUBBISH,
	C_SPACE,
	C_LETTER, /* may begin a word */
	C_DIGIT,
	C_DOLLAR,
	C_QUOTE,
	C_DOUBLE,
	C_OP,
	C_MARK, /* one byte, a token of its own */
	C_DOT,
	C_COLON
};

static const uint8_t classes[256] = {
    [' '] = C_SPACE,
    ['\t'] = C_SPACE,
    ['\n'] = C_SPACE,
    ['\r'] = C_SPACE,
    ['\f'] = C_SPACE,
    ['a' ... 'z'] = C_LETTER,
    ['A' ... 'Z'] = C_LETTER,
    ['_'] = C_LETTER,
    [0x80 ... 0xff] = C_LETTER,
    ['0' ... '9'] = C_DIGIT,
    ['$'] = C_DOLLAR,
    ['\''] = C_QUOTE,
    ['"'] = C_DOUBLE,
    ['~'] = C_OP,
    ['!'] = C_OP,
    ['@'] = C_OP,
    ['#'] = C_OP,
    ['^'] = C_OP,
    ['&'] = C_OP,
    ['|'] = C_OP,
    ['`'] = C_OP,
    ['?'] = C_OP,
    ['+'] = C_OP,
    ['-'] = C_OP,
    ['*'] = C_OP,
    ['/'] = C_OP,
    ['%'] = C_OP,
    ['<'] = C_OP,
    ['>'] = C_OP,
    ['='] = C_OP,
    ['('] = C_MARK,
    [')'] = C_MARK,
    ['['] = C_MARK,
    [']'] = C_MARK,
    [','] = C_MARK,
    [';'] = C_MARK,
    ['.'] = C_DOT,
    [':'] = C_COLON,
};

#define SELF16(c)                                                                        \
	c, c + 1, c + 2, c + 3, c + 4, c + 5, c + 6, c + 7, c + 8, c + 9, c + 10,        \
	    c + 11, c + 12, c + 13, c + 14, c + 15
const uint8_t sql_lower[256] = {SELF16(0), SELF16(16), SELF16(32), SELF16(48), '@', 'a',
    'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r',
    's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '[', '\\', ']', '^', '_', SELF16(96),
    SELF16(112), SELF16(128), SELF16(144), SELF16(160), SELF16(176), SELF16(192),
    SELF16(208), SELF16(224), SELF16(240)};

/* Class of the byte at p; RUBBISH behind the end. */
static inline enum byte_class
class_at(const struct sql_lexer *l, uint32_t p)
{
	return (p < l->len ? classes[(uint8_t)l->text[p]] : C_RUBBISH);
}

static inline char
byte_at(const struct sql_lexer *l, uint32_t p)
{
	return (p < l->len ? l->text[p] : '\0');
}

static inline bool
is_word_part(enum byte_class c)
{
	return (c == C_LETTER || c == C_DIGIT || c == C_DOLLAR);
}

size_t
sql_lex_before_literal(const char *text, size_t len)
{
	static const bool stops[256] = {
	    ['\''] = true, [';'] = true, ['0' ... '9'] = true};
	const uint8_t *p = (const uint8_t *)text, *end = p + len;

	for (; p < end; p++) {
		if (LIKELY(!stops[*p]))
			continue;
		if (classes[*p] != C_DIGIT || p == (const uint8_t *)text ||
		    !is_word_part(classes[p[-1]]))
			break;
	}
	return ((size_t)(p - (const uint8_t *)text));
}

bool
sql_lex_is_boundary(char c)
{
	enum byte_class class = classes[(uint8_t)c];

	return (class == C_SPACE || class == C_MARK || class == C_OP);
}

/* ---- between tokens ---- */

void
sql_lex_spaces(struct sql_lexer *l)
{
	while (class_at(l, l->at) == C_SPACE)
		l->at++;
}

/* The end of the line that p is in. */
static uint32_t
line_end(const struct sql_lexer *l, uint32_t p)
{
	while (p < l->len && l->text[p] != '\n' && l->text[p] != '\r')
		p++;
	return (p);
}

/* From behind the first mark of a block comment to behind its last one; comments nest. */
static uint32_t
block_end(struct sql_lexer *l, uint32_t p)
{
	uint32_t depth = 1;

	for (; p + 1 < l->len; p++) {
		if (l->text[p] == '*' && l->text[p + 1] == '/') {
			p++;
			if (--depth == 0)
				return (p + 1);
		} else if (l->text[p] == '/' && l->text[p + 1] == '*') {
			p++;
			depth++;
		}
	}
	l->is_cut = true;
	return (l->len);
}

bool
sql_lex_comment(struct sql_lexer *l, uint32_t *body, uint32_t *body_end)
{
	char c = byte_at(l, l->at), d = byte_at(l, l->at + 1);
	bool was_cut = l->is_cut;

	if (c == '-' && d == '-') {
		*body = l->at + 2;
		*body_end = l->at = line_end(l, *body);
		return (true);
	}
	if (c != '/' || d != '*')
		return (false);
	*body = l->at + 2;
	l->at = block_end(l, *body);
	*body_end = l->is_cut && !was_cut ? l->at : l->at - 2;
	return (true);
}

void
sql_lex_blanks(struct sql_lexer *l)
{
	uint32_t body, body_end;

	do
		sql_lex_spaces(l);
	while (sql_lex_comment(l, &body, &body_end));
}

/* The same, quick where no comment can be. */
static inline enum byte_class
skip_blanks(struct sql_lexer *l)
{
	uint32_t p = l->at;
	enum byte_class c;

	while ((c = class_at(l, p)) == C_SPACE)
		p++;
	l->at = p;
	if (UNLIKELY(c == C_OP && (l->text[p] == '-' || l->text[p] == '/'))) {
		sql_lex_blanks(l);
		c = class_at(l, l->at);
	}
	return (c);
}

/* ---- quoted things ---- */

/* Where the string goes on, when a quote follows p after blanks with a line break in them; 0
 * when it has ended at p. */
static uint32_t
continued_at(const struct sql_lexer *l, uint32_t p)
{
	bool has_break = false;

	for (;; p++) {
		char c = byte_at(l, p);

		if (class_at(l, p) == C_SPACE)
			has_break |= c == '\n' || c == '\r';
		else if (c == '-' && byte_at(l, p + 1) == '-')
			p = line_end(l, p) - 1;
		else
			return (has_break && c == '\'' ? p + 1 : 0);
	}
}

/* From behind an opening quote to behind the closing one. A doubled quote stands for itself. */
static uint32_t
quote_end(struct sql_lexer *l, uint32_t p, char quote, bool has_escapes)
{
	for (; p < l->len; p++) {
		uint32_t more;

		if (has_escapes && l->text[p] == '\\') {
			p++;
			continue;
		}
		if (l->text[p] != quote)
			continue;
		if (byte_at(l, p + 1) == quote) {
			p++;
			continue;
		}
		if (quote == '"' || (more = continued_at(l, p + 1)) == 0)
			return (p + 1);
		p = more - 1;
	}
	l->is_cut = true;
	return (l->len);
}

/* $1, $tag$…$tag$, or a lone $. */
static void
lex_dollar(struct sql_lexer *l, struct sql_token *t)
{
	uint32_t p = l->at + 1;
	const char *close;

	t->kind = SQL_TOKEN_RUBBISH;
	if (class_at(l, p) == C_DIGIT) {
		while (class_at(l, p) == C_DIGIT)
			p++;
		t->kind = SQL_TOKEN_PARAM;
		t->is_glued = class_at(l, p) == C_LETTER;
		l->at = p;
		return;
	}
	while (class_at(l, p) == C_LETTER || class_at(l, p) == C_DIGIT)
		p++;
	if (byte_at(l, p) != '$') {
		l->at++;
		return;
	}
	p++;
	t->kind = SQL_TOKEN_STRING;
	close = memmem(l->text + p, l->len - p, l->text + l->at, p - l->at);
	if (close == NULL) {
		l->is_cut = true;
		l->at = l->len;
		return;
	}
	l->at = (uint32_t)(close - l->text) + (p - l->at);
}

/* ---- words ---- */

/* A word of one letter in front of a quote may be the prefix of what is quoted. */
static void
lex_prefix(struct sql_lexer *l, struct sql_token *t)
{
	uint32_t p = l->at;
	char letter = (char)sql_lower[(uint8_t)l->text[t->at]];
	bool has_quote = byte_at(l, p) == '\'';

	if (letter == 'n' && has_quote) {
		t->is_glued = true;
	} else if (letter == 'e' && has_quote) {
		t->kind = SQL_TOKEN_STRING;
		l->at = quote_end(l, p + 1, '\'', true);
	} else if ((letter == 'b' || letter == 'x') && has_quote) {
		t->kind = SQL_TOKEN_BITS;
		l->at = quote_end(l, p + 1, '\'', false);
	} else if (letter == 'u' && byte_at(l, p) == '&') {
		char quote = byte_at(l, p + 1);

		if (quote != '\'' && quote != '"')
			return;
		t->kind = quote == '"' ? SQL_TOKEN_QUOTED : SQL_TOKEN_STRING;
		l->at = quote_end(l, p + 2, quote, false);
	}
}

static void
lex_word(struct sql_lexer *l, struct sql_token *t)
{
	const uint8_t *text = (const uint8_t *)l->text, *end = text + l->len;
	const uint8_t *p = text + l->at + 1;

	while (p < end && is_word_part(classes[*p]))
		p++;
	l->at = (uint32_t)(p - text);
	t->kind = SQL_TOKEN_WORD;
	if (l->at == t->at + 1)
		lex_prefix(l, t);
}

/* ---- numbers ---- */

static bool
is_digit_of(unsigned base, char c)
{
	c = (char)sql_lower[(uint8_t)c];
	if (base <= 10)
		return (c >= '0' && (unsigned)(c - '0') < base);
	return ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
}

/* Behind the digits at p, which may have single underscores in front of them (but for the
 * first, without a prefix); p when there are none. */
static uint32_t
digits_end(const struct sql_lexer *l, uint32_t p, unsigned base, bool begins)
{
	if (begins && !is_digit_of(base, byte_at(l, p)))
		return (p);
	for (;;) {
		if (is_digit_of(base, byte_at(l, p)))
			p++;
		else if (byte_at(l, p) == '_' && is_digit_of(base, byte_at(l, p + 1)))
			p += 2;
		else
			return (p);
	}
}

static void
lex_number(struct sql_lexer *l, struct sql_token *t)
{
	uint32_t p = l->at, end;
	char prefix = (char)sql_lower[(uint8_t)byte_at(l, p + 1)];
	unsigned base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;

	t->kind = SQL_TOKEN_NUMBER;
	if (l->text[p] == '0' && base != 0 &&
	    (end = digits_end(l, p + 2, base, false)) > p + 2) {
		p = end;
	} else {
		p = digits_end(l, p, 10, true);
		if (byte_at(l, p) == '.' && byte_at(l, p + 1) != '.')
			p = digits_end(l, p + 1, 10, true);
		if (byte_at(l, p) == 'e' || byte_at(l, p) == 'E') {
			char sign = byte_at(l, p + 1);
			uint32_t from = p + (sign == '+' || sign == '-' ? 2 : 1);

			end = digits_end(l, from, 10, true);
			p = end > from ? end : p;
		}
	}
	t->is_glued = class_at(l, p) == C_LETTER;
	l->at = p;
}

/* ---- operators ---- */

/* As many operator bytes as there are, up to a comment. An operator of several ends in + or -
 * only if it has a byte in it that no SQL operator has: "=-5" is two. */
static void
lex_operator(struct sql_lexer *l, struct sql_token *t)
{
	uint32_t p = l->at;
	bool is_odd = false;

	t->kind = SQL_TOKEN_OP;
	for (; class_at(l, p) == C_OP; p++) {
		char c = l->text[p], d = byte_at(l, p + 1);

		if (p > l->at && ((c == '-' && d == '-') || (c == '/' && d == '*')))
			break;
		is_odd |= strchr("~!@#^&|`?%", c) != NULL;
	}
	if (!is_odd)
		while (p > l->at + 1 && (l->text[p - 1] == '+' || l->text[p - 1] == '-'))
			p--;
	l->at = p;
}

/* : or :: or := */
static void
lex_colon(struct sql_lexer *l, struct sql_token *t)
{
	char next = byte_at(l, l->at + 1);

	t->kind = SQL_TOKEN_PUNCT;
	l->at += next == ':' || next == '=' ? 2 : 1;
}

void
sql_lex(struct sql_lexer *l, struct sql_token *t)
{
	enum byte_class c = skip_blanks(l);

	t->at = l->at;
	t->is_glued = false;
	if (l->at == l->len) {
		t->kind = SQL_TOKEN_END;
		t->end = t->at;
		return;
	}
	switch (c) {
	case C_LETTER:
		lex_word(l, t);
		break;
	case C_DIGIT:
		lex_number(l, t);
		break;
	case C_DOLLAR:
		lex_dollar(l, t);
		break;
	case C_QUOTE:
		t->kind = SQL_TOKEN_STRING;
		l->at = quote_end(l, l->at + 1, '\'', false);
		break;
	case C_DOUBLE:
		t->kind = SQL_TOKEN_QUOTED;
		l->at = quote_end(l, l->at + 1, '"', false);
		break;
	case C_OP:
		lex_operator(l, t);
		break;
	case C_DOT:
		if (class_at(l, l->at + 1) == C_DIGIT) {
			lex_number(l, t);
			break;
		}
		t->kind = SQL_TOKEN_PUNCT;
		l->at += byte_at(l, l->at + 1) == '.' ? 2 : 1;
		break;
	case C_COLON:
		lex_colon(l, t);
		break;
	case C_MARK:
		t->kind = SQL_TOKEN_PUNCT;
		l->at++;
		break;
	case C_SPACE:
	case C_RUBBISH:
		t->kind = SQL_TOKEN_RUBBISH;
		l->at++;
		break;
	}
	t->end = l->at;
}

bool
sql_token_is(const struct sql_lexer *l, const struct sql_token *t, const char *word)
{
	const char *p = l->text + t->at;
	uint32_t len = t->end - t->at;

	if (t->kind != SQL_TOKEN_WORD)
		return (false);
	for (uint32_t i = 0; i < len; i++)
		if (word[i] == '\0' || sql_lower[(uint8_t)p[i]] != (uint8_t)word[i])
			return (false);
	return (word[len] == '\0');
}

bool
sql_token_is_mark(const struct sql_lexer *l, const struct sql_token *t, const char *mark)
{
	uint32_t len = t->end - t->at;

	return ((t->kind == SQL_TOKEN_PUNCT || t->kind == SQL_TOKEN_OP) &&
		strlen(mark) == len && memcmp(l->text + t->at, mark, len) == 0);
}
