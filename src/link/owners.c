/*
 * Whose backends are whose: by the address of the server and the number of its process, which
 * client of this process each link serves. Notifications name a backend, and mean the client
 * that had it. The lock is taken when a link opens or closes, and for each notification.
 */
#include "private.h"
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table owners;

struct owner_key {
	const struct link *link;
	uint32_t pid;
};

static uint64_t
owner_hash(const struct link *l, uint32_t pid)
{
	return (hash_pair(&l->peer, l->peer_len, &pid, sizeof(pid)).lo);
}

static bool
owner_same(const struct table_node *n, const void *key)
{
	const struct link *l = CONTAINER_OF(n, const struct link, serves.node);
	const struct owner_key *k = key;

	return (l->pid == k->pid && l->peer_len == k->link->peer_len &&
		memcmp(&l->peer, &k->link->peer, l->peer_len) == 0);
}

void
link_owner_add(struct link *l)
{
	pthread_mutex_lock(&lock);
	table_add(&owners, &l->serves.node, owner_hash(l, l->pid));
	l->serves.is_known = true;
	pthread_mutex_unlock(&lock);
}

void
link_owner_remove(struct link *l)
{
	if (!l->serves.is_known)
		return;
	l->serves.is_known = false;
	pthread_mutex_lock(&lock);
	table_remove(&owners, &l->serves.node);
	if (owners.count == 0)
		table_free(&owners);
	pthread_mutex_unlock(&lock);
}

uint32_t
link_client_of(const struct link *l, uint32_t pid)
{
	struct owner_key key = {.link = l, .pid = pid};
	struct table_node *n;
	uint32_t client = 0;

	pthread_mutex_lock(&lock);
	n = table_find(&owners, owner_hash(l, pid), owner_same, &key);
	if (n != NULL)
		client = atomic_load_explicit(
		    &CONTAINER_OF(n, struct link, serves.node)->serves.client,
		    memory_order_relaxed);
	pthread_mutex_unlock(&lock);
	return (client);
}
