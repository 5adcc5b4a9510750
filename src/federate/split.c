/*
 * A split: one INSERT or COPY whose rows go each to its database, written on all of them or on
 * none. Its phases are in split_fsm.def.
 *
 *   ASKING -> (TAKING -> ENDING) -> CHECKING -> COMMITTING -> done
 *      \_________\_________\___________\-> STOPPING -> UNDOING -> done, with an error
 *
 * Between the first COMMIT and the last one a database can still be lost: then the error tells
 * what is where. Nothing but two-phase commit could undo it.
 */
#include "split.h"
#include "stat.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bool edges[SPLIT_PHASES][SPLIT_PHASES] = {
#define STATE(...)
#define EDGE(from, to, why) [SPLIT_##from][SPLIT_##to] = true,
#include "split_fsm.def"
#undef STATE
#undef EDGE
};

void
split_move(struct split *s, enum split_phase to)
{
	INVARIANT(s->magic == SPLIT_MAGIC);
	INVARIANT(edges[s->phase][to]);
	s->phase = to;
}

/* ---- failing ---- */

static char *
copy_of(const char *text)
{
	return (text == NULL || text[0] == '\0' ? NULL : mem_str(text));
}

/* Its answer is not wanted any more. */
static void
part_stop(struct part *p)
{
	if (p->link == NULL || p->owed == 0 || p->has_failed)
		return;
	/* A server that waits for a lock reads no CopyFail. */
	if (p->takes)
		part_close_copy(p, "the statement has failed");
	part_cancel(p);
}

void
split_fail(struct split *s, const char *sqlstate, const char *message, const char *detail,
    const char *hint, const char *context)
{
	if (s->has_failed)
		return;
	s->has_failed = true;
	(void)text_copy(s->sqlstate, sizeof(s->sqlstate), sqlstate);
	s->message = mem_str(message);
	s->detail = copy_of(detail);
	s->hint = copy_of(hint);
	s->context = copy_of(context);
	split_move(s, SPLIT_STOPPING);
	for (unsigned i = 0; i < s->part_count; i++)
		part_stop(&s->parts[i]);
}

/* ---- beginning ---- */

struct split *
split_start(struct worker *w, const struct federate_split *order,
    const struct federate_part *parts, unsigned count,
    const struct federate_client *client, void *arg)
{
	struct split *s = mem_alloc(sizeof(*s));

	INVARIANT(count > 0 && count <= ROUTE_LEGS_MAX);
	*s = (struct split){.magic = SPLIT_MAGIC,
	    .worker = w,
	    .order = *order,
	    .client = *client,
	    .arg = arg,
	    .part_count = count};
	s->parts = mem_alloc(count * sizeof(*s->parts));
	if (order->is_copy)
		load_begin(s);
	stat_count(M_federated, 1);
	for (unsigned i = 0; i < count; i++) {
		struct part *p = &s->parts[i];

		INVARIANT(parts[i].link->state == LINK_LENT);
		INVARIANT(parts[i].link->requests.count == 0);
		*p = (struct part){.split = s, .link = parts[i].link, .given = parts[i]};
		p->link->user = &part_user;
		p->link->user_arg = p;
		part_ask(p);
	}
	return (s);
}

/* ---- what parts have answered ---- */

static bool
all_quiet(const struct split *s)
{
	for (unsigned i = 0; i < s->part_count; i++)
		if (s->parts[i].link != NULL &&
		    (s->parts[i].owed > 0 || s->parts[i].cancels > 0))
			return (false);
	return (true);
}

static bool
all_take(const struct split *s)
{
	for (unsigned i = 0; i < s->part_count; i++)
		if (!s->parts[i].takes)
			return (false);
	return (true);
}

