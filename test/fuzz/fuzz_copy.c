/*
 * Rows of COPY. Whatever the bytes: each answer takes no more than was given, the same bytes in
 * other pieces are the same rows with the same keys, and all of them are told once.
 *
 * The first bytes choose the format and its options.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/federate/reader.h"
#include "fuzz.h"

static void
choose(uint8_t a, uint8_t b, struct reader_spec *s)
{
	static const char delimiters[] = "\t,|;A";

	*s = (struct reader_spec){.format = (enum sql_copy_format)(a % 3),
	    .has_header = (a & 4) != 0 && a % 3 != SQL_COPY_BINARY,
	    .delimiter = delimiters[(a >> 3) % 5],
	    .quote = (b & 1) != 0 ? '\'' : '"',
	    .null = (b & 4) != 0 ? "" : "\\N",
	    .dflt = (b & 8) != 0 ? "D" : NULL,
	    .key_at = (b >> 4) % 3,
	    .forces_null = (b & 64) != 0,
	    .forces_not_null = (b & 128) != 0,
	    .csv_has_mark = (a & 128) != 0,
	    .key = "k"};
	s->escape = (b & 2) != 0 ? '\\' : s->quote;
}

static void
note(const struct reader *r, enum reader_said said, struct buf *out)
{
	uint8_t what[] = {(uint8_t)said, r->is_null, r->is_default};

	buf_add(out, what, said == READER_KEY ? 3 : 1);
	if (said == READER_KEY)
		buf_add(out, r->value, r->value_len);
	if (said == READER_BAD)
		buf_addstr(out, r->message);
}

static void
read_all(const struct reader_spec *spec, const uint8_t *data, size_t size, size_t piece,
    struct buf *out)
{
	struct reader r = {.spec = *spec};
	enum reader_said said = READER_MORE;
	size_t at = 0, rows = 0, keys = 0;

	while (at < size && said != READER_BAD) {
		size_t left = size - at < piece ? size - at : piece;

		do {
			size_t n = reader_read(&r, data + at, left, &said);

			INVARIANT(n <= left);
			INVARIANT(said != READER_MORE || n == left);
			at += n;
			left -= n;
			keys += said == READER_KEY;
			rows += said == READER_ROW;
			INVARIANT(keys == rows || keys == rows + 1);
			if (said != READER_MORE)
				note(&r, said, out);
		} while (said != READER_MORE && said != READER_BAD);
	}
	while (said != READER_BAD && said != READER_END) {
		said = reader_finish(&r);
		note(&r, said, out);
	}
	reader_free(&r);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader_spec spec;
	struct buf whole = {0}, parts = {0};

	if (size < 3)
		return (0);
	choose(data[0], data[1], &spec);
	read_all(&spec, data + 3, size - 3, size, &whole);
	read_all(&spec, data + 3, size - 3, data[2] % 16U + 1, &parts);
	INVARIANT(whole.len == parts.len &&
		  (whole.len == 0 || memcmp(whole.mem, parts.mem, whole.len) == 0));
	buf_free(&whole);
	buf_free(&parts);
	return (0);
}
