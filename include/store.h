/*
 * store: what must outlive the process: keys, routes and jobs, in SQLite, or in a PostgreSQL
 * database that several proxies share. A thread of its own does what blocks; everything here
 * is called from a worker (or the main or side thread), and answered there by mail.
 *
 * The proxy runs without it: when the file cannot be opened, every call answers F_STORE with
 * the reason, opening is tried again at the next, and the log has said so. Of a shared store
 * what was read last is answered while the database cannot be used, also after a restart;
 * changes are F_STORE_DOWN then.
 */
#ifndef STORE_H
#define STORE_H
#include "base.h"
#include "net.h"
#include "topo.h"

/* Starts the thread and opens the store that the settings name (state_store, state_dir), with
 * its migrations: that database of the snapshot, or, shared being NULL, a file (the snapshot
 * may be NULL then). A store that cannot be opened is no reason not to start: of a file F_STORE
 * and why, of a database the log has said so; the thread runs all the same. No store at the
 * default place is nothing to speak of: the first that writes makes it, and there is nothing in
 * it until then. */
int store_start(const struct topo *, const struct settings *,
    const struct topo_database *shared, char *why, size_t why_len) MUST_USE;
/* Finishes what was asked, ends the thread. Answers still on their way are delivered by
 * net_settle(). */
void store_stop(void);

/* fault: 0 or F_STORE or F_STORE_DOWN (why is its sentence), F_NOT_FOUND, F_EXISTS, and of keys
 * F_AMBIGUOUS and F_KEY_STATE. */
typedef void store_done(struct worker *, void *arg, int fault, const char *why);
/* For who reads a sentence of such a fault; NULL: there is nothing more to say. */
const char *store_hint(int fault);

/* ---- a store that proxies share ---- */

/* Between store_start() and store_stop(). */
bool store_is_shared(void);
/* changed() is called in that thread whenever others have changed something, or the store is
 * back: what is read then may be new. Until store_stop(). */
void store_on_change(struct worker *to, void (*changed)(struct worker *));
/* The words about its database are from now on those of that snapshot. */
void store_move(struct worker *from, const struct topo *);

/* ---- keys ---- */

/* The keys of the store, as texts; each() is called in the thread that asked, before done(). */
void store_keys_load(struct worker *from,
    void (*each)(void *arg, const struct topo_key_text *), store_done *, void *arg);
/* The same, waiting: for the start. 0 or F_STORE and why. */
int store_keys_wait(void (*each)(void *arg, const struct topo_key_text *), void *arg,
    char *why, size_t why_len) MUST_USE;
/* Whether the keys are to be read again: another process has written to the store since
 * store_keys_load(), or it could not be opened then and is open now. */
typedef void store_looked(struct worker *, void *arg, bool has_changed);
void store_look(struct worker *from, store_looked *, void *arg);
/* Texts are copied. F_EXISTS: the id is taken, or the name by a key that is not revoked. */
void store_key_put(
    struct worker *from, const struct topo_key_text *, store_done *, void *arg);
/* Marks it revoked; once more does nothing. A name will do for the id when one key that is
 * not revoked has it. each() is called with the key as it is now, before done().
 * F_NOT_FOUND: no such key; F_AMBIGUOUS: several of that name. */
void store_key_revoke(struct worker *from, const char *id_or_name,
    void (*each)(void *arg, const struct topo_key_text *), store_done *, void *arg);
/* How a key gets a new secret. */
struct store_rotation {
	/* The verifier of the new secret, made like the one that the key has; to be freed, or
	 * NULL: that is none. Called in the store's thread, at most once, before done(). */
	char *(*verifier)(void *arg, const char *like);
	void *arg;
	int64_t overlap_us; /* how long the secret that it has goes on working */
};
/* One secret at most goes on working beside the new one: that of an overlap which has not
 * ended yet stops. Otherwise as store_key_revoke(); F_KEY_STATE: the key is revoked. */
