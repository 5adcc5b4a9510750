/* SHOW POOLS, DATABASES, USERS: what is configured, and how much of it is in use. */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *
pool_mode_text(int mode)
{
	static const char *const words[] = {
#define W(symbol, word) word,
	    WORDS_POOL_MODE(W)
#undef W
	};

	INVARIANT(mode >= 0 && (size_t)mode < ARRAY_LEN(words));
	return (words[mode]);
}

const char *
load_balance_text(const struct topo_database *db)
{
	if (db == NULL || db->host_count < 2)
		return (NULL);
	return (db->round_robin_hosts ? "round-robin" : "disable");
}

/* ---- POOLS ---- */

static void
pools_add_links(struct sum *sum, const struct seat *seat, int64_t now)
{
	const struct settings *set = pool_settings(seat->worker);
	const struct link *l;

	TAILQ_FOREACH(l, &seat->links, entry) {
		enum sum_count count;

		if (link_view_state(l, set, now, &count) == NULL)
			continue;
		sum->count[count]++;
		/* Each brings the request of one client to the server. */
		sum->count[SUM_CL_CANCEL] += l->cancels;
		sum->count[SUM_SV_ACTIVE_CANCEL] += l->cancels;
	}
}

static void
pools_add_clients(struct sum *sum, const struct seat *seat)
{
	const struct waiter *first = TAILQ_FIRST(&seat->waiters);

	unsigned waiting = seat->waiting + seat->own_waiting;

	/* Those that wait for their login's link are counted in after it. */
	sum->count[SUM_CL_WAITING] += waiting;
	if (seat->clients > waiting)
		sum->count[SUM_CL_ACTIVE] += seat->clients - waiting;
	if (first != NULL &&
	    (sum->oldest_wait_us == 0 || first->start_us < sum->oldest_wait_us))
		sum->oldest_wait_us = first->start_us;
}

void
view_pools_visit(struct worker *w, struct show *show)
{
	const struct session_worker *sw = session_worker(w);
	int64_t now = clock_us();
	const struct seat *seat;
	struct sum *sum;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		sum = sum_of(&show->sums, seat->pool->database, seat->pool->role);
		sum->pool_mode = (int)seat->limits.pool_mode;
		sum->load_balance = load_balance_text(seat->database);
		pools_add_clients(sum, seat);
		pools_add_links(sum, seat, now);
		sum->count[SUM_ITEMS] = atomic_load(&seat->pool->links);
	}
	sum = sum_of(&show->sums, show->call->console, show->call->console);
	sum->pool_mode = POOL_STATEMENT;
	sum->count[SUM_CL_ACTIVE] += sw->count[SESSION_CONSOLE];
}

/* Workers are visited one after the other: a link that moves meanwhile is seen twice or not at
 * all. How many there are is known, and those that move are idle. */
static void
pools_settle(struct sum *s)
{
	static const enum sum_count states[] = {SUM_SV_ACTIVE, SUM_SV_BEING_CANCELED,
	    SUM_SV_IDLE, SUM_SV_USED, SUM_SV_TESTED, SUM_SV_LOGIN};
	uint64_t seen = 0;

	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		seen += s->count[states[i]];
	if (seen < s->count[SUM_ITEMS])
		s->count[SUM_SV_IDLE] += s->count[SUM_ITEMS] - seen;
	for (; seen > s->count[SUM_ITEMS]; seen--) {
		enum sum_count from =
		    s->count[SUM_SV_IDLE] > 0 ? SUM_SV_IDLE : SUM_SV_ACTIVE;

		if (s->count[from] == 0)
			return;
		s->count[from]--;
	}
}

