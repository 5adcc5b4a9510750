/*
 * What comes on a link that several sessions use at once. Heads are walked where they were read,
 * and the run of one client's messages, up to its ReadyForQuery, goes to it with one write. An
 * answer that nobody wants any more is thrown away.
 */
#include "mux.h"
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define ERROR_MAX SESSION_WHOLE_MAX
#define WHOLE_MAX 65536

struct read {
	struct mux *m;
	const uint8_t *p;
	size_t len, used;
	size_t from; /* of what has come for the first statement, not passed on yet */
	int64_t now_us;
};

enum verdict { READ_ON, READ_STOP };

/* The statement that the server works on; NULL: none was sent. */
static struct mux_entry *
under_way(struct mux *m)
{
	struct mux_entry *e = mux_at(m, 0);

	return (m->count > 0 && e->at < m->sent ? e : NULL);
}

/* What has come goes to the first statement's client. */
static void
pass_on(struct read *r)
{
	static uint8_t parse_complete[] = {'1', 0, 0, 0, 4};
	struct mux_entry *e = under_way(r->m);
	size_t n = r->used - r->from;
	struct iovec parts[] = {{parse_complete, sizeof(parse_complete)},
	    {(void *)(uintptr_t)(r->p + r->from), n}};

	r->from = r->used;
	if (e == NULL || e->s == NULL || n == 0)
		return;
	METRIC_ADD(&e->s->seat->metrics, sent, n);
	/* What is said to a text comes before it is taken, or is not. */
	if (e->fakes_parse && !e->skips_parse) {
		stream_writev(&e->s->stream, parts, 2);
		e->fakes_parse = false;
	} else
		stream_writev(&e->s->stream, parts + 1, 1);
}

static void
body(struct read *r, uint32_t total, bool is_forwarded)
{
	struct link *l = r->m->link;
	size_t n = r->len - r->used < total ? r->len - r->used : total;

	if (!is_forwarded)
		pass_on(r);
	r->used += n;
	if (!is_forwarded)
		r->from = r->used;
	l->body_left = total - (uint32_t)n;
	l->body_is_forwarded = is_forwarded;
}

/* ---- the end of the link ---- */

/* Who has begun to hear an answer, or may have had its statement run, hears that the link is
 * lost; the others' statements run elsewhere. */
static void
lost(struct mux *m, const char *why, bool is_broken)
{
	struct link *l = m->link;
	struct mux_entry *e = under_way(m);
	struct session *s = e != NULL ? e->s : NULL;

	mux_move(m, s != NULL ? 1 : 0);
	for (unsigned i = 0; i < m->count; i++)
		sql_facts_release(mux_at(m, i)->facts);
	if (s != NULL)
		e->s = NULL;
	m->count = 0;
	mux_free(m);
	if (s == NULL)
		return;
	s->mux = NULL;
	session_move(s, SESSION_IDLE);
	if (l->saw_fatal || (l->body_left > 0 && l->body_is_forwarded)) {
		session_end(s, why);
		return;
	}
	if (is_broken) {
		session_close(s, fault_info(F_LINK_PROTOCOL)->sqlstate, why);
		return;
	}
	session_error(s, "ERROR", fault_info(F_LINK_LOST)->sqlstate, why, NULL, NULL);
	session_ready(s, 'I');
	session_flow(s);
}

static void
mux_lost(struct link *l, const char *why)
{
	lost(l->user_arg, why, false);
}

/* What the server sends makes no sense: no byte of it goes to a client. */
static enum verdict
broken(struct read *r, const char *why)
{
	struct link *l = r->m->link;

	pass_on(r);
	log_warning("S-%#llx: %s broke the protocol: %s", (unsigned long long)l->id,
	    l->name, why);
	link_close(l, why);
	lost(r->m, fault_info(F_LINK_PROTOCOL)->text, true);
	return (READ_STOP);
}

/* ---- messages ---- */

static enum verdict
failed(struct read *r, const uint8_t *text, uint32_t size)
{
	struct mux_entry *e = under_way(r->m);
	struct proto_error_fields error;
	struct link *l = r->m->link;

	if (proto_error_parse(text, size - 4, &error) != 0)
		return (broken(r, "malformed ErrorResponse"));
	if (strcmp(error.severity, "FATAL") == 0 || strcmp(error.severity, "PANIC") == 0)
		l->saw_fatal = true;
	if (e != NULL) {
		e->comes_again = e->is_batch && mux_batch_failed(r->m, e, &error);
		body(r, size + 1, !e->comes_again);
		return (READ_ON);
	}
	/* Behind the last answer: the farewell. */
	l->is_dirty = true;
	body(r, size + 1, false);
	mux_move(r->m, 0);
	return (READ_ON);
}

static enum verdict
parameter(struct read *r, const uint8_t *text, uint32_t size)
{
	const char *name, *value;

	if (proto_parameter_parse(text, size - 4, &name, &value) != 0)
		return (broken(r, "malformed ParameterStatus"));
	link_note_parameter(r->m->link, name, value);
	/* Of what a client may set, whoever shares the link hears: see ready(). */
	body(r, size + 1,
	    vars_kind_of(r->m->link->worker, name) == VARS_FIXED &&
		under_way(r->m) != NULL);
	return (READ_ON);
}

static void
count_one(struct read *r, const struct mux_entry *e)
{
	struct metrics *m = &e->s->seat->metrics;
	int64_t took_us = r->now_us - e->start_us;

	METRIC_INC(m, query_count);
	METRIC_INC(m, xact_count);
	METRIC_ADD(m, query_time, took_us);
	METRIC_ADD(m, xact_time, took_us);
	m->v[session_query_bucket(took_us)]++;
}

