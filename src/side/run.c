/*
 * What runs on a side connection, one thing at a time: statements, and copies in both
 * directions. libpq never blocks: it is asked for a result only when it has one.
 */
#include "private.h"
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_CHUNK_BYTES  65536 /* gathered before libpq gets them */
#define COPY_UNSENT_BYTES (1024 * 1024)

/* ---- errors: the first one counts ---- */

static void
keep_error(struct side *s, const char *sqlstate, const char *text)
{
	if (s->has_failed)
		return;
	s->has_failed = true;
	(void)text_copy(s->err, sizeof(s->err), text);
	(void)text_copy(s->sqlstate, sizeof(s->sqlstate), sqlstate);
	for (char *p = s->err; *p != '\0'; p++)
		if (*p == '\n' || *p == '\r' || *p == '\t')
			*p = ' ';
}

static void
keep_error_libpq(struct side *s)
{
	char text[SIDE_ERROR];

	side_error_text(
	    s->conn != NULL ? PQerrorMessage(s->conn) : NULL, text, sizeof(text));
	keep_error(s, "", text);
}

/* What the server says; what libpq says by itself has no fields. */
static void
keep_error_result(struct side *s, const PGresult *r)
{
	const char *primary = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY),
		   *state = PQresultErrorField(r, PG_DIAG_SQLSTATE),
		   *more = PQresultErrorField(r, PG_DIAG_MESSAGE_DETAIL);
	char text[SIDE_ERROR];

	if (more == NULL)
		more = PQresultErrorField(r, PG_DIAG_CONTEXT);
	if (primary == NULL)
		side_error_text(PQresultErrorMessage(r), text, sizeof(text));
	else
		snprintf(text, sizeof(text), "%s%s%s%s", primary,
		    more != NULL ? " (" : "", more != NULL ? more : "",
		    more != NULL ? ")" : "");
	keep_error(s, state != NULL ? state : "", text);
}

/* ---- telling ---- */

/* The task is over: its callback, which may close the connection or ask for more. */
static void
side_end(struct side *s)
{
	enum side_task was = s->task;
	PGresult *r = s->has_failed ? NULL : s->result;
	char err[SIDE_ERROR], sqlstate[sizeof(s->sqlstate)];

	if (s->has_failed)
		PQclear(s->result);
	s->result = NULL;
	if (was != SIDE_COPY_IN_WAIT && r == NULL)
		keep_error(s, "", "the server gave no result");
	else if (was == SIDE_COPY_IN_WAIT)
		keep_error(s, "", "the statement is no COPY FROM STDIN");
	memcpy(err, s->err, sizeof(err));
	memcpy(sqlstate, s->sqlstate, sizeof(sqlstate));
	if (s->conn != NULL && PQstatus(s->conn) == CONNECTION_BAD)
		side_drop(s);
	side_clock(s, 0);
	s->task = SIDE_IDLE;
	s->is_doomed = false;
	if (was == SIDE_COPY_IN_WAIT)
		s->opened(s, s->arg, err);
	else
		s->answered(
		    s, s->arg, r, r == NULL ? err : NULL, r == NULL ? sqlstate : "");
	PQclear(r);
}

/* Failed inside a call: its callback comes later. */
static void
side_doom(struct side *s)
{
	keep_error_libpq(s);
	side_drop(s);
	if (s->task == SIDE_COPY_IN)
		return;
	s->is_doomed = true;
	side_kick(s);
}

void
side_lost(struct side *s, const char *err)
{
	PGresult *r;

	if (s->task == SIDE_IDLE) {
		log_debug("side: %s: connection lost", s->database->name);
		side_drop(s);
		return;
	}
	if (err != NULL)
		keep_error(s, "", err);
	/* The server may have said why before it closed. Without a socket nothing blocks. */
	while (PQstatus(s->conn) == CONNECTION_BAD && !s->has_failed &&
	       (r = PQgetResult(s->conn)) != NULL) {
		if (PQresultStatus(r) == PGRES_FATAL_ERROR)
			keep_error_result(s, r);
		PQclear(r);
	}
	keep_error_libpq(s);
	side_drop(s);
	if (s->task != SIDE_COPY_IN)
		side_end(s);
	else if (s->owes_drained) {
		s->owes_drained = false;
		s->drained(s, s->arg);
	}
}

