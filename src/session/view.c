/*
 * pg_prepared_statements where links are shared. The server's own view has what anybody has
 * prepared on the link, under the proxy's names; a client is to see its own, under its own:
 *
 *   client   select name from pg_prepared_statements
 *   server   SET LOCAL pgweave.prepared TO '…';
 *            WITH pg_prepared_statements AS (… the list, and what the server knows of it …)
 *            select name from pg_prepared_statements
 *
 * The list is told anew before each use, so that the text is the same for everybody, and may be
 * prepared itself. What of it the link lacks is prepared there first, as long as there is room;
 * of the rest the server does not know what types parameters have that the client did not
 * declare: NULL.
 */
#include "carry.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Of one list. */
#define LIST_STATEMENTS 10000
#define LIST_BYTES      ((size_t)16 * 1024 * 1024)

#define ITEM(n)         "pg_catalog.split_part(e, '|', " #n ")"
#define TEXT(n)                                                                          \
	"pg_catalog.convert_from(pg_catalog.decode(" ITEM(                               \
	    n) ", 'hex'), pg_catalog.pg_client_encoding())"
#define BEGIN                                                                            \
	"pg_prepared_statements AS (SELECT " TEXT(1) " AS name, " TEXT(                  \
	    2) " AS statement, "                                                         \
	       "'epoch'::pg_catalog.timestamptz OPERATOR(pg_catalog.+) (" ITEM(          \
		   3) "::pg_catalog.float8 OPERATOR(pg_catalog.*) "                      \
		      "'1 microsecond'::pg_catalog.interval) AS prepare_time, "          \
		      "COALESCE(s.parameter_types, NULLIF(" ITEM(                        \
			  4) ", '')::pg_catalog.regtype[]) AS parameter_types, "
#define FROM_SQL ITEM(5) "::pg_catalog.bool AS from_sql"
#define RESULT   "s.result_types, "
#define PLANS                                                                            \
	", COALESCE(s.generic_plans, 0) AS generic_plans, "                              \
	"COALESCE(s.custom_plans, 0) AS custom_plans"
#define END                                                                              \
	" FROM pg_catalog.unnest(pg_catalog.string_to_array("                            \
	"pg_catalog.current_setting('pgweave.prepared', true), ';')) AS e "              \
	"LEFT JOIN pg_catalog.pg_prepared_statement() AS s ON s.name "                   \
	"OPERATOR(pg_catalog.=) " ITEM(6) ")"

/* By what servers have of it. */
static const struct {
	int version;
	const char *with;
} forms[] = {
    {160000, BEGIN RESULT FROM_SQL PLANS END},
    {140000, BEGIN FROM_SQL PLANS END},
    {0, BEGIN FROM_SQL END},
};
_Static_assert(ARRAY_LEN(forms) == STMT_VIEWS, "a text for each");

static unsigned
form_of(const struct session *s)
{
	const char *version = vars_get(s->link->vars, "server_version");
	long major = version != NULL ? strtol(version, NULL, 10) : 0;
	unsigned i = 0;

	while (major * 10000 < forms[i].version)
		i++;
	return (i);
}

/* What is put into the text. */
static void
put_with(struct buf *out, unsigned form, const struct sql_view *view)
{
	buf_addf(out, "%s%s%s%s", view->is_behind_with ? "" : "WITH ", forms[form].with,
	    view->calls
		? ", pg_prepared_statement AS (SELECT * FROM pg_prepared_statements)"
		: "",
	    view->is_behind_with ? ", " : " ");
}

static void
read_view(const char *sql, size_t len, struct sql_view *view)
{
	struct sql_scan scan;

	sql_scan(sql, len, &scan);
	/* The text begins with the statement, but for blanks and comments. */
	INVARIANT(sql_view_read(&scan, view));
	view->at += (uint32_t)(scan.sql - sql);
	if (view->text != NULL) {
		char *all = mem_strn(sql, len);

		memcpy(all + (scan.sql - sql), view->text, scan.len);
		free(view->text);
		view->text = all;
	}
	sql_scan_free(&scan);
}

const char *
view_sent(const struct session *s, const struct stmt *st)
{
	unsigned form = form_of(s);
	const char *sql = stmt_text(st);
	struct sql_view view;
	struct buf out = {0};

	if (st->views->sent[form] != NULL)
		return (st->views->sent[form]);
	read_view(sql, st->sql_len, &view);
	buf_add(&out, view.text != NULL ? view.text : sql, view.at);
	put_with(&out, form, &view);
	buf_addstr(&out, (view.text != NULL ? view.text : sql) + view.at);
	buf_add(&out, "", 1);
	sql_view_free(&view);
	st->views->sent[form] = mem_str((const char *)out.mem);
	buf_free(&out);
	return (st->views->sent[form]);
}

