"""LISTEN and NOTIFY through a virtual database: at its default member, or the one that is named."""
import contextlib

import pgproto as pg
import psycopg
import pytest

import bank
from test_listen import (Ear, extended, test_many_clients, test_names,  # noqa: F401
                         test_own, test_transactions)
from transcript import Client, run

PRIMARY, ANALYTICS = "primary", "analytics"


class Bank:
    """A door whose clients mean the virtual database when they name none."""

    def __init__(self, door):
        self.door, self.log = door, door.log

    def dsn(self, dbname="bank", **options):
        return self.door.dsn(dbname=dbname, **options)


@pytest.fixture(scope="module")
def shared(module_proxy, made):
    return Bank(module_proxy(made, sections=bank.sections(made), workers=2, default_pool_size=2))


def test_members_hear_each_other(shared, made):
    """The channel is the default member's, by whichever name one comes to it."""
    with Ear(shared) as v, Ear(shared, dbname=PRIMARY) as m, made.connect("bank_p") as direct:
        v.run("listen c")
        m.run("listen c")
        v.run("notify c, 'virtual'")
        m.run("select pg_notify('c', 'member')")
        pid = direct.execute("select pg_backend_pid(), pg_notify('c', 'direct')").fetchone()[0]
        want = [("c", "virtual", v.pid), ("c", "member", m.pid), ("c", "direct", pid)]
        assert v.wait(3) == m.wait(3) == want
        rows = shared.door.rows("LISTENS")
        assert {(r["database"], r["channel"]) for r in rows if r["channel"] == "c"} == {(PRIMARY, "c")}


def test_another_member_that_is_named(shared, extended):  # noqa: F811
    with Ear(shared, extended) as a, Ear(shared, extended, dbname="bank." + ANALYTICS) as b, \
            Ear(shared, extended, dbname=ANALYTICS) as c:
        c.run("listen there")
        b.run("listen there")
        a.run("listen here", "notify there")
        a.run("/* pgweave: database=analytics */ notify there, 'by comment'")
        a.run("set pgweave.database = 'analytics'", "notify there, 'by setting'", "reset pgweave.database")
        want = [("there", "by comment", a.pid), ("there", "by setting", a.pid)]
        assert b.wait(2) == c.wait(2) == want
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="listened to at"):
            a.run("/* pgweave: database=analytics */ listen here")
        a.run("notify here")
        assert a.wait(1) == [("here", "", a.pid)]


def test_transactions_of_several_members(shared, extended):  # noqa: F811
    """NOTIFY writes on its member; what was listened to does not hang on the one that commits."""
    touch = "/* pgweave: database=%s */ update users set name = name where id = -1"
    look = "/* pgweave: database=%s */ select count(*) from users"
    with Ear(shared, extended) as a, Ear(shared) as b:
        a.run("begin", look % PRIMARY, "listen t", touch % ANALYTICS, "commit")
        b.run("notify t")
        assert a.wait(1) == [("t", "", b.pid)]
        a.run("begin", touch % ANALYTICS)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="two databases"):
            a.run("notify t")
        a.run("rollback", "begin", look % ANALYTICS, "unlisten t", touch % ANALYTICS, "rollback")
        b.run("begin", look % ANALYTICS, "notify t, 'late'", "commit")
        assert a.wait(1) == [("t", "late", b.pid)]
        # Nothing was sent to any server.
        a.run("begin", "listen u", "savepoint s", "listen v", "rollback to s", "commit")
        a.run("begin", "listen w", "rollback")
        b.run("notify v", "notify w", "notify u")
        assert a.wait(1) == [("u", "", b.pid)]
        assert a.settled() == []


def test_strings_of_several(shared):
    with Ear(shared) as a, Ear(shared) as b:
        assert a.run("listen a; listen b; unlisten a; notify b, 'x'; select 1") == ["SELECT 1"]
        assert a.had() == [("b", "x", a.pid)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            a.run("listen c; select 1/0")
        a.run("begin; listen e; commit; listen f")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="stand first"):
            a.run("select 1; listen g")
        b.run("notify c", "notify e", "notify f", "notify b")
        assert [n[0] for n in a.wait(3)] == ["e", "f", "b"]
        a.run("discard all")
        b.run("notify e", "notify b")
        assert a.settled() == []


