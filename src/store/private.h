/*
 * store, for its own files.
 *
 *   row.c      structs of texts to rows of a table and back
 *   schema.c   the tables, in steps from version to version, for both kinds of database
 *   file.c     the SQLite file: where it is, opening it, what can go wrong
 *   server.c   the PostgreSQL database that proxies share: its connection, statements
 *   shared.c   that database as a store: opening, its steps, transactions
 *   work.c     what is done with either: load, put, delete…; in the thread that calls
 *   key.c      the same for keys: put, revoke, rotate, forget
 *   route.c    the same for routes: put, delete
 *   claim.c    who of the proxies that share a store runs a job
 *   follow.c   a copy of the shared store in a file, kept in step with it
 *   thread.c   the thread, what it is asked, and the answers by mail
 *   direct.c   the same without a thread, for the command line
 *
 *                      truth        read from
 *   sqlite:PATH        the file     the file
 *   database:NAME      the server   the copy: the last known state when the server is down
 */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H
#include <sqlite3.h>
#include <sys/types.h>

#include "side.h"
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
#define STORE_COLUMNS_MAX 20
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
/* Adds a row; cell() answers the text of column i, or NULL. */
void rows_add(
    struct store_rows *, const char *(*cell)(void *arg, size_t column), void *arg);
void rows_free(struct store_rows *);
bool rows_same(const struct store_rows *, const struct store_rows *);
/* A row as the parameters of a statement; "" becomes NULL. Texts are the row's, or here. */
struct row_texts {
	const char *texts[STORE_COLUMNS_MAX];
	char numbers[STORE_COLUMNS_MAX][24];
};
void row_texts(const struct store_kind *, const void *row, struct row_texts *out);
/* "id, secret, …" and "?1, ?2, …". */
void kind_columns(const struct store_kind *, struct buf *out);
void kind_marks(const struct store_kind *, struct buf *out);

/* ---- schema.c ---- */

/* Step i leads from version i to i + 1. */
struct store_step {
	const char *sqlite, *postgres;
};
extern const struct store_step store_steps[];
extern const int64_t store_version;
/* Whether that version can be worked with; false: why. */
bool version_is_known(int64_t version, char *reason, size_t size) MUST_USE;

/* ---- what is common to the file and the server ---- */

/*
 * Statements are written once: parameters are ?1, ?2…; every table has a column rowid that
 * counts up. A store that cannot be used is F_STORE or F_STORE_DOWN, and then what was begun
 * is undone.
 */
enum db_outcome { DB_DONE, DB_TAKEN /* the row is there already */, DB_FAILED };
struct store_db;
struct db_ops {
	/* F_NOT_FOUND: there is none and `creates` is false. */
	int (*open)(struct store_db *, bool creates, char *why, size_t why_len);
	/* Nobody else changes anything until db_end(). */
	int (*begin)(
	    struct store_db *, const struct store_kind *, char *why, size_t why_len);
	/* Commits when fault is 0; answers the fault, or why it cannot be done. */
	int (*end)(struct store_db *, int fault, char *why, size_t why_len);
	/* changes (may be NULL): how many rows. */
	enum db_outcome (*run)(struct store_db *, const char *sql,
	    const char *const *texts, size_t count, int64_t *changes);
	/* Adds the rows that the rest of the statement chooses (" WHERE name = ?1"). */
	enum db_outcome (*select)(struct store_db *, struct store_rows *,
	    const char *rest, const char *const *texts, size_t count);
	/* Why the last of these failed, and undoes what was begun. */
	int (*failed)(struct store_db *, char *why, size_t why_len);
};
struct store_db {
	const struct db_ops *ops;
	/* Reading makes it, too, not only writing. */
	bool is_explicit;
};
bool is_store_fault(int fault);

/* ---- file.c ---- */

struct store_file {
	struct store_db db;
	char *path;
	bool is_memory;  /* there is no file: it lasts as long as the process */
	sqlite3 *sqlite; /* NULL: not open */
	dev_t dev;       /* which file that was */
	ino_t ino;
	int64_t read_version; /* data_version when the keys were read; -1: never */
	uint64_t openings;    /* how often it was opened */
};
/* Only says where it is. F_STORE and why when the settings name what cannot be. */
int file_init(
    struct store_file *, const struct settings *, char *why, size_t why_len) MUST_USE;
/* The copy of the store in that database; path NULL: in memory. */
void file_init_copy(struct store_file *, const char *path);
void file_close(struct store_file *);
void file_fini(struct store_file *);
/* Changes when another process changes the file. */
int file_data_version(
    struct store_file *, int64_t *out, char *why, size_t why_len) MUST_USE;

/* ---- server.c ---- */

#define BACKOFF_US INT64_C(100000) /* the first pause */

struct store_server {
	struct store_db db;
	const struct topo *topo; /* held */
	const struct topo_database *database;
	PGconn *conn; /* NULL: closed */
	bool is_connecting, is_open;
	bool is_fresh;                     /* opened, and not read since */
	PostgresPollingStatusType polling; /* what it waits for while connecting */
	size_t host;                       /* the one being tried */
	int64_t retry_at_us, deadline_us;  /* monotonic */
	int64_t backoff_us;                /* doubled until all has been read */
	char holder[160];                  /* this process, for claims */
	/* The transaction under way. */
	const struct store_kind *touched; /* NULL: there is none */
	int64_t changes;
	/* Of the statement that failed last, or of the last attempt to connect. */
	char error[512], sqlstate[6];
	char why[600]; /* a sentence: why it is not open */
};
/* Nothing is opened yet. */
void server_init(
    struct store_server *, const struct topo *, const struct topo_database *);
