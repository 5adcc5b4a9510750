/*
 * SELECT pg_terminate_backend(…) or pg_cancel_backend(…), and nothing else: whose process is
 * meant, as a constant or a parameter.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* A whole number or parameter, perhaps with a type behind it. */
static bool
take_argument(struct sql_walk *w, int64_t *number, unsigned *param)
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
	sql_step(w);
	if (sql_take_mark(w, "::"))
		return (sql_take(w, "int") || sql_take(w, "int4") ||
			sql_take(w, "integer") || sql_take(w, "int8") ||
			sql_take(w, "bigint"));
	return (true);
}

static bool
take_label(struct sql_walk *w, char out[64])
{
	char *name;

	if (sql_take(w, "as") || w->t.kind == SQL_TOKEN_QUOTED) {
		if (w->t.kind != SQL_TOKEN_QUOTED && w->t.kind != SQL_TOKEN_WORD)
			return (false);
		name = sql_name_value(&w->l, &w->t);
		if (name == NULL || strchr(name, '"') != NULL || name[0] == '\0') {
			free(name);
			return (false);
		}
		(void)text_copy(out, 64, name);
		free(name);
		sql_step(w);
	}
	return (true);
}

bool
sql_signal_read(const char *text, size_t len, struct sql_signal *out)
{
	struct sql_walk w = {.l = {.text = text, .len = (uint32_t)len}};
	unsigned param;
	int64_t number;

	*out = (struct sql_signal){0};
	sql_step(&w);
	if (!sql_take(&w, "select"))
		return (false);
	out->call_at = w.t.at;
	if (sql_take(&w, "pg_catalog") && !sql_take_mark(&w, "."))
		return (false);
	out->terminates = sql_token_is(&w.l, &w.t, "pg_terminate_backend");
	if (!out->terminates && !sql_token_is(&w.l, &w.t, "pg_cancel_backend"))
		return (false);
	(void)text_copy(out->label, sizeof(out->label),
	    out->terminates ? "pg_terminate_backend" : "pg_cancel_backend");
	sql_step(&w);
	if (!sql_take_mark(&w, "(") || !take_argument(&w, &out->pid, &out->param))
		return (false);
	if (sql_take_mark(&w, ",") &&
	    (!out->terminates || !take_argument(&w, &number, &param)))
		return (false);
	out->call_len = w.t.end - out->call_at;
	if (!sql_take_mark(&w, ")") || !take_label(&w, out->label))
		return (false);
	while (sql_take_mark(&w, ";"))
		;
	return (w.t.kind == SQL_TOKEN_END);
}
