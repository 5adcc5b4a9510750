/*
 * The decision, strongest rule first, and what every rule had to say.
 *
 *   pin                                where the session has a temporary table, or a cursor
 *   SET LOCAL, comment, SET, dbname    name a member, or several, for the whole statement
 *   catalog, shard key, table route    name one for each table (tables.c)
 *   key type, default                  for what nothing else places
 */
#include "private.h"

#include <stdio.h>

/* The strongest word on a setting; NULL: none, or an empty one. */
#define SAID(w, field) said_first((w), offsetof(struct route_said, field))

const char *
route_rule_name(enum route_rule rule)
{
	static const char *const names[ROUTE_RULES] = {
	    [ROUTE_BY_PIN] = "pin",
	    [ROUTE_BY_SET_LOCAL] = "SET LOCAL",
	    [ROUTE_BY_COMMENT] = "comment",
	    [ROUTE_BY_SET] = "SET",
	    [ROUTE_BY_DBNAME] = "dbname",
	    [ROUTE_BY_CATALOG] = "catalog",
	    [ROUTE_BY_SHARD] = "shard key",
	    [ROUTE_BY_TABLE] = "table route",
	    [ROUTE_BY_KEY] = "key type",
	    [ROUTE_BY_DEFAULT] = "default",
	};

	INVARIANT(rule < ROUTE_RULES);
	return (names[rule]);
}

/* ---- notes and refusals ---- */

void
route_spoke(struct route_work *w, enum route_rule rule, const char *fmt, ...)
{
	struct route_note *note = &w->out->notes[rule];
	size_t len;
	va_list ap;

	if (!w->in->wants_notes)
		return;
	if (note->fate == NOTE_SILENT)
		note->text[0] = '\0';
	else
		route_append(note->text, sizeof(note->text), ", ");
	note->fate = NOTE_LOST;
	len = strlen(note->text);
	va_start(ap, fmt);
	(void)vsnprintf(note->text + len, sizeof(note->text) - len, fmt, ap);
	va_end(ap);
}

void
route_silent(struct route_work *w, enum route_rule rule, const char *why)
{
	if (w->in->wants_notes && w->out->notes[rule].fate == NOTE_SILENT)
		route_put(w->out->notes[rule].text, sizeof(w->out->notes[rule].text),
		    "%s", why);
}

bool
route_refuse(struct route_work *w, const char *sqlstate, const char *fmt, ...)
{
	struct route_plan *out = w->out;
	va_list ap;

	out->way = ROUTE_REFUSED;
	out->detail[0] = out->hint[0] = '\0';
	route_put(out->sqlstate, sizeof(out->sqlstate), "%s", sqlstate);
	va_start(ap, fmt);
	(void)vsnprintf(out->message, sizeof(out->message), fmt, ap);
	va_end(ap);
	return (false);
}

void
route_detail(struct route_work *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(w->out->detail, sizeof(w->out->detail), fmt, ap);
	va_end(ap);
}

void
route_hint(struct route_work *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(w->out->hint, sizeof(w->out->hint), fmt, ap);
	va_end(ap);
}

struct route_problem
route_problem_of(struct route_plan *out)
{
	return ((struct route_problem){out->sqlstate, out->message, out->detail,
	    sizeof(out->message), sizeof(out->detail)});
}

/* ---- what was said ---- */

static const char *
said_first(const struct route_work *w, size_t offset)
{
	for (unsigned i = 0; i < LEVELS; i++) {
		const char *value;

		if (w->said[i] == NULL)
			continue;
		memcpy(&value, (const char *)w->said[i] + offset, sizeof(value));
		if (value != NULL)
			return (value[0] == '\0' ? NULL : value);
	}
	return (NULL);
}

static bool
refuse_word(
    struct route_work *w, const char *setting, const char *value, const char *allowed)
{
	struct route_problem why = route_problem_of(w->out);

	route_bad_value(&why, setting, value);
	route_detail(w, "Allowed are %s.", allowed);
	w->out->way = ROUTE_REFUSED;
	return (false);
}

