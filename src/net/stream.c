/*
 * Streams: one socket each, edge-triggered.
 *
 *   readable -> recv into the worker's buffer -> ops->bytes() in place -> left over? keep it
 *   write    -> one send -> refused bytes? keep them, ask for the write event
 *
 * A connection owns memory only while bytes are stuck. After a short read the kernel's
 * buffer is known to be empty (new bytes bring a new edge) unless the peer has hung up: then
 * reading goes on to the end.
 */
#include "stream.h"
#include "poll.h"
#include "tls.h"
#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define STREAM_ROUNDS 4 /* full reads before other streams have their turn */
/* Parts of no more together are copied: that costs less than to have the kernel gather them. */
#define GATHER_BYTES 1024

void
stream_make_ready(struct stream *s)
{
	if (s->is_ready || s->fd < 0)
		return;
	s->is_ready = true;
	TAILQ_INSERT_TAIL(&s->worker->ready, s, ready_entry);
}

#define READ_EVENTS  (EPOLLIN | EPOLLRDHUP | EPOLLET)
#define WRITE_EVENTS (READ_EVENTS | EPOLLOUT)

static void
stream_watch(struct stream *s)
{
	poll_add(s->worker, s, s->watches_write ? WRITE_EVENTS : READ_EVENTS);
}

static void
stream_watch_write(struct stream *s)
{
	if (s->watches_write)
		return;
	s->watches_write = true;
	poll_set(s->worker, s, WRITE_EVENTS);
}

static void
stream_unwatch_write(struct stream *s)
{
	if (!s->watches_write)
		return;
	s->watches_write = false;
	poll_set(s->worker, s, READ_EVENTS);
}

static void
stream_init(struct stream *s, struct worker *w, int fd, const struct stream_ops *ops)
{
	*s = (struct stream){.worker = w, .ops = ops, .fd = fd};
}

void
stream_open(struct stream *s, struct worker *w, int fd, bool is_unix,
    const struct stream_ops *ops)
{
	stream_init(s, w, fd, ops);
	s->is_unix = is_unix;
	stream_watch(s);
}

int
stream_connect(struct stream *s, struct worker *w, const struct sockaddr *sa,
    socklen_t len, const struct settings *set, const struct stream_ops *ops)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
	    err;

	stream_init(s, w, fd, ops);
	if (fd < 0)
		return (F_SYSTEM);
	s->is_unix = sa->sa_family == AF_UNIX;
	/* Before: a window that was offered for larger buffers stalls when they are smaller. */
	if (set != NULL)
		socket_tune(fd, s->is_unix, set);
	if (connect(fd, sa, len) != 0 && errno != EINPROGRESS) {
		err = errno;
		close(fd);
		s->fd = -1;
		errno = err;
		return (F_SYSTEM);
	}
	s->is_connecting = true;
	s->watches_write = true;
	stream_watch(s);
	return (0);
}

