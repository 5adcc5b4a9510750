/*
 * What the files of the room share: the work on one plan.
 *
 *   plan.c     the order of the decision; settings that were said, at which level
 *   tables.c   each table's member, and whether they agree
 *   shard.c    values of shard keys to members
 *   split.c    rows of one INSERT or COPY that belong to several members
 *   value.c    what a statement or a parameter gives, as a value of the key's type
 *   number.c   the numbers among them
 *   keys.c     what a key may reach, and the refusal when it may not
 *   node.c     from a member to the database that is asked: fallback, health, replicas
 *   setting.c  the values that the settings take
 *   explain.c  a plan in words
 *   known.c    what the databases' catalogs add
 */
#ifndef ROUTE_PRIVATE_H
#define ROUTE_PRIVATE_H
#include "route.h"

#include <string.h>

#define LEVELS (ROUTE_BY_DBNAME + 1)

/* A table of the statement, and what is said of it. */
struct route_place {
	const struct topo_database *member; /* NULL: spread, see shard */
	const struct topo_shard *shard;     /* NULL: in one database */
	const struct topo_route *route;     /* of ROUTE_BY_TABLE */
	enum route_rule rule;
	bool is_counted; /* not a table of the system */
	/* Of a view whose place is that of the tables below it: */
	const struct catalog_relation *view, *base; /* base: one that is not spread */
	const struct topo_database *also; /* of base, beside shard; NULL: there is none */
	bool hides_key; /* the shard's key is no column of it as it is in its table */
	bool is_mixed;  /* the tables are in several places */
};

enum route_read_from { READ_FROM_AUTO, READ_FROM_PRIMARY, READ_FROM_REPLICA };

struct route_work {
	const struct route_input *in;
	struct route_plan *out;
	struct route_said hint, dbname;
	const struct route_said *said[LEVELS]; /* NULL: nothing at that level */
	/* Where statements go that nothing else places; NULL: the key has no such member. */
	const struct topo_database *home;
	enum route_rule home_rule;
	/* A client or database key's only member; NULL: not bound to one. */
	const struct topo_database *own;
	enum route_read_from read_from;
	bool
	    is_plain_read; /* fit for a replica of the member that is being planned for */
	bool is_pinned;    /* by ROUTE_BY_PIN: to the primary itself */
	/* What was said for the tables beside a pinned one; NULL: nothing. */
	const struct topo_database *beside;
	enum route_rule beside_rule;
	bool skips;            /* on_unavailable = skip */
	bool reads_values;     /* the plan hangs on values in the statement */
	const char *shard_key; /* the setting; NULL: not said */
};

/* The members of a federated statement. */
struct route_members {
	const struct topo_database *at[ROUTE_LEGS_MAX];
	unsigned count;
};

/* ---- words (setting.c) ---- */

/* Bounded, always ended with NUL. append: behind what is there. */
void route_put(char *to, size_t size, const char *fmt, ...) PRINTF(3, 4);
void route_append(char *to, size_t size, const char *fmt, ...) PRINTF(3, 4);
/* "schema.name", as far as it fits. */
const char *route_table_name(const struct sql_table *, char *to, size_t size);

/* "" and auto: left to the rules below. */
bool route_is_auto(const char *value);
int route_federation_of(const char *value); /* -1: neither merge nor tag */
int route_skips_of(const char *value);      /* -1: neither error nor skip */
int route_read_from_of(const char *value);  /* -1: none of them */
bool route_is_blank(char);

struct route_problem {
	char *sqlstate, *message, *detail;
	size_t message_len, detail_len;
};
/* The members that `databases` names, in order. */
bool route_list(const struct topo_virtual *, const struct topo_key *, const char *value,
    struct route_members *out, struct route_problem *why) MUST_USE;
/* The member that `database` names. */
const struct topo_database *route_named(const struct topo_virtual *,
    const struct topo_key *, const char *value, struct route_problem *why) MUST_USE;
