/* The settings pgweave.…: what was said at connect time, by SET, by SET LOCAL. */
#include "weave.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const names[SAID_WHAT] = {
    [SAID_DATABASE] = "pgweave.database",
    [SAID_DATABASES] = "pgweave.databases",
    [SAID_FEDERATION] = "pgweave.federation",
    [SAID_ON_UNAVAILABLE] = "pgweave.on_unavailable",
    [SAID_SHARD_KEY] = "pgweave.shard_key",
    [SAID_READ_FROM] = "pgweave.read_from",
};

int
said_find(const char *name)
{
	for (int i = 0; i < SAID_WHAT; i++)
		if (strcasecmp(names[i], name) == 0)
			return (i);
	return (-1);
}

void
said_put(struct said *said, enum said_what what, const char *value)
{
	char *copy = value != NULL ? mem_str(value) : NULL;

	free(said->v[what]);
	said->v[what] = copy;
}

void
said_copy(struct said *to, const struct said *from)
{
	for (unsigned i = 0; i < SAID_WHAT; i++)
		said_put(to, (enum said_what)i, from->v[i]);
}

void
said_free(struct said *said)
{
	for (unsigned i = 0; i < SAID_WHAT; i++)
		said_put(said, (enum said_what)i, NULL);
}

struct route_said
said_view(const struct said *said)
{
	return ((struct route_said){
	    .database = said->v[SAID_DATABASE],
	    .databases = said->v[SAID_DATABASES],
	    .federation = said->v[SAID_FEDERATION],
	    .on_unavailable = said->v[SAID_ON_UNAVAILABLE],
	    .shard_key = said->v[SAID_SHARD_KEY],
	    .read_from = said->v[SAID_READ_FROM],
	});
}

const char *
said_value(const struct weave *w, enum said_what what)
{
	if (w->local.v[what] != NULL)
		return (w->local.v[what]);
	if (w->session.v[what] != NULL)
		return (w->session.v[what]);
	switch (what) {
	case SAID_FEDERATION:
		return (w->virt->federation == ROUTE_TAG ? "tag" : "merge");
	case SAID_ON_UNAVAILABLE:
		return (w->virt->skips_unavailable ? "skip" : "error");
	case SAID_READ_FROM:
		return ("auto");
	case SAID_DATABASE:
	case SAID_DATABASES:
	case SAID_SHARD_KEY:
	case SAID_WHAT:
	default:
		return ("");
	}
}

/* ---- an error for the client ---- */

static char *
copy_of(const char *text)
{
	return (text != NULL && text[0] != '\0' ? mem_str(text) : NULL);
}

void
refusal_set(struct refusal *r, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	struct refusal was = *r;

	text_copy(r->sqlstate, sizeof(r->sqlstate), sqlstate);
	r->message = mem_str(message);
	r->detail = copy_of(detail);
	r->hint = copy_of(hint);
	free(was.message);
	free(was.detail);
	free(was.hint);
}

void
refusal_free(struct refusal *r)
{
	free(r->message);
	free(r->detail);
	free(r->hint);
	free(r->context);
	*r = (struct refusal){0};
}
