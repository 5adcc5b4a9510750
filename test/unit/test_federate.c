/* federate: rows, columns, errors, pace, cancelling and leaving. */
#include "federate_fixture.h"
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct proto_column int_a[] = {{"a", 23, 4}};
static const struct proto_column int_a_text_b[] = {{"a", 23, 4}, {"b", 25, -1}};

/* ---- rows ---- */

static void
tagged_rows_carry_the_name_of_their_database(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(2, ROUTE_TAG);
	assert_string_equal(asked(0), "Q");
	assert_string_equal(asked(1), "Q");
	assert_true(links[0]->unnamed == UINT64_MAX);
	assert_int_equal(links[0]->requests.count, 1);
	/* The second answers first, and waits for its turn. */
	answer_rows(1, int_a, "SELECT 2", "3", "4", NULL);
	assert_int_equal(client.bytes.len, 0);
	proto_row_description(&b, int_a, 1);
	row(&b, "1");
	row(&b, NULL);
	say(0, &b);
	assert_string_equal(seen(), "T(database:25,a:23) D(primary,1) D(primary,NULL)");
	end(&b, "SELECT 2");
	say(0, &b);
	assert_string_equal(seen(),
	    "T(database:25,a:23) D(primary,1) D(primary,NULL) D(secondary,3) "
	    "D(secondary,4) C(SELECT 4)");
	assert_true(client.is_done && client.outcome.ok);
	assert_int_equal(client.outcome.rows, 4);
	assert_int_equal(client.lost, 0);
}

static void
merged_rows_come_in_the_order_of_the_legs(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(3, ROUTE_MERGE);
	answer_rows(2, int_a, "SELECT 1", "5", NULL);
	answer_rows(0, int_a, "SELECT 1", "1", NULL);
	proto_row_description(&b, int_a, 1);
	proto_error(&b, "NOTICE", "00000", "hear me", NULL, NULL);
	end(&b, "SELECT 0");
	say(1, &b);
	assert_string_equal(seen(), "T(a:23) D(1) N(33) D(5) C(SELECT 2)");
	assert_true(client.outcome.ok);
	assert_int_equal(client.outcome.rows, 2);
}

/* A type modifier that not all databases have is that of none. */
static void
modifiers_that_differ_are_dropped(void **state)
{
	struct buf b = {0};

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		start_simple(2, ROUTE_MERGE);
		for (unsigned i = 0; i < 2; i++) {
			proto_row_description(
			    &b, (struct proto_column[]){{"n", 1700, -1}}, 1);
			/* Table 77, attribute 3, modifier 9 or 10. */
			proto_put32(b.mem + 9, 77);
			b.mem[14] = 3;
			proto_put32(b.mem + 21, round == 0 ? 9 : 9 + i);
			end(&b, "SELECT 0");
			say(i, &b);
		}
		assert_string_equal(seen(),
		    round == 0 ? "T(n:1700(9)) C(SELECT 0)" : "T(n:1700) C(SELECT 0)");
	}
}

static void
statements_without_rows_add_up_their_counts(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(2, ROUTE_TAG);
	end(&b, "INSERT 0 3");
	say(0, &b);
	end(&b, "INSERT 0 4");
	say(1, &b);
	assert_string_equal(seen(), "C(INSERT 0 7)");
	assert_int_equal(client.outcome.rows, 7);
	start_simple(2, ROUTE_MERGE);
	end(&b, "CREATE TABLE");
	say(0, &b);
	end(&b, "CREATE TABLE");
	say(1, &b);
	assert_string_equal(seen(), "C(CREATE TABLE)");
	assert_true(client.outcome.ok);
}

