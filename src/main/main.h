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
/* Tells systemd, when it listens: "READY=1", "STOPPING=1"… */
void notify(const char *state);

#endif
