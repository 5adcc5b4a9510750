/*
 * Values of shard keys as numbers: an integer, whatever form it comes in. The column is one of
 * integers; so other numbers matter as far as they are equal to one.
 */
#include "private.h"

#include <math.h>
#include <stdlib.h>
#include <strings.h>

/* PostgreSQL's numeric has no more digits before its point. */
#define EXPONENT_MAX 131072

/* Of pg_type. */
#define OID_INT8    20
#define OID_INT2    21
#define OID_INT4    23
#define OID_FLOAT4  700
#define OID_FLOAT8  701
#define OID_NUMERIC 1700

/* ---- text ---- */

/* A number as PostgreSQL writes it: 12, .5, 1.50e3; its digits are in `digits`, with a point. */
struct decimal {
	const char *digits, *end;
	int exponent;
	bool is_negative;
};

static bool
decimal_read(const char *p, const char *end, struct decimal *out)
{
	unsigned count = 0, points = 0;
	bool is_small;

	*out = (struct decimal){0};
	if (p < end && (*p == '-' || *p == '+'))
		out->is_negative = *p++ == '-';
	out->digits = p;
	for (; p < end && ((*p >= '0' && *p <= '9') || *p == '.'); p++) {
		points += *p == '.';
		count += *p != '.';
	}
	out->end = p;
	if (count == 0 || points > 1)
		return (false);
	if (p == end)
		return (true);
	if (*p != 'e' && *p != 'E')
		return (false);
	p++;
	is_small = p < end && *p == '-';
	p += p < end && (*p == '-' || *p == '+');
	if (p == end)
		return (false);
	for (; p < end && *p >= '0' && *p <= '9'; p++)
		if (out->exponent <= EXPONENT_MAX)
			out->exponent = out->exponent * 10 + (*p - '0');
	if (is_small)
		out->exponent = -out->exponent;
	return (p == end);
}

/* The digits of a number that is made of them from the highest on. */
struct whole {
	uint64_t value;
	bool is_beyond; /* uint64_t */
};

static void
whole_add(struct whole *w, unsigned base, unsigned digit)
{
	w->is_beyond |= __builtin_mul_overflow(w->value, base, &w->value) ||
			__builtin_add_overflow(w->value, digit, &w->value);
}

static int
whole_integer(const struct whole *w, bool is_negative, int64_t *out)
{
	uint64_t most = (uint64_t)INT64_MAX + is_negative;

	if (w->is_beyond || w->value > most)
		return (ROUTE_OUT_OF_RANGE);
	*out = (int64_t)(is_negative ? 0 - w->value : w->value);
	return (ROUTE_VALUE);
}

static int
decimal_integer(const struct decimal *d, int64_t *out)
{
	const char *point = memchr(d->digits, '.', (size_t)(d->end - d->digits));
	ptrdiff_t whole = (point != NULL ? point : d->end) - d->digits + d->exponent;
	struct whole w = {0};

	for (const char *p = d->digits; p < d->end; p++) {
		if (*p == '.')
			continue;
		if (whole-- > 0)
			whole_add(&w, 10, (unsigned)(*p - '0'));
		else if (*p != '0')
			return (ROUTE_NO_INTEGER);
	}
	for (; whole > 0 && w.value > 0 && !w.is_beyond; whole--)
		whole_add(&w, 10, 0);
	return (whole_integer(&w, d->is_negative, out));
}

static bool
is_special(const char *p, const char *end)
{
	static const char *const words[] = {"nan", "infinity", "inf"};

	if (p < end && (*p == '-' || *p == '+'))
		p++;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if ((size_t)(end - p) == strlen(words[i]) &&
		    strncasecmp(p, words[i], (size_t)(end - p)) == 0)
			return (true);
	return (false);
}

/* Nothing but digits, and few enough of them to fit: as most keys are. */
static bool
plain_integer(const char *p, const char *end, bool is_negative, int64_t *out)
{
	int64_t value = 0;

	if (p == end || end - p > 18)
		return (false);
	for (; p < end; p++) {
		if (*p < '0' || *p > '9')
			return (false);
		value = value * 10 + (*p - '0');
	}
	*out = is_negative ? -value : value;
	return (true);
}

