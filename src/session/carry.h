/*
 * session/carry.h: what a session of a plain database carries from link to link where links
 * are shared, and what pins it to one; for the session room's own files.
 *
 *   carry.c  settings: seen in what is sent, told by the server afterwards
 *   ask.c    the question to the server
 *   pins.c   temporary tables, cursors WITH HOLD, advisory locks …
 *   sequences.c  currval() and lastval()
 *
 * A statement that may leave something is noted when it is sent (sql_leaves()), or by its tag.
 * When the link is at rest after such a one, and before it is given back, the server is asked
 * what is so now: this is right whatever was rolled back, and whoever has set it. Only the
 * effect of a SET that stands alone is known without asking.
 *
 * RESET goes back to what the client asked for when it connected, which a link has by SET: so
 * SETs of these follow a RESET in the same string or batch, where their answers are swallowed.
 */
#ifndef SESSION_CARRY_H
#define SESSION_CARRY_H
#include "prepare.h"

#define CARRY_PINS                                                                       \
	(SQL_LEAVES_TABLE | SQL_LEAVES_CURSOR | SQL_LEAVES_LOCK | SQL_LEAVES_LISTENER |  \
	    SQL_LEAVES_SEED | SQL_LEAVES_UNNAMED | SQL_LEAVES_SEQUENCE)
/* Whether they are still there can be asked. */
#define CARRY_ASKED                                                                      \
	(SQL_LEAVES_TABLE | SQL_LEAVES_CURSOR | SQL_LEAVES_LOCK | SQL_LEAVES_LISTENER)

/* Portals or statements, and what they reset. */
struct carry_names {
	struct carry_name {
		char *name;
		char *reset; /* a setting; or NULL */
	} * all;
	unsigned count;
};

struct carry {
	struct vars
	    *tracked;     /* its VARS_STARTUP members are the session's; NULL: those of
				 s->startup */
	unsigned touched; /* since the link was at rest */
	unsigned asks, found; /* what the server is being asked, and has said so far */
	struct vars *asked;   /* the settings of its answer so far */
	bool is_asking, has_failed;
	bool holds_reports; /* ParameterStatus is not the client's until ReadyForQuery */
	bool is_discarded;  /* by an Execute whose SETs are not committed yet */
	bool must_restore;  /* they are undone */
	struct carry_names portals; /* bound to a statement that leaves something */
	/* pool_mode = session: statements that reset something which the client asked for. */
	struct carry_names later;
	unsigned shown; /* rows of SHOW that have come */
	char *timeout;  /* the session's statement_timeout, of the first of them */
	char *set_name,
	    *set_value; /* all that was set, unless it failed; value NULL: RESET */
	struct buf
	    names; /* of the settings with a dot that were touched, each with a NUL */
	struct pins pins;
};

/* Whether what a statement leaves must travel with the session. */
static inline bool
session_carries(const struct session *s)
{
	return (s->mode != POOL_SESSION && s->weave == NULL);
}

/* ---- carry.c ---- */

/* Of a text that Parse has brought; SQL_LEAVES_VIEW among them. */
unsigned carry_leaves(const char *sql, size_t len);
/* A look at a query string: bits of enum sql_look, or -1: more must be seen. */
int carry_look(const char *sql, size_t have, size_t len);
/* The whole string, before it is sent. *restores: a RESET is in it that needs SETs behind it.
 * UP_PASS: go on; UP_GO_ON: it is refused, the message is the caller's to drop. */
enum up_verdict carry_query(struct up *, const char *sql, size_t len, bool *restores);
/* A SET for each setting that the client asked for when it connected. name: of one, "all" or
 * CARRY_DISCARD. False: there is none. each may be NULL. */
#define CARRY_DISCARD "discard all"
typedef void carry_set(void *arg, const char *sql);
bool carry_restore(const struct session *, const char *name, carry_set *each, void *arg);
/* The statement runs, by EXECUTE; is_first: of what is sent now. False: it is refused. */
bool carry_run(
    struct session *, const struct stmt *, bool is_first, struct refusal *) MUST_USE;
