"""What the members' own catalogs say, and what becomes of statements by it."""
import subprocess

import psycopg
import pytest

import bank
from poll import until
from proxy import program


def make(pg):
    bank.create(pg)
    for member, name in bank.MEMBERS.items():
        with pg.connect(name, user="alice") as c:
            c.execute("create function calm(int) returns int stable language sql as 'select $1 + 1'")
            c.execute("create function wild(int) returns int language sql as 'select $1 + 1'")
            if member == "primary":
                c.execute("create sequence numbers")
                c.execute("create view numbered as select nextval('numbers') as n from users limit 1")
            if member == "analytics":
                c.execute("create view recent as select *, current_database() as at from analytics_events")
                continue
            c.execute("create view purses as select user_id, balance from accounts where balance > 0")
            c.execute("create view sums as select sum(balance) as total from accounts")
            c.execute("create view aliased (other, user_id) as select user_id, balance::int from accounts")
            # The key stands at different places.
            c.execute("create table moves (user_id int, note text)" if member == "primary"
                      else "create table moves (note text, user_id int)")


def sections(pg):
    text = bank.sections(pg).replace("tables = accounts\n", "tables = accounts, moves\n")
    return text.replace("analytics_events, user_activity =", "analytics_events, user_activity, old_* =")


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    make(pg)
    door = module_proxy(pg, sections=sections(pg), default_pool_size=4, health_interval="1s")
    with door.connect("bank") as c:
        until(lambda: c.execute("select current_database() from recent limit 1") or True, 10,
              "the catalogs are read")
    return door


@pytest.fixture
def c(door):
    with door.connect("bank") as c:
        yield c


def refused(c, sql, sqlstate, *words):
    with pytest.raises(psycopg.Error) as e:
        c.execute(sql)
    said = f"{e.value.diag.message_primary} {e.value.diag.message_detail}"
    assert e.value.sqlstate == sqlstate, said
    for word in words:
        assert word in said, said


def test_insert_without_columns(c):
    insert = "insert into accounts values "
    assert c.execute(insert + "(1000, 5) returning current_database()").fetchone() == ("bank_p",)
    assert c.execute(insert + "(1001, 5), (1003, 5) returning current_database()").fetchall() == \
        [("bank_s",)] * 2
    assert c.execute(insert + "(%s, %s) returning current_database()", [1005, 1], prepare=True
                     ).fetchone() == ("bank_s",)
    assert c.execute(insert + "(%b, %b) returning current_database()", [1002, 1], prepare=True
                     ).fetchone() == ("bank_p",)
    assert c.execute(insert + "(1006, 1), (1007, 1) returning current_database()").fetchall() == \
        [("bank_p",), ("bank_s",)]
    c.execute("delete from accounts where user_id = 1006")
    c.execute("delete from accounts where user_id = 1007")
    refused(c, insert + "(null, 1)", "22004")
    refused(c, insert + "(default, 1)", "0A000", "not known")
    c.execute("delete from accounts where user_id = 1000")
    assert c.execute("select count(*) from accounts where user_id in (1001, 1003, 1005)").fetchone() == (3,)


def test_shards_that_disagree(c):
    refused(c, "insert into moves values (1, 2)", "0A000", "without its shard key")
    c.execute("insert into moves (user_id, note) values (41, 'x')")
    assert c.execute("select note from moves where user_id = 41").fetchall() == [("x",)]


def test_columns_change(c, pg):
    """What DDL changes is known soon, whether it comes through the proxy or not."""
    for database in ("primary", "secondary"):
        c.execute(f"/* pgweave: database={database} */ alter table moves rename to gone")
        c.execute(f"/* pgweave: database={database} */ create table moves (note text, user_id int)")
    until(lambda: c.execute("insert into moves values ('x', 43)"), 5, "the new columns are known")
    assert c.execute("/* pgweave: database=secondary */ select user_id from moves").fetchall() == [(43,)]
    for name in ("bank_p", "bank_s"):
        with pg.connect(name, user="alice") as direct:
            direct.execute("alter table moves rename note to remark")
            direct.execute("alter table moves rename user_id to note")
            direct.execute("alter table moves rename remark to user_id")
    until(lambda: c.execute("insert into moves values ('44', 43) returning current_database()"
                            ).fetchone() == ("bank_p",), 10, "the change is seen")


