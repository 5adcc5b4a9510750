/*
 * NOTIFY by clients of this process. A notification names the backend that ran the transaction,
 * and many clients take their turns on it: it is the client's that has it until all hubs have
 * heard what the transaction has notified. The client waits that long for its ReadyForQuery, so
 * that one which listens has its own notifications before it, as from PostgreSQL itself.
 *
 *   session's worker                   workers with hubs
 *   echo_start    --- mail, to each --->  tickets at the hubs that hear the database
 *   listen_go_on  <-- mail, from each --  they are done
 */
#include "listen.h"
#include <stdlib.h>
#include <string.h>

struct echo_leg {
	struct mail mail;
	struct echo *echo;
	unsigned left; /* tickets, and one while they are being taken */
};
struct echo_ticket {
	struct ticket ticket;
	struct echo_leg *leg;
};
struct echo {
	struct listens *listens; /* NULL: its session does not wait any more */
	struct worker *home;
	char *place;
	unsigned left; /* legs; home's alone */
	struct echo_leg legs[];
};

void
echo_put(struct buf *out, const uint8_t *body, size_t len, uint32_t client)
{
	uint32_t at = out->len + PROTO_HEAD;

	proto_message(out, 'A', body, len);
	if (client != 0)
		proto_put32(out->mem + at, client);
}

/* ---- what says NOTIFY ---- */

void
echo_note(struct session *s)
{
	if (hub_any() && s->seat->database != NULL)
		listen_get(s)->has_notified = true;
}

void
echo_look(struct session *s, const char *sql, size_t len)
{
	if (memmem(sql, len, "pg_notify", 9) != NULL ||
	    memmem(sql, len, "PG_NOTIFY", 9) != NULL)
		echo_note(s);
}

/* ---- waiting for the hubs ---- */

static void
echo_home(struct worker *w, struct mail *m)
{
	struct echo *e = CONTAINER_OF(m, struct echo_leg, mail)->echo;
	struct listens *ls = e->listens;

	(void)w;
	if (--e->left > 0)
		return;
	if (ls != NULL) {
		ls->echo = NULL;
		ls->has_notified = false;
		listen_go_on(ls->s);
	}
	free(e->place);
	free(e);
}

static void
echo_count(struct echo_leg *leg)
{
	if (--leg->left > 0)
		return;
	leg->mail.run = echo_home;
	worker_post(leg->echo->home, &leg->mail);
}

static void
echo_heard(struct ticket *t, const struct proto_error_fields *error)
{
	struct echo_ticket *et = CONTAINER_OF(t, struct echo_ticket, ticket);

	/* A hub that is gone hears nothing more. */
	(void)error;
	echo_count(et->leg);
	free(et);
}

static void
echo_ask(void *arg, struct hub *h)
{
	struct echo_ticket *et = mem_alloc(sizeof(*et));

	et->leg = arg;
	et->leg->left++;
	et->ticket.done = echo_heard;
	hub_sync(h, &et->ticket);
}

static void
echo_arrived(struct worker *w, struct mail *m)
{
	struct echo_leg *leg = CONTAINER_OF(m, struct echo_leg, mail);

	leg->left = 1;
	hub_each_near(w, leg->echo->place, echo_ask, leg);
	echo_count(leg);
}

void
echo_start(struct session *s)
{
	unsigned workers = net_worker_count();
	struct echo *e = mem_alloc(sizeof(*e) + workers * sizeof(e->legs[0]));

	e->listens = s->listens;
	s->listens->echo = e;
	e->home = s->worker;
	e->place = s->seat->database != NULL ? pool_site(s->seat, NULL) : mem_str("");
	e->left = 1;
	for (unsigned i = 0; i < workers; i++)
		if (i == s->worker->index || hub_count_of(i) > 0) {
			e->legs[i].echo = e;
			e->legs[i].mail.run = echo_arrived;
			e->left += i != s->worker->index;
			worker_post(net_worker(i), &e->legs[i].mail);
		}
	session_flow(s);
}

void
echo_leave(struct listens *ls)
{
	if (ls->echo != NULL)
		ls->echo->listens = NULL;
	ls->echo = NULL;
}
