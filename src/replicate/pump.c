/*
 * The rows of one table on their way: COPY out of the source, COPY into the stage of the
 * target, chunk by chunk. When the target does not take them as fast as they come, the source
 * waits: no more than what is unsent is held here.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

static struct copy *
pump_copy(const struct leg *leg)
{
	return (&leg->copies[leg->order[leg->at]]);
}

static const char *
pump_sql(struct leg *leg, void (*make)(struct buf *, const struct copy *))
{
	leg->sql.len = 0;
	make(&leg->sql, pump_copy(leg));
	buf_add(&leg->sql, "", 1);
	return ((const char *)leg->sql.mem);
}

static void
pump_written(
    struct side *s, void *arg, const PGresult *result, const char *err, const char *state)
{
	struct leg *leg = arg;

	(void)s;
	leg->is_writing = false;
	if (leg->read_error != NULL)
		leg_fail(leg, leg->read_state, NULL, "%s", leg->read_error);
	else if (result == NULL)
		leg_fail(leg, state[0] != '\0' ? state : "08006", NULL, "%s", err);
	else
		leg_copied(leg);
}

static void
pump_read(
    struct side *s, void *arg, const PGresult *result, const char *err, const char *state)
{
	struct leg *leg = arg;
	struct copy *c = pump_copy(leg);

	(void)s;
	leg->is_reading = false;
	if (result == NULL) {
		leg->read_error = mem_str(err);
		(void)text_copy(leg->read_state, sizeof(leg->read_state),
		    state[0] != '\0' ? state : "08006");
		side_copy_end(leg->to, "the source has failed", pump_written);
		return;
	}
	/* The server's count: what was counted on the way is for those who look on. */
	c->rows_read = strtoll(PQcmdTuples((PGresult *)(uintptr_t)result), NULL, 10);
	side_copy_end(leg->to, NULL, pump_written);
}

/* In the text form every row ends with a line feed, and none is within one. */
static bool
pump_data(struct side *s, void *arg, const char *p, int len)
{
	struct leg *leg = arg;
	struct copy *c = pump_copy(leg);

	(void)s;
	c->bytes += len;
	for (const char *at = p, *end = p + len; at < end; at++) {
		at = memchr(at, '\n', (size_t)(end - at));
		if (at == NULL)
			break;
		c->rows_read++;
	}
	return (side_copy_put(leg->to, p, (size_t)len));
}

static void
pump_drained(struct side *s, void *arg)
{
	struct leg *leg = arg;

	(void)s;
	if (leg->is_reading)
		side_copy_resume(leg->from);
}

static void
pump_ready(struct side *s, void *arg, const char *err)
{
	struct leg *leg = arg;

	(void)s;
	if (err != NULL) {
		leg_fail(leg, "08006", NULL, "%s", err);
		return;
	}
	leg->is_reading = leg->is_writing = true;
	side_set_timeout(leg->from, 0);
	side_copy_out(leg->from, pump_sql(leg, sql_copy_out), pump_data, pump_read, leg);
}

void
pump_start(struct leg *leg)
{
	leg->sql.len = 0;
	sql_copy_in(&leg->sql, pump_copy(leg), leg->order[leg->at]);
	buf_add(&leg->sql, "", 1);
	side_set_timeout(leg->to, 0);
	side_copy_in(leg->to, (const char *)leg->sql.mem, pump_ready, pump_drained, leg);
}
