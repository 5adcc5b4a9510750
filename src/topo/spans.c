/*
 * topo/spans.c: where a value of a shard key lives: by remainder, by hash, or in one of the
 * spans that are written out:
 *
 *   ranges = ..-1: archive, 0..999: primary, 1000..: secondary     both ends belong to it
 *   ranges = ..<m: primary, m..: secondary                         but the one behind <
 *   lists  = DE AT: primary, FR "New York": secondary, *: archive  * is all that no list has
 *
 * Integers are in order of their numbers, all else of its bytes.
 */
#include "inner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

static bool
integer_read(const char *text, size_t len, int64_t *out)
{
	bool is_negative = len > 0 && *text == '-';
	int64_t number = 0;

	text += is_negative;
	len -= is_negative;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' ||
		    __builtin_mul_overflow(number, 10, &number) ||
		    __builtin_sub_overflow(number, text[i] - '0', &number))
			return (false);
	}
	/* Downwards, since the lowest has no counterpart. */
	*out = number;
	return (len > 0 && (is_negative || !__builtin_sub_overflow(0, number, out)));
}

static int
digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return (c - '0');
	if (c >= 'a' && c <= 'f')
		return (c - 'a' + 10);
	return (c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1);
}

/* As PostgreSQL takes it: a hyphen may stand behind any four digits, braces around the whole. */
static bool
uuid_read(const char *p, size_t len, uint8_t room[16])
{
	unsigned count = 0;

	if (len >= 2 && p[0] == '{' && p[len - 1] == '}') {
		p++;
		len -= 2;
	}
	for (size_t i = 0; i < len; i++) {
		int digit = digit_of(p[i]);

		if (p[i] == '-' && count > 0 && count % 4 == 0 && count < 32 &&
		    p[i - 1] != '-')
			continue;
		if (digit < 0 || count == 32)
			return (false);
		room[count / 2] =
		    (uint8_t)(count % 2 == 0 ? digit << 4 : room[count / 2] | digit);
		count++;
	}
	return (count == 32);
}

bool
topo_shard_read(enum topo_shard_type type, const char *text, size_t len, uint8_t room[16],
    struct topo_shard_value *out)
{
	*out = (struct topo_shard_value){.p = (const uint8_t *)text, .len = len};
	switch (type) {
	case TOPO_SHARD_INTEGER:
	case TOPO_SHARD_BIGINT:
		*out = (struct topo_shard_value){0};
		return (integer_read(text, len, &out->number));
	case TOPO_SHARD_TEXT:
		return (true);
	case TOPO_SHARD_CHAR:
		while (out->len > 0 && text[out->len - 1] == ' ')
			out->len--;
		return (true);
	case TOPO_SHARD_UUID:
		*out = (struct topo_shard_value){.p = room, .len = 16};
		return (uuid_read(text, len, room));
	}
	return (false);
}

static int
compare(const struct topo_shard_value *a, const struct topo_shard_value *b)
{
	size_t len = a->len < b->len ? a->len : b->len;
	int order = (a->number > b->number) - (a->number < b->number);

	if (order == 0 && len > 0)
		order = memcmp(a->p, b->p, len);
	return (order != 0 ? order : (a->len > b->len) - (a->len < b->len));
}

/* ---- reading ---- */

struct reader {
	struct complaint *complaint;
	const char *word; /* ranges, lists */
	struct topo *topo;
	const struct topo_virtual *virt;
	struct topo_shard *shard;
	bool adds;
	const char *text,
	    *item; /* what is left; the item that is being read, as it stands */
	size_t item_len;
};

static void
item_wrong(struct reader *r, const char *what)
{
	complain(r->complaint, r->word, "\"%.*s\" %s, allowed is %s", (int)r->item_len,
	    r->item, what,
	    r->shard->function == TOPO_SHARD_RANGE
		? "low..high: member, with low or high or both"
		: "value value…: member, or *: member");
}

static void
skip_blanks(const char **p, const char *end)
{
	while (*p < end && (**p == ' ' || **p == '\t'))
		(*p)++;
}

/* Takes a value off the item: "in quotes", or up to a blank, a colon or, of a range, two dots.
 * False: there is none. */
static bool
value_take(const struct reader *r, const char **p, const char *end, struct buf *out)
{
	bool is_range = r->shard->function == TOPO_SHARD_RANGE;
	const char *from = *p;

	out->len = 0;
	if (from < end && *from == '"') {
		for (from++; from < end && (*from != '"' || from[1] == '"'); from++) {
			buf_add(out, from, 1);
			from += *from == '"';
		}
		*p = from < end ? from + 1 : end;
		return (true);
	}
	for (; from < end && strchr(" \t:\"", *from) == NULL &&
	       (!is_range || *from != '.' || from[1] != '.');
	     from++)
		buf_add(out, from, 1);
	*p = from;
	return (out->len > 0);
}

