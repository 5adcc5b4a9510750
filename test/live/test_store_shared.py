"""Proxies that keep their state together, state_store = database:NAME: what one does the others
know within a second, and what they do while that database cannot be used."""
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import threading
import urllib.request

import psycopg
import pytest

import bank
from keys import console, create, issued, login, opens, refused
from poll import until
from proxy import free_port, is_standin, program

WITHIN = 1.0  # seconds in which the others know
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def base(pg):
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    bank.create(pg)
    return pg


class Keeper:
    """The database that the store is in."""

    def __init__(self, pg, name="keeper", user="postgres", **words):
        self.pg, self.name = pg, name
        self.line = " ".join([f"host=127.0.0.1 port={pg.port} dbname={name} user={user}"]
                             + [f"{k}={v}" for k, v in words.items()])

    def sql(self, text, *params):
        with self.pg.connect(self.name) as c:
            r = c.execute(text, params or None)
            return r.fetchall() if r.description else None


@pytest.fixture
def keeper(base):
    name = f"keeper{next(numbers)}"
    with base.connect("postgres") as c:
        c.execute(f"create database {name}")
    yield Keeper(base, name)
    with base.connect("postgres") as c:
        c.execute(f"drop database {name} with (force)")


@pytest.fixture
def own_keeper(base, own_pg):
    """One whose server may be stopped."""
    with own_pg.connect("postgres") as c:
        c.execute("create database keeper")
    return Keeper(own_pg)


@pytest.fixture
def start(proxy, base):
    def run(keeper, wait=True, **settings):
        databases = {"shop": f"host=127.0.0.1 port={base.port} dbname=shop",
                     "keeper": keeper.line}
        door = proxy(base, databases, sections=bank.sections(base), wait=wait, **dict(
            {"auth_type": "scram-sha-256", "state_store": "database:keeper"}, **settings))
        if wait:
            until(lambda: "process up" in door.log(), 10)
        return door
    return run


@pytest.fixture
def two(start, keeper):
    return start(keeper), start(keeper)


def is_up(door):
    return {r["key"]: r["value"] for r in door.rows("STATE")}["state_store"] == "yes"


def soon(condition, what=None):
    until(condition, WITHIN, what)


def error(door, sql):
    with pytest.raises(psycopg.Error) as e:
        console(door, sql)
    return e.value.diag


def routes(door):
    return [(r["pattern"], r["database"]) for r in console(door, "SHOW ROUTES")
            if r["virtual"] == "bank" and r["source"] == "state store"]


def command(door, *args):
    return subprocess.run([program(), "key", *args], capture_output=True, text=True, cwd=door.dir)


# ---- what one does the others know ----

def test_a_key_made_on_one_opens_the_other(two):
    a, b = two
    row = create(a)
    soon(lambda: opens(b, row), "the other knows the key")
    with login(b, row) as c:
        c.execute("begin")
        assert console(a, f"REVOKE KEY '{row['key']}'") == "REVOKE KEY"
        soon(lambda: not opens(b, row), "the other knows that it is revoked")
        # a transaction under way ends first
        c.execute("select 1")
        with pytest.raises(psycopg.OperationalError, match="revoked"):
            c.execute("commit")
            c.execute("select 1")


def test_a_rotated_key_has_its_new_secret_everywhere(two):
    a, b = two
    row = create(a, name="turned")
    soon(lambda: opens(b, row))
    new = issued(console(b, "ROTATE KEY 'turned'"))
    soon(lambda: opens(a, new) and not opens(a, row))
    newer = issued(console(a, "ROTATE KEY 'turned' OVERLAP '1h'"))
    soon(lambda: opens(b, newer))
    assert opens(b, new)


def test_a_name_is_given_once(two):
    for n in range(5):
        start, answers = threading.Barrier(2), []

        def make(door):
            start.wait()
            try:
                answers.append(create(door, name=f"race {n}")["key"])
            except psycopg.Error as e:
                answers.append((e.sqlstate, e.diag.message_primary))

        both = [threading.Thread(target=make, args=(door,)) for door in two]
        for t in both:
            t.start()
        for t in both:
            t.join()
        wrong, = [a for a in answers if isinstance(a, tuple)]
        assert wrong == ("42710", f'there is a key "race {n}" already')


