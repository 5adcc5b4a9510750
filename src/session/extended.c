/*
 * Extended batches on a virtual database: statements and portals that are kept here until it is
 * known where they go, and batches that pass to one link.
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>

/* ---- portals ---- */

static struct portal *
portal_find(const struct weave *w, const char *name)
{
	struct portal *p;

	TAILQ_FOREACH(p, &w->portals, entry)
		if (strcmp(p->name, name) == 0)
			return (p);
	return (NULL);
}

static void
portal_free(struct session *s, struct portal *p)
{
	if (p == NULL)
		return;
	TAILQ_REMOVE(&s->weave->portals, p, entry);
	s->weave->portal_bytes -= p->bytes;
	stmt_release(s->worker, p->stmt);
	free(p->bind);
	free(p);
}

void
portals_free(struct session *s)
{
	struct portal *p;

	while ((p = TAILQ_FIRST(&s->weave->portals)) != NULL)
		portal_free(s, p);
	cursors_free(s->weave);
}

/* bind: from the parameter formats on; it has been looked at. */
static void
portal_add(
    struct session *s, const char *name, struct stmt *st, const uint8_t *bind, size_t len)
{
	size_t name_len = strlen(name) + 1;
	struct portal *p;

	portal_free(s, portal_find(s->weave, name));
	p = mem_alloc(sizeof(*p) + name_len);
	memcpy(p->name, name, name_len);
	st->refs++;
	p->stmt = st;
	p->bytes = sizeof(*p) + name_len + len;
	s->weave->portal_bytes += p->bytes;
	p->bind = mem_dup(bind, len);
	(void)binding_parse(&p->binding, p->bind, len, st);
	TAILQ_INSERT_TAIL(&s->weave->portals, p, entry);
}

/* ---- extended batches ---- */

static struct stmt *
stmt_of(const struct session *s, const char *name)
{
	const struct stmt_name *n;

	if (name[0] == '\0')
		return (s->unnamed);
	n = stmt_name_find(s, name);
	return (n != NULL ? n->stmt : NULL);
}

/* The whole body, or UP_STOP; the rest of an empty one. */
static bool
is_whole(const struct up *u, uint32_t size)
{
	return (u->len - u->used - PROTO_HEAD >= size - 4);
}

enum up_verdict
weave_pass_batch(struct up *u, char type)
{
	struct session *s = u->s;
	struct weave *w = s->weave;

	if (s->link->state != LINK_LENT || s->stream.is_paused)
		return (UP_STOP);
	w->is_routed = false;
	w->relays = true;
	w->is_bound =
	    !proto_is_of(type, PROTO_TYPE('P') | PROTO_TYPE('D') | PROTO_TYPE('C'));
	again_begin(u);
	if (w->txn != TXN_NONE)
		weave_note_leg(s);
	return (UP_PASS);
}

static enum up_verdict
take_batch(struct up *u, char type, uint32_t size, const struct sense *sense,
    const struct binding *b, const struct route_plan *plan, struct seat *seat)
{
	enum up_verdict v = weave_goes_to(u->s, sense, b, plan, seat);

	if (v == UP_GO_ON)
		return (weave_say_refusal(u, type, size));
	return (v == UP_PASS ? weave_pass_batch(u, type) : v);
}

/* Parse and Describe change nothing. */
static enum up_verdict
take_unbound(struct up *u, char type, uint32_t size, struct seat *seat)
{
	enum up_verdict v = weave_take(u->s, seat, false);

	if (v == UP_GO_ON)
		return (weave_say_refusal(u, type, size));
	return (v == UP_PASS ? weave_pass_batch(u, type) : v);
}

/* Whether parameters may decide where the statement goes. */
static bool
wants_binding(const struct session *s, const struct sense *sense)
{
	return (s->weave->virt->shard_count > 0 && sense->facts->match_count > 0 &&
		sense->scan.param_max > 0);
}

