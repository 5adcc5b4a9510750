"""Replication jobs by sync key: what they copy, what they refuse, and that no row is missing
whatever the transactions that wrote it did."""
import random
import threading
import time

import psycopg
import pytest

from jobs import DATABASES, USERS, World, fresh
from poll import until
from proxy import is_sanitized, is_standin

pytestmark = pytest.mark.skipif(is_standin(), reason="what PgBouncer does not do")


@pytest.fixture
def world(proxy, any_pg, tmp_path):
    """A proxy in front of three empty databases; replicate into beta and gamma."""
    fresh(any_pg)
    return World(proxy, any_pg, tmp_path)


def test_copy_and_update(world):
    world.everywhere(USERS)
    world.sql("alpha", "insert into users select g, 'user ' || g from generate_series(1, 5000) g")
    world.create("users", to="beta, gamma")
    assert any("no index" in n for n in world.notices)
    assert world.job()["status"] == "never run"
    world.run()
    assert sum("5000 rows read, 5000 written" in n for n in world.notices) == 2
    assert world.same("users") == world.same("users", database="gamma") == 5000
    world.sql("alpha", "update users set name = 'x', updated_at = now() where id % 1000 = 0")
    world.sql("alpha", "insert into users values (9999, 'last')")
    world.run()
    assert world.same("users") == 5001
    assert sum(", 6 written" in n for n in world.notices) == 2
    job = world.job()
    assert (job["status"], job["running"], job["last_error"]) == ("ok", "f", None)
    assert job["id"] == job["name"] == "j" and job["targets"] == "beta, gamma"
    runs = world.runs()
    assert [r["run"] for r in runs] == ["2", "2", "1", "1"]
    assert {r["target"] for r in runs} == {"beta", "gamma"}
    assert {r["rows_written"] for r in runs[:2]} == {"6"}
    assert all(r["outcome"] == "done" and int(r["bytes"]) > 0 for r in runs)


def test_second_run_reads_what_is_new(world):
    """The watermark is kept in the target; what is old is not read again."""
    world.everywhere(USERS)
    world.sql("alpha", "insert into users select g, 'u', now() - interval '1 day' "
                       "from generate_series(1, 1000) g")
    world.create("users")
    world.run()
    world.sql("alpha", "update users set updated_at = now() where id <= 3")
    world.run()
    assert world.runs()[0]["rows_read"] == "3"
    assert len(world.sql("beta", "select * from pgweave.watermark")) == 1
    world.same("users")


def test_emptied_target_is_filled_again(world):
    world.everywhere(USERS)
    world.sql("alpha", "insert into users select g, 'u', now() - interval '1 day' "
                       "from generate_series(1, 100) g")
    world.create("users")
    world.run()
    world.sql("beta", "truncate users")
    world.run()
    assert world.same("users") == 100


def test_kinds_of_columns(world):
    world.everywhere("""create type mood as enum ('sad', 'ok');
        create table "Order Items" ("Id" bigint generated always as identity primary key,
            "the ""name"" x" text, doc json, docs jsonb, tags text[], grid int[][], b bytea,
            f float8, n numeric, u uuid, m mood, d date, i interval, ts timestamp, c char(5),
            twice int generated always as (length("the ""name"" x") * 2) stored,
            "Updated At" timestamptz not null default now())""")
    world.sql("alpha", r"""insert into "Order Items" ("the ""name"" x", doc, docs, tags, grid, b, f,
            n, u, m, d, i, ts, c)
        values (E'a\tb\nc\\d', '{"a" :  1}', '{"b": null}', '{"x,y", "q\"z", null}', '{{1,2},{3,4}}',
            '\x00ff0a', 0.1, 123456789012345678901234567890.5, gen_random_uuid(), 'ok',
            '2024-02-29', '1 mon 2 days', '2024-01-01 12:00:00.123456', 'ab'),
        (null, null, null, '{}', null, '', 'nan', 'nan', null, null, 'infinity', null,
            '-infinity', null), ('\N', '[]', '[]', null, null, null, '-infinity', 0, null, 'sad',
            null, null, null, '')""")
    world.create('"Order Items"', 'SYNC KEY "Updated At"')
    world.run()
    columns = '"Id", "the ""name"" x", doc::text, docs, tags, grid, b, f::text, n::text, u, m::text, d::text, '\
              'i, ts::text, c, twice, "Updated At"'
    assert world.same('"Order Items"', '"Id"', columns=columns) == 3
    world.run()
    assert any(", 0 written" in n for n in world.notices)
    # the sequence of the target goes on above what was copied
    world.sql("beta", 'insert into "Order Items" (doc) values (null)')
    assert world.sql("beta", 'select max("Id") from "Order Items"') == [(4,)]


