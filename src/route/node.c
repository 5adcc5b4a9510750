/*
 * From a member to the database that is asked:
 *
 *   no host: its fallback, and so on -> the primary of it and its replicas, as of now
 *     -> plain read: a replica, when one is usable
 *     -> down, draining or in maintenance: its fallback, when fallback_on_down allows it, with a
 *        warning -> 57P03
 *
 * A transaction that has begun on one of them goes on there.
 */
#include "private.h"

#include <stdatomic.h>

/* topo refuses circles; this keeps a mistake there from becoming an endless loop here. */
#define HOPS_MAX     16
#define REPLICAS_MAX 16
/* A replica that was down gets one read of eight at first, and all after this time. */
#define SLOW_START_US 10000000
#define FULL_SHARE    8

/* Whose turn it is where several replicas can answer. */
static _Atomic unsigned turn;

static enum topo_status
status_of(const struct topo_database *d)
{
	if (d->verdict == NULL)
		return (TOPO_UNKNOWN);
	return ((enum topo_status)atomic_load_explicit(
	    &d->verdict->status, memory_order_relaxed));
}

static enum topo_role
role_of(const struct topo_database *d)
{
	if (d->verdict == NULL)
		return (TOPO_ROLE_UNKNOWN);
	return ((enum topo_role)atomic_load_explicit(
	    &d->verdict->role, memory_order_relaxed));
}

/* The transaction has begun there. */
static bool
is_open(const struct route_work *w, const struct topo_database *d)
{
	const struct route_input *in = w->in;

	return (in->is_open != NULL && in->is_open(in->open_arg, d));
}

/* Takes no new statements. A replica that lags still does when it was asked for by its own
 * name. */
static bool
is_down(const struct route_work *w, const struct topo_database *d)
{
	enum topo_status status = status_of(d);

	if (status == TOPO_DRAINING && w->in->in_transaction && w->in->is_open == NULL)
		return (false);
	return ((status == TOPO_DOWN || status == TOPO_MAINTENANCE ||
		    status == TOPO_DRAINING) &&
		!is_open(w, d));
}

/* The primary of the group that a member stands for. A replica asked for by its own name is
 * itself, whatever it is now. */
static const struct topo_database *
primary_of(const struct topo_database *served, const struct topo_database **rival)
{
	*rival = NULL;
	if (served->replica_of != NULL)
		return (served);
	return (topo_database_primary(served, rival));
}

/* ---- replicas ---- */

static bool
is_usable_replica(const struct topo_database *r, const struct topo_database *primary)
{
	enum topo_status status;

	if (r == primary || !r->is_configured ||
	    (r->verdict != NULL && atomic_load(&r->verdict->is_fenced)))
		return (false);
	status = status_of(r);
	return (
	    status == TOPO_HEALTHY || status == TOPO_UNKNOWN || status == TOPO_HALF_OPEN);
}

static bool
has_what_was_written(const struct route_work *w, const struct topo_database *replica)
{
	if (!w->in->virt->causal_reads || w->in->wrote_us == 0)
		return (true);
	return (replica->verdict != NULL &&
		atomic_load(&replica->verdict->replayed_us) > w->in->wrote_us);
}

/* How many of eight reads it may get. */
static unsigned
share_of(const struct topo_database *r, int64_t now_us)
{
	int64_t risen;

	if (r->verdict == NULL || now_us == 0)
		return (FULL_SHARE);
	if (status_of(r) == TOPO_HALF_OPEN)
		return (1);
	risen = atomic_load_explicit(&r->verdict->risen_us, memory_order_relaxed);
	if (risen == 0 || now_us - risen >= SLOW_START_US)
		return (FULL_SHARE);
	return (1 + (unsigned)((now_us - risen) * (FULL_SHARE - 1) / SLOW_START_US));
}

/* The next one whose turn it is; is_alone: it is this or nobody. */
static const struct topo_database *
take_turns(const struct route_work *w, const struct topo_database **usable, unsigned n,
    bool is_alone)
{
	unsigned shares[REPLICAS_MAX], at, least = FULL_SHARE;

	for (unsigned i = 0; i < n; i++) {
		if (is_open(w, usable[i]))
			return (usable[i]);
		shares[i] = share_of(usable[i], w->in->now_us);
		if (shares[i] < least)
			least = shares[i];
	}
	if (n == 1 && least == FULL_SHARE)
		return (usable[0]);
	at = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
	for (unsigned i = 0; i < n; i++) {
		unsigned k = (at + i) % n;

		if (at / n % FULL_SHARE < shares[k])
			return (usable[k]);
	}
	return (is_alone ? usable[at % n] : NULL);
}

/* Those of read_from, and the configured primary where it is a replica now. why: if none, why
 * not. */
