/*
 * replicate, for its own files.
 *
 *   job ---- run (one at a time) ---- leg (one for each target): a connection to the source
 *                                     and one to the target, and the steps of steps.c
 */
#ifndef REPLICATE_PRIVATE_H
#define REPLICATE_PRIVATE_H
#include "pool.h"
#include "replicate.h"
#include "side.h"
#include "stat.h"
#include "store.h"

#define APPLICATION_NAME   "pgweave replication"
#define SECOND_US          INT64_C(1000000)
#define OVERLAP_DEFAULT_US (300 * SECOND_US)
/* Between the moment in which a transaction takes its time and the one in which others see
 * that it is open, its process may not be running. */
#define SKEW_US SECOND_US
/* Tables, and targets, of one job. */
#define NAMES_MAX 1000
/* The name of the job that REPLICATE TABLE is. */
#define ONCE "REPLICATE TABLE"

/* ---- text.c: lists, names and times as people write them ---- */

struct names {
	char **v;
	size_t count;
};
void names_add(struct names *, const char *name, size_t len);
bool names_have(const struct names *, const char *name);
void names_free(struct names *);
/* Separated by commas outside double quotes; blanks around them are dropped. False: why. */
bool names_split(struct names *, const char *list, char *why, size_t why_len) MUST_USE;
/* "Order Items", public.users: as PostgreSQL reads it, at most `most` parts, appended to
 * parts without their quotes. False: why. */
bool name_parts(struct names *parts, const char *text, size_t most, char *why,
    size_t why_len) MUST_USE;
/* "15min", "15 min", "1 hour 30 minutes", "90" (seconds). */
bool interval_read(const char *text, int64_t *us) MUST_USE;
/* In the form of the configuration, in the largest unit that leaves no rest: "15min". */
char *interval_text(int64_t us) MUST_USE;

/* ---- catalog.c: what a database says of the tables of a job ---- */

struct column {
	char *name;
	char *type;     /* without a modifier; of a domain, what it is made of */
	char *sequence; /* quoted; owned by the column, and ours to set; or NULL */
	bool is_not_null, is_generated;
	bool is_needed; /* an insert without it fails */
};
struct unique {
	struct names columns;
	bool is_primary;
};
/* A table in one database. */
struct relation {
	char *schema, *name; /* NULL: there is none */
	char *sql;           /* "schema"."name" */
	struct column *columns;
	size_t column_count;
	struct unique
	    *uniques; /* over columns that are not null; the primary key first */
	size_t unique_count;
	struct names leading; /* the first columns of its indexes */
	int64_t rows_estimate;
	bool is_no_table; /* but a view, say */
	bool cascades;    /* deleting its rows changes those of others */
};
const struct column *relation_column(const struct relation *, const char *name);
void relation_free(struct relation *);

/* How the sync key tells which rows have changed; see bound.c. */
enum key_kind { KEY_CLOCK, KEY_TIME, KEY_DATE, KEY_OTHER };

/* A table of a job in one leg. */
struct copy {
	const char *asked; /* the job's word for it */
	struct relation source, target;
	struct names columns; /* that are copied, in the source's order */
	struct names key;   /* by which rows are the same; none: mode full without one */
	struct names extra; /* of the target alone */
	const char *sync_key; /* NULL: mode full */
	enum key_kind kind;
	/* As the last run left them in the target; NULL: none. */
	char *watermark, *pending;
	int64_t pending_us; /* source's clock */
	/* The newest key, less overlap, that the source had at newest_us. */
	char *newest;
	int64_t newest_us;
	bool is_blind; /* sessions were hidden: the overlap is all there is */
	/* What this run leaves. */
	char *next, *next_pending;
	int64_t next_pending_us;
	int64_t rows_read, rows_written, rows_deleted, bytes;
	int64_t started_us, ended_us; /* wall clock; 0: not yet */
};
void copy_free(struct copy *);

/* Queries of the catalog; $1 is an array of the tables' names. */
extern const char *const catalog_columns_sql, *const catalog_keys_sql,
						  *const catalog_order_sql;
/* Take their answers; of_target: which relation of each copy. */
void catalog_take_columns(struct copy *, size_t count, bool of_target, const PGresult *);
void catalog_take_keys(struct copy *, size_t count, bool of_target, const PGresult *);
/* Parents before children; where that cannot be, the order given. order: count indexes. */
void catalog_take_order(size_t *order, size_t count, const PGresult *);

/* What is wrong with a job, for who reads it. */
struct complaint {
	char sqlstate[6];
	char *message, *hint; /* hint: may be NULL */
};
void complaint_set(struct complaint *, const char *sqlstate, const char *hint,
    const char *fmt, ...) PRINTF(4, 5);
