/*
 * Who asks, and for which database.
 *
 * A password in clear is checked against what is stored (a verifier costs milliseconds); that
 * it was right is remembered for a minute, as a keyed hash of login, password and what is
 * stored: a new secret makes it void at once. Unknown, wrong, revoked, expired, from a foreign
 * network: the same answer in the same time, and the reason in the log alone.
 */
#include "auth.h"
#include "private.h"
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BELIEF_US       60000000
#define CREDENTIALS_MAX 2048
#define DATABASE_MAX    256

/* ---- credentials ---- */

struct credentials {
	char login[CREDENTIALS_MAX], secret[CREDENTIALS_MAX];
};

/* "Basic base64(login:secret)". */
static bool
read_basic(const char *header, struct credentials *c)
{
	uint8_t plain[CREDENTIALS_MAX + 3];
	size_t len, pad = 0;
	const char *colon;
	int n;

	if (strncasecmp(header, "Basic ", 6) != 0)
		return (false);
	header += 6 + strspn(header + 6, " ");
	len = strlen(header);
	if (len == 0 || len % 4 != 0 || len / 4 * 3 > CREDENTIALS_MAX)
		return (false);
	while (pad < 2 && header[len - 1 - pad] == '=')
		pad++;
	n = EVP_DecodeBlock(plain, (const uint8_t *)header, (int)len);
	if (n < (int)pad)
		return (false);
	plain[(size_t)n - pad] = '\0';
	colon = strchr((const char *)plain, ':');
	if (colon == NULL || strlen((const char *)plain) != (size_t)n - pad)
		return (false);
	memcpy(c->login, plain, (size_t)(colon - (const char *)plain));
	c->login[colon - (const char *)plain] = '\0';
	text_copy(c->secret, sizeof(c->secret), colon + 1);
	OPENSSL_cleanse(plain, sizeof(plain));
	return (true);
}

static bool
read_credentials(const struct job *job, struct credentials *c)
{
	const char *key = job_header(job, "X-API-Key"), *secret;
	const char *authorization = job_header(job, "Authorization");

	if (key != NULL) {
		secret = job_header(job, "X-API-Secret");
		return (text_copy(c->login, sizeof(c->login), key) &&
			text_copy(
			    c->secret, sizeof(c->secret), secret != NULL ? secret : ""));
	}
	return (authorization != NULL && read_basic(authorization, c));
}

/* ---- proof ---- */

static void
digest_of(const struct http *h, const struct credentials *c, const char *stored,
    const char *former, uint8_t out[32])
{
	struct buf all = {0};
	unsigned len = 32;

	buf_add(&all, c->login, strlen(c->login) + 1);
	buf_add(&all, c->secret, strlen(c->secret) + 1);
	buf_add(&all, stored, strlen(stored) + 1);
	/* What the former secret has proved ends with it. */
	if (former != NULL)
		buf_addstr(&all, former);
	INVARIANT(HMAC(EVP_sha256(), h->digest_key, sizeof(h->digest_key), all.mem,
		      all.len, out, &len) != NULL &&
		  len == 32);
	mem_free_secret(all.mem, all.cap);
}

/* NULL: it is right; otherwise what to log. stored NULL: nothing can be right. former: as
 * topo_key_former() has it. */
static const char *
prove(struct http *h, const struct credentials *c, const char *stored, const char *former)
{
	struct auth_server *auth;
	struct buf out = {0};
	uint8_t digest[32];
	struct verified *slot = NULL;
	const char *reason = NULL;
	int fault = 0;
	enum auth_step step;

	if (stored != NULL) {
		digest_of(h, c, stored, former, digest);
		slot =
		    &h->verified[(digest[0] | (unsigned)digest[1] << 8) % HTTP_VERIFIED];
		if (same_secret(slot->digest, digest, sizeof(digest)) &&
		    clock_us() < slot->until_us)
			return (NULL);
	}
	step = auth_server_start(&auth, AUTH_PLAIN, c->login, stored, &out);
	auth_server_also(auth, former);
	if (step != AUTH_SEND)
		reason = auth_server_reason(auth);
	else if (auth_server_feed(auth, (const uint8_t *)c->secret, strlen(c->secret) + 1,
		     &out, &fault) != AUTH_DONE)
		reason = auth_server_reason(auth);
	else if (slot != NULL) {
		memcpy(slot->digest, digest, sizeof(digest));
		slot->until_us = clock_us() + BELIEF_US;
	}
	if (reason != NULL)
		log_debug("H: %s: %s", c->login, reason);
	auth_server_free(auth);
	buf_free(&out);
	return (reason != NULL ? "wrong secret, or no such login" : NULL);
}

