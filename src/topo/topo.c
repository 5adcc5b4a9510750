/*
 * topo/topo.c: the snapshot: built whole, looked up by hash, freed with its last reference.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

#define LOGIN_SAYS_NOTHING                                                               \
	.pool_mode = -1, .pool_size = -1, .reserve_pool_size = -1,                       \
	.max_user_connections = -1, .max_user_client_connections = -1,                   \
	.query_timeout = -1, .query_wait_timeout = -1, .idle_transaction_timeout = -1,   \
	.transaction_timeout = -1, .client_idle_timeout = -1

/* ---- parts ---- */

const char *
topo_keep(struct topo *t, char *s)
{
	if ((t->string_count & (t->string_count - 1)) == 0)
		t->strings = mem_realloc(
		    t->strings, (t->string_count == 0 ? 1 : t->string_count * 2) *
				    sizeof(*t->strings));
	t->strings[t->string_count++] = s;
	return (s);
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

void
topo_read_names(struct topo *t, const char *text, struct name_list *list)
{
	while (*text != '\0') {
		size_t len, end;

		text += strspn(text, " \t,");
		len = end = strcspn(text, ",");
		while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
			len--;
		if (len > 0) {
			list->names = mem_realloc(
			    list->names, (list->count + 1) * sizeof(*list->names));
			list->names[list->count++] = topo_keep(t, mem_strn(text, len));
		}
		text += end;
	}
}

static bool
has_name(const struct name_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->names[i], name) == 0)
			return (true);
	}
	return (false);
}

/* ---- building ---- */

/* Sections that nobody reads, and names where none or one belongs. */
static void
check_sections(const struct conf *c, struct conf_problems *problems)
{
	static const char *const kinds[] = {
	    "pgweave", "pgbouncer", "databases", "database", "users", "peers"};

	for (size_t i = 0; i < conf_section_count(c); i++) {
		const struct conf_section *s = conf_section(c, i);
		bool is_named = strcmp(s->kind, "database") == 0, is_known = false;
		const char *near;

		for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
			is_known |= strcmp(s->kind, kinds[k]) == 0;
		near = text_nearest(s->kind, kinds, ARRAY_LEN(kinds));
		if (!is_known)
			conf_problem(problems, s->at,
			    "[%s]: no such section, allowed are [pgweave], [pgbouncer], "
			    "[databases], [database NAME], [users], [peers]%s%s%s",
			    s->kind, near != NULL ? ", did you mean \"" : "",
			    near != NULL ? near : "", near != NULL ? "\"?" : "");
		else if (!is_named && *s->name != '\0')
			conf_problem(problems, s->at,
			    "[%s %s]: this section has no name, allowed is [%s]", s->kind,
			    s->name, s->kind);
	}
}

static void
topo_free_strings(struct topo *t)
{
	free(t->admins.names);
	free(t->stats.names);
	for (size_t i = 0; i < t->string_count; i++)
		mem_free_secret(t->strings[i], strlen(t->strings[i]));
	free(t->strings);
}

static void
topo_free(struct topo *t)
{
	if (t->base != NULL) {
		topo_free_strings(t);
		topo_release(t->base);
		free(t->own);
		free(t);
		return;
	}
	for (size_t i = 0; i < t->database_count; i++) {
		free(t->databases[i]->db.hosts);
		free(t->databases[i]->db.params);
		free(t->databases[i]);
	}
	for (size_t i = 0; i < t->login_count; i++)
		free(t->logins[i]);
	free(t->databases);
	free(t->logins);
	table_free(&t->by_database);
	table_free(&t->by_login);
	topo_free_strings(t);
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
	check_sections(c, problems);
	logins_read(t, problems);
	databases_read(t, problems);
	peers_read(t, problems);
	topo_read_names(t, topo_settings(t)->admin_users, &t->admins);
	topo_read_names(t, topo_settings(t)->stats_users, &t->stats);
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

enum topo_console
topo_console_role(const struct topo *t, const char *login)
{
	/* With auth_type = any a name proves nothing: PgBouncer lets everybody in. */
	if (topo_settings(t)->auth_type == AUTH_ANY || has_name(&t->admins, login))
		return (TOPO_CONSOLE_ADMIN);
	return (has_name(&t->stats, login) ? TOPO_CONSOLE_STATS : TOPO_CONSOLE_NO);
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
	};
	/* PgBouncer: effectively capped at the pool size. */
	if (out->min_pool_size > out->pool_size)
		out->min_pool_size = out->pool_size;
}
