/*
 * conf/print.c: the sample configuration and the manual's list of settings, made from the
 * rows of include/tbl.
 */
#include "settings.h"

#include <stdio.h>
#include <string.h>

/* The rows of [pgweave] with their headings, in the order of the table. */
struct entry {
	const char *title; /* a heading, or NULL */
	const char *key;
};
static const struct entry entries[] = {
#define GROUP(title)      {title, NULL},
#define SETTING(key, ...) {NULL, #key},
#include "tbl/all.def"
};

/* What may stand there and when it counts, as phrases behind the row's sentence. */
static void
add_rules(struct buf *b, const struct setting *s)
{
	bool has_words = s->type == SET_ENUM || (s->type == SET_STR && *s->unit != '\0');

	if (has_words) {
		buf_addstr(b, " One of: ");
		setting_words(s, b);
		buf_addstr(b, ".");
	} else if (s->type == SET_BOOL) {
		buf_addstr(b, " 1 or 0.");
	} else if (s->type == SET_TIME ||
		   (s->type == SET_INT && strcmp(s->unit, "s") == 0)) {
		buf_addf(b, " A plain number is in %s.",
		    strcmp(s->unit, "ms") == 0 ? "milliseconds" : "seconds");
	} else if (s->type == SET_SIZE) {
		buf_addstr(b, " A plain number is in bytes.");
	} else if (s->type == SET_INT && strcmp(s->unit, "octal") != 0) {
		buf_addf(b, " From %lld to %lld.", (long long)s->min, (long long)s->max);
	}
	if (s->apply == AP_LATER)
		buf_addstr(b, " Accepted; has no effect yet.");
	else if (s->apply == AP_RESTART)
		buf_addstr(b, " Takes effect at the next start.");
}

/* ---- the sample ---- */

static void
sample_row(FILE *f, const struct setting *s)
{
	struct buf rules = {0};

	add_rules(&rules, s);
	fprintf(f, "\n;; %s%.*s", s->doc, (int)rules.len,
	    rules.len > 0 ? (const char *)rules.mem : "");
	buf_free(&rules);
	fprintf(f, "\n;%s =%s%s\n", s->key, *s->dflt != '\0' ? " " : "", s->dflt);
}

static void
sample_words(FILE *f, unsigned scope, const char *indent)
{
	for (size_t i = 0; i < word_count; i++) {
		if ((word_table[i].scope & scope) != 0)
			fprintf(f, ";; %s%-26s %s%s\n", indent, word_table[i].key,
			    word_table[i].doc,
			    word_table[i].apply == AP_LATER
				? " Accepted; has no effect yet."
				: "");
	}
	for (size_t i = 0; i < setting_count; i++) {
		if ((setting_table[i].scope & scope) != 0)
			fprintf(f, ";; %s%-26s as in [pgweave]\n", indent,
			    setting_table[i].key);
	}
}

/* What routes and copies: sections with names of their own. */
static void
sample_weave(FILE *f)
{
	fputs("\n;; One name for clients, many databases behind it:\n"
	      ";[virtual bank]\n"
	      ";default = primary\n"
	      ";members = primary, secondary, analytics\n"
	      ";read_from = replica\n\n"
	      ";; What may stand there:\n",
	    f);
	sample_words(f, SC_VIRTUAL, "  ");
	fputs(
	    "\n;; Tables of it that live on one member; * stands for any text, exact names\n"
	    ";; come before patterns, and of those the first that matches counts:\n"
	    ";[route bank]\n"
	    ";analytics_events, user_activity = analytics\n"
	    ";archive.* = analytics\n\n"
	    ";; Names of models, for SHOW MODELS and the HTTP API; of a table, or of a member,\n"
	    ";; where the table of that name in snake case lives:\n"
	    ";[model bank]\n"
	    ";AnalyticsEvent = analytics_events\n"
	    ";SystemMetric = analytics\n\n"
	    ";; Tables of it whose rows are spread over members; further groups of tables are\n"
	    ";; [shard bank NAME]:\n"
	    ";[shard bank]\n"
	    ";tables = accounts, transactions\n"
	    ";key = user_id\n"
	    ";members = primary, secondary\n\n"
	    ";; What may stand there:\n",
	    f);
	sample_words(f, SC_SHARD, "  ");
	fputs("\n;; Tables copied from a database to others:\n"
	      ";[replication users_sync]\n"
	      ";source = primary\n"
	      ";targets = secondary, analytics\n"
	      ";tables = users\n"
	      ";sync_key = updated_at\n"
	      ";interval = 15min\n\n"
	      ";; What may stand there:\n",
	    f);
	sample_words(f, SC_JOB, "  ");
	fputs("\n;; An API key, as `pgweave key create --print` makes it:\n"
	      ";[key vb_0123456789abcdef0123456789abcdef]\n"
	      ";secret = SCRAM-SHA-256$...\n"
	      ";type = server\n"
	      ";virtual = bank\n"
	      ";rights = federate\n\n"
	      ";; What may stand there:\n",
	    f);
	sample_words(f, SC_KEY, "  ");
	fputs("\n;; What a login may do; without this section, everything:\n"
	      ";[login reporting]\n"
	      ";read_only = yes\n"
	      ";operate = no\n\n"
	      ";; What may stand there is what may stand in [key x], without secret.\n",
	    f);
}

