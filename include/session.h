/*
 * session: one client from login to close.
 *
 *   client bytes -> upstream.c -> link    (which messages need a link, which are rewritten)
 *   link bytes -> downstream.c -> client  (which answers are the client's, when it is over)
 *
 * A session belongs to one worker. It has a link only while the pool mode lets it.
 */
#ifndef SESSION_H
#define SESSION_H
#include "base.h"
#include "link.h"
#include "net.h"
#include "pool.h"
#include "rows.h"

enum session_state {
#define STATE(name, doc) SESSION_##name,
#define EDGE(...)
#include "tbl/session_fsm.def"
#undef STATE
#undef EDGE
	SESSION_STATES
};

struct session_login;
struct statements;
struct stmt;
struct cancel_order;
struct prep;
struct console;
struct weave;
struct listens;
struct fence;
struct signals;
struct hub;
struct carry;
struct mux;
struct sql_facts;

#define SESSION_MAGIC 0x53455353U
struct session {
	struct burial burial;
	uint32_t magic;
	enum session_state state; /* written by session_move() alone */
	struct stream stream;
	struct worker *worker;
	TAILQ_ENTRY(session) entry;
	struct waiter waiter;
	struct seat *seat;
	struct link *link;
	struct vars *vars;    /* what it has set, as far as servers say */
	struct vars *startup; /* what it had when it was greeted */
	struct vars
	    *discarded; /* what was left by DISCARD ALL on the link it has; or NULL */
	struct pool_place *user; /* the login; NULL before it is known */
	struct table_node key_node;
	uint32_t pid, secret;  /* BackendKeyData given to the client */
	struct told_pid *told; /* the pid that it was told instead; or NULL */
	uint8_t *key_rest;  /* of protocol 3.2: what follows the secret, KEY_REST bytes */
	uint32_t body_left; /* of the message that is passing through */
	bool body_is_dropped : 1;
	bool was_discarded : 1; /* DISCARD ALL, and the link is still the same */
	bool is_draining : 1;   /* closes when its transaction is over */
	uint8_t
	    mode; /* enum pool_mode, as it was at login: a reload changes it for others */
	uint8_t
	    replication; /* enum proto_replication: a walsender, with a link of its own */
	bool rewrites : 1;      /* statement names are translated */
	bool skips_to_sync : 1; /* without a link: an error was sent, Sync is awaited */
	bool
	    is_leaving : 1; /* Terminate came, answers to what was sent before are owed */
	bool is_stalled : 1;     /* must know how the batches under way end */
	bool is_refused : 1;     /* what waits was cancelled */
	bool knows_it_waits : 1; /* query_wait_notify has come, for this wait */
	bool is_admin : 1;       /* console: may change things */
	bool says_pgbouncer : 1; /* console: the name under which it was asked for */
	bool shuns_mux : 1;      /* its statement comes again, for a link of its own */
	bool holds_clients : 1;  /* counted in seat, database and user */
	uint8_t
	    waits_own; /* for so many things of the proxy's own its next message waits */
	uint8_t
	    pipelined; /* batches before it may share statements again: it does not wait */
	struct statements *statements; /* NULL: none yet */
	uint64_t unnamed_token;        /* marks it on links; 0: there is none */
	/* It has used that link, and meanwhile no other; 0: none yet. */
	uint64_t stay, stay_link;
	bool stay_is_clean; /* nobody had used it, or it was cleaned */
	struct stmt
	    *unnamed; /* what its unnamed statement is; NULL: none, or too long to keep */
	struct prep *prep; /* PREPARE, EXECUTE or DEALLOCATE under way; or NULL */
	struct mux *mux;   /* SHARING: where its statement runs */
	const struct sql_facts
	    *timed; /* of the statement under way, which might share a link; or NULL */
	struct session_login *login; /* until READY */
	struct cancel_order *order;  /* CANCELLING */
	struct console *console;     /* CONSOLE */
	struct carry *carry; /* of a plain one: settings and pins; NULL: none seen yet */
	struct weave *weave; /* on a virtual database; NULL: on a plain one */
	struct signals *signals; /* pg_terminate_backend() of clients; NULL: none yet */
	struct fence *fence; /* around a database, for the statement under way; or NULL */
	struct listens *listens; /* what it listens to, on shared links; or NULL */
	int64_t connect_us,
	    request_us; /* monotonic; request: the last message or answer */
	int64_t
	    hung_up_us; /* the client sends no more, and is still worked for; 0: it does */
	struct addr addr;
};

/* What the room has in each worker. */
TAILQ_HEAD(session_list, session);
/* A cancel request for a peer. */
struct forward {
	struct burial burial;
	struct stream stream;
	struct worker *worker;
	TAILQ_ENTRY(forward) entry;
	struct resolve *resolve;
	uint32_t peer, pid;
	uint8_t *key;
	size_t key_len;
	bool is_active; /* counted in what the peer may have; otherwise it waits */
	bool is_sent;
	bool has_failed;
	int64_t start_us;
	void (*done)(void *arg);
	void *arg;
};

/* A statement without a name that a link has seen. */
struct share_sight {
	uint64_t key;
	int64_t us;
};

