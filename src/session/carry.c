/*
 * The settings of a session of a plain database, where links are shared: what it sets is its
 * own on whatever link it has next, and nobody else's. See carry.h.
 */
#include "carry.h"
#include "listen.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Of settings whose names are noted; with more of them a session keeps its link. */
#define NAMES_BYTES  2048
#define SETTINGS_MAX 64
#define NOTED_MAX    64
#define RESET_BYTES  4096 /* longer ones are no RESET */

struct vars *
session_tracked(const struct session *s)
{
	if (s->weave != NULL)
		return (s->weave->tracked != NULL ? s->weave->tracked : s->startup);
	return (s->carry != NULL && s->carry->tracked != NULL ? s->carry->tracked
							      : s->startup);
}

static struct carry *
carry_of(struct session *s)
{
	if (s->carry == NULL)
		s->carry = mem_alloc(sizeof(*s->carry));
	return (s->carry);
}

static void
forget_set(struct carry *c)
{
	free(c->set_name);
	free(c->set_value);
	c->set_name = c->set_value = NULL;
}

static struct carry_name *
name_find(const struct carry_names *n, const char *name)
{
	for (unsigned i = 0; i < n->count; i++)
		if (strcmp(n->all[i].name, name) == 0)
			return (&n->all[i]);
	return (NULL);
}

static void
name_forget(struct carry_names *n, const char *name)
{
	struct carry_name *it = name_find(n, name);

	if (it == NULL)
		return;
	free(it->name);
	free(it->reset);
	*it = n->all[--n->count];
}

/* reset: owned. */
static void
name_note(struct carry_names *n, const char *name, char *reset)
{
	name_forget(n, name);
	/* Nobody has so many at once. */
	if (n->count == NOTED_MAX)
		name_forget(n, n->all[0].name);
	n->all = mem_realloc(n->all, (n->count + 1) * sizeof(*n->all));
	n->all[n->count++] = (struct carry_name){.name = mem_str(name), .reset = reset};
}

static void
names_forget(struct carry_names *n)
{
	while (n->count > 0)
		name_forget(n, n->all[0].name);
	free(n->all);
	n->all = NULL;
}

static void
track(struct session *s, struct vars *now)
{
	struct carry *c = carry_of(s);

	if (c->tracked != NULL)
		vars_release(s->worker, c->tracked);
	c->tracked = now;
}

void
carry_free(struct session *s)
{
	struct carry *c = s->carry;

	if (c == NULL)
		return;
	track(s, NULL);
	if (c->asked != NULL)
		vars_release(s->worker, c->asked);
	forget_set(c);
	names_forget(&c->portals);
	names_forget(&c->later);
	free(c->timeout);
	pins_free(&c->pins);
	buf_free(&c->names);
	free(c);
	s->carry = NULL;
}

/* ---- looking ---- */

/* SELECT … INTO TEMP, or INTO pg_temp.t. */
static bool
has_temp(const char *sql, size_t len)
{
	return (
	    memmem(sql, len, "temp", 4) != NULL || memmem(sql, len, "TEMP", 4) != NULL);
}

unsigned
carry_leaves(const char *sql, size_t len)
{
	struct sql_scan scan;
	unsigned leaves;
	int look = sql_look(sql, len);

	if ((look < 0 || (look & SQL_LOOK_LEAVES) == 0) &&
	    sql_look_names(sql, len) == 0 && !has_temp(sql, len))
		return (0);
	sql_scan(sql, len, &scan);
	leaves = sql_leaves(&scan);
	sql_scan_free(&scan);
	return (leaves);
}

int
carry_look(const char *sql, size_t have, size_t len)
{
	const char *end = sql + len, *at = sql;
	int first = sql_look(sql, have), next;

	if (first < 0) {
		if (have < len && have < SESSION_NAMES_MAX)
			return (-1);
		first = 0;
	}
	/* Of a long string only the beginning is looked at; tags tell the most of the rest,
	 * unless it is one that is taken apart. */
	if (len > SQL_PARSE_BYTES)
		return (first > 0 ? first | SQL_LOOK_LEAVES : first);
	if (have < len)
		return (-1);
	first |= sql_look_names(sql, len);
	while (at < end && (at = memchr(at, ';', (size_t)(end - at))) != NULL) {
		at++;
		next = sql_look(at, (size_t)(end - at));
		if (next > 0)
			first |= next;
	}
	return (first);
}

