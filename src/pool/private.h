/* pool, for its own files. */
#ifndef POOL_PRIVATE_H
#define POOL_PRIVATE_H
#include "pool.h"

extern const struct link_keeper pool_keeper;

struct pool *pool_find(const char *database, const char *role, const char *login);
void pool_hold(struct pool *);
void pool_release(struct pool *);

/* ---- secret.c ---- */

/* What a new link logs in with; to be released when the link has its copy. */
struct pool_secret *pool_choose_secret(struct seat *, struct link_target *) MUST_USE;

/* ---- lend.c ---- */

/* The link has become free: to the one who has waited longest, or idle. May close it. */
void pool_offer(struct link *);
void pool_grant(struct seat *, struct link *);
void pool_publish(struct seat *);
/* None that is kept for somebody. */
struct link *pool_take_idle(struct seat *, const struct vars *want);
void pool_set_idle(struct link *, bool is_idle);
void pool_refuse(struct waiter *, int fault, const char *sqlstate, const char *message);
void pool_refuse_closed(const struct seat *, struct waiter *);
/* An operator lets it drain or keeps it in maintenance: who has a link keeps it, nobody gets
 * one. */
bool pool_is_closed(const struct seat *);

/* ---- keep.c ---- */

/* What is kept waits for a server that is slow to let links in, but not for one that hangs: so
 * long a login waits for its link, and others for one more before they take what is kept. */
#define POOL_KEEP_US 1000000

/* It is kept for nobody any more. */
void pool_keep_drop(struct link *);
/* What the keeper hears of a link: offers it. */
void pool_keep_ready(struct link *);
/* It is not, or not soon, there for the one whom it was opened for, who is told now. */
void pool_keep_closed(struct link *);
/* One that is kept and idle longest; seat->kept > 0. */
struct link *pool_take_kept(struct seat *);

/* ---- own.c ---- */

/* Does what can be done now for those who wait for links of their own. */
void pool_serve_own(struct seat *);
void pool_own_end(struct waiter *);
/* What the keeper hears of such a link. */
void pool_own_ready(struct link *);
void pool_own_failed(struct link *, int fault, const char *why,
    const struct proto_error_fields *, bool is_unheard);
void pool_own_tick(struct seat *, int64_t now_us);

/* ---- fence.c ---- */

bool pool_fence_holds(const struct seat *);
static inline bool
pool_is_fenced(const struct seat *seat)
{
	return (UNLIKELY(!TAILQ_EMPTY(&pool_worker(seat->worker)->fences)) &&
		pool_fence_holds(seat));
}

/* ---- handover.c ---- */

/* The other worker whose oldest waiter came before `before_us`, or -1. */
int pool_foreign_demand(const struct seat *, int64_t before_us);
void pool_hand_over(struct link *, unsigned to);
/* Sends off the links that leave. */
void pool_turn(struct worker *);
/* Asks the other workers, one after the other, for an idle link or, when the limit of a database
 * or user stands in the way, to close one of another pool. False: it has just been in vain. */
bool pool_ask(struct seat *);
/* Wakes the waiters of every worker: there is room. */
void pool_nudge(struct pool *);

/* ---- open.c ---- */

/* Closes the idle link of this worker that is idle longest and counts in the place, but is not
 * of the pool that wants it. False: there is none. */
bool pool_evict(struct worker *, const struct pool *wants, const struct pool_place *);
/* When a login last failed, unless health has found since that it need not any more; 0: no
 * failure counts. */
int64_t pool_failed_us(const struct seat *);
/* Opens a link when the limits allow one more. */
bool pool_open(struct seat *);
/* The same without any link of others making room, without reserve and overflow, and as long as
 * logins do not fail; or NULL. */
struct link *pool_open_spare(struct seat *);
/* The same for one waiter alone. */
bool pool_open_own(struct seat *, struct waiter *);

/* What a fresh link has (NULL: forget it), for the seats of all workers. */
void pool_teach(struct pool *, const struct vars *born);
void pool_seat_destroy(struct seat *);
void pool_tick(struct worker *, int64_t now_us);

#endif
