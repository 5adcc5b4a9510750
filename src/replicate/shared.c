/*
 * Proxies that share a store run a job one at a time: before each run the store is asked for
 * the job. When it does not answer the job runs all the same: whoever else may be at it is
 * kept out by the lock in each target.
 */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_US SECOND_US /* at least, after another has had it */

struct claiming {
	char *name;
	replicate_done *done; /* NULL: nobody waits */
	void *arg;
};

static void
claiming_answer(
    const struct claiming *c, const char *sqlstate, const char *fmt, const char *detail)
{
	struct replicate_answer answer = {
	    .fault = F_JOB, .sqlstate = sqlstate, .detail = detail};
	char message[300];

	if (c->done == NULL)
		return;
	snprintf(message, sizeof(message), "job \"%.200s\" %s", c->name, fmt);
	answer.message = message;
	c->done(c->arg, &answer);
}

/* Another has it, or has had it. */
static void
claim_refused(struct replicate *r, struct job *job, const struct claiming *c,
    const char *why, int64_t wait_us)
{
	replicate_done *waiter = job->waiter;

	if (c->done == NULL)
		job->due_us = clock_us() + (wait_us > AGAIN_US ? wait_us : AGAIN_US);
	claiming_answer(c, "55006", "is running already", why);
	job->waiter = NULL;
	if (waiter != NULL)
		job_begin(r, job, 0, waiter, job->waiter_arg);
	else
		jobs_publish(r);
}

static void
claimed(
    struct worker *w, void *arg, int fault, const char *why, int64_t run, int64_t wait_us)
{
	struct claiming *c = arg;
	struct replicate *r = replicate_of(w);
	struct job *job = r != NULL ? job_find(&r->jobs, c->name) : NULL;

	/* It may have become another meanwhile, which asks for itself. */
	if (job != NULL && job->claiming != c)
		job = NULL;
	if (job != NULL)
		job->claiming = NULL;
	if (job == NULL || job->is_leaving) {
		if (fault == 0)
			store_job_claim_end(w, c->name, run, NULL, NULL);
		claiming_answer(c, "57014", "has been changed or removed", NULL);
	} else if (fault == F_EXISTS)
		claim_refused(r, job, c, why, wait_us);
	else {
		if (fault == 0) {
			job->claimed_run = run;
			job->run_number = run - 1;
		}
		job_start(r, job, c->done, c->arg);
	}
	free(c->name);
	free(c);
}

void
job_begin(struct replicate *r, struct job *job, int64_t interval_us, replicate_done *done,
    void *arg)
{
	struct claiming *c;

	INVARIANT(job->run == NULL && job->claiming == NULL);
	if (!store_is_shared()) {
		job_start(r, job, done, arg);
		return;
	}
	c = mem_alloc(sizeof(*c));
	c->name = mem_str(job->text.name);
	c->done = done;
	c->arg = arg;
	job->claiming = c;
	job->is_claimed_for = done != NULL;
	store_job_claim(
	    r->side, job->text.name, interval_us, job->run_number + 1, claimed, c);
}

bool
job_unclaim(struct worker *side, struct job *job, store_done *done, void *arg)
{
	int64_t run = job->claimed_run;

	job->claimed_run = 0;
	if (run != 0)
		store_job_claim_end(side, job->text.name, run, done, arg);
	return (run != 0);
}
