/* link, for its own files. */
#ifndef LINK_PRIVATE_H
#define LINK_PRIVATE_H
#include "link.h"

#define VARS_RECENT 64

/* What the room has in each worker. */
struct link_worker {
	struct table vars;
	size_t vars_bytes;
	/* Sets whose canonical form is known are kept for the next login that asks the same. */
	struct vars *recent[VARS_RECENT];
	unsigned recent_at;
	TAILQ_HEAD(, cancel) cancels;
	TAILQ_HEAD(doomed_list, link_login) doomed;
	uint64_t next_id;
	char *tracked; /* track_extra_parameters; NULL: none */
	bool logs_connections, logs_disconnections;
};
static inline struct link_worker *
link_worker(const struct worker *w)
{
	return (w->slot[WORKER_LINK]);
}

/* A CancelRequest under way. */
struct cancel {
	struct burial burial;
	struct stream stream;
	struct worker *worker;
	struct link *link; /* NULL when it has closed meanwhile */
	struct tls *tls;   /* NULL: in clear */
	char *host;        /* for the server's certificate */
	uint32_t pid;
	uint16_t key_len;
	uint8_t *key;
	int64_t start_us;
	void (*done)(void *arg);
	void *arg;
	TAILQ_ENTRY(cancel) entry;
};

extern const struct stream_ops link_stream_ops;
void link_login_turn(struct worker *);

/* The only place that writes link->state. */
void link_move(struct link *, enum link_state to);

void vars_forget_recent(struct worker *);
/* The server has closed the link, or it cannot be trusted any more: closes it and tells whoever
 * has it. */
void link_gone(struct link *, const char *why);

/* Login: begins with the resolved address; bytes until the link is ready. */
void link_login_start(struct link *, const struct link_target *);
void link_login_connected(struct link *);
/* The address did not answer: the next one's turn; false: there is none. */
bool link_login_next(struct link *, const char *why);
void link_login_secured(struct link *);
size_t link_login_bytes(struct link *, const uint8_t *p, size_t len);
void link_login_free(struct link *);
/* The link did not come up. */
void link_login_failed(struct link *, int fault, const struct proto_error_fields *error,
    const char *fmt, ...) PRINTF(4, 5);

/* ---- owners.c ---- */

void link_owner_add(struct link *);
void link_owner_remove(struct link *);

size_t link_run_bytes(struct link *, const uint8_t *p, size_t len);
void link_run_free(struct link *);
/* Messages that may come at any time: true when type was one of them and is dealt with. */
bool link_note_async(struct link *, char type, const uint8_t *body, size_t len);
/* A whole message at p: its size, 0 when it is not complete, or F_LINK_PROTOCOL. */
ssize_t link_message_size(const uint8_t *p, size_t len, size_t max);

#endif
