/*
 * What a leg does, step by step: each step asks one of its two databases one thing, looks at
 * the answer, and goes on with the next that is wanted, or jumps.
 *
 *   both      settings, a lock on the target, what the catalogs say, whether it fits
 *   (check)   forget the watermarks of an older job of that name; end
 *   source    what is open there (bound.c), then the snapshot that all tables are read in
 *   each table, parents first:
 *     target  begin, stage
 *     source -> target   the rows (pump.c)
 *     target  upsert ----- 23505: a unique value has moved ---> replace
 *             sequences, watermark, commit
 *
 * In mode full all tables are one transaction, and what is gone goes at its end, children
 * first.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUICK_US (60 * SECOND_US) /* for what is quick: catalogs, locks, begin */

enum step_id {
	S_SETTINGS_FROM,
	S_SETTINGS_TO,
	S_LOCK,
	S_COLUMNS_FROM,
	S_KEYS_FROM,
	S_COLUMNS_TO,
	S_KEYS_TO,
	S_TYPES,
	S_ORDER,
	S_LOOK,
	S_HAS_WATERMARKS,
	S_FORGET,
	S_CHECKED,
	S_MAKE_WATERMARKS,
	S_WATERMARKS,
	S_EMPTY,
	S_EMPTY_NEXT,
	S_NEWEST,
	S_NEWEST_NEXT,
	S_BOUND,
	S_PREPARED,
	S_SNAPSHOT,
	S_BEGIN,
	S_STAGE,
	S_ROWS,
	S_EMPTYING,
	S_SAVEPOINT,
	S_UPSERT,
	S_BACK,
	S_QUIET,
	S_REPLACE_DELETE,
	S_REPLACE_GONE,
	S_LOUD,
	S_REPLACE_INSERT,
	S_SEQUENCE,
	S_WATERMARK,
	S_MORE,
	S_GONE,
	S_GONE_BEFORE,
	S_COMMIT,
	S_DONE,
	S_COUNT
};
struct step {
	enum where { SOURCE, TARGET, HERE, PUMP } where;
	enum pace { QUICK, LONG } pace;
	bool (*wanted)(const struct leg *); /* NULL: always */
	/* Appends the statement; HERE: does it. */
	void (*ask)(struct leg *, struct buf *sql);
	/* NULL: the answer says nothing. */
	void (*take)(struct leg *, const PGresult *);
	/* The statement failed: true when that has been dealt with. */
	bool (*failed)(struct leg *, const char *sqlstate);
	/* How many it has set, of PARAMS_MAX. */
	unsigned (*params)(const struct leg *, const char **);
};
#define PARAMS_MAX 8

/* ---- where a leg is ---- */

static void
go(struct leg *leg, enum step_id id)
{
	leg->next = id;
}

static struct copy *this(const struct leg *leg)
{
	return (&leg->copies[leg->order[leg->at]]);
}

static bool
is_check(const struct leg *leg)
{
	return (leg->run->purpose == PURPOSE_CHECK);
}

static bool
is_run(const struct leg *leg)
{
	return (leg->run->purpose == PURPOSE_RUN);
}

static bool
is_full(const struct leg *leg)
{
	return (leg->run->job->is_full);
}

static bool
is_by_key(const struct leg *leg)
{
	return (!is_full(leg));
}

/* REPLICATE TABLE leaves nothing behind: it reads all rows. */
static bool
keeps_watermark(const struct leg *leg)
{
	return (is_by_key(leg) && is_run(leg) && !leg->run->job->is_once);
}

/* The same again for the next table; after the last it goes on, with the first. */
static void
next_table(struct leg *leg, enum step_id same)
{
	if (leg->at + 1 == leg->copy_count) {
		leg->at = 0;
		return;
	}
	leg->at++;
	go(leg, same);
}

/* ---- parameters ---- */

static unsigned
params_tables(const struct leg *leg, const char **p)
{
	p[0] = leg->tables;
	return (1);
}

/* Who runs a job, and whose watermark it is. */
static unsigned
params_job(const struct leg *leg, const char **p)
{
	p[0] = leg->run->job->text.name;
	return (1);
}

