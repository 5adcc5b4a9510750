/* The part of SASLprep (RFC 4013) that is done to passwords before they are hashed. */
#ifndef AUTH_PREP_H
#define AUTH_PREP_H
#include "base.h"

/* The prepared form of a password, to be freed with mem_free_secret(); NULL when it stays as
 * it is. */
char *prep_password(const char *password) MUST_USE;

#endif
