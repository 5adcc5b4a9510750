/* SHOW DNS_HOSTS, DNS_ZONES: what is known of host names. */
#include "private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void
host_row(void *arg, const struct name_view *n)
{
	struct show *show = arg;
	struct buf list = {0};

	for (unsigned i = 0; i < n->found->count; i++) {
		struct addr a;
		char text[ADDR_TEXT];

		addr_from_socket(&a, (const struct sockaddr *)&n->found->at[i].sa, -1);
		addr_text(&a, text, sizeof(text));
		buf_addf(&list, a.family == AF_INET6 ? "%s[%s]:0" : "%s%s:0",
		    i > 0 ? "," : "", text);
	}
	buf_add(&list, "", 1);
	row_text(show, COL_DNS_HOSTS_hostname, n->host);
	row_int(show, COL_DNS_HOSTS_ttl, n->ttl_us / 1000000);
	row_text(show, COL_DNS_HOSTS_addrs, (const char *)list.mem);
	row_end(show);
	buf_free(&list);
}

void
view_dns_hosts_rows(struct show *show)
{
	net_names_each(host_row, show);
}

/* A zone is what stands behind the first dot. */
static void
zone_add(void *arg, const struct name_view *n)
{
	const char *dot = strchr(n->host, '.');

	if (dot != NULL && dot[1] != '\0')
		sum_of(arg, dot + 1, "")->count[SUM_ITEMS]++;
}

void
view_dns_zones_rows(struct show *show)
{
	struct sum **sums;

	net_names_each(zone_add, &show->sums);
	sums = sums_sorted(&show->sums);
	for (unsigned i = 0; i < show->sums.count; i++) {
		row_text(show, COL_DNS_ZONES_zonename, sums[i]->database);
		row_null(show, COL_DNS_ZONES_serial);
		row_int(show, COL_DNS_ZONES_count, (int64_t)sums[i]->count[SUM_ITEMS]);
		row_end(show);
	}
	free(sums);
}

/* ---- for SHOW LISTS ---- */

static void
name_count(void *arg, const struct name_view *n)
{
	(void)n;
	(*(unsigned *)arg)++;
}

unsigned
view_names_count(void)
{
	unsigned count = 0;

	net_names_each(name_count, &count);
	return (count);
}

unsigned
view_zones_count(void)
{
	struct table zones = {0};
	unsigned count;

	net_names_each(zone_add, &zones);
	count = (unsigned)zones.count;
	sums_free(&zones);
	return (count);
}
