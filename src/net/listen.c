/*
 * Listening sockets: TCP on each address of listen_addr, and one in unix_socket_dir. They belong
 * to the thread that accepts; what the main thread wants of them goes there by mail.
 */
#include "net.h"
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
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
#define LEAVE_US     100000
/* How long the kernel keeps a connection without bytes to itself, as in PgBouncer. */
#define DEFER_ACCEPT_S 45

static struct listener {
	struct fd_watch watch;
	bool is_unix;
} * listeners[LISTEN_MAX];
static unsigned listener_count;
static int given[LISTEN_MAX];
static unsigned given_count;
static net_accept *on_accept;
static struct worker *acceptor;
static struct sockaddr_un unix_addr;
static bool resting;

static void listen_rest(void);
static void listen_again(struct timer *);
static void listen_leave(struct timer *);
static struct timer rest_timer = {.fire = listen_again},
		    leave_timer = {.fire = listen_leave};

/* The kernel makes a socket before it finds that there is nobody to be accepted, and unmakes it:
 * to ask is cheaper. */
static bool
listen_has_more(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return (poll(&p, 1, 0) == 1);
}

static void
listen_ready(struct fd_watch *watch)
{
	struct sockaddr_storage ss;
	int client, fd = watch->fd;
	socklen_t len;

	for (int i = 0; i < ACCEPT_BATCH && !resting; i++) {
		len = sizeof(ss);
		client = accept4(
		    fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			on_accept(acceptor, client, (struct sockaddr *)&ss, len);
			if (!listen_has_more(fd))
				return;
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
		    errno == ENOBUFS) {
			log_error("cannot accept a connection: %s; resting for %d ms",
			    strerror(errno), REST_US / 1000);
			listen_rest();
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static void
listen_again(struct timer *t)
{
	(void)t;
	resting = false;
	for (unsigned i = 0; i < listener_count; i++)
		fd_watch(acceptor, &listeners[i]->watch);
}

/* Leaves new connections in the kernel's queue for a while: no file descriptors left. */
static void
listen_rest(void)
{
	if (resting || listener_count == 0)
		return;
	resting = true;
	for (unsigned i = 0; i < listener_count; i++)
		fd_unwatch(acceptor, &listeners[i]->watch);
	timer_set(acceptor, &rest_timer, REST_US);
}

static int
listen_add(int fd, bool is_unix, const struct settings *set, const char *where, char *why,
    size_t why_len)
{
	struct listener *l;

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
	l = mem_alloc(sizeof(*l));
	*l = (struct listener){
	    .watch = {.fd = fd, .ready = listen_ready}, .is_unix = is_unix};
	socket_tune_listener(fd, is_unix, set);
	fd_watch(acceptor, &l->watch);
	listeners[listener_count++] = l;
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
		if (set->so_reuseport &&
		    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
			snprintf(why, why_len, "so_reuseport: %s", strerror(errno));
			close(fd);
			return (F_SYSTEM);
		}
		if (ai->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
#ifdef TCP_DEFER_ACCEPT
		if (set->tcp_defer_accept > 0) {
			int seconds = DEFER_ACCEPT_S;

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
	return (listen_add(fd, false, set, where, why, why_len));
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
unix_is_alive(const struct sockaddr_un *un, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool alive;

	if (fd < 0)
		return (false);
	alive = connect(fd, (const struct sockaddr *)un, len) == 0;
	close(fd);
	return (alive);
}

/* Mode and group of the socket file. */
static int
unix_give(
    const struct sockaddr_un *un, const struct settings *set, char *why, size_t why_len)
{
	const struct group *gr;

	chmod(un->sun_path, (mode_t)set->unix_socket_mode);
	if (set->unix_socket_group[0] == '\0')
		return (0);
	gr = getgrnam(set->unix_socket_group);
	if (gr != NULL && chown(un->sun_path, (uid_t)-1, gr->gr_gid) == 0)
		return (0);
	snprintf(why, why_len, "unix_socket_group: \"%s\": %s", set->unix_socket_group,
	    gr == NULL ? "no such group" : strerror(errno));
	return (F_SYSTEM);
}

static int
listen_unix(const struct settings *set, char *why, size_t why_len)
{
	struct sockaddr_un un;
	socklen_t len = addr_unix(&un, set->unix_socket_dir, (uint16_t)set->listen_port);
	bool is_abstract = set->unix_socket_dir[0] == '@';
	char where[sizeof(un.sun_path) + 8];
	int fd;

	if (len == 0) {
		snprintf(why, why_len, "unix_socket_dir: the path is too long");
		return (F_SYSTEM);
	}
	snprintf(where, sizeof(where), "unix:%s%s", is_abstract ? "@" : "",
	    un.sun_path + is_abstract);
	if (!is_abstract && access(un.sun_path, F_OK) == 0) {
		if (unix_is_alive(&un, len)) {
			snprintf(why, why_len,
			    "cannot listen on %s: in use by another process", where);
			return (F_SYSTEM);
		}
		unlink(un.sun_path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, len) != 0) {
		snprintf(why, why_len, "cannot listen on %s: %s", where, strerror(errno));
		if (fd >= 0)
			close(fd);
		return (F_SYSTEM);
	}
	if (!is_abstract) {
		unix_addr = un;
		if (unix_give(&un, set, why, why_len) != 0) {
			close(fd);
			return (F_SYSTEM);
		}
	}
	return (listen_add(fd, true, set, where, why, why_len));
}

void
net_listen_given(int fd)
{
	if (given_count < LISTEN_MAX)
		given[given_count++] = fd;
}

/* What the service manager has opened is left as it is, its file too. */
static int
listen_given(int fd, const struct settings *set, char *why, size_t why_len)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct addr addr;
	char text[ADDR_TEXT], where[ADDR_TEXT + 32];

	if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0 ||
	    evutil_make_socket_nonblocking(fd) != 0) {
		snprintf(why, why_len, "cannot listen on the socket given: %s",
		    strerror(errno));
		return (F_SYSTEM);
	}
	addr_from_socket(&addr, (struct sockaddr *)&ss, -1);
	addr_text(&addr, text, sizeof(text));
	snprintf(where, sizeof(where), "%s:%u (given)", text, addr.port);
	return (listen_add(fd, ss.ss_family == AF_UNIX, set, where, why, why_len));
}

int
net_listen(const struct settings *set, net_accept *accepted, char *why, size_t why_len)
{
	char *list, *name, *at;
	int fault = 0;

	on_accept = accepted;
	/* What it keeps goes through no mailbox. */
	acceptor = net_worker(0);
	for (unsigned i = 0; i < given_count && fault == 0; i++)
		fault = listen_given(given[i], set, why, why_len);
	if (given_count > 0) {
		if (fault != 0)
			net_listen_close();
		return (fault);
	}
	list = mem_str(set->listen_addr);
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

/* Closes those of the network, or all. */
static void
listen_end(bool keep_unix)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < listener_count; i++)
		if (keep_unix && listeners[i]->is_unix)
			listeners[kept++] = listeners[i];
		else {
			if (!resting)
				fd_unwatch(acceptor, &listeners[i]->watch);
			close(listeners[i]->watch.fd);
			free(listeners[i]);
		}
	listener_count = kept;
}

/* Clients whom the kernel has connected to us would be cut off by closing. */
static void
listen_leave(struct timer *t)
{
	(void)t;
	for (unsigned i = 0; i < listener_count && !resting; i++)
		if (!listeners[i]->is_unix)
			listen_ready(&listeners[i]->watch);
	listen_end(true);
}

static void
listen_local(bool is_shared)
{
	int off = 0;

	if (!is_shared || listener_count == 0) {
		listen_leave(&leave_timer);
		return;
	}
	/* Those that have not said anything yet are to be shown now. */
	for (unsigned i = 0; i < listener_count; i++)
		if (!listeners[i]->is_unix)
			(void)setsockopt(listeners[i]->watch.fd, IPPROTO_TCP,
			    TCP_DEFER_ACCEPT, &off, sizeof(off));
	timer_set(acceptor, &leave_timer, LEAVE_US);
}

static void
listen_close(void)
{
	listen_end(false);
	timer_cancel(&leave_timer);
	timer_cancel(&rest_timer);
	resting = false;
	if (unix_addr.sun_path[0] != '\0')
		unlink(unix_addr.sun_path);
	unix_addr.sun_path[0] = '\0';
}

/* ---- what the main thread wants ---- */

struct listen_mail {
	struct mail mail;
	bool is_close, is_shared;
};

static void
listen_mailed(struct worker *w, struct mail *m)
{
	struct listen_mail *lm = CONTAINER_OF(m, struct listen_mail, mail);

	(void)w;
	if (lm->is_close)
		listen_close();
	else
		listen_local(lm->is_shared);
	free(lm);
}

static void
listen_ask(bool is_close, bool is_shared)
{
	struct listen_mail *lm = mem_alloc(sizeof(*lm));

	lm->mail.run = listen_mailed;
	lm->is_close = is_close;
	lm->is_shared = is_shared;
	if (net_is_running())
		worker_post(acceptor, &lm->mail);
	else
		listen_mailed(NULL, &lm->mail);
}

void
net_listen_local(bool is_shared)
{
	listen_ask(false, is_shared);
}

void
net_listen_close(void)
{
	listen_ask(true, false);
}
