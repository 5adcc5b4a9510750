"""What happens to sessions on virtual databases: cancels, clients that leave, servers that are
frozen or killed, reloads, timeouts, the end of the proxy, limits of keys, and all at once."""
import random
import signal
import threading
import time

import pytest

import activity
import bank
import pgproto as pg_
from ledger import ANSWER, EVENTS, USERS, event, insert, number, written
from poll import until
from proxy import config
from transcript import FLUSH, SYNC, Client, again, run

FEDERATED = "set pgweave.databases = 'primary, secondary'"
CANCELLED = "E(57014 canceling statement due to user request)"


@pytest.fixture
def start(proxy, made):
    """start(setting=value…): a proxy in front of the bank."""
    def start(sections=None, **settings):
        return proxy(made, sections=sections or bank.sections(made),
                     **{"default_pool_size": 2, **settings})
    return start


def said(c, *statements):
    """The transcript of the last one."""
    return ([""] + [c.ask(sql) for sql in statements])[-1]


def begin_to_say(door, c, *messages):
    """Sends, and is back when the proxy has read it and gone through its loop."""
    c.send(*messages)
    until(c.is_taken, 5, "the proxy has read it")
    door.rows("CLIENTS")


def cancel_until_answered(c):
    """A cancel that comes too early, for nothing, is no fault."""
    def answered():
        c.cancel()
        return c.has_more(0.1)
    until(answered, 5, "an answer to the cancel")


# ---- cancel ----

def test_cancel_of_a_federated_statement(c, made):
    c.ask(FEDERATED)
    c.send(pg_.query("select name, pg_sleep(5) from users"))
    activity.busy(made, "pg_sleep")
    began = time.monotonic()
    c.cancel()
    assert c.hear().endswith(CANCELLED + " Z(I)")
    assert time.monotonic() - began < 2
    assert c.ask("select count(*) from users where id < 0") == ANSWER + "Z(I)"


def test_cancel_does_not_stop_a_rollback(c, door, made):
    said(c, "begin", "select 1/0 from users")
    with activity.frozen(made, "query ~ '1/0' and state ~ 'aborted'"):
        begin_to_say(door, c, pg_.query("rollback"))
        c.cancel()
    assert c.hear() == "C(ROLLBACK) Z(I)"
    assert c.ask(USERS) == ANSWER + "Z(I)"


def test_cancel_of_a_statement_whose_server_is_frozen(c, door, made):
    """The BEGIN before it is not answered, and cannot be cancelled there."""
    said(c, USERS, "begin")
    with activity.frozen(made, "true", ["bank_p"]):
        begin_to_say(door, c, pg_.query(USERS))
        c.cancel()
        assert c.hear() == CANCELLED + " Z(E)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"
    assert c.ask(USERS) == ANSWER + "Z(I)"


def test_cancel_of_one_that_waits(start):
    """In a transaction, before a transaction, and by the extended protocol."""
    door = start(default_pool_size=1)
    with Client(door.port) as a, Client(door.port) as b:
        said(a, "begin", USERS)
        said(b, "begin", EVENTS)
        b.send(pg_.query(USERS))
        cancel_until_answered(b)
        assert b.hear() == CANCELLED + " Z(E)"
        assert b.ask("rollback") == "C(ROLLBACK) Z(I)"
        b.send(pg_.query("begin; " + USERS))
        cancel_until_answered(b)
        assert b.hear() == f"C(BEGIN) {CANCELLED} Z(E)"
        assert b.ask("rollback") == "C(ROLLBACK) Z(I)"
        b.send(run(USERS), SYNC)
        cancel_until_answered(b)
        assert b.hear() == CANCELLED + " Z(I)"
        assert a.ask("commit") == "C(COMMIT) Z(I)"
        assert b.ask(USERS) == ANSWER + "Z(I)"


# ---- clients that leave ----

@pytest.mark.parametrize("database", ["bank", "shop"])
def test_terminate_behind_an_open_transaction(door, made, database):
    """Terminate that waited behind a statement ends the session when its turn comes."""
    for _ in range(2):
        with Client(door.port, database) as c:
            c.send(pg_.query("begin; select pg_sleep(0.2)"), pg_.TERMINATE)
    activity.await_rest(made, activity.MEMBERS + ["shop"])
    until(lambda: {r["database"] for r in door.rows("CLIENTS")} <= {"pgweave", "pgbouncer"}, 5, "no client is left")
    with Client(door.port, database) as c:
        assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"


