/*
 * auth_query: the secret of a login that auth_file does not know, asked of a server by auth_user
 * over a link of its pool.
 *
 *     waits for a link  ->  makes it what a fresh one is  ->  asks  ->  session_prove()
 *
 * A client that goes away while the query runs leaves it: the answer is thrown away and the link
 * goes back, instead of being cancelled and opened again for the next one.
 */
#include "weave.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX     2     /* as many as show that there are too many */
#define ANSWER_BYTES 65536 /* of one message */

struct lookup {
	TAILQ_ENTRY(lookup) entry;
	struct session *session; /* NULL: it has left */
	struct worker *worker;
	struct waiter waiter;
	struct link *link; /* NULL: waits for one */
	struct seat *seat;
	char *query, *login;
	int64_t sent_us; /* when the link came */
	unsigned rows;
	bool is_found;
	char *secret; /* NULL: none */
	char *wrong;  /* what is wrong with the answer; NULL: nothing */
};

/* ---- where to ----  */

/* Who asks what where. Strings belong to the snapshot, or to the startup packet. */
struct authority {
	const char *dbname, *user, *query;
};

static const char *
first_said(const char *of_database, const char *global)
{
	return (of_database != NULL ? of_database : global);
}

/* False: there is no auth_user, or no database that is asked. Of a virtual database that is its
 * default member, whichever a client names: who is in reaches the other members, too, where the
 * login may be somebody else's. */
static bool
find_authority(const struct session *s, const struct topo *topo, struct authority *out)
{
	const struct settings *set = topo_settings(topo);
	const char *dbname = s->login->startup.database, *member, *other;
	const struct topo_database *db =
	    topo_is_console(dbname) ? NULL : topo_database_find(topo, dbname);
	const struct topo_virtual *v = session_find_virtual(topo, dbname, &member);

	if (v != NULL) {
		db = v->dflt;
		dbname = db != NULL ? db->name : dbname;
	}
	other = first_said(db != NULL ? db->auth_dbname : NULL, set->auth_dbname);
	out->user = first_said(db != NULL ? db->auth_user : NULL, set->auth_user);
	out->query = first_said(db != NULL ? db->auth_query : NULL, set->auth_query);
	out->dbname = *other != '\0' ? other : dbname;
	if (*other != '\0')
		db = topo_database_find(topo, other);
	return (db != NULL && *out->user != '\0' && *out->query != '\0');
}

bool
session_lookup_wanted(struct session *s)
{
	const struct topo *topo = pool_worker(s->worker)->topo;
	struct authority a;

	return (
	    topo_settings(topo)->auth_type != AUTH_ANY && find_authority(s, topo, &a));
}

/* ---- the end of it ---- */

static void
lookup_free(struct lookup *lk)
{
	TAILQ_REMOVE(&session_worker(lk->worker)->lookups, lk, entry);
	if (lk->secret != NULL)
		mem_free_secret(lk->secret, strlen(lk->secret));
	free(lk->wrong);
	free(lk->query);
	free(lk->login);
	free(lk);
}

/* It has no answer: the client is told so. Frees it. */
static void
lookup_fail(struct lookup *lk, const char *sqlstate, const char *message)
{
	struct session *s = lk->session;

	if (s != NULL) {
		s->login->lookup = NULL;
		session_unproven(s, sqlstate, message, message);
	}
	lookup_free(lk);
}

static void
lookup_over(struct lookup *lk)
{
	struct session *s = lk->session;

	if (lk->wrong != NULL) {
		lookup_fail(lk, fault_info(F_AUTH_QUERY)->sqlstate, lk->wrong);
		return;
	}
	if (s != NULL) {
		s->login->lookup = NULL;
		s->login->has_looked = true;
		s->login->is_found = lk->is_found;
		s->login->secret = lk->secret;
		lk->secret = NULL;
	}
	lookup_free(lk);
	if (s != NULL)
		session_prove(s);
}

/* ---- the answer ---- */

/* The first thing that is wrong. said: of what the server has said, for the log alone. */
static void
answer_wrong(struct lookup *lk, const char *said, char *wrong)
{
	log_error("S-%#" PRIx64 ": %s auth_query for \"%s\": %s%s%s", lk->link->id,
	    lk->link->name, lk->login, wrong, said != NULL ? ": " : "",
	    said != NULL ? said : "");
	if (lk->wrong == NULL)
		lk->wrong = wrong;
	else
		free(wrong);
}

/* The next column; NULL: it is NULL, or (*at behind the end) not there. */
static char *
take_column(const uint8_t *body, size_t len, size_t *at)
{
	uint32_t size;
	char *text;

	if (*at + 4 > len) {
		*at = len + 1;
		return (NULL);
	}
	size = proto_get32(body + *at);
	*at += 4;
	if (size == UINT32_MAX)
		return (NULL);
	if (size > len - *at || memchr(body + *at, '\0', size) != NULL) {
		*at = len + 1;
		return (NULL);
	}
	text = mem_strn((const char *)body + *at, size);
	*at += size;
	return (text);
}

