/*
 * What a client listens to where links are shared: its LISTENs and UNLISTENs as marks on the
 * link that runs its transaction, what of them holds at the end, and its notifications, which
 * it gets when it is outside of a transaction.
 */
#include "listen.h"
#include "carry.h"
#include "stat.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK "pgweave_listen_"

/* ---- ears ---- */

static bool
ear_same(const struct table_node *n, const void *key)
{
	return (strcmp(CONTAINER_OF(n, const struct ear, node)->channel->name, key) == 0);
}

static struct ear *
ear_find(const struct listens *ls, const char *name)
{
	struct table_node *n =
	    table_find(&ls->ears, hash_bytes(name, strlen(name)), ear_same, name);

	return (n == NULL ? NULL : CONTAINER_OF(n, struct ear, node));
}

static void
ear_end(struct ear *ear)
{
	table_remove(&ear->owner->ears, &ear->node);
	hub_remove(ear);
	free(ear);
}

/* Without those that are on, or without those that may never be. */
static void
ears_end(struct listens *ls, bool all)
{
	struct table_node *n = table_first(&ls->ears);

	while (n != NULL) {
		struct ear *ear = CONTAINER_OF(n, struct ear, node);

		n = table_next(&ls->ears, n);
		ear->is_maybe = false;
		if (all || !ear->is_on)
			ear_end(ear);
	}
}

unsigned
session_listen_count(const struct session *s)
{
	return (s->listens != NULL ? s->listens->ears.count : 0);
}

/* ---- life ---- */

static void listen_came(struct ticket *, const struct proto_error_fields *);

struct listens *
listen_get(struct session *s)
{
	if (s->listens == NULL) {
		s->listens = mem_alloc(sizeof(*s->listens));
		s->listens->s = s;
		s->listens->ticket.done = listen_came;
	}
	return (s->listens);
}

static void
actions_free(struct listens *ls)
{
	for (unsigned i = 0; i < ls->action_count; i++)
		free(ls->actions[i].channel);
	free(ls->actions);
	ls->actions = NULL;
	ls->action_count = 0;
}

void
listen_free(struct session *s)
{
	struct listens *ls = s->listens;

	if (ls == NULL)
		return;
	ears_end(ls, true);
	table_free(&ls->ears);
	ticket_leave(&ls->ticket);
	echo_leave(ls);
	actions_free(ls);
	refusal_free(&ls->refusal);
	buf_free(&ls->queue);
	free(ls);
	s->listens = NULL;
}

/* Nothing is left to be known. */
static void
free_if_unused(struct session *s)
{
	struct listens *ls = s->listens;

	if (ls->ears.count == 0 && ls->action_count == 0 && !ls->holds && !ls->waits &&
	    !ls->has_notified && !refusal_is_set(&ls->refusal))
		listen_free(s);
}

/* ---- LISTEN ---- */

/* The hub listens, or cannot: the message is looked at again. */
static void
listen_came(struct ticket *t, const struct proto_error_fields *error)
{
	struct listens *ls = CONTAINER_OF(t, struct listens, ticket);

	ls->waits = false;
	session_own_over(ls->s);
	if (error != NULL)
		refusal_set(&ls->refusal, error->sqlstate, error->message, NULL, NULL);
	session_flow(ls->s);
}

static enum listen_go
refuse(struct listens *ls, const char *sqlstate, const char *message, const char *hint)
{
	refusal_set(&ls->refusal, sqlstate, message, NULL, hint);
	return (LISTEN_REFUSED);
}

static const char *
client_encoding(const struct session *s)
{
	const char *encoding =
	    vars_get(s->link != NULL ? s->link->vars : s->vars, "client_encoding");

	return (encoding != NULL ? encoding : "UTF8");
}

