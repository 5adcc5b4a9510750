"""What cannot go to another link holds a session to its own, as long as it is there."""
import pytest

from poll import until
from transcript import SYNC, Client, run

PINS = {
    "temporary table": ("create temp table pinned (a int)", "drop table pinned"),
    "advisory lock": ("select pg_try_advisory_lock(7)", "select pg_advisory_unlock(7)"),
    "cursor with hold": ("declare pinned cursor with hold for select 1", "close pinned"),
    "setseed": ("select setseed(0.5)", "discard all"),
    "set_config": ("select set_config('pins.' || 'x', '1', false)", "discard all"),
}
# More ways to say it.
HIDDEN = {
    "temporary table": [
        'create table "pg_temp".pinned (a int)',
        "explain analyze create temp table pinned as select 1",
        "select 1 as a into\n\ttemp pinned",
        'select 1 as a into table "pg_temp".pinned',
        "do 'begin create temp table pinned (a int); end'"],
    "advisory lock": ["do 'begin perform pg_advisory_lock(9); end'"],
}
LEAVES_NOTHING = [
    "begin; create temp table x (a int) on commit drop; commit",
    "begin; create temp table x (a int); rollback",
    "begin; declare c cursor for select 1; commit",
    "select pg_advisory_xact_lock(1)",
    "select pg_advisory_lock(1), pg_advisory_unlock(1)",
    "create table pins_plain as select 1; drop table pins_plain",
    "select 'create temp table', 'pg_advisory_lock'",
]


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop user=alice"
    return module_proxy(pg, databases={"shop": at, "strict": at + " pin=refuse"},
                        pool_mode="transaction", default_pool_size=2)


def reasons(door):
    return sorted(r["reason"] for r in door.rows("PINS"))


def settle(door, want):
    until(lambda: reasons(door) == want, 5, f"pins are {want}, not {reasons(door)}")


@pytest.mark.parametrize("reason", list(PINS))
@pytest.mark.parametrize("extended", [False, True])
def test_pinned_and_released(door, reason, extended, only_pgweave):
    make, end = PINS[reason]
    with Client(door.port, "shop") as c, Client(door.port, "shop") as other:
        said = c.say(run(make), SYNC) if extended else c.ask(make)
        assert " E(" not in " " + said, said
        mine = c.value("select pg_backend_pid()")
        settle(door, [reason])
        row, = door.rows("PINS")
        assert row["database"] == "shop" and row["statement"] == make and row["since"]
        assert [r["pin"] for r in door.rows("CLIENTS") if r["id"] == row["client"]] == [reason]
        for _ in range(3):
            assert other.value("select pg_backend_pid()") != mine
            assert c.value("select pg_backend_pid()") == mine
        assert " E(" not in " " + c.ask(end)
        settle(door, [])
        assert c.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"


def test_hidden(door, only_pgweave):
    """Nobody gets the link while it is there."""
    for reason, all_of_them in HIDDEN.items():
        for make in all_of_them:
            for extended in (False, True):
                with Client(door.port, "shop") as c:
                    said = c.say(run(make), SYNC) if extended else c.ask(make)
                    assert "E(" not in said, said
                    settle(door, [reason])
                    row, = door.rows("PINS")
                    assert "into" in make or row["statement"] == make, row
                    c.ask("discard all")
                    settle(door, [])


def test_transactions_leave_nothing(door, only_pgweave):
    with Client(door.port, "shop") as c:
        for sql in LEAVES_NOTHING:
            assert "E(" not in c.ask(sql)
            c.ask("select 1")
            settle(door, [])
        # two links, both tried
        c.ask("select 1 as x into temp pins_into")
        assert c.ask("select x from pins_into") == "T D(1) C(SELECT 1) Z(I)"
        settle(door, ["temporary table"])
        c.ask("set work_mem = '5MB'; discard temp")
        settle(door, [])
        assert c.value("show work_mem") == "5MB"


def test_next_client_finds_nothing(door, only_pgweave):
    """Pinned links are cleaned when their client leaves, however it leaves."""
    for leave in ("close", "terminate", "transaction"):
        with Client(door.port, "shop") as c:
            c.ask("create temp table left_over (a int)")
            c.ask("select pg_advisory_lock(8)")
            settle(door, ["advisory lock", "temporary table"])
            if leave == "transaction":
                c.ask("begin")
            elif leave == "terminate":
                c.send(b"X\0\0\0\4")
        settle(door, [])
        with Client(door.port, "shop") as a, Client(door.port, "shop") as b:
            for c in (a, b):
                c.ask("begin")
            for c in (a, b):
                assert c.value("select to_regclass('left_over')") is None
                assert c.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"


