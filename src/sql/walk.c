/*
 * Finds the tables and functions of a statement, wherever they stand in its tree. A name that a
 * WITH in scope says is no table:
 *
 *     WITH a AS (SELECT … FROM t), b AS (SELECT … FROM a) SELECT … FROM b, c     -> t, c
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tree.h"

static void visit(void *arg, const ProtobufCMessage *m);

/* ---- tables ---- */

static bool
begins_with(const char *s, const char *prefix)
{
	return (strncmp(s, prefix, strlen(prefix)) == 0);
}

static bool
is_system_name(const char *schema, const char *name)
{
	if (schema == NULL)
		return (begins_with(name, "pg_"));
	return (strcmp(schema, "pg_catalog") == 0 ||
		strcmp(schema, "information_schema") == 0 ||
		begins_with(schema, "pg_toast"));
}

/* Where a name of so many parts ends that begins at the lexer's place. */
static uint32_t
name_end(struct sql_lexer l, unsigned parts)
{
	struct sql_token t;
	uint32_t end = l.at;

	for (unsigned i = 0; i < parts; i++) {
		sql_lex(&l, &t);
		if (t.kind != SQL_TOKEN_WORD && t.kind != SQL_TOKEN_QUOTED)
			break;
		end = t.end;
		sql_lex(&l, &t);
		if (!sql_token_is_mark(&l, &t, "."))
			break;
	}
	return (end);
}

/* Fills in where the table's name stands, and the catalog that stood there before the parser's
 * text was made plain. */
static void
place_table(struct sql_find *f, struct sql_table *table, uint32_t at)
{
	struct sql_lexer l = sql_lexer_of(f->scan);
	struct sql_token t;
	char *name;

	if (at >= f->scan->len)
		return;
	l.at = at;
	table->at = at;
	table->len =
	    name_end(l, 1 + (table->schema != NULL) + (table->catalog != NULL)) - at;
	if (table->catalog == NULL || f->tree->text[at] == f->scan->sql[at])
		return;
	sql_lex(&l, &t);
	name = sql_name_value(&l, &t);
	if (name != NULL)
		table->catalog = sql_arena_str(f->arena, name);
	free(name);
}

static const char *
keep(struct sql_find *f, const char *name)
{
	return (name == NULL || *name == '\0' ? NULL : sql_arena_str(f->arena, name));
}

/* The new table, whose place is not known; NULL when there are too many. */
static struct sql_table *
new_table(struct sql_find *f, const char *catalog, const char *schema, const char *name)
{
	struct sql_table *table;

	if (f->table_count == SQL_TABLES_MAX) {
		f->has_too_many_tables = true;
		return (NULL);
	}
	table = &f->tables[f->table_count++];
	*table =
	    (struct sql_table){.catalog = keep(f, catalog), .schema = keep(f, schema)};
	table->name = sql_arena_str(f->arena, name);
	table->is_system = is_system_name(table->schema, name);
	if (table->is_system ||
	    (table->schema != NULL && begins_with(table->schema, "pg_temp")))
		f->is_bound = true;
	return (table);
}

/* NULL when there are too many. */
static struct sql_table *
add_table(struct sql_find *f, const PgQuery__RangeVar *var, bool is_written)
{
	unsigned i = f->table_count;
	struct sql_table *table =
	    new_table(f, var->catalogname, var->schemaname, var->relname);

	if (table == NULL)
		return (NULL);
	f->vars[i] = var;
	table->is_written = is_written;
	if (var->location > 0)
		place_table(f, table, (uint32_t)var->location);
	return (table);
}

static void
note_temporary(struct sql_find *f, const PgQuery__RangeVar *var, int on_commit)
{
	if (var != NULL && on_commit != PG_QUERY__ON_COMMIT_ACTION__ONCOMMIT_DROP &&
	    (strcmp(var->relpersistence, "t") == 0 ||
		strcmp(var->schemaname, "pg_temp") == 0))
		f->facts->keeps = SQL_KEEPS_TABLE;
}

/* The table that the statement makes. */
static void
add_created(struct sql_find *f, const PgQuery__RangeVar *var)
{
	struct sql_table *table = var != NULL ? add_table(f, var, true) : NULL;

	if (table != NULL)
		table->is_created = true;
}

int
sql_table_of(const struct sql_find *f, const PgQuery__RangeVar *var)
{
	for (unsigned i = 0; i < f->table_count; i++)
		if (f->vars[i] == var)
			return ((int)i);
	return (-1);
}

