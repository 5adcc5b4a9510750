/* Links that several sessions use at once: who joins, who leaves, what time does. See mux.h. */
#include "mux.h"
#include "carry.h"
#include "listen.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WAITS_US   100   /* a worker that has waited for so long had nothing else to do */
#define LINGER_US  50000 /* what nobody wants any more may run for so long */
#define PULL_LOOKS 64    /* clients that wait, looked at for such as may share a link */

/* ---- which statements ---- */

enum { FIT_UNKNOWN, FIT_NOT, FIT_IS };

static struct facts_note *
note_of(const struct sql_facts *facts)
{
	return (sql_facts_note(facts));
}

static int64_t
quick_us(const struct worker *w)
{
	return (pool_settings(w)->multiplex_quick);
}

static bool
is_quick(const struct worker *w, const struct sql_facts *facts)
{
	uint32_t us = note_of(facts)->run_us;

	return (us > 0 && us <= quick_us(w));
}

/* How long the server took for what is answered in this turn. A worker that is busy reads answers
 * late: then it is known only that this one had not come when the turn before began. */
static int64_t
took_us(struct worker *w, int64_t since_us)
{
	const struct session_worker *sw = session_worker(w);
	int64_t now = worker_now_us(w);

	if (now - sw->turn_end_us > WAITS_US)
		return (now - (since_us >= sw->turn_us ? sw->turn_end_us : since_us));
	return (sw->turn_us > since_us ? sw->turn_us - since_us : 0);
}

void
mux_note_run(struct worker *w, const struct sql_facts *facts, int64_t since_us)
{
	struct facts_note *n = note_of(facts);
	int64_t us = took_us(w, since_us);

	/* One that was slow once is not so for long. */
	if (us > 4 * quick_us(w))
		us = 4 * quick_us(w);
	n->run_us =
	    n->run_us == 0 ? (uint32_t)us + 1 : (n->run_us * 7 + (uint32_t)us) / 8 + 1;
}

static bool
is_fit(const struct sql_facts *facts)
{
	struct facts_note *n = note_of(facts);
	bool fits = facts->is_plain_read && !facts->copies_out && !facts->sets_pgweave;

	if (n->fit != FIT_UNKNOWN)
		return (n->fit == FIT_IS);
	/* What the catalogs say may be about the session. */
	for (unsigned i = 0; i < facts->table_count; i++)
		fits &= !facts->tables[i].is_system;
	n->fit = fits ? FIT_IS : FIT_NOT;
	return (fits);
}

/* A look at the first word; a NUL stands behind the text. */
static bool
may_read(const char *sql, size_t len)
{
	static const char *const words[] = {"select", "with", "values", "table"};
	char first = (char)(len > 0 ? sql[0] | 0x20 : 0);

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (first == words[i][0] &&
		    strncasecmp(sql, words[i], strlen(words[i])) == 0)
			return (true);
	return (false);
}

/* The facts of a text that may share a link; NULL: it may not. Valid until the next text is looked
 * at. */
static const struct sql_facts *
facts_of(struct session *s, const char *sql, size_t len)
{
	const struct sql_facts *facts;
	struct sense sense;
	bool is_one;

	if (len > MUX_TEXT_MAX || !may_read(sql, len) || memchr(sql, '\\', len) != NULL ||
	    memchr(sql, '\0', len) != NULL)
		return (NULL);
	facts = sense_known(s->worker, sql, len);
	if (facts == NULL) {
		sense_make(s->worker, sql, len, &sense);
		facts = sense.facts;
		is_one = sense.scan.next == NULL;
		sense_end(&sense);
		if (!is_one)
			return (NULL);
	}
	return (is_fit(facts) ? facts : NULL);
}

/* The same of a statement that is kept. */
static const struct sql_facts *
facts_of_stmt(struct session *s, struct stmt *st)
{
	const char *sql = (const char *)st->data;
	const struct sense *sense;

	if (st->sql_len > MUX_TEXT_MAX || st->leaves != 0 || prep_is(st) ||
	    !may_read(sql, st->sql_len) || memchr(sql, '\\', st->sql_len) != NULL)
		return (NULL);
	sense = sense_of_stmt(s->worker, st);
	if (sense->scan.next != NULL || st->clean != NULL || !is_fit(sense->facts))
		return (NULL);
	return (sense->facts);
}