/* A row without a name says that there is no such login; one of another name is none that the
 * client may log in as. */
static void
answer_row(struct lookup *lk, const uint8_t *body, size_t len)
{
	unsigned columns = len >= 2 ? proto_get16(body) : 0;
	size_t at = 2;
	char *name, *secret;

	if (columns != 2) {
		answer_wrong(lk, NULL,
		    mem_printf("expected 2 columns from auth_query, not %u", columns));
		return;
	}
	name = take_column(body, len, &at);
	secret = take_column(body, len, &at);
	if (at != len)
		answer_wrong(lk, NULL, mem_str("malformed row from auth_query"));
	else if (++lk->rows > 1)
		answer_wrong(lk, NULL, mem_str("auth_query returned more than one row"));
	else if (name != NULL && strcmp(name, lk->login) != 0)
		log_warning(
		    "S-%#" PRIx64
		    ": %s auth_query for \"%s\": the row is that of another login",
		    lk->link->id, lk->link->name, lk->login);
	else if (name != NULL) {
		lk->is_found = true;
		lk->secret = secret;
		secret = NULL;
	}
	free(name);
	if (secret != NULL)
		mem_free_secret(secret, strlen(secret));
}

static void
answer_error(struct lookup *lk, const uint8_t *body, size_t len)
{
	struct proto_error_fields error;

	answer_wrong(lk,
	    proto_error_parse(body, len, &error) == 0 ? error.message : "malformed error",
	    mem_str(fault_info(F_AUTH_QUERY)->text));
}

/* ReadyForQuery: the link goes back, the client goes on. */
static void
answer_over(struct lookup *lk, char status)
{
	struct link *l = lk->link;

	l->txn = status;
	requests_pop(&l->requests);
	lk->link = NULL;
	if (l->txn == 'I')
		pool_give(l, false);
	else
		pool_give_broken(l, false, "auth_query leaves a transaction open");
	lookup_over(lk);
}

static bool
answer_message(struct lookup *lk, char type, const uint8_t *body, size_t len)
{
	struct link *l = lk->link;
	const char *name, *value;

	switch (type) {
	case 'D':
		answer_row(lk, body, len);
		return (true);
	case 'E':
		answer_error(lk, body, len);
		return (true);
	case 'C':
		(void)link_note_tag(l, (const char *)body, len);
		return (true);
	case 'S':
		if (proto_parameter_parse(body, len, &name, &value) != 0)
			return (false);
		link_note_parameter(l, name, value);
		return (true);
	case '1':
	case '2':
	case 's':
	case 'I':
	case 'N':
	case 'A':
		return (true);
	default:
		return (false);
	}
}

static void
answer_broken(struct link *l, struct lookup *lk)
{
	lk->link = NULL;
	link_close(l, "unexpected answer to auth_query");
	lookup_fail(lk, fault_info(F_AUTH_QUERY)->sqlstate,
	    "unexpected response from auth_query");
}

static size_t
lookup_bytes(struct link *l, const uint8_t *p, size_t len)
{
	struct lookup *lk = l->user_arg;
	size_t used = 0;

	while (len - used >= PROTO_HEAD) {
		uint32_t size = proto_get32(p + used + 1);
		const uint8_t *body = p + used + PROTO_HEAD;
		char type = (char)p[used];

		if (size < 4 || size > ANSWER_BYTES) {
			answer_broken(l, lk);
			return (len);
		}
		if (len - used < (size_t)size + 1)
			break;
		used += (size_t)size + 1;
		if (type == 'Z' && size == 5 &&
		    (body[0] == 'I' || body[0] == 'T' || body[0] == 'E')) {
			answer_over(lk, (char)body[0]);
			/* Whoever has the link now gets what follows. */
			return (l->state == LINK_CLOSED ? len : used);
		}
		if (!answer_message(lk, type, body, size - 4)) {
			answer_broken(l, lk);
			return (len);
		}
	}
	return (used);
}

static void
lookup_drained(struct link *l)
{
	(void)l;
}

static void
lookup_lost(struct link *l, const char *why)
{
	struct lookup *lk = l->user_arg;

	(void)why;
	lk->link = NULL;
	lookup_fail(lk, fault_info(F_LINK_LOST)->sqlstate,
	    "the server connection was lost while auth_query ran");
}

static const struct link_user lookup_user = {
    .bytes = lookup_bytes,
    .drained = lookup_drained,
    .lost = lookup_lost,
};

/* ---- the question ---- */

