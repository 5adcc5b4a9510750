/*
 * topo: what databases and logins exist: one immutable snapshot, built from the
 * configuration, counted by references, swapped whole on reload.
 *
 * Nothing in a snapshot changes after topo_build() but its count, so any thread may read it
 * while it holds a reference.
 */
#ifndef TOPO_H
#define TOPO_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base.h"
#include "conf.h"

/* ---- verdicts: what health has found of a database ---- */

enum topo_status {
	TOPO_UNKNOWN, /* not looked at yet: taken for healthy */
	TOPO_HEALTHY,
	TOPO_DOWN,
	TOPO_HALF_OPEN,
	TOPO_LAGGING, /* a replica further behind than max_lag */
	TOPO_DRAINING,
	TOPO_MAINTENANCE
};
enum topo_role { TOPO_ROLE_UNKNOWN, TOPO_ROLE_PRIMARY, TOPO_ROLE_REPLICA };

/* One for each database name, for the whole process: it outlives snapshots. Written by health
 * and by operators, `failures` by anybody; read by anybody, without a lock but for the texts. */
struct topo_verdict {
	struct table_node node;
	const char *database;
	_Atomic int status; /* the operator's word, else what health found */
	_Atomic int role;
	_Atomic int found; /* what health found, also while an operator has spoken */
	_Atomic int word;  /* TOPO_DRAINING, TOPO_MAINTENANCE; TOPO_UNKNOWN: none */
	_Atomic int64_t checked_us, since_us; /* monotonic; 0: never */
	_Atomic int64_t response_us;          /* of the last good probe; -1: none */
	_Atomic int64_t reached_us; /* when a probe last had a new connection; 0: never */
	_Atomic int64_t risen_us;   /* when it was healthy again after DOWN; 0: never */
	_Atomic int64_t lag_us, lag_bytes; /* of a replica; -1: not known */
	_Atomic uint64_t replayed_lsn;     /* of a replica; 0: not known */
	/* It has all that its primary acknowledged before then, monotonic; 0: not known. Kept for
	 * replicas of causal reads alone. */
	_Atomic int64_t replayed_us;
	_Atomic unsigned connections; /* at the server, of anybody; as last seen */
	/* Links that could not be opened, or were lost, since the last probe: any thread adds. */
	_Atomic unsigned failures;
	/* Statements about the database itself (DROP DATABASE) under way: nobody connects. */
	_Atomic unsigned apart;
	/* It says that it is a primary, but is not the one: nothing goes there. */
	_Atomic bool is_fenced;
	/* Of a database that has replicas, for the group of them all: */
	_Atomic(struct topo_verdict *) primary; /* the present one; NULL: itself */
	_Atomic(struct topo_verdict *) rival;   /* it may be this: none is written */
	_Atomic int64_t missing_us; /* since when there is no primary; 0: there is one */
	pthread_mutex_t lock;       /* for what follows */
	char reason[256];           /* why it is not healthy, in one line */
	char version[64];           /* "15.4" */
	char found_reason[256];     /* health's own; reason may be the operator's */
	int64_t found_since_us;
};
/* The verdict on the database of that name; makes it. Never fails, never freed before
 * topo_verdicts_free() at the end of the process. Any thread. */
struct topo_verdict *topo_verdict(const char *database);
void topo_verdicts_free(void);
const char *topo_status_name(enum topo_status); /* "half-open" */
/* Health's way to change status: sets since_us too, and the reason (may be NULL). What an
 * operator said stays in front of it. */
void topo_verdict_set(
    struct topo_verdict *, enum topo_status, int64_t now_us, const char *reason);
/* The operator's word, TOPO_DRAINING or TOPO_MAINTENANCE, or TOPO_UNKNOWN to lift it. False:
 * it was so before (the reason is the new one). Any thread. */
bool topo_verdict_order(
    struct topo_verdict *, enum topo_status word, int64_t now_us, const char *reason);
/* New statements may go there: unknown, healthy, half-open, lagging. */
bool topo_verdict_is_up(const struct topo_verdict *);

