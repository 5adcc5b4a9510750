/*
 * net: event loops, worker threads and their mailboxes, sockets, TLS, streams.
 *
 *   main thread: listens, signals, reloads        worker 0..N-1: clients and links
 *        |  accepted socket                            ^
 *        +--------- mail ------------------------------+   one mailbox a thread: a lock-free
 *                                                          stack and an eventfd
 *
 * Everything here but worker_post() and the atomics belongs to the thread of its worker.
 * A turn of the loop: events, then the streams on the ready list, then the burials.
 */
#ifndef NET_H
#define NET_H
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base.h"
#include "conf.h"

#define NET_READ_BYTES 65536 /* what one read asks for */
#define NET_UNSENT_BYTES                                                                 \
	65536 /* more than this unsent: stop reading from the other side */
#define NET_MAX_WORKERS 256

/* ---- workers ---- */

struct worker;
struct stream;
struct evdns_base;

/* A message to another thread; embedded in what it carries. run() is called in the
 * receiver's thread, and the mail is then its own. */
struct mail {
	struct mail *next;
	void (*run)(struct worker *, struct mail *);
};

/* What lies in the ground until the turn is over: embedded first in anything that dies
 * while callbacks may still hold it. */
struct burial {
	STAILQ_ENTRY(burial) entry;
	void (*bury)(struct burial *);
};

enum worker_slot {
	WORKER_LINK,
	WORKER_POOL,
	WORKER_SESSION,
	WORKER_ADMIN,
	WORKER_HEALTH,
	WORKER_CATALOG,        /* what the catalogs say, in every thread */
	WORKER_CATALOG_READER, /* who reads them, on the side thread */
	WORKER_REPLICATE,
	WORKER_HTTP,
	WORKER_SLOTS
};
#define WORKER_TICKS   8 /* hooks of one kind, with the NULL that ends them */
#define WORKER_TICK_US 100000

/* A descriptor that is told as long as it can be read; in the thread that waits for it. */
struct fd_watch {
	int fd;
	void (*ready)(struct fd_watch *);
};
void fd_watch(struct worker *, struct fd_watch *);
/* Before the descriptor is closed. */
void fd_unwatch(struct worker *, struct fd_watch *);

/* Fires once, in the worker's turn; set, cancelled by its thread alone. {.fire = …} to begin
 * with; to be cancelled before it is freed. */
struct timer {
	void (*fire)(struct timer *);
	struct worker *worker;
	struct event *event;
	int64_t due_us;
	bool is_set;
	TAILQ_ENTRY(timer) entry;
};
void timer_set(struct worker *, struct timer *, int64_t after_us);
void timer_cancel(struct timer *);

struct worker {
	unsigned
	    index; /* 0 to count - 1; the main thread has count, the side thread the next */
	unsigned count;          /* of workers that serve clients */
	struct event_base *base; /* NULL: those that serve clients, see poll.c */
	struct evdns_base *dns;  /* made at the first name to resolve */
	int64_t hosts_mtime;     /* of /etc/hosts, as dns has it */
	uint8_t *rbuf;    /* plain bytes just read, of whichever stream is being served */
	uint8_t *wire_in; /* TLS: bytes as they came */
	size_t wire_in_len, wire_in_at;
	struct buf wire_out;                   /* TLS: bytes to be sent */
	struct buf plain_out;                  /* TLS: parts gathered into one record */
	TAILQ_HEAD(stream_list, stream) ready; /* streams with work that needs no event */
	TAILQ_HEAD(, timer) timers;
	STAILQ_HEAD(, burial) buried;
	void *slot[WORKER_SLOTS]; /* each room's own state of this worker */
	void (*tick[WORKER_TICKS])(struct worker *, int64_t now_us);
	/* Called after everything else in a turn. */
	void (*turn[WORKER_TICKS])(struct worker *);
	struct event *tick_event, *poll_event; /* or NULL */
	int poll_fd;                           /* its epoll set */
	struct epoll_event *polled;            /* events of this turn */
	int polled_count;
	bool is_stopping;
	uint64_t turns;
	int64_t now_us;      /* see worker_now_us(); 0: not read yet */
	int64_t loop_lag_us; /* how late the last tick came */
	int64_t tick_due_us;
	pthread_t thread;
	/* Shared with other threads: */
	_Atomic(struct mail *) mailbox;
	struct fd_watch wake;
	_Atomic unsigned clients; /* dealt to this worker and not yet gone */
};

