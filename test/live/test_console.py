"""The console: every SHOW view with PgBouncer's columns, every command, the extended protocol,
rights of admin_users and stats_users, aliases of the pseudo-database."""
import threading
import time

import psycopg
import pytest

import pgproto
from poll import until
from proxy import is_standin
from raw import Raw, refusal

STATS = ("xact_count query_count server_assignment_count received sent xact_time query_time "
         "wait_time client_parse_count server_parse_count bind_count")
SOCKET = ("type user database replication state addr port local_addr local_port connect_time "
          "request_time wait wait_us close_needed ptr link remote_pid tls application_name "
          "prepared_statements id")
# PgBouncer 1.25's columns; ours may have more behind them.
COLUMNS = {
    "POOLS": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req "
             "sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login "
             "maxwait maxwait_us pool_mode load_balance_hosts",
    "CLIENTS": SOCKET,
    "SERVERS": SOCKET,
    "DATABASES": "name host port database force_user pool_size min_pool_size reserve_pool_size "
                 "server_lifetime pool_mode load_balance_hosts max_connections "
                 "current_connections max_client_connections current_client_connections paused "
                 "disabled",
    "USERS": "name pool_size reserve_pool_size pool_mode max_user_connections "
             "current_connections max_user_client_connections current_client_connections",
    "STATS": "database total_server_assignment_count total_xact_count total_query_count "
             "total_received total_sent total_xact_time total_query_time total_wait_time "
             "total_client_parse_count total_server_parse_count total_bind_count "
             "avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent "
             "avg_xact_time avg_query_time avg_wait_time avg_client_parse_count "
             "avg_server_parse_count avg_bind_count",
    "STATS_TOTALS": "database server_assignment_count xact_count query_count bytes_received "
                    "bytes_sent xact_time query_time wait_time client_parse_count "
                    "server_parse_count bind_count",
    "STATS_AVERAGES": "database server_assignment_count xact_count query_count bytes_received "
                      "bytes_sent xact_time query_time wait_time avg_client_parse_count "
                      "avg_server_parse_count avg_bind_count",
    "LISTS": "list items",
    "CONFIG": "key value default changeable",
    "MEM": "name size used free memtotal",
    "VERSION": "version",
    "TOTALS": "name value",
    "STATE": "key value",
    "PINS": "client database reason since statement member",
    "WORKERS": "worker clients links statements loop_lag_us cpu_ms shared healed "
               "multiplexed moved",
}
LISTS = ("databases users pools free_clients used_clients login_clients free_servers used_servers "
         "dns_names dns_zones dns_queries dns_pending").split()


@pytest.fixture
def door(proxy, pg):
    if is_standin():
        pytest.skip("another version's console")
    at = f"host=127.0.0.1 port={pg.port} dbname=shop"
    return proxy(pg, {"shop": at, "other": at + " pool_size=3 pool_mode=session"},
                 pool_mode="transaction", default_pool_size=2)


def pid(c):
    return c.execute("select pg_backend_pid()").fetchone()[0]


def links(pg, user="alice"):
    with pg.connect() as d:
        return d.execute("select count(*) from pg_stat_activity where usename = %s", [user]
                         ).fetchone()[0]


@pytest.mark.parametrize("view", list(COLUMNS))
def test_columns(door, view):
    with door.connect() as c, door.console() as k:
        if view == "PINS":
            c.execute("create temp table pinned (a int)")
        c.execute("select 1")
        columns, rows, tag = k.command(f"SHOW {view}")
        want = COLUMNS[view].split()
        missing = [w for w in want if w not in columns]
        assert not missing, f"missing {missing} in {columns}"
        # in PgBouncer's order, ours may stand behind
        assert [c for c in columns if c in want] == want
        assert rows and tag == "SHOW"
        assert k.command(f"show {view.lower()};")[0] == columns


