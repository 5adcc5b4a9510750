/* What a server process is to its system: background, pid file, user, limits, systemd. */
#include "config.h"
#include "main.h"
#include "net.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

static int ready_fd = -1; /* to the process that waits until we have started */
static char *pidfile;

void
daemon_begin(void)
{
	unsigned char code = EXIT_NO_START;
	int pipe_fd[2];
	pid_t pid;

	if (pipe2(pipe_fd, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
		fprintf(stderr, "pgweave: cannot go into the background: %s\n",
		    strerror(errno));
		exit(EXIT_NO_START);
	}
	if (pid > 0) {
		close(pipe_fd[1]);
		/* End of file without a code: it has died. */
		if (read(pipe_fd[0], &code, 1) != 1)
			code = EXIT_NO_START;
		_exit(code);
	}
	close(pipe_fd[0]);
	ready_fd = pipe_fd[1];
	setsid();
}

void
daemon_ready(enum exit_code code)
{
	unsigned char byte = (unsigned char)code;
	int null;

	if (ready_fd < 0)
		return;
	if (code == EXIT_FINE && (null = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
	(void)!write(ready_fd, &byte, 1);
	close(ready_fd);
	ready_fd = -1;
}

int
pidfile_write(const char *path, char *why, size_t why_len)
{
	char text[32];
	ssize_t n;
	long pid;
	int fd;

	if (path[0] == '\0')
		return (0);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		snprintf(why, why_len, "pidfile: cannot open \"%s\": %s", path,
		    strerror(errno));
		return (F_SYSTEM);
	}
	n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	pid = strtol(text, NULL, 10);
	if (pid > 1 && pid != getpid() && (kill((pid_t)pid, 0) == 0 || errno == EPERM)) {
		snprintf(why, why_len,
		    "pidfile: \"%s\" names process %ld, which is running", path, pid);
		close(fd);
		return (F_SYSTEM);
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
		snprintf(why, why_len, "pidfile: cannot write \"%s\": %s", path,
		    strerror(errno));
		close(fd);
		return (F_SYSTEM);
	}
	close(fd);
	pidfile = mem_str(path);
	return (0);
}

void
pidfile_remove(void)
{
	if (pidfile != NULL)
		unlink(pidfile);
	free(pidfile);
	pidfile = NULL;
}

int
become_user(const char *name, char *why, size_t why_len)
{
	const struct passwd *pw = getpwnam(name);

	if (pw == NULL) {
		snprintf(why, why_len, "user: there is no user \"%s\"", name);
		return (F_SYSTEM);
	}
	if (pw->pw_uid == getuid())
		return (0);
	if (initgroups(name, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 ||
	    setuid(pw->pw_uid) != 0) {
		snprintf(why, why_len, "user: cannot become \"%s\": %s", name,
		    strerror(errno));
		return (F_SYSTEM);
	}
	return (0);
}

unsigned
descriptors_raise(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) != 0)
		return (1024);
	if (rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		(void)!setrlimit(RLIMIT_NOFILE, &rl);
		(void)!getrlimit(RLIMIT_NOFILE, &rl);
	}
	return (rl.rlim_cur > 100000000 ? 100000000 : (unsigned)rl.rlim_cur);
}

void
sockets_take(void)
{
#ifdef HAVE_SYSTEMD
	int count = sd_listen_fds(1);

	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; fd++)
		if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) > 0)
			net_listen_given(fd);
		else
			log_warning(
			    "the service manager gave descriptor %d, which does not listen: not used",
			    fd);
#endif
}

void
notify(const char *state, const char *status)
{
#ifdef HAVE_SYSTEMD
	sd_notifyf(0, "%s%s%s", state, status != NULL ? "\nSTATUS=" : "",
	    status != NULL ? status : "");
#else
	(void)state;
	(void)status;
#endif
}