void
stream_close(struct stream *s)
{
	if (s->fd < 0)
		return;
	if (s->ssl != NULL && !s->is_lost && !s->is_shaking) {
		tls_close(s);
		if (s->out.len == 0)
			(void)!send(s->fd, s->worker->wire_out.mem,
			    s->worker->wire_out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		s->worker->wire_out.len = 0;
	}
	if (s->is_ready)
		TAILQ_REMOVE(&s->worker->ready, s, ready_entry);
	s->is_ready = false;
	if (s->worker != NULL)
		poll_remove(s->worker, s);
	SSL_free(s->ssl);
	s->ssl = NULL;
	close(s->fd);
	s->fd = -1;
	buf_free(&s->in);
	buf_free(&s->out);
}

/* The owner hears of it once. */
static void
stream_tell_lost(struct stream *s, int err)
{
	s->is_lost = true;
	s->err = err;
	if (s->told_lost)
		return;
	s->told_lost = true;
	s->ops->lost(s, err);
}

/* ---- writing ---- */

void
stream_send_failed(struct stream *s, int err)
{
	s->cannot_send = true;
	s->err = err;
	/* What the peer said before it went may explain why. */
	s->has_more = true;
	s->has_hung_up = true;
	stream_make_ready(s);
}

static void
stream_keep(struct stream *s, const struct iovec *parts, int count, size_t skip)
{
	for (int i = 0; i < count; i++) {
		if (skip >= parts[i].iov_len) {
			skip -= parts[i].iov_len;
			continue;
		}
		buf_add(&s->out, (const uint8_t *)parts[i].iov_base + skip,
		    parts[i].iov_len - skip);
		skip = 0;
	}
	if (s->out.len > 0)
		stream_watch_write(s);
	if (stream_is_full(s))
		s->was_full = true;
}

static ssize_t
send_parts(int fd, struct iovec *parts, int count, size_t total)
{
	const struct msghdr mh = {.msg_iov = parts, .msg_iovlen = (size_t)count};
	uint8_t all[GATHER_BYTES], *at = all;

	if (count == 1)
		return (send(fd, parts[0].iov_base, total, MSG_NOSIGNAL | MSG_DONTWAIT));
	if (total > sizeof(all))
		return (sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT));
	for (int i = 0; i < count; i++) {
		memcpy(at, parts[i].iov_base, parts[i].iov_len);
		at += parts[i].iov_len;
	}
	return (send(fd, all, total, MSG_NOSIGNAL | MSG_DONTWAIT));
}

static void
stream_send_wire(struct stream *s, struct iovec *parts, int count, size_t total)
{
	ssize_t n = 0;

	if (s->out.len == 0 && !s->is_connecting) {
		do
			n = send_parts(s->fd, parts, count, total);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
			stream_send_failed(s, errno);
			return;
		}
		if (n < 0)
			n = 0;
	}
	stream_keep(s, parts, count, (size_t)n);
}

void
stream_send_records(struct stream *s)
{
	struct buf *b = &s->worker->wire_out;
	struct iovec part = {.iov_base = b->mem, .iov_len = b->len};

	if (b->len > 0)
		stream_send_wire(s, &part, 1, part.iov_len);
	b->len = 0;
	if (b->cap > NET_READ_BYTES * 4)
		buf_free(b);
}

static void
stream_send_tls(struct stream *s, const struct iovec *parts, int count)
{
	struct buf *plain = &s->worker->plain_out;
	bool ok = true;

	if (count == 1)
		ok = tls_encrypt(s, parts[0].iov_base, parts[0].iov_len);
	else {
		plain->len = 0;
		for (int i = 0; i < count; i++)
			buf_add(plain, parts[i].iov_base, parts[i].iov_len);
		ok = tls_encrypt(s, plain->mem, plain->len);
		if (plain->cap > NET_READ_BYTES * 4)
			buf_free(plain);
	}
	stream_send_records(s);
	if (!ok)
		stream_send_failed(s, -1);
}

void
stream_writev(struct stream *s, struct iovec *parts, int count)
{
	size_t total = 0;

	for (int i = 0; i < count; i++)
		total += parts[i].iov_len;
	if (s->fd < 0 || s->is_lost || s->cannot_send || total == 0)
		return;
	if (s->ssl != NULL)
		stream_send_tls(s, parts, count);
	else
		stream_send_wire(s, parts, count, total);
}

void
stream_write(struct stream *s, const void *p, size_t len)
{
	struct iovec part = {.iov_base = (void *)(uintptr_t)p, .iov_len = len};

	stream_writev(s, &part, 1);
}

static void
stream_flush(struct stream *s)
{
	ssize_t n = 0;

	if (s->cannot_send || s->is_lost)
		return;
	while (s->out.len > 0) {
		n = send(s->fd, s->out.mem, s->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		buf_drop(&s->out, (size_t)n);
	}
	if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
		stream_send_failed(s, errno);
		return;
	}
	if (s->out.len == 0) {
		buf_free(&s->out);
		stream_unwatch_write(s);
	}
	if (s->was_full && s->out.len < NET_UNSENT_BYTES / 2) {
		s->was_full = false;
		if (s->ops->drained != NULL)
			s->ops->drained(s);
	}
}

/* ---- reading ---- */

