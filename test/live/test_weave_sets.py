"""What is set within transactions that touch several members, compared with one PostgreSQL: the
same values on every leg, SET LOCAL gone afterwards, SET kept by COMMIT and undone by ROLLBACK."""
import os
import random

import pytest

import activity
import bank
import pgproto as pg
from transcript import SYNC, Client, run

N = int(os.environ.get("N", "16"))
SEED = int(os.environ.get("PGWEAVE_TEST_SEED", "20261122"))
MEMBERS = ["primary", "secondary", "analytics"]
VALUES = {
    "TimeZone": ["Asia/Tokyo", "UTC", "America/Lima"],
    "DateStyle": ["SQL, DMY", "German", "ISO, YMD"],
    "search_path": ["app, public", "public", '"X y"'],
    "work_mem": ["1MB", "2MB", "3MB"],
    "app.tenant": ["7", "it''s", ""],
    "enable_seqscan": ["off", "on"],
}
LOOK = "select " + ", ".join(f"coalesce(current_setting('{n}', true), '')" for n in [
    *VALUES, "transaction_isolation", "transaction_read_only"])
# Without a table it would stay where the transaction is, whatever the hint says.
LOOK += " from (select count(*) from users where id < 0) as u"


@pytest.fixture(scope="module")
def door(module_proxy, made):
    with made.connect("postgres") as c:
        c.execute("grant bob to alice")
    return module_proxy(made, sections=bank.sections(made), default_pool_size=1)


@pytest.fixture
def a(door, made):
    with Client(door.port) as a:
        yield a
    activity.await_rest(made)


def on(member, sql):
    return f"/* pgweave: database={member} */ {sql}"


def look(rnd=None):
    return on((rnd or random).choice(MEMBERS), LOOK)


def literal(name, value):
    """As a value of SET."""
    return value if name == "search_path" else f"'{value}'"


def setting(rnd):
    """A statement that sets something, and the parameters of an extended one or None."""
    name = rnd.choice(list(VALUES))
    value = rnd.choice(VALUES[name])
    local = rnd.choice(["", "local ", "local "])
    kind = rnd.randrange(10)
    if kind < 5:
        return f"set {local}{name} = {literal(name, value)}", None
    if kind == 5:
        return f"reset {name}", None
    if kind == 6:
        return f"set {local}{name} to default", None
    if kind == 7:
        return f"select set_config('{name}', '{value}', {'true' if local else 'false'})", None
    if kind == 8:
        return "select set_config($1, $2, $3)", (name, value.replace("''", "'"), "t" if local else "f")
    return rnd.choice([f"reset all; set local {name} = {literal(name, value)}", "reset all",
                       f"reset all; set local {name} to default"]), None


def script(rnd):
    """Statements of a few transactions, each with its parameters or None."""
    for _ in range(4):
        if rnd.random() < 0.3:
            yield setting(rnd)
            yield look(rnd), None
        writes = rnd.choice(MEMBERS + [None])
        names = []
        yield rnd.choice(["begin", "begin", "begin isolation level repeatable read"]), None
        if rnd.random() < 0.2:
            yield rnd.choice(["set transaction isolation level serializable",
                              "set transaction read only"]), None
        for _ in range(rnd.randrange(3, 12)):
            what = rnd.random()
            if what < 0.4:
                yield setting(rnd)
            elif what < 0.75:
                yield look(rnd), None
            elif what < 0.82 and writes is not None:
                yield on(writes, "update users set name = name where id = -1"), None
            elif what < 0.9:
                names.append(rnd.choice("xyz"))
                yield f"savepoint {names[-1]}", None
            elif names:
                yield f"{rnd.choice(['rollback to', 'rollback to', 'release'])} {rnd.choice(names)}", None
            elif rnd.random() < 0.1:
                yield "select 1/0", None
        yield rnd.choice([
            "commit", "commit", "commit and chain", "rollback", "set local work_mem = '9MB'; commit",
            "set work_mem = '8MB'; commit; set local datestyle = 'German'; set timezone = 'UTC'",
            "reset timezone; rollback; begin; set app.tenant = 'x'; set local app.tenant = 'y'; commit"]), None
        yield look(rnd), None
        yield "rollback", None  # of the chain
        for member in MEMBERS:
            yield on(member, LOOK), None


