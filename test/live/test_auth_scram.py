"""SCRAM: verifiers passed on to servers, logins bound to certificates, exchanges that are cut,
replayed or odd, and many clients that log in or vanish at once."""
import asyncio
import base64
import os
import random
import shutil
import socket
import ssl
import struct
import threading
import time

import psycopg
import pytest

import pgproto
from poll import until
from raw import Raw, refusal

pytestmark = pytest.mark.usefixtures("only_pgweave")


@pytest.fixture
def tls(certs, tmp_path_factory):
    d = str(tmp_path_factory.mktemp("scram"))
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(os.path.join(certs, name), d)
    up = d
    while up not in ("/tmp", "/"):
        os.chmod(up, 0o755)
        up = os.path.dirname(up)
    return dict(client_tls_sslmode="allow", client_tls_cert_file=f"{d}/server.crt",
                client_tls_key_file=f"{d}/server.key")


def secret_of(pg, user):
    with pg.connect() as c:
        return c.execute("select rolpassword from pg_authid where rolname = %s",
                         [user]).fetchone()[0]


# ---- passed on ----

@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain"])
def test_verifier_of_the_server(proxy, pg, auth_type):
    """auth_file has the server's verifier, and nobody the password: it is passed on."""
    door = proxy(pg, auth_type=auth_type, default_pool_size=2, pool_mode="transaction",
                 secrets={"scram_user": secret_of(pg, "scram_user")})
    for _ in range(2):
        with door.connect(user="scram_user") as c:
            assert c.execute("select current_user").fetchone() == ("scram_user",)
    said, _ = refusal(door.port, "scram_user", password="wrong")
    assert said["C"] == "28P01"


def test_another_verifier(proxy, pg):
    """A verifier of the same password with another salt opens the proxy, not the server."""
    door = proxy(pg, auth_type="scram-sha-256", query_wait_timeout=5,
                 secrets={"scram_user": pgproto.scram_verifier("pw-scram_user")})
    said, _ = refusal(door.port, "scram_user", password="pw-scram_user")
    assert "the server's SCRAM verifier differs from the one known" in said["M"], said
    # and what the file says later holds at once
    door.proxy.write(open(door.ini).read())
    with open(os.path.join(door.dir, "users.txt"), "w") as f:
        f.write(f'"scram_user" "{secret_of(pg, "scram_user")}"\n"admin" "pw-admin"\n')
    door.reload()
    until(lambda: refusal(door.port, "scram_user", password="pw-scram_user")[0] is None, 10,
          "the new verifier is passed on")


def test_a_secret_that_changes_meanwhile(proxy, pg):
    """What a login shows belongs to the secret that it began with: when that is not the one of
    auth_file any more, it does not take the place of what opens links."""
    right = secret_of(pg, "scram_user")
    door = proxy(pg, auth_type="scram-sha-256", pool_mode="transaction", workers=1,
                 query_wait_timeout=5,
                 secrets={"scram_user": right, "alice": "0"})

    def change(secret, mark):
        with open(os.path.join(door.dir, "users.txt"), "w") as f:
            f.write(f'"scram_user" "{secret}"\n"alice" "{mark}"\n')
        door.reload()
        until(lambda: refusal(door.port, "alice", password=mark)[0] is None, 10, "it is read")
    with door.connect(user="scram_user") as one, door.connect(user="scram_user") as two:
        change(pgproto.scram_verifier("old"), "1")
        with Raw(door.port) as r:
            scram, first = begin(r, "scram_user", "old")
            change(right, "2")
            r.send(pgproto.message("p", scram.final(first)))
            assert r.until("ZE")[-1][0] == "Z"
        with one.transaction():
            assert one.execute("select 1").fetchone() == (1,)
            assert two.execute("select 1").fetchone() == (1,)


def test_users_come_and_go(proxy, pg):
    door = proxy(pg, auth_type="scram-sha-256", secrets={"alice": "one"})
    path = os.path.join(door.dir, "users.txt")
    assert refusal(door.port, "alice", password="one")[0] is None
    for text, user, password in (('"alice" "two"\n', "alice", "two"),
                                 ('"bob" "three"\n', "bob", "three")):
        with open(path, "w") as f:
            f.write(text)
        door.reload()
        until(lambda: refusal(door.port, user, password=password)[0] is None, 10, "it is known")
        assert refusal(door.port, "alice", password="one")[0]["C"] == "28P01"