def test_routes(two):
    a, b = two
    console(a, "ALTER ROUTE bank ADD notes, log.* TO analytics")
    want = [("notes", "analytics"), ("log.*", "analytics")]
    soon(lambda: routes(b) == want)
    assert error(b, "ALTER ROUTE bank ADD notes TO analytics").sqlstate == "42710"
    console(b, "ALTER ROUTE bank DROP notes")
    soon(lambda: routes(a) == want[1:])


def test_the_command_line_uses_it_too(two):
    a, b = two
    said = command(a, "create", "--name", "by hand", "--type", "server", "--virtual", "bank", a.ini)
    assert said.returncode == 0, said.stderr
    row = dict(line.split(": ") for line in said.stdout.splitlines())
    soon(lambda: opens(a, row) and opens(b, row))
    assert row["key"] in command(b, "list", b.ini).stdout
    said = command(a, "create", "--name", "by hand", "--type", "server", "--virtual", "bank", a.ini)
    assert said.returncode == 1 and 'there is a key "by hand" already' in said.stderr
    new = command(a, "rotate", a.ini, "by hand").stdout
    new = dict(line.split(": ") for line in new.splitlines())
    soon(lambda: opens(b, new) and not opens(b, row))
    assert command(a, "revoke", a.ini, "by hand").returncode == 0
    soon(lambda: not opens(b, new))


def test_a_notification_that_was_missed(two, keeper):
    a, b = two
    row = create(a)
    soon(lambda: opens(b, row))
    keeper.sql("update pgweave.key set revoked = '2020-01-01 00:00:00+00'")
    assert opens(b, row)
    keeper.sql("select pg_terminate_backend(pid) from pg_stat_activity "
               "where application_name = 'pgweave state store'")
    until(lambda: not opens(a, row) and not opens(b, row), 5)


def test_nothing_is_written_for_logins_and_queries(two, keeper):
    a, b = two
    row = create(a)
    soon(lambda: opens(b, row))
    versions = "select xmin::text, ctid::text from pgweave.key"
    before = keeper.sql(versions)
    for door in two:
        with login(door, row) as c:
            for _ in range(20):
                c.execute("select 1")
        used, = [r["last_used"] for r in console(door, "SHOW KEYS") if r["key"] == row["key"]]
        assert used
    assert keeper.sql(versions) == before


# ---- jobs ----

TABLE = "create table users (id int primary key, name text, updated_at timestamptz not null default now())"


@pytest.fixture
def shared_jobs(proxy, base, keeper):
    """Two proxies over alpha and beta, whose table users has a row."""
    names = [f"{word}{next(numbers)}" for word in ("alpha", "beta")]
    with base.connect("postgres") as c:
        for name in names:
            c.execute(f"create database {name}")
    for name in names:
        with base.connect(name) as c:
            c.execute(TABLE)
    with base.connect(names[0]) as c:
        c.execute("insert into users values (1, 'a')")
    at = f"host=127.0.0.1 port={base.port} user=postgres dbname="
    databases = {"keeper": keeper.line, "alpha": at + names[0], "beta": at + names[1]}
    doors = [proxy(base, databases, state_store="database:keeper") for _ in range(2)]
    doors.append(names)
    yield doors
    with base.connect("postgres") as c:
        for name in names:
            c.execute(f"drop database {name} with (force)")


def job(door, name="j"):
    found = [r for r in door.rows("JOBS") if r["name"] == name]
    return found[0] if found else {}


CREATE_JOB = "CREATE JOB j FROM alpha TO beta TABLES (users) SYNC KEY updated_at"


def test_jobs(shared_jobs):
    a, b, _ = shared_jobs
    console(a, CREATE_JOB)
    soon(lambda: job(b), "the other knows the job")
    assert error(b, CREATE_JOB).sqlstate == "42710"
    console(b, "RUN JOB j")
    console(a, "RUN JOB j")
    until(lambda: [r["run"] for r in a.rows("JOB_RUNS j")] == ["2", "1"])
    until(lambda: [r["run"] for r in b.rows("JOB_RUNS j")] == ["2", "1"])
    assert job(b)["status"] == job(a)["status"] == "ok"
    console(b, "PAUSE JOB j")
    soon(lambda: job(a)["status"] == "paused")
    console(a, "RESUME JOB j")
    soon(lambda: job(b)["status"] == "ok")
    console(b, "DROP JOB j")
    soon(lambda: not job(a))


