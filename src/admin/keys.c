/*
 * CREATE KEY, ROTATE KEY and REVOKE KEY. The words of the statement become the texts of a key; they travel
 * to the main thread, from there to the state store, and home with the outcome.
 *
 * The secret exists in the answer alone: what is kept, and what travels, is its verifier.
 */
#include "auth.h"
#include "private.h"
#include "store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define ID_BYTES            16
#define SECRET_BYTES        24
#define VERIFIER_ITERATIONS 4096

/* ---- a new key ---- */

static void
hex_random(char *to, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t random[SECRET_BYTES];

	INVARIANT(bytes <= sizeof(random));
	random_bytes(random, bytes);
	for (size_t i = 0; i < bytes; i++) {
		to[2 * i] = digits[random[i] >> 4];
		to[2 * i + 1] = digits[random[i] & 15];
	}
	to[2 * bytes] = '\0';
	explicit_bzero(random, sizeof(random));
}

void
admin_time_text(int64_t wall_us, char *out, size_t size)
{
	time_t at = (time_t)(wall_us / 1000000);
	struct tm tm;

	out[0] = '\0';
	if (gmtime_r(&at, &tm) != NULL)
		(void)strftime(out, size, "%Y-%m-%d %H:%M:%S+00", &tm);
}

void
admin_key_make(struct admin_key *k, const char *prefix)
{
	char digits[2 * ID_BYTES + 1];

	_Static_assert(sizeof(k->secret) == 2 * SECRET_BYTES + 1, "hex digits");
	hex_random(digits, ID_BYTES);
	snprintf(k->id, sizeof(k->id), "%s%s", prefix, digits);
	hex_random(k->secret, SECRET_BYTES);
	k->verifier = auth_make_verifier(k->secret, VERIFIER_ITERATIONS);
	admin_time_text(clock_wall_us(), k->created, sizeof(k->created));
}

void
admin_key_renew(struct admin_key *k)
{
	hex_random(k->secret, SECRET_BYTES);
}

char *
admin_key_verifier(void *admin_key, const char *like)
{
	struct admin_key *k = admin_key;

	return (auth_make_verifier_like(k->secret, like));
}

void
admin_key_forget(struct admin_key *k)
{
	explicit_bzero(k->secret, sizeof(k->secret));
	free(k->verifier);
	k->verifier = NULL;
}

void
admin_list_add(struct buf *list, const char *name)
{
	bool is_plain = name[0] != '\0' && strpbrk(name, " \t,\"") == NULL;

	if (list->len > 0)
		buf_addstr(list, ", ");
	if (is_plain) {
		buf_addstr(list, name);
		return;
	}
	buf_addstr(list, "\"");
	for (; *name != '\0'; name++)
		buf_add(list, *name == '"' ? "\"\"" : name, *name == '"' ? 2 : 1);
	buf_addstr(list, "\"");
}

bool
admin_key_has_control(const struct topo_key_text *text)
{
	const char *const *texts = (const char *const *)(const void *)text;

	for (size_t i = 0; i < sizeof(*text) / sizeof(char *); i++)
		for (const char *p = texts[i]; p != NULL && *p != '\0'; p++)
			if ((unsigned char)*p < ' ' || *p == 0x7f)
				return (true);
	return (false);
}

/* ---- the clauses ---- */

/* One of the commands on its way. Main's while it travels; it goes with its call. */
struct key_call {
	struct mail mail;
	struct call *call;
	struct topo_key_text text;
	struct buf databases, rights, roles;
	struct admin_key key;
	int64_t overlap_us;
	int fault;
	char why[1024];
};

static void
key_call_free(struct key_call *kc)
{
	buf_free(&kc->databases);
	buf_free(&kc->rights);
	buf_free(&kc->roles);
	admin_key_forget(&kc->key);
	free(kc);
}

struct parse {
	struct key_call *kc;
	const struct statement *st;
	unsigned at;      /* the word that comes next */
	const char *told; /* of the clause, when it is wrong: what belongs there */
};

static bool
parse_is(const struct parse *p, const char *word)
{
	return (statement_word_is(p->st, p->at, word));
}