/* The value of the key's type; its bytes are kept with the snapshot. */
static bool
value_keep(struct reader *r, const struct buf *text, struct topo_shard_value *out)
{
	/* With a NUL behind, since it is kept as a string is. */
	uint8_t *bytes, room[17] = {0};
	const char *mem = text->mem != NULL ? (const char *)text->mem : "";

	if (!topo_shard_read(r->shard->type, mem, text->len, room, out)) {
		complain(r->complaint, r->word, "\"%.*s\" is no %s, allowed is one",
		    (int)text->len, mem, topo_shard_type_name(r->shard->type));
		return (false);
	}
	if (out->p == NULL)
		return (true);
	bytes = mem_alloc(out->len + 1);
	if (out->len > 0)
		memcpy(bytes, out->p, out->len);
	out->p = bytes;
	(void)topo_keep(r->topo, (char *)bytes);
	return (true);
}

static int
member_index(struct reader *r, const char *text, size_t len)
{
	struct topo_shard *s = r->shard;
	struct name_list names = {0}, allowed = {0};
	const struct topo_database *db = NULL;
	char *copy = mem_strn(text, len);
	size_t i = 0;

	list_read(&r->topo->strings, copy, &names);
	free(copy);
	if (names.count == 1)
		db = topo_member_find(r->virt, names.names[0]);
	while (i < s->member_count && s->members[i] != db)
		i++;
	if (names.count != 1) {
		item_wrong(r, "names no member");
	} else if (db != NULL && i < s->member_count) {
		free(names.names);
		return ((int)i);
	} else if (db != NULL && r->adds) {
		s->members = mem_realloc(s->members, (i + 1) * sizeof(*s->members));
		s->members[s->member_count++] = db;
		free(names.names);
		return ((int)i);
	} else {
		if (r->adds)
			names_of(r->virt->members, r->virt->member_count, &allowed);
		else
			names_of(s->members, s->member_count, &allowed);
		complain_unknown(
		    r->complaint, r->word, "member", names.names[0], &allowed);
	}
	free(names.names);
	return (-1);
}

static void
span_add(struct topo_shard *s, const struct topo_shard_span *span)
{
	if ((s->span_count & (s->span_count - 1)) == 0)
		s->spans = mem_realloc(s->spans,
		    (s->span_count == 0 ? 1 : s->span_count * 2) * sizeof(*s->spans));
	s->spans[s->span_count++] = *span;
}

/* low..high, before the colon. */
static void
range_read(struct reader *r, const char *p, const char *end, unsigned member)
{
	struct topo_shard_span span = {.member = member};
	struct buf text = {0};
	bool is_good = true;

	span.has_low = value_take(r, &p, end, &text);
	if (span.has_low)
		is_good = value_keep(r, &text, &span.low);
	skip_blanks(&p, end);
	if (end - p < 2 || p[0] != '.' || p[1] != '.') {
		item_wrong(r, "has no two dots");
		buf_free(&text);
		return;
	}
	p += 2;
	skip_blanks(&p, end);
	span.excludes_high = p < end && *p == '<';
	p += span.excludes_high;
	skip_blanks(&p, end);
	span.has_high = value_take(r, &p, end, &text);
	if (span.has_high)
		is_good = value_keep(r, &text, &span.high) && is_good;
	buf_free(&text);
	skip_blanks(&p, end);
	if (p < end || (span.excludes_high && !span.has_high))
		item_wrong(r, "is no range");
	else if (is_good && span.has_low && span.has_high &&
		 compare(&span.low, &span.high) > -(int)span.excludes_high)
		item_wrong(r, "has nothing in it");
	else if (is_good)
		span_add(r->shard, &span);
}

/* value value…, before the colon. */
static void
list_values_read(struct reader *r, const char *p, const char *end, unsigned member)
{
	struct topo_shard_span span = {
	    .has_low = true, .has_high = true, .member = member};
	struct buf text = {0};
	unsigned count = 0;

	while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (end - p == 1 && *p == '*') {
		if (r->shard->other >= 0)
			item_wrong(r, "stands there twice");
		r->shard->other = (int)member;
		return;
	}
	for (; p < end; skip_blanks(&p, end), count++) {
		if (!value_take(r, &p, end, &text))
			break;
		if (!value_keep(r, &text, &span.low))
			continue;
		span.high = span.low;
		span_add(r->shard, &span);
	}
	buf_free(&text);
	if (count == 0 || p < end)
		item_wrong(r, "is no list of values");
}