static void
pools_row(struct show *show, const struct sum *s, int64_t now)
{
	int64_t wait = s->oldest_wait_us != 0 ? now - s->oldest_wait_us : 0;
	static const struct {
		enum view_column column;
		enum sum_count count;
	} counts[] = {
	    {COL_POOLS_cl_active, SUM_CL_ACTIVE},
	    {COL_POOLS_cl_waiting, SUM_CL_WAITING},
	    {COL_POOLS_cl_active_cancel_req, SUM_CL_CANCEL},
	    {COL_POOLS_sv_active, SUM_SV_ACTIVE},
	    {COL_POOLS_sv_active_cancel, SUM_SV_ACTIVE_CANCEL},
	    {COL_POOLS_sv_being_canceled, SUM_SV_BEING_CANCELED},
	    {COL_POOLS_sv_idle, SUM_SV_IDLE},
	    {COL_POOLS_sv_used, SUM_SV_USED},
	    {COL_POOLS_sv_tested, SUM_SV_TESTED},
	    {COL_POOLS_sv_login, SUM_SV_LOGIN},
	};

	for (size_t i = 0; i < ARRAY_LEN(counts); i++)
		row_int(show, counts[i].column, (int64_t)s->count[counts[i].count]);
	row_text(show, COL_POOLS_database, s->database);
	row_text(show, COL_POOLS_user, s->user);
	row_int(show, COL_POOLS_cl_waiting_cancel_req, 0);
	row_int(show, COL_POOLS_maxwait, wait / 1000000);
	row_int(show, COL_POOLS_maxwait_us, wait % 1000000);
	row_text(show, COL_POOLS_pool_mode, pool_mode_text(s->pool_mode));
	row_text(show, COL_POOLS_load_balance_hosts, s->load_balance);
	row_end(show);
}

void
view_pools_rows(struct show *show)
{
	struct sum **all = sums_sorted(&show->sums);
	int64_t now = clock_us();

	for (size_t i = 0; i < show->sums.count; i++) {
		pools_settle(all[i]);
		pools_row(show, all[i], now);
	}
	free(all);
}

/* ---- places: what the registry knows of databases and of users ---- */

struct place_seen {
	char *name;
	unsigned links, clients;
	bool is_paused, is_disabled, is_shown;
};
struct places {
	struct place_seen *seen;
	size_t count, cap;
};

static void
places_add(void *arg, struct pool_place *p)
{
	struct places *all = arg;

	if (all->count == all->cap) {
		all->cap = all->cap != 0 ? 2 * all->cap : 16;
		all->seen = mem_realloc(all->seen, all->cap * sizeof(*all->seen));
	}
	all->seen[all->count++] = (struct place_seen){.name = mem_str(p->name),
	    .links = p->links,
	    .clients = p->clients,
	    .is_paused = p->is_paused,
	    .is_disabled = p->is_disabled};
}

static int
place_order(const void *a, const void *b)
{
	return (strcmp(
	    ((const struct place_seen *)a)->name, ((const struct place_seen *)b)->name));
}

static int
place_is(const void *name, const void *place)
{
	return (strcmp(name, ((const struct place_seen *)place)->name));
}

static void
places_sort(struct places *all)
{
	if (all->count > 0)
		qsort(all->seen, all->count, sizeof(*all->seen), place_order);
}

/* What is known under the name; nothing when nobody has used it. It counts as shown. */
static struct place_seen
places_take(struct places *all, const char *name)
{
	struct place_seen *p = NULL;

	if (all->count > 0)
		p = bsearch(name, all->seen, all->count, sizeof(*p), place_is);
	if (p == NULL)
		return ((struct place_seen){0});
	p->is_shown = true;
	return (*p);
}

static void
places_free(struct places *all)
{
	for (size_t i = 0; i < all->count; i++)
		free(all->seen[i].name);
	free(all->seen);
}

/* ---- DATABASES ---- */

static void
database_hosts(const struct topo_database *db, struct buf *out)
{
	for (size_t i = 0; i < db->host_count; i++)
		buf_addf(out, "%s%s", i > 0 ? "," : "", db->hosts[i].host);
	buf_add(out, "", 1);
}

