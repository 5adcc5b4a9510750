/*
 * pool: links lent to sessions, and the queue for them.
 *
 *   pool  = (database, backend role): one for the process; its limit is an atomic count
 *   seat  = a pool's part in one worker: links, idle links, waiters; no lock
 *
 *   worker 0: seat [waiter]   --- "has anybody an idle link?" -->   worker 1: seat [idle]
 *                             <-- the link itself, by mail -----
 *
 * No wake-up is lost: who waits publishes its demand and then looks again at what the others
 * have; who frees a link offers it and then looks at the demand; a closed link frees a place
 * and wakes the waiters of every worker; a link that arrives where nobody waits any more is
 * offered on.
 */
#ifndef POOL_H
#define POOL_H
#include <pthread.h>
#include <stdatomic.h>

#include "base.h"
#include "link.h"
#include "net.h"
#include "stat.h"
#include "topo.h"

/* A worker waits this much longer than another before links go to it first. */
#define POOL_PATIENCE_US 3000

/* What is shared by all pools of a database name, and by all of a login. Never freed while
 * the process runs when `is_kept`; see pool_place(). */
struct pool_place {
	struct table_node node;
	char *name;
	unsigned refs; /* under the registry's lock */
	_Atomic unsigned links, clients;
	_Atomic bool is_paused, is_disabled;
	_Atomic bool is_told;       /* by '*' alone: the log has its name */
	_Atomic uint64_t reconnect; /* links opened before this many RECONNECTs are old */
	_Atomic int64_t
	    wrote_us; /* of a login, for causal reads: when it wrote last; 0 */
};

struct seat;
struct pool;
TAILQ_HEAD(link_list, link);

/* What a client has shown of its secret, for logins at servers under its own name. Counted by
 * references, from any thread. */
struct pool_secret;
/* of: the stored secret that it has proven; secret: what a server can be shown, the same or the
 * password itself; keys: of a verifier, or NULL. */
struct pool_secret *pool_secret_create(
    const char *of, const char *secret, const struct auth_keys *keys) MUST_USE;
struct pool_secret *pool_secret_hold(struct pool_secret *);
void pool_secret_release(struct pool_secret *); /* NULL is allowed */

/* One worker's view of a pool, for the others. A cache line of its own. */
struct pool_share {
	_Atomic unsigned idle; /* links it could hand over */
	_Atomic int64_t
	    oldest_wait_us;     /* when its oldest waiter began to wait; 0: none */
	_Atomic bool is_nudged; /* a nudge is on its way */
	struct mail nudge;
	struct pool *pool;
	struct seat *seat; /* the worker's own */
} __attribute__((aligned(64)));

struct pool {
	struct table_node node;
	char *database, *role;
	unsigned refs; /* under the registry's lock */
	struct pool_place *db, *user;
	_Atomic unsigned links;   /* open or opening, anywhere */
	_Atomic unsigned ready;   /* of those, logged in */
	_Atomic unsigned waiting; /* clients, anywhere */
	_Atomic int64_t
	    failed_us; /* when a login last failed; 0: the last one was fine */
	_Atomic bool
	    failed_unheard;         /* that one found no server, or none that was ready */
	_Atomic int64_t trimmed_us; /* when links of the overflow were closed last */
	_Atomic unsigned next_host;
	_Atomic uint64_t dead_hosts; /* bits: in vain since a login was last fine */
	pthread_mutex_t lock;        /* for what follows; not on the path of a query */
	char error[256];             /* why, in the server's words */
	char error_state[6];
	bool error_is_servers; /* the server has said so itself */
	struct vars *welcome;  /* of no worker: what the last fresh link had; or NULL */
	struct pool_secret *shown; /* by the last client that has logged in; or NULL */
	struct pool_share share[]; /* one for each worker */
};

/* Somebody who waits for a link. Embedded in its owner. */
struct waiter {
	TAILQ_ENTRY(waiter) entry;
	struct seat *seat; /* NULL: does not wait */
	int64_t start_us;
	bool
	    is_login; /* fails when the server cannot be reached, instead of waiting on */
	bool is_asking; /* for the login itself, no statement: no assignment is counted */
	const struct link_own *own; /* wants a link of its own; NULL: any */
	struct link *link;          /* that link, while it comes up */
	unsigned tries;             /* servers of the database asked for it in vain */
	struct link *kept;          /* pool_keep(): idle, or being opened; NULL: none */
	/* The link is LENT to nobody yet: the owner calls link_lend() before it returns. */
	void (*granted)(struct waiter *, struct link *);
	/* state and message: for the client. */
	void (*refused)(
	    struct waiter *, int fault, const char *sqlstate, const char *message);
	/* See pool_keep(); NULL: nothing is coming. It may not call the pool. */
	void (*looked)(struct waiter *);
};

