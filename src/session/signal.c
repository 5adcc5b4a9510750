/*
 * pg_terminate_backend() and pg_cancel_backend() of a pid that a client of this process got.
 * The server knows no such process; the client is told to end, or cancelled, here, and the
 * statement that goes to the server answers true. Only statements that are nothing but this:
 *
 *   SELECT pg_terminate_backend(4711000)       SELECT true AS pg_terminate_backend
 *   SELECT pg_cancel_backend($1)               SELECT CASE WHEN $1 < 0 THEN true ELSE … END,
 *                                              and the value of $1 with a minus
 *
 * A client may do so to clients of its own login that have its role at the server: those may
 * always signal each other. To whom else PostgreSQL would allow it is not known here.
 *
 * A pid that a client has from a server (pool_mode=session) is left to the server, which ends the
 * link and so the client. One whose link is still idle would not notice: both are ended here, if it
 * is a link to the server that the statement goes to: others have processes of that number, too.
 */
#include "listen.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENT_MAX 16

/* An order to a client. */
struct order {
	struct mail mail;
	struct signals *from; /* NULL: it has left meanwhile */
	struct worker *home;
	char *login, *role;
	uint32_t pid;
	bool is_servers; /* that is the client's who was told a server's pid: */
	struct sockaddr_storage peer; /* of this server's */
	socklen_t peer_len;
	bool terminates;
	enum order_end end;
};

struct signals {
	struct session *s;
	struct order *order; /* under way; or NULL */
	enum order_end end;  /* of the last one, for the message that waits */
	char *name;          /* of the statement that was prepared last; NULL: none */
	struct sql_signal about;
};

static struct signals *
signals_get(struct session *s)
{
	if (s->signals == NULL) {
		s->signals = mem_alloc(sizeof(*s->signals));
		s->signals->s = s;
	}
	return (s->signals);
}

void
signals_free(struct session *s)
{
	struct signals *g = s->signals;

	if (g == NULL)
		return;
	if (g->order != NULL)
		g->order->from = NULL;
	free(g->name);
	free(g);
	s->signals = NULL;
}

/* ---- orders ---- */

static void
order_home(struct worker *w, struct mail *m)
{
	struct order *o = CONTAINER_OF(m, struct order, mail);

	(void)w;
	if (o->from != NULL) {
		o->from->order = NULL;
		o->from->end = o->end;
		session_own_over(o->from->s);
		session_flow(o->from->s);
	}
	free(o->login);
	free(o->role);
	free(o);
}

static void
order_done(void *arg)
{
	struct order *o = arg;

	o->mail.run = order_home;
	worker_post(o->home, &o->mail);
}

/* A process of that server. */
static bool
has_unused(const struct session *s, const struct order *o)
{
	const struct link *l = s->waiter.kept;

	return (l != NULL && l->peer_len == o->peer_len &&
		memcmp(&l->peer, &o->peer, l->peer_len) == 0);
}

/* With the process that it was told of and has not used yet. */
static void
end_unused(struct session *s)
{
	struct link *l = s->waiter.kept;

	session_close(s, "57P01", "terminating connection due to administrator command");
	link_close(l, "terminated by a client");
}

static void
order_arrived(struct worker *w, struct mail *m)
{
	struct order *o = CONTAINER_OF(m, struct order, mail);
	struct session *s = session_of_pid(w, o->pid);

	o->end = ORDER_NOBODY;
	if (s != NULL)
		o->end = strcmp(s->user->name, o->login) == 0 &&
				 strcmp(s->seat->pool->role, o->role) == 0
			     ? ORDER_DONE
			     : ORDER_DENIED;
	if (o->is_servers && (o->end != ORDER_DONE || !has_unused(s, o)))
		o->end = ORDER_NOBODY;
	else if (o->is_servers) {
		end_unused(s);
		order_done(o);
		return;
	}
	if (o->end != ORDER_DONE) {
		order_done(o);
	} else if (o->terminates) {
		session_close(
		    s, "57P01", "terminating connection due to administrator command");
		order_done(o);
	} else
		session_cancel_now(s, order_done, o);
}

/* How it ended; ORDER_WAITS: the message waits. */
static enum order_end
order(struct session *s, int64_t pid, bool terminates)
{
	struct signals *g = signals_get(s);
	enum order_end end = g->end;
	uint32_t own;
	struct order *o;

	g->end = ORDER_WAITS;
	if (end != ORDER_WAITS || g->order != NULL)
		return (end);
	if (pid <= 0 || pid > INT32_MAX || (pid < SESSION_PID_MIN && !terminates))
		return (ORDER_NOBODY);
	own = session_own_pid((uint32_t)pid);
	if ((own & SESSION_PID_MIN) == 0 || own >> 23 >= s->worker->count)
		return (ORDER_NOBODY);
	if (own == s->pid && !terminates)
		return (ORDER_ITSELF);
	o = mem_alloc(sizeof(*o));
	o->mail.run = order_arrived;
	o->from = g;
	o->home = s->worker;
	o->login = mem_str(s->user->name);
	o->role = mem_str(s->seat->pool->role);
	o->pid = own;
	o->is_servers = own != pid;
	o->peer = s->link->peer;
	o->peer_len = s->link->peer_len;
	o->terminates = terminates;
	g->order = o;
	s->waits_own++;
	worker_post(net_worker(own >> 23), &o->mail);
	session_flow(s);
	return (ORDER_WAITS);
}

