"""psycopg2 (libpq, simple protocol) in transaction mode."""
import io

import psycopg2
import pytest


@pytest.fixture(scope="module")
def door(module_proxy, any_pg):
    return module_proxy(any_pg, pool_mode="transaction", default_pool_size=3)


def test_query_and_transaction(door):
    with psycopg2.connect(door.dsn()) as c:
        cur = c.cursor()
        cur.execute("select %s, %s", (1, "it's"))
        assert cur.fetchone() == (1, "it's")
        cur.execute("create table t_psycopg2 (a int)")
        c.rollback()
        cur.execute("select to_regclass('t_psycopg2')")
        assert cur.fetchone() == (None,)
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cur.execute("select 1/0")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cur.execute("select 1")
        c.rollback()
        cur.execute("select 2")
        assert cur.fetchone() == (2,)
    c.close()


def test_copy(door):
    c = psycopg2.connect(door.dsn())
    cur = c.cursor()
    cur.execute("create temp table t_copy2 (a int, b text) on commit drop")
    data = "".join(f"{i}\ttext {i}\n" for i in range(50000))
    cur.copy_expert("copy t_copy2 from stdin", io.StringIO(data))
    out = io.StringIO()
    cur.copy_expert("copy t_copy2 to stdout", out)
    assert out.getvalue() == data
    c.rollback()
    c.close()


def test_named_cursor(door):
    c = psycopg2.connect(door.dsn())
    cur = c.cursor("named")
    cur.execute("select generate_series(1, 3000)")
    assert sum(r[0] for r in cur) == 4501500
    c.close()


def test_autocommit_and_parameters(door):
    c = psycopg2.connect(door.dsn(application_name="two"))
    c.autocommit = True
    c.set_client_encoding("LATIN1")
    cur = c.cursor()
    cur.execute("show application_name")
    assert cur.fetchone() == ("two",)
    cur.execute("select 'ä'")
    assert cur.fetchone() == ("ä",)
    cur.execute("show client_encoding")
    assert cur.fetchone() == ("LATIN1",)
    c.close()
