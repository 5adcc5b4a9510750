"""psycopg 3 in transaction mode: queries, transactions, prepared statements, pipelines, COPY both
ways, large values, errors, notices, cursors, binary results."""
import threading

import psycopg
import pytest

from proxy import is_standin


@pytest.fixture(scope="module")
def door(module_proxy, any_pg):
    return module_proxy(any_pg, pool_mode="transaction", default_pool_size=3)


def test_query(door):
    with door.connect() as c:
        assert c.execute("select 1, 'a', null").fetchone() == (1, "a", None)
        assert c.execute("select %s::int + 1", [41]).fetchone() == (42,)
        assert len(c.execute("select generate_series(1, 10000)").fetchall()) == 10000
        assert c.execute("").statusmessage is None


def test_server_is_seen(door):
    with door.connect() as c:
        assert c.info.server_version // 10000 == int(door.pg.version)
        assert c.info.parameter_status("TimeZone") == "UTC"
        assert c.info.encoding == "utf-8"


def test_transactions(door):
    with door.connect(autocommit=False) as c:
        c.execute("create table t_psycopg (a int)")
        c.commit()
        c.execute("insert into t_psycopg values (1)")
        c.rollback()
        assert c.execute("select count(*) from t_psycopg").fetchone() == (0,)
        with c.transaction():
            c.execute("insert into t_psycopg values (2)")
            with pytest.raises(psycopg.errors.DivisionByZero):
                with c.transaction():
                    c.execute("select 1/0")
            c.execute("insert into t_psycopg values (3)")
        c.commit()
        assert c.execute("select array_agg(a order by a) from t_psycopg").fetchone() == ([2, 3],)
        c.execute("drop table t_psycopg")
        c.commit()


def test_isolated_from_each_other(door):
    """More transactions at a time than links: each sees its own."""
    with door.pg.connect() as d:
        d.execute("create table if not exists t_iso (who int, n int)")
        d.execute("grant all on t_iso to public")
        d.execute("truncate t_iso")
    failures = []

    def work(who):
        try:
            with door.connect(autocommit=False) as c:
                for n in range(20):
                    c.execute("insert into t_iso values (%s, %s)", [who, n])
                    got = c.execute("select count(*) from t_iso where who = %s", [who]).fetchone()
                    assert got == (n + 1,)
                    c.commit()
        except Exception as e:  # noqa: BLE001: reported below
            failures.append(repr(e))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failures
    with door.pg.connect() as d:
        assert d.execute("select count(*), count(distinct who) from t_iso").fetchone() == (160, 8)
        d.execute("drop table t_iso")


def test_prepared(door, only_pgweave):
    """Prepared under psycopg's names; the same names on every connection, links shared."""
    connections = [door.connect() for _ in range(6)]
    for c in connections:
        c.prepare_threshold = 0
    for n in range(10):
        for i, c in enumerate(connections):
            assert c.execute("select %s::int * 2", [n * 100 + i]).fetchone() == ((n * 100 + i) * 2,)
            assert c.execute("select %s::text || 'x'", [str(i)]).fetchone() == (f"{i}x",)
    for c in connections:
        c.close()


def test_prepared_in_transactions(door, only_pgweave):
    with door.connect(autocommit=False) as a, door.connect(autocommit=False) as b:
        a.prepare_threshold = b.prepare_threshold = 0
        for n in range(10):
            assert a.execute("select %s::int", [n]).fetchone() == (n,)
            assert b.execute("select %s::int", [-n]).fetchone() == (-n,)
            (a if n % 2 else b).commit()


def test_pipeline(door):
    with door.connect(autocommit=True) as c:
        with c.pipeline():
            cursors = [c.execute("select %s::int", [i]) for i in range(200)]
            assert [k.fetchone()[0] for k in cursors] == list(range(200))


def test_pipeline_error(door):
    """libpq's pipeline: what stands behind an error is skipped up to the next Sync, not further."""
    with door.connect(autocommit=True) as c:
        p, status = c.pgconn, psycopg.pq.ExecStatus
        p.enter_pipeline_mode()
        for batch in (["select 1"], ["select 1/0", "select 2"], ["select 3"]):
            for sql in batch:
                p.send_query_params(sql.encode(), None)
            p.pipeline_sync()
        got = []
        while got.count("sync") < 3:
            r = p.get_result()
            if r is not None:
                got.append({status.TUPLES_OK: lambda: r.get_value(0, 0).decode(),
                            status.FATAL_ERROR: lambda: r.error_field(
                                psycopg.pq.DiagnosticField.SQLSTATE).decode(),
                            status.PIPELINE_ABORTED: lambda: "skipped",
                            status.PIPELINE_SYNC: lambda: "sync"}[r.status]())
        assert got == ["1", "sync", "22012", "skipped", "sync", "3", "sync"]
        p.exit_pipeline_mode()
        assert c.execute("select 4").fetchone() == (4,)


