/*
 * One probe: over a connection that is kept or opened, one query, or a knock where there is no
 * role to log in with; then the verdict, and when the next one is due.
 */
#include "private.h"
#include "stat.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* With longer pauses the connection is not kept between probes. */
#define KEEP_US 60000000

#define PROBE_COMMON                                                                     \
	"SELECT r,"                                                                      \
	" CASE WHEN r THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END"      \
	" - '0/0'::pg_lsn,"                                                              \
	" CASE WHEN r THEN pg_last_wal_replay_lsn() END - '0/0'::pg_lsn,"                \
	" CASE WHEN r THEN (extract(epoch FROM clock_timestamp()"                        \
	" - pg_last_xact_replay_timestamp()) * 1000000)::bigint END,"                    \
	" current_setting('server_version'),"                                            \
	" (SELECT sum(numbackends) FROM pg_stat_database)"
#define PROBE_FROM " FROM (SELECT pg_is_in_recovery() AS r) s"
/* The timeline on which a primary writes stands in the name of its file of the log; the one in
 * the control file is older until the first checkpoint after a promotion has ended. */
static const char probe_sql[] = PROBE_COMMON
    ", CASE WHEN NOT r THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,"
    " (SELECT system_identifier FROM pg_control_system()),"
    " (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint" PROBE_FROM;
/* For servers that do not tell these things. */
static const char probe_less_sql[] = PROBE_COMMON ", NULL, NULL, NULL" PROBE_FROM;
#define PROBE_COLUMNS 9

/* ---- the end of a probe ---- */

static void
probe_close(struct watch *w)
{
	if (w->side != NULL)
		side_close(w->side);
	w->side = NULL;
}

/* A place in the interval that depends on the name: databases do not all come at once. */
static int64_t
spread_us(const struct watch *w)
{
	int64_t half = w->rules.interval_us / 2;

	return (half + (half > 0 ? (int64_t)(w->node.hash % (uint64_t)half) : 0));
}

static void
probe_over(struct watch *w, int64_t now_us)
{
	int64_t pause = judge_pause_us(w);

	w->is_probing = false;
	if (pause == w->rules.interval_us && !w->is_spread) {
		w->is_spread = true;
		pause = spread_us(w);
	}
	/* From when it began, so that what it took does not add up. */
	w->due_us = pause == INT64_MAX ? INT64_MAX : w->started_us + pause;
	if (w->due_us < now_us)
		w->due_us = now_us;
}

/* What it means for the primary and the replicas that it belongs to. */
static void
probe_review(const struct watch *w, int64_t now_us)
{
	struct watch *group[LEAD_GROUP_MAX];
	size_t count = health_group(w, group);

	if (count > 0)
		lead_judge(group, count, now_us);
}

static void
probe_bad(struct watch *w, const char *reason)
{
	int64_t now = clock_us();

	probe_close(w);
	judge_bad(w, reason, now);
	probe_review(w, now);
	probe_over(w, now);
}

static void
probe_good(struct watch *w, struct found *f)
{
	struct watch *group[LEAD_GROUP_MAX];
	const struct watch *primary = lead_of(group, health_group(w, group));
	uint64_t lsn = 0;

	/* Only a primary that is one now says how far there is something to replay. */
	if (primary != NULL && primary != w && primary->bad == 0)
		lsn = primary->written_lsn;
	if (w->rules.interval_us == 0 || w->rules.interval_us > KEEP_US)
		probe_close(w);
	judge_good(w, f, lsn, clock_us());
	probe_review(w, clock_us());
	probe_over(w, clock_us());
}

void
knock_done(struct watch *w, const char *why)
{
	struct found f = {.connections = atomic_load(&w->verdict->connections),
	    .replay_age_us = -1,
	    .reached_us = w->query_us,
	    .response_us = clock_us() - w->query_us};

	if (why != NULL)
		probe_bad(w, why);
	else
		probe_good(w, &f);
}

/* ---- the query ---- */

static uint64_t
number_at(const PGresult *r, int column)
{
	return (
	    PQgetisnull(r, 0, column) ? 0 : strtoull(PQgetvalue(r, 0, column), NULL, 10));
}