/* ---- the list ---- */

struct view_list {
	struct buf text;
	unsigned count;
	bool is_long;
};

static void
put_hex(struct buf *out, const void *p, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *from = p;
	uint8_t *to = buf_room(out, len * 2);

	for (size_t i = 0; i < len; i++) {
		*to++ = (uint8_t)digits[from[i] >> 4];
		*to++ = (uint8_t)digits[from[i] & 15];
	}
	out->len += (uint32_t)(len * 2);
}

/* As the client has declared them; nothing where it has not. */
static void
put_types(struct buf *out, const struct stmt *st)
{
	const uint8_t *types = st->data + st->sql_len + 1;
	unsigned count = st->types_len >= 2 ? proto_get16(types) : 0;
	bool has_params = memchr(st->data, '$', st->sql_len) != NULL;
	uint32_t mark = out->len;

	if (prep_nests(st) || (!has_params && count == 0))
		buf_addstr(out, "{}");
	if (prep_nests(st) || count == 0 || st->types_len < 2 + (size_t)count * 4)
		return;
	for (unsigned i = 0; i < count; i++) {
		uint32_t oid = proto_get32(types + 2 + (size_t)i * 4);

		if (oid == 0) {
			out->len = mark;
			return;
		}
		buf_addf(out, "%s%u", i == 0 ? "{" : ",", oid);
	}
	buf_addstr(out, "}");
}

/* Of the wall clock, and the same whenever it is asked. */
static int64_t
prepared_wall_us(const struct stmt_name *n)
{
	static _Atomic int64_t offset_us;
	int64_t offset = atomic_load(&offset_us), none = 0;

	if (offset == 0) {
		offset = clock_wall_us() - clock_us();
		if (!atomic_compare_exchange_strong(&offset_us, &none, offset))
			offset = none;
	}
	return (n->since.us + offset);
}

static void
list_add(struct view_list *list, const char *name, const struct stmt *st, int64_t us,
    const char *said, size_t said_len)
{
	struct buf *out = &list->text;
	char server_name[PREPARED_NAME];

	if (list->count >= LIST_STATEMENTS ||
	    out->len + (strlen(name) + said_len) * 2 > LIST_BYTES)
		list->is_long = true;
	if (list->is_long)
		return;
	if (list->count++ > 0)
		buf_addstr(out, ";");
	put_hex(out, name, strlen(name));
	buf_addstr(out, "|");
	put_hex(out, said, said_len);
	buf_addf(out, "|%" PRId64 "|", us);
	put_types(out, st);
	prepared_name(st->id, server_name);
	buf_addf(out, "|%s|%s", st->declared != NULL ? "t" : "f", server_name);
}

struct view_list *
view_list_begin(void)
{
	return (mem_alloc(sizeof(struct view_list)));
}

void
view_list_name(struct view_list *list, const struct stmt_name *n)
{
	const struct stmt_said *said = n->said;

	list_add(list, n->name, n->stmt, prepared_wall_us(n),
	    said != NULL ? said->text : (const char *)n->stmt->data,
	    said != NULL ? said->len : n->stmt->sql_len);
}

void
view_list_new(struct view_list *list, const char *name, const struct stmt *st,
    const struct stmt_said *said)
{
	list_add(list, name, st, clock_wall_us(), said->text, said->len);
}

char *
view_list_end(struct view_list *list)
{
	char *text =
	    list->is_long ? NULL : mem_strn((const char *)list->text.mem, list->text.len);

	buf_free(&list->text);
	free(list);
	return (text);
}

void
view_refuse(struct prep *p)
{
	refusal_set(&p->refusal, "54000",
	    "this client has too many or too long prepared statements to list them",
	    "pg_prepared_statements is put together by the proxy where server "
	    "connections are shared.",
	    NULL);
}

/* ---- names ---- */

struct stmt_name *
view_name_next(const struct session *s, const struct stmt_name *n)
{
	const struct table *names;
	struct table_node *node;

	if (s->statements == NULL)
		return (NULL);
	names = &s->statements->names;
	node = n == NULL ? table_first(names) : table_next(names, &n->node);
	return (node != NULL ? CONTAINER_OF(node, struct stmt_name, node) : NULL);
}

/* How many of the session's the link has, made the youngest; and how many it may have beside
 * the statement that lists them. */
