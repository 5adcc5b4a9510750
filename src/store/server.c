/*
 * store/server.c: the connection to the PostgreSQL database that proxies share a store in:
 * libpq, in the store's own thread (or that of the command line), which may wait.
 *
 *   closed --retry_at_us--> connecting --login, schema--> open --lost--> closed
 *
 * Nothing waits longer than its deadline. Only the resolution of a name, which libpq leaves
 * to the system, has none.
 */
#include "private.h"
#include "stat.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND_US   INT64_C(1000000)
#define CONNECT_US  (5 * SECOND_US) /* for one host */
#define ANSWER_US   (5 * SECOND_US) /* for one statement */
#define BACKOFF_MAX (5 * SECOND_US)

/* ---- words ---- */

void
server_place(const struct store_server *s, char *out, size_t size)
{
	const struct topo_database *db = s->database;
	const struct topo_host *h = &db->hosts[s->host];

	snprintf(out, size, "database %.100s (%.100s@%.100s:%u/%.100s)", db->name,
	    db->user != NULL ? db->user : "", h->host, h->port,
	    db->dbname != NULL ? db->dbname : db->name);
}

int
server_down(const struct store_server *s, char *why, size_t why_len)
{
	char place[600];

	server_place(s, place, sizeof(place));
	snprintf(why, why_len, "the state store cannot be used: %s: %s", place,
	    s->why[0] != '\0' ? s->why : "not connected yet");
	return (F_STORE_DOWN);
}

static void
error_libpq(struct store_server *s)
{
	s->sqlstate[0] = '\0';
	side_error_text(
	    s->conn != NULL ? PQerrorMessage(s->conn) : NULL, s->error, sizeof(s->error));
}

static void
error_set(struct store_server *s, const char *text)
{
	s->sqlstate[0] = '\0';
	(void)text_copy(s->error, sizeof(s->error), text);
}

static void
error_result(struct store_server *s, const PGresult *r)
{
	const char *primary = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY),
		   *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);

	if (primary == NULL) {
		error_libpq(s);
		return;
	}
	(void)text_copy(s->error, sizeof(s->error), primary);
	(void)text_copy(s->sqlstate, sizeof(s->sqlstate), state != NULL ? state : "");
	for (char *p = s->error; *p != '\0'; p++)
		if (*p == '\n' || *p == '\r')
			*p = ' ';
}

/* ---- closed ---- */

static void
server_close(struct store_server *s)
{
	if (s->conn != NULL)
		PQfinish(s->conn);
	s->conn = NULL;
	s->is_connecting = s->is_open = s->is_fresh = false;
	s->touched = NULL;
}

void
server_lost(struct store_server *s)
{
	if (s->is_open)
		stat_count(M_state_store_losses, 1);
	stat_set(M_state_store_up, 0);
	(void)text_copy(s->why, sizeof(s->why), s->error);
	server_close(s);
	s->retry_at_us = clock_us() + s->backoff_us;
	s->backoff_us *= 2;
	if (s->backoff_us > BACKOFF_MAX)
		s->backoff_us = BACKOFF_MAX;
}

/* Of several hosts each has its turn before there is a pause. */
static void
connect_failed(struct store_server *s)
{
	bool is_last = s->host + 1 == s->database->host_count;
	int64_t backoff_us = s->backoff_us;

	server_lost(s);
	if (!is_last) {
		s->host++;
		s->retry_at_us = 0;
		s->backoff_us = backoff_us;
	} else
		s->host = 0;
}

static void
server_notice(void *arg, const char *message)
{
	const struct store_server *s = arg;
	char text[256];

	side_error_text(message, text, sizeof(text));
	log_debug("state store: database %s: %s", s->database->name, text);
}

/* ---- connecting ---- */

