/*
 * How a link comes up: name -> socket -> TLS -> startup packet -> authentication ->
 * parameters and key -> ReadyForQuery -> connect_query.
 */
#include "private.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_TIMEOUT "connect timeout"
#define UNRESOLVED      "cannot resolve "

struct link_login {
	const struct topo *topo; /* held: host and database are its */
	const struct topo_database *database;
	const char *host;
	char *dbname, *role;
	struct buf own; /* what its one client asked for, as in struct link_own */
	struct resolve *resolve;
	struct resolved *addresses; /* of the host; NULL: not known yet */
	unsigned next;              /* of them, to be tried */
	struct auth_client *auth;
	bool is_connected;
	bool asked_tls;   /* SSLRequest is sent, its one byte not come */
	bool is_complete; /* ReadyForQuery came; connect_query runs */
	bool is_doomed;   /* on the list for the end of the turn */
	char
	    *doom; /* why it failed before link_open() returned; NULL: the next address */
	struct link *link;
	TAILQ_ENTRY(link_login) doomed;
};

void
link_login_failed(struct link *l, int fault, const struct proto_error_fields *error,
    const char *fmt, ...)
{
	const char *reason;
	char why[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	reason = why;
	/* PgBouncer's reasons; why comes before. */
	if (error != NULL) {
		log_warning("S-%#" PRIx64 ": %s server login failed: %s %s (%s)", l->id,
		    l->name, error->severity, why, error->sqlstate);
		reason = "login failed";
	} else if (fault == F_LINK_CONNECT && strcmp(why, CONNECT_TIMEOUT) != 0) {
		log_warning("S-%#" PRIx64 ": %s cannot connect: %s", l->id, l->name, why);
		reason = strncmp(why, UNRESOLVED, sizeof(UNRESOLVED) - 1) == 0
			     ? "server DNS lookup failed"
			     : "connect failed";
	}
	link_close(l, reason);
	l->keeper->failed(l, fault, why, error);
}

/* Failing must not happen under link_open(), whose caller does not have the link yet: the end
 * of the turn tells the keeper. */
static void
login_doom(struct link *l, const char *why)
{
	if (l->login->is_doomed)
		return;
	l->login->is_doomed = true;
	l->login->doom = why != NULL ? mem_str(why) : NULL;
	TAILQ_INSERT_TAIL(&link_worker(l->worker)->doomed, l->login, doomed);
}

static void login_connect(struct link *);

bool
link_login_next(struct link *l, const char *why)
{
	struct link_login *login = l->login;

	if (login->addresses == NULL || login->is_connected ||
	    login->next >= login->addresses->count)
		return (false);
	log_info("S-%#" PRIx64 ": %s connect failed: %s; trying the next address", l->id,
	    l->name, why);
	/* Its stream may be on the stack: the end of the turn goes on. */
	stream_close(&l->stream);
	login_doom(l, NULL);
	return (true);
}

void
link_login_turn(struct worker *w)
{
	struct link_login *login,
	    *last = TAILQ_LAST(&link_worker(w)->doomed, doomed_list);
	bool is_last = false;

	/* Not those that fail while we tell: their turn comes with the next one, at the latest
	 * with the next tick. */
	while (!is_last && (login = TAILQ_FIRST(&link_worker(w)->doomed)) != NULL) {
		is_last = login == last;
		if (login->doom == NULL) {
			TAILQ_REMOVE(&link_worker(w)->doomed, login, doomed);
			login->is_doomed = false;
			login_connect(login->link);
		} else
			link_login_failed(
			    login->link, F_LINK_CONNECT, NULL, "%s", login->doom);
	}
}

void
link_login_free(struct link *l)
{
	struct link_login *login = l->login;

	if (login == NULL)
		return;
	l->login = NULL;
	if (login->resolve != NULL)
		resolve_cancel(login->resolve);
	if (login->is_doomed)
		TAILQ_REMOVE(&link_worker(l->worker)->doomed, login, doomed);
	auth_client_free(login->auth);
	topo_release(login->topo);
	free(login->addresses);
	free(login->doom);
	free(login->dbname);
	free(login->role);
	buf_free(&login->own);
	free(login);
}

/* To the next address that can be tried at all. */
static void
login_connect(struct link *l)
{
	struct link_login *login = l->login;
	const struct resolved *r = login->addresses;
	const char *why = "no address";

	while (login->next < r->count) {
		const struct sockaddr *sa =
		    (const struct sockaddr *)&r->at[login->next].sa;
		socklen_t len = r->at[login->next++].len;

		memcpy(&l->peer, sa, len);
		l->peer_len = len;
		addr_from_socket(&l->remote, sa, -1);
		if (stream_connect(&l->stream, l->worker, sa, len,
			topo_settings(login->topo), &link_stream_ops) == 0)
			return;
		why = strerror(errno);
	}
	login_doom(l, why);
}

static void
login_resolved(void *arg, const struct resolved *found, const char *err)
{
	struct link *l = arg;
	struct link_login *login = l->login;
	char why[320];

	login->resolve = NULL;
	if (err != NULL) {
		snprintf(why, sizeof(why), UNRESOLVED "\"%.200s\": %s", login->host, err);
		login_doom(l, why);
		return;
	}
	login->addresses = mem_alloc(sizeof(*found));
	*login->addresses = *found;
	login_connect(l);
}

void
link_login_start(struct link *l, const struct link_target *t)
{
	struct link_login *login = mem_alloc(sizeof(*login));
	const struct topo_host *host = &t->database->hosts[t->host];

	l->login = login;
	login->link = l;
	login->topo = topo_hold(t->topo);
	login->database = t->database;
	login->host = host->host;
	login->dbname = mem_str(t->dbname);
	login->role = mem_str(t->role);
	login->auth = auth_client_create(t->role, t->secret);
	if (t->own != NULL)
		buf_add(&login->own, t->own->params.mem, t->own->params.len);
	if (t->keys != NULL)
		auth_client_keys(login->auth, t->keys);
	login->resolve = resolve_start(
	    l->worker, topo_settings(t->topo), host->host, host->port, login_resolved, l);
}

void
link_login_expire(struct link *l)
{
	link_login_failed(l, F_LINK_CONNECT, NULL, CONNECT_TIMEOUT);
}

/* ---- what we say ---- */

struct startup_params {
	const char *(*list)[2];
	size_t count;
};

/* What the client says comes before what is configured. */
static int
login_own_param(void *arg, const char *name, const char *value)
{
	struct startup_params *p = arg;

	for (size_t i = 0; i < p->count; i++)
		if (strcasecmp(p->list[i][0], name) == 0) {
			p->list[i][1] = value;
			return (0);
		}
	p->list = mem_realloc(p->list, (p->count + 1) * sizeof(p->list[0]));
	p->list[p->count][0] = name;
	p->list[p->count++][1] = value;
	return (0);
}

static void
login_startup(struct link *l)
{
	struct link_login *login = l->login;
	const struct topo_database *db = login->database;
	const struct proto_startup own = {
	    .params = (const char *)login->own.mem, .params_len = login->own.len};
	struct proto_startup head = {.kind = PROTO_STARTUP,
	    .major = 3,
	    .minor = 0,
	    .user = login->role,
	    .database = login->dbname};
	struct startup_params params = {
	    .list = mem_alloc((db->param_count + 1) * sizeof(params.list[0])),
	    .count = db->param_count};
	struct buf out = {0};

	for (size_t i = 0; i < db->param_count; i++) {
		params.list[i][0] = db->params[i].name;
		params.list[i][1] = db->params[i].value;
	}
	(void)!proto_startup_each(&own, login_own_param, &params);
	link_move(l, LINK_LOGIN);
	proto_startup(&out, &head, (const char *const(*)[2])params.list, params.count);
	stream_write(&l->stream, out.mem, out.len);
	buf_free(&out);
	free(params.list);
}

void
link_login_connected(struct link *l)
{
	struct link_login *login = l->login;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char local[ADDR_TEXT];
	struct buf out = {0};

	login->is_connected = true;
	if (getsockname(l->stream.fd, (struct sockaddr *)&ss, &len) == 0)
		addr_from_socket(&l->local, (struct sockaddr *)&ss, -1);
	addr_text(&l->local, local, sizeof(local));
	if (link_worker(l->worker)->logs_connections)
		log_info("S-%#" PRIx64 ": %s new connection to server (from %s:%u)",
		    l->id, l->name, local, l->local.port);
	if (l->tls == NULL || !tls_can_connect(l->tls) || l->stream.is_unix) {
		login_startup(l);
		return;
	}
	login->asked_tls = true;
	proto_ssl_request(&out);
	stream_write(&l->stream, out.mem, out.len);
	buf_free(&out);
}

void
link_login_secured(struct link *l)
{
	struct auth_binding binding;

	binding.len = stream_tls_end_point(&l->stream, false, binding.data);
	auth_client_bind(l->login->auth, &binding);
	login_startup(l);
}

/* The server's one byte: S, or N, or the E of a server that knows no TLS. */
static size_t
login_tls_answer(struct link *l, const uint8_t *p, size_t len)
{
	struct link_login *login = l->login;
	int mode = topo_settings(login->topo)->server_tls_sslmode;

	login->asked_tls = false;
	if (p[0] == 'S' && len == 1) {
		stream_connect_tls(&l->stream, l->tls, login->host);
		return (len);
	}
	if (p[0] == 'S')
		link_login_failed(l, F_LINK_PROTOCOL, NULL,
		    "the server sent bytes in clear behind its answer to the SSLRequest");
	else if (mode >= SSL_REQUIRE)
		link_login_failed(l, F_LINK_CONNECT, NULL,
		    "the server does not offer TLS, which server_tls_sslmode asks for");
	else if (p[0] == 'N' && len == 1)
		login_startup(l);
	else
		link_login_failed(
		    l, F_LINK_PROTOCOL, NULL, "unexpected answer to the SSLRequest");
	return (len);
}

/* ---- what the server says ---- */

static void
login_authenticate(struct link *l, const uint8_t *body, size_t len)
{
	struct buf out = {0};
	const uint8_t *data;
	size_t data_len;
	uint32_t code;
	char why[256];

	if (proto_auth_parse(body, len, &code, &data, &data_len) != 0) {
		link_login_failed(
		    l, F_LINK_PROTOCOL, NULL, "malformed authentication request");
		return;
	}
	switch (auth_client_feed(
	    l->login->auth, code, data, data_len, &out, why, sizeof(why))) {
	case AUTH_SEND:
	case AUTH_DONE:
		if (out.len > 0)
			stream_write(&l->stream, out.mem, out.len);
		break;
	case AUTH_FAIL:
	default:
		link_login_failed(l, F_LINK_LOGIN, NULL, "%s", why);
		break;
	}
	if (out.mem != NULL)
		explicit_bzero(out.mem, out.cap);
	buf_free(&out);
}

/* target_session_attrs: false when the server is another one, or does not say. */
static bool
login_is_wanted(const struct link *l)
{
	const char *standby = vars_get(l->vars, "in_hot_standby");
	const char *read_only = vars_get(l->vars, "default_transaction_read_only");
	bool is_standby = standby != NULL && strcmp(standby, "on") == 0;
	bool is_read_only = read_only != NULL && strcmp(read_only, "on") == 0;

	switch ((enum session_attrs)l->login->database->session_attrs) {
	case ATTRS_READ_WRITE:
		return (
		    standby != NULL && read_only != NULL && !is_standby && !is_read_only);
	case ATTRS_READ_ONLY:
		return (is_standby || is_read_only);
	case ATTRS_PRIMARY:
		return (standby != NULL && !is_standby);
	case ATTRS_STANDBY:
		return (is_standby);
	case ATTRS_ANY:
	default:
		return (true);
	}
}

static void
login_complete(struct link *l)
{
	if (!login_is_wanted(l)) {
		link_login_failed(l, F_LINK_LOGIN, NULL,
		    "the server is not what target_session_attrs asks for");
		return;
	}
	link_login_free(l);
	link_owner_add(l);
	l->born = vars_hold(l->vars);
	l->request_us = clock_us();
	l->keeper->ready(l);
}

static void
login_connect_query_ran(struct link *l, void *arg, const struct proto_error_fields *error)
{
	(void)arg;
	if (error != NULL)
		link_login_failed(
		    l, F_LINK_LOGIN, error, "connect_query failed: %s", error->message);
	else if (l->txn != 'I')
		link_login_failed(
		    l, F_LINK_LOGIN, NULL, "connect_query leaves a transaction open");
	else
		login_complete(l);
}

static void
login_ready(struct link *l, char status)
{
	/* A walsender of the cluster knows no SQL. */
	const char *query = l->replication == REPLICATION_PHYSICAL
				? NULL
				: l->login->database->connect_query;

	l->txn = status;
	l->login->is_complete = true;
	if (query == NULL) {
		link_move(l, LINK_IDLE);
		login_complete(l);
	} else
		link_run(l, query, login_connect_query_ran, NULL);
}

static void
login_refused(struct link *l, const uint8_t *body, size_t len)
{
	struct proto_error_fields error;

	if (proto_error_parse(body, len, &error) != 0)
		link_login_failed(l, F_LINK_PROTOCOL, NULL, "malformed ErrorResponse");
	else
		link_login_failed(l, F_LINK_LOGIN, &error, "%s", error.message);
}

static void
login_key(struct link *l, const uint8_t *body, size_t len)
{
	const uint8_t *key;
	size_t key_len;

	if (proto_backend_key_parse(body, len, &l->pid, &key, &key_len) != 0 ||
	    l->key != NULL) {
		link_login_failed(l, F_LINK_PROTOCOL, NULL, "malformed BackendKeyData");
		return;
	}
	l->key = mem_alloc(key_len);
	memcpy(l->key, key, key_len);
	l->key_len = (uint16_t)key_len;
}

static void
login_message(struct link *l, char type, const uint8_t *body, size_t len)
{
	switch (type) {
	case 'R':
		login_authenticate(l, body, len);
		break;
	case 'K':
		login_key(l, body, len);
		break;
	case 'E':
		login_refused(l, body, len);
		break;
	case 'Z':
		if (len == 1 && body[0] == 'I') {
			login_ready(l, (char)body[0]);
			break;
		}
		link_login_failed(l, F_LINK_PROTOCOL, NULL, "malformed ReadyForQuery");
		break;
	default:
		/* NegotiateProtocolVersion cannot come: 3.0 without options was asked for. */
		if (!link_note_async(l, type, body, len))
			link_login_failed(l, F_LINK_PROTOCOL, NULL,
			    "unexpected message '%c' during login", type);
		break;
	}
}

size_t
link_login_bytes(struct link *l, const uint8_t *p, size_t len)
{
	size_t used = 0;

	if (l->login->asked_tls)
		return (login_tls_answer(l, p, len));
	if (l->state != LINK_LOGIN) {
		link_login_failed(
		    l, F_LINK_PROTOCOL, NULL, "unexpected bytes before login");
		return (len);
	}
	while (used < len && l->state == LINK_LOGIN) {
		ssize_t n = link_message_size(p + used, len - used, NET_READ_BYTES);

		if (n == 0)
			return (used);
		if (n < 0) {
			link_login_failed(l, F_LINK_PROTOCOL, NULL,
			    "message of an impossible length during login");
			return (len);
		}
		login_message(
		    l, (char)p[used], p + used + PROTO_HEAD, (size_t)n - PROTO_HEAD);
		used += (size_t)n;
	}
	/* Idle now, or running connect_query: whoever reads next gets the rest. */
	if (used < len && l->state != LINK_CLOSED)
		stream_resume(&l->stream);
	return (l->state == LINK_CLOSED ? len : used);
}
