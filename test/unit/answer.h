/* A sink of rows for tests: it keeps what it gets, and checks that it may be got. */
#ifndef ANSWER_H
#define ANSWER_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rows.h"

struct answer {
	struct rows_sink sink;
	unsigned columns, rows;
	const struct rows_column *column;
	struct buf text; /* rows: a|b|NULL; one a line */
	char tag[64], state[8], message[512], detail[512], hint[512], notice[8192];
	bool is_over;
};
static struct answer got;

static void
got_begin(struct rows_sink *sink, const struct rows_column *column, unsigned count)
{
	assert_ptr_equal(sink, &got.sink);
	got.column = column;
	got.columns = count;
}

/* Every value must have a binary form, or be NULL. */
static void
got_put(struct rows_sink *sink, const char *const *values)
{
	assert_ptr_equal(sink, &got.sink);
	got.rows++;
	for (unsigned i = 0; i < got.columns; i++) {
		struct buf binary = {0};

		if (values[i] != NULL)
			assert_int_equal(
			    rows_binary(got.column[i].type, values[i], &binary), 0);
		buf_free(&binary);
		buf_addf(&got.text, "%s%s", i > 0 ? "|" : "",
		    values[i] != NULL ? values[i] : "NULL");
	}
	buf_addstr(&got.text, "\n");
}

static void
got_end(struct rows_sink *sink, const char *tag)
{
	(void)sink;
	assert_false(got.is_over);
	got.is_over = true;
	(void)text_copy(got.tag, sizeof(got.tag), tag);
}

static void
got_fail(struct rows_sink *sink, const char *sqlstate, const char *message,
    const char *detail, const char *hint)
{
	(void)sink;
	(void)text_copy(got.detail, sizeof(got.detail), detail != NULL ? detail : "");
	(void)text_copy(got.hint, sizeof(got.hint), hint != NULL ? hint : "");
	assert_false(got.is_over);
	got.is_over = true;
	(void)text_copy(got.state, sizeof(got.state), sqlstate);
	(void)text_copy(got.message, sizeof(got.message), message);
}

static void
got_notice(struct rows_sink *sink, const char *message, const char *detail)
{
	(void)sink;
	snprintf(got.notice, sizeof(got.notice), "%s%s", message,
	    detail != NULL ? detail : "");
}

static const struct rows_sink_ops got_ops = {
    .begin = got_begin,
    .put = got_put,
    .end = got_end,
    .fail = got_fail,
    .notice = got_notice,
};

static const char *
rows_text(void)
{
	*buf_room(&got.text, 1) = '\0';
	return ((const char *)got.text.mem);
}

static void
expect_row(const char *row)
{
	if (strstr(rows_text(), row) == NULL)
		fail_msg("no row '%s' in\n%s", row, rows_text());
}

#endif
