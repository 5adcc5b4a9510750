/*
 * One login at one backend. What the server may ask, and when:
 *
 *     START     3 cleartext, 5 md5  ->  ANSWERED  ->  0 ok: done
 *     START     10 SASL  ->  OFFERED  11 continue  ->  PROVING  12 final  ->  ANSWERED
 *     START     0 ok: done (trust)
 *
 * Everything else is out of order. Above all "ok" in the middle of SCRAM: a server that skips
 * its own proof is not taken at its word.
 */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto.h"
#include "scram.h"

#define CLIENT_MAGIC 0x41434C49

struct auth_client {
	uint32_t magic;
	enum { START, OFFERED, PROVING, ANSWERED, OVER } state;
	char *user, *secret;
	enum auth_secret_kind kind;
	struct scram_client scram;
	bool has_keys; /* keys were given, for want of a password */
	struct keys keys;
};

struct auth_client *
auth_client_create(const char *user, const char *secret)
{
	struct auth_client *c = mem_alloc(sizeof(*c));

	c->magic = CLIENT_MAGIC;
	c->user = mem_str(user);
	c->secret = mem_str(secret == NULL ? "" : secret);
	c->kind = auth_secret_kind(c->secret);
	return (c);
}

void
auth_client_keys(struct auth_client *c, const struct auth_keys *keys)
{
	INVARIANT(c->magic == CLIENT_MAGIC && c->state == START);
	memcpy(c->keys.client, keys->client, sizeof(c->keys.client));
	memcpy(c->keys.server, keys->server, sizeof(c->keys.server));
	digest_sha256(c->keys.client, sizeof(c->keys.client), c->keys.stored);
	c->has_keys = true;
}

void
auth_client_bind(struct auth_client *c, const struct auth_binding *binding)
{
	INVARIANT(c->magic == CLIENT_MAGIC && c->state == START);
	c->scram.binding = *binding;
}

void
auth_client_free(struct auth_client *c)
{
	if (c == NULL)
		return;
	INVARIANT(c->magic == CLIENT_MAGIC);
	scram_client_free(&c->scram);
	mem_free_secret(c->secret, strlen(c->secret));
	free(c->user);
	mem_free_secret(c, sizeof(*c));
}

/* Where a refusal is explained. */
struct why {
	char *text;
	size_t size;
};

static enum auth_step
fail(struct auth_client *c, struct why w, const char *text)
{
	c->state = OVER;
	if (w.size > 0)
		snprintf(w.text, w.size, "%s", text);
	return (AUTH_FAIL);
}

/* The server asks for something that our secret cannot give. */
static enum auth_step
fail_secret(struct auth_client *c, struct why w, const char *asked)
{
	c->state = OVER;
	if (w.size == 0)
		return (AUTH_FAIL);
	if (c->kind == SECRET_NONE)
		snprintf(w.text, w.size, "no password is known for role \"%s\"", c->user);
	else
		snprintf(w.text, w.size,
		    "the server asks for %s, and only %s is known for role \"%s\"", asked,
		    c->kind == SECRET_MD5 ? "an md5 hash" : "a SCRAM verifier", c->user);
	return (AUTH_FAIL);
}

/* ---- cleartext and md5 ---- */

static enum auth_step
answer_cleartext(struct auth_client *c, struct buf *out, struct why w)
{
	if (c->kind != SECRET_PLAIN)
		return (fail_secret(c, w, "a password in clear"));
	proto_password(out, c->secret);
	c->state = ANSWERED;
	return (AUTH_SEND);
}

static enum auth_step
answer_md5(
    struct auth_client *c, const uint8_t *data, size_t len, struct buf *out, struct why w)
{
	char stored[MD5_SECRET + 1] = "", answer[MD5_SECRET + 1];
	bool ok;

	if (len != 4)
		return (fail(c, w, "malformed md5 request from the server"));
	if (c->kind == SECRET_MD5)
		ok = text_copy(stored, sizeof(stored), c->secret);
	else if (c->kind == SECRET_PLAIN)
		ok = md5_secret(c->secret, c->user, stored);
	else
		return (fail_secret(c, w, "an md5 password"));
	ok = ok && md5_answer(stored, data, answer);
	OPENSSL_cleanse(stored, sizeof(stored));
	if (!ok)
		return (
		    fail(c, w, "the server asks for md5, and OpenSSL refuses MD5 here"));
	proto_password(out, answer);
	c->state = ANSWERED;
	return (AUTH_SEND);
}

/* ---- SCRAM ---- */

/* Whether a list of mechanisms (each with its NUL, then a NUL) names this one. False also when
 * it is malformed. */
