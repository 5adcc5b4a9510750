/*
 * route: facts + session + snapshot + verdicts -> plan: which databases, in which way, and
 * why. No sockets, no clock, nothing kept but whose turn it is among replicas.
 *
 * Which member, strongest first (SURFACE 4): what the key or login forbids, where the session is
 * pinned with what the statement names (a temporary table), SET LOCAL, comment, SET or connect option or dbname=bank.member, member.schema.table, shard key, table route,
 * key type, default. Then which node of it: the primary, or a replica for plain reads.
 */
#ifndef ROUTE_H
#define ROUTE_H
#include "base.h"
#include "catalog.h"
#include "sql.h"
#include "topo.h"

#define ROUTE_LEGS_MAX   64
#define ROUTE_SHARDS_MAX 64

/* Strongest first; the order of the enum is the order of the decision. */
enum route_rule {
	ROUTE_BY_PIN, /* a temporary table, or a cursor WITH HOLD */
	ROUTE_BY_SET_LOCAL,
	ROUTE_BY_COMMENT,
	ROUTE_BY_SET,     /* SET, or a connect option */
	ROUTE_BY_DBNAME,  /* dbname=bank.member */
	ROUTE_BY_CATALOG, /* member.schema.table */
	ROUTE_BY_SHARD,   /* a key in the statement, or pgweave.shard_key */
	ROUTE_BY_TABLE,
	ROUTE_BY_KEY, /* the key's type */
	ROUTE_BY_DEFAULT,
	ROUTE_RULES
};
const char *route_rule_name(enum route_rule); /* "pin", "SET LOCAL", … "default" */

/* What was said at one level; NULL: nothing ("" is automatic). */
struct route_said {
	const char *database, *databases, *federation, *on_unavailable, *shard_key,
	    *read_from;
};

/* The value of a parameter, when it is known: text, or binary of that type. */
struct route_datum {
	const uint8_t *p;
	size_t len;
	uint32_t type; /* OID; 0: not known */
	bool is_binary, is_null;
	bool is_hidden; /* an expression: nobody knows it before the statement runs */
};

struct route_input {
	const struct topo_virtual *virt;
	const struct topo_key
	    *key;           /* the key, or the rules of [login x]; NULL: no rules */
	const char *member; /* of dbname=bank.member; NULL */
	const struct sql_scan *scan;
	const struct sql_facts *facts;
	const struct catalog *catalog; /* NULL: nothing is known of the databases' own */
	struct route_said local, session; /* the comment is in the scan */
	/* False: not known yet (the statement is only being prepared). NULL: there are none. */
	bool (*param)(void *arg, unsigned n, struct route_datum *out);
	void *arg;
	bool in_transaction;
	bool is_read_only; /* the transaction is READ ONLY */
	/* Whether the transaction has begun on that database, so that it goes on there. NULL: not
	 * known; then one that drains takes every statement of a transaction. */
	bool (*is_open)(void *open_arg, const struct topo_database *);
	void *open_arg;
	/* The member at which the session has a temporary table of that name; or NULL. And the one
	 * at which it has what else the statement names, a cursor; or NULL. */
	const struct topo_database *(*pinned)(void *pinned_arg, const struct sql_table *);
	void *pinned_arg;
	const struct topo_database *pinned_at;
	int64_t now_us;   /* for the ages in hints, as clock_us() has it; 0: no ages */
	int64_t wrote_us; /* when the login wrote last, for causal reads; 0: it has not */
	bool wants_notes;
};

enum route_way {
	ROUTE_ONE,    /* one database */
	ROUTE_MANY,   /* the same statement on several, joined by `federation` */
	ROUTE_SPLIT,  /* each row of an INSERT or COPY to its own: `split` */
	ROUTE_REFUSED /* sqlstate, message, detail, hint */
};
enum route_federation { ROUTE_MERGE, ROUTE_TAG };

/* Where the rows go. Points into the snapshot and the facts. */
struct route_split {
	const struct topo_shard *shard;
	const struct sql_table *table;
	const struct sql_match *rows; /* INSERT: the keys of its rows; NULL: COPY */
	unsigned key_at;       /* COPY: place of the key among its columns, from 0 */
	unsigned column_count; /* COPY without a list of columns: how many are known */
	/* Of each of the shard's members: its leg, or -1: the key may not use it. */
	int8_t leg_of[ROUTE_SHARDS_MAX];
	unsigned leg_rows[ROUTE_LEGS_MAX]; /* INSERT */
};

