/*
 * session/listen.h: LISTEN where links are shared, for the session room's own files.
 *
 *   hub.c      the listening link of a pool in a worker: on which channels it listens
 *   listen.c   what a client listens to: LISTEN and UNLISTEN, transactions, delivery
 *   heed.c     LISTEN and UNLISTEN on virtual databases, without marks
 *   echo.c     NOTIFY by a client of this process: whom it names, when it is through
 *
 * A client's LISTEN runs on whatever link it has, under a name that nobody notifies, so that
 * the server says at the end of the transaction what of it holds, savepoints and all:
 *
 *   client        server (a link)                   hub
 *   begin         begin
 *   listen a                                        LISTEN a, and it does
 *                 LISTEN pgweave_7
 *   unlisten b    LISTEN pgweave_8                  (b stays)
 *   commit        commit
 *                 SELECT pg_listening_channels(); UNLISTEN *
 *   (ready)       7 and 8 hold: a is the client's, b is not any more
 *
 * What the hub hears of a channel while its LISTEN is not sure waits with the client's other
 * notifications, which a client in a transaction gets at its end.
 */
#ifndef SESSION_LISTEN_H
#define SESSION_LISTEN_H
#include "prepare.h"

/* One of the things that the session's next message waits for (waits_own) is over. They may be
 * several at a time: a LISTEN has come in, and the NOTIFY before it is being heard. */
static inline void
session_own_over(struct session *s)
{
	INVARIANT(s->waits_own > 0);
	s->waits_own--;
}

/* ---- hub.c ---- */

struct hub;
struct ear;
/* A channel on which a hub listens, or will. */
struct channel {
	struct table_node node;
	struct hub *hub;
	TAILQ_HEAD(, ear) ears;
	TAILQ_ENTRY(channel) entry; /* is_due */
	bool is_on;                 /* the server has said so */
	bool is_due;                /* the server is to be told */
	bool is_telling;            /* what is under way tells it */
	uint64_t heard;             /* notifications */
	char name[];
};
/* The server listens, and no UNLISTEN is on its way. */
static inline bool
channel_hears(const struct channel *c)
{
	return (c->is_on && !c->is_telling);
}
/* Somebody who wants to know that all which the hub was to do before is done, and that it has
 * heard what was committed before. Embedded in its owner. */
struct ticket {
	TAILQ_ENTRY(ticket) entry;
	struct hub *hub; /* NULL: it is no hub's */
	/* error NULL: so it is. */
	void (*done)(struct ticket *, const struct proto_error_fields *error);
};

/* The hub of a seat for clients of that encoding; makes it. NULL: the seat's database is gone. */
struct hub *hub_get(struct seat *, const char *encoding);
const struct seat *hub_seat(const struct hub *);
/* The channel of that name, with another ear; makes it. */
void hub_add(struct hub *, const char *name, struct ear *);
void hub_remove(struct ear *);
/* The channel is not on, and is to be. */
void hub_ask(const struct ear *);
void hub_sync(struct hub *, struct ticket *);
void ticket_leave(struct ticket *);
/* Calls each() for the hubs of this worker that hear what is notified there. */
void hub_each_near(
    struct worker *, const char *place, void (*each)(void *arg, struct hub *), void *arg);
bool hub_is_up(const struct hub *);
/* Hubs of all workers that have a link. */
extern _Atomic unsigned hub_count;
static inline bool
hub_any(void)
{
	return (UNLIKELY(atomic_load_explicit(&hub_count, memory_order_relaxed) > 0));
}
/* Of the worker with that index. */
unsigned hub_count_of(unsigned worker);
void hub_tick(struct worker *, int64_t now_us);
void hub_world(struct worker *);
/* PAUSE, RECONNECT … of databases. */
void hub_apply(struct worker *);
/* Ends those of a database that nobody listens on. */
void hub_kill(struct worker *, const char *database_or_null);
void hub_end_all(struct worker *);
/* Closes the links there that nobody listens on. */
void hub_close_unused(struct worker *, const char *place);

/* ---- listen.c ---- */

/* A client and a channel. */
struct ear {
	struct table_node node; /* by the channel's name */
	TAILQ_ENTRY(ear) entry; /* of the channel */
	struct listens *owner;
	struct channel *channel;
	bool is_on;    /* its LISTEN has been committed */
	bool is_maybe; /* there is a LISTEN of it that is not */
	bool was_lost; /* by the hub, behind that LISTEN */
};
/* LISTEN or UNLISTEN in the transaction under way. */
struct listen_action {
	uint64_t mark;
	bool is_off, holds;
	char *channel; /* NULL: of UNLISTEN *: all */
};
struct echo;
struct listens {
	struct session *s;
	struct table ears;
	struct listen_action *actions;
	unsigned action_count;
	struct ticket ticket;   /* a LISTEN waits for it */
	bool waits;             /* it does */
	struct refusal refusal; /* why the hub does not listen; the next LISTEN gets it */
	bool holds;             /* ReadyForQuery is not the client's yet */
	bool owes_ready;
	bool is_working;    /* on what it is held for */
	bool has_notified;  /* the transaction has said NOTIFY */
	bool has_committed; /* COMMIT behind LISTEN: what comes may be wanted */
	bool is_shown;      /* the link listens for pg_listening_channels() */
	bool was_tainted;   /* the link, before the first action */
	bool is_lost;       /* the hub's link was: to be told as soon as it can be */
	struct echo *echo;  /* under way; or NULL */
	struct buf queue;   /* NotificationResponses for the end of the transaction */
};
/* Whether an UNLISTEN means anything. */
static inline bool
listen_is_any(const struct session *s)
{
	return (s->listens != NULL &&
		(s->listens->ears.count > 0 || s->listens->action_count > 0));
}
#define LISTEN_LOST                                                                      \
	"notifications may have been missed: the listening connection was lost"
