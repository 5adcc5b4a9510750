/* The command line. */
#include "main.h"
#include "catalog.h"
#include "config.h"
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int command_check(int argc, char **argv);
static int command_init(int argc, char **argv);
static int command_version(int argc, char **argv);
static int command_help(int argc, char **argv);
static int command_manual(int argc, char **argv);

static const struct {
	const char *name, *usage, *doc;
	int (*run)(int argc, char **argv);
} command_table[] = {
    {"check", "check [--offline] CONFIG.ini",
	"say what is wrong in a configuration, with file and line", command_check},
    {"init", "init", "print a commented configuration to start from", command_init},
    {"key", "key create|list|rotate|revoke",
	"make, list, take back API keys without a running proxy", command_key},
    {"manual", "manual", "print the settings as a manual page section", command_manual},
    {"version", "version", "print the version", command_version},
    {"help", "help", "print this", command_help},
};

static int
command_check(int argc, char **argv)
{
	bool is_offline = argc == 2 && strcmp(argv[0], "--offline") == 0;

	if (argc != 1 + is_offline) {
		fprintf(stderr, "usage: pgweave check [--offline] CONFIG.ini\n");
		return (EXIT_BAD_CONFIG);
	}
	return (topo_check_file(
		    argv[argc - 1], stdout, is_offline ? NULL : catalog_check) == 0
		    ? EXIT_FINE
		    : EXIT_BAD_CONFIG);
}

static int
command_init(int argc, char **argv)
{
	(void)argv;
	if (argc != 0) {
		fprintf(stderr, "usage: pgweave init\n");
		return (EXIT_BAD_CONFIG);
	}
	settings_print_sample(stdout);
	return (EXIT_FINE);
}

static int
command_manual(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	settings_print_manual(stdout);
	return (EXIT_FINE);
}

static int
command_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("%s\nlibevent %s\nadns: evdns2\ntls: %s\n", PACKAGE_STRING,
	    event_get_version(), net_tls_version());
#ifdef HAVE_SYSTEMD
	printf("systemd: yes\n");
#endif
	return (EXIT_FINE);
}

static int
command_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("pgweave: many PostgreSQL databases behind one port\n\n"
	       "  %-34s run; -d in the background, -q without a log on the terminal,\n"
	       "  %-34s -v says more, -u becomes USER, -V prints the version\n",
	    "pgweave [-dqvV] [-u USER] CONFIG.ini", "");
	for (size_t i = 0; i < ARRAY_LEN(command_table); i++)
		printf(
		    "  pgweave %-26s %s\n", command_table[i].usage, command_table[i].doc);
	printf(
	    "\nkey create [OPTION]... CONFIG.ini: --type database|client|server --virtual V\n"
	    "  [--name N] [--user NUMBER] [--databases A,B] [--federate] [--replicate]\n"
	    "  [--operate] [--read-only] [--expires TIME] [--networks LIST] [--rate N/s]\n"
	    "  [--concurrency N] [--roles \"A role, B role\"]\n"
	    "  --print writes no store: it prints a section for the configuration file\n"
	    "key list CONFIG.ini\n"
	    "key rotate [--overlap TIME] CONFIG.ini ID_OR_NAME\n"
	    "key revoke CONFIG.ini ID_OR_NAME\n");
	printf(
	    "\nSignals: HUP reload, INT finish transactions and stop, TERM wait for clients and\n"
	    "stop (twice: now), USR1 pause, USR2 resume. Exit: 0 fine, 1 bad configuration or\n"
	    "usage, 2 could not start.\n");
	return (EXIT_FINE);
}

static int
usage(const char *what)
{
	fprintf(stderr, "pgweave: %s; try: pgweave help\n", what);
	return (EXIT_BAD_CONFIG);
}

int
main(int argc, char **argv)
{
	static const struct option names[] = {
	    {"daemon", no_argument, NULL, 'd'},
	    {"quiet", no_argument, NULL, 'q'},
	    {"verbose", no_argument, NULL, 'v'},
	    {"user", required_argument, NULL, 'u'},
	    {"reboot", no_argument, NULL, 'R'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {NULL, 0, NULL, 0},
	};
	struct options o = {0};
	int c;

	if (argc > 1)
		for (size_t i = 0; i < ARRAY_LEN(command_table); i++)
			if (strcmp(argv[1], command_table[i].name) == 0)
				return (command_table[i].run(argc - 2, argv + 2));
	opterr = 0;
	while ((c = getopt_long(argc, argv, "dqvVhu:R", names, NULL)) != -1)
		switch (c) {
		case 'd':
			o.daemon = true;
			break;
		case 'q':
			o.quiet = true;
			break;
		case 'v':
			o.verbose++;
			break;
		case 'u':
			o.user = optarg;
			break;
		case 'V':
			return (command_version(0, NULL));
		case 'h':
			return (command_help(0, NULL));
		case 'R':
			return (usage(
			    "-R (taking over sockets) is not supported: start a second "
			    "process, then stop the first"));
		default:
			return (usage("unknown option"));
		}
	if (optind != argc - 1)
		return (usage("one configuration file is needed"));
	o.config = argv[optind];
	return (serve(&o));
}
