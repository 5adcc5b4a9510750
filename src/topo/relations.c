/*
 * topo/relations.c: what databases say of one another: who stands in for whom (fallback),
 * and who is a replica of whom.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

/* "name: key" in a one-line form, "key" in a section. The caller frees it. */
static char *
label_of(const struct database_node *n, const char *key)
{
	return (n->is_one_line ? mem_printf("%s: %s", n->db.name, key) : mem_str(key));
}

/* The database of that name, which n speaks of; NULL: said why not. */
static const struct topo_database *
other_database(const struct topo *t, const struct database_node *n, const char *key,
    const char *name, struct conf_at at, struct conf_problems *problems)
{
	const struct database_node *other = topo_database_node(t, name);
	char *label = label_of(n, key), *sentence;
	struct name_list names = {0};

	if (n->db.is_auto) {
		conf_problem(problems, at,
		    "%s: * is no database of its own, allowed is a database with a name",
		    label);
		other = NULL;
	} else if (other == NULL || other->db.is_auto) {
		names_of_databases(t, &names);
		sentence = name_unknown("database", name, &names);
		conf_problem(problems, at, "%s: %s", label, sentence);
		free(sentence);
		free(names.names);
		other = NULL;
	} else if (other == n) {
		conf_problem(problems, at,
		    "%s: \"%s\" is the database itself, allowed is another one", label,
		    name);
		other = NULL;
	}
	free(label);
	return (other != NULL ? &other->db : NULL);
}

/* Statements would go round for ever: says so, once for the ring, and opens it. */
static void
check_fallback(
    const struct topo *t, struct database_node *n, struct conf_problems *problems)
{
	const struct topo_database *at = n->db.fallback;
	struct buf ring = {0};
	char *label;

	buf_addstr(&ring, n->db.name);
	for (size_t i = 0; at != NULL && at != &n->db && i < t->database_count; i++) {
		buf_addf(&ring, " -> %s", at->name);
		at = at->fallback;
	}
	if (at == &n->db) {
		label = label_of(n, "fallback");
		conf_problem(problems, n->fallback_at,
		    "%s: %.*s -> %s goes round, allowed is a chain that ends", label,
		    (int)ring.len, (const char *)ring.mem, n->db.name);
		free(label);
		n->db.fallback = NULL;
	}
	buf_free(&ring);
}

static void
check_replica(const struct database_node *n, struct conf_problems *problems)
{
	const struct topo_database *primary = n->db.replica_of;
	char *label;

	if (primary == NULL || primary->replica_of == NULL)
		return;
	label = label_of(n, "replica_of");
	conf_problem(problems, n->replica_of_at,
	    "%s: \"%s\" is a replica itself, allowed is its primary \"%s\"", label,
	    primary->name, primary->replica_of->name);
	free(label);
}

/* Each primary knows its replicas, in the order of the file. */
static void
list_copies(struct topo *t)
{
	for (size_t i = 0; i < t->database_count; i++) {
		const struct topo_database *copy = &t->databases[i]->db;
		struct topo_database *of;

		if (copy->replica_of == NULL || !copy->is_configured)
			continue;
		of = &topo_database_node(t, copy->replica_of->name)->db;
		of->copies =
		    mem_realloc(of->copies, (of->copy_count + 1) * sizeof(*of->copies));
		of->copies[of->copy_count++] = copy;
	}
}

void
relations_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < t->database_count; i++) {
		struct database_node *n = t->databases[i];

		if (n->fallback != NULL)
			n->db.fallback = other_database(
			    t, n, "fallback", n->fallback, n->fallback_at, problems);
		if (n->replica_of != NULL)
			n->db.replica_of = other_database(t, n, "replica_of",
			    n->replica_of, n->replica_of_at, problems);
	}
	for (size_t i = 0; i < t->database_count; i++) {
		check_fallback(t, t->databases[i], problems);
		check_replica(t->databases[i], problems);
	}
	list_copies(t);
}