def test_a_job_that_is_due_runs_on_one_of_them(shared_jobs, keeper):
    a, b, _ = shared_jobs
    console(a, CREATE_JOB + " EVERY '1 s'")
    until(lambda: keeper.sql("select count(*) >= 3 from pgweave.run") == [(True,)], 15)
    console(b, "DROP JOB j")
    rows = a.rows("JOB_RUNS j")
    assert {r["outcome"] for r in rows} == {"done"}, rows
    numbers_ = sorted(int(r["run"]) for r in rows)
    assert numbers_ == list(range(1, len(rows) + 1))
    starts = sorted(r["started"] for r in rows)
    assert len(set(s[:19] for s in starts)) == len(starts), starts


def test_one_runs_it_and_dies(shared_jobs, keeper, base):
    a, b, names = shared_jobs
    console(a, CREATE_JOB + " EVERY '1 h'")
    until(lambda: job(a).get("status") == "ok" and job(b).get("status") == "ok")
    with base.connect(names[1]) as lock:
        lock.execute("begin; lock table users")
        runner = threading.Thread(target=lambda: pytest.raises(
            psycopg.Error, console, a, "RUN JOB j"))
        runner.start()
        until(lambda: job(a)["status"] == "running")
        diag = error(b, "RUN JOB j")
        assert (diag.sqlstate, diag.message_primary) == ("55006", 'job "j" is running already')
        assert f"process {a.pid}," in diag.message_detail
        a.proxy.expect_exit = -signal.SIGKILL
        a.signal(signal.SIGKILL)
        runner.join()
        lock.execute("rollback")
    # nobody moves its time on any more; half a minute later it is over
    keeper.sql("update pgweave.claim set until = now() where until is not null")
    console(b, "RUN JOB j")
    assert job(b)["status"] == "ok"
    assert keeper.sql("select until is null, run from pgweave.claim") == [(True, 3)]


# ---- beginnings ----

def test_two_begin_at_once_with_nothing_there(start, keeper):
    doors = [start(keeper, wait=False) for _ in range(3)]
    for door in doors:
        door.wait_listening()
        until(lambda: is_up(door))
    assert keeper.sql("select count(*), max(version) from pgweave.state") == [(1, 3)]
    row = create(doors[0])
    for door in doors:
        soon(lambda: opens(door, row))


def test_on_a_newer_postgresql(start, pg18):
    with pg18.connect("postgres") as c:
        c.execute("drop database if exists keeper with (force)")
        c.execute("create database keeper")
    door = start(Keeper(pg18))
    row = create(door)
    issued(console(door, f"ROTATE KEY '{row['key']}' OVERLAP '1 h'"))
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    assert opens(door, row) and routes(door) == [("notes", "analytics")]


def test_the_schema_of_jobs_is_no_obstacle(start, keeper):
    keeper.sql("create schema pgweave")
    keeper.sql("create table pgweave.watermark (job text)")
    assert is_up(start(keeper))


def test_down_at_the_start(start, own_keeper, tmp_path):
    state = str(tmp_path / "state")
    door = start(own_keeper, state_dir=state)
    row, gone = create(door), create(door)
    console(door, f"REVOKE KEY '{gone['key']}'")
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    assert door.stop() is None
    own_keeper.pg.halt()
    door = start(own_keeper, state_dir=state)
    assert opens(door, row) and routes(door) == [("notes", "analytics")]
    refused(door, gone)
    assert not is_up(door)
    assert "its last known state is served" in door.log()
    for sql in ("CREATE KEY 'late' TYPE server VIRTUAL bank", f"REVOKE KEY '{row['key']}'",
                "ALTER ROUTE bank DROP notes"):
        diag = error(door, sql)
        assert diag.sqlstate == "57P03"
        assert "the state store cannot be used: database keeper" in diag.message_primary
        assert "onnection refused" in diag.message_primary
        assert "SHOW STATE" in diag.message_hint
    said = command(door, "list", door.ini)
    assert said.returncode == 1 and "onnection refused" in said.stderr
    own_keeper.pg.restart()
    until(lambda: is_up(door), 15)
    late = create(door, name="late")
    assert opens(door, late)
    console(door, "ALTER ROUTE bank DROP notes")
    assert routes(door) == []


