/*
 * Sets of session parameters. Equal sets are one object per worker (they are interned by a
 * hash of their contents), so that "the link has what the session wants" is one comparison
 * of pointers, and ten thousand idle clients share a handful of sets.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct var {
	const char *name, *value; /* into data */
	enum vars_kind kind;
};

struct vars {
	struct table_node node;
	struct hash128 id;
	unsigned refs, count;
	size_t bytes;
	uint64_t reading; /* a hash of what texts are read under */
	struct vars *canonical;
	struct var var[]; /* sorted by name, without regard to case; strings behind it */
};

/* What PostgreSQL reports and lets a client set (GUC_REPORT, versions 12 to 18). */
static const char *const settable[] = {"application_name", "client_encoding", "DateStyle",
    "default_transaction_read_only", "IntervalStyle", "search_path",
    "standard_conforming_strings", "TimeZone"};

static bool
is_tracked(const char *list, const char *name)
{
	size_t len = strlen(name), n;

	for (; list != NULL && *list != '\0'; list += n) {
		list += strspn(list, ", \t");
		n = strcspn(list, ", \t");
		if (n == len && n > 0 && strncasecmp(list, name, n) == 0)
			return (true);
	}
	return (false);
}

enum vars_kind
vars_kind_of(const struct worker *w, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(settable); i++)
		if (strcasecmp(name, settable[i]) == 0)
			return (VARS_REPORTED);
	return (is_tracked(link_worker(w)->tracked, name) ? VARS_REPORTED : VARS_FIXED);
}

void
vars_track(struct worker *w, const char *names)
{
	struct link_worker *lw = link_worker(w);

	free(lw->tracked);
	lw->tracked = mem_str(names);
}

static bool
vars_same(const struct table_node *n, const void *key)
{
	const struct vars *a = CONTAINER_OF(n, const struct vars, node);
	const struct hash128 *id = key;

	return (a->id.hi == id->hi && a->id.lo == id->lo);
}

/* What no constant hangs on, and clients like to have each their own. */
static bool
is_for_reading(const struct var *v)
{
	static const char *const others[] = {"application_name", "statement_timeout",
	    "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
	    "extra_float_digits", "in_hot_standby", "default_transaction_read_only"};

	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		if (strcasecmp(v->name, others[i]) == 0)
			return (false);
	return (true);
}

static uint64_t
reading_of(const struct vars *v)
{
	struct buf all = {0};
	uint64_t hash;

	for (unsigned i = 0; i < v->count; i++)
		if (is_for_reading(&v->var[i])) {
			buf_add(&all, v->var[i].name, strlen(v->var[i].name) + 1);
			buf_add(&all, v->var[i].value, strlen(v->var[i].value) + 1);
		}
	hash = hash_bytes(all.mem, all.len);
	buf_free(&all);
	return (hash);
}

uint64_t
vars_reading(const struct vars *v)
{
	return (v->reading);
}

/* The one object with these contents, with a reference for the caller. */
static struct vars *
vars_intern(struct worker *w, const struct var *list, unsigned count)
{
	struct link_worker *lw = link_worker(w);
	size_t size = sizeof(struct vars) + count * sizeof(struct var), text = 0;
	struct buf all = {0};
	struct table_node *n;
	struct hash128 id;
	struct vars *v;
	char *at;

	for (unsigned i = 0; i < count; i++) {
		buf_add(&all, list[i].name, strlen(list[i].name) + 1);
		buf_add(&all, list[i].value, strlen(list[i].value) + 1);
		buf_add(&all, &list[i].kind, sizeof(list[i].kind));
		text += strlen(list[i].name) + strlen(list[i].value) + 2;
	}
	id = hash_pair(all.mem, all.len, "", 0);
	buf_free(&all);
	n = table_find(&lw->vars, id.lo, vars_same, &id);
	if (n != NULL)
		return (vars_hold(CONTAINER_OF(n, struct vars, node)));
	v = mem_alloc(size + text);
	v->id = id;
	v->refs = 1;
	v->count = count;
	v->bytes = size + text;
	at = (char *)v + size;
	for (unsigned i = 0; i < count; i++) {
		size_t nlen = strlen(list[i].name) + 1, vlen = strlen(list[i].value) + 1;

		v->var[i] = (struct var){at, at + nlen, list[i].kind};
		memcpy(at, list[i].name, nlen);
		memcpy(at + nlen, list[i].value, vlen);
		at += nlen + vlen;
	}
	v->reading = reading_of(v);
	table_add(&lw->vars, &v->node, id.lo);
	lw->vars_bytes += v->bytes;
	return (v);
}

struct vars *
vars_none(struct worker *w)
{
	return (vars_intern(w, NULL, 0));
}

struct vars *
vars_hold(struct vars *v)
{
	v->refs++;
	return (v);
}