/* The server has set something by itself, which the client has not been told. */
static void
follow(struct session *s, struct link *l)
{
	struct vars *now =
	    vars_with_startup(s->worker, vars_hold(l->vars), session_tracked(s));

	session_follow_vars(s, s->vars, now);
	vars_release(s->worker, now);
}

static enum verdict
ready(struct read *r, const uint8_t *text, uint32_t size)
{
	struct mux *m = r->m;
	struct mux_entry *e = under_way(m);
	struct session *s;

	if (size != 5 || text[0] != 'I')
		return (broken(r, "malformed ReadyForQuery"));
	if (e == NULL)
		return (broken(r, "ready for nothing that was sent"));
	s = e->s;
	if (UNLIKELY(e->comes_again)) {
		body(r, size + 1, false);
		if (s != NULL)
			mux_run_again(m, e);
		s = NULL;
	} else if (s != NULL && UNLIKELY(s->vars != m->link->vars)) {
		pass_on(r);
		follow(s, m->link);
	}
	if (!e->comes_again)
		body(r, size + 1, true);
	pass_on(r);
	r->now_us = worker_now_us(m->link->worker);
	mux_note_run(m->link->worker, e->facts, m->head_us);
	if (s != NULL)
		count_one(r, e);
	sql_facts_release(e->facts);
	m->run_us -= e->run_us;
	m->head_us = r->now_us;
	m->head = (m->head + 1) % MUX_DEPTH;
	if (--m->count == 0)
		m->texts.len = m->kept.len = m->sent = m->head = 0;
	else if (mux_at(m, 0)->s != NULL)
		link_serve(m->link, session_told_pid(mux_at(m, 0)->s));
	if (s != NULL) {
		s->request_us = r->now_us;
		mux_release(s);
	}
	return (READ_ON);
}

static enum verdict
answer(struct read *r, char type, uint32_t size)
{
	struct mux_entry *e = under_way(r->m);
	enum mux_heard heard = MUX_HEARD_PASS;

	if (e == NULL ||
	    (!e->is_batch &&
		proto_is_of(type, PROTO_TYPE('1') | PROTO_TYPE('2') | PROTO_TYPE('3') |
				      PROTO_TYPE('n') | PROTO_TYPE('s'))))
		return (broken(r, "an answer that nobody asked for"));
	if (UNLIKELY(e->skips_parse))
		pass_on(r);
	if (e->is_batch)
		heard = mux_batch_hears(r->m, e, type);
	if (heard == MUX_HEARD_NONSENSE)
		return (broken(r, "a Parse is complete that was not sent"));
	body(r, size + 1, heard == MUX_HEARD_PASS);
	return (READ_ON);
}

static void
notice(struct read *r, uint32_t size)
{
	struct mux_entry *e = under_way(r->m);

	if (e != NULL && e->is_batch)
		mux_batch_notes(r->m, e);
	body(r, size + 1, e != NULL);
}

static enum verdict
message(struct read *r)
{
	const uint8_t *head = r->p + r->used, *text = head + PROTO_HEAD;
	size_t have = r->len - r->used;
	uint32_t size;
	char type;

	if (have < PROTO_HEAD)
		return (READ_STOP);
	type = (char)head[0];
	size = proto_get32(head + 1);
	if (size < 4 || size > 0x7fffffff)
		return (broken(r, "message of an impossible length"));
	if (proto_is_of(type, PROTO_TYPE('Z') | PROTO_TYPE('S') | PROTO_TYPE('E')) &&
	    have < (size_t)size + 1) {
		if (size > (type == 'E' ? ERROR_MAX : WHOLE_MAX))
			return (broken(r, "message of an impossible length"));
		return (READ_STOP);
	}
	switch (type) {
	case 'T':
	case 'D':
	case 'C':
	case 'I':
	case '1':
	case '2':
	case '3':
	case 'n':
	case 's':
		return (answer(r, type, size));
	case 'Z':
		return (ready(r, text, size));
	case 'E':
		return (failed(r, text, size));
	case 'S':
		return (parameter(r, text, size));
	case 'N':
		notice(r, size);
		return (READ_ON);
	case 'A':
		/* Of a LISTEN which nobody has seen. */
		r->m->link->is_tainted = true;
		body(r, size + 1, false);
		return (READ_ON);
	default:
		return (broken(r, "unknown message"));
	}
}

/* The rest of a message. */
static void
rest_of_message(struct read *r)
{
	struct mux *m = r->m;

	body(r, m->link->body_left, m->link->body_is_forwarded);
	if (UNLIKELY(m->is_cut) && m->link->body_left == 0) {
		m->is_cut = false;
		pass_on(r);
		mux_say_cancelled(mux_at(m, 0));
	}
}

static size_t
mux_bytes(struct link *l, const uint8_t *p, size_t len)
{
	struct read r = {.m = l->user_arg, .p = p, .len = len};

	while (r.used < len) {
		if (l->body_left > 0)
			rest_of_message(&r);
		else if (message(&r) == READ_STOP)
			break;
	}
	if (l->state != LINK_LENT)
		return (len);
	pass_on(&r);
	if (r.m->count > 0 || l->body_left > 0 || r.used < len) {
		mux_flow(r.m);
		return (r.used);
	}
	mux_free(r.m);
	l->was_shared = true;
	pool_give(l, link_take_taint(l));
	return (len);
}

static void
mux_drained(struct link *l)
{
	(void)l;
}

const struct link_user mux_link_user = {
    .bytes = mux_bytes,
    .drained = mux_drained,
    .lost = mux_lost,
};