static unsigned
params_watermarks(const struct leg *leg, const char **p)
{
	p[0] = leg->run->job->text.name;
	p[1] = leg->run->job->text.source;
	p[2] = leg->run->job->sync_key;
	return (3);
}

/* ---- both: settings, lock, catalogs ---- */

static void
ask_settings(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, sql_settings);
}

static void
ask_lock(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql,
	    "SELECT pg_try_advisory_lock(hashtextextended('pgweave job ' || $1, 0))");
}

static void
take_lock(struct leg *leg, const PGresult *r)
{
	if (PQgetvalue(r, 0, 0)[0] != 't')
		leg_skip(leg, "another proxy runs the job on this target");
}

static void
ask_columns(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, catalog_columns_sql);
}

static void
take_columns(struct leg *leg, const PGresult *r)
{
	catalog_take_columns(
	    leg->copies, leg->copy_count, leg->at_step == S_COLUMNS_TO, r);
}

static void
ask_keys(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, catalog_keys_sql);
}

static void
take_keys_source(struct leg *leg, const PGresult *r)
{
	catalog_take_keys(leg->copies, leg->copy_count, false, r);
}

static void
take_keys_target(struct leg *leg, const PGresult *r)
{
	const struct job *job = leg->run->job;

	catalog_take_keys(leg->copies, leg->copy_count, true, r);
	for (size_t i = 0; i < leg->copy_count; i++) {
		struct complaint why = {0};

		if (catalog_match(&leg->copies[i], job->text.source, leg->target,
			job->is_full, &why))
			continue;
		leg_fail(leg, why.sqlstate, why.hint, "%s", why.message);
		complaint_free(&why);
		return;
	}
}

static bool
types_differ(const struct leg *leg)
{
	struct buf sql = {0};
	bool differ = catalog_types_sql(leg->copies, leg->copy_count, &sql);

	buf_free(&sql);
	return (differ);
}

static void
ask_types(struct leg *leg, struct buf *sql)
{
	(void)catalog_types_sql(leg->copies, leg->copy_count, sql);
}

static void
take_types(struct leg *leg, const PGresult *r)
{
	if (PQntuples(r) > 0)
		leg_fail(leg, "42804", NULL,
		    "column \"%s\" of table \"%s\" is of type %s in database \"%s\" and of type %s in database \"%s\"",
		    PQgetvalue(r, 0, 1), PQgetvalue(r, 0, 0), PQgetvalue(r, 0, 2),
		    leg->run->job->text.source, PQgetvalue(r, 0, 3), leg->target);
}

static void
ask_order(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, catalog_order_sql);
}

static void
take_order(struct leg *leg, const PGresult *r)
{
	catalog_take_order(leg->order, leg->copy_count, r);
}

/* ---- the source: what is open there ---- */

static void
ask_bound(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, bound_sql);
}

static void
take_bound(struct leg *leg, const PGresult *r)
{
	struct bound *b = &leg->bound;

	free(b->holder);
	b->now_us = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
	b->oldest_us = PQgetisnull(r, 0, 1) ? 0 : strtoll(PQgetvalue(r, 0, 1), NULL, 10);
	b->sees_all = PQgetvalue(r, 0, 2)[0] == 't';
	b->holder = PQgetisnull(r, 0, 3) ? NULL : mem_str(PQgetvalue(r, 0, 3));
}

/* What the first look says of our rights; a check ends with it. */
static void
take_look(struct leg *leg, const PGresult *r)
{
	const char *source = leg->run->job->text.source;
	struct buf *out = &leg->run->notices;
	bool is_first = leg == TAILQ_FIRST(&leg->run->legs);

	take_bound(leg, r);
	(void)text_copy(leg->timeline, sizeof(leg->timeline), PQgetvalue(r, 0, 4));
	for (size_t i = 0; i < leg->copy_count; i++) {
		leg->copies[i].is_blind = !leg->bound.sees_all;
		if (is_first && (is_check(leg) || leg->run->job->is_once))
			catalog_notices(&leg->copies[i], source, out);
	}
	if (is_check(leg) && is_first && !leg->bound.sees_all)
		buf_addf(out,
		    "the role at database \"%s\" may not see other sessions (pg_read_all_stats), or it is a replica: each run begins some time before the last one ended, and rows of transactions that are open longer may be missed\n",
		    source);
}

