/*
 * Start, reload, stop. The main thread listens, hears signals and reloads; the workers serve.
 *
 *   start:  configuration -> log -> workers (not running) -> TLS -> sockets -> user, pid file
 *           -> threads -> ready
 *   stop:   INT   accept no more, end each session when its transaction is over
 *           TERM  accept no more, wait until the clients have gone; again: end now
 */
#include "auth.h"
#include "catalog.h"
#include "config.h"
#include "health.h"
#include "http.h"
#include "link.h"
#include "main.h"
#include "pool.h"
#include "replicate.h"
#include "session.h"
#include "store.h"
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPARE_DESCRIPTORS 64 /* log, event loops, listeners, configuration files… */

static const struct options *options;
static const struct topo *world; /* what was swapped in last; main thread only */
static struct tls *world_tls;
static _Atomic enum stopping { RUNNING, WAITING_FOR_CLIENTS, DRAINING, ENDING } stopping;
static struct event *stop_event, *stats_event;
static struct event *signal_events[8];

/* ---- configuration ---- */

/* Says what is wrong, to the terminal at start and to the log at reload. */
static void
problems_say(struct conf_problems *p, bool to_log)
{
	for (size_t i = 0; i < p->count; i++) {
		if (to_log)
			log_error("%s", p->lines[i]);
		else
			fprintf(stderr, "pgweave: %s\n", p->lines[i]);
	}
	for (size_t i = 0; i < p->warning_count; i++) {
		if (to_log)
			log_warning("%s", p->warnings[i]);
		else
			fprintf(stderr, "pgweave: warning: %s\n", p->warnings[i]);
	}
}

/* The snapshot that a file describes, or NULL; why: the first problem. */
static const struct topo *
world_read(const char *path, bool to_log, char *why, size_t why_len)
{
	struct conf_problems problems = {0};
	struct conf *conf = conf_load(path, &problems);
	const struct topo *topo = NULL;

	if (conf != NULL)
		topo = topo_build(conf, &problems);
	problems_say(&problems, to_log);
	if (problems.count > 0)
		snprintf(why, why_len, "%s", problems.lines[0]);
	conf_problems_free(&problems);
	return (topo != NULL ? stored_routes_apply(stored_keys_apply(topo)) : NULL);
}

const struct topo *
world_current(void)
{
	return (world);
}

void
world_replace(const struct topo *topo)
{
	pool_swap_world(topo, world_tls);
	topo_release(world);
	world = topo;
}

static int
world_log(const struct topo *topo, char *why, size_t why_len)
{
	const struct settings *set = topo_settings(topo);
	struct log_options o = {.file = set->logfile[0] != '\0' ? set->logfile : NULL,
	    .to_stderr = !options->quiet && !options->daemon,
	    .to_syslog = set->syslog,
	    .syslog_ident = set->syslog_ident,
	    .syslog_facility = set->syslog_facility,
	    .verbose =
		options->verbose > set->verbose ? options->verbose : (int)set->verbose};

	return (log_open(&o, why, why_len));
}

static void
note_restart(void *arg, const struct setting *s, bool needs_restart)
{
	(void)arg;
	if (needs_restart)
		log_warning("%s has changed: it takes effect at the next start", s->key);
}

/* Takes over the reference to topo. With keeps_tls a certificate and a key that do not go
 * together leave TLS as it is: SET changes them one after the other. */
static int
world_swap(const struct topo *topo, bool keeps_tls, char *why, size_t why_len)
{
	bool unpaired;
	struct tls *tls = tls_create(topo_settings(topo), &unpaired, why, why_len);

	if (tls == NULL && unpaired && keeps_tls) {
		log_warning("%s: TLS stays as it was until they go together", why);
		tls = tls_hold(world_tls);
	}
	if (tls == NULL || world_log(topo, why, why_len) != 0) {
		tls_release(tls);
		topo_release(topo);
		return (F_CONF);
	}
	settings_diff(topo_settings(world), topo_settings(topo), note_restart, NULL);
	auth_set_iterations((int)topo_settings(topo)->scram_iterations);
	pool_swap_world(topo, tls);
	topo_release(world);
	tls_release(world_tls);
	world = topo;
	world_tls = tls;
	return (0);
}

/* is_fresh: what serves is what the file says. */
static void
notify_serving(bool is_fresh)
{
	char status[160];

	snprintf(status, sizeof(status), "Serving %zu databases with %u worker%s.%s",
	    topo_database_count(world), net_worker_count(),
	    net_worker_count() == 1 ? "" : "s",
	    is_fresh ? "" : " The last reload failed, see the log.");
	notify("READY=1", status);
}

