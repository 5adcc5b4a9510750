/* proto: startup packets, options, messages written and read back, and the malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto.h"

/* Bytes of a literal, without the NUL that C adds. */
#define BYTES(s) (const uint8_t *)(s), sizeof(s) - 1

/* The single message in b: its type, and where its body is. */
static const uint8_t *
only_message(const struct buf *b, char type, size_t *len)
{
	assert_true(b->len >= PROTO_HEAD);
	assert_int_equal(b->mem[0], type);
	assert_int_equal(proto_get32(b->mem + 1) + 1, b->len);
	*len = b->len - PROTO_HEAD;
	return (b->mem + PROTO_HEAD);
}

static void
expect_bytes(struct buf *b, const char *bytes, size_t len)
{
	assert_int_equal(b->len, len);
	assert_memory_equal(b->mem, bytes, len);
	buf_free(b);
}
#define EXPECT(b, literal) expect_bytes(b, literal, sizeof(literal) - 1)

/* Gathers "name=value;" in a buffer; stops at a parameter named "stop". */
static int
gather(void *arg, const char *name, const char *value)
{
	buf_addf(arg, "%s=%s;", name, value);
	return (strcmp(name, "stop") == 0 ? F_NOT_FOUND : 0);
}

/* ---- startup ---- */

/* Parses a packet made of a code and a rest; the packet stands in *mem, as long as it is. */
static int
parse_packet(
    uint32_t code, const void *rest, size_t len, uint8_t **mem, struct proto_startup *out)
{
	*mem = mem_alloc(len + 8);
	proto_put32(*mem, (uint32_t)len + 8);
	proto_put32(*mem + 4, code);
	if (len > 0)
		memcpy(*mem + 8, rest, len);
	return (proto_startup_parse(*mem, len + 8, out));
}

static int
parse_startup(uint32_t code, const void *rest, size_t len)
{
	struct proto_startup s;
	uint8_t *mem;
	int rc = parse_packet(code, rest, len, &mem, &s);

	free(mem);
	return (rc);
}

static void
startup_is_parsed(void **state)
{
	struct proto_startup s;
	struct buf seen = {0};
	uint8_t *mem;

	(void)state;
	assert_int_equal(
	    parse_packet(PROTO_V3 + 2,
		BYTES("user\0bob\0options\0-c a=b\0_pq_.x\0y\0user\0ann\0\0"), &mem, &s),
	    0);
	assert_int_equal(s.kind, PROTO_STARTUP);
	assert_int_equal(s.major, 3);
	assert_int_equal(s.minor, 2);
	assert_string_equal(s.user, "ann"); /* the last one counts */
	assert_string_equal(s.database, "ann");
	assert_string_equal(s.options, "-c a=b");
	assert_int_equal(proto_startup_each(&s, gather, &seen), 0);
	assert_int_equal(seen.len, strlen("user=bob;options=-c a=b;_pq_.x=y;user=ann;"));
	assert_memory_equal(
	    seen.mem, "user=bob;options=-c a=b;_pq_.x=y;user=ann;", seen.len);
	buf_free(&seen);
	free(mem);

	assert_int_equal(
	    parse_packet(PROTO_V3, BYTES("user\0u\0database\0\0\0"), &mem, &s), 0);
	assert_string_equal(s.database, "u");
	free(mem);
	assert_int_equal(parse_packet(PROTO_V3,
			     BYTES("database\0d\0user\0u\0stop\0\0z\0z\0\0"), &mem, &s),
	    0);
	assert_string_equal(s.database, "d");
	assert_int_equal(proto_startup_each(&s, gather, &seen), F_NOT_FOUND);
	assert_memory_equal(seen.mem, "database=d;user=u;stop=;", seen.len);
	buf_free(&seen);
	free(mem);
}

