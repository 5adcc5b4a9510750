/* SHOW HEALTH and REPLICAS: what the verdicts say; nobody is asked. */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

/* The configured databases, in the order of the file. */
static const struct topo_database *
next_database(const struct show *show, size_t *at)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;

	while (*at < topo_database_count(topo)) {
		const struct topo_database *db = topo_database(topo, (*at)++);

		if (!db->is_auto)
			return (db);
	}
	return (NULL);
}

static struct topo_verdict *
verdict_of(const struct topo_database *db)
{
	return (db->verdict != NULL ? db->verdict : topo_verdict(db->name));
}

static enum topo_status
status_of(const struct topo_database *db)
{
	return ((enum topo_status)atomic_load(&verdict_of(db)->status));
}

void
row_instant(struct show *show, enum view_column column, int64_t us)
{
	int64_t wall_ms = (clock_wall_us() - (clock_us() - us)) / 1000;
	time_t at = (time_t)(wall_ms / 1000);
	char text[64], second[32] = "";
	struct tm tm;

	if (us == 0 || gmtime_r(&at, &tm) == NULL) {
		row_null(show, column);
		return;
	}
	(void)strftime(second, sizeof(second), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03d+00", second, (int)(wall_ms % 1000));
	row_text(show, column, text);
}

/* -1: NULL. */
static void
row_known(struct show *show, enum view_column column, int64_t value)
{
	if (value < 0)
		row_null(show, column);
	else
		row_int(show, column, value);
}

static void
row_known_ms(struct show *show, enum view_column column, int64_t us)
{
	row_known(show, column, us < 0 ? -1 : us / 1000);
}

/* ---- HEALTH ---- */

static void
health_texts(struct show *show, const struct topo_database *db, struct topo_verdict *v)
{
	char reason[sizeof(v->reason)], version[sizeof(v->version)];

	pthread_mutex_lock(&v->lock);
	(void)text_copy(reason, sizeof(reason), v->reason);
	(void)text_copy(version, sizeof(version), v->version);
	pthread_mutex_unlock(&v->lock);
	if (!db->is_configured)
		snprintf(reason, sizeof(reason), "not configured, statements go to %s",
		    db->fallback != NULL ? db->fallback->name : "nobody");
	row_text(show, COL_HEALTH_version, version[0] != '\0' ? version : NULL);
	row_text(show, COL_HEALTH_reason, reason[0] != '\0' ? reason : NULL);
}

static void
health_row(struct show *show, const struct topo_database *db)
{
	static const char *const roles[] = {
	    [TOPO_ROLE_UNKNOWN] = NULL,
	    [TOPO_ROLE_PRIMARY] = "primary",
	    [TOPO_ROLE_REPLICA] = "replica",
	};
	struct topo_verdict *v = verdict_of(db);
	int64_t checked = atomic_load(&v->checked_us),
		took = atomic_load(&v->response_us);
	char text[32];

	row_text(show, COL_HEALTH_database, db->name);
	row_text(show, COL_HEALTH_role, roles[atomic_load(&v->role)]);
	row_text(show, COL_HEALTH_status, topo_status_name(status_of(db)));
	row_instant(show, COL_HEALTH_last_checked, checked);
	row_known_ms(show, COL_HEALTH_age_ms, checked != 0 ? clock_us() - checked : -1);
	snprintf(text, sizeof(text), "%" PRId64 ".%03d", took / 1000, (int)(took % 1000));
	row_text(show, COL_HEALTH_response_time_ms, took >= 0 ? text : NULL);
	row_known(show, COL_HEALTH_connection_count,
	    checked != 0 ? (int64_t)atomic_load(&v->connections) : -1);
	row_known_ms(show, COL_HEALTH_lag_ms, atomic_load(&v->lag_us));
	row_known(show, COL_HEALTH_lag_bytes, atomic_load(&v->lag_bytes));
	row_instant(show, COL_HEALTH_since, atomic_load(&v->since_us));
	health_texts(show, db, v);
	row_end(show);
}

void
view_health_rows(struct show *show)
{
	const struct topo_database *db;
	size_t at = 0;

	while ((db = next_database(show, &at)) != NULL)
		health_row(show, db);
}

/* ---- REPLICAS ---- */

/* As route chooses: not one that lags, drains or cannot answer. */
static bool
is_usable(const struct topo_database *db)
{
	enum topo_status status = status_of(db);

	return (db->is_configured && !atomic_load(&verdict_of(db)->is_fenced) &&
		(status == TOPO_HEALTHY || status == TOPO_UNKNOWN ||
		    status == TOPO_HALF_OPEN));
}

static void
replica_row(
    struct show *show, const struct topo_database *db, const struct topo_database *of)
{
	struct topo_verdict *v = verdict_of(db);
	uint64_t lsn = atomic_load(&v->replayed_lsn);
	char text[32];

	snprintf(text, sizeof(text), "%" PRIX64 "/%" PRIX64, lsn >> 32, lsn & UINT32_MAX);
	row_text(show, COL_REPLICAS_database, db->name);
	row_text(show, COL_REPLICAS_replica_of, of->name);
	row_text(show, COL_REPLICAS_replayed, lsn != 0 ? text : NULL);
	row_known(show, COL_REPLICAS_lag_bytes, atomic_load(&v->lag_bytes));
	row_known_ms(show, COL_REPLICAS_lag_ms, atomic_load(&v->lag_us));
	row_text(show, COL_REPLICAS_usable, is_usable(db) ? "t" : "f");
	row_end(show);
}

/* Of a primary and its replicas, all but the one that is the primary now. */
void
view_replicas_rows(struct show *show)
{
	const struct topo_database *db;
	size_t at = 0;

	while ((db = next_database(show, &at)) != NULL) {
		const struct topo_database *primary = topo_database_primary(db, NULL);

		if (primary != db)
			replica_row(show, db, primary);
	}
}
