"""Reads that recovery cancels on a replica: the client does not hear of it."""
import threading

import psycopg
import pytest

import pgproto as pg_
from poll import until
from test_causal import sections
from test_health import Pair
from transcript import FLUSH, SYNC, Client, again, run

READ = "select n from ledger where id = 1 and lingers()"
LINGERS = """create function lingers() returns bool stable language plpgsql as $$ begin
    perform pg_sleep(20) where pg_is_in_recovery(); return true; end $$"""
WHERE = "explain (route) " + READ
CANCELLED = "E(40001 canceling statement due to conflict with recovery)"


@pytest.fixture(scope="module")
def pair():
    p = Pair()
    with p.primary.connect("shop", user="alice") as c:
        c.execute("create table ledger (id int primary key, n int not null)")
        c.execute("insert into ledger select i, 7 from generate_series(1, 20) i")
        c.execute(LINGERS)
    with p.replica.connect("postgres") as r:
        r.execute("alter system set max_standby_streaming_delay = 0")
        r.execute("select pg_reload_conf()")
        until(lambda: r.execute("select count(*) from pg_database where datname = 'shop'"), 10)
    with p.replica.connect("shop") as r:
        until(lambda: r.execute("select to_regproc('lingers')").fetchone()[0], 10, "all is there")
    yield p
    p.remove()


@pytest.fixture
def door(proxy, pair):
    door = proxy(pair.primary, sections=sections(pair, "off"), health_interval="1s")
    with Client(door.port) as c:
        until(lambda: "Node: copy" in c.ask(WHERE), 10)
    return door


def conflict(pair, how):
    """Recovery wants what the read that runs on the replica stands in the way of."""
    with pair.replica.connect("postgres") as r:
        until(lambda: r.execute("select count(*) from pg_stat_activity where state = 'active' and "
                                "wait_event = 'PgSleep'").fetchone()[0] == 1, 10, "the read runs")
    with pair.primary.connect("shop", user="alice") as c:
        if how == "lock":
            c.execute("begin; lock table ledger in access exclusive mode; commit")
        else:
            c.execute("update ledger set n = n where id > 1")
            c.execute("vacuum ledger")


@pytest.mark.parametrize("how", ["lock", "vacuum"])
@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_a_cancelled_read_is_repeated(door, pair, how, protocol):
    with Client(door.port) as c:
        if protocol == "prepared":
            # With the description that drivers ask for.
            assert c.say(pg_.parse("x", READ), pg_.describe("S", "x"), SYNC) == "1 t T Z(I)"
            c.send(again("x"), SYNC)
            answer = "2 D(7) C(SELECT 1) Z(I)"
        elif protocol == "extended":
            c.send(pg_.parse("", READ), pg_.bind("", ""), pg_.describe("P", ""), pg_.execute(), SYNC)
            answer = "1 2 T D(7) C(SELECT 1) Z(I)"
        else:
            c.send(pg_.query(READ))
            answer = "T D(7) C(SELECT 1) Z(I)"
        conflict(pair, how)
        assert c.hear() == answer
        # And the next one is the replica's again.
        assert "Node: copy" in c.ask(WHERE)
    assert "a read goes to the primary again" in door.log()


def test_what_was_sent_behind_it_keeps_its_turn(door, pair):
    with Client(door.port) as c:
        c.send(pg_.query(READ), pg_.query("select 8"), run("select 9"), SYNC)
        conflict(pair, "lock")
        assert c.hear(3) == "T D(7) C(SELECT 1) Z(I) T D(8) C(SELECT 1) Z(I) 1 2 D(9) C(SELECT 1) Z(I)"


def test_a_description_that_has_changed_is_the_new_one(door, pair):
    """It is what recovery wanted to do."""
    read = READ.replace("select n", "select *")
    with pair.primary.connect("shop", user="alice") as p, psycopg.connect(
            f"host=127.0.0.1 port={door.port} dbname=bank user=alice password=pw-alice",
            autocommit=True) as c:
        rows = []
        reader = threading.Thread(target=lambda: rows.extend(c.execute(read).fetchall()))
        reader.start()
        with pair.replica.connect("postgres") as r:
            until(lambda: r.execute("select count(*) from pg_stat_activity where "
                                    "wait_event = 'PgSleep'").fetchone()[0] == 1, 10, "the read runs")
        p.execute("alter table ledger add column more text default 'x'")
        reader.join(20)
        assert rows == [(1, 7, "x")]
        p.execute("alter table ledger drop column more")


@pytest.mark.parametrize("how", ["rows were sent", "transaction"])
def test_the_client_hears_of_it_when(door, pair, how):
    with Client(door.port) as c:
        if how == "transaction":
            c.ask("begin read only")
            c.send(pg_.query(READ))
        else:
            # Enough rows to leave the server before the last one, which sleeps.
            c.send(pg_.query("select repeat('x', 9000) from ledger where id < 5 union all "
                             "(select n::text from (" + READ + ") s)"))
        conflict(pair, "lock")
        answer = c.hear()
        assert CANCELLED in answer
        assert answer.endswith("Z(E)" if how == "transaction" else "Z(I)")


def test_a_read_whose_server_goes(door, pair):
    with Client(door.port) as c:
        for messages, answer in ((pg_.query(READ), "T D(7) C(SELECT 1) Z(I)"),
                                 (run(READ) + FLUSH, None)):
            c.send(messages)
            with pair.replica.connect("postgres") as r:
                until(lambda: r.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity where "
                    "wait_event = 'PgSleep'").fetchone()[0] == 1, 10, "the read ran")
            if answer is None:
                assert c.say(SYNC) == "1 2 D(7) C(SELECT 1) Z(I)"
            else:
                assert c.hear() == answer
