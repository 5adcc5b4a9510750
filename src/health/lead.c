/*
 * Which one of a primary and its replicas takes the writes now. Each has said when it last
 * answered whether it is in recovery, and on which timeline it writes; a promotion begins a new
 * one:
 *
 *   one claims to be primary            it is the one
 *   several, on different timelines     the one on the newest
 *   several, and that is not known      none is written until it is
 *   none                                the last one still is, and is missing
 *
 * An old primary that comes back as such is on an older timeline, also when the newer one does
 * not answer: it stays out. It may come back as a replica, and is one then.
 */
#include "private.h"
#include "stat.h"
#include <stdio.h>
#include <string.h>

/* ---- claims ---- */

static bool
is_alive(const struct watch *w)
{
	return (atomic_load(&w->verdict->found) != TOPO_DOWN &&
		atomic_load(&w->verdict->word) != TOPO_MAINTENANCE);
}

/* It says that it takes writes. One that is configured to take none claims nothing. */
static bool
is_claimant(const struct watch *w)
{
	return (w->role == TOPO_ROLE_PRIMARY && is_alive(w) &&
		(w->database == NULL || !w->database->is_read_only));
}

static bool
is_same_address(const struct topo_database *a, const struct topo_database *b)
{
	if (a == NULL || b == NULL || a->host_count != b->host_count)
		return (false);
	for (size_t i = 0; i < a->host_count; i++)
		if (a->hosts[i].port != b->hosts[i].port ||
		    strcmp(a->hosts[i].host, b->hosts[i].host) != 0)
			return (false);
	return (true);
}

/* Two names of one server, or two databases of it. */
static bool
is_same_server(const struct watch *a, const struct watch *b)
{
	return ((a->system != 0 && a->system == b->system && a->server_us != 0 &&
		    a->server_us == b->server_us) ||
		is_same_address(a->database, b->database));
}

/* Somebody has been seen to write on a newer timeline of the same cluster: NULL: nobody. */
static const struct watch *
newer_than(const struct watch *w, struct watch *const *group, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (w->timeline != 0 && group[i]->timeline > w->timeline &&
		    group[i]->system == w->system)
			return (group[i]);
	return (NULL);
}

/* Not one to take over from the configured primary: that has not been asked yet, or does not
 * answer, and this is another cluster altogether, no copy of it. */
static bool
is_stranger(const struct watch *w, const struct watch *root)
{
	if (w != root && root->role == TOPO_ROLE_UNKNOWN && is_alive(root))
		return (true);
	return (w->system != 0 && root->system != 0 && w->system != root->system &&
		!is_claimant(root));
}

struct watch *
lead_of(struct watch *const *group, size_t count)
{
	struct topo_verdict *v =
	    count > 0 ? atomic_load(&group[0]->verdict->primary) : NULL;

	for (size_t i = 0; i < count; i++)
		if (group[i]->verdict == v)
			return (group[i]);
	return (count > 0 ? group[0] : NULL);
}

/* The one that is it, or NULL; rival: another of which it is not known. */
static struct watch *
choose(struct watch *const *group, size_t count, struct watch **rival)
{
	struct watch *was = lead_of(group, count), *best = NULL;

	*rival = NULL;
	for (size_t i = 0; i < count; i++) {
		struct watch *w = group[i];

		if (!is_claimant(w) || newer_than(w, group, count) != NULL ||
		    is_stranger(w, group[0]))
			continue;
		if (best == NULL)
			best = w;
		else if (is_same_server(best, w))
			best = w == was && best != group[0] ? w : best;
		else if (w == was) {
			*rival = best;
			best = w;
		} else
			*rival = w;
	}
	return (best);
}

/* ---- what is said of each ---- */

static void
set_note(struct watch *w, const char *note, int64_t now_us)
{
	enum topo_status found = (enum topo_status)atomic_load(&w->verdict->found);

	if (strcmp(w->note, note) == 0)
		return;
	(void)text_copy(w->note, sizeof(w->note), note);
	if (found == TOPO_HEALTHY)
		topo_verdict_set(
		    w->verdict, found, now_us, note[0] != '\0' ? note : NULL);
}

static void
note_rivals(
    char *to, size_t size, const char *root, const struct watch *a, const struct watch *b)
{
	snprintf(to, size,
	    "\"%.40s\" (timeline %u) and \"%.40s\" (timeline %u) both claim to be the "
	    "primary of \"%.40s\": none is written",
	    a->name, a->timeline, b->name, b->timeline, root);
}

