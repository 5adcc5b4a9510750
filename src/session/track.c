/*
 * What a client sets, on virtual databases: its own on whatever link its next statement runs,
 * and the same on all links of its transaction. What is set is known from the statements, in
 * the order in which they are sent. They are noted as they are sent, and told to each leg
 * before it does something for the client:
 *
 *   client               leg A                leg B              notes
 *   set x = 1            begin; set x = 1                        1: x = 1
 *   set local y = 2      set local y = 2                         2: y = 2, local
 *   select … from b                           begin
 *                                             set x; set local y
 *   rollback to s        rollback to s                           (those behind s are cut)
 *   update b …                                (what was cut)
 *
 * The leg whose transaction is committed has them from the client itself, or as the client has
 * said them. The others end with a rollback, which takes all of it back. With COMMIT, and with
 * the end of a statement of its own, the notes become what the session has; ROLLBACK drops them.
 * The sets of links and sessions have what servers do not report as they have what a client
 * asks for when it connects; within a transaction they stay as they were before it.
 */
#include "listen.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NOTES_MAX     256
#define SET_BYTES_MAX 16384 /* of a statement and its parameters */
/* What is made of that: every byte may need another one before it. */
#define NOTE_SQL_MAX (2 * SET_BYTES_MAX + 64)

enum note_kind {
	NOTE_SET,
	NOTE_UNKNOWN,  /* nobody but its server knows what was set */
	NOTE_LISTEN,   /* name: the channel */
	NOTE_UNLISTEN, /* name NULL: all of them */
	NOTE_COMMIT,
	NOTE_ROLLBACK
};
struct track_note {
	enum note_kind kind;
	char *name, *value; /* of a setting; value NULL: RESET */
	char *sql;          /* what a leg is told */
	bool is_local;
	uint64_t at;
};

/* ---- the notes ---- */

static void
note_free(struct track_note *n)
{
	free(n->name);
	free(n->value);
	free(n->sql);
}

/* Those behind it are taken out. */
static void
notes_cut(struct weave *w, uint64_t after)
{
	while (w->note_count > 0 && w->notes[w->note_count - 1].at > after)
		note_free(&w->notes[--w->note_count]);
	if (w->note_count > 0)
		return;
	free(w->notes);
	w->notes = NULL;
}

static void
note_remove(struct weave *w, unsigned i)
{
	note_free(&w->notes[i]);
	memmove(&w->notes[i], &w->notes[i + 1],
	    (w->note_count - i - 1) * sizeof(w->notes[0]));
	w->note_count--;
}

/* Of the transaction, not a setting. */
static bool
is_mode(const char *name)
{
	return (strcmp(name, "constraints") == 0 || strcmp(name, "transaction") == 0);
}

/* Whether the note says nothing any more when it is followed by that one. */
static bool
is_overtaken(const struct track_note *old, const struct track_note *by)
{
	return (old->kind == NOTE_SET && by->kind == NOTE_SET &&
		(old->is_local || !by->is_local) &&
		strcasecmp(old->name, by->name) == 0 && !is_mode(old->name));
}

/* Settings may be many; what is listened to has a limit of its own. */
static bool
has_room(const struct weave *w)
{
	unsigned count = 0;

	if (w->note_count < NOTES_MAX)
		return (true);
	for (unsigned i = 0; i < w->note_count; i++)
		count += w->notes[i].kind == NOTE_SET;
	return (count < NOTES_MAX);
}

static bool
may_note(struct weave *w, size_t sql_len)
{
	if (sql_len > SET_BYTES_MAX)
		refusal_set(&w->refusal, "54000",
		    "setting is too long for a virtual database", NULL, NULL);
	else if (!has_room(w))
		refusal_set(&w->refusal, "54000", "too many settings in one transaction",
		    NULL, NULL);
	return (!refusal_is_set(&w->refusal));
}

/* name, value and sql are the notes' from now on. False: it is too much, and nobody but its
 * server knows of it. */
