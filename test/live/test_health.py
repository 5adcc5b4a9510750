"""Health: databases that die, return, hang, refuse and fall behind, as SHOW HEALTH tells it."""
import datetime
import os
import re
import signal
import socket
import tempfile
import threading
import time

import psycopg
import pytest

import cluster as cluster_module
import fetch
from poll import until
from proxy import free_port, is_sanitized

pytestmark = pytest.mark.usefixtures("only_pgweave")

SLOW = 3 if is_sanitized() else 1
QUICK = dict(health_interval="200ms", health_timeout="1s")


def database(name, port, user="alice", **more):
    """A [database] section."""
    given = dict(host="127.0.0.1", port=port, dbname="shop", user=user, **more)
    lines = [f"{k} = {v}" for k, v in given.items() if v is not None]
    return f"[database {name}]\n" + "\n".join(lines) + "\n"


def health(door, name="shop"):
    return next(r for r in door.rows("HEALTH") if r["database"] == name)


def when(door, status, name="shop", seconds=5.0, reason=None):
    """The row once the database has that status."""
    def found():
        row = health(door, name)
        return row if row["status"] == status and (
            reason is None or re.search(reason, row["reason"] or "")) else None
    return until(found, seconds * SLOW, f"{name} is {status}")


@pytest.fixture
def watched(proxy, own_pg):
    """A proxy that watches a cluster of the test's own."""
    def make(user="alice", databases=(), **settings):
        given = dict(QUICK, **settings)
        return proxy(own_pg, databases={}, sections=database("shop", own_pg.port, user)
                     + "".join(databases), **given)
    return make


def test_what_a_healthy_database_shows(watched, own_pg):
    door = watched()
    row = when(door, "healthy")
    assert row["role"] == "primary"
    assert row["version"] == own_pg.connect().execute("show server_version").fetchone()[0].split()[0]
    assert int(row["age_ms"]) < 2000 * SLOW
    assert 0 < float(row["response_time_ms"]) < 1000 * SLOW
    assert row["lag_ms"] is None and row["lag_bytes"] is None and row["reason"] is None
    for column in ("last_checked", "since"):
        at = datetime.datetime.fromisoformat(row[column] + ":00")
        assert abs(datetime.datetime.now(datetime.timezone.utc) - at).total_seconds() < 10
    with own_pg.connect() as c:
        names = [r[0] for r in c.execute(
            "select application_name from pg_stat_activity where usename = 'alice'")]
        assert names == ["pgweave health"], "one connection, kept between probes"
        until(lambda: int(health(door)["connection_count"])
              == c.execute("select sum(numbackends) from pg_stat_database").fetchone()[0], 5)
    # It goes on.
    first = health(door)["last_checked"]
    until(lambda: health(door)["last_checked"] > first, 5)


def test_a_killed_server_is_down_and_comes_back(watched, own_pg):
    door = watched()
    when(door, "healthy")
    own_pg.kill()
    row = when(door, "down", seconds=3, reason="refused")
    # Three failures, a few hundred milliseconds apart; not one.
    assert "health: shop is down: connection refused (" in door.log()
    assert int(re.search(r"shop is down: .*\((\d+) failures\)", door.log()).group(1)) >= 3
    assert row["lag_ms"] is None
    since = row["since"]
    time.sleep(0.5)
    assert health(door)["since"] == since, "still the same time of being down"
    own_pg.restart()
    row = when(door, "healthy", seconds=5)
    assert row["reason"] is None
    changes = re.findall(r"health: shop is (healthy|down|half-open)", door.log())
    assert changes == ["healthy", "down", "half-open", "healthy"]


def test_failures_of_clients_make_it_look_at_once(watched, own_pg):
    """With half a minute between probes, a dead server is known within seconds."""
    door = watched(health_interval="30s", query_wait_timeout=2)
    when(door, "healthy")
    with door.connect() as c:
        c.execute("select 1")
    own_pg.kill()
    try:
        with door.connect() as c:
            c.execute("select 1")
    except psycopg.Error:
        pass
    when(door, "down", seconds=3)
    own_pg.restart()
    # While it is down it is asked every second.
    when(door, "healthy", seconds=5)


