/*
 * sql: what a statement is. A scanner of ours (always on, any bytes) splits a text, finds the
 * hint and the literals and computes a digest; libpg_query (behind one file) tells the facts
 * of a digest once; they are cached per worker in an LRU bounded in bytes.
 *
 *   text -> sql_scan: statements, hint, literals, digest -> sql_facts_get: facts (cache, or parser)
 *
 * Nothing here refuses a statement: what is too long, too deep or not understood has the class
 * SQL_UNKNOWN, and goes where unknown statements go.
 */
#ifndef SQL_H
#define SQL_H
#include "base.h"

/* The parser never sees more than this, nor deeper nesting, nor more terms in a row. Of what is
 * longer it sees one value for a list of them, and one row for those of an INSERT. */
#define SQL_PARSE_BYTES 16384
#define SQL_PARSE_DEPTH 200
#define SQL_PARSE_TERMS 500
/* Of one statement; more: none of them is told, and matches know them as SQL_VALUE_OTHER. */
#define SQL_LITERALS_MAX 65536
#define SQL_VALUES_MAX   65536 /* of one match; more: the match is not told */
#define SQL_TABLES_MAX   64    /* more: SQL_UNKNOWN */
#define SQL_CALLS_MAX    32    /* functions told by name; see has_nameless_call */

/* ---- the scanner ---- */

enum sql_literal_kind { SQL_LIT_STRING, SQL_LIT_NUMBER };
struct sql_literal {
	uint32_t at, len; /* in scan->sql, with its quotes or prefix */
	enum sql_literal_kind kind;
};

/* Words of a leading comment "pgweave: database=analytics, read_from=primary" (between the
 * comment marks, or after --). NULL where nothing is said. */
struct sql_hint {
	char *database, *databases, *federation, *on_unavailable, *shard_key, *read_from;
	char *problem; /* what is wrong with it ("unknown word \"x\"…"); NULL: nothing */
};

/* One statement of a text. */
struct sql_scan {
	const char *
	    sql; /* of this statement: without leading blanks, or comments before the hint's
			    end; without its semicolon. Points into the text. */
	size_t len;
	const char
	    *next; /* behind its semicolon; NULL: it is the last (only blanks, comments
			     and semicolons follow) */
	struct hash128 digest;
	struct sql_literal *literals;
	unsigned literal_count;
	unsigned param_max;    /* the highest $n */
	struct sql_hint *hint; /* NULL: none */
	bool is_empty;         /* nothing but comments */
	bool is_cut;      /* an open quote or comment: it will fail, wherever it goes */
	bool is_too_much; /* not for the parser */
	bool
	    wants_values; /* its facts hang on its literals' values too (SET, set_config()…) */
	char verb[24]; /* its first word in lower case, cut: "select", "("; "" if empty */
};
/* Scans the first statement of text (len bytes; NUL bytes are ordinary rubbish). Always
 * succeeds. sql_scan_free() afterwards. standard strings: '' strings know no backslash. */
void sql_scan(const char *text, size_t len, struct sql_scan *out);
void sql_scan_free(struct sql_scan *);
/* The value of a literal, unquoted (E'', U&'' and dollar quotes too; numbers as they stand).
 * The caller frees it; NULL when it cannot be told (a broken escape). */
char *sql_literal_value(const struct sql_scan *, unsigned i) MUST_USE;
/* The digest's text: literals as $?, blanks folded, comments gone. For views and logs. The
 * caller frees it. */
char *sql_digest_text(const struct sql_scan *) MUST_USE;

/* ---- PREPARE, EXECUTE, DEALLOCATE ---- */

enum sql_prepare_kind {
	SQL_PREPARE_NONE,
	SQL_PREPARE_MAKE, /* PREPARE name [(types)] AS … */
	SQL_PREPARE_RUN, /* EXECUTE name [(arguments)], perhaps behind EXPLAIN, or CREATE … AS */
	SQL_PREPARE_DROP, /* DEALLOCATE [PREPARE] name */
	SQL_PREPARE_DROP_ALL,
	/* sql_listen_read(): */
	SQL_PREPARE_LISTEN,   /* LISTEN channel */
	SQL_PREPARE_UNLISTEN, /* UNLISTEN channel, or * */
	SQL_PREPARE_VIEW      /* sql_view_read() */
};
/* Offsets into scan->sql. */
struct sql_prepare {
	enum sql_prepare_kind kind;
	char *name;                   /* folded; NULL: DROP_ALL, UNLISTEN * */
	uint32_t at, len;             /* of the name, as it stands */
	uint32_t types_at, types_len; /* MAKE: with parentheses; 0: none */
	uint32_t inner_at;            /* MAKE: behind AS, up to the end */
	uint32_t args_at, args_len;   /* RUN: with parentheses; 0: none */
	bool is_explained, creates;   /* RUN: what stands before it */
};
/* False: the statement is none of these (and *out is empty). */
bool sql_prepare_read(const struct sql_scan *, struct sql_prepare *out);
void sql_prepare_free(struct sql_prepare *);
/* A look at the first word: 0: the statement is none of these; 1: it may be; -1: of the first
 * word, or the comments before it, more must be seen. */
