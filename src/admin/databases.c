/*
 * What operators do to databases: PAUSE, RESUME, DISABLE, ENABLE, RECONNECT, WAIT_CLOSE,
 * KILL; and to one client: KILL_CLIENT.
 *
 * The word itself is an atomic of the pool room that all workers see at once; a visit makes
 * each worker act on it now. PAUSE and WAIT_CLOSE then look from time to time whether what
 * they wait for has happened.
 */
#include "private.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One PAUSE was for all databases, also for those that come to be known after it. */
static _Atomic bool all_paused;

bool
admin_is_paused(void)
{
	return (all_paused);
}

/* Takes the database from the arguments; false: it was wrong, and the call is over. doing:
 * for the console's own, "cannot pause admin db". */
static bool
database_arg(struct call *c, bool is_optional, const char *doing)
{
	const struct topo *topo = pool_worker(c->worker)->topo;
	unsigned args = call_arg_count(c);
	const char *name;

	if (args == 0 && is_optional)
		return (true);
	if (args == 0) {
		call_fail(c, CONSOLE_ERROR, "a database is required");
		return (false);
	}
	if (args > 1) {
		call_invalid(c);
		return (false);
	}
	name = call_arg(c, 0);
	if (topo_is_console(name)) {
		call_fail(c, CONSOLE_ERROR, "cannot %s admin db: %s", doing, name);
		return (false);
	}
	if (topo_database_find(topo, name) == NULL) {
		call_fail(c, CONSOLE_ERROR, "no such database: %s", name);
		return (false);
	}
	c->database = mem_str(name);
	return (true);
}

/* ---- what is known of the places ---- */

struct look {
	const char *name; /* NULL: all */
	unsigned paused;
};

static void
look_each(void *arg, struct pool_place *p)
{
	struct look *look = arg;

	if (look->name == NULL || strcmp(look->name, p->name) == 0)
		look->paused += p->is_paused;
}

/* Whether the database is paused; NULL: any. */
static bool
database_is_paused(const char *name)
{
	struct look look = {.name = name};

	pool_each_database(look_each, &look);
	return (look.paused > 0 || (name == NULL && all_paused));
}

/* ---- acting on it in each worker ---- */

static void
apply_visit(struct worker *w, void *arg)
{
	(void)arg;
	pool_apply(w);
	session_apply(w);
}

static void
apply_done(struct worker *w, void *arg)
{
	struct call *c = arg;

	(void)w;
	call_end(c, c->command->verb);
}

/* ---- PAUSE ---- */

/* Every configured database, and those known through the * entry. */
static void
pause_all(const struct topo *topo)
{
	all_paused = true;
	for (size_t i = 0; i < topo_database_count(topo); i++)
		if (!topo_database(topo, i)->is_auto)
			pool_pause(topo_database(topo, i)->name);
	pool_pause(NULL);
}

static void
pause_check(struct call *c)
{
	if (!database_is_paused(c->database))
		call_fail(c, "57014", "RESUME has ended PAUSE");
	else if (pool_links(c->database) == 0)
		call_end(c, "PAUSE");
	else
		call_check_later(c, pause_check);
}

static void
pause_applied(struct worker *w, void *arg)
{
	(void)w;
	pause_check(arg);
}

void
admin_pause(struct call *c)
{
	if (!database_arg(c, true, "pause"))
		return;
	if (all_paused) {
		call_fail(c, CONSOLE_ERROR, "already suspended/paused");
		return;
	}
	if (c->database != NULL)
		pool_pause(c->database);
	else
		pause_all(pool_worker(c->worker)->topo);
	call_visit(c, apply_visit, pause_applied);
}

static void
resume_all(void)
{
	all_paused = false;
	pool_resume(NULL);
}

void
admin_resume(struct call *c)
{
	if (!database_arg(c, true, "resume"))
		return;
	if (c->database == NULL && session_doors_closed()) {
		call_fail(c, CONSOLE_ERROR, "pooler is shutting down");
		return;
	}
	if (!database_is_paused(c->database)) {
		if (c->database != NULL && operate_lift(c, c->database))
			call_visit(c, apply_visit, apply_done);
		else if (c->database == NULL)
			call_fail(c, CONSOLE_ERROR, "pooler is not paused/suspended");
		else
			call_fail(
			    c, CONSOLE_ERROR, "database %s is not paused", c->database);
		return;
	}
	if (c->database != NULL)
		pool_resume(c->database);
	else
		resume_all();
	call_visit(c, apply_visit, apply_done);
}

static void
signal_done(struct worker *w, void *arg)
{
	(void)w;
	(void)arg;
}

bool
admin_pause_all(struct worker *main)
{
	if (all_paused)
		return (false);
	pause_all(pool_worker(main)->topo);
	net_visit(main, apply_visit, signal_done, NULL);
	return (true);
}

