/*
 * The types of columns: their numbers in PostgreSQL's catalog, and values from text to the
 * binary form of the extended protocol (what each type's send function writes).
 */
#include "rows.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* pg_type.dat: oid and typlen. */
static const struct {
	uint32_t oid;
	int16_t size;
} types[] = {
    [ROWS_TEXT] = {25, -1},
    [ROWS_INT4] = {23, 4},
    [ROWS_INT8] = {20, 8},
    [ROWS_FLOAT8] = {701, 8},
    [ROWS_BOOL] = {16, 1},
    [ROWS_TIMESTAMPTZ] = {1184, 8},
    [ROWS_NUMERIC] = {1700, -1},
};

uint32_t
rows_type_oid(enum rows_type type)
{
	INVARIANT((size_t)type < ARRAY_LEN(types));
	return (types[type].oid);
}

int16_t
rows_type_size(enum rows_type type)
{
	INVARIANT((size_t)type < ARRAY_LEN(types));
	return (types[type].size);
}

static void
put_integer(struct buf *out, uint64_t v, unsigned bytes)
{
	uint8_t *p = buf_room(out, bytes);

	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
	out->len += bytes;
}

static int
binary_integer(
    const char *text, int64_t min, int64_t max, unsigned bytes, struct buf *out)
{
	char *end;
	long long n;

	if (!isdigit((unsigned char)text[text[0] == '-' || text[0] == '+']))
		return (F_NOT_FOUND);
	errno = 0;
	n = strtoll(text, &end, 10);
	if (*end != '\0' || errno != 0 || n < min || n > max)
		return (F_NOT_FOUND);
	put_integer(out, (uint64_t)n, bytes);
	return (0);
}

static int
binary_float8(const char *text, struct buf *out)
{
	uint64_t bits;
	double v;
	char *end;

	if (text[0] == '\0' || isspace((unsigned char)text[0]) ||
	    strpbrk(text, "xX") != NULL)
		return (F_NOT_FOUND);
	v = strtod(text, &end);
	if (*end != '\0')
		return (F_NOT_FOUND);
	if (isnan(v))
		v = NAN; /* without a sign or a payload */
	memcpy(&bits, &v, sizeof(bits));
	put_integer(out, bits, sizeof(bits));
	return (0);
}

static int
binary_bool(const char *text, struct buf *out)
{
	bool yes = strcmp(text, "t") == 0 || strcmp(text, "true") == 0;

	if (!yes && strcmp(text, "f") != 0 && strcmp(text, "false") != 0)
		return (F_NOT_FOUND);
	put_integer(out, yes, 1);
	return (0);
}

/* ---- numeric: base 10000, most significant first (numeric_send) ---- */

#define NUMERIC_NEGATIVE   0x4000U
#define NUMERIC_NAN        0xC000U
#define NUMERIC_DIGITS_MAX 1000 /* decimal digits on each side of the point */

static void
put_numeric_head(struct buf *out, size_t digits, int weight, unsigned sign, size_t scale)
{
	put_integer(out, digits, 2);
	put_integer(out, (uint64_t)(int64_t)weight, 2);
	put_integer(out, sign, 2);
	put_integer(out, scale, 2);
}

/* The decimal digit i places right of the point; left of it when negative: -1 is the ones. */
static unsigned
decimal_at(const char *whole, size_t whole_len, const char *part, size_t part_len, long i)
{
	if (i >= 0)
		return ((size_t)i < part_len ? (unsigned)(part[i] - '0') : 0);
	if ((size_t)-i > whole_len)
		return (0);
	return ((unsigned)(whole[whole_len - (size_t)-i] - '0'));
}

static int
binary_numeric(const char *text, struct buf *out)
{
	uint16_t groups[2 * (NUMERIC_DIGITS_MAX / 4 + 1)];
	bool is_negative = text[0] == '-';
	const char *whole = text + (text[0] == '-' || text[0] == '+');
	size_t whole_len = strspn(whole, "0123456789"), part_len = 0;
	const char *part = whole + whole_len;
	size_t first = 0, last = 0;
	int weight;

	if (strcmp(text, "NaN") == 0) {
		put_numeric_head(out, 0, 0, NUMERIC_NAN, 0);
		return (0);
	}
	if (*part == '.')
		part_len = strspn(++part, "0123456789");
	if (part[part_len] != '\0' || whole_len + part_len == 0 ||
	    whole_len > NUMERIC_DIGITS_MAX || part_len > NUMERIC_DIGITS_MAX)
		return (F_NOT_FOUND);
	weight = (int)((whole_len + 3) / 4) - 1;
	for (long at = -4L * (weight + 1); at < (long)part_len; at += 4) {
		unsigned group = 0;

		for (long i = at; i < at + 4; i++)
			group =
			    group * 10 + decimal_at(whole, whole_len, part, part_len, i);
		groups[last++] = (uint16_t)group;
	}
	while (last > 0 && groups[last - 1] == 0)
		last--;
	while (first < last && groups[first] == 0) {
		first++;
		weight--;
	}
	if (first == last)
		put_numeric_head(out, 0, 0, 0, part_len);
	else
		put_numeric_head(out, last - first, weight,
		    is_negative ? NUMERIC_NEGATIVE : 0, part_len);
	while (first < last)
		put_integer(out, groups[first++], 2);
	return (0);
}

