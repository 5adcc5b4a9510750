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
#include "weave.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum decision { GO_LOCAL, GO_ONE, GO_MANY, GO_REFUSED };

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

	session_error(s, "ERROR", r->sqlstate, r->message, r->detail, r->hint);
	if (w->txn != TXN_NONE)
		w->txn = TXN_FAILED;
	if (is_extended)
		s->skips_to_sync = true;
	if (is_simple)
		session_ready(s, weave_status(s));
}

/* The refusal that stands, for the unit that begins with this message. */
static enum up_verdict
say_refusal(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	bool is_extended = strchr("PBDEC", type) != NULL;
	struct refusal r = s->weave->refusal;

	s->weave->refusal = (struct refusal){0};
	s->weave->blank = 0;
	s->weave->is_routed = false;
	weave_error(s, &r, is_extended, !is_extended);
	refusal_free(&r);
	weave_unit_over(s);
	return (up_body(u, size + 1, true));
}

static enum up_verdict
say(struct up *u, uint32_t size, struct buf *out)
{
	stream_write(&u->s->stream, out->mem, out->len);
	buf_free(out);
	return (up_body(u, size + 1, true));
}

static enum up_verdict
refuse(struct up *u, char type, uint32_t size, const char *sqlstate, const char *fmt,
    const char *name)
{
	char *message = name != NULL
			    ? mem_printf("%s \"%s\" %s", fmt, name,
				  strcmp(sqlstate, "42P05") == 0 ? "already exists"
								 : "does not exist")
			    : mem_str(fmt);

	refusal_set(&u->s->weave->refusal, sqlstate, message, NULL, NULL);
	free(message);
	return (say_refusal(u, type, size));
}

static void
note_routed(struct weave *w, const struct route_plan *plan)
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
	if (w->routed != NULL && strcmp(w->routed, names) == 0)
		return;
	free(w->routed);
	w->routed = mem_str(names);
}

/* ---- limits of a key ---- */

/* One more statement of the key in its time; how long until then when there are too many.
 * The bucket is the time at which all that was let in would be used up. */
static int64_t
rate_wait_us(const struct topo_key *k, int64_t now)
{
	int64_t step = k->rate_us / k->rate, was = atomic_load(&k->use->bucket_us), next;

	do {
		next = (was > now ? was : now) + step;
		if (next - now > k->rate_us)
			return (next - now - k->rate_us);
	} while (!atomic_compare_exchange_weak(&k->use->bucket_us, &was, next));
	return (0);
}

/* A statement is let in, or the refusal is set. */
static bool
admit(struct up *u)
{
	struct weave *w = u->s->weave;
	const struct topo_key *k = w->key;
	char detail[128];
	int64_t wait;

	if (k == NULL || k->use == NULL)
		return (true);
	if (k->rate > 0 && (wait = rate_wait_us(k, u->now_us)) > 0) {
		snprintf(detail, sizeof(detail), "Retry in %.3f s.", (double)wait / 1e6);
		refusal_set(
		    &w->refusal, "53400", "rate limit of this key reached", detail, NULL);
		return (false);
	}
	if (!w->is_running) {
		unsigned running = atomic_fetch_add(&k->use->running, 1);

		if (k->concurrency > 0 && running >= (uint64_t)k->concurrency) {
			atomic_fetch_sub(&k->use->running, 1);
			refusal_set(&w->refusal, "53400",
			    "concurrency limit of this key reached",
			    "Retry when one of its statements has ended.", NULL);
			return (false);
		}
		w->is_running = true;
		w->running_use = k->use;
	}
	atomic_store(&k->use->last_used_us, clock_wall_us());
	return (true);
}

void
weave_unit_over(struct session *s)
{
	struct weave *w = s->weave;

	w->relays = false;
	w->parsed = NULL;
	if (w->is_running) {
		w->is_running = false;
		atomic_fetch_sub(&w->running_use->running, 1);
	}
	if (s->state == SESSION_WEAVING)
		return;
	w->is_routed = false;
	weave_run_free(w);
	if (s->link == NULL)
		s->seat = w->home;
}

