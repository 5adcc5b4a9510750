/*
 * Values of shard keys: what stands in a statement, or comes as a parameter, as a value of the
 * key's type: as the server will see it once it has become one of the column's.
 */
#include "private.h"

#include <inttypes.h>
#include <stdio.h>

/* Of pg_type. */
#define OID_NAME      19
#define OID_INT8      20
#define OID_INT2      21
#define OID_INT4      23
#define OID_TEXT      25
#define OID_UNKNOWN   705
#define OID_BPCHAR    1042
#define OID_VARCHAR   1043
#define OID_UUID      2950
#define OID_FIRST_OWN 16384 /* types that are not PostgreSQL's own: enums, domains… */

static bool
is_integer(const struct topo_shard *s)
{
	return (s->type == TOPO_SHARD_INTEGER || s->type == TOPO_SHARD_BIGINT);
}

bool
route_value_integer(const struct topo_shard *s, int64_t number, struct route_value *out)
{
	int len;

	out->v = (struct topo_shard_value){.number = number};
	if (is_integer(s))
		return (true);
	if (s->type == TOPO_SHARD_UUID)
		return (false);
	len = snprintf((char *)out->room, sizeof(out->room), "%" PRId64, number);
	INVARIANT(len > 0 && (size_t)len < sizeof(out->room));
	out->v = (struct topo_shard_value){.p = out->room, .len = (size_t)len};
	return (true);
}

int
route_value_text(
    const struct topo_shard *s, const char *text, size_t len, struct route_value *out)
{
	out->v = (struct topo_shard_value){0};
	if (is_integer(s))
		return (route_integer(text, len, false, &out->v.number));
	return (topo_shard_read(s->type, text, len, out->room, &out->v) ? ROUTE_VALUE
									: ROUTE_NO_VALUE);
}

/* A column of text takes a number in an INSERT alone, as its digits; of what is more than an
 * integer, they hang on its type. */
int
route_value_number(const struct topo_shard *s, const char *text, size_t len,
    bool is_negative, struct route_value *out)
{
	int64_t number = 0;
	int read = route_integer(text, len, is_negative, &number);

	if (!is_integer(s) && (read != ROUTE_VALUE || strspn(text, "-+0123456789") < len))
		return (ROUTE_NO_VALUE);
	if (read == ROUTE_VALUE && !route_value_integer(s, number, out))
		return (ROUTE_NO_VALUE);
	return (read);
}

static bool
is_of_text(uint32_t type)
{
	return (type == 0 || type == OID_TEXT || type == OID_VARCHAR ||
		type == OID_BPCHAR || type == OID_NAME || type == OID_UNKNOWN ||
		type >= OID_FIRST_OWN);
}

static int
datum_integer(
    const struct topo_shard *s, const struct route_datum *d, struct route_value *out)
{
	int64_t number = 0;
	int read = route_datum_integer(d, &number);

	if (read == ROUTE_VALUE && !route_value_integer(s, number, out))
		return (ROUTE_NO_VALUE);
	return (read);
}

static int
datum_text(
    const struct topo_shard *s, const struct route_datum *d, struct route_value *out)
{
	size_t len = d->len;

	if (d->type == OID_INT2 || d->type == OID_INT4 || d->type == OID_INT8)
		return (datum_integer(s, d, out));
	if (!is_of_text(d->type))
		return (ROUTE_NO_VALUE);
	/* They are gone when it becomes another type. */
	while (d->type == OID_BPCHAR && len > 0 && d->p[len - 1] == ' ')
		len--;
	return (route_value_text(s, (const char *)d->p, len, out));
}

static int
datum_uuid(
    const struct topo_shard *s, const struct route_datum *d, struct route_value *out)
{
	bool is_uuid = d->type == 0 || d->type == OID_UUID || d->type >= OID_FIRST_OWN;

	if (d->is_binary && is_uuid && d->len == 16) {
		memcpy(out->room, d->p, 16);
		out->v = (struct topo_shard_value){.p = out->room, .len = 16};
		return (ROUTE_VALUE);
	}
	if (!is_uuid && !is_of_text(d->type))
		return (ROUTE_NO_VALUE);
	return (route_value_text(s, (const char *)d->p, d->len, out));
}

int
route_value_datum(
    const struct topo_shard *s, const struct route_datum *d, struct route_value *out)
{
	INVARIANT(!d->is_null);
	switch (s->type) {
	case TOPO_SHARD_TEXT:
	case TOPO_SHARD_CHAR:
		return (datum_text(s, d, out));
	case TOPO_SHARD_UUID:
		return (datum_uuid(s, d, out));
	case TOPO_SHARD_INTEGER:
	case TOPO_SHARD_BIGINT:
		break;
	}
	return (datum_integer(s, d, out));
}

bool
route_is_text(const struct route_datum *d)
{
	return (!d->is_binary ||
		(d->type != 0 && d->type < OID_FIRST_OWN && is_of_text(d->type)));
}

const char *
route_value_kind(const struct topo_shard *s)
{
	switch (s->type) {
	case TOPO_SHARD_TEXT:
	case TOPO_SHARD_CHAR:
		return ("a text");
	case TOPO_SHARD_UUID:
		return ("a uuid");
	case TOPO_SHARD_INTEGER:
	case TOPO_SHARD_BIGINT:
		break;
	}
	return ("an integer");
}

int
route_home_of(const struct topo_shard *s, const struct route_datum *d)
{
	struct route_value v;
	int read;

	if (d->is_null)
		return (ROUTE_HOME_NULL);
	read = route_value_datum(s, d, &v);
	if (read == ROUTE_OUT_OF_RANGE)
		return (ROUTE_HOME_RANGE);
	if (read != ROUTE_VALUE)
		return (ROUTE_HOME_WRONG);
	return (topo_shard_place(s, &v.v));
}