void
vars_release(struct worker *w, struct vars *v)
{
	struct link_worker *lw = link_worker(w);

	if (v == NULL)
		return;
	INVARIANT(v->refs > 0);
	if (--v->refs > 0)
		return;
	table_remove(&lw->vars, &v->node);
	lw->vars_bytes -= v->bytes;
	vars_release(w, v->canonical);
	free(v);
}

struct vars *
vars_with(struct worker *w, struct vars *v, const char *name, const char *value,
    enum vars_kind kind)
{
	struct var *list = mem_alloc((v->count + 1) * sizeof(list[0]));
	struct vars *result;
	unsigned n = 0, i = 0;

	for (; i < v->count && strcasecmp(v->var[i].name, name) < 0; i++)
		list[n++] = v->var[i];
	if (value != NULL)
		list[n++] = (struct var){name, value, kind};
	if (i < v->count && strcasecmp(v->var[i].name, name) == 0) {
		/* The spelling and kind that the server reported stay. */
		if (value != NULL && v->var[i].kind != VARS_STARTUP) {
			list[n - 1].name = v->var[i].name;
			list[n - 1].kind = v->var[i].kind;
		}
		i++;
	}
	for (; i < v->count; i++)
		list[n++] = v->var[i];
	result = vars_intern(w, list, n);
	free(list);
	vars_release(w, v);
	return (result);
}

struct vars *
vars_without_startup(struct worker *w, struct vars *v)
{
	struct var *list = mem_alloc((v->count + 1) * sizeof(list[0]));
	struct vars *result;
	unsigned n = 0;

	for (unsigned i = 0; i < v->count; i++)
		if (v->var[i].kind != VARS_STARTUP)
			list[n++] = v->var[i];
	result = vars_intern(w, list, n);
	free(list);
	vars_release(w, v);
	return (result);
}

struct vars *
vars_with_startup(struct worker *w, struct vars *v, const struct vars *of)
{
	const struct vars *from = of != NULL ? of : v;
	struct vars *result = vars_without_startup(w, vars_hold(v));

	for (unsigned i = 0; i < from->count; i++)
		if (from->var[i].kind == VARS_STARTUP)
			result = vars_with(w, result, from->var[i].name,
			    of != NULL ? from->var[i].value : "\001", VARS_STARTUP);
	vars_release(w, v);
	return (result);
}

const char *
vars_get(const struct vars *v, const char *name)
{
	for (unsigned i = 0; i < v->count; i++)
		if (strcasecmp(v->var[i].name, name) == 0)
			return (v->var[i].value);
	return (NULL);
}

unsigned
vars_count(const struct vars *v)
{
	return (v->count);
}

void
vars_at(const struct vars *v, unsigned i, const char **name, const char **value,
    enum vars_kind *kind)
{
	INVARIANT(i < v->count);
	*name = v->var[i].name;
	*value = v->var[i].value;
	*kind = v->var[i].kind;
}

void
vars_sql_literal(struct buf *out, const char *s)
{
	bool has_backslash = strchr(s, '\\') != NULL;

	buf_addstr(out, has_backslash ? " E'" : "'");
	for (; *s != '\0'; s++) {
		if (*s == '\'' || *s == '\\')
			buf_add(out, s, 1);
		buf_add(out, s, 1);
	}
	buf_addstr(out, "'");
}

/* An identifier of one or two parts (extension.setting). */
static void
sql_setting_name(struct buf *out, const char *s)
{
	buf_addstr(out, "\"");
	for (; *s != '\0'; s++) {
		if (*s == '"')
			buf_addstr(out, "\"");
		if (*s == '.')
			buf_addstr(out, "\".\"");
		else
			buf_add(out, s, 1);
	}
	buf_addstr(out, "\"");
}

/* Settings that are lists of names: SET takes each name as a value of its own. */
static bool
is_list_of_names(const char *name)
{
	static const char *const names[] = {"search_path", "temp_tablespaces",
	    "session_preload_libraries", "local_preload_libraries"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcasecmp(names[i], name) == 0)
			return (true);
	return (false);
}

/* One name of a list: to where the next comma stands, or its end. */
static const char *
list_name(const char *at, struct buf *name)
{
	at += strspn(at, " \t\n\r\f");
	if (*at == '"') {
		for (at++; *at != '\0' && (*at != '"' || at[1] == '"'); at++) {
			at += *at == '"';
			buf_add(name, at, 1);
		}
		at += *at == '"';
	} else
		for (; *at != '\0' && *at != ',' && strchr(" \t\n\r\f", *at) == NULL;
		     at++) {
			char c = *at >= 'A' && *at <= 'Z' ? (char)(*at | 0x20) : *at;

			buf_add(name, &c, 1);
		}
	at += strcspn(at, ",");
	return (at);
}

