/*
 * store/schema.c: the tables of the store, in steps, for SQLite and for PostgreSQL.
 *
 * Texts are compared as bytes in both. Where SQLite has its rowid PostgreSQL has a column of
 * that name. Never change a step that was released.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>

#define PG_ROWID "rowid bigint GENERATED ALWAYS AS IDENTITY"
#define PG_WORD  "text COLLATE \"C\""

const struct store_step store_steps[] = {
    {.sqlite =
	    "CREATE TABLE key ("
	    "  id TEXT PRIMARY KEY NOT NULL, secret TEXT NOT NULL, name TEXT, type TEXT,"
	    "  virtual TEXT, databases TEXT, rights TEXT, user_id TEXT, read_only TEXT,"
	    "  networks TEXT, rate TEXT, concurrency TEXT, expires TEXT, roles TEXT,"
	    "  created TEXT, revoked TEXT);"
	    "CREATE TABLE job ("
	    "  name TEXT PRIMARY KEY NOT NULL, source TEXT, targets TEXT, tables TEXT,"
	    "  sync_key TEXT, interval TEXT, enabled TEXT, mode TEXT, overlap TEXT);"
	    "CREATE TABLE run ("
	    "  job TEXT NOT NULL, run INTEGER NOT NULL, started_us INTEGER,"
	    "  ended_us INTEGER, target TEXT, \"table\" TEXT, rows_read INTEGER,"
	    "  rows_written INTEGER, rows_deleted INTEGER, bytes INTEGER, outcome TEXT,"
	    "  error TEXT);"
	    "CREATE INDEX run_of_job ON run (job, run);",
	.postgres =
	    "CREATE TABLE key (" PG_ROWID ", id " PG_WORD
	    " PRIMARY KEY, secret text NOT NULL, name " PG_WORD
	    ", type text, virtual text, databases text, rights text, user_id text,"
	    "  read_only text, networks text, rate text, concurrency text, expires text,"
	    "  roles text, created text, revoked text);"
	    "CREATE TABLE job (" PG_ROWID ", name " PG_WORD
	    " PRIMARY KEY, source text, targets text, tables text, sync_key text,"
	    "  \"interval\" text, enabled text, mode text, \"overlap\" text);"
	    "CREATE TABLE run (" PG_ROWID " PRIMARY KEY, job " PG_WORD
	    " NOT NULL, run bigint NOT NULL, started_us bigint, ended_us bigint,"
	    "  target text, \"table\" text, rows_read bigint, rows_written bigint,"
	    "  rows_deleted bigint, bytes bigint, outcome text, error text);"
	    "CREATE INDEX run_of_job ON run (job, run);"},
    {.sqlite = "ALTER TABLE key ADD COLUMN former_secret TEXT;"
	       "ALTER TABLE key ADD COLUMN former_until TEXT;",
	.postgres = "ALTER TABLE key ADD COLUMN former_secret text,"
		    "  ADD COLUMN former_until " PG_WORD ";"},
    /* Claims are only for proxies that share a store. */
    {.sqlite =
	    "CREATE TABLE route ("
	    "  virtual TEXT NOT NULL, pattern TEXT NOT NULL, \"database\" TEXT NOT NULL,"
	    "  PRIMARY KEY (virtual, pattern));",
	.postgres = "CREATE TABLE route (" PG_ROWID ", virtual " PG_WORD
		    " NOT NULL, pattern " PG_WORD " NOT NULL, \"database\" text NOT NULL,"
		    "  PRIMARY KEY (virtual, pattern));"
		    "CREATE TABLE claim (job " PG_WORD
		    " PRIMARY KEY, holder text NOT NULL, run bigint NOT NULL,"
		    "  started timestamptz NOT NULL, until timestamptz);"},
};
const int64_t store_version = ARRAY_LEN(store_steps);

bool
version_is_known(int64_t version, char *reason, size_t size)
{
	if (version <= store_version)
		return (true);
	snprintf(reason, size,
	    "a newer pgweave has used it: its schema has version %" PRId64
	    ", this one knows %" PRId64,
	    version, store_version);
	return (false);
}
