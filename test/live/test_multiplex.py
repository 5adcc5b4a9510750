"""Links that several clients use at once (multiplex = on): each answer goes to who asked, and only
quick plain reads of equal settings share."""
import random

import pytest

import pgproto as pg_
from poll import until
from transcript import SYNC, Client, again, run

SEED, CLIENTS, ROUNDS = 7, 24, 40
LONG = "x" * 3000


def place(pg, **more):
    return " ".join(f"{k}={v}" for k, v in dict(host="127.0.0.1", port=pg.port, dbname="shop",
                                                 user="alice", multiplex="on", **more).items())


@pytest.fixture(scope="module")
def table(pg):
    with pg.connect("shop", user="alice") as c:
        c.execute("create table if not exists mux (a int primary key, b text)")
        c.execute("insert into mux select i, 'b' || i from generate_series(1, 100) i "
                  "on conflict do nothing")
        c.execute("create or replace view mux_v as select * from mux")
        c.execute("create or replace function mux_f() returns int language sql as 'select 1'")


@pytest.fixture(scope="module")
def door(module_proxy, pg, table):
    """Whatever is not slow may share, be the machine as it may."""
    return module_proxy(pg, databases={"shop": place(pg)}, pool_mode="transaction",
                        default_pool_size=2, workers=1, multiplex_quick="20s")


def count(door, name="multiplexed"):
    return sum(int(row[name]) for row in door.rows("WORKERS"))


def client(door, **params):
    return Client(door.port, "shop", "alice", **params)


def known(door, c, *statements):
    """It is known how long statements like these take."""
    def shares(sql):
        before = count(door)
        return "E(" not in c.ask(sql) and count(door) > before
    for sql in statements:
        until(lambda: shares(sql), 5, sql)


# ---- each answer goes to who asked ----

def random_work(rng, who, turn):
    """Messages, and their transcript."""
    token = f"{who}-{turn}"
    read = f"T D({token}) C(SELECT 1) Z(I)"
    return rng.choice([
        ([f"select '{token}'"], [read]),
        ([f"select '{token}'"], [read]),
        ([f"select '{token}'", f"select '{token}'"], [read, read]),
        ([f"select b from mux where a = {turn % 100 + 1}"],
         [f"T D(b{turn % 100 + 1}) C(SELECT 1) Z(I)"]),
        ([f"select 1 / (length('{token}') - {len(token)})"],
         ["E(22012 division by zero) Z(I)"]),
        ([f"select nothing_{who}"], [f'E(42703 column "nothing_{who}" does not exist) Z(I)']),
        ([f"select '{token}' || repeat('x', 90000 + {who})"],
         [f"T D({(token + 'x' * 60)[:60]}) C(SELECT 1) Z(I)"]),
        ([f"select '{token}'; select 2"],
         [f"T D({token}) C(SELECT 1) T D(2) C(SELECT 1) Z(I)"]),
        (["begin", f"select '{token}'", "commit"],
         ["C(BEGIN) Z(T)", f"T D({token}) C(SELECT 1) Z(T)", "C(COMMIT) Z(I)"]),
        ([f"update mux set b = b where a = {who + 1}", f"select '{token}'"],
         ["C(UPDATE 1) Z(I)", read]),
    ])


def described(sql, values=(), name=None):
    """What most drivers send for a query; with a name, of what was prepared."""
    begin = pg_.parse("", sql) if name is None else b""
    return (begin + pg_.bind("", name or "", values) + pg_.describe("P", "")
            + pg_.execute("", 0) + SYNC)