def test_help(door):
    notices = []
    with psycopg.connect(door.dsn("pgweave", "admin"), autocommit=True) as c:
        c.add_notice_handler(lambda d: notices.append((d.message_primary or "") + (d.message_detail or "")))
        cur = c.execute("SHOW HELP")
        rows = cur.fetchall() if cur.description else []
    text = "".join(notices) + str(rows)
    for word in ("SHOW", "RELOAD", "PAUSE", "RESUME", "DISABLE", "ENABLE", "KILL", "RECONNECT",
                 "WAIT_CLOSE", "SHUTDOWN", "SET"):
        assert word in text, word


def test_values(door):
    with door.connect(application_name="values-app") as c, door.console() as k:
        for _ in range(5):
            c.execute("select 1")
        pool = [r for r in k.rows("SHOW POOLS") if r["database"] == "shop"][0]
        assert (pool["user"], pool["cl_active"], pool["sv_idle"], pool["pool_mode"]) == (
            "alice", "1", "1", "transaction")
        client = [r for r in k.rows("SHOW CLIENTS") if r["database"] == "shop"][0]
        assert client["type"] == "C" and client["user"] == "alice"
        assert client["application_name"] == "values-app" and client["addr"] == "127.0.0.1"
        assert client["state"] in ("idle", "active") and client["local_port"] == str(door.port)
        server = k.rows("SHOW SERVERS")[0]
        assert server["type"] == "S" and server["state"] == "idle"
        assert (server["addr"], server["port"]) == ("127.0.0.1", str(door.pg.port))
        assert server["remote_pid"] == str(pid(c))
        database = {r["name"]: r for r in k.rows("SHOW DATABASES")}
        assert database["shop"]["pool_size"] == "2" and database["other"]["pool_size"] == "3"
        assert database["other"]["pool_mode"] == "session"
        assert database["shop"]["current_connections"] == "1"
        stats = [r for r in k.rows("SHOW STATS") if r["database"] == "shop"][0]
        assert int(stats["total_query_count"]) >= 5 and int(stats["total_xact_count"]) >= 5
        assert int(stats["total_received"]) > 50 and int(stats["total_sent"]) > 100
        config = {r["key"]: r for r in k.rows("SHOW CONFIG")}
        assert config["default_pool_size"]["value"] == "2"
        assert config["default_pool_size"]["default"] == "20"
        assert config["listen_port"]["changeable"] == "no"
        assert config["query_timeout"]["changeable"] == "yes"
        lists = {r["list"]: r["items"] for r in k.rows("SHOW LISTS")}
        assert not [x for x in LISTS if x not in lists]
        users = {r["name"]: r for r in k.rows("SHOW USERS")}
        assert {"alice", "admin"} <= set(users)
        assert "pw-alice" not in str(k.command("SHOW USERS")) + str(k.command("SHOW DATABASES"))
        workers = k.rows("SHOW WORKERS")
        assert sum(int(w["clients"]) for w in workers) >= 1
        assert "pgweave" in k.rows("SHOW VERSION")[0]["version"].lower()


def test_waiting_is_shown(door):
    """cl_waiting and maxwait of a pool whose links are all in use."""
    with door.connect(autocommit=False) as a, door.connect(autocommit=False) as b, \
            Raw(door.port) as c, door.console() as k:
        a.execute("select 1")
        b.execute("select 1")
        c.login("alice", "shop")
        c.send(pgproto.query("select 'at last'"))

        def waits():
            p = [r for r in k.rows("SHOW POOLS") if r["database"] == "shop"][0]
            return p["cl_waiting"] == "1" and int(p["maxwait"]) * 1000000 + int(p["maxwait_us"]) > 0
        until(waits, 5)
        assert [r for r in k.rows("SHOW CLIENTS") if r["state"] == "waiting"]
        a.commit()
        assert [m[1]["1"] for m in c.until("Z") if m[0] == "D"] == ["at last"]
        b.commit()


