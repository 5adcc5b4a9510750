/* side: libpq on an event loop, against a server of a few words in a thread of its own. */
#include "side.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the server: one client after the other, one word of SQL at a time ---- */

#define OUT_ROWS 20000

static int listener = -1;
static uint16_t port;
static pthread_t server;
static _Atomic size_t server_copied;
static _Atomic bool is_silent; /* does not answer logins */

static bool
need(int fd, void *to, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = read(fd, (char *)to + at, len - at);

		if (n <= 0)
			return (false);
		at += (size_t)n;
	}
	return (true);
}

static void
put(int fd, struct buf *b)
{
	for (size_t at = 0; at < b->len;) {
		ssize_t n = send(fd, b->mem + at, b->len - at, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	buf_free(b);
}

static void
add(struct buf *b, char type, const void *body, size_t len)
{
	uint32_t size = htonl((uint32_t)len + 4);

	buf_add(b, &type, 1);
	buf_add(b, &size, 4);
	buf_add(b, body, len);
}
#define ADD(b, type, literal) add(b, type, literal, sizeof(literal) - 1)

/* The body of a message, with a NUL behind it; NULL at the end. */
static char *
receive(int fd, bool is_startup, char *type)
{
	uint32_t size;
	char *body;

	if ((!is_startup && !need(fd, type, 1)) || !need(fd, &size, 4))
		return (NULL);
	size = ntohl(size) - 4;
	body = calloc(1, size + 1);
	if (!need(fd, body, size)) {
		free(body);
		return (NULL);
	}
	if (!is_startup && *type == 'd')
		server_copied += size;
	return (body);
}

static void
rows_out(struct buf *b)
{
	ADD(b, 'H', "\0\0\1\0\0");
	for (unsigned i = 0; i < OUT_ROWS; i++) {
		char row[16];

		snprintf(row, sizeof(row), "%u\n", i);
		add(b, 'd', row, strlen(row));
	}
	ADD(b, 'c', "");
	ADD(b, 'C', "COPY 20000\0");
}

static void
rows_in(int fd, struct buf *b, bool is_wrong)
{
	char type = 'd';

	ADD(b, 'G', "\0\0\1\0\0");
	put(fd, b);
	/* Long enough for the client to find the pipe full. */
	usleep(50000);
	while (type == 'd') {
		char *body = receive(fd, false, &type);

		if (body == NULL)
			return;
		is_wrong |= type == 'f';
		free(body);
	}
	if (is_wrong)
		ADD(b, 'E', "SERROR\0C22P02\0Mbad row\0WCOPY t, line 1\0\0");
	else
		ADD(b, 'C', "COPY 9\0");
}

static bool
answer(int fd, const char *sql)
{
	struct buf b = {0};
	bool lives = true;

	if (strcmp(sql, "hang") == 0)
		return (true);
	if (strcmp(sql, "two") == 0) {
		ADD(&b, 'N', "SNOTICE\0C00000\0Mby the way\0\0");
		ADD(&b, 'C', "SET\0");
		ADD(&b, 'T', "\0\1a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
		ADD(&b, 'D', "\0\1\0\0\0\3xyz");
		ADD(&b, 'C', "SELECT 1\0");
	} else if (strcmp(sql, "wrong") == 0)
		ADD(&b, 'E', "SERROR\0C42601\0Mno such\nword\0Ddetail\0\0");
	else if (strcmp(sql, "die") == 0) {
		ADD(&b, 'E', "SFATAL\0C57P01\0Mterminating\0\0");
		lives = false;
	} else if (strcmp(sql, "gone") == 0)
		lives = false;
	else if (strcmp(sql, "out") == 0)
		rows_out(&b);
	else if (strncmp(sql, "in", 2) == 0)
		rows_in(fd, &b, strcmp(sql, "in wrong") == 0);
	else
		ADD(&b, 'I', "");
	if (lives)
		ADD(&b, 'Z', "I");
	put(fd, &b);
	return (lives);
}

static void
serve(int fd)
{
	struct buf b = {0};
	char type = 0, *body = receive(fd, true, &type);
	bool lives = body != NULL && !is_silent;

	free(body);
	if (is_silent)
		(void)!read(fd, &type, 1);
	if (lives) {
		ADD(&b, 'R', "\0\0\0\0");
		ADD(&b, 'S', "server_version\00015.4\0");
		ADD(&b, 'Z', "I");
		put(fd, &b);
	}
	while (lives && (body = receive(fd, false, &type)) != NULL) {
		lives = type == 'Q' && answer(fd, body);
		free(body);
	}
	close(fd);
}

static void *
server_main(void *arg)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0)
		serve(fd);
	return (arg);
}

/* ---- the client ---- */

static char dir[] = "/tmp/pgweave-side-XXXXXX";
static struct worker *w;
static struct topo *topo;
static int name_server = -1;

/* Knows no name, and says so when it is told to: name_answer(). */
static void
name_server_begin(const char *resolv_conf)
{
	struct sockaddr_in sin = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	FILE *f = fopen(resolv_conf, "w");

	name_server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(name_server, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(getsockname(name_server, (struct sockaddr *)&sin, &len), 0);
	fprintf(f, "nameserver 127.0.0.1:%u\n", ntohs(sin.sin_port));
	fclose(f);
}

static void
name_answer(void)
{
	struct sockaddr_in who;
	socklen_t len = sizeof(who);
	uint8_t packet[512];
	ssize_t n = recvfrom(
	    name_server, packet, sizeof(packet), 0, (struct sockaddr *)&who, &len);

	assert_true(n > 12);
	packet[2] |= 0x80; /* a response: */
	packet[3] |= 3;    /* NXDOMAIN */
	assert_int_equal(
	    sendto(name_server, packet, (size_t)n, 0, (struct sockaddr *)&who, len), n);
}

static void
topo_make(void)
{
	struct conf_problems p = {0};
	char *path = mem_printf("%s/users", dir), *text;
	char *names = mem_printf("%s/resolv.conf", dir);
	FILE *f = fopen(path, "w");

	fputs("\"joe\" \"plain-secret\"\n", f);
	fclose(f);
	name_server_begin(names);
	text =
	    mem_printf("[databases]\n"
		       "up = host=127.0.0.1 port=%u user=joe dbname=x\n"
		       "second = host=127.0.0.1,127.0.0.1 port=1,%u user=joe dbname=x\n"
		       "refused = host=127.0.0.1 port=1 user=joe dbname=x\n"
		       "anybody = host=127.0.0.1 port=%u dbname=x\n"
		       "named = host=db.invalid port=%u user=joe dbname=x\n"
		       "[pgbouncer]\nlisten_port=6432\nauth_file=%s\nresolv_conf=%s\n"
		       "server_tls_sslmode=disable\n",
		port, port, port, port, path, names);
	topo = topo_build(conf_load_text("t.ini", text, strlen(text), &p), &p);
	assert_non_null(topo);
	unlink(path);
	conf_problems_free(&p);
	free(text);
	free(path);
	free(names);
}

static int
setup(void **state)
{
	struct sockaddr_in sin = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);

	(void)state;
	if (mkdtemp(dir) == NULL)
		return (-1);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&sin, sizeof(sin)) != 0 ||
	    listen(listener, 16) != 0 ||
	    getsockname(listener, (struct sockaddr *)&sin, &len) != 0 ||
	    pthread_create(&server, NULL, server_main, NULL) != 0)
		return (-1);
	port = ntohs(sin.sin_port);
	net_create(1);
	w = net_side();
	topo_make();
	return (0);
}

