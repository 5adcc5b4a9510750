"""CREATE, ALTER and DROP DATABASE: the proxy's own idle links are not in their way."""
import pgproto
import psycopg
import pytest
import raw

MODES = ["transaction", "session"]


@pytest.fixture(scope="module", params=MODES)
def door(request, module_proxy, pg):
    """tpl is configured, so that health has a connection to it too; the others come by *. Two
    workers, each with links of its own."""
    with pg.connect("postgres") as c:
        c.execute("drop database if exists tpl with (force)")
        c.execute("create database tpl owner alice")
        c.execute("alter role alice createdb")
    place = f"host=127.0.0.1 port={pg.port}"
    return module_proxy(pg, databases={"tpl": f"{place} dbname=tpl", "*": place},
                        pool_mode=request.param, default_pool_size=2, min_pool_size=1, workers=2)


def use(door, dbname):
    """Leaves idle links behind, in both workers."""
    clients = [door.connect(dbname) for _ in range(2)]
    for c in clients:
        c.execute("select 1")
    for c in clients:
        c.close()


def test_idle_links(door, pg):
    """By simple queries in one mode, by extended ones and under names in the other."""
    with door.connect("postgres") as c:
        said = []

        def run(sql):
            said.append(sql.encode())
            if door.settings[4]["pool_mode"] != "session":
                c.execute(sql)
                return
            if len(said) % 2:
                r = c.pgconn.exec_params(said[-1], [])
            else:
                name = b"s%d" % len(said)
                r = c.pgconn.prepare(name, said[-1])
                assert r.status == psycopg.pq.ExecStatus.COMMAND_OK, r.error_message
                r = c.pgconn.exec_prepared(name, [])
            assert r.status == psycopg.pq.ExecStatus.COMMAND_OK, r.error_message

        use(door, "tpl")
        run("create database copy template = tpl")
        use(door, "copy")
        run("alter database copy rename to \"Copy 2\"")
        use(door, "Copy 2")
        run("alter database \"Copy 2\" rename to copy")
        use(door, "copy")
        run("/* first */ drop database copy")
        run("create database copy template = tpl")
        use(door, "copy")
        run("drop database copy")
        # What was closed comes again.
        with door.connect("tpl") as t:
            assert t.execute("select current_database()").fetchone() == ("tpl",)


def test_links_in_use(door):
    """PostgreSQL's own error, which it gives after five seconds; nothing is held up afterwards."""
    with (door.connect("postgres", options="-c statement_timeout=200ms") as c,
          door.connect("tpl", autocommit=False) as t):
        t.execute("select 1")
        with pytest.raises((psycopg.errors.ObjectInUse, psycopg.errors.QueryCanceled)):
            c.execute("alter database tpl rename to lpt")
        t.rollback()
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), c.transaction():
            c.execute("drop database tpl")
        assert t.execute("select 1").fetchone() == (1,)


def idle_links(door):
    return sorted(r["remote_pid"] for r in door.rows("SERVERS") if r["database"] == "tpl")


def test_who_may(door, pg):
    """Who has no right to it, or means none that exists, closes nobody's links."""
    use(door, "tpl")
    with door.connect("postgres", user="bob") as c, door.connect("postgres") as owner:
        before = idle_links(door)
        for sql in ("drop database tpl", "create database x template tpl",
                    "alter database tpl rename to mine"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                c.execute(sql)
        with pytest.raises(psycopg.errors.InvalidCatalogName):
            owner.execute("drop database nothing")
        assert set(before) <= set(idle_links(door))


def test_pipelined(door):
    """One behind another has a fence of its own; so has one behind a statement that runs, and one
    that was prepared before."""
    with raw.Raw(door.port) as r:
        assert r.login("alice", "postgres") is None
        again = "alter database copy2 rename to copy1"
        r.send(pgproto.query("create database copy1 template tpl"),
               pgproto.parse("d", again), pgproto.SYNC)
        r.until("Z")
        r.until("Z")
        use(door, "tpl")
        use(door, "copy1")
        r.send(pgproto.query("select pg_sleep(0.05)"),
               pgproto.query("alter database copy1 rename to copy2"),
               pgproto.query("alter database tpl rename to tpl2"))
        got = [m for _ in range(3) for m in r.until("Z")]
        assert [m[0] for m in got if m[0] in "CE"] == ["C"] * 3, got
        r.send(pgproto.query("alter database tpl2 rename to tpl"))
        r.until("Z")
        use(door, "copy2")
        if door.settings[4]["pool_mode"] == "session":
            r.send(pgproto.query(again))
        else:
            r.send(pgproto.bind("", "d"), pgproto.execute(), pgproto.SYNC)
        got = r.until("Z")
        assert "C" in [m[0] for m in got], got
        r.send(pgproto.query("drop database copy1"))
        r.until("Z")


def test_listening_link(door):
    """One that lingers goes."""
    with door.connect("postgres") as c:
        with door.connect("tpl") as e:
            e.execute("listen x")
            e.execute("unlisten x")
        c.execute("alter database tpl rename to ears")
        c.execute("DROP DATABASE IF EXISTS ears")