void
mux_untimed(struct session *s)
{
	sql_facts_release(s->timed);
	s->timed = NULL;
}

void
mux_timed(struct session *s, int64_t sent_us)
{
	mux_note_run(s->worker, s->timed, sent_us);
	mux_untimed(s);
}

/* ---- joining ---- */

static struct mux *
mux_create(struct session_worker *sw, struct link *l)
{
	struct seat *seat = l->place;
	struct mux *m = TAILQ_FIRST(&sw->mux_spare);

	if (m != NULL)
		TAILQ_REMOVE(&sw->mux_spare, m, entry);
	else
		m = mem_alloc(sizeof(*m));
	m->link = l;
	m->head = m->count = 0;
	m->texts.len = m->kept.len = m->sent = m->run_us = 0;
	m->is_unsent = m->is_closed = m->is_cut = false;
	link_lend(l, &mux_link_user, m);
	/* Plain reads draw from no sequence. */
	l->drawn = l->drawn_before;
	TAILQ_INSERT_HEAD(&seat->shared, l, idle_entry);
	return (m);
}

void
mux_free(struct mux *m)
{
	struct session_worker *sw = session_worker(m->link->worker);
	struct seat *seat = m->link->place;

	INVARIANT(m->count == 0);
	TAILQ_REMOVE(&seat->shared, m->link, idle_entry);
	if (m->is_unsent)
		TAILQ_REMOVE(&sw->mux_unsent, m, entry);
	if (m->texts.cap > MUX_TEXT_MAX)
		buf_free(&m->texts);
	if (m->kept.cap > MUX_TEXT_MAX)
		buf_free(&m->kept);
	m->link = NULL;
	TAILQ_INSERT_HEAD(&sw->mux_spare, m, entry);
}

/* The server has worked on the first one for long. */
static bool
is_stalled(const struct mux *m, int64_t now)
{
	return (now - m->head_us > MUX_STALL * quick_us(m->link->worker));
}

static bool
has_room(const struct mux *m, const struct session *s, uint32_t len, uint32_t run_us,
    int64_t now)
{
	const struct link *l = m->link;

	return (!m->is_closed && l->vars == s->vars && m->count < MUX_DEPTH &&
		m->count > 0 && m->texts.len + len <= MUX_TEXTS_MAX &&
		m->run_us + run_us <= quick_us(l->worker) && !is_stalled(m, now) &&
		!l->stream.is_paused && !l->is_dirty && !l->saw_fatal &&
		!pool_is_stale(l));
}

/* One that is written to in this turn anyway, then one that does nothing, then any: few writes,
 * and no more waiting than needed. */
static struct mux *
choose(struct session *s, uint32_t len, uint32_t run_us, int64_t now)
{
	struct seat *seat = s->seat;
	struct mux *busy = NULL;
	struct link *l;

	if (!pool_may_lend(seat))
		return (NULL);
	TAILQ_FOREACH(l, &seat->shared, idle_entry) {
		struct mux *m = l->user_arg;

		if (!has_room(m, s, len, run_us, now))
			continue;
		if (m->is_unsent)
			return (m);
		if (busy == NULL || m->count < busy->count)
			busy = m;
	}
	l = pool_lend_like(seat, s->vars);
	return (l != NULL ? mux_create(session_worker(s->worker), l) : busy);
}

/* One message, or a batch. */
static void
join(struct mux *m, struct session *s, const struct sql_facts *facts,
    const uint8_t *message, size_t len, const struct mux_batch *batch, int64_t now)
{
	struct session_worker *sw = session_worker(s->worker);
	struct mux_entry *e = mux_at(m, m->count);

	*e = (struct mux_entry){.s = s,
	    .facts = sql_facts_hold(facts),
	    .start_us = now,
	    .at = m->texts.len,
	    .run_us = note_of(facts)->run_us};
	if (m->count++ == 0) {
		m->head_us = now;
		link_serve(m->link, session_told_pid(s));
	}
	m->run_us += e->run_us;
	if (batch != NULL)
		mux_batch_put(m, e, s, batch);
	else {
		buf_add(&m->texts, message, len);
		/* As a server does, whatever the query says. */
		stmt_unnamed_set(s, NULL);
		s->unnamed_token = 0;
		m->link->unnamed = 0;
	}
	e->len = m->texts.len - e->at;
	if (!m->is_unsent)
		TAILQ_INSERT_TAIL(&sw->mux_unsent, m, entry);
	m->is_unsent = true;
	s->mux = m;
	session_move(s, SESSION_SHARING);
	stream_hold_end(&s->stream, true);
	METRIC_INC(&s->seat->metrics, multiplexed_count);
}

