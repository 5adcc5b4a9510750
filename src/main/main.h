/* main, for its own files. */
#ifndef MAIN_H
#define MAIN_H
#include "admin.h"
#include "base.h"
#include "conf.h"
#include "net.h"
#include "topo.h"

enum exit_code { EXIT_FINE = 0, EXIT_BAD_CONFIG = 1, EXIT_NO_START = 2 };

/* What the command line asks for. */
struct options {
	const char *config;
	const char *user; /* NULL: as the configuration says */
	bool daemon, quiet;
	int verbose;
};

/* Runs until it is told to stop. */
enum exit_code serve(const struct options *);
/* The snapshot in use; main thread only. */
const struct topo *world_current(void);
/* Makes it the one in use; takes it over. TLS and the log stay as they are. */
void world_replace(const struct topo *);

/* ---- login_key.c ---- */

/* Gives auth the key that lies in state_dir; makes it. Without such a directory there is none. */
void login_key_load(const struct settings *);

/* ---- stored_keys.c: the keys of the state store ---- */

/* Opens the store and reads its keys, waiting for both; before net_start(). What is wrong
 * goes to the log. */
void stored_keys_start(const struct topo *);
/* Ends the store's thread. What is still on its way is delivered by net_settle(). */
void stored_keys_stop(void);
void stored_keys_free(void);
/* That snapshot with the keys of the store; takes it over. */
const struct topo *stored_keys_apply(const struct topo *) MUST_USE;
/* See struct admin_host. */
void stored_keys_create(const struct topo_key_text *, admin_host_done *, void *arg);
void stored_keys_revoke(const char *id_or_name, admin_host_done *, void *arg);
void stored_keys_rotate(const char *id_or_name, int64_t overlap_us, struct admin_key *,
    admin_host_done *, void *arg);

/* ---- stored_routes.c: the routes of the state store, likewise ---- */

/* Behind stored_keys_start(). */
void stored_routes_start(void);
void stored_routes_free(void);
const struct topo *stored_routes_apply(const struct topo *) MUST_USE;
/* Others have written to the store. */
void stored_routes_read(struct worker *);
/* See struct admin_host. */
void stored_routes_change(const struct topo_route_text *, size_t count, bool drops,
    admin_host_done *, void *arg);

/* ---- key.c: pgweave key … ---- */

int command_key(int argc, char **argv);

/* ---- process.c ---- */

/* Goes into the background. The one who started it waits until daemon_ready() and ends with
 * that code; only the child returns. */
void daemon_begin(void);
void daemon_ready(enum exit_code);
/* Writes the pid file; refuses when the process that it names lives. */
int pidfile_write(const char *path, char *why, size_t why_len) MUST_USE;
void pidfile_remove(void);
/* Becomes another user for good. */
int become_user(const char *name, char *why, size_t why_len) MUST_USE;
/* As many file descriptors as the system lets us have; the number. */
unsigned descriptors_raise(void);
/* Takes the listening sockets that the service manager has opened, if any. */
void sockets_take(void);
/* Tells systemd, when it listens: "READY=1", "STOPPING=1"…; status: what `systemctl status`
 * shows, or NULL. */
void notify(const char *state, const char *status);

#endif