static int
teardown(void **state)
{
	char path[sizeof(dir) + 16];

	(void)state;
	net_settle();
	topo_release(topo);
	topo_verdicts_free();
	net_destroy();
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
	close(name_server);
	(void)snprintf(path, sizeof(path), "%s/resolv.conf", dir);
	unlink(path);
	return (rmdir(dir));
}

/* What the last callback said. */
static struct {
	unsigned calls, rows, drained;
	char err[512], sqlstate[6], value[64];
	bool has_result, is_paused;
	size_t bytes;
} got;

static void
turn_until(unsigned calls)
{
	int64_t deadline = clock_us() + 10000000;

	while (got.calls < calls && clock_us() < deadline)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(got.calls, calls);
}

static void
opened(struct side *s, void *arg, const char *err)
{
	(void)s;
	assert_ptr_equal(arg, &got);
	got.calls++;
	text_copy(got.err, sizeof(got.err), err != NULL ? err : "");
}

static void
answered(struct side *s, void *arg, const PGresult *r, const char *err, const char *state)
{
	(void)s;
	assert_ptr_equal(arg, &got);
	assert_true((r == NULL) == (err != NULL));
	got.calls++;
	got.has_result = r != NULL;
	text_copy(got.err, sizeof(got.err), err != NULL ? err : "");
	text_copy(got.sqlstate, sizeof(got.sqlstate), state);
	text_copy(got.value, sizeof(got.value),
	    r == NULL          ? ""
	    : PQntuples(r) > 0 ? PQgetvalue(r, 0, 0)
			       : PQcmdTuples((PGresult *)(uintptr_t)r));
}

