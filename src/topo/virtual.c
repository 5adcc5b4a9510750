/*
 * topo/virtual.c: [virtual x]: one name for clients, many databases behind it.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A virtual database on its way. */
struct draft {
	struct topo_virtual v;
	const char *dflt, *members, *read_from, *hub;
	bool two_phase;
	int64_t federation_mem, gather_max_bytes;
	int audit;
};

#define SLOT(key, kind)                                                                  \
	{                                                                                \
#key, kind, offsetof(struct draft, key)                                  \
	}
static const struct slot slots[] = {
    {"default", SLOT_STR, offsetof(struct draft, dflt)},
    {"federation", SLOT_MODE, offsetof(struct draft, v.federation)},
    {"on_unavailable", SLOT_FLAG, offsetof(struct draft, v.skips_unavailable)},
    SLOT(members, SLOT_STR),
    SLOT(read_from, SLOT_STR),
    SLOT(hub, SLOT_STR),
    {"causal_reads", SLOT_FLAG, offsetof(struct draft, v.causal_reads)},
    SLOT(two_phase, SLOT_FLAG),
    {"failover_hold", SLOT_NUMBER, offsetof(struct draft, v.failover_hold)},
    SLOT(federation_mem, SLOT_NUMBER),
    SLOT(gather_max_bytes, SLOT_NUMBER),
    SLOT(audit, SLOT_MODE),
};

/* ---- members ---- */

static const struct topo_database **
add_database(
    const struct topo_database **list, size_t *count, const struct topo_database *db)
{
	if ((*count & (*count - 1)) == 0)
		list = mem_realloc(list, (*count == 0 ? 1 : *count * 2) * sizeof(*list));
	list[(*count)++] = db;
	return (list);
}

/* The database of that name; NULL: said why not. */
static const struct topo_database *
find_database(
    struct complaint *c, const struct topo *t, const char *word, const char *name)
{
	const struct database_node *n = topo_database_node(t, name);
	struct name_list names = {0};

	if (n != NULL && !n->db.is_auto)
		return (&n->db);
	names_of_databases(t, &names);
	complain_unknown(c, word, "database", name, &names);
	return (NULL);
}

static void
add_member(
    struct complaint *c, const struct topo *t, struct topo_virtual *v, const char *name)
{
	const struct topo_database *db = find_database(c, t, "members", name);

	if (db == NULL)
		return;
	if (db->replica_of != NULL)
		complain(c, "members",
		    "\"%s\" is a replica of \"%s\", allowed are primaries; reads go to "
		    "replicas by read_from",
		    name, db->replica_of->name);
	/* Names of members count in any case, in SQL and in keys. */
	else if (topo_member_find(v, name) != NULL)
		complain(
		    c, "members", "\"%s\" stands there twice, allowed is once", name);
	else if (v->member_count == TOPO_MEMBERS_MAX)
		complain(c, "members", "\"%s\" is one too many, allowed are %d", name,
		    TOPO_MEMBERS_MAX);
	else
		v->members = add_database(v->members, &v->member_count, db);
}

static void
read_members(struct complaint *c, struct topo *t, struct draft *d)
{
	struct name_list names = {0};

	if (d->members == NULL)
		complain(c, "members", "missing, allowed are names of databases");
	else
		list_read(&t->strings, d->members, &names);
	for (size_t i = 0; i < names.count; i++)
		add_member(c, t, &d->v, names.names[i]);
	free(names.names);
}

static void
read_default(struct complaint *c, const struct topo *t, struct draft *d)
{
	struct topo_virtual *v = &d->v;
	const struct topo_database *db;
	struct name_list names = {0};

	if (d->dflt == NULL) {
		v->dflt = v->member_count > 0 ? v->members[0] : NULL;
		return;
	}
	db = find_database(c, t, "default", d->dflt);
	if (db == NULL || d->members == NULL)
		return;
	v->dflt = topo_member_find(v, db->name);
	if (v->dflt == NULL) {
		names_of(v->members, v->member_count, &names);
		complain_unknown(c, "default", "member", d->dflt, &names);
	}
}

/* ---- read_from ---- */

static bool
is_replica_of_member(const struct topo_virtual *v, const struct topo_database *db)
{
	for (size_t i = 0; db->replica_of != NULL && i < v->member_count; i++) {
		if (v->members[i] == db->replica_of)
			return (true);
	}
	return (false);
}

static void
add_replica(
    struct complaint *c, const struct topo *t, struct topo_virtual *v, const char *name)
{
	const struct database_node *n = topo_database_node(t, name);
	struct name_list names = {0};

	if (n == NULL || !is_replica_of_member(v, &n->db)) {
		list_add(&names, "primary");
		for (size_t i = 0; i < t->database_count; i++) {
			if (is_replica_of_member(v, &t->databases[i]->db))
				list_add(&names, t->databases[i]->db.name);
		}
		complain_unknown(
		    c, "read_from", "replica of a member named", name, &names);
		return;
	}
	for (size_t i = 0; i < v->read_from_count; i++) {
		if (v->read_from[i] == &n->db) {
			complain(c, "read_from",
			    "\"%s\" stands there twice, allowed is once", name);
			return;
		}
	}
	v->read_from = add_database(v->read_from, &v->read_from_count, &n->db);
}

/* The word primary, unless a replica is called so. */
static bool
is_primary_word(const struct topo *t, const char *name)
{
	const struct database_node *n = topo_database_node(t, "primary");

	return (
	    strcasecmp(name, "primary") == 0 && (n == NULL || n->db.replica_of == NULL));
}