void
settings_print_sample(void *file)
{
	FILE *f = file;

	fputs(
	    ";; pgweave.ini: a line that begins with ; or # is a comment, and so is the\n"
	    ";; rest of a line behind \" ;\". Values may stand in single quotes. Times take\n"
	    ";; us, ms, s, min, h, d; sizes B, kB, MB, GB. ${NAME} is a variable of the\n"
	    ";; environment. Every line below shows its default.\n\n"
	    ";; %include FILE reads another file in this place.\n\n"
	    ";; A backend database, a key a line:\n"
	    ";[database primary]\n"
	    ";host = 127.0.0.1\n"
	    ";port = 5432\n"
	    ";dbname = bank\n"
	    ";user = bank_app\n"
	    ";password = ${DB_PASSWORD}\n"
	    ";pool_size = 20\n\n"
	    ";; What may stand there:\n",
	    f);
	sample_words(f, SC_DATABASE, "  ");
	fputs("\n;; The same in one line each; * answers for every name not listed:\n"
	      ";[databases]\n"
	      ";bank = host=127.0.0.1 port=5432 dbname=bank connect_query='SELECT 1'\n"
	      ";* = host=127.0.0.1\n\n"
	      ";; What holds for one login, in one line each:\n"
	      ";[users]\n"
	      ";reporting = pool_mode=session max_user_connections=10\n\n"
	      ";; What may stand there:\n",
	    f);
	sample_words(f, SC_USER, "  ");
	sample_weave(f);
	fputs("\n[pgweave]\n", f);
	for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
		if (entries[i].title != NULL)
			fprintf(f, "\n;;;;;; %s\n", entries[i].title);
		else
			sample_row(f, setting_find(entries[i].key));
	}
}

/* ---- the manual ---- */

/* Text that man takes as it stands. */
static void
man_text(FILE *f, const char *s)
{
	for (; *s != '\0'; s++) {
		if (*s == '\\')
			fputs("\\e", f);
		else if (*s == '-')
			fputs("\\-", f);
		else if (*s == '\'')
			fputs("\\(aq", f);
		else
			fputc(*s, f);
	}
}

static void
man_row(FILE *f, const struct setting *s)
{
	struct buf text = {0};

	buf_addstr(&text, s->doc);
	if (*s->dflt != '\0')
		buf_addf(&text, " Default: %s.", s->dflt);
	add_rules(&text, s);
	buf_add(&text, "", 1);
	fprintf(f, ".TP\n.B %s\n", s->key);
	man_text(f, (const char *)text.mem);
	buf_free(&text);
	if ((s->scope & SC_GLOBAL) != 0 && (s->scope & (SC_DATABASE | SC_USER)) != 0)
		fprintf(f, " Also of a %s.",
		    (s->scope & SC_DATABASE) == 0 ? "login"
		    : (s->scope & SC_USER) == 0   ? "database"
						  : "database and of a login");
	fputs("\n", f);
}

void
settings_print_manual(void *file)
{
	static const struct {
		const char *title;
		unsigned scope;
	} parts[] = {
	    {"Databases and logins", SC_DATABASE | SC_USER},
	    {"Virtual databases", SC_VIRTUAL},
	    {"Shards", SC_SHARD},
	    {"Replication jobs", SC_JOB},
	    {"Keys, and the rules of logins", SC_KEY | SC_LOGIN},
	};
	FILE *f = file;

	for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
		if (entries[i].title == NULL) {
			man_row(f, setting_find(entries[i].key));
		} else {
			fputs(".SS ", f);
			man_text(f, entries[i].title);
			fputs("\n", f);
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		fprintf(f, ".SS %s\n", parts[i].title);
		for (size_t k = 0; k < word_count; k++) {
			if ((word_table[k].scope & parts[i].scope) != 0)
				man_row(f, &word_table[k]);
		}
	}
}
