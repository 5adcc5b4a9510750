/* conf/problems.c: the list of what is wrong with a configuration, a sentence each. */
#include "conf.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* What a file holds ends up in these lines: no byte of it may steer a terminal. */
static void
mask_controls(char *line)
{
	for (; *line != '\0'; line++) {
		if (iscntrl((unsigned char)*line))
			*line = '?';
	}
}

static PRINTF(4, 0) void add_line(
    char ***lines, size_t *count, struct conf_at at, const char *fmt, va_list ap)
{
	struct buf text = {0};
	char *what = NULL;

	if (vasprintf(&what, fmt, ap) < 0)
		what = NULL;
	if (at.file != NULL && at.line > 0)
		buf_addf(&text, "%s:%d: ", at.file, at.line);
	else if (at.file != NULL)
		buf_addf(&text, "%s: ", at.file);
	buf_addstr(&text, what != NULL ? what : fmt);
	free(what);
	*lines = mem_realloc(*lines, (*count + 1) * sizeof(**lines));
	(*lines)[*count] = mem_strn((const char *)text.mem, text.len);
	mask_controls((*lines)[*count]);
	(*count)++;
	buf_free(&text);
}

void
conf_problem(struct conf_problems *p, struct conf_at at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add_line(&p->lines, &p->count, at, fmt, ap);
	va_end(ap);
}

void
conf_warning(struct conf_problems *p, struct conf_at at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add_line(&p->warnings, &p->warning_count, at, fmt, ap);
	va_end(ap);
}

void
conf_problems_free(struct conf_problems *p)
{
	for (size_t i = 0; i < p->count; i++)
		free(p->lines[i]);
	for (size_t i = 0; i < p->warning_count; i++)
		free(p->warnings[i]);
	free(p->lines);
	free(p->warnings);
	*p = (struct conf_problems){0};
}
