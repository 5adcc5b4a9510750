/* Memory: zeroed where new. There is no plan B when it runs out: small allocations cannot
 * be refused one by one in a way that anybody would test, and what can grow large has a
 * limit of its own. */
#include "base.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *
mem_check(void *p, size_t size)
{
	if (p == NULL) {
		log_line(LOG_FATAL_, "out of memory: %zu bytes wanted", size);
		abort();
	}
	return (p);
}

void *
mem_alloc(size_t size)
{
	return (mem_check(calloc(1, size ? size : 1), size));
}

void *
mem_realloc(void *p, size_t size)
{
	return (mem_check(realloc(p, size ? size : 1), size));
}

void *
mem_dup(const void *p, size_t size)
{
	void *copy = mem_check(malloc(size ? size : 1), size);

	if (size > 0)
		memcpy(copy, p, size);
	return (copy);
}

char *
mem_strn(const char *s, size_t len)
{
	char *copy = mem_check(malloc(len + 1), len + 1);

	if (len > 0)
		memcpy(copy, s, len);
	copy[len] = '\0';
	return (copy);
}

char *
mem_str(const char *s)
{
	return (mem_strn(s, strlen(s)));
}

char *
mem_printf(const char *fmt, ...)
{
	va_list ap;
	char *out = NULL;

	va_start(ap, fmt);
	if (vasprintf(&out, fmt, ap) < 0)
		out = NULL;
	va_end(ap);
	return (mem_check(out, 0));
}

void
mem_free_secret(void *p, size_t size)
{
	if (p == NULL)
		return;
	explicit_bzero(p, size);
	free(p);
}
