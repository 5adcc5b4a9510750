"""wire: runs a .pgt script: scripted PostgreSQL clients and servers with the proxy between.

A script is a list of blocks; ${name} is replaced when a step runs.

    pgtest "what it shows"
    matrix mode session transaction         run once for each value of ${mode}
    needs pgweave                           skipped when PgBouncer stands in
    timeout 20                              for the whole script, default 30 s
    server s1 [on s0] { steps } -start|-run  listens at once (${s1_port}); `on`: shares a port
    proxy p1 { settings }                   runs until the end of the script; must end clean:
                                            `db NAME = …`, `user NAME = …`, `KEY = VALUE` over
                                            the harness's defaults, or a whole ini ([…] lines)
    file NAME { text }                      ${dir}/NAME
    client c1 { steps } -start|-run
    wait c1 …      signal NAME      kill p1 HUP
    log p1 ~ REGEX              the proxy's log says so, sooner or later
    seen s1 OP N REGEX          how often an `auto` server has received it (>=: sooner or later)
    order s1 A, B, C            an `auto` server has received these once each, in this order
    killlinks s1                an `auto` server drops all its connections

Steps of both sides (a message's name is that of the protocol's documentation):

    rx A|B [FIELD OP VALUE]…    the next message must be one of these; OP is == != ~ !~
    expect FIELD OP VALUE       of the message last received
    rxuntil A|B                 takes all up to A or B; another ErrorResponse is a failure
    rxclose [any]               the peer closes now (any: after whatever it still sends)
    refused [CODE-REGEX]        an ErrorResponse (not to be seen when no code is given) and close
    rxtorn                      08… and close, close, or a part of a message and close
    quiet SECONDS               nothing arrives (quietorclosed: or the end)
    save FIELD NAME             ${NAME} from the last message
    ifnext A|CLOSE { … } else { … }   by the next message, which stays; iflast: by the last
    ifnextin SECONDS A { … }    a message of these, or nothing within so long, or the end
    times N [VAR] { … }         serve { … }: again until the peer closes or says Terminate
    splitloop VAR N { … }       VAR = 1 … N; with `uncork cut=${VAR}` every place of a batch of
                                N+1 bytes is cut (a longer batch is a failure)
    cork / uncork [cut=K] [bytes]     sends what was said since cork: at once, in two pieces cut
                                at K, or byte by byte; the proxy has read each piece before
                                the next one is sent
    drained                     the proxy has read all that was sent
    signal NAME / await NAME    a counting semaphore between parties
    refusedor B                 the same, or this byte
    mark / elapsed MIN MAX      seconds since mark
    pause SECONDS               where age itself is what is tested
    sendhex HEX   sendtext TEXT   fill HEXBYTE COUNT
    close   reset (RST)   shutdown (half)   use NAME (another connection of this party)
                                (a client closes after its last step, a server with the script)

Steps of a client: connect [PORT] [as NAME], startup k=v…, login user= database= [password=],
query SQL, parse NAME SQL [OID…], bind PORTAL STATEMENT [VALUE…], describe S|P NAME,
execute [PORTAL [MAX]], closestmt NAME, closeportal NAME, sync, flush, terminate, copydata TEXT,
copydone, copyfail TEXT, copyby simple|extended, password TEXT, sslrequest, gssencrequest, rxbyte B,
cancel NAME [wrong] (with the key of that client's login, or a wrong secret), cancel PID HEXKEY.

Steps of a server: accept [NAME], startup [k=v…: must be among the parameters], challenge
plain|md5|scram user= password= [bytes=yes: one by one], authok [k=v…: ParameterStatus], authrequest, rowdesc NAME…,
row VALUE|…, complete TAG, ready [I|T|E], error CODE TEXT, fatal CODE TEXT, notice TEXT, param NAME VALUE,
notify CHANNEL PAYLOAD, parsecomplete, bindcomplete, closecomplete, paramdesc [OID…], nodata,
suspended, emptyquery, copyin, copyout, copyboth, copydata TEXT, copydone,
rxset NAME VALUE (a SET of this parameter, in whatever form; answered), rxsetraw NAME, rxssl,
auto [k=v…] (answers by itself from here on, see autopg.py),
rxcancel NAME (this connection is a CancelRequest with the key of that one)."""
import os
import re
import shlex
import shutil
import signal as signals
import socket
import struct
import tempfile
import threading
import time