static struct side *
open_it(const char *database, int64_t timeout_us)
{
	struct side *s;

	memset(&got, 0, sizeof(got));
	s = side_open(w, topo, topo_database_find(topo, database), "test", timeout_us,
	    opened, &got);
	assert_int_equal(got.calls, 0);
	turn_until(1);
	memset(&got.calls, 0, sizeof(got.calls));
	return (s);
}

static void
query(struct side *s, const char *sql)
{
	memset(&got, 0, sizeof(got));
	side_query(s, sql, NULL, 0, answered, &got);
	assert_int_equal(got.calls, 0);
	turn_until(1);
}

static void
statements(void **state)
{
	struct side *s = open_it("up", 5000000);

	(void)state;
	assert_string_equal(got.err, "");
	assert_true(side_is_open(s));
	assert_int_equal(side_server_version(s), 150004);
	query(s, "two");
	assert_string_equal(got.err, "");
	assert_string_equal(got.value, "xyz");
	query(s, "wrong");
	assert_string_equal(got.err, "no such word (detail)");
	assert_string_equal(got.sqlstate, "42601");
	query(s, "");
	assert_string_equal(got.err, "the server gave no result");
	query(s, "in");
	assert_string_equal(got.err, "the statement began a copy that nobody asked for");
	assert_false(side_is_open(s));
	side_close(s);
}

static void
a_lost_connection_fails_what_runs_and_what_comes(void **state)
{
	struct side *s = open_it("up", 5000000);

	(void)state;
	query(s, "die");
	assert_string_equal(got.err, "terminating");
	assert_string_equal(got.sqlstate, "57P01");
	assert_false(side_is_open(s));
	query(s, "two");
	assert_string_equal(got.err, "the connection is lost");
	side_close(s);
	s = open_it("up", 5000000);
	query(s, "gone");
	assert_string_equal(got.err, "server closed the connection unexpectedly");
	assert_string_equal(got.sqlstate, "");
	side_close(s);
}

static void
opening_that_fails(void **state)
{
	struct side *s = open_it("refused", 5000000);

	(void)state;
	assert_string_equal(got.err, "connection refused");
	assert_false(side_is_open(s));
	query(s, "two");
	assert_string_equal(got.err, "the connection is lost");
	side_close(s);
	s = open_it("anybody", 5000000);
	assert_non_null(strstr(got.err, "\"anybody\" has no user"));
	side_close(s);
	/* The first host refuses, the second takes us. */
	s = open_it("second", 5000000);
	assert_string_equal(got.err, "");
	assert_true(side_is_open(s));
	side_close(s);
}

static void
silence_has_an_end(void **state)
{
	struct side *s = open_it("up", 100000);

	(void)state;
	query(s, "hang");
	assert_string_equal(got.err, "timeout: no answer");
	assert_false(side_is_open(s));
	side_close(s);
	is_silent = true;
	s = open_it("up", 100000);
	assert_string_equal(got.err, "timeout: no answer to the attempt to connect");
	is_silent = false;
	side_close(s);
}

static void
closing_silences(void **state)
{
	struct side *s;

	(void)state;
	memset(&got, 0, sizeof(got));
	s = side_open(w, topo, topo_database_find(topo, "up"), "test", 0, opened, &got);
	side_close(s);
	s = open_it("up", 0);
	got.calls = 0;
	side_query(s, "two", NULL, 0, answered, &got);
	side_close(s);
	net_settle();
	for (int i = 0; i < 5; i++)
		event_base_loop(w->base, EVLOOP_NONBLOCK);
	assert_int_equal(got.calls, 0);
}

/* ---- copies ---- */

static bool
row(struct side *s, void *arg, const char *p, int len)
{
	char want[16];

	(void)s;
	(void)arg;
	snprintf(want, sizeof(want), "%u\n", got.rows++);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(p, want, strlen(want));
	got.is_paused = got.rows % 5000 == 0;
	return (!got.is_paused);
}

static bool
row_close(struct side *s, void *arg, const char *p, int len)
{
	(void)arg;
	(void)p;
	(void)len;
	side_close(s);
	got.calls++;
	return (true);
}

