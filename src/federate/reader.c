/*
 * Rows of COPY … FROM STDIN. Text and CSV are read in runs of bytes that are nothing but
 * themselves; what ends a line is what ended the first one, and another end of line in the data is
 * an error, as in PostgreSQL: on another database it could be the first.
 */
#include "reader.h"
#include "proto.h"
#include <stdio.h>
#include <string.h>

static void
begin(struct reader *r)
{
	const struct reader_spec *s = &r->spec;

	r->is_begun = true;
	r->line = 1;
	r->is_header = s->has_header;
	if (s->format == SQL_COPY_BINARY) {
		r->left = 19;
		r->line = 0;
		return;
	}
	r->special['\n'] = r->special['\r'] = true;
	r->special[(uint8_t)s->delimiter] = true;
	if (s->format == SQL_COPY_CSV)
		r->special[(uint8_t)s->quote] = r->special[(uint8_t)s->escape] = true;
	else
		r->special['\\'] = true;
}

static enum reader_said
bad(struct reader *r, const char *message, const char *hint)
{
	(void)text_copy(r->message, sizeof(r->message), message);
	r->hint = hint;
	r->is_over = true;
	return (READER_BAD);
}

static enum reader_said
bad_missing(struct reader *r)
{
	char message[160];

	snprintf(
	    message, sizeof(message), "missing data for column \"%.80s\"", r->spec.key);
	return (bad(r, message, NULL));
}

/* ---- the value ---- */

static unsigned
digit_of(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return (c - '0');
	if (c >= 'a' && c <= 'f')
		return (c - 'a' + 10U);
	return (c >= 'A' && c <= 'F' ? c - 'A' + 10U : 16U);
}

/* Up to `most` digits to that base, from p on. */
static const uint8_t *
read_digits(
    const uint8_t *p, const uint8_t *end, unsigned base, unsigned most, uint8_t *out)
{
	unsigned value = 0;

	for (; p < end && most > 0 && digit_of(*p) < base; p++, most--)
		value = value * base + digit_of(*p);
	*out = (uint8_t)value;
	return (p);
}

/* Without its backslashes. */
static void
plain_text(struct reader *r)
{
	static const char letters[] = "bfnrtv", meant[] = "\b\f\n\r\t\v";
	const uint8_t *p = r->raw.mem, *end;

	if (r->raw.len == 0)
		return;
	end = p + r->raw.len;
	while (p < end) {
		uint8_t c = *p++;
		const char *letter;

		if (c == '\\' && p < end) {
			c = *p++;
			letter = c != '\0' ? strchr(letters, c) : NULL;
			if (digit_of(c) < 8)
				p = read_digits(p - 1, end, 8, 3, &c);
			else if (c == 'x' && p < end && digit_of(*p) < 16)
				p = read_digits(p, end, 16, 2, &c);
			else if (letter != NULL)
				c = (uint8_t)meant[letter - letters];
		} else if (c == '\\')
			break;
		buf_add(&r->plain, &c, 1);
	}
}

/* Without its quotes; true when it had any. */
static bool
plain_csv(struct reader *r)
{
	const uint8_t *p = r->raw.mem, *end;
	uint8_t quote = (uint8_t)r->spec.quote, escape = (uint8_t)r->spec.escape;
	bool is_in = false, had = false;

	if (r->raw.len == 0)
		return (false);
	for (end = p + r->raw.len; p < end; p++) {
		if (is_in && *p == escape && p + 1 < end &&
		    (p[1] == escape || p[1] == quote)) {
			p++;
			buf_add(&r->plain, p, 1);
		} else if (*p == quote) {
			is_in = !is_in;
			had = true;
		} else
			buf_add(&r->plain, p, 1);
	}
	return (had);
}

static bool
is_same(const struct buf *b, const char *text)
{
	size_t len = strlen(text);

	return (b->len == len && (len == 0 || memcmp(b->mem, text, len) == 0));
}

