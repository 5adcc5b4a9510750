"""PgBouncer and pgweave side by side, on one configuration, where Debian's PgBouncer (1.18) is
installed: the views of the console, its errors, what clients are told, the lines of the log, the
numbers of a load that stands still. What is newer than 1.18 is compared with the lists here, taken
from PgBouncer 1.26."""
import re
import signal
import threading

import pytest

import bouncer
from conftest import SECRETS
from poll import until
from proxy import is_standin

pytestmark = [
    pytest.mark.skipif(bouncer.PGBOUNCER is None, reason="pgbouncer is not installed"),
    pytest.mark.skipif(is_standin(), reason="it would be compared with itself")]


@pytest.fixture(scope="module")
def sides(pg):
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    databases = {"shop": at, "other": at + " user=forced pool_size=3 pool_mode=session",
                 "one": at + " pool_size=1", "stmt": at + " pool_mode=statement",
                 "nodb": f"host=127.0.0.1 port={pg.port} dbname=nosuch",
                 "norole": at + " user=nosuch",
                 "nopw": at + " user=md5_user password=wrong"}
    sides = bouncer.pair(databases, SECRETS, pool_mode="transaction", query_wait_timeout=1,
                         idle_transaction_timeout=2, max_client_conn=40)
    yield sides
    for side in sides:
        side.stop()


# ---- views ----

VIEWS = """CLIENTS CONFIG DATABASES LISTS POOLS SERVERS SOCKETS ACTIVE_SOCKETS STATS STATS_TOTALS
           STATS_AVERAGES USERS VERSION TOTALS MEM DNS_HOSTS DNS_ZONES""".split()
# Columns that PgBouncer has called otherwise since, and the one of ours that must hold more.
RENAMED = {("DATABASES", "reserve_pool"): "reserve_pool_size"}
WIDER = {("MEM", "memtotal")}
INT4, TEXT, NUMERIC = 23, 25, 1700
SOCKETS = [("replication", TEXT), ("prepared_statements", INT4), ("id", INT4)]
NEWER = {
    "CLIENTS": SOCKETS, "SERVERS": SOCKETS, "SOCKETS": SOCKETS, "ACTIVE_SOCKETS": SOCKETS,
    "POOLS": [("load_balance_hosts", TEXT)],
    "DATABASES": [("server_lifetime", INT4), ("load_balance_hosts", TEXT),
                  ("max_client_connections", INT4), ("current_client_connections", INT4)],
    "USERS": [("pool_size", TEXT), ("reserve_pool_size", TEXT), ("max_user_connections", INT4),
              ("current_connections", INT4), ("max_user_client_connections", INT4),
              ("current_client_connections", INT4)],
    "STATS": [(p + n, NUMERIC) for p in ("total_", "avg_") for n in
              ("server_assignment_count", "client_parse_count", "server_parse_count", "bind_count",
               "client_login_count")],
    "STATS_TOTALS": [(n, NUMERIC) for n in
                     ("server_assignment_count", "client_parse_count", "server_parse_count",
                      "bind_count", "client_login_count")],
}


@pytest.mark.parametrize("view", VIEWS)
def test_columns(sides, view):
    theirs, ours = (s.ask("SHOW " + view) for s in sides)
    want = [(RENAMED.get((view, n), n), t) for n, t in theirs["columns"]]
    have = [c for c in ours["columns"] if c[0] in dict(want)]
    for at, (name, _) in enumerate(want):
        if (view, name) in WIDER:
            want[at] = have[at]
    assert have == want
    assert not [c for c in NEWER.get(view, []) if c not in ours["columns"]]
    assert ours["tag"] == theirs["tag"] == "SHOW"


