/*
 * Statements without a name, which most drivers send for each query, run as statements that the
 * link has under a name of the proxy's, and that clients share:
 *
 *   client   Parse "" text, Bind "", Describe, Execute, Sync
 *   server              Bind pgw_…, Describe, Execute, Sync      when the link has it
 *            Parse pgw_… text, Bind pgw_…, …                     at second sight
 *            as it is                                            otherwise
 *
 * The client must not notice. So a batch is shared only when it stands whole in the buffer, has
 * one Parse and one Bind (or Describe of the statement) at most, nothing follows it, and it begins a transaction. What is kept
 * of it runs once more as it was, when the shared statement fails before anything has run: that
 * answer is the one which the client would have had. Where nothing fails, the statement must
 * have been read as it would be now: see prepared_shared().
 */
#include "prepare.h"
#include <stdatomic.h>
#include <string.h>

/* Of a batch, and of a text: what clients repeat is short. */
#define SHARE_BATCH_MAX 16384
#define SHARE_TEXT_MAX  8192
/* Texts are prepared when the same link has seen them within this time: the price of it comes
 * back after two or three uses. */
#define SIGHT_US    250000
#define SIGHT_SLOTS 1024
/* Batches of a client that does not wait for answers, before it may share again. */
#define PIPELINED 255

/* ---- what a text is ---- */

static enum sql_share
share_of(struct stmt *st)
{
	if (!st->knows_share) {
		st->share = (uint8_t)sql_share((const char *)st->data, st->sql_len);
		if (st->share == SQL_SHARE_MAY && st->leaves != 0)
			st->share = SQL_SHARE_NOT;
		st->knows_share = true;
	}
	return ((enum sql_share)st->share);
}

void
share_note_definition(struct session *s, struct stmt *st)
{
	if (st != NULL && share_of(st) == SQL_SHARE_DEFINES)
		s->link->has_defined = true;
}

/* ---- the client's batch ---- */

/* Whether Bind is of the statement without a name. */
static bool
binds_unnamed(const uint8_t *body, size_t len)
{
	const uint8_t *end = memchr(body, '\0', len);

	return (end != NULL && (size_t)(end - body) + 1 < len && end[1] == '\0');
}

/* What stands behind the Parse at u->used, up to the Sync with which the buffer ends; 0: it is
 * not such a batch. */
static size_t
rest_of_batch(const struct up *u, uint32_t parse_size)
{
	size_t begin = u->used + parse_size + 1, at = begin;
	unsigned binds = 0, describes = 0;

	if (u->len - u->used > SHARE_BATCH_MAX)
		return (0);
	while (u->len - at >= PROTO_HEAD) {
		const uint8_t *body = u->p + at + PROTO_HEAD;
		uint32_t n = proto_get32(u->p + at + 1);

		if (n < 4 || u->len - at < (size_t)n + 1)
			return (0);
		switch (u->p[at]) {
		case 'B':
			if (++binds > 1 || !binds_unnamed(body, n - 4))
				return (0);
			break;
		case 'D':
			if (n < 6 || (body[0] == 'S' && body[1] != '\0'))
				return (0);
			describes += body[0] == 'S';
			break;
		case 'E':
			break;
		case 'S':
			return (at + n + 1 == u->len && binds + describes < 2
				    ? u->len - begin
				    : 0);
		default:
			return (0);
		}
		at += (size_t)n + 1;
	}
	return (0);
}

/* ---- which texts ---- */

static struct hash128
share_id(const struct stmt *st, const struct link *l)
{
	uint64_t reading = vars_reading(l->vars) | 1;

	return ((struct hash128){.hi = st->id.hi ^ reading, .lo = st->id.lo + reading});
}

