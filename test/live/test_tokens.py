"""Unique tokens: many clients on few links, each asking for tokens of its own by simple, extended
and prepared statements, pipelines and transactions, while clients and backends are killed and
statements cancelled at random. Not one answer may be another's.

TOKENS_CLIENTS (200), TOKENS_SECONDS (20), TOKENS_SEED."""
import os
import random
import selectors
import socket
import struct
import threading
import time

import pgproto
from proxy import is_standin
from raw import Raw

CLIENTS = int(os.environ.get("TOKENS_CLIENTS", "200"))
SECONDS = float(os.environ.get("TOKENS_SECONDS", "20"))
SEED = int(os.environ.get("TOKENS_SEED", "0")) or random.randrange(1 << 30)


class Foreign(AssertionError):
    pass


class Client:
    """A state machine on a non-blocking socket: one exchange at a time, then the next."""

    def __init__(self, world, number):
        self.world, self.number, self.rnd = world, number, random.Random(SEED * 1000 + number)
        self.serial, self.sock = 0, None
        self.open()

    def open(self):
        self.close()
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock.connect(("127.0.0.1", self.world.port))
        except BlockingIOError:
            pass
        self.inbox, self.outbox = b"", pgproto.startup(dict(user="alice", database="shop"))
        self.key, self.prepared, self.expected, self.readies = None, set(), None, 1
        self.may_fail, self.since = False, time.monotonic()
        self.world.selector.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def close(self):
        if self.sock is not None:
            try:
                self.world.selector.unregister(self.sock)
            except KeyError:
                pass
            self.sock.close()

    def token(self):
        self.serial += 1
        return f"tok-{self.number}-{self.serial}-{self.rnd.randrange(1 << 40):x}"

    def begin(self):
        """The next exchange: what is sent, and which tokens must come back in which order."""
        kind, t = self.rnd.random(), self.token()
        self.expected, self.readies, out = [t], 1, b""
        if kind < 0.25:
            out = pgproto.query(f"select '{t}'")
        elif kind < 0.45:
            out = self.extended("", t, parse=True) + pgproto.SYNC
        elif kind < 0.65 and not is_standin():
            name = f"s{self.rnd.randrange(4)}"
            out = self.extended(name, t, parse=name not in self.prepared) + pgproto.SYNC
            self.prepared.add(name)
        elif kind < 0.75:
            ts = [t] + [self.token() for _ in range(self.rnd.randrange(1, 8))]
            self.expected = ts
            if is_standin():
                out = b"".join(self.extended("", x, parse=True) for x in ts) + pgproto.SYNC
            else:
                self.readies = len(ts)
                out = b"".join(self.extended("", x, parse=True) + pgproto.SYNC for x in ts)
        elif kind < 0.85:
            u = self.token()
            self.expected, self.readies = [t, u], 4
            out = b"".join(pgproto.query(q) for q in (
                "begin", f"select '{t}'", f"select '{u}'", "commit"))
            if is_standin():
                self.readies, out = 1, pgproto.query(f"begin; select '{t}'; select '{u}'; commit")
        elif kind < 0.93:
            size = self.rnd.randrange(1, 200000)
            self.expected = [t + "x" * size]
            out = pgproto.query(f"select '{t}' || repeat('x', {size})")
        else:
            out = pgproto.query(f"select '{t}' from pg_sleep({self.rnd.random() * 0.05:.4f})")
        self.got, self.outbox, self.since = [], out, time.monotonic()
        roll = self.rnd.random()
        self.dies = roll < self.world.deaths
        if self.world.deaths <= roll < self.world.deaths * 2:
            self.world.cancel(self)

    def extended(self, name, token, parse):
        out = b""
        if parse:
            # the same text for all clients, so that statements are shared
            out = pgproto.parse(name, f"select $1::text /* {name[1:] if name else 'u'} */")
        return out + pgproto.bind("", name, [token]) + pgproto.execute()

    def message(self, type_, body):
        if type_ == "R":
            code, = struct.unpack("!I", body[:4])
            if code != 0:
                raise AssertionError(f"asked for a password ({code})")
        elif type_ == "K":
            self.key = struct.unpack("!I", body[:4])[0], body[4:]
        elif type_ == "D":
            value = pgproto.decode(True, "D", body)["1"]
            place = len(self.got)
            if self.may_fail and value in (self.expected or [])[place:]:
                # an error has swallowed what stood before it in the pipeline
                self.got += [None] * (self.expected.index(value) - place)
                place = len(self.got)
            if self.expected is None or place >= len(self.expected) or value != self.expected[place]:
                want = None if self.expected is None else self.expected[place:place + 1]
                raise Foreign(f"client {self.number} got {str(value)[:80]!r}, wants {str(want)[:80]}")
            self.got.append(value)
        elif type_ == "E":
            fields = pgproto.decode(True, "E", body)
            code = fields.get("C", "")
            # what our own cancels and the killing of backends may bring about
            if not (code in ("57014", "57P01", "25P02", "26000") or code[:2] == "08" or is_standin()):
                raise AssertionError(f"client {self.number}: {fields}")
            self.may_fail = True
            self.world.errors[code] = self.world.errors.get(code, 0) + 1
        elif type_ == "Z":
            self.readies -= 1
            if self.readies == 0:
                if self.expected is not None:
                    if self.got != self.expected and not self.may_fail:
                        raise Foreign(f"client {self.number} got {len(self.got)} rows of "
                                      f"{len(self.expected)} and no error")
                    self.world.answers += 1
                if self.may_fail:
                    # a failed batch may have lost a Parse, and a pipeline its COMMIT
                    self.may_fail, failed = False, True
                else:
                    failed = False
                if failed and self.rnd.random() < 0.8:
                    return "open"
                if failed:
                    self.prepared.clear()
                    return "open"
                return "begin"
        return None

    def readable(self):
        while True:
            try:
                piece = self.sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                piece = b""
            if not piece:
                # a closed connection must be of our making or come after an error
                self.world.closed += 1
                self.open()
                return
            self.inbox += piece
            while len(self.inbox) >= 5:
                size, = struct.unpack_from("!I", self.inbox, 1)
                if len(self.inbox) < size + 1:
                    break
                type_, body = chr(self.inbox[0]), self.inbox[5:size + 1]
                self.inbox = self.inbox[size + 1:]
                then = self.message(type_, body)
                if then == "open":
                    self.open()
                    return
                if then == "begin":
                    if self.inbox[:1] == b"E" and b"SFATAL" in self.inbox[:20]:
                        # its link died behind its answer: no harm in being told
                        self.world.told += 1
                        self.open()
                        return
                    if self.inbox:
                        raise Foreign(f"client {self.number} has more than its answer: "
                                      f"{self.inbox[:60]!r}")
                    self.begin()
                    self.writable()

    def writable(self):
        if self.outbox:
            try:
                n = self.sock.send(self.outbox)
            except BlockingIOError:
                return
            except OSError:
                return
            self.outbox = self.outbox[n:]
        if not self.outbox:
            if self.expected is not None and self.dies:
                self.world.deaths_done += 1
                if self.rnd.random() < 0.5:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                         struct.pack("ii", 1, 0))
                self.open()
                return
            self.world.selector.modify(self.sock, selectors.EVENT_READ, self)
        else:
            self.world.selector.modify(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)


