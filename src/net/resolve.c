/*
 * Names to addresses, without blocking: literal addresses at once, others by libevent's
 * resolver (/etc/hosts and the name servers of /etc/resolv.conf).
 */
#include "net.h"
#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct resolve {
	resolve_done *done;
	void *arg;
	struct evdns_getaddrinfo_request *request;
	bool is_starting, is_done, is_cancelled;
};

static void
resolve_answer(int err, struct evutil_addrinfo *list, void *arg)
{
	struct resolve *r = arg;

	r->is_done = true;
	if (!r->is_cancelled) {
		if (err != 0 || list == NULL)
			r->done(r->arg, NULL, 0,
			    err != 0 ? evutil_gai_strerror(err) : "no address");
		else
			r->done(r->arg, list->ai_addr, (socklen_t)list->ai_addrlen, NULL);
	}
	if (list != NULL)
		evutil_freeaddrinfo(list);
	if (!r->is_starting)
		free(r);
}

/* A literal address; true when it was one. */
static bool
resolve_literal(const char *host, uint16_t port, resolve_done *done, void *arg)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_un un;

	if (host[0] == '/' || host[0] == '@') {
		socklen_t len = addr_unix(&un, host, port);

		if (len == 0)
			done(arg, NULL, 0, "the path of the unix socket is too long");
		else
			done(arg, (struct sockaddr *)&un, len, NULL);
	} else if (inet_pton(AF_INET, host, &in.sin_addr) == 1)
		done(arg, (struct sockaddr *)&in, sizeof(in), NULL);
	else if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1)
		done(arg, (struct sockaddr *)&in6, sizeof(in6), NULL);
	else
		return (false);
	return (true);
}

struct resolve *
resolve_start(
    struct worker *w, const char *host, uint16_t port, resolve_done *done, void *arg)
{
	struct evutil_addrinfo hints = {
	    .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	struct resolve *r;
	char service[8];

	if (resolve_literal(host, port, done, arg))
		return (NULL);
	if (w->dns == NULL)
		w->dns = evdns_base_new(w->base,
		    EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	if (w->dns == NULL) {
		/* No name server is configured; /etc/hosts may still know the name. */
		w->dns = evdns_base_new(w->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
		INVARIANT(w->dns != NULL);
		evdns_base_load_hosts(w->dns, "/etc/hosts");
	}
	r = mem_alloc(sizeof(*r));
	*r = (struct resolve){.done = done, .arg = arg, .is_starting = true};
	snprintf(service, sizeof(service), "%u", port);
	r->request = evdns_getaddrinfo(w->dns, host, service, &hints, resolve_answer, r);
	r->is_starting = false;
	if (r->is_done) {
		free(r);
		return (NULL);
	}
	return (r);
}

void
resolve_cancel(struct resolve *r)
{
	r->is_cancelled = true;
	evdns_getaddrinfo_cancel(r->request);
}
