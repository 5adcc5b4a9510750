/*
 * store/key.c: what is done with the keys of the store, in the thread that calls.
 *
 * A key is said by its id, or by its name: then it is the one that is not revoked, of which
 * there is one at most in what this program writes; else the newest of that name.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A wall-clock time as the store keeps it: texts in the order of time. */
static void
time_text(int64_t wall_us, char *out, size_t size)
{
	time_t at = (time_t)(wall_us / 1000000);
	char second[24], part[16] = "";
	struct tm tm;

	out[0] = '\0';
	if (wall_us % 1000000 != 0)
		snprintf(part, sizeof(part), ".%06u", (unsigned)(wall_us % 1000000));
	if (gmtime_r(&at, &tm) != NULL &&
	    strftime(second, sizeof(second), "%Y-%m-%d %H:%M:%S", &tm) > 0)
		snprintf(out, size, "%s%s+00", second, part);
}

/* ---- finding ---- */

/* The rows that the rest of the statement chooses, ?1 being the word. */
static int
select_keys(struct store_db *db, struct store_rows *rows, const char *rest,
    const char *word, char *why, size_t why_len)
{
	rows_free(rows);
	rows->kind = &store_key_kind;
	if (db->ops->select(db, rows, rest, &word, 1) == DB_DONE)
		return (0);
	return (db->ops->failed(db, why, why_len));
}

static int
find_key(struct store_db *db, struct store_rows *rows, const char *word, char *why,
    size_t why_len)
{
	static const char *const rests[] = {
	    " WHERE id = ?1",
	    " WHERE name = ?1 AND revoked IS NULL LIMIT 2",
	    " WHERE name = ?1 ORDER BY rowid DESC LIMIT 1",
	};
	int fault = 0;

	for (size_t i = 0; i < ARRAY_LEN(rests) && fault == 0; i++) {
		fault = select_keys(db, rows, rests[i], word, why, why_len);
		if (fault == 0 && rows->count == 1)
			return (0);
		if (fault == 0 && rows->count > 1) {
			snprintf(why, why_len,
			    "there are several keys \"%s\": name one by its id", word);
			fault = F_AMBIGUOUS;
		}
	}
	if (fault != 0)
		return (fault);
	snprintf(why, why_len, "there is no key \"%s\"", word);
	return (F_NOT_FOUND);
}

/* ---- changing ---- */

int
work_key_put(
    struct store_db *db, const struct topo_key_text *key, char *why, size_t why_len)
{
	struct store_rows rows = {.kind = &store_key_kind};
	int fault = db->ops->open(db, true, why, why_len);

	if (fault != 0 ||
	    (fault = db->ops->begin(db, &store_key_kind, why, why_len)) != 0)
		return (fault);
	if (key->name != NULL && key->name[0] != '\0')
		fault =
		    select_keys(db, &rows, " WHERE name = ?1 AND revoked IS NULL LIMIT 1",
			key->name, why, why_len);
	if (fault == 0 && rows.count > 0) {
		snprintf(why, why_len, "there is a key \"%s\" already", key->name);
		fault = F_EXISTS;
	}
	rows_free(&rows);
	if (fault == 0)
		fault = work_insert(db, &store_key_kind, key, why, why_len);
	return (db->ops->end(db, fault, why, why_len));
}

static int
revoke(struct store_db *db, const char *id, char *why, size_t why_len)
{
	char now[64];

	time_text(clock_wall_us() / 1000000 * 1000000, now, sizeof(now));
	/* What was opened by its former secret is closed with the key. */
	if (db->ops->run(db,
		"UPDATE key SET former_secret = NULL, former_until = NULL, "
		"revoked = coalesce(revoked, ?2) WHERE id = ?1",
		(const char *const[]){id, now}, 2, NULL) == DB_DONE)
		return (0);
	return (db->ops->failed(db, why, why_len));
}

static int
rotate(struct store_db *db, const struct topo_key_text *key,
    const struct store_rotation *r, char *why, size_t why_len)
{
	char until[64] = "", *verifier;
	enum db_outcome outcome;

	if (key->revoked != NULL) {
		snprintf(why, why_len, "key \"%s\" is revoked", key->id);
		return (F_KEY_STATE);
	}
	verifier = r->verifier(r->arg, key->secret != NULL ? key->secret : "");
	if (verifier == NULL) {
		snprintf(why, why_len, "key \"%s\" has a verifier that is none", key->id);
		return (F_KEY_STATE);
	}
	if (r->overlap_us > 0)
		time_text(clock_wall_us() + r->overlap_us, until, sizeof(until));
	outcome = db->ops->run(db,
	    "UPDATE key SET former_secret = CASE WHEN ?3 = '' THEN NULL ELSE secret END, "
	    "former_until = nullif(?3, ''), secret = ?2 WHERE id = ?1",
	    (const char *const[]){key->id, verifier, until}, 3, NULL);
	free(verifier);
	return (outcome == DB_DONE ? 0 : db->ops->failed(db, why, why_len));
}

/* The key as it is then, or no row. */
static int
change_key(struct store_db *db, const char *word, const struct store_rotation *r,
    struct store_rows *rows, char *why, size_t why_len)
{
	int fault = find_key(db, rows, word, why, why_len);
	const struct topo_key_text *key;
	char *id;

	if (fault == 0) {
		key = rows->rows[0];
		id = mem_str(key->id);
		fault = r == NULL ? revoke(db, id, why, why_len)
				  : rotate(db, key, r, why, why_len);
		if (fault == 0)
			fault = select_keys(db, rows, " WHERE id = ?1", id, why, why_len);
		free(id);
	}
	if (fault != 0)
		rows_free(rows);
	return (fault);
}

int
work_key_change(struct store_db *db, const char *word, const struct store_rotation *r,
    struct store_rows *rows, char *why, size_t why_len)
{
	int fault = db->ops->open(db, db->is_explicit, why, why_len);

	if (fault == F_NOT_FOUND)
		snprintf(why, why_len, "there is no key \"%s\"", word);
	if (fault != 0 ||
	    (fault = db->ops->begin(db, &store_key_kind, why, why_len)) != 0)
		return (fault);
	fault = change_key(db, word, r, rows, why, why_len);
	fault = db->ops->end(db, fault, why, why_len);
	if (fault != 0)
		rows_free(rows);
	return (fault);
}

int
work_keys_forget(struct store_db *db, char *why, size_t why_len)
{
	int fault = db->ops->open(db, false, why, why_len);
	char now[64];

	if (fault != 0)
		return (fault == F_NOT_FOUND ? 0 : fault);
	if ((fault = db->ops->begin(db, &store_key_kind, why, why_len)) != 0)
		return (fault);
	time_text(clock_wall_us(), now, sizeof(now));
	if (db->ops->run(db,
		"UPDATE key SET former_secret = NULL, former_until = NULL "
		"WHERE former_until <= ?1",
		(const char *const[]){now}, 1, NULL) != DB_DONE)
		fault = db->ops->failed(db, why, why_len);
	return (db->ops->end(db, fault, why, why_len));
}
