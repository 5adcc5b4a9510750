/*
 * topo/key_text.c: the values of a key: dates, rates, networks, SCRAM verifiers. No mistake
 * is explained here: there is one sentence for each kind, and the caller has it.
 */
#include "inner.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define SECOND_US INT64_C(1000000)

/* Exactly count digits. */
static bool
take_digits(const char **at, unsigned count, int *out)
{
	*out = 0;
	for (unsigned i = 0; i < count; i++, (*at)++) {
		if (**at < '0' || **at > '9')
			return (false);
		*out = *out * 10 + (**at - '0');
	}
	return (true);
}

static bool
take_char(const char **at, char c)
{
	if (**at != c)
		return (false);
	(*at)++;
	return (true);
}

/* ---- dates ---- */

static bool
is_leap(int year)
{
	return ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
}

/* Days from 1970-01-01; the year counts from 1. */
static int64_t
days_of(int year, int month, int day)
{
	static const int before[] = {
	    0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	int64_t y = year - 1;

	return (y * 365 + y / 4 - y / 100 + y / 400 + before[month - 1] +
		(month > 2 && is_leap(year)) + day - 1 - 719162);
}

static bool
read_day(const char **at, int64_t *days)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year, month, day;

	if (!take_digits(at, 4, &year) || !take_char(at, '-') ||
	    !take_digits(at, 2, &month) || !take_char(at, '-') ||
	    !take_digits(at, 2, &day))
		return (false);
	if (year < 1 || month < 1 || month > 12 || day < 1 ||
	    day > lengths[month - 1] + (month == 2 && is_leap(year)))
		return (false);
	*days = days_of(year, month, day);
	return (true);
}

/* "23:59", "23:59:59", "23:59:59.123456" */
static bool
read_time(const char **at, int64_t *us)
{
	int hour, minute, second = 0, digit;
	int64_t scale = SECOND_US / 10;

	if (!take_digits(at, 2, &hour) || !take_char(at, ':') ||
	    !take_digits(at, 2, &minute))
		return (false);
	if (take_char(at, ':') && !take_digits(at, 2, &second))
		return (false);
	if (hour > 23 || minute > 59 || second > 59)
		return (false);
	*us = ((hour * 60 + minute) * 60 + second) * SECOND_US;
	if (!take_char(at, '.'))
		return (true);
	if (!take_digits(at, 1, &digit))
		return (false);
	do {
		*us += digit * scale;
		scale /= 10;
	} while (**at >= '0' && **at <= '9' && take_digits(at, 1, &digit));
	return (true);
}

/* "Z", "+02", "-03:30", or nothing */
static bool
read_zone(const char **at, int64_t *us)
{
	int hour, minute = 0;
	bool is_west = **at == '-';

	*us = 0;
	if (take_char(at, 'Z') || **at == '\0')
		return (true);
	if (!take_char(at, '+') && !take_char(at, '-'))
		return (false);
	if (!take_digits(at, 2, &hour))
		return (false);
	if (**at != '\0' && ((void)take_char(at, ':'), !take_digits(at, 2, &minute)))
		return (false);
	if (hour > 15 || minute > 59)
		return (false);
	*us = (hour * 60 + minute) * 60 * SECOND_US * (is_west ? -1 : 1);
	return (true);
}

bool
date_read(const char *text, int64_t *wall_us)
{
	int64_t days, time_us = 0, zone_us = 0;

	if (!read_day(&text, &days))
		return (false);
	if (take_char(&text, ' ') || take_char(&text, 'T')) {
		if (!read_time(&text, &time_us))
			return (false);
		(void)take_char(&text, ' ');
	}
	if (!read_zone(&text, &zone_us) || *text != '\0')
		return (false);
	*wall_us = days * 86400 * SECOND_US + time_us - zone_us;
	return (true);
}

/* ---- rates ---- */