/* Whether this link has seen it a moment ago. It has now. */
static bool
is_second_sight(const struct link *l, struct hash128 id, int64_t now_us)
{
	struct session_worker *sw = session_worker(l->worker);
	uint64_t key = id.lo ^ l->id * 0x9e3779b97f4a7c15ULL;
	struct share_sight *sight;
	bool is_second;

	if (sw->sights == NULL)
		sw->sights = mem_alloc(SIGHT_SLOTS * sizeof(*sw->sights));
	sight = &sw->sights[key % SIGHT_SLOTS];
	is_second = sight->key == key && now_us - sight->us < SIGHT_US;
	*sight = (struct share_sight){.key = key, .us = now_us};
	return (is_second);
}

static bool
may_share(struct session *s, const struct stmt *st)
{
	const struct link *l = s->link;

	if (s->pipelined > 0) {
		s->pipelined--;
		return (false);
	}
	return (s->seat->limits.share_statements && l->txn == 'I' &&
		l->requests.count == 0 && !l->wants_sync && !l->skips_to_sync &&
		l->body_left == 0 && !l->is_dirty && st->sql_len <= SHARE_TEXT_MAX &&
		s->prep == NULL && !prep_is(st));
}

/* ---- to the server ---- */

static void
keep_rest(struct up *u, uint32_t parse_size, size_t len)
{
	struct link *l = u->s->link;

	l->kept.len = 0;
	buf_add(&l->kept, u->p + u->used + parse_size + 1, len);
	l->is_sharing = l->shares = true;
	l->has_told_parse = false;
}

bool
share_parse(struct up *u, uint32_t size, struct stmt *st)
{
	struct session *s = u->s;
	struct link *l = s->link;
	char name[PREPARED_NAME];
	struct request *r;
	struct hash128 id;
	enum prepared_shared is;
	size_t len;

	if (!may_share(s, st) || share_of(st) != SQL_SHARE_MAY)
		return (false);
	len = rest_of_batch(u, size);
	if (len == 0)
		return (false);
	id = share_id(st, l);
	is = prepared_shared(&l->prepared, id, l->said, u->now_us);
	if (is == PREPARED_MISSING && !is_second_sight(l, id, u->now_us))
		return (false);
	if (is == PREPARED_FRESH)
		r = up_owe(u, REQ_PARSE, ACT_FAKE);
	else {
		if (prepared_is_old(&l->prepared, id))
			up_forget(u, id);
		prepared_name(id, name);
		proto_parse(batch_make(&u->batch), name, stmt_text(st),
		    st->data + st->sql_len + 1, st->types_len);
		batch_made(&u->batch);
		r = up_owe(u, REQ_PARSE, ACT_FORWARD);
		prepared_share(&l->prepared, id, l->batch, l->said, u->now_us);
	}
	r->is_unnamed = r->is_shared = true;
	r->id = l->shared = id;
	keep_rest(u, size, len);
	/* The answer to a Close must not come before that of a Parse which no server was sent. */
	if (is != PREPARED_FRESH)
		up_evict(u);
	METRIC_INC(&s->seat->metrics, shared_count);
	return (true);
}

enum share_use
share_use(struct session *s, struct link *l, struct stmt *st, int64_t now_us,
    struct hash128 *id)
{
	if (!s->seat->limits.share_statements || st->sql_len > SHARE_TEXT_MAX ||
	    share_of(st) != SQL_SHARE_MAY)
		return (SHARE_NOT);
	*id = share_id(st, l);
	switch (prepared_shared(&l->prepared, *id, l->said, now_us)) {
	case PREPARED_FRESH:
		return (SHARE_HAS);
	case PREPARED_WORN:
		return (SHARE_MAKES);
	case PREPARED_MISSING:
	default:
		return (is_second_sight(l, *id, now_us) ? SHARE_MAKES : SHARE_NOT);
	}
}

bool
share_must_wait(struct session *s)
{
	const struct link *l = s->link;

	if ((!l->shares && !l->heals) || l->is_sharing)
		return (false);
	/* What runs once more must not come behind what the client sent later. */
	s->pipelined = PIPELINED;
	s->is_stalled = true;
	return (true);
}

/* ---- statements with a name, that a server need not be asked for ---- */

/* What servers have taken, by whatever thread: a mark for each, of the half of a second. */
static _Atomic uint64_t taken[1024];
#define TAKEN_US (PREPARED_SHARED_US / 2)