/* ---- the watermarks in the target ---- */

static void
ask_has_watermarks(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql,
	    "SELECT to_regclass('pgweave.watermark') IS NOT NULL, EXISTS (SELECT FROM"
	    " pg_catalog.pg_attribute WHERE attrelid = to_regclass('pgweave.watermark')"
	    " AND attname = 'timeline')");
}

/* A check looks for those of an older job of that name. */
static bool
wants_watermarks(const struct leg *leg)
{
	return (is_by_key(leg) && !leg->run->job->is_once);
}

static void
take_has_watermarks(struct leg *leg, const PGresult *r)
{
	leg->has_watermarks = PQgetvalue(r, 0, 0)[0] == 't';
	leg->has_timelines = PQgetvalue(r, 0, 1)[0] == 't';
}

static bool
wants_forget(const struct leg *leg)
{
	return (is_check(leg) && leg->has_watermarks);
}

static bool
wants_make_watermarks(const struct leg *leg)
{
	return (keeps_watermark(leg) && (!leg->has_watermarks || !leg->has_timelines));
}

static void
ask_make_watermarks(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, sql_watermark_table);
}

/* A new job begins at the beginning, whatever one of its name has left. */
static void
ask_forget(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "DELETE FROM pgweave.watermark WHERE job = $1");
}

static void
do_end(struct leg *leg, struct buf *sql)
{
	(void)sql;
	leg_end(leg, LEG_DONE);
}

static void
ask_watermarks(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql,
	    "SELECT table_name, value, pending, pending_us, timeline FROM pgweave.watermark"
	    " WHERE job = $1 AND source = $2 AND sync_key = $3");
}

/* The source has been promoted since: what it left before is not to be relied on. */
static bool
is_of_another_timeline(struct leg *leg, const PGresult *r, int row)
{
	const char *was = PQgetvalue(r, row, 4);

	if (was[0] == '\0' || leg->timeline[0] == '\0' || strcmp(was, leg->timeline) == 0)
		return (false);
	buf_addf(&leg->run->notices,
	    "target \"%s\", table %s: database \"%s\" was promoted since the last run, and all rows are read\n",
	    leg->target, PQgetvalue(r, row, 0), leg->run->job->text.source);
	return (true);
}

static void
take_watermarks(struct leg *leg, const PGresult *r)
{
	for (int row = 0; row < PQntuples(r); row++) {
		for (size_t i = 0; i < leg->copy_count; i++) {
			struct copy *c = &leg->copies[i];

			if (strcmp(c->source.sql, PQgetvalue(r, row, 0)) != 0 ||
			    c->watermark != NULL || c->pending != NULL ||
			    is_of_another_timeline(leg, r, row))
				continue;
			if (!PQgetisnull(r, row, 1))
				c->watermark = mem_str(PQgetvalue(r, row, 1));
			if (!PQgetisnull(r, row, 2))
				c->pending = mem_str(PQgetvalue(r, row, 2));
			c->pending_us = strtoll(PQgetvalue(r, row, 3), NULL, 10);
		}
	}
}

/* A table that somebody has emptied is filled again. */
static bool
wants_empty(const struct leg *leg)
{
	return (keeps_watermark(leg) && this(leg)->watermark != NULL);
}

static void
ask_empty(struct leg *leg, struct buf *sql)
{
	buf_addf(sql, "SELECT EXISTS (SELECT FROM %s)", this(leg)->target.sql);
}

static void
take_empty(struct leg *leg, const PGresult *r)
{
	struct copy *c = this(leg);

	if (PQgetvalue(r, 0, 0)[0] == 't')
		return;
	free(c->watermark);
	c->watermark = NULL;
}

static void
do_empty_next(struct leg *leg, struct buf *sql)
{
	(void)sql;
	next_table(leg, S_EMPTY);
}

static bool
wants_newest(const struct leg *leg)
{
	return (keeps_watermark(leg) && this(leg)->kind != KEY_CLOCK);
}

