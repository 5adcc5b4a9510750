"""Statements without a name, run as ones that clients share (share_statements): the same messages
as from PostgreSQL itself, byte for byte but for OIDs of tables and places in its source.

The random scripts have two sessions, which take turns on a pool of one link or two; definitions
come from both of them."""
import random
import re
import struct

import pytest

import pgproto as pg_
from poll import until
from transcript import SYNC, Client, again, run

SEED, SCRIPTS, TURNS = 5, 12, 70
TABLE = "create table sh (a int, b text); insert into sh select i, 'b' || i from generate_series(1, 5) i"


class Exact(Client):
    """Its transcripts have all fields of errors and descriptions."""

    def message(self):
        type_, fields, body = super().message()
        if type_ in "EN":
            told = {k: v for k, v in fields.items() if k not in "SVFL"}
            fields = dict(fields, M=str(sorted(told.items())))
        return type_, fields, body

    def hear(self, readies=1, seconds=None):
        self.details = []
        return super().hear(readies, seconds)

    def need(self, size):
        got = super().need(size)
        if size > 5 and got[:1] == b"t":
            self.details.append(got[5:])
        elif size > 5 and got[:1] == b"T":
            count, = struct.unpack_from("!H", got, 5)
            at = 7
            for _ in range(count):
                end = got.index(b"\0", at)
                self.details.append((got[at:end], got[end + 5:end + 19]))
                at = end + 19
        return got

    def exactly(self, *messages, readies=1):
        return self.say(*messages, readies=readies), self.details


@pytest.fixture(scope="module")
def databases(pg):
    with pg.connect("postgres") as c:
        for name in ("share_a", "share_b"):
            c.execute(f"create database {name} owner alice")
    for name in ("share_a", "share_b"):
        with pg.connect(name, user="alice") as c:
            c.execute(TABLE)


@pytest.fixture(scope="module")
def doors(module_proxy, pg, databases):
    place = {"share_a": f"host=127.0.0.1 port={pg.port} dbname=share_a user=alice"}
    virtual = "[virtual share_v]\ndefault = share_a\nmembers = share_a\n"
    return [module_proxy(pg, databases=place, sections=virtual, pool_mode="transaction",
                         default_pool_size=size, max_prepared_statements=most)
            for size, most in ((1, 200), (2, 3))]


@pytest.fixture
def door(doors, only_pgweave):
    return doors[0]


def count(door, name="shared"):
    return sum(int(row[name]) for row in door.rows("WORKERS"))


def batch(sql, values=(), oids=(), describe="P", portal=""):
    out = [pg_.parse("", sql, oids)]
    if describe == "S":
        out.append(pg_.describe("S", ""))
    out.append(pg_.bind(portal, "", values))
    if describe == "P":
        out.append(pg_.describe("P", portal))
    return b"".join(out + [pg_.execute(portal), SYNC])


# ---- random scripts ----

QUERIES = [  # text, values that fit and values that do not
    ("select 1", [(), ("1",)]),
    ("select $1::int + 1", [("4",), ("x",), ("99999999999",), ()]),
    ("select a, b from sh where a = $1 order by a, b", [("1",), ("3",), ("5000000000",), ("x",)]),
    ("select * from sh where b = $1 order by a", [("b1",), ("nix",), ()]),
    ("insert into sh (a, b) values ($1, 'new')", [("7",), ("8",), ("x",), ("5000000000",)]),
    ("insert into sh (a, b) values ($1, $2) returning *", [("7", "é"), ("5000000000", "x"), ("1",)]),
    ("update sh set b = b || $1 where a = $2", [("+", "1"), ("-", "x")]),
    ("delete from sh where a > $1", [("6",), ("null",)]),
    ("with x as (insert into sh values (9, 'w') returning a) select a + $1 from x", [("1",), ("y",)]),
    ("select count(*) from sh", [()]),
    ("values (1), ($1)", [("2",), ("z",)]),
    ("select nosuch from sh", [()]),
    ("select * from missing", [()]),
    ("select 1/0", [()]),
    ("selec 1", [()]),
    ("select 1; select 2", [()]),
    ("", [()]),
    ("select timestamptz '2020-01-01 00:00', date '2020-01-02' > $1", [("2020-01-01",), ("no",)]),
    ("select pg_typeof($1), $1", [("t",)]),
    ("select f(1, $1)", [("2",)]),
    ("select 'it''s', E'a\\nb'", [()]),
    ("select sh.* from sh order by 1, 2 limit $1", [("2",), ("-1",), ("a",)]),
]
IN_TRANSACTIONS = [("begin", [()]), ("commit", [()]), ("rollback", [()]),
                   ("set local work_mem = 65", [()])]