/* As it is for most statements. */
static bool
says_nothing(const struct route_work *w)
{
	static const struct route_said nothing;

	return (w->said[ROUTE_BY_COMMENT] == NULL &&
		memcmp(w->said[ROUTE_BY_SET_LOCAL], &nothing, sizeof(nothing)) == 0 &&
		memcmp(w->said[ROUTE_BY_SET], &nothing, sizeof(nothing)) == 0);
}

/* The settings that say how, not where. */
static bool
read_modes(struct route_work *w)
{
	const struct topo_virtual *v = w->in->virt;
	const char *value;
	int mode;

	w->out->federation = v->federation == ROUTE_TAG ? ROUTE_TAG : ROUTE_MERGE;
	w->skips = v->skips_unavailable;
	w->read_from = READ_FROM_AUTO;
	w->shard_key = NULL;
	if (says_nothing(w))
		return (true);
	if ((value = SAID(w, federation)) != NULL) {
		if ((mode = route_federation_of(value)) < 0)
			return (refuse_word(w, "federation", value, "merge, tag"));
		w->out->federation = (enum route_federation)mode;
	}
	if ((value = SAID(w, on_unavailable)) != NULL) {
		if ((mode = route_skips_of(value)) < 0)
			return (refuse_word(w, "on_unavailable", value, "error, skip"));
		w->skips = mode == 1;
	}
	if ((value = SAID(w, read_from)) != NULL) {
		if ((mode = route_read_from_of(value)) < 0)
			return (
			    refuse_word(w, "read_from", value, "primary, replica, auto"));
		w->read_from = (enum route_read_from)mode;
	}
	w->shard_key = SAID(w, shard_key);
	return (true);
}

static void
begin_notes(struct route_work *w)
{
	static const char *const silence[ROUTE_RULES] = {
	    [ROUTE_BY_PIN] = "nothing that the session is pinned with",
	    [ROUTE_BY_SET_LOCAL] = "not set",
	    [ROUTE_BY_COMMENT] = "not set",
	    [ROUTE_BY_SET] = "not set",
	    [ROUTE_BY_DBNAME] = "names no member",
	    [ROUTE_BY_CATALOG] = "no table names a database",
	    [ROUTE_BY_SHARD] = "no table is spread over shards",
	    [ROUTE_BY_TABLE] = "no table has a route",
	    [ROUTE_BY_KEY] = "no key",
	};
	char name[128];

	for (unsigned i = 0; i < ROUTE_BY_DEFAULT; i++) {
		w->out->notes[i].fate = NOTE_SILENT;
		route_put(w->out->notes[i].text, sizeof(w->out->notes[i].text), "%s",
		    silence[i]);
	}
	w->out->notes[ROUTE_BY_DEFAULT].fate = NOTE_SILENT;
	route_spoke(w, ROUTE_BY_DEFAULT, "%s", w->in->virt->dflt->name);
	if (w->in->key == NULL)
		return;
	route_key_name(w->in->key, name, sizeof(name));
	if (w->home != NULL && w->home_rule == ROUTE_BY_KEY)
		route_spoke(w, ROUTE_BY_KEY, "%s: %s", name, w->home->name);
	else
		route_silent(w, ROUTE_BY_KEY, "leaves it open");
}

bool
route_work_begin(
    struct route_work *w, const struct route_input *in, struct route_plan *out)
{
	const struct sql_hint *hint = in->scan->hint;

