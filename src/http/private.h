/* http, for its own files. */
#ifndef HTTP_PRIVATE_H
#define HTTP_PRIVATE_H
#include "body.h"
#include "http.h"
#include "inner.h"
#include "json.h"
#include "pool.h"
#include "session.h"
#include "stat.h"
#include "status.h"
#include "topo.h"

#include <event2/http.h>

#define HTTP_VERIFIED 1024 /* proofs remembered: a power of two */

/* Who asks: the strings and structs are the job's snapshot's. */
struct who {
	const char *login;            /* a key's id, or a role's name */
	const struct topo_key *key;   /* NULL: an ordinary login */
	const struct topo_key *rules; /* the key, or the rules of [login x]; NULL: none */
	char *database; /* as a session is to ask for it; NULL: not said, and not clear */
	const struct topo_virtual *virt; /* that this is, or is a member of; or NULL */
	const struct topo_database
	    *member; /* of bank.member, or a plain database; or NULL */
};

/* A secret that was proved, until when that is believed. */
struct verified {
	uint8_t digest[32];
	int64_t until_us;
};

struct job;
TAILQ_HEAD(job_list, job);

/* What the room has, on the side thread. */
struct http {
	struct worker *worker;
	struct evhttp *server;
	struct evconnlistener *listeners[16];
	unsigned listener_count;
	struct event *rest; /* accepting goes on after it */
	size_t body_max;
	struct job_list jobs;
	uint8_t digest_key[32];
	struct verified verified[HTTP_VERIFIED];
	int64_t start_wall_us;
};

/* ---- jobs: one request, from its arrival to its answer (server.c, answer.c) ---- */

struct endpoint;
#define JOB_MAGIC 0x4a4f4253U
struct job {
	uint32_t magic;
	TAILQ_ENTRY(job) entry;
	struct http *http;
	struct evhttp_request *request;
	const struct endpoint *endpoint;
	char *part;              /* what {name} or {id} of the path stands for; NULL */
	const struct topo *topo; /* held */
	struct who who;
	struct addr peer;
	struct event *hangup;
	int64_t start_us;
	struct tether *tether; /* of what goes on elsewhere; NULL: nothing */
	/* What the endpoint keeps while the request waits; freed with the job. */
	void *state;
	void (*state_free)(void *state);
};

/* Every one of these answers the request and frees the job. */
void job_answer(struct job *, int status, const char *content_type, struct buf *body);
/* Takes over the body. */
void job_json(struct job *, int status, struct buf *body);
void job_error(struct job *, int status, const char *sqlstate, const char *message,
    const char *detail, const char *hint);
/* An error of a statement: with the status that fits. */
void job_fault(struct job *, const struct inner_message *);
void job_refuse(struct job *, const struct refusal *);
/* The object {"code","message","detail","hint"} of an error. */
void error_object(struct json *, const struct inner_message *);
/* The body as JSON; NULL: it is none, and the job is answered. */
json_t *job_body(struct job *);
const struct settings *job_settings(const struct job *);
/* "?database=" of the request; the caller frees it. NULL: not given. */
char *job_argument(const struct job *, const char *name);
const char *job_header(const struct job *, const char *name);

/* ---- endpoints (endpoints.c) ---- */

struct endpoint {
	enum evhttp_cmd_type method;
	const char *path; /* "{}" is any one part */
	bool is_open;     /* no credentials needed */
	void (*run)(struct job *);
};
/* The endpoint of a path (without query); NULL: allow says which methods it has ("" there is
 * no such path). part: what {} stands for; the caller frees it. */
const struct endpoint *endpoint_find(
    enum evhttp_cmd_type, const char *path, char **part, char *allow, size_t allow_len);

void query_run(struct job *);
void query_transaction(struct job *);
void query_execute(struct job *);
void federated_run(struct job *);
void info_databases(struct job *);
void info_routed_health(struct job *);
void info_health_all(struct job *);
void info_health_one(struct job *);
void info_configured(struct job *);
void info_models(struct job *);
void info_models_one(struct job *);
void info_backup(struct job *);
void info_up(struct job *);
void info_live(struct job *);
void stats_schema(struct job *);
void stats_all(struct job *);
void stats_one(struct job *);
void overview_connections(struct job *);
void overview_health(struct job *);
void overview_metrics(struct job *);
void overview_page(struct job *);
void jobs_list(struct job *);
void jobs_create(struct job *);
void jobs_run(struct job *);
void jobs_table(struct job *);

/* ---- who asks (who.c) ---- */

/* The credentials of the request, checked. False: the job is answered. */
bool who_check(struct job *) MUST_USE;
void who_free(struct who *);
/* Whether it may see and reach that database. */
bool who_may_reach(const struct who *, const struct topo_database *);
/* The name under which a session reaches that database. The caller frees it. */
char *who_way_to(const struct job *, const struct topo_database *) MUST_USE;
/* The database that {name} stands for; NULL: the job is answered (404, 403). */
const struct topo_database *who_named(struct job *);
/* False: it is not clear which database is meant, and the job is answered. */
bool who_needs_database(struct job *) MUST_USE;

/* ---- databases and their health (health.c) ---- */

/* Calls each() for the databases that the job may see: of a key, those that it may reach; of a
 * login without rules, all. */
void databases_each(
    const struct job *, void (*each)(void *arg, const struct topo_database *), void *arg);
bool database_is_up(const struct topo_database *);
const char *database_status(const struct topo_database *);
/* The fields of a health object, without its braces. */
void health_fields(struct json *, const struct topo_database *);
/* The database where a statement without tables goes; NULL: nowhere, with the refusal. */
const struct topo_database *database_routed(const struct job *, struct refusal *);

/* ---- statements (query.c) ---- */

/* The statement stays until its end. */
void statement_ask(
    struct inner *, const struct statement *, const struct inner_reader *, void *arg);

/* ---- results (result.c) ---- */

/* One statement's answer, as JSON as it comes. */
struct result {
	struct buf rows; /* objects and the commas between them */
	struct buf fields;
	struct buf
	    *names; /* "name": of each column; empty where a later one has the name */
	uint32_t *types;
	unsigned column_count;
	uint64_t row_count;
};
void result_columns(struct result *, const struct inner_column *, unsigned count);
void result_row(struct result *, const struct inner_value *, unsigned count);
/* rows, rowCount, fields, without braces. tag: its count is taken where there are no columns. */
void result_fields(struct json *, const struct result *, const char *tag);
void result_free(struct result *);
/* Warnings on the way. */
struct warnings {
	struct buf list; /* objects and commas */
	unsigned count;
};
void warnings_add(struct warnings *, const struct inner_message *);
void warnings_field(struct json *, const struct warnings *);

/* ---- what all workers have (collect.c) ---- */

struct pool_sum {
	char *database, *user;
	struct metrics metrics;
	unsigned links, idle, opening, waiting, clients;
};
struct collection {
	struct pool_sum *pools; /* by database and user, sorted */
	size_t pool_count;
	unsigned clients[SESSION_STATES];
};
/* done() gets it later, unless the job has ended before; it is valid during the call. */
void collect_pools(struct job *, void (*done)(struct job *, const struct collection *));

/* Between a job and what goes on elsewhere for it, and may outlive it: one at a time. */
struct tether {
	struct job *job; /* NULL: gone */
};
struct tether *tether_create(struct job *);
/* By what went on, at its end: the job or NULL; frees the tether. */
struct job *tether_end(struct tether *);

/* The text of /metrics. */
void metrics_write(struct buf *, const struct job *, const struct collection *);
void page_write(struct buf *, const struct job *, const struct collection *);

#endif
