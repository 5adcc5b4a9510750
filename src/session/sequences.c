/*
 * currval() and lastval() where links are shared: they answer for the server's session, which has
 * what its last users have drawn from sequences. Nobody can see which statements draw (a DEFAULT
 * does). So a link knows who has used it last:
 *
 *   nobody      it is new, or DISCARD SEQUENCES was done there
 *   a stay      a client has used this link, and meanwhile no other link
 *   others
 *
 * Outside of a transaction such a statement runs on the link of its client's stay, when that is
 * idle, was clean at first and nobody has used it since, or is refused. It holds the client to that link: what follows
 * is as on PostgreSQL. Where somebody has asked, links are cleaned before they change hands, so
 * that what PostgreSQL answers from then on is never another client's.
 */
#include "carry.h"
#include <stdlib.h>
#include <string.h>

/* A stay at no link. */
#define STAY_LOST UINT64_MAX
/* After the last such statement at a seat its links are cleaned for so long. */
#define CLEANS_US ((int64_t)3600 * 1000000)

/* ---- stays ---- */

/* Whether others had used the link last when the session got it. */
static bool
had_others(const struct session *s, const struct link *l)
{
	return (l->drawn_before != 0 &&
		!(s->stay_link == l->id && l->drawn_before == s->stay));
}

void
sequences_left(struct session *s, struct link *l)
{
	bool others = had_others(s, l);

	/* It was not cleaned for this use, and is to be for the next. */
	if (others && ((struct seat *)l->place)->sequences_us != 0) {
		s->stay_link = STAY_LOST;
		return;
	}
	if (s->stay_link != l->id || others) {
		s->stay_link = l->id;
		s->stay_is_clean = !others;
		s->stay =
		    ++session_worker(s->worker)->tokens << 8 | (uint64_t)s->worker->index;
	}
	l->drawn = s->stay;
}

bool
sequences_clean(struct session *s, struct buf *sql)
{
	struct link *l = s->link;
	struct seat *seat = l->place;

	if (!session_carries(s) || s->state == SESSION_WELCOME || !had_others(s, l))
		return (false);
	if (seat->used_us - seat->sequences_us > CLEANS_US) {
		seat->sequences_us = 0;
		return (false);
	}
	buf_addstr(sql, "DISCARD SEQUENCES;");
	/* Its own, should it have had some there, are gone with the others. */
	if (s->stay_link == l->id)
		s->stay_link = STAY_LOST;
	return (true);
}

/* ---- statements ---- */

/* Nothing of the session is done on its link, or has been since it got that. */
static bool
is_untouched(const struct session *s)
{
	const struct link *l = s->link;

	return (l->txn == 'I' && l->requests.count == 0 && !l->wants_sync &&
		!l->skips_to_sync && (s->carry == NULL || s->carry->pins.held == 0));
}

/* What is sent already runs before the statement. */
static bool
is_behind_others(const struct session *s)
{
	const struct link *l = s->link;

	if (l->txn != 'I' || (s->carry != NULL && s->carry->pins.held != 0))
		return (true);
	for (uint32_t i = 0; i < l->requests.count; i++) {
		uint8_t kind = requests_at(&l->requests, i)->kind;

		if (kind == REQ_QUERY || kind == REQ_FUNCTION || kind == REQ_EXECUTE)
			return (true);
	}
	return (false);
}

/* The link of the session's stay, if nobody has it. */
static struct link *
own_idle(const struct session *s)
{
	struct link *l;

	TAILQ_FOREACH(l, &s->seat->idle, idle_entry)
		if (l->id == s->stay_link)
			return (l->drawn == s->stay && l->kept_for == NULL ? l : NULL);
	return (NULL);
}

void
sequences_keep(struct session *s)
{
	struct link *own = own_idle(s);

	if (own != NULL)
		pool_keep_this(own, &s->waiter);
}

static void
cleaned(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	if (error != NULL) {
		l->is_dirty = true;
		session_close(s, error->sqlstate, error->message);
		return;
	}
	session_flow(s);
}

/* Another link, of which nothing was used, is given for the one of the stay. False: it must be
 * waited for. */
static bool
change_link(struct up *u, struct link *own)
{
	struct session *s = u->s;
	struct link *other = s->link;
	uint64_t drawn = other->drawn_before;
	uint64_t stay = s->stay, stay_link = s->stay_link;

	batch_flush(&u->batch);
	pool_keep_this(own, &s->waiter);
	(void)session_let_go(s);
	/* It was not used. */
	other->drawn = drawn;
	s->stay = stay;
	s->stay_link = stay_link;
	pool_give(other, false);
	if (!session_get_link(s))
		return (false);
	up_to_link(u);
	return (true);
}

bool
sequences_prefer(struct up *u)
{
	struct session *s = u->s;
	struct link *own;

	s->seat->sequences_us = u->now_us;
	if (!session_carries(s) || !is_untouched(s) || s->link->id == s->stay_link)
		return (true);
	/* It has drawn from none: PostgreSQL is to say so. */
	if (s->stay_link == 0 && s->link->drawn_before != 0) {
		link_run(s->link, "DISCARD SEQUENCES", cleaned, s);
		session_flow(s);
		return (false);
	}
	own = own_idle(s);
	return (own == NULL || change_link(u, own));
}

enum sequences_go
sequences_check(const struct session *s, struct refusal *why)
{
	const struct link *l = s->link;

	if (s->carry != NULL && (s->carry->pins.held & SQL_LEAVES_SEQUENCE) != 0)
		return (SEQUENCES_RUN);
	if (is_behind_others(s))
		return (SEQUENCES_WITHIN);
	if (s->stay_link == 0
		? l->drawn_before == 0
		: s->stay_link == l->id && s->stay_is_clean && !had_others(s, l))
		return (SEQUENCES_RUN);
	refusal_set(why, "55000", SEQUENCES_UNKNOWN,
	    "The server connection that this client had last is in use, or others have used "
	    "it before or since.",
	    SEQUENCES_HINT);
	return (SEQUENCES_REFUSE);
}

enum sequences_go
sequences_may(struct up *u, struct refusal *why)
{
	return (sequences_prefer(u) ? sequences_check(u->s, why) : SEQUENCES_WAIT);
}