def test_pause_resume(door):
    with door.connect() as c, door.console() as k:
        c.execute("select 1")
        assert k.command("PAUSE shop")[2] == "PAUSE"
        until(lambda: links(door.pg) == 0, 5, "links are closed")
        assert {r["name"]: r["paused"] for r in k.rows("SHOW DATABASES")}["shop"] == "1"
        c.pgconn.send_query(b"select 'waited'")
        time.sleep(0.3)
        c.pgconn.consume_input()
        assert c.pgconn.is_busy()
        # the other database is not paused
        with door.connect("other") as o:
            assert o.execute("select 1").fetchone() == (1,)
        assert k.command("RESUME shop")[2] == "RESUME"
        got = []
        while True:
            r = c.pgconn.get_result()
            if r is None:
                break
            got.append(r.get_value(0, 0))
        assert got == [b"waited"]
        with pytest.raises(psycopg.Error):
            k.command("RESUME shop")
        with pytest.raises(psycopg.Error):
            k.command("PAUSE nowhere")


def test_pause_waits_for_transactions(door):
    done = []
    with door.connect(autocommit=False) as c:
        c.execute("select 1")

        def pause():
            with door.console() as k:
                done.append(k.command("PAUSE")[2])
        t = threading.Thread(target=pause)
        t.start()
        time.sleep(0.4)
        assert not done, "PAUSE answered before the transaction was over"
        assert c.execute("select 2").fetchone() == (2,)
        c.commit()
        t.join(5)
        assert done == ["PAUSE"]
        with door.console() as k:
            assert {r["key"]: r["value"] for r in k.rows("SHOW STATE")}["paused"] == "yes"
            with pytest.raises(psycopg.Error):
                k.command("PAUSE")
            k.command("RESUME")
            with pytest.raises(psycopg.Error):
                k.command("RESUME")
        assert c.execute("select 3").fetchone() == (3,)


def test_new_clients_wait_while_paused(door):
    with door.console() as k:
        k.command("PAUSE")
        with Raw(door.port) as c:
            c.send(pgproto.startup(dict(user="alice", database="shop")) + pgproto.query("select 1"))
            time.sleep(0.2)
            assert links(door.pg) == 0
            k.command("RESUME")
            c.until("Z")
            assert [m[1]["1"] for m in c.until("Z") if m[0] == "D"] == ["1"]


def test_kill(door):
    with door.connect() as c, door.connect("other") as o, door.console() as k:
        c.execute("select 1")
        o.execute("select 1")
        assert k.command("KILL shop")[2] == "KILL"
        with pytest.raises(psycopg.OperationalError):
            c.execute("select 2")
        assert o.execute("select 2").fetchone() == (2,)
        until(lambda: links(door.pg) == 1, 5, "the links of shop are closed")
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user="alice", database="shop")) + pgproto.query("select 1"))
            time.sleep(0.2)
            k.command("RESUME shop")
            r.until("Z")
            assert [m[1]["1"] for m in r.until("Z") if m[0] == "D"] == ["1"]


def test_kill_in_query(door):
    with Raw(door.port) as c, door.console() as k:
        c.login("alice", "shop")
        c.send(pgproto.query("select pg_sleep(20)"))
        until(lambda: door.pool()["sv_active"] == "1", 5)
        k.command("KILL shop")
        assert c.is_closed(5)
        k.command("RESUME shop")


def test_kill_client(door):
    with door.connect(application_name="victim") as c, door.connect() as other, door.console() as k:
        c.execute("select 1")
        row = [r for r in k.rows("SHOW CLIENTS") if r["application_name"] == "victim"][0]
        assert k.command(f"KILL_CLIENT {row['id']}")[2] == "KILL_CLIENT"
        with pytest.raises(psycopg.OperationalError):
            c.execute("select 2")
        assert other.execute("select 3").fetchone() == (3,)
        with pytest.raises(psycopg.Error):
            k.command("KILL_CLIENT 99999999")


def test_reconnect_and_wait_close(door):
    with door.connect() as c, door.connect(autocommit=False) as t, door.console() as k:
        idle = pid(c)
        busy = pid(t)
        assert k.command("RECONNECT shop")[2] == "RECONNECT"
        assert pid(t) == busy, "not before its transaction is over"
        done = []

        def wait():
            with door.console() as w:
                done.append(w.command("WAIT_CLOSE shop")[2])
        th = threading.Thread(target=wait)
        th.start()
        time.sleep(0.3)
        assert not done
        if idle != busy:
            assert pid(c) not in (idle,)
        t.commit()
        th.join(5)
        assert done == ["WAIT_CLOSE"]
        assert pid(t) != busy


