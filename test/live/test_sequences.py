"""currval() and lastval() where links are shared: what a client has drawn itself, or an error; never
what another client has drawn on the same link."""
import random

import pytest

import pgproto as pg_
from poll import until
from transcript import SYNC, Client, again, run

PLACE = "host=127.0.0.1 port={} dbname={}"
NOT_YET = "T E(55000 lastval is not yet defined in this session) Z({})"
REFUSED = "E(55000 currval() and lastval() are not known on this server connection) Z(I)"


@pytest.fixture(scope="module")
def databases(pg):
    with pg.connect("postgres") as c:
        c.execute("create database draws owner alice")
    with pg.connect("draws", user="alice") as c:
        for name in "abc":
            c.execute(f"create table {name} (id serial, x int)")
            c.execute(f"alter sequence {name}_id_seq restart {ord(name) * 1000}")


@pytest.fixture
def doors(proxy, pg, databases):
    def start(size=2, **options):
        return proxy(pg, databases={"draws": PLACE.format(pg.port, "draws") + options.pop("line", "")},
                     pool_mode="transaction", default_pool_size=size, workers=1,
                     sections="[virtual draw_v]\ndefault = draws\nmembers = draws\n", **options)
    return start


def pins(door):
    return [(r["reason"], r["statement"]) for r in door.rows("PINS")]


def lastval(c, how, sql="select lastval()"):
    if how == "simple":
        return c.ask(sql)
    if how == "extended":
        return c.say(run(sql), SYNC).removeprefix("1 2 ")
    if how == "parsed before":
        c.say(pg_.parse("last", sql), SYNC)
        return c.say(again("last"), SYNC).removeprefix("2 ")
    return c.ask("execute lastly")


@pytest.mark.parametrize("how", ["simple", "extended", "parsed before", "prepared"])
def test_after_an_insert(doors, how):
    """Right at once, and from then on, since the client keeps its link."""
    door = doors()
    with Client(door.port, "draws") as a, Client(door.port, "draws") as b:
        a.ask("prepare lastly as select lastval()")
        drawn = a.value("insert into a values (default, 1) returning id")
        assert f"D({drawn}) C(SELECT 1) Z(I)" in lastval(a, how)
        assert [r for r, _ in pins(door)] == ["sequence"]
        for _ in range(3):
            other = b.value("insert into b values (default, 1) returning id")
            drawn = a.value("insert into a values (default, 1) returning id")
            b.ask("begin")
            assert f"D({drawn})" in lastval(a, "simple")
            assert f"D({drawn})" in lastval(a, "extended", "select pg_catalog.currval('a_id_seq')")
            assert f"D({other})" in b.ask("select currval('b_id_seq')")
            b.ask("commit")
        assert a.ask("discard sequences") == "C(DISCARD SEQUENCES) Z(I)"
        assert pins(door) == []
        assert a.ask("select lastval()") == NOT_YET.format("I")


def test_in_a_transaction_nobody_is_held(doors):
    door = doors()
    with Client(door.port, "draws") as a:
        for ask in ("select lastval()", "select currval('a_id_seq')"):
            a.ask("begin")
            drawn = a.value("insert into a values (default, 1) returning id")
            assert a.value(ask) == drawn
            a.ask("commit")
        got = a.ask("insert into a values (default, 1) returning id; select lastval()")
        assert got.count(f"D({int(drawn) + 1})") == 2
        got = a.say(run("insert into a values (default, 1)"), run("select lastval()"), SYNC)
        assert f"D({int(drawn) + 2})" in got
        assert pins(door) == []


def test_who_has_drawn_nothing_hears_so(doors):
    """From PostgreSQL, on a link where somebody else has."""
    door = doors(size=1)
    with Client(door.port, "draws") as a:
        a.ask("insert into a values (default, 1)")
    for how in ("simple", "extended", "parsed before", "prepared"):
        with Client(door.port, "draws") as b:
            b.ask("prepare lastly as select lastval()")
            got = lastval(b, how)
            assert "D(" not in got and "E(55000 " in got
            assert pins(door) == []


