/*
 * store/thread.c: the thread that owns the store, and what it is asked.
 *
 *   asker: ask --queue--> thread: works on the store --mail--> asker: each()…, done()
 *
 * Asks are worked on in the order in which they came. When no thread runs, an ask is answered
 * (by mail, too) with F_STORE.
 */
#include "private.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NO_LIMIT      (-1)
#define LISTENERS_MAX 4

struct ask {
	STAILQ_ENTRY(ask) entry;
	struct mail mail;
	struct worker *from; /* NULL: the asker waits for is_done */
	bool is_done;
	void (*work)(struct store *, struct ask *);
	struct store_rows rows; /* what was read */
	void *row;              /* what is to be put, of rows.kind */
	char *name;
	struct store_rotation rotation;
	int64_t limit;
	bool has_changed;
	/* Claims. */
	int64_t interval_us, run, wait_us;
	store_claimed *claimed;
	const struct topo *topo; /* held */
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
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static STAILQ_HEAD(, ask) asks = STAILQ_HEAD_INITIALIZER(asks);
static bool is_running, is_stopping;
static pthread_t thread;
static int wake_fd = -1; /* something is asked */
static bool is_shared;
/* The thread's alone while it runs. */
static struct store store;

/* Who wants to know of news. */
static struct listener {
	struct mail mail;
	struct worker *to;
	void (*changed)(struct worker *);
	bool is_posted; /* behind the lock */
} listeners[LISTENERS_MAX];
static size_t listener_count;

/* ---- answers ---- */

static void
ask_free(struct ask *a)
{
	topo_release(a->topo);
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
	else if (a->claimed != NULL)
		a->claimed(w, a->arg, a->fault, a->why, a->run, a->wait_us);
	else if (a->done != NULL)
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

/* ---- news ---- */

static void
listener_home(struct worker *w, struct mail *m)
{
	struct listener *l = CONTAINER_OF(m, struct listener, mail);

	pthread_mutex_lock(&lock);
	l->is_posted = false;
	pthread_mutex_unlock(&lock);
	l->changed(w);
}

void
thread_announce(void)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < listener_count; i++) {
		if (listeners[i].is_posted)
			continue;
		listeners[i].is_posted = true;
		worker_post(listeners[i].to, &listeners[i].mail);
	}
	pthread_mutex_unlock(&lock);
}

void
store_on_change(struct worker *to, void (*changed)(struct worker *))
{
	pthread_mutex_lock(&lock);
	INVARIANT(listener_count < LISTENERS_MAX);
	listeners[listener_count++] =
	    (struct listener){.mail.run = listener_home, .to = to, .changed = changed};
	pthread_mutex_unlock(&lock);
}

/* ---- the thread ---- */

/* Until something is asked, or told by the server, or due. */
static void
store_wait(void)
{
	struct pollfd p[2] = {{.fd = wake_fd, .events = POLLIN}};
	int timeout_ms;
	uint64_t unused;

	p[1].fd = follow_wait(&store, &p[1].events, &timeout_ms);
	if (poll(p, 2, timeout_ms) > 0 && p[0].revents != 0)
		INVARIANT(read(wake_fd, &unused, sizeof(unused)) == sizeof(unused));
}

static void *
store_main(void *unused)
{
	bool is_over = false;
	struct ask *a;

	(void)unused;
	while (!is_over) {
		pthread_mutex_lock(&lock);
		a = STAILQ_FIRST(&asks);
		if (a != NULL)
			STAILQ_REMOVE_HEAD(&asks, entry);
		is_over = a == NULL && is_stopping;
		pthread_mutex_unlock(&lock);
		if (a != NULL) {
			a->work(&store, a);
			ask_answer(a);
		} else if (!is_over)
			store_wait();
		if (!is_over)
			follow_turn(&store);
	}
	return (NULL);
}

static void
store_wake(void)
{
	uint64_t one = 1;

	INVARIANT(write(wake_fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN);
}

static int
thread_start(char *why, size_t why_len)
{
	sigset_t all, was;
	int err = 0;

	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0)
		err = errno;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &was);
	if (err == 0)
		err = pthread_create(&thread, NULL, store_main, NULL);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (err == 0) {
		pthread_setname_np(thread, "store");
		is_running = true;
		return (0);
	}
	if (wake_fd >= 0)
		close(wake_fd);
	wake_fd = -1;
	store_fini(&store);
	snprintf(
	    why, why_len, "the state store cannot be used: no thread: %s", strerror(err));
	return (F_STORE);
}

int
store_start(const struct topo *topo, const struct settings *set,
    const struct topo_database *shared, char *why, size_t why_len)
{
	int fault;

	INVARIANT(!is_running);
	fault = store_init(&store, topo, set, shared, why, why_len);
	if (fault != 0)
		return (fault);
	is_shared = store.is_shared;
	if (is_shared)
		follow_start(&store);
	else
		fault = store.truth->ops->open(
		    store.truth, store.truth->is_explicit, why, why_len);
	if (thread_start(why, why_len) != 0)
		return (F_STORE);
	return (fault == F_NOT_FOUND ? 0 : fault);
}

void
store_stop(void)
{
	if (!is_running)
		return;
	pthread_mutex_lock(&lock);
	is_stopping = true;
	store_wake();
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	pthread_mutex_lock(&lock);
	is_running = is_stopping = false;
	listener_count = 0;
	close(wake_fd);
	wake_fd = -1;
	pthread_mutex_unlock(&lock);
	store_fini(&store);
}

bool
store_is_shared(void)
{
	return (is_shared);
}

/* ---- asking ---- */

