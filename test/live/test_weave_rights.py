"""What a read-only key may not do on a virtual database, in whatever form it is said, and what
goes to the primary though reads go to a replica."""
import pytest

import activity
import bank
import pgproto as pg_
from ledger import ANSWER, USERS, insert, number, written
from poll import until
from test_health import Pair
from transcript import SYNC, Client, call, run

READ_ONLY = "E(25006 "


@pytest.fixture(scope="module")
def made(pg):
    bank.create(pg)
    for database in ("bank_p", "bank_a"):
        with pg.connect(database, user="alice") as c:
            c.execute("create table noted (n int)")
            c.execute("create function note_volatile(int) returns int language sql volatile as "
                      "'insert into noted values ($1) returning n'")
            c.execute("create function note_stable(int) returns int language plpgsql stable as "
                      "'begin return note_volatile($1); end'")
    return pg


@pytest.fixture(scope="module")
def door(module_proxy, made):
    """Its third key, of type client, reads only."""
    name = f"[key {bank.key(3)['user']}]"
    return module_proxy(made, sections=bank.sections(made).replace(name, f"{name}\nread_only = yes"),
                        default_pool_size=2)


@pytest.fixture
def c(door, made):
    with Client(door.port, **bank.key(3)) as c:
        yield c
    activity.await_rest(made)


def noted(pg, n):
    with pg.connect("bank_p") as p:
        return p.execute("select count(*) from noted where n = %s", [n]).fetchone()[0]


# ---- a read-only key ----

BEFORE = [
    [], ["begin"], ["begin", USERS], ["begin read write"],
    ["start transaction read write, isolation level serializable"],
    ["begin", "set local transaction_read_only = off"],
    ["set default_transaction_read_only = off"], ["set default_transaction_read_only to default"],
    ["reset default_transaction_read_only"], ["reset all"], ["discard all"],
    ["select set_config('default_transaction_read_only', 'off', false)"],
    ["begin", "select set_config('transaction_read_only', 'off', true)"]]
READ_WRITE = [["begin", "set transaction read write"],
              ["set session characteristics as transaction read write"]]


def said_before(before):
    return "; ".join(before) or "nothing"


@pytest.mark.parametrize("before", BEFORE + READ_WRITE, ids=said_before)
@pytest.mark.parametrize("function", ["note_volatile", "note_stable"])
def test_read_only_key_cannot_write_by_a_function(c, made, n, before, function):
    """The server refuses it, or what would have allowed it was refused before."""
    refused = [sql for sql in before if "E(" in c.ask(sql)]
    t = c.ask(f"select {function}({n})")
    assert READ_ONLY in t or (refused and t.startswith("E(25P02 ")), t
    c.ask("commit")
    assert noted(made, n) == 0
    assert c.ask(USERS) == ANSWER + "Z(I)"


@pytest.mark.parametrize("before", BEFORE + READ_WRITE, ids=said_before)
def test_read_only_key_cannot_write(c, made, n, before):
    refused = [sql for sql in before if "E(" in c.ask(sql)]
    t = c.ask(insert(n))
    assert t.startswith(READ_ONLY) or (refused and t.startswith("E(25P02 ")), t
    c.ask("commit")
    assert written(made, n) == (0, 0)


@pytest.mark.parametrize("sql", [
    "set default_transaction_read_only = off", "set session default_transaction_read_only to false",
    "set local transaction_read_only = off", "set transaction_read_only = off",
    "set session characteristics as transaction read write"])
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_read_only_cannot_be_lifted(c, sql, how):
    t = c.ask(sql) if how == "simple" else c.say(run(sql), SYNC)
    assert t.startswith("E(42501 ") and t.endswith("Z(I)"), t


def test_read_only_key_behind_an_unsynced_batch(c, made, n):
    """A simple query is looked at also when a batch has no Sync."""
    c.say(run("select 1"), pg_.query(insert(n)))
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
    c.say(run("select 1"), pg_.query(f"select note_volatile({n})"))
    c.say(run("select 1"), run(insert(n)), SYNC)
    c.say(run("select 1"), run(f"select note_volatile({n})"), SYNC)
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
    assert written(made, n) == (0, 0) and noted(made, n) == 0


def test_read_only_key_by_function_call(c, made, n):
    """The message FunctionCall."""
    with made.connect("bank_p") as p:
        oid, = p.execute("select 'note_volatile(int)'::regprocedure::oid::int").fetchone()
    for before in ([], [run("select 1")]):
        t = c.say(*before, call(oid, str(n)))
        assert "V" not in t.split(), t
    assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
    assert noted(made, n) == 0


def test_read_only_key_in_a_statement_too_long_to_be_kept(c, made, n):
    sql = insert(n) + " /*" + "x" * (65 << 20) + "*/"
    t = c.say(run("select 1"), run(sql), SYNC, seconds=30)
    assert "E(" in t or "EOF" in t
    assert written(made, n) == (0, 0)