def test_more_types(world):
    """What their text form could spoil: infinities, NULLs in arrays, the marks of COPY itself."""
    world.everywhere("""create domain pos as int check (value > 0); create type addr as (street text, no int);
        create table t (id int primary key, si smallint, r real, n numeric(40,10), nn numeric, bo bool, b bit(5),
            vb bit varying, tt timetz, tstz timestamptz, iv interval, d date, ip inet, ci cidr, mac macaddr, x xml,
            ta text[], ia int[], tsa timestamptz[], ba bytea[], jba jsonb[], rg int4range, mr int4multirange,
            tr tstzrange, tsv tsvector, p point, pl polygon, l pg_lsn, by bytea, ch "char", nm name, o oid, dm pos,
            ad addr, ada addr[], lt text, updated_at timestamptz not null default now());
        create index on t (updated_at)""")
    world.sql("alpha", r"""insert into t values (1, -32768, 'nan', 123.4567890123, 'nan', true, b'10101', b'',
            '12:00+05', 'infinity', '1 year -2 days 03:04:05.678', '4713-01-01 BC', '::1/64', '10.0.0.0/8',
            '08:00:2b:01:02:03', '<a>x</a>', array['a', null, 'NULL', '', E'x\ty\nz\\', '"q"'], '[2:3]={1,2}',
            array['infinity'::timestamptz, null], array['\x00'::bytea, null], array['{"a":1}'::jsonb], '[1,10)',
            '{[1,2),[5,6)}', '[2024-01-01,infinity)', 'a:1 b:2', '(1.5,-0)', '((0,0),(1,1),(2,0))', '0/16B3748',
            '\x00010203ff5c0a', 'c', 'nm', 4294967295, 5, row('st, "x"', 3), array[row('a', 1)::addr, null],
            E'\\.\n\\N\t\r\b\f\v\n\\.\n');
        insert into t (id) values (2);
        insert into t (id, nn, r, lt, ta, updated_at) values
            (3, 'infinity', 1.17549435e-38, '', '{}', 'infinity'),
            (4, '-infinity', 'infinity', '\N', array[array['a'], array[null]], '-infinity'),
            (5, 1e-100, 3.4028235e38, repeat('ü', 500000), null, '0001-01-01 BC')""")
    world.create("t", to="beta, gamma")
    world.run()
    assert world.same("t", columns="t::text") == world.same("t", database="gamma", columns="t::text") == 5
    world.run()
    assert sum(", 0 written" in n for n in world.notices) == 2


def test_partitions_and_identities(world):
    """Partitioned there, plain here; an identity that the target may set itself."""
    world.everywhere('create table g (id int generated by default as identity primary key, a int, '
                     'b int generated always as (a * 2) stored, updated_at timestamptz not null default now())')
    for name in ("alpha", "beta"):
        world.sql(name, """create table p (id int, "Ts" timestamptz not null default now(), region text,
                primary key (id, region)) partition by list (region);
            create table p_eu partition of p for values in ('eu'); create table p_other partition of p default""")
    world.sql("gamma", 'create table p ("Ts" timestamptz not null, region text, id int, primary key (region, id))')
    world.sql("alpha", "insert into p select g, now(), case g % 2 when 0 then 'eu' else 'us' end "
                       "from generate_series(1, 100) g; insert into g (a) select generate_series(1, 50)")
    world.create("p", 'SYNC KEY "Ts"', to="beta, gamma", name="p")
    world.create("g")
    world.run("p")
    world.run()
    columns = 'id, region, "Ts"'
    assert world.same("p", columns=columns) == world.same("p", database="gamma", columns=columns) == 100
    assert world.same("g") == 50
    assert world.sql("beta", "insert into g (a) values (7) returning id, b") == [(51, 14)]
    assert {r["table"] for r in world.runs("p")} == {"p"}