	w->in = in;
	w->out = out;
	w->reads_values = w->is_pinned = false;
	w->beside = NULL;
	out->memo.member = NULL;
	w->said[ROUTE_BY_PIN] = NULL;
	w->said[ROUTE_BY_SET_LOCAL] = &in->local;
	w->said[ROUTE_BY_COMMENT] = w->said[ROUTE_BY_DBNAME] = NULL;
	w->said[ROUTE_BY_SET] = &in->session;
	if (hint != NULL) {
		w->hint =
		    (struct route_said){hint->database, hint->databases, hint->federation,
			hint->on_unavailable, hint->shard_key, hint->read_from};
		w->said[ROUTE_BY_COMMENT] = &w->hint;
	}
	if (in->member != NULL) {
		w->dbname = (struct route_said){.database = in->member};
		w->said[ROUTE_BY_DBNAME] = &w->dbname;
	}
	w->own = route_own(in->virt, in->key);
	w->home = route_home(in->virt, in->key, w->own, &w->home_rule);
	out->way = ROUTE_ONE;
	out->leg_count = 0;
	out->rule = ROUTE_BY_DEFAULT;
	out->is_write = route_may_write(in);
	out->on_replica = false;
	out->calls_writer = false;
	w->is_plain_read = in->facts->is_plain_read;
	out->skipped[0] = out->warning[0] = out->node_why[0] = '\0';
	out->sqlstate[0] = out->message[0] = out->detail[0] = out->hint[0] = '\0';
	if (in->wants_notes)
		begin_notes(w);
	if (route_is_lost(in->virt, in->key)) {
		struct route_problem why = route_problem_of(out);

		route_deny_lost(in->key, &why);
		out->way = ROUTE_REFUSED;
		return (false);
	}
	if (hint != NULL && hint->problem != NULL)
		return (route_refuse(w, "22023", "%s", hint->problem));
	return (read_modes(w));
}

/* ---- one database ---- */

static bool
refuse_write(struct route_work *w, const char *where)
{
	const struct sql_facts *facts = w->in->facts;
	char verb[24];

	if (facts->class == SQL_UNKNOWN) {
		route_refuse(w, "25006", "cannot execute this statement %s", where);
		route_detail(w, "%s", "It is not understood, so it counts as a write.");
		return (false);
	}
	route_refuse(w, "25006", "cannot execute %s %s", route_verb(w->in, verb), where);
	if (facts->class == SQL_WRITE)
		route_detail(w, "%s",
		    "It writes, locks rows, or calls a function that may write.");
	return (false);
}

/* Writes are not for these, whoever sends them. A standby itself refuses what a utility
 * statement (DECLARE, PREPARE) would write; a read-only database is only so to us. */
static bool
check_read_only(struct route_work *w, const struct topo_database *d)
{
	char where[160];

	if (!w->out->is_write)
		return (true);
	if (d->is_read_only) {
		route_put(where, sizeof(where), "on read-only database \"%s\"", d->name);
		return (refuse_write(w, where));
	}
	if (d->replica_of == NULL || topo_database_is_primary(d) ||
	    w->in->facts->class == SQL_UTILITY)
		return (true);
	route_put(
	    where, sizeof(where), "on read-only database \"%s\", a replica", d->name);
	return (refuse_write(w, where));
}

/* What the statement is depends on what its functions and views are there. */
static void
note_member(struct route_work *w, const struct topo_database *member)
{
	bool may_write = route_calls_writer(w, member);

	w->is_plain_read = w->in->facts->is_plain_but_calls && !may_write;
	w->out->calls_writer |= may_write;
}

/* The node, for a statement of which is known what it is there. */
static bool
checked_node(struct route_work *w, const struct topo_database *member,
    const struct topo_database **node)
{
	if (!check_read_only(w, member) || !route_node(w, member, node))
		return (false);
	return (*node == member || check_read_only(w, *node));
}

bool
route_write_node(struct route_work *w, const struct topo_database *member,
    const struct topo_database **node)
{
	note_member(w, member);
	return (checked_node(w, member, node));
}

bool
route_one(struct route_work *w, const struct topo_database *member, enum route_rule rule)
{
	const struct topo_database *node;

	w->out->rule = rule;
	w->is_pinned = rule == ROUTE_BY_PIN;
	if (!route_write_node(w, member, &node))
		return (false);
	w->out->way = ROUTE_ONE;
	w->out->legs[0] = (struct route_leg){member, node};
	w->out->leg_count = 1;
	return (true);
}

/* ---- several databases ---- */

/* A database that stands behind a member: without fallbacks, and not a copy of it. */
static const struct topo_database *
identity(const struct topo_database *member)
{
	const struct topo_database *d = topo_database_served(member);

	return (d->replica_of != NULL ? topo_database_served(d->replica_of) : d);
}

/* Merged, the rows of one database must come once, however many names it has. */
static void
drop_doubles(struct route_members *m)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < m->count; i++) {
		bool is_double = false;

		for (unsigned k = 0; k < kept && !is_double; k++)
			is_double = identity(m->at[k]) == identity(m->at[i]);
		if (!is_double)
			m->at[kept++] = m->at[i];
	}
	m->count = kept;
}