static bool
is_cte(const struct sql_find *f, const PgQuery__RangeVar *var)
{
	if (*var->schemaname != '\0' || *var->catalogname != '\0')
		return (false);
	for (unsigned i = 0; i < f->cte_count; i++)
		if (strcmp(f->ctes[i], var->relname) == 0)
			return (true);
	return (false);
}

/* ---- tables of statements that name them without a place ---- */

/* Whether the name begins at token t; then its parts follow. */
static bool
is_name_at(struct sql_lexer l, struct sql_token t, size_t count, PgQuery__Node **parts)
{
	for (size_t i = 0; i < count; i++) {
		const char *part = sql_node_string(parts[i]);
		char *name = sql_name_value(&l, &t);
		bool is_same = name != NULL && part != NULL && strcmp(name, part) == 0;

		free(name);
		if (!is_same)
			return (false);
		if (i + 1 == count)
			break;
		sql_lex(&l, &t);
		if (!sql_token_is_mark(&l, &t, "."))
			return (false);
		sql_lex(&l, &t);
	}
	return (true);
}

/* Where the name stands behind the statement's first two words, or behind ON; 0: nowhere. */
static uint32_t
find_name(const struct sql_find *f, size_t count, PgQuery__Node **parts, bool behind_on)
{
	struct sql_lexer l = {.text = f->tree->text, .len = (uint32_t)f->scan->len};
	struct sql_token t;
	bool is_behind = !behind_on;
	unsigned n = 0;

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		if (n++ >= 2 && is_behind && is_name_at(l, t, count, parts))
			return (t.at);
		is_behind |= sql_token_is(&l, &t, "on");
	}
	return (0);
}

static void
add_named(struct sql_find *f, size_t count, PgQuery__Node **parts, bool behind_on)
{
	const char *names[3] = {NULL, NULL, NULL};
	struct sql_table *table;
	uint32_t at;

	if (count == 0 || count > 3)
		return;
	for (size_t i = 0; i < count; i++)
		names[3 - count + i] = sql_node_string(parts[i]);
	if (names[2] == NULL)
		return;
	table = new_table(f, names[0], names[1], names[2]);
	if (table == NULL)
		return;
	table->is_written = true;
	at = find_name(f, count, parts, behind_on);
	if (at > 0)
		place_table(f, table, at);
}

/* How many parts of the object's name stand behind the table's; -1: it is of no table. */
static int
parts_behind(PgQuery__ObjectType type)
{
	switch ((int)type) {
	case PG_QUERY__OBJECT_TYPE__OBJECT_TABLE:
	case PG_QUERY__OBJECT_TYPE__OBJECT_VIEW:
	case PG_QUERY__OBJECT_TYPE__OBJECT_MATVIEW:
	case PG_QUERY__OBJECT_TYPE__OBJECT_SEQUENCE:
	case PG_QUERY__OBJECT_TYPE__OBJECT_INDEX:
	case PG_QUERY__OBJECT_TYPE__OBJECT_FOREIGN_TABLE:
		return (0);
	case PG_QUERY__OBJECT_TYPE__OBJECT_COLUMN:
	case PG_QUERY__OBJECT_TYPE__OBJECT_POLICY:
	case PG_QUERY__OBJECT_TYPE__OBJECT_RULE:
	case PG_QUERY__OBJECT_TYPE__OBJECT_TABCONSTRAINT:
	case PG_QUERY__OBJECT_TYPE__OBJECT_TRIGGER:
		return (1);
	default:
		return (-1);
	}
}

void
sql_walk_names(
    struct sql_find *f, PgQuery__ObjectType type, size_t count, PgQuery__Node **objects)
{
	int rest = parts_behind(type);
	/* A column's name stands behind its table's, the others': DROP TRIGGER x ON t. */
	bool behind_on = rest > 0 && type != PG_QUERY__OBJECT_TYPE__OBJECT_COLUMN;

	for (size_t i = 0; rest >= 0 && i < count; i++)
		if (objects[i]->node_case == PG_QUERY__NODE__NODE_LIST &&
		    objects[i]->list->n_items > (size_t)rest)
			add_named(f, objects[i]->list->n_items - (size_t)rest,
			    objects[i]->list->items, behind_on);
}

/* ---- functions ---- */

const struct sql_function *
sql_walk_function(const PgQuery__FuncCall *call)
{
	const char *name = sql_own_name(call->n_funcname, call->funcname);

	return (name == NULL ? NULL : sql_function_find(name));
}

