/* The settings pgweave.…: the values they take, and the sentence for those they do not. */
#include "private.h"

#include <stdio.h>
#include <strings.h>

const char *const route_settings[] = {"database", "databases", "federation",
    "on_unavailable", "shard_key", "read_from", NULL};

static void put_at(char *to, size_t size, size_t at, const char *fmt, va_list ap)
    PRINTF(4, 0);

static void
put_at(char *to, size_t size, size_t at, const char *fmt, va_list ap)
{
	if (size > 0 && at < size - 1)
		(void)vsnprintf(to + at, size - at, fmt, ap);
}

void
route_put(char *to, size_t size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_at(to, size, 0, fmt, ap);
	va_end(ap);
}

void
route_append(char *to, size_t size, const char *fmt, ...)
{
	va_list ap;

	if (size == 0)
		return;
	va_start(ap, fmt);
	put_at(to, size, strlen(to), fmt, ap);
	va_end(ap);
}

const char *
route_table_name(const struct sql_table *t, char *to, size_t size)
{
	if (t->schema != NULL)
		route_put(to, size, "%s.%s", t->schema, t->name);
	else
		route_put(to, size, "%s", t->name);
	return (to);
}

bool
route_is_auto(const char *value)
{
	return (value[0] == '\0' || strcasecmp(value, "auto") == 0);
}

int
route_federation_of(const char *value)
{
	if (strcasecmp(value, "merge") == 0)
		return (ROUTE_MERGE);
	return (strcasecmp(value, "tag") == 0 ? ROUTE_TAG : -1);
}

int
route_skips_of(const char *value)
{
	if (strcasecmp(value, "error") == 0)
		return (0);
	return (strcasecmp(value, "skip") == 0 ? 1 : -1);
}

int
route_read_from_of(const char *value)
{
	if (route_is_auto(value))
		return (READ_FROM_AUTO);
	if (strcasecmp(value, "primary") == 0)
		return (READ_FROM_PRIMARY);
	return (strcasecmp(value, "replica") == 0 ? READ_FROM_REPLICA : -1);
}

bool
route_is_blank(char c)
{
	return (c == ' ' || (c >= '\t' && c <= '\r'));
}

void
route_bad_value(struct route_problem *why, const char *setting, const char *value)
{
	route_put(why->sqlstate, 6, "22023");
	route_put(why->message, why->message_len,
	    "invalid value for parameter \"pgweave.%s\": \"%.128s\"", setting, value);
	route_put(why->detail, why->detail_len, "%s", "");
}

/* "Allowed are primary, secondary, …": those that the key may be told of. With is_list,
 * those that it may federate, which for a key of one member are others than its own. */
static void
allowed_members(const struct topo_virtual *v, const struct topo_key *key, bool is_list,
    struct route_problem *why)
{
	const struct topo_database *own = is_list ? NULL : route_own(v, key);

	route_put(why->detail, why->detail_len, "Allowed are %s",
	    is_list ? "'' (automatic), all, and lists of" : "'' (automatic)");
	for (size_t i = 0, n = 0; i < v->member_count; i++) {
		if (route_may(key, own, v->members[i]))
			route_append(why->detail, why->detail_len, "%s %s",
			    n++ == 0 && is_list ? "" : ",", v->members[i]->name);
	}
	route_append(why->detail, why->detail_len, ".");
}

const struct topo_database *
route_named(const struct topo_virtual *v, const struct topo_key *key, const char *value,
    struct route_problem *why)
{
	const struct topo_database *member = topo_member_find(v, value);

	if (member == NULL) {
		route_bad_value(why, "database", value);
		allowed_members(v, key, false, why);
	}
	return (member);
}

