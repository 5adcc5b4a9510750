/*
 * auth: the two sides against each other and against known values; every way in which a peer
 * can be wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/auth/scram.h"
#include "proto.h"

/* Made by PostgreSQL 15: CREATE ROLE pencil PASSWORD 'pencil'; then old, with md5. */
#define VERIFIER                                                                         \
	"SCRAM-SHA-256$4096:RNi54NwhTPuT3CAZ5o/cPA==$"                                   \
	"v+qAjKhyD3WWEUh2vDEz8ZObRwAnUiuIyKp42n+Mq44=:"                                  \
	"5vxMRBKU/KCbX9oW43yZ8+c/wRt8pn9Po0DcxhUSJ7I="
#define MD5_OF_OLD "md5b15721e6326bc6e9a7c72a38963ec03d"

/* ---- parts ---- */

static void
secrets_have_kinds(void **state)
{
	(void)state;
	assert_int_equal(auth_secret_kind(NULL), SECRET_NONE);
	assert_int_equal(auth_secret_kind(""), SECRET_NONE);
	assert_int_equal(auth_secret_kind("pencil"), SECRET_PLAIN);
	assert_int_equal(auth_secret_kind("md5pencil"), SECRET_PLAIN);
	assert_int_equal(auth_secret_kind(MD5_OF_OLD), SECRET_MD5);
	assert_int_equal(auth_secret_kind(MD5_OF_OLD "0"), SECRET_PLAIN);
	assert_int_equal(auth_secret_kind(VERIFIER), SECRET_SCRAM);
	assert_int_equal(auth_secret_kind("SCRAM-SHA-256$"), SECRET_SCRAM);
}