def test_functions(c):
    """A stable function makes no write of a read: a transaction may write to one member only."""
    c.execute("begin")
    c.execute("update users set name = name where id = 2")
    assert c.execute("/* pgweave: database=secondary */ select calm(1)").fetchone() == (2,)
    with pytest.raises(psycopg.Error, match="wr"):
        c.execute("/* pgweave: database=secondary */ select wild(1)")
    c.execute("rollback")
    assert c.execute("select wild(1)").fetchone() == (2,)
    c.execute("begin")
    c.execute("/* pgweave: database=secondary */ update users set name = name where id = 1")
    with pytest.raises(psycopg.Error, match="wr"):
        c.execute("select n from numbered")
    c.execute("rollback")
    c.execute("begin")
    assert c.execute("select count(calm(user_id)) from accounts where user_id = 41").fetchone()
    c.execute("rollback")


def test_views(c):
    c.execute("insert into analytics_events (user_id, kind) values (7, 'seen')")
    assert ("bank_a", 7) in c.execute("select at, user_id from recent").fetchall()
    assert c.execute("select current_database(), user_id from purses where user_id = 41").fetchall() == \
        [("bank_s", 41)]
    both = c.execute("select count(*) from purses").fetchone()
    assert both == c.execute("select count(*) from accounts where balance > 0").fetchone()
    refused(c, "select total from sums", "0A000", "merged exactly", '"sums"')
    refused(c, "select * from recent join users on true", "0A000", "analytics", "primary")
    assert c.execute("/* pgweave: database=secondary */ select total > 0 from sums").fetchone() == (True,)
    # Its column user_id is another one.
    n = c.execute("select count(*) from aliased where user_id = 141").fetchone()
    assert n == c.execute("select count(*) from accounts where balance::int = 141").fetchone()
    plan = "\n".join(r[0] for r in c.execute("explain (route) select * from recent"))
    assert "view recent reads analytics_events = analytics" in plan


def test_check_asks_the_databases(door, pg):
    """pgweave check warns of tables that are not there, and says which database it could not ask."""
    def check(*options):
        done = subprocess.run([program(), "check", *options, door.proxy.ini],
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout
        assert done.stderr == ""
        return done.stdout

    said = check()
    assert 'user_activity: no such table in database "analytics", nor in another\n' in said
    assert 'old_*: no such table in database "analytics", nor in another\n' in said
    assert "analytics_events:" not in said and "accounts:" not in said
    assert ": ok, " in said.splitlines()[-1]
    assert "no such table" not in check("--offline")
    with pg.connect("bank_s", user="alice") as c:
        c.execute("alter table moves rename to elsewhere")
        try:
            assert 'moves: no such table in database "secondary"\n' in check()
        finally:
            c.execute("alter table elsewhere rename to moves")


def test_warnings(door):
    warnings = {r["pattern"]: r["warning"] for r in door.rows("ROUTES")}
    assert warnings["analytics_events"] is None
    assert warnings["user_activity"] == 'no such table in database "analytics", nor in another'
    assert warnings["old_*"] == 'no such table in database "analytics", nor in another'
    assert warnings["archive.*"] is None
    said = [line for line in door.log().splitlines() if "several databases have them" in line]
    assert any('"bank"' in line and "public.users (primary, secondary, analytics)" in line
               and 'statements go to "primary"' in line for line in said)
    # Once for each set of tables, not at every look.
    assert len(said) == len(set(line.split("WARNING", 1)[1] for line in said))


def test_database_that_comes_late(proxy, pg, own_pg):
    make(pg)
    make(own_pg)
    with own_pg.connect("postgres") as c:
        c.execute("checkpoint")
    own_pg.kill()
    text = sections(pg).replace(f"port = {pg.port}\ndbname = bank_a",
                                f"port = {own_pg.port}\ndbname = bank_a")
    door = proxy(pg, sections=text, health_interval="200ms", health_timeout="1s", health_fall=1,
                 health_rise=1)
    with door.connect("bank") as c:
        refused(c, "select * from recent", "42P01")
        until(lambda: c.execute("insert into accounts values (2001, 1)"), 5, "the others are known")
        own_pg.restart()
        until(lambda: c.execute("select at from recent") or True, 15, "it is known too")
