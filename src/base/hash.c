/*
 * SipHash-1-3 (Aumasson and Bernstein, 2012), 64 and 128 bits of output, under a key drawn
 * from the kernel when the process first hashes.
 */
#include "base.h"
#include <pthread.h>
#include <string.h>

static uint64_t key0, key1;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void
key_draw(void)
{
	random_bytes(&key0, sizeof(key0));
	random_bytes(&key1, sizeof(key1));
}

struct sip {
	uint64_t v0, v1, v2, v3;
	uint64_t tail; /* bytes that do not fill a word yet */
	uint64_t total;
};

static inline uint64_t
rotate(uint64_t x, int b)
{
	return (x << b | x >> (64 - b));
}

static inline void
sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v2 = rotate(s->v2, 32);
}

static inline void
sip_word(struct sip *s, uint64_t m)
{
	s->v3 ^= m;
	sip_round(s);
	s->v0 ^= m;
}

static inline void
sip_start(struct sip *s, bool wide)
{
	pthread_once(&key_once, key_draw);
	*s = (struct sip){.v0 = key0 ^ 0x736f6d6570736575ULL,
	    .v1 = key1 ^ 0x646f72616e646f6dULL,
	    .v2 = key0 ^ 0x6c7967656e657261ULL,
	    .v3 = key1 ^ 0x7465646279746573ULL};
	if (wide)
		s->v1 ^= 0xee;
}

static inline void
sip_add(struct sip *s, const uint8_t *p, size_t len)
{
	unsigned have = s->total & 7;
	uint64_t m;

	s->total += len;
	for (; have != 0 && len > 0; p++, len--) {
		s->tail |= (uint64_t)*p << (8 * have);
		have = (have + 1) & 7;
		if (have == 0) {
			sip_word(s, s->tail);
			s->tail = 0;
		}
	}
	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&m, p, 8);
		sip_word(s, m);
	}
	for (unsigned i = have; len > 0; i++, p++, len--)
		s->tail |= (uint64_t)*p << (8 * i);
}

static inline uint64_t
sip_end(struct sip *s, uint64_t xor)
{
	sip_word(s, s->tail | s->total << 56);
	s->v2 ^= xor;
	for (int i = 0; i < 3; i++)
		sip_round(s);
	return (s->v0 ^ s->v1 ^ s->v2 ^ s->v3);
}

uint64_t
hash_bytes(const void *p, size_t len)
{
	struct sip s;

	sip_start(&s, false);
	sip_add(&s, p, len);
	return (sip_end(&s, 0xff));
}

struct hash128
hash_pair(const void *a, size_t alen, const void *b, size_t blen)
{
	struct sip s;
	struct hash128 h;
	uint64_t n = alen;

	sip_start(&s, true);
	sip_add(&s, (const uint8_t *)&n, sizeof(n));
	sip_add(&s, a, alen);
	sip_add(&s, b, blen);
	h.lo = sip_end(&s, 0xee);
	s.v1 ^= 0xdd;
	for (int i = 0; i < 3; i++)
		sip_round(&s);
	h.hi = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	return (h);
}
