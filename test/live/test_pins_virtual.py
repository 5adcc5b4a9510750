"""On virtual databases, a temporary table, a cursor WITH HOLD or an advisory lock holds its client
to the link of the member where it is, at several members at once if need be."""
import asyncio
import socket

import asyncpg

import bank
import pgproto as pg_
from ledger import EVENTS, USERS, insert, written
from poll import until
from transcript import SYNC, Client, again, run

PINS = {
    "temporary table": ("create temp table pinned (a int)", "drop table pinned"),
    "advisory lock": ("select pg_try_advisory_lock(7)", "select pg_advisory_unlock(7)"),
    "cursor with hold": ("declare pinned cursor with hold for select 1", "close pinned"),
}
AT = "/* pgweave: database=analytics */ "
WHERE = "select current_database()"
LOCKS = "select count(*) from pg_locks where locktype = 'advisory'"


def one(*values):
    return " ".join(["T"] + [f"D({v})" for v in values] + [f"C(SELECT {len(values)})", "Z(I)"])


def pins(door):
    return sorted((r["member"], r["reason"]) for r in door.rows("PINS"))


def settle(door, *want):
    until(lambda: pins(door) == sorted(want), 5, f"pins are {want}, not {pins(door)}")


def locks(made, name):
    """Advisory locks that are held in that database of the server."""
    with made.connect(name) as c:
        return c.execute("select count(*) from pg_locks where locktype = 'advisory' and "
                         "database = (select oid from pg_database where datname = %s)",
                         [name]).fetchone()[0]


def asleep(root, pid):
    until(lambda: root.execute("select wait_event from pg_stat_activity where pid = %s",
                               [pid]).fetchone()[0] == "PgSleep", 5, "it sleeps")


def test_kinds(door):
    """Each kind, at the default and at a member that is named: until it is gone."""
    for reason, (make, end) in PINS.items():
        for hint, member, database in (("", "primary", "bank_p"), (AT, "analytics", "bank_a")):
            for extended in (False, True):
                with Client(door.port) as c, Client(door.port) as other:
                    said = c.say(run(hint + make), SYNC) if extended else c.ask(hint + make)
                    assert "E(" not in said, said
                    settle(door, (member, reason))
                    row, = door.rows("PINS")
                    assert row["database"] == "bank" and make in row["statement"] and row["since"]
                    assert [r["pin"] for r in door.rows("CLIENTS") if r["id"] == row["client"]] == [
                        f"{reason} ({member})"]
                    mine = c.value(hint + "select pg_backend_pid()")
                    assert c.value(hint + WHERE) == database
                    for _ in range(2):
                        assert other.value(hint + "select pg_backend_pid()") != mine
                        assert c.value(hint + "select pg_backend_pid()") == mine
                    assert "E(" not in c.ask((hint if reason == "advisory lock" else "") + end)
                    settle(door)


def test_lock(door, made):
    """What an ORM's migration does: two clients want one lock."""
    with Client(door.port) as a, Client(door.port) as b:
        assert a.ask("select pg_try_advisory_lock(42)") == one("t")
        assert b.ask("select pg_try_advisory_lock(42)") == one("f")
        assert b.ask(EVENTS) == one(0) and a.ask(USERS) == one(0)
        a.ask("begin"), a.ask("select count(*) from users"), a.ask("commit")
        assert b.ask("select pg_try_advisory_lock(42)") == one("f")
        assert a.ask("select pg_advisory_unlock(42)") == one("t")
        assert b.ask("select pg_try_advisory_lock(42)") == one("t")
        assert b.ask("select pg_advisory_unlock_all()") == one("")
        settle(door)
        # a lock outlives the rollback of its transaction, wherever that was
        for end in ("commit", "rollback"):
            a.ask("begin"), a.ask("select 1 from users where id = 1")
            assert a.ask(AT + "select pg_try_advisory_lock_shared(43)") == "T D(t) C(SELECT 1) Z(T)"
            a.ask(end)
            settle(door, ("analytics", "advisory lock"))
            assert b.ask(AT + "select pg_try_advisory_lock(43)") == one("f")
            assert a.ask(AT + "select pg_advisory_unlock_shared(43)") == one("t")
            settle(door)
        # one of a transaction does not
        a.ask("begin; select pg_advisory_xact_lock(44); commit")
        settle(door)


