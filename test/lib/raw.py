"""A bare client for the live suite: one socket, messages as (type, fields), and no opinion."""
import socket
import struct
import time

import pgproto as pg


class Raw:
    def __init__(self, port, seconds=10, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), seconds)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox, self.key, self.params = b"", None, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, *data):
        self.sock.sendall(b"".join(data))

    def need(self, size):
        while len(self.inbox) < size:
            piece = self.sock.recv(1 << 16)
            if not piece:
                raise EOFError("closed")
            self.inbox += piece
        got, self.inbox = self.inbox[:size], self.inbox[size:]
        return got

    def message(self):
        """(type letter, fields, body)."""
        head = self.need(5)
        body = self.need(struct.unpack("!I", head[1:])[0] - 4)
        return chr(head[0]), pg.decode(True, chr(head[0]), body), body

    def until(self, stop):
        """All messages up to one of these types, or the end (None)."""
        out = []
        while True:
            try:
                m = self.message()
            except (EOFError, ConnectionError):
                return out + [(None, {}, b"")]
            out.append(m)
            if m[0] in stop:
                return out

    def login(self, user, database, password="", version=pg.VERSION3, **params):
        """None when logged in, else the fields of the ErrorResponse."""
        self.send(pg.startup(dict(user=user, database=database, **params), version))
        scram = None
        while True:
            try:
                type_, fields, body = self.message()
            except (EOFError, ConnectionError):
                return {"M": "connection closed"}
            if type_ == "E":
                return fields
            if type_ == "K":
                self.key = struct.unpack("!I", body[:4])[0], body[4:]
            if type_ == "S":
                self.params[fields["name"]] = fields["value"]
            if type_ == "Z":
                return None
            if type_ != "R":
                continue
            code, data = struct.unpack("!I", body[:4])[0], body[4:]
            if code == 3:
                self.send(pg.password(password))
            elif code == 5:
                self.send(pg.password(pg.md5_answer(user, password, data)))
            elif code == 10:
                scram = pg.ScramClient(password)
                self.send(pg.sasl_initial("SCRAM-SHA-256", scram.first()))
            elif code == 11:
                self.send(pg.message("p", scram.final(data)))
            elif code == 12:
                scram.verify(data)

    def query(self, sql):
        """(rows, error fields or None); the connection may be at its end."""
        self.send(pg.query(sql))
        rows, error = [], None
        for type_, fields, _ in self.until("Z"):
            if type_ == "D":
                rows.append(list(fields.values()))
            elif type_ == "E":
                error = fields
            elif type_ is None:
                error = dict(error or {}, closed="yes")
        return rows, error

    def is_closed(self, seconds=5):
        """True when the other side has closed (whatever it sent before)."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(1 << 16):
                pass
            return True
        except socket.timeout:
            return False
        except OSError:
            return True


def refusal(port, user, database="shop", password="", **params):
    """(fields of the refusal or None, seconds it took)."""
    began = time.monotonic()
    with Raw(port) as r:
        said = r.login(user, database, password, **params)
    return said, time.monotonic() - began