/* ---- sending ---- */

static void
side_watch_now(struct side *s)
{
	side_watch(
	    s, (short)((s->is_paused ? 0 : EV_READ) | (s->is_flushing ? EV_WRITE : 0)));
}

static bool
side_flush(struct side *s)
{
	int left = PQflush(s->conn);

	if (left < 0)
		return (false);
	s->is_flushing = left > 0;
	if (!s->is_flushing)
		s->in_flight = 0;
	side_watch_now(s);
	return (true);
}

/* The last thing that a call does. */
static void
side_sent(struct side *s, bool is_queued)
{
	if (!is_queued || !side_flush(s))
		side_doom(s);
	else
		side_clock(s, s->timeout_us);
}

static bool
side_begin(struct side *s, enum side_task task, void *arg)
{
	INVARIANT(s->magic == SIDE_MAGIC && s->task == SIDE_IDLE);
	s->task = task;
	s->arg = arg;
	s->has_failed = s->is_copying = s->is_paused = s->owes_drained = false;
	s->err[0] = s->sqlstate[0] = '\0';
	s->in_flight = s->unsent.len = 0;
	if (s->conn != NULL)
		return (true);
	keep_error(s, "", "the connection is lost");
	side_doom(s);
	return (false);
}

void
side_query(struct side *s, const char *sql, const char *const *params, int count,
    side_answered *answered, void *arg)
{
	bool is_queued;

	s->answered = answered;
	if (!side_begin(s, SIDE_QUERY, arg))
		return;
	if (count > 0)
		is_queued = PQsendQueryParams(
				s->conn, sql, count, NULL, params, NULL, NULL, 0) == 1;
	else
		is_queued = PQsendQuery(s->conn, sql) == 1;
	side_sent(s, is_queued);
}

void
side_copy_out(struct side *s, const char *sql,
    bool (*data)(struct side *, void *, const char *, int), side_answered *answered,
    void *arg)
{
	s->data = data;
	s->answered = answered;
	if (side_begin(s, SIDE_COPY_OUT, arg))
		side_sent(s, PQsendQuery(s->conn, sql) == 1);
}

void
side_copy_resume(struct side *s)
{
	INVARIANT(s->magic == SIDE_MAGIC && s->task == SIDE_COPY_OUT);
	if (!s->is_paused)
		return;
	s->is_paused = false;
	side_watch_now(s);
	side_clock(s, s->timeout_us);
	side_kick(s);
}

void
side_copy_in(struct side *s, const char *sql, side_opened *ready,
    void (*drained)(struct side *, void *), void *arg)
{
	s->opened = ready;
	s->drained = drained;
	if (side_begin(s, SIDE_COPY_IN_WAIT, arg))
		side_sent(s, PQsendQuery(s->conn, sql) == 1);
}

/* Gives libpq what was gathered. */
static bool
copy_push(struct side *s)
{
	INVARIANT(s->unsent.len <= INT32_MAX);
	if (PQputCopyData(s->conn, (const char *)s->unsent.mem, (int)s->unsent.len) != 1)
		return (false);
	s->in_flight += s->unsent.len;
	s->unsent.len = 0;
	if (!side_flush(s))
		return (false);
	side_clock(s, s->is_flushing ? s->timeout_us : 0);
	return (true);
}

bool
side_copy_put(struct side *s, const char *p, size_t len)
{
	INVARIANT(s->magic == SIDE_MAGIC && s->task == SIDE_COPY_IN);
	/* The failure is told at the end. */
	if (s->has_failed)
		return (true);
	buf_add(&s->unsent, p, len);
	if (!s->is_flushing && s->unsent.len >= COPY_CHUNK_BYTES && !copy_push(s)) {
		side_doom(s);
		return (true);
	}
	s->owes_drained = s->in_flight + s->unsent.len > COPY_UNSENT_BYTES;
	return (!s->owes_drained);
}

