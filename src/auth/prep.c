/*
 * SASLprep without its normalisation.
 *
 * As in PostgreSQL, ASCII stays as it is, and so does what is not UTF-8 or holds characters
 * that SASLprep forbids (the raw bytes are the password then). In the rest, spaces of other
 * scripts become a space and characters that are commonly mapped to nothing go.
 *
 * Left out: NFKC (a password with ligatures, full-width or decomposed letters must be given
 * in the form that NFKC makes of it), and the refusal of code points unknown to Unicode 3.2
 * and of mixed directions.
 */
#include <string.h>

#include "prep.h"

struct range {
	uint32_t first, last;
};

/* RFC 3454, table C.1.2 */
static const struct range spaces[] = {{0x00A0, 0x00A0}, {0x1680, 0x1680},
    {0x2000, 0x200B}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
/* Table B.1 */
static const struct range nothing[] = {{0x00AD, 0x00AD}, {0x034F, 0x034F},
    {0x1806, 0x1806}, {0x180B, 0x180D}, {0x200C, 0x200D}, {0x2060, 0x2060},
    {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}};
/* Tables C.2.1, C.2.2 and C.3 to C.9, without what is mapped above */
static const struct range forbidden[] = {{0x0000, 0x001F}, {0x007F, 0x009F},
    {0x0340, 0x0341}, {0x06DD, 0x06DD}, {0x070F, 0x070F}, {0x180E, 0x180E},
    {0x200E, 0x200F}, {0x2028, 0x202E}, {0x2061, 0x2063}, {0x206A, 0x206F},
    {0x2FF0, 0x2FFB}, {0xD800, 0xF8FF}, {0xFDD0, 0xFDEF}, {0xFFF9, 0xFFFF},
    {0x1D173, 0x1D17A}, {0xE0001, 0xE0001}, {0xE0020, 0xE007F}, {0xF0000, 0x10FFFF}};

static bool
is_in(const struct range *ranges, size_t count, uint32_t c)
{
	for (size_t i = 0; i < count; i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return (true);
	return (false);
}
#define IS_IN(ranges, c) is_in(ranges, ARRAY_LEN(ranges), c)

/* Decodes the character at p (NUL-terminated text). Its length in bytes, 0: not UTF-8. */
static size_t
decode(const uint8_t *p, uint32_t *c)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80       ? 1
		     : p[0] >> 5 == 6  ? 2
		     : p[0] >> 4 == 14 ? 3
		     : p[0] >> 3 == 30 ? 4
				       : 0;

	if (len <= 1) {
		*c = p[0];
		return (len);
	}
	*c = p[0] & (0x7Fu >> len);
	for (size_t i = 1; i < len; i++) {
		if (p[i] >> 6 != 2)
			return (0);
		*c = *c << 6 | (p[i] & 0x3Fu);
	}
	return (*c >= least[len] && *c <= 0x10FFFF ? len : 0);
}

char *
prep_password(const char *password)
{
	size_t size = strlen(password), n = 0, len = 0;
	bool is_ascii = true, is_bad = false;
	char *out;

	for (size_t i = 0; i < size; i++)
		is_ascii = is_ascii && (uint8_t)password[i] < 0x80;
	if (is_ascii)
		return (NULL);
	out = mem_alloc(size + 1);
	for (size_t i = 0; i < size && !is_bad; i += len) {
		uint32_t c;

		len = decode((const uint8_t *)password + i, &c);
		is_bad = len == 0 || IS_IN(forbidden, c) || (c & 0xFFFE) == 0xFFFE;
		if (IS_IN(spaces, c)) {
			out[n++] = ' ';
		} else if (!IS_IN(nothing, c)) {
			memcpy(out + n, password + i, len);
			n += len;
		}
	}
	out[n] = '\0';
	if (!is_bad && n > 0)
		return (out);
	mem_free_secret(out, size + 1);
	return (NULL);
}
