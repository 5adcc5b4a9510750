"""COPY and INSERT of rows that belong to several shards: each row goes to its member, all of them
are written or none, and the union of the members is what one PostgreSQL would have."""
import io
import random
import subprocess
import threading
import time
import uuid

import psycopg
import pytest

import bank
from proxy import is_standin

HOME = {"primary": "bank_p", "secondary": "bank_s", "analytics": "bank_a"}
SHARDS = """
[shard bank rows]
tables = rows, late, swapped, "odd Name"
key = k
function = hash
members = primary, secondary, analytics
[shard bank named]
tables = named
key = name
key_type = text
function = hash
members = primary, secondary, analytics
[shard bank ids]
tables = ids
key = id
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
[database twin]
fallback = primary
host =
[virtual pair]
default = primary
members = primary, twin, secondary
[shard pair rows]
tables = rows
key = k
function = list
lists = 1 2: primary, 3 4: twin, 5 6: secondary
[key vb_66666666666666666666666666666666]
secret = %s
virtual = pair
type = server
rights = federate
databases = primary, secondary
[shard bank wrong]
tables = wrong
key = k
function = modulo
members = primary, secondary
""" % bank.verifier("f" * 48)
TABLES = """
create table rows (k int not null, a text, b numeric, c bytea, primary key (k));
create table late (a text, n int default 7, k int, b text);
create table named (v int, name text);
create table ids (id uuid, v int);
create table ranged (k int primary key, v int check (v is distinct from 13));
create table listed (k text, v int);
create table wrong (k float8, v int);
create table if not exists accounts (user_id int primary key, balance numeric(12,2));
create table parent (id int primary key);
create table child (k int, parent int references parent deferrable initially deferred);
"""


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    bank.create(pg)
    for name in [*HOME.values(), "postgres"]:
        with (pg.connect(name) if name == "postgres" else pg.connect(name, user="alice")) as c:
            if name == "postgres":
                c.execute("drop schema if exists one cascade; create schema one; set search_path to one")
            c.execute(TABLES)
            c.execute("create table swapped (k int, %s text)" % ("b text, a" if name == "bank_s" else "a text, b"))
    return module_proxy(pg, sections=bank.sections(pg, SHARDS))


@pytest.fixture
def c(door, pg):
    for name in HOME.values():
        with pg.connect(name, user="alice") as direct:
            direct.execute("truncate rows, late, named, ids, ranged, listed, wrong, child, parent, "
                           "swapped")
    with door.connect("bank") as connection:
        yield connection


def there(pg, sql):
    """What each member answers, as {member: rows}."""
    found = {}
    for member, name in HOME.items():
        with pg.connect(name, user="alice") as direct:
            found[member] = direct.execute(sql).fetchall()
    return found


def count(pg, table):
    return {m: rows[0][0] for m, rows in there(pg, f"select count(*) from {table}").items()}


def copy_in(c, sql, data, size=0):
    """The tag of a COPY of these bytes, sent in pieces of that size."""
    with c.cursor() as cur:
        with cur.copy(sql) as copy:
            for i in range(0, len(data), size or len(data) or 1):
                copy.write(data[i:i + (size or len(data))])
        return cur.statusmessage


def fails(c, sql, data, size=0):
    with pytest.raises(psycopg.Error) as e:
        copy_in(c, sql, data, size)
    d = e.value.diag
    return e.value.sqlstate, d.message_primary, d.context or ""


# ---- COPY ----

def test_text(c, pg):
    data = b"1\tone\n2\ttwo\\tand\n-3\t\\N\n4\t\n"
    assert copy_in(c, "copy rows (k, a) from stdin", data) == "COPY 4"
    assert sorted(r for rows in there(pg, "select k, a from rows").values() for r in rows) == \
        [(-3, None), (1, "one"), (2, "two\tand"), (4, "")]
    assert c.execute("select a from rows where k = 2").fetchone() == ("two\tand",)


def same_as_one(pg, c, table, columns, sql, data, size=0):
    """The same COPY into one table of one database: the same rows, or the same SQLSTATE."""
    with pg.connect("postgres") as one:
        one.execute(f"set search_path to one; truncate {table}")
        try:
            want, tag = None, copy_in(one, sql, data, size)
        except psycopg.Error as e:
            want, tag = e.sqlstate, None
        rows = [] if want else one.execute(f"select {columns} from {table}").fetchall()
    if want:
        assert fails(c, sql, data, size)[0] == want
    else:
        assert copy_in(c, sql, data, size) == tag
    found = [r for part in there(pg, f"select {columns} from {table}").values() for r in part]
    assert sorted(map(repr, found)) == sorted(map(repr, rows))


