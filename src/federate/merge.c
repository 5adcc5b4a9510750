/*
 * Aggregates: one row from each database, made into the row that one database with all the rows
 * would answer.
 *
 *   count, sum   the sum of the sums, exactly; NULL where all are
 *   min, max     the value of one of the databases, passed on as it came
 *
 * The databases answer in the formats that the client asked for, so nothing is converted.
 */
#include "private.h"
#include "value.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TYPE_INT8    20
#define TYPE_NUMERIC 1700

static const char *const aggregate_names[] = {
    [SQL_AGG_NONE] = "a value",
    [SQL_AGG_COUNT] = "count",
    [SQL_AGG_SUM] = "sum",
    [SQL_AGG_MIN] = "min",
    [SQL_AGG_MAX] = "max",
};

/* A value in a row; p NULL: SQL NULL. */
struct cell {
	const uint8_t *p;
	size_t len;
};

/* A column of the merge. */
struct fold {
	struct federation *f;
	struct column column;
	enum sql_aggregate aggregate;
	const struct cell *cells; /* of the first leg */
	unsigned stride;          /* from one leg to the next */
};

static const struct cell *
fold_cell(const struct fold *d, unsigned leg)
{
	return (&d->cells[(size_t)leg * d->stride]);
}

/* ---- before it begins ---- */

static bool
refuse_type(struct federation *f, enum sql_aggregate a, const struct column *c)
{
	char type[TYPE_NAME_BYTES];
	struct buf detail = {0};

	buf_addf(&detail, "Column \"%s\" has type %s%s.", c->name,
	    type_name(c->type, type),
	    a == SQL_AGG_SUM
		? ""
		: ", whose order may differ between databases or is not known here");
	buf_add(&detail, "", 1);
	fed_refuse(f, FED_OURS, F_FEDERATE_INEXACT, (const char *)detail.mem,
	    "%s of type %s is not exact when merged", aggregate_names[a],
	    type_name(c->type, type));
	buf_free(&detail);
	return (false);
}

/* Dates are compared in their ISO form; in no other are they all told apart. */
static bool
style_check(struct federation *f, enum sql_aggregate a, const struct column *c)
{
	char type[TYPE_NAME_BYTES];

	for (unsigned i = 0; i < f->asked; i++) {
		const char *style = vars_get(f->legs[i].link->vars, "DateStyle");

		if (style == NULL || strncasecmp(style, "ISO", 3) == 0)
			continue;
		fed_refuse(f, FED_OURS, F_FEDERATE_INEXACT, "SET DateStyle TO ISO.",
		    "%s of type %s is merged only while DateStyle is ISO",
		    aggregate_names[a], type_name(c->type, type));
		return (false);
	}
	return (true);
}

static bool
column_check(struct federation *f, enum sql_aggregate a, const struct column *c)
{
	enum value_kind kind = value_kind_of(c->type);

	switch (a) {
	case SQL_AGG_COUNT:
		return (c->type == TYPE_INT8 || refuse_type(f, a, c));
	case SQL_AGG_SUM:
		return (c->type == TYPE_INT8 || c->type == TYPE_NUMERIC ||
			refuse_type(f, a, c));
	case SQL_AGG_MIN:
	case SQL_AGG_MAX:
		if (kind == VALUE_NONE)
			return (refuse_type(f, a, c));
		return (c->format != 0 || !value_is_styled(kind) || style_check(f, a, c));
	case SQL_AGG_NONE:
	default:
		return (refuse_type(f, SQL_AGG_NONE, c));
	}
}

bool
merge_check(struct federation *f)
{
	const struct sql_shape *shape = f->order.shape;
	const struct leg *first = &f->legs[0];
	const uint8_t *p = first->description.mem + 2;
	unsigned count = columns_count(first);
	struct column c;

	if (first->description.len == 0 || shape->column_count != count) {
		fed_refuse(f, FED_OURS, F_FEDERATE_ODD, NULL,
		    "database \"%s\" answers %u columns to %u aggregates", first->member,
		    count, shape->column_count);
		return (false);
	}
	for (unsigned i = 0; i < count; i++) {
		p = column_read(p, &c);
		if (!column_check(f, shape->columns[i], &c))
			return (false);
	}
	return (true);
}

/* ---- one column ---- */

static bool
odd_value(const struct fold *d, unsigned leg)
{
	fed_refuse(d->f, FED_OURS, F_FEDERATE_ODD, NULL,
	    "database \"%s\" answered a %s that cannot be read: column \"%s\"",
	    d->f->legs[leg].member, aggregate_names[d->aggregate], d->column.name);
	return (false);
}

static void
put_value(struct buf *row, const void *p, size_t len)
{
	uint8_t head[4];

	proto_put32(head, (uint32_t)len);
	buf_add(row, head, sizeof(head));
	buf_add(row, p, len);
}

static void
put_null(struct buf *row)
{
	static const uint8_t null[] = {0xff, 0xff, 0xff, 0xff};

	buf_add(row, null, sizeof(null));
}

