/*
 * [peers]: the other processes of the group, for cancel requests.
 *
 *   1 = host=/tmp/pgweave-1
 *   2 = host=10.0.0.2 port=6432 pool_size=50
 */
#include "inner.h"
#include <stdlib.h>
#include <string.h>

/* A number with the range of a setting. */
static void
peer_number(const char *label, const char *key, const char *row, const char *value,
    struct conf_at at, int64_t *out, struct conf_problems *problems)
{
	char why[256];
	int64_t n;

	if (setting_number(setting_find(row), value, &n, why, sizeof(why)) == F_OK)
		*out = n;
	else
		conf_problem(problems, at, "%s: %s: %s", label, key, why);
}

/* One word of a peer's line; label begins the sentence. */
static void
peer_word(struct topo *t, struct topo_peer *peer, const char *label, const char *key,
    const char *value, struct conf_at at, struct conf_problems *problems)
{
	static const char *const words[] = {"host", "port", "pool_size"};
	const char *near;
	int64_t port = peer->port;

	if (strcmp(key, "host") == 0)
		peer->host = topo_keep(t, mem_str(value));
	else if (strcmp(key, "port") == 0) {
		peer_number(label, key, "listen_port", value, at, &port, problems);
		peer->port = (uint16_t)port;
	} else if (strcmp(key, "pool_size") == 0)
		peer_number(label, key, "default_pool_size", value, at, &peer->pool_size,
		    problems);
	else {
		near = text_nearest(key, words, ARRAY_LEN(words));
		conf_problem(problems, at,
		    "%s: %s: no such key, allowed are host, port, pool_size%s%s%s", label,
		    key, near != NULL ? ", did you mean \"" : "",
		    near != NULL ? near : "", near != NULL ? "\"?" : "");
	}
}

static void
peer_read(struct topo *t, const struct conf_key *k, struct conf_problems *problems)
{
	char *copy = mem_str(k->value), *p = copy, *key, *value, why[256];
	struct topo_peer peer = {
	    .port = 6432, .pool_size = topo_settings(t)->default_pool_size};
	const char *wrong = "";
	int64_t id = 0;
	int r;

	if (setting_number(setting_find("peer_id"), k->key, &id, why, sizeof(why)) !=
	    F_OK)
		conf_problem(problems, k->at, "peer_id: %s", why);
	else if (id == 0)
		conf_problem(
		    problems, k->at, "peer_id: \"0\" is none, allowed are 1 to 16383");
	peer.id = (uint32_t)id;
	while ((r = line_next(&p, &key, &value, &wrong)) == 1)
		peer_word(t, &peer, k->key, key, value, k->at, problems);
	free(copy);
	if (r < 0)
		conf_problem(problems, k->at, "%s: %s", k->key, wrong);
	else if (peer.host == NULL || *peer.host == '\0')
		conf_problem(problems, k->at, "%s: host is missing", k->key);
	/* The same section serves the whole group. */
	if (id == topo_settings(t)->peer_id)
		return;
	if (topo_peer_find(t, peer.id) != NULL) {
		conf_problem(problems, k->at, "%s: this peer is already defined", k->key);
		return;
	}
	t->peers = mem_realloc(t->peers, (t->peer_count + 1) * sizeof(*t->peers));
	t->peers[t->peer_count++] = peer;
}

void
peers_read(struct topo *t, struct conf_problems *problems)
{
	const struct conf_section *s = conf_section_find(t->conf, "peers", "");

	if (s == NULL)
		return;
	for (size_t i = 0; i < s->key_count; i++)
		peer_read(t, &s->keys[i], problems);
	if (topo_settings(t)->peer_id == 0)
		conf_warning(problems, s->at,
		    "[peers]: without a peer_id no cancel request is passed on");
}

size_t
topo_peer_count(const struct topo *t)
{
	return (t->peer_count);
}

const struct topo_peer *
topo_peer(const struct topo *t, size_t i)
{
	INVARIANT(i < t->peer_count);
	return (&t->peers[i]);
}

const struct topo_peer *
topo_peer_find(const struct topo *t, uint32_t id)
{
	for (size_t i = 0; i < t->peer_count; i++)
		if (t->peers[i].id == id)
			return (&t->peers[i]);
	return (NULL);
}