/* ---- decisions ---- */

static enum decision
refused(struct weave *w, const char *sqlstate, const char *message, const char *hint)
{
	refusal_set(&w->refusal, sqlstate, message, NULL, hint);
	return (GO_REFUSED);
}

/* Statements of a transaction that belong to a link that it has. NULL: none of these. */
static struct leg *
leg_for_verb(struct session *s, const struct sense *sense)
{
	struct weave *w = s->weave;
	static const char *const verbs[] = {
	    "fetch", "move", "close", "set", "show", "reset", "savepoint", "release"};
	const struct sql_facts *f = sense->facts;

	if (w->txn != TXN_OPEN || w->leg_count == 0)
		return (NULL);
	if (f->class == SQL_SAVEPOINT)
		return (leg_main(w));
	if (f->class == SQL_COMMIT || f->class == SQL_ROLLBACK ||
	    f->class == SQL_TWO_PHASE) {
		for (unsigned i = 0; i < w->leg_count; i++)
			if (w->legs[i].has_written)
				return (&w->legs[i]);
		return (leg_main(w));
	}
	if (f->table_count > 0 || s->link == NULL)
		return (NULL);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i], sense->scan.verb) == 0)
			return (leg_note(s, s->link));
	return (f->is_plain_read ? leg_note(s, s->link) : NULL);
}

static enum decision
decide_in_failed(struct session *s, const struct sense *sense, struct seat **seat)
{
	struct weave *w = s->weave;
	struct leg *leg = leg_main(w);

	if (sense->facts->class != SQL_SAVEPOINT || !sense->facts->is_rollback_to ||
	    leg == NULL || !w->has_savepoints)
		return (refused(w, "25P02",
		    "current transaction is aborted, commands ignored until end of transaction block",
		    NULL));
	legs_park(s);
	legs_drop(s, leg, "it failed, and the transaction goes back to a savepoint");
	*seat = leg_main(w)->seat;
	w->txn = TXN_OPEN;
	return (GO_ONE);
}

static enum decision
decide_by_route(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	struct route_input in;

	sense_input(s, sense, b, &in);
	route_plan(&in, plan);
	switch (plan->way) {
	case ROUTE_REFUSED:
		refusal_set(
		    &w->refusal, plan->sqlstate, plan->message, plan->detail, plan->hint);
		return (GO_REFUSED);
	case ROUTE_MANY:
		return (GO_MANY);
	case ROUTE_ONE:
	default:
		*seat = weave_seat(s, plan->legs[0].node);
		return (*seat != NULL ? GO_ONE : GO_REFUSED);
	}
}

/* What becomes of a statement. plan is made for GO_MANY, and for GO_ONE unless the statement
 * belongs to the transaction's link (plan->leg_count 0). */
static enum decision
decide(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_plan *plan, struct seat **seat)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	struct leg *leg;

	plan->leg_count = 0;
	plan->is_write = false;
	plan->warning[0] = '\0';
	if (sense->scan.hint != NULL && sense->scan.hint->problem != NULL)
		return (refused(w, "22023", sense->scan.hint->problem, NULL));
	if (sense_is_local(s, sense))
		return (GO_LOCAL);
	if (w->txn == TXN_FAILED)
		return (decide_in_failed(s, sense, seat));
	if (f->sets_pgweave)
		return (refused(w, "0A000",
		    "set_config() and current_setting() do not reach the settings of pgweave",
		    "Use SET and SHOW."));
	leg = leg_for_verb(s, sense);
	if (leg == NULL)
		return (decide_by_route(s, sense, b, plan, seat));
	if (f->class == SQL_TWO_PHASE && w->leg_count > 1)
		return (refused(w, "0A000",
		    "PREPARE TRANSACTION of a transaction on several databases", NULL));
	*seat = leg->seat;
	return (GO_ONE);
}

