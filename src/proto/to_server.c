/*
 * Messages for a server: the packets that open a connection, the answers of a login, and
 * the few statements and messages that the proxy sends of its own.
 */
#include <string.h>

#include "put.h"

#define CODE_CANCEL 80877102 /* 1234.5678 */
#define CODE_SSL    80877103 /* 1234.5679 */

/* ---- opening a connection ---- */

static size_t
param_size(const char *name, const char *value)
{
	return (value == NULL ? 0 : strlen(name) + strlen(value) + 2);
}

static uint8_t *
put_param(uint8_t *to, const char *name, const char *value)
{
	if (value == NULL)
		return (to);
	return (put_str(put_str(to, name, strlen(name)), value, strlen(value)));
}

void
proto_startup(struct buf *b, const struct proto_startup *head,
    const char *const (*params)[2], size_t count)
{
	size_t size = 4 + 1 + param_size("user", head->user) +
		      param_size("database", head->database) +
		      param_size("options", head->options);
	uint8_t *to;

	for (size_t i = 0; i < count; i++)
		size += param_size(params[i][0], params[i][1]);
	to = put_packet(b, size);
	to = put_16(put_16(to, head->major), head->minor);
	to = put_param(to, "user", head->user);
	to = put_param(to, "database", head->database);
	to = put_param(to, "options", head->options);
	for (size_t i = 0; i < count; i++)
		to = put_param(to, params[i][0], params[i][1]);
	*to = '\0';
}

void
proto_ssl_request(struct buf *b)
{
	put_32(put_packet(b, 4), CODE_SSL);
}

void
proto_cancel_request(struct buf *b, uint32_t pid, const void *key, size_t key_len)
{
	uint8_t *to = put_packet(b, 8 + key_len);

	put_bytes(put_32(put_32(to, CODE_CANCEL), pid), key, key_len);
}

/* ---- login ---- */

void
proto_password(struct buf *b, const char *password)
{
	size_t len = strlen(password);

	put_str(put_head(b, 'p', len + 1), password, len);
}

void
proto_sasl_initial(struct buf *b, const char *mechanism, const void *data, size_t len)
{
	size_t name_len = strlen(mechanism);
	uint8_t *to = put_head(b, 'p', name_len + 1 + 4 + len);

	to = put_str(to, mechanism, name_len);
	put_bytes(put_32(to, data == NULL ? UINT32_MAX : (uint32_t)len), data, len);
}

void
proto_sasl_response(struct buf *b, const void *data, size_t len)
{
	proto_message(b, 'p', data, len);
}

/* ---- statements ---- */

void
proto_query(struct buf *b, const char *sql)
{
	size_t len = strlen(sql);

	put_str(put_head(b, 'Q', len + 1), sql, len);
}

void
proto_parse(struct buf *b, const char *name, const char *sql, const uint8_t *types,
    size_t types_len)
{
	size_t name_len = strlen(name), sql_len = strlen(sql);
	uint8_t *to;

	INVARIANT(types_len >= 2);
	to = put_head(b, 'P', name_len + sql_len + 2 + types_len);
	to = put_str(put_str(to, name, name_len), sql, sql_len);
	put_bytes(to, types, types_len);
}

void
proto_close_statement(struct buf *b, const char *name)
{
	size_t len = strlen(name);
	uint8_t *to = put_head(b, 'C', len + 2);

	*to = 'S';
	put_str(to + 1, name, len);
}

void
proto_sync(struct buf *b)
{
	put_head(b, 'S', 0);
}

void
proto_terminate(struct buf *b)
{
	put_head(b, 'X', 0);
}
