/*
 * catalog, for its own files.
 *
 *   snapshot.c  what a snapshot has, and the questions; no threads, no sockets
 *   draft.c     how one is made from rows
 *   ask.c       one database: its rows, over a connection
 *   catalog.c   which databases, when; and the way to the workers
 *   warn.c      tables that are not where they should be
 *   check.c     the same for `pgweave check`, before there is a proxy
 */
#ifndef CATALOG_PRIVATE_H
#define CATALOG_PRIVATE_H
#include <libpq-fe.h>
#include <stdatomic.h>

#include "catalog.h"
#include "side.h"

#define CATALOG_BYTES_MAX (16 * 1024 * 1024) /* of one database */
#define CATALOG_ROWS_MAX  50000              /* of one query */
#define CATALOG_READS_MAX 64                 /* tables below a view */

/* ---- a database's snapshot ---- */

/* All functions of one name in one schema. */
struct function {
	struct table_node node; /* by name */
	const char *schema, *name;
	const struct function *next; /* of the same name, in another schema */
	enum catalog_volatility volatility;
};

struct chunk {
	struct chunk *next;
};

struct catalog_db {
	_Atomic unsigned references;
	char *name;
	struct chunk *chunks; /* where all that follows stands */
	struct table relations, ids, functions;
	const char *path[32];
	unsigned path_count, view_count;
	size_t bytes;
	bool is_whole;
};

/* The one of that name (and schema) in the list that begins at the table's node. */
struct catalog_relation *db_relation_by_id(const struct catalog_db *, uint32_t id);
struct catalog_relation *db_first_relation(const struct catalog_db *, const char *name);
struct function *db_first_function(const struct catalog_db *, const char *name);
uint64_t db_id_hash(uint32_t id);

/* The databases of a catalog. */
unsigned catalog_count(const struct catalog *);
struct catalog_db *catalog_at(const struct catalog *, unsigned i);

/* ---- one database (ask.c) ---- */

struct asking;
/* What it says in the end; db NULL: it has not changed, or failed: err. Takes over db. */
typedef void asked(void *arg, struct catalog_db *db, const char *fingerprint,
    unsigned left_out, const char *err);
/* known: the fingerprint of what is known already; NULL: nothing. */
struct asking *asking_start(struct worker *, const struct topo *,
    const struct topo_database *, const char *known, asked *, void *arg);
/* No callback comes after it; not inside the callback, which ends it too. */
void asking_cancel(struct asking *);

/* Two of its queries, and the rows of all of them into a draft. */
extern const char ask_fingerprint_sql[], ask_relations_sql[];
void ask_take_path(struct catalog_draft *, const PGresult *);
void ask_take_relations(struct catalog_draft *, const PGresult *);
void ask_take_reads(struct catalog_draft *, const PGresult *);
void ask_take_functions(struct catalog_draft *, const PGresult *);

/* ---- warnings (warn.c) ---- */

/* Tables of a virtual database that several members have and no route places: one line, or
 * "" when there are none, or they are those of *was (a hash; 0 at first). */
void warn_of_twins(const struct catalog *, const struct topo_virtual *, uint64_t *was,
    char *to, size_t size);

#endif
