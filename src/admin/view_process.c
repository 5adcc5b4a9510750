/* SHOW LISTS, MEM, WORKERS, CONFIG, STATE, VERSION: the process itself. */
#include "config.h"
#include "private.h"
#include "store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- LISTS ---- */

/* Besides one sum for each pool (which has a seat in several workers): one for the rest. */
static struct sum *
lists_sum(struct show *show)
{
	return (sum_of(&show->sums, "", ""));
}

void
view_lists_visit(struct worker *w, struct show *show)
{
	const struct session_worker *sw = session_worker(w);
	struct sum *sum = lists_sum(show);
	const struct seat *seat;

	for (unsigned i = 0; i < SESSION_STATES; i++)
		if (i != SESSION_CLOSED)
			sum->count[SUM_CL_ACTIVE] += sw->count[i];
	sum->count[SUM_CL_LOGIN] += sw->count[SESSION_STARTUP] + sw->count[SESSION_AUTH];
	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		(void)sum_of(&show->sums, seat->pool->database, seat->pool->role);
		sum->count[SUM_SV_ACTIVE] += seat->link_count;
	}
}

static void
lists_row(struct show *show, const char *list, uint64_t items)
{
	row_text(show, COL_LISTS_list, list);
	row_int(show, COL_LISTS_items, (int64_t)items);
	row_end(show);
}

void
view_lists_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;
	const struct sum *sum = lists_sum(show);
	size_t databases = 1; /* the console */

	for (size_t i = 0; i < topo_database_count(topo); i++)
		databases += !topo_database(topo, i)->is_auto;
	lists_row(show, "databases", databases);
	lists_row(show, "users", topo_login_count(topo) + 1);
	lists_row(show, "peers", topo_peer_count(topo));
	/* The console has a pool, and the sum of the rest is none. */
	lists_row(show, "pools", show->sums.count);
	lists_row(show, "peer_pools", topo_peer_count(topo));
	lists_row(show, "free_clients", 0);
	lists_row(show, "used_clients", sum->count[SUM_CL_ACTIVE]);
	lists_row(show, "login_clients", sum->count[SUM_CL_LOGIN]);
	lists_row(show, "free_servers", 0);
	lists_row(show, "used_servers", sum->count[SUM_SV_ACTIVE]);
	lists_row(show, "dns_names", view_names_count());
	lists_row(show, "dns_zones", view_zones_count());
	lists_row(show, "dns_queries", net_names_asked_for());
	lists_row(show, "dns_pending", 0);
}

/* ---- MEM ---- */

static void
mem_add(struct show *show, const char *name, uint64_t items, uint64_t bytes)
{
	struct sum *sum = sum_of(&show->sums, name, "");

	sum->count[SUM_ITEMS] += items;
	sum->count[SUM_BYTES] += bytes;
}

static void
mem_add_stream(struct show *show, const struct stream *s)
{
	uint64_t bytes = (uint64_t)s->in.cap + s->out.cap;

	if (bytes > 0)
		mem_add(show, "stream_buffer", 1, bytes);
}

static void
mem_add_sessions(struct show *show, const struct session_worker *sw)
{
	for (unsigned i = 0; i < SESSION_STATES; i++) {
		const struct session *s;

		mem_add(
		    show, "client", sw->count[i], sw->count[i] * sizeof(struct session));
		TAILQ_FOREACH(s, &sw->sessions[i], entry)
			mem_add_stream(show, &s->stream);
	}
	mem_add(show, "statement", sw->known.count, sw->known_bytes);
}

void
view_mem_visit(struct worker *w, struct show *show)
{
	uint64_t shared = w->wire_out.cap + (uint64_t)w->plain_out.cap;
	const struct seat *seat;

	mem_add(show, "stream_buffer", 0, 0);
	mem_add_sessions(show, session_worker(w));
	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		const struct link *l;

		mem_add(show, "pool_seat", 1, sizeof(*seat));
		mem_add(show, "server", seat->link_count,
		    seat->link_count * sizeof(struct link));
		TAILQ_FOREACH(l, &seat->links, entry)
			mem_add_stream(show, &l->stream);
	}
	mem_add(show, "parameters", vars_bytes(w), vars_bytes(w));
	mem_add(show, "read_buffer", 1, NET_READ_BYTES);
	mem_add(show, "write_buffer", 1, shared);
}

void
view_mem_rows(struct show *show)
{
	struct sum **all = sums_sorted(&show->sums);

	for (size_t i = 0; i < show->sums.count; i++) {
		uint64_t items = all[i]->count[SUM_ITEMS],
			 bytes = all[i]->count[SUM_BYTES];

		row_text(show, COL_MEM_name, all[i]->database);
		row_int(show, COL_MEM_size, items > 0 ? (int64_t)(bytes / items) : 0);
		row_int(show, COL_MEM_used, (int64_t)items);
		row_int(show, COL_MEM_free, 0);
		row_int(show, COL_MEM_memtotal, (int64_t)bytes);
		row_end(show);
	}
	free(all);
}

