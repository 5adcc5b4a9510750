"""PREPARE, EXECUTE and DEALLOCATE as SQL, where links are shared: the same answers as from
PostgreSQL itself, message by message, whichever link runs them.

The random scripts have two sessions, which take turns and use the same names for different
statements, on a pool of one link or two."""
import random
import re

import pytest

import pgproto as pg_
from transcript import SYNC, Client, again

SEED, SCRIPTS, TURNS = 3, 40, 40

TEXTS = ["select 1", "select 2 as x", "select $1::int + 1", "select $1 || 'x'", "select 1/0",
         "select nosuch", "insert into fz values ($1)", "select count(*) from fz", "selec 1",
         "select * from generate_series(1, $1)", "select 'a;b' -- end", "values (1), (2)",
         "/* first */ select 'ä', $2::int, $1::text",
         "select count(*), min(name) from pg_prepared_statements where from_sql",
         "select nosuch, $1::int from pg_catalog.pg_prepared_statements",
         "/* ü */ with x as (select 1) select name from pg_prepared_statements, x where name <> $1 order by 1"]
TYPES = ["", "", "", "(int)", "(int, text)", "(nosuch)", "(bigint, int, text)"]
ARGUMENTS = ["", "", "(1)", "(1, 'b')", "('1')", "(null)", "(1 + 1)", "()", "(nosuch)", "('x')", "(-5)",
             "(1, 2, 3)"]
NAMES = ["p", "q", "P", '"Q ü"', "transaction", "all", "select", "p"]
OTHERS = ["begin", "commit", "rollback", "savepoint s", "rollback to s", "select 1", "select 1/0",
          "deallocate all", "discard plans", "", "show application_name",
          "select name, statement, from_sql from pg_prepared_statements order by 1",
          "select name, from_sql from pg_prepared_statement() f order by 1"]


def statement(rnd):
    name = rnd.choice(NAMES)
    kind = rnd.random()
    if kind < 0.3:
        return f"prepare {name} {rnd.choice(TYPES)} as {rnd.choice(TEXTS)}"
    if kind < 0.65:
        before = rnd.choice(["", "", "", "/* é */ ", "EXPLAIN (costs off) ", "explain verbose ",
                             "-- c\n"])
        return f"{before}execute {name} {rnd.choice(ARGUMENTS)}"
    if kind < 0.75:
        return f"deallocate {rnd.choice(['', 'prepare '])}{name}"
    if kind < 0.79:
        return f"create temp table tt on commit drop as execute {name} {rnd.choice(ARGUMENTS)}"
    return rnd.choice(OTHERS)


def batch(rnd):
    unit = []
    for _ in range(rnd.randrange(1, 4)):
        kind, name, portal = rnd.random(), rnd.choice(["", "", "p", "q", "s"]), rnd.choice(["", "", "c"])
        sql = statement(rnd) if rnd.random() < 0.8 else rnd.choice(TEXTS)
        if kind < 0.6:
            unit.append((f"Parse {name!r} {sql!r}", pg_.parse(name, sql)))
            if rnd.random() < 0.3:
                unit.append((f"Describe {name!r}", pg_.describe("S", name)))
        if kind < 0.8:
            if not name and kind >= 0.6:
                continue  # what has no name is used in the batch that parsed it
            if portal:
                unit.append(("Close portal", pg_.close("P", portal)))
            values = rnd.choice([(), (), ("1",)])
            unit.append((f"Bind {portal!r} {name!r} {values}", pg_.bind(portal, name, values)))
            if rnd.random() < 0.4:
                unit.append((f"Describe portal {portal!r}", pg_.describe("P", portal)))
            unit.append((f"Execute {portal!r}", pg_.execute(portal)))
        elif kind < 0.9:
            unit.append((f"Close {name!r}", pg_.close("S", name)))
        else:
            unit.append(("Flush", pg_.FLUSH))
    return unit + [("Sync", SYNC)]


def unit(rnd):
    if rnd.random() < 0.35:
        return batch(rnd)
    sql = statement(rnd) if rnd.random() < 0.7 else "; ".join(
        statement(rnd) for _ in range(rnd.randrange(2, 5)))
    return [(f"Query {sql!r}", pg_.query(sql))]


