/*
 * rows: a result as a stream of rows, whoever makes or reads it: console views, HTTP,
 * federation. The path of an ordinary query does not use it: bytes go stream to stream.
 */
#ifndef ROWS_H
#define ROWS_H
#include "base.h"

enum rows_type {
	ROWS_TEXT,
	ROWS_INT4,
	ROWS_INT8,
	ROWS_FLOAT8,
	ROWS_BOOL,
	ROWS_TIMESTAMPTZ,
	ROWS_NUMERIC
};

struct rows_column {
	const char *name;
	enum rows_type type;
};

/* Reads a result: begin, any number of put, then end; or fail at any point. After end or
 * fail the sink is not touched again by the maker. */
struct rows_sink {
	const struct rows_sink_ops *ops;
};
struct rows_sink_ops {
	/* The columns must stay valid until end or fail. */
	void (*begin)(struct rows_sink *, const struct rows_column *, unsigned count);
	/* Values as text, as PostgreSQL writes the type; NULL is SQL NULL. Copied. */
	void (*put)(struct rows_sink *, const char *const *values);
	/* tag: "SHOW", "RELOAD"…; "SELECT" gets the count of rows added. Without begin: a
	 * statement that answers no rows. */
	void (*end)(struct rows_sink *, const char *tag);
	/* detail and hint may be NULL. */
	void (*fail)(struct rows_sink *, const char *sqlstate, const char *message,
	    const char *detail, const char *hint);
	/* A notice on the way. May come at any time before end. detail may be NULL. */
	void (*notice)(struct rows_sink *, const char *message, const char *detail);
};

/* PostgreSQL's OID and size (-1: variable) of a type. */
uint32_t rows_type_oid(enum rows_type);
int16_t rows_type_size(enum rows_type);
/* The binary form of a value: appends it to out; F_NOT_FOUND when the text is not one. */
int rows_binary(enum rows_type, const char *text, struct buf *out) MUST_USE;

/* ---- rows kept in memory until all are there; {0} is an empty list ---- */

struct rows_list {
	struct buf
	    bytes;    /* per value a length (or that it is NULL), the text and a NUL */
	size_t count; /* rows */
};
/* Copies one row of `columns` values. */
void rows_list_add(struct rows_list *, const char *const *values, unsigned columns);
/* Puts every row, in the order in which they were added; begin and end are the caller's. */
void rows_list_play(const struct rows_list *, unsigned columns, struct rows_sink *);
void rows_list_free(struct rows_list *);

#endif
