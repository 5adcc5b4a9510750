/*
 * One login of one client: which exchange it is, what it is checked against, and when it is
 * over.
 *
 *     PASSWORD  --answer-->  OVER                    plain, md5
 *     FIRST  --client-first-->  FINAL  --client-final-->  OVER        SCRAM
 *
 * A login that cannot succeed (unknown, without a secret, or with one of the wrong kind) runs
 * to the same end: its salt is made of its name and a key of this process, so that it stays
 * the same from one attempt to the next, as that of a real one does.
 */
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "proto.h"
#include "scram.h"

#define SERVER_MAGIC 0x41535256
#define SALT_SIZE    16

struct auth_server {
	uint32_t magic;
	enum auth_type method; /* AUTH_PLAIN, AUTH_MD5 or AUTH_SCRAM */
	enum { PASSWORD, FIRST, FINAL, OVER } state;
	const char *doom; /* why the login cannot succeed; NULL: it can */
	const char *reason;
	char *login, *secret;
	enum auth_secret_kind kind; /* of secret */
	uint8_t salt[4];            /* md5 */
	int iterations;             /* where there is no verifier */
	struct verifier verifier; /* salt points into `secret`; of a SCRAM secret only */
	bool has_former;          /* the secret before it is as good: */
	struct keys former;
	struct scram_server scram;
	bool has_keys;  /* scram.keys are those of this client */
	char *password; /* as the client gave it */
};

/* The iterations of the last verifier that a password in clear was checked against: what it
 * costs such a login to fail, and therefore one that cannot succeed. 0: no such check yet. */
static atomic_int clear_iterations = 4096;

/* Of what is derived of passwords in clear, for exchanges that begin now. */
static atomic_int own_iterations = 4096;

/* Whether the last login with a hashed secret had a verifier. */
static atomic_bool hashes_are_scram;

/* ---- starting ---- */

/* Why a login with this kind of secret cannot pass this exchange, or NULL. */
static const char *
find_doom(struct auth_server *s)
{
	if (s->kind == SECRET_NONE)
		return ("there is no such login, or it has no password");
	if (s->kind == SECRET_SCRAM && verifier_parse(s->secret, &s->verifier) != 0)
		return ("the stored SCRAM verifier is malformed");
	if (s->kind == SECRET_SCRAM && s->method == AUTH_PLAIN &&
	    s->verifier.iterations > DERIVE_MAX)
		return (
		    "the stored SCRAM verifier has more than the 1000000 iterations done here "
		    "with a password");
	if (s->kind == SECRET_MD5 && s->method == AUTH_SCRAM)
		return ("the stored secret is an md5 hash, which does not serve SCRAM");
	return (NULL);
}

static enum auth_step
refuse(struct auth_server *s, const char *reason)
{
	s->state = OVER;
	s->reason = reason;
	return (AUTH_FAIL);
}

static enum auth_step
start_md5(struct auth_server *s, struct buf *out)
{
	char probe[MD5_SECRET + 1];

	if (!md5_secret("", "", probe))
		return (
		    refuse(s, "OpenSSL refuses MD5 here: use auth_type scram-sha-256"));
	random_bytes(s->salt, sizeof(s->salt));
	proto_auth_md5(out, s->salt);
	return (AUTH_SEND);
}

static enum auth_step
start_exchange(struct auth_server *s, struct buf *out)
{
	static const char *const mechanisms[] = {SCRAM_PLUS, SCRAM_MECHANISM};
	size_t skip = s->scram.binding.len > 0 ? 0 : 1;

	if (s->method == AUTH_MD5)
		return (start_md5(s, out));
	if (s->method == AUTH_PLAIN) {
		proto_auth_cleartext(out);
		return (AUTH_SEND);
	}
	if (s->method == AUTH_SCRAM) {
		s->state = FIRST;
		proto_auth_sasl(out, mechanisms + skip, ARRAY_LEN(mechanisms) - skip);
		return (AUTH_SEND);
	}
	return (refuse(s, "this authentication type asks for no password"));
}

