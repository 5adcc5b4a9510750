/*
 * JSON as it is written, and what PostgreSQL's values become in it.
 *
 *     bool                     true, false
 *     int2, int4, int8         a number up to 2^53, a text beyond: readers keep numbers as doubles
 *     float4, float8           a number; NaN and Infinity a text
 *     json, jsonb              what it is
 *     numeric and all others   a text
 */
#include "json.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define EXACT_INT_MAX 9007199254740992 /* 2^53 */

enum { OID_BOOL = 16, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_JSON = 114 };
enum { OID_FLOAT4 = 700, OID_FLOAT8 = 701, OID_JSONB = 3802 };

/* ---- texts ---- */

/* Bytes of the UTF-8 character at p, of which there are len; 0: it is none. */
static size_t
utf8_size(const uint8_t *p, size_t len)
{
	size_t n = p[0] < 0x80   ? 1
		   : p[0] < 0xc2 ? 0
		   : p[0] < 0xe0 ? 2
		   : p[0] < 0xf0 ? 3
				 : 4;

	if (n == 0 || n > len || p[0] > 0xf4)
		return (0);
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return (0);
	/* Too long a form, surrogates, beyond the last character. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return (0);
	return (n);
}

static bool
is_utf8(const uint8_t *p, size_t len)
{
	size_t n;

	for (size_t at = 0; at < len; at += n) {
		n = utf8_size(p + at, len - at);
		if (n == 0)
			return (false);
	}
	return (true);
}

/* How many bytes from p need no escape. */
static size_t
plain_run(const uint8_t *p, size_t len)
{
	size_t at = 0, n;

	while (at < len && p[at] >= 0x20 && p[at] != '"' && p[at] != '\\') {
		n = p[at] < 0x80 ? 1 : utf8_size(p + at, len - at);
		if (n == 0)
			break;
		at += n;
	}
	return (at);
}

static void
put_escape(struct buf *b, uint8_t c)
{
	static const char letters[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
	const char *at = c != '\0' ? strchr(letters, c) : NULL;

	if (at != NULL)
		buf_addf(b, "\\%c", escapes[at - letters]);
	else if (c < 0x20)
		buf_addf(b, "\\u%04x", c);
	else
		buf_addstr(b, "\\ufffd");
}

void
json_quote(struct buf *b, const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;
	size_t at = 0, n;

	buf_add(b, "\"", 1);
	while (at < len) {
		n = plain_run(p + at, len - at);
		buf_add(b, p + at, n);
		at += n;
		if (at < len)
			put_escape(b, p[at++]);
	}
	buf_add(b, "\"", 1);
}

/* ---- structure ---- */

static void
json_begin(struct json *j)
{
	if (j->wants_comma)
		buf_add(j->out, ",", 1);
	j->wants_comma = true;
}

void
json_open(struct json *j, char bracket)
{
	json_begin(j);
	buf_add(j->out, &bracket, 1);
	j->wants_comma = false;
}

void
json_close(struct json *j, char bracket)
{
	buf_add(j->out, &bracket, 1);
	j->wants_comma = true;
}

void
json_key(struct json *j, const char *name)
{
	json_begin(j);
	json_quote(j->out, name, strlen(name));
	buf_add(j->out, ":", 1);
	j->wants_comma = false;
}

void
json_raw(struct json *j, const void *p, size_t len)
{
	json_begin(j);
	buf_add(j->out, p, len);
}

void
json_textn(struct json *j, const char *s, size_t len)
{
	json_begin(j);
	json_quote(j->out, s, len);
}

void
json_nil(struct json *j)
{
	json_raw(j, "null", 4);
}

void
json_text(struct json *j, const char *s)
{
	if (s == NULL)
		json_nil(j);
	else
		json_textn(j, s, strlen(s));
}

void
json_int(struct json *j, int64_t n)
{
	json_begin(j);
	buf_addf(j->out, "%" PRId64, n);
}

void
json_bool(struct json *j, bool b)
{
	json_raw(j, b ? "true" : "false", b ? 4 : 5);
}

void
json_ms(struct json *j, int64_t us)
{
	if (us < 0) {
		json_nil(j);
		return;
	}
	json_begin(j);
	buf_addf(j->out, "%" PRId64 ".%03" PRId64, us / 1000, us % 1000);
}

void
json_time(struct json *j, int64_t wall_us)
{
	time_t seconds = (time_t)(wall_us / 1000000);
	char text[32];
	struct tm tm;

	if (wall_us <= 0 || gmtime_r(&seconds, &tm) == NULL) {
		json_nil(j);
		return;
	}
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	json_begin(j);
	buf_addf(j->out, "\"%s.%03dZ\"", text, (int)(wall_us / 1000 % 1000));
}

/* ---- values of PostgreSQL ---- */

static size_t
digits(const char *p, size_t len)
{
	size_t n = 0;

	while (n < len && p[n] >= '0' && p[n] <= '9')
		n++;
	return (n);
}

bool
number_is_json(const char *p, size_t len)
{
	size_t at = len > 0 && p[0] == '-', n = digits(p + at, len - at);

	if (n == 0 || (n > 1 && p[at] == '0'))
		return (false);
	at += n;
	if (at < len && p[at] == '.') {
		n = digits(p + at + 1, len - at - 1);
		if (n == 0)
			return (false);
		at += n + 1;
	}
	if (at < len && (p[at] == 'e' || p[at] == 'E')) {
		at++;
		if (at < len && (p[at] == '+' || p[at] == '-'))
			at++;
		n = digits(p + at, len - at);
		if (n == 0)
			return (false);
		at += n;
	}
	return (at == len);
}

/* An integer that a double holds exactly. */
static bool
is_exact_int(const char *p, size_t len)
{
	size_t sign = len > 0 && p[0] == '-';
	uint64_t n = 0;

	if (!number_is_json(p, len) || digits(p + sign, len - sign) != len - sign ||
	    len > 17)
		return (false);
	for (size_t i = sign; i < len; i++)
		n = 10 * n + (uint64_t)(p[i] - '0');
	return (n <= EXACT_INT_MAX);
}

void
json_value(struct buf *b, uint32_t oid, const char *p, size_t len)
{
	bool is_raw = false;

	switch (oid) {
	case OID_BOOL:
		if (len == 1 && (p[0] == 't' || p[0] == 'f')) {
			buf_addstr(b, p[0] == 't' ? "true" : "false");
			return;
		}
		break;
	case OID_INT2:
	case OID_INT4:
	case OID_INT8:
		is_raw = is_exact_int(p, len);
		break;
	case OID_FLOAT4:
	case OID_FLOAT8:
		is_raw = number_is_json(p, len);
		break;
	case OID_JSON:
	case OID_JSONB:
		/* A database whose encoding is SQL_ASCII keeps any bytes. */
		is_raw = len > 0 && is_utf8((const uint8_t *)p, len);
		break;
	default:
		break;
	}
	if (is_raw)
		buf_add(b, p, len);
	else
		json_quote(b, p, len);
}

const char *
json_type_name(uint32_t oid)
{
	static const struct {
		uint32_t oid;
		const char *name;
	} types[] = {{16, "bool"}, {17, "bytea"}, {18, "char"}, {19, "name"},
	    {20, "int8"}, {21, "int2"}, {23, "int4"}, {24, "regproc"}, {25, "text"},
	    {26, "oid"}, {27, "tid"}, {28, "xid"}, {114, "json"}, {142, "xml"},
	    {199, "_json"}, {600, "point"}, {650, "cidr"}, {700, "float4"},
	    {701, "float8"}, {705, "unknown"}, {790, "money"}, {829, "macaddr"},
	    {869, "inet"}, {1000, "_bool"}, {1001, "_bytea"}, {1003, "_name"},
	    {1005, "_int2"}, {1007, "_int4"}, {1009, "_text"}, {1015, "_varchar"},
	    {1016, "_int8"}, {1021, "_float4"}, {1022, "_float8"}, {1042, "bpchar"},
	    {1043, "varchar"}, {1082, "date"}, {1083, "time"}, {1114, "timestamp"},
	    {1115, "_timestamp"}, {1182, "_date"}, {1184, "timestamptz"},
	    {1185, "_timestamptz"}, {1186, "interval"}, {1231, "_numeric"},
	    {1266, "timetz"}, {1560, "bit"}, {1562, "varbit"}, {1700, "numeric"},
	    {2205, "regclass"}, {2206, "regtype"}, {2249, "record"}, {2278, "void"},
	    {2950, "uuid"}, {2951, "_uuid"}, {3220, "pg_lsn"}, {3614, "tsvector"},
	    {3615, "tsquery"}, {3802, "jsonb"}, {3807, "_jsonb"}, {3904, "int4range"},
	    {3906, "numrange"}, {3908, "tsrange"}, {3910, "tstzrange"},
	    {3912, "daterange"}, {3926, "int8range"}};

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (types[i].oid == oid)
			return (types[i].name);
	return (NULL);
}
