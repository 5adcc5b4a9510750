/*
 * Rows of a COPY, each to the part where it lives. Of a row whose key is not known yet the bytes
 * are held; the others go on as they come.
 */
#include "split.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failing ---- */

static void
load_context(const struct split *s, char *to, size_t size, bool with_value)
{
	const struct reader *r = &s->reader;
	struct route_datum d = {.p = r->value, .len = r->value_len};
	bool shows = with_value && s->order.copy->format != SQL_COPY_BINARY;
	int n = snprintf(to, size, "COPY %s, line %" PRIu64, s->order.table, r->line);

	if (n < 0 || (size_t)n >= size || !with_value)
		return;
	if (r->is_null)
		snprintf(
		    to + n, size - (size_t)n, ", column %s: null input", r->spec.key);
	else if (shows)
		snprintf(to + n, size - (size_t)n, ", column %s: \"%.*s\"", r->spec.key,
		    (int)(d.len > 100 ? 100 : d.len), (const char *)d.p);
	else
		snprintf(to + n, size - (size_t)n, ", column %s", r->spec.key);
}

static void
load_fail(struct split *s, const char *sqlstate, const char *message, const char *detail,
    const char *hint, bool with_value)
{
	char context[400];

	load_context(s, context, sizeof(context), with_value);
	split_fail(s, sqlstate, message, detail, hint, context);
}

static void
fail_elsewhere(struct split *s, const char *member)
{
	char message[400];

	snprintf(message, sizeof(message), "%s \"%s\"", s->order.elsewhere, member);
	load_fail(
	    s, s->order.elsewhere_state, message, NULL, s->order.elsewhere_hint, true);
}

/* ---- where a row goes ---- */

static bool
is_ascii(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] >= 0x80)
			return (false);
	return (true);
}

/* The shard of the value that was just read; -1: it has failed. */
static int
shard_of_row(struct split *s)
{
	const struct topo_shard *shard = s->order.shard;
	const struct reader *r = &s->reader;
	struct route_datum d = {.p = r->value,
	    .len = r->value_len,
	    .is_null = r->is_null,
	    .is_binary = r->spec.format == SQL_COPY_BINARY};
	bool is_text = shard->type == TOPO_SHARD_TEXT || shard->type == TOPO_SHARD_CHAR;
	struct route_words words;
	char message[320];
	int home;

	if (r->is_default) {
		snprintf(message, sizeof(message),
		    "the value of shard key \"%.64s\" of table \"%.64s\" is not known before the row is written",
		    shard->key, s->order.table);
		load_fail(s, "0A000", message, NULL, "Give it in every row.", true);
		return (-1);
	}
	if (is_text && s->order.is_foreign_text && !is_ascii(d.p, d.len)) {
		load_fail(s, "0A000",
		    "a shard key beyond ASCII must come in the databases' own encoding",
		    NULL, "SET client_encoding to it, or convert the file.", true);
		return (-1);
	}
	home = route_home_of(shard, &d);
	if (home >= 0)
		return (home);
	route_home_words(shard, s->order.table, home, &d, &words);
	load_fail(s, words.sqlstate, words.message,
	    words.detail[0] != '\0' ? words.detail : NULL,
	    words.hint[0] != '\0' ? words.hint : NULL, true);
	return (-1);
}

static void
part_begin(struct part *p)
{
	if (!p->has_header && p->split->header.len > 0)
		part_add(p, p->split->header.mem, p->split->header.len);
	p->has_header = true;
}

/* The key of a row is known: what was held goes to its part. */
static void
row_found(struct split *s)
{
	int shard = shard_of_row(s), at;
	struct part *p;

	if (shard < 0)
		return;
	at = s->order.part_of_shard[shard];
	if (at < 0) {
		fail_elsewhere(s, s->order.shard->members[shard]->name);
		return;
	}
	p = &s->parts[at];
	if (!s->order.begins && s->only != NULL && s->only != p) {
		char message[400];

		snprintf(message, sizeof(message),
		    "a transaction cannot write on two databases: \"%s\" and \"%s\"",
		    s->only->given.member, p->given.member);
		load_fail(s, "0A000", message, NULL,
		    "Outside a transaction, each row of a COPY goes to its database.",
		    true);
		return;
	}
	s->at = s->only = p;
	part_begin(p);
	part_add(p, s->held.mem, s->held.len);
	s->held.len = 0;
	if (s->held.cap > SPLIT_COPY_BYTES * 4)
		buf_free(&s->held);
}