int sql_prepare_may(const char *text, size_t len);
/* The same for LISTEN and UNLISTEN; at, len: of the whole statement. */
bool sql_listen_read(const struct sql_scan *, struct sql_prepare *out);
int sql_listen_may(const char *text, size_t len, bool or_unlisten);
/* ---- pg_prepared_statements ---- */

/* A query that reads it, perhaps behind EXPLAIN, PREPARE … AS, DECLARE … FOR, COPY (, or CREATE
 * TABLE … AS: "WITH pg_prepared_statements AS (…) " at that place, or what stands behind the WITH
 * that is there, means another one. */
struct sql_view {
	uint32_t at;
	bool is_behind_with;
	bool calls; /* pg_prepared_statement(), whose name is to mean the same */
	/* As long as the statement, with blanks for pg_catalog. and the parentheses of
	 * pg_prepared_statement(); NULL: its own. */
	char *text;
};
/* False: the statement is none, and *out is empty. sql_view_free() when true. */
bool sql_view_read(const struct sql_scan *, struct sql_view *out) MUST_USE;
void sql_view_free(struct sql_view *);

/* ---- CREATE, ALTER and DROP DATABASE ---- */

/* Of a statement that needs a database without connections, be it as a template: its name, which
 * the caller frees; NULL: it is no such statement. */
char *sql_lone_database(const char *text, size_t len, bool *is_template) MUST_USE;
/* A look at the first letters: false when it is none. */
static inline bool
sql_lone_may(const char *text, size_t len)
{
	int a = len > 1 ? text[0] | 0x20 : 0, b = len > 1 ? text[1] | 0x20 : 0;

	/* Or blanks and comments stand there. */
	return (
	    (b == 'r' && (a == 'c' || a == 'd')) || (a == 'a' && b == 'l') || a < 'a');
}

/* ---- pg_terminate_backend() and pg_cancel_backend() ---- */

struct sql_signal {
	bool terminates;
	int64_t pid;    /* a constant */
	unsigned param; /* $n instead; 0: none */
	uint32_t call_at, call_len;
	char label[64]; /* of the column */
};
/* False: the statement is not just SELECT of one of them. */
bool sql_signal_read(const char *text, size_t len, struct sql_signal *out);
/* A look at a few letters: "select pg_". */
static inline bool
sql_signal_may(const char *text, size_t len)
{
	return (len > 20 && text[7] == 'p' && text[8] == 'g' && text[9] == '_' &&
		(text[0] | 0x20) == 's');
}

/* An argument of EXECUTE, as a parameter's value in text. */
struct sql_argument {
	char *value; /* NULL: NULL, or an expression */
	bool is_null;
};
/* How many there are; sql_arguments_free() afterwards. */
unsigned sql_prepare_arguments(const struct sql_scan *, const struct sql_prepare *,
    struct sql_argument **out) MUST_USE;
void sql_arguments_free(struct sql_argument *, unsigned count);

/* ---- statements that clients may share ---- */

enum sql_share {
	SQL_SHARE_NOT,
	SQL_SHARE_MAY,    /* a query whose constants are the same whenever it is read */
	SQL_SHARE_DEFINES /* not; and it may make a table without its tag's saying so */
};
enum sql_share sql_share(const char *text, size_t len);

/* ---- what a statement leaves in the server's session ---- */

