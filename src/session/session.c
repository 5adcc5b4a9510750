/* A session's life: its states, who gets its bytes in which, its end. */
#include "carry.h"
#include "listen.h"
#include "mux.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[SESSION_STATES] = {
#define STATE(name, doc) [SESSION_##name] = #name,
#define EDGE(...)
#include "tbl/session_fsm.def"
#undef STATE
#undef EDGE
};

static const bool edges[SESSION_STATES][SESSION_STATES] = {
#define STATE(...)
#define EDGE(from, to, why) [SESSION_##from][SESSION_##to] = true,
#include "tbl/session_fsm.def"
#undef STATE
#undef EDGE
};

const char *
session_state_name(enum session_state state)
{
	return (state_names[state]);
}

void
session_move(struct session *s, enum session_state to)
{
	struct session_worker *sw = session_worker(s->worker);

	INVARIANT(s->magic == SESSION_MAGIC);
	if (UNLIKELY(!edges[s->state][to])) {
		log_line(LOG_FATAL_, "session: no edge %s -> %s", state_names[s->state],
		    state_names[to]);
		INVARIANT(!"a move that is not in session_fsm.def");
	}
	TAILQ_REMOVE(&sw->sessions[s->state], s, entry);
	sw->count[s->state]--;
	s->state = to;
	TAILQ_INSERT_TAIL(&sw->sessions[to], s, entry);
	sw->count[to]++;
}

const char *
session_database(const struct session *s)
{
	if (s->weave != NULL)
		return (s->weave->title);
	if (s->seat != NULL)
		return (s->seat->pool->database);
	if (s->state == SESSION_CONSOLE)
		return (s->says_pgbouncer ? "pgbouncer" : "pgweave");
	if (s->login != NULL && s->login->startup.database != NULL)
		return (s->login->startup.database);
	return ("");
}

const char *
session_user(const struct session *s)
{
	if (s->user != NULL)
		return (s->user->name);
	if (s->login != NULL && s->login->startup.user != NULL)
		return (s->login->startup.user);
	return ("");
}

