/*
 * Messages of a client of a virtual database: which unit they begin, and what becomes of it.
 *
 *            local            answered here
 *   unit --> one database     relays: its messages pass to one link, as on a plain database
 *            several          scattered, its answers joined
 *
 * A unit begins when nothing is owed to the client. What cannot go where its batch went makes
 * the batch fail, at the server, as any error in it would.
 */
#include "listen.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is said to the client ---- */

char
weave_status(const struct session *s)
{
	switch (s->weave->txn) {
	case TXN_NONE:
		return ('I');
	case TXN_FAILED:
		return ('E');
	case TXN_DEFERRED:
	case TXN_OPEN:
	default:
		return ('T');
	}
}

void
weave_error(struct session *s, const struct refusal *r, bool is_extended, bool is_simple)
{
	struct weave *w = s->weave;

	session_error_in(
	    s, "ERROR", r->sqlstate, r->message, r->detail, r->hint, r->context);
	if (w->txn != TXN_NONE)
		w->txn = TXN_FAILED;
	if (is_extended)
		s->skips_to_sync = true;
	if (is_simple)
		session_ready(s, weave_status(s));
}

/* The refusal that stands, for the unit that begins with this message. */
enum up_verdict
weave_say_refusal(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	bool is_extended =
	    proto_is_of(type, PROTO_TYPE('P') | PROTO_TYPE('B') | PROTO_TYPE('D') |
				  PROTO_TYPE('E') | PROTO_TYPE('C'));
	struct refusal r = s->weave->refusal;

	if (s->weave->is_held) {
		refusal_free(&s->weave->refusal);
		s->weave->is_routed = false;
		return (UP_STOP);
	}
	s->weave->held_us = 0;

	s->weave->refusal = (struct refusal){0};
	s->weave->blank = 0;
	s->weave->is_routed = s->weave->shuns_replicas = false;
	s->weave->unit = (struct unit_notes){0};
	weave_track_drop(s->weave);
	cursors_miss(s->weave);
	temps_cut(s->weave, s->weave->temp_sure);
	weave_error(s, &r, is_extended, !is_extended);
	refusal_free(&r);
	weave_unit_over(s);
	return (up_body(u, size + 1, true));
}

enum up_verdict
weave_say(struct up *u, uint32_t size, struct buf *out)
{
	stream_write(&u->s->stream, out->mem, out->len);
	buf_free(out);
	return (up_body(u, size + 1, true));
}

enum up_verdict
weave_refuse(struct up *u, char type, uint32_t size, const char *sqlstate,
    const char *fmt, const char *name)
{
	char *message = name != NULL
			    ? mem_printf("%s \"%s\" %s", fmt, name,
				  strcmp(sqlstate, "42P05") == 0 ? "already exists"
								 : "does not exist")
			    : mem_str(fmt);

	refusal_set(&u->s->weave->refusal, sqlstate, message, NULL, NULL);
	free(message);
	return (weave_say_refusal(u, type, size));
}

static void
put_routed(struct weave *w, const char *names)
{
	size_t len = strlen(names) + 1;

	if (w->routed_room < len) {
		w->routed_room = len + 32;
		w->routed = mem_realloc(w->routed, w->routed_room);
	}
	memcpy(w->routed, names, len);
}

static void
set_routed(struct weave *w, const struct route_plan *plan)
{
	char names[512] = "";
	size_t len = 0;

	for (unsigned i = 0; i < plan->leg_count; i++) {
		int n = snprintf(names + len, sizeof(names) - len, "%s%s",
		    i > 0 ? ", " : "", plan->legs[i].member->name);

		if (n < 0 || (size_t)n >= sizeof(names) - len)
			break;
		len += (size_t)n;
	}
	put_routed(w, names);
}

void
weave_note_routed(struct weave *w, const struct route_plan *plan)
{
	if (plan->leg_count == 1)
		put_routed(w, plan->legs[0].member->name);
	else
		set_routed(w, plan);
}

void
weave_unit_over(struct session *s)
{
	struct weave *w = s->weave;

	w->relays = w->has_parsed = false;
	if (w->made_count > 0)
		weave_made_free(s);
	if (w->is_running) {
		w->is_running = false;
		atomic_fetch_sub(&w->running_use->running, 1);
	}
	if (w->again != NULL)
		again_over(s);
	if (s->state == SESSION_WEAVING)
		return;
	w->is_routed = false;
	if (w->run != NULL)
		weave_run_free(w);
	if (s->link == NULL)
		s->seat = w->home;
	if (s->listens != NULL && s->link == NULL && w->txn == TXN_NONE)
		listen_flush(s);
}

