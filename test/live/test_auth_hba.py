"""auth_type = hba and peer: lines of auth_hba_file, unix users, reloads, keys, and HTTP."""
import base64
import json
import os
import pwd
import subprocess
import tempfile
import urllib.error
import urllib.request

import psycopg
import pytest

import bank
from poll import until
from proxy import free_port, program
from raw import Raw, refusal

pytestmark = pytest.mark.usefixtures("only_pgweave")
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def rules():
    """rules(text, name): a file of rules of its own directory."""
    with tempfile.TemporaryDirectory(prefix="pgweave-hba-") as d:
        os.chmod(d, 0o777)

        def write(text, name="hba.conf"):
            path = os.path.join(d, name)
            with open(path + ".new", "w") as f:
                f.write(text)
            os.replace(path + ".new", path)
            return path
        write.dir = d
        yield write


def test_the_first_line_decides(proxy, pg, rules):
    hba = rules("host shop bob 127.0.0.1/32 reject\n"
                "host shop alice 127.0.0.1/32 trust\n"
                "host shop md5_user samehost md5\n"
                "host sameuser stats all trust\n"
                "host shop plain_user 10.0.0.0/8 trust\n"
                "host pgbouncer admin all scram-sha-256\n")
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop",
                      "stats": f"host=127.0.0.1 port={pg.port} dbname=shop"},
                 auth_type="hba", auth_hba_file=hba)
    with door.connect(password="not asked for") as c:
        assert c.execute("select current_user").fetchone() == ("alice",)
    assert refusal(door.port, "md5_user", password="pw-md5_user")[0] is None
    assert refusal(door.port, "md5_user", password="wrong")[0]["C"] == "28P01"
    said, _ = refusal(door.port, "bob", password="pw-bob")
    assert (said["S"], said["C"], said["M"]) == (
        "FATAL", "28000", 'pg_hba.conf rejects connection for host "127.0.0.1", user "bob", '
        'database "shop", no encryption')
    for user, database in (("plain_user", "shop"), ("alice", "stats"), ("nobody", "nowhere")):
        said, _ = refusal(door.port, user, database, password="x")
        assert (said["S"], said["C"], said["M"]) == (
            "FATAL", "28000", f'no pg_hba.conf entry for host "127.0.0.1", user "{user}", '
            f'database "{database}", no encryption')
    assert refusal(door.port, "stats", "stats")[0] is None
    # trust is for logins that there are
    rules("host all all all trust\n")
    door.reload()
    until(lambda: refusal(door.port, "bob")[0] is None, 10, "the new lines hold")
    nobody = refusal(door.port, "nobody")[0]
    assert (nobody["C"], nobody["M"]) == (
        "28000", '"trust" authentication failed for user "nobody"')
    assert "login rejected" in door.log()
    assert door.rows("CONFIG", user="admin")


def test_who_is_called_a_walsender(proxy, pg, rules):
    """Lines of replication are for nobody who gets an ordinary session, or the console."""
    hba = rules("host replication all all trust\nhost all all all scram-sha-256\n")
    door = proxy(pg, auth_type="hba", auth_hba_file=hba, ignore_startup_parameters="replication")
    for user, database in (("alice", "shop"), ("admin", "pgbouncer"), ("admin", "pgweave")):
        with Raw(door.port) as r:
            assert r.login(user, database, "wrong", replication="true")["C"] == "28P01"
    door = proxy(pg, auth_type="hba", auth_hba_file=hba)
    with Raw(door.port) as r:
        # let in, and the server has the last word
        assert "max_wal_senders" in r.login("alice", "shop", "wrong", replication="true")["M"]
    with Raw(door.port) as r:
        assert r.login("admin", "pgbouncer", "wrong", replication="true")["C"] == "28P01"


def test_settings_make_no_login(proxy, pg, rules):
    """Who is named in [users] or [login x] alone is no login."""
    hba = rules("host all all all trust\n")
    for settings in ({"auth_type": "trust"}, {"auth_type": "hba", "auth_hba_file": hba}):
        door = proxy(pg, users={"bob": "pool_size=1"}, secrets={"alice": "x"},
                     sections="[login stats]\nread_only = yes\n", **settings)
        assert refusal(door.port, "alice")[0] is None
        for user in ("bob", "stats"):
            assert refusal(door.port, user)[0]["C"] == "28000"


