/*
 * topo/hba_lines.c: a file of rules to lines, fields and words, as PostgreSQL splits them:
 *
 *     host  all,"my db"  @users.txt  10.0.0.0/8  scram-sha-256   # a comment
 *     ----  ------------ ----------  ----------  -------------
 *     blanks part fields, commas the words of one; \ at the end of a line joins it to the next;
 *     @file stands for the words of that file; include FILE for its lines
 */
#include <stdlib.h>
#include <string.h>

#include "hba.h"

#define FILE_BYTES_MAX ((size_t)16 << 20)
#define DEPTH_MAX      10 /* files in files; PostgreSQL's CONF_FILE_MAX_DEPTH */

/* A file being read. */
struct reading {
	struct topo *topo;
	struct conf_problems *problems;
	struct hba_lines *out;
	int depth;
	bool is_round; /* files name each other: no more of them are read */
	struct conf_at at;
};

static void
add_word(struct hba_field *f, const char *text, bool is_quoted)
{
	if ((f->count & (f->count - 1)) == 0)
		f->words = mem_realloc(
		    f->words, (f->count == 0 ? 1 : f->count * 2) * sizeof(*f->words));
	f->words[f->count++] = (struct hba_word){text, is_quoted};
}

static void
line_free(struct hba_line *line)
{
	for (size_t i = 0; i < line->count; i++)
		free(line->fields[i].words);
	free(line->fields);
	*line = (struct hba_line){0};
}

void
hba_lines_free(struct hba_lines *l)
{
	for (size_t i = 0; i < l->count; i++)
		line_free(&l->lines[i]);
	free(l->lines);
	*l = (struct hba_lines){0};
}

/* ---- words ---- */

static bool
is_blank(char c)
{
	return (c == ' ' || c == '\t' || c == '\r');
}

/* The next word, in place; *at moves behind it and its comma. False: the line has ended, or its
 * quote does not end (said). */
static bool
next_word(
    struct reading *r, char **at, struct hba_word *word, bool *has_comma, char **start)
{
	char *p = *at, *to;
	bool in_quotes = false;

	while (is_blank(*p) || *p == ',')
		p++;
	*has_comma = false;
	if (*p == '\0' || *p == '#') {
		*at = p + strlen(p);
		return (false);
	}
	word->is_quoted = *p == '"';
	*start = to = p;
	for (; *p != '\0'; p++) {
		if (*p == '"' && in_quotes && p[1] == '"')
			*to++ = *p++;
		else if (*p == '"')
			in_quotes = !in_quotes;
		else if (!in_quotes && (is_blank(*p) || *p == ',' || *p == '#'))
			break;
		else
			*to++ = *p;
	}
	if (in_quotes) {
		conf_problem(r->problems, r->at, "a quote (\") has no end");
		*at = p;
		return (false);
	}
	*has_comma = *p == ',';
	*at = *p == ',' ? p + 1 : p;
	if (*p == '#')
		*at = p + strlen(p);
	word->text = topo_keep(r->topo, mem_strn(*start, (size_t)(to - *start)));
	return (true);
}

static void read_file(struct reading *, const char *path, struct conf_at from,
    void (*line)(struct reading *, char *text, struct hba_field *), struct hba_field *);

/* Every word of a line of a file that @file names. */
static void
take_words(struct reading *r, char *text, struct hba_field *into)
{
	struct hba_word word;
	bool has_comma;
	char *start;

	while (next_word(r, &text, &word, &has_comma, &start))
		if (!word.is_quoted && word.text[0] == '@' && word.text[1] != '\0')
			read_file(r, word.text + 1, r->at, take_words, into);
		else
			add_word(into, word.text, word.is_quoted);
}

/* ---- lines ---- */

static struct hba_field *
add_field(struct hba_line *line)
{
	if ((line->count & (line->count - 1)) == 0)
		line->fields = mem_realloc(line->fields,
		    (line->count == 0 ? 1 : line->count * 2) * sizeof(*line->fields));
	line->fields[line->count] = (struct hba_field){0};
	return (&line->fields[line->count++]);
}

/* "include FILE": its lines stand here. */
static bool take_include(struct reading *, const struct hba_line *);