static bool
note_add(struct weave *w, struct track_note note)
{
	uint64_t mark = w->frame_count > 0 ? w->frames[w->frame_count - 1].noted : 0;
	bool is_told = true;

	for (unsigned i = w->note_count;
	     note.kind == NOTE_SET && i-- > 0 && w->notes[i].at > mark;) {
		if (w->notes[i].kind == NOTE_COMMIT || w->notes[i].kind == NOTE_ROLLBACK)
			break;
		if (is_overtaken(&w->notes[i], &note))
			note_remove(w, i);
	}
	if (note.kind == NOTE_SET &&
	    (!has_room(w) || (note.sql != NULL && strlen(note.sql) > NOTE_SQL_MAX))) {
		note_free(&note);
		note = (struct track_note){.kind = NOTE_UNKNOWN};
		is_told = false;
	}
	if (note.kind == NOTE_UNKNOWN && w->note_count > 0 &&
	    w->notes[w->note_count - 1].kind == NOTE_UNKNOWN) {
		w->notes[w->note_count - 1].at = ++w->noted;
		return (is_told);
	}
	note.at = ++w->noted;
	w->notes = mem_realloc(w->notes, (w->note_count + 1) * sizeof(w->notes[0]));
	w->notes[w->note_count++] = note;
	return (is_told);
}

void
weave_track_drop(struct weave *w)
{
	notes_cut(w, w->noted_sure);
	w->noted_sure = w->noted;
}

void
weave_track_unbound(struct weave *w, uint64_t behind)
{
	notes_cut(w, behind);
}

void
weave_track_anew(struct weave *w)
{
	for (unsigned i = w->note_count; i-- > 0 && w->notes[i].at > w->noted_sure;)
		if (w->notes[i].kind != NOTE_LISTEN && w->notes[i].kind != NOTE_UNLISTEN)
			note_remove(w, i);
	if (w->note_count == 0)
		weave_track_drop(w);
}

void
weave_track_free(struct session *s)
{
	struct weave *w = s->weave;

	notes_cut(w, 0);
	for (unsigned i = 0; i < w->cut_count; i++)
		free(w->cut[i]);
	free(w->cut);
	w->cut = NULL;
	w->cut_count = 0;
	w->noted = w->noted_sure = w->noted_cut = 0;
	vars_release(s->worker, w->base_vars);
	w->base_vars = NULL;
}

void
weave_track_begin(struct session *s)
{
	struct weave *w = s->weave;

	vars_release(s->worker, w->base_vars);
	w->base_vars = vars_hold(s->vars);
}

static bool
cut_has(const struct weave *w, const char *name)
{
	for (unsigned i = 0; i < w->cut_count; i++)
		if (strcasecmp(w->cut[i], name) == 0)
			return (true);
	return (false);
}

void
weave_track_back(struct weave *w, uint64_t to)
{
	for (unsigned i = 0; i < w->note_count; i++) {
		const struct track_note *n = &w->notes[i];

		if (n->at <= to || n->kind != NOTE_SET || w->cut_count >= NOTES_MAX ||
		    cut_has(w, n->name))
			continue;
		w->cut = mem_realloc(w->cut, (w->cut_count + 1) * sizeof(w->cut[0]));
		w->cut[w->cut_count++] = mem_str(n->name);
	}
	if (w->note_count == 0 || w->notes[w->note_count - 1].at <= to)
		return;
	notes_cut(w, to);
	w->noted_cut = ++w->noted;
}

/* ---- what is sent ---- */

static char *
config_sql(const char *name, const char *value, bool is_local)
{
	struct buf sql = {0};
	char *result;

	buf_addstr(&sql, "SELECT pg_catalog.set_config(");
	vars_sql_literal(&sql, name);
	buf_addstr(&sql, ",");
	if (value != NULL)
		vars_sql_literal(&sql, value);
	else
		buf_addstr(&sql, "NULL");
	buf_addstr(&sql, is_local ? ",true)" : ",false)");
	result = mem_strn((const char *)sql.mem, sql.len);
	buf_free(&sql);
	return (result);
}