bool
rate_read(const char *text, int64_t *count, int64_t *us)
{
	static const struct {
		const char *name;
		int64_t seconds;
	} units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
	const char *start = text;

	*count = 0;
	for (; *text >= '0' && *text <= '9' && *count < 1000000000; text++)
		*count = *count * 10 + (*text - '0');
	if (text == start || *count < 1 || *count > 1000000000)
		return (false);
	text += strspn(text, " \t");
	if (!take_char(&text, '/'))
		return (false);
	text += strspn(text, " \t");
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (strcasecmp(text, units[i].name) == 0) {
			*us = units[i].seconds * SECOND_US;
			return (true);
		}
	}
	return (false);
}

/* ---- networks ---- */

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* An IPv4 address in IPv6 form is the IPv4 address. */
static void
network_unmap(struct topo_network *n)
{
	if (n->family != AF_INET6 || n->bits < 96 ||
	    memcmp(n->addr, mapped, sizeof(mapped)) != 0)
		return;
	n->family = AF_INET;
	n->bits = (uint8_t)(n->bits - 96);
	memmove(n->addr, n->addr + 12, 4);
	memset(n->addr + 4, 0, 12);
}

bool
network_read(const char *text, struct topo_network *out)
{
	const char *slash = strchr(text, '/');
	char addr[INET6_ADDRSTRLEN];
	size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
	int bits = -1, max;

	*out = (struct topo_network){0};
	if (strcasecmp(text, "local") == 0)
		return (true);
	if (len >= sizeof(addr))
		return (false);
	memcpy(addr, text, len);
	addr[len] = '\0';
	if (inet_pton(AF_INET, addr, out->addr) == 1)
		out->family = AF_INET;
	else if (inet_pton(AF_INET6, addr, out->addr) == 1)
		out->family = AF_INET6;
	else
		return (false);
	max = out->family == AF_INET ? 32 : 128;
	if (slash != NULL) {
		size_t digits = strlen(++slash);

		if (digits < 1 || digits > 3 ||
		    !take_digits(&slash, (unsigned)digits, &bits) || bits > max)
			return (false);
	}
	out->bits = (uint8_t)(slash != NULL ? bits : max);
	network_unmap(out);
	return (true);
}

bool
network_has(const struct topo_network *n, uint8_t family, const void *addr)
{
	struct topo_network peer = {0};
	unsigned whole, rest;

	if (family == AF_INET || family == AF_INET6) {
		peer.family = family;
		memcpy(peer.addr, addr, family == AF_INET ? 4 : 16);
		peer.bits = 128;
		network_unmap(&peer);
	}
	if (peer.family != n->family)
		return (false);
	whole = n->bits / 8;
	rest = n->bits % 8;
	return (memcmp(peer.addr, n->addr, whole) == 0 &&
		(rest == 0 || ((peer.addr[whole] ^ n->addr[whole]) >> (8 - rest)) == 0));
}

/* ---- verifiers ---- */

/* Base64 with its padding up to the byte end; the bytes it stands for, or -1. */
static int
take_base64(const char **at, char end)
{
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = strspn(*at, letters), padding;

	*at += len;
	padding = strspn(*at, "=");
	*at += padding;
	if (padding > 2 || (len + padding) % 4 != 0 || len == 0 || len > 4096 ||
	    **at != end)
		return (-1);
	*at += end != '\0';
	return ((int)((len + padding) / 4 * 3 - padding));
}

bool
is_verifier(const char *text)
{
	static const char prefix[] = "SCRAM-SHA-256$";
	int64_t iterations = 0;

	if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
		return (false);
	text += sizeof(prefix) - 1;
	for (; *text >= '0' && *text <= '9' && iterations <= INT32_MAX; text++)
		iterations = iterations * 10 + (*text - '0');
	return (iterations > 0 && iterations <= INT32_MAX && take_char(&text, ':') &&
		take_base64(&text, '$') > 0 && take_base64(&text, ':') == 32 &&
		take_base64(&text, '\0') == 32);
}