/* MD5 becomes SCRAM for logins with a verifier, as in PostgreSQL. One that is not known does as
 * the last one did of which a hash is known, or else it would stand out. */
static enum auth_type
find_method(enum auth_type auth_type, enum auth_secret_kind kind)
{
	if (auth_type != AUTH_MD5)
		return (auth_type);
	if (kind == SECRET_SCRAM || kind == SECRET_MD5)
		atomic_store_explicit(
		    &hashes_are_scram, kind == SECRET_SCRAM, memory_order_relaxed);
	if (kind == SECRET_SCRAM ||
	    (kind == SECRET_NONE &&
		atomic_load_explicit(&hashes_are_scram, memory_order_relaxed)))
		return (AUTH_SCRAM);
	return (AUTH_MD5);
}

void
auth_set_iterations(int iterations)
{
	INVARIANT(iterations > 0 && iterations <= DERIVE_MAX);
	atomic_store_explicit(&own_iterations, iterations, memory_order_relaxed);
}

enum auth_step
auth_server_start(struct auth_server **server, enum auth_type auth_type,
    const char *login, const char *secret, struct buf *out)
{
	return (auth_server_start_bound(server, auth_type, login, secret, NULL, out));
}

enum auth_step
auth_server_start_bound(struct auth_server **server, enum auth_type auth_type,
    const char *login, const char *secret, const struct auth_binding *binding,
    struct buf *out)
{
	struct auth_server *s;

	*server = NULL;
	if (auth_type == AUTH_ANY || auth_type == AUTH_TRUST)
		return (AUTH_DONE);
	s = mem_alloc(sizeof(*s));
	s->magic = SERVER_MAGIC;
	s->state = PASSWORD;
	s->login = mem_str(login);
	s->secret = mem_str(secret == NULL ? "" : secret);
	s->kind = auth_secret_kind(s->secret);
	s->method = find_method(auth_type, s->kind);
	s->iterations = atomic_load_explicit(&own_iterations, memory_order_relaxed);
	if (binding != NULL)
		s->scram.binding = *binding;
	s->doom = find_doom(s);
	s->reason = "the login has not ended";
	*server = s;
	return (start_exchange(s, out));
}

void
auth_server_also(struct auth_server *s, const char *former)
{
	struct verifier v;

	if (s == NULL || former == NULL || s->kind != SECRET_SCRAM || s->doom != NULL ||
	    verifier_parse(former, &v) != 0 || v.iterations != s->verifier.iterations ||
	    v.salt_len != s->verifier.salt_len ||
	    memcmp(v.salt, s->verifier.salt, v.salt_len) != 0)
		return;
	s->has_former = true;
	memcpy(s->former.stored, v.stored, SHA256_SIZE);
	memcpy(s->former.server, v.server, SHA256_SIZE);
}

/* ---- passwords in clear ---- */

/* Against a verifier and the keys of the secret before it, of the same salt, or NULL. Keys are
 * remembered for the right password only: wrong ones must not drive those out. */
static bool
same_as_verifier(
    const struct verifier *v, const struct keys *former, const char *password)
{
	uint8_t salt[SALT_MAX];
	ssize_t n = base64_decode(v->salt, v->salt_len, salt, sizeof(salt));
	struct keys_of of = {password, salt, (size_t)n, v->iterations};
	struct keys keys;
	bool known, same;

	INVARIANT(n > 0);
	atomic_store_explicit(&clear_iterations, v->iterations, memory_order_relaxed);
	known = keys_find(&of, &keys);
	if (!known)
		keys_derive(&of, &keys);
	same = same_secret(keys.stored, v->stored, SHA256_SIZE) |
	       (former != NULL && same_secret(keys.stored, former->stored, SHA256_SIZE));
	if (same && !known)
		keys_remember(&of, &keys);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return (same);
}

