"""The parties of a script: clients and servers that do what it says, message by message.
The language is told in wire.py."""
import os
import re
import shlex
import socket
import struct
import threading
import time

import pgproto as pg
from autopg import AutoServer, is_look
from poll import Late
from proxy import is_sanitized

STEP = 5.0 * float(os.environ.get("WIRE_PATIENCE", "1"))
PARAMS = {
    "server_version": "15.0", "server_encoding": "UTF8", "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY", "TimeZone": "UTC", "IntervalStyle": "postgres",
    "integer_datetimes": "on", "standard_conforming_strings": "on", "application_name": "",
    "is_superuser": "off", "session_authorization": "app",
    "default_transaction_read_only": "off", "in_hot_standby": "off",
}


class Fault(AssertionError):
    """A step did not go as the script says."""


class Closed(Fault):
    """The peer has closed the connection where more was to come."""


# ---- one connection ----

def _peer_unread(sock):
    """Bytes that the process at the other end of this loopback connection has not read yet;
    None when its socket is not to be seen (any more)."""
    try:
        ours, theirs = sock.getsockname()[1], sock.getpeername()[1]
    except OSError:
        return None
    try:
        return _diag_unread(theirs, ours)
    except OSError:
        return _proc_unread(theirs, ours)


def _diag_unread(local, remote):
    """The kernel's socket diagnosis (sock_diag(7)): one exact question, whatever the number of
    sockets."""
    here = socket.inet_aton("127.0.0.1") + bytes(12)
    body = (struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xffffffff)
            + struct.pack("!HH", local, remote) + here + here + struct.pack("=I", 0) + b"\xff" * 8)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
        s.settimeout(1)
        s.sendto(struct.pack("=IHHII", 16 + len(body), 20, 1, 1, 0) + body, (0, 0))
        answer = s.recv(4096)
    kind, = struct.unpack_from("=H", answer, 4)
    if kind == 2:  # NLMSG_ERROR: ENOENT when there is no such socket
        error, = struct.unpack_from("=i", answer, 16)
        if error == -2:
            return None
        raise OSError(-error, "sock_diag")
    return struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0]


def _proc_unread(local, remote):
    with open("/proc/net/tcp") as f:
        next(f)
        for line in f:
            w = line.split()
            if int(w[1].split(":")[1], 16) == local and int(w[2].split(":")[1], 16) == remote:
                return int(w[4].split(":")[1], 16)
    return None


class Connection:
    def __init__(self, sock, from_server):
        self.sock, self.from_server = sock, from_server
        self.names = pg.BACKEND if from_server else pg.FRONTEND
        self.inbox = b""
        self.key = None
        self.is_gone = False
        sock.settimeout(STEP)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def need(self, size, deadline=None):
        """The first `size` bytes that came, left where they are."""
        deadline = deadline or time.monotonic() + STEP
        while len(self.inbox) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Fault(f"nothing came within {STEP} s (have {self.inbox[:60]!r})")
            self.sock.settimeout(left)
            try:
                piece = self.sock.recv(1 << 16)
            except socket.timeout:
                continue
            except ConnectionError as e:
                self.is_gone = True
                raise Closed(f"connection lost: {e}") from None
            if not piece:
                self.is_gone = True
                raise Closed(f"the peer closed (have {self.inbox[:60]!r})")
            self.inbox += piece
        return self.inbox[:size]

    def take(self, size):
        got = self.need(size)
        self.inbox = self.inbox[size:]
        return got

    def peek(self):
        """Type letter of the next message, None when the peer has closed instead."""
        try:
            head = self.need(5)
        except Closed:
            if self.inbox:
                raise
            return None
        return chr(head[0])

    def message(self):
        head = self.need(5)
        size, = struct.unpack("!I", head[1:])
        if size < 4 or size > 1 << 30:
            raise Fault(f"message {head!r} has an impossible length")
        whole = self.take(size + 1)
        return chr(whole[0]), whole[5:]

    def send(self, data):
        """A peer that has closed is found out by the next step that reads."""
        self.sock.settimeout(STEP)
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def drained(self, seconds=0.25):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _peer_unread(self.sock):
                return True
            time.sleep(0.0005)
        return False


