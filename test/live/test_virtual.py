"""Virtual databases: where statements go, in both protocols, and what transactions do."""
import json
import time

import psycopg
import pytest

import bank
from poll import until


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    return module_proxy(pg, sections=bank.sections(pg), default_pool_size=4,
                        health_interval="1s")


@pytest.fixture
def c(door):
    with door.connect("bank") as c:
        yield c


def where(c, sql="", **how):
    return c.execute(f"{sql} select current_database()", **how).fetchone()[0]


ROUTED = [
    ("select current_database()", "bank_p"),
    ("select current_database() from users limit 1", "bank_p"),
    ("select current_database() from public.analytics_events", None),
    ("insert into analytics_events (user_id, kind) values (1, 'x') returning current_database()", "bank_a"),
    ("with t as (select 1) insert into analytics_events (kind) select 'y' from t returning current_database()",
     "bank_a"),
    ("select current_database() from (select count(*) from analytics_events) t", "bank_a"),
    ("select current_database() from (select count(*) from archive.old) t", "bank_a"),
    ("/* pgweave: database=secondary */ select current_database()", "bank_s"),
    ("-- pgweave: database=SECONDARY\nselect current_database()", "bank_s"),
    ("select current_database() from accounts where user_id = 42", "bank_p"),
    ("select current_database() from accounts where user_id = 41", "bank_s"),
    ("select current_database() from accounts a where 39 = a.user_id and balance > 0", "bank_s"),
    ("update accounts set balance = 0 where user_id in (2, 4) returning current_database()", "bank_p"),
    ("insert into accounts (user_id, balance) values (-3, 0) returning current_database()", "bank_s"),
]


@pytest.mark.parametrize("sql,expected", ROUTED)
@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_route(door, sql, expected, protocol):
    with door.connect("bank") as c:
        if protocol == "simple":
            c.execute("begin")
            r = c.pgconn.exec_(sql.encode())
            got = r.get_value(0, 0).decode() if r.ntuples else None
            ok = r.status == psycopg.pq.ExecStatus.TUPLES_OK
        else:
            c.execute("begin")
            try:
                row = c.execute(sql, prepare=protocol == "prepared").fetchone()
                got, ok = row and row[0], True
            except psycopg.Error:
                got, ok = None, False
        c.execute("rollback")
        if expected is not None:
            assert ok and got == expected
        else:
            assert got is None


def test_shard_parameters(c):
    """Text and binary parameters decide, also of a statement that was prepared elsewhere."""
    for i in range(20):
        for binary in (False, True):
            found = c.execute("select current_database(), user_id from accounts where user_id = %s",
                              [i], binary=binary, prepare=i > 5).fetchone()
            if found is not None:
                assert found == ("bank_s" if i % 2 else "bank_p", i)
    assert c.execute("select user_id from accounts where user_id = %b", [41], prepare=True).fetchone() == (41,)


def test_set_and_show(c):
    show = lambda: c.execute("show pgweave.database").fetchone()[0]  # noqa: E731
    assert show() == ""
    c.execute("set pgweave.database = 'analytics'")
    assert (show(), where(c)) == ("analytics", "bank_a")
    assert where(c, "/* pgweave: database=secondary */") == "bank_s"
    c.execute("begin")
    c.execute("set local pgweave.database = 'secondary'")
    assert where(c) == "bank_s"
    c.execute("commit")
    assert where(c) == "bank_a"
    c.execute("begin")
    c.execute("set pgweave.database to primary")
    c.execute("rollback")
    assert show() == "analytics"
    c.execute("reset pgweave.database")
    assert where(c) == "bank_p"
    c.execute("set pgweave.database = 'analytics'")
    c.execute("discard all")
    assert where(c) == "bank_p"
    c.execute("set pgweave.database = 'secondary'")
    assert c.execute("show pgweave.routed").fetchone()[0] == "primary"
    where(c)
    assert c.execute("show pgweave.routed").fetchone()[0] == "secondary"


