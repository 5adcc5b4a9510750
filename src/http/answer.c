/* What requests ask with and are answered with: headers, arguments, bodies, errors. */
#include "private.h"
#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct settings *
job_settings(const struct job *job)
{
	return (topo_settings(job->topo));
}

const char *
job_header(const struct job *job, const char *name)
{
	return (evhttp_find_header(evhttp_request_get_input_headers(job->request), name));
}

char *
job_argument(const struct job *job, const char *name)
{
	const char *query =
		       evhttp_uri_get_query(evhttp_request_get_evhttp_uri(job->request)),
		   *found;
	struct evkeyvalq arguments;
	char *copy = NULL;

	if (query == NULL || evhttp_parse_query_str(query, &arguments) != 0)
		return (NULL);
	found = evhttp_find_header(&arguments, name);
	if (found != NULL)
		copy = mem_str(found);
	evhttp_clear_headers(&arguments);
	return (copy);
}

json_t *
job_body(struct job *job)
{
	struct evbuffer *in = evhttp_request_get_input_buffer(job->request);
	size_t len = evbuffer_get_length(in);
	const char *p = len > 0 ? (const char *)evbuffer_pullup(in, -1) : "";
	struct refusal why;
	json_t *body;

	if (body_parse(p, len, &body, &why) != 0)
		job_refuse(job, &why);
	return (body);
}

void
job_json(struct job *job, int status, struct buf *body)
{
	buf_addstr(body, "\n");
	job_answer(job, status, "application/json", body);
}

void
error_object(struct json *j, const struct inner_message *m)
{
	json_open(j, '{');
	json_key(j, "code");
	json_text(j, m->sqlstate);
	json_key(j, "message");
	json_text(j, m->message);
	if (m->detail != NULL && m->detail[0] != '\0') {
		json_key(j, "detail");
		json_text(j, m->detail);
	}
	if (m->hint != NULL && m->hint[0] != '\0') {
		json_key(j, "hint");
		json_text(j, m->hint);
	}
	json_close(j, '}');
}

static void
job_fail(struct job *job, int status, const struct inner_message *m)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(job->request);
	struct buf body = {0};
	struct json j = {.out = &body};
	char seconds[24];
	int64_t wait = m->detail != NULL ? status_retry_after(m->detail) : 0;

	if (status == 401)
		evhttp_add_header(headers, "WWW-Authenticate",
		    "Basic realm=\"pgweave\", charset=\"UTF-8\"");
	if (status == 429) {
		snprintf(
		    seconds, sizeof(seconds), "%lld", (long long)(wait > 0 ? wait : 1));
		evhttp_add_header(headers, "Retry-After", seconds);
	}
	json_open(&j, '{');
	json_key(&j, "error");
	error_object(&j, m);
	json_close(&j, '}');
	job_json(job, status, &body);
}

void
job_error(struct job *job, int status, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	const struct inner_message m = {"ERROR", sqlstate, message, detail, hint};

	job_fail(job, status, &m);
}

void
job_fault(struct job *job, const struct inner_message *m)
{
	job_fail(job, status_of(m->sqlstate), m);
}

void
job_refuse(struct job *job, const struct refusal *why)
{
	job_error(job, status_of(why->sqlstate), why->sqlstate, why->message, NULL, NULL);
}
