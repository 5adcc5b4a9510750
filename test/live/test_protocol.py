"""Versions of the protocol, TLS from the first byte on, and what comes before a login."""
import contextlib
import json
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading

import pytest

import fetch
import pgproto
from raw import Raw

V3_2 = 196610


@pytest.fixture(autouse=True)
def _ours(only_pgweave):
    pass


def greet(door, version, **params):
    """(version and options of NegotiateProtocolVersion or None, key) of a login."""
    with Raw(door.port) as r:
        r.send(pgproto.startup(dict(user="alice", database="shop", **params), version))
        negotiated = None
        said = r.until("ZE")
        assert said[-1][0] == "Z", said[-1]
        for type_, fields, body in said:
            if type_ == "v":
                assert said[0][0] == "v"
                spoken, count = struct.unpack_from("!Ii", body)
                names = body[8:].split(b"\0")[:-1]
                assert len(names) == count
                negotiated = spoken, names
            if type_ == "K":
                key = body[4:]
        return negotiated, key


def test_versions(proxy, pg):
    """As PostgreSQL 18: 3.2 has long keys, 3.1 is spoken as 3.0, what is later comes down to 3.2."""
    door = proxy(pg)
    for version, negotiated, size in ((0x30000, None, 4), (0x30001, None, 4), (V3_2, None, 32),
                                      (0x30003, (V3_2, []), 32), (0x3270f, (V3_2, []), 32)):
        said, key = greet(door, version)
        assert (said, len(key)) == (negotiated, size), hex(version)
    unknown = {"_pq_.one": "1", "_pq_.two": ""}
    for version in (0x30000, 0x30001, V3_2):
        assert greet(door, version, **unknown)[0] == (version, [b"_pq_.one", b"_pq_.two"])
    assert greet(door, 0x30063, **unknown)[0] == (V3_2, [b"_pq_.one", b"_pq_.two"])
    for version in (0x20000, 0x40000):
        with Raw(door.port) as r:
            r.send(pgproto.startup(dict(user="alice", database="shop"), version))
            error = r.until("E")[-1][1]
            assert (error["C"], error["M"]) == (
                "0A000", f"unsupported frontend protocol {version >> 16}.0: server supports 3.0 to 3.2")


def test_keys_at_the_console(proxy, pg):
    door = proxy(pg)
    with Raw(door.port) as r:
        r.send(pgproto.startup(dict(user="admin", database="pgbouncer"), V3_2))
        assert [len(b) for t, _, b in r.until("Z") if t == "K"] == [36]


def test_long_keys_cancel(proxy, pg):
    """A request with the key of 32 bytes hits; with a part of it, or more, it hits nobody."""
    door = proxy(pg)
    with Raw(door.port) as r:
        r.send(pgproto.startup(dict(user="alice", database="shop"), V3_2))
        pid, key = [(struct.unpack("!I", b[:4])[0], b[4:]) for t, _, b in r.until("Z") if t == "K"][0]
        r.send(pgproto.query("select pg_sleep(60)"))
        wrong = (key[:4], key[:31], key + b"x", key[:31] + bytes([key[31] ^ 1]), key + bytes(224))
        for secret in wrong + (key,):
            with Raw(door.port) as k:
                k.send(pgproto.cancel_request(pid, secret))
                assert k.is_closed()
        assert r.until("E")[-1][1]["C"] == "57014"
        r.until("Z")
        assert r.query("select 1") == ([["1"]], None)
    for size in (0, 3, 257):
        with Raw(door.port) as k:
            k.send(pgproto.cancel_request(pid, bytes(size)))
            assert k.until("E")[0][1]["C"] == "08P01"


