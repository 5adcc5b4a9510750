/*
 * Fences around databases of servers: while a statement that nobody may be connected for is
 * under way (DROP DATABASE), idle links are closed and no new ones are opened. Each worker has
 * its own list, so that nothing is shared.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

struct pool_fence {
	TAILQ_ENTRY(pool_fence) entry;
	char *site;
};

char *
pool_site(const struct seat *seat, const char *dbname)
{
	const struct topo_database *db = seat->database;

	if (dbname == NULL)
		dbname = db->dbname != NULL ? db->dbname : seat->pool->database;
	return (mem_printf("%s:%u/%s", db->host_count > 0 ? db->hosts[0].host : "",
	    db->host_count > 0 ? db->hosts[0].port : 0, dbname));
}

static bool
is_at(const struct seat *seat, const char *site)
{
	char *own = seat->database != NULL ? pool_site(seat, NULL) : NULL;
	bool is_it = own != NULL && strcmp(own, site) == 0;

	free(own);
	return (is_it);
}

bool
pool_fence_holds(const struct seat *seat)
{
	const struct pool_fence *f;

	TAILQ_FOREACH(f, &pool_worker(seat->worker)->fences, entry)
		if (is_at(seat, f->site))
			return (true);
	return (false);
}

void
pool_fence_raise(struct worker *w, const char *site)
{
	struct pool_fence *f = mem_alloc(sizeof(*f));
	struct link *l, *next;
	struct seat *seat;

	f->site = mem_str(site);
	TAILQ_INSERT_TAIL(&pool_worker(w)->fences, f, entry);
	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		if (!is_at(seat, site))
			continue;
		for (l = TAILQ_FIRST(&seat->links); l != NULL; l = next) {
			next = TAILQ_NEXT(l, entry);
			if (l->owner == NULL &&
			    (l->state == LINK_IDLE || l->login != NULL))
				link_close(
				    l, "a statement needs the database for itself");
		}
	}
}

void
pool_fence_drop(struct worker *w, const char *site)
{
	struct pool_fence *f;
	struct seat *seat;

	TAILQ_FOREACH(f, &pool_worker(w)->fences, entry)
		if (strcmp(f->site, site) == 0)
			break;
	INVARIANT(f != NULL);
	TAILQ_REMOVE(&pool_worker(w)->fences, f, entry);
	free(f->site);
	free(f);
	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		if (is_at(seat, site) && !pool_is_fenced(seat))
			pool_serve(seat);
}
