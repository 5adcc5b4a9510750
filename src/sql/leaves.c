/*
 * What a statement may leave in the server's session: settings, and what pins a session to its
 * link. From tokens alone, and rather too much than too little, since the server is asked
 * afterwards what is so.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "private.h"

/* ---- functions ---- */

/* What the first argument of set_config() tells of the setting's name. w stands on it. */
static unsigned
leaves_of_setting_name(struct sql_walk w)
{
	enum sql_token_kind kind = w.t.kind;

	sql_step(&w);
	if (!sql_is_mark(&w, ",") && !sql_is_mark(&w, "::"))
		return (SQL_LEAVES_UNNAMED);
	return (kind == SQL_TOKEN_STRING  ? 0
		: kind == SQL_TOKEN_PARAM ? SQL_LEAVES_BY_PARAM
					  : SQL_LEAVES_UNNAMED);
}

/* set_config(…, true) holds for the transaction alone. w stands behind the name. */
static unsigned
leaves_of_set_config(struct sql_walk w)
{
	bool is_true = false, is_behind_comma = false;
	struct sql_walk first = w;
	unsigned depth = 0;

	if (!sql_is_mark(&w, "("))
		return (0);
	sql_step(&first);
	for (; w.t.kind != SQL_TOKEN_END; sql_step(&w)) {
		if (sql_is_mark(&w, ")") && --depth == 0)
			return (is_true
				    ? SQL_LEAVES_LOCAL
				    : SQL_LEAVES_SETTING | leaves_of_setting_name(first));
		if (sql_is_mark(&w, "("))
			depth++;
		is_true = is_behind_comma && depth == 1 && sql_is_at(&w, "true");
		is_behind_comma = sql_is_mark(&w, ",");
	}
	return (SQL_LEAVES_SETTING | SQL_LEAVES_UNNAMED);
}

/* Of a name that may be a function's, or the view's whose rows are settings. */
static unsigned
leaves_of_name(const struct sql_walk *w, bool updates)
{
	static const struct {
		const char *name;
		unsigned leaves;
	} names[] = {
	    {"pg_advisory_lock", SQL_LEAVES_LOCK},
	    {"pg_advisory_lock_shared", SQL_LEAVES_LOCK},
	    {"pg_try_advisory_lock", SQL_LEAVES_LOCK},
	    {"pg_try_advisory_lock_shared", SQL_LEAVES_LOCK},
	    {"pg_advisory_unlock", SQL_LEAVES_LESS},
	    {"pg_advisory_unlock_shared", SQL_LEAVES_LESS},
	    {"pg_advisory_unlock_all", SQL_LEAVES_LESS},
	    {"setseed", SQL_LEAVES_SEED},
	    {"currval", SQL_LEAVES_SEQUENCE},
	    {"lastval", SQL_LEAVES_SEQUENCE},
	};
	char *name = sql_name_value(&w->l, &w->t);
	unsigned leaves = 0;
	struct sql_walk next = *w;

	if (name == NULL)
		return (0);
	sql_step(&next);
	if (strcmp(name, "set_config") == 0)
		leaves = leaves_of_set_config(next);
	else if (updates && strcmp(name, "pg_settings") == 0)
		leaves = SQL_LEAVES_SETTING | SQL_LEAVES_UNNAMED;
	else if (strncmp(name, "pg_prepared_statement", 21) == 0)
		leaves = SQL_LEAVES_VIEW;
	for (size_t i = 0; leaves == 0 && i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i].name) == 0 && sql_is_mark(&next, "("))
			leaves = names[i].leaves;
	free(name);
	return (leaves);
}

/* ---- statements ---- */

static bool
is_temp(struct sql_walk *w)
{
	if (!sql_take(w, "local"))
		(void)sql_take(w, "global");
	return (sql_is_at(w, "temp") || sql_is_at(w, "temporary"));
}

static bool
is_temp_schema(const struct sql_walk *w)
{
	char *name = sql_name_value(&w->l, &w->t);
	bool is_it = name != NULL && strncmp(name, "pg_temp", 7) == 0;

	free(name);
	return (is_it);
}

