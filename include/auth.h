/*
 * auth: who is this: plain passwords, md5 and SCRAM-SHA-256 (-PLUS) on both sides; no sockets.
 *
 * A server-side exchange is fed the client's password messages and says what to send; a
 * client-side exchange does the same towards a backend. Sources: RFC 5802, RFC 7677,
 * PostgreSQL documentation "SASL Authentication".
 *
 * Passwords are prepared with SASLprep (RFC 4013) without its NFKC normalisation: ASCII and
 * what is already normalised (nearly everything that is typed) gives what PostgreSQL makes of
 * it; ligatures, full-width and decomposed letters are taken as they are.
 *
 * The keys that SCRAM derives from a plain password (1.3 ms) are remembered for the process,
 * 1,024 of them: the first login of each plain password pays, those after it do not.
 */
#ifndef AUTH_H
#define AUTH_H
#include "base.h"
#include "conf.h"

/* ---- stored secrets ---- */

enum auth_secret_kind { SECRET_NONE, SECRET_PLAIN, SECRET_MD5, SECRET_SCRAM };
/* By its form: md5 + 32 hex digits, SCRAM-SHA-256$…, otherwise plain. */
enum auth_secret_kind auth_secret_kind(const char *secret);
/* A SCRAM verifier "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey" of a password.
 * iterations: 1 to 10,000,000; PostgreSQL's default is 4096. The caller frees it. */
char *auth_make_verifier(const char *password, int iterations) MUST_USE;
/* The same with salt and iterations of another verifier; NULL: that is none. */
char *auth_make_verifier_like(const char *password, const char *verifier) MUST_USE;

/* What a client's SCRAM login shows of its password: enough to log in at a backend that has
 * the same verifier, in place of the password. Secret: overwrite it after use. */
struct auth_keys {
	uint8_t client[32], server[32];
};

/* What SCRAM-SHA-256-PLUS binds a login to: tls-server-end-point (RFC 5929), a hash of the
 * certificate of the TLS connection's server. */
struct auth_binding {
	uint8_t data[64];
	size_t len; /* 0: there is none */
};

/* ---- the proxy as a server: one login of one client ---- */

/* What the salts are made of that are said for logins which are not known, so that they are the
 * same ones after a restart, as salts of stored secrets are. Before the first thread; without it
 * they are of this process. Secret. */
#define AUTH_KEY 32
void auth_set_key(const uint8_t key[AUTH_KEY]);

struct auth_server;

/* What the caller does next. */
enum auth_step {
	AUTH_SEND, /* send what is in `out`, wait for the client's next message */
	AUTH_DONE, /* send what is in `out`; the client is who it says it is */
	AUTH_FAIL  /* refuse: 28P01 unless the fault says otherwise */
};
/* scram_iterations: of what is derived of passwords in clear for exchanges that begin from now
 * on. Any thread. */
void auth_set_iterations(int);
/*
 * Starts the exchange that auth_type asks for with a login that has `secret` (NULL: unknown
 * or without a password: the exchange runs to the same end in the same time, and fails; where
 * MD5 is asked for, it is the one that the last login with a hashed secret had).
 * auth_type: TRUST and ANY are AUTH_DONE at once; MD5 with a SCRAM secret becomes SCRAM, as
 * in PostgreSQL; PLAIN takes every kind of secret, SCRAM and MD5 also a plain one; an md5
 * secret fails SCRAM. AUTH_FAIL: CERT and HBA, which ask for no password, and MD5 where
 * OpenSSL refuses it. out: the first Authentication message.
 * *server: owned by the caller until auth_server_free(); NULL after AUTH_DONE at once.
 */
enum auth_step auth_server_start(struct auth_server **server, enum auth_type auth_type,
    const char *login, const char *secret, struct buf *out) MUST_USE;
/* The same over TLS: SCRAM is offered bound, too, and a client that could bind its login but was
 * made to believe that we cannot is refused (F_AUTH_NO_BINDING), as is a binding to another
 * certificate (F_AUTH_BINDING). binding: NULL or empty: there is none to be had. */
enum auth_step auth_server_start_bound(struct auth_server **server,
    enum auth_type auth_type, const char *login, const char *secret,
    const struct auth_binding *binding, struct buf *out) MUST_USE;
/* Right after auth_server_start() (an exchange of NULL is none): the secret that the login had
 * before opens it, too. Both are SCRAM verifiers of the same salt and iterations, as
 * auth_make_verifier_like() makes them: the server says its salt before it knows which secret
 * the client has. NULL, or one that does not fit: there is no such secret. Neither what is
 * sent nor the time it takes tells which of them is right, or how many there are. */
void auth_server_also(struct auth_server *, const char *former);
/* Feeds the body of one 'p' message. *fault: why it failed (F_AUTH_PASSWORD,
 * F_AUTH_PROTOCOL, F_AUTH_NO_BINDING, F_AUTH_BINDING). AuthenticationOk is not in out: the caller sends it. */
enum auth_step auth_server_feed(struct auth_server *, const uint8_t *body, size_t len,
    struct buf *out, int *fault) MUST_USE;
/* What went wrong, for the log only. Never NULL. */
const char *auth_server_reason(const struct auth_server *);
/* The secret that the login was started with; NULL: none. */
const char *auth_server_secret(const struct auth_server *);
/* The password in clear when the exchange has shown it (plain), else NULL. */
const char *auth_server_password(const struct auth_server *);
/* After a SCRAM login that succeeded: true, and what it has shown. */
bool auth_server_keys(const struct auth_server *, struct auth_keys *out) MUST_USE;
void auth_server_free(struct auth_server *);

/* ---- the proxy as a client: one login at one backend ---- */

struct auth_client;
/* secret as in auth_file; NULL: none. Strings are copied. */
struct auth_client *auth_client_create(const char *user, const char *secret) MUST_USE;
/* Lets a client whose secret is a SCRAM verifier log in where the server's verifier has the
 * same salt and iterations. Before the first auth_client_feed(). */
void auth_client_keys(struct auth_client *, const struct auth_keys *);
/* The connection is TLS: where the server offers it, the login is bound to its certificate.
 * Before the first auth_client_feed(). */
void auth_client_bind(struct auth_client *, const struct auth_binding *);
/* Feeds one Authentication request (code and data as from proto_auth_parse). AUTH_SEND:
 * out has the answer, or nothing to be sent (SASLFinal). AUTH_DONE: AuthenticationOk, and
 * when SASL ran, the server has proved itself. AUTH_FAIL: why says it. */
enum auth_step auth_client_feed(struct auth_client *, uint32_t code, const uint8_t *data,
    size_t len, struct buf *out, char *why, size_t why_len) MUST_USE;
void auth_client_free(struct auth_client *);

#endif