def test_disable_enable(door):
    with door.connect() as c, door.console() as k:
        c.execute("select 1")
        k.command("DISABLE shop")
        said, _ = refusal(door.port, "alice")
        assert said and said["M"] == 'database "shop" is disabled'
        assert c.execute("select 2").fetchone() == (2,)
        assert {r["name"]: r["disabled"] for r in k.rows("SHOW DATABASES")}["shop"] == "1"
        k.command("ENABLE shop")
        assert refusal(door.port, "alice")[0] is None
        for wrong in ("DISABLE", "DISABLE nowhere", "ENABLE nowhere", "DISABLE pgbouncer"):
            with pytest.raises(psycopg.Error):
                k.command(wrong)


def test_set(door):
    with door.console() as k:
        for sql in ("SET query_timeout = 7", "SET query_timeout = '7'", "set query_timeout to 7;"):
            k.command("SET query_timeout = 0")
            k.command(sql)
            assert {r["key"]: r["value"] for r in k.rows("SHOW CONFIG")}["query_timeout"] == "7"
        for wrong in ("SET no_such_thing = 1", "SET query_timeout = soon", "SET listen_port = 1",
                      "SET pool_mode = x"):
            with pytest.raises(psycopg.Error):
                k.command(wrong)
        k.command("SET default_pool_size = 1")
        k.command("SET query_wait_timeout = 1")
    with Raw(door.port) as a, Raw(door.port) as b:
        a.login("alice", "shop")
        b.login("alice", "shop")
        a.query("begin")
        assert b.query("select 1")[1]


def test_reload(proxy, door):
    proxy.rewrite(door, default_pool_size=6)
    with door.console() as k:
        assert k.command("RELOAD")[2] == "RELOAD"
        assert {r["key"]: r["value"] for r in k.rows("SHOW CONFIG")}["default_pool_size"] == "6"


@pytest.mark.parametrize("how", ["", "WAIT_FOR_SERVERS", "WAIT_FOR_CLIENTS"])
def test_shutdown(door, how):
    with Raw(door.port) as c, Raw(door.port) as k, door.console() as other:
        c.login("alice", "shop")
        c.query("begin")
        assert k.login("admin", "pgbouncer") is None
        k.send(pgproto.query(f"SHUTDOWN {how}"))
        if how:
            time.sleep(0.3)
            assert door.is_running()
            if not is_standin():
                with pytest.raises(psycopg.Error, match="pooler is shutting down"):
                    other.command("RESUME")
            assert c.query("select 1")[0] == [["1"]]
            c.query("commit")
            if how == "WAIT_FOR_CLIENTS":
                assert c.query("select 2")[0] == [["2"]]
                c.send(pgproto.TERMINATE)
        assert c.is_closed(5)
    assert door.wait_exit(5) == 0


def test_wrong_commands(door):
    with door.console() as k:
        for wrong in ("SHOW NONSENSE", "FROBNICATE", "SHOW", "DROP TABLE x", "PAUSE a b c", "'", "("):
            with pytest.raises(psycopg.Error):
                k.command(wrong)
        assert k.rows("SHOW VERSION")


def test_rights(door):
    """stats_users may SHOW and nothing else; others may not come in."""
    with door.console("stats") as k:
        for view in COLUMNS:
            assert k.command(f"SHOW {view}")[0]
        for command in ("RELOAD", "PAUSE", "PAUSE shop", "RESUME", "KILL", "KILL shop", "RECONNECT",
                        "DISABLE shop", "ENABLE shop", "SET query_timeout = 1", "SHUTDOWN",
                        "WAIT_CLOSE", "KILL_CLIENT 1", "SUSPEND"):
            with pytest.raises(psycopg.Error):
                k.command(command)
        assert {r["name"]: r["paused"] for r in k.rows("SHOW DATABASES")}["shop"] == "0"
    assert door.is_running()
    for database in ("pgbouncer", "pgweave"):
        said, _ = refusal(door.port, "alice", database=database)
        assert said and said["S"] == "FATAL"


