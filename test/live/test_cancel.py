"""Cancel: the right statement, only that, in every mode; a hail of cancels hits no neighbour."""
import random
import threading
import time

import psycopg
import pytest

import pgproto
from poll import until
from raw import Raw


def active(pg, token):
    with pg.connect() as d:
        return d.execute("select count(*) from pg_stat_activity where state = 'active' and query like "
                         "%s and pid <> pg_backend_pid()", [f"%{token}%"]).fetchone()[0]


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_cancel(proxy, any_pg, mode):
    door = proxy(any_pg, pool_mode=mode, default_pool_size=1)
    with door.connect() as c:
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            c.execute("select pg_sleep(30)")
        timer.join()
        assert c.execute("select 1").fetchone() == (1,)


def test_cancel_in_transaction(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with door.connect(autocommit=False) as c:
        c.execute("select 1")
        threading.Timer(0.3, c.cancel).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            c.execute("select pg_sleep(30)")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            c.execute("select 1")
        c.rollback()
        assert c.execute("select 1").fetchone() == (1,)


def test_cancel_of_a_large_result(proxy, pg):
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with Raw(door.port) as r:
        r.login("alice", "shop")
        r.send(pgproto.query("select repeat('x', 1000) from generate_series(1, 10000000)"))
        assert r.message()[0] == "T"
        with Raw(door.port) as k:
            k.send(pgproto.cancel_request(*r.key))
            assert k.is_closed()
        last = r.until("E")[-1]
        assert last[1]["C"] == "57014"
        assert r.until("Z")[-1][1]["status"] == "I"
        assert r.query("select 1")[0] == [["1"]]


def test_cancel_while_idle_hits_nobody(proxy, pg):
    """Idle clients cancel in a hail while another uses the only link."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with Raw(door.port) as idle, door.connect() as busy:
        idle.login("alice", "shop")
        assert idle.query("select 1")[0] == [["1"]]
        over = time.monotonic() + 1.5
        hail = []

        def fire():
            while time.monotonic() < over:
                with Raw(door.port) as k:
                    k.send(pgproto.cancel_request(*idle.key))
                    hail.append(k.is_closed())
        t = threading.Thread(target=fire)
        t.start()
        n = 0
        while time.monotonic() < over:
            assert busy.execute("select pg_sleep(0.01), %s::int", [n]).fetchone()[1] == n
            n += 1
        t.join()
        assert len(hail) > 5 and all(hail)


def test_late_cancels_hit_nobody(proxy, pg):
    """Each client cancels its own short statements at random moments; the neighbours on the same
    links, who never cancel, must never see 57014."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rnd = random.Random(seed)
    door = proxy(pg, pool_mode="transaction", default_pool_size=4)
    over = time.monotonic() + 4
    wrong, counts = [], {"cancelled": 0, "calm": 0}

    def canceller(r_seed):
        r = random.Random(r_seed)
        with Raw(door.port) as c:
            c.login("alice", "shop")
            while time.monotonic() < over:
                c.send(pgproto.query("select pg_sleep(0.03)"))
                time.sleep(r.random() * 0.045)
                with Raw(door.port) as k:
                    k.send(pgproto.cancel_request(*c.key))
                    k.is_closed()
                for type_, fields, _ in c.until("Z"):
                    if type_ == "E":
                        if fields["C"] != "57014":
                            wrong.append(fields)
                        counts["cancelled"] += 1
                    if type_ is None:
                        wrong.append("closed")
                        return

    def calm(i):
        with Raw(door.port) as c:
            c.login("alice", "shop")
            while time.monotonic() < over:
                rows, error = c.query(f"select pg_sleep(0.003), '{i}'")
                if error or rows[0][1] != str(i):
                    wrong.append((error, rows))
                    return
                counts["calm"] += 1
    threads = [threading.Thread(target=canceller, args=(rnd.random(),)) for _ in range(4)]
    threads += [threading.Thread(target=calm, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert not wrong, wrong[:3]
    assert counts["cancelled"] and counts["calm"]


def test_cancel_of_a_waiting_client(proxy, pg):
    """A client that waits for a link gives up by closing; the one who runs is not hurt."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    with door.connect(autocommit=False) as holder, Raw(door.port) as waiter:
        holder.execute("select 1")
        waiter.login("alice", "shop")
        waiter.send(pgproto.query("select 'waited'"))
        with Raw(door.port) as k:
            k.send(pgproto.cancel_request(*waiter.key))
            assert k.is_closed()
        assert holder.execute("select pg_sleep(0.2), 1").fetchone()[1] == 1
        holder.commit()
        got = waiter.until("Z")
        assert got[-1][0] == "Z" or any(m[0] == "E" for m in got)


def test_keys_differ(proxy, pg):
    door = proxy(pg, pool_mode="transaction")
    clients = [Raw(door.port) for _ in range(30)]
    for c in clients:
        assert c.login("alice", "shop") is None
    assert len({c.key for c in clients}) == 30
    assert len({c.key[1] for c in clients}) == 30
    for c in clients:
        c.sock.close()


def test_psycopg2_cancel(proxy, pg):
    import psycopg2
    door = proxy(pg, pool_mode="transaction", default_pool_size=1)
    c = psycopg2.connect(door.dsn())
    c.autocommit = True
    t = threading.Thread(target=lambda: (until(lambda: active(pg, "token-p2"), 10), c.cancel()))
    t.start()
    with pytest.raises(psycopg2.errors.QueryCanceled):
        c.cursor().execute("select pg_sleep(30), 'token-p2'")
    t.join()
    c.close()
