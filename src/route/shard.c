/*
 * Shard keys: which members hold the rows that a statement touches.
 *
 *   values of the key column, one table  -> a set of shards: = and IN, all conditions ANDed
 *   the sets of all tables of the group  -> one member, several, or a refusal
 *
 * Tables of one group belong together only on the same shard. A join whose tables are not all
 * held to it by a value of their own would miss rows that live elsewhere: it is refused.
 */
#include "private.h"

#include <stdlib.h>

#define SHARDS_MAX ROUTE_SHARDS_MAX

enum bind {
	BIND_NONE,  /* no value of the key */
	BIND_LATER, /* a parameter that is not known yet */
	BIND_SET,   /* the set is known */
	BIND_REFUSED
};

/* One table's match while its values are read. */
struct reading {
	struct route_work *w;
	const struct topo_shard *shard;
	const struct sql_table *table;
	const struct sql_match *match;
	uint64_t set;
	bool is_later,
	    is_open; /* a parameter to come; a value that nobody knows before */
};

/* What is said of the tables of a group so far. */
struct joining {
	uint64_t set, all; /* all: shards of one database each by itself */
	const struct sql_table *bound, *open; /* a table with values, one without */
	bool has_set, is_later, is_insert, has_setting;
};

uint64_t
route_set_of_all(const struct topo_shard *shard)
{
	return (shard->member_count == 64 ? UINT64_MAX
					  : (UINT64_C(1) << shard->member_count) - 1);
}

/* The set with one bit for each database: shards that are served by the same one count once. */
static uint64_t
set_by_database(const struct topo_shard *shard, uint64_t set)
{
	for (size_t i = 1; i < shard->member_count; i++) {
		if ((set & UINT64_C(1) << i) == 0)
			continue;
		for (size_t j = 0; j < i; j++) {
			if ((set & UINT64_C(1) << j) != 0 &&
			    topo_database_served(shard->members[j]) ==
				topo_database_served(shard->members[i])) {
				set &= ~(UINT64_C(1) << i);
				break;
			}
		}
	}
	return (set);
}

static bool
is_one(uint64_t set)
{
	return (set != 0 && (set & (set - 1)) == 0);
}

static const struct topo_database *
set_first(const struct topo_shard *shard, uint64_t set)
{
	return (shard->members[__builtin_ctzll(set)]);
}

/* ---- values ---- */

/* What was said, for a detail; NULL: it is binary. */
static void
say_value(struct reading *r, const char *value, size_t len)
{
	if (value != NULL)
		route_detail(
		    r->w, "The value is \"%.*s\".", (int)(len > 64 ? 64 : len), value);
	else
		route_detail(r->w, "The parameter is binary, and not that of %s.",
		    route_value_kind(r->shard));
}

static bool
bad_value(struct reading *r, const char *value, size_t len)
{
	char name[160];

	route_refuse(r->w, "22P02", "shard key \"%s\" of table \"%s\" must be %s",
	    r->shard->key, route_table_name(r->table, name, sizeof(name)),
	    route_value_kind(r->shard));
	say_value(r, value, len);
	return (false);
}

static bool
beyond_range(struct reading *r, const char *value, size_t len)
{
	char name[160];

	route_refuse(r->w, "22003",
	    "value of shard key \"%s\" of table \"%s\" is out of range", r->shard->key,
	    route_table_name(r->table, name, sizeof(name)));
	if (value != NULL)
		route_detail(r->w, "The value is \"%.*s\", and no bigint.",
		    (int)(len > 64 ? 64 : len), value);
	else
		route_detail(r->w, "%s", "The parameter is beyond the values of bigint.");
	return (false);
}

/* As PostgreSQL refuses a row for which there is no partition. No row has the value: a read
 * finds nothing; but a write of it is a mistake. */
