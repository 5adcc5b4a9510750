/*
 * Names to addresses, without blocking: literal addresses and what is known of a name at once,
 * the rest by libevent's resolver (/etc/hosts, and the name servers of /etc/resolv.conf or of
 * the setting resolv_conf). Threads that do not wait in libevent have the main thread ask.
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
	char *resolv_conf;
	struct evdns_getaddrinfo_request *request; /* or the main thread asks */
	struct worker *worker;
	bool is_starting, is_done, is_cancelled, is_away;
	/* Where it is the main thread that asks: */
	struct mail mail;
	struct resolved found;
	int err;
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
resolve_learn(struct resolve *r)
{
	const char *why = r->err != 0 ? evutil_gai_strerror(r->err) : "no address";

	name_learn(
	    r->host, r->found.count > 0 ? &r->found : NULL, why, &r->ttl, clock_us());
}

/* What has just been learned may be too old at once (a ttl of 0): it is told as it came. */
static void
resolve_tell(struct resolve *r)
{
	if (resolve_known(r->host, r->port, r->done, r->arg))
		return;
	resolved_set_port(&r->found, r->port);
	if (r->found.count > 0)
		r->done(r->arg, &r->found, NULL);
	else
		r->done(r->arg, NULL,
		    r->err != 0 ? evutil_gai_strerror(r->err) : "no address");
}

static void
resolve_free(struct resolve *r)
{
	free(r->resolv_conf);
	free(r->host);
	free(r);
}

/* In the thread that asked, as the next ones but for resolve_answer(). */
static void
resolve_end(struct resolve *r)
{
	/* Who is not told any more still holds it, and cancels it when he goes. */
	bool is_kept = r->worker->is_stopping && !r->is_cancelled && r->arg != NULL;

	r->is_done = true;
	atomic_fetch_sub(&asked_for, 1);
	if (!r->is_cancelled && !r->worker->is_stopping)
		resolve_tell(r);
	if (!r->is_starting && !is_kept)
		resolve_free(r);
}

/* The answer comes too late; who asked may still cancel it. */
static void
resolve_drop(struct resolve *r)
{
	r->is_done = true;
	atomic_fetch_sub(&asked_for, 1);
	if (r->is_cancelled)
		resolve_free(r);
}

static void
resolve_back(struct worker *w, struct mail *m)
{
	struct resolve *r = CONTAINER_OF(m, struct resolve, mail);

	if (w->is_stopping)
		resolve_drop(r);
	else
		resolve_end(r);
}

static void
resolve_answer(int err, struct evutil_addrinfo *list, void *arg)
{
	struct resolve *r = arg;

	r->err = err;
	for (const struct evutil_addrinfo *ai = list; ai != NULL && err == 0;
	     ai = ai->ai_next)
		resolved_add(&r->found, ai->ai_addr, (socklen_t)ai->ai_addrlen);
	resolved_set_port(&r->found, 0);
	if (list != NULL)
		evutil_freeaddrinfo(list);
	if (err != EVUTIL_EAI_CANCEL)
		resolve_learn(r);
	if (!r->is_away)
		resolve_end(r);
	else if (net_is_running()) {
		r->mail.run = resolve_back;
		worker_post(r->worker, &r->mail);
	} else
		/* The resolver ends, behind everybody who might have asked. */
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

static void
resolve_ask(struct worker *w, struct resolve *r)
{
	struct evutil_addrinfo hints = {
	    .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	bool is_away = r->is_away;
	struct evdns_getaddrinfo_request *request = evdns_getaddrinfo(
	    dns_of(w, r->resolv_conf), r->host, NULL, &hints, resolve_answer, r);

	/* One that is away may have been answered, and freed. */
	if (!is_away)
		r->request = request;
}

static void
resolve_away(struct worker *w, struct mail *m)
{
	struct resolve *r = CONTAINER_OF(m, struct resolve, mail);

	if (net_is_running())
		resolve_ask(w, r);
	else
		resolve_drop(r);
}

struct resolve *
resolve_start(struct worker *w, const struct settings *set, const char *host,
    uint16_t port, resolve_done *done, void *arg)
{
	struct resolve *r;

	if (resolve_literal(host, port, done, arg) ||
	    resolve_known(host, port, done, arg))
		return (NULL);
	r = mem_alloc(sizeof(*r));
	*r = (struct resolve){.done = done,
	    .arg = arg,
	    .host = mem_str(host),
	    .resolv_conf = mem_str(set->resolv_conf),
	    .port = port,
	    .worker = w,
	    .ttl = {.dns_max_ttl = set->dns_max_ttl,
		.dns_nxdomain_ttl = set->dns_nxdomain_ttl,
		.dns_zone_check_period = set->dns_zone_check_period},
	    .is_starting = w->base != NULL,
	    .is_away = w->base == NULL};
	atomic_fetch_add(&asked_for, 1);
	if (r->is_away) {
		r->mail.run = resolve_away;
		worker_post(net_main(), &r->mail);
		return (r);
	}
	resolve_ask(w, r);
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
	if (r->is_done)
		resolve_free(r);
	else if (!r->is_away)
		evdns_getaddrinfo_cancel(r->request);
}
