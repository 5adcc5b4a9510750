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
import shutil
import signal as signals
import tempfile
import threading
import time

from parties import STEP, Client, Fault, Listener, Server
from poll import Late, until
from proxy import Proxy, config, free_port, is_sanitized, is_standin

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
            if not is_standin():
                of["set"]["workers"] = 2
            for line in lines:
                key, _, value = (w.strip() for w in line.partition("="))
                kind, _, what = key.partition(" ")
                of[kind if what else "set"][what or key] = value
            text = config(of["db"], port, of["user"], **of["set"])
        self.proxies[name] = Proxy(text, port=port)
