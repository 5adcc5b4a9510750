/*
 * What literals and names say: unquoted, with their escapes undone. And the text of a digest.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* PostgreSQL cuts names to NAMEDATALEN - 1 bytes. */
#define NAME_BYTES 63

struct sql_lexer
sql_lexer_of(const struct sql_scan *scan)
{
	return ((struct sql_lexer){.text = scan->sql, .len = (uint32_t)scan->len});
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return (c - '0');
	c = (char)sql_lower[(uint8_t)c];
	return (c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1);
}

/* Reads exactly n hexadecimal digits; false: there are fewer. */
static bool
read_hex(const char *p, const char *end, unsigned n, uint32_t *out)
{
	*out = 0;
	if ((size_t)(end - p) < n)
		return (false);
	for (unsigned i = 0; i < n; i++) {
		int v = hex_value(p[i]);

		if (v < 0)
			return (false);
		*out = *out << 4 | (uint32_t)v;
	}
	return (true);
}

static void
add_utf8(struct buf *b, uint32_t c)
{
	uint8_t out[4];
	unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

	for (unsigned i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (uint8_t)(0x80 | (c & 0x3f));
	out[0] = (uint8_t)(lead[n] | c);
	buf_add(b, out, n);
}

/* One code point of \uXXXX and the like; surrogates come in pairs. *first keeps the first half
 * of a pair, 0 when none is open. */
static bool
add_code(struct buf *b, uint32_t c, uint32_t *first)
{
	bool is_first = c >= 0xd800 && c <= 0xdbff,
	     is_second = c >= 0xdc00 && c <= 0xdfff;

	if (c == 0 || c > 0x10ffff || is_second != (*first != 0))
		return (false);
	if (is_first) {
		*first = c;
		return (true);
	}
	if (is_second)
		c = 0x10000 + ((*first & 0x3ff) << 10) + (c & 0x3ff);
	*first = 0;
	add_utf8(b, c);
	return (true);
}

/* ---- '…', E'…', U&'…' ---- */

enum escapes { ESCAPES_NONE, ESCAPES_BACKSLASH, ESCAPES_UNICODE };

struct unquote {
	const char *at, *end; /* behind the opening quote; the end of the token */
	char quote;
	enum escapes escapes;
	char escape; /* of U&: backslash, or what UESCAPE says */
	struct buf out;
	uint32_t first; /* half of a surrogate pair */
};

/* Up to three octal digits, as a byte. */
static void
take_octal(struct unquote *u)
{
	unsigned value = 0;

	for (int i = 0; i < 3 && u->at < u->end && *u->at >= '0' && *u->at <= '7'; i++)
		value = value * 8 + (unsigned)(*u->at++ - '0');
	buf_add(&u->out, &(uint8_t){(uint8_t)value}, 1);
}

/* \x and one or two digits, as a byte; without digits it is an x. */
static void
take_hex_byte(struct unquote *u)
{
	unsigned value = 0;
	int n = 0;

	while (n < 2 && u->at < u->end && hex_value(*u->at) >= 0) {
		value = value * 16 + (unsigned)hex_value(*u->at++);
		n++;
	}
	buf_add(&u->out, n == 0 ? &(uint8_t){'x'} : &(uint8_t){(uint8_t)value}, 1);
}

/* Behind a backslash of E'…'. */
static bool
take_backslash(struct unquote *u)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *known;
	uint32_t code;
	char c;

	if (u->at == u->end)
		return (false);
	c = *u->at;
	if (c >= '0' && c <= '7') {
		take_octal(u);
		return (u->first == 0);
	}
	u->at++;
	if (c == 'u' || c == 'U') {
		unsigned n = c == 'u' ? 4 : 8;

		if (!read_hex(u->at, u->end, n, &code))
			return (false);
		u->at += n;
		return (add_code(&u->out, code, &u->first));
	}
	if (u->first != 0)
		return (false);
	if (c == 'x') {
		take_hex_byte(u);
		return (true);
	}
	known = c == '\0' ? NULL : strchr(from, c);
	buf_add(&u->out, known == NULL ? &c : to + (known - from), 1);
	return (true);
}

/* Behind the escape of U&'…': four digits, + and six, or the escape itself. */
static bool
take_unicode(struct unquote *u)
{
	uint32_t code;
	unsigned n = 4;

	if (u->at < u->end && *u->at == u->escape) {
		buf_add(&u->out, u->at++, 1);
		return (u->first == 0);
	}
	if (u->at < u->end && *u->at == '+') {
		u->at++;
		n = 6;
	}
	if (!read_hex(u->at, u->end, n, &code))
		return (false);
	u->at += n;
	return (add_code(&u->out, code, &u->first));
}

/* At a quote inside the token: doubled, the end, or the break before the string goes on.
 * *ends: it has ended. */
static void
take_quote(struct unquote *u, bool *ends)
{
	u->at++;
	if (u->at < u->end && *u->at == u->quote) {
		buf_add(&u->out, u->at++, 1);
		return;
	}
	while (u->at < u->end && *u->at != u->quote) {
		bool is_comment = *u->at == '-' && u->at + 1 < u->end && u->at[1] == '-';

		while (is_comment && u->at < u->end && *u->at != '\n' && *u->at != '\r')
			u->at++;
		u->at += u->at < u->end;
	}
	*ends = u->at == u->end;
	u->at += u->at < u->end;
}

