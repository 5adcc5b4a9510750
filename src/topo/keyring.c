/*
 * topo/keyring.c: the keys there are: [key x] of the file, and those of the store, which come
 * and go while the rest of a snapshot stays; and [login x], the rules of a login.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>

/* ---- rings ---- */

struct keyring *
keyring_create(void)
{
	struct keyring *ring = mem_alloc(sizeof(*ring));

	ring->refs = 1;
	return (ring);
}

struct keyring *
keyring_hold(struct keyring *ring)
{
	if (ring != NULL)
		(void)atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
	return (ring);
}

void
keyring_release(struct keyring *ring)
{
	if (ring == NULL ||
	    atomic_fetch_sub_explicit(&ring->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < ring->count; i++)
		key_free(ring->keys[i]);
	free(ring->keys);
	table_free(&ring->by_id);
	free(ring);
}

static bool
same_key(const struct table_node *node, const void *id)
{
	return (strcmp(CONTAINER_OF(node, struct key_node, node)->key.id, id) == 0);
}

static const struct topo_key *
keyring_find(const struct keyring *ring, const char *id)
{
	struct table_node *n =
	    ring == NULL
		? NULL
		: table_find(&ring->by_id, hash_bytes(id, strlen(id)), same_key, id);

	return (n != NULL ? &CONTAINER_OF(n, struct key_node, node)->key : NULL);
}

/* The first of that name that is not revoked. */
static const struct topo_key *
keyring_find_name(const struct keyring *ring, const char *name)
{
	for (size_t i = 0; i < ring->count; i++) {
		const struct topo_key *k = &ring->keys[i]->key;

		if (!k->is_revoked && strcmp(k->name, name) == 0)
			return (k);
	}
	return (NULL);
}

/* Takes over the key. */
static void
keyring_add(struct keyring *ring, struct key_node *n)
{
	const char *id = n->key.id;

	n->key.use = topo_key_use(id);
	table_add(&ring->by_id, &n->node, hash_bytes(id, strlen(id)));
	if ((ring->count & (ring->count - 1)) == 0)
		ring->keys = mem_realloc(ring->keys,
		    (ring->count == 0 ? 1 : ring->count * 2) * sizeof(*ring->keys));
	ring->keys[ring->count++] = n;
}

/* ---- [key x], [login x] ---- */

struct draft {
	struct topo_key_text text;
	int federate, replicate, operate; /* -1: not said */
	int audit;
};

#define TEXT_SLOT(key)                                                                   \
	{                                                                                \
#key, SLOT_TEXT, offsetof(struct draft, text.key)                        \
	}
#define MODE_SLOT(key)                                                                   \
	{                                                                                \
#key, SLOT_MODE, offsetof(struct draft, key)                             \
	}
static const struct slot slots[] = {
    {"virtual", SLOT_TEXT, offsetof(struct draft, text.virtual_)},
    TEXT_SLOT(secret),
    TEXT_SLOT(name),
    TEXT_SLOT(type),
    TEXT_SLOT(databases),
    TEXT_SLOT(rights),
    TEXT_SLOT(user_id),
    TEXT_SLOT(read_only),
    TEXT_SLOT(networks),
    TEXT_SLOT(rate),
    TEXT_SLOT(concurrency),
    TEXT_SLOT(expires),
    TEXT_SLOT(roles),
    TEXT_SLOT(created),
    TEXT_SLOT(revoked),
    MODE_SLOT(federate),
    MODE_SLOT(replicate),
    MODE_SLOT(operate),
    MODE_SLOT(audit),
};

static void
read_key_words(struct words *w, struct draft *d, const struct conf_section *s)
{
	*d = (struct draft){
	    .text = {.id = s->name},
	    .federate = -1,
	    .replicate = -1,
	    .operate = -1,
	};
	w->slots = slots;
	w->slot_count = ARRAY_LEN(slots);
	w->base = d;
	w->at = s->at;
	words_begin(w);
	for (size_t i = 0; i < s->key_count; i++)
		words_put(w, s->keys[i].key, s->keys[i].value, s->keys[i].at);
}

static void
apply_single_rights(struct topo_key *k, const struct draft *d)
{
	if (d->federate >= 0)
		k->can_federate = d->federate != 0;
	if (d->replicate >= 0)
		k->can_replicate = d->replicate != 0;
	if (d->operate >= 0)
		k->can_operate = d->operate != 0;
}

/* Takes the sections of a kind to keys. The caller says where they go. */
static struct key_node *
read_key_section(struct topo *t, const struct conf_section *s, bool is_login,
    struct conf_problems *problems)
{
	struct words w = {
	    .topo = t, .problems = problems, .scope = is_login ? SC_LOGIN : SC_KEY};
	struct complaint c = {.words = &w};
	struct key_node *n;
	struct draft d;

	read_key_words(&w, &d, s);
	n = key_make(t, &d.text, is_login, &c);
	apply_single_rights(&n->key, &d);
	n->key.is_from_file = true;
	n->key.at = s->at;
	if (!is_login && d.text.secret == NULL)
		complain(&c, "secret",
		    "missing, allowed is the SCRAM verifier that `pgweave key create "
		    "--print` makes");
	if (d.audit > 0)
		conf_warning(problems, words_at(&w, "audit"),
		    "audit: accepted, but not done yet: there is no audit trail");
	words_end(&w);
	return (n);
}

void
keys_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);
		const struct topo_key *other;
		struct key_node *n;

		if (strcmp(s->kind, "key") != 0 || *s->name == '\0')
			continue;
		if (topo_login_find(t, s->name) != NULL)
			conf_problem(problems, s->at,
			    "%s: a login has this name, a key must have another",
			    s->name);
		n = read_key_section(t, s, false, problems);
		other = keyring_find_name(t->file_keys, n->key.name);
		if (other != NULL && !n->key.is_revoked)
			conf_warning(problems, s->at,
			    "name: the key at %s:%d is called \"%s\", too: the log and SHOW "
			    "KEYS do not tell them apart by name",
			    other->at.file, other->at.line, n->key.name);
		keyring_add(t->file_keys, n);
	}
}

