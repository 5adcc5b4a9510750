/*
 * pgweave key create, list, rotate, revoke: API keys without a running proxy. A proxy that runs on
 * the same store sees them within a second. `create --print` writes no store: it prints a
 * section for the configuration file.
 */
#include "main.h"
#include "store.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static int
fail(const char *what)
{
	fprintf(stderr, "pgweave: %s\n", what);
	return (EXIT_BAD_CONFIG);
}

/* ---- the configuration ---- */

/* Takes over conf (NULL: it could not be read). The snapshot, or NULL: the first problem has
 * been said. */
static const struct topo *
build(struct conf *conf, struct conf_problems *problems)
{
	const struct topo *topo = conf != NULL ? topo_build(conf, problems) : NULL;

	if (problems->count > 0)
		(void)fail(problems->lines[0]);
	conf_problems_free(problems);
	return (topo);
}

static const struct topo *
build_from_file(const char *path)
{
	struct conf_problems problems = {0};

	return (build(conf_load(path, &problems), &problems));
}

/* A configuration in which all that a key names exists. */
struct made_up {
	struct buf ini, members;
	char *names[TOPO_MEMBERS_MAX];
	size_t count;
};

static void
make_up_database(struct made_up *m, const char *name)
{
	if (name[0] == '\0' || strpbrk(name, "\"[];#") != NULL ||
	    m->count == ARRAY_LEN(m->names))
		return;
	for (size_t i = 0; i < m->count; i++)
		if (strcasecmp(m->names[i], name) == 0)
			return;
	m->names[m->count++] = mem_str(name);
	buf_addf(&m->ini, "[database %s]\nhost = /\n", name);
	admin_list_add(&m->members, name);
}

/* The first word of each piece of a list of names, or of names and roles. */
static void
make_up_databases(struct made_up *m, const char *list)
{
	while (list != NULL && *list != '\0') {
		char *name;

		list += strspn(list, " \t,");
		name = mem_strn(list, strcspn(list, " \t,"));
		make_up_database(m, name);
		free(name);
		list += strcspn(list, ",");
	}
}

/* What a key is checked against when no configuration is given. */
static const struct topo *
build_for(const struct topo_key_text *key)
{
	struct conf_problems problems = {0};
	struct made_up m = {0};
	const struct topo *topo;

	buf_addstr(&m.ini, "[pgweave]\nunix_socket_dir = /\n");
	make_up_databases(&m, key->databases);
	make_up_databases(&m, key->roles);
	if (m.count == 0)
		make_up_database(&m, "any");
	buf_addf(&m.ini, "[virtual %s]\nmembers = %.*s\n", key->virtual_,
	    (int)m.members.len, (const char *)m.members.mem);
	topo = build(
	    conf_load_text("key create", (const char *)m.ini.mem, m.ini.len, &problems),
	    &problems);
	for (size_t i = 0; i < m.count; i++)
		free(m.names[i]);
	buf_free(&m.members);
	buf_free(&m.ini);
	return (topo);
}

/* The store of that configuration, opened as the user that the proxy becomes; NULL: said
 * why. */
static struct store_direct *
store_of(const struct topo *topo)
{
	const struct settings *set = topo_settings(topo);
	struct store_direct *store = NULL;
	char why[512];

	if ((geteuid() == 0 && set->user[0] != '\0' &&
		become_user(set->user, why, sizeof(why)) != 0) ||
	    (store = store_direct_open(
		 topo, set, topo_store_database(topo), why, sizeof(why))) == NULL)
		(void)fail(why);
	return (store);
}

/* ---- create ---- */

struct wanted {
	struct topo_key_text text;
	struct buf rights;
	bool is_print;
	const char *config; /* NULL: none */
};

