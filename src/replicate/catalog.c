/*
 * What source and target say of the tables of a job, and whether they fit: which columns are
 * copied, by which key rows are the same, in which order tables follow each other.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- asking ---- */

/* Order, schema, table, whether it is one, estimate of rows, whether deletes cascade; column,
 * type, not null, needed in every insert, generated, sequence. A row for each column; a table
 * without columns has one. */
const char *const catalog_columns_sql =
    "SELECT x.ord, n.nspname, c.relname, c.relkind IN ('r', 'p'),"
    " greatest(c.reltuples, -1)::bigint,"
    " EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.confrelid = c.oid"
    " AND f.contype = 'f' AND f.confdeltype NOT IN ('a', 'r')),"
    " a.attname, pg_catalog.format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype"
    " ELSE a.atttypid END, NULL), a.attnotnull, a.attnotnull AND NOT a.atthasdef"
    " AND a.attidentity = '' AND t.typdefault IS NULL, a.attgenerated <> '', s.name"
    " FROM unnest($1::text[]) WITH ORDINALITY x(asked, ord)"
    " JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(x.asked)"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
    " AND NOT a.attisdropped LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
    " LEFT JOIN LATERAL (SELECT quote_ident(sn.nspname) || '.' || quote_ident(sc.relname)"
    " FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class sc ON sc.oid = d.objid"
    " JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace"
    " JOIN pg_catalog.pg_sequence q ON q.seqrelid = sc.oid AND q.seqincrement > 0"
    " WHERE d.classid = 'pg_catalog.pg_class'::regclass"
    " AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid"
    " AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')"
    " AND has_sequence_privilege(sc.oid, 'SELECT')"
    " AND has_sequence_privilege(sc.oid, 'UPDATE') LIMIT 1) s(name) ON true"
    " ORDER BY x.ord, a.attnum";
enum {
	COL_ORD,
	COL_SCHEMA,
	COL_TABLE,
	COL_IS_TABLE,
	COL_ROWS,
	COL_CASCADES,
	COL_NAME,
	COL_TYPE,
	COL_NOT_NULL,
	COL_NEEDED,
	COL_GENERATED,
	COL_SEQUENCE
};

/* Order, index, primary, usable as a key, place in the index, column. */
const char *const catalog_keys_sql =
    "SELECT x.ord, i.indexrelid, i.indisprimary, i.indisunique AND i.indimmediate"
    " AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (SELECT FROM"
    " pg_catalog.pg_attribute o WHERE o.attrelid = i.indrelid AND NOT o.attnotnull"
    " AND o.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])), k.n, a.attname"
    " FROM unnest($1::text[]) WITH ORDINALITY x(asked, ord)"
    " JOIN pg_catalog.pg_index i ON i.indrelid = pg_catalog.to_regclass(x.asked)"
    " AND i.indisvalid CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)"
    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
    " WHERE k.n <= i.indnkeyatts ORDER BY x.ord, i.indisprimary DESC, i.indexrelid, k.n";
enum { KEY_ORD, KEY_INDEX, KEY_PRIMARY, KEY_USABLE, KEY_PLACE, KEY_COLUMN };

/* Child and parent, by their order. */
const char *const catalog_order_sql =
    "SELECT DISTINCT c.ord, p.ord FROM pg_catalog.pg_constraint f"
    " JOIN unnest($1::text[]) WITH ORDINALITY c(asked, ord)"
    " ON f.conrelid = pg_catalog.to_regclass(c.asked)"
    " JOIN unnest($1::text[]) WITH ORDINALITY p(asked, ord)"
    " ON f.confrelid = pg_catalog.to_regclass(p.asked)"
    " WHERE f.contype = 'f' AND c.ord <> p.ord ORDER BY 1, 2";

static const char *
value(const PGresult *r, int row, int column)
{
	return (PQgetisnull(r, row, column) ? NULL : PQgetvalue(r, row, column));
}

static char *
copied(const PGresult *r, int row, int column)
{
	const char *v = value(r, row, column);

	return (v != NULL ? mem_str(v) : NULL);
}

static bool
is_true(const PGresult *r, int row, int column)
{
	return (PQgetvalue(r, row, column)[0] == 't');
}

/* What a server says in a place that counts from 1; NULL: no server says that. */
static struct relation *
relation_at(struct copy *copies, size_t count, bool of_target, const char *ord)
{
	unsigned long n = strtoul(ord, NULL, 10);

	if (n < 1 || n > count)
		return (NULL);
	return (of_target ? &copies[n - 1].target : &copies[n - 1].source);
}

