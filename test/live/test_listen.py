"""LISTEN and NOTIFY where links are shared: what PostgreSQL itself would send, to every client
that listens, from the pid that the client who notified was given."""
import select
import threading
import time

import pgproto
import psycopg
import pytest
import raw
from psycopg import pq

FENCE = "fence"


class Ear:
    """A client, in libpq's own words: by simple queries, or as extended ones."""

    def __init__(self, door, extended=False, **options):
        self.pg = pq.PGconn.connect(door.dsn(**options).encode())
        assert self.pg.status == pq.ConnStatus.OK, self.pg.error_message
        self.pid, self.extended = self.pg.backend_pid, extended

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pg.finish()

    def run(self, *statements):
        """The tags; raises what goes wrong."""
        tags = []
        for sql in statements:
            r = (self.pg.exec_params(sql.encode(), []) if self.extended
                 else self.pg.exec_(sql.encode()))
            if r.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
                sqlstate = r.error_field(pq.DiagnosticField.SQLSTATE)
                raise psycopg.errors.lookup((sqlstate or b"08006").decode())(r.error_message.decode())
            tags.append(r.command_status.decode())
        return tags

    def had(self):
        """What has come with the answers so far."""
        got = []
        while (n := self.pg.notifies()) is not None:
            got.append((n.relname.decode(), n.extra.decode(), n.be_pid))
        return got

    def wait(self, count):
        """So many notifications, those that come by themselves too."""
        got = self.had()
        while len(got) < count:
            assert select.select([self.pg.socket], [], [], 20)[0], f"only {got}"
            self.pg.consume_input()
            got += self.had()
        return got

    def is_closed_by(self, door, why):
        assert select.select([self.pg.socket], [], [], 20)[0]
        with pytest.raises(psycopg.OperationalError):
            self.pg.consume_input()
            self.run("select 1")
        return why in door.log(40)

    def settled(self):
        """What comes up to a notification of its own: nothing else is on its way then."""
        self.run(f"listen {FENCE}", f"notify {FENCE}")
        got = self.had()
        assert got[-1] == (FENCE, "", self.pid)
        self.run(f"unlisten {FENCE}")
        return got[:-1]


@pytest.fixture(scope="module")
def shared(module_proxy, pg):
    """Two workers, and fewer links than clients."""
    return module_proxy(pg, pool_mode="transaction", default_pool_size=2, workers=2)


@pytest.fixture(params=[False, True], ids=["simple", "extended"])
def extended(request):
    return request.param


def test_own(shared, extended):
    with Ear(shared, extended) as a:
        assert a.run("listen here", "notify here", "notify here, 'word'") == [
            "LISTEN", "NOTIFY", "NOTIFY"]
        assert a.had() == [("here", "", a.pid), ("here", "word", a.pid)]
        a.run("select pg_notify('here', 'by function')", "notify elsewhere")
        assert a.had() == [("here", "by function", a.pid)]
        assert a.run("unlisten here", "notify here") == ["UNLISTEN", "NOTIFY"]
        assert a.settled() == []


def test_many_clients(shared, extended):
    """On both workers; whoever notifies is named by the pid that it was given."""
    ears = [Ear(shared, extended) for _ in range(6)]
    for e in ears:
        e.run("listen everybody")
    for n, e in enumerate(ears):
        e.run(f"notify everybody, '{n}'")
    want = [("everybody", str(n), e.pid) for n, e in enumerate(ears)]
    for e in ears:
        assert e.wait(len(want)) == want
    for e in ears:
        e.pg.finish()


def test_pinned(shared, extended):
    """What holds a session to its link does not keep notifications from it."""
    with Ear(shared, extended) as a, Ear(shared, extended) as b:
        a.run("create temp table mine (i int)", "listen held")
        b.run("notify held, 'idle'")
        assert a.wait(1) == [("held", "idle", b.pid)]
        a.run("begin")
        b.run("notify held, 'in between'")
        a.run("select 1")
        a.run("commit")
        assert a.wait(1) == [("held", "in between", b.pid)]
        a.run("drop table mine")
        b.run("notify held, 'free'")
        assert a.wait(1) == [("held", "free", b.pid)]


