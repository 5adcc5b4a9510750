/*
 * peer: a minimal PostgreSQL client for measuring, cheap enough not to be the bottleneck.
 *
 * libpq keeps two buffers of 16 kB per connection and hashes a password 4,096 times per
 * login; with 10,000 connections, or thousands of logins a second, one would measure the
 * client. This one shares a buffer between connections and salts a password once.
 * A failure prints a sentence and ends the process: a measurement with errors is none.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct target {
	const char *host; /* an IPv4 address */
	int port;
	const char *user, *database, *password;
	bool is_tls;
};

/* One connection; owned by the caller. */
struct peer {
	int fd;
	SSL *ssl; /* NULL without TLS */
};

/* What is read but not yet looked at; lent to one peer at a time. */
struct wire {
	unsigned char data[256 * 1024];
	size_t head, fill;
};

/* A message that wire_next() found. Its body stays valid until the next call. */
struct message {
	char type;
	size_t size_bytes; /* of the whole message, with type and length */
	const unsigned char
	    *body; /* NULL when it does not fit into the buffer: it was skipped */
	size_t body_bytes;
};

/* A password salted, kept from login to login as drivers with a cache do. */
struct scram_cache {
	char salt[256];
	int iterations;
	unsigned char client_key[32], stored_key[32], server_key[32];
};

_Noreturn void die(const char *what, ...) __attribute__((format(printf, 1, 2)));
double now_s(void);
/* The descriptor limit is raised as far as the kernel lets us. */
void limits_raise(void);

void peer_open(struct peer *p, const struct target *t);
void peer_hello(struct peer *p, const struct target *t);
/* Answers what the server asks for, until it is ready for a query. */
void peer_login(
    struct peer *p, const struct target *t, struct wire *w, struct scram_cache *c);
void peer_send(struct peer *p, const void *data, size_t size_bytes);
void peer_ask(struct peer *p, const char *sql);
void peer_until_ready(struct peer *p, struct wire *w);
/* Says goodbye and waits until the other side has closed: no port is used up here. */
void peer_close(struct peer *p);

void wire_next(struct wire *w, struct peer *p, struct message *m);
void message_put(unsigned char *at, char type, uint32_t length);

#endif
