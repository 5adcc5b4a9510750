/* What is configured, and how it is: answered from the snapshot and the verdicts alone. */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct listing {
	struct job *job;
	struct json j;
	struct buf body;
};

static struct listing *
listing_begin(struct listing *l, struct job *job, char bracket)
{
	*l = (struct listing){.job = job};
	l->j.out = &l->body;
	json_open(&l->j, bracket);
	return (l);
}

static void
listing_end(struct listing *l, int status, char bracket)
{
	json_close(&l->j, bracket);
	job_json(l->job, status, &l->body);
}

/* ---- health ---- */

static void
put_health(void *arg, const struct topo_database *db)
{
	struct listing *l = arg;

	json_key(&l->j, db->name);
	json_open(&l->j, '{');
	json_key(&l->j, "database");
	json_text(&l->j, db->name);
	health_fields(&l->j, db);
	json_close(&l->j, '}');
}

void
info_health_all(struct job *job)
{
	struct listing l;

	databases_each(job, put_health, listing_begin(&l, job, '{'));
	listing_end(&l, 200, '}');
}

static void
answer_health(struct job *job, const struct topo_database *db)
{
	struct listing l;

	listing_begin(&l, job, '{');
	json_key(&l.j, "database");
	json_text(&l.j, db->name);
	health_fields(&l.j, db);
	listing_end(&l, database_is_up(db) ? 200 : 503, '}');
}

void
info_health_one(struct job *job)
{
	const struct topo_database *db = who_named(job);

	if (db != NULL)
		answer_health(job, db);
}

void
info_routed_health(struct job *job)
{
	const struct topo_database *db;
	struct refusal why;

	if (!who_needs_database(job))
		return;
	db = database_routed(job, &why);
	if (db != NULL)
		answer_health(job, db);
	else
		job_refuse(job, &why);
}

static void
put_up(void *arg, const struct topo_database *db)
{
	struct listing *l = arg;

	json_key(&l->j, db->name);
	json_bool(&l->j, database_is_up(db));
}

void
info_up(struct job *job)
{
	struct listing l;

	databases_each(job, put_up, listing_begin(&l, job, '{'));
	listing_end(&l, 200, '}');
}

void
info_live(struct job *job)
{
	struct listing l;

	listing_begin(&l, job, '{');
	json_key(&l.j, "status");
	json_text(&l.j, "ok");
	listing_end(&l, 200, '}');
}

/* ---- what there is ---- */

static void
put_database(void *arg, const struct topo_database *db)
{
	struct listing *l = arg;

	json_open(&l->j, '{');
	json_key(&l->j, "id");
	json_text(&l->j, db->name);
	json_key(&l->j, "name");
	json_text(&l->j, db->name);
	if (db->region[0] != '\0') {
		json_key(&l->j, "region");
		json_text(&l->j, db->region);
	}
	json_key(&l->j, "health");
	json_open(&l->j, '{');
	health_fields(&l->j, db);
	json_close(&l->j, '}');
	json_close(&l->j, '}');
}

void
info_databases(struct job *job)
{
	const struct topo_database *current;
	struct listing l;
	struct refusal why;

	if (!who_needs_database(job))
		return;
	current = database_routed(job, &why);
	if (current == NULL) {
		job_refuse(job, &why);
		return;
	}
	listing_begin(&l, job, '{');
	json_key(&l.j, "virtualDatabase");
	json_text(&l.j, job->who.virt != NULL ? job->who.virt->name : NULL);
	json_key(&l.j, "currentDatabase");
	put_database(&l, current);
	json_key(&l.j, "databases");
	json_open(&l.j, '[');
	databases_each(job, put_database, &l);
	json_close(&l.j, ']');
	listing_end(&l, 200, '}');
}

static void
put_name(void *arg, const struct topo_database *db)
{
	struct listing *l = arg;

	if (db->is_configured)
		json_text(&l->j, db->name);
}

