"""The program under test: started on a configuration, watched, stopped, and blamed for a
crash, a hang at the end, or a word of a sanitizer.

PGWEAVE names the program; without it, pgweave of the build directory PGWEAVE_BUILD, of the
current directory, or of the source tree. Debian's pgbouncer can stand in for it."""
import glob
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time

from poll import until

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SANITIZER = re.compile(
    rb"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer"
    rb"|runtime error:|INVARIANT|Assertion .* failed)")


def program():
    if os.environ.get("PGWEAVE"):
        return os.path.abspath(os.environ["PGWEAVE"])
    for place in (os.environ.get("PGWEAVE_BUILD"), os.getcwd(), TREE):
        path = os.path.abspath(os.path.join(place, "pgweave")) if place else None
        if path and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise RuntimeError("no pgweave: set PGWEAVE (program) or PGWEAVE_BUILD (build directory)")


def is_standin():
    """True when PgBouncer runs in pgweave's place (what only pgweave can do is skipped)."""
    return "pgbouncer" in os.path.basename(program())


_is_sanitized = None


def is_sanitized():
    """True for a build with a sanitizer: slower, and of looser bounds of memory."""
    global _is_sanitized
    if _is_sanitized is None:
        with open(program(), "rb") as f:
            data = f.read()
        _is_sanitized = b"__asan_init" in data or b"__tsan_init" in data
    return _is_sanitized


_given = {}


def free_port():
    """A port that nobody listens on, below the range the kernel takes for outgoing
    connections, so that none of those can sit on it later. Processes that run tests side by
    side (gw0, gw1, ...) choose from ranges of their own; a name that only one process can have
    keeps other runs away."""
    slot = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 6
    while True:
        port = random.SystemRandom().randrange(20000 + 2000 * slot, 22000 + 2000 * slot)
        if port in _given:
            continue
        name = socket.socket(socket.AF_UNIX)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                name.bind(f"\0pgweave-test-port-{port}")
            except OSError:
                name.close()
                continue
        _given[port] = name
        return port


class Proxy:
    """One running proxy. Its directory holds proxy.ini, users.txt, log, and sanitizer reports."""

    def __init__(self, config, port=None, directory=None, args=(), env=None, wait=True,
                 preexec=None):
        self.dir = directory or tempfile.mkdtemp(prefix="pgweave-test-")
        os.chmod(self.dir, 0o755)
        self.ini = os.path.join(self.dir, "proxy.ini")
        self.log_path = os.path.join(self.dir, "log")
        self.port = port
        self.process = None
        self.expect_exit = 0
        self.write(config)
        try:
            self.start(args, env, wait, preexec)
        except BaseException:
            # nobody else knows of it yet
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            raise

    def write(self, config):
        """The file is replaced whole: a reload that is still under way never reads half of it."""
        with open(self.ini + ".new", "w") as f:
            f.write(config)
        os.chmod(self.ini + ".new", 0o644)
        os.replace(self.ini + ".new", self.ini)

    def command(self, args=()):
        cmd = [program(), *args]
        if is_standin() and os.geteuid() == 0:
            cmd += ["-u", "postgres"]
        return cmd + [self.ini]

    def environment(self, env=None):
        san = f"log_path={self.dir}/san"
        out = dict(os.environ, **(env or {}))
        # A small quarantine: what is freed must not look like what has grown.
        out["ASAN_OPTIONS"] = (f"{san}:exitcode=99:detect_leaks=1:quarantine_size_mb=32:"
                               + os.environ.get("ASAN_OPTIONS", ""))
        out["UBSAN_OPTIONS"] = f"{san}:print_stacktrace=1:" + os.environ.get("UBSAN_OPTIONS", "")
        out["TSAN_OPTIONS"] = f"{san}:exitcode=98:" + os.environ.get("TSAN_OPTIONS", "")
        return out

    def start(self, args=(), env=None, wait=True, preexec=None):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(args), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.dir, env=self.environment(env), preexec_fn=preexec)
        if wait:
            self.wait_listening()

    def wait_listening(self, seconds=10):
        def listens():
            if self.process.poll() is not None:
                return True
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        until(listens, seconds, f"proxy listens on {self.port}")
        if self.process.poll() is not None:
            raise RuntimeError(f"proxy exited at once with {self.process.returncode}:\n" + self.log())

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def log(self, tail=None):
        with open(self.log_path, "rb") as f:
            text = f.read().decode("utf-8", "replace")
        return text if tail is None else "\n".join(text.splitlines()[-tail:])

    def signal(self, number):
        self.process.send_signal(number)

    def reload(self):
        self.signal(signal.SIGHUP)

    def rss_kb(self):
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_exit(self, seconds=10):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"proxy has not exited within {seconds} s") from None

    def reports(self):
        """What the sanitizers, and our own invariants, have said."""
        said = []
        for path in sorted(glob.glob(self.dir + "/san*")):
            with open(path, "rb") as f:
                said.append(f.read().decode("utf-8", "replace"))
        with open(self.log_path, "rb") as f:
            said += [line.decode("utf-8", "replace") for line in f if SANITIZER.search(line)]
        return said

    def stop(self):
        """Ends the proxy; answers what is wrong with the way it ended, or None."""
        wrong = []
        if self.process.poll() is None:
            self.signal(signal.SIGINT)
            if not self._gone(5):
                self.signal(signal.SIGINT)
                if not self._gone(5):
                    wrong.append("did not stop on two SIGINT within 10 s")
                    self.signal(signal.SIGABRT)
                    if not self._gone(5):
                        self.process.kill()
                    self.process.wait()
        code = self.process.returncode
        if code not in (self.expect_exit, 0) and not wrong:
            wrong.append(f"ended with {code}" + (" (signal)" if code < 0 else ""))
        said = self.reports()
        if said:
            wrong.append("sanitizer or invariant:\n" + "\n".join(said)[:8000])
        return "; ".join(wrong) or None

    def _gone(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return True
            time.sleep(0.01)
        return False


def config(databases, port, users=None, sections="", **settings):
    """The text of an ini file. databases: name to connection string. users: name to its line
    in [users]. A setting that is None is left out."""
    given = {"listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "",
             "auth_type": "any", "pool_mode": "transaction", "server_reset_query": "DISCARD ALL"}
    given.update(settings)
    lines = ["[databases]"] + [f"{k} = {v}" for k, v in databases.items()]
    if users:
        lines += ["[users]"] + [f"{k} = {v}" for k, v in users.items()]
    lines += ["[pgbouncer]"] + [f"{k} = {v}" for k, v in given.items() if v is not None]
    return "\n".join(lines) + "\n" + sections + "\n"


def auth_file(path, secrets):
    quote = lambda s: '"' + s.replace('"', '""') + '"'  # noqa: E731
    with open(path, "w") as f:
        f.write("".join(f"{quote(k)} {quote(v)}\n" for k, v in secrets.items()))
    os.chmod(path, 0o644)
    return path
