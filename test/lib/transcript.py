"""A bare client whose conversations read as one line, so that a test can assert the whole answer:
what came, in which order, and what did not.

    with Client(port) as c:
        assert c.ask("select 1, null") == "T D(1|null) C(SELECT 1) Z(I)"
        assert c.say(run("select 1/0"), SYNC) == "1 2 E(22012 division by zero) Z(I)"

A transcript has a word per message of the server, as its type letter: 1 ParseComplete,
2 BindComplete, 3 CloseComplete, T RowDescription, t ParameterDescription, n NoData,
s PortalSuspended, I EmptyQueryResponse, G and H COPY, d CopyData, c CopyDone,
V FunctionCallResponse. These tell more:

    D(a|b)          DataRow: the values, null without quotes, 60 bytes of each
    C(TAG)          CommandComplete
    E(CODE text)    ErrorResponse          N(text)    NoticeResponse
    Z(I)            ReadyForQuery, with the state of the transaction
    EOF             the server has closed the connection
    HANG            nothing more came in time

ParameterStatus is left out: when it comes depends on the link."""
import socket
import struct

import pgproto as pg
from raw import Raw

SYNC, FLUSH = pg.SYNC, pg.FLUSH


def run(sql, values=(), name="", portal="", rows=0):
    """Parse, Bind, Execute."""
    return pg.parse(name, sql) + again(name, values, portal, rows)


def again(name="", values=(), portal="", rows=0):
    """Bind and Execute of what was parsed before."""
    return pg.bind(portal, name, values) + pg.execute(portal, rows)


def call(oid, *arguments):
    """FunctionCall, arguments and result in text."""
    return pg.message("F", struct.pack("!IH", oid, 0) + pg.values(arguments)
                      + struct.pack("!H", 0))


def _values(body):
    count, = struct.unpack_from("!H", body)
    at, out = 2, []
    for _ in range(count):
        size, = struct.unpack_from("!i", body, at)
        at += 4
        out.append("null" if size < 0 else body[at:at + size][:60].decode("latin1"))
        at += max(size, 0)
    return "|".join(out)


def word(type_, fields, body):
    """A message as a word of a transcript."""
    if type_ == "E":
        return f"E({fields.get('C')} {fields.get('M')})"
    if type_ == "N":
        return f"N({fields.get('M')})"
    if type_ == "C":
        return f"C({fields['tag']})"
    if type_ == "Z":
        return f"Z({fields['status']})"
    if type_ == "D":
        return f"D({_values(body)})"
    return type_


class Client(Raw):
    """Logged in at once. `seconds` is how long one silence may last before it is a HANG."""

    def __init__(self, port, database="bank", user="alice", password="pw-alice", seconds=8,
                 **params):
        super().__init__(port, seconds)
        self.seconds = seconds
        error = self.login(user, database, password, **params)
        if error is not None:
            self.sock.close()
            raise ConnectionError(error.get("M"))

    def message(self):
        """As that of Raw, but a message of which a part has not come stays to be read."""
        head = self.need(5)
        self.inbox = head + self.inbox
        whole = self.need(1 + struct.unpack("!I", head[1:])[0])
        return chr(head[0]), pg.decode(True, chr(head[0]), whole[5:]), whole[5:]

    def hear(self, readies=1, seconds=None):
        """The transcript up to that many ReadyForQuery, the end, or a silence."""
        self.sock.settimeout(seconds or self.seconds)
        words = []
        while readies > 0:
            try:
                type_, fields, body = self.message()
            except socket.timeout:
                words.append("HANG")
                break
            except (EOFError, ConnectionError):
                words.append("EOF")
                break
            if type_ != "S":
                words.append(word(type_, fields, body))
            readies -= type_ == "Z"
        return " ".join(words)

    def say(self, *messages, readies=1, seconds=None):
        """Sends them and answers the transcript."""
        try:
            self.send(*messages)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what was said before the end can still be heard
        return self.hear(readies, seconds)

    def ask(self, sql, seconds=None):
        """A simple query."""
        return self.say(pg.query(sql), seconds=seconds)

    def value(self, sql):
        """The first value of the first row, as text."""
        rows, error = self.query(sql)
        assert error is None, error
        return rows[0][0]

    def has_more(self, seconds=0.2):
        """Whether something comes within that time; it stays to be read."""
        self.sock.settimeout(seconds)
        try:
            piece = self.sock.recv(1 << 16)
        except socket.timeout:
            piece = b""
        self.inbox += piece
        return self.inbox != b""

    def is_taken(self):
        """Whether the other end has read all that was sent (Linux: its receive queue)."""
        here, there = (f"0100007F:{s[1]:04X}" for s in (self.sock.getsockname(),
                                                       self.sock.getpeername()))
        with open("/proc/net/tcp") as f:
            ends = [line.split()[1:5] for line in f]
        queues = [q for local, remote, _, q in ends if (local, remote) == (there, here)]
        mine = [q for local, remote, _, q in ends if (local, remote) == (here, there)]
        return [q[9:] for q in queues] + [q[:8] for q in mine] == ["0" * 8] * 2

    def cancel(self):
        """A CancelRequest for what this client does; back when it was taken."""
        with socket.create_connection(self.sock.getpeername(), 5) as s:
            s.sendall(pg.cancel_request(*self.key))
            s.settimeout(5)
            s.recv(1)