/* ---- all messages ---- */

static enum up_verdict
weave_sync(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;

	if (!heed_rest(s, !s->skips_to_sync))
		return (UP_STOP);
	s->skips_to_sync = false;
	if (w->txn == TXN_NONE)
		portals_free(s);
	session_ready(s, weave_status(s));
	weave_unit_over(s);
	return (up_body(u, size + 1, true));
}

/* FunctionCall says a function's OID and nothing else: it is routed as a CALL of one that may
 * write. */
static enum up_verdict
function_call(struct up *u, uint32_t size)
{
	static const char call[] = "CALL a_function()";
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct route_plan *plan = &w->plan->plan;
	struct seat *seat = NULL;
	struct sense sense;
	enum up_verdict v = UP_GO_ON;

	if (!weave_admit(u))
		return (weave_say_refusal(u, 'F', size));
	sense_make(s->worker, call, sizeof(call) - 1, &sense);
	switch (weave_decide(s, &sense, NULL, plan, &seat)) {
	case GO_ONE:
		v = weave_goes_to(s, &sense, NULL, plan, seat);
		break;
	case GO_LOCAL:
	case GO_MANY:
		refusal_set(&w->refusal, "0A000",
		    "a function call by OID cannot go to several databases", NULL, NULL);
		break;
	case GO_REFUSED:
	default:
		break;
	}
	sense_end(&sense);
	if (v == UP_GO_ON)
		return (weave_say_refusal(u, 'F', size));
	return (v == UP_PASS ? weave_pass_query(u, size) : v);
}

/* Messages that begin a unit, or are answered here. */
static enum up_verdict
unit_message(struct up *u, char type, uint32_t size)
{
	switch (type) {
	case 'Q':
		return (weave_query(u, size));
	case 'P':
		if (size > SESSION_WHOLE_MAX)
			return (weave_refuse(u, 'P', size, "54000",
			    "statement is too long for a virtual database", NULL));
		return (weave_parse(u, size));
	case 'B':
		return (weave_bind(u, size));
	case 'D':
	case 'C':
		return (weave_target(u, type, size));
	case 'E':
		return (weave_execute(u, size));
	case 'F':
		return (function_call(u, size));
	default: /* H: nothing to be flushed */
		return (up_body(u, size + 1, true));
	}
}

enum up_verdict
weave_message(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct link *l = s->link;

	if (s->state == SESSION_WEAVING)
		return (UP_STOP);
	if (UNLIKELY(w->is_adrift)) {
		session_close(
		    s, fault_info(F_LINK_LOST)->sqlstate, fault_info(F_LINK_LOST)->text);
		return (UP_STOP);
	}
	if (l != NULL && w->relays)
		return (weave_relay(u, type, size));
	if (proto_is_of(type, PROTO_TYPE('d') | PROTO_TYPE('c') | PROTO_TYPE('f')))
		return (l != NULL ? UP_PASS : up_body(u, size + 1, true));
	/* The server ignores Flush in the middle of a COPY, and refuses what else it does not
	 * expect. */
	if (l != NULL && l->is_copying_in)
		return (UP_PASS);
	if (l != NULL && w->is_routed)
		return (type == 'Q' || type == 'F' ? weave_pass_query(u, size)
						   : weave_pass_batch(u, type));
	if (l != NULL && (l->requests.count > 0 || l->body_left > 0)) {
		if (type == 'S')
			return (UP_PASS);
		s->is_stalled = true;
		return (UP_STOP);
	}
	s->is_stalled = false;
	if (type == 'S')
		return (weave_sync(u, size));
	if (s->skips_to_sync)
		return (up_body(u, size + 1, true));
	if (s->is_refused) {
		s->is_refused = false;
		refusal_set(&w->refusal, fault_info(F_CANCELLED)->sqlstate,
		    fault_info(F_CANCELLED)->text, NULL, NULL);
	}
	if (refusal_is_set(&w->refusal))
		return (weave_say_refusal(u, type, size));
	if (w->bars != NULL && w->txn == TXN_NONE) {
		session_close(s, "57P01", w->bars);
		return (UP_STOP);
	}
	return (unit_message(u, type, size));
}

/* ---- what servers say ---- */

