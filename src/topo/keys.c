/*
 * topo/keys.c: a key from words to what it may do, and the questions about it. The same words
 * make the rules of a login.
 */
#include "inner.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEY_ID_MAX 63

/* ---- the process's counts ---- */

static pthread_mutex_t uses_lock = PTHREAD_MUTEX_INITIALIZER;
static struct table uses;

static bool
same_use(const struct table_node *node, const void *id)
{
	return (strcmp(CONTAINER_OF(node, struct topo_key_use, node)->id, id) == 0);
}

struct topo_key_use *
topo_key_use(const char *id)
{
	uint64_t hash = hash_bytes(id, strlen(id));
	struct topo_key_use *use;
	struct table_node *n;

	(void)pthread_mutex_lock(&uses_lock);
	n = table_find(&uses, hash, same_use, id);
	if (n != NULL) {
		use = CONTAINER_OF(n, struct topo_key_use, node);
	} else {
		use = mem_alloc(sizeof(*use));
		use->id = mem_str(id);
		table_add(&uses, &use->node, hash);
	}
	(void)pthread_mutex_unlock(&uses_lock);
	return (use);
}

void
topo_key_uses_free(void)
{
	struct table_node *n;

	(void)pthread_mutex_lock(&uses_lock);
	while ((n = table_first(&uses)) != NULL) {
		struct topo_key_use *use = CONTAINER_OF(n, struct topo_key_use, node);

		table_remove(&uses, n);
		free(use->id);
		free(use);
	}
	table_free(&uses);
	uses = (struct table){0};
	(void)pthread_mutex_unlock(&uses_lock);
}

/* ---- words ---- */

/* A key being made of its words. */
struct making {
	const struct topo *topo;
	const struct topo_virtual *virtual_; /* NULL: of a login, any */
	struct key_node *node;
	struct topo_key *key;
	const struct topo_key_text *text;
	struct complaint *complaint;
	bool is_login;
};

static bool
is_said(const char *text)
{
	return (text != NULL && *text != '\0');
}

/* Every text is a const char *, so that the struct can be read as an array of them. */
#define TEXT_COUNT (sizeof(struct topo_key_text) / sizeof(const char *))
_Static_assert(
    sizeof(struct topo_key_text) == TEXT_COUNT * sizeof(const char *), "texts");

static void
copy_texts(struct key_node *n, const struct topo_key_text *text)
{
	const char **to = (const char **)(void *)&n->key.text;
	const char *const *from = (const char *const *)(const void *)text;

	for (size_t i = 0; i < TEXT_COUNT; i++)
		to[i] =
		    from[i] != NULL ? strings_keep(&n->strings, mem_str(from[i])) : NULL;
}

#define KEY_DIGITS 32

/* As ids are made: what every new one begins with, and digits. */
static bool
is_made_id(const struct topo *t, const char *id)
{
	const char *prefix = topo_settings(t)->key_prefix;
	size_t len = strlen(prefix);

	return (strncmp(id, prefix, len) == 0 && strlen(id + len) == KEY_DIGITS &&
		strspn(id + len, "0123456789abcdefABCDEF") == KEY_DIGITS);
}

static void
read_identity(struct making *m)
{
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
	const char *id = m->text->id;

	m->key->is_login = m->is_login;
	m->key->id = id != NULL ? id : "";
	m->key->secret = m->text->secret;
	m->key->name = is_said(m->text->name) ? m->text->name : m->key->id;
	if (m->is_login)
		return;
	/* Those of the store may be from before the prefix was changed. */
	if (m->complaint->words != NULL && !is_made_id(m->topo, m->key->id))
		complain(m->complaint, "id",
		    "\"%.80s\" is not the id of a key, allowed is %s (key_prefix) and %d "
		    "hexadecimal digits behind it",
		    m->key->id, topo_settings(m->topo)->key_prefix, KEY_DIGITS);
	else if (is_said(id) &&
		 (id[strspn(id, letters)] != '\0' || strlen(id) > KEY_ID_MAX))
		complain(m->complaint, "id",
		    "\"%.80s\" is not the id of a key, allowed are letters, digits, _ and "
		    "-, at most %d",
		    id, KEY_ID_MAX);
	/* Not a byte of it in the sentence: it may be a password. */
	if (is_said(m->text->secret) && !is_verifier(m->text->secret))
		complain(m->complaint, "secret",
		    "this is not a SCRAM verifier, allowed is "
		    "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey");
}

