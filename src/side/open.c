/*
 * How a side connection comes up and ends: each host of the database in turn: name, socket,
 * TLS and login, the last three by libpq.
 */
#include "private.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where no file is given: libpq must not find one in somebody's home directory. */
#define NO_FILE   "/nonexistent"
#define SYSTEM_CA "/etc/ssl/certs/ca-certificates.crt"

/* ---- words ---- */

/* "connection to server at … failed: FATAL:  …" to what comes behind. */
static const char *
error_skip_place(const char *message)
{
	static const char place[] = "connection to server ", failed[] = " failed: ";
	static const char *const severities[] = {"FATAL:  ", "ERROR:  ", "PANIC:  "};
	const char *end = strchr(message, '\n'), *at;

	if (strncmp(message, place, sizeof(place) - 1) == 0) {
		at = strstr(message, failed);
		if (at != NULL && (end == NULL || at < end))
			message = at + sizeof(failed) - 1;
	}
	for (size_t i = 0; i < ARRAY_LEN(severities); i++) {
		size_t len = strlen(severities[i]);

		if (strncmp(message, severities[i], len) == 0)
			return (message + len);
	}
	return (message);
}

void
side_error_text(const char *message, char *out, size_t size)
{
	size_t len;

	message = message != NULL ? error_skip_place(message) : "";
	len = strcspn(message, "\r\n");
	if (len == 0) {
		message = "connection failed";
		len = strlen(message);
	}
	snprintf(out, size, "%.*s", (int)len, message);
	/* "Connection refused" to "connection refused"; "SSL error" stays. */
	if (out[0] != '\0' && islower((unsigned char)out[1]))
		out[0] = (char)tolower((unsigned char)out[0]);
}

static void
side_notice(void *arg, const char *message)
{
	struct side *s = arg;
	char text[SIDE_ERROR];

	side_error_text(message, text, sizeof(text));
	log_debug("side: %s: %s", s->database->name, text);
}

/* ---- events ---- */

static void side_io(evutil_socket_t fd, short what, void *arg);

void
side_watch(struct side *s, short what)
{
	if (s->watched == what)
		return;
	if (s->watched != 0)
		event_del(&s->io);
	s->watched = what;
	if (what == 0)
		return;
	event_assign(&s->io, s->worker->base, PQsocket(s->conn),
	    (short)(what | EV_PERSIST), side_io, s);
	INVARIANT(event_add(&s->io, NULL) == 0);
}

void
side_clock(struct side *s, int64_t timeout_us)
{
	struct timeval tv = {.tv_sec = (time_t)(timeout_us / 1000000),
	    .tv_usec = (suseconds_t)(timeout_us % 1000000)};

	if (timeout_us > 0)
		INVARIANT(event_add(&s->timer, &tv) == 0);
	else
		event_del(&s->timer);
}

void
side_kick(struct side *s)
{
	event_active(&s->kick, EV_TIMEOUT, 1);
}

void
side_drop(struct side *s)
{
	side_watch(s, 0);
	side_clock(s, 0);
	if (s->resolve != NULL) {
		resolve_cancel(s->resolve);
		s->resolve = NULL;
	}
	if (s->conn != NULL) {
		PQfinish(s->conn);
		s->conn = NULL;
	}
	s->is_flushing = false;
}

/* ---- a host ---- */

/* The next host's turn, or the end, comes with the kick. */
static void
host_failed(struct side *s, const char *why)
{
	(void)text_copy(s->err, sizeof(s->err), why);
	side_drop(s);
	s->host++;
	side_kick(s);
}

static void
host_failed_libpq(struct side *s)
{
	char why[SIDE_ERROR];

	side_error_text(PQerrorMessage(s->conn), why, sizeof(why));
	host_failed(s, why);
}

/* Of auth_file: other than a password. */
static bool
is_verifier(const char *secret)
{
	return (strncmp(secret, "SCRAM-SHA-256$", 14) == 0 ||
		(strncmp(secret, "md5", 3) == 0 && strlen(secret) == 35));
}

static const char *
side_secret(const struct topo *topo, const struct topo_database *db)
{
	const struct topo_login *login;

	if (db->password != NULL)
		return (db->password);
	login = topo_login_find(topo, db->user);
	return (login != NULL ? login->secret : NULL);
}

bool
side_can_login(const struct topo *topo, const struct topo_database *db)
{
	const char *secret;

	if (db->user == NULL)
		return (false);
	secret = side_secret(topo, db);
	return (secret == NULL || db->password != NULL || !is_verifier(secret));
}

static const char *
side_password(const struct topo *topo, const struct topo_database *db)
{
	return (side_can_login(topo, db) ? side_secret(topo, db) : NULL);
}

