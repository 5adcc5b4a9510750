"""Logins: every auth_type with every form of secret, wrong passwords, unknown users and databases,
the proxy's own logins at the servers, forced users, the '*' database."""
import psycopg
import pytest

import pgproto
from proxy import is_standin
from raw import refusal

WRONG = "08P01" if is_standin() else "28P01"
PASSWORD = "it's a \"pass\" word"
SECRET = {"plain": PASSWORD,
          "md5": pgproto.md5_secret("alice", PASSWORD),
          "scram": pgproto.scram_verifier(PASSWORD)}


@pytest.mark.parametrize("secret", ["plain", "md5", "scram"])
@pytest.mark.parametrize("auth_type", ["trust", "plain", "md5", "scram-sha-256"])
def test_auth_type(proxy, pg, auth_type, secret):
    door = proxy(pg, auth_type=auth_type, secrets={"alice": SECRET[secret]})
    right, _ = refusal(door.port, "alice", password=PASSWORD)
    if auth_type == "scram-sha-256" and secret == "md5":
        assert right and right["C"] == WRONG
        return
    assert right is None, right
    wrong, _ = refusal(door.port, "alice", password="wrong")
    empty, _ = refusal(door.port, "alice", password="")
    nobody, _ = refusal(door.port, "nobody", password="wrong")
    if auth_type == "trust":
        assert wrong is None and empty is None
        assert nobody and nobody["S"] == "FATAL"
        return
    for said in (wrong, empty, nobody):
        assert (said["S"], said["C"]) == ("FATAL", WRONG)
    with psycopg.connect(door.dsn(password=PASSWORD)) as c:
        assert c.execute("select current_user").fetchone() == ("alice",)


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
def test_refusal_tells_nothing(proxy, pg, auth_type, only_pgweave):
    """A wrong password and an unknown user look alike, to the letter and to the clock."""
    secrets = {"alice": SECRET["plain"], "bob": SECRET["scram"]}
    door = proxy(pg, auth_type=auth_type, secrets=secrets)
    took = {"alice": [], "bob": [], "nobody": []}
    # In turns, and the quickest of each, until they agree: what else the machine does falls on
    # all alike and is gone from the quickest of many; a difference of ours never goes.
    for turn in range(200):
        for user in took:
            said, seconds = refusal(door.port, user, password="wrong")
            assert said["C"] == "28P01" and said["S"] == "FATAL"
            assert said["M"] == f'password authentication failed for user "{user}"'
            assert set(said) <= set("SVCMFLR")
            took[user].append(seconds)
        times = {user: min(t) for user, t in took.items()}
        spread = max(times.values()) - min(times.values())
        if turn >= 19 and spread < max(0.002, 0.3 * min(times.values())):
            return
    raise AssertionError(f"told apart by the clock: {times}")


def test_names(proxy, pg):
    """Names as long and as odd as PostgreSQL allows."""
    name = 'o\'dd "name" ' + "x" * 40
    with pg.connect() as d:
        d.execute(psycopg.sql.SQL("drop role if exists {}").format(psycopg.sql.Identifier(name)))
        d.execute(psycopg.sql.SQL("create role {} login").format(psycopg.sql.Identifier(name)))
    door = proxy(pg, auth_type="md5", secrets={name: "pw"})
    with psycopg.connect(door.dsn(user=name, password="pw")) as c:
        assert c.execute("select current_user").fetchone() == (name,)
    with pg.connect() as d:
        d.execute(psycopg.sql.SQL("drop role {}").format(psycopg.sql.Identifier(name)))


def test_unknown_database(proxy, pg, only_pgweave):
    door = proxy(pg)
    said, _ = refusal(door.port, "alice", database="nowhere")
    assert (said["S"], said["C"], said["M"]) == ("FATAL", "3D000", "no such database: nowhere")


def test_unknown_database_with_password(proxy, pg, only_pgweave):
    """Before the password is right, nobody learns which databases there are."""
    door = proxy(pg, auth_type="scram-sha-256")
    wrong, _ = refusal(door.port, "alice", database="nowhere", password="wrong")
    assert wrong["C"] in ("28P01", "3D000")
    right, _ = refusal(door.port, "alice", database="nowhere", password="pw-alice")
    assert (right["C"], right["M"]) == ("3D000", "no such database: nowhere")


def test_database_missing_on_server(proxy, pg):
    door = proxy(pg, {"ghost": f"host=127.0.0.1 port={pg.port} dbname=ghost"})
    said, _ = refusal(door.port, "alice", database="ghost")
    assert 'database "ghost" does not exist' in said["M"]