static void
relation_name(struct relation *rel, const PGresult *r, int row)
{
	struct buf b = {0};

	rel->schema = copied(r, row, COL_SCHEMA);
	rel->name = copied(r, row, COL_TABLE);
	rel->is_no_table = !is_true(r, row, COL_IS_TABLE);
	rel->rows_estimate = strtoll(PQgetvalue(r, row, COL_ROWS), NULL, 10);
	rel->cascades = is_true(r, row, COL_CASCADES);
	sql_name(&b, rel->schema);
	buf_addstr(&b, ".");
	sql_name(&b, rel->name);
	buf_add(&b, "", 1);
	rel->sql = (char *)b.mem;
}

void
catalog_take_columns(struct copy *copies, size_t count, bool of_target, const PGresult *r)
{
	for (int row = 0; row < PQntuples(r); row++) {
		struct relation *rel =
		    relation_at(copies, count, of_target, PQgetvalue(r, row, COL_ORD));
		struct column *c;

		if (rel == NULL)
			continue;
		if (rel->name == NULL)
			relation_name(rel, r, row);
		if (value(r, row, COL_NAME) == NULL)
			continue;
		rel->columns = mem_realloc(
		    rel->columns, (rel->column_count + 1) * sizeof(*rel->columns));
		c = &rel->columns[rel->column_count++];
		c->name = copied(r, row, COL_NAME);
		c->type = copied(r, row, COL_TYPE);
		c->is_not_null = is_true(r, row, COL_NOT_NULL);
		c->is_needed = is_true(r, row, COL_NEEDED);
		c->is_generated = is_true(r, row, COL_GENERATED);
		c->sequence = copied(r, row, COL_SEQUENCE);
	}
}

void
catalog_take_keys(struct copy *copies, size_t count, bool of_target, const PGresult *r)
{
	for (int row = 0; row < PQntuples(r); row++) {
		struct relation *rel =
		    relation_at(copies, count, of_target, PQgetvalue(r, row, KEY_ORD));
		const char *name = value(r, row, KEY_COLUMN);
		bool is_first = strcmp(PQgetvalue(r, row, KEY_PLACE), "1") == 0;
		struct unique *u;

		if (rel == NULL || name == NULL)
			continue;
		if (is_first)
			names_add(&rel->leading, name, strlen(name));
		if (!is_true(r, row, KEY_USABLE))
			continue;
		if (is_first || rel->unique_count == 0) {
			rel->uniques = mem_realloc(rel->uniques,
			    (rel->unique_count + 1) * sizeof(*rel->uniques));
			u = &rel->uniques[rel->unique_count++];
			*u = (struct unique){.is_primary = is_true(r, row, KEY_PRIMARY)};
		}
		u = &rel->uniques[rel->unique_count - 1];
		names_add(&u->columns, name, strlen(name));
	}
}

void
catalog_take_order(size_t *order, size_t count, const PGresult *r)
{
	bool *is_placed = mem_alloc(count * sizeof(*is_placed) + 1);
	bool is_forced = false;
	size_t placed = 0;

	while (placed < count) {
		size_t before = placed;

		for (size_t i = 0; i < count; i++) {
			bool waits = is_placed[i];

			for (int row = 0; row < PQntuples(r) && !waits && !is_forced;
			     row++) {
				size_t child = strtoul(PQgetvalue(r, row, 0), NULL, 10);
				size_t parent = strtoul(PQgetvalue(r, row, 1), NULL, 10);

				waits = child == i + 1 && parent >= 1 &&
					parent <= count && !is_placed[parent - 1];
			}
			if (waits)
				continue;
			is_placed[i] = true;
			order[placed++] = i;
			if (is_forced)
				break;
		}
		/* Tables that refer to each other in a ring: the first of them goes first. */
		is_forced = placed == before;
	}
	free(is_placed);
}

/* ---- judging ---- */

