/*
 * CREATE JOB and what else is said to jobs, and REPLICATE TABLE: from words to a job's text,
 * by mail to the side thread, and the answer back.
 */
#include "private.h"
#include "replicate.h"
#include <stdlib.h>
#include <string.h>

/* ---- there and back ---- */

/* What is asked of the side thread; it owns its texts. */
struct job_ask {
	struct mail mail;
	struct call *call;
	void (*go)(struct job_ask *);
	struct buf name, source, targets, tables, sync_key, interval, mode, overlap;
	bool is_disabled;
	/* The answer. */
	int fault;
	char *sqlstate, *message, *detail, *hint, *notice;
};

static void
ask_free(struct job_ask *a)
{
	buf_free(&a->name);
	buf_free(&a->source);
	buf_free(&a->targets);
	buf_free(&a->tables);
	buf_free(&a->sync_key);
	buf_free(&a->interval);
	buf_free(&a->mode);
	buf_free(&a->overlap);
	free(a->sqlstate);
	free(a->message);
	free(a->detail);
	free(a->hint);
	free(a->notice);
	free(a);
}

/* A notice for each line. */
static void
ask_notices(struct call *c, char *lines)
{
	char *line, *rest = lines;

	while (rest != NULL && (line = strsep(&rest, "\n")) != NULL)
		if (line[0] != '\0')
			c->sink->ops->notice(c->sink, line, NULL);
}

static void
ask_home(struct worker *w, struct mail *m)
{
	struct job_ask *a = CONTAINER_OF(m, struct job_ask, mail);
	struct call *c = a->call;

	(void)w;
	ask_notices(c, a->notice);
	if (a->fault == 0)
		call_end(c, c->command->verb);
	else
		call_fail_detail(c, a->sqlstate, a->message, a->detail, a->hint);
	ask_free(a);
}

static char *
kept(const char *text)
{
	return (text != NULL ? mem_str(text) : NULL);
}

static void
ask_done(void *arg, const struct replicate_answer *answer)
{
	struct job_ask *a = arg;

	a->fault = answer->fault;
	a->sqlstate = kept(answer->sqlstate);
	a->message = kept(answer->message);
	a->detail = kept(answer->detail);
	a->hint = kept(answer->hint);
	a->notice = kept(answer->notice);
	a->mail.run = ask_home;
	worker_post(a->call->worker, &a->mail);
}

static void
ask_there(struct worker *w, struct mail *m)
{
	struct job_ask *a = CONTAINER_OF(m, struct job_ask, mail);

	(void)w;
	a->go(a);
}

static void
ask_send(struct job_ask *a, void (*go)(struct job_ask *))
{
	a->go = go;
	a->mail.run = ask_there;
	worker_post(net_side(), &a->mail);
}

static const char *
text_of(const struct buf *b)
{
	return (b->len > 0 ? (const char *)b->mem : "");
}

static struct topo_job_text
ask_text(const struct job_ask *a)
{
	return ((struct topo_job_text){
	    .name = text_of(&a->name),
	    .source = text_of(&a->source),
	    .targets = text_of(&a->targets),
	    .tables = text_of(&a->tables),
	    .sync_key = text_of(&a->sync_key),
	    .interval = text_of(&a->interval),
	    .enabled = a->is_disabled ? "no" : "yes",
	    .mode = text_of(&a->mode),
	    .overlap = text_of(&a->overlap),
	});
}

/* ---- words ---- */

/* Reads the call's words from left to right. */
struct reader {
	const struct statement *st;
	unsigned at;
	const char *refused; /* what is known, but not supported yet */
};

static const struct word *
word_at(const struct reader *r)
{
	return (r->at < r->st->count ? &r->st->words[r->at] : NULL);
}

static bool
take_word(struct reader *r, const char *text)
{
	if (!statement_word_is(r->st, r->at, text))
		return (false);
	r->at++;
	return (true);
}

static bool
take_words(struct reader *r, const char *first, const char *second)
{
	if (!statement_word_is(r->st, r->at, first) ||
	    !statement_word_is(r->st, r->at + 1, second))
		return (false);
	r->at += 2;
	return (true);
}

static bool
is_mark(const struct word *w)
{
	return (w->kind == WORD_PLAIN && strchr("=,()", w->text[0]) != NULL);
}

/* The name of a job or a database, as it is. */
static bool
take_name(struct reader *r, struct buf *out)
{
	const struct word *w = word_at(r);

	if (w == NULL || is_mark(w) || w->text[0] == '\0')
		return (false);
	r->at++;
	out->len -= out->len > 0;
	buf_add(out, w->text, strlen(w->text) + 1);
	return (true);
}

