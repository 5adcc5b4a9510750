/*
 * CREATE, ALTER and DROP DATABASE: the server refuses them while anybody is connected to the
 * database, and idle links of this process are nobody. Before the statement is sent they are
 * closed in every worker, and kept from being opened again until it is over. Links in use stay:
 * then it is the server that refuses. A server looks for connections in the first seconds of
 * such a statement, and keeps others out itself from then on: a fence does not stay longer, for a
 * client may leave its statement unfinished.
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>

#define FENCE_US 10000000

struct fence {
	struct session *s; /* NULL: it has left before the fence was up */
	struct worker *home;
	char *site;
	int64_t up_us;
	bool is_up;
};

static void
fence_free(struct fence *f)
{
	free(f->site);
	free(f);
}

/* Health has its own connections. */
static void
fence_health(const struct fence *f, bool is_up)
{
	const struct topo *topo = pool_worker(f->home)->topo;

	for (size_t i = 0; i < topo_database_count(topo); i++) {
		const struct topo_database *db = topo_database(topo, i);
		char *site =
		    mem_printf("%s:%u/%s", db->host_count > 0 ? db->hosts[0].host : "",
			db->host_count > 0 ? db->hosts[0].port : 0,
			db->dbname != NULL ? db->dbname : db->name);

		if (db->verdict != NULL && strcmp(site, f->site) == 0) {
			if (is_up)
				atomic_fetch_add(&db->verdict->apart, 1);
			else if (atomic_load(&db->verdict->apart) > 0)
				atomic_fetch_sub(&db->verdict->apart, 1);
		}
		free(site);
	}
}

static void
visit_raise(struct worker *w, void *arg)
{
	struct fence *f = arg;

	pool_fence_raise(w, f->site);
	hub_close_unused(w, f->site);
}

static void
visit_drop(struct worker *w, void *arg)
{
	const struct fence *f = arg;

	pool_fence_drop(w, f->site);
}

static void
fence_down(struct worker *w, void *arg)
{
	(void)w;
	fence_free(arg);
}

static void
fence_drop(struct fence *f)
{
	fence_health(f, false);
	net_visit(f->home, visit_drop, fence_down, f);
}

static void
fence_up(struct worker *w, void *arg)
{
	struct fence *f = arg;

	(void)w;
	f->is_up = true;
	f->up_us = clock_us();
	if (f->s == NULL)
		fence_drop(f);
	else {
		session_own_over(f->s);
		session_flow(f->s);
	}
}

void
fence_leave(struct session *s)
{
	struct fence *f = s->fence;

	if (f == NULL)
		return;
	s->fence = NULL;
	f->s = NULL;
	if (f->is_up)
		fence_drop(f);
	else
		session_own_over(s);
}

void
fence_tick(struct session *s, int64_t now_us)
{
	if (s->fence->is_up && now_us - s->fence->up_us > FENCE_US)
		fence_leave(s);
}

bool
fence_is_ready(struct up *u, const char *sql, size_t len)
{
	struct session *s = u->s;
	struct link *l = s->link;
	struct fence *f;
	char *name;

	if (s->fence != NULL)
		return (s->fence->is_up);
	/* In a transaction it cannot be; behind something else it is looked at where it stands. */
	if (l->txn != 'I' || l->requests.count > 0 || s->seat->database == NULL)
		return (true);
	name = sql_lone_database(sql, len);
	if (name == NULL)
		return (true);
	f = mem_alloc(sizeof(*f));
	f->s = s;
	f->home = s->worker;
	f->site = pool_site(s->seat, name);
	free(name);
	s->fence = f;
	s->waits_own++;
	fence_health(f, true);
	net_visit(s->worker, visit_raise, fence_up, f);
	session_flow(s);
	return (false);
}