static uint64_t
mark_of(struct hash128 id, const struct session *s, const struct vars *vars,
    uint64_t seen, int64_t us)
{
	const uint64_t of[] = {id.hi, id.lo, (uint64_t)(uintptr_t)s->seat->pool,
	    vars_reading(vars), seen, (uint64_t)(us / TAKEN_US)};

	return (hash_bytes(of, sizeof(of)));
}

void
share_note_taken(struct session *s, struct link *l, const struct stmt *st)
{
	uint64_t seen = link_definitions();

	/* A transaction may see what no other does. */
	if (l->txn != 'I' || l->has_defined || prep_is(st) ||
	    !prepared_touch_fresh(&l->prepared, st->id, prepared_since_now()))
		return;
	atomic_store_explicit(&taken[st->id.lo % ARRAY_LEN(taken)],
	    mark_of(st->id, s, l->vars, seen, clock_us()), memory_order_relaxed);
}

static bool
is_taken(const struct session *s, struct hash128 id, int64_t now_us)
{
	uint64_t mark =
	    atomic_load_explicit(&taken[id.lo % ARRAY_LEN(taken)], memory_order_relaxed);

	uint64_t seen = link_definitions();

	return (mark == mark_of(id, s, s->vars, seen, now_us) ||
		mark == mark_of(id, s, s->vars, seen, now_us - TAKEN_US));
}

bool
share_parse_taken(struct up *u, uint32_t size)
{
	static const uint8_t complete_and_ready[] = {
	    '1', 0, 0, 0, 4, 'Z', 0, 0, 0, 5, 'I'};
	struct session *s = u->s;
	const uint8_t *p = u->p + u->used;
	size_t have = u->len - u->used;
	struct proto_parse parse;
	struct stmt_name *n;

	if (have < (size_t)size + 1 + PROTO_HEAD || size > SESSION_UNNAMED_MAX ||
	    p[PROTO_HEAD] == '\0' || p[size + 1] != 'S' || proto_get32(p + size + 2) != 4)
		return (false);
	if (!s->seat->limits.share_statements || s->vars == NULL ||
	    proto_parse_parse(p + PROTO_HEAD, size - 4, &parse) != 0 ||
	    stmt_name_find(s, parse.name) != NULL ||
	    !statements_have_room(s, parse.name, parse.sql_len) ||
	    !is_taken(s,
		hash_pair(parse.sql, parse.sql_len, parse.types, parse.types_len),
		u->now_us))
		return (false);
	n = stmt_name_add(s, parse.name, stmt_intern(s->worker, &parse));
	n->is_sure = true;
	n->since = prepared_since_now();
	METRIC_INC(&s->seat->metrics, client_parse_count);
	stream_write(&s->stream, complete_and_ready, sizeof(complete_and_ready));
	(void)up_body(u, size + 1 + PROTO_HEAD, true);
	return (true);
}

/* ---- from the server ---- */

static void
tell_parse(struct link *l, struct batch *b)
{
	static const uint8_t parse_complete[] = {'1', 0, 0, 0, 4};
	const struct request *r = requests_head(&l->requests);

	if (r == NULL || !r->is_shared || r->act != ACT_FAKE)
		return;
	batch_pass(b, parse_complete, sizeof(parse_complete));
	requests_pop(&l->requests);
}

void
share_hears(struct link *l, char type, struct batch *b)
{
	const struct request *r = requests_head(&l->requests);

	switch (type) {
	case 'N':
		/* What a server has to say to a text, it says to every client. */
		if (r != NULL && r->kind == REQ_PARSE && r->act == ACT_FORWARD)
			prepared_suspect(&l->prepared, l->shared);
		break;
	case '1':
		l->has_told_parse = true;
		break;
	case '3': /* of a statement that made room */
	case 'A':
	case 'E': /* see share_failed() */
	case 'S':
		break;
	default:
		tell_parse(l, b);
		l->shares = false;
		break;
	}
}

/* Whether the statement's being shared may be why. A cancel request, a timeout or a full disk are
 * the client's to hear. Of one that was read for this very batch only its name can be wrong. */