static bool
refuse_unmerged(struct route_work *w)
{
	const struct sql_facts *facts = w->in->facts;

	if (facts->class != SQL_READ || facts->copies_in || facts->copies_out) {
		route_refuse(w, "0A000", "only SELECT can be federated yet");
		route_hint(w, "%s",
		    "SET pgweave.databases = '' and name one: SET pgweave.database = '…'.");
		return (false);
	}
	if (w->out->federation == ROUTE_TAG || facts->shape.why_not == NULL)
		return (true);
	route_refuse(w, "0A000", "this statement cannot be merged exactly: %s",
	    facts->shape.why_not);
	route_hint(
	    w, "%s", "SET pgweave.federation = 'tag' answers each database by itself.");
	return (false);
}

/* What answers for a member that is down, with a warning: its fallback, where that is allowed and
 * answers for nobody else, or its rows would come twice. NULL: nothing. */
static const struct topo_database *
stand_in(struct route_work *w, const struct route_members *m,
    const struct topo_database *member)
{
	struct route_plan *out = w->out;
	const struct topo_database *node = route_leg_fallback(w, member);

	if (node == NULL)
		return (NULL);
	for (unsigned i = 0; i < m->count; i++)
		if (identity(m->at[i]) == identity(node))
			return (NULL);
	for (unsigned i = 0; i < out->leg_count; i++)
		if (identity(out->legs[i].node) == identity(node))
			return (NULL);
	route_append(out->warning, sizeof(out->warning),
	    "%sdatabase \"%s\" %s, \"%s\" answers", out->warning[0] == '\0' ? "" : "; ",
	    member->name,
	    route_down_word(topo_database_primary(topo_database_served(member), NULL)),
	    node->name);
	return (node);
}

/* The legs of those that are up; the others are left out, or the end of it. */
static bool
add_legs(struct route_work *w, const struct route_members *m)
{
	struct route_plan *out = w->out;

	for (unsigned i = 0; i < m->count; i++) {
		const struct topo_database *node;

		note_member(w, m->at[i]);
		node = route_leg_node(w, m->at[i]);
		if (node == NULL)
			node = stand_in(w, m, m->at[i]);
		if (node != NULL) {
			out->legs[out->leg_count++] = (struct route_leg){m->at[i], node};
			continue;
		}
		if (!w->skips) {
			out->leg_count = 0;
			out->warning[0] = '\0';
			return (route_refuse_down(w, topo_database_served(m->at[i])));
		}
		route_append(out->skipped, sizeof(out->skipped), "%s%s",
		    out->skipped[0] == '\0' ? "" : ", ", m->at[i]->name);
	}
	if (out->skipped[0] != '\0')
		route_append(out->warning, sizeof(out->warning),
		    "%sleft out, because they are down: %s",
		    out->warning[0] == '\0' ? "" : "; ", out->skipped);
	if (out->leg_count > 0)
		return (true);
	route_refuse(w, "57P03", "no database can answer");
	route_detail(w, "All are down: %s.", out->skipped);
	out->warning[0] = '\0';
	return (false);
}

bool
route_many(struct route_work *w, struct route_members *m, enum route_rule rule)
{
	struct route_plan *out = w->out;

	INVARIANT(m->count > 0 && m->count <= ROUTE_LEGS_MAX);
	out->rule = rule;
	if (out->federation == ROUTE_MERGE)
		drop_doubles(m);
	if (out->federation == ROUTE_MERGE && m->count == 1)
		return (route_one(w, m->at[0], rule));
	if (!refuse_unmerged(w) || !add_legs(w, m))
		return (false);
	out->node_why[0] = '\0';
	out->way = out->federation == ROUTE_MERGE && out->leg_count == 1 ? ROUTE_ONE
									 : ROUTE_MANY;
	return (true);
}

/* Merged, a statement without tables has one answer: that of the key's own member or the
 * default, when it is among those named. */
static bool
many_without_tables(struct route_work *w, struct route_members *m, enum route_rule rule)
{
	for (unsigned i = 0; i < m->count; i++) {
		if (m->at[i] == w->home)
			return (route_one(w, w->home, rule));
	}
	return (route_one(w, m->at[0], rule));
}

