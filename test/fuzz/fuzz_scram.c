/*
 * Logins, both sides. The first byte says which, the rest are messages, one a line; '@' in one
 * stands for the nonce that our side has given.
 *
 *     S, P, M, U, V   a server with a verifier, with a plain password, that asks for md5, of
 *                     an unknown login, that asks for the password in clear; messages as a
 *                     client sends them. Nobody may get in without the password.
 *     c, k            a client with a password, with a verifier and its keys; the first byte of
 *                     a message is its code ('A': 0, 'B': 1, …). No SCRAM server may be
 *                     believed.
 *     J               both, joined; lines of three bytes: number of a message, place, bits to
 *                     flip. Nothing may change on the way and the login succeed.
 */
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "fuzz.h"
#include "proto.h"

#define SALT "AAAAAAAAAAAAAAAAAAAAAA=="
/* What belongs to an unknown password. */
#define VERIFIER                                                                         \
	"SCRAM-SHA-256$4096:" SALT "$v+qAjKhyD3WWEUh2vDEz8ZObRwAnUiuIyKp42n+Mq44=:"      \
	"5vxMRBKU/KCbX9oW43yZ8+c/wRt8pn9Po0DcxhUSJ7I="

/* ---- lines ---- */

struct lines {
	const uint8_t *p, *end;
};

static bool
next_line(struct lines *l, const uint8_t **line, size_t *len)
{
	const uint8_t *stop;

	if (l->p >= l->end)
		return (false);
	stop = memchr(l->p, '\n', (size_t)(l->end - l->p));
	*line = l->p;
	*len = (size_t)((stop == NULL ? l->end : stop) - l->p);
	l->p = stop == NULL ? l->end : stop + 1;
	return (true);
}

/* The nonce in what our side has said: what stands behind "r=", up to a comma. */
static void
find_nonce(const struct buf *said, struct buf *nonce)
{
	for (size_t i = 0; i + 2 < said->len; i++) {
		size_t end = i + 2;

		if (memcmp(said->mem + i, "r=", 2) != 0)
			continue;
		while (end < said->len && said->mem[end] != ',')
			end++;
		nonce->len = 0;
		buf_add(nonce, said->mem + i + 2, end - i - 2);
		return;
	}
}

/* The line with the nonce in its place, in memory of its own size. */
static uint8_t *
fill_in(const uint8_t *line, size_t len, const struct buf *nonce, size_t *size)
{
	struct buf b = {0};
	uint8_t *exact;

	for (size_t i = 0; i < len; i++) {
		if (line[i] == '@')
			buf_add(&b, nonce->mem, nonce->len);
		else
			buf_add(&b, line + i, 1);
	}
	*size = b.len;
	exact = mem_dup(b.len > 0 ? b.mem : line, b.len);
	buf_free(&b);
	return (exact);
}

/* ---- a server among strangers ---- */

static void
try_server(enum auth_type type, const char *secret, struct lines l)
{
	struct buf out = {0}, nonce = {0};
	struct auth_server *s;
	struct auth_keys keys;
	enum auth_step step = auth_server_start(&s, type, "user", secret, &out);
	const uint8_t *line;
	size_t len, size;
	int fault;

	INVARIANT(step == AUTH_SEND && s != NULL);
	while (next_line(&l, &line, &len)) {
		uint8_t *message = fill_in(line, len, &nonce, &size);

		out.len = 0;
		step = auth_server_feed(s, message, size, &out, &fault);
		INVARIANT(step != AUTH_DONE);
		INVARIANT(step == AUTH_SEND || (out.len == 0 && fault < 0));
		INVARIANT(auth_server_reason(s) != NULL);
		find_nonce(&out, &nonce);
		free(message);
	}
	INVARIANT(auth_server_password(s) == NULL && !auth_server_keys(s, &keys));
	auth_server_free(s);
	buf_free(&out);
	buf_free(&nonce);
}

/* ---- a client among strangers ---- */

/* Whether a number in the message would make us hash for long. */
static bool
is_costly(const uint8_t *p, size_t len)
{
	size_t digits = 0;

	for (size_t i = 0; i < len && digits < 3; i++)
		digits = p[i] >= '0' && p[i] <= '9' ? digits + 1 : 0;
	return (digits >= 3);
}

