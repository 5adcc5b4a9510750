"""TLS on both sides: every sslmode against every sslmode, certificates that are wrong, bytes sent
in clear behind an SSLRequest, certificates renewed by a reload."""
import os
import shutil
import socket
import ssl
import threading

import psycopg
import pytest

import pgproto
from poll import until
from raw import Raw

PROXY_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
CLIENT_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


@pytest.fixture
def tls_files(certs, tmp_path_factory):
    d = str(tmp_path_factory.mktemp("tls"))
    os.chmod(d, 0o755)
    up = d
    while up != "/tmp" and up != "/":
        os.chmod(up, 0o755)
        up = os.path.dirname(up)
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(os.path.join(certs, name), d)
    return d


def settings(tls_files, mode):
    return dict(client_tls_sslmode=mode, client_tls_cert_file=f"{tls_files}/server.crt",
                client_tls_key_file=f"{tls_files}/server.key",
                client_tls_ca_file=f"{tls_files}/ca.crt")


def is_tls(c):
    return bool(c.pgconn.ssl_in_use)


@pytest.mark.parametrize("mode", PROXY_MODES)
def test_client_side(proxy, pg, certs, tls_files, mode):
    door = proxy(pg, pool_mode="transaction", **settings(tls_files, mode))
    for client in CLIENT_MODES:
        for cert in (None, "client", "foreign"):
            options = dict(sslmode=client, host="localhost", sslrootcert=f"{certs}/ca.crt")
            if cert:
                name = "client" if cert == "client" else "other-ca"
                options.update(sslcert=f"{certs}/{name}.crt", sslkey=f"{certs}/{name}.key")
            if cert == "foreign":
                os.chmod(f"{certs}/other-ca.key", 0o600)
            needs_tls = client in ("require", "verify-ca", "verify-full")
            if mode == "disable":
                may = not needs_tls
            elif mode in ("allow", "prefer"):
                # A certificate offered for nothing may be refused or not looked at.
                may = None if cert == "foreign" else True
            elif mode == "require":
                may = None if cert == "foreign" else client != "disable"
            else:
                may = client != "disable" and cert == "client"
            dsn = psycopg.conninfo.make_conninfo(door.dsn(), hostaddr="127.0.0.1", **options)
            try:
                with psycopg.connect(dsn, autocommit=True) as c:
                    assert c.execute("select 1").fetchone() == (1,)
                    got, tls = True, is_tls(c)
            except psycopg.OperationalError as e:
                got, tls = False, str(e)
            if may is None:
                continue
            assert got == may, (mode, client, cert, tls)
            if got:
                assert tls == (needs_tls or mode in ("require", "verify-ca", "verify-full")
                               or (client == "prefer" and mode != "disable")), (mode, client, cert)


def test_client_checks_our_certificate(proxy, pg, certs, tls_files):
    """The certificate the proxy shows is the one it was given."""
    for name in ("stranger",):
        shutil.copy(f"{certs}/{name}.crt", f"{tls_files}/server.crt")
        shutil.copy(f"{certs}/{name}.key", f"{tls_files}/server.key")
    door = proxy(pg, **settings(tls_files, "require"))
    base = dict(hostaddr="127.0.0.1", host="localhost", sslrootcert=f"{certs}/ca.crt")
    with psycopg.connect(door.dsn(), sslmode="verify-ca", **base) as c:
        assert is_tls(c)
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        psycopg.connect(door.dsn(), sslmode="verify-full", **base)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(door.dsn(), sslmode="verify-ca", hostaddr="127.0.0.1", host="localhost",
                        sslrootcert=f"{certs}/other-ca.crt")


def shown_by(door, certs):
    """A function that tells whose certificate the proxy shows."""
    context = ssl.create_default_context(cafile=f"{certs}/ca.crt")
    context.check_hostname = False

    def subject():
        with socket.create_connection(("127.0.0.1", door.port), 5) as s:
            s.sendall(pgproto.request(pgproto.SSL_REQUEST))
            assert s.recv(1) == b"S"
            with context.wrap_socket(s) as t:
                return dict(x[0] for x in t.getpeercert()["subject"])["commonName"]
    return subject


