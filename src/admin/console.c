/*
 * Statements of console sessions: which command it is, whether the one who asks may, and the
 * call that lives until the answer is given.
 */
#include "private.h"
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHECK_EVERY_US 50000

const struct command command_table[] = {
#define COMMAND(verb, usage, role, effect, handler, doc)                                 \
	{verb, usage, ROLE_##role, EFFECT_##effect, handler, doc},
#include "tbl/all.def"
};
const size_t command_count = ARRAY_LEN(command_table);

const struct command *
command_find(const struct statement *st)
{
	for (size_t i = 0; i < command_count; i++)
		if (statement_begins(st, command_table[i].verb))
			return (&command_table[i]);
	return (NULL);
}

/* ---- calls ---- */

struct admin_worker {
	TAILQ_HEAD(, call) calls; /* not answered yet */
};

/* There while the worker has calls. */
static struct admin_worker *
admin_worker(struct worker *w)
{
	struct admin_worker *aw = w->slot[WORKER_ADMIN];

	if (aw == NULL) {
		aw = w->slot[WORKER_ADMIN] = mem_alloc(sizeof(*aw));
		TAILQ_INIT(&aw->calls);
	}
	return (aw);
}

void
show_free(struct show *show)
{
	if (show == NULL)
		return;
	rows_list_free(&show->rows);
	sums_free(&show->sums);
	buf_free(&show->text);
	free(show);
}

static void
call_free(struct call *c)
{
	struct admin_worker *aw = admin_worker(c->worker);

	TAILQ_REMOVE(&aw->calls, c, entry);
	if (TAILQ_EMPTY(&aw->calls)) {
		c->worker->slot[WORKER_ADMIN] = NULL;
		free(aw);
	}
	timer_cancel(&c->timer);
	show_free(c->show);
	select_free(c->select);
	statement_free(&c->st);
	free(c->database);
	free(c->key);
	free(c->value);
	free(c->who);
	free(c->sql);
	free(c);
}

void
admin_fini(struct worker *w)
{
	const struct admin_worker *aw;

	while ((aw = w->slot[WORKER_ADMIN]) != NULL)
		call_fail(
		    TAILQ_FIRST(&aw->calls), "57P01", "the proxy has been shut down");
}

static struct call *
call_create(struct session *s, const char *sql, struct rows_sink *sink)
{
	struct call *c = mem_alloc(sizeof(*c));
	char addr[ADDR_TEXT];

	addr_text(&s->addr, addr, sizeof(addr));
	c->worker = s->worker;
	c->sink = sink;
	c->is_admin = s->is_admin;
	c->console = s->says_pgbouncer ? "pgbouncer" : "pgweave";
	c->who = mem_printf("C-%#" PRIx32 ": %s/%s@%s:%u", s->pid, session_database(s),
	    session_user(s), addr, s->addr.port);
	c->sql = mem_str(sql);
	TAILQ_INSERT_TAIL(&admin_worker(c->worker)->calls, c, entry);
	return (c);
}

void
call_end(struct call *c, const char *tag)
{
	c->sink->ops->end(c->sink, tag);
	call_free(c);
}

void
call_fail_detail(struct call *c, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	if (pool_settings(c->worker)->log_pooler_errors)
		log_warning("%s pooler error: %s%s%s", c->who, message,
		    detail != NULL ? ": " : "", detail != NULL ? detail : "");
	c->sink->ops->fail(c->sink, sqlstate, message, detail, hint);
	call_free(c);
}

void
call_fail(struct call *c, const char *sqlstate, const char *fmt, ...)
{
	char message[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	call_fail_detail(c, sqlstate, message, NULL, NULL);
}

void
call_invalid(struct call *c)
{
	char *message = mem_printf("invalid command '%s', use SHOW HELP;", c->sql);

	call_fail_detail(c, CONSOLE_ERROR, message, NULL, NULL);
	free(message);
}

void
call_notice(struct call *c, const char *fmt, ...)
{
	char message[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	c->sink->ops->notice(c->sink, message, NULL);
}

void
call_visit(struct call *c, void (*visit)(struct worker *, void *),
    void (*done)(struct worker *, void *))
{
	net_visit(c->worker, visit, done, c);
}

static void
call_timer(struct timer *t)
{
	struct call *c = CONTAINER_OF(t, struct call, timer);

	c->check(c);
}

void
call_check_later(struct call *c, void (*check)(struct call *))
{
	c->check = check;
	c->timer.fire = call_timer;
	timer_set(c->worker, &c->timer, CHECK_EVERY_US);
}

static unsigned
verb_words(const char *verb)
{
	unsigned n = 1;

	for (; *verb != '\0'; verb++)
		n += *verb == ' ';
	return (n);
}

unsigned
call_arg_count(const struct call *c)
{
	return (c->st.count - verb_words(c->command->verb));
}

const char *
call_arg(const struct call *c, unsigned i)
{
	INVARIANT(i < call_arg_count(c));
	return (c->st.words[verb_words(c->command->verb) + i].text);
}

/* "PAUSE 'bank' command issued", as PgBouncer writes it. */
static void
call_log(const struct call *c)
{
	unsigned count = call_arg_count(c), verb = c->st.count - count;
	bool is_name = count == 1 && strstr(c->command->usage, "database") != NULL;
	struct buf text = {0};

	for (unsigned i = 0; i < count; i++) {
		bool is_quoted = is_name || c->st.words[verb + i].kind == WORD_STRING;
		const char *quote = is_quoted ? "'" : "";

		buf_addf(&text, " %s%s%s", quote, call_arg(c, i), quote);
	}
	log_info("%s %s%.*s command issued", c->who, c->command->verb, (int)text.len,
	    text.len > 0 ? (const char *)text.mem : "");
	buf_free(&text);
}

/* ---- what the session room calls ---- */

static void
console_run(struct session *s, const char *sql, struct rows_sink *sink)
{
	struct call *c = call_create(s, sql, sink);
	const char *rest = sql, *tag;

	if (!statement_read(&c->st, &rest)) {
		call_invalid(c);
		return;
	}
	if (c->st.count == 0 && *rest == '\0') {
		call_end(c, "");
		return;
	}
	if (*rest != '\0') {
		tag = chatter_several(sql);
		if (tag != NULL)
			call_end(c, tag);
		else
			call_invalid(c);
		return;
	}
	if (chatter_is_set(&c->st)) {
		call_notice(c, "SET ignored");
		call_end(c, "SET");
		return;
	}
	c->command = command_find(&c->st);
	if (c->command == NULL) {
		call_invalid(c);
		return;
	}
	if (c->command->role == ROLE_ADMIN && !c->is_admin) {
		call_fail(c, "42501", "admin access needed");
		return;
	}
	if (c->command->effect == EFFECT_CHANGE)
		call_log(c);
	c->command->run(c);
}

static bool
console_describe(struct session *s, const char *sql, const struct rows_column **columns,
    unsigned *count)
{
	const char *whole = sql;
	struct statement st;
	const struct command *command = NULL;
	const struct view *view;
	bool is_known;

	(void)s;
	*columns = NULL;
	*count = 0;
	is_known = statement_read(&st, &sql) && *sql == '\0';
	if (is_known)
		command = command_find(&st);
	if (command != NULL && command->run == admin_show) {
		view = st.count > 1 ? view_find(st.words[1].text) : NULL;
		if (view != NULL)
			*columns = view_columns(view, count);
		else if (chatter_param(&st, 1, columns) != NULL)
			*count = 1;
		else
			is_known = false;
	} else if (command != NULL && command->run == admin_select) {
		is_known = chatter_select(&st, columns);
		*count = *columns != NULL;
		if (!is_known)
			is_known = select_describe(whole, columns, count);
	} else if (command != NULL && (command->run == admin_create_key ||
					  command->run == admin_rotate_key)) {
		*columns = admin_key_columns(count);
	} else if (command == NULL && !chatter_is_set(&st))
		is_known = is_known && st.count == 0;
	statement_free(&st);
	return (is_known);
}

const struct session_console admin_console = {
    .describe = console_describe,
    .run = console_run,
};

/* ---- SHOW HELP ---- */

/* PgBouncer's form: a notice and its detail. Views eight to a line. */
void
admin_show_help(struct call *c)
{
	struct buf text = {0};

	for (size_t i = 0; i < view_count; i++)
		buf_addf(
		    &text, "%s%s", i % 8 == 0 ? "\n\tSHOW " : "|", view_table[i].name);
	for (size_t i = 0; i < command_count; i++)
		if (command_table[i].effect != EFFECT_DRIVER &&
		    command_table[i].run != admin_show)
			buf_addf(&text, "\n\t%s", command_table[i].usage);
	buf_addf(&text, "%c", '\0');
	c->sink->ops->notice(c->sink, "Console usage", (const char *)text.mem);
	buf_free(&text);
	call_end(c, "SHOW");
}
