/* admin, for its own files. */
#ifndef ADMIN_PRIVATE_H
#define ADMIN_PRIVATE_H
#include "admin.h"
#include "stat.h"

/* ---- statement.c: a text to words ---- */

enum word_kind {
	WORD_PLAIN,  /* pools, 10min, = ( ) , */
	WORD_QUOTED, /* "a name" */
	WORD_STRING  /* 'a text' */
};
struct word {
	enum word_kind kind;
	const char *text; /* without its quotes */
};
#define WORDS_MAX 512
struct statement {
	struct word words[WORDS_MAX];
	unsigned count;
	char *mem; /* what the words point into */
};
/* Reads the statement that begins at *sql and steps over it and the semicolons behind it;
 * comments and white space are nothing. False: an open quote or comment, too many words.
 * statement_free() in either case. */
bool statement_read(struct statement *, const char **sql) MUST_USE;
void statement_free(struct statement *);
/* Whether its first words are those of the verb ("SHOW HELP"), in any case, not quoted. */
bool statement_begins(const struct statement *, const char *verb);
/* The i-th word is this plain one, in any case. */
bool statement_word_is(const struct statement *, unsigned i, const char *text);

/* ---- console.c: calls ---- */

struct call;
struct show;

enum command_role { ROLE_STATS, ROLE_ADMIN };
enum command_effect { EFFECT_READ, EFFECT_CHANGE, EFFECT_DRIVER };
struct command {
	const char *verb, *usage;
	enum command_role role;
	enum command_effect effect;
	void (*run)(struct call *);
	const char *doc;
};
#define COMMAND(verb, usage, role, effect, handler, doc) void handler(struct call *);
#include "tbl/all.def"

struct call {
	TAILQ_ENTRY(call) entry; /* in the worker's list of those not answered yet */
	struct worker *worker;
	struct rows_sink *sink;
	const struct command *command;
	bool is_admin;
	const char *console; /* what it calls the console: pgweave or pgbouncer */
	char *who;           /* "C-0x12: pgweave/admin@1.2.3.4:5678", for the log */
	char *sql;
	struct statement st;
	char *database;     /* what a waiting command waits for; NULL: all */
	struct timer timer; /* of a waiting command */
	void (*check)(struct call *);
	unsigned left; /* what it still waits for; SHUTDOWN: its kind */
	uint64_t id;   /* KILL_CLIENT: whom */
	bool found;    /* KILL_CLIENT: there was one */
	struct show *show;
	void (*made)(struct call *); /* what comes when show has its rows */
	struct select *select;       /* SELECT over views; or NULL */
	struct mail mail;            /* to the main thread and back */
	char *key, *value;
	int fault;
	char why[1024];
};
/* Answers the client and frees the call. */
void call_end(struct call *, const char *tag);
void call_fail(struct call *, const char *sqlstate, const char *fmt, ...) PRINTF(3, 4);
void call_fail_detail(struct call *, const char *sqlstate, const char *message,
    const char *detail, const char *hint);
/* What PgBouncer says of whatever is wrong on its console; its scripts match on it. */
#define CONSOLE_ERROR "08P01"
/* "invalid command '…', use SHOW HELP;" */
void call_invalid(struct call *);
void call_notice(struct call *, const char *fmt, ...) PRINTF(2, 3);
/* Runs visit() in each worker and then done() in the call's own; the call stays. */
void call_visit(struct call *, void (*visit)(struct worker *, void *call),
    void (*done)(struct worker *, void *call));
/* Calls check() after a short while, in the call's thread. */
void call_check_later(struct call *, void (*check)(struct call *));
/* The words behind the verb. */
unsigned call_arg_count(const struct call *);
const char *call_arg(const struct call *, unsigned i);

const struct command *command_find(const struct statement *);
extern const struct command command_table[];
extern const size_t command_count;

/* ---- operate.c: DRAIN, MAINTENANCE ---- */

/* Ends them for a database. False: neither was. */
bool operate_lift(struct call *, const char *database);

/* ---- host.c ---- */

/* What the process does for the console; in the main thread only. */
const struct admin_host *admin_host(void);

/* ---- keys.c ---- */

/* The columns of the row that CREATE KEY and ROTATE KEY answer. */
const struct rows_column *admin_key_columns(unsigned *count);

/* ---- chatter.c: what drivers send ---- */

/* A SET that is not for the console: parameters of a PostgreSQL session. */
bool chatter_is_set(const struct statement *);
/* SHOW of such a parameter: its name as a column, and its value. NULL: it is none. */
const char *chatter_param(
    const struct statement *, unsigned at, const struct rows_column **column);
