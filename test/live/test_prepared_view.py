"""pg_prepared_statements where links are shared: each client sees what it has prepared itself, under
its own names, as on PostgreSQL, whichever link it has."""
import re

import pytest

import pgproto as pg_
from transcript import SYNC, Client, again, run

PLACE = "host=127.0.0.1 port={} dbname={}"
VIEW = "pg_prepared_statements"
ALL = f"select name, statement, parameter_types, from_sql from {VIEW} order by name"
OWN = "(select (pg_prepared_statement()).*) p"  # the link's own, which is not looked for there


@pytest.fixture(scope="module")
def databases(pg):
    with pg.connect("postgres") as c:
        for name in ("view_a", "view_b"):
            c.execute(f"create database {name} owner alice")


@pytest.fixture(scope="module")
def door(module_proxy, pg, databases):
    """Two links."""
    return module_proxy(
        pg, databases={"view_a": PLACE.format(pg.port, "view_a")}, pool_mode="transaction",
        default_pool_size=2,
        sections="[virtual view_v]\ndefault = view_a\nmembers = view_a\n")


@pytest.fixture(scope="module")
def narrow(module_proxy, pg, databases):
    """With room for three statements."""
    return module_proxy(pg, databases={"view_a": PLACE.format(pg.port, "view_a")},
                        pool_mode="transaction", default_pool_size=1, max_prepared_statements=3)


def steps():
    """What a client does, and how it looks: by the simple and the extended protocol."""
    yield pg_.query("prepare p (int, text) as select $1, $2")
    yield pg_.parse("s", "select $1::int8 + 1") + SYNC
    yield pg_.parse("t", "select $1", (23,)) + SYNC
    yield pg_.query(ALL)
    yield run(ALL) + SYNC
    yield pg_.parse("view", f"select name, parameter_types from {VIEW} where name = $1") + SYNC
    for _ in range(2):
        yield again("view", ("view",)) + SYNC
        yield again("view", ("s",)) + SYNC
    yield pg_.query(f"prepare x as select 1; prepare v as {ALL}; deallocate p")
    yield pg_.query("execute v")
    yield run("execute v") + SYNC
    yield pg_.query(f"prepare w as select 2; select name from {VIEW} order by 1; deallocate w; "
                    f"select count(*) from {VIEW}")
    yield pg_.describe("S", "view") + SYNC
    yield pg_.close("S", "s") + SYNC
    yield pg_.query(f"begin; select name from {VIEW} order by 1")
    yield pg_.parse("u", "select 1") + run(f"select count(*) from {VIEW}") + SYNC
    yield pg_.query("savepoint a; select 1/0")
    yield pg_.query(f"select 1 from {VIEW}")
    yield run(f"select 1 from {VIEW}") + SYNC
    yield pg_.query(f"rollback to a; select count(*) from {VIEW}; commit")
    yield pg_.query("deallocate all")
    yield pg_.query(ALL)


def test_as_postgresql(door, pg, databases):
    """Two clients with other statements under the same names, which take turns."""
    with Client(door.port, "view_a") as a, Client(door.port, "view_a") as b, \
            Client(pg.port, "view_b") as direct:
        for n, data in enumerate(steps()):
            assert a.say(data) == direct.say(data), data
            b.ask(f"prepare p as select {n}; prepare other{n} as select 1; deallocate p")


@pytest.mark.parametrize("sql", [
    "select nosuch from pg_prepared_statements",
    "select 'ü', x.nosuch from pg_catalog.pg_prepared_statements x",
    "select pg_prepared_statements.name, nosuch from pg_prepared_statements",
    'select pg_catalog.pg_prepared_statements.name from "pg_catalog"."pg_prepared_statements"',
    "with x as (select 2) select count(*), nosuch from pg_prepared_statements, x",
    "with recursive x as (select 2) select count(*) from pg_prepared_statements, x",
    "/* a */ explain (costs off) select nosuch from pg_prepared_statements",
    "prepare q as select nosuch from pg_prepared_statements",
    "create temp table t on commit drop as select name from pg_prepared_statements",
    "copy (select name from pg_prepared_statements) to stdout",
    "select name from pg_prepared_statement() f",
    "(select name from pg_prepared_statements) union all table nosuch",
    "with pg_prepared_statements as (select 7) select * from pg_prepared_statements",
    "select 'pg_prepared_statements'",
    "select count(*) as pg_prepared_statements from generate_series(1, 3)",
    "delete from pg_prepared_statements where nosuch",
])
def test_forms(door, pg, databases, sql):
    """And errors, which point into the client's own text."""
    with Client(door.port, "view_a") as a, Client(pg.port, "view_b") as direct:
        for c in (a, direct):
            c.ask("prepare p as select 1")
        for data in (pg_.query(sql), pg_.query(f"select 1; {sql}"), run(sql) + SYNC):
            for c in (a, direct):
                c.send(data)
            got = [read(c) for c in (a, direct)]
            assert got[0] == got[1]


def read(c):
    """An answer, with the positions of errors."""
    out = []
    while not out or out[-1][0] != "Z":
        type_, fields, body = c.message()
        if type_ == "E":
            out.append((type_, fields["C"], fields["M"], fields.get("P")))
        elif type_ == "T":
            # but from which table the columns are
            out.append((type_, re.findall(rb"(\w+)\0", body)))
        elif type_ != "S":
            out.append((type_, body))
    return out


