/*
 * auth_hba_file, and behind a NUL auth_ident_file. Whatever the bytes are, there are rules
 * exactly when there is no problem, and looking them up comes to an end.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "fuzz.h"
#include "topo.h"

static void
look_up(const struct topo *t)
{
	static const char *const names[] = {"a", "all", "alice", "pgweave", "x@y"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		for (unsigned kind = 0; kind < 6; kind++) {
			struct topo_visit v = {.database = names[i],
			    .user = names[ARRAY_LEN(names) - 1 - i],
			    .family = kind / 2 == 0   ? 0
				      : kind / 2 == 1 ? AF_INET
						      : AF_INET6,
			    .addr = {127, 0, 0, 1},
			    .has_tls = kind % 2 == 1,
			    .is_replication = i == 0};
			const struct topo_rule *r = topo_rule_find(t, &v);

			INVARIANT(r == NULL ||
				  (r->method != AUTH_HBA && r->method != AUTH_ANY &&
				      (!r->wants_name || r->wants_cert)));
			INVARIANT(r == NULL || r->method != AUTH_CERT || v.has_tls);
			(void)topo_name_maps(t, "m", names[i], v.user);
		}
}

/* A file in memory. The caller closes it. */
static FILE *
file_of(const uint8_t *data, size_t size, char path[64])
{
	int fd = memfd_create("fuzz", 0);
	FILE *f = fdopen(fd, "w");

	INVARIANT(f != NULL && fwrite(data, 1, size, f) == size && fflush(f) == 0);
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return (f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nul = size == 0 ? NULL : memchr(data, '\0', size);
	size_t first = nul == NULL ? size : (size_t)(nul - data);
	struct conf_problems problems = {0};
	char hba[64], ident[64], *text;
	struct topo *t;
	FILE *files[2];

	/* What an expression with counts costs is the library's; nor are other files read. */
	if (size > 0 &&
	    (memchr(data, '{', size) != NULL || memchr(data, '@', size) != NULL ||
		memmem(data, size, "include", 7) != NULL))
		return (0);
	files[0] = file_of(data, first, hba);
	files[1] = nul == NULL ? file_of(data, 0, ident)
			       : file_of(nul + 1, size - first - 1, ident);
	text = mem_printf("[pgweave]\nauth_type = hba\nauth_hba_file = %s\n"
			  "auth_ident_file = %s\nclient_tls_ca_file = x\n",
	    hba, ident);
	t = topo_build(conf_load_text("f.ini", text, strlen(text), &problems), &problems);
	INVARIANT((t == NULL) == (problems.count > 0));
	if (t != NULL)
		look_up(t);
	topo_release(t);
	conf_problems_free(&problems);
	free(text);
	fclose(files[0]);
	fclose(files[1]);
	return (0);
}