@pytest.mark.parametrize("interval", ["200ms", "30s"])
def test_what_health_finds_ends_the_wait_after_a_failed_login(watched, own_pg, interval):
    """server_login_retry is for servers of which nothing better is known."""
    door = watched(health_interval=interval, server_login_retry="1h")
    when(door, "healthy")
    own_pg.kill()
    with pytest.raises(psycopg.OperationalError, match="server_login_retry|refused"):
        door.connect()
    with pytest.raises(psycopg.OperationalError, match="server_login_retry"):
        door.connect()
    when(door, "down", seconds=3)
    own_pg.restart()
    when(door, "healthy", seconds=5)
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_a_login_that_the_server_refuses_waits_although_the_server_is_well(proxy, own_pg):
    door = proxy(own_pg, databases={"shop": f"host=127.0.0.1 port={own_pg.port} dbname=nowhere"},
                 server_login_retry="1h", **QUICK)
    when(door, "healthy")
    for _ in range(3):
        with pytest.raises(psycopg.OperationalError):
            door.connect()
        first = health(door)["last_checked"]
        until(lambda: health(door)["last_checked"] > first, 5)
    assert door.log().count("server login failed") == 1, "not asked again"


def test_without_any_client_a_lost_connection_is_a_sign(watched, own_pg):
    door = watched(health_interval="30s")
    when(door, "healthy")
    own_pg.halt(signal.SIGQUIT)
    when(door, "down", seconds=3)


def test_a_server_that_hangs_times_out(watched, own_pg):
    door = watched(health_timeout="300ms", health_fall=2)
    when(door, "healthy")
    pids = [own_pg.process.pid] + [
        r[0] for r in own_pg.connect().execute("select pid from pg_stat_activity")]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            pass
    try:
        when(door, "down", seconds=4, reason="timeout")
    finally:
        for pid in reversed(pids):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
    when(door, "healthy", seconds=5)


def test_a_wrong_password_is_the_reason(proxy, own_pg):
    sections = database("good", own_pg.port, "scram_user", password="pw-scram_user") \
        + database("bad", own_pg.port, "scram_user", password="S3cr3t-wrong")
    door = proxy(own_pg, databases={}, sections=sections, **QUICK)
    row = when(door, "down", "bad")
    assert row["reason"] == 'password authentication failed for user "scram_user"'
    assert health(door, "good")["status"] == "healthy"
    assert "S3cr3t" not in door.log()


def test_a_role_with_a_verifier_only_is_probed_without_login(proxy, own_pg):
    """Links log in with what the client proves; probes cannot, and are content with a knock."""
    verifier = own_pg.connect().execute(
        "select rolpassword from pg_authid where rolname = 'md5_user'").fetchone()[0]
    door = proxy(own_pg, databases={}, secrets={"md5_user": verifier, "admin": "pw-admin"},
                 sections=database("shop", own_pg.port, "md5_user"), **QUICK)
    row = when(door, "healthy")
    assert row["role"] is None and row["version"] is None


def test_plain_pgbouncer_databases_are_watched_too(proxy, own_pg):
    """No role to log in with: an answer of any kind will do."""
    door = proxy(own_pg, databases={"shop": f"host=127.0.0.1 port={own_pg.port} dbname=shop",
                                    "unix": f"host={own_pg.socket_dir} port={own_pg.port} dbname=shop",
                                    "gone": f"host=127.0.0.1 port={free_port()}"}, **QUICK)
    for name in ("shop", "unix"):
        row = when(door, "healthy", name)
        assert row["role"] is None and float(row["response_time_ms"]) > 0
    assert re.search("refused", when(door, "down", "gone")["reason"])
    before = own_pg.log()
    first = health(door)["last_checked"]
    until(lambda: health(door)["last_checked"] > first, 5)
    # Such probes leave no word in the server's log.
    assert own_pg.log() == before
    own_pg.kill()
    when(door, "down", seconds=3)
    own_pg.restart()
    when(door, "healthy", seconds=5)


class Answers:
    """A server that gives the same answer to whoever connects."""

    def __init__(self, answer):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(16)
        self.port, self.answer, self.seen = self.sock.getsockname()[1], answer, []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                peer = self.sock.accept()[0]
            except OSError:
                return
            with peer:
                try:
                    self.seen.append(peer.recv(1000))
                    peer.sendall(self.answer)
                    peer.recv(1000)
                except OSError:
                    pass


def error(state, text):
    body = b"SFATAL\0C" + state + b"\0M" + text + b"\0\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