@pytest.mark.parametrize("salt,iterations", [(b"s", 4096), (b"0" * 100, 4096), (b"x" * 16, 1)])
def test_odd_verifiers(proxy, pg, salt, iterations):
    """Salts of 1 and of 100 bytes, 1 iteration: on both sides, with the proof of the client
    passed on."""
    verifier = pgproto.scram_verifier("pw", iterations, salt)
    with pg.connect() as d:
        d.execute(f"alter role scram_user password '{verifier}'")
    try:
        for secret in (verifier, "pw"):
            door = proxy(pg, auth_type="scram-sha-256", secrets={"scram_user": secret})
            with door.connect(user="scram_user", password="pw") as c:
                assert c.execute("select current_user").fetchone() == ("scram_user",)
    finally:
        with pg.connect() as d:
            d.execute("set password_encryption = 'scram-sha-256'")
            d.execute("alter role scram_user password 'pw-scram_user'")


@pytest.mark.parametrize("iterations", [0, 10000000])
def test_verifiers_that_make_no_sense(proxy, pg, iterations):
    """None opens anything, none costs the proxy what it says, and none stands out."""
    secret = pgproto.scram_verifier("pw").replace("$4096:", f"${iterations}:")
    for auth_type in ("scram-sha-256", "plain"):
        door = proxy(pg, auth_type=auth_type, secrets={"alice": secret})
        began = time.monotonic()
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user="alice", database="shop")))
            if auth_type == "plain":
                assert r.message()[2] == b"\0\0\0\3"
                r.send(pgproto.password("pw"))
            else:
                r.message()
                scram = pgproto.ScramClient("pw")
                r.send(pgproto.sasl_initial("SCRAM-SHA-256", scram.first()))
                first = r.message()[2][4:]
                assert (b"i=10000000" in first) == (iterations > 0)
                r.send(pgproto.message("p", scram.final(first.split(b",i=")[0] + b",i=1")))
            assert r.message()[1]["C"] == "28P01"
        assert time.monotonic() - began < 2
        assert "login failed" in door.log()


# ---- bound to a certificate ----

def test_channel_binding(proxy, pg, certs, tls):
    door = proxy(pg, auth_type="scram-sha-256", **tls)
    for binding in ("require", "prefer", "disable"):
        with door.connect(sslmode="require", channel_binding=binding) as c:
            assert c.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="(?i)channel binding"):
        door.connect(sslmode="disable", channel_binding="require")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        door.connect(sslmode="require", channel_binding="require", password="wrong")
    # an unknown login is offered the same
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        door.connect(sslmode="require", channel_binding="require", user="nobody", password="x")


class TlsRaw(Raw):
    def __init__(self, port):
        super().__init__(port)
        self.send(pgproto.request(pgproto.SSL_REQUEST))
        assert self.need(1) == b"S"
        context = ssl._create_unverified_context()
        self.sock = context.wrap_socket(self.sock)