def test_key_columns_alone(world):
    world.everywhere("create table t (id int, updated_at timestamptz, primary key (id, updated_at))")
    world.sql("alpha", "insert into t select g, now() from generate_series(1, 10) g")
    world.create("t")
    world.run()
    world.run()
    assert world.same("t") == 10


def test_unique_key_without_primary(world):
    world.everywhere("create table t (a int not null, b text not null, v int, "
                     "updated_at timestamptz not null default now()); "
                     "create unique index on t (b, a)")
    world.sql("alpha", "insert into t select g, 'b' || g, g from generate_series(1, 10) g")
    world.create("t")
    world.run()
    world.sql("alpha", "update t set v = -v, updated_at = now()")
    world.run()
    assert world.same("t", "a") == 10


def test_unique_values_swapped(world):
    world.everywhere("create table t (id int primary key, slug text not null unique, "
                     "updated_at timestamptz not null default now()); "
                     "create table child (t int references t on delete cascade)")
    world.sql("alpha", "insert into t values (1, 'one'), (2, 'two'), (3, 'three')")
    world.create("t")
    world.run()
    world.sql("beta", "insert into child values (1), (2)")
    world.sql("alpha", "update t set slug = 'tmp' where id = 1; "
                       "update t set slug = 'one', updated_at = now() where id = 2; "
                       "update t set slug = 'two', updated_at = now() where id = 1")
    world.run()
    assert world.same("t") == 3
    assert world.sql("alpha", "select slug from t order by id") == [("two",), ("one",), ("three",)]
    # nobody's rows have gone with those that were replaced
    assert world.sql("beta", "select count(*) from child") == [(2,)]


def test_unique_value_of_a_row_that_is_gone(world):
    world.everywhere("create table t (id int primary key, slug text unique, "
                     "updated_at timestamptz not null default now())")
    world.sql("alpha", "insert into t values (1, 'one')")
    world.create("t")
    world.run()
    world.sql("alpha", "delete from t; insert into t values (2, 'one')")
    diag = world.refused("RUN JOB j")
    assert diag.sqlstate == "23505" and "unique value" in diag.message_primary
    assert "MODE full" in diag.message_hint
    assert world.sql("beta", "select id from t") == [(1,)]
    assert world.job()["status"] == "failed" and "23505" in world.job()["last_error"]


def test_parents_before_children(world):
    world.everywhere("""create table parents (id int primary key,
            updated_at timestamptz not null default now());
        create table children (id int primary key, parent int not null references parents,
            updated_at timestamptz not null default now());
        create table a_grandchildren (id int primary key, child int not null references children,
            boss int references a_grandchildren, updated_at timestamptz not null default now())""")
    world.sql("alpha", "insert into parents select generate_series(1, 10); "
                       "insert into children select g, g from generate_series(1, 10) g; "
                       "insert into a_grandchildren select g, g, 11 - g from generate_series(1, 10) g")
    world.create("a_grandchildren, children, parents")
    world.run()
    for table in ("parents", "children", "a_grandchildren"):
        assert world.same(table) == 10