def test_aliases(door):
    for database in ("pgbouncer", "pgweave"):
        with psycopg.connect(door.dsn(database, "admin"), autocommit=True) as c:
            assert c.execute("SHOW VERSION").fetchone()


def test_extended_protocol(door):
    """psycopg asks by Parse, Bind, Execute; prepared too."""
    with psycopg.connect(door.dsn("pgbouncer", "admin"), autocommit=True) as c:
        cur = c.execute("SHOW POOLS")
        assert [d.name for d in cur.description][:2] == ["database", "user"]
        assert cur.fetchall()
        c.prepare_threshold = 0
        for _ in range(3):
            assert c.execute("SHOW DATABASES").fetchall()
        with pytest.raises(psycopg.Error):
            c.execute("SHOW NONSENSE")
        assert c.execute("SHOW VERSION").fetchone()
        cur = c.cursor(binary=True)
        try:
            assert cur.execute("SHOW VERSION").fetchone()
        except psycopg.Error:
            assert c.execute("SHOW VERSION").fetchone()


def test_other_drivers(door):
    import asyncio

    import asyncpg
    import psycopg2
    with psycopg2.connect(door.dsn("pgbouncer", "admin")) as c:
        c.autocommit = True
        cur = c.cursor()
        cur.execute("SHOW POOLS")
        assert cur.fetchall()
    c.close()

    async def go():
        a = await asyncpg.connect(host="127.0.0.1", port=door.port, user="admin",
                                  password="pw-admin", database="pgbouncer")
        assert await a.fetch("SHOW DATABASES")
        await a.close()
    asyncio.run(asyncio.wait_for(go(), 20))


def test_pipelined_console(door):
    with Raw(door.port) as k:
        assert k.login("admin", "pgbouncer") is None
        k.send(pgproto.query("SHOW VERSION") + pgproto.parse("", "SHOW LISTS") + pgproto.bind("", "")
               + pgproto.describe("P", "") + pgproto.execute() + pgproto.SYNC
               + pgproto.query("SHOW NONSENSE") + pgproto.query("SHOW VERSION"))
        kinds = []
        for _ in range(4):
            kinds.append("".join(m[0] for m in k.until("Z")).replace("D", ""))
        assert kinds[0] == "TCZ" and kinds[1] == "12TCZ" and kinds[2] == "EZ" and kinds[3] == "TCZ"


def test_console_does_not_count_as_load(door):
    """The console answers while the pool is exhausted and clients wait."""
    with door.connect(autocommit=False) as a, door.connect(autocommit=False) as b, \
            Raw(door.port) as c:
        a.execute("select 1")
        b.execute("select 1")
        c.login("alice", "shop")
        c.send(pgproto.query("select 1"))
        began = time.monotonic()
        for _ in range(10):
            assert door.rows("POOLS")
        assert time.monotonic() - began < 3


def test_big_view(door):
    """A view of many rows, read slowly."""
    clients = [Raw(door.port) for _ in range(80)]
    for c in clients:
        assert c.login("alice", "shop", application_name="x" * 60) is None
    with door.console() as k:
        rows = k.rows("SHOW CLIENTS")
        assert len([r for r in rows if r["user"] == "alice"]) == 80
        assert len({r["id"] for r in rows}) == len(rows)
    for c in clients:
        c.sock.close()
    until(lambda: not [r for r in door.rows("CLIENTS") if r["user"] == "alice"], 5, "they are gone")


# ---- SQL over the views

