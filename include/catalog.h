/*
 * catalog: what the databases' own catalogs say: tables and views with their columns, the
 * tables that views read, how volatile functions are.
 *
 *   side thread: fingerprint changed? -> queries -> draft -> catalog_db -> a new catalog
 *     -> a mail to every worker, which swaps what it had
 *
 * Snapshots never change: a worker reads its own without a lock. What is not known (a database
 * that was never up, a table beyond the bound) is answered as such, and never as an absence.
 * Only members of virtual databases are read: nobody asks about others.
 */
#ifndef CATALOG_H
#define CATALOG_H
#include "base.h"
#include "net.h"
#include "topo.h"

struct catalog;    /* all databases; counted */
struct catalog_db; /* one of them; counted, shared by the snapshots that have it */

enum catalog_kind {
	CATALOG_TABLE, /* whatever holds rows: partitioned, foreign, materialized views too */
	CATALOG_VIEW
};

struct catalog_column {
	const char *name;
	bool is_plain; /* of a view: the column of that name of the one table it reads */
};

/* Belongs to its catalog_db. */
struct catalog_relation {
	struct table_node node, by_id;
	const struct catalog_relation *next; /* of the same name, in another schema */
	uint32_t id;                         /* its OID */
	const char *schema, *name;
	enum catalog_kind kind;
	const struct catalog_column *columns; /* in order; dropped ones are not there */
	unsigned column_count;
	/* Of a view: the tables below it, through other views. */
	const struct catalog_relation **reads;
	unsigned read_count;
	bool
	    is_simple; /* some rows and columns of one table: the union of what it shows on
			     two databases is what it would show on one with all rows */
	bool
	    is_volatile; /* it, or a view below, calls a volatile function of the user's */
	bool is_partial; /* what it reads is not all known */
};

enum catalog_volatility {
	CATALOG_UNKNOWN, /* no such function, as far as is known */
	CATALOG_IMMUTABLE,
	CATALOG_STABLE,
	CATALOG_VOLATILE
};

/* ---- questions: no allocation, no lock ---- */

/* What this worker knows now, until it goes back to its loop; NULL: nothing. */
const struct catalog *catalog_of(const struct worker *);
/* Of the database of that name; NULL: it is not known. All questions take NULL for both. */
const struct catalog_db *catalog_db(const struct catalog *, const char *database);
/* The table or view; schema NULL: the first in the search path, else in any schema. NULL: not
 * there, or not known (see catalog_is_whole). */
const struct catalog_relation *catalog_relation(
    const struct catalog_db *, const char *schema, const char *name);
/* The name of its column number i, from 0; NULL: not known. Without a schema all tables of that
 * name must agree: a session may have a search path of its own. */
const char *catalog_column_at(
    const struct catalog_db *, const char *schema, const char *table, unsigned i);
const struct catalog_column *catalog_column(
    const struct catalog_relation *, const char *name);
/* Of all functions of that name, the most volatile; schema NULL: of any schema. */
enum catalog_volatility catalog_volatility(
    const struct catalog_db *, const char *schema, const char *function);
/* The bound cut nothing: what is not in it is not there. */
bool catalog_is_whole(const struct catalog_db *);
/* Any views, in any database. */
bool catalog_has_views(const struct catalog *);
/* Its number: two that have the same are one. NULL: 0. */
uint64_t catalog_generation(const struct catalog *);
/* Why the route leads to no table, as far as is known, put to `to`; "" when it leads to one. */
void catalog_route_warning(const struct catalog *, const struct topo_virtual *,
    const struct topo_route *, char *to, size_t size);

/* ---- making snapshots ---- */

struct catalog_draft;
/* bytes: what it may take; the rest is left out. */
struct catalog_draft *catalog_draft_create(const char *database, size_t bytes);
/* The schemas of the search path, in order. */
void catalog_draft_path(struct catalog_draft *, const char *schema);
/* columns: their names, one a line, each behind a '+', or a '-' when it is not plain. */
void catalog_draft_relation(struct catalog_draft *, uint32_t id, const char *schema,
    const char *name, enum catalog_kind, bool is_simple, const char *columns);
/* The view reads it directly. Both may be unknown. */
void catalog_draft_reads(struct catalog_draft *, uint32_t view, uint32_t relation);
void catalog_draft_calls_volatile(struct catalog_draft *, uint32_t view);
void catalog_draft_function(struct catalog_draft *, const char *schema, const char *name,
    enum catalog_volatility);
/* There were more rows than could be had. */
void catalog_draft_cut(struct catalog_draft *);
/* How many things were left out. */
unsigned catalog_draft_left_out(const struct catalog_draft *);
/* Takes the draft; one reference. */
struct catalog_db *catalog_draft_end(struct catalog_draft *);
void catalog_db_release(struct catalog_db *);
const char *catalog_db_name(const struct catalog_db *);
size_t catalog_db_bytes(const struct catalog_db *);

/* Of these databases (they are held); one reference. */
struct catalog *catalog_make(struct catalog_db *const *, size_t count);
void catalog_hold(struct catalog *);
void catalog_release(struct catalog *);

/* ---- reading the databases ---- */

/* For `pgweave check`: asks the members of virtual databases that have routes or shards which
 * tables they have, and warns of those that are named and are not there, of tables that several
 * have, and of databases that could not be asked. Blocks for some seconds at most. */
void catalog_check(const struct topo *, struct conf_problems *);

/* On net_side(), before net_start(); world: the snapshot in use. */
void catalog_init(struct worker *side, const struct topo *(*world)(struct worker *));
/* When the threads have ended. */
void catalog_fini(struct worker *side);
/* Frees what the worker holds; likewise. */
void catalog_forget(struct worker *);
/* A statement that may change a catalog has passed: look soon. Any thread. */
void catalog_suspect(void);

#endif