static void
ask_newest(struct leg *leg, struct buf *sql)
{
	bound_newest_sql(sql, this(leg), leg->run->job->overlap_us);
}

static void
take_newest(struct leg *leg, const PGresult *r)
{
	struct copy *c = this(leg);

	c->newest = PQgetisnull(r, 0, 0) ? NULL : mem_str(PQgetvalue(r, 0, 0));
	c->newest_us = strtoll(PQgetvalue(r, 0, 1), NULL, 10);
}

static void
do_newest_next(struct leg *leg, struct buf *sql)
{
	(void)sql;
	next_table(leg, S_NEWEST);
}

static void
ask_prepared(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, bound_prepared_sql);
}

static void
take_prepared(struct leg *leg, const PGresult *r)
{
	struct bound *b = &leg->bound;
	const char *source = leg->run->job->text.source;

	b->has_prepared = PQgetvalue(r, 0, 0)[0] == 't';
	leg->whole_us = b->now_us;
	for (size_t i = 0; i < leg->copy_count && keeps_watermark(leg); i++) {
		int64_t at_us = bound_next(&leg->copies[i], b, leg->run->job->overlap_us);

		if (at_us < leg->whole_us)
			leg->whole_us = at_us;
	}
	if (leg != TAILQ_FIRST(&leg->run->legs) || !keeps_watermark(leg))
		return;
	if (b->has_prepared)
		buf_addf(&leg->run->notices,
		    "a prepared transaction of database \"%s\" holds the watermark back\n",
		    source);
	else if (b->oldest_us > 0 && b->now_us - b->oldest_us > 60 * SECOND_US)
		buf_addf(&leg->run->notices,
		    "a transaction of database \"%s\" holds the watermark back: %s\n",
		    source, b->holder != NULL ? b->holder : "a hidden one");
}

static void
ask_snapshot(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
}

/* ---- each table ---- */

static bool
wants_begin(const struct leg *leg)
{
	return (is_by_key(leg) || leg->at == 0);
}

static void
ask_begin(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "BEGIN ISOLATION LEVEL READ COMMITTED");
}

static void
ask_stage(struct leg *leg, struct buf *sql)
{
	struct copy *c = this(leg);

	c->started_us = clock_wall_us();
	leg->part = 0;
	leg->without_triggers = false;
	sql_stage(sql, c, leg->order[leg->at]);
}

/* The only step that needs both at once: it comes back by leg_copied(). */
static void
do_rows(struct leg *leg, struct buf *sql)
{
	(void)sql;
	pump_start(leg);
}

static bool
wants_emptying(const struct leg *leg)
{
	return (this(leg)->key.count == 0);
}

static void
ask_gone(struct leg *leg, struct buf *sql)
{
	sql_delete_gone(sql, this(leg), leg->order[leg->at]);
}

static void
take_gone(struct leg *leg, const PGresult *r)
{
	this(leg)->rows_deleted +=
	    strtoll(PQcmdTuples((PGresult *)(uintptr_t)r), NULL, 10);
}

static void
ask_savepoint(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "SAVEPOINT pgweave_upsert");
}

static void
ask_upsert(struct leg *leg, struct buf *sql)
{
	sql_upsert(sql, this(leg), leg->order[leg->at]);
}

static void
take_written(struct leg *leg, const PGresult *r)
{
	this(leg)->rows_written =
	    strtoll(PQcmdTuples((PGresult *)(uintptr_t)r), NULL, 10);
	go(leg, S_SEQUENCE);
}

/* ---- a unique value went from one row to another ---- */

static bool
upsert_failed(struct leg *leg, const char *sqlstate)
{
	const struct copy *c = this(leg);

	/* Columns of the target's own would not come back. */
	if (strcmp(sqlstate, "23505") != 0 || c->key.count == 0 || c->extra.count > 0)
		return (false);
	leg->without_triggers = true;
	go(leg, S_BACK);
	return (true);
}

static void
ask_back(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "ROLLBACK TO SAVEPOINT pgweave_upsert");
}

static bool
wants_quiet(const struct leg *leg)
{
	return (leg->without_triggers);
}

