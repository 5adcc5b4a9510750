/*
 * From authenticated to ready: the database, the limits, the parameters.
 *
 * What the client asked for in its startup packet and what its server would say are joined
 * to one set of parameters. When the set is one that a server has made canonical before,
 * the client is greeted at once; otherwise a link is taken to set them, which also finds the
 * mistakes in them.
 */
#include "weave.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define GREETING_BYTES 700 /* what most greetings need */

/* ---- parameters of the startup packet ---- */

struct wanted {
	struct session *s;
	struct vars *vars;
	bool only_name; /* nothing but application_name differs */
	char error[256];
};

static bool
in_list(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = list; *at != '\0';) {
		size_t n;

		at += strspn(at, ", \t");
		n = strcspn(at, ", \t");
		if (n == len && strncasecmp(at, name, n) == 0)
			return (true);
		at += n;
	}
	return (false);
}

bool
session_ignores(const struct session *s, const char *parameter)
{
	return (in_list(pool_settings(s->worker)->ignore_startup_parameters, parameter));
}

/* A name that the server takes as it is. */
static bool
is_plain(const char *value)
{
	if (strlen(value) > 63)
		return (false);
	for (; *value != '\0'; value++)
		if (*value < ' ' || *value > '~')
			return (false);
	return (true);
}

const char *
session_application_name(
    const struct session *s, const char *value, char *full, size_t size)
{
	char addr[ADDR_TEXT];

	if (!pool_settings(s->worker)->application_name_add_host)
		return (value);
	addr_text(&s->addr, addr, sizeof(addr));
	snprintf(full, size, "%.150s - %s:%u", value, addr, s->addr.port);
	return (full);
}

static int want_parameter(void *arg, const char *name, const char *value);

/* The words of -c name=value. */
static int
want_options(struct wanted *w, const char *options)
{
	char word[128] = "";
	int fault = proto_options_each(options, want_parameter, w, word, sizeof(word));

	if (fault != 0 && w->error[0] == '\0')
		snprintf(w->error, sizeof(w->error),
		    "invalid command-line argument for server process: %s", word);
	return (fault);
}

static int
want_parameter(void *arg, const char *name, const char *value)
{
	struct wanted *w = arg;
	struct session *s = w->s;
	/* Which parameters a server reports depends on its version. */
	enum vars_kind kind = vars_kind_of(s->worker, name) == VARS_REPORTED &&
				      vars_get(w->vars, name) != NULL
				  ? VARS_REPORTED
				  : VARS_STARTUP;
	const char *known;
	char full[256];

	if (strcmp(name, "user") == 0 || strcmp(name, "database") == 0 ||
	    strcmp(name, "replication") == 0 || strcmp(name, "options") == 0 ||
	    strncmp(name, "_pq_.", 5) == 0 || session_ignores(s, name))
		return (0);
	if (s->weave != NULL && weave_startup(s, name, value, w->error, sizeof(w->error)))
		return (w->error[0] != '\0' ? F_NOT_FOUND : 0);
	if (strcasecmp(name, "application_name") == 0) {
		value = session_application_name(s, value, full, sizeof(full));
		if (!is_plain(value))
			w->only_name = false;
	} else {
		known = vars_get(w->vars, name);
		if (known == NULL || strcmp(known, value) != 0)
			w->only_name = false;
	}
	w->vars = vars_with(s->worker, w->vars, name, value, kind);
	return (0);
}

/* Wherever the options stand in the packet, a parameter of their name in it wins, as on
 * PostgreSQL. */
static int
want_first(void *arg, const char *name, const char *value)
{
	const struct wanted *w = arg;

	if (strcmp(name, "options") != 0 || session_ignores(w->s, name))
		return (0);
	return (want_options(arg, value));
}

/* ---- limits ---- */

void
session_show(struct session *s, struct seat *seat)
{
	struct pool_secret *shown = s->login != NULL
					? s->login->shown
					: (s->weave != NULL ? s->weave->shown : NULL);

	if (shown != NULL && strcmp(seat->pool->role, s->user->name) == 0)
		pool_show(seat, shown);
}

/* One more client, unless that would be more than max (0: no limit). */
static bool
count_client(_Atomic unsigned *count, int64_t max)
{
	if (atomic_fetch_add(count, 1) >= (uint64_t)max && max > 0) {
		atomic_fetch_sub(count, 1);
		return (false);
	}
	return (true);
}

