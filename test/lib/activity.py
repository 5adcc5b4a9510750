"""What the backends of a cluster do, seen from the server's side; and what can happen to them:
frozen (SIGSTOP), terminated, killed."""
import contextlib
import os
import signal

import bank
from poll import until

MEMBERS = list(bank.MEMBERS.values())


def backends(pg, sql="true", databases=MEMBERS):
    """(database, pid, state, query) of those in these databases for which `sql` holds; what
    health's probes do is left out."""
    with pg.connect("postgres") as c:
        return c.execute(
            "select datname, pid, state, query from pg_stat_activity where datname = any(%s) "
            f"and application_name <> 'pgweave health' and ({sql}) order by 1, 2",
            [list(databases)]).fetchall()


def pids(pg, sql="true", databases=MEMBERS):
    return [b[1] for b in backends(pg, sql, databases)]


def open_transactions(pg, databases=MEMBERS):
    """The databases in which a transaction is open and waits for its client."""
    return [b[0] for b in backends(pg, "state ~ '^idle in'", databases)]


def busy(pg, text):
    """Waits until a backend runs a statement with this text; answers its pid."""
    sql = f"state = 'active' and query ~ '{text}'"
    return until(lambda: pids(pg, sql), 5, f"{text} runs")[0]


def await_rest(pg, databases=MEMBERS, seconds=8):
    """Waits until every backend is idle, with no transaction."""
    until(lambda: not backends(pg, "state <> 'idle'", databases), seconds, "all backends idle")


def terminate(pg, sql, databases=MEMBERS):
    for pid in pids(pg, sql, databases):
        with pg.connect("postgres") as c:
            c.execute("select pg_terminate_backend(%s)", [pid])


@contextlib.contextmanager
def frozen(pg, sql="true", databases=MEMBERS):
    """These backends neither read nor answer meanwhile; answers their pids."""
    found = pids(pg, sql, databases)
    assert found, "nobody to freeze"
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield found
    finally:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
