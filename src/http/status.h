/* From SQLSTATEs to HTTP. */
#ifndef HTTP_STATUS_H
#define HTTP_STATUS_H
#include "base.h"

/* The status that fits an error. */
int status_of(const char *sqlstate);
/* "Not Found" */
const char *status_reason(int status);
/* The seconds that a text speaks of ("retry in 1.5 s", "200 ms", "2 min"), rounded up, at least
 * 1; 0: it speaks of none. */
int64_t status_retry_after(const char *detail);

#endif