/* set_config('pgweave.…') and current_setting(). */
static bool
is_about_pgweave(const PgQuery__FuncCall *call, const char *name)
{
	const PgQuery__Node *arg;

	if (strcmp(name, "set_config") != 0 && strcmp(name, "current_setting") != 0)
		return (false);
	if (call->n_args == 0)
		return (false);
	arg = call->args[0];
	while (arg->node_case == PG_QUERY__NODE__NODE_TYPE_CAST)
		arg = arg->type_cast->arg;
	return (arg->node_case == PG_QUERY__NODE__NODE_A_CONST &&
		arg->a_const->val_case == PG_QUERY__A__CONST__VAL_SVAL &&
		strncasecmp(arg->a_const->sval->sval, "pgweave.", 8) == 0);
}

static bool
is_same_name(const char *a, const char *b)
{
	return (a == b || (a != NULL && b != NULL && strcmp(a, b) == 0));
}

static void
note_foreign(struct sql_find *f, const PgQuery__FuncCall *call)
{
	size_t n = call->n_funcname;
	const char *name = n > 0 ? sql_node_string(call->funcname[n - 1]) : NULL,
		   *schema = n > 1 ? sql_node_string(call->funcname[n - 2]) : NULL;

	f->facts->has_foreign_function = true;
	for (unsigned i = 0; name != NULL && n <= 2 && i < f->call_count; i++)
		if (strcmp(f->calls[i].name, name) == 0 &&
		    is_same_name(f->calls[i].schema, schema))
			return;
	if (name == NULL || n > 2 || f->call_count == SQL_CALLS_MAX) {
		f->facts->has_nameless_call = true;
		return;
	}
	f->calls[f->call_count++] =
	    (struct sql_call){keep(f, schema), sql_arena_str(f->arena, name)};
}

static void
note_function(struct sql_find *f, const PgQuery__FuncCall *call)
{
	const struct sql_function *known = sql_walk_function(call);

	if (known == NULL) {
		note_foreign(f, call);
		return;
	}
	f->has_write |= known->effect == SQL_EFFECT_WRITE;
	f->is_bound |=
	    known->effect == SQL_EFFECT_SESSION || known->effect == SQL_EFFECT_VOLATILE;
	f->facts->sets_pgweave |= is_about_pgweave(call, known->name);
	if (strncmp(known->name, "pg_advisory_lock", 16) == 0 ||
	    strncmp(known->name, "pg_try_advisory_lock", 20) == 0)
		f->facts->keeps = SQL_KEEPS_LOCK;
}

/* ---- WITH ---- */

static void
push_cte(struct sql_find *f, const char *name)
{
	if (f->cte_count == f->cte_room) {
		f->cte_room = f->cte_room == 0 ? 16 : f->cte_room * 2;
		f->ctes = mem_realloc(f->ctes, f->cte_room * sizeof(*f->ctes));
	}
	f->ctes[f->cte_count++] = name;
}

static void
open_with(struct sql_find *f, const PgQuery__WithClause *with)
{
	for (size_t i = 0; with->recursive && i < with->n_ctes; i++)
		push_cte(f, with->ctes[i]->common_table_expr->ctename);
	for (size_t i = 0; i < with->n_ctes; i++) {
		PgQuery__CommonTableExpr *cte = with->ctes[i]->common_table_expr;

		sql_tree_each(&cte->base, visit, f);
		if (!with->recursive)
			push_cte(f, cte->ctename);
	}
}

/* Visits what is below a statement that may have a WITH, in its scope. */
static void
visit_scope(
    struct sql_find *f, const ProtobufCMessage *m, const PgQuery__WithClause *with)
{
	unsigned outer = f->cte_count;

	if (with != NULL)
		open_with(f, with);
	sql_tree_each(m, visit, f);
	f->cte_count = outer;
}

/* ---- everything ---- */

/* What is outside counts before what is in it. */
static void
note_write(struct sql_find *f, const char *what)
{
	f->has_write = true;
	if (f->facts->writes == NULL)
		f->facts->writes = what;
}

static void
visit_write(struct sql_find *f, const ProtobufCMessage *m, const char *what,
    const PgQuery__RangeVar *target, const PgQuery__WithClause *with)
{
	note_write(f, what);
	if (target != NULL)
		(void)add_table(f, target, true);
	visit_scope(f, m, with);
}