struct topo;

struct topo_host {
	const char
	    *host; /* name, address, or a directory of unix sockets (starts with '/') */
	uint16_t port;
};

/* A server setting given for a database: sent when a link logs in. */
struct topo_param {
	const char *name, *value;
};

/* A configured backend database. Strings belong to the snapshot. */
struct topo_database {
	const char *name;
	struct topo_host *hosts; /* at least one; not configured: one whose host is "" */
	size_t host_count;
	const char *dbname;   /* NULL: the name that the client asked for ('*' entry) */
	const char *user;     /* NULL: the client's own name */
	const char *password; /* NULL: the login's */
	struct topo_param
	    *params; /* client_encoding, datestyle, timezone, application_name */
	size_t param_count;
	const char *connect_query; /* NULL: none */
	/* Of logins that auth_file does not know; NULL: the global ones. */
	const char *auth_user, *auth_query, *auth_dbname;
	bool is_auto;       /* the '*' entry */
	const char *region; /* "" nothing said */
	/* False: it has a fallback and no host: statements go to the fallback. */
	bool is_configured;
	const struct topo_database *fallback;   /* or NULL */
	int fallback_on_down;                   /* enum topo_fallback */
	const struct topo_database *replica_of; /* or NULL */
	const struct topo_database **copies;    /* those whose replica_of this one is */
	size_t copy_count;
	bool is_read_only;
	int64_t max_lag;      /* µs, of a replica */
	int64_t max_overflow; /* links above pool_size under load, closed when idle; 0 */
	int64_t health_interval, health_timeout; /* µs; -1: the global ones */
	int64_t health_fall, health_rise;        /* -1: the global ones */
	struct topo_verdict *verdict;            /* NULL for the '*' entry */
	bool round_robin_hosts;                  /* load_balance_hosts */
	int session_attrs;                       /* enum session_attrs */
	struct conf_at at;
	/* -1 where the database says nothing. */
	int pool_mode, pin;
	int64_t share_statements, multiplex;
	int64_t pool_size, min_pool_size, reserve_pool_size;
	int64_t max_db_connections, max_db_client_connections;
	int64_t server_lifetime; /* µs */
	int64_t query_timeout;   /* µs */
	int64_t query_wait_timeout, idle_transaction_timeout,
	    transaction_timeout; /* µs */
};

enum topo_fallback { TOPO_FALLBACK_NO, TOPO_FALLBACK_READS, TOPO_FALLBACK_ALL };

/* ---- keys ---- */

enum topo_key_type { TOPO_KEY_DATABASE, TOPO_KEY_CLIENT, TOPO_KEY_SERVER };

/* A key as words: a [key x] section, a row of the store, CREATE KEY. NULL or "": not said.
 * Lists are separated by commas. */
struct topo_key_text {
	const char *id;        /* "vb_" and 32 hex digits */
	const char *secret;    /* SCRAM-SHA-256$… verifier */
	const char *name;      /* for people */
	const char *type;      /* database, client, server */
	const char *virtual_;  /* the virtual database; a file's word is "virtual" */
	const char *databases; /* members it may reach; not said: all */
	const char *rights;    /* federate, replicate, operate */
	const char *user_id;   /* of a database key */
	const char *read_only; /* yes, no */
	const char *networks;  /* "10.0.0.0/8, 127.0.0.1/32"; not said: any */
	const char *rate;      /* "100/s", "5/min" */
	const char *concurrency;
	const char
	    *expires; /* a date or timestamp, ISO form, UTC unless it says otherwise */
	const char *roles;         /* "primary app_ro, analytics report" */
	const char *created;       /* ISO form */
	const char *revoked;       /* ISO form; not said: it is not */
	const char *former_secret; /* verifier of the secret before this one, and until */
	const char *former_until; /* when it works, ISO form; of keys of the store only */
};