static void
database_row(struct show *show, const struct topo *topo, const struct topo_database *db,
    const char *name, const struct place_seen *p)
{
	struct topo_limits limits;
	struct buf hosts = {0};

	topo_limits(topo, db, NULL, &limits);
	database_hosts(db, &hosts);
	row_text(show, COL_DATABASES_name, name);
	row_text(show, COL_DATABASES_host, (const char *)hosts.mem);
	row_int(show, COL_DATABASES_port, db->hosts[0].port);
	row_text(show, COL_DATABASES_database, db->dbname != NULL ? db->dbname : name);
	row_text(show, COL_DATABASES_force_user, db->user);
	row_int(show, COL_DATABASES_pool_size, limits.pool_size);
	row_int(show, COL_DATABASES_min_pool_size, limits.min_pool_size);
	row_int(show, COL_DATABASES_reserve_pool_size, limits.reserve_pool_size);
	row_int(show, COL_DATABASES_server_lifetime, limits.server_lifetime / 1000000);
	row_text(show, COL_DATABASES_pool_mode,
	    db->pool_mode >= 0 ? pool_mode_text(db->pool_mode) : NULL);
	row_text(show, COL_DATABASES_load_balance_hosts, load_balance_text(db));
	row_int(show, COL_DATABASES_max_connections, limits.max_db_connections);
	row_int(show, COL_DATABASES_current_connections, p->links);
	row_int(
	    show, COL_DATABASES_max_client_connections, limits.max_db_client_connections);
	row_int(show, COL_DATABASES_current_client_connections, p->clients);
	row_int(show, COL_DATABASES_paused, p->is_paused);
	row_int(show, COL_DATABASES_disabled, p->is_disabled);
	row_end(show);
	buf_free(&hosts);
}

/* As PgBouncer shows its own. */
static void
console_row(struct show *show, const struct settings *set)
{
	const char *name = show->call->console;

	row_text(show, COL_DATABASES_name, name);
	row_null(show, COL_DATABASES_host);
	row_int(show, COL_DATABASES_port, set->listen_port);
	row_text(show, COL_DATABASES_database, name);
	row_text(show, COL_DATABASES_force_user, name);
	row_int(show, COL_DATABASES_pool_size, 2);
	row_int(show, COL_DATABASES_min_pool_size, 0);
	row_int(show, COL_DATABASES_reserve_pool_size, 0);
	row_int(show, COL_DATABASES_server_lifetime, set->server_lifetime / 1000000);
	row_text(show, COL_DATABASES_pool_mode, pool_mode_text(POOL_STATEMENT));
	row_null(show, COL_DATABASES_load_balance_hosts);
	row_int(show, COL_DATABASES_max_connections, 0);
	row_int(show, COL_DATABASES_current_connections, 0);
	row_int(show, COL_DATABASES_max_client_connections, 0);
	row_int(show, COL_DATABASES_current_client_connections,
	    (int64_t)sum_of(&show->sums, name, "")->count[SUM_ITEMS]);
	row_int(show, COL_DATABASES_paused, 0);
	row_int(show, COL_DATABASES_disabled, 0);
	row_end(show);
}

void
view_databases_visit(struct worker *w, struct show *show)
{
	sum_of(&show->sums, show->call->console, "")->count[SUM_ITEMS] +=
	    session_worker(w)->count[SESSION_CONSOLE];
}

/* One row to be: a configured database, a name that only the * entry serves, or the console. */
struct database_seen {
	const char *name;
	const struct topo_database *database; /* NULL: the console */
	struct place_seen place;
};

static int
database_order(const void *a, const void *b)
{
	return (strcmp(((const struct database_seen *)a)->name,
	    ((const struct database_seen *)b)->name));
}

