"""Causal reads: no read that goes to a replica is older than what the same login has written."""
import psycopg
import pytest

from poll import until
from test_health import Pair, database


@pytest.fixture(scope="module")
def pair():
    p = Pair()
    with p.primary.connect("shop", user="alice") as c:
        c.execute("create table ledger (id int primary key, n int not null)")
        c.execute("insert into ledger select i, 0 from generate_series(1, 20) i")
    with p.replica.connect("postgres") as r:
        until(lambda: r.execute("select count(*) from pg_database where datname = 'shop'"), 10)
    yield p
    p.remove()


def sections(pair, causal="on"):
    return (database("main", pair.primary.port, password="pw-alice")
            + database("copy", pair.replica.port, password="pw-alice", replica_of="main")
            + f"[virtual bank]\ndefault = main\nmembers = main\nread_from = copy\ncausal_reads = {causal}\n")


@pytest.fixture
def door(proxy, pair):
    return proxy(pair.primary, sections=sections(pair), health_interval="1s")


def where(c):
    """main or copy: which one a plain read is answered by."""
    c.execute("select n from ledger where id = 1")
    plan = "\n".join(r[0] for r in c.execute("explain (route) select n from ledger"))
    return "copy" if "Node: copy" in plan else "main"


def pause(pair, paused):
    with pair.replica.connect("postgres") as r:
        r.execute(f"select pg_wal_replay_{'pause' if paused else 'resume'}()")


def test_reads_return_to_the_replica(door):
    with door.connect("bank") as c:
        until(lambda: where(c) == "copy", 10, "reads go to the replica")
        c.execute("update ledger set n = n + 1 where id = 1")
        until(lambda: where(c) == "copy", 5, "the replica has it")


@pytest.mark.parametrize("how", ["autocommit", "transaction", "prepared", "string", "rollback to"])
def test_never_stale(door, pair, how):
    """A replica that stands still answers nobody who has written; others it does."""
    with door.connect("bank") as c, door.connect("bank", user="bob") as other:
        until(lambda: where(c) == "copy" and where(other) == "copy", 10, "reads go to the replica")
        before = c.execute("select n from ledger where id = 2").fetchone()[0]
        pause(pair, True)
        try:
            write = "update ledger set n = n + 1 where id = 2"
            if how == "autocommit":
                c.execute(write)
            elif how == "prepared":
                c.execute("update ledger set n = n + %s where id = 2", [1], prepare=True)
            elif how == "string":
                c.pgconn.exec_(f"{write}; select 1".encode())
            else:
                with c.transaction():
                    c.execute(write)
                    if how == "rollback to":
                        c.execute("savepoint s")
                        c.execute(write)
                        c.execute("rollback to s")
            for _ in range(3):
                assert c.execute("select n from ledger where id = 2").fetchone() == (before + 1,)
            with door.connect("bank") as again:
                assert again.execute("select n from ledger where id = 2").fetchone() == (before + 1,)
                plan = "\n".join(r[0] for r in again.execute("explain (route) select n from ledger"))
                assert "no replica is known to have what this login wrote" in plan
            assert other.execute("select n from ledger where id = 2").fetchone() == (before,)
        finally:
            pause(pair, False)
        until(lambda: where(c) == "copy", 5, "the replica has it")
        assert c.execute("select n from ledger where id = 2").fetchone() == (before + 1,)


def test_pairs(door):
    """Write, read, in one breath, many times: never an older value."""
    with door.connect("bank") as c:
        until(lambda: where(c) == "copy", 10, "reads go to the replica")
        n = c.execute("select n from ledger where id = 3").fetchone()[0]
        for i in range(1000):
            c.execute("update ledger set n = n + 1 where id = 3")
            assert c.execute("select n from ledger where id = 3").fetchone() == (n + i + 1,)


def test_replica_goes_and_comes(door, pair):
    with door.connect("bank") as c:
        until(lambda: where(c) == "copy", 10, "reads go to the replica")
        pair.replica.kill()
        c.execute("update ledger set n = n + 1 where id = 4")
        n = c.execute("select n from ledger where id = 4").fetchone()[0]
        pair.replica.restart()
        until(lambda: where(c) == "copy", 20, "the replica is back and has it")
        assert c.execute("select n from ledger where id = 4").fetchone() == (n,)


def test_off(proxy, pair):
    door = proxy(pair.primary, sections=sections(pair, "off"), health_interval="1s")
    with door.connect("bank") as c:
        until(lambda: where(c) == "copy", 10, "reads go to the replica")
        pause(pair, True)
        try:
            c.execute("update ledger set n = n + 1 where id = 5")
            assert where(c) == "copy"
        finally:
            pause(pair, False)
        with pytest.raises(psycopg.errors.UndefinedTable):
            c.execute("select * from nosuch")
