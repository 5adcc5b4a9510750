"""Limits: clients, links, reserve and minimum of a pool, file descriptors; a thousand clients on
five links; a client that never reads two gigabytes."""
import asyncio
import os
import resource
import threading
import time

import psycopg
import pytest

import pgproto
from poll import until
from proxy import is_sanitized, is_standin
from raw import Raw, refusal


def backends(pg, user):
    with pg.connect() as d:
        return d.execute("select count(*) from pg_stat_activity where usename = %s and "
                         "application_name not like 'pgbench%%' and application_name <> 'pgweave health'",
                         [user]).fetchone()[0]


def test_max_client_conn(proxy, pg):
    door = proxy(pg, pool_mode="transaction", max_client_conn=5)
    clients = [Raw(door.port) for _ in range(5)]
    for c in clients:
        assert c.login("alice", "shop") is None
    said, _ = refusal(door.port, "alice")
    assert said["M"] == "no more connections allowed (max_client_conn)"
    if not is_standin():
        assert (said["S"], said["C"]) == ("FATAL", "53300")
    assert clients[0].query("select 1")[0] == [["1"]]
    clients.pop().sock.close()
    until(lambda: refusal(door.port, "alice")[0] is None, 5, "a place is free again")
    for c in clients:
        c.sock.close()


@pytest.mark.parametrize("where", ["max_db_client_connections", "max_user_client_connections"])
def test_client_limits_by_database_and_user(proxy, pg, where, only_pgweave):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    if where == "max_db_client_connections":
        door = proxy(pg, {"shop": at + f" {where}=2", "free": at})
        other = dict(user="alice", database="free")
    else:
        door = proxy(pg, {"shop": at}, users={"alice": f"{where}=2"})
        other = dict(user="bob", database="shop")
    clients = [Raw(door.port) for _ in range(2)]
    for c in clients:
        assert c.login("alice", "shop") is None
    said, _ = refusal(door.port, "alice")
    assert said and said["C"] == "53300", said
    assert refusal(door.port, **other)[0] is None
    clients.pop().sock.close()
    until(lambda: refusal(door.port, "alice")[0] is None, 5, "a place is free again")
    clients.pop().sock.close()


def test_pool_size(proxy, pg):
    """Never more links than default_pool_size, over all workers, under load."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=4)
    over, seen = threading.Event(), []

    def watch():
        with pg.connect() as d:
            while not over.is_set():
                seen.append(d.execute("select count(*) from pg_stat_activity where usename = 'alice'"
                                      ).fetchone()[0])
                time.sleep(0.005)
    base = backends(pg, "alice")
    w = threading.Thread(target=watch)
    w.start()

    def work():
        with door.connect() as c:
            for _ in range(30):
                c.execute("select pg_sleep(0.003)")
    threads = [threading.Thread(target=work) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    over.set()
    w.join()
    assert max(seen) - base <= 4, max(seen)
    assert max(seen) - base >= 3


def test_pool_size_by_database_and_user(proxy, pg):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    door = proxy(pg, {"one": at + " pool_size=1", "shop": at}, pool_mode="transaction",
                 default_pool_size=3, query_wait_timeout=1)
    with Raw(door.port) as a, Raw(door.port) as b, Raw(door.port) as c:
        a.login("alice", "one")
        b.login("alice", "one")
        c.login("alice", "shop")
        a.query("begin")
        assert c.query("select 1")[0] == [["1"]]
        assert b.query("select 1")[1]


def test_pool_size_without_limit(proxy, pg, only_pgweave):
    """0, for all or for one."""
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    door = proxy(pg, {"shop": at, "few": at + " pool_size=1", "many": at + " pool_size=0"},
                 default_pool_size=0, pool_mode="transaction", query_wait_timeout=1)
    for database in ("shop", "many"):
        clients = [door.connect(database, autocommit=False) for _ in range(25)]
        for c in clients:
            c.execute("select 1")
        assert door.pool(database)["sv_active"] == "25"
        for c in clients:
            c.close()
    with door.connect("few", autocommit=False) as a, door.connect("few") as b:
        a.execute("select 1")
        with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
            b.execute("select 1")


def test_max_db_connections(proxy, pg):
    """One limit for the links of a database over all its users."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=5, max_db_connections=2,
                 query_wait_timeout=1)
    with Raw(door.port) as a, Raw(door.port) as b, Raw(door.port) as c:
        a.login("alice", "shop")
        a.query("begin")
        b.login("bob", "shop")
        b.query("begin")
        c.login("forced", "shop")
        assert c.query("select 1")[1]


def test_max_user_connections(proxy, pg):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    door = proxy(pg, {"x": at, "y": at}, pool_mode="transaction", max_user_connections=1,
                 query_wait_timeout=1)
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "x")
        a.query("begin")
        said = b.login("alice", "y")
        assert said or b.query("select 1")[1]


