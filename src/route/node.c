/*
 * From a member to the database that is asked:
 *
 *   no host: its fallback, and so on -> plain read: a replica of that, when one is usable
 *     -> down: its fallback, when fallback_on_down allows it, with a warning -> 57P03
 */
#include "private.h"

#include <stdatomic.h>

/* topo refuses circles; this keeps a mistake there from becoming an endless loop here. */
#define HOPS_MAX 16

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

/* A member that drains finishes what it has, and still answers; so does a replica that lags
 * when it was asked for by its own name. */
static bool
is_down(const struct topo_database *d)
{
	enum topo_status status = status_of(d);

	return (status == TOPO_DOWN || status == TOPO_MAINTENANCE);
}

static bool
is_usable_replica(const struct topo_database *r, const struct topo_database *of)
{
	enum topo_status status;

	if (r->replica_of != of || !r->is_configured)
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

static const struct topo_database *
replica_among(
    const struct route_work *w, const struct topo_database *of, const char **bar)
{
	const struct topo_virtual *v = w->in->virt;
	const struct topo_database *usable[16];
	unsigned n = 0;

	for (size_t i = 0; i < v->read_from_count && n < ARRAY_LEN(usable); i++) {
		if (!is_usable_replica(v->read_from[i], of))
			continue;
		if (has_what_was_written(w, v->read_from[i]))
			usable[n++] = v->read_from[i];
		else
			*bar = "read, no replica is known to have what this login wrote";
	}
	if (n <= 1)
		return (n == 0 ? NULL : usable[0]);
	return (usable[atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % n]);
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
	if (in->in_transaction && !in->is_read_only)
		return ("read in a transaction that may write");
	if (w->read_from == READ_FROM_PRIMARY)
		return ("read, read_from is primary");
	if (in->virt->read_from_count == 0)
		return ("read, no replicas are configured for reads");
	return (NULL);
}

static const struct topo_database *
replica_pick(struct route_work *w, const struct topo_database *of)
{
	const struct topo_database *replica = NULL;
	const char *bar = replica_bar(w);

	if (bar == NULL) {
		bar = "read, no usable replica";
		replica = replica_among(w, of, &bar);
	}
	if (!w->in->wants_notes)
		return (replica);
	if (replica == NULL) {
		route_put(w->out->node_why, sizeof(w->out->node_why), "%s", bar);
		return (NULL);
	}
	route_put(w->out->node_why, sizeof(w->out->node_why), "read, %s %s",
	    replica->name, topo_status_name(status_of(replica)));
	if (replica->verdict != NULL && atomic_load(&replica->verdict->lag_us) >= 0)
		route_append(w->out->node_why, sizeof(w->out->node_why), ", lag %lld ms",
		    (long long)atomic_load(&replica->verdict->lag_us) / 1000);
	return (replica);
}

const char *
route_down_word(const struct topo_database *d)
{
	return (status_of(d) == TOPO_MAINTENANCE ? "is in maintenance" : "is down");
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

bool
route_refuse_down(struct route_work *w, const struct topo_database *d)
{
	struct route_plan *out = w->out;
	struct topo_verdict *v = d->verdict;
	int64_t since, checked, now = w->in->now_us;

	route_refuse(w, "57P03", "database \"%s\" %s", d->name, route_down_word(d));
	if (v == NULL)
		return (false);
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
	return (false);
}

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
	if (w->out->is_write && (to->is_read_only || to->replica_of != NULL))
		return (NULL);
	if (d->fallback_on_down == TOPO_FALLBACK_ALL ||
	    (d->fallback_on_down == TOPO_FALLBACK_READS && route_is_read(w->in)))
		return (to);
	return (NULL);
}

bool
route_node(struct route_work *w, const struct topo_database *member,
    const struct topo_database **node)
{
	const struct topo_database *served = topo_database_served(member),
				   *first = served, *next;

	if ((*node = replica_pick(w, served)) != NULL)
		return (true);
	for (int hops = 0; is_down(served); hops++) {
		next = fallback_of(w, served);
		if (next == NULL || hops == HOPS_MAX)
			return (route_refuse_down(w, served));
		served = next;
	}
	if (served != first)
		route_put(w->out->warning, sizeof(w->out->warning),
		    "database \"%s\" %s, \"%s\" answers", first->name,
		    route_down_word(first), served->name);
	*node = served;
	return (true);
}

const struct topo_database *
route_leg_node(struct route_work *w, const struct topo_database *member)
{
	const struct topo_database *served = topo_database_served(member);
	const struct topo_database *replica = replica_pick(w, served);

	if (replica != NULL)
		return (replica);
	return (is_down(served) ? NULL : served);
}
