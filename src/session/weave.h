/*
 * session/weave.h: sessions on virtual databases, for the session room's own files.
 *
 *   weave.c    which message begins what; what servers say to it
 *   hold.c     statements that wait while a primary is missing
 *   again.c    reads that a replica gives up, and that are run again on the primary
 *   decide.c   what becomes of a statement: answered here, relayed to one link, or scattered
 *   repeat.c   statements that go where one like them went
 *   simple.c   simple queries
 *   extended.c extended batches, the statements and portals kept here
 *   cursors.c  the cursors and portals that servers have
 *   sense.c    what a statement is, and where it goes
 *   legs.c     the links of a transaction or a statement: taking, parking, ending
 *   scatter.c  a statement on several databases
 *   split.c    an INSERT or COPY whose rows go to several databases
 *   kinds.c    whether what a merge reads are tables
 *   local.c    statements that are answered here: BEGIN, SET pgweave.…, EXPLAIN (ROUTE)
 *   said.c     the settings pgweave.…
 *   track.c    what the client sets, which follows it from link to link
 *   heed.c     LISTEN and UNLISTEN
 *   anchors.c  links that the session keeps beyond its transactions
 *   temps.c    names of temporary tables, and where they are
 *   virtual.c  a session comes, lives through reloads, leaves
 *
 * A unit is a simple query, or an extended batch up to its Sync. A unit begins when nothing is
 * owed to the client any more; it then goes to one link (it relays), or is answered message
 * by message.
 *
 * BEGIN is answered at once and sent with the first statement, whose route decides the
 * database. Each database that a transaction touches is a leg of it. One leg is s->link, the
 * others are parked. At most one leg has written or has savepoints: the transaction's home,
 * where SAVEPOINT, SET and COMMIT go; what the others have read ends with a rollback.
 */
#ifndef SESSION_WEAVE_H
#define SESSION_WEAVE_H
#include "federate.h"
#include "private.h"
#include "route.h"
#include "sql.h"

/* ---- upstream.c: where a client's bytes stand ---- */

struct up {
	struct session *s;
	const uint8_t *p;
	size_t len, used;
	struct batch batch;
	int64_t now_us;
	bool has_looked; /* at what the simple query leaves behind */
	size_t kept;     /* from here on, the bytes are kept by again.c while it keeps */
	bool is_substitute; /* p is not the client's: see up_substitute() */
};
/* UP_PASS: the message is one for s->link. */
enum up_verdict { UP_GO_ON, UP_STOP, UP_PASS };
/* The next `total` bytes pass, or are dropped. */
enum up_verdict up_body(struct up *, uint32_t total, bool is_dropped);
/* A protocol error that leaves no way to go on. */
enum up_verdict up_broken(struct up *, const char *message);
/* The server is made to fail the batch under way; the client gets weave->refusal instead of
 * the server's words. The link is s->link. */
void up_doom(struct up *);
/* A Sync of the proxy's own ends the batch at s->link. */
void up_own_sync(struct up *);
/* The simple query that stands at u->used goes to s->link with its first bytes blank. text:
 * instead of its own, as long; or NULL. */
void up_query_blanked(struct up *, uint32_t size, uint32_t blank, const char *text);

/* ---- an error for the client ---- */

struct refusal {
	char sqlstate[6];
	char *message, *detail, *hint; /* NULL: none */
	char *context;                 /* "COPY t, line 3"; NULL: none */
};
void refusal_set(struct refusal *, const char *sqlstate, const char *message,
    const char *detail, const char *hint);
void refusal_free(struct refusal *);
static inline bool
refusal_is_set(const struct refusal *r)
{
	return (r->message != NULL);
}

/* ---- said.c ---- */

enum said_what {
	SAID_DATABASE,
	SAID_DATABASES,
	SAID_FEDERATION,
	SAID_ON_UNAVAILABLE,
	SAID_SHARD_KEY,
	SAID_READ_FROM,
	SAID_WHAT
};
struct said {
	char *v[SAID_WHAT]; /* NULL: nothing */
};
struct weave;
/* The setting of that name (with "pgweave."), or -1. */
int said_find(const char *name);
void said_put(struct said *, enum said_what, const char *value);
void said_copy(struct said *to, const struct said *from);
void said_free(struct said *);
struct route_said said_view(const struct said *);
/* What SHOW answers. */
const char *said_value(const struct weave *, enum said_what);

