"""psql through the proxy: scripts, \\copy, \\d, Ctrl-C, connection options; pg_dump in session mode."""
import os
import signal
import subprocess

import pytest

import fetch
from poll import until


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    return module_proxy(pg, pool_mode="transaction", default_pool_size=2)


def psql(door, *args, stdin=None, user="alice", dbname="shop", env=None):
    return subprocess.run(
        ["psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", door.dsn(dbname, user), *args],
        input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
        env=dict(os.environ, **(env or {})))


def test_query(door):
    done = psql(door, "-c", "select 1", "-c", "select 'two'")
    assert (done.returncode, done.stdout) == (0, "1\ntwo\n")
    done = psql(door, "-c", "select 1/0")
    assert done.returncode == 1 and "division by zero" in done.stderr


def test_script(door):
    done = psql(door, stdin="""
        begin;
        create temp table t_psql (a int, b text) on commit drop;
        \\copy t_psql from program 'seq 1 5 | sed "s/$/\\tx/"'
        select sum(a) from t_psql;
        \\copy t_psql to stdout
        commit;
        \\d
        \\dt pg_catalog.pg_class
        \\conninfo
        """)
    assert done.returncode == 0, done.stderr
    assert "\n15\n1\tx\n" in "\n" + done.stdout and "pg_class" in done.stdout


def test_options(door, only_pgweave):
    env = {"PGOPTIONS": "-c search_path=pg_catalog -c work_mem=7MB"}
    done = psql(door, "-c", "show search_path", "-c", "show work_mem", env=env)
    assert done.stdout == "pg_catalog\n7MB\n", done.stderr


def test_interrupt(door):
    """Ctrl-C in psql: the statement ends on the server and in psql, its link serves on."""
    p = subprocess.Popen(["psql", "-X", "-At", "-d", door.dsn()], stdin=subprocess.PIPE, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        p.stdin.write("select pg_sleep(30), 'token-interrupt';\n")
        p.stdin.flush()
        with door.pg.connect() as d:
            until(lambda: d.execute("select count(*) from pg_stat_activity where state = 'active' and "
                                    "query like '%token-interrupt%' and pid <> pg_backend_pid()"
                                    ).fetchone()[0] == 1, 10, "the statement runs")
            p.send_signal(signal.SIGINT)
            until(lambda: d.execute("select count(*) from pg_stat_activity where state = 'active' and "
                                    "query like '%token-interrupt%' and pid <> pg_backend_pid()"
                                    ).fetchone()[0] == 0, 10, "the statement is cancelled")
        out, _ = p.communicate(timeout=10)
        assert "canceling statement due to user request" in out
        assert psql(door, "-c", "select 'still here'").stdout == "still here\n"
    finally:
        p.kill()
        p.wait()


def test_dump(proxy, pg):
    door = proxy(pg, pool_mode="session")
    with door.pg.connect(user="alice") as d:
        d.execute("create table t_dump as select generate_series(1, 1000) a")
    done = subprocess.run([os.path.join(fetch.PG15, "pg_dump"), "-t", "t_dump", door.dsn()],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    with door.pg.connect(user="alice") as d:
        d.execute("drop table t_dump")
    assert done.returncode == 0, done.stderr
    assert "\n1000\n" in done.stdout
