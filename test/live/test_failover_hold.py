"""Statements that were not sent yet wait for the next primary, and none runs twice."""
import threading
import time

import psycopg
import pytest

from poll import until
from test_health import Pair, database


@pytest.fixture
def pair():
    p = Pair()
    with p.primary.connect("postgres") as c:
        c.execute("alter system set synchronous_commit = on")
        c.execute("alter system set synchronous_standby_names = '*'")
        c.execute("select pg_reload_conf()")
    with p.primary.connect("postgres") as c:
        until(lambda: c.execute("select sync_state from pg_stat_replication").fetchone() == ("sync",), 10)
    with p.primary.connect("shop", user="alice") as c:
        c.execute("create table ledger (client int, n int, primary key (client, n))")
    yield p
    p.remove()


def sections(pair, hold):
    return (database("main", pair.primary.port, password="pw-alice")
            + database("copy", pair.replica.port, password="pw-alice", replica_of="main")
            + f"[virtual bank]\ndefault = main\nmembers = main\nread_from = copy\nfailover_hold = {hold}\n")


def start(proxy, pair, hold):
    door = proxy(pair.primary, sections=sections(pair, hold), health_interval="300ms", health_timeout="1s",
                 health_fall=2, health_rise=1, default_pool_size=4)
    until(lambda: {r["database"]: r["status"] for r in door.rows("HEALTH")}.get("copy") == "healthy", 15,
          "the replica is healthy")
    return door


def promote(pg):
    with pg.connect("postgres") as c:
        c.execute("alter system reset synchronous_standby_names")
        c.execute("select pg_reload_conf()")
        assert c.execute("select pg_promote(true, 60)").fetchone() == (True,)


def kill(door, pair):
    """Its links have been seen to go: what is sent now waits, and is not in doubt."""
    pair.primary.kill()
    until(lambda: all(int(r[k]) == 0 for r in door.rows("POOLS") if r["database"] == "main"
                      for k in ("sv_active", "sv_idle", "sv_used")), 5, "the links are closed")


class Writer(threading.Thread):
    """Inserts 1, 2, 3…; keeps what was acknowledged and what failed."""

    def __init__(self, door, client):
        super().__init__(daemon=True)
        self.door, self.client = door, client
        self.done, self.in_doubt, self.refused, self.over = [], [], [], threading.Event()

    def run(self):
        c, n = None, 0
        while not self.over.is_set():
            n += 1
            try:
                if c is None:
                    c = self.door.connect("bank")
                c.execute("insert into ledger values (%s, %s)", [self.client, n])
                self.done.append(n)
            except psycopg.errors.CannotConnectNow as e:
                self.refused.append((n, str(e)))
            except psycopg.Error:
                self.in_doubt.append(n)
                if c is not None and c.closed:
                    c = None
        if c is not None:
            c.close()


def test_a_ledger_balances(proxy, pair):
    """Clients write while the primary is killed and the replica promoted. Those with a
    statement under way are told that it is in doubt; the others notice nothing but a pause."""
    door = start(proxy, pair, "20s")
    writers = [Writer(door, i) for i in range(6)]
    for w in writers:
        w.start()
    until(lambda: all(len(w.done) > 20 for w in writers), 10, "all write")
    pair.primary.kill()
    time.sleep(0.5)
    before = [len(w.done) for w in writers]
    promote(pair.replica)
    until(lambda: all(len(w.done) > b + 20 for w, b in zip(writers, before)), 20, "all write again")
    for w in writers:
        w.over.set()
    for w in writers:
        w.join(10)
        assert not w.refused
        assert len(w.in_doubt) <= 2, w.in_doubt
    with pair.replica.connect("shop") as c:
        for w in writers:
            there = [r[0] for r in c.execute("select n from ledger where client = %s order by n", [w.client])]
            assert set(w.done) <= set(there), sorted(set(w.done) - set(there))
            assert set(there) - set(w.done) <= set(w.in_doubt)


@pytest.mark.parametrize("how", ["simple", "extended", "transaction"])
def test_a_statement_waits_and_runs_once(proxy, pair, how):
    door = start(proxy, pair, "20s")
    with door.connect("bank") as c:
        c.execute("insert into ledger values (1, 1)")
        kill(door, pair)
        threading.Timer(1.5, promote, [pair.replica]).start()
        began = time.monotonic()
        if how == "simple":
            r = c.pgconn.exec_(b"insert into ledger values (1, 2)")
            assert r.command_status == b"INSERT 0 1", r.error_message
        elif how == "extended":
            c.execute("insert into ledger values (%s, 2)", [1], prepare=True)
        else:
            with c.transaction():
                c.execute("insert into ledger values (1, 2)")
        assert time.monotonic() - began > 1
        assert c.execute("select count(*) from ledger").fetchone() == (2,)


def test_it_is_over_after_its_time(proxy, pair):
    door = start(proxy, pair, "2s")
    with door.connect("bank") as c, door.connect("bank") as reader:
        c.execute("insert into ledger values (1, 1)")
        kill(door, pair)
        began = time.monotonic()
        with pytest.raises(psycopg.errors.CannotConnectNow):
            c.execute("insert into ledger values (1, 2)")
        assert 1.5 < time.monotonic() - began < 6
        # Reads go on meanwhile.
        until(lambda: reader.execute("select count(*) from ledger").fetchone(), 5)


def test_a_cancel_ends_the_wait(proxy, pair):
    door = start(proxy, pair, "60s")
    with door.connect("bank") as c:
        c.execute("insert into ledger values (1, 1)")
        kill(door, pair)
        threading.Timer(2, c.cancel).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            c.execute("insert into ledger values (1, 2)")
        with pytest.raises(psycopg.errors.QueryCanceled):
            threading.Timer(1, c.cancel).start()
            c.execute("insert into ledger values (1, 3)")


def test_zero_is_at_once(proxy, pair):
    door = start(proxy, pair, "0")
    with door.connect("bank") as c:
        c.execute("insert into ledger values (1, 1)")
        kill(door, pair)
        until(lambda: {r["database"]: r["status"] for r in door.rows("HEALTH")}["main"] == "down", 10)
        began = time.monotonic()
        with pytest.raises(psycopg.errors.CannotConnectNow):
            c.execute("insert into ledger values (1, 2)")
        assert time.monotonic() - began < 1
