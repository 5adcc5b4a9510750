/*
 * A leg: the statement on one database. Its states, and which messages may come in them, are in
 * leg_fsm.def.
 *
 *   READY -> HEAD -> HELD -> ROWS -> COMPLETE -> READY
 *              \______\________\_____ SKIPPING ___/      after an error, here or elsewhere
 *
 * A leg that has to wait (for its turn, for a client that reads slowly, for the end of a long
 * row of another leg) leaves its bytes in the socket.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LEG_ROW_HEAD (PROTO_HEAD + 2) /* of a DataRow: with the count of its columns */

static const char *const may_come[LEG_STATES] = {
#define STATE(name, types, doc) [LEG_##name] = types,
#define EDGE(...)
#include "leg_fsm.def"
#undef STATE
#undef EDGE
};

static const bool edges[LEG_STATES][LEG_STATES] = {
#define STATE(...)
#define EDGE(from, to, why) [LEG_##from][LEG_##to] = true,
#include "leg_fsm.def"
#undef STATE
#undef EDGE
};

void
leg_move(struct leg *leg, enum leg_state to)
{
	INVARIANT(leg->fed->magic == FEDERATION_MAGIC);
	INVARIANT(edges[leg->state][to]);
	leg->state = to;
}

/* ---- to the server ---- */

void
leg_ask(struct leg *leg, const struct buf *messages)
{
	const struct federate_order *order = &leg->fed->order;
	struct link *l = leg->link;
	int64_t now = clock_us();

	leg_move(leg, LEG_HEAD);
	/* One request, whatever the number of messages: ReadyForQuery ends it. */
	requests_push(
	    &l->requests, order->is_extended ? REQ_SYNC : REQ_QUERY, ACT_FORWARD);
	l->batch += order->is_extended;
	/* "Foreign" to the session (UNNAMED_FOREIGN): what the link has under no name is not what
	 * any client prepared. */
	l->unnamed = UINT64_MAX;
	l->query_us = now;
	if (l->xact_us == 0)
		l->xact_us = now;
	stream_write(&l->stream, messages->mem, messages->len);
}

static void
leg_cancel_over(void *arg)
{
	struct leg *leg = arg;
	struct federation *f = leg->fed;

	INVARIANT(f->magic == FEDERATION_MAGIC && leg->cancels > 0 && f->cancels > 0);
	leg->cancels--;
	f->cancels--;
	if (f->is_over)
		fed_end(f);
	/* At once when the request could not be sent: whoever sent it goes on anyway. */
	else if (!f->is_sending_cancel)
		fed_advance(f);
}

void
leg_cancel(struct leg *leg)
{
	struct federation *f = leg->fed;

	if (leg->cancels > 0)
		return;
	leg->cancels++;
	f->cancels++;
	f->is_sending_cancel = true;
	link_cancel(leg->link, leg_cancel_over, leg);
	f->is_sending_cancel = false;
}

void
leg_stop(struct leg *leg, bool is_culprit)
{
	enum leg_state was = leg->state;

	if (was == LEG_READY || was == LEG_LOST || was == LEG_SKIPPING)
		return;
	leg_move(leg, LEG_SKIPPING);
	if (is_culprit || was == LEG_COMPLETE)
		return;
	leg->was_stopped = true;
	leg_cancel(leg);
}

/* ---- losing it ---- */

/* The link is closed. farewell: what its server said, or why. */
static void
leg_lose(struct leg *leg, const char *farewell)
{
	struct federation *f = leg->fed;
	struct link *l = leg->link;
	bool owed = leg->state != LEG_READY;

	leg_move(leg, LEG_LOST);
	leg->link = NULL;
	l->user = NULL;
	l->user_arg = NULL;
	if (f->open_row == leg) {
		f->open_row = NULL;
		f->is_cut = true;
	}
	if (owed)
		fed_refuse(f, (int)leg->index, F_FEDERATE_LOST, farewell,
		    "database \"%s\" was lost while the statement ran", leg->member);
	f->client.lost(f->arg, l);
}

/* What the server sends makes no sense: nothing more of it is believed. */
static void
leg_broken(struct leg *leg, const char *why)
{
	log_warning("S-%#" PRIx64 ": %s server broke the protocol: %s", leg->link->id,
	    leg->link->name, why);
	link_close(leg->link, why);
	leg_lose(leg, fault_info(F_LINK_PROTOCOL)->text);
}

