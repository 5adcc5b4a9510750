/*
 * Names of temporary tables of a session on a virtual database, and the members that have them.
 * They come before all other tables of their names. What there is at rest, the servers say
 * (anchors.c); what a transaction makes and drops is noted here as it is sent, and ROLLBACK TO
 * takes it back.
 */
#include "weave.h"
#include <stdlib.h>
#include <string.h>

/* topo refuses circles. */
#define FALLBACKS_MAX 16

struct temp {
	char *name;
	const struct seat *seat; /* NULL: it is gone */
};

void
temps_cut(struct weave *w, unsigned count)
{
	while (w->temp_count > count)
		free(w->temps[--w->temp_count].name);
	if (w->temp_sure > count)
		w->temp_sure = count;
	if (count > 0)
		return;
	free(w->temps);
	w->temps = NULL;
}

static void
add(struct weave *w, const char *name, const struct seat *seat)
{
	w->temps = mem_realloc(w->temps, (w->temp_count + 1) * sizeof(*w->temps));
	w->temps[w->temp_count++] = (struct temp){mem_str(name), seat};
}

bool
temps_are_any(const struct weave *w)
{
	const struct anchor *a;

	if (w->temp_count > 0)
		return (true);
	TAILQ_FOREACH(a, &w->anchors, entry)
		if (a->table_count > 0)
			return (true);
	return (false);
}

static bool
is_among(char *const *names, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return (true);
	return (false);
}

/* The seat that has the table; or NULL. */
static const struct seat *
seat_of_temp(const struct weave *w, const char *name)
{
	const struct anchor *a;

	for (unsigned i = w->temp_count; i-- > 0;)
		if (strcmp(w->temps[i].name, name) == 0)
			return (w->temps[i].seat);
	TAILQ_FOREACH(a, &w->anchors, entry)
		if (is_among(a->tables, a->table_count, name))
			return (a->link->place);
	return (NULL);
}

/* In a schema that is not the session's own. */
static bool
is_elsewhere(const struct sql_table *t)
{
	return (t->schema != NULL && strncmp(t->schema, "pg_temp", 7) != 0);
}

void
temps_note(struct session *s, const struct sense *sense, unsigned leaves)
{
	struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	bool is_drop = f->class == SQL_DDL && strcmp(sense->scan.verb, "drop") == 0;

	for (unsigned i = 0; i < f->table_count; i++) {
		const struct sql_table *t = &f->tables[i];
		const struct seat *was =
		    is_elsewhere(t) ? NULL : seat_of_temp(w, t->name);

		if (f->renamed != NULL && was != NULL) {
			add(w, t->name, NULL);
			add(w, f->renamed, was);
		} else if (t->is_created && (leaves & SQL_LEAVES_TABLE) != 0 &&
			   was != w->decided)
			add(w, t->name, w->decided);
		else if (is_drop && was != NULL)
			add(w, t->name, NULL);
	}
}

void
temps_hold(struct weave *w)
{
	struct anchor *a;

	for (unsigned i = 0; i < w->temp_count; i++)
		TAILQ_FOREACH(a, &w->anchors, entry)
			anchor_has_table(
			    a, w->temps[i].name, a->link->place == w->temps[i].seat);
	temps_cut(w, 0);
}

/* ---- members ---- */

/* It may answer for the member while that is down. */
static bool
stands_in(const struct topo_database *member, const struct topo_database *db)
{
	const struct topo_database *at = topo_database_served(member);

	for (unsigned hops = 0; hops < FALLBACKS_MAX && at->fallback != NULL; hops++) {
		at = topo_database_served(at->fallback);
		if (at == db || topo_database_primary(at, NULL) == db)
			return (true);
	}
	return (false);
}

const struct topo_database *
member_of_seat(const struct weave *w, const struct seat *seat)
{
	const struct topo_database *near = NULL;

	for (size_t i = 0; i < w->virt->member_count; i++) {
		const struct topo_database *m = w->virt->members[i],
					   *served = topo_database_served(m);

		if (served->replica_of == NULL
			? topo_database_primary(served, NULL) == seat->database
			: served == seat->database)
			return (m);
		if (seat->database != NULL &&
		    (served == seat->database || seat->database->replica_of == served ||
			(near == NULL && stands_in(m, seat->database))))
			near = m;
	}
	return (near);
}

/* The only seat with temporary tables; or NULL. */
static const struct seat *
lone_seat(const struct weave *w)
{
	const struct seat *seat = NULL;
	const struct anchor *a;

	TAILQ_FOREACH(a, &w->anchors, entry) {
		if ((a->pins.held & SQL_LEAVES_TABLE) == 0)
			continue;
		if (seat != NULL)
			return (NULL);
		seat = a->link->place;
	}
	return (seat);
}

const struct topo_database *
temps_pinned(void *arg, const struct sql_table *t)
{
	const struct weave *w = ((const struct session *)arg)->weave;
	const struct seat *seat;

	if (is_elsewhere(t))
		return (NULL);
	seat = seat_of_temp(w, t->name);
	if (seat == NULL && t->schema != NULL)
		seat = lone_seat(w);
	return (seat != NULL ? member_of_seat(w, seat) : NULL);
}

struct seat *
seat_of_held(const struct weave *w, const char *cursor)
{
	const struct anchor *a;

	TAILQ_FOREACH(a, &w->anchors, entry)
		if (is_among(a->cursors, a->cursor_count, cursor))
			return (a->link->place);
	return (NULL);
}

/* A function of the session's own, which is called by its schema alone. */
static bool
calls_temporary(const struct sql_facts *f)
{
	for (unsigned i = 0; i < f->call_count; i++)
		if (f->calls[i].schema != NULL &&
		    strncmp(f->calls[i].schema, "pg_temp", 7) == 0)
			return (true);
	return (false);
}

const struct topo_database *
temps_pinned_at(const struct session *s, const struct sense *sense)
{
	const struct weave *w = s->weave;
	const struct sql_facts *f = sense->facts;
	const struct seat *seat = NULL;

	if (f->cursor != NULL && strcmp(sense->scan.verb, "declare") != 0)
		seat = seat_of_held(w, f->cursor);
	else if (f->table_count == 0 && calls_temporary(f))
		seat = lone_seat(w);
	return (seat != NULL ? member_of_seat(w, seat) : NULL);
}
