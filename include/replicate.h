/*
 * replicate: jobs that keep tables of other databases up to date, by a sync key (DESIGN 9).
 * All of it lives on the side thread; what others ask of it comes by mail and is called there.
 */
#ifndef REPLICATE_H
#define REPLICATE_H
#include "base.h"
#include "net.h"
#include "store.h"
#include "topo.h"

/* On net_side(), before net_start(): jobs of the configuration and of the store. */
void replicate_init(struct worker *side);
void replicate_fini(struct worker *side);

/* Side thread only. Answers come in done(), now or later: 0, or a fault with its message (and
 * detail, hint: may be NULL). sqlstate: of the error. Texts are copied. */
struct replicate_answer {
	int fault;
	const char *sqlstate, *message, *detail, *hint;
	const char *notice; /* for the user, also when it worked: lines; or NULL */
};
typedef void replicate_done(void *arg, const struct replicate_answer *);
/* Checks the job against the databases (tables, keys, columns), then keeps it in the store. */
void replicate_create(
    struct worker *side, const struct topo_job_text *, replicate_done *, void *arg);
void replicate_drop(struct worker *side, const char *name, replicate_done *, void *arg);
void replicate_pause(
    struct worker *side, const char *name, bool paused, replicate_done *, void *arg);
/* Answers when the run has ended. 55006: somebody has asked for one already. A run that is
 * under way by itself is waited for: this one is another. */
void replicate_run(struct worker *side, const char *name, replicate_done *, void *arg);
/* REPLICATE TABLE: a job without a name, run once, not kept. */
void replicate_once(
    struct worker *side, const struct topo_job_text *, replicate_done *, void *arg);

/* For SHOW JOBS and the HTTP API: any thread; what they call must be short and call nothing of
 * this room. Strings valid during the call; times wall-clock µs, 0: never. */
struct replicate_status {
	const char *id, *name, *source, *targets, *tables, *mode, *sync_key;
	int64_t interval_us;
	const char *status; /* ok, failed, paused, running, never run */
	bool is_enabled, is_running, is_from_file;
	int64_t rows_done,
	    rows_total; /* of the run under way, or the last; -1: not known */
	double rate;    /* rows a second */
	int64_t lag_us; /* how far the slowest target is behind; -1: not known */
	int64_t last_run_us, next_run_us;
	const char *last_error; /* NULL: none */
};
void replicate_each(struct worker *side,
    void (*each)(void *arg, const struct replicate_status *), void *arg);
/* SHOW JOB_RUNS: a table and target of a run, the newest first, also those that the store did
 * not take. outcome: done, failed, skipped. */
void replicate_each_run(void (*each)(void *arg, const struct store_run *), void *arg);

#endif