/* ---- what is sent ---- */

/* A parameter that nobody has looked at may name any setting. */
static unsigned
unless_bound(unsigned leaves)
{
	return (
	    (leaves & SQL_LEAVES_BY_PARAM) != 0 ? leaves | SQL_LEAVES_UNNAMED : leaves);
}

static void
touch(struct session *s, unsigned leaves, const char *sql, size_t len)
{
	struct carry *c = carry_of(s);

	leaves = unless_bound(leaves);
	if ((leaves & SQL_LEAVES_SETTING) != 0)
		forget_set(c);
	pins_note(&c->pins, leaves, sql, len);
	c->touched |= leaves;
}

/* pg_settings does not show settings that no extension has defined: they must be asked for. */
static void
note_name(void *arg, const char *name)
{
	struct session *s = arg;

	if (strchr(name, '.') == NULL || vars_get(session_tracked(s), name) != NULL)
		return;
	if (s->carry->names.len < NAMES_BYTES &&
	    vars_count(session_tracked(s)) < SETTINGS_MAX)
		buf_add(&s->carry->names, name, strlen(name) + 1);
	else
		s->carry->touched |= SQL_LEAVES_UNNAMED;
}

/* Whether it is to be known without asking what the statement sets: settings that are no
 * more than a name and a value. */
static bool
is_simple(const char *name)
{
	return (name != NULL && strcmp(name, "role") != 0 &&
		strncmp(name, "transaction", 11) != 0 &&
		strncmp(name, "session", 7) != 0 && strcmp(name, "seed") != 0);
}

/* Whether the server takes the value for what is written: not 010, 0x10 or 1_0, which are
 * numbers to it, nor a backslash, which it may read in two ways. */
static bool
is_literal(const struct sql_scan *scan, const char *value)
{
	value += *value == '-' || *value == '+';
	return (memchr(scan->sql, '\\', scan->len) == NULL &&
		(*value < '0' || *value > '9' ||
		    ((*value != '0' || value[1] == '\0' || value[1] == '.') &&
			strchr(value, '_') == NULL)));
}

static void
expect_set(struct session *s, const struct sql_scan *scan)
{
	struct carry *c = s->carry;
	const struct vars *now = session_tracked(s);
	char *reset = sql_reset_name(scan);
	struct sense sense;

	if (reset != NULL) {
		/* RESET ALL leaves the role as it is. */
		if (is_simple(reset) && strchr(reset, '.') == NULL &&
		    (strcmp(reset, "all") != 0 ||
			(vars_get(now, VARS_ROLE) == NULL &&
			    vars_get(now, VARS_AUTHORIZATION) == NULL)))
			c->set_name = mem_str(reset);
		free(reset);
		return;
	}
	sense_make(s->worker, scan->sql, scan->len, &sense);
	if (sense.facts->class == SQL_SET && sense.facts->set_verb == SQL_SET_SET &&
	    sense.facts->value != NULL && is_simple(sense.facts->setting) &&
	    is_literal(scan, sense.facts->value)) {
		c->set_name = mem_str(sense.facts->setting);
		c->set_value = mem_str(sense.facts->value);
	}
	sense_end(&sense);
}

/* Nothing is under way. */
static bool
is_fresh(const struct session *s)
{
	const struct link *l = s->link;

	return (l->txn == 'I' && l->requests.count == 0 && !l->wants_sync);
}

/* PREPARE leaves nothing: its EXECUTE may. */
static bool
is_for_later(const struct session *s, const struct sql_scan *scan)
{
	struct sql_prepare p;
	bool is_it;

	if (!s->rewrites || s->seat->limits.refuses_pins || !sql_prepare_read(scan, &p))
		return (false);
	is_it = p.kind == SQL_PREPARE_MAKE;
	sql_prepare_free(&p);
	return (is_it);
}

/* The statements of a string together. */
struct script_leaves {
	unsigned leaves, count;
	unsigned first; /* of the first one */
	bool restores;
};