def test_what_was_sent_before_terminate_runs(door, made):
    """Terminate does not overtake statements that wait for a link."""
    n = number()
    with Client(door.port) as c:
        t = c.say(pg_.query("begin"), pg_.query(insert(n)), pg_.query("commit"), pg_.TERMINATE, readies=4)
        assert t == "C(BEGIN) Z(T) C(INSERT 0 1) Z(T) C(COMMIT) Z(I) EOF"
    assert written(made, n) == (1, 0)


# what was said before, what is left behind, which member is frozen meanwhile
LEFT = {
    "runs on several": ([FEDERATED], "select pg_sleep(20) from users", None),
    "has legs": (["begin", USERS, EVENTS, insert(number())], None, None),
    "begins": ([USERS, "begin"], USERS, "bank_p"),
    "rolls back": (["begin", "select 1/0 from users"], "rollback", "bank_p"),
    "asks for kinds": ([FEDERATED, USERS], "select count(*) from accounts", "bank_s"),
}


@pytest.mark.parametrize("how", LEFT)
def test_client_leaves_while_it(door, made, how):
    before, last, freezes = LEFT[how]
    with Client(door.port) as c:
        said(c, *before)
        if freezes:
            with activity.frozen(made, "true", [freezes]):
                begin_to_say(door, c, pg_.query(last))
                c.sock.close()
                until(lambda: {r["database"] for r in door.rows("CLIENTS")} <= {"pgweave", "pgbouncer"}, 5,
                      "the client is gone")
        elif last:
            c.send(pg_.query(last))
            activity.busy(made, "pg_sleep")
    activity.await_rest(made)
    with Client(door.port) as c:
        for _ in range(3):
            assert c.ask(USERS) == ANSWER + "Z(I)"


# ---- servers that fail ----

def test_frozen_server_times_out(start, made):
    door = start(server_connect_timeout=2)
    with Client(door.port) as c:
        said(c, USERS, "begin")
        with activity.frozen(made, "true", ["bank_p"]):
            assert c.ask(USERS) == "E(57014 server did not answer (server_connect_timeout)) EOF"


FAILED = "E(25P02 current transaction is aborted, commands ignored until end of transaction block) Z(E)"
SLOW = "select count(pg_sleep(0.02)) from users"
# what was said before; what is under way; whether its server is frozen meanwhile; the one error
# that answers it, and what comes after the error
KILLED = {
    "runs on several": ([FEDERATED], SLOW, False, "08006", "Z(I)"),
    "runs on several in a transaction": ([FEDERATED, "begin"], SLOW, False, "08006", "Z(E)"),
    "begins": ([USERS, "begin"], USERS, True, "08006", "Z(E)"),
    "rolls back": (["begin", "select 1/0 from users"], "rollback", True, None, "Z(I)"),
    "asks for kinds": ([FEDERATED, USERS], "select count(*) from accounts", True, "08006", "Z(I)"),
    "runs": ([], "select pg_sleep(5) from users", False, "57P01", "EOF"),
    "runs on a second leg": (["begin", EVENTS], "select pg_sleep(5) from users", False, "57P01", "EOF"),
    "has a parked leg": (["begin", USERS, "savepoint s", EVENTS], None, False, "25P02", "Z(E)"),
}


