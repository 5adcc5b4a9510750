/*
 * :name parameters. The walker knows as much of SQL as tells where a colon is none of them:
 *
 *     'it''s'  E'it\'s'  "name"  $tag$ … $tag$  -- …  / * … (nested) … * /  a::int  x := 1  t[1:2]
 */
#include "body.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A name that has come. */
struct seen {
	struct table_node node;
	const char *name; /* in the statement */
	size_t len;
	unsigned number;
};

struct walk {
	const char *at;
	struct buf *out, *names;
	struct table seen;
	unsigned count;
	struct refusal *why;
};

static bool
starts_name(char c)
{
	return (isalpha((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80);
}

static bool
goes_on(char c)
{
	return (starts_name(c) || isdigit((unsigned char)c));
}

/* Copies up to `to`. */
static void
walk_pass(struct walk *w, const char *to)
{
	buf_add(w->out, w->at, (size_t)(to - w->at));
	w->at = to;
}

/* Behind a quoted text that begins at p. One that does not end goes to the end. */
static const char *
quote_end(const char *p, bool knows_backslash)
{
	char quote = *p++;

	while (*p != '\0') {
		if (*p == quote && p[1] != quote)
			return (p + 1);
		if ((*p == quote || (*p == '\\' && knows_backslash)) && p[1] != '\0')
			p++;
		p++;
	}
	return (p);
}

static const char *
comment_end(const char *p)
{
	unsigned depth = 1;

	for (p += 2; *p != '\0' && depth > 0; p++) {
		if (p[0] == '/' && p[1] == '*') {
			depth++;
			p++;
		} else if (p[0] == '*' && p[1] == '/') {
			depth--;
			p++;
		}
	}
	return (p);
}

/* Behind a dollar-quoted text; p itself when none begins there. */
static const char *
dollar_end(const char *p)
{
	const char *tag = p + 1, *end;
	char mark[72];
	int n;

	if (starts_name(*tag))
		while (goes_on(*tag))
			tag++;
	if (*tag != '$')
		return (p);
	n = snprintf(mark, sizeof(mark), "%.*s", (int)(tag + 1 - p), p);
	/* PostgreSQL takes longer tags too; nobody writes them. */
	if (n < 0 || (size_t)n >= sizeof(mark))
		return (tag + strlen(tag));
	end = strstr(tag + 1, mark);
	return (end != NULL ? end + n : tag + strlen(tag));
}

static bool
is_seen(const struct table_node *node, const void *key)
{
	const struct seen *a = CONTAINER_OF(node, struct seen, node), *b = key;

	return (a->len == b->len && memcmp(a->name, b->name, a->len) == 0);
}

static unsigned
walk_number(struct walk *w, const char *name, size_t len)
{
	uint64_t hash = hash_bytes(name, len);
	struct seen wanted = {.name = name, .len = len}, *s;
	struct table_node *node = table_find(&w->seen, hash, is_seen, &wanted);

	if (node != NULL)
		return (CONTAINER_OF(node, struct seen, node)->number);
	s = mem_alloc(sizeof(*s));
	*s = wanted;
	s->number = ++w->count;
	table_add(&w->seen, &s->node, hash);
	buf_add(w->names, name, len);
	buf_add(w->names, "", 1);
	return (s->number);
}

static void
seen_free(struct table *seen)
{
	struct table_node *node, *next;

	for (node = table_first(seen); node != NULL; node = next) {
		next = table_next(seen, node);
		free(CONTAINER_OF(node, struct seen, node));
	}
	table_free(seen);
}

static int
walk_name(struct walk *w)
{
	const char *name = w->at + 1, *end = name;

	while (goes_on(*end))
		end++;
	buf_addf(w->out, "$%u", walk_number(w, name, (size_t)(end - name)));
	w->at = end;
	if (w->count <= BODY_PARAMS_MAX)
		return (0);
	return (body_refuse(
	    w->why, "22023", "a statement has at most %d parameters", BODY_PARAMS_MAX));
}

/* A word, with the string behind it where it is a prefix of one (E'…'). */
static void
walk_word(struct walk *w)
{
	const char *p = w->at;

	while (goes_on(*p) || *p == '$')
		p++;
	if (*p == '\'')
		p = quote_end(p, p - w->at == 1 && (*w->at == 'E' || *w->at == 'e'));
	walk_pass(w, p);
}

static int
walk_dollar(struct walk *w)
{
	const char *end = dollar_end(w->at);

	if (isdigit((unsigned char)w->at[1]))
		return (body_refuse(w->why, "22023",
		    "with \"params\" an object, the query has :name parameters, and not "
		    "$%c",
		    w->at[1]));
	walk_pass(w, end > w->at ? end : end + 1);
	return (0);
}

/* One step: a quoted part, a word, a parameter, or a single character. */
static int
walk_step(struct walk *w)
{
	const char *p = w->at;

	if (starts_name(*p))
		walk_word(w);
	else if (*p == '\'' || *p == '"')
		walk_pass(w, quote_end(p, false));
	else if (p[0] == '-' && p[1] == '-')
		walk_pass(w, p + strcspn(p, "\r\n"));
	else if (p[0] == '/' && p[1] == '*')
		walk_pass(w, comment_end(p));
	else if (*p == '$')
		return (walk_dollar(w));
	else if (p[0] == ':' && (p[1] == ':' || p[1] == '='))
		walk_pass(w, p + 2);
	else if (*p == ':' && starts_name(p[1]))
		return (walk_name(w));
	else
		walk_pass(w, p + 1);
	return (0);
}

int
names_to_numbers(const char *sql, struct buf *out, struct buf *names, unsigned *count,
    struct refusal *why)
{
	struct walk w = {.at = sql, .out = out, .names = names, .why = why};
	int rc = 0;

	while (*w.at != '\0' && rc == 0)
		rc = walk_step(&w);
	seen_free(&w.seen);
	*count = w.count;
	return (rc);
}