/* Offers len bytes at p, which do not belong to s->in; what is not consumed goes there. */
static void
stream_feed(struct stream *s, const uint8_t *p, size_t len)
{
	size_t used = s->ops->bytes(s, p, len);

	INVARIANT(used <= len);
	if (s->fd >= 0 && used < len)
		buf_add(&s->in, p + used, len - used);
}

/* Offers what was left over. The buffer is held aside: the callback may close the stream. */
static void
stream_feed_kept(struct stream *s)
{
	struct buf held = s->in;
	size_t used;

	s->in = (struct buf){0};
	used = s->ops->bytes(s, held.mem, held.len);
	INVARIANT(used <= held.len && s->in.len == 0);
	if (s->fd < 0 || used == held.len) {
		buf_free(&held);
		return;
	}
	buf_drop(&held, used);
	s->in = held;
}

/* One read of the socket. The number of bytes, 0 when there is nothing now, -1 at the end
 * (s->err says whether it is one of errors). */
static ssize_t
stream_recv(struct stream *s, uint8_t *to, size_t size)
{
	ssize_t n;

	do
		n = recv(s->fd, to, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		if ((size_t)n < size && !s->has_hung_up)
			s->has_more = false;
		return (n);
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		s->has_more = false;
		if (!s->cannot_send)
			return (0);
		n = -1;
	} else if (!s->cannot_send)
		s->err = n == 0 ? 0 : errno;
	s->has_more = false;
	return (-1);
}

/* Reads ciphertext and turns it to plain bytes at `to`, which has room for all of it. Answers
 * as stream_recv(), and 0 also when no whole record has come. */
static ssize_t
stream_recv_tls(struct stream *s, uint8_t *to, size_t size)
{
	struct worker *w = s->worker;
	enum tls_step step;
	ssize_t n;

	if (w->wire_in == NULL)
		w->wire_in = mem_alloc(NET_READ_BYTES);
	n = stream_recv(s, w->wire_in, NET_READ_BYTES);
	if (n <= 0)
		return (n);
	w->wire_in_len = (size_t)n;
	w->wire_in_at = 0;
	if (s->is_shaking) {
		step = tls_shake(s);
		stream_send_records(s);
		if (step == TLS_STEP_FAILED) {
			s->err = -1;
			return (-1);
		}
		if (step == TLS_STEP_MORE)
			return (0);
		s->is_shaking = false;
		if (s->ops->secured != NULL)
			s->ops->secured(s);
		if (s->fd < 0)
			return (0);
	}
	step = tls_decrypt(s, to, &size);
	/* Alerts and key updates are answered by TLS itself. */
	stream_send_records(s);
	if (step == TLS_STEP_FAILED || step == TLS_STEP_END) {
		s->has_hung_up = true;
		s->has_more = true;
		s->tls_ended = true;
		if (!s->cannot_send)
			s->err = step == TLS_STEP_FAILED ? -1 : 0;
		if (size == 0)
			return (-1);
	}
	return ((ssize_t)size);
}

/* One read, fed. False: there is nothing more to do now. */
static bool
stream_read(struct stream *s)
{
	struct worker *w = s->worker;
	bool is_large = s->in.len > NET_READ_BYTES;
	size_t kept = s->in.len, size = NET_READ_BYTES;
	uint8_t *to;
	ssize_t n;

	if (s->ssl != NULL)
		size += 32768;
	if (is_large)
		to = buf_room(&s->in, size);
	else {
		to = w->rbuf + kept;
		INVARIANT(kept + size <= WORKER_RBUF_BYTES);
	}
	n = s->tls_ended     ? -1
	    : s->ssl != NULL ? stream_recv_tls(s, to, size)
			     : stream_recv(s, to, size);
	if (s->fd < 0)
		return (false);
	if (n < 0 && s->holds_end && s->err == 0 && !s->cannot_send) {
		s->has_hung_up = true;
		s->has_more = false;
		return (false);
	}
	if (n < 0) {
		stream_tell_lost(s, s->err);
		return (false);
	}
	if (n == 0)
		return (s->has_more);
	if (is_large) {
		s->in.len += (uint32_t)n;
		stream_feed_kept(s);
	} else {
		if (kept > 0)
			memcpy(w->rbuf, s->in.mem, kept);
		buf_free(&s->in);
		stream_feed(s, w->rbuf, kept + (size_t)n);
	}
	return (true);
}