/* Parse, Bind with the login as $1, Execute for so many rows, Sync. */
static void
lookup_send(struct lookup *lk)
{
	static const uint8_t no_types[2] = {0, 0}, one_row[] = {'\0', 0, 0, 0, ROWS_MAX};
	struct buf out = {0}, bind = {0};
	struct link *l = lk->link;
	size_t len = strlen(lk->login);
	uint8_t head[2 + 2 + 2 + 4] = {
	    0, 0, 0, 0, 0, 1}; /* no names, no formats, one value */

	proto_put32(head + 6, (uint32_t)len);
	buf_add(&bind, head, sizeof(head));
	buf_add(&bind, lk->login, len);
	buf_add(&bind, no_types, sizeof(no_types));
	proto_parse(&out, "", lk->query, no_types, sizeof(no_types));
	proto_message(&out, 'B', bind.mem, bind.len);
	proto_message(&out, 'E', one_row, sizeof(one_row));
	proto_sync(&out);
	l->unnamed = UNNAMED_FOREIGN;
	l->batch++;
	requests_push(&l->requests, REQ_SYNC, ACT_SKIP);
	stream_write(&l->stream, out.mem, out.len);
	buf_free(&bind);
	buf_free(&out);
}

static void
lookup_ready(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct lookup *lk = arg;

	if (error == NULL) {
		lookup_send(lk);
		return;
	}
	lk->link = NULL;
	l->is_dirty = true;
	pool_give_broken(l, false, "its parameters cannot be set");
	lookup_fail(
	    lk, fault_info(F_AUTH_QUERY)->sqlstate, fault_info(F_AUTH_QUERY)->text);
}

/* What others have set on the link must not change what the query means. */
static void
lookup_granted(struct waiter *w, struct link *l)
{
	struct lookup *lk = CONTAINER_OF(w, struct lookup, waiter);
	struct buf sql = {0};

	link_lend(l, &lookup_user, lk);
	lk->link = l;
	lk->sent_us = clock_us();
	if (l->vars != l->born && vars_sql(l->vars, l->born, &sql)) {
		buf_add(&sql, "", 1);
		link_run(l, (const char *)sql.mem, lookup_ready, lk);
	} else
		lookup_send(lk);
	buf_free(&sql);
}

static void
lookup_refused(struct waiter *w, int fault, const char *sqlstate, const char *message)
{
	(void)fault;
	lookup_fail(CONTAINER_OF(w, struct lookup, waiter), sqlstate, message);
}

void
session_lookup(struct session *s)
{
	const struct topo *topo = pool_worker(s->worker)->topo;
	struct authority a;
	struct lookup *lk;
	struct link *l;

	if (s->login->lookup != NULL)
		return;
	INVARIANT(find_authority(s, topo, &a));
	lk = mem_alloc(sizeof(*lk));
	lk->session = s;
	lk->worker = s->worker;
	lk->query = mem_str(a.query);
	lk->login = mem_str(s->login->startup.user);
	lk->seat = pool_seat_as(s->worker, a.dbname, a.user);
	lk->waiter.granted = lookup_granted;
	lk->waiter.refused = lookup_refused;
	lk->waiter.is_login = lk->waiter.is_asking = true;
	TAILQ_INSERT_TAIL(&session_worker(s->worker)->lookups, lk, entry);
	s->login->lookup = lk;
	session_flow(s);
	l = pool_lend(lk->seat, &lk->waiter, NULL);
	if (l != NULL)
		lookup_granted(&lk->waiter, l);
}

/* ---- clients that leave, and queries that hang ---- */

void
session_lookup_leave(struct session_login *login)
{
	struct lookup *lk = login->lookup;

	login->lookup = NULL;
	if (lk == NULL)
		return;
	lk->session = NULL;
	if (lk->link != NULL)
		return;
	pool_wait_end(&lk->waiter);
	lookup_free(lk);
}

static void
lookup_expire(struct lookup *lk)
{
	struct link *l = lk->link;

	log_error("S-%#" PRIx64 ": %s auth_query for \"%s\": query timeout", l->id,
	    l->name, lk->login);
	lk->link = NULL;
	if (l->state == LINK_LENT)
		pool_give_broken(l, false, "auth_query took too long");
	else
		link_close(l, "auth_query took too long");
	lookup_fail(lk, "57014", "query timeout");
}

void
session_lookups_tick(struct worker *w, int64_t now_us)
{
	int64_t most = pool_settings(w)->client_login_timeout;
	struct lookup *lk, *next;

	for (lk = TAILQ_FIRST(&session_worker(w)->lookups); lk != NULL; lk = next) {
		int64_t max;

		next = TAILQ_NEXT(lk, entry);
		if (lk->link == NULL)
			continue;
		max = lk->seat->limits.query_timeout > 0 ? lk->seat->limits.query_timeout
							 : most;
		if (max > 0 && now_us - lk->sent_us > max)
			lookup_expire(lk);
	}
}

void
session_lookups_end(struct worker *w)
{
	struct lookup *lk;

	while ((lk = TAILQ_FIRST(&session_worker(w)->lookups)) != NULL) {
		if (lk->link != NULL)
			link_close(lk->link, "shutdown");
		lookup_free(lk);
	}
}
