/*
 * topo: what databases and logins exist: one immutable snapshot, built from the
 * configuration, counted by references, swapped whole on reload.
 *
 * Nothing in a snapshot changes after topo_build() but its count, so any thread may read it
 * while it holds a reference.
 */
#ifndef TOPO_H
#define TOPO_H
#include "base.h"
#include "conf.h"
#include <stdio.h>

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
	struct topo_host *hosts; /* at least one */
	size_t host_count;
	const char *dbname;   /* NULL: the name that the client asked for ('*' entry) */
	const char *user;     /* NULL: the client's own name */
	const char *password; /* NULL: the login's */
	struct topo_param
	    *params; /* client_encoding, datestyle, timezone, application_name */
	size_t param_count;
	const char *connect_query; /* NULL: none */
	bool is_auto;              /* the '*' entry */
	bool round_robin_hosts;    /* load_balance_hosts */
	struct conf_at at;
	/* -1 where the database says nothing. */
	int pool_mode;
	int64_t pool_size, min_pool_size, reserve_pool_size;
	int64_t max_db_connections, max_db_client_connections;
	int64_t server_lifetime; /* µs */
	int64_t query_timeout;   /* µs */
	int64_t query_wait_timeout, idle_transaction_timeout,
	    transaction_timeout; /* µs */
};

/* A role that may log in: a line of auth_file, of [users], or both. */
struct topo_login {
	const char *name;
	const char
	    *secret; /* as in auth_file: plain, md5…, SCRAM-SHA-256$…; NULL: none */
	/* -1 where nothing is said. */
	int pool_mode;
	int64_t pool_size, reserve_pool_size;
	int64_t max_user_connections, max_user_client_connections;
	int64_t query_timeout, query_wait_timeout;             /* µs */
	int64_t idle_transaction_timeout, transaction_timeout; /* µs */
	int64_t client_idle_timeout;                           /* µs */
};

struct topo;

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
size_t topo_login_count(const struct topo *);
const struct topo_login *topo_login(const struct topo *, size_t i);
const struct topo_login *topo_login_find(const struct topo *, const char *name);
/* May this login use the console: admin_users (all of it), stats_users (SHOW only). */
enum topo_console { TOPO_CONSOLE_NO, TOPO_CONSOLE_STATS, TOPO_CONSOLE_ADMIN };
enum topo_console topo_console_role(const struct topo *, const char *login);
/* True for "pgweave" and "pgbouncer": names of the console that no database may have. */
bool topo_is_console(const char *dbname);

/* What holds for clients of one database under one login: the login's word before the
 * database's before the global one. login may be NULL. */
struct topo_limits {
	enum pool_mode pool_mode;
	int64_t pool_size, min_pool_size, reserve_pool_size;
	int64_t max_db_connections, max_db_client_connections;
	int64_t max_user_connections, max_user_client_connections;
	int64_t server_lifetime;                   /* µs; 0: a link is used once */
	int64_t query_timeout, query_wait_timeout; /* µs; 0: no limit, as below */
	int64_t idle_transaction_timeout, transaction_timeout; /* µs */
	int64_t client_idle_timeout;                           /* µs */
};
void topo_limits(const struct topo *, const struct topo_database *,
    const struct topo_login *, struct topo_limits *out);

/* What `pgweave check` does: loads the file, builds a snapshot, prints a line for each
 * problem and warning, and when all is well "path: ok, N databases, M logins". 0, or 1 when
 * there is a problem. */
int topo_check_file(const char *path, FILE *out) MUST_USE;

#endif
