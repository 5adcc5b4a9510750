"""PostgreSQL protocol 3 for tests: messages to bytes and back, and both ends of every login
(cleartext, md5, SCRAM-SHA-256), from the standard library alone.

Sources: PostgreSQL documentation, "Message Formats" and "SASL Authentication"; RFC 5802."""
import base64
import hashlib
import hmac
import os
import struct

SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102
VERSION3 = 196608

# Type byte to name, by direction.
FRONTEND = {
    "Q": "Query", "P": "Parse", "B": "Bind", "D": "Describe", "E": "Execute", "C": "Close",
    "S": "Sync", "H": "Flush", "X": "Terminate", "p": "Password", "d": "CopyData",
    "c": "CopyDone", "f": "CopyFail", "F": "FunctionCall",
}
BACKEND = {
    "R": "Authentication", "S": "ParameterStatus", "K": "BackendKeyData",
    "Z": "ReadyForQuery", "T": "RowDescription", "D": "DataRow", "C": "CommandComplete",
    "E": "ErrorResponse", "N": "NoticeResponse", "1": "ParseComplete", "2": "BindComplete",
    "3": "CloseComplete", "n": "NoData", "t": "ParameterDescription", "s": "PortalSuspended",
    "I": "EmptyQueryResponse", "A": "NotificationResponse", "G": "CopyInResponse",
    "H": "CopyOutResponse", "W": "CopyBothResponse", "d": "CopyData", "c": "CopyDone",
    "V": "FunctionCallResponse", "v": "NegotiateProtocolVersion",
}


def cstr(s):
    return (s.encode() if isinstance(s, str) else s) + b"\0"


def message(type_, body=b""):
    return type_.encode() + struct.pack("!I", len(body) + 4) + body


def packet(body):
    """A startup packet: no type byte."""
    return struct.pack("!I", len(body) + 4) + body


def values(vals):
    """A count and that many values; None is NULL."""
    out = [struct.pack("!H", len(vals))]
    for v in vals:
        if v is None:
            out.append(struct.pack("!i", -1))
        else:
            b = v.encode() if isinstance(v, str) else v
            out.append(struct.pack("!i", len(b)) + b)
    return b"".join(out)


# ---- what a client sends ----

def startup(params, version=VERSION3):
    body = b"".join(cstr(k) + cstr(v) for k, v in params.items())
    return packet(struct.pack("!I", version) + body + b"\0")


def request(code):
    return packet(struct.pack("!I", code))


def cancel_request(pid, key):
    return packet(struct.pack("!II", CANCEL_REQUEST, pid) + key)


def query(sql):
    return message("Q", cstr(sql))


def parse(name, sql, oids=()):
    return message("P", cstr(name) + cstr(sql) + struct.pack("!H", len(oids))
                   + b"".join(struct.pack("!I", o) for o in oids))


def bind(portal, statement, vals=(), result_formats=()):
    return message("B", cstr(portal) + cstr(statement) + struct.pack("!H", 0) + values(vals)
                   + struct.pack("!H", len(result_formats))
                   + b"".join(struct.pack("!H", f) for f in result_formats))


def describe(what, name):
    return message("D", what.encode() + cstr(name))


def close(what, name):
    return message("C", what.encode() + cstr(name))


def execute(portal="", max_rows=0):
    return message("E", cstr(portal) + struct.pack("!I", max_rows))


def password(text):
    return message("p", cstr(text))


def sasl_initial(mechanism, data):
    return message("p", cstr(mechanism) + struct.pack("!i", len(data)) + data)


SYNC, FLUSH, TERMINATE, COPY_DONE = (message(t) for t in "SHXc")


def copy_data(data):
    return message("d", data)


def copy_fail(why):
    return message("f", cstr(why))


# ---- what a server sends ----

def auth(code, data=b""):
    return message("R", struct.pack("!I", code) + data)


def parameter_status(name, value):
    return message("S", cstr(name) + cstr(value))


def key_data(pid, key):
    return message("K", struct.pack("!I", pid) + key)


def ready(status="I"):
    return message("Z", status.encode())


def row_description(names, oid=25):
    return message("T", struct.pack("!H", len(names)) + b"".join(
        cstr(n) + struct.pack("!IHIhih", 0, 0, oid, -1, -1, 0) for n in names))


def data_row(vals):
    return message("D", values(vals))


def complete(tag):
    return message("C", cstr(tag))


def fields(type_, pairs):
    """ErrorResponse ('E') or NoticeResponse ('N') from (letter, text) pairs."""
    return message(type_, b"".join(k.encode() + cstr(v) for k, v in pairs) + b"\0")


def error(code, text, severity="ERROR", **more):
    pairs = [("S", severity), ("V", severity), ("C", code), ("M", text)]
    return fields("E", pairs + list(more.items()))


def notice(code, text):
    return fields("N", [("S", "NOTICE"), ("V", "NOTICE"), ("C", code), ("M", text)])


def parameter_description(oids):
    return message("t", struct.pack("!H", len(oids))
                   + b"".join(struct.pack("!I", o) for o in oids))


def copy_response(type_, columns=1):
    return message(type_, struct.pack("!bH", 0, columns) + b"\0\0" * columns)


def notification(pid, channel, payload):
    return message("A", struct.pack("!I", pid) + cstr(channel) + cstr(payload))


# ---- reading ----

def _strings(body):
    return [s.decode("utf-8", "replace") for s in body.split(b"\0")]


def _values(body, at=0):
    count, = struct.unpack_from("!H", body, at)
    at += 2
    out = []
    for _ in range(count):
        size, = struct.unpack_from("!i", body, at)
        at += 4
        out.append(None if size < 0 else body[at:at + size].decode("utf-8", "replace"))
        at += max(size, 0)
    return out


