/*
 * A client of the proxy inside the process: speaks PostgreSQL's protocol on the socket pair of
 * session_open_inner(), on the side thread, never blocking.
 *
 * Statements are sent as they are asked, each with its own end (Sync), and answered in that
 * order; what is asked before the greeting waits for it. Its owner asks right after opening it
 * and in the end() of what it has asked; one that has nothing more to ask closes it.
 */
#ifndef HTTP_INNER_H
#define HTTP_INNER_H
#include "net.h"

struct inner;

struct inner_column {
	const char *name;
	uint32_t type; /* OID */
};
struct inner_value {
	const char *p; /* not terminated; NULL: null */
	size_t len;
};
/* What an ErrorResponse or a notice says; "" where it says nothing. */
struct inner_message {
	const char *severity, *sqlstate, *message, *detail, *hint;
};
struct inner_end {
	bool ok;
	char status;     /* of the transaction: I, T, E; 0: the connection is lost */
	const char *tag; /* ok: "UPDATE 3" */
	struct inner_message error; /* not ok */
};
/* Who reads what a statement answers; all but end may be NULL. Strings are valid during the
 * call. Each may close the client. */
struct inner_reader {
	void (*columns)(void *arg, const struct inner_column *, unsigned count);
	void (*row)(void *arg, const struct inner_value *, unsigned count);
	void (*notice)(void *arg, const struct inner_message *);
	/* Once. With status 0 nothing more can be asked. */
	void (*end)(void *arg, const struct inner_end *);
};

/* NULL: no descriptors left. max_message: longer ones end the client (54000). */
struct inner *inner_open(struct worker *, const char *login, const char *database,
    const struct addr *peer, size_t max_message);
/* Text parameters. arrays (or NULL): of some, what goes to the server unless it takes them for
 * JSON. All stay until the end. */
struct inner_params {
	const char *const *texts, *const *arrays;
	unsigned count;
};
/* One statement with parameters (extended protocol). With arrays, what is asked behind it must
 * have none. */
void inner_ask(struct inner *, const char *sql, const struct inner_params *,
    const struct inner_reader *, void *arg);
/* One without (simple protocol). */
void inner_say(struct inner *, const char *sql, const struct inner_reader *, void *arg);
/* At any time, once: what runs is cancelled, nobody is called any more. NULL is allowed. */
void inner_close(struct inner *);

#endif