/* ---- sense.c ---- */

struct sense {
	struct sql_scan scan;
	const struct sql_facts *facts;
};
/* Of the first statement of the text, which must outlive it. */
void sense_make(struct worker *, const char *sql, size_t len, struct sense *);
void sense_end(struct sense *);
/* The facts alone, of a single statement without a hint that is like one that was here lately;
 * NULL: it is none. Valid until the next statement is looked at. */
const struct sql_facts *sense_known(struct worker *, const char *sql, size_t len);
/* Its text without the names of databases before ".schema.table"; NULL: there are none. The
 * caller frees it. */
char *sense_clean(struct worker *, const struct sense *);
/* Of a kept statement; kept with it. */
const struct sense *sense_of_stmt(struct worker *, struct stmt *);
/* A Bind's body from the parameter formats on. */
struct binding {
	const uint8_t *p;
	size_t len;
	size_t values_len; /* formats and values */
	const uint8_t *types;
	size_t types_len;
	const struct sql_argument
	    *arguments; /* of an EXECUTE, instead of all that; or NULL */
	unsigned argument_count;
};
/* False: malformed. */
bool binding_parse(struct binding *, const uint8_t *p, size_t len, const struct stmt *);
/* Parameter n, from 1, of a struct binding; false: there is none. */
bool binding_param(void *arg, unsigned n, struct route_datum *out);
/* result formats: count, and the i-th. */
unsigned binding_formats(const struct binding *, uint16_t *out, unsigned max);

/* The letters of the word stand somewhere in the statement, perhaps as something else. */
bool sense_has_word(const struct sense *, const char *word);
/* BEGIN READ ONLY, and not SERIALIZABLE: a replica may do it. */
bool sense_reads_anywhere(const struct sense *);
/* BEGIN: it says more than that (READ ONLY, ISOLATION LEVEL…). */
bool sense_has_modes(const struct sense *);
/* Answered here. */
bool sense_is_local(const struct session *, const struct sense *);
/* binding NULL: not known yet. */
void sense_input(struct session *, const struct sense *, const struct binding *,
    struct route_input *out);

/* ---- the state ---- */

enum weave_txn {
	TXN_NONE,
	TXN_DEFERRED, /* BEGIN was answered and not sent */
	TXN_OPEN,
	TXN_FAILED
};

struct leg {
	struct seat *seat;
	struct link *link; /* LENT or RUNNING; NULL: not there yet */
	bool is_open;      /* the transaction runs on it */
	bool has_written;
	bool has_savepoints; /* that the others have not */
	bool has_portals;    /* cursors, or portals with a name */
	bool is_main;        /* the first */
	uint64_t told;       /* of what the transaction has set: see track.c */
};

/* What SET pgweave.… had said when a savepoint was made. */
struct said_frame {
	char *name;
	struct said session, local;
	uint64_t noted; /* of what the transaction has set */
	unsigned temps; /* of temporary tables */
};

struct portal {
	TAILQ_ENTRY(portal) entry;
	struct stmt *stmt; /* held */
	uint8_t *bind;
	struct binding binding; /* into bind */
	size_t bytes;
	bool is_done; /* it has run, or the rest of its rows was thrown away */
	char name[];
};

/* What follows when the links are there. */
enum weave_then { THEN_RELAY, THEN_SCATTER, THEN_ROLLBACK };

struct seat_known {
	const struct topo_database *node;
	struct seat *seat;
};

/* A cursor or portal with a name, of a transaction. */
struct weave_cursor {
	char *name;
	const struct seat *seat; /* NULL: of the unit that is about to run */
};

/* A link that the session keeps beyond its transactions, as long as its server says that something
 * is there which cannot go to another. At most one of a seat. */
struct anchor {
	TAILQ_ENTRY(anchor) entry;
	struct session *s;
	struct link *link; /* s->link, a leg's, or parked here: LENT or RUNNING */
	unsigned touched;  /* bits of enum sql_leaves, since the server was asked */
	unsigned drops;    /* what is to go there, by the same bits */
	unsigned found;
	enum {
		STEP_NONE,
		STEP_ROLLBACK,
		STEP_DISCARD,
		STEP_ASK
	} step;           /* runs on the link */
	bool is_settling; /* it is parked, and the session's next message waits for it */
	struct pins pins;
	char **tables; /* temporary ones */
	char **cursors;
	unsigned table_count, cursor_count;
};