static void
script_read(struct session *s, const char *sql, size_t len, struct script_leaves *out)
{
	const char *at = sql, *end = sql + len;
	struct sql_scan scan;
	char *name;

	while (at != NULL) {
		sql_scan(at, (size_t)(end - at), &scan);
		at = scan.next;
		if (!scan.is_empty) {
			unsigned leaves = sql_leaves(&scan) & ~(unsigned)SQL_LEAVES_VIEW;

			if (leaves != 0 && is_for_later(s, &scan))
				leaves = 0;
			if (out->count++ == 0)
				out->first = leaves;
			out->leaves |= leaves;
			if ((leaves & SQL_LEAVES_SETTING) != 0 && session_carries(s)) {
				(void)carry_of(s);
				sql_setting_names(&scan, note_name, s);
			}
			if ((leaves & SQL_LEAVES_RESET) != 0 && !out->restores) {
				name = sql_reset_name(&scan);
				out->restores =
				    name != NULL && carry_restore(s, name, NULL, NULL);
				free(name);
			}
		}
		sql_scan_free(&scan);
	}
}

/* The server is made to fail in its place. */
static void
refuse_query(struct up *u)
{
	static const char text[] = "pgweave refuses this statement";
	struct session *s = u->s;

	s->prep->is_running = true;
	up_to_link(u);
	proto_message(batch_make(&u->batch), 'Q', text, sizeof(text));
	batch_made(&u->batch);
	up_owe(u, REQ_QUERY, ACT_FORWARD);
	up_drop_unnamed(u);
}

/* currval() or lastval() is among what runs; is_first: nothing runs before it in this message.
 * False: the message waits. */
static bool
look_at_sequences(struct up *u, unsigned *leaves, bool is_first, struct refusal *why)
{
	enum sequences_go go = SEQUENCES_RUN;

	if ((*leaves & SQL_LEAVES_SEQUENCE) == 0 || !session_carries(u->s))
		return (true);
	if (!sequences_prefer(u))
		return (false);
	go = is_first ? sequences_check(u->s, why) : SEQUENCES_WITHIN;
	if (go == SEQUENCES_WITHIN)
		*leaves &= ~(unsigned)SQL_LEAVES_SEQUENCE;
	return (true);
}

enum up_verdict
carry_query(struct up *u, const char *sql, size_t len, bool *restores)
{
	struct session *s = u->s;
	struct script_leaves all = {0};
	struct refusal why = {0};
	struct sql_scan scan;

	script_read(s, sql, len, &all);
	u->has_looked = true;
	*restores = all.restores;
	if (s->rewrites)
		all.leaves &= ~(unsigned)SQL_LEAVES_LISTENER;
	if (!look_at_sequences(
		u, &all.leaves, (all.first & SQL_LEAVES_SEQUENCE) != 0, &why))
		return (UP_STOP);
	if (all.leaves == 0)
		return (UP_PASS);
	if (refusal_is_set(&why) ||
	    (session_carries(s) && pin_refuses(s, all.leaves, &why))) {
		if (!prep_settle(u)) {
			refusal_free(&why);
			return (UP_STOP);
		}
		(void)prep_begin(s);
		(void)prep_step_add(s->prep);
		s->prep->refusal = why;
		refuse_query(u);
		return (UP_GO_ON);
	}
	/* What the server reports of DISCARD ALL is not the client's: its own first values hold,
	 * and are known to hold before anything else is sent. */
	if ((all.leaves & SQL_LEAVES_DISCARD) != 0) {
		if (!prep_settle(u))
			return (UP_STOP);
		prep_begin(s)->is_running = true;
		session_settle_vars(s, s->link);
		carry_of(s)->holds_reports = s->link->txn == 'I';
	}
	if (!session_carries(s))
		return (UP_PASS);
	touch(s, all.leaves, sql, len);
	if (all.count == 1 && is_fresh(s) && (all.leaves & SQL_LEAVES_SETTING) != 0 &&
	    s->carry->touched == all.leaves) {
		sql_scan(sql, len, &scan);
		expect_set(s, &scan);
		sql_scan_free(&scan);
	}
	return (UP_PASS);
}

