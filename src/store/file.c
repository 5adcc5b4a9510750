/*
 * store/file.c: the SQLite file: where it is, opening it, its statements, and the sentence for
 * what can go wrong.
 *
 * Durable: journal in WAL mode, synchronous=FULL, so that what was answered is on disk. Its
 * tables carry the names that the configuration uses, for operators with sqlite3 at hand.
 */
#include "private.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_MS        5000
#define APPLICATION_ID INT64_C(0x70677776) /* "pgwv" */

static const struct db_ops file_ops;

static struct store_file *
of_db(struct store_db *db)
{
	INVARIANT(db->ops == &file_ops);
	return (CONTAINER_OF(db, struct store_file, db));
}

/* ---- where it is ---- */

int
file_init(struct store_file *f, const struct settings *set, char *why, size_t why_len)
{
	const char *store = set->state_store;

	*f = (struct store_file){.db.ops = &file_ops, .read_version = -1};
	if (store[0] == '\0') {
		f->db.is_explicit =
		    strcmp(set->state_dir, setting_find("state_dir")->dflt) != 0;
		f->path = mem_printf("%s/state.db", set->state_dir);
		return (0);
	}
	if (strncasecmp(store, "sqlite:", 7) != 0 || store[7] == '\0') {
		snprintf(why, why_len,
		    "the state store cannot be used: %s: not supported, allowed is "
		    "sqlite:PATH",
		    store);
		return (F_STORE);
	}
	f->db.is_explicit = true;
	/* With a directory before it no name means anything special to SQLite. */
	f->path = mem_printf("%s%s", store[7] == '/' ? "" : "./", store + 7);
	return (0);
}

void
file_init_copy(struct store_file *f, const char *path)
{
	*f = (struct store_file){.db = {.ops = &file_ops, .is_explicit = true},
	    .is_memory = path == NULL,
	    .read_version = -1,
	    .path = mem_str(path != NULL ? path : ":memory:")};
}

void
file_close(struct store_file *f)
{
	if (f->sqlite != NULL)
		sqlite3_close_v2(f->sqlite);
	f->sqlite = NULL;
	f->read_version = -1;
}

void
file_fini(struct store_file *f)
{
	file_close(f);
	free(f->path);
	f->path = NULL;
}

/* ---- what went wrong ---- */

static int
failed(const struct store_file *f, const char *reason, char *why, size_t why_len)
{
	snprintf(why, why_len, "the state store cannot be used: %s: %s", f->path, reason);
	return (F_STORE);
}

static bool
is_better_opened_anew(int rc)
{
	switch (rc) {
	case SQLITE_IOERR:
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_SCHEMA:
	case SQLITE_ERROR:
		return (true);
	default:
		return (false);
	}
}

static int
file_failed(struct store_file *f, char *why, size_t why_len)
{
	int rc = sqlite3_errcode(f->sqlite), err = sqlite3_system_errno(f->sqlite);
	bool is_system = rc == SQLITE_IOERR || rc == SQLITE_CANTOPEN;
	char reason[256];

	snprintf(reason, sizeof(reason), "%s%s%s", sqlite3_errmsg(f->sqlite),
	    is_system && err != 0 ? ": " : "",
	    is_system && err != 0 ? strerror(err) : "");
	if (!sqlite3_get_autocommit(f->sqlite))
		(void)sqlite3_exec(f->sqlite, "ROLLBACK", NULL, NULL, NULL);
	if (is_better_opened_anew(rc))
		file_close(f);
	return (failed(f, reason, why, why_len));
}

/* ---- statements ---- */

/* A number that SQL answers. */
static int
file_number(struct store_file *f, const char *sql, int64_t *out)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(f->sqlite, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		*out = sqlite3_column_int64(stmt, 0);
		rc = SQLITE_OK;
	}
	(void)sqlite3_finalize(stmt);
	return (rc);
}

int
file_data_version(struct store_file *f, int64_t *out, char *why, size_t why_len)
{
	if (file_number(f, "PRAGMA data_version", out) == SQLITE_OK)
		return (0);
	return (file_failed(f, why, why_len));
}

