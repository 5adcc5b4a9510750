/*
 * How far replicas have come, for causal reads. While a virtual database wants them, every
 * tick asks each primary how far it has written and then its replicas how far they have
 * replayed:
 *
 *   t, primary: written up to L     ...     replica: replayed past L
 *   => the replica has all that was acknowledged before t: verdict->replayed_us = t
 *
 * Whoever has written later than t reads from the primary. Nothing is asked on the path of a
 * query, and nobody waits.
 *
 * L is the insert position: with synchronous_commit = off the flush position lies behind what
 * was acknowledged. At the head of a page it names bytes that no replica reaches before more is
 * written, so there it is the end of the page before.
 */
#include "private.h"
#include <stdlib.h>

#define WAL_PAGE    8192
#define WAL_HEAD    40 /* of the first page of a segment; of the others 24 */
#define TIMEOUT_US  2000000
#define RETRY_US    1000000
#define ASKED_MAX   8
#define APPLICATION "pgweave replay"

/* A connection that is kept, and opened anew after a while when it is lost. */
struct line {
	const struct topo_database *database;
	struct side *side;
	int64_t retry_us;
	bool is_open, is_asking;
};

struct follower {
	struct line line;
	/* What the primary said and the replica has not reached yet, the oldest first. */
	struct {
		int64_t us;
		uint64_t lsn;
	} asked[ASKED_MAX];
	unsigned count;
};

/* A primary and the replicas of it that serve causal reads. */
struct group {
	const struct topo_database *root; /* the primary by configuration */
	struct line line;                 /* to the present one */
	struct worker *worker;
	const struct topo *topo; /* held */
	int64_t asked_us;
	struct follower *followers;
	unsigned count;
	struct group *next;
};

/* ---- connections ---- */

static void
line_close(struct line *l)
{
	if (l->side != NULL)
		side_close(l->side);
	l->side = NULL;
	l->is_open = l->is_asking = false;
}

static void
line_lost(struct line *l)
{
	line_close(l);
	l->retry_us = clock_us() + RETRY_US;
}

static void
line_opened(struct side *s, void *arg, const char *err)
{
	struct line *l = arg;

	(void)s;
	if (err != NULL)
		line_lost(l);
	else
		l->is_open = true;
}

/* Whether something can be asked now. */
static bool
line_is_ready(struct line *l, struct worker *w, const struct topo *topo, int64_t now_us)
{
	if (l->side == NULL && now_us >= l->retry_us && side_can_login(topo, l->database))
		l->side = side_open(
		    w, topo, l->database, APPLICATION, TIMEOUT_US, line_opened, l);
	return (l->is_open && !l->is_asking);
}

/* The number answered; false: none, and the connection is given up. */
static bool
line_answer(struct line *l, const PGresult *r, uint64_t *out)
{
	l->is_asking = false;
	if (r == NULL || PQntuples(r) != 1 || PQnfields(r) != 1 || PQgetisnull(r, 0, 0)) {
		line_lost(l);
		return (false);
	}
	*out = strtoull(PQgetvalue(r, 0, 0), NULL, 10);
	return (true);
}

/* ---- replicas ---- */

static void
follower_answered(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct follower *f = arg;
	struct topo_verdict *v = f->line.database->verdict;
	uint64_t lsn;
	unsigned past = 0;

	(void)s;
	(void)err;
	(void)sqlstate;
	if (!line_answer(&f->line, r, &lsn)) {
		/* Where it is when it comes back nobody knows. */
		f->count = 0;
		atomic_store(&v->replayed_us, 0);
		return;
	}
	while (past < f->count && f->asked[past].lsn <= lsn)
		past++;
	if (past == 0)
		return;
	atomic_store(&v->replayed_us, f->asked[past - 1].us);
	f->count -= past;
	for (unsigned i = 0; i < f->count; i++)
		f->asked[i] = f->asked[i + past];
}

static void
follower_ask(struct follower *f)
{
	f->line.is_asking = true;
	/* One that is no replica any more has replayed nothing of anybody. */
	side_query(f->line.side,
	    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END"
	    " - '0/0'::pg_lsn",
	    NULL, 0, follower_answered, f);
}

