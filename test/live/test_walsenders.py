"""Replication connections through the port: PostgreSQL's own programs, a standby, a subscription;
limits, rules, cancels, memory, and what is refused."""
import os
import shutil
import subprocess
import tempfile
import threading

import pytest

import fetch
import pgproto
from cluster import Cluster, _owner
from poll import until
from proxy import free_port
from raw import Raw

pytestmark = pytest.mark.usefixtures("only_pgweave")


class Sender(Cluster):
    """A cluster that sends its log; and a standby, that of another."""

    def start(self):
        self.options = [word for name, value in dict(
            wal_level="logical", max_wal_senders=12, max_replication_slots=8).items()
            for word in ("-c", f"{name}={value}")]
        with open(f"{self.data}/pg_hba.conf", "a") as f:
            f.write("host replication streamer 127.0.0.1/32 trust\n")
        super().start()


@pytest.fixture(scope="module")
def wal():
    c = Sender("15")
    with c.connect("postgres") as s:
        s.execute("create role streamer login replication superuser password 'pw-streamer'")
        s.execute("create database other")
    yield c
    c.remove()


@pytest.fixture
def folder():
    """A directory for what PostgreSQL's programs write."""
    d = tempfile.mkdtemp(prefix="pgweave-wal-")
    os.chmod(d, 0o777)
    yield d
    shutil.rmtree(d, ignore_errors=True)


def lines(wal):
    at = f"host=127.0.0.1 port={wal.port}"
    return {"shop": f"{at} dbname=shop", "replication": f"{at} dbname=shop",
            "scarce": f"{at} dbname=shop pool_size=1"}


SECRETS = {n: f"pw-{n}" for n in ("alice", "admin", "stats", "streamer")}


@pytest.fixture(scope="module")
def door(module_proxy, wal):
    return module_proxy(wal, lines(wal), secrets=SECRETS, query_timeout=1, workers=2,
                        query_wait_timeout=3)


def run(door, program, *args, **options):
    """A program of PostgreSQL 15 as a process, through the port."""
    return subprocess.Popen([fetch.binary("15", program), "-h", "127.0.0.1", "-p", str(door.port),
                             "-U", "streamer", *args], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, cwd="/", env=dict(os.environ, LC_ALL="C"),
                            **_owner(), **options)


def done(process, seconds=60):
    out = process.communicate(timeout=seconds)[0].decode()
    assert process.returncode == 0, out
    return out


def walsenders(wal):
    with wal.connect("postgres") as c:
        return c.execute("select count(*) from pg_stat_activity where backend_type = 'walsender'"
                         ).fetchone()[0]


def none_left(wal, door):
    until(lambda: walsenders(wal) == 0, 10, "the server has no walsender left")
    assert [r for r in door.rows("SERVERS") if r["replication"] != "none"] == []


def replicate(door, how="true", database="shop", **params):
    r = Raw(door.port)
    said = r.login("streamer", database, replication=how, **params)
    assert said is None, said
    return r


def test_base_backup_and_standby(wal, door, folder):
    """pg_basebackup makes a standby, which then streams through the same port."""
    done(run(door, "pg_basebackup", "-D", f"{folder}/data", "-c", "fast", "-X", "stream", "-R", "--no-sync"))
    none_left(wal, door)
    standby = Sender("15", base=folder)
    try:
        with wal.connect() as c, standby.connect() as s:
            c.execute("create table streamed (a int)")
            c.execute("insert into streamed select generate_series(1, 1000)")
            until(lambda: s.execute("select sum(a) from streamed").fetchone()[0] == 500500, 15,
                  "the standby has it")
            shown = [r for r in door.rows("CLIENTS") if r["replication"] == "physical"]
            assert [(r["user"], r["database"], r["state"], r["application_name"]) for r in shown] == [
                ("streamer", "replication", "active", "walreceiver")]
            server, = [r for r in door.rows("SERVERS") if r["replication"] == "physical"]
            assert (server["link"], server["ptr"]) == (shown[0]["ptr"], shown[0]["link"])
    finally:
        standby.halt()
    none_left(wal, door)