def test_sql(door, only_pgweave):
    """SELECT over the views, by the simple and the extended protocol, with types."""
    with door.connect() as held, door.connect("pgbouncer", "stats") as c:
        held.execute("select 1")
        cur = c.execute("select database, sum(cl_active), count(*) from pools group by 1 order by 1")
        assert [d.name for d in cur.description][:1] == ["database"]
        assert [d.type_code for d in cur.description] == [25, 20, 20]
        assert dict((r[0], r[1]) for r in cur.fetchall())["shop"] == 1
        assert c.execute('select p."user", d.pool_size from pools p join databases d on d.name = p.database '
                         "where p.database = 'shop'").fetchall() == [("alice", int(door.rows("DATABASES shop")[0]["pool_size"]))]
        assert c.execute("with x as (select * from lists) select items from x where list = 'databases'"
                         ).fetchone()[0] >= 2
        assert c.execute("SELECT value FROM config WHERE key = 'pool_mode';").fetchone() == ("transaction",)
        assert c.execute("select avg(items) > 0 from lists").fetchone() == (1,)
        assert c.execute("select name from databases where name = 'none'").fetchall() == []
    with door.console() as k:
        columns, rows, tag = k.command("select list, items from lists order by list limit 2")
        assert (columns, len(rows), tag) == (["list", "items"], 2, "SELECT 2")


@pytest.mark.parametrize("sql,code", [
    ("select * from missing", "42P01"),
    ("select missing from pools", "42703"),
    ("select missing() from pools", "42883"),
    ("select * from pools where", "42601"),
    ("select * from sqlite_master", "42501"),
    ("select load_extension('x')", "42501"),
    ("with recursive x(n) as (select 1 union all select n + 1 from x) select count(*) from x", "57014"),
    ("with recursive x(n) as (select 1 union all select n + 1 from x) select hex(zeroblob(900000)) from x", "5"),
    ("with x as (select 1) delete from pools", "42501"),
    ("select hex(zeroblob(100000000))", "54000"),
])
def test_sql_refused(door, only_pgweave, sql, code):
    with Raw(door.port) as c:
        assert c.login("stats", "pgbouncer") is None
        _, error = c.query(sql)
        assert error["C"].startswith(code), error
        assert c.query("show version")[0]
    assert door.is_running()


def test_fds_refused(door, only_pgweave):
    with Raw(door.port) as c:
        c.login("admin", "pgbouncer")
        _, error = c.query("SHOW FDS")
        assert error["C"] == "0A000" and "takeover" in error["M"]


def test_pool_idle_timeout(proxy, pg, only_pgweave):
    """A pool without a connection is forgotten; one that is in use, or has a link, is not."""
    door = proxy(pg, pool_idle_timeout=0.3, server_idle_timeout=0)
    with door.connect() as c:
        c.execute("select 1")
    time.sleep(0.5)
    assert door.pool() is not None, "it still has a server connection"
    with door.console() as k:
        k.command("RECONNECT")
    until(lambda: door.pool() is None, 5, "it is forgotten")
    with door.connect() as c:
        assert c.execute("select 2").fetchone() == (2,)
    assert door.pool() is not None


def test_numbers_under_load(proxy, pg):
    """Ten clients on four connections of two workers: each is shown once, at any moment."""
    if is_standin():
        pytest.skip("it has no workers")
    door = proxy(pg, pool_mode="transaction", default_pool_size=4, workers=2)
    over = threading.Event()

    def work():
        with door.connect() as c:
            while not over.is_set():
                c.execute("select pg_sleep(0.001)")
    crowd = [threading.Thread(target=work) for _ in range(10)]
    for t in crowd:
        t.start()
    try:
        with door.console() as k:
            def pool():
                row = [r for r in k.rows("SHOW POOLS") if r["database"] == "shop"][0]
                return (int(row["cl_active"]) + int(row["cl_waiting"]),
                        sum(int(row[c]) for c in row if c.startswith("sv_")))
            until(lambda: pool() == (10, 4), 10)
            assert {pool() for _ in range(40)} == {(10, 4)}
            # Those that move between the workers are listed twice or not at all.
            assert {len(k.rows("SHOW SERVERS")) for _ in range(20)} <= set(range(0, 9))
            row = [r for r in k.rows("SHOW DATABASES") if r["name"] == "shop"][0]
            assert (row["current_connections"], row["current_client_connections"]) == ("4", "10")
    finally:
        over.set()
        for t in crowd:
            t.join()
    stats = [r for r in door.rows("STATS") if r["database"] == "shop"][0]
    assert stats["total_xact_count"] == stats["total_query_count"] == \
        stats["total_server_assignment_count"]
    assert stats["total_client_login_count"] == "10"
