/*
 * topo/logins.c: who may log in: auth_file in PgBouncer's form, a line each
 *
 *     "user" "secret" what follows is ignored      "" stands for a quote
 *     ; comment
 *
 * and [users], what holds for one login, in one line each.
 */
#include "inner.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AUTH_FILE_MAX ((size_t)64 << 20)

/* ---- auth_file ---- */

/* A "quoted" field in place; *at moves behind it. NULL: there is none, or it has no end. */
static char *
take_field(char **at)
{
	char *p = *at, *field, *to;

	while (isspace((unsigned char)*p))
		p++;
	if (*p != '"')
		return (NULL);
	field = to = ++p;
	for (; *p != '\0'; p++) {
		if (*p == '"' && *++p != '"') {
			*at = p;
			*to = '\0';
			return (field);
		}
		*to++ = *p;
	}
	return (NULL);
}

/* The sentences never hold a piece of the line: it may be a secret. */
static void
read_auth_line(
    struct topo *t, char *line, struct conf_at at, struct conf_problems *problems)
{
	struct login_node *n;
	char *user, *secret;

	while (isspace((unsigned char)*line))
		line++;
	if (*line == '\0' || *line == ';')
		return;
	user = take_field(&line);
	secret = user != NULL ? take_field(&line) : NULL;
	if (secret == NULL) {
		conf_problem(problems, at,
		    "expected \"user\" \"secret\" (\"\" stands for a quote)");
		return;
	}
	if (*user == '\0') {
		conf_problem(problems, at, "the user's name is empty");
		return;
	}
	n = topo_login_get(t, user);
	if (n->login.secret != NULL)
		conf_warning(problems, at, "%s: given again, %s:%d no longer counts",
		    user, n->secret_at.file, n->secret_at.line);
	n->login.secret = topo_keep(t, mem_str(secret));
	n->secret_at = at;
}

static void
read_auth_text(struct topo *t, char *text, size_t len, const char *file,
    struct conf_problems *problems)
{
	struct conf_at at = {.file = file};
	char *end = text + len, *eol;

	for (; text < end; text = eol + 1) {
		eol = memchr(text, '\n', (size_t)(end - text));
		if (eol == NULL)
			eol = end;
		*eol = '\0';
		at.line++;
		if (strlen(text) != (size_t)(eol - text))
			conf_problem(problems, at, "the line has a NUL byte");
		else
			read_auth_line(t, text, at, problems);
	}
}

/* Whether some database, or all, have an auth_user. */
static bool
asks_servers(const struct topo *t)
{
	if (*topo_settings(t)->auth_user != '\0')
		return (true);
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *c = conf_section(t->conf, i);

		for (size_t k = 0;
		     strncmp(c->kind, "database", 8) == 0 && k < c->key_count; k++)
			if (strcasecmp(c->keys[k].key, "auth_user") == 0 ||
			    strstr(c->keys[k].value, "auth_user") != NULL)
				return (true);
	}
	return (false);
}

static void
read_auth_file(struct topo *t, struct conf_problems *problems)
{
	const struct settings *s = topo_settings(t);
	struct conf_at at = conf_setting_at(t->conf, "auth_file");
	const char *path;
	char *text, why[256];
	size_t len;

	if (*s->auth_file == '\0') {
		if (s->auth_type != AUTH_ANY && !asks_servers(t))
			conf_warning(problems,
			    (struct conf_at){.file = conf_path(t->conf)},
			    "auth_file: not set, so nobody can log in");
		return;
	}
	path = topo_keep(t, conf_resolve_path(at, s->auth_file));
	text = conf_read_file(path, AUTH_FILE_MAX, false, &len, why, sizeof(why));
	if (text == NULL) {
		conf_problem(problems, at, "auth_file: cannot read %s: %s", path, why);
		return;
	}
	read_auth_text(t, text, len, path, problems);
	mem_free_secret(text, len);
}

/* ---- [users] ---- */

#define LOGIN_SLOT(key, kind)                                                            \
	{                                                                                \
#key, kind, offsetof(struct topo_login, key)                             \
	}
static const struct slot slots[] = {
    LOGIN_SLOT(pool_mode, SLOT_MODE),
    LOGIN_SLOT(pin, SLOT_MODE),
    LOGIN_SLOT(multiplex, SLOT_NUMBER),
    LOGIN_SLOT(pool_size, SLOT_NUMBER),
    LOGIN_SLOT(reserve_pool_size, SLOT_NUMBER),
    LOGIN_SLOT(max_user_connections, SLOT_NUMBER),
    LOGIN_SLOT(max_user_client_connections, SLOT_NUMBER),
    LOGIN_SLOT(query_timeout, SLOT_NUMBER),
    LOGIN_SLOT(query_wait_timeout, SLOT_NUMBER),
    LOGIN_SLOT(idle_transaction_timeout, SLOT_NUMBER),
    LOGIN_SLOT(transaction_timeout, SLOT_NUMBER),
    LOGIN_SLOT(client_idle_timeout, SLOT_NUMBER),
};

static void
read_user(struct topo *t, const struct conf_key *k, struct conf_problems *problems)
{
	struct words w = {
	    .topo = t,
	    .problems = problems,
	    .scope = SC_USER,
	    .name = k->key,
	    .slots = slots,
	    .slot_count = ARRAY_LEN(slots),
	    .at = k->at,
	};

	if (*k->key == '\0') {
		conf_problem(problems, k->at, "the user's name is missing");
		return;
	}
	w.base = &topo_login_get(t, k->key)->login;
	words_begin(&w);
	words_put_line(&w, k->value, k->at);
	words_end(&w);
}

void
logins_read(struct topo *t, struct conf_problems *problems)
{
	const struct conf_section *s = conf_section_find(t->conf, "users", "");

	read_auth_file(t, problems);
	for (size_t i = 0; s != NULL && i < s->key_count; i++)
		read_user(t, &s->keys[i], problems);
}

/* auth_dbname, of the database or (NULL) the global one. */
static void
check_auth_dbname(
    const struct topo *t, const struct topo_database *db, struct conf_problems *problems)
{
	const char *name = db != NULL ? db->auth_dbname : topo_settings(t)->auth_dbname;
	struct conf_at at = db != NULL ? db->at : conf_setting_at(t->conf, "auth_dbname");
	struct name_list allowed = {0};
	char *sentence;

	if (name == NULL || *name == '\0')
		return;
	if (topo_is_console(name)) {
		conf_problem(problems, at, "auth_dbname: \"%s\" is the console", name);
		return;
	}
	if (topo_database_find(t, name) != NULL)
		return;
	names_of_databases(t, &allowed);
	sentence = name_unknown("database", name, &allowed);
	conf_problem(problems, at, "auth_dbname: %s", sentence);
	free(sentence);
	free(allowed.names);
}

void
logins_check(struct topo *t, struct conf_problems *problems)
{
	check_auth_dbname(t, NULL, problems);
	for (size_t i = 0; i < t->database_count; i++)
		check_auth_dbname(t, &t->databases[i]->db, problems);
}
