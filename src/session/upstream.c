/*
 * From the client to the server. Message heads are walked in the buffer where they were
 * read; whole runs go on from there with one write. What must be known of a message:
 *
 *   Q F S E H d c f      only that it passes (and what answer it is owed)
 *   P B D C              names of statements, when clients share links: each text has one
 *                        name per server, and is prepared where it is missing
 *   X                    the end
 *
 * A link is taken at the first message that needs one. Errors about statements (no such
 * name, a name given twice) are made by the server itself, so that the transaction fails as
 * it would without a proxy.
 */
#include "carry.h"
#include "listen.h"
#include "mux.h"
#include <string.h>

enum up_verdict
up_broken(struct up *u, const char *message)
{
	batch_flush(&u->batch);
	session_close(u->s, "08P01", message);
	return (UP_STOP);
}

enum up_verdict
up_body(struct up *u, uint32_t total, bool is_dropped)
{
	u->s->body_left = total;
	u->s->body_is_dropped = is_dropped;
	u->s->is_stalled = false;
	return (UP_GO_ON);
}

struct request *
up_owe(struct up *u, enum request_kind kind, enum request_act act)
{
	struct link *l = u->s->link;

	if (l->query_us == 0)
		l->query_us = u->now_us;
	if (l->xact_us == 0)
		l->xact_us = u->now_us;
	if (kind != REQ_QUERY && kind != REQ_FUNCTION)
		l->wants_sync = kind != REQ_SYNC;
	if (kind == REQ_EXECUTE || kind == REQ_QUERY)
		l->copy_has_ended = false;
	return (requests_push(&l->requests, kind, act));
}

/* ---- prepared statements ---- */

static void
up_close(struct up *u, struct hash128 id)
{
	char name[PREPARED_NAME];

	prepared_name(id, name);
	proto_close_statement(batch_make(&u->batch), name);
	batch_made(&u->batch);
	up_owe(u, REQ_CLOSE, ACT_SKIP)->id = id;
}

/* Statements used longest ago make room. */
void
up_evict(struct up *u)
{
	struct link *l = u->s->link;
	int64_t max = pool_settings(u->s->worker)->max_prepared_statements;
	struct hash128 id;

	while (prepared_count(&l->prepared) > max && prepared_evict(&l->prepared, &id))
		up_close(u, id);
}

void
up_prepare(struct up *u, const struct stmt *st, const char *sql, enum request_act act)
{
	struct link *l = u->s->link;
	char name[PREPARED_NAME];

	prepared_name(st->id, name);
	proto_parse(
	    batch_make(&u->batch), name, sql, st->data + st->sql_len + 1, st->types_len);
	batch_made(&u->batch);
	up_owe(u, REQ_PARSE, act)->id = st->id;
	prepared_add(&l->prepared, st->id, l->batch);
}

void
up_forget(struct up *u, struct hash128 id)
{
	up_close(u, id);
	prepared_forget(&u->s->link->prepared, id);
}

void
up_ensure(
    struct up *u, const struct stmt *st, struct prepared_since since, int64_t now_us)
{
	struct link *l = u->s->link;

	if (prepared_touch_proven(&l->prepared, st->id, since, now_us))
		return;
	if (prepared_is_old(&l->prepared, st->id))
		up_forget(u, st->id);
	if (st->declared != NULL)
		prep_inject(u, st);
	else
		up_prepare(u, st, prep_sent(u->s, st), ACT_SKIP);
	up_evict(u);
}

/* The link has the client's unnamed statement and no other, so that the server answers as it
 * would to this client alone. */
static void
up_ensure_unnamed(struct up *u, const char *portal)
{
	struct session *s = u->s;
	struct link *l = s->link;
	const struct stmt *st = s->unnamed;

	if (st != NULL && prep_is(st))
		st = prep_real(u, st, portal);
	else if (s->unnamed_token != 0 ? l->unnamed == s->unnamed_token : l->unnamed == 0)
		return;
	if (st != NULL) {
		proto_parse(batch_make(&u->batch), "", prep_sent(s, st),
		    st->data + st->sql_len + 1, st->types_len);
		batch_made(&u->batch);
		up_owe(u, REQ_PARSE, ACT_SKIP)->is_unnamed = true;
		l->unnamed = s->unnamed_token;
		return;
	}
	proto_close_statement(batch_make(&u->batch), "");
	batch_made(&u->batch);
	up_owe(u, REQ_CLOSE, ACT_SKIP)->is_unnamed = true;
	l->unnamed = 0;
}

