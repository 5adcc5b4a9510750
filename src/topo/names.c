/*
 * topo/names.c: lists of names, names of tables and the patterns of them, and the sentence
 * about a name that is not there.
 *
 * A name of a table is PostgreSQL's: letters without quotes are folded to lower case, "Quoted"
 * ones are kept. A * outside quotes stands for any text. What has one is kept as a pattern in
 * which \ stands before each * and \ that means itself.
 */
#include "inner.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define ALLOWED_SHOWN 12

/* ---- lists ---- */

static bool
is_blank(char c)
{
	return (c == ' ' || c == '\t');
}

bool
list_next(const char **at, const char **piece, size_t *len)
{
	while (**at != '\0') {
		const char *p = *at, *end;
		bool in_quotes = false;

		for (end = p; *end != '\0' && (*end != ',' || in_quotes); end++)
			in_quotes ^= *end == '"';
		*at = end + (*end == ',');
		while (p < end && is_blank(*p))
			p++;
		while (end > p && is_blank(end[-1]))
			end--;
		*piece = p;
		*len = (size_t)(end - p);
		if (*len > 0)
			return (true);
	}
	return (false);
}

/* A copy without the quotes around the whole, if there are. */
static char *
piece_text(const char *piece, size_t len)
{
	char *text = mem_strn(piece, len), *to = text;

	if (len < 2 || piece[0] != '"' || piece[len - 1] != '"')
		return (text);
	for (size_t i = 1; i < len - 1; i++) {
		*to++ = piece[i];
		if (piece[i] == '"' && piece[i + 1] == '"' && i + 1 < len - 1)
			i++;
	}
	*to = '\0';
	return (text);
}

void
list_add(struct name_list *list, const char *name)
{
	if ((list->count & (list->count - 1)) == 0)
		list->names = mem_realloc(list->names,
		    (list->count == 0 ? 1 : list->count * 2) * sizeof(*list->names));
	list->names[list->count++] = name;
}

void
list_read(struct strings *keep, const char *text, struct name_list *list)
{
	const char *piece;
	size_t len;

	while (list_next(&text, &piece, &len))
		list_add(list, strings_keep(keep, piece_text(piece, len)));
}

bool
list_has(const struct name_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->names[i], name) == 0)
			return (true);
	}
	return (false);
}

/* ---- names of tables ---- */

/* One part of a name on its way. */
struct part {
	struct buf plain, pattern;
	bool is_pattern;
};

static void
part_add(struct part *p, char c, bool is_literal)
{
	buf_add(&p->plain, &c, 1);
	if (is_literal && (c == '*' || c == '\\'))
		buf_addstr(&p->pattern, "\\");
	buf_add(&p->pattern, &c, 1);
	p->is_pattern |= !is_literal && c == '*';
}

/* Reads up to a dot or the end. NULL, or what is wrong. */
static const char *
part_read(struct part *p, const char **at, const char *end)
{
	bool in_quotes = false;

	for (; *at < end && (in_quotes || **at != '.'); (*at)++) {
		char c = **at;

		if (c == '"' && in_quotes && *at + 1 < end && (*at)[1] == '"') {
			part_add(p, '"', true);
			(*at)++;
		} else if (c == '"') {
			in_quotes = !in_quotes;
		} else if (in_quotes) {
			part_add(p, c, true);
		} else if (isspace((unsigned char)c)) {
			return ("has a blank outside double quotes");
		} else {
			part_add(p, (char)tolower((unsigned char)c), c != '*');
		}
	}
	if (in_quotes)
		return ("lacks the closing \"");
	return (p->plain.len > 0 ? NULL : "has an empty part");
}

static const char *
part_text(struct strings *keep, struct part *p, bool is_exact)
{
	struct buf *b = is_exact ? &p->plain : &p->pattern;

	return (strings_keep(keep, mem_strn((const char *)b->mem, b->len)));
}

const char *
table_name_read(
    struct strings *keep, const char *piece, size_t len, struct table_name *out)
{
	const char *at = piece, *end = piece + len, *wrong = NULL;
	struct part parts[2] = {0};
	size_t count = 0;

	*out = (struct table_name){.text = strings_keep(keep, mem_strn(piece, len))};
	while (wrong == NULL) {
		if (count == ARRAY_LEN(parts)) {
			wrong = "has too many parts";
			break;
		}
		wrong = part_read(&parts[count++], &at, end);
		if (at == end)
			break;
		at++;
	}
	if (wrong == NULL) {
		out->is_exact = !parts[0].is_pattern && !parts[1].is_pattern;
		out->table = part_text(keep, &parts[count - 1], out->is_exact);
		if (count == 2)
			out->schema = part_text(keep, &parts[0], out->is_exact);
	}
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		buf_free(&parts[i].plain);
		buf_free(&parts[i].pattern);
	}
	return (wrong);
}

