/* What is stored of a password: plain, md5 or a SCRAM verifier. */
#ifndef AUTH_SECRET_H
#define AUTH_SECRET_H
#include "auth.h"
#include "base64.h"
#include "keys.h"

#define MD5_SECRET 35 /* characters of "md5" and the digits */

/* A SCRAM verifier taken apart. */
struct verifier {
	int iterations;
	const char *salt; /* base 64, points into the secret */
	size_t salt_len;
	uint8_t stored[SHA256_SIZE], server[SHA256_SIZE];
};
/* 0, or F_AUTH_PROTOCOL: it is malformed. */
int verifier_parse(const char *secret, struct verifier *out) MUST_USE;

/* The md5 secret of a login: "md5" and the digest of password and user. False: OpenSSL
 * refuses MD5. */
bool md5_secret(
    const char *password, const char *user, char out[MD5_SECRET + 1]) MUST_USE;
/* What a client answers to an md5 request, from the md5 secret. False: as above. */
bool md5_answer(
    const char *md5_secret, const uint8_t salt[4], char out[MD5_SECRET + 1]) MUST_USE;

/* A decimal number of at most max digits' worth, without sign; -1: it is none. */
int number_parse(const char *s, size_t len, int max) MUST_USE;

#endif
