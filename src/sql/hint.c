/*
 * The hint in front of a statement: a comment whose text begins with "pgweave:", in letters
 * of either case.
 *
 *     -- pgweave: database=analytics, read_from=primary
 *     -- pgweave: databases='primary, secondary' shard_key="42"
 *
 * Words are parted by commas or blanks. A value is bare up to the next of these, or in quotes
 * of either kind, doubled inside. The list of `databases` needs no quotes: what follows it
 * without "=" belongs to it.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "private.h"

/* A comment that is longer is not read. */
#define HINT_BYTES 4096

static const char *const words[] = {
    "database", "databases", "federation", "on_unavailable", "shard_key", "read_from"};

static char **
slot_of(struct sql_hint *h, const char *word)
{
	char **const slots[] = {&h->database, &h->databases, &h->federation,
	    &h->on_unavailable, &h->shard_key, &h->read_from};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(words[i], word) == 0)
			return (slots[i]);
	return (NULL);
}

static bool
is_blank(char c)
{
	return (c == ' ' || (c >= '\t' && c <= '\r'));
}

/* What is being read: at, up to end; the hint; and the list that a word without "=" joins. */
struct reader {
	const char *at, *end;
	struct sql_hint *hint;
	char **list;
};

static void
skip_blanks(struct reader *r)
{
	while (r->at < r->end && is_blank(*r->at))
		r->at++;
}

static void
skip_parting(struct reader *r)
{
	while (r->at < r->end && (is_blank(*r->at) || *r->at == ','))
		r->at++;
}

/* The first problem is the one that is told. */
static void
set_problem(struct reader *r, char *problem)
{
	if (r->hint->problem == NULL)
		r->hint->problem = problem;
	else
		free(problem);
}

/* A value in quotes; NULL when the closing one is missing. */
static char *
take_quoted(struct reader *r)
{
	struct buf b = {0};
	char quote = *r->at++, *value;

	for (; r->at < r->end; r->at++) {
		if (*r->at == quote) {
			if (r->at + 1 == r->end || r->at[1] != quote)
				break;
			r->at++;
		}
		buf_add(&b, r->at, 1);
	}
	value = r->at < r->end ? mem_strn((char *)b.mem, b.len) : NULL;
	r->at += r->at < r->end;
	buf_free(&b);
	return (value);
}

static char *
take_bare(struct reader *r)
{
	const char *from = r->at;

	while (r->at < r->end && !is_blank(*r->at) && *r->at != ',' && *r->at != '=')
		r->at++;
	return (mem_strn(from, (size_t)(r->at - from)));
}

static char *
take_value(struct reader *r)
{
	if (r->at < r->end && (*r->at == '\'' || *r->at == '"'))
		return (take_quoted(r));
	return (take_bare(r));
}

static char *
unknown_word(const char *word)
{
	const char *near = text_nearest(word, words, ARRAY_LEN(words));
	struct buf b = {0};

	buf_addf(&b, "unknown word \"%.64s\" in a pgweave comment", word);
	if (near != NULL)
		buf_addf(&b, ", perhaps \"%s\"", near);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		buf_addf(&b, "%s%s", i == 0 ? " (there are " : ", ", words[i]);
	buf_add(&b, ")", 2);
	return ((char *)b.mem);
}

/* "name = value": the value replaces an earlier one. */
static void
take_setting(struct reader *r, const char *word)
{
	char **slot = slot_of(r->hint, word), *value;

	r->at++;
	skip_blanks(r);
	value = take_value(r);
	if (value == NULL) {
		set_problem(r,
		    mem_printf(
			"no closing quote behind \"%.64s\" in a pgweave comment", word));
		return;
	}
	if (slot == NULL) {
		set_problem(r, unknown_word(word));
		free(value);
		return;
	}
	free(*slot);
	*slot = value;
	r->list = slot == &r->hint->databases ? slot : NULL;
}

static void
take_word(struct reader *r)
{
	bool is_quoted = *r->at == '\'' || *r->at == '"';
	char *word = take_value(r), *joined;

	skip_blanks(r);
	if (word != NULL && !is_quoted && r->at < r->end && *r->at == '=') {
		for (char *p = word; *p != '\0'; p++)
			*p = (char)sql_lower[(uint8_t)*p];
		take_setting(r, word);
	} else if (word == NULL) {
		set_problem(r, mem_str("no closing quote in a pgweave comment"));
	} else if (r->list != NULL) {
		joined = mem_printf("%s,%s", *r->list, word);
		free(*r->list);
		*r->list = joined;
	} else {
		set_problem(r,
		    mem_printf("no \"=\" behind \"%.64s\" in a pgweave comment", word));
	}
	free(word);
}

bool
sql_hint_read(const char *body, size_t len, struct sql_hint **hint)
{
	static const char mark[] = "pgweave:";
	struct reader r = {.at = body, .end = body + len};

	skip_blanks(&r);
	if ((size_t)(r.end - r.at) < sizeof(mark) - 1 ||
	    strncasecmp(r.at, mark, sizeof(mark) - 1) != 0)
		return (false);
	r.at += sizeof(mark) - 1;
	if (*hint == NULL)
		*hint = mem_alloc(sizeof(**hint));
	r.hint = *hint;
	if (len > HINT_BYTES) {
		set_problem(&r,
		    mem_printf("a pgweave comment of more than %d bytes", HINT_BYTES));
		return (true);
	}
	for (skip_parting(&r); r.at < r.end; skip_parting(&r))
		take_word(&r);
	return (true);
}

void
sql_hint_free(struct sql_hint *h)
{
	if (h == NULL)
		return;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		free(*slot_of(h, words[i]));
	free(h->problem);
	free(h);
}
