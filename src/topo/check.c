/* topo/check.c: what `pgweave check` prints. */
#include "inner.h"

int
topo_check_file(const char *path, FILE *out)
{
	struct conf_problems problems = {0};
	struct conf *c = conf_load(path, &problems);
	struct topo *t = c != NULL ? topo_build(c, &problems) : NULL;
	int r = problems.count > 0;

	INVARIANT((t != NULL) == (r == 0));
	for (size_t i = 0; i < problems.count; i++)
		fprintf(out, "%s\n", problems.lines[i]);
	for (size_t i = 0; i < problems.warning_count; i++)
		fprintf(out, "warning: %s\n", problems.warnings[i]);
	if (t != NULL)
		fprintf(out, "%s: ok, %zu databases, %zu logins\n", path,
		    topo_database_count(t), topo_login_count(t));
	else
		fprintf(out, "%s: %zu problem%s\n", path, problems.count,
		    problems.count == 1 ? "" : "s");
	topo_release(t);
	conf_problems_free(&problems);
	return (r);
}