static bool
no_shard(struct reading *r, const char *value, size_t len)
{
	char name[160];

	if (!r->match->is_insert && !r->table->is_written)
		return (true);
	route_table_name(r->table, name, sizeof(name));
	route_refuse(r->w, "23514",
	    r->match->is_insert ? "no shard of table \"%s\" found for row"
				: "no shard of table \"%s\" found for this value",
	    name);
	if (value != NULL)
		route_detail(r->w, "The shard key is (%s) = (%.*s).", r->shard->key,
		    (int)(len > 64 ? 64 : len), value);
	else
		route_detail(r->w, "The shard key is (%s), its value a binary parameter.",
		    r->shard->key);
	route_hint(r->w, "The %s of the configuration do not have it (%s:%d).",
	    r->shard->function == TOPO_SHARD_RANGE ? "ranges" : "lists",
	    r->shard->at.file != NULL ? r->shard->at.file : "?", r->shard->at.line);
	return (false);
}

/*
 * A number that is no integer equals no value of the column: it adds no shard, and when there is
 * no other, any shard says so as PostgreSQL would (3.5 matches no row; '3.5' is no value of an
 * integer column, which is the server's to refuse). Inserted it would be rounded first, by
 * rules that hang on its type and the column's: that is refused.
 */
static bool
add_value(struct reading *r, int read, const struct route_value *v, const char *text,
    size_t len)
{
	int place;

	if (read == ROUTE_NO_INTEGER && !r->match->is_insert)
		return (true);
	if (read == ROUTE_INTEGERS && !r->match->is_insert) {
		r->is_open = true;
		return (true);
	}
	if (read == ROUTE_OUT_OF_RANGE)
		return (beyond_range(r, text, len));
	if (read != ROUTE_VALUE)
		return (bad_value(r, text, len));
	place = topo_shard_place(r->shard, &v->v);
	if (place < 0)
		return (no_shard(r, text, len));
	r->set |= UINT64_C(1) << place;
	return (true);
}

/* A NULL equals nothing, so it adds no shard; but a row with it belongs nowhere. */
static bool
read_null(struct reading *r)
{
	char name[160];

	if (!r->match->is_insert)
		return (true);
	return (
	    route_refuse(r->w, "22004", "null value in shard key \"%s\" of table \"%s\"",
		r->shard->key, route_table_name(r->table, name, sizeof(name))));
}

static bool
read_other(struct reading *r)
{
	char name[160];

	if (!r->match->is_insert) {
		r->is_open = true;
		return (true);
	}
	route_refuse(r->w, "0A000",
	    "the value of shard key \"%s\" of table \"%s\" is not known before the statement runs",
	    r->shard->key, route_table_name(r->table, name, sizeof(name)));
	route_hint(r->w,
	    "Insert it as a constant or a parameter, or name the database: SET pgweave.database = …");
	return (false);
}

static bool
read_param(struct reading *r, unsigned number)
{
	const struct route_input *in = r->w->in;
	struct route_datum d = {0};
	struct route_value v;

	if (in->param == NULL || !in->param(in->arg, number, &d)) {
		r->is_later = true;
		return (true);
	}
	if (d.is_hidden)
		return (read_other(r));
	if (d.is_null)
		return (read_null(r));
	return (add_value(r, route_value_datum(r->shard, &d, &v), &v,
	    route_is_text(&d) ? (const char *)d.p : NULL, d.len));
}

static bool
read_literal(struct reading *r, const struct sql_value *v)
{
	const struct sql_scan *scan = r->w->in->scan;
	bool is_number = scan->literals[v->at].kind == SQL_LIT_NUMBER, is_good;
	char *text = sql_literal_value(scan, v->at), *whole = NULL;
	struct route_value value;
	size_t len;
	int read;

	if (text == NULL)
		return (bad_value(r, "", 0));
	len = strlen(text);
	read = is_number ? route_value_number(r->shard, text, len, v->is_negative, &value)
			 : route_value_text(r->shard, text, len, &value);
	if (v->is_negative)
		whole = mem_printf("-%s", text);
	is_good = add_value(
	    r, read, &value, whole != NULL ? whole : text, whole != NULL ? len + 1 : len);
	free(whole);
	free(text);
	return (is_good);
}

static bool
read_value(struct reading *r, const struct sql_value *v)
{
	switch (v->kind) {
	case SQL_VALUE_PARAM:
		return (read_param(r, v->at));
	case SQL_VALUE_LITERAL:
		return (read_literal(r, v));
	case SQL_VALUE_NULL:
		return (read_null(r));
	case SQL_VALUE_OTHER:
		break;
	}
	return (read_other(r));
}