/* One for each worker. */
struct weave_plan {
	struct route_plan plan;
};

/* What gathers links, or is scattered: there while it does. */
struct weave_run {
	enum weave_then then;
	bool then_chains; /* ROLLBACK AND CHAIN */
	bool is_extended; /* part of an extended batch */
	bool is_cancelled;
	bool describes_portal;
	struct seat *want[ROUTE_LEGS_MAX]; /* in the order of gathering */
	unsigned want_count, got;
	int64_t start_us;
	struct federation *federation;
	struct weave_split *split; /* NULL: the same statement goes to all */
	struct federate_order order;
	struct federate_leg legs[ROUTE_LEGS_MAX];
	struct seat *seats[ROUTE_LEGS_MAX]; /* in the order of the answer */
	char *members[ROUTE_LEGS_MAX]; /* their names: the snapshot may go meanwhile */
	unsigned count;
	const struct sql_facts *facts; /* held */
	char *text;
	uint8_t *bind;
	char *kinds;     /* what members are asked about the tables; NULL: nothing */
	unsigned looked; /* members that have answered it */
	uint16_t formats[1664]; /* PostgreSQL's limit of columns */
};

/* A read at a replica. */
struct weave_again {
	bool keeps;           /* it may still be run again */
	bool repeats;         /* it is */
	struct buf sent;      /* the client's bytes of the unit */
	struct buf held;      /* answers that the client has not heard */
	uint32_t blank;       /* as it was when the unit began; and: */
	struct stmt *unnamed; /* held; or NULL */
	uint64_t unnamed_token;
	char **names; /* of statements that it has prepared */
	unsigned name_count;
};

