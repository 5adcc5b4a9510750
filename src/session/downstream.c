/*
 * From the server to the client. Heads are walked in the buffer where the bytes were read;
 * what is the client's goes on from there with one write. The head of the link's queue of
 * requests says whose an answer is:
 *
 *   forward   the client's
 *   skip      the proxy's own, swallowed
 *   fake      nothing was sent for it: made here when its turn has come
 *
 * An error ends an extended batch: the server answers nothing more until Sync, so what
 * stands in the queue before it is undone, newest first.
 */
#include "carry.h"
#include "listen.h"
#include "mux.h"
#include <string.h>

#define WHOLE_SMALL                                                                      \
	65536 /* messages that are looked into are not longer, but for errors */

struct down {
	struct session *s;
	struct link *l;
	const uint8_t *p;
	size_t len, used;
	struct batch batch;
};

enum verdict { DOWN_GO_ON, DOWN_STOP };

static void
request_done(struct session *s, struct request *r)
{
	struct stmt_name *n = r->arg;

	if (n == NULL)
		return;
	if (r->kind == REQ_PARSE && !r->is_doomed) {
		n->is_sure = true;
		again_named(s, n->name);
	}
	stmt_name_unpend(s, n);
}

void
session_undo_request(struct session *s, struct link *l, struct request *r)
{
	struct stmt_name *n = r->arg;

	if (r->is_ours)
		l->unnamed = UNNAMED_FOREIGN;
	else if (r->is_unnamed) {
		/* Whatever the link has under no name now, it is not to be relied on. */
		l->unnamed = UNNAMED_FOREIGN;
		s->unnamed_token = 0;
		stmt_unnamed_set(s, NULL);
		if (r->is_shared && r->act != ACT_FAKE)
			prepared_forget(&l->prepared, r->id);
	} else if (r->kind == REQ_QUERY)
		l->unnamed = UNNAMED_FOREIGN;
	else if (r->kind == REQ_PARSE && r->act != ACT_FAKE && !r->is_doomed)
		prepared_forget(&l->prepared, r->id);
	else if ((r->kind == REQ_BIND || r->kind == REQ_DESCRIBE) && n != NULL)
		prepared_doubt(&l->prepared, n->stmt->id);
	if (r->kind == REQ_EXECUTE && r->act == ACT_SKIP)
		prepared_forget(&l->prepared, r->id);
	if (r->kind == REQ_CLOSE && r->act == ACT_SKIP && !r->is_unnamed && !r->is_own) {
		prepared_add(&l->prepared, r->id, l->batch);
		prepared_confirm(&l->prepared, r->id);
	}
	if (n == NULL)
		return;
	if (r->kind == REQ_PARSE && !r->is_doomed && n->is_listed)
		stmt_name_take_out(s, n);
	else if (r->kind == REQ_CLOSE && !n->is_listed &&
		 stmt_name_find(s, n->name) == NULL)
		stmt_name_put_back(s, n);
	stmt_name_unpend(s, n);
}

void
session_disown_requests(struct session *s, struct link *l)
{
	for (uint32_t i = l->requests.count; i-- > 0;) {
		struct request *r = requests_at(&l->requests, i);

		session_undo_request(s, l, r);
		r->arg = NULL;
	}
}

void
session_emit_fakes(struct session *s, struct batch *b)
{
	static const uint8_t parse_complete[] = {'1', 0, 0, 0, 4};
	static const uint8_t close_complete[] = {'3', 0, 0, 0, 4};
	struct link *l = s->link;
	struct request *r;

	while ((r = requests_head(&l->requests)) != NULL && r->act == ACT_FAKE &&
	       !r->is_shared) {
		batch_pass(b, r->kind == REQ_PARSE ? parse_complete : close_complete, 5);
		request_done(s, r);
		requests_pop(&l->requests);
	}
}

/* What the server sends makes no sense: no byte of it goes to a client. */
static enum verdict
down_broken(struct down *d, const char *why)
{
	struct session *s = d->s;

	batch_flush(&d->batch);
	session_log(s, LOG_WARNING_, "server broke the protocol: %s", why);
	d->l->is_dirty = true;
	session_close(
	    s, fault_info(F_LINK_PROTOCOL)->sqlstate, fault_info(F_LINK_PROTOCOL)->text);
	return (DOWN_STOP);
}

