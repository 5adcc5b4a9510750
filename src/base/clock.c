/* Clocks and the kernel's randomness. */
#include "base.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static int64_t
clock_read(clockid_t id)
{
	struct timespec ts;

	INVARIANT(clock_gettime(id, &ts) == 0);
	return ((int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
}

int64_t
clock_us(void)
{
	return (clock_read(CLOCK_MONOTONIC) + 1);
}

int64_t
clock_wall_us(void)
{
	return (clock_read(CLOCK_REALTIME));
}

static void
random_read(uint8_t *at, size_t len)
{
	while (len > 0) {
		ssize_t n = getrandom(at, len, 0);

		INVARIANT(n > 0 || (n < 0 && errno == EINTR));
		if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
}

/* Most callers want a few bytes: one call of the kernel serves many of them. None is given
 * twice, and none stays here that was given. */
void
random_bytes(void *p, size_t len)
{
	static _Thread_local uint8_t store[512];
	static _Thread_local size_t left;

	if (len > sizeof(store) / 8) {
		random_read(p, len);
		return;
	}
	if (left < len) {
		random_read(store, sizeof(store));
		left = sizeof(store);
	}
	left -= len;
	memcpy(p, store + left, len);
	explicit_bzero(store + left, len);
}

bool
same_secret(const void *a, const void *b, size_t len)
{
	return (CRYPTO_memcmp(a, b, len) == 0);
}