struct seat {
	struct pool *pool;
	struct worker *worker;
	TAILQ_ENTRY(seat) entry;
	const struct topo_database
	    *database; /* of the worker's snapshot; NULL: removed */
	struct topo_limits limits;
	const char *secret; /* for the server; the snapshot's; NULL: none */
	uint64_t since;     /* links opened from an older snapshot are not fit any more */
	struct link_list links;
	struct link_list idle;   /* first: came back last */
	struct link_list shared; /* lent to several sessions at once: by their user */
	TAILQ_HEAD(, waiter) waiters;
	TAILQ_HEAD(, waiter) own_waiters; /* for links of their own */
	unsigned own_waiting;
	unsigned link_count, idle_count, opening, waiting;
	unsigned checking;    /* idle links that server_check_query runs on */
	unsigned kept;        /* idle links that are kept for clients */
	unsigned clients;     /* sessions of this worker */
	struct vars *welcome; /* what a fresh link has; NULL: not known yet */
	struct mail ask;      /* travels to a worker with an idle link and back */
	bool is_asking;
	bool is_granting;     /* links are being given to waiters further up the stack */
	unsigned ask_home;    /* whose worker asks */
	int64_t ask_after_us; /* it was in vain: not again before */
	struct pool_place
	    *full; /* whose limit stood in the way of the last attempt; or NULL */
	struct pool_place
	    *ask_for;    /* full, as it was when the ask left; then not changed */
	unsigned asides; /* links of pool_open_aside() */
	int64_t used_us;
	int64_t sequences_us; /* the user's: when currval() was asked for last; 0 */
	struct metrics metrics;
	struct metrics period_start; /* the counters when the stats_period began */
	struct metrics average;      /* what the last whole one added to them */
	int64_t period_start_us, average_us;
};

/* ---- the world: what a worker serves, swapped by reload ---- */

struct pool_worker {
	const struct topo *topo;
	struct tls *tls;
	TAILQ_HEAD(, seat) seats;
	uint64_t
	    names; /* net_names_generation() when the links were last compared with it */
	struct link_list leaving; /* links handed over, until the end of the turn */
	TAILQ_HEAD(, pool_fence) fences;
	/* Called in each worker after its snapshot was swapped. */
	void (*on_world)(struct worker *);
};
static inline struct pool_worker *
pool_worker(const struct worker *w)
{
	return (w->slot[WORKER_POOL]);
}
static inline const struct settings *
pool_settings(const struct worker *w)
{
	return (topo_settings(pool_worker(w)->topo));
}
/* Makes the room's part of a worker; before net_start(). Holds topo and tls. */
void pool_init(struct worker *, const struct topo *, struct tls *);
/* When the threads have ended: closes all links; then, settled, frees the rest. */
void pool_end_all(struct worker *);
void pool_fini(struct worker *);
void pool_on_world(struct worker *, void (*fn)(struct worker *));
/* Sends a new snapshot to every worker and the main thread; they take it over one by one,
 * each between two turns. */
void pool_swap_world(const struct topo *, struct tls *);

/* ---- places ---- */

/* The database or user of that name; makes it. Gives a reference. */
struct pool_place *pool_database(const char *name);
struct pool_place *pool_user(const char *name);
void pool_place_release(struct pool_place *);
/* Calls each() for every database name (or user) known, under the registry's lock: it must be
 * short and call nothing of the registry. */
void pool_each_database(void (*each)(void *arg, struct pool_place *), void *arg);
void pool_each_user(void (*each)(void *arg, struct pool_place *), void *arg);

/* The calling worker's seat at the pool of a database and a login; makes both. dbname: as
 * the client asked; name: its login, which may be unknown to the snapshot. */
struct seat *pool_seat(
    struct worker *, const struct topo_database *, const char *dbname, const char *name);

/* The same under a role at the server, whatever the database's own user is. */
struct seat *pool_seat_as(struct worker *, const char *dbname, const char *role);