/* The name of a table or a column, as SQL has it: its parts may be quoted, and stay so. */
static bool
take_sql_name(struct reader *r, struct buf *out)
{
	const struct word *w = word_at(r);
	bool is_joined = true;

	out->len -= out->len > 0;
	for (; w != NULL && is_joined && !is_mark(w) && w->kind != WORD_STRING;
	     w = word_at(r)) {
		const struct word *next =
		    r->at + 1 < r->st->count ? &r->st->words[r->at + 1] : NULL;
		size_t len = strlen(w->text);

		if (w->kind == WORD_PLAIN)
			buf_addstr(out, w->text);
		else {
			buf_addstr(out, "\"");
			for (const char *p = w->text; *p != '\0'; p++)
				buf_add(out, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
			buf_addstr(out, "\"");
		}
		is_joined =
		    (w->kind == WORD_PLAIN && len > 0 && w->text[len - 1] == '.') ||
		    (next != NULL && next->kind == WORD_PLAIN && next->text[0] == '.');
		r->at++;
	}
	if (out->len == 0)
		return (false);
	buf_add(out, "", 1);
	return (true);
}

/* name [, name …], to one text with commas. */
static bool
take_list(struct reader *r, bool (*take)(struct reader *, struct buf *), struct buf *out)
{
	do {
		if (out->len > 0) {
			out->len--;
			buf_add(out, ", ", 3);
		}
		if (!take(r, out))
			return (false);
	} while (take_word(r, ","));
	return (true);
}

/* FROM db TO db [, db] */
static bool
take_places(struct reader *r, struct job_ask *a)
{
	return (take_word(r, "FROM") && take_name(r, &a->source) && take_word(r, "TO") &&
		take_list(r, take_name, &a->targets));
}

/* '15 min', 15min */
static bool
take_time(struct reader *r, struct buf *out)
{
	const struct word *w = word_at(r);

	return (
	    out->len == 0 && w != NULL && w->kind != WORD_QUOTED && take_name(r, out));
}

/* on: what there is not yet. off: as it is. */
static bool
take_switch(struct reader *r, const char *what)
{
	if (take_word(r, "on") || take_word(r, "yes")) {
		r->refused = what;
		return (true);
	}
	return (take_word(r, "off") || take_word(r, "no"));
}

static bool
take_option(struct reader *r, struct job_ask *a)
{
	if (take_words(r, "SYNC", "KEY"))
		return (a->sync_key.len == 0 && take_sql_name(r, &a->sync_key));
	if (take_word(r, "EVERY"))
		return (take_time(r, &a->interval));
	if (take_word(r, "OVERLAP"))
		return (take_time(r, &a->overlap));
	if (take_word(r, "MODE"))
		return (a->mode.len == 0 && take_name(r, &a->mode));
	if (take_word(r, "DELETES"))
		return (take_switch(r, "DELETES on"));
	if (take_words(r, "CREATE", "MISSING"))
		return (take_switch(r, "CREATE MISSING on"));
	if (take_word(r, "DISABLED"))
		return (a->is_disabled = true);
	return (take_word(r, "ENABLED"));
}

static bool
take_options(struct reader *r, struct job_ask *a)
{
	while (word_at(r) != NULL)
		if (!take_option(r, a))
			return (false);
	return (true);
}

/* CREATE JOB name FROM db TO db [, db] TABLES (t [, t]) SYNC KEY col … */
static bool
read_create(struct reader *r, struct job_ask *a)
{
	return (take_name(r, &a->name) && take_places(r, a) && take_word(r, "TABLES") &&
		take_word(r, "(") && take_list(r, take_sql_name, &a->tables) &&
		take_word(r, ")") && take_options(r, a));
}

/* REPLICATE TABLE t [, t] FROM db TO db [, db] SYNC KEY col */
static bool
read_once(struct reader *r, struct job_ask *a)
{
	return (take_list(r, take_sql_name, &a->tables) && take_places(r, a) &&
		take_options(r, a) && a->interval.len == 0 && !a->is_disabled);
}

static bool
read_name(struct reader *r, struct job_ask *a)
{
	return (take_name(r, &a->name) && word_at(r) == NULL);
}

/* ---- the commands ---- */

static void
ask_begin(struct call *c, bool (*read)(struct reader *, struct job_ask *),
    void (*go)(struct job_ask *))
{
	struct job_ask *a = mem_alloc(sizeof(*a));
	struct reader r = {.st = &c->st, .at = c->st.count - call_arg_count(c)};

	a->call = c;
	if (read(&r, a) && r.refused == NULL) {
		ask_send(a, go);
		return;
	}
	if (r.refused != NULL)
		call_fail(c, "0A000", "%s is not supported yet", r.refused);
	else
		call_fail_detail(c, "42601", "syntax error", NULL, c->command->usage);
	ask_free(a);
}

static void
create_go(struct job_ask *a)
{
	struct topo_job_text text = ask_text(a);

	replicate_create(net_side(), &text, ask_done, a);
}

void
admin_create_job(struct call *c)
{
	ask_begin(c, read_create, create_go);
}

static void
once_go(struct job_ask *a)
{
	struct topo_job_text text = ask_text(a);

	replicate_once(net_side(), &text, ask_done, a);
}

void
admin_replicate_table(struct call *c)
{
	ask_begin(c, read_once, once_go);
}

static void
run_go(struct job_ask *a)
{
	replicate_run(net_side(), text_of(&a->name), ask_done, a);
}

void
admin_run_job(struct call *c)
{
	ask_begin(c, read_name, run_go);
}

static void
pause_go(struct job_ask *a)
{
	replicate_pause(net_side(), text_of(&a->name), true, ask_done, a);
}

void
admin_pause_job(struct call *c)
{
	ask_begin(c, read_name, pause_go);
}

static void
resume_go(struct job_ask *a)
{
	replicate_pause(net_side(), text_of(&a->name), false, ask_done, a);
}

void
admin_resume_job(struct call *c)
{
	ask_begin(c, read_name, resume_go);
}

static void
drop_go(struct job_ask *a)
{
	replicate_drop(net_side(), text_of(&a->name), ask_done, a);
}

void
admin_drop_job(struct call *c)
{
	ask_begin(c, read_name, drop_go);
}
