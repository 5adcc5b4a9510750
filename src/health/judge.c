/*
 * From what a probe found to a verdict:
 *
 *   UNKNOWN -(1 good)-> HEALTHY -(fall bad)-> DOWN -(1 good)-> HALF-OPEN -(rise good)-> HEALTHY
 *                                              ^---(1 bad)---'
 *   replicas: HEALTHY <-> LAGGING (above max_lag; back under half of it)
 *
 * What an operator says (draining, maintenance) hides it, but does not change it.
 */
#include "private.h"
#include "stat.h"
#include <stdio.h>
#include <string.h>

#define FAILING_PAUSE_US 250000   /* while it is not decided */
#define DOWN_PAUSE_US    1000000  /* while it is down */
#define URGENT_US        60000000 /* replicas of a lost primary are asked often so long */

static enum topo_status
status_of(const struct watch *w)
{
	return ((enum topo_status)atomic_load(&w->verdict->found));
}

/* Nobody is to be woken for what an operator does. */
static void
tell_change(
    struct watch *w, enum topo_status was, enum topo_status is, const char *reason)
{
	stat_count(M_health_changes, 1);
	if (atomic_load(&w->verdict->word) != TOPO_UNKNOWN)
		return;
	/* That all is well is no news at the start. */
	if (was != TOPO_UNKNOWN || is != TOPO_HEALTHY)
		alert_raise(w, topo_status_name(was), topo_status_name(is), reason);
}

int64_t
judge_pause_us(const struct watch *w)
{
	int64_t pause = w->rules.interval_us > 0 ? w->rules.interval_us : INT64_MAX;
	enum topo_status status = status_of(w);

	if (status == TOPO_DOWN && pause > DOWN_PAUSE_US)
		return (DOWN_PAUSE_US);
	if (w->is_urgent && status != TOPO_DOWN) {
		int64_t often = w->started_us - w->urgent_us < URGENT_US
				    ? FAILING_PAUSE_US
				    : DOWN_PAUSE_US;

		return (pause < often ? pause : often);
	}
	if (status != TOPO_DOWN && (w->bad > 0 || status == TOPO_HALF_OPEN) &&
	    pause > FAILING_PAUSE_US)
		return (FAILING_PAUSE_US);
	return (pause);
}

void
judge_forget(struct watch *w)
{
	struct topo_verdict *v = w->verdict;

	w->bad = w->good = 0;
	w->written_lsn = 0;
	w->caught_up_us = 0;
	w->is_odd = false;
	w->role = TOPO_ROLE_UNKNOWN;
	w->timeline = 0;
	w->system = 0;
	w->server_us = 0;
	w->note[0] = '\0';
	w->is_urgent = false;
	w->asks_less = false;
	atomic_store(&v->is_fenced, false);
	atomic_store(&v->risen_us, 0);
	atomic_store(&v->role, TOPO_ROLE_UNKNOWN);
	atomic_store(&v->response_us, -1);
	atomic_store(&v->reached_us, 0);
	atomic_store(&v->lag_us, -1);
	atomic_store(&v->lag_bytes, -1);
	atomic_store(&v->replayed_lsn, 0);
	atomic_store(&v->connections, 0);
	atomic_store(&v->checked_us, 0);
	pthread_mutex_lock(&v->lock);
	v->version[0] = '\0';
	pthread_mutex_unlock(&v->lock);
	topo_verdict_set(v, TOPO_UNKNOWN, clock_us(), NULL);
}

/* ---- bad ---- */

void
judge_bad(struct watch *w, const char *reason, int64_t now_us)
{
	struct topo_verdict *v = w->verdict;
	enum topo_status was = status_of(w), is = was;

	w->good = 0;
	if (w->bad < UINT32_MAX)
		w->bad++;
	stat_count(M_health_probes_failed, 1);
	log_debug("health: probe of %s failed: %s", w->name, reason);
	atomic_store(&v->checked_us, now_us);
	if (was == TOPO_HALF_OPEN || w->bad >= w->rules.fall)
		is = TOPO_DOWN;
	if (is == TOPO_DOWN) {
		atomic_store(&v->lag_us, -1);
		atomic_store(&v->lag_bytes, -1);
		w->caught_up_us = 0;
	}
	topo_verdict_set(v, is, now_us, reason);
	if (is == was)
		return;
	tell_change(w, was, is, reason);
	log_warning("health: %s is down: %s (%u failure%s)", w->name, reason, w->bad,
	    w->bad == 1 ? "" : "s");
}

/* ---- good ---- */

/*
 * How far a replica is behind. Bytes: what it has received, or its primary is known to have
 * written before, and is not replayed. Time: the age of the last transaction replayed, which
 * also grows while the primary has nothing to do: so it counts only when bytes are missing,
 * and not from before the replica was last seen without lag.
 */
