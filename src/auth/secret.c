/*
 * Stored secrets: telling their kinds apart, making and reading SCRAM verifiers, and
 * PostgreSQL's md5 scheme (md5 of password and user; then md5 of that and a salt).
 */
#include <openssl/crypto.h>
#include <string.h>

#include "secret.h"

#define SCRAM_PREFIX "SCRAM-SHA-256$"
#define SALT_SIZE    16 /* bytes, of the verifiers we make; as PostgreSQL's */

enum auth_secret_kind
auth_secret_kind(const char *secret)
{
	if (secret == NULL || *secret == '\0')
		return (SECRET_NONE);
	if (strncmp(secret, SCRAM_PREFIX, strlen(SCRAM_PREFIX)) == 0)
		return (SECRET_SCRAM);
	if (strncmp(secret, "md5", 3) == 0 && strlen(secret) == MD5_SECRET &&
	    strspn(secret + 3, "0123456789abcdef") == MD5_HEX)
		return (SECRET_MD5);
	return (SECRET_PLAIN);
}

int
number_parse(const char *s, size_t len, int max)
{
	int64_t n = 0;

	if (len == 0)
		return (-1);
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return (-1);
		n = n * 10 + (s[i] - '0');
		if (n > max)
			return (-1);
	}
	return ((int)n);
}

/* ---- SCRAM verifiers ---- */

/* The part up to `stop` ('\0': the rest), and *s moved behind it; NULL: it does not end. */
static const char *
take_part(const char **s, char stop, size_t *len)
{
	const char *part = *s, *end = strchr(part, stop);

	if (end == NULL)
		return (NULL);
	*len = (size_t)(end - part);
	*s = stop == '\0' ? end : end + 1;
	return (part);
}

static bool
take_key(const char **s, char stop, uint8_t key[SHA256_SIZE])
{
	size_t len;
	const char *text = take_part(s, stop, &len);

	return (
	    text != NULL && base64_decode(text, len, key, SHA256_SIZE) == SHA256_SIZE);
}

int
verifier_parse(const char *secret, struct verifier *out)
{
	uint8_t salt[SALT_MAX];
	const char *s = secret, *text;
	size_t len;

	if (strncmp(s, SCRAM_PREFIX, strlen(SCRAM_PREFIX)) != 0)
		return (F_AUTH_PROTOCOL);
	s += strlen(SCRAM_PREFIX);
	text = take_part(&s, ':', &len);
	out->iterations = text == NULL ? -1 : number_parse(text, len, ITERATIONS_MAX);
	if (out->iterations <= 0)
		return (F_AUTH_PROTOCOL);
	out->salt = take_part(&s, '$', &out->salt_len);
	if (out->salt == NULL ||
	    base64_decode(out->salt, out->salt_len, salt, sizeof(salt)) <= 0)
		return (F_AUTH_PROTOCOL);
	if (!take_key(&s, ':', out->stored) || !take_key(&s, '\0', out->server))
		return (F_AUTH_PROTOCOL);
	return (0);
}

static char *
make_verifier(const struct keys_of *of, const char *salt64, size_t salt64_len)
{
	char stored64[BASE64_SIZE(SHA256_SIZE) + 1],
	    server64[BASE64_SIZE(SHA256_SIZE) + 1];
	struct keys keys;

	keys_derive(of, &keys);
	base64_encode(keys.stored, sizeof(keys.stored), stored64);
	base64_encode(keys.server, sizeof(keys.server), server64);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return (mem_printf(SCRAM_PREFIX "%d:%.*s$%s:%s", of->iterations, (int)salt64_len,
	    salt64, stored64, server64));
}

char *
auth_make_verifier(const char *password, int iterations)
{
	uint8_t salt[SALT_SIZE];
	char salt64[BASE64_SIZE(SALT_SIZE) + 1];
	struct keys_of of = {password, salt, sizeof(salt), iterations};

	random_bytes(salt, sizeof(salt));
	base64_encode(salt, sizeof(salt), salt64);
	return (make_verifier(&of, salt64, strlen(salt64)));
}

char *
auth_make_verifier_like(const char *password, const char *verifier)
{
	uint8_t salt[SALT_MAX];
	struct keys_of of = {.password = password, .salt = salt};
	struct verifier v;

	if (verifier_parse(verifier, &v) != 0)
		return (NULL);
	of.salt_len = (size_t)base64_decode(v.salt, v.salt_len, salt, sizeof(salt));
	of.iterations = v.iterations;
	return (make_verifier(&of, v.salt, v.salt_len));
}

/* ---- md5 ---- */

bool
md5_secret(const char *password, const char *user, char out[MD5_SECRET + 1])
{
	memcpy(out, "md5", 3);
	return (digest_md5(password, strlen(password), user, strlen(user), out + 3));
}

bool
md5_answer(const char *secret, const uint8_t salt[4], char out[MD5_SECRET + 1])
{
	memcpy(out, "md5", 3);
	return (digest_md5(secret + 3, MD5_HEX, salt, 4, out + 3));
}