/* The colon outside quotes, or NULL. */
static const char *
colon_of(const char *p, size_t len)
{
	bool in_quotes = false;

	for (const char *end = p + len; p < end; p++) {
		in_quotes ^= *p == '"';
		if (*p == ':' && !in_quotes)
			return (p);
	}
	return (NULL);
}

static int
by_low(const void *a, const void *b)
{
	const struct topo_shard_span *one = a, *two = b;

	if (!one->has_low || !two->has_low)
		return ((int)one->has_low - (int)two->has_low);
	return (compare(&one->low, &two->low));
}

/* Whether a value may be in both; two is behind one. */
static bool
touches(const struct topo_shard_span *one, const struct topo_shard_span *two)
{
	if (!one->has_high || !two->has_low)
		return (true);
	return (compare(&one->high, &two->low) >= one->excludes_high);
}

static void
spans_order(struct reader *r)
{
	struct topo_shard *s = r->shard;

	if (s->span_count > 1)
		qsort(s->spans, s->span_count, sizeof(*s->spans), by_low);
	for (size_t i = 1; i < s->span_count; i++) {
		const struct topo_shard_value *v = &s->spans[i].low;

		if (!touches(&s->spans[i - 1], &s->spans[i]))
			continue;
		if (!s->spans[i].has_low)
			complain(r->complaint, r->word,
			    "two ranges have no lower end, allowed is one");
		else if (v->p == NULL)
			complain(r->complaint, r->word,
			    "%" PRId64 " stands there twice, allowed is once", v->number);
		else if (s->type == TOPO_SHARD_UUID)
			complain(r->complaint, r->word,
			    "a uuid stands there twice, allowed is once");
		else
			complain(r->complaint, r->word,
			    "\"%s\" stands there twice, allowed is once",
			    (const char *)v->p);
	}
}

void
spans_read(struct complaint *c, struct topo *t, const struct topo_virtual *v,
    struct topo_shard *s, const char *text, bool adds)
{
	struct reader r = {.complaint = c,
	    .word = s->function == TOPO_SHARD_RANGE ? "ranges" : "lists",
	    .topo = t,
	    .virt = v,
	    .shard = s,
	    .adds = adds,
	    .text = text};

	while (list_next(&r.text, &r.item, &r.item_len)) {
		const char *end = r.item + r.item_len,
			   *colon = colon_of(r.item, r.item_len);
		int member;

		if (colon == NULL) {
			item_wrong(&r, "has no colon");
			continue;
		}
		member = member_index(&r, colon + 1, (size_t)(end - colon - 1));
		if (member < 0)
			continue;
		if (s->function == TOPO_SHARD_RANGE)
			range_read(&r, r.item, colon, (unsigned)member);
		else
			list_values_read(&r, r.item, colon, (unsigned)member);
	}
	spans_order(&r);
}

/* ---- finding ---- */

static int
span_of(const struct topo_shard *s, const struct topo_shard_value *v)
{
	size_t low = 0, high = s->span_count;
	const struct topo_shard_span *span;
	int order;

	/* The last that does not begin behind it. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		span = &s->spans[middle];
		if (span->has_low && compare(&span->low, v) > 0)
			high = middle;
		else
			low = middle + 1;
	}
	if (low == 0)
		return (s->other);
	span = &s->spans[low - 1];
	order = span->has_high ? compare(v, &span->high) : -1;
	if (order > 0 || (order == 0 && span->excludes_high))
		return (s->other);
	return ((int)span->member);
}

int
topo_shard_place(const struct topo_shard *s, const struct topo_shard_value *v)
{
	int64_t rest;

	INVARIANT(s->member_count > 0);
	switch (s->function) {
	case TOPO_SHARD_MODULO:
		rest = v->number % (int64_t)s->member_count;
		return ((int)(rest < 0 ? rest + (int64_t)s->member_count : rest));
	case TOPO_SHARD_HASH:
		return ((int)(shard_hash(s->type, v) % s->member_count));
	case TOPO_SHARD_RANGE:
	case TOPO_SHARD_LIST:
		break;
	}
	return (span_of(s, v));
}

const char *
topo_shard_function_name(enum topo_shard_function function)
{
	static const char *const names[] = {
#define W(token, text) text,
	    WORDS_FUNCTION(W)
#undef W
	};

	INVARIANT((size_t)function < ARRAY_LEN(names));
	return (names[function]);
}

const char *
topo_shard_type_name(enum topo_shard_type type)
{
	static const char *const names[] = {
#define W(token, text) text,
	    WORDS_SHARD_TYPE(W)
#undef W
	};

	INVARIANT((size_t)type < ARRAY_LEN(names));
	return (names[type]);
}