static bool
note_config(struct weave *w, const char *name, const char *value, bool is_local)
{
	return (note_add(w, (struct track_note){.kind = NOTE_SET,
				.name = mem_str(name),
				.value = value != NULL ? mem_str(value) : NULL,
				.sql = config_sql(name, value, is_local),
				.is_local = is_local}));
}

/* What was set is not known. */
static bool
note_unknown(struct weave *w)
{
	(void)note_add(w, (struct track_note){.kind = NOTE_UNKNOWN});
	return (false);
}

/* SET SESSION CHARACTERISTICS AS TRANSACTION sets what it speaks of. */
static bool
note_characteristics(struct weave *w, const struct sql_facts *f)
{
	bool is_told = true;

	if (f->isolation != NULL)
		is_told &=
		    note_config(w, "default_transaction_isolation", f->isolation, false);
	if (f->is_read_only || f->is_read_write)
		is_told &= note_config(w, "default_transaction_read_only",
		    f->is_read_only ? "on" : "off", false);
	if (f->is_deferrable || f->is_not_deferrable)
		is_told &= note_config(w, "default_transaction_deferrable",
		    f->is_deferrable ? "on" : "off", false);
	return (is_told);
}

static bool
note_set(struct weave *w, const struct sense *sense)
{
	const struct sql_facts *f = sense->facts;
	bool has_value = f->set_verb != SQL_SET_RESET && f->value != NULL;

	if (f->setting == NULL)
		return (note_unknown(w));
	if (strcmp(f->setting, "session characteristics") == 0)
		return (note_characteristics(w, f));
	return (note_add(w, (struct track_note){.kind = NOTE_SET,
				.name = mem_str(f->setting),
				.value = has_value ? mem_str(f->value) : NULL,
				.sql = mem_strn(sense->scan.sql, sense->scan.len),
				.is_local = f->set_verb == SQL_SET_LOCAL ||
					    strcmp(f->setting, "transaction") == 0}));
}

/* ---- set_config() ---- */

/* What a parameter's type was declared as; 0: it was left to the server. */
static uint32_t
declared_type(const struct binding *b, unsigned n)
{
	return (b->types_len >= 2 + 4 * (size_t)n
		    ? proto_get32(b->types + 2 + 4 * (size_t)(n - 1))
		    : 0);
}

/* *text: the value, or NULL; the caller frees it. False: it cannot be told. */
static bool
argument_text(const struct sql_config_argument *a, const struct binding *b, char **text)
{
	struct route_datum d;
	uint32_t type;

	*text = a->text != NULL ? mem_str(a->text) : NULL;
	if (a->param == 0)
		return (true);
	if (b == NULL || !binding_param((void *)(uintptr_t)b, a->param, &d) ||
	    d.is_hidden)
		return (false);
	if (d.is_null)
		return (true);
	type = d.is_binary ? declared_type(b, a->param) : 0;
	if (type == 16 && d.len == 1)
		*text = mem_str(d.p[0] != 0 ? "t" : "f");
	else if (type == 0 || type == 25 || type == 705 || type == 1043)
		*text = mem_strn((const char *)d.p, d.len);
	else
		return (false);
	return (true);
}

/* As PostgreSQL reads a boolean; a byte that is one by itself is a binary one. -1: it is none. */
static int
argument_truth(const char *text, const struct sql_config_argument *a)
{
	static const char *const words[] = {"false", "true", "no", "yes", "0", "1"};
	size_t len = text != NULL ? strlen(text) : 0;

	if (text == NULL)
		return (0);
	if (len == 0)
		return (a->param > 0 ? 0 : -1);
	if (a->param > 0 && text[0] == '\1' && len == 1)
		return (1);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strncasecmp(words[i], text, len) == 0)
			return ((int)i & 1);
	if (strcasecmp(text, "on") == 0)
		return (1);
	return (strcasecmp(text, "off") == 0 || strcasecmp(text, "of") == 0 ? 0 : -1);
}