/* The client's unnamed statement is gone, here and for every link to come. */
void
up_drop_unnamed(struct up *u)
{
	stmt_unnamed_set(u->s, NULL);
	u->s->unnamed_token = 0;
	u->s->link->unnamed = 0;
}

/* Whether a long Parse without a name is to be kept all the same; its first word is there. */
static bool
may_be_prepare(const uint8_t *body, size_t have, uint32_t size)
{
	return (have > 1 && size <= SESSION_WHOLE_MAX &&
		sql_prepare_may((const char *)body + 1, have - 1) != 0);
}

/* Parse of the unnamed statement: it passes as it is, and is kept for a later batch. */
static enum up_verdict
up_parse_unnamed(struct up *u, const uint8_t *body, size_t have, uint32_t size)
{
	struct session *s = u->s;
	uint32_t max = s->weave != NULL ? SESSION_WHOLE_MAX : SESSION_UNNAMED_MAX;
	const char *text = NULL;
	struct proto_parse parse;
	struct request *r;

	if (hub_any())
		echo_look(s, (const char *)body, have);
	if (size - 4 > max && !may_be_prepare(body, have, size)) {
		stmt_unnamed_set(s, NULL);
		if (sql_share((const char *)body + 1, have - 1) == SQL_SHARE_DEFINES)
			s->link->has_defined = true;
	} else if (have < size - 4)
		return (UP_STOP);
	else if (proto_parse_parse(body, have, &parse) == 0) {
		struct stmt *st = stmt_intern(s->worker, &parse);

		if ((prep_is(st) && !prep_settle(u)) ||
		    (UNLIKELY((st->leaves & SQL_LEAVES_SEQUENCE) != 0) &&
			!sequences_prefer(u))) {
			stmt_release(s->worker, st);
			return (UP_STOP);
		}
		stmt_unnamed_set(s, st);
	} else
		return (up_broken(u, "invalid Parse message"));
	if (s->weave != NULL && s->unnamed != NULL)
		(void)sense_of_stmt(s->worker, s->unnamed);
	/* A number of its own: a link that the client has left keeps what it had then. */
	s->unnamed_token =
	    ++session_worker(s->worker)->tokens << 8 | (uint64_t)s->worker->index;
	if (s->unnamed != NULL && share_parse(u, size, s->unnamed))
		return (up_body(u, size + 1, true));
	s->link->unnamed = s->unnamed_token;
	if (s->unnamed != NULL && prep_is(s->unnamed))
		text = prep_sent(s, prep_real(u, s->unnamed, NULL));
	else if (s->unnamed != NULL)
		text = s->unnamed->clean;
	r = up_owe(u, REQ_PARSE, ACT_FORWARD);
	r->is_unnamed = true;
	r->is_prepare = s->unnamed != NULL && prep_is(s->unnamed);
	if (text == NULL)
		return (up_body(u, size + 1, false));
	proto_parse(batch_make(&u->batch), "", text, parse.types, parse.types_len);
	batch_made(&u->batch);
	return (up_body(u, size + 1, true));
}

/* What a batch under way, which the server may be skipping, has to do with this statement must
 * be known first: the client waits until it is answered. */
static bool
up_must_wait(struct up *u, const struct stmt_name *n, const struct stmt *st)
{
	struct session *s = u->s;
	const struct link *l = s->link;

	s->is_stalled =
	    (n != NULL && !n->is_sure && n->batch != l->batch) ||
	    (st != NULL && prepared_is_unsure(&l->prepared, st->id, l->batch));
	return (s->is_stalled);
}

/* The last request is about a client's name for a statement. */
static void
up_about(struct request *r, struct stmt_name *n)
{
	r->arg = n;
	r->renames = true;
	r->is_prepare = prep_is(n->stmt);
	n->pending++;
}