void
session_log(const struct session *s, enum log_level level, const char *fmt, ...)
{
	const char *database = session_database(s), *user = session_user(s);
	char text[1024], addr[ADDR_TEXT];
	va_list ap;

	if (!log_wants(level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	addr_text(&s->addr, addr, sizeof(addr));
	log_line(level, "C-%#" PRIx32 ": %s/%s@%s:%u %s", s->pid,
	    database[0] != '\0' ? database : "(nodb)",
	    user[0] != '\0' ? user : "(nouser)", addr, s->addr.port, text);
}

/* ---- what is said to the client ---- */

void
session_error(struct session *s, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint)
{
	session_error_in(s, severity, sqlstate, message, detail, hint, NULL);
}

void
session_error_in(struct session *s, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint, const char *context)
{
	struct buf out = {0};

	if (pool_settings(s->worker)->log_pooler_errors)
		session_log(s, LOG_WARNING_, "pooler error: %s", message);
	session_login_said(s, &out);
	proto_error_in(&out, severity, sqlstate, message, detail, hint, context);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

void
session_notice(struct session *s, const char *message)
{
	struct buf out = {0};

	proto_error(&out, "NOTICE", "00000", message, NULL, NULL);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

void
session_ready(struct session *s, char status)
{
	uint8_t ready[] = {'Z', 0, 0, 0, 5, (uint8_t)status};

	stream_write(&s->stream, ready, sizeof(ready));
}

/* ---- bytes ---- */

/* One reader's share of them. */
static size_t
session_bytes_once(struct session *s, const uint8_t *p, size_t len)
{
	switch (s->state) {
	case SESSION_IDLE:
	case SESSION_ACTIVE:
	case SESSION_WAITING:
		return (session_feed(s, p, len));
	case SESSION_STARTUP:
		return (session_startup_bytes(s, p, len));
	case SESSION_AUTH:
		if (!session_is_looking(s))
			return (session_auth_bytes(s, p, len));
		stream_pause(&s->stream);
		return (0);
	case SESSION_CONSOLE:
		return (session_console_bytes(s, p, len));
	case SESSION_WEAVING:
		if (weave_split_takes(s))
			return (weave_split_bytes(s, p, len));
		stream_pause(&s->stream);
		return (0);
	case SESSION_SHARING:
	case SESSION_WELCOME:
		/* Not before the answer, or the greeting. */
		stream_pause(&s->stream);
		return (0);
	case SESSION_CANCELLING:
	case SESSION_CLOSED:
	case SESSION_STATES:
	default:
		return (len);
	}
}

/* A reader may leave what follows to the next state's. */
static size_t
session_bytes(struct stream *stream, const uint8_t *p, size_t len)
{
	struct session *s = CONTAINER_OF(stream, struct session, stream);
	enum session_state was;
	size_t used = 0;

	INVARIANT(s->magic == SESSION_MAGIC);
	do {
		was = s->state;
		used += session_bytes_once(s, p + used, len - used);
	} while (used < len && s->state != was && !stream->is_paused);
	return (used);
}

static void
session_drained(struct stream *stream)
{
	struct session *s = CONTAINER_OF(stream, struct session, stream);

	session_flow(s);
}

static void
session_lost(struct stream *stream, int err)
{
	struct session *s = CONTAINER_OF(stream, struct session, stream);

	/* It has said goodbye, and what it has sent before is still to be done. */
	if (s->is_leaving)
		return;
	/* Whoever only looks whether the port is open is not worth a line. */
	session_end(s, err < 0 ? stream_tls_error()
		       : s->state == SESSION_STARTUP && stream->in.len == 0
			   ? NULL
			   : "client unexpected eof");
}

static void
session_secured(struct stream *stream)
{
	session_startup_secured(CONTAINER_OF(stream, struct session, stream));
}

static const struct stream_ops session_stream_ops = {
    .bytes = session_bytes,
    .drained = session_drained,
    .lost = session_lost,
    .secured = session_secured,
};

/* ---- life ---- */

void
session_init(struct worker *w)
{
	struct session_worker *sw = mem_alloc(sizeof(*sw));

	for (unsigned i = 0; i < SESSION_STATES; i++)
		TAILQ_INIT(&sw->sessions[i]);
	TAILQ_INIT(&sw->forwards);
	TAILQ_INIT(&sw->hubs);
	sw->peer_id = (uint32_t)pool_settings(w)->peer_id;
	TAILQ_INIT(&sw->orphans);
	TAILQ_INIT(&sw->lookups);
	w->slot[WORKER_SESSION] = sw;
	TAILQ_INIT(&sw->mux_spare);
	TAILQ_INIT(&sw->mux_unsent);
	worker_on_tick(w, session_tick);
	worker_on_turn(w, mux_turn);
	pool_on_world(w, session_on_world);
}

void
session_end_all(struct worker *w)
{
	struct session_worker *sw = session_worker(w);
	struct session *s;

	peer_end_all(w);
	for (unsigned i = 0; i < SESSION_CLOSED; i++)
		while ((s = TAILQ_FIRST(&sw->sessions[i])) != NULL)
			session_close(s, "57P01", "pooler is shutting down");
	mux_end_all(w);
	weave_orphans_end(sw);
	hub_end_all(w);
	session_lookups_end(w);
}

void
session_fini(struct worker *w)
{
	struct session_worker *sw = session_worker(w);

	table_free(&sw->keys);
	table_free(&sw->known);
	buf_free(&sw->scratch[0]);
	buf_free(&sw->scratch[1]);
	sql_cache_destroy(sw->facts);
	free(sw->plan);
	free(sw->sights);
	kinds_free(sw);
	mux_fini(sw);
	free(sw);
	w->slot[WORKER_SESSION] = NULL;
}

static struct session *
session_create(struct worker *w, int fd, const struct sockaddr *sa, bool is_surplus)
{
	struct session_worker *sw = session_worker(w);
	struct session *s = mem_alloc(sizeof(*s));

	s->magic = SESSION_MAGIC;
	s->state = SESSION_STARTUP;
	s->worker = w;
	s->connect_us = s->request_us = clock_us();
	addr_from_socket(&s->addr, sa, fd);
	s->login = mem_alloc(sizeof(*s->login));
	s->login->is_surplus = is_surplus;
	TAILQ_INSERT_TAIL(&sw->sessions[SESSION_STARTUP], s, entry);
	sw->count[SESSION_STARTUP]++;
	session_key_create(s);
	stream_open(&s->stream, w, fd, sa->sa_family == AF_UNIX, &session_stream_ops);
	if (log_wants(LOG_DEBUG_))
		session_log(s, LOG_DEBUG_, "got connection");
	return (s);
}

void
session_open(struct worker *w, int fd, const struct sockaddr *sa, bool is_surplus)
{
	(void)session_create(w, fd, sa, is_surplus);
}

void
session_open_proven(struct worker *w, int fd, bool is_surplus, const struct sockaddr *sa,
    const struct addr *peer, const struct buf *startup)
{
	struct session *s = session_create(w, fd, sa, is_surplus);

	s->addr = *peer;
	s->login->is_inner = true;
	(void)session_startup_bytes(s, startup->mem, startup->len);
}

static void
session_bury(struct burial *b)
{
	struct session *s = CONTAINER_OF(b, struct session, burial);

	TAILQ_REMOVE(&session_worker(s->worker)->sessions[SESSION_CLOSED], s, entry);
	session_worker(s->worker)->count[SESSION_CLOSED]--;
	s->magic = 0;
	free(s);
}

static void
session_log_end(struct session *s, const char *reason)
{
	if (pool_settings(s->worker)->log_disconnections)
		session_log(s, LOG_INFO_, "closing because: %s (age=%" PRId64 "s)",
		    reason, (clock_us() - s->connect_us) / 1000000);
}

void
session_end(struct session *s, const char *reason)
{
	if (s->state == SESSION_CLOSED)
		return;
	if (reason != NULL)
		session_log_end(s, reason);
	pool_wait_end(&s->waiter);
	pool_keep_end(&s->waiter);
	if (s->weave != NULL)
		weave_end(s);
	listen_free(s);
	fence_leave(s);
	signals_free(s);
	mux_leave(s);
	mux_untimed(s);
	session_give_link(s, "client disconnect while server was not ready");
	if (s->state == SESSION_CONSOLE)
		session_console_free(s);
	session_order_forget(s);
	session_key_destroy(s);
	session_move(s, SESSION_CLOSED);
	stream_close(&s->stream);
	session_login_free(s);
	prep_end(s);
	statements_free(s);
	stmt_unnamed_set(s, NULL);
	carry_free(s);
	vars_release(s->worker, s->vars);
	vars_release(s->worker, s->startup);
	vars_release(s->worker, s->discarded);
	s->vars = s->startup = s->discarded = NULL;
	if (s->holds_clients && s->weave != NULL) {
		s->weave->home->clients--;
		atomic_fetch_sub(&s->user->clients, 1);
	} else if (s->holds_clients) {
		s->seat->clients--;
		atomic_fetch_sub(&s->seat->pool->db->clients, 1);
		atomic_fetch_sub(&s->user->clients, 1);
	}
	if (s->weave != NULL)
		weave_free(s);
	pool_place_release(s->user);
	s->user = NULL;
	atomic_fetch_sub(&s->worker->clients, 1);
	worker_bury(s->worker, &s->burial, session_bury);
}

/* It has heard the beginning of a message. */
static bool
is_within_message(const struct session *s)
{
	const struct link *l = session_link_now(s);

	return (l != NULL && l->body_left > 0 && l->body_is_forwarded &&
		(s->mux == NULL || session_link_serves(l) == s));
}

void
session_close(struct session *s, const char *sqlstate, const char *message)
{
	session_close_with(s, sqlstate, message, NULL);
}

void
session_close_with(
    struct session *s, const char *sqlstate, const char *message, const char *detail)
{
	if (s->state == SESSION_CLOSED)
		return;
	/* Who has read why he is sent away finds it in the log already. */
	session_log_end(s, message != NULL ? message : "closed");
	/* Not into the middle of a message: it would pass for a part of it. */
	if (message != NULL && !is_within_message(s))
		session_error(s, "FATAL", sqlstate, message, detail, NULL);
	session_end(s, NULL);
}

unsigned
session_clients(const struct worker *w)
{
	const struct session_worker *sw = session_worker(w);
	unsigned n = 0;

	for (unsigned i = 0; i < SESSION_CLOSED; i++)
		if (i != SESSION_CONSOLE)
			n += sw->count[i];
	return (n);
}

/* ---- operators ---- */

/* Calls act() for every session that is logged in to a database, or to that one. */
static void
session_each(struct worker *w, const char *database, void (*act)(struct session *))
{
	struct session_worker *sw = session_worker(w);
	struct session *s, *next;

	for (unsigned i = 0; i < SESSION_CLOSED; i++)
		for (s = TAILQ_FIRST(&sw->sessions[i]); s != NULL; s = next) {
			next = TAILQ_NEXT(s, entry);
			if (s->seat != NULL &&
			    (database == NULL ||
				strcmp(database, session_database(s)) == 0))
				act(s);
		}
}

static void
act_kill(struct session *s)
{
	session_close(
	    s, fault_info(F_POOL_KILLED)->sqlstate, fault_info(F_POOL_KILLED)->text);
}

void
session_kill(struct worker *w, const char *database)
{
	session_each(w, database, act_kill);
	hub_kill(w, database);
}

void
session_apply(struct worker *w)
{
	hub_apply(w);
}

static void
act_drain(struct session *s)
{
	s->is_draining = true;
	/* Its server is free when it leaves, of its own accord. */
	if (s->link != NULL && session_keeps_link(s))
		return;
	/* A login may wait for a server that never answers, and who waits for one to be free
	 * would keep it from being so. */
	if (s->state == SESSION_WELCOME ||
	    (s->state == SESSION_IDLE &&
		(s->weave == NULL || s->weave->txn == TXN_NONE)) ||
	    (s->state == SESSION_WAITING && s->weave == NULL && s->link == NULL) ||
	    (s->state == SESSION_ACTIVE && s->link != NULL &&
		s->link->state == LINK_LENT &&
		((link_is_at_rest(s->link) && !s->waits_own) ||
		    (s->replication != REPLICATION_NONE && s->link->is_copying_in))))
		session_close(s, "57P01", "server shutting down");
}

void
session_drain(struct worker *w)
{
	struct session_worker *sw = session_worker(w);
	static const enum session_state begins[] = {SESSION_STARTUP, SESSION_AUTH};
	struct session *s, *next;

	sw->is_draining = true;
	session_each(w, NULL, act_drain);
	/* Who has not begun yet will not; the unix socket is the console's. */
	for (size_t i = 0; i < ARRAY_LEN(begins); i++)
		for (s = TAILQ_FIRST(&sw->sessions[begins[i]]); s != NULL; s = next) {
			next = TAILQ_NEXT(s, entry);
			if (!s->stream.is_unix)
				session_close(s, "57P03", "pooler is shutting down");
		}
}

static void
act_world(struct session *s)
{
	const struct topo_database *db = s->seat->database;
	const char *role = db != NULL && db->user != NULL ? db->user : session_user(s);

	if (s->weave != NULL)
		weave_world(s);
	else if (db == NULL)
		session_close(
		    s, fault_info(F_POOL_GONE)->sqlstate, fault_info(F_POOL_GONE)->text);
	else if (strcmp(role, s->seat->pool->role) != 0)
		session_close(s, "57P01", "database configuration changed");
}

void
session_on_world(struct worker *w)
{
	hub_world(w);
	session_each(w, NULL, act_world);
}