/* One name of the list; p is behind it and its comma. False: there is none. */
static bool
next_name(const char **p, char *to, size_t size)
{
	const char *from = *p, *end;

	if (from == NULL)
		return (false);
	end = strchr(from, ',');
	*p = end == NULL ? NULL : end + 1;
	if (end == NULL)
		end = from + strlen(from);
	while (from < end && route_is_blank(*from))
		from++;
	while (end > from && route_is_blank(end[-1]))
		end--;
	route_put(to, size, "%.*s", (int)(end - from), from);
	return (true);
}

static bool
has_member(const struct route_members *list, const struct topo_database *member)
{
	for (unsigned i = 0; i < list->count; i++) {
		if (list->at[i] == member)
			return (true);
	}
	return (false);
}

/* A member without a host is what its fallback is: not one more when that one is there. */
static void
drop_fallbacks(struct route_members *list)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < list->count; i++) {
		const struct topo_database *served = topo_database_served(list->at[i]);
		bool is_there = served != list->at[i] && has_member(list, served);

		for (unsigned k = 0; k < kept && !is_there; k++)
			is_there = topo_database_served(list->at[k]) == served;
		if (!is_there)
			list->at[kept++] = list->at[i];
	}
	list->count = kept;
}

static bool
list_all(const struct topo_virtual *v, const struct topo_key *key,
    struct route_members *out, struct route_problem *why)
{
	for (size_t i = 0; i < v->member_count; i++) {
		if (!route_may(key, NULL, v->members[i]))
			continue;
		if (out->count == ROUTE_LEGS_MAX) {
			route_put(why->sqlstate, 6, "0A000");
			route_put(why->message, why->message_len,
			    "a statement cannot go to more than %d databases",
			    ROUTE_LEGS_MAX);
			route_put(why->detail, why->detail_len, "%s", "");
			return (false);
		}
		out->at[out->count++] = v->members[i];
	}
	if (out->count > 0) {
		drop_fallbacks(out);
		return (true);
	}
	route_deny(key, NULL, v->dflt, why);
	route_put(why->detail, why->detail_len, "%s",
	    "None of the databases that it lists is part of this virtual database.");
	return (false);
}

static bool
may_federate(const struct topo_key *key, struct route_problem *why)
{
	char name[128];

	if (key == NULL || key->can_federate)
		return (true);
	route_put(why->sqlstate, 6, "42501");
	route_put(why->message, why->message_len, "%s may not run federated statements",
	    route_key_name(key, name, sizeof(name)));
	route_put(why->detail, why->detail_len, "%s",
	    "pgweave.databases needs the right FEDERATE, which it does not have.");
	return (false);
}

bool
route_list(const struct topo_virtual *v, const struct topo_key *key, const char *value,
    struct route_members *out, struct route_problem *why)
{
	const struct topo_database *member;
	const char *p = value;
	char name[256];

	out->count = 0;
	if (!may_federate(key, why))
		return (false);
	if (strcasecmp(value, "all") == 0)
		return (list_all(v, key, out, why));
	while (next_name(&p, name, sizeof(name))) {
		member = topo_member_find(v, name);
		if (member == NULL || has_member(out, member) ||
		    out->count == ROUTE_LEGS_MAX) {
			route_bad_value(why, "databases", value);
			if (member != NULL)
				route_put(why->detail, why->detail_len,
				    "\"%s\" stands there twice, or there are too many names.",
				    name);
			else
				allowed_members(v, key, true, why);
			return (false);
		}
		if (!route_may(key, NULL, member)) {
			route_deny(key, NULL, member, why);
			route_put(why->detail, why->detail_len,
			    "pgweave.databases names it, and the %s does not list it.",
			    key->is_login ? "login" : "key");
			return (false);
		}
		out->at[out->count++] = member;
	}
	return (true);
}

static bool
check_database(const struct topo_virtual *v, const struct topo_key *key,
    const char *value, struct route_problem *why)
{
	const struct topo_database *member, *own = route_own(v, key);

	if (route_is_auto(value))
		return (true);
	member = route_named(v, key, value, why);
	if (member == NULL)
		return (false);
	if (route_may(key, own, member))
		return (true);
	route_deny(key, own, member, why);
	route_put(
	    why->detail, why->detail_len, "pgweave.database names \"%s\".", member->name);
	return (false);
}