static int64_t
count_there(struct session *s, int64_t *room)
{
	int64_t count = 0;

	*room = pool_settings(s->worker)->max_prepared_statements - 1;
	for (const struct stmt_name *n = NULL; (n = view_name_next(s, n)) != NULL;)
		count += prepared_touch(&s->link->prepared, n->stmt->id);
	return (count);
}

/* Whether the server is to be told of it, so that it knows the types. */
static bool
is_missing(const struct session *s, const struct stmt_name *n)
{
	return (!n->is_lost && !prep_nests(n->stmt) &&
		!prepared_touch(&s->link->prepared, n->stmt->id));
}

bool
view_misses(struct session *s)
{
	int64_t room;

	/* Those of a virtual database belong to several. */
	if (s->weave != NULL || s->link->txn == 'E' || count_there(s, &room) >= room)
		return (false);
	for (const struct stmt_name *n = NULL; (n = view_name_next(s, n)) != NULL;)
		if (is_missing(s, n))
			return (true);
	return (false);
}

void
view_ensure(struct up *u)
{
	struct session *s = u->s;
	int64_t room, count;

	if (s->weave != NULL || s->link->txn == 'E')
		return;
	s->prep->lists = true;
	count = count_there(s, &room);
	for (struct stmt_name *n = NULL;
	     (n = view_name_next(s, n)) != NULL && count < room;)
		if (is_missing(s, n)) {
			up_ensure(u, n->stmt, (struct prepared_since){0}, 0);
			count++;
		}
}

/* ---- the extended protocol ---- */

void
view_tell(struct up *u)
{
	static const char own[] = "pgw_view";
	struct session *s = u->s;
	struct view_list *list;
	char *text, *sql;

	if (s->link->txn == 'E')
		return;
	view_ensure(u);
	list = view_list_begin();
	for (const struct stmt_name *n = NULL; (n = view_name_next(s, n)) != NULL;)
		view_list_name(list, n);
	text = view_list_end(list);
	if (text == NULL) {
		view_refuse(s->prep);
		up_doom(u);
		return;
	}
	/* SET LOCAL would warn outside of a transaction block; and no row comes of this. */
	sql = mem_printf("SELECT 1 WHERE pg_catalog.set_config('pgweave.prepared', "
			 "'%s', true) IS NULL",
	    text);
	prep_run_own(u, own, sql, (struct hash128){0});
	proto_close_statement(batch_make(&u->batch), own);
	batch_made(&u->batch);
	up_owe(u, REQ_CLOSE, ACT_SKIP)->is_own = true;
	free(sql);
	free(text);
}

const struct stmt *
view_real(struct up *u, const struct stmt *st, const char *portal)
{
	struct session *s = u->s;
	struct prep *p = s->prep;
	struct buf with = {0};
	struct sql_view view;

	p->real = stmt_hold(st);
	read_view((const char *)st->data, st->sql_len, &view);
	put_with(&with, form_of(s), &view);
	prep_edit_add(p, prep_chars(s, (const char *)st->data, view.at), with.len, 0);
	buf_free(&with);
	sql_view_free(&view);
	if (portal != NULL)
		view_tell(u);
	return (p->real);
}

bool
view_failed(struct session *s, const struct request *r,
    const struct proto_error_fields *e, struct batch *b)
{
	struct stmt_name *n = NULL, *lost = NULL;
	char *detail;

	if (r->act != ACT_SKIP || (r->kind != REQ_PARSE && r->kind != REQ_EXECUTE))
		return (false);
	while ((n = view_name_next(s, n)) != NULL)
		if (n->stmt->id.hi == r->id.hi && n->stmt->id.lo == r->id.lo) {
			n->is_lost = true;
			lost = n;
		}
	if (lost == NULL)
		return (false);
	detail =
	    mem_printf("The prepared statement \"%s\" cannot be prepared once more, on "
		       "the server connection where pg_prepared_statements is read.",
		lost->name);
	proto_error(batch_make(b), "ERROR", e->sqlstate, e->message, detail,
	    "From now on it is listed without asking the server.");
	batch_made(b);
	free(detail);
	return (true);
}

/* ---- simple queries ---- */

bool
view_put(struct session *s, const struct sql_scan *scan, struct buf *with, uint32_t *at,
    char **text)
{
	struct sql_view view;

	if ((sql_look_names(scan->sql, scan->len) & SQL_LOOK_PREPARE) == 0 ||
	    !sql_view_read(scan, &view))
		return (false);
	put_with(with, form_of(s), &view);
	*at = view.at;
	*text = view.text;
	return (true);
}
