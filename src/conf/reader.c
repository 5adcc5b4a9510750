/*
 * conf/reader.c: feeds inih.
 *
 * inih as distributions build it cuts a line at 200 bytes, a name at 50 and a value at " ;".
 * So it never sees the text itself: each line becomes a short one in which a number stands
 * for the text, and inih says what is a section and what is a key of which section:
 *
 *     [database primary]            [17]          and, since a section without keys is
 *                                   @=17          silent in inih, a key of our own
 *     connect_query = 'a ; b'       k=18
 *     nonsense                      19            which inih refuses
 *
 * What a number stands for is read here: the section's kind and name, the key, the value. In
 * sections of PgBouncer's ([pgbouncer], [databases], [users], [peers]) a value is the rest of
 * the line. In all others " ;" starts a comment, and a value in single quotes ('' inside is
 * one quote) may hold anything.
 *
 * An included file stands where its %include does: also the section goes on, into the file
 * and out of it, as in PgBouncer.
 */
#include "reader.h"

#include <ctype.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define INCLUDE_DEPTH_MAX 10
#define INCLUDE_COUNT_MAX 1000
#define FILE_SIZE_MAX     ((size_t)64 << 20)

/* A file being read; up: the one that includes it. */
struct source {
	struct source *up;
	struct conf_at at; /* the line read last */
	char *text;        /* owned, but for the outermost */
	const char *pos, *end;
	dev_t dev;
	ino_t ino;
};

/* What the number last given to inih stands for. */
enum pending { PENDING_NONE, PENDING_SECTION, PENDING_KEY, PENDING_NONSENSE };

struct reader {
	const struct reader_sink *sink;
	struct keep *keep;
	struct conf_problems *problems;
	struct source *top;
	int depth, includes;
	bool without_includes;
	enum pending pending;
	uint64_t number;
	bool wants_marker; /* the "@=" line comes next */
	bool is_lost;      /* after a broken section line: keys belong nowhere */
	bool in_section;
	bool is_plain;    /* PgBouncer's section: a value is the rest of the line */
	bool is_one_line; /* a section of one-line forms, which topo takes apart */
	struct conf_at at;
	char *line;  /* the pending line, trimmed; owned */
	char *equal; /* the = in it, of a key */
};

/* ---- strings to be kept ---- */

const char *
keep_add(struct keep *k, char *s)
{
	if (k->count == k->cap) {
		k->cap = k->cap == 0 ? 64 : k->cap * 2;
		k->items = mem_realloc(k->items, k->cap * sizeof(*k->items));
	}
	k->items[k->count++] = s;
	return (s);
}

void
keep_free(struct keep *k)
{
	for (size_t i = 0; i < k->count; i++)
		mem_free_secret(k->items[i], strlen(k->items[i]));
	free(k->items);
	*k = (struct keep){0};
}

/* ---- text ---- */

static char *
trim(char *s)
{
	size_t len;

	while (isspace((unsigned char)*s))
		s++;
	for (len = strlen(s); len > 0 && isspace((unsigned char)s[len - 1]); len--)
		s[len - 1] = '\0';
	return (s);
}

/* Takes the quotes off "a""b" in place; false when it is not quoted as a whole. */
static bool
unquote(char *s, char quote)
{
	char *to = s, *p = s + 1;

	for (; *p != '\0'; p++) {
		if (*p == quote && *++p != quote) {
			*to = '\0';
			return (*p == '\0');
		}
		*to++ = *p;
	}
	return (false);
}

/* The first c that does not stand in double quotes, or NULL. */
static char *
find_bare(char *s, char c)
{
	bool in_quotes = false;

	for (; *s != '\0'; s++) {
		if (*s == '"')
			in_quotes = !in_quotes;
		else if (*s == c && !in_quotes)
			return (s);
	}
	return (NULL);
}

/* Ends the text at the ; that stands first or behind white space. */
static void
cut_comment(char *s)
{
	for (char *p = s; *p != '\0'; p++) {
		if (*p == ';' && (p == s || isspace((unsigned char)p[-1]))) {
			*p = '\0';
			return;
		}
	}
}

/* A value of a section of our own, in place: without its comment and quotes. NULL: its
 * quotes are wrong. */
static char *
own_value(char *s)
{
	char *p = s, *end = NULL;

	if (*p != '\'') {
		cut_comment(s);
		return (trim(s));
	}
	for (p++; *p != '\0' && end == NULL; p++) {
		if (*p == '\'' && p[1] == '\'')
			p++;
		else if (*p == '\'')
			end = p + 1;
	}
	if (end == NULL)
		return (NULL);
	p = end;
	while (isspace((unsigned char)*p))
		p++;
	if (*p != '\0' && (*p != ';' || p == end))
		return (NULL);
	*end = '\0';
	return (unquote(s, '\'') ? s : NULL);
}

