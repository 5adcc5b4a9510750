/*
 * The parse tree of a statement, as libpg_query gives it, and what walks over it.
 */
#ifndef SQL_TREE_H
#define SQL_TREE_H
#include <pg_query/pg_query.pb-c.h>

#include "private.h"

/* A statement that the parser knows. */
struct sql_tree {
	PgQuery__ParseResult *result; /* owned */
	PgQuery__Node *stmt;
	/* What the parser saw: as long as the statement, but with literals of no meaning and
	 * without words that PostgreSQL reserves in front of .schema.table. Owned. */
	char *text;
};
/* False: the parser does not know it; nothing to free. */
bool sql_tree_parse(const struct sql_scan *, struct sql_tree *out);
void sql_tree_free(struct sql_tree *);

/* Calls each() for every message right below m, in no particular order. */
void sql_tree_each(const ProtobufCMessage *m,
    void (*each)(void *arg, const ProtobufCMessage *), void *arg);

/* What is being found of a statement. */
struct sql_find {
	const struct sql_scan *scan;
	const struct sql_tree *tree;
	struct sql_arena *arena;
	struct sql_facts *facts;
	struct sql_table tables[SQL_TABLES_MAX];
	const PgQuery__RangeVar *vars[SQL_TABLES_MAX]; /* of each table */
	unsigned table_count;
	const char **ctes; /* names of WITH that are visible; owned */
	unsigned cte_count, cte_room;
	unsigned selects;          /* SELECTs that are open around what is visited */
	struct sql_match *matches; /* owned */
	unsigned match_count, match_room;
	struct sql_call calls[SQL_CALLS_MAX];
	unsigned call_count;
	bool is_ddl;
	bool has_too_many_tables;
	bool has_write; /* INSERT and the like, INTO, row locks, a function that writes */
	bool
	    is_bound; /* depends on the session or the server it runs on, or is volatile */
};

/* Finds tables and functions everywhere below m. */
void sql_walk(struct sql_find *, const ProtobufCMessage *m);
/* Adds the tables that DROP or COMMENT names without RangeVars. */
void sql_walk_names(
    struct sql_find *, PgQuery__ObjectType, size_t count, PgQuery__Node **);
/* The function's row; NULL: not of pg_catalog, or of another schema. */
const struct sql_function *sql_walk_function(const PgQuery__FuncCall *);
/* The table that a RangeVar is; -1: none, but a WITH. */
int sql_table_of(const struct sql_find *, const PgQuery__RangeVar *);

/* ---- values and conditions ---- */

/* A constant or parameter that an expression is, maybe behind a cast that changes nothing;
 * otherwise SQL_VALUE_OTHER. */
struct sql_value sql_value_of(const struct sql_find *, const PgQuery__Node *);
/* Tells a match of a table; values must be in the arena. */
void sql_match_add(struct sql_find *, const struct sql_match *);
/* Finds what the conditions of one SELECT, UPDATE or DELETE say of the tables of its FROM;
 * target: of UPDATE and DELETE, or NULL. */
void sql_level_find(struct sql_find *, const PgQuery__RangeVar *target, size_t count,
    PgQuery__Node *const *from, const PgQuery__Node *where);
/* Finds what conditions, VALUES and SET say of tables' columns, everywhere below m. */
void sql_match_find(struct sql_find *, const ProtobufCMessage *m);
/* What COPY … FROM STDIN says of its stream. */
const struct sql_copy *sql_copy_find(struct sql_find *, const PgQuery__CopyStmt *);
/* Finds the shape of the whole statement; why_not of what has none. */
extern const char sql_shape_not_select[];
void sql_shape_find(struct sql_find *, const PgQuery__Node *stmt);

/* The string of a String node; NULL: it is another. */
const char *sql_node_string(const PgQuery__Node *);
/* The last of a list of names, when it is alone, or behind pg_catalog; NULL otherwise. */
const char *sql_own_name(size_t count, PgQuery__Node *const *names);

#endif
