/*
 * The only file that calls libpg_query. A tree costs as much as a hundred scans, so it is made
 * once for a digest; and it is made from a text in which all that the digest leaves out is
 * plain, so that the first statement of a digest cannot spoil it for those that follow:
 *
 *     SELECT E'\uZZ', 0x1F, 1_000 FROM primary.public.t      what the client says
 *     SELECT 'xxxxx', 0001, 00001 FROM _rimary.public.t      what the parser sees
 *
 * The plain API is used, and the tree read from its protocol buffer: the raw tree's walker ends
 * the process on some statements.
 */
#include <pg_query.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"

/* Words that PostgreSQL takes for no name of a column or table without quotes. */
static const char *const reserved[] = {"all", "analyse", "analyze", "and", "any", "array",
    "as", "asc", "asymmetric", "authorization", "binary", "both", "case", "cast", "check",
    "collate", "collation", "column", "concurrently", "constraint", "create", "cross",
    "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct",
    "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze", "from",
    "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect",
    "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit",
    "localtime", "localtimestamp", "natural", "not", "notnull", "null", "offset", "on",
    "only", "or", "order", "outer", "overlaps", "placing", "primary", "references",
    "returning", "right", "select", "session_user", "similar", "some", "symmetric",
    "system_user", "table", "tablesample", "then", "to", "trailing", "true", "union",
    "unique", "user", "using", "variadic", "verbose", "when", "where", "window", "with"};

static bool
is_reserved(const struct sql_lexer *l, const struct sql_token *t)
{
	for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
		if (sql_token_is(l, t, reserved[i]))
			return (true);
	return (false);
}

/* Whether ".name.name" follows: a word in front of that is a catalog. */
static bool
is_catalog(struct sql_lexer l)
{
	struct sql_token t;

	for (int i = 0; i < 2; i++) {
		sql_lex(&l, &t);
		if (!sql_token_is_mark(&l, &t, "."))
			return (false);
		sql_lex(&l, &t);
		if (t.kind != SQL_TOKEN_WORD && t.kind != SQL_TOKEN_QUOTED)
			return (false);
	}
	return (true);
}

/* Replaces digits by zeros and a one; a leading point stays. */
static void
make_plain_number(char *p, size_t len)
{
	size_t from = *p == '.' && len > 1 ? 1 : 0;

	memset(p + from, '0', len - from);
	p[len - 1] = '1';
}

static void
make_plain_string(char *p, size_t len)
{
	memset(p, 'x', len);
	p[0] = p[len - 1] = '\'';
}

/* A copy for the parser: of the same length, so that places stay what they are. */
static char *
make_plain(const struct sql_scan *scan)
{
	char *text = mem_strn(scan->sql, scan->len);
	struct sql_lexer l = sql_lexer_of(scan);
	struct sql_token t, before = {.kind = SQL_TOKEN_END};

	for (sql_lex(&l, &t); t.kind != SQL_TOKEN_END; before = t, sql_lex(&l, &t)) {
		size_t len = t.end - t.at;

		if (t.kind == SQL_TOKEN_WORD && !sql_token_is_mark(&l, &before, ".") &&
		    is_reserved(&l, &t) && is_catalog(l))
			text[t.at] = '_';
		if (scan->wants_values)
			continue;
		if (t.kind == SQL_TOKEN_NUMBER && !t.is_glued)
			make_plain_number(text + t.at, len);
		else if (t.kind == SQL_TOKEN_STRING && len > 1)
			make_plain_string(text + t.at, len);
	}
	return (text);
}

/* libpg_query keeps its state by thread, but what it does once for each thread it does without
 * a lock. */
static void
init_thread(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static _Thread_local bool is_ready;

	if (is_ready)
		return;
	pthread_mutex_lock(&lock);
	pg_query_init();
	pthread_mutex_unlock(&lock);
	is_ready = true;
}

bool
sql_tree_parse(const struct sql_scan *scan, struct sql_tree *out)
{
	PgQueryProtobufParseResult parsed;

	INVARIANT(!scan->is_cut && !scan->is_too_much && scan->len <= SQL_PARSE_BYTES);
	init_thread();
	*out = (struct sql_tree){.text = make_plain(scan)};
	parsed = pg_query_parse_protobuf(out->text);
	if (parsed.error == NULL)
		out->result = pg_query__parse_result__unpack(
		    NULL, parsed.parse_tree.len, (const uint8_t *)parsed.parse_tree.data);
	pg_query_free_protobuf_parse_result(parsed);
	if (out->result != NULL && out->result->n_stmts == 1)
		out->stmt = out->result->stmts[0]->stmt;
	if (out->stmt != NULL && out->stmt->node_case != PG_QUERY__NODE__NODE__NOT_SET)
		return (true);
	sql_tree_free(out);
	return (false);
}

void
sql_tree_free(struct sql_tree *tree)
{
	if (tree->result != NULL)
		pg_query__parse_result__free_unpacked(tree->result, NULL);
	free(tree->text);
	*tree = (struct sql_tree){0};
}

/* ---- walking, by the descriptors that come with the messages ---- */

static void
each_of_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *field,
    void (*each)(void *arg, const ProtobufCMessage *), void *arg)
{
	const char *base = (const char *)m;
	const void *value = base + field->offset,
		   *quantifier = base + field->quantifier_offset;

	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		ProtobufCMessage *const *list = *(ProtobufCMessage *const *const *)value;
		size_t count = *(const size_t *)quantifier;

		for (size_t i = 0; i < count; i++)
			each(arg, list[i]);
		return;
	}
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
	    *(const uint32_t *)quantifier != field->id)
		return;
	if (*(ProtobufCMessage *const *)value != NULL)
		each(arg, *(ProtobufCMessage *const *)value);
}

void
sql_tree_each(const ProtobufCMessage *m,
    void (*each)(void *arg, const ProtobufCMessage *), void *arg)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	for (unsigned i = 0; i < d->n_fields; i++)
		if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
			each_of_field(m, &d->fields[i], each, arg);
}

const char *
sql_node_string(const PgQuery__Node *node)
{
	return (
	    node->node_case == PG_QUERY__NODE__NODE_STRING ? node->string->sval : NULL);
}

const char *
sql_own_name(size_t count, PgQuery__Node *const *names)
{
	const char *schema;

	if (count == 1)
		return (sql_node_string(names[0]));
	if (count != 2)
		return (NULL);
	schema = sql_node_string(names[0]);
	if (schema == NULL || strcmp(schema, "pg_catalog") != 0)
		return (NULL);
	return (sql_node_string(names[1]));
}
