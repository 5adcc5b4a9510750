/* topo/with.c: a snapshot that differs from another in one setting. */
#include "inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct topo *
topo_copy(const struct topo *base)
{
	const struct topo *root = base->base != NULL ? base->base : base;
	struct topo *t = mem_alloc(sizeof(*t));

	/* Tables and arrays are shared with the root, which this one holds. */
	memcpy(t, root, sizeof(*t));
	t->refs = 1;
	t->generation = topo_next_generation();
	t->base = topo_hold(root);
	t->own = mem_dup(topo_settings(base), sizeof(*t->own));
	t->strings = (struct strings){0};
	t->admins = t->stats = (struct name_list){0};
	t->store_keys = keyring_hold(base->store_keys);
	t->store_routes = route_set_hold(base->store_routes);
	route_set_use(t);
	/* Strings set before belong to the snapshot that this one follows. */
	for (size_t i = 0; i < setting_count; i++) {
		const char **at;

		if (setting_table[i].type != SET_STR)
			continue;
		at = (const char **)(void *)((char *)t->own + setting_table[i].offset);
		*at = topo_keep(t, mem_str(*at));
	}
	return (t);
}

void
topo_copied(struct topo *t)
{
	list_read(&t->strings, topo_settings(t)->admin_users, &t->admins);
	list_read(&t->strings, topo_settings(t)->stats_users, &t->stats);
}

const struct topo *
topo_with(const struct topo *base, const struct setting *setting, const char *value,
    char *why, size_t why_len)
{
	struct topo *t = topo_copy(base);
	int type;

	if (setting_put(t->own, setting, topo_keep(t, mem_str(value)), why, why_len) !=
	    0) {
		topo_release(t);
		return (NULL);
	}
	type = topo_settings(t)->auth_type;
	if (type == AUTH_HBA && t->hba == NULL) {
		snprintf(why, why_len,
		    "auth_hba_file has not been read: write it down in the file, and RELOAD");
		topo_release(t);
		return (NULL);
	}
	topo_copied(t);
	return (t);
}