uint64_t
route_set_of_value(struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *t, const struct sql_match *m, unsigned i)
{
	struct reading r = {w, shard, t, m, 0, false, false};

	return (read_value(&r, &m->values[i]) ? r.set : 0);
}

static bool
refuse_assigned(struct reading *r)
{
	char name[160];

	route_refuse(r->w, "0A000",
	    "an UPDATE cannot change shard key \"%s\" of table \"%s\"", r->shard->key,
	    route_table_name(r->table, name, sizeof(name)));
	route_hint(r->w, "%s",
	    "The row might have to move to another database: DELETE it and INSERT it anew.");
	return (false);
}

/* What the conditions say of one table. */
static enum bind
bind_table(struct route_work *w, const struct topo_shard *shard, unsigned table,
    struct joining *j, uint64_t *set)
{
	const struct sql_facts *facts = w->in->facts;
	bool has_set = false, is_later = false;

	*set = route_set_of_all(shard);
	for (unsigned i = 0; i < facts->match_count; i++) {
		const struct sql_match *m = &facts->matches[i];
		struct reading r = {w, shard, &facts->tables[table], m, 0, false, false};

		if (m->table != table ||
		    !route_says_key(w, shard, &facts->tables[table], m))
			continue;
		if (m->is_assigned) {
			refuse_assigned(&r);
			return (BIND_REFUSED);
		}
		for (unsigned k = 0; k < m->count; k++) {
			if (!read_value(&r, &m->values[k]))
				return (BIND_REFUSED);
		}
		j->is_insert |= m->is_insert;
		is_later |= r.is_later;
		if (r.is_later || r.is_open)
			continue;
		*set &= r.set;
		has_set = true;
	}
	if (has_set)
		return (BIND_SET);
	return (is_later ? BIND_LATER : BIND_NONE);
}

/* ---- the tables of a group ---- */

static bool
refuse_join(struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *a, const struct sql_table *b)
{
	char one[160], two[160];

	route_refuse(w, "0A000",
	    "statement joins \"%s\" and \"%s\" without the same shard key for both",
	    route_table_name(a, one, sizeof(one)), route_table_name(b, two, sizeof(two)));
	route_detail(
	    w, "Their rows are spread over several databases by \"%s\".", shard->key);
	route_hint(w, "Give both tables one value: … WHERE %s.%s = 42 AND %s.%s = 42.",
	    a->name, shard->key, b->name, shard->key);
	return (false);
}

static bool
join_set(struct route_work *w, const struct topo_shard *shard, const struct sql_table *t,
    uint64_t set, struct joining *j)
{
	const struct sql_table *other = j->bound;

	j->bound = t;
	/* It reads nothing: any shard can say so. */
	if (set == 0)
		return (true);
	j->all = set;
	set = set_by_database(shard, set);
	if (j->has_set && (!is_one(set) || !is_one(j->set) ||
			      topo_database_served(set_first(shard, set)) !=
				  topo_database_served(set_first(shard, j->set))))
		return (refuse_join(w, shard, other, t));
	j->has_set = true;
	j->set = set;
	return (true);
}

/* The setting pgweave.shard_key, for tables that the statement gives no value. */
static enum bind
bind_setting(struct route_work *w, const struct topo_shard *shard, uint64_t *set)
{
	struct route_problem why = route_problem_of(w->out);
	struct route_value v;
	int read, place = -1;

	if (w->shard_key == NULL)
		return (BIND_NONE);
	read = route_value_text(shard, w->shard_key, strlen(w->shard_key), &v);
	if (read == ROUTE_VALUE)
		place = topo_shard_place(shard, &v.v);
	if (place < 0) {
		route_bad_value(&why, "shard_key", w->shard_key);
		if (read == ROUTE_VALUE)
			route_detail(w, "No shard by \"%s\" has it.", shard->key);
		else
			route_detail(w, "Key \"%s\" must be %s.", shard->key,
			    route_value_kind(shard));
		w->out->way = ROUTE_REFUSED;
		return (BIND_REFUSED);
	}
	*set = UINT64_C(1) << place;
	return (BIND_SET);
}