static void
startup_is_refused(void **state)
{
	struct proto_startup s;
	uint8_t *mem;

	(void)state;
	assert_int_equal(parse_startup(PROTO_V3, BYTES("")), F_PROTO_STARTUP);
	assert_int_equal(parse_startup(PROTO_V3, BYTES("\0")), F_PROTO_NO_USER);
	assert_int_equal(parse_startup(PROTO_V3, BYTES("user\0\0\0")), F_PROTO_NO_USER);
	assert_int_equal(parse_startup(PROTO_V3, BYTES("user\0bob\0")), F_PROTO_STARTUP);
	assert_int_equal(parse_startup(PROTO_V3, BYTES("user\0bob")), F_PROTO_STARTUP);
	assert_int_equal(parse_startup(PROTO_V3, BYTES("user\0")), F_PROTO_STARTUP);
	assert_int_equal(parse_startup(PROTO_V3, BYTES("user")), F_PROTO_STARTUP);
	assert_int_equal(
	    parse_startup(PROTO_V3, BYTES("user\0bob\0x\0\0\0z")), F_PROTO_STARTUP);
	assert_int_equal(
	    parse_startup(PROTO_V3, BYTES("user\0bob\0x\0")), F_PROTO_STARTUP);
	assert_int_equal(
	    parse_packet(2 << 16, BYTES("user\0bob\0\0"), &mem, &s), F_PROTO_VERSION);
	assert_int_equal(s.major, 2);
	free(mem);
	/* A length that is not that of the packet. */
	assert_int_equal(
	    proto_startup_parse(BYTES("\0\0\0\x0a\0\x03\0\0\0"), &s), F_PROTO_STARTUP);
	assert_int_equal(proto_startup_parse(BYTES("\0\0\0\x04"), &s), F_PROTO_STARTUP);
}

static void
startup_sizes(void **state)
{
	(void)state;
	assert_int_equal(proto_startup_size(BYTES("\0\0\0\x08")), 8);
	assert_int_equal(proto_startup_size(BYTES("\0\0\x27\x10")), 10000);
	assert_int_equal(proto_startup_size(BYTES("\0\0\x27\x11")), F_PROTO_STARTUP);
	assert_int_equal(proto_startup_size(BYTES("\0\0\0\x07")), F_PROTO_STARTUP);
	assert_int_equal(proto_startup_size(BYTES("\x7f\xff\xff\xff")), F_PROTO_STARTUP);
	assert_int_equal(proto_startup_size(BYTES("\xff\xff\xff\xff")), F_PROTO_STARTUP);
	assert_int_equal(proto_startup_size(BYTES("GET ")), F_PROTO_STARTUP);
}

static void
special_packets(void **state)
{
	struct proto_startup s;
	uint8_t long_key[4 + 257] = {0}, *mem;

	(void)state;
	assert_int_equal(parse_packet(80877103, NULL, 0, &mem, &s), 0);
	assert_int_equal(s.kind, PROTO_SSL_REQUEST);
	free(mem);
	assert_int_equal(parse_packet(80877104, NULL, 0, &mem, &s), 0);
	assert_int_equal(s.kind, PROTO_GSSENC_REQUEST);
	free(mem);
	assert_int_equal(parse_startup(80877103, BYTES("x")), F_PROTO_STARTUP);
	assert_int_equal(parse_packet(80877102,
			     BYTES("\0\0\x01\x02"
				   "abcd"),
			     &mem, &s),
	    0);
	assert_int_equal(s.kind, PROTO_CANCEL_REQUEST);
	assert_int_equal(s.pid, 0x102);
	assert_int_equal(s.key_len, 4);
	assert_memory_equal(s.key, "abcd", 4);
	free(mem);
	assert_int_equal(parse_startup(80877102, long_key, 4 + 256), 0);
	assert_int_equal(parse_startup(80877102, long_key, 4 + 257), F_PROTO_STARTUP);
	assert_int_equal(parse_startup(80877102, long_key, 4 + 3), F_PROTO_STARTUP);
	assert_int_equal(parse_startup(80877105, NULL, 0), F_PROTO_VERSION);
}