def test_pids_under_load(shared):
    """Links change hands all the time, and yet each notification has its client's pid."""
    ears = [Ear(shared) for _ in range(4)]
    wrong = []

    def work(e):
        for n in range(40):
            e.run(f"notify load, '{e.pid}'", "select 1")
            got = [x for x in e.had() if x[1] == str(e.pid)]
            if got != [("load", str(e.pid), e.pid)] and "own" not in wrong:
                wrong.append(("own", n, got))

    with Ear(shared) as silent:
        for e in ears + [silent]:
            e.run("listen load")
        threads = [threading.Thread(target=work, args=(e,)) for e in ears]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        heard = silent.wait(160)
    assert not wrong
    assert all(payload == str(pid) for _, payload, pid in heard)
    for e in ears:
        e.pg.finish()


def test_pools_are_free(module_proxy, pg):
    """A listening client has no link: one link serves them all."""
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=1)
    with Ear(door) as a, Ear(door) as b, door.connect() as other:
        a.run("listen one")
        b.run("listen one")
        assert other.execute("select 1").fetchone() == (1,)
        other.execute("notify one")
        pid = other.pgconn.backend_pid
        assert a.wait(1) == b.wait(1) == [("one", "", pid)]
        assert door.pool()["sv_active"] == "0"
        shown = door.rows("LISTENS")
        assert {(r["database"], r["user"], r["channel"], r["state"]) for r in shown} == {
            ("shop", "alice", "one", "on")}
        assert sum(int(r["clients"]) for r in shown) == 2
        with pg.connect("shop") as direct:
            real = direct.execute("select pg_backend_pid(), pg_notify('one', 'direct')").fetchone()[0]
        assert a.wait(1) == [("one", "direct", real)]
        # What the link has of its listeners is not the next client's.
        asks = "select * from pg_listening_channels()"
        assert other.execute(asks).fetchall() == []
        with door.connect() as c:
            c.execute('listen one; listen "Two"')
            assert sorted(c.execute(asks).fetchall()) == [("Two",), ("one",)]
            assert len(c.execute("select pg_listening_channels()", prepare=False).fetchall()) == 2
            # Also by a name, of a statement that a server has taken a moment ago.
            for n in (b"p1", b"p2", b"p2"):
                if c.pgconn.describe_prepared(n).status == pq.ExecStatus.FATAL_ERROR:
                    c.pgconn.prepare(n, asks.encode())
                assert c.pgconn.exec_prepared(n, []).ntuples == 2
            assert c.execute("unlisten one").statusmessage == "UNLISTEN"
            assert c.pgconn.exec_params(asks.encode(), []).get_value(0, 0) == b"Two"
            assert other.execute(asks).fetchall() == []


def test_transactions(shared, extended):
    with Ear(shared, extended) as a, Ear(shared) as b:
        # As PostgreSQL does: not before the commit, and what was notified before is skipped.
        a.run("begin", "listen t")
        b.run("notify t, 'before'")
        a.run("select 1", "notify t, 'own'")
        assert a.had() == []
        a.run("commit")
        assert a.had() == [("t", "own", a.pid)]
        # In a transaction they wait for its end.
        a.run("begin")
        b.run("notify t, 'meanwhile'")
        a.run("select 1")
        assert a.had() == []
        a.run("commit")
        assert a.wait(1) == [("t", "meanwhile", b.pid)]
        # UNLISTEN, and LISTEN, that are undone.
        a.run("begin", "unlisten t", "listen u", "rollback")
        b.run("notify u", "notify t, 'still'")
        assert a.wait(1) == [("t", "still", b.pid)]
        # To a savepoint.
        a.run("begin", "savepoint s", "listen u", "savepoint s2", "unlisten *", "rollback to s2",
              "release s", "savepoint s", "listen v", "unlisten t", "rollback to s", "commit")
        b.run("notify v", "notify u", "notify t")
        assert a.wait(2) == [("u", "", b.pid), ("t", "", b.pid)]
        a.run("begin", "unlisten *", "listen w", "commit")
        b.run("notify t", "notify u", "notify w")
        assert a.wait(1) == [("w", "", b.pid)]
        # The next transaction begins in the same breath: what comes meanwhile is wanted.
        a.run("begin", "listen chained", "commit and chain")
        b.run("notify chained")
        a.run("select 1")
        assert a.had() == []
        a.run("commit", "unlisten chained")
        assert a.wait(1) == [("chained", "", b.pid)]
        # A transaction that has failed.
        a.run("begin", "unlisten w", "listen x")
        for sql in ("select 1/0", "listen y"):
            with pytest.raises(psycopg.Error):
                a.run(sql)
        assert a.run("commit") == ["ROLLBACK"]
        b.run("notify x", "notify y", "notify w")
        assert a.wait(1) == [("w", "", b.pid)]
        assert a.settled() == []


