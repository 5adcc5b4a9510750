/*
 * The listening link of a pool in a worker, one for each encoding that clients have. It is
 * opened for the first channel, is no part of the pool, and stays for a while after the last
 * one.
 *
 *   channels that are due + tickets  ->  one query: LISTEN "a"; UNLISTEN "b";
 *   ReadyForQuery                    ->  these are on; the tickets from before it are done
 *
 * A ticket is also how one knows that the server has passed on what was notified before: a
 * listening process is signalled before the one that notifies says ReadyForQuery, and passes
 * on what it has before it says ReadyForQuery itself.
 */
#include "listen.h"
#include "stat.h"
#include <stdlib.h>
#include <string.h>

#define HUB_LINGER_US 10000000
#define HUB_CHECK_US  1000000 /* not more often, whatever server_check_delay says */
/* What clients wait for must end, also where server_connect_timeout = 0. */
#define HUB_ANSWER_US 15000000

TAILQ_HEAD(tickets, ticket);

struct hub {
	TAILQ_ENTRY(hub) entry;
	struct burial burial;
	struct worker *worker;
	struct seat *seat;
	struct link *link; /* NULL: none */
	char *place, *encoding;
	bool has_encoding; /* the server has been told */
	bool is_telling;   /* the owners of tickets, who may bring others */
	struct table channels;
	TAILQ_HEAD(, channel) due;
	struct tickets waiting, served; /* served: by the query under way */
	uint64_t generation;            /* of the configuration */
	int64_t used_us;
	int64_t failed_us; /* when its login did; 0: the last one was fine */
	char *error;       /* why */
	char error_state[6];
};

_Atomic unsigned hub_count;
static _Atomic unsigned hubs_of[NET_MAX_WORKERS];

static const struct link_keeper hub_keeper;
static void hub_serve(struct hub *);

unsigned
hub_count_of(unsigned worker)
{
	return (atomic_load(&hubs_of[worker]));
}

bool
hub_is_up(const struct hub *h)
{
	return (h->link != NULL && h->link->login == NULL);
}

/* ---- tickets ---- */

void
ticket_leave(struct ticket *t)
{
	struct ticket *other;

	if (t->hub == NULL)
		return;
	TAILQ_FOREACH(other, &t->hub->waiting, entry)
		if (other == t) {
			TAILQ_REMOVE(&t->hub->waiting, t, entry);
			t->hub = NULL;
			return;
		}
	TAILQ_REMOVE(&t->hub->served, t, entry);
	t->hub = NULL;
}

static void
tickets_done(struct hub *h, struct tickets *list, const struct proto_error_fields *error)
{
	struct ticket *t;

	h->is_telling = true;
	while ((t = TAILQ_FIRST(list)) != NULL) {
		TAILQ_REMOVE(list, t, entry);
		t->hub = NULL;
		t->done(t, error);
	}
	h->is_telling = false;
}

static void
tickets_fail(struct hub *h, const char *sqlstate, const char *why)
{
	struct proto_error_fields error = {.severity = "ERROR",
	    .sqlstate = sqlstate,
	    .message = why,
	    .detail = "",
	    .hint = "",
	    .routine = "",
	    .context = ""};

	tickets_done(h, &h->served, &error);
	tickets_done(h, &h->waiting, &error);
}

/* A login that has failed is not repeated at once: those who come meanwhile hear of it. */
static bool
hub_has_failed(struct hub *h)
{
	int64_t retry = pool_settings(h->worker)->server_login_retry;
	char *message;

	if (retry < WORKER_TICK_US)
		retry = WORKER_TICK_US;
	if (h->failed_us == 0 || clock_us() - h->failed_us >= retry)
		return (false);
	message = mem_printf(
	    "server login has been failing, cached error: %s (server_login_retry)",
	    h->error);
	tickets_fail(h, h->error_state, message);
	free(message);
	return (true);
}