static bool
join_tables(struct route_work *w, const struct topo_shard *shard,
    const struct route_place *places, struct joining *j)
{
	const struct sql_facts *facts = w->in->facts;
	uint64_t set;

	for (unsigned i = 0; i < facts->table_count; i++) {
		const struct sql_table *t = &facts->tables[i];
		enum bind bind;

		if (!places[i].is_counted || places[i].shard != shard)
			continue;
		bind = places[i].hides_key ? BIND_NONE : bind_table(w, shard, i, j, &set);
		if (bind == BIND_NONE) {
			bind = bind_setting(w, shard, &set);
			j->has_setting |= bind == BIND_SET;
		}
		if (bind == BIND_REFUSED)
			return (false);
		if (bind == BIND_LATER)
			j->is_later = true;
		else if (bind == BIND_NONE)
			j->open = t;
		else if (!join_set(w, shard, t, set, j))
			return (false);
	}
	if (j->open != NULL && j->bound != NULL)
		return (refuse_join(w, shard, j->bound, j->open));
	return (true);
}

/* Any shard will do: there are no rows, or they are not asked for yet. */
static const struct topo_database *
any_shard(const struct route_work *w, const struct topo_shard *shard)
{
	const struct topo_database *may = NULL;

	for (size_t i = shard->member_count; i-- > 0;) {
		if (shard->members[i] == w->home)
			return (w->home);
		if (route_may(w->in->key, w->own, shard->members[i]))
			may = shard->members[i];
	}
	return (may != NULL ? may : shard->members[0]);
}

static enum route_spread
refuse_spread_write(struct route_work *w, const struct topo_shard *shard,
    const struct sql_table *t, const struct joining *j)
{
	char name[160], first[24];
	const char *verb = route_verb(w->in, first);

	route_table_name(t, name, sizeof(name));
	if (t->is_guess) {
		route_refuse(w, "0A000", "a statement on \"%s\" is not understood", name);
		route_hint(w, "%s",
		    "It is too long, too deep, or not of the SQL that is known here. Name the database or the key: /* pgweave: shard_key=… */ in front of it.");
	} else if (j->has_set) {
		route_refuse(w, "0A000",
		    "%s on \"%s\" concerns rows of several databases", verb, name);
		route_hint(w, "%s",
		    j->is_insert ? "Split the INSERT: the rows of one database in each."
				 : "Split it: one statement for each database.");
	} else if (w->in->facts->class == SQL_WRITE) {
		route_refuse(
		    w, "0A000", "%s on \"%s\" without its shard key", verb, name);
		route_hint(w,
		    "Name the columns and give a value for \"%s\", or SET pgweave.shard_key = '…'.",
		    shard->key);
	} else {
		route_refuse(
		    w, "0A000", "%s on \"%s\" concerns several databases", verb, name);
		route_hint(
		    w, "%s", "Run it on each of them: SET pgweave.database = '…' first.");
	}
	route_detail(w, "The rows of \"%s\" are spread over several databases by \"%s\".",
	    name, shard->key);
	return (SPREAD_REFUSED);
}

/* A key of one member sees the rows there; but a row that is inserted must belong there. */
static bool
is_confined(const struct route_work *w, const struct joining *j)
{
	if (w->own == NULL || j->has_set)
		return (false);
	return (!w->out->is_write || strcmp(w->in->scan->verb, "update") == 0 ||
		strcmp(w->in->scan->verb, "delete") == 0);
}

/* "user_id", "hash of user_id". */
static const char *
key_text(const struct topo_shard *shard, char *to, size_t size)
{
	if (shard->function == TOPO_SHARD_MODULO)
		return (shard->key);
	route_put(
	    to, size, "%s of %s", topo_shard_function_name(shard->function), shard->key);
	return (to);
}

