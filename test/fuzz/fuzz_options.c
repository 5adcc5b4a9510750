/*
 * The `options` of a startup packet. What is taken must be settings, no more of them than the
 * text has room for, and the same again when written in the other form with every byte escaped.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "proto.h"

/* What was taken, and the text that says it again. */
struct seen {
	struct buf taken, again;
};

static void
add_escaped(struct buf *b, const char *s)
{
	for (; *s != '\0'; s++) {
		buf_add(b, "\\", 1);
		buf_add(b, s, 1);
	}
}

static int
see(void *arg, const char *name, const char *value)
{
	struct seen *s = arg;

	INVARIANT(*name != '\0' && strpbrk(name, "=-") == NULL);
	buf_add(&s->taken, name, strlen(name) + 1);
	buf_add(&s->taken, value, strlen(value) + 1);
	buf_addstr(&s->again, " --");
	add_escaped(&s->again, name);
	buf_addstr(&s->again, "=");
	add_escaped(&s->again, value);
	return (0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_strn((const char *)data, size), why[16];
	struct seen first = {0}, second = {0};
	int rc;

	rc = proto_options_each(text, see, &first, why, sizeof(why));
	INVARIANT(rc == 0 || rc == F_PROTO_OPTIONS);
	INVARIANT(first.taken.len <= strlen(text) + 1);
	buf_add(&first.again, "", 1);
	rc = proto_options_each((char *)first.again.mem, see, &second, why, sizeof(why));
	INVARIANT(rc == 0 && second.taken.len == first.taken.len);
	INVARIANT(first.taken.len == 0 ||
		  memcmp(second.taken.mem, first.taken.mem, first.taken.len) == 0);
	buf_free(&first.taken);
	buf_free(&first.again);
	buf_free(&second.taken);
	buf_free(&second.again);
	free(text);
	return (0);
}
