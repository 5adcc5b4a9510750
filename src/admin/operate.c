/*
 * DRAIN and MAINTENANCE: an operator takes a database out. Its transactions end, nothing new
 * begins there; the verdict says so to all who choose a database. ENABLE brings it back.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

/* The login out of "C-0x12: pgweave/admin@1.2.3.4:5678". */
static const char *
operator_of(const struct call *c, int *len)
{
	const char *slash = strchr(c->who, '/'), *at = strrchr(c->who, '@');

	if (slash == NULL || at == NULL || at < slash) {
		*len = (int)strlen(c->who);
		return (c->who);
	}
	*len = (int)(at - slash) - 1;
	return (slash + 1);
}

/* The configured database of the arguments; NULL: it was wrong, and the call is over. */
static const struct topo_database *
operated_arg(struct call *c)
{
	const struct topo_database *db;
	unsigned args = call_arg_count(c);

	if (args == 0) {
		call_fail(c, "42601", "a database is required");
		return (NULL);
	}
	if (args > 2) {
		call_invalid(c);
		return (NULL);
	}
	if (topo_is_console(call_arg(c, 0))) {
		call_fail(c, "0A000", "%s: the console is no database to take out",
		    call_arg(c, 0));
		return (NULL);
	}
	db = topo_database_find(pool_worker(c->worker)->topo, call_arg(c, 0));
	if (db != NULL &&
	    topo_virtual_find(pool_worker(c->worker)->topo, call_arg(c, 0)) != NULL)
		db = NULL;
	if (db == NULL || db->is_auto || db->verdict == NULL) {
		call_fail(c, "3D000", "no such database: %s", call_arg(c, 0));
		return (NULL);
	}
	return (db);
}

/* Links are closed, waiters told. */
static void
operate_visit(struct worker *w, void *arg)
{
	(void)arg;
	pool_apply(w);
	session_apply(w);
}

static void
operate_done(struct worker *w, void *arg)
{
	struct call *c = arg;

	(void)w;
	call_end(c, c->command->verb);
}

static void
operate_order(struct call *c, enum topo_status word)
{
	const struct topo_database *db = operated_arg(c);
	const char *who;
	char *reason;
	int len;

	if (db == NULL)
		return;
	who = operator_of(c, &len);
	reason = call_arg_count(c) > 1
		     ? mem_printf("by %.*s: %s", len, who, call_arg(c, 1))
		     : mem_printf("by %.*s", len, who);
	if (topo_verdict_order(db->verdict, word, clock_us(), reason))
		stat_count(M_health_changes, 1);
	log_info("health: %s is %s %s", db->name, topo_status_name(word), reason);
	free(reason);
	pool_reconnect(db->name);
	call_visit(c, operate_visit, operate_done);
}

void
admin_drain(struct call *c)
{
	operate_order(c, TOPO_DRAINING);
}

void
admin_maintenance(struct call *c)
{
	operate_order(c, TOPO_MAINTENANCE);
}

bool
operate_lift(struct call *c, const char *database)
{
	const struct topo_database *db =
	    topo_database_find(pool_worker(c->worker)->topo, database);
	const char *who;
	int was, len;

	if (db == NULL || db->is_auto || db->verdict == NULL)
		return (false);
	was = atomic_load(&db->verdict->word);
	if (!topo_verdict_order(db->verdict, TOPO_UNKNOWN, clock_us(), NULL))
		return (false);
	who = operator_of(c, &len);
	stat_count(M_health_changes, 1);
	log_info("health: %s is no longer %s: by %.*s", db->name,
	    topo_status_name((enum topo_status)was), len, who);
	return (true);
}