struct topo_network {
	uint8_t family, bits; /* AF_INET, AF_INET6; 0: unix sockets ("local") */
	uint8_t addr[16];
};
/* What is counted of a key, over all snapshots. */
struct topo_key_use {
	struct table_node node;
	char *id;
	_Atomic int64_t last_used_us; /* wall clock; 0: never in this process */
	_Atomic unsigned running;     /* statements under way */
	_Atomic int64_t bucket_us;    /* rate: when the bucket would have been empty */
};
struct topo_key_role {
	const char *database, *role;
};
struct topo_key {
	const char *id, *secret, *name;
	enum topo_key_type type;
	const char *virtual_; /* "" any (rules of a login) */
	bool is_login;        /* it is no key, but the rules of a login */
	const char **databases;
	size_t database_count; /* 0: all members */
	bool can_federate, can_replicate, can_operate, is_read_only, has_user_id;
	int64_t user_id;
	struct topo_network *networks;
	size_t network_count;
	int64_t rate, rate_us;     /* statements in that time; 0: no limit */
	int64_t concurrency;       /* 0: no limit */
	int64_t expires_us;        /* wall clock; 0: never */
	const char *former_secret; /* topo_key_former() says whether it still works */
	int64_t former_until_us;   /* wall clock; 0: there is none */
	struct topo_key_role *roles;
	size_t role_count;
	bool is_revoked, is_from_file;
	struct topo_key_text text; /* as it was given */
	struct topo_key_use *use;
	struct conf_at at; /* of the section; file NULL: from the store */
};
/* The counts of that key; for the process. */
struct topo_key_use *topo_key_use(const char *id);
/* Frees all of them, at the end of the process: no snapshot is left. */
void topo_key_uses_free(void);
/* What keeps it from logging in from there now ("revoked", "expired", "network"), or NULL.
 * addr: 4 or 16 bytes, or family 0 for a unix socket. */
const char *topo_key_bars(
    const struct topo_key *, uint8_t family, const void *addr, int64_t wall_us);
/* The verifier of the secret before its present one while that works, too, or NULL. */
const char *topo_key_former(const struct topo_key *, int64_t wall_us);
/* How long a former secret goes on working: "1h", "1 hour". False: why. */
bool topo_key_overlap(
    const char *text, int64_t *overlap_us, char *why, size_t why_len) MUST_USE;
bool topo_key_may_reach(const struct topo_key *, const char *database);
/* The role at that database that the key names, or NULL. */
const char *topo_key_role(const struct topo_key *, const char *database);
/* Whether the words make a key, given the databases of the snapshot; false: why. id and
 * secret may be missing: they are made when the rest is known to be right. */
bool topo_key_check(const struct topo *, const struct topo_key_text *, char *why,
    size_t why_len) MUST_USE;

/* ---- virtual databases ---- */

/* In the order of the words of `function`, and of `key_type`. */
enum topo_shard_function {
	TOPO_SHARD_MODULO,
	TOPO_SHARD_HASH,
	TOPO_SHARD_RANGE,
	TOPO_SHARD_LIST
};
enum topo_shard_type {
	TOPO_SHARD_INTEGER,
	TOPO_SHARD_BIGINT, /* the same: equal integers are equal, however wide */
	TOPO_SHARD_TEXT,
	TOPO_SHARD_CHAR, /* trailing blanks do not count */
	TOPO_SHARD_UUID
};
/* A value of a shard key. Of integers the number; of the others the bytes: of a uuid its 16,
 * of a char those before its trailing blanks. */
struct topo_shard_value {
	int64_t number;
	const uint8_t *p;
	size_t len;
};
/* Values that live on one member: from low to high, both among them. A value of a list is
 * both. */
struct topo_shard_span {
	struct topo_shard_value low, high;
	bool has_low, has_high, excludes_high;
	unsigned member; /* index into members */
};

#define TOPO_MEMBERS_MAX 64 /* of one virtual database */

/* A pattern: both parts may have * in them (in a pattern \ stands before a * or \ that is
 * one). A name without a schema is taken to be in schema public, and so is a pattern. */