/* New links may log in with this, unless the configuration has another secret for them. */
void pool_show(struct seat *, struct pool_secret *);

/* Whether it is known what a fresh link says: seat->welcome, learned here or elsewhere. */
bool pool_learn(struct seat *);

/* ---- lending ---- */

/* A link at once, or NULL and the waiter is queued: granted() or refused() comes later.
 * want: parameters that the link should have, when there is a choice. The link is IDLE;
 * the caller lends it to itself with link_lend(). */
struct link *pool_lend(struct seat *, struct waiter *, const struct vars *want) MUST_USE;
/* Whether links may be lent without waiting: nobody does, and nothing keeps them back. */
bool pool_may_lend(const struct seat *);
/* An idle link with just these parameters, for a caller who does not wait; or NULL. */
struct link *pool_lend_like(struct seat *, const struct vars *) MUST_USE;
/* The same for a link that is opened for this waiter alone and that nobody has after it: a
 * walsender. It counts in every limit; an idle link of the pool makes room. own: valid while it
 * waits. What the server answers to the login is what refused() gets. Its user ends it with
 * link_close(). */
void pool_lend_own(struct seat *, struct waiter *, const struct link_own *own);
/* Stops waiting. */
void pool_wait_end(struct waiter *);
/* Keeps a link for one who does not wait and will ask for it later, unless somebody else needs it
 * more by then. It is as idle as any other. COMING: it is being opened; looked() is called when
 * w->kept is there, or NULL. */
enum pool_kept { POOL_KEPT, POOL_KEPT_COMING, POOL_KEPT_NONE };
enum pool_kept pool_keep(
    struct seat *, struct waiter *w, void (*looked)(struct waiter *)) MUST_USE;
/* The same with a link that was just given back, if it has become idle. */
void pool_keep_this(struct link *, struct waiter *);
void pool_keep_end(struct waiter *);
/* Takes back a LENT link that is at rest. with_reset: server_reset_query first. */
void pool_give(struct link *, bool with_reset);
/* Takes back a LENT link in whatever state: rolls back what can be rolled back, cancels and
 * closes what runs. */
void pool_give_broken(struct link *, bool with_reset, const char *why);
/* The same while a query of the user's runs on it, whose end is nobody's any more. */
void pool_give_running(struct link *, bool with_reset);
/* Whether it is to be closed as soon as it is released: RECONNECT, another configuration, an
 * address that its name has lost. */
bool pool_is_stale(const struct link *);
/* A link to the seat's database, as its role, which is no link of the pool: it counts in none of
 * its limits, is lent to nobody, and its keeper says what becomes of it. NULL: the database is
 * gone, or takes nobody. The keeper's closed() calls pool_aside_closed(). */
struct link *pool_open_aside(
    struct seat *, const struct link_keeper *, void *place) MUST_USE;
/* Why such a link may not stay, in words for the log: what makes the pool close its own, and
 * another host of the database to which the pool has gone. NULL: it may. */
const char *pool_aside_unfit(const struct seat *, const struct link *);
void pool_aside_closed(struct seat *);
/* Names the database of a seat that has one, or another one of its server; the caller frees it. */
char *pool_site(const struct seat *, const char *dbname_or_null) MUST_USE;
/* In each worker, by a visit: nobody is connected to the database, but by links that are lent,
 * until the fence is dropped: who wants one waits. */
void pool_fence_raise(struct worker *, const char *site);
void pool_fence_drop(struct worker *, const char *site);
/* Does what can be done now for those who wait at this seat. */
void pool_serve(struct seat *);
/* A DETAIL for one who has waited here in vain, or NULL; the caller frees it. */
char *pool_why_waiting(const struct seat *) MUST_USE;

/* ---- commands of the console; name NULL: all databases. Any thread where said. ---- */

/* Any thread. Links come back to be closed; clients wait. */
void pool_pause(const char *name);
void pool_resume(const char *name);
/* Any thread: links open now are closed as soon as they are idle. */
void pool_reconnect(const char *name);
/* In each worker, by a visit: closes idle links that are old or of paused databases; serves
 * waiters of resumed ones. */
void pool_apply(struct worker *);
/* Links of the database that are open, anywhere; old_only: opened before RECONNECT. */
unsigned pool_links(const char *name);

#endif