@contextlib.contextmanager
def a_server(key):
    """A PostgreSQL that gives this key, answers what it is asked, and says what it was sent to
    cancel: (port, requests, an event: it is busy)."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests, open_, slow, busy = [], [], [], threading.Event()

    def serve(s):
        with s, contextlib.suppress(OSError, struct.error):
            need = lambda n: s.recv(n, socket.MSG_WAITALL)  # noqa: E731
            packet = need(struct.unpack("!I", need(4))[0] - 4)
            if struct.unpack("!I", packet[:4])[0] == pgproto.CANCEL_REQUEST:
                requests.append(packet[8:])
                slow[0].sendall(pgproto.error("57014", "cancelled") + pgproto.ready())
                return
            open_.append(s)
            s.sendall(pgproto.auth(0) + pgproto.key_data(7, key) + pgproto.ready())
            while head := s.recv(5, socket.MSG_WAITALL):
                text = need(struct.unpack("!I", head[1:])[0] - 4)
                if b"slow" in text:
                    slow.append(s)
                    busy.set()
                else:
                    s.sendall(pgproto.complete("OK") + pgproto.ready())

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1], requests, busy
    listener.close()
    for s in open_:
        s.close()


@pytest.mark.parametrize("size", [4, 5, 33, 256])
def test_keys_of_servers(proxy, pg, size):
    """A server's key of any length is kept, and comes back whole."""
    key = bytes(range(size - 1)) + b"!"
    with a_server(key) as (port, requests, busy):
        door = proxy(pg, {"shop": f"host=127.0.0.1 port={port}"}, server_tls_sslmode="disable")
        with Raw(door.port) as r:
            assert r.login("alice", "shop") is None
            r.send(pgproto.query("slow"))
            assert busy.wait(10)
            with Raw(door.port) as k:
                k.send(pgproto.cancel_request(*r.key))
                assert k.is_closed()
            assert r.until("E")[-1][1]["C"] == "57014"
        assert requests == [key]


# ---- TLS from the first byte on ----

@pytest.fixture
def files(certs, tmp_path):
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(f"{certs}/{name}", tmp_path)
    return dict(client_tls_cert_file=tmp_path / "server.crt", client_tls_key_file=tmp_path / "server.key",
                client_tls_ca_file=tmp_path / "ca.crt")


def context(*protocols):
    c = ssl.create_default_context()
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if protocols:
        c.set_alpn_protocols(protocols)
    return c


def shake(door, protocols, direct=True):
    """The protocol chosen, or None: refused. Then a login must work."""
    s = socket.create_connection(("127.0.0.1", door.port), 10)
    if not direct:
        s.sendall(pgproto.request(pgproto.SSL_REQUEST))
        assert s.recv(1) == b"S"
    try:
        with context(*protocols).wrap_socket(s) as t:
            t.sendall(pgproto.startup(dict(user="alice", database="shop")))
            got = t.recv(1)
            assert got in (b"R", b""), got
            return (t.selected_alpn_protocol() or "") if got else None
    except OSError:
        return None
    finally:
        s.close()


def test_alpn(proxy, pg, files):
    """Without an SSLRequest ALPN is a must; with one, whoever offers protocols offers ours."""
    door = proxy(pg, client_tls_sslmode="require", **files)
    assert shake(door, ["postgresql"]) == "postgresql"
    assert shake(door, ["h2", "postgresql"]) == "postgresql"
    assert shake(door, []) is None
    assert "direct TLS connection without ALPN" in door.log()
    assert shake(door, ["http/1.1"]) is None
    assert shake(door, ["postgresql"], direct=False) == "postgresql"
    assert shake(door, [], direct=False) == ""
    assert shake(door, ["h2"], direct=False) is None


def test_direct_is_for_the_first_byte(proxy, pg, files, tmp_path):
    """Not behind a request for encryption, not in pieces of another message, not without TLS, not
    over the unix socket; broken handshakes harm nobody."""
    door = proxy(pg, client_tls_sslmode="prefer", unix_socket_dir=tmp_path, **files)
    plain = proxy(pg, client_tls_sslmode="disable")
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    for port in (door.port, plain.port):
        for data in (hello, hello[:1], b"\x16" * 70000):
            with Raw(port) as r:
                with contextlib.suppress(OSError):
                    r.send(data)
                    r.sock.shutdown(socket.SHUT_WR)
                assert r.is_closed()
    assert "direct TLS connection, which is not offered here" in plain.log()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"{tmp_path}/.s.PGSQL.{door.port}")
        s.sendall(hello)
        assert s.recv(1) == b""
    with Raw(plain.port) as r:
        r.send(pgproto.request(pgproto.SSL_REQUEST))
        assert r.need(1) == b"N"
        r.send(hello)
        assert r.until("E")[0][1]["C"] == "08P01"
    assert shake(door, ["postgresql"]) == "postgresql"