/* ---- messages ---- */

/* Another message is dealt with in the place of the client's, which has `size`. */
static enum up_verdict
instead(struct up *u, char type, uint32_t size, const struct buf *message)
{
	struct up other = *u;
	enum up_verdict v;

	other.p = message->mem;
	other.len = message->len;
	other.used = 0;
	v = up_substitute(&other, type, (uint32_t)message->len - 1);
	/* What it passes on stands in a message that is about to go. */
	batch_flush(&other.batch);
	u->batch = other.batch;
	if (v != UP_GO_ON)
		return (v);
	u->used += size + 1;
	return (UP_GO_ON);
}

/* It may not do that; or has done it to itself. */
static enum up_verdict
refuse(struct up *u, char type, uint32_t size, enum order_end why, bool terminates)
{
	struct session *s = u->s;
	struct prep *p = prep_begin(s);

	if (why == ORDER_ITSELF)
		refusal_set(&p->refusal, fault_info(F_CANCELLED)->sqlstate,
		    fault_info(F_CANCELLED)->text, NULL, NULL);
	else
		refusal_set(&p->refusal, "42501",
		    terminates ? "permission denied to terminate process"
			       : "permission denied to cancel query",
		    "The process is another login's.",
		    "An administrator may use KILL_CLIENT on the console.");
	p->is_running = true;
	if (type != 'Q') {
		p->is_batch = true;
		up_doom(u);
		return (up_body(u, size + 1, true));
	}
	up_to_link(u);
	proto_query(batch_make(&u->batch), "pgweave refuses this statement");
	batch_made(&u->batch);
	(void)up_owe(u, REQ_QUERY, ACT_FORWARD);
	up_drop_unnamed(u);
	return (up_body(u, size + 1, true));
}

/* The order has been carried out, also when the message that takes its place waits. */
static enum up_verdict
behind_order(struct up *u, char type, uint32_t size, const struct buf *message)
{
	enum up_verdict v = instead(u, type, size, message);

	if (v == UP_STOP && u->s->signals != NULL)
		u->s->signals->end = ORDER_DONE;
	return (v);
}

/* The text that answers true, of a statement with a constant. */
static enum up_verdict
with_constant(struct up *u, char type, uint32_t size, const struct sql_signal *about)
{
	enum order_end end = order(u->s, about->pid, about->terminates);
	struct buf out = {0}, body = {0};
	enum up_verdict v;

	switch (end) {
	case ORDER_WAITS:
		return (UP_STOP);
	case ORDER_DENIED:
	case ORDER_ITSELF:
		return (refuse(u, type, size, end, about->terminates));
	case ORDER_DONE:
		break;
	case ORDER_NOBODY:
	default:
		return (UP_PASS);
	}
	if (type == 'P')
		buf_add(&body, "", 1);
	buf_addf(&body, "SELECT true AS \"%s\"", about->label);
	buf_add(&body, "\0\0", type == 'P' ? 3 : 1);
	proto_message(&out, type, body.mem, body.len);
	v = behind_order(u, type, size, &out);
	buf_free(&body);
	buf_free(&out);
	return (v);
}

static enum up_verdict
with_parameter(struct up *u, uint32_t size, const struct proto_parse *parse,
    const struct sql_signal *about)
{
	struct signals *g = signals_get(u->s);
	struct buf out = {0}, body = {0};
	enum up_verdict v;

	free(g->name);
	g->name = mem_str(parse->name);
	g->about = *about;
	buf_add(&body, parse->name, parse->name_len + 1);
	buf_addf(&body,
	    "SELECT CASE WHEN $%u::pg_catalog.int4 < 0 THEN true ELSE %.*s END AS \"%s\"",
	    about->param, (int)about->call_len, parse->sql + about->call_at,
	    about->label);
	buf_add(&body, "", 1);
	buf_add(&body, parse->types, parse->types_len);
	proto_message(&out, 'P', body.mem, body.len);
	v = instead(u, 'P', size, &out);
	buf_free(&body);
	buf_free(&out);
	return (v);
}

static enum up_verdict
signal_parse(struct up *u, const uint8_t *body, uint32_t size)
{
	struct sql_signal about;
	struct proto_parse parse;

	if (proto_parse_parse(body, size - 4, &parse) != 0)
		return (UP_PASS);
	if (!sql_signal_read(parse.sql, parse.sql_len, &about))
		return (UP_PASS);
	if (about.param > 0)
		return (with_parameter(u, size, &parse, &about));
	/* Under a name it is for later, and maybe for more than once. */
	return (parse.name[0] == '\0' ? with_constant(u, 'P', size, &about) : UP_PASS);
}

