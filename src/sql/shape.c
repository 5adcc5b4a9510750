/*
 * Whether the answers of several databases, each to the same SELECT, make up the answer of one
 * that had all their rows: their rows one after another, or their counts and sums added. Only
 * where nothing stands against it: each check below names what does.
 */
#include <stdio.h>
#include <string.h>

#include "tree.h"

const char sql_shape_not_select[] = "a statement other than SELECT";

struct shape {
	struct sql_find *find;
	const char *why;
	const char *table;   /* the name that a whole row has */
	unsigned aggregates; /* met so far */
	bool is_target;      /* in the list of columns */
	const char *odd;     /* why an aggregate met is none of those that are added */
};

static void
say(struct shape *s, const char *why)
{
	if (s->why == NULL)
		s->why = why;
}

/* ---- clauses ---- */

/* What is taken from: one table, and nothing else. */
static void
check_from(struct shape *s, const PgQuery__SelectStmt *select)
{
	const PgQuery__Node *from;

	if (select->n_from_clause == 0) {
		say(s, "a SELECT without a table");
		return;
	}
	from = select->from_clause[0];
	if (select->n_from_clause > 1 ||
	    from->node_case == PG_QUERY__NODE__NODE_JOIN_EXPR) {
		say(s, "a join");
	} else if (from->node_case == PG_QUERY__NODE__NODE_RANGE_VAR) {
		s->table = from->range_var->alias != NULL
			       ? from->range_var->alias->aliasname
			       : from->range_var->relname;
	} else if (from->node_case == PG_QUERY__NODE__NODE_RANGE_SUBSELECT) {
		say(s, "a subquery");
	} else if (from->node_case == PG_QUERY__NODE__NODE_RANGE_TABLE_SAMPLE) {
		say(s, "TABLESAMPLE");
	} else {
		say(s, "a function in FROM");
	}
}

static const char *
set_operation(PgQuery__SetOperation op)
{
	return (op == PG_QUERY__SET_OPERATION__SETOP_UNION       ? "UNION"
		: op == PG_QUERY__SET_OPERATION__SETOP_INTERSECT ? "INTERSECT"
								 : "EXCEPT");
}

static void
check_clauses(struct shape *s, const PgQuery__SelectStmt *select)
{
	if (select->with_clause != NULL)
		say(s, "WITH");
	if (select->op != PG_QUERY__SET_OPERATION__SETOP_NONE) {
		say(s, set_operation(select->op));
		return;
	}
	if (select->n_values_lists > 0)
		say(s, "VALUES");
	if (select->into_clause != NULL)
		say(s, "SELECT INTO");
	check_from(s, select);
	if (select->n_distinct_clause > 0)
		say(s, "DISTINCT");
	if (select->n_group_clause > 0)
		say(s, "GROUP BY");
	if (select->having_clause != NULL)
		say(s, "HAVING");
	if (select->n_window_clause > 0)
		say(s, "a window function");
	if (select->n_sort_clause > 0)
		say(s, "ORDER BY");
	if (select->limit_count != NULL)
		say(s, "LIMIT");
	if (select->limit_offset != NULL)
		say(s, "OFFSET");
	if (select->n_locking_clause > 0)
		say(s, "a row lock");
}

/* ---- expressions ---- */

static enum sql_aggregate
aggregate_of(const char *name)
{
	static const char *const names[] = {
	    [SQL_AGG_COUNT] = "count",
	    [SQL_AGG_SUM] = "sum",
	    [SQL_AGG_MIN] = "min",
	    [SQL_AGG_MAX] = "max",
	};

	for (unsigned i = SQL_AGG_COUNT; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], name) == 0)
			return ((enum sql_aggregate)i);
	return (SQL_AGG_NONE);
}

static const char *
call_of(struct shape *s, const char *name)
{
	char text[80];

	snprintf(text, sizeof(text), "%s()", name);
	return (sql_arena_str(s->find->arena, text));
}

static void
note_aggregate(struct shape *s, const PgQuery__FuncCall *call, const char *name)
{
	const char *odd = NULL;

	s->aggregates++;
	if (aggregate_of(name) == SQL_AGG_NONE || call->agg_within_group ||
	    call->func_variadic)
		odd = call_of(s, name);
	else if (call->agg_distinct)
		odd = "DISTINCT in an aggregate";
	else if (call->n_agg_order > 0)
		odd = "ORDER BY in an aggregate";
	if (s->odd == NULL)
		s->odd = odd;
}

