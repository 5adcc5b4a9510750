/*
 * store/thread.c: the thread that owns the file, and what it is asked.
 *
 *   asker: ask --queue--> thread: works on the file --mail--> asker: each()…, done()
 *
 * Asks are worked on in the order in which they came. When no thread runs, an ask is answered
 * (by mail, too) with F_STORE.
 */
#include "private.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_LIMIT (-1)

struct ask {
	STAILQ_ENTRY(ask) entry;
	struct mail mail;
	struct worker *from; /* NULL: the asker waits for is_done */
	bool is_done;
	void (*work)(struct store_file *, struct ask *);
	struct store_rows rows; /* what was read */
	void *row;              /* what is to be put, of rows.kind */
	char *name;
	struct store_rotation rotation;
	int64_t limit;
	bool has_changed;
	/* Of the kind: */
	void (*each_key)(void *arg, const struct topo_key_text *);
	void (*each_job)(void *arg, const struct topo_job_text *);
	void (*each_run)(void *arg, const struct store_run *);
	void (*each_route)(void *arg, const struct topo_route_text *);
	store_looked *looked;
	store_done *done;
	void *arg;
	int fault;
	char why[512];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER,
		      answered = PTHREAD_COND_INITIALIZER;
static STAILQ_HEAD(, ask) asks = STAILQ_HEAD_INITIALIZER(asks);
static bool is_running, is_stopping;
static pthread_t thread;
/* The thread's alone while it runs. */
static struct store_file file;

/* ---- answers ---- */

static void
ask_free(struct ask *a)
{
	if (a->rows.kind != NULL) {
		row_free(a->rows.kind, a->row);
		rows_free(&a->rows);
	}
	free(a->name);
	free(a);
}

static void
ask_each(const struct ask *a)
{
	for (size_t i = 0; i < a->rows.count; i++) {
		if (a->each_key != NULL)
			a->each_key(a->arg, a->rows.rows[i]);
		else if (a->each_job != NULL)
			a->each_job(a->arg, a->rows.rows[i]);
		else if (a->each_run != NULL)
			a->each_run(a->arg, a->rows.rows[i]);
		else if (a->each_route != NULL)
			a->each_route(a->arg, a->rows.rows[i]);
	}
}

static void
ask_home(struct worker *w, struct mail *m)
{
	struct ask *a = CONTAINER_OF(m, struct ask, mail);

	ask_each(a);
	if (a->looked != NULL)
		a->looked(w, a->arg, a->has_changed);
	else
		a->done(w, a->arg, a->fault, a->why);
	ask_free(a);
}

static void
ask_answer(struct ask *a)
{
	if (a->from != NULL) {
		a->mail.run = ask_home;
		worker_post(a->from, &a->mail);
		return;
	}
	pthread_mutex_lock(&lock);
	a->is_done = true;
	pthread_cond_broadcast(&answered);
	pthread_mutex_unlock(&lock);
}

/* ---- the thread ---- */

static void *
store_main(void *unused)
{
	struct ask *a;

	(void)unused;
	pthread_mutex_lock(&lock);
	while (!is_stopping || !STAILQ_EMPTY(&asks)) {
		a = STAILQ_FIRST(&asks);
		if (a == NULL) {
			pthread_cond_wait(&asked, &lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&asks, entry);
		pthread_mutex_unlock(&lock);
		a->work(&file, a);
		ask_answer(a);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	return (NULL);
}

int
store_start(const struct settings *set, char *why, size_t why_len)
{
	sigset_t all, was;
	int err, fault;

	INVARIANT(!is_running);
	fault = file_init(&file, set, why, why_len);
	if (fault != 0)
		return (fault);
	fault = file_open(&file, file.is_explicit, why, why_len);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &was);
	err = pthread_create(&thread, NULL, store_main, NULL);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (err != 0) {
		file_fini(&file);
		snprintf(why, why_len, "the state store cannot be used: no thread: %s",
		    strerror(err));
		return (F_STORE);
	}
	pthread_setname_np(thread, "store");
	is_running = true;
	return (fault == F_NOT_FOUND ? 0 : fault);
}

void
store_stop(void)
{
	if (!is_running)
		return;
	pthread_mutex_lock(&lock);
	is_stopping = true;
	pthread_cond_signal(&asked);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	pthread_mutex_lock(&lock);
	is_running = is_stopping = false;
	pthread_mutex_unlock(&lock);
	file_fini(&file);
}

/* ---- asking ---- */

static struct ask *
ask_create(struct worker *from, void (*work)(struct store_file *, struct ask *),
    const struct store_kind *kind, void *arg)
{
	struct ask *a = mem_alloc(sizeof(*a));

	a->from = from;
	a->work = work;
	a->rows.kind = kind;
	a->limit = NO_LIMIT;
	a->arg = arg;
	return (a);
}

static void
ask_send(struct ask *a)
{
	bool is_taken;

	pthread_mutex_lock(&lock);
	is_taken = is_running && !is_stopping;
	if (is_taken) {
		STAILQ_INSERT_TAIL(&asks, a, entry);
		pthread_cond_signal(&asked);
	}
	pthread_mutex_unlock(&lock);
	if (is_taken)
		return;
	a->fault = F_STORE;
	text_copy(a->why, sizeof(a->why),
	    "the state store cannot be used: it is not open, or the proxy is stopping");
	ask_answer(a);
}

static void
load_work(struct store_file *f, struct ask *a)
{
	a->fault = work_load(f, &a->rows, a->name, a->limit, a->why, sizeof(a->why));
}

static void
key_put_work(struct store_file *f, struct ask *a)
{
	a->fault = work_key_put(f, a->row, a->why, sizeof(a->why));
}

static void
put_work(struct store_file *f, struct ask *a)
{
	a->fault = work_put(f, a->rows.kind, a->row, a->why, sizeof(a->why));
}

static void
ask_put(struct worker *from, void (*work)(struct store_file *, struct ask *),
    const struct store_kind *kind, const void *row, store_done *done, void *arg)
{
	struct ask *a = ask_create(from, work, kind, arg);

	a->row = row_copy(kind, row);
	a->done = done;
	ask_send(a);
}

/* Sends it, and waits for the answer. */
static int
ask_wait(struct ask *a, char *why, size_t why_len)
{
	int fault;

	ask_send(a);
	pthread_mutex_lock(&lock);
	while (!a->is_done)
		pthread_cond_wait(&answered, &lock);
	pthread_mutex_unlock(&lock);
	fault = a->fault;
	text_copy(why, why_len, a->why);
	ask_each(a);
	ask_free(a);
	return (fault);
}

/* ---- keys ---- */

void
store_keys_load(struct worker *from,
    void (*each)(void *arg, const struct topo_key_text *), store_done *done, void *arg)
{
	struct ask *a = ask_create(from, load_work, &store_key_kind, arg);

	a->each_key = each;
	a->done = done;
	ask_send(a);
}

int
store_keys_wait(void (*each)(void *arg, const struct topo_key_text *), void *arg,
    char *why, size_t why_len)
{
	struct ask *a = ask_create(NULL, load_work, &store_key_kind, arg);

	a->each_key = each;
	return (ask_wait(a, why, why_len));
}

void
store_key_put(
    struct worker *from, const struct topo_key_text *key, store_done *done, void *arg)
{
	ask_put(from, key_put_work, &store_key_kind, key, done, arg);
}

static void
key_change_work(struct store_file *f, struct ask *a)
{
	a->fault = work_key_change(f, a->name,
	    a->rotation.verifier != NULL ? &a->rotation : NULL, &a->rows, a->why,
	    sizeof(a->why));
}

void
store_key_revoke(struct worker *from, const char *id_or_name,
    void (*each)(void *arg, const struct topo_key_text *), store_done *done, void *arg)
{
	struct ask *a = ask_create(from, key_change_work, &store_key_kind, arg);

	a->name = mem_str(id_or_name);
	a->each_key = each;
	a->done = done;
	ask_send(a);
}

void
store_key_rotate(struct worker *from, const char *id_or_name,
    const struct store_rotation *rotation,
    void (*each)(void *arg, const struct topo_key_text *), store_done *done, void *arg)
{
	struct ask *a = ask_create(from, key_change_work, &store_key_kind, arg);

	INVARIANT(rotation->verifier != NULL);
	a->name = mem_str(id_or_name);
	a->rotation = *rotation;
	a->each_key = each;
	a->done = done;
	ask_send(a);
}

static void
forget_work(struct store_file *f, struct ask *a)
{
	a->fault = work_keys_forget(f, a->why, sizeof(a->why));
}

void
store_keys_forget(struct worker *from, store_done *done, void *arg)
{
	struct ask *a = ask_create(from, forget_work, NULL, arg);

	a->done = done;
	ask_send(a);
}

static void
look_work(struct store_file *f, struct ask *a)
{
	a->has_changed = work_look(f);
}

void
store_look(struct worker *from, store_looked *looked, void *arg)
{
	struct ask *a = ask_create(from, look_work, NULL, arg);

	a->looked = looked;
	ask_send(a);
}

/* ---- routes ---- */

void
store_routes_load(struct worker *from,
    void (*each)(void *arg, const struct topo_route_text *), store_done *done, void *arg)
{
	struct ask *a = ask_create(from, load_work, &store_route_kind, arg);

	a->each_route = each;
	a->done = done;
	ask_send(a);
}

int
store_routes_wait(void (*each)(void *arg, const struct topo_route_text *), void *arg,
    char *why, size_t why_len)
{
	struct ask *a = ask_create(NULL, load_work, &store_route_kind, arg);

	a->each_route = each;
	return (ask_wait(a, why, why_len));
}

static void
routes_put_work(struct store_file *f, struct ask *a)
{
	a->fault = work_routes_put(f, &a->rows, a->why, sizeof(a->why));
}

static void
routes_delete_work(struct store_file *f, struct ask *a)
{
	a->fault = work_routes_delete(f, &a->rows, a->why, sizeof(a->why));
}

static void
ask_routes(struct worker *from, void (*work)(struct store_file *, struct ask *),
    const struct topo_route_text *routes, size_t count, store_done *done, void *arg)
{
	struct ask *a = ask_create(from, work, &store_route_kind, arg);

	a->rows.rows = mem_alloc((count + 1) * sizeof(*a->rows.rows));
	for (size_t i = 0; i < count; i++)
		a->rows.rows[a->rows.count++] = row_copy(&store_route_kind, &routes[i]);
	a->done = done;
	ask_send(a);
}

void
store_routes_put(struct worker *from, const struct topo_route_text *routes, size_t count,
    store_done *done, void *arg)
{
	ask_routes(from, routes_put_work, routes, count, done, arg);
}

void
store_routes_delete(struct worker *from, const struct topo_route_text *routes,
    size_t count, store_done *done, void *arg)
{
	ask_routes(from, routes_delete_work, routes, count, done, arg);
}

/* ---- jobs and their runs ---- */

void
store_jobs_load(struct worker *from,
    void (*each)(void *arg, const struct topo_job_text *), store_done *done, void *arg)
{
	struct ask *a = ask_create(from, load_work, &store_job_kind, arg);

	a->each_job = each;
	a->done = done;
	ask_send(a);
}

void
store_job_put(
    struct worker *from, const struct topo_job_text *job, store_done *done, void *arg)
{
	ask_put(from, put_work, &store_job_kind, job, done, arg);
}

static void
job_delete_work(struct store_file *f, struct ask *a)
{
	a->fault = work_job_delete(f, a->name, a->why, sizeof(a->why));
}

void
store_job_delete(struct worker *from, const char *name, store_done *done, void *arg)
{
	struct ask *a = ask_create(from, job_delete_work, NULL, arg);

	a->name = mem_str(name);
	a->done = done;
	ask_send(a);
}

void
store_run_put(
    struct worker *from, const struct store_run *run, store_done *done, void *arg)
{
	ask_put(from, put_work, &store_run_kind, run, done, arg);
}

void
store_runs_load(struct worker *from, const char *job, unsigned limit,
    void (*each)(void *arg, const struct store_run *), store_done *done, void *arg)
{
	struct ask *a = ask_create(from, load_work, &store_run_kind, arg);

	a->name = job != NULL ? mem_str(job) : NULL;
	a->limit = limit;
	a->each_run = each;
	a->done = done;
	ask_send(a);
}