/* is_alone: a Sync follows, and nothing before it that would have the server look at it. */
static enum up_verdict
up_parse(struct up *u, const uint8_t *body, size_t len, bool is_alone)
{
	struct session *s = u->s;
	struct seat *seat = s->seat;
	struct proto_parse parse;
	const struct stmt *real;
	struct stmt_name *n;
	struct stmt *st;
	struct request *r;

	if (proto_parse_parse(body, len, &parse) != 0)
		return (up_broken(u, "invalid Parse message"));
	n = stmt_name_find(s, parse.name);
	if (n != NULL && up_must_wait(u, n, n->stmt))
		return (UP_STOP);
	METRIC_INC(&seat->metrics, client_parse_count);
	if (n != NULL) {
		/* The name is taken: the server says so when it is asked to take its own name
		 * twice. */
		up_ensure(u, n->stmt, (struct prepared_since){0}, 0);
		up_prepare(u, n->stmt, "", ACT_FORWARD);
		r = requests_at(&s->link->requests, s->link->requests.count - 1);
		up_about(r, n);
		r->is_doomed = true;
		return (UP_GO_ON);
	}
	if (!statements_have_room(s, parse.name, parse.sql_len)) {
		batch_flush(&u->batch);
		session_close(s, "53200",
		    "prepared statements of this client take too much memory");
		return (UP_STOP);
	}
	st = stmt_intern(s->worker, &parse);
	if (s->weave != NULL)
		(void)sense_of_stmt(s->worker, st);
	if ((prep_is(st) ? !prep_settle(u) : up_must_wait(u, NULL, st)) ||
	    (UNLIKELY((st->leaves & SQL_LEAVES_SEQUENCE) != 0) && !sequences_prefer(u))) {
		stmt_release(s->worker, st);
		return (UP_STOP);
	}
	real = prep_is(st) ? prep_real(u, st, NULL) : st;
	n = stmt_name_add(s, parse.name, st);
	n->batch = s->link->batch;
	/* What was prepared before a definition may be what this client never had. */
	n->since = prepared_since_now();
	if (is_alone && prepared_touch_fresh(&s->link->prepared, real->id, n->since))
		r = up_owe(u, REQ_PARSE, ACT_FAKE);
	else {
		if (prepared_is_old(&s->link->prepared, real->id))
			up_forget(u, real->id);
		up_prepare(u, real, prep_sent(s, real), ACT_FORWARD);
		r = requests_at(&s->link->requests, s->link->requests.count - 1);
	}
	up_about(r, n);
	up_evict(u);
	return (UP_GO_ON);
}

/* The same for a Bind or Describe of it. */
static bool
up_must_settle(struct up *u, const struct stmt_name *n)
{
	return (up_must_wait(u, n, n->stmt) || (prep_is(n->stmt) && !prep_settle(u)));
}

/* What the link is asked for in the place of the client's statement; it has it. */
static const struct stmt *
up_real(struct up *u, const struct stmt_name *n, const char *portal)
{
	const struct stmt *real = n->stmt;

	if (prep_is(real))
		real = prep_real(u, real, portal);
	up_ensure(u, real, n->since, u->now_us);
	return (real);
}

