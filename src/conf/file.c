/* conf/file.c: files named by the configuration, and variables of the environment. */
#include "conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads to the end, or to one byte more than limit. 0, or an errno. */
static int
read_all(int fd, size_t limit, struct buf *b)
{
	for (;;) {
		ssize_t n = read(fd, buf_room(b, 65536), 65536);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return (errno);
		if (n == 0)
			return (0);
		b->len += (uint32_t)n;
		if (b->len > limit)
			return (EFBIG);
	}
}

char *
conf_read_file(
    const char *path, size_t limit, bool any_kind, size_t *len, char *why, size_t why_len)
{
	struct buf b = {0};
	struct stat st;
	int fd, error = 0;

	/* A fifo that nobody writes would block the open. */
	fd = open(path, O_RDONLY | O_CLOEXEC | (any_kind ? 0 : O_NONBLOCK));
	if (fd < 0 || fstat(fd, &st) < 0)
		error = errno;
	else if (!any_kind && !S_ISREG(st.st_mode))
		error = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	else
		error = read_all(fd, limit, &b);
	if (fd >= 0)
		(void)close(fd);
	if (error == 0) {
		*len = b.len;
		buf_add(&b, "", 1);
		return ((char *)b.mem);
	}
	if (b.mem != NULL)
		mem_free_secret(b.mem, b.cap);
	if (error == EFBIG)
		snprintf(why, why_len, "it is larger than %zu bytes", limit);
	else if (error == EINVAL)
		snprintf(why, why_len, "it is not a regular file");
	else
		snprintf(why, why_len, "%s", strerror(error));
	return (NULL);
}

char *
conf_resolve_path(struct conf_at at, const char *path)
{
	const char *slash = at.file != NULL ? strrchr(at.file, '/') : NULL;
	char *beside;

	if (path[0] == '/' || slash == NULL)
		return (mem_str(path));
	beside = mem_printf("%.*s%s", (int)(slash - at.file) + 1, at.file, path);
	if (access(beside, F_OK) == 0)
		return (beside);
	free(beside);
	return (mem_str(path));
}

/* Appends what ${NAME} stands for; p is behind the {. Where the text goes on, or NULL when
 * this is no ${NAME}. */
static const char *
expand_one(const char *p, const char *key, struct conf_at at,
    struct conf_problems *problems, struct buf *out)
{
	size_t len = 0;
	char *name;
	const char *value;

	while (isalnum((unsigned char)p[len]) || p[len] == '_')
		len++;
	if (len == 0 || p[len] != '}' || isdigit((unsigned char)p[0])) {
		conf_problem(problems, at,
		    "%s: ${ must be followed by the name of a variable and }; $${ stands for ${",
		    key);
		return (NULL);
	}
	name = mem_strn(p, len);
	value = getenv(name);
	if (value != NULL)
		buf_addstr(out, value);
	else
		conf_problem(problems, at,
		    "%s: the environment has no variable \"%s\"; $${ stands for ${", key,
		    name);
	free(name);
	return (p + len + 1);
}

char *
conf_expand(
    const char *value, const char *key, struct conf_at at, struct conf_problems *problems)
{
	struct buf out = {0};
	const char *p = value, *end;

	while (*p != '\0') {
		if (strncmp(p, "$${", 3) == 0) {
			buf_addstr(&out, "${");
			p += 3;
		} else if (strncmp(p, "${", 2) == 0) {
			end = expand_one(p + 2, key, at, problems, &out);
			if (end == NULL)
				break;
			p = end;
		} else {
			buf_add(&out, p++, 1);
		}
	}
	buf_add(&out, "", 1);
	return ((char *)out.mem);
}
