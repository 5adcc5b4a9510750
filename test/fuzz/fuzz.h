/*
 * What the harnesses share. Each fuzz_NAME.c feeds one parser of outside bytes and checks, with
 * INVARIANT(), what must hold whatever the bytes are. It is linked with libFuzzer
 * (--enable-fuzz), and in every build with replay.c, which runs corpus/NAME through it.
 */
#ifndef FUZZ_H
#define FUZZ_H
#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whether the len bytes at p lie within data. */
static inline bool
is_within(const void *p, size_t len, const uint8_t *data, size_t size)
{
	const uint8_t *at = p;

	return (at >= data && at <= data + size && len <= (size_t)(data + size - at));
}

#endif