/* The sum may leave the range on the way and come back into it. */
static bool
sum_integers(const struct fold *d, struct buf *row)
{
	__int128 sum = 0;
	unsigned seen = 0;
	uint8_t binary[8];
	struct value v;
	struct buf text = {0};

	for (unsigned i = 0; i < d->f->asked; i++) {
		const struct cell *c = fold_cell(d, i);

		if (c->p == NULL && d->aggregate == SQL_AGG_SUM)
			continue;
		if (c->p == NULL || value_read(&v, VALUE_INTEGER, c->p, c->len,
					d->column.format == 1) != 0)
			return (odd_value(d, i));
		sum += v.integer;
		seen++;
	}
	if (sum < INT64_MIN || sum > INT64_MAX) {
		fed_refuse(
		    d->f, FED_OURS, F_FEDERATE_BIGINT, NULL, "bigint out of range");
		return (false);
	}
	if (seen == 0)
		put_null(row);
	else if (d->column.format == 1) {
		proto_put32(binary, (uint32_t)((uint64_t)sum >> 32));
		proto_put32(binary + 4, (uint32_t)(uint64_t)sum);
		put_value(row, binary, sizeof(binary));
	} else {
		buf_addf(&text, "%lld", (long long)sum);
		put_value(row, text.mem, text.len);
	}
	buf_free(&text);
	return (true);
}

static bool
sum_numerics(const struct fold *d, struct buf *row)
{
	bool is_binary = d->column.format == 1;
	struct number sum = {.kind = NUMBER_FINITE}, n;
	struct buf out = {0};
	unsigned seen = 0;
	bool ok = true;

	for (unsigned i = 0; ok && i < d->f->asked; i++) {
		const struct cell *c = fold_cell(d, i);

		if (c->p == NULL)
			continue;
		seen++;
		if (number_read(&n, c->p, c->len, is_binary) != 0) {
			ok = odd_value(d, i);
			continue;
		}
		if (number_add(&sum, &n) != 0) {
			fed_refuse(d->f, FED_OURS, F_FEDERATE_OVERFLOW, NULL,
			    "value overflows numeric format");
			ok = false;
		}
		number_free(&n);
	}
	if (ok && seen == 0)
		put_null(row);
	else if (ok) {
		number_write(&sum, is_binary, &out);
		put_value(row, out.mem, out.len);
	}
	number_free(&sum);
	buf_free(&out);
	return (ok);
}

/* Of equal values the last one stays, as PostgreSQL's own functions have it. */
static bool
pick(const struct fold *d, struct buf *row)
{
	enum value_kind kind = value_kind_of(d->column.type);
	int wanted = d->aggregate == SQL_AGG_MIN ? 1 : -1;
	const struct cell *best = NULL;
	struct value v, best_v = {.kind = VALUE_NONE};
	bool ok = true;

	for (unsigned i = 0; ok && i < d->f->asked; i++) {
		const struct cell *c = fold_cell(d, i);

		if (c->p == NULL)
			continue;
		if (value_read(&v, kind, c->p, c->len, d->column.format == 1) != 0) {
			ok = odd_value(d, i);
			continue;
		}
		if (best != NULL && value_compare(&best_v, &v) * wanted < 0) {
			value_free(&v);
			continue;
		}
		value_free(&best_v);
		best_v = v;
		best = c;
	}
	value_free(&best_v);
	if (ok && best == NULL)
		put_null(row);
	else if (ok)
		put_value(row, best->p, best->len);
	return (ok);
}

static bool
fold_column(const struct fold *d, struct buf *row)
{
	if (d->aggregate == SQL_AGG_MIN || d->aggregate == SQL_AGG_MAX)
		return (pick(d, row));
	return (
	    d->column.type == TYPE_NUMERIC ? sum_numerics(d, row) : sum_integers(d, row));
}

/* ---- the row ---- */

/* The values of a leg's row; false when they do not fill it exactly. */
static bool
cells_read(const struct leg *leg, struct cell *cells, unsigned count)
{
	const uint8_t *p = leg->row.mem + 2, *end = leg->row.mem + leg->row.len;

	if (leg->row.len < 2 || proto_get16(leg->row.mem) != count)
		return (false);
	for (unsigned i = 0; i < count; i++) {
		uint32_t len;

		if (end - p < 4)
			return (false);
		len = proto_get32(p);
		p += 4;
		if (len == UINT32_MAX)
			continue;
		if (len > (size_t)(end - p))
			return (false);
		cells[i] = (struct cell){.p = p, .len = len};
		p += len;
	}
	return (p == end);
}

/* One row from each, and it can be read. */
static bool
rows_check(struct federation *f, struct cell *cells, unsigned count)
{
	for (unsigned i = 0; i < f->asked; i++) {
		const struct leg *leg = &f->legs[i];

		if (leg->rows == 1 && cells_read(leg, cells + (size_t)i * count, count))
			continue;
		fed_refuse(f, FED_OURS, F_FEDERATE_ODD, NULL,
		    leg->rows == 1 ? "database \"%s\" answered a malformed row"
				   : "database \"%s\" answered not one row to aggregates",
		    leg->member);
		return (false);
	}
	return (true);
}

bool
merge_put(struct federation *f)
{
	const uint8_t *p = f->legs[0].description.mem + 2;
	unsigned count = columns_count(&f->legs[0]);
	struct cell *cells = mem_alloc(((size_t)count * f->asked + 1) * sizeof(*cells));
	uint8_t head[2] = {(uint8_t)(count >> 8), (uint8_t)count};
	struct fold d = {.f = f, .stride = count};
	struct buf row = {0}, out = {0};
	bool ok = rows_check(f, cells, count);

	buf_add(&row, head, sizeof(head));
	for (unsigned i = 0; ok && i < count; i++) {
		p = column_read(p, &d.column);
		d.aggregate = f->order.shape->columns[i];
		d.cells = cells + i;
		ok = fold_column(&d, &row);
	}
	if (ok) {
		proto_message(&out, 'D', row.mem, row.len);
		fed_put(f, out.mem, out.len);
	}
	buf_free(&row);
	buf_free(&out);
	free(cells);
	return (ok);
}
