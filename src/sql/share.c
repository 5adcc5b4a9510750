/*
 * Whether a statement means the same whenever and by whomever it is read, so that one reading
 * serves many clients: from tokens alone. Constants are the trouble: 'now' is the time of its
 * reading.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

static bool
is_one_of(const struct sql_lexer *l, const struct sql_token *t, const char *const *words)
{
	for (; *words != NULL; words++)
		if (sql_token_is(l, t, *words))
			return (true);
	return (false);
}

static bool
is_letter(char c)
{
	return (sql_lower[(uint8_t)c] >= 'a' && sql_lower[(uint8_t)c] <= 'z');
}

/* Whether a date or time may be read from the text that is another one each time: the words may
 * stand anywhere in it, as in '10:00 today'. */
static bool
says_time(const char *s)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};

	for (const char *p = s; *p != '\0'; p++) {
		if (p > s && is_letter(p[-1]))
			continue;
		for (size_t i = 0; i < ARRAY_LEN(words); i++) {
			size_t k = 0;

			while (words[i][k] != '\0' &&
			       sql_lower[(uint8_t)p[k]] == (uint8_t)words[i][k])
				k++;
			if (words[i][k] == '\0' && !is_letter(p[k]))
				return (true);
		}
	}
	return (false);
}

static bool
string_is_constant(const struct sql_lexer *l, const struct sql_token *t)
{
	char *value;
	bool is_constant;

	/* UESCAPE may follow. */
	if (l->text[t->at] == 'U' || l->text[t->at] == 'u')
		return (false);
	value = sql_string_value(l, t);
	is_constant = value != NULL && !says_time(value);
	free(value);
	return (is_constant);
}

enum sql_share
sql_share(const char *text, size_t len)
{
	static const char *const shared[] = {
	    "select", "insert", "update", "delete", "merge", "with", "values", NULL};
	/* Others define nothing, or their tags say so. */
	static const char *const harmless[] = {"begin", "start", "commit", "end",
	    "rollback", "abort", "savepoint", "release", "set", "reset", "show", "fetch",
	    "move", "close", "declare", "copy", "lock", "listen", "notify", "unlisten",
	    "vacuum", "analyze", "truncate", "discard", "deallocate", "do", "call",
	    "alter", "drop", "table", "prepare", "execute", NULL};
	struct sql_lexer l = {.text = text, .len = (uint32_t)len};
	struct sql_token t;
	bool is_insert = false, is_constant = memchr(text, '\\', len) == NULL;

	do
		sql_lex(&l, &t);
	while (sql_token_is_mark(&l, &t, "("));
	if (t.kind == SQL_TOKEN_END || is_one_of(&l, &t, harmless))
		return (SQL_SHARE_NOT);
	is_constant &= is_one_of(&l, &t, shared);
	if (!is_one_of(&l, &t, shared) && !sql_token_is(&l, &t, "explain"))
		return (SQL_SHARE_DEFINES);
	for (; t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		/* SELECT … INTO, and EXPLAIN ANALYZE CREATE TABLE … AS, make a table. */
		if (sql_token_is(&l, &t, "create") ||
		    (!is_insert && sql_token_is(&l, &t, "into")))
			return (SQL_SHARE_DEFINES);
		is_insert =
		    sql_token_is(&l, &t, "insert") || sql_token_is(&l, &t, "merge");
		if (t.kind == SQL_TOKEN_STRING)
			is_constant = is_constant && string_is_constant(&l, &t);
		else if (t.kind == SQL_TOKEN_RUBBISH)
			is_constant = false;
	}
	return (is_constant && !l.is_cut ? SQL_SHARE_MAY : SQL_SHARE_NOT);
}
