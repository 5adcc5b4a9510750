/*
 * A part of a split: the messages of one database, to and from it. What it answers is read at
 * once, whatever the client does: only rows of RETURNING are kept, within a bound.
 */
#include "split.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- to the server ---- */

static void
part_owe(struct part *p, enum request_kind kind)
{
	struct link *l = p->link;
	int64_t now = clock_us();

	requests_push(&l->requests, kind, ACT_FORWARD);
	l->batch += kind == REQ_SYNC;
	l->unnamed = UINT64_MAX;
	l->query_us = now;
	if (l->xact_us == 0)
		l->xact_us = now;
	p->owed++;
}

void
part_run(struct part *p, const char *sql)
{
	struct buf out = {0};

	part_owe(p, REQ_QUERY);
	proto_query(&out, sql);
	stream_write(&p->link->stream, out.mem, out.len);
	buf_free(&out);
}

static void
put_16(struct buf *b, unsigned v)
{
	uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};

	buf_add(b, bytes, sizeof(bytes));
}

/* Parse, Bind, Describe, Execute and Sync. */
static void
put_extended(struct part *p, struct buf *out)
{
	static const uint8_t names[2], execute[5];
	const struct federate_split *o = &p->split->order;
	struct buf body = {0};

	proto_parse(out, "", p->given.sql, p->given.types, p->given.types_len);
	buf_add(&body, names, sizeof(names));
	buf_add(&body, p->given.values, p->given.values_len);
	put_16(&body, o->format_count);
	for (unsigned i = 0; i < o->format_count; i++)
		put_16(&body, o->formats[i]);
	proto_message(out, 'B', body.mem, body.len);
	buf_free(&body);
	proto_message(out, 'D', "P", 2);
	proto_message(out, 'E', execute, sizeof(execute));
	proto_sync(out);
}

void
part_ask(struct part *p)
{
	const struct federate_split *o = &p->split->order;
	struct buf out = {0};

	if (o->begins)
		part_run(p, "BEGIN");
	if (o->is_copy || !o->is_extended) {
		part_run(p, o->is_copy ? o->sql : p->given.sql);
		return;
	}
	part_owe(p, REQ_SYNC);
	put_extended(p, &out);
	stream_write(&p->link->stream, out.mem, out.len);
	buf_free(&out);
}

static void
part_cancel_over(void *arg)
{
	struct part *p = arg;
	struct split *s = p->split;

	INVARIANT(s->magic == SPLIT_MAGIC && p->cancels > 0 && s->cancels > 0);
	p->cancels--;
	s->cancels--;
	if (s->is_over)
		split_end(s);
	else if (!s->is_sending_cancel)
		split_advance(s);
}

void
part_cancel(struct part *p)
{
	struct split *s = p->split;

	if (p->cancels > 0)
		return;
	p->cancels++;
	s->cancels++;
	s->is_sending_cancel = true;
	link_cancel(p->link, part_cancel_over, p);
	s->is_sending_cancel = false;
}

void
part_close_copy(struct part *p, const char *message)
{
	struct buf out = {0};

	INVARIANT(p->takes);
	p->takes = false;
	if (message == NULL) {
		part_flush(p);
		proto_message(&out, 'c', NULL, 0);
	} else
		proto_message(&out, 'f', message, strlen(message) + 1);
	stream_write(&p->link->stream, out.mem, out.len);
	buf_free(&out);
	buf_free(&p->out);
}

static void
part_send(struct part *p, const uint8_t *data, size_t len)
{
	uint8_t head[PROTO_HEAD] = {'d'};
	struct iovec parts[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)data, len}};

	proto_put32(head + 1, (uint32_t)(len + 4));
	stream_writev(&p->link->stream, parts, 2);
}

void
part_flush(struct part *p)
{
	if (p->out.len == 0)
		return;
	part_send(p, p->out.mem, p->out.len);
	p->out.len = 0;
}

void
part_add(struct part *p, const uint8_t *data, size_t len)
{
	if (p->out.len + len > SPLIT_COPY_BYTES)
		part_flush(p);
	if (len >= SPLIT_COPY_BYTES)
		part_send(p, data, len);
	else
		buf_add(&p->out, data, len);
}

