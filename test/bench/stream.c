/*
 * stream: how many megabytes a second, in either direction, on one connection.
 *
 * usage: stream HOST PORT USER DATABASE SECONDS SQL
 * Repeats the statement until the time is up, and counts the bytes of the result as they
 * come on the wire; what they mean is not looked at. A statement that answers
 * CopyInResponse is fed rows of 1,000 bytes, 256 MB of them or until the time is up, and
 * those are counted instead.
 * Prints "bytes N seconds S statements K".
 */
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_BYTES = 1000, ROWS = 64, MESSAGE_BYTES = 5 + ROWS * (ROW_BYTES + 1) };

static const unsigned long COPY_BYTES = 256UL * 1000 * 1000;
static struct wire wire;

/* Rows come in messages of 64 kB, as libpq's users send them with PQputCopyData. */
static unsigned long
feed(struct peer *p, double end_s)
{
	static unsigned char packet[MESSAGE_BYTES];
	unsigned char done[5];
	unsigned long sent = 0;
	size_t row;

	message_put(packet, 'd', MESSAGE_BYTES - 1);
	for (row = 0; row < ROWS; row++) {
		memset(packet + 5 + row * (ROW_BYTES + 1), 'x', ROW_BYTES);
		packet[5 + row * (ROW_BYTES + 1) + ROW_BYTES] = '\n';
	}
	while (sent < COPY_BYTES && now_s() < end_s) {
		peer_send(p, packet, sizeof(packet));
		sent += sizeof(packet);
	}
	message_put(done, 'c', 4);
	peer_send(p, done, sizeof(done));
	return (sent);
}

static unsigned long
statement(struct peer *p, const char *sql, double end_s)
{
	struct message m;
	unsigned long bytes = 0, fed = 0;

	peer_ask(p, sql);
	do {
		wire_next(&wire, p, &m);
		bytes += m.size_bytes;
		if (m.type == 'E')
			die("server says: %.*s", (int)m.body_bytes, (const char *)m.body);
		if (m.type == 'G')
			fed = feed(p, end_s);
	} while (m.type != 'Z');
	return (fed > 0 ? fed : bytes);
}

int
main(int argc, char **argv)
{
	struct target t = {.password = ""};
	struct scram_cache cache = {.iterations = 0};
	struct peer p;
	double start_s, end_s;
	unsigned long bytes = 0, statements = 0;

	if (argc != 7)
		die("usage: stream HOST PORT USER DATABASE SECONDS SQL");
	t.host = argv[1];
	t.port = (int)strtol(argv[2], NULL, 10);
	t.user = argv[3];
	t.database = argv[4];
	peer_open(&p, &t);
	peer_hello(&p, &t);
	peer_login(&p, &t, &wire, &cache);
	start_s = now_s();
	end_s = start_s + strtod(argv[5], NULL);
	do {
		bytes += statement(&p, argv[6], end_s);
		statements++;
	} while (now_s() < end_s);
	printf("bytes %lu seconds %.6f statements %lu\n", bytes, now_s() - start_s,
	    statements);
	peer_close(&p);
	return (0);
}