void route_bad_value(struct route_problem *, const char *setting, const char *value);

/* ---- values of shard keys (number.c, value.c) ---- */

enum route_read {
	ROUTE_VALUE,
	ROUTE_NO_VALUE,    /* not one of the key's type */
	ROUTE_NO_INTEGER,  /* a number equal to no integer: 3.5, NaN */
	ROUTE_INTEGERS,    /* a float equal to several of them */
	ROUTE_OUT_OF_RANGE /* beyond those of bigint */
};
/* What a number in any form is as an integer, also as 3.00 or 3e0; an enum route_read. */
int route_integer(const char *text, size_t len, bool is_negative, int64_t *out);
/* The same of a parameter that is not NULL. */
int route_datum_integer(const struct route_datum *, int64_t *out);

struct route_value {
	struct topo_shard_value v;
	uint8_t room[24]; /* what v may point to */
};
/* A text (a literal in quotes, a setting), a number without quotes, and a parameter that is not
 * NULL, as values of the shard's key; an enum route_read. They may point into what was given. */
int route_value_text(
    const struct topo_shard *, const char *text, size_t len, struct route_value *out);
int route_value_number(const struct topo_shard *, const char *text, size_t len,
    bool is_negative, struct route_value *out);
int route_value_datum(
    const struct topo_shard *, const struct route_datum *, struct route_value *out);
/* The value that an integer is to the key; false: it is none of its type. */
bool route_value_integer(const struct topo_shard *, int64_t, struct route_value *out);
/* Whether its bytes can be shown as they are. */
bool route_is_text(const struct route_datum *);
/* "an integer", "a uuid": what values of the key must be. */
const char *route_value_kind(const struct topo_shard *);

/* ---- notes and refusals (plan.c) ---- */

/* A rule spoke: it has lost unless it is the plan's in the end. */
void route_spoke(struct route_work *, enum route_rule, const char *fmt, ...) PRINTF(3, 4);
/* Why it did not. */
void route_silent(struct route_work *, enum route_rule, const char *why);
/* False, so that a caller can return it. Detail and hint are put afterwards. */
bool route_refuse(struct route_work *, const char *sqlstate, const char *fmt, ...)
    PRINTF(3, 4);
void route_detail(struct route_work *, const char *fmt, ...) PRINTF(2, 3);
void route_hint(struct route_work *, const char *fmt, ...) PRINTF(2, 3);
struct route_problem route_problem_of(struct route_plan *);
bool route_one(struct route_work *, const struct topo_database *, enum route_rule);
bool route_many(struct route_work *, struct route_members *, enum route_rule);
/* Sets up all but `out`'s decision; false: refused already. */
bool route_work_begin(
    struct route_work *, const struct route_input *, struct route_plan *);

/* ---- keys (keys.c) ---- */

const struct topo_database *route_own(
    const struct topo_virtual *, const struct topo_key *);
const struct topo_database *route_home(const struct topo_virtual *,
    const struct topo_key *, const struct topo_database *own, enum route_rule *rule);
/* A database key whose user id has no shard: it may go nowhere. */
bool route_is_lost(const struct topo_virtual *, const struct topo_key *);
void route_deny_lost(const struct topo_key *, struct route_problem *why);
/* Whether statements of the key may go to that member alone. */
bool route_may(const struct topo_key *, const struct topo_database *own,
    const struct topo_database *member);
/* 'key "vb_…" may not use database "x"', into a problem; the detail is the caller's. */
void route_deny(const struct topo_key *, const struct topo_database *own,
    const struct topo_database *member, struct route_problem *why);
/* 'key "vb_…"', or 'login "x"' for the rules of a login. */
const char *route_key_name(const struct topo_key *, char *to, size_t size);
bool route_denied(struct route_work *, const struct topo_database *, const char *fmt, ...)
    PRINTF(3, 4);

/* ---- what the statement is (statement.c) ---- */