def test_temporary_tables(c, door, made):
    """Their names come before routes, and settings."""
    c.ask(AT + "create temp table t (a int)")
    assert c.ask("insert into t values (1), (2)") == "C(INSERT 0 2) Z(I)"
    assert c.say(run("select a from t where a = $1", ["2"]), SYNC) == "1 2 D(2) C(SELECT 1) Z(I)"
    assert c.ask("select count(*) from t join analytics_events e on e.user_id = t.a") == one(0)
    error = c.ask("select 1 from t join users u on u.id = t.a")
    assert error.startswith("E(0A000 statement uses tables of several databases"), error
    assert c.ask("select a, current_database() from pg_temp.t order by a") == one("1|bank_a", "2|bank_a")
    assert c.ask("set pgweave.database = 'primary'") == "C(SET) Z(I)"
    assert c.ask("select max(a) from t") == one(2)
    assert c.ask(WHERE) == one("bank_p")
    assert "E(0A000" in c.ask("select 1 from t join users u on u.id = t.a")
    assert c.ask("create temp table if not exists t (b int)").startswith("N(")
    c.ask("reset pgweave.database")
    # a view on it, a sequence, a table from it: where it is
    assert "E(" not in c.ask("create temp view v as select a from t; select a from v")
    c.ask("create temp table u as select a + 1 as a from t")
    c.ask("create index on u (a); analyze u; alter table u rename to w")
    assert c.ask("select sum(w.a) from w join v on v.a = w.a") == one(2)
    # one with the name of a table of another member
    c.ask("create temp table analytics_events as select 7 as id")
    assert c.ask("select id from analytics_events") == one(7)
    c.ask("drop table analytics_events")
    assert c.ask(EVENTS) == one(0)
    # gone with DISCARD TEMP, whichever member that is said to
    settle(door, ("analytics", "temporary table"))
    assert c.ask("discard temp") == "C(DISCARD TEMP) Z(I)"
    settle(door)
    assert c.ask("select 1 from t").startswith("E(42P01")


def test_names_in_transactions(c, door):
    c.ask("begin"), c.ask(AT + "create temp table t (a int)")
    assert c.ask("insert into t values (1)") == "C(INSERT 0 1) Z(T)"
    assert "E(" not in c.ask(f"savepoint s; drop table t; {AT}create temp table users (x int)")
    assert c.ask("insert into users values (3)") == "C(INSERT 0 1) Z(T)"
    c.ask("rollback to s")
    assert c.ask("select a, current_database() from t") == "T D(1|bank_a) C(SELECT 1) Z(T)"
    assert c.ask(USERS) == "T D(0) C(SELECT 1) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"
    assert c.ask("select a, current_database() from t") == one("1|bank_a")
    assert c.ask(USERS) == one(0)
    # a transaction follows the other at once
    for chain in ("commit and chain", "commit; begin"):
        c.ask("begin"), c.ask(AT + "create temp table x (a int)")
        assert c.ask(chain).endswith("Z(T)")
        assert c.ask("select current_database() from x right join (select 1) y on true") == (
            "T D(bank_a) C(SELECT 1) Z(T)")
        c.ask("drop table x"), c.ask("commit")
    # what is rolled back was not made
    c.ask("begin"), c.ask("create temp table r (a int)"), c.ask("rollback")
    assert c.ask("select 1 from r").startswith("E(42P01")
    settle(door, ("analytics", "temporary table"))
    c.ask("begin"), c.ask("drop table t"), c.ask("rollback")
    assert c.ask("select a from t") == one(1)
    c.ask("begin; create temp table d (a int) on commit drop; select a from d; commit")
    c.ask("drop table t")
    settle(door)