/* The link that a statement of these facts may join; NULL: it takes one of its own, and its time
 * is taken. */
static struct mux *
find(struct up *u, const struct sql_facts *facts, size_t len)
{
	struct session *s = u->s;
	struct mux *m = NULL;

	if (facts == NULL)
		return (NULL);
	if (is_quick(s->worker, facts))
		m = choose(s, (uint32_t)len, note_of(facts)->run_us, u->now_us);
	if (m == NULL)
		s->timed = sql_facts_hold(facts);
	return (m);
}

/* The session may share a link now. */
static bool
may_share(struct session *s)
{
	session_worker(s->worker)->takes_times = true;
	if (UNLIKELY(s->timed != NULL))
		mux_untimed(s);
	if (s->shuns_mux || s->mode == POOL_SESSION || s->listens != NULL ||
	    s->signals != NULL || s->prep != NULL || s->is_draining) {
		s->shuns_mux = false;
		return (false);
	}
	return (true);
}

bool
mux_query(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	const uint8_t *p = u->p + u->used;
	const struct sql_facts *facts;
	struct mux *m;

	if (!may_share(s) || size < 6 || u->len - u->used < (size_t)size + 1 ||
	    p[size] != '\0' || pool_settings(s->worker)->disable_pqexec)
		return (false);
	facts = facts_of(s, (const char *)p + PROTO_HEAD, size - 5);
	m = find(u, facts, size + 1);
	if (m == NULL)
		return (false);
	join(m, s, facts, p, size + 1, NULL, u->now_us);
	METRIC_INC(&s->seat->metrics, server_assignment_count);
	u->used += size + 1;
	return (true);
}

bool
mux_batch(struct up *u)
{
	struct session *s = u->s;
	const struct sql_facts *facts;
	struct mux_batch b;
	struct mux *m = NULL;

	if (!may_share(s) || !s->rewrites ||
	    (s->carry != NULL && s->carry->portals.count > 0) ||
	    !mux_batch_read(s, u->p + u->used, u->len - u->used, &b))
		return (false);
	if (mux_batch_parse(s, &b)) {
		facts = facts_of_stmt(s, b.stmt);
		m = find(u, facts, 2 * b.len);
		if (m != NULL)
			join(m, s, facts, NULL, 0, &b, u->now_us);
		mux_batch_end(s, &b);
	}
	if (m == NULL)
		return (false);
	METRIC_INC(&s->seat->metrics, server_assignment_count);
	u->used += b.len;
	return (true);
}

/* ---- those that wait for a link ---- */

/* The statement that the client waits with may share the link: how long its messages are; 0: it
 * may not. */
static size_t
waiting_len(struct session *s, const struct link *l, struct mux_batch *b)
{
	const struct buf *in = &s->stream.in;
	size_t len;

	*b = (struct mux_batch){0};
	if (s->state != SESSION_WAITING || s->timed == NULL ||
	    !is_quick(s->worker, s->timed) || s->vars != l->vars || s->is_draining ||
	    in->len < PROTO_HEAD)
		return (0);
	if (in->mem[0] != 'Q')
		return (mux_batch_read(s, in->mem, in->len, b) ? b->len : 0);
	len = (size_t)proto_get32(in->mem + 1) + 1;
	return (in->len >= len && len <= MUX_TEXT_MAX ? len : 0);
}

static void
join_waiting(
    struct mux *m, struct session *s, size_t len, struct mux_batch *b, int64_t now)
{
	bool is_batch = b->len > 0;

