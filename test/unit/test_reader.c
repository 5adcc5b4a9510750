/* federate: rows and keys in what a client sends for COPY, in pieces of any size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/federate/reader.h"

static void
note(struct buf *out, const struct reader *r, enum reader_said said)
{
	switch (said) {
	case READER_HEADER:
		buf_addf(out, "header ");
		break;
	case READER_KEY:
		if (r->is_null || r->is_default)
			buf_addstr(out, r->is_null ? "NULL" : "DEFAULT");
		else
			buf_addf(
			    out, "<%.*s>", (int)r->value_len, (const char *)r->value);
		break;
	case READER_ROW:
		buf_addf(out, "@%d ", (int)r->line - 1);
		break;
	case READER_END:
		buf_addstr(out, "end");
		break;
	case READER_BAD:
		buf_addf(out, "bad@%d: %s", (int)r->line, r->message);
		break;
	case READER_MORE:
		break;
	}
}

/* What the reader says of the bytes when they come in pieces of that size: each key and the line
 * where its row ends. */
static void
read_in(const struct reader_spec *spec, const char *text, size_t len, size_t piece,
    struct buf *out)
{
	struct reader r = {.spec = *spec};
	enum reader_said said = READER_MORE;
	size_t at = 0;

	while (at < len && said != READER_BAD) {
		size_t left = len - at < piece ? len - at : piece;

		do {
			uint8_t *copy = mem_dup(text + at, left);
			size_t n = reader_read(&r, copy, left, &said);

			assert_true(n <= left);
			note(out, &r, said);
			free(copy);
			at += n;
			left -= n;
		} while (said != READER_MORE && said != READER_BAD);
	}
	while (said != READER_BAD && (said != READER_END || !r.is_over)) {
		said = reader_finish(&r);
		if (said != READER_END)
			note(out, &r, said);
		else
			break;
	}
	buf_add(out, "", 1);
	reader_free(&r);
}

static void
expect_bytes(
    const struct reader_spec *spec, const char *text, size_t len, const char *want)
{
	for (size_t piece = 1; piece <= len + 1; piece++) {
		struct buf out = {0};

		read_in(spec, text, len, piece, &out);
		assert_string_equal((char *)out.mem, want);
		buf_free(&out);
	}
}

static void
expect(const struct reader_spec *spec, const char *text, const char *want)
{
	expect_bytes(spec, text, strlen(text), want);
}

static const struct reader_spec text_spec = {
    .format = SQL_COPY_TEXT, .delimiter = '\t', .null = "\\N", .key = "k"};
static const struct reader_spec csv_spec = {.format = SQL_COPY_CSV,
    .delimiter = ',',
    .quote = '"',
    .escape = '"',
    .null = "",
    .csv_has_mark = true,
    .key = "k"};

static void
text_rows(void **state)
{
	struct reader_spec s = text_spec;

	(void)state;
	expect(&s, "", "");
	expect(&s, "1\ta\n2\tb\n", "<1>@1 <2>@2 ");
	expect(&s, "1\n2", "<1>@1 <2>@2 ");
	expect(&s, "\n\n", "<>@1 <>@2 ");
	expect(&s, "\\N\ta\nN\n", "NULL@1 <N>@2 ");
	expect(&s, "a\\tb\\\\\\x41\\101\\q\\\n\t\n", "<a\tb\\AAq\n>@1 ");
	expect(&s, "1\r\n2\r\n", "<1>@1 <2>@2 ");
	expect(&s, "1\r2\r3", "<1>@1 <2>@2 <3>@3 ");
	expect(&s, "1\n2\n\\.\n3\n", "<1>@1 <2>@2 end");
	s.key_at = 2;
	expect(&s, "a\tb\t7\tc\nx\ty\t8", "<7>@1 <8>@2 ");
	expect(&s, "a\tb\n", "bad@1: missing data for column \"k\"");
	s.has_header = true;
	expect(&s, "h\na\tb\t7\n", "header <7>@2 ");
	s.dflt = "\\D";
	expect(&s, "h\na\tb\t\\D\n", "header DEFAULT@2 ");
	s = text_spec;
	s.delimiter = 'A';
	expect(&s, "\\x4AAx\n\\x4\\AAx\n",
	    "<J>@1 <\x04"
	    "A>@2 ");
}