/* Makes `count` workers, one for the calling (main) thread and one for the side thread, none
 * running. */
void net_create(unsigned count);
void net_destroy(void);
unsigned net_worker_count(void);
/* Those, and the main and the side thread. */
unsigned net_thread_count(void);
/* i < net_thread_count(): a worker, or net_main(), or net_side(). */
struct worker *net_worker(unsigned i);
/* Listens, handles signals, reloads. */
struct worker *net_main(void);
/* Health, replication, HTTP: whatever is no client's statement. */
struct worker *net_side(void);
/* Starts the threads. F_SYSTEM when one cannot be started. */
int net_start(void) MUST_USE;
/* Runs the main thread's loop until worker_stop(net_main()). */
void net_run_main(void);
/* Ends a loop after the current turn; its own thread only. */
void worker_stop(struct worker *);
/* Waits for the end of the worker threads. */
void net_join(void);
/* Whether they run; in the main thread. */
bool net_is_running(void);

/* Waits for what comes next and serves it: a turn of the worker's loop, in its own thread or where
 * none runs. */
void worker_turn(struct worker *);
/* When no worker thread runs: delivers the mails that are still on their way, and buries what
 * has died. */
void net_settle(void);

/* From any thread. The mail must stay valid until it runs. Mails of one sender arrive in the
 * order in which they were sent. */
void worker_post(struct worker *, struct mail *);
/* Registers what a room does in each worker every WORKER_TICK_US, and after each turn;
 * before net_start(). */
void worker_on_tick(struct worker *, void (*fn)(struct worker *, int64_t now_us));
/* clock_us() as it was when somebody first asked in this turn of the worker's loop: for times that
 * are taken with each statement. */
static inline int64_t
worker_now_us(struct worker *w)
{
	if (w->now_us == 0)
		w->now_us = clock_us();
	return (w->now_us);
}
void worker_on_turn(struct worker *, void (*fn)(struct worker *));
void worker_bury(struct worker *, struct burial *, void (*bury)(struct burial *));

/*
 * Runs visit() once in each worker, in turn, then done() in the thread that asked. The arg
 * must be safe to use from one thread at a time. Workers are visited one after the other, so
 * visits need no lock among themselves.
 */
void net_visit(struct worker *from, void (*visit)(struct worker *, void *arg),
    void (*done)(struct worker *from, void *arg), void *arg);

/* ---- addresses ---- */

/* IPv4, IPv6 or unix, in as few bytes as its kind needs for a client. */
struct addr {
	uint8_t family; /* AF_INET, AF_INET6, AF_UNIX */
	uint16_t port;
	union {
		struct in_addr v4;
		struct in6_addr v6;
		struct {
			uint32_t pid, uid; /* unix: of the peer, 0 when not known */
		} peer;
	} of;
};
void addr_from_socket(struct addr *, const struct sockaddr *, int fd);
/* "127.0.0.1", "::1", "unix" */
void addr_text(const struct addr *, char *out, size_t size);
#define ADDR_TEXT 64
/* The unix socket of that port in a directory, or in the abstract name space when it begins
 * with @. The length of the address, or 0: the path is too long. */
socklen_t addr_unix(struct sockaddr_un *, const char *directory, uint16_t port) MUST_USE;

/* ---- streams: one socket, plain or TLS, edge-triggered ---- */

struct tls;
struct ssl_st;

struct stream_ops {
	/*
	 * Bytes have come. p holds what was left over before and what is new; answers how many
	 * of them are dealt with, the others come again with more behind them. May close the
	 * stream. Not called while the stream is paused.
	 */
	size_t (*bytes)(struct stream *, const uint8_t *p, size_t len);
	/* Fewer than NET_UNSENT_BYTES / 2 are unsent again after there were more than
	 * NET_UNSENT_BYTES. May be NULL. */
	void (*drained)(struct stream *);
	/* The peer has closed (err 0) or the socket or TLS failed (errno, or -1: why in
	 * stream_tls_error()). The stream is still to be closed by its owner. */
	void (*lost)(struct stream *, int err);
	/* stream_connect() or a TLS handshake has come to its end. May be NULL. */
	void (*connected)(struct stream *);
	void (*secured)(struct stream *);
};

