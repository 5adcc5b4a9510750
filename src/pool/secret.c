/*
 * Secrets that clients have shown. A login of which only a SCRAM verifier is known (a line of
 * auth_file, the answer of auth_query) can be passed on to a server that has the same verifier:
 * the proof of a client gives the key that our own proof is made with.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

struct pool_secret {
	_Atomic unsigned refs;
	char *of, *secret;
	bool has_keys;
	struct auth_keys keys;
};

struct pool_secret *
pool_secret_create(const char *of, const char *secret, const struct auth_keys *keys)
{
	struct pool_secret *p = mem_alloc(sizeof(*p));

	p->refs = 1;
	p->of = mem_str(of);
	p->secret = mem_str(secret);
	p->has_keys = keys != NULL;
	if (keys != NULL)
		p->keys = *keys;
	return (p);
}

struct pool_secret *
pool_secret_hold(struct pool_secret *p)
{
	atomic_fetch_add(&p->refs, 1);
	return (p);
}

void
pool_secret_release(struct pool_secret *p)
{
	if (p == NULL || atomic_fetch_sub(&p->refs, 1) > 1)
		return;
	mem_free_secret(p->of, strlen(p->of));
	mem_free_secret(p->secret, strlen(p->secret));
	mem_free_secret(p, sizeof(*p));
}

static bool
is_same(const struct pool_secret *a, const struct pool_secret *b)
{
	return (a != NULL && strcmp(a->of, b->of) == 0 &&
		strcmp(a->secret, b->secret) == 0 && a->has_keys == b->has_keys &&
		memcmp(&a->keys, &b->keys, sizeof(a->keys)) == 0);
}

void
pool_show(struct seat *seat, struct pool_secret *shown)
{
	struct pool *pool = seat->pool;
	struct pool_secret *was = NULL;

	/* Of a secret that is not the pool's (any more) it would only drive out what is. */
	if (seat->secret != NULL && strcmp(seat->secret, shown->of) != 0)
		return;
	pthread_mutex_lock(&pool->lock);
	if (!is_same(pool->shown, shown)) {
		was = pool->shown;
		pool->shown = pool_secret_hold(shown);
		/* What the old one could not open the new one may. */
		atomic_store(&pool->failed_us, 0);
	}
	pthread_mutex_unlock(&pool->lock);
	pool_secret_release(was);
}

struct pool_secret *
pool_choose_secret(struct seat *seat, struct link_target *target)
{
	struct pool *pool = seat->pool;
	struct pool_secret *shown = NULL;

	target->secret = seat->secret;
	pthread_mutex_lock(&pool->lock);
	if (pool->shown != NULL &&
	    (seat->secret == NULL || strcmp(seat->secret, pool->shown->of) == 0))
		shown = pool_secret_hold(pool->shown);
	pthread_mutex_unlock(&pool->lock);
	if (shown != NULL) {
		target->secret = shown->secret;
		target->keys = shown->has_keys ? &shown->keys : NULL;
	}
	return (shown);
}