static void
leg_lost(struct link *l, const char *why)
{
	struct leg *leg = l->user_arg;
	struct federation *f = leg->fed;

	INVARIANT(f->magic == FEDERATION_MAGIC && leg->link == l);
	leg_lose(leg, why);
	fed_advance(f);
}

/* ---- from the server: whole messages ---- */

/* Its columns, or that it has none (NULL). */
static void
leg_describe(struct leg *leg, const uint8_t *body, size_t len)
{
	struct federation *f = leg->fed;

	if (leg->state != LEG_HEAD) {
		fed_refuse(f, FED_OURS, F_FEDERATE_MULTIPLE, NULL, NULL);
		return;
	}
	if (body != NULL && columns_check(body, len) < 0) {
		leg_broken(leg, "malformed RowDescription");
		return;
	}
	if (body != NULL)
		buf_add(&leg->description, body, len);
	leg->is_described = true;
	leg_move(leg, f->order.describes_only ? LEG_COMPLETE : LEG_HELD);
}

/* CommandComplete, or EmptyQueryResponse (NULL). */
static void
leg_complete(struct leg *leg, const uint8_t *body, size_t len)
{
	struct federation *f = leg->fed;

	if (leg->state == LEG_COMPLETE) {
		fed_refuse(f, FED_OURS, F_FEDERATE_MULTIPLE, NULL, NULL);
		return;
	}
	if (leg->state == LEG_HEAD && f->order.is_extended) {
		leg_broken(leg, "complete before it is described");
		return;
	}
	if (body != NULL && (len == 0 || memchr(body, '\0', len) != body + len - 1)) {
		leg_broken(leg, "malformed CommandComplete");
		return;
	}
	leg->is_described = true;
	leg->is_empty = body == NULL;
	if (body != NULL) {
		(void)text_copy(leg->tag, sizeof(leg->tag), (const char *)body);
		(void)link_note_tag(leg->link, (const char *)body, len);
	}
	leg_move(leg, LEG_COMPLETE);
}

static void
leg_error(struct leg *leg, const uint8_t *body, size_t len)
{
	struct federation *f = leg->fed;
	struct proto_error_fields error;
	struct buf detail = {0};

	if (proto_error_parse(body, len, &error) != 0) {
		leg_broken(leg, "malformed ErrorResponse");
		return;
	}
	if (strcmp(error.severity, "FATAL") == 0 ||
	    strcmp(error.severity, "PANIC") == 0) {
		buf_addstr(&detail, error.message);
		buf_add(&detail, "", 1);
		leg->link->saw_fatal = true;
		link_close(leg->link, (const char *)detail.mem);
		leg_lose(leg, (const char *)detail.mem);
		buf_free(&detail);
		return;
	}
	if (leg->state == LEG_READY) {
		leg_broken(leg, "an error that nothing has caused");
		return;
	}
	if (leg->state != LEG_SKIPPING)
		leg_stop(leg, true);
	if (leg->was_stopped && strcmp(error.sqlstate, "57014") == 0)
		return;
	buf_addf(&detail, "%s%sIn database \"%s\".", error.detail,
	    error.detail[0] != '\0' ? " " : "", leg->member);
	buf_add(&detail, "", 1);
	fed_fail(f, (int)leg->index, error.sqlstate, error.message,
	    (const char *)detail.mem, error.hint[0] != '\0' ? error.hint : NULL);
	buf_free(&detail);
}

static void
leg_ready(struct leg *leg, const uint8_t *body, size_t len)
{
	struct link *l = leg->link;

	if (len != 1 || body[0] == '\0' || strchr("ITE", body[0]) == NULL) {
		leg_broken(leg, "malformed ReadyForQuery");
		return;
	}
	if (leg->state != LEG_COMPLETE && leg->state != LEG_SKIPPING) {
		leg_broken(leg, "ready before it has answered");
		return;
	}
	leg_move(leg, LEG_READY);
	requests_pop(&l->requests);
	l->txn = (char)body[0];
	l->query_us = 0;
	if (l->txn == 'I')
		l->xact_us = 0;
}

/* A COPY got this far. Copying in, the server waits for data, and has ignored the Sync that it
 * has read meanwhile; had the copy failed before, that Sync would be answered as well: the link
 * is not for anybody else. */