@pytest.mark.parametrize("options,data", [
    ("", b"1\ta\r\n2\tb\r\n"), ("", b"1\ta\n2\tb"), ("", b"1\ta\n\\.\nrubbish"), ("", b""),
    ("", b"1\ta\\\nb\n2\t\\x41\\101\\q\\\\\n"), ("", b"1\ta\n2\tb\r\n3\tc\n"), ("", b"1\ta\r2\tb\r3\t\\N\r"),
    ("", b"1\ta\r\n2\tb\n"), ("", b"\\x31\ta\n\\62\tb\n"), ("", b"1\n"), ("", b"1\ta\tb\n"), ("", b"\n"),
    ("", b"x\ta\n"), ("", b"99999999999\ta\n"), ("", b" 7 \ta\n"), ("", b"7.0\ta\n"),
    ("delimiter '|' null 'none'", b"1|none\n2|\\none\n3|x\\|y\n"),
    ("(delimiter 'A', header)", b"k A a\n1Ax\\A\n2Ay\\x4A\n"),
    ("(format csv)", b'1,a\n2,"b,""c"\n3,"x\ny\r\nz"\n"4",\n5,""\n'),
    ("csv", b'1,a\r\n2,"b\nc"\r\n3,\r\n'), ("csv", b'1,a\n2,"b\n'), ("csv", b'1,a\r\n2,b\n'), ("csv", b'1,a\n2,b\r\n'),
    ("csv", b'1,a\n\\.\nrubbish'), ("csv", b'1,a\n\\.'), ("", b'1\ta\n\\.'), ("csv", b'1,\\.\n2,"\\."\n'), ("csv", b'"1"2,x"y"z\n'),
    ("csv header", b'"k\n",a\n1,b\n2,c\n'), ("(format csv, header match)", b"k,a\n1,b\n2,c\n"),
    ("(format csv, header match)", b"k,b\n1,b\n2,c\n"), ("(format csv, header match)", b"k,a\n"),
    ("csv quote '''' escape '\\' delimiter ';'", b"'1';'a\\'b\\\\c\\d'\n2;'x''y'\n"),
    ("csv null 'NULL' force not null a", b"1,NULL\n2,\"NULL\"\n"),
    ("(format csv, null 'nil', force_null (a))", b"1,nil\n2,\"nil\"\n"),
    ("(format csv, header false)", b"1,x\n2,y\n"), ("(format csv, header on)", b"1,x\n2,y\n"),
    ("(encoding 'latin1')", b"1\t\xe9\n2\t\xfc\n"), ("(encoding 'utf8')", b"1\t\xe9\n2\t\xfc\n"),
    ("(format nosuch)", b"1\ta\n"), ("(delimiter 'ab')", b"1\ta\n"), ("(freeze)", b"1\ta\n"),
])
@pytest.mark.parametrize("size", [0, 1])
def test_as_postgresql_reads_it(c, pg, options, data, size):
    same_as_one(pg, c, "rows", "k, a", f"copy rows (k, a) from stdin {options}", data, size)


def test_key_anywhere(c, pg):
    data = b"".join(b"%d\ttext %d\n" % (i, i) for i in range(500))
    assert copy_in(c, "copy late (k, a) from stdin", data) == "COPY 500"
    assert copy_in(c, "copy late (a, k) from stdin csv",
                   b"".join(b'"%d ""x""\n",%d\n' % (i, i) for i in range(500))) == "COPY 500"
    assert all(n > 200 for n in count(pg, "late").values())
    # without a list: the catalog says which column it is
    for _ in range(100):
        try:
            assert copy_in(c, "copy late from stdin", b"a\t1\t5\tb\nc\t\\N\t6\td\ne\t3\t7\tf\n") == "COPY 3"
            break
        except psycopg.Error as e:
            assert e.sqlstate == "0A000" and "without its shard key" in str(e)
            time.sleep(0.1)
    assert c.execute("select a, n, b from late where k = 6 and b is not null").fetchall() == [("c", None, "d")]
    for sql in ("copy late (a, b) from stdin", "copy late (a) from stdin csv"):
        assert fails(c, sql, b"")[0] == "0A000"


def binary(rows):
    def field(v):
        return b"\xff\xff\xff\xff" if v is None else len(v).to_bytes(4, "big") + v
    return (b"PGCOPY\n\xff\r\n\0" + b"\0\0\0\0" + b"\0\0\0\3abc"
            + b"".join(len(r).to_bytes(2, "big") + b"".join(map(field, r)) for r in rows) + b"\xff\xff")


def test_binary(c, pg):
    rows = [((i - 50).to_bytes(4, "big", signed=True), b"text %d" % i if i % 3 else None) for i in range(100)]
    data = binary(rows)
    for size in (0, 1, 7):
        same_as_one(pg, c, "rows", "k, a", "copy rows (k, a) from stdin (format binary)", data, size)
        with pg.connect("bank_p", user="alice") as p, pg.connect("bank_s", user="alice") as s, \
                pg.connect("bank_a", user="alice") as a:
            for direct in (p, s, a):
                direct.execute("truncate rows")
    same_as_one(pg, c, "rows", "k, a", "copy binary rows (k, a) from stdin", data[:-2])
    for bad in (b"PGCOPY", data[:-5], data + b"x", data.replace(b"PGCOPY", b"PGCOPX"), binary([(None, b"x")]),
                binary([(b"\0\0\0\1",)]), binary([(b"\0\0\0\1\2", b"x")])):
        code, text, _ = fails(c, "copy rows (k, a) from stdin (format binary)", bad)
        assert code in ("22P04", "22P02", "22004", "22P03"), (bad, code, text)
    assert copy_in(c, "copy rows (k, a) from stdin binary", binary([])) == "COPY 0"
    ids = [uuid.UUID(int=i * 77777) for i in range(60)]
    assert copy_in(c, "copy ids (v, id) from stdin (format binary)",
                   binary([(i.to_bytes(4, "big"), u.bytes) for i, u in enumerate(ids)])) == "COPY 60"
    for i, u in enumerate(ids):
        assert c.execute("select v from ids where id = %s", [u]).fetchall() == [(i,)]
    # a value of eight bytes that is no bigint
    code, text, _ = fails(c, "copy wrong (k, v) from stdin (format binary)", binary([(b"\0" * 8, b"\0\0\0\1")]))
    assert code == "0A000" and "type of its shard key" in text


