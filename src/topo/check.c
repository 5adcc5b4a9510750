/* topo/check.c: what `pgweave check` prints. */
#include "inner.h"

/* ", 3 keys"; nothing of what there is none of. */
static void
print_count(FILE *out, size_t count, const char *what)
{
	if (count > 0)
		fprintf(out, ", %zu %s%s", count, what, count == 1 ? "" : "s");
}

static void
print_counts(FILE *out, const struct topo *t)
{
	size_t routes = 0, tables = 0;

	for (size_t i = 0; i < topo_virtual_count(t); i++) {
		const struct topo_virtual *v = topo_virtual(t, i);

		routes += v->route_count;
		for (size_t s = 0; s < v->shard_count; s++)
			tables += v->shards[s].table_count;
	}
	print_count(out, topo_virtual_count(t), "virtual database");
	print_count(out, routes, "route");
	print_count(out, tables, "sharded table");
	print_count(out, topo_key_count(t), "key");
	print_count(out, topo_job_count(t), "job");
}

int
topo_check_file(const char *path, FILE *out,
    void (*more)(const struct topo *, struct conf_problems *))
{
	struct conf_problems problems = {0};
	struct conf *c = conf_load(path, &problems);
	struct topo *t = c != NULL ? topo_build(c, &problems) : NULL;
	int r = problems.count > 0;

	INVARIANT((t != NULL) == (r == 0));
	if (t != NULL && more != NULL)
		more(t, &problems);
	for (size_t i = 0; i < problems.count; i++)
		fprintf(out, "%s\n", problems.lines[i]);
	for (size_t i = 0; i < problems.warning_count; i++)
		fprintf(out, "warning: %s\n", problems.warnings[i]);
	if (t != NULL) {
		size_t databases = topo_database_count(t), logins = topo_login_count(t);

		fprintf(out, "%s: ok, %zu database%s, %zu login%s", path, databases,
		    databases == 1 ? "" : "s", logins, logins == 1 ? "" : "s");
		print_counts(out, t);
		fputs("\n", out);
	} else {
		fprintf(out, "%s: %zu problem%s\n", path, problems.count,
		    problems.count == 1 ? "" : "s");
	}
	topo_release(t);
	conf_problems_free(&problems);
	return (r);
}