/* The answer to a question about a name comes between the order to stop and the end. */
static void
a_name_that_comes_after_the_order_to_stop(void **state)
{
	struct side *s;

	(void)state;
	memset(&got, 0, sizeof(got));
	s = side_open(
	    w, topo, topo_database_find(topo, "named"), "test", 0, opened, &got);
	while (net_names_asked_for() == 0)
		event_base_loop(w->base, EVLOOP_ONCE);
	w->is_stopping = true;
	while (net_names_asked_for() > 0) {
		struct pollfd p = {.fd = name_server, .events = POLLIN};

		event_base_loop(w->base, EVLOOP_NONBLOCK);
		if (poll(&p, 1, 1) == 1)
			name_answer();
	}
	assert_int_equal(got.calls, 0);
	side_close(s);
	w->is_stopping = false;
}

static void
copy_out(void **state)
{
	struct side *s = open_it("up", 5000000);
	unsigned pauses = 0;

	(void)state;
	memset(&got, 0, sizeof(got));
	side_copy_out(s, "out", row, answered, &got);
	while (got.calls == 0) {
		event_base_loop(w->base, EVLOOP_ONCE);
		if (!got.is_paused)
			continue;
		got.is_paused = false;
		pauses++;
		/* Nothing comes while it rests. */
		event_base_loop(w->base, EVLOOP_NONBLOCK);
		assert_int_equal(got.rows, pauses * 5000);
		side_copy_resume(s);
	}
	assert_int_equal(pauses, 4);
	assert_int_equal(got.rows, OUT_ROWS);
	assert_string_equal(got.value, "20000");
	query(s, "two");
	assert_string_equal(got.value, "xyz");
	memset(&got, 0, sizeof(got));
	side_copy_out(s, "wrong", row, answered, &got);
	turn_until(1);
	assert_string_equal(got.sqlstate, "42601");
	memset(&got, 0, sizeof(got));
	side_copy_out(s, "out", row_close, answered, &got);
	turn_until(1);
}

static void
drained(struct side *s, void *arg)
{
	(void)s;
	assert_ptr_equal(arg, &got);
	got.drained++;
}

static struct side *
begin_copy_in(const char *sql)
{
	struct side *s = open_it("up", 5000000);

	memset(&got, 0, sizeof(got));
	side_copy_in(s, sql, opened, drained, &got);
	turn_until(1);
	return (s);
}

static void
end_copy_in(struct side *s, const char *err)
{
	got.calls = 0;
	side_copy_end(s, err, answered);
	assert_int_equal(got.calls, 0);
	turn_until(1);
}

/* 20 MB, with rests whenever too much is unsent. */
static void
copy_in(void **state)
{
	struct side *s = begin_copy_in("in");
	size_t sent = 0;
	char chunk[10000];

	(void)state;
	assert_string_equal(got.err, "");
	memset(chunk, 'x', sizeof(chunk));
	server_copied = 0;
	while (sent < 20000000) {
		unsigned was = got.drained;
		bool goes_on = side_copy_put(s, chunk, sizeof(chunk));

		sent += sizeof(chunk);
		while (!goes_on && got.drained == was)
			event_base_loop(w->base, EVLOOP_ONCE);
	}
	assert_true(got.drained > 0);
	end_copy_in(s, NULL);
	assert_string_equal(got.err, "");
	assert_string_equal(got.value, "9");
	assert_int_equal(server_copied, sent);
	side_close(s);
}

static void
copy_in_that_fails(void **state)
{
	struct side *s = begin_copy_in("wrong");

	(void)state;
	assert_string_equal(got.err, "no such word (detail)");
	query(s, "two");
	assert_string_equal(got.value, "xyz");
	side_close(s);
	s = begin_copy_in("two");
	assert_string_equal(got.err, "the statement is no COPY FROM STDIN");
	side_close(s);
	s = begin_copy_in("in");
	assert_true(side_copy_put(s, "a\n", 2));
	end_copy_in(s, "had enough");
	assert_string_equal(got.err, "bad row (COPY t, line 1)");
	side_close(s);
	s = begin_copy_in("in wrong");
	assert_true(side_copy_put(s, "a\n", 2));
	end_copy_in(s, NULL);
	assert_string_equal(got.sqlstate, "22P02");
	query(s, "two");
	assert_string_equal(got.value, "xyz");
	side_close(s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(statements),
	    cmocka_unit_test(a_lost_connection_fails_what_runs_and_what_comes),
	    cmocka_unit_test(opening_that_fails),
	    cmocka_unit_test(silence_has_an_end),
	    cmocka_unit_test(closing_silences),
	    cmocka_unit_test(a_name_that_comes_after_the_order_to_stop),
	    cmocka_unit_test(copy_out),
	    cmocka_unit_test(copy_in),
	    cmocka_unit_test(copy_in_that_fails),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