@pytest.mark.parametrize("answer,status,reason", [
    (error(b"28000", b"no entry for you"), "healthy", None),
    (error(b"3D000", b"no such database"), "healthy", None),
    (b"R\0\0\0\x0c\0\0\0\x05abcd", "healthy", None),
    (error(b"57P03", b"the database system is starting up"), "down", "starting up"),
    (error(b"53300", b"too many clients already"), "down", "too many"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "down", "does not speak"),
    (b"R\0\0\0\x03", "down", "does not speak"),
    (b"", "down", "closed the connection|timeout"),
])
def test_answers_to_a_knock(proxy, pg, answer, status, reason):
    server = Answers(answer)
    door = proxy(pg, databases={"shop": f"host=127.0.0.1 port={server.port}"},
                 health_interval="100ms", health_timeout="300ms")
    row = when(door, status, reason=reason)
    assert b"user\0postgres\0database\0shop\0" in server.seen[0]
    assert reason is not None or row["reason"] is None
    server.sock.close()


def test_several_hosts(proxy, own_pg):
    """One that answers is enough."""
    closed = free_port()
    door = proxy(own_pg, databases={
        "knock": f"host=127.0.0.1,127.0.0.1 port={closed},{own_pg.port} dbname=shop",
        "login": f"host=127.0.0.1,127.0.0.1 port={closed},{own_pg.port} dbname=shop user=alice",
        "named": f"host=localhost port={own_pg.port} dbname=shop user=alice",
        "lost": f"host=no.such.host.invalid port={own_pg.port} dbname=shop user=alice",
    }, **QUICK)
    for name in ("knock", "login", "named"):
        when(door, "healthy", name)
    assert "no.such.host.invalid" in when(door, "down", "lost", seconds=12)["reason"]


def test_tls_to_the_server(proxy, pg, certs):
    door = proxy(pg, databases={"shop": f"host=127.0.0.1 port={pg.port} dbname=tls_only user=alice"},
                 server_tls_sslmode="verify-full", server_tls_ca_file=os.path.join(certs, "ca.crt"),
                 **QUICK)
    when(door, "healthy")
    door = proxy(pg, databases={"shop": f"host=127.0.0.1 port={pg.port} dbname=tls_only user=alice"},
                 server_tls_sslmode="verify-ca",
                 server_tls_ca_file=os.path.join(certs, "other-ca.crt"), **QUICK)
    assert "certificate" in when(door, "down")["reason"]


def test_not_configured(proxy, own_pg):
    sections = database("primary", own_pg.port) + "[database second]\nfallback = primary\n"
    door = proxy(own_pg, databases={}, sections=sections, **QUICK)
    when(door, "healthy", "primary")
    row = health(door, "second")
    assert row["status"] == "unknown" and row["last_checked"] is None
    assert row["reason"] == "not configured, statements go to primary"
    # Also those of a client that names it.
    with door.connect("second") as c:
        assert c.execute("select current_user, current_database()").fetchone() == ("alice", "shop")
        # Once it has a host it is that one's, for those who are connected too.
        pids = c.execute("select pg_backend_pid(), inet_server_port()").fetchone()
        before = door.log().count("configuration was read again")
        with open(door.ini) as f:
            text = f.read()
        door.write(text.replace("fallback = primary", "fallback = primary\nhost = 127.0.0.1\n"
                                f"port = {own_pg.port}\ndbname = postgres\nuser = alice"))
        door.reload()
        until(lambda: door.log().count("configuration was read again") > before, 5)
        until(lambda: c.execute("select current_database()").fetchone() == ("postgres",), 5)
        assert c.execute("select pg_backend_pid(), inet_server_port()").fetchone() != pids


def test_reload_adds_drops_and_changes(proxy, own_pg):
    door = proxy(own_pg, databases={"one": f"host=127.0.0.1 port={own_pg.port} dbname=shop user=alice"},
                 health_interval="30s")
    when(door, "healthy", "one")
    log = door.log()
    # The same database stays as it is, a new one is probed, with a new interval.
    doors_config = door.settings[0]
    two = dict(doors_config, two=f"host=127.0.0.1 port={free_port()} dbname=shop user=alice")
    rewrite(door, two)
    when(door, "down", "two")
    assert health(door, "one")["status"] == "healthy"
    assert door.log().count("health: one is") == log.count("health: one is")
    # Other host: what was known is not true of it.
    moved = dict(two, two=doors_config["one"])
    rewrite(door, moved)
    when(door, "healthy", "two")
    assert "two is half-open" not in door.log()
    rewrite(door, doors_config)
    until(lambda: [r["database"] for r in door.rows("HEALTH")] == ["one"], 5)
    # SET makes a new snapshot too.
    with door.console() as c:
        c.command("SET health_interval = '150ms'")
    first = health(door, "one")["last_checked"]
    until(lambda: health(door, "one")["last_checked"] > first, 5)


