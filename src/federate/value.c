/*
 * Values of results, read from the text or binary form of their type. Only types whose order is
 * the same everywhere are known: that of text depends on the collation of each database.
 */
#include "value.h"
#include "proto.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* pg_type.dat */
static const struct {
	uint32_t oid;
	enum value_kind kind;
} types[] = {
    {20, VALUE_INTEGER},
    {21, VALUE_INTEGER},
    {23, VALUE_INTEGER},
    {26, VALUE_UNSIGNED},
    {700, VALUE_FLOAT},
    {701, VALUE_FLOAT},
    {1082, VALUE_DATE},
    {1083, VALUE_TIME},
    {1114, VALUE_TIMESTAMP},
    {1184, VALUE_TIMESTAMPTZ},
    {1700, VALUE_NUMERIC},
    {2950, VALUE_UUID},
};

enum value_kind
value_kind_of(uint32_t oid)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (types[i].oid == oid)
			return (types[i].kind);
	return (VALUE_NONE);
}

bool
value_is_styled(enum value_kind kind)
{
	return (
	    kind == VALUE_DATE || kind == VALUE_TIMESTAMP || kind == VALUE_TIMESTAMPTZ);
}

/* ---- the binary form ---- */

static int
read_binary(struct value *v, const uint8_t *p, size_t len)
{
	uint32_t bits32;
	uint64_t bits;
	float real;

	if (v->kind == VALUE_UUID) {
		if (len != sizeof(v->uuid))
			return (F_NOT_FOUND);
		memcpy(v->uuid, p, len);
		return (0);
	}
	if (len == 2 && v->kind == VALUE_INTEGER) {
		v->integer = (int16_t)proto_get16(p);
		return (0);
	}
	if (len == 4) {
		bits32 = proto_get32(p);
		v->integer =
		    v->kind == VALUE_UNSIGNED ? (int64_t)bits32 : (int32_t)bits32;
		memcpy(&real, &bits32, sizeof(real));
		v->real = real;
		return (0);
	}
	if (len != 8)
		return (F_NOT_FOUND);
	bits = (uint64_t)proto_get32(p) << 32 | proto_get32(p + 4);
	v->integer = (int64_t)bits;
	memcpy(&v->real, &bits, sizeof(bits));
	return (0);
}

/* ---- text: numbers ---- */

static int
read_integer(struct value *v, const char *text)
{
	bool is_negative = *text == '-';
	const char *p = text + is_negative;
	__int128 sum = 0;

	if (*p == '\0' || strlen(p) > 20)
		return (F_NOT_FOUND);
	for (; *p != '\0'; p++) {
		if (!isdigit((unsigned char)*p))
			return (F_NOT_FOUND);
		sum = sum * 10 + (*p - '0');
	}
	if (is_negative)
		sum = -sum;
	if (sum < INT64_MIN || sum > INT64_MAX)
		return (F_NOT_FOUND);
	v->integer = (int64_t)sum;
	return (0);
}

static int
read_float(struct value *v, const char *text)
{
	char *end;

	if (text[0] == '\0' || isspace((unsigned char)text[0]))
		return (F_NOT_FOUND);
	v->real = strtod(text, &end);
	return (*end == '\0' ? 0 : F_NOT_FOUND);
}

static int
read_uuid(struct value *v, const char *text)
{
	size_t nibbles = 0;

	for (; *text != '\0'; text++) {
		unsigned c = (unsigned char)*text;

		if (c == '-')
			continue;
		if (!isxdigit((int)c) || nibbles == 32)
			return (F_NOT_FOUND);
		c = isdigit((int)c) ? c - '0' : (c | 0x20U) - 'a' + 10;
		v->uuid[nibbles / 2] = (uint8_t)(v->uuid[nibbles / 2] << 4 | c);
		nibbles++;
	}
	return (nibbles == 32 ? 0 : F_NOT_FOUND);
}

/* ---- text: dates and times, in ISO form ---- */

#define SECOND_US INT64_C(1000000)
#define DAY_US    (86400 * SECOND_US)
#define ERA_YEARS 400    /* after so many the Gregorian calendar repeats itself */
#define ERAS      20     /* added, so that no year is negative */
#define YEAR_MAX  294276 /* of timestamps; PostgreSQL, "Date/Time Types" */

static bool
take_number(const char **p, unsigned min, unsigned max, int64_t *out)
{
	unsigned n = 0;

	*out = 0;
	for (; n < max && isdigit((unsigned char)**p); n++)
		*out = *out * 10 + (*(*p)++ - '0');
	return (n >= min);
}

static bool
take(const char **p, const char *mark)
{
	size_t len = strlen(mark);

	if (strncmp(*p, mark, len) != 0)
		return (false);
	*p += len;
	return (true);
}

/* Days since some day long ago. The year begins in March: the leap day is its last. */
static int64_t
days_of(int64_t year, int64_t month, int64_t day)
{
	int64_t y = year + ERAS * ERA_YEARS - (month <= 2);
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return (y * 365 + y / 4 - y / 100 + y / 400 + of_year);
}