void
weave_tag(struct session *s, const char *tag)
{
	struct weave *w = s->weave;

	/* Most are of rows, and nothing to us. */
	if (!proto_is_of(tag[0], PROTO_TYPE('C') | PROTO_TYPE('D') | PROTO_TYPE('P') |
				     PROTO_TYPE('R') | PROTO_TYPE('S')) ||
	    (tag[0] == 'S' && tag[1] == 'E' && tag[2] == 'L'))
		return;
	if (strcmp(tag, "COMMIT") == 0 || strncmp(tag, "PREPARE TRANSACTION", 19) == 0) {
		w->unit.ended = ENDED_COMMIT;
		w->unit.commits++;
	}
	/* ROLLBACK TO has the same tag. */
	else if (strcmp(tag, "ROLLBACK") == 0 &&
		 (w->frame_count == 0 || w->unit.rolls_back))
		w->unit.ended = ENDED_ROLLBACK;
	else if (strcmp(tag, "DISCARD ALL") == 0 ||
		 (strcmp(tag, "RESET") == 0 && w->unit.resets_all)) {
		w->unit.discards |= tag[0] == 'D';
		said_copy(&w->session, &w->base);
	}
}

/* Before the client hears that it is done. */
void
weave_wrote(struct session *s)
{
	struct weave *w = s->weave;
	bool has_written = w->unit.writes;

	for (unsigned i = 0; i < w->leg_count; i++)
		has_written |= w->legs[i].has_written;
	if (has_written && w->virt->causal_reads)
		atomic_store(&s->user->wrote_us, clock_us());
}

/* A transaction is open on the link, perhaps since just now. */
static void
weave_in_txn(struct session *s, struct link *l, char status)
{
	struct weave *w = s->weave;
	bool has_ended = w->txn != TXN_NONE && w->unit.ended != ENDED_NOT;
	struct leg *leg;

	if (has_ended) {
		weave_wrote(s);
		legs_drop(s, leg_of_link(w, l), "the transaction is over");
		weave_txn_over(s, w->unit.ended == ENDED_COMMIT);
		leg_note(s, l)->has_written = leg_note(s, l)->has_portals = false;
	}
	/* What the next one begins with is what the last one has left. */
	if (has_ended || w->unit.commits > 0)
		session_settle_vars(s, l);
	if (w->unit.has_begun && (w->txn == TXN_NONE || has_ended))
		weave_txn_begin(
		    s, w->next_begin, strlen(w->next_begin), w->next_is_read_only);
	else if (w->unit.has_begun && !w->unit.has_failed)
		weave_txn_more(s, w->next_begin, strlen(w->next_begin));
	else if (w->txn == TXN_NONE && has_ended)
		weave_txn_chain(s);
	else if (w->txn == TXN_NONE)
		weave_txn_begin(s, "BEGIN", 5, false);
	leg = leg_note(s, l);
	leg->is_open = true;
	weave_note_leg(s);
	if (w->txn == TXN_NONE || has_ended)
		w->txn_us = l->xact_us;
	w->txn = status == 'E' || w->is_doomed ? TXN_FAILED : TXN_OPEN;
}

void
weave_ready(struct session *s, struct link *l, char status)
{
	struct weave *w = s->weave;
	struct leg *leg;

	if (refusal_is_set(&w->refusal))
		refusal_free(&w->refusal);
	if (w->unit.awaits_run || w->unit.is_unsure)
		weave_track_anew(w);
	if (w->noted != 0 || w->unit.discards)
		weave_track_ready(s, l, status);
	if (UNLIKELY(w->unit.leaves != 0 || w->unit.discards))
		anchors_ready(s, l);
	w->temp_sure = w->temp_count;
	if (status == 'I') {
		weave_wrote(s);
		leg = leg_of_link(w, l);
		if (leg != NULL)
			leg_forget(w, leg);
		if (w->txn != TXN_NONE) {
			legs_drop(s, NULL, "the transaction is over");
			weave_track_free(s);
			weave_txn_over(s, w->unit.ended == ENDED_COMMIT);
		}
		if (w->frame_count > 0 || w->leg_count > 0)
			weave_savepoints_cut(s, 0);
		if (w->cursor_count > 0 || !TAILQ_EMPTY(&w->portals))
			portals_free(s);
		if (w->temp_count > 0)
			temps_cut(w, 0);
	} else
		weave_in_txn(s, l, status);
	l->is_tainted |= w->unit.taints || w->unit.awaits_run;
	w->held_us = 0;
	w->shuns_replicas = false;
	w->unit = (struct unit_notes){0};
	if (l->requests.count == 0)
		weave_unit_over(s);
}
