"""Logins by certificate: auth_type = cert, and the lines of auth_hba_file that ask for one."""
import os
import shutil

import psycopg
import pytest

from poll import until


@pytest.fixture
def files(certs, tmp_path_factory):
    d = str(tmp_path_factory.mktemp("cert"))
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(os.path.join(certs, name), d)
    up = d
    while up not in ("/tmp", "/"):
        os.chmod(up, 0o755)
        up = os.path.dirname(up)
    return d


def settings(files, mode="verify-full", **more):
    return dict(client_tls_sslmode=mode, client_tls_cert_file=f"{files}/server.crt",
                client_tls_key_file=f"{files}/server.key",
                client_tls_ca_file=f"{files}/ca.crt", **more)


def dsn(door, certs, cert=None, **options):
    given = dict(sslmode="require", **options)
    if cert:
        given.update(sslcert=f"{certs}/{cert}.crt", sslkey=f"{certs}/{cert}.key")
        if cert == "other-ca":
            os.chmod(f"{certs}/other-ca.key", 0o600)
    return psycopg.conninfo.make_conninfo(door.dsn(**{"password": "not asked for", **given}))


def login(door, certs, cert=None, **options):
    with psycopg.connect(dsn(door, certs, cert, **options)) as c:
        return c.execute("select current_user").fetchone()[0]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_cert(proxy, pg, certs, files, mode, only_pgweave):
    door = proxy(pg, auth_type="cert", **settings(files, mode))
    assert login(door, certs, "client") == "alice"
    with pytest.raises(psycopg.OperationalError,
                       match='FATAL:  certificate authentication failed for user "bob"'):
        login(door, certs, "client", user="bob")
    # a login that is not there is refused as one of another name is
    with pytest.raises(psycopg.OperationalError,
                       match='certificate authentication failed for user "nobody"'):
        login(door, certs, "client", user="nobody")
    for cert in (None, "expired", "other-ca"):
        with pytest.raises(psycopg.OperationalError):
            login(door, certs, cert)
    log = door.log()
    assert "certificate has expired" in log and "did not return a certificate" in log
    assert 'TLS certificate name mismatch: it is for "alice"' in log
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        psycopg.connect(door.dsn(sslmode="disable"))
    # the certificate is right, and names nobody
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        login(door, certs, "nameless")


def test_cert_of_unknown_login(proxy, pg, certs, files, only_pgweave):
    """The name in the certificate is proof of nothing without a login of that name."""
    door = proxy(pg, auth_type="cert", secrets={"bob": "x", "admin": "x"}, **settings(files))
    with pytest.raises(psycopg.OperationalError,
                       match='certificate authentication failed for user "alice"'):
        login(door, certs, "client")


def write(door, name, text):
    path = os.path.join(door if isinstance(door, str) else door.dir, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def test_lines_that_ask_for_certificates(proxy, pg, certs, files, only_pgweave):
    """Where TLS asks for no certificate, a line may: one that is not right opens nothing."""
    hba = write(files, "hba.conf", """
hostssl shop alice all cert
hostssl shop admin all scram-sha-256 clientcert=verify-ca
hostssl shop stats all scram-sha-256 clientcert=verify-full
hostssl shop bob all cert map=mail
hostssl shop forced all cert map=subject clientname=DN
host all all all scram-sha-256
""")
    ident = write(files, "ident.conf", r"""
mail /^([^@]*)@example\.org$ \1
subject "CN=bob@example.org,OU=Staff,O=Bank" forced
""")
    door = proxy(pg, auth_type="hba", auth_hba_file=hba, auth_ident_file=ident,
                 **settings(files, "allow"))
    assert login(door, certs, "client") == "alice"
    assert login(door, certs, "mail", user="bob") == "bob"
    assert login(door, certs, "mail", user="forced") == "forced"
    none = "connection requires a valid client certificate"
    for cert in (None, "expired", "other-ca"):
        with pytest.raises(psycopg.OperationalError, match=none):
            login(door, certs, cert)
    for cert, user in (("mail", "alice"), ("client", "bob"), ("client", "forced"),
                       ("nameless", "alice")):
        with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
            login(door, certs, cert, user=user)
    # clientcert: the certificate, and then the password too
    assert login(door, certs, "mail", user="admin", password="pw-admin") == "admin"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(door, certs, "mail", user="admin", password="wrong")
    with pytest.raises(psycopg.OperationalError, match=none):
        login(door, certs, None, user="admin", password="pw-admin")
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        login(door, certs, "mail", user="stats", password="pw-stats")
    # who is asked for none may show what he likes
    for cert in (None, "expired", "client"):
        assert login(door, certs, cert, user="plain_user", password="pw-plain_user")
    # without TLS those lines are for nobody
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(door.dsn(sslmode="disable", password="x"))
    # names follow a reload
    write(files, "ident.conf", "mail alice bob\nsubject x forced\n")
    door.reload()
    until(lambda: not fails(door, certs, "client", user="bob"), 10, "the new map holds")
    assert fails(door, certs, "mail", user="bob")


def fails(door, certs, cert, **options):
    try:
        login(door, certs, cert, **options)
        return False
    except psycopg.OperationalError:
        return True
