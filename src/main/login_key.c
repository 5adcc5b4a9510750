/*
 * The key of which the salts for unknown logins are made: 32 random bytes in the file login.key of
 * state_dir, which every process of that directory reads. Somebody who asks for a login before and
 * after a restart must not tell by its salt whether it exists.
 */
#include "auth.h"
#include "main.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool
key_read(const char *path, uint8_t key[AUTH_KEY])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool is_read = fd >= 0 && read(fd, key, AUTH_KEY) == AUTH_KEY;

	if (fd >= 0)
		close(fd);
	return (is_read);
}

/* Whole or not at all: another process may start at the same time. */
static bool
key_make(const char *path, uint8_t key[AUTH_KEY])
{
	char *draft = mem_printf("%s.%ld", path, (long)getpid());
	int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	bool is_made;

	random_bytes(key, AUTH_KEY);
	is_made = fd >= 0 && write(fd, key, AUTH_KEY) == AUTH_KEY && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	if (is_made && link(draft, path) != 0)
		is_made = errno == EEXIST && key_read(path, key);
	if (fd >= 0)
		(void)unlink(draft);
	free(draft);
	return (is_made);
}

void
login_key_load(const struct settings *set)
{
	uint8_t key[AUTH_KEY];
	char *path;

	if (set->state_dir[0] == '\0')
		return;
	path = mem_printf("%s/login.key", set->state_dir);
	if (key_read(path, key) || key_make(path, key))
		auth_set_key(key);
	explicit_bzero(key, sizeof(key));
	free(path);
}
