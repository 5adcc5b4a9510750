/* federate, for its own files. */
#ifndef FEDERATE_PRIVATE_H
#define FEDERATE_PRIVATE_H
#include "federate.h"
#include "proto.h"

#define FED_OUT_BYTES   32768         /* the client gets them when so many are together */
#define FED_ROW_BYTES   65536         /* a longer row goes to the client in pieces */
#define FED_WHOLE_BYTES (1024 * 1024) /* messages that are looked into, but for errors */
#define FED_ERROR_BYTES (64 * 1024 * 1024)
#define FED_ROW_MAX     0x7fff0000U /* the name of a database must fit in front */

/* Whose failure is told: the leg's with the lowest number, but before all our own refusals. */
#define FED_OURS (-1)

enum leg_state {
#define STATE(name, ...) LEG_##name,
#define EDGE(...)
#include "leg_fsm.def"
#undef STATE
#undef EDGE
	LEG_STATES
};

/* Owned by its federation. */
struct leg {
	struct federation *fed;
	struct link *link; /* NULL: lost, or given back */
	const char *member;
	enum leg_state state; /* written by leg_move() alone */
	unsigned index;       /* its place in the order */
	bool is_described;    /* its columns, or that it has none, are known */
	bool is_empty;        /* EmptyQueryResponse instead of a tag */
	bool has_more;        /* described, and rows are there */
	bool waits;           /* its next message is for a client that is full */
	bool body_goes_out;   /* to the client, or dropped */
	bool was_stopped;     /* cancelled by us: its 57014 is not news */
	uint32_t body_left;   /* of the message that is passing through */
	struct buf
	    description; /* body of its RowDescription; empty: it answers no rows */
	struct buf
	    row;      /* merging: body of its DataRow; describing: ParameterDescription */
	char tag[64]; /* of CommandComplete */
	uint64_t rows;
	unsigned cancels; /* our requests under way */
};

/* Owns itself: from federate_start() until done() or federate_abort(), and then until the last
 * cancel request is over, whose end names a leg. */
#define FEDERATION_MAGIC 0x46454445U
struct federation {
	struct burial burial;
	uint32_t magic;
	struct worker *worker;
	struct federate_order order;
	struct federate_client client;
	void *arg;
	struct leg *legs;
	unsigned leg_count;
	unsigned asked;    /* of them: the first alone when it only describes */
	unsigned turn;     /* whose rows are read */
	uint64_t rows_out; /* to the client; not those of aggregates */
	bool merges;       /* one row of aggregates */
	bool has_begun;    /* the columns are known, and told */
	bool has_failed;
	bool is_cut; /* the client has half a message, whose other half will never come */
	bool is_over;
	bool is_sending_cancel;
	struct leg
	    *open_row; /* half of its row is with the client: nothing goes between */
	struct buf out;
	unsigned cancels; /* of all legs */
	int rank;         /* of the failure */
	char sqlstate[6];
	char *message, *detail, *hint; /* of the failure */
};

/* ---- federate.c ---- */

/* Bytes for the client, gathered until fed_flush(); which may end in federate_abort(). */
void fed_put(struct federation *, const void *p, size_t len);
void fed_flush(struct federation *);
/* The federation fails, unless it has with a lower rank; what still runs is cancelled. */
void fed_fail(struct federation *, int rank, const char *sqlstate, const char *message,
    const char *detail, const char *hint);
/* Our refusal, or that of a leg: the SQLSTATE of a fault, and its text or another. */
void fed_refuse(struct federation *, int rank, int fault, const char *detail,
    const char *fmt, ...) PRINTF(5, 6);
/* Something has happened: goes on, as far as it can; maybe to done(). */
void fed_advance(struct federation *);
/* It is over: its memory goes, unless a cancel request is still under way, which names a leg. */
void fed_end(struct federation *);

/* ---- leg.c ---- */

extern const struct link_user leg_user;
void leg_move(struct leg *, enum leg_state to);
/* Sends it the messages of the statement. */
void leg_ask(struct leg *, const struct buf *messages);
/* Its answer is not wanted any more. is_culprit: because of its own error. */
void leg_stop(struct leg *, bool is_culprit);
void leg_cancel(struct leg *);
/* Its bytes are to be left unread now. */
bool leg_is_held(const struct leg *);

/* ---- columns.c ---- */

struct column {
	const char *name;
	uint32_t type;
	uint16_t size, format;
	uint32_t modifier;
};
/* How many columns a RowDescription has; F_PROTO_MESSAGE when it is none. */
int columns_check(const uint8_t *body, size_t len) MUST_USE;
/* The next column of one that was checked; from 2 bytes behind its start. */
const uint8_t *column_read(const uint8_t *p, struct column *out);
unsigned columns_count(const struct leg *);
/* Refuses legs whose columns differ, and formats that do not fit. False: has failed. */
bool columns_agree(struct federation *);
/* The description as the client is to see it. */
void columns_put(struct federation *);
/* "bigint"; "OID 16400" where it is not one of PostgreSQL's own well-known ones. */
#define TYPE_NAME_BYTES 16
const char *type_name(uint32_t oid, char out[TYPE_NAME_BYTES]);

/* ---- merge.c ---- */

/* Whether the columns are ones that can be merged exactly. False: has failed. */
bool merge_check(struct federation *);
/* The one row. False: has failed. */
bool merge_put(struct federation *);

#endif