static bool
said_many(struct route_work *w, const char *value, enum route_rule rule)
{
	struct route_problem why = route_problem_of(w->out);
	const struct sql_facts *facts = w->in->facts;
	struct route_members members;

	if (!route_list(w->in->virt, w->in->key, value, &members, &why)) {
		w->out->way = ROUTE_REFUSED;
		return (false);
	}
	if (facts->class != SQL_READ || facts->copies_in || facts->copies_out)
		return (refuse_unmerged(w));
	if (w->out->federation == ROUTE_MERGE && facts->table_count == 0)
		return (many_without_tables(w, &members, rule));
	return (route_many(w, &members, rule));
}

static bool
said_one(struct route_work *w, const char *value, enum route_rule rule)
{
	struct route_problem why = route_problem_of(w->out);
	const struct topo_database *member =
	    route_named(w->in->virt, w->in->key, value, &why);

	if (member == NULL && rule == ROUTE_BY_DBNAME)
		return (route_refuse(w, "3D000", "database \"%s.%s\" does not exist",
		    w->in->virt->name, value));
	if (member == NULL) {
		w->out->way = ROUTE_REFUSED;
		return (false);
	}
	if (!route_may(w->in->key, w->own, member))
		return (route_denied(
		    w, member, "%s names \"%s\".", route_rule_name(rule), member->name));
	return (route_one(w, member, rule));
}

/* ---- the order ---- */

/* The strongest level that says where: *list several, *one a member; or neither. */
static enum route_rule
said_where(const struct route_work *w, const char **list, const char **one)
{
	*list = *one = NULL;
	for (unsigned i = 0; i < LEVELS; i++) {
		const struct route_said *s = w->said[i];

		if (s == NULL || (s->database == NULL && s->databases == NULL))
			continue;
		if (s->databases != NULL && !route_is_auto(s->databases))
			*list = s->databases;
		else if (s->database != NULL && !route_is_auto(s->database))
			*one = s->database;
		return ((enum route_rule)i);
	}
	return (ROUTE_BY_DEFAULT);
}

static bool
names_pinned(const struct route_work *w)
{
	const struct sql_facts *facts = w->in->facts;

	for (unsigned i = 0; w->in->pinned != NULL && i < facts->table_count; i++)
		if (route_pinned(w, &facts->tables[i]) != NULL)
			return (true);
	return (false);
}

/* Tables that are not the session's own, nor made by the statement. */
static bool
names_others(const struct route_work *w)
{
	const struct sql_facts *facts = w->in->facts;

	for (unsigned i = 0; i < facts->table_count; i++)
		if (!facts->tables[i].is_system && !facts->tables[i].is_created &&
		    route_pinned(w, &facts->tables[i]) == NULL)
			return (true);
	return (false);
}

/* Tables beside one of the session's own are where a setting says, or at their places. False:
 * the statement names nothing of the session's own. */
static bool
decide_by_pin(struct route_work *w)
{
	struct route_problem why = route_problem_of(w->out);
	const char *list, *one;

	if (w->in->pinned_at != NULL) {
		if (route_may(w->in->key, w->own, w->in->pinned_at))
			(void)route_one(w, w->in->pinned_at, ROUTE_BY_PIN);
		else
			(void)route_denied(
			    w, w->in->pinned_at, "What the statement names is there.");
		return (true);
	}
	if (!names_pinned(w))
		return (false);
	w->beside_rule = said_where(w, &list, &one);
	if (list != NULL && names_others(w)) {
		route_refuse(w, "0A000",
		    "a temporary table cannot be joined with tables of several databases");
		route_detail(w, "pgweave.databases is '%s'.", list);
		return (true);
	}
	if (one != NULL) {
		w->beside = route_named(w->in->virt, w->in->key, one, &why);
		if (w->beside == NULL) {
			w->out->way = ROUTE_REFUSED;
			return (true);
		}
	}
	(void)route_by_tables(w);
	return (true);
}

