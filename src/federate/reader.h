/*
 * Rows in what a client sends for COPY … FROM STDIN: where each ends, and the value of one column,
 * read as PostgreSQL reads them. Bytes may come in pieces of any size; of a row nothing is kept
 * but the value.
 *
 *   "1\tabc\n2\td…"  ->  KEY "1", ROW, KEY "2", …
 */
#ifndef FEDERATE_READER_H
#define FEDERATE_READER_H
#include "sql.h"

enum reader_said {
	READER_MORE,   /* all bytes were read, and what is under way goes on */
	READER_HEADER, /* the header ends with these bytes */
	READER_KEY,    /* the value is known; its row goes on behind these bytes */
	READER_ROW,    /* the row ends with these bytes; its value was told */
	READER_END,    /* these bytes are no row, but the mark of the end */
	READER_BAD     /* message says why */
};

struct reader_spec {
	enum sql_copy_format format;
	bool has_header;
	char delimiter, quote, escape;
	const char *null, *dflt;           /* dflt NULL: nothing stands for the default */
	unsigned key_at;                   /* place of the column in a row, from 0 */
	bool forces_null, forces_not_null; /* of that column */
	/* "\." alone on a line ends CSV too: before PostgreSQL 18. */
	bool csv_has_mark;
	const char *key; /* its name, for messages */
};

/* Its owner zeroes it, and sets spec, whose strings must stay valid. */
struct reader {
	struct reader_spec spec;
	uint64_t line; /* of what is under way, from 1; binary: number of the row */
	/* READER_KEY: the value, until the next call. */
	const uint8_t *value;
	size_t value_len;
	bool is_null, is_default;
	/* READER_BAD: */
	char message[192];
	const char *hint; /* NULL: none */
	/* Its own: */
	struct buf raw, plain; /* the column's bytes as they came; what they mean */
	bool special[256];     /* bytes that may be more than themselves */
	bool is_begun, is_over;
	bool is_header;
	enum { EOL_UNKNOWN, EOL_NL, EOL_CR, EOL_CRNL } eol;
	uint64_t row_bytes; /* of the line so far */
	uint8_t first[2];
	unsigned field;
	unsigned hex_left;
	bool is_told; /* the value of this row */
	bool is_in_quotes, was_escape, is_escaped, is_after_cr, is_mark;
	/* binary */
	enum { BIN_SIGNATURE, BIN_EXTENSION, BIN_COUNT, BIN_LENGTH, BIN_VALUE } state;
	uint64_t left; /* bytes to come of what is under way */
	uint32_t number;
	unsigned fields;
};

/* Reads on: answers how many of the bytes belong to what it says; the others come again. */
size_t reader_read(struct reader *, const uint8_t *p, size_t len, enum reader_said *);
/* No more bytes come. Call it until it says END, or BAD. */
enum reader_said reader_finish(struct reader *);
void reader_free(struct reader *);

#endif