	/* It could be read before. */
	INVARIANT(!is_batch || mux_batch_parse(s, b));
	join(m, s, s->timed, s->stream.in.mem, len, is_batch ? b : NULL, now);
	mux_batch_end(s, b);
	mux_untimed(s);
	buf_drop(&s->stream.in, len);
	METRIC_ADD(&s->seat->metrics, received, len);
}

bool
mux_granted(struct session *s, struct link *l)
{
	struct seat *seat = l->place;
	struct waiter *w, *next;
	int64_t now = worker_now_us(s->worker);
	unsigned looks = 0;
	struct mux_batch b;
	struct mux *m;
	size_t len = waiting_len(s, l, &b);

	if (len == 0)
		return (false);
	m = mux_create(session_worker(s->worker), l);
	join_waiting(m, s, len, &b, now);
	for (w = TAILQ_FIRST(&seat->waiters); w != NULL && ++looks <= PULL_LOOKS;
	     w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->granted != session_granted)
			continue;
		s = CONTAINER_OF(w, struct session, waiter);
		len = waiting_len(s, l, &b);
		if (len == 0 ||
		    !has_room(m, s, (uint32_t)(2 * len), note_of(s->timed)->run_us, now))
			continue;
		pool_wait_end(w);
		METRIC_INC(&seat->metrics, server_assignment_count);
		join_waiting(m, s, len, &b, now);
	}
	return (true);
}

/* ---- leaving ---- */

void
mux_release(struct session *s)
{
	s->mux = NULL;
	session_move(s, SESSION_IDLE);
	stream_hold_end(&s->stream, false);
	if (UNLIKELY(s->is_draining || session_worker(s->worker)->is_draining))
		session_close(s, "57P01", "pooler is shutting down");
	else if (s->stream.is_paused || stream_is_full(&s->stream))
		session_flow(s);
}

static struct mux_entry *
entry_of(struct mux *m, const struct session *s, unsigned *at)
{
	for (unsigned i = 0; i < m->count; i++)
		if (mux_at(m, i)->s == s) {
			*at = i;
			return (mux_at(m, i));
		}
	INVARIANT(!"a session that shares a link is among those who do");
}

void
mux_run_again(struct mux *m, struct mux_entry *e)
{
	struct session *s = e->s;
	const uint8_t *p = e->is_batch ? m->kept.mem + e->kept_at : m->texts.mem + e->at;
	uint32_t len = e->is_batch ? e->kept_len : e->len;

	e->s = NULL;
	s->mux = NULL;
	s->shuns_mux = true;
	session_move(s, SESSION_IDLE);
	METRIC_ADD(&s->seat->metrics, received, -(int64_t)len);
	stream_unread(&s->stream, p, len);
	session_flow(s);
}

static void
move_one(struct mux *m, struct mux_entry *e)
{
	if (e->s == NULL)
		return;
	METRIC_INC(&e->s->seat->metrics, moved_count);
	mux_run_again(m, e);
}

void
mux_move(struct mux *m, unsigned stay)
{
	m->is_closed = true;
	/* What was not sent need not be, unless it tells the link statements. */
	while (m->count > stay) {
		struct mux_entry *e = mux_at(m, m->count - 1);

		if (e->at < m->sent || e->skips_parse || e->closes > 0)
			break;
		move_one(m, e);
		sql_facts_release(e->facts);
		m->texts.len = e->at;
		m->run_us -= e->run_us;
		m->count--;
	}
	for (unsigned i = stay; i < m->count; i++)
		move_one(m, mux_at(m, i));
}

void
mux_flow(struct mux *m)
{
	struct link *l = m->link;
	struct mux_entry *e = m->count > 0 ? mux_at(m, 0) : NULL;
	bool is_stuck = e != NULL && e->s != NULL && stream_is_full(&e->s->stream);

	if (is_stuck == l->stream.is_paused)
		return;
	if (!is_stuck) {
		stream_resume(&l->stream);
		return;
	}
	stream_pause(&l->stream);
	mux_move(m, 1);
}

void
mux_leave(struct session *s)
{
	struct mux *m = s->mux;
	unsigned at;

	if (m == NULL)
		return;
	entry_of(m, s, &at)->s = NULL;
	s->mux = NULL;
	if (at == 0)
		m->is_cut = false;
	mux_flow(m);
}