void complaint_free(struct complaint *);
/* Whether both have the table, its columns and a key; sets what is copied, and the kind. */
bool catalog_match(struct copy *, const char *source, const char *target, bool is_full,
    struct complaint *) MUST_USE;
/* A value list and SQL for the columns whose types differ, to be asked at the target; false:
 * there are none. */
bool catalog_types_sql(const struct copy *, size_t count, struct buf *sql);
/* What deserves a word although it works; lines appended to out. */
void catalog_notices(const struct copy *, const char *source, struct buf *out);

/* ---- sql.c: statements ---- */

void sql_name(struct buf *, const char *name);
void sql_text(struct buf *, const char *text);
/* An array as the text of a parameter. The caller frees it. */
char *sql_array(const struct names *) MUST_USE;
extern const char *const sql_settings, *const sql_watermark_table;
/* The stage is the temporary table of the n-th copy. */
void sql_stage(struct buf *, const struct copy *, size_t n);
void sql_copy_out(struct buf *, const struct copy *);
void sql_copy_in(struct buf *, const struct copy *, size_t n);
void sql_upsert(struct buf *, const struct copy *, size_t n);
/* The other way, when a unique value went from one row to another. */
void sql_replace_delete(struct buf *, const struct copy *, size_t n);
void sql_replace_insert(struct buf *, const struct copy *, size_t n);
/* Mode full: what the source does not have any more; without a key: all. */
void sql_delete_gone(struct buf *, const struct copy *, size_t n);
void sql_sequence(struct buf *, const struct copy *, size_t n, const struct column *);

/* ---- bound.c: up to where nothing can be missing ---- */

/* Of the source, when it was asked. */
struct bound {
	int64_t now_us, oldest_us; /* oldest_us: of open transactions; 0: there is none */
	bool sees_all;             /* no session was hidden */
	bool has_prepared;
	char *holder; /* "process 42 (psql), open for 00:10:00"; or NULL */
};
extern const char *const bound_sql, *const bound_prepared_sql;
enum key_kind key_kind(const char *type);
/* Newest key and the time of looking; overlap_us < 0: not said. */
void bound_newest_sql(struct buf *, const struct copy *, int64_t overlap_us);
/* Sets next, next_pending. Answers the time up to which the target will be whole, or 0. */
int64_t bound_next(struct copy *, const struct bound *, int64_t overlap_us);

/* ---- job.c ---- */

struct run;
struct claiming;

struct job {
	TAILQ_ENTRY(job) entry;       /* of the jobs, or of the loose ones */
	struct topo_job_text text;    /* owned */
	struct names targets, tables; /* tables: quoted */
	struct names words;           /* for each of the tables: what people say */
	char *sync_key;               /* NULL: none */
	int64_t interval_us;          /* 0: none */
	int64_t overlap_us;           /* -1: not said */
	bool is_full, is_enabled, is_from_file, is_once;
	bool is_loose; /* not one of the jobs: being checked, or run once */
	bool is_seen;
	bool is_leaving; /* the store drops it */
	/* Of a store that proxies share: the question for it that is under way, or NULL, and
	 * whether somebody wants that run; and the run that it is ours for, or 0. */
	const struct claiming *claiming;
	bool is_claimed_for;
	int64_t claimed_run;
	struct run *run; /* NULL: none */
	/* Who has asked for a run while one was under way that nobody had asked for; or NULL. */
	replicate_done *waiter;
	void *waiter_arg;
	int64_t run_number; /* of the last */
	int64_t due_us;     /* monotonic; 0: not by itself */
	/* The last run, or the one under way. */
	int64_t last_run_us, rows_done, rows_total;
	double rate;
	int64_t whole_us; /* up to when the slowest target has all; 0: not known */
	bool has_run, has_failed;
	char *last_error;
};
/* Owned copies of the words. NULL: why. */
struct job *job_create(const struct topo_job_text *, char *why, size_t why_len) MUST_USE;
void job_destroy(struct job *);
void job_text_copy(struct topo_job_text *to, const struct topo_job_text *from);
void job_text_free(struct topo_job_text *);
bool job_text_same(const struct topo_job_text *, const struct topo_job_text *);

/* ---- replicate.c: which jobs there are ---- */

