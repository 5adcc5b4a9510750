/*
 * topo/words.c: the words of databases, logins and whatever else has a section, from a
 * connection string or a key a line.
 *
 * A connection string is PgBouncer's: key = value, white space around the =, values up to
 * white space or in single quotes with '' for a quote.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

static bool
is_space(char c)
{
	return (c == ' ' || c == '\t' || c == '\r' || c == '\n');
}

static char *
skip_space(char *p)
{
	while (is_space(*p))
		p++;
	return (p);
}

/* A value in quotes, in place; p is behind the first. Where the text goes on, or NULL when
 * the last is missing. */
static char *
line_unquote(char *p)
{
	char *to = p;

	for (; *p != '\0'; p++) {
		if (*p == '\'' && *++p != '\'') {
			/* to is before p: the closing quote has been passed. */
			*to = '\0';
			return (p);
		}
		*to++ = *p;
	}
	return (NULL);
}

int
line_next(char **at, char **key, char **value, const char **why)
{
	char *p = skip_space(*at), *end;

	*key = *value = p;
	if (*p == '\0')
		return (0);
	while (*p != '\0' && *p != '=' && !is_space(*p))
		p++;
	end = p;
	p = skip_space(p);
	if (*p != '=' || end == *key) {
		*why = "expected key=value";
		return (-1);
	}
	*end = '\0';
	p = skip_space(p + 1);
	*value = p;
	if (*p == '\'') {
		*value = ++p;
		*at = line_unquote(p);
		*why = "the closing ' is missing";
		return (*at != NULL ? 1 : -1);
	}
	while (*p != '\0' && !is_space(*p))
		p++;
	if (p == *value) {
		*why = "a value is missing ('' is an empty one)";
		return (-1);
	}
	*at = p;
	if (*p != '\0') {
		*p = '\0';
		(*at)++;
	}
	return (1);
}

void
words_begin(struct words *w)
{
	w->said = mem_alloc((setting_count + word_count) * sizeof(*w->said));
}

void
words_end(struct words *w)
{
	free(w->said);
	w->said = NULL;
}

char *
words_label(const struct words *w, const char *key)
{
	return (w->name != NULL ? mem_printf("%s: %s", w->name, key) : mem_str(key));
}

static const struct slot *
find_slot(const struct words *w, const char *key)
{
	for (size_t i = 0; i < w->slot_count; i++) {
		if (strcmp(w->slots[i].key, key) == 0)
			return (&w->slots[i]);
	}
	return (NULL);
}

/* The place of a row in seen. */
static size_t
row_index(const struct setting *row)
{
	if (row >= word_table && row < word_table + word_count)
		return (setting_count + (size_t)(row - word_table));
	return ((size_t)(row - setting_table));
}

struct conf_at
words_at(const struct words *w, const char *key)
{
	const struct setting *row = setting_find_in(w->scope, key);

	INVARIANT(row != NULL);
	return (w->said[row_index(row)].file != NULL ? w->said[row_index(row)] : w->at);
}

/* -1 is PgBouncer's word for "not said". */
static bool
is_unsaid(const struct setting *row, const char *value)
{
	return (
	    (row->type == SET_INT || row->type == SET_TIME) && strcmp(value, "-1") == 0);
}

/* An empty string says nothing. */
static void
store(struct words *w, const struct slot *slot, const char *value, int64_t n)
{
	char *to = (char *)w->base + slot->offset;

	switch (slot->kind) {
	case SLOT_STR:
	case SLOT_TEXT:
		*(const char **)(void *)to = *value != '\0' ? value : NULL;
		break;
	case SLOT_NUMBER:
		*(int64_t *)(void *)to = n;
		break;
	case SLOT_MODE:
		*(int *)(void *)to = (int)n;
		break;
	case SLOT_FLAG:
		*(bool *)(void *)to = n == 1;
		break;
	}
}

static void
put_row(struct words *w, const struct setting *row, const char *label, const char *value,
    struct conf_at at)
{
	const struct slot *slot = find_slot(w, row->key);
	char why[512];
	int64_t n = -1;

	INVARIANT(slot != NULL || row->apply == AP_LATER);
	if (w->said[row_index(row)].file != NULL)
		conf_warning(w->problems, at,
		    "%s: given again, the one before no longer counts", label);
	w->said[row_index(row)] = at;
	if (row->type != SET_STR && !is_unsaid(row, value) &&
	    (slot == NULL || slot->kind != SLOT_TEXT) &&
	    setting_number(row, value, &n, why, sizeof(why)) != F_OK) {
		conf_problem(w->problems, at, "%s: %s", label, why);
		return;
	}
	if (slot != NULL)
		store(w, slot, value, n);
	else if (strcmp(value, row->dflt) != 0)
		conf_warning(w->problems, at, "%s: " CONF_LATER, label);
}

void
words_put(struct words *w, const char *key, const char *value, struct conf_at at)
{
	const struct setting *row = setting_find_in(w->scope, key);
	char *label = words_label(w, row != NULL ? row->key : key);
	char why[512];

	if (row != NULL) {
		put_row(w, row, label, value, at);
	} else {
		setting_unknown(w->scope, key, why, sizeof(why));
		conf_problem(w->problems, at, "%s: %s", label, why);
	}
	free(label);
}

void
words_put_line(struct words *w, const char *line, struct conf_at at)
{
	char *copy = mem_str(line), *p = copy, *key, *value;
	size_t len = strlen(line);
	const char *why = "";
	int r;

	while ((r = line_next(&p, &key, &value, &why)) == 1) {
		char *label = words_label(w, key);

		words_put(w, key,
		    topo_keep(w->topo, conf_expand(value, label, at, w->problems)), at);
		free(label);
	}
	if (r < 0)
		conf_problem(w->problems, at, "%s: %s", w->name, why);
	mem_free_secret(copy, len);
}