/* Every part has a header: those without rows cannot do without it in binary, and look at its
 * names with MATCH. */
static void
header_found(struct split *s)
{
	buf_add(&s->header, s->held.mem, s->held.len);
	s->held.len = 0;
	if (s->order.copy->format != SQL_COPY_BINARY &&
	    s->order.copy->header != SQL_COPY_HEADER_MATCH)
		return;
	for (unsigned i = 0; i < s->part_count; i++)
		part_begin(&s->parts[i]);
}

static void
said(struct split *s, enum reader_said what)
{
	const struct reader *r = &s->reader;

	switch (what) {
	case READER_HEADER:
		header_found(s);
		break;
	case READER_KEY:
		row_found(s);
		break;
	case READER_ROW:
		s->at->rows++;
		s->at = NULL;
		break;
	case READER_END:
		if (r->spec.format == SQL_COPY_BINARY)
			buf_add(&s->trailer, s->held.mem, s->held.len);
		s->held.len = 0;
		break;
	case READER_BAD:
		load_fail(s, "22P04", r->message, NULL, r->hint, false);
		break;
	case READER_MORE:
		break;
	}
}

static void
keep(struct split *s, const uint8_t *p, size_t len)
{
	if (s->at != NULL) {
		part_add(s->at, p, len);
		return;
	}
	if (len > SPLIT_HELD_BYTES - s->held.len) {
		load_fail(s, "53200",
		    "a row has more than 64 MB before its shard key is known", NULL,
		    "Name the columns of COPY, the shard key among the first.", false);
		return;
	}
	buf_add(&s->held, p, len);
}

/* ---- the client's data ---- */

void
load_begin(struct split *s)
{
	const struct federate_split *o = &s->order;
	const struct sql_copy *c = o->copy;
	struct reader_spec *r = &s->reader.spec;

	*r = (struct reader_spec){.format = c->format,
	    .has_header = c->format != SQL_COPY_BINARY && c->header != SQL_COPY_NO_HEADER,
	    .delimiter = c->delimiter,
	    .quote = c->quote,
	    .escape = c->escape,
	    .null = c->null,
	    .dflt = c->dflt,
	    .key_at = o->key_at,
	    .forces_null = c->force_null_all,
	    .forces_not_null = c->force_not_null_all,
	    .csv_has_mark = o->csv_has_mark,
	    .key = o->shard->key};
	for (unsigned i = 0; i < c->force_null_count; i++)
		r->forces_null |= strcmp(c->force_null[i], r->key) == 0;
	for (unsigned i = 0; i < c->force_not_null_count; i++)
		r->forces_not_null |= strcmp(c->force_not_null[i], r->key) == 0;
}

void
split_data(struct split *s, const uint8_t *p, size_t len)
{
	enum reader_said what;
	size_t n;

	INVARIANT(s->magic == SPLIT_MAGIC);
	if (s->phase != SPLIT_TAKING)
		return;
	do {
		n = reader_read(&s->reader, p, len, &what);
		if (!s->reader.is_over || what == READER_END)
			keep(s, p, n);
		p += n;
		len -= n;
		if (!s->has_failed)
			said(s, what);
	} while (what != READER_MORE && !s->has_failed);
	split_advance(s);
}

void
split_finish(struct split *s)
{
	enum reader_said what = READER_MORE;

	INVARIANT(s->magic == SPLIT_MAGIC);
	if (s->phase != SPLIT_TAKING)
		return;
	while (!s->has_failed && what != READER_END) {
		what = reader_finish(&s->reader);
		said(s, what);
	}
	if (!s->has_failed) {
		split_move(s, SPLIT_ENDING);
		for (unsigned i = 0; i < s->part_count; i++) {
			part_add(&s->parts[i], s->trailer.mem, s->trailer.len);
			part_close_copy(&s->parts[i], NULL);
		}
	}
	split_advance(s);
}

void
split_give_up(struct split *s, const char *message)
{
	char *text;

	INVARIANT(s->magic == SPLIT_MAGIC);
	if (s->phase != SPLIT_TAKING)
		return;
	text = mem_printf("COPY from stdin failed: %s", message);
	load_fail(s, "57014", text, NULL, NULL, false);
	free(text);
	split_advance(s);
}