static void
read_type(struct making *m)
{
	int64_t n = TOPO_KEY_SERVER, user_id;

	if (!is_said(m->text->type) && !m->is_login)
		complain(m->complaint, "type",
		    "missing, allowed are database, client, server");
	complain_number(m->complaint, SC_KEY, "type", m->text->type, &n);
	m->key->type = (enum topo_key_type)n;
	if (complain_number(
		m->complaint, SC_KEY, "user_id", m->text->user_id, &user_id)) {
		m->key->user_id = user_id;
		m->key->has_user_id = true;
	}
	if (m->key->type == TOPO_KEY_DATABASE && !is_said(m->text->user_id))
		complain(m->complaint, "user_id",
		    "missing, a key of type database is for one user");
}

static void
read_virtual(struct making *m)
{
	struct name_list names = {0};

	m->key->virtual_ = "";
	if (!is_said(m->text->virtual_)) {
		names_of_virtuals(m->topo, &names);
		if (!m->is_login && names.count == 0)
			complain(m->complaint, "virtual",
			    "missing, and there is no virtual database");
		else if (!m->is_login)
			complain(m->complaint, "virtual",
			    "missing, allowed is the name of a virtual database such as %s",
			    names.names[0]);
		free(names.names);
		return;
	}
	m->virtual_ = topo_virtual_find(m->topo, m->text->virtual_);
	if (m->virtual_ == NULL) {
		names_of_virtuals(m->topo, &names);
		complain_unknown(m->complaint, "virtual", "virtual database",
		    m->text->virtual_, &names);
		return;
	}
	m->key->virtual_ = strings_keep(&m->node->strings, mem_str(m->virtual_->name));
}

/* The name, as it is configured, of a member; of any database when rules hold everywhere.
 * NULL: said why not. */
static const char *
find_member(struct making *m, const char *word, const char *name)
{
	const struct topo_database *db = NULL;
	struct name_list names = {0};

	if (m->virtual_ != NULL) {
		db = topo_member_find(m->virtual_, name);
		names_of(m->virtual_->members, m->virtual_->member_count, &names);
	} else {
		for (size_t i = 0; db == NULL && i < m->topo->database_count; i++) {
			const struct topo_database *other = &m->topo->databases[i]->db;

			if (!other->is_auto && strcasecmp(other->name, name) == 0)
				db = other;
		}
		names_of_databases(m->topo, &names);
	}
	if (db == NULL) {
		complain_unknown(m->complaint, word,
		    m->virtual_ != NULL ? "member" : "database", name, &names);
		return (NULL);
	}
	free(names.names);
	return (strings_keep(&m->node->strings, mem_str(db->name)));
}

/* Without a virtual database there is nothing to compare with, and that has been said. */
static bool
has_members(const struct making *m)
{
	return (m->virtual_ != NULL || (m->is_login && !is_said(m->text->virtual_)));
}

static void
read_databases(struct making *m)
{
	struct name_list given = {0}, found = {0};

	if (is_said(m->text->databases) && has_members(m))
		list_read(&m->node->strings, m->text->databases, &given);
	for (size_t i = 0; i < given.count; i++) {
		const char *name = find_member(m, "databases", given.names[i]);

		if (name != NULL && list_has(&found, name))
			complain(m->complaint, "databases",
			    "\"%s\" stands there twice, allowed is once", name);
		else if (name != NULL)
			list_add(&found, name);
	}
	free(given.names);
	m->key->databases = found.names;
	m->key->database_count = found.count;
}

/* Where the first of two words ends; quotes hold one together. */
static char *
word_end(char *text)
{
	bool in_quotes = false;

	for (; *text != '\0' && (in_quotes || (*text != ' ' && *text != '\t')); text++)
		in_quotes ^= *text == '"';
	return (text);
}

