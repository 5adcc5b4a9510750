/*
 * conf/table.c: the rows of include/tbl as tables, and what must hold of every row checked
 * when it is compiled.
 */
#include "settings.h"

#include <strings.h>

/* "|session|transaction|statement" from the list that an ENUM row names. */
#define WORD_TEXT(token, text) "|" text
#define UNIT_STR(unit)         unit
#define UNIT_INT(unit)         unit
#define UNIT_TIME(unit)        unit
#define UNIT_SIZE(unit)        unit
#define UNIT_BOOL(unit)        unit
#define UNIT_ENUM(unit)        (WORDS_##unit(WORD_TEXT)) + 1

#define DFLT_STR(d)            d
#define DFLT_INT(d)            #d
#define DFLT_TIME(d)           #d
#define DFLT_SIZE(d)           #d
#define DFLT_BOOL(d)           #d
#define DFLT_ENUM(d)           #d

/* Defaults whose words are no names in C, as they are written in a file. */
/* clang-format off */
#define AUTO auto
#define ROUND_ROBIN round-robin
/* clang-format on */

#define ROW(key, type, scope, dflt, min, max, unit, apply, doc, at)                      \
	{#key, SET_##type, SC_##scope, DFLT_##type(dflt), min, max, UNIT_##type(unit),   \
	    AP_##apply, doc, at},

const struct setting setting_table[] = {
#define SETTING(key, type, scope, dflt, min, max, unit, apply, doc)                      \
	ROW(key, type, scope, dflt, min, max, unit, apply, doc,                          \
	    offsetof(struct settings, key))
#include "tbl/all.def"
};
const size_t setting_count = ARRAY_LEN(setting_table);

const struct setting word_table[] = {
#define WORD(key, type, scope, dflt, min, max, unit, apply, doc)                         \
	ROW(key, type, scope, dflt, min, max, unit, apply, doc, 0)
#include "tbl/all.def"
};
const size_t word_count = ARRAY_LEN(word_table);

#undef AUTO
#undef ROUND_ROBIN

/* ---- a row that cannot be right does not compile ---- */

#define AUTO 0
enum pool_mode_word {
#define W(token, text) W_POOL_MODE_##token,
	WORDS_POOL_MODE(W)
#undef W
};
enum auth_type_word {
#define W(token, text) W_AUTH_TYPE_##token,
	WORDS_AUTH_TYPE(W)
#undef W
};
enum ssl_mode_word {
#define W(token, text) W_SSL_MODE_##token,
	WORDS_SSL_MODE(W)
#undef W
};
enum load_balance_word {
#define W(token, text) W_LOAD_BALANCE_##token,
	WORDS_LOAD_BALANCE(W)
#undef W
};
enum session_attrs_word {
#define W(token, text) W_SESSION_ATTRS_##token,
	WORDS_SESSION_ATTRS(W)
#undef W
};
enum fallback_word {
#define W(token, text) W_FALLBACK_##token,
	WORDS_FALLBACK(W)
#undef W
};
enum pin_word {
#define W(token, text) W_PIN_##token,
	WORDS_PIN(W)
#undef W
};
enum federation_word {
#define W(token, text) W_FEDERATION_##token,
	WORDS_FEDERATION(W)
#undef W
};
enum on_unavailable_word {
#define W(token, text) W_ON_UNAVAILABLE_##token,
	WORDS_ON_UNAVAILABLE(W)
#undef W
};
enum audit_word {
#define W(token, text) W_AUDIT_##token,
	WORDS_AUDIT(W)
#undef W
};
enum function_word {
#define W(token, text) W_FUNCTION_##token,
	WORDS_FUNCTION(W)
#undef W
};
enum key_type_word {
#define W(token, text) W_KEY_TYPE_##token,
	WORDS_KEY_TYPE(W)
#undef W
};
enum shard_type_word {
#define W(token, text) W_SHARD_TYPE_##token,
	WORDS_SHARD_TYPE(W)
#undef W
};
enum job_mode_word {
#define W(token, text) W_JOB_MODE_##token,
	WORDS_JOB_MODE(W)
#undef W
};
_Static_assert((int)W_POOL_MODE_statement == (int)POOL_STATEMENT, "pool_mode: words");
_Static_assert((int)W_PIN_refuse == (int)PIN_REFUSE, "pin: words");
_Static_assert((int)W_AUTH_TYPE_scram == (int)AUTH_SCRAM, "auth_type: words");
_Static_assert((int)W_AUTH_TYPE_peer == (int)AUTH_PEER, "auth_type: words");
_Static_assert((int)W_SSL_MODE_verify_full == (int)SSL_VERIFY_FULL, "sslmode: words");

#define CHECK_STR(key, d, lo, hi, unit)
#define CHECK_INT(key, d, lo, hi, unit)                                                  \
	_Static_assert((d) >= (lo) && (d) <= (hi), #key ": default out of range");
#define CHECK_TIME(key, d, lo, hi, unit) CHECK_INT(key, d, lo, hi, unit)
#define CHECK_SIZE(key, d, lo, hi, unit) CHECK_INT(key, d, lo, hi, unit)
#define CHECK_BOOL(key, d, lo, hi, unit) CHECK_INT(key, d, 0, 1, unit)
#define CHECK_ENUM(key, d, lo, hi, unit)                                                 \
	_Static_assert(                                                                  \
	    (int)W_##unit##_##d >= 0, #key ": default is not one of the words");
#define SETTING(key, type, scope, dflt, min, max, unit, ...)                             \
	CHECK_##type(key, dflt, min, max, unit)
#define WORD(key, type, scope, dflt, min, max, unit, ...)                                \
	CHECK_##type(key, dflt, min, max, unit)
#include "tbl/all.def"

/* A word that stands twice would be a member that stands twice; the settings have their
 * struct. */
struct words_once {
#define WORD(key, ...) char word_##key;
#include "tbl/all.def"
};
_Static_assert(sizeof(struct words_once) == ARRAY_LEN(word_table), "one byte a word");

/* ---- finding rows ---- */

static const struct setting *
find_row(const struct setting *rows, size_t count, unsigned scopes, const char *key)
{
	for (size_t i = 0; i < count; i++) {
		if ((rows[i].scope & scopes) != 0 && strcasecmp(rows[i].key, key) == 0)
			return (&rows[i]);
	}
	return (NULL);
}

const struct setting *
setting_find(const char *key)
{
	return (find_row(setting_table, setting_count, SC_GLOBAL, key));
}

const struct setting *
setting_find_in(unsigned scopes, const char *key)
{
	const struct setting *row;

	row = find_row(word_table, word_count, scopes, key);
	if (row == NULL || (scopes & SC_GLOBAL) != 0) {
		const struct setting *global =
		    find_row(setting_table, setting_count, scopes, key);

		if (global != NULL)
			row = global;
	}
	return (row);
}

const char *
setting_refusal(const char *key, const char *value)
{
	static const struct {
		const char *key, *value, *reason;
	} refusals[] = {
#define REFUSAL(key, value, reason) {key, value, reason},
#include "tbl/all.def"
	};

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		if (strcasecmp(refusals[i].key, key) == 0 &&
		    strcasecmp(refusals[i].value, value) == 0)
			return (refusals[i].reason);
	}
	return (NULL);
}

const char *
setting_moot(const char *key)
{
	static const struct {
		const char *key, *reason;
	} moot[] = {
#define MOOT(key, reason) {key, reason},
#include "tbl/all.def"
	};

	for (size_t i = 0; i < ARRAY_LEN(moot); i++)
		if (strcasecmp(moot[i].key, key) == 0)
			return (moot[i].reason);
	return (NULL);
}

/* ---- keys that are not there ---- */

static const char *
nearest_key(unsigned scopes, const char *key)
{
	const char *names[ARRAY_LEN(setting_table) + ARRAY_LEN(word_table)] = {NULL};
	size_t n = 0;

	for (size_t i = 0; i < setting_count; i++) {
		if ((setting_table[i].scope & scopes) != 0)
			names[n++] = setting_table[i].key;
	}
	for (size_t i = 0; i < word_count; i++) {
		if ((word_table[i].scope & scopes) != 0)
			names[n++] = word_table[i].key;
	}
	return (text_nearest(key, names, n));
}

static void
add_place(struct buf *b, bool is_there, const char *place)
{
	if (!is_there)
		return;
	if (b->len > 0)
		buf_addstr(b, " or ");
	buf_addstr(b, place);
}

void
setting_unknown(unsigned scopes, const char *key, char *why, size_t why_len)
{
	const char *reason = setting_refusal(key, ""), *near;
	const struct setting *elsewhere = setting_find_in(SC_EVERYWHERE, key);
	struct buf b = {0};

	if (reason != NULL) {
		buf_addf(&b, "refused: %s", reason);
	} else if (elsewhere != NULL) {
		struct buf places = {0};

		add_place(&places, (elsewhere->scope & SC_GLOBAL) != 0, "[pgweave]");
		add_place(&places, (elsewhere->scope & SC_DATABASE) != 0,
		    "[database x], [databases]");
		add_place(&places, (elsewhere->scope & SC_USER) != 0, "[users]");
		add_place(&places, (elsewhere->scope & SC_VIRTUAL) != 0, "[virtual x]");
		add_place(&places, (elsewhere->scope & SC_SHARD) != 0, "[shard x]");
		add_place(&places, (elsewhere->scope & SC_JOB) != 0, "[replication x]");
		add_place(&places, (elsewhere->scope & SC_KEY) != 0, "[key x]");
		add_place(&places, (elsewhere->scope & SC_LOGIN) != 0, "[login x]");
		buf_addf(&b, "not known here, it belongs in %.*s", (int)places.len,
		    places.mem);
		buf_free(&places);
	} else {
		near = nearest_key(scopes, key);
		buf_addstr(&b, "no such key");
		if (near != NULL)
			buf_addf(&b, ", did you mean \"%s\"?", near);
	}
	buf_add(&b, "", 1);
	(void)text_copy(why, why_len, (const char *)b.mem);
	buf_free(&b);
}