static bool
note_call(struct weave *w, const struct sql_config_call *call, const struct binding *b)
{
	char *name = NULL, *value = NULL, *local = NULL;
	bool is_known;
	int is_local = -1;

	is_known = argument_text(&call->name, b, &name) && name != NULL &&
		   argument_text(&call->value, b, &value) &&
		   argument_text(&call->is_local, b, &local);
	if (is_known)
		is_local = argument_truth(local, &call->is_local);
	is_known = is_local >= 0 && note_config(w, name, value, is_local == 1);
	free(name);
	free(value);
	free(local);
	return (is_known);
}

static bool
note_calls(struct weave *w, const struct sense *sense, const struct binding *b)
{
	struct sql_config_call *calls;
	unsigned count = sql_config_calls(&sense->scan, &calls);
	bool is_known = count > 0;

	for (unsigned i = 0; i < count && is_known; i++)
		is_known = note_call(w, &calls[i], b);
	if (count > 0)
		sql_config_calls_free(calls, count);
	return (is_known || note_unknown(w));
}

/* However long it is: of what is too long to be parsed there are no facts. */
static bool
has_calls_alone(const struct sense *sense)
{
	struct sql_config_call *calls;
	unsigned count;

	if (strcmp(sense->scan.verb, "select") != 0 ||
	    !sense_has_word(sense, "set_config"))
		return (false);
	count = sql_config_calls(&sense->scan, &calls);
	if (count > 0)
		sql_config_calls_free(calls, count);
	return (count > 0);
}

bool
weave_track_is_call(const struct sense *sense)
{
	return (sense->facts->class == SQL_WRITE && sense->facts->table_count == 0 &&
		has_calls_alone(sense));
}

bool
weave_track_may_run(struct session *s, const struct sense *sense, const struct binding *b)
{
	const struct sql_facts *f = sense->facts;
	size_t len = sense->scan.len + (b != NULL ? b->values_len : 0);
	bool sets = f->class == SQL_SET ? f->set_verb != SQL_SET_SHOW
					: weave_track_is_call(sense);
	struct prep_inner inner;

	if (len > SET_BYTES_MAX && !sets) {
		sets = has_calls_alone(sense);
		if (prep_inner_find(s, sense, &inner)) {
			sets = has_calls_alone(&inner.sense);
			prep_inner_free(s, &inner);
		}
	}
	return (!sets || may_note(s->weave, len));
}

bool
weave_track_call(struct session *s, const struct sense *sense, const struct binding *b)
{
	const struct sql_facts *f = sense->facts;

	if ((f->class != SQL_READ && f->class != SQL_WRITE && f->class != SQL_UNKNOWN) ||
	    !sense_has_word(sense, "set_config"))
		return (false);
	return (note_calls(s->weave, sense, b));
}

bool
weave_track_note(struct session *s, const struct sense *sense)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;

	if (f->class == SQL_SET)
		return (f->set_verb == SQL_SET_SHOW || note_set(w, sense));
	/* SET CONSTRAINTS of some belongs to the database that has them. */
	if (f->class == SQL_UTILITY && strcmp(sense->scan.verb, "set") == 0) {
		if (sense_has_word(sense, " all "))
			(void)note_add(
			    w, (struct track_note){.kind = NOTE_SET,
				   .name = mem_str("constraints"),
				   .sql = mem_strn(sense->scan.sql, sense->scan.len),
				   .is_local = true});
		return (true);
	}
	if ((f->class == SQL_COMMIT || f->class == SQL_ROLLBACK) && w->note_count > 0)
		(void)note_add(
		    w, (struct track_note){
			   .kind = f->class == SQL_COMMIT ? NOTE_COMMIT : NOTE_ROLLBACK});
	return (true);
}

/* ---- what a leg is told ---- */