def test_names_that_change(c, door):
    """Renamed within a transaction; and a table of another schema with the name is dropped."""
    c.ask("begin"), c.ask(AT + "create temp table t as select 5 as id")
    c.ask("savepoint s"), c.ask("alter table t rename to users")
    assert c.ask("select id, current_database() from users") == "T D(5|bank_a) C(SELECT 1) Z(T)"
    c.ask("rollback to s")
    assert c.ask("select id from t") == "T D(5) C(SELECT 1) Z(T)"
    assert "bank_p" in c.ask("select current_database() from users limit 1")
    c.ask("rollback to s"), c.ask("alter table t rename column id to t")
    assert c.ask("select t from t") == "T D(5) C(SELECT 1) Z(T)"
    c.ask(AT + "create table public.t (a int)"), c.ask(AT + "drop table public.t")
    assert c.ask("select t from t") == "T D(5) C(SELECT 1) Z(T)"
    c.ask("rollback")
    assert c.ask(AT + "create temp table t as select 6 as id; alter table t rename to users; "
                 + AT + "select id from users") == "C(SELECT 1) C(ALTER TABLE) T D(6) C(SELECT 1) Z(I)"
    c.ask("begin"), c.ask("alter table users rename to u")
    assert c.ask(USERS).startswith("T D(0) ") and "D(6)" in c.ask("select id from u")
    c.ask("commit")
    assert c.ask("select id from u") == one(6)
    # what DISCARD TEMP drops elsewhere would not come back
    c.ask("begin")
    assert c.ask("discard temp").startswith("E(0A000 DISCARD TEMP cannot reach")
    c.ask("rollback")
    assert c.ask("select id from u") == one(6)
    c.ask("begin"), c.ask(AT + "discard temp"), c.ask("rollback")
    assert c.ask("select id from u") == one(6)
    c.ask("drop table u; begin"), c.ask(AT + "create temp table u as select 6 as id")
    assert c.ask("discard temp").startswith("E(0A000 DISCARD TEMP cannot reach")
    c.ask("rollback"), c.ask(AT + "create temp table u as select 6 as id")
    assert c.ask("select id from u") == one(6)
    c.ask("discard all")
    settle(door)


def test_batches(c, door):
    """In one batch, and prepared before it is there."""
    assert c.say(run(AT + "create temp table t as select 1 as a"), run("select a from t"),
                 run("insert into t select 2"), SYNC) == (
        "1 2 C(SELECT 1) 1 2 D(1) C(SELECT 1) 1 2 C(INSERT 0 1) Z(I)")
    assert c.say(pg_.parse("s", "select count(*) from t"), SYNC) == "1 Z(I)"
    assert c.say(again("s"), SYNC) == "2 D(2) C(SELECT 1) Z(I)"
    c.ask("drop table t")
    settle(door)
    assert c.say(again("s"), SYNC).startswith("E(42P01")
    c.ask(AT + "create temp table t as select 1 as a")
    assert c.say(again("s"), SYNC) == "2 D(1) C(SELECT 1) Z(I)"


