/*
 * A link's life: who gets its bytes in which state, lending, moving between workers, closing.
 *
 *   state       bytes go to
 *   CONNECTING  (none)
 *   LOGIN       login.c
 *   RUNNING     run.c: a query of the proxy's own
 *   IDLE        here: only what a server may say unasked
 *   LENT        the user
 *   CANCELLING  here, as IDLE
 */
#include "private.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[LINK_STATES] = {
#define STATE(name, doc) [LINK_##name] = #name,
#define EDGE(...)
#include "tbl/link_fsm.def"
#undef STATE
#undef EDGE
};

static const bool edges[LINK_STATES][LINK_STATES] = {
#define STATE(...)
#define EDGE(from, to, why) [LINK_##from][LINK_##to] = true,
#include "tbl/link_fsm.def"
#undef STATE
#undef EDGE
};

const char *
link_state_name(enum link_state state)
{
	return (state_names[state]);
}

void
link_move(struct link *l, enum link_state to)
{
	INVARIANT(l->magic == LINK_MAGIC);
	if (UNLIKELY(!edges[l->state][to])) {
		log_line(LOG_FATAL_, "link: no edge %s -> %s", state_names[l->state],
		    state_names[to]);
		INVARIANT(!"a move that is not in link_fsm.def");
	}
	l->state = to;
}

/* ---- bytes ---- */

ssize_t
link_message_size(const uint8_t *p, size_t len, size_t max)
{
	uint32_t size;

	if (len < PROTO_HEAD)
		return (0);
	size = proto_get32(p + 1);
	if (size < 4 || size > max)
		return (F_LINK_PROTOCOL);
	return (len < (size_t)size + 1 ? 0 : (ssize_t)size + 1);
}

void
link_note_parameter(struct link *l, const char *name, const char *value)
{
	l->vars =
	    vars_with(l->worker, l->vars, name, value, vars_kind_of(l->worker, name));
}

/* ---- tags ---- */

static _Atomic uint64_t definitions = 1;

uint64_t
link_definitions(void)
{
	return (atomic_load(&definitions));
}

void
link_define(struct link *l)
{
	l->has_defined = true;
	atomic_fetch_add(&definitions, 1);
}

void
link_define_over(struct link *l)
{
	l->has_defined = false;
	atomic_fetch_add(&definitions, 1);
}

static bool
tag_is(const char *tag, size_t len, const char *what)
{
	return (len == strlen(what) + 1 && memcmp(tag, what, len) == 0);
}

static bool
is_definition(const char *tag, size_t len)
{
	return ((len > 6 && memcmp(tag, "ALTER ", 6) == 0) ||
		(len > 7 && memcmp(tag, "CREATE ", 7) == 0) ||
		(len > 5 && memcmp(tag, "DROP ", 5) == 0) ||
		(len > 7 && memcmp(tag, "IMPORT ", 7) == 0) || tag_is(tag, len, "DO") ||
		tag_is(tag, len, "CALL"));
}

bool
link_note_tag(struct link *l, const char *tag, size_t len)
{
	if (len < 3 || (tag[0] == 'S' && tag[2] == 'L') ||
	    !proto_is_of(tag[0], PROTO_TYPE('A') | PROTO_TYPE('C') | PROTO_TYPE('D') |
				     PROTO_TYPE('I') | PROTO_TYPE('R') | PROTO_TYPE('S')))
		return (false); /* most say SELECT */
	if (is_definition(tag, len)) {
		link_define(l);
		return (false);
	}
	if (tag_is(tag, len, "DISCARD ALL") || tag_is(tag, len, "DISCARD SEQUENCES")) {
		l->drawn_before = 0;
		if (l->user == NULL)
			l->drawn = 0;
	}
	if (tag_is(tag, len, "DISCARD ALL")) {
		prepared_clear(&l->prepared);
		l->vars = vars_without_startup(l->worker, l->vars);
		return (true);
	}
	if (tag_is(tag, len, "DEALLOCATE ALL")) {
		prepared_clear(&l->prepared);
		return (true);
	}
	/* It may have been about what a client asked for at connect time; the server does not
	 * report those. */
	if (tag_is(tag, len, "SET") || tag_is(tag, len, "RESET")) {
		l->vars = vars_with_startup(l->worker, l->vars, NULL);
		l->said++;
	}
	return (false);
}

bool
link_note_async(struct link *l, char type, const uint8_t *body, size_t len)
{
	const char *name, *value;

	if (type == 'S') {
		if (proto_parameter_parse(body, len, &name, &value) == 0)
			link_note_parameter(l, name, value);
		return (true);
	}
	if (type == 'A' && l->keeper->notified != NULL)
		l->keeper->notified(l, body, len);
	return (type == 'N' || type == 'A');
}