/* Looks on in the buffer for the Bind of the statement just parsed: a driver sends both in
 * one breath. 1: there; 0: the batch, or a part that the client waits for, ends without;
 * -1: it may still come. */
static int
peek_bind(const struct up *u, uint32_t size, const struct proto_parse *parse,
    const struct stmt *st, struct binding *b)
{
	size_t at = u->used + size + 1;

	while (u->len > at && u->len - at >= PROTO_HEAD) {
		uint32_t n = proto_get32(u->p + at + 1);
		const uint8_t *body = u->p + at + PROTO_HEAD;
		const char *portal, *name;
		size_t rest;

		if (strchr("SHQX", (char)u->p[at]) != NULL || n < 4 ||
		    n > SESSION_WHOLE_MAX || at - u->used > SESSION_WHOLE_MAX)
			return (0);
		if (u->len - at < (size_t)n + 1)
			return (-1);
		if (u->p[at] == 'B' &&
		    proto_bind_names(body, n - 4, &portal, &name, &rest) == 0 &&
		    strcmp(name, parse->name) == 0)
			return (binding_parse(b, body + rest, n - 4 - rest, st));
		at += (size_t)n + 1;
	}
	return (-1);
}

/* Keeps a statement that no server is told of yet. */
static enum up_verdict
keep_parse(struct up *u, uint32_t size, const char *name, struct stmt *st)
{
	struct session *s = u->s;
	struct buf out = {0};

	if (sense_of_stmt(s->worker, st)->scan.next != NULL) {
		stmt_release(s->worker, st);
		return (weave_refuse(u, 'P', size, "42601",
		    "cannot insert multiple commands into a prepared statement", NULL));
	}
	if (name[0] != '\0' && !statements_have_room(s, name, st->sql_len)) {
		stmt_release(s->worker, st);
		return (weave_refuse(u, 'P', size, "53200",
		    "prepared statements of this client take too much memory", NULL));
	}
	if (name[0] != '\0') {
		struct stmt_name *n = stmt_name_add(s, name, st);

		n->is_sure = true;
		n->since = prepared_since_now();
	} else {
		stmt_unnamed_set(s, st);
		s->unnamed_token =
		    ++session_worker(s->worker)->tokens << 8 | (uint64_t)s->worker->index;
	}
	proto_message(&out, '1', NULL, 0);
	return (weave_say(u, size, &out));
}

enum up_verdict
weave_parse(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct route_plan *plan = &w->plan->plan;
	const struct sense *sense;
	struct proto_parse parse;
	struct binding b;
	struct seat *seat = NULL;
	struct stmt *st;
	enum up_verdict v;
	int peeked = 0;

	if (!is_whole(u, size))
		return (UP_STOP);
	if (proto_parse_parse(u->p + u->used + PROTO_HEAD, size - 4, &parse) != 0)
		return (up_broken(u, "invalid Parse message"));
	if (parse.name[0] != '\0' && stmt_name_find(s, parse.name) != NULL)
		return (weave_refuse(
		    u, 'P', size, "42P05", "prepared statement", parse.name));
	st = stmt_intern(s->worker, &parse);
	sense = sense_of_stmt(s->worker, st);
	if (wants_binding(s, sense))
		peeked = peek_bind(u, size, &parse, st, &b);
	if (peeked < 0) {
		stmt_release(s->worker, st);
		return (UP_STOP);
	}
	switch (weave_decide(s, sense, peeked > 0 ? &b : NULL, plan, &seat)) {
	case GO_LOCAL:
	case GO_MANY:
		return (keep_parse(u, size, parse.name, st));
	case GO_ONE:
		weave_leave_failed(s);
		if (plan->leg_count > 0)
			weave_note_routed(w, plan);
		weave_say_warning(s, plan);
		v = take_unbound(u, 'P', size, seat);
		w->has_parsed = true;
		w->parsed = st->id;
		w->parsed_writes = plan->is_write;
		w->parsed_repeats = w->is_repeated;
		break;
	case GO_REFUSED:
	default:
		v = weave_say_refusal(u, 'P', size);
		break;
	}
	stmt_release(s->worker, st);
	return (v);
}