enum key_option {
	OPTION_NAME = 1,
	OPTION_TYPE,
	OPTION_USER,
	OPTION_VIRTUAL,
	OPTION_DATABASES,
	OPTION_FEDERATE,
	OPTION_REPLICATE,
	OPTION_OPERATE,
	OPTION_READ_ONLY,
	OPTION_EXPIRES,
	OPTION_NETWORKS,
	OPTION_RATE,
	OPTION_CONCURRENCY,
	OPTION_ROLES,
	OPTION_PRINT
};
static const struct option options[] = {
    {"name", required_argument, NULL, OPTION_NAME},
    {"type", required_argument, NULL, OPTION_TYPE},
    {"user", required_argument, NULL, OPTION_USER},
    {"virtual", required_argument, NULL, OPTION_VIRTUAL},
    {"databases", required_argument, NULL, OPTION_DATABASES},
    {"federate", no_argument, NULL, OPTION_FEDERATE},
    {"replicate", no_argument, NULL, OPTION_REPLICATE},
    {"operate", no_argument, NULL, OPTION_OPERATE},
    {"read-only", no_argument, NULL, OPTION_READ_ONLY},
    {"expires", required_argument, NULL, OPTION_EXPIRES},
    {"networks", required_argument, NULL, OPTION_NETWORKS},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"concurrency", required_argument, NULL, OPTION_CONCURRENCY},
    {"roles", required_argument, NULL, OPTION_ROLES},
    {"print", no_argument, NULL, OPTION_PRINT},
    {NULL, 0, NULL, 0},
};

static const char **
text_of_option(struct topo_key_text *text, int option)
{
	switch (option) {
	case OPTION_NAME:
		return (&text->name);
	case OPTION_TYPE:
		return (&text->type);
	case OPTION_USER:
		return (&text->user_id);
	case OPTION_VIRTUAL:
		return (&text->virtual_);
	case OPTION_DATABASES:
		return (&text->databases);
	case OPTION_EXPIRES:
		return (&text->expires);
	case OPTION_NETWORKS:
		return (&text->networks);
	case OPTION_RATE:
		return (&text->rate);
	case OPTION_CONCURRENCY:
		return (&text->concurrency);
	case OPTION_ROLES:
		return (&text->roles);
	default:
		return (NULL);
	}
}

/* One option; false: it is none. */
static bool
take_option(struct wanted *w, int option)
{
	const char **text = text_of_option(&w->text, option);

	if (text != NULL)
		*text = optarg;
	else if (option == OPTION_FEDERATE)
		admin_list_add(&w->rights, "federate");
	else if (option == OPTION_REPLICATE)
		admin_list_add(&w->rights, "replicate");
	else if (option == OPTION_OPERATE)
		admin_list_add(&w->rights, "operate");
	else if (option == OPTION_READ_ONLY)
		w->text.read_only = "yes";
	else if (option == OPTION_PRINT)
		w->is_print = true;
	else
		return (false);
	return (true);
}

/* False: said what is wrong. */
static bool
take_options(struct wanted *w, int argc, char **argv)
{
	char message[160];
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (take_option(w, option))
			continue;
		snprintf(message, sizeof(message),
		    "key create: \"%.80s\" is no option, or lacks its value; try: "
		    "pgweave help",
		    argv[optind - 1]);
		(void)fail(message);
		return (false);
	}
	if (w->rights.len > 0) {
		buf_add(&w->rights, "", 1);
		w->text.rights = (const char *)w->rights.mem;
	}
	w->config = optind < argc ? argv[optind] : NULL;
	if (argc - optind > 1 || (w->config == NULL && !w->is_print)) {
		(void)fail("key create: one configuration file is needed (none with "
			   "--print)");
		return (false);
	}
	return (true);
}

/* As the reader of the configuration takes it back: quotes where something in it would mean
 * more than itself, and $${ for ${. */
static void
print_value(const char *key, const char *value)
{
	bool is_quoted = strpbrk(value, ";#'") != NULL || value[0] == ' ' ||
			 value[strlen(value) - 1] == ' ';

	printf("%s = %s", key, is_quoted ? "'" : "");
	for (; *value != '\0'; value++) {
		if (*value == '\'' && is_quoted)
			putchar('\'');
		if (value[0] == '$' && value[1] == '{')
			putchar('$');
		putchar(*value);
	}
	printf("%s\n", is_quoted ? "'" : "");
}

