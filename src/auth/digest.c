/*
 * SHA-256, HMAC-SHA-256 and MD5 over OpenSSL's digests.
 *
 * HMAC is written out here (RFC 2104) because it is the cheapest way to have it: 0.4 µs for
 * a SCRAM message against 0.6 with a context of EVP_MAC that is kept and 1.7 with HMAC().
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

#include "digest.h"

#define BLOCK 64 /* bytes of a block of SHA-256 */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256, *md5;      /* as long as the process lives; md5 may be NULL */
static pthread_key_t context_key; /* frees the context of a thread that ends */
static _Thread_local EVP_MD_CTX *context;

static void
context_free(void *p)
{
	EVP_MD_CTX_free(p);
}

static void
set_up(void)
{
	int rc = pthread_key_create(&context_key, context_free);

	INVARIANT(rc == 0);
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	INVARIANT(sha256 != NULL);
	md5 = EVP_MD_fetch(NULL, "MD5", NULL);
}

static EVP_MD_CTX *
context_get(void)
{
	if (UNLIKELY(context == NULL)) {
		pthread_once(&once, set_up);
		context = EVP_MD_CTX_new();
		INVARIANT(context != NULL);
		pthread_setspecific(context_key, context);
	}
	return (context);
}

/* The digest of a, then b. */
static bool
digest(const EVP_MD *md, const void *a, size_t a_len, const void *b, size_t b_len,
    uint8_t *out)
{
	EVP_MD_CTX *c = context;

	return (
	    EVP_DigestInit_ex2(c, md, NULL) == 1 && EVP_DigestUpdate(c, a, a_len) == 1 &&
	    EVP_DigestUpdate(c, b, b_len) == 1 && EVP_DigestFinal_ex(c, out, NULL) == 1);
}

void
digest_sha256(const void *p, size_t len, uint8_t out[SHA256_SIZE])
{
	bool ok;

	context_get();
	ok = digest(sha256, p, len, NULL, 0, out);
	INVARIANT(ok);
}

void
digest_hmac(
    const void *key, size_t key_len, const void *p, size_t len, uint8_t out[SHA256_SIZE])
{
	uint8_t pad[BLOCK] = {0}, inner[SHA256_SIZE];
	bool ok;

	INVARIANT(key_len <= BLOCK);
	context_get();
	memcpy(pad, key, key_len);
	for (size_t i = 0; i < BLOCK; i++)
		pad[i] ^= 0x36;
	ok = digest(sha256, pad, BLOCK, p, len, inner);
	for (size_t i = 0; i < BLOCK; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	ok = ok && digest(sha256, pad, BLOCK, inner, SHA256_SIZE, out);
	OPENSSL_cleanse(pad, sizeof(pad));
	INVARIANT(ok);
}

bool
digest_md5(
    const void *a, size_t a_len, const void *b, size_t b_len, char out[MD5_HEX + 1])
{
	static const char hex[] = "0123456789abcdef";
	uint8_t sum[MD5_HEX / 2];

	context_get();
	if (md5 == NULL || !digest(md5, a, a_len, b, b_len, sum))
		return (false);
	for (size_t i = 0; i < sizeof(sum); i++) {
		out[2 * i] = hex[sum[i] >> 4];
		out[2 * i + 1] = hex[sum[i] & 15];
	}
	out[MD5_HEX] = '\0';
	return (true);
}