static bool
parse_skip(struct parse *p, const char *word)
{
	if (!parse_is(p, word))
		return (false);
	p->at++;
	return (true);
}

/* A value: any word that is no mark. NULL: there is none. */
static const char *
parse_value(struct parse *p)
{
	const struct word *w = &p->st->words[p->at];

	if (p->at >= p->st->count ||
	    (w->kind == WORD_PLAIN && strpbrk(w->text, "=,()") != NULL))
		return (NULL);
	p->at++;
	return (w->text);
}

static bool
parse_text(struct parse *p, const char **to)
{
	*to = parse_value(p);
	return (*to != NULL);
}

/* (a, b) */
static bool
parse_databases(struct parse *p)
{
	const char *name;

	if (!parse_skip(p, "("))
		return (false);
	do {
		name = parse_value(p);
		if (name == NULL)
			return (false);
		admin_list_add(&p->kc->databases, name);
	} while (parse_skip(p, ","));
	return (parse_skip(p, ")"));
}

/* database role */
static bool
parse_role(struct parse *p)
{
	const char *database = parse_value(p);
	const char *role = database != NULL ? parse_value(p) : NULL;
	struct buf quoted = {0};

	if (role == NULL)
		return (false);
	admin_list_add(&p->kc->roles, database);
	admin_list_add(&quoted, role);
	buf_addstr(&p->kc->roles, " ");
	buf_add(&p->kc->roles, quoted.mem, quoted.len);
	buf_free(&quoted);
	return (true);
}

static bool
parse_right(struct parse *p, const char *right)
{
	admin_list_add(&p->kc->rights, right);
	return (true);
}

enum clause {
	CLAUSE_TYPE,
	CLAUSE_USER,
	CLAUSE_VIRTUAL,
	CLAUSE_DATABASES,
	CLAUSE_FEDERATE,
	CLAUSE_REPLICATE,
	CLAUSE_OPERATE,
	CLAUSE_READ,
	CLAUSE_EXPIRES,
	CLAUSE_NETWORKS,
	CLAUSE_RATE,
	CLAUSE_CONCURRENCY,
	CLAUSE_ROLE,
	CLAUSE_COUNT
};
static const struct {
	const char *word, *form;
} clauses[CLAUSE_COUNT] = {
    [CLAUSE_TYPE] = {"TYPE", "TYPE database, client or server"},
    [CLAUSE_USER] = {"USER", "USER number"},
    [CLAUSE_VIRTUAL] = {"VIRTUAL", "VIRTUAL name"},
    [CLAUSE_DATABASES] = {"DATABASES", "DATABASES (name, name)"},
    [CLAUSE_FEDERATE] = {"FEDERATE", "FEDERATE"},
    [CLAUSE_REPLICATE] = {"REPLICATE", "REPLICATE"},
    [CLAUSE_OPERATE] = {"OPERATE", "OPERATE"},
    [CLAUSE_READ] = {"READ", "READ ONLY"},
    [CLAUSE_EXPIRES] = {"EXPIRES", "EXPIRES '2027-01-31'"},
    [CLAUSE_NETWORKS] = {"NETWORKS", "NETWORKS '10.0.0.0/8, 127.0.0.1/32'"},
    [CLAUSE_RATE] = {"RATE", "RATE '100/s'"},
    [CLAUSE_CONCURRENCY] = {"CONCURRENCY", "CONCURRENCY number"},
    [CLAUSE_ROLE] = {"ROLE", "ROLE database role"},
};

static bool
parse_clause(struct parse *p, enum clause clause)
{
	struct topo_key_text *text = &p->kc->text;

	switch (clause) {
	case CLAUSE_TYPE:
		return (parse_text(p, &text->type));
	case CLAUSE_USER:
		return (parse_text(p, &text->user_id));
	case CLAUSE_VIRTUAL:
		return (parse_text(p, &text->virtual_));
	case CLAUSE_DATABASES:
		return (parse_databases(p));
	case CLAUSE_FEDERATE:
		return (parse_right(p, "federate"));
	case CLAUSE_REPLICATE:
		return (parse_right(p, "replicate"));
	case CLAUSE_OPERATE:
		return (parse_right(p, "operate"));
	case CLAUSE_READ:
		text->read_only = "yes";
		return (parse_skip(p, "ONLY"));
	case CLAUSE_EXPIRES:
		return (parse_text(p, &text->expires));
	case CLAUSE_NETWORKS:
		return (parse_text(p, &text->networks));
	case CLAUSE_RATE:
		return (parse_text(p, &text->rate));
	case CLAUSE_CONCURRENCY:
		return (parse_text(p, &text->concurrency));
	case CLAUSE_ROLE:
		return (parse_role(p));
	case CLAUSE_COUNT:
	default:
		return (false);
	}
}

