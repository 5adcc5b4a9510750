/* From SQLSTATEs to HTTP: the longest prefix in the table decides. */
#include "status.h"
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *prefix;
	int status;
} statuses[] = {
    {"03", 400},    /* SQL statement not yet complete */
    {"07", 400},    /* dynamic SQL */
    {"08", 503},    /* connections */
    {"08P01", 400}, /* parameters that do not fit the statement */
    {"0A", 400},    /* feature not supported */
    {"20", 400},    /* case not found */
    {"21", 400},    /* cardinality */
    {"22", 400},    /* data */
    {"23", 400},    /* constraints */
    {"23505", 409}, /* unique_violation */
    {"25", 400},    /* transaction state */
    {"25006", 403}, /* read_only_sql_transaction */
    {"25P03", 504}, /* idle_in_transaction_session_timeout */
    {"26", 400},    /* statement name */
    {"28", 401},    /* authorization */
    {"2", 400},     /* the rest of what a statement can have wrong */
    {"34", 400},    /* cursor name */
    {"3", 400},     /* names of databases and schemas, functions, savepoints */
    {"40", 409},    /* transaction rollback */
    {"42", 400},    /* syntax, and names */
    {"42501", 403}, /* insufficient_privilege */
    {"44", 400},    /* WITH CHECK OPTION */
    {"53300", 429}, /* too_many_connections */
    {"53400", 429}, /* configuration_limit_exceeded */
    {"55", 409},    /* object not in prerequisite state */
    {"57014", 504}, /* query_canceled */
    {"57P", 503},   /* shutting down, starting, down */
    {"P0", 400},    /* RAISE */
};

int
status_of(const char *sqlstate)
{
	size_t best = 0;
	int status = 500;

	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		size_t len = strlen(statuses[i].prefix);

		if (len > best && strncmp(sqlstate, statuses[i].prefix, len) == 0) {
			best = len;
			status = statuses[i].status;
		}
	}
	return (status);
}

const char *
status_reason(int status)
{
	switch (status) {
	case 200:
		return ("OK");
	case 201:
		return ("Created");
	case 400:
		return ("Bad Request");
	case 401:
		return ("Unauthorized");
	case 403:
		return ("Forbidden");
	case 404:
		return ("Not Found");
	case 405:
		return ("Method Not Allowed");
	case 409:
		return ("Conflict");
	case 413:
		return ("Content Too Large");
	case 429:
		return ("Too Many Requests");
	case 503:
		return ("Service Unavailable");
	case 504:
		return ("Gateway Timeout");
	default:
		return ("Internal Server Error");
	}
}

/* Milliseconds of the unit that a text begins with; 0: it is none. */
static double
unit_ms(const char *p)
{
	while (*p == ' ')
		p++;
	if (strncmp(p, "ms", 2) == 0 || strncmp(p, "millisecond", 11) == 0)
		return (1);
	if (strncmp(p, "min", 3) == 0)
		return (60000);
	if (*p == 's' && (strncmp(p, "sec", 3) == 0 || strchr(" .,;)", p[1]) != NULL))
		return (1000);
	return (0);
}

int64_t
status_retry_after(const char *detail)
{
	const char *p = detail;
	char *end;

	while ((p = strpbrk(p, "0123456789")) != NULL) {
		double n = strtod(p, &end), ms = n * unit_ms(end);

		if (ms > 0 && ms < 1e12)
			return (ms < 1 ? 1 : ((int64_t)ms + 999) / 1000);
		p = end;
	}
	return (0);
}