static enum up_verdict
keep_bind(struct up *u, uint32_t size, struct stmt *st, const char *portal,
    const uint8_t *bind, size_t len)
{
	struct buf out = {0};

	if (portal[0] != '\0' && portal_find(u->s->weave, portal) != NULL)
		return (
		    weave_refuse(u, 'B', size, "42P03", "portal already exists", NULL));
	if (u->s->weave->portal_bytes + len > SESSION_STATEMENTS_MAX)
		return (weave_refuse(u, 'B', size, "53200",
		    "portals of this client take too much memory", NULL));
	portal_add(u->s, portal, st, bind, len);
	proto_message(&out, '2', NULL, 0);
	return (weave_say(u, size, &out));
}

enum up_verdict
weave_bind(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct route_plan *plan = &s->weave->plan->plan;
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	const char *portal, *name;
	const struct sense *sense;
	struct binding b;
	struct seat *seat = NULL;
	struct stmt *st;
	size_t rest;
	enum decision go;

	if (size > SESSION_WHOLE_MAX)
		return (weave_refuse(u, 'B', size, "54000",
		    "parameters are too long for a virtual database", NULL));
	if (!is_whole(u, size))
		return (UP_STOP);
	if (proto_bind_names(body, size - 4, &portal, &name, &rest) != 0)
		return (up_broken(u, "invalid Bind message"));
	st = stmt_of(s, name);
	if (st == NULL)
		return (name[0] == '\0'
			    ? weave_refuse(u, 'B', size, "26000",
				  "unnamed prepared statement does not exist", NULL)
			    : weave_refuse(
				  u, 'B', size, "26000", "prepared statement", name));
	if (!binding_parse(&b, body + rest, size - 4 - rest, st))
		return (up_broken(u, "invalid Bind message"));
	if (s->weave->held_us == 0 && !weave_admit(u))
		return (weave_say_refusal(u, 'B', size));
	sense = sense_of_stmt(s->worker, st);
	go = weave_decide(s, sense, &b, plan, &seat);
	if (go == GO_ONE && !cursors_may_open(s->weave, portal, seat))
		go = GO_REFUSED;
	if (go == GO_ONE) {
		portal_free(s, portal_find(s->weave, portal));
		cursors_open(s->weave, portal);
		s->weave->unit.binds_named = portal[0] != '\0';
		return (take_batch(u, 'B', size, sense, &b, plan, seat));
	}
	if (go == GO_REFUSED)
		return (weave_say_refusal(u, 'B', size));
	return (keep_bind(u, size, st, portal, body + rest, size - 4 - rest));
}

/* ParameterDescription of a statement that no server knows. */
static void
put_parameters(struct buf *out, const struct sense *sense, const struct stmt *st)
{
	unsigned count = sense->scan.param_max > 1000 ? 1000 : sense->scan.param_max;
	const uint8_t *types = st->data + st->sql_len + 1;
	struct buf body = {0};
	uint8_t *p = buf_room(&body, 2 + 4 * (size_t)count);

	p[0] = (uint8_t)(count >> 8);
	p[1] = (uint8_t)count;
	for (unsigned i = 0; i < count; i++) {
		uint32_t oid = st->types_len >= 2 + 4 * (size_t)(i + 1)
				   ? proto_get32(types + 2 + 4 * (size_t)i)
				   : 0;

		proto_put32(p + 2 + 4 * (size_t)i, oid != 0 ? oid : 25);
	}
	body.len += 2 + 4 * count;
	proto_message(out, 't', body.mem, body.len);
	buf_free(&body);
}

/* An EXECUTE without arguments is the statement itself. */
static void
start_many(struct session *s, const struct sense *sense, const struct stmt *st,
    struct portal *p, enum scatter_what what, uint32_t max_rows)
{
	struct route_plan *plan = &s->weave->plan->plan;
	struct prep_inner inner;