# ---- the libpq of PostgreSQL 18 ----

LIBPQ = """
import ctypes, json, sys
pq = ctypes.CDLL("libpq.so.5")
for name in ("PQconnectdb", "PQexec", "PQcancelCreate"):
    getattr(pq, name).restype = ctypes.c_void_p
for name in ("PQerrorMessage", "PQgetvalue", "PQsslAttribute", "PQresultErrorField", "PQcancelErrorMessage"):
    getattr(pq, name).restype = ctypes.c_char_p
text = lambda b: None if b is None else b.decode()
out = []
for dsn in sys.argv[1:]:
    c = ctypes.c_void_p(pq.PQconnectdb(dsn.encode()))
    if pq.PQstatus(c) != 0:
        out.append(text(pq.PQerrorMessage(c)))
        continue
    said = dict(protocol=pq.PQfullProtocolVersion(c), alpn=text(pq.PQsslAttribute(c, b"alpn")))
    r = ctypes.c_void_p(pq.PQexec(c, b"select 1"))
    said["answer"] = text(pq.PQgetvalue(r, 0, 0))
    pq.PQsendQuery(c, b"select pg_sleep(60)")
    cancel = ctypes.c_void_p(pq.PQcancelCreate(c))
    if not pq.PQcancelBlocking(cancel):
        said["cancel"] = text(pq.PQcancelErrorMessage(cancel))
    pq.PQcancelFinish(cancel)
    pq.PQgetResult.restype = ctypes.c_void_p
    said["state"] = text(pq.PQresultErrorField(ctypes.c_void_p(pq.PQgetResult(c)), ord("C")))
    pq.PQfinish(c)
    out.append(said)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def libpq18():
    """libpq18(conninfo, …): what becomes of a connection with each: its protocol, its ALPN, the
    answer to a query, the SQLSTATE of one that it cancels; or the error."""
    path, why = fetch.pg18()
    if not path:
        pytest.skip("no PostgreSQL 18: " + why)

    def run(*dsns):
        done = subprocess.run([sys.executable, "-c", LIBPQ, *dsns], stdout=subprocess.PIPE, check=True,
                              env=fetch.environment("18"), timeout=30)
        return json.loads(done.stdout)
    return run


def test_versions_of_libpq(proxy, pg, libpq18):
    door = proxy(pg)
    given = ["min_protocol_version=3.2 max_protocol_version=3.2", "max_protocol_version=latest",
             "max_protocol_version=3.0", ""]
    said = libpq18(*(f"{door.dsn()} {g}" for g in given))
    assert said == [dict(protocol=v, alpn=None, answer="1", state="57014")
                    for v in (30002, 30002, 30000, 30000)]


def test_direct_tls_of_libpq(proxy, pg, libpq18, certs, files):
    """Cancel requests go the same way."""
    door, without = proxy(pg, client_tls_sslmode="require", **files), proxy(pg)
    dsn = door.dsn(sslmode="verify-ca", sslrootcert=f"{certs}/ca.crt")
    given = ["sslnegotiation=direct", "sslnegotiation=direct max_protocol_version=3.2",
             "sslnegotiation=postgres"]
    *said, refused = libpq18(*(f"{dsn} {g}" for g in given),
                             f"{without.dsn(sslmode='require')} sslnegotiation=direct")
    assert said == [dict(protocol=v, alpn="postgresql", answer="1", state="57014")
                    for v in (30000, 30002, 30000)]
    assert "server closed the connection" in refused or "SSL" in refused
