/*
 * An INSERT … VALUES or COPY … FROM STDIN whose rows belong to several members: each row goes to
 * its own.
 *
 *   INSERT INTO accounts (user_id, …) VALUES (1, …), (2, …)   the keys stand in the statement
 *   COPY accounts (user_id, …) FROM STDIN                     the place of the key in a row
 */
#include "private.h"

/* ---- the place of the key in the rows of a COPY ---- */

/* The first member whose catalog knows the table. */
static const struct catalog_relation *
relation_of(
    const struct route_work *w, const struct topo_shard *shard, const struct sql_table *t)
{
	const struct catalog_relation *r = NULL;

	for (size_t i = 0; r == NULL && i < shard->member_count; i++)
		r = catalog_relation(catalog_db(w->in->catalog,
					 topo_database_served(shard->members[i])->name),
		    t->schema, t->name);
	return (r);
}

/* False: the rows have no key, or nobody knows where. */
static bool
find_key(struct route_work *w, const struct topo_shard *shard, const struct sql_table *t)
{
	const struct sql_copy *copy = w->in->facts->copy;
	struct route_split *split = &w->out->split;
	const struct catalog_relation *r;

	for (unsigned i = 0; i < copy->column_count; i++) {
		split->key_at = i;
		if (strcmp(copy->columns[i], shard->key) == 0)
			return (true);
	}
	r = copy->column_count == 0 ? relation_of(w, shard, t) : NULL;
	for (unsigned i = 0; r != NULL && i < r->column_count; i++) {
		struct sql_match m = {.column = "", .place = i + 1};

		if (strcmp(r->columns[i].name, shard->key) != 0)
			continue;
		split->key_at = i;
		split->column_count = r->column_count;
		return (route_says_key(w, shard, t, &m));
	}
	return (false);
}

/* ---- whose rows they are ---- */

static const struct sql_match *
rows_of(const struct route_work *w, const struct topo_shard *shard)
{
	const struct sql_facts *facts = w->in->facts;

	for (unsigned i = 0; i < facts->match_count; i++)
		if (facts->matches[i].is_insert &&
		    route_says_key(w, shard, &facts->tables[0], &facts->matches[i]))
			return (&facts->matches[i]);
	return (NULL);
}

static bool
same_database(const struct topo_database *a, const struct topo_database *b)
{
	return (topo_database_served(a) == topo_database_served(b));
}

/* The databases of these shards, each once; those that the key may use. */
static void
list_members(struct route_work *w, const struct topo_shard *shard, uint64_t set,
    struct route_members *many)
{
	many->count = 0;
	for (size_t i = 0; i < shard->member_count; i++) {
		bool is_there = false;

		if ((set & UINT64_C(1) << i) == 0 ||
		    !route_may(w->in->key, w->own, shard->members[i]))
			continue;
		for (unsigned k = 0; k < many->count && !is_there; k++)
			is_there = same_database(many->at[k], shard->members[i]);
		if (!is_there)
			many->at[many->count++] = shard->members[i];
	}
}

bool
route_may_all(struct route_work *w, const struct topo_shard *shard, uint64_t set,
    const struct sql_table *t)
{
	char name[160];

	for (size_t i = 0; i < shard->member_count; i++)
		if ((set & UINT64_C(1) << i) != 0 &&
		    !route_may(w->in->key, w->own, shard->members[i]))
			return (route_denied(w, shard->members[i],
			    "Rows of \"%s\" that the statement writes belong there.",
			    route_table_name(t, name, sizeof(name))));
	return (true);
}

static bool
may_federate(struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *t, unsigned count)
{
	const struct topo_key *key = w->in->key;
	char name[160], who[128];

	if (count < 2 || key == NULL || key->can_federate)
		return (true);
	route_refuse(w, "42501", "%s may not run federated statements",
	    route_key_name(key, who, sizeof(who)));
	route_detail(w, "The rows of \"%s\" are spread over several databases by \"%s\".",
	    route_table_name(t, name, sizeof(name)), shard->key);
	route_hint(w, "%s", "Write the rows of one database in each statement.");
	return (false);
}

/* ---- the decision ---- */

static bool
knows_stream(struct route_work *w, const struct sql_table *t)
{
	char name[160];

	if (w->in->facts->copy->unknown == NULL)
		return (true);
	route_refuse(w, "0A000",
	    "COPY option \"%s\" is not supported for \"%s\", whose rows are on several databases",
	    w->in->facts->copy->unknown, route_table_name(t, name, sizeof(name)));
	return (false);
}

static void
note_split(struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *t, const struct route_members *many)
{
	char name[160];

	if (!w->in->wants_notes)
		return;
	for (unsigned i = 0; i < many->count; i++)
		if (i == 0)
			route_spoke(w, ROUTE_BY_SHARD, "%s: each row by %s -> %s",
			    route_table_name(t, name, sizeof(name)), shard->key,
			    many->at[i]->name);
		else
			route_spoke(w, ROUTE_BY_SHARD, "%s", many->at[i]->name);
}

