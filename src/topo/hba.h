/* topo/hba.h: the files of rules and of names, for those who read them. */
#ifndef TOPO_HBA_H
#define TOPO_HBA_H
#include "inner.h"

#include <regex.h>
#include <string.h>

/* ---- hba_lines.c: a file to lines, fields and words, as PostgreSQL splits them ---- */

struct hba_word {
	const char *text;
	bool is_quoted; /* a keyword in quotes is none */
};
/* Words that commas join. */
struct hba_field {
	struct hba_word *words;
	size_t count;
};
struct hba_line {
	struct hba_field *fields;
	size_t count;
	struct conf_at at;
};
struct hba_lines {
	struct hba_line *lines;
	size_t count;
};
/* Reads the file with what it includes; texts are kept by the snapshot. */
void hba_lines_read(struct topo *, const char *path, struct conf_at,
    struct conf_problems *, struct hba_lines *);
void hba_lines_free(struct hba_lines *);
/* The one word of the field; NULL: there are several, said. */
const struct hba_word *hba_only(
    const struct hba_line *, size_t field, const char *what, struct conf_problems *);
static inline bool
hba_is(const struct hba_word *w, const char *keyword)
{
	return (!w->is_quoted && strcmp(w->text, keyword) == 0);
}

/* ---- hba_names.c: what stands for names ---- */

enum hba_name_kind { HBA_NAME, HBA_ALL, HBA_SAMEUSER, HBA_REPLICATION, HBA_REGEX };
struct hba_name {
	enum hba_name_kind kind;
	const char *text;
	regex_t regex; /* of HBA_REGEX */
};
struct hba_names {
	struct hba_name *list;
	size_t count;
};
/* Reads a list of databases, or of users. False: it is wrong, said. */
bool hba_names_read(struct hba_names *, const struct hba_field *, bool of_databases,
    struct conf_at, struct conf_problems *);
void hba_names_free(struct hba_names *);
bool hba_names_have(const struct hba_names *, const char *name, const char *user);
bool hba_names_have_replication(const struct hba_names *);
/* An extended regular expression of POSIX; false: said. What PostgreSQL would take for something
 * else is refused. */
bool hba_regex(regex_t *, const char *text, struct conf_at, struct conf_problems *);
/* Whether it matches, and where: match[1] is its first group. */
bool hba_regex_has(const regex_t *, const char *text, regmatch_t match[2]);

/* ---- ident.c ---- */

struct ident_line {
	const char *map, *system, *login;
	bool is_system_regex, is_any_login, is_login_regex;
	regex_t system_regex, login_regex;
};
struct ident {
	struct ident_line *lines;
	size_t count;
};
void ident_read(struct topo *, struct ident *, const char *path, struct conf_at,
    struct conf_problems *);
void ident_free(struct ident *);
bool ident_has_map(const struct ident *, const char *map);
bool ident_maps(
    const struct ident *, const char *map, const char *name, const char *login);

/* ---- hba.c ---- */

struct hba_network {
	uint8_t family; /* AF_INET, AF_INET6 */
	uint8_t addr[16], mask[16];
};
struct hba_rule {
	struct topo_rule rule;
	enum { HBA_LOCAL, HBA_HOST, HBA_HOSTSSL, HBA_HOSTNOSSL } type;
	struct hba_names databases, users;
	bool is_any_address;
	struct hba_network *networks;
	size_t network_count;
};
struct hba {
	struct hba_rule *rules;
	size_t count;
	struct ident ident;
};

#endif
