"""Replication jobs when something breaks: a server or the proxy dies in the middle of a run, the
state store cannot be written or read. Nothing is lost, and the console tells what happened."""
import os
import signal
import sqlite3
import subprocess
import threading

import psycopg
import pytest

from jobs import USERS, World, fresh
from poll import until
from proxy import is_standin

pytestmark = pytest.mark.skipif(is_standin(), reason="what PgBouncer does not do")

BIG = ("insert into users select g, repeat('x', 300), now() - interval '1 day' "
       "from generate_series(1, 100000) g")
DIED = ("57P01", "57P02", "57P03", "08006")


@pytest.fixture
def pair(proxy, pg, own_pg, tmp_path):
    """alpha on one server, beta on another that may be killed."""
    fresh(pg)
    fresh(own_pg)
    world = World(proxy, pg, tmp_path,
                  beta=f"host=127.0.0.1 port={own_pg.port} user=postgres dbname=beta")
    world.other = own_pg
    world.on = lambda text: rows(own_pg, "beta", text)
    for c in (pg.connect("alpha"), own_pg.connect("beta"), own_pg.connect("alpha"), pg.connect("beta")):
        with c:
            c.execute(USERS + "; create index on users (updated_at)")
    return world


def rows(server, database, text):
    with server.connect(database) as c:
        r = c.execute(text)
        return r.fetchall() if r.description else None