/* The rows come back at once: those that refer to them must not follow them. */
static void
ask_quiet(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "SET LOCAL session_replication_role = replica");
}

static bool
quiet_failed(struct leg *leg, const char *sqlstate)
{
	struct copy *c = this(leg);

	if (strcmp(sqlstate, "42501") != 0)
		return (false);
	if (c->target.cascades) {
		leg_fail(leg, "23505",
		    "Let the target's role set session_replication_role, or use MODE full.",
		    "a unique value of table \"%s\" of database \"%s\" has moved from one row to another, and other tables follow what happens to its rows",
		    c->target.name, leg->target);
		return (true);
	}
	leg->without_triggers = false;
	go(leg, S_BACK);
	return (true);
}

static void
ask_replace_delete(struct leg *leg, struct buf *sql)
{
	sql_replace_delete(sql, this(leg), leg->order[leg->at]);
}

static void
ask_loud(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "SET LOCAL session_replication_role = DEFAULT");
}

static void
ask_replace_insert(struct leg *leg, struct buf *sql)
{
	sql_replace_insert(sql, this(leg), leg->order[leg->at]);
}

static bool
replace_failed(struct leg *leg, const char *sqlstate)
{
	const struct copy *c = this(leg);

	if (strcmp(sqlstate, "23505") != 0)
		return (false);
	leg_fail(leg, sqlstate,
	    "The source may have deleted that row: delete it from the target, or use MODE full.",
	    "a row of table \"%s\" of database \"%s\" that was not copied holds a unique value of one that was",
	    c->target.name, leg->target);
	return (true);
}

/* ---- the end of a table ---- */

static const struct column *
sequence_at(const struct leg *leg)
{
	const struct copy *c = this(leg);

	for (size_t i = leg->part; i < c->columns.count; i++) {
		const struct column *column =
		    relation_column(&c->target, c->columns.v[i]);

		if (column->sequence != NULL)
			return (column);
	}
	return (NULL);
}

static bool
wants_sequence(const struct leg *leg)
{
	return (sequence_at(leg) != NULL);
}

static void
ask_sequence(struct leg *leg, struct buf *sql)
{
	sql_sequence(sql, this(leg), leg->order[leg->at], sequence_at(leg));
}

static void
take_sequence(struct leg *leg, const PGresult *r)
{
	const char *name = sequence_at(leg)->name;

	(void)r;
	while (strcmp(this(leg)->columns.v[leg->part], name) != 0)
		leg->part++;
	leg->part++;
	go(leg, S_SEQUENCE);
}

static void
ask_watermark(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql,
	    "INSERT INTO pgweave.watermark AS w (job, table_name, source, sync_key, value,"
	    " pending, pending_us, timeline) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	    " ON CONFLICT (job, table_name) DO UPDATE SET source = excluded.source,"
	    " sync_key = excluded.sync_key, value = excluded.value,"
	    " pending = excluded.pending, pending_us = excluded.pending_us,"
	    " timeline = excluded.timeline,"
	    " written_at = now()");
}

static unsigned
params_watermark(const struct leg *leg, const char **p)
{
	const struct job *job = leg->run->job;
	const struct copy *c = this(leg);
	static char pending[24]; /* of the side thread alone */

	snprintf(pending, sizeof(pending), "%" PRId64, c->next_pending_us);
	p[0] = job->text.name;
	p[1] = c->source.sql;
	p[2] = job->text.source;
	p[3] = job->sync_key;
	p[4] = c->next;
	p[5] = c->next_pending;
	p[6] = c->next_pending != NULL ? pending : NULL;
	p[7] = leg->timeline;
	return (8);
}

/* In mode full the next table follows in the same transaction; then, backwards, what is gone
 * goes. */
static void
do_more(struct leg *leg, struct buf *sql)
{
	(void)sql;
	if (leg->at + 1 < leg->copy_count) {
		leg->at++;
		go(leg, S_STAGE);
	}
}

static bool
wants_gone(const struct leg *leg)
{
	return (is_full(leg) && this(leg)->key.count > 0);
}

