/*
 * number: PostgreSQL's numeric: a sum of any precision, its order, its text and binary form.
 */
#ifndef FEDERATE_NUMBER_H
#define FEDERATE_NUMBER_H
#include "base.h"

enum number_kind { NUMBER_MINUS_INFINITY, NUMBER_FINITE, NUMBER_INFINITY, NUMBER_NAN };

/* Groups of four decimal digits, the most significant first; neither the first nor the last is
 * zero. {.kind = NUMBER_FINITE} is zero. */
struct number {
	enum number_kind kind;
	bool is_negative;
	int weight;      /* of the first group: its value is that times 10000^weight */
	unsigned scale;  /* digits behind the point that are shown */
	uint32_t count;  /* of groups */
	uint16_t *group; /* owned */
};

/* F_NOT_FOUND when the bytes are no numeric. Otherwise number_free() afterwards. */
int number_read(struct number *, const uint8_t *p, size_t len, bool is_binary) MUST_USE;
void number_free(struct number *);
/* Adds to sum; F_FEDERATE_OVERFLOW when the type cannot hold it, and sum is as it was. */
int number_add(struct number *sum, const struct number *) MUST_USE;
/* PostgreSQL's order: NaN equals itself and is greater than all others. */
int number_compare(const struct number *, const struct number *);
void number_write(const struct number *, bool is_binary, struct buf *out);

#endif