static void
check_call(struct shape *s, const PgQuery__FuncCall *call)
{
	const struct sql_function *known = sql_walk_function(call);

	if (known == NULL)
		say(s, "a function that is not PostgreSQL's own");
	else if (call->over != NULL)
		say(s, "a window function");
	else if (known->kind == SQL_FUNCTION_A)
		note_aggregate(s, call, known->name);
	else if (known->kind == SQL_FUNCTION_S && s->is_target)
		say(s, "a set-returning function");
	else if (known->effect != SQL_EFFECT_READ && known->effect != SQL_EFFECT_VOLATILE)
		say(s, call_of(s, known->name));
}

static void
check_column(struct shape *s, const PgQuery__ColumnRef *ref)
{
	static const char *const system[] = {
	    "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"};
	const char *name =
	    ref->n_fields == 0 ? NULL : sql_node_string(ref->fields[ref->n_fields - 1]);

	if (name == NULL) {
		say(s, "a whole row");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(system); i++)
		if (strcmp(system[i], name) == 0)
			say(s, "a system column");
	if (ref->n_fields == 1 && s->table != NULL && strcmp(s->table, name) == 0)
		say(s, "a whole row");
}

static void
visit(void *arg, const ProtobufCMessage *m)
{
	struct shape *s = arg;
	const ProtobufCMessageDescriptor *d = m->descriptor;

	if (d == &pg_query__sub_link__descriptor)
		say(s, "a subquery");
	else if (d == &pg_query__func_call__descriptor)
		check_call(s, (const PgQuery__FuncCall *)m);
	else if (d == &pg_query__column_ref__descriptor)
		check_column(s, (const PgQuery__ColumnRef *)m);
	else if (d == &pg_query__grouping_func__descriptor)
		say(s, "GROUPING");
	else if (d == &pg_query__a__expr__descriptor &&
		 ((const PgQuery__AExpr *)m)->n_name > 1 &&
		 sql_own_name(((const PgQuery__AExpr *)m)->n_name,
		     ((const PgQuery__AExpr *)m)->name) == NULL)
		say(s, "an operator that is not PostgreSQL's own");
	if (s->why == NULL)
		sql_tree_each(m, visit, s);
}

/* ---- columns ---- */

/* Whether a column is * or table.*, which is as many as the table has. */
static bool
is_star(const PgQuery__Node *value)
{
	const PgQuery__ColumnRef *ref;

	if (value == NULL || value->node_case != PG_QUERY__NODE__NODE_COLUMN_REF)
		return (false);
	ref = value->column_ref;
	return (ref->n_fields > 0 &&
		ref->fields[ref->n_fields - 1]->node_case == PG_QUERY__NODE__NODE_A_STAR);
}

/* The aggregate that a column is, with nothing around it. */
static enum sql_aggregate
column_aggregate(const PgQuery__Node *value)
{
	const struct sql_function *known;

	if (value == NULL || value->node_case != PG_QUERY__NODE__NODE_FUNC_CALL)
		return (SQL_AGG_NONE);
	known = sql_walk_function(value->func_call);
	return (known == NULL ? SQL_AGG_NONE : aggregate_of(known->name));
}

static void
check_columns(struct shape *s, const PgQuery__SelectStmt *select)
{
	struct sql_shape *out = &s->find->facts->shape;
	size_t count = select->n_target_list;
	enum sql_aggregate *columns =
	    sql_arena_alloc(s->find->arena, count * sizeof(*columns));
	bool has_star = false, has_plain = false;

	s->is_target = true;
	for (size_t i = 0; i < count; i++) {
		const PgQuery__Node *value = select->target_list[i]->res_target->val;

		columns[i] = column_aggregate(value);
		has_plain |= columns[i] == SQL_AGG_NONE;
		if (is_star(value))
			has_star = true;
		else if (value != NULL)
			visit(s, &value->base);
	}
	s->is_target = false;
	out->column_count = has_star ? 0 : (unsigned)count;
	if (s->aggregates == 0 || s->why != NULL)
		return;
	if (s->odd != NULL)
		say(s, s->odd);
	else if (has_plain || s->aggregates != count)
		say(s, "an expression of or beside an aggregate");
	out->is_aggregate = s->why == NULL;
	out->columns = out->is_aggregate ? columns : NULL;
}

void
sql_shape_find(struct sql_find *f, const PgQuery__Node *stmt)
{
	struct shape s = {.find = f};
	const PgQuery__SelectStmt *select;

	f->facts->shape = (struct sql_shape){.why_not = sql_shape_not_select};
	if (stmt->node_case != PG_QUERY__NODE__NODE_SELECT_STMT)
		return;
	select = stmt->select_stmt;
	check_clauses(&s, select);
	if (select->where_clause != NULL)
		visit(&s, &select->where_clause->base);
	if (select->op == PG_QUERY__SET_OPERATION__SETOP_NONE &&
	    select->n_values_lists == 0)
		check_columns(&s, select);
	f->facts->shape.why_not = s.why;
}
