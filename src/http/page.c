/* The status page: one table of databases, one of jobs; no scripts, nothing from elsewhere. */
#include "config.h"
#include "private.h"
#include "replicate.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char head[] =
    "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta http-equiv=\"refresh\" content=\"10\"><title>pgweave</title><style>"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:64em;"
    "padding:0 1em;color:#222}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3em .8em .3em 0;border-bottom:1px solid #ddd}"
    ".n{text-align:right}.ok{color:#176b2c}.bad{color:#a11;font-weight:600}"
    ".dim{color:#777}</style></head><body>";

static void
put_text(struct buf *b, const char *s)
{
	for (; *s != '\0'; s++) {
		if (*s == '<')
			buf_addstr(b, "&lt;");
		else if (*s == '&')
			buf_addstr(b, "&amp;");
		else
			buf_add(b, s, 1);
	}
}

static void
put_cell(struct buf *b, const char *class, const char *s)
{
	buf_addf(b, "<td class=\"%s\">", class);
	put_text(b, s);
	buf_addstr(b, "</td>");
}

static void
put_number(struct buf *b, uint64_t n)
{
	buf_addf(b, "<td class=\"n\">%" PRIu64 "</td>", n);
}

/* "1.2 ms"; nothing when it is not known. */
static void
put_ms(struct buf *b, int64_t us)
{
	if (us < 0)
		buf_addstr(b, "<td class=\"n dim\">&ndash;</td>");
	else
		buf_addf(b, "<td class=\"n\">%.1f ms</td>", (double)us / 1000);
}

struct page {
	struct buf *b;
	const struct collection *all;
	unsigned jobs;
};

static void
put_database(void *arg, const struct topo_database *db)
{
	struct page *page = arg;
	struct buf *b = page->b;
	struct topo_verdict *v = db->verdict;
	bool is_up = database_is_up(db);
	uint64_t links = 0, idle = 0, waiting = 0, queries = 0;

	for (size_t i = 0; i < page->all->pool_count; i++) {
		const struct pool_sum *p = &page->all->pools[i];

		if (strcmp(p->database, db->name) != 0)
			continue;
		links += p->links;
		idle += p->idle;
		waiting += p->waiting;
		queries += p->metrics.v[M_query_count];
	}
	buf_addstr(b, "<tr>");
	put_cell(b, "", db->name);
	put_cell(b,
	    is_up               ? "ok"
	    : db->is_configured ? "bad"
				: "dim",
	    database_status(db));
	put_cell(b, "dim",
	    db->replica_of != NULL ? "replica"
	    : db->is_read_only     ? "read only"
				   : "");
	put_ms(b, v != NULL && atomic_load(&v->checked_us) != 0
		      ? atomic_load(&v->response_us)
		      : -1);
	put_number(b, links);
	put_number(b, idle);
	put_number(b, waiting);
	put_number(b, queries);
	buf_addstr(b, "</tr>");
}

static void
put_job(void *arg, const struct replicate_status *st)
{
	struct page *page = arg;
	struct buf *b = page->b;

	if (page->jobs++ == 0)
		buf_addstr(b,
		    "<h2>Replication</h2><table><tr><th>job</th><th>status</th>"
		    "<th>from</th><th>to</th><th class=\"n\">rows</th><th>error</th>"
		    "</tr>");
	buf_addstr(b, "<tr>");
	put_cell(b, "", st->name);
	put_cell(b, st->last_error != NULL ? "bad" : "ok", st->status);
	put_cell(b, "", st->source);
	put_cell(b, "", st->targets);
	put_number(b, st->rows_done > 0 ? (uint64_t)st->rows_done : 0);
	put_cell(b, "bad", st->last_error != NULL ? st->last_error : "");
	buf_addstr(b, "</tr>");
}

void
page_write(struct buf *b, const struct job *job, const struct collection *all)
{
	struct page page = {.b = b, .all = all};
	int64_t up = (clock_wall_us() - job->http->start_wall_us) / 1000000;
	unsigned clients = 0;

	for (unsigned i = 0; i < SESSION_STATES; i++)
		clients += i != SESSION_CLOSED ? all->clients[i] : 0;
	buf_addstr(b, head);
	buf_addf(b,
	    "<h1>pgweave %s</h1><p>Up for %" PRId64 " h %" PRId64
	    " min &middot; %u workers &middot; %u clients</p>"
	    "<h2>Databases</h2><table><tr><th>database</th><th>status</th><th></th>"
	    "<th class=\"n\">response</th><th class=\"n\">connections</th>"
	    "<th class=\"n\">idle</th><th class=\"n\">waiting</th>"
	    "<th class=\"n\">queries</th></tr>",
	    PACKAGE_VERSION, up / 3600, up / 60 % 60, net_worker_count(), clients);
	databases_each(job, put_database, &page);
	buf_addstr(b, "</table>");
	if (job->who.rules == NULL)
		replicate_each(job->http->worker, put_job, &page);
	if (page.jobs > 0)
		buf_addstr(b, "</table>");
	buf_addstr(b, "<p class=\"dim\">More at /health, /metrics and "
		      "/api/database/info.</p></body></html>\n");
}
