/*
 * idle: opens connections and keeps them.
 *
 * usage: idle HOST PORT USER DATABASE plain|tls
 * For each number that it reads on standard input it opens connections until it holds
 * that many, and answers "open N"; at the end of input it exits. Every connection has
 * asked one SELECT 1 before it falls idle: a client that never asked anything is not what
 * a proxy holds in real life. They come in groups of 64, as after a restart of an
 * application.
 */
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 64, PEERS_MAX = 100000 };

static struct wire wire;
static struct peer *peers;

/* Nothing is left in the buffer when one peer is done: it said all with its 'Z'. */
static void
open_group(const struct target *t, size_t from, size_t to)
{
	struct scram_cache cache = {.iterations = 0};
	size_t i;

	for (i = from; i < to; i++)
		peer_open(&peers[i], t);
	for (i = from; i < to; i++)
		peer_hello(&peers[i], t);
	for (i = from; i < to; i++)
		peer_login(&peers[i], t, &wire, &cache);
	for (i = from; i < to; i++)
		peer_ask(&peers[i], "SELECT 1");
	for (i = from; i < to; i++)
		peer_until_ready(&peers[i], &wire);
}

int
main(int argc, char **argv)
{
	struct target t = {.password = ""};
	char line[32];
	size_t count = 0, want, next;

	if (argc != 6)
		die("usage: idle HOST PORT USER DATABASE plain|tls");
	t.host = argv[1];
	t.port = (int)strtol(argv[2], NULL, 10);
	t.user = argv[3];
	t.database = argv[4];
	t.is_tls = strcmp(argv[5], "tls") == 0;
	limits_raise();
	peers = calloc(PEERS_MAX, sizeof(*peers));
	if (peers == NULL)
		die("out of memory");
	while (fgets(line, sizeof(line), stdin) != NULL) {
		want = strtoul(line, NULL, 10);
		if (want > PEERS_MAX)
			die("at most %d connections", PEERS_MAX);
		while (count < want) {
			next = count + GROUP < want ? count + GROUP : want;
			open_group(&t, count, next);
			count = next;
		}
		printf("open %zu\n", count);
		fflush(stdout);
	}
	return (0);
}