enum sql_leaves {
	SQL_LEAVES_SETTING = 1, /* SET, RESET, set_config(), DO: perhaps */
	SQL_LEAVES_LOCAL = 2,   /* SET LOCAL and its like: nothing, but its tag is SET */
	SQL_LEAVES_RESET = 4,   /* RESET, SET … TO DEFAULT: see sql_reset_name() */
	SQL_LEAVES_DISCARD = 8, /* DISCARD ALL */
	SQL_LEAVES_TABLE = 16,  /* a temporary table, view, sequence… */
	SQL_LEAVES_CURSOR = 32, /* DECLARE … WITH HOLD */
	SQL_LEAVES_LOCK = 64,   /* pg_advisory_lock() and its like */
	SQL_LEAVES_LISTENER = 128,
	SQL_LEAVES_SEED = 256, /* setseed() */
	SQL_LEAVES_LESS =
	    512, /* some of that may be gone: DROP, CLOSE, pg_advisory_unlock() */
	SQL_LEAVES_UNNAMED = 1024,  /* set_config() of a name that is not in the text */
	SQL_LEAVES_BY_PARAM = 2048, /* the same, but that a parameter is the name */
	SQL_LEAVES_VIEW = 4096,     /* nothing, but it may read pg_prepared_statements */
	SQL_LEAVES_SEQUENCE = 8192, /* nothing, but it may call currval() or lastval() */
	SQL_LEAVES_NO_SEQUENCE = 16384, /* DISCARD SEQUENCES */
	SQL_LEAVES_UNSEEN = 32768       /* DO: perhaps what can be asked about */
};
/* From tokens alone, and rather too many than too few. */
unsigned sql_leaves(const struct sql_scan *);
/* The setting that goes back to what it was at first, or "all"; NULL: it is no such statement.
 * The caller frees it. */
char *sql_reset_name(const struct sql_scan *) MUST_USE;

/* Each setting that SET, RESET or a set_config() names, as far as the text tells; "$1" where a
 * parameter does. */
void sql_setting_names(
    const struct sql_scan *, void (*each)(void *arg, const char *name), void *arg);

/* An argument of set_config(): a constant's text, or a parameter's number; neither: NULL. */
struct sql_config_argument {
	char *text;
	unsigned param; /* from 1 */
};
struct sql_config_call {
	struct sql_config_argument name, value, is_local;
};
/* The calls of a SELECT that is nothing but calls of set_config() with such arguments; 0: it is
 * another statement. sql_config_calls_free() afterwards. */
unsigned sql_config_calls(const struct sql_scan *, struct sql_config_call **out) MUST_USE;
void sql_config_calls_free(struct sql_config_call *, unsigned count);

/* What the beginning of a text may be, by a few bytes: none of these but a function may be
 * in it (0), or bits of these, or -1: more must be seen. */
/* PREPARE: LISTEN and UNLISTEN too. */
enum sql_look { SQL_LOOK_PREPARE = 1, SQL_LOOK_LEAVES = 2 };
int sql_look(const char *text, size_t have);
/* The same by names anywhere in the text: of functions that leave something or ask for what is
 * left, and pg_prepared_statements (SQL_LOOK_PREPARE). */
int sql_look_names(const char *text, size_t len);

/* ---- facts ---- */

enum sql_class {
	SQL_UNKNOWN, /* not understood */
	SQL_EMPTY,
	SQL_READ, /* SELECT, VALUES, TABLE, WITH of reads, COPY … TO STDOUT, EXPLAIN of one */
	SQL_WRITE, /* INSERT, UPDATE, DELETE, MERGE, SELECT FOR UPDATE or INTO, CTEs with these,
			COPY … FROM, EXPLAIN ANALYZE of one, CALL, DO, functions that may write, LOCK */
	SQL_DDL, /* CREATE, ALTER, DROP, TRUNCATE, GRANT, COMMENT… */
	SQL_UTILITY, /* VACUUM, ANALYZE, LISTEN, NOTIFY, PREPARE, EXECUTE, DECLARE, FETCH, DISCARD… */
	SQL_SET,    /* SET, RESET, SHOW: see setting */
	SQL_BEGIN,  /* BEGIN, START TRANSACTION */
	SQL_COMMIT, /* COMMIT, END; AND CHAIN: chains */
	SQL_ROLLBACK,
	SQL_SAVEPOINT, /* SAVEPOINT, RELEASE, ROLLBACK TO */
	SQL_TWO_PHASE, /* PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED */
	SQL_EXPLAIN_ROUTE
};

enum sql_set_verb {
	SQL_SET_NONE,
	SQL_SET_SET,
	SQL_SET_LOCAL,
	SQL_SET_RESET,
	SQL_SET_SHOW
};

