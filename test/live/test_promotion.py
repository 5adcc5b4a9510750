"""Roles follow the servers: a replica that is promoted takes the writes, while clients go on."""
import os
import shutil
import signal
import threading
import time

import psycopg
import pytest

import cluster as cluster_module
import fetch
from poll import until
from test_health import QUICK, SLOW, Pair, database, health, when

pytestmark = pytest.mark.usefixtures("only_pgweave")
SETTINGS = dict(QUICK, health_interval="300ms")


@pytest.fixture
def pair():
    p = Pair()
    with p.primary.connect("shop") as c:
        c.execute("create table ledger (id bigint primary key, at timestamptz not null default now())")
    yield p
    p.remove()


def group(proxy, pair, pg, **settings):
    """A virtual database over the pair; another member greets clients while the pair cannot."""
    sections = database("main", pair.primary.port, "postgres") \
        + database("copy", pair.replica.port, "postgres", replica_of="main", max_lag="60s") \
        + database("other", pg.port, "postgres") \
        + "[virtual bank]\ndefault = main\nmembers = main, other\nread_from = copy\n"
    door = proxy(pair.primary, databases={}, sections=sections, **dict(SETTINGS, **settings))
    for name in ("main", "copy", "other"):
        when(door, "healthy", name)
    until(lambda: health(door, "copy")["lag_ms"] == "0", 5 * SLOW)
    return door


def promote(pg):
    with pg.connect("postgres") as c:
        assert c.execute("select pg_promote(true, 60)").fetchone() == (True,)


def server_of(c, sql="select inet_server_port()"):
    return c.execute(sql).fetchone()[0]


def writes_to(door):
    """The port that writes go to now; None: they are refused."""
    try:
        with door.connect("bank") as c:
            return server_of(c, "with w as (select pg_current_xact_id()) "
                                "select inet_server_port() from w for update")
    except psycopg.Error:
        return None


class Load(threading.Thread):
    """Writes numbers one by one, each until it is known to be there, and reads."""

    def __init__(self, door, first):
        super().__init__()
        self.door, self.next, self.stopped = door, first, False
        self.acknowledged, self.unknown, self.refused, self.reads = [], [], set(), 0
        self.c = None

    def step(self):
        if self.c is None or self.c.closed:
            self.c = self.door.connect("bank")
        self.c.execute("select count(*) from ledger").fetchone()
        self.reads += 1
        self.c.execute("insert into ledger (id) values (%s)", (self.next,))
        self.acknowledged.append(self.next)

    def run(self):
        while not self.stopped:
            try:
                self.step()
            except psycopg.Error as e:
                self.refused.add(e.sqlstate)
                self.unknown.append(self.next)
                time.sleep(0.05)
            self.next += 1
            time.sleep(0.002)
        if self.c is not None:
            self.c.close()


def as_replica_of(old, new):
    """The data of the old one made anew from the new one, on the same port."""
    shutil.rmtree(old.data)
    cluster_module._run([fetch.binary("15", "pg_basebackup"), "-h", new.base, "-p",
                         str(new.port), "-U", "postgres", "-D", old.data, "-R", "-X", "stream",
                         "-c", "fast"], env=fetch.environment("15"))
    old.start()