/* Drops a whole message, or lets it pass. */
static enum verdict
down_body(struct down *d, uint32_t size, bool is_forwarded)
{
	d->l->body_left = size + 1;
	d->l->body_is_forwarded = is_forwarded;
	return (DOWN_GO_ON);
}

/* The answer that the head of the queue waited for. */
static enum verdict
down_answer(struct down *d, uint32_t size, enum request_kind kind, const char *what)
{
	struct request *r = requests_head(&d->l->requests);
	bool is_forwarded;

	if (r == NULL || r->kind != kind)
		return (down_broken(d, what));
	is_forwarded = r->act == ACT_FORWARD;
	if (kind == REQ_PARSE) {
		bool is_ours = !r->is_unnamed || r->is_shared;

		/* As PgBouncer's: of statements where it is we who prepare them. */
		if (is_ours && d->s->rewrites)
			METRIC_INC(&d->s->seat->metrics, server_parse_count);
		if (is_ours)
			prepared_confirm(&d->l->prepared, r->id);
		if (r->arg != NULL)
			share_note_taken(
			    d->s, d->l, ((const struct stmt_name *)r->arg)->stmt);
	}
	if (r->is_healing)
		share_healed(d->s, r);
	request_done(d->s, r);
	requests_pop(&d->l->requests);
	return (down_body(d, size, is_forwarded));
}

static bool
is_tag(const char *tag, size_t len, const char *what)
{
	return (len == strlen(what) + 1 && memcmp(tag, what, len) == 0);
}

/* Others must not find, or miss, what came or went where nobody looked. */
static void
down_tag_shared(struct down *d, const struct request *r, const char *tag, size_t len)
{
	struct session *s = d->s;

	if (s->weave == NULL && tag[len - 1] == '\0')
		carry_tag(s, r, tag);
	if (s->rewrites && (s->prep == NULL || !s->prep->knows_tag) &&
	    (is_tag(tag, len, "PREPARE") || is_tag(tag, len, "DEALLOCATE")))
		d->l->is_tainted = true;
}

/* Statements go when the client, or DISCARD ALL, says so; but not those that stand behind it in
 * the queue. */
static void
down_tag(struct down *d, const struct request *head, bool had_rows, const char *tag,
    size_t len)
{
	struct session *s = d->s;
	struct link *l = d->l;

	if (tag[0] == 'N' && s->mode != POOL_SESSION)
		echo_note(s);
	if (UNLIKELY(s->listens != NULL))
		s->listens->has_committed |= is_tag(tag, len, "COMMIT");
	if (!link_note_tag(l, tag, len)) {
		/* Most say SELECT and have rows, or INSERT, UPDATE, BEGIN, COMMIT. */
		if (s->mode != POOL_SESSION &&
		    proto_is_of(tag[0], PROTO_TYPE('S') | PROTO_TYPE('R') |
					    PROTO_TYPE('P') | PROTO_TYPE('D') |
					    PROTO_TYPE('L')) &&
		    (tag[0] != 'S' || tag[2] == 'T' ||
			(head->kind == REQ_QUERY && !had_rows)))
			down_tag_shared(d, head, tag, len);
		return;
	}
	if (tag[1] == 'I')
		carry_discarded(s);
	/* SETs follow the Execute of DISCARD ALL. */
	s->was_discarded |=
	    tag[1] == 'I' && !(head->kind == REQ_EXECUTE && head->is_looked);
	if (s->listens != NULL && tag[1] == 'I')
		listen_clear(s);
	statements_clear(s);
	for (uint32_t i = 1; i < l->requests.count; i++) {
		struct request *r = requests_at(&l->requests, i);
		struct stmt_name *n = r->arg;

		if (r->kind == REQ_PARSE && r->act != ACT_FAKE && !r->is_doomed &&
		    !r->is_unnamed)
			prepared_add(&l->prepared, r->id, l->batch);
		if (n == NULL || r->is_doomed)
			continue;
		if (r->kind == REQ_PARSE && !n->is_listed &&
		    stmt_name_find(s, n->name) == NULL)
			stmt_name_put_back(s, n);
		else if (r->kind == REQ_CLOSE && n->is_listed)
			stmt_name_take_out(s, n);
	}
}

