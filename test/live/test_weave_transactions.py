"""Transactions on virtual databases: their legs on several members, savepoints, the ways they
end, legs that are lost, cursors, and clients that wait for each other's links."""
import pytest

import activity
import bank
import pgproto as pg_
from ledger import ANSWER, EVENTS, USERS, event, insert, written
from poll import until
from transcript import SYNC, Client, again, call, run

DIFFERENT = "E(0A000 the statements of one batch belong to different databases)"


def said(c, *statements):
    """The transcript of the last one."""
    return [c.ask(sql) for sql in statements][-1]


# ---- strings ----

def test_what_follows_the_rollback_in_a_string_runs(c, made, n):
    assert "22012" in said(c, "begin", "select 1/0 from users")
    assert c.ask(f"rollback; {insert(n)}") == "C(ROLLBACK) C(INSERT 0 1) Z(I)"
    assert written(made, n) == (1, 0)


def test_commit_in_a_string_for_another_member(c, made, n):
    """It is refused: what commits must not be the other member alone."""
    said(c, "begin", insert(n))
    assert c.ask(f"{EVENTS}; commit") == (
        "E(0A000 the statements of one string belong to different databases) Z(E)")
    assert c.ask("commit") == "C(ROLLBACK) Z(I)"
    assert written(made, n) == (0, 0)


def test_begin_at_the_end_of_a_string(c):
    assert c.ask("select 1; begin") == "T D(1) C(SELECT 1) C(BEGIN) Z(T)"
    assert c.ask(EVENTS) == ANSWER + "Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_begin_of_a_string_is_not_an_older_one(c):
    said(c, "begin isolation level serializable read only", USERS, "commit")
    assert c.ask("select 1; begin") == "T D(1) C(SELECT 1) C(BEGIN) Z(T)"
    assert c.ask(event(0)) == "C(INSERT 0 1) Z(T)"
    assert c.ask("show transaction_isolation") == "T D(read committed) C(SHOW) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_legs_end_with_the_transaction_in_a_string(c, made):
    said(c, "begin", USERS, EVENTS)
    assert c.ask(f"{EVENTS}; commit; begin").endswith("C(COMMIT) C(BEGIN) Z(T)")
    until(lambda: len(activity.open_transactions(made)) == 1, 5, "one transaction is open")
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


# ---- writes on two members ----

@pytest.mark.parametrize("how", ["parsed", "prepared"])
def test_a_second_written_member_in_one_batch(c, made, n, how):
    if how == "prepared":
        c.say(pg_.parse("r", EVENTS), pg_.parse("w", event(n)), SYNC)
    said(c, "begin", insert(n))
    if how == "prepared":
        t = c.say(again("r"), again("w"), SYNC)
    else:
        t = c.say(run(EVENTS), run(event(n)), SYNC)
    assert t.endswith("Z(E)") and "E(0A000" in t
    assert c.ask("commit") == "C(ROLLBACK) Z(I)"
    assert written(made, n) == (0, 0)


@pytest.mark.parametrize("first", ["users", "analytics_events"])
def test_a_volatile_function_is_a_write(c, made, n, first):
    """What a function has written is not thrown away with a leg that was thought to read."""
    with made.connect("bank_p", user="alice") as p, made.connect("bank_a", user="alice") as a:
        p.execute("create or replace function note(int) returns int language sql volatile as "
                  "$$ insert into users (id, name) values ($1, 'fn') returning id $$")
        a.execute("create or replace function note(int) returns int language sql volatile as "
                  "$$ insert into analytics_events (user_id, kind) values ($1, 'fn') returning user_id $$")
    if first == "users":
        assert said(c, "begin", USERS, f"select note({n}) from (select count(*) from analytics_events) e"
                    ) == f"T D({n}) C(SELECT 1) Z(T)"
    else:
        assert said(c, "begin", EVENTS, f"select note({n})") == f"T D({n}) C(SELECT 1) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"
    assert written(made, n) == ((0, 1) if first == "users" else (1, 0))


