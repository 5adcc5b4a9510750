/*
 * What is shared by all workers: pools by (database, role), and the names of databases and
 * users with their counts. A lock guards the tables; it is taken at logins and reloads, never
 * on the path of a query.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table pools, databases, users;

struct pair {
	const char *a, *b;
};

static bool
pool_same(const struct table_node *n, const void *key)
{
	const struct pool *p = CONTAINER_OF(n, const struct pool, node);
	const struct pair *k = key;

	return (strcmp(p->database, k->a) == 0 && strcmp(p->role, k->b) == 0);
}

static bool
place_same(const struct table_node *n, const void *key)
{
	return (strcmp(CONTAINER_OF(n, const struct pool_place, node)->name, key) == 0);
}

static struct pool_place *
place_find(struct table *t, const char *name)
{
	uint64_t hash = hash_bytes(name, strlen(name));
	struct table_node *n = table_find(t, hash, place_same, name);
	struct pool_place *p;

	if (n != NULL) {
		p = CONTAINER_OF(n, struct pool_place, node);
		p->refs++;
		return (p);
	}
	p = mem_alloc(sizeof(*p));
	p->name = mem_str(name);
	p->refs = 1;
	table_add(t, &p->node, hash);
	return (p);
}

/* An operator's word about a database holds although nobody uses it at the moment. */
static void
place_drop(struct table *t, struct pool_place *p)
{
	INVARIANT(p->refs > 0);
	if (--p->refs > 0 || p->is_paused || p->is_disabled || p->reconnect > 0)
		return;
	table_remove(t, &p->node);
	free(p->name);
	free(p);
}

/* A place belongs to one of two tables; the node tells which. */
static struct table *
place_table(const struct pool_place *p)
{
	struct table_node *n = table_find(&databases, p->node.hash, place_same, p->name);

	return (n == &p->node ? &databases : &users);
}

struct pool_place *
pool_database(const char *name)
{
	struct pool_place *p;

	pthread_mutex_lock(&lock);
	p = place_find(&databases, name);
	pthread_mutex_unlock(&lock);
	return (p);
}

struct pool_place *
pool_user(const char *name)
{
	struct pool_place *p;

	pthread_mutex_lock(&lock);
	p = place_find(&users, name);
	pthread_mutex_unlock(&lock);
	return (p);
}

void
pool_place_release(struct pool_place *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&lock);
	place_drop(place_table(p), p);
	pthread_mutex_unlock(&lock);
}

static void
place_each(struct table *t, void (*each)(void *, struct pool_place *), void *arg)
{
	pthread_mutex_lock(&lock);
	for (struct table_node *n = table_first(t); n != NULL; n = table_next(t, n))
		each(arg, CONTAINER_OF(n, struct pool_place, node));
	pthread_mutex_unlock(&lock);
}

void
pool_each_database(void (*each)(void *, struct pool_place *), void *arg)
{
	place_each(&databases, each, arg);
}

void
pool_each_user(void (*each)(void *, struct pool_place *), void *arg)
{
	place_each(&users, each, arg);
}

static void
pool_create(const struct pair *key, const char *login, uint64_t hash, struct pool **out)
{
	unsigned workers = net_worker_count();
	size_t size = sizeof(struct pool) + workers * sizeof(struct pool_share);
	struct pool *p = aligned_alloc(64, (size + 63) / 64 * 64);

	INVARIANT(p != NULL);
	memset(p, 0, size);
	p->database = mem_str(key->a);
	p->role = mem_str(key->b);
	p->db = place_find(&databases, key->a);
	p->user = place_find(&users, login);
	pthread_mutex_init(&p->lock, NULL);
	for (unsigned i = 0; i < workers; i++)
		p->share[i].pool = p;
	table_add(&pools, &p->node, hash);
	*out = p;
}

struct pool *
pool_find(const char *database, const char *role, const char *login)
{
	struct pair key = {database, role};
	uint64_t hash = hash_pair(database, strlen(database), role, strlen(role)).lo;
	struct table_node *n;
	struct pool *p;

	pthread_mutex_lock(&lock);
	n = table_find(&pools, hash, pool_same, &key);
	if (n != NULL)
		p = CONTAINER_OF(n, struct pool, node);
	else
		pool_create(&key, login, hash, &p);
	p->refs++;
	pthread_mutex_unlock(&lock);
	return (p);
}

void
pool_hold(struct pool *p)
{
	pthread_mutex_lock(&lock);
	INVARIANT(p->refs > 0);
	p->refs++;
	pthread_mutex_unlock(&lock);
}

void
pool_release(struct pool *p)
{
	bool is_last;

	pthread_mutex_lock(&lock);
	INVARIANT(p->refs > 0);
	is_last = --p->refs == 0;
	if (is_last) {
		table_remove(&pools, &p->node);
		place_drop(&databases, p->db);
		place_drop(&users, p->user);
	}
	pthread_mutex_unlock(&lock);
	if (!is_last)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p->welcome);
	pool_secret_release(p->shown);
	free(p->database);
	free(p->role);
	free(p);
}