/* The value, or NULL for a broken escape or a NUL. */
static char *
unquote(struct unquote *u)
{
	bool is_good = true, ends = false;
	char *value;

	while (is_good && !ends && u->at < u->end) {
		char c = *u->at;

		if (c == u->quote) {
			is_good = u->first == 0;
			take_quote(u, &ends);
		} else if (u->escapes == ESCAPES_BACKSLASH && c == '\\') {
			u->at++;
			is_good = take_backslash(u);
		} else if (u->escapes == ESCAPES_UNICODE && c == u->escape) {
			u->at++;
			is_good = take_unicode(u);
		} else {
			is_good = u->first == 0;
			buf_add(&u->out, u->at++, 1);
		}
	}
	is_good = is_good && ends && u->first == 0 &&
		  (u->out.len == 0 || memchr(u->out.mem, '\0', u->out.len) == NULL);
	value = is_good ? mem_strn((char *)u->out.mem, u->out.len) : NULL;
	buf_free(&u->out);
	return (value);
}

/* What UESCAPE behind a U& token says, or a backslash; '\0' when that is not allowed. */
static char
escape_of(const struct sql_lexer *l, const struct sql_token *t)
{
	struct sql_lexer behind = *l;
	struct sql_token word;
	char c;

	behind.at = t->end;
	sql_lex(&behind, &word);
	if (!sql_token_is(&behind, &word, "uescape"))
		return ('\\');
	sql_lex(&behind, &word);
	if (word.kind != SQL_TOKEN_STRING || word.end - word.at != 3 ||
	    behind.text[word.at] != '\'')
		return ('\0');
	c = behind.text[word.at + 1];
	return (hex_value(c) >= 0 || strchr("+'\" \t\n\r\f", c) != NULL ? '\0' : c);
}

static char *
dollar_value(const char *p, uint32_t len)
{
	const char *close = memchr(p + 1, '$', len - 1);
	size_t tag = close == NULL ? 0 : (size_t)(close - p) + 1;

	if (tag == 0 || len < 2 * tag || memchr(p, '\0', len) != NULL)
		return (NULL);
	return (mem_strn(p + tag, len - 2 * tag));
}

char *
sql_string_value(const struct sql_lexer *l, const struct sql_token *t)
{
	const char *p = l->text + t->at;
	struct unquote u = {.end = l->text + t->end, .quote = '\''};

	switch (*p) {
	case '$':
		return (dollar_value(p, t->end - t->at));
	case '\'':
		u.at = p + 1;
		break;
	case 'e':
	case 'E':
		u.escapes = ESCAPES_BACKSLASH;
		u.at = p + 2;
		break;
	case 'u':
	case 'U':
		u.escapes = ESCAPES_UNICODE;
		u.escape = escape_of(l, t);
		u.at = p + 3;
		if (u.escape == '\0')
			return (NULL);
		break;
	default:
		return (NULL);
	}
	return (unquote(&u));
}

/* Cuts a name that is too long, not inside of a character. */
static void
cut_name(char *name)
{
	size_t len = strlen(name);

	if (len <= NAME_BYTES)
		return;
	len = NAME_BYTES;
	while (len > 0 && ((uint8_t)name[len] & 0xc0) == 0x80)
		len--;
	name[len] = '\0';
}

char *
sql_name_value(const struct sql_lexer *l, const struct sql_token *t)
{
	const char *p = l->text + t->at;
	struct unquote u = {.at = p + 1, .end = l->text + t->end, .quote = '"'};
	char *name;

	if (t->kind == SQL_TOKEN_WORD) {
		name = mem_strn(p, t->end - t->at);
		for (char *c = name; *c != '\0'; c++)
			*c = (char)sql_lower[(uint8_t)*c];
	} else if (t->kind == SQL_TOKEN_QUOTED) {
		if (*p != '"') {
			u.at = p + 3;
			u.escapes = ESCAPES_UNICODE;
			u.escape = escape_of(l, t);
			if (u.escape == '\0')
				return (NULL);
		}
		name = unquote(&u);
	} else {
		return (NULL);
	}
	if (name != NULL)
		cut_name(name);
	return (name);
}

char *
sql_literal_value(const struct sql_scan *scan, unsigned i)
{
	struct sql_lexer l = sql_lexer_of(scan);
	const struct sql_literal *lit;
	struct sql_token t = {.kind = SQL_TOKEN_STRING};

	INVARIANT(i < scan->literal_count);
	lit = &scan->literals[i];
	if (lit->kind == SQL_LIT_NUMBER)
		return (mem_strn(scan->sql + lit->at, lit->len));
	t.at = lit->at;
	t.end = lit->at + lit->len;
	return (sql_string_value(&l, &t));
}

char *
sql_digest_text(const struct sql_scan *scan)
{
	struct sql_lexer l = sql_lexer_of(scan);
	struct sql_token t;
	struct buf b = {0};
	uint32_t end = 0;
	char *text;

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		if (b.len > 0 && t.at > end)
			buf_addstr(&b, " ");
		if (t.kind == SQL_TOKEN_STRING || t.kind == SQL_TOKEN_NUMBER ||
		    t.kind == SQL_TOKEN_BITS)
			buf_addstr(&b, "$?");
		else if (scan->sql[t.at] != '\0')
			buf_add(&b, scan->sql + t.at, t.end - t.at);
		end = t.end;
	}
	text = mem_strn((char *)b.mem, b.len);
	buf_free(&b);
	return (text);
}
