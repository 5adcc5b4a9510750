"""pg_terminate_backend() and pg_cancel_backend() of the pid that a client was given."""
import threading
import time

import pgproto
import psycopg
import pytest
import raw
from poll import until
from psycopg import pq


@pytest.fixture(scope="module", params=["transaction", "session"])
def door(request, module_proxy, pg):
    made = module_proxy(pg, pool_mode=request.param, default_pool_size=5, workers=2)
    made.mode = request.param
    return made


def text(pid, c, function="pg_terminate_backend"):
    return c.execute(f"select {function}({pid})").fetchone()


def bound(pid, c, function="pg_terminate_backend"):
    return c.execute(f"SELECT {function}(%s)", (pid,)).fetchone()


def named(pid, c, function="pg_terminate_backend"):
    return c.execute(f"SELECT {function}(%s::int)", (str(pid),), prepare=True).fetchone()


WAYS = [text, bound, named]


@pytest.mark.parametrize("way", WAYS)
def test_terminate(door, way):
    with door.connect() as c:
        # On either worker, idle or in a transaction.
        for state in ("idle", "busy", "idle"):
            with door.connect(autocommit=False) as victim:
                pid = victim.pgconn.backend_pid
                if state == "busy":
                    victim.execute("select 1")
                assert way(pid, c) == (True,)
                with pytest.raises(psycopg.OperationalError):
                    victim.execute("select 1")
        # It is gone: the server knows no such process, when that has ended.
        until(lambda: way(pid, c) == (False,))
        assert c.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("way", WAYS)
def test_cancel(door, way):
    with door.connect() as c, door.connect() as sleeper:
        raised = []

        def sleep():
            try:
                sleeper.execute("select pg_sleep(30), 'signal me'")
            except psycopg.Error as e:
                raised.append(type(e))
        t = threading.Thread(target=sleep)
        t.start()
        with door.pg.connect() as direct:
            while not direct.execute("select 1 from pg_stat_activity where state = 'active' and "
                                     "query like '%signal me%' and pid <> pg_backend_pid()").fetchone():
                time.sleep(0.005)
        assert way(sleeper.pgconn.backend_pid, c, "pg_cancel_backend") == (True,)
        t.join(20)
        assert raised == [psycopg.errors.QueryCanceled]
        assert sleeper.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("way", WAYS)
def test_failed_transaction(door, way):
    """What the server refuses is not done."""
    with door.connect(autocommit=False) as c, door.connect() as victim:
        with pytest.raises(psycopg.errors.DivisionByZero):
            c.execute("select 1/0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            way(victim.pgconn.backend_pid, c)
        c.rollback()
        assert victim.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("way", WAYS)
def test_rights(door, way):
    """Other logins' clients are theirs, in and outside of a transaction."""
    with door.connect(user="bob") as c, door.connect() as other:
        for function in ("pg_terminate_backend", "pg_cancel_backend"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                way(other.pgconn.backend_pid, c, function)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction), c.transaction():
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                way(other.pgconn.backend_pid, c)
            c.execute("select 1")
        assert other.execute("select 1").fetchone() == (1,)


def test_forms(door):
    with door.connect() as c:
        for sql, label in (("select pg_terminate_backend({}, 10000) as gone;", "gone"),
                           ("SELECT pg_catalog.pg_terminate_backend({}::int, 10000)", "pg_terminate_backend")):
            with door.connect() as victim:
                cursor = c.execute(sql.format(victim.pgconn.backend_pid))
                assert (cursor.description[0].name, cursor.fetchone()) == (label, (True,))
                with pytest.raises(psycopg.OperationalError):
                    victim.execute("select 1")
        # PostgreSQL's own processes are PostgreSQL's.
        real = c.execute("select pg_backend_pid()").fetchone()[0]
        assert real < 1 << 22
        assert real == c.pgconn.backend_pid if door.mode == "session" else 1 << 22 <= c.pgconn.backend_pid
        with door.pg.connect(user="alice") as direct:
            assert text(direct.info.backend_pid, c) == (True,)
            with pytest.raises(psycopg.OperationalError):
                direct.execute("select 1")


def test_binary(door):
    with door.connect() as c, door.connect() as victim:
        pid = victim.pgconn.backend_pid
        r = c.pgconn.exec_params(b"select pg_terminate_backend($1)", [pid.to_bytes(4, "big")], [23], [1], 1)
        assert r.status == pq.ExecStatus.TUPLES_OK and r.get_value(0, 0) == b"\1"


def test_no_other_number(door):
    """A number that happens to be a client's pid is no order in another statement."""
    with door.connect() as c, door.connect() as other:
        pid = str(other.pgconn.backend_pid).encode()
        for name in (b"", b"named"):
            c.pgconn.prepare(name, b"select pg_terminate_backend($1)")
            if name:
                c.execute("deallocate named")
            c.pgconn.prepare(name, b"select $1::int8")
            assert c.pgconn.exec_prepared(name, [pid]).get_value(0, 0) == pid
        c.pgconn.prepare(b"", b"select pg_terminate_backend($1)")
        c.execute("select 1")
        assert c.pgconn.exec_prepared(b"", [pid]).status == pq.ExecStatus.FATAL_ERROR
        assert other.execute("select 1").fetchone() == (1,)


def test_itself(door):
    with door.connect() as c:
        for way in WAYS:
            with pytest.raises(psycopg.errors.QueryCanceled):
                way(c.pgconn.backend_pid, c, "pg_cancel_backend")
        with pytest.raises(psycopg.OperationalError):
            text(c.pgconn.backend_pid, c)


def test_once(door):
    """Also when the message that takes its place must wait: here until its Parse is answered."""
    with door.connect() as victim, raw.Raw(door.port) as r:
        assert r.login("alice", "shop") is None
        r.send(pgproto.query("select pg_sleep(0.2)"),
               pgproto.parse("t", "select pg_terminate_backend($1)", [23]), pgproto.SYNC,
               pgproto.bind("", "t", [str(victim.pgconn.backend_pid)]), pgproto.execute(),
               pgproto.SYNC)
        got = [m for _ in range(3) for m in r.until("Z")]
        assert not [m for m in got if m[0] in "EN"], got
        assert [m[2][-1:] for m in got if m[0] == "D"][-1] == b"t"