const char *
schema_or_public(const char *schema)
{
	return (schema != NULL ? schema : "public");
}

/* ---- patterns ---- */

#define ANY_TEXT 256 /* what a * outside quotes reads as */

/* The next character of a pattern, or of a name; 0: the end. */
static int
next_char(const char **at, bool is_pattern)
{
	unsigned char c = (unsigned char)**at;

	if (c == '\0')
		return (0);
	(*at)++;
	if (!is_pattern)
		return (c);
	if (c == '*')
		return (ANY_TEXT);
	if (c == '\\' && **at != '\0')
		return ((unsigned char)*(*at)++);
	return (c);
}

/* A * of the pattern takes in anything, also a * of the other; that one is taken in by
 * nothing else. */
static bool
glob(const char *pattern, const char *other, bool is_pattern)
{
	const char *behind_star = NULL, *retry = NULL;

	for (;;) {
		const char *p = pattern, *o = other;
		int want = next_char(&p, true), have = next_char(&o, is_pattern);

		if (want == ANY_TEXT) {
			behind_star = pattern = p;
			retry = other;
			continue;
		}
		if (want == have && have != ANY_TEXT) {
			if (have == 0)
				return (true);
			pattern = p;
			other = o;
			continue;
		}
		/* The last * takes in one more. */
		if (behind_star == NULL || next_char(&retry, is_pattern) == 0)
			return (false);
		pattern = behind_star;
		other = retry;
	}
}

bool
pattern_matches(const char *pattern, const char *name)
{
	return (glob(pattern, name, false));
}

bool
pattern_covers(const char *pattern, const char *other)
{
	return (glob(pattern, other, true));
}

/* ---- names that are not there ---- */

char *
name_unknown(const char *what, const char *name, const struct name_list *allowed)
{
	const char *near = text_nearest(name, allowed->names, allowed->count);
	struct buf b = {0};
	char *sentence;

	buf_addf(&b, "there is no %s \"%.80s\"", what, name);
	if (allowed->count == 0)
		buf_addstr(&b, ", nor any other");
	for (size_t i = 0; i < allowed->count && i < ALLOWED_SHOWN; i++)
		buf_addf(&b, "%s%s", i == 0 ? ", allowed are " : ", ", allowed->names[i]);
	if (allowed->count > ALLOWED_SHOWN)
		buf_addf(&b, " and %zu more", allowed->count - ALLOWED_SHOWN);
	if (near != NULL)
		buf_addf(&b, ", did you mean \"%s\"?", near);
	sentence = mem_strn((const char *)b.mem, b.len);
	buf_free(&b);
	return (sentence);
}

void
names_of_databases(const struct topo *t, struct name_list *list)
{
	for (size_t i = 0; i < t->database_count; i++) {
		if (!t->databases[i]->db.is_auto)
			list_add(list, t->databases[i]->db.name);
	}
}

void
names_of_virtuals(const struct topo *t, struct name_list *list)
{
	for (size_t i = 0; i < t->virtual_count; i++)
		list_add(list, t->virtuals[i]->v.name);
}

void
names_of(
    const struct topo_database *const *databases, size_t count, struct name_list *list)
{
	for (size_t i = 0; i < count; i++)
		list_add(list, databases[i]->name);
}

/* ---- complaints ---- */

static PRINTF(3, 0) void complain_va(
    struct complaint *c, const char *word, const char *fmt, va_list ap)
{
	char text[768];

	vsnprintf(text, sizeof(text), fmt, ap);
	if (c->words != NULL) {
		bool is_word = setting_find_in(c->words->scope, word) != NULL;

		conf_problem(c->words->problems,
		    is_word ? words_at(c->words, word) : c->words->at, "%s: %s", word,
		    text);
	} else if (!c->is_wrong) {
		char *sentence = mem_printf("%s: %s", word, text);

		(void)text_copy(c->why, c->why_len, sentence);
		free(sentence);
	}
	c->is_wrong = true;
}

void
complain(struct complaint *c, const char *word, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain_va(c, word, fmt, ap);
	va_end(ap);
}

void
complain_unknown(struct complaint *c, const char *word, const char *what,
    const char *name, struct name_list *allowed)
{
	char *sentence = name_unknown(what, name, allowed);

	complain(c, word, "%s", sentence);
	free(sentence);
	free(allowed->names);
	*allowed = (struct name_list){0};
}

bool
complain_number(
    struct complaint *c, unsigned scope, const char *word, const char *text, int64_t *out)
{
	const struct setting *row = setting_find_in(scope, word);
	char why[512];

	INVARIANT(row != NULL);
	if (text == NULL || *text == '\0')
		return (false);
	if (setting_number(row, text, out, why, sizeof(why)) == F_OK)
		return (true);
	complain(c, word, "%s", why);
	return (false);
}