struct weave {
	char *name;   /* of the virtual database */
	char *member; /* of dbname=bank.member; NULL */
	char *title;  /* as the client asked: "bank", "bank.analytics" */
	const struct topo_virtual *virt;
	const struct topo_key *key; /* or the login's rules; NULL */
	bool key_is_key;            /* not the login's rules */
	struct pool_secret *shown;  /* of the login's secret, for its members; or NULL */
	struct pool_place *place;   /* counts the clients of the virtual database */
	struct seat *home;          /* counts this client; where it is greeted */
	struct seat_known *seats;   /* of the present snapshot */
	unsigned seat_count;
	struct said base, session, saved, local;
	enum weave_txn txn;
	char *begin_sql; /* with the savepoints that were made before anything was sent */
	size_t begin_len;  /* without them */
	bool is_read_only; /* its reads may go to replicas */
	bool is_doomed;    /* a part of it was lost: nothing but ROLLBACK helps */
	int64_t txn_us;    /* when its first leg began */
	struct leg *legs;  /* at most ROUTE_LEGS_MAX */
	unsigned leg_count;
	struct said_frame *frames; /* savepoints, the oldest first */
	unsigned frame_count;
	TAILQ_HEAD(, portal) portals;
	struct weave_cursor *cursors; /* the oldest first */
	unsigned cursor_count;
	TAILQ_HEAD(, anchor) anchors;
	unsigned leaves_drop; /* what the unit has dropped wherever it is: bits */
	bool is_adrift;       /* an anchor was lost: the session ends */
	char *pinner;         /* the statement that may have pinned it; or NULL */
	/* Temporary tables made and dropped since the servers were asked, the oldest first. */
	struct temp *temps;
	unsigned temp_count, temp_sure; /* sure: those of units that have run */
	const struct seat *decided;     /* where the route has led last */
	char *routed; /* where the last statement went: names of members; or NULL */
	size_t routed_room;
	/* the unit */
	bool is_routed;      /* its link is, or will be, s->link */
	bool shuns_replicas; /* the one that it was for cannot be reached */
	bool reads_replica;  /* it was routed to one, but the primary can do it too */
	bool is_held;        /* the next message waits for a primary */
	bool is_admitted;    /* it waits for something else, and was let in */
	int64_t held_us;     /* since when; 0: it does not */
	bool relays;         /* the batch under way goes to s->link */
	bool is_repeated; /* what was decided last is as it was: nothing is to be noted */
	struct unit_notes {
		bool writes;      /* it may change something */
		bool saves;       /* SAVEPOINT */
		bool opens;       /* a cursor, or a portal with a name */
		bool rolls_back;  /* ROLLBACK, not to a savepoint */
		bool resets_all;  /* RESET ALL */
		bool taints;      /* leaves something in the server's session */
		unsigned leaves;  /* what may pin the session, or not any more: bits */
		unsigned drops;   /* what goes wherever it is: bits */
		bool binds_named; /* what is bound has a portal with a name */
		bool
		    awaits_run; /* what was noted is bound, and its Execute has not come */
		bool is_unsure;       /* which of what was noted has run */
		uint64_t awaits_from; /* it was noted behind this */
		bool has_begun;       /* BEGIN that the server runs: next_begin */
		bool has_failed;      /* an error has come */
		bool discards;        /* DISCARD ALL has run */
		unsigned commits;     /* transactions that it has committed */
		bool is_string;       /* of several statements: not one for a replica */
		bool
		    floats; /* the statement decided last may go wherever another one does */
		enum {
			ENDED_NOT,
			ENDED_COMMIT,
			ENDED_ROLLBACK
		} ended; /* the server says */
	} unit;
	struct track_note
	    *notes; /* what the transaction or unit has set, the oldest first */
	unsigned note_count;
	uint64_t noted, noted_sure; /* the last one; and of those that have been sent */
	char **cut; /* names that ROLLBACK TO has taken out of the notes */
	unsigned cut_count;
	uint64_t noted_cut;     /* when it did so last */
	struct vars *base_vars; /* held: as they were before the transaction; or NULL */
	struct vars *restored;  /* held: what a RESET has brought back; or NULL */
	struct vars *tracked; /* held: what is set beyond what servers report; or NULL */
	bool knows_level, is_serializable; /* default_transaction_isolation */
	struct made {
		char *name;        /* NULL: all */
		struct stmt *stmt; /* held; NULL: gone */
	} * made; /* what PREPARE and DEALLOCATE do in the string that is being decided */
	unsigned made_count;
	char *next_begin;
	bool next_is_read_only;
	bool is_bound;   /* and something in it may have run */
	bool is_running; /* counted in running_use->running */
	struct topo_key_use *running_use;
	struct hash128 parsed; /* what this batch has parsed last, and was routed by */
	bool has_parsed, parsed_writes, parsed_repeats;
	size_t portal_bytes;
	char *clean; /* the query string that runs, without names of databases; or NULL */
	uint32_t blank; /* bytes of the query string that were answered here; or: */
#define BLANK_ALL UINT32_MAX
	const char *bars;        /* why its key may not go on; NULL: it may */
	struct weave_plan *plan; /* room for a route's answer: the worker's */
	struct refusal refusal;
	struct weave_run *run;     /* WEAVING; or NULL */
	struct weave_again *again; /* NULL: never needed yet */
};
struct weave_run *weave_run(struct weave *);
void weave_run_free(struct weave *);
void weave_run_drop(struct weave_run *);

/* ---- weave.c ---- */

enum up_verdict weave_message(struct up *, char type, uint32_t size);
/* Of a batch that relays: a message that goes where the others went, and is of no other interest.
 * (A Sync ends the batch, and is.) */
static inline bool
weave_follows(const struct session *s, char type)
{
	const struct weave *w = s->weave;

	return ((type == 'E' || type == 'D') && w->relays && w->cursor_count == 0 &&
		TAILQ_EMPTY(&w->portals) && TAILQ_EMPTY(&w->anchors) && s->link != NULL &&
		s->state != SESSION_WEAVING && !w->unit.awaits_run &&
		!s->link->skips_to_sync && !refusal_is_set(&w->refusal));
}
/* What ReadyForQuery says. */
char weave_status(const struct session *);
/* An error of ours to the client; an extended batch is skipped, a transaction fails. is_simple:
 * ReadyForQuery follows. */
void weave_error(
    struct session *, const struct refusal *, bool is_extended, bool is_simple);