class Positioned(Client):
    """Its transcripts have the positions of errors too."""

    def message(self):
        type_, fields, body = super().message()
        if type_ == "E":
            fields = dict(fields, M=f"{fields.get('M')} @{fields.get('P')}")
        return type_, fields, body


@pytest.fixture(scope="module")
def databases(pg):
    with pg.connect("postgres") as c:
        for name in ("prep_a", "prep_b"):
            c.execute(f"create database {name} owner alice")
    for name in ("prep_a", "prep_b"):
        with pg.connect(name, user="alice") as c:
            c.execute("create table fz (a int)")


@pytest.fixture(scope="module")
def doors(module_proxy, pg, databases):
    place = {"prep_a": f"host=127.0.0.1 port={pg.port} dbname=prep_a"}
    return [module_proxy(pg, databases=place, pool_mode="transaction", default_pool_size=size,
                         max_prepared_statements=most)
            for size, most in ((1, 200), (2, 3))]


def comparable(transcript, is_batch, is_twice_wrong):
    """Of a batch: not how far it came before its error; nor which error, when it is wrong in two
    ways (a failed transaction, a name that is taken): PostgreSQL may tell the other one."""
    # how pg_prepared_statements is read differs
    if "C(EXPLAIN)" in transcript and "pg_prepared_statemen" in transcript:
        transcript = re.sub(r"D\(.*?\) (?=D\(|C\(EXPLAIN)", "", transcript)
    if not is_batch:
        return transcript
    if is_twice_wrong:
        transcript = re.sub(r"E\(\w{5} .*? @\w+\)", "E", transcript)
    return re.sub(r"(?:[123nTt] )+(?=E\b)", "", transcript)


def send_in_pieces(c, data, rnd):
    at = 0
    while at < len(data):
        size = rnd.randrange(1, 30)
        c.send(data[at:at + size])
        at += size


@pytest.mark.parametrize("number", range(SCRIPTS))
def test_answers_as_postgresql(doors, pg, databases, number, only_pgweave):
    rnd = random.Random(SEED * 1000 + number)
    door = doors[number % 2]
    with Positioned(door.port, "prep_a") as a, Positioned(door.port, "prep_a") as b, \
            Positioned(pg.port, "prep_b") as x, Positioned(pg.port, "prep_b") as y:
        for c in (a, x):
            c.ask("truncate fz")
        history, busy, failed = [f"seed {SEED}, script {number}"], None, [False, False]
        for _ in range(TURNS):
            # who is in a transaction has the only link
            who = busy if busy is not None else rnd.randrange(2)
            proxied, direct = ((a, x), (b, y))[who]
            messages = unit(rnd)
            data = b"".join(m for _, m in messages)
            history.append("ab"[who] + ": " + ", ".join(what for what, _ in messages))
            expected = direct.say(data)
            if number % 3:
                proxied.send(data)
            else:
                send_in_pieces(proxied, data, rnd)
            got = proxied.hear()
            if "EXECUTE cannot run a statement that says" in got:
                return
            is_batch = messages[-1][0] == "Sync"
            assert comparable(got, is_batch, failed[who] or "E(42P05" in got) == comparable(
                expected, is_batch, failed[who] or "E(42P05" in got), (
                    "\n".join(history + [got, expected]))
            # EXECUTE of what Parse has made of ROLLBACK TO ends the server process
            if expected.endswith("EOF"):
                return
            failed[who] = expected.endswith("Z(E)")
            busy = None if expected.endswith("Z(I)") else who


# ---- what the scripts above do not meet ----

@pytest.fixture
def door(doors, only_pgweave):
    return doors[1]