/* Of what stands in the row. */
static void
find_value(struct reader *r)
{
	const struct reader_spec *s = &r->spec;
	bool had_quotes = false;

	r->plain.len = 0;
	if (s->format == SQL_COPY_CSV)
		had_quotes = plain_csv(r);
	else
		plain_text(r);
	r->is_null = !had_quotes && is_same(&r->raw, s->null);
	r->is_default = !had_quotes && s->dflt != NULL && is_same(&r->raw, s->dflt);
	if (s->format == SQL_COPY_CSV && r->is_null && s->forces_not_null) {
		r->is_null = false;
		r->plain.len = 0;
		buf_addstr(&r->plain, s->null);
	} else if (s->format == SQL_COPY_CSV && !r->is_null && s->forces_null)
		r->is_null = is_same(&r->plain, s->null);
	r->value = r->plain.mem;
	r->value_len = r->plain.len;
	r->is_told = true;
	r->raw.len = 0;
}

/* ---- lines ---- */

static void
line_over(struct reader *r)
{
	r->row_bytes = 0;
	r->field = 0;
	r->raw.len = 0;
	r->line++;
	r->is_told = r->is_header = r->is_mark = false;
	r->is_in_quotes = r->was_escape = r->is_escaped = r->is_after_cr = false;
	r->hex_left = 0;
}

/* What the line that ends here is, of which all but its end was read. KEY: the end is to be
 * read again. */
static enum reader_said
line_ends(struct reader *r)
{
	bool is_csv = r->spec.format == SQL_COPY_CSV;

	if (r->is_header)
		return (READER_HEADER);
	if (r->is_mark || (is_csv && r->spec.csv_has_mark && r->row_bytes == 2 &&
			      r->first[0] == '\\' && r->first[1] == '.'))
		return (READER_END);
	if (r->is_told)
		return (READER_ROW);
	if (r->field < r->spec.key_at)
		return (bad_missing(r));
	find_value(r);
	return (READER_KEY);
}

static enum reader_said
bad_return(struct reader *r)
{
	if (r->spec.format == SQL_COPY_CSV)
		return (bad(r, "unquoted carriage return found in data",
		    "Use quoted CSV field to represent carriage return."));
	return (bad(r, "literal carriage return found in data",
	    "Use \"\\r\" to represent carriage return."));
}

static enum reader_said
bad_newline(struct reader *r)
{
	if (r->spec.format == SQL_COPY_CSV)
		return (bad(r, "unquoted newline found in data",
		    "Use quoted CSV field to represent newline."));
	return (
	    bad(r, "literal newline found in data", "Use \"\\n\" to represent newline."));
}

/* A byte that may end the line, outside of quotes. *used: it belongs to the line. */
static enum reader_said
end_byte(struct reader *r, uint8_t c, bool *used)
{
	enum reader_said said;

	*used = false;
	if (c == '\r' && r->eol == EOL_NL)
		return (bad_return(r));
	if (c == '\n' && (r->eol == EOL_CR || r->eol == EOL_CRNL))
		return (bad_newline(r));
	/* Whether a newline follows decides. */
	if (c == '\r' && r->eol != EOL_CR) {
		r->is_after_cr = true;
		*used = true;
		return (READER_MORE);
	}
	said = line_ends(r);
	if (said == READER_KEY || said == READER_BAD)
		return (said);
	if (c == '\n')
		r->eol = EOL_NL;
	*used = true;
	return (said);
}

/* The byte behind a carriage return that ends the line, maybe with it. c < 0: there is none. */
static enum reader_said
after_return(struct reader *r, int c, bool *used)
{
	enum reader_said said;

	*used = false;
	if (c != '\n' && r->eol == EOL_CRNL)
		return (bad_return(r));
	said = line_ends(r);
	if (said == READER_KEY || said == READER_BAD)
		return (said);
	r->eol = c == '\n' ? EOL_CRNL : EOL_CR;
	*used = c == '\n';
	return (said);
}

/* ---- text and CSV ---- */

static void
keep(struct reader *r, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n && r->row_bytes + i < 2; i++)
		r->first[r->row_bytes + i] = p[i];
	r->row_bytes += n;
	if (r->field == r->spec.key_at && !r->is_told && !r->is_header)
		buf_add(&r->raw, p, n);
}

/* An unquoted delimiter. KEY: it is to be read again. */
static enum reader_said
delimiter(struct reader *r)
{
	if (r->is_header || r->field != r->spec.key_at || r->is_told) {
		r->field += !r->is_header;
		r->row_bytes++;
		return (READER_MORE);
	}
	find_value(r);
	return (READER_KEY);
}