enum listen_go { LISTEN_GO, LISTEN_WAITS, LISTEN_REFUSED };
/* The hub listens on the channel; or will, and the client is paused until then; or refusal
 * says why not. */
enum listen_go listen_want(struct session *, struct seat *, const char *channel);
/* Where the client listens to it, or is about to; NULL: it does not. */
const struct seat *listen_seat(const struct session *, const char *channel);
/* The same for all that a query string listens to. False: it waits. */
bool listen_is_ready(struct session *, const char *sql, size_t len);
/* A statement that may ask pg_listening_channels(): the link listens as the client does. False:
 * the message waits. Not in a transaction: there it would listen too late. */
bool listen_is_shown(struct session *, const char *sql, size_t len);
/* Whether the transaction may have one more LISTEN or UNLISTEN. */
bool listen_has_room(const struct session *);
#define LISTEN_NO_ROOM                                                                   \
	"too many LISTENs and UNLISTENs in one transaction (max_listen_channels)"
/* What the server gets for LISTEN (channel) or UNLISTEN (is_off; NULL: *) of the client. The
 * caller frees it. */
char *listen_mark(struct session *, const char *channel, bool is_off) MUST_USE;
/* Messages behind the end of a transaction wait until it is known what of it holds. */
bool listen_stalls(struct session *);
/* A client's ReadyForQuery: true when it is held back. is_owed: the client waits for it. */
bool listen_ready(struct session *, struct batch *, bool is_owed);
/* The link is at rest and ReadyForQuery is held back. */
void listen_work(struct session *);
/* The same, and the link was lost. False: the session cannot go on. */
bool listen_link_lost(struct session *);
/* DISCARD ALL. */
void listen_clear(struct session *);
/* What waits, now that the session has no link. */
void listen_flush(struct session *);
/* A notification for this ear. */
void listen_hear(struct ear *, const uint8_t *message, size_t len);
/* The link on which the channel was listened to is gone. */
void listen_lost(struct ear *, const char *why);
void listen_free(struct session *);
struct listens *listen_get(struct session *);
void listen_go_on(struct session *);

/* On a virtual database: LISTEN or UNLISTEN (is_off; NULL: *) holds. */
void listen_hold(struct session *, const char *channel, bool is_off);
/* The same, when the session is outside of a transaction and has no link. False: it is closed,
 * since notifications may have been missed. */
bool listen_rest(struct session *);

/* ---- heed.c ---- */

/* LISTEN_REFUSED: weave->refusal says why. LISTEN_GO of any other statement. */
enum listen_go heed_is_ready(struct session *, const struct sense *);
/* An UNLISTEN behind other statements of its string goes with them, to a server to which it means
 * nothing: it is noted. */
bool heed_follows(struct session *, const struct sense *);
void heed_run(struct session *, const struct sense *, struct buf *out);
/* All of a unit was answered here: outside of a transaction what it said holds, or not. False:
 * the session is closed. */
bool heed_rest(struct session *, bool committed);

/* ---- echo.c ---- */

/* The session's transaction says NOTIFY. */
void echo_note(struct session *);
/* A text that may. */
void echo_look(struct session *, const char *sql, size_t len);
/* Waits until every hub has heard what the session has notified, then listen_go_on(). */
void echo_start(struct session *);
void echo_leave(struct listens *);
/* A NotificationResponse (its body) for clients, from that client; 0: as it is. */
void echo_put(struct buf *, const uint8_t *body, size_t len, uint32_t client);

/* ---- signal.c ---- */

enum order_end { ORDER_WAITS, ORDER_DONE, ORDER_NOBODY, ORDER_DENIED, ORDER_ITSELF };
/* Q, P, and B where signal_is_noted(). UP_PASS: it has nothing to do with this. */
enum up_verdict signal_message(struct up *, char type, uint32_t size);
/* The n-th parameter of a Bind: where its value stands and whether it is binary. False: it has
 * none. at: of the body, behind the names. */
bool bind_value(const uint8_t *body, size_t len, size_t at, unsigned n, size_t *value_at,
    size_t *value_len, bool *is_binary);
bool signal_is_noted(const struct session *);
/* The statement of that name is another one now. */
void signal_forget(struct session *, const char *name);
void signals_free(struct session *);

/* ---- upstream.c ---- */

/* Deals with the whole message that stands at u->p, as if the client had sent it. */
enum up_verdict up_substitute(struct up *, char type, uint32_t size);

/* ---- fence.c ---- */

/* The statement may be sent, also if it needs a database without connections; or the message
 * waits. The link is the session's. */
bool fence_is_ready(struct up *, const char *sql, size_t len);
/* It was parsed alone, and its Execute goes by unseen: the fence outlasts one rest. */
void fence_stay(struct session *);
/* Its link is at rest. */
void fence_rest(struct session *);
/* It is over. */
void fence_leave(struct session *);
/* The session has one. */
void fence_tick(struct session *, int64_t now_us);

#endif
