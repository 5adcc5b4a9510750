"""Pool modes: what each keeps and what each gives up; server_reset_query; per-database and per-user
modes."""
import signal
import time

import psycopg
import pytest

import pgproto
from proxy import free_port
from raw import Raw


def pid(c):
    return c.execute("select pg_backend_pid()").fetchone()[0]


def test_session_keeps_its_link(proxy, pg):
    door = proxy(pg, pool_mode="session", default_pool_size=2)
    with door.connect() as a, door.connect() as b:
        mine, theirs = pid(a), pid(b)
        assert mine != theirs
        for _ in range(5):
            assert (pid(a), pid(b)) == (mine, theirs)
        a.execute("create temp table t_mine (a int)")
        a.execute("insert into t_mine values (1)")
        a.execute("set work_mem = '5MB'")
        a.execute("prepare p as select 7")
        assert a.execute("select a from t_mine").fetchone() == (1,)
        assert a.execute("execute p").fetchone() == (7,)
        with pytest.raises(psycopg.errors.UndefinedTable):
            b.execute("select a from t_mine")


def test_session_is_reset(proxy, pg):
    """server_reset_query: what one client left is gone for the next on the same link."""
    door = proxy(pg, pool_mode="session", default_pool_size=1)
    with door.connect() as c:
        first = pid(c)
        c.execute("create temp table t_left (a int)")
        c.execute("set work_mem = '5MB'")
        c.execute("set datestyle to 'German'")
        c.execute("prepare left_behind as select 1")
        c.execute("select pg_advisory_lock(4711)")
        c.execute("listen left_channel")
        c.execute("declare left_cursor cursor with hold for select 1")
        c.prepare_threshold = 0
        c.execute("select %s::int", [1])
    with door.connect() as c:
        assert pid(c) == first, "the link was not reused"
        assert c.execute("select to_regclass('t_left')").fetchone() == (None,)
        assert c.execute("show work_mem").fetchone() == ("4MB",)
        assert c.execute("show datestyle").fetchone() == ("ISO, MDY",)
        assert c.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)
        assert c.execute("select count(*) from pg_cursors where is_holdable").fetchone() == (0,)
        assert c.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)
        assert c.execute("select count(*) from pg_listening_channels()").fetchone() == (0,)


def test_session_prepared_names_are_free_again(proxy, pg, only_pgweave):
    """Protocol-level names of one session mean nothing in the next, of the same text or another."""
    door = proxy(pg, pool_mode="session", default_pool_size=1)
    for n in range(4):
        with door.connect() as c:
            c.prepare_threshold = 0
            assert c.execute(f"select %s::int + {n % 2}", [n]).fetchone() == (n + n % 2,)


def test_session_waits_for_a_link(proxy, pg):
    door = proxy(pg, pool_mode="session", default_pool_size=1, query_wait_timeout=1)
    with door.connect() as a:
        a.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            with door.connect() as b:
                b.execute("select 2")
    with door.connect() as c:
        assert c.execute("select 3").fetchone() == (3,)