static bool
is_of_sharing(const struct proto_error_fields *e, enum request_kind kind, bool is_new)
{
	static const char *const classes[] = {
	    "0A", "22", "23", "26", "2B", "34", "3D", "3F", "42"};

	if (strcmp(e->severity, "ERROR") != 0)
		return (false);
	if (kind == REQ_PARSE)
		return (strcmp(e->sqlstate, "42P05") == 0);
	if (strcmp(e->sqlstate, "08P01") == 0 || strcmp(e->sqlstate, "26000") == 0)
		return (true);
	for (size_t i = 0; !is_new && i < ARRAY_LEN(classes); i++)
		if (strncmp(e->sqlstate, classes[i], 2) == 0)
			return (true);
	return (false);
}

bool
share_may_be_why(const struct proto_error_fields *e)
{
	return (is_of_sharing(e, REQ_BIND, false) || is_of_sharing(e, REQ_PARSE, false));
}

/* What was sent of the batch will not be answered, but for its Sync. */
static void
drop_requests(struct session *s, struct link *l)
{
	struct requests *q = &l->requests;
	uint32_t until = 0;

	while (until < q->count && requests_at(q, until)->kind != REQ_SYNC)
		until++;
	l->skips_to_sync = until == q->count;
	for (uint32_t i = until; i-- > 0;)
		if (requests_at(q, i)->kind == REQ_CLOSE)
			session_undo_request(s, l, requests_at(q, i));
	while (until-- > 0)
		requests_pop(q);
}

bool
share_failed(struct session *s, struct link *l, const struct proto_error_fields *e,
    struct batch *b)
{
	const struct request *r = requests_head(&l->requests);
	bool is_new = r == NULL || r->act != ACT_FAKE;

	l->shares = false;
	if (!is_new)
		r = l->requests.count > 1 ? requests_at(&l->requests, 1) : NULL;
	if (r == NULL || !r->is_shared ||
	    !is_of_sharing(e, (enum request_kind)r->kind, is_new)) {
		tell_parse(l, b);
		return (false);
	}
	/* The link has not what it was thought to have, or has what it should not. */
	if (r->kind == REQ_PARSE || strcmp(e->sqlstate, "26000") == 0) {
		prepared_forget(&l->prepared, l->shared);
		l->is_dirty = true;
	}
	drop_requests(s, l);
	l->heals = true;
	return (true);
}

/* The batch as the client has sent it, behind the end of what has failed. */
void
share_heal(struct session *s, struct link *l)
{
	const struct stmt *st = s->unnamed;
	struct buf out = {0};
	struct request *r;

	INVARIANT(st != NULL);
	l->heals = false;
	proto_parse(&out, "", stmt_text(st), st->data + st->sql_len + 1, st->types_len);
	r = requests_push(
	    &l->requests, REQ_PARSE, l->has_told_parse ? ACT_SKIP : ACT_FORWARD);
	r->is_unnamed = true;
	l->unnamed = s->unnamed_token;
	for (size_t at = 0; at < l->kept.len;
	     at += (size_t)proto_get32(l->kept.mem + at + 1) + 1) {
		char type = (char)l->kept.mem[at];

		r = requests_push(&l->requests,
		    type == 'B'   ? REQ_BIND
		    : type == 'D' ? REQ_DESCRIBE
		    : type == 'E' ? REQ_EXECUTE
				  : REQ_SYNC,
		    ACT_FORWARD);
		r->is_healing =
		    type == 'B' || (type == 'D' && l->kept.mem[at + PROTO_HEAD] == 'S');
		r->id = l->shared;
	}
	buf_add(&out, l->kept.mem, l->kept.len);
	stream_write(&l->stream, out.mem, out.len);
	buf_free(&out);
	l->wants_sync = l->skips_to_sync = false;
	l->batch++;
}

void
share_healed(struct session *s, const struct request *r)
{
	prepared_renew(r->id);
	METRIC_INC(&s->seat->metrics, healed_count);
}