def say(c, sql, values):
    return c.ask(sql) if values is None else c.say(run(sql, values), SYNC)


@pytest.mark.parametrize("number", range(N))
def test_as_on_one_postgresql(made, door, number):
    rnd = random.Random(SEED * 1000 + number)
    start = rnd.choice([{}, {"options": "-cwork_mem=5MB -capp.tenant=start", "TimeZone": "Europe/Oslo"}])
    history, skips = [f"seed {SEED}, script {number}, {start}"], False
    with Client(door.port, **start) as c, Client(made.port, "bank_p", **start) as direct:
        for sql, values in script(rnd):
            if skips and sql not in ("rollback", "commit and chain"):
                continue
            if sql == "commit and chain" and history[-1].endswith("Z(E)"):
                sql = "rollback"  # what the next one's level is then differs between versions
            if values is None and ";" not in sql and rnd.random() < 0.3:
                values = ()
            heard, wanted = say(c, sql, values), say(direct, sql, values)
            history += [f"{sql} {values or ''}", f"    {heard}", f"    {wanted}"]
            # Savepoints keep a transaction from writing elsewhere.
            if "E(0A000 a transaction with savepoints" in heard:
                skips = True
                c.ask("rollback"), direct.ask("rollback")
                continue
            skips = skips and sql != "rollback"
            assert heard == wanted, "\n".join(history[-60:])
    activity.await_rest(made)


def test_a_write_elsewhere_leaves_nothing_of_set_local(a):
    a.ask("begin")
    a.ask(on("primary", "select 1"))
    a.ask("set local timezone = 'Asia/Tokyo'")
    a.ask("set local app.tenant = '7'")
    a.ask("set datestyle = 'German'")
    assert a.ask(on("secondary", "update users set name = name where id = 1")) == "C(UPDATE 1) Z(T)"
    show = "select current_setting('timezone'), current_setting('app.tenant', true), current_setting('datestyle') " \
           "from (select count(*) from users) as u"
    for member in MEMBERS:
        assert a.ask(on(member, show)) == "T D(Asia/Tokyo|7|German, DMY) C(SELECT 1) Z(T)"
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    for member in MEMBERS:
        rows, _ = a.query(on(member, show))
        assert rows[0][0] != "Asia/Tokyo" and rows[0][1] in ("", None) and rows[0][2] == "German, DMY"


@pytest.mark.parametrize("how,after", [("set local role bob", "alice"), ("set role bob", "bob")])
def test_roles(a, how, after):
    who = "select current_user from pg_class limit 1"
    a.ask("begin")
    assert a.value(on("primary", who)) == "alice"
    assert a.ask(how) == "C(SET) Z(T)"
    assert [a.value(on(m, who)) for m in MEMBERS] == ["bob"] * 3
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    assert [a.value(on(m, who)) for m in MEMBERS] == [after] * 3
    assert a.ask("reset all") == "C(RESET) Z(I)"
    assert a.value(who) == after


@pytest.mark.parametrize("call", ["set_config('app.tenant', 'a' || 'b', true)",
                                  "set_config('app.tenant', name, false) from users where id = 1",
                                  "set_config($1::int::text, 'x', true)"])
def test_what_only_a_server_knows_does_not_go_on_elsewhere(a, call):
    a.ask("begin")
    if "$1" in call:
        a.say(run("select " + call, ("4",)), SYNC)
    else:
        a.ask("select " + call)
    t = a.ask(on("secondary", LOOK))
    assert t.startswith("E(0A000 this transaction cannot go on at another member)") or "25P02" in t
    assert a.ask("rollback") == "C(ROLLBACK) Z(I)"
    assert a.ask(on("secondary", "select 1")) == "T D(1) C(SELECT 1) Z(I)"


def test_set_config_follows_its_client(a, door):
    with Client(door.port) as b:
        a.ask("select set_config('app.tenant', 'alice', false), set_config('work_mem', '7MB', false)")
        show = "select current_setting('app.tenant', true), current_setting('work_mem') from (select count(*) from users) as u"
        for member in MEMBERS:
            assert a.ask(on(member, show)) == "T D(alice|7MB) C(SELECT 1) Z(I)"
            assert b.query(on(member, show))[0][0][1] == "4MB"
        a.ask("prepare p as select set_config($1, $2, false)")
        a.ask("execute p('app.tenant', 'bob')")
        assert [a.value(on(m, "select current_setting('app.tenant')")) for m in MEMBERS] == ["bob"] * 3