/* Bind: the statement's name is replaced, the rest passes where it stands. */
static enum up_verdict
up_bind(struct up *u, const uint8_t *head, size_t have, uint32_t size)
{
	struct session *s = u->s;
	const char *portal, *statement;
	char name[PREPARED_NAME];
	const struct stmt *st;
	struct stmt_name *n;
	enum up_verdict v;
	bool is_shared;
	struct buf *out;
	uint8_t *at;
	size_t rest, portal_len;
	int fault = proto_bind_names(head + PROTO_HEAD, have, &portal, &statement, &rest);

	if (fault == F_AGAIN && have < size - 4 && have <= SESSION_NAMES_MAX)
		return (UP_STOP);
	if (fault != 0 || rest > size - 4)
		return (up_broken(u, "invalid Bind message"));
	n = statement[0] != '\0' ? stmt_name_find(s, statement) : NULL;
	if (n != NULL ? up_must_settle(u, n)
		      : statement[0] == '\0' && s->unnamed != NULL &&
			    prep_is(s->unnamed) && !prep_settle(u))
		return (UP_STOP);
	if (UNLIKELY(s->listens != NULL) && n != NULL && s->weave == NULL &&
	    !listen_is_shown(s, (const char *)n->stmt->data, n->stmt->sql_len))
		return (UP_STOP);
	st = n != NULL ? n->stmt : statement[0] == '\0' ? s->unnamed : NULL;
	if (st != NULL && UNLIKELY(st->is_lone) && s->weave == NULL &&
	    !fence_is_ready(u, (const char *)st->data, st->sql_len))
		return (UP_STOP);
	if (((st != NULL && st->leaves != 0 && s->weave == NULL) ||
		(s->carry != NULL && s->carry->portals.count > 0)) &&
	    (v = carry_bind(u, st, portal, size)) != UP_PASS)
		return (v);
	METRIC_ADD(&s->seat->metrics, bind_count, n != NULL);
	is_shared = s->link->is_sharing && statement[0] == '\0';
	if (n == NULL && !is_shared) {
		if (statement[0] == '\0') {
			share_note_definition(s, s->unnamed);
			up_ensure_unnamed(u, portal);
		}
		up_owe(u, REQ_BIND, ACT_FORWARD)->is_prepare =
		    statement[0] == '\0' && s->unnamed != NULL && prep_is(s->unnamed);
		return (up_body(u, size + 1, false));
	}
	if (hub_any() && n != NULL)
		echo_look(s, (const char *)n->stmt->data, n->stmt->sql_len);
	if (is_shared) {
		up_owe(u, REQ_BIND, ACT_FORWARD)->is_shared = true;
		prepared_name(s->link->shared, name);
	} else {
		share_note_definition(s, n->stmt);
		prepared_name(up_real(u, n, portal)->id, name);
		up_about(up_owe(u, REQ_BIND, ACT_FORWARD), n);
	}
	portal_len = strlen(portal) + 1;
	out = batch_make(&u->batch);
	at = buf_room(out, PROTO_HEAD);
	at[0] = 'B';
	proto_put32(
	    at + 1, (uint32_t)(4 + portal_len + PREPARED_NAME + (size - 4 - rest)));
	out->len += PROTO_HEAD;
	buf_add(out, portal, portal_len);
	buf_add(out, name, PREPARED_NAME);
	batch_made(&u->batch);
	u->used += PROTO_HEAD + rest;
	return (up_body(u, (uint32_t)(size - 4 - rest), false));
}

/* Describe or Close of a statement by the client's name. */
static enum up_verdict
up_target(struct up *u, char type, const uint8_t *body, uint32_t size)
{
	struct session *s = u->s;
	enum request_kind kind = type == 'D' ? REQ_DESCRIBE : REQ_CLOSE;
	char what, server_name[PREPARED_NAME + 1] = "S";
	const struct stmt *real, *about;
	struct stmt_name *n = NULL;
	const char *name;
	struct request *r;

	if (proto_target_parse(body, size - 4, &what, &name) != 0)
		return (up_broken(u, "invalid Describe or Close message"));
	if (what == 'S' && name[0] != '\0')
		n = stmt_name_find(s, name);
	if (n != NULL && up_must_wait(u, n, n->stmt))
		return (UP_STOP);
	about = n != NULL ? n->stmt : what == 'S' && name[0] == '\0' ? s->unnamed : NULL;
	if (kind == REQ_DESCRIBE && about != NULL && prep_is(about) && !prep_settle(u))
		return (UP_STOP);
	if (kind == REQ_CLOSE && what == 'S' && name[0] != '\0') {
		/* The server keeps the statement for others; only the client's name goes. */
		r = up_owe(u, REQ_CLOSE, ACT_FAKE);
		if (n != NULL) {
			up_about(r, n);
			stmt_name_take_out(s, n);
		}
		return (up_body(u, size + 1, true));
	}
	if (n == NULL && what == 'S' && name[0] == '\0' && s->link->is_sharing) {
		up_owe(u, kind, ACT_FORWARD)->is_shared = true;
		prepared_name(s->link->shared, server_name + 1);
		proto_message(
		    batch_make(&u->batch), type, server_name, sizeof(server_name));
		batch_made(&u->batch);
		return (up_body(u, size + 1, true));
	}
	if (n == NULL) {
		if (what == 'S' && name[0] == '\0') {
			up_ensure_unnamed(u, NULL);
			if (kind == REQ_CLOSE)
				up_drop_unnamed(u);
		}
		up_owe(u, kind, ACT_FORWARD)->is_unnamed =
		    kind == REQ_CLOSE && what == 'S';
		return (up_body(u, size + 1, false));
	}
	real = up_real(u, n, NULL);
	up_about(up_owe(u, kind, ACT_FORWARD), n);
	prepared_name(real->id, server_name + 1);
	proto_message(batch_make(&u->batch), type, server_name, sizeof(server_name));
	batch_made(&u->batch);
	return (up_body(u, size + 1, true));
}