static void
options_are_split(void **state)
{
	static const struct {
		const char *options, *seen;
		int rc;
		const char *why;
	} rows[] = {
	    {"", "", 0, ""},
	    {"  \t", "", 0, ""},
	    {"-c a=b", "a=b;", 0, ""},
	    {"-ca=b  --work-mem=4MB", "a=b;work_mem=4MB;", 0, ""},
	    {"-c\\ a=b", " a=b;", 0,
		""}, /* the name begins with a space: not ours to judge */
	    {"-c search-path=a\\ b\\\\c", "search_path=a b\\c;", 0, ""},
	    {"-c a=b=c-d", "a=b=c-d;", 0, ""},
	    {"-c a=", "a=;", 0, ""},
	    {"-c a=b\\", "a=b;", 0, ""},
	    {"-c pgweave.database=analytics", "pgweave.database=analytics;", 0, ""},
	    {"-c=", "", F_PROTO_OPTIONS, "-c="},
	    {"-c =", "", F_PROTO_OPTIONS, "-c ="},
	    {"-c", "", F_PROTO_OPTIONS, "-c"},
	    {"-c a", "", F_PROTO_OPTIONS, "-c a"},
	    {"-c a=b -c", "a=b;", F_PROTO_OPTIONS, "-c"},
	    {"--", "", F_PROTO_OPTIONS, "--"},
	    {"--=x", "", F_PROTO_OPTIONS, "--=x"},
	    {"--work-mem", "", F_PROTO_OPTIONS, "--work-mem"},
	    {"-", "", F_PROTO_OPTIONS, "-"},
	    {"\\", "", F_PROTO_OPTIONS, ""},
	    {"x -c a=b", "", F_PROTO_OPTIONS, "x"},
	    {"-c a=b -B 3", "a=b;", F_PROTO_OPTIONS, "-B"},
	    {"-c stop=1 -c a=b", "stop=1;", F_NOT_FOUND, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf seen = {0};
		char why[100] = "";

		assert_int_equal(
		    proto_options_each(rows[i].options, gather, &seen, why, sizeof(why)),
		    rows[i].rc);
		buf_add(&seen, "", 1);
		assert_string_equal((char *)seen.mem, rows[i].seen);
		assert_string_equal(why, rows[i].why);
		buf_free(&seen);
	}
}

/* ---- writing ---- */

static void
login_messages(void **state)
{
	static const char *const mechanisms[] = {"SCRAM-SHA-256"};
	static const char *const unknown[] = {"_pq_.a", "_pq_.b"};
	struct buf b = {0};

	(void)state;
	proto_auth_ok(&b);
	EXPECT(&b, "R\0\0\0\x08\0\0\0\0");
	proto_auth_cleartext(&b);
	EXPECT(&b, "R\0\0\0\x08\0\0\0\x03");
	proto_auth_md5(&b, (const uint8_t *)"abcd");
	EXPECT(&b, "R\0\0\0\x0c\0\0\0\x05"
		   "abcd");
	proto_auth_sasl(&b, mechanisms, 1);
	EXPECT(&b, "R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
	proto_auth_sasl_continue(&b, "r=x", 3);
	EXPECT(&b, "R\0\0\0\x0b\0\0\0\x0br=x");
	proto_auth_sasl_final(&b, "v=x", 3);
	EXPECT(&b, "R\0\0\0\x0b\0\0\0\x0cv=x");
	proto_parameter_status(&b, "TimeZone", "UTC");
	EXPECT(&b, "S\0\0\0\x11TimeZone\0UTC\0");
	proto_backend_key(&b, 7, "wxyz", 4);
	EXPECT(&b, "K\0\0\0\x0c\0\0\0\x07wxyz");
	proto_negotiate(&b, PROTO_V3, unknown, 2);
	EXPECT(&b, "v\0\0\0\x1a\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.b\0");
	proto_password(&b, "secret");
	EXPECT(&b, "p\0\0\0\x0bsecret\0");
	proto_sasl_initial(&b, "M", "data", 4);
	EXPECT(&b, "p\0\0\0\x0eM\0\0\0\0\x04"
		   "data");
	proto_sasl_initial(&b, "M", NULL, 0);
	EXPECT(&b, "p\0\0\0\x0aM\0\xff\xff\xff\xff");
	proto_sasl_response(&b, "data", 4);
	EXPECT(&b, "p\0\0\0\x08"
		   "data");
}

static void
answer_messages(void **state)
{
	static const struct proto_column columns[] = {{"n", 20, 8}, {"t", 25, -1}};
	static const char *const values[] = {"17", NULL};
	struct buf b = {0};

	(void)state;
	proto_ready(&b, 'T');
	EXPECT(&b, "Z\0\0\0\x05T");
	proto_command_complete(&b, "SHOW");
	EXPECT(&b, "C\0\0\0\x09SHOW\0");
	proto_empty_query(&b);
	EXPECT(&b, "I\0\0\0\x04");
	proto_message(&b, 'd', "xy", 2);
	EXPECT(&b, "d\0\0\0\x06xy");
	proto_row_description(&b, columns, 2);
	EXPECT(&b, "T\0\0\0\x2e\0\x02"
		   "n\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0"
		   "t\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
	proto_data_row(&b, values, 2);
	EXPECT(&b, "D\0\0\0\x10\0\x02\0\0\0\x02"
		   "17\xff\xff\xff\xff");
}

static void
server_messages(void **state)
{
	static const char *const params[][2] = {{"a", "b"}, {"gone", NULL}};
	struct proto_startup head = {.major = 3, .user = "u", .database = "d"}, back;
	struct buf b = {0}, seen = {0};

	(void)state;
	proto_startup(&b, &head, params, 2);
	assert_int_equal(proto_startup_size(b.mem, b.len), b.len);
	assert_int_equal(proto_startup_parse(b.mem, b.len, &back), 0);
	assert_int_equal(proto_startup_each(&back, gather, &seen), 0);
	assert_memory_equal(seen.mem, "user=u;database=d;a=b;", seen.len);
	buf_free(&seen);
	buf_free(&b);
	proto_ssl_request(&b);
	EXPECT(&b, "\0\0\0\x08\x04\xd2\x16\x2f");
	proto_cancel_request(&b, 258, "key!", 4);
	EXPECT(&b, "\0\0\0\x10\x04\xd2\x16\x2e\0\0\x01\x02key!");
	proto_query(&b, "x");
	EXPECT(&b, "Q\0\0\0\x06x\0");
	proto_parse(&b, "n", "x", (const uint8_t *)"\0\x01\0\0\0\x17", 6);
	EXPECT(&b, "P\0\0\0\x0en\0x\0\0\x01\0\0\0\x17");
	proto_close_statement(&b, "n");
	EXPECT(&b, "C\0\0\0\x07Sn\0");
	proto_sync(&b);
	proto_terminate(&b);
	EXPECT(&b, "S\0\0\0\x04X\0\0\0\x04");
}

/* ---- errors ---- */

static void
errors_go_and_come_back(void **state)
{
	struct proto_error_fields f;
	struct buf b = {0};
	const uint8_t *body;
	size_t len;

	(void)state;
	proto_error(&b, "ERROR", "42P01", "no table", NULL, "make one");
	EXPECT(&b, "E\0\0\0\x2eSERROR\0VERROR\0C42P01\0Mno table\0Hmake one\0\0");
	proto_fault(&b, "FATAL", F_PROTO_NO_USER, NULL);
	body = only_message(&b, 'E', &len);
	assert_int_equal(proto_error_parse(body, len, &f), 0);
	assert_string_equal(f.severity, "FATAL");
	assert_string_equal(f.sqlstate, "28000");
	assert_string_equal(
	    f.message, "no PostgreSQL user name specified in startup packet");
	assert_string_equal(f.hint, "");
	buf_free(&b);
	proto_fault(&b, "WARNING", F_INTERNAL, "mine");
	body = only_message(&b, 'N', &len);
	assert_int_equal(proto_error_parse(body, len, &f), 0);
	assert_string_equal(f.message, "mine");
	buf_free(&b);

	assert_int_equal(proto_error_parse(BYTES("SFEHLER\0VERROR\0\0"), &f), 0);
	assert_string_equal(f.severity, "ERROR");
	assert_string_equal(f.sqlstate, ""); /* absent: not NULL */
	assert_int_equal(proto_error_parse(BYTES("\0"), &f), 0);
	assert_int_equal(proto_error_parse(BYTES(""), &f), F_PROTO_MESSAGE);
	assert_int_equal(proto_error_parse(BYTES("Mx"), &f), F_PROTO_MESSAGE);
	assert_int_equal(proto_error_parse(BYTES("Mx\0"), &f), F_PROTO_MESSAGE);
	assert_int_equal(proto_error_parse(BYTES("M"), &f), F_PROTO_MESSAGE);
	assert_int_equal(proto_error_parse(BYTES("Mx\0\0y"), &f), F_PROTO_MESSAGE);
}

static void
errors_are_renamed(void **state)
{
	struct buf b = {0};

	(void)state;
	assert_int_equal(
	    proto_error_rename(
		&b, BYTES("SERROR\0Mprepared \"pw1\" pw1\0Hpw1\0\0"), "pw1", "mine"),
	    0);
	EXPECT(&b, "E\0\0\0\x27SERROR\0Mprepared \"mine\" mine\0Hpw1\0\0");
	assert_int_equal(proto_error_rename(&b, BYTES("Mpw1\0C1\0\0"), "pw1", ""), 0);
	EXPECT(&b, "E\0\0\0\x0aM\0C1\0\0");
	assert_int_equal(proto_error_rename(&b, BYTES("Mpw1\0\0"), "", "x"), 0);
	EXPECT(&b, "E\0\0\0\x0aMpw1\0\0");
	assert_int_equal(proto_error_rename(&b, BYTES("C1\0\0"), "1", "x"), 0);
	EXPECT(&b, "E\0\0\0\x08"
		   "C1\0\0");
	assert_int_equal(
	    proto_error_rename(&b, BYTES("Mpw1"), "pw1", "x"), F_PROTO_MESSAGE);
	assert_int_equal(b.len, 0);
	buf_free(&b);
}

/* ---- reading ---- */

static void
server_messages_are_read(void **state)
{
	const char *name, *value;
	const uint8_t *data;
	uint32_t n;
	size_t len;

	(void)state;
	assert_int_equal(proto_parameter_parse(BYTES("a\0b\0"), &name, &value), 0);
	assert_string_equal(name, "a");
	assert_string_equal(value, "b");
	assert_int_equal(
	    proto_parameter_parse(BYTES("a\0b"), &name, &value), F_PROTO_MESSAGE);
	assert_int_equal(
	    proto_parameter_parse(BYTES("a\0"), &name, &value), F_PROTO_MESSAGE);
	assert_int_equal(
	    proto_parameter_parse(BYTES("a\0b\0c"), &name, &value), F_PROTO_MESSAGE);
	assert_int_equal(
	    proto_parameter_parse(BYTES(""), &name, &value), F_PROTO_MESSAGE);

	assert_int_equal(proto_auth_parse(BYTES("\0\0\0\x05salt"), &n, &data, &len), 0);
	assert_int_equal(n, 5);
	assert_int_equal(len, 4);
	assert_memory_equal(data, "salt", 4);
	assert_int_equal(
	    proto_auth_parse(BYTES("\0\0\0"), &n, &data, &len), F_PROTO_MESSAGE);

	assert_int_equal(proto_backend_key_parse(BYTES("\0\0\0\x05"
						       "abcd"),
			     &n, &data, &len),
	    0);
	assert_int_equal(n, 5);
	assert_int_equal(len, 4);
	assert_int_equal(proto_backend_key_parse(BYTES("\0\0\0\x05"
						       "abc"),
			     &n, &data, &len),
	    F_PROTO_MESSAGE);
}

static void
client_messages_are_read(void **state)
{
	struct proto_parse p;
	const char *a, *b;
	const uint8_t *data;
	size_t len;
	char what;

	(void)state;
	assert_int_equal(
	    proto_parse_parse(BYTES("s\0SELECT 1\0\0\x01\0\0\0\x17"), &p), 0);
	assert_string_equal(p.name, "s");
	assert_int_equal(p.name_len, 1);
	assert_string_equal(p.sql, "SELECT 1");
	assert_int_equal(p.sql_len, 8);
	assert_int_equal(p.types_len, 6);
	assert_int_equal(proto_parse_parse(BYTES("\0\0\0\0"), &p), 0);
	assert_int_equal(proto_parse_parse(BYTES("\0\0\0"), &p), F_PROTO_MESSAGE);
	assert_int_equal(proto_parse_parse(BYTES("\0\0\0\x01"), &p), F_PROTO_MESSAGE);
	assert_int_equal(proto_parse_parse(BYTES("\0\0\xff\xff"), &p), F_PROTO_MESSAGE);
	assert_int_equal(proto_parse_parse(BYTES("\0\0\0\0x"), &p), F_PROTO_MESSAGE);
	assert_int_equal(proto_parse_parse(BYTES("abc"), &p), F_PROTO_MESSAGE);

	assert_int_equal(proto_bind_names(BYTES("p\0st\0\0\0"), &a, &b, &len), 0);
	assert_string_equal(a, "p");
	assert_string_equal(b, "st");
	assert_int_equal(len, 5);
	assert_int_equal(proto_bind_names(BYTES("p\0st"), &a, &b, &len), F_AGAIN);
	assert_int_equal(proto_bind_names(BYTES("p"), &a, &b, &len), F_AGAIN);
	assert_int_equal(proto_bind_names(BYTES(""), &a, &b, &len), F_AGAIN);

	assert_int_equal(proto_target_parse(BYTES("Sx\0"), &what, &a), 0);
	assert_int_equal(what, 'S');
	assert_string_equal(a, "x");
	assert_int_equal(proto_target_parse(BYTES("Xx\0"), &what, &a), F_PROTO_MESSAGE);
	assert_int_equal(proto_target_parse(BYTES("S"), &what, &a), F_PROTO_MESSAGE);
	assert_int_equal(proto_target_parse(BYTES("Sx\0y"), &what, &a), F_PROTO_MESSAGE);
	assert_int_equal(proto_string_parse(BYTES("x\0"), &a), 0);
	assert_int_equal(proto_string_parse(BYTES("x"), &a), F_PROTO_MESSAGE);
	assert_int_equal(proto_string_parse(BYTES("x\0y\0"), &a), F_PROTO_MESSAGE);

	assert_int_equal(
	    proto_sasl_initial_parse(BYTES("M\0\0\0\0\x01x"), &a, &data, &len), 0);
	assert_string_equal(a, "M");
	assert_int_equal(len, 1);
	assert_int_equal(
	    proto_sasl_initial_parse(BYTES("M\0\xff\xff\xff\xff"), &a, &data, &len), 0);
	assert_null(data);
	assert_int_equal(
	    proto_sasl_initial_parse(BYTES("M\0\0\0\0\0"), &a, &data, &len), 0);
	assert_non_null(data);
	assert_int_equal(
	    proto_sasl_initial_parse(BYTES("M\0\xff\xff\xff\xffx"), &a, &data, &len),
	    F_PROTO_MESSAGE);
	assert_int_equal(
	    proto_sasl_initial_parse(BYTES("M\0\0\0\0\x02x"), &a, &data, &len),
	    F_PROTO_MESSAGE);
	assert_int_equal(
	    proto_sasl_initial_parse(BYTES("M\0\0\0"), &a, &data, &len), F_PROTO_MESSAGE);
}

static void
replication_is_read(void **state)
{
	static const struct {
		const char *value;
		int is; /* enum proto_replication, or F_PROTO_REPLICATION */
	} cases[] = {
	    {"database", REPLICATION_LOGICAL},
	    {"true", REPLICATION_PHYSICAL},
	    {"T", REPLICATION_PHYSICAL},
	    {"On", REPLICATION_PHYSICAL},
	    {"ye", REPLICATION_PHYSICAL},
	    {"1", REPLICATION_PHYSICAL},
	    {"false", REPLICATION_NONE},
	    {"of", REPLICATION_NONE},
	    {"N", REPLICATION_NONE},
	    {"0", REPLICATION_NONE},
	    {"o", F_PROTO_REPLICATION},
	    {"", F_PROTO_REPLICATION},
	    {"10", F_PROTO_REPLICATION},
	    {"truely", F_PROTO_REPLICATION},
	    {"Database", F_PROTO_REPLICATION},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		enum proto_replication is = REPLICATION_NONE;
		int fault = proto_replication_parse(cases[i].value, &is);

		assert_int_equal(fault != 0 ? fault : (int)is, cases[i].is);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(startup_is_parsed),
	    cmocka_unit_test(startup_is_refused),
	    cmocka_unit_test(startup_sizes),
	    cmocka_unit_test(special_packets),
	    cmocka_unit_test(options_are_split),
	    cmocka_unit_test(replication_is_read),
	    cmocka_unit_test(login_messages),
	    cmocka_unit_test(answer_messages),
	    cmocka_unit_test(server_messages),
	    cmocka_unit_test(errors_go_and_come_back),
	    cmocka_unit_test(errors_are_renamed),
	    cmocka_unit_test(server_messages_are_read),
	    cmocka_unit_test(client_messages_are_read),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
