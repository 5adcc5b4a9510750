/*
 * CREATE, ALTER and DROP DATABASE: the server refuses them while anybody is connected to the
 * database, and idle links of this process are nobody. Before the statement is sent they are
 * closed in every worker, and kept from being opened again until it is over. Links in use stay:
 * then it is the server that refuses. A server looks for connections in the first seconds of
 * such a statement, and keeps others out itself from then on: a fence does not stay longer, for a
 * client may leave its statement unfinished.
 *
 *   ASKS     the server is asked whether the client may do that at all, or else anybody could
 *            close the links of others as often as he likes
 *   RISES    the workers close their links
 *   UP       the statement may go; `is_void`: without a fence, for it will fail
 *   PASSED   it has gone; the next one waits until this is over
 *
 * Where statements are not prepared under names of the proxy's own (a session pool) what a Bind
 * runs is not looked at: then the Parse raises the fence, for what comes next.
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
	enum { FENCE_ASKS, FENCE_RISES, FENCE_UP, FENCE_PASSED } state;
	bool is_void, stays;
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
	f->state = FENCE_UP;
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
	if (f->state == FENCE_ASKS || f->is_void)
		fence_free(f);
	else if (f->state == FENCE_RISES)
		session_own_over(s);
	else
		fence_drop(f);
}

void
fence_stay(struct session *s)
{
	if (s->fence != NULL)
		s->fence->stays = true;
}

void
fence_rest(struct session *s)
{
	if (!s->fence->stays)
		fence_leave(s);
	else
		s->fence->stays = false;
}

void
fence_tick(struct session *s, int64_t now_us)
{
	if (s->fence->state >= FENCE_UP && !s->fence->is_void &&
	    now_us - s->fence->up_us > FENCE_US)
		fence_leave(s);
}

/* ---- who may ---- */

static void
ask_row(void *arg, const uint8_t *body, size_t len)
{
	struct session *s = arg;

	(void)body;
	(void)len;
	s->fence->is_void = false;
}

static void
asked(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;
	struct fence *f = s->fence;

	(void)l;
	(void)error;
	/* A cancel request meanwhile must not meet a later statement. */
	s->is_refused = false;
	if (f->is_void)
		f->state = FENCE_UP;
	else {
		f->state = FENCE_RISES;
		s->waits_own++;
		fence_health(f, true);
		net_visit(s->worker, visit_raise, fence_up, f);
	}
	session_flow(s);
}

/* Its owner; and who may create databases, of one that is a template for all. */
static void
ask(struct session *s, const char *name, bool is_template)
{
	struct buf sql = {0};

	buf_addstr(&sql, "SELECT 1 FROM pg_catalog.pg_database d, pg_catalog.pg_roles r "
			 "WHERE r.rolname OPERATOR(pg_catalog.=) current_user AND "
			 "d.datname OPERATOR(pg_catalog.=) ");
	vars_sql_literal(&sql, name);
	buf_addstr(&sql, " AND (r.rolsuper OR ");
	if (is_template)
		buf_addstr(&sql, "(r.rolcreatedb AND (d.datistemplate OR ");
	buf_addstr(&sql, "pg_catalog.pg_has_role(d.datdba, 'USAGE')");
	buf_addstr(&sql, is_template ? ")))" : ")");
	buf_add(&sql, "", 1);
	link_run_rows(s->link, (const char *)sql.mem, ask_row, asked, s);
	buf_free(&sql);
}

bool
fence_is_ready(struct up *u, const char *sql, size_t len)
{
	struct session *s = u->s;
	struct link *l = s->link;
	struct fence *f = s->fence;
	bool is_template;
	char *name;

	if (f != NULL && f->state == FENCE_UP)
		f->state = FENCE_PASSED;
	else if (f != NULL && f->state != FENCE_PASSED)
		return (false);
	else if (l->wants_sync || l->is_copying_in ||
		 (l->txn != 'I' && l->requests.count == 0) || s->seat->database == NULL)
		/* In a transaction, and behind others of its batch, it cannot be. */
		return (true);
	else if ((name = sql_lone_database(sql, len, &is_template)) != NULL) {
		s->is_stalled = l->requests.count > 0;
		if (!s->is_stalled) {
			fence_leave(s);
			f = mem_alloc(sizeof(*f));
			f->s = s;
			f->home = s->worker;
			f->site = pool_site(s->seat, name);
			f->is_void = true;
			s->fence = f;
			ask(s, name, is_template);
			session_flow(s);
		}
		free(name);
		return (false);
	}
	return (true);
}