bool
carry_restore(const struct session *s, const char *name, carry_set *each, void *arg)
{
	bool is_discard = strcasecmp(name, CARRY_DISCARD) == 0;
	bool is_all = is_discard || strcasecmp(name, "all") == 0, is_any = false;
	const char *var, *value, *born;
	struct buf sql = {0};
	enum vars_kind kind;

	for (unsigned i = 0; s->startup != NULL && i < vars_count(s->startup); i++) {
		vars_at(s->startup, i, &var, &value, &kind);
		if (kind == VARS_FIXED || strcmp(var, VARS_AUTHORIZATION) == 0 ||
		    (is_all ? !is_discard && strcmp(var, VARS_ROLE) == 0
			    : strcasecmp(var, name) != 0))
			continue;
		born = vars_get(s->link->born, var);
		if (kind == VARS_REPORTED && born != NULL && strcmp(born, value) == 0)
			continue;
		is_any = true;
		if (each == NULL)
			continue;
		sql.len = 0;
		vars_sql_set(&sql, var, value);
		buf_add(&sql, "", 1);
		each(arg, (const char *)sql.mem);
	}
	buf_free(&sql);
	return (is_any);
}

bool
carry_run(struct session *s, const struct stmt *st, bool is_first, struct refusal *why)
{
	unsigned leaves = st->leaves;
	enum sequences_go go = SEQUENCES_RUN;

	if (leaves == 0 || !session_carries(s))
		return (true);
	if ((leaves & SQL_LEAVES_SEQUENCE) != 0)
		go = is_first ? sequences_check(s, why) : SEQUENCES_WITHIN;
	if (go == SEQUENCES_WITHIN)
		leaves &= ~(unsigned)SQL_LEAVES_SEQUENCE;
	if (go != SEQUENCES_REFUSE && leaves != 0)
		touch(s, leaves, (const char *)st->data, st->sql_len);
	return (go != SEQUENCES_REFUSE);
}

/* The server is made to fail the batch in its place. */
static enum up_verdict
refuse_batch(struct up *u, uint32_t size, struct refusal *why)
{
	struct session *s = u->s;

	if (!prep_settle(u)) {
		refusal_free(why);
		return (UP_STOP);
	}
	(void)prep_begin(s);
	(void)prep_step_add(s->prep);
	s->prep->is_batch = s->prep->is_running = true;
	s->prep->refusal = *why;
	up_doom(u);
	return (up_body(u, size + 1, true));
}

/* The names that a Bind gives for the parameters of set_config(). */
struct bound {
	struct session *s;
	const uint8_t *body;
	size_t len, rest;
	bool misses;
};

static void
note_bound(void *arg, const char *name)
{
	struct bound *b = arg;
	size_t at, len;
	bool is_binary;
	char *value;

	if (name[0] != '$') {
		note_name(b->s, name);
		return;
	}
	if (!bind_value(b->body, b->len, b->rest, (unsigned)strtoul(name + 1, NULL, 10),
		&at, &len, &is_binary)) {
		b->misses = true;
		return;
	}
	value = mem_strn((const char *)b->body + at, len);
	note_name(b->s, value);
	free(value);
}

/* Notes the settings that the statement names. False: not all are known. */
static bool
note_names(struct up *u, const struct stmt *st, uint32_t size)
{
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	struct bound b = {.s = u->s, .body = body, .len = size - 4};
	const char *portal, *statement;
	struct sql_scan scan;

	if ((st->leaves & SQL_LEAVES_BY_PARAM) != 0 &&
	    (u->len - u->used - PROTO_HEAD < b.len ||
		proto_bind_names(body, b.len, &portal, &statement, &b.rest) != 0))
		b.len = b.rest = 0;
	(void)carry_of(u->s);
	sql_scan((const char *)st->data, st->sql_len, &scan);
	sql_setting_names(&scan, note_bound, &b);
	sql_scan_free(&scan);
	return (!b.misses);
}

/* What the statement resets; NULL: nothing. */
static char *
reset_of(const char *sql, size_t len)
{
	struct sql_scan scan;
	char *reset;

	sql_scan(sql, len, &scan);
	reset = (sql_leaves(&scan) & SQL_LEAVES_DISCARD) != 0 ? mem_str(CARRY_DISCARD)
							      : sql_reset_name(&scan);
	sql_scan_free(&scan);
	return (reset);
}