/* The statement goes to one link now: what it means for the session. */
static void
note_relayed(struct session *s, const struct sense *sense, const struct seat *seat)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	struct leg *leg;

	if (f->class == SQL_SAVEPOINT && !f->is_release && !f->is_rollback_to)
		w->has_savepoints = true;
	if (w->txn == TXN_OPEN && w->leg_count > 1 &&
	    (f->class == SQL_COMMIT || f->class == SQL_ROLLBACK)) {
		/* What the others have read ends with a rollback. */
		legs_park(s);
		leg = leg_of_seat(w, seat);
		legs_drop(s, leg, "the transaction is over");
	}
	if ((f->class == SQL_SET && f->set_verb == SQL_SET_RESET && f->setting != NULL &&
		strcmp(f->setting, "all") == 0) ||
	    strcmp(sense->scan.verb, "discard") == 0)
		said_copy(&w->session, &w->base);
}

static void
say_warning(struct session *s, const struct route_plan *plan)
{
	struct buf out = {0};

	if (plan->warning[0] == '\0')
		return;
	proto_error(&out, "WARNING", "01000", plan->warning, NULL, NULL);
	stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
}

/* Takes the link that was decided for. */
static enum up_verdict
take(struct session *s, const struct sense *sense, const struct route_plan *plan,
    struct seat *seat)
{
	struct weave *w = s->weave;