static unsigned
leaves_of_create(struct sql_walk *w)
{
	if (sql_take(w, "or"))
		(void)sql_take(w, "replace");
	if (is_temp(w))
		return (SQL_LEAVES_TABLE);
	for (; w->t.kind != SQL_TOKEN_END && !sql_is_at(w, "as"); sql_step(w))
		if (is_temp_schema(w))
			return (SQL_LEAVES_TABLE);
	return (0);
}

/* SELECT … INTO TEMP t, INTO TABLE pg_temp.t. w stands behind INTO. */
static unsigned
leaves_of_into(struct sql_walk *w)
{
	if (is_temp(w))
		return (SQL_LEAVES_TABLE);
	(void)sql_take(w, "table");
	return (is_temp_schema(w) ? SQL_LEAVES_TABLE : 0);
}

/* A name behind SET, to what follows it: TIME ZONE, a.b, x. */
static bool
take_setting(struct sql_walk *w, struct buf *name)
{
	char *part;

	if (sql_take(w, "time")) {
		buf_addstr(name, "timezone");
		return (sql_take(w, "zone"));
	}
	if (sql_take(w, "names")) {
		buf_addstr(name, "client_encoding");
		return (true);
	}
	for (;;) {
		part = sql_name_value(&w->l, &w->t);
		if (part == NULL)
			return (false);
		buf_addstr(name, part);
		free(part);
		sql_step(w);
		if (!sql_is_mark(w, "."))
			return (true);
		buf_addstr(name, ".");
		sql_step(w);
	}
}

/* SET and RESET: what they speak of, and whether it goes back to what it was at first. */
static unsigned
read_set(struct sql_walk *w, struct buf *name)
{
	bool is_reset = sql_take(w, "reset");
	struct sql_walk behind;

	if (!is_reset) {
		(void)sql_take(w, "set");
		if (sql_take(w, "local") || sql_is_at(w, "constraints") ||
		    sql_is_at(w, "transaction"))
			return (SQL_LEAVES_LOCAL);
		behind = *w;
		sql_step(&behind);
		if (sql_is_at(w, "session") && !sql_is_mark(&behind, "=") &&
		    !sql_is_at(&behind, "to"))
			*w = behind;
		if (sql_is_at(w, "characteristics"))
			return (SQL_LEAVES_SETTING);
	} else if (sql_is_at(w, "session"))
		sql_step(w);
	if (sql_take(w, "authorization"))
		buf_addstr(name, "session_authorization");
	else if (!take_setting(w, name))
		return (SQL_LEAVES_SETTING);
	if (!sql_is_mark(w, "="))
		(void)sql_take(w, "to");
	else
		sql_step(w);
	if (is_reset || w->t.kind == SQL_TOKEN_END || sql_is_at(w, "default") ||
	    sql_is_at(w, "local"))
		return (SQL_LEAVES_SETTING | SQL_LEAVES_RESET);
	return (SQL_LEAVES_SETTING);
}

static unsigned
leaves_of_set(struct sql_walk *w)
{
	struct buf name = {0};
	unsigned leaves = read_set(w, &name);

	buf_add(&name, "", 1);
	if (leaves != SQL_LEAVES_LOCAL && strcmp((char *)name.mem, "seed") == 0)
		leaves |= SQL_LEAVES_SEED;
	buf_free(&name);
	return (leaves);
}

static unsigned
leaves_of_discard(struct sql_walk *w)
{
	sql_step(w);
	if (sql_is_at(w, "all"))
		return (SQL_LEAVES_DISCARD | SQL_LEAVES_LESS);
	return (sql_is_at(w, "sequences") ? SQL_LEAVES_LESS | SQL_LEAVES_NO_SEQUENCE
					  : SQL_LEAVES_LESS);
}

/* EXPLAIN ANALYZE runs what it explains. */
static void
skip_explain(struct sql_walk *w)
{
	if (!sql_take(w, "explain"))
		return;
	if (sql_is_mark(w, "("))
		while (w->t.kind != SQL_TOKEN_END && !sql_take_mark(w, ")"))
			sql_step(w);
	while (sql_take(w, "analyze") || sql_take(w, "analyse") || sql_take(w, "verbose"))
		;
}