enum up_verdict
carry_bind(struct up *u, const struct stmt *st, const char *portal, uint32_t size)
{
	struct session *s = u->s;
	struct refusal why = {0};
	unsigned leaves;

	if (st == NULL || st->leaves == 0 ||
	    (st->prepare == SQL_PREPARE_MAKE && !s->seat->limits.refuses_pins)) {
		if (s->carry != NULL)
			name_forget(&s->carry->portals, portal);
		return (UP_PASS);
	}
	leaves = st->leaves;
	if ((leaves & SQL_LEAVES_BY_PARAM) != 0 && size <= SESSION_WHOLE_MAX &&
	    u->len - u->used - PROTO_HEAD < size - 4)
		return (UP_STOP);
	if ((leaves & SQL_LEAVES_SETTING) != 0 && note_names(u, st, size))
		leaves &= ~(unsigned)SQL_LEAVES_BY_PARAM;
	leaves = unless_bound(leaves);
	if (!look_at_sequences(u, &leaves, true, &why))
		return (UP_STOP);
	if (refusal_is_set(&why) || pin_refuses(s, leaves, &why))
		return (refuse_batch(u, size, &why));
	touch(s, leaves | ((leaves & SQL_LEAVES_DISCARD) != 0 ? SQL_LEAVES_SETTING : 0),
	    (const char *)st->data, st->sql_len);
	name_note(
	    &s->carry->portals, portal, reset_of((const char *)st->data, st->sql_len));
	return (UP_PASS);
}

/* One SET behind the Execute of a RESET. */
static void
inject(void *arg, const char *sql)
{
	prep_run_own(arg, "pgw_reset", sql, (struct hash128){0});
}

enum up_verdict
carry_execute(struct up *u, uint32_t size)
{
	struct session *s = u->s;
	const struct carry_name *p;
	const uint8_t *head = u->p + u->used;
	const char *portal = (const char *)head + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD;

	if (size > SESSION_NAMES_MAX || size < 9)
		return (UP_PASS);
	if (have < size - 4)
		return (UP_STOP);
	if (strnlen(portal, size - 4) == size - 4 ||
	    (p = name_find(&s->carry->portals, portal)) == NULL)
		return (UP_PASS);
	up_owe(u, REQ_EXECUTE, ACT_FORWARD)->is_looked = true;
	batch_pass(&u->batch, head, (size_t)size + 1);
	if (p->reset != NULL)
		(void)carry_restore(s, p->reset, inject, u);
	return (up_body(u, size + 1, true));
}

enum up_verdict
carry_parse(struct up *u, uint32_t size)
{
	const char *body = (const char *)u->p + u->used + PROTO_HEAD, *sql;
	size_t have = u->len - u->used - PROTO_HEAD;
	struct refusal why = {0};
	unsigned leaves;

	if (have > size - 4)
		have = size - 4;
	sql = memchr(body, '\0', have);
	if (sql == NULL)
		return (UP_PASS);
	sql++;
	have = strnlen(sql, have - (size_t)(sql - body));
	leaves = carry_leaves(sql, have) & ~(unsigned)SQL_LEAVES_VIEW;
	if (!look_at_sequences(u, &leaves, true, &why))
		return (UP_STOP);
	if (refusal_is_set(&why))
		return (refuse_batch(u, size, &why));
	if (leaves != 0)
		touch(u->s, leaves, sql, have);
	return (UP_PASS);
}

/* Whether the letters may be of RESET, SET … TO DEFAULT or DISCARD ALL, or of a comment. */
static bool
may_reset(const char *sql, size_t len)
{
	int a, b, c;

	while (len > 0 && strchr(" \t\n\r\f\v", *sql) != NULL && *sql != '\0') {
		sql++;
		len--;
	}
	a = len > 2 ? sql[0] | 0x20 : 0;
	b = len > 2 ? sql[1] | 0x20 : 0;
	c = len > 2 ? sql[2] | 0x20 : 0;
	return (a < 'a' ||
		(c == 's' && ((a == 'r' && b == 'e') || (a == 'd' && b == 'i'))) ||
		(a == 's' && b == 'e' && c == 't'));
}

