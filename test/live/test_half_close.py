"""Clients that say all they have to say, and send no more: `printf … | nc -N` is one. As PostgreSQL
does, the proxy does what it has been told, and answers."""
import random
import socket
import time

import pytest

import activity
import bank
import pgproto as pg_
from ledger import ANSWER, EVENTS, USERS, insert, number, written
from poll import until
from transcript import SYNC, Client, run


@pytest.fixture(scope="module")
def made(pg):
    bank.create(pg)
    return pg


@pytest.fixture(scope="module")
def door(module_proxy, made):
    return module_proxy(made, sections=bank.sections(made), default_pool_size=1,
                        databases={"bank_p": f"host=127.0.0.1 port={made.port} dbname=bank_p"})


def hang_up(c, *messages):
    c.send(*messages)
    c.sock.shutdown(socket.SHUT_WR)


def statements(n, how):
    if how == "simple":
        return [pg_.query(sql) for sql in ("begin", insert(n), "commit")], \
            "C(BEGIN) Z(T) C(INSERT 0 1) Z(T) C(COMMIT) Z(I) EOF", 4
    if how == "string":
        return [pg_.query("begin; " + insert(n) + "; commit")], \
            "C(BEGIN) C(INSERT 0 1) C(COMMIT) Z(I) EOF", 2
    return [run(sql) + SYNC for sql in ("begin", insert(n), "commit")], \
        "1 2 C(BEGIN) Z(T) 1 2 C(INSERT 0 1) Z(T) 1 2 C(COMMIT) Z(I) EOF", 4


@pytest.mark.parametrize("database", ["bank", "bank_p"])
@pytest.mark.parametrize("how", ["simple", "string", "extended"])
def test_a_transaction(door, made, database, how):
    n = number()
    messages, answer, readies = statements(n, how)
    with Client(door.port, database) as c:
        hang_up(c, *messages)
        assert c.hear(readies) == answer
    assert written(made, n) == (1, 0)
    activity.await_rest(made)


@pytest.mark.parametrize("database", ["bank", "bank_p"])
def test_what_waits_for_an_answer_to_be_sent(door, database):
    """PREPARE of the extended protocol is sent step by step, also without a client that sends."""
    with Client(door.port, database) as c:
        hang_up(c, run("prepare p as select 1"), SYNC)
        assert c.hear(2) == "1 2 C(PREPARE) Z(I) EOF"


COPY = "copy users (id, name) from stdin"
UNFINISHED = {"batch": (run("select 1 from users"),), "copy": (pg_.query(COPY),),
              "copy in a batch": (run(COPY), SYNC)}


@pytest.mark.parametrize("database", ["bank", "bank_p"])
@pytest.mark.parametrize("what", UNFINISHED)
def test_who_says_goodbye_waits_for_nothing(door, made, database, what):
    """Not for the end of what only the client could end: its link is free for the next one."""
    with Client(door.port, database) as c:
        c.send(*UNFINISHED[what], pg_.TERMINATE)
        assert c.hear(3).endswith("EOF")
    with Client(door.port, database) as c:
        assert c.ask("select count(*) from users where id < 0") == "T D(0) C(SELECT 1) Z(I)"
    activity.await_rest(made)


def test_reads_on_several_databases(door):
    with Client(door.port) as c:
        hang_up(c, *(pg_.query(sql) for sql in (
            "begin", USERS, EVENTS, "commit", "set pgweave.databases = 'primary, secondary'", USERS)))
        assert c.hear(7) == (f"C(BEGIN) Z(T) {ANSWER}Z(T) {ANSWER}Z(T) C(COMMIT) Z(I) C(SET) Z(I) "
                             + ANSWER + "Z(I) EOF")


@pytest.mark.parametrize("database", ["bank", "bank_p"])
def test_one_that_waits_for_a_link(door, made, database):
    n = number()
    messages, answer, readies = statements(n, "simple")
    with Client(door.port, database) as holder, Client(door.port, database) as c:
        holder.ask("begin")
        holder.ask(USERS)
        hang_up(c, *messages)
        until(lambda: door.rows("POOLS") and any(r["cl_waiting"] == "1" for r in door.rows("POOLS")), 5)
        holder.ask("commit")
        assert c.hear(readies) == answer
    assert written(made, n) == (1, 0)


@pytest.mark.parametrize("database", ["bank", "bank_p"])
def test_it_is_not_worked_for_for_ever(door, made, database):
    with Client(door.port, database) as c:
        hang_up(c, pg_.query("begin"), pg_.query("select pg_sleep(30) from users limit 1"))
        activity.busy(made, "pg_sleep")
        began = time.monotonic()
        assert c.hear(3).endswith("EOF")
        assert time.monotonic() - began < 6
    activity.await_rest(made)


def test_a_batch_without_its_sync_is_over(door, made):
    n = number()
    with Client(door.port) as c:
        hang_up(c, pg_.query("begin"), run(insert(n)))
        assert c.hear(2).endswith("EOF")
    assert written(made, n) == (0, 0)
    activity.await_rest(made)


def test_many(door, made):
    """Some half close, some are gone: what was sent whole in a string is done or not, never by halves."""
    rnd = random.Random(5)
    for _ in range(40):
        n = number()
        messages, answer, readies = statements(n, rnd.choice(("simple", "string", "extended")))
        with Client(door.port, rnd.choice(("bank", "bank_p"))) as c:
            if rnd.random() < 0.3:
                c.send(*messages)
            else:
                hang_up(c, *messages)
                assert c.hear(readies) == answer
                assert written(made, n) == (1, 0)
    activity.await_rest(made)