def rewrite(door, databases):
    from proxy import config
    _, port, users, sections, given = door.settings
    door.write(config(databases, port, users, sections, **given))
    before = door.log().count("configuration was read again")
    door.reload()
    until(lambda: door.log().count("configuration was read again") > before, 5)


# ---- replicas ----

class Pair:
    """A primary, and a streaming replica made from it."""

    def __init__(self):
        self.primary = cluster_module.Cluster("15")
        self.primary.halt()
        with open(os.path.join(self.primary.data, "postgresql.conf"), "a") as f:
            f.write("\nwal_level = replica\nmax_wal_senders = 4\nhot_standby = on\n"
                    "wal_keep_size = '64MB'\n")
        with open(os.path.join(self.primary.data, "pg_hba.conf"), "a") as f:
            f.write("\nlocal replication all trust\n")
        self.primary.start()
        base = tempfile.mkdtemp(prefix="pgweave-cluster-")
        os.chmod(base, 0o755)
        cluster_module._give(base)
        cluster_module._run([fetch.binary("15", "pg_basebackup"), "-h", self.primary.base, "-p",
                             str(self.primary.port), "-U", "postgres", "-D",
                             os.path.join(base, "data"), "-R", "-X", "stream", "-c", "fast"],
                            env=fetch.environment("15"))
        self.replica = cluster_module.Cluster("15", base=base)

    def remove(self):
        self.replica.remove()
        self.primary.remove()


@pytest.fixture
def pair():
    p = Pair()
    yield p
    p.remove()


def test_a_replica_shows_role_and_lag(proxy, pair):
    sections = database("main", pair.primary.port, "postgres") \
        + database("copy", pair.replica.port, "postgres", replica_of="main", max_lag="400ms") \
        + database("claims", pair.primary.port, "postgres", replica_of="main")
    door = proxy(pair.primary, databases={}, sections=sections,
                 **dict(QUICK, health_interval="100ms"))
    when(door, "healthy", "main")
    row = when(door, "healthy", "copy")
    assert row["role"] == "replica" and health(door, "main")["role"] == "primary"
    until(lambda: health(door, "copy")["lag_ms"] == "0", 5 * SLOW)
    # The primary has nothing to do: that is no lag.
    time.sleep(0.6)
    assert health(door, "copy")["status"] == "healthy"
    replicas = {r["database"]: r for r in door.rows("REPLICAS")}
    assert set(replicas) == {"copy", "claims"}
    assert replicas["copy"]["replica_of"] == "main" and replicas["copy"]["usable"] == "t"
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", replicas["copy"]["replayed"])
    claims = health(door, "claims")
    assert claims["role"] == "primary"
    assert claims["reason"] == "replica_of is set, but the server is not in recovery"

    with pair.replica.connect("postgres") as r, pair.primary.connect("shop") as p:
        r.execute("select pg_wal_replay_pause()")
        until(lambda: r.execute("select pg_get_wal_replay_pause_state()").fetchone()[0] == "paused", 5)
        p.execute("create table t as select g from generate_series(1, 10000) g")
        row = when(door, "lagging", "copy", seconds=5)
        assert int(row["lag_bytes"]) > 100000 and int(row["lag_ms"]) >= 400
        assert "behind" in row["reason"]
        found = [x for x in door.rows("REPLICAS") if x["database"] == "copy"][0]
        assert found["usable"] == "f" and int(found["lag_bytes"]) > 100000
        r.execute("select pg_wal_replay_resume()")
        row = when(door, "healthy", "copy", seconds=5)
        assert row["reason"] is None
    assert re.search(r"health: copy is lagging: \d+ ms behind", door.log())


def test_a_replica_that_is_cut_off_lags_although_it_has_replayed_all_it_got(proxy, pair):
    sections = database("main", pair.primary.port, "postgres") \
        + database("copy", pair.replica.port, "postgres", replica_of="main", max_lag="400ms")
    door = proxy(pair.primary, databases={}, sections=sections,
                 **dict(QUICK, health_interval="100ms"))
    until(lambda: health(door, "copy")["lag_ms"] == "0", 5 * SLOW)
    with pair.replica.connect("postgres") as r, pair.primary.connect("shop") as p:
        r.execute("alter system set primary_conninfo = 'host=/nonexistent'")
        r.execute("select pg_reload_conf()")
        until(lambda: p.execute("select count(*) from pg_stat_replication").fetchone()[0] == 0, 10)
        p.execute("create table t as select g from generate_series(1, 10000) g")
        row = when(door, "lagging", "copy", seconds=5)
        assert int(row["lag_bytes"]) > 100000