struct sql_table {
	const char *catalog, *schema; /* NULL: not said */
	const char *name;
	uint32_t at,
	    len; /* where it stands in the statement that was parsed first: see facts->is_exact */
	bool is_written;
	bool is_created; /* the statement makes it: CREATE TABLE or VIEW, SELECT INTO */
	/* The statement is not understood, and a name stands where that of a table does. */
	bool is_guess;
	bool
	    is_system; /* pg_catalog or information_schema, by name (an unqualified pg_… too) */
};

enum sql_value_kind {
	SQL_VALUE_PARAM,   /* $n: at = n, from 1 */
	SQL_VALUE_LITERAL, /* at = number of the literal in the scan, from 0 */
	SQL_VALUE_NULL,
	SQL_VALUE_OTHER /* an expression, DEFAULT, a column: not known before it runs */
};
struct sql_value {
	enum sql_value_kind kind;
	unsigned at;
	bool is_negative; /* a minus stands before the literal */
};
/* The rows of a table that a statement touches have one of these values in the column: from
 * column = value, column IN (…), column = ANY of an ARRAY[…] among the ANDed conditions of
 * WHERE or JOIN … ON of the level where the table stands; or the rows that it inserts
 * (is_insert: one value a row). */
struct sql_match {
	unsigned table;     /* index into facts->tables */
	const char *column; /* "" when place says it */
	unsigned
	    place; /* of an INSERT without a list of columns: which one, from 1; else 0 */
	const struct sql_value *values;
	unsigned count;
	bool is_insert;
	bool is_assigned; /* UPDATE … SET column = value */
};

/* What a statement leaves in the server's session beyond its transaction. */
enum sql_keeps {
	SQL_KEEPS_NOTHING,
	SQL_KEEPS_TABLE, /* temporary tables, views and sequences, but for ON COMMIT DROP */
	SQL_KEEPS_CURSOR,  /* DECLARE … WITH HOLD */
	SQL_KEEPS_LOCK,    /* pg_advisory_lock(), pg_try_advisory_lock() and their like */
	SQL_KEEPS_LISTENER /* LISTEN */
};

/* COPY … FROM STDIN: how rows stand in what the client sends. */
enum sql_copy_format { SQL_COPY_TEXT, SQL_COPY_CSV, SQL_COPY_BINARY };
enum sql_copy_header { SQL_COPY_NO_HEADER, SQL_COPY_HEADER, SQL_COPY_HEADER_MATCH };
struct sql_copy {
	enum sql_copy_format format;
	enum sql_copy_header header;
	char delimiter, quote, escape; /* quote and escape: of CSV */
	const char *null;
	const char *dflt; /* what stands for the column's default; NULL: nothing does */
	const char *encoding; /* NULL: the client's */
	const char *const *columns;
	unsigned column_count; /* 0: all, in the order of the table */
	/* Whether empty text is NULL although it is quoted, or none although it is not: of these
	 * columns, or of all. */
	const char *const *force_null, *const *force_not_null;
	unsigned force_null_count, force_not_null_count;
	bool force_null_all, force_not_null_all;
	const char
	    *unknown; /* an option whose meaning is not known; NULL: there is none */
};

/* A function that is not PostgreSQL's own. */
struct sql_call {
	const char *schema, *name; /* schema NULL: not said */
};

enum sql_aggregate { SQL_AGG_NONE, SQL_AGG_COUNT, SQL_AGG_SUM, SQL_AGG_MIN, SQL_AGG_MAX };

/* What merging the answers of several databases needs to know of a SELECT. */
struct sql_shape {
	/* Why the union of the databases' own answers, joined as below, might not be what one
	 * database with all rows would answer ("ORDER BY", "GROUP BY", "a join"…); NULL: it is. */
	const char *why_not;
	bool
	    is_aggregate; /* every column is one of the aggregates below, one row in all */
	const enum sql_aggregate *columns; /* is_aggregate: of each column */
	unsigned column_count;             /* 0: not known (SELECT *) */
};

