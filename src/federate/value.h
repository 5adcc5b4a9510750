/*
 * value: a value of a result, read so that it can be compared as its type's operators do.
 */
#ifndef FEDERATE_VALUE_H
#define FEDERATE_VALUE_H
#include "base.h"
#include "number.h"

enum value_kind {
	VALUE_NONE, /* its order is not the proxy's to know */
	VALUE_INTEGER,
	VALUE_UNSIGNED,
	VALUE_FLOAT,
	VALUE_NUMERIC,
	VALUE_DATE,
	VALUE_TIMESTAMP,
	VALUE_TIMESTAMPTZ,
	VALUE_TIME,
	VALUE_UUID
};

struct value {
	enum value_kind kind;
	int64_t integer; /* also of dates and times */
	double real;
	uint8_t uuid[16];
	struct number number;
};

enum value_kind value_kind_of(uint32_t type_oid);
/* Its text depends on DateStyle: only that of ISO is read. */
bool value_is_styled(enum value_kind);
/* F_NOT_FOUND when the bytes are no value of the kind. Otherwise value_free() afterwards. */
int value_read(struct value *, enum value_kind, const uint8_t *p, size_t len,
    bool is_binary) MUST_USE;
void value_free(struct value *);
/* Both of one kind. */
int value_compare(const struct value *, const struct value *);

#endif
