/* A job: its words, and what they mean. */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The words of a job, one after the other. */
#define TEXT_FIELDS(F)                                                                   \
	F(name)                                                                          \
	F(source)                                                                        \
	F(targets)                                                                       \
	F(tables)                                                                        \
	F(sync_key)                                                                      \
	F(interval)                                                                      \
	F(enabled)                                                                       \
	F(mode)                                                                          \
	F(overlap)

static const char *
said(const char *text)
{
	return (text != NULL ? text : "");
}

void
job_text_copy(struct topo_job_text *to, const struct topo_job_text *from)
{
#define COPY_FIELD(f) to->f = mem_str(said(from->f));
	TEXT_FIELDS(COPY_FIELD)
#undef COPY_FIELD
}

void
job_text_free(struct topo_job_text *t)
{
#define FREE_FIELD(f) free((void *)(uintptr_t)t->f);
	TEXT_FIELDS(FREE_FIELD)
#undef FREE_FIELD
	*t = (struct topo_job_text){0};
}

bool
job_text_same(const struct topo_job_text *a, const struct topo_job_text *b)
{
#define SAME_FIELD(f) &&strcmp(said(a->f), said(b->f)) == 0
	return (true TEXT_FIELDS(SAME_FIELD));
#undef SAME_FIELD
}

/* The tables, each as PostgreSQL reads its name. */
static bool
take_tables(struct job *job, char *why, size_t why_len)
{
	struct names given = {0};
	bool ok = names_split(&given, job->text.tables, why, why_len);

	for (size_t i = 0; i < given.count && ok; i++) {
		struct names parts = {0};
		struct buf b = {0};

		ok = name_parts(&parts, given.v[i], 2, why, why_len);
		for (size_t n = 0; n < parts.count && ok; n++) {
			buf_addstr(&b, n > 0 ? "." : "");
			sql_name(&b, parts.v[n]);
		}
		buf_add(&b, "", 1);
		if (ok && names_have(&job->tables, (const char *)b.mem)) {
			snprintf(why, why_len, "table %s stands twice", given.v[i]);
			ok = false;
		}
		if (ok) {
			names_add(&job->tables, (const char *)b.mem, b.len - 1);
			names_add(&job->words, given.v[i], strlen(given.v[i]));
		}
		buf_free(&b);
		names_free(&parts);
	}
	names_free(&given);
	return (ok);
}

static bool
take_targets(struct job *job, char *why, size_t why_len)
{
	if (!names_split(&job->targets, job->text.targets, why, why_len))
		return (false);
	for (size_t i = 0; i < job->targets.count; i++) {
		const char *name = job->targets.v[i];

		if (strcmp(name, job->text.source) == 0) {
			snprintf(why, why_len, "\"%s\" is both source and target", name);
			return (false);
		}
		for (size_t n = 0; n < i; n++) {
			if (strcmp(name, job->targets.v[n]) != 0)
				continue;
			snprintf(why, why_len, "target \"%s\" stands twice", name);
			return (false);
		}
	}
	return (true);
}

static bool
take_sync_key(struct job *job, char *why, size_t why_len)
{
	struct names parts = {0};

	if (job->text.sync_key[0] == '\0') {
		if (job->is_full)
			return (true);
		snprintf(why, why_len, "a sync key is needed, or mode full");
		return (false);
	}
	if (!name_parts(&parts, job->text.sync_key, 1, why, why_len))
		return (false);
	job->sync_key = mem_str(parts.v[0]);
	names_free(&parts);
	return (true);
}

static bool
take_time(const char *what, const char *text, int64_t *us, char *why, size_t why_len)
{
	if (text[0] == '\0' || interval_read(text, us))
		return (true);
	snprintf(why, why_len, "%s: \"%s\" is not a time (such as 15min, 1h, 30s)", what,
	    text);
	return (false);
}

static bool
take_enabled(struct job *job, char *why, size_t why_len)
{
	static const char *const yes[] = {"", "yes", "on", "true", "1"};
	static const char *const no[] = {"no", "off", "false", "0"};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		job->is_enabled |= strcasecmp(job->text.enabled, yes[i]) == 0;
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (strcasecmp(job->text.enabled, no[i]) == 0)
			return (true);
	if (!job->is_enabled)
		snprintf(why, why_len, "enabled: \"%s\" is neither yes nor no",
		    job->text.enabled);
	return (job->is_enabled);
}

static bool
take_mode(struct job *job, char *why, size_t why_len)
{
	const char *mode = job->text.mode;

	job->is_full = strcasecmp(mode, "full") == 0;
	if (job->is_full || mode[0] == '\0' || strcasecmp(mode, "sync_key") == 0)
		return (true);
	snprintf(why, why_len, "mode \"%s\" is not one of sync_key, full", mode);
	return (false);
}

/* It stands in lines of the log, and in lists. */
static bool
check_name(const struct job *job, char *why, size_t why_len)
{
	for (const char *p = job->text.name; *p != '\0'; p++) {
		if ((unsigned char)*p >= ' ' && *p != 0x7f)
			continue;
		snprintf(why, why_len, "name: a control character is in it");
		return (false);
	}
	return (true);
}

struct job *
job_create(const struct topo_job_text *text, char *why, size_t why_len)
{
	struct job *job = mem_alloc(sizeof(*job));

	job_text_copy(&job->text, text);
	job->overlap_us = -1;
	if (check_name(job, why, why_len) && take_mode(job, why, why_len) &&
	    take_targets(job, why, why_len) && take_tables(job, why, why_len) &&
	    take_sync_key(job, why, why_len) &&
	    take_time("interval", job->text.interval, &job->interval_us, why, why_len) &&
	    take_time("overlap", job->text.overlap, &job->overlap_us, why, why_len) &&
	    take_enabled(job, why, why_len))
		return (job);
	job_destroy(job);
	return (NULL);
}

void
job_destroy(struct job *job)
{
	INVARIANT(job->run == NULL && job->waiter == NULL);
	job_text_free(&job->text);
	names_free(&job->targets);
	names_free(&job->tables);
	names_free(&job->words);
	free(job->sync_key);
	free(job->last_error);
	free(job);
}