def random_batch(rng, who, turn):
    """The same in batches of the extended protocol."""
    token = f"{who}-{turn}"
    read = f"D({token}) C(SELECT 1) Z(I)"
    return rng.choice([
        (described("select $1 || ''", [token]), f"1 2 T {read}"),
        (described("select $1 || ''", [token]), f"1 2 T {read}"),
        (described("", [token], name="p"), f"2 T {read}"),
        (again("p", [token]) + SYNC, f"2 {read}"),
        (described("select 1 / (a - 7) from mux where a = $1", ["7"]), "1 2 T E(22012 division by zero) Z(I)"),
        (described("select 1 / (a - 7) from mux where a = $1", ["8"]), "1 2 T D(1) C(SELECT 1) Z(I)"),
        (described("select $1::int + 1", ["seven"]),
         '1 E(22P02 invalid input syntax for type integer: "seven") Z(I)'),
        (described(f"select nothing_{who % 3}"),
         f'E(42703 column "nothing_{who % 3}" does not exist) Z(I)'),
        (described("select $1 || ''", []),
         'E(08P01 bind message supplies 0 parameters, but prepared statement "" requires 1) Z(I)'),
        (described("", [], name="p"),
         'E(08P01 bind message supplies 0 parameters, but prepared statement "p" requires 1) '
         "Z(I)"),
        (described(f"select {turn % 9} + $1::int", ["1"]),
         f"1 2 T D({turn % 9 + 1}) C(SELECT 1) Z(I)"),
        (described(f"update mux set b = b where a = {who + 1}"), "1 2 n C(UPDATE 1) Z(I)"),
        (pg_.query(f"select '{token}'"), f"T {read}"),
    ])


@pytest.mark.parametrize("statements", [200, 3])
def test_batches_get_their_own(proxy, pg, table, statements):
    """With room for a few statements on a link, too."""
    rng = random.Random(SEED + 1)
    door = proxy(pg, databases={"shop": place(pg)}, pool_mode="transaction", workers=1,
                 default_pool_size=3, multiplex_quick="20s", max_prepared_statements=statements)
    clients = [client(door) for _ in range(CLIENTS)]
    for who, c in enumerate(clients):
        assert c.say(pg_.parse("p", f"select $1 || '{'' if who % 2 else ''}'::text"), SYNC) == (
            "1 Z(I)")
    for turn in range(ROUNDS):
        asked = [(c, random_batch(rng, who, turn)) for who, c in enumerate(clients)]
        for c, (messages, _) in asked:
            c.send(messages)
        rng.shuffle(asked)
        for c, (messages, answer) in asked:
            said = c.hear()
            if "08P01" in answer and said.startswith("1 E("):
                said = said[2:]
            assert said == answer, messages
    assert count(door) > CLIENTS * 4
    assert count(door, "shared") > 0
    assert count(door, "moved") == 0
    for c in clients:
        c.sock.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_everybody_gets_its_own(proxy, pg, table, workers):
    rng = random.Random(SEED)
    door = proxy(pg, databases={"shop": place(pg)}, pool_mode="transaction", workers=workers,
                 default_pool_size=3, multiplex_quick="20s")
    clients = [client(door) for _ in range(CLIENTS)]
    for turn in range(ROUNDS):
        asked = []
        for who, c in enumerate(clients):
            if rng.random() < 0.03:  # goes in the middle of its answer, and another one comes
                c.send(pg_.query(f"select 'gone-{who}' || repeat('x', 50000)"))
                c.sock.close()
                c = clients[who] = client(door)
            texts, answers = random_work(rng, who, turn)
            c.send(*map(pg_.query, texts))
            asked.append((c, texts, answers))
        rng.shuffle(asked)
        for c, texts, answers in asked:
            assert c.hear(len(answers)) == " ".join(answers), texts
    assert count(door) > CLIENTS
    assert count(door, "moved") == 0
    for c in clients:
        c.sock.close()
    stats = [r for r in door.rows("STATS_TOTALS") if r["database"] == "shop"][0]
    assert int(stats["query_count"]) >= CLIENTS * ROUNDS
    pool = until(lambda: (p := door.pool())["sv_active"] == "0" and p)
    assert int(pool["sv_idle"]) == 3


@pytest.mark.parametrize("ends", ["1 2 T D(1) C(SELECT 1) Z(I)",
                                  "E(42703 column \"nothing\" does not exist) Z(I)"])
def test_notices_go_to_everybody(door, ends):
    """Of the text: before it is taken, or refused, and once."""
    long = "n" * 64
    sql = f"select 1 as {long}" + (", nothing" if ends[0] == "E" else "")
    says = f'N(identifier "{long}" will be truncated to "{long[1:]}") {ends}'
    clients = [client(door) for _ in "abc"]
    before = count(door)
    for _ in range(5):
        for c in clients:
            c.send(described(sql))
        for c in clients:
            assert c.hear() == says
    assert count(door) > before
    for c in clients:
        c.sock.close()


# ---- who shares ----

SHARE = ["select 1", "SELECT a FROM mux WHERE a = 3", "with x as (select 1) select * from x",
         "values (1)", "table mux_v", "select now()", "select count(*) from mux"]
