/* net: what a worker waits for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net.h"
#include <sys/socket.h>
#include <unistd.h>

static struct worker *w;

/* Runs in the worker's thread; the test waits for its end in the main one. */
static void (*body)(void);

static void
begin(struct worker *worker, struct mail *m)
{
	(void)worker;
	(void)m;
	body();
}

static void
end(struct worker *worker, struct mail *m)
{
	(void)m;
	worker_stop(worker);
}

static void
over(void)
{
	static struct mail to_main = {.run = end}, to_side = {.run = end};

	worker_stop(w);
	worker_post(net_side(), &to_side);
	worker_post(net_main(), &to_main);
}

static void
run(void (*what)(void))
{
	static struct mail mail = {.run = begin};

	net_create(1);
	w = net_worker(0);
	body = what;
	worker_post(w, &mail);
	assert_int_equal(net_start(), 0);
	net_run_main();
	net_join();
	net_settle();
	net_destroy();
}

/* ---- timers ---- */

static void fire(struct timer *);
static struct timer timers[3];
static char fired[8];

static void
fire(struct timer *t)
{
	char which[] = {(char)('0' + (t - timers)), '\0'};

	strncat(fired, which, sizeof(fired) - strlen(fired) - 1);
	if (t != &timers[1])
		return;
	if (strcmp(fired, "01") == 0) {
		timer_cancel(&timers[2]);
		timer_set(w, t, 3000);
	} else
		over();
}

static void
set_timers(void)
{
	fired[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(timers); i++)
		timers[i] = (struct timer){.fire = fire};
	timer_set(w, &timers[0], 1000);
	timer_set(w, &timers[1], 10000);
	timer_set(w, &timers[2], 500);
	/* Set again: from now on. */
	timer_set(w, &timers[2], 10001);
	timer_cancel(&timers[0]);
	timer_cancel(&timers[0]);
	timer_set(w, &timers[0], 2000);
}

static void
timers_fire_once_and_can_be_cancelled(void **state)
{
	(void)state;
	run(set_timers);
	/* The second sets itself again, once, and cancels the third, which is due as well. */
	assert_string_equal(fired, "011");
	for (size_t i = 0; i < ARRAY_LEN(timers); i++)
		assert_false(timers[i].is_set);
}

/* ---- events of one turn ---- */

static struct stream streams[2];
static int peers[2][2];
static unsigned heard, ends;

static void lost(struct stream *, int err);

static size_t
bytes(struct stream *s, const uint8_t *p, size_t len)
{
	struct stream *other = &streams[s == &streams[0]];
	static const struct stream_ops again = {.bytes = bytes, .lost = lost};
	int fds[2];

	(void)p;
	heard++;
	if (heard > 1) {
		stream_close(&streams[0]);
		stream_close(&streams[1]);
		over();
		return (len);
	}
	/* The other one has an event in this turn, and is another connection now. */
	stream_close(other);
	INVARIANT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	stream_open(other, w, fds[0], true, &again);
	close(peers[other - streams][1]);
	peers[other - streams][1] = fds[1];
	INVARIANT(write(fds[1], "later", 5) == 5);
	return (len);
}

static void
lost(struct stream *s, int err)
{
	(void)s;
	(void)err;
	ends++;
}

static void
open_streams(void)
{
	static const struct stream_ops ops = {.bytes = bytes, .lost = lost};

	heard = ends = 0;
	for (int i = 0; i < 2; i++) {
		INVARIANT(
		    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, peers[i]) == 0);
		stream_open(&streams[i], w, peers[i][0], true, &ops);
		INVARIANT(write(peers[i][1], "now", 3) == 3);
		/* Whoever is still there holds the end back. */
		(void)shutdown(peers[i][1], SHUT_WR);
		stream_hold_end(&streams[i], true);
	}
}

static void
what_has_happened_to_a_closed_stream_is_not_told(void **state)
{
	(void)state;
	run(open_streams);
	assert_int_equal(heard, 2);
	assert_int_equal(ends, 0);
	close(peers[0][1]);
	close(peers[1][1]);
}

/* ---- a socket that another process has, too ---- */

/* A command that is about to be run has all descriptors of the process, until it runs. */
static int of_command, its_peer;
static unsigned told;
static bool was_told_end;

static size_t
told_bytes(struct stream *s, const uint8_t *p, size_t len)
{
	(void)s;
	(void)p;
	told++;
	return (len);
}

static void
told_late(struct timer *t)
{
	(void)t;
	was_told_end = streams[0].has_hung_up;
	stream_close(&streams[0]);
	over();
}

static struct timer late = {.fire = told_late};

static void
close_one_that_is_shared(void)
{
	static const struct stream_ops ops = {.bytes = told_bytes, .lost = lost};
	int fds[2];

	told = ends = 0;
	INVARIANT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	stream_open(&streams[0], w, fds[0], true, &ops);
	of_command = dup(fds[0]);
	its_peer = fds[1];
	stream_close(&streams[0]);
	/* The memory is another stream's by now. */
	INVARIANT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, peers[0]) == 0);
	stream_open(&streams[0], w, peers[0][0], true, &ops);
	INVARIANT(write(its_peer, "late", 4) == 4);
	(void)shutdown(its_peer, SHUT_RDWR);
	timer_set(w, &late, 10000);
}

static void
a_closed_stream_is_closed_whoever_else_has_its_socket(void **state)
{
	(void)state;
	run(close_one_that_is_shared);
	assert_int_equal(told, 0);
	assert_int_equal(ends, 0);
	assert_false(was_told_end);
	close(peers[0][1]);
	close(of_command);
	close(its_peer);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(timers_fire_once_and_can_be_cancelled),
	    cmocka_unit_test(what_has_happened_to_a_closed_stream_is_not_told),
	    cmocka_unit_test(a_closed_stream_is_closed_whoever_else_has_its_socket),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