def test_rows_in_the_same_order(sides):
    """Names sorted, with the console among them, under the name that it was asked for by."""
    for view, key in (("DATABASES", "name"), ("USERS", "name"), ("POOLS", "database"),
                      ("STATS", "database"), ("CONFIG", "key")):
        theirs, ours = ([r[key] for r in s.rows(view)] for s in sides)
        assert [x for x in ours if x in theirs] == [x for x in theirs if x in ours], view
        assert view == "CONFIG" or "pgbouncer" in ours, view
    assert [r["list"] for r in sides[0].rows("LISTS")] == [
        r["list"] for r in sides[1].rows("LISTS") if r["list"] not in ("peers", "peer_pools")]


# What 1.26 has changed since 1.18, and what is ours alone.
DEFAULTS = {"auth_query", "client_tls_ciphers", "server_tls_ciphers", "server_tls_sslmode",
            "server_check_query", "job_name", "syslog_ident"}
CHANGEABLE = {"disable_pqexec"}
VALUES = DEFAULTS | {"auth_file", "conffile", "listen_port", "unix_socket_dir", "unix_socket_mode",
                     "user"}


def test_settings(sides):
    """Every key of SHOW CONFIG, its value, its default, NULL or not, and whether SET changes it."""
    theirs, ours = ({r["key"]: r for r in s.rows("CONFIG")} for s in sides)
    assert not set(theirs) - set(ours)
    for key, row in theirs.items():
        mine = ours[key]
        assert (row["default"] == mine["default"] or key in DEFAULTS
                or (key, row["default"]) == ("verbose", None)), key
        assert row["value"] == mine["value"] or key in VALUES, key
        assert row["changeable"] == mine["changeable"] or key in CHANGEABLE, key


# ---- errors and tags ----

SAME = ["SHOW nonsense", "nonsense", "SHOW", "SHOW POOLS x y", "SHOW POOLS; SHOW POOLS",
        "SHOW client_encoding", "SHOW datestyle", "SHOW timezone", "SET client_encoding='utf8'",
        "SET nosuch = 1", "SET pool_mode = 'nonsense'", "SET default_pool_size = abc",
        "SET default_pool_size='21'", "SET default_pool_size to 20", "SET log_connections=maybe",
        "SET log_disconnections = 1", "PAUSE nowhere", "PAUSE pgbouncer", "PAUSE shop", "PAUSE shop",
        "RESUME shop", "RESUME shop", "RESUME nowhere", "RESUME", "PAUSE", "PAUSE", "PAUSE shop",
        "KILL shop", "RESUME", "DISABLE", "DISABLE nowhere", "DISABLE pgbouncer", "DISABLE shop",
        "ENABLE", "ENABLE nowhere", "ENABLE shop", "RECONNECT", "RECONNECT shop",
        "RECONNECT nowhere", "RECONNECT pgbouncer", "WAIT_CLOSE", "WAIT_CLOSE shop",
        "WAIT_CLOSE nowhere", "WAIT_CLOSE pgbouncer", "KILL nowhere", "KILL pgbouncer", "KILL shop",
        "RESUME shop", "RELOAD", "RELOAD shop", "RELOAD;", " reload ; ", "SHUTDOWN nonsense",
        'PAUSE "shop"', 'RESUME "shop"']


def test_commands_answer_the_same(sides):
    """One console on each side, asked the same in the same order."""
    with bouncer.Console(sides[0]) as a, bouncer.Console(sides[1]) as b:
        for sql in SAME:
            theirs, ours = a.ask(sql), b.ask(sql)
            theirs.pop("rows", None), ours.pop("rows", None)
            assert ours == theirs, sql
    for user, sql in (("stats", "PAUSE"), ("stats", "SHUTDOWN"), ("stats", "SET verbose = 0")):
        theirs, ours = (s.ask(sql, user) for s in sides)
        # 42501 where PgBouncer says 08P01
        assert ours["error"][2] == theirs["error"][2] == "admin access needed"
    assert [s.refusal("pgbouncer") for s in sides] == ["not allowed", "not allowed"]


@pytest.mark.parametrize("database", ["nosuch", "nodb", "norole", "nopw"])
def test_logins_are_refused_in_the_same_words(sides, database):
    theirs, ours = (s.refusal(database) for s in sides)
    assert ours == theirs
    assert theirs is not None


