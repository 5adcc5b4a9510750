"""What operators do to databases (DRAIN, MAINTENANCE, ENABLE), and whom the proxy calls when one
changes by itself (alert_command)."""
import os
import re
import time

import psycopg
import pytest

from poll import until
from test_health import QUICK, SLOW, database, health, when

pytestmark = pytest.mark.usefixtures("only_pgweave")


def order(door, sql, user="admin"):
    with door.console(user) as c:
        return c.command(sql)[2]


def links(door, name):
    return [r for r in door.rows("SERVERS") if r["database"] == name]


def backends(pg, name="pgweave health"):
    with pg.connect("postgres") as c:
        return c.execute("select count(*) from pg_stat_activity where application_name = %s",
                         (name,)).fetchone()[0]


@pytest.fixture
def shop(proxy, own_pg):
    door = proxy(own_pg, databases={}, sections=database("shop", own_pg.port), **QUICK)
    when(door, "healthy")
    return door


def test_drain_lets_transactions_end_and_nothing_begin(shop):
    with shop.connect(autocommit=False) as old, shop.connect() as idle:
        idle.execute("select 1")
        old.execute("create table t (a int)")
        assert order(shop, "DRAIN shop 'new disk'") == "DRAIN"
        row = health(shop)
        assert (row["status"], row["reason"]) == ("draining", "by admin: new disk")
        # What has begun goes on, for as long as it likes.
        old.execute("insert into t values (1)")
        with pytest.raises(psycopg.OperationalError, match='"shop" is draining'):
            idle.execute("select 1")
        old.execute("insert into t values (2)")
        old.commit()
        # Its link is gone with it: the server can be stopped.
        until(lambda: links(shop, "shop") == [], 5)
        with pytest.raises(psycopg.OperationalError, match="draining"):
            old.execute("select 1")
    # It is still probed.
    first = health(shop)["last_checked"]
    until(lambda: health(shop)["last_checked"] > first, 5)
    since = health(shop)["since"]
    assert order(shop, "DRAIN shop") == "DRAIN"
    assert (health(shop)["reason"], health(shop)["since"]) == ("by admin", since)
    assert order(shop, "ENABLE shop") == "ENABLE"
    assert health(shop)["status"] == "healthy"
    with shop.connect() as c:
        assert c.execute("select count(*) from t").fetchone() == (2,)
    assert "health: shop is draining by admin: new disk" in shop.log()
    assert "health: shop is no longer draining: by admin" in shop.log()


def test_maintenance_is_not_probed_and_lasts(shop, own_pg):
    assert order(shop, "MAINTENANCE shop 'kernel'") == "MAINTENANCE"
    row = health(shop)
    assert (row["status"], row["reason"]) == ("maintenance", "by admin: kernel")
    until(lambda: backends(own_pg) == 0, 5)
    checked = health(shop)["last_checked"]
    own_pg.kill()
    before = shop.log().count("configuration was read again")
    shop.reload()
    until(lambda: shop.log().count("configuration was read again") > before, 5)
    with pytest.raises(psycopg.OperationalError, match="in maintenance"):
        with shop.connect() as c:
            c.execute("select 1")
    time.sleep(1)
    row = health(shop)
    assert (row["status"], row["last_checked"]) == ("maintenance", checked)
    assert "shop is down" not in shop.log()
    # Back too early: one look is enough to see it.
    assert order(shop, "ENABLE shop") == "ENABLE"
    when(shop, "down", seconds=3)
    order(shop, "MAINTENANCE shop")
    own_pg.restart()
    assert order(shop, "RESUME shop") == "RESUME"
    when(shop, "healthy", seconds=5)
    with shop.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("sql, says", [
    ("DRAIN", "a database is required"),
    ("DRAIN nosuch", "no such database: nosuch"),
    ("MAINTENANCE bank", "no such database: bank"),
    ("DRAIN pgweave", "is no database"),
    ("DRAIN shop 'a' 'b'", "invalid command"),
    ("RESUME shop", "database shop is not paused"),
])
def test_wrong_orders(module_shop, sql, says):
    with pytest.raises(psycopg.DatabaseError, match=says):
        order(module_shop, sql)
    assert health(module_shop)["status"] != "draining"


@pytest.fixture(scope="module")
def module_shop(module_proxy, pg):
    return module_proxy(pg, databases={"*": f"host=127.0.0.1 port={pg.port}"},
                        sections=database("shop", pg.port)
                        + "[virtual bank]\nmembers = shop\n", **QUICK)


@pytest.mark.parametrize("sql", ["DRAIN shop", "MAINTENANCE shop", "ENABLE shop"])
def test_only_admins_may(module_shop, sql):
    with pytest.raises(psycopg.DatabaseError, match="admin access needed"):
        order(module_shop, sql, "stats")
    assert health(module_shop)["status"] != "draining"



# ---- behind a virtual database ----

def bank(proxy, pg, **second):
    sections = database("main", pg.port) + database("second", pg.port, **second) \
        + "[virtual bank]\ndefault = main\nmembers = main, second\n[route bank]\nnotes = second\n"
    with pg.connect() as c:
        c.execute("create table notes (a int); grant all on notes to alice")
    door = proxy(pg, databases={}, sections=sections, **QUICK)
    when(door, "healthy", "main")
    when(door, "healthy", "second")
    return door


