/*
 * conf: from INI files to typed, checked settings, and the sentence for every mistake.
 *
 * A reader of ours feeds inih (which cuts long lines and names) and keeps file and line of
 * every key. The result is a document (sections of keys) and the one `struct settings` of
 * the [pgweave] (or [pgbouncer]) section, made from the SETTING rows in include/tbl. What
 * the other sections mean is topo's business.
 */
#ifndef CONF_H
#define CONF_H
#include "base.h"

/* INT: int64_t. TIME: int64_t microseconds. SIZE: int64_t bytes. BOOL: bool. STR: const
 * char *, "" where nothing was given. ENUM: int, the position of the word in the row's unit
 * column ("session|transaction|statement"). */
enum setting_type { SET_STR, SET_INT, SET_TIME, SET_SIZE, SET_BOOL, SET_ENUM };
/* Where a key may stand: [pgweave], a [database x] or [databases] line, a [users] line,
 * [virtual x], [shard x], [replication x], [key x], [login x]. */
enum setting_scope {
	SC_GLOBAL = 1,
	SC_DATABASE = 2,
	SC_USER = 4,
	SC_VIRTUAL = 8,
	SC_SHARD = 16,
	SC_JOB = 32,
	SC_KEY = 64,
	SC_LOGIN = 128,
	SC_KEY_LOGIN = SC_KEY | SC_LOGIN,
	SC_DATABASE_KEY_LOGIN = SC_DATABASE | SC_KEY | SC_LOGIN,
	SC_VIRTUAL_SHARD = SC_VIRTUAL | SC_SHARD,
	SC_VIRTUAL_LOGIN = SC_VIRTUAL | SC_LOGIN,
	SC_SHARD_JOB = SC_SHARD | SC_JOB,
	SC_GLOBAL_DATABASE = SC_GLOBAL | SC_DATABASE,
	SC_GLOBAL_USER = SC_GLOBAL | SC_USER,
	SC_DATABASE_USER = SC_DATABASE | SC_USER,
	SC_ANY = SC_GLOBAL | SC_DATABASE | SC_USER,
	SC_EVERYWHERE = 255
};
/* LATER: accepted with its type, so that an existing pgbouncer.ini starts; a warning says
 * so where it is set to something else than its default. */
enum setting_apply { AP_RELOAD, AP_RESTART, AP_LATER };
#define CONF_LATER "accepted so that an existing pgbouncer.ini starts; has no effect yet"

enum pool_mode { POOL_SESSION, POOL_TRANSACTION, POOL_STATEMENT };
enum pin_policy { PIN_ALLOW, PIN_REFUSE };
enum auth_type {
	AUTH_ANY,
	AUTH_TRUST,
	AUTH_PLAIN,
	AUTH_MD5,
	AUTH_SCRAM,
	AUTH_CERT,
	AUTH_HBA,
	AUTH_PEER,
	AUTH_REJECT /* of a line of auth_hba_file; no word of auth_type */
};
enum session_attrs {
	ATTRS_ANY,
	ATTRS_READ_WRITE,
	ATTRS_READ_ONLY,
	ATTRS_PRIMARY,
	ATTRS_STANDBY
};
enum ssl_mode {
	SSL_DISABLE,
	SSL_ALLOW,
	SSL_PREFER,
	SSL_REQUIRE,
	SSL_VERIFY_CA,
	SSL_VERIFY_FULL
};

/* The words of the ENUM rows, in the order of the enums; the unit column names the list.
 * First as a default is written in a row, then as in a file. */
#define WORDS_POOL_MODE(W)                                                               \
	W(session, "session") W(transaction, "transaction") W(statement, "statement")
#define WORDS_PIN(W) W(allow, "allow") W(refuse, "refuse")
#define WORDS_AUTH_TYPE(W)                                                               \
	W(any, "any")                                                                    \
	W(trust, "trust")                                                                \
	W(plain, "plain")                                                                \
	W(md5, "md5")                                                                    \
	W(scram, "scram-sha-256")                                                        \
	W(cert, "cert")                                                                  \
	W(hba, "hba")                                                                    \
	W(peer, "peer")
