/* What the workers have, summed by database and user: they are visited one after the other. */
#include "private.h"
#include <stdlib.h>
#include <string.h>

struct tether *
tether_create(struct job *job)
{
	struct tether *t = mem_alloc(sizeof(*t));

	INVARIANT(job->tether == NULL);
	t->job = job;
	job->tether = t;
	return (t);
}

struct job *
tether_end(struct tether *t)
{
	struct job *job = t->job;

	if (job != NULL)
		job->tether = NULL;
	free(t);
	return (job);
}

/* ---- visits ---- */

struct sums {
	struct tether *tether;
	void (*done)(struct job *, const struct collection *);
	struct collection all;
	size_t cap;
};

static struct pool_sum *
sum_of(struct sums *s, const char *database, const char *user)
{
	struct collection *all = &s->all;

	for (size_t i = 0; i < all->pool_count; i++)
		if (strcmp(all->pools[i].database, database) == 0 &&
		    strcmp(all->pools[i].user, user) == 0)
			return (&all->pools[i]);
	if (all->pool_count == s->cap) {
		s->cap = s->cap != 0 ? 2 * s->cap : 16;
		all->pools = mem_realloc(all->pools, s->cap * sizeof(*all->pools));
	}
	all->pools[all->pool_count] =
	    (struct pool_sum){.database = mem_str(database), .user = mem_str(user)};
	return (&all->pools[all->pool_count++]);
}

static void
sums_visit(struct worker *w, void *arg)
{
	const struct session_worker *sw = session_worker(w);
	struct sums *s = arg;
	const struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		struct pool_sum *sum = sum_of(s, seat->pool->database, seat->pool->role);

		metrics_add(&sum->metrics, &seat->metrics);
		sum->links += seat->link_count;
		sum->idle += seat->idle_count;
		sum->opening += seat->opening;
		sum->waiting += seat->waiting + seat->own_waiting;
		sum->clients += seat->clients;
	}
	for (unsigned i = 0; i < SESSION_STATES; i++)
		s->all.clients[i] += sw->count[i];
}

static int
pool_order(const void *a, const void *b)
{
	const struct pool_sum *x = a, *y = b;
	int order = strcmp(x->database, y->database);

	return (order != 0 ? order : strcmp(x->user, y->user));
}

static void
sums_done(struct worker *w, void *arg)
{
	struct sums *s = arg;
	struct job *job = tether_end(s->tether);

	(void)w;
	if (s->all.pool_count > 0)
		qsort(s->all.pools, s->all.pool_count, sizeof(*s->all.pools), pool_order);
	if (job != NULL)
		s->done(job, &s->all);
	for (size_t i = 0; i < s->all.pool_count; i++) {
		free(s->all.pools[i].database);
		free(s->all.pools[i].user);
	}
	free(s->all.pools);
	free(s);
}

void
collect_pools(struct job *job, void (*done)(struct job *, const struct collection *))
{
	struct sums *s = mem_alloc(sizeof(*s));

	s->tether = tether_create(job);
	s->done = done;
	net_visit(job->http->worker, sums_visit, sums_done, s);
}