NOT = ["begin", "commit", "select random()", "select mux_f()", "select a from mux for update",
       "select 1; select 2", "set work_mem = '5MB'", "reset work_mem", "show work_mem",
       "insert into mux values (1000, '')", "delete from mux where a = 1000", "select pg_sleep(0)",
       "select pg_advisory_lock_shared(1)", "select pg_advisory_unlock_all()",
       "select set_config('work_mem', '5MB', false)", "reset work_mem",
       "select currval('none')", "copy mux to stdout", "listen mux", "unlisten mux",
       "select * from pg_prepared_statements", r"select e'\x41'", "/* */ select 1", ""]


def test_who_shares(door):
    with client(door) as c:
        for sql in SHARE:
            known(door, c, sql)
        for sql in NOT:
            for _ in range(2):
                before = count(door)
                c.ask(sql)
                assert count(door) == before, sql


def test_nobody_does_without(proxy, pg, table):
    door = proxy(pg, databases={"shop": place(pg).replace("=on", "=off"), "own": place(pg)},
                 pool_mode="session", multiplex_quick="20s")
    for name in ("shop", "own"):
        with Client(door.port, name, "alice") as c:
            for _ in range(5):
                assert c.ask("select 1") == "T D(1) C(SELECT 1) Z(I)"
    assert count(door) == 0


def test_settings_differ(door):
    """Each in its own time zone."""
    ask = "select '2020-01-01 12:00+00'::timestamptz"
    zones = {"UTC": "12:00:00+00", "Asia/Tokyo": "21:00:00+09", "Asia/Kolkata": "17:30:00+05:30"}
    clients = [(client(door, TimeZone=zone), time) for zone, time in zones.items() for _ in "abc"]
    for _ in range(10):
        for c, _ in clients:
            c.send(pg_.query(ask))
        for c, time in clients:
            assert c.hear() == f"T D(2020-01-01 {time}) C(SELECT 1) Z(I)"
    for c, _ in clients:
        c.sock.close()


def test_set_follows_its_client_alone(door):
    with client(door) as a, client(door) as b:
        known(door, a, "select current_setting('work_mem') || 'a'")
        a.ask("set work_mem = '7MB'")
        for _ in range(5):
            for c in (a, b):
                c.send(pg_.query("select current_setting('work_mem') || 'a'"))
            assert a.hear() == "T D(7MBa) C(SELECT 1) Z(I)"
            assert b.hear() == "T D(4MBa) C(SELECT 1) Z(I)"


# ---- who holds up whom ----

COUNT = "select count(*) from generate_series(1, %d)"


@pytest.fixture
def quick(proxy, pg, table):
    """One link, which is given up on after 25 * 20 ms."""
    return proxy(pg, databases={"shop": place(pg)}, pool_mode="transaction", workers=1,
                 default_pool_size=2, multiplex_quick="20ms")


def behind(slow, c, others):
    """The clients' statements stand on the link of a slow one."""
    c.send(pg_.query(slow))
    until(c.is_taken)
    for i, o in enumerate(others):
        o.send(pg_.query(f"select {i}"))
        until(o.is_taken)


def test_a_slow_one_holds_nobody_up(quick):
    """Two links, one of them in a transaction: what is behind the slow one goes there after it.
    On a machine that is slow itself they do not share at first."""
    for _ in range(10):
        with client(quick) as c, client(quick) as a, client(quick) as b, client(quick) as t:
            known(quick, c, COUNT % 3, "select 7")
            for _ in range(20):  # what came before is forgotten
                c.ask(COUNT % 3)
                c.ask("select 7")
            before, moved = count(quick), count(quick, "moved")
            assert t.ask("begin") == "C(BEGIN) Z(T)"
            behind(COUNT % 200000000, c, [a, b])
            shared = count(quick) == before + 3
            if shared:
                until(lambda: count(quick, "moved") == moved + 2, 10)
            assert t.ask("commit") == "C(COMMIT) Z(I)"
            assert a.hear() == "T D(0) C(SELECT 1) Z(I)"
            assert b.hear() == "T D(1) C(SELECT 1) Z(I)"
            # alone on its link, it is cancelled by its server
            c.cancel()
            assert c.hear().endswith("E(57014 canceling statement due to user request) Z(I)")
            assert c.ask("select 9") == "T D(9) C(SELECT 1) Z(I)"
        if shared:
            return
    raise AssertionError("nobody has shared a link")


