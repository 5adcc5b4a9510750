"""Servers and clients that die: backends terminated mid-query and while idle, a postmaster killed
and started again, clients gone inside a transaction or a result."""
import os
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest

import pgproto
from poll import until
from raw import Raw


def pid(c):
    return c.execute("select pg_backend_pid()").fetchone()[0]


def test_backend_killed_idle(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=2)
    with door.connect() as c, pg.connect() as d:
        for _ in range(3):
            first = pid(c)
            d.execute("select pg_terminate_backend(%s, 5000)", [first])

            def again():
                # between the death and the proxy's notice of it a statement may fail once
                with door.connect() as fresh:
                    return pid(fresh) != first
            until(again, 5, "served by another link")
        assert c.execute("select 1").fetchone() == (1,)


def test_server_says_no(proxy, pg):
    """Who waits hears it from a server that lets the proxy in no more, instead of waiting on."""
    at = f"host=127.0.0.1 port={pg.port} dbname=shop user=t_barred"
    with pg.connect() as d:
        d.execute("create role t_barred login")
        door = proxy(pg, {"shop": at}, pool_mode="transaction", default_pool_size=1)
        try:
            with Raw(door.port) as a, Raw(door.port) as b:
                for r in (a, b):
                    assert r.login("alice", "shop") is None
                    assert r.query("select 1")[0] == [["1"]]
                d.execute("alter role t_barred nologin")
                d.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                          "where usename = 't_barred'")
                for r, word in ((a, 'role "t_barred" is not permitted to log in'),
                                (b, "server login has been failing, cached error: role")):
                    r.send(pgproto.query("select 2"))
                    said = r.until("E")[-1][1]
                    assert said["S"] == "FATAL" and said["C"] == "28000"
                    assert said["M"].startswith(word)
        finally:
            d.execute("drop role t_barred")


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_backend_killed_in_query(proxy, pg, mode):
    door = proxy(pg, pool_mode=mode, default_pool_size=1)
    with Raw(door.port) as r, pg.connect() as d:
        r.login("alice", "shop")
        r.send(pgproto.query("select pg_sleep(30), 'token-kill'"))
        victim = until(lambda: d.execute(
            "select pid from pg_stat_activity where state = 'active' and query like '%token-kill%' "
            "and pid <> pg_backend_pid()").fetchone(), 5, "the statement runs")[0]
        d.execute("select pg_terminate_backend(%s)", [victim])
        got = r.until("E")[-1]
        assert got[1]["C"] == "57P01"
        # the session goes on or ends; it does not hang
        rest = r.until("Z")[-1]
        if rest[0] == "Z":
            assert r.query("select 1")[0] == [["1"]]
    with door.connect() as c:
        assert c.execute("select 2").fetchone() == (2,)


