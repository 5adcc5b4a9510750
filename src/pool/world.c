/* The snapshot that a worker serves, and its seats: made at logins, carried over reloads. */
#include "private.h"
#include <stdlib.h>
#include <string.h>

static void
follow_settings(struct worker *w, const struct settings *set)
{
	vars_track(w, set->track_extra_parameters);
	link_log(w, set->log_connections, set->log_disconnections);
}

void
pool_init(struct worker *w, const struct topo *topo, struct tls *tls)
{
	struct pool_worker *pw = mem_alloc(sizeof(*pw));

	pw->topo = topo_hold(topo);
	follow_settings(w, topo_settings(topo));
	pw->tls = tls_hold(tls);
	TAILQ_INIT(&pw->seats);
	TAILQ_INIT(&pw->leaving);
	TAILQ_INIT(&pw->fences);
	w->slot[WORKER_POOL] = pw;
	worker_on_tick(w, pool_tick);
	worker_on_turn(w, pool_turn);
}

void
pool_on_world(struct worker *w, void (*fn)(struct worker *))
{
	pool_worker(w)->on_world = fn;
}

/* What the snapshot says of the seat's database and role. */
static void
seat_resolve(struct seat *seat, const struct topo *topo)
{
	const struct topo_login *login = topo_login_find(topo, seat->pool->role);

	seat->database =
	    topo_database_served(topo_database_find(topo, seat->pool->database));
	seat->secret = NULL;
	if (seat->database == NULL)
		return;
	topo_limits(topo, seat->database, login, &seat->limits);
	/* The password is that of the database's own user. */
	if (seat->database->password != NULL &&
	    (seat->database->user == NULL ||
		strcmp(seat->database->user, seat->pool->role) == 0))
		seat->secret = seat->database->password;
	else if (login != NULL)
		seat->secret = login->secret;
}

struct seat *
pool_seat(struct worker *w, const struct topo_database *db, const char *dbname,
    const char *name)
{
	const struct topo_database *served = topo_database_served(db);

	return (pool_seat_as(w, dbname, served->user != NULL ? served->user : name));
}

struct seat *
pool_seat_as(struct worker *w, const char *dbname, const char *role)
{
	struct pool_worker *pw = pool_worker(w);
	struct pool *pool = pool_find(dbname, role, role);
	struct seat *seat = pool->share[w->index].seat;

	if (seat != NULL) {
		pool_release(pool);
		return (seat);
	}
	seat = mem_alloc(sizeof(*seat));
	seat->pool = pool;
	seat->worker = w;
	seat->used_us = seat->period_start_us = clock_us();
	TAILQ_INIT(&seat->links);
	TAILQ_INIT(&seat->idle);
	TAILQ_INIT(&seat->shared);
	TAILQ_INIT(&seat->waiters);
	TAILQ_INIT(&seat->own_waiters);
	seat_resolve(seat, pw->topo);
	TAILQ_INSERT_TAIL(&pw->seats, seat, entry);
	pool->share[w->index].seat = seat;
	return (seat);
}

void
pool_teach(struct pool *pool, const struct vars *born)
{
	struct vars *was, *now = born != NULL ? vars_export(born) : NULL;

	pthread_mutex_lock(&pool->lock);
	was = pool->welcome;
	pool->welcome = now;
	pthread_mutex_unlock(&pool->lock);
	free(was);
}

bool
pool_learn(struct seat *seat)
{
	struct pool *pool = seat->pool;
	struct vars *copy = NULL;

	if (seat->welcome != NULL)
		return (true);
	pthread_mutex_lock(&pool->lock);
	if (pool->welcome != NULL)
		copy = vars_export(pool->welcome);
	pthread_mutex_unlock(&pool->lock);
	if (copy != NULL)
		seat->welcome = vars_import(seat->worker, copy);
	return (copy != NULL);
}

void
pool_seat_destroy(struct seat *seat)
{
	struct pool *pool = seat->pool;

	INVARIANT(seat->link_count == 0 && seat->waiting == 0 && seat->own_waiting == 0 &&
		  seat->clients == 0 && seat->asides == 0);
	pool->share[seat->worker->index].seat = NULL;
	TAILQ_REMOVE(&pool_worker(seat->worker)->seats, seat, entry);
	vars_release(seat->worker, seat->welcome);
	free(seat);
	pool_release(pool);
}

void
pool_end_all(struct worker *w)
{
	struct seat *seat;
	struct link *l;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		while ((l = TAILQ_FIRST(&seat->links)) != NULL)
			link_close(l, "shutdown");
}

