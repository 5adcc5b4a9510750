/*
 * From a statement to its facts: which class it is of by what stands at the top of its tree, and
 * whether a replica could answer it by what the walk has found below.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tree.h"

/* ---- EXPLAIN ---- */

/* Whether EXPLAIN runs the statement: the last ANALYZE counts. */
static bool
runs(const PgQuery__ExplainStmt *e)
{
	bool is_run = false;

	for (size_t i = 0; i < e->n_options; i++) {
		const PgQuery__DefElem *o = e->options[i]->def_elem;
		const PgQuery__Node *arg = o->arg;

		if (strcmp(o->defname, "analyze") != 0)
			continue;
		is_run = true;
		if (arg == NULL)
			continue;
		if (arg->node_case == PG_QUERY__NODE__NODE_INTEGER)
			is_run = arg->integer->ival != 0;
		else if (arg->node_case == PG_QUERY__NODE__NODE_BOOLEAN)
			is_run = arg->boolean->boolval;
		else if (arg->node_case == PG_QUERY__NODE__NODE_STRING)
			is_run = strcasecmp(arg->string->sval, "off") != 0 &&
				 strcasecmp(arg->string->sval, "false") != 0;
	}
	return (is_run);
}

/* ---- classes ---- */

static enum sql_class class_of(struct sql_find *, const PgQuery__Node *);

static enum sql_class
class_of_explain(struct sql_find *f, const PgQuery__ExplainStmt *e)
{
	enum sql_class inner = class_of(f, e->query);

	return (runs(e) || inner == SQL_UTILITY ? inner : SQL_READ);
}

static enum sql_class
class_of_copy(struct sql_find *f, const PgQuery__CopyStmt *c)
{
	bool is_ours = *c->filename == '\0' && !c->is_program;

	f->facts->copies_in = is_ours && c->is_from;
	f->facts->copies_out = is_ours && !c->is_from;
	if (f->facts->copies_in)
		f->facts->copy = sql_copy_find(f, c);
	/* A file or program is the server's: let it be the primary's. */
	if (c->is_from || !is_ours || f->has_write)
		return (SQL_WRITE);
	return (SQL_READ);
}

static enum sql_class
class_of_transaction(struct sql_find *f, const PgQuery__TransactionStmt *t)
{
	f->facts->chains = t->chain;
	switch ((int)t->kind) {
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_BEGIN:
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_START:
		return (SQL_BEGIN);
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_COMMIT:
		return (SQL_COMMIT);
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_ROLLBACK:
		return (SQL_ROLLBACK);
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_PREPARE:
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_COMMIT_PREPARED:
	case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_ROLLBACK_PREPARED:
		return (SQL_TWO_PHASE);
	default:
		f->facts->savepoint = sql_arena_str(f->arena, t->savepoint_name);
		f->facts->is_release =
		    t->kind == PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_RELEASE;
		f->facts->is_rollback_to =
		    t->kind == PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_ROLLBACK_TO;
		return (SQL_SAVEPOINT);
	}
}

/* Forms of SET that the verbs leave to the parser: SET TIME ZONE INTERVAL … . */
static enum sql_class
class_of_set(struct sql_find *f, const PgQuery__VariableSetStmt *s)
{
	char *name = mem_str(s->name);

	for (char *p = name; *p != '\0'; p++)
		*p = (char)sql_lower[(uint8_t)*p];
	f->facts->set_verb = s->kind == PG_QUERY__VARIABLE_SET_KIND__VAR_RESET ||
				     s->kind == PG_QUERY__VARIABLE_SET_KIND__VAR_RESET_ALL
				 ? SQL_SET_RESET
			     : s->is_local ? SQL_SET_LOCAL
					   : SQL_SET_SET;
	f->facts->setting = sql_arena_str(f->arena, *name == '\0' ? "all" : name);
	free(name);
	return (SQL_SET);
}

