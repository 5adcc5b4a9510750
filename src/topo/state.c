/* topo/state.c: the database that state_store names, when it names one. */
#include "inner.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char word[] = "database:";

static const char *
store_name(const struct settings *set)
{
	size_t len = sizeof(word) - 1;

	return (strncasecmp(set->state_store, word, len) == 0 ? set->state_store + len
							      : NULL);
}

const struct topo_database *
topo_store_database(const struct topo *t)
{
	const char *name = store_name(topo_settings(t));
	const struct database_node *n = name != NULL ? topo_database_node(t, name) : NULL;

	return (n != NULL ? &n->db : NULL);
}

/* What is wrong with it, or NULL. */
static const char *
wrong_with(const struct topo_database *db)
{
	if (db->replica_of != NULL || db->is_read_only)
		return ("is read-only: nothing could be kept there");
	if (!db->is_configured)
		return ("is not configured: it has no host");
	if (db->user == NULL)
		return ("has no user: connections of the proxy's own need one");
	return (NULL);
}

void
store_read(struct topo *t, struct conf_problems *problems)
{
	const char *name = store_name(conf_settings(t->conf)), *wrong = NULL;
	struct conf_at at = conf_setting_at(t->conf, "state_store");
	struct database_node *n;
	struct name_list names = {0};
	char *sentence;

	/* The name that is missing altogether has been said. */
	if (name == NULL || *name == '\0')
		return;
	n = topo_database_node(t, name);
	if (n != NULL && n->db.is_auto)
		wrong = "stands for any database: one with a name of its own is needed";
	else if (n != NULL)
		wrong = wrong_with(&n->db);
	else if (topo_virtual_node(t, name) != NULL)
		wrong = "is a virtual database: a database of [databases] is needed";
	if (wrong != NULL)
		conf_problem(problems, at, "state_store: \"%s\" %s", name, wrong);
	if (wrong != NULL || n != NULL)
		return;
	names_of_databases(t, &names);
	sentence = name_unknown("database", name, &names);
	conf_problem(problems, at, "state_store: %s", sentence);
	free(sentence);
	free(names.names);
}
