/*
 * Proofs that ask the client for nothing: its certificate, and the unix user at the other end of
 * a unix socket, whose name the main thread looks up (it may have to ask a directory server).
 */
#include "private.h"
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

/* ---- certificates ---- */

/* Whether the name in it is, or maps to, the login. */
static bool
name_proves(struct session *s, const struct proof *proof)
{
	const char *user = s->login->startup.user;
	char *name = stream_tls_name(&s->stream, proof->by_subject);
	bool is_right = name != NULL && topo_name_maps(pool_worker(s->worker)->topo,
					    proof->map, name, user);

	if (!is_right)
		session_log(s, LOG_INFO_,
		    "TLS certificate name mismatch: it is for \"%s\"%s%s",
		    name != NULL ? name : "", proof->map != NULL ? ", map " : "",
		    proof->map != NULL ? proof->map : "");
	free(name);
	return (is_right);
}

bool
session_cert_proves(struct session *s, const struct proof *proof, bool is_key)
{
	char *message;

	if (!stream_tls_is_proven(&s->stream)) {
		session_unproven(s, "28000",
		    "connection requires a valid client certificate",
		    "TLS client certificate required");
		return (false);
	}
	if (!proof->wants_name || is_key || name_proves(s, proof))
		return (true);
	message = mem_printf(
	    "certificate authentication failed for user \"%s\"", s->login->startup.user);
	session_unproven(s, "28000", message, "TLS certificate name mismatch");
	free(message);
	return (false);
}

/* ---- unix users ---- */

/* A question for the main thread; comes back with the answer. */
struct peer_name {
	struct mail mail;
	struct worker *home;
	struct session *session; /* NULL: it has closed meanwhile */
	uid_t uid;
	char *name; /* NULL: there is none */
};

static void
name_arrived(struct worker *w, struct mail *m)
{
	struct peer_name *p = CONTAINER_OF(m, struct peer_name, mail);
	struct session *s = p->session;
	char *name = p->name;

	(void)w;
	free(p);
	if (s == NULL) {
		free(name);
		return;
	}
	s->login->peer_name = NULL;
	s->login->knows_peer = true;
	s->login->system_user = name;
	session_prove(s);
}

static void
name_asked(struct worker *w, struct mail *m)
{
	struct peer_name *p = CONTAINER_OF(m, struct peer_name, mail);
	struct passwd pw, *found;
	char room[16384];

	(void)w;
	if (getpwuid_r(p->uid, &pw, room, sizeof(room), &found) == 0 && found != NULL)
		p->name = mem_str(found->pw_name);
	p->mail.run = name_arrived;
	worker_post(p->home, &p->mail);
}

void
session_peer_ask(struct session *s)
{
	struct peer_name *p;

	/* A process of pid 0 there is not: the kernel did not say who it is. */
	if (s->addr.family != AF_UNIX || s->addr.of.peer.pid == 0) {
		s->login->knows_peer = true;
		session_prove(s);
		return;
	}
	if (s->login->peer_name != NULL)
		return;
	p = mem_alloc(sizeof(*p));
	p->mail.run = name_asked;
	p->home = s->worker;
	p->session = s;
	p->uid = (uid_t)s->addr.of.peer.uid;
	s->login->peer_name = p;
	session_flow(s);
	worker_post(net_main(), &p->mail);
}

bool
session_peer_proves(struct session *s, const struct proof *proof)
{
	const char *name = s->login->system_user, *user = s->login->startup.user;

	if (name != NULL &&
	    topo_name_maps(pool_worker(s->worker)->topo, proof->map, name, user))
		return (true);
	session_log(s, LOG_INFO_, "unix socket login rejected: unix user \"%s\"%s%s",
	    name != NULL ? name : "", proof->map != NULL ? ", map " : "",
	    proof->map != NULL ? proof->map : "");
	return (false);
}

void
session_peer_leave(struct session_login *login)
{
	if (login->peer_name != NULL)
		login->peer_name->session = NULL;
	login->peer_name = NULL;
}
