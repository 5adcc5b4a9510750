/*
 * Prepared statements of clients: client name -> statement. A statement is known by its text
 * and parameter types; links know it by the hash of both, whatever the client calls it.
 */
#include "carry.h"
#include <stdlib.h>
#include <string.h>

static bool
stmt_same(const struct table_node *n, const void *key)
{
	const struct stmt *st = CONTAINER_OF(n, const struct stmt, node);
	const struct hash128 *id = key;

	return (st->id.hi == id->hi && st->id.lo == id->lo);
}

/* PREPARE, EXECUTE, DEALLOCATE or what reads pg_prepared_statements, alone in its text. */
static enum sql_prepare_kind
prepare_kind(const char *sql, size_t len, bool names_view)
{
	enum sql_prepare_kind kind = SQL_PREPARE_NONE;
	struct sql_prepare p;
	struct sql_view view;
	struct sql_scan scan;

	if (!names_view && sql_prepare_may(sql, len) <= 0 &&
	    sql_listen_may(sql, len, true) <= 0)
		return (kind);
	sql_scan(sql, len, &scan);
	if (scan.next == NULL &&
	    (sql_prepare_read(&scan, &p) || sql_listen_read(&scan, &p))) {
		kind = p.kind;
		sql_prepare_free(&p);
	} else if (names_view && scan.next == NULL && sql_view_read(&scan, &view)) {
		kind = SQL_PREPARE_VIEW;
		sql_view_free(&view);
	}
	sql_scan_free(&scan);
	return (kind);
}

static bool
is_lone(const char *sql, size_t len)
{
	bool is_template;
	char *name =
	    sql_lone_may(sql, len) ? sql_lone_database(sql, len, &is_template) : NULL;

	free(name);
	return (name != NULL);
}

struct stmt *
stmt_intern_as(struct worker *w, struct hash128 id, const char *sql, size_t sql_len,
    const uint8_t *types, size_t types_len)
{
	struct session_worker *sw = session_worker(w);
	struct table_node *n = table_find(&sw->known, id.lo, stmt_same, &id);
	struct stmt *st;
	unsigned leaves;

	if (n != NULL) {
		st = CONTAINER_OF(n, struct stmt, node);
		st->refs++;
		return (st);
	}
	st = mem_alloc(sizeof(*st) + sql_len + 1 + types_len);
	st->id = id;
	st->refs = 1;
	st->sql_len = (uint32_t)sql_len;
	st->types_len = (uint32_t)types_len;
	memcpy(st->data, sql, sql_len);
	memcpy(st->data + sql_len + 1, types, types_len);
	leaves = carry_leaves((const char *)st->data, sql_len);
	st->prepare = prepare_kind(
	    (const char *)st->data, sql_len, (leaves & SQL_LEAVES_VIEW) != 0);
	if (st->prepare == SQL_PREPARE_VIEW)
		st->views = mem_alloc(sizeof(*st->views));
	st->is_lone = is_lone((const char *)st->data, sql_len);
	/* Shared listening links hear for it: see listen.h. */
	st->leaves = (uint16_t)(leaves & ~(SQL_LEAVES_LISTENER | SQL_LEAVES_VIEW));
	table_add(&sw->known, &st->node, id.lo);
	sw->known_bytes += sizeof(*st) + st->sql_len + st->types_len + 1;
	return (st);
}

struct stmt *
stmt_intern(struct worker *w, const struct proto_parse *p)
{
	return (stmt_intern_as(w, hash_pair(p->sql, p->sql_len, p->types, p->types_len),
	    p->sql, p->sql_len, p->types, p->types_len));
}

void
stmt_release(struct worker *w, struct stmt *st)
{
	struct session_worker *sw = session_worker(w);

	INVARIANT(st->refs > 0);
	if (--st->refs > 0)
		return;
	table_remove(&sw->known, &st->node);
	sw->known_bytes -= sizeof(*st) + st->sql_len + st->types_len + 1;
	if (st->sense != NULL)
		sense_end(st->sense);
	free(st->sense);
	for (unsigned i = 0; st->views != NULL && i < STMT_VIEWS; i++)
		free(st->views->sent[i]);
	free(st->views);
	free(st->clean);
	free(st->declared);
	free(st);
}

