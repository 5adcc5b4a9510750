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
#include "topo.h"

/* For session_set_console(). */
extern const struct session_console admin_console;

/* After net_settle(), before session_fini(): those who still wait are told that it is over. */
void admin_fini(struct worker *);

enum admin_shutdown {
	ADMIN_SHUTDOWN_NOW,
	ADMIN_SHUTDOWN_WAIT_FOR_SERVERS, /* when transactions are over */
	ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS  /* when all clients have left */
};
struct admin_key;
/* In the main thread; fault 0, or why. */
typedef void admin_host_done(void *arg, int fault, const char *why);
/* What the console asks of the process; each is called in the main thread. */
struct admin_host {
	/* 0, or a fault and why: then nothing has changed. */
	int (*reload)(char *why, size_t why_len);
	/* A setting that takes effect without a restart, to a value that is not checked yet. */
	int (*set)(const char *key, const char *value, char *why, size_t why_len);
	void (*shutdown)(enum admin_shutdown);
	/* Keys of the state store; done() comes at once or later. When it says 0, logins that
	 * begin now see the change. Texts are copied. Faults: F_CONF_VALUE (the words make no
	 * key), F_STORE, F_EXISTS, F_NOT_FOUND, F_AMBIGUOUS, F_KEY_STATE; F_CONF: it is a key
	 * of the file. */
	void (*key_create)(const struct topo_key_text *, admin_host_done *, void *arg);
	void (*key_revoke)(const char *id_or_name, admin_host_done *, void *arg);
	/* The new secret stands in the key, which stays valid until done(); its id is filled
	 * in. */
	void (*key_rotate)(const char *id_or_name, int64_t overlap_us, struct admin_key *,
	    admin_host_done *, void *arg);
	/* Routes of the state store: all of them are added, or taken away (their databases do not
	 * count), or none. Faults as those of topo_route_check() and topo_route_stored(), and
	 * F_STORE. */
	void (*routes_change)(const struct topo_route_text *, size_t count, bool drops,
	    admin_host_done *, void *arg);
};
/* Before net_start(); the host must stay valid. */
void admin_set_host(const struct admin_host *);

/* PAUSE and RESUME of all databases without anybody who waits, for signals; in the main
 * thread. False: it was so already. */
bool admin_pause_all(struct worker *main);
bool admin_resume_all(struct worker *main);

/* Writes the line "stats: 0 xacts/s, 0 queries/s…" for the last whole stats_period; in the
 * main thread. */
void admin_log_stats(struct worker *main);

/* ---- a new API key, for CREATE KEY and the command line ---- */

struct admin_key {
	char id[80];     /* the prefix and 32 hex digits */
	char secret[49]; /* 48 hex digits: shown once, kept nowhere */
	char *verifier;  /* what is kept */
	char created[40];
};
void admin_key_make(struct admin_key *, const char *prefix);
/* A new secret for a key that there is. */
void admin_key_renew(struct admin_key *);
/* The verifier of that secret, like another one, as struct store_rotation asks for it; in any
 * thread. */
char *admin_key_verifier(void *admin_key, const char *like) MUST_USE;
/* Overwrites the secret. */
void admin_key_forget(struct admin_key *);
/* Neither a file of lines nor a terminal is the place for them. */
bool admin_key_has_control(const struct topo_key_text *);
/* Appends a name to a list of names as topo reads them: ", " between, quoted where needed. */
void admin_list_add(struct buf *, const char *name);
/* A wall-clock time as "2026-01-31 23:59:59+00". */
void admin_time_text(int64_t wall_us, char *out, size_t size);
/* active, rotating, expired or revoked; "federate, operate"; the members that it lists. */
const char *admin_key_status(const struct topo_key *, int64_t wall_us);
void admin_key_rights(const struct topo_key *, struct buf *out);
void admin_key_databases(const struct topo_key *, struct buf *out);
const char *admin_key_type(const struct topo_key *);

#endif
