/*
 * LISTEN and UNLISTEN on virtual databases. No server of the transaction hears of them: which
 * way it ends is known here. They are notes among what the transaction sets (track.c), so that
 * ROLLBACK TO cuts them, COMMIT makes them hold, and a statement that fails behind them in its
 * string or batch takes them back. The listening link is that of the member to which the LISTEN
 * is routed, as any statement without tables is; it listens before the client hears that LISTEN
 * is done.
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>

bool
heed_is(const struct sense *sense)
{
	const char *verb = sense->scan.verb;
	struct sql_prepare p;

	if (sense->facts->class != SQL_UTILITY ||
	    (strcmp(verb, "listen") != 0 && strcmp(verb, "unlisten") != 0) ||
	    !sql_listen_read(&sense->scan, &p))
		return (false);
	sql_prepare_free(&p);
	return (true);
}

/* LISTEN: the member's link listens. */
static enum listen_go
heed_want(struct session *s, struct seat *seat, const char *channel)
{
	struct weave *w = s->weave;
	const struct seat *has = listen_seat(s, channel);
	enum listen_go go;
	char *message;

	if (has != NULL && strcmp(has->pool->database, seat->pool->database) != 0) {
		message = mem_printf("channel \"%s\" is listened to at database \"%s\"",
		    channel, has->pool->database);
		refusal_set(&w->refusal, "0A000", message, NULL,
		    "UNLISTEN it before, or use another connection.");
		free(message);
		return (LISTEN_REFUSED);
	}
	go = listen_want(s, seat, channel);
	if (go == LISTEN_REFUSED) {
		w->refusal = s->listens->refusal;
		s->listens->refusal = (struct refusal){0};
	}
	return (go);
}

enum listen_go
heed_is_ready(struct session *s, const struct sense *sense)
{
	struct weave *w = s->weave;
	struct seat *seat = NULL;
	enum listen_go go = LISTEN_GO;
	struct sql_prepare p;

	if (!heed_is(sense))
		return (go);
	INVARIANT(sql_listen_read(&sense->scan, &p));
	if (!listen_has_room(s)) {
		refusal_set(&w->refusal, "54000", LISTEN_NO_ROOM, NULL, NULL);
		go = LISTEN_REFUSED;
	} else if (p.kind == SQL_PREPARE_LISTEN)
		switch (weave_route(s, sense, NULL, &w->plan->plan, &seat)) {
		case GO_ONE:
			go = heed_want(s, seat, p.name);
			break;
		case GO_LOCAL:
		case GO_MANY:
			refusal_set(&w->refusal, "0A000",
			    "LISTEN cannot go to several databases", NULL,
			    "Name one: SET pgweave.database = …");
			go = LISTEN_REFUSED;
			break;
		case GO_REFUSED:
		default:
			go = LISTEN_REFUSED;
			break;
		}
	sql_prepare_free(&p);
	return (go);
}

bool
heed_follows(struct session *s, const struct sense *sense)
{
	struct sql_prepare p;

	if (strcmp(sense->scan.verb, "unlisten") != 0 || !heed_is(sense) ||
	    s->weave->txn == TXN_FAILED)
		return (false);
	INVARIANT(sql_listen_read(&sense->scan, &p));
	if (s->listens != NULL)
		weave_track_listen(s->weave, p.name, true);
	sql_prepare_free(&p);
	return (true);
}

void
heed_run(struct session *s, const struct sense *sense, struct buf *out)
{
	struct sql_prepare p;
	bool is_off;

	INVARIANT(sql_listen_read(&sense->scan, &p));
	is_off = p.kind == SQL_PREPARE_UNLISTEN;
	if (!is_off || s->listens != NULL)
		weave_track_listen(s->weave, p.name, is_off);
	proto_command_complete(out, is_off ? "UNLISTEN" : "LISTEN");
	sql_prepare_free(&p);
}

bool
heed_rest(struct session *s, bool committed)
{
	struct weave *w = s->weave;

	if (w->txn != TXN_NONE)
		return (true);
	if (w->note_count > 0)
		weave_track_end(s, committed);
	return (s->listens == NULL || listen_rest(s));
}
