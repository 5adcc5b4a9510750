"""PREPARE, EXECUTE and DEALLOCATE as SQL on virtual databases: EXECUTE goes where the statement
would go with these arguments in it, by each protocol."""
import pytest

import bank
import pgproto as pg_
from poll import until
from transcript import SYNC, Client, run

pytestmark = pytest.mark.usefixtures("only_pgweave")
WHERE = "select current_database(), balance from accounts where user_id = $1"


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    made = module_proxy(pg, sections=bank.sections(pg), default_pool_size=2)
    # rows without names of columns need the catalogs, which are read behind the start
    with Client(made.port) as c:
        until(lambda: "without its" not in c.ask("explain (route) insert into accounts values (1, 1)"), 8)
    return made


def database(transcript):
    """bank_x of D(bank_x|…)"""
    assert " D(bank_" in transcript, transcript
    return transcript.split(" D(")[1].split("|")[0].rstrip(")").split(")")[0]


@pytest.mark.parametrize("types, argument, expected", [
    ("", "41", "bank_s"), ("", "42", "bank_p"), ("(int)", "41", "bank_s"), ("(bigint)", "'42'", "bank_p"),
    ("", "'41'", "bank_s"), ("(int)", "+041", "bank_s"), ("", "bigint '42'", "bank_p"),
    ("", "$$41$$", "bank_s"), ("", "'42'::int", "bank_p")])
def test_execute_goes_to_its_shard(door, types, argument, expected):
    with Client(door.port) as c:
        assert c.ask(f"prepare p {types} as {WHERE}") == "C(PREPARE) Z(I)"
        for _ in range(2):
            assert database(c.ask(f"execute p ({argument})")) == expected
            assert c.value("show pgweave.routed") == {"bank_s": "secondary", "bank_p": "primary"}[expected]
        got = c.say(run(f"execute p({argument})"), SYNC)
        assert got.startswith("1 2 D(") and database(got) == expected, got
        assert c.ask("deallocate p") == "C(DEALLOCATE) Z(I)"
        assert c.ask(f"execute p ({argument})") == (
            'E(26000 prepared statement "p" does not exist) Z(I)')


def test_arguments_that_name_no_shard(door):
    with Client(door.port) as c:
        c.ask(f"prepare p (int) as {WHERE}")
        assert c.ask("execute p (null)") == "T C(SELECT 0) Z(I)"
        assert c.ask("execute p (40 + 1)").startswith("E(0A000 EXECUTE with arguments cannot go")
        c.ask("prepare i (int, int) as insert into accounts values ($1, $2)")
        assert "is not known before the statement runs" in c.ask("execute i (1000 + 1, 5)")
        assert "null value in shard key" in c.ask("execute i (null, 5)")


def test_writes_and_transactions(door, pg):
    with Client(door.port) as c:
        c.ask("prepare i (int, numeric) as insert into accounts values ($1, $2)")
        c.ask("prepare d as delete from accounts where user_id = $1 returning current_database()")
        assert c.ask("execute i (2001, 5)") == "C(INSERT 0 1) Z(I)"
        assert c.ask("begin") == "C(BEGIN) Z(T)"
        assert database(c.ask("execute d (2001)")) == "bank_s"
        assert "E(0A000" in c.ask("execute i (2002, 5)")  # a second written member
        assert c.ask("rollback") == "C(ROLLBACK) Z(I)"
        assert c.ask("begin; execute i (2002, 5); commit") == "C(BEGIN) C(INSERT 0 1) C(COMMIT) Z(I)"
        assert database(c.ask("execute d (2001)")) == "bank_s"
        assert database(c.ask("execute d (2002)")) == "bank_p"
        assert c.ask("begin") == "C(BEGIN) Z(T)"
        assert "E(42703" in c.ask("prepare bad as select nosuch from users")
        assert "E(25P02" in c.ask("execute d (2001)")
        assert c.ask("rollback") == "C(ROLLBACK) Z(I)"