void
stream_serve(struct stream *s)
{
	if (s->fd < 0 || s->told_lost)
		return;
	if (s->is_paused) {
		if ((s->has_hung_up && s->tells_hangup) || s->cannot_send)
			stream_tell_lost(s, s->err);
		return;
	}
	if (s->wants_offer) {
		s->wants_offer = false;
		if (s->in.len > 0)
			stream_feed_kept(s);
	}
	for (int i = 0; i < STREAM_ROUNDS; i++)
		if (s->fd < 0 || s->told_lost || s->is_paused || !s->has_more ||
		    !stream_read(s))
			return;
	if (s->fd >= 0 && s->has_more && !s->is_paused)
		stream_make_ready(s);
}

static void
stream_connected(struct stream *s)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
		err = errno;
	s->is_connecting = false;
	stream_unwatch_write(s);
	if (err != 0) {
		stream_tell_lost(s, err);
		return;
	}
	if (s->ops->connected != NULL)
		s->ops->connected(s);
}

void
stream_polled(struct stream *s, uint32_t events)
{
	const uint32_t ends = EPOLLHUP | EPOLLERR;

	if (s->is_connecting) {
		if ((events & (EPOLLOUT | ends)) == 0)
			return;
		stream_connected(s);
		if (s->fd < 0 || s->is_lost)
			return;
	}
	if ((events & (EPOLLRDHUP | ends)) != 0)
		s->has_hung_up = true;
	if ((events & ends) != 0) {
		/* Nobody is there to hear anything. */
		s->holds_end = false;
		s->tells_hangup = true;
	}
	if ((events & (EPOLLOUT | ends)) != 0 && s->watches_write)
		stream_flush(s);
	if (s->fd < 0 || (events & (EPOLLIN | EPOLLRDHUP | ends)) == 0)
		return;
	s->has_more = true;
	stream_serve(s);
}

void
stream_pause(struct stream *s)
{
	s->is_paused = true;
}

void
stream_resume(struct stream *s)
{
	if (s->fd < 0)
		return;
	s->is_paused = false;
	s->wants_offer = true;
	if (s->in.len > 0 || s->has_more || s->is_lost)
		stream_make_ready(s);
}

void
stream_hold_end(struct stream *s, bool hold)
{
	if (s->holds_end && !hold && s->has_hung_up) {
		s->has_more = true;
		stream_make_ready(s);
	}
	s->holds_end = hold;
}

void
stream_unread(struct stream *s, const void *p, size_t len)
{
	struct buf in = {0};

	if (s->fd < 0)
		return;
	buf_add(&in, p, len);
	buf_add(&in, s->in.mem, s->in.len);
	buf_free(&s->in);
	s->in = in;
	s->wants_offer = true;
	if (!s->is_paused)
		stream_make_ready(s);
}

void
stream_tell_hangup(struct stream *s, bool tell)
{
	s->tells_hangup = tell;
	if (tell && s->has_hung_up)
		stream_make_ready(s);
}

/* ---- moving to another worker ---- */

bool
stream_can_move(const struct stream *s)
{
	return (s->fd >= 0 && s->in.len == 0 && s->out.len == 0 && !s->is_lost &&
		!s->cannot_send && !s->is_connecting && !s->is_shaking);
}

void
stream_detach(struct stream *s)
{
	INVARIANT(stream_can_move(s));
	if (s->is_ready)
		TAILQ_REMOVE(&s->worker->ready, s, ready_entry);
	s->is_ready = false;
	poll_remove(s->worker, s);
	s->worker = NULL;
}

void
stream_attach(struct stream *s, struct worker *w)
{
	INVARIANT(s->worker == NULL && s->fd >= 0);
	s->worker = w;
	/* Adding the descriptor to the new epoll set raises an edge when there are bytes. */
	stream_watch(s);
	if (s->has_more)
		stream_make_ready(s);
}
