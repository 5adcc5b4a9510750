/*
 * Statements that are answered here: transaction verbs while nothing was sent, the settings
 * pgweave.…, EXPLAIN (ROUTE).
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>

/* ---- rows of one text column ---- */

static void
put_column(struct buf *out, const char *name)
{
	struct proto_column column = {.name = name, .type_oid = 25, .type_size = -1};

	proto_row_description(out, &column, 1);
}

static void
put_row(void *arg, const char *text)
{
	proto_data_row(arg, &text, 1);
}

static void
put_notice(struct buf *out, const char *severity, const char *sqlstate, const char *text)
{
	proto_error(out, severity, sqlstate, text, NULL, NULL);
}

/* ---- transactions ---- */

/* What else a second BEGIN says goes to the server with the first. */
static bool
run_begin(
    struct session *s, const struct sense *sense, struct buf *out, struct refusal *r)
{
	struct weave *w = s->weave;
	bool has_modes = sense_has_modes(sense);

	if (w->txn != TXN_NONE)
		put_notice(out, "WARNING", "25001",
		    "there is already a transaction in progress");
	if (w->txn != TXN_NONE && w->frame_count > 0 &&
	    sense_has_word(sense, "isolation")) {
		refusal_set(r, "25001",
		    "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction",
		    NULL, NULL);
		return (false);
	}
	if (w->txn != TXN_NONE && w->frame_count > 0 &&
	    sense_has_word(sense, "deferrable")) {
		refusal_set(r, "25001",
		    "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction",
		    NULL, NULL);
		return (false);
	}
	if (w->txn == TXN_NONE) {
		weave_txn_begin(
		    s, sense->scan.sql, sense->scan.len, sense_reads_anywhere(sense));
		w->txn = TXN_DEFERRED;
	} else if (w->txn == TXN_DEFERRED && has_modes)
		weave_txn_more(s, sense->scan.sql, sense->scan.len);
	proto_command_complete(
	    out, strcmp(sense->scan.verb, "start") == 0 ? "START TRANSACTION" : "BEGIN");
	return (true);
}

/* COMMIT or ROLLBACK with nothing to be sent for it; or of a transaction that has failed,
 * which is rolled back on every link first (true: the answer comes later). */
static bool
run_end(struct session *s, const struct sense *sense, bool is_extended, struct buf *out)
{
	struct weave *w = s->weave;
	bool is_commit = sense->facts->class == SQL_COMMIT;
	bool has_failed = w->txn == TXN_FAILED;

	if (w->txn == TXN_NONE)
		put_notice(
		    out, "WARNING", "25P01", "there is no transaction in progress");
	else if (w->leg_count > 0) {
		struct weave_run *run;

		legs_park(s);
		run = weave_run(w);
		for (unsigned i = 0; i < w->leg_count; i++)
			run->want[i] = w->legs[i].seat;
		run->want_count = w->leg_count;
		run->then_chains = sense->facts->chains;
		run->is_extended = is_extended;
		legs_gather(s, THEN_ROLLBACK);
		return (true);
	} else {
		weave_txn_over(s, is_commit && !has_failed);
		weave_track_end(s, is_commit && !has_failed);
		if (sense->facts->chains)
			weave_txn_chain(s);
	}
	proto_command_complete(out, is_commit && !has_failed ? "COMMIT" : "ROLLBACK");
	return (false);
}

/* Nothing was sent yet: it goes with BEGIN, also when the transaction has failed here. */
static bool
run_savepoint(
    struct session *s, const struct sense *sense, struct buf *out, struct refusal *r)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	char *begin, *message;

	if (!weave_savepoint(s, f)) {
		message = mem_printf("savepoint \"%s\" does not exist",
		    f->savepoint != NULL ? f->savepoint : "");
		refusal_set(r, "3B001", message, NULL, NULL);
		free(message);
		return (false);
	}
	w->txn = TXN_DEFERRED;
	begin =
	    mem_printf("%s\n;%.*s", w->begin_sql, (int)sense->scan.len, sense->scan.sql);
	free(w->begin_sql);
	w->begin_sql = begin;
	proto_command_complete(out, f->is_rollback_to ? "ROLLBACK"
				    : f->is_release   ? "RELEASE"
						      : "SAVEPOINT");
	return (true);
}

/* ---- settings ---- */

static bool
unknown_setting(const char *name, struct refusal *r)
{
	char *message = mem_printf("unrecognized configuration parameter \"%s\"", name);

	refusal_set(r, "42704", message, NULL,
	    "There are pgweave.database, databases, federation, on_unavailable, shard_key "
	    "and read_from.");
	free(message);
	return (false);
}