class Background:
    """RUN JOB in another thread; what it said is its error, or None."""

    def __init__(self, world, job="j"):
        self.world, self.job, self.error = world, job, None
        self.thread = threading.Thread(target=self.go)
        self.thread.start()

    def go(self):
        try:
            self.world.run(self.job)
        except psycopg.Error as e:
            self.error = e

    def join(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.error


def copying(server, database, what="^copy"):
    """Until our connection there is in a statement like that."""
    def seen():
        return rows(server, database, "select 1 from pg_stat_activity where datname = current_database() "
                    "and application_name = 'pgweave replication' and state = 'active' "
                    f"and query ~* '{what}'")
    until(seen, 30, "a copy is under way", step=0.002)


def test_target_killed(pair):
    """kill -9 of the target's postmaster while rows arrive."""
    pair.sql("alpha", BIG)
    pair.create("users")
    running = Background(pair)
    copying(pair.other, "beta")
    pair.other.kill()
    error = running.join()
    assert error is not None and error.sqlstate in DIED
    assert 'target "beta"' in error.diag.message_detail
    job = pair.job()
    assert job["status"] == "failed" and 'target "beta"' in job["last_error"]
    run, = pair.runs()
    assert run["outcome"] == "failed" and run["error"] and run["rows_written"] == "0"
    # while it is down
    diag = pair.refused("RUN JOB j")
    assert diag.sqlstate in DIED and '"beta"' in diag.message_primary
    pair.other.restart()

    def runs():
        pair.run()
        return True
    until(runs, 30, "the target is back", step=0.3)
    want = pair.sql("alpha", "select count(*), sum(id) from users")
    assert pair.on("select count(*), sum(id) from users") == want
    assert pair.job()["status"] == "ok" and pair.job()["last_error"] is None
    pair.run()
    assert pair.runs()[0]["rows_read"] == "0"


def test_source_killed(proxy, pg, own_pg, tmp_path):
    fresh(pg)
    fresh(own_pg)
    world = World(proxy, pg, tmp_path,
                  alpha=f"host=127.0.0.1 port={own_pg.port} user=postgres dbname=alpha")
    rows(own_pg, "alpha", USERS)
    world.sql("beta", USERS)
    rows(own_pg, "alpha", BIG)
    rows(own_pg, "alpha", "checkpoint")  # it commits asynchronously
    world.create("users")
    running = Background(world)
    copying(own_pg, "alpha")
    own_pg.kill()
    error = running.join()
    assert error is not None and error.sqlstate in DIED
    assert world.sql("beta", "select count(*) from users") == [(0,)]
    diag = world.refused("RUN JOB j")
    assert diag.sqlstate in DIED and '"alpha"' in diag.message_primary
    own_pg.restart()

    def runs():
        world.run()
        return True
    until(runs, 30, "the source is back", step=0.3)
    assert world.sql("beta", "select count(*) from users") == [(100000,)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_proxy_ends_and_starts_again(pair, how):
    """In the middle of a run: what was committed stays, the rest comes with the next run."""
    pair.sql("alpha", BIG)
    pair.create("users", "SYNC KEY updated_at EVERY '1 hour'")
    # the first run is due at once
    copying(pair.other, "beta")
    if how == signal.SIGKILL:
        pair.door.process.kill()
        pair.door.process.wait()
    else:
        assert pair.door.stop() is None
    until(lambda: not pair.on("select 1 from pg_stat_activity where application_name = "
                              "'pgweave replication'"), 20)
    assert pair.on("select count(*) from users") == [(0,)]
    assert pair.on("select count(*) from pgweave.watermark") == [(0,)]
    pair.door.start()
    until(lambda: pair.on("select count(*) from users") == [(100000,)], 60)
    until(lambda: pair.job()["status"] == "ok", 10)
    assert pair.on("select count(*) from pgweave.watermark") == [(1,)]
    assert pair.runs()[0]["rows_written"] == "100000"
    pair.run()
    assert pair.runs()[0]["rows_read"] == "0"


def test_late_commit_across_a_crash(pair):
    """The watermark that a killed run leaves is the one of before."""
    pair.create("users")
    pair.run()
    with pair.pg.connect("alpha") as late:
        late.autocommit = False
        late.execute("insert into users values (-1, 'late')")
        pair.sql("alpha", BIG.replace("now() - interval '1 day'", "now()"))
        running = Background(pair)
        copying(pair.other, "beta")
        pair.other.kill()
        assert running.join() is not None
        pair.other.restart()

        def runs():
            pair.run()
            return True
        until(runs, 30, "the target is back", step=0.3)
        late.commit()
    pair.run()
    assert pair.on("select count(*) from users") == [(100001,)]


# ---- the state store ----

@pytest.fixture
def world(proxy, pg, tmp_path):
    fresh(pg)
    return World(proxy, pg, tmp_path)


def unusable(world, reason):
    """What the console says of a store that takes nothing; and all else works."""
    world.everywhere("create table if not exists users (id int primary key, updated_at timestamptz not null)")
    diag = world.refused("CREATE JOB j FROM alpha TO beta TABLES (users) SYNC KEY updated_at")
    assert diag.sqlstate == "58030"
    assert 'job "j"' in diag.message_primary and reason in diag.message_primary
    assert "state_dir" in diag.message_hint
    assert world.job() is None
    world.ask("REPLICATE TABLE users FROM alpha TO beta SYNC KEY updated_at")
    assert world.door.rows("JOB_RUNS")[0]["outcome"] == "done"


def test_store_of_a_newer_version(proxy, pg, tmp_path):
    fresh(pg)
    with sqlite3.connect(tmp_path / "state.db") as c:
        c.execute(f"pragma application_id = {0x70677776}")
        c.execute("pragma user_version = 99")
    world = World(proxy, pg, tmp_path)
    until(lambda: "a newer pgweave has used it: its schema has version 99" in world.door.log(), 10)
    unusable(world, "a newer pgweave has used it")


def test_store_of_another_program(proxy, pg, tmp_path):
    fresh(pg)
    with sqlite3.connect(tmp_path / "state.db") as c:
        c.execute("create table x (y int)")
    unusable(World(proxy, pg, tmp_path), "another program")


def test_store_breaks_while_running(world, tmp_path):
    """Something else stands in its place: said, and the jobs that are known still run."""
    world.everywhere(USERS)
    world.create("users")
    world.run()
    (tmp_path / "other").write_bytes(b"\xff" * 20000)
    for name in ("state.db-wal", "state.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    os.replace(tmp_path / "other", tmp_path / "state.db")
    world.sql("alpha", "insert into users values (1, 'a')")
    world.run()
    assert world.same("users") == 1
    diag = world.refused("CREATE JOB k FROM alpha TO beta TABLES (users) SYNC KEY updated_at")
    assert diag.sqlstate == "58030"
    diag = world.refused("DROP JOB j")
    assert diag.sqlstate == "58030" and world.job() is not None


def test_dropped_while_the_store_is_slow(world, tmp_path):
    """What is said to a job that is on its way out does not bring it back."""
    world.everywhere(USERS)
    world.create("users")
    with sqlite3.connect(tmp_path / "state.db", isolation_level=None) as c:
        c.execute("begin immediate")
        dropper = threading.Thread(target=world.ask, args=["DROP JOB j"])
        dropper.start()
        until(lambda: "DROP JOB j command issued" in world.door.log(), 10)
        with world.door.console("admin") as k:
            with pytest.raises(psycopg.Error, match='job "j" does not exist'):
                k.command("PAUSE JOB j")
        c.execute("rollback")
    dropper.join()
    assert world.job() is None
    assert world.door.stop() is None
    world.door.start()
    assert world.job() is None
    with sqlite3.connect(tmp_path / "state.db") as c:
        assert c.execute("select count(*) from job").fetchone() == (0,)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs a mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_full_disk(small_disk, proxy, pg):
    fresh(pg)
    world = World(proxy, pg, small_disk)
    world.everywhere(USERS)
    world.create("users")
    (small_disk / "ballast").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
    diag = world.refused("CREATE JOB k FROM alpha TO beta TABLES (users) SYNC KEY updated_at")
    assert diag.sqlstate == "58030" and "full" in diag.message_primary
    world.sql("alpha", "insert into users values (1, 'a')")
    world.run()
    assert world.same("users") == 1 and world.job()["status"] == "ok"
    assert "the store does not keep a run" in world.door.log()
    world.ask("PAUSE JOB j")
    assert any("until the next start" in n for n in world.notices) and world.job()["status"] == "paused"
    (small_disk / "ballast").unlink()
    world.create("users", name="k")
    world.ask("RESUME JOB j")
    assert world.notices == []
    assert world.door.stop() is None
    world.door.start()
    until(lambda: {r["name"] for r in world.door.rows("JOBS")} == {"j", "k"}, 10)


def test_read_only_disk(small_disk, proxy, pg):
    fresh(pg)
    world = World(proxy, pg, small_disk)
    world.everywhere(USERS)
    world.create("users")
    assert world.door.stop() is None
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        world.door.start()
        diag = world.refused("CREATE JOB k FROM alpha TO beta TABLES (users) SYNC KEY updated_at")
        assert diag.sqlstate == "58030" and "the state store cannot be used" in diag.message_primary
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    world.create("users", name="k")