/* "12:34:56", with up to six digits behind the point. */
static bool
take_time(const char **p, int64_t *us)
{
	int64_t h, m, s, part = 0;
	const char *from;

	if (!take_number(p, 2, 2, &h) || !take(p, ":") || !take_number(p, 2, 2, &m) ||
	    !take(p, ":") || !take_number(p, 2, 2, &s) || h > 24 || m > 59 || s > 60)
		return (false);
	if (take(p, ".")) {
		from = *p;
		if (!take_number(p, 1, 6, &part))
			return (false);
		for (long n = *p - from; n < 6; n++)
			part *= 10;
	}
	*us = ((h * 60 + m) * 60 + s) * SECOND_US + part;
	return (true);
}

/* "+02", "-03:30", "+00:49:56" */
static bool
take_zone(const char **p, int64_t *us)
{
	int64_t h, m = 0, s = 0, sign = **p == '-' ? -1 : 1;

	if (!take(p, "+") && !take(p, "-"))
		return (false);
	if (!take_number(p, 2, 2, &h) || (take(p, ":") && !take_number(p, 2, 2, &m)) ||
	    (take(p, ":") && !take_number(p, 2, 2, &s)))
		return (false);
	*us = sign * ((h * 60 + m) * 60 + s) * SECOND_US;
	return (true);
}

static int
read_date(struct value *v, const char *text)
{
	int64_t year, month, day, us = 0, east = 0;
	const char *p = text;

	if (strcmp(text, "infinity") == 0 || strcmp(text, "-infinity") == 0) {
		v->integer = *text == '-' ? INT64_MIN : INT64_MAX;
		return (0);
	}
	if (!take_number(&p, 4, 7, &year) || !take(&p, "-") ||
	    !take_number(&p, 2, 2, &month) || !take(&p, "-") ||
	    !take_number(&p, 2, 2, &day) || month < 1 || month > 12 || day < 1 ||
	    day > 31)
		return (F_NOT_FOUND);
	if (v->kind != VALUE_DATE && (!take(&p, " ") || !take_time(&p, &us)))
		return (F_NOT_FOUND);
	if (v->kind == VALUE_TIMESTAMPTZ && !take_zone(&p, &east))
		return (F_NOT_FOUND);
	/* The year before 1 is 1 BC. */
	if (take(&p, " BC"))
		year = 1 - year;
	if (*p != '\0' || year < 1 - ERAS * ERA_YEARS)
		return (F_NOT_FOUND);
	/* From PostgreSQL's own epoch, as the microseconds of later years fit from no other. */
	v->integer = days_of(year, month, day) - days_of(2000, 1, 1);
	if (v->kind == VALUE_DATE)
		return (0);
	/* A day more: the clocks of a zone may be ahead. */
	if (year > YEAR_MAX + 1 || (year == YEAR_MAX + 1 && (month > 1 || day > 1)))
		return (F_NOT_FOUND);
	v->integer = v->integer * DAY_US + us - east;
	return (0);
}

static int
read_time(struct value *v, const char *text)
{
	return (take_time(&text, &v->integer) && *text == '\0' ? 0 : F_NOT_FOUND);
}

/* ---- any ---- */

static int
read_text(struct value *v, const uint8_t *p, size_t len)
{
	char text[64];

	if (len >= sizeof(text) || memchr(p, '\0', len) != NULL)
		return (F_NOT_FOUND);
	memcpy(text, p, len);
	text[len] = '\0';
	switch (v->kind) {
	case VALUE_INTEGER:
	case VALUE_UNSIGNED:
		return (read_integer(v, text));
	case VALUE_FLOAT:
		return (read_float(v, text));
	case VALUE_DATE:
	case VALUE_TIMESTAMP:
	case VALUE_TIMESTAMPTZ:
		return (read_date(v, text));
	case VALUE_TIME:
		return (read_time(v, text));
	case VALUE_UUID:
		return (read_uuid(v, text));
	case VALUE_NUMERIC:
	case VALUE_NONE:
	default:
		return (F_NOT_FOUND);
	}
}

int
value_read(
    struct value *v, enum value_kind kind, const uint8_t *p, size_t len, bool is_binary)
{
	*v = (struct value){.kind = kind};
	if (kind == VALUE_NUMERIC)
		return (number_read(&v->number, p, len, is_binary));
	return (is_binary ? read_binary(v, p, len) : read_text(v, p, len));
}

void
value_free(struct value *v)
{
	if (v->kind == VALUE_NUMERIC)
		number_free(&v->number);
}

static int
compare_floats(double a, double b)
{
	bool a_is_nan = a != a, b_is_nan = b != b;

	if (a_is_nan || b_is_nan)
		return (a_is_nan - b_is_nan);
	return ((a > b) - (a < b));
}

int
value_compare(const struct value *a, const struct value *b)
{
	INVARIANT(a->kind == b->kind);
	switch (a->kind) {
	case VALUE_FLOAT:
		return (compare_floats(a->real, b->real));
	case VALUE_NUMERIC:
		return (number_compare(&a->number, &b->number));
	case VALUE_UUID:
		return (memcmp(a->uuid, b->uuid, sizeof(a->uuid)));
	case VALUE_INTEGER:
	case VALUE_UNSIGNED:
	case VALUE_DATE:
	case VALUE_TIMESTAMP:
	case VALUE_TIMESTAMPTZ:
	case VALUE_TIME:
		return ((a->integer > b->integer) - (a->integer < b->integer));
	case VALUE_NONE:
	default:
		INVARIANT(!"a value that has no order");
	}
}
