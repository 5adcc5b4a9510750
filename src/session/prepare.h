/*
 * session/prepare.h: PREPARE, EXECUTE and DEALLOCATE as SQL where links are shared, for the
 * session room's own files.
 *
 *   prepare.c  what they mean for a session's names; the extended protocol
 *   script.c   simple queries: the string that the server gets instead, and its answers
 *   view.c     what reads pg_prepared_statements
 *
 * The session has one namespace for what Parse and PREPARE have made. A link has each
 * statement under the hash of its text, types, and the parameters that the text is read
 * under; the client's name stands for it in what is sent:
 *
 *   client   execute p (3)
 *   server   prepare pgw_… (int) as select …; execute pgw_… (3)
 *
 * where the first half is sent, and its tag swallowed, when the link lacks the statement, or
 * has it from before a definition that the client's PREPARE came after.
 *
 * All of it goes step by step: one of these statements is sent when everything before it has
 * been answered (a Flush helps), and what it does to names and links holds when its tag has
 * come; until then nothing else is sent. So nothing needs to be undone.
 */
#ifndef SESSION_PREPARE_H
#define SESSION_PREPARE_H
#include "weave.h"

/* ---- upstream.c ---- */

struct request *up_owe(struct up *, enum request_kind, enum request_act);
/* Bytes go to s->link from now on. */
void up_to_link(struct up *);
/* Room was made for statements on the link. */
void up_evict(struct up *);
void up_prepare(struct up *, const struct stmt *, const char *sql, enum request_act);
/* The link has it no more. */
void up_forget(struct up *, struct hash128 id);
/* The link has the statement as it is since then, or is told it now. now_us: what follows has
 * the server look at it; or 0. */
void up_ensure(struct up *, const struct stmt *, struct prepared_since, int64_t now_us);
/* The session's unnamed statement is gone. */
void up_drop_unnamed(struct up *);

/* ---- what is under way ---- */

/* One statement of what was sent. */
struct prep_step {
	enum {
		PREP_NONE,
		PREP_TELL,   /* the link has it */
		PREP_FORGET, /* and has not */
		PREP_MAKE,   /* both the link and the client's name have it */
		PREP_DROP,   /* and have not */
		PREP_DROP_ALL,
		PREP_LISTEN /* nothing here: see listen.h */
	} does;
	bool is_ours;      /* its tag is not the client's */
	bool is_unlisten;  /* its tag is to be UNLISTEN */
	bool listens;      /* it waits until the hub listens to its name */
	bool runs;         /* EXECUTE of a statement of PREPARE */
	struct stmt *stmt; /* held; NULL: none */
	struct hash128 id;
	char *name; /* the client's; NULL: none */
};

/* What the server got at `at` (in characters) is that long instead of `was`. */
struct prep_edit {
	uint32_t at, is, was;
};

struct prep {
	bool is_batch;    /* of the extended protocol */
	bool is_running;  /* nothing else is sent until it is answered */
	bool is_ahead;    /* a Parse runs before the query, which has not been sent */
	bool had_sync;    /* is_ahead: the client's own batch was over */
	bool has_failed;  /* is_ahead */
	unsigned rounds;  /* is_ahead: Parses so far */
	bool is_unlisten; /* the tag that has just come is to be UNLISTEN */
	bool knows_tag;   /* the last tag was expected, and what it says is noted */
	bool lists;       /* the link is told what pg_prepared_statements shows */
	bool may_repeat, repeats, has_repeated;
	struct prep_step *steps;
	unsigned count, done;
	struct prep_edit *edits;
	unsigned edit_count;
	struct stmt_said *said; /* where its PREPAREs stand; NULL: not needed yet */
	char *text; /* the client's, to be run once more; NULL: it cannot be */
	size_t len;
	char *portal;      /* is_batch: its last Bind */
	struct stmt *real; /* is_batch: held */
	struct refusal refusal;
};
struct prep *prep_begin(struct session *);
void prep_end(struct session *);
/* Zeroed; taken back by prep_end(). */
struct prep_step *prep_step_add(struct prep *);
void prep_edit_add(struct prep *, uint32_t at, uint32_t is, uint32_t was);
/* As the server counts them, roughly: of UTF-8, or single bytes. */
uint32_t prep_chars(const struct session *, const char *, size_t len);
bool prep_is_utf8(const struct session *);

