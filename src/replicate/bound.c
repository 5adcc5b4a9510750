/*
 * Up to where nothing can be missing.
 *
 * A row gets its sync key when its transaction begins, or somewhere on the way, and is seen
 * when that commits: by then rows with greater keys may long have been copied. So what a run
 * leaves as its watermark is not the greatest key it has read, but a key below which all is
 * known. It is found before the snapshot is taken, in which the rows are then read; what lies
 * between the watermark and the snapshot is read again by the next run, and harms nothing.
 *
 *   KEY_CLOCK  (timestamptz) the beginning of the oldest open transaction, or now; less a
 *              little, see SKEW_US
 *   the others the greatest key that was there at some moment, once all transactions that
 *              were open at that moment have ended: those that began later write greater
 *              ones. When some are still open, the key and the moment are kept (pending),
 *              and a later run looks again.
 *
 * A prepared transaction hides when it began: while there is one, nothing moves. Where the
 * role may not see other sessions, or the source is a replica, where those that write are not
 * to be seen, keys that are times go back by the overlap instead.
 *
 * All of this holds on one timeline. A promotion begins another: its clock may be behind, and
 * what the old primary had not sent is lost, so that keys come again. A watermark of another
 * timeline than the source's counts for nothing: all rows are read once more.
 */
#include "private.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The first of two: a transaction that is being prepared between them is seen by one or the
 * other. Autovacuum writes no rows, nor does a connection that streams the log, nor our own
 * that read. The type of a hidden session is null. */
const char *const bound_sql =
    "WITH o AS MATERIALIZED (SELECT pid, xact_start, backend_type, application_name"
    " FROM pg_catalog.pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND coalesce(backend_type, '') NOT IN"
    " ('autovacuum worker', 'walsender') AND NOT (coalesce(application_name, '') ="
    " 'pgweave replication' AND backend_xid IS NULL))"
    " SELECT floor(extract(epoch FROM now()) * 1000000)::bigint,"
    " floor(extract(epoch FROM min(o.xact_start)) * 1000000)::bigint,"
    " (pg_has_role('pg_read_all_stats', 'USAGE') OR count(*) = count(o.backend_type))"
    " AND NOT pg_is_in_recovery(),"
    " (SELECT format('process %s (%s), open for %s', b.pid, b.application_name,"
    " date_trunc('second', now() - b.xact_start)) FROM o b WHERE b.xact_start IS NOT NULL"
    " ORDER BY b.xact_start LIMIT 1), CASE WHEN NOT pg_is_in_recovery() THEN"
    " substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END FROM o";
const char *const bound_prepared_sql =
    "SELECT count(*) > 0 FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()";

enum key_kind
key_kind(const char *type)
{
	return (strcmp(type, "timestamp with time zone") == 0      ? KEY_CLOCK
		: strcmp(type, "timestamp without time zone") == 0 ? KEY_TIME
		: strcmp(type, "date") == 0                        ? KEY_DATE
								   : KEY_OTHER);
}

/* The time of looking is taken after the look. */
void
bound_newest_sql(struct buf *b, const struct copy *c, int64_t overlap_us)
{
	int64_t back_us = overlap_us >= 0 ? overlap_us
			  : c->is_blind   ? OVERLAP_DEFAULT_US
					  : 0;

	buf_addstr(b, "SELECT (x.k");
	if (c->kind == KEY_TIME)
		buf_addf(b, " - interval '%" PRId64 " microseconds'", back_us + SKEW_US);
	else if (c->kind == KEY_DATE)
		buf_addf(b, " - %" PRId64,
		    (back_us + 86400 * SECOND_US - 1) / (86400 * SECOND_US));
	buf_addstr(b,
	    ")::text, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	    " FROM (VALUES (1)) one LEFT JOIN (SELECT ");
	sql_name(b, c->sync_key);
	buf_addf(b, " AS k FROM %s ORDER BY 1 DESC LIMIT 1) x ON true", c->source.sql);
}

static void
keep(char **to, const char *text)
{
	char *copy = text != NULL ? mem_str(text) : NULL;

	free(*to);
	*to = copy;
}

/* A time that PostgreSQL reads whatever its settings are. */
static char *
clock_text(int64_t us)
{
	time_t s = (time_t)(us / SECOND_US);
	struct tm tm;
	char text[64] = "";

	if (gmtime_r(&s, &tm) != NULL)
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	return (mem_printf("%s.%06" PRId64 "+00", text, us % SECOND_US));
}

static int64_t
clock_next(struct copy *c, const struct bound *b, int64_t overlap_us)
{
	int64_t at_us = b->now_us;

	if (b->has_prepared) {
		keep(&c->next, c->watermark);
		return (0);
	}
	if (b->oldest_us > 0 && b->oldest_us < at_us)
		at_us = b->oldest_us;
	if (overlap_us < 0)
		overlap_us = b->sees_all ? 0 : OVERLAP_DEFAULT_US;
	free(c->next);
	c->next = clock_text(at_us - SKEW_US - overlap_us);
	return (at_us);
}

int64_t
bound_next(struct copy *c, const struct bound *b, int64_t overlap_us)
{
	bool can_prove = !b->has_prepared && b->sees_all;
	bool is_proven = can_prove && (b->oldest_us == 0 || b->oldest_us > c->newest_us);
	bool was_proven = can_prove && c->pending != NULL &&
			  (b->oldest_us == 0 || b->oldest_us > c->pending_us);

	if (c->kind == KEY_CLOCK)
		return (clock_next(c, b, overlap_us));
	if (is_proven || (c->is_blind && !b->has_prepared)) {
		keep(&c->next, c->newest);
		keep(&c->next_pending, NULL);
		return (c->newest_us);
	}
	keep(&c->next, was_proven ? c->pending : c->watermark);
	if (c->pending == NULL || was_proven) {
		keep(&c->next_pending, c->newest);
		c->next_pending_us = c->newest_us;
	} else {
		keep(&c->next_pending, c->pending);
		c->next_pending_us = c->pending_us;
	}
	return (was_proven ? c->pending_us : 0);
}