def test_a_link_that_others_have_used(doors):
    """It is refused, with words that help; and in a transaction answered with nobody's value."""
    door = doors(size=1)
    with Client(door.port, "draws") as a, Client(door.port, "draws") as b:
        for how in ("simple", "extended", "parsed before", "prepared"):
            a.ask("prepare lastly as select lastval()")
            a.ask("insert into a values (default, 1)")
            b.ask("insert into b values (default, 1)")
            got = lastval(a, how)
            assert REFUSED in got or (how == "parsed before" and NOT_YET.format("I")[2:] in got)
            assert a.ask("begin; select 1") == "C(BEGIN) T D(1) C(SELECT 1) Z(T)"
            assert a.ask("select lastval()") == NOT_YET.format("E")
            a.ask("rollback")
        with pytest.raises(Exception) as refused, door.connect("draws") as c:
            c.execute("insert into c values (default, 1)")
            b.ask("select 1")
            c.execute("select lastval()")
        assert refused.value.sqlstate == "55000" and "RETURNING" in refused.value.diag.message_hint


def test_the_link_of_before_is_taken(doors):
    """Though another one came back later, and is the first to be lent."""
    door = doors(size=2)
    with Client(door.port, "draws") as a, Client(door.port, "draws") as b:
        for how in ("simple", "extended", "parsed before", "prepared"):
            b.ask("begin")
            a.ask("prepare lastly as select lastval()")
            drawn = a.value("insert into a values (default, 1) returning id")
            b.ask("commit")
            assert f"D({drawn}) C(SELECT 1) Z(I)" in lastval(a, how)
            a.ask("discard sequences; deallocate all")


def test_pins_may_be_refused(doors):
    door = doors(line=" pin=refuse")
    with Client(door.port, "draws") as a:
        a.ask("insert into a values (default, 1)")
        for got in (a.ask("select lastval()"), a.say(run("select lastval()"), SYNC)):
            assert ("E(0A000 currval() or lastval() would hold the session to its server connection "
                    "(pin = refuse)) Z(I)") in got
        a.ask("begin; insert into a values (default, 1)")
        assert a.ask("select lastval() > 0") == "T D(t) C(SELECT 1) Z(T)"
        a.ask("commit")


def test_on_a_virtual_database(doors, only_pgweave):
    """In a transaction, a string or a batch, and not outside."""
    door = doors()
    with Client(door.port, "draw_v") as a:
        drawn = a.value("insert into a values (default, 1) returning id")
        for how in ("simple", "extended"):
            assert REFUSED in lastval(a, how)
        assert REFUSED in a.ask("insert into b values (currval('a_id_seq'))")
        a.ask("begin")
        drawn = a.value("insert into a values (default, 1) returning id")
        assert f"D({drawn})" in lastval(a, "simple") and f"D({drawn})" in lastval(a, "extended")
        a.ask("commit")
        drawn = int(drawn)
        assert f"D({drawn + 1})" in a.ask("insert into a values (default, 1); select lastval()")
        assert f"D({drawn + 2})" in a.say(
            run("insert into a values (default, 1)"), run("select lastval()"), SYNC)


@pytest.mark.parametrize("seed", range(4))
def test_never_anothers(doors, seed, only_pgweave):
    """Clients in turns: what comes is what the client has drawn last, or SQLSTATE 55000."""
    rnd = random.Random(seed)
    door = doors()
    print("seed", seed)
    clients = [Client(door.port, "draws") for _ in range(4)]
    drawn, busy, held, answered = [{} for _ in clients], set(), set(), 0
    # from now on links are cleaned before they change hands
    assert clients[0].ask("select lastval()") == NOT_YET.format("I")
    for _ in range(150):
        who = rnd.randrange(4)
        c, mine, kind = clients[who], drawn[who], rnd.random()
        if len(busy | held) == 2 and who not in busy | held:
            continue  # there are two links
        if kind < 0.4:
            table = rnd.choice("abc")
            mine[table] = mine["last"] = c.value(f"insert into {table} values (default) returning id")
        elif kind < 0.5:
            c.ask("commit" if who in busy else "begin")
            busy ^= {who}
        elif kind < 0.6 and who not in busy:
            c.ask("discard sequences")
            mine.clear()
            held.discard(who)
        else:
            table = rnd.choice(["last", "a", "b", "c"])
            sql = "select lastval()" if table == "last" else f"select currval('{table}_id_seq')"
            got = lastval(c, rnd.choice(["simple", "extended"]), sql)
            if "E(55000" not in got:
                assert f"D({mine.get(table)})" in got
                answered += 1
                held |= {who} - busy
            elif who in busy:
                c.ask("rollback")
                busy.discard(who)
    assert answered > 0
    for c in clients:
        c.sock.close()
    until(lambda: pins(door) == [], 10)