static void
columns_must_be_equal(void **state)
{
	static const struct proto_column text_a[] = {{"a", 25, -1}};
	static const struct proto_column enum_a[] = {{"a", 16400, 4}};
	static const struct {
		const struct proto_column *columns;
		unsigned count;
		const char *detail;
	} cases[] = {
	    {int_a_text_b, 2, "They answer 1 and 2 columns."},
	    {text_a, 1,
		"Column 1 is \"a\" (integer) in \"primary\" and \"a\" (text) in \"secondary\"."},
	    {enum_a, 1,
		"Column 1 is \"a\" (integer) in \"primary\" and \"a\" (OID 16400) in "
		"\"secondary\"."},
	    {NULL, 0, "One of them answers no rows."},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};

		start_simple(2, i % 2 == 0 ? ROUTE_TAG : ROUTE_MERGE);
		answer_rows(0, int_a, "SELECT 1", "1", NULL);
		if (cases[i].count > 0)
			proto_row_description(&b, cases[i].columns, cases[i].count);
		end(&b, "SELECT 0");
		say(1, &b);
		assert_refused("0A000",
		    "databases \"primary\" and \"secondary\" answer different columns",
		    cases[i].detail);
		assert_int_equal(client.bytes.len, 0);
	}
}

/* ---- the extended protocol ---- */

static void
an_extended_statement_goes_in_one_batch(void **state)
{
	static const uint8_t types[] = {0, 1, 0, 0, 0, 23};
	static const uint8_t values[] = {0, 0, 0, 1, 0, 0, 0, 1, '7'};
	static const uint16_t formats[] = {0, 1};
	struct federate_order o = {.how = ROUTE_TAG,
	    .is_extended = true,
	    .sql = "SELECT $1",
	    .types = types,
	    .types_len = sizeof(types),
	    .values = values,
	    .values_len = sizeof(values),
	    .formats = formats,
	    .format_count = 2};
	static const uint8_t wants[] = "P\0\0\0\x15\0SELECT $1\0\0\1\0\0\0\x17"
				       "B\0\0\0\x13\0\0\0\0\0\1\0\0\0\1"
				       "7\0\1\0\1"
				       "D\0\0\0\6P\0"
				       "E\0\0\0\x9\0\0\0\0\0"
				       "S\0\0\0\4";
	uint8_t got[256];
	struct buf b = {0};

	(void)state;
	start(2, &o);
	assert_int_equal(read(ends[0], got, sizeof(got)), sizeof(wants) - 1);
	assert_memory_equal(got, wants, sizeof(wants) - 1);
	assert_string_equal(asked(1), "PBDES");
	assert_int_equal(links[0]->batch, 1);
	for (unsigned i = 0; i < 2; i++) {
		begin_extended(&b);
		proto_row_description(&b, int_a, 1);
		row(&b, "7");
		end(&b, "SELECT 1");
		say(i, &b);
	}
	/* Nobody asked for the description. */
	assert_string_equal(seen(), "D(primary,7) D(secondary,7) C(SELECT 2)");
}

static void
formats_must_fit_the_columns_with_the_one_in_front(void **state)
{
	static const uint16_t formats[] = {0, 1, 7};
	struct federate_order o = {
	    .how = ROUTE_TAG, .is_extended = true, .formats = formats, .format_count = 2};
	struct buf b = {0};

	(void)state;
	start(1, &o);
	begin_extended(&b);
	proto_row_description(&b, int_a_text_b, 2);
	end(&b, "SELECT 0");
	say(0, &b);
	assert_refused(
	    "08P01", "bind message has 2 result formats but query has 3 columns", NULL);
	o.formats = &formats[2];
	o.format_count = 1;
	start(1, &o);
	begin_extended(&b);
	proto_row_description(&b, int_a, 1);
	end(&b, "SELECT 0");
	say(0, &b);
	assert_refused("22023", "unsupported format code: 7", NULL);
}

