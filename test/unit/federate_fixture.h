/*
 * For the tests of federate: legs are socket pairs, whose other ends are servers that say what
 * the test writes.
 *
 *   test -> ends[i] =socketpair= links[i] -> federation -> out(): decoded to one line of text
 */
#ifndef FEDERATE_FIXTURE_H
#define FEDERATE_FIXTURE_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "federate.h"
#include "proto.h"

#define LEGS 3

extern struct worker *w;
extern struct link *links[LEGS];
extern int ends[LEGS];
extern bool is_closed[LEGS];
extern struct federation *fed;

/* What a federation has said. */
extern struct told {
	struct buf bytes;
	bool is_full, is_done;
	bool aborts;     /* when it is told something, closing the links */
	bool owes[LEGS]; /* the links, then */
	unsigned calls, lost;
	struct federate_outcome outcome;
	char sqlstate[6], message[256], detail[256], hint[256];
} client;

int group_setup(void **state);
int group_teardown(void **state);
/* Of one test. */
int setup(void **state);
int teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* So many turns of the loop. */
void turn(int count);
/* Forgets what the client was told, and asks the first legs. What the order leaves out is
 * filled in. */
void start(unsigned legs, struct federate_order *);
void start_simple(unsigned legs, enum route_federation how);
/* The i-th server says it all; frees it. */
void say(unsigned i, struct buf *);
/* As much as the socket takes from `at`; where it came to. */
size_t say_some(unsigned i, const struct buf *, size_t at);
/* Appends messages: a row of one column, CommandComplete and ReadyForQuery, ParseComplete and
 * BindComplete. */
void row(struct buf *, const char *value);
void end(struct buf *, const char *tag);
void begin_extended(struct buf *);
/* The whole answer to a simple query: rows of one column, NULL-terminated. */
void answer_rows(unsigned i, const struct proto_column *, const char *tag, ...);
/* An error and ReadyForQuery. */
void fails(unsigned i, const char *sqlstate, const char *detail);
/* The types of the messages that the server has got since it was asked last. */
const char *asked(unsigned i);
/* All that the client got, which are whole messages: "T(a:23) D(1) C(SELECT 1)". */
const char *seen(void);
/* It has ended in this error. detail NULL: whatever. */
void assert_refused(const char *sqlstate, const char *message, const char *detail);

#endif