# ---- a party ----

class Party(threading.Thread):
    def __init__(self, script, name, steps):
        super().__init__(daemon=True, name=name)
        self.script, self.steps, self.me = script, steps, name
        self.connections, self.now = {}, None
        self.local, self.last, self.corked = {}, None, None
        self.error, self.line, self.marked = None, 0, time.monotonic()
        self.auto = None
        self.is_endless = any(step[1].split()[0] == "auto" for step in steps)

    def run(self):
        try:
            self.block(self.steps)
        except (Fault, Late, OSError, ValueError, KeyError, struct.error, SyntaxError,
                AssertionError) as e:
            self.error = f"{self.me}, line {self.line}: {type(e).__name__}: {e}"
            self.script.failed.set()
        finally:
            self.ended()

    def ended(self):
        """A client leaves when its steps are done; a server stays until the script is over."""
        for c in self.connections.values():
            c.sock.close()

    def fill_in(self, text):
        def value(m):
            if m[1] in self.local:
                return self.local[m[1]]
            return self.script.value(m[1])
        return re.sub(r"\$\{([\w.]+)\}", value, text)

    def block(self, steps):
        for number, line, children, _, other in steps:
            self.line = number
            if self.script.failed.is_set():
                raise Fault("given up: another party failed")
            verb, _, rest = self.fill_in(line).partition(" ")
            rest = rest.strip()
            if children is None:
                do = getattr(self, "do_" + verb, None)
                if do is None:
                    raise SyntaxError(f"unknown step {verb!r}")
                do(rest)
            else:
                self.control(verb, rest, children, other)

    def control(self, verb, rest, children, other):
        words = rest.split()
        if verb == "times":
            for i in range(1, int(words[0]) + 1):
                if len(words) > 1:
                    self.local[words[1]] = str(i)
                self.block(children)
        elif verb == "splitloop":
            for i in range(1, int(words[1]) + 1):
                self.local[words[0]] = str(i)
                self.split_max = int(words[1])
                self.block(children)
        elif verb == "serve":
            while self.connection.peek() not in (None, "X"):
                self.block(children)
        elif verb == "ifnext":
            type_ = self.connection.peek()
            got = "CLOSE" if type_ is None else self.connection.names.get(type_, type_)
            self.note("next is " + got)
            if got in rest.split("|"):
                self.block(children)
            elif other is not None:
                self.block(other)
        elif verb == "ifnextin":
            seconds, names = words
            try:
                self.connection.need(5, time.monotonic() + float(seconds))
            except Closed:
                return
            except Fault:
                return
            if self.connection.names.get(self.connection.peek()) not in names.split("|"):
                raise Fault(f"want {names} or nothing, got {self.connection.inbox[:80]!r}")
            self.block(children)
        elif verb == "iflast":
            if self.last[0] in rest.split("|"):
                self.block(children)
            elif other is not None:
                self.block(other)
        else:
            raise SyntaxError(f"unknown block {verb!r}")

    @property
    def connection(self):
        if self.now is None:
            raise SyntaxError("no connection yet")
        return self.connections[self.now]

    def note(self, text):
        self.script.note(self.me, text)

    def out(self, data, what):
        if self.corked is not None:
            self.corked.append(data)
            return
        self.note(f"> {what}")
        self.connection.send(data)

    def words(self, rest):
        return shlex.split(rest)

    def pairs(self, rest):
        return dict(w.split("=", 1) for w in shlex.split(rest))

    # -- receiving

    def receive(self):
        type_, body = self.connection.message()
        self.last = self.connection.names.get(type_, type_), pg.decode(
            self.connection.from_server, type_, body)
        self.note(f"< {self.last[0]} {_short(self.last[1])}")
        return self.last

    def check(self, field, op, want):
        got = self.last[1].get(field)
        fine = {"==": lambda: got == want, "!=": lambda: got != want,
                "~": lambda: re.search(want, got or ""),
                "!~": lambda: not re.search(want, got or "")}[op]()
        if not fine:
            raise Fault(f"{self.last[0]}.{field} is {got!r}, want {op} {want!r}")

    def do_rx(self, rest):
        words = self.words(rest)
        name, fields = self.receive()
        if name not in words[0].split("|"):
            raise Fault(f"want {words[0]}, got {name} {_short(fields)}")
        for i in range(1, len(words), 3):
            self.check(*words[i:i + 3])

    def do_expect(self, rest):
        words = self.words(rest)
        self.check(words[0], words[1], " ".join(words[2:]))

    def do_rxuntil(self, rest):
        while True:
            name, fields = self.receive()
            if name in rest.split("|"):
                return
            if name == "ErrorResponse":
                raise Fault(f"want {rest}, got ErrorResponse {_short(fields)}")

    def do_rxclose(self, rest):
        try:
            if rest == "any":
                while True:
                    self.receive()
            got = self.connection.need(1)
        except Closed:
            self.note("< closed")
            return
        raise Fault(f"want a closed connection, got {got!r} {self.connection.inbox[:80]!r}")

    def do_refused(self, rest):
        """Refused by an ErrorResponse and a closed connection; without a code to look for, the
        closed connection alone will do."""
        try:
            name, fields = self.receive()
        except Closed:
            if rest:
                raise
            self.note("< closed")
            return
        if name != "ErrorResponse":
            raise Fault(f"want to be refused, got {name} {_short(fields)}")
        if rest:
            self.check("C", "~", rest)
        self.do_rxclose("")

    def do_quietorclosed(self, rest):
        try:
            self.do_quiet(rest)
        except Closed:
            self.note("< closed")

    def do_rxtorn(self, rest):
        """An ErrorResponse and the end, the end alone, or what came of a torn message and the
        end; never a whole message that the other side has not sent."""
        try:
            name, fields = self.receive()
            if name != "ErrorResponse" or not fields.get("C", "").startswith("08"):
                raise Fault(f"want a torn message, got {name} {_short(fields)}")
            self.connection.need(1)
        except Closed as e:
            self.note(f"< torn: {e}")
            return
        raise Fault("want a closed connection")

    def do_refusedor(self, rest):
        """Refused, or answered with this byte."""
        try:
            if self.connection.need(1) == rest.encode():
                self.note("< byte " + rest)
                return
        except Closed:
            pass
        self.do_refused("")

    def do_pause(self, rest):
        time.sleep(float(rest))

    def do_seen(self, rest):
        self.script.seen(rest)

    def do_quiet(self, rest):
        try:
            self.connection.need(1, time.monotonic() + float(rest))
        except Closed:
            raise
        except Fault:
            return
        raise Fault(f"want silence, got {self.connection.inbox[:80]!r}")

    def do_save(self, rest):
        field, name = rest.split()
        self.script.env[name] = self.last[1][field]

    # -- sending in pieces

    def do_cork(self, rest):
        self.corked = []

    def do_uncork(self, rest):
        data, self.corked = b"".join(self.corked), None
        options = dict(w.partition("=")[::2] for w in rest.split())
        c = self.connection
        if "cut" in options:
            cut = min(int(options["cut"]), len(data))
            if len(data) - 1 > self.split_max:
                raise SyntaxError(f"batch of {len(data)} bytes: splitloop must go to {len(data) - 1}")
            self.note(f"> {len(data)} bytes, cut at {cut}")
            pieces = [data[:cut], data[cut:]]
        elif "bytes" in options:
            self.note(f"> {len(data)} bytes, one by one")
            pieces = [data[i:i + 1] for i in range(len(data))]
        else:
            self.note(f"> {len(data)} bytes")
            pieces = [data]
        for i, piece in enumerate(pieces):
            if piece:
                c.send(piece)
            if i + 1 < len(pieces):
                c.drained()

    def do_drained(self, rest):
        if not self.connection.drained(STEP):
            raise Fault("the proxy does not read")

    def do_sendhex(self, rest):
        self.out(bytes.fromhex(rest), "hex " + rest[:60])

    def do_sendtext(self, rest):
        self.out(" ".join(self.words(rest)).encode(), "text " + rest[:60])

    def do_fill(self, rest):
        byte, count = rest.split()
        self.out(bytes.fromhex(byte) * int(count), f"{count} x {byte}")

    # -- between parties

    def do_signal(self, rest):
        self.note("signal " + rest)
        self.script.semaphore(rest).release()

    def do_await(self, rest):
        deadline = time.monotonic() + 2 * STEP
        while not self.script.semaphore(rest).acquire(timeout=0.1):
            if self.script.failed.is_set():
                raise Fault("given up: another party failed")
            if time.monotonic() > deadline:
                raise Fault(f"nobody signals {rest}")
        self.note("await " + rest)

    def do_mark(self, rest):
        self.marked = time.monotonic()

    def do_elapsed(self, rest):
        low, high = (float(w) for w in rest.split())
        if is_sanitized():
            high *= 2
        took = time.monotonic() - self.marked
        if not low <= took <= high:
            raise Fault(f"took {took:.3f} s, want {low} to {high}")

    # -- connections

    def do_use(self, rest):
        if rest not in self.connections:
            raise SyntaxError(f"no connection {rest}")
        self.now = rest

    def do_close(self, rest):
        self.note("> close")
        self.connection.sock.close()

    def do_reset(self, rest):
        self.note("> reset")
        s = self.connection.sock
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()

    def do_shutdown(self, rest):
        self.note("> half close")
        try:
            self.connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def do_copydata(self, rest):
        self.out(pg.copy_data((" ".join(self.words(rest)) + "\n").encode()), "CopyData " + rest)

    def do_copydone(self, rest):
        self.out(pg.COPY_DONE, "CopyDone")

    def add(self, name, connection):
        self.connections[name] = connection
        self.now = name


