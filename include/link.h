/*
 * link: one authenticated connection to one backend: its login, its parameters, the requests
 * it owes answers to, the statements prepared on it, queries of the proxy's own, cancelling.
 *
 * A link belongs to one worker. Its keeper (pool) owns it and says to whom it is lent; while
 * it is lent, its user (session) gets its bytes.
 */
#ifndef LINK_H
#define LINK_H
#include <stdatomic.h>

#include "auth.h"
#include "base.h"
#include "net.h"
#include "proto.h"
#include "topo.h"

/* ---- vars: a set of session parameters, immutable and shared by all sessions and links of
 * a worker that have the same ones ---- */

struct vars;

enum vars_kind {
	VARS_FIXED,    /* reported by the server, cannot be set: server_version… */
	VARS_REPORTED, /* reported by the server, can be set: TimeZone… */
	VARS_STARTUP /* asked for by a client at connect time, not reported: work_mem… */
};
struct vars *vars_none(struct worker *);
struct vars *vars_hold(struct vars *);
void vars_release(struct worker *, struct vars *);
/* The set with one parameter changed or (value NULL) taken out. Takes over the caller's
 * reference to v and gives one to the result. kind: what the name is (vars_kind_of). */
struct vars *vars_with(struct worker *, struct vars *v, const char *name,
    const char *value, enum vars_kind kind) MUST_USE;
/* What a ParameterStatus name is: VARS_REPORTED for those that a client may set, also those that
 * vars_track() has named. */
enum vars_kind vars_kind_of(const struct worker *, const char *name);
/* track_extra_parameters: names separated by commas, for this worker from now on. */
void vars_track(struct worker *, const char *names);
const char *vars_get(const struct vars *, const char *name);
/* log_connections and log_disconnections: of this worker's links from now on. */
void link_log(struct worker *, bool connections, bool disconnections);
unsigned vars_count(const struct vars *);
void vars_at(const struct vars *, unsigned i, const char **name, const char **value,
    enum vars_kind *kind);
/* The set without its VARS_STARTUP members; takes over a reference as vars_with(). */
struct vars *vars_without_startup(struct worker *, struct vars *) MUST_USE;
/* The set with the VARS_STARTUP members of another one instead of its own (own: NULL: with
 * values that differ from every other). Takes over a reference as vars_with(). */
struct vars *vars_with_startup(
    struct worker *, struct vars *, const struct vars *of) MUST_USE;
/* Those of the session's that have their values from SET ROLE and SET SESSION AUTHORIZATION. */
#define VARS_ROLE          "role"
#define VARS_AUTHORIZATION "session authorization"
/* Appends a literal that means the same whatever standard_conforming_strings says. */
void vars_sql_literal(struct buf *out, const char *);
/* Appends SET name TO value. */
void vars_sql_set(struct buf *out, const char *name, const char *value);
/* Appends SET and RESET statements that turn a link with `is` into one with `want`. False,
 * and nothing appended, when nothing that can be set differs. */
bool vars_sql(const struct vars *is, const struct vars *want, struct buf *out);
/* The set that servers made of v when it was applied once (canonical values), or NULL. */
struct vars *vars_canonical(const struct vars *v);
void vars_set_canonical(struct worker *, struct vars *v, struct vars *canonical);
/* A copy that belongs to no worker (free() it, or import it), and such a copy taken over. */
struct vars *vars_export(const struct vars *) MUST_USE;
struct vars *vars_import(struct worker *, struct vars *copy) MUST_USE;
/* What the reading of a text may hang on: equal for sets with the same of that. */
uint64_t vars_reading(const struct vars *);
/* Memory that all sets of this worker take. */
size_t vars_bytes(const struct worker *);

/* ---- requests: what the link owes answers to, in order ---- */

