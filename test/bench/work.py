"""work: the workloads, each measured for one system at a time.

A workload's run() answers {measure: number}. Measures:
  tps        transactions/s         as the client sees it
  cpu        us of proxy CPU per transaction, login or MB
  calls      system calls of the proxy per transaction
  mb         MB/s (10^6 bytes)
  logins     logins/s
  kib        KiB of resident memory per idle client
  ratio      CPU per transaction beside that of the same server without routing
"""
import os
import re
import select
import signal
import subprocess
import time

from world import SCRAM_PASSWORD, Failure, cpu_seconds, first_line, resident_bytes

LOGIN_THREADS = 8
UNITS = {"tps": "transactions/s", "cpu": "us CPU/transaction", "calls": "calls/transaction",
         "mb": "MB/s", "logins": "logins/s", "kib": "KiB/client",
         "ratio": "x routing off"}


def search(pattern, text):
    """What a program must have printed."""
    found = re.search(pattern, text)
    if not found:
        raise Failure("output not understood: " + first_line(text))
    return found


class Workload:
    variant = "plain"     # how the proxies are configured: plain, tls, scram
    needs = ()            # what a system must be able to do
    fresh = False         # a proxy started anew for each round
    cpu_unit = None

    def __init__(self, name, title, goals=None, measures=("tps", "cpu")):
        self.name = name
        self.title = title
        self.goals = goals or {}
        self.measures = measures

    def unit(self, measure):
        if measure == "cpu" and self.cpu_unit:
            return self.cpu_unit
        return UNITS[measure.split("-")[0]]


class Pgbench(Workload):
    """pgbench, for whole seconds; the logins at its start are in the CPU (64 x 0.1 ms)."""

    def __init__(self, name, title, clients, arguments, needs=(), variant="plain", goals=None):
        super().__init__(name, title, goals)
        self.clients = clients
        self.arguments = arguments
        self.needs = needs
        self.variant = variant

    def pgbench(self, world, system, length, database="bench"):
        """Transactions done, and how many a second without the time to connect."""
        argv = [world.pg_bindir + "/pgbench", "-n", "-h", "127.0.0.1", "-p", str(system.port),
                "-U", "bench", "-c", str(self.clients), "-j", "2"] + length
        argv += [a.replace("@select1@", world.path("select1.sql")) for a in self.arguments]
        out = world.run(argv + [database], int(length[1]) + 30,
                        env=world.client_env(self.variant == "tls"))
        count = int(search(r"transactions actually processed: (\d+)", out).group(1))
        tps = float(search(r"tps = ([0-9.]+)", out).group(1))
        failed = re.search(r"number of failed transactions: (\d+)", out)
        if count == 0 or failed and int(failed.group(1)):
            raise Failure("pgbench: transactions failed")
        return count, tps

    def run(self, world, system, seconds):
        if not system.pid:
            return {"tps": self.pgbench(world, system, ["-T", str(seconds)])[1]}
        before = cpu_seconds(system.pid)
        count, tps = self.pgbench(world, system, ["-T", str(seconds)])
        return {"tps": tps, "cpu": (cpu_seconds(system.pid) - before) * 1e6 / count}


