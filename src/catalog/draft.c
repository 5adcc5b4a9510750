/*
 * A snapshot of one database in the making: rows come in any order; at the end views learn
 * which tables are below them.
 */
#include "private.h"
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)64 * 1024)
#define NODE_BYTES  16 /* what a node of a table takes besides, about */

struct edge {
	uint32_t view, relation;
};

struct catalog_draft {
	struct catalog_db *db;
	size_t bytes_max, used; /* of the first chunk */
	unsigned left_out;
	struct edge *edges;
	size_t edge_count, edge_room;
	struct catalog_relation **views;
	size_t view_room;
};

/* ---- memory ---- */

/* NULL: the bound is reached. */
static void *
draft_alloc(struct catalog_draft *d, size_t size)
{
	size_t room = (size + 15) & ~(size_t)15, head = 16;
	size_t chunk = room > CHUNK_BYTES - head ? room + head : CHUNK_BYTES;
	char *p;

	if (d->db->bytes + room > d->bytes_max)
		return (NULL);
	if (d->db->chunks == NULL || d->used + room > CHUNK_BYTES) {
		struct chunk *c = mem_alloc(chunk);

		c->next = d->db->chunks;
		d->db->chunks = c;
		d->used = head;
	}
	p = (char *)d->db->chunks + d->used;
	d->used += room;
	d->db->bytes += room;
	return (p);
}

static const char *
draft_str(struct catalog_draft *d, const char *s)
{
	size_t size = strlen(s) + 1;
	char *p = draft_alloc(d, size);

	if (p != NULL)
		memcpy(p, s, size);
	return (p);
}

struct catalog_draft *
catalog_draft_create(const char *database, size_t bytes)
{
	struct catalog_draft *d = mem_alloc(sizeof(*d));

	d->db = mem_alloc(sizeof(*d->db));
	atomic_init(&d->db->references, 1);
	d->db->name = mem_str(database);
	d->bytes_max = bytes;
	return (d);
}

/* ---- rows ---- */

void
catalog_draft_path(struct catalog_draft *d, const char *schema)
{
	struct catalog_db *db = d->db;

	if (db->path_count < ARRAY_LEN(db->path) &&
	    (db->path[db->path_count] = draft_str(d, schema)) != NULL)
		db->path_count++;
}

static unsigned
lines_of(const char *text)
{
	unsigned n = text[0] != '\0';

	for (; (text = strchr(text, '\n')) != NULL; text++)
		n++;
	return (n);
}

/* "+id\n-total" */
static bool
draft_columns(struct catalog_draft *d, struct catalog_relation *r, const char *columns)
{
	unsigned count = lines_of(columns);
	struct catalog_column *to = draft_alloc(d, (count > 0 ? count : 1) * sizeof(*to));
	char *text = (char *)(uintptr_t)draft_str(d, columns);

	if (to == NULL || text == NULL)
		return (false);
	for (unsigned i = 0; i < count; i++) {
		char *end = strchr(text, '\n');

		if (end != NULL)
			*end = '\0';
		to[i].is_plain = text[0] == '+';
		to[i].name = text[0] != '\0' ? text + 1 : text;
		text = end != NULL ? end + 1 : text;
	}
	r->columns = to;
	r->column_count = count;
	return (true);
}

static void
draft_view(struct catalog_draft *d, struct catalog_relation *r)
{
	size_t n = d->db->view_count++;

	if (n == d->view_room) {
		d->view_room = n == 0 ? 16 : n * 2;
		d->views = mem_realloc(d->views, d->view_room * sizeof(*d->views));
	}
	d->views[n] = r;
}

void
catalog_draft_relation(struct catalog_draft *d, uint32_t id, const char *schema,
    const char *name, enum catalog_kind kind, bool is_simple, const char *columns)
{
	struct catalog_db *db = d->db;
	struct catalog_relation *r, *first;

	if (db_relation_by_id(db, id) != NULL)
		return;
	r = draft_alloc(d, sizeof(*r));
	if (r != NULL) {
		*r = (struct catalog_relation){.id = id,
		    .schema = draft_str(d, schema),
		    .name = draft_str(d, name),
		    .kind = kind,
		    .is_simple = kind == CATALOG_VIEW && is_simple};
	}
	if (r == NULL || r->schema == NULL || r->name == NULL ||
	    !draft_columns(d, r, columns)) {
		d->left_out++;
		return;
	}
	db->bytes += 2 * (size_t)NODE_BYTES;
	table_add(&db->ids, &r->by_id, db_id_hash(id));
	first = db_first_relation(db, name);
	if (first != NULL) {
		r->next = first->next;
		first->next = r;
	} else
		table_add(&db->relations, &r->node, hash_bytes(name, strlen(name)));
	if (kind == CATALOG_VIEW)
		draft_view(d, r);
}

void
catalog_draft_reads(struct catalog_draft *d, uint32_t view, uint32_t relation)
{
	if (d->edge_count == d->edge_room) {
		d->edge_room = d->edge_room == 0 ? 64 : d->edge_room * 2;
		d->edges = mem_realloc(d->edges, d->edge_room * sizeof(*d->edges));
	}
	d->edges[d->edge_count++] = (struct edge){view, relation};
}

