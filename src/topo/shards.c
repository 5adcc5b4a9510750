/*
 * topo/shards.c: [shard x]: tables whose rows are spread over members. Several groups of
 * tables of one virtual database have sections [shard x GROUP].
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

struct draft {
	const char *tables, *key, *members, *ranges, *lists;
	int function, type;
};
static const struct slot slots[] = {
    {"tables", SLOT_STR, offsetof(struct draft, tables)},
    {"key", SLOT_STR, offsetof(struct draft, key)},
    {"members", SLOT_STR, offsetof(struct draft, members)},
    {"function", SLOT_MODE, offsetof(struct draft, function)},
    {"key_type", SLOT_MODE, offsetof(struct draft, type)},
    {"ranges", SLOT_STR, offsetof(struct draft, ranges)},
    {"lists", SLOT_STR, offsetof(struct draft, lists)},
};

static void
read_tables(struct complaint *c, struct topo *t, struct topo_shard *s, const char *tables)
{
	struct name_list names = {0};
	const char *piece, *wrong;
	struct table_name name;
	size_t len;

	if (tables == NULL)
		complain(c, "tables", "missing, allowed are names of tables");
	while (tables != NULL && list_next(&tables, &piece, &len)) {
		wrong = table_name_read(&t->strings, piece, len, &name);
		if (wrong == NULL && !name.is_exact)
			wrong = "is a pattern";
		if (wrong != NULL)
			complain(c, "tables",
			    "\"%s\" %s, allowed are table and schema.table", name.text,
			    wrong);
		else
			list_add(&names, name.text);
	}
	s->tables = names.names;
	s->table_count = names.count;
}

/* A column is named as a table is. */
static void
read_key(struct complaint *c, struct topo *t, struct topo_shard *s, const char *key)
{
	struct table_name name = {0};
	const char *wrong;

	if (key == NULL) {
		complain(c, "key", "missing, allowed is the name of a column");
		return;
	}
	wrong = table_name_read(&t->strings, key, strlen(key), &name);
	if (wrong == NULL && (name.schema != NULL || !name.is_exact))
		wrong = "is not one name";
	if (wrong != NULL)
		complain(
		    c, "key", "\"%s\" %s, allowed is the name of a column", key, wrong);
	else
		s->key = name.table;
}

static bool
has_member(const struct topo_shard *s, const struct topo_database *db)
{
	for (size_t i = 0; i < s->member_count; i++) {
		if (s->members[i] == db)
			return (true);
	}
	return (false);
}

static void
read_members(struct complaint *c, struct topo *t, const struct topo_virtual *v,
    struct topo_shard *s, const char *members)
{
	struct name_list names = {0}, allowed = {0};

	/* Ranges and lists name them. */
	if (members == NULL && s->function != TOPO_SHARD_RANGE &&
	    s->function != TOPO_SHARD_LIST)
		complain(c, "members", "missing, allowed are members of %s", v->name);
	else if (members != NULL)
		list_read(&t->strings, members, &names);
	s->members = mem_alloc((names.count + 1) * sizeof(*s->members));
	for (size_t i = 0; i < names.count; i++) {
		const struct topo_database *db = topo_member_find(v, names.names[i]);

		if (db == NULL) {
			names_of(v->members, v->member_count, &allowed);
			complain_unknown(
			    c, "members", "member", names.names[i], &allowed);
		} else if (has_member(s, db)) {
			complain(c, "members",
			    "\"%s\" stands there twice, allowed is once", names.names[i]);
		} else {
			s->members[s->member_count++] = db;
		}
	}
	free(names.names);
}

/* Members of which no range or list speaks hold no rows. */
static void
check_members(const struct topo_shard *s, const char *word, const struct words *w)
{
	for (size_t i = 0; i < s->member_count; i++) {
		bool has_values = s->other == (int)i;

		for (size_t k = 0; k < s->span_count; k++)
			has_values |= s->spans[k].member == i;
		if (!has_values)
			conf_warning(w->problems, words_at(w, "members"),
			    "members: none of the %s names \"%s\": it holds no rows",
			    word, s->members[i]->name);
	}
}