/* ---- WORKERS ---- */

void
view_workers_visit(struct worker *w, struct show *show)
{
	const struct seat *seat;
	struct timespec cpu = {0};
	int64_t links = 0, shared = 0, healed = 0, multiplexed = 0, moved = 0;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		links += seat->link_count;
		shared += (int64_t)seat->metrics.v[M_shared_count];
		healed += (int64_t)seat->metrics.v[M_healed_count];
		multiplexed += (int64_t)seat->metrics.v[M_multiplexed_count];
		moved += (int64_t)seat->metrics.v[M_moved_count];
	}
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	row_int(show, COL_WORKERS_worker, w->index);
	row_int(show, COL_WORKERS_clients, w->clients);
	row_int(show, COL_WORKERS_links, links);
	row_int(show, COL_WORKERS_statements, session_worker(w)->known.count);
	row_int(show, COL_WORKERS_loop_lag_us, w->loop_lag_us);
	row_int(
	    show, COL_WORKERS_cpu_ms, (int64_t)cpu.tv_sec * 1000 + cpu.tv_nsec / 1000000);
	row_int(show, COL_WORKERS_shared, shared);
	row_int(show, COL_WORKERS_healed, healed);
	row_int(show, COL_WORKERS_multiplexed, multiplexed);
	row_int(show, COL_WORKERS_moved, moved);
	row_end(show);
}

/* ---- LISTENS ---- */

static void
listens_row(void *arg, const struct hub_view *v)
{
	struct show *show = arg;

	row_text(show, COL_LISTENS_database, v->seat->pool->database);
	row_text(show, COL_LISTENS_user, v->seat->pool->role);
	row_text(show, COL_LISTENS_channel, v->channel);
	row_int(show, COL_LISTENS_worker, v->seat->worker->index);
	row_text(show, COL_LISTENS_state, v->is_on ? "on" : "waiting");
	row_int(show, COL_LISTENS_clients, v->clients);
	row_int(show, COL_LISTENS_notifications, (int64_t)v->heard);
	if (v->link != NULL)
		row_int(show, COL_LISTENS_remote_pid, v->link->pid);
	else
		row_null(show, COL_LISTENS_remote_pid);
	row_end(show);
}

void
view_listens_visit(struct worker *w, struct show *show)
{
	hub_each_channel(w, listens_row, show);
}

/* ---- CONFIG, STATE, VERSION ---- */

/* PgBouncer shows NULL where these are not set, and "" of the others. */
static const char *const null_keys[] = {"auth_dbname", "auth_file", "auth_ident_file",
    "auth_user", "client_tls13_ciphers", "conffile", "server_tls13_ciphers", "user"};

static void
row_setting(struct show *show, enum view_column column, const struct settings *set,
    const struct setting *s)
{
	const char *value;
	char text[256];

	if (s->type != SET_STR) {
		setting_text(set, s, text, sizeof(text));
		row_text(show, column, text);
		return;
	}
	value = *(const char *const *)(const void *)((const char *)set + s->offset);
	for (size_t i = 0; value[0] == '\0' && i < ARRAY_LEN(null_keys); i++)
		if (strcmp(s->key, null_keys[i]) == 0) {
			row_null(show, column);
			return;
		}
	row_text(show, column, value);
}

static int
setting_order(const void *a, const void *b)
{
	return (strcmp((*(const struct setting *const *)a)->key,
	    (*(const struct setting *const *)b)->key));
}

void
view_config_rows(struct show *show)
{
	const struct settings *set = pool_settings(show->call->worker);
	const struct setting **sorted = mem_alloc(setting_count * sizeof(sorted[0]));
	struct settings dflt;

	settings_defaults(&dflt);
	for (size_t i = 0; i < setting_count; i++)
		sorted[i] = &setting_table[i];
	qsort(sorted, setting_count, sizeof(sorted[0]), setting_order);
	for (size_t i = 0; i < setting_count; i++) {
		const struct setting *s = sorted[i];

		row_text(show, COL_CONFIG_key, s->key);
		row_setting(show, COL_CONFIG_value, set, s);
		row_setting(show, COL_CONFIG_default, &dflt, s);
		row_text(
		    show, COL_CONFIG_changeable, s->apply == AP_RELOAD ? "yes" : "no");
		row_end(show);
	}
	free(sorted);
}

static void
state_row(struct show *show, const char *key, bool value)
{
	row_text(show, COL_STATE_key, key);
	row_text(show, COL_STATE_value, value ? "yes" : "no");
	row_end(show);
}

void
view_state_rows(struct show *show)
{
	bool is_paused = admin_is_paused();

	state_row(show, "active", !is_paused);
	state_row(show, "paused", is_paused);
	state_row(show, "suspended", false);
	if (store_is_shared())
		state_row(show, "state_store", stat_value(M_state_store_up) != 0);
}

void
view_version_rows(struct show *show)
{
	row_text(show, COL_VERSION_version, PACKAGE_STRING);
	row_end(show);
}
