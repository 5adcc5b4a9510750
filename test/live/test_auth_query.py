"""auth_query: secrets of logins that auth_file does not know, asked of a server; and every way in
which the answer can be wrong."""
import threading

import psycopg
import pytest

import pgproto
from poll import until
from raw import Raw, refusal

pytestmark = pytest.mark.usefixtures("only_pgweave")
KNOWN = {"admin": "pw-admin", "postgres": "not asked for"}


def door_of(proxy, pg, db="", **settings):
    given = dict(auth_type="scram-sha-256", auth_user="postgres", secrets=KNOWN,
                 pool_mode="transaction")
    given.update(settings)
    return proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop {db}"}, **given)


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain"])
def test_secrets_of_the_server(proxy, pg, auth_type):
    """Every kind of secret, and the login at the server with what the client has shown."""
    door = door_of(proxy, pg, auth_type=auth_type)
    users = ["alice", "scram_user", "plain_user"]
    if auth_type != "scram-sha-256":
        users.append("md5_user")
    for user in users:
        if user == "plain_user" and auth_type != "plain":
            # its server asks for the password in clear, which nobody has shown
            continue
        with door.connect(user=user) as c:
            assert c.execute("select current_user").fetchone() == (user,)
        said, _ = refusal(door.port, user, password="wrong")
        assert (said["S"], said["C"], said["M"]) == (
            "FATAL", "28P01", f'password authentication failed for user "{user}"')
    said, _ = refusal(door.port, "nobody", password="wrong")
    assert (said["C"], said["M"]) == ("28P01",
                                      'password authentication failed for user "nobody"')
    # auth_file comes first
    with door.console() as c:
        assert c.rows("SHOW VERSION")


def test_refusal_tells_nothing(proxy, pg):
    """An unknown login and a wrong password: the same messages in the same order."""
    door = door_of(proxy, pg)
    seen = []
    for user in ("alice", "nobody"):
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user=user, database="shop")))
            kinds = []
            scram = pgproto.ScramClient("wrong")
            while True:
                type_, fields, body = r.message()
                kinds.append((type_, body[:4] if type_ == "R" else fields["C"], len(body)
                              if type_ == "R" and body[3] == 10 else None))
                if type_ == "E":
                    break
                if body[3] == 10:
                    r.send(pgproto.sasl_initial("SCRAM-SHA-256", scram.first()))
                elif body[3] == 11:
                    r.send(pgproto.message("p", scram.final(body[4:])))
            seen.append(kinds)
    assert seen[0] == seen[1]


def test_new_passwords_hold_at_once(proxy, pg):
    """The secret is asked for at each login; links that are opened later use the new one."""
    with pg.connect() as d:
        d.execute("drop role if exists turncoat")
        d.execute("create role turncoat login password 'one'")
    door = door_of(proxy, pg)
    with door.connect(user="turncoat", password="one") as c:
        assert c.execute("select current_user").fetchone() == ("turncoat",)
        with pg.connect() as d:
            d.execute("alter role turncoat password 'two'")
        assert refusal(door.port, "turncoat", password="one")[0]["C"] == "28P01"
        with door.connect(user="turncoat", password="two") as c2:
            assert c2.execute("select 1").fetchone() == (1,)
        assert c.execute("select 1").fetchone() == (1,)
    with pg.connect() as d:
        d.execute("alter role turncoat password null")
    assert refusal(door.port, "turncoat", password="two")[0]["C"] == "28P01"
    with pg.connect() as d:
        d.execute("alter role turncoat nologin password 'two'")
    assert refusal(door.port, "turncoat", password="two")[0]["C"] == "28P01"
    with pg.connect() as d:
        d.execute("drop role turncoat")


@pytest.mark.parametrize("query,text", [
    ("select 1/0, $1::text", "error response from auth_query"),
    ("select nothing from nowhere where $1 = ''", "error response from auth_query"),
    ("select $1::text", "expected 2 columns from auth_query, not 1"),
    ("select $1::text, 'x', 'y'", "expected 2 columns from auth_query, not 3"),
    ("select $1::text, 'x' from generate_series(1, 2)",
     "auth_query returned more than one row"),
    ("select $1::text, 'x' from generate_series(1, 100000)",
     "auth_query returned more than one row"),
])
def test_wrong_answers(proxy, pg, query, text):
    door = door_of(proxy, pg, auth_query=query, default_pool_size=1)
    for _ in range(2):
        said, _ = refusal(door.port, "alice", password="pw-alice")
        assert (said["S"], said["C"], said["M"]) == ("FATAL", "58000", text)
    assert 'auth_query for "alice": ' + text in door.log()
    # the link is still good
    assert len([r for r in door.rows("SERVERS") if r["user"] == "postgres"]) == 1