static void
text_mistakes(void **state)
{
	(void)state;
	expect(
	    &text_spec, "1\n2\r\n", "<1>@1 bad@2: literal carriage return found in data");
	expect(&text_spec, "1\r\n2\n", "<1>@1 bad@2: literal newline found in data");
	expect(&text_spec, "1\r\n2\r3",
	    "<1>@1 bad@2: literal carriage return found in data");
	expect(&text_spec, "1\r2\n", "<1>@1 bad@2: literal newline found in data");
	expect(
	    &text_spec, "1\\.\n", "bad@1: end-of-copy marker is not alone on its line");
	expect(&text_spec, "1\n\\.x\n", "<1>@1 bad@2: end-of-copy marker corrupt");
	expect(&text_spec, "1\n\\.", "<1>@1 bad@2: end-of-copy marker corrupt");
}

static void
csv_rows(void **state)
{
	struct reader_spec s = csv_spec;

	(void)state;
	expect(&s, "1,a\n\"2\",b\n", "<1>@1 <2>@2 ");
	expect(&s, "\"a\"\"b\nc\",x\nd\n", "<a\"b\nc>@1 <d>@2 ");
	expect(&s, "d\n\"a\nb\"\ne\n", "<d>@1 <a\nb>@3 <e>@4 ");
	expect(&s, ",a\n\"\",a\n", "NULL@1 <>@2 ");
	expect(&s, "a\"b,\"c,d\n", "<ab,c>@1 ");
	expect(&s, "1\r\n\"2\n\"\r\n", "<1>@1 <2\n>@2 ");
	expect(&s, "1\n\\.\n2\n", "<1>@1 end");
	expect(&s, "1\n\\.", "<1>@1 <\\.>@2 ");
	expect(&s, "1\r\\.\r", "<1>@1 end");
	expect(&s, "\\.x\n", "<\\.x>@1 ");
	expect(&s, "\"\\.\"\n", "<\\.>@1 ");
	s.csv_has_mark = false;
	expect(&s, "\\.\n2\n", "<\\.>@1 <2>@2 ");
	s.escape = '\\';
	expect(&s, "\"a\\\"b\\\\\\c\",1\n\\\"x\"\n", "<a\"b\\\\c>@1 <\\x>@2 ");
	s = csv_spec;
	s.null = "nil";
	s.forces_not_null = true;
	expect(&s, "nil\n\"nil\"\n", "<nil>@1 <nil>@2 ");
	s.forces_not_null = false;
	s.forces_null = true;
	expect(&s, "nil\n\"nil\"\n\"x\"\n", "NULL@1 NULL@2 <x>@3 ");
	s.has_header = true;
	s.key_at = 1;
	expect(&s, "\"a\nb\",c\n1,2\n", "header <2>@2 ");
	expect(&csv_spec, "1\n\"2\n", "<1>@1 bad@3: unterminated CSV quoted field");
	expect(
	    &csv_spec, "1\n2\r\n", "<1>@1 bad@2: unquoted carriage return found in data");
	expect(&csv_spec, "1\r\n2\n", "<1>@1 bad@2: unquoted newline found in data");
}

#define HEAD "PGCOPY\n\377\r\n\0\0\0\0\0"

static void
binary_rows(void **state)
{
	struct reader_spec s = {.format = SQL_COPY_BINARY, .key = "k"};
	static const char rows[] = HEAD "\0\0\0\2ex"
					"\0\2\0\0\0\1a\377\377\377\377"
					"\0\1\377\377\377\377"
					"\0\2\0\0\0\0\0\0\0\2zz"
					"\377\377";
	size_t all = sizeof(rows) - 1;

	(void)state;
	expect_bytes(&s, rows, all, "header <a>@0 NULL@1 <>@2 end");
	expect_bytes(&s, rows, all - 2, "header <a>@0 NULL@1 <>@2 ");
	expect_bytes(&s, rows, all + 1,
	    "header <a>@0 NULL@1 <>@2 endbad@4: received copy data after EOF marker");
	expect_bytes(&s, rows, all - 3,
	    "header <a>@0 NULL@1 <>bad@3: unexpected EOF in COPY data");
	expect_bytes(&s, rows, 5, "bad@0: COPY file signature not recognized");
	expect_bytes(&s, "PGCOPX\n\377\r\n\0\0\0\0\0\0\0\0\0", 19,
	    "bad@0: COPY file signature not recognized");
	s.key_at = 1;
	expect_bytes(&s, rows, all, "header NULL@0 bad@2: missing data for column \"k\"");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(text_rows),
	    cmocka_unit_test(text_mistakes),
	    cmocka_unit_test(csv_rows),
	    cmocka_unit_test(binary_rows),
	};

	return (cmocka_run_group_tests_name("reader", tests, NULL, NULL));
}