static void
hub_forgive(struct hub *h)
{
	h->failed_us = 0;
	free(h->error);
	h->error = NULL;
}

/* ---- channels ---- */

static bool
channel_same(const struct table_node *n, const void *key)
{
	return (strcmp(CONTAINER_OF(n, const struct channel, node)->name, key) == 0);
}

static struct channel *
channel_find(const struct hub *h, const char *name)
{
	struct table_node *n =
	    table_find(&h->channels, hash_bytes(name, strlen(name)), channel_same, name);

	return (n == NULL ? NULL : CONTAINER_OF(n, struct channel, node));
}

static void
channel_due(struct channel *c)
{
	if (c->is_due || c->is_telling)
		return;
	c->is_due = true;
	TAILQ_INSERT_TAIL(&c->hub->due, c, entry);
}

static void
channel_end(struct channel *c)
{
	if (c->is_due)
		TAILQ_REMOVE(&c->hub->due, c, entry);
	table_remove(&c->hub->channels, &c->node);
	free(c);
}

void
hub_add(struct hub *h, const char *name, struct ear *ear)
{
	struct channel *c = channel_find(h, name);
	size_t len = strlen(name);

	if (c == NULL) {
		c = mem_alloc(sizeof(*c) + len + 1);
		c->hub = h;
		TAILQ_INIT(&c->ears);
		memcpy(c->name, name, len + 1);
		table_add(&h->channels, &c->node, hash_bytes(name, len));
	}
	if (!c->is_on)
		channel_due(c);
	ear->channel = c;
	TAILQ_INSERT_TAIL(&c->ears, ear, entry);
}

/* The server is told with the next channel that comes, or soon. */
void
hub_remove(struct ear *ear)
{
	struct channel *c = ear->channel;

	TAILQ_REMOVE(&c->ears, ear, entry);
	ear->channel = NULL;
	c->hub->used_us = clock_us();
	if (TAILQ_EMPTY(&c->ears))
		channel_due(c);
}

void
hub_ask(const struct ear *ear)
{
	channel_due(ear->channel);
}

/* ---- what the server is told ---- */

static void
hub_ran(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct hub *h = arg;
	struct table_node *n;

	(void)l;
	h->has_encoding |= error == NULL;
	for (n = table_first(&h->channels); n != NULL; n = table_next(&h->channels, n)) {
		struct channel *c = CONTAINER_OF(n, struct channel, node);

		if (!c->is_telling)
			continue;
		c->is_telling = false;
		if (error == NULL)
			c->is_on = !c->is_on;
		/* Meanwhile somebody has come, or the last one has left. A LISTEN that has
		 * failed is tried again when somebody asks for it. */
		if (error == NULL && c->is_on == TAILQ_EMPTY(&c->ears))
			channel_due(c);
	}
	tickets_done(h, &h->served, error);
	hub_serve(h);
}

static void
hub_open(struct hub *h)
{
	static const struct proto_error_fields closed = {.severity = "ERROR",
	    .sqlstate = "57P03",
	    .message = "the database takes no new statements",
	    .detail = "",
	    .hint = "",
	    .routine = "",
	    .context = ""};

	h->has_encoding = false;
	h->link = pool_open_aside(h->seat, &hub_keeper, h);
	if (h->link == NULL)
		tickets_done(h, &h->waiting, &closed);
}