/* Bind of a statement (NULL: not known) that leaves something, or while another such one is
 * bound. UP_PASS: go on. */
enum up_verdict carry_bind(
    struct up *, const struct stmt *, const char *portal, uint32_t size);
/* Execute. UP_PASS: of another portal. */
enum up_verdict carry_execute(struct up *, uint32_t size);
/* Parse, where nobody looks at Bind and Execute. UP_PASS: go on. */
enum up_verdict carry_parse(struct up *, uint32_t size);
/* The same, and Bind, of a client that has its link for itself. UP_PASS: go on. */
enum up_verdict carry_parse_own(struct up *, uint32_t size);
enum up_verdict carry_bind_own(struct up *, uint32_t size);
/* A tag that nobody expected. */
void carry_tag(struct session *, const struct request *, const char *tag);
/* DISCARD ALL is done. */
void carry_discarded(struct session *);
/* Before ReadyForQuery, when holds_reports: what the client has to know of its parameters. */
void carry_report(struct session *);
/* The link is at rest: true when the session keeps it, since it is pinned or something is being
 * asked. */
bool carry_rest(struct session *);
/* Whether the session can go on without the link: what it has set is known, or was not yet
 * done. */
bool carry_may_lose(const struct carry *);
/* The link goes away with what the session has left there. */
void carry_taint(struct session *, struct link *);
void carry_free(struct session *);

/* The link has these and no others; so has the session. */
void carry_settings_are(struct session *, struct link *, struct vars *now);

/* ---- ask.c ---- */

/* Bits of enum sql_leaves: what the server is asked about; it is known when the link goes on. */
void carry_ask(struct session *, unsigned asks);
/* The value of a row at *at, which goes behind it; the caller frees it. NULL: there is none. */
char *ask_value(const uint8_t *row, size_t len, size_t *at) MUST_USE;

/* ---- sequences.c ---- */

/* The session is about to leave the link, which it has used. */
void sequences_left(struct session *, struct link *);
/* The session is about to ask for a link: the one of its stay is kept for it, if it is idle. */
void sequences_keep(struct session *);
/* Appends what cleans the session's link of other values, when others may not answer here. */
bool sequences_clean(struct session *, struct buf *sql);
#define SEQUENCES_UNKNOWN                                                                \
	"currval() and lastval() are not known on this server connection"
#define SEQUENCES_HINT                                                                   \
	"Use INSERT ... RETURNING, ask in the transaction that draws from the "          \
	"sequence, or use a database with pool_mode = session."
enum sequences_go {
	SEQUENCES_RUN,    /* and it holds the session to its link */
	SEQUENCES_WITHIN, /* the same transaction: it does not */
	SEQUENCES_WAIT,   /* the message comes again */
	SEQUENCES_REFUSE
};
/* Before what calls currval() or lastval(), now or later in this batch: the session has the link
 * of its stay, if it can. False: the message waits. */
bool sequences_prefer(struct up *);
/* Such a statement is to run now. */
enum sequences_go sequences_check(const struct session *, struct refusal *);
/* Both. */
enum sequences_go sequences_may(struct up *, struct refusal *);

/* ---- pins.c ---- */

/* The statement may pin the session. */
void pins_note(struct pins *, unsigned leaves, const char *sql, size_t len);
/* Whether the login or database may not have it: then the refusal is made. */
bool pin_refuses(const struct session *, unsigned leaves, struct refusal *);
/* The refusal; false: none of these pins. */
bool pin_refuse(unsigned leaves, const char *hint, struct refusal *);
/* These, of those asked about, are what holds the session to that seat's link now. */
void pins_set(struct pins *, struct seat *, unsigned asked, unsigned found);
void pin_set(struct session *, unsigned asked, unsigned found);
/* The statement that was noted. */
void pins_forget(struct pins *);
void pins_free(struct pins *);
/* The part of a query that asks about them: rows of 'p' and a name. */
extern const char pin_question[];
/* The bit of a row's name. */
unsigned pin_of_row(const char *name);

#endif