@pytest.mark.parametrize("how", KILLED)
def test_server_dies_while_the_client(c, door, made, how):
    before, last, is_frozen, error, after = KILLED[how]
    lost = door.log().count("lost primary")
    said(c, *before)
    if is_frozen:
        with activity.frozen(made, "true", ["bank_p"]):
            begin_to_say(door, c, pg_.query(last))
            activity.terminate(made, "true", ["bank_p"])
    else:
        if last:
            c.send(pg_.query(last))
            activity.busy(made, "pg_sleep")
        activity.terminate(made, "true", ["bank_p"])
    if not last:
        until(lambda: door.log().count("lost primary") > lost, 5, "the loss is noticed")
    t = c.hear() if last else c.ask("select 1")
    if error:
        assert t.count("E(") == 1 and f"E({error} " in t and t.endswith(f") {after}") and "C(" not in t
    else:
        assert t == "C(ROLLBACK) Z(I)"
    if after == "Z(E)":
        assert c.ask("select 1") == FAILED
        assert c.ask("rollback to s") == (FAILED if "savepoint s" in before else
                                          'E(3B001 savepoint "s" does not exist) Z(E)')
        assert c.ask("commit") == "C(ROLLBACK) Z(I)"
    if after != "EOF":
        c.ask("reset pgweave.databases")
        assert c.ask(USERS) == ANSWER + "Z(I)"


def test_parameters_are_set_once_more_and_the_string_is_run_once(start, made):
    """A link dies while it takes over a client's parameters: what pgweave answered of the string
    is not answered again."""
    door = start(default_pool_size=1)
    with Client(door.port) as a, Client(door.port) as b:
        a.ask("set timezone = 'Asia/Tokyo'")
        b.ask(USERS)
        with activity.frozen(made, "true", ["bank_p"]):
            begin_to_say(door, a, pg_.query("set pgweave.database = 'primary'; select 1"))
            activity.terminate(made, "true", ["bank_p"])
        assert a.hear() == "C(SET) T D(1) C(SELECT 1) Z(I)"


# ---- reload ----

def without_virtual(text):
    text = text.replace("virtual = bank\n", "virtual = bank2\n")
    for kind in ("virtual", "route", "shard"):
        text = text.replace(f"[{kind} bank]", f"[{kind} bank2]")
    return text


def without_member(text):
    for old, new in [("members = primary, secondary, analytics", "members = primary, secondary"),
                     ("analytics_events, user_activity = analytics\n", ""),
                     ("archive.* = analytics\n", ""), ("[route bank]\n", ""),
                     ("databases = primary, analytics", "databases = primary")]:
        assert old in text
        text = text.replace(old, new)
    return text


def without_key(text):
    head, _, rest = text.partition(f"[key {bank.key(4)['user']}]")
    return head + rest[rest.index("[key"):]


# what was said before, what is under way, whether its server is frozen meanwhile
RELOADED = {
    "is idle": ([], None, False),
    "has begun": (["begin"], None, False),
    "has legs": (["begin", USERS, EVENTS], None, False),
    "runs on several": (["set pgweave.databases = 'primary, analytics'"],
                        "select pg_sleep(0.005), name from users", False),
    "rolls back": (["begin", "select 1/0 from users"], "rollback", True),
    "waits": (["begin", USERS], EVENTS, False),
}


@pytest.mark.parametrize("gone", [without_virtual, without_member, without_key])
@pytest.mark.parametrize("how", RELOADED)
def test_reload_while_the_client(start, made, gone, how):
    """What it has is taken away: the virtual database, a member, its key. It is told, and may
    end its transaction where the virtual database is still there."""
    door = start(default_pool_size=1)
    before, last, is_frozen = RELOADED[how]

    def reload():
        databases, port, users, sections, given = door.settings
        door.write(config(databases, port, users, gone(sections), **given))
        door.reload()
        until(lambda: "the configuration was read again" in door.log(), 5, "the reload is done")

    with Client(door.port) as other, Client(door.port, **bank.key(4)) as c:
        if how == "waits":
            said(other, "begin", EVENTS)
        said(c, *before)
        if is_frozen:
            with activity.frozen(made, "true", ["bank_p"]):
                begin_to_say(door, c, pg_.query(last))
                reload()
        else:
            if last:
                begin_to_say(door, c, pg_.query(last))
            reload()
        if how == "waits":
            other.ask("rollback")
        heard = [c.hear()] if last else []
        for sql in ("select 1", "rollback", "select 1"):
            heard += [c.ask(sql)] if "EOF" not in heard[-1:] else []
    t = " ".join(heard)
    if gone is without_virtual:
        # Whoever holds the link is ended too, and may have been first.
        if how == "waits":
            t = t.removeprefix("T D(0) C(SELECT 1) Z(T) ")
        assert t == "E(57P01 database configuration changed) EOF EOF"
    elif gone is without_key:
        assert t.count("E(") == 1 and "E(57P01 the key was removed) EOF" in t
    elif how == "runs on several":
        assert "EOF" not in t and ") Z(I) E(22023 invalid value for parameter" in t
    else:
        assert "E(" not in t and t.endswith("C(ROLLBACK) Z(I) T D(1) C(SELECT 1) Z(I)")
    activity.await_rest(made)