static bool
name_same(const struct table_node *n, const void *key)
{
	return (strcmp(CONTAINER_OF(n, struct stmt_name, node)->name, key) == 0);
}

struct stmt_name *
stmt_name_find(const struct session *s, const char *name)
{
	struct statements *all = s->statements;
	struct table_node *n;

	if (all == NULL)
		return (NULL);
	if (all->last != NULL && strcmp(all->last->name, name) == 0)
		return (all->last);
	n = table_find(&all->names, hash_bytes(name, strlen(name)), name_same, name);
	if (n == NULL)
		return (NULL);
	all->last = CONTAINER_OF(n, struct stmt_name, node);
	return (all->last);
}

struct stmt_name *
stmt_name_add(struct session *s, const char *name, struct stmt *st)
{
	size_t len = strlen(name);
	struct stmt_name *n = mem_alloc(sizeof(*n) + len + 1);

	if (s->statements == NULL)
		s->statements = mem_alloc(sizeof(*s->statements));
	n->stmt = st;
	memcpy(n->name, name, len + 1);
	stmt_name_put_back(s, n);
	return (n);
}

/* What the name takes of what the client may have. */
static size_t
name_cost(const struct stmt_name *n)
{
	return (stmt_name_bytes(n->name, n->stmt->sql_len) +
		(n->said != NULL ? n->said->len : 0));
}

struct stmt_said *
stmt_said_make(const char *sql, size_t len)
{
	struct stmt_said *said = mem_alloc(sizeof(*said) + len + 1);

	said->refs = 1;
	said->len = (uint32_t)len;
	memcpy(said->text, sql, len);
	return (said);
}

void
stmt_said_release(struct stmt_said *said)
{
	INVARIANT(said->refs > 0);
	if (--said->refs == 0)
		free(said);
}

void
stmt_name_say(struct session *s, struct stmt_name *n, struct stmt_said *said)
{
	INVARIANT(n->said == NULL && n->is_listed);
	if (said == NULL)
		return;
	said->refs++;
	n->said = said;
	s->statements->bytes += said->len;
}

void
stmt_name_put_back(struct session *s, struct stmt_name *n)
{
	table_add(&s->statements->names, &n->node, hash_bytes(n->name, strlen(n->name)));
	n->is_listed = true;
	s->statements->bytes += name_cost(n);
}

size_t
stmt_name_bytes(const char *name, size_t sql_len)
{
	return (sizeof(struct stmt_name) + strlen(name) + sizeof(struct stmt) + sql_len);
}

bool
statements_have_room(const struct session *s, const char *name, size_t sql_len)
{
	return (s->statements == NULL ||
		s->statements->bytes + stmt_name_bytes(name, sql_len) <=
		    SESSION_STATEMENTS_MAX);
}

static void
stmt_name_free_if_done(struct session *s, struct stmt_name *n)
{
	if (n->is_listed || n->pending > 0)
		return;
	stmt_release(s->worker, n->stmt);
	if (n->said != NULL)
		stmt_said_release(n->said);
	free(n);
}

void
stmt_name_take_out(struct session *s, struct stmt_name *n)
{
	INVARIANT(n->is_listed);
	table_remove(&s->statements->names, &n->node);
	n->is_listed = false;
	if (s->statements->last == n)
		s->statements->last = NULL;
	s->statements->bytes -= name_cost(n);
	stmt_name_free_if_done(s, n);
}

void
stmt_name_unpend(struct session *s, struct stmt_name *n)
{
	INVARIANT(n->pending > 0);
	n->pending--;
	stmt_name_free_if_done(s, n);
}

void
stmt_unnamed_set(struct session *s, struct stmt *st)
{
	if (s->unnamed != NULL)
		stmt_release(s->worker, s->unnamed);
	s->unnamed = st;
}

void
statements_clear(struct session *s)
{
	struct table_node *n;

	if (s->statements == NULL)
		return;
	while ((n = table_first(&s->statements->names)) != NULL)
		stmt_name_take_out(s, CONTAINER_OF(n, struct stmt_name, node));
}

void
statements_free(struct session *s)
{
	if (s->statements == NULL)
		return;
	statements_clear(s);
	table_free(&s->statements->names);
	free(s->statements);
	s->statements = NULL;
}

unsigned
session_prepared_count(const struct session *s)
{
	return (s->statements != NULL ? s->statements->names.count : 0);
}
