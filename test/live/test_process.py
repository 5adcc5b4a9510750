"""The process: command line, exit codes, `check`, reload, signals, daemon, log file, pidfile."""
import os
import re
import signal
import socket
import subprocess
import time

import psycopg
import pytest

import pgproto
from poll import until
from proxy import config, free_port, is_standin, program
from raw import Raw, refusal


@pytest.fixture(autouse=True)
def _standin_has_other_words(request):
    if is_standin() and request.node.get_closest_marker("standin") is None:
        pytest.skip("the words and exit codes are pgweave's own")


def run(*args, **options):
    return subprocess.run([program(), *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=20, **options)


def ini(tmp_path, text):
    path = tmp_path / "p.ini"
    path.write_text(text)
    return str(path)


GOOD = "[databases]\nshop = host=127.0.0.1 port=5432\n[pgbouncer]\nlisten_addr = 127.0.0.1\n" \
       "auth_type = any\nunix_socket_dir =\n"


def good(port=None):
    text = GOOD.replace("port=5432", "port=5432 user=x")
    return text + f"listen_port = {port or free_port()}\n"


# ---- command line and check

def test_version_and_help():
    for args in (["version"], ["-V"]):
        done = run(*args)
        assert done.returncode == 0 and re.search(r"pgweave \d", done.stdout, re.I), args
    for args in (["help"], ["-h"]):
        done = run(*args)
        assert done.returncode == 0 and "check" in done.stdout


@pytest.mark.parametrize("args", [[], ["--no-such-flag"], ["-x"], ["a", "b", "c"]])
def test_wrong_usage(args):
    assert run(*args).returncode == 1


def test_config_file_missing(tmp_path):
    for args in ([str(tmp_path / "none.ini")], ["check", str(tmp_path / "none.ini")]):
        done = run(*args)
        assert done.returncode == 1 and "none.ini" in done.stdout


def test_check_good(tmp_path):
    done = run("check", ini(tmp_path, good()))
    assert done.returncode == 0, done.stdout


BAD = {
    # what to add to a good file: what must be said of it (on its own line, by file:line)
    "pool_moode = transaction": "pool_mode",
    "pool_mode = transactional": "transaction",
    "default_pool_size = many": "default_pool_size",
    "default_pool_size = -3": "default_pool_size",
    "listen_port = 99999": "65535",
    "query_timeout = 3 fortnights": "query_timeout",
    "auth_type = kerberoast": "scram-sha-256",
    "auth_file = /no/such/file": "/no/such/file",
    "client_tls_sslmode = requrie": "require",
    "[databasess]": "databases",
}


@pytest.mark.parametrize("line", list(BAD))
def test_check_and_start_refuse(tmp_path, line):
    """file:line: key: what is wrong, what is allowed, the nearest name; by check and at start."""
    text = good() + line + "\n"
    path = ini(tmp_path, text)
    number = len(text.splitlines())
    for args in (["check", path], [path]):
        done = run(*args)
        assert done.returncode == 1, done.stdout
        assert re.search(rf"p\.ini:{number}:", done.stdout), done.stdout
        assert BAD[line] in done.stdout, done.stdout


def test_check_names_every_mistake(tmp_path):
    text = good() + "pool_moode = session\nmax_client_conn = lots\n[nonsense]\nx = y\n"
    done = run("check", ini(tmp_path, text))
    first = len(good().splitlines())
    assert done.returncode == 1
    for n in (1, 2, 3):
        assert f"p.ini:{first + n}:" in done.stdout, done.stdout


@pytest.mark.parametrize("line", ["shop2 = host=127.0.0.1 prot=5432", "shop2 = host=127.0.0.1 port=x",
                                  "shop2 = host='unterminated", "pgbouncer = host=127.0.0.1",
                                  "shop2 = host=127.0.0.1 pool_mode=sesion"])
def test_check_databases(tmp_path, line):
    text = good().replace("[pgbouncer]", line + "\n[pgbouncer]")
    done = run("check", ini(tmp_path, text))
    assert done.returncode == 1 and re.search(r"p\.ini:3:", done.stdout), done.stdout


def test_missing_password_file(tmp_path):
    text = good() + "[database other]\nhost = 127.0.0.1\npassword_file = /no/such/secret\n"
    done = run("check", ini(tmp_path, text))
    assert done.returncode == 1 and "/no/such/secret" in done.stdout


def test_include_and_environment(tmp_path):
    (tmp_path / "more.ini").write_text("[pgbouncer]\npool_moode = x\n")
    done = run("check", ini(tmp_path, good() + f"%include {tmp_path}/more.ini\n"))
    assert done.returncode == 1 and "more.ini:2:" in done.stdout
    text = good() + "[database other]\nhost = 127.0.0.1\npassword = ${PGWEAVE_TEST_UNSET}\n"
    done = run("check", ini(tmp_path, text))
    assert done.returncode == 1 and "PGWEAVE_TEST_UNSET" in done.stdout
    done = run("check", ini(tmp_path, text), env=dict(os.environ, PGWEAVE_TEST_UNSET="s3cret-value"))
    assert done.returncode == 0 and "s3cret-value" not in done.stdout, done.stdout


def test_port_taken(tmp_path, proxy, pg):
    door = proxy(pg)
    done = run(ini(tmp_path, good(door.port)))
    assert done.returncode == 2, done.stdout
    assert str(door.port) in done.stdout
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_unix_socket_taken(tmp_path, proxy, pg):
    """A second proxy on the same unix socket does not take it away from the first."""
    d = str(tmp_path)
    os.chmod(d, 0o777)
    door = proxy(pg, unix_socket_dir=d)
    port = door.port
    text = good(port).replace("unix_socket_dir =\n", f"unix_socket_dir = {d}\n").replace(
        "listen_addr = 127.0.0.1", "listen_addr = ")
    assert run(ini(tmp_path, text)).returncode == 2
    with psycopg.connect(host=d, port=port, dbname="shop", user="alice") as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_stale_unix_socket(proxy, pg, tmp_path):
    """The file of a proxy that was killed is in nobody's way."""
    d = str(tmp_path)
    os.chmod(d, 0o777)
    door = proxy(pg, unix_socket_dir=d)
    door.process.kill()
    door.process.wait()
    door.proxy.expect_exit = -9
    assert os.path.exists(f"{d}/.s.PGSQL.{door.port}")
    door.proxy.start()
    with psycopg.connect(host=d, port=door.port, dbname="shop", user="alice") as c:
        assert c.execute("select 1").fetchone() == (1,)


# ---- reload

def test_reload_pool_size(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, query_wait_timeout=1)
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop")
        b.login("alice", "shop")
        a.query("begin")
        proxy.rewrite(door, default_pool_size=2, query_wait_timeout=10)
        door.reload()
        until(lambda: [r for r in door.rows("CONFIG") if r["key"] == "default_pool_size"
                       ][0]["value"] == "2", 5, "the new value is shown")
        assert b.query("select 1")[0] == [["1"]]
        assert a.query("commit")[1] is None


def test_reload_adds_and_removes_databases(proxy, pg):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    door = proxy(pg, {"shop": at})
    assert refusal(door.port, "alice", database="more")[0]["C"] == "3D000"
    proxy.rewrite(door, {"shop": at, "more": at})
    door.reload()
    until(lambda: refusal(door.port, "alice", database="more")[0] is None, 5, "more is there")
    proxy.rewrite(door, {"more": at})
    door.reload()
    until(lambda: (refusal(door.port, "alice")[0] or {}).get("C") == "3D000", 5, "shop is gone")


def test_reload_moves_a_database(proxy, pg):
    """Another dbname: links of the old one are closed, new ones made."""
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop"}, pool_mode="transaction")
    with door.connect() as c:
        assert c.execute("select current_database()").fetchone() == ("shop",)
        proxy.rewrite(door, {"shop": f"host=127.0.0.1 port={pg.port} dbname=postgres"})
        door.reload()
        until(lambda: c.execute("select current_database()").fetchone() == ("postgres",), 5,
              "the same client is served by the new database")


def test_reload_auth_file(proxy, pg):
    from proxy import auth_file
    door = proxy(pg, auth_type="scram-sha-256", secrets={"alice": "old"})
    assert refusal(door.port, "alice", password="old")[0] is None
    auth_file(door.dir + "/users.txt", {"alice": "new", "bob": "b"})
    door.reload()
    until(lambda: refusal(door.port, "alice", password="new")[0] is None, 5, "the new password holds")
    assert refusal(door.port, "alice", password="old")[0]["C"] == "28P01"
    assert refusal(door.port, "bob", password="b")[0] is None


@pytest.mark.parametrize("what", ["typo", "missing file", "bad value"])
def test_reload_broken_changes_nothing(proxy, pg, what):
    door = proxy(pg, pool_mode="transaction", default_pool_size=3)
    with door.connect() as c:
        c.execute("select 1")
        if what == "typo":
            proxy.rewrite(door, default_pool_size=9, pool_moode="session")
        elif what == "bad value":
            proxy.rewrite(door, default_pool_size="nine")
        else:
            proxy.rewrite(door, default_pool_size=9, auth_file="/no/such/file")
        door.reload()
        until(lambda: re.search(r"proxy\.ini:\d+:", door.log()), 5, "the log names file and line")
        assert [r for r in door.rows("CONFIG") if r["key"] == "default_pool_size"][0]["value"] == "3"
        assert c.execute("select 2").fetchone() == (2,)
        with door.console() as k, pytest.raises(psycopg.Error):
            k.command("RELOAD")
        # and a good one after it works
        if what == "typo":
            del door.settings[4]["pool_moode"]
        proxy.rewrite(door, default_pool_size=4, auth_file=door.dir + "/users.txt")
        door.reload()
        until(lambda: [r for r in door.rows("CONFIG") if r["key"] == "default_pool_size"
                       ][0]["value"] == "4", 5, "the good one is taken")


def test_reload_under_load(proxy, pg):
    """Reloads in a row while clients work: nobody notices."""
    import threading
    door = proxy(pg, pool_mode="transaction", default_pool_size=3)
    over, wrong, count = threading.Event(), [], [0]

    def work(i):
        with Raw(door.port) as r:
            r.login("alice", "shop")
            while not over.is_set():
                rows, error = r.query(f"select '{i}'")
                if error or rows != [[str(i)]]:
                    wrong.append((rows, error))
                    return
                count[0] += 1
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for n in range(20):
        proxy.rewrite(door, default_pool_size=1 + n % 5)
        door.reload()
        time.sleep(0.05)
    over.set()
    for t in threads:
        t.join(15)
    assert not wrong, wrong[:2]
    assert count[0] > 50


# ---- stopping

def test_sigint_finishes_transactions(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, max_client_conn=9)
    with Raw(door.port) as idle, Raw(door.port) as busy, Raw(door.port) as queued:
        for c in (idle, busy, queued):
            c.login("alice", "shop")
        busy.query("begin")
        queued.send(pgproto.query("select 1"))
        with door.console() as k:
            until(lambda: [r["cl_waiting"] for r in k.rows("SHOW POOLS")
                           if r["database"] == "shop"] == ["1"], 5, "it waits")
        door.signal(signal.SIGINT)
        assert idle.is_closed(5), "a client without a transaction is let go"
        assert [m[1]["M"] for m in queued.until("E") if m[0] == "E"] == ["server shutting down"]
        assert busy.query("select 1")[0] == [["1"]]
        assert door.is_running()
        assert busy.query("commit")[1] is None or True
        assert busy.is_closed(5)
    assert door.wait_exit(5) == 0
    with pytest.raises(OSError):
        Raw(door.port)


def test_sigint_twice_exits_now(proxy, pg):
    door = proxy(pg, pool_mode="transaction")
    with Raw(door.port) as busy:
        busy.login("alice", "shop")
        busy.query("begin")
        door.signal(signal.SIGINT)
        time.sleep(0.2)
        assert door.is_running()
        door.signal(signal.SIGINT)
        assert door.wait_exit(5) in (0, 1)
        door.proxy.expect_exit = door.process.returncode


def test_sigterm_waits_for_clients(proxy, pg):
    door = proxy(pg, pool_mode="transaction")
    with Raw(door.port) as c:
        c.login("alice", "shop")
        door.signal(signal.SIGTERM)

        def refused():
            try:
                return refusal(door.port, "alice")[0] is not None
            except OSError:
                return True
        until(refused, 5, "no new clients")
        for n in range(5):
            assert c.query(f"select {n}")[0] == [[str(n)]]
        assert door.is_running()
    assert door.wait_exit(5) == 0


def test_sigterm_twice_exits_now(proxy, pg):
    door = proxy(pg, pool_mode="transaction")
    with Raw(door.port) as c:
        c.login("alice", "shop")
        door.signal(signal.SIGTERM)
        time.sleep(0.2)
        assert door.is_running()
        door.signal(signal.SIGTERM)
        assert door.wait_exit(5) in (0, 1)
        door.proxy.expect_exit = door.process.returncode


def test_stop_with_a_server_that_hangs(proxy, pg):
    """Stopping does not wait for a login that never ends."""
    import socket
    with socket.create_server(("127.0.0.1", 0)) as silent:
        door = proxy(pg, {"shop": f"host=127.0.0.1 port={silent.getsockname()[1]}"})
        with Raw(door.port) as c:
            c.send(pgproto.startup(dict(user="alice", database="shop")))
            silent.accept()[0].recv(8)
            door.signal(signal.SIGINT)
            assert c.is_closed(5)
        assert door.wait_exit(5) == 0


def test_sigusr_pause_and_resume(proxy, pg):
    door = proxy(pg, pool_mode="transaction")
    with Raw(door.port) as c:
        c.login("alice", "shop")
        assert c.query("select 1")[0] == [["1"]]
        door.signal(signal.SIGUSR1)

        def no_links():
            with pg.connect() as d:
                return d.execute("select count(*) from pg_stat_activity where usename = 'alice' "
                                 "and application_name <> 'pgweave health'"
                                 ).fetchone()[0] == 0
        until(no_links, 5, "all links are closed")
        c.send(pgproto.query("select 'waits'"))
        c.sock.settimeout(0.4)
        with pytest.raises(TimeoutError):
            c.message()
        c.sock.settimeout(10)
        door.signal(signal.SIGUSR2)
        assert [m[1]["1"] for m in c.until("Z") if m[0] == "D"] == ["waits"]


# ---- daemon, log file, pidfile

def test_daemon(pg, tmp_path, proxy):
    os.chmod(tmp_path, 0o755)
    port = free_port()
    pidfile, logfile = tmp_path / "pid", tmp_path / "log"
    text = config({"shop": f"host=127.0.0.1 port={pg.port} user=forced"}, port, pidfile=pidfile,
                  logfile=logfile, admin_users="admin")
    done = run("-d", ini(tmp_path, text))
    assert done.returncode == 0, done.stdout
    pid = int(until(lambda: pidfile.exists() and pidfile.read_text().strip(), 5, "pidfile"))
    try:
        def served():
            return refusal(port, "alice")[0] is None
        until(served, 5, "served")
        os.kill(pid, 0)
        # its parent has let go: no terminal, no inherited output
        assert os.getsid(pid) != os.getsid(0)
        # a second one on the same pidfile or port does not start
        assert run("-d", ini(tmp_path, text)).returncode in (1, 2)
        assert int(pidfile.read_text()) == pid
        assert logfile.stat().st_size > 0
        # log rotation: SIGHUP opens the file again
        os.rename(logfile, str(logfile) + ".1")
        os.kill(pid, signal.SIGHUP)
        until(logfile.exists, 5, "the log file is there again")
    finally:
        os.kill(pid, signal.SIGINT)

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    until(gone, 10, "stopped")
    assert not pidfile.exists()


def test_daemon_reports_a_bad_start(tmp_path, proxy, pg):
    """-d: the exit code is that of the start, not of the fork."""
    door = proxy(pg)
    text = good(door.port) + f"logfile = {tmp_path}/log\npidfile = {tmp_path}/pid\n"
    assert run("-d", ini(tmp_path, text)).returncode == 2
    assert run("-d", ini(tmp_path, text + "pool_moode = x\n")).returncode == 1


def test_quiet_and_log_file(proxy, pg, tmp_path):
    os.chmod(tmp_path, 0o777)
    door = proxy(pg, args=["-q"], logfile=tmp_path / "out.log")
    with door.connect() as c:
        c.execute("select 1")
    until(lambda: (tmp_path / "out.log").stat().st_size > 0, 5, "the log file fills")
    assert door.log() == "", "-q: nothing on stderr"


def test_log_lines(proxy, pg):
    """A login and its end are one line each, with client and database; never a secret."""
    door = proxy(pg, auth_type="scram-sha-256")
    with door.connect() as c:
        c.execute("select 'token-in-statement'")
    refusal(door.port, "alice", password="wr0ng-secret")
    until(lambda: "alice" in door.log() and "28P01" in door.log() or "password" in door.log(), 5, "log")
    log = door.log()
    assert "pw-alice" not in log and "wr0ng-secret" not in log and "token-in-statement" not in log
    lines = [line for line in log.splitlines() if "shop/alice" in line]
    assert lines and all("127.0.0.1" in line for line in lines)


def test_user_switch(proxy, pg):
    """-u USER: started as root, runs as that user."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    import pwd
    want = pwd.getpwnam("postgres").pw_uid
    door = proxy(pg, args=["-u", "postgres"])
    with door.connect() as c:
        c.execute("select 1")
    with open(f"/proc/{door.pid}/status") as f:
        uids = re.search(r"Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", f.read()).groups()
    assert [int(u) for u in uids] == [want] * 4
    assert run("-u", "no-such-user", door.ini).returncode in (1, 2)


def test_long_options(tmp_path):
    """PgBouncer's long names."""
    assert re.search(r"pgweave \d", run("--version").stdout, re.I)
    assert "check" in run("--help").stdout
    done = run("--reboot", ini(tmp_path, good()))
    assert done.returncode == 1 and "not supported" in done.stdout


# ---- sockets

def test_console_stays_while_clients_leave(proxy, pg, tmp_path):
    """SIGTERM closes the port; the unix socket still has the console, and nobody else."""
    door = proxy(pg, pool_mode="transaction", unix_socket_dir=tmp_path)
    with Raw(door.port) as c:
        c.login("alice", "shop")
        door.signal(signal.SIGTERM)

        def shut():
            try:
                psycopg.connect(host=str(tmp_path), port=door.port, dbname="shop", user="alice")
            except psycopg.OperationalError as e:
                return "pooler is shutting down" in str(e)
        until(shut, 5, "no new clients")
        with psycopg.connect(host=str(tmp_path), port=door.port, dbname="pgbouncer", user="admin",
                             autocommit=True) as k:
            assert k.execute("show clients").fetchall()
        assert c.query("select 1")[0] == [["1"]]
    assert door.wait_exit(5) == 0


def test_so_reuseport(proxy, pg):
    """Two processes share a port when both say so."""
    a = proxy(pg, so_reuseport=1, tcp_user_timeout="30s")
    b = proxy(pg, so_reuseport=1, listen_port=a.port, wait=False)
    until(lambda: "process up" in b.log(), 5, "both listen")
    for _ in range(20):
        with psycopg.connect(a.dsn()) as c:
            c.execute("select 1")
    for door in (a, b):
        assert "new connection to server" in door.log()
    assert run(proxy(pg).ini).returncode == 2


def test_abstract_unix_socket(proxy, pg):
    name = f"@pgweave-test-{os.getpid()}"
    door = proxy(pg, unix_socket_dir=name)
    with psycopg.connect(host=name, port=door.port, dbname="shop", user="alice") as c:
        assert c.execute("select 1").fetchone() == (1,)
    second = proxy(pg, {"shop": f"host={name} port={door.port} dbname=shop"})
    with second.connect() as c:
        assert c.execute("select 2").fetchone() == (2,)


ACTIVATED = """
import os, socket, sys
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
if s.fileno() != 3:
    os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_socket_activation(proxy, pg):
    """A socket of the service manager's is listened on, and no other."""
    door = proxy(pg)
    assert door.stop() is None
    port, unused = free_port(), door.port
    door.process = subprocess.Popen(
        ["/usr/bin/python3", "-c", ACTIVATED, str(port), program(), door.ini],
        stdin=subprocess.DEVNULL, stdout=open(door.log_path, "ab"), stderr=subprocess.STDOUT,
        cwd=door.dir, env=door.environment())
    door.proxy.process = door.process
    door.proxy.port = door.port = port
    door.wait_listening()
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)
    with pytest.raises(OSError):
        import socket
        socket.create_connection(("127.0.0.1", unused), 1)


