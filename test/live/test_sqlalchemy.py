"""SQLAlchemy (over psycopg2 and asyncpg) in transaction mode: ORM, reflection, savepoints, its pool."""
import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()


class Account(Base):
    __tablename__ = "sa_account"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(50), nullable=False)
    balance = sa.Column(sa.Numeric(12, 2), nullable=False)


@pytest.fixture(scope="module")
def door(module_proxy, any_pg):
    return module_proxy(any_pg, pool_mode="transaction", default_pool_size=3)


@pytest.fixture
def engine(door):
    e = sa.create_engine(f"postgresql+psycopg2://alice:pw-alice@127.0.0.1:{door.port}/shop",
                         pool_size=8, future=True)
    yield e
    e.dispose()


def test_orm(engine):
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as s:
        s.add_all(Account(name=f"a{i}", balance=i) for i in range(100))
        s.commit()
        assert s.query(Account).filter(Account.balance > 50).count() == 49
        with pytest.raises(sa.exc.IntegrityError):
            with s.begin_nested():
                s.execute(sa.insert(Account).values(id=1, name="again", balance=0))
        first = s.get(Account, 1)
        first.balance += 7
        s.commit()
        assert s.get(Account, 1).balance == first.balance
    assert "sa_account" in sa.inspect(engine).get_table_names()
    assert [c["name"] for c in sa.inspect(engine).get_columns("sa_account")] == [
        "id", "name", "balance"]
    Base.metadata.drop_all(engine)


def test_threads(engine):
    def one(i):
        with engine.begin() as c:
            return c.execute(sa.text("select :x + 1"), {"x": i}).scalar()
    with ThreadPoolExecutor(8) as ex:
        assert list(ex.map(one, range(200))) == [i + 1 for i in range(200)]


def test_asyncpg_engine(door, only_pgweave):
    async def go():
        e = create_async_engine(f"postgresql+asyncpg://alice:pw-alice@127.0.0.1:{door.port}/shop",
                                pool_size=8)

        async def one(i):
            async with e.begin() as c:
                return (await c.execute(sa.text("select cast(:x as int) * 2"), {"x": i})).scalar()
        got = await asyncio.gather(*(one(i) for i in range(100)))
        assert got == [2 * i for i in range(100)]
        await e.dispose()
    asyncio.run(asyncio.wait_for(go(), 60))