def test_lost_in_the_middle_and_back(start, own_keeper):
    a, b = start(own_keeper), start(own_keeper)
    row = create(a)
    soon(lambda: opens(b, row))
    own_keeper.pg.kill()
    until(lambda: not is_up(a) and not is_up(b))
    with login(a, row) as c, login(b, row) as d:
        assert c.execute("select 1").fetchone() == d.execute("select 1").fetchone()
        assert error(a, "CREATE KEY 'x' TYPE server VIRTUAL bank").sqlstate == "57P03"
        own_keeper.pg.restart()
        until(lambda: is_up(a), 15)
        console(a, f"REVOKE KEY '{row['key']}'")
        # whichever comes first, the notification or the connection
        until(lambda: not opens(b, row), 15)
        for session in (c, d):
            with pytest.raises(psycopg.OperationalError, match="revoked"):
                session.execute("select 1")
    losses = [line for line in a.log().splitlines() if "last known state is served" in line]
    assert 1 <= len(losses) < 10


def test_runs_that_end_while_it_is_down_are_kept(proxy, base, own_keeper):
    name = f"gamma{next(numbers)}"
    with base.connect("postgres") as c:
        c.execute(f"create database {name}")
    at = f"host=127.0.0.1 port={base.port} user=postgres dbname="
    with base.connect(name) as c:
        c.execute("create schema s; create schema t; create table s.users (id int primary key, "
                  "updated_at timestamptz not null default now())")
    door = proxy(base, {"keeper": own_keeper.line, "alpha": at + name, "beta": at + "shop"},
                 state_store="database:keeper")
    with base.connect("shop") as c:
        c.execute("drop schema if exists s cascade; create schema s; create table s.users "
                  "(id int primary key, updated_at timestamptz not null default now())")
    console(door, CREATE_JOB.replace("users", "s.users"))
    console(door, "RUN JOB j")
    own_keeper.pg.kill()
    until(lambda: not is_up(door))
    console(door, "RUN JOB j")
    assert error(door, "PAUSE JOB j").sqlstate == "57P03"
    own_keeper.pg.restart()
    until(lambda: is_up(door), 15)
    until(lambda: own_keeper.sql("select array_agg(run order by rowid) from pgweave.run")
          == [([1, 2],)])
    with base.connect("postgres") as c:
        c.execute(f"drop database {name} with (force)")


# ---- what cannot be ----

def test_a_newer_version(start, keeper):
    door = start(keeper)
    row = create(door)
    keeper.sql("update pgweave.state set version = 99")
    assert opens(door, row)
    before = keeper.sql("select * from pgweave.key")
    door = start(keeper)
    assert not is_up(door)
    assert "a newer pgweave has used it: its schema has version 99, this one knows 3" in door.log()
    diag = error(door, "CREATE KEY 'x' TYPE server VIRTUAL bank")
    assert diag.sqlstate == "57P03" and "its schema has version 99" in diag.message_primary
    assert keeper.sql("select * from pgweave.key") == before
    assert keeper.sql("select version from pgweave.state") == [(99,)]
    keeper.sql("update pgweave.state set version = 3")
    until(lambda: is_up(door), 15)
    soon(lambda: opens(door, row))