int64_t
mux_since_us(const struct session *s)
{
	unsigned at;

	return (entry_of(s->mux, s, &at)->start_us);
}

const struct link *
session_link_now(const struct session *s)
{
	return (s->mux != NULL ? s->mux->link : s->link);
}

const void *
session_link_serves(const struct link *l)
{
	struct mux *m = l->user_arg;

	if (l->user != &mux_link_user)
		return (l->user_arg);
	return (m->count > 0 ? mux_at(m, 0)->s : NULL);
}

/* ---- cancelling ---- */

void
mux_say_cancelled(struct mux_entry *e)
{
	struct session *s = e->s;

	e->s = NULL;
	session_error(s, "ERROR", fault_info(F_CANCELLED)->sqlstate,
	    fault_info(F_CANCELLED)->text, NULL, NULL);
	session_ready(s, 'I');
	s->request_us = worker_now_us(s->worker);
	mux_release(s);
}

static bool
has_live(struct mux *m, unsigned from)
{
	for (unsigned i = from; i < m->count; i++)
		if (mux_at(m, i)->s != NULL)
			return (true);
	return (false);
}

void
mux_cancel(struct session *s, void (*done)(void *), void *arg)
{
	struct mux *m = s->mux;
	unsigned at;
	struct mux_entry *e = entry_of(m, s, &at);

	/* Nobody else is on the link, and nobody will be: the server is asked, as ever. */
	if (at == 0 && e->at < m->sent && !has_live(m, 1)) {
		m->is_closed = true;
		link_cancel(m->link, done, arg);
		return;
	}
	/* The signal could reach the next one's. */
	if (at == 0 && m->link->body_left > 0 && m->link->body_is_forwarded)
		m->is_cut = true;
	else {
		mux_say_cancelled(e);
		mux_flow(m);
	}
	done(arg);
}

/* ---- time, and the end ---- */

void
mux_turn(struct worker *w)
{
	struct session_worker *sw = session_worker(w);
	struct mux *m;

	while ((m = TAILQ_FIRST(&sw->mux_unsent)) != NULL) {
		uint32_t at = m->sent;

		TAILQ_REMOVE(&sw->mux_unsent, m, entry);
		m->is_unsent = false;
		m->sent = m->texts.len;
		stream_write(&m->link->stream, m->texts.mem + at, m->sent - at);
	}
	if (sw->takes_times) {
		sw->turn_us = worker_now_us(w);
		sw->turn_end_us = clock_us();
	}
}

/* Whatever runs there, nobody wants it. */
static void
give_up(struct mux *m, const char *why)
{
	struct link *l = m->link;

	for (unsigned i = 0; i < m->count; i++)
		sql_facts_release(mux_at(m, i)->facts);
	m->count = 0;
	mux_free(m);
	l->user = NULL;
	l->user_arg = NULL;
	/* Closing alone would leave the statement running until it writes. */
	link_cancel(l, NULL, NULL);
	link_close(l, why);
}

static void
tick_one(struct mux *m, int64_t now)
{
	if (is_stalled(m, now))
		mux_move(m, 1);
	if (now - m->head_us > LINGER_US && !has_live(m, 0))
		give_up(m, "client disconnect while server was not ready");
}

void
mux_tick(struct worker *w, int64_t now)
{
	struct seat *seat;
	struct link *l, *next;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		for (l = TAILQ_FIRST(&seat->shared); l != NULL; l = next) {
			next = TAILQ_NEXT(l, idle_entry);
			tick_one(l->user_arg, now);
		}
}

void
mux_end_all(struct worker *w)
{
	struct seat *seat;
	struct link *l;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry)
		while ((l = TAILQ_FIRST(&seat->shared)) != NULL)
			give_up(l->user_arg, "pooler is shutting down");
}

void
mux_fini(struct session_worker *sw)
{
	struct mux *m;

	while ((m = TAILQ_FIRST(&sw->mux_spare)) != NULL) {
		TAILQ_REMOVE(&sw->mux_spare, m, entry);
		buf_free(&m->texts);
		buf_free(&m->kept);
		free(m);
	}
}