/* The refusal that stands is said; the message, with which a unit begins, is dropped. */
enum up_verdict weave_say_refusal(struct up *, char type, uint32_t size);
/* The same with this one. name: `fmt "name" does not exist` (or already exists, 42P05). */
enum up_verdict weave_refuse(struct up *, char type, uint32_t size, const char *sqlstate,
    const char *fmt, const char *name);
/* The answer goes to the client (and is freed); the message is dropped. */
enum up_verdict weave_say(struct up *, uint32_t size, struct buf *);
void weave_note_routed(struct weave *, const struct route_plan *);
/* Parts of a unit that has ended. */
void weave_unit_over(struct session *);
/* What may have been written is done: reads of the same login must see it. */
void weave_wrote(struct session *);
/* The server's ReadyForQuery, CommandComplete. */
void weave_ready(struct session *, struct link *, char status);
void weave_tag(struct session *, const char *tag);

/* ---- hold.c ---- */

/* The unit that begins cannot run because a primary is missing, and waits for the next one.
 * False: it does not wait, or not any longer. database: the one that cannot be reached, or
 * NULL: some member. */
bool weave_hold(struct session *, const struct topo_database *);
/* It goes on, or is given up. */
void weave_unhold(struct session *);
/* In every tick: those that wait look again. */
void weave_hold_tick(struct worker *);

/* ---- again.c ---- */

/* The unit passes to s->link from this message on: if that is a replica, it is kept. */
void again_begin(struct up *);
/* The unit is over, or another one. */
void again_over(struct session *);
void again_free(struct session *);
/* In the end of every feed: the client's bytes that it has consumed. */
void again_sent(struct up *);
/* A statement of that name is prepared. */
void again_named(struct session *, const char *name);
/* The batch goes to the client, or is held back. */
void again_hold(struct session *, struct batch *);
/* It is too late for another go: the client gets what was held back; then the batch. */
void again_release(struct session *, struct batch *);
/* Batches to the client are flushed: it gets what was held back if it may wait for it. */
void again_answered(struct session *);
/* True: the client does not hear of the error, the session has left the link. */
bool again_failed(struct session *, struct batch *, const struct proto_error_fields *);
/* The session has lost its link, with what was on it. True: the client does not hear of it. */
bool again_lost(struct session *, const char *name, const char *why);

/* ---- decide.c ---- */

/* A statement of the key is let in, or the refusal is set. */
bool weave_admit(struct up *);
enum decision { GO_LOCAL, GO_ONE, GO_MANY, GO_REFUSED };
/* GO_REFUSED, and the refusal is set. */
enum decision weave_decline(
    struct weave *, const char *sqlstate, const char *message, const char *hint);
/* What becomes of a statement. The plan is made for GO_MANY, and for GO_ONE unless the
 * statement belongs to the transaction's link (plan->leg_count 0). */
enum decision weave_decide(struct session *, const struct sense *, const struct binding *,
    struct route_plan *, struct seat **);
/* A string of statements is decided from its beginning. */
void weave_made_free(struct session *);
/* The statement goes to one link now: what it means for the session. */
void weave_note_relayed(struct session *, const struct sense *, const struct binding *);
/* ROLLBACK TO goes to the transaction's home; what failed elsewhere is given up. */
void weave_leave_failed(struct session *);
void weave_say_warning(struct session *, const struct route_plan *);
/* Takes the link that was decided for: as weave_take(). */
enum up_verdict weave_goes_to(struct session *, const struct sense *,
    const struct binding *, const struct route_plan *, struct seat *);

/* LISTEN and UNLISTEN, which are answered here (heed.c). */
bool heed_is(const struct sense *);
/* Where a statement goes by its route alone. */
enum decision weave_route(struct session *, const struct sense *, const struct binding *,
    struct route_plan *, struct seat **);
/* What the statement leaves in the server's session for whoever comes next. */
bool weave_is_taint(const struct sense *);

/* What is remembered with the facts of statements. */
struct facts_note {
	/* repeat.c: where they went; memo.member NULL: nothing is noted. */
	struct repeat_note {
		uint64_t snapshot, catalogs; /* their generations */
		const struct topo_virtual *virt;
		const struct topo_key *key;
		struct route_memo memo;
	} repeat;
	/* mux.c: */
	uint32_t run_us; /* how long they took lately; 0: not known */
	uint8_t fit;     /* whether they may share a link */
};
_Static_assert(sizeof(struct facts_note) <= SQL_NOTE_BYTES, "a note must fit");

