/*
 * topo/databases.c: [databases] in PgBouncer's one-line form, [database x] a key a line, and
 * hosts.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

#define SECRET_FILE_MAX ((size_t)65536)
#define MAX_LAG_US      ((int64_t)10 * 1000000) /* as the row of max_lag says */

/* A database on its way: what its words say, before they become hosts and parameters. */
struct draft {
	struct topo_database db;
	const char *host, *port, *password_file, *fallback, *replica_of;
	const char *client_encoding, *datestyle, *timezone, *application_name;
};

#define DB_SLOT(key, kind)                                                               \
	{                                                                                \
#key, kind, offsetof(struct draft, db.key)                               \
	}
#define DRAFT_SLOT(key)                                                                  \
	{                                                                                \
#key, SLOT_STR, offsetof(struct draft, key)                              \
	}
static const struct slot slots[] = {
    DB_SLOT(dbname, SLOT_STR),
    DB_SLOT(user, SLOT_STR),
    DB_SLOT(password, SLOT_STR),
    DB_SLOT(connect_query, SLOT_STR),
    DB_SLOT(auth_user, SLOT_STR),
    DB_SLOT(auth_query, SLOT_STR),
    DB_SLOT(auth_dbname, SLOT_STR),
    DB_SLOT(pool_mode, SLOT_MODE),
    DB_SLOT(pin, SLOT_MODE),
    DB_SLOT(pool_size, SLOT_NUMBER),
    DB_SLOT(min_pool_size, SLOT_NUMBER),
    DB_SLOT(reserve_pool_size, SLOT_NUMBER),
    DB_SLOT(share_statements, SLOT_NUMBER),
    DB_SLOT(multiplex, SLOT_NUMBER),
    DB_SLOT(max_db_connections, SLOT_NUMBER),
    DB_SLOT(max_db_client_connections, SLOT_NUMBER),
    DB_SLOT(server_lifetime, SLOT_NUMBER),
    DB_SLOT(query_timeout, SLOT_NUMBER),
    DB_SLOT(query_wait_timeout, SLOT_NUMBER),
    DB_SLOT(idle_transaction_timeout, SLOT_NUMBER),
    DB_SLOT(transaction_timeout, SLOT_NUMBER),
    DB_SLOT(region, SLOT_STR),
    DB_SLOT(max_overflow, SLOT_NUMBER),
    DB_SLOT(fallback_on_down, SLOT_MODE),
    DB_SLOT(max_lag, SLOT_NUMBER),
    DB_SLOT(health_interval, SLOT_NUMBER),
    DB_SLOT(health_timeout, SLOT_NUMBER),
    DB_SLOT(health_fall, SLOT_NUMBER),
    DB_SLOT(health_rise, SLOT_NUMBER),
    {"read_only", SLOT_FLAG, offsetof(struct draft, db.is_read_only)},
    {"reserve_pool", SLOT_NUMBER, offsetof(struct draft, db.reserve_pool_size)},
    {"target_session_attrs", SLOT_MODE, offsetof(struct draft, db.session_attrs)},
    {"load_balance_hosts", SLOT_FLAG, offsetof(struct draft, db.round_robin_hosts)},
    DRAFT_SLOT(host),
    DRAFT_SLOT(port),
    DRAFT_SLOT(password_file),
    DRAFT_SLOT(fallback),
    DRAFT_SLOT(replica_of),
    DRAFT_SLOT(client_encoding),
    DRAFT_SLOT(datestyle),
    DRAFT_SLOT(timezone),
    DRAFT_SLOT(application_name),
};

static void
draft_begin(struct draft *d, struct words *w, const char *name, struct conf_at at)
{
	*d = (struct draft){
	    .db =
		{
		    .name = name,
		    .at = at,
		    .round_robin_hosts = true,
		    .pool_mode = -1,
		    .pin = -1,
		    .pool_size = -1,
		    .min_pool_size = -1,
		    .reserve_pool_size = -1,
		    .share_statements = -1,
		    .multiplex = -1,
		    .max_db_connections = -1,
		    .max_db_client_connections = -1,
		    .server_lifetime = -1,
		    .query_timeout = -1,
		    .query_wait_timeout = -1,
		    .idle_transaction_timeout = -1,
		    .transaction_timeout = -1,
		    .max_lag = MAX_LAG_US,
		    .health_interval = -1,
		    .health_timeout = -1,
		    .health_fall = -1,
		    .health_rise = -1,
		},
	};
	w->scope = SC_DATABASE;
	w->slots = slots;
	w->slot_count = ARRAY_LEN(slots);
	w->base = d;
	w->at = at;
	words_begin(w);
}

