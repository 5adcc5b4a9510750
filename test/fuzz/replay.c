/*
 * Runs a harness over files: those named on the command line, or every file of its corpus,
 * $srcdir/test/fuzz/corpus/NAME for a program called fuzz_NAME_replay.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

/* Runs one file, in memory that ends where the file ends. */
static void
replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data;
	size_t size;

	if (f == NULL || fstat(fileno(f), &st) != 0) {
		perror(path);
		exit(1);
	}
	size = (size_t)st.st_size;
	data = malloc(size);
	if (fread(data, 1, size, f) != size) {
		perror(path);
		exit(1);
	}
	fclose(f);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

/* Runs every file of a folder; how many there were. */
static int
replay_folder(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	int count = 0;

	if (dir == NULL) {
		perror(folder);
		exit(1);
	}
	while ((entry = readdir(dir)) != NULL) {
		char *path;

		if (entry->d_name[0] == '.')
			continue;
		path = mem_printf("%s/%s", folder, entry->d_name);
		replay_file(path);
		free(path);
		count++;
	}
	closedir(dir);
	return (count);
}

int
main(int argc, char **argv)
{
	const char *srcdir = getenv("srcdir"), *slash = strrchr(argv[0], '/');
	char name[64], *folder, *end;
	int count;

	if (argc > 1) {
		for (int i = 1; i < argc; i++)
			replay_file(argv[i]);
		return (0);
	}
	text_copy(name, sizeof(name), slash == NULL ? argv[0] : slash + 1);
	end = strstr(name, "_replay");
	if (strncmp(name, "fuzz_", 5) != 0 || end == NULL) {
		fprintf(stderr, "%s: not called fuzz_NAME_replay\n", argv[0]);
		return (1);
	}
	*end = '\0';
	folder =
	    mem_printf("%s/test/fuzz/corpus/%s", srcdir == NULL ? "." : srcdir, name + 5);
	count = replay_folder(folder);
	printf("%d files of %s\n", count, folder);
	free(folder);
	return (count > 0 ? 0 : 1);
}
