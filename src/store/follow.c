/*
 * store/follow.c: a copy of the shared store, kept in step with it by LISTEN: it is what the
 * proxy reads, and so what it serves while the server is down, also after a restart.
 *
 *   server --notification, or a new connection--> here: read, compare --> copy --> announce
 *
 * The copy is a file in state_dir; where there can be none it is in memory, and gone with the
 * process. In its table of runs stand those that the server has not taken yet.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BEAT_US INT64_C(5000000)

/* Jobs before their runs. */
static const struct store_kind *const kinds[] = {
    &store_key_kind, &store_route_kind, &store_job_kind, &store_run_kind};
#define KINDS  ARRAY_LEN(kinds)
#define COPIED (KINDS - 1) /* the runs stay on the server */

/* ---- the copy ---- */

/* The rows in place of those that are there. */
static int
copy_write(struct store_db *db, const struct store_rows *rows, char *why, size_t why_len)
{
	int fault = db->ops->open(db, true, why, why_len);
	char sql[64];

	if (fault != 0 || (fault = db->ops->begin(db, rows->kind, why, why_len)) != 0)
		return (fault);
	snprintf(sql, sizeof(sql), "DELETE FROM %s", rows->kind->table);
	if (db->ops->run(db, sql, NULL, 0, NULL) != DB_DONE)
		fault = db->ops->failed(db, why, why_len);
	for (size_t i = 0; i < rows->count && fault == 0; i++)
		fault = work_insert(db, rows->kind, rows->rows[i], why, why_len);
	return (db->ops->end(db, fault, why, why_len));
}

/* From the file to memory, with what can be read of it. */
static void
copy_leave_file(struct store *st, const char *why)
{
	struct store_rows rows[KINDS];
	char unused[512];

	log_warning("%s; the last known state of database %s is kept in memory alone: it "
		    "will not be known after a restart while that is down",
	    why, st->server.database->name);
	for (size_t i = 0; i < KINDS; i++) {
		rows[i] = (struct store_rows){.kind = kinds[i]};
		(void)!work_load(
		    &st->file.db, &rows[i], NULL, -1, unused, sizeof(unused));
	}
	file_fini(&st->file);
	file_init_copy(&st->file, NULL);
	for (size_t i = 0; i < KINDS; i++) {
		(void)!copy_write(&st->file.db, &rows[i], unused, sizeof(unused));
		rows_free(&rows[i]);
	}
}

static void
copy_put(struct store *st, const struct store_rows *rows)
{
	char why[512], again[512], *path;

	if (copy_write(&st->file.db, rows, why, sizeof(why)) == 0)
		return;
	/* What stays behind in the file must not be taken for the last state. */
	path = mem_str(st->file.path);
	if (!st->file.is_memory) {
		copy_leave_file(st, why);
		(void)unlink(path);
	}
	free(path);
	if (copy_write(&st->file.db, rows, again, sizeof(again)) != 0)
		log_error("%s", again);
}

/* "STATE_DIR/NAME.copy.db"; what is odd in a file's name becomes %XX. */
static char *
copy_path(const struct settings *set, const char *name)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789_-";
	struct buf b = {0};
	char *path;

	for (; *name != '\0'; name++)
		buf_addf(&b, strchr(plain, *name) != NULL ? "%c" : "%%%02X",
		    (unsigned char)*name);
	buf_add(&b, "", 1);
	path = mem_printf("%s/%s.copy.db", set->state_dir, (const char *)b.mem);
	buf_free(&b);
	return (path);
}

static void
copy_open(struct store *st, const struct settings *set)
{
	char *path = copy_path(set, st->server.database->name);
	char why[512];

	file_init_copy(&st->file, set->state_dir[0] != '\0' ? path : NULL);
	free(path);
	if (st->file.db.ops->open(&st->file.db, true, why, sizeof(why)) != 0)
		copy_leave_file(st, why);
}

/* ---- reading ---- */

static bool
refresh_kind(struct store *st, const struct store_kind *kind)
{
	struct store_rows now = {.kind = kind}, was = {.kind = kind};
	char why[600];
	bool is_read;

	is_read = work_load(&st->server.db, &now, NULL, -1, why, sizeof(why)) == 0;
	/* Read again when it has been opened again. */
	if (!is_read && st->server.is_open)
		server_lost(&st->server);
	if (is_read && (work_load(&st->file.db, &was, NULL, -1, why, sizeof(why)) != 0 ||
			   !rows_same(&now, &was))) {
		copy_put(st, &now);
		st->generation++;
	}
	rows_free(&now);
	rows_free(&was);
	return (is_read);
}

/* The rows of that kind are those of the server, and all of them when another file stands where
 * the copy was. False: they cannot be read. */
static bool
refresh(struct store *st, const struct store_kind *kind)
{
	bool is_read = true, is_other;
	char why[512];

	is_other = st->file.db.ops->open(&st->file.db, true, why, sizeof(why)) != 0 ||
		   st->file.openings != st->copy_openings;
	if (!is_other)
		return (refresh_kind(st, kind));
	for (size_t i = 0; i < COPIED && is_read; i++)
		is_read = refresh_kind(st, kinds[i]);
	if (is_read)
		st->copy_openings = st->file.openings;
	return (is_read);
}