enum up_verdict
carry_parse_own(struct up *u, uint32_t size)
{
	const char *name = (const char *)u->p + u->used + PROTO_HEAD, *sql;
	size_t have = u->len - u->used - PROTO_HEAD;
	struct session *s = u->s;
	char *reset;

	if (have > size - 4)
		have = size - 4;
	sql = memchr(name, '\0', have);
	if (sql == NULL)
		return (have < size - 4 && size <= RESET_BYTES ? UP_STOP : UP_PASS);
	if (s->carry != NULL)
		name_forget(&s->carry->later, name);
	sql++;
	if (size > RESET_BYTES || !may_reset(sql, have - (size_t)(sql - name)))
		return (UP_PASS);
	if (have < size - 4)
		return (UP_STOP);
	have = strnlen(sql, have - (size_t)(sql - name));
	reset = reset_of(sql, have);
	if (reset != NULL && carry_restore(s, reset, NULL, NULL))
		name_note(&carry_of(s)->later, name, reset);
	else
		free(reset);
	return (UP_PASS);
}

enum up_verdict
carry_bind_own(struct up *u, uint32_t size)
{
	const uint8_t *body = u->p + u->used + PROTO_HEAD;
	size_t have = u->len - u->used - PROTO_HEAD, rest;
	struct carry *c = u->s->carry;
	const char *portal, *statement;
	const struct carry_name *it;

	if (have > size - 4)
		have = size - 4;
	if (proto_bind_names(body, have, &portal, &statement, &rest) != 0)
		return (have < size - 4 && have <= SESSION_NAMES_MAX ? UP_STOP : UP_PASS);
	name_forget(&c->portals, portal);
	it = name_find(&c->later, statement);
	if (it != NULL)
		name_note(&c->portals, portal, mem_str(it->reset));
	return (UP_PASS);
}

/* ---- what comes ---- */

void
carry_tag(struct session *s, const struct request *r, const char *tag)
{
	unsigned leaves = 0;

	if (r->is_looked)
		return;
	/* SELECT INTO, CREATE TABLE AS: no rows were described. */
	if (tag[0] == 'S' && tag[2] == 'L')
		leaves = r->kind == REQ_QUERY ? SQL_LEAVES_TABLE : 0;
	else if (strcmp(tag, "SET") == 0 || strcmp(tag, "RESET") == 0 ||
		 strcmp(tag, "DO") == 0)
		leaves = SQL_LEAVES_SETTING;
	else if (strcmp(tag, "LISTEN") == 0 && !r->is_prepare)
		leaves = SQL_LEAVES_LISTENER;
	else if (strcmp(tag, "DECLARE CURSOR") == 0)
		leaves = SQL_LEAVES_CURSOR;
	if (leaves != 0)
		touch(s, leaves, tag, strlen(tag));
}

void
carry_discarded(struct session *s)
{
	if (s->carry == NULL)
		return;
	track(s, NULL);
	pin_set(s, CARRY_PINS, 0);
	s->carry->is_discarded = true;
}

void
carry_report(struct session *s)
{
	struct vars *now = s->was_discarded ? s->startup : s->link->vars;
	const char *name, *value, *old;
	struct buf out = {0};
	enum vars_kind kind;

	s->carry->holds_reports = false;
	for (unsigned i = 0; now != s->vars && i < vars_count(now); i++) {
		vars_at(now, i, &name, &value, &kind);
		old = kind != VARS_STARTUP ? vars_get(s->vars, name) : value;
		if (old == NULL || strcmp(old, value) != 0)
			proto_parameter_status(&out, name, value);
	}
	if (out.len > 0)
		stream_write(&s->stream, out.mem, out.len);
	buf_free(&out);
	vars_hold(now);
	vars_release(s->worker, s->vars);
	s->vars = now;
}

/* The link has these and no others; so has the session. */
void
carry_settings_are(struct session *s, struct link *l, struct vars *now)
{
	l->vars = vars_with_startup(s->worker, l->vars, now);
	track(s, now);
}