struct lookup;
TAILQ_HEAD(lookup_list, lookup);
struct session_worker {
	struct lookup_list lookups; /* of auth_query */
	TAILQ_HEAD(, hub) hubs;     /* listening links */
	unsigned held; /* sessions whose next statement waits for a primary */
	unsigned
	    settling; /* links that sessions keep, and that are not ready to be kept yet */
	TAILQ_HEAD(, orphan)
	orphans; /* commits on several databases whose client has left */
	struct session_list sessions[SESSION_STATES]; /* by state */
	unsigned count[SESSION_STATES];
	struct table keys;  /* sessions by pid */
	struct table known; /* statements by their id */
	size_t known_bytes;
	struct share_sight *sights; /* NULL: none yet */
	struct table kinds;         /* what is known of members' tables */
	struct weave_plan
	    *plan; /* room for the answer of a route; NULL: none needed yet */
	struct sql_cache *facts; /* of statements on virtual databases; NULL: none yet */
	uint64_t tokens;         /* given to unnamed statements */
	struct buf scratch[2];   /* new bytes of a batch: to the server, to the client */
	bool is_draining;        /* shutdown: sessions close at their next rest */
	uint32_t peer_id;        /* as it was at the start; 0: none */
	TAILQ_HEAD(, mux) mux_spare, mux_unsent;
	bool takes_times;               /* of statements, for multiplex */
	int64_t turn_us, turn_end_us;   /* of the turn before, if it does */
	TAILQ_HEAD(, forward) forwards; /* cancel requests on their way to peers */
};
static inline struct session_worker *
session_worker(const struct worker *w)
{
	return (w->slot[WORKER_SESSION]);
}

void session_init(struct worker *);
/* When the threads have ended: closes all sessions; then, settled, frees the rest. */
void session_end_all(struct worker *);
void session_fini(struct worker *);
/* Where connections are accepted: gives one to the worker with the fewest clients, or refuses it
 * when max_client_conn is reached. */
void session_accept(struct worker *, int fd, const struct sockaddr *, socklen_t);
/* A client inside the process, proven to be `login` (a key or an ordinary one) by who asks: the
 * HTTP API. Any thread. Answers the client's end of a socket pair (non-blocking), on which the
 * greeting follows as after a login, from AuthenticationOk on; or -1: no descriptors left.
 * peer: whose address the session shows. */
int session_open_inner(
    const char *login, const char *database, const struct addr *peer) MUST_USE;
/* Clients for which there are file descriptors; more are refused as they come. */
void session_set_hard_max(unsigned max);
/* Clients connected now, in all workers. */
unsigned session_total(void);
const char *session_state_name(enum session_state);
/* The database's name as the client gave it; "" before it is known. */
const char *session_database(const struct session *);
const char *session_user(const struct session *);
/* The link on which the client's statement runs; NULL: none. */
const struct link *session_link_now(const struct session *);
/* For whom a lent link works, to be told from others. */
const void *session_link_serves(const struct link *);
/* Statements that the client has prepared under a name. */
unsigned session_prepared_count(const struct session *);
/* What holds a session to a link. */
#define SESSION_PINS_MAX 7
struct session_pin {
	const char *reason;
	const char *member; /* the database whose link it is */
	int64_t since_us;   /* monotonic */
	char *statement;
};
/* The n-th, from 0, or NULL. Valid for the turn. */
const struct session_pin *session_pin(const struct session *, unsigned n);
/* Clients of this worker, without those at the console. */
unsigned session_clients(const struct worker *);
/* Ends a session: tells the client (FATAL) unless message is NULL, gives its link back. */
void session_close(struct session *, const char *sqlstate, const char *message);
/* detail: or NULL. */
void session_close_with(
    struct session *, const char *sqlstate, const char *message, const char *detail);

/* ---- what operators do to sessions; in each worker, by a visit ---- */

/* Ends the sessions of a database (NULL: all but the console's). */
void session_kill(struct worker *, const char *database);
/* Behind pool_apply(): what sessions keep beside the pools follows the same words. */
void session_apply(struct worker *);
/* SHUTDOWN: logins that begin now are refused, but for the console's. Any thread. */
void session_close_doors(void);
bool session_doors_closed(void);
/* SHUTDOWN: sessions end when their transaction is over; idle ones at once. */
void session_drain(struct worker *);

/* ---- the console: who answers statements on the pseudo-database ---- */

/* A channel on which this process listens for clients, by a link of one worker. */
struct hub_view {
	const struct seat *seat;
	const struct link *link; /* NULL: it is lost, or not asked for yet */
	const char *channel;
	bool is_on; /* the server has said so */
	unsigned clients;
	uint64_t heard; /* notifications */
};
/* Of this worker. */
void hub_each_channel(
    struct worker *, void (*each)(void *arg, const struct hub_view *), void *arg);
/* The channels on which a client listens. */
unsigned session_listen_count(const struct session *);

struct session_console {
	/* The columns that sql would answer; *columns NULL: none. False: it is not understood
	 * (run() says why). */
	bool (*describe)(struct session *, const char *sql, const struct rows_column **,
	    unsigned *count);
	/* Runs one statement. Calls end or fail of the sink exactly once, now or later, in the
	 * session's thread. The sink outlives the session if need be; the session does not:
	 * after this call returns, a runner that goes on later must not use it. */
	void (*run)(struct session *, const char *sql, struct rows_sink *);
};
/* Before net_start(). */
void session_set_console(const struct session_console *);

#endif