static void
take_line(struct reading *r, char *text, struct hba_field *none)
{
	struct hba_line line = {.at = r->at};
	struct hba_field *field = NULL;
	struct hba_word word;
	bool has_comma = false, goes_on;
	size_t before = r->problems->count;
	char *start;

	(void)none;
	while (goes_on = has_comma, next_word(r, &text, &word, &has_comma, &start)) {
		if (!goes_on)
			field = add_field(&line);
		if (!word.is_quoted && word.text[0] == '@' && word.text[1] != '\0')
			read_file(r, word.text + 1, r->at, take_words, field);
		else
			add_word(field, word.text, word.is_quoted);
	}
	if (line.count == 0 || r->problems->count > before || take_include(r, &line)) {
		line_free(&line);
		return;
	}
	if ((r->out->count & (r->out->count - 1)) == 0)
		r->out->lines = mem_realloc(r->out->lines,
		    (r->out->count == 0 ? 1 : r->out->count * 2) * sizeof(line));
	r->out->lines[r->out->count++] = line;
}

static bool
take_include(struct reading *r, const struct hba_line *line)
{
	const struct hba_word *first =
	    line->fields[0].count == 1 ? &line->fields[0].words[0] : NULL;

	if (first == NULL || first->is_quoted || strncmp(first->text, "include", 7) != 0)
		return (false);
	if (hba_is(first, "include_dir"))
		conf_problem(r->problems, line->at,
		    "include_dir is not supported: name each file with include");
	else if (!hba_is(first, "include") && !hba_is(first, "include_if_exists"))
		return (false);
	else if (line->count != 2 || line->fields[1].count != 1)
		conf_problem(
		    r->problems, line->at, "%s needs the name of one file", first->text);
	else
		read_file(r, line->fields[1].words[0].text, line->at, take_line,
		    hba_is(first, "include") ? NULL : &line->fields[0]);
	return (true);
}

/* Gives each line of the text to take(), those that \ joins as one. */
static void
each_line(struct reading *r, char *text, size_t len,
    void (*take)(struct reading *, char *, struct hba_field *), struct hba_field *into)
{
	char *end = text + len, *line = text, *to = text, *eol;

	r->at.line = 0;
	for (int number = 1; text < end; text = eol + 1, number++) {
		size_t n;

		eol = memchr(text, '\n', (size_t)(end - text));
		if (eol == NULL)
			eol = end;
		if (r->at.line == 0)
			r->at.line = number;
		n = (size_t)(eol - text);
		memmove(to, text, n);
		to += n;
		if (to > line && to[-1] == '\r')
			to--;
		if (to > line && to[-1] == '\\' && eol < end) {
			to--;
			continue;
		}
		*to = '\0';
		if (strlen(line) != (size_t)(to - line))
			conf_problem(r->problems, r->at, "the line has a NUL byte");
		else
			take(r, line, into);
		line = to = eol + 1;
		r->at.line = 0;
	}
	/* The last one says that it goes on. */
	if (to > line) {
		*to = '\0';
		take(r, line, into);
	}
}

/* Reads a file that another one names. take_line with `into`: it may be missing. */
static void
read_file(struct reading *r, const char *name, struct conf_at from,
    void (*take)(struct reading *, char *, struct hba_field *), struct hba_field *into)
{
	struct conf_at was = r->at;
	const char *path = topo_keep(r->topo, conf_resolve_path(from, name));
	char *text, why[256];
	size_t len;

	if (r->depth == DEPTH_MAX) {
		conf_problem(r->problems, from, "%s: files in files, more than %d deep",
		    name, DEPTH_MAX);
		r->is_round = true;
	}
	if (r->is_round)
		return;
	text = conf_read_file(path, FILE_BYTES_MAX, false, &len, why, sizeof(why));
	if (text == NULL) {
		if (take != take_line || into == NULL)
			conf_problem(r->problems, from, "cannot read %s: %s", path, why);
		return;
	}
	r->depth++;
	r->at = (struct conf_at){.file = path};
	each_line(r, text, len, take, take == take_words ? into : NULL);
	r->at = was;
	r->depth--;
	free(text);
}

void
hba_lines_read(struct topo *t, const char *path, struct conf_at at,
    struct conf_problems *problems, struct hba_lines *out)
{
	struct reading r = {.topo = t, .problems = problems, .out = out};

	read_file(&r, path, at, take_line, NULL);
}

const struct hba_word *
hba_only(const struct hba_line *line, size_t field, const char *what,
    struct conf_problems *problems)
{
	if (line->fields[field].count == 1)
		return (&line->fields[field].words[0]);
	if (line->fields[field].count == 0)
		conf_problem(problems, line->at, "the %s is missing", what);
	else
		conf_problem(problems, line->at, "the %s is one word, not a list", what);
	return (NULL);
}
