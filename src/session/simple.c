/*
 * Simple queries on a virtual database. A string of several statements is one unit: its first
 * ones may be answered here, the rest goes to one link.
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- simple queries ---- */

/* What the server gets of the string is without the names of databases in this statement. */
static void
note_clean(struct session *s, const struct sense *sense, const char *sql, size_t len)
{
	struct weave *w = s->weave;
	char *text = sense_clean(s->worker, sense);

	if (text == NULL)
		return;
	if (w->clean == NULL)
		w->clean = mem_strn(sql, len);
	memcpy(w->clean + (sense->scan.sql - sql), text, sense->scan.len);
	free(text);
}

/* A statement behind the first one of its string: whether it belongs to the same link. */
static enum decision
decide_other(struct session *s, const struct sense *sense, struct route_plan *plan,
    struct route_plan *other, struct seat **seat, bool *floats)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	struct leg *home = leg_home(w);
	struct seat *there = NULL;
	enum decision go;

	switch (f->class) {
	case SQL_EMPTY:
		return (GO_ONE);
	case SQL_BEGIN:
		weave_note_relayed(s, sense, NULL);
		return (GO_ONE);
	case SQL_COMMIT:
	case SQL_ROLLBACK:
	case SQL_SAVEPOINT:
	case SQL_TWO_PHASE:
		weave_note_relayed(s, sense, NULL);
		/* What the string has written makes its link the home. */
		if (w->txn != TXN_OPEN || plan->is_write || home == NULL ||
		    home->seat == *seat ||
		    (!home->has_written && !home->has_savepoints &&
			f->class != SQL_TWO_PHASE))
			return (GO_ONE);
		break;
	case SQL_UNKNOWN:
	case SQL_READ:
	case SQL_WRITE:
	case SQL_DDL:
	case SQL_UTILITY:
	case SQL_SET:
	case SQL_EXPLAIN_ROUTE:
	default:
		if (heed_follows(s, sense))
			return (GO_ONE);
		go = weave_decide(s, sense, NULL, other, &there);
		if (go == GO_REFUSED)
			return (go);
		if (go == GO_LOCAL || go == GO_MANY)
			return (weave_decline(w, "0A000",
			    "this statement must stand first, or alone, in its string",
			    "Send each statement by itself."));
		plan->is_write |= other->is_write;
		/* What could go anywhere goes where the others do. */
		if (there != *seat && !w->unit.floats && *floats) {
			*seat = there;
			plan->leg_count = other->leg_count;
			memcpy(plan->legs, other->legs, sizeof(plan->legs));
		}
		*floats &= w->unit.floats;
		if (there != *seat && !w->unit.floats)
			break;
		weave_note_relayed(s, sense, NULL);
		return (GO_ONE);
	}
	return (weave_decline(w, "0A000",
	    "the statements of one string belong to different databases",
	    "Send each statement by itself."));
}

/* The statements from the first one on go to one link as one string: whether they all belong
 * there. */
static enum decision
decide_rest(struct up *u, const char *sql, size_t len, struct route_plan *plan,
    struct seat **seat, struct sense *first)
{
	struct session *s = u->s;
	struct route_plan *other = NULL;
	const char *end = sql + len, *at = first->scan.next;
	enum decision go;
	bool floats;

	s->weave->unit.is_string = at != NULL;
	weave_made_free(s);
	temps_cut(s->weave, s->weave->temp_sure);
	go = weave_decide(s, first, NULL, plan, seat);
	floats = s->weave->unit.floats;
	if (go == GO_ONE)
		note_clean(s, first, sql, len);
	if (at == NULL || go == GO_REFUSED || go == GO_LOCAL)
		return (go);
	if (go == GO_MANY)
		return (weave_decline(s->weave, "0A000",
		    "several statements in one string cannot be federated",
		    "Send each by itself."));
	weave_note_relayed(s, first, NULL);
	other = mem_alloc(sizeof(*other));
	while (at != NULL && go == GO_ONE) {
		struct sense sense;

		sense_make(s->worker, at, (size_t)(end - at), &sense);
		go = decide_other(s, &sense, plan, other, seat, &floats);
		if (go == GO_ONE)
			note_clean(s, &sense, sql, len);
		at = sense.scan.next;
		sense_end(&sense);
	}
	free(other);
	return (go);
}

/* A string with PREPARE, EXECUTE or DEALLOCATE in it, of which a part was answered here, or
 * names of databases must not be sent. */
static enum up_verdict
pass_prepared(struct up *u, const char *sql, size_t len)
{
	struct weave *w = u->s->weave;
	char *said = mem_strn(sql, len);
	char *sent = mem_strn(w->clean != NULL ? w->clean : sql, len);
	enum up_verdict v;

	memset(said, ' ', w->blank);
	memset(sent, ' ', w->blank);
	v = prep_query(u, said, sent, len);
	free(said);
	free(sent);
	return (v);
}

