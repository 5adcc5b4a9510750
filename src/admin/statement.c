/*
 * A text typed at the console to words: SQL's comments, quotes and semicolons; everything
 * else between white space is a word, but for the marks = , ( ) which are words of their own.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SPACE " \t\r\n\f\v"
#define MARKS "=,()"

/* Past a comment at p, which is there; NULL: it is open. */
static const char *
comment_end(const char *p)
{
	unsigned depth = 0;

	if (p[0] == '-')
		return (p + strcspn(p, "\n"));
	do {
		if (p[0] == '\0')
			return (NULL);
		if (p[0] == '/' && p[1] == '*') {
			depth++;
			p += 2;
		} else if (p[0] == '*' && p[1] == '/') {
			depth--;
			p += 2;
		} else
			p++;
	} while (depth > 0);
	return (p);
}

static bool
comment_begins(const char *p)
{
	return ((p[0] == '-' && p[1] == '-') || (p[0] == '/' && p[1] == '*'));
}

/* Past white space and comments; NULL: an open comment. */
static const char *
blank_end(const char *p)
{
	while (p != NULL) {
		p += strspn(p, SPACE);
		if (!comment_begins(p))
			break;
		p = comment_end(p);
	}
	return (p);
}

/* Copies what is between quotes to *to; a doubled quote is one. Past it; NULL: it is open. */
static const char *
quoted_read(const char *p, char **to)
{
	char quote = *p++;

	for (; *p != '\0'; p++) {
		if (*p == quote && *++p != quote) {
			*(*to)++ = '\0';
			return (p);
		}
		*(*to)++ = *p;
	}
	return (NULL);
}

static const char *
plain_read(const char *p, char **to)
{
	size_t len = 1;

	if (strchr(MARKS, *p) == NULL) {
		len = strcspn(p, SPACE MARKS ";\"'");
		/* A comment ends a word, as in SQL. */
		for (size_t i = 1; i < len; i++)
			if (comment_begins(p + i))
				len = i;
	}
	memcpy(*to, p, len);
	(*to)[len] = '\0';
	*to += len + 1;
	return (p + len);
}

bool
statement_read(struct statement *st, const char **sql)
{
	const char *p = blank_end(*sql);
	char *to;

	*st = (struct statement){0};
	/* A word takes its length and a NUL: at most twice the text. */
	to = st->mem = mem_alloc(2 * strlen(*sql) + 1);
	while (p != NULL && *p != '\0' && *p != ';') {
		struct word *w;

		if (st->count == WORDS_MAX)
			return (false);
		w = &st->words[st->count++];
		w->text = to;
		w->kind = *p == '"' ? WORD_QUOTED : *p == '\'' ? WORD_STRING : WORD_PLAIN;
		p = w->kind == WORD_PLAIN ? plain_read(p, &to) : quoted_read(p, &to);
		if (p != NULL)
			p = blank_end(p);
	}
	while (p != NULL && *p == ';')
		p = blank_end(p + 1);
	if (p == NULL)
		return (false);
	*sql = p;
	return (true);
}

void
statement_free(struct statement *st)
{
	free(st->mem);
	*st = (struct statement){0};
}

bool
statement_word_is(const struct statement *st, unsigned i, const char *text)
{
	return (i < st->count && st->words[i].kind == WORD_PLAIN &&
		strcasecmp(st->words[i].text, text) == 0);
}

bool
statement_begins(const struct statement *st, const char *verb)
{
	for (unsigned i = 0; *verb != '\0'; i++) {
		size_t len = strcspn(verb, " ");
		const struct word *w = &st->words[i];

		if (i >= st->count || w->kind != WORD_PLAIN || strlen(w->text) != len ||
		    strncasecmp(w->text, verb, len) != 0)
			return (false);
		verb += len;
		verb += strspn(verb, " ");
	}
	return (true);
}
