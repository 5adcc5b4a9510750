"""world: what a measurement stands on: processes, ports, a throw-away cluster, kernel accounting.

All that is started is remembered with its pid and ended by World.close(), whatever happened.
"""
import base64
import glob
import hashlib
import hmac
import os
import platform
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
WANTED_FILES = 65536
SCRAM_PASSWORD = "correct horse"


class Failure(Exception):
    """A step that did not work; the text is for the user."""


def find_pg_bindir():
    """Where initdb and postgres are: release 15 if it is there, else the newest."""
    dirs = [d for d in glob.glob("/usr/lib/postgresql/*/bin")
            if os.path.exists(d + "/initdb")]
    for d in dirs:
        if d.split("/")[4] == "15":
            return d
    if dirs:
        return max(dirs, key=lambda d: int(re.sub(r"\D", "", d.split("/")[4]) or 0))
    found = shutil.which("initdb")
    return os.path.dirname(os.path.realpath(found)) if found else None


def scram_verifier(password, iterations=4096):
    """What PostgreSQL keeps in pg_authid and PgBouncer in its auth_file."""
    salt = b"pgweave-bench-01"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)

    def key(name):
        return hmac.new(salted, name, hashlib.sha256).digest()

    def b64(data):
        return base64.b64encode(data).decode()
    stored = hashlib.sha256(key(b"Client Key")).digest()
    return "SCRAM-SHA-256$%d:%s$%s:%s" % (iterations, b64(salt), b64(stored),
                                          b64(key(b"Server Key")))


def first_line(text):
    """The first line that says something, for a message."""
    for line in (text or "").splitlines():
        if line.strip():
            return line.strip()
    return "no output"


def cpu_seconds(pid):
    """CPU time of a process, user and system, all its threads, ended ones too.

    The kernel's clock of the process is what utime + stime of /proc/PID/stat are made from,
    in nanoseconds instead of ticks of 10 ms.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        pass
    try:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        raise Failure("the process has ended")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    """Resident memory of a process."""
    try:
        with open("/proc/%d/smaps_rollup" % pid) as f:
            for line in f:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
        with open("/proc/%d/statm" % pid) as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        raise Failure("the process has ended")


def raise_file_limit():
    """Gives us and what we start as many descriptors as may be had; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for want in (max(hard, WANTED_FILES), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (want, want))
            return want
        except (ValueError, OSError):
            continue
    return soft


