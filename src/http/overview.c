/* The whole at a glance: connections, /health, /metrics, the status page. */
#include "config.h"
#include "private.h"
#include <string.h>

/* ---- connections ---- */

struct connections {
	struct json j;
	const struct collection *all;
};

static void
put_connections(void *arg, const struct topo_database *db)
{
	struct connections *c = arg;
	unsigned links = 0, idle = 0, waiting = 0;

	for (size_t i = 0; i < c->all->pool_count; i++) {
		const struct pool_sum *p = &c->all->pools[i];

		if (strcmp(p->database, db->name) != 0)
			continue;
		links += p->links;
		idle += p->idle;
		waiting += p->waiting;
	}
	json_key(&c->j, db->name);
	json_open(&c->j, '{');
	json_key(&c->j, "totalConnections");
	json_int(&c->j, links);
	json_key(&c->j, "idleConnections");
	json_int(&c->j, idle);
	json_key(&c->j, "waitingConnections");
	json_int(&c->j, waiting);
	json_close(&c->j, '}');
}

static void
write_connections(struct json *j, const struct job *job, const struct collection *all)
{
	struct connections c = {.j = *j, .all = all};

	json_open(&c.j, '{');
	databases_each(job, put_connections, &c);
	json_close(&c.j, '}');
	*j = c.j;
}

static void
connections_done(struct job *job, const struct collection *all)
{
	struct buf body = {0};
	struct json j = {.out = &body};

	write_connections(&j, job, all);
	job_json(job, 200, &body);
}

void
overview_connections(struct job *job)
{
	collect_pools(job, connections_done);
}

/* ---- health ---- */

struct summary {
	struct json j;
	unsigned configured, up;
};

static void
count_up(void *arg, const struct topo_database *db)
{
	struct summary *s = arg;

	s->configured += db->is_configured;
	s->up += database_is_up(db);
}

static void
put_health(void *arg, const struct topo_database *db)
{
	struct summary *s = arg;

	json_key(&s->j, db->name);
	json_open(&s->j, '{');
	health_fields(&s->j, db);
	json_close(&s->j, '}');
}

static const char *
summary_status(const struct summary *s)
{
	if (s->up == s->configured)
		return ("healthy");
	return (s->up > 0 ? "degraded" : "down");
}

static void
health_done(struct job *job, const struct collection *all)
{
	struct buf body = {0};
	struct summary s = {.j.out = &body};
	unsigned clients = 0;

	for (unsigned i = 0; i < SESSION_STATES; i++)
		clients += i != SESSION_CLOSED ? all->clients[i] : 0;
	databases_each(job, count_up, &s);
	json_open(&s.j, '{');
	json_key(&s.j, "status");
	json_text(&s.j, summary_status(&s));
	json_key(&s.j, "version");
	json_text(&s.j, PACKAGE_VERSION);
	json_key(&s.j, "startedAt");
	json_time(&s.j, job->http->start_wall_us);
	json_key(&s.j, "workers");
	json_int(&s.j, net_worker_count());
	json_key(&s.j, "clients");
	json_int(&s.j, clients);
	json_key(&s.j, "databases");
	json_open(&s.j, '{');
	databases_each(job, put_health, &s);
	json_close(&s.j, '}');
	json_key(&s.j, "connections");
	write_connections(&s.j, job, all);
	json_close(&s.j, '}');
	job_json(job, s.configured > 0 && s.up == 0 ? 503 : 200, &body);
}

void
overview_health(struct job *job)
{
	collect_pools(job, health_done);
}

/* ---- metrics, page ---- */

static void
metrics_done(struct job *job, const struct collection *all)
{
	struct buf body = {0};

	metrics_write(&body, job, all);
	job_answer(job, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

void
overview_metrics(struct job *job)
{
	collect_pools(job, metrics_done);
}

static void
page_done(struct job *job, const struct collection *all)
{
	struct buf body = {0};

	page_write(&body, job, all);
	evhttp_add_header(evhttp_request_get_output_headers(job->request),
	    "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
	job_answer(job, 200, "text/html; charset=utf-8", &body);
}

void
overview_page(struct job *job)
{
	collect_pools(job, page_done);
}
