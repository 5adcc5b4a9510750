/* Socket pairs for links, a client that writes down what it is told. */
#include "federate_fixture.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <sys/socket.h>
#include <unistd.h>

/* The link room's own: what serves a link's socket. */
extern const struct stream_ops link_stream_ops;

struct worker *w;
static int turns_left;
static bool is_posted;
static struct mail wake;

struct told client;
struct link *links[LEGS];
int ends[LEGS];
bool is_closed[LEGS];
struct federation *fed;

/* ---- the loop ---- */

static void
woken(struct worker *of, struct mail *m)
{
	(void)of;
	(void)m;
	is_posted = false;
}

static void
turned(struct worker *of)
{
	if (--turns_left <= 0) {
		worker_stop(of);
		return;
	}
	if (!is_posted) {
		is_posted = true;
		wake.run = woken;
		worker_post(of, &wake);
	}
}

void
turn(int count)
{
	turns_left = count;
	w->is_stopping = false;
	if (!is_posted) {
		is_posted = true;
		wake.run = woken;
		worker_post(w, &wake);
	}
	net_run_main();
}

/* ---- links ---- */

static void
kept_closed(struct link *l)
{
	for (unsigned i = 0; i < LEGS; i++)
		if (links[i] == l)
			is_closed[i] = true;
}

static const struct link_keeper keeper = {.closed = kept_closed};

/* Whose links they are afterwards. */
static size_t
owner_bytes(struct link *l, const uint8_t *p, size_t len)
{
	(void)l;
	(void)p;
	return (len);
}

static void
owner_lost(struct link *l, const char *why)
{
	(void)l;
	(void)why;
}

static const struct link_user owner = {.bytes = owner_bytes, .lost = owner_lost};

static void
open_link(unsigned i)
{
	struct link *l = mem_alloc(sizeof(*l));
	int pair[2], small = 8192;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	l->magic = LINK_MAGIC;
	l->state = LINK_LENT;
	l->worker = w;
	l->keeper = &keeper;
	l->txn = 'I';
	l->user = &owner;
	l->vars = vars_none(w);
	l->born = vars_none(w);
	l->name = mem_str("test");
	stream_open(&l->stream, w, pair[0], true, &link_stream_ops);
	links[i] = l;
	ends[i] = pair[1];
	is_closed[i] = false;
}

int
setup(void **state)
{
	(void)state;
	memset(&client, 0, sizeof(client));
	fed = NULL;
	for (unsigned i = 0; i < LEGS; i++)
		open_link(i);
	return (0);
}

int
teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < LEGS; i++) {
		if (!is_closed[i])
			link_close(links[i], "end of test");
		if (ends[i] >= 0)
			close(ends[i]);
	}
	turn(2);
	link_cancels_expire(w, INT64_MAX, 0);
	turn(2);
	buf_free(&client.bytes);
	return (0);
}

int
group_setup(void **state)
{
	(void)state;
	net_create(1);
	w = net_main();
	link_init(w);
	worker_on_turn(w, turned);
	return (0);
}

int
group_teardown(void **state)
{
	(void)state;
	link_fini(w);
	net_destroy();
	return (0);
}

/* ---- the client ---- */

static void
got_out(void *arg, const uint8_t *p, size_t len)
{
	assert_ptr_equal(arg, &client);
	assert_false(client.is_done);
	client.calls++;
	buf_add(&client.bytes, p, len);
	if (client.aborts) {
		federate_abort(fed);
		client.is_done = true;
		for (unsigned i = 0; i < LEGS; i++) {
			if (is_closed[i])
				continue;
			client.owes[i] = !link_is_at_rest(links[i]);
			link_close(links[i], "the client has gone");
		}
	}
}

static bool
got_full(void *arg)
{
	(void)arg;
	return (client.is_full);
}

static void
got_done(void *arg, const struct federate_outcome *o)
{
	(void)arg;
	assert_false(client.is_done);
	client.is_done = true;
	client.outcome = *o;
	snprintf(client.sqlstate, sizeof(client.sqlstate), "%s",
	    o->sqlstate != NULL ? o->sqlstate : "");
	snprintf(client.message, sizeof(client.message), "%s",
	    o->message != NULL ? o->message : "");
	snprintf(client.detail, sizeof(client.detail), "%s",
	    o->detail != NULL ? o->detail : "");
	snprintf(client.hint, sizeof(client.hint), "%s", o->hint != NULL ? o->hint : "");
	/* Nothing is outstanding on what lives. */
	for (unsigned i = 0; i < LEGS; i++) {
		if (is_closed[i])
			continue;
		assert_int_equal(links[i]->state, LINK_LENT);
		assert_int_equal(links[i]->requests.count, 0);
		assert_true(links[i]->user == NULL || links[i]->user == &owner);
		assert_null(links[i]->user_arg);
		links[i]->user = &owner;
	}
}

static void
got_lost(void *arg, struct link *l)
{
	(void)arg;
	assert_false(client.is_done);
	assert_int_equal(l->state, LINK_CLOSED);
	client.lost++;
}

static const struct federate_client callbacks = {
    .out = got_out, .is_full = got_full, .done = got_done, .lost = got_lost};

static const struct sql_shape concatenation;

void
start(unsigned legs, struct federate_order *o)
{
	static const char *const names[LEGS] = {"primary", "secondary", "third"};
	struct federate_leg leg[LEGS];

	client.is_done = false;
	client.bytes.len = 0;
	for (unsigned i = 0; i < legs; i++)
		leg[i] = (struct federate_leg){.link = links[i], .member = names[i]};
	if (o->sql == NULL)
		o->sql = "SELECT 1";
	if (o->shape == NULL)
		o->shape = &concatenation;
	if (!o->is_extended)
		o->wants_description = true;
	fed = federate_start(w, o, leg, legs, &callbacks, &client);
	turn(3);
}

