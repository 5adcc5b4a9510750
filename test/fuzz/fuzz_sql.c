/*
 * SQL texts. Whatever the bytes: each statement and literal lies within the text, statements come
 * in order and end, values and the digest's text come to an end, the facts point into the
 * statement, and the same statement has the same facts when it comes again.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "sql.h"

static void
check_scan(const struct sql_scan *s, const uint8_t *data, size_t size)
{
	char *text;

	INVARIANT(is_within(s->sql, s->len, data, size));
	INVARIANT(s->next == NULL ||
		  (is_within(s->next, 0, data, size) && s->next > s->sql + s->len));
	INVARIANT(strlen(s->verb) < sizeof(s->verb));
	INVARIANT(s->literal_count <= SQL_LITERALS_MAX);
	for (unsigned i = 0; i < s->literal_count; i++) {
		const struct sql_literal *l = &s->literals[i];

		INVARIANT(l->len > 0 && l->at + l->len <= s->len);
		INVARIANT(
		    i == 0 || l->at >= s->literals[i - 1].at + s->literals[i - 1].len);
		text = sql_literal_value(s, i);
		INVARIANT(text == NULL || strlen(text) <= l->len);
		free(text);
	}
	text = sql_digest_text(s);
	INVARIANT(strlen(text) <= 2 * s->len);
	free(text);
}

static void
check_match(
    const struct sql_scan *s, const struct sql_facts *f, const struct sql_match *m)
{
	INVARIANT(m->table < f->table_count && *m->column != '\0');
	INVARIANT(m->count > 0 && m->count <= SQL_VALUES_MAX);
	for (unsigned i = 0; i < m->count; i++) {
		const struct sql_value *v = &m->values[i];

		INVARIANT(v->kind != SQL_VALUE_LITERAL || v->at < s->literal_count);
		INVARIANT(v->kind != SQL_VALUE_LITERAL || !v->is_negative ||
			  s->literals[v->at].kind == SQL_LIT_NUMBER);
		INVARIANT(
		    v->kind != SQL_VALUE_PARAM || (v->at >= 1 && v->at <= s->param_max));
	}
}

static void
check_facts(const struct sql_scan *s, const struct sql_facts *f)
{
	INVARIANT(f->table_count <= SQL_TABLES_MAX);
	for (unsigned i = 0; i < f->table_count; i++) {
		const struct sql_table *t = &f->tables[i];

		INVARIANT(strlen(t->name) < 64);
		INVARIANT(!f->is_exact || (t->at <= s->len && t->len <= s->len - t->at));
	}
	for (unsigned i = 0; i < f->match_count; i++)
		check_match(s, f, &f->matches[i]);
	INVARIANT(f->class == SQL_READ || !f->is_plain_read);
	INVARIANT((f->class == SQL_SET) == (f->set_verb != SQL_SET_NONE));
	INVARIANT((f->class == SQL_SET) == (f->setting != NULL));
	INVARIANT(f->class != SQL_EXPLAIN_ROUTE || f->inner_at <= s->len);
	INVARIANT(!f->shape.is_aggregate ||
		  (f->shape.why_not == NULL && f->shape.column_count > 0));
	INVARIANT(f->shape.why_not != NULL || f->class == SQL_READ);
}

/* What is known without scanning is what scanning says. */
static void
check_recalled(const struct sql_scan *r, const struct sql_scan *s)
{
	INVARIANT(r->sql == s->sql && r->len == s->len && r->next == s->next);
	INVARIANT(r->digest.hi == s->digest.hi && r->digest.lo == s->digest.lo);
	INVARIANT(r->param_max == s->param_max && r->hint == NULL && s->hint == NULL);
	INVARIANT(!s->is_empty && !s->is_cut && !s->is_too_much && !s->wants_values);
	INVARIANT(strcmp(r->verb, s->verb) == 0);
	INVARIANT(r->literal_count == s->literal_count);
	for (unsigned i = 0; i < r->literal_count; i++)
		INVARIANT(r->literals[i].at == s->literals[i].at &&
			  r->literals[i].len == s->literals[i].len &&
			  r->literals[i].kind == s->literals[i].kind);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sql_cache *cache;
	const char *at = (const char *)data, *end = at + size;

	if (cache == NULL)
		cache = sql_cache_create(100000);
	while (at != NULL) {
		const struct sql_facts *first, *again, *recalled;
		struct sql_scan s, r;

		recalled = sql_facts_recall(cache, at, (size_t)(end - at), &r);
		sql_scan(at, (size_t)(end - at), &s);
		check_scan(&s, data, size);
		if (recalled != NULL) {
			check_recalled(&r, &s);
			INVARIANT(recalled == sql_facts_get(cache, &s));
			sql_scan_free(&r);
		}
		first = sql_facts_hold(sql_facts_get(cache, &s));
		check_facts(&s, first);
		again = sql_facts_get(cache, &s);
		INVARIANT(again->class == first->class &&
			  again->table_count == first->table_count &&
			  again->match_count == first->match_count);
		sql_facts_release(first);
		at = s.next;
		sql_scan_free(&s);
	}
	return (0);
}
