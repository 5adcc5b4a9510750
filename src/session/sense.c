/* What a statement of a client is, and what the route needs to know of it and of the session. */
#include "weave.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FACTS_BYTES ((size_t)8 * 1024 * 1024) /* of each worker */

static struct sql_cache *
facts_cache(struct worker *w)
{
	struct session_worker *sw = session_worker(w);

	if (sw->facts == NULL)
		sw->facts = sql_cache_create(FACTS_BYTES);
	return (sw->facts);
}

void
sense_make(struct worker *w, const char *sql, size_t len, struct sense *out)
{
	struct sql_cache *cache = facts_cache(w);
	const struct sql_facts *facts = sql_facts_recall(cache, sql, len, &out->scan);

	if (facts == NULL) {
		sql_scan(sql, len, &out->scan);
		facts = sql_facts_get(cache, &out->scan);
	}
	out->facts = sql_facts_hold(facts);
}

const struct sql_facts *
sense_known(struct worker *w, const char *sql, size_t len)
{
	return (sql_facts_known(facts_cache(w), sql, len));
}

void
sense_end(struct sense *sense)
{
	sql_facts_release(sense->facts);
	sql_scan_free(&sense->scan);
}

/* Any database of the configuration: whether it is a member is for weave_decide() to see. */
static bool
is_database(void *arg, const char *name)
{
	const struct topo_database *db = topo_database_find(arg, name);

	return (db != NULL && strcasecmp(db->name, name) == 0);
}

char *
sense_clean(struct worker *w, const struct sense *sense)
{
	for (unsigned i = 0; i < sense->facts->table_count; i++)
		if (sense->facts->tables[i].catalog != NULL)
			return (sql_text_without(&sense->scan, is_database,
			    (void *)(uintptr_t)pool_worker(w)->topo));
	return (NULL);
}

const struct sense *
sense_of_stmt(struct worker *w, struct stmt *st)
{
	if (st->sense == NULL) {
		st->sense = mem_alloc(sizeof(*st->sense));
		sense_make(w, (const char *)st->data, st->sql_len, st->sense);
		st->clean = sense_clean(w, st->sense);
	}
	return (st->sense);
}

/* ---- parameters ---- */

static uint16_t
get16(const uint8_t *p)
{
	return ((uint16_t)(p[0] << 8 | p[1]));
}

bool
binding_parse(struct binding *b, const uint8_t *p, size_t len, const struct stmt *st)
{
	size_t at = 0, count;

	*b = (struct binding){.p = p, .len = len};
	if (st != NULL) {
		b->types = st->data + st->sql_len + 1;
		b->types_len = st->types_len;
	}
	if (len < 2)
		return (false);
	count = get16(p);
	at = 2 + 2 * count;
	if (at + 2 > len)
		return (false);
	count = get16(p + at);
	at += 2;
	for (size_t i = 0; i < count; i++) {
		uint32_t size;

		if (at + 4 > len)
			return (false);
		size = proto_get32(p + at);
		at += 4;
		if (size == UINT32_MAX)
			continue;
		if (size > len - at)
			return (false);
		at += size;
	}
	b->values_len = at;
	return (at + 2 <= len && at + 2 + 2 * (size_t)get16(p + at) == len);
}

unsigned
binding_formats(const struct binding *b, uint16_t *out, unsigned max)
{
	const uint8_t *p = b->p + b->values_len;
	unsigned count = get16(p);

	if (count > max)
		count = max;
	for (unsigned i = 0; i < count; i++)
		out[i] = get16(p + 2 + 2 * (size_t)i);
	return (count);
}

/* A type that the client has not said, from the length of a binary value: drivers that ask
 * the server for the types send integers so. */
static uint32_t
type_of_length(size_t len)
{
	return (len == 2 ? 21 : len == 4 ? 23 : len == 8 ? 20 : 0);
}

/* Of EXECUTE: what is no constant is hidden. */
static bool
argument_param(const struct binding *b, unsigned n, struct route_datum *out)
{
	const struct sql_argument *a;

	if (n == 0 || n > b->argument_count)
		return (false);
	a = &b->arguments[n - 1];
	*out = (struct route_datum){.is_null = a->is_null};
	out->is_hidden = !a->is_null && a->value == NULL;
	if (a->value != NULL) {
		out->p = (const uint8_t *)a->value;
		out->len = strlen(a->value);
	}
	return (true);
}

bool
binding_param(void *arg, unsigned n, struct route_datum *out)
{
	const struct binding *b = arg;
	size_t format_count, at, count;
	uint32_t size;

	if (b->arguments != NULL)
		return (argument_param(b, n, out));
	format_count = get16(b->p);
	at = 2 + 2 * format_count;
	count = get16(b->p + at);
	at += 2;
	if (n == 0 || n > count)
		return (false);
	for (unsigned i = 1; i < n; i++) {
		size = proto_get32(b->p + at);
		at += 4 + (size == UINT32_MAX ? 0 : size);
	}
	size = proto_get32(b->p + at);
	*out = (struct route_datum){.p = b->p + at + 4};
	out->is_null = size == UINT32_MAX;
	out->len = out->is_null ? 0 : size;
	if (format_count == 1)
		out->is_binary = get16(b->p + 2) == 1;
	else if (n <= format_count)
		out->is_binary = get16(b->p + 2 * (size_t)n) == 1;
	if (b->types_len >= 2 + 4 * (size_t)n)
		out->type = proto_get32(b->types + 2 + 4 * (size_t)(n - 1));
	if (out->type == 0 && out->is_binary)
		out->type = type_of_length(out->len);
	return (true);
}