void
start_simple(unsigned legs, enum route_federation how)
{
	struct federate_order o = {.how = how};

	start(legs, &o);
}

/* ---- servers ---- */

void
say(unsigned i, struct buf *b)
{
	size_t at = 0;

	while (at < b->len) {
		ssize_t n = write(ends[i], b->mem + at, b->len - at);

		if (n > 0)
			at += (size_t)n;
		else
			turn(1);
	}
	buf_free(b);
	turn(6);
}

/* As much as the socket takes. */
size_t
say_some(unsigned i, const struct buf *b, size_t at)
{
	ssize_t n;

	while (at < b->len && (n = write(ends[i], b->mem + at, b->len - at)) > 0)
		at += (size_t)n;
	turn(6);
	return (at);
}

void
row(struct buf *b, const char *value)
{
	proto_data_row(b, &value, 1);
}

void
end(struct buf *b, const char *tag)
{
	proto_command_complete(b, tag);
	proto_ready(b, 'I');
}

/* Rows of one column, NULL-terminated; the whole answer to a simple query. */
void
answer_rows(unsigned i, const struct proto_column *column, const char *tag, ...)
{
	struct buf b = {0};
	const char *v;
	va_list ap;

	proto_row_description(&b, column, 1);
	va_start(ap, tag);
	while ((v = va_arg(ap, const char *)) != NULL)
		row(&b, v);
	va_end(ap);
	end(&b, tag);
	say(i, &b);
}

void
fails(unsigned i, const char *sqlstate, const char *detail)
{
	struct buf b = {0};

	proto_error(&b, "ERROR", sqlstate, "it failed", detail, NULL);
	proto_ready(&b, 'I');
	say(i, &b);
}

void
begin_extended(struct buf *b)
{
	proto_message(b, '1', NULL, 0);
	proto_message(b, '2', NULL, 0);
}

/* The types of the messages that the server has got, and its first string. */
const char *
asked(unsigned i)
{
	static char types[64];
	static uint8_t bytes[65536];
	ssize_t len = read(ends[i], bytes, sizeof(bytes));
	size_t n = 0;

	for (ssize_t at = 0; len > 0 && at + 5 <= len;
	     at += 1 + (ssize_t)proto_get32(bytes + at + 1))
		types[n++] = (char)bytes[at];
	types[n] = '\0';
	return (types);
}

/* ---- what the client saw ---- */

static void
decode_value(struct buf *text, const uint8_t *p, size_t len)
{
	bool is_plain = true;

	for (size_t i = 0; i < len; i++)
		is_plain &= isprint(p[i]) != 0;
	if (len > 40)
		buf_addf(text, "%zu bytes", len);
	else if (is_plain)
		buf_addf(text, "%.*s", (int)len, (const char *)p);
	else
		for (size_t i = 0; i < len; i++)
			buf_addf(text, "%s%02x", i == 0 ? "\\x" : "", p[i]);
}

static void
decode_row(struct buf *text, const uint8_t *p)
{
	unsigned count = proto_get16(p);

	p += 2;
	for (unsigned i = 0; i < count; i++) {
		uint32_t len = proto_get32(p);

		p += 4;
		buf_addstr(text, i == 0 ? "" : ",");
		if (len == UINT32_MAX) {
			buf_addstr(text, "NULL");
			continue;
		}
		decode_value(text, p, len);
		p += len;
	}
}

static void
decode_description(struct buf *text, const uint8_t *p)
{
	unsigned count = proto_get16(p);

	p += 2;
	for (unsigned i = 0; i < count; i++) {
		buf_addf(text, "%s%s", i == 0 ? "" : ",", (const char *)p);
		p += strlen((const char *)p) + 1;
		assert_int_equal(proto_get32(p), 0);
		assert_int_equal(proto_get16(p + 4), 0);
		buf_addf(text, ":%u", proto_get32(p + 6));
		if (proto_get32(p + 12) != UINT32_MAX)
			buf_addf(text, "(%u)", proto_get32(p + 12));
		if (proto_get16(p + 16) != 0)
			buf_addf(text, "/%u", proto_get16(p + 16));
		p += 18;
	}
}

/* All messages so far, whole ones: "T(a:23) D(1) C(SELECT 1)". */
const char *
seen(void)
{
	static struct buf text;
	const struct buf *b = &client.bytes;
	size_t at = 0;

	text.len = 0;
	while (at < b->len) {
		const uint8_t *body = b->mem + at + PROTO_HEAD;
		uint32_t size = proto_get32(b->mem + at + 1);

		assert_true(at + size + 1 <= b->len);
		buf_addf(&text, "%s%c(", at == 0 ? "" : " ", b->mem[at]);
		if (b->mem[at] == 'T')
			decode_description(&text, body);
		else if (b->mem[at] == 'D')
			decode_row(&text, body);
		else if (b->mem[at] == 'C')
			buf_addstr(&text, (const char *)body);
		else
			buf_addf(&text, "%u", size - 4);
		buf_addstr(&text, ")");
		at += size + 1;
	}
	buf_add(&text, "", 1);
	return ((const char *)text.mem);
}

void
assert_refused(const char *sqlstate, const char *message, const char *detail)
{
	assert_true(client.is_done);
	assert_false(client.outcome.ok);
	assert_string_equal(client.sqlstate, sqlstate);
	assert_string_equal(client.message, message);
	if (detail != NULL)
		assert_string_equal(client.detail, detail);
}