/* ---- repeat.c ---- */

/* GO_ONE, as it was decided for one like it; false: it must be decided. */
bool repeat_decide(
    struct session *, const struct sense *, struct route_plan *, struct seat **);
/* It was decided so, by the route: others may follow it. */
void repeat_note(struct session *, const struct sense *, const struct route_plan *);
/* A query string at the beginning of its unit. True: it goes where one like it went; *v as
 * weave_take() has it. */
bool repeat_query(struct up *, const char *sql, size_t len, enum up_verdict *v);

/* ---- cursors.c ---- */

/* The unit opens, closes one; portals with no name are left out. */
void cursors_open(struct weave *, const char *name);
void cursors_close(struct weave *, const char *name);
/* What the unit was to open will not be. */
void cursors_miss(struct weave *);
/* What the unit opens is there. */
void cursors_land(struct weave *, const struct seat *);
void cursors_free(struct weave *);
bool cursors_is_elsewhere(struct weave *, const char *name, const struct seat *);
/* One WITH HOLD, of an earlier transaction. */
bool cursors_is_held(struct weave *, const char *name);
/* False: another leg has that name, the refusal is set. */
bool cursors_may_open(struct weave *, const char *name, const struct seat *);
/* The leg that a portal or cursor of that name is on, as far as is known. */
struct leg *weave_leg_of_cursors(struct session *, const char *name);

/* ---- anchors.c ---- */

/* What can be asked about. */
#define ANCHOR_PINS (SQL_LEAVES_TABLE | SQL_LEAVES_CURSOR | SQL_LEAVES_LOCK)
struct anchor *anchor_of_link(const struct weave *, const struct link *);
struct anchor *anchor_of_seat(const struct weave *, const struct seat *);
/* What a statement may leave there: bits of ANCHOR_PINS, and SQL_LEAVES_LESS. */
unsigned anchor_leaves(const struct sense *);
/* The statement is about to run: what it may leave, or take away. */
void anchors_note(struct session *, const struct sense *);
/* Whether the statement may pin the session at that seat, or drop what holds it elsewhere; or the
 * refusal says why not. */
bool anchors_may_pin(struct session *, const struct sense *, const struct seat *);
/* ReadyForQuery of a unit on that link. */
void anchors_ready(struct session *, struct link *);
/* The seat's link that the session keeps is s->link now. False: there is none. *usable: at
 * once. */
bool anchor_take(struct session *, const struct seat *, bool *usable);
/* The link, of which the session has let go, stays parked. False: it is not kept. */
bool anchor_moors(struct session *, struct link *);
/* s->link is at rest: true when the session keeps it, or something is being asked there. */
bool anchors_rest(struct session *);
/* A leg is over: the link is made ready to stay. False: it is not kept, or cannot be any more (and
 * is none now). */
bool anchor_settles(struct session *, struct link *);
/* The link is gone, and what was there. True: the session cannot go on. */
bool anchors_lost(struct session *, struct link *);
/* The session ends: those that it has parked go back. */
void anchors_end(struct session *);
/* Where the route leads, another server answers for the member of an anchor: the refusal is set. */
bool anchors_are_stale(
    struct session *, const struct topo_database *, const struct seat *);
/* Until its server is asked. */
void anchor_has_table(struct anchor *, const char *name, bool has_it);
void anchors_tick(struct worker *, int64_t now_us);

/* ---- temps.c ---- */

/* The statement is about to run where the route has led. */
void temps_note(struct session *, const struct sense *, unsigned leaves);
/* ROLLBACK, also to a savepoint; a unit that is looked at from its beginning. */
void temps_cut(struct weave *, unsigned count);
/* It is committed, and another one may have begun: the anchors have what was made. */
void temps_hold(struct weave *);
bool temps_are_any(const struct weave *);
/* The member to which the seat belongs; or NULL. */
const struct topo_database *member_of_seat(const struct weave *, const struct seat *);
/* What the route asks (arg: the session). */
const struct topo_database *temps_pinned(void *arg, const struct sql_table *);
const struct topo_database *temps_pinned_at(const struct session *, const struct sense *);
/* The seat that has a cursor WITH HOLD of that name; or NULL. */
struct seat *seat_of_held(const struct weave *, const char *cursor);