/* P B D C of a client that shares its links with others. */
static enum up_verdict
up_rewritten(struct up *u, char type, uint32_t size)
{
	const uint8_t *head = u->p + u->used;
	size_t have = u->len - u->used - PROTO_HEAD;
	enum up_verdict v;

	if (have > size - 4)
		have = size - 4;
	if (type == 'B')
		return (up_bind(u, head, have, size));
	if (type == 'P' && have == 0 && size > 4)
		return (UP_STOP);
	if (type == 'P' && have > 0 && head[PROTO_HEAD] == '\0')
		return (up_parse_unnamed(u, head + PROTO_HEAD, have, size));
	if (size > SESSION_WHOLE_MAX) {
		batch_flush(&u->batch);
		session_close(u->s, "54000", "message of a named statement is too long");
		return (UP_STOP);
	}
	if (have < size - 4)
		return (UP_STOP);
	if (type != 'P')
		return (up_target(u, type, head + PROTO_HEAD, size));
	v = up_parse(u, head + PROTO_HEAD, have,
	    u->len - u->used > (size_t)size + 1 && head[size + 1] == 'S');
	return (v == UP_GO_ON ? up_body(u, size + 1, true) : v);
}

void
up_to_link(struct up *u)
{
	/* What is sent already is on its way; what was not is behind it. */
	if (u->batch.to == &u->s->link->stream)
		return;
	batch_flush(&u->batch);
	batch_begin(&u->batch, &u->s->link->stream, u->batch.scratch);
}

void
up_doom(struct up *u)
{
	static const uint8_t no_types[2];
	struct request *r;

	up_to_link(u);
	proto_parse(batch_make(&u->batch), "", "pgweave refuses this batch", no_types,
	    sizeof(no_types));
	batch_made(&u->batch);
	r = up_owe(u, REQ_PARSE, ACT_FORWARD);
	r->is_unnamed = true;
	r->is_doomed = true;
	r->is_ours = true;
}

void
up_own_sync(struct up *u)
{
	struct link *l = u->s->link;

	up_to_link(u);
	proto_sync(batch_make(&u->batch));
	batch_made(&u->batch);
	up_owe(u, REQ_SYNC, ACT_SKIP);
	l->skips_to_sync = l->is_sharing = false;
	l->batch++;
}

void
up_query_blanked(struct up *u, uint32_t size, uint32_t blank, const char *text)
{
	const uint8_t *body =
	    text != NULL ? (const uint8_t *)text : u->p + u->used + PROTO_HEAD;
	struct buf *out;
	uint8_t *p;

	up_to_link(u);
	out = batch_make(&u->batch);
	p = buf_room(out, PROTO_HEAD + blank);
	p[0] = 'Q';
	proto_put32(p + 1, size);
	memset(p + PROTO_HEAD, ' ', blank);
	out->len += PROTO_HEAD + blank;
	buf_add(out, body + blank, size - 4 - blank);
	batch_made(&u->batch);
	up_owe(u, REQ_QUERY, ACT_FORWARD);
	up_drop_unnamed(u);
}

/* ---- messages ---- */

#define COPY_TYPES (PROTO_TYPE('d') | PROTO_TYPE('c') | PROTO_TYPE('f'))
#define NAME_TYPES (PROTO_TYPE('P') | PROTO_TYPE('B') | PROTO_TYPE('D') | PROTO_TYPE('C'))
#define ALL_TYPES                                                                        \
	(COPY_TYPES | NAME_TYPES | PROTO_TYPE('Q') | PROTO_TYPE('E') | PROTO_TYPE('H') | \
	    PROTO_TYPE('S') | PROTO_TYPE('F') | PROTO_TYPE('X') | PROTO_TYPE('p'))