struct topo_route {
	const char *pattern; /* as written; of a model: its table */
	const char *schema;  /* NULL: unqualified */
	const char *table;
	bool is_exact;
	const struct topo_database *database;
	const char *warning; /* why it decides nothing; NULL: it does */
	bool is_stored;      /* made at run time, kept in the store */
	struct conf_at at;   /* is_stored: file NULL */
};
/* A route made at run time: a row of the store, ALTER ROUTE. */
struct topo_route_text {
	const char *virtual_, *pattern, *database;
};
struct topo_shard {
	const char **tables; /* "accounts", "bank.accounts": exact names */
	size_t table_count;
	const char *key;
	enum topo_shard_function function;
	enum topo_shard_type type;
	const struct topo_database **members;
	size_t member_count;
	/* Of range and list: in ascending order, none of them touching another. */
	struct topo_shard_span *spans;
	size_t span_count;
	int other;             /* member of what no list has; -1: none */
	const char *placement; /* the ranges or lists as written; NULL: none */
	struct conf_at at;
};
struct topo_model {
	const char *model;
	const char
	    *table; /* from the model's name in snake case when a database was given */
	const char *schema, *name; /* the parts of table; schema NULL: unqualified */
	/* As given, and then also the table's route; NULL: that of the table's route. */
	const struct topo_database *database;
	struct conf_at at;
};
struct topo_virtual {
	const char *name;
	const struct topo_database *dflt;
	const struct topo_database **members; /* dflt among them, in the order given */
	size_t member_count;
	const struct topo_database *
	    *read_from; /* replicas; none: reads go to the primary */
	size_t read_from_count;
	struct topo_route
	    *routes; /* in order of strength: exact names first, then as written */
	size_t route_count, exact_count;
	struct topo_shard *shards;
	size_t shard_count;
	struct topo_model *models;
	size_t model_count;
	int federation;    /* enum route_federation: 0 merge, 1 tag */
	bool causal_reads; /* no read is older than what its login has written */
	int64_t
	    failover_hold; /* µs: how long statements wait for a primary; 0: not at all */
	bool skips_unavailable;
	struct table places; /* topo's own: exact names to their route or shard */
	struct conf_at at;
};

/* ---- replication jobs ---- */

/* A job as words: [replication x], a row of the store, CREATE JOB. NULL or "": not said. */
struct topo_job_text {
	const char *name, *source, *targets, *tables, *sync_key;
	const char *interval; /* "15min"; not said: only by RUN JOB */
	const char *enabled;  /* yes, no */
	const char *mode;     /* sync_key, full; not said: sync_key */
	const char *
	    overlap; /* "5min": how far back each run begins, for keys that are no clock of the server */
};
struct topo_job {
	struct topo_job_text text;
	struct conf_at at;
};

/* A role that may log in: a line of auth_file, of [users], or both. */
struct topo_login {
	const char *name;
	const char
	    *secret; /* as in auth_file: plain, md5…, SCRAM-SHA-256$…; NULL: none */
	const struct topo_key *rules; /* of [login x]; NULL: none */
	/* -1 where nothing is said. */
	int pool_mode, pin;
	int64_t multiplex;
	int64_t pool_size, reserve_pool_size;
	int64_t max_user_connections, max_user_client_connections;
	int64_t query_timeout, query_wait_timeout;             /* µs */
	int64_t idle_transaction_timeout, transaction_timeout; /* µs */
	int64_t client_idle_timeout;                           /* µs */
};

/* ---- rules: auth_hba_file and auth_ident_file ---- */

/* One line of auth_hba_file: how those that it is for prove who they are. */
struct topo_rule {
	enum auth_type method; /* never AUTH_ANY or AUTH_HBA */
	const char *map;       /* of auth_ident_file; NULL: names must be the same */
	bool wants_cert; /* a certificate that was found right, whatever the method */
	bool wants_name; /* and its name must be, or map to, the login */
	bool by_subject; /* the name is the whole subject, not the common name */
	struct conf_at at;
};
/* Who comes from where. */
struct topo_visit {
	uint8_t family;   /* AF_INET, AF_INET6; 0: unix socket */
	uint8_t addr[16]; /* 4 of them, or all */
	bool has_tls, is_replication;
	const char *database, *user;
	const char *virtual_; /* whose member the database is, or itself; or NULL */
};
/* The first line that is for them, or NULL: there is none, or no file (auth_type is not hba). */
const struct topo_rule *topo_rule_find(const struct topo *, const struct topo_visit *);
/* Whether the one whom a certificate or the system calls `name` may log in as `login`. map NULL:
 * only under that name. */
