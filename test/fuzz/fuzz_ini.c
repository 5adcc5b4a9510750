/*
 * A configuration. Whatever the bytes are, it is read to its end, and there is a snapshot
 * with whole databases exactly when there is no problem.
 */
#include <ctype.h>
#include <string.h>

#include "fuzz.h"
#include "topo.h"

static void
check_lines(char **lines, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (const char *p = lines[i]; *p != '\0'; p++)
			INVARIANT(!iscntrl((unsigned char)*p));
	}
}

static void
check_snapshot(const struct topo *t)
{
	struct topo_limits limits;

	for (size_t i = 0; i < topo_database_count(t); i++) {
		const struct topo_database *db = topo_database(t, i);

		INVARIANT(topo_database_find(t, db->name) == db);
		INVARIANT(!topo_is_console(db->name));
		INVARIANT(db->is_auto || db->dbname != NULL);
		INVARIANT(db->host_count > 0);
		for (size_t h = 0; h < db->host_count; h++)
			INVARIANT((*db->hosts[h].host != '\0') == db->is_configured &&
				  db->hosts[h].port > 0);
		INVARIANT(db->is_configured || db->fallback != NULL);
		INVARIANT(db->replica_of == NULL || db->replica_of->replica_of == NULL);
		topo_limits(t, db, NULL, &limits);
		INVARIANT(limits.pool_size > 0);
		INVARIANT(limits.min_pool_size <= limits.pool_size);
	}
	for (size_t i = 0; i < topo_login_count(t); i++) {
		const struct topo_login *l = topo_login(t, i);

		INVARIANT(topo_login_find(t, l->name) == l);
	}
}

static void
check_virtuals(const struct topo *t)
{
	for (size_t i = 0; i < topo_virtual_count(t); i++) {
		const struct topo_virtual *v = topo_virtual(t, i);

		INVARIANT(topo_virtual_find(t, v->name) == v);
		INVARIANT(topo_member_find(v, v->dflt->name) == v->dflt);
		for (size_t k = 0; k < v->exact_count; k++) {
			const struct topo_route *r = &v->routes[k];

			INVARIANT(topo_route_find(v, r->schema, r->table) == r);
			INVARIANT(topo_shard_find(v, r->schema, r->table) == NULL);
		}
		for (size_t k = v->exact_count; k < v->route_count; k++)
			INVARIANT(!v->routes[k].is_exact);
		for (size_t k = 0; k < v->shard_count; k++)
			INVARIANT(v->shards[k].member_count > 0 &&
				  v->shards[k].table_count > 0 &&
				  *v->shards[k].key != '\0');
		for (size_t k = 0; k < v->model_count; k++)
			(void)topo_model_database(v, &v->models[k]);
	}
}

/* A key and a job are as right by themselves as in their section. */
static void
check_words(const struct topo *t)
{
	char why[256];

	for (size_t i = 0; i < topo_key_count(t); i++) {
		const struct topo_key *k = topo_key(t, i);

		INVARIANT(topo_key_find(t, k->id) == k);
		INVARIANT(topo_key_check(t, &k->text, why, sizeof(why)));
	}
	for (size_t i = 0; i < topo_job_count(t); i++)
		INVARIANT(topo_job_check(t, &topo_job(t, i)->text, why, sizeof(why)));
}

/* What SHOW CONFIG prints can be read again, and is the same. */
static void
check_settings(const struct settings *s)
{
	struct settings again;
	char text[4096], twice[4096], why[256];

	settings_defaults(&again);
	for (size_t i = 0; i < setting_count; i++) {
		const struct setting *row = &setting_table[i];

		setting_text(s, row, text, sizeof(text));
		if (row->type == SET_STR)
			continue;
		INVARIANT(setting_put(&again, row, text, why, sizeof(why)) == F_OK);
		setting_text(&again, row, twice, sizeof(twice));
		INVARIANT(strcmp(text, twice) == 0);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf_problems problems = {0};
	struct conf *c = conf_load_text("fuzz.ini", (const char *)data, size, &problems);
	struct topo *t;

	check_settings(conf_settings(c));
	t = topo_build(c, &problems);
	INVARIANT((t != NULL) == (problems.count == 0));
	if (t != NULL) {
		check_snapshot(t);
		check_virtuals(t);
		check_words(t);
	}
	check_lines(problems.lines, problems.count);
	check_lines(problems.warnings, problems.warning_count);
	topo_release(t);
	conf_problems_free(&problems);
	/* They would grow with every name that was tried. */
	topo_verdicts_free();
	topo_key_uses_free();
	return (0);
}