# ---- a load that stands still ----

def begun(side, database="shop"):
    c = side.connect(database)
    c.execute("begin")
    return c


COUNTS = ("cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_tested "
          "sv_login pool_mode").split()


def test_numbers_of_a_load(sides):
    """Clients that hold a transaction, that rest and that wait: the same numbers in POOLS, states
    in CLIENTS and SERVERS, and none of a load that is over."""
    seen, logs = [], []
    for side in sides:
        held = [begun(side) for _ in range(3)] + [begun(side, "one")]
        idle = [side.connect() for _ in range(2)]
        waits = side.connect("one")
        t = threading.Thread(target=lambda c=waits, told=logs: told.append(refused(c)))
        t.start()
        until(lambda: side.rows("POOLS", database="one")[0]["cl_waiting"] == "1", 5)
        # Not the console's: the one that asked before may not have left yet.
        pools = {r["database"]: [r[k] for k in COUNTS] for r in side.rows("POOLS")
                 if r["database"] in ("shop", "one")}
        wait = side.rows("CLIENTS", database="one", state="waiting")
        assert len(wait) == 1
        servers = sorted((r["database"], r["state"], r["user"]) for r in side.rows("SERVERS"))
        linked = {r["link"] for r in side.rows("SERVERS", state="active")}
        assert linked == {r["ptr"] for r in side.rows("CLIENTS") if r["link"]}
        t.join()
        seen.append((pools, [s for s in servers if s[1] == "active"]))
        for c in held + idle + [waits]:
            c.close()
        until(lambda: side.rows("POOLS", database="shop")[0]["cl_active"] == "0", 5)
        assert side.rows("POOLS", database="one")[0]["cl_waiting"] == "0"
    assert seen[1] == seen[0]
    assert logs == ["query_wait_timeout"] * 2


def refused(c):
    try:
        c.execute("select 1")
    except Exception as e:
        return re.sub(".*(FATAL|failed): *", "", str(e).split("\n")[0])
    return None


def test_statistics_count_the_same(sides):
    """5 sessions, 6 transactions, 14 statements."""
    counted = []
    for side in sides:
        before = side.rows("STATS", database="other")
        for _ in range(4):
            with side.connect("other") as c:
                c.execute("select 1")
        with side.connect("other") as c:
            for _ in range(2):
                with c.transaction():
                    for _ in range(3):
                        c.execute("select 1")
        now = {}

        def all_there():
            now.update(side.rows("STATS", database="other")[0])
            return int(now["total_query_count"]) == 14
        until(all_there, 5, f"{now}")
        assert not before or int(before[0]["total_query_count"]) == 0
        counted.append([now[k] for k in ("total_xact_count", "total_query_count",
                                         "total_received")])
    assert counted[1] == counted[0]
    assert counted[1][:2] == ["6", "14"]
    assert (now["total_server_assignment_count"], now["total_client_login_count"]) == ("5", "5")
    # They count named statements, where the names are the pooler's.
    assert {now[f"total_{k}_count"] for k in ("client_parse", "server_parse", "bind")} == {"0"}
    # The console counts, too, and what asks for the totals is in them.
    own = sides[1].rows("STATS", database="pgbouncer")[0]
    assert int(own["total_query_count"]) == int(own["total_xact_count"]) > 0


# ---- the log ----