@pytest.mark.parametrize("limit", ["max_user_connections", "max_db_connections"])
def test_limit_below_pool_size(proxy, pg, limit):
    """The only link goes round among clients of all workers."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=5, query_wait_timeout=5, **{limit: 1})
    clients = [door.connect() for _ in range(6)]
    for _ in range(2):
        assert [c.execute("select 1").fetchone() for c in clients] == [(1,)] * 6
    for c in clients:
        c.close()


def test_reserve_pool(proxy, pg):
    """Links of the reserve are opened for those who wait longer than reserve_pool_timeout."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=1, reserve_pool_size=1,
                 reserve_pool_timeout=1, query_wait_timeout=6)
    with Raw(door.port) as a, Raw(door.port) as b, Raw(door.port) as c:
        for r in (a, b, c):
            r.login("alice", "shop")
        a.query("begin")
        began = time.monotonic()
        assert b.query("begin")[1] is None
        took = time.monotonic() - began
        assert 0.7 < took < 5, took
        assert door.log().count("shop/alice: taking connection from reserve_pool") == 1
        # the reserve is one: the third waits until one of the two is free
        c.send(pgproto.query("select 'third'"))
        c.sock.settimeout(1.8)
        with pytest.raises(TimeoutError):
            c.message()
        c.sock.settimeout(5)
        a.query("commit")
        assert [m[1]["1"] for m in c.until("Z") if m[0] == "D"] == ["third"]
        b.query("commit")


def test_max_overflow(proxy, pg, only_pgweave):
    """Links above pool_size while they are needed; a second later they are gone."""
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop pool_size=1 max_overflow=2"},
                 pool_mode="transaction")
    clients = [Raw(door.port) for _ in range(4)]
    for c in clients:
        assert c.login("alice", "shop") is None
    for c in clients[:3]:
        c.query("begin")
        assert c.query("select 1")[0] == [["1"]]
    clients[3].send(pgproto.query("select 4"))
    until(lambda: int(door.pool()["cl_waiting"]) == 1, 5, "the fourth client waits")
    assert len(door.rows("SERVERS")) == 3
    for c in clients[:3]:
        c.query("commit")
    until(lambda: len(door.rows("SERVERS")) == 1, 5, "the overflow is closed")
    assert "overflow link is idle" in door.log()
    for c in clients:
        c.sock.close()


def test_min_pool_size(proxy, pg):
    """Links are opened ahead and opened again when they die, for a database with a user."""
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop user=forced"},
                 pool_mode="transaction", min_pool_size=3, default_pool_size=5)
    # PgBouncer holds the minimum while a client is there, or always for a database with a user
    with door.connect() as c:
        c.execute("select 1")
        until(lambda: backends(pg, "forced") == 3, 8, "three links stand by")
        with pg.connect() as d:
            d.execute("select pg_terminate_backend(pid, 3000) from pg_stat_activity "
                      "where usename = 'forced' and application_name <> 'pgweave health'")
        until(lambda: backends(pg, "forced") == 3, 8, "three links stand by again")


def test_thousand_clients(proxy, pg):
    """1,000 clients on five links: each is served, in its turn, with its own answers."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=5, max_client_conn=1200,
                 query_wait_timeout=60, listen_backlog=2000)
    waits = []

    async def client(i):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)

        async def until_ready():
            rows = []
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                if head[:1] == b"D":
                    rows.append(pgproto.decode(True, "D", body)["1"])
                if head[:1] == b"E":
                    raise AssertionError(pgproto.decode(True, "E", body))
                if head[:1] == b"Z":
                    return rows
        writer.write(pgproto.startup(dict(user="alice", database="shop")))
        await until_ready()
        for n in range(5):
            began = time.monotonic()
            writer.write(pgproto.query(f"select '{i}.{n}'"))
            assert await until_ready() == [f"{i}.{n}"]
            writer.write(pgproto.parse("", "select $1") + pgproto.bind("", "", [f"x{i}.{n}"])
                         + pgproto.execute() + pgproto.SYNC)
            assert await until_ready() == [f"x{i}.{n}"]
            waits.append(time.monotonic() - began)
        writer.write(pgproto.TERMINATE)
        writer.close()

    async def all_of_them():
        await asyncio.gather(*(client(i) for i in range(1000)))
    asyncio.run(asyncio.wait_for(all_of_them(), 120))
    assert len(waits) == 5000
    # nobody starves: the longest wait is not out of proportion
    assert max(waits) < 40


def test_file_descriptors(proxy, pg):
    """More clients than file descriptors: refused or left waiting, then served; those connected
    go on; nothing spins."""
    low = 64

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, low))
    door = proxy(pg, pool_mode="transaction", default_pool_size=2, max_client_conn=1000,
                 preexec=limit)
    first = Raw(door.port)
    assert first.login("alice", "shop") is None
    crowd = []
    try:
        for _ in range(120):
            r = Raw(door.port)
            r.send(pgproto.startup(dict(user="alice", database="shop")))
            crowd.append(r)
        served = refused = waiting = 0
        for r in crowd:
            r.sock.settimeout(0.01 if waiting > 3 else 1)
            try:
                got = r.until("ZE")[-1]
                served += got[0] == "Z"
                refused += got[0] in ("E", None)
            except TimeoutError:
                waiting += 1
        assert served + refused + waiting == 120 and served >= 10, (served, refused, waiting)
        for _ in range(20):
            assert first.query("select 1")[0] == [["1"]]
        # a listener that cannot accept must not turn in circles
        with open(f"/proc/{door.pid}/stat") as f:
            before = sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
        time.sleep(1)
        with open(f"/proc/{door.pid}/stat") as f:
            after = sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
        assert after - before < 0.5 * os.sysconf("SC_CLK_TCK"), "busy while out of descriptors"
    finally:
        for r in crowd:
            r.sock.close()
    until(lambda: refusal(door.port, "alice")[0] is None, 10, "served again when the crowd has gone")
    assert first.query("select 2")[0] == [["2"]]
    first.sock.close()


def test_slow_reader(proxy, pg):
    """A client that asks for 2 GB and never reads: our memory stays flat, others are served."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=2)
    with door.connect() as c:
        c.execute("select repeat('x', 1000000)").fetchone()
        before = door.rss_kb()
        with Raw(door.port) as r:
            r.login("alice", "shop")
            r.send(pgproto.query("select repeat('x', 1000) from generate_series(1, 2000000)"))
            assert r.message()[0] == "T"
            most, over = 0, time.monotonic() + 3
            while time.monotonic() < over:
                most = max(most, door.rss_kb())
                assert c.execute("select 1").fetchone() == (1,)
                time.sleep(0.02)
        grown = most - before
        assert grown < (200000 if is_sanitized() else 20000), f"{grown} kB"


