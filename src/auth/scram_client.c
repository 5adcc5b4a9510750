/* SCRAM-SHA-256, the client's side. */
#include <openssl/crypto.h>
#include <string.h>

#include "scram.h"

#define BARE_NONCE 5 /* where the nonce stands in "n=,r=NONCE" */

void
scram_client_first(struct scram_client *c, bool offers_plus, struct buf *out)
{
	uint8_t random[NONCE_SIZE];
	char nonce[BASE64_SIZE(NONCE_SIZE) + 1];

	random_bytes(random, sizeof(random));
	base64_encode(random, sizeof(random), nonce);
	buf_addstr(&c->said, "n=,r=");
	INVARIANT(c->said.len == BARE_NONCE);
	buf_addstr(&c->said, nonce);
	c->header = scram_client_binds(c, offers_plus) ? SCRAM_BOUND
		    : c->binding.len > 0               ? "y,,"
						       : "n,,";
	buf_addstr(out, c->header);
	buf_add(out, c->said.mem, c->said.len);
}

const char *
scram_client_read(
    struct scram_client *c, const void *data, size_t len, struct scram_offer *offer)
{
	struct scram_rest r = scram_rest_of(data, len);
	size_t ours = c->said.len - BARE_NONCE, salt_len, number_len;
	const char *salt, *number;
	ssize_t n;

	if (len > 0 && r.p[0] == 'm')
		return (
		    "the server requires an extension of SCRAM, which is not supported");
	if (len > SCRAM_MESSAGE_MAX ||
	    !scram_take(&r, 'r', &offer->nonce, &offer->nonce_len) ||
	    !scram_take(&r, 's', &salt, &salt_len) ||
	    !scram_take(&r, 'i', &number, &number_len) || r.p != r.end)
		return ("malformed SCRAM message from the server");
	if (offer->nonce_len <= ours ||
	    memcmp(offer->nonce, c->said.mem + BARE_NONCE, ours) != 0)
		return ("the server's SCRAM nonce does not continue ours");
	n = base64_decode(salt, salt_len, offer->salt, sizeof(offer->salt));
	if (n <= 0)
		return ("the server's SCRAM salt is malformed, empty or too long");
	offer->salt_len = (size_t)n;
	offer->iterations = number_parse(number, number_len, ITERATIONS_MAX);
	if (offer->iterations <= 0)
		return ("the server's SCRAM iteration count is not from 1 to 10000000");
	buf_addstr(&c->said, ",");
	buf_add(&c->said, data, len);
	return (NULL);
}

void
scram_client_final(struct scram_client *c, const struct scram_offer *offer,
    const struct keys *keys, struct buf *out)
{
	uint8_t proof[SHA256_SIZE];
	char text[BASE64_SIZE(SHA256_SIZE) + 1];
	size_t from;

	buf_addstr(&c->said, ",");
	from = c->said.len;
	buf_addstr(&c->said, "c=");
	scram_put_binding(&c->said, c->header, &c->binding);
	buf_addstr(&c->said, ",r=");
	buf_add(&c->said, offer->nonce, offer->nonce_len);
	digest_hmac(keys->stored, SHA256_SIZE, c->said.mem, c->said.len, proof);
	for (size_t i = 0; i < SHA256_SIZE; i++)
		proof[i] ^= keys->client[i];
	digest_hmac(keys->server, SHA256_SIZE, c->said.mem, c->said.len, c->signature);
	base64_encode(proof, sizeof(proof), text);
	buf_add(out, c->said.mem + from, c->said.len - from);
	buf_addstr(out, ",p=");
	buf_addstr(out, text);
}

const char *
scram_client_check(const struct scram_client *c, const void *data, size_t len)
{
	struct scram_rest r = scram_rest_of(data, len);
	uint8_t signature[SHA256_SIZE];
	const char *value;
	size_t value_len;

	if (len > 0 && r.p[0] == 'e')
		return ("the server answers with a SCRAM error");
	if (!scram_take(&r, 'v', &value, &value_len) || r.p != r.end ||
	    base64_decode(value, value_len, signature, sizeof(signature)) != SHA256_SIZE)
		return ("malformed SCRAM message from the server");
	if (!same_secret(signature, c->signature, SHA256_SIZE))
		return ("the server did not prove that it knows the password");
	return (NULL);
}

void
scram_client_free(struct scram_client *c)
{
	buf_free(&c->said);
	OPENSSL_cleanse(c, sizeof(*c));
}
