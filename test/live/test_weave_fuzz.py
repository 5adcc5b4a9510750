"""The same random scripts through a virtual database and to PostgreSQL itself: the answers must be
the same, message by message. All statements belong to one member, or to none.

A script is a dozen units: simple queries, strings of several statements, and batches up to their
Sync, with transactions, savepoints, cursors, temporary tables, locks, errors at Parse, Bind and Execute, names that are
taken and names that are not there. Every third script is sent in pieces of a few bytes.

What may differ:

  - the words of an error, and those of a notice; the SQLSTATE is compared, but for batches and
    failed transactions: a statement that is wrong in two ways, as a syntax error in a failed
    transaction or under a name that is taken, is told one of them;
  - ParameterStatus, which is told when the link has another value than the client;
  - how far a statement of a batch comes before its error: the proxy answers some statements at
    Execute that PostgreSQL refuses at Parse, so what precedes an error directly is not compared;
  - a second START TRANSACTION has the tag of BEGIN;
  - in failed transactions empty statements are not refused, and statements without rows are not
    described: batches have neither;
  - statements without a name are used in the batch that parsed them, and portals once, as
    drivers do: PostgreSQL allows more;
  - a string or a batch that joins what the proxy does with what a server does, as "select 1;
    begin; …" or BEGIN behind a statement, may be refused with 0A000: the script ends there."""
import random
import re

import pytest

import bank
import pgproto as pg_
from transcript import FLUSH, SYNC, Client

SEED, SCRIPTS, UNITS = 1, 48, 12

ONE = [
    "select 1", "select 2 as x, 'a'", "select 1/0", "select nosuch", "syntax error", "", "-- nothing",
    "insert into fz values (1)", "select count(*) from fz", "select * from generate_series(1, 5)",
    "values (1), (2)", "select $1::int", "savepoint s", "rollback to s", "release s", "begin", "commit",
    "rollback", "end", "abort", "start transaction read only", "set application_name = 'x'",
    "show application_name", "create temp table if not exists tt (a int) on commit drop",
    "declare c cursor for select 1", "fetch c", "do $$ begin raise notice 'hi'; end $$",
    # what pins
    "create temp table t1 (a int)", "select count(*) from t1", "drop table t1", "select 1 as a into temp t1",
    "alter table t1 rename to t2", "drop table if exists t2", "create temp table if not exists fz (a int)",
    "discard temp", "declare h cursor with hold for values (1), (2), (3)", "fetch h", "close h", "close all",
    "select pg_advisory_lock_shared(5)", "select pg_advisory_unlock_shared(5)",
    "select pg_advisory_unlock_all()"]
FULL = [sql for sql in ONE if sql not in ("", "-- nothing")]
SEVERAL = [
    "select 1; select 2", "begin; select 1", "select 1; commit", "commit; begin", "select 1/0; select 2",
    "rollback; select 3", "begin; select 1/0; rollback", ";;", "select 1;", "begin; commit",
    "begin; insert into fz values (3); commit; select 4", "rollback; begin", "select 1; begin; select 2",
    "commit; select 9", "rollback; rollback; select 1", "discard all",
    "create temp table t1 (a int); insert into t1 values (2)", "create temp table t1 (a int); select 1/0",
    "select pg_advisory_lock_shared(5); commit; begin"]
REFUSED = re.compile(r"E\(0A000 [^)]*(one batch belong|must stand)")


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    for database in ("bank_p", "bank_s"):
        with pg.connect(database, user="alice") as c:
            c.execute("create table fz (a int)")
    return module_proxy(pg, sections=bank.sections(pg), default_pool_size=4)


def batch(rnd, is_failed):
    """A few statements and their Sync, as (what it does, bytes)."""
    unit, unnamed = [], False
    for _ in range(rnd.randrange(1, 6)):
        name, portal, kind = rnd.choice(["", "", "a", "b"]), rnd.choice(["", "", "p"]), rnd.choice("XXXXxxPCDH")
        sql, rows = rnd.choice(FULL), rnd.choice([0, 0, 2])
        if (kind in "xD" and not name and not unnamed) or (kind == "D" and is_failed):
            continue
        if kind in "XP":
            unit.append((f"Parse {name!r} {sql!r}", pg_.parse(name, sql)))
            unnamed |= not name
        if kind in "Xx":
            if portal:
                unit.append((f"Close portal {portal!r}", pg_.close("P", portal)))
            unit.append((f"Bind {portal!r} {name!r}", pg_.bind(portal, name)))
            if rnd.random() < 0.5:
                unit.append((f"Describe portal {portal!r}", pg_.describe("P", portal)))
            unit.append((f"Execute {portal!r} {rows}", pg_.execute(portal, rows)))
        elif kind == "C":
            unit.append((f"Close statement {name!r}", pg_.close("S", name)))
            unnamed &= bool(name)
        elif kind == "D":
            unit.append((f"Describe statement {name!r}", pg_.describe("S", name)))
        elif kind == "H":
            unit.append(("Flush", FLUSH))
    return unit + [("Sync", SYNC)]


def unit(rnd, is_failed):
    if rnd.random() < 0.4:
        sql = rnd.choice(ONE + SEVERAL)
        return [(f"Query {sql!r}", pg_.query(sql))]
    return batch(rnd, is_failed)


def comparable(transcript, has_codes):
    t = re.sub(r"E\((\w+) .*?\)(?= (?:[A-Za-z0-9]\b|[A-Z]\()|$)", r"E(\1)" if has_codes else "E", transcript)
    t = re.sub(r"N\(.*?\)(?= (?:[A-Za-z0-9]\b|[A-Z]\())", "N", t)
    t = t.replace("N C(START TRANSACTION)", "N C(BEGIN)")
    return re.sub(r"(?:[123nTt] )+(?=E\b)", "", t)


def send_in_pieces(c, data, rnd):
    at = 0
    while at < len(data):
        size = rnd.randrange(1, 30)
        c.send(data[at:at + size])
        at += size


@pytest.mark.parametrize("number", range(SCRIPTS))
def test_answers_as_postgresql(door, pg, number):
    rnd, is_failed = random.Random(SEED * 1000 + number), False
    history = [f"seed {SEED}, script {number}"]
    with Client(door.port) as proxied, Client(pg.port, "bank_s") as direct:
        for c in (proxied, direct):
            assert c.ask("truncate fz") == "C(TRUNCATE TABLE) Z(I)"
        for _ in range(UNITS):
            messages = unit(rnd, is_failed)
            data = b"".join(m for _, m in messages)
            history.append(", ".join(what for what, _ in messages))
            expected = direct.say(data)
            if number % 3:
                proxied.send(data)
            else:
                send_in_pieces(proxied, data, rnd)
            got = proxied.hear()
            if REFUSED.search(got):
                return
            has_codes = len(messages) == 1 and not is_failed
            assert comparable(got, has_codes) == comparable(expected, has_codes), (
                "\n".join(history + [got, expected]))
            is_failed = expected.endswith("Z(E)")