static void
follower_note(struct follower *f, int64_t us, uint64_t lsn)
{
	/* The oldest stays, so that it is reached some day. */
	if (f->count == ASKED_MAX)
		f->count--;
	f->asked[f->count].us = us;
	f->asked[f->count++].lsn = lsn;
}

/* ---- primaries ---- */

static void
group_answered(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct group *g = arg;
	int64_t now = clock_us();
	uint64_t lsn;

	(void)s;
	(void)err;
	(void)sqlstate;
	if (!line_answer(&g->line, r, &lsn))
		return;
	if (lsn % WAL_PAGE <= WAL_HEAD)
		lsn -= lsn % WAL_PAGE;
	for (unsigned i = 0; i < g->count; i++) {
		struct follower *f = &g->followers[i];

		follower_note(f, g->asked_us, lsn);
		if (line_is_ready(&f->line, g->worker, g->topo, now))
			follower_ask(f);
	}
}

/* What another primary has written is not what these were asked for. False: which one is the
 * primary is not known. */
static bool
group_follow(struct group *g)
{
	const struct topo_database *rival,
	    *primary = topo_database_primary(g->root, &rival);

	if (primary != g->line.database) {
		line_close(&g->line);
		g->line.database = primary;
		g->line.retry_us = 0;
		for (unsigned i = 0; i < g->count; i++)
			g->followers[i].count = 0;
	}
	return (rival == NULL);
}

static void
group_ask(struct group *g, int64_t now_us)
{
	if (!group_follow(g))
		return;
	for (unsigned i = 0; i < g->count; i++) {
		struct follower *f = &g->followers[i];

		if (line_is_ready(&f->line, g->worker, g->topo, now_us) && f->count > 0)
			follower_ask(f);
	}
	if (!line_is_ready(&g->line, g->worker, g->topo, now_us))
		return;
	g->line.is_asking = true;
	g->asked_us = clock_us();
	side_query(g->line.side, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn",
	    NULL, 0, group_answered, g);
}

/* ---- which there are ---- */

static void
group_free(struct group *g)
{
	line_close(&g->line);
	for (unsigned i = 0; i < g->count; i++) {
		line_close(&g->followers[i].line);
		atomic_store(&g->followers[i].line.database->verdict->replayed_us, 0);
	}
	topo_release(g->topo);
	free(g->followers);
	free(g);
}

static bool
group_has(const struct group *g, const struct topo_database *replica)
{
	for (unsigned i = 0; i < g->count; i++)
		if (g->followers[i].line.database == replica)
			return (true);
	return (false);
}

static struct group *
group_of(struct group **list, struct worker *side, const struct topo *topo,
    const struct topo_database *primary)
{
	struct group *g;

	for (g = *list; g != NULL; g = g->next)
		if (g->root == primary)
			return (g);
	g = mem_alloc(sizeof(*g));
	g->worker = side;
	g->topo = topo;
	topo_hold(topo);
	g->root = g->line.database = primary;
	g->followers = mem_alloc(topo_database_count(topo) * sizeof(*g->followers));
	g->next = *list;
	*list = g;
	return (g);
}

void
replay_read(struct group **list, struct worker *side, const struct topo *topo)
{
	replay_free(list);
	for (size_t i = 0; i < topo_virtual_count(topo); i++) {
		const struct topo_virtual *v = topo_virtual(topo, i);

		for (size_t k = 0; v->causal_reads && k < v->read_from_count; k++) {
			const struct topo_database *replica = v->read_from[k];
			struct group *g;

			if (replica->replica_of == NULL)
				continue;
			g = group_of(list, side, topo, replica->replica_of);
			if (!group_has(g, replica))
				g->followers[g->count++] =
				    (struct follower){.line = {.database = replica}};
		}
	}
}

void
replay_tick(struct group *list, int64_t now_us)
{
	for (struct group *g = list; g != NULL; g = g->next)
		group_ask(g, now_us);
}

void
replay_free(struct group **list)
{
	struct group *g;

	while ((g = *list) != NULL) {
		*list = g->next;
		group_free(g);
	}
}
