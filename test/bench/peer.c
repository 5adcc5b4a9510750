/* peer: a minimal PostgreSQL client for measuring; see peer.h. */
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SSL_REQUEST = 80877103, PROTOCOL_3 = 196608, KEY_BYTES = 32 };

_Noreturn void
die(const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	vfprintf(stderr, what, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

double
now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec + (double)ts.tv_nsec / 1e9);
}

void
limits_raise(void)
{
	struct rlimit most;

	if (getrlimit(RLIMIT_NOFILE, &most) == 0) {
		most.rlim_cur = most.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &most);
	}
}

static uint32_t
get_u32(const unsigned char *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return (ntohl(v));
}

static void
put_u32(unsigned char *at, uint32_t v)
{
	v = htonl(v);
	memcpy(at, &v, sizeof(v));
}

/* PostgreSQL protocol 3, Message Formats: the length counts itself, not the type. */
void
message_put(unsigned char *at, char type, uint32_t length)
{
	at[0] = (unsigned char)type;
	put_u32(at + 1, length);
}

static size_t
peer_read(struct peer *p, void *data, size_t room)
{
	ssize_t n;

	if (p->ssl != NULL) {
		n = SSL_read(p->ssl, data, (int)room);
	} else {
		do {
			n = recv(p->fd, data, room, 0);
		} while (n < 0 && errno == EINTR);
	}
	if (n <= 0)
		die("connection lost while reading: %s",
		    n < 0 ? strerror(errno) : "closed");
	return ((size_t)n);
}

void
peer_send(struct peer *p, const void *data, size_t size_bytes)
{
	const unsigned char *at = data;
	ssize_t n;

	while (size_bytes > 0) {
		if (p->ssl != NULL)
			n = SSL_write(p->ssl, at, (int)size_bytes);
		else
			n = send(p->fd, at, size_bytes, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("connection lost while writing: %s", strerror(errno));
		at += n;
		size_bytes -= (size_t)n;
	}
}

static SSL_CTX *tls_context;

static void
tls_setup(void)
{
	tls_context = SSL_CTX_new(TLS_client_method());
	if (tls_context == NULL)
		die("no TLS context");
	/* Buffers of idle connections are given back, as 10,000 of them live here. */
	SSL_CTX_set_mode(tls_context, SSL_MODE_RELEASE_BUFFERS);
}

static void
peer_start_tls(struct peer *p)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned char request[8], answer;

	pthread_once(&once, tls_setup);
	put_u32(request, sizeof(request));
	put_u32(request + 4, SSL_REQUEST);
	peer_send(p, request, sizeof(request));
	if (peer_read(p, &answer, 1) != 1 || answer != 'S')
		die("TLS refused");
	p->ssl = SSL_new(tls_context);
	if (p->ssl == NULL || SSL_set_fd(p->ssl, p->fd) != 1 || SSL_connect(p->ssl) != 1)
		die("TLS handshake failed");
}

