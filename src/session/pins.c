/* What holds a session to its link: what cannot travel, why, since when, by which statement. */
#include "carry.h"
#include <stdlib.h>
#include <string.h>

#define STATEMENT_BYTES 200 /* of it are shown */

static const struct reason {
	unsigned leaves;
	const char *row, *name, *what;
	enum metric_id metric;
} reasons[] = {
    {SQL_LEAVES_TABLE, "t", "temporary table", "a temporary table, view or sequence",
	M_pins_table},
    {SQL_LEAVES_CURSOR, "c", "cursor with hold", "a cursor WITH HOLD", M_pins_cursor},
    {SQL_LEAVES_LOCK, "l", "advisory lock", "an advisory lock of the session",
	M_pins_lock},
    {SQL_LEAVES_LISTENER, "n", "listen", "LISTEN", M_pins_listen},
    {SQL_LEAVES_SEED, "", "setseed", "setseed()", M_pins_setseed},
    {SQL_LEAVES_UNNAMED, "", "set_config", "set_config() with a computed name",
	M_pins_set_config},
    {SQL_LEAVES_SEQUENCE, "", "sequence", "currval() or lastval()", M_pins_sequence},
};
_Static_assert(ARRAY_LEN(reasons) <= SESSION_PINS_MAX, "room for each");

/* Objects hang on their schema, and pg_depend has an index for that. */
const char pin_question[] =
    "SELECT 'p', 't', '' WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_depend WHERE "
    "refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass "
    "AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) "
    "UNION ALL SELECT 'p', 'c', '' WHERE EXISTS "
    "(SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable) "
    "UNION ALL SELECT 'p', 'l', '' WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE "
    "locktype OPERATOR(pg_catalog.=) 'advisory' AND "
    "pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) "
    "UNION ALL SELECT 'p', 'n', '' WHERE EXISTS "
    "(SELECT 1 FROM pg_catalog.pg_listening_channels())";

unsigned
pin_of_row(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (strcmp(reasons[i].row, name) == 0)
			return (reasons[i].leaves);
	return (0);
}

void
pins_note(struct pins *p, unsigned leaves, const char *sql, size_t len)
{
	if ((leaves & (CARRY_PINS | SQL_LEAVES_UNSEEN) & ~p->held) == 0 ||
	    p->statement != NULL)
		return;
	if (len > STATEMENT_BYTES)
		for (len = STATEMENT_BYTES; len > 0 && (sql[len] & 0xc0) == 0x80; len--)
			;
	p->statement = mem_strn(sql, len);
}

bool
pin_refuse(unsigned leaves, const char *hint, struct refusal *why)
{
	char *message;

	for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
		if ((leaves & reasons[i].leaves) == 0)
			continue;
		message = mem_printf(
		    "%s would hold the session to its server connection (pin = refuse)",
		    reasons[i].what);
		refusal_set(why, "0A000", message, NULL, hint);
		free(message);
		return (true);
	}
	return (false);
}

bool
pin_refuses(const struct session *s, unsigned leaves, struct refusal *why)
{
	return (s->seat->limits.refuses_pins &&
		pin_refuse(leaves,
		    "Use a database or login with pool_mode = session, or with "
		    "pin = allow.",
		    why));
}

void
pins_set(struct pins *p, struct seat *seat, unsigned asked, unsigned found)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
		const struct reason *r = &reasons[i];
		struct session_pin *pin = &p->all[i];

		if ((asked & r->leaves) == 0)
			continue;
		if ((found & r->leaves) == 0) {
			p->held &= ~r->leaves;
			free(pin->statement);
			*pin = (struct session_pin){0};
		} else if ((p->held & r->leaves) == 0) {
			p->held |= r->leaves;
			seat->metrics.v[r->metric]++;
			pin->reason = r->name;
			pin->member = seat->pool->database;
			pin->since_us = clock_us();
			pin->statement =
			    mem_str(p->statement != NULL ? p->statement : "");
		}
	}
}

void
pin_set(struct session *s, unsigned asked, unsigned found)
{
	pins_set(&s->carry->pins, s->seat, asked, found);
}

void
pins_forget(struct pins *p)
{
	free(p->statement);
	p->statement = NULL;
}

void
pins_free(struct pins *p)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		free(p->all[i].statement);
	free(p->statement);
}

/* The n-th; *n: how many more are to be passed. */
static const struct session_pin *
pin_at(const struct pins *p, unsigned *n)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if ((p->held & reasons[i].leaves) != 0 && (*n)-- == 0)
			return (&p->all[i]);
	return (NULL);
}

const struct session_pin *
session_pin(const struct session *s, unsigned n)
{
	const struct session_pin *pin = NULL;
	const struct anchor *a;

	if (s->carry != NULL)
		pin = pin_at(&s->carry->pins, &n);
	if (s->weave == NULL)
		return (pin);
	TAILQ_FOREACH(a, &s->weave->anchors, entry)
		if (pin == NULL)
			pin = pin_at(&a->pins, &n);
	return (pin);
}
