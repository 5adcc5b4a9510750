/*
 * Worker threads, their loops and mailboxes.
 *
 * A mailbox is a stack of mails that any thread pushes with one compare-and-swap; the owner
 * takes the whole stack and turns it round. Only the push that finds it empty wakes the
 * owner, by an eventfd.
 */
#include "net.h"
#include "poll.h"
#include "stream.h"
#include <errno.h>
#include <event2/dns.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct worker **workers; /* worker_count of them, then the main thread's */
static bool is_running;
static unsigned worker_count;

static void
mailbox_empty(struct fd_watch *wake)
{
	struct worker *w = CONTAINER_OF(wake, struct worker, wake);
	struct mail *m, *next, *turned = NULL;
	uint64_t n;
	ssize_t got;

	/* Before the exchange: a push behind it finds the box empty and wakes us anew. */
	got = read(wake->fd, &n, sizeof(n));
	(void)got;
	for (m = atomic_exchange(&w->mailbox, NULL); m != NULL; m = next) {
		next = m->next;
		m->next = turned;
		turned = m;
	}
	for (m = turned; m != NULL; m = next) {
		next = m->next;
		m->run(w, m);
	}
}

void
worker_post(struct worker *w, struct mail *m)
{
	struct mail *head = atomic_load_explicit(&w->mailbox, memory_order_relaxed);
	uint64_t one = 1;

	do
		m->next = head;
	while (!atomic_compare_exchange_weak(&w->mailbox, &head, m));
	if (head == NULL) {
		ssize_t n = write(w->wake.fd, &one, sizeof(one));

		INVARIANT(n == sizeof(one) || errno == EAGAIN);
	}
}

static void
worker_tick(struct worker *w, int64_t now)
{
	w->loop_lag_us =
	    w->tick_due_us != 0 && now > w->tick_due_us ? now - w->tick_due_us : 0;
	w->tick_due_us = now + WORKER_TICK_US;
	for (size_t i = 0; w->tick[i] != NULL; i++)
		w->tick[i](w, now);
}

static void
worker_ticked(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	worker_tick(arg, clock_us());
}

static void
worker_polled(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	poll_serve(arg, 0);
}

/* libevent for those that resolve names and speak HTTP. */
static void
worker_add_base(struct worker *w)
{
	struct event_config *cfg = event_config_new();
	struct timeval tick = {.tv_usec = WORKER_TICK_US};

	INVARIANT(cfg != NULL);
	event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
	w->base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	INVARIANT(w->base != NULL);
	w->tick_event = event_new(w->base, -1, EV_PERSIST, worker_ticked, w);
	w->poll_event =
	    event_new(w->base, w->poll_fd, EV_READ | EV_PERSIST, worker_polled, w);
	INVARIANT(w->tick_event != NULL && event_add(w->tick_event, &tick) == 0);
	INVARIANT(w->poll_event != NULL && event_add(w->poll_event, NULL) == 0);
}

static struct worker *
worker_create(unsigned index, unsigned count)
{
	struct worker *w = mem_alloc(sizeof(*w));

	w->index = index;
	w->count = count;
	TAILQ_INIT(&w->ready);
	TAILQ_INIT(&w->timers);
	STAILQ_INIT(&w->buried);
	w->rbuf = mem_alloc(WORKER_RBUF_BYTES);
	w->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	w->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->wake.ready = mailbox_empty;
	INVARIANT(w->poll_fd >= 0 && w->wake.fd >= 0);
	fd_watch(w, &w->wake);
	if (index >= count)
		worker_add_base(w);
	return (w);
}

static void
worker_burials(struct worker *w)
{
	struct burial *b;

	while ((b = STAILQ_FIRST(&w->buried)) != NULL) {
		STAILQ_REMOVE_HEAD(&w->buried, entry);
		b->bury(b);
	}
}

#define DNS_END_TURNS 4

static void
worker_destroy(struct worker *w)
{
	worker_burials(w);
	if (w->base != NULL) {
		event_free(w->tick_event);
		event_free(w->poll_event);
	}
	if (w->dns != NULL) {
		/* Who asked still gets an answer, which frees what was kept for it. */
		evdns_base_free(w->dns, 1);
		for (int i = 0; i < DNS_END_TURNS; i++)
			event_base_loop(w->base, EVLOOP_NONBLOCK);
	}
	if (w->base != NULL)
		event_base_free(w->base);
	close(w->poll_fd);
	close(w->wake.fd);
	buf_free(&w->wire_out);
	buf_free(&w->plain_out);
	free(w->wire_in);
	free(w->rbuf);
	free(w);
}

static void
worker_wait(struct worker *w)
{
	bool is_busy = !TAILQ_EMPTY(&w->ready);
	int64_t left_us = 0, now;

	if (w->base != NULL) {
		w->now_us = 0;
		event_base_loop(w->base, EVLOOP_ONCE | (is_busy ? EVLOOP_NONBLOCK : 0));
		return;
	}
	if (!is_busy)
		left_us = timers_due_us(w, w->tick_due_us) - worker_now_us(w);
	w->now_us = 0;
	poll_serve(w, left_us > 0 ? (int)((left_us + 999) / 1000) : 0);
	now = worker_now_us(w);
	if (now >= w->tick_due_us)
		worker_tick(w, now);
	if (UNLIKELY(!TAILQ_EMPTY(&w->timers)))
		timers_fire(w, now);
}