static void
describing_asks_the_first_leg_alone(void **state)
{
	struct federate_order o = {
	    .how = ROUTE_TAG, .is_extended = true, .describes_only = true};
	static const uint8_t parameters[] = {0, 1, 0, 0, 0, 23};
	struct buf b = {0};

	(void)state;
	start(2, &o);
	assert_string_equal(asked(0), "PDS");
	assert_string_equal(asked(1), "");
	proto_message(&b, '1', NULL, 0);
	proto_message(&b, 't', parameters, sizeof(parameters));
	proto_row_description(&b, int_a, 1);
	proto_ready(&b, 'T');
	say(0, &b);
	assert_string_equal(seen(), "t(6) T(database:25,a:23)");
	assert_true(client.outcome.ok);
	assert_int_equal(links[0]->txn, 'T');
	start(2, &o);
	proto_message(&b, '1', NULL, 0);
	proto_message(&b, 't', (uint8_t[]){0, 0}, 2);
	proto_message(&b, 'n', NULL, 0);
	proto_ready(&b, 'T');
	say(0, &b);
	assert_string_equal(seen(), "t(2) n(0)");
}

/* ---- errors ---- */

static void
an_error_in_the_middle_ends_the_answer(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(3, ROUTE_TAG);
	for (unsigned i = 0; i < 3; i++) {
		proto_row_description(&b, int_a, 1);
		row(&b, "1");
		say(i, &b);
	}
	end(&b, "SELECT 1");
	say(0, &b);
	assert_string_equal(seen(), "T(database:25,a:23) D(primary,1) D(secondary,1)");
	fails(1, "22012", "Why.");
	/* The third is waited for: it owes its ReadyForQuery. */
	assert_false(client.is_done);
	row(&b, "2");
	proto_error(&b, "ERROR", "57014", "canceling statement", NULL, NULL);
	proto_ready(&b, 'E');
	say(2, &b);
	assert_refused("22012", "it failed", "Why. In database \"secondary\".");
	assert_int_equal(links[2]->txn, 'E');
	assert_string_equal(seen(), "T(database:25,a:23) D(primary,1) D(secondary,1)");
}

static void
the_first_leg_that_fails_decides(void **state)
{
	(void)state;
	start_simple(3, ROUTE_MERGE);
	fails(2, "42P01", "");
	fails(0, "42703", NULL);
	fails(1, "22012", NULL);
	assert_refused("42703", "it failed", "In database \"primary\".");
}

/* A commit may fail behind CommandComplete. */
static void
an_error_behind_the_last_row_counts(void **state)
{
	struct federate_order o = {.is_extended = true};
	struct buf b = {0};

	(void)state;
	start(1, &o);
	begin_extended(&b);
	proto_row_description(&b, int_a, 1);
	row(&b, "1");
	proto_command_complete(&b, "SELECT 1");
	say(0, &b);
	assert_false(client.is_done);
	fails(0, "40001", NULL);
	assert_string_equal(client.sqlstate, "40001");
	assert_string_equal(seen(), "D(1)");
}

static void
a_lost_leg_is_told(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(2, ROUTE_MERGE);
	proto_row_description(&b, int_a, 1);
	say(0, &b);
	close(ends[1]);
	ends[1] = -1;
	turn(5);
	assert_int_equal(client.lost, 1);
	assert_true(is_closed[1]);
	assert_false(client.is_done);
	fails(0, "57014", NULL);
	assert_refused(
	    "08006", "database \"secondary\" was lost while the statement ran", NULL);
	assert_false(client.outcome.is_cut);
}

static void
a_farewell_is_a_loss(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(1, ROUTE_MERGE);
	proto_error(&b, "FATAL", "57P01", "terminating connection", NULL, NULL);
	say(0, &b);
	assert_int_equal(client.lost, 1);
	assert_refused("08006", "database \"primary\" was lost while the statement ran",
	    "terminating connection");
}

static void
rubbish_is_a_loss(void **state)
{
	static const struct {
		char type;
		const char *body;
		size_t len;
	} cases[] = {
	    {'D', "\0\0", 2},        /* a row before its description */
	    {'T', "\0\1a", 3},       /* half a column */
	    {'Z', "I", 1},           /* ready without an answer */
	    {'R', "\0\0\0\0", 4},    /* a login */
	    {'E', "SERROR", 6},      /* without an end */
	    {'S', "a", 1},           /* a name without a value */
	    {'C', "SELECT\0001", 8}, /* a NUL within */
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};

		if (i > 0)
			setup(state);
		start_simple(1, ROUTE_TAG);
		proto_message(&b, cases[i].type, cases[i].body, cases[i].len);
		say(0, &b);
		assert_int_equal(client.lost, 1);
		assert_string_equal(client.sqlstate, "08006");
		if (i + 1 < ARRAY_LEN(cases))
			teardown(state);
	}
}

