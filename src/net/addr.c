/* Addresses of peers, and what is set on every socket. */
#include "net.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

void
addr_from_socket(struct addr *a, const struct sockaddr *sa, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	*a = (struct addr){.family = (uint8_t)sa->sa_family};
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in =
		    (const struct sockaddr_in *)(const void *)sa;

		a->of.v4 = in->sin_addr;
		a->port = ntohs(in->sin_port);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in =
		    (const struct sockaddr_in6 *)(const void *)sa;

		a->of.v6 = in->sin6_addr;
		a->port = ntohs(in->sin6_port);
	} else if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
		a->of.peer.pid = (uint32_t)cred.pid;
		a->of.peer.uid = (uint32_t)cred.uid;
	}
}

void
addr_text(const struct addr *a, char *out, size_t size)
{
	out[0] = '\0';
	if (a->family == AF_INET)
		inet_ntop(AF_INET, &a->of.v4, out, (socklen_t)size);
	else if (a->family == AF_INET6)
		inet_ntop(AF_INET6, &a->of.v6, out, (socklen_t)size);
	else
		text_copy(out, size, "unix");
}

static void
socket_set(int fd, int level, int option, int64_t value)
{
	int v = (int)value;

	/* A refusal costs nothing but the tuning. */
	(void)setsockopt(fd, level, option, &v, sizeof(v));
}

socklen_t
addr_unix(struct sockaddr_un *un, const char *directory, uint16_t port)
{
	int n;

	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(
	    un->sun_path, sizeof(un->sun_path), "%s/.s.PGSQL.%u", directory, port);
	if (n < 0 || (size_t)n >= sizeof(un->sun_path))
		return (0);
	if (un->sun_path[0] != '@')
		return ((socklen_t)sizeof(*un));
	/* An abstract name has no end but the length of the address. */
	un->sun_path[0] = '\0';
	return ((socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n));
}

/* What has no value that takes it back. */
static void
socket_tune_buffers(int fd, const struct settings *set)
{
	if (set->tcp_socket_buffer == 0)
		return;
	socket_set(fd, SOL_SOCKET, SO_SNDBUF, set->tcp_socket_buffer);
	socket_set(fd, SOL_SOCKET, SO_RCVBUF, set->tcp_socket_buffer);
}

static void
socket_tune_more(int fd, const struct settings *set)
{
	if (set->tcp_keepalive) {
		if (set->tcp_keepcnt > 0)
			socket_set(fd, IPPROTO_TCP, TCP_KEEPCNT, set->tcp_keepcnt);
		if (set->tcp_keepidle > 0)
			socket_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, set->tcp_keepidle);
		if (set->tcp_keepintvl > 0)
			socket_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, set->tcp_keepintvl);
	}
	if (set->tcp_user_timeout > 0)
		socket_set(
		    fd, IPPROTO_TCP, TCP_USER_TIMEOUT, set->tcp_user_timeout / 1000);
	socket_tune_buffers(fd, set);
}

void
socket_tune(int fd, bool is_unix, const struct settings *set)
{
	if (is_unix)
		return;
	socket_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	socket_set(fd, SOL_SOCKET, SO_KEEPALIVE, set->tcp_keepalive);
	socket_tune_more(fd, set);
}

static bool listeners_keep_alive;

void
socket_tune_listener(int fd, bool is_unix, const struct settings *set)
{
	if (is_unix)
		return;
	socket_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	socket_set(fd, SOL_SOCKET, SO_KEEPALIVE, set->tcp_keepalive);
	socket_tune_buffers(fd, set);
	listeners_keep_alive = set->tcp_keepalive;
}

void
socket_tune_accepted(int fd, bool is_unix, const struct settings *set)
{
	if (is_unix)
		return;
	if (listeners_keep_alive != set->tcp_keepalive)
		socket_set(fd, SOL_SOCKET, SO_KEEPALIVE, set->tcp_keepalive);
	socket_tune_more(fd, set);
}