#define WORDS_SSL_MODE(W)                                                                \
	W(disable, "disable")                                                            \
	W(allow, "allow")                                                                \
	W(prefer, "prefer")                                                              \
	W(require, "require")                                                            \
	W(verify_ca, "verify-ca")                                                        \
	W(verify_full, "verify-full")
#define WORDS_LOAD_BALANCE(W) W(disable, "disable") W(ROUND_ROBIN, "round-robin")
#define WORDS_SESSION_ATTRS(W)                                                           \
	W(any, "any")                                                                    \
	W(read_write, "read-write")                                                      \
	W(read_only, "read-only")                                                        \
	W(primary, "primary")                                                            \
	W(standby, "standby")
#define WORDS_FALLBACK(W)       W(no, "no") W(reads, "reads") W(all, "all")
#define WORDS_FEDERATION(W)     W(merge, "merge") W(tag, "tag")
#define WORDS_ON_UNAVAILABLE(W) W(error, "error") W(skip, "skip")
#define WORDS_AUDIT(W)          W(off, "off") W(async, "async") W(sync, "sync")
#define WORDS_FUNCTION(W)                                                                \
	W(modulo, "modulo") W(hash, "hash") W(range, "range") W(list, "list")
#define WORDS_SHARD_TYPE(W)                                                              \
	W(integer, "integer")                                                            \
	W(bigint, "bigint")                                                              \
	W(text, "text")                                                                  \
	W(character, "char")                                                             \
	W(uuid, "uuid")
#define WORDS_KEY_TYPE(W) W(database, "database") W(client, "client") W(server, "server")
#define WORDS_JOB_MODE(W)                                                                \
	W(sync_key, "sync_key")                                                          \
	W(full, "full") W(logical, "logical") W(AUTO, "auto")

#define CT_STR  const char *
#define CT_INT  int64_t
#define CT_TIME int64_t
#define CT_SIZE int64_t
#define CT_BOOL bool
#define CT_ENUM int

/* One resolved set of values. The field is named as the key is. */
struct settings {
#define SETTING(key, type, ...) CT_##type key;
#include "tbl/all.def"
};

/* What is known of one key; one row per SETTING(). */
struct setting {
	const char *key;
	enum setting_type type;
	unsigned scope;
	const char *dflt; /* as it is written in a file */
	int64_t min, max; /* in the unit of a plain number; 0, 0: no bounds */
	/* Of a plain number: "s", "ms", "us", "B", "". Of an INT also "octal": written so;
	 * "auto": a word for 0; "s": whole seconds, in the field too. Or the words of an
	 * ENUM, or of a STR that must be one of them. */
	const char *unit;
	enum setting_apply apply;
	const char *doc;
	size_t offset; /* into struct settings */
};
/* The keys that may stand in [pgweave] (all have SC_GLOBAL). */
extern const struct setting setting_table[];
extern const size_t setting_count;
/* The WORD() rows: keys of the other sections that are no settings of [pgweave]. They have
 * no field in struct settings (offset 0). */
extern const struct setting word_table[];
extern const size_t word_count;

/* Where a line stands: for messages. */
struct conf_at {
	const char *file;
	int line;
};
struct conf_key {
	/* White space trimmed; ${VAR} replaced, but not in the one-line forms of
	 * [databases], [users] and [peers]: there it is replaced word by word. */
	const char *key, *value;
	struct conf_at at;
};
struct conf_section {
	const char *kind; /* "pgweave", "databases", "database", "users"… lower case */
	const char
	    *name; /* what follows the kind ("primary" of [database primary]), or "" */
	struct conf_at at;
	struct conf_key *keys;
	size_t key_count;
};

/* Everything that is wrong, one sentence each: "file:line: key: what, what is allowed". */
struct conf_problems {
	char **lines;
	size_t count;
	char **warnings; /* what is accepted but deserves a word */
	size_t warning_count;
};
void conf_problem(struct conf_problems *, struct conf_at, const char *fmt, ...)
    PRINTF(3, 4);