static enum sql_class
class_of(struct sql_find *f, const PgQuery__Node *n)
{
	switch ((int)n->node_case) {
	case PG_QUERY__NODE__NODE_SELECT_STMT:
		return (f->has_write ? SQL_WRITE : SQL_READ);
	case PG_QUERY__NODE__NODE_INSERT_STMT:
	case PG_QUERY__NODE__NODE_UPDATE_STMT:
	case PG_QUERY__NODE__NODE_DELETE_STMT:
	case PG_QUERY__NODE__NODE_MERGE_STMT:
	case PG_QUERY__NODE__NODE_CALL_STMT:
	case PG_QUERY__NODE__NODE_DO_STMT:
	case PG_QUERY__NODE__NODE_LOCK_STMT:
		return (SQL_WRITE);
	case PG_QUERY__NODE__NODE_COPY_STMT:
		return (class_of_copy(f, n->copy_stmt));
	case PG_QUERY__NODE__NODE_EXPLAIN_STMT:
		return (class_of_explain(f, n->explain_stmt));
	case PG_QUERY__NODE__NODE_TRANSACTION_STMT:
		return (class_of_transaction(f, n->transaction_stmt));
	case PG_QUERY__NODE__NODE_VARIABLE_SET_STMT:
		return (class_of_set(f, n->variable_set_stmt));
	case PG_QUERY__NODE__NODE_VARIABLE_SHOW_STMT:
		f->facts->set_verb = SQL_SET_SHOW;
		f->facts->setting = sql_arena_str(f->arena, n->variable_show_stmt->name);
		return (SQL_SET);
	case PG_QUERY__NODE__NODE_VACUUM_STMT:
	case PG_QUERY__NODE__NODE_LISTEN_STMT:
	case PG_QUERY__NODE__NODE_UNLISTEN_STMT:
	case PG_QUERY__NODE__NODE_NOTIFY_STMT:
	case PG_QUERY__NODE__NODE_PREPARE_STMT:
	case PG_QUERY__NODE__NODE_EXECUTE_STMT:
	case PG_QUERY__NODE__NODE_DEALLOCATE_STMT:
	case PG_QUERY__NODE__NODE_DECLARE_CURSOR_STMT:
	case PG_QUERY__NODE__NODE_FETCH_STMT:
	case PG_QUERY__NODE__NODE_CLOSE_PORTAL_STMT:
	case PG_QUERY__NODE__NODE_DISCARD_STMT:
	case PG_QUERY__NODE__NODE_CHECK_POINT_STMT:
	case PG_QUERY__NODE__NODE_LOAD_STMT:
	case PG_QUERY__NODE__NODE_CLUSTER_STMT:
	case PG_QUERY__NODE__NODE_REINDEX_STMT:
	case PG_QUERY__NODE__NODE_CONSTRAINTS_SET_STMT:
		return (SQL_UTILITY);
	default:
		return (SQL_DDL);
	}
}

/* Whether what stands at the top defines, so that tables outside of its queries are written. */
static bool
is_ddl(const PgQuery__Node *n)
{
	struct sql_facts unused = {0};
	struct sql_arena arena = {0};
	struct sql_find probe = {.facts = &unused, .arena = &arena};
	bool is_it = class_of(&probe, n) == SQL_DDL;

	sql_arena_free(&arena);
	/* What COPY FROM fills is written in the same sense. */
	return (is_it || (n->node_case == PG_QUERY__NODE__NODE_COPY_STMT &&
			     n->copy_stmt->is_from));
}

/* ---- a tree's facts ---- */

static const char not_known[] = "a statement that is not understood";

static void
find_tables(struct sql_find *f, PgQuery__Node *stmt)
{
	if (stmt->node_case == PG_QUERY__NODE__NODE_DROP_STMT)
		sql_walk_names(f, stmt->drop_stmt->remove_type,
		    stmt->drop_stmt->n_objects, stmt->drop_stmt->objects);
	if (stmt->node_case == PG_QUERY__NODE__NODE_COMMENT_STMT &&
	    stmt->comment_stmt->object != NULL)
		sql_walk_names(
		    f, stmt->comment_stmt->objtype, 1, &stmt->comment_stmt->object);
	if (stmt->node_case == PG_QUERY__NODE__NODE_SEC_LABEL_STMT &&
	    stmt->sec_label_stmt->object != NULL)
		sql_walk_names(
		    f, stmt->sec_label_stmt->objtype, 1, &stmt->sec_label_stmt->object);
	sql_walk(f, &stmt->base);
}

