"""CREATE, ALTER and DROP DATABASE: the proxy's own idle links are not in their way."""
import psycopg
import pytest

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
    """By simple queries in one mode, by extended ones in the other."""
    with door.connect("postgres") as c:
        def run(sql):
            if door.settings[4]["pool_mode"] == "session":
                r = c.pgconn.exec_params(sql.encode(), [])
                assert r.status == psycopg.pq.ExecStatus.COMMAND_OK, r.error_message
            else:
                c.execute(sql)

        use(door, "tpl")
        run("create database copy template = tpl")
        use(door, "copy")
        run("alter database copy rename to \"Copy 2\"")
        use(door, "Copy 2")
        run("/* first */ drop database \"Copy 2\"")
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


def test_listening_link(door):
    """One that lingers goes."""
    with door.connect("postgres") as c:
        with door.connect("tpl") as e:
            e.execute("listen x")
            e.execute("unlisten x")
        c.execute("alter database tpl rename to ears")
        c.execute("DROP DATABASE IF EXISTS ears")
