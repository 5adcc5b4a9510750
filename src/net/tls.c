/*
 * TLS by OpenSSL. The library reads and writes through a BIO whose two ends are buffers of
 * the worker: one recv() is decrypted record by record, and all records of one write leave
 * with one send().
 */
#include "tls.h"
#include "stream.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct tls {
	_Atomic unsigned refs;
	SSL_CTX *accept, *connect; /* NULL: TLS is disabled on that side */
	bool verify_name;          /* server_tls_sslmode = verify-full */
};

static _Thread_local char last_error[256];

static void
tls_note_error(const char *what)
{
	unsigned long e = ERR_get_error();
	const char *reason = e != 0 ? ERR_reason_error_string(e) : NULL;

	snprintf(last_error, sizeof(last_error), "%s%s%s", what, reason ? ": " : "",
	    reason ? reason : "");
	ERR_clear_error();
}

const char *
stream_tls_error(void)
{
	return (last_error);
}

/* ---- the BIO between OpenSSL and the worker's buffers ---- */

static int
bio_read(BIO *bio, char *to, int size)
{
	struct stream *s = BIO_get_data(bio);
	struct worker *w = s->worker;
	size_t have = w->wire_in_len - w->wire_in_at;

	BIO_clear_retry_flags(bio);
	if (have == 0) {
		BIO_set_retry_read(bio);
		return (-1);
	}
	if (have > (size_t)size)
		have = (size_t)size;
	memcpy(to, w->wire_in + w->wire_in_at, have);
	w->wire_in_at += have;
	return ((int)have);
}

static int
bio_write(BIO *bio, const char *from, int len)
{
	struct stream *s = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	buf_add(&s->worker->wire_out, from, (size_t)len);
	return (len);
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	return (cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP ? 1 : 0);
}

static BIO_METHOD *
bio_method(void)
{
	static BIO_METHOD *_Atomic method;
	BIO_METHOD *m = method, *none = NULL;

	if (m != NULL)
		return (m);
	m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "worker buffers");
	INVARIANT(m != NULL);
	BIO_meth_set_read(m, bio_read);
	BIO_meth_set_write(m, bio_write);
	BIO_meth_set_ctrl(m, bio_ctrl);
	if (!atomic_compare_exchange_strong(&method, &none, m)) {
		BIO_meth_free(m);
		m = none;
	}
	return (m);
}

static SSL *
tls_begin(struct stream *s, SSL_CTX *ctx)
{
	SSL *ssl = SSL_new(ctx);
	BIO *bio = BIO_new(bio_method());

	INVARIANT(ssl != NULL && bio != NULL);
	INVARIANT(s->in.len == 0 && s->ssl == NULL);
	BIO_set_data(bio, s);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	s->ssl = ssl;
	s->is_shaking = true;
	return (ssl);
}

void
stream_accept_tls(struct stream *s, struct tls *tls)
{
	SSL_set_accept_state(tls_begin(s, tls->accept));
	s->has_more = true;
}

void
stream_accept_tls_begun(struct stream *s, struct tls *tls, const uint8_t *p, size_t len)
{
	struct worker *w = s->worker;
	enum tls_step step;

	INVARIANT(len <= NET_READ_BYTES);
	SSL_set_accept_state(tls_begin(s, tls->accept));
	if (w->wire_in == NULL)
		w->wire_in = mem_alloc(NET_READ_BYTES);
	memcpy(w->wire_in, p, len);
	w->wire_in_len = len;
	w->wire_in_at = 0;
	step = tls_shake(s);
	stream_send_records(s);
	if (step == TLS_STEP_FAILED)
		stream_send_failed(s, -1);
}

bool
stream_tls_has_alpn(const struct stream *s)
{
	const unsigned char *name = NULL;
	unsigned len = 0;

	if (s->ssl != NULL)
		SSL_get0_alpn_selected(s->ssl, &name, &len);
	return (len > 0);
}