/* Without a link: true when the message needs none; *v says how to go on. */
static bool
up_without_link(struct up *u, char type, uint32_t size, enum up_verdict *v)
{
	struct session *s = u->s;
	bool is_extended =
	    proto_is_of(type, NAME_TYPES | PROTO_TYPE('E') | PROTO_TYPE('H'));

	*v = UP_GO_ON;
	if (type == 'S') {
		s->skips_to_sync = false;
		session_ready(s, 'I');
		up_body(u, size + 1, true);
		return (true);
	}
	if (s->is_refused && (is_extended || type == 'Q' || type == 'F')) {
		s->is_refused = false;
		session_error(s, "ERROR", fault_info(F_CANCELLED)->sqlstate,
		    fault_info(F_CANCELLED)->text, NULL, NULL);
		s->skips_to_sync = is_extended;
		if (!is_extended)
			session_ready(s, 'I');
		up_body(u, size + 1, true);
		return (true);
	}
	/* Copy data that nobody expects, a flush of nothing: the server would ignore it too. */
	if (s->skips_to_sync || proto_is_of(type, COPY_TYPES | PROTO_TYPE('H'))) {
		up_body(u, size + 1, true);
		return (true);
	}
	return (false);
}

/* Sync does not end a batch while copy data flows: the server ignores it there. */
static enum up_verdict
up_sync(struct up *u, uint32_t size)
{
	struct link *l = u->s->link;

	if (l->is_copying_in)
		l->is_dirty = true;
	else {
		l->skips_to_sync = l->is_sharing = false;
		up_owe(u, REQ_SYNC, ACT_FORWARD)->is_behind_copy = l->copy_has_ended;
		l->batch++;
	}
	return (up_body(u, size + 1, false));
}

/* What a simple query leaves behind is noted, and what it names is made to be there. */
static enum up_verdict
up_query(struct up *u, uint32_t size)
{
	const char *sql = (const char *)u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD;
	bool restores = false;
	enum up_verdict v;
	int look;

	if (size < 5 || size > SESSION_WHOLE_MAX || u->s->link->is_copying_in)
		return (UP_PASS);
	look = carry_look(sql, have < size - 5 ? have : size - 5, size - 5);
	if (look == 0) {
		if (hub_any())
			echo_look(u->s, sql, have < size - 5 ? have : size - 5);
		return (UP_PASS);
	}
	if (look < 0 || have < size - 4)
		return (UP_STOP);
	if (sql[size - 5] != '\0')
		return (UP_PASS);
	if ((look & SQL_LOOK_LEAVES) != 0 && u->s->weave == NULL &&
	    (v = carry_query(u, sql, size - 5, &restores)) != UP_PASS)
		return (v == UP_GO_ON ? up_body(u, size + 1, true) : v);
	if (!restores && ((look & SQL_LOOK_PREPARE) == 0 || !u->s->rewrites)) {
		if (hub_any())
			echo_look(u->s, sql, size - 5);
		return (UP_PASS);
	}
	if (!prep_is_ready(u, sql, size - 5))
		return (UP_STOP);
	v = prep_query(u, sql, sql, size - 5);
	return (v == UP_GO_ON ? up_body(u, size + 1, true) : v);
}

/* A Parse with nothing but a Sync behind it: its statement runs at a Bind. */
static bool
is_for_later(const struct up *u, uint32_t size)
{
	size_t next = u->used + size + 1;

	return (next < u->len && u->p[next] == 'S');
}

#define OWN_LETTERS 24
/* What is the proxy's own business in a statement: CREATE, ALTER and DROP DATABASE, and
 * pg_terminate_backend(). Nearly all are told by a few letters. at: of the text in the message; a
 * Parse has its name before it. */
static enum up_verdict
up_own_business(struct up *u, char type, uint32_t size)
{
	const char *sql = (const char *)u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD, at = 0;
	bool is_ahead;

	if (have > size - 4)
		have = size - 4;
	if (type == 'P')
		at = strnlen(sql, have) + 1;
	/* Those letters, and what is behind them. */
	if (have < size - 4 && have < at + OWN_LETTERS)
		return (UP_STOP);
	if (have <= at)
		return (UP_PASS);
	/* A query ends the statement without a name. */
	if (UNLIKELY(u->s->signals != NULL))
		signal_forget(u->s, type == 'P' ? sql : "");
	if (UNLIKELY(u->s->listens != NULL) && u->s->weave == NULL &&
	    !listen_is_shown(u->s, sql + at, have - at))
		return (UP_STOP);
	if (UNLIKELY(sql_signal_may(sql + at, have - at)) &&
	    (type == 'P' || !pool_settings(u->s->worker)->disable_pqexec))
		return (signal_message(u, type, size));
	if (LIKELY(!sql_lone_may(sql + at, have - at)))
		return (UP_PASS);
	is_ahead = at > 1 && is_for_later(u, size);
	if (is_ahead && u->s->rewrites)
		return (UP_PASS);
	/* They are short. */
	if (!fence_is_ready(u, sql + at, strnlen(sql + at, have - at)))
		return (UP_STOP);
	if (is_ahead)
		fence_stay(u->s);
	return (UP_PASS);
}