/* ---- hosts ---- */

/* The pieces of "a, b,,c", also the empty ones, kept by the snapshot. The caller frees the
 * list. */
static const char **
split_list(struct topo *t, const char *text, size_t *count)
{
	const char **list = NULL;

	*count = 0;
	for (;;) {
		size_t len = strcspn(text, ","), from = 0, to = len;

		while (from < to && (text[from] == ' ' || text[from] == '\t'))
			from++;
		while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t'))
			to--;
		if ((*count & (*count - 1)) == 0)
			list = mem_realloc(
			    list, (*count == 0 ? 1 : *count * 2) * sizeof(*list));
		list[(*count)++] = topo_keep(t, mem_strn(text + from, to - from));
		if (text[len] == '\0')
			return (list);
		text += len + 1;
	}
}

static uint16_t
read_port(struct words *w, const char *text)
{
	char why[256], *label;
	int64_t n = 0;

	/* The same range as of the port that we listen on. */
	if (setting_number(setting_find("listen_port"), text, &n, why, sizeof(why)) !=
	    F_OK) {
		label = words_label(w, "port");
		conf_problem(w->problems, words_at(w, "port"), "%s: %s", label, why);
		free(label);
	}
	return ((uint16_t)n);
}

/* The hosts of "a,b" with the ports of "5432" or "5432,5433". */
static void
read_hosts(struct words *w, struct draft *d)
{
	struct topo_database *db = &d->db;
	char *host_label = words_label(w, "host"), *port_label = words_label(w, "port");
	const char *sockets = topo_settings(w->topo)->unix_socket_dir;
	bool has_host = d->host != NULL;
	const char **hosts, **ports;
	size_t host_count, port_count;
	uint16_t port = 0;

	db->is_configured = has_host || d->fallback == NULL;
	if (!has_host && *sockets == '\0' && db->is_configured)
		conf_problem(w->problems, words_at(w, "host"),
		    "%s: missing, and unix_socket_dir, which would stand for it, is empty",
		    host_label);
	if (has_host) {
		hosts = split_list(w->topo, d->host, &host_count);
	} else {
		hosts = mem_alloc(sizeof(*hosts));
		hosts[0] = db->is_configured ? sockets : "";
		host_count = 1;
	}
	ports = split_list(w->topo, d->port != NULL ? d->port : "5432", &port_count);
	if (port_count != 1 && port_count != host_count)
		conf_problem(w->problems, words_at(w, "port"),
		    "%s: %zu ports for %zu hosts, allowed are one for all and one for each",
		    port_label, port_count, host_count);
	db->hosts = mem_alloc(host_count * sizeof(*db->hosts));
	db->host_count = host_count;
	for (size_t i = 0; i < host_count; i++) {
		if (has_host && *hosts[i] == '\0')
			conf_problem(w->problems, words_at(w, "host"),
			    "%s: a name in the list is empty", host_label);
		if (i < port_count)
			port = read_port(w, ports[i]);
		db->hosts[i] = (struct topo_host){.host = hosts[i], .port = port};
	}
	free(host_label);
	free(port_label);
	free(hosts);
	free(ports);
}

/* ---- the rest ---- */

static void
read_password_file(struct words *w, struct draft *d)
{
	struct topo_database *db = &d->db;
	struct conf_at at = words_at(w, "password_file");
	char *label = words_label(w, "password_file"), *path, *text, why[256];
	size_t len;

	if (db->password != NULL)
		conf_problem(w->problems, at,
		    "%s: password is given too, allowed is one of them", label);
	path = conf_resolve_path(at, d->password_file);
	text = conf_read_file(path, SECRET_FILE_MAX, false, &len, why, sizeof(why));
	if (text == NULL) {
		conf_problem(w->problems, at, "%s: cannot read %s: %s", label, path, why);
	} else {
		text[strcspn(text, "\r\n")] = '\0';
		if (*text == '\0')
			conf_problem(w->problems, at, "%s: the first line of %s is empty",
			    label, path);
		db->password = topo_keep(w->topo, mem_str(text));
		mem_free_secret(text, len);
	}
	free(path);
	free(label);
}

static void
read_params(struct draft *d)
{
	const struct topo_param all[] = {
	    {"client_encoding", d->client_encoding},
	    {"datestyle", d->datestyle},
	    {"timezone", d->timezone},
	    {"application_name", d->application_name},
	};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		if (all[i].value == NULL)
			continue;
		d->db.params = mem_realloc(
		    d->db.params, (d->db.param_count + 1) * sizeof(*d->db.params));
		d->db.params[d->db.param_count++] = all[i];
	}
}