static void
note_one(struct watch *w, const struct watch *root, const struct watch *lead,
    const struct watch *rival, const struct watch *newer, int64_t now_us)
{
	bool is_claim = is_claimant(w) && w != lead && !is_same_server(w, lead);
	char note[sizeof(w->note)] = "";

	if (rival != NULL && (w == lead || w == rival))
		note_rivals(note, sizeof(note), root->name, lead, rival);
	else if (is_claim && newer != NULL)
		snprintf(note, sizeof(note),
		    "it claims to be primary on timeline %u, but \"%.40s\" is on "
		    "timeline %u: it is not used",
		    w->timeline, newer->name, newer->timeline);
	else if (is_claim)
		snprintf(note, sizeof(note),
		    "it is not in recovery, and another cluster than \"%.40s\": it is not "
		    "used",
		    root->name);
	else if (w == lead && w != root)
		snprintf(note, sizeof(note), "promoted: it is the primary of \"%.40s\"",
		    root->name);
	else if (w == root && w != lead && w->role == TOPO_ROLE_REPLICA)
		snprintf(note, sizeof(note), "a replica now, \"%.40s\" is the primary",
		    lead->name);
	set_note(w, note, now_us);
	atomic_store(&w->verdict->is_fenced, is_claim);
}

/* ---- what follows ---- */

static void
tell_lead(struct watch *root, struct watch *was, struct watch *is)
{
	char reason[256];

	snprintf(reason, sizeof(reason),
	    "it is the primary of \"%.40s\" instead of \"%.40s\", on timeline %u",
	    root->name, was->name, is->timeline);
	log_warning("health: %s was promoted: %s", is->name, reason);
	stat_count(M_health_promotions, 1);
	alert_raise(is, "replica", "primary", reason);
}

static void
tell_rivals(struct watch *root, const struct watch *lead, const struct watch *rival)
{
	char reason[320];

	note_rivals(reason, sizeof(reason), root->name, lead, rival);
	log_error("health: %s", reason);
	alert_raise(root, "primary", "disputed", reason);
}

/* When there is no primary, the others are asked at once and often whether one is it. */
static void
hurry(struct watch *const *group, size_t count, const struct watch *lead, int64_t now_us)
{
	bool is_urgent =
	    atomic_load(&group[0]->verdict->missing_us) != 0 || lead->bad > 0;

	for (size_t i = 0; i < count; i++) {
		struct watch *w = group[i];
		bool wants = is_urgent && w != lead;

		if (wants && !w->is_urgent) {
			w->urgent_us = now_us;
			w->due_us = now_us;
		}
		w->is_urgent = wants;
	}
}

static void
set_missing(struct topo_verdict *v, bool is_missing, int64_t now_us)
{
	if (!is_missing)
		atomic_store(&v->missing_us, 0);
	else if (atomic_load(&v->missing_us) == 0)
		atomic_store(&v->missing_us, now_us);
}

void
lead_judge(struct watch *const *group, size_t count, int64_t now_us)
{
	struct watch *root = group[0], *was = lead_of(group, count), *rival,
		     *lead = choose(group, count, &rival);
	struct topo_verdict *v = root->verdict, *rival_was = atomic_load(&v->rival);
	/* One that says nothing of its role is taken for what the configuration says. */
	bool is_missing =
	    lead == NULL && (!is_alive(was) || was->role == TOPO_ROLE_REPLICA ||
				newer_than(was, group, count) != NULL);

	if (lead == NULL)
		lead = was;
	if (rival != NULL) {
		atomic_store(&v->rival, rival->verdict);
		atomic_store(&v->primary, lead->verdict);
	} else {
		/* In this order: see topo_database_primary(). */
		atomic_store(&v->primary, lead->verdict);
		atomic_store(&v->rival, NULL);
	}
	set_missing(v, is_missing, now_us);
	for (size_t i = 0; i < count; i++)
		note_one(group[i], root, lead, rival, newer_than(group[i], group, count),
		    now_us);
	if (lead != was)
		tell_lead(root, was, lead);
	if (rival != NULL && rival_was == NULL)
		tell_rivals(root, lead, rival);
	hurry(group, count, lead, now_us);
}