def first_answer(door, mechanism, header):
    with TlsRaw(door.port) as r:
        r.send(pgproto.startup(dict(user="alice", database="shop")))
        offered = r.message()[2][4:].split(b"\0")[:-2]
        assert offered == [b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"]
        r.send(pgproto.sasl_initial(mechanism, header + b"n=,r=abcdefgh"))
        type_, fields, body = r.message()
        return fields if type_ == "E" else body[:4]


def test_downgrades_are_noticed(proxy, pg, tls):
    door = proxy(pg, auth_type="scram-sha-256", **tls)
    said = first_answer(door, "SCRAM-SHA-256", b"y,,")
    assert (said["C"], said["M"]) == ("28000", "SCRAM channel binding negotiation error")
    for mechanism, header in (("SCRAM-SHA-256-PLUS", b"n,,"), ("SCRAM-SHA-256-PLUS", b"y,,"),
                              ("SCRAM-SHA-256", b"p=tls-server-end-point,,"),
                              ("SCRAM-SHA-256-PLUS", b"p=tls-unique,,")):
        assert first_answer(door, mechanism, header)["C"] == "08P01"
    assert first_answer(door, "SCRAM-SHA-256", b"n,,") == b"\0\0\0\x0b"
    assert first_answer(door, "SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,") == b"\0\0\0\x0b"


def test_binding_of_another_certificate(proxy, pg, tls):
    door = proxy(pg, auth_type="scram-sha-256", **tls)
    with TlsRaw(door.port) as r:
        r.send(pgproto.startup(dict(user="alice", database="shop")))
        r.message()
        r.send(pgproto.sasl_initial("SCRAM-SHA-256-PLUS",
                                    b"p=tls-server-end-point,,n=,r=abcdefgh"))
        nonce = r.message()[2][4:].decode().split(",")[0]
        bound = base64.b64encode(b"p=tls-server-end-point,," + bytes(32)).decode()
        proof = base64.b64encode(bytes(32)).decode()
        r.send(pgproto.message("p", f"c={bound},{nonce},p={proof}".encode()))
        said = r.message()[1]
    assert (said["C"], said["M"]) == ("28000", "SCRAM channel binding check failed")


class FakeServer(threading.Thread):
    """Offers mechanisms over TLS; keeps what the proxy chose and began with."""

    def __init__(self, certs, mechanisms):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(f"{certs}/server.crt", f"{certs}/server.key")
        self.mechanisms, self.seen = mechanisms, []
        self.start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            try:
                s.settimeout(5)
                s.recv(8)
                s.sendall(b"S")
                with self.context.wrap_socket(s, server_side=True) as t:
                    t.recv(10000)
                    t.sendall(pgproto.auth(10, b"".join(m + b"\0" for m in self.mechanisms) + b"\0"))
                    body = t.recv(10000)[5:]
                    name, _, rest = body.partition(b"\0")
                    self.seen.append((name, rest[4:].split(b"n=")[0]))
            except OSError:
                pass
            finally:
                s.close()


@pytest.mark.parametrize("mechanisms,chosen,header", [
    ([b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"], b"SCRAM-SHA-256-PLUS",
     b"p=tls-server-end-point,,"),
    ([b"SCRAM-SHA-256"], b"SCRAM-SHA-256", b"y,,")])
def test_binding_at_servers(proxy, pg, certs, mechanisms, chosen, header):
    server = FakeServer(certs, mechanisms)
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={server.port}"},
                 server_tls_sslmode="require", query_wait_timeout=5)
    assert refusal(door.port, "alice")[0] is not None
    until(lambda: server.seen, 10, "the server was logged in to")
    assert server.seen[0] == (chosen, header)
    server.listener.close()


def test_a_server_that_binds(proxy, pg, certs):
    door = proxy(pg, server_tls_sslmode="verify-full", server_tls_ca_file=f"{certs}/ca.crt")
    with door.connect(user="scram_user") as c:
        assert c.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()"
                         ).fetchone() == (True,)


# ---- exchanges that go wrong ----

def begin(r, user="alice", password="pw-alice", database="shop"):
    """(client, server-first) of an exchange."""
    r.send(pgproto.startup(dict(user=user, database=database)))
    assert r.message()[2][:4] == b"\0\0\0\x0a"
    scram = pgproto.ScramClient(password)
    r.send(pgproto.sasl_initial("SCRAM-SHA-256", scram.first()))
    return scram, r.message()[2][4:]


def test_cut_and_replayed(proxy, pg):
    door = proxy(pg, auth_type="scram-sha-256")
    with Raw(door.port) as r:
        begin(r)
    with Raw(door.port) as r:
        scram, first = begin(r)
        final = scram.final(first)
        r.send(pgproto.message("p", final)[:20])
    with Raw(door.port) as r:
        scram, first = begin(r)
        final = scram.final(first)
        r.send(pgproto.message("p", final))
        assert r.until("ZE")[-1][0] == "Z"
    # what opened it once does not open it again
    with Raw(door.port) as r:
        begin(r)
        r.send(pgproto.message("p", final))
        assert r.message()[1]["C"] == "08P01"
    for spoil in (lambda a: a.replace(b"r=", b"r=x", 1), lambda a: a.replace(b"c=biws", b"c=eSws"),
                  lambda a: a[:-8], lambda a: a + b",x=y", lambda a: b""):
        with Raw(door.port) as r:
            scram, first = begin(r)
            r.send(pgproto.message("p", spoil(scram.final(first))))
            assert r.message()[1]["C"] in ("08P01", "28P01")
            assert r.is_closed()
    assert refusal(door.port, "alice", password="pw-alice")[0] is None


def test_the_end_comes_with_the_greeting(proxy, pg):
    door = proxy(pg, auth_type="scram-sha-256")
    assert refusal(door.port, "alice", password="pw-alice")[0] is None
    with Raw(door.port) as r:
        scram, first = begin(r)
        r.send(pgproto.message("p", scram.final(first)))
        r.inbox = r.sock.recv(1 << 16)
        # all of it in what one write brings
        r.sock.close()
        said = r.until("Z")
        scram.verify(said[0][2][4:])
        assert [m[0] for m in said if m[0] != "S"] == ["R", "R", "K", "Z"]
    # nor is it lost before a refusal
    with Raw(door.port) as r:
        scram, first = begin(r, database="nowhere")
        r.send(pgproto.message("p", scram.final(first)))
        scram.verify(r.message()[2][4:])
        assert r.message()[1]["C"] == "3D000"