/* A SET or RESET that stood alone has done what it said. */
static void
set_done(struct session *s, struct link *l)
{
	struct carry *c = s->carry;
	const char *first = vars_get(s->startup, c->set_name), *name, *value;
	const struct vars *was = session_tracked(s);
	struct vars *now = vars_none(s->worker);
	enum vars_kind kind;

	if (c->set_value == NULL && strcmp(c->set_name, "all") == 0)
		was = s->startup;
	for (unsigned i = 0; i < vars_count(was); i++) {
		vars_at(was, i, &name, &value, &kind);
		if (kind == VARS_STARTUP && strcasecmp(name, c->set_name) != 0)
			now = vars_with(s->worker, now, name, value, kind);
	}
	/* What the server reports is told by its reports. */
	if (vars_get(l->born, c->set_name) == NULL &&
	    (c->set_value != NULL || first != NULL))
		now = vars_with(s->worker, now, c->set_name,
		    c->set_value != NULL ? c->set_value : first, VARS_STARTUP);
	carry_settings_are(s, l, now);
}

static void
add_restored(void *arg, const char *sql)
{
	buf_addstr(arg, sql);
	buf_addstr(arg, ";");
}

static void
restored(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;

	s->carry->is_asking = false;
	if (error != NULL) {
		l->is_dirty = true;
		session_close(s, error->sqlstate, error->message);
		return;
	}
	session_release_if_done(s);
	if (s->link != NULL)
		s->is_refused = false;
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}

/* DISCARD ALL holds, and the SETs behind it do not: what failed in their batch has undone them. */
static void
restore(struct session *s, struct link *l)
{
	struct carry *c = s->carry;
	struct buf sql = {0};

	c->must_restore = false;
	c->is_asking = true;
	(void)carry_restore(s, CARRY_DISCARD, add_restored, &sql);
	buf_add(&sql, ";", 2);
	link_run(l, (const char *)sql.mem, restored, s);
	buf_free(&sql);
	session_flow(s);
}

bool
carry_rest(struct session *s)
{
	struct carry *c = s->carry;
	struct link *l = s->link;
	unsigned touched = c->touched, asks;

	names_forget(&c->portals);
	if (c->must_restore) {
		restore(s, l);
		return (true);
	}
	if (s->mode == POOL_SESSION)
		return (false);
	asks = touched & (SQL_LEAVES_SETTING | CARRY_ASKED);
	if ((touched & SQL_LEAVES_LESS) != 0)
		asks |= c->pins.held & CARRY_ASKED;
	if ((touched & SQL_LEAVES_UNSEEN) != 0)
		asks |= CARRY_ASKED;
	if (c->set_name != NULL && !c->has_failed) {
		asks &= ~(unsigned)SQL_LEAVES_SETTING;
		set_done(s, l);
	}
	forget_set(c);
	/* What has failed has told nothing. */
	if (c->has_failed)
		touched &= ~(unsigned)(SQL_LEAVES_SEQUENCE | SQL_LEAVES_NO_SEQUENCE);
	if ((touched & SQL_LEAVES_NO_SEQUENCE) != 0)
		pin_set(s, SQL_LEAVES_SEQUENCE, 0);
	pin_set(s, touched & CARRY_PINS & ~(unsigned)CARRY_ASKED, touched);
	c->touched = 0;
	c->has_failed = false;
	if (asks != 0)
		carry_ask(s, asks);
	c->names.len = 0;
	if (asks != 0)
		return (true);
	pins_forget(&c->pins);
	/* A tag of SET LOCAL has put the link in doubt. */
	if (touched != 0 && !s->was_discarded)
		l->vars = vars_with_startup(s->worker, l->vars, session_tracked(s));
	if (c->pins.held == 0)
		return (false);
	session_settle_vars(s, l);
	if (s->listens != NULL)
		listen_flush(s);
	return (true);
}

bool
carry_may_lose(const struct carry *c)
{
	return (c->pins.held == 0 && !c->is_asking &&
		(c->touched &
		    ~(unsigned)(SQL_LEAVES_LOCAL | SQL_LEAVES_LESS | SQL_LEAVES_SEQUENCE |
				SQL_LEAVES_NO_SEQUENCE)) == 0);
}

void
carry_taint(struct session *s, struct link *l)
{
	const struct carry *c = s->carry;

	if (c == NULL || (c->touched == 0 && c->pins.held == 0))
		return;
	l->is_tainted = true;
	/* What it leaves must go, whatever the reset query does. */
	if (c->pins.held != 0 &&
	    strcasecmp(pool_settings(s->worker)->server_reset_query, "DISCARD ALL") != 0)
		l->is_dirty = true;
	if ((c->pins.held & SQL_LEAVES_SEED) != 0)
		l->is_dirty = true;
}