def test_writes_follow_a_promotion_and_nothing_acknowledged_is_lost(proxy, pair, pg):
    with pair.primary.connect("postgres") as c:
        c.execute("alter system set synchronous_standby_names = '*'")
        c.execute("alter system set synchronous_commit = 'on'")
        c.execute("select pg_reload_conf()")
        until(lambda: c.execute("select sync_state from pg_stat_replication").fetchone()
              == ("sync",), 10)
    door = group(proxy, pair, pg)
    loads = [Load(door, (i + 1) * 1000000) for i in range(3)]
    for load in loads:
        load.start()
    try:
        until(lambda: all(len(x.acknowledged) > 20 for x in loads), 20 * SLOW)
        pair.primary.kill()
        when(door, "down", "main", seconds=5)
        count = [len(x.acknowledged) for x in loads]
        promote(pair.replica)
        began = time.monotonic()
        until(lambda: all(len(x.acknowledged) > n + 20 for x, n in zip(loads, count)),
              20 * SLOW, "writes go on")
        assert time.monotonic() - began < 10 * SLOW
    finally:
        for load in loads:
            load.stopped = True
        for load in loads:
            load.join(30)
    with pair.replica.connect("shop") as c:
        there = {r[0] for r in c.execute("select id from ledger")}
    for load in loads:
        assert set(load.acknowledged) <= there, "lost"
        assert len(load.acknowledged) == len(set(load.acknowledged))
    # Nothing but what clients tried is there, and of that each once (id is a primary key).
    assert there <= {n for x in loads for n in x.acknowledged + x.unknown}
    assert not set().union(*(x.refused for x in loads)) & {"25006", "23505"}
    assert "health: copy was promoted: it is the primary of \"main\"" in door.log()
    row = health(door, "copy")
    assert row["role"] == "primary"
    assert row["reason"] == 'promoted: it is the primary of "main"'
    assert [(r["database"], r["replica_of"]) for r in door.rows("REPLICAS")] == [("main", "copy")]


def test_the_old_primary_stays_out_until_it_is_a_replica(proxy, pair, pg):
    door = group(proxy, pair, pg)
    old, new = pair.primary, pair.replica
    assert writes_to(door) == old.port
    old.kill()
    promote(new)
    until(lambda: writes_to(door) == new.port, 10 * SLOW)
    # As if nothing had happened: what would be written there would be lost.
    old.restart()
    when(door, "healthy", "main", seconds=10,
         reason='claims to be primary on timeline 1, but "copy" is on timeline 2')
    for _ in range(5):
        assert writes_to(door) == new.port
        with door.connect("bank") as c:
            assert server_of(c) == new.port, "no reads from it either"
    # Nor when the new one fails.
    new.kill()
    when(door, "down", "copy", seconds=5)
    with door.connect("bank") as c:
        with pytest.raises(psycopg.OperationalError) as e:
            c.execute("insert into ledger (id) values (1)")
        assert e.value.sqlstate == "57P03"
        assert 'database "copy", the primary of "main", is down' in str(e.value)
    new.restart()
    until(lambda: writes_to(door) == new.port, 10 * SLOW)
    # A replica is welcome.
    old.halt(signal.SIGQUIT)
    as_replica_of(old, new)
    when(door, "healthy", "main", seconds=15, reason='a replica now, "copy" is the primary')
    assert health(door, "main")["role"] == "replica"
    # Its share of the reads grows in ten seconds.
    row = until(lambda: next((r for r in door.rows("REPLICAS")
                              if (r["database"], r["replica_of"], r["usable"])
                              == ("main", "copy", "t")), None), 10)
    assert row["replayed"]
    with door.connect("bank") as c:
        until(lambda: server_of(c) == old.port, 15, "reads from the old primary")
    assert writes_to(door) == new.port


def test_a_promotion_beside_a_living_primary(proxy, pair, pg):
    """The newer timeline wins, whoever is still there; who has a lock at the old one is told."""
    door = group(proxy, pair, pg)
    with door.connect("bank") as c:
        c.execute("select pg_advisory_lock(1)")
        promote(pair.replica)
        until(lambda: writes_to(door) == pair.replica.port, 10 * SLOW)
        with pytest.raises(psycopg.OperationalError, match="session is pinned to") as e:
            c.execute("insert into ledger (id) values (1)")
        assert e.value.sqlstate == "08006"
    until(lambda: (health(door, "main")["reason"] or "").endswith("it is not used"), 5)
    # What a reload reads is the same.
    before = door.log().count("configuration was read again")
    door.reload()
    until(lambda: door.log().count("configuration was read again") > before, 5)
    assert writes_to(door) == pair.replica.port


