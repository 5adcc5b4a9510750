/*
 * Accepted sockets are dealt to the worker with the fewest clients: left to the kernel, a
 * few clients would often crowd on one worker while links idle on another.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SURPLUS 64 /* over max_client_conn: they get as far as an error that says so */

static _Atomic bool doors_closed;
static unsigned hard_max; /* clients for which there are file descriptors */

struct deal {
	struct mail mail;
	int fd;
	bool is_surplus;
	struct sockaddr_storage addr;
};

void
session_close_doors(void)
{
	doors_closed = true;
}

bool
session_doors_closed(void)
{
	return (doors_closed);
}

unsigned
session_total(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < net_worker_count(); i++)
		n += atomic_load(&net_worker(i)->clients);
	return (n);
}

void
session_set_hard_max(unsigned max)
{
	hard_max = max;
}

static void
deal_arrived(struct worker *w, struct mail *m)
{
	struct deal *d = CONTAINER_OF(m, struct deal, mail);

	session_open(w, d->fd, (struct sockaddr *)&d->addr, d->is_surplus);
	free(d);
}

/* No session is made of it: the error is all that it gets. */
static void
accept_refuse(int fd)
{
	struct buf out = {0};

	stat_count(M_clients_refused, 1);
	proto_fault(&out, "FATAL", F_TOO_MANY_CLIENTS, NULL);
	(void)!send(fd, out.mem, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	buf_free(&out);
	close(fd);
}

static struct worker *
fewest_clients(void)
{
	struct worker *fewest = net_worker(0);

	for (unsigned i = 1; i < net_worker_count(); i++)
		if (atomic_load(&net_worker(i)->clients) < atomic_load(&fewest->clients))
			fewest = net_worker(i);
	return (fewest);
}

void
session_accept(struct worker *at, int fd, const struct sockaddr *sa, socklen_t len)
{
	const struct settings *set = pool_settings(at);
	struct worker *fewest;
	unsigned clients = session_total();
	struct deal *d;

	if (clients >= hard_max || clients >= (uint64_t)set->max_client_conn + SURPLUS) {
		accept_refuse(fd);
		return;
	}
	fewest = fewest_clients();
	socket_tune_accepted(fd, sa->sa_family == AF_UNIX, set);
	stat_count(M_clients_accepted, 1);
	if (fewest == at) {
		atomic_fetch_add(&at->clients, 1);
		session_open(at, fd, sa, clients >= (uint64_t)set->max_client_conn);
		return;
	}
	d = mem_alloc(sizeof(*d));
	d->mail.run = deal_arrived;
	d->fd = fd;
	d->is_surplus = clients >= (uint64_t)set->max_client_conn;
	memcpy(&d->addr, sa, len);
	atomic_fetch_add(&fewest->clients, 1);
	worker_post(fewest, &d->mail);
}

/* ---- clients inside the process ---- */

struct inner {
	struct mail mail;
	int fd;
	struct addr peer;
	struct buf startup;
};

static void
inner_arrived(struct worker *w, struct mail *m)
{
	struct inner *in = CONTAINER_OF(m, struct inner, mail);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	bool is_surplus = session_total() > (uint64_t)pool_settings(w)->max_client_conn;

	session_open_proven(
	    w, in->fd, is_surplus, (struct sockaddr *)&sa, &in->peer, &in->startup);
	buf_free(&in->startup);
	free(in);
}

int
session_open_inner(const char *login, const char *database, const struct addr *peer)
{
	static const char *const params[][2] = {{"application_name", "pgweave http"}};
	struct proto_startup head = {.major = 3, .user = login, .database = database};
	struct worker *fewest = fewest_clients();
	struct inner *in;
	int fds[2];

	if (session_total() >= hard_max ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
		return (-1);
	stat_count(M_clients_accepted, 1);
	in = mem_alloc(sizeof(*in));
	in->mail.run = inner_arrived;
	in->fd = fds[1];
	in->peer = *peer;
	proto_startup(&in->startup, &head, params, ARRAY_LEN(params));
	atomic_fetch_add(&fewest->clients, 1);
	worker_post(fewest, &in->mail);
	return (fds[0]);
}