@pytest.mark.parametrize("string,left", [
    ("begin; set work_mem = '1MB'; rollback", "4MB"),
    ("set work_mem = '1MB'; begin; rollback; set timezone = 'UTC'", "4MB"),
    ("begin; set work_mem = '1MB'; commit; select 1/0", "1MB"),
    ("begin; set work_mem = '1MB'; commit; begin; set work_mem = '2MB'; rollback", "1MB"),
    ("begin; set work_mem = '1MB'; savepoint s; set work_mem = '2MB'; rollback to s; commit", "1MB"),
    ("set local work_mem = '1MB'", "4MB"),
])
def test_strings_with_transactions(a, string, left):
    a.ask(string)
    assert [a.value(on(m, "show work_mem")) for m in MEMBERS] == [left] * 3


def test_a_string_that_ends_in_the_next_transaction(a):
    a.ask("begin; set work_mem = '1MB'; commit; begin; set local work_mem = '2MB'")
    assert a.value("show work_mem") == "2MB"
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    assert [a.value(on(m, "show work_mem")) for m in MEMBERS] == ["1MB"] * 3


def setting_of(c, name):
    sql = f"select coalesce(current_setting('{name}', true), '') from (select count(*) from users) as u"
    return [c.value(on(m, sql)) for m in MEMBERS]


LONG = "x" * 17000
MANY = ";".join(f"set app.x{i} = 'mine'" for i in range(300))


@pytest.mark.parametrize("said,name,heard", [
    (f"set app.long = '{LONG}'", "app.long", "E(54000 setting is too long for a virtual database) Z(I)"),
    (f"select set_config('app.long', '{LONG}', false)", "app.long",
     "E(54000 setting is too long for a virtual database) Z(I)"),
    (f"execute p('app.long', '{LONG}')", "app.long",
     "E(54000 setting is too long for a virtual database) Z(I)"),
    (run("select set_config($1, $2, false)", ("app.long", LONG)) + SYNC, "app.long",
     "1 E(54000 setting is too long for a virtual database) Z(I)"),
    (MANY, "app.x299", "E(54000 too many settings in one transaction) Z(I)"),
    (f"begin;{MANY}", "app.x299", "C(BEGIN) E(54000 too many settings in one transaction) Z(E)"),
    ("update pg_settings set setting = '1234' where name = 'work_mem'", "work_mem", None),
], ids=["long", "long call", "long execute", "long bind", "many", "many in one", "update"])
def test_what_cannot_be_kept_meets_nobody_else(a, door, said, name, heard):
    a.ask("prepare p as select set_config($1, $2, false)")
    t = a.ask(said) if isinstance(said, str) else a.say(said)
    assert heard is None or t == heard
    a.ask("rollback")
    with Client(door.port) as b:
        assert setting_of(b, name) == ["4MB" if name == "work_mem" else ""] * 3


@pytest.mark.parametrize("portal", ["", "p"])
@pytest.mark.parametrize("sql", ["set app.bound = '8'", "select set_config('app.bound', '8', false)"])
def test_what_is_bound_and_not_run_is_not_set(a, door, sql, portal):
    """Nor does a link pass for one that has it."""
    with Client(door.port) as b:
        b.ask("set app.bound = '8'")
        a.ask("set app.bound = '7'")
        assert setting_of(a, "app.bound") == ["7"] * 3
        assert a.say(pg.parse("", sql), pg.bind(portal, "", ()), SYNC) == "1 2 Z(I)"
        assert setting_of(b, "app.bound") == ["8"] * 3
        assert portal or setting_of(a, "app.bound") == ["7"] * 3


