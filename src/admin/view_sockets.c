/* SHOW CLIENTS, SERVERS, SOCKETS, ACTIVE_SOCKETS: a row for each connection. */
#include "private.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* The views share the columns of CLIENTS, in its order. */
#define AT(show, column)                                                                 \
	((enum view_column)((show)->view->first + (COL_CLIENTS_##column - VIEW_CLIENTS)))
_Static_assert(
    COL_SERVERS_id - VIEW_SERVERS == COL_CLIENTS_id - VIEW_CLIENTS &&
	COL_SOCKETS_id - VIEW_SOCKETS == COL_CLIENTS_id - VIEW_CLIENTS &&
	COL_ACTIVE_SOCKETS_id - VIEW_ACTIVE_SOCKETS == COL_CLIENTS_id - VIEW_CLIENTS,
    "same columns");
#define BUFFER_AT(show, column)                                                          \
	((enum view_column)((show)->view->first + (COL_SOCKETS_##column - VIEW_SOCKETS)))
_Static_assert(COL_ACTIVE_SOCKETS_send_avail - VIEW_ACTIVE_SOCKETS ==
		   COL_SOCKETS_send_avail - VIEW_SOCKETS,
    "same columns");

static void
row_addr(
    struct show *show, enum view_column addr, enum view_column port, const struct addr *a)
{
	char text[ADDR_TEXT];

	addr_text(a, text, sizeof(text));
	row_text(show, addr, text);
	row_int(show, port, a->port);
}

static void
row_pointer(struct show *show, enum view_column column, const void *p)
{
	char text[24] = "";

	if (p != NULL)
		snprintf(text, sizeof(text), "%p", p);
	row_text(show, column, text);
}

static void
row_stream(struct show *show, const struct stream *s, const struct vars *vars,
    enum proto_replication replication)
{
	static const char *const replications[] = {[REPLICATION_NONE] = "none",
	    [REPLICATION_PHYSICAL] = "physical",
	    [REPLICATION_LOGICAL] = "logical"};
	const char *name = vars != NULL ? vars_get(vars, "application_name") : NULL;
	char tls[128];

	stream_tls_text(s, tls, sizeof(tls));
	row_text(show, AT(show, tls), tls);
	row_text(show, AT(show, application_name), name != NULL ? name : "");
	row_text(show, AT(show, replication), replications[replication]);
}

/* The buffers, in the views that show them. */
static void
row_buffers(struct show *show, const struct stream *s, uint32_t body_left)
{
	if ((int)show->view->first != (int)VIEW_SOCKETS &&
	    (int)show->view->first != (int)VIEW_ACTIVE_SOCKETS)
		return;
	row_int(show, BUFFER_AT(show, recv_pos), s->in.len);
	row_int(show, BUFFER_AT(show, pkt_pos), 0);
	row_int(show, BUFFER_AT(show, pkt_remain), body_left);
	row_int(show, BUFFER_AT(show, send_pos), 0);
	row_int(show, BUFFER_AT(show, send_remain), 0);
	row_int(show, BUFFER_AT(show, pkt_avail), s->in.len);
	row_int(show, BUFFER_AT(show, send_avail), s->out.len);
}

/* ---- clients ---- */

/* What SHOW CLIENTS says; NULL: not among the clients yet, or no more. */
static const char *
client_state(const struct session *s)
{
	switch (s->state) {
	case SESSION_ACTIVE:
	case SESSION_SHARING:
	case SESSION_WEAVING:
		return ("active");
	case SESSION_IDLE:
	case SESSION_CONSOLE:
		return ("idle");
	case SESSION_WAITING:
	case SESSION_WELCOME:
		return ("waiting");
	case SESSION_CANCELLING:
		return ("active_cancel_req");
	case SESSION_STARTUP:
	case SESSION_AUTH:
	case SESSION_CLOSED:
	case SESSION_STATES:
		break;
	}
	return (NULL);
}

/* The address on our side of an accepted socket. */
static void
client_local(const struct session *s, struct addr *out)
{
	struct sockaddr_storage at = {.ss_family = AF_UNIX};
	socklen_t len = sizeof(at);

	if (getsockname(s->stream.fd, (struct sockaddr *)&at, &len) != 0)
		at.ss_family = AF_UNIX;
	addr_from_socket(out, (const struct sockaddr *)&at, s->stream.fd);
}

/* "temporary table, advisory lock"; with members, "advisory lock (primary)" */
static void
row_pin(struct show *show, const struct session *s)
{
	const struct session_pin *pin;
	unsigned len = 0;
	char text[256] = "";

	for (unsigned i = 0; len < sizeof(text) && (pin = session_pin(s, i)) != NULL;
	     i++) {
		len += (unsigned)snprintf(text + len, sizeof(text) - len, "%s%s",
		    i > 0 ? ", " : "", pin->reason);
		if (s->weave != NULL && len < sizeof(text))
			len += (unsigned)snprintf(
			    text + len, sizeof(text) - len, " (%s)", pin->member);
	}
	row_text(show, COL_CLIENTS_pin, text);
}

static void
client_row(struct show *show, const struct session *s, const char *state)
{
	const char *user = session_user(s), *database = session_database(s);
	bool waits = s->waiter.seat != NULL;
	int64_t wait = waits ? clock_us() - s->waiter.start_us : 0;
	struct addr local;

	client_local(s, &local);
	row_text(show, AT(show, type), "C");
	row_text(show, AT(show, user), user[0] != '\0' ? user : "(nouser)");
	row_text(show, AT(show, database), database[0] != '\0' ? database : "(nodb)");
	row_text(show, AT(show, state), state);
	row_addr(show, AT(show, addr), AT(show, port), &s->addr);
	row_addr(show, AT(show, local_addr), AT(show, local_port), &local);
	row_time(show, AT(show, connect_time), s->connect_us);
	row_time(show, AT(show, request_time),
	    s->request_us != 0 ? s->request_us : s->connect_us);
	row_int(show, AT(show, wait), wait / 1000000);
	row_int(show, AT(show, wait_us), wait % 1000000);
	row_int(show, AT(show, close_needed), 0);
	row_pointer(show, AT(show, ptr), s);
	row_pointer(show, AT(show, link), session_link_now(s));
	row_int(show, AT(show, remote_pid),
	    s->addr.family == AF_UNIX ? s->addr.of.peer.pid : 0);
	row_int(show, AT(show, prepared_statements), session_prepared_count(s));
	row_int(show, AT(show, id), s->pid);
	row_stream(show, &s->stream, s->vars, (enum proto_replication)s->replication);
	if ((int)show->view->first == (int)VIEW_CLIENTS)
		row_pin(show, s);
	row_buffers(show, &s->stream, s->body_left);
	row_end(show);
}

/* ---- servers ---- */

static void
server_row(
    struct show *show, const struct link *l, const struct seat *seat, const char *state)
{
	bool is_unix = l->remote.family == AF_UNIX && l->remote.of.peer.pid != 0;

	row_text(show, AT(show, type), "S");
	row_text(show, AT(show, user), seat->pool->role);
	row_text(show, AT(show, database), seat->pool->database);
	row_text(show, AT(show, state), state);
	row_addr(show, AT(show, addr), AT(show, port), &l->remote);
	row_addr(show, AT(show, local_addr), AT(show, local_port), &l->local);
	row_time(show, AT(show, connect_time), l->connect_us);
	row_time(show, AT(show, request_time),
	    l->request_us != 0 ? l->request_us : l->connect_us);
	row_int(show, AT(show, wait), 0);
	row_int(show, AT(show, wait_us), 0);
	row_int(show, AT(show, close_needed), pool_is_stale(l));
	row_pointer(show, AT(show, ptr), l);
	row_pointer(show, AT(show, link), session_link_serves(l));
	row_int(show, AT(show, remote_pid), is_unix ? l->remote.of.peer.pid : l->pid);
	row_int(show, AT(show, prepared_statements), prepared_count(&l->prepared));
	row_int(show, AT(show, id), (int64_t)l->id);
	row_stream(show, &l->stream, l->vars, (enum proto_replication)l->replication);
	row_buffers(show, &l->stream, l->body_left);
	row_end(show);
}

const char *
link_view_state(const struct link *l, const struct settings *set, int64_t now_us,
    enum sum_count *count)
{
	static const char *const names[SUM_COUNTS] = {[SUM_SV_ACTIVE] = "active",
	    [SUM_SV_BEING_CANCELED] = "being_canceled",
	    [SUM_SV_IDLE] = "idle",
	    [SUM_SV_USED] = "used",
	    [SUM_SV_TESTED] = "tested",
	    [SUM_SV_LOGIN] = "new"};

	switch (l->state) {
	case LINK_CONNECTING:
	case LINK_LOGIN:
		*count = SUM_SV_LOGIN;
		break;
	case LINK_RUNNING:
		*count = l->login != NULL  ? SUM_SV_LOGIN
			 : l->user != NULL ? SUM_SV_ACTIVE
					   : SUM_SV_TESTED;
		break;
	case LINK_IDLE:
		*count = now_us - l->request_us > set->server_check_delay ? SUM_SV_USED
									  : SUM_SV_IDLE;
		break;
	case LINK_MOVING:
		*count = SUM_SV_IDLE;
		break;
	case LINK_LENT:
		*count = SUM_SV_ACTIVE;
		break;
	case LINK_CANCELLING:
		*count = SUM_SV_BEING_CANCELED;
		break;
	case LINK_CLOSED:
	case LINK_STATES:
		return (NULL);
	}
	return (names[*count]);
}

/* ---- the four views ---- */

enum socket_part { PART_CLIENTS = 1, PART_SERVERS = 2, PART_LOGINS = 4, PART_BUSY = 8 };

static bool
is_wanted(const struct stream *s, unsigned parts)
{
	return ((parts & PART_BUSY) == 0 || s->in.len > 0 || s->out.len > 0);
}

/* As PgBouncer has it, only SHOW CLIENTS tells the idle ones from those with a server. */
static void
clients_each(struct worker *w, struct show *show, unsigned parts)
{
	bool is_long = (parts & PART_LOGINS) != 0;
	char state[32];

	for (unsigned i = 0; i < SESSION_STATES; i++) {
		const struct session *s;

		TAILQ_FOREACH(s, &session_worker(w)->sessions[i], entry) {
			const char *name = client_state(s);

			if (name == NULL && is_long && s->state != SESSION_CLOSED)
				name = "login";
			if (name == NULL || !is_wanted(&s->stream, parts))
				continue;
			if (is_long && strcmp(name, "idle") == 0)
				name = "active";
			snprintf(
			    state, sizeof(state), "%s%s", is_long ? "cl_" : "", name);
			client_row(show, s, state);
		}
	}
}

static void
servers_each(struct worker *w, struct show *show, unsigned parts)
{
	bool is_long = (parts & PART_LOGINS) != 0;
	const struct seat *seat;
	int64_t now = clock_us();
	char state[32];

	TAILQ_FOREACH(seat, &pool_worker(w)->seats, entry) {
		const struct link *l;

		TAILQ_FOREACH(l, &seat->links, entry) {
			enum sum_count count = SUM_SV_IDLE;
			const char *name =
			    link_view_state(l, pool_settings(w), now, &count);

			if (name == NULL || !is_wanted(&l->stream, parts))
				continue;
			if (is_long && count == SUM_SV_LOGIN)
				name = "login";
			snprintf(
			    state, sizeof(state), "%s%s", is_long ? "sv_" : "", name);
			server_row(show, l, seat, state);
		}
	}
}

void
view_clients_visit(struct worker *w, struct show *show)
{
	clients_each(w, show, PART_CLIENTS);
}

void
view_servers_visit(struct worker *w, struct show *show)
{
	servers_each(w, show, PART_SERVERS);
}

void
view_sockets_visit(struct worker *w, struct show *show)
{
	clients_each(w, show, PART_CLIENTS | PART_LOGINS);
	servers_each(w, show, PART_SERVERS | PART_LOGINS);
}

void
view_active_sockets_visit(struct worker *w, struct show *show)
{
	clients_each(w, show, PART_CLIENTS | PART_LOGINS | PART_BUSY);
	servers_each(w, show, PART_SERVERS | PART_LOGINS | PART_BUSY);
}

/* ---- what holds clients to their links ---- */

static void
pins_of(struct show *show, const struct session *s)
{
	const struct session_pin *pin;

	for (unsigned i = 0; (pin = session_pin(s, i)) != NULL; i++) {
		row_int(show, COL_PINS_client, s->pid);
		row_text(show, COL_PINS_database, session_database(s));
		row_text(show, COL_PINS_reason, pin->reason);
		row_instant(show, COL_PINS_since, pin->since_us);
		row_text(show, COL_PINS_statement, pin->statement);
		row_text(show, COL_PINS_member, pin->member);
		row_end(show);
	}
}

void
view_pins_visit(struct worker *w, struct show *show)
{
	for (unsigned i = 0; i < SESSION_STATES; i++) {
		const struct session *s;

		if (i == SESSION_CLOSED)
			continue;
		TAILQ_FOREACH(s, &session_worker(w)->sessions[i], entry)
			pins_of(show, s);
	}
}