	note_relayed(s, sense, seat);
	if (plan->leg_count > 0)
		note_routed(w, plan);
	say_warning(s, plan);
	return (weave_take(s, seat, plan->is_write));
}

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
	enum decision go = decide(s, first, NULL, plan, seat);

	if (at == NULL || go == GO_REFUSED)
		return (go);
	if (go == GO_MANY)
		return (refused(w, "0A000",
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
			go = decide(s, &sense, NULL, other, &there);
			if (go == GO_LOCAL || go == GO_MANY)
				go = refused(w, "0A000",
				    "this statement must stand first, or alone, in its string",
				    "Send each statement by itself.");
			else if (go == GO_ONE && there != *seat)
				go = refused(w, "0A000",
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

static enum up_verdict
pass_query(struct up *u, uint32_t size)
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
			v = say_refusal(u, 'Q', size);
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
		v = take(s, &sense, plan, seat);
		if (v == UP_GO_ON)
			v = say_refusal(u, 'Q', size);
		else if (v == UP_PASS)
			v = pass_query(u, size);
		break;
	case GO_MANY:
		note_routed(w, plan);
		say_warning(s, plan);
		(void)up_body(u, size + 1, true);
		scatter_start(s, plan, &sense, NULL, NULL, SCATTER_RUN, 0);
		v = UP_GO_ON;
		break;
	case GO_REFUSED:
	default:
		v = say_refusal(u, 'Q', size);
		break;
	}
	sense_end(&sense);
	return (v);
}

static enum up_verdict
weave_query(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD;
	const char *sql = (const char *)body, *at = sql;
	enum up_verdict v;
	bool local;

	if (size > SESSION_WHOLE_MAX)
		return (refuse(u, 'Q', size, "54000",
		    "statement is too long for a virtual database", NULL));
	if (have < size - 4)
		return (UP_STOP);
	if (size < 5 || body[size - 5] != '\0')
		return (up_broken(u, "invalid Query message"));
	if (!admit(u))
		return (say_refusal(u, 'Q', size));
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

/* The message begins, or goes on with, a batch that goes to s->link. */
static enum up_verdict
pass_batch(struct up *u, char type)
{
	struct session *s = u->s;
	struct weave *w = s->weave;

	if (s->link->state != LINK_LENT || s->stream.is_paused)
		return (UP_STOP);
	w->is_routed = false;
	w->relays = true;
	w->is_bound = strchr("PDC", type) == NULL;
	if (w->txn != TXN_NONE)
		leg_note(s, s->link)->has_written |= w->writes;
	return (UP_PASS);
}

static enum up_verdict
take_batch(struct up *u, char type, uint32_t size, const struct sense *sense,
    const struct route_plan *plan, struct seat *seat)
{
	enum up_verdict v = take(u->s, sense, plan, seat);

	if (v == UP_GO_ON)
		return (say_refusal(u, type, size));
	return (v == UP_PASS ? pass_batch(u, type) : v);
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
		    n > SESSION_WHOLE_MAX)
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

	if (name[0] != '\0')
		stmt_name_add(s, name, st)->is_sure = true;
	else {
		stmt_unnamed_set(s, st);
		s->unnamed_token =
		    ++session_worker(s->worker)->tokens << 8 | (uint64_t)s->worker->index;
	}
	proto_message(&out, '1', NULL, 0);
	return (say(u, size, &out));
}

static enum up_verdict
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
		return (refuse(u, 'P', size, "42P05", "prepared statement", parse.name));
	st = stmt_intern(s->worker, &parse);
	sense = sense_of_stmt(s->worker, st);
	if (wants_binding(s, sense))
		peeked = peek_bind(u, size, &parse, st, &b);
	if (peeked < 0) {
		stmt_release(s->worker, st);
		return (UP_STOP);
	}
	switch (decide(s, sense, peeked > 0 ? &b : NULL, plan, &seat)) {
	case GO_LOCAL:
	case GO_MANY:
		return (keep_parse(u, size, parse.name, st));
	case GO_ONE:
		v = take_batch(u, 'P', size, sense, plan, seat);
		w->parsed = st;
		break;
	case GO_REFUSED:
	default:
		v = say_refusal(u, 'P', size);
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
		return (refuse(u, 'B', size, "42P03", "portal already exists", NULL));
	portal_add(u->s, portal, st, bind, len);
	proto_message(&out, '2', NULL, 0);
	return (say(u, size, &out));
}

static enum up_verdict
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
		return (refuse(u, 'B', size, "54000",
		    "parameters are too long for a virtual database", NULL));
	if (!is_whole(u, size))
		return (UP_STOP);
	if (proto_bind_names(body, size - 4, &portal, &name, &rest) != 0)
		return (up_broken(u, "invalid Bind message"));
	st = stmt_of(s, name);
	if (st == NULL)
		return (name[0] == '\0'
			    ? refuse(u, 'B', size, "26000",
				  "unnamed prepared statement does not exist", NULL)
			    : refuse(u, 'B', size, "26000", "prepared statement", name));
	if (!binding_parse(&b, body + rest, size - 4 - rest, st))
		return (up_broken(u, "invalid Bind message"));
	if (!admit(u))
		return (say_refusal(u, 'B', size));
	sense = sense_of_stmt(s->worker, st);
	go = decide(s, sense, &b, plan, &seat);
	if (go == GO_ONE)
		return (take_batch(u, 'B', size, sense, plan, seat));
	if (go == GO_REFUSED)
		return (say_refusal(u, 'B', size));
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
		return (refuse(u, 'D', size, "26000", "prepared statement", name));
	sense = sense_of_stmt(s->worker, st);
	switch (decide(s, sense, NULL, plan, &seat)) {
	case GO_LOCAL:
		put_parameters(&out, sense, st);
		local_describe(s, sense, &out);
		return (say(u, size, &out));
	case GO_MANY:
		(void)up_body(u, size + 1, true);
		scatter_start(s, plan, sense, st, NULL, SCATTER_DESCRIBE, 0);
		return (UP_GO_ON);
	case GO_ONE:
		return (take_batch(u, 'D', size, sense, plan, seat));
	case GO_REFUSED:
	default:
		return (say_refusal(u, 'D', size));
	}
}

/* A portal that was made at a server, in the transaction that is open there. */
static enum up_verdict
server_portal(struct up *u, char type, uint32_t size, const char *name)
{
	if (u->s->weave->txn == TXN_OPEN && u->s->link != NULL)
		return (pass_batch(u, type));
	return (refuse(u, type, size, "34000", "portal", name));
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
	go = decide(s, sense, &p->binding, &w->plan->plan, &seat);
	if (go == GO_LOCAL) {
		local_describe(s, sense, &out);
		return (say(u, size, &out));
	}
	if (go == GO_REFUSED)
		return (say_refusal(u, 'D', size));
	if (go == GO_ONE)
		return (refuse(u, 'D', size, "55000",
		    "the statement goes to another database since it was bound", NULL));
	(void)up_body(u, size + 1, true);
	scatter_start(s, &w->plan->plan, sense, p->stmt, p, SCATTER_DESCRIBE_PORTAL, 0);
	return (UP_GO_ON);
}