bool topo_name_maps(
    const struct topo *, const char *map, const char *name, const char *login);

/* Builds a snapshot with one reference; takes over the conf (frees it with itself, also on
 * failure). Reads auth_file. NULL when problems->count > 0 afterwards. */
struct topo *topo_build(struct conf *, struct conf_problems *) MUST_USE;
/* A snapshot with one setting changed and all else as it is: what SET does. NULL, and why, when
 * the value is wrong. Gives one reference. */
const struct topo *topo_with(const struct topo *, const struct setting *,
    const char *value, char *why, size_t why_len) MUST_USE;
const struct topo *topo_hold(const struct topo *);
void topo_release(const struct topo *);

const struct settings *topo_settings(const struct topo *);
/* Counts up with every snapshot built in this process. */
uint64_t topo_generation(const struct topo *);
size_t topo_database_count(const struct topo *);
const struct topo_database *topo_database(const struct topo *, size_t i);
/* The database of that name, else the '*' entry, else NULL. */
const struct topo_database *topo_database_find(const struct topo *, const char *name);
/* Which one answers for it: itself, or without a host its fallback, and so on (there are no
 * circles). NULL stays NULL. */
const struct topo_database *topo_database_served(const struct topo_database *);
/* Roles follow the servers: the database that takes the writes now of those that the given one
 * is a replica of, or has for replicas; itself when it has neither. It may be down. rival (may
 * be NULL): another that may be it, so that none is to be written; or NULL. Any thread. */
const struct topo_database *topo_database_primary(
    const struct topo_database *, const struct topo_database **rival);
/* The one that state_store = database:NAME names; NULL: the store is no database. */
const struct topo_database *topo_store_database(const struct topo *);
/* Whether it is that one, by name of the configuration or by promotion. */
bool topo_database_is_primary(const struct topo_database *);
/* Whether the group of that database has no primary now but may soon have one: it is down or in
 * recovery, has replicas that can be promoted, and no operator has taken it out. since_us (may
 * be NULL): since when, as clock_us() has it. Costs a few loads. Any thread. */
bool topo_verdict_awaits_primary(const struct topo_database *, int64_t *since_us);
size_t topo_login_count(const struct topo *);
const struct topo_login *topo_login(const struct topo *, size_t i);
const struct topo_login *topo_login_find(const struct topo *, const char *name);
/* May this login use the console: admin_users (all of it), stats_users (SHOW only). */
enum topo_console { TOPO_CONSOLE_NO, TOPO_CONSOLE_STATS, TOPO_CONSOLE_ADMIN };
enum topo_console topo_console_role(const struct topo *, const char *login);
/* True for "pgweave" and "pgbouncer": names of the console that no database may have. */
bool topo_is_console(const char *dbname);

/* The virtual database of that name, or NULL. */
const struct topo_virtual *topo_virtual_find(const struct topo *, const char *name);
size_t topo_virtual_count(const struct topo *);
const struct topo_virtual *topo_virtual(const struct topo *, size_t i);
/* The member of that name (any case), or NULL. */
const struct topo_database *topo_member_find(
    const struct topo_virtual *, const char *name);
/* What is said of a table (schema NULL: not qualified), or NULL. */
const struct topo_route *topo_route_find(
    const struct topo_virtual *, const char *schema, const char *table);
const struct topo_shard *topo_shard_find(
    const struct topo_virtual *, const char *schema, const char *table);
/* Where a row with that value of the key lives: an index into members; -1: nowhere, no range or
 * list has it. For all functions but these there is always one. */
int topo_shard_place(const struct topo_shard *, const struct topo_shard_value *);
/* The value that a text is to the key's type; it may point into the text, or to room. False:
 * it is none (of integers: not in digits, or beyond those of bigint). */
