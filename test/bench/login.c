/*
 * login: how many logins a second.
 *
 * usage: login HOST PORT USER DATABASE PASSWORD THREADS SECONDS
 * Each thread connects, logs in, says goodbye and starts over, until the time is up.
 * Prints "logins N seconds S".
 */
#include "peer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS_MAX = 64 };

struct worker {
	pthread_t thread;
	const struct target *target;
	double end_s;
	unsigned long logins;
	struct scram_cache cache;
	struct wire wire;
};

static void *
worker_run(void *arg)
{
	struct worker *w = arg;
	struct peer p;

	while (now_s() < w->end_s) {
		w->wire.head = w->wire.fill = 0;
		peer_open(&p, w->target);
		peer_hello(&p, w->target);
		peer_login(&p, w->target, &w->wire, &w->cache);
		peer_close(&p);
		w->logins++;
	}
	return (NULL);
}

int
main(int argc, char **argv)
{
	struct target t = {0};
	struct worker *workers;
	double start_s, seconds;
	unsigned long logins = 0;
	long i, threads;

	if (argc != 8)
		die("usage: login HOST PORT USER DATABASE PASSWORD THREADS SECONDS");
	t.host = argv[1];
	t.port = (int)strtol(argv[2], NULL, 10);
	t.user = argv[3];
	t.database = argv[4];
	t.password = argv[5];
	threads = strtol(argv[6], NULL, 10);
	seconds = strtod(argv[7], NULL);
	if (threads < 1 || threads > THREADS_MAX)
		die("1 to %d threads", THREADS_MAX);
	limits_raise();
	workers = calloc((size_t)threads, sizeof(*workers));
	if (workers == NULL)
		die("out of memory");
	start_s = now_s();
	for (i = 0; i < threads; i++) {
		workers[i].target = &t;
		workers[i].end_s = start_s + seconds;
		if (pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]) !=
		    0)
			die("no thread");
	}
	for (i = 0; i < threads; i++) {
		(void)pthread_join(workers[i].thread, NULL);
		logins += workers[i].logins;
	}
	printf("logins %lu seconds %.6f\n", logins, now_s() - start_s);
	return (0);
}
