/* Lists, names and times as people write them in a configuration or at the console. */
#include "private.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SPACE " \t\r\n\f\v"

/* ---- names ---- */

void
names_add(struct names *n, const char *name, size_t len)
{
	n->v = mem_realloc(n->v, (n->count + 1) * sizeof(*n->v));
	n->v[n->count++] = mem_strn(name, len);
}

bool
names_have(const struct names *n, const char *name)
{
	for (size_t i = 0; i < n->count; i++)
		if (strcmp(n->v[i], name) == 0)
			return (true);
	return (false);
}

void
names_free(struct names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->v[i]);
	free(n->v);
	*n = (struct names){0};
}

static void
names_drop_last(struct names *n)
{
	free(n->v[--n->count]);
}

/* Past the double-quoted name at p; NULL: it is open. */
static const char *
quoted_end(const char *p)
{
	for (p++; *p != '\0'; p++)
		if (*p == '"' && *++p != '"')
			return (p);
	return (NULL);
}

/* Past the entry at p: to a comma or the end; NULL: an open quote. */
static const char *
entry_end(const char *p)
{
	while (p != NULL && *p != '\0' && *p != ',')
		p = *p == '"' ? quoted_end(p) : p + 1;
	return (p);
}

bool
names_split(struct names *n, const char *list, char *why, size_t why_len)
{
	const char *p = list, *end;

	for (;; p = end + 1) {
		size_t len;

		p += strspn(p, SPACE);
		end = entry_end(p);
		if (end == NULL) {
			snprintf(why, why_len, "a double quote is open in: %s", list);
			return (false);
		}
		len = (size_t)(end - p);
		while (len > 0 && strchr(SPACE, p[len - 1]) != NULL)
			len--;
		if (len == 0) {
			snprintf(why, why_len, "a name is missing in: %s", list);
			return (false);
		}
		if (n->count == NAMES_MAX) {
			snprintf(why, why_len, "more than %d names", NAMES_MAX);
			return (false);
		}
		names_add(n, p, len);
		if (*end == '\0')
			return (true);
	}
}

/* Appends the quoted name at p, without its quotes. */
static const char *
part_quoted(struct names *parts, const char *p)
{
	const char *end = quoted_end(p);
	struct buf b = {0};

	if (end == NULL)
		return (NULL);
	for (p++; p < end - 1; p++) {
		buf_add(&b, p, 1);
		p += *p == '"';
	}
	names_add(parts, b.len > 0 ? (const char *)b.mem : "", b.len);
	buf_free(&b);
	return (end);
}

/* Letters of other alphabets stay as they are, as in PostgreSQL with UTF-8. */
static const char *
part_plain(struct names *parts, const char *p)
{
	size_t len = strcspn(p, ".\"" SPACE);
	char *part;

	names_add(parts, p, len);
	part = parts->v[parts->count - 1];
	for (size_t i = 0; i < len; i++)
		if (part[i] >= 'A' && part[i] <= 'Z')
			part[i] += 'a' - 'A';
	return (p + len);
}

bool
name_parts(struct names *parts, const char *text, size_t most, char *why, size_t why_len)
{
	size_t before = parts->count;
	const char *p = text;

	for (;; p++) {
		p += strspn(p, SPACE);
		p = *p == '"' ? part_quoted(parts, p) : part_plain(parts, p);
		if (p == NULL || parts->v[parts->count - 1][0] == '\0')
			break;
		p += strspn(p, SPACE);
		if (*p == '\0' && parts->count - before <= most)
			return (true);
		if (*p != '.' || parts->count - before >= most)
			break;
	}
	while (parts->count > before)
		names_drop_last(parts);
	if (before == 0)
		names_free(parts);
	snprintf(why, why_len, "\"%s\" is no name of a %s", text,
	    most > 1 ? "table" : "column");
	return (false);
}

/* ---- times ---- */

static const struct unit {
	const char *name;
	int64_t us;
} units[] = {
    /* First those that interval_text() uses, from the largest down. */
    {"d", 86400 * SECOND_US},
    {"h", 3600 * SECOND_US},
    {"min", 60 * SECOND_US},
    {"s", SECOND_US},
    {"ms", 1000},
    {"us", 1},
    {"day", 86400 * SECOND_US},
    {"days", 86400 * SECOND_US},
    {"week", 7 * 86400 * SECOND_US},
    {"weeks", 7 * 86400 * SECOND_US},
    {"hour", 3600 * SECOND_US},
    {"hours", 3600 * SECOND_US},
    {"m", 60 * SECOND_US},
    {"mins", 60 * SECOND_US},
    {"minute", 60 * SECOND_US},
    {"minutes", 60 * SECOND_US},
    {"sec", SECOND_US},
    {"secs", SECOND_US},
    {"second", SECOND_US},
    {"seconds", SECOND_US},
};
#define UNITS_OF_TEXT 6
#define INTERVAL_MAX  (366 * 86400 * SECOND_US)

static const struct unit *
unit_find(const char *p, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (strlen(units[i].name) == len &&
		    strncasecmp(units[i].name, p, len) == 0)
			return (&units[i]);
	return (NULL);
}

bool
interval_read(const char *text, int64_t *us)
{
	const char *p = text + strspn(text, SPACE);
	int64_t sum = 0;

	do {
		const struct unit *unit;
		char *end;
		double number;
		size_t len;

		if (*p < '0' || *p > '9')
			return (false);
		errno = 0;
		number = strtod(p, &end);
		if (errno != 0 || p[1] == 'x' || p[1] == 'X')
			return (false);
		p = end + strspn(end, SPACE);
		len = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
		/* A number by itself counts seconds, as in the configuration. */
		unit = len == 0 ? unit_find("s", 1) : unit_find(p, len);
		if (unit == NULL || number * (double)unit->us > (double)INTERVAL_MAX)
			return (false);
		sum += (int64_t)(number * (double)unit->us);
		p += len;
		p += strspn(p, SPACE);
	} while (*p != '\0' && sum <= INTERVAL_MAX);
	*us = sum;
	return (sum <= INTERVAL_MAX);
}

char *
interval_text(int64_t us)
{
	size_t i = 0;

	while (i + 1 < UNITS_OF_TEXT && us % units[i].us != 0)
		i++;
	return (mem_printf("%" PRId64 "%s", us / units[i].us, units[i].name));
}
