/*
 * Statements that must be known however long they are, and before any parser: transaction
 * verbs, SET, RESET, SHOW, and EXPLAIN (ROUTE …). Each rule takes the whole statement or leaves
 * it alone; what is not in PostgreSQL's grammar (a word too many) is left to the parser, which
 * will not know it either.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "private.h"

/* A walk over the tokens of a statement; t is the one to look at. */
struct cursor {
	struct sql_lexer l;
	struct sql_token t;
	struct sql_arena *arena;
};

static void
step(struct cursor *c)
{
	sql_lex(&c->l, &c->t);
}

static bool
is_at(const struct cursor *c, const char *word)
{
	return (sql_token_is(&c->l, &c->t, word));
}

static bool
take(struct cursor *c, const char *word)
{
	bool is_it = is_at(c, word);

	if (is_it)
		step(c);
	return (is_it);
}

static bool
take_mark(struct cursor *c, const char *mark)
{
	bool is_it = sql_token_is_mark(&c->l, &c->t, mark);

	if (is_it)
		step(c);
	return (is_it);
}

static bool
is_done(const struct cursor *c)
{
	return (c->t.kind == SQL_TOKEN_END && !c->l.is_cut);
}

static const char *
keep(struct cursor *c, char *s)
{
	const char *kept = s == NULL ? NULL : sql_arena_str(c->arena, s);

	free(s);
	return (kept);
}

/* A name; NULL: there is none. */
static const char *
take_name(struct cursor *c)
{
	const char *name = keep(c, sql_name_value(&c->l, &c->t));

	if (name != NULL)
		step(c);
	return (name);
}

static bool
take_string(struct cursor *c)
{
	bool is_it = c->t.kind == SQL_TOKEN_STRING;

	if (is_it)
		step(c);
	return (is_it);
}

/* ---- transactions ---- */

/* NULL: there is none. */
static const char *
take_level(struct cursor *c)
{
	if (take(c, "serializable"))
		return ("serializable");
	if (take(c, "repeatable"))
		return (take(c, "read") ? "repeatable read" : NULL);
	if (!take(c, "read"))
		return (NULL);
	if (take(c, "committed"))
		return ("read committed");
	return (take(c, "uncommitted") ? "read uncommitted" : NULL);
}

/* ISOLATION LEVEL …, READ ONLY, READ WRITE, [NOT] DEFERRABLE, with or without commas. */
static bool
take_modes(struct cursor *c, struct sql_facts *f)
{
	while (c->t.kind != SQL_TOKEN_END) {
		if (take(c, "isolation")) {
			if (!take(c, "level"))
				return (false);
			f->isolation = take_level(c);
			if (f->isolation == NULL)
				return (false);
			f->is_serializable = strcmp(f->isolation, "serializable") == 0;
		} else if (take(c, "read")) {
			f->is_read_only = is_at(c, "only");
			f->is_read_write = is_at(c, "write");
			if (!take(c, "only") && !take(c, "write"))
				return (false);
		} else {
			f->is_not_deferrable = take(c, "not");
			f->is_deferrable = !f->is_not_deferrable;
			if (!take(c, "deferrable"))
				return (false);
		}
		if (take_mark(c, ",") && c->t.kind == SQL_TOKEN_END)
			return (false);
	}
	return (is_done(c));
}

static void
take_work(struct cursor *c)
{
	if (!take(c, "work"))
		(void)take(c, "transaction");
}

static bool
begin(struct cursor *c, struct sql_facts *f)
{
	if (take(c, "start")) {
		if (!take(c, "transaction"))
			return (false);
	} else {
		step(c);
		take_work(c);
	}
	f->class = SQL_BEGIN;
	return (take_modes(c, f));
}

/* [WORK] [AND [NO] CHAIN] */
static bool
take_chain(struct cursor *c, struct sql_facts *f)
{
	take_work(c);
	if (take(c, "and")) {
		f->chains = !take(c, "no");
		if (!take(c, "chain"))
			return (false);
	}
	return (is_done(c));
}

static bool
two_phase(struct cursor *c, struct sql_facts *f)
{
	f->class = SQL_TWO_PHASE;
	return (take_string(c) && is_done(c));
}

static bool
commit(struct cursor *c, struct sql_facts *f)
{
	bool is_commit = is_at(c, "commit");

	step(c);
	if (is_commit && take(c, "prepared"))
		return (two_phase(c, f));
	f->class = SQL_COMMIT;
	return (take_chain(c, f));
}

