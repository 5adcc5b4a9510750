/* Databases as health sees them, and which one a request goes to. */
#include "private.h"
#include "route.h"
#include "sql.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

void
databases_each(
    const struct job *job, void (*each)(void *, const struct topo_database *), void *arg)
{
	const struct who *who = &job->who;

	for (size_t i = 0; i < topo_database_count(job->topo); i++) {
		const struct topo_database *db = topo_database(job->topo, i);

		if (!db->is_auto && who_may_reach(who, db))
			each(arg, db);
	}
}

bool
database_is_up(const struct topo_database *db)
{
	return (
	    db->is_configured && db->verdict != NULL && topo_verdict_is_up(db->verdict));
}

const char *
database_status(const struct topo_database *db)
{
	if (!db->is_configured)
		return ("not configured");
	if (db->verdict == NULL)
		return (topo_status_name(TOPO_UNKNOWN));
	return (topo_status_name((enum topo_status)atomic_load(&db->verdict->status)));
}

static const char *
role_name(const struct topo_database *db)
{
	int role =
	    db->verdict != NULL ? atomic_load(&db->verdict->role) : TOPO_ROLE_UNKNOWN;

	if (role == TOPO_ROLE_PRIMARY)
		return ("primary");
	return (role == TOPO_ROLE_REPLICA || db->replica_of != NULL ? "replica" : NULL);
}

static void
verdict_texts(struct json *j, struct topo_verdict *v)
{
	char reason[sizeof(v->reason)], version[sizeof(v->version)];

	pthread_mutex_lock(&v->lock);
	memcpy(reason, v->reason, sizeof(reason));
	memcpy(version, v->version, sizeof(version));
	pthread_mutex_unlock(&v->lock);
	json_key(j, "version");
	json_text(j, version[0] != '\0' ? version : NULL);
	if (reason[0] != '\0') {
		json_key(j, "reason");
		json_text(j, reason);
	}
}

void
health_fields(struct json *j, const struct topo_database *db)
{
	struct topo_verdict *v = db->verdict;
	int64_t checked = v != NULL ? atomic_load(&v->checked_us) : 0;

	json_key(j, "status");
	json_text(j, database_status(db));
	json_key(j, "lastChecked");
	json_time(j, checked != 0 ? clock_wall_us() - (clock_us() - checked) : 0);
	json_key(j, "connectionCount");
	json_int(j, v != NULL ? atomic_load(&v->connections) : 0);
	json_key(j, "responseTime");
	json_ms(j, checked != 0 ? atomic_load(&v->response_us) : -1);
	json_key(j, "role");
	json_text(j, role_name(db));
	if (db->replica_of != NULL) {
		json_key(j, "replicaOf");
		json_text(j, db->replica_of->name);
		json_key(j, "lagMs");
		json_ms(j, v != NULL ? atomic_load(&v->lag_us) : -1);
	}
	if (v != NULL)
		verdict_texts(j, v);
}

/* A refusal because a database is down names it. */
static const struct topo_database *
named_in(const struct topo *topo, const char *message)
{
	for (size_t i = 0; i < topo_database_count(topo); i++) {
		const struct topo_database *db = topo_database(topo, i);
		char *quoted = mem_printf("\"%s\"", db->name);
		bool is_named = strstr(message, quoted) != NULL;

		free(quoted);
		if (is_named)
			return (db);
	}
	return (NULL);
}

const struct topo_database *
database_routed(const struct job *job, struct refusal *why)
{
	static const char sql[] = "SELECT 1";
	static const struct sql_facts facts = {.class = SQL_READ};
	const struct who *who = &job->who;
	const struct topo_database *found = who->member;
	struct route_input in = {
	    .virt = who->virt, .key = who->rules, .facts = &facts, .now_us = clock_us()};
	struct route_plan plan;
	struct sql_scan scan;

	if (found == NULL && who->virt == NULL)
		(void)body_refuse(
		    why, "3D000", "there is no database \"%s\"", who->database);
	if (found != NULL || who->virt == NULL)
		return (found);
	sql_scan(sql, strlen(sql), &scan);
	in.scan = &scan;
	route_plan(&in, &plan);
	sql_scan_free(&scan);
	if (plan.way != ROUTE_REFUSED && plan.leg_count > 0)
		return (plan.legs[0].member);
	if (strcmp(plan.sqlstate, "57P03") == 0)
		found = named_in(job->topo, plan.message);
	if (found == NULL)
		(void)body_refuse(why, plan.sqlstate, "%s", plan.message);
	return (found);
}