static void
base64_has_one_spelling(void **state)
{
	static const char *const rows[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
	    {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
	    {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xfe", "+//+"}};
	static const char *const wrong[] = {"Z", "Zg",
	    "Zg=", "Zh==", "Zm9=", "====", "Zg=a", "Zm 9", "Zm9v\n", "Zg==Zg==", "Zm-_"};
	uint8_t out[9];
	char text[13];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		base64_encode(rows[i][0], strlen(rows[i][0]), text);
		assert_string_equal(text, rows[i][1]);
		assert_int_equal(base64_decode(text, strlen(text), out, sizeof(out)),
		    strlen(rows[i][0]));
		assert_memory_equal(out, rows[i][0], strlen(rows[i][0]));
	}
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(
		    base64_decode(wrong[i], strlen(wrong[i]), out, sizeof(out)),
		    F_AUTH_PROTOCOL);
	assert_int_equal(base64_decode("Zm9v", 4, out, 2), F_AUTH_PROTOCOL);
}

static void
digests_have_known_values(void **state)
{
	/* RFC 4231, case 1 */
	static const uint8_t expected[] = {0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53,
	    0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, 0x88, 0x1d, 0xc2, 0x00, 0xc9,
	    0x83, 0x3d, 0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7};
	uint8_t key[20], out[SHA256_SIZE];
	char hex[MD5_SECRET + 1];

	(void)state;
	memset(key, 0x0b, sizeof(key));
	digest_hmac(key, sizeof(key), "Hi There", 8, out);
	assert_memory_equal(out, expected, sizeof(expected));
	assert_true(md5_secret("pencil", "old", hex));
	assert_string_equal(hex, MD5_OF_OLD);
}

/* The keys of a password must be those in a verifier that PostgreSQL made of it. */
static void
verifiers_are_postgresqls(void **state)
{
	static const char *const rows[][2] = {
	    {"pencil", VERIFIER},
	    /* a space that is not ASCII's becomes one */
	    {"x\u00a0y",
		"SCRAM-SHA-256$4096:TArb6ecuw20mGxiLT06b5g==$yiWn6lYUPehKuymRO7FShTgCx0QH/Gqpa1m7VLvyFOw=:Y/g4neN5kyCJoCDVh+pAKzUwTXE1QspvCRhCbNRtbZM="},
	    /* a soft hyphen goes */
	    {"I\u00adX",
		"SCRAM-SHA-256$4096:F9x+2O1Jx9bYqEIEfDg67Q==$8MeIIPfqVFP4Wdp0QkZCFRo7wfYKeWbJKmBiX+TaHkY=:m6quhKhErmZM2XSDpA4Hw/MrS2jR0PaIrXneXKcbSRA="},
	    {"gr\u00fc\u00dfe",
		"SCRAM-SHA-256$4096:IV5S9rDy4sQY5g+SLeHzEw==$mVeA4243OnTT8ntH0sYfmzVIozwIZHcy/tKFuHJU8/4=:2V936Ce8x9qCuSDcS7MHbP2Mlr2Z5CIUR9vCmGFcmfc="},
	    /* for private use, so forbidden: the raw bytes, soft hyphen and all */
	    {"a\u00adb\ue000",
		"SCRAM-SHA-256$4096:+fqGxSGY5qTpl+oRbGzO1w==$YD17axUSjme26FeWOdNH4N76UAOdfB7bJuEmUp8nMjs=:dPT9j/BitWw1ffK87PiyyPQEEP+Yr6YqKLMB2PffjkA="},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct verifier v;
		uint8_t salt[SALT_MAX];
		struct keys keys;
		struct keys_of of = {rows[i][0], salt, 0, 0};

		assert_int_equal(verifier_parse(rows[i][1], &v), 0);
		of.salt_len =
		    (size_t)base64_decode(v.salt, v.salt_len, salt, sizeof(salt));
		of.iterations = v.iterations;
		keys_derive(&of, &keys);
		assert_memory_equal(keys.stored, v.stored, SHA256_SIZE);
		assert_memory_equal(keys.server, v.server, SHA256_SIZE);
	}
}

static void
malformed_verifiers_are_refused(void **state)
{
	static const char *const wrong[] = {"SCRAM-SHA-256$", "SCRAM-SHA-256$4096",
	    "SCRAM-SHA-256$4096:", "SCRAM-SHA-256$4096:AAAA", "SCRAM-SHA-256$4096:AAAA$",
	    "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
	    "SCRAM-SHA-256$0:AAAA$v+qAjKhyD3WWEUh2vDEz8ZObRwAnUiuIyKp42n+Mq44=:5vxMRBKU/KCbX9oW43yZ8+c/wRt8pn9Po0DcxhUSJ7I=",
	    "SCRAM-SHA-256$99999999999999999999:AAAA$v+qAjKhyD3WWEUh2vDEz8ZObRwAnUiuIyKp42n+Mq44=:5vxMRBKU/KCbX9oW43yZ8+c/wRt8pn9Po0DcxhUSJ7I=",
	    "SCRAM-SHA-256$1:$v+qAjKhyD3WWEUh2vDEz8ZObRwAnUiuIyKp42n+Mq44=:5vxMRBKU/KCbX9oW43yZ8+c/wRt8pn9Po0DcxhUSJ7I=",
	    VERIFIER "x", VERIFIER ":AAAA"};
	struct verifier v;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(verifier_parse(wrong[i], &v), F_AUTH_PROTOCOL);
}

/* RFC 7677, section 3. */
#define RFC_SAID                                                                              \
	"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," \
	"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_NONCE     "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_FINAL     "c=biws,r=" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_SIGNATURE "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static void
rfc_7677_example(void **state)
{
	uint8_t salt[16];
	struct keys_of of = {"pencil", salt, sizeof(salt), 4096};
	struct scram_offer offer = {.nonce = RFC_NONCE, .nonce_len = strlen(RFC_NONCE)};
	struct scram_client client = {.header = "n,,"};
	struct scram_server server = {
	    .nonce_len = strlen(RFC_NONCE), .header = client.header};
	struct buf out = {0};
	bool proved;

	(void)state;
	assert_int_equal(base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==", 24, salt, 16), 16);
	keys_derive(&of, &server.keys);
	buf_addstr(&client.said, RFC_SAID);
	scram_client_final(&client, &offer, &server.keys, &out);
	assert_int_equal(out.len, strlen(RFC_FINAL));
	assert_memory_equal(out.mem, RFC_FINAL, out.len);
	buf_free(&out);

	buf_addstr(&server.said, RFC_SAID);
	server.nonce_at = strlen("n=user,r=rOprNGfwEbeRWgbNEkqO,r=");
	assert_null(scram_server_final(&server, RFC_FINAL, strlen(RFC_FINAL), &proved));
	assert_true(proved);
	scram_server_proof(&server, &out);
	assert_int_equal(out.len, strlen(RFC_SIGNATURE));
	assert_memory_equal(out.mem, RFC_SIGNATURE, out.len);
	assert_null(scram_client_check(&client, out.mem, out.len));
	buf_free(&out);
	scram_client_free(&client);
	scram_server_free(&server);
}

/* ---- one login, both sides ours ---- */

/* How a login between the two went. */
struct outcome {
	enum auth_step server, client;
	int fault, messages; /* of both sides */
	char reason[128], why[160];
};

static void
body_of(const struct buf *b, const uint8_t **body, size_t *len)
{
	assert_true(b->len >= PROTO_HEAD && proto_get32(b->mem + 1) + 1 == b->len);
	*body = b->mem + PROTO_HEAD;
	*len = b->len - PROTO_HEAD;
}

/* Hands what the server said to the client, and its answer back. */
static void
one_turn(
    struct auth_server *s, struct auth_client *c, struct buf *said, struct outcome *o)
{
	struct buf answer = {0};
	const uint8_t *body, *data;
	size_t len, data_len;
	uint32_t code;

	body_of(said, &body, &len);
	assert_int_equal(proto_auth_parse(body, len, &code, &data, &data_len), 0);
	o->client =
	    auth_client_feed(c, code, data, data_len, &answer, o->why, sizeof(o->why));
	buf_free(said);
	if (answer.len > 0) {
		body_of(&answer, &body, &len);
		o->server = auth_server_feed(s, body, len, said, &o->fault);
		o->messages += 2;
	}
	buf_free(&answer);
}

/* The secret that the login had before. */
static const char *former;

static struct outcome
run(enum auth_type type, const char *server_secret, const char *client_secret,
    const struct auth_keys *given, struct auth_keys *shown)
{
	struct auth_client *c = auth_client_create("old", client_secret);
	struct auth_server *s;
	struct outcome o = {.client = AUTH_SEND};
	struct buf said = {0};

	if (given != NULL)
		auth_client_keys(c, given);
	o.server = auth_server_start(&s, type, "old", server_secret, &said);
	auth_server_also(s, former);
	while (o.server == AUTH_SEND && o.client == AUTH_SEND)
		one_turn(s, c, &said, &o);
	if (o.server == AUTH_DONE && said.len > 0) /* SASLFinal */
		one_turn(s, c, &said, &o);
	if (o.server == AUTH_DONE && o.client == AUTH_SEND)
		o.client = auth_client_feed(c, 0, NULL, 0, &said, o.why, sizeof(o.why));
	assert_int_equal(said.len, 0);
	assert_true(shown == NULL || auth_server_keys(s, shown));
	text_copy(o.reason, sizeof(o.reason), auth_server_reason(s));
	if (type == AUTH_PLAIN && o.server == AUTH_DONE)
		assert_string_equal(auth_server_password(s), client_secret);
	else
		assert_null(auth_server_password(s));
	auth_server_free(s);
	auth_client_free(c);
	buf_free(&said);
	return (o);
}

static void
right_passwords_pass(void **state)
{
	static const struct {
		enum auth_type type;
		const char *server, *client;
	} rows[] = {
	    {AUTH_PLAIN, "pencil", "pencil"},
	    {AUTH_PLAIN, MD5_OF_OLD, "pencil"},
	    {AUTH_PLAIN, VERIFIER, "pencil"},
	    {AUTH_PLAIN, VERIFIER, "pencil"}, /* from memory */
	    {AUTH_MD5, "pencil", "pencil"},
	    {AUTH_MD5, MD5_OF_OLD, "pencil"},
	    {AUTH_MD5, "pencil", MD5_OF_OLD},
	    {AUTH_MD5, MD5_OF_OLD, MD5_OF_OLD},
	    {AUTH_MD5, VERIFIER, "pencil"}, /* becomes SCRAM */
	    {AUTH_SCRAM, VERIFIER, "pencil"},
	    {AUTH_SCRAM, "pencil", "pencil"},
	    {AUTH_SCRAM, "gr\u00fc\u00dfe", "gr\u00fc\u00dfe"},
	    {AUTH_TRUST, NULL, NULL},
	    {AUTH_ANY, "x", "y"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct outcome o =
		    run(rows[i].type, rows[i].server, rows[i].client, NULL, NULL);

		assert_int_equal(o.server, AUTH_DONE);
		assert_int_equal(o.client, AUTH_DONE);
		assert_int_equal(o.fault, 0);
	}
}

/* Wrong, unknown and unfit secrets fail with the same number of messages and the same
 * fault; only the reason in the log differs. */
static void
wrong_passwords_fail_alike(void **state)
{
	static const struct {
		enum auth_type type;
		const char *server, *reason;
		int messages;
	} rows[] = {
	    {AUTH_PLAIN, "pencil", "the password does not match", 2},
	    {AUTH_PLAIN, MD5_OF_OLD, "the password does not match", 2},
	    {AUTH_PLAIN, VERIFIER, "the password does not match", 2},
	    {AUTH_PLAIN, NULL, "there is no such login, or it has no password", 2},
	    {AUTH_PLAIN, "SCRAM-SHA-256$x", "the stored SCRAM verifier is malformed", 2},
	    {AUTH_MD5, "pencil", "the password does not match", 2},
	    {AUTH_MD5, MD5_OF_OLD, "the password does not match", 2},
	    {AUTH_MD5, "", "there is no such login, or it has no password", 2},
	    {AUTH_MD5, VERIFIER, "the password does not match", 4},
	    {AUTH_SCRAM, VERIFIER, "the password does not match", 4},
	    {AUTH_SCRAM, "pencil", "the password does not match", 4},
	    {AUTH_SCRAM, NULL, "there is no such login, or it has no password", 4},
	    {AUTH_SCRAM, MD5_OF_OLD,
		"the stored secret is an md5 hash, which does not serve SCRAM", 4},
	    {AUTH_SCRAM, VERIFIER "x", "the stored SCRAM verifier is malformed", 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct outcome o =
		    run(rows[i].type, rows[i].server, "eraser", NULL, NULL);

		assert_int_equal(o.server, AUTH_FAIL);
		assert_int_equal(o.client, AUTH_SEND);
		assert_int_equal(o.fault, F_AUTH_PASSWORD);
		assert_int_equal(o.messages, rows[i].messages);
		assert_string_equal(o.reason, rows[i].reason);
	}
	/* A login without a password is not let in with an empty one. */
	assert_int_equal(run(AUTH_MD5, "", "", NULL, NULL).client, AUTH_FAIL);
}

static void
types_without_passwords_are_refused(void **state)
{
	struct outcome o = run(AUTH_CERT, "pencil", "pencil", NULL, NULL);

	(void)state;
	assert_int_equal(o.server, AUTH_FAIL);
	assert_string_equal(o.reason, "this authentication type asks for no password");
	assert_int_equal(run(AUTH_HBA, NULL, NULL, NULL, NULL).server, AUTH_FAIL);
	assert_string_equal(auth_server_reason(NULL), "no password was asked for");
	assert_null(auth_server_password(NULL));
	auth_server_free(NULL);
	auth_client_free(NULL);
}

static void
secrets_that_cannot_log_in(void **state)
{
	static const struct {
		enum auth_type type;
		const char *client, *why;
	} rows[] = {
	    {AUTH_PLAIN, NULL, "no password is known for role \"old\""},
	    {AUTH_MD5, NULL, "no password is known for role \"old\""},
	    {AUTH_SCRAM, NULL, "no password is known for role \"old\""},
	    {AUTH_PLAIN, MD5_OF_OLD,
		"the server asks for a password in clear, and only an md5 hash is known for role \"old\""},
	    {AUTH_SCRAM, MD5_OF_OLD,
		"the server asks for a SCRAM-SHA-256 login, and only an md5 hash is known for role \"old\""},
	    {AUTH_MD5, VERIFIER,
		"the server asks for an md5 password, and only a SCRAM verifier is known for role \"old\""},
	    {AUTH_SCRAM, VERIFIER,
		"the server asks for a SCRAM-SHA-256 login, and only a SCRAM verifier is known for role \"old\""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct outcome o =
		    run(rows[i].type, "pencil", rows[i].client, NULL, NULL);

		assert_int_equal(o.client, AUTH_FAIL);
		assert_int_equal(o.messages, 0);
		assert_string_equal(o.why, rows[i].why);
	}
}

/* What a client's login shows logs in at a server that has the same verifier. */
static void
keys_pass_through(void **state)
{
	struct auth_keys keys;
	struct outcome o = run(AUTH_SCRAM, VERIFIER, "pencil", NULL, &keys);
	char *other = auth_make_verifier("pencil", 4096);

	(void)state;
	assert_int_equal(o.server, AUTH_DONE);
	o = run(AUTH_SCRAM, VERIFIER, VERIFIER, &keys, NULL);
	assert_int_equal(o.server, AUTH_DONE);
	assert_int_equal(o.client, AUTH_DONE);
	o = run(AUTH_SCRAM, other, VERIFIER, &keys, NULL);
	assert_int_equal(o.client, AUTH_FAIL);
	assert_string_equal(
	    o.why, "the server's SCRAM verifier differs from the one known");
	o = run(AUTH_SCRAM, other, "pencil", NULL, NULL);
	assert_int_equal(o.server, AUTH_DONE);
	free(other);
}

/* ---- logins bound to a certificate ---- */

/* How a login goes between two that know these hashes of the server's certificate ("": none).
 * hides: somebody between them keeps the mechanism with binding from the client. */
static struct outcome
run_bound(const char *server_hash, const char *client_hash, bool hides)
{
	struct auth_client *c = auth_client_create("old", "pencil");
	struct auth_binding ours = {.len = strlen(server_hash)},
			    theirs = {.len = strlen(client_hash)};
	static const char *const less[] = {SCRAM_MECHANISM};
	struct outcome o = {.client = AUTH_SEND};
	struct auth_server *s;
	struct buf said = {0};

	memcpy(ours.data, server_hash, ours.len);
	memcpy(theirs.data, client_hash, theirs.len);
	auth_client_bind(c, &theirs);
	o.server = auth_server_start_bound(&s, AUTH_SCRAM, "old", VERIFIER, &ours, &said);
	if (hides) {
		buf_free(&said);
		proto_auth_sasl(&said, less, 1);
	}
	while (o.server == AUTH_SEND && o.client == AUTH_SEND)
		one_turn(s, c, &said, &o);
	if (o.server == AUTH_DONE && said.len > 0)
		one_turn(s, c, &said, &o);
	if (o.server == AUTH_DONE && o.client == AUTH_SEND)
		o.client = auth_client_feed(c, 0, NULL, 0, &said, o.why, sizeof(o.why));
	auth_server_free(s);
	auth_client_free(c);
	buf_free(&said);
	return (o);
}

static void
logins_are_bound_to_certificates(void **state)
{
	static const char *const hash = "of the certificate of the server";
	struct outcome o = run_bound(hash, hash, false);

	(void)state;
	assert_int_equal(o.server, AUTH_DONE);
	assert_int_equal(o.client, AUTH_DONE);
	/* One side cannot. */
	assert_int_equal(run_bound("", hash, false).client, AUTH_DONE);
	assert_int_equal(run_bound(hash, "", false).client, AUTH_DONE);
	/* Somebody between, with a certificate of his own, or who hides what is offered. */
	o = run_bound(hash, "of another one, by another party", false);
	assert_int_equal(o.server, AUTH_FAIL);
	assert_int_equal(o.fault, F_AUTH_BINDING);
	o = run_bound(hash, hash, true);
	assert_int_equal(o.server, AUTH_FAIL);
	assert_int_equal(o.fault, F_AUTH_NO_BINDING);
	assert_int_equal(run_bound(hash, "", true).client, AUTH_DONE);
}

/* client-first that does not go with the mechanism. */
static void
flags_go_with_mechanisms(void **state)
{
	static const struct {
		const char *mechanism, *first;
		int fault;
	} rows[] = {
	    {SCRAM_PLUS, SCRAM_BOUND "n=,r=abc", 0},
	    {SCRAM_PLUS, "n,,n=,r=abc", F_AUTH_PROTOCOL},
	    {SCRAM_PLUS, "y,,n=,r=abc", F_AUTH_PROTOCOL},
	    {SCRAM_PLUS, "p=tls-unique,,n=,r=abc", F_AUTH_PROTOCOL},
	    {SCRAM_PLUS, "p=tls-server-end-poinT,,n=,r=abc", F_AUTH_PROTOCOL},
	    {SCRAM_PLUS, "p=tls-server-end-point,a=x,n=,r=abc", F_AUTH_PROTOCOL},
	    {SCRAM_PLUS, "p=tls-server-end-point,", F_AUTH_PROTOCOL},
	    {SCRAM_PLUS, "p=", F_AUTH_PROTOCOL},
	    {SCRAM_MECHANISM, SCRAM_BOUND "n=,r=abc", F_AUTH_PROTOCOL},
	    {SCRAM_MECHANISM, "y,,n=,r=abc", F_AUTH_NO_BINDING},
	    {SCRAM_MECHANISM, "n,,n=,r=abc", 0},
	};
	struct auth_binding binding = {.data = "hash", .len = 32};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf out = {0}, message = {0};
		struct auth_server *s;
		int fault = 0;
		enum auth_step step;

		assert_int_equal(auth_server_start_bound(
				     &s, AUTH_SCRAM, "old", VERIFIER, &binding, &out),
		    AUTH_SEND);
		proto_sasl_initial(
		    &message, rows[i].mechanism, rows[i].first, strlen(rows[i].first));
		step = auth_server_feed(
		    s, message.mem + PROTO_HEAD, message.len - PROTO_HEAD, &out, &fault);
		assert_int_equal(step, rows[i].fault == 0 ? AUTH_SEND : AUTH_FAIL);
		if (rows[i].fault != 0)
			assert_int_equal(fault, rows[i].fault);
		auth_server_free(s);
		buf_free(&out);
		buf_free(&message);
	}
}

/* Both secrets of a login open it, the server proves itself to either, and what is shown of
 * the client is that of its own. */
static void
former_secrets_open(void **state)
{
	static const enum auth_type types[] = {AUTH_SCRAM, AUTH_PLAIN, AUTH_MD5};
	char *now = auth_make_verifier_like("new", VERIFIER);
	struct auth_keys keys;
	struct outcome o;

	(void)state;
	assert_memory_equal(now, VERIFIER, strlen("SCRAM-SHA-256$4096:") + 25);
	former = VERIFIER;
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		assert_int_equal(run(types[i], now, "new", NULL, NULL).client, AUTH_DONE);
		o = run(types[i], now, "pencil", NULL, NULL);
		assert_int_equal(o.server, AUTH_DONE);
		assert_int_equal(o.client, AUTH_DONE);
		o = run(types[i], now, "eraser", NULL, NULL);
		assert_int_equal(o.server, AUTH_FAIL);
		assert_int_equal(o.fault, F_AUTH_PASSWORD);
		assert_string_equal(o.reason, "the password does not match");
	}
	o = run(AUTH_SCRAM, now, "pencil", NULL, &keys);
	former = NULL;
	assert_int_equal(
	    run(AUTH_SCRAM, VERIFIER, VERIFIER, &keys, NULL).client, AUTH_DONE);
	assert_int_equal(run(AUTH_SCRAM, now, "pencil", NULL, NULL).server, AUTH_FAIL);
	free(now);
	assert_null(auth_make_verifier_like("new", "SCRAM-SHA-256$4096:x"));
	assert_null(auth_make_verifier_like("new", "pencil"));
}

/* One that does not fit opens nothing: another salt, other iterations, no verifier, a login
 * that cannot succeed. */
static void
former_secrets_that_do_not_fit(void **state)
{
	char *other_salt = auth_make_verifier("other", 4096);
	const char *const wrong[] = {other_salt, "other", "", NULL,
	    "SCRAM-SHA-256$1:RNi54NwhTPuT3CAZ5o/cPA==$"
	    "v+qAjKhyD3WWEUh2vDEz8ZObRwAnUiuIyKp42n+Mq44=:"
	    "5vxMRBKU/KCbX9oW43yZ8+c/wRt8pn9Po0DcxhUSJ7I="};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		former = wrong[i];
		assert_int_equal(
		    run(AUTH_SCRAM, VERIFIER, "other", NULL, NULL).server, AUTH_FAIL);
		assert_int_equal(
		    run(AUTH_SCRAM, VERIFIER, "pencil", NULL, NULL).client, AUTH_DONE);
		assert_int_equal(
		    run(AUTH_PLAIN, VERIFIER, "other", NULL, NULL).server, AUTH_FAIL);
	}
	former = VERIFIER;
	assert_int_equal(run(AUTH_SCRAM, NULL, "pencil", NULL, NULL).server, AUTH_FAIL);
	assert_int_equal(
	    run(AUTH_SCRAM, MD5_OF_OLD, "pencil", NULL, NULL).server, AUTH_FAIL);
	assert_int_equal(run(AUTH_PLAIN, NULL, "pencil", NULL, NULL).server, AUTH_FAIL);
	assert_int_equal(run(AUTH_PLAIN, "x", "pencil", NULL, NULL).server, AUTH_FAIL);
	former = NULL;
	free(other_salt);
}

/* ---- a client that is wrong ---- */

/* Starts SCRAM for a login and feeds client-first; the step, and server-first. */
static enum auth_step
feed_first(struct auth_server **s, const char *secret, const char *mechanism,
    const char *first, struct buf *out, int *fault)
{
	struct buf message = {0};
	enum auth_step step;

	assert_int_equal(auth_server_start(s, AUTH_SCRAM, "old", secret, out), AUTH_SEND);
	buf_free(out);
	proto_sasl_initial(&message, mechanism, first, first == NULL ? 0 : strlen(first));
	step = auth_server_feed(
	    *s, message.mem + PROTO_HEAD, message.len - PROTO_HEAD, out, fault);
	buf_free(&message);
	return (step);
}

static void
first_messages(void **state)
{
	static const char *const good[] = {
	    "n,,n=,r=abc", "y,,n=x,r=abc", "n,,n=,r=abc,x=y"};
	static const char *const bad[] = {"", "n", "n,", "n,,", "x,,n=,r=abc",
	    "p=tls-server-end-point,,n=,r=abc", "n,a=bob,n=,r=abc", "n,,m=x,n=,r=abc",
	    "n,,r=abc", "n,,n=,r=", "n,,n=,r=a\x01", "n,,n=,r=abc,", "n,,n=,r=abc,x",
	    "n,,n=,x=abc", "n,,n=,r=abc,1=x"};
	struct auth_server *s;
	struct buf out = {0};
	int fault;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(
		    feed_first(&s, VERIFIER, "SCRAM-SHA-256", good[i], &out, &fault),
		    AUTH_SEND);
		assert_memory_equal(out.mem + PROTO_HEAD + 4, "r=abc", 5);
		auth_server_free(s);
		buf_free(&out);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(
		    feed_first(&s, VERIFIER, "SCRAM-SHA-256", bad[i], &out, &fault),
		    AUTH_FAIL);
		assert_int_equal(fault, F_AUTH_PROTOCOL);
		assert_int_equal(out.len, 0);
		auth_server_free(s);
	}
	assert_int_equal(
	    feed_first(&s, VERIFIER, "SCRAM-SHA-256-PLUS", good[0], &out, &fault),
	    AUTH_FAIL);
	assert_int_equal(fault, F_AUTH_PROTOCOL);
	auth_server_free(s);
	assert_int_equal(
	    feed_first(&s, VERIFIER, "SCRAM-SHA-256", NULL, &out, &fault), AUTH_FAIL);
	/* A login that failed stays so. */
	assert_int_equal(
	    auth_server_feed(s, (const uint8_t *)"x", 1, &out, &fault), AUTH_FAIL);
	assert_int_equal(fault, F_AUTH_PROTOCOL);
	auth_server_free(s);
}

/* Feeds a client-final in which %s is the nonce that the server gave. */
static int
feed_final(const char *format)
{
	struct auth_server *s;
	struct buf out = {0}, message = {0};
	char nonce[3 + BASE64_SIZE(NONCE_SIZE) + 1];
	const char *hole = strstr(format, "%s");
	int fault;

	assert_int_equal(
	    feed_first(&s, VERIFIER, "SCRAM-SHA-256", "n,,n=,r=abc", &out, &fault),
	    AUTH_SEND);
	memcpy(nonce, out.mem + PROTO_HEAD + 4 + 2, sizeof(nonce) - 1);
	nonce[sizeof(nonce) - 1] = '\0';
	buf_free(&out);
	buf_add(
	    &message, format, hole == NULL ? strlen(format) : (size_t)(hole - format));
	if (hole != NULL) {
		buf_addstr(&message, nonce);
		buf_addstr(&message, hole + 2);
	}
	assert_int_equal(
	    auth_server_feed(s, message.mem, message.len, &out, &fault), AUTH_FAIL);
	assert_int_equal(out.len, 0);
	buf_free(&message);
	auth_server_free(s);
	return (fault);
}

static void
final_messages(void **state)
{
#define PROOF "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	static const char *const bad[] = {"", "c=biws", "c=biws,r=%s", "c=biws,r=%s,",
	    "c=eSws,r=%s,p=" PROOF, "c=,r=%s,p=" PROOF, "c=biws,r=abc,p=" PROOF,
	    "c=biws,r=%sx,p=" PROOF, "c=biws,r=%s,p=", "c=biws,r=%s,p=AAAA",
	    "c=biws,r=%s,p=" PROOF "AAAA", "c=biws,r=%s,p=" PROOF ",x=y",
	    "c=biws,r=%s,p=" PROOF ",", "r=%s,c=biws,p=" PROOF};

	(void)state;
	assert_int_equal(feed_final("c=biws,r=%s,p=" PROOF), F_AUTH_PASSWORD);
	assert_int_equal(feed_final("c=biws,r=%s,x=y,p=" PROOF), F_AUTH_PASSWORD);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(feed_final(bad[i]), F_AUTH_PROTOCOL);
}

static void
password_messages(void **state)
{
	static const struct {
		const char *body;
		size_t len;
		int fault;
	} rows[] = {{"pencil", 6, F_AUTH_PROTOCOL}, {"", 0, F_AUTH_PROTOCOL},
	    {"", 1, F_AUTH_PASSWORD}, {"pen\0cil", 8, F_AUTH_PROTOCOL}, {"pencil", 7, 0}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct auth_server *s;
		struct buf out = {0};
		int fault;

		assert_int_equal(
		    auth_server_start(&s, AUTH_PLAIN, "old", "pencil", &out), AUTH_SEND);
		assert_int_equal(auth_server_feed(s, (const uint8_t *)rows[i].body,
				     rows[i].len, &out, &fault),
		    rows[i].fault == 0 ? AUTH_DONE : AUTH_FAIL);
		assert_int_equal(fault, rows[i].fault);
		auth_server_free(s);
		buf_free(&out);
	}
}

/* The salt shown for a login, whether it exists or not. */
static void
salt_of(const char *login, const char *secret, char *salt, size_t size)
{
	struct auth_server *s;
	struct buf out = {0}, message = {0};
	const char *at;
	int fault;

	assert_int_equal(
	    auth_server_start(&s, AUTH_SCRAM, login, secret, &out), AUTH_SEND);
	buf_free(&out);
	proto_sasl_initial(&message, "SCRAM-SHA-256", "n,,n=,r=abc", 11);
	assert_int_equal(auth_server_feed(s, message.mem + PROTO_HEAD,
			     message.len - PROTO_HEAD, &out, &fault),
	    AUTH_SEND);
	buf_add(&out, "", 1);
	at = strstr((char *)out.mem + PROTO_HEAD + 4, ",s=");
	assert_non_null(at);
	assert_non_null(strstr(at, ",i=4096"));
	text_copy(salt, size, at + 3);
	buf_free(&out);
	buf_free(&message);
	auth_server_free(s);
}

static void
unknown_logins_have_steady_salts(void **state)
{
	char one[64], again[64], two[64], plain[64];

	(void)state;
	salt_of("ghost", NULL, one, sizeof(one));
	salt_of("ghost", NULL, again, sizeof(again));
	salt_of("spirit", NULL, two, sizeof(two));
	salt_of("ghost", "pencil", plain, sizeof(plain));
	assert_string_equal(one, again);
	assert_string_equal(one, plain); /* also when a plain password is given to it */
	assert_string_not_equal(one, two);
	assert_int_equal(strlen(one), 24 + strlen(",i=4096"));
	/* scram_iterations: of what is not hashed yet, for exchanges that begin now. */
	auth_set_iterations(40960);
	salt_of("ghost", NULL, again, sizeof(again));
	salt_of("ghost", "pencil", plain, sizeof(plain));
	auth_set_iterations(4096);
	assert_non_null(strstr(again, ",i=40960"));
	assert_string_equal(again, plain);
}

/* ---- a server that is wrong ---- */

/* A client in the middle of SCRAM, its nonce, and why it gave up. */
struct half {
	struct auth_client *c;
	char nonce[BASE64_SIZE(NONCE_SIZE) + 1];
	char why[160];
};

static struct half
half_way(void)
{
	struct half h = {auth_client_create("old", "pencil"), "", ""};
	struct buf out = {0};

	assert_int_equal(auth_client_feed(h.c, 10, (const uint8_t *)"X\0SCRAM-SHA-256\0",
			     17, &out, h.why, sizeof(h.why)),
	    AUTH_SEND);
	text_copy(h.nonce, sizeof(h.nonce), "");
	memcpy(h.nonce, out.mem + out.len - (sizeof(h.nonce) - 1), sizeof(h.nonce) - 1);
	buf_free(&out);
	return (h);
}

static enum auth_step
say(struct half *h, uint32_t code, const char *text)
{
	struct buf out = {0};
	enum auth_step step = auth_client_feed(h->c, code, (const uint8_t *)text,
	    strlen(text), &out, h->why, sizeof(h->why));

	assert_true(step == AUTH_SEND || out.len == 0);
	buf_free(&out);
	return (step);
}

/* What a client makes of a server-first that begins with its nonce (or not). */
static void
expect_first(bool with_nonce, const char *rest, const char *why)
{
	struct half h = half_way();
	struct buf text = {0};

	buf_addf(
	    &text, "%s%s%s", with_nonce ? "r=" : "", with_nonce ? h.nonce : "", rest);
	buf_add(&text, "", 1);
	assert_int_equal(
	    say(&h, 11, (char *)text.mem), why == NULL ? AUTH_SEND : AUTH_FAIL);
	assert_string_equal(h.why, why == NULL ? "" : why);
	buf_free(&text);
	auth_client_free(h.c);
}

static void
server_first_messages(void **state)
{
	static const char malformed[] = "malformed SCRAM message from the server";
	static const char nonce[] = "the server's SCRAM nonce does not continue ours";
	static const char salt[] =
	    "the server's SCRAM salt is malformed, empty or too long";
	static const char count[] =
	    "the server's SCRAM iteration count is not from 1 to 10000000";
	char *long_salt = mem_alloc(2001);

	(void)state;
	expect_first(true, "abc,s=AAAA,i=1", NULL);
	expect_first(true, ",s=AAAA,i=1", nonce);
	expect_first(false, "r=abc,s=AAAA,i=1", nonce);
	expect_first(false, "m=x,r=abc,s=AAAA,i=1",
	    "the server requires an extension of SCRAM, which is not supported");
	expect_first(false, "", malformed);
	expect_first(true, "abc", malformed);
	expect_first(true, "abc,s=AAAA", malformed);
	expect_first(true, "abc,s=AAAA,i=1,", malformed);
	expect_first(true, "abc,s=AAAA,i=1,x=y", malformed);
	expect_first(true, "abc,s=,i=1", salt);
	expect_first(true, "abc,s=A,i=1", salt);
	expect_first(true, "abc,s=AAAA,i=0", count);
	expect_first(true, "abc,s=AAAA,i=", count);
	expect_first(true, "abc,s=AAAA,i=-1", count);
	expect_first(true, "abc,s=AAAA,i=10000001", count);
	expect_first(true, "abc,s=AAAA,i=99999999999999999999999999", count);
	memset(long_salt, 'A', 2000);
	memcpy(long_salt, "abc,s=", 6);
	memcpy(long_salt + 6 + 1368, ",i=1", 5); /* 1,026 bytes */
	expect_first(true, long_salt, salt);
	memset(long_salt + 6 + 1368, 'A', 4);
	expect_first(true, long_salt, malformed);
	free(long_salt);
}

static void
servers_must_prove_themselves(void **state)
{
	static const char early[] =
	    "the server lets us in before it proved that it knows the password";
	struct half h = half_way();
	char first[80];

	(void)state;
	assert_int_equal(say(&h, 0, ""), AUTH_FAIL);
	assert_string_equal(h.why, early);
	assert_int_equal(say(&h, 0, ""), AUTH_FAIL);
	auth_client_free(h.c);

	for (int i = 0; i < 4; i++) {
		static const char *const ends[] = {"",
		    "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "e=other-error",
		    "v=AAAA"};
		static const char *const whys[] = {early,
		    "the server did not prove that it knows the password",
		    "the server answers with a SCRAM error",
		    "malformed SCRAM message from the server"};

		h = half_way();
		snprintf(first, sizeof(first), "r=%sabc,s=AAAA,i=1", h.nonce);
		assert_int_equal(say(&h, 11, first), AUTH_SEND);
		assert_int_equal(say(&h, i == 0 ? 0 : 12, ends[i]), AUTH_FAIL);
		assert_string_equal(h.why, whys[i]);
		auth_client_free(h.c);
	}
}

static void
requests_out_of_order(void **state)
{
	static const struct {
		uint32_t codes[3];
		const char *data[3];
		const char *why;
	} rows[] = {
	    {{3, 3}, {"", ""},
		"authentication request 3 from the server is out of order"},
	    {{11}, {"r=x"},
		"the server asks for authentication method 11, which is not supported"},
	    {{7}, {""},
		"the server asks for authentication method 7, which is not supported"},
	    {{5}, {"abc"}, "malformed md5 request from the server"},
	    {{5, 10}, {"abcd", ""},
		"authentication request 10 from the server is out of order"},
	    {{10}, {""}, "the server offers no SASL mechanism that we speak"},
	    {{10}, {"SCRAM-SHA-256"},
		"the server offers no SASL mechanism that we speak"},
	    {{3, 0, 0}, {"", "", ""}, "unexpected AuthenticationOk from the server"},
	    {{0}, {"x"}, "unexpected AuthenticationOk from the server"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct half h = {auth_client_create("old", "pencil"), "", ""};
		enum auth_step step = AUTH_SEND;

		for (int n = 0; n < 3 && rows[i].data[n] != NULL; n++) {
			assert_int_not_equal(step, AUTH_FAIL);
			step = say(&h, rows[i].codes[n], rows[i].data[n]);
		}
		assert_int_equal(step, AUTH_FAIL);
		assert_string_equal(h.why, rows[i].why);
		auth_client_free(h.c);
	}
}

/* ---- memory ---- */

/* Keys are found again, the oldest go first, and what is used stays. */
static void
keys_are_remembered(void **state)
{
	struct keys_of of = {"pencil", (const uint8_t *)"salt", 4, 1};
	struct keys keys, found;
	char name[24];

	(void)state;
	assert_false(keys_find(&of, &found));
	keys_get(&of, &keys);
	assert_true(keys_find(&of, &found));
	assert_memory_equal(&keys, &found, sizeof(keys));
	of.iterations = 2;
	assert_false(keys_find(&of, &found));
	of = (struct keys_of){"pencils", (const uint8_t *)"alt", 3, 1};
	assert_false(keys_find(&of, &found));

	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "password %d", i);
		of = (struct keys_of){name, (const uint8_t *)"salt", 4, 1};
		keys_get(&of, &found);
		if (i % 500 == 0) {
			of.password = "pencil";
			assert_true(keys_find(&of, &found));
		}
	}
	of.password = "password 2999";
	assert_true(keys_find(&of, &found));
	of.password = "password 1";
	assert_false(keys_find(&of, &found));
	of.password = "pencil";
	assert_true(keys_find(&of, &found));
	assert_memory_equal(&keys, &found, sizeof(keys));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(secrets_have_kinds),
	    cmocka_unit_test(base64_has_one_spelling),
	    cmocka_unit_test(digests_have_known_values),
	    cmocka_unit_test(verifiers_are_postgresqls),
	    cmocka_unit_test(malformed_verifiers_are_refused),
	    cmocka_unit_test(rfc_7677_example),
	    cmocka_unit_test(right_passwords_pass),
	    cmocka_unit_test(wrong_passwords_fail_alike),
	    cmocka_unit_test(types_without_passwords_are_refused),
	    cmocka_unit_test(secrets_that_cannot_log_in),
	    cmocka_unit_test(keys_pass_through),
	    cmocka_unit_test(logins_are_bound_to_certificates),
	    cmocka_unit_test(flags_go_with_mechanisms),
	    cmocka_unit_test(former_secrets_open),
	    cmocka_unit_test(former_secrets_that_do_not_fit),
	    cmocka_unit_test(first_messages),
	    cmocka_unit_test(final_messages),
	    cmocka_unit_test(password_messages),
	    cmocka_unit_test(unknown_logins_have_steady_salts),
	    cmocka_unit_test(server_first_messages),
	    cmocka_unit_test(servers_must_prove_themselves),
	    cmocka_unit_test(requests_out_of_order),
	    cmocka_unit_test(keys_are_remembered),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