/* ---- files ---- */

static void
source_pop(struct reader *r)
{
	struct source *s = r->top;

	r->top = s->up;
	r->depth--;
	if (s->text != NULL)
		mem_free_secret(s->text, (size_t)(s->end - s->text));
	free(s);
}

static void
source_push(struct reader *r, const char *file, char *owned, const char *text, size_t len)
{
	struct source *s = mem_alloc(sizeof(*s));
	struct stat st;

	s->up = r->top;
	s->at = (struct conf_at){.file = file};
	s->text = owned;
	s->pos = text;
	s->end = text + len;
	if (stat(file, &st) == 0) {
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		s->pos += 3;
	r->top = s;
	r->depth++;
}

static bool
is_being_read(const struct reader *r, const char *file)
{
	struct stat st;

	if (stat(file, &st) != 0)
		return (false);
	for (const struct source *s = r->top; s != NULL; s = s->up) {
		if (s->dev == st.st_dev && s->ino == st.st_ino)
			return (true);
	}
	return (false);
}

/* line: "%include FILE". */
static void
reader_include(struct reader *r, char *line)
{
	struct conf_at at = r->top->at;
	const char *file;
	char *name, *text, why[256];
	size_t len;

	if (strncasecmp(line, "%include", 8) != 0 || !isspace((unsigned char)line[8])) {
		conf_problem(r->problems, at, "%%: only %%include FILE may follow");
		return;
	}
	if (r->without_includes) {
		conf_problem(r->problems, at, "%%include: not possible here");
		return;
	}
	name = conf_expand(trim(line + 8), "%include", at, r->problems);
	file = keep_add(r->keep, conf_resolve_path(at, name));
	free(name);
	if (is_being_read(r, file)) {
		conf_problem(r->problems, at, "%%include: %s includes itself", file);
	} else if (r->depth > INCLUDE_DEPTH_MAX) {
		conf_problem(r->problems, at, "%%include: more than %d files deep",
		    INCLUDE_DEPTH_MAX);
	} else if (++r->includes > INCLUDE_COUNT_MAX) {
		/* Said once; every further one would be refused as well. */
		if (r->includes == INCLUDE_COUNT_MAX + 1)
			conf_problem(r->problems, at, "%%include: more than %d files",
			    INCLUDE_COUNT_MAX);
	} else {
		text = conf_read_file(file, FILE_SIZE_MAX, false, &len, why, sizeof(why));
		if (text == NULL)
			conf_problem(
			    r->problems, at, "%%include: cannot read %s: %s", file, why);
		else
			source_push(r, file, text, text, len);
	}
}

/* The next line that is neither empty nor a comment, trimmed; NULL at the end of all. The
 * caller frees *whole. */
static char *
next_line(struct reader *r, char **whole)
{
	while (r->top != NULL) {
		struct source *s = r->top;
		const char *end;
		size_t len;
		char *line;

		if (s->pos >= s->end) {
			source_pop(r);
			continue;
		}
		end = memchr(s->pos, '\n', (size_t)(s->end - s->pos));
		len = (size_t)((end != NULL ? end : s->end) - s->pos);
		s->at.line++;
		if (memchr(s->pos, '\0', len) != NULL)
			conf_problem(r->problems, s->at, "the line has a NUL byte");
		*whole = mem_strn(s->pos, len);
		s->pos = end != NULL ? end + 1 : s->end;
		line = trim(*whole);
		if (*line == '%') {
			reader_include(r, line);
		} else if (*line != '\0' && *line != ';' && *line != '#') {
			r->at = s->at;
			return (line);
		}
		mem_free_secret(*whole, strlen(*whole));
	}
	return (NULL);
}

/* ---- between the lines and inih ---- */

static void
forget_line(struct reader *r)
{
	if (r->line != NULL)
		mem_free_secret(r->line, strlen(r->line));
	r->line = r->equal = NULL;
	r->pending = PENDING_NONE;
}

/* inih did not take the pending line: says so. */
static void
reader_missed(struct reader *r)
{
	if (r->pending == PENDING_SECTION) {
		conf_problem(
		    r->problems, r->at, "the ] behind the section's name is missing");
		r->is_lost = true;
	} else if (r->pending != PENDING_NONE) {
		/* Not more of it: it may be part of a secret. */
		int len = (int)strcspn(r->line, " \t=");

		conf_problem(r->problems, r->at,
		    "\"%.*s\": expected \"key = value\" or \"[section]\"",
		    len < 40 ? len : 40, r->line);
	}
	forget_line(r);
}

/* inih's reader: fgets() over the lines made up for it. */
static char *
reader_feed(char *to, int size, void *arg)
{
	struct reader *r = arg;
	char *whole, *line;

	INVARIANT(size > 32);
	if (r->wants_marker) {
		r->wants_marker = false;
		snprintf(to, (size_t)size, "@=%" PRIu64 "\n", r->number);
		return (to);
	}
	reader_missed(r);
	line = next_line(r, &whole);
	if (line == NULL)
		return (NULL);
	r->number++;
	r->line = mem_str(line);
	mem_free_secret(whole, strlen(whole));
	r->equal = find_bare(r->line, '=');
	if (r->line[0] == '[') {
		r->pending = PENDING_SECTION;
		r->wants_marker = true;
		snprintf(to, (size_t)size, "[%" PRIu64 "%s\n", r->number,
		    find_bare(r->line, ']') != NULL ? "]" : "");
	} else if (r->equal != NULL && r->equal != r->line) {
		r->pending = PENDING_KEY;
		snprintf(to, (size_t)size, "k=%" PRIu64 "\n", r->number);
	} else {
		r->pending = PENDING_NONSENSE;
		snprintf(to, (size_t)size, "%" PRIu64 "\n", r->number);
	}
	return (to);
}

/* line: "[kind name] ; comment". */
static void
take_section(struct reader *r)
{
	static const char *const plain[] = {"pgbouncer", "databases", "users", "peers"};
	char *close = find_bare(r->line, ']'), *rest, *kind, *name;

	*close = '\0';
	rest = trim(close + 1);
	if (*rest != '\0' && *rest != ';' && *rest != '#')
		conf_problem(r->problems, r->at, "\"%.40s\": nothing may follow ]", rest);
	kind = trim(r->line + 1);
	name = kind + strcspn(kind, " \t");
	if (*name != '\0') {
		*name = '\0';
		name = trim(name + 1);
	}
	for (char *p = kind; *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	if (*name == '"' && !unquote(name, '"'))
		conf_problem(r->problems, r->at, "the closing \" of the name is missing");
	r->is_lost = false;
	r->in_section = true;
	r->is_plain = r->is_one_line = false;
	for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
		if (strcmp(kind, plain[i]) == 0) {
			r->is_plain = true;
			r->is_one_line = i > 0;
		}
	}
	r->sink->section(r->sink->arg, keep_add(r->keep, mem_str(kind)),
	    keep_add(r->keep, mem_str(name)), r->at);
}

static void
take_key(struct reader *r)
{
	char *key, *value, *copy;
	const char *kept;

	*r->equal = '\0';
	key = trim(r->line);
	value = trim(r->equal + 1);
	if (r->is_lost)
		return;
	if (!r->in_section) {
		conf_problem(r->problems, r->at,
		    "%s: stands before any section, [pgweave] must come first", key);
		return;
	}
	if (r->is_one_line && *key == '"' && !unquote(key, '"')) {
		conf_problem(r->problems, r->at, "the closing \" of the name is missing");
		return;
	}
	if (!r->is_plain) {
		value = own_value(value);
		if (value == NULL) {
			conf_problem(r->problems, r->at,
			    "%s: the closing ' is missing, or text follows it ('' stands for ')",
			    key);
			return;
		}
	}
	kept = keep_add(r->keep, mem_str(key));
	copy = r->is_one_line ? mem_str(value)
			      : conf_expand(value, kept, r->at, r->problems);
	r->sink->key(r->sink->arg, kept, keep_add(r->keep, copy), r->at);
}

/* inih's handler: what it made of the line pending. */
static int
reader_take(void *arg, const char *section, const char *name, const char *value)
{
	struct reader *r = arg;

	if (value == NULL || strtoull(value, NULL, 10) != r->number)
		return (1);
	if (r->pending == PENDING_SECTION && *name == '@') {
		if (strcmp(section, value) != 0)
			return (1);
		take_section(r);
		forget_line(r);
	} else if (r->pending == PENDING_KEY && *name == 'k') {
		take_key(r);
		forget_line(r);
	}
	return (1);
}

void
reader_run(const char *file, const char *text, size_t len, bool without_includes,
    const struct reader_sink *sink, struct keep *keep, struct conf_problems *problems)
{
	struct reader r = {.sink = sink,
	    .keep = keep,
	    .problems = problems,
	    .without_includes = without_includes};

	source_push(&r, file, NULL, text, len);
	/* The line of the first error, which it answers, is known to us with its file. */
	(void)ini_parse_stream(reader_feed, &r, reader_take, &r);
	reader_missed(&r);
	INVARIANT(r.top == NULL);
}