def test_typed_driver(c, pg):
    with c.cursor() as cur:
        with cur.copy("copy rows (k, a, b) from stdin (format binary)") as copy:
            copy.set_types(["int4", "text", "numeric"])
            for i in range(1000):
                copy.write_row((i, f"row {i}", i))
    assert sum(count(pg, "rows").values()) == 1000
    assert c.execute("select a from rows where k = 777").fetchone() == ("row 777",)


@pytest.mark.parametrize("table,rows,homes", [
    ("accounts (user_id)", b"1\n2\n-3\n", {"primary": [2], "secondary": [-3, 1]}),
    ("ranged (k)", b"-1\n0\n999\n1000\n", {"analytics": [-1], "primary": [0, 999], "secondary": [1000]}),
])
def test_homes(c, pg, table, rows, homes):
    with c.cursor() as cur:
        cur.execute("delete from accounts where user_id in (1)")
        cur.execute("delete from accounts where user_id in (2)")
    assert copy_in(c, f"copy {table} from stdin", rows).startswith("COPY ")
    key = table.split("(")[1][:-1]
    wanted = {k for ks in homes.values() for k in ks}
    for member, keys in homes.items():
        with pg.connect(HOME[member], user="alice") as direct:
            found = {k for k, in direct.execute(f"select {key} from {table.split()[0]}")}
        assert found & wanted == set(keys)


def test_list(c, pg):
    assert copy_in(c, "copy listed from stdin csv", b'DE,1\n"New York",2\nAT,3\n') == "COPY 3"
    assert count(pg, "listed") == {"primary": 2, "secondary": 1, "analytics": 0}


def test_hash_is_that_of_a_read(c):
    rnd = random.Random(815)
    names = {"".join(rnd.choice("abcABC \\,\"'éß€😀\t\n") for _ in range(rnd.randrange(1, 12))): i for i in range(400)}
    with c.cursor() as cur:
        with cur.copy("copy named (name, v) from stdin") as copy:
            for name, v in names.items():
                copy.write_row((name, v))
    for name, v in list(names.items())[::7]:
        assert c.execute("select v from named where name = %s", [name]).fetchall() == [(v,)]


@pytest.mark.parametrize("sql,data,code,text,context", [
    ("copy rows (k, a) from stdin", b"1\ta\n2\tb\nabc\tc\n4\td\n", "22P02", "must be an integer",
     'COPY rows, line 3, column k: "abc"'),
    ("copy rows (k, a) from stdin", b"1\ta\n\\N\tb\n", "22004", "null value in shard key",
     "COPY rows, line 2, column k: null input"),
    ("copy rows (a, k) from stdin csv header", b'a,k\n"x\ny",1\nz,\n', "22004", "null value in shard key",
     "COPY rows, line 4, column k: null input"),
    ("copy ranged (k) from stdin", b"1\n2\n10000\n", "23514", "no shard of table",
     'COPY ranged, line 3, column k: "10000"'),
    ("copy listed (k) from stdin", b"DE\nde\n", "23514", "no shard of table", 'COPY listed, line 2, column k: "de"'),
    ("copy rows (k) from stdin", b"1\n9223372036854775808\n", "22003", "out of range",
     'COPY rows, line 2, column k: "9223372036854775808"'),
    ("copy late (a, k) from stdin", b"x\t1\ny\n", "22P04", 'missing data for column "k"', "COPY late, line 2"),
    ("copy rows (k, a) from stdin", b"1\ta\n2\tb\\.\n", "22P04", "end-of-copy marker", "COPY rows, line 2"),
    ("copy rows (k, a) from stdin (on_error ignore)", b"1\ta\n", "0A000", "on_error", ""),
    ("copy rows (k, a) from stdin (encoding 'sjis')", b"1\ta\n", "0A000", "encoding", ""),
    ("copy named (name) from stdin (encoding 'latin1')", b"abc\n\xe9\n", "0A000", "encoding", "line 2, column name"),
    # what only the servers find
    ("copy rows (k, b) from stdin", b"1\t1\n2\t2\n3\tx\n4\t4\n5\t5\n", "22P02", "numeric", ""),
    ("copy ranged (k, v) from stdin", b"1\t1\n1001\t13\n-3\t3\n", "23514", "ranged_v_check", ""),
    ("copy rows (k) from stdin", b"1\n2\n3\n2\n", "23505", "duplicate", ""),
    ("copy rows (k, nosuch) from stdin", b"1\n", "42703", "nosuch", ""),
])
def test_refused_and_nothing_kept(c, pg, sql, data, code, text, context):
    for size in (0, 3):
        got = fails(c, sql, data, size)
        assert got[0] == code and text in got[1] and context in got[2], got
        table = sql.split()[1]
        assert set(count(pg, table).values()) == {0}
        assert c.execute("select 1").fetchone() == (1,)


def test_server_says_which_row(c):
    with pytest.raises(psycopg.Error) as e:
        copy_in(c, "copy rows (k, b) from stdin", b"1\t1\n2\tbad\n")
    detail = e.value.diag.message_detail
    assert "In database" in detail and "COPY rows, line 1" in detail and '"bad"' in detail


def test_client_gives_up(c, pg):
    with pytest.raises(psycopg.errors.QueryCanceled, match="COPY from stdin failed"):
        with c.cursor() as cur, cur.copy("copy rows (k) from stdin") as copy:
            for i in range(1000):
                copy.write(b"%d\n" % i)
            raise ValueError("enough")
    assert set(count(pg, "rows").values()) == {0}
    assert copy_in(c, "copy rows (k) from stdin", b"1\n2\n3\n") == "COPY 3"