def test_a_role_without_rights(start, keeper):
    keeper.line = keeper.line.replace("user=postgres", "user=alice")
    door = start(keeper)
    want = f'GRANT CREATE ON DATABASE "{keeper.name}" TO "alice" is needed'
    assert want in door.log()
    assert want in error(door, "CREATE KEY 'x' TYPE server VIRTUAL bank").message_primary
    keeper.sql(f"grant create on database {keeper.name} to alice")
    until(lambda: is_up(door), 15)
    assert create(door)
    # the schema is another's
    keeper.sql("reassign owned by alice to postgres")
    keeper.sql("revoke all on schema pgweave from alice")
    door = start(keeper)
    assert 'GRANT USAGE ON SCHEMA pgweave TO "alice" is needed' in door.log()
    keeper.sql("grant usage on schema pgweave to alice")
    until(lambda: "ON ALL TABLES IN SCHEMA pgweave TO \"alice\" is needed" in door.log(), 15)
    keeper.sql("grant select, insert, update, delete on all tables in schema pgweave to alice")
    until(lambda: is_up(door), 15)
    assert create(door)


def test_a_wrong_password_until_the_reload(proxy, start, keeper):
    good = keeper.line.replace("user=postgres", "user=scram_user password=pw-scram_user")
    keeper.sql(f"grant create on database {keeper.name} to scram_user")
    keeper.line = good.replace("pw-scram_user", "wrong")
    door = start(keeper)
    assert not is_up(door)
    assert 'password authentication failed for user "scram_user"' in door.log()
    assert "wrong" not in door.log()
    databases = dict(door.settings[0], keeper=good)
    proxy.rewrite(door, databases)
    door.reload()
    until(lambda: is_up(door), 15)
    assert create(door)


def test_no_place_for_the_copy(start, own_keeper):
    door = start(own_keeper, state_dir="/dev/null/none")
    assert "is kept in memory alone" in door.log()
    row = create(door)
    own_keeper.pg.kill()
    until(lambda: not is_up(door))
    assert opens(door, row)


def test_the_copy_is_the_owners_alone(start, keeper, tmp_path):
    door = start(keeper, state_dir=str(tmp_path / "state"))
    row = create(door)
    path = tmp_path / "state" / "keeper.copy.db"
    assert os.stat(path).st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as c:
        assert c.execute("select id from key").fetchall() == [(row["key"],)]
    # one that somebody takes away is made anew, whole
    console(door, "ALTER ROUTE bank ADD notes TO analytics")
    for file in (tmp_path / "state").glob("keeper.copy.db*"):
        file.unlink()
    second = create(door)
    with sqlite3.connect(path) as c:
        assert set(c.execute("select id from key")) == {(row["key"],), (second["key"],)}
        assert c.execute("select pattern from route").fetchall() == [("notes",)]
    assert opens(door, row) and routes(door) == [("notes", "analytics")]


def test_metrics(start, own_keeper):
    port = free_port()
    door = start(own_keeper, http_listen=f"127.0.0.1:{port}", http_metrics_public="yes")

    def metric(name):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as r:
            found = re.search(rf"^pgweave_{name} (\S+)$", r.read().decode(), re.M)
        return float(found[1])

    assert metric("state_store_up") == 1 and metric("state_store_losses_total") == 0
    own_keeper.pg.kill()
    until(lambda: metric("state_store_up") == 0)
    assert metric("state_store_losses_total") == 1


@pytest.mark.parametrize("name, sections, said", [
    ("nosuch", "", 'there is no database "nosuch", allowed are keeper, plain'),
    ("keepr", "", 'did you mean "keeper"?'),
    ("bank", "[virtual bank]\nmembers = keeper\n", '"bank" is a virtual database'),
    ("*", "[databases]\n* = host=h user=u\n", '"*" stands for any database'),
    ("plain", "", '"plain" has no user'),
    ("copy", "[database copy]\nhost = h\nuser = u\nreplica_of = keeper\n", '"copy" is read-only'),
    ("", "", "names no store, allowed are sqlite:PATH and database:NAME"),
])
def test_a_name_that_is_none(only_pgweave, tmp_path, name, sections, said):
    ini = tmp_path / "x.ini"
    ini.write_text(f"[pgweave]\nlisten_addr = 127.0.0.1\nstate_store = database:{name}\n"
                   "[databases]\nkeeper = host=h user=u\nplain = host=h\n" + sections)
    for args in (["check", str(ini)], [str(ini)]):
        run = subprocess.run([program(), *args], capture_output=True, text=True)
        assert run.returncode == 1
        line, = [x for x in (run.stdout + run.stderr).splitlines() if "state_store" in x]
        assert f"{ini}:3: state_store: " in line and said in line