void
complaint_set(
    struct complaint *c, const char *sqlstate, const char *hint, const char *fmt, ...)
{
	char message[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	complaint_free(c);
	(void)text_copy(c->sqlstate, sizeof(c->sqlstate), sqlstate);
	c->message = mem_str(message);
	c->hint = hint != NULL ? mem_str(hint) : NULL;
}

void
complaint_free(struct complaint *c)
{
	free(c->message);
	free(c->hint);
	*c = (struct complaint){0};
}

const struct column *
relation_column(const struct relation *rel, const char *name)
{
	for (size_t i = 0; i < rel->column_count; i++)
		if (strcmp(rel->columns[i].name, name) == 0)
			return (&rel->columns[i]);
	return (NULL);
}

static bool
names_are_same_set(const struct names *a, const struct names *b)
{
	for (size_t i = 0; i < a->count; i++)
		if (!names_have(b, a->v[i]))
			return (false);
	return (a->count == b->count);
}

static bool
names_are_within(const struct names *a, const struct names *all)
{
	for (size_t i = 0; i < a->count; i++)
		if (!names_have(all, a->v[i]))
			return (false);
	return (true);
}

/* The columns, or what is missing. What the target generates it makes by itself. */
static bool
match_columns(
    struct copy *c, const char *source, const char *target, struct complaint *why)
{
	for (size_t i = 0; i < c->source.column_count; i++) {
		const struct column *from = &c->source.columns[i];
		const struct column *to = relation_column(&c->target, from->name);

		if (to == NULL) {
			complaint_set(why, "42703",
			    "Add the column to the target, or drop it from the source.",
			    "column \"%s\" of table \"%s\" is missing in database \"%s\"",
			    from->name, c->target.name, target);
			return (false);
		}
		if (!to->is_generated)
			names_add(&c->columns, from->name, strlen(from->name));
	}
	for (size_t i = 0; i < c->target.column_count; i++) {
		const struct column *to = &c->target.columns[i];

		if (to->is_generated || relation_column(&c->source, to->name) != NULL)
			continue;
		if (to->is_needed) {
			complaint_set(why, "23502",
			    "Give it a default, or let it be null.",
			    "column \"%s\" of table \"%s\" of database \"%s\" needs a value, and database \"%s\" does not have it",
			    to->name, c->target.name, target, source);
			return (false);
		}
		names_add(&c->extra, to->name, strlen(to->name));
	}
	if (c->columns.count > 0)
		return (true);
	complaint_set(why, "42P16", NULL,
	    "table \"%s\" of database \"%s\" has no columns to copy", c->target.name,
	    target);
	return (false);
}

static bool
has_unique(const struct relation *rel, const struct names *columns)
{
	for (size_t i = 0; i < rel->unique_count; i++)
		if (names_are_same_set(&rel->uniques[i].columns, columns))
			return (true);
	return (false);
}

/* The key that both have; of several the source's first. */
static bool
match_key(struct copy *c, const char *source, const char *target, bool is_full,
    struct complaint *why)
{
	const struct relation *lacks = &c->target;
	const char *database = target;

