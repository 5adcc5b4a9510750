"""A fake PostgreSQL that answers by itself, for scripts in which it does not matter how many
links the proxy opens or in what form its statements arrive, but what the client gets.

It knows sessions, transactions, named statements and portals, skips to Sync after an error,
and takes its orders from words in the statement:

    select …          one row: the text of the statement, then the parameters
    rows N            N rows: 1 … N          wide N      one row of N bytes
    show NAME / set NAME = 'V' / set NAME to 'V' / reset NAME    parameters, reported
    raise CODE        ERROR with that SQLSTATE when executed
    syntax …          refused by Parse       badbind …   refused by Bind
    baddescribe …     refused by Describe    badexec …   refused by Execute
    hang …            until it is cancelled  die …       the connection closes instead
    copy … from / copy … to    COPY; the answer's tag counts the rows

Everything it receives is kept as "CONNECTION STATUS Message details", STATUS being that of the
transaction (I, T, E) when the message came."""
import os
import re
import socket
import struct
import threading

import pgproto as pg

REPORTED = {"datestyle": "DateStyle", "timezone": "TimeZone", "client_encoding": "client_encoding",
            "application_name": "application_name", "intervalstyle": "IntervalStyle",
            "standard_conforming_strings": "standard_conforming_strings"}


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def is_look(sock):
    """Whether health has connected, or who reads the catalog: they come when it suits them, and
    scripts tell of links only."""
    sock.settimeout(1)
    try:
        head = sock.recv(4096, socket.MSG_PEEK)
        return b"pgweave health" in head or b"pgweave catalog" in head
    except OSError:
        return False
    finally:
        sock.settimeout(None)


