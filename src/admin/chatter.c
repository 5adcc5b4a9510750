/*
 * What drivers send of their own accord when they connect, begin, end or reset: the console
 * has no transactions and no session state, so most of it is answered and means nothing.
 */
#include "private.h"
#include <ctype.h>
#include <string.h>
#include <strings.h>

static const struct param {
	struct rows_column column;
	const char *value;
} params[] = {
#define PARAM(name, value) {{name, ROWS_TEXT}, value},
#include "tbl/admin_views.def"
};

/* Words of SHOW and SET that stand for a parameter's name. */
static const struct {
	const char *words[4], *name;
} spellings[] = {
    {{"transaction", "isolation", "level"}, "transaction_isolation"},
    {{"time", "zone"}, "timezone"},
};

static const struct param *
param_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(params); i++)
		if (strcasecmp(params[i].column.name, name) == 0)
			return (&params[i]);
	return (NULL);
}

/* The parameter that the words from `at` on name; *next: the word behind the name. */
static const struct param *
param_at(const struct statement *st, unsigned at, unsigned *next)
{
	for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
		unsigned n = 0;

		while (spellings[i].words[n] != NULL &&
		       statement_word_is(st, at + n, spellings[i].words[n]))
			n++;
		if (spellings[i].words[n] == NULL) {
			*next = at + n;
			return (param_find(spellings[i].name));
		}
	}
	*next = at + 1;
	return (at < st->count ? param_find(st->words[at].text) : NULL);
}

const char *
chatter_param(const struct statement *st, unsigned at, const struct rows_column **column)
{
	unsigned next;
	const struct param *p = param_at(st, at, &next);

	if (p == NULL || next != st->count)
		return (NULL);
	*column = &p->column;
	return (p->value);
}

bool
chatter_is_set(const struct statement *st)
{
	unsigned at = 1, next;

	if (!statement_word_is(st, 0, "SET"))
		return (false);
	if (statement_begins(st, "SET SESSION CHARACTERISTICS") ||
	    statement_begins(st, "SET SESSION AUTHORIZATION DEFAULT") ||
	    statement_begins(st, "SET TRANSACTION") || statement_begins(st, "SET NAMES"))
		return (true);
	if (statement_word_is(st, 1, "SESSION") || statement_word_is(st, 1, "LOCAL"))
		at++;
	return (param_at(st, at, &next) != NULL && next < st->count);
}

const char *
chatter_several(const char *sql)
{
	const char *tag = NULL;

	while (*sql != '\0') {
		const struct rows_column *column;
		const struct command *command;
		struct statement st;
		bool is_chatter = statement_read(&st, &sql);

		command = is_chatter ? command_find(&st) : NULL;
		if (is_chatter && chatter_is_set(&st))
			tag = "SET";
		else if (command == NULL || (command->effect != EFFECT_DRIVER &&
						command->run != admin_select))
			is_chatter = is_chatter && st.count == 0;
		else if (command->run != admin_select ||
			 (chatter_select(&st, &column) && column == NULL))
			tag = command->usage;
		else
			is_chatter = false;
		statement_free(&st);
		if (!is_chatter)
			return (NULL);
	}
	return (tag);
}

void
admin_nothing(struct call *c)
{
	call_end(c, c->command->usage);
}

/* ---- SELECT ---- */

static const struct rows_column select_number = {"?column?", ROWS_INT4};
static const struct rows_column select_config = {"set_config", ROWS_TEXT};

/* A function's name, with or without its schema. */
static bool
is_function(const struct statement *st, unsigned at, const char *name)
{
	const char *text = at < st->count ? st->words[at].text : "";

	if (strncasecmp(text, "pg_catalog.", 11) == 0)
		text += 11;
	return (strcasecmp(text, name) == 0 && statement_word_is(st, at + 1, "("));
}

/* A whole number of at most nine digits. */
static bool
is_number(const struct word *w)
{
	size_t len = strspn(w->text, "0123456789");

	return (w->kind == WORD_PLAIN && len > 0 && len <= 9 && w->text[len] == '\0');
}

bool
chatter_select(const struct statement *st, const struct rows_column **column)
{
	*column = NULL;
	if (st->count == 2 && is_number(&st->words[1]))
		*column = &select_number;
	else if (st->count == 9 && is_function(st, 1, "set_config") &&
		 st->words[3].kind == WORD_STRING && st->words[5].kind == WORD_STRING)
		*column = &select_config;
	else
		return (st->count == 4 && is_function(st, 1, "pg_advisory_unlock_all"));
	return (true);
}

/* The one value of SELECT 1 is itself, that of set_config() the one to be set. */
void
admin_select(struct call *c)
{
	const struct rows_column *column;
	const char *value;

	if (!chatter_select(&c->st, &column)) {
		select_start(c);
		return;
	}
	if (column != NULL) {
		value = c->st.words[column == &select_number ? 1 : 5].text;
		c->sink->ops->begin(c->sink, column, 1);
		c->sink->ops->put(c->sink, &value);
	}
	call_end(c, "SELECT");
}
