/*
 * Cancel requests. The key that a client gets is the proxy's own: 8 bits of the pid name the
 * worker, one is set, so that it is no process of a server (PID_MAX_LIMIT of Linux is 2^22), the
 * other 22 and the secret are random; protocol 3.2 has 28 random bytes behind the secret. Who is
 * to have a process of a server for itself (pool_mode=session, walsenders) is told the pid of that
 * instead, and a table of all workers knows whose it is. A request is taken to the worker of its
 * target, from there to the server, and the connection that brought it closes when the
 * server has closed the one that took it on: then the signal has been sent, and cannot hit
 * what the client does next.
 */
#include "mux.h"
#include "weave.h"
#include <stdlib.h>
#include <string.h>

struct cancel_order {
	struct mail mail;
	struct session *from; /* NULL: hung up meanwhile */
	struct worker *home;
	uint32_t pid, secret;
	size_t key_len;
	uint8_t rest[KEY_REST]; /* of a long key */
};

static bool
key_same(const struct table_node *n, const void *key)
{
	return (CONTAINER_OF(n, const struct session, key_node)->pid ==
		*(const uint32_t *)key);
}

static struct session *
key_find(struct worker *w, uint32_t pid)
{
	struct table_node *n = table_find(&session_worker(w)->keys, pid, key_same, &pid);

	return (n == NULL ? NULL : CONTAINER_OF(n, struct session, key_node));
}

void
session_key_create(struct session *s)
{
	uint32_t random[2];

	do {
		random_bytes(random, sizeof(random));
		s->pid = (uint32_t)s->worker->index << 23 | SESSION_PID_MIN |
			 (random[0] & (SESSION_PID_MIN - 1));
	} while (key_find(s->worker, s->pid) != NULL);
	s->secret = peer_secret(session_worker(s->worker)->peer_id, random[1]);
	table_add(&session_worker(s->worker)->keys, &s->key_node, s->pid);
}

/* ---- pids of servers ---- */

struct told_pid {
	struct table_node node;
	uint32_t pid, own;
};

static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;
static struct table told_pids;

static bool
told_same(const struct table_node *n, const void *pid)
{
	return (
	    CONTAINER_OF(n, const struct told_pid, node)->pid == *(const uint32_t *)pid);
}

void
session_key_tell(struct session *s, uint32_t pid)
{
	struct told_pid *t;

	INVARIANT(s->told == NULL);
	/* Not of a process of Linux: another proxy's, whose number serves cancelling alone. */
	if (pid == 0 || pid >= SESSION_PID_MIN)
		return;
	pthread_mutex_lock(&told_lock);
	if (table_find(&told_pids, pid, told_same, &pid) == NULL) {
		t = mem_alloc(sizeof(*t));
		t->pid = pid;
		t->own = s->pid;
		table_add(&told_pids, &t->node, pid);
		s->told = t;
	}
	pthread_mutex_unlock(&told_lock);
}

static void
told_forget(struct session *s)
{
	if (s->told == NULL)
		return;
	pthread_mutex_lock(&told_lock);
	table_remove(&told_pids, &s->told->node);
	if (told_pids.count == 0)
		table_free(&told_pids);
	pthread_mutex_unlock(&told_lock);
	free(s->told);
	s->told = NULL;
}

uint32_t
session_told_pid(const struct session *s)
{
	return (s->told != NULL ? s->told->pid : s->pid);
}

uint32_t
session_own_pid(uint32_t pid)
{
	struct table_node *n;

	if (pid >= SESSION_PID_MIN)
		return (pid);
	pthread_mutex_lock(&told_lock);
	n = table_find(&told_pids, pid, told_same, &pid);
	if (n != NULL)
		pid = CONTAINER_OF(n, struct told_pid, node)->own;
	pthread_mutex_unlock(&told_lock);
	return (pid);
}

/* ---- keys ---- */

void
session_key_lengthen(struct session *s)
{
	INVARIANT(s->key_rest == NULL);
	s->key_rest = mem_alloc(KEY_REST);
	random_bytes(s->key_rest, KEY_REST);
}

void
session_key_put(const struct session *s, struct buf *out)
{
	uint8_t key[KEY_LONG];

	proto_put32(key, s->secret);
	if (s->key_rest != NULL)
		memcpy(key + KEY_SHORT, s->key_rest, KEY_REST);
	proto_backend_key(
	    out, session_told_pid(s), key, s->key_rest != NULL ? KEY_LONG : KEY_SHORT);
	explicit_bzero(key, sizeof(key));
}