enum route_spread
route_spread_split(struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *t, uint64_t set, struct route_members *many)
{
	const struct sql_facts *facts = w->in->facts;
	struct route_split *split = &w->out->split;
	bool is_copy = facts->copies_in;

	*split = (struct route_split){.shard = shard, .table = t};
	if (facts->table_count != 1)
		return (SPREAD_ONE);
	if (is_copy) {
		if (facts->copy == NULL || !find_key(w, shard, t))
			return (SPREAD_ONE);
		set = route_set_of_all(shard);
		if (!knows_stream(w, t))
			return (SPREAD_REFUSED);
	} else {
		split->rows = rows_of(w, shard);
		if (strcmp(w->in->scan->verb, "insert") != 0 || split->rows == NULL)
			return (SPREAD_ONE);
		if (!route_may_all(w, shard, set, t))
			return (SPREAD_REFUSED);
	}
	list_members(w, shard, set, many);
	if (many->count == 0) {
		(void)route_may_all(w, shard, set, t);
		return (SPREAD_REFUSED);
	}
	if (!may_federate(w, shard, t, many->count))
		return (SPREAD_REFUSED);
	note_split(w, shard, t, many);
	return (SPREAD_SPLIT);
}

/* ---- legs ---- */

/* The leg of each shard: that of the database which answers for it. */
static void
map_shards(struct route_work *w, const struct route_members *many, const int8_t *leg)
{
	struct route_split *split = &w->out->split;

	for (size_t i = 0; i < split->shard->member_count; i++) {
		const struct topo_database *member = split->shard->members[i];

		split->leg_of[i] = -1;
		if (!route_may(w->in->key, w->own, member))
			continue;
		for (unsigned k = 0; k < many->count; k++)
			if (same_database(many->at[k], member))
				split->leg_of[i] = leg[k];
	}
}

/* The leg of one row of an INSERT. */
static unsigned
leg_of_row(struct route_work *w, const struct route_split *split, unsigned row)
{
	uint64_t set =
	    route_set_of_value(w, split->shard, split->table, split->rows, row);
	int leg;

	INVARIANT(set != 0);
	leg = split->leg_of[__builtin_ctzll(set)];
	INVARIANT(leg >= 0);
	return ((unsigned)leg);
}

bool
route_split_legs(struct route_work *w, const struct route_members *many)
{
	struct route_plan *out = w->out;
	int8_t leg[ROUTE_LEGS_MAX];

	out->rule = ROUTE_BY_SHARD;
	for (unsigned i = 0; i < many->count; i++) {
		const struct topo_database *node;
		unsigned k = 0;

		if (!route_write_node(w, many->at[i], &node)) {
			out->leg_count = 0;
			return (false);
		}
		while (k < out->leg_count && out->legs[k].node != node)
			k++;
		leg[i] = (int8_t)k;
		if (k == out->leg_count)
			out->legs[out->leg_count++] =
			    (struct route_leg){many->at[i], node};
	}
	map_shards(w, many, leg);
	for (unsigned i = 0; out->split.rows != NULL && i < out->split.rows->count; i++)
		out->split.leg_rows[leg_of_row(w, &out->split, i)]++;
	/* A fallback answers for several. */
	out->way =
	    out->split.rows != NULL && out->leg_count == 1 ? ROUTE_ONE : ROUTE_SPLIT;
	return (true);
}

void
route_split_rows(
    const struct route_input *in, const struct route_plan *plan, uint8_t *leg_of)
{
	struct route_plan scratch;
	struct route_work w;

	INVARIANT(plan->way == ROUTE_SPLIT && plan->split.rows != NULL);
	(void)route_work_begin(&w, in, &scratch);
	for (unsigned i = 0; i < plan->split.rows->count; i++)
		leg_of[i] = (uint8_t)leg_of_row(&w, &plan->split, i);
}

/* ---- a row without a home ---- */

void
route_home_words(const struct topo_shard *shard, const char *table, int home,
    const struct route_datum *d, struct route_words *out)
{
	int len = (int)(d->len > 64 ? 64 : d->len);
	const char *value = route_is_text(d) ? (const char *)d->p : NULL;

	*out = (struct route_words){.sqlstate = "22P02"};
	switch (home) {
	case ROUTE_HOME_NULL:
		text_copy(out->sqlstate, sizeof(out->sqlstate), "22004");
		route_put(out->message, sizeof(out->message),
		    "null value in shard key \"%s\" of table \"%s\"", shard->key, table);
		return;
	case ROUTE_HOME_RANGE:
		text_copy(out->sqlstate, sizeof(out->sqlstate), "22003");
		route_put(out->message, sizeof(out->message),
		    "value of shard key \"%s\" of table \"%s\" is out of range",
		    shard->key, table);
		break;
	case ROUTE_HOME_NONE:
		text_copy(out->sqlstate, sizeof(out->sqlstate), "23514");
		route_put(out->message, sizeof(out->message),
		    "no shard of table \"%s\" found for row", table);
		route_put(out->hint, sizeof(out->hint),
		    "The %s of the configuration do not have it (%s:%d).",
		    shard->function == TOPO_SHARD_RANGE ? "ranges" : "lists",
		    shard->at.file != NULL ? shard->at.file : "?", shard->at.line);
		if (value != NULL)
			route_put(out->detail, sizeof(out->detail),
			    "The shard key is (%s) = (%.*s).", shard->key, len, value);
		return;
	case ROUTE_HOME_WRONG:
	default:
		route_put(out->message, sizeof(out->message),
		    "shard key \"%s\" of table \"%s\" must be %s", shard->key, table,
		    route_value_kind(shard));
		break;
	}
	if (value != NULL)
		route_put(out->detail, sizeof(out->detail), "The value is \"%.*s\".", len,
		    value);
	else
		route_put(out->detail, sizeof(out->detail), "%s",
		    "The value is binary, and not of that type.");
}