def _short(fields, size=160):
    text = " ".join(f"{k}={v!r}" for k, v in fields.items())
    return text if len(text) <= size else text[:size] + "…"


class Client(Party):
    def do_connect(self, rest):
        words = rest.split()
        name = "main"
        if "as" in words:
            name = words[words.index("as") + 1]
            words = words[:words.index("as")]
        port = int(words[0]) if words else int(self.script.value("p1_port"))
        self.add(name, Connection(socket.create_connection(("127.0.0.1", port), STEP), True))

    def do_startup(self, rest):
        params = self.pairs(rest)
        version = int(params.pop("_version", pg.VERSION3))
        self.out(pg.startup(params, version), "StartupMessage " + rest)

    def do_login(self, rest):
        params = self.pairs(rest)
        secret = params.pop("password", "")
        if self.now is None or self.connection.is_gone:
            self.do_connect("")
        self.out(pg.startup(params), "StartupMessage " + rest)
        scram = None
        while True:
            type_, body = self.connection.message()
            self.last = pg.BACKEND.get(type_, type_), pg.decode(True, type_, body)
            self.note(f"< {self.last[0]} {_short(self.last[1])}")
            if type_ == "E":
                raise Fault(f"login refused: {_short(self.last[1])}")
            if type_ == "K":
                self.connection.key = body[:4], body[4:]
                self.script.keys[self.me] = struct.unpack("!I", body[:4])[0], body[4:]
            if type_ == "Z":
                return
            if type_ != "R":
                continue
            code, data = struct.unpack("!I", body[:4])[0], body[4:]
            if code == 3:
                self.out(pg.password(secret), "PasswordMessage")
            elif code == 5:
                self.out(pg.password(pg.md5_answer(params["user"], secret, data)), "md5")
            elif code == 10:
                scram = pg.ScramClient(secret)
                self.out(pg.sasl_initial("SCRAM-SHA-256", scram.first()), "SASLInitialResponse")
            elif code == 11:
                self.out(pg.message("p", scram.final(data)), "SASLResponse")
            elif code == 12:
                scram.verify(data)

    def do_query(self, rest):
        self.out(pg.query(rest), "Query " + rest)

    def do_parse(self, rest):
        w = self.words(rest)
        self.out(pg.parse(w[0], w[1], [int(o) for o in w[2:]]), "Parse " + rest)

    def do_bind(self, rest):
        w = self.words(rest)
        self.out(pg.bind(w[0], w[1], [None if v == "NULL" else v for v in w[2:]]), "Bind " + rest)

    def do_describe(self, rest):
        w = self.words(rest)
        self.out(pg.describe(*w), "Describe " + rest)

    def do_execute(self, rest):
        w = self.words(rest) or [""]
        self.out(pg.execute(w[0], int(w[1]) if len(w) > 1 else 0), "Execute " + rest)

    def do_copyby(self, rest):
        """COPY FROM STDIN in the simple or the extended protocol."""
        if rest == "simple":
            self.do_query("copy t from stdin")
        else:
            self.out(pg.parse("", "copy t from stdin") + pg.bind("", "") + pg.execute() + pg.SYNC,
                     "Parse Bind Execute Sync: copy t from stdin")

    def do_closestmt(self, rest):
        self.out(pg.close("S", self.words(rest)[0]), "Close S " + rest)

    def do_closeportal(self, rest):
        self.out(pg.close("P", self.words(rest)[0]), "Close P " + rest)

    def do_sync(self, rest):
        self.out(pg.SYNC, "Sync")

    def do_flush(self, rest):
        self.out(pg.FLUSH, "Flush")

    def do_terminate(self, rest):
        self.out(pg.TERMINATE, "Terminate")

    def do_copyfail(self, rest):
        self.out(pg.copy_fail(rest), "CopyFail " + rest)

    def do_password(self, rest):
        self.out(pg.password(" ".join(self.words(rest))), "PasswordMessage")

    def do_sslrequest(self, rest):
        self.out(pg.request(pg.SSL_REQUEST), "SSLRequest")

    def do_gssencrequest(self, rest):
        self.out(pg.request(pg.GSSENC_REQUEST), "GSSENCRequest")

    def do_rxbyte(self, rest):
        got = self.connection.take(1).decode("latin-1")
        self.note("< byte " + got)
        if got != rest:
            raise Fault(f"want the byte {rest}, got {got!r}")

    def do_cancel(self, rest):
        w = rest.split()
        if w[0].isdigit():
            pid, key = int(w[0]), bytes.fromhex(w[1])
        else:
            pid, key = self.script.keys[w[0]]
            if w[1:] == ["wrong"]:
                key = bytes([key[0] ^ 1]) + key[1:]
        self.out(pg.cancel_request(pid, key), f"CancelRequest {pid}")


