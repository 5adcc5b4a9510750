/*
 * Who a client is:
 *
 *     auth_type, or the line of auth_hba_file that is for it
 *       -> a certificate, when that asks for one                          (proofs.c)
 *       -> its secret, when auth_file does not know it                    (lookup.c)
 *       -> the method: nothing, the certificate, the unix user, or an exchange of messages
 *
 * session_prove() goes this way from its beginning each time that something it had to wait for
 * has come: it holds nothing of a snapshot from one turn to the next. A key proves its secret
 * whatever the method; what a rule refuses it is refused to keys, too.
 */
#include "weave.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

bool
session_is_operator(const struct session *s)
{
	const struct proto_startup *st = &s->login->startup;

	return (s->addr.family == AF_UNIX && s->addr.of.peer.uid == getuid() &&
		topo_is_console(st->database) && topo_is_console(st->user));
}

static void
prove_passed(struct session *s)
{
	auth_server_free(s->login->auth);
	s->login->auth = NULL;
	s->user = pool_user(s->login->startup.user);
	if (topo_is_console(s->login->startup.database)) {
		if (session_key_may(s, s->login->startup.database)) {
			session_console_start(s);
			/* It may have been paused while something was looked up. */
			if (s->state == SESSION_CONSOLE)
				session_flow(s);
		}
	} else
		session_welcome(s);
}

void
session_unproven(
    struct session *s, const char *sqlstate, const char *message, const char *reason)
{
	stat_count(M_logins_failed, 1);
	session_log(s, LOG_WARNING_, "login failed: db=%s user=%s: %s",
	    s->login->startup.database, s->login->startup.user, reason);
	session_close(s, sqlstate, message);
}

/* What is said does not tell whether there is such a login. */
static void
prove_failed(struct session *s, enum auth_type method, int fault, const char *reason)
{
	const char *user = s->login->startup.user, *bars = s->login->bars;
	char *why = mem_printf(
	    "%s%s", bars != NULL ? "barred: " : "", bars != NULL ? bars : reason);
	char *message;

	if (fault != F_AUTH_PASSWORD) {
		session_unproven(
		    s, fault_info(fault)->sqlstate, fault_info(fault)->text, why);
		free(why);
		return;
	}
	message = mem_printf("%s authentication failed for user \"%s\"",
	    method == AUTH_CERT    ? "certificate"
	    : method == AUTH_PEER  ? "Peer"
	    : method == AUTH_TRUST ? "\"trust\""
				   : "password",
	    user);
	session_unproven(s,
	    method == AUTH_CERT || method == AUTH_PEER || method == AUTH_TRUST ? "28000"
									       : "28P01",
	    message, why);
	free(message);
	free(why);
}

/* ---- the exchange of messages ---- */

/* What the client has shown serves to log in at servers, too: the password itself, the key that
 * goes with a verifier, or a secret that is one in itself. Those of auth_file are known anyway. */
static void
keep_shown(struct session *s, const char *stored)
{
	const struct auth_server *auth = s->login->auth;
	const char *password = auth_server_password(auth);
	struct auth_keys keys;

	if (password != NULL)
		s->login->shown = pool_secret_create(stored, password, NULL);
	else if (auth_server_keys(auth, &keys))
		s->login->shown = pool_secret_create(stored, stored,
		    auth_secret_kind(stored) == SECRET_SCRAM ? &keys : NULL);
	else
		s->login->shown = pool_secret_create(stored, stored, NULL);
	explicit_bzero(&keys, sizeof(keys));
}

static struct auth_binding
binding_of(const struct session *s)
{
	struct auth_binding b = {.len = 0};

	b.len = stream_tls_end_point(&s->stream, true, b.data);
	return (b);
}

/* The secret that auth_file gives for the login; NULL: auth_file does not know it. What [users]
 * and [login x] say of it does not make it one that may log in. */
static const char *
filed_secret(const struct session *s, const struct topo *topo)
{
	const struct topo_login *login = topo_login_find(topo, s->login->startup.user);

	return (login != NULL ? login->secret : NULL);
}

