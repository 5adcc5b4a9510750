/* Listening sockets: TCP on each address of listen_addr, and one in unix_socket_dir. */
#include "net.h"
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTEN_MAX   64
#define ACCEPT_BATCH 64
#define REST_US      200000

static struct listener {
	int fd;
	struct event *event;
} listeners[LISTEN_MAX];
static unsigned listener_count;
static net_accept *on_accept;
static struct event *rest_event;
static struct sockaddr_un unix_addr;
static bool resting;

static void
listen_ready(evutil_socket_t fd, short what, void *arg)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int client;

	(void)what;
	(void)arg;
	for (int i = 0; i < ACCEPT_BATCH && !resting; i++) {
		len = sizeof(ss);
		client = accept4(
		    fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			on_accept(client, (struct sockaddr *)&ss, len);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
		    errno == ENOBUFS) {
			log_error("cannot accept a connection: %s; resting for %d ms",
			    strerror(errno), REST_US / 1000);
			net_listen_rest();
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static void
listen_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	resting = false;
	for (unsigned i = 0; i < listener_count; i++)
		event_add(listeners[i].event, NULL);
}

void
net_listen_rest(void)
{
	struct timeval after = {.tv_usec = REST_US};

	if (resting || listener_count == 0)
		return;
	resting = true;
	for (unsigned i = 0; i < listener_count; i++)
		event_del(listeners[i].event);
	if (rest_event == NULL)
		rest_event = evtimer_new(net_main()->base, listen_again, NULL);
	INVARIANT(rest_event != NULL && evtimer_add(rest_event, &after) == 0);
}

static int
listen_add(
    int fd, const struct settings *set, const char *where, char *why, size_t why_len)
{
	struct listener *l = &listeners[listener_count];

	if (listener_count == LISTEN_MAX) {
		snprintf(why, why_len, "more than %d addresses to listen on", LISTEN_MAX);
		close(fd);
		return (F_SYSTEM);
	}
	if (listen(fd, (int)set->listen_backlog) != 0) {
		snprintf(why, why_len, "cannot listen on %s: %s", where, strerror(errno));
		close(fd);
		return (F_SYSTEM);
	}
	l->fd = fd;
	l->event =
	    event_new(net_main()->base, fd, EV_READ | EV_PERSIST, listen_ready, NULL);
	INVARIANT(l->event != NULL && event_add(l->event, NULL) == 0);
	listener_count++;
	log_info("listening on %s", where);
	return (0);
}

static int
listen_tcp(
    const struct addrinfo *ai, const struct settings *set, char *why, size_t why_len)
{
	char host[NI_MAXHOST] = "?", where[NI_MAXHOST + 16];
	int fd, on = 1;

	getnameinfo(
	    ai->ai_addr, ai->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	snprintf(where, sizeof(where), ai->ai_family == AF_INET6 ? "[%s]:%d" : "%s:%d",
	    host, (int)set->listen_port);
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 && errno == EAFNOSUPPORT) {
		log_warning("not listening on %s: %s", where, strerror(errno));
		return (0);
	}
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (ai->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
#ifdef TCP_DEFER_ACCEPT
		if (set->tcp_defer_accept > 0) {
			int seconds = (int)set->tcp_defer_accept;

			setsockopt(
			    fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
		}
#endif
	}
	if (fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) != 0) {
		snprintf(why, why_len, "cannot listen on %s: %s", where, strerror(errno));
		if (fd >= 0)
			close(fd);
		return (F_SYSTEM);
	}
	return (listen_add(fd, set, where, why, why_len));
}

static int
listen_name(const char *name, const struct settings *set, char *why, size_t why_len)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	char port[16];
	int err, fault = 0;

	snprintf(port, sizeof(port), "%d", (int)set->listen_port);
	/* Before the loop runs: this may block, and nobody waits yet. */
	err = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, port, &hints, &list);
	if (err != 0) {
		snprintf(
		    why, why_len, "listen_addr: \"%s\": %s", name, gai_strerror(err));
		return (F_SYSTEM);
	}
	for (struct addrinfo *ai = list; ai != NULL && fault == 0; ai = ai->ai_next)
		fault = listen_tcp(ai, set, why, why_len);
	freeaddrinfo(list);
	return (fault);
}

/* True when a live process listens on the socket file. */
static bool
unix_is_alive(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool alive;

	if (fd < 0)
		return (false);
	alive = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0;
	close(fd);
	return (alive);
}

static int
listen_unix(const struct settings *set, char *why, size_t why_len)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	const struct group *gr = NULL;
	char where[sizeof(un.sun_path) + 8];
	int fd, n;

	n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/.s.PGSQL.%d",
	    set->unix_socket_dir, (int)set->listen_port);
	snprintf(where, sizeof(where), "unix:%s", un.sun_path);
	if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
		snprintf(why, why_len, "unix_socket_dir: the path is too long");
		return (F_SYSTEM);
	}
	if (access(un.sun_path, F_OK) == 0) {
		if (unix_is_alive(&un)) {
			snprintf(why, why_len,
			    "cannot listen on %s: in use by another process", where);
			return (F_SYSTEM);
		}
		unlink(un.sun_path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) != 0) {
		snprintf(why, why_len, "cannot listen on %s: %s", where, strerror(errno));
		if (fd >= 0)
			close(fd);
		return (F_SYSTEM);
	}
	unix_addr = un;
	chmod(un.sun_path, (mode_t)set->unix_socket_mode);
	if (set->unix_socket_group[0] != '\0') {
		gr = getgrnam(set->unix_socket_group);
		if (gr == NULL || chown(un.sun_path, (uid_t)-1, gr->gr_gid) != 0) {
			snprintf(why, why_len, "unix_socket_group: \"%s\": %s",
			    set->unix_socket_group,
			    gr == NULL ? "no such group" : strerror(errno));
			close(fd);
			return (F_SYSTEM);
		}
	}
	return (listen_add(fd, set, where, why, why_len));
}

int
net_listen(const struct settings *set, net_accept *accepted, char *why, size_t why_len)
{
	char *list = mem_str(set->listen_addr), *name, *at;
	int fault = 0;

	on_accept = accepted;
	for (name = strtok_r(list, ", \t", &at); name != NULL && fault == 0;
	     name = strtok_r(NULL, ", \t", &at))
		fault = listen_name(name, set, why, why_len);
	free(list);
	if (fault == 0 && set->unix_socket_dir[0] != '\0')
		fault = listen_unix(set, why, why_len);
	if (fault == 0 && listener_count == 0) {
		snprintf(why, why_len,
		    "nothing to listen on: set listen_addr or unix_socket_dir");
		fault = F_SYSTEM;
	}
	if (fault != 0)
		net_listen_close();
	return (fault);
}

void
net_listen_close(void)
{
	for (unsigned i = 0; i < listener_count; i++) {
		event_free(listeners[i].event);
		close(listeners[i].fd);
	}
	listener_count = 0;
	if (rest_event != NULL)
		event_free(rest_event);
	rest_event = NULL;
	resting = false;
	if (unix_addr.sun_path[0] != '\0')
		unlink(unix_addr.sun_path);
	unix_addr.sun_path[0] = '\0';
}
