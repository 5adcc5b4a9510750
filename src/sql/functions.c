/* PostgreSQL's own functions by name. The table is sorted; the unit test looks at that. */
#include <stdlib.h>
#include <string.h>

#include "private.h"

static const struct sql_function functions[] = {
#define SQL_FUNCTION(name, effect, kind)                                                 \
	{#name, SQL_EFFECT_##effect, SQL_FUNCTION_##kind},
#include "tbl/sql_functions.def"
};

static int
compare(const void *name, const void *function)
{
	return (strcmp(name, ((const struct sql_function *)function)->name));
}

const struct sql_function *
sql_function_find(const char *name)
{
	return (bsearch(
	    name, functions, ARRAY_LEN(functions), sizeof(functions[0]), compare));
}
