/* Rows kept in memory: made in several places, played into a sink when all are there. */
#include "rows.h"
#include <string.h>

#define ROWS_COLUMNS_MAX 256
#define LENGTH_OF_NULL   UINT32_MAX

void
rows_list_add(struct rows_list *list, const char *const *values, unsigned columns)
{
	INVARIANT(columns <= ROWS_COLUMNS_MAX);
	for (unsigned i = 0; i < columns; i++) {
		uint32_t len = LENGTH_OF_NULL;

		if (values[i] != NULL)
			len = (uint32_t)strlen(values[i]);
		buf_add(&list->bytes, &len, sizeof(len));
		if (values[i] != NULL)
			buf_add(&list->bytes, values[i], (size_t)len + 1);
	}
	list->count++;
}

void
rows_list_play(const struct rows_list *list, unsigned columns, struct rows_sink *sink)
{
	const char *values[ROWS_COLUMNS_MAX];
	size_t at = 0;

	INVARIANT(columns <= ROWS_COLUMNS_MAX);
	for (size_t row = 0; row < list->count; row++) {
		for (unsigned i = 0; i < columns; i++) {
			uint32_t len;

			INVARIANT(at + sizeof(len) <= list->bytes.len);
			memcpy(&len, list->bytes.mem + at, sizeof(len));
			at += sizeof(len);
			values[i] = NULL;
			if (len == LENGTH_OF_NULL)
				continue;
			values[i] = (const char *)list->bytes.mem + at;
			at += (size_t)len + 1;
		}
		sink->ops->put(sink, values);
	}
	INVARIANT(at == list->bytes.len);
}

void
rows_list_free(struct rows_list *list)
{
	buf_free(&list->bytes);
	list->count = 0;
}