/* As long as a comparison with a verifier takes. */
static bool
same_as_nothing(const char *login, const char *password)
{
	int iterations = atomic_load_explicit(&clear_iterations, memory_order_relaxed);
	uint8_t salt[SHA256_SIZE];
	struct keys_of of = {password, salt, SALT_SIZE, iterations};
	struct keys keys;

	keys_pseudo("salt", login, salt);
	keys_derive(&of, &keys);
	return (false);
}

/* Compares texts, by their hashes: the time tells nothing of where or in what length they
 * differ. */
static bool
same_text(const char *a, const char *b)
{
	uint8_t hash_a[SHA256_SIZE], hash_b[SHA256_SIZE];

	digest_sha256(a, strlen(a), hash_a);
	digest_sha256(b, strlen(b), hash_b);
	return (same_secret(hash_a, hash_b, SHA256_SIZE));
}

static bool
check_clear(struct auth_server *s, const char *password)
{
	char hashed[MD5_SECRET + 1];
	bool same;

	if (s->doom != NULL)
		return (same_as_nothing(s->login, password));
	if (s->kind == SECRET_SCRAM)
		return (same_as_verifier(
		    &s->verifier, s->has_former ? &s->former : NULL, password));
	if (s->kind == SECRET_PLAIN)
		same = same_text(password, s->secret);
	else
		same = md5_secret(password, s->login, hashed) &&
		       same_text(hashed, s->secret);
	/* A wrong password takes as long whatever kind of secret the login has, or none. */
	return (same || same_as_nothing(s->login, password));
}

static bool
check_md5(struct auth_server *s, const char *answer)
{
	char stored[MD5_SECRET + 1] = "", expected[MD5_SECRET + 1] = "";
	bool ok;

	if (s->kind == SECRET_MD5)
		ok = text_copy(stored, sizeof(stored), s->secret);
	else
		ok = md5_secret(s->secret, s->login, stored);
	ok = ok && md5_answer(stored, s->salt, expected) && same_text(answer, expected);
	OPENSSL_cleanse(stored, sizeof(stored));
	return (ok && s->doom == NULL);
}

static enum auth_step
feed_password(struct auth_server *s, const uint8_t *body, size_t len, int *fault)
{
	const char *answer;
	bool same;

	if (proto_string_parse(body, len, &answer) != 0) {
		*fault = F_AUTH_PROTOCOL;
		return (refuse(s, "malformed password message"));
	}
	*fault = F_AUTH_PASSWORD;
	if (*answer == '\0')
		return (refuse(s, "the client gave an empty password"));
	same = s->method == AUTH_MD5 ? check_md5(s, answer) : check_clear(s, answer);
	if (!same)
		return (
		    refuse(s, s->doom != NULL ? s->doom : "the password does not match"));
	if (s->method == AUTH_PLAIN)
		s->password = mem_str(answer);
	s->state = OVER;
	*fault = 0;
	return (AUTH_DONE);
}

/* ---- SCRAM ---- */

/* The salt of a login that has no verifier. */
static void
own_salt(const struct auth_server *s, uint8_t salt[SHA256_SIZE])
{
	keys_pseudo("salt", s->login, salt);
}

static enum auth_step
feed_first(struct auth_server *s, const uint8_t *body, size_t len, struct buf *out)
{
	uint8_t salt[SHA256_SIZE];
	char salt64[BASE64_SIZE(SALT_SIZE) + 1];
	struct buf message = {0};
	const char *mechanism, *why;
	const uint8_t *data;
	size_t data_len;

	if (proto_sasl_initial_parse(body, len, &mechanism, &data, &data_len) != 0)
		return (refuse(s, "malformed SASL message"));
	s->scram.is_plus = s->scram.binding.len > 0 && strcmp(mechanism, SCRAM_PLUS) == 0;
	if (!s->scram.is_plus && strcmp(mechanism, SCRAM_MECHANISM) != 0)
		return (
		    refuse(s, "the client chose a SASL mechanism that was not offered"));
	if (data == NULL)
		return (refuse(s, "the client sent no client-first message"));
	if (s->kind == SECRET_SCRAM && s->doom == NULL) {
		why = scram_server_first(&s->scram, data, data_len, s->verifier.salt,
		    s->verifier.salt_len, s->verifier.iterations, &message);
	} else {
		own_salt(s, salt);
		base64_encode(salt, SALT_SIZE, salt64);
		why = scram_server_first(&s->scram, data, data_len, salt64,
		    strlen(salt64), s->iterations, &message);
	}
	if (why == NULL)
		proto_auth_sasl_continue(out, message.mem, message.len);
	buf_free(&message);
	s->state = FINAL;
	return (why == NULL ? AUTH_SEND : refuse(s, why));
}