@pytest.mark.parametrize("statements", [
    ["copy users (id, name) from stdin"], ["create table t (a int)"], ["truncate users"],
    ["do $$ begin delete from users; end $$"], ["explain analyze delete from users"],
    ["with d as (delete from users returning 1) select count(*) from d"],
    ["prepare p as delete from users", "execute p"], ["call pg_catalog.nosuch()"],
    ["select nextval('analytics_events_id_seq')"], ["select lo_create(0)"],
    ["refresh materialized view nosuch"], ["grant all on users to bob"], ["vacuum users"]], ids="; ".join)
def test_what_else_a_read_only_key_cannot(c, made, statements):
    t = [c.ask(sql) for sql in statements][-1]
    assert "E(" in t and "C(" not in t, t
    with made.connect("bank_p") as p:
        assert p.execute("select count(*) >= 60 from users").fetchone() == (True,)


# ---- replicas ----

@pytest.fixture(scope="module")
def pair():
    p = Pair()
    bank.create(p.primary)
    yield p
    p.remove()


@pytest.fixture(scope="module")
def split(module_proxy, pair):
    """A proxy whose bank is read from the replica."""
    sections = bank.sections(pair.primary, virtual="read_from = copy") + (
        f"\n[database copy]\nhost = 127.0.0.1\nport = {pair.replica.port}\ndbname = bank_p\n"
        "user = alice\npassword = pw-alice\nreplica_of = primary\n")
    door = module_proxy(pair.primary, sections=sections, default_pool_size=2, health_interval="200ms")
    until(lambda: {r["database"]: r["status"] for r in door.rows("HEALTH")}["copy"] == "healthy", 15,
          "the replica is healthy")
    return door


@pytest.fixture
def s(split, pair):
    with Client(split.port) as s:
        until(lambda: s.value(PORT) == str(pair.replica.port), 10, "reads go to the replica")
        yield s


PORT = "select current_setting('port') from (select count(*) from users) u"


def test_string_that_writes_and_reads_goes_to_the_primary(s, pair):
    n, port = number(), pair.primary.port
    assert s.ask(f"{insert(n)}; {PORT}") == f"C(INSERT 0 1) T D({port}) C(SELECT 1) Z(I)"
    assert s.ask(f"{PORT}; {insert(n + 1)}") == f"T D({port}) C(SELECT 1) C(INSERT 0 1) Z(I)"
    assert s.ask(f"{insert(n + 2)}; select 1 from users where id = {n + 2}") == (
        "C(INSERT 0 1) T D(1) C(SELECT 1) Z(I)")


@pytest.mark.parametrize("begin,where", [
    ("begin", "primary"), ("begin read only", "replica"),
    ("begin isolation level repeatable read read only", "replica"),
    ("begin isolation level serializable", "primary"),
    ("begin isolation level serializable read only", "primary"),
    ("begin read only, isolation level serializable, deferrable", "primary")])
@pytest.mark.parametrize("how", ["simple", "string", "extended"])
def test_where_a_transaction_reads(s, pair, begin, where, how):
    """A replica cannot do SERIALIZABLE; a string of several statements is the primary's."""
    port = getattr(pair, where).port
    if how == "simple":
        assert s.ask(begin) == "C(BEGIN) Z(T)"
        assert s.ask(PORT) == f"T D({port}) C(SELECT 1) Z(T)"
        assert s.ask("commit") == "C(COMMIT) Z(I)"
    elif how == "string":
        assert s.ask(f"{begin}; {PORT}; commit") == (
            f"C(BEGIN) T D({pair.primary.port}) C(SELECT 1) C(COMMIT) Z(I)")
    else:
        assert s.say(run(begin), run(PORT), run("commit"), SYNC) == (
            f"1 2 C(BEGIN) 1 2 D({port}) C(SELECT 1) 1 2 C(COMMIT) Z(I)")


@pytest.mark.parametrize("before", [[], ["begin read only"]], ids=said_before)
def test_serializable_by_default_reads_at_the_primary(s, pair, before):
    assert s.ask("set default_transaction_isolation = 'serializable'") == "C(SET) Z(I)"
    for sql in before:
        s.ask(sql)
    assert s.ask(PORT).startswith(f"T D({pair.primary.port}) C(SELECT 1) ")


@pytest.mark.parametrize("sql", [
    "select current_setting('port') from users for update",
    "select nextval('s'), current_setting('port')", "select note_volatile(1), current_setting('port')"])
def test_reads_that_write_go_to_the_primary(s, pair, sql):
    with pair.primary.connect("bank_p", user="alice") as p:
        p.execute("create sequence if not exists s")
        p.execute("create or replace function note_volatile(int) returns int language sql volatile as "
                  "'select $1'")
    t = s.ask(sql)
    assert "E(" not in t and f"{pair.primary.port})" in t and f"{pair.replica.port})" not in t
