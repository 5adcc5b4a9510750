/*
 * Verdicts: one for each database name, for the whole process. They are found under a lock,
 * when a snapshot is built; what they say is read without one.
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
void
topo_verdict_set(
    struct topo_verdict *v, enum topo_status status, int64_t now_us, const char *reason)
{
	pthread_mutex_lock(&v->lock);
	(void)text_copy(v->reason, sizeof(v->reason), reason != NULL ? reason : "");
	pthread_mutex_unlock(&v->lock);
	if (atomic_load(&v->status) == (int)status && atomic_load(&v->since_us) != 0)
		return;
	atomic_store(&v->since_us, now_us);
	atomic_store(&v->status, (int)status);
}

bool
topo_verdict_is_up(const struct topo_verdict *v)
{
	int status = atomic_load_explicit(&v->status, memory_order_relaxed);

	return (status != TOPO_DOWN && status != TOPO_MAINTENANCE);
}