static void
leg_copy(struct leg *leg, char type)
{
	static const uint8_t fail[] = {'f', 0, 0, 0, 5, 0, 'S', 0, 0, 0, 4};
	struct link *l = leg->link;
	bool is_extended = leg->fed->order.is_extended;

	fed_refuse(leg->fed, FED_OURS, F_FEDERATE_COPY, NULL, NULL);
	if (type == 'G') {
		stream_write(&l->stream, fail, is_extended ? sizeof(fail) : 6);
		l->batch += is_extended;
		l->is_dirty |= is_extended;
	}
}

static void
leg_parameter(struct leg *leg, const uint8_t *body, size_t len)
{
	const char *name, *value;

	if (proto_parameter_parse(body, len, &name, &value) != 0) {
		leg_broken(leg, "malformed ParameterStatus");
		return;
	}
	link_note_parameter(leg->link, name, value);
}

/* A row to be merged. */
static void
leg_keep_row(struct leg *leg, const uint8_t *body, size_t len)
{
	if (leg->rows++ == 0)
		buf_add(&leg->row, body, len);
}

/* A whole message. */
static void
leg_whole(struct leg *leg, const uint8_t *p, size_t total)
{
	const uint8_t *body = p + PROTO_HEAD;
	size_t len = total - PROTO_HEAD;

	switch ((char)p[0]) {
	case 'T':
		leg_describe(leg, body, len);
		break;
	case 'n':
		leg_describe(leg, NULL, 0);
		break;
	case 't':
		if (!leg->fed->order.describes_only || leg->row.len > 0)
			leg_broken(leg, "parameters that nobody asked for");
		else
			buf_add(&leg->row, p, total);
		break;
	case 'C':
		leg_complete(leg, body, len);
		break;
	case 'I':
		leg_complete(leg, NULL, 0);
		break;
	case 'E':
		leg_error(leg, body, len);
		break;
	case 'Z':
		leg_ready(leg, body, len);
		break;
	case 'S':
		leg_parameter(leg, body, len);
		break;
	case 'G':
	case 'H':
		leg_copy(leg, (char)p[0]);
		break;
	case 'D':
		leg_keep_row(leg, body, len);
		break;
	case 'N':
	case 'A':
		fed_put(leg->fed, p, total);
		break;
	default: /* ParseComplete, BindComplete: the caller's to tell */
		break;
	}
}

/* ---- from the server: bytes ---- */

/* A message of which the client gets something now. */
static bool
leg_speaks(const struct leg *leg, char type)
{
	if (type == 'N')
		return (leg->state != LEG_SKIPPING);
	if (type == 'A')
		return (true);
	return (type == 'D' && leg->state == LEG_ROWS && !leg->fed->merges);
}

static bool
leg_has_to_wait(const struct leg *leg)
{
	const struct federation *f = leg->fed;

	if (f->open_row != NULL && f->open_row != leg)
		return (true);
	return (f->client.is_full(f->arg));
}

bool
leg_is_held(const struct leg *leg)
{
	return ((leg->state == LEG_HELD && leg->has_more) ||
		(leg->waits && leg_has_to_wait(leg)));
}

/* A part of a message that passes through, or is dropped. */
static size_t
leg_pass(struct leg *leg, const uint8_t *p, size_t len)
{
	struct federation *f = leg->fed;
	size_t n = len < leg->body_left ? len : leg->body_left;

	leg->waits = leg->body_goes_out && leg_has_to_wait(leg);
	if (leg->waits)
		return (0);
	if (leg->body_goes_out)
		fed_put(f, p, n);
	leg->body_left -= (uint32_t)n;
	if (f->open_row == leg && leg->body_left == 0)
		f->open_row = NULL;
	return (n);
}

/* A row for the client: with the database's name in front, or as it is. Its head is used up. */
static size_t
leg_row(struct leg *leg, const uint8_t *p, uint32_t size)
{
	struct federation *f = leg->fed;
	size_t name_len = strlen(leg->member);
	unsigned count = proto_get16(p + PROTO_HEAD);
	uint8_t head[LEG_ROW_HEAD + 4] = {'D'};

	if (leg->description.len == 0 || size > FED_ROW_MAX ||
	    count != columns_count(leg)) {
		leg_broken(leg, "a row that does not fit its description");
		return (0);
	}
	leg->rows++;
	f->rows_out++;
	if (f->order.how == ROUTE_TAG) {
		proto_put32(head + 1, size + 4 + (uint32_t)name_len);
		head[PROTO_HEAD] = (uint8_t)((count + 1) >> 8);
		head[PROTO_HEAD + 1] = (uint8_t)(count + 1);
		proto_put32(head + LEG_ROW_HEAD, (uint32_t)name_len);
		fed_put(f, head, sizeof(head));
		fed_put(f, leg->member, name_len);
	} else
		fed_put(f, p, LEG_ROW_HEAD);
	leg->body_goes_out = true;
	leg->body_left = size + 1 - LEG_ROW_HEAD;
	if (leg->body_left > 0)
		f->open_row = leg;
	return (LEG_ROW_HEAD);
}

