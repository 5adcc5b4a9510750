"""The settings of a session where links are shared: the same answers as from PostgreSQL itself,
message by message, with the ParameterStatus messages, whichever link runs the statements.

The random scripts have two sessions with different startup parameters, which take turns on a
pool of one link or two, or each on a link of its own (pool_mode = session)."""
import random
import re

import pytest

import pgproto as pg_
from transcript import SYNC, Client, run, word

SEED, SCRIPTS, TURNS = 11, 30, 40

VALUES = {"work_mem": ["'5MB'", "'6000kB'", "8192", "'rubbish'"],
          "enable_seqscan": ["on", "off", "'no'"],
          "search_path": ["public", "pg_catalog, public", "'$user', \"A b\"", "''"],
          "application_name": ["'x y'", "'it''s'", "z"],
          "timezone": ["'UTC'", "'Asia/Tokyo'", "'nowhere'"],
          "datestyle": ["iso, dmy", "'German'"],
          "my.setting": ["'a;b'", "1", "'c'"],
          "statement_timeout": ["'1h'", "0", "70000"],
          "nosuch": ["1"]}
NAMES = list(VALUES)
STARTUP = [dict(application_name="first", work_mem="7MB", search_path="a, \"B\"", TimeZone="UTC",
                options="-c my.setting=yours"),
           dict(application_name="second", options="-c enable_seqscan=off -c my.setting=mine "
                "-c datestyle=sql,dmy -c statement_timeout=2h", client_encoding="utf8")]


def statement(rnd):
    name = rnd.choice(NAMES)
    value = rnd.choice(VALUES[name])
    kind = rnd.random()
    if kind < 0.25:
        before = rnd.choice(["", "", "/* c */ ", "-- c\n", " \n"])
        return f"{before}{rnd.choice(['set', 'SET session', 'Set'])} {name} {rnd.choice(['to', '='])} {value}"
    if kind < 0.32:
        return f"set local {name} to {value}"
    if kind < 0.42:
        return rnd.choice([f"reset {name}", f"set {name} to default", f"set session {name} = default"])
    if kind < 0.5:
        text = value if value.startswith("'") else "'" + value.replace("'", "''") + "'"
        return rnd.choice([f"select set_config('{name}', {text}, {rnd.choice(['false', 'true', 'false'])})",
                           f"with a as (select set_config('{name}', {text}, false) as b) select b from a",
                           f"do $$ begin perform set_config('{name}', {text}, false); end $$"])
    if kind < 0.75:
        return rnd.choice([f"show {name}", f"select current_setting('{name}', true)"])
    return rnd.choice([
        "begin", "begin", "commit", "rollback", "savepoint s", "rollback to s", "release s", "select 1/0",
        "reset all", "discard all", "set role mate", "set role none", "reset role",
        "set session authorization mate", "reset session authorization",
        "select session_user, current_user", "set time zone 'Europe/Berlin'", "set time zone local",
        "set names 'latin1'", "set names default", "show client_encoding",
        "set session characteristics as transaction isolation level serializable",
        "show default_transaction_isolation", "set work_mem from current", "select 1", ""])


def batch(rnd):
    unit = []
    for n in range(rnd.randrange(1, 4)):
        sql, name = statement(rnd), rnd.choice(["", "", "p"])
        if sql == "discard all" and unit:
            continue
        if rnd.random() < 0.2:
            unit.append(("set_config($1)", run("select set_config($1, $2, false)", ("work_mem", f"{n}9MB"))))
            continue
        unit.append((f"run {sql!r} {name!r}", pg_.close("S", name) + run(sql, name=name)))
        if sql == "discard all":
            break
    return unit + [("Sync", SYNC)]


def unit(rnd):
    if rnd.random() < 0.3:
        return batch(rnd)
    sql = statement(rnd) if rnd.random() < 0.7 else "; ".join(
        statement(rnd) for _ in range(rnd.randrange(2, 5)))
    return [(f"Query {sql!r}", pg_.query(sql))]


class Reporting(Client):
    """Its transcripts have the reports of parameters too."""

    def hear(self, readies=1, seconds=None):
        words = []
        while readies > 0:
            type_, fields, body = self.message()
            words.append(f"S({fields['name']}={fields['value']})" if type_ == "S"
                         else word(type_, fields, body))
            if type_ == "E":
                words[-1] += f"@{fields.get('P')}"
            readies -= type_ == "Z"
        return " ".join(words)


@pytest.fixture(scope="module")
def doors(module_proxy, pg):
    with pg.connect("postgres") as c:
        c.execute("create role boss superuser login")
        c.execute("create role mate")
        c.execute("create database state owner boss")
    place = {"state": f"host=127.0.0.1 port={pg.port} dbname=state user=boss"}
    return [module_proxy(pg, databases=place, **settings) for settings in (
        dict(pool_mode="transaction", default_pool_size=1),
        dict(pool_mode="transaction", default_pool_size=2, workers=2),
        dict(pool_mode="session", default_pool_size=2))]


def comparable(transcript):
    """Of a batch: not how far it came before its error."""
    return re.sub(r"(?:[123nTt] )+(?=E\b)", "", transcript)


