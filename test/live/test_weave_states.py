"""BEGIN, COMMIT and savepoints in every state of a transaction: on a virtual database, which answers
some of them by itself, the same as on PostgreSQL."""
import pytest

import bank
from ledger import EVENTS, USERS
from transcript import SYNC, Client, run

SEQUENCES = [
    "begin | begin isolation level serializable | show transaction_isolation | commit",
    "begin | begin read only | show transaction_read_only | commit",
    "begin | select 1 | begin isolation level serializable | show transaction_isolation | commit",
    "begin | select 1 | begin read only | show transaction_read_only | commit",
    "begin read only | select 1 | begin read write | show transaction_read_only | commit",
    "begin read only | begin read write | show transaction_read_only | commit",
    "begin isolation level serializable | begin | show transaction_isolation | commit",
    "begin | start transaction read only, deferrable | show transaction_read_only | "
    "show transaction_deferrable | commit",
    "begin | select 1/0 | begin | rollback",
    "begin | savepoint a | begin isolation level serializable | rollback",
    "begin | savepoint a | begin read only | show transaction_read_only | rollback to a | "
    "show transaction_read_only | rollback",
    "begin | begin bogus | rollback",
    "begin; begin read only; show transaction_read_only | commit",
    "begin read only | commit | show transaction_read_only",
    "begin | begin read only | commit and chain | show transaction_read_only | rollback",
    "begin | set transaction isolation level serializable | begin | show transaction_isolation | "
    "rollback",
    "savepoint a",
    "release a",
    "rollback to a",
    "begin | release a | rollback to a | savepoint b | rollback",
    "begin | rollback to a | rollback to a | release a | savepoint a | commit",
    "begin | savepoint a | select 1/0 | release a | rollback to b | savepoint c | rollback to a | "
    "select 1 | release a | rollback to a | commit",
    "begin | select 1/0 | rollback to a | release a | savepoint a | rollback",
    "begin | select 1 | release a | rollback to a | rollback",
    "begin | select 1 | savepoint a | release b | rollback to b | rollback to a | "
    "release savepoint a | rollback to savepoint a | commit",
    "begin | savepoint a | savepoint a | release a | rollback to a | release a | release a | rollback",
    "begin | savepoint a | savepoint b | rollback to a | rollback to b | rollback to a | select 1 | "
    "commit",
    "savepoint a; select 1",
    "begin; savepoint a; select 1/0; rollback to a | rollback to a | select 1 | commit",
    'begin | savepoint "A" | release a | rollback to "A" | rollback',
    "begin read only | savepoint a | select 1 | rollback to a | release a | commit",
    "commit | rollback | commit and chain | rollback and chain",
    "begin | select 1/0 | commit and chain | select 1 | rollback and chain | commit",
    "begin | select 1/0 | select 1 | show timezone | set timezone=1 | begin | "
    "prepare transaction 'x' | commit prepared 'x' | rollback",
    "begin | prepare transaction 'x' | rollback",
    "begin | select 1/0 |  | rollback",
    "select 1; savepoint a",
    "select 1; release a",
    "select 1; rollback to a",
    "begin; select 1; release a | rollback",
    "begin | savepoint a | begin; rollback to a | savepoint b; begin | release b | commit",
]
READ_ONLY = "select current_setting('transaction_read_only'), count(*) > 0 from "


@pytest.fixture(scope="module")
def made(pg):
    bank.create(pg)
    with pg.connect("bank_a", user="alice") as c:
        c.execute("insert into analytics_events (user_id, kind) values (1, 'seen')")
    return pg


def played(port, database, statements, is_extended):
    with Client(port, database) as c:
        return [c.say(run(sql), SYNC) if is_extended else c.ask(sql) for sql in statements]


@pytest.mark.parametrize("statements", SEQUENCES, ids=str)
def test_as_postgresql_has_it(door, made, statements):
    statements = statements.split(" | ")
    assert played(door.port, "bank", statements, False) == played(
        made.port, "bank_p", statements, False)
    if not any(";" in sql for sql in statements):
        assert played(door.port, "bank", statements, True) == played(
            made.port, "bank_p", statements, True)


@pytest.mark.parametrize("before", [[], [USERS]])
def test_what_a_second_begin_says_holds_on_every_database(door, before):
    with Client(door.port) as c:
        for sql in ["begin", *before, "begin read only"]:
            c.ask(sql)
        assert c.ask(READ_ONLY + "users").startswith("T D(on|t)")
        assert c.ask(READ_ONLY + "analytics_events").startswith("T D(on|t)")
        assert c.ask("rollback and chain") == "C(ROLLBACK) Z(T)"
        assert c.ask(READ_ONLY + "analytics_events").startswith("T D(on|t)")
        assert c.ask("rollback") == "C(ROLLBACK) Z(I)"
        assert c.ask("begin") == "C(BEGIN) Z(T)"
        assert c.ask(READ_ONLY + "analytics_events").startswith("T D(off|t)")
        c.ask("rollback")


def test_a_second_begin_on_several_databases(door):
    with Client(door.port) as c:
        for sql in ("begin", USERS, EVENTS):
            c.ask(sql)
        assert c.ask("begin") == "N(there is already a transaction in progress) C(BEGIN) Z(T)"
        assert c.ask("begin read only") == (
            "E(0A000 BEGIN with modes in a transaction on several databases) Z(E)")
        assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_savepoints_behind_a_failure_elsewhere(door):
    """The statement failed on another database than the one that has the savepoints."""
    with Client(door.port) as c:
        for sql in ("begin", "update users set name = name where id = 2", "savepoint a"):
            c.ask(sql)
        assert c.ask("select 1/0 from analytics_events") == "E(22012 division by zero) Z(E)"
        assert c.ask("rollback to b") == 'E(3B001 savepoint "b" does not exist) Z(E)'
        assert c.ask("rollback to a") == "C(ROLLBACK) Z(T)"
        assert c.ask("rollback to b") == 'E(3B001 savepoint "b" does not exist) Z(E)'
        assert c.ask("rollback to a") == "C(ROLLBACK) Z(T)"
        assert c.ask("commit") == "C(COMMIT) Z(I)"
