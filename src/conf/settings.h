/* conf/settings.h: what the files of this room know of settings beyond conf.h. */
#ifndef CONF_SETTINGS_H
#define CONF_SETTINGS_H
#include "conf.h"

/* Why this value of this key is refused although PgBouncer takes it, or NULL. */
const char *setting_refusal(const char *key, const char *value);
/* Why a setting has no effect, or NULL: it has. */
const char *setting_moot(const char *key);
/* The words of an ENUM row or a restricted STR, without those refused: "a, b, c". */
void setting_words(const struct setting *, struct buf *out);
/* The field of a setting. */
void *setting_field(struct settings *, const struct setting *);
/* Do two sets hold the same value? */
bool setting_same(
    const struct settings *, const struct settings *, const struct setting *);

#endif