int
route_integer(const char *p, size_t len, bool is_negative, int64_t *out)
{
	const char *end = p + len;
	struct decimal d;

	if (plain_integer(p, end, is_negative, out))
		return (ROUTE_VALUE);
	while (p < end && route_is_blank(*p))
		p++;
	while (end > p && route_is_blank(end[-1]))
		end--;
	if (is_special(p, end))
		return (ROUTE_NO_INTEGER);
	if (!decimal_read(p, end, &d))
		return (ROUTE_NO_VALUE);
	d.is_negative ^= is_negative;
	return (decimal_integer(&d, out));
}

/* ---- parameters ---- */

static uint64_t
bits_of(const uint8_t *p, size_t len)
{
	uint64_t bits = 0;

	for (size_t i = 0; i < len; i++)
		bits = bits << 8 | p[i];
	return (bits);
}

/* Integers are compared with it as double precision: from 2^53 on several are equal to one
 * value. */
static int
double_integer(double value, int64_t *out)
{
	const double exact = 9007199254740992.0, most = 9223372036854775808.0;

	if (value > -exact && value < exact) {
		int64_t whole = (int64_t)value;

		*out = whole;
		/* What was cut off is a fraction, if anything. */
		return ((double)whole < value || (double)whole > value ? ROUTE_NO_INTEGER
								       : ROUTE_VALUE);
	}
	if (value >= -most && value <= most)
		return (ROUTE_INTEGERS);
	return (isfinite(value) ? ROUTE_OUT_OF_RANGE : ROUTE_NO_INTEGER);
}

/* The text of a real or double precision is not its value: 3.00000000000000001 is 3. */
static int
double_text_integer(const struct route_datum *d, int64_t *out)
{
	char *text = mem_strn((const char *)d->p, d->len), *end;
	double value =
	    d->type == OID_FLOAT4 ? (double)strtof(text, &end) : strtod(text, &end);
	bool is_number = end != text;

	while (route_is_blank(*end))
		end++;
	is_number = is_number && *end == '\0';
	free(text);
	return (is_number ? double_integer(value, out) : ROUTE_NO_VALUE);
}

/* numeric_send(): count of digits, weight of the first, sign, scale; digits to base 10000. */
static int
numeric_integer(const struct route_datum *d, int64_t *out)
{
	struct whole w = {0};
	unsigned sign;
	int count, weight;

	if (d->len < 8)
		return (ROUTE_NO_VALUE);
	count = (int)bits_of(d->p, 2);
	weight = (int16_t)bits_of(d->p + 2, 2);
	sign = (unsigned)bits_of(d->p + 4, 2);
	if (d->len != 8 + 2 * (size_t)count)
		return (ROUTE_NO_VALUE);
	/* NaN and the infinities. */
	if (sign != 0 && sign != 0x4000)
		return (ROUTE_NO_INTEGER);
	for (int i = 0; i < count || i <= weight; i++) {
		unsigned digit = i < count ? (unsigned)bits_of(d->p + 8 + 2 * i, 2) : 0;

		if (i <= weight)
			whole_add(&w, 10000, digit);
		else if (digit != 0)
			return (ROUTE_NO_INTEGER);
	}
	return (whole_integer(&w, sign != 0, out));
}

static int
binary_integer(const struct route_datum *d, int64_t *out)
{
	uint64_t bits = d->len <= 8 ? bits_of(d->p, d->len) : 0;
	uint32_t low = (uint32_t)bits;
	bool is_untyped = d->type == 0;
	float real;
	double value;

	if (d->type == OID_NUMERIC)
		return (numeric_integer(d, out));
	if (d->type == OID_FLOAT4 && d->len == sizeof(real)) {
		memcpy(&real, &low, sizeof(real));
		return (double_integer((double)real, out));
	}
	if (d->type == OID_FLOAT8 && d->len == sizeof(value)) {
		memcpy(&value, &bits, sizeof(value));
		return (double_integer(value, out));
	}
	/* Without a type it is the column's. */
	if (d->len == 2 && (d->type == OID_INT2 || is_untyped))
		*out = (int16_t)bits;
	else if (d->len == 4 && (d->type == OID_INT4 || is_untyped))
		*out = (int32_t)bits;
	else if (d->len == 8 && (d->type == OID_INT8 || is_untyped))
		*out = (int64_t)bits;
	else
		return (ROUTE_NO_VALUE);
	return (ROUTE_VALUE);
}

int
route_datum_integer(const struct route_datum *d, int64_t *out)
{
	*out = 0;
	if (d->is_binary)
		return (binary_integer(d, out));
	if (d->type == OID_FLOAT4 || d->type == OID_FLOAT8)
		return (double_text_integer(d, out));
	return (route_integer((const char *)d->p, d->len, false, out));
}
