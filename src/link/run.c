/* Queries of the proxy's own on a link: parameters, resets, checks, connect_query. */
#include "private.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct link_run {
	link_ran *ran;
	link_row *row; /* NULL: rows are swallowed */
	void *arg;
	enum link_state after;
	bool failed;
	struct buf error; /* body of the first ErrorResponse */
};

void
link_run(struct link *l, const char *sql, link_ran *ran, void *arg)
{
	link_run_rows(l, sql, NULL, ran, arg);
}

void
link_run_instead(struct link *l, link_ran *ran, void *arg)
{
	INVARIANT(l->state == LINK_RUNNING && l->run != NULL);
	l->run->row = NULL;
	l->run->ran = ran;
	l->run->arg = arg;
}

void
link_run_rows(struct link *l, const char *sql, link_row *row, link_ran *ran, void *arg)
{
	struct buf out = {0};

	/* A transaction may be open: ROLLBACK is one of these. */
	INVARIANT(l->run == NULL && l->requests.count == 0 && !l->wants_sync);
	l->run_us = clock_us();
	/* "Query" drops the unnamed statement (protocol 3, Simple Query). */
	l->unnamed = 0;
	l->run = mem_alloc(sizeof(*l->run));
	*l->run = (struct link_run){.ran = ran,
	    .row = row,
	    .arg = arg,
	    .after = l->state == LINK_LENT ? LINK_LENT : LINK_IDLE};
	link_move(l, LINK_RUNNING);
	proto_query(&out, sql);
	stream_write(&l->stream, out.mem, out.len);
	buf_free(&out);
}

void
link_run_free(struct link *l)
{
	if (l->run == NULL)
		return;
	buf_free(&l->run->error);
	free(l->run);
	l->run = NULL;
}

/* ReadyForQuery: the link is again what it was, and the one who asked is told. */
static void
link_run_over(struct link *l)
{
	struct link_run *run = l->run;
	struct proto_error_fields error = {.severity = "ERROR",
	    .sqlstate = "XX000",
	    .message = "malformed error",
	    .detail = "",
	    .hint = "",
	    .context = ""};

	if (run->failed && proto_error_parse(run->error.mem, run->error.len, &error) != 0)
		log_warning("S-%#" PRIx64 ": %s malformed ErrorResponse", l->id, l->name);
	l->run = NULL;
	link_move(l, run->after);
	run->ran(l, run->arg, run->failed ? &error : NULL);
	buf_free(&run->error);
	free(run);
}

size_t
link_run_bytes(struct link *l, const uint8_t *p, size_t len)
{
	size_t used = 0;

	while (used < len && l->state == LINK_RUNNING) {
		ssize_t n = link_message_size(p + used, len - used, NET_READ_BYTES * 16);
		const uint8_t *body = p + used + PROTO_HEAD;
		char type = (char)p[used];

		if (n == 0)
			break;
		if (n < 0 || type == 'G' || type == 'W') {
			link_gone(l, "unexpected answer to a query of the proxy's own");
			return (len);
		}
		used += (size_t)n;
		if (type == 'E' && !l->run->failed) {
			l->run->failed = true;
			buf_add(&l->run->error, body, (size_t)n - PROTO_HEAD);
		} else if (type == 'C') {
			(void)link_note_tag(
			    l, (const char *)body, (size_t)n - PROTO_HEAD);
		} else if (type == 'Z') {
			if (n != PROTO_HEAD + 1 ||
			    !proto_is_of((char)body[0],
				PROTO_TYPE('I') | PROTO_TYPE('T') | PROTO_TYPE('E'))) {
				link_gone(l, "malformed ReadyForQuery");
				return (len);
			}
			l->txn = (char)body[0];
			if (l->has_defined && l->txn == 'I')
				link_define_over(l);
			link_run_over(l);
		} else if (type == 'D' && l->run->row != NULL) {
			l->run->row(l->run->arg, body, (size_t)n - PROTO_HEAD);
		} else
			(void)link_note_async(l, type, body, (size_t)n - PROTO_HEAD);
	}
	/* What follows is for the next reader, in a later round: it is offered again. */
	if (used < len && l->state != LINK_RUNNING && l->state != LINK_CLOSED)
		stream_resume(&l->stream);
	return (l->state == LINK_CLOSED ? len : used);
}