def test_prepared_and_pipelined(shared):
    with Ear(shared) as a, Ear(shared) as b:
        a.pg.prepare(b"l", b"listen prepared")
        for _ in range(2):
            assert a.pg.exec_prepared(b"l", []).command_status == b"LISTEN"
            b.run("notify prepared")
            assert a.wait(1) == [("prepared", "", b.pid)]
            a.run("unlisten *")
    with psycopg.connect(shared.dsn(), autocommit=True) as c:
        heard = []
        c.add_notify_handler(heard.append)
        c.execute("listen piped")
        with c.pipeline():
            c.execute("begin")
            c.execute("notify piped, 'x'")
            c.execute("commit")
            c.execute("notify piped, 'y'")
        assert [(n.payload, n.pid) for n in heard] == [(x, c.pgconn.backend_pid) for x in ("x", "y")]


def test_limits(module_proxy, made):
    door = Bank(module_proxy(made, sections=bank.sections(made), default_pool_size=2,
                             max_listen_channels=2, max_listen_queue="16kB"))
    with Ear(door) as a, Ear(door) as b:
        a.run("listen a", "listen b", "listen a")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="max_listen_channels"):
            a.run("listen c")
        a.run("begin")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="one transaction"):
            a.run(*["listen a"] * 10)
        a.run("rollback", "begin")
        for n in range(3):
            b.run(f"select pg_notify('a', repeat('{n}', 7900))")
        assert a.is_closed_by(door, "max_listen_queue")


@pytest.mark.parametrize("where", ["idle", "in a transaction"])
def test_lost(shared, made, where):
    with Ear(shared) as a:
        a.run("listen lost")
        if where != "idle":
            a.run("begin")
        with made.connect("postgres") as c:
            c.execute("select pg_terminate_backend(pid) from pg_stat_activity where "
                      "datname = 'bank_p'")
        if where != "idle":
            with pytest.raises(psycopg.Error):
                for _ in range(1000):
                    a.run("commit", "begin")
        else:
            assert a.is_closed_by(shared, "notifications may have been missed")
    for _ in range(100):  # the pool's links were ended too, and it hears of each by itself
        with contextlib.suppress(psycopg.Error), Ear(shared) as b:
            b.run("listen lost", "notify lost")
            assert b.wait(1) == [("lost", "", b.pid)]
            return
    pytest.fail("nothing is heard any more")


def test_keys(module_proxy, made):
    """One that may run a statement in an hour may LISTEN, though that waits for the listening
    link; one that reads only may not NOTIFY."""
    name = f"[key {bank.key(3)['user']}]"
    rate = f"[key {bank.key(4)['user']}]"
    sections = bank.sections(made).replace(name, f"{name}\nread_only = yes").replace(rate, f"{rate}\nrate = 1/h")
    door = Bank(module_proxy(made, sections=sections, default_pool_size=2))
    with Ear(door, **bank.key(4)) as a, Ear(door) as b, Ear(door, **bank.key(3)) as reader:
        assert a.run("listen keyed") == ["LISTEN"]
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="rate limit"):
            a.run("unlisten keyed")
        reader.run("listen keyed")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.run("notify keyed")
        b.run("notify keyed")
        assert a.wait(1) == reader.wait(1) == [("keyed", "", b.pid)]


def test_two_phase(shared):
    """Refused, as by PostgreSQL."""
    with Ear(shared) as a:
        a.run("begin", "listen x", "select count(*) from users")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot PREPARE a transaction"):
            a.run("prepare transaction 'p'")
        assert a.run("rollback") == ["ROLLBACK"]


def test_behind_it_stands_a_statement_of_several_members(shared):
    with Ear(shared) as a, Ear(shared) as b:
        a.run("set pgweave.databases = 'primary, secondary'")
        a.run("listen f; select count(*) from users")
        with pytest.raises(psycopg.Error):
            a.run("listen g; select 1 / count(*) from users where id < 0")
        a.run("reset pgweave.databases")
        b.run("notify g", "notify f")
        assert a.wait(1) == [("f", "", b.pid)]
        assert a.settled() == []


def test_query_without_sync_before(shared):
    """A simple query ends what was begun, and holds."""
    with Client(shared.door.port) as a:
        assert a.say(run("listen un"), pg.query("select 1")) == "1 2 C(LISTEN) T D(1) C(SELECT 1) Z(I)"
        assert a.ask("notify un") == "C(NOTIFY) A Z(I)"


@pytest.mark.parametrize("what", ["listen", "unlisten"])
def test_too_many_in_one_transaction(shared, what):
    with Client(shared.door.port) as a:
        a.ask("begin; listen a")
        a.ask("listen a")
        assert a.ask("; ".join([f"{what} a"] * 4100)).endswith(
            "E(54000 too many LISTENs and UNLISTENs in one transaction (max_listen_channels)) Z(E)")
        assert a.ask("rollback") == "C(ROLLBACK) Z(I)"