/* A prepared statement with its parameters, or NULL. */
static sqlite3_stmt *
file_prepare(
    struct store_file *f, const char *sql, const char *const *texts, size_t count)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(f->sqlite, sql, -1, &stmt, NULL);

	for (size_t i = 0; i < count && rc == SQLITE_OK; i++)
		rc = sqlite3_bind_text(stmt, (int)i + 1, texts[i], -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK)
		return (stmt);
	(void)sqlite3_finalize(stmt);
	return (NULL);
}

static enum db_outcome
file_run(struct store_db *db, const char *sql, const char *const *texts, size_t count,
    int64_t *changes)
{
	struct store_file *f = of_db(db);
	sqlite3_stmt *stmt = file_prepare(f, sql, texts, count);
	bool is_taken;
	int rc;

	if (stmt == NULL)
		return (DB_FAILED);
	rc = sqlite3_step(stmt);
	(void)sqlite3_finalize(stmt);
	if (changes != NULL)
		*changes = sqlite3_changes(f->sqlite);
	is_taken = rc == SQLITE_CONSTRAINT &&
		   sqlite3_extended_errcode(f->sqlite) == SQLITE_CONSTRAINT_PRIMARYKEY;
	return (rc == SQLITE_DONE ? DB_DONE : is_taken ? DB_TAKEN : DB_FAILED);
}

static const char *
file_cell(void *arg, size_t column)
{
	return ((const char *)sqlite3_column_text(arg, (int)column));
}

static enum db_outcome
file_select(struct store_db *db, struct store_rows *rows, const char *rest,
    const char *const *texts, size_t count)
{
	sqlite3_stmt *stmt;
	struct buf sql = {0};
	int rc = SQLITE_ERROR;

	buf_addstr(&sql, "SELECT ");
	kind_columns(rows->kind, &sql);
	buf_addf(&sql, " FROM %s%s%c", rows->kind->table, rest, '\0');
	stmt = file_prepare(of_db(db), (const char *)sql.mem, texts, count);
	buf_free(&sql);
	while (stmt != NULL && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
		rows_add(rows, file_cell, stmt);
	(void)sqlite3_finalize(stmt);
	if (rc == SQLITE_DONE)
		return (DB_DONE);
	rows_free(rows);
	return (DB_FAILED);
}

static int
file_begin(struct store_db *db, const struct store_kind *kind, char *why, size_t why_len)
{
	(void)kind;
	return (file_run(db, "BEGIN IMMEDIATE", NULL, 0, NULL) == DB_DONE
		    ? 0
		    : file_failed(of_db(db), why, why_len));
}

static int
file_end(struct store_db *db, int fault, char *why, size_t why_len)
{
	/* It is rolled back, or the file is closed. */
	if (is_store_fault(fault))
		return (fault);
	if (file_run(db, fault == 0 ? "COMMIT" : "ROLLBACK", NULL, 0, NULL) == DB_DONE)
		return (fault);
	return (file_failed(of_db(db), why, why_len));
}

static int
file_say_failed(struct store_db *db, char *why, size_t why_len)
{
	return (file_failed(of_db(db), why, why_len));
}

/* ---- opening ---- */

/* Who works as root for a proxy that does not must leave it a file that it can open. */
static int
give_to_owner_of(int fd, const char *dir)
{
	struct stat st;

	if (geteuid() != 0 || stat(dir, &st) != 0)
		return (0);
	return (fchown(fd, st.st_uid, st.st_gid));
}

/* The directory when its last component alone is missing, then the file; 0 or an errno. */
static int
file_create(const struct store_file *f)
{
	char *dir = mem_strn(f->path, (size_t)(strrchr(f->path, '/') - f->path));
	int fd, err = 0;

	if (dir[0] != '\0' && mkdir(dir, 0700) != 0 && errno != EEXIST)
		err = errno;
	if (err == 0) {
		fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 && errno != EEXIST)
			err = errno;
		if (fd >= 0) {
			if (give_to_owner_of(fd, dir[0] != '\0' ? dir : "/") != 0)
				err = errno;
			close(fd);
		}
	}
	free(dir);
	return (err);
}