void
pool_fini(struct worker *w)
{
	struct pool_worker *pw = pool_worker(w);
	struct seat *seat;

	while ((seat = TAILQ_FIRST(&pw->seats)) != NULL)
		pool_seat_destroy(seat);
	topo_release(pw->topo);
	tls_release(pw->tls);
	free(pw);
	w->slot[WORKER_POOL] = NULL;
}

/* ---- reload ---- */

static bool
text_same(const char *a, const char *b)
{
	return (a == b || (a != NULL && b != NULL && strcmp(a, b) == 0));
}

/* Whether links opened for one serve the other. */
static bool
database_same(const struct topo_database *a, const struct topo_database *b)
{
	if (a->host_count != b->host_count || a->param_count != b->param_count ||
	    !text_same(a->dbname, b->dbname) || !text_same(a->user, b->user) ||
	    !text_same(a->password, b->password) ||
	    !text_same(a->connect_query, b->connect_query))
		return (false);
	for (size_t i = 0; i < a->host_count; i++)
		if (!text_same(a->hosts[i].host, b->hosts[i].host) ||
		    a->hosts[i].port != b->hosts[i].port)
			return (false);
	for (size_t i = 0; i < a->param_count; i++)
		if (!text_same(a->params[i].name, b->params[i].name) ||
		    !text_same(a->params[i].value, b->params[i].value))
			return (false);
	return (true);
}

/* Whether servers would be spoken to as they are: what a link has agreed on, it keeps. */
static bool
server_tls_same(const struct settings *a, const struct settings *b)
{
	return (a->server_tls_sslmode == b->server_tls_sslmode &&
		text_same(a->server_tls_key_file, b->server_tls_key_file) &&
		text_same(a->server_tls_cert_file, b->server_tls_cert_file) &&
		text_same(a->server_tls_ca_file, b->server_tls_ca_file) &&
		text_same(a->server_tls_protocols, b->server_tls_protocols) &&
		text_same(a->server_tls_ciphers, b->server_tls_ciphers) &&
		text_same(a->server_tls13_ciphers, b->server_tls13_ciphers));
}

/* The database is another one now: what was opened for the old one, here or in a worker that
 * has not heard of it yet, is not fit. */
static void
seat_renew(struct seat *seat, const struct topo *topo)
{
	struct link *l, *next;

	seat->since = topo_generation(topo);
	vars_release(seat->worker, seat->welcome);
	seat->welcome = NULL;
	pool_teach(seat->pool, NULL);
	atomic_store(&seat->pool->failed_us, 0);
	for (l = TAILQ_FIRST(&seat->links); l != NULL; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (l->state == LINK_IDLE || l->login != NULL)
			link_close(l, "database configuration changed");
	}
}

static void
seat_carry_over(struct seat *seat, const struct topo *topo, bool fits)
{
	const struct topo_database *was = seat->database;

	seat_resolve(seat, topo);
	if (!fits || was == NULL || seat->database == NULL ||
	    !database_same(was, seat->database))
		seat_renew(seat, topo);
}

struct world_mail {
	struct mail mail;
	const struct topo *topo;
	struct tls *tls;
};

static void
world_arrived(struct worker *w, struct mail *m)
{
	struct world_mail *wm = CONTAINER_OF(m, struct world_mail, mail);
	struct pool_worker *pw = pool_worker(w);
	const struct topo *was = pw->topo;
	struct seat *seat;
	bool fits = server_tls_same(topo_settings(was), topo_settings(wm->topo));

	pw->topo = wm->topo;
	follow_settings(w, topo_settings(pw->topo));
	tls_release(pw->tls);
	pw->tls = wm->tls;
	TAILQ_FOREACH(seat, &pw->seats, entry)
		seat_carry_over(seat, pw->topo, fits);
	if (pw->on_world != NULL)
		pw->on_world(w);
	TAILQ_FOREACH(seat, &pw->seats, entry)
		pool_serve(seat);
	topo_release(was);
	free(wm);
}

void
pool_swap_world(const struct topo *topo, struct tls *tls)
{
	for (unsigned i = 0; i < net_thread_count(); i++) {
		struct world_mail *wm = mem_alloc(sizeof(*wm));

		wm->mail.run = world_arrived;
		wm->topo = topo_hold(topo);
		wm->tls = tls_hold(tls);
		worker_post(net_worker(i), &wm->mail);
	}
}
