/*
 * How a message is written: its size is known first, so room is taken once and the bytes
 * are put one after another. put_* answer the place behind what they wrote.
 */
#ifndef PROTO_PUT_H
#define PROTO_PUT_H
#include <string.h>

#include "proto.h"

#define PUT_MAX                                                                          \
	0x7ffffff0u /* bytes of a body: the length field is a signed 32-bit number */

static inline uint8_t *
put_bytes(uint8_t *to, const void *from, size_t len)
{
	if (len > 0)
		memcpy(to, from, len);
	return (to + len);
}

/* A string of known length and its NUL. */
static inline uint8_t *
put_str(uint8_t *to, const char *s, size_t len)
{
	to = put_bytes(to, s, len);
	*to = 0;
	return (to + 1);
}

static inline uint8_t *
put_16(uint8_t *to, uint16_t v)
{
	to[0] = (uint8_t)(v >> 8);
	to[1] = (uint8_t)v;
	return (to + 2);
}

static inline uint8_t *
put_32(uint8_t *to, uint32_t v)
{
	proto_put32(to, v);
	return (to + 4);
}

/* Appends the head of a message and room for its body, which is counted as used and must be
 * filled to the last byte by the caller; answers where the body begins. */
static inline uint8_t *
put_head(struct buf *b, char type, size_t body)
{
	uint8_t *to;

	INVARIANT(body <= PUT_MAX);
	to = buf_room(b, PROTO_HEAD + body);
	b->len += (uint32_t)(PROTO_HEAD + body);
	to[0] = (uint8_t)type;
	proto_put32(to + 1, (uint32_t)body + 4);
	return (to + PROTO_HEAD);
}

/* The same for a packet without a type byte. */
static inline uint8_t *
put_packet(struct buf *b, size_t body)
{
	uint8_t *to;

	INVARIANT(body <= PUT_MAX);
	to = buf_room(b, 4 + body);
	b->len += (uint32_t)(4 + body);
	proto_put32(to, (uint32_t)body + 4);
	return (to + 4);
}

#endif
