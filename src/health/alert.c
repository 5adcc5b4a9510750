/*
 * alert_command: run when a database changes. One word is a program, anything else a line for
 * the shell. It is told what happened as arguments ($1 to $4 in a line) and in its environment:
 * PGWEAVE_DATABASE, PGWEAVE_OLD_STATUS, PGWEAVE_NEW_STATUS, PGWEAVE_REASON. Nobody waits for it:
 * one at a time for a database, killed with all that it started when it takes too long.
 */
#include "private.h"
#include "stat.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct alert {
	pid_t pid; /* 0: none runs */
	int64_t started_us;
	bool was_killed;
	/* The change that waits until it has ended. */
	bool is_waiting;
	char *was, *is, *reason;
};

static void
alert_forget(struct alert *a)
{
	free(a->was);
	free(a->is);
	free(a->reason);
	a->was = a->is = a->reason = NULL;
	a->is_waiting = false;
}

/* ---- starting ---- */

/* The environment of this process and four words more; the caller frees the array and the last
 * four. */
static char **
environment_of(const struct watch *w, size_t *first)
{
	const struct alert *a = w->alert;
	size_t n = 0, count = 0;
	char **env;

	while (environ[count] != NULL)
		count++;
	env = mem_alloc((count + 5) * sizeof(*env));
	for (size_t i = 0; i < count; i++)
		if (strncmp(environ[i], "PGWEAVE_", 8) != 0)
			env[n++] = environ[i];
	*first = n;
	env[n++] = mem_printf("PGWEAVE_DATABASE=%s", w->name);
	env[n++] = mem_printf("PGWEAVE_OLD_STATUS=%s", a->was);
	env[n++] = mem_printf("PGWEAVE_NEW_STATUS=%s", a->is);
	env[n++] = mem_printf("PGWEAVE_REASON=%s", a->reason);
	env[n] = NULL;
	return (env);
}

/* A group of its own, so that what it started can be killed with it; no files but /dev/null. */
static int
spawn(pid_t *pid, char *const argv[], char *const env[])
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t how;
	sigset_t none, all;
	int err;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	if ((err = posix_spawn_file_actions_init(&files)) != 0)
		return (err);
	if ((err = posix_spawnattr_init(&how)) != 0) {
		(void)posix_spawn_file_actions_destroy(&files);
		return (err);
	}
	(void)posix_spawnattr_setsigmask(&how, &none);
	(void)posix_spawnattr_setsigdefault(&how, &all);
	(void)posix_spawnattr_setpgroup(&how, 0);
	(void)posix_spawnattr_setflags(
	    &how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	err = posix_spawn_file_actions_addopen(
	    &files, STDIN_FILENO, "/dev/null", O_RDWR, 0);
	for (int fd = STDOUT_FILENO; err == 0 && fd <= STDERR_FILENO; fd++)
		err = posix_spawn_file_actions_adddup2(&files, STDIN_FILENO, fd);
	if (err == 0)
		err = posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
	if (err == 0)
		err = posix_spawnp(pid, argv[0], &files, &how, argv, env);
	(void)posix_spawnattr_destroy(&how);
	(void)posix_spawn_file_actions_destroy(&files);
	return (err);
}

static void
alert_start(struct watch *w, const char *command, int64_t now_us)
{
	struct alert *a = w->alert;
	char sh[] = "/bin/sh", dash_c[] = "-c", name[] = "pgweave";
	char *line = mem_str(command);
	bool is_line = command[strcspn(command, " \t")] != '\0';
	char *argv[9];
	size_t n = 0, first;
	char **env = environment_of(w, &first);
	int err;

	if (is_line) {
		argv[n++] = sh;
		argv[n++] = dash_c;
	}
	argv[n++] = line;
	if (is_line)
		argv[n++] = name;
	argv[n++] = w->name;
	argv[n++] = a->was;
	argv[n++] = a->is;
	argv[n++] = a->reason;
	argv[n] = NULL;
	a->started_us = now_us;
	a->was_killed = false;
	err = spawn(&a->pid, argv, env);
	if (err != 0) {
		a->pid = 0;
		stat_count(M_alerts_failed, 1);
		log_error("health: %s: alert_command cannot be run: %s", w->name,
		    strerror(err));
	} else
		stat_count(M_alerts, 1);
	alert_forget(a);
	for (size_t i = 0; i < 4; i++)
		free(env[first + i]);
	free(env);
	free(line);
}

void
alert_raise(struct watch *w, const char *was, const char *is, const char *reason)
{
	struct alert *a = w->alert;
	char *first;

	if (w->topo == NULL || topo_settings(w->topo)->alert_command[0] == '\0')
		return;
	if (a == NULL)
		a = w->alert = mem_alloc(sizeof(*a));
	/* Of changes that nobody was told of, the first knows what it was before. */
	first = a->was;
	a->was = NULL;
	alert_forget(a);
	a->was = first != NULL ? first : mem_str(was);
	a->is = mem_str(is);
	a->reason = mem_str(reason != NULL ? reason : "");
	a->is_waiting = true;
}

/* ---- ending ---- */

static void
alert_ended(const struct watch *w, int status)
{
	const struct alert *a = w->alert;

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	stat_count(M_alerts_failed, 1);
	if (a->was_killed)
		log_warning(
		    "health: %s: alert_command took longer than alert_timeout and "
		    "was killed",
		    w->name);
	else if (WIFEXITED(status))
		log_warning("health: %s: alert_command ended with exit code %d", w->name,
		    WEXITSTATUS(status));
	else
		log_warning("health: %s: alert_command was ended by signal %d", w->name,
		    WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void
alert_look(struct watch *w, int64_t now_us)
{
	struct alert *a = w->alert;
	int64_t limit = topo_settings(w->topo)->alert_timeout;
	int status = 0;
	pid_t got = waitpid(a->pid, &status, WNOHANG);

	if (got == 0 || (got < 0 && errno == EINTR)) {
		if (limit > 0 && now_us - a->started_us >= limit && !a->was_killed) {
			a->was_killed = true;
			(void)kill(-a->pid, SIGKILL);
		}
		return;
	}
	if (got > 0)
		alert_ended(w, status);
	a->pid = 0;
}

void
alert_tick(struct watch *w, int64_t now_us)
{
	struct alert *a = w->alert;
	const char *command;

	if (a == NULL)
		return;
	if (a->pid != 0)
		alert_look(w, now_us);
	if (a->pid == 0 && a->is_waiting) {
		command = topo_settings(w->topo)->alert_command;
		if (command[0] != '\0')
			alert_start(w, command, now_us);
		else
			alert_forget(a);
	}
	if (a->pid == 0 && !a->is_waiting)
		alert_drop(w, false);
}

void
alert_drop(struct watch *w, bool is_end)
{
	struct alert *a = w->alert;

	if (a == NULL)
		return;
	/* At the end of the process it goes on by itself. */
	if (a->pid != 0 && !is_end) {
		(void)kill(-a->pid, SIGKILL);
		(void)waitpid(a->pid, NULL, 0);
	}
	alert_forget(a);
	free(a);
	w->alert = NULL;
}
