/*
 * SET of what servers do not report, on virtual databases: the client's own, on whatever link
 * its next statement runs. What is set is known from the statements, in the order in which they
 * are sent; that it was set, from their tags; that it stays so, from ReadyForQuery. The sets of
 * links and sessions then have it as they have what a client asks for when it connects.
 */
#include "weave.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void
step_add(struct weave *w, const char *name, const char *value, bool goes_on)
{
	w->steps = mem_realloc(w->steps, (w->step_count + 1) * sizeof(*w->steps));
	w->steps[w->step_count++] = (struct track_step){
	    .name = name != NULL ? mem_str(name) : NULL,
	    .value = value != NULL ? mem_str(value) : NULL,
	    .goes_on = goes_on,
	};
}

/* SET SESSION CHARACTERISTICS AS TRANSACTION sets what it speaks of, and one tag tells of all. */
static void
begin_characteristics(struct weave *w, const struct sql_facts *f)
{
	unsigned before = w->step_count;

	if (f->isolation != NULL)
		step_add(w, "default_transaction_isolation", f->isolation, false);
	if (f->is_read_only || f->is_read_write)
		step_add(w, "default_transaction_read_only",
		    f->is_read_only ? "on" : "off", w->step_count > before);
	if (f->is_deferrable || f->is_not_deferrable)
		step_add(w, "default_transaction_deferrable",
		    f->is_deferrable ? "on" : "off", w->step_count > before);
}

bool
weave_track_begin(struct session *s, const struct sql_facts *f)
{
	struct weave *w = s->weave;
	bool is_lasting = f->set_verb != SQL_SET_LOCAL &&
			  (f->setting == NULL || strcmp(f->setting, "transaction") != 0);
	bool has_value = f->set_verb != SQL_SET_RESET && f->value != NULL;

	if (!is_lasting || f->setting == NULL)
		step_add(w, NULL, NULL, false);
	else if (strcmp(f->setting, "session characteristics") == 0)
		begin_characteristics(w, f);
	else
		/* TO DEFAULT has no value either. */
		step_add(w, f->setting, has_value ? f->value : NULL, false);
	return (!is_lasting || f->setting != NULL);
}

void
weave_track_tag(struct session *s, const char *tag)
{
	struct weave *w = s->weave;

	if (strcmp(tag, "DISCARD ALL") == 0)
		w->unit.discards = true;
	else if ((strcmp(tag, "SET") == 0 || strcmp(tag, "RESET") == 0) &&
		 w->step_done < w->step_count)
		do
			w->step_done++;
		while (w->step_done < w->step_count && w->steps[w->step_done].goes_on);
}

void
weave_track_drop(struct weave *w)
{
	for (unsigned i = 0; i < w->step_count; i++) {
		free(w->steps[i].name);
		free(w->steps[i].value);
	}
	free(w->steps);
	w->steps = NULL;
	w->step_count = w->step_done = 0;
}

/* ---- the sets ---- */

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

/* The members of VARS_STARTUP without that one. */
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

static void
step_apply(struct session *s, struct link *l, const struct track_step *step)
{
	struct weave *w = s->weave;
	const char *first;
	struct vars *now;

	if (step->name == NULL)
		return;
	if (step->value == NULL && strcmp(step->name, "all") == 0) {
		weave_tracked_set(s, &w->tracked, NULL);
		return;
	}
	/* What the server reports is told by its reports. */
	if (vars_get(l->born, step->name) != NULL)
		return;
	first = vars_get(s->startup, step->name);
	now = without(s, session_tracked(s), step->name);
	if (step->value != NULL || first != NULL)
		now = vars_with(s->worker, now, step->name,
		    step->value != NULL ? step->value : first, VARS_STARTUP);
	weave_tracked_set(s, &w->tracked, now);
	vars_release(s->worker, now);
	/* RESET goes to the server's default, not to what the client asked for when it
	 * connected: the link is in doubt, and set before its next statement. */
	l->vars = vars_with(s->worker, l->vars, step->name,
	    step->value != NULL ? step->value : "\001", VARS_STARTUP);
}

void
weave_track_ready(struct session *s, struct link *l)
{
	struct weave *w = s->weave;

	for (unsigned i = 0; i < w->step_done && !w->unit.has_failed; i++)
		step_apply(s, l, &w->steps[i]);
	if (w->unit.discards)
		weave_tracked_set(s, &w->tracked, NULL);
	/* Undone by the server, or not: one cannot tell which of them. */
	if (w->step_done > 0 && w->unit.has_failed)
		l->vars = vars_with_startup(s->worker, l->vars, NULL);
	weave_track_drop(w);
}

void
weave_track_undo(struct session *s, struct vars *to)
{
	struct weave *w = s->weave;

	if (w->tracked == to)
		return;
	weave_tracked_set(s, &w->tracked, to);
	if (s->vars != NULL)
		s->vars = vars_with_startup(s->worker, s->vars, session_tracked(s));
	if (s->link != NULL)
		s->link->vars = vars_with_startup(s->worker, s->link->vars, NULL);
	for (unsigned i = 0; i < w->leg_count; i++) {
		struct link *l = w->legs[i].link;

		if (l != NULL && l != s->link)
			l->vars = vars_with_startup(s->worker, l->vars, NULL);
	}
}