void
rules_read(struct topo *t, struct conf_problems *problems)
{
	for (size_t i = 0; i < conf_section_count(t->conf); i++) {
		const struct conf_section *s = conf_section(t->conf, i);
		struct key_node *n;
		char *id;

		if (strcmp(s->kind, "login") != 0 || *s->name == '\0')
			continue;
		n = read_key_section(t, s, true, problems);
		/* No key has a blank in its id. */
		id = mem_printf("login %s", s->name);
		n->key.use = topo_key_use(id);
		free(id);
		t->rules = mem_realloc(t->rules, (t->rule_count + 1) * sizeof(*t->rules));
		t->rules[t->rule_count++] = n;
		topo_login_get(t, s->name)->login.rules = &n->key;
	}
}

/* ---- keys of the store ---- */

/* Why the key is not fit for this snapshot; NULL: it has been added. */
static const char *
add_stored(struct topo *t, const struct topo_key_text *text, char *why, size_t why_len)
{
	struct complaint c = {.why = why, .why_len = why_len};
	struct key_node *n;

	if (text->id == NULL || *text->id == '\0')
		return ("it has no id");
	if (text->secret == NULL || *text->secret == '\0')
		return ("it has no secret");
	if (topo_key_find(t, text->id) != NULL)
		return ("there is a key of that id already");
	n = key_make(t, text, false, &c);
	if (c.is_wrong) {
		key_free(n);
		return (why);
	}
	keyring_add(t->store_keys, n);
	return (NULL);
}

const struct topo *
topo_with_keys(const struct topo *base, const struct topo_key_text *texts, size_t count)
{
	struct topo *t = topo_copy(base);
	char why[1024];

	topo_copied(t);
	keyring_release(t->store_keys);
	t->store_keys = keyring_create();
	for (size_t i = 0; i < count; i++) {
		const char *wrong = add_stored(t, &texts[i], why, sizeof(why));

		if (wrong != NULL)
			log_warning("key %s of the store is left out: %s",
			    texts[i].id != NULL ? texts[i].id : "", wrong);
	}
	return (t);
}

/* ---- finding ---- */

const struct topo_key *
topo_key_find(const struct topo *t, const char *id)
{
	const struct topo_key *k = keyring_find(t->file_keys, id);

	return (k != NULL ? k : keyring_find(t->store_keys, id));
}

const struct topo_key *
topo_key_of_file(const struct topo *t, const char *id_or_name)
{
	const struct topo_key *k = keyring_find(t->file_keys, id_or_name);

	return (k != NULL ? k : keyring_find_name(t->file_keys, id_or_name));
}

size_t
topo_key_count(const struct topo *t)
{
	return (t->file_keys->count + (t->store_keys != NULL ? t->store_keys->count : 0));
}

const struct topo_key *
topo_key(const struct topo *t, size_t i)
{
	INVARIANT(i < topo_key_count(t));
	if (i < t->file_keys->count)
		return (&t->file_keys->keys[i]->key);
	return (&t->store_keys->keys[i - t->file_keys->count]->key);
}