/* Names and types; tables and places of columns may have other numbers elsewhere. */
static bool
same_columns(const struct buf *a, const struct buf *b)
{
	const uint8_t *p = a->mem, *q = b->mem;
	struct column one, two;

	if (a->len == 0 || b->len == 0)
		return (a->len == b->len);
	if (proto_get16(p) != proto_get16(q))
		return (false);
	p += 2;
	q += 2;
	for (unsigned n = proto_get16(a->mem); n > 0; n--) {
		p = column_read(p, &one);
		q = column_read(q, &two);
		if (strcmp(one.name, two.name) != 0 || one.format != two.format ||
		    (one.type != two.type && (one.type < 16384 || two.type < 16384)))
			return (false);
	}
	return (true);
}

static bool
same_description(const struct split *s, const struct part *a, const struct part *b)
{
	if (!s->order.is_copy)
		return (same_columns(&a->description, &b->description));
	return (a->description.len == b->description.len &&
		memcmp(a->description.mem, b->description.mem, a->description.len) == 0);
}

/* False: it has failed. */
static bool
check_descriptions(struct split *s)
{
	const struct part *first = &s->parts[0];
	char message[320];

	for (unsigned i = 1; i < s->part_count; i++) {
		if (same_description(s, first, &s->parts[i]))
			continue;
		snprintf(message, sizeof(message),
		    "columns of table \"%.64s\" differ between databases \"%.64s\" and \"%.64s\"",
		    s->order.table, first->given.member, s->parts[i].given.member);
		split_fail(s, "0A000", message, NULL, NULL, NULL);
		return (false);
	}
	if (s->order.is_copy && s->order.column_count > 0 &&
	    proto_get16(first->description.mem + 1) != s->order.column_count) {
		split_fail(s, "0A000",
		    "the place of the shard key among the columns is not known", NULL,
		    "Name the columns of COPY.", NULL);
		return (false);
	}
	return (true);
}

static void
begin_taking(struct split *s)
{
	struct buf out = {0};

	if (!check_descriptions(s))
		return;
	split_move(s, SPLIT_TAKING);
	proto_message(
	    &out, 'G', s->parts[0].description.mem, s->parts[0].description.len);
	s->client.out(s->arg, out.mem, out.len);
	buf_free(&out);
	s->client.flow(s->arg);
}

/* ---- committing ---- */

static bool
has_rows(const struct split *s, const struct part *p)
{
	return (s->order.is_copy ? p->rows > 0 : p->given.rows > 0);
}

/* What is deferred to COMMIT would fail on one and not on another. */
static void
begin_checking(struct split *s)
{
	unsigned writers = 0;

	for (unsigned i = 0; i < s->part_count; i++)
		writers += has_rows(s, &s->parts[i]);
	split_move(s, SPLIT_CHECKING);
	for (unsigned i = 0; writers > 1 && i < s->part_count; i++)
		if (has_rows(s, &s->parts[i]))
			part_run(&s->parts[i], "SET CONSTRAINTS ALL IMMEDIATE");
}

static void
begin_committing(struct split *s)
{
	split_move(s, SPLIT_COMMITTING);
	for (unsigned i = 0; i < s->part_count; i++) {
		struct part *p = &s->parts[i];

		p->commits = has_rows(s, p);
		part_run(p, p->commits ? "COMMIT" : "ROLLBACK");
	}
}

static void
add_fate(struct buf *b, const struct part *p)
{
	static const char *const words[] = {"unknown", "committed", "not committed",
	    "not known whether it was committed"};

	buf_addf(
	    b, "%s\"%s\": %s", b->len > 0 ? "; " : "", p->given.member, words[p->end]);
	if (p->end != PART_COMMITTED && p->error != NULL)
		buf_addf(b, " (%s)", p->error);
}

