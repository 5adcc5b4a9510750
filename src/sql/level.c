/*
 * What the conditions of one level (a SELECT, UPDATE or DELETE with its FROM) say of the rows of
 * its tables that count:
 *
 *     FROM a JOIN b ON a.id = b.id LEFT JOIN c ON c.id = b.id AND c.x = 1 WHERE a.id = 5
 *
 *     a.id = 5, b.id = 5, c.id = 5, c.x = 1
 *
 * A condition "column = value" holds for every row that counts. Where may it be applied? In
 * WHERE, and ON of inner joins: to any table, since NULL-extended rows do not fulfil it either. In
 * ON of an outer join: to the tables of the side whose rows may be missing, and to none of a
 * full join. An equality of two columns carries what is known of one to the other, under the
 * same rule for the one that it is carried to.
 */
#include <string.h>

#include "tree.h"

/* Of one level; with more, nothing more is told of it. */
#define ITEMS  64
#define KNOWN  128
#define EQUALS 64
#define USINGS 16

typedef uint64_t mask; /* of items, by bit */

/* A thing in FROM. */
struct item {
	const char *name;             /* alias, or the table's name */
	const PgQuery__RangeVar *var; /* NULL: a subquery or function */
	int table;                    /* -1: none of the statement's tables */
};

struct column {
	unsigned item;
	const char *name;
};

/* What is known of a column. */
struct known {
	struct column column;
	const struct sql_value *values;
	unsigned count;
};

struct equal {
	struct column to, from;
};

struct level {
	struct sql_find *find;
	struct item items[ITEMS];
	unsigned item_count;
	bool is_full; /* more items than there is room for: names are not certain */
	struct known known[KNOWN];
	unsigned known_count;
	struct equal equals[EQUALS];
	unsigned equal_count;
	struct column
	    usings[USINGS]; /* what a name in USING stands for, without a table */
	unsigned using_count;
};

/* ---- names ---- */

static mask
add_item(struct level *v, const struct item *item)
{
	if (v->item_count == ITEMS) {
		v->is_full = true;
		return (0);
	}
	v->items[v->item_count] = *item;
	return ((mask)1 << v->item_count++);
}

static mask
add_var(struct level *v, const PgQuery__RangeVar *var)
{
	struct item item = {.var = var,
	    .name = var->alias != NULL ? var->alias->aliasname : var->relname,
	    .table = sql_table_of(v->find, var)};

	/* "AS t(a, b)" names the columns anew. */
	if (var->alias != NULL && var->alias->n_colnames > 0)
		item.table = -1;
	return (add_item(v, &item));
}

/* Whether the qualifying parts in front of a column's name mean this item. */
static bool
is_meant(const struct item *item, size_t count, PgQuery__Node *const *parts)
{
	const char *names[3] = {NULL, NULL, NULL};

	for (size_t i = 0; i < count; i++)
		names[3 - count + i] = sql_node_string(parts[i]);
	if (names[2] == NULL || strcmp(names[2], item->name) != 0)
		return (false);
	if (count == 1)
		return (true);
	if (item->var == NULL || item->var->alias != NULL || names[1] == NULL ||
	    strcmp(names[1], item->var->schemaname) != 0)
		return (false);
	return (count == 2 ||
		(names[0] != NULL && strcmp(names[0], item->var->catalogname) == 0));
}

/* A name without a table: of the only item, or one that USING has joined. */
static bool
find_unqualified(const struct level *v, const char *name, struct column *out)
{
	if (v->item_count == 1 && !v->is_full) {
		*out = (struct column){.item = 0, .name = name};
		return (true);
	}
	for (unsigned i = 0; i < v->using_count; i++) {
		if (strcmp(v->usings[i].name, name) == 0) {
			*out = v->usings[i];
			return (true);
		}
	}
	return (false);
}

/* The column that an expression is; false: it is none of this level's. */
static bool
column_of(const struct level *v, const PgQuery__Node *n, struct column *out)
{
	const PgQuery__ColumnRef *ref;
	unsigned hits = 0;

	if (n == NULL || n->node_case != PG_QUERY__NODE__NODE_COLUMN_REF)
		return (false);
	ref = n->column_ref;
	if (ref->n_fields == 0 || ref->n_fields > 4)
		return (false);
	out->name = sql_node_string(ref->fields[ref->n_fields - 1]);
	if (out->name == NULL)
		return (false);
	if (ref->n_fields == 1)
		return (find_unqualified(v, out->name, out));
	for (unsigned i = 0; i < v->item_count; i++) {
		if (is_meant(&v->items[i], ref->n_fields - 1, ref->fields)) {
			out->item = i;
			hits++;
		}
	}
	return (hits == 1 && !v->is_full);
}

