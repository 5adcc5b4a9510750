"""ROTATE KEY: a new secret, and for a while the one before it; names that stand for keys."""
import os
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request

import psycopg
import pytest

import bank
from keys import console, create, door, issued, login, opens, refused, shown, start  # noqa: F401
from poll import until
from proxy import free_port, program


def rotate(door, row, overlap=None, **options):
    """The key with its new secret."""
    end = f" OVERLAP '{overlap}'" if overlap else ""
    new = issued(console(door, f"ROTATE KEY '{row['key']}'{end}", **options))
    assert new["key"] == row["key"] and new["secret"] != row["secret"]
    return new


def works(door, *rows):
    """In every worker."""
    for row in rows * 4:
        with login(door, row) as c:
            assert c.execute("select current_database()").fetchone() == ("bank_p",)


def stored(state, row):
    """The former secret and its end, as the store has them."""
    with sqlite3.connect(f"file:{state}/state.db?mode=ro", uri=True) as db:
        return db.execute("SELECT former_secret, former_until FROM key WHERE id = ?",
                          [row["key"]]).fetchone()


def test_both_secrets_work(door, state):
    old = create(door)
    with login(door, old) as c:
        new = rotate(door, old, "1 hour")
        works(door, old, new)
        assert shown(door, old)["status"] == "rotating"
        refused(door, dict(old, secret="0" * 48))
        assert c.execute("select 1").fetchone() == (1,)
    with open(os.path.join(state, "state.db"), "rb") as f, open(door.log_path, "rb") as log:
        for kept in (f.read(), log.read()):
            assert old["secret"].encode() not in kept and new["secret"].encode() not in kept
    assert "SCRAM" not in str(console(door, "SHOW KEYS"))


def test_the_overlap_ends(door, state):
    old = create(door)
    new = rotate(door, old, "2s")
    with login(door, old) as a, login(door, new) as b:
        assert None not in stored(state, old)
        until(lambda: not opens(door, old), 10, "the old secret is refused")
        until(lambda: stored(state, old) == (None, None), 5, "it is forgotten")
        until(lambda: shown(door, old)["status"] == "active", 5)
        works(door, new)
        assert [c.execute("select 1").fetchone() for c in (a, b)] == [(1,), (1,)]


def test_without_overlap_the_old_one_stops_at_once(door):
    old = create(door)
    with login(door, old) as c:
        for _ in range(5):
            new = rotate(door, old)
            for _ in range(4):
                refused(door, old)
            works(door, new)
            old = new
        assert c.execute("select 1").fetchone() == (1,)
        assert shown(door, old)["status"] == "active"


def test_several_in_a_row(door):
    """Two secrets work at most: the new one and the one before it."""
    rows = [create(door)]
    for _ in range(4):
        rows.append(rotate(door, rows[-1], "1h"))
        works(door, *rows[-2:])
        for row in rows[:-2]:
            refused(door, row)
    last = rotate(door, rows[-1])
    works(door, last)
    for row in rows:
        refused(door, row)


def test_at_the_same_time(door):
    """Whoever comes last wins, and each has been told the truth."""
    row, got = create(door), []

    def run():
        for _ in range(4):
            got.append(issued(console(door, f"ROTATE KEY '{row['key']}' OVERLAP '1h'")))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({g["secret"] for g in got}) == 16

    assert [opens(door, row), sum(opens(door, g) for g in got)] == [False, 2]


def test_outlives_a_restart(door, start, state):
    old, short = create(door), create(door)
    new, next_ = rotate(door, old, "1d"), rotate(door, short, "1s")
    assert door.stop() is None
    again = start()
    works(again, old, new, next_)
    until(lambda: not opens(again, short), 10)
    until(lambda: stored(state, short) == (None, None), 5)
    assert None not in stored(state, old)
    assert again.stop() is None
    last = start()
    works(last, old, new, next_)
    refused(last, short)


def test_another_proxy_on_the_same_store(start):
    """It sees within a second or so what the first one does, and the other way round."""
    a, b = start(), start()
    old = create(a)
    until(lambda: opens(b, old), 3)
    with login(b, old) as c:
        new = rotate(b, old, "1h")
        until(lambda: opens(a, new), 3)
        works(a, old)
        last = rotate(a, new)
        until(lambda: not opens(b, old) and not opens(b, new), 3)
        works(b, last)
        assert c.execute("select 1").fetchone() == (1,)
        console(a, f"REVOKE KEY '{old['key']}'")
        until(lambda: not opens(b, last), 3)
        with pytest.raises(psycopg.OperationalError, match="revoked"):
            c.execute("select 1")


def test_extended_protocol(door):
    old = create(door)
    works(door, old, rotate(door, old, "1h", prepare=True))


def test_revoked_with_both(door):
    old = create(door)
    new = rotate(door, old, "1h")
    console(door, f"REVOKE KEY '{old['key']}'")
    refused(door, old)
    refused(door, new)
    assert shown(door, old)["status"] == "revoked"