void server_fini(struct store_server *);
/* The words about the database of that snapshot, if they have changed, hold from now on. */
void server_move(struct store_server *, const struct topo *);
/* Goes on connecting as far as it can without waiting, begins when it is time to. True: it is
 * open. */
bool server_step(struct store_server *);
/* Likewise, and waits until the attempt under way has ended. */
bool server_wait(struct store_server *);
/* When server_step() is due, though nothing has come; monotonic. */
int64_t server_due_us(const struct store_server *);
/* What poll() is to wait for; -1: nothing. */
int server_socket(const struct store_server *, short *events);
/* Gives up the connection; the reason is in error. */
void server_lost(struct store_server *);
/* Runs a statement, waiting for its end. NULL: it failed: error and sqlstate. */
PGresult *server_exec(struct store_server *, const char *sql, const char *const *texts,
    size_t count) MUST_USE;
/* F_STORE_DOWN, and the sentence. */
int server_down(const struct store_server *, char *why, size_t why_len);
/* "database NAME (user@host:port/dbname)" */
void server_place(const struct store_server *, char *out, size_t size);

/* ---- shared.c ---- */

#define STORE_SCHEMA  "pgweave"
#define STORE_CHANNEL "pgweave_state"

extern const struct db_ops shared_ops;
/* After the login: looks at the version, takes the steps that are missing, listens. */
int shared_prepare(struct store_server *) MUST_USE;

/* ---- the store ---- */

struct store {
	struct store_db *truth; /* what changes are made in */
	struct store_file file; /* what is read; the truth, or a copy of it */
	struct store_server server;
	bool is_shared;
	/* Of a shared store: counts up when the copy changes; as it was when the keys were
	 * read, -1: never. */
	int64_t generation, read_generation;
	uint64_t copy_openings; /* of the file, when the copy was whole */
	/* The reason for being down that the log has; "": that it is up. */
	char said[600];
	bool is_said;
	int64_t beat_at_us; /* when the server is asked whether it is still there */
	struct claim *claims;
	size_t claim_count;
};
/* shared: the database that it is in, of that snapshot; NULL: a file. */
int store_init(struct store *, const struct topo *, const struct settings *,
    const struct topo_database *shared, char *why, size_t why_len) MUST_USE;
void store_fini(struct store *);

/* ---- work.c: each opens the store first ---- */

/* Of the file, or copy. */
int work_load(struct store_db *, struct store_rows *, const char *name, int64_t limit,
    char *why, size_t why_len) MUST_USE;
int work_put(struct store_db *, const struct store_kind *, const void *row, char *why,
    size_t why_len) MUST_USE;
/* The same within a transaction. */
int work_insert(struct store_db *, const struct store_kind *, const void *row, char *why,
    size_t why_len) MUST_USE;
int work_job_delete(
    struct store_db *, const char *name, char *why, size_t why_len) MUST_USE;

/* ---- key.c: likewise ---- */

int work_key_put(
    struct store_db *, const struct topo_key_text *, char *why, size_t why_len) MUST_USE;
/* Gives the key a new secret, or revokes it when there is no rotation; rows: as it is then. */
int work_key_change(struct store_db *, const char *word, const struct store_rotation *,
    struct store_rows *, char *why, size_t why_len) MUST_USE;
int work_keys_forget(struct store_db *, char *why, size_t why_len) MUST_USE;

/* ---- route.c: likewise; all of the rows, or none ---- */

int work_routes_put(
    struct store_db *, const struct store_rows *, char *why, size_t why_len) MUST_USE;
int work_routes_delete(
    struct store_db *, const struct store_rows *, char *why, size_t why_len) MUST_USE;

/* ---- follow.c: does nothing when the store is not shared ---- */

/* At the start: connects and reads, if that can be done soon. */
void follow_start(struct store *);
/* Goes on connecting, reads what has changed, keeps claims alive. */
void follow_turn(struct store *);
/* What poll() is to wait for, and how long at most (ms; -1: for ever). */
int follow_wait(const struct store *, short *events, int *timeout_ms);
/* Rows of that kind were changed here. */
void follow_changed(struct store *, const struct store_kind *);
/* A run that the server does not take now, for later. */
int follow_keep_run(
    struct store *, const struct store_run *, char *why, size_t why_len) MUST_USE;

/* thread.c: the store has news. */
void thread_announce(void);

/* ---- claim.c ---- */

struct claim {
	char *job;
	int64_t run;
};
int claim_take(struct store *, const char *job, int64_t interval_us, int64_t *run,
    int64_t *wait_us, char *why, size_t why_len) MUST_USE;
void claim_end(struct store *, const char *job, int64_t run);
/* The job is gone, and so is what is known of when it ran. */
void claim_forget(struct store *, const char *job);
/* Those that are held are held on. */
void claims_renew(struct store *);
/* At the end: others may take over what runs here. */
void claims_leave(struct store *);

#endif