/* The keys that the client's proof is checked with. */
static void
fill_keys(struct auth_server *s)
{
	uint8_t salt[SHA256_SIZE];
	struct keys_of of = {s->secret, salt, SALT_SIZE, s->iterations};

	s->scram.has_former = s->has_former;
	s->scram.former = s->former;
	if (s->doom != NULL) {
		keys_pseudo("stored key", s->login, s->scram.keys.stored);
	} else if (s->kind == SECRET_SCRAM) {
		memcpy(s->scram.keys.stored, s->verifier.stored, SHA256_SIZE);
		memcpy(s->scram.keys.server, s->verifier.server, SHA256_SIZE);
	} else {
		own_salt(s, salt);
		keys_get(&of, &s->scram.keys);
	}
}

static enum auth_step
feed_final(
    struct auth_server *s, const uint8_t *body, size_t len, struct buf *out, int *fault)
{
	struct buf message = {0};
	const char *why;
	bool proved;

	fill_keys(s);
	why = scram_server_final(&s->scram, body, len, &proved);
	if (why != NULL)
		return (refuse(s, why));
	*fault = F_AUTH_PASSWORD;
	if (!proved || s->doom != NULL)
		return (
		    refuse(s, s->doom != NULL ? s->doom : "the password does not match"));
	scram_server_proof(&s->scram, &message);
	proto_auth_sasl_final(out, message.mem, message.len);
	buf_free(&message);
	s->has_keys = true;
	s->state = OVER;
	*fault = 0;
	return (AUTH_DONE);
}

/* ---- the exchange ---- */

enum auth_step
auth_server_feed(
    struct auth_server *s, const uint8_t *body, size_t len, struct buf *out, int *fault)
{
	enum auth_step step;

	INVARIANT(s->magic == SERVER_MAGIC);
	*fault = F_AUTH_PROTOCOL;
	switch (s->state) {
	case PASSWORD:
		return (feed_password(s, body, len, fault));
	case FIRST:
		step = feed_first(s, body, len, out);
		break;
	case FINAL:
		step = feed_final(s, body, len, out, fault);
		break;
	case OVER:
	default:
		return (refuse(s, "the login is over already"));
	}
	if (step == AUTH_FAIL && s->scram.fault != 0)
		*fault = s->scram.fault;
	return (step);
}

const char *
auth_server_reason(const struct auth_server *s)
{
	return (s == NULL ? "no password was asked for" : s->reason);
}

const char *
auth_server_secret(const struct auth_server *s)
{
	return (s == NULL || s->kind == SECRET_NONE ? NULL : s->secret);
}

const char *
auth_server_password(const struct auth_server *s)
{
	return (s == NULL ? NULL : s->password);
}

bool
auth_server_keys(const struct auth_server *s, struct auth_keys *out)
{
	if (s == NULL || !s->has_keys)
		return (false);
	memcpy(out->client, s->scram.keys.client, sizeof(out->client));
	memcpy(out->server, s->scram.keys.server, sizeof(out->server));
	return (true);
}

void
auth_server_free(struct auth_server *s)
{
	if (s == NULL)
		return;
	INVARIANT(s->magic == SERVER_MAGIC);
	scram_server_free(&s->scram);
	mem_free_secret(s->secret, strlen(s->secret));
	if (s->password != NULL)
		mem_free_secret(s->password, strlen(s->password));
	free(s->login);
	mem_free_secret(s, sizeof(*s));
}