def test_client_leaves(c, door, pg):
    lost = door.connect("bank")
    cur = lost.cursor()
    lost.pgconn.send_query(b"copy rows (k) from stdin")
    while lost.pgconn.is_busy():
        lost.pgconn.consume_input()
    assert lost.pgconn.get_result().status == psycopg.pq.ExecStatus.COPY_IN
    for i in range(1000):
        lost.pgconn.put_copy_data(b"%d\n" % i)
    lost.pgconn.finish()
    assert cur is not None
    with pg.connect("bank_p", user="alice") as direct:
        for _ in range(100):
            if direct.execute("select count(*) from pg_stat_activity where query ilike 'copy rows%' and "
                              "state = 'active'").fetchone() == (0,):
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the COPY of a client that has left goes on")
    assert set(count(pg, "rows").values()) == {0}
    assert copy_in(c, "copy rows (k) from stdin", b"1\n2\n3\n") == "COPY 3"


def test_cancel(c, pg):
    with pytest.raises(psycopg.errors.QueryCanceled):
        with c.cursor() as cur, cur.copy("copy rows (k) from stdin") as copy:
            for i in range(100):
                copy.write(b"%d\n" % i)
            c.cancel()
            for i in range(100, 1000000):
                copy.write(b"%d\n" % i)
    assert set(count(pg, "rows").values()) == {0}
    assert copy_in(c, "copy rows (k) from stdin", b"1\n2\n3\n") == "COPY 3"


def test_cancel_of_a_part_that_waits_for_a_lock(c, pg):
    with pg.connect("bank_s", user="alice") as other:
        with other.transaction():
            other.execute("insert into rows (k) select generate_series(0, 100)")
            with pytest.raises(psycopg.errors.QueryCanceled):
                with c.cursor() as cur, cur.copy("copy rows (k) from stdin") as copy:
                    for i in range(100):
                        copy.write(b"%d\n" % i)
                    threading.Timer(0.3, c.cancel).start()
            raise psycopg.Rollback()
    assert set(count(pg, "rows").values()) == {0}


def test_server_is_lost(c, pg):
    with pytest.raises(psycopg.Error) as e:
        with c.cursor() as cur, cur.copy("copy rows (k) from stdin") as copy:
            for i in range(100):
                copy.write(b"%d\n" % i)
            with pg.connect("bank_s") as direct:
                direct.execute("select pg_terminate_backend(pid) from pg_stat_activity where "
                               "datname = 'bank_s' and query ilike 'copy rows%'")
            for i in range(100, 400000):
                copy.write(b"%d\n" % i)
    assert e.value.sqlstate == "08006" and "secondary" in str(e.value)
    assert set(count(pg, "rows").values()) == {0}
    assert c.execute("select 1").fetchone() == (1,)


def test_deferred_constraints(c, pg):
    """They fail before anybody has committed."""
    text = "alter table rows add constraint later unique (a) deferrable initially deferred"
    with pg.connect("bank_s", user="alice") as direct:
        direct.execute(text)
    try:
        assert fails(c, "copy rows (k, a) from stdin", b"".join(b"%d\tsame\n" % i for i in range(50)))[0] == "23505"
        assert set(count(pg, "rows").values()) == {0}
    finally:
        with pg.connect("bank_s", user="alice") as direct:
            direct.execute("alter table rows drop constraint later")


def test_in_a_transaction(c, pg):
    homes = {i: c.execute("insert into rows (k) values (%s) returning current_database()", [i]).fetchone()[0]
             for i in range(60)}
    for name in HOME.values():
        with pg.connect(name, user="alice") as direct:
            direct.execute("truncate rows")
    *here, spare = [k for k, home in homes.items() if home == "bank_s"]
    far = [k for k, home in homes.items() if home == "bank_a"]
    rows = b"".join(b"%d\n" % k for k in here)
    with c.transaction():
        assert copy_in(c, "copy rows (k) from stdin", rows) == f"COPY {len(here)}"
    assert count(pg, "rows") == {"primary": 0, "secondary": len(here), "analytics": 0}
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="two databases"):
        with c.transaction():
            copy_in(c, "copy rows (k) from stdin", b"%d\n%d\n" % (spare, far[0]))
    # another database was written before
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="two databases.*secondary.*analytics"):
        with c.transaction():
            c.execute("update rows set a = 'x' where k = %s", [here[0]])
            copy_in(c, "copy rows (k) from stdin", b"%d\n" % far[0])
    with c.transaction():
        c.execute("update rows set a = 'x' where k = %s", [here[0]])
        c.execute("delete from rows where k = %s", [here[1]])
        assert copy_in(c, "copy rows (k) from stdin", b"%d\n" % here[1]) == "COPY 1"
    # undone with the transaction, and to a savepoint
    with c.transaction():
        c.execute("delete from rows where k = %s", [here[1]])
        with pytest.raises(psycopg.errors.UniqueViolation):
            with c.transaction():
                copy_in(c, "copy rows (k) from stdin", b"%d\n" % here[0])
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            with c.transaction():
                copy_in(c, "copy rows (k) from stdin", b"%d\n%d\n" % (here[1], far[0]))
        assert copy_in(c, "copy rows (k) from stdin", b"%d\n" % here[1]) == "COPY 1"
        raise psycopg.Rollback()
    assert count(pg, "rows") == {"primary": 0, "secondary": len(here), "analytics": 0}