struct route_leg {
	const struct topo_database
	    *member; /* who was meant: its name is what the client sees */
	const struct topo_database
	    *node; /* where to: the member, a replica, a fallback */
};
struct route_note {
	enum {
		NOTE_SILENT,
		NOTE_LOST,
		NOTE_WON
	} fate;         /* said nothing; was overruled; decided */
	char text[192]; /* "analytics_events = analytics (pgweave.ini:23)"; "not set" */
};
/* What of a plan holds for all statements of the same facts under the same virtual database and
 * key, as long as neither snapshot nor catalogs change, where no setting and no hint says
 * anything. */
struct route_memo {
	const struct topo_database *member; /* NULL: nothing does */
	bool is_write, is_plain_read, calls_writer;
};
struct route_plan {
	enum route_way way;
	struct route_leg legs[ROUTE_LEGS_MAX];
	unsigned leg_count;
	enum route_rule rule; /* the one that won */
	bool is_write;        /* or may be: not for a replica */
	bool on_replica; /* ONE: a replica was taken where the primary could answer too */
	bool
	    calls_writer; /* calls a function of the user's that may write, as far as is known */
	struct route_memo memo;
	enum route_federation federation;
	struct route_split split;
	char skipped
	    [256]; /* MANY: members left out, because they are down, "a, b"; or "" */
	char warning[256]; /* for the client: a fallback answers; "" none */
	/* Why this node: "read, replica healthy, lag 0 ms"; with wants_notes. */
	char node_why[192];
	char sqlstate[6], message[512], detail[512], hint[256];
	struct route_note notes[ROUTE_RULES]; /* with wants_notes */
};
/* Fills in all of the plan but the legs from leg_count on, and the notes when they are not
 * wanted. Refusals: way is ROUTE_REFUSED, with sqlstate and texts as for a client. */
void route_plan(const struct route_input *, struct route_plan *out);

/* The plan again, of another statement of those facts: ROUTE_ONE, for the servers as they are
 * now. The settings and the parameters are not looked at, of in->scan the verb at most. False: it must be made anew
 * (with route_plan()), and out has no meaning. */
bool route_repeat(
    const struct route_memo *, const struct route_input *, struct route_plan *out);

/* The lines of EXPLAIN (ROUTE), or one line of JSON, of a plan made with wants_notes. */
void route_explain(const struct route_input *, const struct route_plan *, bool as_json,
    void (*line)(void *arg, const char *text), void *arg);

/* Where a row with that value of the shard's key lives, for COPY and the like: an index into
 * shard->members, or one of these. */
enum route_home {
	ROUTE_HOME_NONE = -1,  /* no range or list has it */
	ROUTE_HOME_NULL = -2,  /* NULL: such a row cannot be inserted */
	ROUTE_HOME_WRONG = -3, /* it is no value of the key's type */
	ROUTE_HOME_RANGE = -4  /* an integer beyond those of bigint */
};
int route_home_of(const struct topo_shard *, const struct route_datum *);
/* The error for a value without a home. */
struct route_words {
	char sqlstate[6], message[320], detail[160], hint[160]; /* "": none */
};
void route_home_words(const struct topo_shard *, const char *table, int home,
    const struct route_datum *, struct route_words *out);
/* Of an INSERT that is split: the leg of each row, in order (plan->split.rows->count of them). */
void route_split_rows(
    const struct route_input *, const struct route_plan *, uint8_t *leg_of_row);

/* Whether the value is one that a setting pgweave.<name> may have under this virtual database
 * and key. False: message and detail ("allowed are …") of a 22023, or 42501 in sqlstate. With
 * detail NULL the message says it all, for an error that has no detail. */
bool route_check_setting(const struct topo_virtual *, const struct topo_key *,
    const char *name, const char *value, char sqlstate[6], char *message,
    size_t message_len, char *detail, size_t detail_len) MUST_USE;
/* The names of the settings without "pgweave."; NULL ends them. */
extern const char *const route_settings[];

#endif
