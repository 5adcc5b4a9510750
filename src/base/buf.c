/* A byte buffer that grows by doubling. */
#include "base.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST 256

uint8_t *
buf_room(struct buf *b, size_t more)
{
	size_t need = (size_t)b->len + more, cap;

	INVARIANT(need < UINT32_MAX / 2);
	if (need > b->cap) {
		for (cap = b->cap ? b->cap : BUF_FIRST; cap < need; cap *= 2)
			;
		b->mem = mem_realloc(b->mem, cap);
		b->cap = (uint32_t)cap;
	}
	return (b->mem + b->len);
}

void
buf_add(struct buf *b, const void *p, size_t len)
{
	if (len == 0)
		return;
	memcpy(buf_room(b, len), p, len);
	b->len += (uint32_t)len;
}

void
buf_addstr(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_add_quoted(struct buf *out, const char *text, char quote)
{
	buf_add(out, &quote, 1);
	for (; *text != '\0'; text++) {
		if (*text == quote)
			buf_add(out, &quote, 1);
		buf_add(out, text, 1);
	}
	buf_add(out, &quote, 1);
}

void
buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	INVARIANT(n >= 0);
	va_start(ap, fmt);
	vsnprintf((char *)buf_room(b, (size_t)n + 1), (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (uint32_t)n;
}

void
buf_drop(struct buf *b, size_t n)
{
	INVARIANT(n <= b->len);
	b->len -= (uint32_t)n;
	if (b->len > 0 && n > 0)
		memmove(b->mem, b->mem + n, b->len);
}

void
buf_free(struct buf *b)
{
	free(b->mem);
	*b = (struct buf){0};
}