static void
prove_next(struct session *s, enum auth_step step, struct buf *out, int fault)
{
	const struct auth_server *auth = s->login->auth;

	/* Who is in hears it with AuthenticationOk, as from PostgreSQL. */
	if (step == AUTH_DONE)
		buf_add(&s->login->last_words, out->mem, out->len);
	else if (out->len > 0)
		stream_write(&s->stream, out->mem, out->len);
	switch (step) {
	case AUTH_SEND:
		session_flow(s);
		break;
	case AUTH_DONE:
		prove_passed(s);
		break;
	case AUTH_FAIL:
	default:
		prove_failed(s, AUTH_PLAIN, fault,
		    auth != NULL ? auth_server_reason(auth) : "no such user");
		break;
	}
}

#define PASSWORD_MAX 65536

size_t
session_auth_bytes(struct session *s, const uint8_t *p, size_t len)
{
	struct buf out = {0};
	int fault = F_AUTH_PASSWORD;
	enum auth_step step;
	const char *stored;
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
	/* Not the one of the present snapshot: that may be new, and is not what was proven. */
	stored = auth_server_secret(s->login->auth);
	if (step == AUTH_DONE && stored != NULL &&
	    topo_key_find(pool_worker(s->worker)->topo, s->login->startup.user) == NULL)
		keep_shown(s, stored);
	prove_next(s, step, &out, fault);
	buf_free(&out);
	return (s->state == SESSION_CLOSED ? len : (size_t)size + 1);
}

/* ---- the way ---- */

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

/* No line of auth_hba_file is for this client, or one that rejects it. */
static void
refuse_by_rule(
    struct session *s, const struct topo_rule *rule, const struct topo_visit *v)
{
	char addr[ADDR_TEXT], *message, *where, *reason;

	addr_text(&s->addr, addr, sizeof(addr));
	where = v->is_replication ? mem_str("")
				  : mem_printf("database \"%s\", ", v->database);
	message = mem_printf("%s %shost \"%s\", user \"%s\", %s%s",
	    rule != NULL ? "pg_hba.conf rejects" : "no pg_hba.conf entry for",
	    v->is_replication ? "replication connection from "
	    : rule != NULL    ? "connection for "
			      : "",
	    v->family == 0 ? "[local]" : addr, v->user, where,
	    v->has_tls ? "SSL encryption" : "no encryption");
	reason = rule != NULL
		     ? mem_printf("login rejected by %s:%d", rule->at.file, rule->at.line)
		     : mem_str("login rejected: no line of auth_hba_file is for it");
	session_unproven(s, "28000", message, reason);
	free(message);
	free(where);
	free(reason);
}

static const struct topo_rule *
find_rule(struct session *s, const struct topo *topo, struct topo_visit *v)
{
	const struct proto_startup *st = &s->login->startup;
	const struct topo_virtual *virt;
	const char *member;

	*v = (struct topo_visit){
	    .family = s->addr.family == AF_UNIX ? 0 : s->addr.family,
	    .has_tls = s->stream.ssl != NULL,
	    .database = st->database,
	    .user = st->user,
	};
	if (v->family != 0)
		memcpy(v->addr, &s->addr.of,
		    v->family == AF_INET ? sizeof(s->addr.of.v4) : sizeof(s->addr.of.v6));
	/* One of a database is a client of it to the rules. */
	v->is_replication = s->replication == REPLICATION_PHYSICAL;
	virt = session_find_virtual(topo, st->database, &member);
	if (virt != NULL)
		v->virtual_ = virt->name;
	return (topo_rule_find(topo, v));
}

/* Who opened it over HTTP has shown a secret in clear, and nothing else. False: the rules refuse
 * that for this database, and the session is closed. */
static bool
inner_obeys(struct session *s, const struct topo *topo)
{
	const struct topo_rule *rule;
	struct topo_visit visit;

	if (topo_settings(topo)->auth_type != AUTH_HBA)
		return (true);
	rule = find_rule(s, topo, &visit);
	if (rule != NULL && rule->method != AUTH_REJECT && rule->method != AUTH_PEER &&
	    !rule->wants_cert)
		return (true);
	refuse_by_rule(s, rule, &visit);
	return (false);
}

/* How the login is to be proven. False: not at all, and the session is closed. */
static bool
find_proof(struct session *s, const struct topo *topo, struct proof *out)
{
	enum auth_type type = (enum auth_type)topo_settings(topo)->auth_type;
	const struct topo_rule *rule;
	struct topo_visit visit;

	*out = (struct proof){.method = type};
	out->wants_cert = out->wants_name = type == AUTH_CERT;
	if (type != AUTH_HBA)
		return (true);
	rule = find_rule(s, topo, &visit);
	if (rule == NULL || rule->method == AUTH_REJECT) {
		refuse_by_rule(s, rule, &visit);
		return (false);
	}
	*out = (struct proof){rule->method, rule->map, rule->wants_cert, rule->wants_name,
	    rule->by_subject};
	return (true);
}