/* Begins with an empty line: it may be appended to a file whose last line has no end. */
static void
print_section(const struct topo_key_text *text, const char *secret)
{
	const struct {
		const char *key, *value;
	} lines[] = {
	    {"name", text->name},
	    {"secret", text->secret},
	    {"type", text->type},
	    {"virtual", text->virtual_},
	    {"databases", text->databases},
	    {"rights", text->rights},
	    {"user_id", text->user_id},
	    {"read_only", text->read_only},
	    {"networks", text->networks},
	    {"rate", text->rate},
	    {"concurrency", text->concurrency},
	    {"expires", text->expires},
	    {"roles", text->roles},
	    {"created", text->created},
	};

	printf("\n[key %s]\n; secret (shown this once): %s\n", text->id, secret);
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		if (lines[i].value != NULL && lines[i].value[0] != '\0')
			print_value(lines[i].key, lines[i].value);
}

/* Checks it, makes it, and writes or prints it. */
static int
create(struct wanted *w, const struct topo *topo)
{
	struct admin_key key = {0};
	struct store_direct *store = NULL;
	char why[1024];
	int fault = 0;

	if (!topo_key_check(topo, &w->text, why, sizeof(why)))
		return (fail(why));
	if (w->text.name != NULL && topo_key_of_file(topo, w->text.name) != NULL) {
		snprintf(
		    why, sizeof(why), "there is a key \"%.500s\" already", w->text.name);
		return (fail(why));
	}
	if (!w->is_print && (store = store_of(topo)) == NULL)
		return (EXIT_BAD_CONFIG);
	admin_key_make(&key, topo_settings(topo)->key_prefix);
	w->text.id = key.id;
	w->text.secret = key.verifier;
	w->text.created = key.created;
	if (store != NULL)
		fault = store_direct_key_put(store, &w->text, why, sizeof(why));
	if (fault != 0)
		(void)fail(why);
	else if (w->is_print)
		print_section(&w->text, key.secret);
	else
		printf("key: %s\nsecret: %s\n", key.id, key.secret);
	store_direct_close(store);
	admin_key_forget(&key);
	return (fault == 0 ? EXIT_FINE : EXIT_BAD_CONFIG);
}

static int
key_create(int argc, char **argv)
{
	const struct topo *topo = NULL;
	struct wanted w = {0};
	int code = EXIT_BAD_CONFIG;

	if (!take_options(&w, argc, argv))
		goto out;
	if (w.text.virtual_ == NULL) {
		code = fail("key create: --virtual is missing: the name of the virtual "
			    "database that the key may use");
		goto out;
	}
	if (admin_key_has_control(&w.text)) {
		code = fail("key create: a value has a control character in it");
		goto out;
	}
	topo = w.config != NULL ? build_from_file(w.config) : build_for(&w.text);
	if (topo != NULL)
		code = create(&w, topo);
out:
	topo_release(topo);
	buf_free(&w.rights);
	return (code);
}

/* ---- list ---- */

static void
list_line(const struct topo_key *k)
{
	struct buf rights = {0}, databases = {0};
	char user[24] = "", expires[40] = "";

	admin_key_rights(k, &rights);
	admin_key_databases(k, &databases);
	if (k->has_user_id)
		snprintf(user, sizeof(user), "%lld", (long long)k->user_id);
	if (k->expires_us != 0)
		admin_time_text(k->expires_us, expires, sizeof(expires));
	printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k->id, k->name,
	    admin_key_type(k), k->virtual_, (const char *)databases.mem,
	    (const char *)rights.mem, user, expires,
	    k->text.created != NULL ? k->text.created : "",
	    admin_key_status(k, clock_wall_us()));
	buf_free(&rights);
	buf_free(&databases);
}

/* One key at a time: its text does not outlive the call. */
static void
list_stored(void *arg, const struct topo_key_text *text)
{
	const struct topo *with = topo_with_keys(arg, text, 1);
	const struct topo_key *k = topo_key_find(with, text->id);

	if (k != NULL && !k->is_from_file)
		list_line(k);
	topo_release(with);
}

static int
list(const struct topo *topo)
{
	struct store_direct *store = store_of(topo);
	char why[512];
	int fault;

	if (store == NULL)
		return (EXIT_BAD_CONFIG);
	printf("key\tname\ttype\tvirtual\tdatabases\trights\tuser_id\texpires\tcreated\t"
	       "status\n");
	for (size_t i = 0; i < topo_key_count(topo); i++)
		list_line(topo_key(topo, i));
	fault = store_direct_keys(
	    store, list_stored, (void *)(uintptr_t)topo, why, sizeof(why));
	store_direct_close(store);
	return (fault == 0 ? EXIT_FINE : fail(why));
}