void store_key_rotate(struct worker *from, const char *id_or_name,
    const struct store_rotation *, void (*each)(void *arg, const struct topo_key_text *),
    store_done *, void *arg);
/* Forgets the former secrets whose time is over. */
void store_keys_forget(struct worker *from, store_done *, void *arg);

/* ---- routes made at run time ---- */

/* In the order in which they were made. store_look() speaks of them too: they are to be read
 * after the keys. */
void store_routes_load(struct worker *from,
    void (*each)(void *arg, const struct topo_route_text *), store_done *, void *arg);
/* The same, waiting: for the start. */
int store_routes_wait(void (*each)(void *arg, const struct topo_route_text *), void *arg,
    char *why, size_t why_len) MUST_USE;
/* All of them, or none. F_EXISTS: another process has put one; F_NOT_FOUND: deleted it. Texts
 * are copied. */
void store_routes_put(struct worker *from, const struct topo_route_text *, size_t count,
    store_done *, void *arg);
void store_routes_delete(struct worker *from, const struct topo_route_text *,
    size_t count, store_done *, void *arg);

/* ---- jobs and their runs ---- */

void store_jobs_load(struct worker *from,
    void (*each)(void *arg, const struct topo_job_text *), store_done *, void *arg);
/* Replaces a job of that name. */
void store_job_put(
    struct worker *from, const struct topo_job_text *, store_done *, void *arg);
/* Its runs go with it. F_NOT_FOUND: no such job. */
void store_job_delete(struct worker *from, const char *name, store_done *, void *arg);

/* One table of one target in one run; times are wall-clock µs. */
struct store_run {
	const char *job;
	int64_t run; /* counts up per job */
	int64_t started_us, ended_us;
	const char *target, *table;
	int64_t rows_read, rows_written, rows_deleted, bytes;
	const char *outcome; /* done, failed */
	const char *error;   /* or NULL */
};
/* The last thousand runs of a job are kept. */
void store_run_put(
    struct worker *from, const struct store_run *, store_done *, void *arg);
/* The newest first, at most limit of them; job NULL: of all jobs. */
void store_runs_load(struct worker *from, const char *job, unsigned limit,
    void (*each)(void *arg, const struct store_run *), store_done *, void *arg);

/* Of proxies that share a store one runs a job at a time. fault 0: it is ours, until
 * store_job_claim_end(), and this is its run's number. F_EXISTS: another has it, or has had it
 * less than its interval ago; wait_us: ask again then. F_STORE, F_STORE_DOWN: nobody can say. */
typedef void store_claimed(
    struct worker *, void *arg, int fault, const char *why, int64_t run, int64_t wait_us);
/* run: the number that it has at least. interval_us 0: it is to run at once. */
void store_job_claim(struct worker *from, const char *name, int64_t interval_us,
    int64_t run, store_claimed *, void *arg);
/* done (may be NULL): others may have it now. */
void store_job_claim_end(
    struct worker *from, const char *name, int64_t run, store_done *done, void *arg);

/* ---- without a running proxy: `pgweave key …`; the same store, in the calling thread ---- */
/* A store that is not there yet is made by the first put, and empty until then. */

struct store_direct;
/* As store_start(). NULL and why. */
struct store_direct *store_direct_open(const struct topo *, const struct settings *,
    const struct topo_database *shared, char *why, size_t why_len) MUST_USE;
void store_direct_close(struct store_direct *);
int store_direct_keys(struct store_direct *,
    void (*each)(void *arg, const struct topo_key_text *), void *arg, char *why,
    size_t why_len) MUST_USE;
int store_direct_key_put(struct store_direct *, const struct topo_key_text *, char *why,
    size_t why_len) MUST_USE;
int store_direct_key_revoke(
    struct store_direct *, const char *id_or_name, char *why, size_t why_len) MUST_USE;
int store_direct_key_rotate(struct store_direct *, const char *id_or_name,
    const struct store_rotation *, void (*each)(void *arg, const struct topo_key_text *),
    void *arg, char *why, size_t why_len) MUST_USE;

#endif
