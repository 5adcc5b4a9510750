/*
 * conf/value.c: a value from text to its field and back: numbers with units, yes and no,
 * words; and the sentence for what is none of them.
 */
#include "settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct suffix {
	const char *name;
	int64_t factor;
};
#define SECOND_US INT64_C(1000000)
static const struct suffix time_suffixes[] = {
    {"us", 1},
    {"ms", 1000},
    {"s", SECOND_US},
    {"min", 60 * SECOND_US},
    {"h", 3600 * SECOND_US},
    {"d", 86400 * SECOND_US},
    {NULL, 0},
};
static const struct suffix size_suffixes[] = {
    {"B", 1},
    {"kB", 1 << 10},
    {"MB", 1 << 20},
    {"GB", 1 << 30},
    {NULL, 0},
};
static const struct suffix no_suffixes[] = {{NULL, 0}};

/* What a plain number counts, in what the field counts. */
static int64_t
unit_factor(const struct setting *s)
{
	if (s->type != SET_TIME)
		return (1);
	for (const struct suffix *u = time_suffixes; u->name != NULL; u++) {
		if (strcmp(u->name, s->unit) == 0)
			return (u->factor);
	}
	return (1);
}

static bool
is_octal(const struct setting *s)
{
	return (s->type == SET_INT && strcmp(s->unit, "octal") == 0);
}

/* Whole seconds: what the kernel counts in. */
static bool
is_seconds(const struct setting *s)
{
	return (s->type == SET_INT && strcmp(s->unit, "s") == 0);
}

static bool
is_auto(const struct setting *s)
{
	return (s->type == SET_INT && strcmp(s->unit, "auto") == 0);
}

void *
setting_field(struct settings *set, const struct setting *s)
{
	INVARIANT((s->scope & SC_GLOBAL) != 0);
	return ((char *)set + s->offset);
}

static const void *
field_of(const struct settings *set, const struct setting *s)
{
	INVARIANT((s->scope & SC_GLOBAL) != 0);
	return ((const char *)set + s->offset);
}

/* ---- words ---- */

/* The next of "a|b|c": its length, and *at moves behind it. */
static size_t
next_word(const char **at, const char **word)
{
	size_t len = strcspn(*at, "|");

	*word = *at;
	*at += len + ((*at)[len] == '|');
	return (len);
}

/* The position of text among the words, or -1. */
static int
word_place(const char *words, const char *text)
{
	const char *word;
	int place = 0;

	while (*words != '\0') {
		size_t len = next_word(&words, &word);

		if (strlen(text) == len && strncasecmp(word, text, len) == 0)
			return (place);
		place++;
	}
	return (-1);
}

static char *
word_at(const char *words, int place)
{
	const char *word;

	while (*words != '\0') {
		size_t len = next_word(&words, &word);

		if (place-- == 0)
			return (mem_strn(word, len));
	}
	return (mem_str("?"));
}

void
setting_words(const struct setting *s, struct buf *out)
{
	const char *words = s->unit, *word;
	const char *comma = "";

	while (*words != '\0') {
		size_t len = next_word(&words, &word);
		char *name = mem_strn(word, len);

		if (setting_refusal(s->key, name) == NULL) {
			buf_addf(out, "%s%s", comma, name);
			comma = ", ";
		}
		free(name);
	}
}

/* ---- the sentence for a wrong value ---- */

static void
say_number(const struct setting *s, int64_t plain, struct buf *out)
{
	if (is_octal(s))
		buf_addf(out, "0%" PRIo64, (uint64_t)plain);
	else
		buf_addf(out, "%" PRId64, plain);
}

static void
say_allowed(const struct setting *s, struct buf *out)
{
	buf_addstr(out, ", allowed are ");
	switch (s->type) {
	case SET_BOOL:
		buf_addstr(out, "1, 0, yes, no, on, off, true, false");
		break;
	case SET_ENUM:
	case SET_STR:
		setting_words(s, out);
		break;
	case SET_INT:
	case SET_TIME:
	case SET_SIZE:
		if (is_auto(s))
			buf_addstr(out, "auto and ");
		say_number(s, s->min + (is_auto(s) && s->min == 0), out);
		buf_addstr(out, " to ");
		say_number(s, s->max, out);
		if (s->type == SET_TIME || is_seconds(s))
			buf_addf(
			    out, " %s, or a number with us, ms, s, min, h or d", s->unit);
		else if (s->type == SET_SIZE)
			buf_addf(out, " %s, or a number with B, kB, MB or GB", s->unit);
		break;
	}
}

static void
say_nearest(const struct setting *s, const char *text, struct buf *out)
{
	const char *words = s->unit, *word, *near;
	char *names[32] = {NULL};
	size_t n = 0;

	while (*words != '\0' && n < ARRAY_LEN(names)) {
		size_t len = next_word(&words, &word);
		char *name = mem_strn(word, len);

		if (setting_refusal(s->key, name) == NULL)
			names[n++] = name;
		else
			free(name);
	}
	near = text_nearest(text, (const char *const *)names, n);
	if (near != NULL)
		buf_addf(out, ", did you mean \"%s\"?", near);
	for (size_t i = 0; i < n; i++)
		free(names[i]);
}