static bool
run_set(struct session *s, const struct sql_facts *f, struct buf *out, struct refusal *r)
{
	struct weave *w = s->weave;
	int what = said_find(f->setting);
	bool is_local = f->set_verb == SQL_SET_LOCAL;
	bool is_reset = f->set_verb == SQL_SET_RESET || f->value == NULL;
	const char *value = is_reset ? w->base.v[what < 0 ? 0 : what] : f->value;
	char sqlstate[6], message[512], detail[512];

	if (what < 0)
		return (unknown_setting(f->setting, r));
	if (!is_reset &&
	    !route_check_setting(w->virt, w->key, f->setting + 8, value, sqlstate,
		message, sizeof(message), detail, sizeof(detail))) {
		refusal_set(r, sqlstate, message, detail, NULL);
		return (false);
	}
	if (is_local && w->txn == TXN_NONE)
		put_notice(out, "WARNING", "25P01",
		    "SET LOCAL can only be used in transaction blocks");
	else if (is_local)
		said_put(&w->local, (enum said_what)what, value != NULL ? value : "");
	else {
		said_put(&w->session, (enum said_what)what, value);
		said_put(&w->local, (enum said_what)what, NULL);
		/* One database or several: what was said last holds. */
		if (!is_reset && (what == SAID_DATABASE || what == SAID_DATABASES))
			said_put(&w->session,
			    what == SAID_DATABASE ? SAID_DATABASES : SAID_DATABASE, NULL);
	}
	proto_command_complete(out, f->set_verb == SQL_SET_RESET ? "RESET" : "SET");
	return (true);
}

static bool
run_show(struct session *s, const struct sql_facts *f, bool with_description,
    struct buf *out, struct refusal *r)
{
	struct weave *w = s->weave;
	int what = said_find(f->setting);
	bool is_routed = strcmp(f->setting, "pgweave.routed") == 0;

	if (what < 0 && !is_routed)
		return (unknown_setting(f->setting, r));
	if (with_description)
		put_column(out, f->setting);
	put_row(out, is_routed ? (w->routed != NULL ? w->routed : "")
			       : said_value(w, (enum said_what)what));
	proto_command_complete(out, "SHOW");
	return (true);
}

/* ---- EXPLAIN (ROUTE) ---- */

static bool
run_explain(struct session *s, const struct sense *sense, const struct binding *b,
    bool with_description, struct buf *out, struct refusal *r)
{
	const struct sql_facts *f = sense->facts;
	struct route_plan *plan = mem_alloc(sizeof(*plan));
	struct route_input in;
	struct prep_inner prepared;
	struct sense inner, seen;
	bool is_execute;

	if (f->problem != NULL) {
		refusal_set(r, "22023", f->problem, NULL, NULL);
		free(plan);
		return (false);
	}
	sense_make(s->worker, sense->scan.sql + f->inner_at,
	    sense->scan.len - f->inner_at, &inner);
	is_execute = prep_inner_find(s, &inner, &prepared);
	seen = is_execute ? prepared.sense : inner;
	/* A hint stands before EXPLAIN, and is meant for what is explained. */
	if (inner.scan.hint == NULL && sense->scan.hint != NULL)
		seen.scan.hint = sense->scan.hint;
	sense_input(s, &seen, is_execute ? &prepared.binding : b, &in);
	in.wants_notes = true;
	route_plan(&in, plan);
	if (with_description)
		put_column(out, "QUERY PLAN");
	route_explain(&in, plan, f->wants_json, put_row, out);
	proto_command_complete(out, "EXPLAIN");
	if (is_execute)
		prep_inner_free(s, &prepared);
	sense_end(&inner);
	free(plan);
	return (true);
}

/* ---- all of them ---- */

bool
local_run(struct session *s, const struct sense *sense, const struct binding *b,
    bool is_extended, struct buf *out, struct refusal *r, bool *later)
{
	const struct sql_facts *f = sense->facts;

	*later = false;
	switch (f->class) {
	case SQL_EMPTY:
		proto_empty_query(out);
		return (true);
	case SQL_BEGIN:
		return (run_begin(s, sense, out, r));
	case SQL_COMMIT:
	case SQL_ROLLBACK:
	case SQL_TWO_PHASE:
		if (f->chains && s->weave->txn == TXN_NONE) {
			refusal_set(r, "25P01",
			    f->class == SQL_COMMIT
				? "COMMIT AND CHAIN can only be used in transaction blocks"
				: "ROLLBACK AND CHAIN can only be used in transaction blocks",
			    NULL, NULL);
			return (false);
		}
		*later = run_end(s, sense, is_extended, out);
		return (true);
	case SQL_SAVEPOINT:
		return (run_savepoint(s, sense, out, r));
	case SQL_EXPLAIN_ROUTE:
		return (run_explain(s, sense, b, !is_extended, out, r));
	case SQL_SET:
		if (f->set_verb == SQL_SET_SHOW)
			return (run_show(s, f, !is_extended, out, r));
		return (run_set(s, f, out, r));
	case SQL_UTILITY:
		heed_run(s, sense, out);
		return (true);
	case SQL_UNKNOWN:
	case SQL_READ:
	case SQL_WRITE:
	case SQL_DDL:
	default:
		INVARIANT(!"a statement that is not answered here");
		return (false);
	}
}

void
local_describe(struct session *s, const struct sense *sense, struct buf *out)
{
	const struct sql_facts *f = sense->facts;

	(void)s;
	if (f->class == SQL_EXPLAIN_ROUTE)
		put_column(out, "QUERY PLAN");
	else if (f->class == SQL_SET && f->set_verb == SQL_SET_SHOW)
		put_column(out, f->setting);
	else
		proto_message(out, 'n', NULL, 0);
}
