/*
 * topo/ident.c: auth_ident_file: as whom somebody may log in whom a certificate or the system
 * calls by another name, a line each:
 *
 *     MAP  SYSTEM-NAME          LOGIN
 *     m    /^(.*)@example\.org$  \1          what the first ( ) has found
 *     m    deploy               all
 */
#include <stdlib.h>
#include <string.h>

#include "hba.h"

static void
line_free(struct ident_line *l)
{
	if (l->is_system_regex)
		regfree(&l->system_regex);
	if (l->is_login_regex)
		regfree(&l->login_regex);
}

void
ident_free(struct ident *ident)
{
	for (size_t i = 0; i < ident->count; i++)
		line_free(&ident->lines[i]);
	free(ident->lines);
	*ident = (struct ident){0};
}

static bool
read_line(struct ident_line *out, const struct hba_line *line, struct conf_problems *p)
{
	const struct hba_word *map, *system, *login;

	if (line->count != 3) {
		conf_problem(p, line->at,
		    "expected a map, a name of the system, and a login, found %zu word%s",
		    line->count, line->count == 1 ? "" : "s");
		return (false);
	}
	map = hba_only(line, 0, "map", p);
	system = hba_only(line, 1, "name of the system", p);
	login = hba_only(line, 2, "login", p);
	if (map == NULL || system == NULL || login == NULL)
		return (false);
	if (login->text[0] == '+' && !login->is_quoted) {
		conf_problem(p, line->at,
		    "%s is not supported: who is in a group is known to the servers alone",
		    login->text);
		return (false);
	}
	*out = (struct ident_line){.map = map->text,
	    .system = system->text,
	    .login = login->text,
	    .is_any_login = hba_is(login, "all")};
	if (system->text[0] == '/') {
		if (!hba_regex(&out->system_regex, system->text + 1, line->at, p))
			return (false);
		out->is_system_regex = true;
	}
	if (strstr(login->text, "\\1") != NULL &&
	    (!out->is_system_regex || out->system_regex.re_nsub == 0)) {
		conf_problem(p, line->at,
		    "\\1 needs a regular expression with ( ) for the name of the system");
		line_free(out);
		return (false);
	}
	if (login->text[0] == '/') {
		if (!hba_regex(&out->login_regex, login->text + 1, line->at, p)) {
			line_free(out);
			return (false);
		}
		out->is_login_regex = true;
	}
	return (true);
}

void
ident_read(struct topo *t, struct ident *ident, const char *path, struct conf_at at,
    struct conf_problems *problems)
{
	struct hba_lines lines = {0};

	hba_lines_read(t, path, at, problems, &lines);
	ident->lines = mem_alloc((lines.count + 1) * sizeof(*ident->lines));
	for (size_t i = 0; i < lines.count; i++)
		if (read_line(&ident->lines[ident->count], &lines.lines[i], problems))
			ident->count++;
	hba_lines_free(&lines);
}

bool
ident_has_map(const struct ident *ident, const char *map)
{
	for (size_t i = 0; i < ident->count; i++)
		if (strcmp(ident->lines[i].map, map) == 0)
			return (true);
	return (false);
}

/* Whether the line's login, with \1 replaced by what the first group has found, is this one. */
static bool
login_is(const struct ident_line *l, const char *name, const regmatch_t match[2],
    const char *login)
{
	const char *slot = strstr(l->login, "\\1");
	size_t before, found;

	if (l->is_any_login)
		return (true);
	if (l->is_login_regex) {
		regmatch_t none[2];

		return (hba_regex_has(&l->login_regex, login, none));
	}
	if (slot == NULL)
		return (strcmp(l->login, login) == 0);
	if (match[1].rm_so < 0)
		return (false);
	before = (size_t)(slot - l->login);
	found = (size_t)(match[1].rm_eo - match[1].rm_so);
	return (strncmp(l->login, login, before) == 0 &&
		strncmp(name + match[1].rm_so, login + before, found) == 0 &&
		strcmp(slot + 2, login + before + found) == 0);
}

bool
ident_maps(
    const struct ident *ident, const char *map, const char *name, const char *login)
{
	for (size_t i = 0; i < ident->count; i++) {
		const struct ident_line *l = &ident->lines[i];
		regmatch_t match[2] = {{-1, -1}, {-1, -1}};

		if (strcmp(l->map, map) != 0)
			continue;
		if (l->is_system_regex ? !hba_regex_has(&l->system_regex, name, match)
				       : strcmp(l->system, name) != 0)
			continue;
		if (login_is(l, name, match, login))
			return (true);
	}
	return (false);
}
