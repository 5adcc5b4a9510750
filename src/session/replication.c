/*
 * Walsenders: clients that say `replication` when they connect, of the whole cluster (true) or of
 * a database (database). Each has a link of its own from its login to its end, whatever the pool
 * mode, whose startup packet says what the client's said: a walsender knows no SET. From then on
 * the bytes go as those of any session do, in both directions at once while it streams.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
note_replication(void *arg, const char *name, const char *value)
{
	const char **out = arg;

	if (strcmp(name, "replication") == 0)
		*out = value;
	return (0);
}

bool
session_read_replication(struct session *s)
{
	const struct proto_startup *st = &s->login->startup;
	enum proto_replication replication = REPLICATION_NONE;
	const char *value = NULL;
	char *message;

	/* The console is no walsender, nor is who is to be taken for an ordinary client. */
	if (topo_is_console(st->database) || session_ignores(s, "replication"))
		return (true);
	(void)!proto_startup_each(st, note_replication, &value);
	if (value != NULL && proto_replication_parse(value, &replication) != 0) {
		message = mem_printf(
		    "invalid value for parameter \"replication\": \"%s\"", value);
		session_error(s, "FATAL", fault_info(F_PROTO_REPLICATION)->sqlstate,
		    message, NULL,
		    "Valid values are: \"false\", 0, \"true\", 1, \"database\".");
		session_end(s, message);
		free(message);
		return (false);
	}
	s->replication = (uint8_t)replication;
	return (true);
}

void
session_refuse_walsender(struct session *s, const char *dbname)
{
	char *message = mem_printf(
	    "virtual database \"%s\" takes no replication connections", dbname);

	session_error(s, "FATAL", "0A000", message,
	    "Each member has a write-ahead log of its own.",
	    "Connect to the database of one member, under its own name.");
	session_end(s, message);
	free(message);
}

/* ---- what the server is told ---- */

struct own_words {
	struct session *s;
	struct buf *out;
	char wrong[128]; /* the word of the options that is none */
};

static int
own_parameter(void *arg, const char *name, const char *value)
{
	struct own_words *w = arg;
	char full[256];

	if (strcmp(name, "user") == 0 || strcmp(name, "database") == 0 ||
	    strcmp(name, "options") == 0 || strncmp(name, "_pq_.", 5) == 0 ||
	    session_ignores(w->s, name))
		return (0);
	if (strcmp(name, "application_name") == 0)
		value = session_application_name(w->s, value, full, sizeof(full));
	buf_add(w->out, name, strlen(name) + 1);
	buf_add(w->out, value, strlen(value) + 1);
	return (0);
}

/* First, for a parameter of the packet wins. */
static int
own_options(void *arg, const char *name, const char *value)
{
	struct own_words *w = arg;

	if (strcmp(name, "options") != 0 || session_ignores(w->s, name))
		return (0);
	return (proto_options_each(value, own_parameter, w, w->wrong, sizeof(w->wrong)));
}

void
session_replicate(struct session *s)
{
	struct session_login *login = s->login;
	struct own_words w = {.s = s, .out = &login->own.params};
	char *message;
	int fault;

	login->own.replication = (enum proto_replication)s->replication;
	fault = proto_startup_each(&login->startup, own_options, &w);
	if (fault == 0)
		fault = proto_startup_each(&login->startup, own_parameter, &w);
	if (fault != 0) {
		message = mem_printf("%s: %s", fault_info(fault)->text, w.wrong);
		session_close(s, fault_info(fault)->sqlstate, message);
		free(message);
		return;
	}
	s->waiter.granted = session_granted;
	s->waiter.refused = session_refused;
	pool_lend_own(s->seat, &s->waiter, &login->own);
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}
