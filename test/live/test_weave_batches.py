"""The extended protocol on virtual databases: batches without their Sync, batches that are doomed
because their statements belong to different members, what is skipped after an error, statements
and portals that are answered by the proxy itself, COPY, drivers, and bounds of memory."""
import asyncio
import os
import random
import signal
import threading

import asyncpg
import pytest

import activity
import bank
import pgproto as pg_
from ledger import ANSWER, EVENTS, USERS, event, insert, written
from poll import until
from proxy import is_sanitized
from transcript import FLUSH, SYNC, Client, again, call, run

BOTH = "/* pgweave: databases=primary,secondary */ "
COUNT = BOTH + "select count(*) from users"
DIFFERENT = "E(0A000 the statements of one batch belong to different databases)"
MB = 1 << 20


# ---- without a Sync ----

def test_query_behind_an_unsynced_batch(c):
    assert c.say(run("select 1"), pg_.query("select 2")) == (
        "1 2 D(1) C(SELECT 1) T D(2) C(SELECT 1) Z(I)")
    assert c.ask("select 3") == "T D(3) C(SELECT 1) Z(I)"


def test_function_call_behind_an_unsynced_batch(c):
    assert c.say(run("select 1"), call(2026)) == "1 2 D(1) C(SELECT 1) V Z(I)"
    assert c.ask("select 3") == "T D(3) C(SELECT 1) Z(I)"


# ---- doomed ----

@pytest.mark.parametrize("in_transaction", [False, True])
def test_statements_of_different_members_in_one_batch(c, made, n, in_transaction):
    """The batch fails as a whole, and what follows its failure up to Sync is skipped."""
    if in_transaction:
        c.ask("begin")
    t = c.say(run(insert(n)), run(event(n)), run("select 1"), SYNC)
    assert t == f"1 2 C(INSERT 0 1) {DIFFERENT} Z({'E' if in_transaction else 'I'})"
    if in_transaction:
        assert c.ask("commit") == "C(ROLLBACK) Z(I)"
    assert written(made, n) == (0, 0)
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"


def test_the_error_of_a_doomed_batch_is_not_the_next_ones(proxy, own_pg):
    """The server crashes before the batch is over: the next statement does not get its refusal."""
    bank.create(own_pg)
    door = proxy(own_pg, sections=bank.sections(own_pg), default_pool_size=4)
    with Client(door.port, seconds=20) as c:
        c.send(run("select pg_sleep(3) from users"), run("select * from analytics_events"), SYNC)
        os.kill(activity.busy(own_pg, "pg_sleep"), signal.SIGKILL)
        t = c.hear()
        assert "EOF" not in t and t.count("E(") == 1 and t.endswith("Z(I)"), t
        def answers():
            said = c.ask("select 1")
            assert "different databases" not in said
            return said == "T D(1) C(SELECT 1) Z(I)"
        until(answers, 20, "the server answers again", step=0.2)


# ---- after an error ----

def test_nothing_runs_between_an_error_and_its_sync(c, made, n):
    """Not even what belongs to another member than what has failed."""
    refused = 'E(42703 column "nosuch" does not exist) Z(I)'
    assert c.say(pg_.parse("", "select nosuch from users"), run(EVENTS), SYNC) == refused
    assert c.say(pg_.parse("", "select nosuch from analytics_events"), run(insert(n)), SYNC) == refused
    assert c.say(run(USERS), pg_.parse("", "select nosuch from users"), run(insert(n)), SYNC) == (
        "1 2 D(0) C(SELECT 1) " + refused)
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
    assert written(made, n) == (0, 0)


MIXED = [
    ([run(COUNT), run("show pgweave.database"), SYNC], "1 2 D(100) C(SELECT 1) 1 2 D() C(SHOW) Z(I)"),
    ([run(COUNT), run("select 1"), SYNC], "1 2 D(100) C(SELECT 1) 1 2 D(1) C(SELECT 1) Z(I)"),
    ([run("show pgweave.database"), run(COUNT), run("begin"), run("select 7"), run("commit"), SYNC],
     "1 2 D() C(SHOW) 1 2 D(100) C(SELECT 1) 1 2 C(BEGIN) 1 2 D(7) C(SELECT 1) 1 2 C(COMMIT) Z(I)"),
    ([run("show pgweave.database"), run(COUNT), FLUSH, run("select 1/0"), run("select 1"), SYNC],
     "1 2 D() C(SHOW) 1 2 D(100) C(SELECT 1) 1 E(22012 division by zero) Z(I)"),
    ([run(BOTH + "select 1/(id-id) from users"), run("select 1"), SYNC],
     "1 2 E(22012 division by zero) Z(I)"),
    ([run(BOTH + "copy users to stdout"), run("select 1"), SYNC],
     "E(0A000 only SELECT can be federated yet) Z(I)"),
    ([run("select 1"), run("show pgweave.database"), SYNC], f"1 2 D(1) C(SELECT 1) {DIFFERENT} Z(I)"),
]