@pytest.mark.parametrize("sql,state,words", [
    ("set pgweave.database = 'nosuch'", "22023", "analytics"),
    ("set pgweave.federation = 'x'", "22023", "merge"),
    ("set pgweave.nosuch = 'x'", "42704", "nosuch"),
    ("show pgweave.nosuch", "42704", "nosuch"),
    ("/* pgweave: database=nosuch */ select 1", "22023", "nosuch"),
    ("/* pgweave: databse=primary */ select 1", "22023", "databse"),
    ("select * from users, analytics_events", "0A000", "analytics"),
    ("insert into accounts (user_id) select 1 union select 2", "0A000", ""),
    ("insert into accounts (user_id) values (null)", "22004", ""),
    ("update accounts set balance = 0", "0A000", "user_id"),
    ("select set_config('pgweave.database', 'analytics', false)", "0A000", "SET"),
])
@pytest.mark.parametrize("in_transaction", [False, True])
def test_refused(c, sql, state, words, in_transaction):
    if in_transaction:
        c.execute("begin")
    with pytest.raises(psycopg.Error) as e:
        c.execute(sql)
    assert e.value.sqlstate == state
    d = e.value.diag
    assert words in f"{d.message_primary} {d.message_detail} {d.message_hint}"
    if in_transaction:
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            c.execute("select 1")
        c.execute("rollback")
    assert c.execute("select 1").fetchone() == (1,)


def test_transaction(door, pg):
    with door.connect("bank", autocommit=False) as c:
        c.execute("insert into users (id, name) values (9001, 'x')")
        # a read of another member within the same transaction
        assert c.execute("select count(*) >= 0 from analytics_events").fetchone() == (True,)
        with pytest.raises(psycopg.errors.FeatureNotSupported) as e:
            c.execute("insert into analytics_events (kind) values ('z')")
        assert "primary" in str(e.value) and "analytics" in str(e.value)
        c.rollback()
        assert c.execute("select count(*) from users where id = 9001").fetchone() == (0,)
        c.commit()
        # read elsewhere first, then write: both are of one transaction
        c.execute("select count(*) from analytics_events")
        c.execute("insert into users (id, name) values (9001, 'x')")
        c.commit()
        assert c.execute("select name from users where id = 9001").fetchone() == ("x",)
        c.execute("delete from users where id = 9001")
        c.commit()
    with pg.connect("bank_a") as a:
        assert a.execute("select count(*) from pg_stat_activity where state like 'idle in trans%'"
                         ).fetchone() == (0,)


def test_deferred_begin(c):
    status = psycopg.pq.TransactionStatus
    assert c.execute("begin isolation level serializable").statusmessage == "BEGIN"
    assert c.info.transaction_status == status.INTRANS
    assert c.execute("show transaction_isolation").fetchone() == ("serializable",)
    c.execute("insert into analytics_events (kind) values ('deferred')")
    c.execute("savepoint a")
    with pytest.raises(psycopg.errors.DivisionByZero):
        c.execute("select 1/0 from analytics_events")
    assert c.info.transaction_status == status.INERROR
    c.execute("rollback to a")
    assert c.execute("commit").statusmessage == "COMMIT"
    assert c.info.transaction_status == status.IDLE
    assert c.execute("begin").statusmessage == "BEGIN"
    assert c.execute("rollback").statusmessage == "ROLLBACK"
    assert c.execute("commit").statusmessage == "COMMIT"
    c.execute("begin")
    with pytest.raises(psycopg.Error):
        c.execute("select nosuch from users")
    assert c.execute("commit").statusmessage == "ROLLBACK"
    assert c.info.transaction_status == status.IDLE
    c.execute("begin read only")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        c.execute("insert into users (id, name) values (1, 'x')")
    c.execute("rollback")


def test_several_in_one_string(c):
    r = c.pgconn.exec_(b"set pgweave.database = 'analytics'; select current_database()")
    assert r.get_value(0, 0) == b"bank_a"
    r = c.pgconn.exec_(b"reset pgweave.database; begin; select 1; commit")
    assert r.status == psycopg.pq.ExecStatus.COMMAND_OK
    assert c.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    r = c.pgconn.exec_(b"begin; insert into users (id, name) values (7777, 'x'); rollback; select 2")
    assert r.get_value(0, 0) == b"2"
    r = c.pgconn.exec_(b"select count(*) from users; select count(*) from analytics_events")
    assert b"different databases" in r.error_message
    # the position in an error counts from the beginning of the string
    r = c.pgconn.exec_(b"show pgweave.database; select nosuch")
    assert r.error_field(psycopg.pq.DiagnosticField.STATEMENT_POSITION) == b"31"