def test_extended(c, pg):
    """As libpq sends it with parameters: Parse, Bind, Describe, Execute and Sync at once."""
    p = c.pgconn
    for data in ([b"1\n2\n3\n", b"4\n"], [b"5\nx\n"], [b"6\n"]):
        p.send_query_params(b"copy rows (k) from stdin", [])
        while p.is_busy():
            p.consume_input()
        assert p.get_result().status == psycopg.pq.ExecStatus.COPY_IN
        for piece in data:
            p.put_copy_data(piece)
        p.put_copy_end(b"enough" if data == [b"6\n"] else None)
        results = []
        while True:
            while p.is_busy():
                p.consume_input()
            r = p.get_result()
            if r is None:
                break
            results.append(r)
        if data[0] == b"1\n2\n3\n":
            assert results[0].command_status == b"COPY 4"
        else:
            assert results[0].status == psycopg.pq.ExecStatus.FATAL_ERROR
        assert c.execute("select 1").fetchone() == (1,)
    assert sum(count(pg, "rows").values()) == 4
    assert c.execute("explain (route) copy rows (k) from stdin").fetchall()[1:] and \
        any("each row by k" in line for line, in c.execute("explain (route) copy rows (k) from stdin"))


def test_psql(c, door, tmp_path, pg):
    file = tmp_path / "rows.csv"
    file.write_text("k,a\n" + "".join(f'{i},"row\n{i}"\n' for i in range(3000)))
    done = subprocess.run(["psql", "-X", "-h", "127.0.0.1", "-p", str(door.port), "-U", "alice", "-d", "bank",
                           "-c", f"\\copy rows (k, a) from '{file}' csv header"],
                          capture_output=True, text=True, env={"PGPASSWORD": "pw-alice", "PATH": "/usr/bin:/bin"})
    assert done.stdout.strip() == "COPY 3000", done
    assert sum(count(pg, "rows").values()) == 3000
    sql = "copy rows (k) from stdin csv;\n90000\n90001\n\\.\nselect count(*) from rows where k = 90001;\n"
    done = subprocess.run(["psql", "-X", "-At", "-h", "127.0.0.1", "-p", str(door.port), "-U", "alice", "-d", "bank"],
                          input=sql, capture_output=True, text=True,
                          env={"PGPASSWORD": "pw-alice", "PATH": "/usr/bin:/bin"})
    assert done.stdout.split("\n")[:2] == ["COPY 2", "1"], done


def test_long_rows(c, pg):
    """A row of many megabytes goes through while it comes, when its key stands first."""
    with c.cursor() as cur, cur.copy("copy rows (k, a) from stdin") as copy:
        for i in range(3):
            copy.write(b"%d\t" % i)
            for _ in range(40):
                copy.write(b"x" * 1000000)
            copy.write(b"\n")
    assert [n for part in there(pg, "select length(a) from rows").values() for n, in part] == [40000000] * 3
    with pytest.raises(psycopg.Error) as e:
        with c.cursor() as cur, cur.copy("copy rows (a, k) from stdin") as copy:
            for _ in range(80):
                copy.write(b"x" * 1000000)
            copy.write(b"\t5\n")
    assert e.value.sqlstate == "53200"


def test_random_rows(c, pg):
    rnd = random.Random(20260101)
    for turn in range(6):
        is_csv, rows = turn % 2 == 0, []
        for k in rnd.sample(range(-5000, 5000), 700):
            text = "".join(rnd.choice("ab,\"'\\\t\n\r|é€ N.") for _ in range(rnd.randrange(12)))
            rows.append((k, None if rnd.random() < 0.1 else text, None if rnd.random() < 0.5 else rnd.random()))
        for name in HOME.values():
            with pg.connect(name, user="alice") as direct:
                direct.execute("truncate rows")
        with pg.connect("postgres") as one:
            one.execute("set search_path to one; truncate rows")
            with one.cursor() as cur, cur.copy("copy rows (k, a, b) from stdin") as copy:
                for row in rows:
                    copy.write_row(row)
            out = io.BytesIO()
            with one.cursor() as cur, cur.copy("copy rows (a, b, k) to stdout" + " csv force quote a" * is_csv) as copy:
                for piece in copy:
                    out.write(piece)
        same_as_one(pg, c, "rows", "k, a, b", "copy rows (a, b, k) from stdin" + " csv" * is_csv, out.getvalue(),
                    rnd.choice([0, 11, 4096]))


BAD_AT_COMMIT = """
create function spoil() returns trigger language plpgsql as $$
begin
    set constraints all deferred;
    {what};
    return null;
end $$;
create constraint trigger spoil after insert on ranged deferrable initially deferred for each row
    when (new.v = 1313) execute function spoil();
create function leave() returns trigger language plpgsql as
    $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
create constraint trigger leave after insert on late deferrable initially deferred for each row
    when (new.k = 1313) execute function leave();
"""


@pytest.mark.parametrize("what,message,fate", [
    ("insert into child values (1, 1)", "only a part of the rows was written", '"secondary": not committed (insert'),
    ("insert into late (k) values (1313)", "it is not known whether all rows were written",
     '"secondary": not known whether it was committed'),
])
def test_commit_fails_on_one(c, pg, what, message, fate):
    """What no check before it can find: the error says what was committed where."""
    with pg.connect("bank_s", user="alice") as direct:
        direct.execute(BAD_AT_COMMIT.format(what=what))
    try:
        with pytest.raises(psycopg.Error) as e:
            copy_in(c, "copy ranged (k, v) from stdin", b"1\t1\n1001\t1313\n2\t2\n")
        detail = e.value.diag.message_detail
        assert e.value.sqlstate == "40003" and message in str(e.value)
        assert fate in detail and '"primary": committed' in detail and "analytics" not in detail, detail
        assert count(pg, "ranged") == {"primary": 2, "secondary": 0, "analytics": 0}
        # alone, it is an error like any other
        if "child" in what:
            assert fails(c, "copy ranged (k, v) from stdin", b"1002\t1313\n")[0] == "23503"
        assert copy_in(c, "copy ranged (k, v) from stdin", b"3\t1\n1003\t1\n") == "COPY 2"
    finally:
        with pg.connect("bank_s", user="alice") as direct:
            direct.execute("drop function spoil() cascade; drop function leave() cascade")