static const char *
buf_text(struct buf *b)
{
	if (b->len == 0)
		return (NULL);
	buf_add(b, "", 1);
	return ((const char *)b->mem);
}

/* 'name' TYPE type and the other clauses; NULL, or what is wrong. The caller frees it. */
static char *
key_parse(struct key_call *kc)
{
	const struct call *c = kc->call;
	unsigned seen = 0;
	struct parse p = {.kc = kc, .st = &c->st, .at = c->st.count - call_arg_count(c)};

	if (!parse_text(&p, &kc->text.name))
		return (mem_str("a name is missing: CREATE KEY 'name' TYPE type …"));
	while (p.at < p.st->count) {
		enum clause clause = CLAUSE_TYPE;
		unsigned at = p.at;

		while (clause < CLAUSE_COUNT && !parse_is(&p, clauses[clause].word))
			clause++;
		if (clause == CLAUSE_COUNT)
			return (mem_printf(
			    "syntax error at or near \"%.80s\"", p.st->words[at].text));
		if ((seen & 1U << clause) != 0 && clause != CLAUSE_ROLE)
			return (
			    mem_printf("%s stands there twice", clauses[clause].word));
		if (at == c->st.count - call_arg_count(c) + 1 && clause != CLAUSE_TYPE)
			return (mem_str("the name must be followed by TYPE database, "
					"client or server"));
		seen |= 1U << clause;
		p.at++;
		if (!parse_clause(&p, clause))
			return (mem_printf("syntax error in %s, allowed is %s",
			    clauses[clause].word, clauses[clause].form));
	}
	kc->text.databases = buf_text(&kc->databases);
	kc->text.rights = buf_text(&kc->rights);
	kc->text.roles = buf_text(&kc->roles);
	return (NULL);
}

/* ---- there and back ---- */

static struct key_call *
key_call_of(struct mail *m)
{
	return (CONTAINER_OF(m, struct key_call, mail));
}

static void
key_call_send(struct key_call *kc, void (*run)(struct worker *, struct mail *))
{
	kc->mail.run = run;
	worker_post(net_main(), &kc->mail);
}

/* In the main thread: home, to be answered there. */
static void
key_call_home(struct key_call *kc, int fault, const char *why,
    void (*run)(struct worker *, struct mail *))
{
	kc->fault = fault;
	text_copy(kc->why, sizeof(kc->why), why);
	kc->mail.run = run;
	worker_post(kc->call->worker, &kc->mail);
}

static void
key_call_fail(struct key_call *kc)
{
	const struct fault_info *info = fault_info(kc->fault);
	const char *hint = store_hint(kc->fault), *sqlstate = info->sqlstate;
	struct call *c = kc->call;

	if (kc->fault == F_EXISTS)
		hint = "Choose another name, or REVOKE KEY first.";
	if (kc->fault == F_CONF) {
		sqlstate = "55000";
		hint = "Remove its section from the file, then RELOAD.";
	}
	call_fail_detail(
	    c, sqlstate, kc->why[0] != '\0' ? kc->why : info->text, NULL, hint);
	key_call_free(kc);
}

/* ---- CREATE KEY ---- */

const struct rows_column *
admin_key_columns(unsigned *count)
{
	static const struct rows_column columns[] = {
	    {"key", ROWS_TEXT}, {"secret", ROWS_TEXT}};

	*count = ARRAY_LEN(columns);
	return (columns);
}

