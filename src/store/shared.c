/*
 * store/shared.c: the store in a PostgreSQL database: its schema, and transactions.
 *
 * One change at a time, of all proxies: each transaction takes the same advisory lock first,
 * so that what is looked at holds until the end. What has changed is notified in the
 * transaction itself.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The one that replicate takes when it makes its table in the same schema. */
#define SCHEMA_LOCK "7813428071551"
#define CHANGE_LOCK "7813428071552"

static struct store_server *
of_db(struct store_db *db)
{
	INVARIANT(db->ops == &shared_ops);
	return (CONTAINER_OF(db, struct store_server, db));
}

/* ---- the schema ---- */

/* Runs it and drops what it answers. */
static int
command(struct store_server *s, const char *sql)
{
	PGresult *r = server_exec(s, sql, NULL, 0);

	PQclear(r);
	return (r != NULL ? 0 : F_STORE_DOWN);
}

/* The answer's first column, which the caller frees; NULL: it failed. */
static char *
answer(struct store_server *s, const char *sql)
{
	PGresult *r = server_exec(s, sql, NULL, 0);
	char *text = NULL;

	if (r != NULL && PQntuples(r) > 0)
		text = mem_str(PQgetvalue(r, 0, 0));
	PQclear(r);
	return (text);
}

/* What has to be granted when the role may not do something. */
static void
say_rights(struct store_server *s, const char *what)
{
	char error[sizeof(s->error)];

	if (strcmp(s->sqlstate, "42501") != 0)
		return;
	(void)text_copy(error, sizeof(error), s->error);
	snprintf(s->error, sizeof(s->error), "%.200s: %.200s TO \"%.60s\" is needed",
	    error, what, PQuser(s->conn));
}

/* 0: there is none; -1: it failed. */
static int64_t
version_read(struct store_server *s)
{
	/* Not to_regclass(): behind a lock that had to be waited for it may say what was. */
	char *text = answer(s,
	    "SELECT coalesce((SELECT CASE WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE') "
	    "THEN 'there' ELSE 'shut' END FROM pg_catalog.pg_class c JOIN "
	    "pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '" STORE_SCHEMA
	    "' AND c.relname = 'state'), 'none')");
	int64_t version = 0;
	bool is_shut = text != NULL && text[0] == 's';
	bool is_none = text != NULL && text[0] == 'n';

	if (text == NULL)
		return (-1);
	free(text);
	if (is_none)
		return (0);
	text = answer(s, "SELECT version FROM " STORE_SCHEMA ".state");
	if (text == NULL) {
		say_rights(s,
		    is_shut
			? "GRANT USAGE ON SCHEMA " STORE_SCHEMA
			: "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " STORE_SCHEMA);
		if (s->sqlstate[0] == '\0')
			(void)text_copy(s->error, sizeof(s->error),
			    "its table " STORE_SCHEMA ".state is empty");
		return (-1);
	}
	version = strtoll(text, NULL, 10);
	free(text);
	if (version_is_known(version, s->error, sizeof(s->error)))
		return (version);
	s->sqlstate[0] = '\0';
	return (-1);
}

static int
schema_create(struct store_server *s)
{
	char what[120];
	char *there = answer(s,
	    "SELECT count(*) > 0 FROM pg_catalog.pg_namespace WHERE nspname = '" STORE_SCHEMA
	    "'");
	bool is_there = there != NULL && there[0] == 't';

	if (there == NULL)
		return (F_STORE_DOWN);
	free(there);
	if (is_there || command(s, "CREATE SCHEMA " STORE_SCHEMA) == 0)
		return (0);
	snprintf(what, sizeof(what), "GRANT CREATE ON DATABASE \"%.60s\"", PQdb(s->conn));
	say_rights(s, what);
	return (F_STORE_DOWN);
}