void
vars_sql_set(struct buf *out, const char *name, const char *value)
{
	struct buf part = {0};

	buf_addstr(out, "SET ");
	sql_setting_name(out, name);
	buf_addstr(out, " TO ");
	if (!is_list_of_names(name))
		vars_sql_literal(out, value);
	else
		for (const char *at = value;; at++) {
			part.len = 0;
			at = list_name(at, &part);
			buf_add(&part, "", 1);
			vars_sql_literal(out, (const char *)part.mem);
			if (*at == '\0')
				break;
			buf_addstr(out, ",");
		}
	buf_addstr(out, ";");
	buf_free(&part);
}

static bool
is_identity(const char *name)
{
	return (strcmp(name, VARS_ROLE) == 0 || strcmp(name, VARS_AUTHORIZATION) == 0);
}

/* All but who the session is. */
static void
settings_sql(const struct vars *is, const struct vars *want, struct buf *out)
{
	uint32_t before = out->len;
	const char *value;

	for (unsigned i = 0; i < want->count; i++) {
		const struct var *v = &want->var[i];

		if (v->kind == VARS_FIXED || is_identity(v->name))
			continue;
		value = vars_get(is, v->name);
		if (value != NULL && strcmp(value, v->value) == 0)
			continue;
		/* set_config() takes lists (search_path, DateStyle) as they are written; SET
		 * would take a quoted list for one name. */
		buf_addstr(
		    out, before == out->len ? "SELECT set_config(" : ", set_config(");
		vars_sql_literal(out, v->name);
		buf_addstr(out, ",");
		vars_sql_literal(out, v->value);
		buf_addstr(out, ",false)");
	}
	if (out->len > before)
		buf_addstr(out, ";");
	for (unsigned i = 0; i < is->count; i++) {
		const struct var *v = &is->var[i];

		if (v->kind != VARS_STARTUP || vars_get(want, v->name) != NULL ||
		    is_identity(v->name))
			continue;
		buf_addstr(out, "RESET ");
		sql_setting_name(out, v->name);
		buf_addstr(out, ";");
	}
}

static bool
differs(const struct vars *a, const struct vars *b, const char *name)
{
	const char *x = vars_get(a, name), *y = vars_get(b, name);

	return (x == NULL || y == NULL ? x != y : strcmp(x, y) != 0);
}

/* What a role has set another may not set: so its own self comes before, and the other's
 * behind. */
bool
vars_sql(const struct vars *is, const struct vars *want, struct buf *out)
{
	struct buf settings = {0};
	const char *role = vars_get(want, VARS_ROLE),
		   *authorization = vars_get(want, VARS_AUTHORIZATION);
	bool is_other;

	if (is == want)
		return (false);
	settings_sql(is, want, &settings);
	is_other = settings.len > 0 || differs(is, want, VARS_ROLE) ||
		   differs(is, want, VARS_AUTHORIZATION);
	if (is_other && vars_get(is, VARS_ROLE) != NULL)
		buf_addstr(out, "RESET ROLE;");
	if (is_other && vars_get(is, VARS_AUTHORIZATION) != NULL)
		buf_addstr(out, "RESET SESSION AUTHORIZATION;");
	buf_add(out, settings.mem, settings.len);
	if (is_other && authorization != NULL) {
		buf_addstr(out, "SET SESSION AUTHORIZATION ");
		vars_sql_literal(out, authorization);
		buf_addstr(out, ";");
	}
	if (is_other && role != NULL)
		vars_sql_set(out, VARS_ROLE, role);
	buf_free(&settings);
	return (is_other);
}

struct vars *
vars_canonical(const struct vars *v)
{
	return (v->canonical);
}

void
vars_set_canonical(struct worker *w, struct vars *v, struct vars *canonical)
{
	struct link_worker *lw = link_worker(w);
	struct vars *was = v->canonical, *out;

	if (canonical == v)
		return;
	v->canonical = vars_hold(canonical);
	if (was != NULL) {
		vars_release(w, was);
		return;
	}
	out = lw->recent[lw->recent_at];
	lw->recent[lw->recent_at] = vars_hold(v);
	lw->recent_at = (lw->recent_at + 1) % VARS_RECENT;
	vars_release(w, out);
}

void
vars_forget_recent(struct worker *w)
{
	struct link_worker *lw = link_worker(w);

	for (unsigned i = 0; i < VARS_RECENT; i++) {
		vars_release(w, lw->recent[i]);
		lw->recent[i] = NULL;
	}
}

size_t
vars_bytes(const struct worker *w)
{
	return (link_worker(w)->vars_bytes);
}

struct vars *
vars_export(const struct vars *v)
{
	struct vars *copy = mem_dup(v, v->bytes);

	copy->canonical = NULL;
	for (unsigned i = 0; i < v->count; i++) {
		copy->var[i].name = (char *)copy + (v->var[i].name - (const char *)v);
		copy->var[i].value = (char *)copy + (v->var[i].value - (const char *)v);
	}
	return (copy);
}

struct vars *
vars_import(struct worker *w, struct vars *copy)
{
	struct vars *v = vars_intern(w, copy->var, copy->count);

	free(copy);
	return (v);
}