def test_cursors(c, door):
    """FETCH, MOVE and CLOSE find them, in transactions and outside, on two members."""
    c.ask("begin")
    c.ask("declare u cursor with hold for select id from users where id > 0 order by id")
    c.ask("commit")
    c.ask("declare e cursor with hold for select 5 as id from analytics_events right "
          "join (values (1)) y on true")
    settle(door, ("analytics", "cursor with hold"), ("primary", "cursor with hold"))
    assert c.ask("fetch 2 from u") == "T D(2) D(4) C(FETCH 2) Z(I)"
    assert c.ask("fetch e") == "T D(5) C(FETCH 1) Z(I)"
    assert c.ask("begin") + c.ask("move u") + c.ask("fetch u") == (
        "C(BEGIN) Z(T)C(MOVE 1) Z(T)T D(8) C(FETCH 1) Z(T)")
    assert c.ask("fetch e") == "T C(FETCH 0) Z(T)" and c.ask("commit") == "C(COMMIT) Z(I)"
    assert c.say(run("fetch u"), SYNC) == "1 2 D(10) C(FETCH 1) Z(I)"
    assert c.say(pg_.message("D", b"Pu\0"), pg_.execute("u", 1), SYNC) == "T D(12) s Z(I)"
    assert c.ask("declare u cursor with hold for " + EVENTS).startswith("E(42P03")
    c.ask("declare p cursor with hold for select 1")
    assert c.say(pg_.message("C", b"Pp\0"), SYNC) == "3 Z(I)"
    assert c.ask("fetch p").startswith("E(34000")
    assert c.ask("fetch nothing").startswith("E(34000")
    assert c.ask("close e") == "C(CLOSE CURSOR) Z(I)"
    settle(door, ("primary", "cursor with hold"))
    c.ask("declare e cursor with hold for " + EVENTS)
    assert c.ask("close all") == "C(CLOSE CURSOR ALL) Z(I)"
    settle(door)
    # one of a transaction that writes elsewhere would not outlive it
    c.ask("begin"), c.ask("update users set name = name where id = 1")
    assert c.ask("declare e cursor with hold for " + EVENTS).startswith(
        "E(0A000 a transaction cannot write on two databases")
    c.ask("rollback")


def test_several_members(c, door, made, n):
    """A link for each, in transactions over all of them, and settings on each."""
    c.ask("select pg_advisory_lock(7)"), c.ask(AT + "create temp table t (a int)")
    where = [c.value(hint + "select pg_backend_pid()") for hint in ("", AT)]
    c.ask("set work_mem = '5MB'"), c.ask("set app.x = 'y'")
    for hint in ("", AT):
        assert c.ask(hint + "select current_setting('work_mem'), current_setting('app.x')") == one("5MB|y")
    for end in ("commit", "rollback"):
        c.ask("begin"), c.ask("set local work_mem = '6MB'")
        assert c.ask(insert(n)).endswith("Z(T)")
        assert c.ask("select count(*), current_setting('work_mem') from t") == "T D(0|6MB) C(SELECT 1) Z(T)"
        assert [c.value(hint + "select pg_backend_pid()") for hint in ("", AT)] == where
        assert c.ask("insert into t values (1)").startswith("E(0A000 a transaction cannot write on two")
        c.ask("rollback" if end == "rollback" else "commit")
    assert written(made, n) == (0, 0)
    assert [c.value(hint + "select pg_backend_pid()") for hint in ("", AT)] == where
    assert c.ask("select current_setting('work_mem') from t right join (select 1) x on true") == one("5MB")
    # a federated statement runs on the same links
    assert c.ask("/* pgweave: databases='primary,analytics', federation=tag */ "
                 "select pg_backend_pid()") == one(*(f"{m}|{p}" for m, p in zip(("primary", "analytics"), where)))
    settle(door, ("analytics", "temporary table"), ("primary", "advisory lock"))
    assert c.ask("discard all") == "C(DISCARD ALL) Z(I)"
    settle(door)
    assert locks(made, "bank_p") == 0 and c.ask("select 1 from t").startswith("E(42P01")


def test_refused(module_proxy, made):
    """pin = refuse: before it runs, in transactions as well, and not elsewhere."""
    text = bank.sections(made).replace("[database analytics]\n", "[database analytics]\npin = refuse\n")
    door = module_proxy(made, sections=text)
    with Client(door.port) as c:
        for reason, (make, end) in PINS.items():
            assert "E(" not in c.ask(make)
            c.ask("discard all")
            for begin, state in (("select 1", "I"), ("begin", "E")):
                c.ask(begin)
                for said in (c.say(run(AT + make), SYNC), c.ask("rollback; " + AT + make)):
                    assert "E(0A000" in said and "(pin = refuse)" in said, said
                c.ask("rollback")
        c.ask("begin")
        assert c.ask(AT + "create temp table t (a int) on commit drop").endswith("Z(T)")