static int
host_reload(char *why, size_t why_len)
{
	const char *path = topo_settings(world)->conffile;
	const struct topo *topo;
	char state[64];
	int fault;

	/* The time is for Type=notify-reload. */
	snprintf(
	    state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_us());
	notify(state, "Reading the configuration again.");
	topo = world_read(path[0] != '\0' ? path : options->config, true, why, why_len);
	fault = topo == NULL ? F_CONF : world_swap(topo, false, why, why_len);
	if (fault == 0)
		store_move(net_main(), world);
	if (fault == 0)
		log_info("the configuration was read again");
	else
		log_error("reload failed, nothing has changed: %s", why);
	notify_serving(fault == 0);
	return (fault);
}

static int
host_set(const char *key, const char *value, char *why, size_t why_len)
{
	const struct setting *s = setting_find(key);
	const struct topo *topo;

	if (s == NULL) {
		snprintf(why, why_len, "there is no such setting");
		return (F_NOT_FOUND);
	}
	if (s->apply == AP_RESTART) {
		snprintf(why, why_len, "cannot be changed while running");
		return (F_CONF_VALUE);
	}
	topo = topo_with(world, s, value, why, why_len);
	return (topo == NULL ? F_CONF_VALUE
			     : world_swap(topo, strstr(key, "_tls_sslmode") == NULL, why,
				   why_len));
}

/* ---- stopping ---- */

static void
stop_worker(struct worker *w, void *arg)
{
	(void)arg;
	worker_stop(w);
}

static void
stop_mail(struct worker *w, struct mail *m)
{
	(void)m;
	worker_stop(w);
}

static void
stop_main(struct worker *w, void *arg)
{
	static struct mail mail = {.run = stop_mail};

	(void)arg;
	worker_post(net_side(), &mail);
	worker_stop(w);
}

static void
stop_now(void)
{
	if (stopping == ENDING)
		return;
	stopping = ENDING;
	net_listen_close();
	net_visit(net_main(), stop_worker, stop_main, NULL);
}

/* Looks now and then whether the clients have gone, and sends those away who have come to
 * rest. Whoever looks on from the console does not count. */
static unsigned clients_left;
static bool is_looking;

static void
visit_look(struct worker *w, void *arg)
{
	(void)arg;
	if (stopping == DRAINING)
		session_drain(w);
	clients_left += session_clients(w);
}

static void
visit_looked(struct worker *w, void *arg)
{
	(void)w;
	(void)arg;
	is_looking = false;
	if (clients_left > 0)
		return;
	log_info("%s connections dropped, exiting",
	    stopping == DRAINING ? "server" : "client");
	stop_now();
}

static void
stop_look(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	if (is_looking || stopping == ENDING)
		return;
	is_looking = true;
	clients_left = 0;
	net_visit(net_main(), visit_look, visit_looked, NULL);
}

static void
stop_begin(enum stopping how)
{
	const char *what = how == DRAINING ? "waiting for transactions to end"
					   : "waiting for clients to leave";
	struct timeval every = {.tv_usec = 50000};
	char status[160];

	if (how == ENDING || stopping >= how) {
		stop_now();
		return;
	}
	log_info("shutting down: %s", what);
	snprintf(status, sizeof(status), "Shutting down: %s; clients: %u.", what,
	    session_total());
	notify("STOPPING=1", status);
	/* The console, and cancel requests that a peer brings, still have the unix socket. */
	session_close_doors();
	net_listen_local(topo_settings(world)->so_reuseport);
	if (stopping == RUNNING) {
		stop_event = event_new(net_main()->base, -1, EV_PERSIST, stop_look, NULL);
		INVARIANT(stop_event != NULL && event_add(stop_event, &every) == 0);
	}
	stopping = how;
	stop_look(-1, 0, NULL);
}

static void
host_shutdown(enum admin_shutdown mode)
{
	switch (mode) {
	case ADMIN_SHUTDOWN_WAIT_FOR_SERVERS:
		stop_begin(DRAINING);
		break;
	case ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS:
		stop_begin(WAITING_FOR_CLIENTS);
		break;
	case ADMIN_SHUTDOWN_NOW:
	default:
		stop_now();
		break;
	}
}

/* ---- signals ---- */

static void
resume_by_signal(void)
{
	if (stopping != RUNNING)
		log_info("got SIGUSR2 while shutting down, ignoring");
	else if (admin_resume_all(net_main()))
		log_info("got SIGUSR2, continuing from PAUSE");
	else
		log_info("got SIGUSR2, but not paused/suspended");
}

