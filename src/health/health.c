/*
 * Which databases are watched, and when their probes begin. All of it belongs to the side
 * thread; what is found goes into the verdicts of topo.
 */
#include "pool.h"
#include "private.h"
#include <stdlib.h>
#include <string.h>

#define PASSIVE_PAUSE_US 100000 /* probes because of failures elsewhere: not more often */
#define TIMEOUT_MIN_US   100000
#define FIRST_SPREAD_US  1000000 /* in which all databases get their first probe */
#define FIRST_STEP_US    20000

struct health {
	const struct topo *topo; /* held; NULL: none was read yet */
	struct table watches;
	struct group *groups; /* for causal reads */
};

static bool
watch_same(const struct table_node *n, const void *name)
{
	return (strcmp(CONTAINER_OF(n, const struct watch, node)->name, name) == 0);
}

static struct watch *
watch_find(const struct health *h, const char *name)
{
	struct table_node *n =
	    table_find(&h->watches, hash_bytes(name, strlen(name)), watch_same, name);

	return (n != NULL ? CONTAINER_OF(n, struct watch, node) : NULL);
}

size_t
health_group(const struct watch *of, struct watch *group[LEAD_GROUP_MAX])
{
	const struct health *h = of->worker->slot[WORKER_HEALTH];
	const struct topo_database *root =
	    of->database->replica_of != NULL ? of->database->replica_of : of->database;
	struct watch *w = watch_find(h, root->name);
	size_t count = 0;

	if (w == NULL || root->copy_count == 0)
		return (0);
	group[count++] = w;
	for (size_t i = 0; i < root->copy_count && count < LEAD_GROUP_MAX; i++)
		if ((w = watch_find(h, root->copies[i]->name)) != NULL)
			group[count++] = w;
	return (count);
}

/* The next watch of a walk in which watches may go. */
static struct watch *
watch_next(const struct health *h, const struct watch *w)
{
	struct table_node *n =
	    w == NULL ? table_first(&h->watches) : table_next(&h->watches, &w->node);

	return (n != NULL ? CONTAINER_OF(n, struct watch, node) : NULL);
}

/* ---- a new snapshot ---- */

static bool
text_same(const char *a, const char *b)
{
	return (a == b || (a != NULL && b != NULL && strcmp(a, b) == 0));
}

/* Whether it is the same server, asked in the same way. */
static bool
database_same(const struct topo_database *a, const struct topo_database *b)
{
	if (a->host_count != b->host_count || !text_same(a->dbname, b->dbname) ||
	    !text_same(a->user, b->user) || !text_same(a->password, b->password))
		return (false);
	for (size_t i = 0; i < a->host_count; i++)
		if (!text_same(a->hosts[i].host, b->hosts[i].host) ||
		    a->hosts[i].port != b->hosts[i].port)
			return (false);
	return (true);
}

static void
watch_set_rules(struct watch *w)
{
	const struct topo_database *db = w->database;
	const struct settings *set = topo_settings(w->topo);
	struct rules *r = &w->rules;

	r->interval_us =
	    db->health_interval >= 0 ? db->health_interval : set->health_interval;
	r->timeout_us =
	    db->health_timeout >= 0 ? db->health_timeout : set->health_timeout;
	if (r->timeout_us < TIMEOUT_MIN_US)
		r->timeout_us = TIMEOUT_MIN_US;
	r->fall = (unsigned)(db->health_fall > 0 ? db->health_fall : set->health_fall);
	r->rise = (unsigned)(db->health_rise > 0 ? db->health_rise : set->health_rise);
	r->is_replica = db->replica_of != NULL;
	r->is_grouped = r->is_replica || db->copy_count > 0;
	r->is_standby_fine = r->is_replica || db->is_read_only;
	r->max_lag_us = db->max_lag;
	if (!r->is_grouped) {
		/* Of no group any more: nobody judges it as one of them. */
		w->is_urgent = false;
		w->note[0] = '\0';
		atomic_store(&w->verdict->is_fenced, false);
	}
}

