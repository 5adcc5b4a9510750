/*
 * What a statement says of the values in a table's columns: the values themselves, the rows of
 * INSERT … VALUES, and what UPDATE … SET assigns. Conditions are the work of level.c.
 */
#include <stdlib.h>
#include <string.h>

#include "tree.h"

/* ---- values ---- */

/* Types that a constant is cast to without becoming another one. */
static bool
is_harmless_cast(const PgQuery__TypeName *type)
{
	static const char *const types[] = {"int2", "int4", "int8", "numeric", "text",
	    "varchar", "bpchar", "name", "uuid", "date", "timestamp", "timestamptz",
	    "citext"};
	const char *name;

	if (type->n_typmods > 0 || type->n_array_bounds > 0 || type->setof ||
	    type->n_names == 0)
		return (false);
	name = sql_node_string(type->names[type->n_names - 1]);
	for (size_t i = 0; name != NULL && i < ARRAY_LEN(types); i++)
		if (strcmp(name, types[i]) == 0)
			return (true);
	return (false);
}

/* The scan's literal that begins at this place, or behind signs and blanks from there on; -1:
 * none. */
static int
literal_at(const struct sql_scan *scan, int32_t location, enum sql_literal_kind kind)
{
	unsigned low = 0, high = scan->literal_count;
	uint32_t at = (uint32_t)location;

	if (location < 0)
		return (-1);
	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (scan->literals[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == scan->literal_count || scan->literals[low].kind != kind)
		return (-1);
	for (; at < scan->literals[low].at; at++)
		if (kind == SQL_LIT_STRING ||
		    strchr("-+ \t\n\r\f", scan->sql[at]) == NULL)
			return (-1);
	return ((int)low);
}

static struct sql_value
value_of_const(const struct sql_find *f, const PgQuery__AConst *c)
{
	struct sql_value other = {.kind = SQL_VALUE_OTHER}, value = other;
	int i = -1;

	if (c->isnull)
		return ((struct sql_value){.kind = SQL_VALUE_NULL});
	switch ((int)c->val_case) {
	case PG_QUERY__A__CONST__VAL_IVAL:
		value.is_negative = c->ival->ival < 0;
		i = literal_at(f->scan, c->location, SQL_LIT_NUMBER);
		break;
	case PG_QUERY__A__CONST__VAL_FVAL:
		value.is_negative = *c->fval->fval == '-';
		i = literal_at(f->scan, c->location, SQL_LIT_NUMBER);
		break;
	case PG_QUERY__A__CONST__VAL_SVAL:
		i = literal_at(f->scan, c->location, SQL_LIT_STRING);
		break;
	default:
		break;
	}
	if (i < 0)
		return (other);
	value.kind = SQL_VALUE_LITERAL;
	value.at = (unsigned)i;
	return (value);
}

/* Without casts. */
static struct sql_value
bare_value_of(const struct sql_find *f, const PgQuery__Node *n)
{
	struct sql_value value = {.kind = SQL_VALUE_OTHER};

	if (n->node_case == PG_QUERY__NODE__NODE_A_CONST)
		return (value_of_const(f, n->a_const));
	if (n->node_case == PG_QUERY__NODE__NODE_PARAM_REF && n->param_ref->number >= 1 &&
	    (unsigned)n->param_ref->number <= f->scan->param_max) {
		value.kind = SQL_VALUE_PARAM;
		value.at = (unsigned)n->param_ref->number;
	}
	return (value);
}

/* "- expression" that the parser has not folded into a constant: -5::int. */
static const PgQuery__Node *
negated(const PgQuery__Node *n)
{
	const char *name;

	if (n->node_case != PG_QUERY__NODE__NODE_A_EXPR ||
	    n->a_expr->kind != PG_QUERY__A__EXPR__KIND__AEXPR_OP ||
	    n->a_expr->lexpr != NULL)
		return (NULL);
	name = sql_own_name(n->a_expr->n_name, n->a_expr->name);
	return (name != NULL && strcmp(name, "-") == 0 ? n->a_expr->rexpr : NULL);
}

struct sql_value
sql_value_of(const struct sql_find *f, const PgQuery__Node *n)
{
	struct sql_value value, other = {.kind = SQL_VALUE_OTHER};
	const PgQuery__Node *inner = n == NULL ? NULL : negated(n);
	bool is_negated = inner != NULL;

	n = is_negated ? inner : n;
	if (n == NULL)
		return (other);
	if (n->node_case == PG_QUERY__NODE__NODE_TYPE_CAST) {
		if (!is_harmless_cast(n->type_cast->type_name))
			return (other);
		n = n->type_cast->arg;
	}
	value = bare_value_of(f, n);
	if (!is_negated || value.kind == SQL_VALUE_NULL)
		return (value);
	if (value.kind != SQL_VALUE_LITERAL || value.is_negative ||
	    f->scan->literals[value.at].kind != SQL_LIT_NUMBER)
		return (other);
	value.is_negative = true;
	return (value);
}

void
sql_match_add(struct sql_find *f, const struct sql_match *match)
{
	if (f->match_count == f->match_room) {
		f->match_room = f->match_room == 0 ? 16 : f->match_room * 2;
		f->matches = mem_realloc(f->matches, f->match_room * sizeof(*f->matches));
	}
	f->matches[f->match_count++] = *match;
}

/* ---- INSERT … VALUES ---- */

/* The rows of VALUES; NULL: the statement inserts what a query finds, or not each row. */
static const PgQuery__SelectStmt *
values_of(const PgQuery__InsertStmt *insert)
{
	const PgQuery__SelectStmt *s;

	if (insert->select_stmt == NULL ||
	    insert->select_stmt->node_case != PG_QUERY__NODE__NODE_SELECT_STMT)
		return (NULL);
	s = insert->select_stmt->select_stmt;
	if (s->n_values_lists == 0 || s->n_values_lists > SQL_VALUES_MAX ||
	    s->n_sort_clause > 0 || s->limit_count != NULL || s->limit_offset != NULL)
		return (NULL);
	return (s);
}

/* The value of a row in this column; a row may be shorter than the list of columns. */
static struct sql_value
value_in_row(const struct sql_find *f, const PgQuery__Node *row, size_t column)
{
	if (row->node_case != PG_QUERY__NODE__NODE_LIST || column >= row->list->n_items)
		return ((struct sql_value){.kind = SQL_VALUE_OTHER});
	return (sql_value_of(f, row->list->items[column]));
}

/* How many columns the rows fill: those of the list, or without one as many as the first row
 * has values, to columns in the order of the table. */
static size_t
columns_filled(const PgQuery__InsertStmt *insert, const PgQuery__SelectStmt *rows)
{
	const PgQuery__Node *first = rows->values_lists[0];

	if (insert->n_cols > 0)
		return (insert->n_cols);
	return (first->node_case == PG_QUERY__NODE__NODE_LIST ? first->list->n_items : 0);
}

static void
find_inserted(struct sql_find *f, const PgQuery__InsertStmt *insert)
{
	const PgQuery__SelectStmt *rows = values_of(insert);
	int table = sql_table_of(f, insert->relation);
	size_t count = rows != NULL && table >= 0 ? columns_filled(insert, rows) : 0;

	for (size_t i = 0; i < count; i++) {
		bool is_named = insert->n_cols > 0;
		const char *name = is_named ? insert->cols[i]->res_target->name : "";
		struct sql_value *values =
		    sql_arena_alloc(f->arena, rows->n_values_lists * sizeof(*values));

		for (size_t row = 0; row < rows->n_values_lists; row++)
			values[row] = value_in_row(f, rows->values_lists[row], i);
		sql_match_add(f, &(struct sql_match){.table = (unsigned)table,
				     .column = sql_arena_str(f->arena, name),
				     .place = is_named ? 0 : (unsigned)i + 1,
				     .values = values,
				     .count = (unsigned)rows->n_values_lists,
				     .is_insert = true});
	}
}

/* ---- SET column = value ---- */

/* The value of one column; (a, b) = (1, 2) is one source for several. */
static struct sql_value
assigned_value(const struct sql_find *f, const PgQuery__Node *n)
{
	const PgQuery__MultiAssignRef *ref;

	if (n == NULL || n->node_case != PG_QUERY__NODE__NODE_MULTI_ASSIGN_REF)
		return (sql_value_of(f, n));
	ref = n->multi_assign_ref;
	if (ref->source == NULL ||
	    ref->source->node_case != PG_QUERY__NODE__NODE_ROW_EXPR || ref->colno < 1 ||
	    (size_t)ref->colno > ref->source->row_expr->n_args)
		return ((struct sql_value){.kind = SQL_VALUE_OTHER});
	return (sql_value_of(f, ref->source->row_expr->args[ref->colno - 1]));
}

static void
find_assigned(struct sql_find *f, const PgQuery__RangeVar *target, size_t count,
    PgQuery__Node *const *list)
{
	int table = sql_table_of(f, target);

	for (size_t i = 0; table >= 0 && i < count; i++) {
		const PgQuery__ResTarget *set = list[i]->res_target;
		struct sql_value value = assigned_value(f, set->val);

		if (set->n_indirection > 0)
			value = (struct sql_value){.kind = SQL_VALUE_OTHER};
		sql_match_add(
		    f, &(struct sql_match){.table = (unsigned)table,
			   .column = sql_arena_str(f->arena, set->name),
			   .values = sql_arena_dup(f->arena, &value, sizeof(value)),
			   .count = 1,
			   .is_assigned = true});
	}
}

/* ---- every statement of the tree ---- */

static void
visit(void *arg, const ProtobufCMessage *m)
{
	struct sql_find *f = arg;
	const ProtobufCMessageDescriptor *d = m->descriptor;

	if (d == &pg_query__select_stmt__descriptor) {
		const PgQuery__SelectStmt *s = (const PgQuery__SelectStmt *)m;

		sql_level_find(
		    f, NULL, s->n_from_clause, s->from_clause, s->where_clause);
	} else if (d == &pg_query__update_stmt__descriptor) {
		const PgQuery__UpdateStmt *s = (const PgQuery__UpdateStmt *)m;

		find_assigned(f, s->relation, s->n_target_list, s->target_list);
		sql_level_find(
		    f, s->relation, s->n_from_clause, s->from_clause, s->where_clause);
	} else if (d == &pg_query__delete_stmt__descriptor) {
		const PgQuery__DeleteStmt *s = (const PgQuery__DeleteStmt *)m;

		sql_level_find(
		    f, s->relation, s->n_using_clause, s->using_clause, s->where_clause);
	} else if (d == &pg_query__insert_stmt__descriptor) {
		const PgQuery__InsertStmt *s = (const PgQuery__InsertStmt *)m;

		find_inserted(f, s);
		if (s->on_conflict_clause != NULL)
			find_assigned(f, s->relation,
			    s->on_conflict_clause->n_target_list,
			    s->on_conflict_clause->target_list);
	}
	sql_tree_each(m, visit, f);
}

void
sql_match_find(struct sql_find *f, const ProtobufCMessage *m)
{
	visit(f, m);
}