/* Who offers protocols must offer PostgreSQL's: what is meant for a server of another kind is
 * not to be taken for a client (ALPACA). */
static int
tls_choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
    const unsigned char *in, unsigned in_len, void *arg)
{
	static const unsigned char ours[] = "\x0apostgresql";
	unsigned char *chosen;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return (SSL_TLSEXT_ERR_ALERT_FATAL);
	*out = chosen;
	return (SSL_TLSEXT_ERR_OK);
}

void
stream_connect_tls(struct stream *s, struct tls *tls, const char *name)
{
	SSL *ssl = tls_begin(s, tls->connect);
	struct in6_addr ip;

	SSL_set_connect_state(ssl);
	if (name != NULL && name[0] != '/') {
		bool is_ip = inet_pton(AF_INET, name, &ip) == 1 ||
			     inet_pton(AF_INET6, name, &ip) == 1;

		if (!is_ip)
			SSL_set_tlsext_host_name(ssl, name);
		if (tls->verify_name && is_ip)
			X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
		else if (tls->verify_name)
			SSL_set1_host(ssl, name);
	}
	s->worker->wire_in_len = s->worker->wire_in_at = 0;
	if (tls_shake(s) == TLS_STEP_FAILED)
		stream_send_failed(s, -1);
	else
		stream_send_records(s);
}

static enum tls_step
tls_result(SSL *ssl, int n, const char *what)
{
	long verify;

	switch (SSL_get_error(ssl, n)) {
	case SSL_ERROR_WANT_READ:
		return (TLS_STEP_MORE);
	case SSL_ERROR_ZERO_RETURN:
		return (TLS_STEP_END);
	default:
		verify = SSL_get_verify_result(ssl);
		tls_note_error(what);
		if (verify != X509_V_OK)
			snprintf(last_error, sizeof(last_error), "%s: %s", what,
			    X509_verify_cert_error_string(verify));
		return (TLS_STEP_FAILED);
	}
}

enum tls_step
tls_shake(struct stream *s)
{
	int n;

	ERR_clear_error();
	n = SSL_do_handshake(s->ssl);
	return (n == 1 ? TLS_STEP_DONE : tls_result(s->ssl, n, "TLS handshake failed"));
}

enum tls_step
tls_decrypt(struct stream *s, uint8_t *to, size_t *len)
{
	size_t room = *len, got = 0, n;
	enum tls_step step = TLS_STEP_MORE;

	ERR_clear_error();
	for (;;) {
		int ok = SSL_read_ex(s->ssl, to + got, room - got, &n);

		if (!ok) {
			step = tls_result(s->ssl, ok, "TLS read failed");
			break;
		}
		got += n;
		INVARIANT(got < room);
	}
	*len = got;
	return (step);
}

bool
tls_encrypt(struct stream *s, const void *p, size_t len)
{
	size_t n = 0;

	ERR_clear_error();
	if (SSL_write_ex(s->ssl, p, len, &n) != 1) {
		tls_note_error("TLS write failed");
		return (false);
	}
	/* The BIO takes everything, so nothing is ever left over. */
	INVARIANT(n == len);
	return (true);
}

void
tls_close(struct stream *s)
{
	ERR_clear_error();
	SSL_shutdown(s->ssl);
	ERR_clear_error();
}

void
stream_tls_text(const struct stream *s, char *out, size_t size)
{
	if (s->ssl == NULL)
		out[0] = '\0';
	else
		snprintf(out, size, "%s/%s", SSL_get_version(s->ssl),
		    SSL_get_cipher_name(s->ssl));
}

const char *
net_tls_version(void)
{
	return (OpenSSL_version(OPENSSL_VERSION));
}

/* ---- contexts ---- */

/* One side's settings, under names without the side. */
struct side {
	const char *name; /* "client_tls" */
	int mode;
	const char *ca, *cert, *key, *protocols, *ciphers, *ciphers13, *curve, *dh;
	bool accepts;
};