def test_pipeline(door):
    with door.connect("bank", autocommit=False) as c:
        with c.pipeline():
            a = c.execute("select current_database() from users limit 1")
            b = c.execute("select 2 from users limit 1")
            assert (a.fetchone()[0], b.fetchone()[0]) == ("bank_p", 2)
        c.rollback()
        with pytest.raises(psycopg.Error) as e:
            with c.pipeline():
                c.execute("insert into users (id, name) values (8888, 'x')")
                c.execute("select 1 from analytics_events")
        assert e.value.sqlstate == "0A000"
        c.rollback()
        assert c.execute("select count(*) from users where id = 8888").fetchone() == (0,)


def test_explain(c):
    lines = [r[0] for r in c.execute("explain (route) select * from analytics_events")]
    assert "analytics" in lines[0] and any("table route" in x for x in lines)
    plan = json.loads(c.execute("explain (route, format json) select * from accounts where user_id = %s",
                                [41]).fetchone()[0])
    assert "secondary" in json.dumps(plan)
    # it is not run
    c.execute("explain (route) delete from users")
    assert c.execute("select count(*) > 0 from users").fetchone() == (True,)


def test_connect_options(door):
    with door.connect("bank", options="-c pgweave.database=analytics") as c:
        assert where(c) == "bank_a"
        c.execute("set pgweave.database = ''")
        assert where(c) == "bank_p"
        c.execute("reset pgweave.database")
        assert where(c) == "bank_a"
    with door.connect("bank.secondary") as c:
        assert where(c) == "bank_s"
    with door.connect("shelf.unset") as c:
        assert where(c) == "bank_p"
    for name in ("bank.nosuch", "nosuch", "bank.unset"):
        with pytest.raises(psycopg.OperationalError, match="no such database"):
            door.connect(name)
    with pytest.raises(psycopg.OperationalError, match="nosuch"):
        door.connect("bank", options="-c pgweave.database=nosuch")


def test_copy(c):
    with c.cursor().copy("copy analytics_events (user_id, kind) from stdin") as copy:
        for i in range(1000):
            copy.write_row((i, "copied"))
    with c.cursor().copy("copy (select kind from analytics_events where kind = 'copied') to stdout") as copy:
        assert sum(1 for _ in copy.rows()) == 1000
    with c.cursor() as cur:
        with cur.copy("copy accounts (user_id, balance) from stdin") as copy:
            copy.write_row((777001, 1))
            copy.write_row((777002, 2))
        assert cur.statusmessage == "COPY 2"
    for user, home in ((777001, "bank_s"), (777002, "bank_p")):
        assert c.execute("delete from accounts where user_id = %s returning current_database()", [user]
                         ).fetchall() == [(home,)]
    c.execute("delete from analytics_events where kind = 'copied'")


def test_parameters_follow(c):
    c.execute("set timezone to 'Asia/Tokyo'")
    for name in ("primary", "secondary", "analytics"):
        assert c.execute(f"/* pgweave: database={name} */ select current_setting('TimeZone')"
                         ).fetchone() == ("Asia/Tokyo",)


def test_cursor(c):
    c.execute("begin")
    c.execute("declare d cursor for select g from generate_series(1, 10) g, "
              "(select count(*) from analytics_events) n")
    assert c.execute("fetch 3 from d").fetchall() == [(1,), (2,), (3,)]
    assert c.execute("select count(*) > 0 from users").fetchone() == (True,)
    c.execute("rollback")
    with c.transaction():
        with c.cursor("named") as cur:
            cur.execute("select g from generate_series(1, 1000) g")
            assert len(cur.fetchall()) == 1000


def test_unconfigured_member_falls_back(door):
    with door.connect("shelf") as c:
        assert where(c) == "bank_a"
        assert where(c, "/* pgweave: database=unset */") == "bank_p"


