/* A session comes to a virtual database, lives through reloads, and leaves it. */
#include "weave.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- who may ---- */

/* The rules that hold for the session's login: its key, or [login x]. *is_key: it is a key. */
static const struct topo_key *
rules_of(const struct session *s, const struct topo *topo, bool *is_key)
{
	const struct topo_key *k = topo_key_find(topo, s->user->name);
	const struct topo_login *login;

	*is_key = k != NULL;
	if (k != NULL)
		return (k);
	login = topo_login_find(topo, s->user->name);
	return (login != NULL ? login->rules : NULL);
}

static void
refuse_key(struct session *s, const char *verb, const char *what)
{
	bool is_key = topo_key_find(pool_worker(s->worker)->topo, s->user->name) != NULL;
	char *message = mem_printf("%s \"%s\" may not %s database \"%s\"",
	    is_key ? "key" : "login", s->user->name, verb, what);

	session_close(s, "42501", message);
	free(message);
}

bool
session_key_operates(const struct session *s, const struct topo_key *key)
{
	return (
	    key != NULL && key->can_operate && s->login != NULL && s->login->is_inner);
}

bool
session_key_may(struct session *s, const char *dbname)
{
	const struct topo *topo = pool_worker(s->worker)->topo;
	const struct topo_key *key = topo_key_find(topo, s->user->name);

	if (key == NULL || (session_key_operates(s, key) && topo_is_console(dbname)))
		return (true);
	refuse_key(s, "connect to", dbname);
	return (false);
}

static bool
rules_allow(struct session *s, const struct weave *w)
{
	const struct topo_key *k = w->key;

	if (k == NULL)
		return (true);
	if (k->virtual_[0] != '\0' && strcmp(k->virtual_, w->name) != 0) {
		refuse_key(s, "connect to", w->title);
		return (false);
	}
	if (w->member != NULL && !topo_key_may_reach(k, w->member)) {
		refuse_key(s, "reach", w->member);
		return (false);
	}
	return (true);
}

/* ---- home: where a client is greeted ---- */

static bool
is_up(const struct topo_database *db)
{
	return (db != NULL && (db->verdict == NULL || topo_verdict_is_up(db->verdict)));
}

/* Who answers for the member and takes its writes now. */
static const struct topo_database *
present(const struct topo_database *member)
{
	const struct topo_database *served = topo_database_served(member);

	return (served != NULL ? topo_database_primary(served, NULL) : NULL);
}

/* The default member when it is up, or the member asked for; else any that is. */
static struct seat *
find_home(struct session *s)
{
	struct weave *w = s->weave;
	const struct topo_virtual *v = w->virt;
	const struct topo_database *wanted =
	    w->member != NULL ? topo_member_find(v, w->member) : v->dflt;
	const struct topo_database *db = present(wanted);

	if (!is_up(db) || (w->key != NULL && !topo_key_may_reach(w->key, wanted->name)))
		for (size_t i = 0; i < v->member_count; i++) {
			const struct topo_database *m = v->members[i];

			if (w->key != NULL && !topo_key_may_reach(w->key, m->name))
				continue;
			if (!is_up(present(m)))
				continue;
			db = present(m);
			break;
		}
	return (db != NULL ? weave_seat(s, db) : NULL);
}

bool
weave_begin(struct session *s, const struct topo_virtual *v, const char *member)
{
	struct session_worker *sw = session_worker(s->worker);
	struct weave *w = mem_alloc(sizeof(*w));
	bool is_key;

	if (sw->plan == NULL)
		sw->plan = mem_alloc(sizeof(*sw->plan));
	s->weave = w;
	TAILQ_INIT(&w->portals);
	TAILQ_INIT(&w->anchors);
	w->plan = sw->plan;
	w->virt = v;
	w->name = mem_str(v->name);
	w->member = member != NULL ? mem_str(member) : NULL;
	w->title = mem_str(s->login->startup.database);
	w->key = rules_of(s, pool_worker(s->worker)->topo, &is_key);
	w->key_is_key = is_key;
	if (s->login->shown != NULL)
		w->shown = pool_secret_hold(s->login->shown);
	if (!rules_allow(s, w))
		return (false);
	w->home = find_home(s);
	if (w->home == NULL) {
		if (refusal_is_set(&w->refusal))
			session_close(s, w->refusal.sqlstate, w->refusal.message);
		else
			session_close(
			    s, "57P03", "no member of the database can be reached");
		return (false);
	}
	if (w->key != NULL && w->key->use != NULL)
		atomic_store(&w->key->use->last_used_us, clock_wall_us());
	w->place = pool_database(w->name);
	if (w->place->is_disabled) {
		pool_place_release(w->place);
		w->place = NULL;
		session_close(s, "57P03", "database does not allow connections");
		return (false);
	}
	atomic_fetch_add(&w->place->clients, 1);
	atomic_fetch_add(&s->user->clients, 1);
	s->seat = w->home;
	s->holds_clients = true;
	w->home->clients++;
	w->home->used_us = clock_us();
	s->mode = POOL_TRANSACTION;
	s->rewrites = true;
	return (true);
}