enum request_kind {
	REQ_QUERY,    /* simple: ends with ReadyForQuery */
	REQ_FUNCTION, /* ends with ReadyForQuery */
	REQ_SYNC,
	REQ_PARSE,
	REQ_BIND,
	REQ_DESCRIBE,
	REQ_EXECUTE,
	REQ_CLOSE
};
enum request_act {
	ACT_FORWARD, /* the answer is the client's */
	ACT_SKIP,    /* the proxy's own: the answer is swallowed */
	ACT_FAKE     /* nothing was sent: the answer is made when its turn comes */
};
struct request {
	uint8_t kind, act;
	bool is_behind_copy; /* REQ_SYNC sent after the CopyDone or CopyFail of a copy */
	bool is_doomed;      /* sent to fail: what is prepared stays so */
	bool renames;    /* an error must speak of the client's name for the statement */
	bool is_unnamed; /* REQ_PARSE of the unnamed statement */
	bool is_prepare; /* about a text that says PREPARE, EXECUTE or DEALLOCATE */
	bool is_own;     /* REQ_CLOSE of what no client knows */
	bool is_ours;    /* sent to fail: the client gets the proxy's own error */
	bool is_looked;  /* REQ_QUERY, REQ_EXECUTE: the user has seen what it may leave */
	bool is_after_error; /* REQ_SYNC: something of its batch has failed */
	bool is_shared;      /* about a statement without a name that clients share */
	bool is_healing;     /* its like has failed for a shared statement */
	void *arg;           /* the user's */
	struct hash128
	    id; /* ACT_SKIP and ACT_FORWARD of REQ_PARSE: what is prepared by it */
};
#define REQUESTS_MAX 16384 /* more outstanding than this: read no more from the client */
struct requests {
	struct request *ring;
	uint32_t cap, head, count;
};
struct request *requests_push(struct requests *, enum request_kind, enum request_act);
static inline struct request *
requests_head(const struct requests *q)
{
	return (q->count > 0 ? &q->ring[q->head] : NULL);
}
/* The i-th from the head. */
struct request *requests_at(const struct requests *, uint32_t i);
void requests_remove(struct requests *, uint32_t i);
void requests_pop(struct requests *);
void requests_free(struct requests *);

/* ---- statements prepared on a link ---- */

#define PREPARED_NAME 37 /* "pgw_" and 32 hex digits, with the NUL */
void prepared_name(struct hash128 id, char out[PREPARED_NAME]);

struct prepared_set {
	struct table table;
	TAILQ_HEAD(prepared_list, prepared_entry) lru; /* first: used longest ago */
};
/* Definitions (CREATE, ALTER, DROP, and what may hold some) that this process has seen done, and
 * one. Threads count together. */
uint64_t link_definitions(void);
struct link;
/* One more, now and when the link's transaction ends. */
void link_define(struct link *);
void link_define_over(struct link *);
/* True and made the youngest when the statement is there and up to date. */
bool prepared_touch(struct prepared_set *, struct hash128 id);
/* Whether the server has one of that name, be it out of date: then it is to be closed first. */
bool prepared_is_old(const struct prepared_set *, struct hash128 id);
/* "cached plan must not change result type": it is out of date, on all links. */
void prepared_renew(struct hash128 id);
/* Where a client prepares for itself, it would have met what was defined before. It may be told
 * that the link has the statement already, but only when that was made since then: after as many
 * definitions as this process has seen, and, since others make some past it, at most
 * PREPARED_SHARED_US before. {0}: any time. */
struct prepared_since {
	uint64_t definitions;
	int64_t us; /* of the client's Parse */
};
struct prepared_since prepared_since_now(void);
/* prepared_touch(), but only of what was made since then. */
bool prepared_touch_fresh(
    struct prepared_set *, struct hash128 id, struct prepared_since);
/* The same, but only of what the server has looked at since the client's Parse: it was made,
 * bound or described later, so that a definition before the Parse cannot make it fail. now_us: the
 * server looks at it now, for what is sent next (prepared_doubt(): that has failed); or 0. */
bool prepared_touch_proven(
    struct prepared_set *, struct hash128 id, struct prepared_since, int64_t now_us);