DEFINITIONS = [
    "alter table sh alter a type bigint", "alter table sh alter a type int using 1",
    "alter table sh add c int default 3", "alter table sh drop c", "alter table sh alter a type text",
    "drop table sh; " + TABLE, "create table missing (m int)", "drop table if exists missing",
    "create or replace function f(int, int) returns text language sql as $$select 'ints'$$",
    "create or replace function f(int, text) returns text language sql as $$select 'text'$$",
    "drop function if exists f(int, int)", "begin; alter table sh add d int; rollback",
    "begin; alter table sh rename b to bb; alter table sh rename bb to b; commit",
    "do $$begin drop table if exists sh; create table sh (b text, a numeric); end$$",
    "create table other as select 1 as x; drop table other", "set datestyle = 'german'",
    "set datestyle = 'iso'", "set time zone 'Asia/Tokyo'", "set time zone 'UTC'",
    "set search_path = nosuch; reset search_path", "set intervalstyle = 'iso_8601'", "select 1",
    "select * from sh order by 1, 2", "discard plans",
]


def one_batch(rnd, sql, values):
    """Mostly what drivers send, and some that they do not."""
    kind, portal = rnd.random(), rnd.choice(["", "", "", "c"])
    oids = rnd.choice([(), (), (), (23,) * len(values), (25,) * len(values)])
    if kind < 0.6:
        return batch(sql, values, oids, rnd.choice("PPPS-"), portal)
    if kind < 0.7:
        return pg_.parse("", sql, oids) + pg_.describe("S", "") + SYNC
    if kind < 0.74:
        return pg_.parse("", sql) + SYNC
    if kind < 0.78:  # twice
        return pg_.parse("", sql) + again("", values) + again("", values) + SYNC
    if kind < 0.82:
        return pg_.parse("", sql) + pg_.FLUSH + again("", values) + SYNC
    if kind < 0.86:
        return pg_.parse("", sql) + again("", values) + run("select 5") + SYNC
    if kind < 0.9:
        return pg_.parse("", sql) + pg_.close("S", "") + again("", values) + SYNC
    if kind < 0.93:
        return pg_.parse("", sql) + pg_.bind("c", "", values) + pg_.execute("d") + SYNC
    if kind < 0.96:
        return pg_.parse("", sql) + pg_.bind("", "nosuch", values) + pg_.execute("") + SYNC
    return pg_.parse("", sql) + pg_.bind("", "", values) + pg_.execute("", 1) + SYNC


def turn(rnd, queries):
    """What is sent, what for, and how many ReadyForQuery end it."""
    if rnd.random() < 0.12:
        sql = rnd.choice(DEFINITIONS)
        return pg_.query(sql), [sql], 1
    data, said, count = b"", [], rnd.choice([1, 1, 1, 1, 1, 2, 3])
    for _ in range(count):
        sql, choices = rnd.choice(queries)
        values = rnd.choice(choices)
        data += one_batch(rnd, sql, values)
        said.append(f"{sql!r} {values}")
    return data, said, count


def same(answer, is_virtual):
    """Errors of the proxy's own do not say where in PostgreSQL's source they come from."""
    text, details = answer
    return re.sub(r", \('R', '\w+'\)", "", text) if is_virtual else text, details


