/*
 * Which databases are looked at, and when; and the way of what was found to the workers. A
 * look is due at the start, when a database comes back, after RELOAD, now and then, and soon
 * after a statement that may have changed a catalog. All of it belongs to the side thread, but
 * for what a worker holds.
 */
#include "private.h"
#include "stat.h"
#include <stdlib.h>
#include <string.h>

#define PER_INTERVAL 2 /* health intervals between two looks */
#define RETRY_US     10000000
#define SOON_US      200000 /* after a statement that may have changed something */
#define AGAIN_US                                                                         \
	2000000 /* once more, when its transaction may be over; and not oftener */
#define AT_ONCE_MAX   4
#define WARNING_BYTES 1024

/* A database under observation. */
struct look {
	struct table_node node;
	struct worker *worker;
	char *name;
	const struct topo_database *database; /* of the reader's snapshot */
	struct asking *asking;
	struct catalog_db *db; /* what is known; NULL: nothing */
	char fingerprint[64];  /* of it */
	int64_t due_us, started_us;
	bool is_up, was_seen;
};

/* What was said last of tables that several members have. */
struct twins {
	struct twins *next;
	char *virtual_;
	uint64_t hash;
};

struct reader {
	const struct topo *(*world)(struct worker *);
	const struct topo *topo; /* held; NULL: none was read yet */
	struct table looks;
	struct twins *twins;
	unsigned running, suspicions;
	int64_t again_us; /* 0: no */
	bool has_news;
};

static _Atomic unsigned suspicions;

void
catalog_suspect(void)
{
	atomic_fetch_add_explicit(&suspicions, 1, memory_order_relaxed);
}

/* ---- looks ---- */

static bool
look_named(const struct table_node *n, const void *name)
{
	return (strcmp(CONTAINER_OF(n, const struct look, node)->name, name) == 0);
}

static struct look *
look_find(const struct reader *rd, const char *name)
{
	struct table_node *n =
	    table_find(&rd->looks, hash_bytes(name, strlen(name)), look_named, name);

	return (n != NULL ? CONTAINER_OF(n, struct look, node) : NULL);
}

static struct look *
look_next(const struct reader *rd, const struct look *l)
{
	struct table_node *n =
	    l == NULL ? table_first(&rd->looks) : table_next(&rd->looks, &l->node);

	return (n != NULL ? CONTAINER_OF(n, struct look, node) : NULL);
}

static void
look_stop(struct reader *rd, struct look *l)
{
	if (l->asking == NULL)
		return;
	asking_cancel(l->asking);
	l->asking = NULL;
	rd->running--;
}

static void
look_destroy(struct reader *rd, struct look *l)
{
	look_stop(rd, l);
	rd->has_news |= l->db != NULL;
	catalog_db_release(l->db);
	table_remove(&rd->looks, &l->node);
	free(l->name);
	free(l);
}

static int64_t
look_interval_us(const struct reader *rd, const struct look *l)
{
	int64_t us = l->database->health_interval >= 0
			 ? l->database->health_interval
			 : topo_settings(rd->topo)->health_interval;

	return (us * PER_INTERVAL);
}

static void
look_plan_next(const struct reader *rd, struct look *l, bool has_failed)
{
	int64_t pause = look_interval_us(rd, l);

	if (has_failed && (pause == 0 || pause > RETRY_US))
		pause = RETRY_US;
	l->due_us = pause > 0 ? l->started_us + pause : INT64_MAX;
}

static void
look_done(void *arg, struct catalog_db *db, const char *fingerprint, unsigned left_out,
    const char *err)
{
	struct look *l = arg;
	struct reader *rd = l->worker->slot[WORKER_CATALOG_READER];

	l->asking = NULL;
	rd->running--;
	look_plan_next(rd, l, err != NULL);
	if (err != NULL)
		log_debug("catalog of database \"%s\" not read: %s", l->name, err);
	if (db == NULL)
		return;
	if (left_out > 0)
		log_warning("catalog of database \"%s\" is larger than %d MB or %d rows: "
			    "the rest of it is not known",
		    l->name, CATALOG_BYTES_MAX / 1024 / 1024, CATALOG_ROWS_MAX);
	catalog_db_release(l->db);
	l->db = db;
	(void)text_copy(l->fingerprint, sizeof(l->fingerprint), fingerprint);
	stat_count(M_catalog_changes, 1);
	rd->has_news = true;
}

