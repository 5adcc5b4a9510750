/*
 * CancelRequests to servers, each over a connection of its own that is closed by the server
 * when it has sent the signal. Until then the link is not used for anybody else: the signal
 * would hit the wrong statement.
 */
#include "private.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void
cancel_bury(struct burial *b)
{
	struct cancel *c = CONTAINER_OF(b, struct cancel, burial);

	free(c->host);
	free(c);
}

static void
cancel_over(struct cancel *c)
{
	struct link *l = c->link;

	TAILQ_REMOVE(&link_worker(c->worker)->cancels, c, entry);
	stream_close(&c->stream);
	mem_free_secret(c->key, c->key_len);
	c->key = NULL;
	tls_release(c->tls);
	worker_bury(c->worker, &c->burial, cancel_bury);
	if (c->done != NULL)
		c->done(c->arg);
	if (l == NULL)
		return;
	INVARIANT(l->cancels > 0);
	if (--l->cancels == 0 && l->state == LINK_CANCELLING)
		l->keeper->cancelled(l);
}

static void
cancel_send(struct cancel *c)
{
	struct buf out = {0};

	proto_cancel_request(&out, c->pid, c->key, c->key_len);
	stream_write(&c->stream, out.mem, out.len);
	buf_free(&out);
}

static void
cancel_connected(struct stream *s)
{
	struct cancel *c = CONTAINER_OF(s, struct cancel, stream);
	struct buf out = {0};

	if (c->tls == NULL) {
		cancel_send(c);
		return;
	}
	proto_ssl_request(&out);
	stream_write(&c->stream, out.mem, out.len);
	buf_free(&out);
}

static size_t
cancel_bytes(struct stream *s, const uint8_t *p, size_t len)
{
	struct cancel *c = CONTAINER_OF(s, struct cancel, stream);

	/* The only byte that a server sends here is its answer to the SSLRequest. */
	if (c->tls != NULL && s->ssl == NULL && len == 1 && p[0] == 'S')
		stream_connect_tls(s, c->tls, c->host[0] != '\0' ? c->host : NULL);
	else
		cancel_over(c);
	return (len);
}

static void
cancel_secured(struct stream *s)
{
	cancel_send(CONTAINER_OF(s, struct cancel, stream));
}

static void
cancel_lost(struct stream *s, int err)
{
	struct cancel *c = CONTAINER_OF(s, struct cancel, stream);

	if (err > 0 && c->link != NULL)
		log_warning("S-%#" PRIx64 ": %s cancel request failed: %s", c->link->id,
		    c->link->name, strerror(err));
	cancel_over(c);
}

static const struct stream_ops cancel_ops = {
    .bytes = cancel_bytes,
    .lost = cancel_lost,
    .connected = cancel_connected,
    .secured = cancel_secured,
};

void
link_cancel(struct link *l, void (*done)(void *), void *arg)
{
	struct cancel *c;

	if (l->peer_len == 0 || l->key_len == 0) {
		if (done != NULL)
			done(arg);
		return;
	}
	c = mem_alloc(sizeof(*c));
	c->worker = l->worker;
	c->link = l;
	c->pid = l->pid;
	c->key_len = l->key_len;
	c->key = mem_alloc(l->key_len);
	memcpy(c->key, l->key, l->key_len);
	c->start_us = clock_us();
	c->done = done;
	c->arg = arg;
	/* As the link itself: a server that wants TLS wants it here too. */
	if (l->stream.ssl != NULL)
		c->tls = tls_hold(l->tls);
	c->host = mem_str(l->host);
	TAILQ_INSERT_TAIL(&link_worker(l->worker)->cancels, c, entry);
	l->cancels++;
	if (stream_connect(&c->stream, l->worker, (const struct sockaddr *)&l->peer,
		l->peer_len, NULL, &cancel_ops) != 0) {
		log_warning("S-%#" PRIx64 ": %s cancel request failed: %s", l->id,
		    l->name, strerror(errno));
		cancel_over(c);
	}
}

void
link_cancels_expire(struct worker *w, int64_t now_us, int64_t max_us)
{
	struct cancel *c, *next;

	for (c = TAILQ_FIRST(&link_worker(w)->cancels); c != NULL; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (now_us - c->start_us <= max_us)
			continue;
		/* The signal may still come: the link must not serve anybody else. */
		if (c->link != NULL)
			c->link->wants_close = true;
		cancel_over(c);
	}
}