def test_programs(wal, door, folder):
    """pg_receivewal and pg_recvlogical, longer than query_timeout, which is for statements."""
    receive = run(door, "pg_receivewal", "-D", folder, "--slot", "physical", "--create-slot")
    done(receive)
    done(run(door, "pg_recvlogical", "-d", "shop", "--slot", "logical", "--create-slot", "-P",
             "test_decoding"))
    receive = run(door, "pg_receivewal", "-D", folder, "--slot", "physical", "-s", "1", "--no-sync")
    logical = run(door, "pg_recvlogical", "-d", "shop", "--slot", "logical", "--start", "-f",
                  f"{folder}/out", "-F", "1")
    with wal.connect() as c:
        until(lambda: c.execute("select count(*) from pg_replication_slots where active"
                                ).fetchone()[0] == 2, 10, "both stream")
        assert sorted(r["replication"] for r in door.rows("CLIENTS")) == ["logical", "none", "physical"]
        c.execute("create table decoded (a text)")
        c.execute("insert into decoded select repeat('x', 1000) from generate_series(1, 20000)")
        c.execute("insert into decoded values ('the end')")
        lsn, = c.execute("select pg_switch_wal()").fetchone()

        def decoded():
            with open(f"{folder}/out") as f:
                return "the end" in f.read()
        until(decoded, 15, "the changes come")
        until(lambda: c.execute("select restart_lsn >= %s from pg_replication_slots where slot_name = "
                                "'physical'", [lsn]).fetchone()[0], 15, "the log comes, and is confirmed")
        assert "query_timeout" not in door.log()
        for p in (receive, logical):
            p.send_signal(2)
            done(p)
        none_left(wal, door)
        c.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
    assert len([n for n in os.listdir(folder) if len(n.split(".")[0]) == 24]) >= 2


def test_subscription(wal, door):
    """A subscriber's worker comes through the port, with the options that it sends."""
    with wal.connect() as c, wal.connect("other") as s:
        for side in (c, s):
            side.execute("create table published (a int primary key)")
        c.execute("create publication p for table published")
        c.execute("select pg_create_logical_replication_slot('sub', 'pgoutput')")
        s.execute(f"create subscription sub connection 'host=127.0.0.1 port={door.port} dbname=shop "
                  "user=streamer' publication p with (create_slot = false, copy_data = false)")
        c.execute("insert into published values (101)")
        until(lambda: s.execute("select count(*) from published").fetchone()[0] == 1, 10, "streamed")
        assert [r["application_name"] for r in door.rows("CLIENTS")
                if r["replication"] == "logical"] == ["sub"]
        s.execute("alter subscription sub disable")
        until(lambda: walsenders(wal) == 0, 10, "the worker is gone")
        s.execute("alter subscription sub set (slot_name = none)")
        s.execute("drop subscription sub")
        c.execute("select pg_drop_replication_slot('sub')")
    none_left(wal, door)


def test_a_walsender_speaks_sql(wal, door):
    """Of a database: parameters hold from the start, transactions, cancels; others have their
    pool meanwhile."""
    with replicate(door, "database", work_mem="3MB", application_name="mine",
                   options="-c work_mem=5MB -c extra_float_digits=2") as r, door.connect() as c:
        assert r.query("show work_mem")[0] == [["3MB"]]
        assert r.query("show extra_float_digits")[0] == [["2"]]
        assert r.query("show application_name")[0] == [["mine"]]
        assert r.params["application_name"] == "mine"
        rows, error = r.query("IDENTIFY_SYSTEM")
        assert error is None and rows[0][3] == "shop"
        assert c.execute("select 1").fetchone() == (1,)
        r.send(pgproto.query("select pg_sleep(60)"))
        until(lambda: wal.connect("postgres").execute(
            "select count(*) from pg_stat_activity where query like '%pg_sleep(60)' and "
            "backend_type = 'walsender' and state = 'active'").fetchone()[0], 10, "it sleeps")
        with Raw(door.port) as k:
            k.send(pgproto.cancel_request(*r.key))
            assert k.is_closed()
        assert [m[1]["C"] for m in r.until("Z") if m[0] == "E"] == ["57014"]
        # and one that goes in the middle of a statement leaves none running
        r.send(pgproto.query("begin"), pgproto.query("select pg_sleep(61)"))
    none_left(wal, door)