class AutoServer:
    """Serves whoever connects to the listening socket until it is closed."""

    def __init__(self, sock, params, note):
        self.sock, self.params, self.note = sock, params, note
        self.seen, self.links, self.lock = [], [], threading.Lock()

    def serve(self, stop):
        while not stop.is_set():
            try:
                peer = self.sock.accept()[0]
                if is_look(peer):
                    peer.close()
                    continue
            except socket.timeout:
                continue
            except OSError:
                break
            with self.lock:
                link = Link(self, peer, len(self.links) + 1)
                self.links.append(link)
            threading.Thread(target=link.run, daemon=True).start()

    def record(self, text):
        with self.lock:
            self.seen.append(text)
        self.note(text)

    def count(self, pattern):
        with self.lock:
            return sum(1 for s in self.seen if re.search(pattern, s))

    def cancel(self, pid, key):
        with self.lock:
            found = [k for k in self.links if (k.pid, k.key) == (pid, key)]
        for link in found:
            link.cancelled.set()
        return found[0].number if found else 0

    def kill(self):
        with self.lock:
            for link in self.links:
                try:
                    link.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Link:
    def __init__(self, server, sock, number):
        self.server, self.sock, self.number = server, sock, number
        self.pid, self.key = 5000 + number, os.urandom(4)
        self.cancelled = threading.Event()
        self.status, self.skips, self.is_copying = "I", False, None
        self.statements, self.portals, self.gucs = {}, {}, {}
        self.out = b""

    def run(self):
        self.file = self.sock.makefile("rb")
        try:
            if self.startup():
                while self.message():
                    pass
        except (OSError, ValueError, struct.error):
            pass
        finally:
            self.server.note(f"{self.number} closed")
            self.file.close()
            self.sock.close()

    def need(self, size):
        b = self.file.read(size)
        if len(b) < size:
            raise OSError("closed")
        return b

    def flush(self):
        out, self.out = self.out, b""
        self.sock.sendall(out)

    def startup(self):
        while True:
            size, code = struct.unpack("!II", self.need(8))
            body = self.need(size - 8)
            if code in (pg.SSL_REQUEST, pg.GSSENC_REQUEST):
                self.sock.sendall(b"N")
                continue
            break
        if code == pg.CANCEL_REQUEST:
            hit = self.server.cancel(struct.unpack("!I", body[:4])[0], body[4:])
            self.server.record(f"{self.number} - CancelRequest {hit}")
            return False
        given = pg.startup_params(body)
        self.server.record(f"{self.number} - StartupMessage {given}")
        self.defaults = {k.lower(): v for k, v in self.server.params.items()}
        for k, v in given.items():
            if k.lower() in REPORTED:
                self.defaults[k.lower()] = v
        self.gucs = dict(self.defaults)
        self.out = pg.auth(0)
        for k in self.server.params:
            self.out += pg.parameter_status(k, self.gucs[k.lower()])
        self.out += pg.key_data(self.pid, self.key) + pg.ready("I")
        self.flush()
        return True

    def message(self):
        head = self.need(5)
        type_, body = chr(head[0]), self.need(struct.unpack("!I", head[1:])[0] - 4)
        name = pg.FRONTEND.get(type_, type_)
        try:
            got = pg.decode(False, type_, body)
        except (IndexError, ValueError, struct.error):
            self.server.record(f"{self.number} {self.status} Malformed {name} {body[:60]!r}")
            self.out += pg.error("08P01", f"invalid {name} message", "FATAL")
            self.flush()
            return False
        text = " ".join(f"{k}={v}" for k, v in got.items())
        if len(text) > 300:
            text = text[:300] + "…"
        self.server.record(f"{self.number} {self.status} {name} {text}")
        if type_ == "X":
            return False
        if self.is_copying:
            self.copying(type_, body)
            return True
        if self.skips and type_ != "S":
            return True
        try:
            {"Q": self.query, "P": self.parse, "B": self.bind, "D": self.describe,
             "E": self.execute, "C": self.close, "S": self.sync,
             "H": lambda g: self.flush()}.get(type_, lambda g: None)(got)
        except Refused as e:
            self.fail(e)
            if type_ == "Q":
                self.ready()
            else:
                self.skips = True
                self.flush()
        return True

    def fail(self, e):
        self.out += pg.error(e.code, str(e))
        if self.status == "T":
            self.status = "E"

    def ready(self):
        self.out += pg.ready(self.status)
        self.flush()

    # -- simple

    def query(self, got):
        parts = [s for s in got["sql"].split(";") if s.strip()]
        if not parts:
            self.out += pg.message("I")
        for sql in parts:
            self.statement(sql.strip(), [], True, "simple")
            if self.is_copying:
                return
        self.ready()

    # -- extended

    def parse(self, got):
        if re.match(r"\s*syntax", got["sql"]):
            raise Refused("42601", "syntax error")
        if got["name"] and got["name"] in self.statements:
            raise Refused("42P05", f'prepared statement "{got["name"]}" already exists')
        self.statements[got["name"]] = got["sql"]
        self.out += pg.message("1")

    def statement_of(self, name):
        if name not in self.statements:
            raise Refused("26000", f'prepared statement "{name}" does not exist')
        return self.statements[name]

    def bind(self, got):
        sql = self.statement_of(got["statement"])
        if sql.startswith("badbind"):
            raise Refused("22P02", "invalid input")
        self.portals[got["portal"]] = sql, [got[str(i)] for i in range(1, 20) if str(i) in got]
        self.out += pg.message("2")

    def describe(self, got):
        if got["what"] == "S":
            sql = self.statement_of(got["name"])
            self.out += pg.parameter_description([25] * len(set(re.findall(r"\$\d+", sql))))
        else:
            sql = self.portal(got["name"])[0]
        if sql.startswith("baddescribe"):
            raise Refused("XX001", "cannot describe")
        names = self.columns(sql)
        self.out += pg.row_description(names) if names else pg.message("n")

    def portal(self, name):
        if name not in self.portals:
            raise Refused("34000", f'portal "{name}" does not exist')
        return self.portals[name]

    def execute(self, got):
        sql, params = self.portal(got["portal"])
        if sql.startswith("badexec"):
            raise Refused("22012", "division by zero")
        self.statement(sql, params, False, "extended")

    def close(self, got):
        (self.statements if got["what"] == "S" else self.portals).pop(got["name"], None)
        self.out += pg.message("3")

    def sync(self, got):
        self.skips = False
        self.portals.clear()
        self.ready()

    # -- statements

    def columns(self, sql):
        if re.match(r"\s*(select|badexec)", sql, re.I):
            return ["sql"] + [f"p{i + 1}" for i in range(len(set(re.findall(r"\$\d+", sql))))]
        if re.match(r"\s*(rows|wide|show)", sql, re.I):
            return ["a"]
        return None

    def statement(self, sql, params, wants_names, how):
        word = (sql.split() or [""])[0].lower()
        if self.status == "E" and word not in ("rollback", "commit", "end", "abort"):
            raise Refused("25P02", "current transaction is aborted")
        names = self.columns(sql)
        if names and wants_names:
            self.out += pg.row_description(names)
        if word == "select":
            for name, value in re.findall(r"set_config\('(\w+)',\s*E?'([^']*)'", sql, re.I):
                self.set(name, value)
            self.out += pg.data_row([sql] + params) + pg.complete("SELECT 1")
        elif word == "rows":
            n = int(sql.split()[1])
            for i in range(n):
                self.out += pg.data_row([str(i + 1)])
                if len(self.out) > 1 << 16:
                    self.flush()
            self.out += pg.complete(f"SELECT {n}")
        elif word == "wide":
            self.out += pg.data_row(["x" * int(sql.split()[1])]) + pg.complete("SELECT 1")
        elif word in ("begin", "start"):
            self.status = "T"
            self.out += pg.complete("BEGIN")
        elif word in ("commit", "end", "rollback", "abort"):
            done = "ROLLBACK" if self.status == "E" or word[0] in "ra" else "COMMIT"
            self.status = "I"
            self.out += pg.complete(done)
        elif word == "set":
            m = re.match(r"set\s+(?:session\s+)?(\w+)\s*(?:=|\s+to)\s*'?(.*?)'?\s*$", sql, re.I)
            self.set(m[1], m[2])
            self.out += pg.complete("SET")
        elif word == "reset":
            self.set(sql.split()[1], None)
            self.out += pg.complete("RESET")
        elif word == "show":
            self.out += pg.data_row([self.gucs.get(sql.split()[1].lower(), "")]) + pg.complete("SHOW")
        elif word == "discard":
            self.statements.clear()
            for k in list(self.gucs):
                self.set(k, None)
            self.out += pg.complete("DISCARD ALL")
        elif word == "deallocate":
            self.statements.clear()
            self.out += pg.complete("DEALLOCATE ALL")
        elif word == "raise":
            raise Refused(sql.split()[1], "raised")
        elif word == "hang":
            self.flush()
            self.cancelled.clear()
            if not self.cancelled.wait(20):
                raise Refused("XX000", "nobody cancelled")
            raise Refused("57014", "canceling statement due to user request")
        elif word == "die":
            self.flush()
            raise OSError("told to die")
        elif word == "copy" and " from" in sql:
            self.is_copying, self.copied = how, 0
            self.out += pg.copy_response("G")
            self.flush()
        elif word == "copy":
            self.out += pg.copy_response("H") + pg.copy_data(b"1\n") + pg.copy_data(b"2\n")
            self.out += pg.COPY_DONE + pg.complete("COPY 2")
        else:
            self.out += pg.complete(word.upper())

    def set(self, name, value):
        name = name.lower()
        value = self.defaults.get(name) if value is None else value
        if value is not None and self.gucs.get(name) != value:
            self.gucs[name] = value
            if name in REPORTED:
                self.out += pg.parameter_status(REPORTED[name], value)

    def copying(self, type_, body):
        """COPY FROM STDIN: Sync and Flush are ignored, as PostgreSQL does."""
        how = self.is_copying
        if type_ == "d":
            self.copied += body.count(b"\n")
        elif type_ in "cf":
            self.is_copying = None
            if type_ == "c":
                self.out += pg.complete(f"COPY {self.copied}")
            else:
                self.fail(Refused("57014", "COPY from stdin failed"))
                self.skips = how == "extended"
            if how == "simple":
                self.ready()
            else:
                self.flush()
        elif type_ not in "SH":
            self.is_copying = None
            self.fail(Refused("08P01", f"unexpected message {type_} during COPY"))
            self.skips = True