def test_types_that_differ(world):
    world.sql("alpha", "create table t (id int primary key, a int, b json, c varchar(10), "
                       "updated_at timestamptz not null default now())")
    world.sql("beta", "create table t (id bigint primary key, a text, b jsonb, c text, own int, "
                      "updated_at timestamptz not null default now())")
    world.sql("alpha", "insert into t values (1, 2, '{\"x\": 1}', 'c')")
    world.create("t")
    world.run()
    assert world.sql("beta", "select id, a, b, c, own from t") == [(1, "2", {"x": 1}, "c", None)]
    world.sql("gamma", "create table t (id int primary key, a int[], b json, c varchar(10), "
                       "updated_at timestamptz not null default now())")
    diag = world.refused("CREATE JOB k FROM alpha TO gamma TABLES (t) SYNC KEY updated_at")
    assert diag.sqlstate == "42804" and '"a"' in diag.message_primary


def test_refusals(world):
    world.everywhere("create table nokey (id int, updated_at timestamptz not null); "
                     "create table nullable (id int primary key, updated_at timestamptz); "
                     "create table partial (id int primary key, updated_at timestamptz not null)")
    world.sql("alpha", "alter table partial add extra text; create table here (id int primary key, "
                       "updated_at timestamptz not null); create view seen as select * from partial; "
                       "create table short (id int primary key, updated_at timestamptz not null)")
    world.sql("beta", "create view seen as select * from partial; create table short (id int primary key, "
                      "own int not null, updated_at timestamptz not null)")

    def refused(table, key="updated_at", source="alpha", to="beta", more=""):
        d = world.refused(f"CREATE JOB j FROM {source} TO {to} TABLES ({table}) SYNC KEY {key} {more}")
        return d.sqlstate, d.message_primary
    assert refused("nokey") == (
        "42P16", 'table "nokey" of database "alpha" has no primary or unique key')
    assert refused("nullable") == ("42P16", 'sync key "updated_at" of table "nullable" may be null')
    assert refused("partial") == (
        "42703", 'column "extra" of table "partial" is missing in database "beta"')
    assert refused("seen") == ("42809", '"seen" is no table in database "alpha"')
    assert refused("short") == (
        "23502", 'column "own" of table "short" of database "beta" needs a value, '
                 'and database "alpha" does not have it')
    assert refused("here") == ("42P01", 'table "here" does not exist in database "beta"')
    assert refused("nowhere") == ("42P01", 'table "nowhere" does not exist in database "alpha"')
    assert refused("partial", "changed")[0] == "42703"
    assert refused("partial", to="delta")[0] == "3D000"
    assert refused("partial", to="alpha")[0] == "22023"
    assert refused("partial", more="EVERY 'soon'")[0] == "22023"
    assert refused("partial", more="MODE logical") == (
        "0A000", "mode logical is not supported yet")
    assert refused("partial", more="DELETES on") == ("0A000", "DELETES on is not supported yet")
    assert refused("partial", more="CREATE MISSING on")[0] == "0A000"
    assert refused("partial", more="SOMETIMES")[0] == "42601"
    for command in ("RUN", "PAUSE", "RESUME", "DROP"):
        d = world.refused(f"{command} JOB nobody")
        assert (d.sqlstate, d.message_primary) == ("42704", 'job "nobody" does not exist')
    assert world.job() is None
    with pytest.raises(psycopg.Error, match="admin access needed"):
        with world.door.connect("pgweave", "stats") as c:
            c.execute("RUN JOB j")


def test_notices(world):
    world.everywhere("create table t (id int primary key, created_at timestamptz not null default "
                     "now(), version bigint not null default 0, local timestamp not null default "
                     "now()); create index on t (created_at); create index on t (version); "
                     "create index on t (local)")
    world.create("t", "SYNC KEY created_at", name="a")
    assert len(world.notices) == 1 and "updates are not copied" in world.notices[0]
    world.create("t", "SYNC KEY version", name="b")
    assert len(world.notices) == 1 and "is no time" in world.notices[0]
    world.create("t", "SYNC KEY local", name="c")
    assert len(world.notices) == 1 and "no time zone" in world.notices[0]


