/*
 * side: connections of the proxy's own for side tasks (health, replication), on the side
 * thread (net_side): libpq, never blocking. Names are resolved by net first, because libpq's
 * own resolution blocks.
 *
 * A connection runs one thing at a time; every call ends with exactly one callback, unless
 * side_close() comes first. All of it belongs to the thread of the worker given.
 */
#ifndef SIDE_H
#define SIDE_H
#include <libpq-fe.h>

#include "base.h"
#include "net.h"
#include "topo.h"

struct side;

/* err NULL: it worked. Otherwise why, in one line, without a secret. */
typedef void side_opened(struct side *, void *arg, const char *err);
/* result: PGRES_TUPLES_OK or PGRES_COMMAND_OK of the last statement, valid during the call.
 * NULL: it failed: err and (when the server said one, else "") the sqlstate. */
typedef void side_answered(struct side *, void *arg, const PGresult *result,
    const char *err, const char *sqlstate);

/* Opens a connection to the (first reachable host of the) database with its user and password
 * and server_tls_*; the snapshot is held as long. timeout_us: for opening, and for each thing
 * that runs, unless side_set_timeout() says otherwise; 0: none. opened() comes later, never
 * inside this call. */
struct side *side_open(struct worker *, const struct topo *, const struct topo_database *,
    const char *application_name, int64_t timeout_us, side_opened *opened, void *arg);
/* Whether there is a role to log in with, and no secret of it that libpq cannot use (a verifier
 * of auth_file, which only links can). */
bool side_can_login(const struct topo *, const struct topo_database *);
/* What libpq is told to connect to a host of the database as side_open() does; for rooms with a
 * thread of their own, which may block. Texts are the snapshot's, and the struct's. */
#define SIDE_PARAMS_MAX 24
struct side_params {
	const char *keys[SIDE_PARAMS_MAX], *values[SIDE_PARAMS_MAX]; /* NULL ends them */
	unsigned count;
	char port[8];
};
void side_params(struct side_params *, const struct topo *, const struct topo_database *,
    size_t host, const char *application_name);
/* Of two of one key the later counts. */
void side_params_add(struct side_params *, const char *key, const char *value);
/* What libpq says, in one line and without the words about the place. */
void side_error_text(const char *message, char *out, size_t size);
/* At any time, also inside a callback: no callback comes after it. */
void side_close(struct side *);
void side_set_timeout(struct side *, int64_t timeout_us);
bool side_is_open(const struct side *);
int side_server_version(const struct side *); /* 150004 */

/* Runs one statement with text parameters (or a string of several without). */
void side_query(struct side *, const char *sql, const char *const *params, int count,
    side_answered *, void *arg);

/* COPY … TO STDOUT: data() gets chunks (whole rows in text format); false from it pauses the
 * copy until side_copy_resume(). Then answered(). */
void side_copy_out(struct side *, const char *sql,
    bool (*data)(struct side *, void *arg, const char *p, int len), side_answered *,
    void *arg);
void side_copy_resume(struct side *);

/* COPY … FROM STDIN: ready() (err NULL: send now) or why not; then side_copy_put() as often as
 * wanted: false when more than 1 MB is unsent: wait for drained(); then side_copy_end(), and
 * answered(). err of side_copy_end: NULL, or why the copy is to fail. */
void side_copy_in(struct side *, const char *sql, side_opened *ready,
    void (*drained)(struct side *, void *arg), void *arg);
bool side_copy_put(struct side *, const char *p, size_t len);
void side_copy_end(struct side *, const char *err, side_answered *);

#endif