@pytest.mark.parametrize("query", [
    "select $1::text, 'x' where false",
    "select null::text, $1::text",
    "select $1::text, null",
    "select 'somebody else', $1::text",
    "select $1::text, ''",
    "select $1::text, 'SCRAM-SHA-256$0:AAAA$x:y'",
])
def test_no_secret(proxy, pg, query):
    door = door_of(proxy, pg, auth_query=query)
    for password in ("", "x", "alice"):
        said, _ = refusal(door.port, "alice", password=password)
        assert (said["C"], said["M"]) == ("28P01",
                                          'password authentication failed for user "alice"')


def test_a_query_that_hangs(proxy, pg):
    """It ends with query_timeout, and does not keep others from logging in."""
    door = door_of(proxy, pg, query_timeout=1, default_pool_size=2,
                   auth_query="select $1::text, case when $1 = 'alice' then "
                   "pg_sleep(60)::text else 'pw' end")
    got = []
    thread = threading.Thread(
        target=lambda: got.append(refusal(door.port, "alice", password="x")[0]))
    thread.start()
    with door.connect(user="bob", password="pw") as c:
        assert c.execute("select 1").fetchone() == (1,)
    thread.join(15)
    assert (got[0]["C"], got[0]["M"]) == ("57014", "query timeout")
    with pg.connect() as d:
        until(lambda: d.execute("select count(*) from pg_stat_activity where query like "
                                "'%pg_sleep(60)%' and state = 'active' and pid <> "
                                "pg_backend_pid()").fetchone() == (0,), 10, "it is cancelled")


def test_clients_that_leave(proxy, pg):
    """Clients that vanish while the query runs or waits for a link leave nothing behind."""
    door = door_of(proxy, pg, default_pool_size=1, auth_query="select $1::text, "
                   "'pw' from (select pg_sleep(0.2)) s")
    for _ in range(6):
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user="bob", database="shop")))
    with door.connect(user="bob", password="pw") as c:
        assert c.execute("select 1").fetchone() == (1,)
    until(lambda: all(r["state"] == "idle" for r in door.rows("SERVERS")), 10, "links are idle")
    assert [r["cl_waiting"] for r in door.rows("POOLS") if r["user"] == "postgres"] == ["0"]


def test_the_server_is_down(proxy, own_pg):
    door = door_of(proxy, own_pg)
    assert refusal(door.port, "alice", password="pw-alice")[0] is None
    own_pg.kill()
    said, _ = refusal(door.port, "alice", password="pw-alice")
    assert said["S"] == "FATAL" and said["C"] != "28P01", said
    with door.console() as c:
        assert c.rows("SHOW VERSION")


def test_where_the_query_runs(proxy, pg):
    """auth_dbname, and what a database says of itself before what holds for all."""
    with pg.connect() as d:
        d.execute("drop database if exists registry with (force)")
        d.execute("create database registry")
    with pg.connect("registry") as d:
        d.execute("create table people (name text, secret text)")
        d.execute("insert into people values ('alice', 'from the registry'), ('bob', %s)",
                  [pgproto.scram_verifier("and a verifier")])
    at = f"host=127.0.0.1 port={pg.port}"
    door = proxy(pg, {"shop": f"{at} dbname=shop user=forced", "registry": f"{at}",
                      "own": f"{at} dbname=shop user=forced auth_query='select $1::text, "
                             "current_user::text' auth_user=stats auth_dbname=shop"},
                 auth_type="scram-sha-256", auth_user="postgres", auth_dbname="registry",
                 auth_query="select name, secret from people where name = $1", secrets=KNOWN)
    with door.connect(password="from the registry") as c:
        assert c.execute("select current_database(), current_user").fetchone() == ("shop", "forced")
    with door.connect(user="bob", password="and a verifier") as c:
        assert c.execute("select current_user").fetchone() == ("forced",)
    assert refusal(door.port, "alice", password="stats")[0]["C"] == "28P01"
    assert refusal(door.port, "alice", "own", password="stats")[0] is None
    assert refusal(door.port, "alice", "own", password="from the registry")[0]["C"] == "28P01"
    assert refusal(door.port, "alice", "nowhere", password="x")[0]["C"] == "28P01"
    # the console has no database of its own, but there is auth_dbname
    door2 = proxy(pg, {"shop": f"{at} dbname=shop user=forced", "registry": f"{at}"},
                  auth_type="scram-sha-256", auth_user="postgres", auth_dbname="registry",
                  admin_users="alice", secrets=KNOWN,
                  auth_query="select name, secret from people where name = $1")
    assert refusal(door2.port, "alice", "pgbouncer", password="from the registry")[0] is None
    assert refusal(door2.port, "alice", "pgbouncer", password="x")[0]["C"] == "28P01"
    for d in (door, door2):
        assert d.stop() is None
    with pg.connect() as d:
        d.execute("drop database registry with (force)")


