/* net, for its own files: the epoll set of a thread. */
#ifndef NET_POLL_H
#define NET_POLL_H
#include "net.h"

/* events: EPOLL… */
void poll_add(struct worker *, struct stream *, uint32_t events);
void poll_set(struct worker *, struct stream *, uint32_t events);
/* Nothing that has happened to it so far is told any more. To close a descriptor would not do: a
 * command that is being started has it too, and what the kernel has stays in the set. */
void poll_remove(struct worker *, struct stream *);
/* Waits for events, and serves them. timeout_ms: as epoll_wait() has it. */
void poll_serve(struct worker *, int timeout_ms);
/* When the first timer is due, or latest_us when that comes before; of a worker's. */
int64_t timers_due_us(const struct worker *, int64_t latest_us);
void timers_fire(struct worker *, int64_t now_us);

#endif