/* In the order of their names, as PgBouncer shows them. */
void
view_databases_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;
	struct database_seen *seen;
	struct places places = {0};
	size_t count = 0;

	pool_each_database(places_add, &places);
	places_sort(&places);
	seen = mem_alloc((topo_database_count(topo) + places.count + 1) * sizeof(*seen));
	for (size_t i = 0; i < topo_database_count(topo); i++) {
		const struct topo_database *db = topo_database(topo, i);

		if (!db->is_auto)
			seen[count++] = (struct database_seen){
			    db->name, db, places_take(&places, db->name)};
	}
	/* Names that only the * entry serves, as long as somebody uses them. */
	for (size_t i = 0; i < places.count; i++) {
		const struct place_seen *p = &places.seen[i];
		const struct topo_database *db = topo_database_find(topo, p->name);

		if (!p->is_shown && db != NULL)
			seen[count++] = (struct database_seen){p->name, db, *p};
	}
	seen[count++] = (struct database_seen){.name = show->call->console};
	qsort(seen, count, sizeof(*seen), database_order);
	for (size_t i = 0; i < count; i++) {
		if (seen[i].database == NULL)
			console_row(show, topo_settings(topo));
		else
			database_row(
			    show, topo, seen[i].database, seen[i].name, &seen[i].place);
	}
	free(seen);
	places_free(&places);
}

/* ---- USERS ---- */

static void
row_own(struct show *show, enum view_column column, int64_t own)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)own);
	row_text(show, column, own >= 0 ? text : NULL);
}

static void
user_row(struct show *show, const struct settings *set, const struct topo_login *login,
    const char *name, const struct place_seen *p)
{
	int64_t links = set->max_user_connections,
		clients = set->max_user_client_connections;

	if (login != NULL && login->max_user_connections >= 0)
		links = login->max_user_connections;
	if (login != NULL && login->max_user_client_connections >= 0)
		clients = login->max_user_client_connections;
	row_text(show, COL_USERS_name, name);
	row_own(show, COL_USERS_pool_size, login != NULL ? login->pool_size : -1);
	row_own(show, COL_USERS_reserve_pool_size,
	    login != NULL ? login->reserve_pool_size : -1);
	row_text(show, COL_USERS_pool_mode,
	    login != NULL && login->pool_mode >= 0 ? pool_mode_text(login->pool_mode)
						   : NULL);
	row_int(show, COL_USERS_max_user_connections, links);
	row_int(show, COL_USERS_current_connections, p->links);
	row_int(show, COL_USERS_max_user_client_connections, clients);
	row_int(show, COL_USERS_current_client_connections, p->clients);
	row_end(show);
}

struct user_seen {
	const char *name;
	const struct topo_login *login; /* NULL: not configured */
	struct place_seen place;
};

static int
user_order(const void *a, const void *b)
{
	return (strcmp(
	    ((const struct user_seen *)a)->name, ((const struct user_seen *)b)->name));
}

/* In the order of their names, as PgBouncer shows them, with the console's own. */
void
view_users_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;
	const char *console = show->call->console;
	struct places places = {0};
	struct user_seen *seen;
	bool is_there = false;
	size_t count = 0;

	pool_each_user(places_add, &places);
	places_sort(&places);
	seen = mem_alloc((topo_login_count(topo) + places.count + 1) * sizeof(*seen));
	for (size_t i = 0; i < topo_login_count(topo); i++) {
		const struct topo_login *login = topo_login(topo, i);

		seen[count++] = (struct user_seen){
		    login->name, login, places_take(&places, login->name)};
	}
	for (size_t i = 0; i < places.count; i++)
		if (!places.seen[i].is_shown)
			seen[count++] =
			    (struct user_seen){places.seen[i].name, NULL, places.seen[i]};
	for (size_t i = 0; i < count; i++)
		is_there = is_there || strcmp(seen[i].name, console) == 0;
	if (!is_there)
		seen[count++] = (struct user_seen){.name = console};
	qsort(seen, count, sizeof(*seen), user_order);
	for (size_t i = 0; i < count; i++)
		user_row(show, topo_settings(topo), seen[i].login, seen[i].name,
		    &seen[i].place);
	free(seen);
	places_free(&places);
}