enum listen_go
listen_want(struct session *s, struct seat *seat, const char *name)
{
	struct listens *ls = listen_get(s);
	struct ear *ear = ear_find(ls, name);
	struct hub *hub;

	if (refusal_is_set(&ls->refusal))
		return (LISTEN_REFUSED);
	if (ear == NULL) {
		if (ls->ears.count >= pool_settings(s->worker)->max_listen_channels)
			return (refuse(ls, "53400",
			    "too many channels for one client (max_listen_channels)",
			    NULL));
		if (seat->database != NULL && seat->database->host_count > 1 &&
		    seat->database->round_robin_hosts)
			return (refuse(ls, "0A000",
			    "LISTEN cannot hear several hosts that take turns",
			    "Use load_balance_hosts = disable."));
		hub = hub_get(seat, client_encoding(s));
		if (hub == NULL)
			return (refuse(ls, fault_info(F_POOL_GONE)->sqlstate,
			    fault_info(F_POOL_GONE)->text, NULL));
		ear = mem_alloc(sizeof(*ear));
		ear->owner = ls;
		hub_add(hub, name, ear);
		table_add(&ls->ears, &ear->node, hash_bytes(name, strlen(name)));
	}
	ear->is_maybe |= !ear->is_on;
	ear->was_lost &= !channel_hears(ear->channel);
	if (channel_hears(ear->channel))
		return (LISTEN_GO);
	hub_ask(ear);
	if (!ls->waits)
		s->waits_own++;
	ls->waits = true;
	if (ls->ticket.hub == NULL)
		hub_sync(ear->channel->hub, &ls->ticket);
	/* A hub that cannot be there has said so at once. */
	if (!ls->waits)
		return (LISTEN_REFUSED);
	session_flow(s);
	return (LISTEN_WAITS);
}

bool
listen_is_ready(struct session *s, const char *sql, size_t len)
{
	const char *at = sql, *end = sql + len;
	enum listen_go go = LISTEN_GO;
	struct sql_prepare p;
	struct sql_scan scan;

	while (at != NULL && go != LISTEN_REFUSED) {
		sql_scan(at, (size_t)(end - at), &scan);
		at = scan.next;
		if (sql_listen_read(&scan, &p)) {
			if (p.kind == SQL_PREPARE_LISTEN) {
				enum listen_go one = listen_want(s, s->seat, p.name);

				go = one != LISTEN_GO ? one : go;
			}
			sql_prepare_free(&p);
		}
		sql_scan_free(&scan);
	}
	return (go != LISTEN_WAITS);
}

bool
listen_has_room(const struct session *s)
{
	uint64_t count = s->weave != NULL     ? s->weave->note_count
			 : s->listens != NULL ? s->listens->action_count
					      : 0;

	return (count < 4 * (uint64_t)pool_settings(s->worker)->max_listen_channels);
}

const struct seat *
listen_seat(const struct session *s, const char *channel)
{
	const struct ear *ear = s->listens != NULL ? ear_find(s->listens, channel) : NULL;

	return (ear != NULL ? hub_seat(ear->channel->hub) : NULL);
}

char *
listen_mark(struct session *s, const char *channel, bool is_off)
{
	struct listens *ls = listen_get(s);
	struct listen_action *a;

	if (ls->action_count == 0)
		ls->was_tainted = s->link->is_tainted;
	/* Should the client leave before it is taken back. */
	s->link->is_tainted = true;
	ls->actions =
	    mem_realloc(ls->actions, (ls->action_count + 1) * sizeof(*ls->actions));
	a = &ls->actions[ls->action_count++];
	*a = (struct listen_action){
	    .mark = ls->action_count,
	    .is_off = is_off,
	    .channel = channel != NULL ? mem_str(channel) : NULL,
	};
	return (mem_printf("LISTEN " MARK "%llu", (unsigned long long)a->mark));
}

static void
shown(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	/* A cancel request meanwhile must not meet a later statement. */
	s->is_refused = false;
	if (error == NULL) {
		session_flow(s);
		return;
	}
	l->is_dirty = true;
	session_close(s, error->sqlstate, error->message);
}

bool
listen_is_shown(struct session *s, const char *sql, size_t len)
{
	struct listens *ls = s->listens;
	struct link *l = s->link;
	struct table_node *n;
	struct buf text = {0};

	if (ls->is_shown || l->txn != 'I' || l->requests.count > 0 || l->wants_sync ||
	    ls->action_count > 0 || memmem(sql, len, "pg_listening_", 13) == NULL)
		return (true);
	for (n = table_first(&ls->ears); n != NULL; n = table_next(&ls->ears, n)) {
		const struct ear *ear = CONTAINER_OF(n, struct ear, node);

		if (!ear->is_on)
			continue;
		buf_addstr(&text, "LISTEN ");
		buf_add_quoted(&text, ear->channel->name, '"');
		buf_addstr(&text, ";");
	}
	if (text.len == 0)
		return (true);
	buf_add(&text, "", 1);
	ls->is_shown = true;
	/* A mark that nobody sets: the link is cleaned at the end, as after a LISTEN. */
	free(listen_mark(s, "", false));
	link_run(l, (const char *)text.mem, shown, s);
	buf_free(&text);
	session_flow(s);
	return (false);
}