struct stream {
	struct worker *worker;
	const struct stream_ops *ops;
	struct ssl_st *ssl; /* NULL: plain */
	struct buf in;      /* came, not dealt with yet */
	struct buf out;     /* to be sent as it is, when the kernel takes it */
	TAILQ_ENTRY(stream) ready_entry;
	int fd; /* -1: closed */
	int err;
	bool has_more : 1; /* the kernel may have bytes that we have not read */
	bool is_paused : 1;
	bool is_ready : 1;      /* on the worker's ready list */
	bool is_lost : 1;       /* end of file or an error was met */
	bool watches_write : 1; /* only while the kernel refuses bytes */
	bool told_lost : 1;
	bool is_connecting : 1;
	bool is_shaking : 1;   /* TLS handshake under way */
	bool was_full : 1;     /* drained() is owed */
	bool has_hung_up : 1;  /* the peer will send no more; read to the end */
	bool cannot_send : 1;  /* sending failed; lost() follows what can still be read */
	bool tells_hangup : 1; /* lost() also while paused */
	bool wants_offer : 1;  /* what was left over is to be offered again */
	bool tls_ended : 1;    /* TLS brings no more bytes */
	bool holds_end : 1;    /* the end of what the peer sends is not told yet */
	bool is_unix : 1;
};

/* An accepted or connected socket (non-blocking) becomes a stream of the calling worker. */
void stream_open(
    struct stream *, struct worker *, int fd, bool is_unix, const struct stream_ops *);
/* Begins to connect. 0, or F_SYSTEM with errno set. connected() or lost() follows. The settings are
 * those of socket_tune(); NULL: it is for a moment. */
int stream_connect(struct stream *, struct worker *, const struct sockaddr *, socklen_t,
    const struct settings *, const struct stream_ops *) MUST_USE;
/* Closes the socket and drops all buffers; no callback comes after it. The struct itself is
 * its owner's, who must not free it before the turn is over. Safe to call twice. */
void stream_close(struct stream *);
static inline bool
stream_is_open(const struct stream *s)
{
	return (s->fd >= 0);
}
/* Sends; what the kernel refuses is kept in order. Never fails: a broken socket is reported
 * by lost(). The parts may be changed. */
void stream_writev(struct stream *, struct iovec *parts, int count);
void stream_write(struct stream *, const void *p, size_t len);
static inline bool
stream_is_full(const struct stream *s)
{
	return (s->out.len > NET_UNSENT_BYTES);
}
/* No bytes() until resume; what comes stays in the kernel. */
void stream_pause(struct stream *);
/* Reads on, and offers what was left over again, at the end of this turn. */
void stream_resume(struct stream *);
/* Whether lost() comes at once when the peer has hung up although the stream is paused. */
void stream_tell_hangup(struct stream *, bool);
/* While held, the orderly end of what the peer sends is not told, whose answers are perhaps
 * still wanted; a reset is, and a peer that has gone in both directions. */
void stream_hold_end(struct stream *, bool hold);
/* Bytes that bytes() has consumed come once more, before all that follows. Not from within
 * bytes() of this stream. */
void stream_unread(struct stream *, const void *p, size_t len);
/* Takes the stream out of its worker (its owner moves it to another thread) and into one.
 * Nothing may be buffered. */
bool stream_can_move(const struct stream *);
void stream_detach(struct stream *);
void stream_attach(struct stream *, struct worker *);
/* Begins TLS as the accepting or the connecting side; secured() or lost() follows. name:
 * the host name for SNI and for verify-full, or NULL. Nothing may be left over in `in`:
 * what came in clear must not pass for what came under TLS. */
void stream_accept_tls(struct stream *, struct tls *);
/* The same when the peer has begun already: p are the first bytes of its handshake, no more than
 * NET_READ_BYTES, within the call of bytes() that brings them. */
void stream_accept_tls_begun(struct stream *, struct tls *, const uint8_t *p, size_t len);
/* Whether both sides have agreed by ALPN that PostgreSQL's protocol follows. */
bool stream_tls_has_alpn(const struct stream *);
void stream_connect_tls(struct stream *, struct tls *, const char *name);
/* "TLSv1.3/TLS_AES_256_GCM_SHA384", or "" when plain. */
void stream_tls_text(const struct stream *, char *out, size_t size);
/* "OpenSSL 3.0.13 30 Jan 2024" */
const char *net_tls_version(void);
/* Whether the peer has shown a certificate that is right (signed by an authority that we know,
 * valid now). */