void prepared_doubt(struct prepared_set *, struct hash128 id);
/* It must be prepared anew. */
void prepared_suspect(struct prepared_set *, struct hash128 id);
/* The one used longest ago after `skip` others; false when there is none. */
bool prepared_oldest(const struct prepared_set *, unsigned skip, struct hash128 *id);
/* batch: that of the Parse; the statement is not sure until prepared_confirm(). */
void prepared_add(struct prepared_set *, struct hash128 id, uint32_t batch);
void prepared_confirm(struct prepared_set *, struct hash128 id);
/* Parsed in an earlier batch that the server has not answered: it may have skipped it. */
bool prepared_is_unsure(const struct prepared_set *, struct hash128 id, uint32_t batch);
void prepared_forget(struct prepared_set *, struct hash128 id);
/* Statements that clients share have been read for somebody else. What they were read under may
 * have changed since, so they are used for a moment only: as long as no definition and no SET is
 * known to have come between, and PREPARED_SHARED_US at most. */
#define PREPARED_SHARED_US 1000000
enum prepared_shared {
	PREPARED_MISSING, /* or out of date */
	PREPARED_FRESH,   /* and made the youngest */
	PREPARED_WORN     /* out of date after much use */
};
enum prepared_shared prepared_shared(
    struct prepared_set *, struct hash128 id, uint32_t said, int64_t now_us);
/* prepared_add(), of such a one. */
void prepared_share(struct prepared_set *, struct hash128 id, uint32_t batch,
    uint32_t said, int64_t now_us);
unsigned prepared_count(const struct prepared_set *);
/* Takes out the one used longest ago; false when there is none. */
bool prepared_evict(struct prepared_set *, struct hash128 *id);
void prepared_clear(struct prepared_set *);

/* ---- links ---- */

/* Makes the room's part of a worker; before net_start(). And frees it, after net_join(). */
void link_init(struct worker *);
void link_fini(struct worker *);

enum link_state {
#define STATE(name, doc) LINK_##name,
#define EDGE(...)
#include "tbl/link_fsm.def"
#undef STATE
#undef EDGE
	LINK_STATES
};

struct link;
struct cancel;

/* Whom a link belongs to (pool). */
struct link_keeper {
	/* Login and connect_query are over: the link is IDLE. */
	void (*ready)(struct link *);
	/* It will not come up; CLOSED. error: what the server said, or NULL. */
	void (*failed)(struct link *, int fault, const char *why,
	    const struct proto_error_fields *error);
	/* An idle link was closed by its server, or sent what it may not; CLOSED. */
	void (*lost)(struct link *, const char *why);
	/* The last cancel request on a CANCELLING link is over. */
	void (*cancelled)(struct link *);
	/* Called once when the link closes, whatever the reason. */
	void (*closed)(struct link *);
	/* A NotificationResponse (its body) while the link is not lent; NULL: not wanted. */
	void (*notified)(struct link *, const uint8_t *body, size_t len);
};

/* Who uses a lent link (session). */
struct link_user {
	size_t (*bytes)(struct link *, const uint8_t *p, size_t len);
	void (*drained)(struct link *);
	/* The link is gone; CLOSED. */
	void (*lost)(struct link *, const char *why);
};

/* What a client that gets a link of its own, a walsender, asked for when it connected. */
struct link_own {
	enum proto_replication replication;
	struct buf params; /* name NUL value NUL …, replication among them */
};

/* Where to and as whom. Strings belong to the snapshot held by topo, or are copied. */
struct link_target {
	const struct topo *topo;
	const struct topo_database *database;
	unsigned host;    /* index into database->hosts */
	const char *name; /* the database's, as the client said it: "*" stands for many */
	const char *dbname, *role;
	const char *secret;           /* for the login at the server; NULL: none */
	const struct auth_keys *keys; /* where secret is a verifier; or NULL */
	struct tls *tls;
	const struct link_own *own; /* NULL: for any client */
};