# ---- INSERT ----

def test_insert(c, pg):
    done = c.execute("insert into rows (k, a) values (1, 'one'), (2, 'two (,)'), (3, $$x$$) , (-4, null)")
    assert done.statusmessage == "INSERT 0 4"
    assert sorted(r for part in there(pg, "select k, a from rows").values() for r in part) == \
        [(-4, None), (1, "one"), (2, "two (,)"), (3, "x")]
    for k in (1, 2, 3, -4):
        assert c.execute("select count(*) from rows where k = %s", [k]).fetchone() == (1,)
    assert c.execute("insert into ranged values (5, 1), (1005, 2), (-5, 3)").statusmessage == "INSERT 0 3"
    assert {m: rows for m, rows in there(pg, "select k from ranged").items()} == \
        {"primary": [(5,)], "secondary": [(1005,)], "analytics": [(-5,)]}


def test_insert_returning(c, pg):
    keys = random.Random(5).sample(range(10000), 40)
    values = ", ".join(f"({k}, 'v{k}')" for k in keys)
    rows = c.execute(f"insert into rows (k, a) values {values} returning k, a || '!' as b, 1.5").fetchall()
    assert [r[0] for r in rows] == keys and rows[0][1] == f"v{keys[0]}!"
    # fewer rows than stood there: those of each member in their order
    again = c.execute(f"insert into rows (k, a) values {values}, (10000, 'new'), (10001, 'new'), (10002, 'new') "
                      "on conflict (k) do nothing returning k")
    assert sorted(again.fetchall()) == [(10000,), (10001,), (10002,)] and again.statusmessage == "INSERT 0 3"
    done = c.execute(f"insert into rows as r (k, a) values {values} on conflict (k) do update set a = "
                     "excluded.a || '+' || r.a returning a")
    assert [a for a, in done.fetchall()] == [f"v{k}+v{k}" for k in keys]
    assert sum(count(pg, "rows").values()) == 43


@pytest.mark.parametrize("binary", [False, True])
def test_insert_parameters(c, pg, binary):
    f = "%b" if binary else "%s"
    with c.cursor(binary=binary) as cur:
        for turn in range(6):  # prepared from the sixth time on
            base, args = turn * 1000, []
            for i in range(20):
                args += [base + i, f"text {i}", None if i % 3 else i]
            cur.execute("insert into rows (k, a, b) values " + ", ".join([f"({f}, {f}, {f})"] * 20)
                        + f" returning k, a, {f}::text", [*args, "tail"])
            assert cur.fetchall() == [(base + i, f"text {i}", "tail") for i in range(20)]
            assert cur.statusmessage == "INSERT 0 20"
    assert c.execute("select a, b from rows where k = 4005").fetchone() == ("text 5", None)
    assert sum(count(pg, "rows").values()) == 120


def test_insert_of_thousands_of_rows(c, pg):
    """Too long for the parser as it stands, and still on the right members."""
    def check(n):
        found = there(pg, "select k, a from rows")
        assert sum(map(len, found.values())) == n and all(found.values())
        for k in random.Random(n).sample(range(n), 20):  # where a statement about one row goes
            assert c.execute("select a from rows where k = %s", [k]).fetchone() == (f"it's ({k})",)

    values = ",\n ".join(f"({k}, 'it''s ({k})', {k} * 1.5)" for k in range(6000))
    sql = f"insert into rows (k, a, b) values {values} on conflict (k) do nothing"
    assert len(sql) > 150000
    assert c.execute(sql).statusmessage == "INSERT 0 6000"
    check(6000)
    keys = ", ".join(map(str, range(6000)))
    c.execute("set pgweave.databases = 'all'")
    assert c.execute(f"select count(*) from rows where k in ({keys}) and a <> 'x'").fetchone() == (6000,)
    c.execute("reset pgweave.databases")
    args = [v for k in range(6000, 9000) for v in (k, f"it's ({k})")]
    done = c.execute("insert into rows (k, a) values " + ", ".join(["(%s, %s)"] * 3000), args)
    assert done.statusmessage == "INSERT 0 3000"
    check(9000)


def test_long_statements_are_routed(c, pg):
    """A string of any length in it, a list of any length: they go where short ones go."""
    long = "x" * 100000
    c.execute(f"insert into analytics_events (id, kind) overriding system value values (-1, '{long}')")
    ids = ", ".join(map(str, range(-20000, 0)))
    assert c.execute(f"select count(*) from analytics_events where id in ({ids})").fetchone() == (1,)
    assert c.execute(f"select length(kind), '{long}' from analytics_events where id = -1").fetchone()[0] == 100000
    assert c.execute(f"delete from analytics_events where id in ({ids})").statusmessage == "DELETE 1"