/* ---- losing it ---- */

/* The link is closed. why: what its server said, or what was wrong. */
static void
part_lose(struct part *p, const char *why)
{
	struct split *s = p->split;
	struct link *l = p->link;
	char message[256];

	p->link = NULL;
	p->takes = false;
	p->owed = 0;
	l->user = NULL;
	l->user_arg = NULL;
	if (s->phase == SPLIT_COMMITTING && p->end == PART_OPEN) {
		p->end = p->commits ? PART_LOST : PART_ROLLED_BACK;
		p->error = p->error != NULL ? p->error : mem_str(why);
	} else if (s->phase != SPLIT_COMMITTING) {
		snprintf(message, sizeof(message),
		    "database \"%s\" was lost while the statement ran", p->given.member);
		split_fail(
		    s, fault_info(F_FEDERATE_LOST)->sqlstate, message, why, NULL, NULL);
	}
	s->client.lost(s->arg, l);
}

static void
part_broken(struct part *p, const char *why)
{
	log_warning("S-%#" PRIx64 ": %s server broke the protocol: %s", p->link->id,
	    p->link->name, why);
	link_close(p->link, why);
	part_lose(p, fault_info(F_LINK_PROTOCOL)->text);
}

static void
part_lost(struct link *l, const char *why)
{
	struct part *p = l->user_arg;
	struct split *s = p->split;

	INVARIANT(s->magic == SPLIT_MAGIC && p->link == l);
	part_lose(p, why);
	split_advance(s);
}

/* ---- from the server ---- */

/* The count that ends a tag. */
static uint64_t
count_of(const char *tag)
{
	const char *space = strrchr(tag, ' ');

	return (space != NULL ? strtoull(space + 1, NULL, 10) : 0);
}

static void
part_complete(struct part *p, const uint8_t *body, size_t len)
{
	struct split *s = p->split;
	const char *tag = (const char *)body;

	if (len == 0 || memchr(body, '\0', len) != body + len - 1) {
		part_broken(p, "malformed CommandComplete");
		return;
	}
	(void)link_note_tag(p->link, tag, len);
	if (s->phase == SPLIT_COMMITTING) {
		p->end = p->commits && strcmp(tag, "COMMIT") == 0 ? PART_COMMITTED
								  : PART_ROLLED_BACK;
	} else if ((s->phase == SPLIT_ASKING || s->phase == SPLIT_ENDING) &&
		   strcmp(tag, "BEGIN") != 0) {
		p->has_tag = true;
		p->told = count_of(tag);
	}
}

static void
part_error(struct part *p, const uint8_t *body, size_t len)
{
	struct split *s = p->split;
	struct proto_error_fields e;
	char *detail;

	if (proto_error_parse(body, len, &e) != 0) {
		part_broken(p, "malformed ErrorResponse");
		return;
	}
	if (strcmp(e.severity, "FATAL") == 0 || strcmp(e.severity, "PANIC") == 0) {
		detail = mem_str(e.message);
		p->link->saw_fatal = true;
		link_close(p->link, detail);
		part_lose(p, detail);
		free(detail);
		return;
	}
	p->takes = false;
	p->has_failed = true;
	if (s->phase == SPLIT_COMMITTING) {
		p->end = PART_ROLLED_BACK;
		if (p->error == NULL) {
			p->error = mem_str(e.message);
			(void)text_copy(
			    p->error_state, sizeof(p->error_state), e.sqlstate);
		}
		return;
	}
	detail = mem_printf("%s%sIn database \"%s\"%s%s%s", e.detail,
	    e.detail[0] != '\0' ? " " : "", p->given.member,
	    e.context[0] != '\0' ? ", among its rows: " : ".", e.context,
	    e.context[0] != '\0' ? "." : "");
	split_fail(
	    s, e.sqlstate, e.message, detail, e.hint[0] != '\0' ? e.hint : NULL, NULL);
	free(detail);
}

