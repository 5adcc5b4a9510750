/*
 * What a session of a plain database has set and what pins it, as the server says: one question,
 * asked on its link when that is at rest. The session's own settings are in force meanwhile, and
 * must not bend the answer: operators are named with their schema, and what else could is put
 * aside for the question and told apart from it.
 */
#include "carry.h"
#include "listen.h"
#include <stdlib.h>
#include <string.h>

/* What the session has set; who it is, the server reports. A transaction's own modes are not
 * settings of the session, though SET knows them. */
static const char settings_question[] =
    "SELECT CASE WHEN name OPERATOR(pg_catalog.=) 'statement_timeout' THEN 't' ELSE 's' END, "
    "name, CASE WHEN name OPERATOR(pg_catalog.=) 'statement_timeout' THEN reset_val "
    "ELSE pg_catalog.current_setting(name) END FROM pg_catalog.pg_settings "
    "WHERE source OPERATOR(pg_catalog.=) 'session' AND "
    "name OPERATOR(pg_catalog.!~) '^transaction_'";
/* Before it, what would be in its way: it must neither end early nor see less than there is. */
static const char question_begin[] =
    "SHOW statement_timeout;SHOW role;"
    "SET LOCAL statement_timeout = 0;SET LOCAL role = none;";

static void
add_name(struct buf *sql, const char *name, bool *is_any)
{
	buf_addstr(sql, *is_any ? ", "
				: " UNION ALL SELECT 's', n, "
				  "pg_catalog.current_setting(n, true) "
				  "FROM pg_catalog.unnest(ARRAY[");
	vars_sql_literal(sql, name);
	*is_any = true;
}

static void
add_question(const struct session *s, struct buf *sql)
{
	const struct carry *c = s->carry;
	const struct vars *is = session_tracked(s);
	const char *name, *value;
	enum vars_kind kind;
	bool is_any = false;

	buf_addstr(sql, settings_question);
	for (unsigned i = 0; i < vars_count(is); i++) {
		vars_at(is, i, &name, &value, &kind);
		if (kind == VARS_STARTUP && strchr(name, '.') != NULL)
			add_name(sql, name, &is_any);
	}
	for (uint32_t at = 0; at < c->names.len; at += (uint32_t)strlen(name) + 1) {
		name = (const char *)c->names.mem + at;
		add_name(sql, name, &is_any);
	}
	if (is_any)
		buf_addstr(sql, "]::pg_catalog.text[]) AS n");
}

char *
ask_value(const uint8_t *p, size_t len, size_t *at)
{
	uint32_t size = *at + 4 <= len ? proto_get32(p + *at) : UINT32_MAX;
	char *value;

	*at += 4;
	if (size == UINT32_MAX || size > len - *at)
		return (NULL);
	value = mem_strn((const char *)p + *at, size);
	*at += size;
	return (value);
}

static void
answer_set(struct session *s, const char *name, const char *value)
{
	s->carry->asked =
	    vars_with(s->worker, s->carry->asked, name, value, VARS_STARTUP);
}

/* What SHOW says, the first of them statement_timeout; owned. */
static void
answer_shown(struct session *s, char *value)
{
	struct carry *c = s->carry;

	if (c->shown++ == 0) {
		free(c->timeout);
		c->timeout = value;
		return;
	}
	if (value != NULL && strcmp(value, "none") != 0)
		answer_set(s, VARS_ROLE, value);
	free(value);
}

/* As the server writes it: 0, 250ms, 5s, 2min … */
static long long
timeout_ms(const char *text)
{
	static const struct {
		const char *name;
		long long ms;
	} units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000},
	    {"d", 86400000}};
	char *unit;
	long long n = strtoll(text, &unit, 10);

	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (strcmp(unit, units[i].name) == 0)
			return (n * units[i].ms);
	return (-1);
}

/* It is the session's own when it is not what it was at first. */
static void
answer_timeout(struct session *s, const char *first)
{
	const char *is = s->carry->timeout;

	if (is != NULL && first != NULL && timeout_ms(is) != timeout_ms(first))
		answer_set(s, "statement_timeout", is);
}

/* 's', a setting and its value; or 'p' and a pin. */
static void
answer_row(void *arg, const uint8_t *p, size_t len)
{
	struct session *s = arg;
	struct carry *c = s->carry;
	size_t at = 2;
	char *kind = ask_value(p, len, &at), *name, *value;

	if (c->shown < 2) {
		answer_shown(s, kind);
		return;
	}
	name = ask_value(p, len, &at);
	value = ask_value(p, len, &at);
	if (kind != NULL && kind[0] == 't')
		answer_timeout(s, value);
	else if (kind != NULL && name != NULL && value != NULL) {
		if (kind[0] == 'p')
			c->found |= pin_of_row(name);
		else if (vars_get(s->link->born, name) == NULL)
			answer_set(s, name, value);
	}
	free(kind);
	free(name);
	free(value);
}

/* SET SESSION AUTHORIZATION. */
static void
add_authorization(struct session *s, struct link *l)
{
	struct carry *c = s->carry;
	const char *is = vars_get(l->vars, "session_authorization"),
		   *was = vars_get(l->born, "session_authorization");

	if (is != NULL && was != NULL && strcmp(is, was) != 0)
		c->asked =
		    vars_with(s->worker, c->asked, VARS_AUTHORIZATION, is, VARS_STARTUP);
}

static void
answered(struct link *l, void *arg, const struct proto_error_fields *error)
{
	struct session *s = arg;
	struct carry *c = s->carry;

	c->is_asking = false;
	if (error != NULL) {
		l->is_dirty = true;
		session_close(s, error->sqlstate, error->message);
		return;
	}
	if ((c->asks & SQL_LEAVES_SETTING) != 0) {
		add_authorization(s, l);
		carry_settings_are(s, l, c->asked);
		c->asked = NULL;
	} else
		l->vars = vars_with_startup(s->worker, l->vars, session_tracked(s));
	pin_set(s, c->asks & CARRY_ASKED, c->found);
	pins_forget(&c->pins);
	session_release_if_done(s);
	/* A cancel request meanwhile was for what waits, not for what comes some day. */
	if (s->link != NULL)
		s->is_refused = false;
	if (s->state != SESSION_CLOSED)
		session_flow(s);
}

void
carry_ask(struct session *s, unsigned asks)
{
	struct carry *c = s->carry;
	struct buf sql = {0};

	buf_addstr(&sql, question_begin);
	if ((asks & SQL_LEAVES_SETTING) != 0)
		add_question(s, &sql);
	if ((asks & CARRY_ASKED) != 0)
		buf_addf(&sql, "%s%s",
		    (asks & SQL_LEAVES_SETTING) != 0 ? " UNION ALL " : "", pin_question);
	buf_add(&sql, "", 1);
	c->asks = asks;
	c->found = c->shown = 0;
	c->is_asking = true;
	if (c->asked != NULL)
		vars_release(s->worker, c->asked);
	c->asked = vars_none(s->worker);
	link_run_rows(s->link, (const char *)sql.mem, answer_row, answered, s);
	buf_free(&sql);
	session_flow(s);
}