def test_what_servers_refuse(wal, door):
    """Their words and SQLSTATEs; a failure says nothing about the pool of the same login."""
    with Raw(door.port) as r:
        said = r.login("alice", "shop", replication="database")
        assert (said["C"], "walsender" in said["M"]) == ("42501", True)
    with Raw(door.port) as r:
        said = r.login("alice", "replication", replication="yes")
        assert (said["C"], "no pg_hba.conf entry" in said["M"]) == ("28000", True)
    with Raw(door.port) as r:
        said = r.login("streamer", "shop", replication="1", work_mem="nonsense")
        assert said["C"] == "22023"
    with Raw(door.port) as r:
        assert r.login("streamer", "shop", replication="1", options="-x nonsense")["C"] == "08P01"
    with Raw(door.port) as r:
        assert r.login("streamer", "shop", replication="maybe")["C"] == "22023"
    with Raw(door.port) as r:
        assert r.login("streamer", "nowhere", replication="true")["C"] == "3D000"
    with Raw(door.port) as r:
        assert r.login("alice", "shop", replication="off") is None
        assert r.query("select 1") == ([["1"]], None)
    with replicate(door) as r:
        assert r.query("select 1")[1]["C"] in ("0A000", "42601", "XX000")
        assert r.query("IDENTIFY_SYSTEM")[0][0][3] is None
    none_left(wal, door)


def test_limits(wal, door):
    """A walsender counts: it takes an idle link's place, waits for one in use, and keeps others
    waiting; whoever comes next has it when it leaves."""
    with door.connect("scarce", "streamer") as c:
        assert c.execute("select 1").fetchone() == (1,)
        with replicate(door, "database", "scarce"):
            got = []
            later = threading.Thread(target=lambda: got.extend(c.execute("select 2").fetchall()))
            later.start()
            until(lambda: door.pool("scarce", "streamer")["cl_waiting"] == "1", 5, "it waits")
            assert door.pool("scarce", "streamer")["sv_active"] == "1" and got == []
        later.join(10)
        assert got == [(2,)]
    with door.connect("scarce", "streamer", autocommit=False) as c:
        c.execute("select 1")
        waits = Raw(door.port)
        waits.send(pgproto.startup(dict(user="streamer", database="scarce", replication="database")))
        until(lambda: door.pool("scarce", "streamer")["cl_waiting"] == "1", 5, "it waits")
        c.commit()
        assert waits.until("Z")[-1][0] == "Z"
        waits.sock.close()
    # one that leaves while it waits leaves nothing
    with door.connect("scarce", "streamer", autocommit=False) as c:
        c.execute("select 1")
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user="streamer", database="scarce", replication="true")))
            until(lambda: door.pool("scarce", "streamer")["cl_waiting"] == "1", 5, "it waits")
        until(lambda: door.pool("scarce", "streamer")["cl_waiting"] == "0", 5, "it is gone")
    none_left(wal, door)


def test_flat_memory(wal, door):
    """A client that does not read a stream of 50 MB costs its buffers and no more."""
    with wal.connect() as c, replicate(door) as r:
        lsn = r.query("IDENTIFY_SYSTEM")[0][0][2]
        c.execute("create table bulk as select repeat('y', 2000) a from generate_series(1, 1000)")
        r.send(pgproto.query(f"START_REPLICATION PHYSICAL {lsn}"))
        assert r.message()[0] == "W"
        before = door.rss_kb()
        for _ in range(25):
            c.execute("insert into bulk select repeat('y', 2000) from generate_series(1, 1000)")
        end, = c.execute("select pg_current_wal_flush_lsn() - %s::pg_lsn", [lsn]).fetchone()
        assert end > 40 * 1000 * 1000
        assert door.rss_kb() - before < 20000
        # it is all there once it reads; and who stops streaming can go on
        got = 0
        while got < end:
            type_, _, body = r.message()
            assert type_ == "d"
            got += len(body) - 25 if body[:1] == b"w" else 0
        r.send(pgproto.COPY_DONE)
        assert [t for t, _, _ in r.until("Z") if t in "cEZ"][-2:] == ["c", "Z"]
        assert r.query("IDENTIFY_SYSTEM")[1] is None
    none_left(wal, door)


