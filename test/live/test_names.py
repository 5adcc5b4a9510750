"""Host names of servers: a name server of our own, several addresses, addresses that change."""
import time

import psycopg
import pytest

from dns import NameServer
from poll import until


@pytest.fixture
def dns(tmp_path):
    server = NameServer()
    server.path = server.resolv_conf(str(tmp_path / "resolv.conf"))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _ours(only_pgweave):
    pass


def shop(pg, host):
    return {"shop": f"host={host} port={pg.port} dbname=shop"}


def server_addresses(door):
    return {r["addr"] for r in door.rows("SERVERS")}


def test_each_address_is_tried(proxy, pg, dns):
    """Nothing listens on two of three addresses: nobody notices, whichever has its turn."""
    dns.names["db.example"] = ["127.9.9.1", "127.0.0.1", "127.9.9.2"]
    door = proxy(pg, shop(pg, "db.example"), resolv_conf=dns.path, server_lifetime=0)
    for n in range(6):
        with door.connect() as c:
            assert c.execute("select %s", [n]).fetchone() == (n,)
    assert "trying the next address" in door.log()
    hosts = door.rows("DNS_HOSTS")
    assert [h["hostname"] for h in hosts] == ["db.example"]
    assert sorted(hosts[0]["addrs"].split(",")) == ["127.0.0.1:0", "127.9.9.1:0", "127.9.9.2:0"]
    assert 0 <= int(hosts[0]["ttl"]) <= 15
    assert door.rows("DNS_ZONES") == [{"zonename": "example", "serial": None, "count": "1"}]
    lists = {r["list"]: r["items"] for r in door.rows("LISTS")}
    assert (lists["dns_names"], lists["dns_zones"]) == ("1", "1")
    assert dns.count("db.example") <= 3, "the name is kept for dns_max_ttl"


def test_no_address_answers(proxy, pg, dns):
    dns.names["db.example"] = ["127.9.9.1", "127.9.9.2"]
    door = proxy(pg, shop(pg, "db.example"), resolv_conf=dns.path)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        door.connect()


def test_names_that_are_not_there(proxy, pg, dns):
    """A failed look-up is remembered for dns_nxdomain_ttl, and forgotten then."""
    door = proxy(pg, shop(pg, "none.example"), resolv_conf=dns.path, server_login_retry=0,
                 dns_nxdomain_ttl=1)
    for _ in range(8):
        with pytest.raises(psycopg.OperationalError, match="cannot resolve"):
            door.connect()
    assert dns.count("none.example") <= 3
    dns.names["none.example"] = ["127.0.0.1"]

    def works():
        try:
            with door.connect() as c:
                return c.execute("select 1").fetchone()
        except psycopg.OperationalError:
            return None
    until(works, 8, "the name is asked for again")


@pytest.mark.parametrize("how", ["dns_max_ttl", "dns_zone_check_period"])
def test_address_changes(proxy, pg, dns, how):
    """Connections to an address that the name has lost are closed when they are released: at
    the next look-up, or, with dns_zone_check_period, without any new connection."""
    other = proxy(pg, listen_addr="127.0.0.2", listen_port=pg.port, wait=False)
    until(lambda: "process up" in other.log(), 5, "the other address")
    dns.names["db.example"] = ["127.0.0.1"]
    door = proxy(pg, shop(pg, "db.example"), resolv_conf=dns.path, **{how: 0.2})
    with door.connect() as a, door.connect() as b:
        a.execute("begin")
        assert server_addresses(door) == {"127.0.0.1"}
        dns.names["db.example"] = ["127.0.0.2"]
        if how == "dns_max_ttl":
            time.sleep(0.3)
            b.execute("select 1")  # opens a second connection
            until(lambda: server_addresses(door) == {"127.0.0.1", "127.0.0.2"}, 5)
        else:
            until(lambda: [r["close_needed"] for r in door.rows("SERVERS")] == ["1"], 5, "it is old")
        assert a.execute("select 2").fetchone() == (2,), "who has a connection keeps it"
        a.execute("commit")
        until(lambda: "127.0.0.1" not in server_addresses(door), 5, "the old one is closed")
        assert a.execute("select 3").fetchone() == (3,)
        assert server_addresses(door) == {"127.0.0.2"}


def test_name_server_is_gone(proxy, pg, dns):
    """What was known stays in use."""
    dns.names["db.example"] = ["127.0.0.1"]
    door = proxy(pg, shop(pg, "db.example"), resolv_conf=dns.path, dns_max_ttl=0.1)
    with door.connect() as c:
        c.execute("select 1")
    del dns.names["db.example"]
    time.sleep(0.2)
    with door.console() as k:
        k.command("RECONNECT")
    with door.connect() as c:
        assert c.execute("select 2").fetchone() == (2,)
    assert "DNS lookup failed: db.example" in door.log()


@pytest.mark.parametrize("fast", [0, 1])
def test_server_fast_close(proxy, pg, fast):
    """A session pool gives up an old connection at the end of the transaction, or keeps it."""
    door = proxy(pg, pool_mode="session", server_fast_close=fast)
    c = door.connect()
    c.execute("begin")
    with door.console() as k:
        k.command("RECONNECT")
        until(lambda: [r["close_needed"] for r in k.rows("SHOW SERVERS")] == ["1"], 5)
    time.sleep(0.3)
    assert c.execute("select 1").fetchone() == (1,)
    c.execute("commit")
    if fast:
        until(lambda: not door.rows("SERVERS"), 5, "it is closed")
        with pytest.raises(psycopg.OperationalError, match="database configuration changed"):
            c.execute("select 2")
    else:
        time.sleep(0.3)
        assert c.execute("select 2").fetchone() == (2,)
    c.close()


@pytest.mark.parametrize("attrs,role,accepted", [
    ("any", "off", True), ("primary", "off", True), ("standby", "off", False),
    ("read-write", "off", True), ("read-write", "on", False),
    ("read-only", "on", True), ("read-only", "off", False), ("primary", "on", True)])
def test_target_session_attrs(proxy, pg, attrs, role, accepted):
    """A primary; role: its default_transaction_read_only, as connect_query leaves it."""
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop target_session_attrs={attrs} "
                              f"connect_query='set default_transaction_read_only = {role}'"})
    if accepted:
        with door.connect() as c:
            assert c.execute("select 1").fetchone() == (1,)
    else:
        with pytest.raises(psycopg.OperationalError, match="target_session_attrs"):
            door.connect()