def test_cancelled_with_others_behind(door):
    """No signal is sent: the next one's statement ends well, and so does this one, for nobody."""
    with client(door) as c, client(door) as a, client(door) as t:
        known(door, c, COUNT % 3, "select 7")
        assert t.ask("begin") == "C(BEGIN) Z(T)"
        behind(COUNT % 2000000, c, [a])
        c.cancel()
        assert c.hear().endswith("E(57014 canceling statement due to user request) Z(I)")
        assert a.hear() == "T D(0) C(SELECT 1) Z(I)"
        assert t.ask("commit") == "C(COMMIT) Z(I)"
        assert c.ask("select 9") == "T D(9) C(SELECT 1) Z(I)"


def test_a_client_that_does_not_read(quick):
    """It fills what there is of buffers; whoever stands behind it is served at once elsewhere."""
    with client(quick) as c, client(quick) as a, client(quick) as t:
        large = f"select repeat('{LONG}', %d) from generate_series(1, 100)"
        known(quick, c, large % 1, "select 7")
        assert t.ask("begin") == "C(BEGIN) Z(T)"
        c.send(pg_.query(large % 60))
        a.send(pg_.query("select 8"))
        until(lambda: count(quick, "moved") <= 1 and quick.pool()["cl_waiting"] == "1")
        assert t.ask("commit") == "C(COMMIT) Z(I)"
        assert a.hear() == "T D(8) C(SELECT 1) Z(I)"
        for i in range(100):
            assert a.ask(f"select {i}") == f"T D({i}) C(SELECT 1) Z(I)"
        assert c.hear().count("D(xxx") == 100


def test_transactions_get_links_too(door):
    """Readers never stop; one that wants a link for itself has it soon."""
    readers = [client(door) for _ in range(6)]
    with client(door) as t:
        known(door, t, "select 7")
        for r in readers:
            r.send(pg_.query("select 7"))
        for turn in range(30):
            t.send(*map(pg_.query, ["begin", "select 8", "commit"]))
            for r in readers:
                assert r.hear() == "T D(7) C(SELECT 1) Z(I)"
                r.send(pg_.query("select 7"))
            assert t.hear(3).endswith("C(COMMIT) Z(I)")
        for r in readers:
            r.hear()
            r.sock.close()


# ---- operators ----

def test_operators(door):
    with client(door) as c, client(door) as a, client(door) as t, door.console() as k:
        known(door, c, COUNT % 3, "select 7")
        assert t.ask("begin") == "C(BEGIN) Z(T)"
        behind(COUNT % 3000000, c, [a])
        rows = [r for r in k.rows("SHOW CLIENTS") if r["state"] == "active" and
                r["database"] == "shop"]
        servers = {r["ptr"]: r for r in k.rows("SHOW SERVERS")}
        at = [servers[r["link"]] for r in rows]
        assert len(at) == 3 and len({s["ptr"] for s in at}) == 2
        shared = {r["ptr"] for r in rows if servers[r["link"]]["link"] == r["ptr"]}
        assert len(shared) == 2  # of those who share, the first one
        assert t.ask("commit") == "C(COMMIT) Z(I)"
        k.command("PAUSE shop")  # when both have their answers
        assert a.hear() == "T D(0) C(SELECT 1) Z(I)"
        assert c.hear() == "T D(3000000) C(SELECT 1) Z(I)"
        c.send(pg_.query("select 7"))
        assert not c.has_more()
        k.command("RESUME shop")
        assert c.hear() == "T D(7) C(SELECT 1) Z(I)"
        k.command("KILL shop")
        assert c.hear() == a.hear() == "E(57P01 admin forced disconnect) EOF"
        k.command("RESUME shop")


def test_query_timeout(proxy, pg, table):
    door = proxy(pg, databases={"shop": place(pg)}, pool_mode="transaction", workers=1,
                 default_pool_size=1, multiplex_quick="20s", query_timeout=1)
    with client(door) as c, client(door) as a:
        known(door, c, COUNT % 3, "select 7")
        behind(COUNT % 2000000000, c, [])
        assert c.hear() == "E(57014 query timeout) EOF"
        until(lambda: a.ask("select 7") == "T D(7) C(SELECT 1) Z(I)", 10)