/* ---- simple.c ---- */

enum up_verdict weave_query(struct up *, uint32_t size);
/* The query string goes to s->link, without what was answered here. */
enum up_verdict weave_pass_query(struct up *, uint32_t size);

/* ---- extended.c ---- */

enum up_verdict weave_parse(struct up *, uint32_t size);
enum up_verdict weave_bind(struct up *, uint32_t size);
/* Describe and Close. */
enum up_verdict weave_target(struct up *, char type, uint32_t size);
enum up_verdict weave_execute(struct up *, uint32_t size);
/* The message begins, or goes on with, a batch that goes to s->link. */
enum up_verdict weave_pass_batch(struct up *, char type);
/* A message of a batch that relays. */
enum up_verdict weave_relay(struct up *, char type, uint32_t size);
void portals_free(struct session *);

/* ---- track.c ---- */

/* A statement is about to run at s->link. False: it sets something, and what cannot be told. */
bool weave_track_note(struct session *, const struct sense *);
/* The same, and it may call set_config(). True: it does nothing else. */
bool weave_track_call(struct session *, const struct sense *, const struct binding *);
/* A SELECT of nothing but set_config(). */
bool weave_track_is_call(const struct sense *);
/* What a leg has to be told before it goes on: 1: that; 0: nothing; -1: nobody knows. */
int weave_track_catch_up(const struct weave *, const struct leg *, struct buf *sql);
/* False: it sets more than is kept of a transaction, and the refusal says so. binding: or NULL. */
bool weave_track_may_run(struct session *, const struct sense *, const struct binding *);
/* ReadyForQuery: what has run holds, unless something of the unit has failed. */
void weave_track_ready(struct session *, struct link *, char status);
/* The unit does not run. */
void weave_track_drop(struct weave *);
/* What was noted behind it was bound and has not run. */
void weave_track_unbound(struct weave *, uint64_t behind);
/* It is looked at from its beginning: only what was listened to before it stays. */
void weave_track_anew(struct weave *);
/* ROLLBACK TO a savepoint: what was noted behind it does not hold. */
void weave_track_back(struct weave *, uint64_t to);
/* LISTEN, or UNLISTEN (channel NULL: all). */
void weave_track_listen(struct weave *, const char *channel, bool is_off);
bool weave_track_listens(const struct weave *);
/* What was answered here is over, and no link has a part in it. */
void weave_track_end(struct session *, bool committed);
/* A transaction begins, or is over. */
void weave_track_begin(struct session *);
void weave_track_free(struct session *);
/* *to holds the value instead of what it held. */
void weave_tracked_set(struct session *, struct vars **to, struct vars *value);

/* ---- virtual.c ---- */

/* False: the session is closed, it may not. member: of dbname=bank.member, or NULL. */
bool weave_begin(struct session *, const struct topo_virtual *, const char *member);
/* Links and what runs on them are given up; then, with the session, the rest. */
void weave_end(struct session *);
void weave_free(struct session *);
/* The snapshot is another. */
void weave_world(struct session *);
/* A parameter of the startup packet: true when it is one of ours; why: what is wrong, or "". */
bool weave_startup(
    struct session *, const char *name, const char *value, char *why, size_t why_len);

/* ---- legs.c ---- */

/* The seat of that database under the session's role, or NULL: refusal says why. */
struct seat *weave_seat(struct session *, const struct topo_database *);
/* s->link would not be told what the session has set: its next statement fails. */
void weave_settings_refused(struct session *, const struct proto_error_fields *);
/* Notes of the unit go to s->link's leg. */
void weave_note_leg(struct session *);
/* Takes the link of that database for the unit. UP_PASS: it is s->link. UP_STOP: later, when
 * the message is offered again. UP_GO_ON: refusal says why not. */
enum up_verdict weave_take(struct session *, struct seat *, bool is_write);
/* Takes links for all of want[]; then `then`. */
void legs_gather(struct session *, enum weave_then);
struct leg *leg_of_link(struct weave *, const struct link *);
struct leg *leg_of_seat(struct weave *, const struct seat *);
/* Where savepoints, SET and COMMIT go: the leg that has written or has savepoints, or the
 * first one. NULL: no leg yet. */