def test_chains(world):
    """What one job brings to the source of another: said, whichever comes first."""
    world.everywhere(USERS + "; create table other (id int primary key, updated_at timestamptz not null)")

    def said():
        return [n for n in world.notices if "brings rows" in n]
    world.create("public.users", name="a")
    world.create("users, other", name="b")
    assert said() == []
    world.ask("CREATE JOB d FROM beta TO gamma TABLES (users) SYNC KEY updated_at")
    assert len(said()) == 2 and 'job "a"' in said()[0] and 'job "b"' in said()[1]
    world.create("users", name="c")
    assert len(said()) == 1 and 'job "c" brings rows to table "users" of database "beta"' in said()[0]
    for name, rest in (("e", "SYNC KEY updated_at OVERLAP '1 hour'"), ("f", "MODE full")):
        world.ask(f"CREATE JOB {name} FROM beta TO gamma TABLES (users) {rest}")
        assert said() == []


@pytest.mark.parametrize("key, step", [("bigint default nextval('s')", 1), ("timestamp default now()", 0)])
def test_keys_that_are_no_clock(world, key, step):
    """A number from a sequence, and a time without a zone: rows that commit late are not lost,
    and what is old is not read again."""
    world.everywhere(f"create sequence s; create table t (id int primary key, k {key} not null)")
    world.sql("alpha", "insert into t (id) select generate_series(1, 100)")
    world.create("t", "SYNC KEY k")
    with world.pg.connect("alpha") as late:
        late.autocommit = False
        late.execute("insert into t (id) values (1000)")
        world.sql("alpha", "insert into t (id) values (1001)")
        world.run()
        world.run()
        assert world.sql("beta", "select count(*) from t") == [(101,)]
        late.commit()
    world.run()
    assert world.same("t") == 102
    if step:
        world.sql("alpha", "insert into t (id) values (1002)")
        world.run()
        world.run()
        assert world.runs()[0]["rows_read"] == "1"
        world.same("t")


def test_late_commit(world):
    """The transaction takes its time early; others commit after it and are copied first."""
    world.everywhere(USERS)
    world.create("users")
    with world.pg.connect("alpha") as late:
        late.autocommit = False
        late.execute("insert into users values (1, 'late')")
        time.sleep(1.1)  # longer than what is read again anyway
        world.sql("alpha", "insert into users values (2, 'early')")
        world.run()
        assert world.sql("beta", "select id from users") == [(2,)]
        late.commit()
    world.run()
    assert world.same("users") == 2


def test_prepared_transaction(proxy, own_pg, tmp_path):
    own_pg.options += ["-c", "max_prepared_transactions=5"]
    own_pg.halt()
    own_pg.start()
    fresh(own_pg)
    world = World(proxy, own_pg, tmp_path)
    world.everywhere(USERS)
    world.create("users")
    world.sql("alpha", "begin; insert into users values (1, 'late'); prepare transaction 'p'")
    time.sleep(1.1)  # longer than what is read again anyway
    world.sql("alpha", "insert into users values (2, 'early')")
    world.run()
    assert any("prepared transaction" in n for n in world.notices)
    assert world.sql("beta", "select id from users") == [(2,)]
    world.sql("alpha", "commit prepared 'p'")
    world.run()
    assert world.same("users") == 2


