/*
 * A probe without a role to log in with: connects, introduces itself and sees what the server
 * says. A request to authenticate is a good answer, and so is a refusal, unless it says that
 * the server cannot serve now. Nothing is logged by PostgreSQL when the connection then ends.
 */
#include "private.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROTOCOL_3    196608
#define MESSAGE_BYTES 16384 /* longer than any that a server sends during a login */

struct knock {
	struct burial burial;
	struct stream stream;
	struct watch *watch; /* NULL: it is over */
	struct resolve *resolve;
	size_t host;
	struct resolved *addresses; /* of the host; NULL: not known yet */
	unsigned next;              /* of them, to be tried */
};

static void knock_try(struct watch *, size_t host);
static void knock_next(struct knock *);

static void
knock_bury(struct burial *b)
{
	struct knock *k = CONTAINER_OF(b, struct knock, burial);

	free(k->addresses);
	free(k);
}

void
knock_end(struct watch *w)
{
	struct knock *k = w->knock;

	if (k == NULL)
		return;
	w->knock = NULL;
	k->watch = NULL;
	if (k->resolve != NULL)
		resolve_cancel(k->resolve);
	stream_close(&k->stream);
	worker_bury(w->worker, &k->burial, knock_bury);
}

static void
knock_over(struct knock *k, const char *why)
{
	struct watch *w = k->watch;

	knock_end(w);
	knock_done(w, why);
}

/* The next address' turn, or the next host's, when there is one. */
static void
knock_failed(struct knock *k, const char *why)
{
	struct watch *w = k->watch;
	size_t next = k->host + 1;

	if (k->addresses != NULL && k->next < k->addresses->count) {
		knock_next(k);
		return;
	}
	if (next >= w->database->host_count) {
		knock_over(k, why);
		return;
	}
	knock_end(w);
	knock_try(w, next);
}

/* ---- what the server says ---- */

/* The field of an ErrorResponse, or "". Source: Error and Notice Message Fields. */
static const char *
error_field(const uint8_t *p, size_t len, char code)
{
	while (len > 1) {
		size_t n = strnlen((const char *)p + 1, len - 1);

		if (n == len - 1)
			break;
		if (*p == (uint8_t)code)
			return ((const char *)p + 1);
		p += n + 2;
		len -= n + 2;
	}
	return ("");
}

/* A refusal comes from a server that lives; not when it starts, stops or is full. */
static void
knock_refused(struct knock *k, const uint8_t *body, size_t len)
{
	const char *state = error_field(body, len, 'C');
	char why[256];

	if (strncmp(state, "57P", 3) != 0 && strcmp(state, "53300") != 0) {
		knock_over(k, NULL);
		return;
	}
	snprintf(why, sizeof(why), "%s", error_field(body, len, 'M'));
	knock_failed(k, why);
}

/* One message; false: it was the last that counts. */
static bool
knock_message(struct knock *k, char type, const uint8_t *body, size_t len)
{
	static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
	static const uint8_t ok[] = {0, 0, 0, 0};

	switch (type) {
	case 'R':
		/* Trusted: on to ReadyForQuery, so that it ends in order. */
		if (len == 4 && memcmp(body, ok, 4) == 0)
			return (true);
		knock_over(k, NULL);
		return (false);
	case 'E':
		knock_refused(k, body, len);
		return (false);
	case 'Z':
		stream_write(&k->stream, terminate, sizeof(terminate));
		knock_over(k, NULL);
		return (false);
	case 'S':
	case 'K':
	case 'N':
	case 'v':
		return (true);
	default:
		knock_failed(k, "the server does not speak PostgreSQL's protocol");
		return (false);
	}
}

