/* SHOW ROUTES, SHARDS, MODELS: what the configuration says of tables. */
#include "catalog.h"
#include "private.h"
#include <stdlib.h>

static void
route_row(struct show *show, const struct topo_virtual *v, const struct topo_route *r)
{
	char *source = r->is_stored ? mem_str("state store")
				    : mem_printf("%s:%d", r->at.file, r->at.line);
	char nowhere[512];

	catalog_route_warning(
	    catalog_of(show->call->worker), v, r, nowhere, sizeof(nowhere));
	row_text(show, COL_ROUTES_virtual, v->name);
	row_text(show, COL_ROUTES_pattern, r->pattern);
	row_text(show, COL_ROUTES_database, r->database->name);
	row_text(show, COL_ROUTES_source, source);
	/* Snapshots do not change: nothing is counted in them. */
	row_null(show, COL_ROUTES_matches);
	row_text(show, COL_ROUTES_warning,
	    r->warning != NULL   ? r->warning
	    : nowhere[0] != '\0' ? nowhere
				 : NULL);
	row_end(show);
	free(source);
}

void
view_routes_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;

	for (size_t i = 0; i < topo_virtual_count(topo); i++) {
		const struct topo_virtual *v = topo_virtual(topo, i);

		for (size_t k = 0; k < v->route_count; k++)
			route_row(show, v, &v->routes[k]);
	}
}

static void
shard_rows(struct show *show, const struct topo_virtual *v, const struct topo_shard *s)
{
	struct buf members = {0};

	for (size_t i = 0; i < s->member_count; i++)
		buf_addf(&members, "%s%s", i > 0 ? ", " : "", s->members[i]->name);
	buf_add(&members, "", 1);
	for (size_t i = 0; i < s->table_count; i++) {
		row_text(show, COL_SHARDS_virtual, v->name);
		row_text(show, COL_SHARDS_table, s->tables[i]);
		row_text(show, COL_SHARDS_key, s->key);
		row_text(
		    show, COL_SHARDS_function, topo_shard_function_name(s->function));
		row_text(show, COL_SHARDS_members, (const char *)members.mem);
		row_text(show, COL_SHARDS_key_type, topo_shard_type_name(s->type));
		row_text(show, COL_SHARDS_placement, s->placement);
		row_end(show);
	}
	buf_free(&members);
}

void
view_shards_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;

	for (size_t i = 0; i < topo_virtual_count(topo); i++) {
		const struct topo_virtual *v = topo_virtual(topo, i);

		for (size_t k = 0; k < v->shard_count; k++)
			shard_rows(show, v, &v->shards[k]);
	}
}

static void
model_row(struct show *show, const struct topo_virtual *v, const struct topo_model *m)
{
	const struct topo_database *db = topo_model_database(v, m);

	row_text(show, COL_MODELS_virtual, v->name);
	row_text(show, COL_MODELS_model, m->model);
	row_text(show, COL_MODELS_table, m->table);
	row_text(show, COL_MODELS_database, db != NULL ? db->name : NULL);
	row_end(show);
}

void
view_models_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;

	for (size_t i = 0; i < topo_virtual_count(topo); i++) {
		const struct topo_virtual *v = topo_virtual(topo, i);

		for (size_t k = 0; k < v->model_count; k++)
			model_row(show, v, &v->models[k]);
	}
}