static void
on_signal(evutil_socket_t sig, short what, void *arg)
{
	char why[512] = "";

	(void)what;
	(void)arg;
	switch (sig) {
	case SIGHUP:
		log_info("got SIGHUP, re-reading config");
		(void)!host_reload(why, sizeof(why));
		break;
	case SIGINT:
		log_info("got SIGINT%s",
		    stopping != RUNNING
			? " while shutting down, fast exit"
			: ", shutting down, waiting for all servers connections to be released");
		stop_begin(DRAINING);
		break;
	case SIGTERM:
		log_info("got SIGTERM%s",
		    stopping != RUNNING
			? " while shutting down, fast exit"
			: ", shutting down, waiting for all clients disconnect");
		stop_begin(WAITING_FOR_CLIENTS);
		break;
	case SIGQUIT:
		log_info("got SIGQUIT, fast exit");
		stop_now();
		break;
	case SIGUSR1:
		log_info("got SIGUSR1, %s", admin_pause_all(net_main())
						? "pausing all activity"
						: "but already paused/suspended");
		break;
	case SIGUSR2:
		resume_by_signal();
		break;
	default:
		break;
	}
}

static void
signals_watch(void)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2};

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		signal_events[i] =
		    evsignal_new(net_main()->base, signals[i], on_signal, NULL);
		INVARIANT(
		    signal_events[i] != NULL && event_add(signal_events[i], NULL) == 0);
	}
}

/* ---- start ---- */

static void
stats_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	if (topo_settings(world)->log_stats)
		admin_log_stats(net_main());
}

/* auto: one for two processors that the process may use. Half of the work of a query is done by
 * the kernel and by the server, often on the same machine; and a thread that has more to do when
 * it wakes up does each thing for less. */
static unsigned
workers_wanted(const struct settings *set)
{
	cpu_set_t cpus;
	unsigned cores = 1;

	if (set->workers > 0)
		return ((unsigned)set->workers);
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		cores = (unsigned)CPU_COUNT(&cpus);
	else if (sysconf(_SC_NPROCESSORS_ONLN) > 0)
		cores = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	cores = (cores + 1) / 2;
	return (cores > NET_MAX_WORKERS ? NET_MAX_WORKERS : cores);
}

/* Links when each database has one full pool. */
static int64_t
links_possible(const struct topo *topo)
{
	int64_t links = 0;

	for (size_t i = 0; i < topo_database_count(topo); i++) {
		const struct topo_database *db = topo_database(topo, i);
		struct topo_limits limits;

		topo_limits(topo, db, NULL, &limits);
		links += limits.pool_size + limits.reserve_pool_size;
	}
	return (links);
}

/* File descriptors that clients may have: those of links are set aside. */
static unsigned
clients_possible(const struct topo *topo, unsigned descriptors)
{
	int64_t links = links_possible(topo);

	/* Many databases, or many roles, share what there is. */
	if (links > descriptors / 3)
		links = descriptors / 3;
	if (descriptors < SPARE_DESCRIPTORS + links + 16)
		return (16);
	return (descriptors - SPARE_DESCRIPTORS - (unsigned)links);
}

static const struct admin_host admin_hooks = {
    .reload = host_reload,
    .set = host_set,
    .shutdown = host_shutdown,
    .key_create = stored_keys_create,
    .key_revoke = stored_keys_revoke,
    .key_rotate = stored_keys_rotate,
    .routes_change = stored_routes_change,
};

static void
check_names(struct worker *w, int64_t now)
{
	net_names_check(w, pool_settings(w), now);
}

static const struct topo *
world_of(struct worker *w)
{
	return (pool_worker(w)->topo);
}

static void
rooms_init(void)
{
	for (unsigned i = 0; i < net_thread_count(); i++) {
		link_init(net_worker(i));
		pool_init(net_worker(i), world, world_tls);
		if (i < net_worker_count())
			session_init(net_worker(i));
	}
	health_init(net_side());
	catalog_init(net_side(), world_of);
	replicate_init(net_side());
	worker_on_tick(net_main(), check_names);
	admin_set_host(&admin_hooks);
	session_set_console(&admin_console);
}

/* Whether links went where they were needed: what only a look at the whole can tell. */
static void
log_handovers(void)
{
	struct metrics sum = {0};
	const struct seat *seat;

	for (unsigned i = 0; i < net_worker_count(); i++)
		TAILQ_FOREACH(seat, &pool_worker(net_worker(i))->seats, entry)
			metrics_add(&sum, &seat->metrics);
	log_info("links handed over between workers: %" PRIu64
		 ", late wake-ups: %" PRIu64,
	    sum.v[M_handovers], sum.v[M_rescues]);
}