def machine():
    """What the numbers were taken on."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            cpu = re.search(r"^model name\s*:\s*(.*)$", f.read(), re.M).group(1)
    except (OSError, AttributeError):
        pass
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)),
            "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            "kernel": platform.release(), "load_before": os.getloadavg()[0]}


class World:
    """Temporary directory, processes and ports of one run."""

    def __init__(self, pg_bindir, keep=False):
        self.pg_bindir = pg_bindir
        self.keep = keep
        self.files = raise_file_limit()
        self.processes = []
        self.ports = set()
        self.account = {}
        self.dir = tempfile.mkdtemp(prefix="pgweave-bench-")
        os.chmod(self.dir, 0o755)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.pg_port = self.free_port()
        self.pg = None
        self.starting = self.interrupted = False
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, self.interrupt)

    def interrupt(self, _number, _frame):
        """Ctrl-C while a process is being started would leave it without an owner: it waits."""
        self.interrupted = True
        if not self.starting:
            raise KeyboardInterrupt

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, text):
        """A file that the servers' account can read, and nobody else if it is a key."""
        path = self.path(name)
        with open(path, "w") as f:
            f.write(text)
        self.hand_over(path)
        return path

    def hand_over(self, path):
        if self.account:
            os.chown(path, self.account["user"], self.account["group"])

    def free_port(self):
        """A port of 127.0.0.1 that nobody listens on and that was not given out before."""
        while True:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            if port not in self.ports:
                self.ports.add(port)
                return port

    def start(self, argv, log=None, server=True, **more):
        """Starts a process; a server runs as the account that is not root.

        A session of its own: Ctrl-C at the terminal reaches us alone, and we end it in order.
        """
        more.update(self.account if server else {})
        more.update(cwd=self.dir, start_new_session=True)
        self.starting = True
        try:
            if log:
                with open(log, "a") as out:
                    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                         **more)
            else:
                p = subprocess.Popen(argv, text=True, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, **more)
            self.processes.append(p)
        except OSError as e:
            raise Failure("%s: %s" % (argv[0], e.strerror))
        finally:
            self.starting = False
        if self.interrupted:
            raise KeyboardInterrupt
        return p

    def stop(self, p, signals=(signal.SIGTERM, signal.SIGTERM), wait=2.0):
        """Ends a process: the signals one after the other, then SIGKILL."""
        for sig in tuple(signals) + (signal.SIGKILL,):
            if p.poll() is not None:
                break
            p.send_signal(sig)
            try:
                p.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                pass
        for pipe in (p.stdin, p.stdout, p.stderr):
            if pipe:
                try:
                    pipe.close()
                except OSError:
                    pass
        if p in self.processes:
            self.processes.remove(p)

    def run(self, argv, timeout, server=False, env=None, stdin=subprocess.DEVNULL):
        """Runs a program to its end and returns its output; Failure when it does not work."""
        p = self.start(argv, server=server, stdin=stdin,
                       env=dict(os.environ, **env) if env else None)
        try:
            out, err = p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failure("%s did not end in %d s" % (os.path.basename(argv[0]), timeout))
        finally:
            self.stop(p)
        if p.returncode != 0:
            raise Failure("%s: %s" % (os.path.basename(argv[0]), first_line(err or out)))
        return out

    def wait_for_port(self, port, p, log, seconds=10.0):
        """Until somebody listens there; Failure with the log's last word when it ends instead."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if p.poll() is not None:
                raise Failure("did not start (exit %d): %s" % (p.returncode, log_tail(log)))
            with socket.socket() as s:
                s.settimeout(1.0)
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise Failure("does not listen after %d s: %s" % (seconds, log_tail(log)))

    def client_env(self, tls):
        return {"PGSSLMODE": "require" if tls else "disable", "PGGSSENCMODE": "disable",
                "PGCONNECT_TIMEOUT": "10"}

    def psql(self, port, sql, user="postgres", database="postgres", tls=False, password="",
             timeout=30):
        env = self.client_env(tls)
        env["PGPASSWORD"] = password
        return self.run([self.pg_bindir + "/psql", "-XAtq", "-v", "ON_ERROR_STOP=1",
                         "-h", "127.0.0.1", "-p", str(port), "-U", user, "-d", database,
                         "-c", sql], timeout, env=env)

    def build_clients(self):
        """Compiles the client programs; returns nothing, they lie in the directory."""
        for name in ("idle", "login", "stream"):
            self.run([os.environ.get("CC", "cc"), "-O2", "-std=c17", "-D_GNU_SOURCE",
                      "-pthread", "-o", self.path(name), os.path.join(HERE, name + ".c"),
                      os.path.join(HERE, "peer.c"), "-lssl", "-lcrypto"], 120)

    def make_certificate(self):
        self.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                  "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                  "-keyout", self.path("tls.key"), "-out", self.path("tls.crt")], 30)
        os.chmod(self.path("tls.key"), 0o600)
        self.hand_over(self.path("tls.key"))

    def start_cluster(self, scale):
        """A cluster with durability off: what is measured is the way there, not the disk."""
        data = self.path("data")
        os.mkdir(data, 0o700)
        self.hand_over(data)
        self.run([self.pg_bindir + "/initdb", "-D", data, "-U", "postgres", "-A", "trust",
                  "-N", "--locale=C", "-E", "UTF8"], 60, server=True)
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.pg_port,
            "unix_socket_directories": data, "max_connections": 300, "shared_buffers": "256MB",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
            "wal_level": "minimal", "max_wal_senders": 0, "autovacuum": "off", "jit": "off",
            "checkpoint_timeout": "1h", "max_wal_size": "4GB", "ssl": "on",
            "ssl_cert_file": self.path("tls.crt"), "ssl_key_file": self.path("tls.key")}
        with open(data + "/postgresql.conf", "a") as f:
            for key, value in settings.items():
                f.write("%s = '%s'\n" % (key, value))
        with open(data + "/pg_hba.conf", "w") as f:
            f.write("host all bench_scram 127.0.0.1/32 scram-sha-256\n"
                    "host all all 127.0.0.1/32 trust\nlocal all all trust\n")
        log = self.path("postgresql.log")
        open(log, "w").close()
        self.pg = self.start([self.pg_bindir + "/postgres", "-D", data], log)
        self.wait_for_port(self.pg_port, self.pg, log)
        self.wait_for_sql()
        self.psql(self.pg_port, "CREATE ROLE bench LOGIN")
        self.psql(self.pg_port, "CREATE ROLE bench_scram LOGIN PASSWORD '%s'"
                  % scram_verifier(SCRAM_PASSWORD))
        self.psql(self.pg_port, "CREATE DATABASE bench OWNER bench")
        self.psql(self.pg_port, "CREATE TABLE sink (line text)", "bench", "bench")
        self.run([self.pg_bindir + "/pgbench", "-i", "-q", "-s", str(scale), "-h", "127.0.0.1",
                  "-p", str(self.pg_port), "-U", "bench", "--unlogged-tables", "bench"],
                 300, env=self.client_env(False))
        self.psql(self.pg_port, "SELECT sum(abalance) FROM pgbench_accounts", "bench", "bench")

    def wait_for_sql(self):
        """A postmaster listens before it takes connections."""
        for left in range(100, -1, -1):
            try:
                self.psql(self.pg_port, "SELECT 1", timeout=10)
                return
            except Failure:
                if not left:
                    raise
                time.sleep(0.05)

    def close(self):
        """Ends all that runs and removes the directory. Not to be interrupted: it is bounded."""
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        for p in reversed(list(self.processes)):
            if p is self.pg:
                self.stop(p, (signal.SIGINT, signal.SIGQUIT), 5.0)
            else:
                self.stop(p)
        if self.keep:
            print("kept: " + self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def log_tail(log):
    try:
        with open(log, errors="replace") as f:
            lines = [line.strip() for line in f if line.strip()]
        return lines[-1] if lines else "no output"
    except OSError:
        return "no log"