C = r"C-0x[0-9a-f]+: "
S = r"S-0x[0-9a-f]+: "
AT = r"@127\.0\.0\.1:\d+ "
LINES = [
    r"LOG kernel file descriptor limit: \d+ \(hard: \d+\); max_client_conn: 40, max expected fd use: \d+",
    r"LOG listening on 127\.0\.0\.1:\d+", r"LOG listening on unix:/\S+",
    r"LOG process up: \S+ [\d.]+, libevent \S+ \(epoll\), adns: [^,]+, tls: OpenSSL ",
    "LOG " + C + "shop/alice" + AT + "login attempt: db=shop user=alice tls=no",
    "LOG " + S + "shop/alice" + AT + r"new connection to server \(from 127\.0\.0\.1:\d+\)",
    "LOG " + C + "shop/alice" + AT + r"closing because: client close request \(age=\d+s\)",
    "LOG " + C + r"\S+/alice" + AT + "login failed: db=nosuch user=alice",
    "LOG " + C + r"\S+/alice" + AT + r"closing because: no such database: nosuch \(age=\d+s\)",
    "WARNING " + C + r"\S+/alice" + AT + "pooler error: no such database: nosuch",
    r'WARNING .*server login failed: FATAL database "nosuch" does not exist',
    "LOG " + S + "nodb/alice" + AT + r"closing because: login failed \(age=\d+s\)",
    "LOG " + C + "one/alice" + AT + r"closing because: query_wait_timeout \(age=\d+s\)",
    "WARNING " + C + "one/alice" + AT + "pooler error: query_wait_timeout",
    "LOG " + C + "shop/alice" + AT + r"closing because: idle transaction timeout \(age=\d+s\)",
    "LOG " + C + "stmt/alice" + AT
    + r"closing because: transaction blocks not allowed in statement pooling mode \(age=\d+s\)",
    r'LOG .*closing because: database "shop" is disabled \(age=\d+s\)',
    r"LOG .*PAUSE 'shop' command issued", r"LOG .*RESUME 'shop' command issued",
    r"LOG .*RELOAD command issued", r"LOG .*RECONNECT command issued",
    r"WARNING " + C + "pgbouncer/admin" + AT + "pooler error: no such database: nowhere",
    "LOG " + S + r"\S+" + AT + r"closing because: pause mode \(age=\d+s\)",
    "LOG got SIGHUP, re-reading config", "LOG got SIGUSR1, pausing all activity",
    "LOG got SIGUSR1, but already paused/suspended", "LOG got SIGUSR2, continuing from PAUSE",
    "LOG got SIGUSR2, but not paused/suspended", "LOG got SIGINT, shutting down",
    "LOG server connections dropped, exiting",
]


def provoke(side):
    for database in ("nosuch", "nodb"):
        side.refusal(database)
    a, b = begun(side, "one"), side.connect("one")
    assert refused(b) == "query_wait_timeout"
    a.close()
    with side.connect("stmt") as c:
        assert "transaction blocks not allowed" in (refused_begin(c) or "")
    c = begun(side)
    until(lambda: "closing because: idle transaction timeout" in side.log(), 5)
    c.close()
    side.ask("DISABLE shop")
    assert side.refusal("shop") == 'database "shop" is disabled'
    side.ask("ENABLE shop")
    with side.connect() as c:
        c.execute("select 1")
    for sql in ("PAUSE shop", "RESUME shop", "PAUSE nowhere", "RECONNECT", "RELOAD"):
        side.ask(sql)
    for number, word in ((signal.SIGHUP, "got SIGHUP"), (signal.SIGUSR1, "pausing all"),
                         (signal.SIGUSR1, "but already paused"),
                         (signal.SIGUSR2, "continuing from PAUSE"),
                         (signal.SIGUSR2, "but not paused"), (signal.SIGINT, "got SIGINT")):
        side.process.send_signal(number)
        until(lambda: word in side.log(), 5)
    assert side.process.wait(10) in (0, 1)


def refused_begin(c):
    try:
        c.execute("begin")
    except Exception as e:
        return str(e)
    return None


def test_lines_of_the_log(sides):
    """Each line that alerts match on, provoked on both sides; the last test of the module."""
    threads = [threading.Thread(target=provoke, args=(s,)) for s in sides]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for line in LINES:
        for side, name in zip(sides, ("PgBouncer", "pgweave")):
            assert re.search(r"^\S+ \S+ \S+ \[\d+\] " + line, side.log(), re.M), (name, line)
