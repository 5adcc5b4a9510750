"""The virtual database bank over three databases of one cluster: primary, secondary, analytics
(bank_p, bank_s, bank_a on the server, so that current_database() tells where a statement went)."""

MEMBERS = {"primary": "bank_p", "secondary": "bank_s", "analytics": "bank_a"}
KEYS = {  # key id -> secret; the verifiers stand in the sections below
    "vb_" + "1" * 32: "a" * 48, "vb_" + "2" * 32: "b" * 48, "vb_" + "3" * 32: "c" * 48,
    "vb_" + "4" * 32: "d" * 48, "vb_" + "5" * 32: "e" * 48}

USERS = """create table users (id int primary key, name text not null, country text,
    updated_at timestamptz not null default now())"""


def verifier(secret):
    """A SCRAM verifier, as CREATE KEY keeps it."""
    import base64
    import hashlib
    import hmac
    salt = b"0123456789abcdef"
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 4096)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    b64 = lambda b: base64.b64encode(b).decode()  # noqa: E731
    return f"SCRAM-SHA-256$4096:{b64(salt)}${b64(stored)}:{b64(server)}"


def create(pg):
    """Makes the databases anew, with sample data."""
    with pg.connect("postgres") as c:
        for name in MEMBERS.values():
            c.execute(f"drop database if exists {name} with (force)")
            c.execute(f"create database {name} owner alice")
    for member, name in MEMBERS.items():
        with pg.connect(name, user="alice") as c:
            c.execute(USERS)
            if member != "analytics":
                c.execute("create table accounts (user_id int primary key, balance numeric(12,2))")
                odd = member == "secondary"
                c.execute("insert into users select 2 * i - %s, 'user ' || i, 'DE' from "
                          "generate_series(1, %s) i", (1 if odd else 0, 40 if odd else 60))
                c.execute("insert into accounts select id, 100 + id from users")
            else:
                c.execute("create table analytics_events (id int generated always as identity, "
                          "user_id int, kind text)")
                c.execute("create schema archive")
                c.execute("create table archive.old (id int)")


def sections(pg, extra="", virtual=""):
    text = ""
    for member, name in MEMBERS.items():
        text += (f"[database {member}]\nhost = 127.0.0.1\nport = {pg.port}\ndbname = {name}\n"
                 "user = alice\npassword = pw-alice\n")
    text += f"""
[database unset]
fallback = primary
host =

[virtual bank]
default = primary
members = primary, secondary, analytics
{virtual}

[virtual shelf]
default = analytics
members = analytics, unset

[route bank]
analytics_events, user_activity = analytics
archive.* = analytics

[shard bank]
tables = accounts
key = user_id
function = modulo
members = primary, secondary
"""
    kinds = [("type = database\nuser_id = 41", "bank"), ("type = database\nuser_id = 42", "bank"),
             ("type = client", "bank"),
             ("type = server\nrights = federate\ndatabases = primary, analytics", "bank"),
             ("type = server", "shelf")]
    for (key, secret), (words, virtual_) in zip(KEYS.items(), kinds):
        text += f"\n[key {key}]\nsecret = {verifier(secret)}\nvirtual = {virtual_}\n{words}\n"
    return text + extra


def key(n):
    """The n-th key's login: 1 odd user, 2 even user, 3 client, 4 server, 5 of shelf."""
    name = list(KEYS)[n - 1]
    return {"user": name, "password": KEYS[name]}
