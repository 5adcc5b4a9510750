"""API keys made while the proxy runs: CREATE KEY, REVOKE KEY, SHOW KEYS, the state store behind
them, and `pgweave key` beside it."""
import os
import re
import subprocess

import psycopg
import pytest

import bank
from keys import console, create, door, login, refused, start  # noqa: F401
from poll import until
from proxy import program

COLUMNS = ("key name type virtual databases rights user_id read_only networks rate expires created "
           "last_used status")


def status(door):
    return {r["key"]: r["status"] for r in console(door, "SHOW KEYS")
            if r["name"].startswith("test")}


def command(door, *args):
    return subprocess.run([program(), "key", *args, door.ini], capture_output=True, text=True)


def log(door):
    with open(door.log_path) as f:
        return f.read()


def test_works_at_once_and_stops_at_once(door):
    row = create(door)
    with login(door, row) as c:
        assert c.execute("select current_database()").fetchone() == ("bank_p",)
        wrong = dict(row, secret="0" * 48)
        refused(door, wrong)
        assert console(door, f"REVOKE KEY '{row['key']}'") == "REVOKE KEY"
        refused(door, row)
        with pytest.raises(psycopg.OperationalError, match="revoked"):
            c.execute("select 1")
    assert console(door, f"REVOKE KEY '{row['key']}'") == "REVOKE KEY"
    assert status(door) == {row["key"]: "revoked"}


def test_many_workers_know_it(start):
    door = start(workers=4)
    for _ in range(10):
        row = create(door)
        with login(door, row) as a, login(door, row) as b, login(door, row) as c:
            assert [x.execute("select 1").fetchone() for x in (a, b, c)] == [(1,)] * 3
        console(door, f"REVOKE KEY '{row['key']}'")
        for _ in range(3):
            refused(door, row)