def test_strings(shared):
    with Ear(shared) as a, Ear(shared) as b:
        assert a.run("listen a; notify a, 'x'; listen b;notify b; unlisten a; select 1") == ["SELECT 1"]
        assert a.had() == [("b", "", a.pid)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            a.run("listen c; select 1/0; listen d")
        a.run("begin; listen e; commit; begin; listen f; rollback; listen g")
        b.run("notify c", "notify d", "notify e", "notify f", "notify g", "notify b")
        assert [n[0] for n in a.wait(3)] == ["e", "g", "b"]
        a.run("discard all")
        b.run("notify e", "notify b")
        assert a.settled() == []


def test_names(shared, extended):
    long = "n" * 70
    with Ear(shared, extended) as a:
        a.run('listen "Quoted ""Ä"" name"', "LISTEN FoLd", f"listen {long}", 'listen U&"d\\0061ta"')
        a.run('notify "Quoted ""Ä"" name"', "notify fold", f'notify "{long[:63]}"', "notify data")
        assert [n[0] for n in a.had()] == ['Quoted "Ä" name', "fold", long[:63], "data"]
        for sql in ("listen select", "listen 'x'", "listen", "unlisten", "listen a.b"):
            with pytest.raises(psycopg.errors.SyntaxError):
                a.run(sql)


def test_prepared(shared):
    """LISTEN as a named statement, several times, and in one batch with other statements."""
    with Ear(shared) as a, Ear(shared) as b:
        a.pg.prepare(b"l", b"listen prepared")
        a.pg.prepare(b"u", b"unlisten *")
        for _ in range(2):
            assert a.pg.exec_prepared(b"l", []).command_status == b"LISTEN"
            b.run("notify prepared")
            assert a.wait(1) == [("prepared", "", b.pid)]
            assert a.pg.exec_prepared(b"u", []).command_status == b"UNLISTEN"
            b.run("notify prepared")
            assert a.settled() == []
    with shared.connect() as c, Ear(shared) as b:
        heard = []
        c.add_notify_handler(heard.append)
        with c.pipeline():
            c.execute("begin")
            c.execute("listen piped")
            c.execute("notify piped, 'x'")
            c.execute("commit")
            c.execute("select 1")
            c.execute("notify piped, 'y'")
        assert [(n.payload, n.pid) for n in heard] == [
            (x, c.pgconn.backend_pid) for x in ("x", "y")]


def test_limits(module_proxy, pg):
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=2, max_listen_channels=2,
                        max_listen_queue="16kB")
    with Ear(door) as a, Ear(door) as b:
        a.run("listen a", "listen b", "listen a")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="max_listen_channels"):
            a.run("listen c")
        a.run("unlisten b", "listen c")
        for sql in ("listen a", "unlisten b"):
            a.run("begin")
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="one transaction"):
                a.run(*[sql] * 10)
            a.run("rollback")
        a.pg.prepare(b"l", b"unlisten b")
        a.run("begin")
        got = [a.pg.exec_prepared(b"l", []).error_field(pq.DiagnosticField.SQLSTATE)
               for _ in range(10)]
        assert got[0] is None and b"54000" in got
        a.run("rollback")
        # One that sits in a transaction does not make the proxy grow.
        a.run("begin")
        for n in range(3):
            b.run(f"select pg_notify('c', repeat('{n}', 7900))")
        assert a.is_closed_by(door, "max_listen_queue")
        assert b.run("select 1") == ["SELECT 1"]


def test_pipelined(shared):
    """What is done here for a statement may take as long as the NOTIFY before it is heard."""
    with Ear(shared) as c, raw.Raw(shared.port) as a, raw.Raw(shared.port) as b:
        c.run("listen p")
        for r in (a, b):
            assert r.login("alice", "shop") is None
        for _ in range(10):
            b.send(pgproto.query("do $$ begin raise notice 'here'; perform pg_sleep(20); end $$"))
            b.until("N")
            a.send(pgproto.query("notify p"), pgproto.query(f"select pg_cancel_backend({b.key[0]})"))
            got = "".join(m[0] for _ in range(2) for m in a.until("Z"))
            assert got == "CZTDCZ"
            b.until("Z")


