/*
 * The HTTP server: where it listens, and what each request goes through.
 *
 *     path -> endpoint (404, 405) -> who asks (401) -> the endpoint's run() -> answer
 *
 * evhttp owns connections and requests. A job is ours from the moment a request is complete
 * until it is answered; a client that goes away before that ends its job, and with it the
 * statement that runs.
 */
#include "private.h"
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEADERS_MAX  65536
#define IDLE_SECONDS 60 /* a connection that is quiet for so long is closed */
#define REST_US      200000

static struct http *
http_of(const struct worker *w)
{
	return (w->slot[WORKER_HTTP]);
}

/* ---- jobs ---- */

static void
job_free(struct job *job)
{
	INVARIANT(job->magic == JOB_MAGIC);
	job->magic = 0;
	TAILQ_REMOVE(&job->http->jobs, job, entry);
	if (job->state_free != NULL)
		job->state_free(job->state);
	if (job->tether != NULL)
		job->tether->job = NULL;
	if (job->hangup != NULL)
		event_free(job->hangup);
	who_free(&job->who);
	topo_release(job->topo);
	free(job->part);
	free(job);
}

static void
body_released(const void *p, size_t len, void *arg)
{
	(void)p;
	(void)len;
	free(arg);
}

void
job_answer(struct job *job, int status, const char *content_type, struct buf *body)
{
	struct evhttp_request *request = job->request;
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	struct evbuffer *out = evbuffer_new();
	char length[24];

	INVARIANT(out != NULL);
	log_debug("H: %s %s %s: %d, %lld us",
	    job->who.login != NULL ? job->who.login : "-",
	    evhttp_request_get_command(request) == EVHTTP_REQ_POST ? "POST" : "GET",
	    evhttp_request_get_uri(request), status,
	    (long long)(clock_us() - job->start_us));
	stat_count(M_http_requests, 1);
	if (status >= 400)
		stat_count(M_http_errors, 1);
	snprintf(length, sizeof(length), "%u", body->len);
	evhttp_add_header(headers, "Content-Type", content_type);
	evhttp_add_header(headers, "Content-Length", length);
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD || body->len == 0)
		buf_free(body);
	else if (evbuffer_add_reference(
		     out, body->mem, body->len, body_released, body->mem) != 0)
		buf_free(body);
	*body = (struct buf){0};
	job_free(job);
	evhttp_send_reply(request, status, status_reason(status), out);
	evbuffer_free(out);
}

static void
job_hung_up(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	/* Written in case that only one half of the connection is closed. */
	job_error(arg, 503, "57014", "the client closed its side of the connection", NULL,
	    NULL);
}

static void
job_watch(struct job *job, struct bufferevent *bev)
{
	job->hangup = event_new(
	    job->http->worker->base, bufferevent_getfd(bev), EV_CLOSED, job_hung_up, job);
	if (job->hangup == NULL || event_add(job->hangup, NULL) != 0)
		log_warning("H: a client that goes away will not be noticed");
}

/* A page of another site that posts with the credentials its visitor's browser has kept. */
static bool
job_is_cross_site(const struct job *job)
{
	const char *origin = job_header(job, "Origin"), *host = job_header(job, "Host");
	const char *at = origin != NULL ? strstr(origin, "://") : NULL;

	if (origin == NULL)
		return (false);
	return (at == NULL || host == NULL || strcasecmp(at + 3, host) != 0);
}

static void
job_begin(struct job *job, const char *path)
{
	enum evhttp_cmd_type method = evhttp_request_get_command(job->request);
	char allow[32], message[64];

	job->endpoint = endpoint_find(method, path, &job->part, allow, sizeof(allow));
	if (evbuffer_get_length(evhttp_request_get_input_buffer(job->request)) >
	    job->http->body_max)
		job_error(job, 413, "54000", "the body is larger than http_max_body",
		    NULL, NULL);
	else if (job->endpoint != NULL) {
		bool is_public = strcmp(job->endpoint->path, "/metrics") == 0 &&
				 job_settings(job)->http_metrics_public;

		if (method == EVHTTP_REQ_POST && job_is_cross_site(job))
			job_error(job, 403, "42501",
			    "requests from other sites are refused", NULL, NULL);
		else if (job->endpoint->is_open || is_public || who_check(job))
			job->endpoint->run(job);
	} else if (allow[0] != '\0') {
		evhttp_add_header(
		    evhttp_request_get_output_headers(job->request), "Allow", allow);
		snprintf(message, sizeof(message), "this path takes %s", allow);
		job_error(job, 405, "0A000", message, NULL, NULL);
	} else
		job_error(job, 404, "42704", "there is no such path", NULL,
		    "POST /api/database/query runs a statement; GET / shows the status");
}

static void
request_arrived(struct evhttp_request *request, void *arg)
{
	struct http *h = arg;
	struct evhttp_connection *connection = evhttp_request_get_connection(request);
	struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(request));
	struct job *job = mem_alloc(sizeof(*job));
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	job->magic = JOB_MAGIC;
	job->http = h;
	job->request = request;
	job->start_us = clock_us();
	job->topo = topo_hold(pool_worker(h->worker)->topo);
	if (getpeername(bufferevent_getfd(bev), (struct sockaddr *)&sa, &len) == 0)
		addr_from_socket(&job->peer, (struct sockaddr *)&sa, -1);
	TAILQ_INSERT_TAIL(&h->jobs, job, entry);
	job_watch(job, bev);
	job_begin(job, path != NULL && *path != '\0' ? path : "/");
}

/* ---- listening ---- */