/* CommandComplete, EmptyQueryResponse, PortalSuspended. */
static enum verdict
down_complete(struct down *d, char type, const uint8_t *body, uint32_t size)
{
	struct request *r = requests_head(&d->l->requests);
	bool had_rows = d->l->has_rows;

	if (r == NULL || (r->kind != REQ_EXECUTE && r->kind != REQ_QUERY))
		return (down_broken(d, "a command is complete that was not sent"));
	if (r->act == ACT_SKIP) {
		prepared_confirm(&d->l->prepared, r->id);
		requests_pop(&d->l->requests);
		return (down_body(d, size, false));
	}
	if (type == 'C' && d->s->prep != NULL && !prep_tag(d->s, d->l))
		return (down_body(d, size, false));
	if (r->kind == REQ_QUERY) {
		/* CREATE TABLE AS says SELECT too, but describes no rows. */
		if (type == 'C' && !d->l->has_rows && size > 11 &&
		    memcmp(body, "SELECT ", 7) == 0)
			link_define(d->l);
		d->l->has_rows = false;
	}
	if (type == 'C' && size > 4) {
		down_tag(d, r, had_rows, (const char *)body, size - 4);
		if (d->s->weave != NULL && body[size - 5] == '\0')
			weave_tag(d->s, (const char *)body);
	}
	d->l->is_copying_in = false;
	if (r->kind == REQ_EXECUTE)
		requests_pop(&d->l->requests);
	if (d->s->prep != NULL && d->s->prep->is_unlisten) {
		d->s->prep->is_unlisten = false;
		proto_command_complete(batch_make(&d->batch), "UNLISTEN");
		batch_made(&d->batch);
		return (down_body(d, size, false));
	}
	return (down_body(d, size, true));
}

/* CopyInResponse. In the extended protocol the server ignores every Sync that it reads until
 * the copy is over, also those that are on the way already. */
static enum verdict
down_copy_in(struct down *d, uint32_t size)
{
	struct requests *q = &d->l->requests;
	struct request *r = requests_head(q);

	if (r == NULL || (r->kind != REQ_EXECUTE && r->kind != REQ_QUERY))
		return (down_broken(d, "copy data is asked for that nobody offered"));
	d->l->is_copying_in = !d->l->copy_has_ended;
	if (d->l->is_copying_in && d->s->is_leaving) {
		batch_flush(&d->batch);
		session_end(d->s, "client close request");
		return (DOWN_STOP);
	}
	/* What waits for the end of the COPY may stand before its data. */
	if (d->l->is_copying_in)
		d->s->is_stalled = false;
	if (r->kind == REQ_EXECUTE)
		while (q->count > 1 && requests_at(q, 1)->kind == REQ_SYNC &&
		       !requests_at(q, 1)->is_behind_copy) {
			requests_remove(q, 1);
			d->l->wants_sync = q->count == 1;
			d->l->has_lost_sync = true;
		}
	return (down_body(d, size, true));
}

