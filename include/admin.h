/*
 * admin: the console: its commands and views, answered in the thread of the session that
 * asked. What other workers hold is collected by visits (net_visit).
 *
 * A statement becomes a call, which lives until its sink has got end or fail; what goes on
 * later (a visit, a wait, a mail to the main thread) keeps the call and never the session.
 */
#ifndef ADMIN_H
#define ADMIN_H
#include "base.h"
#include "net.h"
#include "session.h"

/* For session_set_console(). */
extern const struct session_console admin_console;

/* After net_settle(), before session_fini(): those who still wait are told that it is over. */
void admin_fini(struct worker *);

enum admin_shutdown {
	ADMIN_SHUTDOWN_NOW,
	ADMIN_SHUTDOWN_WAIT_FOR_SERVERS, /* when transactions are over */
	ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS  /* when all clients have left */
};
/* What the console asks of the process; each is called in the main thread. */
struct admin_host {
	/* 0, or a fault and why: then nothing has changed. */
	int (*reload)(char *why, size_t why_len);
	/* A setting that takes effect without a restart, to a value that is not checked yet. */
	int (*set)(const char *key, const char *value, char *why, size_t why_len);
	void (*shutdown)(enum admin_shutdown);
};
/* Before net_start(); the host must stay valid. */
void admin_set_host(const struct admin_host *);

/* PAUSE and RESUME of all databases without anybody who waits, for signals; in the main
 * thread. */
void admin_pause_all(struct worker *main);
void admin_resume_all(struct worker *main);

/* Writes the line "stats: 0 xacts/s, 0 queries/s…" for the last whole stats_period; in the
 * main thread. */
void admin_log_stats(struct worker *main);

#endif