def test_two_that_claim_to_be_it_are_not_written(proxy, pair, own_pg, pg, tmp_path):
    said = tmp_path / "said"
    os.chmod(tmp_path, 0o777)
    door = group(proxy, pair, pg,
                 alert_command=f'echo "$1 $2 $3" >> {said}')
    assert writes_to(door) == pair.primary.port
    with own_pg.connect("shop") as c:
        c.execute("create table ledger (id bigint primary key)")
    text = open(door.ini).read()
    # Another cluster under the name of the replica: on the same timeline as the primary.
    door.write(text.replace(f"port = {pair.replica.port}\n", f"port = {own_pg.port}\n"))
    door.reload()
    until(lambda: "both claim to be the primary" in (health(door, "main")["reason"] or ""),
          10 * SLOW)
    assert 'both claim to be the primary of "main"' in health(door, "copy")["reason"]
    with door.connect("bank") as c:
        with pytest.raises(psycopg.OperationalError) as e:
            c.execute("insert into ledger (id) values (1)")
        assert e.value.sqlstate == "57P03"
        assert e.value.diag.message_primary == \
            '"main" and "copy" both claim to be the primary: nothing is written'
        assert e.value.diag.message_hint
        # Reads go on, where writes went last.
        assert server_of(c) == pair.primary.port
        row = next(r for r in door.rows("REPLICAS") if r["database"] == "copy")
        assert row["usable"] == "f"
        until(lambda: said.exists() and "main primary disputed\n" in said.read_text(), 5)
        # The other one is stopped: it is known again.
        own_pg.kill()
        when(door, "down", "copy", seconds=5)
        c.execute("insert into ledger (id) values (1)")
    assert writes_to(door) == pair.primary.port


def test_a_switchover_by_hand(proxy, pair, pg):
    """Drained, stopped, promoted: writes are refused meanwhile, and none is lost or stray."""
    door = group(proxy, pair, pg)
    with door.connect("bank") as c, door.console() as console:
        c.execute("insert into ledger (id) values (1)")
        console.command("DRAIN main 'switchover'")
        with pytest.raises(psycopg.OperationalError) as e:
            c.execute("insert into ledger (id) values (2)")
        assert e.value.sqlstate == "57P03" and "draining" in str(e.value)
        # Reads of the replica go on.
        assert server_of(c) == pair.replica.port
        pair.primary.halt(signal.SIGINT)
        promote(pair.replica)
        until(lambda: writes_to(door) == pair.replica.port, 10 * SLOW)
        c.execute("insert into ledger (id) values (3)")
        assert [r[0] for r in c.execute("select id from ledger order by 1")] == [1, 3]
        assert health(door, "main")["status"] == "draining"


def test_a_server_that_does_not_tell_which_it_is(proxy, own_pg):
    """Its role and state are known all the same."""
    with own_pg.connect("shop") as c:
        c.execute("revoke execute on function pg_control_system() from public")
    door = proxy(own_pg, databases={}, sections=database("shop", own_pg.port), **QUICK)
    row = when(door, "healthy")
    assert row["role"] == "primary" and row["version"]
    assert "permission denied" not in door.log()


# ---- replication jobs ----

def console(door, text):
    """What it says, and its notices."""
    notices = []
    with door.connect("pgweave", "admin") as c:
        c.add_notice_handler(lambda d: notices.append(d.message_primary))
        c.prepare_threshold = None
        c.execute(text)
    return notices


def job_refused(door, text):
    with pytest.raises(psycopg.Error) as e:
        console(door, text)
    return e.value


def ids(pg, database="shop"):
    with pg.connect(database) as c:
        return [r[0] for r in c.execute("select id from ledger order by id")]


@pytest.fixture
def other(pg):
    with pg.connect("shop") as c:
        c.execute("drop table if exists ledger; drop schema if exists pgweave cascade")
        c.execute("create table ledger (id bigint primary key, at timestamptz not null default now())")
    return pg