import pgproto as pg
from autopg import AutoServer, is_probe
from poll import Late, until
from proxy import Proxy, config, free_port, is_sanitized

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


class Skip(Exception):
    """The script does not apply."""


# ---- reading a script ----

def parse(path):
    """The top-level items of a script: (line, words, children, tail) tuples."""
    with open(path) as f:
        lines = list(enumerate(f.read().splitlines(), 1))
    at = 0

    def block(is_raw):
        nonlocal at
        out = []
        while at < len(lines):
            number, raw = lines[at]
            at += 1
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("}"):
                return out, line[1:].strip(), number
            if line.endswith("{") and not is_raw:
                head = line[:-1].strip()
                children, tail, _ = block(head.split()[0] in ("proxy", "file"))
                step = [number, head, children, tail, None]
                while step[3] == "else {" or step[3] == "else{":
                    step[4], step[3], _ = block(False)
                out.append(step)
            else:
                out.append([number, line, None, "", None])
        return out, None, at

    items, tail, number = block(False)
    if tail is not None:
        raise SyntaxError(f"{path}:{number}: }} without {{")
    return items


def variants(path):
    """The combinations of values of the script's matrix lines, as dicts."""
    combos = [{}]
    for _, line, _, _, _ in parse(path):
        words = line.split()
        if words[0] == "matrix":
            combos = [dict(c, **{words[1]: v}) for c in combos for v in words[2:]]
    return combos


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
            raise Fault(f"want a CancelRequest, got code {code}")
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
                self.turn.wait(0.1)
                if over.is_set() or time.monotonic() > deadline:
                    raise Fault("given up: another party's connection has not come")

    def accept(self, ticket, failed):
        self.await_turn(ticket or self.ticket(), failed, 2 * STEP)
        deadline = time.monotonic() + 2 * STEP
        while True:
            try:
                sock = self.sock.accept()[0]
                if not is_probe(sock):
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


# ---- a script ----