	if (!prep_inner_find(s, sense, &inner)) {
		scatter_start(s, plan, sense, st, p, what, max_rows);
		return;
	}
	scatter_start(s, plan, &inner.sense, st, p, what, max_rows);
	prep_inner_free(s, &inner);
}

static enum up_verdict
describe_statement(struct up *u, uint32_t size, const char *name)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct route_plan *plan = &w->plan->plan;
	struct stmt *st = stmt_of(s, name);
	const struct sense *sense;
	struct seat *seat = NULL;
	struct buf out = {0};

	if (st == NULL)
		return (weave_refuse(u, 'D', size, "26000", "prepared statement", name));
	sense = sense_of_stmt(s->worker, st);
	switch (weave_decide(s, sense, NULL, plan, &seat)) {
	case GO_LOCAL:
		put_parameters(&out, sense, st);
		local_describe(s, sense, &out);
		return (weave_say(u, size, &out));
	case GO_MANY:
		(void)up_body(u, size + 1, true);
		start_many(s, sense, st, NULL, SCATTER_DESCRIBE, 0);
		return (UP_GO_ON);
	case GO_ONE:
		return (take_unbound(u, 'D', size, seat));
	case GO_REFUSED:
	default:
		return (weave_say_refusal(u, 'D', size));
	}
}

/* A portal that was made at a server, in the transaction that is open there; or a cursor WITH
 * HOLD. */
static enum up_verdict
server_portal(struct up *u, char type, uint32_t size, const char *name)
{
	struct session *s = u->s;
	struct leg *leg =
	    s->weave->txn == TXN_OPEN ? weave_leg_of_cursors(s, name) : NULL;

	if (s->weave->txn != TXN_FAILED && cursors_is_held(s->weave, name))
		return (take_unbound(u, type, size, seat_of_held(s->weave, name)));
	if (leg != NULL)
		return (take_unbound(u, type, size, leg->seat));
	return (weave_refuse(u, type, size, "34000", "portal", name));
}

static enum up_verdict
describe_portal(struct up *u, uint32_t size, const char *name)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct portal *p = portal_find(w, name);
	const struct sense *sense;
	struct seat *seat = NULL;
	struct buf out = {0};
	enum decision go;

	if (p == NULL)
		return (server_portal(u, 'D', size, name));
	sense = sense_of_stmt(s->worker, p->stmt);
	go = weave_decide(s, sense, &p->binding, &w->plan->plan, &seat);
	if (go == GO_LOCAL) {
		local_describe(s, sense, &out);
		return (weave_say(u, size, &out));
	}
	if (go == GO_REFUSED)
		return (weave_say_refusal(u, 'D', size));
	if (go == GO_ONE)
		return (weave_refuse(u, 'D', size, "55000",
		    "the statement goes to another database since it was bound", NULL));
	(void)up_body(u, size + 1, true);
	start_many(s, sense, p->stmt, p, SCATTER_DESCRIBE_PORTAL, 0);
	return (UP_GO_ON);
}

