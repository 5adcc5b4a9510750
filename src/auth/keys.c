/*
 * SCRAM keys: deriving them, and the memory of those derived last.
 *
 * The memory is one for the process, under a mutex that is held for the look-up alone. It
 * knows passwords only by an HMAC under a key of this process.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

#include "auth.h"
#include "keys.h"
#include "prep.h"

#define REMEMBERED_MAX 1024 /* entries; 200 bytes each, allocated as they come */

/* Entries stand in the table and in a ring, ordered by last use; the ring's head stands
 * between the newest and the oldest. */
struct entry {
	struct table_node node;
	struct entry *newer, *older;
	uint8_t id[SHA256_SIZE];
	struct keys keys;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table table;
static struct entry ring = {.newer = &ring, .older = &ring};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint8_t process_key[SHA256_SIZE];

static uint8_t salt_key[SHA256_SIZE]; /* for logins that are not known */
static bool has_salt_key;

static void
draw_process_key(void)
{
	random_bytes(process_key, sizeof(process_key));
	if (!has_salt_key)
		random_bytes(salt_key, sizeof(salt_key));
}

void
auth_set_key(const uint8_t key[AUTH_KEY])
{
	memcpy(salt_key, key, sizeof(salt_key));
	has_salt_key = true;
}

/* HMAC of the parts under one of the keys; where they end is told. */
static void
pseudo(const uint8_t key[SHA256_SIZE], const char *use, const void *a, size_t a_len,
    const void *b, size_t b_len, uint8_t out[SHA256_SIZE])
{
	struct buf all = {0};
	uint64_t len = a_len;

	buf_room(&all, strlen(use) + 1 + sizeof(len) + a_len + b_len); /* never moves */
	buf_add(&all, use, strlen(use) + 1);
	buf_add(&all, &len, sizeof(len));
	buf_add(&all, a, a_len);
	buf_add(&all, b, b_len);
	digest_hmac(key, SHA256_SIZE, all.mem, all.len, out);
	OPENSSL_cleanse(all.mem, all.len);
	buf_free(&all);
}

void
keys_pseudo(const char *use, const char *name, uint8_t out[SHA256_SIZE])
{
	pthread_once(&once, draw_process_key);
	pseudo(salt_key, use, name, strlen(name), "", 0, out);
}

/* ---- deriving ---- */

void
keys_derive(const struct keys_of *of, struct keys *out)
{
	uint8_t salted[SHA256_SIZE];
	char *prepared = prep_password(of->password);
	const char *password = prepared == NULL ? of->password : prepared;
	int ok;

	INVARIANT(of->salt_len > 0 && of->salt_len <= SALT_MAX);
	INVARIANT(of->iterations > 0 && of->iterations <= ITERATIONS_MAX);
	ok = PKCS5_PBKDF2_HMAC(password, (int)strlen(password), of->salt,
	    (int)of->salt_len, of->iterations, EVP_sha256(), sizeof(salted), salted);
	INVARIANT(ok == 1);
	digest_hmac(salted, sizeof(salted), "Client Key", 10, out->client);
	digest_hmac(salted, sizeof(salted), "Server Key", 10, out->server);
	digest_sha256(out->client, sizeof(out->client), out->stored);
	OPENSSL_cleanse(salted, sizeof(salted));
	if (prepared != NULL)
		mem_free_secret(prepared, strlen(prepared));
}

/* ---- remembering ---- */

static uint64_t
id_of(const struct keys_of *of, uint8_t id[SHA256_SIZE])
{
	uint8_t salting[sizeof(of->iterations) + SALT_MAX];
	uint64_t hash;

	INVARIANT(of->salt_len <= SALT_MAX);
	memcpy(salting, &of->iterations, sizeof(of->iterations));
	memcpy(salting + sizeof(of->iterations), of->salt, of->salt_len);
	pthread_once(&once, draw_process_key);
	pseudo(process_key, "keys", of->password, strlen(of->password), salting,
	    sizeof(of->iterations) + of->salt_len, id);
	memcpy(&hash, id, sizeof(hash));
	return (hash);
}

static bool
same_id(const struct table_node *n, const void *id)
{
	return (memcmp(CONTAINER_OF(n, struct entry, node)->id, id, SHA256_SIZE) == 0);
}

static void
ring_remove(struct entry *e)
{
	e->newer->older = e->older;
	e->older->newer = e->newer;
}

static void
ring_add_newest(struct entry *e)
{
	e->newer = &ring;
	e->older = ring.older;
	e->older->newer = e;
	ring.older = e;
}

/* The entry, moved to the newest; NULL when there is none. */
static struct entry *
look_up(const uint8_t *id, uint64_t hash)
{
	struct table_node *n = table_find(&table, hash, same_id, id);
	struct entry *e;

	if (n == NULL)
		return (NULL);
	e = CONTAINER_OF(n, struct entry, node);
	ring_remove(e);
	ring_add_newest(e);
	return (e);
}

static bool
find(const uint8_t *id, uint64_t hash, struct keys *out)
{
	struct entry *e;

	pthread_mutex_lock(&lock);
	e = look_up(id, hash);
	if (e != NULL)
		*out = e->keys;
	pthread_mutex_unlock(&lock);
	return (e != NULL);
}

static void
remember(const uint8_t *id, uint64_t hash, const struct keys *keys)
{
	struct entry *e, *oldest = NULL;

	e = mem_alloc(sizeof(*e));
	memcpy(e->id, id, sizeof(e->id));
	e->keys = *keys;
	pthread_mutex_lock(&lock);
	if (look_up(id, hash) != NULL) { /* another thread was faster */
		oldest = e;
	} else {
		table_add(&table, &e->node, hash);
		ring_add_newest(e);
		if (table.count > REMEMBERED_MAX) {
			oldest = ring.newer;
			table_remove(&table, &oldest->node);
			ring_remove(oldest);
		}
	}
	pthread_mutex_unlock(&lock);
	mem_free_secret(oldest, sizeof(*oldest));
}

bool
keys_find(const struct keys_of *of, struct keys *out)
{
	uint8_t id[SHA256_SIZE];
	uint64_t hash = id_of(of, id);

	return (find(id, hash, out));
}

void
keys_remember(const struct keys_of *of, const struct keys *keys)
{
	uint8_t id[SHA256_SIZE];
	uint64_t hash = id_of(of, id);

	remember(id, hash, keys);
}

void
keys_get(const struct keys_of *of, struct keys *out)
{
	uint8_t id[SHA256_SIZE];
	uint64_t hash = id_of(of, id);

	if (find(id, hash, out))
		return;
	keys_derive(of, out);
	remember(id, hash, out);
}