bool stream_tls_is_proven(const struct stream *);
/* The name in such a certificate: its common name, or (whole) its subject as RFC 2253 writes it.
 * The caller frees it. NULL: there is none. */
char *stream_tls_name(const struct stream *, bool whole) MUST_USE;
/* What a login may be bound to, tls-server-end-point of RFC 5929: a hash of the server's
 * certificate, ours or the peer's. Its bytes; 0: there is none. */
size_t stream_tls_end_point(const struct stream *, bool is_ours, uint8_t out[64]);
/* The last TLS error of this thread, for the log. */
const char *stream_tls_error(void);
/* Applies tcp_keepalive and its companions, TCP_NODELAY. */
void socket_tune(int fd, bool is_unix, const struct settings *);
/* The same for a listening socket, from which those that it accepts have it, and for these. */
void socket_tune_listener(int fd, bool is_unix, const struct settings *);
void socket_tune_accepted(int fd, bool is_unix, const struct settings *);

/* ---- TLS contexts: immutable, counted by references ---- */

/* Both contexts from client_tls_* and server_tls_*; a side that is disabled has none. NULL
 * and why when a file is missing or wrong, unpaired when merely a certificate and its key,
 * each of them right, do not go together. */
struct tls *tls_create(
    const struct settings *, bool *unpaired, char *why, size_t why_len) MUST_USE;
struct tls *tls_hold(struct tls *);
void tls_release(struct tls *);
bool tls_can_accept(const struct tls *);
bool tls_can_connect(const struct tls *);

/* ---- listening ---- */

/* Connections are accepted by the main thread, or by a worker that is the only one: whom else
 * would it hand them to? What follows is called in the main thread, but for on_accept, which
 * is called where they are accepted and owns fd (non-blocking, close-on-exec). */
typedef void net_accept(struct worker *, int fd, const struct sockaddr *, socklen_t);
/* A socket that listens already, from the service manager: net_listen() then takes those that
 * were given, and opens none of its own. */
void net_listen_given(int fd);
/* Opens what listen_addr, listen_port and unix_socket_dir name. F_SYSTEM and why. */
int net_listen(const struct settings *, net_accept *, char *why, size_t why_len) MUST_USE;
/* Stops accepting from the network; the unix socket stays. is_shared: another process listens
 * on the port, too; then none of those who connect meanwhile is cut off. */
void net_listen_local(bool is_shared);
/* Stops accepting for good and removes the unix socket. */
void net_listen_close(void);

/* ---- names ---- */

/* The addresses of a name, in the order in which they are to be tried. */
#define RESOLVED_MAX 16
struct resolved {
	unsigned count;
	struct {
		socklen_t len;
		struct sockaddr_storage sa;
	} at[RESOLVED_MAX];
};
/* done() comes later in this worker's thread, or at once for addresses and for names that are
 * known: err NULL and one address or more, or why it failed. NULL is answered when done() has
 * already been called; otherwise a handle that resolve_cancel() takes until done(); a worker
 * that stops calls done() no more, so that who waits with an arg must cancel. The settings are
 * needed during the call only. */
struct resolve;
typedef void resolve_done(void *arg, const struct resolved *, const char *err);
struct resolve *resolve_start(struct worker *, const struct settings *, const char *host,
    uint16_t port, resolve_done *done, void *arg);
void resolve_cancel(struct resolve *);

/* Counts up when a name has lost an address. Any thread, as the next two. */
uint64_t net_names_generation(void);
/* Whether the name had that address (its port does not count) and has it no more. */
bool net_names_lost(const char *host, const struct sockaddr *);
struct name_view {
	const char *host;
	const struct resolved *found;
	int64_t ttl_us;
};
void net_names_each(void (*each)(void *arg, const struct name_view *), void *arg);
/* dns_zone_check_period: asks anew for the names that were last looked up so long ago. */
void net_names_check(struct worker *, const struct settings *, int64_t now_us);
/* Look-ups under way, of all threads. */
unsigned net_names_asked_for(void);
/* At the end of the process. */
void net_names_free(void);

#endif
