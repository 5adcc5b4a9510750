/*
 * Base 64. Each value has one spelling here: bits that stand for nothing must be zero, so
 * that a proof cannot be altered on its way without being noticed.
 */
#include <pthread.h>

#include "base64.h"

static const char digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
base64_encode(const void *from, size_t len, char *to)
{
	const uint8_t *p = from;

	for (; len >= 3; len -= 3, p += 3) {
		*to++ = digits[p[0] >> 2];
		*to++ = digits[(p[0] & 3) << 4 | p[1] >> 4];
		*to++ = digits[(p[1] & 15) << 2 | p[2] >> 6];
		*to++ = digits[p[2] & 63];
	}
	if (len > 0) {
		unsigned second = len == 2 ? p[1] : 0;

		*to++ = digits[p[0] >> 2];
		*to++ = digits[(p[0] & 3) << 4 | second >> 4];
		*to++ = len == 2 ? digits[(second & 15) << 2] : '=';
		*to++ = '=';
	}
	*to = '\0';
}

/* One more than the value of a digit; 0: it is none. */
static uint8_t values[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
fill_values(void)
{
	for (uint8_t i = 0; i < 64; i++)
		values[(uint8_t)digits[i]] = i + 1;
}

ssize_t
base64_decode(const char *from, size_t len, uint8_t *to, size_t cap)
{
	size_t padding = 0, size, n = 0;
	uint32_t bits = 0;

	if (len % 4 != 0 || len == 0)
		return (len == 0 ? 0 : F_AUTH_PROTOCOL);
	padding = from[len - 1] != '=' ? 0 : from[len - 2] != '=' ? 1 : 2;
	pthread_once(&once, fill_values);
	size = len / 4 * 3 - padding;
	if (size > cap)
		return (F_AUTH_PROTOCOL);
	for (size_t i = 0; i < len - padding; i++) {
		unsigned v = values[(uint8_t)from[i]];

		if (v == 0)
			return (F_AUTH_PROTOCOL);
		bits = bits << 6 | (v - 1);
		if (i % 4 != 0)
			to[n++] = (uint8_t)(bits >> (6 - i % 4 * 2));
	}
	/* The last digit before padding carries 2 or 4 bits that belong to no byte. */
	if (padding > 0 && (bits & ((1u << padding * 2) - 1)) != 0)
		return (F_AUTH_PROTOCOL);
	INVARIANT(n == size);
	return ((ssize_t)size);
}
