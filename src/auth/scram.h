/*
 * The SCRAM-SHA-256 messages (RFC 5802, 7677), both sides. What each side hashes, the
 * AuthMessage, is gathered in `said`:
 *
 *     client-first   n,,n=user,r=NONCE               (PostgreSQL ignores the user)
 *     server-first   r=NONCEnonce,s=SALT,i=4096
 *     client-final   c=biws,r=NONCEnonce,p=PROOF     ClientKey xor HMAC(StoredKey, said)
 *     server-final   v=SIGNATURE                     HMAC(ServerKey, said)
 *
 * "n,," says that the client knows nothing of channel binding, "y,," that it does and thinks that
 * the server does not, "p=tls-server-end-point,," that the login is bound to the certificate of
 * the server; c= has that and, bound, the hash of the certificate, in base 64 (RFC 5802, 6).
 *
 * Functions that read a message answer NULL, or a sentence that says what is wrong with it.
 */
#ifndef AUTH_SCRAM_H
#define AUTH_SCRAM_H
#include "secret.h"

#define SCRAM_MECHANISM   "SCRAM-SHA-256"
#define SCRAM_PLUS        "SCRAM-SHA-256-PLUS" /* bound to the TLS connection */
#define SCRAM_BOUND       "p=tls-server-end-point,,"
#define NONCE_SIZE        18   /* random bytes; a multiple of 3 */
#define SCRAM_MESSAGE_MAX 2048 /* bytes that we take of one */

/* ---- reading attributes: name=value, separated by commas ---- */

struct scram_rest {
	const char *p, *end;
};
/* What there is to read; an empty message may be at NULL. */
static inline struct scram_rest
scram_rest_of(const void *data, size_t len)
{
	const char *p = len == 0 ? "" : data;

	return ((struct scram_rest){p, p + len});
}

/* Takes one attribute and the comma behind it; name 0: whichever it is. False: it is not
 * there, or the message ends in a comma. */
bool scram_take(struct scram_rest *, char name, const char **value, size_t *len) MUST_USE;

/* Appends the base 64 of a header and, if it says so, of what the login is bound to. */
void scram_put_binding(struct buf *, const char *header, const struct auth_binding *);

/* ---- the server ---- */

struct scram_server {
	struct buf said;
	size_t nonce_at, nonce_len;  /* both nonces, in said */
	struct auth_binding binding; /* what is offered; len 0: nothing */
	bool is_plus;                /* the client has chosen SCRAM_PLUS */
	const char *header;          /* of client-first, how the channel is bound */
	int fault; /* of a sentence that has one of its own; 0: it is F_AUTH_PROTOCOL */
	struct keys keys; /* stored, server: before the proof; client: after it */
	/* Another secret that is as good, of the same salt, or none; after the proof, whichever
	 * is right stands in keys. */
	bool has_former;
	struct keys former;
};
/* Reads client-first, appends server-first to out. salt: base 64. */
const char *scram_server_first(struct scram_server *, const void *data, size_t len,
    const char *salt, size_t salt_len, int iterations, struct buf *out) MUST_USE;
/* Reads client-final; *proved: its proof is that of keys.stored or of former.stored, which
 * makes keys.client known. */
const char *scram_server_final(
    struct scram_server *, const void *data, size_t len, bool *proved) MUST_USE;
/* Appends server-final to out. */
void scram_server_proof(const struct scram_server *, struct buf *out);
void scram_server_free(struct scram_server *);

/* ---- the client ---- */

struct scram_client {
	struct buf said;
	struct auth_binding binding; /* len 0: the server's certificate gives none */
	const char *header;
	uint8_t signature[SHA256_SIZE]; /* what server-final must say */
};
/* What server-first says. */
struct scram_offer {
	const char *nonce; /* both; points into the message */
	size_t nonce_len;
	uint8_t salt[SALT_MAX];
	size_t salt_len;
	int iterations;
};
/* Appends client-first to out. offers_plus: the server has named SCRAM_PLUS. */
void scram_client_first(struct scram_client *, bool offers_plus, struct buf *out);
/* Whether the login will be bound. */
static inline bool
scram_client_binds(const struct scram_client *c, bool offers_plus)
{
	return (offers_plus && c->binding.len > 0);
}
/* Reads server-first. */
const char *scram_client_read(struct scram_client *, const void *data, size_t len,
    struct scram_offer *offer) MUST_USE;
/* Appends client-final to out. */
void scram_client_final(struct scram_client *, const struct scram_offer *,
    const struct keys *, struct buf *out);
/* Reads server-final. */
const char *scram_client_check(
    const struct scram_client *, const void *data, size_t len) MUST_USE;
void scram_client_free(struct scram_client *);

#endif