/* Fills why: "text" what, what is allowed, the nearest word. */
static int
wrong(const struct setting *s, const char *text, const char *what, char *why,
    size_t why_len)
{
	struct buf b = {0};

	buf_addf(&b, "\"%.60s\" %s", text, what);
	say_allowed(s, &b);
	if (s->type == SET_ENUM || s->type == SET_STR)
		say_nearest(s, text, &b);
	buf_add(&b, "", 1);
	(void)text_copy(why, why_len, (const char *)b.mem);
	buf_free(&b);
	return (F_CONF_VALUE);
}

/* ---- numbers ---- */

enum number { NUMBER_FINE, NUMBER_BAD, NUMBER_HUGE };

/* digits[.digits]: the fraction in millionths; *at moves behind it. */
static enum number
scan_decimal(const char **at, bool allow_fraction, int64_t *whole, int64_t *millionths)
{
	const char *p = *at;
	int64_t scale = 100000;
	bool is_huge = false, has_digits = false;

	*whole = *millionths = 0;
	for (; *p >= '0' && *p <= '9'; p++) {
		has_digits = true;
		is_huge |= __builtin_mul_overflow(*whole, 10, whole);
		is_huge |= __builtin_add_overflow(*whole, *p - '0', whole);
	}
	if (*p == '.' && allow_fraction) {
		for (p++; *p >= '0' && *p <= '9'; p++) {
			has_digits = true;
			*millionths += (*p - '0') * scale;
			scale /= 10;
		}
	}
	*at = p;
	if (!has_digits)
		return (NUMBER_BAD);
	return (is_huge ? NUMBER_HUGE : NUMBER_FINE);
}

static enum number
scan_octal(const char *text, int64_t *out)
{
	*out = 0;
	if (*text == '\0')
		return (NUMBER_BAD);
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '7')
			return (NUMBER_BAD);
		if (*out > INT64_MAX / 8)
			return (NUMBER_HUGE);
		*out = *out * 8 + (*text - '0');
	}
	return (NUMBER_FINE);
}

/* A number with an optional sign, fraction and suffix, in what the field counts. */
static enum number
scan_scaled(const char *text, const struct suffix *suffixes, int64_t factor, int64_t *out)
{
	bool is_negative = *text == '-';
	int64_t whole, millionths;
	enum number r;

	if (*text == '-' || *text == '+')
		text++;
	r = scan_decimal(&text, suffixes != no_suffixes, &whole, &millionths);
	if (r == NUMBER_BAD)
		return (r);
	text += strspn(text, " \t");
	if (*text != '\0') {
		const struct suffix *u = suffixes;

		while (u->name != NULL && strcasecmp(u->name, text) != 0)
			u++;
		if (u->name == NULL)
			return (NUMBER_BAD);
		factor = u->factor;
	}
	if (r == NUMBER_HUGE || __builtin_mul_overflow(whole, factor, out) ||
	    __builtin_add_overflow(*out, millionths * factor / 1000000, out))
		return (NUMBER_HUGE);
	if (is_negative)
		*out = -*out;
	return (NUMBER_FINE);
}

static int
read_number(
    const struct setting *s, const char *text, int64_t *out, char *why, size_t why_len)
{
	int64_t factor = unit_factor(s);
	const char *what = "is not a number";
	enum number r;

	*out = 0;
	if (is_auto(s) && strcasecmp(text, "auto") == 0)
		return (F_OK);
	if (is_octal(s)) {
		r = scan_octal(text, out);
	} else if (s->type == SET_TIME) {
		r = scan_scaled(text, time_suffixes, factor, out);
		what = "is not a time";
	} else if (is_seconds(s)) {
		r = scan_scaled(text, time_suffixes, SECOND_US, out);
		what = "is not a time of whole seconds";
		if (r == NUMBER_FINE && *out % SECOND_US != 0)
			r = NUMBER_BAD;
		*out /= SECOND_US;
	} else if (s->type == SET_SIZE) {
		r = scan_scaled(text, size_suffixes, factor, out);
		what = "is not a size";
	} else {
		r = scan_scaled(text, no_suffixes, factor, out);
	}
	if (r == NUMBER_BAD)
		return (wrong(s, text, what, why, why_len));
	/* Where there is a word for 0, the number is none. */
	if (r == NUMBER_HUGE || *out < s->min * factor || *out > s->max * factor ||
	    (is_auto(s) && *out == 0))
		return (wrong(s, text, "is out of range", why, why_len));
	return (F_OK);
}

static int
read_bool(
    const struct setting *s, const char *text, int64_t *out, char *why, size_t why_len)
{
	static const char *const yes[] = {"1", "yes", "on", "true"};
	static const char *const no[] = {"0", "no", "off", "false"};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
			*out = strcasecmp(text, yes[i]) == 0;
			return (F_OK);
		}
	}
	return (wrong(s, text, "is neither yes nor no", why, why_len));
}

