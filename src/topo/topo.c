/*
 * topo/topo.c: the snapshot: built whole, looked up by hash, freed with its last reference.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

#define LOGIN_SAYS_NOTHING                                                               \
	.pool_mode = -1, .pin = -1, .multiplex = -1, .pool_size = -1,                    \
	.reserve_pool_size = -1, .max_user_connections = -1,                             \
	.max_user_client_connections = -1, .query_timeout = -1,                          \
	.query_wait_timeout = -1, .idle_transaction_timeout = -1,                        \
	.transaction_timeout = -1, .client_idle_timeout = -1

/* ---- parts ---- */

const char *
strings_keep(struct strings *list, char *s)
{
	if ((list->count & (list->count - 1)) == 0)
		list->items = mem_realloc(list->items,
		    (list->count == 0 ? 1 : list->count * 2) * sizeof(*list->items));
	list->items[list->count++] = s;
	return (s);
}

void
strings_free(struct strings *list)
{
	for (size_t i = 0; i < list->count; i++)
		mem_free_secret(list->items[i], strlen(list->items[i]));
	free(list->items);
	*list = (struct strings){0};
}

const char *
topo_keep(struct topo *t, char *s)
{
	return (strings_keep(&t->strings, s));
}

static bool
same_database(const struct table_node *node, const void *name)
{
	return (
	    strcmp(CONTAINER_OF(node, struct database_node, node)->db.name, name) == 0);
}

static bool
same_login(const struct table_node *node, const void *name)
{
	return (
	    strcmp(CONTAINER_OF(node, struct login_node, node)->login.name, name) == 0);
}

struct database_node *
topo_database_node(const struct topo *t, const char *name)
{
	struct table_node *n = table_find(
	    &t->by_database, hash_bytes(name, strlen(name)), same_database, name);

	return (n != NULL ? CONTAINER_OF(n, struct database_node, node) : NULL);
}

static struct login_node *
login_node(const struct topo *t, const char *name)
{
	struct table_node *n =
	    table_find(&t->by_login, hash_bytes(name, strlen(name)), same_login, name);

	return (n != NULL ? CONTAINER_OF(n, struct login_node, node) : NULL);
}

struct login_node *
topo_login_get(struct topo *t, const char *name)
{
	struct login_node *n = login_node(t, name);

	if (n != NULL)
		return (n);
	n = mem_alloc(sizeof(*n));
	n->login = (struct topo_login){
	    .name = topo_keep(t, mem_str(name)),
	    LOGIN_SAYS_NOTHING,
	};
	table_add(&t->by_login, &n->node, hash_bytes(name, strlen(name)));
	if ((t->login_count & (t->login_count - 1)) == 0)
		t->logins = mem_realloc(t->logins,
		    (t->login_count == 0 ? 1 : t->login_count * 2) * sizeof(*t->logins));
	t->logins[t->login_count++] = n;
	return (n);
}

/* ---- building ---- */

/* What may stand in brackets. */
static const struct {
	const char *kind;
	const char *form;
} section_kinds[] = {
    {"pgweave", "[pgweave]"},
    {"pgbouncer", "[pgbouncer]"},
    {"databases", "[databases]"},
    {"database", "[database NAME]"},
    {"users", "[users]"},
    {"peers", "[peers]"},
    {"virtual", "[virtual NAME]"},
    {"route", "[route VIRTUAL]"},
    {"shard", "[shard VIRTUAL]"},
    {"model", "[model VIRTUAL]"},
    {"replication", "[replication NAME]"},
    {"key", "[key ID]"},
    {"login", "[login NAME]"},
};

static void
unknown_section(const struct conf_section *s, struct conf_problems *problems)
{
	const char *kinds[ARRAY_LEN(section_kinds)], *near;
	struct buf forms = {0};

	for (size_t i = 0; i < ARRAY_LEN(section_kinds); i++) {
		kinds[i] = section_kinds[i].kind;
		buf_addf(&forms, "%s%s", i > 0 ? ", " : "", section_kinds[i].form);
	}
	near = text_nearest(s->kind, kinds, ARRAY_LEN(kinds));
	conf_problem(problems, s->at, "[%s]: no such section, allowed are %.*s%s%s%s",
	    s->kind, (int)forms.len, (const char *)forms.mem,
	    near != NULL ? ", did you mean \"" : "", near != NULL ? near : "",
	    near != NULL ? "\"?" : "");
	buf_free(&forms);
}