def test_broken_lines(proxy, pg, rules):
    hba = rules("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    door = proxy(pg, auth_type="hba", auth_hba_file=hba)
    assert refusal(door.port, "alice")[0] is None
    rules("local all all trust\n\nhost all +staff all md5\nhost all all db.local md5\n")
    door.reload()
    until(lambda: "reload failed" in door.log() or "hba.conf:4" in door.log(), 10, "it is said")
    assert f"{hba}:3: +staff is not supported" in door.log()
    assert f'{hba}:4: "db.local" is no address' in door.log()
    assert refusal(door.port, "alice")[0] is None
    # check says the same and fails; a start does, too
    done = subprocess.run([program(), "check", door.ini], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{hba}:3: +staff is not supported" in done.stdout
    done = subprocess.run([program(), door.ini], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and f"{hba}:4:" in done.stderr
    rules("host all all 127.0.0.1/32 md5\n")
    door.reload()
    until(lambda: refusal(door.port, "alice")[0] is not None, 10, "md5 is asked for")
    assert refusal(door.port, "alice", password="pw-alice")[0] is None


def test_set_needs_the_file(proxy, pg):
    door = proxy(pg)
    with door.console() as c:
        with pytest.raises(psycopg.Error, match="auth_hba_file has not been read"):
            c.command("SET auth_type = 'hba'")


# ---- unix users ----

def by_socket(door, directory, user, **options):
    # it listens there a little later than on its port
    until(lambda: "process up" in door.log(), 10, "it listens on its socket")
    with psycopg.connect(host=directory, port=door.port, dbname="shop", user=user,
                         autocommit=True, **options) as c:
        return c.execute("select current_user").fetchone()[0]


def test_peer_everywhere(proxy, pg, rules):
    """auth_type = peer: the unix user's own name, over the unix socket alone."""
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={pg.port} dbname=shop user=forced"},
                 auth_type="peer", unix_socket_dir=rules.dir, secrets={ME: "x", "alice": "x"})
    assert by_socket(door, rules.dir, ME) == "forced"
    with pytest.raises(psycopg.OperationalError,
                       match='FATAL:  Peer authentication failed for user "alice"'):
        by_socket(door, rules.dir, "alice")
    said, _ = refusal(door.port, ME)
    assert (said["C"], said["M"]) == ("28000", f'Peer authentication failed for user "{ME}"')
    assert f'unix socket login rejected: unix user "{ME}"' in door.log()


def test_peer_with_a_map(proxy, pg, rules):
    hba = rules("local shop all peer map=us\nlocal pgbouncer all ident map=us\n"
                "host all all all scram-sha-256\n")
    ident = rules(f"us {ME} alice\nus /^(.).*$ \\1ob\nus {ME} admin\n", "ident.conf")
    door = proxy(pg, auth_type="hba", auth_hba_file=hba, auth_ident_file=ident,
                 unix_socket_dir=rules.dir)
    assert by_socket(door, rules.dir, "alice") == "alice"
    for user in ("stats", "nobody", ME):
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            by_socket(door, rules.dir, user)
    with psycopg.ClientCursor(psycopg.connect(host=rules.dir, port=door.port, dbname="pgbouncer",
                                              user="admin", autocommit=True)) as c:
        c.execute("SHOW VERSION")
    assert door.connect().execute("select 1").fetchone() == (1,)


# ---- keys and virtual databases ----

@pytest.fixture(scope="module")
def shop_bank(pg):
    bank.create(pg)
    return pg


def test_keys_obey_lines(proxy, shop_bank, rules):
    """A line may refuse a key; whatever else it says, the key proves its secret. A member is
    reached by the lines of its virtual database."""
    client, server = bank.key(3), bank.key(4)
    hba = rules(f"host bank {server['user']} all reject\n"
                "host bank alice all reject\nhost all all all trust\n")
    door = proxy(shop_bank, {}, auth_type="hba", auth_hba_file=hba,
                 sections=bank.sections(shop_bank))
    with door.connect("bank", **client) as c:
        assert c.execute("select 1").fetchone() == (1,)
    said, _ = refusal(door.port, client["user"], "bank", password="wrong")
    assert said["C"] == "28P01"
    for database in ("bank", "bank.analytics"):
        for user in (server["user"], "alice"):
            said, _ = refusal(door.port, user, database, password=server["password"])
            assert said["C"] == "28000" and "rejects connection" in said["M"], said
    assert refusal(door.port, "bob", "bank.analytics")[0] is None
    assert refusal(door.port, "alice", "primary")[0] is None


def test_a_database_named_as_a_member(proxy, shop_bank, rules):
    """Lines of a virtual database are not for a database that is called as one of its members."""
    hba = rules("host bank all all trust\nhost all all all scram-sha-256\n")
    door = proxy(shop_bank, {"bank.x": f"host=127.0.0.1 port={shop_bank.port} dbname=shop"},
                 auth_type="hba", auth_hba_file=hba, sections=bank.sections(shop_bank))
    assert refusal(door.port, "alice", "bank.x", password="wrong")[0]["C"] == "28P01"
    assert refusal(door.port, "alice", "bank.primary", password="wrong")[0] is None


@pytest.mark.parametrize("auth_type", ["trust", "peer"])
def test_http_obeys_auth_type(proxy, shop_bank, rules, auth_type):
    """A password is no proof of a unix user, over HTTP neither; keys prove their secret."""
    port, key = free_port(), bank.key(3)
    door = proxy(shop_bank, {}, auth_type=auth_type, sections=bank.sections(shop_bank),
                 unix_socket_dir=rules.dir, http_listen=f"127.0.0.1:{port}")
    assert door.is_running()

    def ask(user, password):
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        r = urllib.request.Request(f"http://127.0.0.1:{port}/api/database/info", headers={
            "Authorization": "Basic " + basic, "X-Database": "bank"})
        try:
            with urllib.request.urlopen(r, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code
    assert ask(**key) == 200
    assert ask("alice", "pw-alice") == (200 if auth_type == "trust" else 401)


def test_http_obeys_lines_of_the_path(proxy, shop_bank, rules):
    """A database that the path names, and not the header."""
    hba = rules("host secondary alice all reject\nhost all all all scram-sha-256\n")
    port = free_port()
    door = proxy(shop_bank, {}, auth_type="hba", auth_hba_file=hba,
                 sections=bank.sections(shop_bank), http_listen=f"127.0.0.1:{port}")
    assert door.is_running()

    def ask(database, said=None):
        basic = base64.b64encode(b"alice:pw-alice").decode()
        headers = {"Authorization": "Basic " + basic, "Content-Type": "application/json"}
        if said:
            headers["X-Database"] = said
        r = urllib.request.Request(f"http://127.0.0.1:{port}/database/{database}/execute",
                                   json.dumps({"query": "select 1 as one"}).encode(), headers)
        try:
            with urllib.request.urlopen(r, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code
    assert ask("analytics") == 200
    assert ask("secondary") == 401
    assert ask("secondary", "analytics") == 401


def test_http_obeys_lines(proxy, shop_bank, rules):
    hba = rules("host all bob all reject\nhost bank alice all trust\n"
                "host all admin all scram-sha-256\n")
    port = free_port()
    door = proxy(shop_bank, {}, auth_type="hba", auth_hba_file=hba,
                 sections=bank.sections(shop_bank), http_listen=f"127.0.0.1:{port}")
    assert door.is_running()

    def ask(user, secret, database):
        basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
        r = urllib.request.Request(f"http://127.0.0.1:{port}/api/database/info", headers={
            "Authorization": "Basic " + basic, "X-Database": database})
        try:
            with urllib.request.urlopen(r, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code
    assert ask("alice", "pw-alice", "bank") == 200
    assert ask("alice", "wrong", "bank") == 401
    assert ask("bob", "pw-bob", "bank") == 401
    assert ask("stats", "pw-stats", "bank") == 401