static void
rows_must_fit_their_description(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(1, ROUTE_TAG);
	proto_row_description(&b, int_a_text_b, 2);
	row(&b, "1");
	say(0, &b);
	assert_string_equal(client.sqlstate, "08006");
	assert_string_equal(seen(), "T(database:25,a:23,b:25)");
}

static void
copies_are_refused(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(2, ROUTE_MERGE);
	assert_string_equal(asked(0), "Q");
	proto_message(&b, 'G', "\0\0\0", 3);
	say(0, &b);
	assert_string_equal(asked(0), "f");
	fails(0, "57014", NULL);
	/* Copying out, it is read to its end. */
	proto_message(&b, 'H', "\0\0\0", 3);
	proto_message(&b, 'd', "1\n", 2);
	proto_message(&b, 'c', NULL, 0);
	end(&b, "COPY 1");
	say(1, &b);
	assert_refused("0A000", "COPY cannot run on several databases at once", NULL);
	assert_int_equal(client.bytes.len, 0);
	assert_false(links[0]->is_dirty);
}

static void
a_copy_in_the_extended_protocol_gets_its_sync_again(void **state)
{
	struct federate_order o = {.is_extended = true};
	struct buf b = {0};

	(void)state;
	start(1, &o);
	(void)asked(0);
	begin_extended(&b);
	proto_message(&b, 'n', NULL, 0);
	proto_message(&b, 'G', "\0\0\0", 3);
	say(0, &b);
	assert_string_equal(asked(0), "fS");
	fails(0, "57014", NULL);
	assert_string_equal(client.sqlstate, "0A000");
	assert_true(links[0]->is_dirty);
}

static void
a_second_answer_is_refused(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(1, ROUTE_MERGE);
	proto_row_description(&b, int_a, 1);
	row(&b, "1");
	proto_command_complete(&b, "SELECT 1");
	proto_row_description(&b, int_a, 1);
	row(&b, "2");
	end(&b, "SELECT 1");
	say(0, &b);
	assert_string_equal(client.sqlstate, "0A000");
	assert_string_equal(seen(), "T(a:23) D(1)");
}

/* ---- size and pace ---- */

static void
a_full_client_holds_the_servers_back(void **state)
{
	char value[1000];
	struct buf b = {0};
	size_t at, before;

	(void)state;
	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	start_simple(2, ROUTE_TAG);
	proto_row_description(&b, int_a, 1);
	for (unsigned i = 0; i < 3000; i++)
		row(&b, value);
	end(&b, "SELECT 3000");
	answer_rows(1, int_a, "SELECT 1", "1", NULL);
	client.is_full = true;
	at = say_some(0, &b, 0);
	for (unsigned i = 0; i < 50; i++)
		at = say_some(0, &b, at);
	before = client.bytes.len;
	/* The description has gone; the rest is with the server, but for what was read. */
	assert_true(before < 100);
	assert_true(at < b.len / 4);
	assert_true(links[0]->stream.is_paused && links[1]->stream.is_paused);
	assert_true(links[0]->stream.in.len <= 2 * NET_READ_BYTES);
	client.is_full = false;
	federate_resume(fed);
	turn(3);
	while (at < b.len)
		at = say_some(0, &b, at);
	assert_true(client.is_done && client.outcome.ok);
	assert_int_equal(client.outcome.rows, 3001);
	assert_int_equal(
	    client.bytes.len - before, 3000 * (5 + 2 + 4 + 7 + 4 + 999) + 25 + 17);
	assert_false(links[0]->stream.is_paused || links[1]->stream.is_paused);
	buf_free(&b);
}