static enum route_spread
spread_many(struct route_work *w, const struct topo_shard *shard, uint64_t set,
    const struct sql_table *t, struct route_members *many)
{
	const struct topo_key *key = w->in->key;
	char name[160], who[128], by[128];

	route_table_name(t, name, sizeof(name));
	if (w->own == NULL && key != NULL && !key->can_federate) {
		route_refuse(w, "42501", "%s may not run federated statements",
		    route_key_name(key, who, sizeof(who)));
		route_detail(w,
		    "The rows of \"%s\" are spread over several databases by \"%s\".",
		    name, shard->key);
		route_hint(w, "Give one value for \"%s\".", shard->key);
		return (SPREAD_REFUSED);
	}
	many->count = 0;
	for (size_t i = 0; i < shard->member_count; i++) {
		if ((set & UINT64_C(1) << i) == 0)
			continue;
		if (!route_may(key, w->own, shard->members[i])) {
			(void)route_denied(w, shard->members[i],
			    "Rows of \"%s\" that the statement asks for are there.",
			    name);
			return (SPREAD_REFUSED);
		}
		many->at[many->count++] = shard->members[i];
		if (many->count == 1)
			route_spoke(w, ROUTE_BY_SHARD, "%s by %s -> %s", name,
			    key_text(shard, by, sizeof(by)), shard->members[i]->name);
		else
			route_spoke(w, ROUTE_BY_SHARD, "%s", shard->members[i]->name);
	}
	return (SPREAD_MANY);
}

static void
note_one(struct route_work *w, const struct topo_shard *shard, const struct sql_table *t,
    const struct joining *j, const struct topo_database *member)
{
	char name[160], by[128];

	if (!w->in->wants_notes)
		return;
	route_table_name(t, name, sizeof(name));
	if (j->has_setting)
		route_spoke(w, ROUTE_BY_SHARD, "%s by pgweave.shard_key = %s -> %s", name,
		    w->shard_key, member->name);
	else
		route_spoke(w, ROUTE_BY_SHARD, "%s by %s -> %s (%s:%d)", name,
		    key_text(shard, by, sizeof(by)), member->name,
		    shard->at.file != NULL ? shard->at.file : "?", shard->at.line);
}

enum route_spread
route_by_shard(struct route_work *w, const struct topo_shard *shard,
    const struct route_place *places, const struct topo_database **one,
    enum route_rule *rule, struct route_members *many)
{
	struct joining j = {0};
	enum route_spread spread;
	const struct sql_table *t;
	uint64_t set;

	INVARIANT(shard->member_count > 0);
	if (shard->member_count > SHARDS_MAX) {
		route_refuse(
		    w, "0A000", "more than %d shards are not supported", SHARDS_MAX);
		return (SPREAD_REFUSED);
	}
	if (!join_tables(w, shard, places, &j))
		return (SPREAD_REFUSED);
	*rule = ROUTE_BY_SHARD;
	t = j.bound != NULL ? j.bound : j.open;
	set = j.has_set ? j.set : set_by_database(shard, route_set_of_all(shard));
	if (j.is_later && !j.has_set) {
		*one = any_shard(w, shard);
		route_silent(w, ROUTE_BY_SHARD, "the value of the key is not known yet");
		return (SPREAD_ONE);
	}
	if (j.bound != NULL && !j.has_set)
		*one = any_shard(w, shard);
	else if (is_confined(w, &j)) {
		*one = w->own;
		*rule = ROUTE_BY_KEY;
		route_silent(w, ROUTE_BY_SHARD, "the statement has no value of the key");
		return (SPREAD_ONE);
	} else if (is_one(set)) {
		/* Of several shards of one database the key may not have all. */
		if (j.has_set && w->out->is_write && !is_one(j.all) &&
		    !route_may_all(w, shard, j.all, t))
			return (SPREAD_REFUSED);
		*one = set_first(shard, set);
	} else if (w->out->is_write || w->in->facts->class != SQL_READ) {
		spread = SPREAD_ONE;
		if (w->in->facts->copies_in || (j.is_insert && j.has_set))
			spread =
			    route_spread_split(w, shard, t, j.has_set ? j.all : 0, many);
		return (
		    spread == SPREAD_ONE ? refuse_spread_write(w, shard, t, &j) : spread);
	} else
		return (spread_many(w, shard, set, t, many));
	note_one(w, shard, t, &j, *one);
	return (SPREAD_ONE);
}