def test_ledger(world):
    """Writers whose transactions commit late, while a job runs again and again: once all is
    quiet, one more run, and no row is missing or old."""
    world.everywhere("create table ledger (id bigint primary key, writer int, n int, "
                     "updated_at timestamptz not null); create index on ledger (updated_at)")
    world.create("ledger", to="beta, gamma")
    seed = random.randrange(1 << 30)
    print("seed", seed)
    stop = threading.Event()
    failures = []

    def write(writer):
        dice = random.Random(seed + writer)
        try:
            with world.pg.connect("alpha") as c:
                c.autocommit = False
                n = 0
                while not stop.is_set():
                    for _ in range(dice.randrange(1, 4)):
                        if n and dice.random() < 0.3:
                            c.execute("update ledger set n = n + 1, updated_at = now() "
                                      "where id = %s", [writer * 1000000 + dice.randrange(n)])
                        else:
                            c.execute("insert into ledger values (%s, %s, 0, now())",
                                      [writer * 1000000 + n, writer])
                            n += 1
                    time.sleep(dice.random() ** 4 * 1.5)
                    if dice.random() < 0.05:
                        # what was taken back was never there: its numbers come again
                        c.rollback()
                        n = c.execute("select count(*) from ledger where writer = %s", [writer]
                                      ).fetchone()[0]
                    c.commit()
        except Exception as e:  # noqa: BLE001: told below
            failures.append(e)

    writers = [threading.Thread(target=write, args=[i]) for i in range(8)]
    for t in writers:
        t.start()
    until_time = time.monotonic() + (10 if is_sanitized() else 8)
    while time.monotonic() < until_time:
        world.run()
    stop.set()
    for t in writers:
        t.join()
    assert not failures
    world.run()
    assert world.same("ledger") == world.same("ledger", database="gamma") > 100


def test_crash_in_the_middle(world):
    """The target's backend is ended while rows arrive: nothing of the table is there, and the
    next run brings all of it."""
    world.everywhere(USERS + "; create index on users (updated_at)")
    world.sql("alpha", "insert into users select g, repeat('x', 200), now() - interval '1 day' "
                       "from generate_series(1, 200000) g")
    world.create("users")
    error = []

    def run():
        try:
            world.run()
        except psycopg.Error as e:
            error.append(e)
    with world.pg.connect("beta") as c:
        runner = threading.Thread(target=run)
        runner.start()
        until(lambda: c.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = 'beta' "
            "and application_name = 'pgweave replication' and query ~* '^copy'").fetchone()[0], 20)
        runner.join()
    assert error and error[0].sqlstate in ("57P01", "08006")
    assert world.job()["status"] == "failed"
    assert world.sql("beta", "select count(*) from users") == [(0,)]
    world.run()
    assert world.same("users", columns="id, updated_at") == 200000
    world.run()
    assert world.runs()[0]["rows_read"] == "0"


def test_full(world):
    world.everywhere("create table parents (id int primary key, slug text unique); "
                     "create table children (id int primary key, parent int references parents); "
                     "create table bag (a int, b json)")
    world.sql("alpha", "insert into parents select g, 's' || g from generate_series(1, 20) g; "
                       "insert into children select g, g from generate_series(1, 20) g; "
                       "insert into bag values (1, '{}'), (1, '{}'), (2, null)")
    world.sql("beta", "insert into parents values (99, 's1'); insert into bag values (7)")
    world.ask("CREATE JOB j FROM alpha TO beta TABLES (children, parents, bag) MODE full")
    world.run()
    assert world.same("parents") == world.same("children") == 20
    assert world.same("bag", "a", columns="a, b::text") == 3
    world.sql("alpha", "delete from children where id > 10; delete from parents where id > 10; "
                       "update parents set slug = 'new' where id = 1")
    world.run()
    assert world.same("parents") == world.same("children") == 10
    assert {r["table"]: r["rows_deleted"] for r in world.runs()[:3]} == {
        "children": "10", "parents": "10", "bag": "3"}


def test_replicate_table(world):
    world.everywhere("create schema app; create table app.transactions (id int primary key, v int, "
                     "created_at timestamptz not null default now())")
    world.sql("alpha", "insert into app.transactions select g, g from generate_series(1, 50) g")
    world.ask("REPLICATE TABLE app.transactions FROM alpha TO beta, gamma SYNC KEY created_at")
    assert sum("50 rows read, 50 written" in n for n in world.notices) == 2
    assert any("updates are not copied" in n for n in world.notices)
    assert world.same("app.transactions", database="gamma") == 50
    world.sql("alpha", "update app.transactions set v = 0 where id = 7")
    world.ask("REPLICATE TABLE app.transactions FROM alpha TO beta SYNC KEY created_at")
    assert world.same("app.transactions") == 50
    assert world.door.rows("JOBS") == []
    diag = world.refused("REPLICATE TABLE nothing FROM alpha TO beta SYNC KEY x")
    assert diag.sqlstate == "42P01"