static const char *
bars_of(const struct job *job, const struct topo_key *rules)
{
	const struct addr *a = &job->peer;
	uint8_t family = a->family == AF_INET || a->family == AF_INET6 ? a->family : 0;

	return (
	    rules != NULL ? topo_key_bars(rules, family, &a->of, clock_wall_us()) : NULL);
}

static bool
who_prove(struct job *job, const struct credentials *c)
{
	const struct topo_key *key = topo_key_find(job->topo, c->login);
	const struct topo_login *login =
	    key == NULL ? topo_login_find(job->topo, c->login) : NULL;
	const struct topo_key *rules = key != NULL     ? key
				       : login != NULL ? login->rules
						       : NULL;
	const char *stored = key != NULL     ? key->secret
			     : login != NULL ? login->secret
					     : NULL;
	const char *bars = bars_of(job, rules), *reason;
	char peer[ADDR_TEXT];

	reason = prove(job->http, c, bars == NULL ? stored : NULL,
	    key != NULL && bars == NULL ? topo_key_former(key, clock_wall_us()) : NULL);
	if (reason == NULL) {
		job->who.key = key;
		job->who.rules = rules;
		job->who.login = key != NULL ? key->id : login->name;
		return (true);
	}
	addr_text(&job->peer, peer, sizeof(peer));
	log_warning(
	    "H: %s@%s login failed: %s", c->login, peer, bars != NULL ? bars : reason);
	stat_count(M_logins_failed, 1);
	return (false);
}

/* ---- the database ---- */

/* What a name is that a session may ask for. */
static void
who_set_database(struct job *job, const char *name)
{
	struct who *w = &job->who;
	const char *dot = strrchr(name, '.');

	w->database = mem_str(name);
	w->virt = topo_virtual_find(job->topo, name);
	if (w->virt == NULL && dot != NULL) {
		char *before = mem_strn(name, (size_t)(dot - name));
		const struct topo_virtual *virt = topo_virtual_find(job->topo, before);

		if (virt != NULL)
			w->member = topo_member_find(virt, dot + 1);
		if (w->member != NULL)
			w->virt = virt;
		free(before);
	}
	if (w->virt == NULL && !topo_is_console(name))
		w->member = topo_database_find(job->topo, name);
}

/* Without a word, the one database that it can be. */
static const char *
only_database(const struct job *job)
{
	if (job->who.rules != NULL && job->who.rules->virtual_[0] != '\0')
		return (job->who.rules->virtual_);
	if (topo_virtual_count(job->topo) == 1)
		return (topo_virtual(job->topo, 0)->name);
	if (topo_virtual_count(job->topo) == 0 && topo_database_count(job->topo) == 1 &&
	    !topo_database(job->topo, 0)->is_auto)
		return (topo_database(job->topo, 0)->name);
	return (NULL);
}

/* False: the key is for another one, and the job is answered. */
static bool
who_choose(struct job *job)
{
	const struct who *w = &job->who;
	bool is_operator = w->key != NULL && w->key->can_operate;
	const char *said = job_header(job, "X-Database");
	char *argument = said == NULL ? job_argument(job, "database") : NULL;
	const char *name = said != NULL       ? said
			   : argument != NULL ? argument
					      : only_database(job);
	char message[256];

	if (name != NULL && strlen(name) > DATABASE_MAX) {
		job_error(
		    job, 400, "3D000", "the database's name is too long", NULL, NULL);
		free(argument);
		return (false);
	}
	if (name != NULL)
		who_set_database(job, name);
	free(argument);
	if (name == NULL || w->rules == NULL || w->rules->virtual_[0] == '\0' ||
	    (is_operator && topo_is_console(w->database)) ||
	    (w->virt != NULL && strcmp(w->virt->name, w->rules->virtual_) == 0))
		return (true);
	snprintf(message, sizeof(message), "the key is for virtual database \"%s\"",
	    w->rules->virtual_);
	job_error(job, 403, "42501", message, NULL, NULL);
	return (false);
}

