/*
 * Simple queries on a virtual database. A string of several statements is one unit: its first
 * ones may be answered here, the rest goes to one link.
 */
#include "weave.h"
#include <stdlib.h>

/* ---- simple queries ---- */

/* The statements from `at` on go to one link as one string: whether they all belong there. */
static enum decision
decide_rest(struct up *u, const char *sql, size_t len, struct route_plan *plan,
    struct seat **seat, struct sense *first)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct route_plan *other = NULL;
	struct seat *there = NULL;
	const char *end = sql + len, *at = first->scan.next;
	enum decision go = weave_decide(s, first, NULL, plan, seat);

	if (at == NULL || go == GO_REFUSED)
		return (go);
	if (go == GO_MANY)
		return (weave_decline(w, "0A000",
		    "several statements in one string cannot be federated",
		    "Send each by itself."));
	while (at != NULL && go == GO_ONE) {
		struct sense sense;
		enum sql_class class;

		sense_make(s->worker, at, (size_t)(end - at), &sense);
		class = sense.facts->class;
		if (other == NULL)
			other = mem_alloc(sizeof(*other));
		if (class != SQL_BEGIN && class != SQL_COMMIT && class != SQL_ROLLBACK &&
		    class != SQL_EMPTY && class != SQL_SAVEPOINT) {
			go = weave_decide(s, &sense, NULL, other, &there);
			if (go == GO_LOCAL || go == GO_MANY)
				go = weave_decline(w, "0A000",
				    "this statement must stand first, or alone, in its string",
				    "Send each statement by itself.");
			else if (go == GO_ONE && there != *seat)
				go = weave_decline(w, "0A000",
				    "the statements of one string belong to different databases",
				    "Send each statement by itself.");
			plan->is_write |= other->is_write;
		}
		at = sense.scan.next;
		sense_end(&sense);
	}
	free(other);
	return (go);
}

enum up_verdict
weave_pass_query(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;

	if (s->link->state != LINK_LENT || s->stream.is_paused)
		return (UP_STOP);
	w->is_routed = false;
	if (w->txn != TXN_NONE)
		leg_note(s, s->link)->has_written |= w->writes;
	if (w->blank == 0)
		return (UP_PASS);
	up_query_blanked(u, size, w->blank);
	w->blank = 0;
	return (up_body(u, size + 1, true));
}

/* One statement that begins at `at` of a query string. *local: it was answered here, and
 * *at stands behind it. */
static enum up_verdict
query_step(struct up *u, uint32_t size, const char *sql, const char **at, bool *local)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	size_t len = size - 5;
	struct route_plan *plan = &w->plan->plan;
	struct refusal r = {0};
	struct seat *seat = NULL;
	struct sense sense;
	enum up_verdict v = UP_STOP;
	struct buf out = {0};
	bool later = false;

	*local = false;
	sense_make(s->worker, *at, (size_t)(sql + len - *at), &sense);
	switch (decide_rest(u, sql, len, plan, &seat, &sense)) {
	case GO_LOCAL:
		if (!local_run(s, &sense, NULL, false, &out, &r, &later)) {
			w->refusal = r;
			v = weave_say_refusal(u, 'Q', size);
			break;
		}
		*local = !later;
		*at = sense.scan.next;
		if (out.len > 0)
			stream_write(&s->stream, out.mem, out.len);
		buf_free(&out);
		v = later ? up_body(u, size + 1, true) : UP_GO_ON;
		break;
	case GO_ONE:
		w->blank = (uint32_t)(*at - sql);
		v = weave_goes_to(s, &sense, plan, seat);
		if (v == UP_GO_ON)
			v = weave_say_refusal(u, 'Q', size);
		else if (v == UP_PASS)
			v = weave_pass_query(u, size);
		break;
	case GO_MANY:
		weave_note_routed(w, plan);
		weave_say_warning(s, plan);
		(void)up_body(u, size + 1, true);
		scatter_start(s, plan, &sense, NULL, NULL, SCATTER_RUN, 0);
		v = UP_GO_ON;
		break;
	case GO_REFUSED:
	default:
		v = weave_say_refusal(u, 'Q', size);
		break;
	}
	sense_end(&sense);
	return (v);
}

/* SET and SHOW of pgweave's own: no database runs them, and they do not count for a key. */
static bool
is_setting(struct session *s, const char *sql, size_t len)
{
	struct sense sense;
	bool is_one;

	sense_make(s->worker, sql, len, &sense);
	is_one = sense.facts->class == SQL_SET && sense.scan.next == NULL &&
		 sense_is_local(s, &sense);
	sense_end(&sense);
	return (is_one);
}

enum up_verdict
weave_query(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD;
	const char *sql = (const char *)body, *at = sql;
	enum up_verdict v;
	bool local;

	if (size > SESSION_WHOLE_MAX)
		return (weave_refuse(u, 'Q', size, "54000",
		    "statement is too long for a virtual database", NULL));
	if (have < size - 4)
		return (UP_STOP);
	if (size < 5 || body[size - 5] != '\0')
		return (up_broken(u, "invalid Query message"));
	if (s->weave->key != NULL && !is_setting(s, sql, size - 5) && !weave_admit(u))
		return (weave_say_refusal(u, 'Q', size));
	do {
		v = query_step(u, size, sql, &at, &local);
	} while (local && at != NULL);
	if (!local)
		return (v);
	/* All of it was answered here. */
	session_ready(s, weave_status(s));
	weave_unit_over(s);
	return (up_body(u, size + 1, true));
}
