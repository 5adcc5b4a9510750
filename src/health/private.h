/* health, for its own files. */
#ifndef HEALTH_PRIVATE_H
#define HEALTH_PRIVATE_H
#include "health.h"
#include "side.h"
#include "topo.h"

struct knock;

/* What one good probe found. */
struct found {
	enum topo_role role;
	int64_t response_us;
	int64_t connections;   /* -1: not known */
	uint64_t received_lsn; /* of a replica */
	uint64_t replayed_lsn; /* of a replica; 0: not known */
	uint64_t written_lsn;  /* of a primary; 0: not known */
	int64_t replay_age_us; /* since the last transaction replayed; -1 */
	int64_t reached_us;    /* when a new connection was had; 0: it was a kept one */
	char version[64];      /* "" not known */
};

/* What holds for one database. */
struct rules {
	int64_t interval_us; /* 0: no probes without a reason */
	int64_t timeout_us;
	unsigned fall, rise;
	bool is_replica; /* it is configured to be one */
	bool is_standby_fine;
	int64_t max_lag_us;
};

/* A database under watch. Owned by the health of the side thread. */
struct watch {
	struct table_node node;
	struct worker *worker;
	char *name;
	struct topo_verdict *verdict;
	const struct topo *topo; /* that of the health */
	const struct topo_database *database;
	struct rules rules;
	/* the probe */
	struct side *side; /* kept between probes, or NULL */
	struct knock *knock;
	uint64_t side_generation;  /* of the snapshot that it was opened with */
	bool is_probing, is_fresh; /* the side was opened by this probe */
	int64_t started_us, query_us;
	int64_t due_us; /* when the next one begins */
	bool is_spread; /* its probes have found their place in the interval */
	bool was_seen;  /* in the snapshot being read */
	/* judging */
	unsigned bad, good;   /* in a row */
	uint64_t written_lsn; /* the last seen */
	int64_t caught_up_us; /* when a replica was last seen without lag; 0: never */
	bool is_odd;          /* its role is not the configured one */
};

/* ---- judge.c: from what a probe found to a verdict; no sockets ---- */

/* primary_lsn: how far the primary is known to have written; 0: not known. */
void judge_good(
    struct watch *, const struct found *, uint64_t primary_lsn, int64_t now_us);
void judge_bad(struct watch *, const char *reason, int64_t now_us);
/* Nothing is known any more. */
void judge_forget(struct watch *);
/* How long until the next probe. */
int64_t judge_pause_us(const struct watch *);

/* ---- probe.c ---- */

void probe_start(struct watch *, int64_t now_us);
/* In every tick: ends what takes too long, and connections that are lost. */
void probe_tick(struct watch *, int64_t now_us);
/* Gives up the probe that runs and the connection. */
void probe_drop(struct watch *);

/* ---- knock.c: is there a server that answers, when there is no role to log in with ---- */

/* knock_done() of probe.c follows, unless knock_end() comes first; may be before it returns. */
void knock_start(struct watch *);
void knock_end(struct watch *);
/* why NULL: a server has answered. */
void knock_done(struct watch *, const char *why);

/* ---- replay.c: how far replicas have come, for causal reads ---- */

struct group;
/* The groups of another snapshot instead of those in the list. */
void replay_read(struct group **list, struct worker *, const struct topo *);
void replay_tick(struct group *list, int64_t now_us);
void replay_free(struct group **list);

/* ---- health.c ---- */

/* The watch on that database, or NULL. */
struct watch *health_watch(struct worker *, const char *database);

#endif