static void
try_client(bool with_keys, struct lines l)
{
	static const struct auth_keys keys = {{1}, {2}};
	struct auth_client *c =
	    auth_client_create("user", with_keys ? VERIFIER : "pencil");
	struct buf out = {0}, nonce = {0};
	bool scram = false;
	const uint8_t *line;
	size_t len, size;
	char why[200];

	if (with_keys)
		auth_client_keys(c, &keys);
	while (next_line(&l, &line, &len)) {
		uint8_t *message;
		enum auth_step step;
		uint32_t code = len > 0 ? (uint32_t)line[0] - 'A' : 99;

		if (code == 11 && !with_keys && is_costly(line, len))
			continue;
		message = fill_in(line + 1, len > 0 ? len - 1 : 0, &nonce, &size);
		out.len = 0;
		why[0] = '\0';
		step = auth_client_feed(c, code, message, size, &out, why, sizeof(why));
		scram = scram || (step == AUTH_SEND && code == 10);
		INVARIANT(step != AUTH_DONE || !scram);
		INVARIANT(step != AUTH_FAIL || (*why != '\0' && out.len == 0));
		find_nonce(&out, &nonce);
		free(message);
	}
	auth_client_free(c);
	buf_free(&out);
	buf_free(&nonce);
}

/* ---- both, with somebody between them ---- */

/* Flips what the lines say of this message; whether that changed it. */
static bool
meddle(struct buf *b, uint8_t number, struct lines l)
{
	struct buf was = {0};
	const uint8_t *line;
	size_t len;
	bool changed;

	buf_add(&was, b->mem, b->len);
	while (next_line(&l, &line, &len))
		if (len == 3 && line[0] == '0' + number &&
		    line[1] + (size_t)PROTO_HEAD < b->len)
			b->mem[PROTO_HEAD + line[1]] ^= line[2];
	changed = memcmp(was.mem, b->mem, b->len) != 0;
	buf_free(&was);
	return (changed);
}

/* One message to the client, which may answer. */
static enum auth_step
to_client(struct auth_client *c, const struct buf *said, struct buf *answer)
{
	const uint8_t *data;
	uint32_t code;
	size_t len;
	char why[200];

	INVARIANT(proto_auth_parse(said->mem + PROTO_HEAD, said->len - PROTO_HEAD, &code,
		      &data, &len) == 0);
	return (auth_client_feed(c, code, data, len, answer, why, sizeof(why)));
}

static void
try_both(struct lines l)
{
	static char *verifier;
	struct auth_client *c = auth_client_create("user", "pencil");
	struct auth_server *s;
	struct buf said = {0}, answer = {0};
	enum auth_step server, client = AUTH_SEND;
	bool meddled = false;
	uint8_t number = 0;
	int fault = 0;

	if (verifier == NULL)
		verifier = auth_make_verifier("pencil", 1);
	server = auth_server_start(&s, AUTH_SCRAM, "user", verifier, &said);
	while (client == AUTH_SEND && said.len > 0) {
		meddled = meddle(&said, number++, l) || meddled;
		client = to_client(c, &said, &answer);
		said.len = 0;
		if (client != AUTH_SEND || answer.len == 0)
			break;
		meddled = meddle(&answer, number++, l) || meddled;
		server = auth_server_feed(
		    s, answer.mem + PROTO_HEAD, answer.len - PROTO_HEAD, &said, &fault);
		answer.len = 0;
	}
	if (server == AUTH_DONE && client == AUTH_SEND) {
		proto_auth_ok(&said);
		client = to_client(c, &said, &answer);
	}
	if (meddled)
		INVARIANT(server != AUTH_DONE || client != AUTH_DONE);
	else
		INVARIANT(server == AUTH_DONE && client == AUTH_DONE && fault == 0);
	auth_server_free(s);
	auth_client_free(c);
	buf_free(&said);
	buf_free(&answer);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lines l = {data + 1, data + size};

	if (size == 0)
		return (0);
	switch (data[0]) {
	case 'S':
		try_server(AUTH_SCRAM, VERIFIER, l);
		break;
	case 'P':
		try_server(AUTH_SCRAM, "a password nobody guesses", l);
		break;
	case 'M':
		try_server(AUTH_MD5, "a password nobody guesses", l);
		break;
	case 'U':
		try_server(AUTH_SCRAM, NULL, l);
		break;
	case 'V':
		try_server(AUTH_PLAIN, "a password nobody guesses", l);
		break;
	case 'c':
		try_client(false, l);
		break;
	case 'k':
		try_client(true, l);
		break;
	case 'J':
		try_both(l);
		break;
	default:
		break;
	}
	return (0);
}
