/* SCRAM-SHA-256, the server's side, and the reading of attributes for both. */
#include <string.h>

#include "scram.h"

static bool
is_letter(char c)
{
	return ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
}

bool
scram_take(struct scram_rest *r, char name, const char **value, size_t *len)
{
	const char *comma;

	if (r->end - r->p < 2 || r->p[1] != '=')
		return (false);
	if (name == 0 ? !is_letter(r->p[0]) : r->p[0] != name)
		return (false);
	*value = r->p + 2;
	comma = memchr(*value, ',', (size_t)(r->end - *value));
	*len = (size_t)((comma == NULL ? r->end : comma) - *value);
	r->p = comma == NULL ? r->end : comma + 1;
	return (comma == NULL || r->p < r->end);
}

/* A message that may be read as text: not too long, and without NUL. */
static bool
is_text(const void *data, size_t len)
{
	return (len > 0 && len <= SCRAM_MESSAGE_MAX && memchr(data, '\0', len) == NULL);
}

static bool
is_nonce(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] < 0x21 || s[i] > 0x7E)
			return (false);
	return (len > 0);
}

void
scram_put_binding(struct buf *out, const char *header, const struct auth_binding *binding)
{
	char text[BASE64_SIZE(sizeof(SCRAM_BOUND) + sizeof(binding->data)) + 1];
	struct buf bytes = {0};

	buf_addstr(&bytes, header);
	if (header[0] == 'p')
		buf_add(&bytes, binding->data, binding->len);
	base64_encode(bytes.mem, bytes.len, text);
	buf_addstr(out, text);
	buf_free(&bytes);
}

/* Whether the flag is one that the mechanism goes with, and no lie of somebody between that we
 * offer no binding. */
static const char *
check_flag(struct scram_server *s, char flag)
{
	if (s->is_plus && (flag == 'n' || flag == 'y'))
		return (
		    "the client chose SCRAM-SHA-256-PLUS, but its message has no channel "
		    "binding");
	if (!s->is_plus && flag == 'p')
		return (
		    s->binding.len > 0
			? "the client chose SCRAM-SHA-256, but its message has channel "
			  "binding"
			: "the client asks for channel binding, which was not offered");
	if (flag != 'y' || s->binding.len == 0)
		return (NULL);
	s->fault = F_AUTH_NO_BINDING;
	return ("the client supports channel binding but thinks that it was not offered: "
		"somebody may be between us");
}

/* Reads the header that says how the channel is bound ("n,,"). */
static const char *
read_header(struct scram_server *s, struct scram_rest *r)
{
	static const char *const headers[] = {"n,,", "y,,", SCRAM_BOUND};
	const char *why, *comma;
	size_t len = (size_t)(r->end - r->p);

	if (strchr("nyp", r->p[0]) == NULL || len < 3 ||
	    (r->p[0] != 'p' && r->p[1] != ','))
		return ("malformed SCRAM message: no channel binding flag");
	why = check_flag(s, r->p[0]);
	if (why != NULL)
		return (why);
	for (size_t i = 0; i < ARRAY_LEN(headers); i++)
		if (len >= strlen(headers[i]) &&
		    memcmp(r->p, headers[i], strlen(headers[i])) == 0)
			s->header = headers[i];
	if (s->header != NULL) {
		r->p += strlen(s->header);
		return (NULL);
	}
	comma = memchr(r->p, ',', len);
	if (comma == NULL || comma + 1 == r->end)
		return ("malformed SCRAM message: no channel binding flag");
	if (r->p[0] == 'p' && (size_t)(comma - r->p) != strcspn(SCRAM_BOUND, ","))
		return ("the client asks for a type of channel binding that is not "
			"supported");
	if (r->p[0] == 'p' && memcmp(r->p, SCRAM_BOUND, (size_t)(comma - r->p)) != 0)
		return ("the client asks for a type of channel binding that is not "
			"supported");
	if (comma[1] == 'a')
		return (
		    "the client names an authorization identity, which is not supported");
	return ("malformed SCRAM message: unexpected attribute in client-first");
}