static enum verdict
down_error(struct down *d, const uint8_t *body, uint32_t size)
{
	struct link *l = d->l;
	struct request *r;
	struct proto_error_fields error;
	char server_name[PREPARED_NAME];
	uint32_t until = 0;
	bool renamed = false;

	if (proto_error_parse(body, size - 4, &error) != 0)
		return (down_broken(d, "malformed ErrorResponse"));
	if (strcmp(error.severity, "FATAL") == 0 || strcmp(error.severity, "PANIC") == 0)
		l->saw_fatal = true;
	if (l->shares && share_failed(d->s, l, &error, &d->batch))
		return (down_body(d, size, false));
	if (again_failed(d->s, &d->batch, &error))
		return (DOWN_STOP);
	r = requests_head(&l->requests);
	again_release(d->s, &d->batch);
	if (d->s->mode != POOL_SESSION && link_is_at_rest(l) &&
	    (d->s->carry == NULL || d->s->carry->pins.held == 0)) {
		/* Behind the last answer: the farewell to a link that is on its way back. */
		l->is_dirty = true;
		return (down_body(d, size, false));
	}
	/* A copy that failed before it read its first message leaves a Sync to be answered. */
	if (l->has_lost_sync)
		l->is_dirty = true;
	/* What we believe of the statements of this link has turned out to be wrong. */
	if (r != NULL && !r->is_doomed && !r->is_unnamed &&
	    ((r->kind == REQ_PARSE && r->act != ACT_FAKE &&
		 strcmp(error.sqlstate, "42P05") == 0) ||
		(r->renames && strcmp(error.sqlstate, "26000") == 0)))
		l->is_dirty = true;
	/* "cached plan must not change result type", in whatever language. */
	if (r != NULL && r->renames && strcmp(error.sqlstate, "0A000") == 0 &&
	    strcmp(error.routine, "RevalidateCachedQuery") == 0)
		prepared_renew(((const struct stmt_name *)r->arg)->stmt->id);
	l->is_copying_in = false;
	if (d->s->carry != NULL) {
		d->s->carry->has_failed = true;
		d->s->carry->must_restore |= d->s->carry->is_discarded;
	}
	if (d->s->prep != NULL && r != NULL)
		renamed = prep_error(d->s, r, body, size - 4, &error, &d->batch);
	if (d->s->weave != NULL && (d->s->prep == NULL || !d->s->prep->repeats))
		d->s->weave->unit.has_failed = true;
	if (!renamed && r != NULL && r->is_ours) {
		const struct refusal *why = &d->s->weave->refusal;

		proto_error(batch_make(&d->batch), "ERROR", why->sqlstate, why->message,
		    why->detail, why->hint);
		batch_made(&d->batch);
		renamed = true;
	}
	if (!renamed && r != NULL && r->renames) {
		const struct stmt_name *n = r->arg;

		prepared_name(n->stmt->id, server_name);
		renamed = proto_error_rename(batch_make(&d->batch), body, size - 4,
			      server_name, n->name) == 0;
		batch_made(&d->batch);
	}
	if (r != NULL && r->kind != REQ_QUERY && r->kind != REQ_FUNCTION &&
	    r->kind != REQ_SYNC) {
		while (until < l->requests.count &&
		       requests_at(&l->requests, until)->kind != REQ_SYNC)
			until++;
		l->skips_to_sync = until == l->requests.count;
		if (!l->skips_to_sync)
			requests_at(&l->requests, until)->is_after_error = true;
		/* Newest first, so that a name closed and given anew is undone in order. */
		for (uint32_t i = until; i-- > 0;)
			session_undo_request(d->s, l, requests_at(&l->requests, i));
		while (until-- > 0)
			requests_pop(&l->requests);
	}
	return (down_body(d, size, !renamed));
}

/* The counter of queries that take about as long: nearly always the first one. */
enum metric_id
session_query_bucket(int64_t us)
{
	static const int64_t bounds_us[] = {
#define BUCKET(bound_us) bound_us,
#include "tbl/query_buckets.def"
	};
	unsigned i = 0;

	_Static_assert(M_query_le_inf - M_query_le_500 == ARRAY_LEN(bounds_us),
	    "a counter for each bound");
	while (i < ARRAY_LEN(bounds_us) && us > bounds_us[i])
		i++;
	return ((enum metric_id)(M_query_le_500 + i));
}

