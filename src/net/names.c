/*
 * Host names and what was last found for them: one table for the process, kept until its end
 * (names come from the configuration). Only who opens a connection looks here.
 *
 *   learned ---- dns_max_ttl ----> too old: asked for again, the old addresses stay until
 *                                  there are others, or when the name server says nothing
 *   failed  -- dns_nxdomain_ttl -> asked for again
 *
 * An address that a name has lost counts the generation up: links to it are then to be closed.
 */
#include "names.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct name {
	struct table_node node;
	char *host;
	struct resolved found;
	unsigned turn; /* the address that is next */
	int64_t learned_us, expires_us;
	char *error; /* of the last look-up; NULL: it was fine */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table names;
static _Atomic uint64_t generation = 1;

static bool
name_same(const struct table_node *n, const void *key)
{
	return (strcmp(CONTAINER_OF(n, const struct name, node)->host, key) == 0);
}

/* Under the lock. */
static struct name *
name_get(const char *host)
{
	struct table_node *n =
	    table_find(&names, hash_bytes(host, strlen(host)), name_same, host);

	return (n != NULL ? CONTAINER_OF(n, struct name, node) : NULL);
}

static bool
address_same(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return (false);
	if (a->sa_family == AF_INET)
		return (memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
			    &((const struct sockaddr_in *)(const void *)b)->sin_addr,
			    sizeof(struct in_addr)) == 0);
	return (a->sa_family == AF_INET6 &&
		memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
		    &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
		    sizeof(struct in6_addr)) == 0);
}

static bool
resolved_has(const struct resolved *r, const struct sockaddr *sa)
{
	for (unsigned i = 0; i < r->count; i++)
		if (address_same((const struct sockaddr *)&r->at[i].sa, sa))
			return (true);
	return (false);
}

int
name_find(const char *host, int64_t now, struct resolved *out, char *why, size_t why_len)
{
	struct name *n;
	int found = 0;

	pthread_mutex_lock(&lock);
	n = name_get(host);
	if (n != NULL && now < n->expires_us) {
		found = n->found.count > 0 ? 1 : -1;
		out->count = n->found.count;
		for (unsigned i = 0; i < out->count; i++)
			out->at[i] = n->found.at[(n->turn + i) % out->count];
		n->turn++;
		if (found < 0)
			(void)text_copy(why, why_len, n->error);
	}
	pthread_mutex_unlock(&lock);
	return (found);
}

static bool
has_lost(const struct resolved *was, const struct resolved *is)
{
	for (unsigned i = 0; i < was->count; i++)
		if (!resolved_has(is, (const struct sockaddr *)&was->at[i].sa))
			return (true);
	return (false);
}

void
name_learn(const char *host, const struct resolved *found, const char *err,
    const struct settings *set, int64_t now)
{
	int64_t ttl = found != NULL ? set->dns_max_ttl : set->dns_nxdomain_ttl;
	struct name *n;

	if (found != NULL && set->dns_zone_check_period > 0 &&
	    set->dns_zone_check_period < ttl)
		ttl = set->dns_zone_check_period;
	pthread_mutex_lock(&lock);
	n = name_get(host);
	if (n == NULL) {
		n = mem_alloc(sizeof(*n));
		n->host = mem_str(host);
		table_add(&names, &n->node, hash_bytes(host, strlen(host)));
	}
	if (found != NULL) {
		if (has_lost(&n->found, found)) {
			log_info("the addresses of \"%s\" have changed", host);
			atomic_fetch_add(&generation, 1);
		}
		n->found = *found;
	} else
		log_warning("DNS lookup failed: %s: %s", host, err);
	free(n->error);
	n->error = found == NULL ? mem_str(err) : NULL;
	n->learned_us = now;
	n->expires_us = now + ttl;
	pthread_mutex_unlock(&lock);
}

uint64_t
net_names_generation(void)
{
	return (atomic_load(&generation));
}

bool
net_names_lost(const char *host, const struct sockaddr *sa)
{
	const struct name *n;
	bool lost;

	pthread_mutex_lock(&lock);
	n = name_get(host);
	lost = n != NULL && n->found.count > 0 && !resolved_has(&n->found, sa);
	pthread_mutex_unlock(&lock);
	return (lost);
}

void
net_names_each(void (*each)(void *arg, const struct name_view *), void *arg)
{
	int64_t now = clock_us();
	struct table_node *node;

	pthread_mutex_lock(&lock);
	for (node = table_first(&names); node != NULL; node = table_next(&names, node)) {
		const struct name *n = CONTAINER_OF(node, const struct name, node);
		struct name_view view = {.host = n->host,
		    .found = &n->found,
		    .ttl_us = n->expires_us > now ? n->expires_us - now : 0};

		each(arg, &view);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- dns_zone_check_period ---- */

static void
names_asked(void *arg, const struct resolved *found, const char *err)
{
	(void)arg;
	(void)found;
	(void)err;
}

/* One name that was learned longer ago than that, or NULL. */
static char *
name_older(int64_t than_us)
{
	struct table_node *node;
	char *host = NULL;

	pthread_mutex_lock(&lock);
	for (node = table_first(&names); node != NULL; node = table_next(&names, node)) {
		struct name *n = CONTAINER_OF(node, struct name, node);

		if (host == NULL && n->learned_us < than_us) {
			host = mem_str(n->host);
			n->learned_us = n->expires_us = clock_us();
		}
	}
	pthread_mutex_unlock(&lock);
	return (host);
}

void
net_names_check(struct worker *w, const struct settings *set, int64_t now)
{
	char *host;

	if (set->dns_zone_check_period <= 0)
		return;
	while ((host = name_older(now - set->dns_zone_check_period)) != NULL) {
		(void)resolve_start(w, set, host, 0, names_asked, NULL);
		free(host);
	}
}

void
net_names_free(void)
{
	struct table_node *node, *next;

	for (node = table_first(&names); node != NULL; node = next) {
		struct name *n = CONTAINER_OF(node, struct name, node);

		next = table_next(&names, node);
		table_remove(&names, node);
		free(n->host);
		free(n->error);
		free(n);
	}
	table_free(&names);
}
