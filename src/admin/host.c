/*
 * What the console asks of the process: RELOAD, SET, SHUTDOWN. The host's functions run in
 * the main thread; the call travels there and comes home with the outcome.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct admin_host *host;

void
admin_set_host(const struct admin_host *h)
{
	host = h;
}

const struct admin_host *
admin_host(void)
{
	INVARIANT(host != NULL);
	return (host);
}

/* ---- there and back ---- */

static struct call *
call_of(struct mail *m)
{
	return (CONTAINER_OF(m, struct call, mail));
}

static void
call_send(struct call *c, void (*run)(struct worker *, struct mail *))
{
	INVARIANT(host != NULL);
	c->mail.run = run;
	worker_post(net_main(), &c->mail);
}

static void
call_home(struct call *c, void (*run)(struct worker *, struct mail *))
{
	c->mail.run = run;
	worker_post(c->worker, &c->mail);
}

/* ---- RELOAD ---- */

static void
reload_home(struct worker *w, struct mail *m)
{
	struct call *c = call_of(m);

	(void)w;
	if (c->fault == 0) {
		call_end(c, "RELOAD");
		return;
	}
	call_fail_detail(c, fault_info(F_CONF)->sqlstate,
	    "RELOAD failed, see logs for additional details",
	    c->why[0] != '\0' ? c->why : NULL, NULL);
}

static void
reload_main(struct worker *w, struct mail *m)
{
	struct call *c = call_of(m);

	(void)w;
	c->fault = host->reload(c->why, sizeof(c->why));
	call_home(c, reload_home);
}

void
admin_reload(struct call *c)
{
	if (call_arg_count(c) > 0)
		call_invalid(c);
	else
		call_send(c, reload_main);
}

/* ---- SET ---- */

/* PgBouncer's tag and its message; the reason is ours. */
static void
set_end(struct call *c)
{
	char *tag = mem_printf("SET %s=%s", c->key, c->value);

	call_end(c, tag);
	free(tag);
}

static void
set_fail(struct call *c, const char *key, const char *why)
{
	char *detail = mem_printf("%s: %s", key, why);

	call_fail_detail(c, CONSOLE_ERROR, "SET failed", detail, NULL);
	free(detail);
}

static void
set_home(struct worker *w, struct mail *m)
{
	struct call *c = call_of(m);

	(void)w;
	if (c->fault == 0)
		set_end(c);
	else
		set_fail(c, c->key, c->why);
}

static void
set_main(struct worker *w, struct mail *m)
{
	struct call *c = call_of(m);

	(void)w;
	c->fault = host->set(c->key, c->value, c->why, sizeof(c->why));
	call_home(c, set_home);
}

/* SET key = value, SET key TO value; DEFAULT, when it is not quoted, is the default. */
static bool
set_parse(struct call *c)
{
	const struct setting *s;

	if (call_arg_count(c) != 3 ||
	    !(statement_word_is(&c->st, 2, "=") || statement_word_is(&c->st, 2, "TO"))) {
		call_invalid(c);
		return (false);
	}
	s = setting_find(call_arg(c, 0));
	if (s == NULL) {
		setting_unknown(SC_GLOBAL, call_arg(c, 0), c->why, sizeof(c->why));
		set_fail(c, call_arg(c, 0), c->why);
		return (false);
	}
	if (s->apply == AP_RESTART) {
		set_fail(c, s->key, "cannot be changed without a restart");
		return (false);
	}
	if (s->apply == AP_LATER) {
		set_fail(c, s->key, CONF_LATER);
		return (false);
	}
	c->key = mem_str(s->key);
	c->value =
	    mem_str(statement_word_is(&c->st, 3, "DEFAULT") ? s->dflt : call_arg(c, 2));
	return (true);
}

void
admin_set(struct call *c)
{
	if (set_parse(c))
		call_send(c, set_main);
}

/* ---- SHUTDOWN ---- */

static void
shutdown_home(struct worker *w, struct mail *m)
{
	(void)w;
	call_end(call_of(m), "SHUTDOWN");
}

static void
shutdown_main(struct worker *w, struct mail *m)
{
	struct call *c = call_of(m);

	(void)w;
	host->shutdown((enum admin_shutdown)c->left);
	/* At once: no answer, the client sees its connection close when the process ends. */
	if (c->left != ADMIN_SHUTDOWN_NOW)
		call_home(c, shutdown_home);
}

void
admin_shutdown(struct call *c)
{
	unsigned args = call_arg_count(c);
	enum admin_shutdown mode = ADMIN_SHUTDOWN_NOW;

	if (args == 1 && statement_word_is(&c->st, 1, "WAIT_FOR_SERVERS"))
		mode = ADMIN_SHUTDOWN_WAIT_FOR_SERVERS;
	else if (args == 1 && statement_word_is(&c->st, 1, "WAIT_FOR_CLIENTS"))
		mode = ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS;
	else if (args > 0) {
		call_invalid(c);
		return;
	}
	c->left = mode;
	call_send(c, shutdown_main);
}

void
admin_suspend(struct call *c)
{
	if (call_arg_count(c) > 0)
		call_invalid(c);
	else
		call_fail_detail(c, "0A000", "SUSPEND is not supported", NULL,
		    "In PgBouncer it serves the takeover by a new process (-R), which pgweave does not have. To close server connections, use PAUSE.");
}