static void
keep_found(struct sql_find *f)
{
	struct sql_facts *out = f->facts;

	out->tables =
	    sql_arena_dup(f->arena, f->tables, f->table_count * sizeof(*f->tables));
	out->table_count = f->table_count;
	out->matches =
	    sql_arena_dup(f->arena, f->matches, f->match_count * sizeof(*f->matches));
	out->match_count = f->match_count;
	out->calls = sql_arena_dup(f->arena, f->calls, f->call_count * sizeof(*f->calls));
	out->call_count = f->call_count;
}

/* PostgreSQL 15's CURSOR_OPT_HOLD, in the options of DECLARE. */
#define CURSOR_HOLD 0x20

/* The walk has found tables and locks. */
static void
note_keeps(struct sql_facts *out, const PgQuery__Node *stmt)
{
	if (stmt->node_case == PG_QUERY__NODE__NODE_LISTEN_STMT)
		out->keeps = SQL_KEEPS_LISTENER;
	else if (stmt->node_case == PG_QUERY__NODE__NODE_DECLARE_CURSOR_STMT &&
		 (stmt->declare_cursor_stmt->options & CURSOR_HOLD) != 0)
		out->keeps = SQL_KEEPS_CURSOR;
}

/* The cursor that the statement names. */
static const char *
cursor_of(const PgQuery__Node *stmt)
{
	switch ((int)stmt->node_case) {
	case PG_QUERY__NODE__NODE_DECLARE_CURSOR_STMT:
		return (stmt->declare_cursor_stmt->portalname);
	case PG_QUERY__NODE__NODE_FETCH_STMT:
		return (stmt->fetch_stmt->portalname);
	case PG_QUERY__NODE__NODE_CLOSE_PORTAL_STMT:
		return (stmt->close_portal_stmt->portalname);
	default:
		return (NULL);
	}
}

static void
note_cursor(struct sql_find *f, const PgQuery__Node *stmt)
{
	const char *name = cursor_of(stmt);

	/* What protobuf does not carry (CLOSE ALL) is "". */
	if (name != NULL && name[0] != '\0')
		f->facts->cursor = sql_arena_str(f->arena, name);
	f->facts->declares_read =
	    stmt->node_case == PG_QUERY__NODE__NODE_DECLARE_CURSOR_STMT &&
	    !f->has_write && !f->facts->has_foreign_function;
}

static void
note_renamed(struct sql_find *f, const PgQuery__Node *stmt)
{
	const PgQuery__RenameStmt *r;

	if (stmt->node_case != PG_QUERY__NODE__NODE_RENAME_STMT)
		return;
	r = stmt->rename_stmt;
	switch ((int)r->rename_type) {
	case PG_QUERY__OBJECT_TYPE__OBJECT_TABLE:
	case PG_QUERY__OBJECT_TYPE__OBJECT_VIEW:
	case PG_QUERY__OBJECT_TYPE__OBJECT_SEQUENCE:
		f->facts->renamed = sql_arena_str(f->arena, r->newname);
		break;
	default:
		break;
	}
}

static void
find_in_tree(struct sql_find *f, PgQuery__Node *stmt)
{
	struct sql_facts *out = f->facts;

	f->is_ddl = is_ddl(stmt);
	find_tables(f, stmt);
	if (f->has_too_many_tables) {
		*out =
		    (struct sql_facts){.class = SQL_UNKNOWN, .shape.why_not = not_known};
		return;
	}
	out->class = class_of(f, stmt);
	note_keeps(out, stmt);
	note_cursor(f, stmt);
	note_renamed(f, stmt);
	out->is_plain_but_calls = out->class == SQL_READ && !f->has_write && !f->is_bound;
	out->is_plain_read = out->is_plain_but_calls && !out->has_foreign_function;
	sql_match_find(f, &stmt->base);
	keep_found(f);
	sql_shape_find(f, stmt);
}