def test_definitions_between(doors, databases, only_pgweave):
    """A client that has prepared after an ALTER TABLE does not meet what others have prepared
    before, on any link, in a transaction or outside of one."""
    door = doors[1]
    with Client(door.port, "prep_a") as a, Client(door.port, "prep_a") as b:
        a.ask("create table dd (a int); insert into dd values (1)")
        for c in (a, b):
            c.ask("prepare old as select * from dd")
        a.ask("begin")  # each has a link of its own
        assert a.ask("execute old") == "T D(1) C(SELECT 1) Z(T)"
        assert b.ask("execute old") == "T D(1) C(SELECT 1) Z(I)"
        a.ask("commit")
        a.ask("alter table dd add column b int default 2")
        with Client(door.port, "prep_a") as c:
            assert c.ask("prepare new as select * from dd") == "C(PREPARE) Z(I)"
            for _ in range(2):
                a.ask("begin")
                b.ask("select 1")
                c.ask("begin")
                assert c.ask("execute new") == "T D(1|2) C(SELECT 1) Z(T)"
                a.ask("rollback")
                c.ask("commit")
        # who has prepared before is spared outside of a transaction
        assert b.ask("execute old") == "T D(1|2) C(SELECT 1) Z(I)"
        a.ask("drop table dd")
        assert b.ask("execute old").startswith('E(42P01 relation "dd" does not exist')


def test_statements_of_parse(door, pg, databases):
    """One namespace: EXECUTE of what Parse has made, Bind of what PREPARE has made, on a link
    that knows neither."""
    with Client(door.port, "prep_a") as a, Client(door.port, "prep_a") as b:
        assert a.say(pg_.parse("s", "select $1 + 1", (21,)), SYNC) == "1 Z(I)"
        assert a.ask("prepare q (int) as select $1 * 2") == "C(PREPARE) Z(I)"
        for other in ("b", "a"):
            if other == "b":
                a.ask("select 1")
                b.ask("begin")
            assert a.ask("execute s (4)") == "T D(5) C(SELECT 1) Z(I)"
            assert a.ask("select 'x'; execute s (4)") == (
                "T D(x) C(SELECT 1) T D(5) C(SELECT 1) Z(I)")
            assert a.say(again("q", ("4",)), SYNC) == "2 D(8) C(SELECT 1) Z(I)"
            assert a.say(pg_.describe("S", "q"), SYNC) == "t T Z(I)"
            if other == "b":
                b.ask("rollback")
        assert a.say(pg_.parse("q", "select 1"), SYNC) == (
            'E(42P05 prepared statement "q" already exists) Z(I)')
        assert a.say(pg_.close("S", "q"), SYNC) == "3 Z(I)"
        assert a.ask("execute q (1)") == 'E(26000 prepared statement "q" does not exist) Z(I)'
        assert a.ask("deallocate s") == "C(DEALLOCATE) Z(I)"
        assert a.say(again("s", ("4",)), SYNC).startswith("E(26000 ")


def test_a_type_that_only_parse_can_name(door, pg, databases):
    """A statement of Parse that a link refuses: its error is that of the EXECUTE."""
    with Client(door.port, "prep_a") as a, Client(door.port, "prep_a") as b:
        a.ask("create table gone (a int)")
        assert a.say(pg_.parse("s", "select * from gone"), SYNC) == "1 Z(I)"
        assert a.ask("execute s") == "T C(SELECT 0) Z(I)"
        a.ask("drop table gone; discard plans")
        b.ask("begin")
        c = Client(door.port, "prep_a")
        c.ask("deallocate all")
        c.sock.close()
        assert a.ask("execute s").startswith("E(42P01 ")
        assert a.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
        assert a.ask("begin; execute s").startswith("E(42P01 ")
        assert a.ask("rollback").endswith("C(ROLLBACK) Z(I)")


def test_a_long_string_leaves_nothing(door, databases):
    """Of a string of more than 16 kB only the first statement is looked at: what it prepares
    later is gone with its link's next client."""
    with Client(door.port, "prep_a") as a, Client(door.port, "prep_a") as b:
        a.ask("select 1 -- " + 20000 * "x" + "\n; prepare hidden as select 1")
        for c in (a, b, a, b):
            assert c.ask("execute hidden").startswith("E(26000 ")