static enum verdict
down_ready(struct down *d, const uint8_t *body, uint32_t size)
{
	struct session *s = d->s;
	struct link *l = d->l;
	struct request *r = requests_head(&l->requests);
	struct metrics *m = &s->seat->metrics;
	int64_t now = worker_now_us(s->worker);
	bool is_forwarded = r == NULL || r->act == ACT_FORWARD;
	bool is_after_error = r != NULL && r->is_after_error;

	if (size != 5 || !proto_is_of((char)body[0],
			     PROTO_TYPE('I') | PROTO_TYPE('T') | PROTO_TYPE('E')))
		return (down_broken(d, "malformed ReadyForQuery"));
	if (r != NULL && r->kind != REQ_SYNC && r->kind != REQ_QUERY &&
	    r->kind != REQ_FUNCTION)
		return (down_broken(d, "ready before it has answered"));
	if (r == NULL && !l->is_dirty)
		return (down_broken(d, "ready for nothing that was sent"));
	if (r != NULL)
		requests_pop(&l->requests);
	else
		l->skips_to_sync = l->wants_sync = false;
	l->has_lost_sync = false;
	l->txn = (char)body[0];
	if (l->has_defined && l->txn == 'I')
		link_define_over(l);
	if (l->heals) {
		share_heal(s, l);
		return (down_body(d, size, false));
	}
	if (s->prep != NULL && r != NULL && prep_ready(s, l))
		return (down_body(d, size, false));
	s->request_us = now;
	METRIC_INC(m, query_count);
	if (l->query_us != 0) {
		METRIC_ADD(m, query_time, now - l->query_us);
		m->v[session_query_bucket(now - l->query_us)]++;
	}
	if (UNLIKELY(s->timed != NULL))
		mux_timed(s, l->query_us);
	l->query_us = l->requests.count > 0 ? now : 0;
	if (l->txn != 'I' && s->mode == POOL_STATEMENT) {
		batch_flush(&d->batch);
		session_close(s, "0A000",
		    "transaction blocks not allowed in statement pooling mode");
		return (DOWN_STOP);
	}
	/* A Sync of the proxy's own: the client's is still to come. */
	s->skips_to_sync |= !is_forwarded && is_after_error;
	if (s->weave != NULL)
		weave_ready(s, l, l->txn);
	if (s->was_discarded && s->discarded == NULL)
		s->discarded = vars_hold(l->vars);
	if (s->carry != NULL) {
		s->carry->is_discarded &= l->txn != 'I';
		if (s->carry->holds_reports) {
			batch_flush(&d->batch);
			carry_report(s);
		}
	}
	if (l->txn == 'I') {
		METRIC_INC(m, xact_count);
		if (l->xact_us != 0)
			METRIC_ADD(m, xact_time, now - l->xact_us);
		l->xact_us = l->requests.count > 0 ? now : 0;
	}
	if (UNLIKELY(s->listens != NULL) && listen_ready(s, &d->batch, is_forwarded))
		return (down_body(d, size, false));
	return (down_body(d, size, is_forwarded));
}

/* Of a link that is the client's own; on one that is shared they are those of a LISTEN which
 * nobody has seen, in a function: the next one's they are not. */
static enum verdict
down_notification(struct down *d, const uint8_t *body, uint32_t size)
{
	struct session *s = d->s;

	if (size < 10)
		return (down_broken(d, "malformed NotificationResponse"));
	if (s->mode != POOL_SESSION) {
		d->l->is_tainted = true;
		return (down_body(d, size, false));
	}
	echo_put(batch_make(&d->batch), body, size - 4,
	    link_client_of(d->l, proto_get32(body)));
	batch_made(&d->batch);
	return (down_body(d, size, false));
}

static enum verdict
down_parameter(struct down *d, const uint8_t *body, uint32_t size)
{
	const char *name, *value;

	if (proto_parameter_parse(body, size - 4, &name, &value) != 0)
		return (down_broken(d, "malformed ParameterStatus"));
	link_note_parameter(d->l, name, value);
	return (down_body(d, size, d->s->carry == NULL || !d->s->carry->holds_reports));
}

/* RowDescription answers a Describe, or belongs to a simple query. */
static enum verdict
down_description(struct down *d, uint32_t size)
{
	struct request *r = requests_head(&d->l->requests);

	if (r != NULL && r->kind == REQ_DESCRIBE)
		return (down_answer(d, size, REQ_DESCRIBE, ""));
	if (r == NULL || (r->kind != REQ_QUERY && r->kind != REQ_EXECUTE))
		return (down_broken(d, "rows are described that nobody asked for"));
	d->l->has_rows = true;
	return (down_body(d, size, true));
}

static enum verdict
down_data(struct down *d, uint32_t size)
{
	struct request *r = requests_head(&d->l->requests);

	if (r == NULL || r->act == ACT_SKIP)
		return (down_broken(d, "data that nobody asked for"));
	return (down_body(d, size, true));
}

/* CopyBothResponse: a walsender streams, and hears from its client all the while. */
static enum verdict
down_copy_both(struct down *d, uint32_t size)
{
	d->l->is_copying_in = !d->l->copy_has_ended;
	return (down_data(d, size));
}

#define WHOLE_TYPES                                                                      \
	(PROTO_TYPE('Z') | PROTO_TYPE('S') | PROTO_TYPE('C') | PROTO_TYPE('E') |         \
	    PROTO_TYPE('A') | PROTO_TYPE('K') | PROTO_TYPE('R'))
