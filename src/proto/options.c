/*
 * The `options` parameter of a StartupMessage: a command line in one string, as PostgreSQL's
 * pg_split_opts() and getopt() read it, of which only settings are taken:
 *
 *     -c name=value     -cname=value     --name=value     word with\ a\ space
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto.h"

/* Walks the words of a line, without their backslashes. */
struct words {
	const char *at; /* what is not split yet */
	char *to;       /* where the next word is put */
};

static bool
is_space(char c)
{
	return (c == ' ' || (c >= '\t' && c <= '\r'));
}

/* The next word, or NULL. It stays valid as long as the memory behind w->to. A backslash at
 * the very end stands for nothing. */
static char *
next_word(struct words *w)
{
	char *word = w->to;

	while (is_space(*w->at))
		w->at++;
	if (*w->at == '\0')
		return (NULL);
	for (; *w->at != '\0' && !is_space(*w->at); w->at++) {
		if (*w->at == '\\' && *++w->at == '\0')
			break;
		*w->to++ = *w->at;
	}
	*w->to++ = '\0';
	return (word);
}

/* Hands name and value of "name=value" to each(). *is_setting: whether text has that form; it
 * is unchanged if not. */
static int
take_setting(char *text, int (*each)(void *arg, const char *name, const char *value),
    void *arg, bool *is_setting)
{
	char *equals = strchr(text, '=');

	*is_setting = equals != NULL && equals != text;
	if (!*is_setting)
		return (F_PROTO_OPTIONS);
	*equals = '\0';
	for (char *p = text; p < equals; p++)
		if (*p == '-')
			*p = '_';
	return (each(arg, text, equals + 1));
}

int
proto_options_each(const char *options,
    int (*each)(void *arg, const char *name, const char *value), void *arg, char *why,
    size_t why_len)
{
	/* A word and its NUL take no more than the word and what separates it from the next. */
	size_t size = strlen(options) + 1;
	char *mem = mem_alloc(size), *word, *text;
	struct words w = {options, mem};
	int rc = 0;

	while (rc == 0 && (word = next_word(&w)) != NULL) {
		bool is_setting = false;

		text = NULL;
		if (strncmp(word, "--", 2) == 0)
			text = word + 2;
		else if (strncmp(word, "-c", 2) == 0)
			text = word[2] != '\0' ? word + 2 : next_word(&w);
		rc = text == NULL ? F_PROTO_OPTIONS
				  : take_setting(text, each, arg, &is_setting);
		if (is_setting || why_len == 0)
			continue;
		if (text == NULL || text == word + 2)
			snprintf(why, why_len, "%s", word);
		else
			snprintf(why, why_len, "%s %s", word, text);
	}
	free(mem);
	return (rc);
}