def test_transaction_shares_links(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with door.connect(autocommit=False) as a, door.connect(autocommit=False) as b:
        one = pid(a)
        a.commit()
        assert pid(b) == one
        b.commit()
        assert pid(a) == one


def test_statement_whose_result_has_changed(proxy, pg, only_pgweave):
    """As on PostgreSQL it fails when the table's form has changed, but once: from then on it is
    prepared anew, on every link that has it."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=2)
    sql = "select * from t_changed where v = %s"
    with pg.connect() as direct, door.connect() as a, door.connect() as b:
        direct.execute("drop table if exists t_changed")
        direct.execute("create table t_changed (v int)")
        direct.execute("grant all on t_changed to public")
        a.prepare_threshold = b.prepare_threshold = 0
        with a.transaction(), b.transaction():
            for c in (a, b):
                assert len(c.execute(sql, [1]).description) == 1
        direct.execute("alter table t_changed add w int")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
            a.execute(sql, [1])
        with a.transaction(), b.transaction():
            for c in (a, b, a, b):
                assert len(c.execute(sql, [1]).description) == 2


def test_statement_mode(proxy, pg):
    door = proxy(pg, pool_mode="statement", default_pool_size=1)
    with door.connect() as a, door.connect() as b:
        assert pid(a) == pid(b)
        assert a.execute("select 1").fetchone() == (1,)
    with Raw(door.port) as r:
        assert r.login("alice", "shop") is None
        rows, error = r.query("begin")
        assert error, "BEGIN is refused in statement mode"
    with Raw(door.port) as r:
        assert r.login("alice", "shop") is None
        rows, error = r.query("begin; select 1")
        assert error
    with door.connect() as c:
        assert c.execute("select pg_current_xact_id_if_assigned() is null").fetchone() == (True,)
    with pg.connect() as d:
        assert d.execute("select count(*) from pg_stat_activity where state like 'idle in%' and "
                         "usename = 'alice'").fetchone() == (0,)


def test_mode_by_database_and_user(proxy, pg):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop pool_size=1"
    door = proxy(pg, {"s": at + " pool_mode=session", "t": at + " pool_mode=transaction"},
                 users={"bob": "pool_mode=session"}, pool_mode="statement")
    with Raw(door.port) as a, Raw(door.port) as b:
        assert a.login("alice", "t") is None and b.login("alice", "t") is None
        assert a.query("begin")[1] is None and a.query("commit")[1] is None
        assert b.query("select 1")[0] == [["1"]]
    with door.connect("s") as c:
        c.execute("create temp table t_s (a int)")
        c.execute("select * from t_s")
    with door.connect("t", user="bob") as c:
        c.execute("create temp table t_b (a int)")
        c.execute("select * from t_b")


def test_reset_query_always(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, server_reset_query_always=1,
                 server_reset_query="set enable_seqscan = off")
    with Raw(door.port) as r:
        assert r.login("alice", "shop") is None
        assert r.query("set work_mem = '7MB'")[1] is None
        assert r.query("show work_mem")[0] == [["7MB"]], "the session's own"
        assert r.query("show enable_seqscan")[0] == [["off"]]


@pytest.mark.parametrize("how", ["signal", "console"])
def test_sessions_end_themselves(proxy, pg, how):
    """SIGINT and SHUTDOWN WAIT_FOR_SERVERS wait for clients that have a server to themselves."""
    door = proxy(pg, pool_mode="session")
    with Raw(door.port) as a, Raw(door.port) as idle:
        assert a.login("alice", "shop") is None and idle.login("alice", "shop") is None
        assert a.query("create temp table t_kept as select 5 as a")[1] is None
        if how == "signal":
            door.signal(signal.SIGINT)
        else:
            door.console().command("SHUTDOWN WAIT_FOR_SERVERS")
        # who has none yet gets none any more
        assert [m[1]["M"] for m in idle.until("E") if m[0] == "E"] == ["server shutting down"]
        for _ in range(2):
            assert a.query("select a from t_kept")[0] == [["5"]]
        assert door.is_running()
        a.send(pgproto.TERMINATE)
    assert door.wait_exit(5) == 0
    assert "closing because: server shutting down" in door.log()


@pytest.mark.parametrize("turns", ["disable", "round-robin"])
def test_next_host_at_once(proxy, pg, turns):
    """Nobody hears of a host that is down while another of the list is not."""
    at = f"host=127.0.0.1,127.0.0.1 port={free_port()},{pg.port} dbname=shop pool_size=3"
    door = proxy(pg, {"shop": f"{at} load_balance_hosts={turns}"}, pool_mode="session")
    clients = [Raw(door.port) for _ in range(3)]
    for c in clients:
        c.send(pgproto.startup({"user": "alice", "database": "shop"}))
        c.send(pgproto.query("select 1"))
    for c in clients:
        assert c.until("ZE")[-1][0] == "Z"
        assert [m for m in c.until("ZE") if m[0] in "DE"][0][1] == {"1": "1"}
        c.sock.close()


def test_small_socket_buffers(proxy, pg):
    """They are set before the connection is made: a window that was offered for larger ones would
    stall, 8 kB at a time."""
    door = proxy(pg, pool_mode="transaction", tcp_socket_buffer=4096)
    with door.connect() as c:
        begun = time.monotonic()
        assert len(c.execute("select repeat('x', 1000) from generate_series(1, 2000)").fetchall()) == 2000
        assert time.monotonic() - begun < 10