class Script:
    def __init__(self, path, variables=()):
        self.path, self.items = path, parse(path)
        self.dir = tempfile.mkdtemp(prefix="pgweave-wire-")
        os.chmod(self.dir, 0o755)
        self.env = dict(variables, dir=self.dir)
        self.keys, self.parties, self.listeners, self.proxies = {}, {}, {}, {}
        self.failed, self.lock = threading.Event(), threading.Lock()
        self.over = threading.Event()
        self.semaphores, self.notes = {}, []
        self.began, self.next_pid = time.monotonic(), 1000

    def value(self, name):
        if name not in self.env and name.endswith("_port"):
            self.env[name] = str(free_port())
        return self.env[name]

    def semaphore(self, name):
        with self.lock:
            return self.semaphores.setdefault(name, threading.Semaphore(0))

    def new_key(self, party, connection):
        with self.lock:
            self.next_pid += 1
            key = self.next_pid, os.urandom(4)
            self.keys[f"{party}.{connection}"] = key
            return key

    def note(self, who, text):
        self.notes.append(f"{time.monotonic() - self.began:7.3f} {who:4} {text}")

    def fill_in(self, text):
        return re.sub(r"\$\{([\w.]+)\}", lambda m: self.value(m[1]), text)

    def listener(self, name):
        if name not in self.listeners:
            self.listeners[name] = Listener()
            self.env[name + "_port"] = str(self.listeners[name].port)
        return self.listeners[name]

    def run(self):
        """Runs the script; answers what went wrong, or None."""
        limit, wrong = 30.0, None
        for _, line, _, _, _ in self.items:
            if line.startswith("timeout "):
                limit = float(line.split()[1])
        self.deadline = time.monotonic() + limit * (2 if is_sanitized() else 1)
        # Servers listen before anything else, so that a proxy block may stand anywhere.
        for _, line, _, _, _ in self.items:
            w = line.split()
            if w[0] == "server" and "on" not in w:
                self.listener(w[1])
        try:
            for item in self.items:
                self.item(*item)
                if self.failed.is_set():
                    break
            for party in self.parties.values():
                if not party.is_endless:
                    self.join(party)
        except (Fault, Late, RuntimeError, SyntaxError, KeyError, OSError) as e:
            wrong = f"{type(e).__name__}: {e}"
            self.failed.set()
        wrongs = [wrong] if wrong else []
        self.over.set()
        for party in self.parties.values():
            party.join(STEP)
            if party.error and "given up" not in party.error:
                wrongs.append(party.error)
        for name, proxy in self.proxies.items():
            ended = proxy.stop()
            if ended:
                wrongs.append(f"{name}: {ended}")
        for party in self.parties.values():
            if isinstance(party, Server):
                party.leave()
        for listener in self.listeners.values():
            listener.sock.close()
        text = None
        if wrongs or self.failed.is_set():
            text = "\n".join([f"{self.path}: " + "\n  ".join(wrongs or ["failed"]), "",
                              *self.notes[-150:]])
            for name, proxy in self.proxies.items():
                text += f"\n\nlog of {name}:\n{proxy.log(60)}"
        shutil.rmtree(self.dir, ignore_errors=True)
        for proxy in self.proxies.values():
            shutil.rmtree(proxy.dir, ignore_errors=True)
        return text

    def join(self, party):
        while party.is_alive():
            party.join(0.05)
            if time.monotonic() > self.deadline:
                self.failed.set()
                raise Fault(f"{party.me} hangs in line {party.line}")
        if party.error:
            raise Fault("a party failed")

    def item(self, number, line, children, tail, _):
        words = line.split()
        kind = words[0]
        if kind in ("pgtest", "matrix", "timeout", "needs"):
            return
        if kind == "proxy":
            self.start_proxy(words[1], children)
        elif kind in ("client", "server"):
            name = words[1]
            if kind == "client":
                party = Client(self, name, children)
            else:
                party = Server(self, name, children, self.listener(words[3] if "on" in words else name))
            self.parties[name] = party
            party.start()
            if "-run" in tail:
                self.join(party)
        elif kind == "wait":
            for name in words[1:]:
                self.join(self.parties[name])
        elif kind == "signal":
            self.semaphore(words[1]).release()
        elif kind == "file":
            with open(os.path.join(self.dir, words[1]), "w") as f:
                f.write("\n".join(self.fill_in(c[1]) for c in children) + "\n")
        elif kind == "log":
            proxy, pattern = self.proxies[words[1]], line.split("~", 1)[1].strip()
            until(lambda: re.search(pattern, proxy.log()), STEP, f"log says {pattern}")
        elif kind == "seen":
            self.seen(self.fill_in(line).split(None, 1)[1])
        elif kind == "order":
            self.order(self.fill_in(line).split(None, 1)[1])
        elif kind == "killlinks":
            self.parties[words[1]].auto.kill()
        elif kind == "kill":
            self.proxies[words[1]].signal(getattr(signals, "SIG" + words[2]))
        else:
            raise SyntaxError(f"{self.path}:{number}: unknown {kind}")

    def seen(self, rest):
        name, op, count, pattern = rest.split(None, 3)
        auto, count = self.parties[name].auto, int(count)
        if op == ">=":
            until(lambda: auto.count(pattern) >= count, STEP, f"{name} has received {pattern}")
        elif op == "==":
            if auto.count(pattern) != count:
                raise Fault(f"{name} has received {pattern} {auto.count(pattern)} times, not {count}")
        else:
            raise SyntaxError(f"seen: {op}")

    def order(self, rest):
        """`order s1 A, B, C`: an `auto` server has received these in this order."""
        name, _, texts = rest.partition(" ")
        auto = self.parties[name].auto
        places = []
        for text in texts.split(", "):
            at = [i for i, s in enumerate(auto.seen) if text in s]
            if len(at) != 1:
                raise Fault(f"{name} has received {text!r} {len(at)} times")
            places += at
        if places != sorted(places):
            raise Fault(f"{name} has received {texts!r} in the order of {places}")

    def start_proxy(self, name, lines):
        lines = [self.fill_in(line) for _, line, _, _, _ in lines]
        port = int(self.value(name + "_port"))
        if any(line.startswith("[") for line in lines):
            text = "\n".join(lines) + "\n"
        else:
            of = {"db": {}, "user": {}, "set": dict(default_pool_size=1, server_login_retry=1,
                                                     server_tls_sslmode="disable")}
            for line in lines:
                key, _, value = (w.strip() for w in line.partition("="))
                kind, _, what = key.partition(" ")
                of[kind if what else "set"][what or key] = value
            text = config(of["db"], port, of["user"], **of["set"])
        self.proxies[name] = Proxy(text, port=port)