/* A login that is there: it is let in, or its exchange begins. */
static void
prove_by(struct session *s, const struct proof *proof, bool is_known, const char *secret)
{
	struct session_login *login = s->login;
	enum auth_type method = proof->method;
	struct auth_binding binding;
	struct buf out = {0};
	enum auth_step step;

	if (method == AUTH_PEER && !login->knows_peer) {
		session_peer_ask(s);
		return;
	}
	if (method == AUTH_ANY || method == AUTH_TRUST || method == AUTH_CERT ||
	    method == AUTH_PEER) {
		if ((!is_known && method != AUTH_ANY) || login->bars != NULL)
			prove_failed(s, method, F_AUTH_PASSWORD, "no such user");
		else if (method == AUTH_PEER && !session_peer_proves(s, proof))
			prove_failed(s, method, F_AUTH_PASSWORD,
			    "the unix user may not log in under this name");
		else {
			if (login->secret != NULL &&
			    auth_secret_kind(login->secret) != SECRET_SCRAM)
				login->shown = pool_secret_create(
				    login->secret, login->secret, NULL);
			prove_passed(s);
		}
		return;
	}
	/* Who is barred has no secret, so that the exchange runs to the same end as with a
	 * wrong one. */
	binding = binding_of(s);
	step = auth_server_start_bound(&login->auth, method, login->startup.user,
	    login->bars == NULL ? secret : NULL, &binding, &out);
	prove_next(s, step, &out, F_AUTH_PASSWORD);
	buf_free(&out);
}

static void
prove_key(struct session *s, const struct topo_key *key)
{
	bool is_barred = s->login->bars != NULL;
	struct auth_binding binding = binding_of(s);
	struct buf out = {0};
	enum auth_step step = auth_server_start_bound(&s->login->auth, AUTH_SCRAM,
	    s->login->startup.user, is_barred ? NULL : key->secret, &binding, &out);

	if (!is_barred)
		auth_server_also(s->login->auth, topo_key_former(key, clock_wall_us()));
	prove_next(s, step, &out, F_AUTH_PASSWORD);
	buf_free(&out);
}

static void
prove_begin(struct session *s)
{
	session_move(s, SESSION_AUTH);
	if (pool_settings(s->worker)->log_connections)
		session_log(s, LOG_INFO_, "login attempt: db=%s user=%s tls=%s",
		    s->login->startup.database, s->login->startup.user,
		    s->stream.ssl != NULL ? "yes" : "no");
}

void
session_prove(struct session *s)
{
	const struct topo *topo = pool_worker(s->worker)->topo;
	const char *user = s->login->startup.user;
	const struct topo_login *login = topo_login_find(topo, user);
	const struct topo_key *key = topo_key_find(topo, user);
	const struct topo_key *rules = key != NULL     ? key
				       : login != NULL ? login->rules
						       : NULL;
	const char *filed = filed_secret(s, topo);
	struct proof proof;

	if (s->state == SESSION_STARTUP)
		prove_begin(s);
	if (session_is_operator(s)) {
		prove_passed(s);
		return;
	}
	s->login->bars = rules != NULL ? session_key_bars(s, rules) : NULL;
	if (s->login->is_inner) {
		/* Who opened it has proved it, but may have looked at an older snapshot. */
		if (s->login->bars != NULL || (key == NULL && filed == NULL))
			prove_failed(s, AUTH_PLAIN, F_AUTH_PASSWORD, "no such user");
		else if (inner_obeys(s, topo))
			prove_passed(s);
		return;
	}
	if (!find_proof(s, topo, &proof))
		return;
	if (proof.wants_cert && !session_cert_proves(s, &proof, key != NULL))
		return;
	if (key != NULL)
		prove_key(s, key);
	else if (filed == NULL && !s->login->has_looked && session_lookup_wanted(s))
		session_lookup(s);
	else
		prove_by(s, &proof, filed != NULL || s->login->is_found,
		    filed != NULL ? filed : s->login->secret);
}
