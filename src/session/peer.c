/*
 * Cancel requests for other processes of the group (peer_id, [peers]): processes on one port,
 * or behind one balancer, of which the wrong one gets the request.
 *
 *   secret   | 2 bits: how often it was passed on | 14: peer_id | 16: random |
 *
 * It is the whole key, or (protocol 3.2) the beginning of one.
 *
 * Who gets a request with the peer_id of another passes it on, over a connection of its own,
 * and the connection that brought it closes when that one has closed: then it is over. More
 * than a peer's pool_size are not under way to it at a time: the others wait, at most
 * cancel_wait_timeout.
 */
#include "weave.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PEER_ID_MAX  16383
#define HOPS_MAX     3
#define HOPS_SHIFT   30
#define PEER_SHIFT   16
#define PEER_SECRET  0xffffU
#define WITHOUT_HOPS 0x3fffffffU

/* Requests of this process under way to each. */
static _Atomic unsigned under_way[PEER_ID_MAX + 1];

uint32_t
peer_secret(uint32_t peer_id, uint32_t random)
{
	INVARIANT(peer_id <= PEER_ID_MAX);
	return (peer_id == 0 ? random : peer_id << PEER_SHIFT | (random & PEER_SECRET));
}

uint32_t
peer_of_secret(uint32_t secret)
{
	return (secret >> PEER_SHIFT & PEER_ID_MAX);
}

uint32_t
peer_secret_plain(uint32_t secret)
{
	return (secret & WITHOUT_HOPS);
}

static void
forward_bury(struct burial *b)
{
	struct forward *f = CONTAINER_OF(b, struct forward, burial);

	mem_free_secret(f->key, f->key_len);
	free(f);
}

static void
forward_over(struct forward *f)
{
	struct session_worker *sw = session_worker(f->worker);

	TAILQ_REMOVE(&sw->forwards, f, entry);
	if (f->resolve != NULL)
		resolve_cancel(f->resolve);
	f->resolve = NULL;
	stream_close(&f->stream);
	if (f->is_active)
		atomic_fetch_sub(&under_way[f->peer], 1);
	if (f->done != NULL)
		f->done(f->arg);
	worker_bury(f->worker, &f->burial, forward_bury);
}

static void
forward_failed(struct forward *f, const char *why)
{
	log_warning("peer %" PRIu32 ": cancel request failed: %s", f->peer, why);
	forward_over(f);
}

static void
forward_connected(struct stream *s)
{
	struct forward *f = CONTAINER_OF(s, struct forward, stream);
	struct buf out = {0};

	f->is_sent = true;
	proto_cancel_request(&out, f->pid, f->key, f->key_len);
	stream_write(s, out.mem, out.len);
	buf_free(&out);
}

static size_t
forward_bytes(struct stream *s, const uint8_t *p, size_t len)
{
	(void)p;
	forward_failed(CONTAINER_OF(s, struct forward, stream), "it was answered");
	return (len);
}

static void
forward_lost(struct stream *s, int err)
{
	struct forward *f = CONTAINER_OF(s, struct forward, stream);

	if (err > 0)
		forward_failed(f, strerror(err));
	else
		forward_over(f);
}

static const struct stream_ops forward_ops = {
    .bytes = forward_bytes,
    .lost = forward_lost,
    .connected = forward_connected,
};

static void
forward_resolved(void *arg, const struct resolved *found, const char *err)
{
	struct forward *f = arg;

	f->resolve = NULL;
	if (err == NULL && stream_connect(&f->stream, f->worker,
			       (const struct sockaddr *)&found->at[0].sa,
			       found->at[0].len, NULL, &forward_ops) == 0)
		return;
	/* Not under resolve_start(): the tick gives it up. */
	log_warning("peer %" PRIu32 ": cancel request failed: %s", f->peer,
	    err != NULL ? err : strerror(errno));
	f->has_failed = true;
}

/* When the peer has room for one more. */
static void
forward_start(struct forward *f)
{
	const struct topo *topo = pool_worker(f->worker)->topo;
	const struct topo_peer *peer = topo_peer_find(topo, f->peer);

	if (peer == NULL) {
		f->has_failed = true;
		return;
	}
	if (atomic_fetch_add(&under_way[f->peer], 1) >= (uint64_t)peer->pool_size &&
	    peer->pool_size > 0) {
		atomic_fetch_sub(&under_way[f->peer], 1);
		return;
	}
	f->is_active = true;
	f->resolve = resolve_start(
	    f->worker, topo_settings(topo), peer->host, peer->port, forward_resolved, f);
}

bool
peer_forward(struct worker *w, uint32_t pid, const uint8_t *key, size_t key_len,
    void (*done)(void *arg), void *arg)
{
	struct session_worker *sw = session_worker(w);
	uint32_t secret = proto_get32(key), peer = peer_of_secret(secret),
		 hops = secret >> HOPS_SHIFT;
	struct forward *f;

	if (sw->peer_id == 0 || peer == 0 || peer == sw->peer_id || hops >= HOPS_MAX ||
	    topo_peer_find(pool_worker(w)->topo, peer) == NULL)
		return (false);
	f = mem_alloc(sizeof(*f));
	f->worker = w;
	f->stream.fd = -1;
	f->peer = peer;
	f->pid = pid;
	f->key = mem_alloc(key_len);
	f->key_len = key_len;
	memcpy(f->key, key, key_len);
	proto_put32(f->key, peer_secret_plain(secret) | (hops + 1) << HOPS_SHIFT);
	f->start_us = clock_us();
	f->done = done;
	f->arg = arg;
	TAILQ_INSERT_TAIL(&sw->forwards, f, entry);
	forward_start(f);
	return (true);
}

void
peer_tick(struct worker *w, int64_t now_us)
{
	int64_t max = pool_settings(w)->cancel_wait_timeout;
	struct forward *f, *next;

	for (f = TAILQ_FIRST(&session_worker(w)->forwards); f != NULL; f = next) {
		next = TAILQ_NEXT(f, entry);
		if (f->has_failed)
			forward_over(f);
		else if (max > 0 && now_us - f->start_us > max)
			forward_failed(f, "cancel_wait_timeout");
		else if (!f->is_active)
			forward_start(f);
	}
}

void
peer_end_all(struct worker *w)
{
	struct forward *f;

	while ((f = TAILQ_FIRST(&session_worker(w)->forwards)) != NULL)
		forward_over(f);
}