static void
hub_serve(struct hub *h)
{
	struct channel *c, *next;
	struct buf sql = {0};

	if (h->is_telling)
		return;
	if (h->link == NULL && !TAILQ_EMPTY(&h->waiting)) {
		if (!hub_has_failed(h))
			hub_open(h);
		return;
	}
	if (!hub_is_up(h) || h->link->state != LINK_IDLE)
		return;
	if (!h->has_encoding) {
		buf_addstr(&sql, "SET client_encoding = ");
		buf_add_quoted(&sql, h->encoding, '\'');
		buf_addstr(&sql, ";");
	}
	for (c = TAILQ_FIRST(&h->due); c != NULL; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (TAILQ_EMPTY(&c->ears) && !c->is_on) {
			channel_end(c);
			continue;
		}
		TAILQ_REMOVE(&h->due, c, entry);
		c->is_due = false;
		if (TAILQ_EMPTY(&c->ears) != c->is_on)
			continue;
		c->is_telling = true;
		buf_addstr(&sql, c->is_on ? "UNLISTEN " : "LISTEN ");
		buf_add_quoted(&sql, c->name, '"');
		buf_addstr(&sql, ";");
	}
	if (sql.len > 0 || !TAILQ_EMPTY(&h->waiting)) {
		buf_add(&sql, ";", 2);
		TAILQ_CONCAT(&h->served, &h->waiting, entry);
		link_run(h->link, (const char *)sql.mem, hub_ran, h);
	}
	buf_free(&sql);
}

void
hub_sync(struct hub *h, struct ticket *t)
{
	t->hub = h;
	h->used_us = clock_us();
	TAILQ_INSERT_TAIL(&h->waiting, t, entry);
	hub_serve(h);
}

/* ---- the link ---- */

static void
hub_ready(struct link *l)
{
	struct hub *h = l->place;

	atomic_fetch_add(&hub_count, 1);
	atomic_fetch_add(&hubs_of[h->worker->index], 1);
	l->was_ready = true;
	hub_forgive(h);
	hub_serve(h);
}

static void
hub_closed(struct link *l)
{
	struct hub *h = l->place;

	if (l->was_ready) {
		atomic_fetch_sub(&hub_count, 1);
		atomic_fetch_sub(&hubs_of[h->worker->index], 1);
	}
	h->link = NULL;
	pool_aside_closed(h->seat);
}

static void
hub_failed(
    struct link *l, int fault, const char *why, const struct proto_error_fields *error)
{
	struct hub *h = l->place;

	hub_forgive(h);
	h->failed_us = clock_us();
	h->error = mem_str(why);
	text_copy(h->error_state, sizeof(h->error_state),
	    error != NULL && strlen(error->sqlstate) == 5 ? error->sqlstate
							  : fault_info(fault)->sqlstate);
	tickets_fail(h, h->error_state, why);
}

/* Nobody knows what was notified meanwhile: who listens is told so. */
static void
hub_lose(struct hub *h, const char *why)
{
	struct table_node *n;

	for (n = table_first(&h->channels); n != NULL; n = table_next(&h->channels, n)) {
		struct channel *c = CONTAINER_OF(n, struct channel, node);
		struct ear *ear, *next;

		c->is_on = c->is_telling = false;
		channel_due(c);
		/* Sessions end here; channels do not. */
		for (ear = TAILQ_FIRST(&c->ears); ear != NULL; ear = next) {
			next = TAILQ_NEXT(ear, entry);
			listen_lost(ear, why);
		}
	}
	tickets_fail(h, fault_info(F_LINK_LOST)->sqlstate, why);
}

static void
hub_lost(struct link *l, const char *why)
{
	hub_lose(l->place, why);
}

static void
hub_notified(struct link *l, const uint8_t *body, size_t len)
{
	const struct hub *h = l->place;
	const char *name = (const char *)body + 4;
	struct buf message = {0};
	struct ear *ear, *next;
	struct channel *c;

	if (len < 6 || memchr(name, '\0', len - 4) == NULL ||
	    (c = channel_find(h, name)) == NULL)
		return;
	c->heard++;
	echo_put(&message, body, len, link_client_of(l, proto_get32(body)));
	for (ear = TAILQ_FIRST(&c->ears); ear != NULL; ear = next) {
		next = TAILQ_NEXT(ear, entry);
		listen_hear(ear, message.mem, message.len);
	}
	buf_free(&message);
}

static const struct link_keeper hub_keeper = {
    .ready = hub_ready,
    .failed = hub_failed,
    .lost = hub_lost,
    .closed = hub_closed,
    .notified = hub_notified,
};

