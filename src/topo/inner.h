/* topo/inner.h: a snapshot from the inside, for the files that build it. */
#ifndef TOPO_INNER_H
#define TOPO_INNER_H
#include "topo.h"

#include <stdatomic.h>

/* Strings that live as long as what they belong to; overwritten when freed, since any of
 * them may be a secret. {0} is an empty one. */
struct strings {
	char **items;
	size_t count;
};
/* Takes over s. */
const char *strings_keep(struct strings *, char *s);
void strings_free(struct strings *);

struct database_node {
	struct table_node node; /* by name */
	struct topo_database db;
	bool is_one_line; /* from [databases] */
	/* Names of other databases, until all are read; or NULL. */
	const char *fallback, *replica_of;
	struct conf_at fallback_at, replica_of_at;
};
struct virtual_node {
	struct table_node node; /* by name */
	struct topo_virtual v;
};
struct key_node {
	struct table_node node; /* by id */
	struct topo_key key;
	struct strings strings;
};
struct login_node {
	struct table_node node; /* by name */
	struct topo_login login;
	struct conf_at secret_at; /* its line in auth_file */
};
struct name_list {
	const char **names;
	size_t count;
};
/* Keys; owns them. Those of the store are shared by the snapshots that know the same ones. */
struct keyring {
	_Atomic uint64_t refs;
	struct key_node **keys;
	size_t count;
	struct table by_id;
};

struct topo {
	/* The only field that changes after topo_build(). */
	_Atomic uint64_t refs;
	uint64_t generation;
	struct conf *conf;
	/* A snapshot made by topo_with() or topo_with_keys(): all but its settings and the
	 * keys of the store is the base's. */
	const struct topo *base;
	struct settings *own;
	struct strings strings; /* those that are not the conf's */
	struct database_node **databases;
	size_t database_count;
	struct table by_database;
	const struct topo_database *fallback; /* the '*' entry */
	struct login_node **logins;
	size_t login_count;
	struct table by_login;
	struct name_list admins, stats;
	struct virtual_node **virtuals;
	size_t virtual_count;
	struct table by_virtual;
	struct keyring *file_keys;
	struct keyring *store_keys; /* NULL: none; held */
	/* NULL: none; held. Otherwise the virtual databases are its own. */
	struct route_set *store_routes;
	struct key_node **rules; /* of [login x] */
	size_t rule_count;
	struct topo_job *jobs;
	size_t job_count;
	struct topo_peer *peers;
	size_t peer_count;
	struct hba *hba; /* NULL: auth_type is not hba; the root's */
};

/* Virtual databases with the routes of the store: copies of the root's, which share with them
 * all but routes and places. Shared by the snapshots that know the same routes. */
struct route_set {
	_Atomic uint64_t refs;
	struct virtual_node **virtuals;
	size_t count;
	struct table by_virtual;
	struct strings strings;
};

uint64_t topo_next_generation(void);
/* Takes over s; it lives as long as the snapshot. */
const char *topo_keep(struct topo *, char *s);
/* The database of exactly that name, or NULL. */
struct database_node *topo_database_node(const struct topo *, const char *name);
/* The login of that name, made when it is not there. */
struct login_node *topo_login_get(struct topo *, const char *name);

/* ---- words: what databases and logins are made of (words.c) ---- */

enum slot_kind { SLOT_STR, SLOT_TEXT, SLOT_NUMBER, SLOT_MODE, SLOT_FLAG };
/* Where a word goes. TEXT: as it stands, looked at later, whatever the row's type. FLAG: a
 * bool, true for yes, or for the second word of the row. */
struct slot {
	const char *key;
	enum slot_kind kind;
	size_t offset; /* into what is being filled */
};
/* A database or a login being filled with words. */
struct words {
	struct topo *topo;
	struct conf_problems *problems;
	unsigned scope;   /* one SC_ */
	const char *name; /* said before the key in one-line forms; NULL: not */
	const struct slot *slots;
	size_t slot_count;
	void *base;        /* of the slots */
	struct conf_at at; /* of the whole */
	struct conf_at
	    *said; /* of each word, by row; from words_begin() to words_end() */
};
void words_begin(struct words *);
void words_end(struct words *);
/* One word: key, value, where it stands. */
void words_put(struct words *, const char *key, const char *value, struct conf_at);
/* All words of "host=… port=…". */
void words_put_line(struct words *, const char *line, struct conf_at);
/* Where a word was said, or the whole when it was not. */
struct conf_at words_at(const struct words *, const char *key);
/* "name: key" or "key": what begins a sentence about a word. The caller frees it. */
char *words_label(const struct words *, const char *key) MUST_USE;

/* Takes the next key = value off a connection string, in place. 1: there is one; 0: the end;
 * -1: why says what is wrong. */
int line_next(char **at, char **key, char **value, const char **why) MUST_USE;

/* ---- names.c: lists, names of tables, and names that are not there ---- */

/* The next piece of "a, "b,c"", trimmed; commas in double quotes are part of it. Empty
 * pieces are left out. False: the end. */
bool list_next(const char **at, const char **piece, size_t *len) MUST_USE;
/* "a, b" to its names, without their quotes. The caller frees list->names. */
void list_read(struct strings *, const char *text, struct name_list *);
void list_add(struct name_list *, const char *name);
bool list_has(const struct name_list *, const char *name);

struct table_name {
	const char *text;           /* as written */
	const char *schema, *table; /* schema NULL: unqualified */
	bool is_exact;              /* without a * outside quotes */
};
/* NULL, or what is wrong with it. */
const char *table_name_read(
    struct strings *, const char *piece, size_t len, struct table_name *);