static bool
find_by_parser(
    const struct sql_scan *scan, struct sql_arena *arena, struct sql_facts *out)
{
	struct sql_tree tree;
	struct sql_find f = {.scan = scan, .tree = &tree, .arena = arena, .facts = out};

	if (scan->is_cut || scan->is_too_much || !sql_tree_parse(scan, &tree))
		return (false);
	find_in_tree(&f, tree.stmt);
	sql_tree_free(&tree);
	free(f.ctes);
	free(f.matches);
	return (true);
}

/* The name behind FROM and the like, "schema.table" or "table"; false: none, or a function's. */
static bool
read_name(
    struct sql_lexer *l, struct sql_arena *arena, bool has_columns, struct sql_table *out)
{
	struct sql_token t;
	struct sql_lexer after;

	for (unsigned part = 0; part < 3; part++) {
		char *name;

		sql_lex(l, &t);
		if (part == 0 && sql_token_is(l, &t, "only"))
			sql_lex(l, &t);
		if (t.kind != SQL_TOKEN_WORD && t.kind != SQL_TOKEN_QUOTED)
			return (false);
		name = sql_name_value(l, &t);
		if (name == NULL)
			return (false);
		out->catalog = out->schema;
		out->schema = out->name;
		out->name = sql_arena_str(arena, name);
		free(name);
		out->at = part == 0 ? t.at : out->at;
		out->len = t.end - out->at;
		after = *l;
		sql_lex(&after, &t);
		if (!sql_token_is_mark(&after, &t, "."))
			return (has_columns || !sql_token_is_mark(&after, &t, "("));
		*l = after;
	}
	return (false);
}

/* Of a statement that is not understood: what may be its tables. */
static void
guess_tables(const struct sql_scan *scan, struct sql_arena *arena, struct sql_facts *out)
{
	static const char *const words[] = {
	    "from", "join", "into", "update", "table", "using"};
	struct sql_table tables[SQL_TABLES_MAX];
	struct sql_lexer l = sql_lexer_of(scan);
	struct sql_token t;
	unsigned count = 0;

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; sql_lex(&l, &t)) {
		struct sql_lexer name = l;

		if (t.kind != SQL_TOKEN_WORD || count == SQL_TABLES_MAX)
			continue;
		for (size_t i = 0; i < ARRAY_LEN(words); i++) {
			if (!sql_token_is(&l, &t, words[i]))
				continue;
			tables[count] =
			    (struct sql_table){.is_written = true, .is_guess = true};
			count += read_name(
			    &name, arena, strcmp(words[i], "into") == 0, &tables[count]);
			break;
		}
	}
	out->tables = sql_arena_dup(arena, tables, count * sizeof(*tables));
	out->table_count = count;
}

/* By a short statement that stands for it. */
static void
find_folded(const struct sql_scan *scan, struct sql_arena *arena, struct sql_facts *out)
{
	struct sql_fold *fold = sql_fold_make(scan);
	struct sql_match *matches;
	struct sql_scan brief;
	unsigned kept = 0;
	const char *text;
	size_t len;

	if (fold == NULL)
		return;
	text = sql_fold_text(fold, &len);
	sql_scan(text, len, &brief);
	if (find_by_parser(&brief, arena, out) && out->match_count > 0) {
		matches = sql_arena_dup(
		    arena, out->matches, out->match_count * sizeof(*matches));
		for (unsigned i = 0; i < out->match_count; i++)
			if (sql_fold_undo(fold, scan, arena, &matches[i]))
				matches[kept++] = matches[i];
		out->matches = matches;
		out->match_count = kept;
	}
	sql_scan_free(&brief);
	sql_fold_free(fold);
}

void
sql_facts_find(
    const struct sql_scan *scan, struct sql_arena *arena, struct sql_facts *out)
{
	*out = (struct sql_facts){.class = SQL_UNKNOWN, .shape.why_not = not_known};
	if (scan->is_empty) {
		out->class = SQL_EMPTY;
		return;
	}
	if (sql_verbs_find(scan, arena, out)) {
		out->shape.why_not = sql_shape_not_select;
		return;
	}
	if (!find_by_parser(scan, arena, out) && scan->is_too_much)
		find_folded(scan, arena, out);
	if (out->class == SQL_UNKNOWN)
		guess_tables(scan, arena, out);
}