static void
key_call_answer(struct key_call *kc, const char *tag)
{
	const char *values[] = {kc->key.id, kc->key.secret};
	struct call *c = kc->call;
	const struct rows_column *columns;
	unsigned count;

	if (kc->fault != 0) {
		key_call_fail(kc);
		return;
	}
	columns = admin_key_columns(&count);
	c->sink->ops->begin(c->sink, columns, count);
	c->sink->ops->put(c->sink, values);
	call_end(c, tag);
	key_call_free(kc);
}

static void
create_home(struct worker *w, struct mail *m)
{
	(void)w;
	key_call_answer(key_call_of(m), "CREATE KEY");
}

static void
create_done(void *arg, int fault, const char *why)
{
	key_call_home(arg, fault, why, create_home);
}

static void
create_main(struct worker *w, struct mail *m)
{
	struct key_call *kc = key_call_of(m);

	(void)w;
	admin_host()->key_create(&kc->text, create_done, kc);
}

void
admin_create_key(struct call *c)
{
	struct key_call *kc = mem_alloc(sizeof(*kc));
	char *wrong;

	kc->call = c;
	wrong = key_parse(kc);
	if (wrong == NULL && admin_key_has_control(&kc->text)) {
		call_fail(c, "22023", "a value has a control character in it");
		key_call_free(kc);
		return;
	}
	if (wrong != NULL) {
		call_fail(c, "42601", "%s", wrong);
		free(wrong);
		key_call_free(kc);
		return;
	}
	admin_key_make(&kc->key, pool_settings(c->worker)->key_prefix);
	kc->text.id = kc->key.id;
	kc->text.secret = kc->key.verifier;
	kc->text.created = kc->key.created;
	key_call_send(kc, create_main);
}

/* ---- ROTATE KEY ---- */

static void
rotate_home(struct worker *w, struct mail *m)
{
	(void)w;
	key_call_answer(key_call_of(m), "ROTATE KEY");
}

static void
rotate_done(void *arg, int fault, const char *why)
{
	key_call_home(arg, fault, why, rotate_home);
}

static void
rotate_main(struct worker *w, struct mail *m)
{
	struct key_call *kc = key_call_of(m);

	(void)w;
	admin_host()->key_rotate(kc->text.id, kc->overlap_us, &kc->key, rotate_done, kc);
}

void
admin_rotate_key(struct call *c)
{
	const unsigned count = call_arg_count(c);
	const bool is_right =
	    count == 1 ||
	    (count == 3 && statement_word_is(&c->st, c->st.count - 2, "OVERLAP"));
	struct key_call *kc;
	int64_t overlap_us = 0;
	char why[320];

	if (!is_right) {
		call_fail_detail(c, "42601", "syntax error", NULL, c->command->usage);
		return;
	}
	if (count == 3 &&
	    !topo_key_overlap(call_arg(c, 2), &overlap_us, why, sizeof(why))) {
		call_fail(c, "22023", "%s", why);
		return;
	}
	kc = mem_alloc(sizeof(*kc));
	kc->call = c;
	kc->text.id = call_arg(c, 0);
	kc->overlap_us = overlap_us;
	admin_key_renew(&kc->key);
	key_call_send(kc, rotate_main);
}

/* ---- REVOKE KEY ---- */

static void
revoke_home(struct worker *w, struct mail *m)
{
	struct key_call *kc = key_call_of(m);

	(void)w;
	if (kc->fault != 0) {
		key_call_fail(kc);
		return;
	}
	call_end(kc->call, "REVOKE KEY");
	key_call_free(kc);
}

static void
revoke_done(void *arg, int fault, const char *why)
{
	key_call_home(arg, fault, why, revoke_home);
}

static void
revoke_main(struct worker *w, struct mail *m)
{
	struct key_call *kc = key_call_of(m);

	(void)w;
	admin_host()->key_revoke(kc->text.id, revoke_done, kc);
}

void
admin_revoke_key(struct call *c)
{
	struct key_call *kc;

	if (call_arg_count(c) != 1) {
		call_fail_detail(c, "42601", "syntax error", NULL, c->command->usage);
		return;
	}
	kc = mem_alloc(sizeof(*kc));
	kc->call = c;
	kc->text.id = call_arg(c, 0);
	key_call_send(kc, revoke_main);
}
