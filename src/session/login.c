/* From the first byte of a client to the proof of who it is. */
#include "private.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
session_login_free(struct session *s)
{
	struct session_login *login = s->login;

	if (login == NULL)
		return;
	s->login = NULL;
	auth_server_free(login->auth);
	vars_release(s->worker, login->want);
	buf_free(&login->packet);
	free(login);
}

/* ---- the startup packet ---- */

/* SSLRequest and GSSENCRequest have one byte for an answer. */
static size_t
startup_encryption(
    struct session *s, enum proto_startup_kind kind, size_t size, size_t len)
{
	struct session_login *login = s->login;
	struct tls *tls = pool_worker(s->worker)->tls;
	bool *asked =
	    kind == PROTO_SSL_REQUEST ? &login->has_asked_tls : &login->has_asked_gss;
	bool accept =
	    kind == PROTO_SSL_REQUEST && tls_can_accept(tls) && !s->stream.is_unix;

	if (*asked || s->stream.ssl != NULL) {
		session_close(s, "08P01", "encryption was asked for twice");
		return (len);
	}
	*asked = true;
	if (size < len) {
		/* What came in clear must not pass for what came under TLS (CVE-2021-23214). */
		session_close(
		    s, "08P01", "received unencrypted data after an encryption request");
		return (len);
	}
	stream_write(&s->stream, accept ? "S" : "N", 1);
	if (accept)
		stream_accept_tls(&s->stream, tls);
	return (size);
}

/* Answers a newer minor version and unknown protocol options. */
static int
note_option(void *arg, const char *name, const char *value)
{
	struct buf *names = arg;

	(void)value;
	if (strncmp(name, "_pq_.", 5) == 0)
		buf_add(names, &name, sizeof(name));
	return (0);
}

static void
startup_negotiate(struct session *s)
{
	const struct proto_startup *st = &s->login->startup;
	struct buf names = {0}, out = {0};

	(void)!proto_startup_each(st, note_option, &names);
	if (st->minor > 0 || names.len > 0) {
		proto_negotiate(&out, PROTO_V3, (const char *const *)(void *)names.mem,
		    names.len / sizeof(char *));
		stream_write(&s->stream, out.mem, out.len);
	}
	buf_free(&names);
	buf_free(&out);
}

bool
session_is_operator(const struct session *s)
{
	const struct proto_startup *st = &s->login->startup;

	return (s->addr.family == AF_UNIX && s->addr.of.peer.uid == getuid() &&
		topo_is_console(st->database) && topo_is_console(st->user));
}

static void
auth_passed(struct session *s)
{
	auth_server_free(s->login->auth);
	s->login->auth = NULL;
	s->user = pool_user(s->login->startup.user);
	if (topo_is_console(s->login->startup.database)) {
		if (session_key_may(s, s->login->startup.database))
			session_console_start(s);
	} else
		session_welcome(s);
}

static void
auth_failed(struct session *s, int fault, const char *reason)
{
	const char *user = s->login->startup.user;
	char *message;

	stat_count(M_logins_failed, 1);
	session_log(s, LOG_WARNING_, "login failed: %s%s",
	    s->login->bars != NULL ? "barred: " : "",
	    s->login->bars != NULL ? s->login->bars : reason);
	if (fault == F_AUTH_PROTOCOL) {
		session_close(s, fault_info(fault)->sqlstate, fault_info(fault)->text);
		return;
	}
	message = mem_printf("password authentication failed for user \"%s\"", user);
	session_close(s, fault_info(F_AUTH_PASSWORD)->sqlstate, message);
	free(message);
}

static void
auth_next(struct session *s, enum auth_step step, struct buf *out, int fault)
{
	const struct auth_server *auth = s->login->auth;

	if (out->len > 0)
		stream_write(&s->stream, out->mem, out->len);
	switch (step) {
	case AUTH_SEND:
		break;
	case AUTH_DONE:
		auth_passed(s);
		break;
	case AUTH_FAIL:
	default:
		auth_failed(
		    s, fault, auth != NULL ? auth_server_reason(auth) : "no such user");
		break;
	}
}

const char *
session_key_bars(const struct session *s, const struct topo_key *key)
{
	uint8_t addr[16] = {0};
	bool is_unix = s->addr.family == AF_UNIX;

	if (!is_unix)
		memcpy(addr, &s->addr.of,
		    s->addr.family == AF_INET ? sizeof(s->addr.of.v4)
					      : sizeof(s->addr.of.v6));
	return (topo_key_bars(key, is_unix ? 0 : s->addr.family, addr, clock_wall_us()));
}

/* What a key or a [login] section says; NULL: nothing does. */
static const struct topo_key *
rules_of(const struct topo_key *key, const struct topo_login *login)
{
	if (key != NULL)
		return (key);
	return (login != NULL ? login->rules : NULL);
}

static bool
asks_nothing(enum auth_type type)
{
	return (type == AUTH_TRUST || type == AUTH_ANY);
}