static bool
savepoint(struct cursor *c, struct sql_facts *f)
{
	f->class = SQL_SAVEPOINT;
	f->savepoint = take_name(c);
	return (f->savepoint != NULL && is_done(c));
}

static bool
rollback(struct cursor *c, struct sql_facts *f)
{
	bool is_rollback = is_at(c, "rollback");
	struct cursor back;

	step(c);
	if (is_rollback && take(c, "prepared"))
		return (two_phase(c, f));
	back = *c;
	take_work(c);
	if (is_rollback && take(c, "to")) {
		(void)take(c, "savepoint");
		f->is_rollback_to = true;
		return (savepoint(c, f));
	}
	*c = back;
	f->class = SQL_ROLLBACK;
	return (take_chain(c, f));
}

static bool
release(struct cursor *c, struct sql_facts *f)
{
	step(c);
	(void)take(c, "savepoint");
	f->is_release = true;
	return (savepoint(c, f));
}

static bool
set_savepoint(struct cursor *c, struct sql_facts *f)
{
	step(c);
	return (savepoint(c, f));
}

static bool
prepare(struct cursor *c, struct sql_facts *f)
{
	step(c);
	return (take(c, "transaction") && two_phase(c, f));
}

/* ---- SET, RESET, SHOW ---- */

/* name.name…, as settings are compared: in lower case. */
static const char *
take_setting(struct cursor *c)
{
	struct buf b = {0};
	const char *part, *name;

	do {
		part = take_name(c);
		if (part == NULL)
			break;
		buf_addf(&b, "%s%s", b.len == 0 ? "" : ".", part);
	} while (take_mark(c, "."));
	for (uint32_t i = 0; i < b.len; i++)
		b.mem[i] = sql_lower[b.mem[i]];
	buf_add(&b, "", 1);
	name = part == NULL ? NULL : sql_arena_str(c->arena, (char *)b.mem);
	buf_free(&b);
	return (name);
}

/* Names of settings that are several words, or not a setting's name at all, in SHOW and
 * RESET. NULL: none of them. */
static const char *
take_phrase(struct cursor *c)
{
	struct cursor back = *c;

	if (take(c, "time") && take(c, "zone"))
		return ("timezone");
	*c = back;
	if (take(c, "transaction") && take(c, "isolation") && take(c, "level"))
		return ("transaction_isolation");
	*c = back;
	if (take(c, "session") && take(c, "authorization"))
		return ("session_authorization");
	*c = back;
	return (NULL);
}

static bool
show(struct cursor *c, struct sql_facts *f)
{
	f->class = SQL_SET;
	f->set_verb = is_at(c, "show") ? SQL_SET_SHOW : SQL_SET_RESET;
	step(c);
	f->setting = take_phrase(c);
	if (f->setting == NULL)
		f->setting = take_setting(c);
	return (f->setting != NULL && is_done(c));
}

/* Settings that are lists of names: their values are quoted where names need it. */
static bool
is_list_of_names(const char *setting)
{
	static const char *const names[] = {"search_path", "temp_tablespaces",
	    "session_preload_libraries", "local_preload_libraries"};

	for (size_t i = 0; setting != NULL && i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], setting) == 0)
			return (true);
	return (false);
}