static bool
is_of(const char *value, int (*parse)(const char *), const char *setting,
    const char *allowed, struct route_problem *why)
{
	if (value[0] == '\0' || parse(value) >= 0)
		return (true);
	route_bad_value(why, setting, value);
	route_put(why->detail, why->detail_len, "Allowed are %s.", allowed);
	return (false);
}

/* It must be one for a group of shards; which one, the tables of a statement say. */
static bool
check_shard_key(
    const struct topo_virtual *v, const char *value, struct route_problem *why)
{
	static const struct topo_shard none = {.type = TOPO_SHARD_INTEGER};
	const struct topo_shard *first = v->shard_count > 0 ? v->shards : &none;
	struct route_value key;
	bool has_type = false;

	if (value[0] == '\0')
		return (true);
	if (v->shard_count == 0 &&
	    route_value_text(first, value, strlen(value), &key) == ROUTE_VALUE)
		return (true);
	for (size_t i = 0; i < v->shard_count; i++) {
		const struct topo_shard *s = &v->shards[i];

		if (route_value_text(s, value, strlen(value), &key) != ROUTE_VALUE)
			continue;
		has_type = true;
		if (topo_shard_place(s, &key.v) >= 0)
			return (true);
	}
	route_bad_value(why, "shard_key", value);
	if (has_type)
		route_put(why->detail, why->detail_len, "%s",
		    "No shard has a value like this.");
	else
		route_put(why->detail, why->detail_len,
		    "Allowed are %ss, or '' for none.",
		    topo_shard_type_name(first->type));
	return (false);
}

static bool
check_any(const struct topo_virtual *v, const struct topo_key *key, const char *name,
    const char *value, struct route_problem *why)
{
	struct route_members members;

	if (route_is_lost(v, key)) {
		route_deny_lost(key, why);
		return (false);
	}
	if (strcmp(name, "database") == 0)
		return (check_database(v, key, value, why));
	if (strcmp(name, "databases") == 0)
		return (route_is_auto(value) || route_list(v, key, value, &members, why));
	if (strcmp(name, "federation") == 0)
		return (is_of(value, route_federation_of, name, "merge, tag", why));
	if (strcmp(name, "on_unavailable") == 0)
		return (is_of(value, route_skips_of, name, "error, skip", why));
	if (strcmp(name, "read_from") == 0)
		return (is_of(
		    value, route_read_from_of, name, "primary, replica, auto", why));
	if (strcmp(name, "shard_key") == 0)
		return (check_shard_key(v, value, why));
	route_put(why->sqlstate, 6, "42704");
	route_put(why->message, why->message_len,
	    "unrecognized configuration parameter \"pgweave.%.64s\"", name);
	route_put(why->detail, why->detail_len, "%s",
	    "There are pgweave.database, databases, federation, on_unavailable, shard_key and read_from.");
	return (false);
}

bool
route_check_setting(const struct topo_virtual *v, const struct topo_key *key,
    const char *name, const char *value, char sqlstate[6], char *message,
    size_t message_len, char *detail, size_t detail_len)
{
	char own[512] = "";
	struct route_problem why = {sqlstate, message, detail != NULL ? detail : own,
	    message_len, detail != NULL ? detail_len : sizeof(own)};

	INVARIANT(v != NULL && name != NULL && value != NULL);
	if (check_any(v, key, name, value, &why))
		return (true);
	if (own[0] != '\0') {
		own[strlen(own) - 1] = '\0';
		route_append(message, message_len, " (%c%s)",
		    own[0] >= 'A' && own[0] <= 'Z' ? own[0] + 32 : own[0], own + 1);
	}
	return (false);
}