/* After COMMIT: all of it, nothing, or an error that says what. */
static void
judge(struct split *s)
{
	unsigned committed = 0, lost = 0, failed = 0;
	struct buf detail = {0};
	const struct part *why = NULL;

	for (unsigned i = 0; i < s->part_count; i++) {
		const struct part *p = &s->parts[i];

		if (!p->commits)
			continue;
		committed += p->end == PART_COMMITTED;
		lost += p->end == PART_LOST;
		failed += p->end == PART_ROLLED_BACK;
		if (why == NULL && p->error != NULL)
			why = p;
		add_fate(&detail, p);
	}
	buf_add(&detail, "", 1);
	if (lost > 0 || (failed > 0 && committed > 0)) {
		s->has_failed = true;
		(void)text_copy(s->sqlstate, sizeof(s->sqlstate), "40003");
		s->message =
		    mem_str(lost > 0 ? "it is not known whether all rows were written"
				     : "only a part of the rows was written");
		s->detail = mem_str((const char *)detail.mem);
		s->hint = mem_str("Look at what is there before it is repeated.");
	} else if (failed > 0) {
		s->has_failed = true;
		(void)text_copy(s->sqlstate, sizeof(s->sqlstate),
		    why != NULL ? why->error_state : "40000");
		s->message =
		    mem_str(why != NULL ? why->error : "the transaction was rolled back");
		s->detail = mem_str((const char *)detail.mem);
	}
	buf_free(&detail);
}

/* ---- the answer ---- */

/* The next row of each part in the order in which the rows stood, when each has answered one;
 * else part after part. */
static void
put_rows(struct split *s, uint64_t *sent)
{
	bool each = s->order.part_of_row != NULL;
	uint32_t at[ROUTE_LEGS_MAX] = {0};
	uint64_t most = s->order.max_rows > 0 ? s->order.max_rows : UINT64_MAX;

	for (unsigned i = 0; i < s->part_count; i++)
		each &= s->parts[i].answers == s->parts[i].given.rows;
	for (unsigned i = 0; each && i < s->order.row_count && *sent < most; i++) {
		unsigned n = s->order.part_of_row[i];
		const uint8_t *row = s->parts[n].answer.mem + at[n];
		uint32_t total = proto_get32(row + 1) + 1;

		buf_add(&s->out, row, total);
		at[n] += total;
		++*sent;
	}
	for (unsigned i = 0; !each && i < s->part_count; i++)
		while (at[i] < s->parts[i].answer.len && *sent < most) {
			const uint8_t *row = s->parts[i].answer.mem + at[i];
			uint32_t total = proto_get32(row + 1) + 1;

			buf_add(&s->out, row, total);
			at[i] += total;
			++*sent;
		}
}

static uint64_t
put_answer(struct split *s)
{
	const struct part *first = &s->parts[0];
	uint64_t told = 0, sent = 0;
	char tag[40];

	for (unsigned i = 0; i < s->part_count; i++)
		told += s->parts[i].told;
	if (!s->order.is_copy && s->order.wants_description && first->description.len > 0)
		proto_message(
		    &s->out, 'T', first->description.mem, first->description.len);
	if (!s->order.is_copy)
		put_rows(s, &sent);
	if (s->order.max_rows > 0 && sent >= s->order.max_rows)
		proto_message(&s->out, 's', NULL, 0);
	else {
		snprintf(tag, sizeof(tag), "%s%" PRIu64,
		    s->order.is_copy ? "COPY " : "INSERT 0 ", told);
		proto_command_complete(&s->out, tag);
	}
	s->client.out(s->arg, s->out.mem, s->out.len);
	return (told);
}

/* ---- ending ---- */

static void
split_bury(struct burial *b)
{
	struct split *s = CONTAINER_OF(b, struct split, burial);

	s->magic = 0;
	for (unsigned i = 0; i < s->part_count; i++) {
		buf_free(&s->parts[i].out);
		buf_free(&s->parts[i].description);
		buf_free(&s->parts[i].answer);
		free(s->parts[i].error);
	}
	reader_free(&s->reader);
	buf_free(&s->out);
	buf_free(&s->held);
	buf_free(&s->header);
	buf_free(&s->trailer);
	free(s->message);
	free(s->detail);
	free(s->hint);
	free(s->context);
	free(s->parts);
	free(s);
}

void
split_end(struct split *s)
{
	if (s->cancels == 0)
		worker_bury(s->worker, &s->burial, split_bury);
}

static void
split_release(struct split *s)
{
	s->is_over = true;
	split_move(s, SPLIT_OVER);
	for (unsigned i = 0; i < s->part_count; i++) {
		struct link *l = s->parts[i].link;

		if (l == NULL)
			continue;
		l->user = NULL;
		l->user_arg = NULL;
		s->parts[i].link = NULL;
	}
}

