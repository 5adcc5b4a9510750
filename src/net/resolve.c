/*
 * Names to addresses, without blocking: literal addresses and what is known of a name at once,
 * the rest by libevent's resolver (/etc/hosts, and the name servers of /etc/resolv.conf or of
 * the setting resolv_conf).
 */
#include "names.h"
#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HOSTS_FILE "/etc/hosts"

struct resolve {
	resolve_done *done;
	void *arg;
	char *host;
	uint16_t port;
	struct settings ttl; /* dns_… alone are looked at; strings are not */
	struct evdns_getaddrinfo_request *request;
	struct worker *worker;
	bool is_starting, is_done, is_cancelled;
};

static _Atomic unsigned asked_for;

unsigned
net_names_asked_for(void)
{
	return (asked_for);
}

static void
resolved_add(struct resolved *r, const struct sockaddr *sa, socklen_t len)
{
	if (r->count == RESOLVED_MAX || len > sizeof(r->at[0].sa))
		return;
	memcpy(&r->at[r->count].sa, sa, len);
	r->at[r->count++].len = len;
}

static void
resolved_set_port(struct resolved *r, uint16_t port)
{
	for (unsigned i = 0; i < r->count; i++) {
		struct sockaddr_storage *sa = &r->at[i].sa;

		if (sa->ss_family == AF_INET)
			((struct sockaddr_in *)(void *)sa)->sin_port = htons(port);
		else
			((struct sockaddr_in6 *)(void *)sa)->sin6_port = htons(port);
	}
}

/* From what is known; false: it must be asked for. */
static bool
resolve_known(const char *host, uint16_t port, resolve_done *done, void *arg)
{
	struct resolved found;
	char why[256];
	int known = name_find(host, clock_us(), &found, why, sizeof(why));

	if (known == 0)
		return (false);
	resolved_set_port(&found, port);
	done(arg, known > 0 ? &found : NULL, known > 0 ? NULL : why);
	return (true);
}

static void
resolve_learn(struct resolve *r, int err, const struct evutil_addrinfo *list)
{
	const char *why = err != 0 ? evutil_gai_strerror(err) : "no address";
	struct resolved found = {0};

	for (const struct evutil_addrinfo *ai = list; ai != NULL && err == 0;
	     ai = ai->ai_next)
		resolved_add(&found, ai->ai_addr, (socklen_t)ai->ai_addrlen);
	resolved_set_port(&found, 0);
	name_learn(r->host, found.count > 0 ? &found : NULL, why, &r->ttl, clock_us());
}

/* What has just been learned may be too old at once (a ttl of 0): it is told as it came. */
static void
resolve_tell(struct resolve *r, int err, const struct evutil_addrinfo *list)
{
	struct resolved found = {0};

	if (resolve_known(r->host, r->port, r->done, r->arg))
		return;
	for (; list != NULL && err == 0; list = list->ai_next)
		resolved_add(&found, list->ai_addr, (socklen_t)list->ai_addrlen);
	resolved_set_port(&found, r->port);
	if (found.count > 0)
		r->done(r->arg, &found, NULL);
	else
		r->done(r->arg, NULL, err != 0 ? evutil_gai_strerror(err) : "no address");
}

static void
resolve_free(struct resolve *r)
{
	free(r->host);
	free(r);
}

static void
resolve_answer(int err, struct evutil_addrinfo *list, void *arg)
{
	struct resolve *r = arg;

	r->is_done = true;
	asked_for--;
	if (r->worker->is_stopping)
		r->is_cancelled = true;
	else if (err != EVUTIL_EAI_CANCEL)
		resolve_learn(r, err, list);
	if (!r->is_cancelled)
		resolve_tell(r, err, list);
	if (list != NULL)
		evutil_freeaddrinfo(list);
	if (!r->is_starting)
		resolve_free(r);
}

/* A literal address; true when it was one. */
static bool
resolve_literal(const char *host, uint16_t port, resolve_done *done, void *arg)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_un un;
	struct resolved found = {0};

	if (host[0] == '/' || host[0] == '@') {
		socklen_t len = addr_unix(&un, host, port);

		if (len == 0) {
			done(arg, NULL, "the path of the unix socket is too long");
			return (true);
		}
		resolved_add(&found, (struct sockaddr *)&un, len);
	} else if (inet_pton(AF_INET, host, &in.sin_addr) == 1)
		resolved_add(&found, (struct sockaddr *)&in, sizeof(in));
	else if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1)
		resolved_add(&found, (struct sockaddr *)&in6, sizeof(in6));
	else
		return (false);
	done(arg, &found, NULL);
	return (true);
}

static struct evdns_base *
dns_create(struct worker *w, const char *resolv_conf)
{
	struct evdns_base *dns = NULL;

	if (resolv_conf[0] == '\0')
		dns = evdns_base_new(w->base,
		    EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	if (dns != NULL)
		return (dns);
	/* No name server is configured; /etc/hosts may still know the name. */
	dns = evdns_base_new(w->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	INVARIANT(dns != NULL);
	if (resolv_conf[0] != '\0' &&
	    evdns_base_resolv_conf_parse(dns, DNS_OPTIONS_ALL, resolv_conf) != 0)
		log_warning("resolv_conf: \"%s\" names no name server", resolv_conf);
	return (dns);
}

/* The resolver of this worker, with /etc/hosts as it is now. */
static struct evdns_base *
dns_of(struct worker *w, const char *resolv_conf)
{
	struct stat st;
	int64_t mtime;

	if (w->dns == NULL)
		w->dns = dns_create(w, resolv_conf);
	if (stat(HOSTS_FILE, &st) != 0)
		return (w->dns);
	mtime = (int64_t)st.st_mtim.tv_sec * 1000000 + (int64_t)st.st_mtim.tv_nsec / 1000;
	if (mtime != w->hosts_mtime) {
		evdns_base_clear_host_addresses(w->dns);
		(void)evdns_base_load_hosts(w->dns, HOSTS_FILE);
		w->hosts_mtime = mtime;
	}
	return (w->dns);
}

struct resolve *
resolve_start(struct worker *w, const struct settings *set, const char *host,
    uint16_t port, resolve_done *done, void *arg)
{
	struct evutil_addrinfo hints = {
	    .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	struct resolve *r;

	if (resolve_literal(host, port, done, arg) ||
	    resolve_known(host, port, done, arg))
		return (NULL);
	r = mem_alloc(sizeof(*r));
	*r = (struct resolve){.done = done,
	    .arg = arg,
	    .host = mem_str(host),
	    .port = port,
	    .worker = w,
	    .ttl = {.dns_max_ttl = set->dns_max_ttl,
		.dns_nxdomain_ttl = set->dns_nxdomain_ttl,
		.dns_zone_check_period = set->dns_zone_check_period},
	    .is_starting = true};
	asked_for++;
	r->request = evdns_getaddrinfo(
	    dns_of(w, set->resolv_conf), host, NULL, &hints, resolve_answer, r);
	r->is_starting = false;
	if (r->is_done) {
		resolve_free(r);
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
