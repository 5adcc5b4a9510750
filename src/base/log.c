/*
 * Logging: one event, one line, one write, so that lines of several threads never mix.
 * The form is PgBouncer's: time, time zone, [pid], level, text.
 */
#include "base.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
/* Last: syslog's names for levels stand beside ours. */
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static const struct {
	const char *name;
	int syslog;
} level_table[] = {
    [LOG_FATAL_] = {"FATAL", LOG_CRIT},
    [LOG_ERROR_] = {"ERROR", LOG_ERR},
    [LOG_WARNING_] = {"WARNING", LOG_WARNING},
    [LOG_INFO_] = {"LOG", LOG_INFO},
    [LOG_DEBUG_] = {"DEBUG", LOG_DEBUG},
    [LOG_NOISE_] = {"NOISE", LOG_DEBUG},
};

static const struct {
	const char *name;
	int facility;
} facility_table[] = {
    {"auth", LOG_AUTH},
    {"authpriv", LOG_AUTHPRIV},
    {"daemon", LOG_DAEMON},
    {"user", LOG_USER},
    {"local0", LOG_LOCAL0},
    {"local1", LOG_LOCAL1},
    {"local2", LOG_LOCAL2},
    {"local3", LOG_LOCAL3},
    {"local4", LOG_LOCAL4},
    {"local5", LOG_LOCAL5},
    {"local6", LOG_LOCAL6},
    {"local7", LOG_LOCAL7},
};

/* Replaced file descriptors are swapped with dup2, so that a writer in another thread never
 * holds a closed one. */
static _Atomic int log_fd = -1;
static _Atomic bool log_stderr = true, log_syslog;
static _Atomic int log_verbose;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static char syslog_ident[64];

static int
facility_find(const char *name)
{
	for (size_t i = 0; name != NULL && i < ARRAY_LEN(facility_table); i++)
		if (strcasecmp(facility_table[i].name, name) == 0)
			return (facility_table[i].facility);
	return (LOG_DAEMON);
}

static int
log_swap_file(const char *file, char *why, size_t why_len)
{
	int fd, old = log_fd;

	if (file == NULL || file[0] == '\0') {
		log_fd = -1;
		return (0);
	}
	fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0) {
		snprintf(why, why_len, "cannot open log file \"%s\": %s", file,
		    strerror(errno));
		return (F_SYSTEM);
	}
	if (old >= 0) {
		dup3(fd, old, O_CLOEXEC);
		close(fd);
	} else
		log_fd = fd;
	return (0);
}

int
log_open(const struct log_options *o, char *why, size_t why_len)
{
	int fault;

	pthread_mutex_lock(&open_lock);
	fault = log_swap_file(o->file, why, why_len);
	if (fault == 0) {
		log_stderr = o->to_stderr;
		log_verbose = o->verbose;
		if (o->to_syslog) {
			text_copy(syslog_ident, sizeof(syslog_ident),
			    o->syslog_ident ? o->syslog_ident : "pgweave");
			openlog(syslog_ident, LOG_PID, facility_find(o->syslog_facility));
		}
		log_syslog = o->to_syslog;
	}
	pthread_mutex_unlock(&open_lock);
	return (fault);
}

bool
log_wants(enum log_level level)
{
	return (level <= LOG_INFO_ || (int)level - LOG_INFO_ <= log_verbose);
}

/* Time, zone, pid and level; the length written. */
static size_t
log_head(char *line, size_t size, enum log_level level)
{
	struct timespec ts;
	struct tm tm;
	char when[32], zone[16];

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	strftime(zone, sizeof(zone), "%Z", &tm);
	return ((size_t)snprintf(line, size, "%s.%03ld %s [%d] %s ", when,
	    ts.tv_nsec / 1000000, zone, (int)getpid(), level_table[level].name));
}

static void
log_write(int fd, const char *line, size_t len)
{
	/* A full disk or a closed terminal must not take the proxy down. */
	ssize_t n = write(fd, line, len);

	(void)n;
}

void
log_line(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	size_t head, len;
	va_list ap;
	int n, fd = log_fd;

	if (!log_wants(level))
		return;
	head = log_head(line, sizeof(line), level);
	va_start(ap, fmt);
	n = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
	va_end(ap);
	len = head + (n < 0 ? 0 : (size_t)n);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	/* What a peer sent may be in the line: it stays one line. */
	for (size_t i = head; i < len; i++)
		if ((unsigned char)line[i] < ' ' && line[i] != '\t')
			line[i] = ' ';
	line[len] = '\0';
	if (log_syslog)
		syslog(level_table[level].syslog, "%s", line + head);
	line[len++] = '\n';
	if (fd >= 0)
		log_write(fd, line, len);
	if (log_stderr)
		log_write(STDERR_FILENO, line, len);
}
