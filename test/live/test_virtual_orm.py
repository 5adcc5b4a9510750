"""ORMs and drivers of Python and Node on a virtual database: tables of two members in one model."""
import asyncio
import json
import os
import subprocess

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, declarative_base

import bank
import fetch

Base = declarative_base()


class Customer(Base):
    __tablename__ = "orm_customer"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(50), nullable=False)


class Activity(Base):
    __tablename__ = "user_activity"
    id = sa.Column(sa.Integer, primary_key=True)
    user_id = sa.Column(sa.Integer, nullable=False)
    kind = sa.Column(sa.String(50))


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    bank.create(pg)
    return module_proxy(pg, sections=bank.sections(pg), default_pool_size=4)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_sqlalchemy(door, pg, driver):
    if driver == "psycopg" and sa.__version__ < "2":
        driver = "psycopg2"
    engine = sa.create_engine(f"postgresql+{driver}://alice:pw-alice@127.0.0.1:{door.port}/bank",
                              pool_size=5, future=True)
    with engine.begin() as c:
        c.execute(sa.text("drop table if exists orm_customer"))
    with engine.begin() as c:
        c.execute(sa.text("drop table if exists user_activity"))
    Customer.__table__.create(engine)
    # a table of another member: reflection looks at the default one
    with engine.begin() as c:
        c.execute(sa.schema.CreateTable(Activity.__table__))
    with Session(engine) as s:
        s.add_all(Customer(name=f"c{i}") for i in range(50))
        s.commit()
        s.add_all(Activity(user_id=i % 7, kind="click") for i in range(70))
        s.commit()
        # both in one transaction, read
        assert s.query(Customer).filter(Customer.id > 10).count() == 40
        assert s.query(Activity).filter_by(user_id=3).count() == 10
        first = s.get(Customer, 1)
        first.name = "Ada"
        s.commit()
        with pytest.raises(sa.exc.IntegrityError):
            with s.begin_nested():
                s.execute(sa.insert(Customer).values(id=1, name="again"))
        assert s.get(Customer, 1).name == "Ada"
        s.rollback()
        # written in both: refused, and nothing of it stays
        s.add(Customer(name="both"))
        s.flush()
        with pytest.raises(sa.exc.DBAPIError):
            s.execute(sa.insert(Activity).values(user_id=1, kind="both"))
        s.rollback()
        assert s.query(Customer).filter_by(name="both").count() == 0
    assert "orm_customer" in sa.inspect(engine).get_table_names()
    engine.dispose()
    with pg.connect("bank_a") as a:
        assert a.execute("select count(*) from user_activity").fetchone() == (70,)


def test_asyncpg(door):
    async def go():
        engine = create_async_engine(
            f"postgresql+asyncpg://alice:pw-alice@127.0.0.1:{door.port}/bank", pool_size=4)
        async with AsyncSession(engine) as s:
            await s.execute(sa.text("create table if not exists orm_async (id int primary key, v text)"))
            await s.execute(sa.text("insert into orm_async values (1, 'x') on conflict do nothing"))
            await s.commit()
            assert (await s.execute(sa.text("select v from orm_async where id = :i"), {"i": 1})).scalar() == "x"
            assert (await s.execute(sa.text("select count(*) from accounts where user_id = :i"),
                                    {"i": 41})).scalar() == 1
            assert (await s.execute(sa.text("select count(*) from accounts"))).scalar() == 100
        await engine.dispose()
    asyncio.run(asyncio.wait_for(go(), 60))


SCRIPT = r"""
const { Pool } = require('pg')
const assert = require('assert')
const config = JSON.parse(process.argv[2])
async function main () {
  const pool = new Pool({ ...config, max: 6 })
  const jobs = []
  for (let i = 1; i <= 60; i++) {
    const id = i <= 40 ? i : 2 * i
    const q = { text: 'select current_database() as db, user_id from accounts where user_id = $1', values: [id] }
    if (i % 2) q.name = 'by_id'
    jobs.push(pool.query(q).then(r => {
      assert.strictEqual(r.rows[0].user_id, id)
      assert.strictEqual(r.rows[0].db, id % 2 ? 'bank_s' : 'bank_p')
    }))
  }
  await Promise.all(jobs)
  const c = await pool.connect()
  await c.query('begin')
  const n = (await c.query('select count(*)::int as n from analytics_events')).rows[0].n
  await c.query('insert into analytics_events (user_id, kind) values ($1, $2)', [7, 'node'])
  assert.strictEqual((await c.query('select count(*)::int as n from analytics_events')).rows[0].n, n + 1)
  await c.query('rollback')
  await c.query("set pgweave.databases = 'primary,secondary'")
  assert.strictEqual((await c.query('select count(*) as n from users where id > $1', [0])).rows[0].n, '100')
  await c.query("set pgweave.federation = 'tag'")
  const t = await c.query('select count(*) as n from users')
  assert.deepStrictEqual(t.rows.map(r => [r.database, r.n]), [['primary', '60'], ['secondary', '40']])
  await c.query('reset pgweave.databases')
  await assert.rejects(c.query('select * from nosuch'), e => e.code === '42P01')
  c.release()
  await pool.end()
  console.log('fine')
}
main().catch(e => { console.error(e); process.exit(1) })
"""


def test_node(door, tmp_path):
    modules, why = fetch.node()
    if not modules:
        pytest.skip("no node-postgres: " + why)
    script = tmp_path / "virtual.js"
    script.write_text(SCRIPT)
    config = {"host": "127.0.0.1", "port": door.port, "user": "alice", "password": "pw-alice",
              "database": "bank"}
    done = subprocess.run(["node", str(script), json.dumps(config)], capture_output=True, text=True,
                          timeout=60, env=dict(os.environ, NODE_PATH=modules))
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr
