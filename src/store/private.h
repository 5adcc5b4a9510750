/*
 * store, for its own files.
 *
 *   row.c     structs of texts to rows of a table and back
 *   file.c    the SQLite file: where it is, opening, its migrations, what can go wrong
 *   work.c    what is done with it: load, put, delete…; in the thread that calls
 *   key.c     the same for keys: put, revoke, rotate, forget
 *   route.c   the same for routes: put, delete
 *   thread.c  the thread, what it is asked, and the answers by mail
 *   direct.c  the same without a thread, for the command line
 */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H
#include <sqlite3.h>
#include <sys/types.h>

#include "store.h"

/* ---- row.c ---- */

enum store_type { STORE_TEXT, STORE_INT };
struct store_column {
	const char *name; /* quoted where SQL wants it */
	size_t offset;    /* of a const char * or an int64_t */
	enum store_type type;
};
/* A table, and the struct that one row of it is. */
struct store_kind {
	const char *table;
	size_t size;
	const struct store_column *columns;
	size_t count;
};
extern const struct store_kind store_key_kind, store_job_kind, store_run_kind,
    store_route_kind;

/* Rows of one kind; {0} with a kind is none. Owns their texts. */
struct store_rows {
	const struct store_kind *kind;
	void **rows;
	size_t count;
};
/* A copy that owns its texts. */
void *row_copy(const struct store_kind *, const void *row) MUST_USE;
void row_free(const struct store_kind *, void *row);
void rows_add(struct store_rows *, sqlite3_stmt *);
void rows_free(struct store_rows *);
/* Adds the rows that the rest of the statement chooses (" WHERE name = ?1"), word being its
 * parameter, or NULL. A result code of SQLite; when it is no success there are no rows. */
int rows_select(
    struct store_rows *, sqlite3 *db, const char *rest, const char *word) MUST_USE;
/* Column i becomes parameter i + 1; "" becomes NULL. */
int row_bind(const struct store_kind *, const void *row, sqlite3_stmt *) MUST_USE;
/* "id, secret, …" and "?, ?, …". */
void kind_columns(const struct store_kind *, struct buf *out);
void kind_marks(const struct store_kind *, struct buf *out);

/* ---- file.c ---- */

struct store_file {
	char *path;
	/* Somebody has said where it is: it is made by the first that reads it, not by the
	 * first that writes. */
	bool is_explicit;
	sqlite3 *db; /* NULL: not open */
	dev_t dev;   /* which file that was */
	ino_t ino;
	int64_t version; /* data_version when the keys were read last; -1: never */
};
/* Only says where it is. F_STORE and why when the settings name what cannot be. */
int file_init(
    struct store_file *, const struct settings *, char *why, size_t why_len) MUST_USE;
/*
 * Opens it, when it is not open yet or another file stands there now. F_NOT_FOUND: there is
 * none and `creates` is false; F_STORE and why.
 */
int file_open(struct store_file *, bool creates, char *why, size_t why_len) MUST_USE;
void file_close(struct store_file *);
void file_fini(struct store_file *);
/* Says why the last call of SQLite failed, undoes what was begun, and closes the file when
 * it is better opened anew. F_STORE. */
int file_failed(struct store_file *, char *why, size_t why_len);
/* Runs one statement without rows; texts are its parameters. A result code of SQLite. */
int file_run(struct store_file *, const char *sql, const char *const *texts,
    size_t count) MUST_USE;
/* A number that SQL answers. */
int file_number(struct store_file *, const char *sql, int64_t *out) MUST_USE;

/* ---- work.c: each opens the file first ---- */

int work_load(struct store_file *, struct store_rows *, const char *name, int64_t limit,
    char *why, size_t why_len) MUST_USE;
int work_put(struct store_file *, const struct store_kind *, const void *row, char *why,
    size_t why_len) MUST_USE;
int work_job_delete(
    struct store_file *, const char *name, char *why, size_t why_len) MUST_USE;
/* Whether others have changed the file since the keys were read. */
bool work_look(struct store_file *);

/* ---- key.c: likewise ---- */

int work_key_put(struct store_file *, const struct topo_key_text *, char *why,
    size_t why_len) MUST_USE;
/* Gives the key a new secret, or revokes it when there is no rotation; rows: as it is then. */
int work_key_change(struct store_file *, const char *word, const struct store_rotation *,
    struct store_rows *, char *why, size_t why_len) MUST_USE;
int work_keys_forget(struct store_file *, char *why, size_t why_len) MUST_USE;

/* ---- route.c: likewise; all of the rows, or none ---- */

int work_routes_put(
    struct store_file *, const struct store_rows *, char *why, size_t why_len) MUST_USE;
int work_routes_delete(
    struct store_file *, const struct store_rows *, char *why, size_t why_len) MUST_USE;

#endif