static int
key_list(int argc, char **argv)
{
	const struct topo *topo;
	int code;

	if (argc != 2)
		return (fail("usage: pgweave key list CONFIG.ini"));
	topo = build_from_file(argv[1]);
	if (topo == NULL)
		return (EXIT_BAD_CONFIG);
	code = list(topo);
	topo_release(topo);
	return (code);
}

/* ---- rotate, revoke ---- */

/* A key of the file is changed there; true: that has been said. */
static bool
is_of_file(const struct topo *topo, const char *word)
{
	const struct topo_key *k = topo_key_of_file(topo, word);
	char why[512];

	if (k == NULL)
		return (false);
	snprintf(why, sizeof(why),
	    "key \"%s\" stands in %s:%d: change or remove its section there", word,
	    k->at.file, k->at.line);
	(void)fail(why);
	return (true);
}

static void
note_id(void *arg, const struct topo_key_text *text)
{
	struct admin_key *k = arg;

	(void)text_copy(k->id, sizeof(k->id), text->id);
}

static int
rotate_key(const struct topo *topo, const char *word, int64_t overlap_us)
{
	struct admin_key key = {0};
	struct store_rotation rotation = {
	    .verifier = admin_key_verifier, .arg = &key, .overlap_us = overlap_us};
	struct store_direct *store;
	char why[512];
	int fault;

	if (is_of_file(topo, word) || (store = store_of(topo)) == NULL)
		return (EXIT_BAD_CONFIG);
	admin_key_renew(&key);
	fault = store_direct_key_rotate(
	    store, word, &rotation, note_id, &key, why, sizeof(why));
	store_direct_close(store);
	if (fault != 0)
		(void)fail(why);
	else
		printf("key: %s\nsecret: %s\n", key.id, key.secret);
	admin_key_forget(&key);
	return (fault == 0 ? EXIT_FINE : EXIT_BAD_CONFIG);
}

static int
key_rotate(int argc, char **argv)
{
	static const struct option rotate_options[] = {
	    {"overlap", required_argument, NULL, OPTION_NAME}, {NULL, 0, NULL, 0}};
	const struct topo *topo;
	int64_t overlap_us = 0;
	char why[320];
	int option, code;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", rotate_options, NULL)) != -1) {
		if (option != OPTION_NAME)
			argc = 0;
		else if (!topo_key_overlap(optarg, &overlap_us, why, sizeof(why)))
			return (fail(why));
	}
	if (argc - optind != 2)
		return (fail("usage: pgweave key rotate [--overlap TIME] CONFIG.ini "
			     "ID_OR_NAME"));
	topo = build_from_file(argv[optind]);
	if (topo == NULL)
		return (EXIT_BAD_CONFIG);
	code = rotate_key(topo, argv[optind + 1], overlap_us);
	topo_release(topo);
	return (code);
}

static int
revoke_key(const struct topo *topo, const char *word)
{
	struct store_direct *store;
	char why[512];
	int fault;

	if (is_of_file(topo, word) || (store = store_of(topo)) == NULL)
		return (EXIT_BAD_CONFIG);
	fault = store_direct_key_revoke(store, word, why, sizeof(why));
	store_direct_close(store);
	return (fault == 0 ? EXIT_FINE : fail(why));
}

static int
key_revoke(int argc, char **argv)
{
	const struct topo *topo;
	int code;

	if (argc != 3)
		return (fail("usage: pgweave key revoke CONFIG.ini ID_OR_NAME"));
	topo = build_from_file(argv[1]);
	if (topo == NULL)
		return (EXIT_BAD_CONFIG);
	code = revoke_key(topo, argv[2]);
	topo_release(topo);
	return (code);
}

int
command_key(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {{"create", key_create}, {"list", key_list},
	    {"rotate", key_rotate}, {"revoke", key_revoke}};

	for (size_t i = 0; i < ARRAY_LEN(commands) && argc > 0; i++)
		if (strcmp(argv[0], commands[i].name) == 0)
			return (commands[i].run(argc, argv));
	return (fail(argc > 0 ? "key: it can be told to create, list, rotate or revoke"
			      : "key: what to do with it is missing: create, list, "
				"rotate or revoke"));
}
