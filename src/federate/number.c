/*
 * PostgreSQL's numeric. The binary form (numeric_send) has groups of four decimal digits: how
 * many, the weight of the first, a sign, the digits shown behind the point, the groups. That is
 * the form in which numbers are kept here, too, so that both forms are read and written exactly.
 *
 *   1234567.8   groups 123 4567 8000, weight 1, scale 1
 *
 * A sum shows as many digits behind the point as the summand that shows most of them.
 */
#include "number.h"
#include "proto.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_END  10000
#define WHOLE_MAX  131072 /* digits before the point; PostgreSQL, "Numeric Types" */
#define SCALE_MAX  16383  /* and behind it */
#define WEIGHT_MAX (WHOLE_MAX / 4 - 1)

/* Signs in the binary form. */
#define SIGN_POSITIVE       0x0000U
#define SIGN_NEGATIVE       0x4000U
#define SIGN_NAN            0xC000U
#define SIGN_INFINITY       0xD000U
#define SIGN_MINUS_INFINITY 0xF000U
/* The scale that PostgreSQL writes for both infinities: a part of their sign. */
#define SCALE_OF_INFINITY 32

void
number_free(struct number *n)
{
	free(n->group);
	*n = (struct number){.kind = NUMBER_FINITE};
}

/* Groups of zeroes at either end go. */
static void
number_trim(struct number *n)
{
	uint32_t first = 0;

	while (n->count > 0 && n->group[n->count - 1] == 0)
		n->count--;
	while (first < n->count && n->group[first] == 0)
		first++;
	if (first > 0 && n->count > first)
		memmove(
		    n->group, n->group + first, (n->count - first) * sizeof(n->group[0]));
	n->count -= first;
	n->weight -= (int)first;
	if (n->count == 0) {
		n->weight = 0;
		n->is_negative = false;
	}
}

/* ---- reading ---- */

static int
read_binary(struct number *n, const uint8_t *p, size_t len)
{
	uint16_t sign;

	if (len < 8 || (len - 8) / 2 != proto_get16(p) || len % 2 != 0)
		return (F_NOT_FOUND);
	n->count = proto_get16(p);
	n->weight = (int16_t)proto_get16(p + 2);
	n->scale = proto_get16(p + 6);
	sign = proto_get16(p + 4);
	if (sign == SIGN_NAN || sign == SIGN_INFINITY || sign == SIGN_MINUS_INFINITY) {
		n->kind = sign == SIGN_NAN        ? NUMBER_NAN
			  : sign == SIGN_INFINITY ? NUMBER_INFINITY
						  : NUMBER_MINUS_INFINITY;
		n->weight = 0;
		n->scale = 0;
		return (n->count == 0 ? 0 : F_NOT_FOUND);
	}
	if ((sign != SIGN_POSITIVE && sign != SIGN_NEGATIVE) || n->scale > SCALE_MAX)
		return (F_NOT_FOUND);
	n->is_negative = sign == SIGN_NEGATIVE;
	n->group = mem_alloc((n->count + 1) * sizeof(n->group[0]));
	for (uint32_t i = 0; i < n->count; i++) {
		n->group[i] = proto_get16(p + 8 + 2 * (size_t)i);
		if (n->group[i] >= GROUP_END)
			return (F_NOT_FOUND);
	}
	number_trim(n);
	return (0);
}

static size_t
count_digits(const uint8_t *p, size_t len)
{
	size_t n = 0;

	while (n < len && p[n] >= '0' && p[n] <= '9')
		n++;
	return (n);
}

static bool
is_word(const uint8_t *p, size_t len, const char *word)
{
	return (len == strlen(word) && memcmp(p, word, len) == 0);
}

static int
read_text(struct number *n, const uint8_t *p, size_t len)
{
	size_t whole, part = 0, at;

	if (is_word(p, len, "NaN") || is_word(p, len, "Infinity") ||
	    is_word(p, len, "-Infinity")) {
		n->kind = p[0] == 'N'   ? NUMBER_NAN
			  : p[0] == 'I' ? NUMBER_INFINITY
					: NUMBER_MINUS_INFINITY;
		return (0);
	}
	n->is_negative = len > 0 && p[0] == '-';
	p += n->is_negative;
	len -= n->is_negative;
	whole = count_digits(p, len);
	if (whole < len && p[whole] == '.')
		part = count_digits(p + whole + 1, len - whole - 1);
	if (whole == 0 || whole > WHOLE_MAX || part > SCALE_MAX ||
	    len != whole + (part > 0 ? part + 1 : 0))
		return (F_NOT_FOUND);
	n->scale = (unsigned)part;
	n->weight = (int)((whole + 3) / 4) - 1;
	n->count = (uint32_t)((whole + 3) / 4 + (part + 3) / 4);
	n->group = mem_alloc((n->count + 1) * sizeof(n->group[0]));
	/* The place of a digit among the groups: those of the whole part end at the point. */
	at = (4 - whole % 4) % 4;
	for (size_t i = 0; i < whole + part; i++, at++) {
		unsigned digit = (unsigned)(p[i + (i >= whole)] - '0');
		static const uint16_t worth[] = {1000, 100, 10, 1};

		n->group[at / 4] = (uint16_t)(n->group[at / 4] + digit * worth[at % 4]);
	}
	number_trim(n);
	return (0);
}

int
number_read(struct number *n, const uint8_t *p, size_t len, bool is_binary)
{
	int rc;

	*n = (struct number){.kind = NUMBER_FINITE};
	rc = is_binary ? read_binary(n, p, len) : read_text(n, p, len);
	if (rc != 0)
		number_free(n);
	return (rc);
}

/* ---- order ---- */