def test_certificate_and_key_by_set(proxy, pg, certs, tls_files, only_pgweave):
    """SET names them one after the other, in either order: what is between changes nothing."""
    door = proxy(pg, **settings(tls_files, "require"))
    subject = shown_by(door, certs)
    admin = door.console().command
    for name, first, second, cn in (("stranger", "key", "cert", "elsewhere.example"),
                                    ("server", "cert", "key", "localhost")):
        kinds = {"key": f"{certs}/{name}.key", "cert": f"{certs}/{name}.crt"}
        was = subject()
        for kind in (first, second):
            assert subject() == was
            os.chmod(kinds[kind], 0o644)
            admin(f"SET client_tls_{kind}_file = '{kinds[kind]}'")
        until(lambda: subject() == cn, 5, "the pair is shown")
    assert door.log().count("TLS stays as it was until they go together") == 2
    with pytest.raises(Exception, match="SET failed"):
        admin(f"SET client_tls_key_file = '{certs}/there-is-none.key'")
    admin(f"SET server_tls_key_file = '{certs}/stranger.key'")
    with pytest.raises(Exception, match="SET failed"):
        admin("SET server_tls_sslmode = require")
    assert subject() == "localhost"


def test_certificate_renewed(proxy, pg, certs, tls_files, only_pgweave):
    door = proxy(pg, **settings(tls_files, "require"))
    subject = shown_by(door, certs)
    assert subject() == "localhost"
    with psycopg.connect(door.dsn(sslmode="require"), autocommit=True) as old:
        shutil.copy(f"{certs}/stranger.crt", f"{tls_files}/server.crt")
        shutil.copy(f"{certs}/stranger.key", f"{tls_files}/server.key")
        door.reload()
        until(lambda: subject() == "elsewhere.example", 5, "the new certificate is shown")
        # a file that is none changes nothing
        with open(f"{tls_files}/server.crt", "w") as f:
            f.write("no certificate\n")
        door.reload()
        until(lambda: "reload failed" in door.log() or "server.crt" in door.log(), 5, "it is logged")
        assert subject() == "elsewhere.example"
        assert old.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("mode", PROXY_MODES)
def test_server_side(proxy, pg, certs, mode):
    for host in ("127.0.0.1", "localhost"):
        door = proxy(pg, {"shop": f"host={host} port={pg.port} dbname=shop"},
                     server_tls_sslmode=mode, server_tls_ca_file=f"{certs}/ca.crt")
        with door.connect() as c:
            used, = c.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
        if mode != "allow":
            assert used == (mode != "disable")


def test_links_after_a_change(proxy, pg, certs):
    """Links that have agreed on something else are not used any more; a reload that changes
    nothing of it leaves them."""
    door = proxy(pg, pool_mode="transaction", server_tls_sslmode="disable")
    ask = "select ssl, pid from pg_stat_ssl where pid = pg_backend_pid()"
    with door.connect() as c, door.console() as k:
        used, first = c.execute(ask).fetchone()
        assert not used
        k.command("RELOAD")
        k.command("SET query_wait_timeout = 60")
        assert c.execute(ask).fetchone() == (False, first)
        c.execute("begin")
        k.command("SET server_tls_sslmode = require")
        assert c.execute(ask).fetchone() == (False, first)
        c.execute("commit")
        used, second = c.execute(ask).fetchone()
        assert used and second != first
        until(lambda: "database configuration changed" in door.log(), 5, "it is logged")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_server_side_foreign_authority(proxy, pg, certs, mode):
    door = proxy(pg, server_tls_sslmode=mode, server_tls_ca_file=f"{certs}/other-ca.crt",
                 query_wait_timeout=3)
    with pytest.raises(psycopg.OperationalError):
        door.connect()


