"""Statements that were decided before: what must make them be decided anew."""
import psycopg
import pytest

import bank
from proxy import is_standin

READ = "select current_database() from (select count(*) from {} where id > {}) t"


@pytest.fixture(scope="module")
def base(pg):
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    bank.create(pg)
    for name in bank.MEMBERS.values():
        with pg.connect(name, user="alice") as c:
            c.execute("create table notes (id int)")
    return pg


@pytest.fixture
def door(proxy, base, state):
    return proxy(base, sections=bank.sections(base), state_dir=state, workers=1)


class Asks:
    """The same statement in the ways that are told apart: a text, texts that differ in a
    number, a prepared statement, and an unnamed one."""

    def __init__(self, c, table):
        self.c, self.table, self.n = c, table, 0

    def all(self):
        self.n += 1
        said = [self.c.execute(READ.format(self.table, n)) for n in (1, self.n)]
        said += [self.c.execute(READ.format(self.table, "%s"), (1,), prepare=p)
                 for p in (True, False)]
        return {cur.fetchone()[0] for cur in said}


def test_settings_and_hints(door):
    with door.connect("bank") as c, door.connect("bank") as other:
        asks, theirs = Asks(c, "notes"), Asks(other, "notes")
        for _ in range(3):
            assert asks.all() == theirs.all() == {"bank_p"}
            c.execute("set pgweave.database = 'secondary'")
            assert asks.all() == {"bank_s"} and theirs.all() == {"bank_p"}
            hinted = "/* pgweave: database=analytics */ " + READ.format("notes", 1)
            assert c.execute(hinted).fetchone()[0] == "bank_a"
            c.execute("reset pgweave.database")
            assert asks.all() == {"bank_p"}
            with c.transaction():
                c.execute("set local pgweave.database = 'analytics'")
                assert asks.all() == {"bank_a"}
            assert asks.all() == {"bank_p"}
            with c.transaction():
                assert asks.all() == {"bank_p"}
    with door.connect("bank.secondary") as c:
        assert Asks(c, "notes").all() == {"bank_s"}


def test_routes_and_reloads(door):
    with door.connect("bank") as c, \
            psycopg.connect(door.dsn("pgweave", "admin"), autocommit=True) as console:
        asks = Asks(c, "notes")
        for _ in range(2):
            assert asks.all() == {"bank_p"}
            console.execute("ALTER ROUTE bank ADD notes TO analytics")
            assert asks.all() == {"bank_a"}
            console.execute("ALTER ROUTE bank DROP notes")
            assert asks.all() == {"bank_p"}
            console.execute("RELOAD")
            assert asks.all() == {"bank_p"}


def test_keys(door):
    """What one key may do, another may not."""
    with psycopg.connect(door.dsn("bank", **bank.key(1)), autocommit=True) as odd, \
            psycopg.connect(door.dsn("bank", **bank.key(2)), autocommit=True) as even, \
            door.connect("bank") as anybody:
        for _ in range(3):
            assert Asks(anybody, "notes").all() == {"bank_p"}
            assert Asks(even, "notes").all() == {"bank_p"}
            assert Asks(odd, "notes").all() == {"bank_s"}
            assert anybody.execute("select count(*) from analytics_events").fetchone() == (0,)
            for c in (even, odd):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    c.execute("select count(*) from analytics_events")


def test_members_that_are_away(door):
    """A member in maintenance is asked no more, by whatever way its statements come."""
    with door.connect("bank") as c, \
            psycopg.connect(door.dsn("pgweave", "admin"), autocommit=True) as console:
        asks = Asks(c, "archive.old")
        assert asks.all() == {"bank_a"}
        console.execute("MAINTENANCE analytics")
        for say in (lambda: c.execute(READ.format("archive.old", 1)),
                    lambda: c.execute(READ.format("archive.old", "%s"), (1,), prepare=True)):
            with pytest.raises(psycopg.errors.CannotConnectNow):
                say()
        console.execute("RESUME analytics")
        assert asks.all() == {"bank_a"}