static const char *
root_file(const struct settings *set)
{
	const char *file = X509_get_default_cert_file();

	if (set->server_tls_ca_file[0] != '\0')
		return (set->server_tls_ca_file);
	if (set->server_tls_sslmode < SSL_VERIFY_CA)
		return (NO_FILE);
	return (access(file, R_OK) == 0 ? file : SYSTEM_CA);
}

/* libpq takes an empty value for none, and then what the environment says. */
void
side_params_add(struct side_params *p, const char *key, const char *value)
{
	INVARIANT(p->count + 1 < SIDE_PARAMS_MAX);
	p->keys[p->count] = key;
	p->values[p->count++] = value;
}

static void
params_add_tls(struct side_params *p, const struct settings *set)
{
	static const char *const modes[] = {
	    [SSL_DISABLE] = "disable",
	    [SSL_ALLOW] = "allow",
	    [SSL_PREFER] = "prefer",
	    [SSL_REQUIRE] = "require",
	    [SSL_VERIFY_CA] = "verify-ca",
	    [SSL_VERIFY_FULL] = "verify-full",
	};
	bool has_cert = set->server_tls_cert_file[0] != '\0';

	side_params_add(p, "sslmode", modes[set->server_tls_sslmode]);
	side_params_add(p, "sslrootcert", root_file(set));
	side_params_add(p, "sslcert", has_cert ? set->server_tls_cert_file : NO_FILE);
	side_params_add(p, "sslkey", has_cert ? set->server_tls_key_file : NO_FILE);
	side_params_add(p, "sslcrl", NO_FILE);
	side_params_add(p, "gssencmode", "disable");
}

void
side_params(struct side_params *p, const struct topo *topo,
    const struct topo_database *db, size_t host, const char *application_name)
{
	*p = (struct side_params){0};
	snprintf(p->port, sizeof(p->port), "%u", db->hosts[host].port);
	side_params_add(p, "host", db->hosts[host].host);
	side_params_add(p, "port", p->port);
	side_params_add(p, "dbname", db->dbname != NULL ? db->dbname : db->name);
	side_params_add(p, "user", db->user);
	side_params_add(p, "password", side_password(topo, db));
	side_params_add(p, "passfile", NO_FILE);
	side_params_add(p, "application_name", application_name);
	side_params_add(p, "client_encoding", "UTF8");
	side_params_add(p, "target_session_attrs", "any");
	/* What runs long has no timeout: a peer that is silently gone is found out by these. */
	side_params_add(p, "keepalives_idle", "60");
	side_params_add(p, "keepalives_interval", "10");
	side_params_add(p, "keepalives_count", "6");
	params_add_tls(p, topo_settings(topo));
}

/* hosts: the name once for each of the addresses, as libpq wants it; it tries them in order.
 * addresses NULL: host is a directory of unix sockets. */
static void
host_connect(struct side *s, const char *hosts, const char *addresses)
{
	struct side_params p;

	side_params(&p, s->topo, s->database, s->host, s->application_name);
	if (addresses != NULL) {
		side_params_add(&p, "host", hosts);
		side_params_add(&p, "hostaddr", addresses);
	}
	s->conn = PQconnectStartParams(p.keys, p.values, 0);
	if (s->conn == NULL) {
		host_failed(s, "out of memory");
		return;
	}
	PQsetNoticeProcessor(s->conn, side_notice, s);
	if (PQstatus(s->conn) == CONNECTION_BAD || PQsocket(s->conn) < 0)
		host_failed_libpq(s);
	else
		side_watch(s, EV_WRITE);
}

static void
host_resolved(void *arg, const struct resolved *found, const char *err)
{
	struct side *s = arg;
	const char *host = s->database->hosts[s->host].host;
	struct buf hosts = {0}, addresses = {0};
	char text[ADDR_TEXT], why[SIDE_ERROR];
	struct addr addr;

	s->resolve = NULL;
	if (err != NULL) {
		snprintf(why, sizeof(why), "cannot resolve \"%.200s\": %s", host, err);
		host_failed(s, why);
		return;
	}
	for (unsigned i = 0; i < found->count; i++) {
		addr_from_socket(&addr, (const struct sockaddr *)&found->at[i].sa, -1);
		addr_text(&addr, text, sizeof(text));
		buf_addf(&hosts, "%s%s", i > 0 ? "," : "", host);
		buf_addf(&addresses, "%s%s", i > 0 ? "," : "", text);
	}
	buf_add(&hosts, "", 1);
	buf_add(&addresses, "", 1);
	host_connect(s, (const char *)hosts.mem, (const char *)addresses.mem);
	buf_free(&hosts);
	buf_free(&addresses);
}