static enum reader_said
csv_byte(struct reader *r, uint8_t c, bool *used)
{
	uint8_t quote = (uint8_t)r->spec.quote, escape = (uint8_t)r->spec.escape;

	*used = true;
	if (r->is_in_quotes && c == escape && escape != quote)
		r->was_escape = !r->was_escape;
	if (c == quote && !r->was_escape)
		r->is_in_quotes = !r->is_in_quotes;
	if (c != escape || escape == quote)
		r->was_escape = false;
	if (!r->is_in_quotes && (c == '\n' || c == '\r'))
		return (end_byte(r, c, used));
	if (!r->is_in_quotes && c == (uint8_t)r->spec.delimiter) {
		enum reader_said said = delimiter(r);

		*used = said == READER_MORE;
		return (said);
	}
	if (c == (r->eol == EOL_NL ? '\n' : '\r'))
		r->line++;
	keep(r, &c, 1);
	return (READER_MORE);
}

static enum reader_said
text_byte(struct reader *r, uint8_t c, bool *used)
{
	*used = true;
	if (r->is_escaped) {
		r->is_escaped = false;
		if (c == '.' && r->row_bytes > 1)
			return (
			    bad(r, "end-of-copy marker is not alone on its line", NULL));
		r->is_mark = c == '.';
		r->hex_left = c == 'x' ? 2 : 0;
		keep(r, &c, 1);
		return (READER_MORE);
	}
	if (c == '\n' || c == '\r')
		return (end_byte(r, c, used));
	if (r->is_mark)
		return (bad(r, "end-of-copy marker corrupt", NULL));
	if (c == (uint8_t)r->spec.delimiter && r->hex_left == 0) {
		enum reader_said said = delimiter(r);

		*used = said == READER_MORE;
		return (said);
	}
	r->is_escaped = c == '\\';
	keep(r, &c, 1);
	return (READER_MORE);
}

/* How many bytes from here on are nothing but themselves. */
static size_t
plain_run(const struct reader *r, const uint8_t *p, size_t len)
{
	size_t n = 0;

	if (r->is_escaped || r->is_mark || r->hex_left > 0)
		return (0);
	while (n < len && !r->special[p[n]])
		n++;
	return (n);
}

/* One byte that may be more than itself. */
static enum reader_said
line_byte(struct reader *r, uint8_t c, bool *used)
{
	if (r->is_after_cr)
		return (after_return(r, c, used));
	if (r->spec.format == SQL_COPY_CSV)
		return (csv_byte(r, c, used));
	/* "\x41": its digits are no delimiters. */
	if (r->hex_left > 0 && digit_of(c) < 16) {
		r->hex_left--;
		keep(r, &c, 1);
		*used = true;
		return (READER_MORE);
	}
	if (!r->is_escaped)
		r->hex_left = 0;
	return (text_byte(r, c, used));
}

static void
line_next(struct reader *r, enum reader_said said)
{
	if (said == READER_END)
		r->is_over = true;
	if (said == READER_ROW || said == READER_HEADER || said == READER_END)
		line_over(r);
}

static size_t
lines_read(struct reader *r, const uint8_t *p, size_t len, enum reader_said *said)
{
	size_t at = 0, n;
	bool used;

	*said = READER_MORE;
	while (at < len && *said == READER_MORE) {
		n = r->is_after_cr ? 0 : plain_run(r, p + at, len - at);
		if (n > 0 && r->was_escape)
			r->was_escape = false;
		keep(r, p + at, n);
		at += n;
		if (at == len)
			break;
		*said = line_byte(r, p[at], &used);
		at += used;
	}
	line_next(r, *said);
	return (at);
}

/* ---- binary ---- */

static const uint8_t signature[11] = {
    'P', 'G', 'C', 'O', 'P', 'Y', '\n', 0xff, '\r', '\n', '\0'};