static void
connect_begin(struct store_server *s)
{
	struct side_params p;

	side_params(&p, s->topo, s->database, s->host, "pgweave state store");
	/* Of several hosts the one that can be written. */
	side_params_add(&p, "target_session_attrs", "read-write");
	/* A proxy that is silently gone must not lock out the others. */
	side_params_add(&p, "options",
	    "-c statement_timeout=4500 -c lock_timeout=4000"
	    " -c idle_in_transaction_session_timeout=10000 -c row_security=off"
	    " -c search_path=" STORE_SCHEMA ",pg_temp -c DateStyle=ISO"
	    " -c standard_conforming_strings=on");
	s->conn = PQconnectStartParams(p.keys, p.values, 0);
	s->deadline_us = clock_us() + CONNECT_US;
	s->polling = PGRES_POLLING_WRITING;
	if (s->conn == NULL || PQstatus(s->conn) == CONNECTION_BAD ||
	    PQsocket(s->conn) < 0) {
		error_libpq(s);
		connect_failed(s);
		return;
	}
	PQsetNoticeProcessor(s->conn, server_notice, s);
	s->is_connecting = true;
}

static void
connect_done(struct store_server *s)
{
	s->is_connecting = false;
	if (PQsetnonblocking(s->conn, 1) != 0) {
		error_libpq(s);
		connect_failed(s);
		return;
	}
	if (shared_prepare(s) != 0) {
		connect_failed(s);
		return;
	}
	s->is_open = s->is_fresh = true;
	s->why[0] = '\0';
	stat_set(M_state_store_up, 1);
}

/* Whether the socket has what is waited for, within that time. */
static bool
socket_ready(int fd, short events, int64_t wait_us)
{
	struct pollfd p = {.fd = fd, .events = events};

	return (poll(&p, 1, wait_us > 0 ? (int)(wait_us / 1000) + 1 : 0) > 0);
}

static short
polled_events(const struct store_server *s)
{
	return (s->polling == PGRES_POLLING_READING ? POLLIN : POLLOUT);
}

bool
server_step(struct store_server *s)
{
	if (s->is_open)
		return (true);
	if (!s->is_connecting && clock_us() >= s->retry_at_us)
		connect_begin(s);
	while (s->is_connecting && socket_ready(PQsocket(s->conn), polled_events(s), 0)) {
		s->polling = PQconnectPoll(s->conn);
		if (s->polling == PGRES_POLLING_OK)
			connect_done(s);
		else if (s->polling == PGRES_POLLING_FAILED) {
			error_libpq(s);
			connect_failed(s);
		}
	}
	if (s->is_connecting && clock_us() >= s->deadline_us) {
		error_set(s, "timeout: no answer to the attempt to connect");
		connect_failed(s);
	}
	return (s->is_open);
}

bool
server_wait(struct store_server *s)
{
	while (!server_step(s)) {
		/* Another host may have its turn at once. */
		if (!s->is_connecting && s->retry_at_us > clock_us())
			return (false);
		if (s->is_connecting)
			(void)socket_ready(PQsocket(s->conn), polled_events(s),
			    s->deadline_us - clock_us());
	}
	return (true);
}

int64_t
server_due_us(const struct store_server *s)
{
	return (s->is_open         ? INT64_MAX
		: s->is_connecting ? s->deadline_us
				   : s->retry_at_us);
}

int
server_socket(const struct store_server *s, short *events)
{
	*events = s->is_connecting ? polled_events(s) : POLLIN;
	return (s->conn != NULL ? PQsocket(s->conn) : -1);
}

/* ---- statements ---- */

/* False: there is no more to be had from this connection. */
static bool
exec_wait(struct store_server *s, short events, int64_t deadline_us)
{
	int64_t left_us = deadline_us - clock_us();

	if (left_us <= 0 || !socket_ready(PQsocket(s->conn), events, left_us)) {
		error_set(s, "timeout: no answer");
		return (clock_us() < deadline_us);
	}
	if (PQconsumeInput(s->conn))
		return (true);
	error_libpq(s);
	return (false);
}

static bool
exec_flush(struct store_server *s, int64_t deadline_us)
{
	int left;

	while ((left = PQflush(s->conn)) > 0)
		if (!exec_wait(s, POLLIN | POLLOUT, deadline_us))
			return (false);
	if (left < 0)
		error_libpq(s);
	return (left == 0);
}