def test_rules(proxy, wal, folder):
    """Lines of auth_hba_file: `replication` is for walsenders of the cluster alone, and no other
    line is for them; one of a database is a client of that."""
    hba = f"{folder}/hba"
    with open(hba, "w") as f:
        f.write("host replication streamer all scram-sha-256\nhost shop streamer all reject\n"
                "host all alice all trust\nhost replication admin all reject\n")
    door = proxy(wal, lines(wal), secrets=SECRETS, auth_type="hba", auth_hba_file=hba)
    with Raw(door.port) as r:
        assert r.login("streamer", "shop", "pw-streamer", replication="true") is None
    for user, params, text in (("streamer", dict(replication="database"), "rejects connection for host"),
                               ("streamer", {}, "rejects connection for host"),
                               ("alice", dict(replication="on"), "no pg_hba.conf entry for replication"),
                               ("admin", dict(replication="on"), "rejects replication connection from")):
        with Raw(door.port) as r:
            said = r.login(user, "shop", f"pw-{user}", **params)
            assert (said["C"], text in said["M"]) == ("28000", True), said
    with Raw(door.port) as r:
        assert r.login("alice", "shop", replication="database")["C"] == "42501"


def test_virtual_databases(proxy, wal):
    door = proxy(wal, lines(wal), secrets=SECRETS, sections="[virtual bank]\nmembers = shop, scarce\n")
    for database in ("bank", "bank.shop"):
        with Raw(door.port) as r:
            said = r.login("alice", database, replication="database")
            assert (said["C"], said["M"]) == (
                "0A000", f'virtual database "{database}" takes no replication connections')
            assert "one member" in said["H"]


def test_when_things_go_away(proxy, wal):
    """The walsender, the server, the proxy: the client hears of it."""
    door = proxy(wal, dict(lines(wal), down=f"host=127.0.0.1 port={free_port()}"), secrets=SECRETS,
                 server_login_retry=15)
    with replicate(door) as r:
        lsn = r.query("IDENTIFY_SYSTEM")[0][0][2]
        r.send(pgproto.query(f"START_REPLICATION PHYSICAL {lsn}"))
        assert r.message()[0] == "W"
        with wal.connect("postgres") as c:
            c.execute("select pg_terminate_backend(pid) from pg_stat_replication")
        assert [f["C"] for t, f, _ in r.until("\0") if t == "E"] == ["57P01"]
    # a server that cannot be reached is said at once; it may be tried again at once, too
    for _ in range(2):
        with Raw(door.port) as r:
            said = r.login("alice", "down", replication="true")
            assert (said["C"], said["M"][:28]) == ("08001", "cannot connect to the server")
    # SHUTDOWN does not wait for a stream without an end
    with replicate(door) as r:
        r.send(pgproto.query(f"START_REPLICATION PHYSICAL {lsn}"))
        assert r.message()[0] == "W"
        door.signal(2)
        assert [f["C"] for t, f, _ in r.until("\0") if t == "E"] == ["57P01"]
    assert door.wait_exit() == 0


def test_many_come_and_go(wal, door):
    """Walsenders of several threads, half of which vanish at any time: nothing is left."""
    def work(n):
        for i in range(6):
            r = Raw(door.port)
            r.send(pgproto.startup(dict(user="streamer", database="shop", replication="database")))
            if (n + i) % 2:
                r.until("Z")
                r.query("IDENTIFY_SYSTEM")
            r.sock.close()
    fds = door.fd_count()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    none_left(wal, door)
    until(lambda: door.fd_count() <= fds + 2, 10, "descriptors are closed")