/* By the first word alone. */
static unsigned
leaves_of_verb(struct sql_walk w)
{
	skip_explain(&w);
	if (sql_is_at(&w, "set") || sql_is_at(&w, "reset"))
		return (leaves_of_set(&w));
	if (sql_take(&w, "create"))
		return (leaves_of_create(&w));
	if (sql_is_at(&w, "discard"))
		return (leaves_of_discard(&w));
	if (sql_is_at(&w, "do"))
		return (SQL_LEAVES_SETTING | SQL_LEAVES_UNSEEN);
	if (sql_is_at(&w, "listen"))
		return (SQL_LEAVES_LISTENER);
	if (sql_is_at(&w, "drop") || sql_is_at(&w, "close") || sql_is_at(&w, "unlisten"))
		return (SQL_LEAVES_LESS);
	return (0);
}

unsigned
sql_leaves(const struct sql_scan *scan)
{
	struct sql_walk w = {.l = sql_lexer_of(scan)};
	unsigned leaves;
	bool declares, updates = false, inserts = false;

	sql_step(&w);
	leaves = leaves_of_verb(w);
	declares = sql_is_at(&w, "declare");
	while (w.t.kind != SQL_TOKEN_END) {
		if (w.t.kind == SQL_TOKEN_WORD || w.t.kind == SQL_TOKEN_QUOTED)
			leaves |= leaves_of_name(&w, updates);
		updates |= sql_is_at(&w, "update");
		if (inserts && sql_take(&w, "into")) {
			inserts = false;
			continue;
		}
		inserts = sql_is_at(&w, "insert") || sql_is_at(&w, "merge");
		if (declares && sql_take(&w, "with")) {
			if (sql_is_at(&w, "hold"))
				leaves |= SQL_LEAVES_CURSOR;
		} else if (sql_take(&w, "into"))
			leaves |= leaves_of_into(&w);
		else
			sql_step(&w);
	}
	return (leaves);
}

char *
sql_reset_name(const struct sql_scan *scan)
{
	struct sql_walk w = {.l = sql_lexer_of(scan)};
	struct buf name = {0};
	char *result = NULL;

	sql_step(&w);
	if ((sql_is_at(&w, "set") || sql_is_at(&w, "reset")) &&
	    (read_set(&w, &name) & SQL_LEAVES_RESET) != 0 && name.len > 0)
		result = mem_strn((char *)name.mem, name.len);
	buf_free(&name);
	return (result);
}

/* ---- names ---- */

#define DO_DEPTH 3 /* strings in strings: DO, its body, what that executes */

/* w stands on a SET or RESET. */
static void
name_of_set(struct sql_walk w, void (*each)(void *arg, const char *name), void *arg)
{
	struct buf name = {0};

	if (read_set(&w, &name) != SQL_LEAVES_LOCAL && name.len > 0) {
		buf_add(&name, "", 1);
		each(arg, (const char *)name.mem);
	}
	buf_free(&name);
}

/* depth: of strings within DO; 0: it is none. */
static void
names_of_calls(struct sql_walk w, unsigned depth,
    void (*each)(void *arg, const char *name), void *arg)
{
	bool is_do = depth > 0 || sql_is_at(&w, "do"), is_call;
	char *name, *text;
	struct sql_walk inner;

	for (; w.t.kind != SQL_TOKEN_END; sql_step(&w)) {
		text = is_do && depth < DO_DEPTH && w.t.kind == SQL_TOKEN_STRING
			   ? sql_string_value(&w.l, &w.t)
			   : NULL;
		if (text != NULL) {
			inner = (struct sql_walk){
			    .l = {.text = text, .len = (uint32_t)strlen(text)}};
			sql_step(&inner);
			names_of_calls(inner, depth + 1, each, arg);
			free(text);
		}
		if (depth > 0 && (sql_is_at(&w, "set") || sql_is_at(&w, "reset")))
			name_of_set(w, each, arg);
		name = sql_name_value(&w.l, &w.t);
		is_call = name != NULL && strcmp(name, "set_config") == 0;
		free(name);
		if (!is_call)
			continue;
		inner = w;
		sql_step(&inner);
		if (!sql_is_mark(&inner, "("))
			continue;
		sql_step(&inner);
		text = inner.t.kind == SQL_TOKEN_STRING
			   ? sql_string_value(&inner.l, &inner.t)
		       : inner.t.kind == SQL_TOKEN_PARAM
			   ? mem_strn(inner.l.text + inner.t.at, inner.t.end - inner.t.at)
			   : NULL;
		if (text != NULL)
			each(arg, text);
		free(text);
	}
}