static void
measure_lag(struct watch *w, const struct found *f, uint64_t primary_lsn, int64_t now_us)
{
	uint64_t ahead = f->received_lsn > primary_lsn ? f->received_lsn : primary_lsn;
	int64_t bytes = -1, us = f->replay_age_us;

	if (f->role != TOPO_ROLE_REPLICA)
		us = -1;
	else if (f->replayed_lsn != 0 && ahead != 0)
		bytes = ahead > f->replayed_lsn ? (int64_t)(ahead - f->replayed_lsn) : 0;
	if (bytes == 0) {
		us = 0;
		w->caught_up_us = now_us;
	} else if (bytes > 0 && w->caught_up_us != 0 &&
		   (us < 0 || us > now_us - w->caught_up_us))
		us = now_us - w->caught_up_us;
	atomic_store(&w->verdict->lag_bytes, bytes);
	atomic_store(&w->verdict->lag_us, us);
	atomic_store(&w->verdict->replayed_lsn, f->replayed_lsn);
}

/* Above max_lag it lags; it has to come under half of that to be well again. */
static bool
is_lagging(const struct watch *w, enum topo_status was)
{
	int64_t lag = atomic_load(&w->verdict->lag_us);

	if (!w->rules.is_grouped || lag < 0)
		return (false);
	if (was == TOPO_LAGGING)
		return (lag > 0 && lag >= w->rules.max_lag_us / 2);
	return (lag > w->rules.max_lag_us);
}

static const char *
oddity(const struct watch *w, enum topo_role role)
{
	if (w->note[0] != '\0')
		return (w->note);
	if (w->rules.is_replica && role == TOPO_ROLE_PRIMARY)
		return ("replica_of is set, but the server is not in recovery");
	if (!w->rules.is_standby_fine && role == TOPO_ROLE_REPLICA)
		return ("the server is in recovery and takes no writes, but neither "
			"replica_of nor read_only is set");
	return (NULL);
}

static void
note_oddity(struct watch *w, const char *odd)
{
	if (odd != NULL && !w->is_odd && w->note[0] == '\0')
		log_warning("health: %s: %s", w->name, odd);
	w->is_odd = odd != NULL;
}

static void
log_change(const struct watch *w, enum topo_status is, const struct found *f)
{
	static const char *const roles[] = {
	    [TOPO_ROLE_UNKNOWN] = "",
	    [TOPO_ROLE_PRIMARY] = ", primary",
	    [TOPO_ROLE_REPLICA] = ", replica",
	};

	if (is == TOPO_LAGGING)
		log_warning("health: %s is lagging: %lld ms behind", w->name,
		    (long long)atomic_load(&w->verdict->lag_us) / 1000);
	else
		log_info("health: %s is %s: answers in %.3f ms%s%s%s", w->name,
		    topo_status_name(is), (double)f->response_us / 1000,
		    f->version[0] != '\0' ? ", version " : "", f->version,
		    roles[f->role]);
}

static void
note_found(struct watch *w, const struct found *f, int64_t now_us)
{
	struct topo_verdict *v = w->verdict;

	atomic_store(&v->role, (int)f->role);
	atomic_store(&v->response_us, f->response_us);
	if (f->reached_us != 0)
		atomic_store(&v->reached_us, f->reached_us);
	if (f->connections >= 0)
		atomic_store(&v->connections,
		    f->connections > UINT32_MAX ? UINT32_MAX : (unsigned)f->connections);
	pthread_mutex_lock(&v->lock);
	(void)text_copy(v->version, sizeof(v->version), f->version);
	pthread_mutex_unlock(&v->lock);
	atomic_store(&v->checked_us, now_us);
	w->written_lsn = f->written_lsn;
	w->role = f->role;
	w->system = f->system;
	w->server_us = f->started_us;
	/* One that follows again has given up the timeline on which it wrote. */
	w->timeline = f->role == TOPO_ROLE_PRIMARY ? f->timeline : 0;
}

void
judge_good(struct watch *w, const struct found *f, uint64_t primary_lsn, int64_t now_us)
{
	enum topo_status was = status_of(w), is;
	const char *reason = oddity(w, f->role);
	char lag[64];

	w->bad = 0;
	if (w->good < UINT32_MAX)
		w->good++;
	note_found(w, f, now_us);
	measure_lag(w, f, primary_lsn, now_us);
	note_oddity(w, reason);
	if (was == TOPO_DOWN) {
		w->good = 0;
		is = TOPO_HALF_OPEN;
		reason = "it answers again";
	} else if (was == TOPO_HALF_OPEN && w->good < w->rules.rise) {
		is = TOPO_HALF_OPEN;
		reason = "it answers again";
	} else if (is_lagging(w, was)) {
		is = TOPO_LAGGING;
		snprintf(lag, sizeof(lag), "replay is %lld ms behind",
		    (long long)atomic_load(&w->verdict->lag_us) / 1000);
		reason = lag;
	} else
		is = TOPO_HEALTHY;
	topo_verdict_set(w->verdict, is, now_us, reason);
	if (is == was)
		return;
	tell_change(w, was, is, reason);
	log_change(w, is, f);
}