def test_settings_of_many_savepoints_that_went(a):
    """What is put back on another leg does not grow with them, and is refused when it cannot be told."""
    a.ask("begin")
    a.ask(on("secondary", "select count(*) from users"))
    a.ask(on("primary", "savepoint s"))
    a.ask("; ".join(["set local app.one = '1'; rollback to s"] * 300))
    assert a.ask(on("secondary", "select count(*) from users")).endswith("Z(T)")
    a.ask(on("primary", "savepoint s"))
    for i in range(2):
        a.ask("; ".join(f"set local app.y{i}_{n} = '1'; rollback to s" for n in range(150)))
    assert setting_of(a, "app.one")[0] == ""
    a.ask("rollback")


def test_a_setting_that_one_member_alone_knows(a, door, made):
    """The others say so to each statement, and the session goes on."""
    here, name = "set pgweave.database = secondary", "default_text_search_config"
    with made.connect(bank.MEMBERS["secondary"], user="alice") as c:
        c.execute("create text search configuration only_here (copy = simple)")
    refused = f"E(22023 invalid value for parameter \"{name}\": \"only_here\") Z(%s)"
    assert a.ask(f"begin; {here}") and a.ask(f"set {name} = 'only_here'") == "C(SET) Z(T)"
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    a.ask("reset pgweave.database")
    for _ in range(2):
        assert a.ask(on("primary", "select 1")) == refused % "I"
        assert a.value(on("secondary", f"show {name}")) == "public.only_here"
    assert a.say(run(on("primary", "select $1"), ("1",)), SYNC) == refused % "I"
    a.ask("begin")
    assert a.ask(on("primary", "select 1")) == refused % "E"
    a.ask("rollback")
    for sql in [here, f"reset {name}", "reset pgweave.database"]:
        a.ask(sql)
    assert a.ask(on("primary", "select 1")) == "T D(1) C(SELECT 1) Z(I)"


@pytest.mark.parametrize("order", ["set local {0} to default; reset all", "reset all; set local {0} to default",
                                   "set local {0} to default; set {0} = '{1}'; reset all"])
@pytest.mark.parametrize("name,value", [("work_mem", "3MB"), ("TimeZone", "Asia/Tokyo"), ("app.tenant", "7")])
def test_reset_all_beside_reset_for_now(door, made, order, name, value):
    """All that the client asked for when it connected is there again, on every leg."""
    start = {"options": "-cwork_mem=5MB -capp.tenant=start", "TimeZone": "Europe/Oslo"}
    with Client(door.port, **start) as c:
        for sql in ["begin", on("primary", LOOK), "set datestyle = 'German'", order.format(name, value)]:
            c.ask(sql)
        show = "select current_setting('work_mem'), current_setting('TimeZone'), current_setting('app.tenant'), " \
               "current_setting('datestyle') from (select count(*) from users) as u"
        assert [c.query(on(m, show))[0] for m in MEMBERS] == [[["5MB", "Europe/Oslo", "start", "ISO, MDY"]]] * 3
    activity.await_rest(made)


@pytest.mark.parametrize("portal", ["", "p"])
@pytest.mark.parametrize("then", ["", "select 1 from (select count(*) from users) as u", "commit", "rollback"])
@pytest.mark.parametrize("word", ["commit", "rollback"])
def test_an_end_that_is_bound_and_not_run_ends_nothing(door, made, word, then, portal):
    """Neither for what was set in the transaction nor for what it listens to."""
    show = "select current_setting('work_mem') from (select count(*) from users) as u"
    bound = pg.parse("", word) + pg.bind(portal, "")
    with Client(door.port) as c, Client(made.port, "bank_p") as direct, Client(door.port) as other:
        for end in ["commit", "rollback"]:
            for sql in ["begin", "listen ends", "set work_mem = '9MB'"]:
                assert c.ask(sql) == direct.ask(sql)
            batch = bound + (run(then) if then else b"")
            assert c.say(batch, SYNC) == direct.say(batch, SYNC)
            heard = c.ask(end), direct.ask(end)
            assert heard[0].split(" ")[-2:] == heard[1].split(" ")[-2:]
            is_there = direct.value("select count(*) from pg_listening_channels()") == "1"
            assert [c.value(on(m, show)) for m in MEMBERS] == [direct.value(show)] * 3
            other.ask("notify ends")
            assert ("A" in c.ask("select 1").split()) == is_there
            for one in c, direct:
                one.ask("reset work_mem"), one.ask("unlisten *")
    activity.await_rest(made)