class World:
    def __init__(self, port, deaths):
        self.port, self.deaths = port, deaths
        self.selector = selectors.DefaultSelector()
        self.answers = self.closed = self.told = self.deaths_done = self.cancels = 0
        self.errors, self.wanted, self.lock = {}, [], threading.Lock()

    def cancel(self, client):
        if client.key:
            with self.lock:
                self.wanted.append(client.key)

    def cancelling(self, over):
        """A thread of its own: cancel requests are connections."""
        while not over.is_set():
            with self.lock:
                keys, self.wanted = self.wanted, []
            for key in keys:
                try:
                    with Raw(self.port) as k:
                        k.send(pgproto.cancel_request(*key))
                        k.is_closed(10)
                    self.cancels += 1
                except OSError:
                    pass
            over.wait(0.005)


def run(door, pg, seconds, deaths, kills):
    print("seed", SEED)
    world, over = World(door.port, deaths), threading.Event()
    threads = [threading.Thread(target=world.cancelling, args=(over,))]

    def killing():
        rnd = random.Random(SEED)
        with pg.connect() as d:
            while not over.wait(0.1 + rnd.random() * 0.3):
                d.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = "
                          "'alice' order by random() limit 1")
    if kills:
        threads.append(threading.Thread(target=killing))
    for t in threads:
        t.start()
    clients = [Client(world, i) for i in range(CLIENTS)]
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            for key, events in world.selector.select(0.2):
                client = key.data
                if key.fileobj is not client.sock:
                    continue
                if events & selectors.EVENT_WRITE:
                    client.writable()
                    if key.fileobj is not client.sock:
                        continue
                if events & selectors.EVENT_READ:
                    client.readable()
            now = time.monotonic()
            for client in clients:
                assert now - client.since < 20, f"client {client.number} hangs"
    finally:
        over.set()
        for t in threads:
            t.join(15)
        for client in clients:
            client.close()
    print(f"{world.answers} answers, {world.deaths_done} clients killed, {world.cancels} cancels, "
          f"{world.closed} connections closed by the proxy, errors {world.errors}")
    return world


def test_tokens_quiet(proxy, pg):
    """Nobody dies: not one error, not one closed connection."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=7, max_client_conn=1000,
                 listen_backlog=1000)
    world = run(door, pg, max(3, SECONDS / 5), 0, False)
    assert world.answers > CLIENTS
    assert not world.errors and not world.closed


def test_tokens(proxy, pg, only_pgweave):
    """With clients and backends dying and statements cancelled at random."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=7, max_client_conn=1000,
                 listen_backlog=1000, server_login_retry=1)
    world = run(door, pg, SECONDS, 0.02, True)
    assert world.answers > CLIENTS
    with door.connect() as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_tokens_session(proxy, pg):
    """Session mode: fewer clients than links, each keeps its own."""
    global CLIENTS
    door = proxy(pg, pool_mode="session", default_pool_size=60, max_client_conn=1000)
    before, CLIENTS = CLIENTS, 40
    try:
        world = run(door, pg, max(3, SECONDS / 6), 0.02, False)
    finally:
        CLIENTS = before
    assert world.answers > 40