def with_job(proxy, pair, other, tmp_path, source, target):
    tmp_path.chmod(0o755)
    door = group(proxy, pair, other, state_dir=str(tmp_path))
    console(door, f"CREATE JOB j FROM {source} TO {target} TABLES (ledger) SYNC KEY at DISABLED")
    return door


def taken_over(door, pair):
    promote(pair.replica)
    until(lambda: writes_to(door) == pair.replica.port, 20 * SLOW, "copy takes the writes")


def test_a_job_goes_on_with_the_promoted_source(proxy, pair, other, tmp_path):
    """All rows are read once more: the new primary's clock may be behind the old one's, and rows
    that it had not got are gone, keys of theirs come again."""
    door = with_job(proxy, pair, other, tmp_path, "main", "other")
    with pair.primary.connect("shop") as c:
        c.execute("insert into ledger select i from generate_series(1, 5) i")
    console(door, "RUN JOB j")
    assert ids(other) == [1, 2, 3, 4, 5]
    until(lambda: ids(pair.replica) == [1, 2, 3, 4, 5], 10, "the replica has all")
    os.kill(pair.primary.process.pid, signal.SIGQUIT)
    until(lambda: health(door, "main")["status"] == "down", 20 * SLOW)
    assert job_refused(door, "RUN JOB j").sqlstate in ("57P03", "08006")
    taken_over(door, pair)
    with pair.replica.connect("shop") as c:
        c.execute("insert into ledger values (6, now() - interval '2 hours'), (7, now())")
    notices = console(door, "RUN JOB j")
    assert ids(other) == [1, 2, 3, 4, 5, 6, 7]
    assert any('database "main" was promoted since the last run' in n for n in notices)
    # And then only what is new.
    with pair.replica.connect("shop") as c:
        c.execute("insert into ledger values (8, now() - interval '2 hours'), (9, now())")
    notices = console(door, "RUN JOB j")
    assert ids(other) == [1, 2, 3, 4, 5, 6, 7, 9]
    assert not any("promoted" in n for n in notices)


def test_a_job_goes_on_with_the_promoted_target(proxy, pair, other, tmp_path):
    door = with_job(proxy, pair, other, tmp_path, "other", "main")
    with other.connect("shop") as c:
        c.execute("insert into ledger select i from generate_series(1, 3) i")
    console(door, "RUN JOB j")
    until(lambda: ids(pair.replica) == [1, 2, 3], 10, "the replica has all")
    os.kill(pair.primary.process.pid, signal.SIGQUIT)
    taken_over(door, pair)
    with other.connect("shop") as c:
        c.execute("insert into ledger values (4, now())")
    console(door, "RUN JOB j")
    assert ids(pair.replica) == [1, 2, 3, 4]


def test_a_source_that_dies_in_a_run(proxy, pair, other, tmp_path):
    door = with_job(proxy, pair, other, tmp_path, "main", "other")
    with pair.primary.connect("shop") as c:
        c.execute("insert into ledger select i from generate_series(1, 2000) i")
    until(lambda: len(ids(pair.replica)) == 2000, 10, "the replica has all")
    errors = []
    holder = pair.primary.connect("shop")
    holder.execute("begin; lock table ledger in access exclusive mode")
    run = threading.Thread(target=lambda: errors.append(job_refused(door, "RUN JOB j")))
    run.start()
    with pair.primary.connect("shop") as c:
        until(lambda: c.execute("select count(*) from pg_stat_activity where application_name = "
                                "'pgweave replication' and wait_event_type = 'Lock'")
              .fetchone()[0] == 1, 10, "the run waits")
    os.kill(pair.primary.process.pid, signal.SIGQUIT)
    run.join(30)
    assert errors[0].sqlstate in ("57P01", "57P02", "57P03", "08006"), errors
    assert [r["outcome"] for r in door.rows("JOB_RUNS j")] == ["failed"]
    until(lambda: health(door, "main")["status"] == "down", 20 * SLOW)
    taken_over(door, pair)
    console(door, "RUN JOB j")
    assert len(ids(other)) == 2000