/* The strongest level that says where decides, unless it leaves it to the rules below. */
static bool
decide_by_said(struct route_work *w)
{
	for (unsigned i = 0; i < LEVELS; i++) {
		const struct route_said *s = w->said[i];
		bool has_list;

		if (s == NULL || (s->database == NULL && s->databases == NULL))
			continue;
		/* What concerns the session alone is not for several. */
		has_list = s->databases != NULL && !route_is_auto(s->databases);
		if (has_list && !route_is_of_session(w->in)) {
			(void)said_many(w, s->databases, (enum route_rule)i);
			return (true);
		}
		if (!has_list && s->database != NULL && !route_is_auto(s->database)) {
			(void)said_one(w, s->database, (enum route_rule)i);
			return (true);
		}
		return (false);
	}
	return (false);
}

static void
note_said(struct route_work *w)
{
	for (unsigned i = 0; i < LEVELS; i++) {
		const struct route_said *s = w->said[i];
		enum route_rule rule = (enum route_rule)i;

		if (s == NULL || (s->database == NULL && s->databases == NULL))
			continue;
		if (s->databases != NULL && !route_is_auto(s->databases))
			route_spoke(w, rule, "databases = '%s'", s->databases);
		else if (s->database != NULL && !route_is_auto(s->database))
			route_spoke(w, rule,
			    rule == ROUTE_BY_DBNAME ? "%s" : "database = '%s'",
			    s->database);
		else
			route_silent(w, rule, "automatic");
	}
}

/* A stronger rule has decided: what the tables would have said, whatever they refuse. */
static void
note_tables(struct route_work *w)
{
	static const enum route_rule rules[] = {
	    ROUTE_BY_CATALOG, ROUTE_BY_SHARD, ROUTE_BY_TABLE};
	struct route_plan scratch;
	struct route_work other;

	if (!route_work_begin(&other, w->in, &scratch))
		return;
	route_note_tables(&other);
	for (size_t i = 0; i < ARRAY_LEN(rules); i++)
		w->out->notes[rules[i]] = scratch.notes[rules[i]];
}

static void
note_winner(struct route_work *w)
{
	struct route_plan *out = w->out;

	if (out->way == ROUTE_REFUSED)
		return;
	if (out->notes[out->rule].fate == NOTE_SILENT)
		route_spoke(w, out->rule, "%s", out->legs[0].member->name);
	out->notes[out->rule].fate = NOTE_WON;
}

static void
note_memo(struct route_work *w)
{
	struct route_plan *out = w->out;

	if (out->way != ROUTE_ONE || w->reads_values || w->in->member != NULL ||
	    w->shard_key != NULL || !says_nothing(w))
		return;
	out->memo = (struct route_memo){
	    out->legs[0].member, out->is_write, w->is_plain_read, out->calls_writer};
}

static void
decide(struct route_work *w)
{
	const struct topo_key *key = w->in->key;

	if (w->in->wants_notes)
		note_said(w);
	if (key != NULL && key->is_read_only && w->out->is_write) {
		(void)refuse_write(
		    w, key->is_login ? "with a read-only login" : "with a read-only key");
		return;
	}
	if (decide_by_pin(w))
		return;
	if (!decide_by_said(w)) {
		if (route_by_tables(w))
			note_memo(w);
	} else if (w->in->wants_notes)
		note_tables(w);
}

bool
route_repeat(
    const struct route_memo *memo, const struct route_input *in, struct route_plan *out)
{
	struct route_work w;

	w.in = in;
	w.out = out;
	w.read_from = READ_FROM_AUTO;
	w.is_plain_read = memo->is_plain_read;
	w.is_pinned = false;
	out->way = ROUTE_ONE;
	out->is_write = memo->is_write;
	out->calls_writer = memo->calls_writer;
	out->on_replica = false;
	out->warning[0] = '\0';
	out->memo = *memo;
	out->legs[0].member = memo->member;
	out->leg_count = 1;
	return (checked_node(&w, memo->member, &out->legs[0].node));
}

void
route_plan(const struct route_input *in, struct route_plan *out)
{
	struct route_work w;

	INVARIANT(in->virt != NULL && in->scan != NULL && in->facts != NULL);
	if (!route_work_begin(&w, in, out))
		return;
	decide(&w);
	if (in->wants_notes)
		note_winner(&w);
}
