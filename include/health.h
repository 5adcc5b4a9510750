/*
 * health: probes of every configured database, from the side thread, over connections of its
 * own; the only writer of verdicts (topo.h).
 *
 *   UNKNOWN -(1 good)-> HEALTHY -(fall bad)-> DOWN -(1 good)-> HALF-OPEN -(rise good)-> HEALTHY
 *   replicas: HEALTHY <-> LAGGING (above max_lag; back under half of it)
 *
 * Roles follow the servers: of a database and its replicas, the one that is not in recovery
 * takes the writes (topo_database_primary).
 */
#ifndef HEALTH_H
#define HEALTH_H
#include "base.h"
#include "net.h"

/* On net_side(), before net_start(), after pool_init() of it. */
void health_init(struct worker *side);
/* When the threads have ended. */
void health_fini(struct worker *side);

#endif