/* "primary app_ro, analytics \"the role\"" */
static void
read_roles(struct making *m)
{
	const char *at = m->text->roles, *piece;
	size_t len;

	while (is_said(at) && has_members(m) && list_next(&at, &piece, &len)) {
		char *pair = mem_strn(piece, len), *blank = word_end(pair);
		struct name_list both = {0};
		struct topo_key *k = m->key;
		const char *name;

		/* Two words and no more. */
		if (*blank != '\0' && *word_end(blank + strspn(blank, " \t")) == '\0') {
			*blank = ',';
			list_read(&m->node->strings, pair, &both);
		}
		free(pair);
		if (both.count != 2) {
			complain(m->complaint, "roles",
			    "\"%.*s\" is not a database and a role, allowed is for example "
			    "primary app_ro, analytics report",
			    (int)(len < 80 ? len : 80), piece);
			free(both.names);
			continue;
		}
		name = find_member(m, "roles", both.names[0]);
		if (name != NULL && topo_key_role(k, name) != NULL) {
			complain(m->complaint, "roles",
			    "\"%s\" stands there twice, allowed is once", name);
		} else if (name != NULL) {
			k->roles = mem_realloc(
			    k->roles, (k->role_count + 1) * sizeof(*k->roles));
			k->roles[k->role_count++] = (struct topo_key_role){
			    .database = name, .role = both.names[1]};
		}
		free(both.names);
	}
}

static void
read_rights(struct making *m)
{
	static const char *const words[] = {"federate", "replicate", "operate", "none"};
	struct topo_key *k = m->key;
	bool *const rights[] = {&k->can_federate, &k->can_replicate, &k->can_operate};
	struct name_list given = {0};

	for (size_t i = 0; i < ARRAY_LEN(rights); i++)
		*rights[i] = m->is_login && !is_said(m->text->rights);
	if (is_said(m->text->rights))
		list_read(&m->node->strings, m->text->rights, &given);
	for (size_t i = 0; i < given.count; i++) {
		size_t r = 0;

		while (r < ARRAY_LEN(words) && strcasecmp(words[r], given.names[i]) != 0)
			r++;
		if (r < ARRAY_LEN(rights)) {
			*rights[r] = true;
		} else if (r == ARRAY_LEN(words)) {
			struct name_list allowed = {0};

			for (size_t n = 0; n < ARRAY_LEN(words); n++)
				list_add(&allowed, words[n]);
			complain_unknown(
			    m->complaint, "rights", "right", given.names[i], &allowed);
		}
	}
	free(given.names);
}

static void
read_networks(struct making *m)
{
	struct topo_key *k = m->key;
	struct name_list given = {0};

	if (is_said(m->text->networks))
		list_read(&m->node->strings, m->text->networks, &given);
	if (given.count > 0)
		k->networks = mem_alloc(given.count * sizeof(*k->networks));
	for (size_t i = 0; i < given.count; i++) {
		if (network_read(given.names[i], &k->networks[k->network_count]))
			k->network_count++;
		else
			complain(m->complaint, "networks",
			    "\"%.80s\" is not a network, allowed are addresses, networks "
			    "such as 10.0.0.0/8 and 2001:db8::/32, and local",
			    given.names[i]);
	}
	free(given.names);
}

static bool
read_date(struct making *m, const char *word, const char *text, int64_t *us)
{
	*us = 0;
	if (!is_said(text))
		return (false);
	if (date_read(text, us)) {
		/* 0 is never. */
		*us += *us == 0;
		return (true);
	}
	complain(m->complaint, word,
	    "\"%.80s\" is not a date, allowed are 2027-01-31 and 2027-01-31 23:59:59+02",
	    text);
	return (false);
}

static void
read_limits(struct making *m)
{
	struct topo_key *k = m->key;
	int64_t n, us;

	if (is_said(m->text->rate) && !rate_read(m->text->rate, &k->rate, &k->rate_us))
		complain(m->complaint, "rate",
		    "\"%.80s\" is not a rate, allowed are 1 to 1000000000 per s, min, h or d "
		    "such as 100/s",
		    m->text->rate);
	if (complain_number(
		m->complaint, SC_KEY, "concurrency", m->text->concurrency, &n))
		k->concurrency = n;
	if (complain_number(m->complaint, SC_KEY, "read_only", m->text->read_only, &n))
		k->is_read_only = n != 0;
	(void)read_date(m, "expires", m->text->expires, &k->expires_us);
	(void)read_date(m, "created", m->text->created, &us);
	(void)read_date(m, "revoked", m->text->revoked, &us);
	k->is_revoked = is_said(m->text->revoked);
}