def test_member_down(proxy, own_pg, pg):
    bank.create(pg)
    bank.create(own_pg)
    text = bank.sections(pg, virtual="on_unavailable = error").replace(
        f"port = {pg.port}\ndbname = bank_a", f"port = {own_pg.port}\ndbname = bank_a")
    door = proxy(pg, sections=text, health_interval="200ms", health_timeout="1s", health_fall=2)
    health = lambda: {r["database"]: r["status"] for r in door.rows("HEALTH")}  # noqa: E731
    until(lambda: health()["analytics"] == "healthy", 10, "analytics is healthy")
    with door.connect("bank") as c:
        assert c.execute("select count(*) from analytics_events").fetchone() == (0,)
        own_pg.kill()
        until(lambda: health()["analytics"] == "down", 10, "analytics is down")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.CannotConnectNow) as e:
            c.execute("select count(*) from analytics_events")
        assert time.monotonic() - began < 1
        assert "analytics" in str(e.value) and "down" in e.value.diag.message_hint
        assert c.execute("select count(*) > 0 from users").fetchone() == (True,)
        c.execute("set pgweave.databases = 'all'")
        with pytest.raises(psycopg.errors.CannotConnectNow, match="analytics"):
            c.execute("select count(*) from users")
        c.execute("set pgweave.on_unavailable = 'skip'")
        notices = []
        c.add_notice_handler(lambda d: notices.append((d.severity, d.message_primary)))
        assert c.execute("select count(*) from users").fetchone() == (100,)
        assert len(notices) == 1 and notices[0][0] == "WARNING" and "analytics" in notices[0][1]
        own_pg.restart()
        until(lambda: health()["analytics"] == "healthy", 20, "analytics is healthy again")
        notices.clear()
        assert c.execute("select count(*) from users").fetchone() == (100,)
        assert not notices


def test_reload(door):
    with door.connect("bank") as c:
        assert where(c) == "bank_p"
        door.reload()
        until(lambda: "the configuration was read again" in door.log(), 5, "the reload is logged")
        time.sleep(0.3)
        assert where(c) == "bank_p"
        assert c.execute("select count(*) >= 0 from analytics_events").fetchone() == (True,)


def test_clients_vanish(door):
    """Clients that leave in every state leave nothing behind."""
    for i in range(30):
        c = door.connect("bank", autocommit=False)
        if i % 3 == 0:
            c.execute("insert into users (id, name) values (%s, 'gone')", [20000 + i])
        if i % 3 == 1:
            c.execute("select count(*) from analytics_events")
            c.execute("select count(*) from users")
        if i % 3 == 2:
            c.pgconn.send_query(b"/* pgweave: databases=all */ select count(*) from users, pg_sleep(0.05)")
        c.pgconn.finish()
    def quiet():
        return all(int(r["sv_active"]) == 0 for r in door.rows("POOLS"))
    until(quiet, 10, "all links are back")
    with door.connect("bank") as c:
        assert c.execute("select count(*) from users where name = 'gone'").fetchone() == (0,)


@pytest.mark.parametrize("how", ["simple", "extended", "prepared", "string"])
@pytest.mark.parametrize("table,expected", [
    ("analytics.public.users", "bank_a"), ("primary.public.users", "bank_p"),
    ("\"secondary\" . public.\"users\"", "bank_s"), ("Analytics/* */.public.users", "bank_a"),
])
def test_member_before_table(door, table, expected, how):
    sql = f"select current_database(), count(*) from {table} u where u.id > -1"
    with door.connect("bank") as c:
        if how == "simple":
            assert c.pgconn.exec_(sql.encode()).get_value(0, 0) == expected.encode()
        elif how == "string":
            assert c.pgconn.exec_(f"select 1 from {table}; {sql}".encode()).get_value(0, 0) == expected.encode()
        else:
            for _ in range(1 if how == "extended" else 7):
                assert c.execute(sql, prepare=how == "prepared").fetchone()[0] == expected
            assert c.execute(f"update {table} set name = name where id = %s returning current_database()",
                             [-1]).fetchone() is None
        assert c.execute("show pgweave.routed").fetchone()[0] in bank.MEMBERS


def test_no_member_before_table(door):
    with door.connect("bank") as c:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cross-database references"):
            c.execute("select * from nosuch.public.users")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="\"shop\" is no member of \"bank\""):
            c.execute("select * from shop.public.users")
        assert c.execute("select current_database() from bank_p.public.users limit 1").fetchone() == ("bank_p",)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="several databases"):
            c.execute("select * from analytics.public.users, primary.public.users")