def test_a_member_that_drains(proxy, own_pg):
    door = bank(proxy, own_pg)
    with door.connect("bank", autocommit=False) as old, door.connect("bank") as new:
        old.execute("insert into notes values (1)")
        order(door, "DRAIN second 'move'")
        with pytest.raises(psycopg.OperationalError) as e:
            new.execute("select * from notes")
        assert e.value.sqlstate == "57P03"
        assert e.value.diag.message_primary == \
            'database "second" is draining and takes no new statements'
        assert re.match(r"draining since \d+ ms: by admin: move", e.value.diag.message_hint)
        # A transaction that begins now does not get there either.
        with pytest.raises(psycopg.OperationalError, match="draining") as e:
            with new.transaction():
                new.execute("insert into notes values (3)")
        assert e.value.sqlstate == "57P03"
        assert new.execute("select 1").fetchone() == (1,)
        old.execute("insert into notes values (2)")
        old.commit()
        until(lambda: links(door, "second") == [], 5)
        order(door, "ENABLE second")
        assert new.execute("select count(*) from notes").fetchone() == (2,)


def test_its_fallback_takes_over(proxy, own_pg):
    door = bank(proxy, own_pg, fallback="main", fallback_on_down="all")
    with door.connect("bank") as c:
        said = []
        c.add_notice_handler(lambda d: said.append(d.message_primary))
        order(door, "MAINTENANCE second")
        c.execute("insert into notes values (1)")
        assert said == ['database "second" is in maintenance, "main" answers']
        # Of a statement on several databases too, but not beside itself.
        c.execute("set pgweave.federation = 'tag'; set pgweave.databases = 'second'")
        assert c.execute("select a from notes").fetchall() == [("second", 1)]
        assert said.pop() == said[0]
        c.execute("set pgweave.databases = 'main, second'")
        with pytest.raises(psycopg.OperationalError) as e:
            c.execute("select a from notes")
        assert e.value.sqlstate == "57P03"
        c.execute("set pgweave.databases = ''")
        order(door, "ENABLE second")
        c.execute("insert into notes values (2)")
        assert len(said) == 1


# ---- alert_command ----

def script(tmp_path, body):
    os.chmod(tmp_path, 0o755)
    path = tmp_path / "alert"
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_program_is_told_what_has_changed(proxy, own_pg, tmp_path):
    said = tmp_path / "said"
    program = script(tmp_path, f'echo "$1|$2|$3|$4|$PGWEAVE_NEW_STATUS" >> {said}\n')
    door = proxy(own_pg, databases={}, sections=database("shop", own_pg.port),
                 alert_command=program, **QUICK)
    when(door, "healthy")
    own_pg.kill()
    when(door, "down", seconds=5)
    until(lambda: lines(said), 5)
    assert re.fullmatch(r"shop\|healthy\|down\|connection refused.*\|down", lines(said)[0])
    own_pg.restart()
    when(door, "healthy", seconds=5)
    until(lambda: lines(said)[-1].startswith("shop|half-open|healthy|")
          or lines(said)[-1].startswith("shop|down|healthy|"), 5)
    # Nobody is called for what is done by hand.
    count = len(lines(said))
    order(door, "MAINTENANCE shop")
    own_pg.kill()
    time.sleep(1)
    assert len(lines(said)) == count


def test_a_line_is_for_the_shell(proxy, own_pg, tmp_path):
    said = tmp_path / "said"
    door = proxy(own_pg, databases={}, sections=database("shop", own_pg.port), **QUICK,
                 alert_command=f'echo "$PGWEAVE_DATABASE $2 $3" >> {said}')
    when(door, "healthy")
    own_pg.kill()
    until(lambda: lines(said) == ["shop healthy down"], 5 * SLOW)


def test_one_that_hangs_is_killed_and_holds_up_nothing(proxy, own_pg, tmp_path):
    said = tmp_path / "said"
    program = script(tmp_path, f'echo "$3 $$" >> {said}\nsleep 60 & wait\n')
    door = proxy(own_pg, databases={}, sections=database("shop", own_pg.port),
                 alert_command=program, alert_timeout="2s", **QUICK)
    when(door, "healthy")
    own_pg.kill()
    until(lambda: lines(said), 5)
    pid = int(lines(said)[0].split()[1])
    own_pg.restart()
    # Health goes on meanwhile, and one runs at a time.
    when(door, "healthy", seconds=5)
    assert len(lines(said)) == 1 or not os.path.exists(f"/proc/{pid}")
    until(lambda: "alert_command took longer than alert_timeout" in door.log(), 6)
    until(lambda: not os.path.exists(f"/proc/{pid}"), 5)
    # What came in between is told in one word: from down to healthy.
    until(lambda: len(lines(said)) >= 2, 6)
    assert lines(said)[-1].split()[0] == "healthy"


@pytest.mark.parametrize("command, says", [
    ("/nonexistent/program", "alert_command cannot be run: No such file"),
    ("exit 3", "alert_command ended with exit code 3"),
    ("kill -9 $$", "alert_command was ended by signal 9"),
])
def test_its_failure_is_logged(proxy, own_pg, command, says):
    door = proxy(own_pg, databases={}, sections=database("shop", own_pg.port), **QUICK,
                 alert_command=command)
    when(door, "healthy")
    own_pg.kill()
    until(lambda: f"health: shop: {says}" in door.log(), 5 * SLOW)
    when(door, "down")