/* One that health has not looked at yet is taken for up. */
static bool
is_up(const struct topo_database *db)
{
	int status =
	    db->verdict != NULL ? atomic_load(&db->verdict->status) : TOPO_UNKNOWN;

	return (status != TOPO_DOWN && status != TOPO_MAINTENANCE);
}

static void
look_tick(struct reader *rd, struct look *l, int64_t now_us)
{
	bool was_up = l->is_up;

	l->is_up = is_up(l->database);
	if (!l->is_up || l->asking != NULL)
		return;
	if (!was_up)
		l->due_us = now_us;
	if (now_us < l->due_us || rd->running >= AT_ONCE_MAX)
		return;
	l->started_us = now_us;
	rd->running++;
	stat_count(M_catalog_looks, 1);
	l->asking = asking_start(l->worker, rd->topo, l->database,
	    l->db != NULL ? l->fingerprint : NULL, look_done, l);
}

/* ---- a new snapshot of the configuration ---- */

static bool
text_same(const char *a, const char *b)
{
	return (a == b || (a != NULL && b != NULL && strcmp(a, b) == 0));
}

/* Whether it is the same catalog: who asks makes no difference but for the search path. */
static bool
database_same(const struct topo_database *a, const struct topo_database *b)
{
	if (a->host_count != b->host_count || !text_same(a->dbname, b->dbname))
		return (false);
	for (size_t i = 0; i < a->host_count; i++)
		if (!text_same(a->hosts[i].host, b->hosts[i].host) ||
		    a->hosts[i].port != b->hosts[i].port)
			return (false);
	return (true);
}

static void
look_take(struct reader *rd, struct worker *side, const struct topo *topo,
    const struct topo_database *db, int64_t now_us)
{
	struct look *l = look_find(rd, db->name);

	if (db->is_auto || !db->is_configured || db->host_count == 0 ||
	    !side_can_login(topo, db) || (l != NULL && l->was_seen))
		return;
	if (l != NULL && !database_same(l->database, db)) {
		look_destroy(rd, l);
		l = NULL;
	}
	if (l == NULL) {
		l = mem_alloc(sizeof(*l));
		l->worker = side;
		l->name = mem_str(db->name);
		table_add(&rd->looks, &l->node, hash_bytes(db->name, strlen(db->name)));
	}
	/* It was begun with what the old snapshot says. */
	look_stop(rd, l);
	l->database = db;
	l->due_us = now_us;
	l->was_seen = true;
}

static void
reader_read(
    struct reader *rd, struct worker *side, const struct topo *topo, int64_t now_us)
{
	struct look *l, *next;

	topo_hold(topo);
	for (l = look_next(rd, NULL); l != NULL; l = look_next(rd, l))
		l->was_seen = false;
	for (size_t i = 0; i < topo_virtual_count(topo); i++) {
		const struct topo_virtual *v = topo_virtual(topo, i);

		for (size_t k = 0; k < v->member_count; k++)
			look_take(
			    rd, side, topo, topo_database_served(v->members[k]), now_us);
	}
	for (l = look_next(rd, NULL); l != NULL; l = next) {
		next = look_next(rd, l);
		if (!l->was_seen)
			look_destroy(rd, l);
	}
	if (rd->topo != NULL)
		topo_release(rd->topo);
	rd->topo = topo;
}

/* ---- to the workers ---- */

struct news {
	struct mail mail;
	struct catalog *catalog;
};

static void
news_arrived(struct worker *w, struct mail *m)
{
	struct news *n = CONTAINER_OF(m, struct news, mail);

	catalog_release(w->slot[WORKER_CATALOG]);
	w->slot[WORKER_CATALOG] = n->catalog;
	free(n);
}