/* What holds again where the note that set it was cut. */
static void
put_cut(const struct weave *w, struct buf *sql)
{
	for (unsigned i = 0; i < w->cut_count; i++) {
		const char *name = w->cut[i];
		char *one;

		/* The transaction's own modes cannot be taken back. */
		if (strncmp(name, "transaction", 11) == 0 || is_mode(name) ||
		    strcmp(name, "all") == 0)
			continue;
		if (strcmp(name, VARS_AUTHORIZATION) == 0)
			name = "session_authorization";
		one = config_sql(name,
		    w->base_vars != NULL ? vars_get(w->base_vars, name) : NULL, true);
		buf_addf(sql, "%s;", one);
		free(one);
	}
}

int
weave_track_catch_up(const struct weave *w, const struct leg *leg, struct buf *sql)
{
	bool was_cut = leg->told > 0 && leg->told < w->noted_cut;
	uint64_t from = was_cut ? 0 : leg->told;

	if (leg->told == w->noted_sure)
		return (0);
	if (was_cut && w->cut_count >= NOTES_MAX)
		return (-1);
	if (was_cut)
		put_cut(w, sql);
	for (unsigned i = 0; i < w->note_count; i++) {
		const struct track_note *n = &w->notes[i];

		if (n->at <= from || n->at > w->noted_sure)
			continue;
		if (n->kind == NOTE_UNKNOWN)
			return (-1);
		if (n->kind != NOTE_SET)
			continue;
		/* A comment may stand at the end. */
		buf_addf(sql, "%s\n;", n->sql);
	}
	return (sql->len > 0);
}

/* ---- what holds when they have run ---- */

void
weave_tracked_set(struct session *s, struct vars **to, struct vars *value)
{
	s->weave->knows_level = false;
	if (value != NULL)
		vars_hold(value);
	if (*to != NULL)
		vars_release(s->worker, *to);
	*to = value;
}

/* The VARS_STARTUP members of a set without that one. */
static struct vars *
without(struct session *s, const struct vars *of, const char *gone)
{
	struct vars *result = vars_without_startup(s->worker, vars_hold(s->startup));
	const char *name, *value;
	enum vars_kind kind;

	for (unsigned i = 0; i < vars_count(of); i++) {
		vars_at(of, i, &name, &value, &kind);
		if (kind == VARS_STARTUP && strcasecmp(name, gone) != 0)
			result = vars_with(s->worker, result, name, value, kind);
	}
	return (result);
}

/* RESET ALL leaves who the session is. */
static void
reset_all(struct session *s)
{
	static const char *const stays[] = {VARS_ROLE, VARS_AUTHORIZATION};
	struct weave *w = s->weave;
	struct vars *now = vars_hold(s->startup);

	for (size_t i = 0; i < ARRAY_LEN(stays); i++) {
		const char *value = vars_get(session_tracked(s), stays[i]);

		if (value != NULL)
			now = vars_with(s->worker, now, stays[i], value, VARS_STARTUP);
	}
	weave_tracked_set(s, &w->tracked, now);
	vars_release(s->worker, now);
}

/* RESET of what servers report: the link reports its server's default, and the session has what
 * the client asked for when it connected. */
static void
note_restore(struct session *s, const struct link *l, const struct track_note *n)
{
	struct weave *w = s->weave;
	bool is_all = strcmp(n->name, "all") == 0;
	const char *name, *value, *born;
	enum vars_kind kind;

	if (w->restored == NULL)
		w->restored = vars_none(s->worker);
	for (unsigned i = 0; i < vars_count(s->startup); i++) {
		vars_at(s->startup, i, &name, &value, &kind);
		born = vars_get(l->born, name);
		if (kind == VARS_REPORTED && born != NULL && strcmp(born, value) != 0 &&
		    (is_all || strcasecmp(name, n->name) == 0))
			w->restored = vars_with(s->worker, w->restored, name,
			    n->value == NULL ? value : NULL, VARS_REPORTED);
	}
}

struct vars *
weave_track_restored(struct session *s, struct vars *now)
{
	struct weave *w = s->weave;
	const char *name, *value;
	enum vars_kind kind;

	for (unsigned i = 0; i < vars_count(w->restored); i++) {
		vars_at(w->restored, i, &name, &value, &kind);
		now = vars_with(s->worker, now, name, value, kind);
	}
	vars_release(s->worker, w->restored);
	w->restored = NULL;
	return (now);
}