/* One row of some megabytes, in the middle of which another leg has something to say. */
static void
a_long_row_streams_through(void **state)
{
	size_t len = 4 * 1024 * 1024, at, most = 0;
	char *value = mem_alloc(len + 1);
	struct buf b = {0}, notice = {0};

	(void)state;
	memset(value, 'v', len);
	start_simple(2, ROUTE_TAG);
	answer_rows(1, int_a, "SELECT 1", "2", NULL);
	proto_row_description(&b, int_a, 1);
	row(&b, value);
	row(&b, "1");
	end(&b, "SELECT 2");
	for (at = 0; at < b.len;) {
		at = say_some(0, &b, at);
		if (links[0]->stream.in.len > most)
			most = links[0]->stream.in.len;
		if (notice.len == 0 && at > len / 2) {
			assert_true(client.bytes.len > len / 4);
			proto_error(&notice, "NOTICE", "00000", "not now", NULL, NULL);
			assert_int_equal(
			    write(ends[1], notice.mem, notice.len), (ssize_t)notice.len);
		}
	}
	assert_true(most <= 65536 + 8192);
	assert_true(client.outcome.ok);
	assert_string_equal(seen(),
	    "T(database:25,a:23) D(primary,4194304 bytes) D(primary,1) D(secondary,2) "
	    "C(SELECT 3)");
	free(value);
	buf_free(&b);
	buf_free(&notice);
}

static void
a_row_cut_in_two_is_told(void **state)
{
	size_t len = 200000;
	char *value = mem_alloc(len + 1);
	struct buf b = {0};

	(void)state;
	memset(value, 'v', len);
	start_simple(1, ROUTE_MERGE);
	proto_row_description(&b, int_a, 1);
	row(&b, value);
	b.len -= 1000;
	say(0, &b);
	assert_true(client.bytes.len > len / 2);
	close(ends[0]);
	ends[0] = -1;
	turn(5);
	assert_string_equal(client.sqlstate, "08006");
	assert_true(client.outcome.is_cut);
	free(value);
}

/* ---- cancelling, leaving ---- */

static int
listen_for_cancels(struct link *l)
{
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)&l->peer;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	l->peer_len = sizeof(*in);
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)in, l->peer_len), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)in, &l->peer_len), 0);
	free(l->host);
	l->host = mem_str("localhost");
	l->pid = 4711;
	l->key_len = 4;
	free(l->key);
	l->key = mem_dup("key!", 4);
	return (fd);
}

/* The connection of a cancel request that has come. */
static int
take_cancel(int listener)
{
	static const uint8_t wants[] = "\0\0\0\x10\x04\xd2\x16\x2e\0\0\x12\x67key!";
	uint8_t got[64];
	int fd;

	turn(5);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	turn(5);
	assert_int_equal(read(fd, got, sizeof(got)), 16);
	assert_memory_equal(got, wants, 16);
	return (fd);
}

static void
cancels_go_to_the_legs_that_run(void **state)
{
	int listeners[2] = {listen_for_cancels(links[0]), listen_for_cancels(links[1])};
	int fd;

	(void)state;
	start_simple(2, ROUTE_MERGE);
	answer_rows(0, int_a, "SELECT 1", "1", NULL);
	/* The first has answered, but nobody has read its rows yet. */
	federate_cancel(fed);
	federate_cancel(fed);
	close(take_cancel(listeners[1]));
	fd = take_cancel(listeners[0]);
	fails(1, "57014", NULL);
	/* The signal may still come, and must not hit the link's next statement. */
	assert_false(client.is_done);
	close(fd);
	turn(5);
	assert_refused("57014", "it failed", "In database \"secondary\".");
	assert_int_equal(links[0]->cancels, 0);
	assert_int_equal(accept(listeners[1], NULL, NULL), -1);
	close(listeners[0]);
	close(listeners[1]);
}