static bool
has_before(const struct leg *leg)
{
	return (is_full(leg) && leg->at > 0);
}

static void
do_gone_before(struct leg *leg, struct buf *sql)
{
	(void)sql;
	leg->at--;
	go(leg, S_GONE);
}

static void
ask_commit(struct leg *leg, struct buf *sql)
{
	(void)leg;
	buf_addstr(sql, "COMMIT");
}

static void
take_commit(struct leg *leg, const PGresult *r)
{
	int64_t now_us = clock_wall_us();

	(void)r;
	if (is_full(leg)) {
		for (size_t i = 0; i < leg->copy_count; i++)
			leg->copies[i].ended_us = now_us;
		return;
	}
	this(leg)->ended_us = now_us;
	next_table(leg, S_BEGIN);
}

/* ---- the steps, and how they are walked ---- */

/* clang-format off */
static const struct step steps[S_COUNT] = {
	/*                    where   pace   wanted                 ask                  take                 failed         params */
	[S_SETTINGS_FROM]  = {SOURCE, QUICK, NULL,                  ask_settings,        NULL,                NULL,          NULL},
	[S_SETTINGS_TO]    = {TARGET, QUICK, NULL,                  ask_settings,        NULL,                NULL,          NULL},
	[S_LOCK]           = {TARGET, QUICK, is_run,                ask_lock,            take_lock,           NULL,          params_job},
	[S_COLUMNS_FROM]   = {SOURCE, QUICK, NULL,                  ask_columns,         take_columns,        NULL,          params_tables},
	[S_KEYS_FROM]      = {SOURCE, QUICK, NULL,                  ask_keys,            take_keys_source,    NULL,          params_tables},
	[S_COLUMNS_TO]     = {TARGET, QUICK, NULL,                  ask_columns,         take_columns,        NULL,          params_tables},
	[S_KEYS_TO]        = {TARGET, QUICK, NULL,                  ask_keys,            take_keys_target,    NULL,          params_tables},
	[S_TYPES]          = {TARGET, QUICK, types_differ,          ask_types,           take_types,          NULL,          NULL},
	[S_ORDER]          = {TARGET, QUICK, NULL,                  ask_order,           take_order,          NULL,          params_tables},
	[S_LOOK]           = {SOURCE, QUICK, is_by_key,             ask_bound,           take_look,           NULL,          NULL},
	[S_HAS_WATERMARKS] = {TARGET, QUICK, wants_watermarks,      ask_has_watermarks,  take_has_watermarks, NULL,          NULL},
	[S_FORGET]         = {TARGET, QUICK, wants_forget,          ask_forget,          NULL,                NULL,          params_job},
	[S_CHECKED]        = {HERE,   QUICK, is_check,              do_end,              NULL,                NULL,          NULL},
	[S_MAKE_WATERMARKS]= {TARGET, QUICK, wants_make_watermarks, ask_make_watermarks, NULL,                NULL,          NULL},
	[S_WATERMARKS]     = {TARGET, QUICK, keeps_watermark,       ask_watermarks,      take_watermarks,     NULL,          params_watermarks},
	[S_EMPTY]          = {TARGET, LONG,  wants_empty,           ask_empty,           take_empty,          NULL,          NULL},
	[S_EMPTY_NEXT]     = {HERE,   QUICK, NULL,                  do_empty_next,       NULL,                NULL,          NULL},
	[S_NEWEST]         = {SOURCE, LONG,  wants_newest,          ask_newest,          take_newest,         NULL,          NULL},
	[S_NEWEST_NEXT]    = {HERE,   QUICK, NULL,                  do_newest_next,      NULL,                NULL,          NULL},
	[S_BOUND]          = {SOURCE, QUICK, NULL,                  ask_bound,           take_bound,          NULL,          NULL},
	[S_PREPARED]       = {SOURCE, QUICK, NULL,                  ask_prepared,        take_prepared,       NULL,          NULL},
	[S_SNAPSHOT]       = {SOURCE, QUICK, NULL,                  ask_snapshot,        NULL,                NULL,          NULL},
	[S_BEGIN]          = {TARGET, QUICK, wants_begin,           ask_begin,           NULL,                NULL,          NULL},
	[S_STAGE]          = {TARGET, LONG,  NULL,                  ask_stage,           NULL,                NULL,          NULL},
	[S_ROWS]           = {PUMP,   LONG,  NULL,                  do_rows,             NULL,                NULL,          NULL},
	[S_EMPTYING]       = {TARGET, LONG,  wants_emptying,        ask_gone,            take_gone,           NULL,          NULL},
	[S_SAVEPOINT]      = {TARGET, QUICK, NULL,                  ask_savepoint,       NULL,                NULL,          NULL},
	[S_UPSERT]         = {TARGET, LONG,  NULL,                  ask_upsert,          take_written,        upsert_failed, NULL},
	[S_BACK]           = {TARGET, LONG,  NULL,                  ask_back,            NULL,                NULL,          NULL},
	[S_QUIET]          = {TARGET, QUICK, wants_quiet,           ask_quiet,           NULL,                quiet_failed,  NULL},
	[S_REPLACE_DELETE] = {TARGET, LONG,  NULL,                  ask_replace_delete,  NULL,                NULL,          NULL},
	[S_REPLACE_GONE]   = {TARGET, LONG,  is_full,               ask_gone,            take_gone,           NULL,          NULL},
	[S_LOUD]           = {TARGET, QUICK, wants_quiet,           ask_loud,            NULL,                NULL,          NULL},
	[S_REPLACE_INSERT] = {TARGET, LONG,  NULL,                  ask_replace_insert,  take_written,        replace_failed, NULL},
	[S_SEQUENCE]       = {TARGET, LONG,  wants_sequence,        ask_sequence,        take_sequence,       NULL,          NULL},
	[S_WATERMARK]      = {TARGET, QUICK, keeps_watermark,       ask_watermark,       NULL,                NULL,          params_watermark},
	[S_MORE]           = {HERE,   QUICK, is_full,               do_more,             NULL,                NULL,          NULL},
	[S_GONE]           = {TARGET, LONG,  wants_gone,            ask_gone,            take_gone,           NULL,          NULL},
	[S_GONE_BEFORE]    = {HERE,   QUICK, has_before,            do_gone_before,      NULL,                NULL,          NULL},
	[S_COMMIT]         = {TARGET, LONG,  NULL,                  ask_commit,          take_commit,         NULL,          NULL},
	[S_DONE]           = {HERE,   QUICK, NULL,                  do_end,              NULL,                NULL,          NULL},
};
/* clang-format on */

