/* What an operator does to databases: pause, resume, reconnect. */
#include "private.h"
#include <string.h>

/* Calls act() for the database of that name, or for all that are known. */
struct command {
	const char *name;
	void (*act)(struct pool_place *);
	unsigned links;
};

static void
command_each(void *arg, struct pool_place *p)
{
	struct command *c = arg;

	if (c->name != NULL && strcmp(c->name, p->name) != 0)
		return;
	if (c->act != NULL)
		c->act(p);
	c->links += p->links;
}

static unsigned
command_run(const char *name, void (*act)(struct pool_place *))
{
	struct command c = {.name = name, .act = act};
	/* A database that nobody has used yet gets its place first: the word holds for later. */
	struct pool_place *p = name != NULL ? pool_database(name) : NULL;

	pool_each_database(command_each, &c);
	pool_place_release(p);
	return (c.links);
}

static void
act_pause(struct pool_place *p)
{
	p->is_paused = true;
}

static void
act_resume(struct pool_place *p)
{
	p->is_paused = false;
}

static void
act_reconnect(struct pool_place *p)
{
	p->reconnect++;
}

void
pool_pause(const char *name)
{
	command_run(name, act_pause);
}

void
pool_resume(const char *name)
{
	command_run(name, act_resume);
}

void
pool_reconnect(const char *name)
{
	command_run(name, act_reconnect);
}

unsigned
pool_links(const char *name)
{
	return (command_run(name, NULL));
}

void
pool_apply(struct worker *w)
{
	struct seat *seat;

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		struct link *l, *next;

		for (l = TAILQ_FIRST(&seat->links); l != NULL; l = next) {
			next = TAILQ_NEXT(l, entry);
			if (l->state == LINK_IDLE &&
			    (seat->pool->db->is_paused || pool_is_stale(l)))
				link_close(l, seat->pool->db->is_paused
						  ? "pause mode"
						  : "database configuration changed");
		}
		pool_serve(seat);
	}
}
