/*
 * JSON as it is written: into a growing buffer, value after value, commas by themselves. Texts
 * come out as valid UTF-8 whatever bytes they have.
 */
#ifndef HTTP_JSON_H
#define HTTP_JSON_H
#include "base.h"

/* {0} with a buffer is ready. Within an object, json_key() before each value. */
struct json {
	struct buf *out;
	bool wants_comma;
};
void json_open(struct json *, char bracket); /* '{' or '[' */
void json_close(struct json *, char bracket);
void json_key(struct json *, const char *name);
/* NULL is null. */
void json_text(struct json *, const char *s);
void json_textn(struct json *, const char *s, size_t len);
void json_int(struct json *, int64_t);
void json_bool(struct json *, bool);
void json_nil(struct json *);
/* µs as milliseconds with fractions; negative: null. */
void json_ms(struct json *, int64_t us);
/* Wall-clock µs in ISO form; 0: null. */
void json_time(struct json *, int64_t wall_us);
/* A value that is JSON already. */
void json_raw(struct json *, const void *p, size_t len);

/* "text" with quotes, and what cannot stand in it replaced. */
void json_quote(struct buf *, const char *s, size_t len);

/* ---- values of PostgreSQL ---- */

/* One value of a result (text form) as JSON, by the type's OID: booleans and numbers that
 * JSON's readers keep exactly as such, json as it stands, the rest as a text. */
void json_value(struct buf *, uint32_t oid, const char *p, size_t len);
/* "int4" of 23; NULL: not one of the common ones. */
const char *json_type_name(uint32_t oid);
/* Whether the text is a number as JSON writes them. */
bool number_is_json(const char *p, size_t len);

#endif