# ---- timeouts ----

def test_idle_transaction_timeout(start, made):
    door = start(idle_transaction_timeout=1)
    with Client(door.port) as c:
        said(c, "begin", USERS, EVENTS)
        assert c.hear() == "E(25P03 idle transaction timeout) EOF"
    activity.await_rest(made)


def test_query_timeout_of_a_federated_statement(start):
    door = start(query_timeout=1)
    with Client(door.port) as c:
        c.ask(FEDERATED)
        assert c.ask("select pg_sleep(0.2) from users").endswith("E(57014 query timeout) EOF")


def test_transaction_timeout_counts_from_the_begin(start):
    """Not anew from each leg's."""
    door = start(transaction_timeout=2)
    with Client(door.port) as c:
        said(c, "begin", USERS)
        began = time.monotonic()
        said(c, "select pg_sleep(1.2)", EVENTS)
        assert c.hear() == "E(25P04 transaction timeout) EOF"
        assert time.monotonic() - began < 2.8


# ---- limits of keys ----

def with_key(number, words):
    """start()'s sections, with more words in that key's."""
    def change(made):
        name = f"[key {bank.key(number)['user']}]"
        return bank.sections(made).replace(name, f"{name}\n{words}")
    return change


def test_concurrency_of_a_key_counts_right(start, made):
    """Whatever became of earlier statements, one at a time may run."""
    door = start(with_key(4, "concurrency = 1")(made))
    with Client(door.port, **bank.key(4)) as a, Client(door.port, **bank.key(4)) as b:
        said(a, "select 1", "select 1/0", "select nosuch", "begin", USERS, EVENTS, "select 1/0", "rollback",
             "set pgweave.databases = 'primary, analytics'", "select 1 from nosuch",
             "select count(*) from users", "reset pgweave.databases")
        a.say(run("select 1"), run("select 1/0"), SYNC)
        a.say(pg_.parse("", "select 1"), pg_.bind("", ""), SYNC)
        a.say(run("show pgweave.database"), SYNC)
        a.send(pg_.query("select pg_sleep(5)"))
        activity.busy(made, "pg_sleep")
        assert b.ask("select 1").startswith("E(53400")
        a.cancel()
        assert a.hear() == f"T {CANCELLED} Z(I)"
        assert b.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
        a.send(run("select pg_sleep(5)"), SYNC)
        activity.busy(made, "pg_sleep")
        assert b.ask("select 1").startswith("E(53400")
        a.sock.close()
        until(lambda: b.ask("select 1") == "T D(1) C(SELECT 1) Z(I)", 5, "its place is free")


def test_rate_of_a_key_counts_a_statement_once(start, made):
    """Also one whose batch begins anew at another member."""
    door = start(with_key(4, "rate = 4/min")(made))
    with Client(door.port, **bank.key(4)) as c:
        c.say(pg_.parse("e", EVENTS), SYNC)
        for i in range(2):
            assert c.say(pg_.parse(f"u{i}", "select 1 from users"), again("e"), SYNC).endswith("Z(I)")
        for _ in range(2):
            assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
        assert c.ask("select 1").startswith("E(53400")


# ---- the end of the proxy ----

@pytest.mark.parametrize("before,last,answer", [
    ([FEDERATED], "select count(pg_sleep(0.01)) from users where id <= 30", "T D(30) C(SELECT 1) Z(I)"),
    (["begin"], "rollback", "C(ROLLBACK) Z(I)"),
    (["begin", "select 1/0 from users"], "rollback", "C(ROLLBACK) Z(I)"),
    (["begin", USERS, EVENTS], "commit", "C(COMMIT) Z(I)")],
    ids=["federated", "deferred", "failed", "legs"])