const char *
scram_server_first(struct scram_server *s, const void *data, size_t len, const char *salt,
    size_t salt_len, int iterations, struct buf *out)
{
	struct scram_rest r = scram_rest_of(data, len);
	const char *bare, *value, *nonce, *why;
	uint8_t random[NONCE_SIZE];
	char ours[BASE64_SIZE(NONCE_SIZE) + 1];
	size_t value_len, nonce_len;

	if (!is_text(data, len))
		return ("malformed SCRAM message: length or NUL in client-first");
	why = read_header(s, &r);
	if (why != NULL)
		return (why);
	bare = r.p;
	if (r.p < r.end && r.p[0] == 'm')
		return (
		    "the client requires an extension of SCRAM, which is not supported");
	if (!scram_take(&r, 'n', &value, &value_len) ||
	    !scram_take(&r, 'r', &nonce, &nonce_len) || !is_nonce(nonce, nonce_len))
		return ("malformed SCRAM message: name or nonce in client-first");
	while (r.p < r.end) /* extensions that may be ignored */
		if (!scram_take(&r, 0, &value, &value_len))
			return ("malformed SCRAM message: extension in client-first");

	random_bytes(random, sizeof(random));
	base64_encode(random, sizeof(random), ours);
	buf_add(&s->said, bare, (size_t)(r.end - bare));
	buf_addstr(&s->said, ",r=");
	s->nonce_at = s->said.len;
	s->nonce_len = nonce_len + strlen(ours);
	buf_add(&s->said, nonce, nonce_len);
	buf_addf(&s->said, "%s,s=%.*s,i=%d", ours, (int)salt_len, salt, iterations);
	buf_add(out, s->said.mem + s->nonce_at - 2, s->said.len - s->nonce_at + 2);
	return (NULL);
}

/* Whether the proof is that of these keys: then ClientKey is known, since its hash is
 * StoredKey. */
static bool
is_proof_of(
    const struct scram_server *s, const uint8_t proof[SHA256_SIZE], struct keys *keys)
{
	uint8_t hash[SHA256_SIZE];

	digest_hmac(keys->stored, SHA256_SIZE, s->said.mem, s->said.len, keys->client);
	for (size_t i = 0; i < SHA256_SIZE; i++)
		keys->client[i] ^= proof[i];
	digest_sha256(keys->client, SHA256_SIZE, hash);
	return (same_secret(hash, keys->stored, SHA256_SIZE));
}

/* Whether it is that of either: where there are two, both are tried whatever the first says, and
 * the right one is taken without a branch, so that the time does not tell which. */
static bool
check_proof(struct scram_server *s, const uint8_t proof[SHA256_SIZE])
{
	bool is_now = is_proof_of(s, proof, &s->keys);
	bool is_former = s->has_former && is_proof_of(s, proof, &s->former);
	uint8_t *keys = (uint8_t *)&s->keys, mask = (uint8_t) - (int)is_former;
	const uint8_t *former = (const uint8_t *)&s->former;

	if (!s->has_former)
		return (is_now);
	for (size_t i = 0; i < sizeof(s->keys); i++)
		keys[i] ^= (uint8_t)((keys[i] ^ former[i]) & mask);
	return (is_now | is_former);
}

const char *
scram_server_final(struct scram_server *s, const void *data, size_t len, bool *proved)
{
	struct scram_rest r = scram_rest_of(data, len);
	const char *binding, *nonce, *value, *last;
	size_t binding_len, nonce_len, value_len;
	struct buf expected = {0};
	bool is_bound;
	uint8_t proof[SHA256_SIZE];

	*proved = false;
	if (!is_text(data, len))
		return ("malformed SCRAM message: length or NUL in client-final");
	if (!scram_take(&r, 'c', &binding, &binding_len) ||
	    !scram_take(&r, 'r', &nonce, &nonce_len))
		return ("malformed SCRAM message: binding or nonce in client-final");
	scram_put_binding(&expected, s->header, &s->binding);
	is_bound = binding_len == expected.len &&
		   memcmp(binding, expected.mem, expected.len) == 0;
	buf_free(&expected);
	if (!is_bound) {
		s->fault = s->is_plus ? F_AUTH_BINDING : 0;
		return ("the channel binding of the SCRAM messages does not match");
	}
	if (nonce_len != s->nonce_len ||
	    memcmp(nonce, s->said.mem + s->nonce_at, nonce_len) != 0)
		return ("the nonces of the SCRAM messages do not match");
	do { /* extensions may stand before the proof, nothing behind it */
		last = r.p;
		if (!scram_take(&r, 0, &value, &value_len))
			return ("malformed SCRAM message: no proof in client-final");
	} while (*last != 'p');
	if (r.p != r.end ||
	    base64_decode(value, value_len, proof, sizeof(proof)) != SHA256_SIZE)
		return ("malformed SCRAM message: proof in client-final");
	buf_addstr(&s->said, ",");
	buf_add(&s->said, data, (size_t)(last - 1 - (const char *)data));
	*proved = check_proof(s, proof);
	return (NULL);
}

void
scram_server_proof(const struct scram_server *s, struct buf *out)
{
	uint8_t signature[SHA256_SIZE];
	char text[BASE64_SIZE(SHA256_SIZE) + 1];

	digest_hmac(s->keys.server, SHA256_SIZE, s->said.mem, s->said.len, signature);
	base64_encode(signature, sizeof(signature), text);
	buf_addstr(out, "v=");
	buf_addstr(out, text);
}

void
scram_server_free(struct scram_server *s)
{
	buf_free(&s->said);
	explicit_bzero(s, sizeof(*s));
}