/* ---- conditions ---- */

static bool
is_in(mask m, unsigned item)
{
	return ((m >> item & 1) != 0);
}

static void
add_known(struct level *v, const struct known *known)
{
	if (v->known_count < KNOWN)
		v->known[v->known_count++] = *known;
}

static void
add_equal(struct level *v, mask may, const struct column *to, const struct column *from)
{
	if (is_in(may, to->item) && v->equal_count < EQUALS)
		v->equals[v->equal_count++] = (struct equal){.to = *to, .from = *from};
}

/* column = one of the list. One value that is not known spoils it. */
static void
add_list(struct level *v, mask may, const PgQuery__Node *left, size_t count,
    PgQuery__Node *const *list)
{
	struct column column;
	struct sql_value *values;

	if (!column_of(v, left, &column) || !is_in(may, column.item) || count == 0 ||
	    count > SQL_VALUES_MAX)
		return;
	values = sql_arena_alloc(v->find->arena, count * sizeof(*values));
	for (size_t i = 0; i < count; i++) {
		values[i] = sql_value_of(v->find, list[i]);
		if (values[i].kind == SQL_VALUE_OTHER)
			return;
	}
	add_known(v, &(struct known){column, values, (unsigned)count});
}

static void
add_equality(struct level *v, mask may, PgQuery__Node *left, PgQuery__Node *right)
{
	struct column a, b;
	bool has_left = column_of(v, left, &a), has_right = column_of(v, right, &b);

	if (has_left && has_right) {
		add_equal(v, may, &a, &b);
		add_equal(v, may, &b, &a);
	} else if (has_left) {
		add_list(v, may, left, 1, &right);
	} else if (has_right) {
		add_list(v, may, right, 1, &left);
	}
}

static void
read_expression(struct level *v, mask may, const PgQuery__AExpr *e)
{
	const char *op = sql_own_name(e->n_name, e->name);
	const PgQuery__Node *right = e->rexpr;

	if (op == NULL || strcmp(op, "=") != 0 || e->lexpr == NULL || right == NULL)
		return;
	if (e->kind == PG_QUERY__A__EXPR__KIND__AEXPR_OP) {
		add_equality(v, may, e->lexpr, e->rexpr);
	} else if (e->kind == PG_QUERY__A__EXPR__KIND__AEXPR_IN) {
		if (right->node_case == PG_QUERY__NODE__NODE_LIST)
			add_list(
			    v, may, e->lexpr, right->list->n_items, right->list->items);
	} else if (e->kind == PG_QUERY__A__EXPR__KIND__AEXPR_OP_ANY) {
		if (right->node_case == PG_QUERY__NODE__NODE_TYPE_CAST)
			right = right->type_cast->arg;
		if (right->node_case == PG_QUERY__NODE__NODE_A_ARRAY_EXPR)
			add_list(v, may, e->lexpr, right->a_array_expr->n_elements,
			    right->a_array_expr->elements);
	}
}

/* may: the items whose rows must fulfil the condition to count. */
static void
read_condition(struct level *v, mask may, const PgQuery__Node *n)
{
	if (n == NULL || may == 0)
		return;
	if (n->node_case == PG_QUERY__NODE__NODE_A_EXPR)
		read_expression(v, may, n->a_expr);
	else if (n->node_case == PG_QUERY__NODE__NODE_BOOL_EXPR &&
		 n->bool_expr->boolop == PG_QUERY__BOOL_EXPR_TYPE__AND_EXPR)
		for (size_t i = 0; i < n->bool_expr->n_args; i++)
			read_condition(v, may, n->bool_expr->args[i]);
}

/* ---- FROM ---- */

static mask read_from(struct level *, const PgQuery__Node *);

static mask
restricted_by(PgQuery__JoinType type, mask left, mask right)
{
	switch ((int)type) {
	case PG_QUERY__JOIN_TYPE__JOIN_INNER:
		return (left | right);
	case PG_QUERY__JOIN_TYPE__JOIN_LEFT:
		return (right);
	case PG_QUERY__JOIN_TYPE__JOIN_RIGHT:
		return (left);
	default:
		return (0);
	}
}

/* The only item of a side, when the name cannot be another's. */
static bool
only_item(const struct level *v, mask side, const char *name, struct column *out)
{
	if (side == 0 || (side & (side - 1)) != 0)
		return (false);
	*out = (struct column){.item = (unsigned)__builtin_ctzll(side), .name = name};
	return (!v->is_full);
}