void
worker_turn(struct worker *w)
{
	struct stream *s, *last;

	worker_wait(w);
	/* Each at most once a turn: a stream that stays ready waits for the others. */
	last = TAILQ_LAST(&w->ready, stream_list);
	while (last != NULL && (s = TAILQ_FIRST(&w->ready)) != NULL) {
		TAILQ_REMOVE(&w->ready, s, ready_entry);
		s->is_ready = false;
		stream_serve(s);
		if (s == last)
			break;
	}
	for (size_t i = 0; w->turn[i] != NULL; i++)
		w->turn[i](w);
	worker_burials(w);
	w->turns++;
}

static void
worker_run(struct worker *w)
{
	if (w->base == NULL)
		w->tick_due_us = clock_us() + WORKER_TICK_US;
	while (!w->is_stopping)
		worker_turn(w);
}

static void *
worker_main(void *arg)
{
	worker_run(arg);
	return (NULL);
}

void
net_create(unsigned count)
{
	INVARIANT(count >= 1 && count <= NET_MAX_WORKERS && workers == NULL);
	worker_count = count;
	workers = mem_alloc((count + 2) * sizeof(struct worker *));
	for (unsigned i = 0; i < net_thread_count(); i++)
		workers[i] = worker_create(i, count);
}

void
net_destroy(void)
{
	for (unsigned i = 0; i < net_thread_count(); i++)
		worker_destroy(workers[i]);
	free(workers);
	workers = NULL;
}

unsigned
net_worker_count(void)
{
	return (worker_count);
}

unsigned
net_thread_count(void)
{
	return (worker_count + 2);
}

struct worker *
net_worker(unsigned i)
{
	INVARIANT(i < net_thread_count());
	return (workers[i]);
}

struct worker *
net_main(void)
{
	return (workers[worker_count]);
}

struct worker *
net_side(void)
{
	return (workers[worker_count + 1]);
}

int
net_start(void)
{
	sigset_t all, was;
	int err = 0;

	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &was);
	for (unsigned i = 0; i < net_thread_count() && err == 0; i++) {
		char name[24] = "side";

		if (workers[i] == net_main())
			continue;
		err = pthread_create(&workers[i]->thread, NULL, worker_main, workers[i]);
		if (err == 0) {
			if (i < worker_count)
				snprintf(name, sizeof(name), "worker %u", i);
			pthread_setname_np(workers[i]->thread, name);
		}
	}
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (err != 0) {
		log_fatal("cannot start a worker thread: %s", strerror(err));
		return (F_SYSTEM);
	}
	is_running = true;
	return (0);
}

bool
net_is_running(void)
{
	return (is_running);
}

void
net_run_main(void)
{
	worker_run(net_main());
}

void
worker_stop(struct worker *w)
{
	w->is_stopping = true;
}

void
net_join(void)
{
	for (unsigned i = 0; i < net_thread_count(); i++)
		if (workers[i] != net_main())
			pthread_join(workers[i]->thread, NULL);
	is_running = false;
}

void
net_settle(void)
{
	bool any = true;

	while (any) {
		any = false;
		for (unsigned i = 0; i < net_thread_count(); i++) {
			any |= atomic_load(&workers[i]->mailbox) != NULL;
			mailbox_empty(&workers[i]->wake);
			worker_burials(workers[i]);
		}
	}
}

/* Takes the first free place of an array of hooks. */
#define HOOK_ADD(hooks, fn)                                                              \
	do {                                                                             \
		size_t hook_at = 0;                                                      \
                                                                                         \
		while ((hooks)[hook_at] != NULL)                                         \
			hook_at++;                                                       \
		INVARIANT(hook_at < WORKER_TICKS - 1);                                   \
		(hooks)[hook_at] = (fn);                                                 \
	} while (0)

void
worker_on_tick(struct worker *w, void (*fn)(struct worker *, int64_t))
{
	HOOK_ADD(w->tick, fn);
}

void
worker_on_turn(struct worker *w, void (*fn)(struct worker *))
{
	HOOK_ADD(w->turn, fn);
}

void
worker_bury(struct worker *w, struct burial *b, void (*bury)(struct burial *))
{
	b->bury = bury;
	STAILQ_INSERT_TAIL(&w->buried, b, entry);
}

/* A round through all workers: one mail that travels. */
struct round {
	struct mail mail;
	struct worker *from;
	unsigned at;
	void (*visit)(struct worker *, void *);
	void (*done)(struct worker *, void *);
	void *arg;
};

static void
round_run(struct worker *w, struct mail *m)
{
	struct round *r = CONTAINER_OF(m, struct round, mail);

	if (r->at == worker_count) {
		r->done(w, r->arg);
		free(r);
		return;
	}
	r->visit(w, r->arg);
	r->at++;
	worker_post(r->at == worker_count ? r->from : workers[r->at], m);
}

void
net_visit(struct worker *from, void (*visit)(struct worker *, void *),
    void (*done)(struct worker *, void *), void *arg)
{
	struct round *r = mem_alloc(sizeof(*r));

	*r = (struct round){.mail = {.run = round_run},
	    .from = from,
	    .visit = visit,
	    .done = done,
	    .arg = arg};
	worker_post(workers[0], &r->mail);
}