/* ---- life ---- */

struct hub *
hub_get(struct seat *seat, const char *encoding)
{
	struct session_worker *sw = session_worker(seat->worker);
	struct hub *h;

	TAILQ_FOREACH(h, &sw->hubs, entry)
		if (h->seat == seat && strcmp(h->encoding, encoding) == 0)
			return (h);
	if (seat->database == NULL)
		return (NULL);
	h = mem_alloc(sizeof(*h));
	h->worker = seat->worker;
	h->seat = seat;
	h->place = pool_site(seat, NULL);
	h->encoding = mem_str(encoding);
	h->generation = seat->since;
	h->used_us = clock_us();
	TAILQ_INIT(&h->due);
	TAILQ_INIT(&h->waiting);
	TAILQ_INIT(&h->served);
	/* The seat is there for as long as somebody keeps links for it. */
	seat->asides++;
	TAILQ_INSERT_TAIL(&sw->hubs, h, entry);
	return (h);
}

const struct seat *
hub_seat(const struct hub *h)
{
	return (h->seat);
}

static void
hub_bury(struct burial *b)
{
	struct hub *h = CONTAINER_OF(b, struct hub, burial);

	hub_forgive(h);
	free(h->place);
	free(h->encoding);
	free(h);
}

static void
hub_end(struct hub *h, const char *why)
{
	struct table_node *n;

	if (h->link != NULL)
		link_close(h->link, why);
	tickets_fail(h, fault_info(F_LINK_LOST)->sqlstate, why);
	while ((n = table_first(&h->channels)) != NULL)
		channel_end(CONTAINER_OF(n, struct channel, node));
	table_free(&h->channels);
	TAILQ_REMOVE(&session_worker(h->worker)->hubs, h, entry);
	pool_aside_closed(h->seat);
	worker_bury(h->worker, &h->burial, hub_bury);
}

static bool
hub_is_used(const struct hub *h)
{
	struct table_node *n;

	if (!TAILQ_EMPTY(&h->waiting) || !TAILQ_EMPTY(&h->served))
		return (true);
	for (n = table_first(&h->channels); n != NULL; n = table_next(&h->channels, n))
		if (!TAILQ_EMPTY(&CONTAINER_OF(n, struct channel, node)->ears))
			return (true);
	return (false);
}

/* The configuration has changed, or the server does not answer. */
static void
hub_drop(struct hub *h, const char *why)
{
	if (h->link == NULL)
		return;
	link_close(h->link, why);
	hub_lose(h, why);
}

/* What closes links of the pool closes this one, of which its listeners must know. True: the hub
 * is gone with it. */
static bool
hub_obey(struct hub *h)
{
	const char *why = h->link != NULL ? pool_aside_unfit(h->seat, h->link) : NULL;

	if (why == NULL)
		return (false);
	if (hub_is_used(h)) {
		hub_drop(h, why);
		return (false);
	}
	hub_end(h, why);
	return (true);
}

void
hub_apply(struct worker *w)
{
	struct hub *h, *next;

	for (h = TAILQ_FIRST(&session_worker(w)->hubs); h != NULL; h = next) {
		next = TAILQ_NEXT(h, entry);
		(void)hub_obey(h);
	}
}

/* How long an answer may take. */
static int64_t
hub_patience(const struct hub *h)
{
	const struct settings *set = pool_settings(h->worker);
	int64_t most = h->seat->limits.query_wait_timeout;

	if (set->server_connect_timeout > 0)
		return (set->server_connect_timeout);
	return (most > 0 && most < HUB_ANSWER_US ? most : HUB_ANSWER_US);
}

/* A server from which nothing comes may be cut off: it is asked, and does not answer then. */
static bool
hub_wants_check(const struct hub *h, int64_t now)
{
	const struct settings *set = pool_settings(h->worker);
	int64_t delay = set->server_check_delay > HUB_CHECK_US ? set->server_check_delay
							       : HUB_CHECK_US;

	return (hub_is_up(h) && h->link->state == LINK_IDLE &&
		set->server_check_query[0] != '\0' && now - h->link->run_us > delay);
}