def test_insert_prepared_by_name(c, pg):
    """Parse and Describe before the values are known; each Bind is split by its own."""
    p = c.pgconn
    assert p.prepare(b"st", b"insert into rows (k, a) values ($1, $2), ($3, $4) returning k").status == \
        psycopg.pq.ExecStatus.COMMAND_OK
    described = p.describe_prepared(b"st")
    assert described.nparams == 4 and [described.param_type(i) for i in range(4)] == [23, 25, 23, 25]
    for a in range(0, 40, 2):
        r = p.exec_prepared(b"st", [b"%d" % a, b"x", b"%d" % (a + 1), b"y"])
        assert r.status == psycopg.pq.ExecStatus.TUPLES_OK, r.error_message
        assert [r.get_value(i, 0) for i in range(2)] == [b"%d" % a, b"%d" % (a + 1)]
    assert sum(count(pg, "rows").values()) == 40 and all(count(pg, "rows").values())
    assert c.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("sql,code,text", [
    ("insert into rows (k, a) values (1, 'x'), (2, 'y'), (null, 'z')", "22004", "null value"),
    ("insert into rows (k, a) values (1, 'x'), (2, 'y'), ('z', 'z')", "22P02", "must be an integer"),
    ("insert into rows (k) values (1), (2), (1 + 2)", "0A000", "not known"),
    ("insert into rows (k) values (1), (2), (default)", "0A000", "not known"),
    ("insert into ranged (k) values (1), (1001), (10000)", "23514", "no shard"),
    ("insert into rows (k, b) values (1, 1), (2, 2), (3, 3), (4, 4), (5, 1/0)", "22012", "division by zero"),
    ("insert into rows (k) values (1), (2), (3), (4), (5), (1)", "23505", "duplicate key"),
    ("insert into ranged (k, v) values (1, 1), (1001, 13), (-1, 1)", "23514", "ranged_v_check"),
    ("insert into rows (k, nosuch) values (1, 1), (2, 2), (3, 3)", "42703", "nosuch"),
    ("with x as (select 1) insert into rows (k) values (1), (2), (3), (4)", "0A000", "several databases"),
    ("insert into rows (k) select 1 union select 2", "0A000", "without its shard key"),
])
def test_insert_refused_and_nothing_kept(c, pg, sql, code, text):
    with pytest.raises(psycopg.Error) as e:
        c.execute(sql)
    assert e.value.sqlstate == code and text in str(e.value)
    table = sql.split("into ")[1].split()[0]
    assert set(count(pg, table).values()) == {0}
    assert c.execute("select 1").fetchone() == (1,)


def test_insert_types_of_parameters(c, pg):
    """A parameter has the type that the whole statement gives it, or is refused."""
    p, homes = c.pgconn, {}
    for k in range(20):
        homes[c.execute("insert into rows (k) values (%s) returning current_database()", [k]).fetchone()[0]] = k
    one, two, _ = homes.values()
    c.execute("delete from rows where k = 0")
    for name in HOME.values():
        with pg.connect(name, user="alice") as direct:
            direct.execute("truncate rows")

    def run(sql, *values):
        return p.exec_params(sql.encode(), list(values))

    same = run(f"insert into rows (k, a) values ({one}, $1), ({two}, $1)", b"007")
    assert same.command_status == b"INSERT 0 2", same.error_message
    other = run(f"insert into rows (k, a) values ({one + 100}, $1::int::text), ({two}, $1), ({two + 100}, $1)", b"007")
    assert other.status == psycopg.pq.ExecStatus.FATAL_ERROR and b"type of parameter $1" in other.error_message
    told = p.exec_params(f"insert into rows (k, a) values ({one}, $1::text), ({two}, $1) "
                         "on conflict (k) do update set a = excluded.a".encode(), [b"08"], [25])
    assert told.command_status == b"INSERT 0 2", told.error_message
    assert {r for part in there(pg, "select a from rows").values() for r in part} == {("08",)}


def test_insert_impossible_parameters(c):
    many = ",".join(f"({i}, $70000)" for i in range(60))
    for sql in (f"insert into rows (k, a) values {many}", "insert into rows (k, a) values (1, $0), (2, $0), (3, $0)"):
        with pytest.raises(psycopg.Error):
            c.execute(sql)
        assert c.pgconn.exec_params(sql.encode(), []).status == psycopg.pq.ExecStatus.FATAL_ERROR
        assert c.execute("select 1").fetchone() == (1,)


def test_columns_in_another_order(c, pg):
    """Without their names nobody knows which value is whose."""
    for sql in ("insert into swapped values (1, 'a', 'b')", "insert into swapped values (1, 'a', 'b'), (2, 'a', 'b')"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="Name the columns"):
            c.execute(sql)
    assert fails(c, "copy swapped from stdin", b"1\ta\tb\n")[0] == "0A000"
    assert c.execute("insert into swapped (k, a, b) values (1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b')"
                     ).statusmessage == "INSERT 0 3"
    assert copy_in(c, "copy swapped (k, a, b) from stdin", b"4\ta\tb\n5\ta\tb\n") == "COPY 2"
    assert [r for part in there(pg, "select a, b from swapped").values() for r in part] == [("a", "b")] * 5


@pytest.mark.parametrize("sql", ["set datestyle = German", "set local datestyle = German"])
@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_what_a_failed_transaction_has_set(c, pg, sql, end):
    was = c.execute("show datestyle").fetchone()
    c.execute("begin")
    c.execute(sql)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        c.execute("insert into ranged (k) values (1), (1001)")
    c.execute(end)
    assert c.execute("show datestyle").fetchone() == was
    assert c.pgconn.parameter_status(b"DateStyle").decode() == was[0]