bool topo_shard_read(enum topo_shard_type, const char *text, size_t len, uint8_t room[16],
    struct topo_shard_value *out) MUST_USE;
const char *topo_shard_function_name(enum topo_shard_function); /* "modulo" */
const char *topo_shard_type_name(enum topo_shard_type);         /* "integer" */
/* Where a model's table lives; NULL: it is sharded. */
const struct topo_database *topo_model_database(
    const struct topo_virtual *, const struct topo_model *);
/* Keys of the file and of the store. */
const struct topo_key *topo_key_find(const struct topo *, const char *id);
/* The key of the file (not of the store) of that id, else the one of that name that is not
 * revoked, or NULL. */
const struct topo_key *topo_key_of_file(const struct topo *, const char *id_or_name);
size_t topo_key_count(const struct topo *);
const struct topo_key *topo_key(const struct topo *, size_t i);
/* Another process of the group, for cancel requests; the process itself is not among them. */
struct topo_peer {
	uint32_t id;
	const char *host;
	uint16_t port;
	int64_t pool_size; /* requests under way to it at a time */
};
size_t topo_peer_count(const struct topo *);
const struct topo_peer *topo_peer(const struct topo *, size_t i);
const struct topo_peer *topo_peer_find(const struct topo *, uint32_t id);
size_t topo_job_count(const struct topo *);
const struct topo_job *topo_job(const struct topo *, size_t i);
/* Whether the words of a job are right, given the databases of the snapshot; false: why. */
bool topo_job_check(const struct topo *, const struct topo_job_text *, char *why,
    size_t why_len) MUST_USE;

/* The same snapshot with these keys of the store (texts are copied) instead of those it had
 * from there. Those that make no sense any more (a database is gone) are left out, with a
 * warning in the log. Gives one reference. */
const struct topo *topo_with_keys(
    const struct topo *, const struct topo_key_text *, size_t count) MUST_USE;

/* Likewise with these routes of the store, behind those of the file. */
const struct topo *topo_with_routes(
    const struct topo *, const struct topo_route_text *, size_t count) MUST_USE;
/* Whether the route can be added: 0, F_NOT_FOUND (no such virtual database, no such member),
 * F_CONF_VALUE (the pattern is none), F_EXISTS (something is said of it already), and why. */
int topo_route_check(const struct topo *, const struct topo_route_text *, char *why,
    size_t why_len) MUST_USE;
/* The route of the store that this pattern (its database does not count) says: 0, F_NOT_FOUND,
 * F_CONF_VALUE, or F_CONF (it is one of the file), and why. */
int topo_route_stored(const struct topo *, const struct topo_route_text *,
    const struct topo_route **out, char *why, size_t why_len) MUST_USE;

/* What holds for clients of one database under one login: the login's word before the
 * database's before the global one. login may be NULL. */
struct topo_limits {
	enum pool_mode pool_mode;
	int64_t pool_size, min_pool_size, reserve_pool_size;
	int64_t max_overflow; /* links above pool_size under load */
	int64_t max_db_connections, max_db_client_connections;
	int64_t max_user_connections, max_user_client_connections;
	int64_t server_lifetime;                   /* µs; 0: a link is used once */
	int64_t query_timeout, query_wait_timeout; /* µs; 0: no limit, as below */
	int64_t idle_transaction_timeout, transaction_timeout; /* µs */
	int64_t client_idle_timeout;                           /* µs */
	bool share_statements, multiplex;
	bool refuses_pins;
};
void topo_limits(const struct topo *, const struct topo_database *,
    const struct topo_login *, struct topo_limits *out);

/* What `pgweave check` does: loads the file, builds a snapshot, prints a line for each
 * problem and warning, and when all is well "path: ok, N databases, M logins". more (or NULL) may
 * add to them when the file is fine. 0, or 1 when
 * there is a problem. */
int topo_check_file(const char *path, FILE *out,
    void (*more)(const struct topo *, struct conf_problems *)) MUST_USE;

#endif
