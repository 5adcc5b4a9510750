/*
 * Batches of the extended protocol on links that several sessions use at once: one statement,
 * bound and run once, without a portal's name.
 *
 *   client   Parse "" text, Bind "", Describe, Execute, Sync
 *   link                    Bind pgw_…, Describe, Execute, Sync     as share.c has it
 *
 *   client   Bind name, Describe, Execute, Sync
 *   link     Bind pgw_…, Describe, Execute, Sync     behind Parse pgw_…, where it is missing
 *
 * When the statement that the link has fails before anything else is known of it, that may be
 * why: the batch then runs once more, as it was sent, on a link of its own.
 */
#include "mux.h"
#include <string.h>

/* ---- the client's ---- */

/* Bind of the portal without a name: the statement's; NULL: it is not to be shared. */
static const char *
bound_name(struct mux_batch *b, const uint8_t *body, size_t len)
{
	const char *portal, *statement;

	if (proto_bind_names(body, len, &portal, &statement, &b->rest_at) != 0 ||
	    portal[0] != '\0')
		return (NULL);
	return (statement);
}

/* Of the portal without a name, and nothing else. */
static bool
is_of_portal(char type, const uint8_t *body, size_t len)
{
	if (type == 'D')
		return (len == 2 && body[0] == 'P' && body[1] == '\0');
	return (type == 'E' && len == 5 && body[0] == '\0');
}

/* Whose statement it is: where the batch parses it, the session's own one without a name. */
static bool
find_statement(struct session *s, struct mux_batch *b, const char *name)
{
	struct stmt_name *n;

	if (b->parse_len > 0)
		return (name[0] == '\0');
	n = name[0] != '\0' ? stmt_name_find(s, name) : NULL;
	if (n == NULL || !n->is_sure || n->pending > 0)
		return (false);
	b->stmt = n->stmt;
	b->since = n->since;
	return (true);
}

bool
mux_batch_read(struct session *s, const uint8_t *p, size_t len, struct mux_batch *b)
{
	unsigned runs = 0;

	*b = (struct mux_batch){.p = p};
	while (len - b->len >= PROTO_HEAD) {
		const uint8_t *body = p + b->len + PROTO_HEAD;
		uint32_t size = proto_get32(p + b->len + 1);
		char type = (char)p[b->len];
		const char *name;

		if (size < 4 || len - b->len < (size_t)size + 1 ||
		    b->len + size > MUX_TEXT_MAX)
			return (false);
		if (type == 'P' && b->len == 0 && size > 4 && body[0] == '\0')
			b->parse_len = size + 1;
		else if (type == 'B' && b->bind_at == 0 && b->len == b->parse_len) {
			name = bound_name(b, body, size - 4);
			if (name == NULL || !find_statement(s, b, name))
				return (false);
			b->bind_at = b->len + 1;
			b->bind_len = size + 1;
		} else if (type == 'S' && size == 4) {
			b->len += size + 1;
			return (runs == 1 && b->bind_at > 0);
		} else if (b->bind_at == 0 || runs > 0 ||
			   !is_of_portal(type, body, size - 4))
			return (false);
		runs += type == 'E';
		b->len += size + 1;
	}
	return (false);
}

bool
mux_batch_parse(struct session *s, struct mux_batch *b)
{
	struct proto_parse parse;

	if (b->parse_len == 0)
		return (true);
	if (proto_parse_parse(b->p + PROTO_HEAD, b->parse_len - PROTO_HEAD, &parse) != 0)
		return (false);
	b->stmt = stmt_intern(s->worker, &parse);
	return (true);
}

void
mux_batch_end(struct session *s, struct mux_batch *b)
{
	if (b->parse_len > 0 && b->stmt != NULL)
		stmt_release(s->worker, b->stmt);
}

/* ---- the link's ---- */

static void
put_close(struct mux *m, struct mux_entry *e, struct hash128 id)
{
	char name[PREPARED_NAME];

	prepared_name(id, name);
	proto_close_statement(&m->texts, name);
	e->closes++;
}

/* The link is told the statement under its own name. */
static void
put_parse(struct mux *m, struct mux_entry *e, const struct stmt *st)
{
	int64_t max = pool_settings(m->link->worker)->max_prepared_statements;
	struct prepared_set *set = &m->link->prepared;
	char name[PREPARED_NAME];
	struct hash128 old;

	if (prepared_is_old(set, e->id))
		put_close(m, e, e->id);
	while (prepared_count(set) >= max && e->closes < UINT8_MAX - 1 &&
	       prepared_evict(set, &old))
		put_close(m, e, old);
	prepared_name(e->id, name);
	proto_parse(
	    &m->texts, name, stmt_text(st), st->data + st->sql_len + 1, st->types_len);
	e->skips_parse = true;
}