static void
refuse(struct session *s, const char *sqlstate, const char *what, const char *name)
{
	char *message = mem_printf("%s: %s", what, name);

	if (strcmp(sqlstate, "3D000") == 0)
		session_log(
		    s, LOG_INFO_, "login failed: db=%s user=%s", name, session_user(s));
	session_close(s, sqlstate, message);
	free(message);
}

/* The seat, and the counts of clients; false: refused. */
static bool
welcome_seat(struct session *s, const struct topo *topo)
{
	const char *dbname = s->login->startup.database, *user = s->login->startup.user;
	const struct topo_database *db = topo_database_find(topo, dbname);
	struct topo_limits limits;
	struct seat *seat;

	if (db == NULL) {
		refuse(s, "3D000", "no such database", dbname);
		return (false);
	}
	if (topo_settings(topo)->auth_type == AUTH_ANY &&
	    topo_database_served(db)->user == NULL) {
		refuse(s, "28000",
		    "auth_type=any needs a configured user for the database", dbname);
		return (false);
	}
	topo_limits(topo, db, topo_login_find(topo, user), &limits);
	seat = pool_seat(s->worker, db, dbname, user);
	if (db->is_auto && !atomic_exchange(&seat->pool->db->is_told, true))
		session_log(s, LOG_INFO_, "registered new auto-database: db=%s", dbname);
	if (seat->pool->db->is_disabled) {
		char *message = mem_printf("database \"%s\" is disabled", dbname);

		session_close(s, "57P03", message);
		free(message);
		return (false);
	}
	if (!count_client(&seat->pool->db->clients, limits.max_db_client_connections)) {
		session_close(s, "53300",
		    "client connections exceeded (max_db_client_connections)");
		return (false);
	}
	if (!count_client(&s->user->clients, limits.max_user_client_connections)) {
		atomic_fetch_sub(&seat->pool->db->clients, 1);
		session_close(s, "53300",
		    "client connections exceeded (max_user_client_connections)");
		return (false);
	}
	s->seat = seat;
	session_show(s, seat);
	s->holds_clients = true;
	seat->clients++;
	seat->used_us = clock_us();
	s->mode =
	    s->replication != REPLICATION_NONE ? POOL_SESSION : (uint8_t)limits.pool_mode;
	s->rewrites =
	    s->mode != POOL_SESSION && topo_settings(topo)->max_prepared_statements > 0;
	return (true);
}

const struct topo_virtual *
session_find_virtual(const struct topo *topo, const char *dbname, const char **member)
{
	const struct topo_database *db = topo_database_find(topo, dbname);
	const struct topo_virtual *v = topo_virtual_find(topo, dbname);
	const char *dot = strrchr(dbname, '.');
	char *name;

	*member = NULL;
	if (db != NULL && !db->is_auto)
		return (NULL);
	if (v != NULL || dot == NULL)
		return (v);
	name = mem_strn(dbname, (size_t)(dot - dbname));
	v = topo_virtual_find(topo, name);
	free(name);
	if (v != NULL)
		*member = dot + 1;
	return (v);
}

static bool
welcome_place(struct session *s, const struct topo *topo)
{
	const char *dbname = s->login->startup.database, *member;
	const struct topo_virtual *v = session_find_virtual(topo, dbname, &member);

	if (v != NULL && s->replication != REPLICATION_NONE) {
		session_refuse_walsender(s, dbname);
		return (false);
	}
	if (v == NULL)
		return (session_key_may(s, dbname) && welcome_seat(s, topo));
	if (member != NULL && topo_member_find(v, member) == NULL) {
		refuse(s, "3D000", "no such database", dbname);
		return (false);
	}
	return (weave_begin(s, v, member));
}

/* ---- the way to the greeting ---- */

/* Needs a link: to learn what the server says, or to set what the client wants. */
static void
welcome_take_link(struct session *s)
{
	struct link *l;

	s->waiter.granted = session_granted;
	s->waiter.refused = session_refused;
	s->waiter.is_login = s->waiter.is_asking = true;
	l = pool_lend(s->seat, &s->waiter, s->login->want);
	if (l != NULL)
		session_granted(&s->waiter, l);
	else if (s->state != SESSION_CLOSED)
		session_flow(s);
}

/* The set of parameters that the client wants, on top of what the server has. False:
 * refused. */