def test_any_database(proxy, pg):
    door = proxy(pg, {"*": f"host=127.0.0.1 port={pg.port}"})
    for name in ("shop", "postgres", "template1"):
        with door.connect(name) as c:
            assert c.execute("select current_database()").fetchone() == (name,)
        # as an operator of PgBouncer looks for it: once, and by its name
        with door.connect(name):
            pass
        said = f"registered new auto-database: db={name}"
        assert door.log().count(said + "\n") == 1
        assert f": {name}/alice@127.0.0.1:{pg.port} new connection to server" in door.log()


def test_database_defaults_to_user(proxy, pg):
    door = proxy(pg, {"alice": f"host=127.0.0.1 port={pg.port} dbname=shop"})
    from raw import Raw
    import pgproto as p
    with Raw(door.port) as r:
        r.send(p.startup({"user": "alice"}))
        assert r.until("ZE")[-1][0] == "Z"


@pytest.mark.parametrize("user", ["md5_user", "scram_user", "plain_user", "alice"])
def test_server_login(proxy, pg, user):
    """The proxy logs in with the client's own secret of auth_file."""
    door = proxy(pg)
    with door.connect(user=user) as c:
        assert c.execute("select current_user").fetchone() == (user,)


@pytest.mark.parametrize("user", ["md5_user", "scram_user", "plain_user"])
def test_server_login_wrong(proxy, pg, user):
    door = proxy(pg, secrets={user: "not it"}, query_wait_timeout=5)
    said, _ = refusal(door.port, user)
    assert f'password authentication failed for user "{user}"' in said["M"]


def test_server_login_md5_secret(proxy, pg):
    door = proxy(pg, auth_type="md5", secrets={"md5_user": pgproto.md5_secret("md5_user", "pw-md5_user")})
    with door.connect(user="md5_user", password="pw-md5_user") as c:
        assert c.execute("select current_user").fetchone() == ("md5_user",)


def test_forced_user(proxy, pg):
    """user= of the database: all clients share its pool, as that role."""
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop user=scram_user "
                      "password=pw-scram_user"}, pool_mode="transaction", default_pool_size=1)
    pids = set()
    for user in ("alice", "bob"):
        with door.connect(user=user) as c:
            assert c.execute("select current_user").fetchone() == ("scram_user",)
            pids.add(c.execute("select pg_backend_pid()").fetchone()[0])
    assert len(pids) == 1


def test_auth_any(proxy, pg):
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop user=forced"},
                 auth_type="any", auth_file=None)
    with door.connect(user="whoever", password="x") as c:
        assert c.execute("select current_user").fetchone() == ("forced",)


def test_other_dbname(proxy, pg):
    door = proxy(pg, {"nick": f"host=127.0.0.1 port={pg.port} dbname=shop"})
    with door.connect("nick") as c:
        assert c.execute("select current_database()").fetchone() == ("shop",)


def test_connect_query(proxy, pg):
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop "
                      "connect_query='set work_mem to ''9MB''; select 1'"})
    with door.connect() as c:
        assert c.execute("show work_mem").fetchone() == ("9MB",)


def test_unix_sockets(proxy, pg):
    """The proxy's own unix socket, and the server's."""
    import os
    import tempfile
    directory = tempfile.mkdtemp(prefix="pgweave-sock-", dir="/tmp")
    os.chmod(directory, 0o777)
    door = proxy(pg, {"shop": f"host={pg.socket_dir} port={pg.port} dbname=shop"},
                 unix_socket_dir=directory, pool_mode="transaction")
    path = os.path.join(directory, f".s.PGSQL.{door.port}")
    with psycopg.connect(host=directory, port=door.port, dbname="shop", user="alice",
                         autocommit=True) as c:
        assert c.execute("select inet_client_addr() is null").fetchone() == (True,)
        assert len(c.execute("select repeat('x', 5000000)").fetchone()[0]) == 5000000
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)
    assert door.stop() is None
    assert not os.path.exists(path), "the socket's file stays behind"
    os.rmdir(directory)


def test_startup_parameters(proxy, pg, only_pgweave):
    """Unknown parameters of the startup packet reach the server."""
    door = proxy(pg, pool_mode="transaction")
    said, _ = refusal(door.port, "alice", statement_timeout="4321", extra_float_digits="2")
    assert said is None
    from raw import Raw
    with Raw(door.port) as r:
        assert r.login("alice", "shop", statement_timeout="4321") is None
        assert r.query("show statement_timeout")[0] == [["4321ms"]]


def test_startup_parameter_wrong(proxy, pg, only_pgweave):
    """A parameter that the server refuses is an error for this client alone."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    from raw import Raw
    with Raw(door.port) as r:
        said = r.login("alice", "shop", no_such_parameter="1")
        if said is None:
            _, said = r.query("select 1")
        assert said and "no_such_parameter" in said["M"], said
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)