static void
part_ready(struct part *p, const uint8_t *body, size_t len)
{
	struct link *l = p->link;

	/* While rows are taken nothing may end but by an error. */
	if (len != 1 || body[0] == '\0' || strchr("ITE", body[0]) == NULL ||
	    p->owed == 0 || p->split->phase == SPLIT_TAKING) {
		part_broken(p, "malformed ReadyForQuery");
		return;
	}
	p->owed--;
	p->takes = false;
	requests_pop(&l->requests);
	l->txn = (char)body[0];
	l->query_us = p->owed > 0 ? clock_us() : 0;
	if (l->txn == 'I' && p->owed == 0)
		l->xact_us = 0;
}

static void
part_copy_in(struct part *p, const uint8_t *body, size_t len)
{
	struct split *s = p->split;

	if (len < 3 || len != 3 + 2 * (size_t)proto_get16(body + 1)) {
		part_broken(p, "malformed CopyInResponse");
		return;
	}
	p->takes = true;
	buf_add(&p->description, body, len);
	if (s->has_failed)
		part_close_copy(p, "the statement has failed on another database");
	else if (!s->order.is_copy)
		part_broken(p, "copy data is asked for that nobody offered");
}

static void
part_row(struct part *p, const uint8_t *message, size_t total)
{
	struct split *s = p->split;

	if (s->has_failed || s->phase != SPLIT_ASKING)
		return;
	s->answer_bytes += total;
	if (s->answer_bytes > SPLIT_ANSWER_BYTES) {
		split_fail(s, "53200",
		    "rows of RETURNING from several databases take too much memory", NULL,
		    "Write fewer rows in each statement.", NULL);
		return;
	}
	buf_add(&p->answer, message, total);
	p->answers++;
}

/* What the server says of its own accord. */
static void
part_notice(struct part *p, const uint8_t *message, size_t total)
{
	struct split *s = p->split;
	const char *name, *value;

	if (message[0] == 'S') {
		if (proto_parameter_parse(
			message + PROTO_HEAD, total - PROTO_HEAD, &name, &value) == 0)
			link_note_parameter(p->link, name, value);
		else
			part_broken(p, "malformed ParameterStatus");
		return;
	}
	if (message[0] == 'A' || (!s->has_failed && s->phase != SPLIT_COMMITTING))
		s->client.out(s->arg, message, total);
}

static void
part_message(struct part *p, const uint8_t *message, size_t total)
{
	const uint8_t *body = message + PROTO_HEAD;
	size_t len = total - PROTO_HEAD;

	switch ((char)message[0]) {
	case 'C':
		part_complete(p, body, len);
		break;
	case 'E':
		part_error(p, body, len);
		break;
	case 'Z':
		part_ready(p, body, len);
		break;
	case 'G':
		part_copy_in(p, body, len);
		break;
	case 'T':
		if (columns_check(body, len) < 0)
			part_broken(p, "malformed RowDescription");
		else if (p->split->phase == SPLIT_ASKING && p->description.len == 0)
			buf_add(&p->description, body, len);
		break;
	case 'D':
		part_row(p, message, total);
		break;
	case 'N':
	case 'A':
	case 'S':
		part_notice(p, message, total);
		break;
	case '1':
	case '2':
	case 'n':
		break;
	default:
		part_broken(p, "a message that nobody asked for");
		break;
	}
}

static size_t
part_bytes(struct link *l, const uint8_t *bytes, size_t len)
{
	struct part *p = l->user_arg;
	struct split *s = p->split;
	size_t used = 0;

	INVARIANT(s->magic == SPLIT_MAGIC && p->link == l);
	while (len - used >= PROTO_HEAD && p->link != NULL) {
		uint32_t size = proto_get32(bytes + used + 1);

		if (size < 4 || size > SPLIT_ANSWER_BYTES) {
			part_broken(p, "message of an impossible length");
			break;
		}
		if (len - used < (size_t)size + 1)
			break;
		part_message(p, bytes + used, (size_t)size + 1);
		used += (size_t)size + 1;
	}
	if (p->link == NULL)
		used = len;
	split_advance(s);
	return (used);
}

static void
part_drained(struct link *l)
{
	struct part *p = l->user_arg;
	struct split *s = p->split;

	if (s->client.flow != NULL)
		s->client.flow(s->arg);
}

const struct link_user part_user = {
    .bytes = part_bytes,
    .drained = part_drained,
    .lost = part_lost,
};