static bool
welcome_want(struct session *s, bool *is_known)
{
	struct session_login *login = s->login;
	struct wanted w = {
	    .s = s, .vars = vars_hold(s->seat->welcome), .only_name = true};
	struct vars *canonical;

	if (proto_startup_each(&login->startup, want_first, &w) != 0 ||
	    proto_startup_each(&login->startup, want_parameter, &w) != 0) {
		vars_release(s->worker, w.vars);
		session_close(s, strstr(w.error, "pgweave.") ? "22023" : "08P01",
		    w.error[0] != '\0' ? w.error : "invalid startup parameters");
		return (false);
	}
	if (s->weave != NULL && s->weave->key != NULL && s->weave->key->is_read_only) {
		/* What a function does is the server's to refuse. */
		w.only_name = false;
		w.vars =
		    vars_with(s->worker, w.vars, "default_transaction_read_only", "on",
			vars_get(w.vars, "default_transaction_read_only") != NULL
			    ? VARS_REPORTED
			    : VARS_STARTUP);
	}
	vars_release(s->worker, login->want);
	login->want = w.vars;
	canonical = vars_canonical(login->want);
	*is_known = w.only_name || canonical != NULL;
	if (*is_known)
		s->vars = vars_hold(canonical != NULL ? canonical : login->want);
	return (true);
}

/* ---- the pid ---- */

/* A client that has its link for itself is told the pid of the server's process. */
static bool
welcome_tells_pid(const struct session *s)
{
	return (s->mode == POOL_SESSION && s->weave == NULL);
}

static void
welcome_looked(struct waiter *w)
{
	session_greet(CONTAINER_OF(w, struct session, waiter));
}

/* All else is known. It does not wait for others, nor for a server that fails. */
static void
welcome_find_pid(struct session *s)
{
	if (!welcome_tells_pid(s) ||
	    pool_keep(s->seat, &s->waiter, welcome_looked) != POOL_KEPT_COMING)
		session_greet(s);
	else
		session_flow(s);
}

void
session_welcome(struct session *s)
{
	bool is_known;

	session_move(s, SESSION_WELCOME);
	if (!welcome_place(s, pool_worker(s->worker)->topo))
		return;
	stream_pause(&s->stream);
	if (s->replication != REPLICATION_NONE) {
		session_replicate(s);
		return;
	}
	if (!pool_learn(s->seat)) {
		welcome_take_link(s);
		return;
	}
	if (!welcome_want(s, &is_known))
		return;
	if (is_known)
		welcome_find_pid(s);
	else
		welcome_take_link(s);
}

void
session_welcome_link(struct session *s, struct link *l)
{
	bool is_known;

	if (s->replication != REPLICATION_NONE) {
		s->vars = vars_hold(l->vars);
		session_greet(s);
		return;
	}
	if (s->seat->welcome == NULL)
		s->seat->welcome = vars_hold(l->born);
	if (s->login->want == NULL) {
		if (!welcome_want(s, &is_known))
			return;
		if (is_known) {
			session_greet(s);
			return;
		}
	}
	if (!session_apply_vars(s, s->login->want))
		session_welcome_applied(s, NULL);
}

void
session_welcome_applied(struct session *s, const struct proto_error_fields *error)
{
	struct link *l = s->link;

	if (error != NULL) {
		session_close(s, error->sqlstate, error->message);
		return;
	}
	s->vars = vars_hold(l->vars);
	vars_set_canonical(s->worker, s->login->want, l->vars);
	session_greet(s);
}

void
session_greet(struct session *s)
{
	const char *notice = pool_settings(s->worker)->login_notify_message;
	struct link *l = s->link, *told = l != NULL ? l : s->waiter.kept;
	struct buf out = {0};
	const char *name, *value;
	enum vars_kind kind;

	if (told != NULL && welcome_tells_pid(s))
		session_key_tell(s, told->pid);
	if (l != NULL)
		link_serve(l, session_told_pid(s));
	session_login_said(s, &out);
	buf_room(&out, GREETING_BYTES);
	proto_auth_ok(&out);
	for (unsigned i = 0; i < vars_count(s->vars); i++) {
		vars_at(s->vars, i, &name, &value, &kind);
		if (kind != VARS_STARTUP)
			proto_parameter_status(&out, name, value);
	}
	session_key_put(s, &out);
	if (*notice != '\0')
		proto_error(&out, "NOTICE", "00000", notice, NULL, NULL);
	proto_ready(&out, 'I');
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
	METRIC_INC(&s->seat->metrics, client_login_count);
	s->startup = vars_hold(s->vars);
	session_login_free(s);
	session_move(s, SESSION_IDLE);
	if (s->replication != REPLICATION_NONE)
		session_move(s, SESSION_ACTIVE);
	else if (l != NULL) {
		s->link = NULL;
		l->drawn = l->drawn_before;
		pool_give(l, false);
		if (s->told != NULL)
			pool_keep_this(l, &s->waiter);
	}
	session_flow(s);
}
