"""Names of 64 kB, and clients in thousands that vanish while they log in."""
import contextlib
import resource
import select
import socket

import pytest

import pgproto
from poll import until
from raw import Raw

LONG = "n" * 65536
MARK = "the mark"


@pytest.fixture(autouse=True)
def _ours(only_pgweave):
    pass


def batches():
    """Batches that name things at length."""
    p = pgproto
    parse = p.parse(LONG, "select 1")
    yield "named", parse + p.bind("", LONG) + p.execute() + p.SYNC + p.bind("", LONG) + p.execute() + p.SYNC
    yield "both", parse + p.bind(LONG, LONG) + p.SYNC
    yield "again", parse + p.SYNC + parse + p.SYNC
    yield "missing", p.bind("", LONG) + p.SYNC
    yield "portal", p.parse("", "select 2") + p.bind(LONG, "") + p.execute("x") + p.SYNC
    yield "identifiers", p.query(f'select 1 as "{LONG}"') + p.query(f'select "{LONG}"') \
        + p.query(f'set "{LONG}" = 1') + p.query(f'prepare "{LONG}" as select 3') \
        + p.query(f'execute "{LONG}"') + p.query(f'deallocate "{LONG}"')
    # PostgreSQL takes no more than 10,000 bytes of these, and hangs up
    for small in (p.describe("S", LONG), p.describe("P", LONG), p.execute(LONG), p.close("S", LONG)):
        yield "small", small + p.SYNC
    yield "nothing", b"".join(p.message(t, b"n" * 65536) for t in "BDC")


def answers(port, data, user="alice"):
    """Everything that comes back, up to a mark behind the data, or to the end."""
    with Raw(port) as r:
        assert r.login(user, "shop") is None
        r.send(data, pgproto.query(f"select '{MARK}'"))
        said = []
        while True:
            try:
                type_, fields, body = r.message()
            except (EOFError, ConnectionError):
                return said + ["closed"]
            if type_ == "E" and fields["C"] == "08006":
                return said + ["lost"]
            if type_ == "E":
                body = (fields["S"], fields["C"], fields["M"])
            if type_ not in "NS":
                said.append((type_, body))
            if type_ == "D" and MARK.encode() in body:
                return said + [MARK]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_long_names(proxy, pg, mode):
    """Answered as by the server itself; what makes no sense ends the one connection."""
    door = proxy(pg, pool_mode=mode, default_pool_size=1)
    for what, data in batches():
        if what in ("small", "nothing"):
            how = answers(door.port, data)[-1]
            assert how in ("closed", "lost") or (what, how) == ("small", MARK)
            continue
        assert answers(door.port, data) == answers(pg.port, data), what
    for params in (dict(user=LONG, database="shop"), dict(user="alice", database=LONG),
                   dict(user="alice", database="shop", application_name=LONG),
                   {"user": "alice", "database": "shop", LONG: "1"}):
        with Raw(door.port) as r:
            r.send(pgproto.startup(params))
            assert r.until("E")[-1][1]["C"] == "08P01"
    # as long as a startup packet can be
    with Raw(door.port) as r:
        assert r.login("a" * 9000, "shop")["C"] == "28000"
    with Raw(door.port) as r:
        assert r.login("alice", "d" * 9000)["C"] == "3D000"
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)


COUNT = 2000


def test_thousands_vanish(proxy, pg):
    """2,000 connect at once and half of them vanish at some stage of the login: the others are
    served, and no descriptor, place in a pool or memory is kept for those who left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * COUNT:
        pytest.skip(f"no more than {hard} descriptors")
    raise_limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * COUNT), hard))  # noqa: E731
    raise_limit()
    door = proxy(pg, max_client_conn=COUNT + 100, default_pool_size=3, auth_type="md5",
                 preexec=raise_limit, workers=2, log_connections=0, log_disconnections=0)
    fds = door.fd_count()
    grown = []
    try:
        for _ in range(2):
            storm(door)
            until(lambda: len(door.rows("CLIENTS")) == 1, 10, "nobody is left")
            until(lambda: door.fd_count() <= fds + 10, 10, "no descriptor is left")
            grown.append(door.rss_kb())
        assert grown[1] - grown[0] < 8000
        pool = door.pool()
        assert (pool["cl_active"], pool["cl_waiting"], pool["sv_active"]) == ("0", "0", "0")
        assert int(pool["sv_idle"]) <= 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def storm(door):
    hello = pgproto.startup(dict(user="alice", database="shop"))
    clients = []
    with contextlib.ExitStack() as stack:
        for _ in range(COUNT):
            s = stack.enter_context(socket.create_connection(("127.0.0.1", door.port), 20))
            clients.append(s)
        # without a byte, within the packet, behind it, behind the password, behind a query
        stages = (b"", hello[:9], hello, hello, hello)
        for i, s in enumerate(clients):
            s.sendall(stages[i // 2 % 5] if i % 2 else hello)
        waits = {s.fileno(): (s, bytearray(), i % 2 and i // 2 % 5) for i, s in enumerate(clients)}
        poll = select.epoll()
        stack.callback(poll.close)
        for i, s in enumerate(clients):
            if i % 2 and i // 2 % 5 < 3:
                del waits[s.fileno()]
                s.close()
            else:
                poll.register(s, select.EPOLLIN)
        served = 0
        while waits:
            ready = poll.poll(20)
            assert ready, f"{len(waits)} clients hear nothing"
            for fd, _ in ready:
                s, got, stage = waits[fd]
                piece = s.recv(65536)
                assert piece, "closed"
                got += piece
                if got[:5] == b"R\0\0\0\x0c" and len(got) == 13:
                    s.sendall(pgproto.password(pgproto.md5_answer("alice", "pw-alice", bytes(got[9:13]))))
                    over = stage == 3
                elif got.endswith(b"Z\0\0\0\5I") and b"in and out" not in got:
                    s.sendall(pgproto.query("select 'in and out'"))
                    over = stage == 4
                else:
                    over = got.endswith(b"Z\0\0\0\5I")
                    served += over
                if over:
                    poll.unregister(fd)
                    del waits[fd]
                    s.close()
        assert served == COUNT // 2
