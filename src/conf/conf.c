/*
 * conf/conf.c: a configuration file as a document: the settings of [pgweave], and every
 * other section as it stands, with file and line of each key.
 */
#include "reader.h"
#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FILE_SIZE_MAX ((size_t)64 << 20)

struct conf {
	const char *path;
	struct keep keep; /* every string below */
	struct settings settings;
	struct conf_at *at; /* of each setting, in the order of setting_table */
	struct conf_section **sections;
	size_t section_count;
	/* While reading: */
	struct conf_section *current; /* NULL: [pgweave] */
	struct conf_problems *problems;
};

/* ---- [pgweave] ---- */

static size_t
setting_index(const struct setting *s)
{
	return ((size_t)(s - setting_table));
}

static void
take_setting(struct conf *c, const char *key, const char *value, struct conf_at at)
{
	const struct setting *s = setting_find(key);
	struct conf_at *was;
	char why[512];

	if (s == NULL) {
		setting_unknown(SC_GLOBAL, key, why, sizeof(why));
		conf_problem(c->problems, at, "%s: %s", key, why);
		return;
	}
	if (setting_put(&c->settings, s, value, why, sizeof(why)) != F_OK)
		conf_problem(c->problems, at, "%s: %s", s->key, why);
	was = &c->at[setting_index(s)];
	if (was->file != NULL)
		conf_warning(c->problems, at, "%s: given again, %s:%d no longer counts",
		    s->key, was->file, was->line);
	*was = at;
}

/* What is accepted for PgBouncer's sake but does nothing. */
static void
warn_later(struct conf *c)
{
	struct settings defaults;

	settings_defaults(&defaults);
	for (size_t i = 0; i < setting_count; i++) {
		const struct setting *s = &setting_table[i];

		const char *moot = setting_moot(s->key);

		if (c->at[i].file == NULL || setting_same(&c->settings, &defaults, s))
			continue;
		if (s->apply == AP_LATER)
			conf_warning(c->problems, c->at[i], "%s: " CONF_LATER, s->key);
		else if (moot != NULL)
			conf_warning(
			    c->problems, c->at[i], "%s: has no effect: %s", s->key, moot);
	}
}

/* The place of a setting, or of the file when it has its default. */
static struct conf_at
blame(const struct conf *c, const char *key)
{
	struct conf_at at = conf_setting_at(c, key);

	return (at.file != NULL ? at : (struct conf_at){.file = c->path});
}

/* An id is the prefix and 32 digits, and a role's name has 63 bytes. */
#define KEY_PREFIX_MAX 31