/* The session has it now, and so has the link. */
static void
note_hold(struct session *s, struct link *l, const struct track_note *n)
{
	struct weave *w = s->weave;
	const char *first;
	struct vars *now;

	if (n->kind == NOTE_LISTEN || n->kind == NOTE_UNLISTEN)
		listen_hold(s, n->name, n->kind == NOTE_UNLISTEN);
	if (n->kind != NOTE_SET || n->is_local || l == NULL)
		return;
	if (n->value == NULL || w->restored != NULL)
		note_restore(s, l, n);
	if (n->value == NULL && strcmp(n->name, "all") == 0) {
		reset_all(s);
		l->vars = vars_with_startup(s->worker, l->vars, NULL);
		return;
	}
	/* What the server reports is told by its reports. */
	if (vars_get(l->born, n->name) != NULL)
		return;
	first = vars_get(s->startup, n->name);
	now = without(s, session_tracked(s), n->name);
	if (n->value != NULL || first != NULL)
		now = vars_with(s->worker, now, n->name,
		    n->value != NULL ? n->value : first, VARS_STARTUP);
	weave_tracked_set(s, &w->tracked, now);
	vars_release(s->worker, now);
	/* RESET goes to the server's default, not to what the client asked for when it
	 * connected: the link is in doubt, and set before its next statement. */
	l->vars = vars_with(s->worker, l->vars, n->name,
	    n->value != NULL ? n->value : "\001", VARS_STARTUP);
}

/* The first `count` notes have held to their end. */
static void
notes_end(struct session *s, struct link *l, unsigned count, bool committed)
{
	struct weave *w = s->weave;

	for (unsigned i = 0; i < count && committed; i++)
		note_hold(s, l, &w->notes[i]);
	while (count-- > 0)
		note_remove(w, 0);
}

void
weave_track_end(struct session *s, bool committed)
{
	notes_end(s, NULL, s->weave->note_count, committed);
	weave_track_free(s);
}

void
weave_track_listen(struct weave *w, const char *channel, bool is_off)
{
	/* Outside of a transaction it holds at the end of the string or batch. */
	bool is_sure = w->txn != TXN_NONE && w->noted_sure == w->noted;

	(void)note_add(
	    w, (struct track_note){.kind = is_off ? NOTE_UNLISTEN : NOTE_LISTEN,
		   .name = channel != NULL ? mem_str(channel) : NULL});
	if (is_sure)
		w->noted_sure = w->noted;
}

bool
weave_track_listens(const struct weave *w)
{
	for (unsigned i = 0; i < w->note_count; i++)
		if (w->notes[i].kind == NOTE_LISTEN || w->notes[i].kind == NOTE_UNLISTEN)
			return (true);
	return (false);
}

/* The ends of transactions among the notes; of those that were committed only so many. */
static bool
ends_pass(struct session *s, struct link *l, unsigned commits)
{
	struct weave *w = s->weave;
	bool has_ended = false;

	for (unsigned i = 0; i < w->note_count; i++) {
		enum note_kind kind = w->notes[i].kind;

		if (kind != NOTE_COMMIT && kind != NOTE_ROLLBACK)
			continue;
		if (kind == NOTE_COMMIT && commits-- == 0)
			break;
		notes_end(s, l, i + 1, kind == NOTE_COMMIT);
		i = UINT_MAX;
		has_ended = true;
	}
	return (has_ended);
}

/* What was said of the setting behind that note: the last one, or NULL. */
static const struct track_note *
note_later(const struct weave *w, const char *name, uint64_t at)
{
	for (unsigned i = w->note_count; i-- > 0 && w->notes[i].at > at;)
		if (w->notes[i].kind == NOTE_SET &&
		    strcasecmp(w->notes[i].name, name) == 0)
			return (&w->notes[i]);
	return (NULL);
}