static bool
offers(const uint8_t *data, size_t len, const char *mechanism)
{
	const char *p = len == 0 ? "" : (const char *)data, *end = p + len;
	bool found = false;

	while (p < end && *p != '\0') {
		const char *nul = memchr(p, '\0', (size_t)(end - p));

		if (nul == NULL)
			return (false);
		found = found || strcmp(p, mechanism) == 0;
		p = nul + 1;
	}
	return (found && p + 1 == end);
}

static enum auth_step
answer_sasl(
    struct auth_client *c, const uint8_t *data, size_t len, struct buf *out, struct why w)
{
	bool offers_plus = offers(data, len, SCRAM_PLUS);
	bool binds = scram_client_binds(&c->scram, offers_plus);
	struct buf message = {0};

	if (!binds && !offers(data, len, SCRAM_MECHANISM))
		return (fail(c, w, "the server offers no SASL mechanism that we speak"));
	if (c->kind != SECRET_PLAIN && !(c->kind == SECRET_SCRAM && c->has_keys))
		return (fail_secret(c, w, "a SCRAM-SHA-256 login"));
	scram_client_first(&c->scram, offers_plus, &message);
	proto_sasl_initial(
	    out, binds ? SCRAM_PLUS : SCRAM_MECHANISM, message.mem, message.len);
	buf_free(&message);
	c->state = OFFERED;
	return (AUTH_SEND);
}

/* The keys that go with the server's salt, when our secret is a verifier: those given, if
 * the server's verifier is the same as ours. */
static bool
keys_fit(const struct auth_client *c, const struct scram_offer *offer)
{
	struct verifier v;
	uint8_t salt[SALT_MAX];
	ssize_t n;

	if (verifier_parse(c->secret, &v) != 0 || v.iterations != offer->iterations)
		return (false);
	n = base64_decode(v.salt, v.salt_len, salt, sizeof(salt));
	return (
	    n == (ssize_t)offer->salt_len && memcmp(salt, offer->salt, (size_t)n) == 0);
}

static enum auth_step
answer_continue(
    struct auth_client *c, const uint8_t *data, size_t len, struct buf *out, struct why w)
{
	struct scram_offer offer;
	struct buf message = {0};
	const char *wrong = scram_client_read(&c->scram, data, len, &offer);

	if (wrong != NULL)
		return (fail(c, w, wrong));
	if (c->kind == SECRET_PLAIN && offer.iterations > DERIVE_MAX)
		return (fail(c, w,
		    "the server's SCRAM iteration count is more than the 1000000 done here "
		    "with a password"));
	if (c->kind == SECRET_PLAIN) {
		struct keys_of of = {
		    c->secret, offer.salt, offer.salt_len, offer.iterations};

		keys_get(&of, &c->keys);
	} else if (!keys_fit(c, &offer)) {
		return (
		    fail(c, w, "the server's SCRAM verifier differs from the one known"));
	}
	scram_client_final(&c->scram, &offer, &c->keys, &message);
	proto_sasl_response(out, message.mem, message.len);
	buf_free(&message);
	c->state = PROVING;
	return (AUTH_SEND);
}

static enum auth_step
check_final(struct auth_client *c, const uint8_t *data, size_t len, struct why w)
{
	const char *wrong = scram_client_check(&c->scram, data, len);

	if (wrong != NULL)
		return (fail(c, w, wrong));
	c->state = ANSWERED;
	return (AUTH_SEND);
}

/* ---- the exchange ---- */

/* Of a server that says "ok". */
static enum auth_step
take_ok(struct auth_client *c, size_t len, struct why w)
{
	if (c->state == OFFERED || c->state == PROVING)
		return (fail(c, w,
		    "the server lets us in before it proved that it knows the password"));
	if (c->state == OVER || len != 0)
		return (fail(c, w, "unexpected AuthenticationOk from the server"));
	c->state = OVER;
	return (AUTH_DONE);
}

enum auth_step
auth_client_feed(struct auth_client *c, uint32_t code, const uint8_t *data, size_t len,
    struct buf *out, char *why, size_t why_len)
{
	struct why w = {why, why_len};
	char text[80];

	INVARIANT(c->magic == CLIENT_MAGIC);
	if (code == 0)
		return (take_ok(c, len, w));
	if (c->state == START && code == 3)
		return (answer_cleartext(c, out, w));
	if (c->state == START && code == 5)
		return (answer_md5(c, data, len, out, w));
	if (c->state == START && code == 10)
		return (answer_sasl(c, data, len, out, w));
	if (c->state == OFFERED && code == 11)
		return (answer_continue(c, data, len, out, w));
	if (c->state == PROVING && code == 12)
		return (check_final(c, data, len, w));
	snprintf(text, sizeof(text),
	    c->state == START
		? "the server asks for authentication method %u, which is not supported"
		: "authentication request %u from the server is out of order",
	    (unsigned)code);
	return (fail(c, w, text));
}
