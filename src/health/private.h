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
	uint32_t timeline;     /* of a primary; 0: not known */
	uint64_t system;       /* which cluster it is, or is a copy of; 0: not known */
	int64_t started_us;    /* when the server was started, by its own clock; 0 */
	char version[64];      /* "" not known */
};

/* What holds for one database. */
struct rules {
	int64_t interval_us; /* 0: no probes without a reason */
	int64_t timeout_us;
	unsigned fall, rise;
	bool is_replica; /* it is configured to be one */
	bool is_grouped; /* it has replicas, or is one */
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
	bool asks_less; /* the server does not know all that probes ask for */
	/* judging */
	unsigned bad, good;   /* in a row */
	uint64_t written_lsn; /* the last seen */
	int64_t caught_up_us; /* when a replica was last seen without lag; 0: never */
	bool is_odd;          /* its role is not the configured one */
	/* what it was when it last answered, for lead.c */
	enum topo_role role;
	uint32_t timeline; /* the last that it was seen to write on */
	uint64_t system;
	int64_t server_us; /* when the server was started */
	char note[256];    /* what lead.c has to say of it; or "" */
	/* The primary fails: its replicas are asked often whether one is it now. */
	bool is_urgent;
	int64_t urgent_us;   /* since when */
	struct alert *alert; /* NULL: none runs or waits */
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

/* ---- lead.c: which one of a primary and its replicas takes the writes ---- */

#define LEAD_GROUP_MAX 64 /* more replicas of one database are not promoted */
/* The first is the configured primary; publishes what follows from what all of them were when
 * they last answered. */
void lead_judge(struct watch *const *group, size_t count, int64_t now_us);
/* The present primary of the group, or NULL when it is none of them. */
struct watch *lead_of(struct watch *const *group, size_t count);

/* ---- alert.c: alert_command ---- */

/* Runs the command for a change of the database: now, or when the one that runs has ended; of
 * several changes that wait it tells the last. */
void alert_raise(struct watch *, const char *was, const char *is, const char *reason);
/* In every tick: ends, and follow-ups. */
void alert_tick(struct watch *, int64_t now_us);
/* Forgets it, and kills a command that runs, unless it is the end of the process. */
void alert_drop(struct watch *, bool is_end);

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

/* The group of a database and its replicas, its primary by configuration first; how many. 0: it
 * is of none. */
size_t health_group(const struct watch *, struct watch *group[LEAD_GROUP_MAX]);

#endif
