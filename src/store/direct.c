/* store/direct.c: the store without a thread, for the command line. */
#include "private.h"
#include <stdlib.h>

struct store_direct {
	struct store_file file;
	struct store_server server;
	struct store_db *db; /* of one of them */
};

struct store_direct *
store_direct_open(const struct topo *topo, const struct settings *set,
    const struct topo_database *shared, char *why, size_t why_len)
{
	struct store_direct *d = mem_alloc(sizeof(*d));
	int fault = 0;

	if (shared != NULL) {
		server_init(&d->server, topo, shared);
		d->db = &d->server.db;
	} else {
		fault = file_init(&d->file, set, why, why_len);
		d->db = &d->file.db;
	}
	/* Where there is none yet, the first that writes makes it. */
	if (fault == 0)
		fault = d->db->ops->open(d->db, false, why, why_len);
	if (fault == 0 || fault == F_NOT_FOUND)
		return (d);
	store_direct_close(d);
	return (NULL);
}

void
store_direct_close(struct store_direct *d)
{
	if (d == NULL)
		return;
	if (d->db == &d->server.db)
		server_fini(&d->server);
	else
		file_fini(&d->file);
	free(d);
}

int
store_direct_keys(struct store_direct *d,
    void (*each)(void *arg, const struct topo_key_text *), void *arg, char *why,
    size_t why_len)
{
	struct store_rows rows = {.kind = &store_key_kind};
	int fault = work_load(d->db, &rows, NULL, -1, why, why_len);

	for (size_t i = 0; i < rows.count; i++)
		each(arg, rows.rows[i]);
	rows_free(&rows);
	return (fault);
}

int
store_direct_key_put(
    struct store_direct *d, const struct topo_key_text *key, char *why, size_t why_len)
{
	return (work_key_put(d->db, key, why, why_len));
}

static int
change(struct store_direct *d, const char *word, const struct store_rotation *rotation,
    void (*each)(void *arg, const struct topo_key_text *), void *arg, char *why,
    size_t why_len)
{
	struct store_rows rows = {.kind = &store_key_kind};
	int fault = work_key_change(d->db, word, rotation, &rows, why, why_len);

	for (size_t i = 0; i < rows.count && each != NULL; i++)
		each(arg, rows.rows[i]);
	rows_free(&rows);
	return (fault);
}

int
store_direct_key_revoke(
    struct store_direct *d, const char *id_or_name, char *why, size_t why_len)
{
	return (change(d, id_or_name, NULL, NULL, NULL, why, why_len));
}

int
store_direct_key_rotate(struct store_direct *d, const char *id_or_name,
    const struct store_rotation *rotation,
    void (*each)(void *arg, const struct topo_key_text *), void *arg, char *why,
    size_t why_len)
{
	return (change(d, id_or_name, rotation, each, arg, why, why_len));
}