/* The bytes of a number, or of the signature, are all there. */
static enum reader_said
binary_whole(struct reader *r)
{
	const uint8_t *p = r->raw.mem;

	switch (r->state) {
	case BIN_SIGNATURE:
		if (memcmp(p, signature, sizeof(signature)) != 0)
			return (bad(r, "COPY file signature not recognized", NULL));
		if ((proto_get32(p + 11) & 0xffff0000U) != 0)
			return (bad(r, "invalid COPY file header", NULL));
		r->state = BIN_EXTENSION;
		r->left = proto_get32(p + 15);
		if (r->left > INT32_MAX)
			return (bad(r, "invalid COPY file header", NULL));
		break;
	case BIN_COUNT:
		r->fields = proto_get16(p);
		r->field = 0;
		r->line++;
		if (r->fields == UINT16_MAX)
			return (READER_END);
		if (r->fields <= r->spec.key_at)
			return (bad_missing(r));
		r->state = BIN_LENGTH;
		r->left = 4;
		break;
	case BIN_LENGTH:
		r->number = proto_get32(p);
		if (r->number > INT32_MAX && r->number != UINT32_MAX)
			return (bad(r, "invalid field size", NULL));
		r->state = BIN_VALUE;
		r->left = r->number == UINT32_MAX ? 0 : r->number;
		break;
	case BIN_EXTENSION:
	case BIN_VALUE:
		break;
	}
	r->raw.len = 0;
	return (READER_MORE);
}

/* A value, or the header's extension, is all there: what comes next. */
static enum reader_said
binary_next(struct reader *r)
{
	if (r->state == BIN_EXTENSION) {
		r->state = BIN_COUNT;
		r->left = 2;
		r->raw.len = 0;
		return (READER_HEADER);
	}
	if (r->field == r->spec.key_at && !r->is_told) {
		r->is_told = true;
		r->is_null = r->number == UINT32_MAX;
		r->value = r->raw.mem;
		r->value_len = r->raw.len;
		return (READER_KEY);
	}
	r->raw.len = 0;
	if (++r->field < r->fields) {
		r->state = BIN_LENGTH;
		r->left = 4;
		return (READER_MORE);
	}
	r->state = BIN_COUNT;
	r->left = 2;
	r->is_told = false;
	r->row_bytes = 0;
	return (READER_ROW);
}

static size_t
binary_read(struct reader *r, const uint8_t *p, size_t len, enum reader_said *said)
{
	size_t at = 0, n;

	*said = READER_MORE;
	for (;;) {
		bool is_value = r->state == BIN_VALUE || r->state == BIN_EXTENSION;

		n = r->left < len - at ? (size_t)r->left : len - at;
		if (!is_value ||
		    (r->state == BIN_VALUE && r->field == r->spec.key_at && !r->is_told))
			buf_add(&r->raw, p + at, n);
		at += n;
		r->left -= n;
		r->row_bytes += n;
		if (r->left > 0)
			return (at);
		*said = is_value ? binary_next(r) : binary_whole(r);
		if (*said == READER_END)
			r->is_over = true;
		if (*said != READER_MORE)
			return (at);
	}
}

/* ---- all ---- */

size_t
reader_read(struct reader *r, const uint8_t *p, size_t len, enum reader_said *said)
{
	bool is_binary = r->spec.format == SQL_COPY_BINARY;

	if (!r->is_begun)
		begin(r);
	*said = READER_MORE;
	if (len == 0 && (!is_binary || r->is_over))
		return (0);
	if (r->is_over && is_binary) {
		*said = bad(r, "received copy data after EOF marker", NULL);
		return (0);
	}
	/* What stands behind the mark is nothing. */
	if (r->is_over)
		return (len);
	return (is_binary ? binary_read(r, p, len, said) : lines_read(r, p, len, said));
}

enum reader_said
reader_finish(struct reader *r)
{
	enum reader_said said;
	bool used;

	if (!r->is_begun)
		begin(r);
	if (r->is_over)
		return (READER_END);
	if (r->spec.format == SQL_COPY_BINARY) {
		if (r->state == BIN_COUNT && r->left == 2)
			return (READER_END);
		return (bad(r,
		    r->state == BIN_SIGNATURE ? "COPY file signature not recognized"
					      : "unexpected EOF in COPY data",
		    NULL));
	}
	if (r->row_bytes == 0 && !r->is_after_cr)
		return (READER_END);
	if (r->is_in_quotes)
		return (bad(r, "unterminated CSV quoted field", NULL));
	/* Without the end of its line it is no mark: in CSV it is a value. */
	if (r->is_mark && !r->is_after_cr)
		return (bad(r, "end-of-copy marker corrupt", NULL));
	r->spec.csv_has_mark &= r->is_after_cr;
	said = r->is_after_cr ? after_return(r, -1, &used) : line_ends(r);
	line_next(r, said);
	return (said);
}

void
reader_free(struct reader *r)
{
	buf_free(&r->raw);
	buf_free(&r->plain);
}