# ---- chains ----

def test_commit_and_chain_begins_anew_anywhere(c, made, n):
    said(c, "begin", insert(n))
    assert c.ask("commit and chain") == "C(COMMIT) Z(T)"
    assert c.ask(event(n)) == "C(INSERT 0 1) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"
    assert written(made, n) == (1, 1)


def test_settings_that_were_committed_stay_when_the_chain_rolls_back(c):
    said(c, "begin", USERS, "set pgweave.federation = 'tag'", "commit and chain", "rollback")
    assert c.ask("show pgweave.federation") == "T D(tag) C(SHOW) Z(I)"


def test_a_failed_transaction_chains(c):
    said(c, "begin isolation level serializable", "select 1/0 from users")
    assert c.ask("rollback and chain") == "C(ROLLBACK) Z(T)"
    assert c.ask("show transaction_isolation") == "T D(serializable) C(SHOW) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"
    said(c, "begin", "select 1/0 from users")
    assert c.ask("commit and chain") == "C(ROLLBACK) Z(T)"
    assert c.ask(USERS) == ANSWER + "Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


# ---- savepoints ----

def test_savepoint_before_the_first_statement(c):
    assert said(c, "begin", "savepoint s") == "C(SAVEPOINT) Z(T)"
    assert c.ask(event(0)) == "C(INSERT 0 1) Z(T)"
    assert c.ask("rollback to s") == "C(ROLLBACK) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_comments_before_the_first_statement(c):
    assert said(c, "begin -- one", "savepoint a -- two", "savepoint b", USERS) == ANSWER + "Z(T)"
    assert said(c, "rollback to b") == "C(ROLLBACK) Z(T)"
    assert said(c, "rollback to a") == "C(ROLLBACK) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_released_savepoint_binds_nothing(c):
    said(c, "begin", "savepoint s")
    assert c.ask("release s") == "C(RELEASE) Z(T)"
    assert c.ask(event(0)) == "C(INSERT 0 1) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_savepoint_after_a_write_on_the_second_leg(c, made, n):
    """An error and ROLLBACK TO lose nothing of what came before the savepoint."""
    said(c, "begin", EVENTS, insert(n))
    assert c.ask("savepoint s") == "C(SAVEPOINT) Z(T)"
    assert said(c, "select 1/0 from users", "rollback to s") == "C(ROLLBACK) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"
    assert written(made, n) == (1, 0)


def test_rollback_to_a_savepoint_whose_string_is_refused(c, door):
    said(c, "begin", "savepoint a", USERS, "savepoint b", "select 1/0 from users")
    t = c.ask("rollback to b; select * from analytics_events")
    assert "EOF" not in t and "HANG" not in t
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"
    assert door.is_running()


def test_rollback_to_brings_back_the_settings(c):
    said(c, "begin", "savepoint s", "set pgweave.database = 'analytics'", "rollback to s")
    assert c.ask("show pgweave.database") == "T D() C(SHOW) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


# ---- the settings of the session ----

@pytest.mark.parametrize("legs", [[USERS, EVENTS], [EVENTS]])
def test_set_holds_on_every_leg_and_after(c, legs):
    said(c, "begin", *legs)
    assert c.ask("set timezone = 'Asia/Tokyo'") == "C(SET) Z(T)"
    assert said(c, USERS, "show timezone") == "T D(Asia/Tokyo) C(SHOW) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"
    assert c.ask("show timezone") == "T D(Asia/Tokyo) C(SHOW) Z(I)"


def test_discard_plans_is_not_discard_all(c):
    said(c, "set pgweave.database = 'analytics'", "discard plans")
    assert c.ask("show pgweave.database") == "T D(analytics) C(SHOW) Z(I)"