/* Statements with a scope; false: m is another message. */
static bool
visit_statement(struct sql_find *f, const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	if (d == &pg_query__select_stmt__descriptor) {
		f->selects++;
		visit_scope(f, m, ((const PgQuery__SelectStmt *)m)->with_clause);
		f->selects--;
	} else if (d == &pg_query__insert_stmt__descriptor) {
		const PgQuery__InsertStmt *s = (const PgQuery__InsertStmt *)m;

		visit_write(f, m, "INSERT", s->relation, s->with_clause);
	} else if (d == &pg_query__update_stmt__descriptor) {
		const PgQuery__UpdateStmt *s = (const PgQuery__UpdateStmt *)m;

		visit_write(f, m, "UPDATE", s->relation, s->with_clause);
	} else if (d == &pg_query__delete_stmt__descriptor) {
		const PgQuery__DeleteStmt *s = (const PgQuery__DeleteStmt *)m;

		visit_write(f, m, "DELETE", s->relation, s->with_clause);
	} else if (d == &pg_query__merge_stmt__descriptor) {
		const PgQuery__MergeStmt *s = (const PgQuery__MergeStmt *)m;

		visit_write(f, m, "MERGE", s->relation, s->with_clause);
	} else {
		return (false);
	}
	return (true);
}

static const char *
lock_name(const PgQuery__LockingClause *c)
{
	switch ((int)c->strength) {
	case PG_QUERY__LOCK_CLAUSE_STRENGTH__LCS_FORKEYSHARE:
		return ("SELECT FOR KEY SHARE");
	case PG_QUERY__LOCK_CLAUSE_STRENGTH__LCS_FORSHARE:
		return ("SELECT FOR SHARE");
	case PG_QUERY__LOCK_CLAUSE_STRENGTH__LCS_FORNOKEYUPDATE:
		return ("SELECT FOR NO KEY UPDATE");
	default:
		return ("SELECT FOR UPDATE");
	}
}

static void
visit_table(struct sql_find *f, const PgQuery__RangeVar *var)
{
	if (sql_table_of(f, var) < 0 && !is_cte(f, var))
		(void)add_table(f, var, f->is_ddl && f->selects == 0);
}

static void
visit(void *arg, const ProtobufCMessage *m)
{
	struct sql_find *f = arg;
	const ProtobufCMessageDescriptor *d = m->descriptor;

	/* WITH is opened by its statement; what row locks name are aliases. */
	if (d == &pg_query__with_clause__descriptor || visit_statement(f, m))
		return;
	if (d == &pg_query__locking_clause__descriptor) {
		note_write(f, lock_name((const PgQuery__LockingClause *)m));
		return;
	}
	if (d == &pg_query__range_var__descriptor) {
		visit_table(f, (const PgQuery__RangeVar *)m);
		return;
	}
	if (d == &pg_query__func_call__descriptor) {
		note_function(f, (const PgQuery__FuncCall *)m);
	} else if (d == &pg_query__into_clause__descriptor) {
		const PgQuery__IntoClause *into = (const PgQuery__IntoClause *)m;

		note_write(f, "SELECT INTO");
		note_temporary(f, into->rel, into->on_commit);
		add_created(f, into->rel);
	} else if (d == &pg_query__create_stmt__descriptor) {
		const PgQuery__CreateStmt *create = (const PgQuery__CreateStmt *)m;

		note_temporary(f, create->relation, create->oncommit);
		add_created(f, create->relation);
	} else if (d == &pg_query__view_stmt__descriptor) {
		const PgQuery__RangeVar *view = ((const PgQuery__ViewStmt *)m)->view;

		note_temporary(f, view, 0);
		add_created(f, view);
	} else if (d == &pg_query__create_seq_stmt__descriptor) {
		note_temporary(f, ((const PgQuery__CreateSeqStmt *)m)->sequence, 0);
	} else if (d == &pg_query__constraint__descriptor) {
		const PgQuery__Constraint *c = (const PgQuery__Constraint *)m;

		if (c->pktable != NULL)
			(void)add_table(f, c->pktable, false);
	} else if (d == &pg_query__table_like_clause__descriptor) {
		const PgQuery__TableLikeClause *c = (const PgQuery__TableLikeClause *)m;

		if (c->relation != NULL)
			(void)add_table(f, c->relation, false);
	} else if (d == &pg_query__a__expr__descriptor) {
		const PgQuery__AExpr *e = (const PgQuery__AExpr *)m;

		if (e->n_name > 1 && sql_own_name(e->n_name, e->name) == NULL)
			f->facts->has_foreign_function = f->facts->has_nameless_call =
			    true;
	}
	sql_tree_each(m, visit, f);
}

void
sql_walk(struct sql_find *f, const ProtobufCMessage *m)
{
	visit(f, m);
}