@pytest.mark.parametrize("number", range(SCRIPTS))
def test_answers_as_postgresql(doors, pg, number, only_pgweave):
    rnd = random.Random(SEED * 1000 + number)
    door = doors[number % 3]
    with Reporting(door.port, "state", **STARTUP[0]) as a, \
            Reporting(door.port, "state", **STARTUP[1]) as b, \
            Reporting(pg.port, "state", "boss", **STARTUP[0]) as x, \
            Reporting(pg.port, "state", "boss", **STARTUP[1]) as y:
        compare(rnd, number, (a, b), (x, y))


def test_values_are_as_the_server_reads_them(doors, only_pgweave):
    """Numbers that it writes in another way, and backslashes that are two characters or one."""
    with Client(doors[0].port, "state") as a, Client(doors[0].port, "state") as b:
        a.ask("set standard_conforming_strings = off; set escape_string_warning = off")
        for value, is_read in (("010", "10"), ("-007", "-7"), ("0.50", "0.50"), ("0", "0"),
                               (r"'a\\b'", r"a\b"), (r"E'a\\b'", r"a\b"), ("'0\\b'", "0\b")):
            assert a.ask(f"set my.value = {value}") == "C(SET) Z(I)"
            b.ask("select 1")
            assert a.value("select current_setting('my.value')") == is_read, value


@pytest.mark.parametrize("first", ["prepare long_one as select 1", "select 1",
                                   "create temp table x (a int) on commit drop"])
def test_behind_a_long_statement(doors, first, only_pgweave):
    """Of strings that are not all looked at, tags tell."""
    with Client(doors[0].port, "state") as a, Client(doors[0].port, "state") as b:
        a.ask(f"{first}; select '{'x' * 20000}'; set work_mem = '9MB'")
        assert b.value("show work_mem") == "4MB"
        assert a.value("show work_mem") == "9MB"


def test_evil_settings(doors, only_pgweave):
    """What the session has set is not in the way of asking for it."""
    with Client(doors[0].port, "state") as a, Client(doors[0].port, "state") as b:
        a.ask("create schema evil; create function evil.never(text, text) returns bool language sql "
              "as 'select false'; create operator evil.= (leftarg = text, rightarg = text, "
              "function = evil.never); create operator evil.!~ (leftarg = text, rightarg = text, "
              "function = evil.never)")
        a.ask("set search_path = evil, pg_catalog; set work_mem = '9MB'; set role mate; "
              "set statement_timeout = 1")
        assert b.value("show work_mem") == "4MB" and b.value("show search_path") != "evil, pg_catalog"
        assert b.value("show statement_timeout") == "0" and b.value("show role") == "none"
        for name, value in (("work_mem", "9MB"), ("search_path", "evil, pg_catalog"),
                            ("statement_timeout", "1ms"), ("role", "mate")):
            b.ask("select 1")
            assert a.value(f"show {name}") == value
        a.ask("reset all; reset role; drop schema evil cascade")


@pytest.mark.parametrize("mode", [0, 2])
def test_reset_by_portals(doors, mode, only_pgweave):
    with Client(doors[mode].port, "state", **STARTUP[0]) as a:
        a.ask("set work_mem = '9MB'; set my.setting = x")
        a.say(pg_.parse("w", "reset work_mem"), pg_.parse("m", "reset my.setting"), SYNC)
        said = a.say(pg_.bind("a", "w"), pg_.bind("b", "m"), pg_.execute("a"), pg_.execute("b"),
                     SYNC)
        assert said == "2 2 C(RESET) C(RESET) Z(I)"
        assert [a.value(f"show {n}") for n in ("work_mem", "my.setting")] == ["7MB", "yours"]


@pytest.mark.parametrize("mode", [0, 2])
def test_discard_and_failure(doors, mode, only_pgweave):
    """What fails behind DISCARD ALL does not undo that the first values hold again."""
    with Client(doors[mode].port, "state", **STARTUP[0]) as a:
        a.ask("set work_mem = '9MB'")
        said = a.say(run("discard all"), run("select 1/0"), SYNC)
        assert said == "1 2 C(DISCARD ALL) 1 E(22012 division by zero) Z(I)"
        assert [a.value(f"show {n}") for n in ("work_mem", "my.setting")] == ["7MB", "yours"]


def test_do_that_executes(doors, only_pgweave):
    with Client(doors[0].port, "state") as a, Client(doors[0].port, "state") as b:
        a.ask("do $$ begin execute 'set deep.one = 1'; set deep.two = 2; "
              "execute $x$ select set_config('deep.three', '3', false) $x$; end $$")
        for n, name in enumerate(("one", "two", "three")):
            assert b.value(f"select coalesce(current_setting('deep.{name}', true), '')") == ""
            assert a.value(f"select current_setting('deep.{name}')") == str(n + 1)


def compare(rnd, number, proxied, direct):
    history, busy = [f"seed {SEED}, script {number}"], None
    for a, b in zip(proxied, direct):
        assert a.params == b.params
    for _ in range(TURNS):
        # who is in a transaction has the only link
        who = busy if busy is not None else rnd.randrange(2)
        messages = unit(rnd)
        data = b"".join(m for _, m in messages)
        history.append("ab"[who] + ": " + ", ".join(what for what, _ in messages))
        expected, got = direct[who].say(data), proxied[who].say(data)
        assert comparable(got) == comparable(expected), "\n".join(history + [got, expected])
        busy = None if expected.endswith("Z(I)") else who
