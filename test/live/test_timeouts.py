"""Every timeout of the settings: what ends, when, and what the client is told."""
import time

import psycopg
import pytest

from poll import until
from proxy import is_sanitized, is_standin
from raw import Raw, refusal

SLACK = 4 if is_sanitized() else 2.5


# 57014, or what PostgreSQL says of its own timeout of that kind.
CODES = {"idle transaction timeout": "25P03", "transaction timeout": "25P04",
         "client_idle_timeout": "57P05"}


def told(fields, name):
    """The refusal names the timeout, in PgBouncer's words and by the right SQLSTATE."""
    if is_standin():
        return bool(fields)
    return fields["C"] in ("57014", CODES.get(name)) and name in fields["M"]


def backends(pg, user="alice"):
    with pg.connect() as d:
        return [r[0] for r in d.execute(
            "select pid from pg_stat_activity where usename = %s and backend_type = 'client backend' "
            "order by pid", [user])]


def test_query_wait_timeout(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, query_wait_timeout=1)
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop")
        b.login("alice", "shop")
        a.query("begin")
        began = time.monotonic()
        _, error = b.query("select 1")
        assert told(error, "query_wait_timeout")
        assert 0.8 < time.monotonic() - began < 1 + SLACK
        assert a.query("select 2")[0] == [["2"]]
        a.query("commit")


def test_query_timeout(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, query_timeout=1)
    with Raw(door.port) as a:
        a.login("alice", "shop")
        assert a.query("select 1")[0] == [["1"]]
        began = time.monotonic()
        _, error = a.query("select pg_sleep(8)")
        assert told(error, "query timeout")
        assert 0.8 < time.monotonic() - began < 1 + SLACK
    with door.connect() as c:
        assert c.execute("select 3").fetchone() == (3,)


def test_query_timeout_by_user(proxy, pg, only_pgweave):
    door = proxy(pg, users={"bob": "query_timeout=1"}, pool_mode="transaction")
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop")
        b.login("bob", "shop")
        assert told(b.query("select pg_sleep(30)")[1], "query timeout")
        assert a.query("select pg_sleep(0.1)")[1] is None


def test_idle_transaction_timeout(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, idle_transaction_timeout=1)
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop")
        b.login("alice", "shop")
        a.query("begin")
        began = time.monotonic()
        said = a.until("E")[-1]
        if not is_standin():
            assert told(said[1], "idle transaction timeout")
        assert 0.8 < time.monotonic() - began < 1 + SLACK
        assert a.is_closed()
        # its link is free, and out of the transaction
        assert b.query("select 1")[0] == [["1"]]
        assert b.query("select pg_current_xact_id_if_assigned() is null")[0] == [["t"]]


def test_idle_in_transaction_but_busy(proxy, pg):
    """A transaction that works is not idle."""
    door = proxy(pg, pool_mode="transaction", idle_transaction_timeout=1)
    with door.connect(autocommit=False) as c:
        for _ in range(4):
            c.execute("select pg_sleep(0.4)")
        c.commit()


def test_transaction_timeout(proxy, pg, only_pgweave):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, transaction_timeout=1)
    with Raw(door.port) as a:
        a.login("alice", "shop")
        a.query("begin")
        a.query("select pg_sleep(0.3)")
        began = time.monotonic()
        said = a.until("E")[-1]
        assert told(said[1], "transaction timeout")
        assert time.monotonic() - began < 1 + SLACK
    with door.connect() as c:
        c.execute("select 1")


def test_client_idle_timeout(proxy, pg):
    door = proxy(pg, pool_mode="transaction", client_idle_timeout=1)
    with Raw(door.port) as a:
        a.login("alice", "shop")
        a.query("select 1")
        began = time.monotonic()
        said = a.until("E")[-1]
        if not is_standin():
            assert told(said[1], "client_idle_timeout")
        assert a.is_closed()
        assert 0.7 < time.monotonic() - began < 1 + SLACK


def test_client_idle_timeout_spares_the_busy(proxy, pg):
    door = proxy(pg, pool_mode="transaction", client_idle_timeout=1)
    with door.connect() as c:
        c.execute("select pg_sleep(1.8)")
        assert c.execute("select 1").fetchone() == (1,)


def test_client_login_timeout(proxy, pg):
    door = proxy(pg, auth_type="scram-sha-256", client_login_timeout=1)
    import pgproto
    with Raw(door.port) as a:
        a.send(pgproto.startup(dict(user="alice", database="shop")))
        assert a.message()[0] == "R"
        began = time.monotonic()
        assert a.is_closed(6)
        assert 0.7 < time.monotonic() - began < 1 + SLACK
    with door.connect() as c:
        c.execute("select 1")


def test_server_idle_timeout(proxy, pg):
    door = proxy(pg, pool_mode="transaction", server_idle_timeout=1, default_pool_size=3)
    before = set(backends(pg))
    with door.connect() as a:
        a.execute("select 1")
        assert set(backends(pg)) - before
        until(lambda: not set(backends(pg)) - before, 1 + 2 * SLACK, "idle links are closed")
        assert a.execute("select 2").fetchone() == (2,)


def test_server_lifetime(proxy, pg):
    door = proxy(pg, pool_mode="transaction", server_lifetime=1, default_pool_size=1)
    with door.connect() as a:
        first = a.execute("select pg_backend_pid()").fetchone()

        def other():
            return a.execute("select pg_backend_pid()").fetchone() != first
        until(other, 3 + 2 * SLACK, "a link past its lifetime is replaced", step=0.1)


def test_server_lifetime_waits_for_the_transaction(proxy, pg):
    door = proxy(pg, pool_mode="transaction", server_lifetime=1, default_pool_size=1)
    with door.connect(autocommit=False) as a:
        first = a.execute("select pg_backend_pid()").fetchone()
        a.execute("select pg_sleep(1.5)")
        assert a.execute("select pg_backend_pid()").fetchone() == first
        a.commit()


def test_server_login_retry(proxy, own_pg):
    """A server that is down: the client is told in time, and served soon after it is up again."""
    own_pg.halt()
    door = proxy(own_pg, pool_mode="transaction", server_login_retry=1, query_wait_timeout=2,
                 server_connect_timeout=1)
    began = time.monotonic()
    said, _ = refusal(door.port, "alice")
    assert said, "logged in at a server that is down"
    assert time.monotonic() - began < 2 + SLACK
    own_pg.start()

    def served():
        with door.connect() as c:
            return c.execute("select 1").fetchone() == (1,)
    until(served, 5 + SLACK, "served after the server is up")


def test_waiting_clients_survive_a_restart(proxy, own_pg):
    """A client that asks while its server is down waits (query_wait_timeout), and is served."""
    door = proxy(own_pg, pool_mode="transaction", server_login_retry=1, query_wait_timeout=30)
    c = psycopg.connect(door.dsn(), autocommit=True)
    c.execute("select 1")
    own_pg.halt()
    import threading
    threading.Timer(0.7, own_pg.start).start()

    def asks():
        # until the proxy has seen its link die, a statement on it fails
        try:
            return c.execute("select 2").fetchone() == (2,)
        except psycopg.OperationalError:
            c2 = psycopg.connect(door.dsn(), autocommit=True)
            return c2.execute("select 2").fetchone() == (2,)
    until(asks, 15, "served after the restart", step=0.3)
