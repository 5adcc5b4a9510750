"""API keys of a proxy that runs: made and changed on its console, used as logins."""
import itertools
import re

import psycopg
import pytest

import bank

numbers = itertools.count(1)


@pytest.fixture
def start(proxy, made, state):
    """start(setting=value…): a proxy in front of the bank, with a store of the test's own."""
    def start(**settings):
        return proxy(made, sections=bank.sections(made), **dict(
            {"auth_type": "scram-sha-256", "state_dir": state, "workers": 4}, **settings))
    return start


@pytest.fixture
def door(start):
    return start()


def console(door, sql, user="admin", **options):
    """The rows as dicts, or the tag."""
    with psycopg.connect(door.dsn("pgweave", user), autocommit=True) as c:
        cur = c.execute(sql, **options)
        return [dict(zip([d.name for d in cur.description], row)) for row in cur] \
            if cur.description else cur.statusmessage


def issued(rows):
    """The one row that CREATE KEY and ROTATE KEY answer."""
    row, = rows
    assert list(row) == ["key", "secret"]
    assert re.fullmatch("vb_[0-9a-f]{32}", row["key"]) and re.fullmatch("[0-9a-f]{48}", row["secret"])
    return row


def create(door, rest="TYPE server VIRTUAL bank", name=None, **options):
    """A key, under a name of its own."""
    name = name or f"test {next(numbers)}"
    return issued(console(door, f"CREATE KEY '{name}' {rest}", **options))


def login(door, row, **options):
    return door.connect("bank", user=row["key"], password=row["secret"], **options)


def refused(door, row):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(door, row)


def opens(door, row):
    """Whether it logs in."""
    try:
        login(door, row).close()
    except psycopg.OperationalError as e:
        assert "password authentication failed" in str(e)
        return False
    return True


def shown(door, row):
    """What SHOW KEYS says of it."""
    found, = [r for r in console(door, "SHOW KEYS") if r["key"] == row["key"]]
    return found