enum up_verdict
weave_execute(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	const char *name = (const char *)u->p + u->used + PROTO_HEAD;
	const struct sense *sense;
	struct seat *seat = NULL;
	struct refusal r = {0};
	struct buf out = {0};
	struct portal *p;
	enum decision go;
	uint32_t max_rows;
	bool later;

	if (size <= SESSION_NAMES_MAX && !is_whole(u, size))
		return (UP_STOP);
	if (size < 9 || size > SESSION_NAMES_MAX ||
	    strnlen(name, size - 4) + 5 != size - 4)
		return (up_broken(u, "invalid Execute message"));
	p = portal_find(w, name);
	if (p == NULL)
		return (server_portal(u, 'E', size, name));
	sense = sense_of_stmt(s->worker, p->stmt);
	go = weave_decide(s, sense, &p->binding, &w->plan->plan, &seat);
	if (p->is_done && go == GO_LOCAL)
		return (weave_refuse(u, 'E', size, "55000",
		    "a portal that has run cannot be run again", NULL));
	if (go == GO_LOCAL) {
		enum listen_go may = heed_is_ready(s, sense);

		if (may != LISTEN_GO)
			return (may == LISTEN_WAITS ? UP_STOP
						    : weave_say_refusal(u, 'E', size));
		p->is_done = true;
		if (!local_run(s, sense, &p->binding, true, &out, &r, &later)) {
			stream_write(&s->stream, out.mem, out.len);
			buf_free(&out);
			w->refusal = r;
			return (weave_say_refusal(u, 'E', size));
		}
		return (later ? up_body(u, size + 1, true) : weave_say(u, size, &out));
	}
	if (go == GO_REFUSED)
		return (weave_say_refusal(u, 'E', size));
	if (go == GO_ONE)
		return (weave_refuse(u, 'E', size, "55000",
		    "the statement goes to another database since it was bound", NULL));
	if (p->is_done)
		return (weave_refuse(u, 'E', size, "0A000",
		    "a federated statement cannot be fetched in parts", NULL));
	if (w->plan->plan.way == ROUTE_SPLIT && w->txn == TXN_NONE) {
		int is_last =
		    weave_split_is_last(u, size, w->plan->plan.split.rows == NULL);

		if (is_last < 0)
			return (UP_STOP);
		if (is_last == 0) {
			refusal_set(&w->refusal, "0A000",
			    "a statement that writes on several databases must be the last of its batch",
			    NULL, "Send Sync behind it.");
			return (weave_say_refusal(u, 'E', size));
		}
	}
	weave_note_routed(w, &w->plan->plan);
	weave_say_warning(s, &w->plan->plan);
	max_rows = proto_get32((const uint8_t *)name + size - 8);
	p->is_done = true;
	(void)up_body(u, size + 1, true);
	start_many(s, sense, p->stmt, p, SCATTER_RUN, max_rows);
	return (UP_GO_ON);
}

static enum up_verdict
weave_close(struct up *u, uint32_t size, char what, const char *name)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct stmt_name *n;
	struct portal *p;
	struct buf out = {0};
	bool is_held;

	if (what == 'S' && name[0] == '\0') {
		stmt_unnamed_set(s, NULL);
		s->unnamed_token = 0;
	} else if (what == 'S') {
		n = stmt_name_find(s, name);
		if (n != NULL)
			stmt_name_take_out(s, n);
	} else {
		p = portal_find(w, name);
		is_held = p == NULL && cursors_is_held(w, name);
		if (is_held || (p == NULL && w->txn == TXN_OPEN &&
				   weave_leg_of_cursors(s, name) != NULL)) {
			enum up_verdict v = server_portal(u, 'C', size, name);

			if (is_held)
				w->unit.leaves |= SQL_LEAVES_LESS;
			if (v == UP_PASS)
				cursors_close(w, name);
			return (v);
		}
		portal_free(s, p);
	}
	proto_message(&out, '3', NULL, 0);
	return (weave_say(u, size, &out));
}

/* Describe and Close. */
enum up_verdict
weave_target(struct up *u, char type, uint32_t size)
{
	const char *name;
	char what;

	if (size <= SESSION_NAMES_MAX && !is_whole(u, size))
		return (UP_STOP);
	if (size > SESSION_NAMES_MAX ||
	    proto_target_parse(u->p + u->used + PROTO_HEAD, size - 4, &what, &name) != 0)
		return (up_broken(u, "invalid Describe or Close message"));
	if (type == 'C')
		return (weave_close(u, size, what, name));
	return (what == 'S' ? describe_statement(u, size, name)
			    : describe_portal(u, size, name));
}

/* ---- a batch that relays ---- */

/* The statement that a message of the batch is about belongs to another database: the whole
 * batch fails. */
static enum up_verdict
doom(struct up *u, uint32_t size)
{
	struct weave *w = u->s->weave;

	if (!refusal_is_set(&w->refusal))
		refusal_set(&w->refusal, "0A000",
		    "the statements of one batch belong to different databases", NULL,
		    "Send Sync between them.");
	up_doom(u);
	return (up_body(u, size + 1, true));
}

