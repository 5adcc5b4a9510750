/* From the first byte of a client to its startup packet. */
#include "private.h"
#include <stdlib.h>
#include <string.h>

void
session_login_free(struct session *s)
{
	struct session_login *login = s->login;

	if (login == NULL)
		return;
	s->login = NULL;
	auth_server_free(login->auth);
	session_lookup_leave(login);
	session_peer_leave(login);
	pool_secret_release(login->shown);
	if (login->secret != NULL)
		mem_free_secret(login->secret, strlen(login->secret));
	free(login->system_user);
	vars_release(s->worker, login->want);
	buf_free(&login->own.params);
	buf_free(&login->packet);
	buf_free(&login->last_words);
	free(login);
}

void
session_login_said(struct session *s, struct buf *out)
{
	if (s->login == NULL)
		return;
	*out = s->login->last_words;
	s->login->last_words = (struct buf){0};
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

/* No message of the protocol begins with this byte, for none is so long. */
#define TLS_HANDSHAKE 0x16

static bool
startup_begins(const struct session *s)
{
	const struct session_login *login = s->login;

	return (s->stream.ssl == NULL && !login->has_asked_tls && !login->has_asked_gss &&
		!login->is_inner);
}

/* TLS without an SSLRequest before it (sslnegotiation=direct). Who is refused is told nothing:
 * it would not understand. */
static void
startup_direct(struct session *s, const uint8_t *p, size_t len)
{
	struct tls *tls = pool_worker(s->worker)->tls;

	if (!tls_can_accept(tls) || s->stream.is_unix) {
		session_end(s, "direct TLS connection, which is not offered here");
		return;
	}
	s->login->is_direct = true;
	stream_accept_tls_begun(&s->stream, tls, p, len);
}

void
session_startup_secured(struct session *s)
{
	if (s->login != NULL && s->login->is_direct && !stream_tls_has_alpn(&s->stream))
		session_end(s, "direct TLS connection without ALPN");
}

static int
note_option(void *arg, const char *name, const char *value)
{
	struct buf *names = arg;

	(void)value;
	if (strncmp(name, "_pq_.", 5) == 0)
		buf_add(names, &name, sizeof(name));
	return (0);
}

/* As PostgreSQL 18: a version later than ours comes down to ours, one before it is spoken (3.1,
 * which was never made, as 3.0), and what is asked of the protocol beyond that is named, for
 * there is nothing of that kind yet. */
static void
startup_negotiate(struct session *s)
{
	const struct proto_startup *st = &s->login->startup;
	uint32_t asked = (uint32_t)st->major << 16 | st->minor,
		 spoken = asked < PROTO_LATEST ? asked : PROTO_LATEST;
	struct buf names = {0}, out = {0};

	(void)!proto_startup_each(st, note_option, &names);
	if (asked > PROTO_LATEST || names.len > 0) {
		proto_negotiate(&out, spoken, (const char *const *)(void *)names.mem,
		    names.len / sizeof(char *));
		stream_write(&s->stream, out.mem, out.len);
	}
	if (spoken >= PROTO_V3_2)
		session_key_lengthen(s);
	buf_free(&names);
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
	if (!session_read_replication(s))
		return;
	startup_negotiate(s);
	session_prove(s);
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
		    "unsupported frontend protocol %u.%u: server supports 3.0 to 3.2",
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

	if (p[0] == TLS_HANDSHAKE && startup_begins(s)) {
		startup_direct(s, p, len);
		return (len);
	}
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
