/* The files of a split: split.c has its phases, part.c its legs, load.c the rows of a COPY. */
#ifndef FEDERATE_SPLIT_H
#define FEDERATE_SPLIT_H
#include "private.h"
#include "reader.h"

#define SPLIT_COPY_BYTES   32768              /* of rows in one CopyData */
#define SPLIT_HELD_BYTES   (64 * 1024 * 1024) /* of a row before its key is known */
#define SPLIT_ANSWER_BYTES (64 * 1024 * 1024) /* of what RETURNING answers */

enum split_phase {
#define STATE(name, ...) SPLIT_##name,
#define EDGE(...)
#include "split_fsm.def"
#undef STATE
#undef EDGE
	SPLIT_PHASES
};

/* Owned by its split. */
struct part {
	struct split *split;
	struct link *link; /* NULL: lost, or given back */
	struct federate_part given;
	unsigned owed; /* ReadyForQuery to come */
	bool takes;    /* CopyInResponse came, CopyDone or CopyFail was not sent */
	bool has_tag, has_failed;
	bool commits; /* COMMIT was sent */
	enum { PART_OPEN, PART_COMMITTED, PART_ROLLED_BACK, PART_LOST } end;
	uint64_t told; /* rows that its CommandComplete counts */
	uint64_t rows; /* of COPY: sent to it */
	bool has_header;
	struct buf out;         /* COPY: rows for the next CopyData */
	struct buf description; /* body of CopyInResponse, or of RowDescription */
	struct buf answer;      /* DataRows, whole */
	unsigned answers;
	char *error; /* why its COMMIT failed */
	char error_state[6];
	unsigned cancels;
};

#define SPLIT_MAGIC 0x53504c54U
struct split {
	struct burial burial;
	uint32_t magic;
	enum split_phase phase; /* written by split_move() alone */
	struct worker *worker;
	struct federate_split order;
	struct federate_client client;
	void *arg;
	struct part *parts;
	unsigned part_count;
	bool has_failed, is_over, is_sending_cancel;
	unsigned cancels;
	size_t answer_bytes;
	struct buf out;
	/* COPY */
	struct reader reader;
	struct buf held;    /* of the row whose key is not known yet; of the header */
	struct buf header;  /* for each part before its first row */
	struct buf trailer; /* behind its last one */
	struct part *at;    /* whose row is under way */
	struct part *only;  /* in a transaction: the one that has got a row */
	/* The failure. */
	char sqlstate[6];
	char *message, *detail, *hint, *context;
};

void split_move(struct split *, enum split_phase to);
/* The first failure is the one that is told. */
void split_fail(struct split *, const char *sqlstate, const char *message,
    const char *detail, const char *hint, const char *context);
/* Something has happened: goes on as far as it can; maybe to done(). */
void split_advance(struct split *);
void split_end(struct split *);

/* ---- part.c ---- */

extern const struct link_user part_user;
void part_ask(struct part *);
void part_run(struct part *, const char *sql);
void part_cancel(struct part *);
/* Ends its COPY. message: with CopyFail; NULL: CopyDone. */
void part_close_copy(struct part *, const char *message);
/* Rows of COPY for it. */
void part_add(struct part *, const uint8_t *p, size_t len);
void part_flush(struct part *);

/* ---- load.c ---- */

void load_begin(struct split *);

#endif
