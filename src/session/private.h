/* session, for its own files. */
#ifndef SESSION_PRIVATE_H
#define SESSION_PRIVATE_H
#include "auth.h"
#include "proto.h"
#include "session.h"

/* A message that must be seen whole (Parse of a named statement, names) may be this long. */
#define SESSION_WHOLE_MAX (64 * 1024 * 1024)

/* An unnamed statement up to this length is kept, in case a later batch binds it on another
 * link. */
#define SESSION_UNNAMED_MAX 65536
/* On a link: an unnamed statement of nobody known. */
#define UNNAMED_FOREIGN UINT64_MAX
/* Named statements of one client take at most this many bytes. */
#define SESSION_STATEMENTS_MAX (64 * 1024 * 1024)
/* And the names of one Bind this many. */
#define SESSION_NAMES_MAX (1024 * 1024)

/* What holds a session to a link: see carry.h, and anchors.c for virtual databases. */
struct pins {
	unsigned held;   /* bits of enum sql_leaves */
	char *statement; /* that may pin the session; NULL: none */
	struct session_pin all[SESSION_PINS_MAX]; /* statements owned */
};

/* The only place that writes session->state. */
void session_move(struct session *, enum session_state to);
/* "C-0x12: db/user@1.2.3.4:5678 text" */
void session_log(const struct session *, enum log_level, const char *fmt, ...)
    PRINTF(3, 4);
/* Ends a session without a word to the client; reason: for the log. */
void session_end(struct session *, const char *reason);
/* An ErrorResponse of severity ERROR or FATAL, logged when the settings say so. */
void session_error(struct session *, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint);
/* A NOTICE; between two messages. */
void session_notice(struct session *, const char *message);
/* The same with what it was about: "COPY t, line 3"; or NULL. */
void session_error_in(struct session *, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint, const char *context);
void session_ready(struct session *, char status);
void session_on_world(struct worker *);

/* ---- accept.c ---- */

void session_open(struct worker *, int fd, const struct sockaddr *, bool is_surplus);
/* A client inside the process, whom its startup packet names and somebody has proven. */
void session_open_proven(struct worker *, int fd, bool is_surplus,
    const struct sockaddr *, const struct addr *peer, const struct buf *startup);

/* ---- login.c ---- */

struct session_login {
	struct buf packet; /* the startup packet; the fields of startup point into it */
	struct proto_startup startup;
	struct auth_server *auth;
	struct buf last_words; /* of the exchange: they go with what follows them */
	const struct topo_database *database; /* valid until the next turn only */
	struct vars *want; /* what it asked for, before a server has made it canonical */
	struct link_own own; /* of a walsender, instead */
	bool has_asked_tls, has_asked_gss;
	bool is_direct;   /* TLS from the first byte on */
	bool is_surplus;  /* one more than max_client_conn */
	bool is_inner;    /* from this process: proven already */
	const char *bars; /* why its key may not log in; NULL: it may, or is none */
	/* auth_query */
	struct lookup *lookup; /* under way; or NULL */
	bool has_looked;       /* it has answered: */
	bool is_found;         /* there is such a login */
	char *secret;          /* and this is its secret; NULL: it has none */
	/* the unix user */
	struct peer_name *peer_name; /* being asked for; or NULL */
	bool knows_peer;             /* it is known: */
	char *system_user;           /* NULL: it has no name */
	struct pool_secret *shown;   /* for logins at servers; or NULL */
};
size_t session_startup_bytes(struct session *, const uint8_t *p, size_t len);
/* The handshake of TLS is over. */
void session_startup_secured(struct session *);
void session_login_free(struct session *);
/* What the client has not been told yet of its login; out: empty, and the caller's. */
void session_login_said(struct session *, struct buf *out);

/* ---- prove.c ---- */

/* Who the client is: by the method that the settings or the rules say. Called again when what it
 * waits for is there. */
void session_prove(struct session *);
size_t session_auth_bytes(struct session *, const uint8_t *p, size_t len);
/* It has not shown who it is. reason: for the log. */
void session_unproven(
    struct session *, const char *sqlstate, const char *message, const char *reason);
/* Its link is its own until it leaves. */
static inline bool
session_keeps_link(const struct session *s)
{
	return (s->mode == POOL_SESSION && s->replication == REPLICATION_NONE &&
		s->weave == NULL);
}

