"""asyncpg in transaction mode, with its cache of prepared statements on: every connection uses the
same names for different texts."""
import asyncio

import asyncpg
import pytest

from proxy import is_standin


@pytest.fixture(scope="module")
def door(module_proxy, any_pg):
    return module_proxy(any_pg, pool_mode="transaction", default_pool_size=3)


def connect(door, **options):
    if is_standin():
        options["statement_cache_size"] = 0
    return asyncpg.connect(host="127.0.0.1", port=door.port, user="alice", password="pw-alice",
                           database="shop", **options)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_query(door):
    async def go():
        c = await connect(door)
        assert await c.fetchval("select 1") == 1
        assert await c.fetchval("select $1::text || $2", "a", "b") == "ab"
        rows = await c.fetch("select g, g * 2 as twice from generate_series(1, 1000) g")
        assert [r["twice"] for r in rows] == [2 * i for i in range(1, 1001)]
        assert await c.execute("select 1") == "SELECT 1"
        with pytest.raises(asyncpg.DivisionByZeroError):
            await c.fetchval("select 1/0")
        assert await c.fetchval("select 2") == 2
        await c.close()
    run(go())


def test_statement_cache(door, only_pgweave):
    """Many connections with a few texts each, over three links."""
    async def one(i):
        c = await connect(door)
        for n in range(30):
            assert await c.fetchval("select $1::int + $2::int", i, n) == i + n
            assert await c.fetchval(f"select {i} + $1::int", n) == i + n
            if n % 10 == 5:
                async with c.transaction():
                    assert await c.fetchval("select $1::int", n) == n
        await c.close()

    async def go():
        await asyncio.gather(*(one(i) for i in range(20)))
    run(go())


def test_prepare_and_cursor(door, only_pgweave):
    async def go():
        c = await connect(door)
        s = await c.prepare("select $1::int * g as x from generate_series(1, 100) g")
        assert sum(r["x"] for r in await s.fetch(3)) == 15150
        async with c.transaction():
            total = 0
            async for r in c.cursor("select g from generate_series(1, 1000) g", prefetch=50):
                total += r["g"]
            assert total == 500500
        assert [a.name for a in s.get_attributes()] == ["x"]
        await c.close()
    run(go())


def test_executemany_and_copy(door):
    async def go():
        c = await connect(door)
        async with c.transaction():
            await c.execute("create temp table t_a (a int, b text) on commit drop")
            await c.executemany("insert into t_a values ($1, $2)", [(i, str(i)) for i in range(500)])
            await c.copy_records_to_table("t_a", records=[(i, "c") for i in range(5000)])
            assert await c.fetchval("select count(*) from t_a") == 5500
        await c.close()
    run(go())


def test_pool(door, only_pgweave):
    async def go():
        async with asyncpg.create_pool(host="127.0.0.1", port=door.port, user="alice",
                                       password="pw-alice", database="shop", min_size=10,
                                       max_size=10) as pool:
            async def one(i):
                async with pool.acquire() as c:
                    return await c.fetchval("select $1::int", i)
            assert await asyncio.gather(*(one(i) for i in range(200))) == list(range(200))
    run(go())


def test_cancel_by_timeout(door):
    async def go():
        c = await connect(door)
        with pytest.raises(asyncio.TimeoutError):
            await c.fetchval("select pg_sleep(30)", timeout=0.3)
        assert await c.fetchval("select 5") == 5
        await c.close()
    run(go())
