/*
 * A federation: asks its legs, lets them speak in their order, and ends when every one of them
 * owes nothing any more.
 *
 *   all legs described -> columns agree -> rows of leg 0, leg 1, …   -> CommandComplete
 *                                       -> one row of each, merged  ->
 *
 * Everything happens in callbacks of the links. Whatever happened, fed_advance() then looks at
 * what can go on; it alone ends a federation.
 */
#include "private.h"
#include "stat.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- to the client ---- */

void
fed_put(struct federation *f, const void *p, size_t len)
{
	buf_add(&f->out, p, len);
}

void
fed_flush(struct federation *f)
{
	if (f->out.len > 0 && !f->is_over)
		f->client.out(f->arg, f->out.mem, f->out.len);
	f->out.len = 0;
}

/* ---- failing ---- */

static char *
copy_of(const char *s)
{
	return (s == NULL ? NULL : mem_str(s));
}

static void
failure_free(struct federation *f)
{
	free(f->message);
	free(f->detail);
	free(f->hint);
}

void
fed_fail(struct federation *f, int rank, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	if (f->has_failed && (rank == FED_OURS || rank >= f->rank))
		return;
	failure_free(f);
	f->has_failed = true;
	f->rank = rank;
	(void)text_copy(f->sqlstate, sizeof(f->sqlstate), sqlstate);
	f->message = mem_str(message);
	f->detail = copy_of(detail);
	f->hint = copy_of(hint);
	for (unsigned i = 0; i < f->asked; i++)
		leg_stop(&f->legs[i], false);
}

void
fed_refuse(
    struct federation *f, int rank, int fault, const char *detail, const char *fmt, ...)
{
	const struct fault_info *info = fault_info(fault);
	char message[512];
	va_list ap;

	if (fmt != NULL) {
		va_start(ap, fmt);
		vsnprintf(message, sizeof(message), fmt, ap);
		va_end(ap);
	}
	fed_fail(f, rank, info->sqlstate, fmt != NULL ? message : info->text, detail,
	    fault == F_FEDERATE_INEXACT
		? "SET pgweave.federation = 'tag' answers each database by itself."
		: NULL);
}

/* ---- what goes up ---- */

static void
put_16(struct buf *b, unsigned v)
{
	uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};

	buf_add(b, bytes, sizeof(bytes));
}

/* Bind of the unnamed statement to the unnamed portal. A column in front is ours alone. */
static void
put_bind(const struct federate_order *o, struct buf *messages)
{
	static const uint8_t names[2], no_values[4];
	unsigned first = o->how == ROUTE_TAG && o->format_count > 1;
	struct buf body = {0};

	buf_add(&body, names, sizeof(names));
	if (o->values != NULL)
		buf_add(&body, o->values, o->values_len);
	else
		buf_add(&body, no_values, sizeof(no_values));
	put_16(&body, o->format_count - first);
	for (unsigned i = first; i < o->format_count; i++)
		put_16(&body, o->formats[i]);
	proto_message(messages, 'B', body.mem, body.len);
	buf_free(&body);
}

static void
put_statement(const struct federate_order *o, struct buf *messages)
{
	static const uint8_t no_types[2], execute[5];

	if (!o->is_extended && !o->describes_only) {
		proto_query(messages, o->sql);
		return;
	}
	proto_parse(messages, "", o->sql, o->types != NULL ? o->types : no_types,
	    o->types != NULL ? o->types_len : sizeof(no_types));
	if (o->describes_only)
		proto_message(messages, 'D', "S", 2);
	else {
		put_bind(o, messages);
		proto_message(messages, 'D', "P", 2);
		proto_message(messages, 'E', execute, sizeof(execute));
	}
	proto_sync(messages);
}

/* ---- beginning ---- */

