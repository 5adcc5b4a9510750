"""Fixtures of the live suite: real clusters, and the proxy in front of them."""
import os
import shutil
import tempfile

import psycopg
import pytest

import activity
import bank
import certs as certs_module
import cluster as cluster_module
import fetch
import ledger
import transcript
from proxy import Proxy, auth_file, config, free_port, is_standin

SECRETS = {name: f"pw-{name}" for name in cluster_module.ROLES}


@pytest.fixture(scope="session")
def certs():
    directory = tempfile.mkdtemp(prefix="pgweave-certs-")
    os.chmod(directory, 0o755)
    yield certs_module.make(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def pg(certs):
    """The cluster that most tests share (PostgreSQL 15)."""
    c = cluster_module.Cluster("15", certs=certs)
    yield c
    c.remove()


@pytest.fixture(scope="session")
def pg18(certs):
    path, why = fetch.pg18()
    if not path:
        pytest.skip("no PostgreSQL 18: " + why)
    c = cluster_module.Cluster("18")
    yield c
    c.remove()


@pytest.fixture(scope="session", params=["15", "18"])
def any_pg(request):
    """Both versions, one after the other."""
    return request.getfixturevalue("pg" if request.param == "15" else "pg18")


@pytest.fixture
def own_pg():
    """A cluster of the test's own, to be killed and restarted."""
    c = cluster_module.Cluster("15")
    yield c
    c.remove()


@pytest.fixture(scope="module")
def made(pg):
    """The shared cluster with the databases of the bank."""
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    bank.create(pg)
    return pg


class Door:
    """A running proxy, and how to go through it."""

    def __init__(self, proxy, pg):
        self.proxy, self.pg, self.port = proxy, pg, proxy.port

    def __getattr__(self, name):
        return getattr(self.proxy, name)

    def dsn(self, dbname="shop", user="alice", **options):
        given = dict(host="127.0.0.1", port=self.port, dbname=dbname, user=user,
                     connect_timeout=20, **options)
        if "password" not in given and user in SECRETS:
            given["password"] = SECRETS[user]
        return psycopg.conninfo.make_conninfo(**given)

    def connect(self, dbname="shop", user="alice", autocommit=True, **options):
        c = psycopg.connect(self.dsn(dbname, user, **options), autocommit=autocommit)
        if is_standin():
            c.prepare_threshold = None
        return c

    def console(self, user="admin"):
        """A cursor factory for the console that asks by the simple protocol."""
        return Console(self.dsn("pgbouncer", user))

    def rows(self, what, user="admin"):
        """SHOW what, as a list of dicts."""
        with self.console(user) as c:
            return c.rows(f"SHOW {what}")

    def pool(self, database="shop", user="alice"):
        found = [r for r in self.rows("POOLS") if (r["database"], r["user"]) == (database, user)]
        return found[0] if found else None


class Console:
    """The console by the simple protocol, values as strings."""

    def __init__(self, dsn):
        self.connection = psycopg.pq.PGconn.connect(dsn.encode())
        if self.connection.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError(self.connection.error_message.decode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.finish()

    def command(self, sql):
        """Runs it; answers (columns, rows, tag), or raises psycopg.Error with the text."""
        r = self.connection.exec_(sql.encode())
        if r.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise psycopg.DatabaseError(r.error_message.decode().strip())
        text = lambda b: None if b is None else b.decode()  # noqa: E731
        columns = [text(r.fname(i)) for i in range(r.nfields)]
        rows = [[text(r.get_value(n, i)) for i in range(r.nfields)] for n in range(r.ntuples)]
        return columns, rows, text(r.command_status)

    def rows(self, sql):
        columns, rows, _ = self.command(sql)
        return [dict(zip(columns, row)) for row in rows]


class Doors:
    """Starts proxies and blames them at the end."""

    def __init__(self):
        self.open = []

    def __call__(self, pg, databases=None, users=None, secrets=None, sections="", args=(),
                 env=None, preexec=None, wait=True, **settings):
        directory = tempfile.mkdtemp(prefix="pgweave-live-")
        os.chmod(directory, 0o755)
        port = free_port()
        if databases is None:
            databases = {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop"}
        given = dict(auth_type="trust", admin_users="admin", stats_users="stats",
                     auth_file=auth_file(os.path.join(directory, "users.txt"), secrets or SECRETS),
                     server_login_retry=1)
        if not is_standin():
            given["state_dir"] = directory  # keys and jobs of one proxy are not the next one's
            given["workers"] = 2  # what two of them have between them happens everywhere
        given.update(settings)
        text = config(databases, port, users, sections, **given)
        door = Door(Proxy(text, port, directory, args, env, wait, preexec), pg)
        door.settings = (databases, port, users, sections, given)
        self.open.append(door)
        return door

    def rewrite(self, door, databases=None, **changes):
        """The same configuration with some settings changed."""
        old, port, users, sections, given = door.settings
        door.settings = (databases or old, port, users, sections, dict(given, **changes))
        old, port, users, sections, given = door.settings
        door.write(config(old, port, users, sections, **given))

    def close(self):
        wrong = []
        for door in self.open:
            said = door.stop()
            if said:
                wrong.append(f"proxy: {said}\nlog:\n{door.log(40)}")
            shutil.rmtree(door.dir, ignore_errors=True)
        return "\n".join(wrong)


def _doors(request, kept):
    doors = Doors()
    kept.append(doors)
    yield doors
    kept.remove(doors)
    wrong = doors.close()
    if wrong:
        pytest.fail(wrong, pytrace=False)


_kept = []


@pytest.fixture
def proxy(request):
    """proxy(pg, …settings) starts one; at the end it must stop clean."""
    yield from _doors(request, _kept)


@pytest.fixture(scope="module")
def module_proxy(request):
    """The same for a proxy that the tests of a module share."""
    yield from _doors(request, _kept)


# ---- in front of the bank, where a module has no other ----

@pytest.fixture(scope="module")
def door(module_proxy, made):
    return module_proxy(made, sections=bank.sections(made), default_pool_size=4)


@pytest.fixture
def c(door, made):
    with transcript.Client(door.port) as c:
        yield c
    activity.await_rest(made)


@pytest.fixture
def n():
    """A number that no other test writes."""
    return ledger.number()


@pytest.fixture
def state(tmp_path):
    """A directory for what must outlive a proxy."""
    return str(tmp_path / "state")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for doors in _kept:
            for door in doors.open:
                try:
                    report.sections.append((f"log of proxy {door.port}", door.log(60)))
                except OSError:
                    pass


@pytest.fixture
def only_pgweave():
    if is_standin():
        pytest.skip("what PgBouncer does not do")