def test_strings(door):
    with Client(door.port) as c:
        assert database(c.ask(f"prepare p as {WHERE}; execute p (41); deallocate p")) == "bank_s"
        assert database(c.ask(f"prepare p as {WHERE}; execute p (42); deallocate p")) == "bank_p"
        c.ask(f"prepare p as {WHERE}")
        got = c.ask("execute p (41); execute p (42)")
        assert got.startswith("E(0A000 the statements of one string belong"), got
        assert database(c.ask("deallocate p; prepare p as select current_database() "
                              "from analytics_events right join (select 1) x on true; execute p")) == "bank_a"
        assert database(c.ask("execute p")) == "bank_a"


def test_hints_and_tables(door):
    with Client(door.port) as c:
        c.ask("prepare h as /* pgweave: database=analytics */ select current_database()")
        c.ask("prepare n as select current_database() from secondary.public.users limit 1")
        assert database(c.ask("execute h")) == "bank_a"
        assert database(c.ask("/* pgweave: database=secondary */ execute h")) == "bank_s"
        assert database(c.ask("execute h")) == "bank_a"
        assert database(c.ask("execute n")) == "bank_s"
        assert "bank_s" in c.ask("explain (route) execute n") or "secondary" in c.ask("explain (route) execute n")
        c.ask(f"prepare p as {WHERE}")
        assert "secondary" in c.ask("explain (route) execute p (41)").split("C(EXPLAIN")[0]
        assert c.ask("explain (costs off) execute p (41)").startswith("T D(")
        assert c.ask("create temp table t on commit drop as execute p (41)").startswith(
            ("E(0A000", "C(SELECT 1)", "C(CREATE"))


def test_names_of_parse(door):
    with Client(door.port) as c:
        assert c.say(pg_.parse("p", WHERE, (23,)), SYNC) == "1 Z(I)"
        assert database(c.ask("execute p (41)")) == "bank_s"
        assert database(c.ask("execute p (42)")) == "bank_p"
        assert c.ask(f"prepare p as {WHERE}") == 'E(42P05 prepared statement "p" already exists) Z(I)'
        c.ask(f"prepare q (int) as {WHERE}")
        for key, expected in (("41", "bank_s"), ("42", "bank_p"), ("43", "bank_s")):
            got = c.say(pg_.bind("", "q", (key,)), pg_.execute(""), SYNC)
            assert database(got) == expected, got


def test_federated(door):
    with Client(door.port) as c:
        c.ask("prepare n as select count(*) from users")
        c.ask("prepare p (int) as select count(*) from users where id = $1")
        one = c.ask("execute n")
        c.ask("set pgweave.databases = 'primary,secondary'")
        c.ask("set pgweave.federation = 'merge'")
        assert c.ask("execute n") == "T D(100) C(SELECT 1) Z(I)" != one
        assert c.say(run("execute n"), SYNC) == "1 2 D(100) C(SELECT 1) Z(I)"
        assert c.ask("execute p (1)").startswith("E(0A000 EXECUTE with arguments cannot go")
        assert c.ask("prepare m as select max(id) from users") == "C(PREPARE) Z(I)"
        assert c.ask("execute m") == "T D(119) C(SELECT 1) Z(I)" or "D(" in c.ask("execute m")


def test_links_stay_clean(door, pg):
    """What one client prepares is no other's, and needs no reset of the link."""
    with Client(door.port) as a, Client(door.port) as b:
        a.ask("prepare p as select 1")
        b.ask("prepare p as select 2")
        for _ in range(3):
            assert a.ask("execute p") == "T D(1) C(SELECT 1) Z(I)"
            assert b.ask("execute p") == "T D(2) C(SELECT 1) Z(I)"
        a.ask("deallocate all")
        assert a.ask("execute p").startswith("E(26000 ")
        assert b.ask("execute p") == "T D(2) C(SELECT 1) Z(I)"


def test_replica_reads_and_key(door):
    with Client(door.port, **bank.key(1)) as c:
        c.ask("prepare p as select current_database()")
        assert database(c.ask("execute p")) == "bank_s"