static void
read_former(struct making *m)
{
	struct topo_key *k = m->key;

	if (!is_said(m->text->former_secret))
		return;
	if (!is_verifier(m->text->former_secret))
		complain(m->complaint, "former_secret", "this is not a SCRAM verifier");
	else if (read_date(m, "former_until", m->text->former_until, &k->former_until_us))
		k->former_secret = m->text->former_secret;
}

struct key_node *
key_make(const struct topo *t, const struct topo_key_text *text, bool is_login,
    struct complaint *c)
{
	struct key_node *n = mem_alloc(sizeof(*n));
	struct making m = {
	    .topo = t,
	    .node = n,
	    .key = &n->key,
	    .text = &n->key.text,
	    .complaint = c,
	    .is_login = is_login,
	};

	copy_texts(n, text);
	read_identity(&m);
	read_type(&m);
	read_virtual(&m);
	read_databases(&m);
	read_roles(&m);
	read_rights(&m);
	read_networks(&m);
	read_limits(&m);
	read_former(&m);
	return (n);
}

void
key_free(struct key_node *n)
{
	free(n->key.databases);
	free(n->key.networks);
	free(n->key.roles);
	strings_free(&n->strings);
	free(n);
}

bool
topo_key_check(
    const struct topo *t, const struct topo_key_text *text, char *why, size_t why_len)
{
	struct complaint c = {.why = why, .why_len = why_len};

	key_free(key_make(t, text, false, &c));
	return (!c.is_wrong);
}

/* ---- questions ---- */

const char *
topo_key_bars(const struct topo_key *k, uint8_t family, const void *addr, int64_t wall_us)
{
	bool is_inside = k->network_count == 0;

	if (k->is_revoked)
		return ("revoked");
	if (k->expires_us != 0 && wall_us >= k->expires_us)
		return ("expired");
	for (size_t i = 0; !is_inside && i < k->network_count; i++)
		is_inside = network_has(&k->networks[i], family, addr);
	return (is_inside ? NULL : "network");
}

const char *
topo_key_former(const struct topo_key *k, int64_t wall_us)
{
	return (wall_us < k->former_until_us ? k->former_secret : NULL);
}

/* "2 hours", as people write intervals in SQL, to "2h"; false: it is none of these. */
static bool
short_unit(const char *text, char *out, size_t size)
{
	static const struct {
		const char *word, *unit;
	} units[] = {{"second", "s"}, {"minute", "min"}, {"hour", "h"}, {"day", "d"}};
	size_t digits = strspn(text, "0123456789."), len;
	const char *word = text + digits + strspn(text + digits, " ");

	len = strlen(word);
	len -= len > 0 && strchr("sS", word[len - 1]) != NULL;
	for (size_t i = 0; i < ARRAY_LEN(units) && digits > 0 && digits < 20; i++)
		if (strlen(units[i].word) == len &&
		    strncasecmp(word, units[i].word, len) == 0) {
			snprintf(out, size, "%.*s%s", (int)digits, text, units[i].unit);
			return (true);
		}
	return (false);
}

bool
topo_key_overlap(const char *text, int64_t *overlap_us, char *why, size_t why_len)
{
	/* As the time between two runs of a job is read: up to a year. */
	const struct setting *row = setting_find_in(SC_JOB, "interval");
	char sentence[256], brief[32];

	if (short_unit(text, brief, sizeof(brief)))
		text = brief;
	if (setting_number(row, text, overlap_us, sentence, sizeof(sentence)) == 0)
		return (true);
	snprintf(why, why_len, "overlap: %s", sentence);
	return (false);
}

bool
topo_key_may_reach(const struct topo_key *k, const char *database)
{
	for (size_t i = 0; i < k->database_count; i++) {
		if (strcasecmp(k->databases[i], database) == 0)
			return (true);
	}
	return (k->database_count == 0);
}

const char *
topo_key_role(const struct topo_key *k, const char *database)
{
	for (size_t i = 0; i < k->role_count; i++) {
		if (strcasecmp(k->roles[i].database, database) == 0)
			return (k->roles[i].role);
	}
	return (NULL);
}