static enum up_verdict up_linked(struct up *, char type, uint32_t size);
static void up_pass(struct up *);

enum up_verdict
up_substitute(struct up *u, char type, uint32_t size)
{
	enum up_verdict v;

	u->is_substitute = true;
	v = up_linked(u, type, size);
	while (v == UP_GO_ON && u->s->body_left > 0 && u->used < u->len)
		up_pass(u);
	u->is_substitute = false;
	return (v);
}

static enum up_verdict
up_linked(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	struct link *l = s->link;
	enum up_verdict v;

	if ((l->shares || l->heals) && share_must_wait(s))
		return (UP_STOP);
	if (l->skips_to_sync && type != 'S')
		return (up_body(u, size + 1, true));
	if ((type == 'Q' || type == 'P') && s->weave == NULL && !u->is_substitute &&
	    (v = up_own_business(u, type, size)) != UP_PASS)
		return (v);
	if (type == 'B' && UNLIKELY(s->signals != NULL) && !u->is_substitute &&
	    signal_is_noted(s) && (v = signal_message(u, type, size)) != UP_PASS)
		return (v);
	if (s->rewrites && proto_is_of(type, NAME_TYPES))
		return (up_rewritten(u, type, size));
	switch (type) {
	case 'Q':
		if (pool_settings(s->worker)->disable_pqexec)
			return (up_broken(u, "PQexec disabled"));
		u->has_looked = false;
		if ((v = up_query(u, size)) != UP_PASS)
			return (v);
		up_owe(u, REQ_QUERY, ACT_FORWARD)->is_looked = u->has_looked;
		up_drop_unnamed(u);
		break;
	case 'F':
		up_owe(u, REQ_FUNCTION, ACT_FORWARD);
		break;
	case 'S':
		return (up_sync(u, size));
	case 'P':
		if (session_carries(s) && (v = carry_parse(u, size)) != UP_PASS)
			return (v);
		if (!session_carries(s) && s->startup != NULL &&
		    (v = carry_parse_own(u, size)) != UP_PASS)
			return (v);
		up_owe(u, REQ_PARSE, ACT_FORWARD);
		break;
	case 'B':
		if (s->carry != NULL && s->carry->later.count > 0 &&
		    (v = carry_bind_own(u, size)) != UP_PASS)
			return (v);
		up_owe(u, REQ_BIND, ACT_FORWARD);
		break;
	case 'D':
		up_owe(u, REQ_DESCRIBE, ACT_FORWARD);
		break;
	case 'E':
		if (s->prep != NULL && s->prep->is_batch &&
		    (v = prep_execute(u, size)) != UP_PASS)
			return (v);
		if (s->carry != NULL && s->carry->portals.count > 0 &&
		    (v = carry_execute(u, size)) != UP_PASS)
			return (v);
		up_owe(u, REQ_EXECUTE, ACT_FORWARD);
		break;
	case 'C':
		up_owe(u, REQ_CLOSE, ACT_FORWARD);
		break;
	case 'c':
	case 'f':
		l->is_copying_in = false;
		l->copy_has_ended = true;
		break;
	default: /* d H */
		break;
	}
	return (up_body(u, size + 1, false));
}