static void
database_free_parts(struct topo_database *db)
{
	free(db->hosts);
	free(db->params);
}

/* What it says of other databases, for relations_read(). */
static void
keep_relations(struct database_node *n, const struct words *w, const struct draft *d)
{
	n->fallback = d->fallback;
	n->replica_of = d->replica_of;
	n->fallback_at = words_at(w, "fallback");
	n->replica_of_at = words_at(w, "replica_of");
}

/* A line of [databases] replaces the one before it, as in PgBouncer; a [database x] beside
 * one is a mistake. Takes over the parts of the draft. */
static void
add_database(struct words *w, struct draft *d, bool is_one_line)
{
	struct topo_database *db = &d->db;
	struct topo *t = w->topo;
	struct database_node *n = topo_database_node(t, db->name);

	if (n != NULL && (!is_one_line || !n->is_one_line)) {
		conf_problem(w->problems, db->at,
		    "%s: a database of that name is already defined at %s:%d", db->name,
		    n->db.at.file, n->db.at.line);
		database_free_parts(db);
		return;
	}
	if (n != NULL) {
		conf_warning(w->problems, db->at,
		    "%s: given again, %s:%d no longer counts", db->name, n->db.at.file,
		    n->db.at.line);
		database_free_parts(&n->db);
		n->db = *db;
		keep_relations(n, w, d);
		return;
	}
	n = mem_alloc(sizeof(*n));
	n->db = *db;
	keep_relations(n, w, d);
	n->is_one_line = is_one_line;
	table_add(&t->by_database, &n->node, hash_bytes(db->name, strlen(db->name)));
	if ((t->database_count & (t->database_count - 1)) == 0)
		t->databases = mem_realloc(
		    t->databases, (t->database_count == 0 ? 1 : t->database_count * 2) *
				      sizeof(*t->databases));
	t->databases[t->database_count++] = n;
	if (db->is_auto)
		t->fallback = &n->db;
}

/* All words are said: makes a database of them. */
static void
draft_end(struct draft *d, struct words *w, bool is_one_line)
{
	struct topo_database *db = &d->db;

	db->is_auto = strcmp(db->name, "*") == 0;
	if (db->dbname == NULL && !db->is_auto)
		db->dbname = db->name;
	if (*db->name == '\0')
		conf_problem(w->problems, db->at, "the name of the database is missing");
	if (topo_is_console(db->name))
		conf_problem(w->problems, db->at,
		    "%s: this name is the console's, a database must have another",
		    db->name);
	if (d->password_file != NULL)
		read_password_file(w, d);
	read_hosts(w, d);
	read_params(d);
	if (db->user == NULL && topo_settings(w->topo)->auth_type == AUTH_ANY)
		conf_warning(w->problems, db->at,
		    "%s: auth_type = any needs a user for each database, this one has none",
		    db->name);
	if (db->multiplex == 1 &&
	    (db->pool_mode >= 0 ? db->pool_mode
				: (int)topo_settings(w->topo)->pool_mode) == POOL_SESSION)
		conf_warning(w->problems, db->at,
		    "%s: multiplex needs pool_mode = transaction or statement, in session "
		    "pools it does nothing",
		    db->name);
	if (db->region == NULL)
		db->region = "";
	if (!db->is_auto)
		db->verdict = topo_verdict(db->name);
	add_database(w, d, is_one_line);
	words_end(w);
}

static void
read_one_line(struct topo *t, const struct conf_key *k, struct conf_problems *problems)
{
	struct words w = {.topo = t, .problems = problems, .name = k->key};
	struct draft d;

	draft_begin(&d, &w, k->key, k->at);
	words_put_line(&w, k->value, k->at);
	draft_end(&d, &w, true);
}

static void
read_section(struct topo *t, const struct conf_section *s, struct conf_problems *problems)
{
	struct words w = {.topo = t, .problems = problems};
	struct draft d;

	draft_begin(&d, &w, s->name, s->at);
	for (size_t i = 0; i < s->key_count; i++)
		words_put(&w, s->keys[i].key, s->keys[i].value, s->keys[i].at);
	draft_end(&d, &w, false);
}

void
databases_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);

		if (strcmp(s->kind, "database") == 0 && *s->name != '\0')
			read_section(t, s, problems);
		for (size_t k = 0; strcmp(s->kind, "databases") == 0 && k < s->key_count;
		     k++)
			read_one_line(t, &s->keys[k], problems);
	}
}

const struct topo_database *
topo_database_served(const struct topo_database *db)
{
	while (db != NULL && !db->is_configured && db->fallback != NULL)
		db = db->fallback;
	return (db);
}
