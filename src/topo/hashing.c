/*
 * topo/hashing.c: PostgreSQL's hash of a partition key, so that a row lives on the member that
 * has the partition of its remainder in one database with PARTITION BY HASH.
 *
 *   value -> the type's extended hash (PostgreSQL 11 and later), with a fixed seed
 *         -> combined with the hash of the keys before it, of which there are none: 0
 *
 * The type's hash is Bob Jenkins' lookup3 over 32-bit words, as on little-endian machines. An
 * integer is one word, the same for all widths; text and uuid are their bytes.
 */
#include "inner.h"

#include <string.h>

#define SEED    UINT64_C(0x7A5B22367996DCFD)
#define COMBINE UINT64_C(0x49A0F4DD15E5A8E3)
#define START   0x9E3779B9U
#define SALT    3923095U

struct state {
	uint32_t a, b, c;
};

static uint32_t
rotated(uint32_t x, unsigned by)
{
	return (x << by | x >> (32 - by));
}

static void
mix(struct state *s)
{
	static const unsigned turns[] = {4, 6, 8, 16, 19, 4};
	uint32_t *x[] = {&s->a, &s->b, &s->c};

	for (unsigned i = 0; i < ARRAY_LEN(turns); i++) {
		uint32_t *now = x[i % 3], *next = x[(i + 1) % 3], *last = x[(i + 2) % 3];

		*now = (*now - *last) ^ rotated(*last, turns[i]);
		*last += *next;
	}
}

static uint64_t
finished(struct state *s)
{
	static const unsigned turns[] = {14, 11, 25, 16, 4, 14, 24};
	uint32_t *x[] = {&s->c, &s->a, &s->b};

	for (unsigned i = 0; i < ARRAY_LEN(turns); i++) {
		uint32_t *now = x[i % 3], *last = x[(i + 2) % 3];

		*now = (*now ^ *last) - rotated(*last, turns[i]);
	}
	return ((uint64_t)s->b << 32 | s->c);
}

static struct state
begun(uint32_t len)
{
	uint32_t start = START + len + SALT;
	struct state s = {start, start, start};

	s.a += (uint32_t)(SEED >> 32);
	s.b += (uint32_t)SEED;
	mix(&s);
	return (s);
}

static uint64_t
hash_word(uint32_t word)
{
	struct state s = begun(sizeof(word));

	s.a += word;
	return (finished(&s));
}

/* Up to four bytes, the first the lowest. */
static uint32_t
word_of(const uint8_t *p, size_t len)
{
	uint32_t word = 0;

	for (size_t i = 0; i < len && i < 4; i++)
		word |= (uint32_t)p[i] << (8 * i);
	return (word);
}

static uint64_t
hash_text(const uint8_t *p, size_t len)
{
	struct state s = begun((uint32_t)len);

	for (; len >= 12; p += 12, len -= 12) {
		s.a += word_of(p, 4);
		s.b += word_of(p + 4, 4);
		s.c += word_of(p + 8, 4);
		mix(&s);
	}
	s.a += word_of(p, len);
	if (len > 4)
		s.b += word_of(p + 4, len - 4);
	/* The lowest byte of c is left to the length. */
	if (len > 8)
		s.c += word_of(p + 8, len - 8) << 8;
	return (finished(&s));
}

/* The halves are folded so that an integer has one hash in all widths. */
static uint64_t
hash_integer(int64_t number)
{
	uint32_t low = (uint32_t)number, high = (uint32_t)((uint64_t)number >> 32);

	return (hash_word(low ^ (number >= 0 ? high : ~high)));
}

uint64_t
shard_hash(enum topo_shard_type type, const struct topo_shard_value *v)
{
	uint64_t hash = 0;

	switch (type) {
	case TOPO_SHARD_INTEGER:
	case TOPO_SHARD_BIGINT:
		hash = hash_integer(v->number);
		break;
	case TOPO_SHARD_TEXT:
	case TOPO_SHARD_CHAR:
	case TOPO_SHARD_UUID:
		hash = hash_text(v->p, v->len);
		break;
	}
	return (hash + COMBINE);
}
