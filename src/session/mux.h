/*
 * session/mux.h: links that several sessions use at once (multiplex = on), for the session
 * room's own files.
 *
 *   mux.c          who joins, what is sent, who leaves or is moved, what time does
 *   mux_batch.c    batches of the extended protocol
 *   mux_answers.c  whose an answer is; the end of a link
 *
 *   clients   A: select 1   B: select 2   C: select 3      what has come in one turn
 *   link      select 1 select 2 select 3                   goes out with one write
 *             1 ready, 2 ready, 3 ready                    and each answer to its client
 *
 * Only statements that stand alone, outside a transaction, and are known to be plain reads share
 * a link, and only with sessions whose settings are the link's. One of which nothing has been
 * answered can thus be run again elsewhere, and its answer thrown away. How long those of its
 * kind took is remembered with their facts: what is not known to be quick takes a link of its
 * own, as everything else does. What is slow all the same holds up those behind it for a moment
 * only: they are moved.
 */
#ifndef SESSION_MUX_H
#define SESSION_MUX_H
#include "prepare.h"

#define MUX_DEPTH     8 /* statements on one link */
#define MUX_TEXT_MAX  8192
#define MUX_TEXTS_MAX 65536 /* then it is to be emptied first */
/* Behind a statement that has run for so many times multiplex_quick no more are put, and those
 * that are there are moved. */
#define MUX_STALL 25

/* One statement on a link. */
struct mux_entry {
	struct session *s;             /* NULL: nobody wants the answer any more */
	const struct sql_facts *facts; /* held */
	int64_t start_us;
	uint32_t at, len; /* in mux->texts */
	uint32_t run_us;  /* that it is expected to take */
	/* mux_batch.c: */
	uint32_t kept_at, kept_len; /* in mux->kept */
	struct hash128 id;          /* is_renamed: what it is on the link */
	bool is_batch, is_renamed;
	bool skips_parse; /* ParseComplete is not the client's */
	bool fakes_parse; /* one is, and has not been told */
	bool has_begun;   /* to be answered */
	bool has_notice;  /* that its client has heard */
	bool comes_again; /* it has failed, and runs elsewhere after its end */
	uint8_t closes;   /* CloseCompletes that are not the client's */
};
/* Belongs to its link, from the first statement to the last answer. */
struct mux {
	TAILQ_ENTRY(mux) entry; /* with something to send, or spare */
	struct link *link;
	struct mux_entry ring[MUX_DEPTH];
	unsigned head, count;
	struct buf texts; /* what goes to the server */
	struct buf kept;  /* batches as their clients have sent them */
	uint32_t sent;    /* so much of it */
	uint32_t run_us;  /* that all of them are expected to take */
	int64_t head_us;  /* since when the server works on the first one */
	bool is_unsent;   /* on the worker's list */
	bool is_closed;   /* nobody joins any more */
	bool is_cut; /* the first one is cancelled, and its client has half a message */
};

/* ---- mux.c ---- */

/* A simple query, or the first message of a batch, of a session without a link. True: it went to
 * a link that others share. */
bool mux_query(struct up *, uint32_t size);
bool mux_batch(struct up *);
/* The session was given the link for a statement that may share it. True: it does, perhaps with
 * others that wait. */
bool mux_granted(struct session *, struct link *);
/* A statement that had a link of its own and was sent then is answered. */
void mux_timed(struct session *, int64_t sent_us);
/* It is not known how long it took. */
void mux_untimed(struct session *);
/* The session ends; nobody wants its answer. */
void mux_leave(struct session *);
void mux_cancel(struct session *, void (*done)(void *), void *arg);
/* Since when the session's statement runs there. */
int64_t mux_since_us(const struct session *);
/* A session's client reads again, or does not. */
void mux_flow(struct mux *);
void mux_tick(struct worker *, int64_t now_us);
/* Sends what came in this turn. */
void mux_turn(struct worker *);
void mux_end_all(struct worker *);
void mux_fini(struct session_worker *);

/* For mux_answers.c. */
static inline struct mux_entry *
mux_at(struct mux *m, unsigned i)
{
	return (&m->ring[(m->head + i) % MUX_DEPTH]);
}
/* The statement comes again, and takes a link of its own. */
void mux_run_again(struct mux *, struct mux_entry *);
/* All but the first `stay` are run elsewhere. */
void mux_move(struct mux *, unsigned stay);
/* The session is at rest again; its statement is answered, or will not be. */
void mux_release(struct session *);
/* The first one is cancelled, and its client hears so. */
void mux_say_cancelled(struct mux_entry *);
/* A statement of these facts, on which the server works since then, is answered. */
void mux_note_run(struct worker *, const struct sql_facts *, int64_t since_us);
/* The mux is empty: its link is not the mux's any more. */
void mux_free(struct mux *);

/* ---- mux_batch.c ---- */

struct mux_batch {
	const uint8_t *p;
	size_t len;     /* with its Sync */
	size_t rest_at; /* of what stands behind the names in the Bind's body */
	uint32_t parse_len, bind_len; /* messages; no Parse: 0 */
	size_t bind_at;               /* from 1 */
	struct stmt *stmt;            /* after mux_batch_parse() */
	struct prepared_since since;
};
/* False: there is no whole batch of a kind that may share a link. */
bool mux_batch_read(struct session *, const uint8_t *p, size_t len, struct mux_batch *);
bool mux_batch_parse(struct session *, struct mux_batch *);
void mux_batch_end(struct session *, struct mux_batch *);
void mux_batch_put(
    struct mux *, struct mux_entry *, struct session *, const struct mux_batch *);
enum mux_heard { MUX_HEARD_PASS, MUX_HEARD_SKIP, MUX_HEARD_NONSENSE };
enum mux_heard mux_batch_hears(struct mux *, struct mux_entry *, char type);
void mux_batch_notes(struct mux *, struct mux_entry *);
/* True: it runs again elsewhere when this has ended. */
bool mux_batch_failed(
    struct mux *, struct mux_entry *, const struct proto_error_fields *);

/* ---- mux_answers.c ---- */

extern const struct link_user mux_link_user;

#endif