/* The batch that relays ends here, without the client's knowing, and what follows begins
 * another one. */
static enum up_verdict
begin_anew(struct up *u)
{
	up_own_sync(u);
	u->s->weave->relays = false;
	u->s->is_stalled = true;
	return (UP_STOP);
}

/* The statement is about to run at s->link. False: it may not, the refusal is set. */
static bool
bind_here(struct session *s, const struct sense *sense, const struct binding *b,
    bool writes, const char *portal)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	bool saves = f->class == SQL_SAVEPOINT && !f->is_release && !f->is_rollback_to;

	if (w->txn != TXN_NONE && (writes || saves) && !leg_may_write(w, s->link->place))
		return (false);
	if (!cursors_may_open(w, portal, s->link->place) ||
	    !weave_track_may_run(s, sense, b))
		return (false);
	portal_free(s, portal_find(w, portal));
	w->is_bound = true;
	if (w->unit.awaits_run) {
		w->unit.taints = true;
		/* The portal is another one now. */
		if (!w->unit.binds_named && portal[0] == '\0')
			weave_track_unbound(w, w->unit.awaits_from);
		else
			w->unit.is_unsure = true;
		w->unit.awaits_run = false;
	}
	w->unit.binds_named = portal[0] != '\0';
	w->unit.writes |= writes;
	cursors_open(w, portal);
	if (!w->is_repeated)
		weave_note_relayed(s, sense, b);
	if (w->txn != TXN_NONE)
		weave_note_leg(s);
	return (true);
}

/* A Parse or Bind within a batch, taken apart. */
struct within {
	struct stmt *st; /* held */
	const char *portal;
	struct binding b;
	int has_binding; /* -1: it may still come */
	struct proto_parse parse;
};

/* No statement: the verdict on the message. */
static enum up_verdict
within_read(struct up *u, char type, uint32_t size, struct within *in)
{
	struct session *s = u->s;
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	const char *name;
	char *message;
	size_t rest;

	*in = (struct within){.portal = ""};
	if (type == 'P') {
		if (proto_parse_parse(body, size - 4, &in->parse) != 0)
			return (UP_PASS);
		in->st = stmt_intern(s->worker, &in->parse);
		if (wants_binding(s, sense_of_stmt(s->worker, in->st)))
			in->has_binding = peek_bind(u, size, &in->parse, in->st, &in->b);
		return (UP_GO_ON);
	}
	if (proto_bind_names(body, size - 4, &in->portal, &name, &rest) != 0)
		return (UP_PASS);
	in->st = stmt_of(s, name);
	if (in->st == NULL) {
		message =
		    name[0] == '\0'
			? mem_str("unnamed prepared statement does not exist")
			: mem_printf("prepared statement \"%s\" does not exist", name);
		refusal_set(&s->weave->refusal, "26000", message, NULL, NULL);
		free(message);
		return (doom(u, size));
	}
	in->st->refs++;
	in->has_binding = binding_parse(&in->b, body + rest, size - 4 - rest, in->st);
	return (UP_GO_ON);
}

static enum up_verdict
relay_within(struct up *u, char type, uint32_t size, const struct within *in)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	struct route_plan *plan = &w->plan->plan;
	const struct sense *sense = sense_of_stmt(s->worker, in->st);
	struct seat *seat = s->link->place;
	bool is_parsed = type == 'B' && w->has_parsed && w->parsed.hi == in->st->id.hi &&
			 w->parsed.lo == in->st->id.lo && !wants_binding(s, sense);
	bool is_here = true;
	enum decision go = GO_ONE;

	if (is_parsed) {
		plan->is_write = w->parsed_writes;
		w->is_repeated = w->parsed_repeats;
	} else {
		go = weave_decide(
		    s, sense, in->has_binding > 0 ? &in->b : NULL, plan, &seat);
		is_here = go == GO_ONE && seat == s->link->place;
		if (is_here && plan->leg_count > 0)
			weave_note_routed(w, plan);
	}
	if (go != GO_REFUSED && !is_here && !w->is_bound)
		return (begin_anew(u));
	if (type == 'B' && !weave_admit(u))
		return (doom(u, size));
	if (!is_here)
		return (doom(u, size));
	if (type == 'B')
		return (bind_here(s, sense, &in->b, plan->is_write, in->portal)
			    ? UP_PASS
			    : doom(u, size));
	w->has_parsed = true;
	w->parsed = in->st->id;
	w->parsed_writes = plan->is_write;
	w->parsed_repeats = w->is_repeated;
	return (UP_PASS);
}