def test_memory_is_bounded(door, databases):
    """Thousands of statements of one client, and texts of 64 MB."""
    with Client(door.port, "prep_a", seconds=60) as c:
        for n in range(100):
            got = c.ask("; ".join(f"prepare p{n}_{i} as select {i}" for i in range(100)))
            assert got == " ".join(100 * ["C(PREPARE)"]) + " Z(I)"
        # of the link's own, which this is not taken for
        assert int(c.value("select count(*) from (select pg_prepared_statement()) p")) <= 3 + 1
        assert c.ask("select 1 from pg_prepared_statements") == (
            "E(54000 this client has too many or too long prepared statements to list them) Z(I)")
        assert c.ask("execute p0_7; execute p99_99") == (
            "T D(7) C(SELECT 1) T D(99) C(SELECT 1) Z(I)")
        assert c.ask("deallocate all") == "C(DEALLOCATE ALL) Z(I)"
        text = "select 1 /* " + (16 << 20) * "x" + "*/"
        answers = [c.ask(f"prepare long{n} as {text}") for n in range(4)]
        assert answers[0] == "C(PREPARE) Z(I)"
        assert answers[3] == ("E(53200 prepared statements of this client take too much memory) Z(I)")
        assert c.ask("execute long0") == "T D(1) C(SELECT 1) Z(I)"


def test_constants_of_the_time(door, databases):
    """'now' is that of each client's own PREPARE."""
    with Client(door.port, "prep_a") as a:
        a.ask("prepare p as select timestamptz 'now'")
        first = a.ask("execute p")
        a.ask("deallocate p")
        a.ask("prepare p as select timestamptz 'now'")
        assert a.ask("execute p") != first


def test_time_zones_are_apart(doors, databases, only_pgweave):
    with Client(doors[0].port, "prep_a", TimeZone="UTC") as a, \
            Client(doors[0].port, "prep_a", TimeZone="Asia/Tokyo") as b:
        for c in (a, b):
            assert c.ask("prepare p as select extract(epoch from timestamptz '2020-01-01 00:00')") == (
                "C(PREPARE) Z(I)")
        assert a.ask("execute p") == "T D(1577836800.000000) C(SELECT 1) Z(I)"
        assert b.ask("execute p") == "T D(1577804400.000000) C(SELECT 1) Z(I)"


def test_psycopg_and_drivers(door, databases):
    with door.connect("prep_a") as c:
        c.execute("prepare p (int) as select $1 + 1")
        for n in range(12):
            assert c.execute(f"execute p ({n})").fetchone() == (n + 1,)
            assert c.execute(f"execute p ({n})", binary=True).fetchone() == (n + 1,)
        with c.pipeline():
            c.execute("prepare q as select 5")
            ran = c.execute("execute q")
            c.execute("deallocate q")
            assert ran.fetchone() == (5,)
        with pytest.raises(Exception, match='prepared statement "q" does not exist'):
            c.execute("execute q")