void
weave_end(struct session *s)
{
	struct weave *w = s->weave;

	if (w->run != NULL && w->run->federation != NULL) {
		federate_abort(w->run->federation);
		w->run->federation = NULL;
	}
	if (weave_split_runs(w))
		weave_split_end(s);
	anchors_end(s);
	for (unsigned i = w->leg_count; i-- > 0;)
		if (w->legs[i].link == s->link)
			leg_forget(w, &w->legs[i]);
	legs_drop(s, NULL, "client disconnect");
	portals_free(s);
	weave_unit_over(s);
	weave_run_free(w);
}

void
weave_free(struct session *s)
{
	struct weave *w = s->weave;

	if (w->place != NULL) {
		atomic_fetch_sub(&w->place->clients, 1);
		pool_place_release(w->place);
	}
	said_free(&w->base);
	said_free(&w->session);
	said_free(&w->saved);
	said_free(&w->local);
	refusal_free(&w->refusal);
	weave_savepoints_cut(s, 0);
	again_free(s);
	weave_made_free(s);
	free(w->begin_sql);
	free(w->next_begin);
	free(w->clean);
	free(w->routed);
	pool_secret_release(w->shown);
	free(w->seats);
	free(w->name);
	free(w->member);
	free(w->title);
	weave_unhold(s);
	weave_track_free(s);
	vars_release(s->worker, w->restored);
	vars_release(s->worker, w->tracked);
	s->weave = NULL;
	free(w);
}

/* What the client is pinned to still belongs to the virtual database. */
static bool
anchors_fit(struct weave *w, const struct topo_virtual *v)
{
	const struct anchor *a;

	w->virt = v;
	TAILQ_FOREACH(a, &w->anchors, entry)
		if (((const struct seat *)a->link->place)->database == NULL ||
		    member_of_seat(w, a->link->place) == NULL)
			return (false);
	return (true);
}

void
weave_world(struct session *s)
{
	const struct topo *topo = pool_worker(s->worker)->topo;
	struct weave *w = s->weave;
	const struct topo_virtual *v = topo_virtual_find(topo, w->name);
	bool is_key, was_key;

	free(w->seats);
	w->seats = NULL;
	w->seat_count = 0;
	if (v == NULL || w->home->database == NULL || !anchors_fit(w, v) ||
	    (w->member != NULL && topo_member_find(v, w->member) == NULL)) {
		session_close(s, "57P01", "database configuration changed");
		return;
	}
	was_key = w->key != NULL && w->key_is_key;
	w->key = rules_of(s, topo, &is_key);
	w->bars = NULL;
	if (was_key && !is_key)
		w->bars = "the key was removed";
	else if (w->key != NULL && session_key_bars(s, w->key) != NULL)
		w->bars = "the key was revoked, or may not log in from here any more";
	if (w->bars != NULL && s->state == SESSION_IDLE && w->txn == TXN_NONE)
		session_close(s, "57P01", w->bars);
}

/* ---- startup parameters ---- */

bool
weave_startup(
    struct session *s, const char *name, const char *value, char *why, size_t why_len)
{
	struct weave *w = s->weave;
	char sqlstate[6];
	int what;

	if (strncasecmp(name, "pgweave.", 8) != 0)
		return (false);
	why[0] = '\0';
	what = said_find(name);
	if (what < 0)
		snprintf(
		    why, why_len, "unrecognized configuration parameter \"%s\"", name);
	else if (!route_check_setting(
		     w->virt, w->key, name + 8, value, sqlstate, why, why_len, NULL, 0))
		;
	else {
		why[0] = '\0';
		said_put(&w->base, (enum said_what)what, value);
		said_put(&w->session, (enum said_what)what, value);
	}
	return (true);
}