/* ---- timestamptz: microseconds since 2000-01-01 00:00 UTC (timestamptz_send) ---- */

#define EPOCH_DAYS 10957 /* from 1970-01-01 to 2000-01-01 */
#define DAY_US     INT64_C(86400000000)
#define YEAR_MAX   294276

/* Reads digits: at least min, at most max of them. */
static bool
read_number(const char **p, unsigned min, unsigned max, int64_t *out)
{
	unsigned n = 0;

	*out = 0;
	for (; n < max && isdigit((unsigned char)**p); n++)
		*out = *out * 10 + (*(*p)++ - '0');
	return (n >= min);
}

static bool
read_mark(const char **p, char mark)
{
	if (**p != mark)
		return (false);
	(*p)++;
	return (true);
}

/* Days from 1970-01-01 in the Gregorian calendar; the year begins in March, so that the leap
 * day is its last. */
static int64_t
days_of(int64_t year, int64_t month, int64_t day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return (y * 365 + y / 4 - y / 100 + y / 400 + of_year - 719468);
}

static bool
is_day(int64_t year, int64_t month, int64_t day)
{
	static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	if (year < 1 || year > YEAR_MAX || month < 1 || month > 12 || day < 1)
		return (false);
	return (day <= days[month - 1] && (month != 2 || day < 29 || is_leap));
}

/* "+02", "+05:30", "-03:00:00", "Z", " UTC", " GMT": seconds east. */
static bool
read_zone(const char *p, int64_t *out)
{
	int64_t h, m = 0, s = 0, sign = *p == '-' ? -1 : 1;

	*out = 0;
	if (*p != '+' && *p != '-') {
		p += *p == ' ';
		return (strcasecmp(p, "Z") == 0 || strcasecmp(p, "UTC") == 0 ||
			strcasecmp(p, "GMT") == 0);
	}
	p++;
	if (!read_number(&p, 2, 2, &h) || h > 15)
		return (false);
	if (read_mark(&p, ':') && (!read_number(&p, 2, 2, &m) || m > 59))
		return (false);
	if (read_mark(&p, ':') && (!read_number(&p, 2, 2, &s) || s > 59))
		return (false);
	*out = sign * (h * 3600 + m * 60 + s);
	return (*p == '\0');
}

static int
binary_timestamptz(const char *text, struct buf *out)
{
	int64_t year, month, day, h, m, s, us = 0, east, at;
	const char *p = text;

	if (strcmp(text, "infinity") == 0 || strcmp(text, "-infinity") == 0) {
		put_integer(out, (uint64_t)(*text == '-' ? INT64_MIN : INT64_MAX), 8);
		return (0);
	}
	if (!read_number(&p, 4, 6, &year) || !read_mark(&p, '-') ||
	    !read_number(&p, 2, 2, &month) || !read_mark(&p, '-') ||
	    !read_number(&p, 2, 2, &day) || !is_day(year, month, day) ||
	    !(read_mark(&p, ' ') || read_mark(&p, 'T')))
		return (F_NOT_FOUND);
	if (!read_number(&p, 2, 2, &h) || h > 23 || !read_mark(&p, ':') ||
	    !read_number(&p, 2, 2, &m) || m > 59 || !read_mark(&p, ':') ||
	    !read_number(&p, 2, 2, &s) || s > 59)
		return (F_NOT_FOUND);
	if (read_mark(&p, '.')) {
		const char *from = p;

		if (!read_number(&p, 1, 6, &us))
			return (F_NOT_FOUND);
		for (long n = p - from; n < 6; n++)
			us *= 10;
	}
	if (!read_zone(p, &east))
		return (F_NOT_FOUND);
	at = (days_of(year, month, day) - EPOCH_DAYS) * DAY_US +
	     (h * 3600 + m * 60 + s - east) * INT64_C(1000000) + us;
	put_integer(out, (uint64_t)at, 8);
	return (0);
}

int
rows_binary(enum rows_type type, const char *text, struct buf *out)
{
	switch (type) {
	case ROWS_TEXT:
		buf_addstr(out, text);
		return (0);
	case ROWS_INT4:
		return (binary_integer(text, INT32_MIN, INT32_MAX, 4, out));
	case ROWS_INT8:
		return (binary_integer(text, INT64_MIN, INT64_MAX, 8, out));
	case ROWS_FLOAT8:
		return (binary_float8(text, out));
	case ROWS_BOOL:
		return (binary_bool(text, out));
	case ROWS_TIMESTAMPTZ:
		return (binary_timestamptz(text, out));
	case ROWS_NUMERIC:
		return (binary_numeric(text, out));
	}
	return (F_NOT_FOUND);
}
