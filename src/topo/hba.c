/*
 * topo/hba.c: auth_hba_file, in the form of pg_hba.conf: who may come from where, and how. The
 * first line that is for a client decides, and there is no second try.
 *
 *     local    DATABASES USERS               METHOD [map=…]
 *     host     DATABASES USERS ADDRESS       METHOD
 *     hostssl  DATABASES USERS ADDRESS MASK  METHOD [map=… clientcert=… clientname=…]
 *     hostnossl …
 *
 * What needs a server to be known (roles and groups) or a look-up at each login (host names) is
 * refused. samehost and samenet are the addresses of this machine as the file is read.
 */
#include "hba.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

/* A line being read: its fields from `next` on are not looked at yet. */
struct line_draft {
	struct topo *topo;
	struct conf_problems *problems;
	const struct hba_line *line;
	size_t next;
	struct hba_rule rule;
};

/* ---- addresses ---- */

static unsigned
size_of(uint8_t family)
{
	return (family == AF_INET ? 4 : 16);
}

static struct hba_network *
add_network(struct hba_rule *r)
{
	size_t n = r->network_count;

	if ((n & (n - 1)) == 0)
		r->networks =
		    mem_realloc(r->networks, (n == 0 ? 1 : n * 2) * sizeof(*r->networks));
	r->networks[n] = (struct hba_network){0};
	return (&r->networks[r->network_count++]);
}