def test_interval_and_life(world):
    """A job that runs by itself; pause, resume, drop; it is there again after a restart."""
    world.everywhere(USERS)
    world.create("users", "SYNC KEY updated_at EVERY '200 ms'")
    world.sql("alpha", "insert into users values (1, 'a')")
    until(lambda: world.sql("beta", "select 1 from users"), 10)
    assert world.job()["interval"] == "00:00:00.200"
    until(lambda: world.job()["next_run"], 10)
    world.ask("PAUSE JOB j")
    until(lambda: world.job()["running"] == "f", 10)
    assert world.job()["status"] == "paused" and world.job()["next_run"] is None
    before = int(world.runs()[0]["run"])
    time.sleep(0.6)
    assert int(world.runs()[0]["run"]) == before
    assert world.refused("CREATE JOB j FROM alpha TO beta TABLES (users) SYNC KEY updated_at"
                         ).sqlstate == "42710"
    world.run()
    assert int(world.runs()[0]["run"]) == before + 1
    assert world.door.stop() is None
    world.door.start()
    until(lambda: world.job() and world.job()["last_run"], 10)
    assert world.job()["status"] == "paused"
    assert int(world.runs()[0]["run"]) == before + 1
    world.sql("alpha", "insert into users values (2, 'b')")
    world.ask("RESUME JOB j")
    until(lambda: len(world.sql("beta", "select 1 from users")) == 2, 10)
    world.ask("DROP JOB j")
    assert world.job() is None
    # a new job of that name begins at the beginning
    world.sql("beta", "delete from users where id = 1")
    world.create("users")
    world.run()
    assert world.same("users") == 2


def test_job_of_the_file(proxy, pg, tmp_path):
    fresh(pg)
    section = ("[replication nightly]\nsource = alpha\ntargets = beta\ntables = users\n"
               "sync_key = updated_at\ninterval = 1s\n")
    world = World(proxy, pg, tmp_path, sections=section)
    world.everywhere(USERS)
    world.sql("alpha", "insert into users values (1, 'a')")
    until(lambda: world.sql("beta", "select 1 from users"), 10)
    assert world.refused("DROP JOB nightly").sqlstate == "55000"
    world.ask("PAUSE JOB nightly")
    assert "configuration" in world.notices[0]
    assert world.job("nightly")["status"] in ("paused", "running")
    # the file's job goes with its section
    databases, port, users, _, given = world.door.settings
    world.door.settings = (databases, port, users, "", given)
    world.door.write(open(world.door.ini).read().replace(section, ""))
    world.ask("RELOAD")
    until(lambda: world.job("nightly") is None, 10)


def test_down(proxy, pg, tmp_path):
    fresh(pg)
    world = World(proxy, pg, tmp_path, gone="host=127.0.0.1 port=1 user=postgres dbname=gone")
    world.everywhere(USERS)
    diag = world.refused("CREATE JOB j FROM alpha TO gone TABLES (users) SYNC KEY updated_at")
    assert diag.sqlstate in ("08006", "57P03") and "gone" in diag.message_primary


def test_one_runner(world):
    """Another proxy that runs the job on the target keeps this one out."""
    world.everywhere(USERS)
    world.create("users")
    with world.pg.connect("beta") as c:
        c.execute("select pg_advisory_lock(hashtextextended('pgweave job j', 0))")
        diag = world.refused("RUN JOB j")
        assert diag.sqlstate == "55006" and "another proxy" in diag.message_primary
        assert world.runs()[0]["outcome"] == "skipped"
    world.run()
    assert world.job()["status"] == "ok"


