/* The list of faults, and what happens when an invariant is broken. */
#include "base.h"
#include <stdlib.h>

#define R_NO  false
#define R_YES true
static const struct fault_info table[F_COUNT] = {
    [0] = {"OK", "00000", false, "", ""},
#define FAULT(name, state, retry, blame, text)                                           \
	[F_##name##_ORDINAL] = {#name, state, R_##retry, #blame, text},
#include "tbl/all.def"
};

const struct fault_info *
fault_info(int code)
{
	if (code > 0 || code <= -F_COUNT)
		code = F_INTERNAL;
	return (&table[-code]);
}

void
base_broken(const char *what, const char *file, int line)
{
	log_line(LOG_FATAL_, "broken invariant: %s (%s:%d)", what, file, line);
	abort();
}