bool
admin_resume_all(struct worker *main)
{
	if (!database_is_paused(NULL))
		return (false);
	resume_all();
	net_visit(main, apply_visit, signal_done, NULL);
	return (true);
}

/* ---- DISABLE, ENABLE, RECONNECT ---- */

static void
set_disabled(struct call *c, bool is_disabled)
{
	struct pool_place *p = pool_database(c->database);

	p->is_disabled = is_disabled;
	pool_place_release(p);
	call_end(c, c->command->verb);
}

void
admin_disable(struct call *c)
{
	if (database_arg(c, false, "disable"))
		set_disabled(c, true);
}

void
admin_enable(struct call *c)
{
	if (!database_arg(c, false, "enable"))
		return;
	(void)operate_lift(c, c->database);
	set_disabled(c, false);
}

void
admin_reconnect(struct call *c)
{
	if (!database_arg(c, true, "reconnect"))
		return;
	pool_reconnect(c->database);
	call_visit(c, apply_visit, apply_done);
}

/* ---- WAIT_CLOSE ---- */

static void
old_visit(struct worker *w, void *arg)
{
	struct call *c = arg;
	const struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		const struct link *l;

		if (c->database != NULL && strcmp(c->database, seat->pool->database) != 0)
			continue;
		TAILQ_FOREACH(l, &seat->links, entry)
			c->left += pool_is_stale(l);
	}
}

static void wait_close_check(struct call *);

static void
old_done(struct worker *w, void *arg)
{
	struct call *c = arg;

	(void)w;
	if (c->left == 0)
		call_end(c, "WAIT_CLOSE");
	else
		call_check_later(c, wait_close_check);
}

static void
wait_close_check(struct call *c)
{
	c->left = 0;
	call_visit(c, old_visit, old_done);
}

void
admin_wait_close(struct call *c)
{
	if (database_arg(c, true, "wait in"))
		wait_close_check(c);
}

/* ---- KILL ---- */

/* The sessions first: each gives its link back, or takes it down. */
static void
kill_visit(struct worker *w, void *arg)
{
	struct call *c = arg;
	struct seat *seat;

	session_kill(w, c->database);
	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		struct link *l, *next;

		if (c->database != NULL && strcmp(c->database, seat->pool->database) != 0)
			continue;
		for (l = TAILQ_FIRST(&seat->links); l != NULL; l = next) {
			next = TAILQ_NEXT(l, entry);
			/* What is on its way to another worker is closed there: its
			 * database is paused. */
			if (l->state != LINK_LENT && l->state != LINK_MOVING)
				link_close(l, "admin forced disconnect");
		}
	}
}

void
admin_kill(struct call *c)
{
	if (!database_arg(c, true, "kill"))
		return;
	if (all_paused) {
		call_fail(c, CONSOLE_ERROR, "already suspended/paused");
		return;
	}
	if (c->database != NULL)
		pool_pause(c->database);
	else {
		pause_all(pool_worker(c->worker)->topo);
		/* As in PgBouncer, each database is paused and not the whole. */
		all_paused = false;
	}
	call_visit(c, kill_visit, apply_done);
}

/* ---- KILL_CLIENT ---- */

static struct session *
client_find(struct worker *w, uint64_t id)
{
	for (unsigned i = 0; i < SESSION_STATES; i++) {
		struct session *s;

		if (i == SESSION_CLOSED)
			continue;
		TAILQ_FOREACH(s, &session_worker(w)->sessions[i], entry)
			if (s->pid == id)
				return (s);
	}
	return (NULL);
}

static void
kill_client_visit(struct worker *w, void *arg)
{
	struct call *c = arg;
	struct session *s = client_find(w, c->id);

	if (s == NULL)
		return;
	c->found = true;
	session_close(s, "57P01", "admin forced disconnect");
}

static void
kill_client_done(struct worker *w, void *arg)
{
	struct call *c = arg;

	if (c->found)
		apply_done(w, c);
	else
		call_fail(c, CONSOLE_ERROR, "client not found");
}

void
admin_kill_client(struct call *c)
{
	const char *text = call_arg_count(c) == 1 ? call_arg(c, 0) : "";
	size_t len = strspn(text, "0123456789");

	if (len == 0 || len > 18 || text[len] != '\0') {
		call_fail(c, CONSOLE_ERROR, "invalid client pointer supplied");
		return;
	}
	c->id = strtoull(text, NULL, 10);
	/* A client that has no number yet is nobody's target. */
	if (c->id == 0)
		call_fail(c, CONSOLE_ERROR, "client not found");
	else
		call_visit(c, kill_client_visit, kill_client_done);
}
