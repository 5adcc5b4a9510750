/*
 * SELECT pg_terminate_backend(…) or pg_cancel_backend(…), and nothing else: whose process is
 * meant, as a constant or a parameter.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

struct walk {
	struct sql_lexer l;
	struct sql_token t;
};

static void
step(struct walk *w)
{
	sql_lex(&w->l, &w->t);
}

static bool
take(struct walk *w, const char *word)
{
	bool is_it = sql_token_is(&w->l, &w->t, word);

	if (is_it)
		step(w);
	return (is_it);
}

static bool
take_mark(struct walk *w, const char *mark)
{
	bool is_it = sql_token_is_mark(&w->l, &w->t, mark);

	if (is_it)
		step(w);
	return (is_it);
}

/* A whole number or parameter, perhaps with a type behind it. */
static bool
take_argument(struct walk *w, int64_t *number, unsigned *param)
{
	const char *p = w->l.text + w->t.at;
	char digits[20];
	size_t len = w->t.end - w->t.at;
	char *end;

	*number = 0;
	*param = 0;
	if ((w->t.kind != SQL_TOKEN_NUMBER && w->t.kind != SQL_TOKEN_PARAM) ||
	    w->t.is_glued || len >= sizeof(digits))
		return (false);
	memcpy(digits, p, len);
	digits[len] = '\0';
	if (w->t.kind == SQL_TOKEN_PARAM)
		*param = (unsigned)strtoul(digits + 1, &end, 10);
	else
		*number = strtoll(digits, &end, 10);
	if (*end != '\0' || *param > 65535)
		return (false);
	step(w);
	if (take_mark(w, "::"))
		return (take(w, "int") || take(w, "int4") || take(w, "integer") ||
			take(w, "int8") || take(w, "bigint"));
	return (true);
}

static bool
take_label(struct walk *w, char out[64])
{
	char *name;

	if (take(w, "as") || w->t.kind == SQL_TOKEN_QUOTED) {
		if (w->t.kind != SQL_TOKEN_QUOTED && w->t.kind != SQL_TOKEN_WORD)
			return (false);
		name = sql_name_value(&w->l, &w->t);
		if (name == NULL || strchr(name, '"') != NULL || name[0] == '\0') {
			free(name);
			return (false);
		}
		(void)text_copy(out, 64, name);
		free(name);
		step(w);
	}
	return (true);
}

bool
sql_signal_read(const char *text, size_t len, struct sql_signal *out)
{
	struct walk w = {.l = {.text = text, .len = (uint32_t)len}};
	unsigned param;
	int64_t number;

	*out = (struct sql_signal){0};
	step(&w);
	if (!take(&w, "select"))
		return (false);
	out->call_at = w.t.at;
	if (take(&w, "pg_catalog") && !take_mark(&w, "."))
		return (false);
	out->terminates = sql_token_is(&w.l, &w.t, "pg_terminate_backend");
	if (!out->terminates && !sql_token_is(&w.l, &w.t, "pg_cancel_backend"))
		return (false);
	(void)text_copy(out->label, sizeof(out->label),
	    out->terminates ? "pg_terminate_backend" : "pg_cancel_backend");
	step(&w);
	if (!take_mark(&w, "(") || !take_argument(&w, &out->pid, &out->param))
		return (false);
	if (take_mark(&w, ",") &&
	    (!out->terminates || !take_argument(&w, &number, &param)))
		return (false);
	out->call_len = w.t.end - out->call_at;
	if (!take_mark(&w, ")") || !take_label(&w, out->label))
		return (false);
	while (take_mark(&w, ";"))
		;
	return (w.t.kind == SQL_TOKEN_END);
}
