"""Debian's PgBouncer and pgweave side by side: one configuration, one question, two answers."""
import os
import shutil
import signal
import subprocess
import tempfile

import psycopg
from psycopg import pq

from poll import until
from proxy import auth_file, config, free_port, program

PLACES = ("/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer")
PGBOUNCER = next((p for p in PLACES if os.access(p, os.X_OK)), None)


class Side:
    """One of the two, running."""

    def __init__(self, path, databases, secrets, is_pgweave, **settings):
        self.dir = tempfile.mkdtemp(prefix="pgweave-side-")
        os.chmod(self.dir, 0o777)
        self.port = free_port()
        self.is_pgweave = is_pgweave
        given = dict(auth_type="trust", admin_users="admin", stats_users="stats",
                     unix_socket_dir=self.dir, server_login_retry=1,
                     auth_file=auth_file(self.dir + "/users.txt", secrets))
        given.update(settings)
        if is_pgweave:
            given.update(state_dir=self.dir, workers=2)
        self.ini = self.dir + "/p.ini"
        with open(self.ini, "w") as f:
            f.write(config(databases, self.port, **given))
        os.chmod(self.ini, 0o644)
        command = [path, *(["-u", "postgres"] if os.geteuid() == 0 and not is_pgweave else []),
                   self.ini]
        with open(self.dir + "/log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.dir)
        until(lambda: self.process.poll() is not None or "process up" in self.log(), 10)
        assert self.process.poll() is None, self.log()

    def log(self):
        with open(self.dir + "/log", errors="replace") as f:
            return f.read()

    def connect(self, database="shop", user="alice", **options):
        c = psycopg.connect(host="127.0.0.1", port=self.port, dbname=database, user=user,
                            password="pw-" + user, autocommit=True, connect_timeout=10, **options)
        c.prepare_threshold = None
        return c

    def refusal(self, database, user="alice"):
        """What a client that cannot log in is told."""
        try:
            self.connect(database, user).close()
        except psycopg.OperationalError as e:
            return str(e).split("FATAL:")[-1].strip()
        return None

    def ask(self, sql, user="admin"):
        with Console(self, user) as c:
            return c.ask(sql)

    def rows(self, view, **where):
        """SHOW view as dicts, those with these values."""
        answer = self.ask("SHOW " + view)
        rows = [dict(zip([c[0] for c in answer["columns"]], r)) for r in answer["rows"]]
        return [r for r in rows if all(r[k] == v for k, v in where.items())]

    def stop(self):
        if self.process.poll() is None:
            # 1.18 knows no SIGQUIT, and a shell's background job ignores it.
            self.process.send_signal(signal.SIGQUIT if self.is_pgweave else signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Console:
    def __init__(self, side, user="admin"):
        self.c = pq.PGconn.connect(
            f"host=127.0.0.1 port={side.port} dbname=pgbouncer user={user} password=pw-{user}".encode())
        assert self.c.status == pq.ConnStatus.OK, self.c.error_message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.c.finish()

    def ask(self, sql):
        """columns with their types, rows, tag, notices; or error: severity, SQLSTATE, message."""
        notices = []
        text = lambda b: None if b is None else b.decode()  # noqa: E731
        said = pq.DiagnosticField
        self.c.notice_handler = lambda r: notices.append(text(r.error_field(said.MESSAGE_PRIMARY)))
        r = self.c.exec_(sql.encode())
        if r.status == pq.ExecStatus.FATAL_ERROR:
            return {"error": tuple(text(r.error_field(f)) for f in
                                   (said.SEVERITY, said.SQLSTATE, said.MESSAGE_PRIMARY))}
        return {"columns": [(text(r.fname(i)), r.ftype(i)) for i in range(r.nfields)],
                "rows": [[text(r.get_value(n, i)) for i in range(r.nfields)]
                         for n in range(r.ntuples)],
                "tag": text(r.command_status), "notices": notices}


def pair(databases, secrets, **settings):
    """PgBouncer first, then pgweave."""
    sides = [Side(PGBOUNCER, databases, secrets, False, **settings)]
    try:
        sides.append(Side(program(), databases, secrets, True, **settings))
    except BaseException:
        sides[0].stop()
        raise
    return sides
