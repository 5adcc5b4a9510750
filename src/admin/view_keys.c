/* SHOW KEYS, and the words for a key that the command line uses too; never a verifier. */
#include "private.h"
#include <stdlib.h>
#include <string.h>

const char *
admin_key_type(const struct topo_key *k)
{
	static const char *const names[] = {
	    [TOPO_KEY_DATABASE] = "database",
	    [TOPO_KEY_CLIENT] = "client",
	    [TOPO_KEY_SERVER] = "server",
	};

	INVARIANT((size_t)k->type < ARRAY_LEN(names));
	return (names[k->type]);
}

const char *
admin_key_status(const struct topo_key *k, int64_t wall_us)
{
	if (k->is_revoked)
		return ("revoked");
	if (k->expires_us != 0 && wall_us >= k->expires_us)
		return ("expired");
	return (topo_key_former(k, wall_us) != NULL ? "rotating" : "active");
}

void
admin_key_rights(const struct topo_key *k, struct buf *out)
{
	if (k->can_federate)
		admin_list_add(out, "federate");
	if (k->can_replicate)
		admin_list_add(out, "replicate");
	if (k->can_operate)
		admin_list_add(out, "operate");
	buf_add(out, "", 1);
}

void
admin_key_databases(const struct topo_key *k, struct buf *out)
{
	for (size_t i = 0; i < k->database_count; i++)
		admin_list_add(out, k->databases[i]);
	buf_add(out, "", 1);
}

static void
row_list(struct show *show, enum view_column column, const struct topo_key *k,
    void (*list)(const struct topo_key *, struct buf *))
{
	struct buf text = {0};

	list(k, &text);
	row_text(show, column, (const char *)text.mem);
	buf_free(&text);
}

/* 0: never. */
static void
row_wall(struct show *show, enum view_column column, int64_t wall_us)
{
	char text[40];

	if (wall_us == 0) {
		row_null(show, column);
		return;
	}
	admin_time_text(wall_us, text, sizeof(text));
	row_text(show, column, text);
}

/* As it was given, where that is a whole time: a file may say just the day. */
static void
row_created(struct show *show, const char *text)
{
	struct buf binary = {0};
	char *midnight = NULL;

	if (text != NULL && rows_binary(ROWS_TIMESTAMPTZ, text, &binary) != 0) {
		midnight = mem_printf("%s 00:00:00+00", text);
		text = rows_binary(ROWS_TIMESTAMPTZ, midnight, &binary) == 0 ? midnight
									     : NULL;
	}
	row_text(show, COL_KEYS_created, text);
	free(midnight);
	buf_free(&binary);
}

static void
row_key(struct show *show, const struct topo_key *k, int64_t now_us)
{
	row_text(show, COL_KEYS_key, k->id);
	row_text(show, COL_KEYS_name, k->name);
	row_text(show, COL_KEYS_type, admin_key_type(k));
	row_text(show, COL_KEYS_virtual, k->virtual_);
	row_list(show, COL_KEYS_databases, k, admin_key_databases);
	row_list(show, COL_KEYS_rights, k, admin_key_rights);
	if (k->has_user_id)
		row_int(show, COL_KEYS_user_id, k->user_id);
	else
		row_null(show, COL_KEYS_user_id);
	row_text(show, COL_KEYS_read_only, k->is_read_only ? "t" : "f");
	row_text(
	    show, COL_KEYS_networks, k->text.networks != NULL ? k->text.networks : "");
	row_text(show, COL_KEYS_rate, k->text.rate != NULL ? k->text.rate : "");
	row_wall(show, COL_KEYS_expires, k->expires_us);
	row_created(show, k->text.created);
	row_wall(show, COL_KEYS_last_used,
	    k->use != NULL ? atomic_load(&k->use->last_used_us) : 0);
	row_text(show, COL_KEYS_status, admin_key_status(k, now_us));
	row_end(show);
}

void
view_keys_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;
	int64_t now_us = clock_wall_us();

	for (size_t i = 0; i < topo_key_count(topo); i++)
		row_key(show, topo_key(topo, i), now_us);
}
