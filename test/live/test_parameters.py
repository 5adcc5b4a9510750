"""Session parameters in transaction mode follow their client from link to link, and nobody else."""
import random

import pytest

from proxy import is_standin
from raw import Raw

NAMES = {"application_name": ["one", "two", "it's 3", "", "back\\slash"],
         "TimeZone": ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"],
         "DateStyle": ["ISO, MDY", "German, DMY", "SQL, DMY"],
         "client_encoding": ["UTF8", "LATIN1"],
         "standard_conforming_strings": ["on", "off"],
         "IntervalStyle": ["postgres", "iso_8601"]}
if is_standin():
    NAMES["application_name"].remove("")


@pytest.fixture(scope="module")
def door(module_proxy, any_pg):
    return module_proxy(any_pg, pool_mode="transaction", default_pool_size=2, max_client_conn=100)


def show(r, name):
    rows, error = r.query(f"show {name}")
    assert error is None, error
    return rows[0][0]


def test_startup(door):
    clients = []
    for i in range(6):
        r = Raw(door.port)
        want = {k: v[i % len(v)] for k, v in NAMES.items() if k not in (
            "standard_conforming_strings", "IntervalStyle")}
        assert r.login("alice", "shop", **want) is None
        for k, v in want.items():
            assert r.params[k] == v, "told at login"
        clients.append((r, want))
    for _ in range(3):
        for r, want in clients:
            for k, v in want.items():
                assert show(r, k) == v
    for r, _ in clients:
        r.sock.close()


def test_set(door, only_pgweave):
    """Random SETs of six clients, checked after each; what they see is what they set."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rnd = random.Random(seed)
    clients = []
    for _ in range(6):
        r = Raw(door.port)
        assert r.login("alice", "shop", application_name="start") is None
        clients.append((r, dict(r.params)))
    for _ in range(150):
        r, want = rnd.choice(clients)
        name = rnd.choice(list(NAMES))
        if rnd.random() < 0.3:
            assert show(r, name) == want[name]
            continue
        value = rnd.choice(NAMES[name])
        if name == "DateStyle":
            text = value
        else:
            text = value.replace("'", "''")
        if "\\" in value and want["standard_conforming_strings"] == "off":
            continue
        keep = rnd.random()
        sql = f"set {name} to '{text}'" if name != "DateStyle" else f"set datestyle to {value}"
        if keep < 0.2:
            r.query("begin")
            assert r.query(sql)[1] is None
            r.query("rollback")
        elif keep < 0.3:
            r.query("begin")
            assert r.query(sql)[1] is None
            r.query("commit")
            want[name] = value
        else:
            assert r.query(sql)[1] is None
            want[name] = value
        assert show(r, name) == want[name]
    for r, want in clients:
        for name in NAMES:
            assert show(r, name) == want[name], name
        r.sock.close()


def test_options(door, only_pgweave):
    with Raw(door.port) as a, Raw(door.port) as b:
        assert a.login("alice", "shop", options="-c search_path=pg_catalog,shop -c work_mem=7MB "
                       "-cgeqo=off --enable-seqscan=off") is None
        assert b.login("alice", "shop", search_path="bob") is None
        for _ in range(3):
            assert show(a, "search_path") == "pg_catalog,shop" or show(a, "search_path") == "pg_catalog, shop"
            assert show(b, "search_path") == "bob"
            assert (show(a, "work_mem"), show(b, "work_mem")) == ("7MB", "4MB")
            assert (show(a, "geqo"), show(b, "geqo")) == ("off", "on")
            assert show(a, "enable_seqscan") == "off"


def test_application_name_is_seen_by_the_server(door):
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop", application_name="app a")
        b.login("alice", "shop", application_name="app b")
        for _ in range(3):
            for r, name in ((a, "app a"), (b, "app b")):
                assert r.query("select application_name from pg_stat_activity where "
                               "pid = pg_backend_pid()")[0] == [[name]]


def test_encoding(door):
    with Raw(door.port) as utf, Raw(door.port) as latin:
        utf.login("alice", "shop", client_encoding="UTF8")
        latin.login("alice", "shop", client_encoding="LATIN1")
        for _ in range(3):
            assert utf.query("select 'ä'")[0] == [["ä"]]
            latin.send(_query(b"select '\xe4'"))
            rows = [m for m in latin.until("Z") if m[0] == "D"]
            assert rows[0][2][6:] == b"\xe4"


def _query(sql):
    return b"Q" + (len(sql) + 5).to_bytes(4, "big") + sql + b"\0"


def test_discard_all(door, only_pgweave):
    """DISCARD ALL brings back the client's own startup values, not the server's or a neighbour's."""
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop", application_name="aaa", TimeZone="Asia/Tokyo")
        b.login("alice", "shop", application_name="bbb", TimeZone="Europe/Berlin")
        for _ in range(3):
            assert b.query("set timezone to 'America/New_York'")[1] is None
            assert a.query("set timezone to 'UTC'")[1] is None
            assert a.query("discard all")[1] is None
            assert (show(a, "timezone"), show(a, "application_name")) == ("Asia/Tokyo", "aaa")
            assert (show(b, "timezone"), show(b, "application_name")) == ("America/New_York", "bbb")