/* Names of tables without schema are taken to be in public. */
const char *schema_or_public(const char *schema);
/* Whether the pattern matches the name. */
bool pattern_matches(const char *pattern, const char *name);
/* Whether the first pattern matches whatever the second does. Never yes when it does not. */
bool pattern_covers(const char *pattern, const char *other);

/* A sentence about a name that is none: `there is no WHAT "x", allowed are a, b, did you mean
 * "a"?`. The caller frees it. */
char *name_unknown(
    const char *what, const char *name, const struct name_list *allowed) MUST_USE;
void names_of_databases(const struct topo *, struct name_list *);
void names_of_virtuals(const struct topo *, struct name_list *);
void names_of(
    const struct topo_database *const *databases, size_t count, struct name_list *);

/* Where what is wrong with some words goes: of a section, to its problems; of CREATE KEY and
 * the like, the first sentence to why. */
struct complaint {
	const struct words *words; /* NULL: to why */
	char *why;
	size_t why_len;
	bool is_wrong;
};
void complain(struct complaint *, const char *word, const char *fmt, ...) PRINTF(3, 4);
/* Complains with name_unknown(), and frees the list. */
void complain_unknown(struct complaint *, const char *word, const char *what,
    const char *name, struct name_list *allowed);
/* The number of a text under the row of that word; false: not said, or wrong. */
bool complain_number(
    struct complaint *, unsigned scope, const char *word, const char *text, int64_t *out);

/* ---- key_text.c: the values of a key ---- */

/* "2027-01-31", "2027-01-31 23:59[:59[.5]]", with Z, +02 or +02:30 behind; UTC without. */
bool date_read(const char *text, int64_t *wall_us) MUST_USE;
/* "100/s" */
bool rate_read(const char *text, int64_t *count, int64_t *us) MUST_USE;
/* "10.0.0.0/8", "::1", "local" */
bool network_read(const char *text, struct topo_network *) MUST_USE;
bool network_has(const struct topo_network *, uint8_t family, const void *addr);
/* SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey */
bool is_verifier(const char *text);

/* ---- spans.c, hashing.c: where the rows of a shard live ---- */

/* Reads `ranges` or `lists` to spans; members that are not there yet are added when `adds`. */
void spans_read(struct complaint *, struct topo *, const struct topo_virtual *,
    struct topo_shard *, const char *text, bool adds);
/* What PostgreSQL's partitioning by hash makes of a value; its remainder is the partition's. */
uint64_t shard_hash(enum topo_shard_type, const struct topo_shard_value *);

/* ---- keys.c ---- */

/* Never NULL; of no use when there was a complaint. */
struct key_node *key_make(const struct topo *, const struct topo_key_text *,
    bool is_login, struct complaint *) MUST_USE;
void key_free(struct key_node *);

/* ---- keyring.c ---- */

struct keyring *keyring_create(void) MUST_USE;
struct keyring *keyring_hold(struct keyring *); /* NULL is allowed, also below */
void keyring_release(struct keyring *);

/* ---- stored_routes.c; NULL is allowed ---- */

struct route_set *route_set_hold(struct route_set *);
void route_set_release(struct route_set *);
/* Makes the snapshot's virtual databases those of its set, or of its root. */
void route_set_use(struct topo *);

/* ---- routes.c, for it ---- */

/* What is said of exact names, once routes and shards are there. */
void virtual_places_read(struct topo_virtual *, struct strings *, struct conf_problems *);
void virtual_places_free(struct topo_virtual *);
/* The pattern before this one that takes in all that it matches, or NULL. */
const struct topo_route *virtual_covering(
    const struct topo_virtual *, const struct topo_route *);

/* ---- hba.c ---- */

/* Reads auth_hba_file and auth_ident_file when auth_type asks for them, and checks that
 * certificates are asked for where a login needs one. */
void hba_read(struct topo *, struct conf_problems *);
void hba_free(struct hba *); /* NULL is allowed */

/* A copy of the snapshot with settings of its own, to be changed in one thing. */
struct topo *topo_copy(const struct topo *) MUST_USE;
/* To be called when the settings of a copy are as they will be. */
void topo_copied(struct topo *);

/* ---- sections, in the order in which they are read ---- */

void logins_read(struct topo *, struct conf_problems *);
/* Of auth_query, when the databases are there. */
void logins_check(struct topo *, struct conf_problems *);
void databases_read(struct topo *, struct conf_problems *);
void relations_read(struct topo *, struct conf_problems *);
void peers_read(struct topo *, struct conf_problems *);
void virtuals_read(struct topo *, struct conf_problems *);
void routes_read(struct topo *, struct conf_problems *);
void models_read(struct topo *, struct conf_problems *);
void shards_read(struct topo *, struct conf_problems *);
void places_read(struct topo *, struct conf_problems *);
void keys_read(struct topo *, struct conf_problems *);
void rules_read(struct topo *, struct conf_problems *);
void jobs_read(struct topo *, struct conf_problems *);
/* state.c: looks at state_store; behind virtuals_read(). */
void store_read(struct topo *, struct conf_problems *);
void virtual_free(struct virtual_node *);

struct virtual_node *topo_virtual_node(const struct topo *, const char *name);
/* The virtual database that a section [route x] names; NULL: said. */
struct topo_virtual *section_virtual(
    struct topo *, const struct conf_section *, struct conf_problems *);
/* A route of the virtual database; the strings are kept elsewhere. */
struct topo_route *virtual_add_route(struct topo_virtual *, const struct table_name *,
    const struct topo_database *, struct conf_at);

#endif
