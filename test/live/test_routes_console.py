"""Routes made while the proxy runs: ALTER ROUTE, SHOW ROUTES, and the state store behind them."""
import os
import sqlite3

import psycopg
import pytest

import bank
from poll import until
from proxy import is_standin


@pytest.fixture(scope="module")
def base(pg):
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    bank.create(pg)
    for name in bank.MEMBERS.values():
        with pg.connect(name, user="alice") as c:
            c.execute("create schema log; create table log.\"Old\" (id int); create table log.lines (id int);"
                      "create table notes (id int); create table later (id int)")
    return pg


@pytest.fixture
def start(proxy, base, state):
    def run(**settings):
        return proxy(base, sections=bank.sections(base), state_dir=state, **settings)
    return run


@pytest.fixture
def door(start):
    return start()


def console(door, sql):
    with psycopg.connect(door.dsn("pgweave", "admin"), autocommit=True) as c:
        cur = c.execute(sql)
        return [dict(zip([d.name for d in cur.description], row)) for row in cur] \
            if cur.description else cur.statusmessage


def refused(door, sql):
    with pytest.raises(psycopg.Error) as e:
        console(door, sql)
    return e.value.sqlstate, f"{e.value.diag.message_primary} {e.value.diag.message_hint}"


def routes(door):
    return [(r["pattern"], r["database"]) for r in console(door, "SHOW ROUTES")
            if r["virtual"] == "bank" and r["source"] == "state store"]


def where(c, table):
    return c.execute(f"select current_database() from (select count(*) from {table}) t").fetchone()[0]


def test_add_and_drop(door):
    with door.connect("bank") as c:
        assert where(c, "notes") == "bank_p"
        assert console(door, "ALTER ROUTE bank ADD notes, log.* TO analytics") == "ALTER ROUTE"
        # in force at once, also for sessions that are open
        assert (where(c, "notes"), where(c, "log.lines"), where(c, "log.\"Old\"")) == ("bank_a",) * 3
        assert console(door, "alter route bank add log.\"Old\" to Secondary;") == "ALTER ROUTE"
        assert where(c, "log.\"Old\"") == "bank_s"
        assert routes(door) == [("notes", "analytics"), ("log.\"Old\"", "secondary"), ("log.*", "analytics")]
        lines = "\n".join(r[0] for r in c.execute("explain (route) select * from notes"))
        assert "notes = analytics (state store)" in lines
        assert console(door, "ALTER ROUTE bank DROP public.NOTES, log.*") == "ALTER ROUTE"
        assert (where(c, "notes"), where(c, "log.lines"), where(c, "log.\"Old\"")) == ("bank_p", "bank_p", "bank_s")
        assert routes(door) == [("log.\"Old\"", "secondary")]


def test_many_workers(start):
    door = start(workers=4)
    connections = [door.connect("bank") for _ in range(12)]
    for _ in range(5):
        console(door, "ALTER ROUTE bank ADD notes TO secondary")
        assert {where(c, "notes") for c in connections} == {"bank_s"}
        console(door, "ALTER ROUTE bank DROP notes")
        assert {where(c, "notes") for c in connections} == {"bank_p"}
    for c in connections:
        c.close()


def test_outlives_reload_set_and_restart(door, start):
    console(door, "ALTER ROUTE bank ADD notes, later TO analytics")
    for command in ("RELOAD", "SET server_idle_timeout = 100"):
        console(door, command)
        with door.connect("bank") as c:
            assert where(c, "notes") == "bank_a"
    door.stop()
    door = start()
    assert routes(door) == [("notes", "analytics"), ("later", "analytics")]
    with door.connect("bank") as c:
        assert (where(c, "notes"), where(c, "later")) == ("bank_a", "bank_a")
    console(door, "ALTER ROUTE bank DROP later")
    door.stop()
    assert routes(start()) == [("notes", "analytics")]


def test_keys_and_routes_are_kept_apart(door):
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    row, = console(door, "CREATE KEY 'k' TYPE server VIRTUAL bank")
    assert routes(door) == [("notes", "analytics")]
    console(door, "ALTER ROUTE bank DROP notes")
    assert [r["key"] for r in console(door, "SHOW KEYS") if r["name"] == "k"] == [row["key"]]


def test_other_proxies_follow(door, start, state):
    other = start()
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    until(lambda: routes(other) == [("notes", "analytics")], 5, "the other one knows the route")
    with other.connect("bank") as c:
        assert where(c, "notes") == "bank_a"
        console(door, "ALTER ROUTE bank DROP notes")
        until(lambda: where(c, "notes") == "bank_p", 5, "and that it has gone")


@pytest.mark.parametrize("sql,code,words", [
    ("ALTER ROUTE nosuch ADD t TO primary", "42704", "nosuch"),
    ("ALTER ROUTE bank ADD t TO nosuch", "42704", "analytics"),
    ("ALTER ROUTE bank DROP nosuch", "42704", "nosuch"),
    ("ALTER ROUTE bank ADD accounts TO primary", "42710", "shard"),
    ("ALTER ROUTE bank ADD public.accounts TO primary", "42710", "shard"),
    ("ALTER ROUTE bank ADD analytics_events TO primary", "42710", "analytics_events"),
    ("ALTER ROUTE bank ADD t, t TO primary", "42710", "twice"),
    ("ALTER ROUTE bank ADD fresh, archive.* TO primary", "42710", "archive"),
    ("ALTER ROUTE bank DROP analytics_events", "55000", "proxy.ini:"),
    ("ALTER ROUTE bank ADD a.b.c.d TO primary", "22023", "a.b.c.d"),
    ("ALTER ROUTE bank", "42601", "end of input"),
    ("ALTER ROUTE bank ADD TO primary", "42601", ""),
    ("ALTER ROUTE bank ADD t", "42601", "end of input"),
    ("ALTER ROUTE bank ADD t,, u TO primary", "42601", "\",\""),
    ("ALTER ROUTE bank ADD t u TO primary", "42601", "\"u\""),
    ("ALTER ROUTE bank ADD t TO primary now", "42601", "\"now\""),
    ("ALTER ROUTE bank MOVE t TO primary", "42601", "MOVE"),
])
def test_refused(door, sql, code, words):
    got, text = refused(door, sql)
    assert got == code and words in text
    # nothing of it has been done
    assert routes(door) == []


def test_twice_is_refused(door):
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    assert refused(door, "ALTER ROUTE bank ADD Public.Notes TO primary")[0] == "42710"
    assert routes(door) == [("notes", "analytics")]


def test_never_reached_is_said(door):
    console(door, "ALTER ROUTE bank ADD archive.2* TO primary")
    row, = [r for r in console(door, "SHOW ROUTES") if r["pattern"] == "archive.2*"]
    assert "never reached" in row["warning"] and "archive.*" in row["warning"]


def test_only_admins(door):
    with psycopg.connect(door.dsn("pgweave", "stats"), autocommit=True) as c:
        with pytest.raises(psycopg.Error):
            c.execute("ALTER ROUTE bank ADD notes TO analytics")
    assert routes(door) == []


def test_what_makes_no_sense_any_more_is_left_out(door, start, state):
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    door.stop()
    with sqlite3.connect(os.path.join(state, "state.db")) as db:
        db.execute("insert into route values ('bank', 'gone', 'nosuch'), ('nosuch', 't', 'primary'), "
                   "('bank', 'accounts', 'primary'), ('bank', 'public.notes', 'primary')")
    door = start()
    assert routes(door) == [("notes", "analytics")]
    text = door.log(200)
    for pattern in ("gone", "t", "accounts", "public.notes"):
        assert f"route {pattern} of the store is left out" in text