struct federation *
federate_start(struct worker *w, const struct federate_order *order,
    const struct federate_leg *legs, unsigned leg_count,
    const struct federate_client *client, void *arg)
{
	struct federation *f = mem_alloc(sizeof(*f));
	struct buf messages = {0};

	INVARIANT(leg_count > 0 && leg_count <= ROUTE_LEGS_MAX);
	INVARIANT(order->sql != NULL && order->shape != NULL);
	*f = (struct federation){.magic = FEDERATION_MAGIC,
	    .worker = w,
	    .order = *order,
	    .client = *client,
	    .arg = arg,
	    .leg_count = leg_count,
	    .asked = order->describes_only ? 1 : leg_count,
	    .merges = order->how == ROUTE_MERGE && order->shape->is_aggregate};
	f->order.is_extended |= order->describes_only;
	f->legs = mem_alloc(leg_count * sizeof(*f->legs));
	put_statement(&f->order, &messages);
	stat_count(M_federated, !order->describes_only);
	for (unsigned i = 0; i < leg_count; i++) {
		struct leg *leg = &f->legs[i];

		INVARIANT(legs[i].link->magic == LINK_MAGIC &&
			  legs[i].link->state == LINK_LENT);
		INVARIANT(legs[i].link->requests.count == 0 && !legs[i].link->wants_sync);
		*leg = (struct leg){
		    .fed = f, .link = legs[i].link, .member = legs[i].member, .index = i};
		leg->link->user = &leg_user;
		leg->link->user_arg = leg;
		if (i < f->asked)
			leg_ask(leg, &messages);
	}
	buf_free(&messages);
	return (f);
}

/* All columns are known: false when that is already the end of it. */
static bool
fed_begin(struct federation *f)
{
	struct leg *first = &f->legs[0];
	bool has_rows = first->description.len > 0;

	f->has_begun = true;
	if (!columns_agree(f) || (f->merges && !merge_check(f)))
		return (false);
	/* ParameterDescription, when that was asked for. */
	if (f->order.describes_only)
		fed_put(f, first->row.mem, first->row.len);
	if (has_rows && (f->order.wants_description || f->order.describes_only))
		columns_put(f);
	else if (!has_rows && f->order.is_extended &&
		 (f->order.wants_description || f->order.describes_only))
		proto_message(&f->out, 'n', NULL, 0);
	for (unsigned i = 0; f->merges && i < f->asked; i++)
		if (f->legs[i].state == LEG_HELD)
			leg_move(&f->legs[i], LEG_ROWS);
	return (true);
}

static bool
fed_is_described(const struct federation *f)
{
	for (unsigned i = 0; i < f->asked; i++)
		if (!f->legs[i].is_described)
			return (false);
	return (true);
}

/* The first leg that has not answered all may speak. */
static void
fed_pass_turn(struct federation *f)
{
	while (f->turn < f->asked && (f->legs[f->turn].state == LEG_READY ||
					 f->legs[f->turn].state == LEG_LOST))
		f->turn++;
	if (f->turn < f->asked && f->legs[f->turn].state == LEG_HELD)
		leg_move(&f->legs[f->turn], LEG_ROWS);
}

/* ---- ending ---- */

/* Where the count in a tag begins ("SELECT 3", "INSERT 0 3"); its end when there is none. */
static const char *
tag_count(const char *tag)
{
	const char *space = strrchr(tag, ' ');

	if (space == NULL || space[1] == '\0' ||
	    strspn(space + 1, "0123456789") != strlen(space + 1))
		return (tag + strlen(tag));
	return (space + 1);
}

/* CommandComplete for all, and what it counts. */
static uint64_t
fed_complete(struct federation *f)
{
	const char *first = f->legs[0].tag, *at = tag_count(first);
	uint64_t told = 0, seen = 0;
	struct buf tag = {0};

	for (unsigned i = 0; i < f->asked; i++) {
		told += strtoull(tag_count(f->legs[i].tag), NULL, 10);
		seen += f->legs[i].rows;
	}
	if (f->merges)
		told = seen = 1;
	if (f->order.max_rows > 0 && (f->merges ? 1 : f->rows_out) >= f->order.max_rows)
		proto_message(&f->out, 's', NULL, 0);
	else if (f->legs[0].is_empty)
		proto_empty_query(&f->out);
	else {
		buf_add(&tag, first, (size_t)(at - first));
		if (*at != '\0')
			buf_addf(&tag, "%" PRIu64, told);
		buf_add(&tag, "", 1);
		proto_command_complete(&f->out, (const char *)tag.mem);
		buf_free(&tag);
	}
	return (*at != '\0' ? told : seen);
}

