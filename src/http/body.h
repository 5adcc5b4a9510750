/*
 * What comes in the body of a request: JSON, and the statements in it with their parameters.
 * All of it is outside bytes; nothing here has a socket.
 */
#ifndef HTTP_BODY_H
#define HTTP_BODY_H
#include "base.h"
#include <jansson.h>

#define BODY_PARAMS_MAX 65535 /* of one statement; PostgreSQL's limit */
#define BODY_NAMES_MAX  1000  /* of one field */

/* Why a request is refused. */
struct refusal {
	char sqlstate[6], message[512];
};
#define F_BODY F_CONF_VALUE /* what the functions here answer with a refusal */

/* Fills it in; answers F_BODY. */
int body_refuse(struct refusal *, const char *sqlstate, const char *fmt, ...)
    PRINTF(3, 4);

/* A JSON object; the caller json_decref()s it. 0, or F_BODY and why. */
int body_parse(const char *p, size_t len, json_t **out, struct refusal *) MUST_USE;
/* 0 when the object has no field but these (NULL ends them). */
int body_only(const json_t *, const char *const *fields, struct refusal *) MUST_USE;
/* The text of a field: NULL when it is not there and not needed. */
int body_text(const json_t *, const char *field, bool is_needed, const char **out,
    struct refusal *) MUST_USE;
/* The texts of a field that is an array of names, none twice, joined by commas; NULL when it
 * is not there. The caller frees it. */
int body_names(const json_t *, const char *field, char **out, struct refusal *) MUST_USE;

/* A statement with its parameters as text. */
struct statement {
	char *sql;     /* with $n for each :name */
	char **params; /* NULL: null */
	char **arrays; /* NULL: no parameter is an array; else of each that is one, how
			  PostgreSQL reads it, beside its JSON */
	unsigned count;
};
/* The fields "query" and "params" of the object; what stands before the field's name in a
 * refusal is said by `where` ("queries[2]."; ""). */
int body_statement(
    const json_t *, const char *where, struct statement *out, struct refusal *) MUST_USE;
void body_statement_free(struct statement *);

/*
 * Replaces each :name of sql outside of strings, quoted names, comments and casts by $n, in the
 * order in which the names first appear. names: gets the names, NUL after NUL; the count.
 * F_BODY: it has $n too, or too many names.
 */
int names_to_numbers(const char *sql, struct buf *out, struct buf *names, unsigned *count,
    struct refusal *) MUST_USE;

#endif