bool
bind_value(const uint8_t *body, size_t len, size_t at, unsigned n, size_t *value_at,
    size_t *value_len, bool *is_binary)
{
	unsigned formats, count;
	size_t codes;

	if (len - at < 2)
		return (false);
	formats = proto_get16(body + at);
	codes = at + 2;
	at = codes + (size_t)formats * 2;
	if (len < at + 2)
		return (false);
	*is_binary = formats > 0 &&
		     proto_get16(body + codes +
				 (formats > 1 && n <= formats ? (n - 1) * 2 : 0)) == 1;
	count = proto_get16(body + at);
	at += 2;
	for (unsigned i = 1; i <= count; i++) {
		uint32_t size;

		if (len - at < 4)
			return (false);
		size = proto_get32(body + at);
		at += 4;
		if (i == n) {
			*value_at = at;
			*value_len = size;
			return (size != UINT32_MAX && size <= len - at);
		}
		if (size == UINT32_MAX)
			continue;
		if (size > len - at)
			return (false);
		at += size;
	}
	return (false);
}

/* 0: it is no whole number. */
static int64_t
number_of(const uint8_t *p, size_t len, bool is_binary)
{
	char text[ARGUMENT_MAX];
	char *end;
	int64_t n;

	if (is_binary)
		return (len == 2   ? (int16_t)proto_get16(p)
			: len == 4 ? (int32_t)proto_get32(p)
			: len == 8 ? (int64_t)((uint64_t)proto_get32(p) << 32 |
					       proto_get32(p + 4))
				   : 0);
	if (len == 0 || len >= sizeof(text))
		return (0);
	memcpy(text, p, len);
	text[len] = '\0';
	n = strtoll(text, &end, 10);
	return (*end == '\0' ? n : 0);
}

static enum up_verdict
signal_bind(struct up *u, const uint8_t *body, uint32_t size)
{
	struct signals *g = u->s->signals;
	size_t rest, at, value_len, len = size - 4;
	const char *portal, *statement;
	struct buf out = {0}, other = {0};
	enum order_end end;
	enum up_verdict v;
	char text[32];
	bool is_binary;
	int64_t pid;

	if (proto_bind_names(body, len, &portal, &statement, &rest) != 0 ||
	    strcmp(statement, g->name) != 0 ||
	    !bind_value(body, len, rest, g->about.param, &at, &value_len, &is_binary))
		return (UP_PASS);
	pid = number_of(body + at, value_len, is_binary);
	end = order(u->s, pid, g->about.terminates);
	switch (end) {
	case ORDER_WAITS:
		return (UP_STOP);
	case ORDER_DENIED:
	case ORDER_ITSELF:
		return (refuse(u, 'B', size, end, g->about.terminates));
	case ORDER_DONE:
		break;
	case ORDER_NOBODY:
	default:
		return (UP_PASS);
	}
	buf_add(&other, body, at);
	if (is_binary) {
		uint8_t *p = buf_room(&other, value_len);

		if (value_len == 8)
			proto_put32(p, UINT32_MAX);
		if (value_len == 2) {
			p[0] = (uint8_t)((uint16_t)-pid >> 8);
			p[1] = (uint8_t)-pid;
		} else
			proto_put32(p + value_len - 4, (uint32_t)-pid);
		other.len += (uint32_t)value_len;
	} else {
		int n = snprintf(text, sizeof(text), "%" PRId64, -pid);

		proto_put32(other.mem + at - 4, (uint32_t)n);
		buf_add(&other, text, (size_t)n);
	}
	buf_add(&other, body + at + value_len, len - at - value_len);
	proto_message(&out, 'B', other.mem, other.len);
	v = behind_order(u, 'B', size, &out);
	buf_free(&other);
	buf_free(&out);
	return (v);
}

enum up_verdict
signal_message(struct up *u, char type, uint32_t size)
{
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD;
	struct sql_signal about;

	/* In a failed transaction the server refuses it. */
	if (size > 65536 || size < 5 || u->s->link->txn == 'E')
		return (UP_PASS);
	if (have < size - 4)
		return (UP_STOP);
	if (type == 'P')
		return (signal_parse(u, body, size));
	if (type == 'B')
		return (signal_bind(u, body, size));
	if (body[size - 5] != '\0' ||
	    !sql_signal_read((const char *)body, size - 5, &about) || about.param > 0)
		return (UP_PASS);
	return (with_constant(u, 'Q', size, &about));
}

void
signal_forget(struct session *s, const char *name)
{
	struct signals *g = s->signals;

	if (g->name == NULL || strcmp(g->name, name) != 0)
		return;
	free(g->name);
	g->name = NULL;
}

bool
signal_is_noted(const struct session *s)
{
	return (s->signals != NULL && s->signals->name != NULL);
}