@pytest.mark.parametrize("messages,expected", MIXED)
def test_statements_of_server_and_proxy_in_one_batch(c, messages, expected):
    assert c.say(*messages) == expected
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"


def test_six_hundred_requests_in_one_go(c):
    """Requests of every kind, answered in their order. The seed is 5."""
    rnd = random.Random(5)
    messages, expected = [], []
    for i in range(600):
        form, answer = rnd.choice([
            (pg_.query(f"select {i} from users limit 1"), i),
            (run(f"select {i}, count(*) * 0 from analytics_events") + SYNC, f"{i}|0"),
            (run("show pgweave.federation") + SYNC, "merge"),
            (pg_.query(BOTH + f"select max({i}) from users"), i),
            (run(BOTH + f"select max({i}) from users") + SYNC, i),
            (pg_.query(f"begin; select {i}; commit"), i),
            (run("select $1::int", [str(i)]) + SYNC, i)])
        messages.append(form)
        expected.append(f"D({answer})")
    sender = threading.Thread(target=c.send, args=messages)
    sender.start()
    t = c.hear(readies=600, seconds=20)
    sender.join()
    assert [w for w in t.split(" ") if w.startswith("D(")] == expected


# ---- statements and portals ----

def test_federated_statement_that_was_prepared(c):
    assert c.say(pg_.parse("f", COUNT), pg_.describe("S", "f"), SYNC) == "1 t T Z(I)"
    assert c.say(again("f"), SYNC, again("f"), SYNC, pg_.query("select 5"), readies=3) == (
        "2 D(100) C(SELECT 1) Z(I) 2 D(100) C(SELECT 1) Z(I) T D(5) C(SELECT 1) Z(I)")


def test_local_query_drops_the_unnamed_statement(c):
    assert c.say(pg_.parse("", "select 1"), SYNC) == "1 Z(I)"
    assert c.ask("show pgweave.database") == "T D() C(SHOW) Z(I)"
    assert c.say(again(), SYNC) == "E(26000 unnamed prepared statement does not exist) Z(I)"


def test_local_portal_ends_with_its_transaction(c):
    """Its name is free again, also when the Sync went to a server."""
    assert c.say(run("show pgweave.database", name="s", portal="p"), run("select 1"), SYNC) == (
        "1 2 D() C(SHOW) 1 2 D(1) C(SELECT 1) Z(I)")
    assert c.say(again("s", portal="p"), SYNC) == "2 D() C(SHOW) Z(I)"
    assert c.say(pg_.execute("p"), SYNC) == 'E(34000 portal "p" does not exist) Z(I)'


def test_unnamed_portal_is_the_last_one(c):
    """Execute goes on with the server's portal, not with an older one of the proxy's."""
    c.ask("begin")
    assert c.ask(USERS) == ANSWER + "Z(T)"
    assert c.say(run("show pgweave.federation"), run("select generate_series(1, 9)", rows=2), SYNC) == (
        "1 2 D(merge) C(SHOW) 1 2 D(1) D(2) s Z(T)")
    assert c.say(pg_.execute("", 2), SYNC) == "D(3) D(4) s Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


# ---- COPY ----

def test_copy_that_fails(c):
    c.send(pg_.query("copy users (id, name) from stdin"))
    c.until("G")
    t = c.say(pg_.copy_data(b"x\ty\n"), pg_.copy_data(b"x\ty\n"), pg_.COPY_DONE)
    assert t.startswith("E(22P02") and t.endswith("Z(I)")
    c.ask("begin")
    c.send(pg_.query("copy analytics_events (user_id, kind) from stdin"))
    c.until("G")
    t = c.say(pg_.copy_data(b"5\ty\n"), pg_.copy_fail("no"))
    assert t == "E(57014 COPY from stdin failed: no) Z(E)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_copy_in_the_extended_protocol(c, n):
    c.send(run("copy analytics_events (user_id, kind) from stdin"), SYNC)
    c.until("G")
    assert c.say(pg_.copy_data(b"%d\ty\n" % n), pg_.COPY_DONE, SYNC) == "C(COPY 1) Z(I)"
    c.send(run("copy users (id, name) from stdin"), SYNC)
    c.until("G")
    t = c.say(pg_.copy_data(b"x\ty\n"), pg_.COPY_DONE, SYNC)
    assert t.startswith("E(22P02") and t.endswith("Z(I)")
    assert c.say(run(f"copy (select kind from analytics_events where user_id = {n}) to stdout"),
                 SYNC) == "1 2 H d c C(COPY 1) Z(I)"
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"