struct sql_facts {
	enum sql_class class;
	bool
	    is_plain_read; /* SQL_READ, and nothing in it can write or depends on the session:
				fit for a replica */
	bool is_read_only;  /* BEGIN: READ ONLY was said */
	bool is_read_write; /* BEGIN: READ WRITE was said */
	bool
	    is_serializable; /* BEGIN, SET TRANSACTION: the isolation level SERIALIZABLE was said */
	const char
	    *isolation; /* the level that the same say, in lower case; NULL: none */
	bool is_deferrable, is_not_deferrable; /* [NOT] DEFERRABLE was said */
	bool chains;                           /* COMMIT/ROLLBACK AND CHAIN */
	enum sql_keeps keeps;
	bool copies_in, copies_out; /* COPY FROM STDIN, COPY TO STDOUT */
	const struct sql_copy
	    *copy;                 /* of COPY FROM STDIN; NULL: it is another statement */
	bool has_foreign_function; /* calls a function that is not PostgreSQL's own */
	bool
	    has_nameless_call; /* one that `calls` does not tell: an operator's, or too many */
	const struct sql_call *calls; /* each name once */
	unsigned call_count;
	bool is_plain_but_calls; /* a plain read, if these functions change nothing */
	const char *writes; /* "INSERT", "SELECT INTO": what in it writes or locks rows;
			       NULL: none of these */
	bool
	    sets_pgweave; /* set_config('pgweave.…') or current_setting of it inside a query */
	bool is_exact; /* cached facts came from this very text: positions count */
	const struct sql_table *tables;
	unsigned table_count;
	const struct sql_match *matches;
	unsigned match_count;
	struct sql_shape shape;
	/* SQL_SET: */
	enum sql_set_verb set_verb;
	const char
	    *setting; /* lower case ("pgweave.database"); "all" for RESET ALL, SHOW ALL */
	const char *value;     /* as text; NULL: DEFAULT, or not a constant */
	const char *savepoint; /* SQL_SAVEPOINT: its name */
	bool is_release, is_rollback_to;
	const char *cursor; /* DECLARE, FETCH, MOVE, CLOSE: its name; NULL: ALL */
	const char
	    *renamed; /* ALTER TABLE … RENAME TO and its like: the table's new name */
	bool declares_read; /* DECLARE of a query that cannot write or lock rows */
	/* SQL_EXPLAIN_ROUTE: where the inner statement begins in scan->sql, and whether as JSON. */
	uint32_t inner_at;
	bool wants_json;
	const char
	    *problem; /* why that is no EXPLAIN (ROUTE), for a 22023; NULL: it is */
};

/* One for each worker; bytes: what it may hold. */
struct sql_cache;
struct sql_cache *sql_cache_create(size_t bytes);
void sql_cache_destroy(struct sql_cache *);
/* Never NULL. Valid until the next call with this cache: hold it (sql_facts_hold) to keep. */
const struct sql_facts *sql_facts_get(struct sql_cache *, const struct sql_scan *);
/* The same without sql_scan() before it, when a text that differs in the values of its literals
 * alone has been here lately: what sql_scan(text, len, out) would say, and its facts. NULL: out
 * is untouched. */
const struct sql_facts *sql_facts_recall(
    struct sql_cache *, const char *text, size_t len, struct sql_scan *out);
/* The facts alone, without a scan to free, of a single statement without a hint. */
const struct sql_facts *sql_facts_known(struct sql_cache *, const char *text, size_t len);
/* Room for what whoever has the cache wants to remember of these facts, SQL_NOTE_BYTES of it,
 * zero at first and gone with them. For the cache's own thread. */
#define SQL_NOTE_BYTES 64
void *sql_facts_note(const struct sql_facts *);
const struct sql_facts *sql_facts_hold(const struct sql_facts *);
void sql_facts_release(const struct sql_facts *);
/* The statement's text (scan->len bytes and a NUL) with blanks in place of the words before
 * ".schema.table" that is_member() knows; NULL: there are none. The caller frees it. */
char *sql_text_without(const struct sql_scan *,
    bool (*is_member)(void *arg, const char *name), void *arg) MUST_USE;
/* The parameters of a part of an INSERT. Whoever asks sets max, the highest number in the
 * statement, and gives room for max + 1 in each array. */
struct sql_part_params {
	unsigned max;
	uint16_t *numbers; /* the old ones of the new ones, in their order */
	unsigned count;
	/* By its place in numbers: what tells PostgreSQL its type in the whole statement is in a
	 * row of another part, so that here it could be another type. */
	bool *may_change;
};
/* An INSERT … VALUES of `count` rows, with those of one part alone; its parameters are numbered
 * anew. NULL: the rows cannot be told apart, or a parameter has an impossible number. The caller
 * frees it. */
char *sql_insert_part(const char *sql, size_t len, const uint8_t *part_of_row,
    unsigned count, unsigned part, struct sql_part_params *) MUST_USE;
struct sql_cache_stats {
	uint64_t hits, misses, unknown, evictions;
	size_t bytes;
	unsigned entries;
};
void sql_cache_stats(const struct sql_cache *, struct sql_cache_stats *out);

#endif