TAILQ_HEAD(job_list, job);
struct replicate {
	struct worker *side;
	struct job_list jobs, loose;
	/* The store's, as it has them: also those that the configuration hides. */
	struct topo_job_text *stored, *fresh; /* fresh: being read */
	size_t stored_count, fresh_count;
	uint64_t generation; /* of the snapshot that the jobs are from */
	bool is_loading, is_loaded, has_changed;
	bool has_news;      /* others have changed something in the store */
	int64_t load_at_us; /* monotonic */
	int64_t once_number;
};
struct replicate *replicate_of(struct worker *);
struct job *job_find(struct job_list *, const char *name);
/* due_us: when, if it runs by itself. */
void job_add(struct replicate *, struct job *, int64_t due_us);
void job_start(struct replicate *, struct job *, replicate_done *, void *arg);
void job_enable(struct job *, bool is_enabled);
/* Ends the job's run, if there is one: the job is about to go. */
void job_stop(struct job *, const char *sqlstate, const char *message);
/* The store's list, kept as the store has it. */
void stored_put(struct replicate *, const struct topo_job_text *);
void stored_remove(struct replicate *, const char *name);
/* What SHOW JOBS shows. */
void jobs_publish(struct replicate *);
/* The run has ended: it is told, and goes, after this. */
void job_ran(struct job *, struct run *);
/* Of a loose job: nobody needs it any more. */
void job_leave(struct worker *, struct job *);

/* ---- shared.c: proxies that share a store ---- */

/* job_start(), when no other proxy has the job. interval_us: nor has had it since then; 0: it is
 * to run in any case. */
void job_begin(
    struct replicate *, struct job *, int64_t interval_us, replicate_done *, void *arg);
/* Its run is over: others may have it, and then done() (may be NULL) is called. False: it was not
 * claimed, and done() is not called. */
bool job_unclaim(struct worker *side, struct job *, store_done *done, void *arg);

/* ---- past.c: runs that this process has not seen ---- */

/* Of earlier processes, and other proxies; name NULL: of all jobs. */
void past_load(struct replicate *, const char *name);

/* ---- run.c and steps.c ---- */

enum purpose { PURPOSE_RUN, PURPOSE_CHECK };

struct leg {
	struct burial burial;
	TAILQ_ENTRY(leg) entry;
	struct run *run;
	const char *target; /* the job's */
	struct side *from, *to;
	unsigned opening;
	int at_step, next; /* enum step_id */
	size_t at, part;   /* which table, and which of its columns */
	struct copy *copies;
	size_t copy_count;
	size_t *order;
	char *tables; /* as an array */
	struct buf sql;
	struct bound bound;
	bool is_reading, is_writing;        /* halves of a copy under way */
	bool without_triggers;              /* replacing rows: those of the target rest */
	bool has_watermarks, has_timelines; /* in the target: the table, its column */
	char timeline[9];                   /* of the source; "": it is in recovery */
	char *read_error;
	char read_state[6];
	int64_t whole_us;
	enum leg_outcome { LEG_BUSY, LEG_DONE, LEG_SKIPPED, LEG_FAILED } outcome;
	struct complaint complaint;
};
struct run {
	struct burial burial;
	struct mail mail; /* to ourselves, when the last leg has ended */
	struct worker *side;
	struct job *job;
	enum purpose purpose;
	TAILQ_HEAD(, leg) legs;
	size_t left;
	int64_t started_us, started_wall_us;
	struct buf notices;   /* lines */
	replicate_done *done; /* or NULL */
	void *arg;
	/* After a check that found nothing wrong: what to do, instead of telling done(). */
	void (*checked)(struct run *);
	struct complaint complaint; /* of the first leg that failed */
	const char *failed_target;
	bool is_skipped; /* and that was because somebody else runs it */
	bool is_aborted;
};
/* Begins the job's run; ends in job_ran() or checked(), never inside this call. */
struct run *run_start(struct worker *, struct job *, enum purpose,
    void (*checked)(struct run *), replicate_done *, void *arg);
/* Closes what is open, and tells done(). No job_ran() follows; the run is gone. */
void run_abort(struct run *, const char *sqlstate, const char *message);
/* So far; in all, or -1: not known; up to when the slowest target has all, or 0. */
int64_t run_rows(const struct run *);
int64_t run_rows_total(const struct run *);
int64_t run_whole_us(const struct run *);
/* From the next step on, until it has to wait or has ended. */
void leg_walk(struct leg *);
void leg_end(struct leg *, enum leg_outcome);
/* Takes the leg to its end with this complaint. */
void leg_fail(struct leg *, const char *sqlstate, const char *hint, const char *fmt, ...)
    PRINTF(4, 5);
void leg_skip(struct leg *, const char *message);
/* pump.c: copies the rows of the leg's table to its stage, then calls leg_copied(). */
void pump_start(struct leg *);
void leg_copied(struct leg *);

/* ---- board.c: what other threads may read ---- */

void board_jobs(const struct replicate_status *, size_t count);
void board_run(const struct store_run *);
bool board_has_run(const struct store_run *);
void board_clear(void);

#endif