/* The runs that were kept here go to the server, all or none. */
static void
send_runs(struct store *st)
{
	struct store_rows runs = {.kind = &store_run_kind}, none = runs;
	struct store_db *to = &st->server.db;
	char why[600];
	int fault;

	if (work_load(&st->file.db, &runs, NULL, -1, why, sizeof(why)) != 0 ||
	    runs.count == 0 || to->ops->begin(to, runs.kind, why, sizeof(why)) != 0) {
		rows_free(&runs);
		return;
	}
	/* The newest is the first. */
	fault = 0;
	for (size_t i = runs.count; i-- > 0 && fault == 0;)
		fault = work_insert(to, runs.kind, runs.rows[i], why, sizeof(why));
	fault = to->ops->end(to, fault, why, sizeof(why));
	if (fault == 0)
		copy_put(st, &none);
	else
		log_warning("%s: runs of jobs are not kept there yet", why);
	rows_free(&runs);
}

static void
read_all(struct store *st)
{
	bool is_read = true;

	send_runs(st);
	for (size_t i = 0; i < COPIED && is_read; i++)
		is_read = refresh(st, kinds[i]);
	if (!is_read)
		return;
	st->server.is_fresh = false;
	st->server.backoff_us = BACKOFF_US;
	st->beat_at_us = clock_us() + BEAT_US;
	thread_announce();
}

/* What other proxies have told, and whether it was anything. */
static bool
read_told(struct store *st)
{
	struct store_server *s = &st->server;
	bool is_told[KINDS] = {false}, is_any = false;
	PGnotify *n;

	if (!PQconsumeInput(s->conn)) {
		side_error_text(PQerrorMessage(s->conn), s->error, sizeof(s->error));
		server_lost(s);
		return (false);
	}
	while ((n = PQnotifies(s->conn)) != NULL) {
		/* What was done here has been read. */
		for (size_t i = 0; i < KINDS && n->be_pid != PQbackendPID(s->conn); i++)
			if (strcmp(n->extra, kinds[i]->table) == 0)
				is_any = is_told[i] = true;
		PQfreemem(n);
	}
	for (size_t i = 0; i < COPIED; i++)
		if (is_told[i] && s->is_open)
			(void)refresh(st, kinds[i]);
	if (is_any)
		thread_announce();
	return (is_any);
}

/* ---- the turn ---- */

/* A change for the better or the worse, once. */
static void
say(struct store *st)
{
	struct store_server *s = &st->server;
	char text[1300];

	if (s->is_open && (!st->is_said || st->said[0] != '\0')) {
		server_place(s, text, sizeof(text));
		log_info("state store: %s: connected", text);
		st->said[0] = '\0';
		st->is_said = true;
	}
	if (s->is_open || s->why[0] == '\0' || strcmp(st->said, s->why) == 0)
		return;
	(void)server_down(s, text, sizeof(text));
	log_warning(
	    "%s; its last known state is served, and nothing of it can be changed "
	    "until it is back",
	    text);
	(void)text_copy(st->said, sizeof(st->said), s->why);
	st->is_said = true;
}

/* A peer that is gone without a word is found out, and claims are held on. */
static void
beat(struct store *st)
{
	PGresult *r;

	st->beat_at_us = clock_us() + BEAT_US;
	if (st->claim_count > 0) {
		claims_renew(st);
		return;
	}
	r = server_exec(&st->server, "", NULL, 0);
	PQclear(r);
}

void
follow_turn(struct store *st)
{
	struct store_server *s = &st->server;

	if (!st->is_shared)
		return;
	if (server_step(s) && s->is_fresh)
		read_all(st);
	if (s->is_open && clock_us() >= st->beat_at_us)
		beat(st);
	/* Last, and until there is no more: what came while something else was read would
	 * not wake anybody. */
	while (s->is_open && read_told(st))
		continue;
	say(st);
}

void
follow_start(struct store *st)
{
	(void)server_wait(&st->server);
	follow_turn(st);
}

int
follow_wait(const struct store *st, short *events, int *timeout_ms)
{
	int64_t due_us, left_us;

	*timeout_ms = -1;
	if (!st->is_shared)
		return (-1);
	due_us = server_due_us(&st->server);
	if (st->server.is_open)
		due_us = st->beat_at_us;
	left_us = due_us - clock_us();
	*timeout_ms = left_us > 0 ? (int)(left_us / 1000) + 1 : 0;
	return (server_socket(&st->server, events));
}

void
follow_changed(struct store *st, const struct store_kind *kind)
{
	if (!st->is_shared || !st->server.is_open || st->server.is_fresh)
		return;
	if (kind != &store_run_kind)
		(void)refresh(st, kind);
}

int
follow_keep_run(struct store *st, const struct store_run *run, char *why, size_t why_len)
{
	return (work_put(&st->file.db, &store_run_kind, run, why, why_len));
}

/* ---- beginning and end ---- */

int
store_init(struct store *st, const struct topo *topo, const struct settings *set,
    const struct topo_database *shared, char *why, size_t why_len)
{
	*st = (struct store){.is_shared = shared != NULL, .read_generation = -1};
	if (shared == NULL) {
		st->truth = &st->file.db;
		return (file_init(&st->file, set, why, why_len));
	}
	server_init(&st->server, topo, shared);
	st->truth = &st->server.db;
	copy_open(st, set);
	return (0);
}

void
store_fini(struct store *st)
{
	if (st->is_shared) {
		claims_leave(st);
		server_fini(&st->server);
	}
	file_fini(&st->file);
}
