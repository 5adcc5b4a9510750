/* store/route.c: what is done with the routes of the file, in the thread that calls. */
#include "private.h"
#include <stdio.h>

/* The statement for each row, its texts as parameters: all of them, or none. A row that changes
 * nothing is F_NOT_FOUND, one that is there already F_EXISTS. */
static int
change(struct store_file *f, const char *sql, size_t texts, const struct store_rows *rows,
    char *why, size_t why_len)
{
	int rc = file_run(f, "BEGIN IMMEDIATE", NULL, 0), fault = 0;

	for (size_t i = 0; i < rows->count && rc == SQLITE_OK && fault == 0; i++) {
		const struct topo_route_text *r = rows->rows[i];
		const char *const list[] = {r->virtual_, r->pattern, r->database};

		rc = file_run(f, sql, list, texts);
		if (rc == SQLITE_CONSTRAINT) {
			snprintf(why, why_len, "there is a route of \"%s\" already",
			    r->pattern);
			fault = F_EXISTS;
			rc = SQLITE_OK;
		} else if (rc == SQLITE_OK && sqlite3_changes(f->db) == 0) {
			snprintf(why, why_len, "there is no route \"%s\" of %s",
			    r->pattern, r->virtual_);
			fault = F_NOT_FOUND;
		}
	}
	if (rc == SQLITE_OK)
		rc = file_run(f, fault == 0 ? "COMMIT" : "ROLLBACK", NULL, 0);
	return (rc == SQLITE_OK ? fault : file_failed(f, why, why_len));
}

int
work_routes_put(
    struct store_file *f, const struct store_rows *rows, char *why, size_t why_len)
{
	int fault = file_open(f, true, why, why_len);

	if (fault != 0)
		return (fault);
	return (change(f,
	    "INSERT INTO route (virtual, pattern, \"database\") VALUES (?1, ?2, ?3)", 3,
	    rows, why, why_len));
}

int
work_routes_delete(
    struct store_file *f, const struct store_rows *rows, char *why, size_t why_len)
{
	int fault = file_open(f, f->is_explicit, why, why_len);

	if (fault == F_NOT_FOUND)
		snprintf(why, why_len, "there is no route in the state store");
	if (fault != 0)
		return (fault);
	return (change(f, "DELETE FROM route WHERE virtual = ?1 AND pattern = ?2", 2,
	    rows, why, why_len));
}