/* ---- prepare.c ---- */

static inline bool
prep_is(const struct stmt *st)
{
	return (st->prepare != SQL_PREPARE_NONE && st->prepare != SQL_PREPARE_DROP_ALL);
}

/* Not what EXECUTE may run. */
static inline bool
prep_nests(const struct stmt *st)
{
	return (prep_is(st) && st->prepare != SQL_PREPARE_VIEW);
}

static inline bool
prep_listens(const struct stmt *st)
{
	return (st->prepare == SQL_PREPARE_LISTEN || st->prepare == SQL_PREPARE_UNLISTEN);
}

/* All that was sent is answered; or the message waits, and comes again. */
bool prep_settle(struct up *);
/* What PREPARE makes of the scanned statement; held. */
struct stmt *prep_intern(
    struct session *, const struct sql_scan *, const struct sql_prepare *);
/* What PREPARE finds under a name that is taken, and DEALLOCATE drops on a link that lacks the
 * real one; held. */
struct stmt *prep_stand_in(struct session *);
/* A text of the proxy's own under a name of its own, as part of a batch, its answers swallowed.
 * id: the statement that it makes on the link; or zero. */
void prep_run_own(struct up *, const char *own, const char *sql, struct hash128 id);
/* A statement of PREPARE for the link, as part of a batch. */
void prep_inject(struct up *, const struct stmt *);
/* What the server gets for a PREPARE, EXECUTE or DEALLOCATE of the extended protocol; what an
 * EXECUTE needs is there. s->prep holds it. portal: of a Bind; NULL: none. */
const struct stmt *prep_real(struct up *, const struct stmt *, const char *portal);
/* What is under way runs a statement of Parse that is one of these itself: no server could tell
 * whose names are meant. */
void prep_refuse_nested(struct prep *);
/* Execute of a portal that s->prep is about, perhaps. UP_PASS: it is not. */
enum up_verdict prep_execute(struct up *, uint32_t size);
/* Before any message but copy data, while s->prep is there. UP_PASS: go on. */
enum up_verdict prep_message(struct up *, char type, uint32_t size);
/* CommandComplete: true when it is the client's. */
bool prep_tag(struct session *, struct link *);
/* ErrorResponse: true when it is dealt with, and what the client gets is in the batch. */
bool prep_error(struct session *, const struct request *, const uint8_t *body, size_t len,
    const struct proto_error_fields *, struct batch *);
/* ReadyForQuery: true when it is not the client's, since the query runs once more. */
bool prep_ready(struct session *, struct link *);

/* ---- script.c ---- */

/* Whether the query string may hold one of the statements: 1, 0, or -1: more must be seen. */
int prep_look(const struct session *, const char *sql, size_t have, size_t len);
/* What a query string needs and cannot bring along is at the link; or the message waits. */
bool prep_is_ready(struct up *, const char *sql, size_t len);
/* A simple query; sent: what of it may be sent, of the same length. UP_PASS: none of these statements is in it, or its message cannot be
 * read. UP_GO_ON: it is sent or answered; the message is the caller's to drop. */
enum up_verdict prep_query(struct up *, const char *said, const char *sent, size_t len);
/* The same query once more. */
void prep_repeat(struct session *, struct link *);

/* ---- view.c: pg_prepared_statements ---- */

