/*
 * proto: PostgreSQL protocol 3 messages to structs and back; no sockets.
 *
 * Source of the formats: PostgreSQL documentation, "Frontend/Backend Protocol". A message is
 * a type byte, a 32-bit length that counts itself but not the type, and the body; integers
 * are big-endian. Startup packets have no type byte. Every function that reads outside bytes
 * takes their length and never reads past it, nor trusts a length or a count in them.
 */
#ifndef PROTO_H
#define PROTO_H
#include "base.h"

#define PROTO_HEAD 5 /* bytes of a message's head: type and length */

/* Types of messages are letters: a set of them is a number. */
#define PROTO_TYPE(c) (1ULL << ((c)&63))
static inline bool
proto_is_of(char type, uint64_t set)
{
	return (((uint8_t)type & 0xc0) == 0x40 && (set >> (type & 63) & 1) != 0);
}

static inline uint32_t
proto_get32(const uint8_t *p)
{
	return ((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
}
static inline void
proto_put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}
static inline uint16_t
proto_get16(const uint8_t *p)
{
	return ((uint16_t)((unsigned)p[0] << 8 | p[1]));
}

/* ---- startup packets ---- */

#define PROTO_STARTUP_MAX 10000  /* bytes; PostgreSQL's MAX_STARTUP_PACKET_LENGTH */
#define PROTO_V3          196608 /* 3.0 */
#define PROTO_V3_2        196610 /* keys of CancelRequests have 4 to 256 bytes, not 4 */
#define PROTO_LATEST      PROTO_V3_2
#define PROTO_KEY_MAX     256

enum proto_startup_kind {
	PROTO_SSL_REQUEST,
	PROTO_GSSENC_REQUEST,
	PROTO_CANCEL_REQUEST,
	PROTO_STARTUP
};
/* Points into the packet. */
struct proto_startup {
	enum proto_startup_kind kind;
	uint32_t pid;       /* CANCEL_REQUEST */
	const uint8_t *key; /* CANCEL_REQUEST: 4 to 256 bytes */
	size_t key_len;
	uint16_t major, minor; /* STARTUP: protocol version asked for */
	const char *user;      /* STARTUP: never NULL nor empty */
	const char *database;  /* STARTUP: the user's name when not given */
	const char *options;   /* STARTUP: or NULL */
	const char *params;    /* STARTUP: name NUL value NUL … NUL */
	size_t params_len;
};
/* How many bytes the packet has that begins with these (len >= 4), or F_PROTO_STARTUP when
 * its length is out of bounds (8 to PROTO_STARTUP_MAX). */
ssize_t proto_startup_size(const uint8_t *p, size_t len) MUST_USE;
/* Parses a whole packet. 0; F_PROTO_STARTUP: malformed; F_PROTO_VERSION: protocol major
 * version other than 3 (kind and version are set); F_PROTO_NO_USER. */
int proto_startup_parse(const uint8_t *p, size_t len, struct proto_startup *out) MUST_USE;
/* Calls each(arg, name, value) for every parameter of a startup packet, `_pq_.` ones
 * included; stops at the first answer that is not 0 and answers it. */
int proto_startup_each(const struct proto_startup *,
    int (*each)(void *arg, const char *name, const char *value), void *arg) MUST_USE;
/* What the startup parameter `replication` asks for: an ordinary session, a walsender of the whole
 * cluster, or one of a database. */
enum proto_replication { REPLICATION_NONE, REPLICATION_PHYSICAL, REPLICATION_LOGICAL };
/* As PostgreSQL reads it: "database", or a boolean; F_PROTO_REPLICATION: neither. */
int proto_replication_parse(const char *value, enum proto_replication *out) MUST_USE;
/* Splits the `options` of a startup packet as PostgreSQL does: -c name=value, -cname=value,
 * --name=value, backslash escapes a space; '-' in a name stands for '_'. Anything else is
 * F_PROTO_OPTIONS with the offending word in why, for "<the fault's text>: <why>"; each() has
 * then seen the settings before it. An answer of each() that is not 0 stops and is answered. */
int proto_options_each(const char *options,
    int (*each)(void *arg, const char *name, const char *value), void *arg, char *why,
    size_t why_len) MUST_USE;

/* ---- messages to be sent: each appends one whole message ---- */

void proto_message(struct buf *, char type, const void *body, size_t len);
/* ErrorResponse ('E') with severity FATAL or ERROR, or NoticeResponse ('N') with WARNING or
 * NOTICE. detail and hint may be NULL. */
void proto_error(struct buf *, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint);
/* The same with what it was about: "COPY t, line 3" (NULL: nothing). */
void proto_error_in(struct buf *, const char *severity, const char *sqlstate,
    const char *message, const char *detail, const char *hint, const char *context);
/* The same, from a fault: its SQLSTATE, and the text given or the fault's own (NULL). */
void proto_fault(struct buf *, const char *severity, int fault, const char *message);
void proto_auth_ok(struct buf *);
void proto_auth_cleartext(struct buf *);
void proto_auth_md5(struct buf *, const uint8_t salt[4]);
void proto_auth_sasl(struct buf *, const char *const *mechanisms, size_t count);
void proto_auth_sasl_continue(struct buf *, const void *data, size_t len);
void proto_auth_sasl_final(struct buf *, const void *data, size_t len);
void proto_parameter_status(struct buf *, const char *name, const char *value);
void proto_backend_key(struct buf *, uint32_t pid, const void *key, size_t key_len);
void proto_ready(struct buf *, char status);
/* NegotiateProtocolVersion: the version that will be spoken (major << 16 | minor, as PostgreSQL
 * sends it), and the options not known. */
void proto_negotiate(
    struct buf *, uint32_t version, const char *const *options, size_t count);
void proto_command_complete(struct buf *, const char *tag);
void proto_empty_query(struct buf *);

struct proto_column {
	const char *name;
	uint32_t
	    type_oid; /* 25 text, 20 int8, 23 int4, 701 float8, 16 bool, 1184 timestamptz */
	int16_t type_size; /* bytes, -1: variable */
};
void proto_row_description(struct buf *, const struct proto_column *, size_t count);
/* values[i] NULL: SQL NULL. Text format. */
void proto_data_row(struct buf *, const char *const *values, size_t count);

/* To a server. proto_startup: version, user, database and options of head (where they are not
 * NULL), then the params given (without those whose value is NULL); head->params is not
 * looked at. */
void proto_startup(struct buf *, const struct proto_startup *head,
    const char *const (*params)[2], size_t count);
void proto_ssl_request(struct buf *);
void proto_cancel_request(struct buf *, uint32_t pid, const void *key, size_t key_len);
void proto_query(struct buf *, const char *sql);
void proto_password(struct buf *, const char *password);
void proto_sasl_initial(
    struct buf *, const char *mechanism, const void *data, size_t len);
void proto_sasl_response(struct buf *, const void *data, size_t len);
void proto_parse(struct buf *, const char *name, const char *sql, const uint8_t *types,
    size_t types_len); /* types: the count and OIDs as they stand in the message */
void proto_close_statement(struct buf *, const char *name);
void proto_sync(struct buf *);
void proto_terminate(struct buf *);

/* ---- messages received: body without the head ---- */

/* Fields of an ErrorResponse or NoticeResponse; point into the body; "" where absent. This and
 * all that follow: F_PROTO_MESSAGE when the parts do not fill the body exactly. */
struct proto_error_fields {
	const char *severity; /* the V field where present (never translated), else S */
	const char *sqlstate, *message, *detail, *hint;
	const char *routine; /* of PostgreSQL's source; "": not said */
	const char *context; /* the W field */
};
int proto_error_parse(
    const uint8_t *body, size_t len, struct proto_error_fields *out) MUST_USE;
/* Copies the body of an ErrorResponse to a new 'E' message with `from` replaced by `to` in
 * its message field (all occurrences). */
int proto_error_rename(struct buf *, const uint8_t *body, size_t len, const char *from,
    const char *to) MUST_USE;
/* The value of a field, by its letter; "" where it is absent. The body has been parsed. */
const char *proto_error_field(const uint8_t *body, size_t len, char field);
/* As proto_error_rename(), and the field of the position is replaced, or taken out (0). */
int proto_error_move(struct buf *, const uint8_t *body, size_t len, const char *from,
    const char *to, long position) MUST_USE;
int proto_parameter_parse(
    const uint8_t *body, size_t len, const char **name, const char **value) MUST_USE;
/* Authentication request: its code (0 ok, 3 cleartext, 5 md5, 10, 11, 12 SASL) and data. */
int proto_auth_parse(const uint8_t *body, size_t len, uint32_t *code,
    const uint8_t **data, size_t *data_len) MUST_USE;
/* BackendKeyData: key is 4 bytes, up to 256 with protocol 3.2. */
int proto_backend_key_parse(const uint8_t *body, size_t len, uint32_t *pid,
    const uint8_t **key, size_t *key_len) MUST_USE;

/* From a client. Each gives what the proxy must know and no more. */
struct proto_parse {
	const char *name, *sql;
	size_t name_len, sql_len;
	const uint8_t *types; /* the count and the OIDs, as in the message */
	size_t types_len;
};
int proto_parse_parse(const uint8_t *body, size_t len, struct proto_parse *out) MUST_USE;
/* The two names at the start of a Bind, of which `have` bytes of the body are there.
 * F_AGAIN while they are not complete. rest: offset of what follows the names. */
int proto_bind_names(const uint8_t *body, size_t have, const char **portal,
    const char **statement, size_t *rest) MUST_USE;
/* Describe or Close: what ('S' or 'P') and the name. */
int proto_target_parse(
    const uint8_t *body, size_t len, char *what, const char **name) MUST_USE;
/* A NUL-terminated string that fills the body exactly (Query, PasswordMessage). */
int proto_string_parse(const uint8_t *body, size_t len, const char **s) MUST_USE;
/* SASLInitialResponse: data NULL when the client sent none. */
int proto_sasl_initial_parse(const uint8_t *body, size_t len, const char **mechanism,
    const uint8_t **data, size_t *data_len) MUST_USE;

#endif
