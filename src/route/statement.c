/* What a statement is, as far as its way depends on it: a read, a write, or neither. */
#include "private.h"

/* Utility statements that change nothing but the session: open cursors, prepared statements,
 * channels, SET CONSTRAINTS. PREPARE and EXECUTE run what the facts do not tell. */
static bool
is_harmless_utility(const char *verb)
{
	static const char *const verbs[] = {"close", "deallocate", "discard", "fetch",
	    "listen", "move", "set", "unlisten"};

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i], verb) == 0)
			return (true);
	}
	return (false);
}

bool
route_may_write(const struct route_input *in)
{
	switch (in->facts->class) {
	case SQL_UNKNOWN:
	case SQL_WRITE:
	case SQL_DDL:
	case SQL_TWO_PHASE:
		return (true);
	case SQL_UTILITY:
		return (!in->facts->is_plain_read && !in->facts->declares_read &&
			!is_harmless_utility(in->scan->verb));
	case SQL_EMPTY:
	case SQL_READ:
	case SQL_SET:
	case SQL_BEGIN:
	case SQL_COMMIT:
	case SQL_ROLLBACK:
	case SQL_SAVEPOINT:
	case SQL_EXPLAIN_ROUTE:
		break;
	}
	return (false);
}

bool
route_is_read(const struct route_input *in)
{
	enum sql_class class = in->facts->class;

	return (class == SQL_READ || class == SQL_SET || class == SQL_EMPTY ||
		class == SQL_EXPLAIN_ROUTE);
}

bool
route_is_of_session(const struct route_input *in)
{
	switch (in->facts->class) {
	case SQL_EMPTY:
	case SQL_SET:
	case SQL_BEGIN:
	case SQL_COMMIT:
	case SQL_ROLLBACK:
	case SQL_SAVEPOINT:
	case SQL_TWO_PHASE:
	case SQL_EXPLAIN_ROUTE:
		return (true);
	case SQL_UTILITY:
		return (is_harmless_utility(in->scan->verb));
	case SQL_UNKNOWN:
	case SQL_READ:
	case SQL_WRITE:
	case SQL_DDL:
		break;
	}
	return (false);
}

const char *
route_verb(const struct route_input *in, char to[24])
{
	const char *verb = in->scan->verb;
	size_t i;

	if (in->facts->class == SQL_WRITE && in->facts->writes != NULL)
		return (in->facts->writes);

	for (i = 0; i < 23 && verb[i] != '\0'; i++)
		to[i] = (char)(verb[i] >= 'a' && verb[i] <= 'z' ? verb[i] - 32 : verb[i]);
	to[i] = '\0';
	return (to);
}

const char *route_class_name(enum sql_class class)
{
	switch (class) {
	case SQL_UNKNOWN:
		return ("unknown");
	case SQL_EMPTY:
		return ("empty");
	case SQL_READ:
		return ("read");
	case SQL_WRITE:
		return ("write");
	case SQL_DDL:
		return ("DDL");
	case SQL_UTILITY:
		return ("utility");
	case SQL_SET:
		return ("setting");
	case SQL_BEGIN:
	case SQL_COMMIT:
	case SQL_ROLLBACK:
	case SQL_SAVEPOINT:
		return ("transaction");
	case SQL_TWO_PHASE:
		return ("two-phase");
	case SQL_EXPLAIN_ROUTE:
		return ("explain route");
	}
	return ("unknown");
}