class Server(Party):
    def __init__(self, script, name, steps, listener):
        super().__init__(script, name, steps)
        self.listener, self.ticket = listener, listener.ticket()

    def ended(self):
        pass

    def leave(self):
        super().ended()

    def do_accept(self, rest):
        sock = self.listener.accept(self.ticket, self.script.failed)
        self.ticket = None
        self.add(rest or "main", Connection(sock, False))
        self.note("< connection")

    def do_auto(self, rest):
        self.listener.await_turn(self.ticket, self.script.over)
        self.auto = AutoServer(self.listener.sock, dict(PARAMS, **self.pairs(rest)),
                               lambda text: self.script.note(self.me, text))
        self.auto.serve(self.script.over)

    def do_startup(self, rest):
        if self.now is None:
            self.do_accept("")
        c = self.connection
        while True:
            size, code = struct.unpack("!II", c.need(8))
            body = c.take(size)[8:]
            if code in (pg.SSL_REQUEST, pg.GSSENC_REQUEST):
                c.send(b"N")
                continue
            if code != pg.VERSION3:
                raise Fault(f"want a StartupMessage, got code {code}")
            break
        got = pg.startup_params(body)
        self.note(f"< StartupMessage {got}")
        for k, v in self.pairs(rest).items():
            if got.get(k) != v:
                raise Fault(f"startup parameter {k} is {got.get(k)!r}, want {v!r}")
        self.last = "StartupMessage", got
        self.user = got.get("user", "")

    def do_challenge(self, rest):
        how, _, options = rest.partition(" ")
        given, c = self.pairs(options), self.connection
        user, secret = given.get("user", self.user), given["password"]

        def send(data):
            for i in range(len(data)) if "bytes" in given else ():
                c.send(data[i:i + 1])
                c.drained()
            if "bytes" not in given:
                c.send(data)

        if how == "plain":
            send(pg.auth(3))
            _, body = c.message()
            fine = body == pg.cstr(secret)
        elif how == "md5":
            salt = os.urandom(4)
            send(pg.auth(5, salt))
            _, body = c.message()
            fine = body == pg.cstr(pg.md5_answer(user, secret, salt))
        else:
            scram = pg.ScramServer(secret)
            send(pg.auth(10, b"SCRAM-SHA-256\0\0"))
            _, body = c.message()
            mechanism, rest_ = body.split(b"\0", 1)
            if mechanism != b"SCRAM-SHA-256":
                raise Fault(f"mechanism {mechanism!r}")
            send(pg.auth(11, scram.first(rest_[4:])))
            _, body = c.message()
            final = scram.final(body)
            fine = final is not None
            if fine:
                send(pg.auth(12, final))
        self.note(f"challenge {how}: {'right' if fine else 'wrong'}")
        if not fine:
            raise Fault(f"the proxy's answer to the {how} challenge is wrong: {body!r}")

    def do_authrequest(self, rest):
        code, _, data = rest.partition(" ")
        self.out(pg.auth(int(code), bytes.fromhex(data)), "Authentication " + rest)

    def do_authok(self, rest):
        params = dict(PARAMS, session_authorization=self.user or "app", **self.pairs(rest))
        pid, key = self.script.new_key(self.me, self.now)
        self.out(pg.auth(0) + b"".join(pg.parameter_status(k, v) for k, v in params.items())
                 + pg.key_data(pid, key) + pg.ready("I"), f"AuthenticationOk … pid {pid}")

    def do_rowdesc(self, rest):
        self.out(pg.row_description(rest.split()), "RowDescription " + rest)

    def do_row(self, rest):
        self.out(pg.data_row([None if v == "NULL" else v for v in rest.split("|")]),
                 "DataRow " + rest)

    def do_complete(self, rest):
        self.out(pg.complete(rest), "CommandComplete " + rest)

    def do_ready(self, rest):
        self.out(pg.ready(rest or "I"), "ReadyForQuery " + (rest or "I"))

    def do_error(self, rest):
        code, _, text = rest.partition(" ")
        self.out(pg.error(code, text), "ErrorResponse " + rest)

    def do_fatal(self, rest):
        code, _, text = rest.partition(" ")
        self.out(pg.error(code, text, "FATAL"), "ErrorResponse FATAL " + rest)

    def do_notice(self, rest):
        self.out(pg.notice("00000", rest), "NoticeResponse " + rest)

    def do_param(self, rest):
        w = self.words(rest)
        self.out(pg.parameter_status(w[0], w[1]), "ParameterStatus " + rest)

    def do_notify(self, rest):
        w = self.words(rest)
        self.out(pg.notification(4711, w[0], w[1] if len(w) > 1 else ""), "Notification " + rest)

    def do_paramdesc(self, rest):
        self.out(pg.parameter_description([int(o) for o in rest.split()]), "ParameterDescription")

    def do_copyin(self, rest):
        self.out(pg.copy_response("G"), "CopyInResponse")

    def do_copyout(self, rest):
        self.out(pg.copy_response("H"), "CopyOutResponse")

    def do_copyboth(self, rest):
        self.out(pg.copy_response("W", 0), "CopyBothResponse")

    def do_rxset(self, rest):
        """One statement that sets this parameter to this value; answered as PostgreSQL does."""
        name, value = self.words(rest)
        want = re.compile(re.escape(name) + r"\b.*" + re.escape(value), re.I | re.S)
        done = pg.parameter_status(name, value)
        is_found = False
        while True:
            got, fields = self.receive()
            if got == "Query":
                sql = fields["sql"]
                if not want.search(sql):
                    raise Fault(f"want SET {name} {value}, got {sql!r}")
                count = len([s for s in re.sub(r"'[^']*'", "''", sql).split(";") if s.strip()])
                is_select = re.match(r"\s*select", sql, re.I)
                rows = pg.row_description(["set_config"]) + pg.data_row([value]) if is_select else b""
                self.out(done + (rows + pg.complete("SELECT 1" if is_select else "SET")) * count
                         + pg.ready("I"), "SET done")
                return
            if got == "Parse":
                is_found = bool(want.search(fields["sql"])) or is_found
                self.out(pg.message("1"), "ParseComplete")
            elif got == "Bind":
                is_found = is_found or value in fields.values()
                self.out(pg.message("2"), "BindComplete")
            elif got == "Execute":
                self.out(done + pg.complete("SET"), "CommandComplete SET")
            elif got == "Sync":
                self.out(pg.ready("I"), "ReadyForQuery")
                if not is_found:
                    raise Fault(f"nothing set {name} to {value}")
                return
            else:
                raise Fault(f"want SET {name} {value}, got {got} {_short(fields)}")

    def do_rxsetraw(self, rest):
        """A SET of this parameter, whatever the value; answered without telling a value."""
        got, fields = self.receive()
        if got != "Query":
            while got != "Sync":
                got, fields = self.receive()
            self.out(pg.message("1") + pg.message("2") + pg.complete("SET") + pg.ready("I"), "SET done")
            return
        # Outside of string literals there may be no statement but SET or set_config.
        sql = fields["sql"]
        bare = re.sub(r"\bE'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'", "''", sql)
        parts = [p.strip() for p in bare.split(";") if p.strip()]
        allowed = r"(?is)(set \w+ (=|to) ''|select (pg_catalog\.)?set_config\(''\s*,\s*''\s*,\s*false\).*)$"
        if rest not in sql.lower() or not all(re.match(allowed, p) for p in parts):
            raise Fault(f"want SET {rest} and nothing else, got {sql!r}")
        for part in parts:
            is_select = part.lower().startswith("select")
            row = pg.row_description(["set_config"]) + pg.data_row([""])
            self.out(row + pg.complete("SELECT 1") if is_select else pg.complete("SET"), "SET done")
        self.out(pg.ready("I"), "ReadyForQuery")

    def do_rxssl(self, rest):
        size, code = struct.unpack("!II", self.connection.take(8))
        if code != pg.SSL_REQUEST:
            raise Fault(f"want an SSLRequest, got code {code}")

    def do_rxcancel(self, rest):
        c = self.connection
        size, code = struct.unpack("!II", c.need(8))
        if code == pg.SSL_REQUEST:
            c.take(size)
            c.send(b"N")
            size, code = struct.unpack("!II", c.need(8))
        body = c.take(size)[8:]
        if code != pg.CANCEL_REQUEST:
            raise Fault(f"want a CancelRequest, got code {code}: {body[:100]!r}")
        got = struct.unpack("!I", body[:4])[0], body[4:]
        want = self.script.keys[f"{self.me}.{rest or 'main'}"]
        self.note(f"< CancelRequest {got[0]}")
        if got != want:
            raise Fault(f"CancelRequest has {got}, the connection's key is {want}")