static enum up_verdict
up_message(struct up *u)
{
	const uint8_t *head = u->p + u->used;
	struct session *s = u->s;
	enum up_verdict v;
	uint32_t size;
	char type;

	if (u->len - u->used < PROTO_HEAD)
		return (UP_STOP);
	type = (char)head[0];
	size = proto_get32(head + 1);
	if (size < 4 || size > (uint64_t)pool_settings(s->worker)->max_packet_size ||
	    !proto_is_of(type, ALL_TYPES))
		return (up_broken(u, "invalid frontend message"));
	if (type == 'p')
		return (up_broken(u, "unexpected password message"));
	if (type == 'X') {
		batch_flush(&u->batch);
		/* What it has sent is done first, as a server would. */
		if (s->link != NULL && session_owed_readies(s->link) > 0 &&
		    !s->link->is_copying_in)
			s->is_leaving = true;
		else
			session_end(s, "client close request");
		return (UP_STOP);
	}
	if (UNLIKELY(s->listens != NULL) && !proto_is_of(type, COPY_TYPES) &&
	    listen_stalls(s))
		return (UP_STOP);
	if (s->prep != NULL && (v = prep_message(u, type, size)) != UP_PASS)
		return (v);
	if (s->weave != NULL) {
		if (!weave_follows(s, type) &&
		    (v = weave_message(u, type, size)) != UP_PASS)
			return (v);
	} else {
		if (s->link == NULL && up_without_link(u, type, size, &v))
			return (v);
		if (s->link == NULL && type == 'P' && s->rewrites && s->signals == NULL &&
		    share_parse_taken(u, size))
			return (UP_GO_ON);
		if (s->link == NULL && UNLIKELY(s->seat->limits.multiplex) &&
		    (type == 'Q'                     ? mux_query(u, size)
			: type == 'P' || type == 'B' ? mux_batch(u)
						     : false))
			return (UP_STOP);
		if (s->link == NULL && !session_get_link(s))
			return (UP_STOP);
	}
	up_to_link(u);
	if (s->link->state != LINK_LENT || s->stream.is_paused)
		return (UP_STOP);
	return (up_linked(u, type, size));
}

/* Bytes of the message that is passing. */
static void
up_pass(struct up *u)
{
	struct session *s = u->s;
	size_t n = u->len - u->used;

	if (n > s->body_left)
		n = s->body_left;
	if (!s->body_is_dropped && s->link != NULL)
		batch_pass(&u->batch, u->p + u->used, n);
	s->body_left -= (uint32_t)n;
	u->used += n;
}

/* Nothing keeps the next message from its link: session_flow() would change nothing. */
static bool
flows_on(const struct session *s)
{
	const struct link *l = s->link;

	return (s->state == SESSION_ACTIVE && l != NULL && l->state == LINK_LENT &&
		!s->stream.is_paused && !l->stream.is_paused && !s->is_stalled &&
		!s->is_leaving && !s->waits_own && !stream_is_full(&s->stream) &&
		!stream_is_full(&l->stream) && l->requests.count < REQUESTS_MAX &&
		(s->weave == NULL || !s->weave->is_held));
}

size_t
session_feed(struct session *s, const uint8_t *p, size_t len)
{
	struct up u = {.s = s, .p = p, .len = len, .now_us = worker_now_us(s->worker)};
	struct session_worker *sw = session_worker(s->worker);

	s->request_us = u.now_us;
	batch_begin(&u.batch, s->link != NULL ? &s->link->stream : NULL, &sw->scratch[0]);
	while (u.used < len && s->state != SESSION_CLOSED) {
		if (s->body_left > 0)
			up_pass(&u);
		else if (s->stream.is_paused || up_message(&u) == UP_STOP)
			break;
		/* A long run of small messages must not outrun what the client reads. */
		if (s->body_left == 0 && u.used < len && s->state != SESSION_CLOSED &&
		    !flows_on(s))
			session_flow(s);
	}
	if (s->state == SESSION_CLOSED)
		return (len);
	METRIC_ADD(&s->seat->metrics, received, u.used);
	again_sent(&u);
	if (s->link == NULL) {
		if (s->state != SESSION_SHARING)
			session_flow(s);
		return (u.used);
	}
	batch_flush(&u.batch);
	if (s->link->requests.count > 0 &&
	    requests_head(&s->link->requests)->act == ACT_FAKE && !s->link->shares &&
	    s->link->body_left == 0) {
		batch_begin(&u.batch, &s->stream, &sw->scratch[1]);
		again_hold(s, &u.batch);
		session_emit_fakes(s, &u.batch);
		batch_flush(&u.batch);
		again_answered(s);
	}
	/* The answer may have come before the end of the message that it is to. */
	if (u.used > 0 && s->link->state == LINK_LENT)
		session_release_if_done(s);
	if (s->state != SESSION_CLOSED && s->link != NULL)
		session_flow(s);
	return (u.used);
}