def test_running_already(world):
    world.everywhere(USERS)
    world.create("users")
    with world.pg.connect("beta") as c:
        c.autocommit = False
        c.execute("lock table users")
        world.sql("alpha", "insert into users values (1, 'a')")
        runner = threading.Thread(target=world.run)
        runner.start()
        until(lambda: world.job()["running"] == "t", 10)
        with world.door.console("admin") as k:
            with pytest.raises(psycopg.Error, match="running already"):
                k.command("RUN JOB j")
        assert world.job()["status"] == "running"
        c.rollback()
        runner.join()
    assert world.same("users") == 1


def test_asked_for_while_it_runs_by_itself(world):
    """RUN JOB waits for a run that is due anyway, and then has its own."""
    world.everywhere(USERS)
    with world.pg.connect("beta") as c:
        c.autocommit = False
        c.execute("lock table users")
        world.sql("alpha", "insert into users values (1, 'a')")
        world.create("users", "SYNC KEY updated_at EVERY '1 hour'")
        until(lambda: world.sql("beta", "select 1 from pg_stat_activity where application_name = "
                                "'pgweave replication' and wait_event_type = 'Lock'"), 10)
        world.sql("alpha", "insert into users values (2, 'b')")
        runner = threading.Thread(target=world.run)
        runner.start()
        until(lambda: "RUN JOB j command issued" in world.door.log(), 10)
        with world.door.console("admin") as k:
            with pytest.raises(psycopg.Error, match="running already"):
                k.command("RUN JOB j")
        assert runner.is_alive()
        c.rollback()
        runner.join()
    assert world.same("users") == 2
    assert [r["run"] for r in world.runs()] == ["2", "1"]


@pytest.mark.parametrize("options", ["SYNC KEY updated_at", "SYNC KEY updated_at EVERY '1 hour'"])
def test_drop_while_running(world, options):
    """Whoever has asked for the run, or waits for one that runs by itself, is told."""
    world.everywhere(USERS)
    world.create("users", options + " DISABLED")
    said = []

    def run():
        try:
            world.run()
        except psycopg.Error as e:
            said.append(e.sqlstate)
    with world.pg.connect("beta") as c:
        c.autocommit = False
        c.execute("lock table users")
        if "EVERY" in options:
            world.ask("RESUME JOB j")
            until(lambda: world.job()["running"] == "t", 10)
        runner = threading.Thread(target=run)
        runner.start()
        until(lambda: world.job()["running"] == "t" and "RUN JOB j command issued" in world.door.log(), 10)
        with world.door.console("admin") as k:
            assert k.command("DROP JOB j")[2] == "DROP JOB"
        runner.join()
        c.rollback()
    assert said == ["57014"] and world.job() is None


def test_without_rights(proxy, pg, tmp_path):
    """A role that may not see other sessions: an overlap, and a word about it."""
    fresh(pg)
    at = f"host=127.0.0.1 port={pg.port} user=bob"
    world = World(proxy, pg, tmp_path, **{n: f"{at} dbname={n}" for n in DATABASES})
    for name in DATABASES:
        world.sql(name, f"grant all on database {name} to bob; grant all on schema public to bob")
    world.everywhere(USERS + "; alter table users owner to bob")
    with pg.connect("alpha"):
        world.create("users")
        assert any("may not see other sessions" in n for n in world.notices)
        world.sql("alpha", "insert into users values (1, 'a', now()), (2, 'b', now() - interval '1 h')")
        world.run()
        world.run()
        assert world.runs()[0]["rows_read"] == "1"
    assert world.same("users") == 2


def test_memory_is_bounded(world):
    if is_sanitized():
        pytest.skip("a sanitizer's memory is not ours")
    world.everywhere(USERS)
    world.sql("alpha", "insert into users select g, repeat('x', 1000), now() "
                       "from generate_series(1, 200000) g")
    world.create("users")
    before = world.door.rss_kb()
    world.run()
    assert world.door.rss_kb() - before < 16384