@pytest.mark.parametrize("salt,iterations,own", [
    (b"s" * 16, 0, ""), (b"s" * 16, 10000000, ""), (b"s" * 16, -1, ""), (b"", 4096, ""),
    (b"s" * 2000, 4096, ""), (b"s" * 16, 4096, "another"), (b"s" * 100, 4096, "x")])
def test_servers_that_ask_for_too_much(proxy, pg, salt, iterations, own):
    """A server-first that would keep a worker busy for seconds, makes no sense, or does not begin
    with the nonce of the proxy, is refused."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            with s:
                s.settimeout(5)
                try:
                    s.recv(10000)
                    s.sendall(pgproto.auth(10, b"SCRAM-SHA-256\0\0"))
                    nonce = s.recv(10000).partition(b"r=")[2].decode()
                    s.sendall(pgproto.auth(11, (f"r={own}{nonce}x,s={base64.b64encode(salt).decode()},"
                                                f"i={iterations}").encode()))
                    s.recv(10000)
                except OSError:
                    pass
    threading.Thread(target=serve, daemon=True).start()
    door = proxy(pg, {"shop": f"host=127.0.0.1 port={listener.getsockname()[1]}"},
                 server_tls_sslmode="disable", query_wait_timeout=5)
    said, seconds = refusal(door.port, "alice")
    assert said["S"] == "FATAL" and "SCRAM" in said["M"], said
    assert seconds < 4
    listener.close()


def test_many_at_once(proxy, pg):
    """Many connect at once with secrets that are asked of the server, half of them vanish at some
    stage of the login; the others get in, and nothing is left behind."""
    door = proxy(pg, auth_type="scram-sha-256", auth_user="postgres", max_client_conn=1000,
                 default_pool_size=3, pool_mode="transaction",
                 secrets={"admin": "pw-admin", "postgres": "x"})
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    fds = door.fd_count()

    async def one(stage):
        """Stages 0 to 4 end there; 5 goes on to a query."""
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)

        async def message():
            head = await reader.readexactly(5)
            return head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
        try:
            start = pgproto.startup(dict(user="scram_user", database="shop"))
            writer.write(start if stage != 1 else start[:9])
            if stage < 2:
                return None
            if stage == 2:
                await writer.drain()
                return None
            assert (await message())[1][:4] == b"\0\0\0\x0a"
            scram = pgproto.ScramClient("pw-scram_user")
            writer.write(pgproto.sasl_initial("SCRAM-SHA-256", scram.first()))
            if stage == 3:
                return None
            type_, body = await message()
            writer.write(pgproto.message("p", scram.final(body[4:])))
            if stage == 4:
                return None
            while (await message())[0] != b"Z":
                pass
            writer.write(pgproto.query("select 'in'"))
            while True:
                type_, body = await message()
                if type_ == b"D":
                    return body[6:]
        finally:
            writer.close()

    async def storm():
        stages = [dice.choice([0, 1, 2, 3, 4]) if i % 2 else 5 for i in range(300)]
        return stages, await asyncio.gather(*(one(s) for s in stages), return_exceptions=True)
    stages, results = asyncio.run(asyncio.wait_for(storm(), 120))
    assert [r for s, r in zip(stages, results) if s == 5 and r != b"in"] == []
    until(lambda: sum(int(r["cl_active"]) + int(r["cl_waiting"]) for r in door.rows("POOLS")
                      if r["database"] == "shop") == 0, 20, "no client is left")
    until(lambda: door.fd_count() <= fds + 10, 20, "no descriptor is left")
    with door.connect(user="scram_user") as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_salt_of_nobody(proxy, pg):
    """It stays through a restart, as those of logins do that exist."""
    door = proxy(pg, auth_type="scram-sha-256")

    def salt(user):
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user=user, database="shop")))
            r.until("R")
            r.send(pgproto.sasl_initial("SCRAM-SHA-256", pgproto.ScramClient("x").first()))
            return r.until("R")[-1][2].split(b"s=")[1]
    before = salt("nobody"), salt("nobody2")
    door.stop()
    door.start()
    assert (salt("nobody"), salt("nobody2")) == before and before[0] != before[1]