def test_ends(door, made):
    """However a client leaves, the next one finds nothing."""
    for leave in ("close", "terminate", "transaction", "running"):
        with Client(door.port) as c:
            c.ask("select pg_advisory_lock(8)"), c.ask(AT + "create temp table left_over (a int)")
            c.ask(AT + "select pg_advisory_lock(8)")
            settle(door, ("analytics", "advisory lock"), ("analytics", "temporary table"),
                   ("primary", "advisory lock"))
            if leave == "transaction":
                c.ask("begin"), c.ask(USERS), c.ask("select count(*) from left_over")
            elif leave == "terminate":
                c.send(b"X\0\0\0\4")
            elif leave == "running":
                c.send(pg_.query("commit"))
        settle(door)
        until(lambda: locks(made, "bank_p") + locks(made, "bank_a") == 0, 5, "no locks")
        with Client(door.port) as c:
            assert c.ask(AT + "select to_regclass('left_over')") == one("null")


def test_lost(door, made):
    """With a link goes what was there, and so does the client."""
    both = "/* pgweave: databases='primary,analytics', federation=tag */ "
    for begin in ("select 1", "begin", both + "select pg_sleep(60)", AT + "select pg_sleep(60)"):
        with Client(door.port) as c:
            c.ask(AT + "create temp table t (a int)"), c.ask("select pg_advisory_lock(9)")
            pid = c.value(AT + "select pg_backend_pid()")
            if "sleep" in begin:
                c.send(pg_.query(begin))
            else:
                c.ask(begin), c.ask(USERS)
            with made.connect("postgres") as root:
                if "sleep" in begin:
                    asleep(root, pid)
                root.execute("select pg_terminate_backend(%s)", [pid])
            heard = c.hear(seconds=5)
            assert heard.endswith("EOF") and "E(" in heard, heard
        settle(door)
        until(lambda: locks(made, "bank_p") == 0, 5, "no locks")


def test_operators(door, made, c):
    """Who is pinned goes on with its link while others are kept out, and a cancel request finds
    what runs there."""
    c.ask(AT + "create temp table t (a int)")
    mine = c.value(AT + "select pg_backend_pid()")
    with door.console() as console, Client(door.port) as other:
        console.command("DRAIN analytics")
        try:
            assert other.ask(EVENTS).startswith("E(57P03")
            assert c.ask("select count(*) from t") == one(0) and c.ask(EVENTS) == one(0)
            c.ask("begin"), c.ask("insert into t values (1)"), c.ask("rollback")
        finally:
            console.command("ENABLE analytics")
        console.command("RECONNECT analytics")
        assert c.value(AT + "select pg_backend_pid()") == mine
        c.send(pg_.query("insert into t select 1 from pg_sleep(60)"))
        with made.connect("postgres") as root:
            asleep(root, mine)
        with socket.create_connection(("127.0.0.1", door.port)) as k:
            k.sendall(pg_.cancel_request(*c.key))
            k.recv(1)
        assert c.hear() == "E(57014 canceling statement due to user request) Z(I)"
        assert c.ask("select count(*) from t") == one(0)


def test_explained(c):
    c.ask(AT + "create temp table t (a int)")
    said = c.ask("explain (route) select * from t")
    assert "Route: analytics (pin)" in said and "t is a temporary table on analytics" in said, said
    assert "the session is pinned there" in said
    assert "pin  " not in c.ask("explain (route) select * from users")
    assert "Route: refused" in c.ask("explain (route) select * from t, users")


