"""Statements on several databases: tag and merge, in both protocols, inside transactions, refused."""
import time
from decimal import Decimal

import asyncpg
import asyncio
import psycopg
import pytest

import bank


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    return module_proxy(pg, sections=bank.sections(pg), default_pool_size=4)


@pytest.fixture
def c(door):
    with door.connect("bank") as c:
        c.execute("set pgweave.databases = 'primary, secondary'")
        yield c


MERGED = [
    ("select count(*) from users", [(100,)]),
    ("select count(*) as n, min(id), max(id), sum(id) from users", [(100, 1, 120, 5260)]),
    ("select sum(balance) from accounts", None),
    ("select count(*) from users where id > 100000", [(0,)]),
    ("select sum(id), min(id), max(id), count(id) from users where id > 100000", [(None, None, None, 0)]),
    ("select count(*) filter (where id % 3 = 0) from users", [(33,)]),
]


@pytest.mark.parametrize("sql,rows", MERGED)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("in_transaction", [False, True])
def test_aggregates(door, c, sql, rows, binary, in_transaction):
    if rows is None:
        parts = []
        for m in ("primary", "secondary"):
            with door.connect("bank." + m) as d:
                parts.append(d.execute(sql).fetchone()[0])
        rows = [(sum(parts),)]
        assert isinstance(parts[0], Decimal)
    if in_transaction:
        c.execute("begin")
    for prepare in (False, True):
        assert c.execute(sql, binary=binary, prepare=prepare).fetchall() == rows
    if in_transaction:
        c.execute("commit")
    cur = psycopg.ClientCursor(c)
    assert cur.execute(sql).fetchall() == rows


def test_concatenation(c):
    rows = c.execute("select id, name from users").fetchall()
    assert sorted(r[0] for r in rows) == sorted(
        [2 * i for i in range(1, 61)] + [2 * i - 1 for i in range(1, 41)])
    rows = c.execute("select id from users where id = any(%s)", [[1, 2, 3]]).fetchall()
    assert sorted(rows) == [(1,), (2,), (3,)]
    assert c.execute("select id from users where false").fetchall() == []


def test_sharded_without_key(door):
    with door.connect("bank") as c:
        assert c.execute("select count(*) from accounts").fetchone() == (100,)
        assert len(c.execute("select * from accounts").fetchall()) == 100


def test_tag(c):
    c.execute("set pgweave.federation = 'tag'")
    for _ in range(2):
        cur = c.execute("select country, count(*) from users group by 1 order by 1")
        assert [d.name for d in cur.description] == ["database", "country", "count"]
        assert cur.fetchall() == [("primary", "DE", 60), ("secondary", "DE", 40)]
        assert cur.rowcount == 2
    assert c.execute("select 1").fetchall() == [("primary", 1), ("secondary", 1)]
    c.execute("set pgweave.databases = 'all'")
    assert c.execute("select count(*) from users", prepare=True, binary=True).fetchall() == [
        ("primary", 60), ("secondary", 40), ("analytics", 0)]


def test_asyncpg(door):
    async def go():
        d = await asyncpg.connect(host="127.0.0.1", port=door.port, user="alice", password="pw-alice",
                                  database="bank")
        await d.execute("set pgweave.databases = 'primary,secondary'")
        assert await d.fetchval("select count(*) from users where id > $1", 0) == 100
        assert await d.fetchval("select sum(balance) from accounts where user_id < $1", 3) == Decimal("203.00")
        async with d.transaction():
            assert await d.fetchval("select max(id) from users") == 120
            assert len(await d.fetch("select * from users where id between $1 and $2", 5, 8)) == 4
        assert await d.fetchval("/* pgweave: database=secondary */ select current_database()") == "bank_s"
        await d.close()
    asyncio.run(asyncio.wait_for(go(), 60))