void conf_warning(struct conf_problems *, struct conf_at, const char *fmt, ...)
    PRINTF(3, 4);
void conf_problems_free(struct conf_problems *);

/* A file as a whole, with a NUL behind it: at most limit bytes, and a regular file unless
 * any_kind. NULL: why says the reason. The caller frees it. */
char *conf_read_file(const char *path, size_t limit, bool any_kind, size_t *len,
    char *why, size_t why_len) MUST_USE;
/* "host:port", "[address]:port", "*:port" or ":port", cut in two in place; false: it is none. */
bool conf_address_split(char *text, char **host, char **port) MUST_USE;
/* A path that stands in the configuration: as it is when absolute; otherwise in the
 * directory of the file where it is written when it exists there; otherwise left to the
 * working directory, as PgBouncer does. The caller frees it. */
char *conf_resolve_path(struct conf_at, const char *path) MUST_USE;
/* A copy of value with each ${NAME} replaced from the environment and $${ standing for ${.
 * What cannot be replaced is a problem naming key. The caller frees it. */
char *conf_expand(
    const char *value, const char *key, struct conf_at, struct conf_problems *) MUST_USE;

/* One configuration file, read with its includes. Owns every string in it. */
struct conf;
/* Reads the file and [pgweave]; what is wrong goes to problems (also that the file cannot be
 * read). NULL only when the file itself could not be read; otherwise the caller frees the
 * result, and must not use it for running when problems->count > 0. */
struct conf *conf_load(const char *path, struct conf_problems *) MUST_USE;
/* The same from memory, under a name for the messages; %include is refused. Never NULL. */
struct conf *conf_load_text(
    const char *name, const char *text, size_t len, struct conf_problems *) MUST_USE;
void conf_free(struct conf *);
const char *conf_path(const struct conf *);
const struct settings *conf_settings(const struct conf *);
/* Where the setting was written; file NULL when it has its default. */
struct conf_at conf_setting_at(const struct conf *, const char *key);
/* The sections that are not [pgweave], in order; sections that stand twice are joined. */
size_t conf_section_count(const struct conf *);
const struct conf_section *conf_section(const struct conf *, size_t i);
/* NULL when there is none. name NULL: any. */
const struct conf_section *conf_section_find(
    const struct conf *, const char *kind, const char *name);

/* The setting of [pgweave] of that key, or NULL. Keys are compared without regard to case. */
const struct setting *setting_find(const char *key);
/* The row of that key that may stand in one of the scopes, or NULL. */
const struct setting *setting_find_in(unsigned scopes, const char *key);
/* Says in why that there is no such key there, where it may stand, and the nearest name. */
void setting_unknown(unsigned scopes, const char *key, char *why, size_t why_len);
/* Sets one value from text. why gets a sentence without the key's name. Strings are not
 * copied: text must outlive the settings. 0, or F_NOT_FOUND, F_CONF_VALUE. */
int setting_put(struct settings *, const struct setting *, const char *text, char *why,
    size_t why_len) MUST_USE;
/* Parses a value of the setting's type without a struct settings: number out as in the
 * field (µs, bytes, 0/1, position of the word). Not for STR. */
int setting_number(const struct setting *, const char *text, int64_t *out, char *why,
    size_t why_len) MUST_USE;
/* The value as SHOW CONFIG prints it: in the unit of a plain number. */
void setting_text(
    const struct settings *, const struct setting *, char *out, size_t out_len);
void settings_defaults(struct settings *);
/* What separates two sets: calls changed() for each key that differs. */
void settings_diff(const struct settings *was, const struct settings *is,
    void (*changed)(void *arg, const struct setting *, bool needs_restart), void *arg);
/* The commented sample configuration, and the manual's list of settings (man macros), made
 * from the rows. */
void settings_print_sample(void *file);
void settings_print_manual(void *file);

#endif