/* What the server of s->link gets for the statement. */
const char *view_sent(const struct session *, const struct stmt *);
static inline const char *
prep_sent(const struct session *s, const struct stmt *st)
{
	return (UNLIKELY(st->views != NULL) ? view_sent(s, st) : stmt_text(st));
}
/* prep_real() of a statement that reads it. */
const struct stmt *view_real(
    struct up *, const struct stmt *, const char *portal) MUST_USE;
/* Before such a statement runs, in the same batch: the link is told what the client has
 * prepared. */
void view_tell(struct up *);
/* Whether the link lacks some of it, and has room; and prepares that there. */
bool view_misses(struct session *);
void view_ensure(struct up *);
/* A statement of view_ensure() has failed: what the client gets is in the batch. */
bool view_failed(struct session *, const struct request *,
    const struct proto_error_fields *, struct batch *);
/* Of a query string: what is put into the statement, where, and the text (owned) that stands
 * for it otherwise (NULL: its own). False: it does not read the view. */
bool view_put(struct session *, const struct sql_scan *, struct buf *with, uint32_t *at,
    char **text);
/* The names of a session, one after the other; NULL: from the first one, and behind the last. */
struct stmt_name *view_name_next(const struct session *, const struct stmt_name *);
/* The list of them that a link is told. */
struct view_list *view_list_begin(void);
void view_list_name(struct view_list *, const struct stmt_name *);
/* One that the string is about to make. */
void view_list_new(
    struct view_list *, const char *name, const struct stmt *, const struct stmt_said *);
/* The caller frees it; it needs no quoting. NULL: it is too long, see view_refuse(). */
char *view_list_end(struct view_list *) MUST_USE;
void view_refuse(struct prep *);

/* ---- share.c ---- */

/* The Parse of the session's statement without a name, which has been kept. True: it is dealt
 * with, and what follows in its batch is about s->link->shared. */
bool share_parse(struct up *, uint32_t size, struct stmt *);
/* What becomes of a statement without a name on a link that several sessions use; id: under which
 * the link has it, or is to have it. */
enum share_use { SHARE_NOT, SHARE_HAS, SHARE_MAKES };
enum share_use share_use(
    struct session *, struct link *, struct stmt *, int64_t now_us, struct hash128 *id);
/* Whether the error may come of the statement's being shared. */
bool share_may_be_why(const struct proto_error_fields *);
/* The link's server has taken a Parse of it. */
void share_note_taken(struct session *, struct link *, const struct stmt *);
/* A Parse that names its statement, of a session without a link. True: it and the Sync behind it
 * are answered, since a server has just taken the same. */
bool share_parse_taken(struct up *, uint32_t size);
/* A statement is bound, perhaps to define something. NULL: one that was too long to keep, and was
 * looked at when it was parsed. */
void share_note_definition(struct session *, struct stmt *);
/* While s->link->shares or heals: the message behind its batch waits. */
bool share_must_wait(struct session *);
/* While l->shares: before any message of the server; ParseComplete is told when its turn has
 * come. */
void share_hears(struct link *, char type, struct batch *);
/* An error: true when the client does not hear of it, because the batch runs once more. */
bool share_failed(
    struct session *, struct link *, const struct proto_error_fields *, struct batch *);
/* At its ReadyForQuery. */
void share_heal(struct session *, struct link *);
/* What had failed for the shared statement has not. */
void share_healed(struct session *, const struct request *);

/* ---- decide.c ---- */

/* The statement that an EXECUTE runs, with its arguments. */
struct prep_inner {
	struct stmt *stmt; /* held */
	struct sense sense;
	struct binding binding;
	struct sql_argument *arguments;
	bool is_plain; /* nothing stands before EXECUTE */
	bool creates;  /* CREATE TABLE … AS */
};
/* False: it is no EXECUTE of a statement that is known. prep_inner_free() when true. */
bool prep_inner_find(struct session *, const struct sense *, struct prep_inner *);
void prep_inner_free(struct session *, struct prep_inner *);

#endif
