/* What is added up over the workers, by database and user. */
#include "private.h"
#include <stdlib.h>
#include <string.h>

struct sum_key {
	const char *database, *user;
};

static bool
sum_same(const struct table_node *n, const void *key)
{
	const struct sum *s = CONTAINER_OF(n, const struct sum, node);
	const struct sum_key *k = key;

	return (strcmp(s->database, k->database) == 0 && strcmp(s->user, k->user) == 0);
}

struct sum *
sum_of(struct table *sums, const char *database, const char *user)
{
	struct sum_key key = {database, user};
	uint64_t hash = hash_pair(database, strlen(database), user, strlen(user)).lo;
	struct table_node *n = table_find(sums, hash, sum_same, &key);
	struct sum *s;

	if (n != NULL)
		return (CONTAINER_OF(n, struct sum, node));
	s = mem_alloc(sizeof(*s));
	s->database = mem_str(database);
	s->user = mem_str(user);
	table_add(sums, &s->node, hash);
	return (s);
}

static int
sum_order(const void *a, const void *b)
{
	const struct sum *x = *(const struct sum *const *)a,
			 *y = *(const struct sum *const *)b;
	int order = strcmp(x->database, y->database);

	return (order != 0 ? order : strcmp(x->user, y->user));
}

struct sum **
sums_sorted(const struct table *sums)
{
	struct sum **all = mem_alloc((sums->count + 1) * sizeof(*all));
	size_t i = 0;

	for (struct table_node *n = table_first(sums); n != NULL; n = table_next(sums, n))
		all[i++] = CONTAINER_OF(n, struct sum, node);
	INVARIANT(i == sums->count);
	qsort(all, i, sizeof(*all), sum_order);
	return (all);
}

void
sums_free(struct table *sums)
{
	struct table_node *n;

	while ((n = table_first(sums)) != NULL) {
		struct sum *s = CONTAINER_OF(n, struct sum, node);

		table_remove(sums, n);
		free(s->database);
		free(s->user);
		free(s);
	}
	table_free(sums);
}