/* Rows, or an end. */
#define END_TYPES                                                                        \
	(PROTO_TYPE('D') | PROTO_TYPE('C') | PROTO_TYPE('I') | PROTO_TYPE('s') |         \
	    PROTO_TYPE('Z') | PROTO_TYPE('G') | PROTO_TYPE('H') | PROTO_TYPE('W') |      \
	    PROTO_TYPE('d') | PROTO_TYPE('c') | PROTO_TYPE('V'))

static enum verdict
down_message(struct down *d)
{
	const uint8_t *head = d->p + d->used, *body = head + PROTO_HEAD;
	size_t have = d->len - d->used;
	uint32_t size;
	char type;

	if (have < PROTO_HEAD)
		return (DOWN_STOP);
	type = (char)head[0];
	size = proto_get32(head + 1);
	if (size < 4 || size > 0x7fffffff)
		return (down_broken(d, "message of an impossible length"));
	if (proto_is_of(type, WHOLE_TYPES) && have < (size_t)size + 1) {
		if (size > (type == 'E' ? SESSION_WHOLE_MAX : WHOLE_SMALL))
			return (down_broken(d, "message of an impossible length"));
		return (DOWN_STOP);
	}
	if (d->l->shares)
		share_hears(d->l, type, &d->batch);
	if (d->batch.held != NULL && proto_is_of(type, END_TYPES))
		again_release(d->s, &d->batch);
	switch (type) {
	case 'D':
	case 'd':
	case 't':
	case 'c':
	case 'V':
	case 'H':
		return (down_data(d, size));
	case 'W':
		return (down_copy_both(d, size));
	case 'T':
		return (down_description(d, size));
	case 'Z':
		return (down_ready(d, body, size));
	case 'C':
		return (down_complete(d, type, body, size));
	case 'I':
	case 's':
		return (down_complete(d, type, NULL, size));
	case '1':
		return (down_answer(
		    d, size, REQ_PARSE, "a Parse is complete that was not sent"));
	case '2':
		return (down_answer(
		    d, size, REQ_BIND, "a Bind is complete that was not sent"));
	case '3':
		return (down_answer(
		    d, size, REQ_CLOSE, "a Close is complete that was not sent"));
	case 'n':
		return (down_answer(
		    d, size, REQ_DESCRIBE, "a description that nobody asked for"));
	case 'E':
		return (down_error(d, body, size));
	case 'G':
		return (down_copy_in(d, size));
	case 'S':
		return (down_parameter(d, body, size));
	case 'N':
		return (down_body(d, size, true));
	case 'A':
		return (down_notification(d, body, size));
	default:
		return (down_broken(d, "unknown message"));
	}
}

static void
down_pass(struct down *d)
{
	struct link *l = d->l;
	size_t n = d->len - d->used;

	if (n > l->body_left)
		n = l->body_left;
	if (l->body_is_forwarded)
		batch_pass(&d->batch, d->p + d->used, n);
	l->body_left -= (uint32_t)n;
	d->used += n;
}

size_t
session_link_bytes(struct link *l, const uint8_t *p, size_t len)
{
	struct session *s = l->user_arg;
	struct down d = {.s = s, .l = l, .p = p, .len = len};

	INVARIANT(s->magic == SESSION_MAGIC && s->link == l);
	batch_begin(&d.batch, &s->stream, &session_worker(s->worker)->scratch[1]);
	again_hold(s, &d.batch);
	while (d.used < len && s->state != SESSION_CLOSED) {
		if (l->body_left > 0)
			down_pass(&d);
		else if (down_message(&d) == DOWN_STOP)
			break;
		if (l->body_left == 0 && s->link == l && l->requests.count > 0 &&
		    requests_head(&l->requests)->act == ACT_FAKE)
			session_emit_fakes(s, &d.batch);
	}
	if (s->state == SESSION_CLOSED || s->link != l)
		return (len);
	METRIC_ADD(&s->seat->metrics, sent, d.batch.bytes);
	batch_flush(&d.batch);
	again_answered(s);
	if (d.used == len)
		session_release_if_done(s);
	if (s->state != SESSION_CLOSED && s->link == l)
		session_flow(s);
	return (d.used);
}
