/*
 * The tokens of SQL, as PostgreSQL's scanner cuts them (standard_conforming_strings on), with
 * the number forms of version 16. Blanks and comments lie between tokens.
 */
#ifndef SQL_TOKEN_H
#define SQL_TOKEN_H
#include "sql.h"

enum sql_token_kind {
	SQL_TOKEN_END,
	SQL_TOKEN_WORD,   /* a keyword or identifier without quotes */
	SQL_TOKEN_QUOTED, /* "…", U&"…" */
	SQL_TOKEN_STRING, /* '…', E'…', U&'…', $$…$$; continued strings are one */
	SQL_TOKEN_BITS,   /* B'…', X'…' */
	SQL_TOKEN_NUMBER,
	SQL_TOKEN_PARAM,
	SQL_TOKEN_OP,    /* one operator */
	SQL_TOKEN_PUNCT, /* ( ) [ ] , ; . : :: := .. */
	SQL_TOKEN_RUBBISH
};

/* at and end do not stand side by side: the compiler would read both at once, right after they
 * were written one by one, which processors are slow at. */
struct sql_token {
	enum sql_token_kind kind;
	uint32_t at;
	/* A number or parameter that runs into a word; the N of N'…'. Not the same as with a
	 * blank between. */
	bool is_glued;
	uint32_t end;
};

struct sql_lexer {
	const char *text;
	uint32_t len, at;
	bool is_cut; /* the text ended inside of a quote or comment */
};

/* Lower case of ASCII; other bytes as they are. */
extern const uint8_t sql_lower[256];

/* The next token; END at the end, again and again. */
void sql_lex(struct sql_lexer *, struct sql_token *);
/* Skips blanks alone. */
void sql_lex_spaces(struct sql_lexer *);
/* Skips one comment, or answers false where none begins. *body, *body_end: what stands
 * between its marks. */
bool sql_lex_comment(struct sql_lexer *, uint32_t *body, uint32_t *body_end);
/* Skips blanks and comments. */
void sql_lex_blanks(struct sql_lexer *);

/* How many bytes stand in front of the first that may begin a string or a number, or be the
 * statement's semicolon; len at most. Cheap, and not exact: a comment or a quoted name may have
 * one in it. */
size_t sql_lex_before_literal(const char *text, size_t len);
/* Whether what follows the byte cannot change the token that ends with it, but for more bytes
 * of an operator. */
bool sql_lex_is_boundary(char);

/* Whether the token is this word (given in lower case), without quotes. */
bool sql_token_is(const struct sql_lexer *, const struct sql_token *, const char *word);
/* Whether it is this punctuation or operator. */
bool sql_token_is_mark(
    const struct sql_lexer *, const struct sql_token *, const char *mark);

#endif
