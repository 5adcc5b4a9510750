/*
 * store/claim.c: of the proxies that share a store one runs a job at a time.
 *
 * A row for each job: who has begun it last, and until when he is believed to be at it. Who
 * runs it moves that time on; who has died does not, and then another begins the job anew.
 * Who only cannot reach the store goes on, and the lock that replicate has in each target
 * keeps the other one out.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELD_FOR "interval '30 seconds'"
#define NOW      "pg_catalog.clock_timestamp()"

/* ---- those of this process ---- */

static struct claim *
claim_find(struct store *st, const char *job)
{
	for (size_t i = 0; i < st->claim_count; i++)
		if (strcmp(st->claims[i].job, job) == 0)
			return (&st->claims[i]);
	return (NULL);
}

static void
claim_note(struct store *st, const char *job, int64_t run)
{
	struct claim *c = claim_find(st, job);

	if (c == NULL) {
		st->claims =
		    mem_realloc(st->claims, (st->claim_count + 1) * sizeof(*st->claims));
		c = &st->claims[st->claim_count++];
		c->job = mem_str(job);
	}
	c->run = run;
}

/* run 0: whichever. */
static void
claim_drop(struct store *st, const char *job, int64_t run)
{
	struct claim *c = claim_find(st, job);

	if (c == NULL || (run != 0 && c->run != run))
		return;
	free(c->job);
	*c = st->claims[--st->claim_count];
}

/* ---- taking ---- */

/* $1 job, $2 holder, $3 run at least, $4 interval in µs (0: at once). What has begun and not
 * ended within its time is begun anew. */
static const char take_sql[] =
    "INSERT INTO claim AS c (job, holder, run, started, until) VALUES "
    "($1, $2, $3::bigint, " NOW ", " NOW " + " HELD_FOR ") "
    "ON CONFLICT (job) DO UPDATE SET holder = excluded.holder, "
    "run = GREATEST(c.run + 1, excluded.run), started = excluded.started, "
    "until = excluded.until "
    "WHERE c.until <= " NOW " OR (c.until IS NULL AND "
    "c.started + $4::bigint * interval '1 microsecond' <= " NOW ") "
    "OR (c.until IS NOT NULL AND c.holder = excluded.holder) RETURNING run";
/* Why not: who has it, whether he is at it, and for how long to wait. */
static const char taken_sql[] =
    "SELECT holder, until IS NOT NULL, (extract(epoch FROM coalesce(until, "
    "started + $2::bigint * interval '1 microsecond') - " NOW
    ") * 1000000)::bigint FROM claim WHERE job = $1";

/* 0, F_EXISTS, or the statement failed: F_STORE. */
static int
take(struct store_server *s, const char *job, const char *interval, int64_t *run,
    int64_t *wait_us, char *why, size_t why_len)
{
	char least[24];
	PGresult *r;
	int fault = F_EXISTS;

	snprintf(least, sizeof(least), "%" PRId64, *run);
	r = server_exec(
	    s, take_sql, (const char *const[]){job, s->holder, least, interval}, 4);
	if (r == NULL)
		return (F_STORE);
	if (PQntuples(r) == 1) {
		*run = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
		fault = 0;
	}
	PQclear(r);
	if (fault == 0)
		return (0);
	r = server_exec(s, taken_sql, (const char *const[]){job, interval}, 2);
	if (r == NULL)
		return (F_STORE);
	if (PQntuples(r) == 1) {
		*wait_us = strtoll(PQgetvalue(r, 0, 2), NULL, 10);
		snprintf(why, why_len, "another proxy %s it (%s)",
		    PQgetvalue(r, 0, 1)[0] == 't' ? "is running" : "has just run",
		    PQgetvalue(r, 0, 0));
	}
	PQclear(r);
	return (F_EXISTS);
}

int
claim_take(struct store *st, const char *job, int64_t interval_us, int64_t *run,
    int64_t *wait_us, char *why, size_t why_len)
{
	struct store_server *s = &st->server;
	char interval[24];
	int fault;

	if (!s->is_open)
		return (server_down(s, why, why_len));
	fault = shared_ops.begin(&s->db, &store_run_kind, why, why_len);
	if (fault != 0)
		return (fault);
	snprintf(interval, sizeof(interval), "%" PRId64, interval_us);
	*wait_us = 0;
	fault = take(s, job, interval, run, wait_us, why, why_len);
	if (fault == F_STORE)
		fault = shared_ops.failed(&s->db, why, why_len);
	s->changes = 0; /* nothing that the others want to know */
	fault = shared_ops.end(&s->db, fault == F_EXISTS ? 0 : fault, why, why_len) == 0
		    ? fault
		    : F_STORE_DOWN;
	if (fault == 0)
		claim_note(st, job, *run);
	return (fault);
}

/* ---- holding, and letting go ---- */

/* Nobody waits for it, and what is not done is over in its time. */
static void
run_quietly(struct store *st, const char *sql, const char *const *texts, size_t count)
{
	PGresult *r;

	if (!st->server.is_open)
		return;
	r = server_exec(&st->server, sql, texts, count);
	if (r == NULL && st->server.is_open)
		log_warning(
		    "state store: a claim of a job is not kept: %s", st->server.error);
	PQclear(r);
}

void
claim_end(struct store *st, const char *job, int64_t run)
{
	char number[24];

	snprintf(number, sizeof(number), "%" PRId64, run);
	claim_drop(st, job, run);
	run_quietly(st,
	    "UPDATE claim SET until = NULL "
	    "WHERE job = $1 AND holder = $2 AND run = $3::bigint",
	    (const char *const[]){job, st->server.holder, number}, 3);
}

void
claim_forget(struct store *st, const char *job)
{
	claim_drop(st, job, 0);
	run_quietly(st, "DELETE FROM claim WHERE job = $1", &job, 1);
}

void
claims_renew(struct store *st)
{
	for (size_t i = 0; i < st->claim_count; i++) {
		char run[24];

		snprintf(run, sizeof(run), "%" PRId64, st->claims[i].run);
		run_quietly(st,
		    "UPDATE claim SET until = " NOW " + " HELD_FOR
		    " WHERE job = $1 AND holder = $2 AND run = $3::bigint",
		    (const char *const[]){st->claims[i].job, st->server.holder, run}, 3);
	}
}

void
claims_leave(struct store *st)
{
	const char *holder = st->server.holder;

	if (st->claim_count > 0)
		run_quietly(st,
		    "UPDATE claim SET until = " NOW
		    " WHERE holder = $1 AND until IS NOT NULL",
		    &holder, 1);
	while (st->claim_count > 0)
		claim_drop(st, st->claims[0].job, 0);
	free(st->claims);
	st->claims = NULL;
}
