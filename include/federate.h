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

#endif
