/*
 * Verdicts: one for each database name, for the whole process. They are found under a lock,
 * when a snapshot is built; what they say is read without one.
 *
 *   found   what health sees        --+-- word ? word : found -->  status, since, reason
 *   word    what an operator said   --+
 */
#include "topo.h"
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t verdicts_lock = PTHREAD_MUTEX_INITIALIZER;
static struct table verdicts;

static bool
verdict_same(const struct table_node *n, const void *database)
{
	const struct topo_verdict *v = CONTAINER_OF(n, const struct topo_verdict, node);

	return (strcmp(v->database, database) == 0);
}

static struct topo_verdict *
verdict_create(const char *database)
{
	size_t len = strlen(database);
	struct topo_verdict *v = mem_alloc(sizeof(*v) + len + 1);
	char *name = (char *)(v + 1);

	/* The name lies behind the struct, and goes with it. */
	memcpy(name, database, len + 1);
	v->database = name;
	atomic_init(&v->response_us, -1);
	atomic_init(&v->lag_us, -1);
	atomic_init(&v->lag_bytes, -1);
	INVARIANT(pthread_mutex_init(&v->lock, NULL) == 0);
	return (v);
}

struct topo_verdict *
topo_verdict(const char *database)
{
	uint64_t hash = hash_bytes(database, strlen(database));
	struct topo_verdict *v;
	struct table_node *n;

	pthread_mutex_lock(&verdicts_lock);
	n = table_find(&verdicts, hash, verdict_same, database);
	if (n != NULL)
		v = CONTAINER_OF(n, struct topo_verdict, node);
	else {
		v = verdict_create(database);
		table_add(&verdicts, &v->node, hash);
	}
	pthread_mutex_unlock(&verdicts_lock);
	return (v);
}

void
topo_verdicts_free(void)
{
	struct table_node *n;

	while ((n = table_first(&verdicts)) != NULL) {
		struct topo_verdict *v = CONTAINER_OF(n, struct topo_verdict, node);

		table_remove(&verdicts, n);
		pthread_mutex_destroy(&v->lock);
		free(v);
	}
	table_free(&verdicts);
}

const char *
topo_status_name(enum topo_status status)
{
	static const char *const names[] = {
	    [TOPO_UNKNOWN] = "unknown",
	    [TOPO_HEALTHY] = "healthy",
	    [TOPO_DOWN] = "down",
	    [TOPO_HALF_OPEN] = "half-open",
	    [TOPO_LAGGING] = "lagging",
	    [TOPO_DRAINING] = "draining",
	    [TOPO_MAINTENANCE] = "maintenance",
	};

	INVARIANT((size_t)status < ARRAY_LEN(names));
	return (names[status]);
}

/* Who sees the new status sees when it began. */
static void
verdict_show(
    struct topo_verdict *v, enum topo_status status, int64_t since_us, const char *reason)
{
	(void)text_copy(v->reason, sizeof(v->reason), reason);
	atomic_store(&v->since_us, since_us);
	atomic_store(&v->status, (int)status);
}

/* Under the lock. */
static void
verdict_find(
    struct topo_verdict *v, enum topo_status status, int64_t now_us, const char *reason)
{
	(void)text_copy(
	    v->found_reason, sizeof(v->found_reason), reason != NULL ? reason : "");
	if (atomic_load(&v->found) != (int)status || v->found_since_us == 0) {
		v->found_since_us = now_us;
		if (status == TOPO_HEALTHY && atomic_load(&v->found) == TOPO_HALF_OPEN)
			atomic_store(&v->risen_us, now_us);
		atomic_store(&v->found, (int)status);
	}
	if (atomic_load(&v->word) == TOPO_UNKNOWN)
		verdict_show(v, status, v->found_since_us, v->found_reason);
}

void
topo_verdict_set(
    struct topo_verdict *v, enum topo_status status, int64_t now_us, const char *reason)
{
	pthread_mutex_lock(&v->lock);
	verdict_find(v, status, now_us, reason);
	pthread_mutex_unlock(&v->lock);
}

bool
topo_verdict_order(
    struct topo_verdict *v, enum topo_status word, int64_t now_us, const char *reason)
{
	int was;

	INVARIANT(
	    word == TOPO_DRAINING || word == TOPO_MAINTENANCE || word == TOPO_UNKNOWN);
	pthread_mutex_lock(&v->lock);
	was = atomic_exchange(&v->word, (int)word);
	if (word != TOPO_UNKNOWN)
		verdict_show(v, word,
		    was == (int)word ? atomic_load(&v->since_us) : now_us, reason);
	else if (was == TOPO_MAINTENANCE)
		/* Nobody has looked at it meanwhile: one bad probe, and it is down. */
		verdict_find(v, TOPO_HALF_OPEN, now_us, "maintenance has ended");
	else if (was == TOPO_DRAINING)
		verdict_show(v, (enum topo_status)atomic_load(&v->found),
		    v->found_since_us, v->found_reason);
	pthread_mutex_unlock(&v->lock);
	/* Health looks at it at once. */
	if (word == TOPO_UNKNOWN && was != TOPO_UNKNOWN)
		atomic_fetch_add(&v->failures, 1);
	return (was != (int)word);
}

bool
topo_verdict_is_up(const struct topo_verdict *v)
{
	int status = atomic_load_explicit(&v->status, memory_order_relaxed);

	return (
	    status != TOPO_DOWN && status != TOPO_MAINTENANCE && status != TOPO_DRAINING);
}

/* ---- who is the primary ---- */

/* The database of the group of root that the verdict is on; NULL: it is not of the group. */
static const struct topo_database *
member_of(const struct topo_database *root, const struct topo_verdict *v)
{
	if (v == NULL)
		return (NULL);
	if (root->verdict == v)
		return (root);
	for (size_t i = 0; i < root->copy_count; i++)
		if (root->copies[i]->verdict == v)
			return (root->copies[i]);
	return (NULL);
}

static const struct topo_database *
root_of(const struct topo_database *d)
{
	return (d->replica_of != NULL ? d->replica_of : d);
}

const struct topo_database *
topo_database_primary(const struct topo_database *d, const struct topo_database **rival)
{
	const struct topo_database *root = root_of(d), *primary, *other;

	if (rival != NULL)
		*rival = NULL;
	if (root->copy_count == 0 || root->verdict == NULL)
		return (root);
	/* The rival first: health takes it away after it has named the primary. */
	other = member_of(root, atomic_load(&root->verdict->rival));
	primary = member_of(root, atomic_load(&root->verdict->primary));
	if (primary == NULL)
		primary = root;
	if (rival != NULL && other != primary)
		*rival = other;
	return (primary);
}

bool
topo_database_is_primary(const struct topo_database *d)
{
	return (topo_database_primary(d, NULL) == d);
}

bool
topo_verdict_awaits_primary(const struct topo_database *d, int64_t *since_us)
{
	const struct topo_database *root = root_of(d), *primary;
	int64_t since;

	if (root->copy_count == 0 || root->verdict == NULL)
		return (false);
	since = atomic_load(&root->verdict->missing_us);
	primary = topo_database_primary(d, NULL);
	if (since == 0 || atomic_load(&primary->verdict->word) != TOPO_UNKNOWN)
		return (false);
	if (since_us != NULL)
		*since_us = since;
	return (true);
}