/* AUTH, but nothing is asked of the client yet. */
static inline bool
session_is_looking(const struct session *s)
{
	return (s->state == SESSION_AUTH && s->login->auth == NULL);
}

/* ---- proofs.c ---- */

/* How a login must be proven: auth_type, or what its rule says. Valid for the turn. */
struct proof {
	enum auth_type method;
	const char *map;
	bool wants_cert, wants_name, by_subject;
};
/* False: the certificate is missing or that of somebody else, and the session is closed. */
bool session_cert_proves(struct session *, const struct proof *, bool is_key);
/* The name of the unix user at the other end is not known yet: asks for it; session_prove() is
 * called when it is. */
void session_peer_ask(struct session *);
bool session_peer_proves(struct session *, const struct proof *);
void session_peer_leave(struct session_login *);

/* ---- lookup.c ---- */

/* Whether the secret of a login that auth_file does not know is to be asked for. */
bool session_lookup_wanted(struct session *);
/* Asks for it; session_prove() is called when it is there, maybe at once. */
void session_lookup(struct session *);
/* The client does not wait any more. */
void session_lookup_leave(struct session_login *);
void session_lookups_tick(struct worker *, int64_t now_us);
/* All of them, at the end of the process. */
void session_lookups_end(struct worker *);

/* Who runs the proxy may look at it from the same machine without a password. */
bool session_is_operator(const struct session *);

/* What keeps the key from logging in from where the client is, or NULL. */
const char *session_key_bars(const struct session *, const struct topo_key *);
/* False, and the session is closed: keys are for virtual databases only. */
bool session_key_may(struct session *, const char *dbname);
/* A key with OPERATE has the console, by HTTP alone. */
bool session_key_operates(const struct session *, const struct topo_key *);

/* ---- welcome.c ---- */

/* The virtual database that a client means by that name, and of bank.analytics the member (else
 * *member is NULL); NULL: there is none. A name of the configuration comes before the * entry, a
 * database before a virtual one. */
const struct topo_virtual *session_find_virtual(
    const struct topo *, const char *dbname, const char **member);

/* What the client has shown of its secret serves the seat's links, when they log in under its
 * name. */
void session_show(struct session *, struct seat *);
/* Whether ignore_startup_parameters names it. */
bool session_ignores(const struct session *, const char *parameter);
/* Authenticated: learns and sets parameters, then greets. */
void session_welcome(struct session *);
void session_welcome_link(struct session *, struct link *);
void session_welcome_applied(struct session *, const struct proto_error_fields *error);
/* The value for application_name: with the client's address where the settings want that, made in
 * full. */
const char *session_application_name(
    const struct session *, const char *value, char *full, size_t size);
/* AuthenticationOk, parameters, key, ReadyForQuery. */
void session_greet(struct session *);

/* ---- replication.c ---- */

/* Reads the startup parameter; false: it makes no sense, and the session is closed. */
bool session_read_replication(struct session *);
/* No walsender is for a virtual database: the session is closed. */
void session_refuse_walsender(struct session *, const char *dbname);
/* Authenticated: asks for the link of its own, with which the session is greeted. */
void session_replicate(struct session *);

/* ---- lend.c ---- */

extern const struct link_user session_link_user;
/* IDLE -> ACTIVE with a link that can be used at once (true), or one that is being made
 * ready, or WAITING (false: the client is paused). */
bool session_get_link(struct session *);
void session_granted(struct waiter *, struct link *);
void session_refused(
    struct waiter *, int fault, const char *sqlstate, const char *message);
/* Begins to make the link's parameters those wanted; false: they are already. */
bool session_apply_vars(struct session *, struct vars *want);
/* What the link was told to be now; those that servers do not report are known so. */
void session_note_vars(struct link *, const struct vars *want);
/* These are the session's from now on; the client hears where they differ from what it was
 * told. */
void session_follow_vars(struct session *, const struct vars *told, struct vars *vars);
/* What the session's parameters are, when it is at rest on that link. */
void session_settle_vars(struct session *, struct link *);
/* track.c: the set with what RESET has brought back on a virtual database. Takes over the
 * reference as vars_with(). */
