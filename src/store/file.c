/*
 * store/file.c: the SQLite file: where it is, opening it, its migrations, and the sentence
 * for what can go wrong.
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

/* Step i leads from version i to i + 1. Never change one that was released. */
static const char *const migrations[] = {
    "CREATE TABLE key ("
    "  id TEXT PRIMARY KEY NOT NULL, secret TEXT NOT NULL, name TEXT, type TEXT,"
    "  virtual TEXT, databases TEXT, rights TEXT, user_id TEXT, read_only TEXT,"
    "  networks TEXT, rate TEXT, concurrency TEXT, expires TEXT, roles TEXT,"
    "  created TEXT, revoked TEXT);"
    "CREATE TABLE job ("
    "  name TEXT PRIMARY KEY NOT NULL, source TEXT, targets TEXT, tables TEXT,"
    "  sync_key TEXT, interval TEXT, enabled TEXT, mode TEXT, overlap TEXT);"
    "CREATE TABLE run ("
    "  job TEXT NOT NULL, run INTEGER NOT NULL, started_us INTEGER, ended_us INTEGER,"
    "  target TEXT, \"table\" TEXT, rows_read INTEGER, rows_written INTEGER,"
    "  rows_deleted INTEGER, bytes INTEGER, outcome TEXT, error TEXT);"
    "CREATE INDEX run_of_job ON run (job, run);",
    "ALTER TABLE key ADD COLUMN former_secret TEXT;"
    "ALTER TABLE key ADD COLUMN former_until TEXT;",
    "CREATE TABLE route ("
    "  virtual TEXT NOT NULL, pattern TEXT NOT NULL, \"database\" TEXT NOT NULL,"
    "  PRIMARY KEY (virtual, pattern));",
};
#define VERSION ((int64_t)ARRAY_LEN(migrations))

/* ---- where it is ---- */

int
file_init(struct store_file *f, const struct settings *set, char *why, size_t why_len)
{
	const char *store = set->state_store;

	*f = (struct store_file){.version = -1};
	if (store[0] == '\0') {
		f->is_explicit =
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
	f->is_explicit = true;
	/* With a directory before it no name means anything special to SQLite. */
	f->path = mem_printf("%s%s", store[7] == '/' ? "" : "./", store + 7);
	return (0);
}

void
file_close(struct store_file *f)
{
	if (f->db != NULL)
		sqlite3_close_v2(f->db);
	f->db = NULL;
	f->version = -1;
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

int
file_failed(struct store_file *f, char *why, size_t why_len)
{
	int rc = sqlite3_errcode(f->db), err = sqlite3_system_errno(f->db);
	bool is_system = rc == SQLITE_IOERR || rc == SQLITE_CANTOPEN;
	char reason[256];

	snprintf(reason, sizeof(reason), "%s%s%s", sqlite3_errmsg(f->db),
	    is_system && err != 0 ? ": " : "",
	    is_system && err != 0 ? strerror(err) : "");
	if (!sqlite3_get_autocommit(f->db))
		(void)sqlite3_exec(f->db, "ROLLBACK", NULL, NULL, NULL);
	if (is_better_opened_anew(rc))
		file_close(f);
	return (failed(f, reason, why, why_len));
}

int
file_run(struct store_file *f, const char *sql, const char *const *texts, size_t count)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL);

	for (size_t i = 0; i < count && rc == SQLITE_OK; i++)
		rc = sqlite3_bind_text(stmt, (int)i + 1, texts[i], -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
		rc = SQLITE_OK;
	(void)sqlite3_finalize(stmt);
	return (rc);
}

int
file_number(struct store_file *f, const char *sql, int64_t *out)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		*out = sqlite3_column_int64(stmt, 0);
		rc = SQLITE_OK;
	}
	(void)sqlite3_finalize(stmt);
	return (rc);
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
	if (*version > VERSION) {
		snprintf(reason, sizeof(reason),
		    "a newer pgweave has used it: its schema has version %" PRId64
		    ", this one knows %" PRId64,
		    *version, VERSION);
		return (failed(f, reason, why, why_len));
	}
	return (0);
}

static int
file_migrate(struct store_file *f, char *why, size_t why_len)
{
	int64_t version;
	char done[96];
	int fault;

	fault = file_recognise(f, &version, why, why_len);
	if (fault != 0 || version == VERSION)
		return (fault);
	/* Looked at again behind the lock: two may be at it. */
	if (sqlite3_exec(f->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	fault = file_recognise(f, &version, why, why_len);
	if (fault != 0)
		return (fault);
	for (; version < VERSION; version++)
		if (sqlite3_exec(f->db, migrations[version], NULL, NULL, NULL) !=
		    SQLITE_OK)
			return (file_failed(f, why, why_len));
	snprintf(done, sizeof(done),
	    "PRAGMA application_id=%" PRId64 "; PRAGMA user_version=%" PRId64 "; COMMIT",
	    APPLICATION_ID, VERSION);
	if (sqlite3_exec(f->db, done, NULL, NULL, NULL) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	return (0);
}

static int
file_connect(struct store_file *f, char *why, size_t why_len)
{
	if (sqlite3_open_v2(f->path, &f->db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
		if (f->db == NULL)
			return (failed(f, "out of memory", why, why_len));
		return (file_failed(f, why, why_len));
	}
	if (sqlite3_db_readonly(f->db, "main") == 1)
		return (failed(f, "it can only be read", why, why_len));
	(void)sqlite3_busy_timeout(f->db, BUSY_MS);
	if (sqlite3_exec(f->db,
		"PRAGMA trusted_schema=OFF; PRAGMA journal_mode=WAL; "
		"PRAGMA synchronous=FULL",
		NULL, NULL, NULL) != SQLITE_OK)
		return (file_failed(f, why, why_len));
	return (file_migrate(f, why, why_len));
}

int
file_open(struct store_file *f, bool creates, char *why, size_t why_len)
{
	struct stat st;
	int fault, err;

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
	if (f->db != NULL && (st.st_dev != f->dev || st.st_ino != f->ino))
		file_close(f);
	if (f->db != NULL)
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
	return (0);
}
