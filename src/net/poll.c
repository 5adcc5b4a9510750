/*
 * What a thread waits for: the sockets of its streams (edge-triggered), other descriptors
 * (watches), and times (timers).
 *
 * All descriptors are in one epoll set of the thread. Workers, which serve clients, wait for the
 * set itself: libevent would look up, queue and call for each event what is known here at once,
 * and passes on no reset that comes with bytes, nor a hang-up with a reset behind it. The main and
 * the side thread, which resolve names and speak HTTP, wait in libevent, where the set is one
 * descriptor among others.
 */
#include "poll.h"
#include "stream.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define POLL_EVENTS 64
/* What an event is about: a stream, or with this bit a watch. */
#define IS_WATCH ((uintptr_t)1)

static void
poll_change(struct worker *w, int how, int fd, uint32_t events, uintptr_t about)
{
	struct epoll_event e = {.events = events, .data.ptr = (void *)about};

	INVARIANT(epoll_ctl(w->poll_fd, how, fd, &e) == 0);
}

void
poll_add(struct worker *w, struct stream *s, uint32_t events)
{
	poll_change(w, EPOLL_CTL_ADD, s->fd, events, (uintptr_t)s);
}

void
poll_set(struct worker *w, struct stream *s, uint32_t events)
{
	poll_change(w, EPOLL_CTL_MOD, s->fd, events, (uintptr_t)s);
}

/* Events of this turn that have not had their turn yet. */
static void
forget(struct worker *w, uintptr_t about)
{
	for (int i = 0; i < w->polled_count; i++)
		if (w->polled[i].data.ptr == (void *)about)
			w->polled[i].data.ptr = NULL;
}

void
poll_remove(struct worker *w, struct stream *s)
{
	INVARIANT(epoll_ctl(w->poll_fd, EPOLL_CTL_DEL, s->fd, NULL) == 0);
	forget(w, (uintptr_t)s);
}

void
fd_watch(struct worker *w, struct fd_watch *watch)
{
	poll_change(w, EPOLL_CTL_ADD, watch->fd, EPOLLIN, (uintptr_t)watch | IS_WATCH);
}

void
fd_unwatch(struct worker *w, struct fd_watch *watch)
{
	INVARIANT(epoll_ctl(w->poll_fd, EPOLL_CTL_DEL, watch->fd, NULL) == 0);
	forget(w, (uintptr_t)watch | IS_WATCH);
}

void
poll_serve(struct worker *w, int timeout_ms)
{
	struct epoll_event events[POLL_EVENTS];
	int n = epoll_wait(w->poll_fd, events, POLL_EVENTS, timeout_ms);

	INVARIANT(n >= 0 || errno == EINTR);
	w->polled = events;
	w->polled_count = n > 0 ? n : 0;
	for (int i = 0; i < n; i++) {
		uintptr_t about = (uintptr_t)events[i].data.ptr;

		if (about == 0)
			continue;
		if (UNLIKELY((about & IS_WATCH) != 0)) {
			struct fd_watch *watch = (struct fd_watch *)(about - IS_WATCH);

			watch->ready(watch);
		} else
			stream_polled((struct stream *)about, events[i].events);
	}
	w->polled_count = 0;
}

/* ---- times ---- */

static void
timer_fired(evutil_socket_t fd, short what, void *arg)
{
	struct timer *t = arg;

	(void)fd;
	(void)what;
	t->is_set = false;
	t->fire(t);
}

void
timer_set(struct worker *w, struct timer *t, int64_t after_us)
{
	struct timeval after = {
	    .tv_sec = after_us / 1000000, .tv_usec = after_us % 1000000};

	timer_cancel(t);
	t->worker = w;
	t->is_set = true;
	if (w->base != NULL) {
		if (t->event == NULL)
			t->event = event_new(w->base, -1, 0, timer_fired, t);
		INVARIANT(t->event != NULL && event_add(t->event, &after) == 0);
		return;
	}
	t->due_us = clock_us() + after_us;
	TAILQ_INSERT_TAIL(&w->timers, t, entry);
}

void
timer_cancel(struct timer *t)
{
	if (t->event != NULL)
		event_free(t->event);
	t->event = NULL;
	if (t->is_set && t->worker->base == NULL)
		TAILQ_REMOVE(&t->worker->timers, t, entry);
	t->is_set = false;
}

static struct timer *
first_timer(const struct worker *w)
{
	struct timer *t, *first = NULL;

	TAILQ_FOREACH(t, &w->timers, entry)
		if (first == NULL || t->due_us < first->due_us)
			first = t;
	return (first);
}

int64_t
timers_due_us(const struct worker *w, int64_t latest_us)
{
	const struct timer *t = first_timer(w);

	return (t != NULL && t->due_us < latest_us ? t->due_us : latest_us);
}

void
timers_fire(struct worker *w, int64_t now_us)
{
	struct timer *t;

	while ((t = first_timer(w)) != NULL && t->due_us <= now_us) {
		timer_cancel(t);
		t->fire(t);
	}
}