def test_columns(door, any_pg, pg, module_proxy, databases):
    """Types, names and values of the columns, of this version and a newer one."""
    if any_pg is not pg:
        door = module_proxy(any_pg, databases={"view_a": PLACE.format(any_pg.port, "postgres")},
                            pool_mode="transaction", default_pool_size=2)
    database = "view_b" if any_pg is pg else "postgres"
    look = f"select * from {VIEW}"
    with door.connect("view_a") as a, any_pg.connect(database, user="alice") as direct:
        for c in (a, direct):
            c.execute("prepare p (int) as select $1, 'x'::text")
            c.execute("execute p (1)")
        ours, theirs = a.execute(look), direct.execute(look)
        assert [(d.name, d.type_code) for d in ours.description] == [
            (d.name, d.type_code) for d in theirs.description]
        ours, theirs = ours.fetchone(), theirs.fetchone()
        assert ours[:2] + ours[3:] == theirs[:2] + theirs[3:]
        age = f"select name from {VIEW} where now() - prepare_time < '1min' order by prepare_time"
        a.execute("prepare a as select 1")
        assert a.execute(age).fetchall() == [("p",), ("a",)]
        # the same whenever it is asked
        when = f"select prepare_time from {VIEW} where name = 'p'"
        assert a.execute(when).fetchone() == a.execute(when).fetchone()


def test_drivers(door, databases):
    """psycopg prepares what runs often; and the query that looks is one of them at last."""
    with door.connect("view_a") as a, door.connect("view_a") as b:
        for n in range(7):
            for c in (a, b):
                c.execute("select %s::int", (n,))
                assert c.execute(f"select count(*) from {VIEW}").fetchone()[0] <= 2
        for c in (a, b):
            rows = c.execute(f"select statement, parameter_types from {VIEW} order by 1").fetchall()
            assert [r[0] for r in rows] == [
                "select $1::int", f"select count(*) from {VIEW}"] and rows[0][1] == ["smallint"]


def test_more_than_a_link_has_room_for(narrow, databases, only_pgweave):
    """All are listed; of what is not on the link the types that the client has declared."""
    with Client(narrow.port, "view_a") as a:
        for n in range(4):
            a.ask(f"prepare p{n} as select {n}")
        assert a.say(pg_.parse("s", "select $1, $2", (23, 25)), SYNC) == "1 Z(I)"
        a.ask("prepare q (int) as select $1")
        for n in range(4):
            a.ask(f"execute p{n}")
        got = a.ask(f"select name, parameter_types from {VIEW} order by 1")
        assert got == ("T D(p0|{}) D(p1|{}) D(p2|{}) D(p3|{}) D(q|null) D(s|{integer,text}) "
                       "C(SELECT 6) Z(I)")
        assert a.ask("execute q (5)") == "T D(5) C(SELECT 1) Z(I)"


def test_a_statement_that_cannot_be_prepared_again(door, databases, only_pgweave):
    """The error says which; from then on it is listed all the same."""
    for look in (pg_.query(ALL), run(ALL) + SYNC):
        with Client(door.port, "view_a") as a, Client(door.port, "view_a") as b:
            a.ask("create table gone (a int)")
            assert a.say(pg_.parse("s", "select * from gone where a = $1"), SYNC) == "1 Z(I)"
            a.ask("drop table gone")
            b.ask("begin; deallocate all; discard plans")
            a.ask("select 1")
            b.ask("rollback")
            a.ask("do $$ begin execute 'deallocate all'; end $$")
            got = a.say(look)
            if "E(" in got:
                assert 'E(42P01 relation "gone" does not exist) Z(I)' in got
                got = a.say(look)
            assert "D(s|select * from gone where a = $1|" in got


def test_nothing_is_left(door, databases, only_pgweave):
    """The link keeps nothing of the list."""
    with Client(door.port, "view_a") as a:
        a.ask("prepare p as select 'secret'")
        for look in (pg_.query(ALL), run(ALL) + SYNC):
            assert "secret" in a.say(look)
            assert a.value("select coalesce(current_setting('pgweave.prepared', true), '')") == ""
            assert a.value(f"select count(*) from {OWN} where name = 'pgw_view'") == "0"


def test_on_a_virtual_database(door, databases, only_pgweave):
    with Client(door.port, "view_v") as a, Client(door.port, "view_v") as b:
        for c, text in ((a, "select 1"), (b, "select 2")):
            assert c.ask(f"prepare p as {text}") == "C(PREPARE) Z(I)"
            assert c.say(pg_.parse("s", f"{text} + $1"), SYNC) == "1 Z(I)"
        for c, text in ((a, "select 1"), (b, "select 2")):
            for look in (pg_.query(ALL), run(ALL) + SYNC):
                got = c.say(look)
                assert f"D(p|prepare p as {text}|{{}}|t)" in got
                assert re.search(rf"D\(s\|{re.escape(text)} \+ \$1\|({{integer}}|null)\|f\)", got)
                assert "C(SELECT 2)" in got
