/*
 * SHA-256, HMAC-SHA-256 and MD5, each thread with a context of its own that is made once:
 * to make one per call costs more than the hashing does.
 */
#ifndef AUTH_DIGEST_H
#define AUTH_DIGEST_H
#include "base.h"

#define SHA256_SIZE 32
#define MD5_HEX     32 /* characters */

void digest_sha256(const void *p, size_t len, uint8_t out[SHA256_SIZE]);
/* key: of at most 64 bytes. */
void digest_hmac(
    const void *key, size_t key_len, const void *p, size_t len, uint8_t out[SHA256_SIZE]);
/* MD5 over a, then b, in lower-case hex digits with a NUL. False: OpenSSL was set up to
 * refuse MD5. */
bool digest_md5(const void *a, size_t a_len, const void *b, size_t b_len,
    char out[MD5_HEX + 1]) MUST_USE;

#endif