static void
step_answered(
    struct side *s, void *arg, const PGresult *result, const char *err, const char *state)
{
	struct leg *leg = arg;
	const struct step *step = &steps[leg->at_step];

	(void)s;
	if (result == NULL) {
		if (step->failed == NULL || !step->failed(leg, state))
			leg_fail(
			    leg, state[0] != '\0' ? state : "08006", NULL, "%s", err);
	} else if (step->take != NULL)
		step->take(leg, result);
	leg_walk(leg);
}

static void
step_ask(struct leg *leg, const struct step *step)
{
	struct side *on = step->where == SOURCE ? leg->from : leg->to;
	const char *params[PARAMS_MAX] = {NULL};
	unsigned count = 0;

	buf_add(&leg->sql, "", 1);
	if (step->params != NULL)
		count = step->params(leg, params);
	INVARIANT(count <= PARAMS_MAX);
	side_set_timeout(on, step->pace == QUICK ? QUICK_US : 0);
	side_query(on, (const char *)leg->sql.mem, count > 0 ? params : NULL, (int)count,
	    step_answered, leg);
}

void
leg_walk(struct leg *leg)
{
	while (leg->outcome == LEG_BUSY) {
		const struct step *step = &steps[leg->next];

		leg->at_step = leg->next++;
		if (step->wanted != NULL && !step->wanted(leg))
			continue;
		leg->sql.len = 0;
		step->ask(leg, &leg->sql);
		if (step->where == HERE)
			continue;
		if (step->where != PUMP)
			step_ask(leg, step);
		return;
	}
}

void
leg_copied(struct leg *leg)
{
	leg_walk(leg);
}