/* The steps from that version on; in a transaction, nobody else being at it. */
static int
schema_steps(struct store_server *s, int64_t version)
{
	static const char rights[] = "GRANT USAGE, CREATE ON SCHEMA " STORE_SCHEMA;
	char done[80];

	if (schema_create(s) != 0)
		return (F_STORE_DOWN);
	if (version == 0 &&
	    command(s, "CREATE TABLE " STORE_SCHEMA ".state (version bigint NOT NULL);"
		       "INSERT INTO " STORE_SCHEMA ".state VALUES (0)") != 0) {
		say_rights(s, rights);
		return (F_STORE_DOWN);
	}
	for (; version < store_version; version++)
		if (command(s, store_steps[version].postgres) != 0) {
			say_rights(s, rights);
			return (F_STORE_DOWN);
		}
	snprintf(done, sizeof(done),
	    "UPDATE " STORE_SCHEMA ".state SET version = %" PRId64, store_version);
	return (command(s, done));
}

static int
schema_migrate(struct store_server *s)
{
	char error[sizeof(s->error)], sqlstate[sizeof(s->sqlstate)];
	int64_t version;
	int fault;

	fault = command(s, "BEGIN ISOLATION LEVEL READ COMMITTED; "
			   "SELECT pg_catalog.pg_advisory_xact_lock(" SCHEMA_LOCK ")");
	/* Looked at again behind the lock: two may be at it. */
	version = fault == 0 ? version_read(s) : -1;
	if (version < 0)
		fault = F_STORE_DOWN;
	else if (version < store_version)
		fault = schema_steps(s, version);
	if (fault == 0)
		return (command(s, "COMMIT"));
	(void)text_copy(error, sizeof(error), s->error);
	(void)text_copy(sqlstate, sizeof(sqlstate), s->sqlstate);
	(void)!command(s, "ROLLBACK");
	(void)text_copy(s->error, sizeof(s->error), error);
	(void)text_copy(s->sqlstate, sizeof(s->sqlstate), sqlstate);
	return (fault);
}

/* Whether what the role will have to do is allowed, before somebody does it. */
static int
rights_check(struct store_server *s)
{
	static const char *const tables[] = {"key", "job", "run", "route", "claim"};
	char *text, *sql;
	bool has_all = true;

	for (size_t i = 0; i < ARRAY_LEN(tables) && has_all; i++) {
		sql = mem_printf(
		    "SELECT pg_catalog.has_table_privilege('" STORE_SCHEMA
		    ".%s', 'SELECT') AND pg_catalog.has_table_privilege('" STORE_SCHEMA
		    ".%s', 'INSERT') AND pg_catalog.has_table_privilege('" STORE_SCHEMA
		    ".%s', 'UPDATE') AND pg_catalog.has_table_privilege('" STORE_SCHEMA
		    ".%s', 'DELETE')",
		    tables[i], tables[i], tables[i], tables[i]);
		text = answer(s, sql);
		free(sql);
		if (text == NULL)
			return (F_STORE_DOWN);
		has_all = text[0] == 't';
		if (!has_all) {
			snprintf(s->error, sizeof(s->error),
			    "permission denied for table %s", tables[i]);
			text_copy(s->sqlstate, sizeof(s->sqlstate), "42501");
			say_rights(s,
			    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN "
			    "SCHEMA " STORE_SCHEMA);
		}
		free(text);
	}
	return (has_all ? 0 : F_STORE_DOWN);
}

int
shared_prepare(struct store_server *s)
{
	int64_t version = version_read(s);
	int fault = version < 0 ? F_STORE_DOWN : 0;

	if (fault == 0 && version < store_version)
		fault = schema_migrate(s);
	if (fault == 0)
		fault = rights_check(s);
	/* What is answered is on disk, whatever the server does by itself. Listening comes
	 * before reading: what changes in between is told. */
	if (fault == 0)
		fault = command(s,
		    "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) "
		    "WHERE pg_catalog.current_setting('synchronous_commit') = 'off'; "
		    "LISTEN " STORE_CHANNEL);
	return (fault);
}

/* ---- transactions ---- */

static int
shared_open(struct store_db *db, bool creates, char *why, size_t why_len)
{
	struct store_server *s = of_db(db);

	(void)creates;
	return (server_wait(s) ? 0 : server_down(s, why, why_len));
}