struct vars *weave_track_restored(struct session *, struct vars *) MUST_USE;
/* The set whose VARS_STARTUP members are the session's now. */
struct vars *session_tracked(const struct session *);
/* Whether the link must be reset before others have it; asked once. */
static inline bool
link_take_taint(struct link *l)
{
	bool was = l->is_tainted;

	l->is_tainted = false;
	return (was);
}
/* The session is without its link, which is at rest or is to be given back broken. What it
 * knows of the link goes with it. */
struct link *session_let_go(struct session *);
/* Gives the link back, in whatever state it is. */
void session_give_link(struct session *, const char *why);
/* Gives it back when the pool mode says so and nothing is owed. */
void session_release_if_done(struct session *);
/* How many answers that end with ReadyForQuery the client still waits for. */
unsigned session_owed_readies(const struct link *);
/* What the client has sent is being done, or waits for its turn. */
bool session_is_at_work(const struct session *);
/* Whether the client may send more now. */
void session_flow(struct session *);

/* ---- batch.c: parts of one write, some of them where they were read, some new ---- */

#define BATCH_PARTS 64
struct batch {
	struct stream *to;
	struct buf *scratch;
	struct part {
		const uint8_t *p; /* NULL: in the scratch buffer */
		size_t at, len;
	} parts[BATCH_PARTS];
	unsigned count;
	size_t bytes;
	struct buf *held; /* NULL, or where the bytes go instead */
};
void batch_begin(struct batch *, struct stream *to, struct buf *scratch);
/* Bytes that stay where they are until the flush. */
void batch_pass(struct batch *, const uint8_t *p, size_t len);
/* Room for new bytes: append them to the buffer that this answers, then batch_made(). */
struct buf *batch_make(struct batch *);
void batch_made(struct batch *);
void batch_flush(struct batch *);

/* ---- statements.c ---- */

/* What servers get for a statement that reads pg_prepared_statements, by what they know of it. */
#define STMT_VIEWS 3
struct stmt_views {
	char *sent[STMT_VIEWS]; /* NULL: not needed yet */
};
/* A statement's text and types; one object per worker, for all clients that prepared it. */
struct stmt {
	struct table_node node;
	struct hash128 id;
	unsigned refs;
	uint32_t sql_len, types_len;
	struct sense *sense; /* what it is; NULL: nobody has asked */
	char *clean; /* what servers get, without names of databases; NULL: the text */
	char *
	    declared; /* by PREPARE, with these types: "(int, text)" or ""; NULL: by Parse */
	struct stmt_views *views; /* prepare == SQL_PREPARE_VIEW; else NULL */
	uint8_t prepare;          /* enum sql_prepare_kind: what the text is */
	bool is_lone;             /* DROP DATABASE … */
	bool knows_share;
	uint8_t share;   /* enum sql_share */
	uint16_t leaves; /* enum sql_leaves: what it may leave in the server's session */
	bool knows_taint,
	    is_taint;   /* whether it leaves something in the server's session */
	uint8_t data[]; /* text, NUL, types */
};
/* A query string with a PREPARE in it. */
struct stmt_said {
	unsigned refs;
	uint32_t len;
	char text[];
};
/* A client's name for one. Lives until nobody waits for an answer about it. */
struct stmt_name {
	struct table_node node;
	struct stmt *stmt;
	unsigned pending;
	uint32_t batch;              /* of its Parse */
	struct prepared_since since; /* the client has prepared it */
	struct stmt_said *said;      /* by PREPARE, in that string; NULL: by Parse */
	bool is_sure;                /* that Parse has been answered */
	bool is_listed;
	bool is_lost; /* a server has refused it since */
	char name[];
};
struct statements {
	struct table names;
	struct stmt_name *last; /* that was asked for, and is listed; or NULL */
	size_t bytes; /* of names and texts, each text counted as often as it is named */
};
struct stmt *stmt_intern(struct worker *, const struct proto_parse *);
/* The same under an id of the caller's; types: as in Parse. */
struct stmt *stmt_intern_as(struct worker *, struct hash128 id, const char *sql,
    size_t sql_len, const uint8_t *types, size_t types_len);
