/* Base 64 of RFC 4648, with padding and without line ends, as SCRAM writes it. */
#ifndef AUTH_BASE64_H
#define AUTH_BASE64_H
#include "base.h"

/* Characters that n bytes take. */
#define BASE64_SIZE(n) (((n) + 2) / 3 * 4)

/* Writes BASE64_SIZE(len) characters and a NUL. */
void base64_encode(const void *from, size_t len, char *to);
/* Decodes into at most cap bytes. How many there are, or F_AUTH_PROTOCOL: it is not the
 * base 64 of anything, or of more than cap bytes. */
ssize_t base64_decode(const char *from, size_t len, uint8_t *to, size_t cap) MUST_USE;

#endif