def _plain(type_):
    def do(self, rest):
        self.out(pg.message(type_), pg.BACKEND[type_])
    return do


for _step, _type in {"parsecomplete": "1", "bindcomplete": "2", "closecomplete": "3",
                     "nodata": "n", "suspended": "s", "emptyquery": "I"}.items():
    setattr(Server, "do_" + _step, _plain(_type))


class Listener:
    """A port of a fake PostgreSQL; the parties that share it are served in order of tickets."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.sock.settimeout(0.1)
        self.port = self.sock.getsockname()[1]
        self.given = self.served = 0
        self.turn = threading.Condition()

    def ticket(self):
        self.given += 1
        return self.given

    def await_turn(self, number, over, seconds=60):
        with self.turn:
            deadline = time.monotonic() + seconds
            while self.served + 1 != number:
                if over.is_set() or time.monotonic() > deadline:
                    raise Fault("given up: another party's connection has not come")
                self.turn.wait(0.1)

    def accept(self, ticket, failed):
        self.await_turn(ticket or self.ticket(), failed, 2 * STEP)
        deadline = time.monotonic() + 2 * STEP
        while True:
            try:
                sock = self.sock.accept()[0]
                if not is_look(sock):
                    break
                sock.close()
            except socket.timeout:
                if failed.is_set():
                    raise Fault("given up: another party failed") from None
                if time.monotonic() > deadline:
                    raise Fault("no connection came") from None
        with self.turn:
            self.served += 1
            self.turn.notify_all()
        return sock
