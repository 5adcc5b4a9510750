/*
 * One database is asked: a fingerprint of its catalog first, and the catalog only when that is
 * another one than before.
 *
 *   open -> BEGIN -> fingerprint, search path -> relations -> reads of views -> functions
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_US 10000000
/* DDL may hold locks for as long as it likes: what waits for them gives up. */
#define ASK_US  30000000
#define STR(x)  #x
#define TEXT(x) STR(x)
#define LIMIT   " LIMIT " TEXT(CATALOG_ROWS_MAX)

#define OF_USERS                                                                         \
	" c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'"            \
	" AND c.oid >= 16384"
/* How many rows, and which: what has changed has another xmin. */
#define ROWS_OF(columns, from)                                                           \
	"(SELECT concat(count(*), ' ', sum(hashtext(concat_ws(' ', " columns             \
	")))) FROM pg_catalog." from ")"

static const char begin_sql[] =
    "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";

/* Fingerprint, schema: a row for each schema of the search path, at least one. */
const char ask_fingerprint_sql[] =
    "SELECT md5(concat_ws(' ', current_schemas(false)::text, " //
    ROWS_OF("c.oid, c.xmin", "pg_class c WHERE" OF_USERS) ", " ROWS_OF(
	"a.attrelid, a.attnum, a.xmin",
	"pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
	" WHERE a.attnum > 0 AND" OF_USERS) ", "                              //
    ROWS_OF("p.oid, p.xmin", "pg_proc p WHERE p.oid >= 16384") ", "           //
    ROWS_OF("n.oid, n.xmin", "pg_namespace n WHERE n.nspname !~ '^pg_'") ", " //
    ROWS_OF("w.oid, w.xmin",
	"pg_rewrite w WHERE w.oid >= 16384") ")), s.name"
					     " FROM (SELECT) x LEFT JOIN unnest(current_schemas(false)) WITH ORDINALITY s(name, n)"
					     " ON true ORDER BY s.n";

/* OID, schema, name, whether it is a view, whether a simple one (PostgreSQL would update it by
 * itself), its columns: of views those are plain that are not computed and not renamed; and
 * whether a view calls a function of PostgreSQL's own that is for a primary alone. */
