"""Certificates for the TLS tests: one authority, a certificate for a server (localhost,
127.0.0.1), some for clients (alice; alice, expired; bob@example.org of an organisation; one
without a common name), and another authority that signed none of them."""
import os
import subprocess


def _openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def _authority(d, name):
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{d}/{name}.key",
             "-out", f"{d}/{name}.crt")


def _certificate(d, name, subject, alt=None, days=2):
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
             subject if subject.startswith("/") else f"/CN={subject}", "-keyout", f"{d}/{name}.key", "-out", f"{d}/{name}.csr")
    ext = f"{d}/{name}.ext"
    with open(ext, "w") as f:
        f.write(f"subjectAltName={alt}\n" if alt else "basicConstraints=CA:FALSE\n")
    _openssl("x509", "-req", "-in", f"{d}/{name}.csr", "-CA", f"{d}/ca.crt", "-CAkey",
             f"{d}/ca.key", "-CAcreateserial", "-days", str(days), "-extfile", ext, "-out",
             f"{d}/{name}.crt")


def make(directory):
    _authority(directory, "ca")
    _authority(directory, "other-ca")
    _certificate(directory, "server", "localhost", "DNS:localhost,IP:127.0.0.1")
    _certificate(directory, "stranger", "elsewhere.example", "DNS:elsewhere.example")
    _certificate(directory, "client", "alice")
    _certificate(directory, "expired", "alice", days=-1)
    _certificate(directory, "mail", "/O=Bank/OU=Staff/CN=bob@example.org")
    _certificate(directory, "nameless", "/O=Bank")
    for name in os.listdir(directory):
        os.chmod(os.path.join(directory, name), 0o644)
    for name in ("client.key", "expired.key", "mail.key", "nameless.key"):
        os.chmod(os.path.join(directory, name), 0o600)
    return directory
