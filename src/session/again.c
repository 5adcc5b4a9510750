/*
 * Reads that a replica cancels, refuses or loses, and that are run once more on the primary.
 *
 *   the unit goes to a replica     the client's bytes of it are kept, and what the replica
 *                                  answers is held back
 *   the first row, or the end      the client gets what was held back: it is too late now
 *   an error, or the link is lost  what was held back is forgotten, and the client's bytes
 *                                  are read again, as a unit that shuns replicas
 *
 * A read changes nothing, so that half of it may have run. What the client has heard (it asked
 * for it with Flush) is not done again, unless a portal hangs on it: then it is too late too.
 */
#include "stat.h"
#include "weave.h"
#include <stdlib.h>
#include <string.h>

#define AGAIN_BYTES ((size_t)1024 * 1024) /* of a unit, and of what is held back */

/* Names of statements that the unit has made. */
static void
forget_names(struct weave_again *a)
{
	for (unsigned i = 0; i < a->name_count; i++)
		free(a->names[i]);
	free(a->names);
	a->names = NULL;
	a->name_count = 0;
}

/* What the unit begins with: its next message is the first one that is kept. */
static void
keep_from_here(struct session *s)
{
	struct weave_again *a = s->weave->again;

	forget_names(a);
	buf_free(&a->sent);
	if (s->unnamed != NULL)
		s->unnamed->refs++;
	if (a->unnamed != NULL)
		stmt_release(s->worker, a->unnamed);
	a->unnamed = s->unnamed;
	a->unnamed_token = s->unnamed_token;
}

void
again_begin(struct up *u)
{
	struct session *s = u->s;
	struct weave *w = s->weave;

	if (!w->reads_replica || w->txn != TXN_NONE ||
	    (w->again != NULL && w->again->repeats))
		return;
	if (w->again == NULL)
		w->again = mem_alloc(sizeof(*w->again));
	w->again->keeps = true;
	w->again->blank = w->blank;
	keep_from_here(s);
	u->kept = u->used;
}

void
again_over(struct session *s)
{
	struct weave_again *a = s->weave->again;

	if (a == NULL)
		return;
	a->keeps = a->repeats = false;
	forget_names(a);
	buf_free(&a->sent);
	buf_free(&a->held);
	if (a->unnamed != NULL)
		stmt_release(s->worker, a->unnamed);
	a->unnamed = NULL;
}

void
again_free(struct session *s)
{
	again_over(s);
	free(s->weave->again);
	s->weave->again = NULL;
}

void
again_sent(struct up *u)
{
	struct weave_again *a = u->s->weave != NULL ? u->s->weave->again : NULL;

	if (a == NULL || !a->keeps)
		return;
	buf_add(&a->sent, u->p + u->kept, u->used - u->kept);
	if (a->sent.len > AGAIN_BYTES)
		again_release(u->s, NULL);
}

void
again_named(struct session *s, const char *name)
{
	struct weave_again *a = s->weave != NULL ? s->weave->again : NULL;

	if (a == NULL || !a->keeps)
		return;
	a->names = mem_realloc(a->names, (a->name_count + 1) * sizeof(*a->names));
	a->names[a->name_count++] = mem_str(name);
}

void
again_hold(struct session *s, struct batch *b)
{
	if (s->weave != NULL && s->weave->again != NULL && s->weave->again->keeps)
		b->held = &s->weave->again->held;
}

void
again_release(struct session *s, struct batch *b)
{
	struct weave_again *a = s->weave != NULL ? s->weave->again : NULL;

	if (a == NULL || !a->keeps)
		return;
	if (b != NULL) {
		batch_flush(b);
		b->held = NULL;
	}
	stream_write(&s->stream, a->held.mem, a->held.len);
	again_over(s);
}

void
again_answered(struct session *s)
{
	struct weave *w = s->weave;
	struct weave_again *a = w != NULL ? w->again : NULL;

	if (a == NULL || !a->keeps)
		return;
	if (a->held.len > AGAIN_BYTES) {
		again_release(s, NULL);
		return;
	}
	if (s->link->requests.count > 0 || s->link->body_left > 0)
		return;
	if (w->is_bound || s->body_left > 0) {
		again_release(s, NULL);
		return;
	}
	/* Statements that were prepared are so on any link. */
	stream_write(&s->stream, a->held.mem, a->held.len);
	buf_free(&a->held);
	keep_from_here(s);
}

/* ---- once more ---- */

static bool
is_repeatable(const char *sqlstate)
{
	static const char *const of_replicas[] = {
	    "40001", /* conflict with recovery */
	    "40P01", /* the same, when recovery waits for what the read holds */
	    "25006", /* it would have written */
	    "57P01", /* the server goes */
	    "57P02",
	    "57P03",
	    NULL,
	};

	for (unsigned i = 0; of_replicas[i] != NULL; i++)
		if (strcmp(sqlstate, of_replicas[i]) == 0)
			return (true);
	return (false);
}

/* The session has no link. */
static void
once_more(struct session *s, const char *why)
{
	struct weave *w = s->weave;
	struct weave_again *a = w->again;
	struct buf sent = a->sent;
	uint32_t blank = a->blank;

	/* What the end of a unit would drop is still wanted. */
	w->again = NULL;
	weave_unit_over(s);
	weave_track_drop(w);
	w->again = a;
	session_log(s, LOG_INFO_, "a read goes to the primary again: %s", why);
	stat_count(M_repeated, 1);
	for (unsigned i = 0; i < a->name_count; i++) {
		struct stmt_name *n = stmt_name_find(s, a->names[i]);

		if (n != NULL)
			stmt_name_take_out(s, n);
	}
	if (a->unnamed != NULL)
		a->unnamed->refs++;
	stmt_unnamed_set(s, a->unnamed);
	s->unnamed_token = a->unnamed_token;
	a->sent = (struct buf){0};
	again_over(s);
	a->repeats = true;
	w->shuns_replicas = true;
	w->unit = (struct unit_notes){0};
	w->blank = blank;
	s->body_left = 0;
	s->is_stalled = false;
	stream_unread(&s->stream, sent.mem, sent.len);
	buf_free(&sent);
	session_flow(s);
}

static bool
may_repeat(const struct session *s)
{
	const struct weave *w = s->weave;

	return (w != NULL && w->again != NULL && w->again->keeps &&
		s->state == SESSION_ACTIVE && !s->is_leaving &&
		!refusal_is_set(&w->refusal));
}

bool
again_failed(struct session *s, struct batch *b, const struct proto_error_fields *error)
{
	struct weave_again *a = s->weave != NULL ? s->weave->again : NULL;
	struct link *l = s->link;
	char *why;

	if (!may_repeat(s) || !is_repeatable(error->sqlstate))
		return (false);
	why = mem_printf("%s: %s", l->name, error->message);
	b->count = 0;
	b->held = NULL;
	session_disown_requests(s, l);
	while (l->requests.count > 0)
		requests_pop(&l->requests);
	l->is_dirty = true;
	s->weave->again = NULL;
	(void)session_let_go(s);
	s->weave->again = a;
	pool_give_broken(l, false, "it gave up a read");
	once_more(s, why);
	free(why);
	return (true);
}

bool
again_lost(struct session *s, const char *name, const char *why)
{
	char *text;

	if (!may_repeat(s))
		return (false);
	text = mem_printf("%s: %s", name, why);
	session_move(s, SESSION_IDLE);
	once_more(s, text);
	free(text);
	return (true);
}