# ---- drivers ----

def through_asyncpg(door, go):
    async def main():
        c = await asyncpg.connect(host="127.0.0.1", port=door.port, user="alice",
                                  password="pw-alice", database="bank")
        try:
            await go(c)
        finally:
            await c.close()
    asyncio.run(asyncio.wait_for(main(), 30))


def test_asyncpg_keeps_what_it_prepared(door):
    """A statement that is prepared and not used yet, simple queries, another statement."""
    async def go(c):
        kept = await c.prepare("select 1")
        assert await c.execute("select 1") == "SELECT 1"
        assert [tuple(r) for r in await c.fetch("select 2")] == [(2,)]
        assert await c.fetchval(EVENTS) == 0
        assert await kept.fetchval() == 1
    through_asyncpg(door, go)


def test_asyncpg_copy_that_fails(door, made, n):
    async def go(c):
        columns = ["id", "name"]
        with pytest.raises(asyncpg.UniqueViolationError):
            await c.copy_records_to_table("users", records=[(n, "a"), (n, "b")], columns=columns)
        with pytest.raises(asyncpg.UndefinedTableError):
            await c.copy_records_to_table("nosuch", records=[(n, "a")], columns=columns)
        assert await c.fetchval("select 3") == 3
        async with c.transaction():
            assert await c.copy_records_to_table("users", records=[(n, "a")], columns=columns) == "COPY 1"
            assert await c.fetchval(EVENTS) == 0
    through_asyncpg(door, go)
    assert written(made, n) == (1, 0)


def test_psycopg_prepares_at_the_fifth(door, made, n):
    """The same INSERT ten times in a transaction, its shard key that of the second member."""
    with door.connect("bank", autocommit=False) as c:
        for i in range(10):
            c.execute("insert into accounts (user_id, balance) values (%s, %s)", [200001 + 2 * i, i])
        assert c.execute("select count(*) from users where id < 0").fetchone() == (0,)
        c.commit()
    with made.connect("bank_s") as s:
        assert s.execute("select count(*), sum(balance) from accounts where user_id > 200000"
                         ).fetchone() == (10, 45)


# ---- bounds ----

def test_kept_statements_count(c, door):
    """Named statements that the proxy answers itself take no end of memory either."""
    before = door.rss_kb()
    for i in range(20):
        t = c.say(pg_.parse(f"s{i}", f"show pgweave.database /*{i}" + "y" * (8 * MB) + "*/"), SYNC,
                  seconds=30)
        if t != "1 Z(I)":
            break
    assert t.startswith("E(53200") and i <= 8, t[:200]
    assert door.rss_kb() - before < (300 if is_sanitized() else 100) * 1024


def test_kept_portals_count(c, door):
    c.ask("begin")
    assert c.say(pg_.parse("s", "show pgweave.database"), SYNC) == "1 Z(T)"
    before, value = door.rss_kb(), "z" * (4 * MB)
    for i in range(50):
        t = c.say(pg_.bind(f"p{i}", "s", [value]), SYNC, seconds=20)
        if t != "2 Z(T)":
            break
    assert t.startswith("E(53200") and i <= 20, t[:200]
    assert door.rss_kb() - before < (300 if is_sanitized() else 100) * 1024
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def cpu_seconds(door):
    with open(f"/proc/{door.pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_parse_that_waits_for_its_bind_is_read_once(door):
    """Not anew with every piece of a long Bind behind it."""
    padding = pg_.bind("", "other", ["y" * (24 * MB)])

    def cost(name, column):
        sql = f"select 1 from accounts where {column} = $1 /*" + "x" * (2 * MB) + "*/"
        before = cpu_seconds(door)
        with Client(door.port, seconds=60) as c:
            sender = threading.Thread(target=c.send, args=(pg_.parse(name, sql), padding, SYNC))
            sender.start()
            assert c.hear().endswith("Z(I)")
            sender.join()
        return cpu_seconds(door) - before
    waits = cost("a", "user_id")
    assert waits < 3 * cost("b", "balance") + 1