def test_pgbench(door, pg, databases, tmp_path):
    import subprocess
    script = tmp_path / "script.sql"
    script.write_text("prepare p (int) as select $1 + 1;\nexecute p (1);\nbegin;\nexecute p (2);\n"
                      "commit;\ndeallocate p;\n")
    for how in ("simple", "extended"):
        done = subprocess.run(
            ["/usr/lib/postgresql/15/bin/pgbench", "-n", "-M", how, "-c", "6", "-t", "30", "-f", script,
             door.dsn("prep_a")], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "number of failed transactions: 0" in done.stdout, done.stderr


# ---- what clients may do to each other, and to the proxy ----

@pytest.fixture(scope="module")
def narrow(module_proxy, pg, databases):
    """One link, with room for two statements; also as a virtual database."""
    return module_proxy(
        pg, default_pool_size=1, max_prepared_statements=2, pool_mode="transaction",
        databases={"prep_a": f"host=127.0.0.1 port={pg.port} dbname=prep_a user=alice"},
        sections="[virtual prep_v]\ndefault = prep_a\nmembers = prep_a\n")


BOTH = pytest.mark.parametrize("database", ["prep_a", "prep_v"])


def test_what_went_unseen_is_not_made_by_another(narrow, only_pgweave):
    """A PREPARE that must fail does not take the place of what another client runs, when somebody
    has dropped that without the proxy's knowing."""
    with Client(narrow.port, "prep_a") as a, Client(narrow.port, "prep_a") as b:
        for c in (a, b):
            assert c.ask("prepare p as select 71") == "C(PREPARE) Z(I)"
        assert a.ask("do $$ begin execute 'deallocate all'; end $$") == "C(DO) Z(I)"
        assert a.ask("prepare p as select 72") == (
            'E(42P05 prepared statement "p" already exists) Z(I)')
        assert b.ask("execute p") == "T D(71) C(SELECT 1) Z(I)"


def test_what_came_unseen_is_not_met_by_another(narrow, only_pgweave):
    """Of two portals with a PREPARE the older one is run where nobody looks for it."""
    with Client(narrow.port, "prep_a") as a, Client(narrow.port, "prep_a") as b:
        a.say(pg_.query("begin"))
        assert a.say(pg_.parse("", "prepare m1 as select 73"), pg_.bind("a", ""),
                     pg_.parse("", "prepare m2 as select 74"), pg_.bind("b", ""),
                     pg_.execute("a"), pg_.execute("b"), SYNC) == (
            "1 2 1 2 C(PREPARE) C(PREPARE) Z(T)")
        a.ask("commit")
        b.ask("begin")
        assert b.ask("prepare m as select 73") == "C(PREPARE) Z(T)"
        assert b.ask("commit") == "C(COMMIT) Z(I)"


@BOTH
def test_more_of_parse_than_fit(narrow, database, only_pgweave):
    with Client(narrow.port, database) as c:
        for i in range(3):
            c.say(pg_.parse(f"s{i}", f"select {i}"), SYNC)
        assert c.ask("execute s0; execute s1; execute s2") == (
            "E(54000 more prepared statements in one string than max_prepared_statements) Z(I)")
        assert c.ask("execute s2; execute s0") == "T D(2) C(SELECT 1) T D(0) C(SELECT 1) Z(I)"


@BOTH
def test_strings_that_grow(narrow, database, only_pgweave):
    """One that is short, but would bring along what it runs again and again; and long ones."""
    many = "E(54000 too many statements in a string with PREPARE, EXECUTE or DEALLOCATE) Z(I)"
    with Client(narrow.port, database, seconds=30) as c:
        for i in range(3):
            c.ask(f"prepare g{i} as select length('{'x' * (1 << 20)}{i}')")
        assert c.ask("execute g0; execute g1; execute g2;" * 400) == (
            "E(54000 what this string runs is too long to be prepared for it) Z(I)")
        assert c.ask("execute g0;" * 9 + "execute g1") == "T D(1048577) C(SELECT 1) " * 10 + "Z(I)"
        assert c.ask("execute g0;" * 20000) == many
        assert c.ask("prepare k as select 1; deallocate k;" * 20000) == many
        table = "create temp table grow (a int) on commit drop;"
        assert c.ask(table + "set work_mem = 64;" * 5000).count("C(SET)") == 5000
        assert c.ask(table + "set work_mem = 64;" * 5000 + "execute g0") == many


@BOTH
@pytest.mark.parametrize("message", ["H", "S"])
def test_what_a_copy_ignores_behind_a_prepare(narrow, database, message, only_pgweave):
    with Client(narrow.port, database) as c:
        c.send(pg_.query("prepare x as select 1; copy fz from stdin"), pg_.message(message),
               pg_.COPY_DONE)
        assert c.hear() == "C(PREPARE) G C(COPY 0) Z(I)"
        assert c.ask("execute x") == "T D(1) C(SELECT 1) Z(I)"


@BOTH
def test_a_broken_parse_behind_a_prepare(narrow, database, only_pgweave):
    with Client(narrow.port, database) as c:
        assert c.say(pg_.parse("", "prepare a as select 1"), SYNC) == "1 Z(I)"
        assert c.say(pg_.message("P", b"\0select 1"), SYNC) == (
            "E(08P01 invalid Parse message) EOF")
    with Client(narrow.port, database) as c:
        assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"


@pytest.mark.parametrize("type_", "EDC")
def test_messages_of_an_impossible_length(narrow, type_, only_pgweave):
    with Client(narrow.port, "prep_v") as c:
        c.send(type_.encode() + (100 << 20).to_bytes(4, "big") + b"x" * 1000)
        assert "E(08P01 invalid" in c.hear()
