/*
 * Cursors and portals that servers hold for a transaction on a virtual database: which member
 * knows which name. Clients read several side by side, and FETCH, CLOSE and Execute say a name
 * and nothing else.
 *
 * A name that is not found here (there were too many, or a savepoint has undone something) is
 * looked for on a leg that has any.
 */
#include "weave.h"
#include <stdlib.h>
#include <string.h>

#define CURSORS_MAX 256u

static struct weave_cursor *
cursor_find(struct weave *w, const char *name)
{
	for (unsigned i = 0; i < w->cursor_count; i++)
		if (strcmp(w->cursors[i].name, name) == 0)
			return (&w->cursors[i]);
	return (NULL);
}

static void
cursor_take_out(struct weave *w, struct weave_cursor *c)
{
	size_t i = (size_t)(c - w->cursors);

	free(c->name);
	w->cursor_count--;
	memmove(c, c + 1, (w->cursor_count - i) * sizeof(*c));
}

void
cursors_close(struct weave *w, const char *name)
{
	struct weave_cursor *c = cursor_find(w, name);

	if (c != NULL)
		cursor_take_out(w, c);
}

void
cursors_open(struct weave *w, const char *name)
{
	w->unit.opens |= name[0] != '\0';
	if (name[0] == '\0')
		return;
	cursors_close(w, name);
	if (w->cursor_count == CURSORS_MAX)
		cursor_take_out(w, &w->cursors[0]);
	w->cursors = mem_realloc(w->cursors, (w->cursor_count + 1) * sizeof(*w->cursors));
	w->cursors[w->cursor_count++] = (struct weave_cursor){.name = mem_str(name)};
}

void
cursors_miss(struct weave *w)
{
	for (unsigned i = w->cursor_count; i-- > 0;)
		if (w->cursors[i].seat == NULL)
			cursor_take_out(w, &w->cursors[i]);
}

void
cursors_land(struct weave *w, const struct seat *seat)
{
	for (unsigned i = 0; i < w->cursor_count; i++)
		if (w->cursors[i].seat == NULL)
			w->cursors[i].seat = seat;
}

void
cursors_free(struct weave *w)
{
	while (w->cursor_count > 0)
		free(w->cursors[--w->cursor_count].name);
	free(w->cursors);
	w->cursors = NULL;
}

/* The leg that is known to have it; or NULL. */
static struct leg *
leg_known(struct weave *w, const char *name)
{
	const struct weave_cursor *c = cursor_find(w, name);

	for (unsigned i = 0; c != NULL && i < w->leg_count; i++)
		if (w->legs[i].seat == c->seat)
			return (&w->legs[i]);
	return (NULL);
}

bool
cursors_is_elsewhere(struct weave *w, const char *name, const struct seat *seat)
{
	const struct leg *leg = leg_known(w, name);

	return (leg != NULL && leg->seat != seat);
}

bool
cursors_is_held(struct weave *w, const char *name)
{
	return (cursor_find(w, name) == NULL && seat_of_held(w, name) != NULL);
}

bool
cursors_may_open(struct weave *w, const char *name, const struct seat *seat)
{
	char *message;

	if (!cursors_is_elsewhere(w, name, seat) &&
	    (!cursors_is_held(w, name) || seat_of_held(w, name) == seat))
		return (true);
	message = mem_printf("cursor \"%s\" already exists", name);
	refusal_set(&w->refusal, "42P03", message, NULL, NULL);
	free(message);
	return (false);
}

struct leg *
weave_leg_of_cursors(struct session *s, const char *name)
{
	struct weave *w = s->weave;
	struct leg *leg = s->link != NULL ? leg_note(s, s->link) : NULL;
	struct leg *known = leg_known(w, name);

	/* The unnamed portal is gone with the next statement. */
	if (name[0] == '\0')
		return (leg);
	if (known != NULL)
		return (known);
	for (unsigned i = 0; i < w->leg_count && (leg == NULL || !leg->has_portals); i++)
		if (w->legs[i].has_portals)
			leg = &w->legs[i];
	return (leg);
}