const char ask_relations_sql[] =
    "SELECT c.oid, n.nspname, c.relname, c.relkind = 'v', c.relkind = 'v'"
    " AND pg_relation_is_updatable(c.oid, false) & 16 <> 0 AND NOT EXISTS (SELECT"
    " FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1'),"
    " (SELECT string_agg(CASE WHEN c.relkind = 'v' AND (d.def IS NULL"
    " OR NOT pg_column_is_updatable(c.oid, a.attnum, false)"
    " OR strpos(d.def, ' AS ' || quote_ident(a.attname) || ',') > 0"
    " OR strpos(d.def, ' AS ' || quote_ident(a.attname) || E'\\n') > 0"
    " OR strpos(d.def, ' AS ' || quote_ident(a.attname) || ';') > 0)"
    " THEN '-' ELSE '+' END || replace(a.attname, E'\\n', ' '), E'\\n' ORDER BY a.attnum)"
    " FROM pg_catalog.pg_attribute a"
    " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),"
    " coalesce(d.def ~ '\\m(nextval|setval|set_config|pg_notify|pg_(try_)?advisory\\w*|lo_\\w+"
    "|txid_current|pg_current_xact_id)\\(', false)"
    " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " CROSS JOIN LATERAL (SELECT CASE WHEN c.relkind = 'v'"
    " THEN pg_get_viewdef(c.oid) END) d(def) WHERE" OF_USERS
    " AND n.nspname <> 'information_schema' ORDER BY c.oid" LIMIT;

/* View, relation; without a relation: the view calls a volatile function. */
static const char reads_sql[] =
    "SELECT DISTINCT w.ev_class, c.oid FROM pg_catalog.pg_rewrite w"
    " JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind = 'v'"
    " JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass"
    " AND d.objid = w.oid"
    " LEFT JOIN pg_catalog.pg_class c ON d.refclassid = 'pg_catalog.pg_class'::regclass"
    " AND c.oid = d.refobjid AND c.oid <> w.ev_class AND" OF_USERS
    " LEFT JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::regclass"
    " AND p.oid = d.refobjid AND p.provolatile = 'v'"
    " WHERE w.ev_type = '1' AND w.oid >= 16384 AND (c.oid IS NOT NULL OR p.oid IS NOT NULL)"
    " ORDER BY 1, 2" LIMIT;

/* Schema, name, volatility of the most volatile. */
static const char functions_sql[] =
    "SELECT n.nspname, p.proname, CASE WHEN bool_or(p.provolatile = 'v') THEN 'v'"
    " WHEN bool_or(p.provolatile = 's') THEN 's' ELSE 'i' END"
    " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
    " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " GROUP BY 1, 2 ORDER BY 1, 2" LIMIT;

struct asking {
	struct side *side;
	char *name, *known;
	char fingerprint[64];
	struct catalog_draft *draft;
	asked *done;
	void *arg;
};

/* ---- rows to a draft ---- */

static const char *
value(const PGresult *r, int row, int column)
{
	return (PQgetisnull(r, row, column) ? "" : PQgetvalue(r, row, column));
}

static bool
is_true(const PGresult *r, int row, int column)
{
	return (value(r, row, column)[0] == 't');
}

static uint32_t
id_at(const PGresult *r, int row, int column)
{
	return ((uint32_t)strtoul(value(r, row, column), NULL, 10));
}

static void
take_limit(struct catalog_draft *d, const PGresult *r)
{
	if (PQntuples(r) >= CATALOG_ROWS_MAX)
		catalog_draft_cut(d);
}

void
ask_take_path(struct catalog_draft *d, const PGresult *r)
{
	for (int i = 0; i < PQntuples(r); i++)
		if (!PQgetisnull(r, i, 1))
			catalog_draft_path(d, value(r, i, 1));
}

void
ask_take_relations(struct catalog_draft *d, const PGresult *r)
{
	for (int i = 0; i < PQntuples(r); i++) {
		catalog_draft_relation(d, id_at(r, i, 0), value(r, i, 1), value(r, i, 2),
		    is_true(r, i, 3) ? CATALOG_VIEW : CATALOG_TABLE, is_true(r, i, 4),
		    value(r, i, 5));
		if (is_true(r, i, 6))
			catalog_draft_calls_volatile(d, id_at(r, i, 0));
	}
	take_limit(d, r);
}

void
ask_take_reads(struct catalog_draft *d, const PGresult *r)
{
	for (int i = 0; i < PQntuples(r); i++) {
		if (PQgetisnull(r, i, 1))
			catalog_draft_calls_volatile(d, id_at(r, i, 0));
		else
			catalog_draft_reads(d, id_at(r, i, 0), id_at(r, i, 1));
	}
	take_limit(d, r);
}

void
ask_take_functions(struct catalog_draft *d, const PGresult *r)
{
	for (int i = 0; i < PQntuples(r); i++) {
		char v = value(r, i, 2)[0];

		catalog_draft_function(d, value(r, i, 0), value(r, i, 1),
		    v == 'i'   ? CATALOG_IMMUTABLE
		    : v == 's' ? CATALOG_STABLE
			       : CATALOG_VOLATILE);
	}
	take_limit(d, r);
}

/* ---- the end ---- */

static void
asking_free(struct asking *a)
{
	if (a->side != NULL)
		side_close(a->side);
	if (a->draft != NULL)
		catalog_db_release(catalog_draft_end(a->draft));
	free(a->known);
	free(a->name);
	free(a);
}

void
asking_cancel(struct asking *a)
{
	asking_free(a);
}

static void
asking_end(struct asking *a, struct catalog_db *db, unsigned left_out, const char *err)
{
	a->done(a->arg, db, a->fingerprint, left_out, err);
	asking_free(a);
}

/* ---- step by step ---- */

static void
answered_functions(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct asking *a = arg;
	struct catalog_draft *d = a->draft;
	unsigned left_out;

	(void)s;
	(void)sqlstate;
	if (r == NULL || PQnfields(r) != 3) {
		asking_end(a, NULL, 0, err != NULL ? err : "an answer of other columns");
		return;
	}
	ask_take_functions(d, r);
	left_out = catalog_draft_left_out(d);
	a->draft = NULL;
	asking_end(a, catalog_draft_end(d), left_out, NULL);
}

static void
answered_reads(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct asking *a = arg;

	(void)sqlstate;
	if (r == NULL || PQnfields(r) != 2) {
		asking_end(a, NULL, 0, err != NULL ? err : "an answer of other columns");
		return;
	}
	ask_take_reads(a->draft, r);
	side_query(s, functions_sql, NULL, 0, answered_functions, a);
}

static void
answered_relations(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct asking *a = arg;

	(void)sqlstate;
	if (r == NULL || PQnfields(r) != 7) {
		asking_end(a, NULL, 0, err != NULL ? err : "an answer of other columns");
		return;
	}
	ask_take_relations(a->draft, r);
	side_query(s, reads_sql, NULL, 0, answered_reads, a);
}

static void
answered_fingerprint(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct asking *a = arg;

	(void)sqlstate;
	if (r == NULL || PQnfields(r) != 2 || PQntuples(r) < 1) {
		asking_end(a, NULL, 0, err != NULL ? err : "an answer of other columns");
		return;
	}
	(void)text_copy(a->fingerprint, sizeof(a->fingerprint), value(r, 0, 0));
	if (a->known != NULL && strcmp(a->known, a->fingerprint) == 0) {
		asking_end(a, NULL, 0, NULL);
		return;
	}
	a->draft = catalog_draft_create(a->name, CATALOG_BYTES_MAX);
	ask_take_path(a->draft, r);
	side_query(s, ask_relations_sql, NULL, 0, answered_relations, a);
}

static void
answered_begin(
    struct side *s, void *arg, const PGresult *r, const char *err, const char *sqlstate)
{
	struct asking *a = arg;

	(void)sqlstate;
	if (r == NULL)
		asking_end(a, NULL, 0, err);
	else
		side_query(s, ask_fingerprint_sql, NULL, 0, answered_fingerprint, a);
}

static void
asking_opened(struct side *s, void *arg, const char *err)
{
	struct asking *a = arg;

	if (err != NULL) {
		asking_end(a, NULL, 0, err);
		return;
	}
	side_set_timeout(s, ASK_US);
	side_query(s, begin_sql, NULL, 0, answered_begin, a);
}

struct asking *
asking_start(struct worker *side, const struct topo *topo, const struct topo_database *db,
    const char *known, asked *done, void *arg)
{
	struct asking *a = mem_alloc(sizeof(*a));

	a->name = mem_str(db->name);
	a->known = known != NULL ? mem_str(known) : NULL;
	a->done = done;
	a->arg = arg;
	a->side = side_open(side, topo, db, "pgweave catalog", OPEN_US, asking_opened, a);
	return (a);
}