/* Where the letter, small or capital, stands first; end: nowhere. */
static const char *
find_letter(const char *at, const char *end, char small)
{
	const char *first = memchr(at, small, (size_t)(end - at)), *capital;

	if (first == NULL)
		first = end;
	capital = memchr(at, small & ~0x20, (size_t)(first - at));
	return (capital != NULL ? capital : first);
}

bool
sense_has_word(const struct sense *sense, const char *word)
{
	size_t len = strlen(word);
	const char *end = sense->scan.sql + sense->scan.len, *at = sense->scan.sql;

	while ((at = find_letter(at, end, *word)) != end) {
		if ((size_t)(end - at) >= len && strncasecmp(at, word, len) == 0)
			return (true);
		at++;
	}
	return (false);
}

bool
sense_reads_anywhere(const struct sense *sense)
{
	return (sense->facts->is_read_only && !sense->facts->is_serializable);
}

bool
sense_has_modes(const struct sense *sense)
{
	return (sense_has_word(sense, "read") || sense_has_word(sense, "isolation") ||
		sense_has_word(sense, "deferrable"));
}

/* ---- the route's view ---- */

static bool
is_open_at(void *arg, const struct topo_database *db)
{
	const struct weave *w = arg;
	const struct anchor *a;

	for (unsigned i = 0; i < w->leg_count; i++)
		if (w->legs[i].is_open && w->legs[i].seat->database == db)
			return (true);
	/* What reads alone need not go on there. */
	if (w->txn != TXN_NONE && w->is_read_only)
		return (false);
	TAILQ_FOREACH(a, &w->anchors, entry)
		if (((const struct seat *)a->link->place)->database == db)
			return (true);
	return (false);
}

/* Its transactions are serializable unless they say otherwise: no replica can do that. */
static bool
is_serializable(struct session *s)
{
	struct weave *w = s->weave;
	const struct vars *vars = session_tracked(s);
	const char *level;

	if (!w->knows_level) {
		level =
		    vars != NULL ? vars_get(vars, "default_transaction_isolation") : NULL;
		w->is_serializable =
		    level != NULL && strcasecmp(level, "serializable") == 0;
		w->knows_level = true;
	}
	return (w->is_serializable);
}

void
sense_input(struct session *s, const struct sense *sense, const struct binding *b,
    struct route_input *in)
{
	const struct weave *w = s->weave;
	/* A cursor WITH HOLD outlives its transaction, which ends with a rollback on replicas. */
	bool shuns_replicas = w->shuns_replicas || is_serializable(s) ||
			      sense->facts->keeps == SQL_KEEPS_CURSOR;

	*in = (struct route_input){
	    .virt = w->virt,
	    .key = w->key,
	    .member = w->member,
	    .scan = &sense->scan,
	    .facts = sense->facts,
	    .catalog = catalog_of(s->worker),
	    .local = said_view(&w->local),
	    .session = said_view(&w->session),
	    .param = b != NULL ? binding_param : NULL,
	    .arg = (void *)(uintptr_t)b,
	    .in_transaction = w->txn != TXN_NONE || w->unit.is_string || shuns_replicas,
	    .is_read_only = w->txn != TXN_NONE && w->is_read_only && !w->unit.is_string &&
			    !shuns_replicas,
	    .is_open = is_open_at,
	    .open_arg = (void *)(uintptr_t)w,
	    .pinned = temps_are_any(w) ? temps_pinned : NULL,
	    .pinned_arg = s,
	    .pinned_at = TAILQ_EMPTY(&w->anchors) ? NULL : temps_pinned_at(s, sense),
	    .now_us = clock_us(),
	    .wrote_us = w->virt->causal_reads ? atomic_load(&s->user->wrote_us) : 0,
	};
}

bool
sense_is_local(const struct session *s, const struct sense *sense)
{
	const struct weave *w = s->weave;
	enum weave_txn txn = w->txn;

	switch (sense->facts->class) {
	case SQL_EMPTY:
	case SQL_EXPLAIN_ROUTE:
		return (true);
	case SQL_BEGIN:
		/* What else is to hold for a transaction that runs, its server knows. */
		return (txn != TXN_OPEN || !sense_has_modes(sense));
	case SQL_COMMIT:
	case SQL_ROLLBACK:
		return (txn != TXN_OPEN);
	case SQL_SAVEPOINT:
		/* Sent with BEGIN; or it fails. */
		return (txn == TXN_DEFERRED ||
			(txn == TXN_FAILED && sense->facts->is_rollback_to &&
			    ((w->leg_count == 0 && !w->is_doomed) ||
				!weave_has_savepoint(w, sense->facts->savepoint))));
	case SQL_SET:
		return (sense->facts->setting != NULL &&
			strncmp(sense->facts->setting, "pgweave.", 8) == 0);
	case SQL_TWO_PHASE:
		/* PREPARE TRANSACTION of one that has failed rolls it back. */
		return (txn == TXN_FAILED && strcmp(sense->scan.verb, "prepare") == 0);
	case SQL_UNKNOWN:
	case SQL_READ:
	case SQL_WRITE:
	case SQL_DDL:
		return (false);
	case SQL_UTILITY:
		return (heed_is(sense));
	default:
		return (false);
	}
}
