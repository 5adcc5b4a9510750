/* Which paths there are, and what answers them. */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GET  EVHTTP_REQ_GET
#define POST EVHTTP_REQ_POST

static const struct endpoint endpoints[] = {
    {POST, "/api/database/query", false, query_run},
    {POST, "/api/database/transaction", false, query_transaction},
    {POST, "/api/database/federated-query", false, federated_run},
    {GET, "/api/database/info", false, info_databases},
    {GET, "/api/database/schema", false, stats_schema},
    {GET, "/api/database/health", false, info_routed_health},
    {GET, "/api/database/replication/jobs", false, jobs_list},
    {POST, "/api/database/replication/jobs", false, jobs_create},
    {POST, "/api/database/replication/jobs/{}/run", false, jobs_run},
    {POST, "/api/database/replication/table", false, jobs_table},
    {GET, "/api/health/databases", false, info_up},
    {GET, "/api/health/connections", false, overview_connections},
    {GET, "/database/health", false, info_health_all},
    {GET, "/database/stats", false, stats_all},
    {GET, "/database/configured", false, info_configured},
    {GET, "/database/models", false, info_models},
    {GET, "/database/backup/info", false, info_backup},
    {GET, "/database/{}/health", false, info_health_one},
    {GET, "/database/{}/stats", false, stats_one},
    {GET, "/database/{}/models", false, info_models_one},
    {POST, "/database/{}/execute", false, query_execute},
    {GET, "/health", false, overview_health},
    {GET, "/health/live", true, info_live},
    {GET, "/metrics", false, overview_metrics},
    {GET, "/", false, overview_page},
};

/* Whether the path has that form; part: what {} is, in place. */
static bool
path_is(const char *path, const char *form, const char **part, size_t *part_len)
{
	const char *brace = strstr(form, "{}");
	size_t before = brace != NULL ? (size_t)(brace - form) : 0;

	*part = NULL;
	if (brace == NULL)
		return (strcmp(path, form) == 0);
	if (strncmp(path, form, before) != 0)
		return (false);
	*part = path + before;
	*part_len = strcspn(*part, "/");
	return (*part_len > 0 && strcmp(*part + *part_len, brace + 2) == 0);
}

static char *
part_decode(const char *p, size_t len)
{
	char *raw = mem_strn(p, len), *decoded = evhttp_uridecode(raw, 0, NULL);

	INVARIANT(decoded != NULL);
	free(raw);
	return (decoded);
}

const struct endpoint *
endpoint_find(enum evhttp_cmd_type method, const char *path, char **part, char *allow,
    size_t allow_len)
{
	enum evhttp_cmd_type wanted = method == EVHTTP_REQ_HEAD ? GET : method;
	const char *at;
	size_t len = 0, said = 0;

	*part = NULL;
	allow[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(endpoints); i++) {
		const struct endpoint *e = &endpoints[i];

		if (!path_is(path, e->path, &at, &len))
			continue;
		if (e->method == wanted) {
			if (at != NULL)
				*part = part_decode(at, len);
			return (e);
		}
		said += (size_t)snprintf(allow + said, allow_len - said, "%s%s",
		    said > 0 ? ", " : "", e->method == GET ? "GET, HEAD" : "POST");
		INVARIANT(said < allow_len);
	}
	return (NULL);
}