def test_backslashes_read_otherwise(c, pg):
    c.execute("set standard_conforming_strings = off")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="standard_conforming_strings"):
        c.execute("insert into rows (k, a) values (1, 'x\\'), (2, '), (3, 'y')")
    assert c.execute("insert into rows (k, a) values (1, 'x'), (2, 'y')").statusmessage == "INSERT 0 2"
    c.execute("reset standard_conforming_strings")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="standard_conforming_strings"):
        with c.transaction():
            c.execute("set local standard_conforming_strings = off")
            c.execute("select '\\' as x, ' || 'y'")
    assert c.execute("insert into rows (k, a) values (3, '\\'), (4, '\\')").statusmessage == "INSERT 0 2"


def test_insert_in_a_transaction(c, pg):
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot write on two databases"):
        with c.transaction():
            c.execute("insert into ranged (k) values (1), (1001)")
    with c.transaction():
        assert c.execute("insert into ranged (k) values (1), (2)").statusmessage == "INSERT 0 2"
    assert count(pg, "ranged") == {"primary": 2, "secondary": 0, "analytics": 0}


def test_insert_is_last_of_its_batch(c, pg):
    """What stands behind it would be undone alone."""
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="last of its batch"):
        with c.pipeline():
            c.execute("insert into ranged (k) values (%s), (%s)", [1, 1001])
            c.execute("select 1")
    assert set(count(pg, "ranged").values()) == {0}
    with c.pipeline() as p:
        c.execute("insert into ranged (k) values (%s), (%s)", [1, 1001])
        p.sync()
        c.execute("insert into ranged (k) values (%s), (%s)", [2, 1002])
    assert count(pg, "ranged") == {"primary": 2, "secondary": 2, "analytics": 0}


def test_insert_long(c, pg):
    """As many rows as a statement that is looked into may have."""
    values = ",".join(f"({i},'{i % 10}')" for i in range(1400))
    assert c.execute(f"insert into rows(k,a)values{values}").statusmessage == "INSERT 0 1400"
    assert sum(count(pg, "rows").values()) == 1400


def test_insert_explained(c):
    lines = [r for r, in c.execute("explain (route) insert into ranged (k) values (1), (2), (1001), (-1)")]
    assert any("Split: each row by k: " in line and "2 to primary" in line and "1 to analytics" in line
               for line in lines), lines
    import json
    plan = json.loads(c.execute("explain (route, format json) insert into ranged (k) values (%s), (%s)", [1, 1001]
                                ).fetchone()[0])
    assert plan["route"] == "split" and plan["split_by"] == "k"
    assert {d["database"]: d["rows"] for d in plan["databases"]} == {"primary": 1, "secondary": 1}
    assert c.execute("insert into ranged (k) values (1), (1001)").statusmessage == "INSERT 0 2"
    assert set(c.execute("show pgweave.routed").fetchone()[0].split(", ")) == {"primary", "secondary"}


def test_keys(door, proxy, pg):
    """A key of one member writes its own rows alone; one that may not federate, those of one."""
    other = proxy(pg, sections=bank.sections(pg, SHARDS), auth_type="scram-sha-256")
    with other.connect("bank", **bank.key(2)) as c:  # of an even user: rows of primary alone
        with c.cursor() as cur:
            cur.execute("delete from accounts where user_id = 880002")
        assert copy_in(c, "copy accounts (user_id) from stdin", b"880002\n") == "COPY 1"
        assert fails(c, "copy accounts (user_id) from stdin", b"880004\n880003\n")[0] == "42501"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            c.execute("insert into accounts (user_id) values (880004), (880003)")
        assert c.execute("select count(*) from accounts where user_id = 880004").fetchone() == (0,)
        c.execute("delete from accounts where user_id = 880002")


def test_shards_of_one_database(door, pg, c):
    """A key of one of them does not write rows of the other, whatever else is written with them."""
    with door.connect("pair", user="vb_" + "6" * 32, password="f" * 48) as k:
        assert k.execute("insert into rows (k) values (1), (5)").statusmessage == "INSERT 0 2"
        for rows in ("(2), (3), (6)", "(3), (6)", "(2), (4)", "(3)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="twin"):
                k.execute(f"insert into rows (k) values {rows}")
        assert fails(k, "copy rows (k) from stdin", b"2\n3\n")[0] == "42501"
    assert count(pg, "rows") == {"primary": 1, "secondary": 1, "analytics": 0}


def test_slow_member_holds_the_client(c, door, pg):
    """What a member does not take stays with the client, and not in the proxy's memory."""
    key = next(k for k in range(100) if c.execute(
        "insert into rows (k) values (%s) returning current_database()", [k]).fetchone() == ("bank_s",))
    c.execute("delete from rows where k = %s", [key])
    other, written = door.connect("bank"), threading.Event()

    def copy():
        with pytest.raises(psycopg.errors.QueryCanceled):
            with other.cursor() as cur, cur.copy("copy rows (k, a) from stdin") as stream:
                for _ in range(3000):
                    stream.write(b"%d\t" % key + b"x" * 100000 + b"\n")
                written.set()

    with pg.connect("bank_s", user="alice") as holder, holder.transaction():
        holder.execute("insert into rows (k) values (%s)", [key])  # the first row waits for it
        thread = threading.Thread(target=copy)
        thread.start()
        before, most = door.rss_kb(), 0
        for _ in range(30):
            written.wait(0.1)
            most = max(most, door.rss_kb())
        other.cancel()
        thread.join()
        other.close()
        assert most < before + 60000, (before, most)  # of 300 MB
        raise psycopg.Rollback()
