/*
 * The columns of the answers: whether the databases agree on them, and what the client is told.
 *
 * RowDescription (protocol 3, Message Formats): int16 count; per column its name, int32 table,
 * int16 attribute, int32 type, int16 size of the type, int32 type modifier, int16 format.
 */
#include "private.h"
#include <stdio.h>
#include <string.h>

#define COLUMN_TAIL 18 /* bytes behind the NUL of the name */

static const char tag_column[] = "database";

/* As format_type() calls them; pg_type.dat. */
static const struct {
	uint32_t oid;
	const char *name;
} type_names[] = {
    {16, "boolean"},
    {17, "bytea"},
    {18, "\"char\""},
    {19, "name"},
    {20, "bigint"},
    {21, "smallint"},
    {23, "integer"},
    {25, "text"},
    {26, "oid"},
    {28, "xid"},
    {114, "json"},
    {142, "xml"},
    {600, "point"},
    {650, "cidr"},
    {700, "real"},
    {701, "double precision"},
    {705, "unknown"},
    {790, "money"},
    {829, "macaddr"},
    {869, "inet"},
    {1007, "integer[]"},
    {1009, "text[]"},
    {1016, "bigint[]"},
    {1042, "character"},
    {1043, "character varying"},
    {1082, "date"},
    {1083, "time without time zone"},
    {1114, "timestamp without time zone"},
    {1184, "timestamp with time zone"},
    {1186, "interval"},
    {1266, "time with time zone"},
    {1560, "bit"},
    {1562, "bit varying"},
    {1700, "numeric"},
    {2249, "record"},
    {2950, "uuid"},
    {3220, "pg_lsn"},
    {3802, "jsonb"},
    {5069, "xid8"},
};

const char *
type_name(uint32_t oid, char out[TYPE_NAME_BYTES])
{
	for (size_t i = 0; i < ARRAY_LEN(type_names); i++)
		if (type_names[i].oid == oid)
			return (type_names[i].name);
	snprintf(out, TYPE_NAME_BYTES, "OID %u", oid);
	return (out);
}

int
columns_check(const uint8_t *body, size_t len)
{
	const uint8_t *p = body + 2, *end = body + len;
	unsigned count;

	if (len < 2)
		return (F_PROTO_MESSAGE);
	count = proto_get16(body);
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *nul = memchr(p, '\0', (size_t)(end - p));

		if (nul == NULL || end - nul < 1 + COLUMN_TAIL)
			return (F_PROTO_MESSAGE);
		p = nul + 1 + COLUMN_TAIL;
	}
	return (p == end ? (int)count : F_PROTO_MESSAGE);
}

const uint8_t *
column_read(const uint8_t *p, struct column *out)
{
	const uint8_t *tail;

	out->name = (const char *)p;
	tail = p + strlen(out->name) + 1;
	out->type = proto_get32(tail + 6);
	out->size = proto_get16(tail + 10);
	out->modifier = proto_get32(tail + 12);
	out->format = proto_get16(tail + 16);
	return (tail + COLUMN_TAIL);
}

unsigned
columns_count(const struct leg *leg)
{
	return (leg->description.len > 0 ? proto_get16(leg->description.mem) : 0);
}

/* ---- agreeing ---- */

static void
differ(struct federation *f, const struct leg *a, const struct leg *b, const char *detail)
{
	fed_refuse(f, FED_OURS, F_FEDERATE_COLUMNS, detail,
	    "databases \"%s\" and \"%s\" answer different columns", a->member, b->member);
}

/* What differs in the i-th column of two answers. */
static void
differ_in(struct federation *f, const struct leg *a, const struct leg *b, unsigned i,
    const struct column *x, const struct column *y)
{
	char x_type[TYPE_NAME_BYTES], y_type[TYPE_NAME_BYTES];
	struct buf detail = {0};

	buf_addf(&detail, "Column %u is \"%s\" (%s) in \"%s\" and \"%s\" (%s) in \"%s\".",
	    i + 1, x->name, type_name(x->type, x_type), a->member, y->name,
	    type_name(y->type, y_type), b->member);
	buf_add(&detail, "", 1);
	differ(f, a, b, (const char *)detail.mem);
	buf_free(&detail);
}

