/*
 * side, for its own files.
 *
 *   OPENING -> IDLE <-> QUERY
 *                   <-> COPY_OUT (rows go to data())
 *                   <-> COPY_IN_WAIT -> COPY_IN -> COPY_IN_END
 *
 * A connection that is lost has no PGconn any more: each thing that is asked of it then
 * fails, later, by the kick.
 */
#ifndef SIDE_PRIVATE_H
#define SIDE_PRIVATE_H
#include "side.h"
#include <event2/event.h>
#include <event2/event_struct.h>

#define SIDE_MAGIC 0x51de0001
#define SIDE_ERROR 512

enum side_task {
	SIDE_OPENING,
	SIDE_IDLE,
	SIDE_QUERY,
	SIDE_COPY_OUT,
	SIDE_COPY_IN_WAIT, /* for the server's word that it takes the rows */
	SIDE_COPY_IN,
	SIDE_COPY_IN_END,
	SIDE_CLOSED
};

struct side {
	struct burial burial;
	uint32_t magic;
	struct worker *worker;
	const struct topo *topo; /* held */
	const struct topo_database *database;
	char *application_name;
	PGconn *conn; /* NULL: not there yet, or lost */
	struct event io, timer, kick;
	short watched; /* what io waits for; 0: nothing */
	struct resolve *resolve;
	size_t host; /* the one being tried */
	int64_t timeout_us;
	enum side_task task;
	bool is_copying;  /* COPY OUT: the rows have begun */
	bool is_paused;   /* COPY OUT: data() has said so */
	bool is_flushing; /* libpq holds bytes that the kernel refuses */
	bool owes_drained;
	bool has_failed;  /* err and sqlstate say why the task failed */
	bool is_doomed;   /* it failed inside the call: the kick tells */
	size_t in_flight; /* COPY IN: bytes given to libpq that may be unsent */
	struct buf unsent;
	PGresult *result; /* the last good one */
	char err[SIDE_ERROR];
	char sqlstate[6];
	side_opened *opened; /* side_open(), side_copy_in() */
	side_answered *answered;
	bool (*data)(struct side *, void *arg, const char *p, int len);
	void (*drained)(struct side *, void *arg);
	void *arg;
};

/* ---- open.c ---- */

void side_watch(struct side *, short what);
/* Starts the clock for what runs; 0: none. */
void side_clock(struct side *, int64_t timeout_us);
void side_kick(struct side *);
/* Drops the connection; the task stays. */
void side_drop(struct side *);

/* ---- run.c ---- */

/* The socket is ready, while a task runs or none does. */
void side_serve(struct side *, short what);
/* The connection is lost, or is given up: the task fails. err NULL: what libpq says. */
void side_lost(struct side *, const char *err);
/* What the kick is for: tells a failure that came inside a call, or takes up a copy. */
void side_go_on(struct side *);

#endif
