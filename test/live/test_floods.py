"""Floods of the extended protocol: a hundred thousand statements of one client, messages without
a Sync, definitions under the prepared statements of twenty sessions."""
import socket
import threading
import time

import pytest

import pgproto as pg_
from poll import until
from proxy import is_sanitized
from transcript import SYNC, Client, again

MANY = 20000 if is_sanitized() else 100000
SESSIONS = 20


@pytest.fixture(autouse=True)
def _ours(only_pgweave):
    pass


@pytest.fixture
def door(proxy, pg):
    return proxy(pg, pool_mode="transaction", default_pool_size=2, workers=2)


def serves(door):
    with Client(door.port, "shop") as c:
        return c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"


def test_a_hundred_thousand_statements(door, pg):
    """Each keeps its own meaning, the server has few of them, and they leave with the client."""
    serves(door)
    before = door.rss_kb()
    with Client(door.port, "shop", seconds=60) as c:
        for first in range(0, MANY, 10000):
            texts = [pg_.parse(f"s{n}", f"select {n}") for n in range(first, first + 10000)]
            sender = threading.Thread(target=c.send, args=(*texts, SYNC))
            sender.start()
            want = 10000 * b"1\0\0\0\4" + pg_.ready("I")
            assert c.need(len(want)) == want
            sender.join()
        for n in (0, MANY * 7 // 9, MANY - 1, 4, 0):
            assert c.say(again(f"s{n}"), SYNC) == f"2 D({n}) C(SELECT 1) Z(I)"
        assert c.say(pg_.parse("s5", "select 1"), SYNC) == \
            'E(42P05 prepared statement "s5" already exists) Z(I)'
        counted = c.ask("select count(*) from (select pg_prepared_statement()) p")
        assert int(counted[4:counted.index(")")]) <= 1000
        if not is_sanitized():
            assert door.rss_kb() - before < 1.0 * MANY
        assert serves(door)
    until(lambda: len(door.rows("CLIENTS")) == 1, 10)
    with Client(door.port, "shop") as c:
        assert c.say(again("s0"), SYNC) == \
            'E(26000 prepared statement "s0" does not exist) Z(I)'


@pytest.mark.parametrize("piece", [
    pytest.param(pg_.parse("", "select repeat('x', 100)") + again(), id="batches"),
    pytest.param(pg_.parse("", "select 1/0") + again(), id="errors"),
    pytest.param(pg_.describe("S", "none") + pg_.FLUSH, id="flushes"),
    pytest.param(pg_.close("S", "none"), id="closes"),
])
def test_no_sync_ever(door, piece):
    """It is the sender who waits: what comes is bounded here, and others are served."""
    serves(door)
    before = most = door.rss_kb()
    flood = memoryview(piece * (1 + (1 << 20) // len(piece)))
    with Client(door.port, "shop") as c:
        c.sock.settimeout(0.2)
        sent, over = 0, time.monotonic() + 1.5
        while sent < 64 << 20 and time.monotonic() < over:
            try:
                sent += c.sock.send(flood)
            except socket.timeout:
                break
            except ConnectionError:
                break
            most = max(most, door.rss_kb())
        assert serves(door)
        most = max(most, door.rss_kb())
    assert most - before < (200000 if is_sanitized() else 30000), f"{most - before} kB of {sent}"
    until(lambda: len(door.rows("CLIENTS")) == 1, 10)
    assert serves(door) and serves(door)


def test_definitions_under_prepared_statements(door, pg):
    """Columns come and go while twenty sessions prepare and execute: nobody sees an error that a
    session of its own would not have seen, and each row has the columns that it was described."""
    with pg.connect("shop") as d:
        d.execute("drop table if exists flood; create table flood (a int);"
                  "insert into flood values (7); grant all on flood to public")
    over, faults = threading.Event(), []

    def work():
        try:
            with Client(door.port, "shop") as c:
                while not over.is_set():
                    got = c.say(pg_.parse("", "select * from flood"), pg_.describe("S", ""),
                                again(), SYNC)
                    if got not in ("1 t T 2 D(7) C(SELECT 1) Z(I)", "1 t T 2 D(7|1) C(SELECT 1) Z(I)"):
                        faults.append(got)
        except (OSError, EOFError) as e:
            faults.append(repr(e))
    crowd = [threading.Thread(target=work) for _ in range(SESSIONS)]
    for t in crowd:
        t.start()
    try:
        with pg.connect("shop") as other:
            for n in range(20):
                other.execute("alter table flood add b int default 1" if n % 2 == 0
                              else "alter table flood drop b")
                time.sleep(0.02)
    finally:
        over.set()
        for t in crowd:
            t.join()
    assert not faults, (len(faults), sorted(set(faults))[:5])