REFUSED = [
    "select id from users order by id", "select country, count(*) from users group by country",
    "select avg(id) from users", "select distinct country from users", "select id from users limit 1",
    "select count(distinct country) from users", "select u.id from users u join users v using (id)",
    "select count(*) + 1 from users", "select max(name) from users", "select sum(id::float8) from users",
    "update users set name = name", "delete from users", "insert into users (id, name) values (1, 'x')",
    "create table t (a int)", "select * from users where id = (select max(id) from users)",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_not_exact(c, sql):
    for cursor in (c.cursor(), psycopg.ClientCursor(c)):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            cursor.execute(sql)
    assert c.execute("select count(*) from users").fetchone() == (100,)


def test_columns_differ(c, pg):
    with pg.connect("bank_s", user="alice") as s, pg.connect("bank_p", user="alice") as p:
        p.execute("create table if not exists uneven (a int, b int)")
        s.execute("create table if not exists uneven (a int, b text)")
    for how in ("merge", "tag"):
        c.execute(f"set pgweave.federation = '{how}'")
        for prepare in (False, True):
            with pytest.raises(psycopg.errors.FeatureNotSupported) as e:
                c.execute("select * from uneven", prepare=prepare)
            assert "primary" in str(e.value) and "secondary" in str(e.value)


def test_missing_table(c):
    c.execute("set pgweave.databases = 'all'")
    with pytest.raises(psycopg.errors.UndefinedTable) as e:
        c.execute("select count(*) from accounts")
    assert "analytics" in str(e.value)
    assert c.execute("select count(*) from users").fetchone() == (100,)


@pytest.mark.parametrize("value,state", [("primary,nosuch", "22023"), ("primary,primary", "22023"),
                                         ("nosuch", "22023")])
def test_wrong_lists(c, value, state):
    with pytest.raises(psycopg.Error) as e:
        c.execute(f"set pgweave.databases = '{value}'")
        c.execute("select count(*) from users")
    assert e.value.sqlstate == state


def test_in_parallel(c):
    """Three legs of a second each take about one."""
    c.execute("set pgweave.databases = 'all'")
    began = time.monotonic()
    assert c.execute("select count(*) from users where pg_sleep(case when id in (1, 2) then 1 end) is not null"
                     ).fetchone()[0] >= 0
    assert time.monotonic() - began < 1.8


def test_own_rows_in_transaction(c):
    c.execute("begin")
    c.execute("reset pgweave.databases")
    c.execute("insert into users (id, name) values (5000, 'x')")
    c.execute("set local pgweave.databases = 'primary,secondary'")
    assert c.execute("select count(*) from users").fetchone() == (101,)
    c.execute("rollback")
    assert c.execute("select count(*) from users").fetchone() == (100,)


def test_error_in_a_leg(c):
    for cursor in (c.cursor(), psycopg.ClientCursor(c)):
        with pytest.raises(psycopg.errors.DivisionByZero) as e:
            cursor.execute("select 1 / (id - 1) from users")
        assert "secondary" in str(e.value)
    c.execute("begin")
    with pytest.raises(psycopg.errors.DivisionByZero):
        c.execute("select 1 / (id - 1) from users")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        c.execute("select count(*) from users")
    assert c.execute("commit").statusmessage == "ROLLBACK"
    assert c.execute("select count(*) from users").fetchone() == (100,)


def test_cancel(c):
    import threading
    threading.Timer(0.5, c.cancel).start()
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        c.execute("select count(*) from users where pg_sleep(10) is not null")
    assert time.monotonic() - began < 5
    assert c.execute("select count(*) from users").fetchone() == (100,)


def test_large_and_slow_reader(door, pg):
    for name in ("bank_p", "bank_s"):
        with pg.connect(name, user="alice") as d:
            d.execute("create table if not exists wide as select g as id, repeat('x', 1000) as t "
                      "from generate_series(1, 30000) g")
    with door.connect("bank") as c:
        c.execute("set pgweave.databases = 'primary,secondary'")
        before = door.rss_kb()
        c.pgconn.send_query(b"select id, t from wide")
        time.sleep(1)
        assert door.rss_kb() - before < 40000
        rows = 0
        c.pgconn.set_single_row_mode()
        while (r := c.pgconn.get_result()) is not None:
            rows += r.ntuples
        assert rows == 60000


@pytest.mark.parametrize("federation", ["tag", "merge"])
@pytest.mark.parametrize("first", [True, False])
def test_an_error_ends_the_others(door, federation, first):
    """Whichever of them fails, nobody waits for those that are still at it."""
    bad = "bank_p" if first else "bank_s"
    with door.connect("bank") as c:
        c.execute("set pgweave.databases = 'primary, secondary'")
        c.execute(f"set pgweave.federation = '{federation}'")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.DivisionByZero):
            c.execute(f"select case when current_database() = '{bad}' then 1 / (id * 0) "
                      "else length(pg_sleep(10)::text) end as n from users")
        assert time.monotonic() - began < 5
        assert len(c.execute("/* pgweave: federation=tag */ select count(*) from users").fetchall()) == 2