void
sql_setting_names(
    const struct sql_scan *scan, void (*each)(void *arg, const char *name), void *arg)
{
	struct sql_walk w = {.l = sql_lexer_of(scan)};

	sql_step(&w);
	if (sql_is_at(&w, "set") || sql_is_at(&w, "reset"))
		name_of_set(w, each, arg);
	names_of_calls(w, 0, each, arg);
}

/* ---- calls of set_config() ---- */

/* '…'::text */
static void
take_cast(struct sql_walk *w)
{
	static const char *const types[] = {"text", "varchar", "boolean", "bool"};
	struct sql_walk behind = *w;

	if (!sql_is_mark(w, "::"))
		return;
	sql_step(&behind);
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (sql_is_at(&behind, types[i])) {
			sql_step(&behind);
			*w = behind;
			return;
		}
}

static bool
take_config_argument(struct sql_walk *w, struct sql_config_argument *out)
{
	if (w->t.kind == SQL_TOKEN_STRING)
		out->text = sql_string_value(&w->l, &w->t);
	else if (w->t.kind == SQL_TOKEN_PARAM && !w->t.is_glued)
		out->param = (unsigned)strtoul(w->l.text + w->t.at + 1, NULL, 10);
	else if (sql_is_at(w, "true") || sql_is_at(w, "false"))
		out->text = mem_strn(w->l.text + w->t.at, w->t.end - w->t.at);
	else if (!sql_is_at(w, "null"))
		return (false);
	if (w->t.kind != SQL_TOKEN_WORD && out->text == NULL && out->param == 0)
		return (false);
	sql_step(w);
	take_cast(w);
	return (true);
}

static bool
take_config_call(struct sql_walk *w, struct sql_config_call *out)
{
	char *alias;

	*out = (struct sql_config_call){0};
	if (sql_take(w, "pg_catalog") && !sql_take_mark(w, "."))
		return (false);
	if (!sql_take(w, "set_config") || !sql_take_mark(w, "(") ||
	    !take_config_argument(w, &out->name) || !sql_take_mark(w, ",") ||
	    !take_config_argument(w, &out->value) || !sql_take_mark(w, ",") ||
	    !take_config_argument(w, &out->is_local) || !sql_take_mark(w, ")"))
		return (false);
	if (!sql_take(w, "as") || sql_is_mark(w, ",") || w->t.kind == SQL_TOKEN_END)
		return (sql_is_mark(w, ",") || w->t.kind == SQL_TOKEN_END);
	alias = sql_name_value(&w->l, &w->t);
	free(alias);
	sql_step(w);
	return (alias != NULL);
}

unsigned
sql_config_calls(const struct sql_scan *scan, struct sql_config_call **out)
{
	struct sql_walk w = {.l = sql_lexer_of(scan)};
	struct sql_config_call *calls = NULL;
	unsigned count = 0;
	bool is_good;

	sql_step(&w);
	is_good = sql_take(&w, "select");
	while (is_good && w.t.kind != SQL_TOKEN_END) {
		calls = mem_realloc(calls, (count + 1) * sizeof(*calls));
		is_good = take_config_call(&w, &calls[count++]) &&
			  (sql_take_mark(&w, ",") || w.t.kind == SQL_TOKEN_END);
	}
	if (!is_good) {
		sql_config_calls_free(calls, count);
		return (0);
	}
	*out = calls;
	return (count);
}

void
sql_config_calls_free(struct sql_config_call *calls, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		free(calls[i].name.text);
		free(calls[i].value.text);
		free(calls[i].is_local.text);
	}
	free(calls);
}

/* ---- a look ---- */

