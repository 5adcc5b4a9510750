"""API keys as logins: where their statements go, what they may not do."""
import psycopg
import pytest

import bank


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    return module_proxy(pg, sections=bank.sections(pg), auth_type="scram-sha-256")


def connect(door, n, dbname="bank", **change):
    return door.connect(dbname, **dict(bank.key(n), **change))


def where(c, sql="select current_database()"):
    return c.execute(sql).fetchone()[0]


def test_lands(door):
    for n, database in ((1, "bank_s"), (2, "bank_p"), (3, "bank_p"), (4, "bank_p")):
        with connect(door, n) as c:
            assert where(c) == database
            assert where(c, "select current_database() from users limit 1") == database
    with connect(door, 4) as c:
        assert where(c, "/* pgweave: database=analytics */ select current_database()") == "bank_a"
        assert c.execute("select count(*) from analytics_events").fetchone() == (0,)
    with connect(door, 5, "shelf") as c:
        assert where(c) == "bank_a"


@pytest.mark.parametrize("n,sql", [
    (1, "set pgweave.database = 'primary'"), (1, "/* pgweave: database=primary */ select 1"),
    (1, "select * from accounts where user_id = 42"), (1, "select * from analytics_events"),
    (3, "select * from analytics_events"), (3, "set pgweave.database = 'analytics'"),
    (3, "select * from accounts where user_id = 41"),
    (3, "/* pgweave: databases=all */ select count(*) from users"),
    (4, "/* pgweave: database=secondary */ select 1"), (4, "select * from accounts where user_id = 41"),
])
@pytest.mark.parametrize("client_side", [False, True])
def test_forbidden(door, n, sql, client_side):
    with connect(door, n) as c:
        cur = psycopg.ClientCursor(c) if client_side else c.cursor()
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as e:
            cur.execute(sql)
            cur.execute("select 1")
        assert "key" in str(e.value)
        c.execute("reset pgweave.database")
        assert c.execute("select 1").fetchone() == (1,)


def test_federates_over_its_members(door):
    with connect(door, 4) as c:
        c.execute("set pgweave.federation = 'tag'")
        c.execute("set pgweave.databases = 'all'")
        assert c.execute("select count(*) from users").fetchall() == [("primary", 60), ("analytics", 0)]


def test_other_databases(door):
    for name in ("shelf", "shelf.unset", "shop"):
        with pytest.raises(psycopg.OperationalError) as e:
            connect(door, 1, name)
        assert "may not connect" in str(e.value)
    for name in ("pgweave", "pgbouncer"):
        with pytest.raises(psycopg.OperationalError):
            connect(door, 1, name)
    with pytest.raises(psycopg.OperationalError):
        connect(door, 4, "bank.secondary")
    with connect(door, 4, "bank.analytics") as c:
        assert where(c) == "bank_a"


@pytest.mark.parametrize("change", [
    {"password": "x"}, {"password": "a" * 47 + "b"}, {"user": "vb_" + "9" * 32},
    {"password": list(bank.KEYS.values())[1]}])
def test_wrong(door, change):
    with pytest.raises(psycopg.OperationalError) as e:
        connect(door, 1, **change)
    user = change.get("user", bank.key(1)["user"])
    assert f'password authentication failed for user "{user}"' in str(e.value)


def test_trust_does_not_open_keys(proxy, pg):
    door = proxy(pg, sections=bank.sections(pg), auth_type="trust")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(door, 1, password="wrong")
    with connect(door, 2) as c:
        assert where(c) == "bank_p"


def test_limits(proxy, pg):
    key, secret = "vb_" + "a" * 32, "f" * 48
    text = bank.sections(pg, f"\n[key {key}]\nsecret = {bank.verifier(secret)}\ntype = server\n"
                             "virtual = bank\nrate = 5/s\nread_only = yes\n"
                             "networks = 127.0.0.0/8\n")
    text += (f"\n[key {key[:-1]}b]\nsecret = {bank.verifier(secret)}\ntype = server\nvirtual = bank\n"
             "networks = 10.0.0.0/8\n")
    text += (f"\n[key {key[:-1]}c]\nsecret = {bank.verifier(secret)}\ntype = server\nvirtual = bank\n"
             "expires = 2020-01-01\n")
    door = proxy(pg, sections=text, auth_type="scram-sha-256")
    for last in "bc":
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            door.connect("bank", user=key[:-1] + last, password=secret)
    assert "network" in door.log() and "expired" in door.log()
    with door.connect("bank", user=key, password=secret) as c:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            c.execute("delete from users")
        with pytest.raises(psycopg.Error) as e:
            for _ in range(20):
                c.execute("select 1")
        assert e.value.sqlstate == "53400" and "Retry in" in e.value.diag.message_detail