enum up_verdict
weave_pass_query(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	const char *sql = (const char *)u->p + u->used + PROTO_HEAD;
	bool looks;

	if (s->link->state != LINK_LENT || s->stream.is_paused)
		return (UP_STOP);
	looks = !w->is_repeated && u->p[u->used] == 'Q' &&
		prep_look(s, sql, size - 5, size - 5) > 0;
	if (looks && !prep_is_ready(u, sql, size - 5))
		return (UP_STOP);
	w->is_routed = false;
	again_begin(u);
	if (w->txn != TXN_NONE)
		weave_note_leg(s);
	if (w->blank == 0 && w->clean == NULL)
		return (UP_PASS);
	if (!looks || pass_prepared(u, sql, size - 5) == UP_PASS)
		up_query_blanked(u, size, w->blank, w->clean);
	w->blank = 0;
	free(w->clean);
	w->clean = NULL;
	return (up_body(u, size + 1, true));
}

/* An EXECUTE without arguments is the statement itself. */
static void
start_many(struct session *s, struct route_plan *plan, const struct sense *sense)
{
	struct prep_inner inner;

	if (!prep_inner_find(s, sense, &inner)) {
		scatter_start(s, plan, sense, NULL, NULL, SCATTER_RUN, 0);
		return;
	}
	scatter_start(s, plan, &inner.sense, NULL, NULL, SCATTER_RUN, 0);
	prep_inner_free(s, &inner);
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
		switch (heed_is_ready(s, &sense)) {
		case LISTEN_WAITS:
			w->is_admitted = w->blank == 0;
			goto out;
		case LISTEN_REFUSED:
			v = weave_say_refusal(u, 'Q', size);
			goto out;
		case LISTEN_GO:
		default:
			break;
		}
		if (!local_run(s, &sense, NULL, false, &out, &r, &later)) {
			stream_write(&s->stream, out.mem, out.len);
			buf_free(&out);
			w->refusal = r;
			v = weave_say_refusal(u, 'Q', size);
			break;
		}
		*at = sense.scan.next;
		w->blank = *at != NULL ? (uint32_t)(*at - sql) : BLANK_ALL;
		if (out.len > 0)
			stream_write(&s->stream, out.mem, out.len);
		buf_free(&out);
		/* Offered again when the answer is there, it goes on behind this statement. */
		*local = !later || s->state != SESSION_WEAVING;
		v = *local ? UP_GO_ON : UP_STOP;
		break;
	case GO_ONE:
		v = weave_goes_to(s, &sense, NULL, plan, seat);
		if (v == UP_GO_ON)
			v = weave_say_refusal(u, 'Q', size);
		else if (v == UP_PASS)
			v = weave_pass_query(u, size);
		break;
	case GO_MANY:
		w->blank = 0;
		weave_note_routed(w, plan);
		weave_say_warning(s, plan);
		(void)up_body(u, size + 1, true);
		start_many(s, plan, &sense);
		v = UP_GO_ON;
		break;
	case GO_REFUSED:
	default:
		v = weave_say_refusal(u, 'Q', size);
		break;
	}
out:
	sense_end(&sense);
	return (v);
}

/* SET and SHOW of pgweave's own: no database runs them, and they do not count for a key. */
static bool
is_setting(struct session *s, const char *sql, size_t len)
{
	struct sense sense;
	bool is_one;

	if (strncasecmp(sql, "select ", 7) == 0)
		return (false);
	sense_make(s->worker, sql, len, &sense);
	is_one = sense.facts->class == SQL_SET && sense.scan.next == NULL &&
		 sense_is_local(s, &sense);
	sense_end(&sense);
	return (is_one);
}

/* All of the string was answered. */
static enum up_verdict
query_over(struct up *u, uint32_t size)
{
	u->s->weave->blank = 0;
	if (!heed_rest(u->s, true))
		return (UP_STOP);
	session_ready(u->s, weave_status(u->s));
	weave_unit_over(u->s);
	return (up_body(u, size + 1, true));
}

enum up_verdict
weave_query(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
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
	if (pool_settings(s->worker)->disable_pqexec)
		return (up_broken(u, "PQexec disabled"));
	if (w->blank == BLANK_ALL)
		return (query_over(u, size));
	free(w->clean);
	w->clean = NULL;
	if (w->blank == 0) {
		w->unit = (struct unit_notes){0};
		if (w->noted != w->noted_sure)
			weave_track_anew(w);
		/* As a server does, whatever the query says. */
		stmt_unnamed_set(s, NULL);
		s->unnamed_token = 0;
		if (w->key != NULL && w->held_us == 0 && !w->is_admitted &&
		    !is_setting(s, sql, size - 5) && !weave_admit(u))
			return (weave_say_refusal(u, 'Q', size));
		w->is_admitted = false;
		if (repeat_query(u, sql, size - 5, &v))
			return (v == UP_GO_ON  ? weave_say_refusal(u, 'Q', size)
				: v == UP_PASS ? weave_pass_query(u, size)
					       : v);
	}
	at = sql + w->blank;
	do {
		v = query_step(u, size, sql, &at, &local);
	} while (local && at != NULL);
	return (local ? query_over(u, size) : v);
}
