/*
 * ALTER ROUTE: routes of a virtual database that are added at run time, and taken away. The
 * words travel to the main thread, from there to the state store, and home with the outcome.
 *
 *   ALTER ROUTE virtual ADD pattern[, pattern…] TO database
 *   ALTER ROUTE virtual DROP pattern[, pattern…]
 */
#include "private.h"
#include "store.h"
#include <stdlib.h>
#include <string.h>

/* On its way. Main's while it travels; it goes with its call. */
struct route_call {
	struct mail mail;
	struct call *call;
	struct topo_route_text routes[WORDS_MAX / 2];
	size_t count;
	bool drops;
	int fault;
	char why[1024];
};

static void
route_call_free(struct route_call *rc)
{
	for (size_t i = 0; i < rc->count; i++)
		free((void *)(uintptr_t)rc->routes[i].pattern);
	free(rc);
}

/* ---- the words ---- */

static bool
is_mark(const struct word *w)
{
	return (w->kind == WORD_PLAIN && strpbrk(w->text, "=,()") != NULL);
}

/* As it was written: what is in double quotes keeps them. */
static void
put_word(struct buf *out, const struct word *w)
{
	if (w->kind != WORD_QUOTED) {
		buf_addstr(out, w->text);
		return;
	}
	buf_addstr(out, "\"");
	for (const char *p = w->text; *p != '\0'; p++)
		buf_add(out, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
	buf_addstr(out, "\"");
}

/* A dot holds two words together: archive."Old". */
static bool
goes_on(const struct word *w, const struct word *next)
{
	size_t len = strlen(w->text);

	if (is_mark(next))
		return (false);
	return ((w->kind == WORD_PLAIN && len > 0 && w->text[len - 1] == '.') ||
		(next->kind == WORD_PLAIN && next->text[0] == '.'));
}

/* The pattern at *at, and steps over it. NULL: there is none; the caller frees it. */
static char *
take_pattern(const struct statement *st, unsigned *at)
{
	struct buf text = {0};
	char *pattern;

	if (*at >= st->count || is_mark(&st->words[*at]))
		return (NULL);
	do {
		put_word(&text, &st->words[*at]);
		(*at)++;
	} while (*at < st->count && goes_on(&st->words[*at - 1], &st->words[*at]));
	pattern = mem_strn((const char *)text.mem, text.len);
	buf_free(&text);
	return (pattern);
}

/* NULL, or the word where it goes wrong. */
static const char *
route_parse(struct route_call *rc)
{
	const struct statement *st = &rc->call->st;
	unsigned at = st->count - call_arg_count(rc->call) + 1;
	const char *virtual_ = call_arg_count(rc->call) > 0 ? st->words[at - 1].text : "",
		   *database = NULL;

	rc->drops = statement_word_is(st, at, "DROP");
	if (!rc->drops && !statement_word_is(st, at, "ADD"))
		return (at < st->count ? st->words[at].text : "");
	do {
		char *pattern;

		at++;
		pattern =
		    rc->count < ARRAY_LEN(rc->routes) ? take_pattern(st, &at) : NULL;
		if (pattern == NULL)
			return (at < st->count ? st->words[at].text : "");
		rc->routes[rc->count++] =
		    (struct topo_route_text){.virtual_ = virtual_, .pattern = pattern};
	} while (statement_word_is(st, at, ","));
	if (!rc->drops) {
		if (!statement_word_is(st, at, "TO") || at + 1 >= st->count ||
		    is_mark(&st->words[at + 1]))
			return (at < st->count ? st->words[at].text : "");
		database = st->words[at + 1].text;
		at += 2;
	}
	for (size_t i = 0; i < rc->count; i++)
		rc->routes[i].database = database;
	return (at < st->count ? st->words[at].text : NULL);
}

/* ---- there and back ---- */

static void
route_home(struct worker *w, struct mail *m)
{
	struct route_call *rc = CONTAINER_OF(m, struct route_call, mail);
	const struct fault_info *info = rc->fault != 0 ? fault_info(rc->fault) : NULL;
	const char *hint = store_hint(rc->fault),
		   *sqlstate = info != NULL ? info->sqlstate : NULL;

	(void)w;
	if (rc->fault == 0) {
		call_end(rc->call, "ALTER ROUTE");
		route_call_free(rc);
		return;
	}
	if (rc->fault == F_CONF) {
		sqlstate = "55000";
		hint = "Remove it from the file, then RELOAD.";
	}
	call_fail_detail(
	    rc->call, sqlstate, rc->why[0] != '\0' ? rc->why : info->text, NULL, hint);
	route_call_free(rc);
}

static void
route_done(void *arg, int fault, const char *why)
{
	struct route_call *rc = arg;

	rc->fault = fault;
	(void)text_copy(rc->why, sizeof(rc->why), why);
	rc->mail.run = route_home;
	worker_post(rc->call->worker, &rc->mail);
}

static void
route_main(struct worker *w, struct mail *m)
{
	struct route_call *rc = CONTAINER_OF(m, struct route_call, mail);

	(void)w;
	admin_host()->routes_change(rc->routes, rc->count, rc->drops, route_done, rc);
}

void
admin_alter_route(struct call *c)
{
	struct route_call *rc = mem_alloc(sizeof(*rc));
	const char *wrong;

	rc->call = c;
	wrong = route_parse(rc);
	if (wrong != NULL) {
		char *message =
		    wrong[0] != '\0'
			? mem_printf("syntax error at or near \"%.80s\"", wrong)
			: mem_str("syntax error at end of input");

		call_fail_detail(c, "42601", message, NULL, c->command->usage);
		free(message);
		route_call_free(rc);
		return;
	}
	rc->mail.run = route_main;
	worker_post(net_main(), &rc->mail);
}