static void
auth_begin(struct session *s)
{
	const struct topo *topo = pool_worker(s->worker)->topo;
	const struct settings *set = topo_settings(topo);
	const char *user = s->login->startup.user;
	const struct topo_login *login = topo_login_find(topo, user);
	const struct topo_key *key = topo_key_find(topo, user);
	enum auth_type type = (enum auth_type)set->auth_type;
	const char *secret = login != NULL ? login->secret : NULL;
	struct buf out = {0};
	const struct topo_key *rules = rules_of(key, login);
	enum auth_step step;

	session_move(s, SESSION_AUTH);
	if (set->log_connections)
		session_log(s, LOG_INFO_, "login attempt: db=%s user=%s tls=%s",
		    s->login->startup.database, user,
		    s->stream.ssl != NULL ? "yes" : "no");
	if (session_is_operator(s)) {
		auth_passed(s);
		return;
	}
	if (rules != NULL)
		s->login->bars = session_key_bars(s, rules);
	/* Who opened it has proved it, but may have looked at an older snapshot. */
	if (s->login->is_inner && s->login->bars == NULL &&
	    (key != NULL || login != NULL)) {
		auth_passed(s);
		return;
	}
	/* A key always proves its secret. */
	if (key != NULL) {
		type = AUTH_SCRAM;
		secret = key->secret;
	}
	if (s->login->is_inner || (type == AUTH_TRUST && login == NULL) ||
	    (s->login->bars != NULL && asks_nothing(type))) {
		auth_failed(s, F_AUTH_PASSWORD, "no such user");
		return;
	}
	/* Who is barred has no secret, so that the exchange runs to the same end as with a
	 * wrong one. */
	step = auth_server_start(
	    &s->login->auth, type, user, s->login->bars == NULL ? secret : NULL, &out);
	if (key != NULL && s->login->bars == NULL)
		auth_server_also(s->login->auth, topo_key_former(key, clock_wall_us()));
	auth_next(s, step, &out, F_AUTH_PASSWORD);
	buf_free(&out);
}

static void
startup_client(struct session *s)
{
	const struct settings *set = pool_settings(s->worker);
	bool is_console = topo_is_console(s->login->startup.database);

	if (set->client_tls_sslmode >= SSL_REQUIRE && s->stream.ssl == NULL &&
	    !s->stream.is_unix) {
		session_close(s, "28000", "SSL required");
		return;
	}
	/* Who is to see what goes on always may. */
	if (s->login->is_surplus && !is_console) {
		stat_count(M_clients_refused, 1);
		session_close(s, fault_info(F_TOO_MANY_CLIENTS)->sqlstate,
		    fault_info(F_TOO_MANY_CLIENTS)->text);
		return;
	}
	/* Who came by the network was there before the port was closed. */
	if (session_doors_closed() && !is_console &&
	    (s->stream.is_unix || session_worker(s->worker)->is_draining)) {
		session_close(s, "57P03", "pooler is shutting down");
		return;
	}
	startup_negotiate(s);
	auth_begin(s);
}

/* Parses the packet that login->packet keeps for the rest of the login. */
static void
startup_packet(struct session *s)
{
	struct session_login *login = s->login;
	struct proto_startup *st = &login->startup;
	int fault = proto_startup_parse(login->packet.mem, login->packet.len, st);
	char message[128];

	if (fault == F_PROTO_VERSION) {
		snprintf(message, sizeof(message),
		    "unsupported frontend protocol %u.%u: server supports 3.0 to 3.0",
		    st->major, st->minor);
		session_close(s, "0A000", message);
	} else if (fault != 0)
		session_close(s, fault_info(fault)->sqlstate, fault_info(fault)->text);
	else if (st->kind == PROTO_CANCEL_REQUEST)
		session_cancel_order(s, st);
	else
		startup_client(s);
}

size_t
session_startup_bytes(struct session *s, const uint8_t *p, size_t len)
{
	struct proto_startup probe;
	ssize_t size;

	if (len < 4)
		return (0);
	size = proto_startup_size(p, len);
	if (size < 0) {
		session_close(s, fault_info(F_PROTO_STARTUP)->sqlstate,
		    fault_info(F_PROTO_STARTUP)->text);
		return (len);
	}
	if (len < (size_t)size)
		return (0);
	if (proto_startup_parse(p, (size_t)size, &probe) == 0 &&
	    (probe.kind == PROTO_SSL_REQUEST || probe.kind == PROTO_GSSENC_REQUEST))
		return (startup_encryption(s, probe.kind, (size_t)size, len));
	buf_add(&s->login->packet, p, (size_t)size);
	startup_packet(s);
	return (s->state == SESSION_CLOSED ? len : (size_t)size);
}

/* ---- passwords ---- */

#define PASSWORD_MAX 65536

size_t
session_auth_bytes(struct session *s, const uint8_t *p, size_t len)
{
	struct buf out = {0};
	int fault = F_AUTH_PASSWORD;
	enum auth_step step;
	uint32_t size;

	if (len < PROTO_HEAD)
		return (0);
	size = proto_get32(p + 1);
	if (p[0] != 'p' || size < 4 || size > PASSWORD_MAX) {
		session_close(
		    s, "08P01", p[0] == 'X' ? NULL : "expected a password message");
		return (len);
	}
	if (len < (size_t)size + 1)
		return (0);
	step = auth_server_feed(s->login->auth, p + PROTO_HEAD, size - 4, &out, &fault);
	auth_next(s, step, &out, fault);
	buf_free(&out);
	return (s->state == SESSION_CLOSED ? len : (size_t)size + 1);
}