/* The word of one function alone. */
static void
read_placement(struct complaint *c, struct topo *t, const struct topo_virtual *v,
    struct topo_shard *s, const struct draft *d)
{
	static const char *const words[] = {
	    [TOPO_SHARD_RANGE] = "ranges", [TOPO_SHARD_LIST] = "lists"};
	const char *texts[] = {
	    [TOPO_SHARD_RANGE] = d->ranges, [TOPO_SHARD_LIST] = d->lists};

	for (unsigned f = TOPO_SHARD_RANGE; f <= TOPO_SHARD_LIST; f++) {
		if (f != s->function && texts[f] != NULL)
			complain(c, words[f], "not for function %s, allowed is %s",
			    topo_shard_function_name(s->function),
			    topo_shard_function_name(f));
		else if (f == s->function && texts[f] == NULL)
			complain(c, words[f],
			    f == TOPO_SHARD_RANGE
				? "missing, allowed is low..high: member, …"
				: "missing, allowed is value value…: member, …");
		else if (f == s->function) {
			s->placement = texts[f];
			spans_read(c, t, v, s, texts[f], d->members == NULL);
			if (!c->is_wrong)
				check_members(s, words[f], c->words);
		}
	}
	if (s->function == TOPO_SHARD_MODULO && s->type > TOPO_SHARD_BIGINT)
		complain(c, "key_type",
		    "%s is no number, which function modulo needs, allowed are integer and "
		    "bigint",
		    topo_shard_type_name(s->type));
}

static void
read_shard(struct topo *t, struct topo_virtual *v, const struct conf_section *section,
    struct conf_problems *problems)
{
	struct draft d = {.function = TOPO_SHARD_MODULO, .type = TOPO_SHARD_INTEGER};
	struct words w = {
	    .topo = t,
	    .problems = problems,
	    .scope = SC_SHARD,
	    .slots = slots,
	    .slot_count = ARRAY_LEN(slots),
	    .base = &d,
	    .at = section->at,
	};
	struct complaint c = {.words = &w};
	struct topo_shard *s;

	words_begin(&w);
	for (size_t i = 0; i < section->key_count; i++)
		words_put(&w, section->keys[i].key, section->keys[i].value,
		    section->keys[i].at);
	v->shards = mem_realloc(v->shards, (v->shard_count + 1) * sizeof(*v->shards));
	s = &v->shards[v->shard_count++];
	*s = (struct topo_shard){
	    .key = "",
	    .function = (enum topo_shard_function)d.function,
	    .type = (enum topo_shard_type)d.type,
	    .other = -1,
	    .at = words_at(&w, "tables"),
	};
	read_tables(&c, t, s, d.tables);
	read_key(&c, t, s, d.key);
	read_members(&c, t, v, s, d.members);
	read_placement(&c, t, v, s, &d);
	words_end(&w);
}

/* [shard bank accounts]: the virtual database with the longest name that begins it. */
static struct topo_virtual *
grouped_virtual(struct topo *t, const char *name)
{
	struct topo_virtual *found = NULL;

	for (size_t i = 0; i < t->virtual_count; i++) {
		struct topo_virtual *v = &t->virtuals[i]->v;
		size_t len = strlen(v->name);

		if (strncmp(name, v->name, len) == 0 &&
		    (name[len] == ' ' || name[len] == '\t') &&
		    (found == NULL || len > strlen(found->name)))
			found = v;
	}
	return (found);
}

void
shards_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);
		struct topo_virtual *v = NULL;

		if (strcmp(s->kind, "shard") != 0)
			continue;
		if (topo_virtual_node(t, s->name) == NULL)
			v = grouped_virtual(t, s->name);
		if (v == NULL)
			v = section_virtual(t, s, problems);
		if (v != NULL)
			read_shard(t, v, s, problems);
	}
}
