"""What a key or a [login] section says of those who log in: roles, networks, expiry, limits."""
import datetime
import os
import socket
import subprocess
import time

import psycopg
import pytest

import bank
from keys import create, login, opens, refused, shown
from poll import until
from proxy import program

SERVER = "TYPE server VIRTUAL bank"


@pytest.fixture(scope="module")
def base(made):
    with made.connect("bank_p", user="alice") as c:
        c.execute("create table of_bob (n int)")
        c.execute("grant all on of_bob to bob")
    return made


@pytest.fixture(scope="module")
def door(module_proxy, base):
    return module_proxy(base, sections=bank.sections(base), auth_type="scram-sha-256", workers=2,
                        default_pool_size=6)


@pytest.fixture
def rules(proxy, base):
    """A proxy with [login alice], and [login admin], of these words."""
    def start(words, auth_type="scram-sha-256", **settings):
        text = bank.sections(base) + "".join(f"\n[login {n}]\n{words}\n" for n in ("alice", "admin"))
        return proxy(base, sections=text, auth_type=auth_type, **settings)
    return start


def soon(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%d %H:%M:%S.%f+00")


def fails(c, sql, sqlstate):
    with pytest.raises(psycopg.Error) as e:
        c.execute(sql)
    assert e.value.sqlstate == sqlstate
    return e.value.diag


def who(c, member):
    return c.execute(f"/* pgweave: database={member} */ select current_user").fetchone()[0]


# ---- roles ----

def test_role_of_each_database(door):
    """Where it names none, the database's user; what the role may not do, PostgreSQL says."""
    row = create(door, f"{SERVER} ROLE primary bob ROLE secondary scram_user")
    with login(door, row) as c, login(door, create(door)) as other:
        for _ in range(2):
            assert [who(c, m) for m in bank.MEMBERS] == ["bob", "scram_user", "alice"]
            assert [who(other, m) for m in bank.MEMBERS] == ["alice"] * 3
        c.execute("insert into of_bob values (1)")
        fails(c, "select * from users", "42501")
        assert other.execute("select count(*) from of_bob").fetchone()[0] > 0
        with c.transaction():
            assert who(c, "primary") == "bob"


# ---- networks ----

def test_networks(door):
    for networks, is_inside in (("10.0.0.0/8", False), ("127.0.0.1", True), ("::1, 127.0.0.0/8", True),
                                ("local", False)):
        assert opens(door, create(door, f"{SERVER} NETWORKS '{networks}'")) == is_inside
    assert "barred: network" in door.log()


def test_networks_of_a_unix_socket(proxy, base, tmp_path):
    tmp_path.chmod(0o755)
    door = proxy(base, sections=bank.sections(base), auth_type="scram-sha-256",
                 unix_socket_dir=str(tmp_path))
    inside, outside = (create(door, f"{SERVER} NETWORKS '{n}'") for n in ("local", "127.0.0.1"))
    dsn = dict(host=str(tmp_path), port=door.port, dbname="bank")
    psycopg.connect(**dsn, user=inside["key"], password=inside["secret"]).close()
    refused(door, inside)
    login(door, outside).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**dsn, user=outside["key"], password=outside["secret"])


# ---- expiry ----

def ended(c, door):
    """The proxy has said that it is over. Who speaks at that very moment may not hear why."""
    try:
        c.execute("select 1")
    except psycopg.Error as e:
        why = "the key was revoked, or may not log in"
        assert c.closed and (why in str(e) or why in door.log())
        return True
    return False


def test_expires_while_it_is_open(door):
    """An idle session ends at once, one in a transaction behind that."""
    row = create(door, f"{SERVER} EXPIRES '{soon(3)}'")
    with login(door, row) as idle, login(door, row) as busy, login(door, create(door)) as other:
        idle.execute("select 1")
        busy.execute("begin")
        busy.execute("insert into of_bob values (2)")
        until(lambda: shown(door, row)["status"] == "expired", 10)
        refused(door, row)
        until(lambda: ended(idle, door), 5, "the idle one ends")
        assert busy.execute("select count(*) from of_bob where n = 2").fetchone() == (1,)
        busy.execute("commit")
        until(lambda: ended(busy, door), 5, "the other one ends")
        assert other.execute("select count(*) from of_bob where n = 2").fetchone() == (1,)


def test_a_key_of_the_file_expires_while_it_is_open(proxy, base):
    name = f"[key {bank.key(4)['user']}]"
    text = bank.sections(base).replace(name, f"{name}\nexpires = {soon(4)}")
    door = proxy(base, sections=text, auth_type="scram-sha-256")
    with door.connect("bank", **bank.key(4)) as c, door.connect("bank", **bank.key(2)) as other:
        until(lambda: ended(c, door), 12, "it ends")
        assert other.execute("select 1").fetchone() == (1,)


# ---- limits ----