static const struct {
	const char *word;
	int version;
} protocol_table[] = {
    {"tlsv1.0", TLS1_VERSION},
    {"tlsv1.1", TLS1_1_VERSION},
    {"tlsv1.2", TLS1_2_VERSION},
    {"tlsv1.3", TLS1_3_VERSION},
};

/* "secure", "all", "legacy", or a list of versions: the span from the lowest to the highest. */
static bool
ctx_set_protocols(SSL_CTX *ctx, const char *list)
{
	int low = 0, high = 0;
	char *copy, *word, *at;

	if (list[0] == '\0' || strcasecmp(list, "secure") == 0 ||
	    strcasecmp(list, "default") == 0)
		return (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
	if (strcasecmp(list, "all") == 0 || strcasecmp(list, "legacy") == 0)
		return (SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION) == 1);
	copy = mem_str(list);
	for (word = strtok_r(copy, ", \t", &at); word != NULL;
	     word = strtok_r(NULL, ", \t", &at)) {
		int version = 0;

		for (size_t i = 0; i < ARRAY_LEN(protocol_table); i++)
			if (strcasecmp(word, protocol_table[i].word) == 0)
				version = protocol_table[i].version;
		if (version == 0) {
			free(copy);
			return (false);
		}
		if (low == 0 || version < low)
			low = version;
		if (version > high)
			high = version;
	}
	free(copy);
	return (SSL_CTX_set_min_proto_version(ctx, low) == 1 &&
		SSL_CTX_set_max_proto_version(ctx, high) == 1);
}

static const char *
cipher_list(const char *word)
{
	if (word[0] == '\0' || strcasecmp(word, "default") == 0 ||
	    strcasecmp(word, "secure") == 0 || strcasecmp(word, "fast") == 0)
		return ("HIGH:MEDIUM:+3DES:!aNULL");
	if (strcasecmp(word, "normal") == 0 || strcasecmp(word, "all") == 0 ||
	    strcasecmp(word, "compat") == 0)
		return ("ALL:!aNULL");
	return (word);
}

/* Of a certificate and a key, each of which can be read, but which do not go together. */
static bool
is_unpaired(unsigned long e)
{
	int lib = ERR_GET_LIB(e), reason = ERR_GET_REASON(e);

	return ((lib == ERR_LIB_X509 && (reason == X509_R_KEY_VALUES_MISMATCH ||
					    reason == X509_R_KEY_TYPE_MISMATCH)) ||
		(lib == ERR_LIB_SSL && reason == SSL_R_NO_CERTIFICATE_ASSIGNED));
}