static void
split_over(struct split *s)
{
	struct federate_outcome outcome = {.ok = true};

	if (s->phase == SPLIT_COMMITTING)
		judge(s);
	if (!s->has_failed)
		outcome.rows = put_answer(s);
	if (s->is_over)
		return;
	if (s->has_failed) {
		stat_count(M_federated_failed, 1);
		outcome = (struct federate_outcome){.sqlstate = s->sqlstate,
		    .message = s->message,
		    .detail = s->detail,
		    .hint = s->hint,
		    .context = s->context};
	}
	split_release(s);
	s->client.done(s->arg, &outcome);
	split_end(s);
}

static void
begin_undoing(struct split *s)
{
	split_move(s, SPLIT_UNDOING);
	for (unsigned i = 0; i < s->part_count; i++)
		if (s->parts[i].link != NULL && s->parts[i].link->txn != 'I')
			part_run(&s->parts[i], "ROLLBACK");
}

/* All parts have answered what they were asked. True: it has gone on. */
static bool
split_next(struct split *s)
{
	bool was_asking = s->phase == SPLIT_ASKING;

	switch (s->phase) {
	case SPLIT_ASKING:
	case SPLIT_ENDING:
		for (unsigned i = 0; i < s->part_count; i++)
			/* A COPY does not end before it has begun. */
			if (!s->parts[i].has_tag || (was_asking && s->order.is_copy)) {
				split_fail(s, fault_info(F_LINK_PROTOCOL)->sqlstate,
				    fault_info(F_LINK_PROTOCOL)->text, NULL, NULL, NULL);
				return (true);
			}
		if (was_asking && !check_descriptions(s))
			return (true);
		if (s->order.begins)
			begin_checking(s);
		else
			split_over(s);
		return (!s->is_over);
	case SPLIT_CHECKING:
		begin_committing(s);
		return (true);
	case SPLIT_STOPPING:
		if (!s->order.begins) {
			split_over(s);
			return (false);
		}
		begin_undoing(s);
		return (true);
	case SPLIT_COMMITTING:
	case SPLIT_UNDOING:
		split_over(s);
		return (false);
	case SPLIT_TAKING:
	case SPLIT_OVER:
	case SPLIT_PHASES:
	default:
		return (false);
	}
}

void
split_advance(struct split *s)
{
	INVARIANT(s->magic == SPLIT_MAGIC);
	if (s->is_over)
		return;
	if (s->phase == SPLIT_ASKING && s->order.is_copy && all_take(s))
		begin_taking(s);
	while (!s->is_over && all_quiet(s) && split_next(s))
		;
}

/* ---- the caller ---- */

bool
split_takes(const struct split *s)
{
	if (s->phase != SPLIT_TAKING)
		return (false);
	for (unsigned i = 0; i < s->part_count; i++)
		if (s->parts[i].link != NULL && stream_is_full(&s->parts[i].link->stream))
			return (false);
	return (true);
}

void
split_cancel(struct split *s)
{
	INVARIANT(s->magic == SPLIT_MAGIC);
	if (s->is_over || s->has_failed || s->phase == SPLIT_COMMITTING)
		return;
	split_fail(
	    s, "57014", "canceling statement due to user request", NULL, NULL, NULL);
	split_advance(s);
}

uint64_t
split_rows(const struct split *s, unsigned part)
{
	const struct part *p = &s->parts[part];

	return (s->order.is_copy ? p->rows : p->given.rows);
}

bool
split_is_committing(const struct split *s)
{
	return (s->phase == SPLIT_COMMITTING);
}

void
split_hand_over(struct split *s, const struct federate_client *client, void *arg)
{
	INVARIANT(s->magic == SPLIT_MAGIC && !s->is_over);
	s->client = *client;
	s->arg = arg;
}

void
split_abort(struct split *s)
{
	INVARIANT(s->magic == SPLIT_MAGIC);
	if (s->is_over)
		return;
	split_release(s);
	split_end(s);
}