/* What auth_type and auth_hba_file say of one who shows a secret in clear, and nothing else; NULL:
 * nothing against it. Without a database, lines for all of them count. */
static const char *
rule_bars(const struct job *job)
{
	const struct addr *a = &job->peer;
	const struct who *w = &job->who;
	struct topo_visit v = {.database = w->database != NULL ? w->database : "",
	    .virtual_ = w->virt != NULL ? w->virt->name : NULL,
	    .user = w->login};
	enum auth_type type = (enum auth_type)topo_settings(job->topo)->auth_type;
	const struct topo_rule *rule;

	if (w->key == NULL && (type == AUTH_CERT || type == AUTH_PEER))
		return ("auth_type asks for what HTTP does not show");
	if (type != AUTH_HBA)
		return (NULL);
	if (a->family == AF_INET || a->family == AF_INET6) {
		v.family = a->family;
		memcpy(v.addr, &a->of,
		    a->family == AF_INET ? sizeof(a->of.v4) : sizeof(a->of.v6));
	}
	rule = topo_rule_find(job->topo, &v);
	if (rule == NULL)
		return ("no line of auth_hba_file is for it");
	if (rule->method == AUTH_REJECT)
		return ("rejected by auth_hba_file");
	return (rule->wants_cert || rule->method == AUTH_PEER
		    ? "auth_hba_file asks for what HTTP does not show"
		    : NULL);
}

bool
who_check(struct job *job)
{
	struct credentials c = {{0}, {0}};
	char *message;
	bool has_any = read_credentials(job, &c),
	     is_proved = has_any && who_prove(job, &c);

	const char *bars = NULL;

	OPENSSL_cleanse(c.secret, sizeof(c.secret));
	if (is_proved && !who_choose(job))
		return (false);
	if (is_proved && (bars = rule_bars(job)) == NULL)
		return (true);
	if (bars != NULL) {
		log_warning("H: %s login failed: %s", c.login, bars);
		stat_count(M_logins_failed, 1);
	}
	if (!has_any)
		job_error(job, 401, "28P01", "credentials are needed", NULL,
		    "send X-API-Key and X-API-Secret, or Authorization: Basic");
	else {
		message =
		    mem_printf("password authentication failed for user \"%s\"", c.login);
		job_error(job, 401, "28P01", message, NULL, NULL);
		free(message);
	}
	return (false);
}

void
who_free(struct who *w)
{
	free(w->database);
	w->database = NULL;
}

bool
who_needs_database(struct job *job)
{
	if (job->who.database != NULL)
		return (true);
	job_error(job, 400, "3D000", "it is not clear which database is meant", NULL,
	    "name it with the header X-Database or with ?database=");
	return (false);
}

/* ---- what may be reached ---- */

static bool
is_member(const struct topo_virtual *virt, const struct topo_database *db)
{
	for (size_t i = 0; i < virt->member_count; i++)
		if (virt->members[i] == db)
			return (true);
	return (false);
}

bool
who_may_reach(const struct who *w, const struct topo_database *db)
{
	if (w->rules == NULL)
		return (true);
	return ((w->virt == NULL || is_member(w->virt, db)) &&
		topo_key_may_reach(w->rules, db->name));
}

char *
who_way_to(const struct job *job, const struct topo_database *db)
{
	const struct topo_virtual *virt = job->who.virt;

	if (virt == NULL || !is_member(virt, db))
		return (mem_str(db->name));
	return (mem_printf("%s.%s", virt->name, db->name));
}

const struct topo_database *
who_named(struct job *job)
{
	const struct topo_database *db = topo_database_find(job->topo, job->part);
	char message[256];

	if (db == NULL || db->is_auto) {
		snprintf(message, sizeof(message), "there is no database \"%.100s\"",
		    job->part);
		job_error(job, 404, "3D000", message, NULL,
		    "GET /database/configured lists them");
		return (NULL);
	}
	if (who_may_reach(&job->who, db))
		return (db);
	snprintf(
	    message, sizeof(message), "the key may not reach database \"%s\"", db->name);
	job_error(job, 403, "42501", message, NULL, NULL);
	return (NULL);
}