def test_pipeline_transaction(door):
    with door.connect(autocommit=False) as c:
        with c.pipeline():
            c.execute("create table t_pipe (a int)")
            for i in range(50):
                c.execute("insert into t_pipe values (%s)", [i])
            total = c.execute("select sum(a) from t_pipe")
            assert total.fetchone() == (1225,)
        c.rollback()


def test_copy(door):
    with door.connect(autocommit=False) as c:
        c.execute("create temp table t_copy (a int, b text) on commit drop")
        with c.cursor().copy("copy t_copy from stdin") as copy:
            for i in range(100000):
                copy.write_row((i, f"row {i}"))
        assert c.execute("select count(*), sum(a) from t_copy").fetchone() == (100000, 4999950000)
        with c.cursor().copy("copy t_copy to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 100000
        with c.cursor().copy("copy t_copy to stdout (format binary)") as copy:
            assert sum(len(b) for b in copy) > 100000 * 20
        c.rollback()


def test_copy_abandoned(door):
    with door.connect(autocommit=True) as c:
        with pytest.raises(psycopg.errors.QueryCanceled):
            with c.cursor().copy("copy (select 1) to stdout") as copy:
                for _ in copy:
                    raise psycopg.errors.QueryCanceled("stop")
        assert c.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.BadCopyFileFormat):
            c.execute("create table t_bad (a int)")
            with c.cursor().copy("copy t_bad from stdin") as copy:
                copy.write("x\ty\tz\n")
        c.execute("drop table t_bad")


@pytest.mark.parametrize("megabytes", [1, 10, 100])
def test_large_values(door, megabytes):
    size = megabytes << 20
    with door.connect() as c:
        got, = c.execute("select repeat('x', %s)", [size]).fetchone()
        assert len(got) == size
        data = b"\x00\x01\xfe\xff" * (size // 4)
        cur = c.cursor(binary=True)
        if megabytes < 100:
            assert cur.execute("select %b::bytea", [data]).fetchone() == (data,)
        else:
            assert cur.execute("select length(%b::bytea)", [data]).fetchone() == (size,)
        assert c.execute("select 1").fetchone() == (1,)


def test_large_statement(door):
    with door.connect() as c:
        text = "'" + "y" * (8 << 20) + "'"
        assert c.execute(f"select length({text})").fetchone() == (8 << 20,)


def test_errors(door):
    with door.connect() as c:
        for sql, error in [("select 1/0", psycopg.errors.DivisionByZero),
                           ("selekt", psycopg.errors.SyntaxError),
                           ("select * from no_such_table", psycopg.errors.UndefinedTable),
                           ("select 'x'::int", psycopg.errors.InvalidTextRepresentation)]:
            with pytest.raises(error) as e:
                c.execute(sql)
            assert e.value.diag.severity == "ERROR"
        assert c.execute("select 1").fetchone() == (1,)


def test_cursor_in_transaction(door):
    with door.connect(autocommit=False) as c:
        with c.cursor(name="big") as cur:
            cur.itersize = 100
            cur.execute("select generate_series(1, 5000)")
            assert sum(r[0] for r in cur) == 12502500


def test_notices(door):
    seen = []
    with door.connect() as c:
        c.add_notice_handler(lambda d: seen.append(d.message_primary))
        c.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
    assert seen == ["one", "two"]


def test_many_statements_in_one(door):
    with door.connect() as c:
        cur = c.execute("select 1; select 2; select 3")
        got = []
        while True:
            got.append(cur.fetchone()[0])
            if not cur.nextset():
                break
        assert got == [1, 2, 3]


def test_async(door):
    import asyncio

    async def work(i):
        async with await psycopg.AsyncConnection.connect(door.dsn()) as c:
            if is_standin():
                c.prepare_threshold = None
            for n in range(10):
                got = await (await c.execute("select %s::int", [i * 1000 + n])).fetchone()
                assert got == (i * 1000 + n,)
                await c.commit()

    async def all_of_them():
        await asyncio.gather(*(work(i) for i in range(20)))
    asyncio.run(all_of_them())