@pytest.mark.parametrize("extended", [False, True])
def test_refused(door, extended, only_pgweave):
    """pin = refuse: nothing of it is done, in a transaction and outside, and the session goes on."""
    with Client(door.port, "strict") as c:
        for reason, (make, _) in PINS.items():
            error = "(0A000 " + {"temporary table": "a temporary table, view or sequence",
                                 "advisory lock": "an advisory lock of the session",
                                 "cursor with hold": "a cursor WITH HOLD",
                                 "setseed": "setseed()",
                                 "set_config": "set_config() with a computed name"}[reason]
            for begin, state in (("select 1", "I"), ("begin", "E")):
                c.ask(begin)
                said = c.say(run(make), SYNC) if extended else c.ask("select 2; " + make)
                assert error in said and said.endswith(f"Z({state})") and "D(2)" not in said, said
                c.ask("rollback")
        assert c.ask("select 3") == "T D(3) C(SELECT 1) Z(I)"
        assert reasons(door) == []


@pytest.mark.parametrize("cast", ["", "::text"])
def test_name_in_a_parameter(door, cast, only_pgweave):
    """set_config($1, …): Bind tells the setting, which is the client's own on all links."""
    name = "pins.named" + str(len(cast))
    show = f"select current_setting('{name}', true) || '!'"
    with Client(door.port, "shop") as a, Client(door.port, "shop") as b:
        a.say(run(f"select set_config($1{cast}, $2, false)", (name, "mine")), SYNC)
        settle(door, [])
        b.ask("begin")
        assert b.value(show) in (None, "!")
        assert a.value(show) == "mine!"
        b.ask("commit; begin")
        assert b.value(show) in (None, "!")
        a.ask("begin")
        assert a.value(show) == "mine!"
    with Client(door.port, "shop") as c:
        c.say(run(f"select set_config($1{cast}, $2, false)", (None, "mine")), SYNC)
        settle(door, ["set_config"])
    settle(door, [])


@pytest.mark.parametrize("extended", [False, True])
def test_prepared(door, extended, only_pgweave):
    """It is EXECUTE that pins, not PREPARE."""
    with Client(door.port, "shop") as c:
        make = "prepare later as select setseed(0.5), set_config('pins.' || $1, '1', false)"
        assert c.say(run(make), SYNC) if extended else c.ask(make)
        assert c.value("select 1") == "1" and reasons(door) == []
        c.say(run("execute later('a')"), SYNC) if extended else c.ask("execute later('a')")
        settle(door, ["set_config", "setseed"])
    with Client(door.port, "strict") as c:
        assert "E(0A000" in (c.say(run(make), SYNC) if extended else c.ask(make))
    settle(door, [])


def test_settings_as_rows(door, only_pgweave):
    """pg_settings can be updated: which settings that sets, the text does not tell."""
    update = "update pg_settings set setting = '7777' where name = 'work_mem'"
    with Client(door.port, "shop") as a, Client(door.port, "shop") as b:
        a.ask(update)
        settle(door, ["set_config"])
        b.ask("begin")
        assert (a.value("show work_mem"), b.value("show work_mem")) == ("7777kB", "4MB")
    with Client(door.port, "strict") as c:
        assert "E(0A000" in c.ask(update)
    settle(door, [])


def test_too_many_settings(door, only_pgweave):
    """Of so many of a client's own only the first travel: with the others it keeps its link."""
    with Client(door.port, "shop") as a, Client(door.port, "shop") as b:
        for part in range(6):
            a.ask("; ".join(f"set pins.many{part}_{n} = {n}" for n in range(20)))
        settle(door, ["set_config"])
        b.ask("begin")
        assert [a.value(f"select current_setting('pins.many{part}_19')") for part in range(6)] == ["19"] * 6
        a.ask("discard all")
        settle(door, [])


def test_lost_link_ends_the_session(door, pg, only_pgweave):
    """What held the session is gone: it cannot go on as if nothing had happened."""
    with Client(door.port, "shop") as c:
        c.ask("create temp table gone (a int)")
        settle(door, ["temporary table"])
        mine = c.value("select pg_backend_pid()")
        with pg.connect() as d:
            d.execute("select pg_terminate_backend(%s)", [int(mine)])
        assert c.hear().endswith("EOF")