void
catalog_forget(struct worker *w)
{
	catalog_release(w->slot[WORKER_CATALOG]);
	w->slot[WORKER_CATALOG] = NULL;
}

static struct twins *
twins_of(struct reader *rd, const char *virtual_)
{
	struct twins *t;

	for (t = rd->twins; t != NULL; t = t->next)
		if (strcmp(t->virtual_, virtual_) == 0)
			return (t);
	t = mem_alloc(sizeof(*t));
	t->virtual_ = mem_str(virtual_);
	t->next = rd->twins;
	rd->twins = t;
	return (t);
}

static void
reader_warn(struct reader *rd, const struct catalog *c)
{
	char text[WARNING_BYTES];

	for (size_t i = 0; i < topo_virtual_count(rd->topo); i++) {
		const struct topo_virtual *v = topo_virtual(rd->topo, i);

		warn_of_twins(c, v, &twins_of(rd, v->name)->hash, text, sizeof(text));
		if (text[0] != '\0')
			log_warning("virtual database \"%s\": %s", v->name, text);
	}
}

static void
reader_publish(struct reader *rd)
{
	struct catalog_db **dbs = mem_alloc(rd->looks.count * sizeof(*dbs) + 1);
	struct catalog *c;
	size_t count = 0;

	for (struct look *l = look_next(rd, NULL); l != NULL; l = look_next(rd, l))
		if (l->db != NULL)
			dbs[count++] = l->db;
	c = catalog_make(dbs, count);
	free(dbs);
	for (unsigned i = 0; i < net_thread_count(); i++) {
		struct news *n = mem_alloc(sizeof(*n));

		n->mail.run = news_arrived;
		n->catalog = c;
		catalog_hold(c);
		worker_post(net_worker(i), &n->mail);
	}
	reader_warn(rd, c);
	catalog_release(c);
	rd->has_news = false;
}

/* ---- ticks ---- */

static void
reader_hasten(struct reader *rd, int64_t at_us)
{
	for (struct look *l = look_next(rd, NULL); l != NULL; l = look_next(rd, l)) {
		int64_t at = at_us;

		if (at < l->started_us + AGAIN_US)
			at = l->started_us + AGAIN_US;
		if (at < l->due_us)
			l->due_us = at;
	}
}

static void
reader_tick(struct worker *side, int64_t now_us)
{
	struct reader *rd = side->slot[WORKER_CATALOG_READER];
	const struct topo *topo = rd->world(side);
	unsigned seen = atomic_load_explicit(&suspicions, memory_order_relaxed);

	if (rd->topo == NULL || topo_generation(rd->topo) != topo_generation(topo))
		reader_read(rd, side, topo, now_us);
	if (seen != rd->suspicions) {
		rd->suspicions = seen;
		reader_hasten(rd, now_us + SOON_US);
		rd->again_us = now_us + SOON_US + AGAIN_US;
	} else if (rd->again_us != 0 && now_us >= rd->again_us) {
		rd->again_us = 0;
		reader_hasten(rd, now_us);
	}
	for (struct look *l = look_next(rd, NULL); l != NULL; l = look_next(rd, l))
		look_tick(rd, l, now_us);
	if (rd->has_news)
		reader_publish(rd);
}

void
catalog_init(struct worker *side, const struct topo *(*world)(struct worker *))
{
	struct reader *rd = mem_alloc(sizeof(*rd));

	rd->world = world;
	side->slot[WORKER_CATALOG_READER] = rd;
	worker_on_tick(side, reader_tick);
}

void
catalog_fini(struct worker *side)
{
	struct reader *rd = side->slot[WORKER_CATALOG_READER];
	struct twins *t;
	struct look *l;

	while ((l = look_next(rd, NULL)) != NULL)
		look_destroy(rd, l);
	table_free(&rd->looks);
	while ((t = rd->twins) != NULL) {
		rd->twins = t->next;
		free(t->virtual_);
		free(t);
	}
	if (rd->topo != NULL)
		topo_release(rd->topo);
	free(rd);
	side->slot[WORKER_CATALOG_READER] = NULL;
}