def test_server_reached_by_tls_alone(proxy, pg):
    door = proxy(pg, {"tls_only": f"host=127.0.0.1 port={pg.port}"}, server_tls_sslmode="prefer")
    with door.connect("tls_only") as c:
        assert c.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("mode,gets_startup", [("require", True), ("verify-ca", True),
                                               ("verify-full", False)])
def test_server_of_another_name(proxy, pg, certs, mode, gets_startup):
    """A certificate of the right authority and the wrong name: verify-full alone says no, before a
    byte of the login is sent."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certs}/stranger.crt", f"{certs}/stranger.key")
    got, over = [], threading.Event()

    def serve():
        while not over.is_set():
            try:
                s, _ = listener.accept()
            except socket.timeout:
                continue
            s.settimeout(3)
            try:
                s.recv(8)
                s.sendall(b"S")
                with context.wrap_socket(s, server_side=True) as t:
                    got.append(t.recv(1000))
            except OSError:
                got.append(b"")
            finally:
                s.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    door = proxy(pg, {"shop": f"host=localhost port={listener.getsockname()[1]}"},
                 server_tls_sslmode=mode, server_tls_ca_file=f"{certs}/ca.crt",
                 query_wait_timeout=2)
    with pytest.raises(psycopg.OperationalError):
        door.connect()
    over.set()
    thread.join(5)
    listener.close()
    assert got and any(b"alice" in g for g in got) == gets_startup


def test_clear_bytes_behind_the_request(proxy, pg, tls_files):
    """Bytes sent in clear together with the SSLRequest must never be taken for what came over
    TLS."""
    door = proxy(pg, auth_type="any", databases={
        "shop": f"host=127.0.0.1 port={pg.port} dbname=shop user=forced"},
        **settings(tls_files, "prefer"))
    with Raw(door.port) as r:
        r.send(pgproto.request(pgproto.SSL_REQUEST) + pgproto.startup(dict(user="evil", database="shop"))
               + pgproto.query("select 'smuggled'"))
        r.sock.settimeout(3)
        got = b""
        try:
            while True:
                piece = r.sock.recv(4096)
                if not piece:
                    break
                got += piece
        except (socket.timeout, ConnectionError):
            pass
        assert b"smuggled" not in got and b"ReadyForQuery" not in got
        assert b"\x00\x00\x00\x05I" not in got
    with door.connect(sslmode="require") as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_broken_handshakes(proxy, pg, tls_files):
    door = proxy(pg, client_login_timeout=1, **settings(tls_files, "prefer"))
    for data in (b"", b"\x16\x03\x01\x00\x05", b"GET / HTTP/1.0\r\n\r\n", os.urandom(500)):
        with Raw(door.port) as r:
            r.send(pgproto.request(pgproto.SSL_REQUEST))
            assert r.need(1) == b"S"
            r.send(data)
            assert r.is_closed(5), data
    with door.connect(sslmode="require") as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_everything_over_tls(proxy, pg, tls_files):
    """Large values, COPY, a cancel and SCRAM with TLS on both sides."""
    door = proxy(pg, pool_mode="transaction", default_pool_size=2, auth_type="scram-sha-256",
                 server_tls_sslmode="require", **settings(tls_files, "require"))
    with door.connect(sslmode="require") as c:
        assert is_tls(c)
        assert len(c.execute("select repeat('x', 30000000)").fetchone()[0]) == 30000000
        assert c.execute("select length(%s)", ["y" * 5000000]).fetchone() == (5000000,)
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            c.execute("select pg_sleep(20)")
        timer.join()
        with c.transaction():
            c.execute("create temp table t_tls (a text) on commit drop")
            with c.cursor().copy("copy t_tls from stdin") as copy:
                for _ in range(2000):
                    copy.write("z" * 1000 + "\n")
            assert c.execute("select sum(length(a)) from t_tls").fetchone() == (2000000,)