/* Each host has its share of the time, so that one that is silent does not take it all. */
static void
host_try(struct side *s)
{
	const struct topo_host *h = &s->database->hosts[s->host];
	int64_t share = s->timeout_us / (int64_t)s->database->host_count;

	side_clock(s, s->timeout_us > 0 && share < 1 ? 1 : share);
	if (h->host[0] == '/' || h->host[0] == '@') {
		host_connect(s, h->host, NULL);
		return;
	}
	s->resolve = resolve_start(
	    s->worker, topo_settings(s->topo), h->host, h->port, host_resolved, s);
}

/* ---- opening ---- */

static void
opening_ended(struct side *s, const char *err)
{
	side_clock(s, 0);
	s->task = SIDE_IDLE;
	s->opened(s, s->arg, err);
}

static void
opening_step(struct side *s)
{
	char why[SIDE_ERROR];

	if (s->database->user == NULL) {
		snprintf(why, sizeof(why),
		    "database \"%.100s\" has no user: connections of the proxy's own "
		    "need one",
		    s->database->name);
		opening_ended(s, why);
	} else if (s->host < s->database->host_count)
		host_try(s);
	else {
		(void)text_copy(
		    why, sizeof(why), s->err[0] != '\0' ? s->err : "there is no host");
		opening_ended(s, why);
	}
}

static void
opening_poll(struct side *s)
{
	/* libpq may close its socket and open another. */
	side_watch(s, 0);
	switch (PQconnectPoll(s->conn)) {
	case PGRES_POLLING_READING:
		side_watch(s, EV_READ);
		break;
	case PGRES_POLLING_WRITING:
		side_watch(s, EV_WRITE);
		break;
	case PGRES_POLLING_OK:
		if (PQsetnonblocking(s->conn, 1) != 0) {
			host_failed_libpq(s);
			return;
		}
		side_watch(s, EV_READ);
		opening_ended(s, NULL);
		break;
	case PGRES_POLLING_FAILED:
	case PGRES_POLLING_ACTIVE:
	default:
		host_failed_libpq(s);
		break;
	}
}

static void
side_io(evutil_socket_t fd, short what, void *arg)
{
	struct side *s = arg;

	(void)fd;
	INVARIANT(s->magic == SIDE_MAGIC && s->task != SIDE_CLOSED);
	if (s->task == SIDE_OPENING)
		opening_poll(s);
	else
		side_serve(s, what);
}

static void
side_expired(evutil_socket_t fd, short what, void *arg)
{
	struct side *s = arg;

	(void)fd;
	(void)what;
	INVARIANT(s->magic == SIDE_MAGIC && s->task != SIDE_CLOSED);
	if (s->task == SIDE_OPENING)
		host_failed(s, "timeout: no answer to the attempt to connect");
	else
		side_lost(s, "timeout: no answer");
}

static void
side_kicked(evutil_socket_t fd, short what, void *arg)
{
	struct side *s = arg;

	(void)fd;
	(void)what;
	INVARIANT(s->magic == SIDE_MAGIC && s->task != SIDE_CLOSED);
	if (s->task == SIDE_OPENING)
		opening_step(s);
	else
		side_go_on(s);
}

struct side *
side_open(struct worker *w, const struct topo *topo, const struct topo_database *db,
    const char *application_name, int64_t timeout_us, side_opened *opened, void *arg)
{
	struct side *s = mem_alloc(sizeof(*s));

	s->magic = SIDE_MAGIC;
	s->worker = w;
	s->topo = topo_hold(topo);
	s->database = db;
	s->application_name = mem_str(application_name);
	s->timeout_us = timeout_us;
	s->task = SIDE_OPENING;
	s->opened = opened;
	s->arg = arg;
	evtimer_assign(&s->timer, w->base, side_expired, s);
	evtimer_assign(&s->kick, w->base, side_kicked, s);
	side_kick(s);
	return (s);
}

/* ---- the end ---- */

static void
side_bury(struct burial *b)
{
	struct side *s = CONTAINER_OF(b, struct side, burial);

	INVARIANT(s->magic == SIDE_MAGIC);
	s->magic = 0;
	topo_release(s->topo);
	free(s->application_name);
	free(s);
}

void
side_close(struct side *s)
{
	INVARIANT(s->magic == SIDE_MAGIC && s->task != SIDE_CLOSED);
	s->task = SIDE_CLOSED;
	side_drop(s);
	event_del(&s->kick);
	PQclear(s->result);
	s->result = NULL;
	buf_free(&s->unsent);
	worker_bury(s->worker, &s->burial, side_bury);
}

void
side_set_timeout(struct side *s, int64_t timeout_us)
{
	s->timeout_us = timeout_us;
}

bool
side_is_open(const struct side *s)
{
	return (s->conn != NULL && s->task != SIDE_OPENING);
}

int
side_server_version(const struct side *s)
{
	return (s->conn != NULL ? PQserverVersion(s->conn) : 0);
}