static void
check_state(struct conf *c)
{
	const struct settings *s = &c->settings;
	const char *store = s->state_store;

	/* Whether there is such a database is for who knows them. */
	if (*store != '\0' &&
	    (strncasecmp(store, "sqlite:", 7) != 0 || store[7] == '\0') &&
	    (strncasecmp(store, "database:", 9) != 0 || store[9] == '\0'))
		conf_problem(c->problems, blame(c, "state_store"),
		    "state_store: \"%s\" names no store, allowed are sqlite:PATH and "
		    "database:NAME",
		    store);
	if (*store == '\0' && *s->state_dir == '\0')
		conf_problem(c->problems, blame(c, "state_dir"),
		    "state_dir: without one, state_store must name the store");
	if (*s->key_prefix == '\0' || strlen(s->key_prefix) > KEY_PREFIX_MAX ||
	    s->key_prefix[strspn(s->key_prefix,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")] !=
		'\0')
		conf_problem(c->problems, blame(c, "key_prefix"),
		    "key_prefix: \"%.60s\" cannot begin an id, allowed are 1 to %d "
		    "letters, digits, _ and -",
		    s->key_prefix, KEY_PREFIX_MAX);
}

bool
conf_address_split(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');
	size_t len;

	if (colon == NULL || colon[1] == '\0' ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
	    strtoul(colon + 1, NULL, 10) > 65535)
		return (false);
	*colon = '\0';
	*port = colon + 1;
	*host = text;
	len = strlen(text);
	if (text[0] == '[' && len > 2 && text[len - 1] == ']') {
		text[len - 1] = '\0';
		*host = text + 1;
		return (true);
	}
	return (strpbrk(text, ":[]") == NULL);
}

/* Whether each of the list is an address and a port; whether they can be had shows later. */
static void
check_http(struct conf *c)
{
	static const char parting[] = ", \t";
	const char *at = c->settings.http_listen;
	char *host, *port;

	for (at += strspn(at, parting); *at != '\0'; at += strspn(at, parting)) {
		size_t len = strcspn(at, parting);
		char *text = mem_strn(at, len);

		if (!conf_address_split(text, &host, &port))
			conf_problem(c->problems, blame(c, "http_listen"),
			    "http_listen: \"%.*s\" is not address:port, allowed are for "
			    "example 127.0.0.1:6480, [::1]:6480 and *:6480",
			    (int)(len < 80 ? len : 80), at);
		free(text);
		at += len;
	}
}

/* What no single value shows. */
static void
check_settings(struct conf *c)
{
	struct settings *s = &c->settings;

	if (*s->listen_addr == '\0' && *s->unix_socket_dir == '\0')
		conf_problem(c->problems, blame(c, "listen_addr"),
		    "listen_addr: nowhere to listen, allowed are listen_addr, "
		    "unix_socket_dir or both");
	if (s->client_tls_sslmode != SSL_DISABLE &&
	    (*s->client_tls_key_file == '\0' || *s->client_tls_cert_file == '\0'))
		conf_problem(c->problems, blame(c, "client_tls_sslmode"),
		    "client_tls_sslmode: TLS towards clients needs client_tls_key_file "
		    "and client_tls_cert_file");
	if (*s->conffile == '\0')
		s->conffile = c->path;
	if (conf_setting_at(c, "service_name").file == NULL)
		s->service_name = s->job_name;
	else if (conf_setting_at(c, "job_name").file == NULL)
		s->job_name = s->service_name;
	check_state(c);
	check_http(c);
}

/* ---- sections ---- */

static struct conf_section *
find_section(const struct conf *c, const char *kind, const char *name)
{
	for (size_t i = 0; i < c->section_count; i++) {
		struct conf_section *s = c->sections[i];

		if (strcmp(s->kind, kind) == 0 &&
		    (name == NULL || strcmp(s->name, name) == 0))
			return (s);
	}
	return (NULL);
}

static void
on_section(void *arg, const char *kind, const char *name, struct conf_at at)
{
	struct conf *c = arg;
	struct conf_section *s;

	if (strcmp(kind, "pgweave") == 0 || strcmp(kind, "pgbouncer") == 0) {
		c->current = NULL;
		if (*name != '\0')
			conf_problem(c->problems, at,
			    "[%s %s]: this section has no name, allowed is [%s]", kind,
			    name, kind);
		return;
	}
	s = find_section(c, kind, name);
	if (s == NULL) {
		s = mem_alloc(sizeof(*s));
		s->kind = kind;
		s->name = name;
		s->at = at;
		c->sections = mem_realloc(
		    c->sections, (c->section_count + 1) * sizeof(*c->sections));
		c->sections[c->section_count++] = s;
	}
	c->current = s;
}

static void
on_key(void *arg, const char *key, const char *value, struct conf_at at)
{
	struct conf *c = arg;
	struct conf_section *s = c->current;

	if (s == NULL) {
		take_setting(c, key, value, at);
		return;
	}
	/* Grown by halves: [databases] may have thousands of lines. */
	if ((s->key_count & (s->key_count - 1)) == 0)
		s->keys = mem_realloc(s->keys,
		    (s->key_count == 0 ? 1 : s->key_count * 2) * sizeof(*s->keys));
	s->keys[s->key_count++] = (struct conf_key){.key = key, .value = value, .at = at};
}

/* ---- loading ---- */

static struct conf *
conf_read(const char *path, const char *text, size_t len, bool without_includes,
    struct conf_problems *problems)
{
	struct conf *c = mem_alloc(sizeof(*c));
	struct reader_sink sink = {.section = on_section, .key = on_key, .arg = c};

	c->path = keep_add(&c->keep, mem_str(path));
	c->at = mem_alloc(setting_count * sizeof(*c->at));
	c->problems = problems;
	settings_defaults(&c->settings);
	reader_run(c->path, text, len, without_includes, &sink, &c->keep, problems);
	warn_later(c);
	check_settings(c);
	c->problems = NULL;
	c->current = NULL;
	return (c);
}

struct conf *
conf_load(const char *path, struct conf_problems *problems)
{
	char *text, why[256];
	struct conf *c;
	size_t len;

	text = conf_read_file(path, FILE_SIZE_MAX, true, &len, why, sizeof(why));
	if (text == NULL) {
		conf_problem(
		    problems, (struct conf_at){.file = path}, "cannot read it: %s", why);
		return (NULL);
	}
	c = conf_read(path, text, len, false, problems);
	mem_free_secret(text, len);
	return (c);
}

struct conf *
conf_load_text(
    const char *name, const char *text, size_t len, struct conf_problems *problems)
{
	return (conf_read(name, text, len, true, problems));
}

void
conf_free(struct conf *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->section_count; i++) {
		free(c->sections[i]->keys);
		free(c->sections[i]);
	}
	free(c->sections);
	free(c->at);
	keep_free(&c->keep);
	free(c);
}

/* ---- reading ---- */

const char *
conf_path(const struct conf *c)
{
	return (c->path);
}

const struct settings *
conf_settings(const struct conf *c)
{
	return (&c->settings);
}

struct conf_at
conf_setting_at(const struct conf *c, const char *key)
{
	const struct setting *s = setting_find(key);

	return (s != NULL ? c->at[setting_index(s)] : (struct conf_at){0});
}

size_t
conf_section_count(const struct conf *c)
{
	return (c->section_count);
}

const struct conf_section *
conf_section(const struct conf *c, size_t i)
{
	INVARIANT(i < c->section_count);
	return (c->sections[i]);
}

const struct conf_section *
conf_section_find(const struct conf *c, const char *kind, const char *name)
{
	return (find_section(c, kind, name));
}