static bool
ctx_set_files(SSL_CTX *ctx, const struct side *side, const char **what)
{
	*what = "cert_file";
	if (side->cert[0] != '\0' &&
	    SSL_CTX_use_certificate_chain_file(ctx, side->cert) != 1)
		return (false);
	*what = "key_file";
	if (side->key[0] != '\0' &&
	    (SSL_CTX_use_PrivateKey_file(ctx, side->key, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(ctx) != 1))
		return (false);
	*what = "ca_file";
	if (side->ca[0] != '\0') {
		STACK_OF(X509_NAME) * names;

		if (SSL_CTX_load_verify_locations(ctx, side->ca, NULL) != 1)
			return (false);
		if (side->accepts && (names = SSL_load_client_CA_file(side->ca)) != NULL)
			SSL_CTX_set_client_CA_list(ctx, names);
	} else if (side->mode >= SSL_VERIFY_CA && !side->accepts)
		SSL_CTX_set_default_verify_paths(ctx);
	return (true);
}

static bool
ctx_set_ciphers(SSL_CTX *ctx, const struct side *side, const char **what)
{
	*what = "protocols";
	if (!ctx_set_protocols(ctx, side->protocols))
		return (false);
	*what = "ciphers";
	if (SSL_CTX_set_cipher_list(ctx, cipher_list(side->ciphers)) != 1)
		return (false);
	*what = "ciphers (TLS 1.3)";
	if (side->ciphers13[0] != '\0' &&
	    SSL_CTX_set_ciphersuites(ctx, side->ciphers13) != 1)
		return (false);
	*what = "ecdhcurve";
	if (side->curve[0] != '\0' && strcasecmp(side->curve, "none") != 0 &&
	    strcasecmp(side->curve, "auto") != 0 &&
	    SSL_CTX_set1_groups_list(ctx, side->curve) != 1)
		return (false);
	*what = "dheparams";
	if (side->dh[0] != '\0' && strcasecmp(side->dh, "none") != 0)
		SSL_CTX_set_dh_auto(ctx, 1);
	return (true);
}

static SSL_CTX *
ctx_create(const struct side *side, bool *unpaired, char *why, size_t why_len)
{
	SSL_CTX *ctx;
	const char *what = "";

	if (side->accepts && (side->cert[0] == '\0' || side->key[0] == '\0')) {
		snprintf(why, why_len, "%s_sslmode needs %s_key_file and %s_cert_file",
		    side->name, side->name, side->name);
		return (NULL);
	}
	ctx = SSL_CTX_new(side->accepts ? TLS_server_method() : TLS_client_method());
	INVARIANT(ctx != NULL);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
				     SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
				     SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(ctx, 1);
	if (!ctx_set_ciphers(ctx, side, &what) || !ctx_set_files(ctx, side, &what)) {
		*unpaired = is_unpaired(ERR_peek_error());
		tls_note_error(what);
		snprintf(why, why_len, "%s_%s", side->name, last_error);
		SSL_CTX_free(ctx);
		return (NULL);
	}
	if (side->accepts)
		SSL_CTX_set_alpn_select_cb(ctx, tls_choose_alpn, NULL);
	if (side->accepts && side->mode >= SSL_VERIFY_CA)
		SSL_CTX_set_verify(
		    ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	else if (side->accepts && side->ca[0] != '\0')
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, tls_note_verdict);
	else if (!side->accepts && side->mode >= SSL_VERIFY_CA)
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	return (ctx);
}

struct tls *
tls_create(const struct settings *set, bool *unpaired, char *why, size_t why_len)
{
	struct tls *tls = mem_alloc(sizeof(*tls));
	struct side accept = {"client_tls", set->client_tls_sslmode,
	    set->client_tls_ca_file, set->client_tls_cert_file, set->client_tls_key_file,
	    set->client_tls_protocols, set->client_tls_ciphers, set->client_tls13_ciphers,
	    set->client_tls_ecdhcurve, set->client_tls_dheparams, true};
	struct side connect = {"server_tls", set->server_tls_sslmode,
	    set->server_tls_ca_file, set->server_tls_cert_file, set->server_tls_key_file,
	    set->server_tls_protocols, set->server_tls_ciphers, set->server_tls13_ciphers,
	    "", "", false};

	*unpaired = false;
	tls->refs = 1;
	tls->verify_name = connect.mode == SSL_VERIFY_FULL;
	if ((accept.mode != SSL_DISABLE &&
		(tls->accept = ctx_create(&accept, unpaired, why, why_len)) == NULL) ||
	    (connect.mode != SSL_DISABLE &&
		(tls->connect = ctx_create(&connect, unpaired, why, why_len)) == NULL)) {
		tls_release(tls);
		return (NULL);
	}
	return (tls);
}

struct tls *
tls_hold(struct tls *tls)
{
	tls->refs++;
	return (tls);
}

void
tls_release(struct tls *tls)
{
	if (tls == NULL || --tls->refs > 0)
		return;
	SSL_CTX_free(tls->accept);
	SSL_CTX_free(tls->connect);
	free(tls);
}

bool
tls_can_accept(const struct tls *tls)
{
	return (tls->accept != NULL);
}

bool
tls_can_connect(const struct tls *tls)
{
	return (tls->connect != NULL);
}
