/*
 * SET of what servers do not report, on virtual databases: the client's own, on whatever link
 * its next statement runs. What is set is known from the statement and, once its tag has come,
 * true; the sets of links and sessions then have it as they have what a client asks for when it
 * connects.
 */
#include "weave.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct vars *
session_tracked(const struct session *s)
{
	return (s->weave != NULL && s->weave->tracked != NULL ? s->weave->tracked
							      : s->startup);
}

bool
weave_track_begin(struct session *s, const struct sql_facts *f)
{
	struct weave *w = s->weave;
	bool is_reset = f->set_verb == SQL_SET_RESET;

	free(w->set_name);
	free(w->set_value);
	w->set_name = w->set_value = NULL;
	/* Of one string only one tag can be told from another. */
	if (f->setting == NULL || w->unit.is_string || (!is_reset && f->value == NULL))
		return (false);
	w->set_name = mem_str(f->setting);
	w->set_value = is_reset ? NULL : mem_str(f->value);
	return (true);
}

/* The set without that member. */
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
tracked_put(struct session *s, struct vars *taken)
{
	if (s->weave->tracked != NULL)
		vars_release(s->worker, s->weave->tracked);
	s->weave->tracked = taken;
}

void
weave_track(struct session *s, const char *tag)
{
	struct weave *w = s->weave;
	struct link *l = s->link;
	const char *first;
	struct vars *now;

	if (strcmp(tag, "DISCARD ALL") == 0 ||
	    (w->set_name != NULL && w->set_value == NULL &&
		strcmp(w->set_name, "all") == 0)) {
		tracked_put(s, NULL);
		return;
	}
	if (w->set_name == NULL)
		return;
	/* What the server reports is told by its reports. */
	if (vars_get(l->born, w->set_name) == NULL) {
		first = vars_get(s->startup, w->set_name);
		now = without(s, session_tracked(s), w->set_name);
		if (w->set_value != NULL || first != NULL)
			now = vars_with(s->worker, now, w->set_name,
			    w->set_value != NULL ? w->set_value : first, VARS_STARTUP);
		tracked_put(s, now);
		/* RESET goes to the server's default, not to what the client asked for when it
		 * connected: the link is in doubt, and set before its next statement. */
		l->vars = vars_with(s->worker, l->vars, w->set_name,
		    w->set_value != NULL ? w->set_value : "\001", VARS_STARTUP);
	}
	free(w->set_name);
	free(w->set_value);
	w->set_name = w->set_value = NULL;
}
