/*
 * The views: their columns, and how one is made: its visits add rows (or sums) in each
 * worker, one worker after the other, then rows() adds what is left in the thread that
 * asked, and the rows are played into the sink.
 */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

const struct view view_table[] = {
#define VIEW(name, filter, visit, rows, doc)                                             \
	{#name, VIEW_##name, COL_##name##_##filter, visit, rows, doc},
#include "tbl/admin_views.def"
};
const size_t view_count = ARRAY_LEN(view_table);

static const struct rows_column columns[VIEW_COLUMNS] = {
#define COL(view, column, type, doc) [COL_##view##_##column] = {#column, ROWS_##type},
#include "tbl/admin_views.def"
};

const struct view *
view_find(const char *name)
{
	for (size_t i = 0; i < view_count; i++)
		if (strcasecmp(view_table[i].name, name) == 0)
			return (&view_table[i]);
	return (NULL);
}

const struct rows_column *
view_columns(const struct view *v, unsigned *count)
{
	unsigned end = v + 1 < view_table + view_count ? v[1].first : VIEW_COLUMNS;

	*count = end - v->first;
	INVARIANT(*count > 0 && *count <= VIEW_COLUMNS_MAX);
	return (&columns[v->first]);
}

void
view_no_visit(struct worker *w, struct show *show)
{
	(void)w;
	(void)show;
}

void
view_no_rows(struct show *show)
{
	(void)show;
}

/* ---- rows ---- */

/* The place of the column's value, which must not be there yet. */
static int32_t *
row_at(struct show *show, enum view_column column)
{
	unsigned count;
	int32_t *at;

	(void)view_columns(show->view, &count);
	INVARIANT(column >= show->view->first && column < show->view->first + (int)count);
	at = &show->at[column - show->view->first];
	INVARIANT(*at == VALUE_MISSING);
	return (at);
}

void
row_null(struct show *show, enum view_column column)
{
	*row_at(show, column) = VALUE_NULL;
}

void
row_text(struct show *show, enum view_column column, const char *value)
{
	int32_t *at = row_at(show, column);

	*at = value != NULL ? (int32_t)show->text.len : VALUE_NULL;
	if (value != NULL)
		buf_add(&show->text, value, strlen(value) + 1);
}

/* A number does not fit the four bytes of an int4: the nearest that does. */
void
row_int(struct show *show, enum view_column column, int64_t value)
{
	char text[24];

	if (columns[column].type == ROWS_INT4)
		value = value > INT32_MAX   ? INT32_MAX
			: value < INT32_MIN ? INT32_MIN
					    : value;
	else
		INVARIANT(columns[column].type == ROWS_INT8);
	snprintf(text, sizeof(text), "%" PRId64, value);
	row_text(show, column, text);
}

void
row_count(struct show *show, enum view_column column, uint64_t value)
{
	char text[24];

	INVARIANT(columns[column].type == ROWS_NUMERIC);
	snprintf(text, sizeof(text), "%" PRIu64, value);
	row_text(show, column, text);
}

void
row_time(struct show *show, enum view_column column, int64_t us)
{
	time_t at = (time_t)((clock_wall_us() - (clock_us() - us)) / 1000000);
	char text[64] = "";
	struct tm tm;

	if (localtime_r(&at, &tm) != NULL)
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %Z", &tm);
	row_text(show, column, text);
}

static void
row_clear(struct show *show)
{
	show->text.len = 0;
	for (unsigned i = 0; i < VIEW_COLUMNS_MAX; i++)
		show->at[i] = VALUE_MISSING;
}

void
row_end(struct show *show)
{
	const char *values[VIEW_COLUMNS_MAX], *filter;
	unsigned count;

	(void)view_columns(show->view, &count);
	for (unsigned i = 0; i < count; i++) {
		INVARIANT(show->at[i] != VALUE_MISSING);
		values[i] = show->at[i] == VALUE_NULL
				? NULL
				: (const char *)show->text.mem + show->at[i];
	}
	filter = values[show->view->filter - show->view->first];
	if (show->only == NULL || (filter != NULL && strcmp(filter, show->only) == 0))
		rows_list_add(&show->rows, values, count);
	row_clear(show);
}

/* ---- SHOW ---- */

static void
show_visit(struct worker *w, void *arg)
{
	struct show *show = ((struct call *)arg)->show;

	show->view->visit(w, show);
}

static void
show_visited(struct worker *w, void *arg)
{
	struct call *c = arg;

	(void)w;
	c->show->view->rows(c->show);
	c->made(c);
}

void
show_make(struct call *c, const struct view *view, const char *only,
    void (*made)(struct call *))
{
	show_free(c->show);
	c->show = mem_alloc(sizeof(*c->show));
	c->show->call = c;
	c->show->view = view;
	c->show->only = only;
	c->made = made;
	row_clear(c->show);
	if (view->visit == view_no_visit)
		show_visited(c->worker, c);
	else
		call_visit(c, show_visit, show_visited);
}

static void
show_made(struct call *c)
{
	struct show *show = c->show;
	const struct rows_column *first;
	unsigned count;

	first = view_columns(show->view, &count);
	c->sink->ops->begin(c->sink, first, count);
	rows_list_play(&show->rows, count, c->sink);
	call_end(c, "SHOW");
}

/* SHOW of a parameter that drivers ask for. */
static void
show_param(struct call *c)
{
	const struct rows_column *column;
	const char *value = chatter_param(&c->st, 1, &column);

	if (value == NULL) {
		call_invalid(c);
		return;
	}
	c->sink->ops->begin(c->sink, column, 1);
	c->sink->ops->put(c->sink, &value);
	call_end(c, "SHOW");
}

void
admin_show(struct call *c)
{
	unsigned args = call_arg_count(c);
	const struct view *view = args > 0 ? view_find(call_arg(c, 0)) : NULL;

	if (args == 1 && strcasecmp(call_arg(c, 0), "FDS") == 0) {
		call_fail(c, "0A000",
		    "SHOW FDS is not supported: it only serves PgBouncer's takeover by a new process");
		return;
	}
	if (view == NULL) {
		show_param(c);
		return;
	}
	if (args > 2) {
		call_invalid(c);
		return;
	}
	show_make(c, view, args == 2 ? call_arg(c, 1) : NULL, show_made);
}