static bool
read_answer(const PGresult *r, struct found *f)
{
	bool in_recovery;
	size_t len;

	if (PQntuples(r) != 1 || PQnfields(r) != PROBE_COLUMNS)
		return (false);
	in_recovery = PQgetvalue(r, 0, 0)[0] == 't';
	f->role = in_recovery ? TOPO_ROLE_REPLICA : TOPO_ROLE_PRIMARY;
	if (in_recovery)
		f->received_lsn = number_at(r, 1);
	else
		f->written_lsn = number_at(r, 1);
	f->replayed_lsn = number_at(r, 2);
	f->replay_age_us =
	    PQgetisnull(r, 0, 3) ? -1 : strtoll(PQgetvalue(r, 0, 3), NULL, 10);
	/* The clocks of two servers differ. */
	if (f->replay_age_us < 0 && !PQgetisnull(r, 0, 3))
		f->replay_age_us = 0;
	(void)text_copy(f->version, sizeof(f->version), PQgetvalue(r, 0, 4));
	/* "15.4 (Debian 15.4-1)" */
	len = strcspn(f->version, " ");
	f->version[len] = '\0';
	f->connections = PQgetisnull(r, 0, 5) ? -1 : (int64_t)number_at(r, 5);
	if (!PQgetisnull(r, 0, 6))
		f->timeline = (uint32_t)strtoul(PQgetvalue(r, 0, 6), NULL, 16);
	f->system = number_at(r, 7);
	f->started_us = (int64_t)number_at(r, 8);
	return (true);
}

/* What a server says that is none of PostgreSQL's own: it lives, and that is all. */
static bool
is_other_server(const char *sqlstate)
{
	return (strncmp(sqlstate, "42", 2) == 0 || strncmp(sqlstate, "0A", 2) == 0);
}

static void probe_open(struct watch *, int64_t now_us);
static void probe_ask(struct watch *, int64_t now_us);

static void
probe_answered(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct watch *w = arg;
	struct found f = {.replay_age_us = -1, .connections = -1};
	int64_t now = clock_us();

	f.response_us = now - w->query_us;
	f.reached_us = w->is_fresh ? w->query_us : 0;
	if (r != NULL && !read_answer(r, &f))
		probe_bad(w, "the answer to the probe is not as expected");
	else if (r == NULL && is_other_server(sqlstate) && !w->asks_less &&
		 side_is_open(s)) {
		w->asks_less = true;
		probe_ask(w, now);
	} else if (r != NULL || is_other_server(sqlstate))
		probe_good(w, &f);
	else if (!w->is_fresh && !side_is_open(s) &&
		 now - w->started_us < w->rules.timeout_us / 2) {
		/* A connection that was kept says little when it has gone: a new one
		 * decides. */
		probe_close(w);
		probe_open(w, now);
	} else
		probe_bad(w, err);
}

static void
probe_ask(struct watch *w, int64_t now_us)
{
	int64_t left = w->rules.timeout_us - (now_us - w->started_us);

	w->query_us = now_us;
	side_set_timeout(w->side, left > 1000 ? left : 1000);
	side_query(w->side, w->asks_less ? probe_less_sql : probe_sql, NULL, 0,
	    probe_answered, w);
}

static void
probe_opened(struct side *s, void *arg, const char *err)
{
	struct watch *w = arg;

	INVARIANT(s == w->side && w->is_probing);
	if (err != NULL)
		probe_bad(w, err);
	else
		probe_ask(w, clock_us());
}

static void
probe_open(struct watch *w, int64_t now_us)
{
	int64_t left = w->rules.timeout_us - (now_us - w->started_us);

	w->is_fresh = true;
	w->side_generation = topo_generation(w->topo);
	w->side = side_open(w->worker, w->topo, w->database, "pgweave health",
	    left > 1000 ? left : 1000, probe_opened, w);
}

void
probe_start(struct watch *w, int64_t now_us)
{
	INVARIANT(!w->is_probing);
	w->is_probing = true;
	w->started_us = w->query_us = now_us;
	atomic_store(&w->verdict->failures, 0);
	stat_count(M_health_probes, 1);
	/* Passwords and certificates may be other ones since. */
	if (w->side != NULL && w->side_generation != topo_generation(w->topo))
		probe_close(w);
	if (!side_can_login(w->topo, w->database)) {
		probe_close(w);
		knock_start(w);
	} else if (w->side != NULL) {
		w->is_fresh = false;
		probe_ask(w, now_us);
	} else
		probe_open(w, now_us);
}

void
probe_tick(struct watch *w, int64_t now_us)
{
	if (w->knock != NULL && now_us - w->started_us >= w->rules.timeout_us) {
		knock_end(w);
		probe_bad(w, "timeout: no answer");
	}
	/* Nothing is to stand in the way of who works at the server. */
	if (!w->is_probing && (atomic_load(&w->verdict->word) == TOPO_MAINTENANCE ||
				  atomic_load(&w->verdict->apart) > 0))
		probe_close(w);
	/* The server has ended what was kept: a reason to look at once. */
	if (!w->is_probing && w->side != NULL && !side_is_open(w->side)) {
		probe_close(w);
		w->due_us = now_us;
	}
}

void
probe_drop(struct watch *w)
{
	knock_end(w);
	probe_close(w);
	w->is_probing = false;
}
