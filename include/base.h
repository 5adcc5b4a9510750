/*
 * base: what every room stands on: memory, growing buffers, hash tables, clocks,
 * randomness, logging, and the list of faults.
 */
#ifndef BASE_H
#define BASE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MUST_USE                     __attribute__((warn_unused_result))
#define PRINTF(fmt, args)            __attribute__((format(printf, fmt, args)))
#define ARRAY_LEN(a)                 (sizeof(a) / sizeof((a)[0]))
#define LIKELY(x)                    __builtin_expect(!!(x), 1)
#define UNLIKELY(x)                  __builtin_expect(!!(x), 0)
#define CONTAINER_OF(p, type, field) ((type *)(void *)((char *)(p)-offsetof(type, field)))

/* ---- faults: every way in which a call can fail, declared in include/tbl ---- */

/* A fallible function answers 0 or one of these, which are negative. */
#define FAULT(name, ...) F_##name##_ORDINAL,
enum fault_ordinal {
	F_NONE_ORDINAL,
#include "tbl/all.def"
	F_COUNT
};
#define FAULT(name, ...) F_##name = -(int)F_##name##_ORDINAL,
enum fault {
	F_OK = 0,
#include "tbl/all.def"
};

struct fault_info {
	const char *name;     /* as in the table */
	const char *sqlstate; /* five characters */
	bool is_retryable;    /* the same request may succeed later */
	const char *blame;    /* OURS or THEIRS */
	const char *text;     /* a sentence without a full stop */
};

/* What is known of a fault code (0 or negative). Never NULL: unknown codes are INTERNAL. */
const struct fault_info *fault_info(int code);

/* ---- invariants: checked in production builds too ---- */

/* Logs the broken invariant and aborts. */
_Noreturn void base_broken(const char *what, const char *file, int line);
#define INVARIANT(cond)                                                                  \
	do {                                                                             \
		if (UNLIKELY(!(cond)))                                                   \
			base_broken(#cond, __FILE__, __LINE__);                          \
	} while (0)

/* ---- memory: zeroed where new; running out ends the process with a log line ---- */

void *mem_alloc(size_t size) MUST_USE;
void *mem_realloc(void *p, size_t size) MUST_USE;
void *mem_dup(const void *p, size_t size) MUST_USE;
char *mem_str(const char *s) MUST_USE;
char *mem_strn(const char *s, size_t len) MUST_USE;
char *mem_printf(const char *fmt, ...) PRINTF(1, 2) MUST_USE;
/* Overwrites before freeing: for passwords and keys. NULL is allowed. */
void mem_free_secret(void *p, size_t size);

/* ---- growing byte buffer; {0} is an empty one ---- */

struct buf {
	uint8_t *mem;
	uint32_t len; /* bytes in use */
	uint32_t cap; /* bytes allocated */
};

/* Room for `more` bytes behind the end; the address of the end. */
uint8_t *buf_room(struct buf *, size_t more);
void buf_add(struct buf *, const void *p, size_t len);
void buf_addstr(struct buf *, const char *s);
/* Between such quotes, those in it doubled: a name or a string constant of SQL. */
void buf_add_quoted(struct buf *, const char *s, char quote);
void buf_addf(struct buf *, const char *fmt, ...) PRINTF(2, 3);
/* Drops the first n bytes. */
void buf_drop(struct buf *, size_t n);
/* Frees the memory; the buffer is empty and usable again. */
void buf_free(struct buf *);

/* ---- hashes: SipHash-1-3 under a key drawn at start, so that peers cannot choose
 * collisions ---- */

struct hash128 {
	uint64_t hi, lo;
};
uint64_t hash_bytes(const void *p, size_t len);
/* Of two byte strings, with a boundary between them. */
struct hash128 hash_pair(const void *a, size_t alen, const void *b, size_t blen);

/* ---- intrusive hash table; {0} is an empty one. The owner embeds a table_node. ---- */

struct table_node {
	struct table_node *next;
	uint64_t hash;
};
struct table {
	struct table_node **slots;
	uint32_t size;  /* slots: 0 or a power of two */
	uint32_t count; /* nodes */
};
typedef bool table_same(const struct table_node *, const void *key);

void table_add(struct table *, struct table_node *, uint64_t hash);
struct table_node *table_find(
    const struct table *, uint64_t hash, table_same *same, const void *key);
/* The node must be in the table. */
void table_remove(struct table *, struct table_node *);
/* The first node, or NULL: for emptying a table. */
struct table_node *table_first(const struct table *);
/* The node after n in no particular order, or NULL. */
struct table_node *table_next(const struct table *, const struct table_node *n);
/* Frees the slots; the nodes are their owner's. */
void table_free(struct table *);

/* ---- clocks ---- */

/* Monotonic microseconds; never 0. */
int64_t clock_us(void);
/* Microseconds of the wall clock since 1970. */
int64_t clock_wall_us(void);

/* ---- randomness from the kernel; cannot fail ---- */

void random_bytes(void *p, size_t len);

/* Compares in time that depends on len alone. */
bool same_secret(const void *a, const void *b, size_t len);

/* ---- logging: one event, one line, one write; never a secret ---- */

enum log_level {
	LOG_FATAL_,
	LOG_ERROR_,
	LOG_WARNING_,
	LOG_INFO_,
	LOG_DEBUG_,
	LOG_NOISE_
};

struct log_options {
	const char *file; /* NULL: standard error only */
	bool to_stderr;   /* also (or, without a file, only) standard error */
	bool to_syslog;
	const char *syslog_ident; /* "pgweave" */
	const char *syslog_facility;
	int verbose; /* 0: up to INFO; 1: DEBUG; 2: NOISE */
};
/* Opens what the options name; keeps copies of their strings. 0 or F_SYSTEM, then nothing
 * has changed and why says the reason. Safe to call again: at reload, to reopen. */
int log_open(const struct log_options *, char *why, size_t why_len) MUST_USE;
bool log_wants(enum log_level);
void log_line(enum log_level, const char *fmt, ...) PRINTF(2, 3);
#define log_fatal(...)   log_line(LOG_FATAL_, __VA_ARGS__)
#define log_error(...)   log_line(LOG_ERROR_, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING_, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO_, __VA_ARGS__)
#define log_debug(...)                                                                   \
	do {                                                                             \
		if (log_wants(LOG_DEBUG_))                                               \
			log_line(LOG_DEBUG_, __VA_ARGS__);                               \
	} while (0)

/* ---- text ---- */

/* Copies at most size - 1 bytes and always ends with NUL; true when all of it fit. */
bool text_copy(char *to, size_t size, const char *from);
/* Of the count candidates, the one nearest to `name` in edits, or NULL when none is near
 * enough to be a likely slip. */
const char *text_nearest(const char *name, const char *const *candidates, size_t count);

#endif
