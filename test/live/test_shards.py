"""Shard functions: hash as PostgreSQL's own partitioning, ranges, lists; keys of all types, in
statements and parameters; what is refused."""
import json
import random
import subprocess
import uuid

import psycopg
import pytest

import bank
from proxy import is_standin, program

HOME = {"p": "bank_p", "s": "bank_s", "a": "bank_a"}
NAMES = {"p": "primary", "s": "secondary", "a": "analytics"}
SQL_TYPES = {"integer": "int", "bigint": "bigint", "text": "text", "char": "char(12)", "uuid": "uuid"}

SHARDS = """
[shard bank hashed integer]
tables = hashed_integer
key = k
function = hash
members = primary, secondary, analytics
[shard bank hashed bigint]
tables = hashed_bigint
key = k
key_type = bigint
function = hash
members = primary, secondary, analytics
[shard bank hashed text]
tables = hashed_text
key = k
key_type = text
function = hash
members = primary, secondary, analytics
[shard bank hashed char]
tables = hashed_char
key = k
key_type = char
function = hash
members = primary, secondary, analytics
[shard bank hashed uuid]
tables = hashed_uuid
key = k
key_type = uuid
function = hash
members = primary, secondary, analytics
[shard bank ranged]
tables = ranged
key = k
function = range
ranges = ..<0: analytics, 0..999: primary, 1000..9999: secondary
[shard bank listed]
tables = listed
key = k
key_type = text
function = list
lists = DE AT: primary, FR "New York": secondary
"""


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    bank.create(pg)
    for name in HOME.values():
        with pg.connect(name, user="alice") as c:
            for kind, sql_type in SQL_TYPES.items():
                c.execute(f"create table hashed_{kind} (k {sql_type}, v int)")
            c.execute("create table ranged (k int primary key, v int)")
            c.execute("create table listed (k text, v int)")
    with pg.connect("bank_p", user="alice") as c:
        for kind, sql_type in SQL_TYPES.items():
            c.execute(f"create table parted_{kind} (k {sql_type}) partition by hash (k)")
    return module_proxy(pg, sections=bank.sections(pg, SHARDS))


@pytest.fixture
def c(door):
    with door.connect("bank") as connection:
        yield connection


def values_of(kind):
    rnd = random.Random(4711)
    if kind == "integer":
        return [0, 1, -1, 2**31 - 1, -2**31] + [rnd.randrange(-2**31, 2**31) for _ in range(795)]
    if kind == "bigint":
        return [0, -1, 2**63 - 1, -2**63, 2**32] + [rnd.randrange(-2**63, 2**63) for _ in range(795)]
    if kind == "uuid":
        return [uuid.UUID(int=rnd.getrandbits(128)) for _ in range(800)]
    letters = "abcxyzABC 0123'\"\\:,-éß€😀"
    most = 12 if kind == "char" else 40
    return [""] + ["".join(rnd.choice(letters) for _ in range(rnd.randrange(most + 1)))
                   for _ in range(799)]


@pytest.mark.parametrize("kind", list(SQL_TYPES))
def test_hash_is_that_of_postgresql(c, pg, kind):
    """What is inserted through the proxy stands where PostgreSQL would have put it."""
    values = values_of(kind)
    sql_type = SQL_TYPES[kind]
    with pg.connect("bank_p", user="alice") as direct:
        homes = dict(direct.execute(
            f"select i, (array['p', 's', 'a'])[r + 1] from unnest(%s::{sql_type}[]) with ordinality u (v, i), "
            f"generate_series(0, 2) r where satisfies_hash_partition('parted_{kind}'::regclass, 3, r, v)",
            [[str(v) for v in values]]).fetchall())
    assert len(homes) == len(values) and len(set(homes.values())) == 3
    for i, value in enumerate(values):
        text = str(value).replace("'", "''")
        if i % 4 == 0:
            c.execute(f"insert into hashed_{kind} (k, v) values (%s, %s)", [value, i])
        elif i % 4 == 1:
            c.execute(f"insert into hashed_{kind} (k, v) values (%b, %b)", [value, i])
        elif i % 4 == 2:
            c.execute(f"insert into hashed_{kind} (v, k) values ({i}, '{text}')")
        else:
            c.execute(f"insert into hashed_{kind} (v, k) values ({i}, '{text}'::"
                      f"{'text' if kind == 'char' else sql_type})")
    found = {}
    for letter, name in HOME.items():
        with pg.connect(name, user="alice") as direct:
            found.update({i: letter for i, in direct.execute(f"select v from hashed_{kind}")})
    assert found == {i - 1: home for i, home in homes.items()}
    # and it is read from there, one member alone
    for i in range(0, len(values), 40):
        rows = c.execute(f"select current_database() from hashed_{kind} where k = %s and v = %s",
                         [values[i], i]).fetchall()
        assert rows == [(HOME[found[i]],)]


def plan(c, sql, params=None):
    return json.loads(c.execute("explain (route, format json) " + sql, params).fetchone()[0])


def state(c, sql, params=None):
    with pytest.raises(psycopg.Error) as e:
        c.execute(sql, params)
    return e.value.sqlstate, f"{e.value.diag.message_primary} {e.value.diag.message_detail} " \
                             f"{e.value.diag.message_hint}"


def where(c, sql, params=None, **options):
    return c.execute(sql + " returning current_database()", params, **options).fetchone()[0]