void
side_copy_end(struct side *s, const char *err, side_answered *answered)
{
	INVARIANT(s->magic == SIDE_MAGIC && s->task == SIDE_COPY_IN);
	s->task = SIDE_COPY_IN_END;
	s->answered = answered;
	s->owes_drained = false;
	if (s->has_failed) {
		s->is_doomed = true;
		side_kick(s);
	} else if (s->unsent.len > 0 && err == NULL && !copy_push(s))
		side_doom(s);
	else
		side_sent(s, PQputCopyEnd(s->conn, err) == 1);
}

/* ---- receiving ---- */

static bool
side_consume(struct side *s)
{
	SSL *ssl = PQsslStruct(s->conn, "OpenSSL");

	/* What TLS has already taken from the socket wakes nobody. */
	do
		if (PQconsumeInput(s->conn) != 1)
			return (false);
	while (ssl != NULL && SSL_pending(ssl) > 0);
	return (true);
}

/* False: nothing more for now, or the connection has been closed. */
static bool
copy_rows(struct side *s)
{
	char *p;
	int len;

	while ((len = PQgetCopyData(s->conn, &p, 1)) > 0) {
		bool wants_more = s->data(s, s->arg, p, len);

		PQfreemem(p);
		if (s->task != SIDE_COPY_OUT)
			return (false);
		if (!wants_more) {
			s->is_paused = true;
			side_watch_now(s);
			side_clock(s, 0);
			return (false);
		}
	}
	if (len == 0)
		return (false);
	s->is_copying = false;
	if (len < -1)
		keep_error_libpq(s);
	return (true);
}

/* Takes over a result; false: the loop over results must end. */
static bool
side_take(struct side *s, PGresult *r)
{
	ExecStatusType status = PQresultStatus(r);

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
		PQclear(s->result);
		s->result = r;
		return (true);
	}
	if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE)
		keep_error_result(s, r);
	PQclear(r);
	if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE ||
	    status == PGRES_EMPTY_QUERY)
		return (true);
	if (status == PGRES_COPY_OUT && s->task == SIDE_COPY_OUT) {
		s->is_copying = true;
		return (true);
	}
	if (status == PGRES_COPY_IN && s->task == SIDE_COPY_IN_WAIT) {
		s->task = SIDE_COPY_IN;
		side_clock(s, 0);
		s->opened(s, s->arg, NULL);
		return (false);
	}
	side_lost(s, "the statement began a copy that nobody asked for");
	return (false);
}

static void
side_results(struct side *s)
{
	PGresult *r;

	while (!PQisBusy(s->conn)) {
		if (s->is_copying) {
			if (!copy_rows(s))
				return;
			continue;
		}
		r = PQgetResult(s->conn);
		if (r == NULL) {
			side_end(s);
			return;
		}
		if (!side_take(s, r))
			return;
	}
}

static void
side_read(struct side *s)
{
	PGnotify *n;

	if (s->task == SIDE_IDLE)
		while ((n = PQnotifies(s->conn)) != NULL)
			PQfreemem(n);
	else if (s->task != SIDE_COPY_IN && !s->is_paused)
		side_results(s);
}

/* The kernel takes bytes again. False: lost, or closed by drained(). */
static bool
side_write(struct side *s)
{
	if (!side_flush(s) || (s->task == SIDE_COPY_IN && !s->is_flushing &&
				  s->unsent.len > 0 && !copy_push(s))) {
		side_lost(s, NULL);
		return (false);
	}
	if (s->task != SIDE_COPY_IN)
		return (true);
	side_clock(s, s->is_flushing ? s->timeout_us : 0);
	if (s->owes_drained && s->in_flight + s->unsent.len <= COPY_UNSENT_BYTES / 2) {
		s->owes_drained = false;
		s->drained(s, s->arg);
	}
	return (s->conn != NULL);
}

void
side_serve(struct side *s, short what)
{
	if ((what & EV_WRITE) != 0 && s->is_flushing && !side_write(s))
		return;
	if ((what & EV_READ) == 0)
		return;
	if (!side_consume(s)) {
		side_lost(s, NULL);
		return;
	}
	/* Of a copy, the time without progress counts. */
	if (s->is_copying && !s->is_paused)
		side_clock(s, s->timeout_us);
	side_read(s);
}

void
side_go_on(struct side *s)
{
	if (s->is_doomed)
		side_end(s);
	else if (s->conn != NULL)
		side_read(s);
}