static void
rest_over(evutil_socket_t fd, short what, void *arg)
{
	struct http *h = arg;

	(void)fd;
	(void)what;
	for (unsigned i = 0; i < h->listener_count; i++)
		evconnlistener_enable(h->listeners[i]);
}

/* Without descriptors, accepting would fail again and again. */
static void
accept_failed(struct evconnlistener *l, void *arg)
{
	struct http *h = http_of(net_side());
	struct timeval after = {.tv_usec = REST_US};

	(void)l;
	(void)arg;
	log_error("H: cannot accept a connection: %s; resting for %d ms", strerror(errno),
	    REST_US / 1000);
	for (unsigned i = 0; i < h->listener_count; i++)
		evconnlistener_disable(h->listeners[i]);
	INVARIANT(event_add(h->rest, &after) == 0);
}

static int
listen_address(struct http *h, const struct addrinfo *ai, const char *spec, char *why,
    size_t why_len)
{
	unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
			 LEV_OPT_REUSEABLE |
			 (ai->ai_family == AF_INET6 ? LEV_OPT_BIND_IPV6ONLY : 0);
	struct evconnlistener *l;

	if (h->listener_count == ARRAY_LEN(h->listeners)) {
		snprintf(why, why_len, "http_listen: more than %zu addresses",
		    ARRAY_LEN(h->listeners));
		return (F_SYSTEM);
	}
	l = evconnlistener_new_bind(
	    h->worker->base, NULL, NULL, flags, -1, ai->ai_addr, (int)ai->ai_addrlen);
	if (l == NULL || evhttp_bind_listener(h->server, l) == NULL) {
		snprintf(why, why_len, "http_listen: cannot listen on %s: %s", spec,
		    strerror(errno));
		if (l != NULL)
			evconnlistener_free(l);
		return (F_SYSTEM);
	}
	evconnlistener_set_error_cb(l, accept_failed);
	h->listeners[h->listener_count++] = l;
	log_info("listening on %s (HTTP)", spec);
	return (0);
}

static int
listen_spec(struct http *h, const char *spec, char *why, size_t why_len)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	char *copy = mem_str(spec), *host, *port;
	int err, fault = 0;

	if (!conf_address_split(copy, &host, &port)) {
		snprintf(why, why_len,
		    "http_listen: \"%s\" is not address:port, as 127.0.0.1:6480 or "
		    "[::1]:6480",
		    spec);
		free(copy);
		return (F_SYSTEM);
	}
	/* Before the loop runs: this may block, and nobody waits yet. */
	err = getaddrinfo(
	    *host == '\0' || strcmp(host, "*") == 0 ? NULL : host, port, &hints, &list);
	if (err != 0) {
		snprintf(
		    why, why_len, "http_listen: \"%s\": %s", spec, gai_strerror(err));
		fault = F_SYSTEM;
	}
	for (const struct addrinfo *ai = list; ai != NULL && fault == 0; ai = ai->ai_next)
		fault = listen_address(h, ai, spec, why, why_len);
	if (list != NULL)
		freeaddrinfo(list);
	free(copy);
	return (fault);
}

static int
listen_all(struct http *h, const char *list, char *why, size_t why_len)
{
	const char *at = list;
	int fault = 0;

	while (*at != '\0' && fault == 0) {
		size_t skip = strspn(at, ", \t"), len = strcspn(at + skip, ", \t");
		char *spec = mem_strn(at + skip, len);

		if (len > 0)
			fault = listen_spec(h, spec, why, why_len);
		free(spec);
		at += skip + len;
	}
	return (fault);
}

int
http_start(struct worker *side, const struct settings *set, char *why, size_t why_len)
{
	struct http *h;
	int fault;

	if (set->http_listen[0] == '\0')
		return (0);
	h = mem_alloc(sizeof(*h));
	h->worker = side;
	h->start_wall_us = clock_wall_us();
	TAILQ_INIT(&h->jobs);
	random_bytes(h->digest_key, sizeof(h->digest_key));
	h->server = evhttp_new(side->base);
	h->rest = evtimer_new(side->base, rest_over, h);
	INVARIANT(h->server != NULL && h->rest != NULL);
	evhttp_set_max_headers_size(h->server, HEADERS_MAX);
	/* evhttp's own answers are HTML: what is a little too large gets ours. */
	h->body_max = (size_t)set->http_max_body;
	evhttp_set_max_body_size(h->server, (ev_ssize_t)set->http_max_body * 2);
	/* The rest of a larger one is read and dropped, so that its sender sees the 413. */
	INVARIANT(evhttp_set_flags(h->server, EVHTTP_SERVER_LINGERING_CLOSE) == 0);
	evhttp_set_timeout(h->server, IDLE_SECONDS);
	evhttp_set_allowed_methods(h->server, EVHTTP_REQ_GET | EVHTTP_REQ_POST |
						  EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
						  EVHTTP_REQ_DELETE | EVHTTP_REQ_PATCH |
						  EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE);
	evhttp_set_gencb(h->server, request_arrived, h);
	side->slot[WORKER_HTTP] = h;
	fault = listen_all(h, set->http_listen, why, why_len);
	if (fault != 0)
		http_stop(side);
	return (fault);
}

void
http_stop(struct worker *side)
{
	struct http *h = http_of(side);
	struct job *job;

	if (h == NULL)
		return;
	while ((job = TAILQ_FIRST(&h->jobs)) != NULL)
		job_free(job);
	evhttp_free(h->server);
	event_free(h->rest);
	mem_free_secret(h, sizeof(*h));
	side->slot[WORKER_HTTP] = NULL;
}