int
sql_look(const char *text, size_t have)
{
	const char *p = text, *end = text + have;
	struct sql_lexer l;

	while (p < end && (*p == ' ' || (*p >= '\t' && *p <= '\r')))
		p++;
	if (p < end && (*p == '-' || *p == '/')) {
		l = (struct sql_lexer){.text = text, .len = (uint32_t)have};
		sql_lex_blanks(&l);
		if (l.is_cut)
			return (-1);
		p = text + l.at;
	}
	if (end - p < 3)
		return (-1);
	switch (p[0] | 0x20) {
	case 's':
		/* select, savepoint, show, start; or set */
		if ((p[2] | 0x20) == 't')
			return ((p[1] | 0x20) == 'e' ? SQL_LOOK_LEAVES : 0);
		if ((p[2] | 0x20) != 'l' || end - p < 10)
			return (0);
		/* select setseed( */
		return (
		    (p[7] | 0x20) == 's' && (p[8] | 0x20) == 'e' && (p[9] | 0x20) == 't'
			? SQL_LOOK_LEAVES
			: 0);
	case 'r':
		/* release, rollback; or reset */
		return ((p[2] | 0x20) == 's' ? SQL_LOOK_LEAVES : 0);
	case 'c':
		/* commit, copy, call; or close, create */
		return ((p[1] | 0x20) == 'r'   ? SQL_LOOK_LEAVES | SQL_LOOK_PREPARE
			: (p[1] | 0x20) == 'l' ? SQL_LOOK_LEAVES
					       : 0);
	case 'd':
		/* delete; or declare, deallocate, discard, do, drop */
		if ((p[1] | 0x20) != 'e')
			return (SQL_LOOK_LEAVES);
		return ((p[2] | 0x20) == 'a'   ? SQL_LOOK_PREPARE
			: (p[2] | 0x20) == 'c' ? SQL_LOOK_LEAVES
					       : 0);
	case 'l':
		/* lock, load; or listen */
		return ((p[1] | 0x20) == 'i' ? SQL_LOOK_LEAVES | SQL_LOOK_PREPARE : 0);
	case 'u':
		/* update; or unlisten */
		return ((p[1] | 0x20) == 'n' ? SQL_LOOK_LEAVES | SQL_LOOK_PREPARE : 0);
	case 'e':
		/* execute, end; or explain */
		return ((p[2] | 0x20) == 'p' ? SQL_LOOK_LEAVES | SQL_LOOK_PREPARE
					     : SQL_LOOK_PREPARE);
	case 'p':
		return (SQL_LOOK_PREPARE);
	default:
		return (0);
	}
}

/* currval( or lastval(, perhaps in quotes. */
static bool
calls_sequence(const char *text, size_t len)
{
	const char *at = text, *end = text + len;

	while ((at = memchr(at, '(', (size_t)(end - at))) != NULL) {
		const char *p = at++;

		while (p > text && (p[-1] == ' ' || (p[-1] >= '\t' && p[-1] <= '\r')))
			p--;
		p -= p > text && p[-1] == '"';
		if (p - text >= 7 && (p[-1] | 0x20) == 'l' && (p[-2] | 0x20) == 'a' &&
		    (p[-3] | 0x20) == 'v' &&
		    (strncasecmp(p - 7, "currval", 7) == 0 ||
			strncasecmp(p - 7, "lastval", 7) == 0))
			return (true);
	}
	return (false);
}

int
sql_look_names(const char *text, size_t len)
{
	const char *at = text, *end = text + len;
	int look = calls_sequence(text, len) ? SQL_LOOK_LEAVES : 0;

	while ((at = memchr(at, '_', (size_t)(end - at))) != NULL) {
		at++;
		if (end - at < 6)
			break;
		if ((*at | 0x20) == 'c' && at - text >= 4 &&
		    strncasecmp(at - 4, "set_config", 10) == 0)
			look |= SQL_LOOK_LEAVES;
		if ((*at | 0x20) == 'a' && strncasecmp(at, "adviso", 6) == 0)
			look |= SQL_LOOK_LEAVES;
		if ((*at | 0x20) == 's' && at - text >= 3 && end - at >= 8 &&
		    strncasecmp(at - 3, "pg_settings", 11) == 0)
			look |= SQL_LOOK_LEAVES;
		if ((*at | 0x20) == 'p' && at - text >= 3 && end - at >= 18 &&
		    strncasecmp(at - 3, "pg_prepared_statement", 21) == 0)
			look |= SQL_LOOK_PREPARE;
	}
	return (look);
}