static int
shared_failed(struct store_db *db, char *why, size_t why_len)
{
	struct store_server *s = of_db(db);
	char place[600];

	/* The connection is lost. */
	if (!s->is_open)
		return (server_down(s, why, why_len));
	server_place(s, place, sizeof(place));
	snprintf(why, why_len, "the state store cannot be used: %s: %s", place, s->error);
	if (s->touched != NULL)
		(void)!command(s, "ROLLBACK");
	s->touched = NULL;
	return (F_STORE);
}

static int
shared_begin(
    struct store_db *db, const struct store_kind *kind, char *why, size_t why_len)
{
	struct store_server *s = of_db(db);

	INVARIANT(s->touched == NULL);
	s->changes = 0;
	if (command(s, "BEGIN ISOLATION LEVEL READ COMMITTED") != 0)
		return (shared_failed(db, why, why_len));
	s->touched = kind;
	/* Behind it: a snapshot taken before would not see what the one before has done. */
	if (command(s, "SELECT pg_catalog.pg_advisory_xact_lock(" CHANGE_LOCK ")") != 0)
		return (shared_failed(db, why, why_len));
	return (0);
}

/* "" when nothing has to be told. */
static char *
notify_sql(const struct store_server *s)
{
	return (s->changes > 0
		    ? mem_printf("SELECT pg_catalog.pg_notify('" STORE_CHANNEL "', '%s')",
			  s->touched->table)
		    : mem_str(""));
}

static int
shared_end(struct store_db *db, int fault, char *why, size_t why_len)
{
	struct store_server *s = of_db(db);
	char *notify;

	if (is_store_fault(fault))
		return (fault);
	INVARIANT(s->touched != NULL);
	notify = notify_sql(s);
	if (fault == 0 && notify[0] != '\0' && command(s, notify) != 0)
		fault = shared_failed(db, why, why_len);
	free(notify);
	if (is_store_fault(fault))
		return (fault);
	if (command(s, fault == 0 ? "COMMIT" : "ROLLBACK") == 0) {
		s->touched = NULL;
		return (fault);
	}
	if (fault == 0 && !s->is_open) {
		(void)server_down(s, why, why_len);
		text_copy(why + strlen(why), why_len - strlen(why),
		    " (the connection was lost at the very end: it may have been done)");
		return (F_STORE_DOWN);
	}
	return (shared_failed(db, why, why_len));
}

static enum db_outcome
shared_run(struct store_db *db, const char *sql, const char *const *texts, size_t count,
    int64_t *changes)
{
	struct store_server *s = of_db(db);
	PGresult *r = server_exec(s, sql, texts, count);
	int64_t rows;

	if (r == NULL)
		return (strcmp(s->sqlstate, "23505") == 0 ? DB_TAKEN : DB_FAILED);
	rows = strtoll(PQcmdTuples(r), NULL, 10);
	s->changes += rows;
	if (changes != NULL)
		*changes = rows;
	PQclear(r);
	return (DB_DONE);
}

struct cells {
	const PGresult *result;
	int row;
};

static const char *
shared_cell(void *arg, size_t column)
{
	const struct cells *c = arg;

	return (PQgetisnull(c->result, c->row, (int)column)
		    ? NULL
		    : PQgetvalue(c->result, c->row, (int)column));
}

static enum db_outcome
shared_select(struct store_db *db, struct store_rows *rows, const char *rest,
    const char *const *texts, size_t count)
{
	struct store_server *s = of_db(db);
	struct buf sql = {0};
	struct cells cells = {0};
	PGresult *r;

	buf_addstr(&sql, "SELECT ");
	kind_columns(rows->kind, &sql);
	buf_addf(&sql, " FROM %s%s%c", rows->kind->table, rest, '\0');
	r = server_exec(s, (const char *)sql.mem, texts, count);
	buf_free(&sql);
	if (r == NULL)
		return (DB_FAILED);
	cells.result = r;
	for (; cells.row < PQntuples(r); cells.row++)
		rows_add(rows, shared_cell, &cells);
	PQclear(r);
	return (DB_DONE);
}

const struct db_ops shared_ops = {
    .open = shared_open,
    .begin = shared_begin,
    .end = shared_end,
    .run = shared_run,
    .select = shared_select,
    .failed = shared_failed,
};
