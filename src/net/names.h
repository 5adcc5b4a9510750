/* net: what is known of host names, for its own files. */
#ifndef NET_NAMES_H
#define NET_NAMES_H
#include "net.h"

/* What is known of the name and not too old: 1 and its addresses, the next one's turn first;
 * -1 and why it has none; 0: it must be asked for. */
int name_find(const char *host, int64_t now_us, struct resolved *out, char *why,
    size_t why_len) MUST_USE;
/* What was found; NULL: err says why nothing was, and what was known before stays in use.
 * Addresses without a port. */
void name_learn(const char *host, const struct resolved *, const char *err,
    const struct settings *, int64_t now_us);

#endif