/* Sections that nobody reads, and names where none or one belongs. */
static void
check_sections(const struct conf *c, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(c); i++) {
		const struct conf_section *s = conf_section(c, i);
		const char *form = NULL;
		bool is_named;

		for (size_t k = 0; k < ARRAY_LEN(section_kinds); k++) {
			if (strcmp(s->kind, section_kinds[k].kind) == 0)
				form = section_kinds[k].form;
		}
		if (form == NULL) {
			unknown_section(s, problems);
			continue;
		}
		is_named = strchr(form, ' ') != NULL;
		if (!is_named && *s->name != '\0')
			conf_problem(problems, s->at,
			    "[%s %s]: this section has no name, allowed is %s", s->kind,
			    s->name, form);
		else if (is_named && *s->name == '\0')
			conf_problem(problems, s->at,
			    "[%s]: the name is missing, allowed is %s", s->kind, form);
	}
}

static void
topo_free_own(struct topo *t)
{
	free(t->admins.names);
	free(t->stats.names);
	strings_free(&t->strings);
	keyring_release(t->store_keys);
	route_set_release(t->store_routes);
	free(t->own);
}

static void
topo_free(struct topo *t)
{
	topo_free_own(t);
	if (t->base != NULL) {
		topo_release(t->base);
		free(t);
		return;
	}
	for (size_t i = 0; i < t->database_count; i++) {
		free(t->databases[i]->db.hosts);
		free(t->databases[i]->db.params);
		free(t->databases[i]->db.copies);
		free(t->databases[i]);
	}
	for (size_t i = 0; i < t->login_count; i++)
		free(t->logins[i]);
	for (size_t i = 0; i < t->virtual_count; i++)
		virtual_free(t->virtuals[i]);
	for (size_t i = 0; i < t->rule_count; i++)
		key_free(t->rules[i]);
	free(t->databases);
	free(t->logins);
	free(t->virtuals);
	free(t->rules);
	free(t->jobs);
	free(t->peers);
	table_free(&t->by_database);
	table_free(&t->by_login);
	table_free(&t->by_virtual);
	keyring_release(t->file_keys);
	hba_free(t->hba);
	conf_free(t->conf);
	free(t);
}

uint64_t
topo_next_generation(void)
{
	static _Atomic uint64_t generations;

	return (atomic_fetch_add(&generations, 1) + 1);
}

struct topo *
topo_build(struct conf *c, struct conf_problems *problems)
{
	struct topo *t = mem_alloc(sizeof(*t));

	t->conf = c;
	t->refs = 1;
	t->generation = topo_next_generation();
	t->file_keys = keyring_create();
	check_sections(c, problems);
	logins_read(t, problems);
	databases_read(t, problems);
	relations_read(t, problems);
	peers_read(t, problems);
	virtuals_read(t, problems);
	routes_read(t, problems);
	models_read(t, problems);
	shards_read(t, problems);
	places_read(t, problems);
	keys_read(t, problems);
	rules_read(t, problems);
	jobs_read(t, problems);
	store_read(t, problems);
	logins_check(t, problems);
	hba_read(t, problems);
	topo_copied(t);
	if (t->database_count == 0)
		conf_warning(problems, (struct conf_at){.file = conf_path(c)},
		    "no database is configured: only the console can be reached");
	if (problems->count == 0)
		return (t);
	topo_free(t);
	return (NULL);
}

/* The count is all that changes in a snapshot, and no one else's business. */
static struct topo *
unconst(const struct topo *t)
{
	return ((struct topo *)(uintptr_t)t);
}

const struct topo *
topo_hold(const struct topo *t)
{
	uint64_t was =
	    atomic_fetch_add_explicit(&unconst(t)->refs, 1, memory_order_relaxed);

	INVARIANT(was > 0);
	return (t);
}

void
topo_release(const struct topo *t)
{
	uint64_t was;

	if (t == NULL)
		return;
	was = atomic_fetch_sub_explicit(&unconst(t)->refs, 1, memory_order_acq_rel);
	INVARIANT(was > 0);
	if (was == 1)
		topo_free(unconst(t));
}

/* ---- reading ---- */

const struct settings *
topo_settings(const struct topo *t)
{
	return (t->own != NULL ? t->own : conf_settings(t->conf));
}

uint64_t
topo_generation(const struct topo *t)
{
	return (t->generation);
}

size_t
topo_database_count(const struct topo *t)
{
	return (t->database_count);
}

const struct topo_database *
topo_database(const struct topo *t, size_t i)
{
	INVARIANT(i < t->database_count);
	return (&t->databases[i]->db);
}

const struct topo_database *
topo_database_find(const struct topo *t, const char *name)
{
	const struct database_node *n = topo_database_node(t, name);

	return (n != NULL ? &n->db : t->fallback);
}