def test_backend_killed_in_transaction(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with door.connect(autocommit=False) as c, pg.connect() as d:
        d.execute("select pg_terminate_backend(%s, 5000)", [pid(c)])
        with pytest.raises((psycopg.OperationalError, psycopg.errors.InFailedSqlTransaction)):
            c.execute("insert into pg_class default values")
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_all_backends_killed(proxy, pg):
    """Under load every link dies at once: all clients go on, by the same or a new connection."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=5)
    over = time.monotonic() + 3
    done, wrong = [0] * 20, []

    def work(i):
        c = None
        while time.monotonic() < over:
            try:
                if c is None:
                    c = Raw(door.port)
                    if c.login("alice", "shop"):
                        c = None
                        continue
                rows, error = c.query(f"select '{i}'")
                if error is None:
                    if rows != [[str(i)]]:
                        wrong.append(rows)
                    done[i] += 1
                elif error.get("closed"):
                    c = None
                elif not (error["C"].startswith("08") or error["C"] == "57P01"):
                    wrong.append(error)
            except OSError as e:
                wrong.append(repr(e)) if "timed out" in str(e) else None
                c = None
    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    with pg.connect() as d:
        while time.monotonic() < over - 0.5:
            time.sleep(0.3)
            d.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'alice'")
    for t in threads:
        t.join(20)
    assert not wrong, wrong[:3]
    assert min(done) > 0


def test_postmaster_killed(proxy, own_pg):
    """kill -9 of the postmaster in the middle of queries, then a restart."""
    door = proxy(own_pg, pool_mode="transaction", default_pool_size=3, server_login_retry=1,
                 query_wait_timeout=20)
    clients = [Raw(door.port, 30) for _ in range(6)]
    for c in clients:
        c.login("alice", "shop")
    for c in clients[:3]:
        c.send(pgproto.query("select pg_sleep(20)"))
    with own_pg.connect() as d:
        until(lambda: d.execute("select count(*) from pg_stat_activity where state = 'active' and "
                                "query like '%pg_sleep%' and pid <> pg_backend_pid()"
                                ).fetchone()[0] == 3, 5, "three run")
        backends = [r[0] for r in d.execute("select pid from pg_stat_activity where usename = 'alice'")]
    own_pg.kill()
    for b in backends:
        try:
            os.kill(b, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for c in clients[:3]:
        got = c.until("EZ")
        assert got[-1][0] in ("E", None), got
    own_pg.restart()

    def served():
        with door.connect() as fresh:
            return fresh.execute("select 1").fetchone() == (1,)
    until(served, 15, "served after the restart", step=0.2)
    # those who were idle have lost nothing
    for c in clients[3:]:
        assert c.query("select 2")[0] == [["2"]]
    for c in clients:
        c.sock.close()


@pytest.mark.parametrize("how", ["close", "reset", "kill"])
def test_client_gone_in_transaction(proxy, pg, how):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with pg.connect(user="alice") as d:
        d.execute("create table if not exists t_gone (a int)")
        d.execute("truncate t_gone")
    if how == "kill":
        code = ("import psycopg, time; c = psycopg.connect(%r); c.execute('insert into t_gone values (1)');"
                "print('in', flush=True); time.sleep(60)" % door.dsn())
        p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert p.stdout.readline() == b"in\n"
        p.kill()
        p.wait()
    else:
        r = Raw(door.port)
        r.login("alice", "shop")
        r.query("begin")
        r.query("insert into t_gone values (1)")
        if how == "reset":
            import socket
            import struct
            r.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        r.sock.close()
    with door.connect() as c:
        assert c.execute("select pg_current_xact_id_if_assigned() is null").fetchone() == (True,)
        assert c.execute("select count(*) from t_gone").fetchone() == (0,)
    with pg.connect(user="alice") as d:
        until(lambda: d.execute("select count(*) from pg_stat_activity where usename = 'alice' and "
                                "state like 'idle in%'").fetchone()[0] == 0, 5, "rolled back")
        d.execute("drop table t_gone")


def test_client_gone_in_query(proxy, pg):
    """The next client of the only link gets its own answer, soon."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    for n in range(10):
        with Raw(door.port) as r:
            r.login("alice", "shop")
            r.send(pgproto.query("select repeat('x', 1000) from generate_series(1, 20000)"))
            if n % 2:
                r.message()
        with Raw(door.port) as r:
            r.login("alice", "shop")
            assert r.query(f"select 'mine {n}'")[0] == [[f"mine {n}"]]


def test_client_gone_in_copy(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with pg.connect(user="alice") as d:
        d.execute("create table t_copy_gone (a text)")
    for _ in range(3):
        with Raw(door.port) as r:
            r.login("alice", "shop")
            r.send(pgproto.query("copy t_copy_gone from stdin"))
            assert r.message()[0] == "G"
            r.send(pgproto.copy_data(b"half a row"), pgproto.copy_data(b"row\n" * 1000))
        with door.connect() as c:
            assert c.execute("select count(*) from t_copy_gone").fetchone() == (0,)
    with pg.connect(user="alice") as d:
        d.execute("drop table t_copy_gone")


def test_no_links_leak(proxy, pg):
    """After a hail of clients that die in every state, the pool is whole."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=3)
    for n in range(60):
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user="alice", database="shop")))
            if n % 6 == 0:
                continue
            r.until("Z")
            what = [b"", pgproto.query("begin"), pgproto.query("select pg_sleep(0.05)"),
                    pgproto.parse("", "select 1"), pgproto.query("select 1")[:7],
                    pgproto.query("begin") + pgproto.query("select 1/0")][n % 6]
            r.send(what)
            if n % 4 == 0 and n % 6 in (1, 2, 5):
                r.until("Z")
    # three transactions at a time must fit
    clients = [door.connect(autocommit=False) for _ in range(3)]
    pids = {pid(c) for c in clients}
    assert len(pids) == 3
    for c in clients:
        c.close()
    until(lambda: int(door.pool()["cl_waiting"]) == 0 and int(door.pool()["sv_active"]) == 0, 5,
          "nothing is in use any more")
