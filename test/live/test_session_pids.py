"""pool_mode=session: the pid of BackendKeyData is that of the server's process, and a client that has
only logged in is in nobody's way."""
import signal

import psycopg
import pytest

from poll import until

PROXYS = 1 << 22  # pids of pgweave's own begin here


def real(c):
    return c.execute("select pg_backend_pid()").fetchone()[0]


def told(c):
    return c.info.backend_pid


@pytest.fixture
def door(proxy, pg):
    return proxy(pg, pool_mode="session", default_pool_size=2, workers=1)


def test_the_servers_pid(proxy, pg):
    door = proxy(pg, pool_mode="session", default_pool_size=10, workers=2)
    clients = [door.connect(application_name=f"client {i}") for i in range(6)]
    assert len({told(c) for c in clients}) == 6
    for c in reversed(clients):
        assert told(c) == real(c) < PROXYS
    # and again on links that others have left, with what they left behind put away
    for c in clients[:3]:
        c.close()
    for _ in range(3):
        with door.connect() as c:
            assert told(c) == real(c)
            heard = []
            c.add_notify_handler(lambda n: heard.append(n.pid))
            c.execute("listen here")
            c.execute("notify here")
            assert heard == [told(c)]
    for c in clients:
        c.close()


def test_cancel(door):
    with door.connect() as c, door.connect() as other:
        assert told(c) < PROXYS
        c.add_notice_handler(lambda _: c.cancel())
        with pytest.raises(psycopg.errors.QueryCanceled):
            c.execute("do $$ begin raise notice 'now'; perform pg_sleep(30); end $$")
        assert real(c) == told(c) and real(other) == told(other)


def test_idle_clients_starve_nobody(door):
    idle = [door.connect() for _ in range(5)]
    assert [told(c) < PROXYS for c in idle] == [True, True, False, False, False]
    pool = door.pool()
    assert [int(pool[i]) for i in ("cl_active", "cl_waiting", "sv_idle")] == [5, 0, 2]
    with door.connect() as a, door.connect() as b:
        assert {real(a), real(b)} == {told(c) for c in idle[:2]}
        # whose link was taken away waits for one, as they all would
        a.close()
        assert real(idle[0]) < PROXYS
        assert real(b) < PROXYS
    for c in idle:
        c.close()


def test_a_number_that_is_taken(proxy, pg):
    door = proxy(pg, pool_mode="session", default_pool_size=1, workers=1)
    with door.connect() as first:
        with door.connect() as second:
            number = real(second)
            assert number == told(first) and told(second) >= PROXYS
        with door.connect() as third:
            assert told(third) >= PROXYS and real(third) == number
            first.cancel()  # hits nobody
            assert third.execute("select pg_sleep(0.05), 1").fetchone()[1] == 1
        assert real(first) == number
    until(lambda: int(door.pool()["sv_idle"]) == 1)
    with door.connect() as c:
        assert told(c) == real(c) == number


def test_while_paused(door):
    with door.connect() as c:
        assert told(c) == real(c)
    with door.console() as admin:
        admin.command("PAUSE shop")
        with door.connect() as c:
            assert told(c) >= PROXYS
            admin.command("RESUME shop")
            assert real(c) < PROXYS


def test_reconnect_and_kept_links(door):
    with door.connect() as c, door.console() as admin:
        admin.command("RECONNECT shop")
        until(lambda: int(door.pool()["sv_idle"]) == 0)
        assert real(c) < PROXYS
        with door.connect() as other:
            assert told(other) == real(other) != real(c)


def test_a_server_that_is_away(proxy, own_pg):
    door = proxy(own_pg, pool_mode="session", default_pool_size=3, server_login_retry=0.1)
    with door.connect() as c:
        assert told(c) == real(c)
    own_pg.halt()
    # What it says is known: logging in takes no server.
    with door.connect() as c:
        own_pg.start()
        assert until(lambda: real(c)) < PROXYS


def test_a_server_that_hangs(proxy, own_pg):
    """It lets nobody in, and the processes that there are go on."""
    door = proxy(own_pg, pool_mode="session", default_pool_size=5, workers=1,
                 server_connect_timeout=60)
    kept = door.connect()
    own_pg.process.send_signal(signal.SIGSTOP)
    try:
        with door.connect() as c:
            assert told(c) >= PROXYS > told(kept) == real(c)
    finally:
        own_pg.process.send_signal(signal.SIGCONT)
    kept.close()


def test_other_modes(proxy, pg):
    door = proxy(pg, pool_mode="transaction")
    with door.connect() as c:
        assert told(c) >= PROXYS > real(c)