def test_rate(door):
    """A bucket of five that fills by five a second, over all sessions; the error says when."""
    row = create(door, f"{SERVER} RATE '5/s'")
    with login(door, row) as a, login(door, row) as b:
        begun = time.monotonic()
        done = 0
        while time.monotonic() < begun + 2:
            try:
                (a, b)[done % 2].execute("select 1")
                done += 1
            except psycopg.Error as e:
                assert e.sqlstate == "53400" and "rate limit" in str(e)
                said = e.diag.message_detail
                assert said.startswith("Retry in ") and 0 < float(said.split()[2]) <= 0.25
                time.sleep(float(said.split()[2]))
        spent = time.monotonic() - begun
        assert 5 + 5 * 1 <= done <= 5 + 5 * spent + 1
        until(lambda: a.execute("select 1"), 5)
    with login(door, create(door)) as free:
        for _ in range(50):
            free.execute("select 1")


def is_full(c):
    """Whether statements of the key or login under way leave no room for one of c."""
    try:
        c.execute("select 1")
    except psycopg.Error as e:
        return e.sqlstate == "53400" and "concurrency limit" in str(e) and e.diag.message_detail
    return False


def sleep_in(pg, *sessions):
    """Each runs a statement that does not end; returns when all of them do."""
    with pg.connect("bank_p") as p:
        sql = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'"
        before = p.execute(sql).fetchone()[0]
        for c in sessions:
            c.pgconn.send_query(b"select pg_sleep(60)")
        until(lambda: p.execute(sql).fetchone()[0] == before + len(sessions), 10)


def wake(c):
    c.cancel()
    while c.pgconn.get_result() is not None:
        pass


def test_concurrency(door, base):
    """A slot comes back when its statement ends, and when its session goes away during one."""
    row = create(door, f"{SERVER} CONCURRENCY 2")
    with login(door, row) as a, login(door, row) as b, login(door, row) as c:
        sleep_in(base, a, b)
        assert is_full(c)
        wake(a)
        assert c.execute("select 1").fetchone() == (1,)
        sleep_in(base, a)
        assert is_full(c)
        with socket.socket(fileno=os.dup(a.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)
        until(lambda: not is_full(c), 5)
        wake(b)
        a.close()
        assert [x.execute("select 1").fetchone() for x in (b, c)] == [(1,), (1,)]


# ---- rules of a login ----

@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain", "trust", "any"])
@pytest.mark.parametrize("words,reason", [("networks = 10.0.0.0/8", "network"),
                                          ("expires = 2020-01-01", "expired")])
def test_a_barred_login(rules, auth_type, words, reason):
    """As with a wrong password or an unknown name, on any database; others are let in."""
    door = rules(words, auth_type)
    for name, database in (("alice", "bank"), ("alice", "shop"), ("admin", "pgweave")):
        with pytest.raises(psycopg.OperationalError) as e:
            door.connect(database, name)
        what = '"trust"' if auth_type == "trust" else "password"
        assert f'{what} authentication failed for user "{name}"' in str(e.value)
    assert f": barred: {reason}" in door.log()
    door.connect("bank", "bob").close()


def test_words_of_a_login(rules, base):
    door = rules("networks = 127.0.0.0/8\nexpires = 2099-01-01\nvirtual = bank\n"
                 "databases = primary, analytics\nfederate = no\nread_only = yes\n"
                 "roles = primary bob\nconcurrency = 1")
    with door.connect("bank") as c:
        assert (who(c, "primary"), who(c, "analytics")) == ("bob", "alice")
        fails(c, "/* pgweave: database=secondary */ select 1", "42501")
        fails(c, "/* pgweave: databases=all */ select count(*) from users", "42501")
        fails(c, "insert into of_bob values (3)", "25006")
        with door.connect("bank") as other:
            sleep_in(base, c)
            assert is_full(other)
            wake(c)
    with pytest.raises(psycopg.OperationalError, match='login "alice" may not connect'):
        door.connect("shelf")
    with door.connect("bank", "bob") as c:
        assert who(c, "secondary") == "alice"


def test_rate_and_type_of_a_login(rules):
    door = rules("type = client\nrate = 3/h")
    with door.connect("bank") as c:
        fails(c, "/* pgweave: database=analytics */ select 1", "42501")
        for _ in range(10):
            try:
                c.execute("select 1")
            except psycopg.Error as e:
                assert e.sqlstate == "53400" and "Retry in" in e.diag.message_detail
                break
        else:
            pytest.fail("no limit")


def test_a_login_expires_while_others_stay(rules):
    door = rules(f"expires = {soon(4)}")
    with door.connect("bank", "bob") as other:
        door.connect("bank").close()

        def is_barred():
            try:
                return door.connect("bank").close()
            except psycopg.OperationalError as e:
                return "password authentication failed" in str(e)

        until(is_barred, 12)
        assert other.execute("select 1").fetchone() == (1,)


# ---- what `check` says of them ----

def test_check(only_pgweave, base, tmp_path):
    ini = tmp_path / "x.ini"
    section = (f"secret = {bank.verifier('s')}\ntype = client\nvirtual = bank\nname = twice\n")
    ini.write_text("[pgweave]\nlisten_addr = 127.0.0.1\nauth_type = trust\n" + bank.sections(base) +
                   "".join(f"[key vb_{c * 32}]\n{section}" for c in "ab"))
    said = subprocess.run([program(), "check", str(ini)], capture_output=True, text=True)
    assert said.returncode == 0
    assert 'is called "twice", too' in said.stdout