static unsigned
list_usable(const struct route_work *w, const struct topo_database *root,
    const struct topo_database *primary, const struct topo_database *usable[REPLICAS_MAX],
    const char **why)
{
	const struct topo_virtual *v = w->in->virt;
	unsigned n = 0;

	*why = "read, no usable replica";
	for (size_t i = 0; i <= v->read_from_count && n < REPLICAS_MAX; i++) {
		const struct topo_database *r =
		    i < v->read_from_count ? v->read_from[i] : root;

		if ((r == root ? role_of(root) != TOPO_ROLE_REPLICA
			       : r->replica_of != root) ||
		    !is_usable_replica(r, primary))
			continue;
		if (has_what_was_written(w, r))
			usable[n++] = r;
		else
			*why = "read, no replica is known to have what this login wrote";
	}
	return (n);
}

/* NULL, and why: none. */
static const struct topo_database *
replica_among(const struct route_work *w, const struct topo_database *root,
    const struct topo_database *primary, const char **why)
{
	const struct topo_database *usable[REPLICAS_MAX];
	unsigned n = list_usable(w, root, primary, usable, why);

	if (n == 0)
		return (NULL);
	*why = "read, replicas that were down get few at first";
	return (take_turns(w, usable, n, is_down(w, primary)));
}

/* Why a statement is not for a replica; NULL: it is. */
static const char *
replica_bar(const struct route_work *w)
{
	const struct route_input *in = w->in;

	if (w->out->is_write)
		return ("may write");
	if (!w->is_plain_read)
		return ("not a plain read");
	if (w->is_pinned)
		return ("the session is pinned there");
	if (in->in_transaction && !in->is_read_only)
		return ("read in a transaction that may write");
	if (w->read_from == READ_FROM_PRIMARY)
		return ("read, read_from is primary");
	if (in->virt->read_from_count == 0)
		return ("read, no replicas are configured for reads");
	return (NULL);
}

static const struct topo_database *
replica_pick(struct route_work *w, const struct topo_database *root,
    const struct topo_database *primary)
{
	const struct topo_database *replica = NULL;
	const char *bar = replica_bar(w);

	if (bar == NULL && root->replica_of == NULL)
		replica = replica_among(w, root, primary, &bar);
	else if (bar == NULL)
		bar = "read, asked for by its name";
	if (!w->in->wants_notes)
		return (replica);
	if (replica == NULL) {
		route_put(w->out->node_why, sizeof(w->out->node_why), "%s", bar);
		if (primary != root)
			route_append(w->out->node_why, sizeof(w->out->node_why),
			    "; %s is the primary now", primary->name);
		return (NULL);
	}
	route_put(w->out->node_why, sizeof(w->out->node_why), "read, %s %s",
	    replica->name, topo_status_name(status_of(replica)));
	if (replica->verdict != NULL && atomic_load(&replica->verdict->lag_us) >= 0)
		route_append(w->out->node_why, sizeof(w->out->node_why), ", lag %lld ms",
		    (long long)atomic_load(&replica->verdict->lag_us) / 1000);
	return (replica);
}

/* ---- refusals ---- */

const char *
route_down_word(const struct topo_database *d)
{
	switch (status_of(d)) {
	case TOPO_MAINTENANCE:
		return ("is in maintenance");
	case TOPO_DRAINING:
		return ("is draining and takes no new statements");
	case TOPO_UNKNOWN:
	case TOPO_HEALTHY:
	case TOPO_DOWN:
	case TOPO_HALF_OPEN:
	case TOPO_LAGGING:
	default:
		return ("is down");
	}
}

/* "12 s", "340 ms". */
static void
put_age(char *to, size_t size, int64_t us)
{
	if (us < 0)
		us = 0;
	if (us < 10 * 1000 * 1000)
		route_append(to, size, "%lld ms", (long long)us / 1000);
	else
		route_append(to, size, "%lld s", (long long)us / 1000000);
}

/* "down since 12 s: connection refused; checked 1 s ago". */
static void
hint_state(struct route_work *w, const struct topo_database *d)
{
	struct route_plan *out = w->out;
	struct topo_verdict *v = d->verdict;
	int64_t since, checked, now = w->in->now_us;

	if (v == NULL)
		return;
	since = atomic_load(&v->since_us);
	checked = atomic_load(&v->checked_us);
	route_hint(w, "%s", topo_status_name(status_of(d)));
	if (now != 0 && since != 0) {
		route_append(out->hint, sizeof(out->hint), " since ");
		put_age(out->hint, sizeof(out->hint), now - since);
	}
	pthread_mutex_lock(&v->lock);
	if (v->reason[0] != '\0')
		route_append(out->hint, sizeof(out->hint), ": %.160s", v->reason);
	pthread_mutex_unlock(&v->lock);
	if (now != 0 && checked != 0) {
		route_append(out->hint, sizeof(out->hint), "; checked ");
		put_age(out->hint, sizeof(out->hint), now - checked);
		route_append(out->hint, sizeof(out->hint), " ago");
	}
}

static bool
refuse_rivals(
    struct route_work *w, const struct topo_database *a, const struct topo_database *b)
{
	route_refuse(w, "57P03",
	    "\"%s\" and \"%s\" both claim to be the primary: nothing is written", a->name,
	    b->name);
	route_hint(w, "%s",
	    "Stop the one that is not to be written, or make it a replica of the other.");
	return (false);
}