def test_discard_all_counts_when_it_has_run(c):
    said(c, "set pgweave.database = 'analytics'", "begin", "select 1")
    assert "E(25001" in c.ask("discard all")
    assert said(c, "rollback", "show pgweave.database") == "T D(analytics) C(SHOW) Z(I)"
    assert c.say(pg_.parse("d", "discard all"), SYNC) == "1 Z(I)"
    assert c.ask("show pgweave.database") == "T D(analytics) C(SHOW) Z(I)"
    assert c.say(again("d"), SYNC) == "2 C(DISCARD ALL) Z(I)"
    assert c.ask("show pgweave.database") == "T D() C(SHOW) Z(I)"


def test_parsing_commit_ends_nothing(c, made):
    said(c, "begin isolation level repeatable read", USERS, EVENTS)
    assert activity.open_transactions(made) == ["bank_a", "bank_p"]
    assert c.say(pg_.parse("end", "commit"), SYNC) == "1 Z(T)"
    assert activity.open_transactions(made) == ["bank_a", "bank_p"]
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_function_call_in_a_failed_transaction(c):
    said(c, "begin", USERS)
    assert "E(0A000" in c.ask("select * from users, analytics_events")
    assert c.say(call(2026)).startswith("E(25P02")
    assert c.ask("select 1").startswith("E(25P02")
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


# ---- lost legs ----

def test_commit_after_a_written_leg_was_lost(c, made, n):
    """While another leg runs, the one that has written dies: that is no COMMIT."""
    said(c, "begin", insert(n))
    c.send(pg_.query("select pg_sleep(1), count(*) from analytics_events"))
    activity.busy(made, "pg_sleep")
    activity.terminate(made, "state ~ '^idle in'", ["bank_p"])
    c.hear()
    assert c.ask("commit") == "C(ROLLBACK) Z(I)"
    assert written(made, n) == (0, 0)


# ---- cursors ----

def test_cursor_of_a_leg_that_is_parked(c):
    """FETCH goes to the leg that has the cursor."""
    said(c, "begin", "declare c cursor for select 5 from (select count(*) from analytics_events) e", USERS)
    assert c.ask("fetch 1 from c") == "T D(5) C(FETCH 1) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_portal_of_a_leg_that_is_parked(c):
    """As drivers read with a fetch size: the portal is asked for more after other statements."""
    c.ask("begin")
    assert c.say(run("select generate_series(1, 9) from (select count(*) from users) u", name="s",
                     portal="p", rows=2), SYNC) == "1 2 D(1) D(2) s Z(T)"
    assert c.say(pg_.execute("p", 2), SYNC) == "D(3) D(4) s Z(T)"
    assert c.ask(EVENTS) == ANSWER + "Z(T)"
    assert c.say(pg_.execute("p", 2), SYNC) == "D(5) D(6) s Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


NINE = "select i from generate_series(1, 9) i, (select count(*) from {}) t order by i"
HERE, THERE = NINE.format("users"), NINE.format("analytics_events")


def test_cursors_of_two_members_side_by_side(c):
    said(c, "begin", f"declare a cursor for {HERE}", f"declare \"B\" cursor for {THERE}")
    for i in range(1, 4):
        assert c.ask("fetch a") == f"T D({i}) C(FETCH 1) Z(T)"
        assert c.ask("fetch from \"B\"") == f"T D({i}) C(FETCH 1) Z(T)"
    assert c.ask("close \"B\"") == "C(CLOSE CURSOR) Z(T)"
    assert c.ask("move 2 in a") == "C(MOVE 2) Z(T)"
    assert c.ask("fetch a") == "T D(6) C(FETCH 1) Z(T)"
    # the name is free, for any member
    assert c.ask(f"declare \"B\" cursor for {HERE}") == "C(DECLARE CURSOR) Z(T)"
    assert c.ask("fetch \"B\"") == "T D(1) C(FETCH 1) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"