def decode(from_server, type_, body):
    """The fields of a message as a dict of strings, for `expect`."""
    if from_server:
        if type_ in "EN":
            return {p[:1]: p[1:] for p in _strings(body) if p}
        if type_ == "Z":
            return {"status": body.decode()}
        if type_ == "C":
            return {"tag": _strings(body)[0]}
        if type_ == "S":
            s = _strings(body)
            return {"name": s[0], "value": s[1]}
        if type_ == "K":
            return {"pid": str(struct.unpack_from("!I", body)[0]), "key": body[4:].hex()}
        if type_ == "D":
            return {str(i + 1): v for i, v in enumerate(_values(body))}
        if type_ == "R":
            return {"code": str(struct.unpack_from("!I", body)[0])}
        if type_ == "A":
            s = _strings(body[4:])
            return {"pid": str(struct.unpack_from("!I", body)[0]), "channel": s[0],
                    "payload": s[1]}
        if type_ == "T":
            count, = struct.unpack_from("!H", body)
            at, names = 2, []
            for _ in range(count):
                end = body.index(b"\0", at)
                names.append(body[at:end].decode())
                at = end + 19
            return {"columns": " ".join(names)}
        if type_ == "d":
            return {"data": body.decode("utf-8", "replace")}
        return {}
    if type_ == "Q":
        return {"sql": _strings(body)[0]}
    if type_ == "P":
        s = _strings(body)
        return {"name": s[0], "sql": s[1]}
    if type_ == "B":
        s = body.split(b"\0", 2)
        formats, = struct.unpack_from("!H", s[2])
        out = {"portal": s[0].decode(), "statement": s[1].decode()}
        out.update({str(i + 1): v for i, v in enumerate(_values(s[2], 2 + 2 * formats))})
        return out
    if type_ in "DC":
        return {"what": chr(body[0]), "name": _strings(body[1:])[0]}
    if type_ == "E":
        s = body.split(b"\0", 1)
        return {"portal": s[0].decode(), "max": str(struct.unpack("!I", s[1])[0])}
    if type_ in "pf":
        return {"text": _strings(body)[0]}
    if type_ == "d":
        return {"data": body.decode("utf-8", "replace")}
    return {}


def startup_params(body):
    """The parameters of a StartupMessage's body (after version)."""
    parts = body.split(b"\0")
    return {parts[i].decode(): parts[i + 1].decode() for i in range(0, len(parts) - 2, 2)}


# ---- login ----

def md5_secret(user, password_):
    return "md5" + hashlib.md5((password_ + user).encode()).hexdigest()


def md5_answer(user, secret, salt):
    """secret: in clear, or md5…"""
    inner = secret if secret.startswith("md5") and len(secret) == 35 else md5_secret(user, secret)
    return "md5" + hashlib.md5(inner[3:].encode() + salt).hexdigest()


def _hmac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def scram_verifier(password_, iterations=4096, salt=None):
    salt = salt or os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password_.encode(), salt, iterations)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    enc = lambda b: base64.b64encode(b).decode()  # noqa: E731
    return (f"SCRAM-SHA-256${iterations}:{enc(salt)}"
            f"${enc(stored)}:{enc(_hmac(salted, b'Server Key'))}")


def _attrs(text):
    return dict(a.split("=", 1) for a in text.split(","))


class ScramClient:
    def __init__(self, password_):
        self.password = password_.encode()
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.bare = f"n=,r={self.nonce}"

    def first(self):
        return ("n,," + self.bare).encode()

    def final(self, server_first):
        a = _attrs(server_first.decode())
        assert a["r"].startswith(self.nonce), "server's nonce does not begin with ours"
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(a["s"]), int(a["i"]))
        key = _hmac(salted, b"Client Key")
        without = f"c=biws,r={a['r']}"
        signed = f"{self.bare},{server_first.decode()},{without}".encode()
        proof = _xor(key, _hmac(hashlib.sha256(key).digest(), signed))
        self.server_signature = _hmac(_hmac(salted, b"Server Key"), signed)
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        a = _attrs(server_final.decode())
        assert base64.b64decode(a["v"]) == self.server_signature, "server's signature is wrong"


class ScramServer:
    def __init__(self, password_, iterations=4096):
        self.verifier = scram_verifier(password_, iterations)

    def first(self, client_first):
        text = client_first.decode()
        gs2, self.bare = text.split(",,", 1)
        assert gs2 in ("n", "y"), f"channel binding flag {gs2!r}"
        self.gs2 = gs2 + ",,"
        _, params, _ = self.verifier.split("$")
        iterations, salt = params.split(":")
        self.nonce = _attrs(self.bare)["r"] + base64.b64encode(os.urandom(18)).decode()
        self.server_first = f"r={self.nonce},s={salt},i={iterations}"
        return self.server_first.encode()

    def final(self, client_final):
        text = client_final.decode()
        without, proof = text.rsplit(",p=", 1)
        a = _attrs(without)
        assert a["r"] == self.nonce, "nonce is not ours"
        assert base64.b64decode(a["c"]).decode() == self.gs2, "channel binding data differs"
        stored, server = (base64.b64decode(k) for k in self.verifier.split("$")[2].split(":"))
        signed = f"{self.bare},{self.server_first},{without}".encode()
        key = _xor(base64.b64decode(proof), _hmac(stored, signed))
        if hashlib.sha256(key).digest() != stored:
            return None
        return b"v=" + base64.b64encode(_hmac(server, signed))