void
peer_open(struct peer *p, const struct target *t)
{
	struct sockaddr_in to = {
	    .sin_family = AF_INET, .sin_port = htons((uint16_t)t->port)};
	int on = 1;

	p->ssl = NULL;
	if (inet_pton(AF_INET, t->host, &to.sin_addr) != 1)
		die("%s: not an IPv4 address", t->host);
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->fd < 0)
		die("socket: %s", strerror(errno));
	if (connect(p->fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		die("connect to port %d: %s", t->port, strerror(errno));
	(void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (t->is_tls)
		peer_start_tls(p);
}

void
peer_hello(struct peer *p, const struct target *t)
{
	unsigned char packet[1024];
	int n;

	n = snprintf((char *)packet + 8, sizeof(packet) - 9, "user%c%s%cdatabase%c%s%c",
	    0, t->user, 0, 0, t->database, 0);
	if (n < 0 || (size_t)n >= sizeof(packet) - 9)
		die("names too long");
	packet[8 + n] = 0;
	put_u32(packet, (uint32_t)n + 9);
	put_u32(packet + 4, PROTOCOL_3);
	peer_send(p, packet, (size_t)n + 9);
}

/* At least `want` unread bytes are in the buffer afterwards, in one piece. */
static void
wire_fill(struct wire *w, struct peer *p, size_t want)
{
	while (w->fill - w->head < want) {
		if (w->head + want > sizeof(w->data) || w->head == w->fill) {
			memmove(w->data, w->data + w->head, w->fill - w->head);
			w->fill -= w->head;
			w->head = 0;
		}
		w->fill += peer_read(p, w->data + w->fill, sizeof(w->data) - w->fill);
	}
}

static void
wire_skip(struct wire *w, struct peer *p, size_t left)
{
	size_t have;

	while (left > 0) {
		wire_fill(w, p, 1);
		have = w->fill - w->head;
		if (have > left)
			have = left;
		w->head += have;
		left -= have;
	}
}

void
wire_next(struct wire *w, struct peer *p, struct message *m)
{
	uint32_t length;

	wire_fill(w, p, 5);
	m->type = (char)w->data[w->head];
	length = get_u32(w->data + w->head + 1);
	if (length < 4)
		die("message '%c' with length %u", m->type, length);
	m->size_bytes = (size_t)length + 1;
	m->body_bytes = length - 4;
	m->body = NULL;
	if (m->size_bytes > sizeof(w->data)) {
		wire_skip(w, p, m->size_bytes);
		return;
	}
	wire_fill(w, p, m->size_bytes);
	m->body = w->data + w->head + 5;
	w->head += m->size_bytes;
}

/* An ErrorResponse is fields of a letter and a text; M is the message. */
static _Noreturn void
die_of_error(const struct message *m)
{
	const unsigned char *at = m->body, *end = at + m->body_bytes;
	const unsigned char *stop;

	while (at != NULL && at < end && *at != 0) {
		stop = memchr(at, 0, (size_t)(end - at));
		if (stop == NULL)
			break;
		if (*at == 'M')
			die("server says: %s", (const char *)at + 1);
		at = stop + 1;
	}
	die("server says: an error without a text");
}

void
peer_ask(struct peer *p, const char *sql)
{
	unsigned char packet[4096];
	size_t n = strlen(sql) + 1;

	if (n + 5 > sizeof(packet))
		die("statement too long");
	message_put(packet, 'Q', (uint32_t)n + 4);
	memcpy(packet + 5, sql, n);
	peer_send(p, packet, n + 5);
}

void
peer_until_ready(struct peer *p, struct wire *w)
{
	struct message m;

	do {
		wire_next(w, p, &m);
		if (m.type == 'E')
			die_of_error(&m);
	} while (m.type != 'Z');
}

void
peer_close(struct peer *p)
{
	unsigned char bye[5], rest[256];

	message_put(bye, 'X', 4);
	if (p->ssl != NULL) {
		(void)SSL_write(p->ssl, bye, sizeof(bye));
		(void)SSL_shutdown(p->ssl);
		SSL_free(p->ssl);
	} else {
		(void)send(p->fd, bye, sizeof(bye), MSG_NOSIGNAL);
	}
	while (recv(p->fd, rest, sizeof(rest), 0) > 0)
		;
	(void)close(p->fd);
}

static void
hmac(const unsigned char key[KEY_BYTES], const void *data, size_t n,
    unsigned char out[KEY_BYTES])
{
	unsigned int size = KEY_BYTES;

	if (HMAC(EVP_sha256(), key, KEY_BYTES, data, n, out, &size) == NULL)
		die("HMAC failed");
}

/* RFC 5802, section 3. */
static void
scram_salt(
    struct scram_cache *c, const char *password, const char *salt64, int iterations)
{
	unsigned char salt[256], salted[KEY_BYTES];
	size_t n = strlen(salt64);
	int size;

	if (c->iterations == iterations && strcmp(c->salt, salt64) == 0)
		return;
	if (n >= sizeof(c->salt))
		die("salt too long");
	size = EVP_DecodeBlock(salt, (const unsigned char *)salt64, (int)n);
	while (n > 0 && salt64[--n] == '=')
		size--;
	if (size <= 0 || PKCS5_PBKDF2_HMAC(password, -1, salt, size, iterations,
			     EVP_sha256(), KEY_BYTES, salted) != 1)
		die("salting the password failed");
	hmac(salted, "Client Key", 10, c->client_key);
	hmac(salted, "Server Key", 10, c->server_key);
	if (EVP_Digest(
		c->client_key, KEY_BYTES, c->stored_key, NULL, EVP_sha256(), NULL) != 1)
		die("SHA-256 failed");
	(void)snprintf(c->salt, sizeof(c->salt), "%s", salt64);
	c->iterations = iterations;
}

struct scram {
	char client_first[64]; /* without the GS2 header */
	char server_first[512];
	unsigned char server_signature[KEY_BYTES];
};

static void
scram_first(struct peer *p, struct scram *s)
{
	unsigned char nonce[18], packet[128];
	char nonce64[32];
	int n;

	if (RAND_bytes(nonce, sizeof(nonce)) != 1)
		die("no random bytes");
	(void)EVP_EncodeBlock((unsigned char *)nonce64, nonce, sizeof(nonce));
	(void)snprintf(s->client_first, sizeof(s->client_first), "n=,r=%s", nonce64);
	n = snprintf((char *)packet + 5, sizeof(packet) - 5, "SCRAM-SHA-256%c....n,,%s",
	    0, s->client_first);
	message_put(packet, 'p', (uint32_t)n + 4);
	put_u32(packet + 5 + 14, (uint32_t)n - 18);
	peer_send(p, packet, (size_t)n + 5);
}

static void
scram_final(struct peer *p, const struct target *t, struct scram *s,
    struct scram_cache *c, const struct message *m)
{
	char nonce[256], salt[256], without[320], all[1024], proof64[64];
	unsigned char signature[KEY_BYTES], packet[512];
	int iterations, i, n;
	size_t size = m->body_bytes - 4;

	if (size >= sizeof(s->server_first))
		die("SCRAM challenge too long");
	memcpy(s->server_first, m->body + 4, size);
	s->server_first[size] = 0;
	if (sscanf(s->server_first, "r=%255[^,],s=%255[^,],i=%d", nonce, salt,
		&iterations) != 3)
		die("SCRAM challenge not understood");
	scram_salt(c, t->password, salt, iterations);
	(void)snprintf(without, sizeof(without), "c=biws,r=%s", nonce);
	n = snprintf(
	    all, sizeof(all), "%s,%s,%s", s->client_first, s->server_first, without);
	if (n < 0 || (size_t)n >= sizeof(all))
		die("SCRAM challenge too long");
	hmac(c->stored_key, all, (size_t)n, signature);
	hmac(c->server_key, all, (size_t)n, s->server_signature);
	for (i = 0; i < KEY_BYTES; i++)
		signature[i] ^= c->client_key[i];
	(void)EVP_EncodeBlock((unsigned char *)proof64, signature, KEY_BYTES);
	n = snprintf((char *)packet + 5, sizeof(packet) - 5, "%s,p=%s", without, proof64);
	message_put(packet, 'p', (uint32_t)n + 4);
	peer_send(p, packet, (size_t)n + 5);
}

/* A proxy that skips its half of the work would look fast: its signature is checked. */
static void
scram_verify(const struct scram *s, const struct message *m)
{
	char want[64];

	(void)EVP_EncodeBlock((unsigned char *)want, s->server_signature, KEY_BYTES);
	if (m->body_bytes != 4 + 2 + strlen(want) ||
	    memcmp(m->body + 6, want, strlen(want)) != 0)
		die("SCRAM: the server's signature is wrong");
}

void
peer_login(struct peer *p, const struct target *t, struct wire *w, struct scram_cache *c)
{
	struct message m;
	struct scram s;

	for (;;) {
		wire_next(w, p, &m);
		if (m.type == 'E')
			die_of_error(&m);
		if (m.type == 'Z')
			return;
		if (m.type != 'R')
			continue;
		if (m.body == NULL || m.body_bytes < 4)
			die("authentication request not understood");
		switch (get_u32(m.body)) {
		case 0:
			break;
		case 10:
			scram_first(p, &s);
			break;
		case 11:
			scram_final(p, t, &s, c, &m);
			break;
		case 12:
			scram_verify(&s, &m);
			break;
		default:
			die("authentication method %u not known here", get_u32(m.body));
		}
	}
}
