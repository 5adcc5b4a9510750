/*
 * The keys that SCRAM makes of a password, a salt and a number of iterations (RFC 5802):
 *
 *     SaltedPassword = PBKDF2(password, salt, iterations)
 *     ClientKey = HMAC(SaltedPassword, "Client Key")     StoredKey = SHA-256(ClientKey)
 *     ServerKey = HMAC(SaltedPassword, "Server Key")
 *
 * At 4096 iterations that takes 1.3 ms, a login without it 0.01: they are remembered.
 */
#ifndef AUTH_KEYS_H
#define AUTH_KEYS_H
#include "digest.h"

#define SALT_MAX       1024 /* bytes we take */
#define ITERATIONS_MAX 10000000
/* More are not done with a password, whoever asks for it: this many take a third of a second, in
 * which a worker serves nobody. */
#define DERIVE_MAX 1000000

struct keys {
	uint8_t client[SHA256_SIZE], stored[SHA256_SIZE], server[SHA256_SIZE];
};
/* What keys are made from; strings belong to the caller. */
struct keys_of {
	const char *password;
	const uint8_t *salt;
	size_t salt_len;
	int iterations;
};

/* Computes them, however long it takes. */
void keys_derive(const struct keys_of *, struct keys *out);
/* Those remembered; false: there are none. */
bool keys_find(const struct keys_of *, struct keys *out) MUST_USE;
void keys_remember(const struct keys_of *, const struct keys *);
/* Those remembered, or derives and remembers them. */
void keys_get(const struct keys_of *, struct keys *out);

/* 32 bytes that stand for `name` as long as the process lives, and that nobody can guess:
 * HMAC under a key drawn at the first call. `use` keeps uses apart. */
void keys_pseudo(const char *use, const char *name, uint8_t out[SHA256_SIZE]);

#endif