void
info_configured(struct job *job)
{
	struct listing l;

	listing_begin(&l, job, '{');
	json_key(&l.j, "databases");
	json_open(&l.j, '[');
	databases_each(job, put_name, &l);
	json_close(&l.j, ']');
	listing_end(&l, 200, '}');
}

/* ---- models ---- */

static const struct topo_database *
model_database(const struct topo_virtual *virt, const struct topo_model *m)
{
	const struct topo_route *route;

	if (m->database != NULL)
		return (m->database);
	route = topo_route_find(virt, NULL, m->table);
	return (route != NULL ? route->database : virt->dflt);
}

/* An array of the models that live in that database. */
static void
put_model_names(struct listing *l, const struct topo_database *db)
{
	const struct who *who = &l->job->who;

	json_open(&l->j, '[');
	for (size_t v = 0; v < topo_virtual_count(l->job->topo); v++) {
		const struct topo_virtual *virt = topo_virtual(l->job->topo, v);

		if (who->virt != NULL && virt != who->virt)
			continue;
		for (size_t i = 0; i < virt->model_count; i++)
			if (model_database(virt, &virt->models[i]) == db)
				json_text(&l->j, virt->models[i].model);
	}
	json_close(&l->j, ']');
}

static void
put_models(void *arg, const struct topo_database *db)
{
	struct listing *l = arg;

	json_key(&l->j, db->name);
	put_model_names(l, db);
}

void
info_models(struct job *job)
{
	struct listing l;

	databases_each(job, put_models, listing_begin(&l, job, '{'));
	listing_end(&l, 200, '}');
}

void
info_models_one(struct job *job)
{
	const struct topo_database *db = who_named(job);
	struct listing l;

	if (db == NULL)
		return;
	listing_begin(&l, job, '{');
	json_key(&l.j, "database");
	json_text(&l.j, db->name);
	json_key(&l.j, "models");
	put_model_names(&l, db);
	listing_end(&l, 200, '}');
}

/* ---- backups ---- */

/* A word as the shell takes it. */
static void
put_word(struct buf *b, const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-./:@%+,";

	if (*s != '\0' && strspn(s, plain) == strlen(s)) {
		buf_addstr(b, s);
		return;
	}
	buf_add(b, "'", 1);
	for (; *s != '\0'; s++)
		buf_add(b, *s == '\'' ? "'\\''" : s, *s == '\'' ? 4 : 1);
	buf_add(b, "'", 1);
}

static void
put_dump_command(
    struct json *j, const struct topo_database *db, const char *dbname, const char *user)
{
	struct buf command = {0};

	buf_addstr(&command, "pg_dump --host=");
	put_word(&command, db->hosts[0].host);
	buf_addf(&command, " --port=%u --username=", db->hosts[0].port);
	put_word(&command, user);
	buf_addstr(&command, " --format=custom --file=");
	put_word(&command, db->name);
	buf_addstr(&command, ".dump --dbname=");
	put_word(&command, dbname);
	json_textn(j, (const char *)command.mem, command.len);
	buf_free(&command);
}

static void
put_backup(void *arg, const struct topo_database *db)
{
	struct listing *l = arg;
	const struct who *who = &l->job->who;
	const char *role =
	    who->rules != NULL ? topo_key_role(who->rules, db->name) : NULL;
	const char *dbname = db->dbname != NULL ? db->dbname : db->name;
	const char *user = role != NULL ? role : db->user != NULL ? db->user : who->login;

	if (!db->is_configured)
		return;
	json_key(&l->j, db->name);
	json_open(&l->j, '{');
	json_key(&l->j, "host");
	json_text(&l->j, db->hosts[0].host);
	json_key(&l->j, "port");
	json_int(&l->j, db->hosts[0].port);
	json_key(&l->j, "database");
	json_text(&l->j, dbname);
	json_key(&l->j, "username");
	json_text(&l->j, user);
	json_key(&l->j, "command");
	put_dump_command(&l->j, db, dbname, user);
	json_close(&l->j, '}');
}

void
info_backup(struct job *job)
{
	struct listing l;

	databases_each(job, put_backup, listing_begin(&l, job, '{'));
	listing_end(&l, 200, '}');
}