static void
hub_tick_one(struct hub *h, int64_t now)
{
	int64_t most = hub_patience(h);
	struct link *l = h->link;

	if (l != NULL && l->login != NULL && now - l->connect_us > most)
		link_login_expire(l);
	else if (l != NULL && l->state == LINK_RUNNING && now - l->run_us > most)
		hub_drop(h, "server did not answer (server_connect_timeout)");
	else
		hub_serve(h);
	if (hub_wants_check(h, now))
		link_run(h->link, ";", hub_ran, h);
	if (now - h->used_us > HUB_LINGER_US && !hub_is_used(h))
		hub_end(h, "nobody listens");
}

void
hub_tick(struct worker *w, int64_t now)
{
	struct hub *h, *next;

	for (h = TAILQ_FIRST(&session_worker(w)->hubs); h != NULL; h = next) {
		next = TAILQ_NEXT(h, entry);
		if (!hub_obey(h))
			hub_tick_one(h, now);
	}
}

void
hub_world(struct worker *w)
{
	struct hub *h, *next;

	for (h = TAILQ_FIRST(&session_worker(w)->hubs); h != NULL; h = next) {
		next = TAILQ_NEXT(h, entry);
		if (h->seat->database == NULL || h->seat->since > h->generation) {
			hub_drop(h, "database configuration changed");
			free(h->place);
			h->place = h->seat->database != NULL ? pool_site(h->seat, NULL)
							     : mem_str("");
			h->generation = h->seat->since;
			hub_forgive(h);
		}
	}
}

void
hub_kill(struct worker *w, const char *database)
{
	struct hub *h, *next;

	for (h = TAILQ_FIRST(&session_worker(w)->hubs); h != NULL; h = next) {
		next = TAILQ_NEXT(h, entry);
		if (!hub_is_used(h) &&
		    (database == NULL || strcmp(h->seat->pool->database, database) == 0))
			hub_end(h, "kill");
	}
}

void
hub_end_all(struct worker *w)
{
	struct hub *h;

	while ((h = TAILQ_FIRST(&session_worker(w)->hubs)) != NULL)
		hub_end(h, "shutdown");
}

void
hub_each_near(
    struct worker *w, const char *place, void (*each)(void *arg, struct hub *), void *arg)
{
	struct hub *h, *next;

	for (h = TAILQ_FIRST(&session_worker(w)->hubs); h != NULL; h = next) {
		next = TAILQ_NEXT(h, entry);
		if (hub_is_up(h) && strcmp(h->place, place) == 0)
			each(arg, h);
	}
}

void
hub_close_unused(struct worker *w, const char *place)
{
	struct hub *h, *next;

	for (h = TAILQ_FIRST(&session_worker(w)->hubs); h != NULL; h = next) {
		next = TAILQ_NEXT(h, entry);
		if (strcmp(h->place, place) == 0 && !hub_is_used(h))
			hub_end(h, "a statement needs the database for itself");
	}
}

void
hub_each_channel(
    struct worker *w, void (*each)(void *arg, const struct hub_view *), void *arg)
{
	struct hub *h;

	TAILQ_FOREACH(h, &session_worker(w)->hubs, entry)
		for (struct table_node *n = table_first(&h->channels); n != NULL;
		     n = table_next(&h->channels, n)) {
			const struct channel *c = CONTAINER_OF(n, struct channel, node);
			struct hub_view v = {.seat = h->seat,
			    .link = h->link,
			    .channel = c->name,
			    .is_on = c->is_on,
			    .heard = c->heard};
			const struct ear *ear;

			TAILQ_FOREACH(ear, &c->ears, entry)
				v.clients += ear->is_on;
			if (c->is_on || !TAILQ_EMPTY(&c->ears))
				each(arg, &v);
		}
}