/* Parse and Bind within a batch. */
static enum up_verdict
relay_statement(struct up *u, char type, uint32_t size)
{
	struct within in;
	enum up_verdict v;

	if (size > SESSION_WHOLE_MAX) {
		refusal_set(&u->s->weave->refusal, "54000",
		    "statement or parameters are too long for a virtual database", NULL,
		    NULL);
		return (doom(u, size));
	}
	if (!is_whole(u, size))
		return (UP_STOP);
	v = within_read(u, type, size, &in);
	if (in.st == NULL)
		return (v);
	if (prep_is(in.st) && !prep_settle(u))
		v = UP_STOP;
	else
		v = in.has_binding < 0 ? UP_STOP : relay_within(u, type, size, &in);
	stmt_release(u->s->worker, in.st);
	return (v);
}

/* A portal of another member, or kept here; or a cursor WITH HOLD of another one. */
static bool
is_not_here(struct session *s, const char *name)
{
	struct weave *w = s->weave;

	return (portal_find(w, name) != NULL ||
		cursors_is_elsewhere(w, name, s->link->place) ||
		(cursors_is_held(w, name) && seat_of_held(w, name) != s->link->place));
}

/* Describe, Execute and Close within a batch: of a portal that is elsewhere? */
static enum up_verdict
relay_portal(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	const char *name = (const char *)u->p + u->used + PROTO_HEAD;
	char what = 'P';
	bool is_any =
	    w->cursor_count > 0 || !TAILQ_EMPTY(&w->portals) || !TAILQ_EMPTY(&w->anchors);

	if ((!is_any && !w->unit.awaits_run) || size > SESSION_NAMES_MAX)
		return (UP_PASS);
	if (!is_whole(u, size))
		return (UP_STOP);
	if (type == 'E' && size >= 9 && name[0] == '\0')
		w->unit.awaits_run = false;
	if (!is_any)
		return (UP_PASS);
	if (type == 'E'
		? size < 9 || strnlen(name, size - 4) + 5 != size - 4
		: proto_target_parse((const uint8_t *)name, size - 4, &what, &name) != 0)
		return (UP_PASS);
	if (what != 'P')
		return (UP_PASS);
	/* Closing what is not there is no error. */
	if (type == 'C')
		portal_free(s, portal_find(w, name));
	if (is_not_here(s, name))
		return (w->is_bound ? doom(u, size) : begin_anew(u));
	if (type == 'C')
		cursors_close(w, name);
	return (UP_PASS);
}

enum up_verdict
weave_relay(struct up *u, char type, uint32_t size)
{
	struct weave *w = u->s->weave;

	if (u->s->link->skips_to_sync || refusal_is_set(&w->refusal)) {
		w->relays = type != 'S' && w->relays;
		return (UP_PASS);
	}
	switch (type) {
	case 'P':
	case 'B':
		return (relay_statement(u, type, size));
	case 'D':
	case 'E':
	case 'C':
		return (relay_portal(u, type, size));
	case 'Q':
	case 'F':
		/* In the middle of a COPY the server refuses it, and would ignore a Sync. */
		return (u->s->link->is_copying_in ? UP_PASS : begin_anew(u));
	case 'S':
		w->relays = false;
		return (UP_PASS);
	default:
		return (UP_PASS);
	}
}