size_t
topo_login_count(const struct topo *t)
{
	return (t->login_count);
}

const struct topo_login *
topo_login(const struct topo *t, size_t i)
{
	INVARIANT(i < t->login_count);
	return (&t->logins[i]->login);
}

const struct topo_login *
topo_login_find(const struct topo *t, const char *name)
{
	const struct login_node *n = login_node(t, name);

	return (n != NULL ? &n->login : NULL);
}

static bool
same_virtual(const struct table_node *node, const void *name)
{
	return (strcmp(CONTAINER_OF(node, struct virtual_node, node)->v.name, name) == 0);
}

struct virtual_node *
topo_virtual_node(const struct topo *t, const char *name)
{
	struct table_node *n = table_find(
	    &t->by_virtual, hash_bytes(name, strlen(name)), same_virtual, name);

	return (n != NULL ? CONTAINER_OF(n, struct virtual_node, node) : NULL);
}

const struct topo_virtual *
topo_virtual_find(const struct topo *t, const char *name)
{
	const struct virtual_node *n = topo_virtual_node(t, name);

	return (n != NULL ? &n->v : NULL);
}

size_t
topo_virtual_count(const struct topo *t)
{
	return (t->virtual_count);
}

const struct topo_virtual *
topo_virtual(const struct topo *t, size_t i)
{
	INVARIANT(i < t->virtual_count);
	return (&t->virtuals[i]->v);
}

enum topo_console
topo_console_role(const struct topo *t, const char *login)
{
	/* With auth_type = any a name proves nothing: PgBouncer lets everybody in. */
	if (topo_settings(t)->auth_type == AUTH_ANY || list_has(&t->admins, login))
		return (TOPO_CONSOLE_ADMIN);
	return (list_has(&t->stats, login) ? TOPO_CONSOLE_STATS : TOPO_CONSOLE_NO);
}

bool
topo_is_console(const char *dbname)
{
	return (strcmp(dbname, "pgweave") == 0 || strcmp(dbname, "pgbouncer") == 0);
}

/* ---- limits ---- */

/* The first that says something. */
static int64_t
first_said(int64_t login, int64_t database, int64_t global)
{
	if (login >= 0)
		return (login);
	return (database >= 0 ? database : global);
}

void
topo_limits(const struct topo *t, const struct topo_database *db,
    const struct topo_login *login, struct topo_limits *out)
{
	static const struct topo_login nobody = {LOGIN_SAYS_NOTHING};
	const struct topo_login *l = login != NULL ? login : &nobody;
	const struct settings *s = topo_settings(t);

	*out = (struct topo_limits){
	    .pool_mode =
		(enum pool_mode)first_said(l->pool_mode, db->pool_mode, s->pool_mode),
	    .pool_size = first_said(l->pool_size, db->pool_size, s->default_pool_size),
	    .min_pool_size = first_said(-1, db->min_pool_size, s->min_pool_size),
	    .reserve_pool_size = first_said(
		l->reserve_pool_size, db->reserve_pool_size, s->reserve_pool_size),
	    .max_overflow = db->max_overflow,
	    .max_db_connections =
		first_said(-1, db->max_db_connections, s->max_db_connections),
	    .max_db_client_connections = first_said(
		-1, db->max_db_client_connections, s->max_db_client_connections),
	    .max_user_connections =
		first_said(l->max_user_connections, -1, s->max_user_connections),
	    .max_user_client_connections = first_said(
		l->max_user_client_connections, -1, s->max_user_client_connections),
	    .server_lifetime = first_said(-1, db->server_lifetime, s->server_lifetime),
	    .query_timeout =
		first_said(l->query_timeout, db->query_timeout, s->query_timeout),
	    .query_wait_timeout = first_said(
		l->query_wait_timeout, db->query_wait_timeout, s->query_wait_timeout),
	    .idle_transaction_timeout = first_said(l->idle_transaction_timeout,
		db->idle_transaction_timeout, s->idle_transaction_timeout),
	    .transaction_timeout = first_said(
		l->transaction_timeout, db->transaction_timeout, s->transaction_timeout),
	    .client_idle_timeout =
		first_said(l->client_idle_timeout, -1, s->client_idle_timeout),
	    .share_statements =
		first_said(-1, db->share_statements, s->share_statements) != 0,
	    .multiplex = first_said(l->multiplex, db->multiplex, 0) != 0,
	    .refuses_pins = first_said(l->pin, db->pin, PIN_ALLOW) == PIN_REFUSE,
	};
	/* PgBouncer: effectively capped at the pool size. */
	if (out->pool_size > 0 && out->min_pool_size > out->pool_size)
		out->min_pool_size = out->pool_size;
}