struct leg *leg_home(struct weave *);
/* A write may go to that leg; or the refusal says why not. */
bool leg_may_write(struct weave *, const struct seat *);
/* The leg that has s->link's place in the list; made when it is not there. */
struct leg *leg_note(struct session *, struct link *);
void leg_forget(struct weave *, struct leg *);
/* Gives it back in whatever state; it is forgotten. */
void leg_drop(struct session *, struct leg *, const char *why);
/* All but that one. */
void legs_drop(struct session *, const struct leg *but, const char *why);
/* s->link is parked. */
void legs_park(struct session *);
/* Who hears of links that are. */
extern const struct link_user legs_parked_user;
/* A link is there for whom legs_gather() waits. */
void legs_go_on(struct session *);
/* The leg's link is s->link again. */
void legs_unpark(struct session *, struct leg *);
/* All legs answer to the session again. */
void legs_keep(struct session *);
/* From WEAVING to rest: links go back, or the transaction's stay. */
void legs_rest(struct session *);
void weave_granted(struct session *, struct link *);
void weave_refused(
    struct session *, int fault, const char *sqlstate, const char *message);
/* A transaction begins, with these words. */
void weave_txn_begin(struct session *, const char *sql, size_t len, bool is_read_only);
/* BEGIN once more: what it says holds for the same transaction. */
void weave_txn_more(struct session *, const char *sql, size_t len);
/* Another one with the same words follows at once (AND CHAIN). */
void weave_txn_chain(struct session *);
/* It is over. */
void weave_txn_over(struct session *, bool committed);
/* What SAVEPOINT, RELEASE and ROLLBACK TO mean for the settings. False: no such savepoint. */
bool weave_savepoint(struct session *, const struct sql_facts *);
bool weave_has_savepoint(const struct weave *, const char *name);
/* The oldest `count` stay. */
void weave_savepoints_cut(struct session *, unsigned count);
void weave_cancel(struct session *);

/* ---- scatter.c ---- */

enum scatter_what { SCATTER_RUN, SCATTER_DESCRIBE, SCATTER_DESCRIBE_PORTAL };
/* Runs the plan; sql and all are copied. stmt: of an extended batch, with its portal when it
 * has one; NULL: a simple query. max_rows: after so many the portal is suspended (0: all). */
void scatter_start(struct session *, struct route_plan *, const struct sense *,
    const struct stmt *, struct portal *, enum scatter_what, uint32_t max_rows);
/* All is there. */
void scatter_run(struct session *);
/* It could not even begin. */
void scatter_fail(struct session *, const struct refusal *);
/* It is over, and has answered. */
void scatter_done(struct session *);

/* ---- split.c ---- */

/* Makes run->split of a plan; the plan may lose legs. False: the refusal is set. */
bool weave_split_make(struct session *, struct route_plan *, const struct sense *,
    const struct stmt *, struct portal *);
void weave_split_free(struct weave_split *);
/* What each member is asked before, as kinds.c does; or NULL. And what its error means. */
char *weave_split_question(const struct session *);
void weave_split_refused(struct session *, const char *member, struct refusal *);
/* The links are there. */
void weave_split_run(struct session *);
bool weave_split_runs(const struct weave *);
void weave_split_cancel(struct session *);
/* The session ends. */
void weave_split_end(struct session *);
void weave_orphans_end(struct session_worker *);
/* The client's COPY data. */
bool weave_split_takes(const struct session *);
size_t weave_split_bytes(struct session *, const uint8_t *p, size_t len);
int weave_split_is_last(const struct up *, uint32_t size, bool is_copy);

/* ---- kinds.c ---- */

/* The links are there: looks at the tables, then scatter_run() or scatter_fail(). */
void kinds_look(struct session *);
void kinds_free(struct session_worker *);

/* ---- local.c ---- */

/* Runs a statement that is answered here: rows and the tag go to out; not is_extended: also
 * their description. False: refusal. binding: of EXPLAIN (ROUTE) with parameters. *later: the
 * answer comes by itself (a ROLLBACK that goes to several links). */
bool local_run(struct session *, const struct sense *, const struct binding *,
    bool is_extended, struct buf *out, struct refusal *, bool *later);
/* ParameterDescription is not in it: RowDescription or NoData. */
void local_describe(struct session *, const struct sense *, struct buf *out);

#endif
