/* Small help with text. */
#include "base.h"
#include <ctype.h>
#include <string.h>

#define NEAR_MAX 63 /* longer names are not compared */

bool
text_copy(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size);

	INVARIANT(size > 0);
	if (len == size) {
		memcpy(to, from, size - 1);
		to[size - 1] = '\0';
		return (false);
	}
	memcpy(to, from, len + 1);
	return (true);
}

/* Edits (insert, delete, replace, swap of neighbours) between two short names. */
static unsigned
text_distance(const char *a, const char *b)
{
	unsigned row[3][NEAR_MAX + 1], best;
	size_t alen = strlen(a), blen = strlen(b);

	for (size_t j = 0; j <= blen; j++)
		row[1][j] = (unsigned)j;
	for (size_t i = 1; i <= alen; i++) {
		row[2][0] = (unsigned)i;
		for (size_t j = 1; j <= blen; j++) {
			bool same = tolower((unsigned char)a[i - 1]) ==
				    tolower((unsigned char)b[j - 1]);

			best = row[1][j - 1] + (same ? 0 : 1);
			if (row[1][j] + 1 < best)
				best = row[1][j] + 1;
			if (row[2][j - 1] + 1 < best)
				best = row[2][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1] && row[0][j - 2] + 1 < best)
				best = row[0][j - 2] + 1;
			row[2][j] = best;
		}
		memcpy(row[0], row[1], sizeof(row[0]));
		memcpy(row[1], row[2], sizeof(row[1]));
	}
	return (row[1][blen]);
}

const char *
text_nearest(const char *name, const char *const *candidates, size_t count)
{
	const char *nearest = NULL;
	size_t len = strlen(name);
	unsigned best = len < 4 ? 1 : len < 8 ? 2 : 3, d;

	if (len > NEAR_MAX)
		return (NULL);
	for (size_t i = 0; i < count; i++) {
		if (strlen(candidates[i]) > NEAR_MAX)
			continue;
		d = text_distance(name, candidates[i]);
		if (d < best || (d == best && nearest == NULL)) {
			best = d;
			nearest = candidates[i];
		}
	}
	return (nearest);
}