/* It writes, or may: nothing for replicas and read-only databases. */
bool route_may_write(const struct route_input *);
/* It reads rows and does nothing else. */
bool route_is_read(const struct route_input *);
/* It is about the session or its transaction: one database is enough, whatever is said. */
bool route_is_of_session(const struct route_input *);
/* "INSERT": what in it writes, or its first word, for messages; maybe put to `to`. */
const char *route_verb(const struct route_input *, char to[24]);
const char *route_class_name(enum sql_class);

/* ---- tables and shards ---- */

void route_place(
    const struct route_work *, const struct sql_table *, struct route_place *out);
/* What is said of a table by its name, or nothing: then it is at home. */
void route_place_named(
    const struct route_work *, const struct sql_table *, struct route_place *out);
/* The statement makes the table, and nothing is said of it: it is where the others are. */
bool route_follows(const struct sql_table *, const struct route_place *);
/* The members that the tables name, and the decision from it. */
bool route_by_tables(struct route_work *);
/* Where the session has it as a temporary table; or NULL. */
const struct topo_database *route_pinned(
    const struct route_work *, const struct sql_table *);
/* For EXPLAIN, when a stronger rule decides: what the tables would have said. */
void route_note_tables(struct route_work *);

/* ---- what catalogs know (known.c) ---- */

/* Whether it is the shard's key that the match is about. */
bool route_says_key(const struct route_work *, const struct topo_shard *,
    const struct sql_table *, const struct sql_match *);
/* Calls a function, or reads a view that calls one, that may write as far as is known. */
bool route_calls_writer(const struct route_work *, const struct topo_database *member);
/* False: no view, or none that can be placed. */
bool route_place_view(
    const struct route_work *, const struct sql_table *, struct route_place *out);
bool route_refuse_view(
    struct route_work *, const struct sql_table *, const struct route_place *);
bool route_refuse_unmerged_view(struct route_work *, const struct sql_table *);

enum route_spread { SPREAD_ONE, SPREAD_MANY, SPREAD_SPLIT, SPREAD_REFUSED };
/* What the tables of one shard group say: one member (with its rule), or several. */
enum route_spread route_by_shard(struct route_work *, const struct topo_shard *,
    const struct route_place *places, const struct topo_database **one,
    enum route_rule *rule, struct route_members *many);

/* Whether the key may write on these shards; false: the refusal is set. */
bool route_may_all(struct route_work *, const struct topo_shard *, uint64_t set,
    const struct sql_table *);
/* Whether the rows of the statement can go each to its member: then SPREAD_SPLIT, or REFUSED;
 * SPREAD_ONE: they cannot. set: the shards of an INSERT's rows, 0 for COPY. */
enum route_spread route_spread_split(struct route_work *, const struct topo_shard *,
    const struct sql_table *, uint64_t set, struct route_members *many);
/* The legs of these members; false: refused. */
bool route_split_legs(struct route_work *, const struct route_members *);
/* The shards of the values of one row, one bit each; 0: none. */
uint64_t route_set_of_value(struct route_work *, const struct topo_shard *,
    const struct sql_table *, const struct sql_match *, unsigned i);
uint64_t route_set_of_all(const struct topo_shard *);
/* The database of a member for a statement that writes; false: refused. */
bool route_write_node(struct route_work *, const struct topo_database *member,
    const struct topo_database **node);

/* ---- nodes (node.c) ---- */

/* The node for a statement on one member; false: refused. */
bool route_node(
    struct route_work *, const struct topo_database *, const struct topo_database **node);
/* The node of a leg, or NULL when it is down. */
const struct topo_database *route_leg_node(
    struct route_work *, const struct topo_database *member);
/* What answers for a member that is down, by fallback_on_down; or NULL. */
const struct topo_database *route_leg_fallback(
    struct route_work *, const struct topo_database *member);
/* "is down", "is draining", "is in maintenance". */
const char *route_down_word(const struct topo_database *);
/* 57P03 for that database, with what health knows of it. */
bool route_refuse_down(struct route_work *, const struct topo_database *);

#endif