def test_parameters_of_others_do_not_matter(proxy, pg):
    """What a client has set on a link that it shares with auth_query is not left there."""
    door = door_of(proxy, pg, default_pool_size=1, secrets=dict(KNOWN, postgres="pw"),
                   auth_query="select $1::text, current_setting('application_name')")
    with door.connect(user="postgres", password="pw") as c:
        c.execute("set application_name = 'evil'")
        assert refusal(door.port, "alice", password="evil")[0]["C"] == "28P01"


def test_logins_with_settings(proxy, pg):
    """What [users] and [login x] say of a login does not keep it from being asked for."""
    door = door_of(proxy, pg, users={"alice": "pool_size=1"},
                   sections="[login bob]\nread_only = yes\n")
    for user in ("alice", "bob"):
        assert refusal(door.port, user, password=f"pw-{user}")[0] is None
        assert refusal(door.port, user, password="wrong")[0]["C"] == "28P01"


def test_a_member_vouches_for_nobody(proxy, pg, own_pg):
    """Who has the login of that name at one member alone does not get into the others."""
    with own_pg.connect() as d:
        d.execute("alter role alice password 'of this member'")
    door = proxy(pg, {}, auth_type="scram-sha-256", auth_user="postgres", secrets=KNOWN,
                 sections=f"[database one]\nhost = 127.0.0.1\nport = {pg.port}\ndbname = shop\n"
                 f"[database two]\nhost = 127.0.0.1\nport = {own_pg.port}\ndbname = shop\n"
                 "[virtual v]\ndefault = one\nmembers = one, two\n")
    assert refusal(door.port, "alice", "v", password="pw-alice")[0] is None
    for database in ("v", "v.two", "v.one"):
        said, _ = refusal(door.port, "alice", database, password="of this member")
        assert said["C"] == "28P01"
    assert refusal(door.port, "alice", "two", password="of this member")[0] is None


def test_virtual_databases(proxy, pg):
    """The default member is asked, and all members are logged in to with what was shown."""
    at = f"host = 127.0.0.1\nport = {pg.port}\n"
    door = proxy(pg, {}, auth_type="scram-sha-256", auth_user="postgres", secrets=KNOWN,
                 sections=f"[database one]\n{at}dbname = shop\n[database two]\n{at}"
                 "dbname = postgres\n[virtual v]\ndefault = one\nmembers = one, two\n")
    with door.connect("v", user="scram_user") as c:
        assert c.execute("select current_user, current_database()").fetchone() == (
            "scram_user", "shop")
        c.execute("set pgweave.database = 'two'")
        assert c.execute("select current_user, current_database()").fetchone() == (
            "scram_user", "postgres")
    with door.connect("v.two", user="scram_user") as c:
        assert c.execute("select current_database()").fetchone() == ("postgres",)
    assert refusal(door.port, "scram_user", "v", password="wrong")[0]["C"] == "28P01"
    assert refusal(door.port, "nobody", "v", password="wrong")[0]["C"] == "28P01"


def test_strangers_leave_no_pools(proxy, pg):
    """With a * entry each name that a client makes up is a pool of auth_user, until its server has
    said no: few of them are remembered."""
    door = proxy(pg, {"*": f"host=127.0.0.1 port={pg.port}"}, auth_type="scram-sha-256",
                 auth_user="postgres", secrets=KNOWN, workers=1, server_login_retry=60)

    def come(n):
        for i in range(n, 100, 4):
            said, _ = refusal(door.port, "alice", password="x", database=f"madeup{i}")
            assert said["C"] in ("28P01", "3D000"), said
    crowd = [threading.Thread(target=come, args=(n,)) for n in range(4)]
    for t in crowd:
        t.start()
    for t in crowd:
        t.join()
    count = lambda: sum(r["database"].startswith("madeup") for r in door.rows("POOLS"))  # noqa: E731
    until(lambda: count() <= 64, 5, "they are forgotten")
    assert count() > 0
    # Those that there are go on.
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)