static bool
legs_agree(struct federation *f, const struct leg *a, const struct leg *b)
{
	const uint8_t *p = a->description.mem + 2, *q = b->description.mem + 2;
	struct column x, y;
	char detail[128];

	if ((a->description.len == 0) != (b->description.len == 0)) {
		differ(f, a, b, "One of them answers no rows.");
		return (false);
	}
	if (columns_count(a) != columns_count(b)) {
		snprintf(detail, sizeof(detail), "They answer %u and %u columns.",
		    columns_count(a), columns_count(b));
		differ(f, a, b, detail);
		return (false);
	}
	for (unsigned i = 0; i < columns_count(a); i++) {
		p = column_read(p, &x);
		q = column_read(q, &y);
		if (x.type != y.type || strcmp(x.name, y.name) != 0) {
			differ_in(f, a, b, i, &x, &y);
			return (false);
		}
	}
	return (true);
}

/* With a column in front the databases were not asked for all the formats; for a description
 * for none. */
static bool
formats_agree(struct federation *f)
{
	bool is_tagged = f->order.how == ROUTE_TAG;
	unsigned shown = columns_count(&f->legs[0]) + is_tagged,
		 given = f->order.format_count;

	if ((!is_tagged && !f->order.describes_only) || f->legs[0].description.len == 0 ||
	    given == 0)
		return (true);
	if (given > 1 && given != shown) {
		fed_refuse(f, FED_OURS, F_FEDERATE_FORMATS, NULL,
		    "bind message has %u result formats but query has %u columns", given,
		    shown);
		return (false);
	}
	if (f->order.formats[0] > 1) {
		fed_refuse(f, FED_OURS, F_FEDERATE_FORMAT, NULL,
		    "unsupported format code: %u", f->order.formats[0]);
		return (false);
	}
	return (true);
}

bool
columns_agree(struct federation *f)
{
	for (unsigned i = 1; i < f->asked; i++)
		if (!legs_agree(f, &f->legs[0], &f->legs[i]))
			return (false);
	return (formats_agree(f));
}

/* ---- telling ---- */

/* The format of the i-th column shown. */
static uint16_t
format_shown(const struct federation *f, unsigned i, uint16_t told)
{
	const struct federate_order *o = &f->order;

	if (o->format_count == 0)
		return (o->describes_only ? 0 : told);
	return (o->formats[o->format_count == 1 ? 0 : i]);
}

static void
put_column(struct buf *out, const struct column *c)
{
	uint8_t tail[COLUMN_TAIL] = {0}; /* of no table: there are several */

	proto_put32(tail + 6, c->type);
	tail[10] = (uint8_t)(c->size >> 8);
	tail[11] = (uint8_t)c->size;
	proto_put32(tail + 12, c->modifier);
	tail[16] = (uint8_t)(c->format >> 8);
	tail[17] = (uint8_t)c->format;
	buf_add(out, c->name, strlen(c->name) + 1);
	buf_add(out, tail, sizeof(tail));
}

/* Where the databases declare different lengths the union has none, as with UNION. */
static uint32_t
common_modifier(const struct federation *f, unsigned column, uint32_t modifier)
{
	for (unsigned i = 1; i < f->asked; i++) {
		const uint8_t *p = f->legs[i].description.mem + 2;
		struct column c = {0};

		for (unsigned k = 0; k <= column; k++)
			p = column_read(p, &c);
		if (c.modifier != modifier)
			return (UINT32_MAX);
	}
	return (modifier);
}

void
columns_put(struct federation *f)
{
	struct column c = {.name = tag_column,
	    .type = 25,
	    .size = UINT16_MAX,
	    .modifier = UINT32_MAX,
	    .format = format_shown(f, 0, 0)};
	bool is_tagged = f->order.how == ROUTE_TAG;
	unsigned count = columns_count(&f->legs[0]), shown = count + is_tagged;
	const uint8_t *p = f->legs[0].description.mem + 2;
	uint8_t head[2] = {(uint8_t)(shown >> 8), (uint8_t)shown};
	struct buf body = {0}, out = {0};

	buf_add(&body, head, sizeof(head));
	if (is_tagged)
		put_column(&body, &c);
	for (unsigned i = 0; i < count; i++) {
		p = column_read(p, &c);
		c.modifier = common_modifier(f, i, c.modifier);
		c.format = format_shown(f, i + is_tagged, c.format);
		put_column(&body, &c);
	}
	proto_message(&out, 'T', body.mem, body.len);
	fed_put(f, out.mem, out.len);
	buf_free(&body);
	buf_free(&out);
}