def test_types(door):
    for user, where in ((41, "bank_s"), (42, "bank_p")):
        with login(door, create(door, f"TYPE database USER {user} VIRTUAL bank")) as c:
            assert c.execute("select current_database()").fetchone() == (where,)
    with login(door, create(door, "TYPE server DATABASES (analytics, primary) VIRTUAL bank")) as c:
        assert c.execute("/* pgweave: database=analytics */ select current_database()"
                         ).fetchone() == ("bank_a",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            c.execute("/* pgweave: database=secondary */ select 1")


def test_outlives_reload_set_and_restart(door, start, state):
    row = create(door, name="it''s \u20ac")
    console(door, "RELOAD")
    login(door, row).close()
    console(door, "SET server_idle_timeout = 100")
    login(door, row).close()
    gone = create(door)
    console(door, f"REVOKE KEY '{gone['key']}'")
    assert door.stop() is None
    again = start()
    login(again, row).close()
    refused(again, gone)
    assert {r["name"] for r in console(again, "SHOW KEYS") if r["key"] == row["key"]} == {"it's \u20ac"}
    files = os.listdir(state)
    assert "state.db" in files
    assert all(os.stat(os.path.join(state, f)).st_mode & 0o777 == 0o600 for f in files)
    assert os.stat(state).st_mode & 0o777 == 0o700


def test_show(door):
    row = create(door, "TYPE server VIRTUAL bank DATABASES (primary, analytics) FEDERATE REPLICATE "
                 "OPERATE READ ONLY EXPIRES '2099-01-01' NETWORKS '10.0.0.0/8, 127.0.0.1/32' "
                 "RATE '100/s' CONCURRENCY 20 ROLE primary alice ROLE analytics alice", name="shown")
    create(door, "TYPE client VIRTUAL bank EXPIRES '2001-01-01'", name="old")
    login(door, row).close()
    rows = console(door, "SHOW KEYS", user="stats")
    assert list(rows[0]) == COLUMNS.split()
    assert len(rows) == len(bank.KEYS) + 2
    r, = [r for r in rows if r["key"] == row["key"]]
    assert (r["name"], r["type"], r["virtual"], r["databases"], r["rights"]) == (
        "shown", "server", "bank", "primary, analytics", "federate, replicate, operate")
    assert (r["user_id"], r["read_only"], r["networks"], r["rate"], r["status"]) == (
        None, True, "10.0.0.0/8, 127.0.0.1/32", "100/s", "active")
    assert (r["expires"].year, r["created"] > r["expires"]) == (2099, False)
    assert [r["status"] for r in rows if r["name"] == "old"] == ["expired"]
    for rows in (rows, console(door, "SHOW KEYS", prepare=True)):
        assert "SCRAM" not in str(rows) and row["secret"] not in str(rows)
    assert len(console(door, f"SHOW KEYS {row['key']}")) == 1


def test_secrets_are_not_logged(start, state):
    door = start(verbose=3)
    row = create(door, name="the name")
    login(door, row).close()
    assert row["secret"] not in log(door) and "SCRAM-SHA-256$" not in log(door)
    assert "CREATE KEY 'the name' TYPE server VIRTUAL bank command issued" in log(door)
    with open(os.path.join(state, "state.db"), "rb") as f:
        kept = f.read()
    assert row["secret"].encode() not in kept


def test_extended_protocol(door):
    row = create(door, prepare=True)
    login(door, row).close()
    assert console(door, f"REVOKE KEY '{row['key']}'", prepare=True) == "REVOKE KEY"


@pytest.mark.parametrize("sql,state,message", [
    ("CREATE KEY 'x' TYPE server VIRTUAL bonk", "22023", 'there is no virtual database "bonk"'),
    ("CREATE KEY 'x' TYPE server", "22023", "virtual: missing"),
    ("CREATE KEY 'x' TYPE database VIRTUAL bank", "22023", "user_id: missing"),
    ("CREATE KEY 'x' TYPE nonsense VIRTUAL bank", "22023", '"nonsense" is none of the words'),
    ("CREATE KEY 'x' TYPE server VIRTUAL bank DATABASES (unset)", "22023", 'there is no member "unset"'),
    ("CREATE KEY 'x' TYPE server VIRTUAL bank RATE often", "22023", '"often" is not a rate'),
    ("CREATE KEY 'x' TYPE server VIRTUAL bank EXPIRES soon", "22023", '"soon" is not a date'),
    ("CREATE KEY 'x' TYPE server VIRTUAL bank NETWORKS home", "22023", '"home" is not a network'),
    ("CREATE KEY 'x' VIRTUAL bank", "42601", "must be followed by TYPE"),
    ("CREATE KEY 'x' TYPE server VIRTUAL bank VIRTUAL bank", "42601", "VIRTUAL stands there twice"),
    ("CREATE KEY 'x' TYPE server VIRTUAL bank READ", "42601", "READ ONLY"),
    ("CREATE KEY 'a\nb' TYPE server VIRTUAL bank", "22023", "control character"),
    ("REVOKE KEY", "42601", "syntax error"),
    ("REVOKE KEY 'vb_none'", "42704", 'there is no key "vb_none"'),
    (f"REVOKE KEY '{list(bank.KEYS)[0]}'", "55000", "stands in the configuration file"),
])
def test_wrong(door, sql, state, message):
    before = console(door, "SHOW KEYS")
    with pytest.raises(psycopg.Error) as e:
        console(door, sql)
    assert e.value.sqlstate == state
    assert message in e.value.diag.message_primary
    assert console(door, "SHOW KEYS") == before


def test_only_administrators(door):
    row = create(door)
    for sql in ("CREATE KEY 'x' TYPE server VIRTUAL bank", f"REVOKE KEY '{row['key']}'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            console(door, sql, user="stats")
    login(door, row).close()


# ---- the command line beside a proxy that runs ----

def test_command_line(door):
    row = create(door)
    said = command(door, "create", "--type", "client", "--virtual", "bank", "--name", "test")
    assert said.returncode == 0 and said.stderr == ""
    key, secret = re.fullmatch("key: (.*)\nsecret: (.*)\n", said.stdout).groups()
    made = {"key": key, "secret": secret}
    until(lambda: key in status(door), 10)
    with login(door, made) as c:
        assert c.execute("select current_database()").fetchone() == ("bank_p",)
    lines = command(door, "list").stdout.splitlines()
    assert len(lines) == 1 + len(bank.KEYS) + 2
    assert {x.split("\t")[0] for x in lines} >= {key, row["key"]}
    said = subprocess.run([program(), "key", "revoke", door.ini, row["key"]], capture_output=True,
                          text=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    until(lambda: status(door)[row["key"]] == "revoked", 10)
    refused(door, row)
    login(door, made).close()
    assert console(door, f"REVOKE KEY '{key}'") == "REVOKE KEY"
    refused(door, made)


def test_printed_section(door, state):
    said = subprocess.run([program(), "key", "create", "--print", "--type", "server", "--virtual", "bank",
                           "--name", "it's; #1", "--databases", "primary,analytics", "--federate",
                           "--roles", "primary alice, analytics alice", "--networks", "127.0.0.1",
                           "--rate", "1000/s"], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    key = re.search(r"^\[key (vb_[0-9a-f]{32})\]$", said.stdout, re.M).group(1)
    secret = re.search(r"^; secret \(shown this once\): ([0-9a-f]{48})$", said.stdout, re.M).group(1)
    with open(door.ini, "a") as f:
        f.write(said.stdout)
    console(door, "RELOAD")
    login(door, {"key": key, "secret": secret}).close()
    row, = [r for r in console(door, "SHOW KEYS") if r["key"] == key]
    assert (row["name"], row["databases"], row["rights"], row["rate"]) == (
        "it's; #1", "primary, analytics", "federate", "1000/s")


@pytest.mark.parametrize("args,message", [
    (["create", "--type", "nonsense", "--virtual", "bank", "--print"], "none of the words"),
    (["create", "--type", "server", "--print"], "--virtual is missing"),
    (["create", "--type", "server", "--virtual", "bank"], "one configuration file is needed"),
    (["create", "--type", "server", "--virtual", "bank", "--rate", "x", "--print"], "is not a rate"),
    (["create", "--type", "server", "--virtual", "bank", "--name", "a\nb", "--print"], "control character"),
    (["create", "--typo"], '"--typo" is no option'),
    (["sing"], "create, list, rotate or revoke"), (["list"], "usage"), (["revoke", "x"], "usage"),
    ([], "create, list, rotate or revoke"), (["rotate", "x"], "usage"), (["rotate", "--typo", "x", "y"], "usage"),
    (["rotate", "--overlap", "soon", "x", "y"], "overlap: \"soon\" is not a time"),
    (["list", "/nonexistent.ini"], "nonexistent.ini"),
])
def test_command_line_wrong(only_pgweave, args, message):
    said = subprocess.run([program(), "key", *args], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (1, "")
    assert message in said.stderr and said.stderr.count("\n") == 1


# ---- a store that cannot be used ----

def cannot(door, reason):
    with pytest.raises(psycopg.Error) as e:
        create(door)
    assert e.value.sqlstate == "58030"
    assert e.value.diag.message_primary.startswith("the state store cannot be used: ")
    assert reason in e.value.diag.message_primary
    assert "state_dir" in e.value.diag.message_hint


def test_no_directory(start, tmp_path):
    parent = tmp_path / "deep"
    door = start(state_dir=str(parent / "state"))
    with door.connect("bank") as c:
        assert c.execute("select 1").fetchone() == (1,)
    assert log(door).count("keys and jobs that stand there are missing") == 1
    cannot(door, "No such file or directory")
    assert len(console(door, "SHOW KEYS")) == len(bank.KEYS)
    parent.mkdir()
    login(door, create(door)).close()


def test_broken_file(start, state):
    os.mkdir(state)
    with open(os.path.join(state, "state.db"), "w") as f:
        f.write("no database at all, " * 100)
    door = start()
    until(lambda: "file is not a database" in log(door))  # it listens before it looks
    cannot(door, "file is not a database")
    with door.connect("bank") as c:
        assert c.execute("select 1").fetchone() == (1,)
    said = command(door, "list")
    assert said.returncode == 1 and "file is not a database" in said.stderr


def test_a_plain_configuration_starts_without_a_word(proxy, made):
    if os.path.exists("/var/lib/pgweave"):
        pytest.skip("this machine has a state directory")
    door = proxy(made, state_dir=None)
    assert "state" not in log(door).lower().replace("statement", "")
    assert not os.path.exists("/var/lib/pgweave")