static bool
key_is_of(const struct session *s, const struct cancel_order *o)
{
	if (!same_secret(&s->secret, &o->secret, sizeof(s->secret)))
		return (false);
	if (s->key_rest == NULL)
		return (o->key_len == KEY_SHORT);
	return (o->key_len == KEY_LONG && same_secret(s->key_rest, o->rest, KEY_REST));
}

void
session_key_destroy(struct session *s)
{
	mem_free_secret(s->key_rest, KEY_REST);
	s->key_rest = NULL;
	table_remove(&session_worker(s->worker)->keys, &s->key_node);
	told_forget(s);
}

void
session_order_forget(struct session *s)
{
	if (s->order != NULL)
		s->order->from = NULL;
	s->order = NULL;
}

static void
order_home(struct worker *w, struct mail *m)
{
	struct cancel_order *o = CONTAINER_OF(m, struct cancel_order, mail);
	struct session *s = o->from;

	(void)w;
	if (s != NULL) {
		s->order = NULL;
		session_end(s, "cancel request is over");
	}
	free(o);
}

static void
order_done(void *arg)
{
	struct cancel_order *o = arg;

	o->mail.run = order_home;
	worker_post(o->home, &o->mail);
}

/* The statement has not been sent: it is answered here when it is read. */
static void
cancel_waiting(struct session *s)
{
	pool_wait_end(&s->waiter);
	mux_untimed(s);
	session_move(s, SESSION_IDLE);
	s->is_refused = true;
	session_flow(s);
}

void
session_cancel_now(struct session *s, void (*done)(void *), void *arg)
{
	if (s->state == SESSION_WAITING) {
		cancel_waiting(s);
		done(arg);
	} else if (s->state == SESSION_SHARING)
		mux_cancel(s, done, arg);
	else if (s->state == SESSION_WEAVING) {
		weave_cancel(s);
		done(arg);
	} else if (s->weave != NULL && s->weave->is_held) {
		/* The statement has not been sent. */
		weave_unhold(s);
		s->is_refused = true;
		session_flow(s);
		done(arg);
	} else if (s->link != NULL && s->link->state == LINK_LENT &&
		   s->link->requests.count > 0)
		link_cancel(s->link, done, arg);
	else {
		/* The link is being made ready for the statement. */
		if (s->state == SESSION_ACTIVE && s->link->state == LINK_RUNNING)
			s->is_refused = s->stream.in.len > 0 && s->mode != POOL_SESSION;
		done(arg);
	}
}

static void
order_arrived(struct worker *w, struct mail *m)
{
	struct cancel_order *o = CONTAINER_OF(m, struct cancel_order, mail);
	struct session *s = key_find(w, o->pid);

	if (s == NULL || !key_is_of(s, o)) {
		order_done(o);
		return;
	}
	stat_count(M_cancels, 1);
	session_cancel_now(s, order_done, o);
}

struct session *
session_of_pid(struct worker *w, uint32_t pid)
{
	struct session *s = key_find(w, pid);

	return (
	    s != NULL && (s->state == SESSION_IDLE || s->state == SESSION_WAITING ||
			     s->state == SESSION_ACTIVE || s->state == SESSION_SHARING ||
			     s->state == SESSION_WEAVING)
		? s
		: NULL);
}

void
session_cancel_order(struct session *s, const struct proto_startup *st)
{
	struct cancel_order *o;
	unsigned index;

	session_move(s, SESSION_CANCELLING);
	o = mem_alloc(sizeof(*o));
	o->mail.run = order_arrived;
	o->from = s;
	o->home = s->worker;
	o->pid = st->pid;
	o->secret = proto_get32(st->key);
	o->key_len = st->key_len;
	if (st->key_len == KEY_LONG)
		memcpy(o->rest, st->key + KEY_SHORT, KEY_REST);
	s->order = o;
	if (peer_forward(s->worker, o->pid, st->key, st->key_len, order_done, o))
		return;
	o->pid = session_own_pid(o->pid);
	index = o->pid >> 23;
	if (index >= s->worker->count) {
		session_order_forget(s);
		free(o);
		session_end(s, "cancel request for nobody");
		return;
	}
	if (session_worker(s->worker)->peer_id != 0)
		o->secret = peer_secret_plain(o->secret);
	worker_post(net_worker(index), &o->mail);
}