void
link_gone(struct link *l, const char *why)
{
	const struct link_user *user = l->user;

	switch (l->state) {
	case LINK_CONNECTING:
		if (link_login_next(l, why))
			return;
		link_login_failed(l, F_LINK_CONNECT, NULL, "%s", why);
		return;
	case LINK_LOGIN:
		link_login_failed(l, F_LINK_CONNECT, NULL, "%s", why);
		return;
	case LINK_RUNNING:
		if (l->login != NULL) {
			link_login_failed(l, F_LINK_LOGIN, NULL, "%s", why);
			return;
		}
		break;
	case LINK_IDLE:
	case LINK_LENT:
	case LINK_CANCELLING:
		break;
	case LINK_MOVING:
	case LINK_CLOSED:
	case LINK_STATES:
	default:
		return;
	}
	link_close(l, why);
	if (user != NULL)
		user->lost(l, why);
	else
		l->keeper->lost(l, why);
}

/* What an idle server says: parameters, notices, and its farewell. Anything else is an
 * answer that nobody asked for. */
static size_t
link_idle_bytes(struct link *l, const uint8_t *p, size_t len)
{
	struct proto_error_fields error;
	size_t used = 0;
	char why[256];

	while (used < len) {
		ssize_t n = link_message_size(p + used, len - used, 65536);

		if (n == 0)
			break;
		if (n > 0 && link_note_async(l, (char)p[used], p + used + PROTO_HEAD,
				 (size_t)n - PROTO_HEAD)) {
			used += (size_t)n;
			continue;
		}
		if (n > 0 && p[used] == 'E' &&
		    proto_error_parse(
			p + used + PROTO_HEAD, (size_t)n - PROTO_HEAD, &error) == 0)
			snprintf(why, sizeof(why), "server said: %s", error.message);
		else
			snprintf(
			    why, sizeof(why), "unexpected message from an idle server");
		link_gone(l, why);
		return (len);
	}
	return (used);
}

static size_t
link_bytes(struct stream *s, const uint8_t *p, size_t len)
{
	struct link *l = CONTAINER_OF(s, struct link, stream);

	INVARIANT(l->magic == LINK_MAGIC);
	switch (l->state) {
	case LINK_LENT:
		return (l->user->bytes(l, p, len));
	case LINK_LOGIN:
	case LINK_CONNECTING:
		return (link_login_bytes(l, p, len));
	case LINK_RUNNING:
		return (link_run_bytes(l, p, len));
	case LINK_IDLE:
	case LINK_CANCELLING:
		return (link_idle_bytes(l, p, len));
	case LINK_MOVING:
		/* Kept: a link with bytes does not move. */
		return (0);
	case LINK_CLOSED:
	case LINK_STATES:
	default:
		return (len);
	}
}

static void
link_drained(struct stream *s)
{
	struct link *l = CONTAINER_OF(s, struct link, stream);

	if (l->state == LINK_LENT)
		l->user->drained(l);
}

static void
link_lost(struct stream *s, int err)
{
	struct link *l = CONTAINER_OF(s, struct link, stream);

	link_gone(l, err == 0  ? "server conn crashed?"
		     : err < 0 ? stream_tls_error()
			       : strerror(err));
}

static void
link_connected(struct stream *s)
{
	link_login_connected(CONTAINER_OF(s, struct link, stream));
}

static void
link_secured(struct stream *s)
{
	link_login_secured(CONTAINER_OF(s, struct link, stream));
}

const struct stream_ops link_stream_ops = {
    .bytes = link_bytes,
    .drained = link_drained,
    .lost = link_lost,
    .connected = link_connected,
    .secured = link_secured,
};

/* ---- life ---- */

void
link_init(struct worker *w)
{
	struct link_worker *lw = mem_alloc(sizeof(*lw));

	TAILQ_INIT(&lw->cancels);
	TAILQ_INIT(&lw->doomed);
	worker_on_turn(w, link_login_turn);
	lw->next_id = 1;
	lw->logs_connections = lw->logs_disconnections = true;
	w->slot[WORKER_LINK] = lw;
}

void
link_log(struct worker *w, bool connections, bool disconnections)
{
	link_worker(w)->logs_connections = connections;
	link_worker(w)->logs_disconnections = disconnections;
}

void
link_fini(struct worker *w)
{
	struct link_worker *lw = link_worker(w);

	link_cancels_expire(w, INT64_MAX, 0);
	vars_forget_recent(w);
	table_free(&lw->vars);
	free(lw->tracked);
	free(lw);
	w->slot[WORKER_LINK] = NULL;
}