void
catalog_draft_calls_volatile(struct catalog_draft *d, uint32_t view)
{
	struct catalog_relation *r = db_relation_by_id(d->db, view);

	if (r != NULL)
		r->is_volatile = true;
}

void
catalog_draft_function(struct catalog_draft *d, const char *schema, const char *name,
    enum catalog_volatility volatility)
{
	struct function *f = draft_alloc(d, sizeof(*f)), *first;

	if (f != NULL)
		*f = (struct function){.schema = draft_str(d, schema),
		    .name = draft_str(d, name),
		    .volatility = volatility};
	if (f == NULL || f->schema == NULL || f->name == NULL) {
		d->left_out++;
		return;
	}
	d->db->bytes += NODE_BYTES;
	first = db_first_function(d->db, name);
	if (first != NULL) {
		f->next = first->next;
		first->next = f;
	} else
		table_add(&d->db->functions, &f->node, hash_bytes(name, strlen(name)));
}

void
catalog_draft_cut(struct catalog_draft *d)
{
	d->left_out++;
}

unsigned
catalog_draft_left_out(const struct catalog_draft *d)
{
	return (d->left_out);
}

/* ---- views ---- */

static int
edge_order(const void *a, const void *b)
{
	const struct edge *one = a, *two = b;

	return (one->view < two->view ? -1 : one->view > two->view ? 1 : 0);
}

/* The first of the view's edges. */
static size_t
edges_of(const struct catalog_draft *d, uint32_t view)
{
	size_t low = 0, high = d->edge_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (d->edges[middle].view < view)
			low = middle + 1;
		else
			high = middle;
	}
	return (low);
}

/* The tables below a view, as they are gathered. */
struct below {
	const struct catalog_relation *at[CATALOG_READS_MAX];
	unsigned count;
};

static void
below_add(
    struct catalog_relation *view, struct below *b, const struct catalog_relation *t)
{
	for (unsigned i = 0; i < b->count; i++)
		if (b->at[i] == t)
			return;
	if (b->count == CATALOG_READS_MAX)
		view->is_partial = true;
	else
		b->at[b->count++] = t;
}

/* A view is simple when all are down to the table; so are its columns. */
static void
view_simplify(struct catalog_relation *view, const struct catalog_relation *base)
{
	struct catalog_column *columns =
	    (struct catalog_column *)(uintptr_t)view->columns;

	if (base == NULL || view->is_partial ||
	    (base->kind == CATALOG_VIEW && !base->is_simple))
		view->is_simple = false;
	for (unsigned i = 0; i < view->column_count; i++) {
		const struct catalog_column *c =
		    view->is_simple ? catalog_column(base, columns[i].name) : NULL;

		columns[i].is_plain &=
		    c != NULL && (base->kind != CATALOG_VIEW || c->is_plain);
	}
}

static void view_finish(
    struct catalog_draft *, struct catalog_relation *, unsigned depth);

/* Adds what one edge leads to; the relation, or NULL. */
static const struct catalog_relation *
view_follow(struct catalog_draft *d, struct catalog_relation *view, struct below *b,
    uint32_t id, unsigned depth)
{
	struct catalog_relation *r = db_relation_by_id(d->db, id);

	if (r == NULL) {
		view->is_partial = true;
		return (NULL);
	}
	if (r->kind != CATALOG_VIEW) {
		below_add(view, b, r);
		return (r);
	}
	view_finish(d, r, depth + 1);
	view->is_partial |= r->is_partial;
	view->is_volatile |= r->is_volatile;
	for (unsigned i = 0; i < r->read_count; i++)
		below_add(view, b, r->reads[i]);
	return (r);
}

#define DEPTH_MAX 100

static void
view_finish(struct catalog_draft *d, struct catalog_relation *view, unsigned depth)
{
	const struct catalog_relation *base = NULL;
	struct below b = {.count = 0};
	unsigned edges = 0;

	/* Finished, or a ring, which PostgreSQL does not make. */
	if (view->reads != NULL)
		return;
	view->reads = draft_alloc(d, sizeof(*view->reads));
	if (view->reads == NULL || depth > DEPTH_MAX) {
		view->is_partial = true;
		view->is_simple = false;
		return;
	}
	for (size_t i = edges_of(d, view->id);
	     i < d->edge_count && d->edges[i].view == view->id; i++, edges++)
		base = view_follow(d, view, &b, d->edges[i].relation, depth);
	if (b.count > 1)
		view->reads = draft_alloc(d, b.count * sizeof(*view->reads));
	if (view->reads == NULL)
		view->is_partial = true;
	for (unsigned i = 0; view->reads != NULL && i < b.count; i++)
		view->reads[view->read_count++] = b.at[i];
	view_simplify(view, edges == 1 ? base : NULL);
}

struct catalog_db *
catalog_draft_end(struct catalog_draft *d)
{
	struct catalog_db *db = d->db;

	if (d->edge_count > 0)
		qsort(d->edges, d->edge_count, sizeof(*d->edges), edge_order);
	for (unsigned i = 0; i < db->view_count; i++)
		view_finish(d, d->views[i], 0);
	db->is_whole = d->left_out == 0;
	free(d->edges);
	free(d->views);
	free(d);
	return (db);
}
