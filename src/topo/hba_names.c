/* topo/hba_names.c: names in rules: themselves, keywords, and /regular expressions. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "hba.h"

/* Longer texts match no expression: names have 63 bytes at a server, and what a client sends must
 * not keep a worker busy. */
#define TEXT_MAX 256

/* ---- regular expressions ---- */

/* The end of the brackets that begin here; NULL: a \ is in them, a letter like others for POSIX,
 * the beginning of an escape for PostgreSQL. */
static const char *
skip_brackets(const char *p)
{
	char kind;

	p += p[1] == '^' ? 2 : 1;
	p += *p == ']';
	for (; *p != '\0' && *p != ']'; p++) {
		if (*p == '\\')
			return (NULL);
		if (*p != '[' || p[1] == '\0' || strchr(":.=", p[1]) == NULL)
			continue;
		kind = p[1];
		for (p += 2; *p != '\0' && (*p != kind || p[1] != ']'); p++)
			;
		if (*p == '\0')
			break;
		p++;
	}
	return (*p == '\0' ? p - 1 : p);
}

/* What PostgreSQL's expressions know and POSIX's do not, or take for something else; or NULL. */
static const char *
foreign_part(const char *p)
{
	for (; *p != '\0'; p++) {
		if (*p == '[') {
			p = skip_brackets(p);
			if (p == NULL)
				return ("a \\ in brackets");
		} else if (*p == '\\') {
			if (*++p == '\0')
				return ("a \\ at its end");
			if ((isalpha((unsigned char)*p) && strchr("wWsS", *p) == NULL) ||
			    strchr("<>`'", *p) != NULL)
				return ("an escape other than \\w \\W \\s \\S");
		} else if (*p == '(' && p[1] == '?') {
			return ("(?");
		} else if (strchr("*+?}", *p) != NULL && p[1] == '?') {
			return ("a ? behind a quantifier");
		}
	}
	return (NULL);
}

bool
hba_regex(
    regex_t *re, const char *text, struct conf_at at, struct conf_problems *problems)
{
	const char *foreign = foreign_part(text);
	char why[128];
	int err;

	if (foreign != NULL) {
		conf_problem(problems, at,
		    "the regular expression \"%s\" has %s, which is not supported", text,
		    foreign);
		return (false);
	}
	err = regcomp(re, text, REG_EXTENDED);
	if (err == 0)
		return (true);
	regerror(err, re, why, sizeof(why));
	conf_problem(problems, at, "invalid regular expression \"%s\": %s", text, why);
	return (false);
}

bool
hba_regex_has(const regex_t *re, const char *text, regmatch_t match[2])
{
	return (strlen(text) <= TEXT_MAX && regexec(re, text, 2, match, 0) == 0);
}

/* ---- lists ---- */

/* Why a word cannot stand there, or NULL. */
static const char *
refused_name(const struct hba_word *w, bool of_databases)
{
	if (w->text[0] == '+' && !w->is_quoted && !of_databases)
		return (
		    "who is in a group is known to the servers alone: name the logins");
	if (of_databases && (hba_is(w, "samerole") || hba_is(w, "samegroup")))
		return (
		    "who is in a role is known to the servers alone: use sameuser, or "
		    "name the databases");
	return (NULL);
}

static enum hba_name_kind
kind_of(const struct hba_word *w, bool of_databases)
{
	if (hba_is(w, "all"))
		return (HBA_ALL);
	if (w->text[0] == '/')
		return (HBA_REGEX);
	if (of_databases && hba_is(w, "sameuser"))
		return (HBA_SAMEUSER);
	if (of_databases && hba_is(w, "replication"))
		return (HBA_REPLICATION);
	return (HBA_NAME);
}

bool
hba_names_read(struct hba_names *names, const struct hba_field *field, bool of_databases,
    struct conf_at at, struct conf_problems *problems)
{
	names->list = mem_alloc((field->count + 1) * sizeof(*names->list));
	for (size_t i = 0; i < field->count; i++) {
		const struct hba_word *w = &field->words[i];
		const char *refused = refused_name(w, of_databases);
		struct hba_name *n = &names->list[names->count];

		if (refused != NULL) {
			conf_problem(
			    problems, at, "%s is not supported: %s", w->text, refused);
			return (false);
		}
		n->kind = kind_of(w, of_databases);
		n->text = w->text;
		if (n->kind == HBA_REGEX &&
		    !hba_regex(&n->regex, w->text + 1, at, problems))
			return (false);
		names->count++;
	}
	return (true);
}

void
hba_names_free(struct hba_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		if (names->list[i].kind == HBA_REGEX)
			regfree(&names->list[i].regex);
	free(names->list);
	*names = (struct hba_names){0};
}

bool
hba_names_have(const struct hba_names *names, const char *name, const char *user)
{
	regmatch_t match[2];

	for (size_t i = 0; i < names->count; i++) {
		const struct hba_name *n = &names->list[i];

		if (n->kind == HBA_ALL ||
		    (n->kind == HBA_SAMEUSER && strcmp(name, user) == 0) ||
		    (n->kind == HBA_NAME && strcmp(name, n->text) == 0) ||
		    (n->kind == HBA_REGEX && hba_regex_has(&n->regex, name, match)))
			return (true);
	}
	return (false);
}

bool
hba_names_have_replication(const struct hba_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		if (names->list[i].kind == HBA_REPLICATION)
			return (true);
	return (false);
}
