"""ORMs, each with a script of its own in orm/: on a database in session and in transaction mode,
and on a virtual database whose table user_activity lives on another member than the rest."""
import json
import os
import shutil
import subprocess
import sys

import pytest

import bank
import fetch
from proxy import is_standin

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "orm")


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    with pg.connect("postgres") as c:
        c.execute("drop database if exists orm with (force)")
        c.execute("create database orm owner alice")
    with pg.connect("orm", user="alice") as c:
        c.execute("create table accounts as select user_id from generate_series(1, 100) user_id")
    with pg.connect("bank_p", user="alice") as p, pg.connect("bank_s", user="alice") as s:
        p.execute("insert into accounts select i, 0 from generate_series(2, 120, 2) i on conflict do nothing")
        s.execute("insert into accounts select i, 0 from generate_series(1, 119, 2) i on conflict do nothing")
    at = f"host=127.0.0.1 port={pg.port} dbname=orm"
    return module_proxy(pg, {"session": f"{at} pool_mode=session pool_size=20",
                             "transaction": f"{at} pool_mode=transaction pool_size=3"},
                        sections=bank.sections(pg), default_pool_size=3)


def said(door, database):
    """What a script is told of the database."""
    is_virtual = database == "bank"
    return {"host": "127.0.0.1", "port": door.port, "user": "alice", "password": "pw-alice",
            "database": database, "member": "bank.analytics" if is_virtual else database,
            "isVirtual": is_virtual, "keepsCursors": database == "session" or not is_standin(),
            "activityAt": "bank_a" if is_virtual else "orm"}


def run(*command, **env):
    done = subprocess.run(command, timeout=120, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, **env))
    assert done.returncode == 0 and done.stdout.endswith("fine\n"), done.stdout[-4000:]


DATABASES = ["session", "transaction", "bank"]


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("orm", ["sequelize", "typeorm", "knex"])
def test_node(door, orm, database):
    modules, why = fetch.node()
    if not modules:
        pytest.skip(why)
    run("node", os.path.join(HERE, f"{orm}.js"), json.dumps(said(door, database)), NODE_PATH=modules)


@pytest.mark.parametrize("database", DATABASES)
def test_django(door, database):
    pytest.importorskip("django")
    run(sys.executable, os.path.join(HERE, "django_.py"), json.dumps(said(door, database)))


JDBC = "/usr/share/java/postgresql.jar"


def test_jdbc(door):
    """Where there is a JDK: the test run installs none."""
    if not (shutil.which("javac") and os.path.exists(JDBC)):
        pytest.skip("no JDK, or no pgJDBC")
    words = [" ".join(f"{k}={v}" for k, v in said(door, database).items()) for database in DATABASES[1:]]
    run("java", "-cp", JDBC, os.path.join(HERE, "Jdbc.java"), *words)