@pytest.mark.parametrize("sql,state,message", [
    ("ROTATE KEY 'vb_none'", "42704", 'there is no key "vb_none"'),
    ("ROTATE KEY 'gone'", "55000", "is revoked"),
    (f"ROTATE KEY '{list(bank.KEYS)[0]}'", "55000", "stands in the configuration file"),
    ("ROTATE KEY", "42601", "syntax error"),
    ("ROTATE KEY 'kept' OVERLAP", "42601", "syntax error"),
    ("ROTATE KEY 'kept' OVERLAP 'soon'", "22023", '"soon" is not a time'),
    ("ROTATE KEY 'kept' OVERLAP '2000 days'", "22023", "allowed are 0 to 31536000 s"),
    ("CREATE KEY 'kept' TYPE server VIRTUAL bank", "42710", 'there is a key "kept" already'),
])
def test_wrong(door, sql, state, message):
    kept = create(door, name="kept")
    create(door, name="gone")
    console(door, "REVOKE KEY gone")
    with pytest.raises(psycopg.Error) as e:
        console(door, sql)
    assert e.value.sqlstate == state
    assert message in e.value.diag.message_primary
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        console(door, "ROTATE KEY kept", user="stats")
    works(door, kept)


def test_names(door):
    """A name stands for the key that is not revoked, and is free again once it is."""
    first = create(door, name="it''s")
    second, = console(door, "ROTATE KEY 'it''s' OVERLAP '1h'")
    assert second["key"] == first["key"]
    works(door, first, second)
    assert console(door, "REVOKE KEY 'it''s'") == "REVOKE KEY"
    refused(door, second)
    third = create(door, name="it''s")
    assert console(door, "REVOKE KEY 'it''s'") == "REVOKE KEY"
    refused(door, third)
    assert [r["status"] for r in console(door, "SHOW KEYS") if r["name"] == "it's"] == ["revoked"] * 2


def test_a_name_of_the_file(proxy, made):
    """It is not given again, and is not taken for a key of the store."""
    name = f"[key {list(bank.KEYS)[0]}]"
    door = proxy(made, sections=bank.sections(made).replace(name, f"{name}\nname = filed"),
                 auth_type="scram-sha-256")
    for sql, code in (("CREATE KEY filed TYPE server VIRTUAL bank", "42710"),
                      ("ROTATE KEY filed", "55000"), ("REVOKE KEY filed", "55000")):
        with pytest.raises(psycopg.Error) as e:
            console(door, sql)
        assert e.value.sqlstate == code


# ---- the command line beside a proxy that runs ----

def command(door, *args):
    said = subprocess.run([program(), "key", *args], capture_output=True, text=True)
    assert (said.returncode == 0) == (said.stderr == "")
    return said


def test_command_line(door):
    old = create(door, name="by hand")
    said = command(door, "rotate", "--overlap", "1h", door.ini, "by hand")
    new = dict(x.split(": ") for x in said.stdout.splitlines())
    assert new["key"] == old["key"]
    until(lambda: opens(door, new), 5, "the proxy knows it")
    works(door, old, new)
    lines = [x.split("\t") for x in command(door, "list", door.ini).stdout.splitlines()]
    assert [x[-1] for x in lines if x[0] == old["key"]] == ["rotating"]
    said = command(door, "rotate", door.ini, old["key"])
    last = dict(x.split(": ") for x in said.stdout.splitlines())
    until(lambda: opens(door, last), 5, "the proxy knows it")
    refused(door, old)
    refused(door, new)
    said = command(door, "create", "--type", "client", "--virtual", "bank", "--name", "by hand", door.ini)
    assert (said.returncode, said.stdout) == (1, "")
    assert 'there is a key "by hand" already' in said.stderr
    assert command(door, "revoke", door.ini, "by hand").returncode == 0
    said = command(door, "rotate", door.ini, "by hand")
    assert (said.returncode, said.stdout) == (1, "") and "is revoked" in said.stderr
    said = command(door, "rotate", door.ini, list(bank.KEYS)[0])
    assert (said.returncode, said.stdout) == (1, "") and "stands in" in said.stderr
    until(lambda: not opens(door, last), 5)


def test_by_http(start):
    """The former secret opens the HTTP API as long as the wire; not a moment longer, although
    it was believed before."""
    port = free_port()
    door = start(http_listen=f"127.0.0.1:{port}")

    def status(row):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/database/query", b'{"query": "select 1"}',
            {"X-API-Key": row["key"], "X-API-Secret": row["secret"]})
        try:
            return urllib.request.urlopen(request, timeout=10).status
        except urllib.error.HTTPError as e:
            return e.code
    old = create(door)
    assert status(old) == 200
    new = rotate(door, old, "2s")
    assert (status(old), status(new), status(old)) == (200, 200, 200)
    until(lambda: status(old) == 401, 10, "the overlap is over")
    assert status(new) == 200