static size_t
knock_bytes(struct stream *s, const uint8_t *p, size_t len)
{
	struct knock *k = CONTAINER_OF(s, struct knock, stream);
	size_t at = 0;

	while (len - at >= 5) {
		size_t size = (size_t)p[at + 1] << 24 | (size_t)p[at + 2] << 16 |
			      (size_t)p[at + 3] << 8 | p[at + 4];

		if (size < 4 || size > MESSAGE_BYTES) {
			knock_failed(
			    k, "the server does not speak PostgreSQL's protocol");
			return (len);
		}
		if (len - at < size + 1)
			break;
		if (!knock_message(k, (char)p[at], p + at + 5, size - 4))
			return (len);
		at += size + 1;
	}
	return (at);
}

static void
knock_lost(struct stream *s, int err)
{
	struct knock *k = CONTAINER_OF(s, struct knock, stream);
	char why[128];

	if (err > 0)
		(void)text_copy(why, sizeof(why), strerror(err));
	else
		(void)text_copy(
		    why, sizeof(why), "the server closed the connection unexpectedly");
	knock_failed(k, why);
}

static void
knock_connected(struct stream *s)
{
	struct knock *k = CONTAINER_OF(s, struct knock, stream);
	const struct topo_database *db = k->watch->database;
	const char *user = topo_settings(k->watch->topo)->auth_user;
	uint32_t head[2] = {0, htonl(PROTOCOL_3)};
	const char *words[] = {"user", user[0] != '\0' ? user : "postgres", "database",
	    db->dbname != NULL ? db->dbname : db->name, "application_name",
	    "pgweave health", ""};
	struct buf b = {0};

	buf_add(&b, head, sizeof(head));
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		buf_add(&b, words[i], strlen(words[i]) + 1);
	head[0] = htonl(b.len);
	memcpy(b.mem, head, sizeof(head[0]));
	stream_write(s, b.mem, b.len);
	buf_free(&b);
}

static const struct stream_ops knock_ops = {
    .bytes = knock_bytes,
    .lost = knock_lost,
    .connected = knock_connected,
};

/* ---- connecting ---- */

static void
knock_connect(struct knock *k)
{
	const struct resolved *r = k->addresses;
	const struct sockaddr *sa = (const struct sockaddr *)&r->at[k->next].sa;
	socklen_t len = r->at[k->next++].len;
	char why[128];

	if (stream_connect(&k->stream, k->watch->worker, sa, len, NULL, &knock_ops) == 0)
		return;
	snprintf(why, sizeof(why), "%m");
	knock_failed(k, why);
}

static void
knock_resolved(void *arg, const struct resolved *found, const char *err)
{
	struct knock *k = arg;
	char why[320];

	k->resolve = NULL;
	if (err != NULL) {
		snprintf(why, sizeof(why), "cannot resolve \"%.200s\": %s",
		    k->watch->database->hosts[k->host].host, err);
		knock_failed(k, why);
		return;
	}
	k->addresses = mem_alloc(sizeof(*found));
	*k->addresses = *found;
	knock_connect(k);
}

/* A knock of its own for each address: the stream of the last one may be on the stack. */
static struct knock *
knock_create(struct watch *w, size_t host)
{
	struct knock *k = mem_alloc(sizeof(*k));

	k->watch = w;
	k->host = host;
	k->stream.fd = -1;
	w->knock = k;
	return (k);
}

static void
knock_next(struct knock *was)
{
	struct watch *w = was->watch;
	size_t host = was->host;
	struct resolved *addresses = was->addresses;
	unsigned next = was->next;
	struct knock *k;

	was->addresses = NULL;
	knock_end(w);
	k = knock_create(w, host);
	k->addresses = addresses;
	k->next = next;
	knock_connect(k);
}

static void
knock_try(struct watch *w, size_t host)
{
	const struct topo_host *h = &w->database->hosts[host];
	struct knock *k = knock_create(w, host);
	struct resolve *resolve;

	resolve = resolve_start(
	    w->worker, topo_settings(w->topo), h->host, h->port, knock_resolved, k);
	/* NULL: it is done, and the knock may be over. */
	if (resolve != NULL)
		k->resolve = resolve;
}

void
knock_start(struct watch *w)
{
	knock_try(w, 0);
}