def test_two_gigabytes(proxy, pg):
    """The same 2 GB, read: every byte comes, memory stays flat."""
    rows = 200000 if is_sanitized() else 2000000
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with Raw(door.port, 60) as r:
        r.login("alice", "shop")
        r.query("select repeat('x', 1000000)")
        before = most = door.rss_kb()
        r.send(pgproto.query(f"select repeat('x', 1000) from generate_series(1, {rows})"))
        total, tail, checked = 0, b"", time.monotonic()
        buffer = bytearray(1 << 20)
        while True:
            n = r.sock.recv_into(buffer)
            assert n, "closed"
            total += n
            tail = (tail + bytes(buffer[max(0, n - 40):n]))[-40:]
            if time.monotonic() - checked > 0.05:
                most, checked = max(most, door.rss_kb()), time.monotonic()
            if tail.endswith(b"Z\0\0\0\x05I"):
                break
        done = pgproto.complete(f"SELECT {rows}") + pgproto.ready("I")
        description = len(pgproto.row_description(["repeat"]))
        assert total == rows * (1000 + 11) + len(done) + description
        assert most - before < (200000 if is_sanitized() else 20000), f"{most - before} kB"


def test_slow_writer_of_copy(proxy, pg):
    """COPY IN faster than the server takes it: back-pressure, not memory."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with pg.connect(user="alice") as d:
        d.execute("create table t_slow (a text)")
        # a trigger that makes the server slow
        d.execute("create function slow() returns trigger language plpgsql as "
                  "$$ begin perform pg_sleep(0.0002); return null; end $$")
        d.execute("create trigger slow before insert on t_slow for each row execute function slow()")
    with Raw(door.port, 60) as r:
        r.login("alice", "shop")
        r.query("select 1")
        before = most = door.rss_kb()
        r.send(pgproto.query("copy t_slow from stdin"))
        assert r.message()[0] == "G"
        chunk = pgproto.copy_data((b"y" * 9999 + b"\n") * 10)
        over, sent = time.monotonic() + 2.5, 0
        r.sock.settimeout(0.2)
        while time.monotonic() < over:
            try:
                sent += r.sock.send(chunk[sent % len(chunk):])
            except TimeoutError:
                pass
            most = max(most, door.rss_kb())
    assert most - before < (200000 if is_sanitized() else 20000), f"{most - before} kB"
    with pg.connect(user="alice") as d:
        d.execute("drop table t_slow")
        d.execute("drop function slow")


def test_idle_clients_cost_little(proxy, pg):
    """2,000 idle clients: an idle one owns no buffers (the exact number is the benchmark's)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 5000:
        pytest.skip(f"RLIMIT_NOFILE {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    door = proxy(pg, pool_mode="transaction", default_pool_size=5, max_client_conn=3000,
                 listen_backlog=2000)
    clients = []
    for n in range(2200):
        r = Raw(door.port)
        assert r.login("alice", "shop") is None
        clients.append(r)
        if n == 200:
            before = door.rss_kb()
    each = (door.rss_kb() - before) / 1999
    for r in clients:
        r.sock.close()
    limit = 40 if is_sanitized() else 8 if is_standin() else 2
    assert each < limit, f"{each:.2f} kB for each idle client"