bool
route_refuse_down(struct route_work *w, const struct topo_database *d)
{
	const struct topo_database *rival, *primary = primary_of(d, &rival);

	if (rival != NULL && w->out->is_write)
		return (refuse_rivals(w, primary, rival));
	if (primary != d)
		route_refuse(w, "57P03", "database \"%s\", the primary of \"%s\", %s",
		    primary->name, d->name, route_down_word(primary));
	else
		route_refuse(
		    w, "57P03", "database \"%s\" %s", d->name, route_down_word(d));
	hint_state(w, primary);
	return (false);
}

/* What is said of writes while nobody takes them. */
static bool
refuse_in_recovery(struct route_work *w, const struct topo_database *d)
{
	route_refuse(w, "57P03",
	    "database \"%s\" is in recovery, and none of its replicas is a primary",
	    d->name);
	hint_state(w, d);
	return (false);
}

/* ---- nodes ---- */

/* Where to instead of a database that is down; NULL: nowhere. A fallback that takes over for
 * one that is down must be one that the key may reach; one that stands for a database without
 * a host is what the configuration says that database is. */
static const struct topo_database *
fallback_of(const struct route_work *w, const struct topo_database *d)
{
	const struct topo_database *to;

	if (d->fallback == NULL || !route_may(w->in->key, NULL, d->fallback))
		return (NULL);
	to = topo_database_served(d->fallback);
	if (w->out->is_write && (to->is_read_only || !topo_database_is_primary(to)))
		return (NULL);
	if (d->fallback_on_down == TOPO_FALLBACK_ALL ||
	    (d->fallback_on_down == TOPO_FALLBACK_READS && route_is_read(w->in)))
		return (to);
	return (NULL);
}

/* Where the transaction has begun among a primary and its replicas, as far as the statement may
 * go there; or NULL. */
static const struct topo_database *
open_node(const struct route_work *w, const struct topo_database *served,
    const struct topo_database *primary)
{
	if (w->in->is_open == NULL || !w->in->in_transaction)
		return (NULL);
	if (is_open(w, primary))
		return (primary);
	if (is_open(w, served))
		return (served);
	if (replica_bar(w) != NULL)
		return (NULL);
	for (size_t i = 0; i < served->copy_count; i++)
		if (is_open(w, served->copies[i]))
			return (served->copies[i]);
	return (NULL);
}

/* Whether it is a primary that can be written, as far as is known. */
static bool
is_written(const struct topo_database *served, const struct topo_database *primary)
{
	return (served->copy_count == 0 || role_of(primary) != TOPO_ROLE_REPLICA);
}

bool
route_node(struct route_work *w, const struct topo_database *member,
    const struct topo_database **node)
{
	const struct topo_database *served = topo_database_served(member), *rival,
				   *first = served, *next,
				   *primary = primary_of(served, &rival);

	if (rival != NULL && w->out->is_write)
		return (refuse_rivals(w, primary, rival));
	if ((*node = open_node(w, served, primary)) != NULL)
		return (true);
	if ((*node = replica_pick(w, served, primary)) != NULL) {
		w->out->on_replica = true;
		return (true);
	}
	for (int hops = 0; is_down(w, primary); hops++) {
		next = fallback_of(w, served);
		if (next == NULL || hops == HOPS_MAX)
			return (route_refuse_down(w, served));
		served = next;
		primary = primary_of(served, &rival);
		if (rival != NULL && w->out->is_write)
			return (refuse_rivals(w, primary, rival));
	}
	if (w->out->is_write && !is_written(served, primary))
		return (refuse_in_recovery(w, primary));
	if (served != first)
		route_put(w->out->warning, sizeof(w->out->warning),
		    "database \"%s\" %s, \"%s\" answers", first->name,
		    route_down_word(primary_of(first, &rival)), primary->name);
	*node = primary;
	return (true);
}

const struct topo_database *
route_leg_node(struct route_work *w, const struct topo_database *member)
{
	const struct topo_database *served = topo_database_served(member), *rival,
				   *primary = primary_of(served, &rival), *node;

	if (rival != NULL && w->out->is_write)
		return (NULL);
	if ((node = open_node(w, served, primary)) != NULL ||
	    (node = replica_pick(w, served, primary)) != NULL)
		return (node);
	return (is_down(w, primary) ? NULL : primary);
}

const struct topo_database *
route_leg_fallback(struct route_work *w, const struct topo_database *member)
{
	const struct topo_database *served = topo_database_served(member), *rival,
				   *primary = primary_of(served, &rival);

	for (int hops = 0; is_down(w, primary); hops++) {
		served = fallback_of(w, served);
		if (served == NULL || hops == HOPS_MAX)
			return (NULL);
		primary = primary_of(served, &rival);
	}
	return (rival == NULL || !w->out->is_write ? primary : NULL);
}