static enum up_verdict
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

	if (!is_whole(u, size))
		return (UP_STOP);
	if (size < 9 || strnlen(name, size - 4) + 5 != size - 4)
		return (up_broken(u, "invalid Execute message"));
	p = portal_find(w, name);
	if (p == NULL)
		return (server_portal(u, 'E', size, name));
	sense = sense_of_stmt(s->worker, p->stmt);
	go = decide(s, sense, &p->binding, &w->plan->plan, &seat);
	if (go == GO_LOCAL) {
		if (!local_run(s, sense, &p->binding, true, &out, &r, &later)) {
			w->refusal = r;
			return (say_refusal(u, 'E', size));
		}
		return (later ? up_body(u, size + 1, true) : say(u, size, &out));
	}
	if (go == GO_REFUSED)
		return (say_refusal(u, 'E', size));
	if (go == GO_ONE)
		return (refuse(u, 'E', size, "55000",
		    "the statement goes to another database since it was bound", NULL));
	if (p->is_cut)
		return (refuse(u, 'E', size, "0A000",
		    "a federated statement cannot be fetched in parts", NULL));
	note_routed(w, &w->plan->plan);
	say_warning(s, &w->plan->plan);
	max_rows = proto_get32((const uint8_t *)name + size - 8);
	p->is_cut = max_rows > 0;
	(void)up_body(u, size + 1, true);
	scatter_start(s, &w->plan->plan, sense, p->stmt, p, SCATTER_RUN, max_rows);
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

	if (what == 'S' && name[0] == '\0') {
		stmt_unnamed_set(s, NULL);
		s->unnamed_token = 0;
	} else if (what == 'S') {
		n = stmt_name_find(s, name);
		if (n != NULL)
			stmt_name_take_out(s, n);
	} else {
		p = portal_find(w, name);
		if (p == NULL && w->txn == TXN_OPEN && s->link != NULL)
			return (pass_batch(u, 'C'));
		portal_free(s, p);
	}
	proto_message(&out, '3', NULL, 0);
	return (say(u, size, &out));
}