/* What a name costs of SESSION_STATEMENTS_MAX, and whether there is room for it. */
size_t stmt_name_bytes(const char *name, size_t sql_len);
bool statements_have_room(const struct session *, const char *name, size_t sql_len);
/* What a server is told. */
static inline const char *
stmt_text(const struct stmt *st)
{
	return (st->clean != NULL ? st->clean : (const char *)st->data);
}
void stmt_release(struct worker *, struct stmt *);
static inline struct stmt *
stmt_hold(const struct stmt *st)
{
	struct stmt *held = (struct stmt *)(uintptr_t)st;

	held->refs++;
	return (held);
}
struct stmt_said *stmt_said_make(const char *sql, size_t len);
void stmt_said_release(struct stmt_said *);
/* The name was given by a PREPARE in that string (NULL: it was not). */
void stmt_name_say(struct session *, struct stmt_name *, struct stmt_said *);
struct stmt_name *stmt_name_find(const struct session *, const char *name);
/* Takes over the reference to stmt. */
struct stmt_name *stmt_name_add(struct session *, const char *name, struct stmt *);
void stmt_name_take_out(struct session *, struct stmt_name *);
void stmt_name_put_back(struct session *, struct stmt_name *);
/* One answer less to wait for. */
void stmt_name_unpend(struct session *, struct stmt_name *);
/* The session's unnamed statement is this now; takes over the reference. */
void stmt_unnamed_set(struct session *, struct stmt *);
void statements_clear(struct session *);
void statements_free(struct session *);

/* ---- upstream.c, downstream.c ---- */

size_t session_feed(struct session *, const uint8_t *p, size_t len);
size_t session_link_bytes(struct link *, const uint8_t *p, size_t len);
/* Answers that need no server and whose turn has come. */
void session_emit_fakes(struct session *, struct batch *);
/* The counter of queries that take about as long. */
enum metric_id session_query_bucket(int64_t us);
/* The server will never do what this request asks. */
void session_undo_request(struct session *, struct link *, struct request *);
/* The session will not see the answers any more; the requests stay owed to nobody. */
void session_disown_requests(struct session *, struct link *);

/* ---- peer.c: cancel requests for other processes ---- */

/* The secret of a key that peer_id gives out; 0: it has no peers. */
uint32_t peer_secret(uint32_t peer_id, uint32_t random);
uint32_t peer_of_secret(uint32_t secret);
/* Without the count of those who have passed it on. */
uint32_t peer_secret_plain(uint32_t secret);
/* Takes a request of another's to it; done() is called once, later, when it is over. False: it
 * is nobody's that is known. key: of 4 bytes or more, which begin with the secret. */
bool peer_forward(struct worker *, uint32_t pid, const uint8_t *key, size_t key_len,
    void (*done)(void *arg), void *arg) MUST_USE;
void peer_tick(struct worker *, int64_t now_us);
void peer_end_all(struct worker *);

/* ---- cancel.c ---- */

/* A client of protocol 3.2 gets a key of 32 bytes, as PostgreSQL gives. */
#define KEY_SHORT 4
#define KEY_LONG  32
#define KEY_REST  (KEY_LONG - KEY_SHORT)
/* The pids that clients get have this bit, which no process of a server has. */
#define SESSION_PID_MIN 0x400000U
void session_key_create(struct session *);
/* What it does, or waits for, is cancelled; done() is called once, then or at once. */
void session_cancel_now(struct session *, void (*done)(void *), void *arg);
/* The client of this worker that got that pid and is logged in to a database; or NULL. */
struct session *session_of_pid(struct worker *, uint32_t pid);
void session_key_lengthen(struct session *);
/* A client that has a server's process for itself is told the pid of that, unless another one has
 * been. */
void session_key_tell(struct session *, uint32_t pid);
/* The pid that the client was told. */
uint32_t session_told_pid(const struct session *);
/* And the other way round: s->pid of the client that was told that one; pid: nobody was. */
uint32_t session_own_pid(uint32_t pid);
/* BackendKeyData. */
void session_key_put(const struct session *, struct buf *);
void session_key_destroy(struct session *);
/* The session brought a cancel request. */
void session_cancel_order(struct session *, const struct proto_startup *);
void session_order_forget(struct session *);

void session_tick(struct worker *, int64_t now_us);

/* ---- console.c ---- */

void session_console_start(struct session *);
size_t session_console_bytes(struct session *, const uint8_t *p, size_t len);
void session_console_free(struct session *);
bool session_console_is_busy(const struct session *);

#endif