static void
the_end_waits_for_the_cancel_requests(void **state)
{
	int listener = listen_for_cancels(links[1]), fd;
	struct buf b = {0};

	(void)state;
	start_simple(2, ROUTE_MERGE);
	fails(0, "42P01", NULL);
	fd = take_cancel(listener);
	proto_error(&b, "ERROR", "57014", "canceling statement", NULL, NULL);
	proto_ready(&b, 'I');
	say(1, &b);
	assert_false(client.is_done);
	close(fd);
	turn(5);
	assert_refused("42P01", "it failed", "In database \"primary\".");
	close(listener);
}

static void
leaving_while_it_speaks(void **state)
{
	struct buf b = {0};

	(void)state;
	client.aborts = true;
	start_simple(2, ROUTE_MERGE);
	proto_row_description(&b, int_a, 1);
	row(&b, "1");
	say(0, &b);
	assert_int_equal(client.calls, 0);
	answer_rows(1, int_a, "SELECT 1", "2", NULL);
	assert_int_equal(client.calls, 1);
	assert_true(client.owes[0] && client.owes[1] && !client.owes[2]);
	assert_true(is_closed[0] && is_closed[1]);
	assert_int_equal(client.lost, 0);
}

static void
leaving_while_a_cancel_request_is_under_way(void **state)
{
	int listener = listen_for_cancels(links[0]), fd;

	(void)state;
	start_simple(1, ROUTE_MERGE);
	federate_cancel(fed);
	fd = take_cancel(listener);
	federate_abort(fed);
	client.is_done = true;
	turn(3);
	close(fd);
	turn(5);
	assert_int_equal(links[0]->cancels, 0);
	close(listener);
}

/* The order of the bytes' arrival changes nothing. */
static void
single_bytes_are_enough(void **state)
{
	struct buf b = {0};

	(void)state;
	start_simple(2, ROUTE_TAG);
	answer_rows(1, int_a, "SELECT 1", "2", NULL);
	proto_row_description(&b, int_a, 1);
	proto_parameter_status(&b, "TimeZone", "Asia/Tokyo");
	row(&b, "1");
	row(&b, "");
	end(&b, "SELECT 2");
	for (size_t i = 0; i < b.len; i++) {
		assert_int_equal(write(ends[0], b.mem + i, 1), 1);
		turn(2);
	}
	turn(4);
	assert_string_equal(seen(),
	    "T(database:25,a:23) D(primary,1) D(primary,) D(secondary,2) C(SELECT 3)");
	assert_string_equal(vars_get(links[0]->vars, "TimeZone"), "Asia/Tokyo");
	buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(tagged_rows_carry_the_name_of_their_database),
	    TEST(merged_rows_come_in_the_order_of_the_legs),
	    TEST(modifiers_that_differ_are_dropped),
	    TEST(statements_without_rows_add_up_their_counts),
	    TEST(columns_must_be_equal),
	    TEST(an_extended_statement_goes_in_one_batch),
	    TEST(formats_must_fit_the_columns_with_the_one_in_front),
	    TEST(describing_asks_the_first_leg_alone),
	    TEST(an_error_in_the_middle_ends_the_answer),
	    TEST(the_first_leg_that_fails_decides),
	    TEST(an_error_behind_the_last_row_counts),
	    TEST(a_lost_leg_is_told),
	    TEST(a_farewell_is_a_loss),
	    TEST(rubbish_is_a_loss),
	    TEST(rows_must_fit_their_description),
	    TEST(copies_are_refused),
	    TEST(a_copy_in_the_extended_protocol_gets_its_sync_again),
	    TEST(a_second_answer_is_refused),
	    TEST(a_full_client_holds_the_servers_back),
	    TEST(a_long_row_streams_through),
	    TEST(a_row_cut_in_two_is_told),
	    TEST(cancels_go_to_the_legs_that_run),
	    TEST(the_end_waits_for_the_cancel_requests),
	    TEST(leaving_while_it_speaks),
	    TEST(leaving_while_a_cancel_request_is_under_way),
	    TEST(single_bytes_are_enough),
	};

	return (cmocka_run_group_tests(tests, group_setup, group_teardown));
}
