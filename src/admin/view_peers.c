/* SHOW PEERS, PEER_POOLS: the other processes of the group, and what is on its way to them. */
#include "private.h"
#include <stdio.h>

void
view_peers_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;

	for (size_t i = 0; i < topo_peer_count(topo); i++) {
		const struct topo_peer *p = topo_peer(topo, i);

		row_int(show, COL_PEERS_peer_id, p->id);
		row_text(show, COL_PEERS_host, p->host);
		row_int(show, COL_PEERS_port, p->port);
		row_int(show, COL_PEERS_pool_size, p->pool_size);
		row_end(show);
	}
}

static struct sum *
peer_sum(struct show *show, uint32_t id)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", (unsigned)id);
	return (sum_of(&show->sums, name, ""));
}

void
view_peer_pools_visit(struct worker *w, struct show *show)
{
	const struct forward *f;

	TAILQ_FOREACH(f, &session_worker(w)->forwards, entry) {
		struct sum *sum = peer_sum(show, f->peer);

		sum->count[f->is_sent ? SUM_CL_CANCEL : SUM_CL_WAITING]++;
		sum->count[SUM_SV_ACTIVE_CANCEL] += f->is_sent;
		sum->count[SUM_SV_LOGIN] += f->is_active && !f->is_sent;
	}
}

void
view_peer_pools_rows(struct show *show)
{
	const struct topo *topo = pool_worker(show->call->worker)->topo;

	for (size_t i = 0; i < topo_peer_count(topo); i++) {
		const struct topo_peer *p = topo_peer(topo, i);
		const struct sum *sum = peer_sum(show, p->id);

		row_int(show, COL_PEER_POOLS_peer_id, p->id);
		row_int(show, COL_PEER_POOLS_cl_active_cancel_req,
		    (int64_t)sum->count[SUM_CL_CANCEL]);
		row_int(show, COL_PEER_POOLS_cl_waiting_cancel_req,
		    (int64_t)sum->count[SUM_CL_WAITING]);
		row_int(show, COL_PEER_POOLS_sv_active_cancel,
		    (int64_t)sum->count[SUM_SV_ACTIVE_CANCEL]);
		row_int(show, COL_PEER_POOLS_sv_login, (int64_t)sum->count[SUM_SV_LOGIN]);
		row_end(show);
	}
}