/* Whether the rest of a message is dropped, as the answer is not wanted. */
static bool
is_dropped(const struct leg *leg, char type)
{
	return (leg->state == LEG_SKIPPING && strchr("EZSAG", type) == NULL);
}

/* A message of a possible length, of which nothing was dealt with yet: as leg_message(). */
static size_t
leg_take(struct leg *leg, const uint8_t *p, size_t len, uint32_t size)
{
	struct federation *f = leg->fed;
	char type = (char)p[0];
	bool is_row = type == 'D' && leg_speaks(leg, type);
	size_t total = (size_t)size + 1;

	if (is_dropped(leg, type)) {
		leg->body_goes_out = false;
		leg->body_left = size + 1;
		return (leg_pass(leg, p, len));
	}
	if (is_row && f->order.max_rows > 0 && f->rows_out >= f->order.max_rows) {
		leg->rows++;
		leg->body_goes_out = false;
		leg->body_left = size + 1;
		return (leg_pass(leg, p, len));
	}
	if (is_row && size >= LEG_ROW_HEAD - 1) {
		if (len < (total > FED_ROW_BYTES ? LEG_ROW_HEAD : total))
			return (0);
		return (leg_row(leg, p, size));
	}
	if (is_row ||
	    size > (type == 'E' || type == 'N' ? FED_ERROR_BYTES : FED_WHOLE_BYTES)) {
		leg_broken(leg, "message of an impossible length");
		return (0);
	}
	if (len < total)
		return (0);
	leg_whole(leg, p, total);
	return (total);
}

/* The next message, as much of it as is there and can be dealt with: so many bytes, or 0. */
static size_t
leg_message(struct leg *leg, const uint8_t *p, size_t len)
{
	struct federation *f = leg->fed;
	char type = (char)p[0];
	uint32_t size;

	if (len < PROTO_HEAD)
		return (0);
	/* An error does not wait for its turn. */
	leg->has_more = leg->state == LEG_HELD && type != 'E';
	if (leg->has_more)
		return (0);
	size = proto_get32(p + 1);
	if (type == '\0' || strchr(may_come[leg->state], type) == NULL || size < 4 ||
	    size > 0x7fffffff) {
		leg_broken(leg, "a message that nobody asked for");
		return (0);
	}
	leg->waits = leg_speaks(leg, type) && leg_has_to_wait(leg);
	if (leg->waits)
		return (0);
	/* From there on it is dropped. */
	if (type == 'D' && leg->state == LEG_ROWS && f->merges && size > FED_WHOLE_BYTES)
		fed_refuse(f, FED_OURS, F_FEDERATE_LONG_ROW, NULL, NULL);
	return (leg_take(leg, p, len, size));
}

/* All that can be dealt with now: so many bytes. */
static size_t
leg_read(struct leg *leg, const uint8_t *p, size_t len)
{
	struct federation *f = leg->fed;
	size_t used = 0, n = 1;

	while (used < len && n > 0 && !f->is_over && leg->link != NULL) {
		n = leg->body_left > 0 ? leg_pass(leg, p + used, len - used)
				       : leg_message(leg, p + used, len - used);
		used += n;
		if (f->out.len >= FED_OUT_BYTES)
			fed_flush(f);
	}
	return (used);
}

static size_t
leg_bytes(struct link *l, const uint8_t *p, size_t len)
{
	struct leg *leg = l->user_arg;
	struct federation *f = leg->fed;
	size_t used = 0, n;

	INVARIANT(f->magic == FEDERATION_MAGIC && leg->link == l);
	/* It may have become its turn by what it has just said: nobody offers the rest again. */
	do {
		n = leg_read(leg, p + used, len - used);
		used += n;
		fed_advance(f);
	} while (used < len && (n > 0 || leg->waits) && leg->link != NULL &&
		 !l->stream.is_paused);
	return (leg->state == LEG_LOST ? len : used);
}

static void
leg_drained(struct link *l)
{
	/* Only statements go up, and none waits for another. */
	(void)l;
}

const struct link_user leg_user = {
    .bytes = leg_bytes,
    .drained = leg_drained,
    .lost = leg_lost,
};
