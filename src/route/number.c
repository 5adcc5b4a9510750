/*
 * Values of shard keys as numbers: the remainder of an integer, whatever form it comes in. The
 * column is one of integers; so other numbers matter as far as they are equal to one.
 */
#include "private.h"

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

/* n to the power, modulo m. */
static unsigned
power_modulo(unsigned n, unsigned power, unsigned m)
{
	uint64_t result = 1 % m, base = n % m;

	for (; power > 0; power >>= 1) {
		if (power & 1)
			result = result * base % m;
		base = base * base % m;
	}
	return ((unsigned)result);
}

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

static int
decimal_modulo(const struct decimal *d, unsigned n)
{
	const char *point = memchr(d->digits, '.', (size_t)(d->end - d->digits));
	ptrdiff_t whole = (point != NULL ? point : d->end) - d->digits + d->exponent;
	unsigned rest = 0;

	for (const char *p = d->digits; p < d->end; p++) {
		if (*p == '.')
			continue;
		if (whole-- > 0)
			rest = (rest * 10 + (unsigned)(*p - '0')) % n;
		else if (*p != '0')
			return (ROUTE_NO_INTEGER);
	}
	if (whole > EXPONENT_MAX)
		return (ROUTE_NO_INTEGER);
	if (whole > 0)
		rest =
		    (unsigned)((uint64_t)rest * power_modulo(10, (unsigned)whole, n) % n);
	return ((int)(d->is_negative ? (n - rest) % n : rest));
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

int
route_modulo(const char *p, size_t len, bool is_negative, unsigned n)
{
	const char *end = p + len;
	struct decimal d;

	INVARIANT(n > 0);
	while (p < end && route_is_blank(*p))
		p++;
	while (end > p && route_is_blank(end[-1]))
		end--;
	if (is_special(p, end))
		return (ROUTE_NO_INTEGER);
	if (!decimal_read(p, end, &d))
		return (ROUTE_NO_NUMBER);
	d.is_negative ^= is_negative;
	return (decimal_modulo(&d, n));
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

static int
integer_modulo(int64_t value, unsigned n)
{
	int64_t rest = value % (int64_t)n;

	return ((int)(rest < 0 ? rest + (int64_t)n : rest));
}

/* Integers are compared with it as double precision: from 2^53 on several are equal to one
 * value. */
static int
double_modulo(double value, unsigned n)
{
	const double exact = 9007199254740992.0, most = 9223372036854775808.0;

	if (value > -exact && value < exact) {
		int64_t whole = (int64_t)value;

		/* What was cut off is a fraction, if anything. */
		if ((double)whole < value || (double)whole > value)
			return (ROUTE_NO_INTEGER);
		return (integer_modulo(whole, n));
	}
	/* NaN is neither. */
	return (value >= -most && value <= most ? ROUTE_INTEGERS : ROUTE_NO_INTEGER);
}

/* The text of a real or double precision is not its value: 3.00000000000000001 is 3. */
static int
double_text_modulo(const struct route_datum *d, unsigned n)
{
	char *text = mem_strn((const char *)d->p, d->len), *end;
	double value =
	    d->type == OID_FLOAT4 ? (double)strtof(text, &end) : strtod(text, &end);
	bool is_number = end != text;

	while (route_is_blank(*end))
		end++;
	is_number = is_number && *end == '\0';
	free(text);
	return (is_number ? double_modulo(value, n) : ROUTE_NO_NUMBER);
}

/* numeric_send(): count of digits, weight of the first, sign, scale; digits to base 10000. */
static int
numeric_modulo(const struct route_datum *d, unsigned n)
{
	unsigned sign;
	uint64_t rest = 0;
	int count, weight;

	if (d->len < 8)
		return (ROUTE_NO_NUMBER);
	count = (int)bits_of(d->p, 2);
	weight = (int16_t)bits_of(d->p + 2, 2);
	sign = (unsigned)bits_of(d->p + 4, 2);
	if (d->len != 8 + 2 * (size_t)count)
		return (ROUTE_NO_NUMBER);
	/* NaN and the infinities. */
	if (sign != 0 && sign != 0x4000)
		return (ROUTE_NO_INTEGER);
	for (int i = 0; i < count || i <= weight; i++) {
		uint64_t digit = i < count ? bits_of(d->p + 8 + 2 * i, 2) : 0;

		if (i <= weight)
			rest = (rest * 10000 + digit) % n;
		else if (digit != 0)
			return (ROUTE_NO_INTEGER);
	}
	return ((int)(sign != 0 ? (n - rest) % n : rest));
}

static int
binary_modulo(const struct route_datum *d, unsigned n)
{
	uint64_t bits = d->len <= 8 ? bits_of(d->p, d->len) : 0;
	uint32_t low = (uint32_t)bits;
	bool is_untyped = d->type == 0;
	float real;
	double value;

	if (d->type == OID_NUMERIC)
		return (numeric_modulo(d, n));
	if (d->type == OID_FLOAT4 && d->len == sizeof(real)) {
		memcpy(&real, &low, sizeof(real));
		return (double_modulo((double)real, n));
	}
	if (d->type == OID_FLOAT8 && d->len == sizeof(value)) {
		memcpy(&value, &bits, sizeof(value));
		return (double_modulo(value, n));
	}
	/* Without a type it is the column's. */
	if (d->len == 2 && (d->type == OID_INT2 || is_untyped))
		return (integer_modulo((int16_t)bits, n));
	if (d->len == 4 && (d->type == OID_INT4 || is_untyped))
		return (integer_modulo((int32_t)bits, n));
	if (d->len == 8 && (d->type == OID_INT8 || is_untyped))
		return (integer_modulo((int64_t)bits, n));
	return (ROUTE_NO_NUMBER);
}

int
route_datum_modulo(const struct route_datum *d, unsigned n)
{
	INVARIANT(n > 0);
	if (d->is_binary)
		return (binary_modulo(d, n));
	if (d->type == OID_FLOAT4 || d->type == OID_FLOAT8)
		return (double_text_modulo(d, n));
	return (route_modulo((const char *)d->p, d->len, false, n));
}