def test_reset_of_a_pool(c, door):
    """What asyncpg says when a connection goes back to its pool."""
    c.ask("select pg_advisory_lock(7)"), c.ask(AT + "select pg_advisory_lock(7)")
    c.ask("declare e cursor with hold for " + EVENTS)
    assert c.ask("listen pins_a; listen pins_b; set work_mem = '5MB'").endswith("Z(I)")
    reset = "select pg_advisory_unlock_all(); close all; unlisten *; reset all"
    said = c.ask(reset)
    assert said == "T D() C(SELECT 1) C(CLOSE CURSOR ALL) C(UNLISTEN) C(RESET) Z(I)", said
    settle(door)
    assert c.ask("notify pins_a") == "C(NOTIFY) Z(I)" and c.ask("show work_mem") != "T D(5MB) C(SHOW) Z(I)"
    # what fails behind it takes it back
    c.ask("listen pins_a"), c.ask("select 1; unlisten pins_a; select 1/0")
    assert c.ask("notify pins_a") == "C(NOTIFY) A Z(I)"
    assert c.ask("begin; select 1; unlisten *; rollback; notify pins_a") .endswith("C(NOTIFY) A Z(I)")
    # wherever settings send what has no tables
    c.ask("set pgweave.database = 'analytics'")
    assert c.ask(reset) == said


def test_drivers(door):
    """Named cursors of psycopg that outlive their transaction, a pool of asyncpg."""
    with door.connect("bank") as c:
        with c.cursor("named", withhold=True) as rows:
            rows.itersize = 7
            rows.execute("select id from users where id between 1 and 100 order by id")
            assert [r[0] for r in rows] == list(range(2, 101, 2))
        settle(door)
        assert c.execute("select pg_try_advisory_lock(%s)", [1]).fetchone()[0]
        with c.transaction():
            c.execute("create temp table t (a int)")
            with c.cursor(binary=True) as copy, copy.copy("copy t from stdin") as to:
                to.write_row([41])
        for _ in range(8):  # prepared from the fifth on
            assert c.execute("select a from t where a = %s", [41]).fetchone() == (41,)
        assert c.execute("select pg_advisory_unlock(%s)", [1]).fetchone()[0]
        settle(door, ("primary", "temporary table"))

    async def pooled():
        async with asyncpg.create_pool(host="127.0.0.1", port=door.port, user="alice", min_size=1,
                                       password="pw-alice", database="bank", max_size=1) as pool:
            async with pool.acquire() as a:
                assert await a.fetchval("select pg_try_advisory_lock($1)", 1)
                await a.execute("create temp table t (a int)")
                await a.copy_records_to_table("t", records=[(1,), (2,)], columns=["a"])
                assert await a.fetchval("select sum(a) from t") == 3
            async with pool.acquire() as a:
                settle(door, ("primary", "temporary table"))
                assert await a.fetchval("select pg_try_advisory_lock($1)", 1)
    asyncio.run(asyncio.wait_for(pooled(), 30))
    settle(door)


def test_reload(proxy, made):
    """Another configuration of the member leaves the link alone; without the member, it is over."""
    door = proxy(made, sections=bank.sections(made))
    text = open(door.ini).read()
    with Client(door.port) as c, Client(door.port) as other:
        c.ask(AT + "create temp table t (a int)"), other.ask("select pg_advisory_lock(1)")
        for change, to in (("[database analytics]\n", "[database analytics]\nquery_timeout = 300\n"),
                           ("secondary, analytics", "secondary")):
            assert c.ask("select count(*) from t") == one(0)
            reads = door.log().count("configuration was read again")
            door.write(text.replace("analytics_events, user_activity = analytics\narchive.* = analytics", "x = primary")
                       .replace("databases = primary, analytics", "databases = primary").replace(change, to))
            door.reload()
            until(lambda: door.log().count("configuration was read again") > reads, 5, "it is read")
        assert c.ask("select 1 from t").startswith("E(57P01 database configuration changed)")
        assert other.ask("select pg_advisory_unlock(1)") == one("t")