/* Whether it is a new file, or one of ours that this program understands. */
static int
file_recognise(struct store_file *f, int64_t *version, char *why, size_t why_len)
{
	int64_t id, tables;
	char reason[160];

	if (file_number(f, "PRAGMA application_id", &id) != SQLITE_OK ||
	    file_number(f, "PRAGMA user_version", version) != SQLITE_OK ||
	    file_number(f, "SELECT count(*) FROM sqlite_master", &tables) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	if (id != APPLICATION_ID && (id != 0 || *version != 0 || tables != 0))
		return (failed(
		    f, "it is a SQLite database of another program", why, why_len));
	if (!version_is_known(*version, reason, sizeof(reason)))
		return (failed(f, reason, why, why_len));
	return (0);
}

static int
file_migrate(struct store_file *f, char *why, size_t why_len)
{
	int64_t version;
	char done[96];
	int fault;

	fault = file_recognise(f, &version, why, why_len);
	if (fault != 0 || version == store_version)
		return (fault);
	/* Looked at again behind the lock: two may be at it. */
	if (sqlite3_exec(f->sqlite, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	fault = file_recognise(f, &version, why, why_len);
	if (fault != 0)
		return (fault);
	for (; version < store_version; version++)
		if (sqlite3_exec(f->sqlite, store_steps[version].sqlite, NULL, NULL,
			NULL) != SQLITE_OK)
			return (file_failed(f, why, why_len));
	snprintf(done, sizeof(done),
	    "PRAGMA application_id=%" PRId64 "; PRAGMA user_version=%" PRId64 "; COMMIT",
	    APPLICATION_ID, store_version);
	if (sqlite3_exec(f->sqlite, done, NULL, NULL, NULL) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	return (0);
}

static int
file_connect(struct store_file *f, char *why, size_t why_len)
{
	int flags = SQLITE_OPEN_READWRITE | (f->is_memory ? SQLITE_OPEN_MEMORY : 0);

	if (sqlite3_open_v2(f->path, &f->sqlite, flags, NULL) != SQLITE_OK) {
		if (f->sqlite == NULL)
			return (failed(f, "out of memory", why, why_len));
		return (file_failed(f, why, why_len));
	}
	if (sqlite3_db_readonly(f->sqlite, "main") == 1)
		return (failed(f, "it can only be read", why, why_len));
	(void)sqlite3_busy_timeout(f->sqlite, BUSY_MS);
	if (sqlite3_exec(f->sqlite,
		"PRAGMA trusted_schema=OFF; PRAGMA journal_mode=WAL; "
		"PRAGMA synchronous=FULL",
		NULL, NULL, NULL) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	return (file_migrate(f, why, why_len));
}

static int
memory_open(struct store_file *f, char *why, size_t why_len)
{
	int fault = f->sqlite != NULL ? 0 : file_connect(f, why, why_len);

	if (fault != 0)
		file_close(f);
	return (fault);
}

/* Opens it, when it is not open yet or another file stands there now. */
static int
file_open(struct store_db *db, bool creates, char *why, size_t why_len)
{
	struct store_file *f = of_db(db);
	struct stat st;
	int fault, err;

	if (f->is_memory)
		return (memory_open(f, why, why_len));
	if (stat(f->path, &st) != 0) {
		err = errno;
		file_close(f);
		if (err != ENOENT)
			return (failed(f, strerror(err), why, why_len));
		if (!creates)
			return (F_NOT_FOUND);
		err = file_create(f);
		if (err == 0 && stat(f->path, &st) != 0)
			err = errno;
		if (err != 0)
			return (failed(f, strerror(err), why, why_len));
	}
	if (f->sqlite != NULL && (st.st_dev != f->dev || st.st_ino != f->ino))
		file_close(f);
	if (f->sqlite != NULL)
		return (0);
	if (!S_ISREG(st.st_mode))
		return (failed(f, "it is no file", why, why_len));
	fault = file_connect(f, why, why_len);
	if (fault != 0) {
		file_close(f);
		return (fault);
	}
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->openings++;
	return (0);
}

static const struct db_ops file_ops = {
    .open = file_open,
    .begin = file_begin,
    .end = file_end,
    .run = file_run,
    .select = file_select,
    .failed = file_say_failed,
};