static void
rooms_fini(void)
{
	log_handovers();
	http_stop(net_side());
	for (unsigned i = 0; i < net_worker_count(); i++)
		session_end_all(net_worker(i));
	health_fini(net_side());
	catalog_fini(net_side());
	replicate_fini(net_side());
	net_settle();
	for (unsigned i = 0; i < net_worker_count(); i++)
		admin_fini(net_worker(i));
	for (unsigned i = 0; i < net_thread_count(); i++)
		pool_end_all(net_worker(i));
	net_settle();
	for (unsigned i = 0; i < net_thread_count(); i++) {
		if (i < net_worker_count())
			session_fini(net_worker(i));
		catalog_forget(net_worker(i));
		pool_fini(net_worker(i));
		link_fini(net_worker(i));
	}
	net_settle();
}

/* Everything that can fail before the first client. */
static enum exit_code
start(char *why, size_t why_len)
{
	const struct settings *set = topo_settings(world);
	const char *user = options->user != NULL ? options->user : set->user;
	struct timeval period = {.tv_sec = set->stats_period / 1000000};
	unsigned descriptors = descriptors_raise();
	bool unpaired;

	/* First, so that all that follows is opened by that user. */
	if (user[0] != '\0' && become_user(user, why, why_len) != 0)
		return (EXIT_BAD_CONFIG);
	auth_set_iterations((int)set->scram_iterations);
	login_key_load(set);
	world_tls = tls_create(set, &unpaired, why, why_len);
	if (world_tls == NULL)
		return (EXIT_BAD_CONFIG);
	if (options->daemon && set->pidfile[0] == '\0') {
		snprintf(why, why_len, "-d needs a pidfile");
		return (EXIT_BAD_CONFIG);
	}
	/* Heard once all stands; who can connect may stop us, too. */
	signals_watch();
	sockets_take();
	if (world_log(world, why, why_len) != 0 ||
	    http_start(net_side(), set, why, why_len) != 0 ||
	    net_listen(set, session_accept, why, why_len) != 0 ||
	    pidfile_write(set->pidfile, why, why_len) != 0)
		return (EXIT_NO_START);
	stored_keys_start(world);
	stored_routes_start();
	world = stored_routes_apply(stored_keys_apply(world));
	set = topo_settings(world);
	rooms_init();
	session_set_hard_max(clients_possible(world, descriptors));
	stats_event = event_new(net_main()->base, -1, EV_PERSIST, stats_due, NULL);
	INVARIANT(stats_event != NULL && event_add(stats_event, &period) == 0);
	log_info("kernel file descriptor limit: %u (hard: %u); max_client_conn: %" PRId64
		 ", max expected fd use: %" PRId64,
	    descriptors, descriptors, set->max_client_conn,
	    set->max_client_conn + SPARE_DESCRIPTORS + links_possible(world));
	log_info("process up: pgweave %s, libevent %s (%s), adns: evdns2, tls: %s, "
		 "%u worker%s",
	    PACKAGE_VERSION, event_get_version(), event_base_get_method(net_main()->base),
	    net_tls_version(), net_worker_count(), net_worker_count() == 1 ? "" : "s");
	if (net_start() != 0) {
		snprintf(why, why_len, "cannot start threads");
		return (EXIT_NO_START);
	}
	return (EXIT_FINE);
}

static void
events_free(void)
{
	for (size_t i = 0; i < ARRAY_LEN(signal_events); i++)
		if (signal_events[i] != NULL)
			event_free(signal_events[i]);
	if (stop_event != NULL)
		event_free(stop_event);
	if (stats_event != NULL)
		event_free(stats_event);
}

enum exit_code
serve(const struct options *o)
{
	enum exit_code code;
	char why[512] = "";

	options = o;
	world = world_read(o->config, false, why, sizeof(why));
	if (world == NULL)
		return (EXIT_BAD_CONFIG);
	if (o->daemon)
		daemon_begin();
	net_create(workers_wanted(topo_settings(world)));
	code = start(why, sizeof(why));
	if (code != EXIT_FINE) {
		fprintf(stderr, "pgweave: %s\n", why);
		if (topo_settings(world)->logfile[0] != '\0' ||
		    topo_settings(world)->syslog)
			log_fatal("%s", why);
		daemon_ready(code);
		net_listen_close();
		pidfile_remove();
		exit(code);
	}
	daemon_ready(EXIT_FINE);
	notify_serving(true);
	net_run_main();
	net_join();
	stored_keys_stop();
	rooms_fini();
	events_free();
	net_listen_close();
	net_destroy();
	net_names_free();
	tls_release(world_tls);
	topo_release(world);
	topo_verdicts_free();
	stored_keys_free();
	stored_routes_free();
	pidfile_remove();
	log_info("stopped");
	return (EXIT_FINE);
}