def test_lost(pg, module_proxy):
    """Who may have missed something is told so; who listens again is heard again."""
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=2)
    with Ear(door) as a, Ear(door) as idle, Ear(door) as b:
        a.run("listen x")
        idle.run("select 1")
        with pg.connect("shop") as direct:
            pid = door.rows("LISTENS")[0]["remote_pid"]
            direct.execute("select pg_terminate_backend(%s)", (int(pid),))
        assert a.is_closed_by(door, "notifications may have been missed")
        assert idle.run("select 1") == ["SELECT 1"]
        b.run("listen x", "notify x")
        assert b.had() == [("x", "", b.pid)]


def test_lost_in_transaction(pg, module_proxy):
    """So is who was about to listen when nobody could hear for it any more."""
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=2, workers=1)
    with Ear(door) as a, Ear(door) as b:
        b.run("listen x")
        a.run("begin", "listen x")
        with pg.connect("shop") as direct:
            pid = door.rows("LISTENS")[0]["remote_pid"]
            direct.execute("select pg_terminate_backend(%s)", (int(pid),))
        assert b.is_closed_by(door, "notifications may have been missed")
        assert a.run("commit") == ["COMMIT"]
        assert a.is_closed_by(door, "notifications may have been missed")


def test_no_link(pg, module_proxy, extended):
    """A LISTEN that cannot be is an error of its statement alone."""
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=2, server_login_retry="300s")
    with pg.connect("shop") as direct, Ear(door, extended, user="bob") as a:
        a.run("select 1")
        direct.execute("alter role bob connection limit 1")
        with pytest.raises(psycopg.errors.TooManyConnections, match="too many connections for role"):
            a.run("listen x")
        a.run("begin")
        # The server is not asked without pause.
        direct.execute("alter role bob connection limit -1")
        with pytest.raises(psycopg.errors.TooManyConnections, match="server_login_retry"):
            a.run("listen x")
        assert a.run("rollback", "select 1") == ["ROLLBACK", "SELECT 1"]
        module_proxy.rewrite(door, server_login_retry="0")
        with door.console() as console:
            console.command("reload")
        until = time.monotonic() + 10
        while not listens(a):
            assert time.monotonic() < until
        a.run("notify x")
        assert a.had() == [("x", "", a.pid)]


def listens(ear):
    try:
        return ear.run("listen x")
    except psycopg.errors.TooManyConnections:
        return False


@pytest.mark.parametrize("command", ["pause shop", "reconnect shop"])
def test_operator(pg, module_proxy, command):
    """The listening connection is the database's as those of the pool are; one that nobody needs
    goes without a word."""
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=2, workers=1)
    with Ear(door) as a, Ear(door, user="bob") as b, door.console() as console:
        a.run("listen x")
        b.run("listen x", "unlisten x")
        console.command(command)
        assert door.rows("LISTENS") == []
        assert a.is_closed_by(door, "notifications may have been missed")
        if "pause" in command:
            console.command("resume shop")
        b.run("listen x", "notify x")
        assert b.had() == [("x", "", b.pid)]


def test_hosts(pg, module_proxy):
    """The listening connection goes where the pool goes; hosts that take turns are refused."""
    place = f"host=127.0.0.1,localhost port={pg.port}"
    door = module_proxy(pg, databases={"shop": f"{place} dbname=shop load_balance_hosts=disable", "turns":
                                       f"{place} dbname=shop"},
                        pool_mode="transaction", default_pool_size=2, workers=1,
                        server_login_retry="0")
    with Ear(door) as a, Ear(door, dbname="turns") as t, pg.connect("shop") as direct:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="take turns"):
            t.run("listen x")
        a.run("listen x")
        with Ear(door) as b, Ear(door) as c:
            b.run("begin")
            direct.execute("alter role alice connection limit 0")
            # No server lets it in: the pool looks at the next one.
            c.pg.send_query(b"select 1")
            assert a.is_closed_by(door, "pool has gone to another host")
            direct.execute("alter role alice connection limit -1")


def test_session_mode(module_proxy, pg, any_pg):
    """A client that has its link for itself hears of itself under its own pid, too."""
    door = module_proxy(any_pg, pool_mode="session", default_pool_size=4)
    with Ear(door) as a, Ear(door) as b:
        a.run("listen s", "notify s")
        b.run("notify s, 'b'")
        assert a.wait(2) == [("s", "", a.pid), ("s", "b", b.pid)]


def test_versions(module_proxy, any_pg):
    door = module_proxy(any_pg, pool_mode="transaction", default_pool_size=2)
    with Ear(door) as a, Ear(door) as b:
        a.run("listen v", "notify v", "begin", "unlisten v", "rollback")
        b.run("notify v, 'b'")
        assert a.wait(2) == [("v", "", a.pid), ("v", "b", b.pid)]
