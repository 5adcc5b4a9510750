/* store/route.c: what is done with the routes of the store, in the thread that calls. */
#include "private.h"
#include <stdio.h>

/* The statement for each row, its texts as parameters: all of them, or none. A row that changes
 * nothing is F_NOT_FOUND, one that is there already F_EXISTS. */
static int
change(struct store_db *db, const char *sql, size_t texts, const struct store_rows *rows,
    char *why, size_t why_len)
{
	int fault = db->ops->begin(db, &store_route_kind, why, why_len);

	if (fault != 0)
		return (fault);
	for (size_t i = 0; i < rows->count && fault == 0; i++) {
		const struct topo_route_text *r = rows->rows[i];
		const char *const list[] = {r->virtual_, r->pattern, r->database};
		int64_t changes = 0;
		enum db_outcome outcome = db->ops->run(db, sql, list, texts, &changes);

		if (outcome == DB_TAKEN) {
			snprintf(why, why_len, "there is a route of \"%s\" already",
			    r->pattern);
			fault = F_EXISTS;
		} else if (outcome == DB_FAILED)
			fault = db->ops->failed(db, why, why_len);
		else if (changes == 0) {
			snprintf(why, why_len, "there is no route \"%s\" of %s",
			    r->pattern, r->virtual_);
			fault = F_NOT_FOUND;
		}
	}
	return (db->ops->end(db, fault, why, why_len));
}

int
work_routes_put(
    struct store_db *db, const struct store_rows *rows, char *why, size_t why_len)
{
	int fault = db->ops->open(db, true, why, why_len);

	if (fault != 0)
		return (fault);
	return (change(db,
	    "INSERT INTO route (virtual, pattern, \"database\") VALUES (?1, ?2, ?3)", 3,
	    rows, why, why_len));
}

int
work_routes_delete(
    struct store_db *db, const struct store_rows *rows, char *why, size_t why_len)
{
	int fault = db->ops->open(db, db->is_explicit, why, why_len);

	if (fault == F_NOT_FOUND)
		snprintf(why, why_len, "there is no route in the state store");
	if (fault != 0)
		return (fault);
	return (change(db, "DELETE FROM route WHERE virtual = ?1 AND pattern = ?2", 2,
	    rows, why, why_len));
}
