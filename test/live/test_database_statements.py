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


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_idle_links(door, pg, extended):
    with door.connect("postgres") as c:
        def run(sql):
            if extended:
                r = c.pgconn.exec_params(sql.encode(), [])
                assert r.status == psycopg.pq.ExecStatus.COMMAND_OK, r.error_message
            else:
                c.execute(sql)

        use(door, "tpl")
        run("create database copy template = tpl")
        use(door, "copy")
        run("alter database copy rename to \"Copy 2\"")
        use(door, "Copy 2")
        use(door, "tpl")
        run("CREATE DATABASE copy WITH owner alice TEMPLATE 'Copy 2'")
        run("/* first */ drop database \"Copy 2\"")
        run("DROP DATABASE IF EXISTS copy")
        run("drop database if exists copy")
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
    """One that lingers goes; one that somebody listens on is in use."""
    with door.connect("postgres") as c:
        c.execute("create database ears")
        with door.connect("ears") as e:
            e.execute("listen x")
            e.execute("unlisten x")
        c.execute("drop database ears")