/* Bind of the link's statement, and what follows. */
static void
put_rest(struct mux *m, const struct mux_entry *e, const struct mux_batch *b)
{
	const uint8_t *bind = b->p + b->bind_at - 1;
	size_t at = PROTO_HEAD + b->rest_at, rest = b->bind_len - at;
	char name[1 + PREPARED_NAME] = "";
	uint8_t *head = buf_room(&m->texts, PROTO_HEAD);

	head[0] = 'B';
	proto_put32(head + 1, (uint32_t)(4 + sizeof(name) + rest));
	m->texts.len += PROTO_HEAD;
	prepared_name(e->id, name + 1);
	buf_add(&m->texts, name, sizeof(name));
	buf_add(&m->texts, bind + at, rest);
	buf_add(&m->texts, bind + b->bind_len, b->p + b->len - (bind + b->bind_len));
}

/* As share.c does it. */
static void
put_unnamed(
    struct mux *m, struct mux_entry *e, struct session *s, const struct mux_batch *b)
{
	struct link *l = m->link;

	switch (share_use(s, l, b->stmt, e->start_us, &e->id)) {
	case SHARE_NOT:
		buf_add(&m->texts, b->p, b->len);
		l->unnamed = UNNAMED_FOREIGN;
		return;
	case SHARE_MAKES:
		put_parse(m, e, b->stmt);
		prepared_share(&l->prepared, e->id, l->batch, l->said, e->start_us);
		break;
	case SHARE_HAS:
	default:
		break;
	}
	e->fakes_parse = e->is_renamed = true;
	METRIC_INC(&s->seat->metrics, shared_count);
	put_rest(m, e, b);
}

static void
put_named(
    struct mux *m, struct mux_entry *e, struct session *s, const struct mux_batch *b)
{
	struct link *l = m->link;

	e->id = b->stmt->id;
	e->is_renamed = true;
	if (!prepared_touch_fresh(&l->prepared, e->id, b->since)) {
		put_parse(m, e, b->stmt);
		prepared_forget(&l->prepared, e->id);
		prepared_add(&l->prepared, e->id, l->batch);
	}
	METRIC_INC(&s->seat->metrics, bind_count);
	put_rest(m, e, b);
}

void
mux_batch_put(
    struct mux *m, struct mux_entry *e, struct session *s, const struct mux_batch *b)
{
	e->is_batch = true;
	e->kept_at = m->kept.len;
	e->kept_len = (uint32_t)b->len;
	buf_add(&m->kept, b->p, b->len);
	m->link->batch++;
	if (b->parse_len == 0) {
		put_named(m, e, s, b);
		return;
	}
	put_unnamed(m, e, s, b);
	b->stmt->refs++;
	stmt_unnamed_set(s, b->stmt);
	s->unnamed_token =
	    ++session_worker(s->worker)->tokens << 8 | (uint64_t)s->worker->index;
}

/* ---- answers ---- */

enum mux_heard
mux_batch_hears(struct mux *m, struct mux_entry *e, char type)
{
	if (type == '3' && e->closes > 0) {
		e->closes--;
		return (MUX_HEARD_SKIP);
	}
	if (type == '1' && e->skips_parse) {
		e->skips_parse = false;
		prepared_confirm(&m->link->prepared, e->id);
		return (MUX_HEARD_SKIP);
	}
	if (type == '1' && e->is_renamed)
		return (MUX_HEARD_NONSENSE);
	e->has_begun = true;
	return (MUX_HEARD_PASS);
}

static bool
counts_on(const struct mux_entry *e, struct hash128 id)
{
	return (e->s != NULL && e->fakes_parse && !e->skips_parse && e->id.hi == id.hi &&
		e->id.lo == id.lo);
}

/* What a server has to say to a text, it says to every client: those behind, too, have it parsed
 * for themselves. */
void
mux_batch_notes(struct mux *m, struct mux_entry *e)
{
	e->has_notice = true;
	if (!e->skips_parse)
		return;
	prepared_suspect(&m->link->prepared, e->id);
	for (unsigned i = 1; i < m->count; i++)
		if (counts_on(mux_at(m, i), e->id))
			mux_run_again(m, mux_at(m, i));
}

bool
mux_batch_failed(
    struct mux *m, struct mux_entry *e, const struct proto_error_fields *error)
{
	bool is_unknown = strcmp(error->sqlstate, "26000") == 0,
	     is_twice = strcmp(error->sqlstate, "42P05") == 0;

	e->closes = 0;
	/* It has no statement without a name now. */
	if (e->s != NULL && m->kept.mem[e->kept_at] == 'P' &&
	    (e->is_renamed ? e->skips_parse : !e->has_begun)) {
		stmt_unnamed_set(e->s, NULL);
		e->s->unnamed_token = 0;
	}
	if (!e->is_renamed || e->has_begun)
		return (false);
	if (e->skips_parse)
		e->fakes_parse = false;
	if (e->skips_parse || is_unknown)
		prepared_forget(&m->link->prepared, e->id);
	/* The link has what it should not. */
	m->link->is_dirty |= is_twice;
	/* It would be told a notice twice. */
	return (e->s != NULL && !m->is_cut && !e->has_notice && share_may_be_why(error));
}