/* The group worth 10000^weight. */
static int
group_at(const struct number *n, int weight)
{
	int i = n->weight - weight;

	return (i >= 0 && (uint32_t)i < n->count ? n->group[i] : 0);
}

/* The weight of the last group. */
static int
lowest(const struct number *n)
{
	return (n->count == 0 ? 0 : n->weight - (int)n->count + 1);
}

static int
compare_magnitudes(const struct number *a, const struct number *b)
{
	int high, low;

	if (a->count == 0 || b->count == 0)
		return ((a->count > 0) - (b->count > 0));
	high = a->weight > b->weight ? a->weight : b->weight;
	low = lowest(a) < lowest(b) ? lowest(a) : lowest(b);
	for (int w = high; w >= low; w--) {
		int x = group_at(a, w), y = group_at(b, w);

		if (x != y)
			return (x < y ? -1 : 1);
	}
	return (0);
}

int
number_compare(const struct number *a, const struct number *b)
{
	if (a->kind != NUMBER_FINITE || b->kind != NUMBER_FINITE)
		return ((a->kind > b->kind) - (a->kind < b->kind));
	if (a->is_negative != b->is_negative)
		return (a->is_negative ? -1 : 1);
	return (a->is_negative ? compare_magnitudes(b, a) : compare_magnitudes(a, b));
}

/* ---- sum ---- */

/* NaN wins, and so do two infinities that cannot agree. */
static void
add_special(struct number *sum, const struct number *n)
{
	enum number_kind kind = sum->kind;

	if (kind == NUMBER_FINITE)
		kind = n->kind;
	else if (n->kind != NUMBER_FINITE && n->kind != kind)
		kind = NUMBER_NAN;
	number_free(sum);
	sum->kind = kind;
}

/* |big| + sign * |small|, where sign is -1 only if |big| is not the smaller one. */
static struct number
add_magnitudes(const struct number *big, const struct number *small, int sign)
{
	int high = (big->weight > small->weight ? big->weight : small->weight) + 1;
	int low = lowest(big) < lowest(small) ? lowest(big) : lowest(small);
	struct number out = {.kind = NUMBER_FINITE, .weight = high};
	int carry = 0;

	if (low > high)
		low = high;
	out.count = (uint32_t)(high - low + 1);
	out.group = mem_alloc(out.count * sizeof(out.group[0]));
	for (int w = low; w <= high; w++) {
		int v = group_at(big, w) + sign * group_at(small, w) + carry;

		carry = v >= GROUP_END ? 1 : v < 0 ? -1 : 0;
		out.group[high - w] = (uint16_t)(v - carry * GROUP_END);
	}
	INVARIANT(carry == 0);
	return (out);
}

int
number_add(struct number *sum, const struct number *n)
{
	bool swaps = compare_magnitudes(sum, n) < 0;
	const struct number *big = swaps ? n : sum, *small = swaps ? sum : n;
	struct number out;

	if (sum->kind != NUMBER_FINITE || n->kind != NUMBER_FINITE) {
		add_special(sum, n);
		return (0);
	}
	out = add_magnitudes(big, small, big->is_negative == small->is_negative ? 1 : -1);
	out.is_negative = big->is_negative;
	out.scale = sum->scale > n->scale ? sum->scale : n->scale;
	number_trim(&out);
	if (out.weight > WEIGHT_MAX) {
		number_free(&out);
		return (F_FEDERATE_OVERFLOW);
	}
	number_free(sum);
	*sum = out;
	return (0);
}

/* ---- writing ---- */

static void
put_16(struct buf *out, unsigned v)
{
	uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};

	buf_add(out, bytes, sizeof(bytes));
}

static void
write_binary(const struct number *n, struct buf *out)
{
	static const uint16_t signs[] = {
	    [NUMBER_MINUS_INFINITY] = SIGN_MINUS_INFINITY,
	    [NUMBER_FINITE] = SIGN_POSITIVE,
	    [NUMBER_INFINITY] = SIGN_INFINITY,
	    [NUMBER_NAN] = SIGN_NAN,
	};

	put_16(out, n->count);
	put_16(out, (unsigned)n->weight & 0xffffU);
	put_16(out, n->is_negative ? SIGN_NEGATIVE : signs[n->kind]);
	put_16(out, n->kind == NUMBER_FINITE ? n->scale
		    : n->kind == NUMBER_NAN  ? 0
					     : SCALE_OF_INFINITY);
	for (uint32_t i = 0; i < n->count; i++)
		put_16(out, n->group[i]);
}

static void
write_text(const struct number *n, struct buf *out)
{
	int w = n->weight;
	char group[8];

	if (n->is_negative)
		buf_addstr(out, "-");
	if (n->count == 0 || w < 0)
		buf_addstr(out, "0");
	else
		buf_addf(out, "%d", group_at(n, w--));
	for (; n->count > 0 && w >= 0; w--)
		buf_addf(out, "%04d", group_at(n, w));
	if (n->scale > 0)
		buf_addstr(out, ".");
	for (unsigned shown = 0; shown < n->scale; shown += 4) {
		unsigned left = n->scale - shown;

		snprintf(group, sizeof(group), "%04d",
		    group_at(n, -1 - (int)(shown / 4)) % GROUP_END);
		buf_add(out, group, left < 4 ? left : 4);
	}
}

void
number_write(const struct number *n, bool is_binary, struct buf *out)
{
	static const char *const words[] = {
	    [NUMBER_MINUS_INFINITY] = "-Infinity",
	    [NUMBER_INFINITY] = "Infinity",
	    [NUMBER_NAN] = "NaN",
	};

	if (is_binary)
		write_binary(n, out);
	else if (n->kind != NUMBER_FINITE)
		buf_addstr(out, words[n->kind]);
	else
		write_text(n, out);
}