static void
add_name(struct buf *b, const char *name)
{
	bool is_plain = name[0] == '_' || (name[0] >= 'a' && name[0] <= 'z');

	for (const char *p = name; *p != '\0'; p++)
		is_plain &=
		    *p == '_' || (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');
	if (is_plain) {
		buf_addstr(b, name);
		return;
	}
	buf_add(b, "\"", 1);
	for (const char *p = name; *p != '\0'; p++)
		buf_add(b, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
	buf_add(b, "\"", 1);
}

/* One value, added to the list: a word, a string, or a number with its sign. */
static bool
take_value(struct cursor *c, struct buf *b, bool is_name)
{
	struct sql_token *t = &c->t;
	char *value = NULL;

	if (b->len > 0)
		buf_addstr(b, ", ");
	if (sql_token_is_mark(&c->l, t, "-") || sql_token_is_mark(&c->l, t, "+")) {
		buf_addstr(b, c->l.text[t->at] == '-' ? "-" : "");
		step(c);
		if (t->kind != SQL_TOKEN_NUMBER)
			return (false);
	}
	if (t->kind == SQL_TOKEN_NUMBER && !t->is_glued)
		value = mem_strn(c->l.text + t->at, t->end - t->at);
	else if (t->kind == SQL_TOKEN_STRING)
		value = sql_string_value(&c->l, t);
	else if (t->kind == SQL_TOKEN_WORD || t->kind == SQL_TOKEN_QUOTED)
		value = sql_name_value(&c->l, t);
	if (value == NULL)
		return (false);
	if (is_name)
		add_name(b, value);
	else
		buf_addstr(b, value);
	free(value);
	step(c);
	return (true);
}

/* {value [, …] | DEFAULT}, to the end of the statement. */
static bool
take_values(struct cursor *c, struct sql_facts *f)
{
	struct buf b = {0};
	bool is_good;

	if (take(c, "default"))
		return (is_done(c));
	do
		is_good = take_value(c, &b, is_list_of_names(f->setting));
	while (is_good && take_mark(c, ","));
	is_good = is_good && is_done(c);
	buf_add(&b, "", 1);
	if (is_good)
		f->value = sql_arena_str(c->arena, (char *)b.mem);
	buf_free(&b);
	return (is_good);
}

/* What follows SET when it is not "name = …": words that stand for a setting. *is_taken: the
 * answer counts. */
static bool
set_phrase(struct cursor *c, struct sql_facts *f, bool *is_taken)
{
	static const struct {
		const char *word, *second, *setting;
	} phrases[] = {
	    {"time", "zone", "timezone"},
	    {"session", "authorization", "session_authorization"},
	    {"xml", "option", "xmloption"},
	    {"names", NULL, "client_encoding"},
	    {"schema", NULL, "search_path"},
	    {"role", NULL, "role"},
	};
	struct cursor back = *c;

	*is_taken = true;
	for (size_t i = 0; i < ARRAY_LEN(phrases); i++, *c = back) {
		if (!take(c, phrases[i].word))
			continue;
		if (phrases[i].second != NULL && !take(c, phrases[i].second))
			continue;
		if (phrases[i].second == NULL &&
		    (is_at(c, "to") || sql_token_is_mark(&c->l, &c->t, "=") ||
			sql_token_is_mark(&c->l, &c->t, ".")))
			continue;
		f->setting = phrases[i].setting;
		if (i == 0 && take(c, "local"))
			return (is_done(c));
		if (strcmp(phrases[i].word, "names") == 0 && is_done(c))
			return (true);
		return (take_values(c, f));
	}
	if (take(c, "transaction") && !is_at(c, "to") &&
	    !sql_token_is_mark(&c->l, &c->t, "=")) {
		f->setting = "transaction";
		f->set_verb = SQL_SET_LOCAL;
		if (take(c, "snapshot"))
			return (take_string(c) && is_done(c));
		return (c->t.kind != SQL_TOKEN_END && take_modes(c, f));
	}
	*c = back;
	*is_taken = false;
	return (false);
}

static bool
set(struct cursor *c, struct sql_facts *f)
{
	struct cursor back;
	bool is_taken, is_good;

	step(c);
	f->class = SQL_SET;
	f->set_verb = SQL_SET_SET;
	if (is_at(c, "constraints"))
		return (false);
	back = *c;
	if (take(c, "session") && take(c, "characteristics")) {
		f->setting = "session characteristics";
		return (take(c, "as") && take(c, "transaction") &&
			c->t.kind != SQL_TOKEN_END && take_modes(c, f));
	}
	*c = back;
	is_good = set_phrase(c, f, &is_taken);
	if (is_taken)
		return (is_good);
	if (take(c, "local"))
		f->set_verb = SQL_SET_LOCAL;
	else
		(void)take(c, "session");
	is_good = set_phrase(c, f, &is_taken);
	if (is_taken)
		return (is_good);
	f->setting = take_setting(c);
	if (f->setting == NULL)
		return (false);
	if (take(c, "from"))
		return (take(c, "current") && is_done(c));
	if ((!take_mark(c, "=") && !take(c, "to")) || !take_values(c, f))
		return (false);
	f->is_serializable = strcmp(f->setting, "transaction_isolation") == 0 &&
			     f->value != NULL &&
			     strcasecmp(f->value, "serializable") == 0;
	return (true);
}

/* ---- EXPLAIN (ROUTE …) ---- */

static bool
is_false(const char *value)
{
	return (
	    value != NULL && (strcmp(value, "off") == 0 || strcmp(value, "false") == 0 ||
				 strcmp(value, "0") == 0));
}

/* Options that PostgreSQL knows and that say nothing of a route. */
static bool
is_other_option(const char *name)
{
	static const char *const names[] = {"buffers", "costs", "generic_plan", "memory",
	    "serialize", "settings", "summary", "timing", "verbose", "wal"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], name) == 0)
			return (true);
	return (false);
}

