/*
 * What a key may reach, and where its statements go when nothing else is said.
 *
 *   database   the member of its user id, no other
 *   client     the default, no other
 *   server     those it lists, or any
 */
#include "private.h"

#include <inttypes.h>
#include <stdio.h>

/* The first group of shards whose key is an integer, or else may be written as one; NULL: there
 * is none. */
static const struct topo_shard *
shard_of_users(const struct topo_virtual *v, int64_t user_id, struct route_value *value)
{
	for (unsigned writes = 0; writes < 2; writes++) {
		for (size_t i = 0; i < v->shard_count; i++) {
			const struct topo_shard *s = &v->shards[i];

			if ((writes > 0 || s->type <= TOPO_SHARD_BIGINT) &&
			    route_value_integer(s, user_id, value))
				return (s);
		}
	}
	return (NULL);
}

/* By the shard function where there is one, NULL when it has no place for him; otherwise even
 * to the default, odd to the second member (the first that is not the default). */
static const struct topo_database *
own_by_user_id(const struct topo_virtual *v, int64_t user_id)
{
	struct route_value value;
	const struct topo_shard *shard = shard_of_users(v, user_id, &value);
	int place;

	if (shard != NULL) {
		place = topo_shard_place(shard, &value.v);
		return (place >= 0 ? shard->members[place] : NULL);
	}
	if (user_id % 2 == 0)
		return (v->dflt);
	for (size_t i = 0; i < v->member_count; i++) {
		if (v->members[i] != v->dflt)
			return (v->members[i]);
	}
	return (v->dflt);
}

const struct topo_database *
route_own(const struct topo_virtual *v, const struct topo_key *key)
{
	if (key == NULL || key->type == TOPO_KEY_SERVER)
		return (NULL);
	if (key->type == TOPO_KEY_CLIENT || !key->has_user_id)
		return (v->dflt);
	return (own_by_user_id(v, key->user_id));
}

bool
route_is_lost(const struct topo_virtual *v, const struct topo_key *key)
{
	return (key != NULL && key->type != TOPO_KEY_SERVER && route_own(v, key) == NULL);
}

void
route_deny_lost(const struct topo_key *key, struct route_problem *why)
{
	char name[128];

	route_put(why->sqlstate, 6, "42501");
	route_put(why->message, why->message_len,
	    "%s of type database may not use any database",
	    route_key_name(key, name, sizeof(name)));
	route_put(why->detail, why->detail_len,
	    "Its user id is %" PRId64 ", and no shard has that.", key->user_id);
}

bool
route_may(const struct topo_key *key, const struct topo_database *own,
    const struct topo_database *member)
{
	if (own != NULL)
		return (member == own);
	return (key == NULL || topo_key_may_reach(key, member->name));
}

const struct topo_database *
route_home(const struct topo_virtual *v, const struct topo_key *key,
    const struct topo_database *own, enum route_rule *rule)
{
	const struct topo_database *only = NULL;

	*rule = own != NULL ? ROUTE_BY_KEY : ROUTE_BY_DEFAULT;
	if (own != NULL)
		return (own);
	if (route_may(key, NULL, v->dflt))
		return (v->dflt);
	*rule = ROUTE_BY_KEY;
	for (size_t i = 0; i < v->member_count; i++) {
		if (!route_may(key, NULL, v->members[i]))
			continue;
		if (only != NULL)
			return (NULL);
		only = v->members[i];
	}
	return (only);
}

const char *
route_key_name(const struct topo_key *key, char *to, size_t size)
{
	route_put(to, size, "%s \"%s\"", key->is_login ? "login" : "key", key->id);
	return (to);
}

void
route_deny(const struct topo_key *key, const struct topo_database *own,
    const struct topo_database *member, struct route_problem *why)
{
	char name[128];

	INVARIANT(key != NULL);
	route_put(why->sqlstate, 6, "42501");
	route_key_name(key, name, sizeof(name));
	if (own != NULL)
		route_put(why->message, why->message_len,
		    "%s of type %s may only use database \"%s\"", name,
		    key->type == TOPO_KEY_CLIENT ? "client" : "database", own->name);
	else
		route_put(why->message, why->message_len,
		    "%s may not use database \"%s\"", name, member->name);
	route_put(why->detail, why->detail_len, "%s", "");
}

bool
route_denied(
    struct route_work *w, const struct topo_database *member, const char *fmt, ...)
{
	struct route_problem why = route_problem_of(w->out);
	va_list ap;

	route_deny(w->in->key, w->own, member, &why);
	va_start(ap, fmt);
	(void)vsnprintf(w->out->detail, sizeof(w->out->detail), fmt, ap);
	va_end(ap);
	w->out->way = ROUTE_REFUSED;
	return (false);
}
