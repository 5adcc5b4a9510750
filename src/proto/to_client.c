/*
 * Messages for a client: authentication requests, errors and notices, and the rows of the
 * proxy's own answers.
 */
#include <string.h>

#include "put.h"

void
proto_message(struct buf *b, char type, const void *body, size_t len)
{
	put_bytes(put_head(b, type, len), body, len);
}

/* ---- errors ---- */

static bool
is_notice(const char *severity)
{
	return (strcmp(severity, "WARNING") == 0 || strcmp(severity, "NOTICE") == 0);
}

void
proto_error(struct buf *b, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint)
{
	proto_error_in(b, severity, sqlstate, message, detail, hint, NULL);
}

void
proto_error_in(struct buf *b, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint, const char *context)
{
	/* V is S untranslated; we never translate. */
	static const char codes[] = "SVCMDHW";
	const char *const texts[] = {
	    severity, severity, sqlstate, message, detail, hint, context};
	size_t lens[ARRAY_LEN(texts)], size = 1;
	uint8_t *to;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		lens[i] = texts[i] == NULL ? 0 : strlen(texts[i]);
		size += texts[i] == NULL ? 0 : lens[i] + 2;
	}
	to = put_head(b, is_notice(severity) ? 'N' : 'E', size);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (texts[i] == NULL)
			continue;
		*to++ = (uint8_t)codes[i];
		to = put_str(to, texts[i], lens[i]);
	}
	*to = '\0';
}

void
proto_fault(struct buf *b, const char *severity, int fault, const char *message)
{
	const struct fault_info *info = fault_info(fault);

	proto_error(b, severity, info->sqlstate, message == NULL ? info->text : message,
	    NULL, NULL);
}

/* ---- login ---- */

/* An authentication request: its code and what belongs to it. */
static void
put_auth(struct buf *b, uint32_t code, const void *data, size_t len)
{
	put_bytes(put_32(put_head(b, 'R', 4 + len), code), data, len);
}

void
proto_auth_ok(struct buf *b)
{
	put_auth(b, 0, NULL, 0);
}

void
proto_auth_cleartext(struct buf *b)
{
	put_auth(b, 3, NULL, 0);
}

void
proto_auth_md5(struct buf *b, const uint8_t salt[4])
{
	put_auth(b, 5, salt, 4);
}

void
proto_auth_sasl(struct buf *b, const char *const *mechanisms, size_t count)
{
	size_t size = 4 + 1;
	uint8_t *to;

	for (size_t i = 0; i < count; i++)
		size += strlen(mechanisms[i]) + 1;
	to = put_32(put_head(b, 'R', size), 10);
	for (size_t i = 0; i < count; i++)
		to = put_str(to, mechanisms[i], strlen(mechanisms[i]));
	*to = '\0';
}

void
proto_auth_sasl_continue(struct buf *b, const void *data, size_t len)
{
	put_auth(b, 11, data, len);
}

void
proto_auth_sasl_final(struct buf *b, const void *data, size_t len)
{
	put_auth(b, 12, data, len);
}

void
proto_parameter_status(struct buf *b, const char *name, const char *value)
{
	size_t name_len = strlen(name), value_len = strlen(value);
	uint8_t *to = put_head(b, 'S', name_len + value_len + 2);

	put_str(put_str(to, name, name_len), value, value_len);
}

void
proto_backend_key(struct buf *b, uint32_t pid, const void *key, size_t key_len)
{
	put_bytes(put_32(put_head(b, 'K', 4 + key_len), pid), key, key_len);
}

void
proto_negotiate(struct buf *b, uint32_t version, const char *const *options, size_t count)
{
	size_t size = 8;
	uint8_t *to;

	for (size_t i = 0; i < count; i++)
		size += strlen(options[i]) + 1;
	to = put_32(put_head(b, 'v', size), version);
	to = put_32(to, (uint32_t)count);
	for (size_t i = 0; i < count; i++)
		to = put_str(to, options[i], strlen(options[i]));
}

/* ---- answers ---- */

void
proto_ready(struct buf *b, char status)
{
	*put_head(b, 'Z', 1) = (uint8_t)status;
}

void
proto_command_complete(struct buf *b, const char *tag)
{
	size_t len = strlen(tag);

	put_str(put_head(b, 'C', len + 1), tag, len);
}

void
proto_empty_query(struct buf *b)
{
	put_head(b, 'I', 0);
}

/*
 * A column: name NUL, int32 table and int16 column it comes from (none), int32 type,
 * int16 size of the type, int32 type modifier (none), int16 format (text).
 */
void
proto_row_description(struct buf *b, const struct proto_column *columns, size_t count)
{
	size_t size = 2;
	uint8_t *to;

	INVARIANT(count <= INT16_MAX);
	for (size_t i = 0; i < count; i++)
		size += strlen(columns[i].name) + 1 + 18;
	to = put_16(put_head(b, 'T', size), (uint16_t)count);
	for (size_t i = 0; i < count; i++) {
		to = put_str(to, columns[i].name, strlen(columns[i].name));
		to = put_16(put_32(to, 0), 0);
		to = put_16(
		    put_32(to, columns[i].type_oid), (uint16_t)columns[i].type_size);
		to = put_16(put_32(to, UINT32_MAX), 0);
	}
}

void
proto_data_row(struct buf *b, const char *const *values, size_t count)
{
	size_t size = 2, len;
	uint8_t *to;

	INVARIANT(count <= INT16_MAX);
	for (size_t i = 0; i < count; i++)
		size += 4 + (values[i] == NULL ? 0 : strlen(values[i]));
	to = put_16(put_head(b, 'D', size), (uint16_t)count);
	for (size_t i = 0; i < count; i++) {
		len = values[i] == NULL ? 0 : strlen(values[i]);
		to = put_32(to, values[i] == NULL ? UINT32_MAX : (uint32_t)len);
		to = put_bytes(to, values[i], len);
	}
}
