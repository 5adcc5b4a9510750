"""Several processes on one port: cancel requests find their way, and a rolling restart fails
no query."""
import os
import signal
import socket
import threading
import time

import psycopg
import pytest

import pgproto
from poll import until
from proxy import free_port
from raw import Raw


@pytest.fixture(autouse=True)
def _ours(only_pgweave):
    pass


@pytest.fixture
def group(proxy, pg, tmp_path):
    """Starts process n of the group, on the one port that all have."""
    port = free_port()
    peers = "[peers]\n" + "".join(f"{n} = host={tmp_path}/{n} port={port}\n" for n in (1, 2))

    def start(n, **settings):
        os.makedirs(tmp_path / str(n), exist_ok=True)
        door = proxy(pg, sections=peers, so_reuseport=1, listen_port=port, peer_id=n,
                     unix_socket_dir=tmp_path / str(n), wait=False, **settings)
        until(lambda: "process up" in door.log(), 10, f"process {n}")
        door.port = port
        door.socket = str(tmp_path / str(n))
        return door
    return start


def console(door, sql):
    with psycopg.connect(host=door.socket, port=door.port, dbname="pgbouncer", user="admin",
                         autocommit=True, row_factory=psycopg.rows.dict_row) as c:
        cur = c.execute(sql)
        return cur.fetchall() if cur.description else None


@pytest.mark.parametrize("version", [0x30000, 0x30002])
def test_cancel_through_a_peer(group, pg, version):
    """A client of the one process, its cancel request at the other; a wrong secret hits nobody.
    Keys of protocol 3.2 are longer."""
    one, two = group(1), group(2)
    with Raw(one.port) as c:
        c.login("alice", "shop", version=version)
        mine, other = (one, two) if console(one, "SHOW CLIENTS")[:-1] else (two, one)
        pid, key = c.key
        c.send(pgproto.query("select pg_sleep(60)"))
        until(lambda: [r for r in console(mine, "SHOW SERVERS") if r["state"] == "active"], 5)
        wrong = key[:-1] + bytes([key[-1] ^ 1])
        for secret, hits in ((wrong, False), (key, True)):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(10)
                s.connect(f"{other.socket}/.s.PGSQL.{other.port}")
                s.sendall(pgproto.cancel_request(pid, secret))
                assert s.recv(1) == b""
            if not hits:
                time.sleep(0.1)
                assert [r for r in console(mine, "SHOW SERVERS") if r["state"] == "active"]
        assert c.until("E")[-1][1]["C"] == "57014"
        assert c.until("Z")[-1][1]["status"] == "I"
    assert [r["peer_id"] for r in console(other, "SHOW PEERS")] == [1 if mine is one else 2]
    assert console(other, "SHOW PEER_POOLS")[0]["cl_active_cancel_req"] == 0
    lists = {r["list"]: r["items"] for r in console(other, "SHOW LISTS")}
    assert (lists["peers"], lists["peer_pools"]) == (1, 1)


def test_cancel_for_a_peer_that_is_gone(group):
    """Its request is closed, the process lives; a peer's number that nobody has, too."""
    one = group(1, cancel_wait_timeout=1)
    for peer in (2, 77):
        with Raw(one.port) as k:
            k.send(pgproto.cancel_request(12345, ((peer << 16) | 7).to_bytes(4, "big")))
            assert k.is_closed(5)
    assert one.is_running()


class Load(threading.Thread):
    """Short connections, a few queries each, until told to stop."""

    def __init__(self, dsn):
        super().__init__(daemon=True)
        self.dsn, self.done, self.queries, self.wrong = dsn, False, 0, []
        self.start()

    def run(self):
        while not self.done:
            try:
                with psycopg.connect(self.dsn, autocommit=True) as c:
                    for n in range(10):
                        assert c.execute("select %s::int", [n]).fetchone() == (n,)
                        self.queries += 1
            except Exception as e:
                self.wrong.append(repr(e))


def test_rolling_restart(group):
    """One process after the other leaves and comes back, under load; no query fails. The first one
    accepts in its only worker, the second one in its main thread."""
    doors = {n: group(n, workers=n) for n in (1, 2)}
    load = [Load(doors[1].dsn()) for _ in range(3)]
    until(lambda: all(t.queries > 20 for t in load), 10, "the load runs")
    for n in (1, 2):
        doors[n].signal(signal.SIGTERM)
        assert doors[n].wait_exit(15) == 0
        doors[n] = group(n, workers=n)
        before = [t.queries for t in load]
        until(lambda: all(t.queries > b + 20 for t, b in zip(load, before)), 10, "it goes on")
    for t in load:
        t.done = True
    for t in load:
        t.join(10)
    assert [w for t in load for w in t.wrong] == []