static int
read_word(
    const struct setting *s, const char *text, int64_t *out, char *why, size_t why_len)
{
	const char *reason = setting_refusal(s->key, text);
	char *what;
	int r;

	if (reason != NULL) {
		what = mem_printf("is refused: %s", reason);
		r = wrong(s, text, what, why, why_len);
		free(what);
		return (r);
	}
	*out = word_place(s->unit, text);
	if (*out < 0)
		return (wrong(s, text, "is none of the words", why, why_len));
	return (F_OK);
}

int
setting_number(
    const struct setting *s, const char *text, int64_t *out, char *why, size_t why_len)
{
	switch (s->type) {
	case SET_INT:
	case SET_TIME:
	case SET_SIZE:
		return (read_number(s, text, out, why, why_len));
	case SET_BOOL:
		return (read_bool(s, text, out, why, why_len));
	case SET_ENUM:
		return (read_word(s, text, out, why, why_len));
	case SET_STR:
		break;
	}
	INVARIANT(!"a string is no number");
	return (F_INTERNAL);
}

/* ---- fields ---- */

int
setting_put(struct settings *set, const struct setting *s, const char *text, char *why,
    size_t why_len)
{
	int64_t n = 0;
	int r;

	if (s == NULL || (s->scope & SC_GLOBAL) == 0) {
		(void)text_copy(why, why_len, "no such key");
		return (F_NOT_FOUND);
	}
	r = s->type == SET_STR
		? (*s->unit != '\0' ? read_word(s, text, &n, why, why_len) : F_OK)
		: setting_number(s, text, &n, why, why_len);
	if (r != F_OK)
		return (r);
	switch (s->type) {
	case SET_STR:
		*(const char **)setting_field(set, s) = text;
		break;
	case SET_BOOL:
		*(bool *)setting_field(set, s) = n != 0;
		break;
	case SET_ENUM:
		*(int *)setting_field(set, s) = (int)n;
		break;
	case SET_INT:
	case SET_TIME:
	case SET_SIZE:
		*(int64_t *)setting_field(set, s) = n;
		break;
	}
	return (F_OK);
}

/* µs in the row's unit, with as many decimals as it takes. */
static void
print_time(const struct setting *s, int64_t us, char *out, size_t out_len)
{
	int64_t factor = unit_factor(s), rest = us % factor;
	char digits[8];
	size_t n;

	if (rest == 0) {
		snprintf(out, out_len, "%" PRId64, us / factor);
		return;
	}
	snprintf(digits, sizeof(digits), "%06d", (int)(rest * 1000000 / factor));
	for (n = strlen(digits); n > 1 && digits[n - 1] == '0'; n--)
		digits[n - 1] = '\0';
	snprintf(out, out_len, "%" PRId64 ".%s", us / factor, digits);
}

void
setting_text(
    const struct settings *set, const struct setting *s, char *out, size_t out_len)
{
	const void *at = field_of(set, s);
	char *word;
	int64_t n;

	switch (s->type) {
	case SET_STR:
		(void)text_copy(out, out_len, *(const char *const *)at);
		return;
	case SET_BOOL:
		(void)text_copy(out, out_len, *(const bool *)at ? "1" : "0");
		return;
	case SET_ENUM:
		word = word_at(s->unit, *(const int *)at);
		(void)text_copy(out, out_len, word);
		free(word);
		return;
	case SET_TIME:
		print_time(s, *(const int64_t *)at, out, out_len);
		return;
	case SET_INT:
	case SET_SIZE:
		n = *(const int64_t *)at;
		if (is_auto(s) && n == 0)
			(void)text_copy(out, out_len, "auto");
		else if (is_octal(s))
			snprintf(out, out_len, "0%" PRIo64, (uint64_t)n);
		else
			snprintf(out, out_len, "%" PRId64, n);
		return;
	}
}

void
settings_defaults(struct settings *set)
{
	char why[256];

	*set = (struct settings){0};
	for (size_t i = 0; i < setting_count; i++) {
		const struct setting *s = &setting_table[i];

		INVARIANT(setting_put(set, s, s->dflt, why, sizeof(why)) == F_OK);
	}
}

bool
setting_same(const struct settings *a, const struct settings *b, const struct setting *s)
{
	const void *x = field_of(a, s), *y = field_of(b, s);

	switch (s->type) {
	case SET_STR:
		return (strcmp(*(const char *const *)x, *(const char *const *)y) == 0);
	case SET_BOOL:
		return (*(const bool *)x == *(const bool *)y);
	case SET_ENUM:
		return (*(const int *)x == *(const int *)y);
	case SET_INT:
	case SET_TIME:
	case SET_SIZE:
		return (*(const int64_t *)x == *(const int64_t *)y);
	}
	return (false);
}

void
settings_diff(const struct settings *was, const struct settings *is,
    void (*changed)(void *arg, const struct setting *, bool needs_restart), void *arg)
{
	for (size_t i = 0; i < setting_count; i++) {
		const struct setting *s = &setting_table[i];

		if (!setting_same(was, is, s))
			changed(arg, s, s->apply == AP_RESTART);
	}
}