static void
read_replicas(struct complaint *c, struct topo *t, struct draft *d)
{
	struct name_list names = {0};

	if (d->read_from == NULL)
		return;
	list_read(&t->strings, d->read_from, &names);
	for (size_t i = 0; i < names.count; i++) {
		if (!is_primary_word(t, names.names[i]))
			add_replica(c, t, &d->v, names.names[i]);
		else if (names.count > 1)
			complain(c, "read_from",
			    "primary stands beside other names, allowed is primary alone, "
			    "or names of replicas: when none of them is fit, reads go to "
			    "the primary anyway");
	}
	free(names.names);
}

/* ---- what is announced, and not done yet ---- */

static void
warn_later(const struct words *w, const char *key, bool is_asked, const char *what)
{
	if (is_asked)
		conf_warning(w->problems, words_at(w, key),
		    "%s: accepted, but not done yet: %s", key, what);
}

static void
check_later(struct complaint *c, const struct topo *t, const struct draft *d)
{
	const struct words *w = c->words;

	warn_later(w, "two_phase", d->two_phase,
	    "a transaction that writes on a second member is refused");
	if (d->hub != NULL && strcasecmp(d->hub, "managed") != 0 &&
	    strcasecmp(d->hub, "off") != 0 && find_database(c, t, "hub", d->hub) == NULL)
		return;
	warn_later(w, "hub", d->hub != NULL && strcasecmp(d->hub, "off") != 0,
	    "a statement that needs the rows of several members in one place is refused");
	warn_later(w, "federation_mem", d->federation_mem >= 0, "it limits nothing");
	warn_later(w, "gather_max_bytes", d->gather_max_bytes >= 0, "it limits nothing");
	warn_later(w, "audit", d->audit > 0, "there is no audit trail");
}

/* Words of a pool, which is a database's. */
static bool
is_pool_word(const char *key)
{
	static const char *const words[] = {"pool_mode", "pool_size", "min_pool_size",
	    "reserve_pool_size", "reserve_pool", "max_overflow", "max_db_connections",
	    "max_db_client_connections", "share_statements", "multiplex"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcasecmp(words[i], key) == 0)
			return (true);
	}
	return (false);
}

/* ---- the whole ---- */

static void
check_name(
    const struct topo *t, const struct conf_section *s, struct conf_problems *problems)
{
	const struct database_node *n = topo_database_node(t, s->name);

	if (topo_is_console(s->name))
		conf_problem(problems, s->at,
		    "%s: this name is the console's, a virtual database must have another",
		    s->name);
	else if (n != NULL)
		conf_problem(problems, s->at,
		    "%s: the database at %s:%d has this name, a virtual database must have "
		    "another",
		    s->name, n->db.at.file, n->db.at.line);
}

/* dbname=bank.analytics means a member; a database of that name comes first. */
static void
check_hidden(
    const struct topo *t, const struct topo_virtual *v, struct conf_problems *problems)
{
	for (size_t i = 0; i < v->member_count; i++) {
		char *path = mem_printf("%s.%s", v->name, v->members[i]->name);
		const struct database_node *n = topo_database_node(t, path);

		if (n != NULL)
			conf_warning(problems, n->db.at,
			    "%s: hides the member of that name of [virtual %s]", path,
			    v->name);
		free(path);
	}
}

static void
read_virtual(struct topo *t, const struct conf_section *s, struct conf_problems *problems)
{
	struct draft d = {
	    .v = {.name = s->name, .at = s->at},
	    .v.failover_hold = 5000000,
	    .federation_mem = -1,
	    .gather_max_bytes = -1,
	};
	struct words w = {
	    .topo = t,
	    .problems = problems,
	    .scope = SC_VIRTUAL,
	    .slots = slots,
	    .slot_count = ARRAY_LEN(slots),
	    .base = &d,
	    .at = s->at,
	};
	struct complaint c = {.words = &w};
	struct virtual_node *n;

	check_name(t, s, problems);
	words_begin(&w);
	for (size_t i = 0; i < s->key_count; i++) {
		const struct conf_key *k = &s->keys[i];

		if (is_pool_word(k->key))
			conf_problem(problems, k->at,
			    "%s: not known here, it belongs in [database x]: virtual "
			    "databases pool by transaction, and sizes are their databases'",
			    k->key);
		else
			words_put(&w, k->key, k->value, k->at);
	}
	read_members(&c, t, &d);
	read_default(&c, t, &d);
	read_replicas(&c, t, &d);
	check_later(&c, t, &d);
	check_hidden(t, &d.v, problems);
	words_end(&w);
	n = mem_alloc(sizeof(*n));
	n->v = d.v;
	table_add(&t->by_virtual, &n->node, hash_bytes(s->name, strlen(s->name)));
	t->virtuals =
	    mem_realloc(t->virtuals, (t->virtual_count + 1) * sizeof(*t->virtuals));
	t->virtuals[t->virtual_count++] = n;
}

void
virtuals_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);

		if (strcmp(s->kind, "virtual") == 0 && *s->name != '\0')
			read_virtual(t, s, problems);
	}
}

struct topo_virtual *
section_virtual(
    struct topo *t, const struct conf_section *s, struct conf_problems *problems)
{
	struct virtual_node *n = topo_virtual_node(t, s->name);
	struct name_list names = {0};
	char *sentence;

	if (n != NULL)
		return (&n->v);
	/* A section without a name has been spoken of. */
	if (*s->name != '\0') {
		names_of_virtuals(t, &names);
		sentence = name_unknown("virtual database", s->name, &names);
		conf_problem(problems, s->at, "[%s %s]: %s", s->kind, s->name, sentence);
		free(sentence);
		free(names.names);
	}
	return (NULL);
}

const struct topo_database *
topo_member_find(const struct topo_virtual *v, const char *name)
{
	for (size_t i = 0; i < v->member_count; i++) {
		if (strcasecmp(v->members[i]->name, name) == 0)
			return (v->members[i]);
	}
	return (NULL);
}