/* USING (name): an equality of both sides, and a name that needs no table. */
static void
read_using(struct level *v, const PgQuery__JoinExpr *j, mask left, mask right)
{
	mask may = restricted_by(j->jointype, left, right);
	struct column a, b;

	for (size_t i = 0; i < j->n_using_clause && may != 0; i++) {
		const char *name = sql_node_string(j->using_clause[i]);

		if (name == NULL || !only_item(v, right, name, &b))
			return;
		if (!only_item(v, left, name, &a) &&
		    (!find_unqualified(v, name, &a) || !is_in(left, a.item)))
			continue;
		add_equal(v, may, &a, &b);
		add_equal(v, may, &b, &a);
		if (v->using_count < USINGS)
			v->usings[v->using_count++] =
			    j->jointype == PG_QUERY__JOIN_TYPE__JOIN_RIGHT ? b : a;
	}
}

static mask
read_join(struct level *v, const PgQuery__JoinExpr *j)
{
	unsigned first = v->item_count;
	mask left = read_from(v, j->larg), right = read_from(v, j->rarg);

	read_using(v, j, left, right);
	read_condition(v, restricted_by(j->jointype, left, right), j->quals);
	/* An alias of the join hides the names in it: what is said outside with them means
	 * something else. */
	if (j->alias != NULL)
		for (unsigned i = first; i < v->item_count; i++)
			v->items[i].name = "";
	return (left | right);
}

static const char *
alias_name(const PgQuery__Alias *alias)
{
	return (alias == NULL ? "" : alias->aliasname);
}

static mask
read_from(struct level *v, const PgQuery__Node *n)
{
	struct item item = {.name = "", .table = -1};

	switch ((int)n->node_case) {
	case PG_QUERY__NODE__NODE_RANGE_VAR:
		return (add_var(v, n->range_var));
	case PG_QUERY__NODE__NODE_JOIN_EXPR:
		return (read_join(v, n->join_expr));
	case PG_QUERY__NODE__NODE_RANGE_TABLE_SAMPLE:
		return (read_from(v, n->range_table_sample->relation));
	case PG_QUERY__NODE__NODE_RANGE_SUBSELECT:
		item.name = alias_name(n->range_subselect->alias);
		break;
	case PG_QUERY__NODE__NODE_RANGE_FUNCTION:
		item.name = alias_name(n->range_function->alias);
		break;
	case PG_QUERY__NODE__NODE_RANGE_TABLE_FUNC:
		item.name = alias_name(n->range_table_func->alias);
		break;
	default:
		break;
	}
	return (add_item(v, &item));
}

/* ---- carrying what is known to equal columns ---- */

static bool
is_same(const struct column *a, const struct column *b)
{
	return (a->item == b->item && strcmp(a->name, b->name) == 0);
}

static bool
is_known(const struct level *v, const struct column *c, const struct sql_value *values)
{
	for (unsigned i = 0; i < v->known_count; i++)
		if (v->known[i].values == values && is_same(&v->known[i].column, c))
			return (true);
	return (false);
}

/* What is carried joins the end of the list and is carried on in its turn. */
static void
carry(struct level *v)
{
	for (unsigned i = 0; i < v->known_count; i++) {
		struct known known = v->known[i];

		for (unsigned j = 0; j < v->equal_count; j++) {
			const struct equal *e = &v->equals[j];

			if (!is_same(&e->from, &known.column) ||
			    is_known(v, &e->to, known.values))
				continue;
			add_known(v, &(struct known){e->to, known.values, known.count});
		}
	}
}

void
sql_level_find(struct sql_find *f, const PgQuery__RangeVar *target, size_t count,
    PgQuery__Node *const *from, const PgQuery__Node *where)
{
	struct level v;
	mask all = 0;

	if (target == NULL && count == 0)
		return;
	v.find = f;
	v.item_count = v.known_count = v.equal_count = v.using_count = 0;
	v.is_full = false;
	if (target != NULL)
		all |= add_var(&v, target);
	for (size_t i = 0; i < count; i++)
		all |= read_from(&v, from[i]);
	read_condition(&v, all, where);
	carry(&v);
	for (unsigned i = 0; i < v.known_count; i++) {
		const struct known *known = &v.known[i];
		int table = v.items[known->column.item].table;

		if (table >= 0)
			sql_match_add(
			    f, &(struct sql_match){.table = (unsigned)table,
				   .column = sql_arena_str(f->arena, known->column.name),
				   .values = known->values,
				   .count = known->count});
	}
}