static void
set_problem(struct cursor *c, struct sql_facts *f, char *text)
{
	if (f->problem == NULL)
		f->problem = sql_arena_str(c->arena, text);
	free(text);
}

/* What EXPLAIN (ROUTE …) makes of an option; value NULL: none was given. */
static void
read_option(struct cursor *c, struct sql_facts *f, const char *name, const char *value)
{
	if (strcmp(name, "route") == 0) {
		if (is_false(value))
			set_problem(c, f,
			    mem_str("EXPLAIN (ROUTE) cannot be switched off: leave out "
				    "ROUTE for an EXPLAIN by the server"));
	} else if (strcmp(name, "format") == 0) {
		f->wants_json = value != NULL && strcmp(value, "json") == 0;
		if (value == NULL || (!f->wants_json && strcmp(value, "text") != 0))
			set_problem(c, f,
			    mem_printf(
				"unrecognized value for EXPLAIN option \"format\": "
				"\"%.64s\" (with ROUTE: text, json)",
				value != NULL ? value : ""));
	} else if (strcmp(name, "analyze") == 0 || strcmp(name, "analyse") == 0) {
		if (!is_false(value))
			set_problem(c, f,
			    mem_str("EXPLAIN option ANALYZE cannot be used with ROUTE, "
				    "which runs nothing"));
	} else if (!is_other_option(name)) {
		set_problem(
		    c, f, mem_printf("unrecognized EXPLAIN option \"%.64s\"", name));
	}
}

/* One option of the list: a name and perhaps a value. */
static bool
take_option(struct cursor *c, struct sql_facts *f, bool *has_route)
{
	struct buf b = {0};
	const char *name = take_name(c), *value = NULL;
	bool is_good = name != NULL;

	if (is_good && !sql_token_is_mark(&c->l, &c->t, ",") &&
	    !sql_token_is_mark(&c->l, &c->t, ")")) {
		is_good = take_value(c, &b, false);
		buf_add(&b, "", 1);
		for (uint32_t i = 0; i < b.len; i++)
			b.mem[i] = sql_lower[b.mem[i]];
		value = sql_arena_str(c->arena, (char *)b.mem);
		buf_free(&b);
	}
	if (!is_good)
		return (false);
	*has_route |= strcmp(name, "route") == 0;
	read_option(c, f, name, value);
	return (true);
}

static bool
explain(struct cursor *c, struct sql_facts *f)
{
	bool has_route = false;

	step(c);
	f->class = SQL_EXPLAIN_ROUTE;
	if (!take_mark(c, "("))
		return (false);
	do {
		if (!take_option(c, f, &has_route))
			return (false);
	} while (take_mark(c, ","));
	/* Right behind the parenthesis: a hint may stand there. */
	f->inner_at = c->t.end;
	if (!take_mark(c, ")") || !has_route)
		return (false);
	if (c->t.kind == SQL_TOKEN_END)
		set_problem(c, f, mem_str("EXPLAIN (ROUTE) has no statement behind it"));
	return (true);
}

/* ---- all of them ---- */

static const struct verb {
	const char *word;
	bool (*find)(struct cursor *, struct sql_facts *);
} verbs[] = {
    {"begin", begin},
    {"start", begin},
    {"commit", commit},
    {"end", commit},
    {"rollback", rollback},
    {"abort", rollback},
    {"savepoint", set_savepoint},
    {"release", release},
    {"prepare", prepare},
    {"set", set},
    {"reset", show},
    {"show", show},
    {"explain", explain},
};

bool
sql_verbs_find(
    const struct sql_scan *scan, struct sql_arena *arena, struct sql_facts *out)
{
	struct cursor c = {.l = sql_lexer_of(scan), .arena = arena};
	struct sql_facts found = {.class = SQL_UNKNOWN};

	step(&c);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(scan->verb, verbs[i].word) != 0)
			continue;
		if (!verbs[i].find(&c, &found))
			return (false);
		*out = found;
		return (true);
	}
	return (false);
}
