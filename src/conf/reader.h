/*
 * conf/reader.h: INI text, a section and a key at a time.
 */
#ifndef CONF_READER_H
#define CONF_READER_H
#include "conf.h"

/* Strings that live as long as the configuration; overwritten when freed, since any of them
 * may be a secret. {0} is an empty one. */
struct keep {
	char **items;
	size_t count, cap;
};
/* Takes over s. */
const char *keep_add(struct keep *, char *s);
void keep_free(struct keep *);

/* Who gets what is read. Strings are the keep's. */
struct reader_sink {
	void (*section)(void *arg, const char *kind, const char *name, struct conf_at);
	void (*key)(void *arg, const char *key, const char *value, struct conf_at);
	void *arg;
};

/* Reads text (len bytes) and the files that it includes; what cannot be read goes to
 * problems. without_includes: %include is a problem. */
void reader_run(const char *file, const char *text, size_t len, bool without_includes,
    const struct reader_sink *, struct keep *, struct conf_problems *);

#endif