static void
set_bits(uint8_t mask[16], unsigned bits)
{
	for (unsigned i = 0; i < bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
}

static uint8_t
read_address(const char *text, uint8_t addr[16])
{
	if (inet_pton(AF_INET, text, addr) == 1)
		return (AF_INET);
	return (inet_pton(AF_INET6, text, addr) == 1 ? AF_INET6 : 0);
}

static void
put_interface(struct hba_network *n, uint8_t bytes[16], const struct sockaddr *sa)
{
	n->family = (uint8_t)sa->sa_family;
	if (sa->sa_family == AF_INET)
		memcpy(
		    bytes, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else
		memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr,
		    16);
}

/* The addresses of this machine, or its networks. */
static void
read_interfaces(struct hba_rule *r, bool of_networks)
{
	struct ifaddrs *list, *i;

	if (getifaddrs(&list) != 0)
		return;
	for (i = list; i != NULL; i = i->ifa_next) {
		struct hba_network *n;

		if (i->ifa_addr == NULL || (i->ifa_addr->sa_family != AF_INET &&
					       i->ifa_addr->sa_family != AF_INET6))
			continue;
		n = add_network(r);
		put_interface(n, n->addr, i->ifa_addr);
		if (of_networks && i->ifa_netmask != NULL)
			put_interface(n, n->mask, i->ifa_netmask);
		else
			set_bits(n->mask, 8 * size_of(n->family));
	}
	freeifaddrs(list);
}

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* An IPv4 address in IPv6 form is the IPv4 address, and so are networks of such. */
static void
unmap_network(struct hba_network *n)
{
	uint8_t all[sizeof(mapped)];

	memset(all, 0xff, sizeof(all));
	if (n->family != AF_INET6 || memcmp(n->addr, mapped, sizeof(mapped)) != 0 ||
	    memcmp(n->mask, all, sizeof(all)) != 0)
		return;
	n->family = AF_INET;
	memmove(n->addr, n->addr + sizeof(mapped), 4);
	memmove(n->mask, n->mask + sizeof(mapped), 4);
}

/* The mask that stands alone behind an address. */
static bool
read_mask(struct line_draft *d, struct hba_network *n, const char *address)
{
	const struct hba_word *w;

	if (d->next >= d->line->count) {
		conf_problem(d->problems, d->line->at,
		    "%s: neither /bits nor a mask behind the address", address);
		return (false);
	}
	w = hba_only(d->line, d->next++, "mask", d->problems);
	if (w == NULL)
		return (false);
	if (read_address(w->text, n->mask) == n->family)
		return (true);
	conf_problem(d->problems, d->line->at, "%s: \"%s\" is no mask for that address",
	    address, w->text);
	return (false);
}

static bool
read_network(struct line_draft *d, const char *text)
{
	struct hba_network *n = add_network(&d->rule);
	const char *slash = strchr(text, '/');
	char *address =
	    slash == NULL ? mem_str(text) : mem_strn(text, (size_t)(slash - text));
	char *end;
	unsigned long bits;

	n->family = read_address(address, n->addr);
	free(address);
	if (n->family == 0) {
		conf_problem(d->problems, d->line->at,
		    slash != NULL
			? "\"%s\" is no network"
			: "\"%s\" is no address: host names are not supported, since each login "
			  "would wait for a look-up",
		    text);
		return (false);
	}
	if (slash == NULL) {
		if (!read_mask(d, n, text))
			return (false);
		unmap_network(n);
		return (true);
	}
	bits = strtoul(slash + 1, &end, 10);
	if (slash[1] < '0' || slash[1] > '9' || *end != '\0' ||
	    bits > 8 * size_of(n->family)) {
		conf_problem(d->problems, d->line->at,
		    "\"%s\": what stands behind / is a number of bits, up to %u", text,
		    8 * size_of(n->family));
		return (false);
	}
	set_bits(n->mask, (unsigned)bits);
	unmap_network(n);
	return (true);
}

static bool
read_place(struct line_draft *d)
{
	const struct hba_word *w;

	if (d->rule.type == HBA_LOCAL)
		return (true);
	if (d->next >= d->line->count) {
		conf_problem(d->problems, d->line->at, "the address is missing");
		return (false);
	}
	w = hba_only(d->line, d->next++, "address", d->problems);
	if (w == NULL)
		return (false);
	if (hba_is(w, "all"))
		d->rule.is_any_address = true;
	else if (hba_is(w, "samehost") || hba_is(w, "samenet"))
		read_interfaces(&d->rule, hba_is(w, "samenet"));
	else
		return (read_network(d, w->text));
	return (true);
}

/* ---- methods ---- */

static const struct {
	const char *word;
	enum auth_type method; /* of those with a reason: none */
	const char *why;       /* it is not supported */
} methods[] = {
    {"trust", AUTH_TRUST, NULL},
    {"reject", AUTH_REJECT, NULL},
    {"md5", AUTH_MD5, NULL},
    {"scram-sha-256", AUTH_SCRAM, NULL},
    {"password", AUTH_PLAIN, NULL},
    {"plain", AUTH_PLAIN, NULL},
    {"cert", AUTH_CERT, NULL},
    {"peer", AUTH_PEER, NULL},
    {"ident", AUTH_PEER, NULL},
    {"any", AUTH_REJECT, "it is a word of auth_type alone"},
    {"pam", AUTH_REJECT, "logins through PAM are not part of this version"},
    {"ldap", AUTH_REJECT, "logins through LDAP are not part of this version"},
    {"gss", AUTH_REJECT, "there is no GSSAPI"},
    {"sspi", AUTH_REJECT, "there is no SSPI"},
    {"radius", AUTH_REJECT, "there is no RADIUS"},
    {"bsd", AUTH_REJECT, "there is no BSD authentication"},
    {"oauth", AUTH_REJECT, "there is no OAuth"},
};

static bool
read_method(struct line_draft *d)
{
	struct topo_rule *rule = &d->rule.rule;
	const char *words[ARRAY_LEN(methods)], *near;
	const struct hba_word *w;
	size_t i;

	if (d->next >= d->line->count) {
		conf_problem(d->problems, d->line->at, "the method is missing");
		return (false);
	}
	w = hba_only(d->line, d->next++, "method", d->problems);
	if (w == NULL)
		return (false);
	for (i = 0; i < ARRAY_LEN(methods) && strcmp(methods[i].word, w->text) != 0; i++)
		words[i] = methods[i].word;
	if (i == ARRAY_LEN(methods)) {
		near = text_nearest(w->text, words, ARRAY_LEN(methods));
		conf_problem(d->problems, d->line->at,
		    "there is no method \"%s\", allowed are trust, reject, md5, "
		    "scram-sha-256, password, cert, peer%s%s%s",
		    w->text, near != NULL ? ", did you mean \"" : "",
		    near != NULL ? near : "", near != NULL ? "\"?" : "");
		return (false);
	}
	if (methods[i].why != NULL) {
		conf_problem(d->problems, d->line->at, "method %s is not supported: %s",
		    w->text, methods[i].why);
		return (false);
	}
	rule->method = methods[i].method;
	if (rule->method == AUTH_PEER && d->rule.type != HBA_LOCAL) {
		conf_problem(d->problems, d->line->at,
		    strcmp(w->text, "peer") == 0
			? "method peer is for lines of local"
			: "method ident is supported on lines of local, where it is peer; "
			  "ident servers are not asked");
		return (false);
	}
	if (rule->method == AUTH_CERT && d->rule.type != HBA_HOSTSSL) {
		conf_problem(
		    d->problems, d->line->at, "method cert is for lines of hostssl");
		return (false);
	}
	rule->wants_cert = rule->wants_name = rule->method == AUTH_CERT;
	return (true);
}

/* ---- options ---- */

static bool
read_clientcert(struct line_draft *d, const char *value)
{
	struct topo_rule *rule = &d->rule.rule;

	if (d->rule.type != HBA_HOSTSSL) {
		conf_problem(
		    d->problems, d->line->at, "clientcert is for lines of hostssl");
		return (false);
	}
	if (strcmp(value, "verify-full") == 0)
		rule->wants_name = true;
	else if (strcmp(value, "verify-ca") != 0 || rule->method == AUTH_CERT) {
		conf_problem(d->problems, d->line->at,
		    rule->method == AUTH_CERT
			? "clientcert: with method cert it can only be verify-full"
			: "clientcert: \"%s\" is none of verify-ca, verify-full",
		    value);
		return (false);
	}
	rule->wants_cert = true;
	return (true);
}

static bool
read_option(struct line_draft *d, const char *text)
{
	struct topo_rule *rule = &d->rule.rule;
	const char *equals = strchr(text, '=');

	if (equals == NULL) {
		conf_problem(d->problems, d->line->at,
		    "\"%s\": expected an option, name=value", text);
		return (false);
	}
	if (strncmp(text, "clientcert=", 11) == 0)
		return (read_clientcert(d, equals + 1));
	if (strncmp(text, "map=", 4) == 0) {
		rule->map = equals + 1;
		return (true);
	}
	if (strncmp(text, "clientname=", 11) == 0 && d->rule.type == HBA_HOSTSSL &&
	    (strcmp(equals + 1, "DN") == 0 || strcmp(equals + 1, "CN") == 0)) {
		rule->by_subject = equals[1] == 'D';
		return (true);
	}
	conf_problem(d->problems, d->line->at,
	    "there is no option %s, allowed are map=NAME (of cert, peer and "
	    "clientcert=verify-full), clientcert=verify-ca|verify-full and "
	    "clientname=CN|DN (of hostssl)",
	    text);
	return (false);
}

static bool
read_options(struct line_draft *d)
{
	struct topo_rule *rule = &d->rule.rule;

	for (; d->next < d->line->count; d->next++) {
		const struct hba_field *f = &d->line->fields[d->next];

		for (size_t i = 0; i < f->count; i++)
			if (!read_option(d, f->words[i].text))
				return (false);
	}
	if (rule->map != NULL && rule->method != AUTH_PEER && !rule->wants_name) {
		conf_problem(d->problems, d->line->at,
		    "map is for methods cert and peer, and for clientcert=verify-full");
		return (false);
	}
	return (true);
}

/* ---- lines ---- */

static bool
read_type(struct line_draft *d)
{
	static const char *const types[] = {"local", "host", "hostssl", "hostnossl"};
	const struct settings *s = topo_settings(d->topo);
	const struct hba_word *w =
	    hba_only(d->line, d->next++, "type of the line", d->problems);
	size_t i;

	if (w == NULL)
		return (false);
	for (i = 0; i < ARRAY_LEN(types) && strcmp(types[i], w->text) != 0; i++)
		;
	if (i == ARRAY_LEN(types)) {
		conf_problem(d->problems, d->line->at,
		    strncmp(w->text, "host", 4) == 0 && strstr(w->text, "gss") != NULL
			? "lines of %s are not supported: there is no GSSAPI"
			: "\"%s\" begins no line, allowed are local, host, hostssl, hostnossl",
		    w->text);
		return (false);
	}
	d->rule.type = (int)i == 0   ? HBA_LOCAL
		       : (int)i == 1 ? HBA_HOST
		       : (int)i == 2 ? HBA_HOSTSSL
				     : HBA_HOSTNOSSL;
	if (d->rule.type == HBA_HOSTSSL && s->client_tls_sslmode == SSL_DISABLE)
		conf_warning(d->problems, d->line->at,
		    "hostssl is for nobody while client_tls_sslmode = disable");
	return (true);
}

static bool
read_names(struct line_draft *d, struct hba_names *names, bool of_databases)
{
	if (d->next >= d->line->count) {
		conf_problem(d->problems, d->line->at, "the %s are missing",
		    of_databases ? "databases" : "users");
		return (false);
	}
	return (hba_names_read(
	    names, &d->line->fields[d->next++], of_databases, d->line->at, d->problems));
}

static void
rule_free(struct hba_rule *r)
{
	hba_names_free(&r->databases);
	hba_names_free(&r->users);
	free(r->networks);
}

static void
read_line(struct topo *t, const struct hba_line *line, struct conf_problems *problems)
{
	struct line_draft d = {.topo = t, .problems = problems, .line = line};
	struct hba *hba = t->hba;

	d.rule.rule.at = line->at;
	if (!read_type(&d) || !read_names(&d, &d.rule.databases, true) ||
	    !read_names(&d, &d.rule.users, false) || !read_place(&d) ||
	    !read_method(&d) || !read_options(&d)) {
		rule_free(&d.rule);
		return;
	}
	if ((hba->count & (hba->count - 1)) == 0)
		hba->rules = mem_realloc(hba->rules,
		    (hba->count == 0 ? 1 : hba->count * 2) * sizeof(*hba->rules));
	hba->rules[hba->count++] = d.rule;
}

/* ---- the files ---- */

void
hba_free(struct hba *hba)
{
	if (hba == NULL)
		return;
	for (size_t i = 0; i < hba->count; i++)
		rule_free(&hba->rules[i]);
	free(hba->rules);
	ident_free(&hba->ident);
	free(hba);
}

static void
read_ident(struct topo *t, struct conf_problems *problems)
{
	const char *file = topo_settings(t)->auth_ident_file;

	if (*file != '\0')
		ident_read(t, &t->hba->ident, file,
		    conf_setting_at(t->conf, "auth_ident_file"), problems);
	for (size_t i = 0; i < t->hba->count; i++) {
		const struct topo_rule *r = &t->hba->rules[i].rule;

		if (r->map != NULL && !ident_has_map(&t->hba->ident, r->map))
			conf_warning(problems, r->at,
			    "map \"%s\" has no line in auth_ident_file, so the line lets "
			    "nobody in",
			    r->map);
	}
}

/* A certificate that nobody asked the client for, or that nothing vouches for, proves nothing. */
static void
check_certificates(struct topo *t, struct conf_problems *problems)
{
	const struct settings *s = topo_settings(t);

	if (s->auth_type == AUTH_CERT && s->client_tls_sslmode < SSL_VERIFY_CA)
		conf_problem(problems, conf_setting_at(t->conf, "auth_type"),
		    "auth_type: cert needs client_tls_sslmode = verify-ca or verify-full");
	if (s->auth_type == AUTH_CERT && *s->client_tls_ca_file == '\0')
		conf_problem(problems, conf_setting_at(t->conf, "auth_type"),
		    "auth_type: cert needs client_tls_ca_file");
	for (size_t i = 0; t->hba != NULL && i < t->hba->count; i++) {
		const struct topo_rule *r = &t->hba->rules[i].rule;

		if (r->wants_cert && *s->client_tls_ca_file == '\0') {
			conf_problem(problems, r->at,
			    "certificates of clients need client_tls_ca_file");
			return;
		}
	}
}

void
hba_read(struct topo *t, struct conf_problems *problems)
{
	const struct settings *s = topo_settings(t);
	struct conf_at at = conf_setting_at(t->conf, "auth_hba_file");
	struct hba_lines lines = {0};

	if (s->auth_type == AUTH_HBA && *s->auth_hba_file == '\0') {
		conf_problem(problems, conf_setting_at(t->conf, "auth_type"),
		    "auth_type: hba needs auth_hba_file");
	} else if (s->auth_type == AUTH_HBA) {
		t->hba = mem_alloc(sizeof(*t->hba));
		hba_lines_read(t, s->auth_hba_file, at, problems, &lines);
		for (size_t i = 0; i < lines.count; i++)
			read_line(t, &lines.lines[i], problems);
		hba_lines_free(&lines);
		if (t->hba->count == 0)
			conf_warning(problems, at,
			    "auth_hba_file: has no line, so nobody can log in");
		read_ident(t, problems);
	}
	check_certificates(t, problems);
}

/* ---- looking up ---- */

static bool
network_is_of(const struct hba_network *n, uint8_t family, const uint8_t *addr)
{
	if (n->family != family)
		return (false);
	for (unsigned i = 0; i < size_of(family); i++)
		if (((addr[i] ^ n->addr[i]) & n->mask[i]) != 0)
			return (false);
	return (true);
}

static bool
place_is_of(const struct hba_rule *r, const struct topo_visit *v)
{
	bool is_mapped =
	    v->family == AF_INET6 && memcmp(v->addr, mapped, sizeof(mapped)) == 0;
	uint8_t family = is_mapped ? AF_INET : v->family;
	const uint8_t *addr = is_mapped ? v->addr + sizeof(mapped) : v->addr;

	if (v->family == 0 || r->type == HBA_LOCAL)
		return (v->family == 0 && r->type == HBA_LOCAL);
	if ((r->type == HBA_HOSTSSL && !v->has_tls) ||
	    (r->type == HBA_HOSTNOSSL && v->has_tls))
		return (false);
	if (r->is_any_address)
		return (true);
	for (size_t i = 0; i < r->network_count; i++)
		if (network_is_of(&r->networks[i], family, addr))
			return (true);
	return (false);
}

/* A member is reached by its virtual database's lines, too; the console has two names. */
static bool
databases_have(const struct hba_names *databases, const struct topo_visit *v)
{
	if (v->is_replication)
		return (hba_names_have_replication(databases));
	if (topo_is_console(v->database))
		return (hba_names_have(databases, "pgweave", v->user) ||
			hba_names_have(databases, "pgbouncer", v->user));
	return (hba_names_have(databases, v->database, v->user) ||
		(v->virtual_ != NULL && hba_names_have(databases, v->virtual_, v->user)));
}

const struct topo_rule *
topo_rule_find(const struct topo *t, const struct topo_visit *v)
{
	for (size_t i = 0; t->hba != NULL && i < t->hba->count; i++) {
		const struct hba_rule *r = &t->hba->rules[i];

		if (place_is_of(r, v) && databases_have(&r->databases, v) &&
		    hba_names_have(&r->users, v->user, v->user))
			return (&r->rule);
	}
	return (NULL);
}

bool
topo_name_maps(const struct topo *t, const char *map, const char *name, const char *login)
{
	if (map == NULL)
		return (strcmp(name, login) == 0);
	return (t->hba != NULL && ident_maps(&t->hba->ident, map, name, login));
}