static struct ask *
ask_create(struct worker *from, void (*work)(struct store *, struct ask *),
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
		store_wake();
	}
	pthread_mutex_unlock(&lock);
	if (is_taken)
		return;
	a->fault = F_STORE;
	text_copy(a->why, sizeof(a->why),
	    "the state store cannot be used: it is not open, or the proxy is stopping");
	ask_answer(a);
}

/* Of the file: so that a change by others is seen, what is noted comes before the rows. */
static void
note_version(struct store *st)
{
	char why[512];

	st->read_generation = st->generation;
	if (!st->is_shared && st->file.sqlite != NULL &&
	    file_data_version(&st->file, &st->file.read_version, why, sizeof(why)) != 0)
		st->file.read_version = -1;
}

static void
load_work(struct store *st, struct ask *a)
{
	struct store_db *db = &st->file.db;

	/* Runs are not copied. */
	if (a->rows.kind == &store_run_kind)
		db = st->truth;
	if (a->rows.kind == &store_key_kind) {
		a->fault = db->ops->open(db, db->is_explicit, a->why, sizeof(a->why));
		if (a->fault == 0)
			note_version(st);
	}
	a->fault = work_load(db, &a->rows, a->name, a->limit, a->why, sizeof(a->why));
}

/* What has been done is read, too, before it is answered. */
static void
ask_changed(struct store *st, struct ask *a, const struct store_kind *kind)
{
	if (a->fault == 0)
		follow_changed(st, kind);
}

static void
key_put_work(struct store *st, struct ask *a)
{
	a->fault = work_key_put(st->truth, a->row, a->why, sizeof(a->why));
	ask_changed(st, a, &store_key_kind);
}

static void
job_put_work(struct store *st, struct ask *a)
{
	a->fault = work_put(st->truth, a->rows.kind, a->row, a->why, sizeof(a->why));
	ask_changed(st, a, &store_job_kind);
}

static void
run_put_work(struct store *st, struct ask *a)
{
	a->fault = F_STORE_DOWN;
	if (!st->is_shared || st->server.is_open)
		a->fault =
		    work_put(st->truth, a->rows.kind, a->row, a->why, sizeof(a->why));
	if (a->fault == F_STORE_DOWN)
		a->fault = follow_keep_run(st, a->row, a->why, sizeof(a->why));
}

static void
ask_put(struct worker *from, void (*work)(struct store *, struct ask *),
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
key_change_work(struct store *st, struct ask *a)
{
	a->fault = work_key_change(st->truth, a->name,
	    a->rotation.verifier != NULL ? &a->rotation : NULL, &a->rows, a->why,
	    sizeof(a->why));
	ask_changed(st, a, &store_key_kind);
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
forget_work(struct store *st, struct ask *a)
{
	a->fault = work_keys_forget(st->truth, a->why, sizeof(a->why));
	ask_changed(st, a, &store_key_kind);
}

void
store_keys_forget(struct worker *from, store_done *done, void *arg)
{
	struct ask *a = ask_create(from, forget_work, NULL, arg);

	a->done = done;
	ask_send(a);
}

static void
look_work(struct store *st, struct ask *a)
{
	struct store_db *db = &st->file.db;
	int64_t version = -1;

	if (st->is_shared) {
		a->has_changed = st->generation != st->read_generation;
		return;
	}
	/* A store that went away leaves the keys that were read from it in force. */
	a->has_changed =
	    db->ops->open(db, false, a->why, sizeof(a->why)) == 0 &&
	    file_data_version(&st->file, &version, a->why, sizeof(a->why)) == 0 &&
	    version != st->file.read_version;
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
routes_put_work(struct store *st, struct ask *a)
{
	a->fault = work_routes_put(st->truth, &a->rows, a->why, sizeof(a->why));
	ask_changed(st, a, &store_route_kind);
}

static void
routes_delete_work(struct store *st, struct ask *a)
{
	a->fault = work_routes_delete(st->truth, &a->rows, a->why, sizeof(a->why));
	ask_changed(st, a, &store_route_kind);
}

static void
ask_routes(struct worker *from, void (*work)(struct store *, struct ask *),
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
	ask_put(from, job_put_work, &store_job_kind, job, done, arg);
}

static void
job_delete_work(struct store *st, struct ask *a)
{
	a->fault = work_job_delete(st->truth, a->name, a->why, sizeof(a->why));
	ask_changed(st, a, &store_job_kind);
	if (a->fault == 0 && st->is_shared)
		claim_forget(st, a->name);
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
	ask_put(from, run_put_work, &store_run_kind, run, done, arg);
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

/* ---- proxies that share a store ---- */

static void
claim_work(struct store *st, struct ask *a)
{
	a->fault = claim_take(
	    st, a->name, a->interval_us, &a->run, &a->wait_us, a->why, sizeof(a->why));
}

void
store_job_claim(struct worker *from, const char *name, int64_t interval_us, int64_t run,
    store_claimed *claimed, void *arg)
{
	struct ask *a = ask_create(from, claim_work, NULL, arg);

	a->name = mem_str(name);
	a->interval_us = interval_us;
	a->run = run;
	a->claimed = claimed;
	ask_send(a);
}

static void
claim_end_work(struct store *st, struct ask *a)
{
	claim_end(st, a->name, a->run);
}

void
store_job_claim_end(
    struct worker *from, const char *name, int64_t run, store_done *done, void *arg)
{
	struct ask *a = ask_create(from, claim_end_work, NULL, arg);

	a->name = mem_str(name);
	a->run = run;
	a->done = done;
	ask_send(a);
}

static void
move_work(struct store *st, struct ask *a)
{
	if (st->is_shared)
		server_move(&st->server, a->topo);
}

void
store_move(struct worker *from, const struct topo *topo)
{
	struct ask *a = ask_create(from, move_work, NULL, NULL);

	a->topo = topo_hold(topo);
	ask_send(a);
}