class Routing(Pgbench):
    """The same statements by the name of a database and by that of a virtual one, in turns on
    one process: what it costs to look at them."""
    SLICES = 4

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, needs=("routing",), variant="routed", **more)
        self.measures = ("cpu", "ratio")

    def run(self, world, system, seconds):
        spent, done = {}, {}
        turns = ("bench", "routed")
        for n in range(self.SLICES):
            for database in turns[::-1] if n % 2 else turns:
                before = cpu_seconds(system.pid)
                count, _ = self.pgbench(world, system, ["-T", str(max(1, seconds // self.SLICES))],
                                        database)
                spent[database] = spent.get(database, 0) + cpu_seconds(system.pid) - before
                done[database] = done.get(database, 0) + count
        off, on = (spent[d] / done[d] for d in ("bench", "routed"))
        return {"cpu": on * 1e6, "ratio": on / off}


class Calls(Pgbench):
    """System calls per transaction, in a round of their own: being traced costs far more.

    Under strace more clients wait at each turn of the loop, so epoll_wait is shared by more
    of them than in real life. The calls of the logins are measured apart and taken off.
    """

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.needs = ("proxy",)
        self.measures = ("calls",)

    def run(self, world, system, seconds):
        self.pgbench(world, system, ["-t", "1"])
        before, few = self.traced(world, system, ["-t", "1"])
        after, many = self.traced(world, system, ["-T", str(seconds)])
        calls = {name: (n - before.get(name, 0)) / (many - few) for name, n in after.items()}
        if "total" not in calls:
            raise Failure("strace gave no summary")
        each = sorted(((n, name) for name, n in calls.items() if name != "total"), reverse=True)
        detail = ", ".join("%s %.2f" % (name, n) for n, name in each if n >= 0.005)
        return {"calls": calls["total"], "detail": detail}

    def traced(self, world, system, length):
        """Calls by name, and transactions, of one traced pgbench."""
        table = world.path("strace.out")
        tracer = world.start(["strace", "-c", "-f", "-p", str(system.pid), "-o", table],
                             server=False, stdin=subprocess.DEVNULL)
        try:
            self.wait_attached(tracer, system.pid)
            count, _ = self.pgbench(world, system, length)
        finally:
            world.stop(tracer, (signal.SIGINT,), 5.0)
        with open(table) as f:
            found = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d*\s+(\d+)\s+(?:\d+\s+)?(\w+)$",
                               f.read(), re.M)
        return {name: int(n) for n, name in found}, count

    @staticmethod
    def wait_attached(tracer, pid):
        """strace without the right to trace ends at once; else each thread names its tracer."""
        for _ in range(200):
            if tracer.poll() is not None:
                raise Failure("strace: " + (tracer.stderr.readline().strip() or "ended"))
            traced = 0
            tasks = os.listdir("/proc/%d/task" % pid)
            for task in tasks:
                with open("/proc/%d/task/%s/status" % (pid, task)) as f:
                    traced += "TracerPid:\t%d\n" % tracer.pid in f.read()
            if traced == len(tasks):
                return
            time.sleep(0.01)
        raise Failure("strace did not attach")


class Stream(Workload):
    """Bytes on one connection, from or to the server."""
    cpu_unit = "us CPU/MB"

    def __init__(self, name, title, sql, goals=None):
        super().__init__(name, title, goals, ("mb", "cpu"))
        self.sql = sql

    def run(self, world, system, seconds):
        before = cpu_seconds(system.pid) if system.pid else 0
        out = world.run([world.path("stream"), "127.0.0.1", str(system.port), "bench", "bench",
                         str(seconds), self.sql], seconds + 60)
        found = search(r"bytes (\d+) seconds ([0-9.]+)", out)
        mb = int(found.group(1)) / 1e6
        result = {"mb": mb / float(found.group(2))}
        if system.pid:
            result["cpu"] = (cpu_seconds(system.pid) - before) * 1e6 / mb
        return result


class Login(Workload):
    """Connect, log in, say goodbye, over and over, from 8 threads."""
    cpu_unit = "us CPU/login"

    def __init__(self, name, title, variant, goals=None):
        super().__init__(name, title, goals, ("logins", "cpu"))
        self.variant = variant

    def run(self, world, system, seconds):
        user = "bench_scram" if self.variant == "scram" else "bench"
        before = cpu_seconds(system.pid) if system.pid else 0
        out = world.run([world.path("login"), "127.0.0.1", str(system.port), user, "bench",
                         SCRAM_PASSWORD, str(LOGIN_THREADS), str(seconds)], seconds + 30)
        found = search(r"logins (\d+) seconds ([0-9.]+)", out)
        logins = int(found.group(1))
        result = {"logins": logins / float(found.group(2))}
        if system.pid:
            result["cpu"] = (cpu_seconds(system.pid) - before) * 1e6 / logins
        return result


class Idle(Workload):
    """Memory per client that has asked once and is silent now.

    The kernel's buffers of the sockets are not in it; they are the same for every proxy.
    """
    needs = ("proxy", "many clients")
    fresh = True

    def __init__(self, name, title, counts, variant="plain", goals=None):
        super().__init__(name, title, goals, tuple("kib-%d" % n for n in counts))
        self.counts = counts
        self.variant = variant

    def run(self, world, system, seconds):
        result = {}
        before = resident_bytes(system.pid)
        idle = world.start([world.path("idle"), "127.0.0.1", str(system.port), "bench", "bench",
                            "tls" if self.variant == "tls" else "plain"],
                           server=False, stdin=subprocess.PIPE)
        try:
            for count in self.counts:
                if count + 200 > world.files:
                    result["detail"] = "%d clients need more descriptors than %d" % (
                        count, world.files)
                    break
                idle.stdin.write("%d\n" % count)
                idle.stdin.flush()
                self.wait_open(idle, count)
                time.sleep(0.5)
                result["kib-%d" % count] = (resident_bytes(system.pid) - before) / 1024 / count
        finally:
            world.stop(idle)
        return result

    @staticmethod
    def wait_open(idle, count):
        """A login that hangs must not hang the run: the answer is due in a minute."""
        if not select.select([idle.stdout], [], [], 60)[0]:
            raise Failure("idle clients: %d logins took more than a minute" % count)
        answer = idle.stdout.readline()
        if answer != "open %d\n" % count:
            raise Failure("idle clients: " + (idle.stderr.readline().strip() or "lost"))


SELECT1 = ["-f", "@select1@"]
MANY_ROWS = "SELECT repeat('x', 1000) FROM generate_series(1, 200000)"

WORKLOADS = [
    Pgbench("select1-64", "SELECT 1, 64 clients on a pool of 16", 64, SELECT1,
            goals={"cpu": ("pgbouncer", 0.80)}),
    Pgbench("select1-64-mux", "the same with multiplex = on in pgweave", 64, SELECT1,
            variant="mux", goals={"cpu": ("pgbouncer", 0.60)}),
    Pgbench("select1-mux-unix", "and through a unix socket to the server", 64, SELECT1,
            variant="mux-unix", goals={"cpu": ("pgbouncer", 0.60)}),
    Pgbench("select1-16", "SELECT 1, 16 clients on a pool of 16", 16, SELECT1),
    Pgbench("select1-tls", "SELECT 1 over TLS, 64 clients on a pool of 16", 64, SELECT1,
            variant="tls", goals={"cpu": ("pgbouncer", 0.85)}),
    Pgbench("simple-64", "pgbench -S -M simple, 64 clients", 64, ["-S", "-M", "simple"]),
    Pgbench("extended-64", "pgbench -S -M extended, 64 clients", 64, ["-S", "-M", "extended"],
            goals={"tps": ("pgbouncer", 1.3)}),
    Pgbench("prepared-16", "pgbench -S -M prepared, 16 clients", 16, ["-S", "-M", "prepared"],
            needs=("prepared",), goals={"cpu": ("haproxy", 1.06)}),
    Routing("routing-simple", "pgbench -S -M simple on a virtual database, 64 clients", 64,
            ["-S", "-M", "simple"], goals={"ratio": (None, 1.06)}),
    Routing("routing-prep", "pgbench -S -M prepared on a virtual database, 64 clients", 64,
            ["-S", "-M", "prepared"], goals={"ratio": (None, 1.06)}),
    Stream("select-large", "a result of 200 MB, over and over", MANY_ROWS,
           goals={"mb": ("pgbouncer", 1.0)}),
    Stream("copy-out", "COPY TO STDOUT of 200 MB", "COPY (%s) TO STDOUT" % MANY_ROWS,
           goals={"mb": ("pgbouncer", 1.0)}),
    # The server reads the rows and keeps none: no table grows from round to round.
    Stream("copy-in", "COPY FROM STDIN of 256 MB", "COPY sink FROM STDIN WHERE false",
           goals={"mb": ("pgbouncer", 1.0)}),
    Login("login-trust", "logins without a password", "plain", goals={"cpu": ("pgbouncer", 1.0)}),
    Login("login-scram", "logins by SCRAM-SHA-256, verifier in auth_file", "scram",
          goals={"cpu": ("pgbouncer", 1.0)}),
    Calls("calls", "system calls of SELECT 1, 64 clients on a pool of 16", 64, SELECT1),
    Idle("idle", "memory of idle clients", (1000, 10000), goals={"kib-10000": (None, 1.0)}),
    Idle("idle-tls", "memory of idle clients over TLS", (1000,), "tls",
         goals={"kib-1000": (None, 15.0)}),
]


def effort(workload, rounds, seconds):
    """Rounds and their length: memory and calls hardly vary, so they are not repeated often."""
    if workload.fresh:
        return min(rounds, 3), seconds
    if isinstance(workload, Calls):
        return 1, max(2, seconds)
    return rounds, seconds
