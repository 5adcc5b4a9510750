/*
 * What the files of this room share: the hint, the arena that facts stand in, and the steps of
 * finding them.
 *
 *   scan -> verbs (tokens alone) -> or parse (libpg_query) -> classify -> walk -> match, shape
 */
#ifndef SQL_PRIVATE_H
#define SQL_PRIVATE_H
#include "sql.h"
#include "token.h"

/* ---- hint ---- */

/* Reads the body of a comment, if it is a hint; words of an earlier one stay unless said
 * again. *hint is made when it is NULL. */
bool sql_hint_read(const char *body, size_t len, struct sql_hint **hint);
void sql_hint_free(struct sql_hint *);

/* ---- text of tokens ---- */

/* A lexer over the statement. */
struct sql_lexer sql_lexer_of(const struct sql_scan *);
/* The value of a string token that stands at the lexer's text; NULL for a broken escape. */
char *sql_string_value(const struct sql_lexer *, const struct sql_token *);
/* The name that a WORD or QUOTED token says, folded as PostgreSQL folds it, cut to what a name
 * may have; NULL when it cannot be told. */
char *sql_name_value(const struct sql_lexer *, const struct sql_token *);

/* ---- a walk over the tokens of a statement ---- */

struct sql_walk {
	struct sql_lexer l;
	struct sql_token t;      /* the one to look at */
	struct sql_prepare *out; /* prepare.c's: what is read */
};

static inline void
sql_step(struct sql_walk *w)
{
	sql_lex(&w->l, &w->t);
}

static inline bool
sql_is_at(const struct sql_walk *w, const char *word)
{
	return (sql_token_is(&w->l, &w->t, word));
}

static inline bool
sql_is_mark(const struct sql_walk *w, const char *mark)
{
	return (sql_token_is_mark(&w->l, &w->t, mark));
}

static inline bool
sql_take(struct sql_walk *w, const char *word)
{
	bool is_it = sql_is_at(w, word);

	if (is_it)
		sql_step(w);
	return (is_it);
}

static inline bool
sql_take_mark(struct sql_walk *w, const char *mark)
{
	bool is_it = sql_is_mark(w, mark);

	if (is_it)
		sql_step(w);
	return (is_it);
}

/* ---- memory of one set of facts ---- */

struct sql_chunk;
struct sql_arena {
	struct sql_chunk *chunks;
	size_t used; /* of the first chunk */
	size_t bytes;
};
void *sql_arena_alloc(struct sql_arena *, size_t) MUST_USE;
void *sql_arena_dup(struct sql_arena *, const void *, size_t) MUST_USE;
const char *sql_arena_str(struct sql_arena *, const char *) MUST_USE;
void sql_arena_free(struct sql_arena *);

/* ---- texts that differ in the values of literals alone ---- */

/* What a text is made of, to know others like it without cutting them into tokens:
 *
 *     select x from t where id = 5 and y = 'a'
 *     |--------- piece ---------| |-- piece -| |
 */
struct sql_pattern {
	struct sql_piece *pieces; /* one before each literal; owned */
	unsigned count;           /* of literals */
	unsigned param_max;
	uint32_t prefix; /* a hash of what stands in front of the first literal */
	char verb[24];
};
/* False: such texts are not to be known that way. */
bool sql_pattern_make(const struct sql_scan *, struct sql_pattern *out);
size_t sql_pattern_bytes(const struct sql_pattern *);
void sql_pattern_free(struct sql_pattern *);
uint32_t sql_pattern_prefix(const char *text, size_t len);
/* Whether `text` is one like the pattern's (model, of model_len bytes) with nothing behind it
 * but a semicolon; then *out (it may be NULL) is what sql_scan() would make of it, but for its
 * digest. */
bool sql_pattern_matches(const struct sql_pattern *, const char *model,
    uint32_t model_len, const char *text, size_t len, struct sql_scan *out);

/* ---- long statements, made short for the parser ---- */

struct sql_fold;
/* NULL: it is not too long, or cannot be made short enough. */
struct sql_fold *sql_fold_make(const struct sql_scan *);
void sql_fold_free(struct sql_fold *);
const char *sql_fold_text(const struct sql_fold *, size_t *len);
/* From the values of the short text to those of the scan; false: they cannot be told. */
bool sql_fold_undo(const struct sql_fold *, const struct sql_scan *, struct sql_arena *,
    struct sql_match *);

/* ---- facts ---- */

/* Finds the facts of a statement: never fails; what is not understood is SQL_UNKNOWN. */
void sql_facts_find(const struct sql_scan *, struct sql_arena *, struct sql_facts *out);
/* Transaction verbs, SET, SHOW, RESET and EXPLAIN (ROUTE), from tokens, however long the
 * statement is. False: none of them; out is untouched. */
bool sql_verbs_find(const struct sql_scan *, struct sql_arena *, struct sql_facts *out);

/* A function of pg_catalog. */
enum sql_effect {
	SQL_EFFECT_READ,
	SQL_EFFECT_VOLATILE, /* as good as a read, but not for a replica */
	SQL_EFFECT_SESSION,
	SQL_EFFECT_WRITE
};
enum sql_function_kind {
	SQL_FUNCTION_F, /* other */
	SQL_FUNCTION_S, /* set-returning */
	SQL_FUNCTION_A, /* aggregate */
	SQL_FUNCTION_W  /* window */
};
struct sql_function {
	const char *name;
	enum sql_effect effect;
	enum sql_function_kind kind;
};
/* NULL: pg_catalog has no function of that name. */
const struct sql_function *sql_function_find(const char *name);

#endif