bool
listen_stalls(struct session *s)
{
	const struct listens *ls = s->listens;

	if (ls->waits)
		return (true);
	if (ls->action_count == 0 || s->link == NULL || s->link->is_copying_in ||
	    session_owed_readies(s->link) == 0)
		return (false);
	s->is_stalled = true;
	return (true);
}

/* ---- the end of a transaction ---- */

/* NotificationResponses of channels that the client listens to now. */
static void
queue_put(struct listens *ls, struct buf *out)
{
	size_t at = 0;

	while (at < ls->queue.len) {
		const uint8_t *p = ls->queue.mem + at;
		size_t size = proto_get32(p + 1) + 1;
		const struct ear *ear = ear_find(ls, (const char *)p + PROTO_HEAD + 4);

		if (ear != NULL && ear->is_on) {
			buf_add(out, p, size);
			stat_count(M_notifications_sent, 1);
		}
		at += size;
	}
	buf_free(&ls->queue);
}

void
listen_flush(struct session *s)
{
	struct listens *ls = s->listens;
	struct buf out = {0};

	if (ls->queue.len == 0 || ls->holds)
		return;
	queue_put(ls, &out);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

bool
listen_rest(struct session *s)
{
	ears_end(s->listens, false);
	if (s->listens->is_lost) {
		session_close(s, fault_info(F_LINK_LOST)->sqlstate, LISTEN_LOST);
		return (false);
	}
	listen_flush(s);
	free_if_unused(s);
	return (true);
}

bool
listen_ready(struct session *s, struct batch *b, bool is_owed)
{
	struct listens *ls = s->listens;
	struct link *l = s->link;

	if (l->txn != 'I')
		return (false);
	if (l->requests.count == 0 && (ls->action_count > 0 || ls->has_notified)) {
		if (!ls->holds)
			s->waits_own++;
		ls->holds = true;
		ls->owes_ready = is_owed;
		return (true);
	}
	if (ls->action_count == 0)
		ears_end(ls, false);
	if (ls->queue.len > 0) {
		queue_put(ls, batch_make(b));
		batch_made(b);
	}
	free_if_unused(s);
	return (false);
}

/* They are numbered as they come: a transaction may have very many. */
static struct listen_action *
action_find(struct listens *ls, uint64_t mark)
{
	return (mark > 0 && mark <= ls->action_count ? &ls->actions[mark - 1] : NULL);
}

/* A channel that the server listens to: DataRow, one column of text. */
static void
mark_row(void *arg, const uint8_t *body, size_t len)
{
	struct session *s = arg;
	struct listen_action *a;
	char number[24];
	size_t size;

	if (len < 6 || proto_get32(body + 2) != len - 6)
		return;
	size = len - 6;
	if (size <= strlen(MARK) || size - strlen(MARK) >= sizeof(number) ||
	    memcmp(body + 6, MARK, strlen(MARK)) != 0)
		return;
	memcpy(number, body + 6 + strlen(MARK), size - strlen(MARK));
	number[size - strlen(MARK)] = '\0';
	a = action_find(s->listens, strtoull(number, NULL, 10));
	if (a != NULL)
		a->holds = true;
}

static void
action_apply(struct listens *ls, const struct listen_action *a)
{
	struct table_node *n;
	struct ear *ear;

	if (!a->holds)
		return;
	if (!a->is_off) {
		ear = ear_find(ls, a->channel);
		if (ear != NULL && !ear->is_on) {
			ear->is_on = true;
			ls->is_lost |= ear->was_lost;
			stat_count(M_listens, 1);
		}
		return;
	}
	for (n = table_first(&ls->ears); n != NULL; n = table_next(&ls->ears, n)) {
		ear = CONTAINER_OF(n, struct ear, node);
		if (a->channel == NULL || strcmp(ear->channel->name, a->channel) == 0)
			ear->is_on = false;
	}
}

void
listen_hold(struct session *s, const char *channel, bool is_off)
{
	const struct listen_action action = {
	    .channel = (char *)(uintptr_t)channel, .is_off = is_off, .holds = true};

	if (s->listens != NULL)
		action_apply(s->listens, &action);
}

static void
marks_ran(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;
	struct listens *ls = s->listens;

	if (error != NULL) {
		l->is_dirty = true;
		session_close(s, error->sqlstate, error->message);
		return;
	}
	l->is_tainted = ls->was_tainted;
	ls->is_shown = false;
	for (unsigned i = 0; i < ls->action_count; i++)
		action_apply(ls, &ls->actions[i]);
	actions_free(ls);
	ears_end(ls, false);
	ls->is_working = false;
	listen_work(s);
}

void
listen_work(struct session *s)
{
	struct listens *ls = s->listens;

	if (ls->is_working)
		return;
	ls->is_working = true;
	if (ls->action_count > 0) {
		link_run_rows(s->link,
		    "SELECT pg_catalog.pg_listening_channels(); UNLISTEN *", mark_row,
		    marks_ran, s);
		session_flow(s);
	} else if (ls->has_notified)
		echo_start(s);
	else
		listen_go_on(s);
}

/* All that the transaction has to do with notifications is done: the client may know that the
 * transaction is over. */
static void
say_ready(struct session *s)
{
	struct listens *ls = s->listens;
	bool is_owed = ls->owes_ready;

	if (ls->holds)
		session_own_over(s);
	ls->holds = ls->is_working = ls->has_notified = ls->owes_ready = false;
	ls->has_committed = false;
	listen_flush(s);
	free_if_unused(s);
	if (is_owed)
		session_ready(s, 'I');
}

void
listen_go_on(struct session *s)
{
	say_ready(s);
	session_release_if_done(s);
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}

bool
listen_link_lost(struct session *s)
{
	struct listens *ls = s->listens;
	bool is_known = ls->action_count == 0;

	actions_free(ls);
	ears_end(ls, false);
	if (ls->holds && is_known) {
		echo_leave(ls);
		say_ready(s);
	}
	return (is_known);
}

void
listen_clear(struct session *s)
{
	ears_end(s->listens, true);
}

/* ---- notifications ---- */

static bool
is_too_much(struct session *s, size_t bytes)
{
	if ((int64_t)bytes <= pool_settings(s->worker)->max_listen_queue)
		return (false);
	session_close(
	    s, "54000", "too many notifications wait for this client (max_listen_queue)");
	return (true);
}

/* Between its transactions: it has no link, or nothing but a pin holds it to the one it has. */
static bool
is_between(const struct session *s)
{
	const struct link *l = s->link;

	if (s->weave != NULL)
		return (l == NULL && s->weave->txn == TXN_NONE &&
			s->state != SESSION_WEAVING);
	return (l == NULL ||
		(s->carry != NULL && s->carry->pins.held != 0 && l->state == LINK_LENT &&
		    s->body_left == 0 && link_is_at_rest(l)));
}

void
listen_hear(struct ear *ear, const uint8_t *message, size_t len)
{
	struct listens *ls = ear->owner;
	struct session *s = ls->s;

	if (!ls->holds && is_between(s)) {
		if (!ear->is_on || is_too_much(s, s->stream.out.len + len))
			return;
		stream_write(&s->stream, message, len);
		stat_count(M_notifications_sent, 1);
		return;
	}
	/* A client that sits in its transaction has not committed what it is about to listen
	 * to; PostgreSQL would skip it too. */
	if (!ear->is_on && !ls->has_committed &&
	    (s->link != NULL ? s->link->txn == 'T' && s->link->requests.count == 0
			     : s->weave != NULL))
		return;
	if (!is_too_much(s, s->stream.out.len + ls->queue.len + len))
		buf_add(&ls->queue, message, len);
}

void
listen_lost(struct ear *ear, const char *why)
{
	struct listens *ls = ear->owner;
	struct session *s = ls->s;
	char *message;

	/* Should its LISTEN be committed, nothing hears for it. */
	ear->was_lost = true;
	if (!ear->is_on)
		return;
	ls->is_lost = true;
	if (!is_between(s))
		return;
	message = mem_printf("notifications may have been missed: %s", why);
	session_close(s, fault_info(F_LINK_LOST)->sqlstate, message);
	free(message);
}