/* A query of the proxy's own has been answered. ok: no ErrorResponse. */
typedef void link_ran(struct link *, void *arg, const struct proto_error_fields *error);
/* One of its rows: the body of a DataRow. */
typedef void link_row(void *arg, const uint8_t *body, size_t len);

/* Which client a server process works for, or has worked for last, for whoever hears from it
 * by its number. Known to all threads while the link is open. */
struct link_owner {
	struct table_node node;
	bool is_known; /* it is in the table */
	_Atomic uint32_t client;
};

#define LINK_DRAWN_MIXED UINT64_MAX
#define LINK_MAGIC       0x4c494e4bU
struct link {
	struct burial burial;
	uint32_t magic;
	enum link_state state; /* written by link_move() alone */
	struct stream stream;
	struct worker *worker;
	const struct link_keeper *keeper;
	TAILQ_ENTRY(link) entry; /* the keeper's: all links of a place */
	TAILQ_ENTRY(link)
	idle_entry;           /* the keeper's: those that are idle; LENT: the user's */
	void *place;          /* the keeper's */
	struct mail mail;     /* the keeper's: to another worker */
	uint64_t reconnect;   /* the keeper's */
	unsigned move_to;     /* the keeper's: worker to which it is handed over */
	unsigned host_at;     /* the keeper's: among the database's hosts */
	struct waiter *owner; /* the keeper's: for whom alone it is opened */
	struct waiter
	    *kept_for; /* the keeper's: for whom it is opened, or idle; or NULL */
	const struct link_user *user;
	void *user_arg;
	struct vars *vars;
	struct vars *born; /* what it had after its login */
	struct requests requests;
	struct prepared_set prepared;
	struct buf hold;     /* the user's: bytes of a message to be rewritten */
	uint32_t body_left;  /* of the message that is passing through */
	char txn;            /* status of the last ReadyForQuery: I T E */
	bool wants_sync : 1; /* extended messages were sent after the last Sync */
	bool
	    skips_to_sync : 1; /* an error in an extended batch: the server ignores until Sync */
	bool is_copying_in : 1;
	bool copy_has_ended : 1; /* CopyDone or CopyFail went up after the last Execute */
	bool
	    has_lost_sync : 1; /* a Sync went up that a copy may have swallowed, or not */
	bool is_dirty : 1;     /* close it when it comes back */
	bool was_shared : 1; /* used by sessions that share links since its last reset */
	bool is_tainted : 1; /* the user's: something of its session is left there */
	bool saw_fatal : 1;  /* the server has said farewell */
	bool body_is_forwarded : 1;
	bool wants_close : 1; /* RECONNECT, or its configuration has changed */
	bool is_listed : 1;   /* the keeper's: it is among the idle ones */
	bool is_checking : 1; /* the keeper's: server_check_query runs */
	bool was_ready : 1;   /* the keeper's: its login was fine */
	bool has_defined : 1; /* something may be defined when its transaction ends */
	bool has_rows : 1;    /* the user's: a simple query has described its rows */
	/* the user's, of a batch that runs a statement which clients share: */
	bool is_sharing : 1; /* the batch that is being sent is one */
	bool
	    shares : 1; /* of one, nothing but ParseComplete has come that is the client's */
	bool has_told_parse : 1; /* that has */
	bool heals : 1;          /* it has failed, and runs once more after its end */
	uint8_t replication;     /* enum proto_replication: it serves one client alone */
	uint32_t pid;            /* BackendKeyData */
	uint16_t key_len;
	uint8_t *key; /* NULL: none came */
	struct link_owner serves;
	uint64_t unnamed; /* the user: token of its unnamed statement; 0: there is none */
	uint32_t batch;   /* counts the Syncs sent */
	/* The user's: whose values of sequences the server's session has last, before and since it
	 * was lent; 0: nobody's. */
	uint64_t drawn_before, drawn;
	uint32_t said;         /* counts the SETs and RESETs of clients */
	struct hash128 shared; /* the user's: the statement of the batch that shares */
	struct buf kept;       /* the user's: what stands behind its Parse */
	unsigned cancels;      /* cancel requests under way */
	int64_t connect_us;    /* when it was opened, monotonic */
	int64_t connect_wall_us;
	int64_t request_us; /* when it was lent, or became idle */
	int64_t run_us;     /* when the query of the proxy's own was sent */
	int64_t query_us;   /* when the statement under way began; 0: none */
	int64_t xact_us;    /* and the transaction */
	uint64_t id;
	uint64_t generation; /* the keeper's: of the snapshot it was opened from */
	struct addr local, remote;
	struct sockaddr_storage peer; /* for cancel requests */
	socklen_t peer_len;
	struct tls *tls;
	const char *name;         /* "database/role@host:port", for the log */
	char *host;               /* as configured: for the server's certificate */
	struct link_login *login; /* until the login is over */
	struct link_run *run;     /* while RUNNING */
};