def timer(ours, theirs):
    """The timer of an idle connection as the kernel shows it: 2 is keep-alive, 0 none."""
    with open("/proc/net/tcp") as f:
        for line in f.read().splitlines()[1:]:
            fields = line.split()
            ports = [int(a.split(":")[1], 16) for a in fields[1:3]]
            if ports == [ours, theirs]:
                return int(fields[5].split(":")[0])
    raise LookupError(f"no connection {ours} - {theirs}")


@pytest.mark.parametrize("workers", [1, 2])
def test_keepalive(proxy, pg, workers, only_pgweave):
    """Accepted connections have what the settings say, also after these have changed; whoever
    accepts them."""
    door = proxy(pg, workers=workers)
    for wanted in (2, 0, 2):
        with door.console() as k:
            k.command(f"SET tcp_keepalive = {wanted // 2}")
        with Raw(door.port) as r:
            assert r.login("alice", "shop") is None
            until(lambda: timer(door.port, r.sock.getsockname()[1]) == wanted, 5)


def test_the_service_manager_is_told(proxy, pg, tmp_path):
    """READY, a reload with its time (Type=notify-reload), and the end."""
    if "systemd: yes" not in run("-V").stdout:
        pytest.skip("built without libsystemd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(10)
        door = proxy(pg, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        serving = s.recv(4096).decode().split("\n")
        assert serving[0] == "READY=1"
        assert re.fullmatch(r"STATUS=Serving \d+ databases with 2 workers\.", serving[1])
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        door.reload()
        said = s.recv(4096).decode().split("\n")
        assert said[0] == "RELOADING=1" and said[1].startswith("MONOTONIC_USEC=")
        assert began <= int(said[1].split("=")[1]) <= began + 20_000_000
        assert s.recv(4096).decode().split("\n") == serving
        with open(door.ini, "a") as f:
            f.write("\nno_such_setting = 1\n")
        door.signal(signal.SIGHUP)
        assert s.recv(4096).startswith(b"RELOADING=1")
        assert s.recv(4096).decode() == "\n".join(serving) + " The last reload failed, see the log."
        door.signal(signal.SIGTERM)
        assert s.recv(4096) == (b"STOPPING=1\nSTATUS=Shutting down: waiting for clients to leave; "
                                b"clients: 0.")
        door.wait_exit()


def test_version_is_that_of_the_console(proxy, pg):
    """As with PgBouncer: the first line of --version, and of SHOW VERSION."""
    door = proxy(pg)
    first = run("--version").stdout.split("\n")[0]
    assert door.rows("VERSION") == [{"version": first}]
    assert f"process up: {first}, " in door.log()