def test_range(c):
    assert where(c, "insert into ranged (k) values (-5)") == "bank_a"
    assert where(c, "insert into ranged (k) values (0)") == "bank_p"
    assert where(c, "insert into ranged (k) values (%s)", [999], prepare=True) == "bank_p"
    assert where(c, "insert into ranged (k) values (1000), (9999)") == "bank_s"
    assert where(c, "update ranged set v = 1 where k = any(array[1000, 9999])") == "bank_s"
    assert sorted(c.execute("select k from ranged where k in (-5, 999, 77, 10000)").fetchall()) == [(-5,), (999,)]
    # without a shard: it reads nothing, and cannot be written
    assert c.execute("select k from ranged where k = 10000").fetchall() == []
    assert c.execute("select k from ranged where k = %s", [10000], prepare=True).fetchall() == []
    for sql in ("insert into ranged (k) values (10000)", "insert into ranged (k) values (1), (10000)",
                "update ranged set v = 1 where k = 10000", "delete from ranged where k = 10000"):
        code, text = state(c, sql)
        assert code == "23514" and "10000" in text and "(k)" in text
    assert state(c, "with x as (select 1) insert into ranged (k) values (1), (1000)")[0] == "0A000"
    for bad in ("null", "%s"):
        assert state(c, f"insert into ranged (k) values ({bad})", [None] if bad == "%s" else None)[0] == "22004"
    assert c.execute("select k from ranged where k = null").fetchall() == []
    for sql, code in (("select k from ranged where k = 9223372036854775808", "22003"),
                      ("select k from ranged where k = 'x'", "22P02")):
        got, text = state(c, sql)
        assert got == code and "\"k\"" in text and "\"ranged\"" in text
    assert "range of k" in json.dumps(plan(c, "select k from ranged where k = 5"))


def test_list(c):
    assert where(c, "insert into listed (k) values ('DE'), ('AT')") == "bank_p"
    assert where(c, "insert into listed (k) values (%s)", ["New York"]) == "bank_s"
    assert where(c, "insert into listed (k) values (%b)", ["FR"]) == "bank_s"
    assert c.execute("select k from listed where k in ('FR', 'XX')").fetchall() == [("FR",)]
    assert c.execute("select k from listed where k = 'XX'").fetchall() == []
    code, text = state(c, "insert into listed (k) values ('XX')")
    assert code == "23514" and "XX" in text and "\"listed\"" in text
    assert state(c, "insert into listed (k) values (%s)", ["de"])[0] == "23514"
    assert state(c, "insert into listed (k) values ('DE'), ('FR'), ('XX')")[0] == "23514"
    assert state(c, "insert into listed (k) values (null)")[0] == "22004"
    assert state(c, "select 1 from listed where k = %s::date", ["2026-01-01"])[0] in ("22P02", "42883")


def test_setting(c):
    c.execute("set pgweave.shard_key = 'FR'")
    assert where(c, "update listed set v = 7 where v is null") == "bank_s"
    code, text = state(c, "select count(*) from ranged")
    assert code == "22023" and "FR" in text
    c.execute("set pgweave.shard_key = '42'")
    assert c.execute("select distinct current_database() from ranged").fetchall() == [("bank_p",)]
    assert state(c, "select count(*) from listed")[0] == "22023"
    c.execute("reset pgweave.shard_key")


def test_show(door):
    rows = {r["table"]: r for r in door.rows("SHARDS")}
    assert (rows["ranged"]["function"], rows["ranged"]["key_type"]) == ("range", "integer")
    assert rows["ranged"]["members"] == "analytics, primary, secondary"
    assert "1000..9999: secondary" in rows["ranged"]["placement"]
    assert (rows["hashed_uuid"]["function"], rows["hashed_uuid"]["key_type"]) == ("hash", "uuid")
    assert rows["accounts"]["function"] == "modulo" and not rows["accounts"]["placement"]


def test_user_of_a_key(proxy, pg, door):
    """A database key lives where the function says, also by its own name for the users."""
    text = bank.sections(pg).replace(
        "function = modulo\nmembers = primary, secondary",
        "function = range\nranges = 0..41: analytics, 100..: secondary")
    other = proxy(pg, sections=text, auth_type="scram-sha-256")
    with other.connect("bank", **bank.key(1)) as c:  # user 41
        assert c.execute("select current_database()").fetchone() == ("bank_a",)
    with pytest.raises(psycopg.Error, match="user id is 42|may not use any database"):
        with other.connect("bank", **bank.key(2)) as c:  # user 42
            c.execute("select 1")


@pytest.mark.parametrize("lines,words", [
    ("tables = analytics_events\nkey = user_id\nmembers = primary", "a route or a shard"),
    ("tables = t\nkey = k\nfunction = range\nranges = 0..9: primary, 5..: secondary", "5 stands there twice"),
    ("tables = t\nkey = k\nfunction = range\nranges = 0..9: nosuch", "no member \"nosuch\""),
    ("tables = t\nkey = k\nfunction = list\nlists = x: primary", "is no integer"),
    ("tables = t\nkey = k\nfunction = hash\nkey_type = float\nmembers = primary", "key_type"),
    ("tables = t\nkey = k\nfunction = list", "lists: missing"),
])
def test_check(pg, tmp_path, lines, words):
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    ini = tmp_path / "x.ini"
    ini.write_text("[pgweave]\nauth_type = trust\nlisten_addr = 127.0.0.1\n"
                   + bank.sections(pg) + "\n[shard bank wrong]\n" + lines + "\n")
    r = subprocess.run([program(), "check", str(ini)], capture_output=True, text=True)
    assert r.returncode == 1 and words in r.stdout + r.stderr
