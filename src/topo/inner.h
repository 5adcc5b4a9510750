/* topo/inner.h: a snapshot from the inside, for the files that build it. */
#ifndef TOPO_INNER_H
#define TOPO_INNER_H
#include "topo.h"

#include <stdatomic.h>

struct database_node {
	struct table_node node; /* by name */
	struct topo_database db;
	bool is_one_line; /* from [databases] */
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

struct topo {
	/* The only field that changes after topo_build(). */
	_Atomic uint64_t refs;
	uint64_t generation;
	struct conf *conf;
	/* A snapshot made by topo_with(): everything but its settings is the base's. */
	const struct topo *base;
	struct settings *own;
	char **strings; /* those that are not the conf's; may be secrets */
	size_t string_count;
	struct database_node **databases;
	size_t database_count;
	struct table by_database;
	const struct topo_database *fallback; /* the '*' entry */
	struct login_node **logins;
	size_t login_count;
	struct table by_login;
	struct name_list admins, stats;
};

/* "a, b" to its names; empty ones are left out. */
void topo_read_names(struct topo *, const char *text, struct name_list *);
uint64_t topo_next_generation(void);
/* Takes over s; it lives as long as the snapshot. */
const char *topo_keep(struct topo *, char *s);
/* The database of exactly that name, or NULL. */
struct database_node *topo_database_node(const struct topo *, const char *name);
/* The login of that name, made when it is not there. */
struct login_node *topo_login_get(struct topo *, const char *name);

/* ---- words: what databases and logins are made of (words.c) ---- */

enum slot_kind { SLOT_STR, SLOT_NUMBER, SLOT_MODE, SLOT_FLAG };
/* Where a word goes. FLAG: a bool, true for the second word of the row. */
struct slot {
	const char *key;
	enum slot_kind kind;
	size_t offset; /* into what is being filled */
};
/* A database or a login being filled with words. */
struct words {
	struct topo *topo;
	struct conf_problems *problems;
	unsigned scope;   /* SC_DATABASE or SC_USER */
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

/* ---- sections ---- */

void databases_read(struct topo *, struct conf_problems *);
void logins_read(struct topo *, struct conf_problems *);
void peers_read(struct topo *, struct conf_problems *);

#endif