/* The last result, or the first that failed; NULL: the connection is no good any more. */
static PGresult *
exec_results(struct store_server *s, int64_t deadline_us)
{
	PGresult *r, *kept = NULL;

	for (;;) {
		while (PQisBusy(s->conn))
			if (!exec_wait(s, POLLIN, deadline_us)) {
				PQclear(kept);
				return (NULL);
			}
		r = PQgetResult(s->conn);
		if (r == NULL)
			break;
		if (kept != NULL && PQresultStatus(kept) == PGRES_FATAL_ERROR) {
			PQclear(r);
			continue;
		}
		PQclear(kept);
		kept = r;
	}
	if (PQstatus(s->conn) == CONNECTION_OK)
		return (kept);
	error_libpq(s);
	PQclear(kept);
	return (NULL);
}

/* ?1 of statements that SQLite understands, too, is $1 here. */
static char *
exec_dialect(const char *sql)
{
	char *mine = mem_str(sql);

	for (char *p = mine; *p != '\0'; p++)
		if (p[0] == '?' && p[1] >= '1' && p[1] <= '9')
			*p = '$';
	return (mine);
}

PGresult *
server_exec(
    struct store_server *s, const char *sql, const char *const *texts, size_t count)
{
	int64_t deadline_us = clock_us() + ANSWER_US;
	ExecStatusType status;
	PGresult *r = NULL;
	char *mine;
	int sent;

	if (s->conn == NULL) {
		error_set(s, "the connection is lost");
		return (NULL);
	}
	mine = exec_dialect(sql);
	sent = count > 0 ? PQsendQueryParams(
			       s->conn, mine, (int)count, NULL, texts, NULL, NULL, 0)
			 : PQsendQuery(s->conn, mine);
	free(mine);
	if (!sent)
		error_libpq(s);
	else if (exec_flush(s, deadline_us))
		r = exec_results(s, deadline_us);
	if (r == NULL) {
		/* While it is being opened, who opens it says so. */
		if (s->is_open)
			server_lost(s);
		return (NULL);
	}
	status = PQresultStatus(r);
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ||
	    status == PGRES_EMPTY_QUERY)
		return (r);
	error_result(s, r);
	PQclear(r);
	return (NULL);
}

/* ---- beginning and end ---- */

static bool
same_text(const char *a, const char *b)
{
	return (strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0);
}

/* Whether libpq would be told the same. */
static bool
same_words(
    const struct store_server *s, const struct topo *topo, const struct topo_database *db)
{
	struct side_params a, b;

	if (s->database->host_count != db->host_count)
		return (false);
	for (size_t h = 0; h < db->host_count; h++) {
		side_params(&a, s->topo, s->database, h, "");
		side_params(&b, topo, db, h, "");
		for (unsigned i = 0; i < a.count; i++)
			if (!same_text(a.values[i], b.values[i]))
				return (false);
	}
	return (true);
}

void
server_move(struct store_server *s, const struct topo *topo)
{
	const struct topo_database *db = topo_database_find(topo, s->database->name);
	bool is_same;

	/* state_store names another one from the next start on: this one stays as it was. */
	if (db == NULL || db->is_auto || db->user == NULL)
		return;
	is_same = same_words(s, topo, db);
	if (!is_same) {
		error_set(s, "its configuration has changed");
		server_lost(s);
		s->host = 0;
		s->retry_at_us = 0;
		s->backoff_us = BACKOFF_US;
	}
	topo_hold(topo);
	topo_release(s->topo);
	s->topo = topo;
	s->database = db;
}

void
server_init(
    struct store_server *s, const struct topo *topo, const struct topo_database *db)
{
	char host[100] = "";

	*s = (struct store_server){.db = {.ops = &shared_ops, .is_explicit = true},
	    .topo = topo_hold(topo),
	    .database = db,
	    .backoff_us = BACKOFF_US};
	(void)gethostname(host, sizeof(host) - 1);
	/* No two processes have the same, also where a container gives all of them one. */
	snprintf(s->holder, sizeof(s->holder), "%s, process %d, of %lld", host,
	    (int)getpid(), (long long)clock_wall_us());
}

void
server_fini(struct store_server *s)
{
	server_close(s);
	topo_release(s->topo);
	s->topo = NULL;
}