/* Text of several statements: all of them of drivers' own accord. The tag of the last. */
const char *chatter_several(const char *sql);
/* The columns of a SELECT; false: it is not one that the console answers. */
bool chatter_select(const struct statement *, const struct rows_column **column);

/* ---- views.c ---- */

/* COL_POOLS_database… number the columns of all views; VIEW_POOLS is the first of its view. */
enum view_column {
#define VIEW(name, ...)        VIEW_##name, VIEW_BEFORE_##name = VIEW_##name - 1,
#define COL(view, column, ...) COL_##view##_##column,
#include "tbl/admin_views.def"
	VIEW_COLUMNS
};
#define VIEW_COLUMNS_MAX 40 /* of one view */

struct view {
	const char *name;
	enum view_column first, filter;
	void (*visit)(struct worker *, struct show *);
	void (*rows)(struct show *);
	const char *doc;
};
#define VIEW(name, filter, visit, rows, doc)                                             \
	void visit(struct worker *, struct show *);                                      \
	void rows(struct show *);
#include "tbl/admin_views.def"
extern const struct view view_table[];
extern const size_t view_count;
const struct view *view_find(const char *name);
const struct rows_column *view_columns(const struct view *, unsigned *count);

/* A view being made. The visits of it run in one thread at a time. */
struct show {
	struct call *call;
	const struct view *view;
	const char *only; /* rows whose filter column is this; NULL: all */
	struct rows_list rows;
	struct table sums; /* of struct sum */
	struct buf text;   /* the values of the row being made, each with a NUL */
	int32_t at[VIEW_COLUMNS_MAX]; /* where they begin, or one of these: */
};
#define VALUE_MISSING (-2)
#define VALUE_NULL    (-1)

/* Makes the rows of a view (only: see struct show; may be NULL) in c->show, then calls made(). */
void show_make(
    struct call *, const struct view *, const char *only, void (*made)(struct call *));
void show_free(struct show *);

/* ---- select.c: SQL over the views ---- */

void select_start(struct call *);
/* The columns that it would answer, valid in this thread until the next call; false: it is not
 * understood. */
bool select_describe(const char *sql, const struct rows_column **, unsigned *count);
void select_free(struct select *);

/* Values of the row being made; each column once, then row_end(). */
void row_text(struct show *, enum view_column, const char *value_or_null);
void row_int(struct show *, enum view_column, int64_t);
void row_count(struct show *, enum view_column, uint64_t);
/* A monotonic time as the wall clock of then: "2026-01-31 23:59:59 CET". */
void row_time(struct show *, enum view_column, int64_t us);
/* A monotonic time as a timestamptz: "2026-01-31 23:59:59.123+00". 0: NULL. */
void row_instant(struct show *, enum view_column, int64_t us);
void row_null(struct show *, enum view_column);
void row_end(struct show *);

/* ---- sums.c: what is added up over workers by (database, user) ---- */

enum sum_count {
	SUM_CL_ACTIVE,
	SUM_CL_WAITING,
	SUM_CL_CANCEL,
	SUM_CL_LOGIN,
	SUM_SV_ACTIVE,
	SUM_SV_ACTIVE_CANCEL,
	SUM_SV_BEING_CANCELED,
	SUM_SV_IDLE,
	SUM_SV_USED,
	SUM_SV_TESTED,
	SUM_SV_LOGIN,
	SUM_ITEMS, /* of whatever the row counts */
	SUM_BYTES,
	SUM_COUNTS
};
struct sum {
	struct table_node node;
	char *database, *user;
	uint64_t count[SUM_COUNTS];
	int64_t oldest_wait_us; /* monotonic; 0: nobody waits */
	int pool_mode;
	const char *load_balance; /* NULL: one host */
	struct metrics total, average;
	double per_second[M_COUNT];
};
struct sum *sum_of(struct table *sums, const char *database, const char *user);
/* All of them by database and user; the caller frees the array. */
struct sum **sums_sorted(const struct table *sums);
void sums_free(struct table *sums);

/* ---- view_names.c: host names that are known, and their zones ---- */

unsigned view_names_count(void);
unsigned view_zones_count(void);

/* ---- words shared by views ---- */

const char *pool_mode_text(int mode);
/* NULL when there is one host. */
const char *load_balance_text(const struct topo_database *);
/* What SHOW SERVERS says of a link, and the count of SHOW POOLS it belongs to. */
const char *link_view_state(
    const struct link *, const struct settings *, int64_t now_us, enum sum_count *count);
/* Whether all databases are paused by one PAUSE. */
bool admin_is_paused(void);

#endif
