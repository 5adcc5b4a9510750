/*
 * What `pgweave check` adds to the file: whether the tables that routes and shards name are
 * there. Each database is asked with libpq in a thread of its own: this process has no loops,
 * and one that does not answer holds up no other.
 */
#include "private.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_S    "3"
#define OPTIONS      "-c statement_timeout=10s"
#define WARNING_MAX  1024
#define VISITS_MAX   64 /* at a time */
#define NAME_MAX_LEN 160

struct visit {
	const struct topo *topo;
	const struct topo_database *database;
	pthread_t thread;
	struct catalog_db *found; /* NULL: error says why */
	char error[256];
};

/* ---- one database ---- */

static PGresult *
ask(PGconn *conn, const char *sql, struct visit *v)
{
	PGresult *r = PQexec(conn, sql);

	if (PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK)
		return (r);
	side_error_text(PQerrorMessage(conn), v->error, sizeof(v->error));
	PQclear(r);
	return (NULL);
}

static void
read_tables(PGconn *conn, struct visit *v)
{
	PGresult *path = ask(conn, ask_fingerprint_sql, v),
		 *relations = path != NULL ? ask(conn, ask_relations_sql, v) : NULL;
	struct catalog_draft *draft;

	if (relations != NULL && PQnfields(path) == 2 && PQnfields(relations) == 7) {
		draft = catalog_draft_create(v->database->name, CATALOG_BYTES_MAX);
		ask_take_path(draft, path);
		ask_take_relations(draft, relations);
		v->found = catalog_draft_end(draft);
	} else if (relations != NULL) {
		(void)text_copy(v->error, sizeof(v->error), "an answer of other columns");
	}
	PQclear(relations);
	PQclear(path);
}

static PGconn *
connect_to(struct visit *v)
{
	PGconn *conn = NULL;

	if (!side_can_login(v->topo, v->database)) {
		(void)text_copy(v->error, sizeof(v->error),
		    "no user is given for it whose password is known");
		return (NULL);
	}
	for (size_t host = 0; host < v->database->host_count; host++) {
		struct side_params p;

		side_params(&p, v->topo, v->database, host, "pgweave check");
		side_params_add(&p, "connect_timeout", CONNECT_S);
		side_params_add(&p, "options", OPTIONS);
		PQfinish(conn);
		conn = PQconnectdbParams(p.keys, p.values, 0);
		if (PQstatus(conn) == CONNECTION_OK)
			return (conn);
		side_error_text(PQerrorMessage(conn), v->error, sizeof(v->error));
	}
	PQfinish(conn);
	return (NULL);
}

static void *
visit_run(void *arg)
{
	struct visit *v = arg;
	PGconn *conn = connect_to(v);

	if (conn == NULL)
		return (NULL);
	read_tables(conn, v);
	PQfinish(conn);
	return (NULL);
}

static void
visits_run(struct visit *visits, size_t count)
{
	for (size_t done = 0; done < count;) {
		size_t n = count - done < VISITS_MAX ? count - done : VISITS_MAX,
		       started = 0;

		while (started < n && pthread_create(&visits[done + started].thread, NULL,
					  visit_run, &visits[done + started]) == 0)
			started++;
		for (size_t i = 0; i < started; i++)
			pthread_join(visits[done + i].thread, NULL);
		/* Without threads, one after the other. */
		for (size_t i = started; i < n; i++)
			(void)visit_run(&visits[done + i]);
		done += n;
	}
}

/* ---- which databases ---- */

static bool
says_where(const struct topo_virtual *v)
{
	return (v->route_count > 0 || v->shard_count > 0);
}

static void
visits_add(struct visit *visits, size_t *count, const struct topo *topo,
    const struct topo_database *db)
{
	if (!db->is_configured || db->host_count == 0)
		return;
	for (size_t i = 0; i < *count; i++)
		if (visits[i].database == db)
			return;
	visits[*count].topo = topo;
	visits[(*count)++].database = db;
}

static struct visit *
visits_make(const struct topo *topo, size_t *count)
{
	struct visit *visits =
	    mem_alloc((topo_database_count(topo) + 1) * sizeof(*visits));

	*count = 0;
	for (size_t i = 0; i < topo_virtual_count(topo); i++) {
		const struct topo_virtual *v = topo_virtual(topo, i);

		for (size_t k = 0; says_where(v) && k < v->member_count; k++)
			visits_add(
			    visits, count, topo, topo_database_served(v->members[k]));
	}
	return (visits);
}

/* ---- what is wrong ---- */

static void
check_shard(
    const struct catalog *c, const struct topo_shard *s, struct conf_problems *problems)
{
	for (size_t i = 0; i < s->table_count; i++) {
		char schema[NAME_MAX_LEN];
		const char *dot = strchr(s->tables[i], '.'),
			   *name = dot != NULL ? dot + 1 : s->tables[i];

		(void)text_copy(
		    schema, sizeof(schema), dot != NULL ? s->tables[i] : "public");
		schema[strcspn(schema, ".")] = '\0';
		for (size_t k = 0; k < s->member_count; k++) {
			const struct catalog_db *db =
			    catalog_db(c, topo_database_served(s->members[k])->name);

			if (catalog_is_whole(db) &&
			    catalog_relation(db, schema, name) == NULL)
				conf_warning(problems, s->at,
				    "%s: no such table in database \"%s\"", s->tables[i],
				    s->members[k]->name);
		}
	}
}

static void
check_virtual(
    const struct catalog *c, const struct topo_virtual *v, struct conf_problems *problems)
{
	char why[WARNING_MAX];
	uint64_t was = 0;

	for (size_t i = 0; i < v->route_count; i++) {
		catalog_route_warning(c, v, &v->routes[i], why, sizeof(why));
		if (why[0] != '\0')
			conf_warning(problems, v->routes[i].at, "%s: %s",
			    v->routes[i].pattern, why);
	}
	for (size_t i = 0; i < v->shard_count; i++)
		check_shard(c, &v->shards[i], problems);
	warn_of_twins(c, v, &was, why, sizeof(why));
	if (why[0] != '\0')
		conf_warning(problems, v->at, "%s", why);
}

void
catalog_check(const struct topo *topo, struct conf_problems *problems)
{
	size_t count, found = 0;
	struct visit *visits = visits_make(topo, &count);
	struct catalog_db **dbs = mem_alloc((count + 1) * sizeof(struct catalog_db *));
	struct catalog *c;

	visits_run(visits, count);
	for (size_t i = 0; i < count; i++) {
		if (visits[i].found != NULL)
			dbs[found++] = visits[i].found;
		else
			conf_warning(problems, visits[i].database->at,
			    "database \"%s\" was not asked for its tables: %s",
			    visits[i].database->name, visits[i].error);
	}
	c = catalog_make(dbs, found);
	for (size_t i = 0; i < topo_virtual_count(topo); i++)
		if (says_where(topo_virtual(topo, i)))
			check_virtual(c, topo_virtual(topo, i), problems);
	catalog_release(c);
	for (size_t i = 0; i < found; i++)
		catalog_db_release(dbs[i]);
	free(dbs);
	free(visits);
}