static void
fed_bury(struct burial *b)
{
	struct federation *f = CONTAINER_OF(b, struct federation, burial);

	f->magic = 0;
	for (unsigned i = 0; i < f->leg_count; i++) {
		buf_free(&f->legs[i].description);
		buf_free(&f->legs[i].row);
	}
	failure_free(f);
	buf_free(&f->out);
	free(f->legs);
	free(f);
}

void
fed_end(struct federation *f)
{
	if (f->cancels == 0)
		worker_bury(f->worker, &f->burial, fed_bury);
}

/* The links are the caller's again. */
static void
fed_release(struct federation *f)
{
	f->is_over = true;
	for (unsigned i = 0; i < f->leg_count; i++) {
		struct link *l = f->legs[i].link;

		if (l == NULL)
			continue;
		l->user = NULL;
		l->user_arg = NULL;
		if (l->stream.is_paused)
			stream_resume(&l->stream);
		f->legs[i].link = NULL;
	}
}

/* Not before the cancel requests for it are over: its next statement could be hit. */
static bool
leg_is_done(const struct leg *leg)
{
	return (leg->state == LEG_LOST || (leg->state == LEG_READY && leg->cancels == 0));
}

static bool
fed_is_done(const struct federation *f)
{
	for (unsigned i = 0; i < f->asked; i++)
		if (!leg_is_done(&f->legs[i]))
			return (false);
	return (true);
}

static void
fed_finish(struct federation *f)
{
	struct federate_outcome outcome = {.ok = true};

	if (!f->has_failed && f->merges && !f->order.describes_only)
		INVARIANT(merge_put(f) != f->has_failed);
	if (!f->has_failed && !f->order.describes_only)
		outcome.rows = fed_complete(f);
	fed_flush(f);
	if (f->is_over)
		return;
	if (f->has_failed) {
		stat_count(M_federated_failed, !f->order.describes_only);
		outcome = (struct federate_outcome){.sqlstate = f->sqlstate,
		    .message = f->message,
		    .detail = f->detail,
		    .hint = f->hint,
		    .is_cut = f->is_cut};
	}
	fed_release(f);
	f->client.done(f->arg, &outcome);
	fed_end(f);
}

/* ---- going on ---- */

/* Legs whose bytes are to wait in the socket, and those that have waited. */
static void
fed_flow(struct federation *f)
{
	for (unsigned i = 0; i < f->leg_count; i++) {
		struct leg *leg = &f->legs[i];
		bool is_held = leg->link != NULL && leg_is_held(leg);

		if (leg->link == NULL || is_held == leg->link->stream.is_paused)
			continue;
		if (is_held)
			stream_pause(&leg->link->stream);
		else
			stream_resume(&leg->link->stream);
	}
}

void
fed_advance(struct federation *f)
{
	INVARIANT(f->magic == FEDERATION_MAGIC);
	if (f->is_over)
		return;
	if (!f->has_failed && !f->has_begun && fed_is_described(f))
		(void)fed_begin(f);
	if (!f->has_failed && f->has_begun && !f->merges)
		fed_pass_turn(f);
	fed_flush(f);
	if (f->is_over)
		return;
	if (fed_is_done(f))
		fed_finish(f);
	else
		fed_flow(f);
}

/* ---- the caller ---- */

void
federate_resume(struct federation *f)
{
	INVARIANT(f->magic == FEDERATION_MAGIC);
	if (!f->is_over)
		fed_flow(f);
}

void
federate_cancel(struct federation *f)
{
	INVARIANT(f->magic == FEDERATION_MAGIC);
	if (f->is_over)
		return;
	for (unsigned i = 0; i < f->asked; i++)
		if (f->legs[i].state != LEG_READY && f->legs[i].state != LEG_LOST)
			leg_cancel(&f->legs[i]);
}

void
federate_abort(struct federation *f)
{
	INVARIANT(f->magic == FEDERATION_MAGIC);
	if (f->is_over)
		return;
	fed_release(f);
	fed_end(f);
}