struct link *
link_open(struct worker *w, const struct link_keeper *keeper, void *place,
    const struct link_target *target)
{
	struct link *l = mem_alloc(sizeof(*l));
	const struct topo_host *host = &target->database->hosts[target->host];

	l->magic = LINK_MAGIC;
	l->state = LINK_CONNECTING;
	l->stream.fd = -1;
	l->worker = w;
	l->keeper = keeper;
	l->place = place;
	l->txn = 'I';
	l->connect_us = l->request_us = clock_us();
	l->connect_wall_us = clock_wall_us();
	l->id = link_worker(w)->next_id++ * (w->count + 1) + w->index;
	l->vars = vars_none(w);
	l->name = mem_printf("%s/%s@%s:%u", target->name, target->role,
	    host->host[0] == '/' ? "unix" : host->host, host->port);
	l->host = mem_str(host->host);
	if (target->tls != NULL)
		l->tls = tls_hold(target->tls);
	if (target->own != NULL)
		l->replication = (uint8_t)target->own->replication;
	link_login_start(l, target);
	return (l);
}

static void
link_bury(struct burial *b)
{
	struct link *l = CONTAINER_OF(b, struct link, burial);

	l->magic = 0;
	requests_free(&l->requests);
	prepared_clear(&l->prepared);
	buf_free(&l->hold);
	buf_free(&l->kept);
	vars_release(l->worker, l->vars);
	vars_release(l->worker, l->born);
	tls_release(l->tls);
	mem_free_secret(l->key, l->key_len);
	free(l->host);
	free((char *)(uintptr_t)l->name);
	free(l);
}

void
link_close(struct link *l, const char *reason)
{
	static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
	bool was_quiet = l->state == LINK_IDLE || l->state == LINK_CANCELLING;
	struct cancel *c;

	INVARIANT(l->magic == LINK_MAGIC);
	if (l->state == LINK_CLOSED)
		return;
	if (link_worker(l->worker)->logs_disconnections)
		log_info("S-%#" PRIx64 ": %s closing because: %s (age=%" PRId64 "s)",
		    l->id, l->name, reason, link_age_s(l));
	if (was_quiet && stream_is_open(&l->stream))
		stream_write(&l->stream, terminate, sizeof(terminate));
	link_move(l, LINK_CLOSED);
	stream_close(&l->stream);
	link_owner_remove(l);
	link_login_free(l);
	link_run_free(l);
	TAILQ_FOREACH(c, &link_worker(l->worker)->cancels, entry)
		if (c->link == l)
			c->link = NULL;
	l->keeper->closed(l);
	worker_bury(l->worker, &l->burial, link_bury);
}

int64_t
link_age_s(const struct link *l)
{
	return ((clock_us() - l->connect_us) / 1000000);
}

void
link_lend(struct link *l, const struct link_user *user, void *user_arg)
{
	link_move(l, LINK_LENT);
	l->drawn_before = l->drawn;
	l->drawn = LINK_DRAWN_MIXED;
	l->user = user;
	l->user_arg = user_arg;
	l->request_us = clock_us();
}

void
link_give_back(struct link *l)
{
	INVARIANT(link_is_at_rest(l));
	l->user = NULL;
	l->user_arg = NULL;
	l->request_us = clock_us();
	link_move(l, l->cancels > 0 ? LINK_CANCELLING : LINK_IDLE);
}

void
link_cancel_over(struct link *l)
{
	link_move(l, LINK_IDLE);
}

bool
link_is_at_rest(const struct link *l)
{
	return (l->requests.count == 0 && l->txn == 'I' && !l->wants_sync &&
		!l->skips_to_sync && !l->is_copying_in && l->body_left == 0 &&
		l->hold.len == 0);
}

bool
link_can_move(const struct link *l)
{
	return (l->state == LINK_IDLE && l->cancels == 0 && !l->wants_close &&
		stream_can_move(&l->stream));
}

void
link_move_begin(struct link *l)
{
	INVARIANT(link_can_move(l));
	link_move(l, LINK_MOVING);
}

void
link_detach(struct link *l)
{
	struct vars *vars = vars_export(l->vars), *born = vars_export(l->born);

	INVARIANT(l->state == LINK_MOVING && stream_can_move(&l->stream));
	vars_release(l->worker, l->vars);
	vars_release(l->worker, l->born);
	l->vars = vars;
	l->born = born;
	stream_detach(&l->stream);
	l->worker = NULL;
}

void
link_attach(struct link *l, struct worker *w)
{
	link_move(l, LINK_IDLE);
	l->worker = w;
	l->vars = vars_import(w, l->vars);
	l->born = vars_import(w, l->born);
	stream_attach(&l->stream, w);
}
