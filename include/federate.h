/*
 * federate: one statement on several databases, its answers joined to one.
 *
 *   leg: primary   -> rows -+
 *   leg: secondary -> rows -+-> tag: as they come, member by member, with a column "database"
 *   leg: analytics -> rows -+   merge: joined as if one database held all rows
 *
 * The legs' links are the caller's, lent, at rest (or inside a transaction); while a federation
 * runs they answer to it. All legs are sent the statement at once; the answer streams in the
 * order of the legs, so that a leg whose turn has not come waits in its socket. Merging
 * aggregates waits for all of them.
 */
#ifndef FEDERATE_H
#define FEDERATE_H
#include "base.h"
#include "link.h"
#include "net.h"
#include "route.h"
#include "sql.h"

struct federate_leg {
	struct link *link;
	const char *member; /* name for the client; must stay valid */
};

/* The statement; all of it must stay valid until done(). */
struct federate_order {
	enum route_federation how;
	const char *sql; /* NUL-terminated, one statement */
	const struct sql_shape *shape;
	bool is_extended;
	/* Extended: parameter types as in Parse (count and OIDs); from Bind: parameter formats
	 * and values (count, formats, count, values), result formats. NULL types: none. */
	const uint8_t *types;
	size_t types_len;
	const uint8_t *values; /* NULL: the Bind has none, as two zero counts */
	size_t values_len;
	const uint16_t *formats; /* of result columns, as the client sees them */
	unsigned format_count;
	bool
	    describes_only; /* only the description of the rows (and parameters), from the first leg */
	bool
	    wants_description; /* RowDescription is part of the answer: simple, or Describe */
	/* Of Execute; 0: no limit. After so many rows the answer ends with PortalSuspended; the
	 * rest is read and thrown away. */
	uint32_t max_rows;
};

struct federate_outcome {
	bool ok;
	/* Not ok: an ErrorResponse for the client. Strings valid during done(). */
	const char *sqlstate, *message, *detail, *hint;
	const char *context; /* "COPY t, line 3"; NULL: none */
	/* Not ok: the client has half a row, whose other half is lost. It understands nothing
	 * that follows: its connection must be closed. */
	bool is_cut;
	uint64_t rows;
};

struct federate_client {
	/* Whole messages for the client: ParameterDescription, RowDescription or NoData, DataRow,
	 * NoticeResponse, NotificationResponse, CommandComplete, PortalSuspended or
	 * EmptyQueryResponse. Never
	 * ErrorResponse or ReadyForQuery. A DataRow of more than 64 kB may come in pieces, with
	 * nothing between them. */
	void (*out)(void *arg, const uint8_t *p, size_t len);
	/* True: the client reads too slowly; federate_resume() follows. */
	bool (*is_full)(void *arg);
	/* Once. Every link that still lives (link->state LENT) is the caller's again, with nothing
	 * outstanding, nor a cancel request of ours (it may be in a failed transaction); a dead
	 * one is CLOSED and was told in lost(). Their user fields are empty: set them, or give the
	 * links back, before this returns. The federation is freed when this returns. */
	void (*done)(void *arg, const struct federate_outcome *);
	/* A leg's link is gone: do not touch it any more. done() follows. */
	void (*lost)(void *arg, struct link *);
	/* Of a split: what split_takes() says may be another now. */
	void (*flow)(void *arg);
};

struct federation;
/* Sends the statement to all legs; nothing is called before this has returned. */
struct federation *federate_start(struct worker *, const struct federate_order *,
    const struct federate_leg *, unsigned leg_count, const struct federate_client *,
    void *arg);
void federate_resume(struct federation *);
/* The client cancels: cancel requests go to the legs that still run; done() follows. */
void federate_cancel(struct federation *);
/* The client is gone, or time is up: nothing more is called; links are the caller's in
 * whatever state they are, without a user (pool_give_broken, at once). From any callback of
 * the client but done(), where it is too late. */
void federate_abort(struct federation *);

/* ---- rows of one INSERT or COPY, each to its database ----
 *
 *   BEGIN on each leg -> its rows -> all have answered -> SET CONSTRAINTS ALL IMMEDIATE on those
 *     that have got rows -> COMMIT there, ROLLBACK on the others
 *
 * Whatever fails before the first COMMIT is sent undoes all of it. When a COMMIT fails or its
 * answer is lost while others were committed, the error (40003) says what is where.
 */

struct federate_part {
	struct link *link;
	const char *member; /* name for the client */
	/* INSERT: its own text. Extended: types as in Parse, formats and values as in Bind. */
	const char *sql;
	const uint8_t *types, *values;
	size_t types_len, values_len;
	unsigned rows; /* INSERT: how many stand in the text */
};

/* All of it must stay valid until done(). */
struct federate_split {
	const char *table;
	bool is_copy;
	bool begins; /* outside a transaction: each leg gets one of its own */
	/* INSERT: the part of each row, for RETURNING. */
	const uint8_t *part_of_row;
	unsigned row_count;
	bool is_extended, wants_description;
	const uint16_t *formats;
	unsigned format_count;
	uint32_t max_rows;
	/* COPY: */
	const char *sql;
	const struct sql_copy *copy;
	const struct topo_shard *shard;
	unsigned key_at, column_count; /* as in struct route_split */
	const int8_t *part_of_shard;   /* -1: as `elsewhere` says */
	/* A row for a part that may not have it; a second part in a transaction. The member's name
	 * follows the message, in quotes. */
	const char *elsewhere_state, *elsewhere, *elsewhere_hint;
	bool is_foreign_text; /* the stream is of another encoding than the databases */
	bool csv_has_mark;    /* "\." ends CSV too */
};

struct split;
/* As federate_start(); out() may also get CopyInResponse, and is never held up. */
struct split *split_start(struct worker *, const struct federate_split *,
    const struct federate_part *, unsigned part_count, const struct federate_client *,
    void *arg);
/* Whether the client's COPY data is wanted now. flow() of the client tells of changes. */
bool split_takes(const struct split *);
void split_data(struct split *, const uint8_t *p, size_t len);
/* CopyDone, CopyFail. */
void split_finish(struct split *);
void split_give_up(struct split *, const char *message);
void split_cancel(struct split *);
/* Rows that the part has got, in done(). */
uint64_t split_rows(const struct split *, unsigned part);
/* COMMIT was sent: it must be waited for, also without the client. */
bool split_is_committing(const struct split *);
/* From now on it is this one's. */
void split_hand_over(struct split *, const struct federate_client *, void *arg);
/* As federate_abort(). */
void split_abort(struct split *);

#endif