/* Describe and Close. */
static enum up_verdict
weave_target(struct up *u, char type, uint32_t size)
{
	const char *name;
	char what;

	if (!is_whole(u, size))
		return (UP_STOP);
	if (proto_target_parse(u->p + u->used + PROTO_HEAD, size - 4, &what, &name) != 0)
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

/* Parse and Bind within a batch. */
static enum up_verdict
relay_statement(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	const char *portal, *name;
	const struct sense *sense;
	struct proto_parse parse;
	struct binding b;
	struct seat *seat = NULL;
	struct stmt *st = NULL;
	size_t rest;
	enum decision go;
	int has_binding = 0;

	if (size > SESSION_WHOLE_MAX)
		return (UP_PASS);
	if (!is_whole(u, size))
		return (UP_STOP);
	if (type == 'P') {
		if (proto_parse_parse(body, size - 4, &parse) != 0)
			return (UP_PASS);
		st = stmt_intern(s->worker, &parse);
	} else {
		if (proto_bind_names(body, size - 4, &portal, &name, &rest) != 0)
			return (UP_PASS);
		st = stmt_of(s, name);
		if (st == NULL)
			return (UP_PASS);
		if (!admit(u))
			return (doom(u, size));
		st->refs++;
		has_binding = binding_parse(&b, body + rest, size - 4 - rest, st);
	}
	sense = sense_of_stmt(s->worker, st);
	if (type == 'B' && st == w->parsed && !wants_binding(s, sense)) {
		stmt_release(s->worker, st);
		w->is_bound = true;
		return (UP_PASS);
	}
	if (type == 'P' && wants_binding(s, sense))
		has_binding = peek_bind(u, size, &parse, st, &b);
	if (has_binding < 0) {
		stmt_release(s->worker, st);
		return (UP_STOP);
	}
	go = decide(s, sense, has_binding > 0 ? &b : NULL, &w->plan->plan, &seat);
	if (go != GO_REFUSED && (go != GO_ONE || seat != s->link->place) &&
	    !w->is_bound) {
		/* Statements were only prepared so far: the batch begins anew elsewhere. */
		stmt_release(s->worker, st);
		up_own_sync(u);
		w->relays = false;
		s->is_stalled = true;
		return (UP_STOP);
	}
	w->is_bound |= type == 'B';
	if (go == GO_ONE && seat == s->link->place) {
		if (w->leg_count <= 1)
			note_relayed(s, sense, seat);
		if (w->txn != TXN_NONE)
			leg_note(s, s->link)->has_written |= w->plan->plan.is_write;
	}
	stmt_release(s->worker, st);
	if (go == GO_ONE && seat == s->link->place)
		return (UP_PASS);
	return (doom(u, size));
}

static enum up_verdict
relay_message(struct up *u, char type, uint32_t size)
{
	struct weave *w = u->s->weave;

	if (type == 'S' || type == 'Q') {
		/* A simple query ends a batch that has not been synced, as for a server. */
		w->relays = type == 'Q' && w->relays;
		return (UP_PASS);
	}
	if ((type == 'P' || type == 'B') && !u->s->link->skips_to_sync &&
	    !refusal_is_set(&w->refusal))
		return (relay_statement(u, type, size));
	return (UP_PASS);
}

/* ---- all messages ---- */

static enum up_verdict
weave_sync(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	struct weave *w = s->weave;

	s->skips_to_sync = false;
	if (w->txn == TXN_NONE)
		portals_free(s);
	session_ready(s, weave_status(s));
	weave_unit_over(s);
	return (up_body(u, size + 1, true));
}

/* Messages that begin a unit, or are answered here. */
static enum up_verdict
unit_message(struct up *u, char type, uint32_t size)
{
	struct session *s = u->s;
	struct seat *seat;

	switch (type) {
	case 'Q':
		return (weave_query(u, size));
	case 'P':
		if (size > SESSION_WHOLE_MAX)
			return (refuse(u, 'P', size, "54000",
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
		seat = weave_seat(s, s->weave->virt->dflt);
		if (seat == NULL)
			return (say_refusal(u, type, size));
		switch (weave_take(s, seat, true)) {
		case UP_PASS:
			return (pass_query(u, size));
		case UP_GO_ON:
			return (say_refusal(u, type, size));
		case UP_STOP:
		default:
			return (UP_STOP);
		}
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
	if (l != NULL && w->relays)
		return (relay_message(u, type, size));
	if (strchr("dcf", type) != NULL)
		return (l != NULL ? UP_PASS : up_body(u, size + 1, true));
	if (l != NULL && w->is_routed)
		return (type == 'Q' || type == 'F' ? pass_query(u, size)
						   : pass_batch(u, type));
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
		return (say_refusal(u, type, size));
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

	if (strcmp(tag, "COMMIT") == 0 || strncmp(tag, "PREPARE TRANSACTION", 19) == 0)
		w->committed = true;
	else if (strcmp(tag, "ROLLBACK") == 0 && w->txn == TXN_OPEN)
		w->committed = false;
}

void
weave_ready(struct session *s, struct link *l, char status)
{
	struct weave *w = s->weave;
	struct leg *leg;

	refusal_free(&w->refusal);
	if (status == 'I') {
		leg = leg_of_link(w, l);
		if (leg != NULL)
			leg_forget(w, leg);
		if (w->txn != TXN_NONE) {
			legs_drop(s, NULL, "the transaction is over");
			weave_txn_over(s, w->committed);
		}
	} else {
		leg = leg_note(s, l);
		leg->is_open = true;
		leg->has_written |= w->writes;
		if (w->txn == TXN_NONE)
			said_copy(&w->saved, &w->session);
		w->txn = status == 'E' ? TXN_FAILED : TXN_OPEN;
	}
	w->writes = false;
	if (l->requests.count == 0)
		weave_unit_over(s);
}