@pytest.mark.parametrize("number", range(SCRIPTS))
def test_answers_as_postgresql(doors, pg, databases, number, only_pgweave):
    rnd = random.Random(SEED * 1000 + number)
    door, name = doors[number % 2], ("share_a", "share_v")[number // 2 % 2]
    queries = QUERIES + (IN_TRANSACTIONS if name == "share_a" else [])
    with Exact(door.port, name) as a, Exact(door.port, name) as b, \
            Exact(pg.port, "share_b") as x, Exact(pg.port, "share_b") as y:
        for c in (a, x):
            c.ask("drop table if exists sh, missing; drop function if exists f(int, int); "
                  "drop function if exists f(int, text); " + TABLE)
        history, busy, last = [f"seed {SEED}, script {number}"], None, turn(rnd, queries)
        for _ in range(TURNS):
            who = busy if busy is not None else rnd.randrange(2)
            proxied, direct = ((a, x), (b, y))[who]
            # hot texts are those that the link has just seen
            data, said, readies = last = last if rnd.random() < 0.6 else turn(rnd, queries)
            history.append("ab"[who] + ": " + ", ".join(said))
            expected = direct.exactly(data, readies=readies)
            got = proxied.exactly(data, readies=readies)
            assert same(got, name == "share_v") == same(expected, name == "share_v"), (
                "\n".join(history + [str(got), str(expected)]))
            busy = None if expected[0].endswith("Z(I)") else who


# ---- one thing at a time ----

def heat(door, client, data):
    """Until the link has it as a shared statement; the answer."""
    def ran():
        before, answers = count(door), [client.say(data) for _ in range(4)]
        return count(door) > before + 1 and answers[-1]
    return until(ran, 10, "the batch is shared")


def test_batches_are_shared(door, databases):
    """By clients in turns, under a name that no client knows; what is not a query is not."""
    with Client(door.port, "share_a") as a, Client(door.port, "share_a") as b:
        data = batch("select $1::int + 41", ("1",))
        assert heat(door, a, data) == "1 2 T D(42) C(SELECT 1) Z(I)"
        before = count(door)
        for c in (b, a, b):
            assert c.say(data) == "1 2 T D(42) C(SELECT 1) Z(I)"
        assert count(door) == before + 3
        assert int(a.value("select count(*) from (select (pg_prepared_statement()).*) p where name "
                           "like 'pgw_%' and statement = 'select $1::int + 41'")) == 1
        assert heat(door, a, pg_.parse("", "select $1::int - 1") + pg_.describe("S", "") + SYNC) == (
            "1 t T Z(I)")
        # what was parsed is there for a later batch, also behind another client's
        b.say(batch("select 'other'"))
        assert a.say(again("", ("5",)), SYNC) == "2 D(4) C(SELECT 1) Z(I)"
        before = count(door)
        for sql in ("begin", "commit", "select timestamptz 'now' > '2020-01-01'", "set work_mem = 64",
                    "select $1::text as " + "x" * 70):
            for _ in range(3):
                a.say(batch(sql, ("v",) if "$1" in sql else ()))
        assert count(door) - before <= 2  # of the last one, which the server has a word to each time


def test_a_notice_comes_each_time(door, databases):
    with Client(door.port, "share_a") as c:
        sql = "select 1 as " + "y" * 70
        answers = {c.say(batch(sql)) for _ in range(6)}
        assert len(answers) == 1 and answers.pop().startswith("N(identifier "), answers


def test_off_for_a_database(module_proxy, pg, databases, only_pgweave):
    line = f"host=127.0.0.1 port={pg.port} dbname=share_a user=alice"
    door = module_proxy(pg, databases={"off": line + " share_statements=0", "share_a": line},
                        pool_mode="transaction", default_pool_size=1)
    with Client(door.port, "off") as c:
        for _ in range(5):
            c.say(batch("select 1"))
        assert count(door) == 0
    with Client(door.port, "share_a") as c:
        heat(door, c, batch("select 1"))


@pytest.fixture
def direct(pg, databases):
    with pg.connect("share_a", user="alice") as c:
        c.execute("drop table if exists heal")
        c.execute("create table heal (a int, b text)")
        c.execute("insert into heal values (1, 'x')")
        yield c
        c.execute("drop table if exists heal")


@pytest.mark.parametrize("name", ["share_a", "share_v"])
@pytest.mark.parametrize("sql, values, change, answer", [
    ("select * from heal", (), "alter table heal add c int default 3", "D(1|x|3) C(SELECT 1)"),
    ("select * from heal", (), "alter table heal drop b", "D(1) C(SELECT 1)"),
    ("select b from heal where a < $1", ("5000000000",), "alter table heal alter a type bigint",
     "D(x) C(SELECT 1)"),
    ("select a from heal where a = $1", ("one",), "alter table heal alter a type text using 'one'",
     "D(one) C(SELECT 1)"),
])
def test_a_change_by_others_is_not_noticed(door, direct, sql, values, change, answer, name):
    """They speak to the server themselves, so the proxy hears nothing of it: the answer is that
    of a direct connection all the same, also when more was sent behind the batch."""
    with Client(door.port, name) as c:
        hot = batch(sql, ("1",) * len(values))
        heat(door, c, hot)
        c.say(hot)
        before = count(door, "healed")
        direct.execute(change)
        c.send(batch(sql, values))
        c.send(batch("select 'behind'"))
        assert c.hear(2) == f"1 2 T {answer} Z(I) 1 2 T D(behind) C(SELECT 1) Z(I)"
        assert c.say(batch(sql, values)) == f"1 2 T {answer} Z(I)"
        # Not at all where the shared one was too old by then to be used.
        assert count(door, "healed") - before in (0, 1)


def test_a_wrong_value_heals_nothing(door, databases):
    with Client(door.port, "share_a") as c:
        good, bad = (batch("select $1::int", (v,)) for v in ("1", "x"))
        heat(door, c, good)
        before = count(door, "healed")
        for _ in range(3):
            assert c.say(bad) == '1 E(22P02 invalid input syntax for type integer: "x") Z(I)'
            assert c.say(good) == "1 2 T D(1) C(SELECT 1) Z(I)"
        assert c.say(batch("select $1::int")) == (
            '1 E(08P01 bind message supplies 0 parameters, but prepared statement "" requires 1) Z(I)')
        assert count(door, "healed") == before


@pytest.mark.parametrize("make", [
    "create temp table sh as select 'temp' as t", "select 'temp' as t into temp sh",
    "create temp table sh (t text); insert into sh values ('temp')"])
@pytest.mark.parametrize("extended", [False, True])
def test_a_table_that_hides_another(door, databases, make, extended):
    with Client(door.port, "share_a") as c:
        data = batch("select * from sh order by 1 limit 1")
        heat(door, c, data)
        for part in make.split("; "):
            assert "E(" not in (c.say(run(part), SYNC) if extended else c.ask(part))
        assert c.say(data) == "1 2 T D(temp) C(SELECT 1) Z(I)"
        c.ask("drop table sh")
        assert c.say(data).startswith("1 2 T D(")
        assert "temp" not in c.say(data)


def test_what_constants_hang_on(door, databases):
    """Parameters that servers report, in two sessions by turns; and such that they do not."""
    with Client(door.port, "share_a", TimeZone="UTC") as a, \
            Client(door.port, "share_a", TimeZone="Asia/Tokyo") as b:
        data = batch("select extract(epoch from timestamptz '2020-01-01 00:00')")
        for _ in range(4):
            assert a.say(data) == "1 2 T D(1577836800.000000) C(SELECT 1) Z(I)"
            assert b.say(data) == "1 2 T D(1577804400.000000) C(SELECT 1) Z(I)"
        data = batch("select 1 = null")
        assert heat(door, a, data) == "1 2 T D(null) C(SELECT 1) Z(I)"
        a.ask("set transform_null_equals = on")
        assert a.say(data) == "1 2 T D(f) C(SELECT 1) Z(I)"
        a.ask("reset transform_null_equals")
        assert a.say(data) == "1 2 T D(null) C(SELECT 1) Z(I)"


def test_a_statement_dropped_behind_our_back(door, databases):
    with Client(door.port, "share_a") as c:
        c.ask("create or replace function forget() returns int language plpgsql as "
              "$$begin execute 'deallocate all'; return 1; end$$")
        data = batch("select 'kept'")
        heat(door, c, data)
        assert c.ask("select forget()") == "T D(1) C(SELECT 1) Z(I)"
        assert c.say(data) == "1 2 T D(kept) C(SELECT 1) Z(I)"
        assert c.say(data) == "1 2 T D(kept) C(SELECT 1) Z(I)"


def test_room_for_fewer_statements(door, databases):
    """What makes room is closed behind a statement that a server is sent, not one that it has."""
    texts = [f"select {n} + $1::int" for n in range(3)]
    with Client(door.port, "share_a") as c, door.console() as admin:
        for sql in texts:
            heat(door, c, batch(sql, ("1",)))
        was, = [r["value"] for r in admin.rows("show config") if r["key"] == "max_prepared_statements"]
        admin.rows("set max_prepared_statements = 1")
        try:
            for _ in range(2):
                for n, sql in enumerate(texts):
                    assert f"D({n + 1})" in c.say(batch(sql, ("1",)))
        finally:
            admin.rows(f"set max_prepared_statements = {was}")


def test_clients_that_leave(door, databases):
    """With Terminate right behind the batch: what it wrote is written, once."""
    with Client(door.port, "share_a") as a:
        a.ask("create table if not exists left_by (a int); truncate left_by")
        data = batch("insert into left_by values ($1)", ("1",))
        for _ in range(6):
            b = Client(door.port, "share_a")
            b.send(data, pg_.TERMINATE)
            assert b.hear() == "1 2 n C(INSERT 0 1) Z(I)"
            b.sock.close()
        assert a.value("select count(*) from left_by") == "6"


def test_a_parse_needs_no_link(door, databases):
    """What a server has just taken from another client, while its only link is that one's."""
    parse = pg_.parse("p", "select $1::int + 6") + SYNC
    with Client(door.port, "share_a") as a, Client(door.port, "share_a") as b:
        assert a.say(parse) == "1 Z(I)"
        assert a.ask("begin") == "C(BEGIN) Z(T)"
        assert b.say(parse) == "1 Z(I)"
        b.send(again("p", ("1",)), SYNC)
        assert not b.has_more()
        assert a.ask("commit") == "C(COMMIT) Z(I)"
        assert b.hear() == "2 D(7) C(SELECT 1) Z(I)"
        assert b.say(parse) == 'E(42P05 prepared statement "p" already exists) Z(I)'
        a.ask("create or replace function other() returns int language sql as 'select 1'")
        a.ask("begin")
        b.send(pg_.parse("q", "select $1::int + 6"), SYNC)
        assert not b.has_more()  # a definition has come between
        a.ask("commit")
        assert b.hear() == "1 Z(I)"


def test_a_parse_that_only_its_transaction_can_do(doors, databases, only_pgweave):
    with Client(doors[1].port, "share_a") as a, Client(doors[1].port, "share_a") as b:
        a.ask("begin; create table unseen (a int)")
        parse = pg_.parse("p", "select * from unseen") + SYNC
        assert a.say(parse) == "1 Z(T)"
        assert b.say(parse) == 'E(42P01 relation "unseen" does not exist) Z(I)'
        a.ask("rollback")
        assert b.say(parse) == 'E(42P01 relation "unseen" does not exist) Z(I)'


def test_named_statements_after_a_definition(door, databases):
    """A driver that prepares under a name after an ALTER TABLE does not meet what others have
    prepared before."""
    with Client(door.port, "share_a") as a, Client(door.port, "share_a") as b:
        a.ask("drop table if exists named; create table named (a int); insert into named values (1)")
        prepare = pg_.parse("p", "select * from named") + SYNC
        assert a.say(prepare) == "1 Z(I)"
        assert a.say(again("p"), SYNC) == "2 D(1) C(SELECT 1) Z(I)"
        a.ask("begin; alter table named add b int default 2; commit")
        assert b.say(prepare) == "1 Z(I)"
        assert b.say(again("p"), SYNC) == "2 D(1|2) C(SELECT 1) Z(I)"


def test_named_statements_after_a_definition_that_was_not_seen(proxy, pg, databases, only_pgweave):
    """Somebody has altered the table past the proxy: who prepares since then meets what is
    there, on whatever link, and who has prepared before meets the error that PostgreSQL has."""
    door = proxy(pg, {"share_a": f"host=127.0.0.1 port={pg.port} dbname=share_a user=alice"},
                 pool_mode="transaction", default_pool_size=2)
    statement = "select * from unseen_change"
    with Client(door.port, "share_a") as a, Client(door.port, "share_a") as b, \
            pg.connect("share_a") as past:
        a.ask("drop table if exists unseen_change; create table unseen_change (a int);"
              "insert into unseen_change values (1)")
        # both links have it
        assert a.ask("begin") == b.ask("begin") == "C(BEGIN) Z(T)"
        for c in (a, b):
            assert c.say(pg_.parse("p", statement), again("p"), SYNC) == "1 2 D(1) C(SELECT 1) Z(T)"
        assert a.ask("commit") == b.ask("commit") == "C(COMMIT) Z(I)"
        past.execute("alter table unseen_change add b int default 2")
        # a link of b's own, and then the other one
        assert a.ask("begin") == "C(BEGIN) Z(T)"
        assert b.say(pg_.parse("q", statement), pg_.describe("S", "q"), again("q"), SYNC) == \
            "1 t T 2 D(1|2) C(SELECT 1) Z(I)"
        assert b.ask("begin") == "C(BEGIN) Z(T)"
        assert a.ask("commit") == "C(COMMIT) Z(I)"
        with Client(door.port, "share_a") as c:
            assert c.say(pg_.parse("r", statement), SYNC) == "1 Z(I)"
            assert c.say(again("r"), SYNC) == "2 D(1|2) C(SELECT 1) Z(I)"
        error = "E(0A000 cached plan must not change result type)"
        past.execute("alter table unseen_change add c int default 3")
        with Client(door.port, "share_a") as c, Client(door.port, "share_a") as d:
            # within a transaction there is no second try
            assert c.say(pg_.parse("r", statement), SYNC) == "1 Z(I)"
            assert c.ask("begin") == "C(BEGIN) Z(T)"
            assert c.say(again("r"), SYNC) == "2 D(1|2|3) C(SELECT 1) Z(T)"
            assert c.ask("commit") == "C(COMMIT) Z(I)"
            past.execute("alter table unseen_change drop c")
            assert c.say(again("r"), SYNC) == f"{error} Z(I)"
            # a Bind that fails before the server looks proves nothing
            assert d.say(pg_.parse("s", statement), SYNC) == "1 Z(I)"
            assert d.say(pg_.bind("", "s", ("1",)), SYNC).startswith("E(08P01")
            assert d.say(again("s"), SYNC) == "2 D(1|2) C(SELECT 1) Z(I)"
            assert b.ask("commit") == "C(COMMIT) Z(I)"


def test_sql_prepare_after_a_definition_that_was_not_seen(door, pg, databases):
    statement = "prepare p as select * from unseen_sql"
    with Client(door.port, "share_a") as a, Client(door.port, "share_a") as b, \
            pg.connect("share_a") as past:
        a.ask("drop table if exists unseen_sql; create table unseen_sql (a int);"
              "insert into unseen_sql values (1)")
        assert a.ask(statement) == "C(PREPARE) Z(I)"
        assert a.ask("execute p") == "T D(1) C(SELECT 1) Z(I)"
        past.execute("alter table unseen_sql add b int default 2")
        assert b.ask(statement) == "C(PREPARE) Z(I)"
        assert b.ask("execute p") == "T D(1|2) C(SELECT 1) Z(I)"