/* The value, below what was said of it for the transaction alone; if that was a RESET, it is the
 * same. */
static void
note_below(struct weave *w, const char *name, const char *value, bool is_local,
    const struct track_note *later)
{
	struct track_note local = {.kind = NOTE_SET, .is_local = true};
	bool has_local = later != NULL && later->value != NULL;

	if (has_local) {
		local.name = mem_str(later->name);
		local.value = mem_str(later->value);
		local.sql = mem_str(later->sql);
	}
	(void)note_config(w, name, value, is_local);
	if (has_local)
		(void)note_add(w, local);
}

/* The first one. */
static const struct track_note *
note_behind(const struct weave *w, uint64_t at)
{
	for (unsigned i = 0; i < w->note_count; i++)
		if (w->notes[i].at > at)
			return (&w->notes[i]);
	return (NULL);
}

/* What a RESET goes back to is what the client asked for when it connected: to be told to the
 * leg that has run it, too. */
static void
note_restored(struct session *s, struct link *l, const struct track_note *reset)
{
	struct weave *w = s->weave;
	bool is_all = strcmp(reset->name, "all") == 0;
	const struct track_note *later;
	const char *name, *value, *born;
	bool is_local = reset->is_local;
	char *only = mem_str(reset->name);
	uint64_t at = reset->at;
	enum vars_kind kind;

	for (unsigned i = 0; i < vars_count(s->startup); i++) {
		vars_at(s->startup, i, &name, &value, &kind);
		born = vars_get(l->born, name);
		if (kind == VARS_FIXED ||
		    (is_all ? strcmp(name, VARS_ROLE) == 0
			    : strcasecmp(name, only) != 0) ||
		    (kind == VARS_REPORTED && born != NULL && strcmp(born, value) == 0))
			continue;
		later = note_later(w, name, at);
		if (later == NULL || (later->is_local && !is_local))
			note_below(w, name, value, is_local, later);
	}
	free(only);
}

/* SET TRANSACTION says what BEGIN might have said, and what AND CHAIN says again. */
static void
modes_stay(struct session *s, uint64_t after)
{
	const struct weave *w = s->weave;

	for (unsigned i = 0; i < w->note_count && w->frame_count == 0; i++) {
		const struct track_note *n = &w->notes[i];

		if (n->at > after && n->kind == NOTE_SET &&
		    strcmp(n->name, "transaction") == 0 &&
		    strcasestr(n->sql, "snapshot") == NULL)
			weave_txn_more(s, n->sql, strlen(n->sql));
	}
}

void
weave_track_ready(struct session *s, struct link *l, char status)
{
	struct weave *w = s->weave;
	bool has_failed = w->unit.has_failed;
	uint64_t sure = w->noted_sure, noted;
	bool has_ended = ends_pass(s, l, has_failed ? w->unit.commits : UINT_MAX);
	const struct track_note *n;
	struct leg *leg;

	if (w->unit.discards)
		weave_tracked_set(s, &w->tracked, NULL);
	if (status == 'I') {
		notes_end(s, l, w->note_count,
		    w->unit.is_unsure ? w->unit.ended == ENDED_COMMIT : !has_failed);
		/* Undone by the server, or not: one cannot tell which of them. */
		if (has_failed && w->noted > 0)
			l->vars = vars_with_startup(s->worker, l->vars, NULL);
		weave_track_free(s);
		return;
	}
	/* What it was before is not known to those who come to it in the middle. */
	if (has_ended && w->note_count > 0)
		(void)note_unknown(w);
	if (w->txn == TXN_OPEN && !has_ended && status == 'T')
		modes_stay(s, sure);
	leg = leg_note(s, l);
	leg->told = noted = w->noted;
	/* Some of those that it adds take the place of others. */
	while (status == 'T' && (n = note_behind(w, sure)) != NULL && n->at <= noted) {
		sure = n->at;
		if (n->kind == NOTE_SET && n->value == NULL && !is_mode(n->name))
			note_restored(s, l, n);
	}
	w->noted_sure = w->noted;
}