def test_portals_of_two_members_side_by_side(c):
    """As a driver reads two results with a fetch size."""
    c.ask("begin")
    assert c.say(run(HERE, portal="a", rows=1), SYNC) == "1 2 D(1) s Z(T)"
    assert c.say(run(THERE, portal="b", rows=1), SYNC) == "1 2 D(1) s Z(T)"
    for i in range(2, 4):
        for portal in "ab":
            assert c.say(pg_.execute(portal, 1), SYNC) == f"D({i}) s Z(T)"
    # of both in one batch
    assert c.say(pg_.close("P", "a"), pg_.execute("b", 1), SYNC) == "3 D(4) s Z(T)"
    assert c.say(pg_.close("P", "b"), run(THERE, portal="a", rows=1), SYNC) == "3 1 2 D(1) s Z(T)"
    assert c.say(pg_.describe("P", "a"), SYNC) == "T Z(T)"
    # of both in one batch
    c.say(run(HERE, portal="b", rows=1), SYNC)
    assert c.say(pg_.execute("a", 1), pg_.execute("b", 1), SYNC) == f"D(2) s {DIFFERENT} Z(E)"
    assert c.ask("commit") == "C(ROLLBACK) Z(I)"


def test_a_cursor_of_one_member_and_a_write_on_another(c, made, n):
    said(c, "begin", f"declare a cursor for {THERE}", "fetch a", insert(n))
    assert c.ask("fetch a") == "T D(2) C(FETCH 1) Z(T)"
    assert c.ask("commit") == "C(COMMIT) Z(I)"
    assert written(made, n) == (1, 0)


def test_a_name_of_another_members_cursor_is_taken(c):
    taken = "E(42P03 cursor \"a\" already exists)"
    said(c, "begin", f"declare a cursor for {HERE}", "savepoint s")
    assert c.ask(f"declare a cursor for {THERE}") == f"{taken} Z(E)"
    said(c, "rollback to s")
    assert c.ask("fetch a") == "T D(1) C(FETCH 1) Z(T)"
    said(c, "rollback", "begin")
    assert c.say(run(HERE, portal="a", rows=1), SYNC) == "1 2 D(1) s Z(T)"
    assert c.say(run(THERE, portal="a", rows=1), SYNC) == f"1 {taken} Z(E)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_a_cursor_that_was_refused_is_nowhere(c):
    assert c.ask(f"declare c cursor for {USERS}; {EVENTS}").startswith("E(0A000")
    said(c, "begin", EVENTS)
    assert c.ask(f"declare c cursor for {USERS}") == "C(DECLARE CURSOR) Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_more_cursors_than_are_known_by_name(c):
    said(c, "begin", f"declare first cursor for {THERE}")
    for i in range(300):
        assert c.say(run(THERE, portal=f"p{i}", rows=1), SYNC) == "1 2 D(1) s Z(T)"
    assert c.ask("fetch first") == "T D(1) C(FETCH 1) Z(T)"
    assert c.say(pg_.execute("p0", 1), SYNC) == "D(2) s Z(T)"
    assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


# ---- waiting for each other ----

@pytest.mark.parametrize("timeout", [3, 0])
def test_of_two_that_wait_for_each_other_one_gives_way(proxy, made, timeout):
    """With query_wait_timeout and without: the other one goes on."""
    door = proxy(made, sections=bank.sections(made), default_pool_size=1, query_wait_timeout=timeout,
                 query_wait_notify=0)
    with Client(door.port, seconds=15) as a, Client(door.port, seconds=15) as b:
        said(a, "begin", USERS)
        said(b, "begin", EVENTS)
        a.send(pg_.query(EVENTS))
        b.send(pg_.query(USERS))
        answers = sorted([a.hear(), b.hear()])
        assert "E(40P01 no link to database" in answers[0] and answers[0].endswith("Z(E)")
        assert answers[1].endswith(ANSWER + "Z(T)")
        assert {a.ask("commit"), b.ask("commit")} == {"C(COMMIT) Z(I)", "C(ROLLBACK) Z(I)"}
        until(lambda: a.ask(EVENTS) == ANSWER + "Z(I)", 5, "the links are back")
