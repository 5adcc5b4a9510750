/* Why somebody has waited in vain, as a DETAIL for a client. */
#include "private.h"
#include <inttypes.h>
#include <stdlib.h>

char *
pool_why_waiting(const struct seat *seat)
{
	struct pool *pool = seat->pool;
	const struct topo_limits *limits = &seat->limits;
	int64_t room = limits->pool_size + limits->max_overflow;
	char *why;

	if (pool->db->is_paused)
		return (mem_printf("Database \"%s\" is paused.", pool->database));
	if (pool_is_fenced(seat))
		return (mem_printf(
		    "A statement needs database \"%s\" for itself.", pool->database));
	if (pool->failed_us != 0) {
		pthread_mutex_lock(&pool->lock);
		why =
		    mem_printf("The last attempt to connect to the server has failed: %s",
			pool->error);
		pthread_mutex_unlock(&pool->lock);
		return (why);
	}
	if (limits->pool_size > 0 && pool->ready >= room)
		return (mem_printf(
		    "All connections to database \"%s\" that the pool may have were in "
		    "use (pool_size = %" PRId64 ").",
		    pool->database, (int64_t)limits->pool_size));
	if (seat->full != NULL)
		return (mem_printf("All connections that %s \"%s\" may have were in use "
				   "(%s).",
		    seat->full == pool->db ? "database" : "user", seat->full->name,
		    seat->full == pool->db ? "max_db_connections"
					   : "max_user_connections"));
	if (pool->ready < pool->links)
		return (mem_printf("The server of database \"%s\" has not let a new "
				   "connection in yet.",
		    pool->database));
	return (NULL);
}