	for (size_t i = 0; i < c->source.unique_count; i++) {
		const struct names *key = &c->source.uniques[i].columns;

		if (!has_unique(&c->target, key) || !names_are_within(key, &c->columns))
			continue;
		for (size_t n = 0; n < key->count; n++)
			names_add(&c->key, key->v[n], strlen(key->v[n]));
		return (true);
	}
	if (is_full)
		return (true);
	if (c->source.unique_count == 0) {
		lacks = &c->source;
		database = source;
	}
	if (lacks->unique_count > 0)
		complaint_set(why, "42P16",
		    "Give the table in both databases a primary key over the same columns.",
		    "table \"%s\" has no key that databases \"%s\" and \"%s\" share",
		    lacks->name, source, target);
	else
		complaint_set(why, "42P16",
		    "Add a primary key, or a unique index over columns that are NOT NULL; or use MODE full.",
		    "table \"%s\" of database \"%s\" has no primary or unique key",
		    lacks->name, database);
	return (false);
}

static bool
match_sync_key(struct copy *c, const char *source, struct complaint *why)
{
	const struct column *key = relation_column(&c->source, c->sync_key);

	if (key == NULL) {
		complaint_set(why, "42703", NULL,
		    "sync key \"%s\" is no column of table \"%s\" of database \"%s\"",
		    c->sync_key, c->source.name, source);
		return (false);
	}
	if (!key->is_not_null) {
		complaint_set(why, "42P16",
		    "Rows without a value would never be copied: declare the column NOT NULL.",
		    "sync key \"%s\" of table \"%s\" may be null", c->sync_key,
		    c->source.name);
		return (false);
	}
	c->kind = key_kind(key->type);
	return (true);
}

bool
catalog_match(struct copy *c, const char *source, const char *target, bool is_full,
    struct complaint *why)
{
	if (c->source.name == NULL || c->target.name == NULL) {
		complaint_set(why, "42P01", NULL,
		    "table %s does not exist in database \"%s\"", c->asked,
		    c->source.name == NULL ? source : target);
		return (false);
	}
	if (c->source.is_no_table || c->target.is_no_table) {
		complaint_set(why, "42809", "Views and foreign tables cannot be copied.",
		    "%s is no table in database \"%s\"", c->asked,
		    c->source.is_no_table ? source : target);
		return (false);
	}
	return (match_columns(c, source, target, why) &&
		(c->sync_key == NULL || match_sync_key(c, source, why)) &&
		match_key(c, source, target, is_full, why));
}

/* Which of the pairs of types the target would not take: an assignment needs a cast, but
 * everything can become text. Answers table, column, type, type. */
bool
catalog_types_sql(const struct copy *copies, size_t count, struct buf *sql)
{
	bool any = false;

	buf_addstr(sql, "SELECT v.t, v.c, v.f, v.i FROM (VALUES ");
	for (size_t i = 0; i < count; i++) {
		for (size_t n = 0; n < copies[i].columns.count; n++) {
			const char *name = copies[i].columns.v[n];
			const struct column *from =
			    relation_column(&copies[i].source, name);
			const struct column *to =
			    relation_column(&copies[i].target, name);

			if (strcmp(from->type, to->type) == 0)
				continue;
			buf_addstr(sql, any ? ", (" : "(");
			sql_text(sql, copies[i].target.name);
			buf_addstr(sql, ", ");
			sql_text(sql, name);
			buf_addstr(sql, ", ");
			sql_text(sql, from->type);
			buf_addstr(sql, ", ");
			sql_text(sql, to->type);
			buf_addstr(sql, ")");
			any = true;
		}
	}
	buf_addstr(sql,
	    ") v(t, c, f, i) JOIN pg_catalog.pg_type t ON t.oid = to_regtype(v.i)"
	    " WHERE t.typcategory <> 'S' AND NOT EXISTS (SELECT FROM pg_catalog.pg_cast k"
	    " WHERE k.castsource = to_regtype(v.f) AND k.casttarget = t.oid"
	    " AND k.castcontext IN ('a', 'i')) LIMIT 1");
	return (any);
}

/* ---- what deserves a word ---- */

static bool
begins(const char *name, const char *with)
{
	return (strncmp(name, with, strlen(with)) == 0);
}

void
catalog_notices(const struct copy *c, const char *source, struct buf *out)
{
	const char *key = c->sync_key, *table = c->source.name;

	if (key == NULL)
		return;
	if (begins(key, "created") || begins(key, "inserted"))
		buf_addf(out,
		    "sync key \"%s\" of table \"%s\": a row that is updated keeps its value, so updates are not copied\n",
		    key, table);
	if (!names_have(&c->source.leading, key))
		buf_addf(out,
		    "no index of table \"%s\" of database \"%s\" starts with \"%s\": each run reads the whole table\n",
		    table, source, key);
	if (c->kind == KEY_TIME)
		buf_addf(out,
		    "sync key \"%s\" of table \"%s\" has no time zone: rows written while clocks are set back may be missed\n",
		    key, table);
	if (c->kind == KEY_OTHER || c->kind == KEY_DATE)
		buf_addf(out,
		    "sync key \"%s\" of table \"%s\" is no time: only rows whose key is at least the last one copied are copied\n",
		    key, table);
}

/* ---- letting go ---- */

void
relation_free(struct relation *rel)
{
	for (size_t i = 0; i < rel->column_count; i++) {
		free(rel->columns[i].name);
		free(rel->columns[i].type);
		free(rel->columns[i].sequence);
	}
	for (size_t i = 0; i < rel->unique_count; i++)
		names_free(&rel->uniques[i].columns);
	names_free(&rel->leading);
	free(rel->columns);
	free(rel->uniques);
	free(rel->schema);
	free(rel->name);
	free(rel->sql);
	*rel = (struct relation){0};
}

void
copy_free(struct copy *c)
{
	relation_free(&c->source);
	relation_free(&c->target);
	names_free(&c->columns);
	names_free(&c->key);
	names_free(&c->extra);
	free(c->watermark);
	free(c->pending);
	free(c->newest);
	free(c->next);
	free(c->next_pending);
	*c = (struct copy){0};
}
