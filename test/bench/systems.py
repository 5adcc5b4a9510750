"""systems: what is compared: a direct connection, HAProxy, PgBouncer, pgweave.

Each proxy is started anew for each workload, with as many threads as PgBouncer has: one.
Further pgweave columns (pgweave-auto) have more. Settings that are not named here are the
program's own defaults.
"""
import os
import re
import shutil
import signal

from world import SCRAM_PASSWORD, Failure, first_line, scram_verifier

POOL_SIZE = 16
CLIENTS_MAX = 20000


class Direct:
    """No proxy: the yardstick of throughput. It has no CPU of its own to count."""
    name = "direct"
    pid = None

    def __init__(self, world):
        self.world = world
        self.port = world.pg_port

    def version(self):
        return self.world.run([self.world.pg_bindir + "/postgres", "-V"], 10).strip()

    def lacks(self, need):
        return "no proxy" if need in ("proxy", "many clients", "routing") else None

    def start(self, variant):
        pass

    def stop(self):
        pass


class Proxy:
    """What the proxies have in common; a subclass says how it is configured and run."""
    name = program = ""
    stop_signals = (signal.SIGTERM, signal.SIGTERM)

    def __init__(self, world):
        self.world = world
        self.port = world.free_port()
        self.process = None

    @property
    def pid(self):
        if self.process.poll() is not None:
            raise Failure("ended by itself with exit code %d" % self.process.returncode)
        return self.process.pid

    def version(self):
        return first_line(self.world.run([self.program, "--version"], 10, server=True))

    def lacks(self, need):
        return None

    def start(self, variant):
        """variant: plain, tls (towards the client), scram (login); and for pgweave alone
        routed, mux (multiplex = on) and mux-unix (the same through a unix socket)."""
        log = self.world.write(self.name + ".log", "")
        self.process = self.world.start(self.command(variant), log)
        self.world.wait_for_port(self.port, self.process, log)
        scram = variant == "scram"
        self.world.psql(self.port, "SELECT 1", "bench_scram" if scram else "bench", "bench",
                        variant == "tls", SCRAM_PASSWORD if scram else "")

    def stop(self):
        if self.process:
            self.world.stop(self.process, self.stop_signals)
            self.process = None


class HAProxy(Proxy):
    """HAProxy carries bytes and knows no PostgreSQL: a server connection for each client."""
    name = "haproxy"

    def __init__(self, world):
        super().__init__(world)
        self.program = shutil.which("haproxy") or "/usr/sbin/haproxy"

    def version(self):
        return first_line(self.world.run([self.program, "-v"], 10)).split(" - ")[0]

    def lacks(self, need):
        if need == "routing":
            return "does not route"
        return "needs a server connection per client" if need == "many clients" else None

    def command(self, variant):
        # Two descriptors per client; HAProxy refuses to start with more than it can have.
        maxconn = min(CLIENTS_MAX, (self.world.files - 200) // 2)
        cfg = self.world.write("haproxy.cfg", """\
global
    maxconn %d
    nbthread 1
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
frontend in
    bind 127.0.0.1:%d
    default_backend out
backend out
    server pg 127.0.0.1:%d
""" % (maxconn, self.port, self.world.pg_port))
        return [self.program, "-db", "-f", cfg]


class PgBouncer(Proxy):
    name = "pgbouncer"

    def __init__(self, world):
        super().__init__(world)
        self.program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        self.prepared = None

    def lacks(self, need):
        if need == "routing":
            return "does not route"
        if need != "prepared":
            return None
        if self.prepared is None:
            found = re.search(r"(\d+)\.(\d+)", self.version())
            self.prepared = bool(found) and tuple(map(int, found.groups())) >= (1, 21)
        return None if self.prepared else "no prepared statements in transaction mode before 1.21"

    def ini(self, variant):
        """One file for PgBouncer and pgweave: the same words to both."""
        users = '"bench" ""\n"bench_scram" "%s"\n' % scram_verifier(SCRAM_PASSWORD)
        lines = [
            "[databases]",
            # The user is fixed, so that the login of the client alone is what a login costs.
            "bench = host=%s port=%d dbname=bench user=bench%s"
            % (self.server_host(variant), self.world.pg_port, self.of_database(variant)),
            "[pgbouncer]", "listen_addr = 127.0.0.1", "listen_port = %d" % self.port,
            "unix_socket_dir =", "listen_backlog = 4096",
            # Its default differs between versions: prefer would encrypt where others do not.
            "server_tls_sslmode = disable",
            "auth_type = " + ("scram-sha-256" if variant == "scram" else "trust"),
            "auth_file = " + self.world.write(self.name + ".users", users),
            "pool_mode = transaction", "default_pool_size = %d" % POOL_SIZE,
            "max_client_conn = %d" % min(CLIENTS_MAX, self.world.files - 200),
            "log_connections = 0", "log_disconnections = 0", "log_pooler_errors = 0"]
        if variant == "tls":
            lines += ["client_tls_sslmode = require",
                      "client_tls_key_file = " + self.world.path("tls.key"),
                      "client_tls_cert_file = " + self.world.path("tls.crt")]
        return lines

    def server_host(self, variant):
        return "127.0.0.1"

    def of_database(self, variant):
        """Words of its own in the database's line."""
        return ""

    def command(self, variant):
        lines = self.ini(variant)
        if not self.lacks("prepared"):
            lines += ["max_prepared_statements = 200"]
        return [self.program, self.world.write(self.name + ".ini", "\n".join(lines) + "\n")]


class PgWeave(PgBouncer):
    """A copy of the program is run: a build in the meantime does not change what is measured."""

    def __init__(self, world, program, workers):
        super().__init__(world)
        self.name = "pgweave" if str(workers) == "1" else "pgweave-" + str(workers)
        self.workers = workers
        self.source = program
        self.program = world.path("pgweave")

    def copy(self):
        if not os.path.exists(self.program):
            shutil.copy(self.source, self.program)
            os.chmod(self.program, 0o755)

    def version(self):
        self.copy()
        return first_line(self.world.run([self.program, "version"], 10, server=True))

    def lacks(self, need):
        return None

    def server_host(self, variant):
        return self.world.path("data") if variant == "mux-unix" else super().server_host(variant)

    def of_database(self, variant):
        return " multiplex=on" if variant.startswith("mux") else ""

    def command(self, variant):
        self.copy()
        lines = self.ini(variant) + ["workers = " + str(self.workers)]
        if variant == "routed":
            server = " = host=127.0.0.1 port=%d dbname=bench user=bench" % self.world.pg_port
            lines += ["[databases]", "main" + server, "other" + server,
                      "[virtual routed]", "members = main, other", "default = main",
                      "[route routed]", "events, log.* = other"]
        return [self.program, self.world.write(self.name + ".ini", "\n".join(lines) + "\n")]


def build_doubts(program):
    """Reasons not to trust numbers of this build; read from the file itself."""
    with open(program, "rb") as f:
        data = f.read()
    doubts = []
    for mark, name in ((b"__asan_init", "AddressSanitizer"), (b"__tsan_init", "ThreadSanitizer"),
                       (b"__ubsan_handle", "UndefinedBehaviorSanitizer"),
                       (b"__sanitizer_cov", "fuzzing coverage")):
        if mark in data:
            doubts.append("built with %s: its numbers mean nothing" % name)
    flags = re.findall(rb"GNU C\d\d [^\0]{10,400}", data)
    if flags and not any(re.search(rb" -O[23s]\b", f) for f in flags):
        doubts.append("built without -O2: its numbers mean little")
    elif not flags:
        doubts.append("its debug information does not say whether it was built with -O2")
    return doubts