static struct watch *
watch_create(struct health *h, struct worker *side, const char *name)
{
	struct watch *w = mem_alloc(sizeof(*w));

	w->worker = side;
	w->name = mem_str(name);
	w->verdict = topo_verdict(name);
	table_add(&h->watches, &w->node, hash_bytes(name, strlen(name)));
	return (w);
}

static void
watch_destroy(struct health *h, struct watch *w)
{
	probe_drop(w);
	judge_forget(w);
	alert_drop(w, false);
	table_remove(&h->watches, &w->node);
	free(w->name);
	free(w);
}

/* A database of the new snapshot; the old one is still held. */
static void
watch_take(struct health *h, struct worker *side, const struct topo *topo,
    const struct topo_database *db, int64_t first_us)
{
	struct watch *w = watch_find(h, db->name);
	bool is_same = w != NULL && database_same(w->database, db);
	int64_t interval = is_same ? w->rules.interval_us : -1;

	if (w == NULL)
		w = watch_create(h, side, db->name);
	if (!is_same) {
		probe_drop(w);
		judge_forget(w);
		w->is_spread = false;
		w->due_us = first_us;
	}
	w->was_seen = true;
	w->topo = topo;
	w->database = db;
	watch_set_rules(w);
	/* A shorter interval does not wait for the end of the longer one. */
	if (is_same && interval != w->rules.interval_us) {
		w->is_spread = false;
		w->due_us = first_us;
	}
}

static void
health_read(struct worker *side, const struct topo *topo, int64_t now_us)
{
	struct health *h = side->slot[WORKER_HEALTH];
	size_t count = topo_database_count(topo);
	int64_t step = FIRST_SPREAD_US / (int64_t)(count + 1);
	struct watch *w, *next;

	if (step > FIRST_STEP_US)
		step = FIRST_STEP_US;
	topo_hold(topo);
	for (w = watch_next(h, NULL); w != NULL; w = watch_next(h, w))
		w->was_seen = false;
	for (size_t i = 0; i < count; i++) {
		const struct topo_database *db = topo_database(topo, i);

		if (!db->is_auto && db->is_configured && db->host_count > 0)
			watch_take(h, side, topo, db, now_us + step * (int64_t)i);
	}
	for (w = watch_next(h, NULL); w != NULL; w = next) {
		next = watch_next(h, w);
		if (!w->was_seen)
			watch_destroy(h, w);
	}
	replay_read(&h->groups, side, topo);
	if (h->topo != NULL)
		topo_release(h->topo);
	h->topo = topo;
}

/* ---- ticks ---- */

static bool
watch_is_due(const struct watch *w, int64_t now_us)
{
	if (w->is_probing || atomic_load(&w->verdict->word) == TOPO_MAINTENANCE ||
	    atomic_load(&w->verdict->apart) > 0)
		return (false);
	if (now_us >= w->due_us)
		return (true);
	return (atomic_load(&w->verdict->failures) > 0 &&
		now_us - w->started_us >= PASSIVE_PAUSE_US);
}

static void
health_tick(struct worker *side, int64_t now_us)
{
	struct health *h = side->slot[WORKER_HEALTH];
	const struct topo *topo = pool_worker(side)->topo;

	if (h->topo == NULL || topo_generation(h->topo) != topo_generation(topo))
		health_read(side, topo, now_us);
	for (struct watch *w = watch_next(h, NULL); w != NULL; w = watch_next(h, w)) {
		probe_tick(w, now_us);
		alert_tick(w, now_us);
		if (watch_is_due(w, now_us))
			probe_start(w, now_us);
	}
	replay_tick(h->groups, now_us);
}

void
health_init(struct worker *side)
{
	side->slot[WORKER_HEALTH] = mem_alloc(sizeof(struct health));
	worker_on_tick(side, health_tick);
}

void
health_fini(struct worker *side)
{
	struct health *h = side->slot[WORKER_HEALTH];
	struct watch *w;

	replay_free(&h->groups);
	while ((w = watch_next(h, NULL)) != NULL) {
		alert_drop(w, true);
		watch_destroy(h, w);
	}
	table_free(&h->watches);
	if (h->topo != NULL)
		topo_release(h->topo);
	free(h);
	side->slot[WORKER_HEALTH] = NULL;
}