def test_shutdown_waits_for_the_transaction(start, before, last, answer):
    """SIGINT: the proxy ends with the client's transaction, and not before."""
    door = start()
    with Client(door.port) as c:
        said(c, *before)
        if before == [FEDERATED]:
            begin_to_say(door, c, pg_.query(last))
        door.signal(signal.SIGINT)
        until(lambda: "shutting down" in door.log(), 5, "the signal is logged")
        assert (c.hear() if before == [FEDERATED] else c.ask(last)) == answer
        assert door.wait_exit(4) == 0


# ---- all at once ----

SQL = [
    "select 1", USERS, EVENTS, "select 1/0 from users", "select 1/0 from analytics_events",
    "/* pgweave: databases=primary,secondary */ select count(*) from users",
    "/* pgweave: databases=primary,secondary */ select 1/(id-41) from users",
    "/* pgweave: databases=primary,secondary, federation=tag */ select * from users",
    "/* pgweave: databases=primary,secondary */ select pg_sleep(0.01) from users",
    "show pgweave.routed", "set pgweave.database = 'secondary'", "set local pgweave.database = 'analytics'",
    "reset pgweave.database", "begin", "begin isolation level serializable", "commit", "rollback",
    "savepoint a", "rollback to a", "release a", event(0), "commit and chain", "rollback and chain",
    "update accounts set balance = 1 where user_id = 42", "select * from accounts where user_id = 41",
    "explain (route) select 1", "select pg_sleep(0.05)",
    "select pg_sleep(0.05), count(*) from analytics_events", "select nosuch", "select * from users, analytics_events", "set timezone = 'Asia/Tokyo'",
    "set work_mem = '5MB'", "discard all", "select generate_series(1, 3000), repeat('x', 100)",
    "copy users to stdout", "prepare p as select 1", "create temp table if not exists t (a int)"]


def something(rnd):
    """A unit of messages that is answered with one ReadyForQuery."""
    if rnd.random() < 0.45:
        return pg_.query("; ".join(rnd.sample(SQL, 1 if rnd.random() < 0.9 else 2)))
    data = b""
    for _ in range(rnd.randrange(1, 5)):
        name, sql, kind = rnd.choice(["", "", "a", "b"]), rnd.choice(SQL), rnd.random()
        if kind < 0.6:
            data += pg_.close("S", name) + run(sql, name=name, rows=rnd.choice([0, 0, 2]))
        elif kind < 0.8:
            data += again(name)
        else:
            data += FLUSH if kind > 0.9 else pg_.parse(name, sql) + pg_.describe("S", name)
    return data + SYNC


def some_client(door, over, seed, wrong):
    rnd = random.Random(seed)
    while not over.is_set():
        try:
            with Client(door.port, rnd.choice(["bank", "bank", "bank.secondary", "shelf"]), seconds=15) as c:
                for _ in range(rnd.randrange(1, 25)):
                    unit, fate = something(rnd), rnd.random()
                    c.send(unit)
                    if fate < 0.03:
                        break
                    if fate < 0.1:
                        c.cancel()
                    t = c.hear()
                    if "HANG" in t:
                        wrong.append((seed, unit, t[-200:]))
                        return
                    if "EOF" in t:
                        break
        except OSError:
            pass  # its server was killed


def test_nothing_hangs_or_stays(start, made):
    """Eight clients do anything while servers end their sessions and the file is read again."""
    door = start(default_pool_size=6, query_wait_timeout=3)
    over, wrong, began = threading.Event(), [], time.monotonic()
    clients = [threading.Thread(target=some_client, args=(door, over, seed, wrong)) for seed in range(8)]
    rnd = random.Random(99)
    for t in clients:
        t.start()
    while time.monotonic() - began < 6 and door.is_running() and not wrong:
        if rnd.random() < 0.5:
            activity.terminate(made, "random() < 0.3")
        if rnd.random() < 0.3:
            door.reload()
        over.wait(0.5)
    over.set()
    for t in clients:
        t.join(40)
    assert door.is_running() and not wrong, f"seeds 0 to 7: {wrong[:3]}"
    activity.await_rest(made)
    until(lambda: all(r["sv_active"] == "0" for r in door.rows("POOLS")), 5, "all links are back")