/* Begins to open a link. Never fails at once: keeper->failed() comes later, from the loop. */
struct link *link_open(
    struct worker *, const struct link_keeper *, void *place, const struct link_target *);
/* Closes and buries it; in the keeper's or user's hands alike. reason: for the log. */
void link_close(struct link *, const char *reason);
const char *link_state_name(enum link_state);
/* LENT: bytes go to the user, whose link->drawn is of several unless it says better. */
void link_lend(struct link *, const struct link_user *, void *user_arg);
/* LENT -> IDLE or CANCELLING, as cancel requests allow. */
void link_give_back(struct link *);
/* CANCELLING -> IDLE. */
void link_cancel_over(struct link *);
/* Runs a simple query of the proxy's own, its rows swallowed; LENT or IDLE before, RUNNING
 * until ran(), which finds the link in the state that it had. */
void link_run(struct link *, const char *sql, link_ran *ran, void *arg);
/* The same with its rows. */
void link_run_rows(
    struct link *, const char *sql, link_row *row, link_ran *ran, void *arg);
/* The end of what runs is somebody else's, and its rows are nobody's. */
void link_run_instead(struct link *, link_ran *ran, void *arg);
/* A command tag (with its NUL): definitions are counted, and statements and parameters that it
 * has dropped are forgotten.
 * True when it was DISCARD ALL or DEALLOCATE ALL. */
bool link_note_tag(struct link *, const char *tag, size_t len);
/* A ParameterStatus of the server: the link's vars follow. */
void link_note_parameter(struct link *, const char *name, const char *value);
/* Nothing outstanding, no half message, outside a transaction. */
bool link_is_at_rest(const struct link *);
/* An IDLE link goes to another worker in three steps: MOVING, from which on nobody here uses
 * it; out of its worker, at the end of the turn, when no callback holds it and
 * stream_can_move() still says so; and into the other. */
bool link_can_move(const struct link *);
void link_move_begin(struct link *);
void link_detach(struct link *);
void link_attach(struct link *, struct worker *);
/* Sends a CancelRequest with the link's key over a connection of its own. The link is not
 * given back before that connection has closed. done (or NULL) is called then, exactly once,
 * in this thread, also when the request could not be sent. */
void link_cancel(struct link *, void (*done)(void *arg), void *arg);
/* Gives up cancel connections older than max_us. */
void link_cancels_expire(struct worker *, int64_t now_us, int64_t max_us);
/* The login has taken too long, as failed() will say. */
void link_login_expire(struct link *);
/* The link serves that client from now on: the number that BackendKeyData gave it. */
static inline void
link_serve(struct link *l, uint32_t client)
{
	atomic_store_explicit(&l->serves.client, client, memory_order_relaxed);
}
/* The client of this process for which the backend works, or has worked last, that has this
 * number at the same server as the link; 0: none is known. */
uint32_t link_client_of(const struct link *, uint32_t pid);
/* The age of the link in seconds. */
int64_t link_age_s(const struct link *);

#endif
